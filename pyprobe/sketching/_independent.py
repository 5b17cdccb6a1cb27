"""Columns that do not depend on one another, and how they make up the others: from a Gram matrix.

A Cholesky decomposition that takes the largest of what is left of the columns finds both (Higham
2002, section 10.3). A Gram matrix knows of a dependence to the root of rounding only, so how far
the sums of columns are from zero is seen by the rows themselves, after refinement by these. What is
then of the size of rounding is a zero singular value, and no other is near: where that cannot be
said, nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack, solve_triangular

from pyprobe import _core
from pyprobe.cluster._samples import Samples
from pyprobe.sketching._input import Matrix, Vector, shape_of
from pyprobe.sketching._shortest import Dependence, dependence_of_null, dependence_of_rows

__all__ = ["GRAM", "Factored", "factor_gram", "factor_positive"]

GRAM = 1e-11
"""Inverse condition number of the scaled Gram matrix from which on it is used as it is."""
_EPS = float(np.finfo(np.float64).eps)
_ROUNDED = 1e-13
"""The rounding of a Gram matrix of many rows."""
_REFINEMENTS = 2
_NUMBERS = 1 << 22
"""Of sums of columns that are held at a time."""


class Factored(NamedTuple):
    """The Gram matrix of columns that do not depend on one another, factored."""

    kept: npt.NDArray[np.intp] | slice
    """Which they are."""
    factor: Matrix
    """Upper triangular, in their order."""
    inverse: float
    """The inverse condition number of the Gram matrix."""
    null: Dependence | None = None
    """How others depend on them, if there are any."""

    @property
    def condition(self) -> float:
        """About the condition number of the columns."""
        return float(self.inverse**-0.5)

    def solve(self, right: Matrix) -> Matrix:
        """Return the solution in these columns, and zeros for the others."""
        if self.null is None:
            return np.asarray(lapack.dpotrs(self.factor, right)[0])
        found = np.zeros(right.shape)
        found[self.kept] = lapack.dpotrs(self.factor, right[self.kept])[0]
        return found


def factor_gram(
    samples: Samples,
    gram: Matrix,
    scales: Vector,
    lengths: Vector,
    rounding: Callable[[], float],
) -> Factored | None:
    """Return the independent columns, or None where it is not clear which they are.

    The first rows of `gram` are the Gram matrix of the columns of `samples` times `scales`, whose
    lengths are near 1. `lengths` are the scales of the columns of the whole problem, and `rounding`
    gives the part of the largest singular value up to which others are nothing else.
    """
    d = gram.shape[1]
    square = gram[:d]
    factor, inverse = factor_positive(square)
    if inverse > GRAM:
        return Factored(slice(None), factor, inverse)
    largest = float(square.diagonal().max())
    decomposed, order, rank, _ = lapack.dpstrf(square, tol=GRAM * largest)
    if not 0 < rank < d:
        return None
    kept, others = order[:rank].astype(np.intp) - 1, order[rank:].astype(np.intp) - 1
    left = square.diagonal()[others] - np.square(decomposed[:rank, rank:]).sum(axis=0)
    if (
        left.max() > _ROUNDED * largest
    ):  # nearly dependent: the rows would say so, five passes later
        return None
    factor, inverse = factor_positive(square[np.ix_(kept, kept)])
    if inverse <= GRAM:
        return None
    null = np.zeros((d, d - rank))
    null[others] = np.eye(d - rank)
    null[kept] = -solve_triangular(factor, decomposed[:rank, rank:], check_finite=False)
    for _ in range(_REFINEMENTS):
        gradient, _ = _sums(samples, scales, null)
        null[kept] -= lapack.dpotrs(factor, gradient[kept])[0]
    basis, least = _orthonormal(null), rounding()
    # The square of the largest singular value is not less than the largest of the diagonal.
    if _sums(samples, scales, basis)[1].sum() > least**2 * largest:
        return None
    if d - rank <= rank:
        dependence = dependence_of_null(basis, lengths, least)
    else:
        rows = np.zeros((d, rank))
        rows[kept], rows[others] = np.eye(rank), -null[kept].T
        dependence = dependence_of_rows(_orthonormal(rows), lengths, least)
    return Factored(kept, factor, inverse, dependence)


def factor_positive(square: Matrix) -> tuple[Matrix, float]:
    """Return the triangular factor of a matrix, and its inverse condition number."""
    factor, failed = lapack.dpotrf(square)
    size = lapack.dlange("1", square)
    return factor, 0.0 if failed else float(lapack.dpocon(factor, size)[0])


def _orthonormal(columns: Matrix) -> Matrix:
    return np.asarray(np.linalg.qr(columns)[0])


def _sums(samples: Samples, scales: Vector, y: Matrix) -> tuple[Matrix, Vector]:
    """Return ``B' B y`` and the squared norms of ``B y``, for the scaled columns B."""
    n, most = shape_of(samples)[0], y.shape[1]
    size = max(1, _NUMBERS // n)
    parts = [
        _core.sketch_residual(samples, np.zeros((n, len(part.T))), -scales[:, None] * part)
        for part in (y[:, first : first + size] for first in range(0, most, size))
    ]
    gradients = np.hstack([gradient for gradient, _ in parts])
    return scales[:, None] * gradients, np.concatenate([squares for _, squares in parts])
