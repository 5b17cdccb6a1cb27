"""Passes over the blocks of a Dask array, where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask import delayed

from pyprobe import _core
from pyprobe.errors import ShapeError
from pyprobe.sketching._chunks import finite_maxima, n_leaves, rows_of, width_of
from pyprobe.sketching._input import Matrix, Passes, Vector, as_rows, sketch_part, sum_in_pairs
from pyprobe.typing import FloatArray

__all__ = ["Blocks", "lengths_of"]

PIECE = 1 << 22
"""Numbers of a task at most, if it is not a single leaf."""


@dataclass(frozen=True, slots=True)
class Blocks(Passes):
    """Rows of a Dask array; sizes of its blocks are known, and a block has all columns."""

    name: str
    array: Any
    shape: tuple[int, int] = field()
    dtype: np.dtype[Any]
    wrap: Callable[[Any], Any]

    @classmethod
    def read(cls, name: str, a: Any) -> Blocks:
        """Return `a`, a Dask array of two axes or a Dask data frame of numbers."""
        if hasattr(a, "to_dask_array"):
            array = _of_frame(name, a)
        elif isinstance(a, da.Array):
            array = a
        else:
            raise TypeError(
                f"'{name}' must be a Dask array or data frame; got {type(a).__name__}. Arrays in "
                "memory and lists of chunks are for pyprobe.sketching."
            )
        if array.ndim != 2:
            raise ShapeError(
                f"'{name}' must be a matrix of shape (n, d), one sample a row; got "
                f"{array.ndim} axes."
            )
        if array.dtype.kind not in "fiub":
            raise TypeError(f"'{name}' must hold real numbers; got dtype {array.dtype}.")
        if np.isnan(array.shape[0]):
            array = _with_lengths(array, lengths_of(array))
        if min(array.shape) == 0:
            raise ShapeError(
                f"'{name}' must have a row and a column at least; got shape {array.shape}."
            )
        single = array.dtype == np.float32
        dtype = np.dtype(np.float32 if single else np.float64)
        rows = array.rechunk({1: -1})

        def wrap(found: Any) -> Any:
            return found.rechunk((array.chunks[0],)).astype(dtype)

        return cls(name, rows, (array.shape[0], array.shape[1]), dtype, wrap)

    def _size(self, width: int) -> int:
        return _core.rows_leaf() * n_leaves(width, self.shape[1], PIECE)

    def _pieces(self, width: int) -> list[Any]:
        """Return branches of the tree over rows of this width, as tasks."""
        pieces = self.array.rechunk({0: self._size(width)})
        return list(pieces.to_delayed().ravel())

    def check_finite(self) -> Vector:
        blocks, start, parts = self.array.to_delayed().ravel(), 0, []
        for number, (block, n) in enumerate(zip(blocks, self.array.chunks[0], strict=True)):
            if n:
                parts.append(delayed(_maxima)(block, number, start))
            start += n
        return np.asarray(np.max(dask.compute(*parts), axis=0))

    def gram(self, frame: Matrix | Vector | None = None) -> Matrix:
        shared = delayed(frame)
        pieces = self._pieces(width_of(frame, self.shape[1]))
        return np.asarray(_sum([delayed(_gram)(piece, shared) for piece in pieces]).compute())

    def squared_norms(self, transform: Matrix) -> Any:
        return self._each(_norms, transform)

    def pair_power_sums(self, transform: Matrix, points: Matrix, weights: Vector, p: float) -> Any:
        return self._each(_power_sums, transform, points, weights, p)

    def _each(self, numbers: Callable[..., Vector], *arguments: Any) -> Any:
        """Return a vector, lazily, whose parts are functions of the pieces."""
        shared = [delayed(argument) for argument in arguments]
        pieces = self._pieces(self.shape[1])
        sizes = self._sizes(self.shape[1])
        return da.concatenate(
            [
                da.from_delayed(delayed(numbers)(piece, *shared), (size,), np.float64)
                for piece, size in zip(pieces, sizes, strict=True)
            ]
        )

    def _sizes(self, width: int) -> list[int]:
        n, size = self.shape[0], self._size(width)
        return [min(size, n - start) for start in range(0, n, size)]

    def constant(self, value: float) -> Any:
        return da.full(self.shape[0], value, chunks=self._size(self.shape[1]))

    def lewis_step(
        self, frame: Matrix | Vector | None, transform: Matrix, log_w: Any, p: float, c: float
    ) -> tuple[Any, Matrix, float]:
        width = width_of(frame, self.shape[1])
        logs = log_w.rechunk(self._size(width)).to_delayed()
        shared = delayed((frame, transform, p, c))
        steps = [
            delayed(_step)(piece, part, shared)
            for piece, part in zip(self._pieces(width), logs, strict=True)
        ]
        # The new weights stay where they were made, and do not remember how.
        steps = list(dask.persist(*steps))
        total, worst = dask.compute(
            _sum([step[1] for step in steps]), delayed(max)([step[2] for step in steps])
        )
        parts = [
            da.from_delayed(step[0], (size,), np.float64)
            for step, size in zip(steps, self._sizes(width), strict=True)
        ]
        return da.concatenate(parts), total, worst

    def sketch(self, n_rows: int) -> Matrix:
        pieces, size = self._pieces(self.shape[1]), self._size(self.shape[1])
        parts = [
            delayed(_sketch)(piece, number * size, n_rows) for number, piece in enumerate(pieces)
        ]
        return np.asarray(_sum(parts).compute())

    def take_rows(self, indices: Any) -> FloatArray:
        wanted = np.asarray(indices)
        order = np.argsort(wanted, kind="stable")
        found = np.empty((len(wanted), self.shape[1]))
        blocks = self.array.to_delayed().ravel()
        found[order] = np.concatenate(taken(blocks, self.array.chunks[0], wanted[order]))
        return found

    def dense(self) -> FloatArray:
        # Only where they are few: find_space takes all rows where a sketch would have half as many.
        return np.asarray(self.array.compute(), dtype=np.float64)


def taken(blocks: Any, lengths: Any, indices: Any) -> tuple[Any, ...]:
    """Return rows, by rising numbers, from the blocks that have any."""
    ends = np.cumsum([0, *lengths])
    parts = []
    for block, start, stop in zip(blocks, ends[:-1], ends[1:], strict=True):
        first, last = np.searchsorted(indices, (start, stop))
        if first < last:
            parts.append(delayed(rows_of)(block, indices[first:last] - start))
    return tuple(dask.compute(*parts))


def lengths_of(a: Any) -> list[int]:
    """Return the numbers of rows of the blocks; a pass where they are not known."""
    if hasattr(a, "chunks") and not np.isnan(a.chunks[0]).any():
        return list(a.chunks[0])
    blocks = a.to_delayed()
    first = blocks if isinstance(blocks, list) else blocks.reshape(len(blocks), -1)[:, 0]
    return list(dask.compute(*[delayed(len)(block) for block in first]))


def _with_lengths(array: Any, lengths: list[int]) -> Any:
    chunks = (tuple(lengths), *array.chunks[1:])
    return da.Array(array.dask, array.name, chunks, dtype=array.dtype, meta=array)


def _of_frame(name: str, frame: Any) -> Any:
    kinds = dict(frame.dtypes) if hasattr(frame.dtypes, "items") else {}
    others = [str(column) for column, kind in kinds.items() if kind.kind not in "fiub"]
    if others:
        raise TypeError(
            f"'{name}' must have columns of numbers; {', '.join(others)} are not. Choose others, as "
            "in frame[columns], or encode them."
        )
    if not kinds:
        raise ShapeError(f"'{name}' must be a data frame with a column at least; got a series.")
    return frame.to_dask_array(lengths=lengths_of(frame))


def _sum(parts: list[Any]) -> Any:
    """Return the task that adds up matrices as `sum_in_pairs` does, in a tree of tasks."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [delayed(sum_in_pairs)(pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


# Tasks, by name: they go to other processes.


def _samples(block: Any) -> Any:
    return as_rows("a", np.asarray(block))[0]


def _maxima(block: Any, number: int, start: int) -> Vector:
    return finite_maxima(_samples(block), number, start)


def _gram(block: Any, frame: Any) -> Matrix:
    return _core.rows_gram(_samples(block), frame)


def _norms(block: Any, transform: Matrix) -> Vector:
    return _core.rows_squared_norms(_samples(block), transform)


def _power_sums(block: Any, transform: Matrix, points: Matrix, weights: Vector, p: float) -> Vector:
    return _core.pair_power_sums(_samples(block), transform, points, weights, p)


def _sketch(block: Any, start: int, n_rows: int) -> Matrix:
    return sketch_part(_samples(block), start, n_rows)


def _step(block: Any, log_w: Vector, shared: tuple[Any, Matrix, float, float]) -> Any:
    frame, transform, p, c = shared
    return _core.lewis_step(_samples(block), frame, transform, log_w, p, c)
