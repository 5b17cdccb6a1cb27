"""The normal equations of sparse rows, and what they cost beside other ways to a solution."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pyprobe.cluster._samples import Compressed
from pyprobe.sketching._input import Matrix, Vector, as_matrix

__all__ = ["Costs", "column_lengths", "estimate_costs", "normal_equations"]

# Nanoseconds of one core, to within a factor of two or so: the ways differ by hundreds.
_PAIR = 10.0
"""For a product of two entries of a row, found and added where it belongs."""
_DENSE = 0.026
"""For a product in a dense panel, and a third of it for each of the d^3 of a factorization."""
_ENTRY = 10.0
"""For an entry in a pass over the rows."""
_PASSES = 60
"""Of conjugate gradients, with the refinement."""
_SKETCH = 12
"""Rows of a sketch for each column."""
_BLOCK = 1 << 23
"""Pairs of entries in a block: a tenth of a second."""


class Costs(NamedTuple):
    """Estimated times of ways to solve, in nanoseconds."""

    gram: float
    """The normal equations."""
    in_pairs: bool
    """Whether they are made of the pairs of entries, and not of dense panels."""
    passes: float
    """Conjugate gradients on the columns as they are."""
    sketch: float
    """A sketch that makes the columns well conditioned, and conjugate gradients."""


def estimate_costs(rows: Compressed) -> Costs:
    """Return what ways to solve would cost."""
    indptr, _, values, d = rows
    counts = np.diff(indptr.view(np.int64)).astype(np.float64)
    pairs, dense = _PAIR * float(counts @ counts), _DENSE * len(counts) * float(d) ** 2
    cube, a_pass = _DENSE * float(d) ** 3, _ENTRY * len(values)
    sketch = _SKETCH * cube + _PASSES / 2 * a_pass
    return Costs(min(pairs, dense) + cube / 3, pairs < dense, _PASSES * a_pass, sketch)


def column_lengths(rows: Compressed, scales: Vector) -> Vector:
    """Return the norms of the columns times `scales`."""
    _, indices, values, d = rows
    squares = np.square(values * scales[indices])
    return np.sqrt(np.bincount(indices, squares, minlength=d))


def normal_equations(rows: Compressed, scales: Vector | None, b: Matrix) -> Matrix:
    """Return the Gram matrix of the columns, times `scales`, and below it ``b' A``.

    Row by row, from pairs of entries; an interrupt is seen after each block of rows.
    """
    indptr, _, _, d = rows
    matrix = as_matrix((rows, None))
    pairs = np.cumsum(np.square(np.diff(indptr.view(np.int64)).astype(np.float64)))
    size = max(_BLOCK, 4 * d * d)  # a block adds to all of the matrix
    cuts = np.searchsorted(pairs, np.arange(size, pairs[-1], size), side="left") + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(pairs)]]))
    found = np.zeros((d + b.shape[1], d))
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the sums
        for start, stop in pairwise(edges):
            block = matrix[start:stop].astype(np.float64)
            if scales is not None:
                block.data *= scales[block.indices]
            found[:d] += (block.T @ block).toarray()
            found[d:] += (block.T @ b[start:stop]).T
    return found
