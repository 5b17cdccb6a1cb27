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
from pyprobe.errors import NotFiniteError, ShapeError
from pyprobe.sketching._chunks import finite_maxima, rows_of
from pyprobe.sketching._input import (
    Matrix,
    Passes,
    Vector,
    as_dense,
    as_matrix,
    as_rows,
    piece_size,
    sketch_part,
    sum_in_pairs,
)

__all__ = ["Blocks", "blocks_of", "lengths_of", "taken"]

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
            array = _with_lengths(array, lengths_of(array, blocks_of(array)))
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

    def _pieces(self) -> tuple[list[Any], tuple[int, ...]]:
        """Return branches of the tree over leaves, as tasks, and their sizes."""
        pieces = self.array.rechunk({0: piece_size(self.shape[1], PIECE)})
        return blocks_of(pieces), pieces.chunks[0]

    def check_finite(self) -> Vector:
        blocks, start, parts = blocks_of(self.array), 0, []
        for number, (block, n) in enumerate(zip(blocks, self.array.chunks[0], strict=True)):
            if n:
                parts.append(delayed(_maxima)(block, number, start))
            start += n
        found = dask.compute(*parts)
        # The first of the chunks, and not the one whose worker was the first to meet an error.
        for error in found:
            if isinstance(error, Exception):
                raise error
        return np.asarray(np.max(found, axis=0))

    def gram(self, frame: Matrix | Vector | None = None) -> Matrix:
        shared = delayed(frame)
        pieces, _ = self._pieces()
        return np.asarray(_sum([delayed(_gram)(piece, shared) for piece in pieces]).compute())

    def squared_norms(self, transform: Matrix) -> Any:
        return self._each(_norms, transform)

    def pair_power_sums(self, transform: Matrix, points: Matrix, weights: Vector, p: float) -> Any:
        return self._each(_power_sums, transform, points, weights, p)

    def _each(self, numbers: Callable[..., Vector], *arguments: Any) -> Any:
        """Return a vector, lazily, whose parts are functions of the pieces."""
        shared = [delayed(argument) for argument in arguments]
        pieces, sizes = self._pieces()
        return da.concatenate(
            [
                da.from_delayed(delayed(numbers)(piece, *shared), (size,), np.float64)
                for piece, size in zip(pieces, sizes, strict=True)
            ]
        )

    def constant(self, value: float) -> Any:
        return da.full(self.shape[0], value, chunks=(self.array.chunks[0],))

    def lewis_step(
        self, frame: Matrix | Vector | None, transform: Matrix, log_w: Any, p: float, c: float
    ) -> tuple[Any, Matrix, float]:
        pieces, sizes = self._pieces()
        logs = log_w.rechunk((sizes,)).to_delayed()
        shared = delayed((frame, transform, p, c))
        steps = [
            delayed(_step)(piece, part, shared) for piece, part in zip(pieces, logs, strict=True)
        ]
        # The new weights stay where they were made, and do not remember how.
        steps = list(dask.persist(*steps))
        total, worst = dask.compute(
            _sum([step[1] for step in steps]), delayed(max)([step[2] for step in steps])
        )
        parts = [
            da.from_delayed(step[0], (size,), np.float64)
            for step, size in zip(steps, sizes, strict=True)
        ]
        return da.concatenate(parts), total, worst

    def sketch(self, n_rows: int) -> Matrix:
        pieces, sizes = self._pieces()
        parts = [
            delayed(_sketch)(piece, number * sizes[0], n_rows)
            for number, piece in enumerate(pieces)
        ]
        return np.asarray(_sum(parts).compute())

    def take_rows(self, indices: Any) -> Matrix:
        wanted = np.asarray(indices)
        order = np.argsort(wanted, kind="stable")
        found = np.empty((len(wanted), self.shape[1]))
        blocks = blocks_of(self.array)
        found[order] = np.concatenate(taken(blocks, self.array.chunks[0], wanted[order]))
        return found

    def dense(self) -> Matrix:
        # Only where they are few: find_space takes all rows where a sketch would have half as many.
        return as_dense(as_matrix(_samples(self.array.compute())))


def taken(blocks: Any, lengths: Any, indices: Any) -> tuple[Any, ...]:
    """Return rows, by rising numbers, from the blocks that have any."""
    ends = np.cumsum([0, *lengths])
    parts = []
    for block, start, stop in zip(blocks, ends[:-1], ends[1:], strict=True):
        first, last = np.searchsorted(indices, (start, stop))
        if first < last:
            parts.append(delayed(rows_of)(block, indices[first:last] - start))
    if not parts:  # no row was kept: none, of their kind
        parts.append(delayed(rows_of)(blocks[0], indices))
    return tuple(dask.compute(*parts))


def lengths_of(a: Any, blocks: list[Any]) -> list[int]:
    """Return the numbers of rows of the blocks; a pass where they are not known."""
    if hasattr(a, "chunks") and not np.isnan(a.chunks[0]).any():
        return list(a.chunks[0])
    return list(dask.compute(*[delayed(len)(block) for block in blocks]))


def blocks_of(a: Any) -> list[Any]:
    """Return the blocks of an array, first columns only, or the partitions of a data frame."""
    if hasattr(a, "chunks"):
        return list(a.to_delayed().reshape(len(a.chunks[0]), -1)[:, 0])
    return list(a.to_delayed())


def _with_lengths(array: Any, lengths: list[int]) -> Any:
    chunks = (tuple(lengths), *array.chunks[1:])
    return da.Array(array.dask, array.name, chunks, dtype=array.dtype, meta=array)


def _of_frame(name: str, frame: Any) -> Any:
    dtypes = dict(frame.dtypes) if hasattr(frame.dtypes, "items") else {}
    # Columns that may have missing values have a type of pandas' own around that of NumPy.
    kinds: dict[Any, Any] = {
        column: getattr(dtype, "numpy_dtype", dtype) for column, dtype in dtypes.items()
    }
    others = [str(column) for column, kind in kinds.items() if kind.kind not in "fiub"]
    if others:
        raise TypeError(
            f"'{name}' must have columns of numbers; {', '.join(others)} are not. Choose others, "
            "as in frame[columns], or encode them."
        )
    if not kinds:
        raise ShapeError(f"'{name}' must be a data frame with a column at least; got a series.")
    # By hand: the arrays that to_dask_array makes are optimized anew for each pass, and then give
    # different tasks the same name.
    common = np.result_type(*kinds.values())
    blocks, dtype = blocks_of(frame), common if common.kind == "f" else np.dtype(np.float64)
    shapes = [(n, len(kinds)) for n in lengths_of(frame, blocks)]
    parts = zip(blocks, shapes, strict=True)
    return da.concatenate(
        [da.from_delayed(delayed(_values)(part, dtype), shape, dtype) for part, shape in parts]
    )


def _sum(parts: list[Any]) -> Any:
    """Return the task that adds up matrices as `sum_in_pairs` does, in a tree of tasks."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [delayed(sum_in_pairs)(pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


# Tasks, by name: they go to other processes.


def _values(part: Any, dtype: np.dtype[Any]) -> Any:
    return part.to_numpy(dtype=dtype)


def _samples(block: Any) -> Any:
    # As it is where it is an array: one with a mask is refused, not read without it.
    return as_rows("a", block if isinstance(block, np.ndarray) else np.asarray(block))[0]


def _numbers(values: Any) -> Any:
    # What comes from other processes lies where it may.
    return None if values is None else np.require(values, np.float64, ["C", "A"])


def _maxima(block: Any, number: int, start: int) -> Vector | NotFiniteError:
    try:
        return finite_maxima(_samples(block), number, start)
    except NotFiniteError as error:
        return error


def _gram(block: Any, frame: Any) -> Matrix:
    return _core.rows_gram(_samples(block), _numbers(frame))


def _norms(block: Any, transform: Matrix) -> Vector:
    return _core.rows_squared_norms(_samples(block), _numbers(transform))


def _power_sums(block: Any, transform: Matrix, points: Matrix, weights: Vector, p: float) -> Vector:
    points, weights = _numbers(points), _numbers(weights)
    return _core.pair_power_sums(_samples(block), _numbers(transform), points, weights, p)


def _sketch(block: Any, start: int, n_rows: int) -> Matrix:
    return sketch_part(_samples(block), start, n_rows)


def _step(block: Any, log_w: Vector, shared: tuple[Any, Matrix, float, float]) -> Any:
    frame, transform, p, c = shared
    frame, transform, log_w = _numbers(frame), _numbers(transform), _numbers(log_w)
    return _core.lewis_step(_samples(block), frame, transform, log_w, p, c)
