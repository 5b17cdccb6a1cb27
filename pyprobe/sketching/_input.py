"""Tall matrices as the kernels take them, and results in the library that they came from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe.cluster._samples import Samples, as_samples, dtype_of
from pyprobe.errors import DomainError, ShapeError
from pyprobe.typing import FloatArray

__all__ = ["Tall", "check_exponent", "read_tall", "take_rows"]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tall:
    """A matrix with a sample a row."""

    name: str
    samples: Samples
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    wrap: Callable[[FloatArray], Any]
    """What was computed, in the library, type and device of the matrix."""

    def check_finite(self) -> Vector:
        """Return the largest modulus of every column; raise where an entry is not finite."""
        return _core.column_maxima(self.samples)

    def matrix(self) -> Any:
        """Return all of it: an array, or a SciPy matrix of compressed rows."""
        if isinstance(self.samples, np.ndarray):
            return self.samples
        import scipy.sparse

        indptr, indices, values, _ = self.samples[0]
        parts = (values, indices.view(np.int32), indptr.view(np.int64))
        return scipy.sparse.csr_array(parts, shape=self.shape)

    def dense(self) -> npt.NDArray[np.float64]:
        """Return all of it as an array, in double precision."""
        return take_rows(self, slice(None))


def take_rows(tall: Tall, indices: Any) -> npt.NDArray[np.float64]:
    """Return some rows as an array, in double precision."""
    rows = tall.matrix()[indices]
    return np.asarray(rows if isinstance(rows, np.ndarray) else rows.toarray(), dtype=np.float64)


def read_tall(name: str, a: Any) -> Tall:
    """Return `a`: array_like, a SciPy sparse matrix or a torch tensor of the CPU.

    Tensors are read as they are, without a record for autograd: a score or a draw of rows is a
    constant.
    """
    if select(a) is Engine.NATIVE_TORCH:
        torch = sys.modules["torch"]
        plain = a.detach()
        if plain.layout is torch.sparse_csr:
            plain = _from_torch_csr(plain)
        elif plain.layout is not torch.strided:
            raise TypeError(
                f"'{name}' must be a dense tensor or one of layout sparse_csr; got {a.layout}. "
                "Convert with .to_sparse_csr()."
            )
        else:
            plain = plain.numpy()
        dtype = a.dtype if a.dtype.is_floating_point else torch.float64

        def wrap(found: FloatArray) -> Any:
            return torch.from_numpy(found).to(dtype)
    else:
        plain = a

        def wrap(found: FloatArray) -> Any:
            return found.astype(dtype_of(samples), copy=False)

    samples = as_samples(name, plain)
    shape = (
        samples.shape
        if isinstance(samples, np.ndarray)
        else (
            len(samples[0][0]) - 1,
            samples[0][3],
        )
    )
    if min(shape) == 0:
        raise ShapeError(f"'{name}' must have a row and a column at least; got shape {shape}.")
    return Tall(name, samples, (shape[0], shape[1]), dtype_of(samples), wrap)


def _from_torch_csr(tensor: Any) -> Any:
    import scipy.sparse

    parts = (tensor.values(), tensor.col_indices(), tensor.crow_indices())
    return scipy.sparse.csr_array(tuple(part.numpy() for part in parts), shape=tuple(tensor.shape))


def check_exponent(p: Any, *, minimum: float = 0.0, why: str = "") -> float:
    """Return `p` as a finite float above `minimum`, or at it where it is positive."""
    try:
        number = float(p)
    except (TypeError, ValueError):
        raise TypeError(f"'p' must be a number; got {type(p).__name__}.") from None
    if np.isposinf(number):
        raise DomainError("'p' must be finite; got inf. A large p, such as 32, comes near to it.")
    if not (number > 0 and number >= minimum):
        wanted = f"at least {minimum:g}" if minimum > 0 else "positive"
        raise DomainError(f"'p' must be {wanted}; got {number:g}.{why}")
    return number
