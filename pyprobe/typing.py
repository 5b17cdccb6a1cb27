"""Types that the public signatures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["Array", "ArrayLike", "FloatArray", "Rng"]

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""A NumPy array of float32 or float64."""

Array: TypeAlias = "FloatArray | torch.Tensor"
"""What comes out: the library, dtype and device of what went in."""

ArrayLike: TypeAlias = "npt.ArrayLike | torch.Tensor"
"""What goes in: numbers, sequences, NumPy arrays or torch tensors."""

Rng: TypeAlias = "int | np.random.Generator | torch.Generator | None"
"""A seed (repeats), a generator (advances), or None (fresh entropy)."""
