"""Tall matrices as the kernels take them, and results in the library that they came from."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import as_number
from pyprobe.cluster._samples import Samples, as_samples, dtype_of
from pyprobe.errors import DomainError, NotFiniteError, ShapeError

__all__ = [
    "Passes",
    "Tall",
    "array_of",
    "check_exponent",
    "read_passes",
    "read_tall",
    "refuse_meta",
]

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


class Passes(ABC):
    """Rows that scores are made of, by passes over all of them.

    However they are stored, the same rows give the same bits: sums go over leaves of a fixed number
    of rows, counted from the first, and are added up in pairs, pairs of pairs and so on.
    """

    __slots__ = ()

    name: str
    dtype: np.dtype[Any]
    wrap: Callable[[Any], Any]
    """What was computed, in the library, type and device of the rows."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @abstractmethod
    def check_finite(self) -> Vector:
        """Return the largest modulus of every column; raise where an entry is not finite."""

    @abstractmethod
    def gram(self, frame: Matrix | Vector | None = None) -> Matrix:
        """Return the products of the columns, times a matrix or scales or as they are."""

    @abstractmethod
    def squared_norms(self, transform: Matrix) -> Any:
        """Return the squared norms (n,) of the rows times a matrix."""

    @abstractmethod
    def constant(self, value: float) -> Any:
        """Return a vector (n,), stored as `squared_norms` stores its result."""

    @abstractmethod
    def lewis_step(
        self, frame: Matrix | Vector | None, transform: Matrix, log_w: Any, p: float, c: float
    ) -> tuple[Any, Matrix, float]:
        """Return new logarithms of weights, the Gram matrix that they make, and the residual."""

    @abstractmethod
    def pair_power_sums(self, transform: Matrix, points: Matrix, weights: Vector, p: float) -> Any:
        """Return for every row the sum of ``weights |row transform . point|^p`` over points."""

    @abstractmethod
    def sketch(self, n_rows: int) -> Matrix:
        """Return a sparse sign embedding of the rows: products of columns are nearly kept."""

    @abstractmethod
    def take_rows(self, indices: Any) -> Matrix:
        """Return some rows as an array, in double precision."""

    @abstractmethod
    def dense(self) -> Matrix:
        """Return all rows as an array, in double precision."""


@dataclass(frozen=True, slots=True)
class Tall(Passes):
    """A matrix with a sample a row."""

    name: str
    samples: Samples
    shape: tuple[int, int] = field()
    dtype: np.dtype[Any]
    wrap: Callable[[Any], Any]

    def check_finite(self) -> Vector:
        return column_maxima(self.name, self.samples)

    def gram(self, frame: Matrix | Vector | None = None) -> Matrix:
        return _core.rows_gram(self.samples, frame)

    def squared_norms(self, transform: Matrix) -> Vector:
        return _core.rows_squared_norms(self.samples, transform)

    def constant(self, value: float) -> Vector:
        return np.full(self.shape[0], value)

    def lewis_step(
        self, frame: Matrix | Vector | None, transform: Matrix, log_w: Vector, p: float, c: float
    ) -> tuple[Vector, Matrix, float]:
        return _core.lewis_step(self.samples, frame, transform, log_w, p, c)

    def pair_power_sums(
        self, transform: Matrix, points: Matrix, weights: Vector, p: float
    ) -> Vector:
        return _core.pair_power_sums(self.samples, transform, points, weights, p)

    def sketch(self, n_rows: int) -> Matrix:
        return sketch_part(self.samples, 0, n_rows)

    def matrix(self) -> Any:
        """Return all of it: an array, or a SciPy matrix of compressed rows."""
        return as_matrix(self.samples)

    def take_rows(self, indices: Any) -> Matrix:
        return as_dense(self.matrix()[indices])

    def dense(self) -> Matrix:
        return as_dense(self.matrix())


def read_passes(name: str, a: Any) -> Passes:
    """Return `a`: what `read_tall` takes, or row chunks that can be read again and again.

    A door may have made the passes of it already.
    """
    from pyprobe.sketching._chunks import Chunks, is_stream

    if isinstance(a, Passes):
        return a
    if is_stream(a):
        return Chunks.read(name, a)
    return _read_tensor(name, a) if select(a) is Engine.TORCH else read_tall(name, a)


def _read_tensor(name: str, a: Any) -> Passes:
    """Return the passes of a tensor that is not on the CPU."""
    from pyprobe.sketching._torch_passes import TensorRows

    refuse_meta(name, a)
    if a.layout is not sys.modules["torch"].strided:
        raise TypeError(f"'{name}' must be a dense tensor; got {a.layout}. Use .to_dense().")
    if a.ndim != 2 or min(a.shape) == 0:
        raise ShapeError(
            f"'{name}' must be a matrix of shape (n, d) with a row and a column at least; got "
            f"shape {tuple(a.shape)}."
        )
    if a.is_complex():
        raise TypeError(f"'{name}' must hold real numbers; got dtype {a.dtype}.")
    return TensorRows(name, a.detach())


def read_tall(name: str, a: Any) -> Tall:
    """Return `a`: array_like, a SciPy sparse matrix or a torch tensor of the CPU.

    Tensors are read as they are, without a record for autograd: a score or a draw of rows is a
    constant.
    """
    from pyprobe.sketching._chunks import is_stream

    if is_stream(a):
        raise TypeError(
            f"'{name}' must be one matrix here, all rows of which are at hand; got a sequence of "
            "row chunks. Put them together, or draw rows of them with sample_rows first."
        )
    samples, wrap = as_rows(name, a)
    shape = shape_of(samples)
    if min(shape) == 0:
        raise ShapeError(f"'{name}' must have a row and a column at least; got shape {shape}.")
    return Tall(name, samples, shape, dtype_of(samples), wrap)


def as_rows(name: str, a: Any) -> tuple[Samples, Callable[[Any], Any]]:
    """Return `a` as the kernels take it, and what makes results of its library and type."""
    engine = select(a)
    if engine is Engine.NATIVE:
        samples = as_samples(name, a)
        return samples, partial(as_numpy_type, dtype=dtype_of(samples))
    torch = sys.modules["torch"]
    refuse_meta(name, a)
    if engine is Engine.TORCH:
        raise TypeError(
            f"'{name}' must lie on the CPU here; got a tensor on {a.device}. Use .cpu(); leverage "
            "scores, Lewis weights and samples by these are made on any device."
        )
    if a.layout is torch.sparse_csr:
        plain = _from_torch_csr(name, a.detach())
    elif a.layout is not torch.strided:
        raise TypeError(
            f"'{name}' must be a dense tensor or one of layout sparse_csr; got {a.layout}. "
            "Convert with .to_sparse_csr()."
        )
    else:
        plain = array_of(name, a)
    kind = a.dtype if a.dtype.is_floating_point else torch.float64
    return as_samples(name, plain), partial(as_torch_type, dtype=kind)


def as_numpy_type(found: Any, dtype: Any) -> Any:
    """Return an array in a float type."""
    return found.astype(dtype, copy=False)


def as_torch_type(found: Any, dtype: Any) -> Any:
    """Return an array as a tensor of a float type."""
    return sys.modules["torch"].from_numpy(found).to(dtype)


def refuse_meta(name: str, tensor: Any) -> None:
    """Raise where a tensor has a shape alone."""
    if tensor.is_meta:
        raise TypeError(
            f"'{name}' must hold numbers; got a tensor on the device 'meta', which has none. Make "
            "it on the CPU or on an accelerator."
        )


def array_of(name: str, tensor: Any) -> npt.NDArray[Any]:
    """Return a dense tensor as an array: without a copy where it lies on the CPU.

    Types of half precision, some of which NumPy lacks, become float32, which holds their numbers.
    """
    torch = sys.modules["torch"]
    refuse_meta(name, tensor)
    if tensor.layout is not torch.strided:
        raise TypeError(f"'{name}' must be a dense tensor; got {tensor.layout}. Use .to_dense().")
    if tensor.is_complex():
        raise TypeError(
            f"'{name}' must hold real numbers; got dtype {tensor.dtype}. Pass .real, or .abs()."
        )
    plain = tensor.detach().cpu()
    if plain.is_floating_point() and plain.dtype not in (torch.float32, torch.float64):
        plain = plain.float()
    return np.asarray(plain.resolve_neg().numpy())


def _from_torch_csr(name: str, tensor: Any) -> Any:
    import scipy.sparse

    places = (part.numpy() for part in (tensor.col_indices(), tensor.crow_indices()))
    values = array_of(name, tensor.values())
    return scipy.sparse.csr_array((values, *places), shape=tuple(tensor.shape))


def shape_of(samples: Samples) -> tuple[int, int]:
    """Return rows and columns."""
    if isinstance(samples, np.ndarray):
        return samples.shape[0], samples.shape[1]
    return len(samples[0][0]) - 1, samples[0][3]


def as_matrix(samples: Samples) -> Any:
    """Return an array, or a SciPy matrix of compressed rows."""
    if isinstance(samples, np.ndarray):
        return samples
    import scipy.sparse

    indptr, indices, values, _ = samples[0]
    parts = (values, indices.view(np.int32), indptr.view(np.int64))
    return scipy.sparse.csr_array(parts, shape=shape_of(samples))


def column_maxima(name: str, samples: Samples) -> Vector:
    """Return the largest modulus of every column; raise, by this name, where it is not finite."""
    try:
        return _core.column_maxima(samples)
    except NotFiniteError as error:  # in which the kernel calls all rows 'a'
        raise NotFiniteError(str(error).replace("'a'", f"'{name}'", 1)) from None


def as_dense(rows: Any) -> Matrix:
    """Return rows as an array, in double precision."""
    return np.asarray(rows if isinstance(rows, np.ndarray) else rows.toarray(), dtype=np.float64)


def cut(samples: Samples, start: int, stop: int) -> Samples:
    """Return some rows, without a copy of their entries."""
    if isinstance(samples, np.ndarray):
        return samples[start:stop]
    indptr, indices, values, n_columns = samples[0]
    ends = indptr[start : stop + 1]
    inside = slice(int(ends[0]), int(ends[-1]))
    return (ends - ends[0], indices[inside], values[inside], n_columns), None


def sum_in_pairs(parts: Iterable[Matrix]) -> Matrix:
    """Return the sum, of neighbours first and of pairs of pairs next: as the kernels add leaves.

    At most one sum for every power of two is held.
    """
    held: list[tuple[int, Matrix]] = []
    for part in parts:
        level, total = 0, part
        while held and held[-1][0] == level:
            level, total = level + 1, held.pop()[1] + total
        held.append((level, total))
    total = held.pop()[1]
    while held:
        total = held.pop()[1] + total
    return total


PIECE = 1 << 20
"""Numbers that a piece has at most, if it is not a single leaf."""


def piece_size(n_columns: int, n_numbers: int = PIECE) -> int:
    """Return the rows of a piece: those of a power of two of leaves."""
    leaf = _core.rows_leaf()
    most = max(1, n_numbers // (n_columns * leaf))
    return leaf << (most.bit_length() - 1)


SKETCH_KEY = 0x9E3779B97F4A7C15
"""Of the places and signs of sketches that make a basis: always the same."""
NONZEROS = 4
"""Rows of such a sketch to which each row goes."""


def sketch_part(samples: Samples, start: int, n_rows: int) -> Matrix:
    """Return what rows from number `start` on add to the sketch of all.

    Places and signs belong to the number of the row. `start` must begin a piece.
    """
    n, d = shape_of(samples)
    size = piece_size(d)
    sketch = ("sparse_sign", n_rows, start + n, min(NONZEROS, n_rows), SKETCH_KEY, None)
    return sum_in_pairs(
        _core.sketch_apply(sketch, cut(samples, at, min(at + size, n)), start + at)
        for at in range(0, n, size)
    )


def check_exponent(p: Any, *, minimum: float = 0.0, why: str = "") -> float:
    """Return `p` as a finite float above `minimum`, or at it where it is positive."""
    number = as_number("p", p)
    if np.isposinf(number):
        raise DomainError("'p' must be finite; got inf. A large p, such as 32, comes near to it.")
    if not (number > 0 and number >= minimum):
        wanted = f"at least {minimum:g}" if minimum > 0 else "positive"
        raise DomainError(f"'p' must be {wanted}; got {number:g}.{why}")
    return number
