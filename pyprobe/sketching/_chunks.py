"""Rows that come in chunks, again and again: a pass reads one after the other.

Kernels sum rows up in leaves of a fixed number and add these in pairs. So chunks are cut and put
together into pieces that begin at a multiple of their length, a power of two of leaves: a piece is
a branch of the tree over all rows, and where chunks begin and end changes nothing. A piece that
lies in one chunk is not copied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from pyprobe import _core
from pyprobe.cluster._samples import Compressed, Samples, dtype_of
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching._input import (
    Matrix,
    Passes,
    Vector,
    as_dense,
    as_matrix,
    as_rows,
    cut,
    piece_size,
    shape_of,
    sketch_part,
    sum_in_pairs,
)
from pyprobe.typing import FloatArray

__all__ = [
    "Chunks",
    "ChunkReader",
    "holds_chunks",
    "is_stream",
    "join",
    "rows_of",
    "take_from",
]


def is_stream(a: Any) -> bool:
    """Whether `a` holds row chunks, and is not a matrix itself.

    Raises
    ------
    TypeError
        Where it can be read only once.
    """
    if not holds_chunks(a):
        return False
    if is_used_up(a):
        raise TypeError(
            f"'a' must be rows that can be read more than once; got a {type(a).__name__}, which is "
            "used up by the first pass. Pass the function that makes it, or a list; or feed it to "
            "StreamingCoreset, which needs a single pass."
        )
    return True


def is_used_up(a: Any) -> bool:
    """Whether `a` is an iterator, which the first pass over it leaves at its end."""
    return hasattr(a, "__iter__") and not callable(a) and iter(a) is a


def holds_chunks(a: Any) -> bool:
    """Whether `a` holds row chunks, to be read once or more often, and is not a matrix itself."""
    if isinstance(a, np.ndarray):
        return False
    if isinstance(a, list | tuple):
        return bool(a) and getattr(a[0], "ndim", None) == 2
    if isinstance(a, str | bytes | dict | set | frozenset):
        return False
    if any(hasattr(a, name) for name in ("shape", "__array__", "__array_interface__", "toarray")):
        return False
    if callable(a):
        return True
    return hasattr(a, "__iter__") or (hasattr(a, "__len__") and hasattr(a, "__getitem__"))


def chunks_of(a: Any) -> Iterator[Any]:
    """Begin to read row chunks from the first."""
    if callable(a):
        found = a()
        # A matrix would be read as chunks of one row each, that are no matrices.
        if not hasattr(found, "__iter__") or getattr(found, "ndim", 3) < 3:
            raise TypeError(
                "'a' must be a function that gives row chunks, such as a generator's; it gave a "
                f"value of type {type(found).__name__}. Return a list of matrices, or yield them."
            )
        return iter(found)
    return iter(a) if hasattr(a, "__iter__") else (a[i] for i in range(len(a)))


class ChunkReader:
    """Reads chunk after chunk as the kernels take them, and sees to it that they fit together.

    Attributes
    ----------
    name : str
        What errors call the whole.
    n_read : int
        How many chunks it was given.
    """

    __slots__ = ("dtype", "is_dense", "n_columns", "n_read", "name", "wrap")

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_read = 0
        self.n_columns: int | None = None
        self.dtype: np.dtype[Any] | None = None
        self.wrap: Callable[[Any], Any] | None = None
        self.is_dense = True

    def read(self, chunk: Any) -> Samples | None:
        """Return the chunk; None where it is empty."""
        number = self.n_read
        samples, wrap = as_rows(f"{self.name}[{number}]", chunk)
        rows, columns = shape_of(samples)
        if rows:
            self._check(number, samples, columns, wrap)
        self.n_read += 1
        return samples if rows else None

    def _check(self, number: int, samples: Samples, columns: int, wrap: Any) -> None:
        dtype, dense = dtype_of(samples), isinstance(samples, np.ndarray)
        if self.n_columns is None:
            if columns == 0:
                raise ShapeError(
                    f"'{self.name}' must have a column at least; chunk {number} has shape "
                    f"{shape_of(samples)}."
                )
            self.n_columns, self.dtype, self.is_dense = columns, dtype, dense
            self.wrap = wrap
        if columns != self.n_columns:
            raise ShapeError(
                f"'{self.name}' must have {self.n_columns} columns in every chunk, as in the "
                f"first; chunk {number} has shape {shape_of(samples)}."
            )
        if dense is not self.is_dense:
            raise TypeError(
                f"'{self.name}' must be dense in every chunk or sparse in every chunk; chunk "
                f"{number} is not as the first. Convert it."
            )
        if dtype != self.dtype:
            raise TypeError(
                f"'{self.name}' must have one float type; chunk {number} has {dtype}, the first "
                f"{self.dtype}. Convert with .astype."
            )

    def check_fits(self, other: ChunkReader) -> None:
        """Raise where the chunks of another are not of this kind."""
        if other.n_columns is None:
            return
        if self.n_columns is None:
            self.n_columns, self.dtype, self.wrap = other.n_columns, other.dtype, other.wrap
            self.is_dense = other.is_dense
        if self.n_columns != other.n_columns:
            raise ShapeError(
                f"'other' must have rows of {self.n_columns} columns, as this stream; got "
                f"{other.n_columns}."
            )
        if (self.dtype, self.is_dense) != (other.dtype, other.is_dense):
            kinds = [
                f"{'dense' if reader.is_dense else 'sparse'} {reader.dtype}"
                for reader in (self, other)
            ]
            raise TypeError(f"'other' must have rows that are {kinds[0]}; got {kinds[1]}.")


@dataclass(slots=True)
class Chunks(Passes):
    """Row chunks that can be read again and again."""

    name: str
    source: Any
    n_columns: int
    dtype: np.dtype[Any]
    wrap: Callable[[Any], Any]
    n_rows: int | None = None
    """Known after the first pass."""

    @classmethod
    def read(cls, name: str, a: Any) -> Chunks:
        """Look at the first chunk that has rows."""
        reader = ChunkReader(name)
        for chunk in chunks_of(a):
            if reader.read(chunk) is not None:
                break
        if reader.n_columns is None or reader.dtype is None or reader.wrap is None:
            raise ShapeError(
                f"'{name}' must have a row at least; got {reader.n_read} chunks without any."
            )
        return cls(name, a, reader.n_columns, reader.dtype, reader.wrap)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; a pass where the rows have not been counted yet."""
        if self.n_rows is None:
            for _ in self._pass():
                pass
        assert self.n_rows is not None  # the pass has counted them
        return self.n_rows, self.n_columns

    def _pass(self) -> Iterator[tuple[int, int, Samples]]:
        """Read all: the number of every chunk that has rows, that of its first row, and these."""
        reader, start = ChunkReader(self.name), 0
        for chunk in chunks_of(self.source):
            samples = reader.read(chunk)
            if samples is not None:
                yield reader.n_read - 1, start, samples
                start += shape_of(samples)[0]
        if start == 0 or self.n_rows not in (None, start):
            raise DomainError(
                f"'{self.name}' must give the same rows every time it is read; now there were "
                f"{start}, before {self.n_rows or 'some'}. A generator that is used up can feed "
                "StreamingCoreset, which needs a single pass."
            )
        self.n_rows = start

    def pieces(self) -> Iterator[tuple[int, Samples]]:
        """Read all in pieces that are branches of the tree over leaves."""
        size, begin = piece_size(self.n_columns), 0
        waiting = _Waiting(size)
        for _, _, samples in self._pass():
            n, at = shape_of(samples)[0], 0
            while at < n:
                stop = min(n, at + size - waiting.n_rows)
                part, at = cut(samples, at, stop), stop
                if shape_of(part)[0] < size:
                    waiting.add(part)
                    if waiting.n_rows < size:
                        continue
                    part = waiting.taken()
                yield begin, part
                begin += size
        if waiting.n_rows:
            yield begin, waiting.taken()

    def check_finite(self) -> Vector:
        maxima = np.zeros(self.n_columns)
        for number, start, samples in self._pass():
            maxima = np.maximum(maxima, finite_maxima(samples, number, start))
        return maxima

    def gram(self, frame: Matrix | Vector | None = None) -> Matrix:
        return sum_in_pairs(_core.rows_gram(rows, frame) for _, rows in self.pieces())

    def squared_norms(self, transform: Matrix) -> Vector:
        return self._each(lambda rows: _core.rows_squared_norms(rows, transform))

    def pair_power_sums(
        self, transform: Matrix, points: Matrix, weights: Vector, p: float
    ) -> Vector:
        return self._each(lambda rows: _core.pair_power_sums(rows, transform, points, weights, p))

    def _each(self, numbers: Callable[[Samples], Vector]) -> Vector:
        found = np.empty(self.shape[0])
        for start, rows in self.pieces():
            part = numbers(rows)
            found[start : start + len(part)] = part
        return found

    def constant(self, value: float) -> Vector:
        return np.full(self.shape[0], value)

    def lewis_step(
        self, frame: Matrix | Vector | None, transform: Matrix, log_w: Vector, p: float, c: float
    ) -> tuple[Vector, Matrix, float]:
        new, worst = np.empty_like(log_w), 0.0

        def grams() -> Iterator[Matrix]:
            nonlocal worst
            for start, rows in self.pieces():
                inside = slice(start, start + shape_of(rows)[0])
                part = log_w[inside]
                new[inside], gram, residual = _core.lewis_step(rows, frame, transform, part, p, c)
                worst = max(worst, residual)
                yield gram

        return new, sum_in_pairs(grams()), worst

    def sketch(self, n_rows: int) -> Matrix:
        parts = (sketch_part(rows, start, n_rows) for start, rows in self.pieces())
        return sum_in_pairs(parts)

    def take_rows(self, indices: Any) -> Matrix:
        wanted = np.asarray(indices)
        found = np.empty((len(wanted), self.n_columns))
        for _, start, samples in self._pass():
            here = np.flatnonzero((wanted >= start) & (wanted < start + shape_of(samples)[0]))
            if len(here):
                found[here] = as_dense(as_matrix(samples)[wanted[here] - start])
        return found

    def dense(self) -> Matrix:
        return np.concatenate([as_dense(as_matrix(rows)) for _, _, rows in self._pass()])


class _Waiting:
    """Copies of rows that wait until a piece is full; they must not keep their chunk alive."""

    __slots__ = ("_buffer", "_parts", "n_rows", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.n_rows = 0
        self._buffer: FloatArray | None = None
        self._parts: list[Samples] = []

    def add(self, part: Samples) -> None:
        start, self.n_rows = self.n_rows, self.n_rows + shape_of(part)[0]
        if not isinstance(part, np.ndarray):
            self._parts.append(copied(part))
            return
        if self._buffer is None:
            self._buffer = np.empty((self.size, part.shape[1]), part.dtype)
        self._buffer[start : self.n_rows] = part

    def taken(self) -> Samples:
        """Return the rows, good until others are added."""
        n, self.n_rows = self.n_rows, 0
        if self._buffer is not None:
            return self._buffer[:n]
        parts, self._parts = self._parts, []
        return join(parts)


def finite_maxima(samples: Samples, number: int, start: int) -> Vector:
    """Return the largest modulus of every column of a chunk; raise where it is not finite."""
    try:
        return _core.column_maxima(samples)
    except NotFiniteError as error:
        raise NotFiniteError(f"{error} of chunk {number}, whose first row is {start}") from None


def copied(samples: Samples) -> Samples:
    """Return a copy that shares no memory."""
    if isinstance(samples, np.ndarray):
        return samples.copy()
    indptr, indices, values, n_columns = samples[0]
    return (indptr.copy(), indices.copy(), values.copy(), n_columns), None


def join(parts: list[Samples]) -> Samples:
    """Return the rows of all parts, which are of one kind."""
    if len(parts) == 1:
        return parts[0]
    dense = [part for part in parts if isinstance(part, np.ndarray)]
    if dense:
        return np.concatenate(dense)
    sparse: list[Compressed] = [part[0] for part in parts if isinstance(part, tuple)]
    counts = np.concatenate([np.diff(indptr) for indptr, _, _, _ in sparse])
    indptr = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(counts, dtype=np.uint64)])
    indices = np.concatenate([indices for _, indices, _, _ in sparse])
    values = np.concatenate([values for _, _, values, _ in sparse])
    return (indptr, indices, values, sparse[0][3]), None


def take_from(a: Any, indices: Any, n_rows: int) -> Any:
    """Return some rows, by rising numbers, of chunks that have `n_rows` together."""
    start, found = 0, []
    for part in chunks_of(a):
        chunk = part if hasattr(part, "shape") else np.asarray(part)
        if not chunk.shape:
            raise ShapeError(f"'a' must have chunks of rows; got {part!r} among them.")
        stop = start + chunk.shape[0]
        first, last = np.searchsorted(indices, (start, stop))
        # An empty part as well: it is what there is where no row was kept at all.
        found.append(rows_of(chunk, indices[first:last] - start))
        start = stop
    if start != n_rows:
        raise ShapeError(
            f"'a' must have the {n_rows} rows that were sampled from; got {len(found)} chunks with "
            f"{start}."
        )
    return concatenated(found)


def rows_of(a: Any, indices: Any) -> Any:
    """Return some rows of an array, a sparse matrix, a data frame or a tensor."""
    if scipy.sparse.issparse(a):
        return a.tocsr()[indices]
    if hasattr(a, "iloc"):
        return a.iloc[indices]
    if hasattr(a, "new_tensor"):
        if a.layout is not sys.modules["torch"].strided:
            raise TypeError(
                f"'a' must be a dense tensor here; got layout {a.layout}. Use .to_dense(), or a "
                "SciPy matrix."
            )
        return a[a.new_tensor(indices, dtype=None).long()]
    return a[indices]


def concatenated(parts: Iterable[Any]) -> Any:
    """Return arrays, sparse matrices, data frames or tensors of rows one below the other."""
    parts = list(parts)
    if scipy.sparse.issparse(parts[0]):
        return scipy.sparse.vstack(parts, format="csr")
    if hasattr(parts[0], "iloc"):
        return sys.modules["pandas"].concat(parts)
    if hasattr(parts[0], "new_tensor"):
        return sys.modules["torch"].cat(parts)
    return np.concatenate(parts)
