"""The shortest of all solutions of a system whose columns depend on one another.

What a matrix takes to zero is known up to rounding in columns of one length. In the columns
themselves that rounding counts as much more where a column is short: the zeros of the null space
have to be found before the scales come back. So short columns are written as sums of longer ones,
with weights that are exact zeros where they are no more than rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

__all__ = ["Dependence", "dependence_of_null", "dependence_of_rows", "find_dependence"]

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

_PIVOT = 0.1
"""Part of the largest entry that a pivot has at least: its column is chosen for its length."""


class Dependence(NamedTuple):
    """How columns make up others, for the one side of the two that has fewer columns."""

    pivots: npt.NDArray[np.intp]
    """The dependent columns; the others where `by_rows`."""
    matrix: Matrix
    """Shape (d, r): the dependent columns as sums of others, zero in the rows of the pivots.
    Where `by_rows`, the rows of the matrix as sums of these, with ones at the pivots."""
    by_rows: bool

    def shortest(self, x: Matrix) -> Matrix:
        """Return the shortest solution, given one: O(d r (r + k))."""
        matrix, r = self.matrix, len(self.pivots)
        if self.by_rows:
            # The one that is a sum of rows, with the same products.
            basis, factor = _orthogonalize(matrix, r)
            products = matrix.T @ x
            found = basis @ solve_triangular(factor, products, trans="T", check_finite=False)
            return np.asarray(found)
        if r == 0:
            return x
        # First without the dependent columns: what they get at last may be much less than now.
        x = x + matrix @ x[self.pivots]
        # A row that does not take part must not be seen, however large it is.
        parts = np.flatnonzero(matrix.any(axis=1))
        k = x.shape[1]
        columns = np.block([[matrix[parts], x[parts]], [np.eye(r), np.zeros((r, k))]])
        _, factor = _orthogonalize(columns, r)
        move = solve_triangular(factor[:, :r], factor[:, r:], check_finite=False)
        x[parts] -= matrix[parts] @ move
        x[self.pivots] = move
        return x


def find_dependence(vt: Matrix, rank: int, scales: Vector, least: float) -> Dependence:
    """Return how columns depend on one another.

    The rows of `vt` are the right singular vectors of the matrix once its columns are multiplied by
    `scales`: at least the first `rank`, which are those of its row space. Entries up to `least` are
    rounding.
    """
    d = vt.shape[1]
    if len(vt) == d and d - rank <= rank:
        return dependence_of_null(vt[rank:].T, scales, least)
    return dependence_of_rows(vt[:rank].T, scales, least)


def dependence_of_null(basis: Matrix, scales: Vector, least: float) -> Dependence:
    """Return the same from an orthonormal basis (d, r) of what is taken to zero."""
    # The shortest columns depend on longer ones: a solution is short by the use of these.
    pivots, left = _echelon(basis, scales, least)
    left[pivots] = 0.0
    with np.errstate(over="ignore"):
        return Dependence(pivots, -(scales[:, None] * left) / scales[pivots], False)


def dependence_of_rows(basis: Matrix, scales: Vector, least: float) -> Dependence:
    """Return the same from an orthonormal basis (d, rank) of the row space."""
    pivots, left = _echelon(basis, 1 / scales, least)
    with np.errstate(over="ignore"):
        return Dependence(pivots, left * scales[pivots] / scales[:, None], True)


def _echelon(
    vectors: Matrix, preference: Vector, least: float
) -> tuple[npt.NDArray[np.intp], Matrix]:
    """Return pivots, those preferred first, and the same span with an identity in their rows."""
    left, r = vectors.copy(), vectors.shape[1]
    pivots = np.zeros(r, dtype=np.intp)
    for j in range(r):
        sizes = np.abs(left[:, j:]).max(axis=1)
        sizes[pivots[:j]] = 0.0
        pivot = int(np.argmax(np.where(sizes >= _PIVOT * sizes.max(), preference, 0.0)))
        at = j + int(np.argmax(np.abs(left[pivot, j:])))
        left[:, [j, at]] = left[:, [at, j]]
        left[:, j] /= left[pivot, j]
        row = left[pivot].copy()
        row[j] = 0.0
        left -= left[:, j, None] * row
        pivots[j] = pivot
    left[np.abs(left) <= least] = 0.0
    left[pivots] = np.eye(r)
    return pivots, left


def _orthogonalize(columns: Matrix, r: int) -> tuple[Matrix, Matrix]:
    """Return Q and R, the first `r` columns being Q R, and beside R what of the others is in Q.

    By modified Gram and Schmidt: columns that share no row stay exactly so, where Householder
    reflections would carry the rounding of large rows into small ones.
    """
    both, factor = columns.copy(), np.zeros((r, columns.shape[1]))
    for j in range(r):
        factor[j, j] = np.linalg.norm(both[:, j])
        both[:, j] /= factor[j, j]
        factor[j, j + 1 :] = both[:, j] @ both[:, j + 1 :]
        both[:, j + 1 :] -= both[:, j, None] * factor[j, j + 1 :]
    return both[:, :r], factor
