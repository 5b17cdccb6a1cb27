"""The shortest of all solutions of a system whose columns depend on one another.

What a matrix takes to zero is known up to rounding in columns of one length. In the columns
themselves that rounding counts as much more where a column is short: the zeros of the null space
have to be found before the scales come back. So it is written as dependent columns, each a
combination of others, whose coefficients are exact zeros where they are no more than rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

__all__ = ["Dependence", "find_dependence"]

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

_PIVOT = 0.1
"""Part of the largest entry that a pivot has at least: among these the shortest column is taken."""


class Dependence(NamedTuple):
    """Columns that others make up: column ``dependent[j]`` is their sum with ``weights[:, j]``."""

    dependent: npt.NDArray[np.intp]
    weights: Matrix
    """Shape (d, r), with rows of zeros for the dependent columns."""

    def shortest(self, x: Matrix) -> Matrix:
        """Return the shortest solution, given one: O(d r (r + k))."""
        r = len(self.dependent)
        if r == 0:
            return x
        # First without the dependent columns: what they get at last may be much less than now.
        x = x + self.weights @ x[self.dependent]
        # A row that does not take part must not be seen, however large it is.
        parts = np.flatnonzero(self.weights.any(axis=1))
        columns = np.vstack([self.weights[parts], np.eye(r)])
        move = _least_squares(columns, np.vstack([x[parts], np.zeros((r, x.shape[1]))]))
        x[parts] -= self.weights[parts] @ move
        x[self.dependent] = move
        return x


def _least_squares(columns: Matrix, right: Matrix) -> Matrix:
    """Solve by modified Gram and Schmidt: columns that share no row stay exactly so.

    Householder reflections would carry rounding of large rows into small ones.
    """
    r = columns.shape[1]
    both, factor = np.hstack([columns, right]), np.zeros((r, r + right.shape[1]))
    for j in range(r):
        factor[j, j] = np.linalg.norm(both[:, j])
        unit = both[:, j] / factor[j, j]
        factor[j, j + 1 :] = unit @ both[:, j + 1 :]
        both[:, j + 1 :] -= unit[:, None] * factor[j, j + 1 :]
    return np.asarray(solve_triangular(factor[:, :r], factor[:, r:], check_finite=False))


def find_dependence(null: Matrix, scales: Vector, least: float) -> Dependence:
    """Return how columns depend on one another.

    `null`, of shape (d, r), has orthonormal columns, which the matrix takes to zero once its
    columns are multiplied by `scales`. Entries up to `least` are rounding.
    """
    left = null.copy()
    r = left.shape[1]
    dependent = np.zeros(r, dtype=np.intp)
    for j in range(r):
        sizes = np.abs(left[:, j:]).max(axis=1)
        sizes[dependent[:j]] = 0.0
        # The shortest columns depend on longer ones: a solution is short by the use of these.
        pivot = int(np.argmax(np.where(sizes >= _PIVOT * sizes.max(), scales, 0.0)))
        at = j + int(np.argmax(np.abs(left[pivot, j:])))
        left[:, [j, at]] = left[:, [at, j]]
        left[:, j] /= left[pivot, j]
        row = left[pivot].copy()
        row[j] = 0.0
        left -= left[:, j, None] * row
        left[pivot], left[pivot, j] = 0.0, 1.0
        left[np.abs(left) <= least] = 0.0
        dependent[j] = pivot
    left[dependent] = 0.0
    return Dependence(dependent, -(scales[:, None] * left) / scales[dependent])
