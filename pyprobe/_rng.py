"""Random keys: the one crossing from a user's generator to the Rust streams.

A kernel takes a 128-bit key and derives its streams from (key, chunk), so neither the number of
threads nor the chunking changes a draw.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from pyprobe.errors import DomainError
from pyprobe.typing import Rng

if TYPE_CHECKING:
    import torch

__all__ = ["key"]


def key(rng: Rng) -> int:
    """Return a 128-bit key: an int seed repeats it, a generator advances, None is fresh entropy."""
    if rng is None:
        return _mix(np.random.SeedSequence())
    if isinstance(rng, np.random.Generator):
        return _join(rng.integers(0, 2**32, size=4, dtype=np.uint32))
    if _is_torch_generator(rng):
        # The loaded module, by its entry: importing torch is left to those who use it.
        words = sys.modules["torch"].randint(0, 2**32, (4,), generator=rng, device=rng.device)
        return _join(words.cpu().numpy())
    try:
        if isinstance(rng, bool):
            raise TypeError
        seed = operator.index(rng)  # type: ignore[arg-type]  # anything else is refused below
    except TypeError:
        raise TypeError(
            "'rng' must be None, an int, a numpy.random.Generator or a torch.Generator; got "
            f"{type(rng).__name__}."
        ) from None
    if seed < 0:
        raise DomainError(f"'rng' must be a nonnegative seed; got {seed}.")
    return _mix(np.random.SeedSequence(seed))


def _is_torch_generator(rng: Any) -> TypeGuard[torch.Generator]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(rng, torch.Generator)


def _mix(sequence: np.random.SeedSequence) -> int:
    return _join(sequence.generate_state(4))


def _join(words: Any) -> int:
    return sum(int(word) << (32 * i) for i, word in enumerate(words))
