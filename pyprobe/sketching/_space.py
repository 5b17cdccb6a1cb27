"""The space that the columns of a tall matrix span: a basis of it in which nothing is lost.

Scores of rows are those of any basis of this space. Where the columns, scaled to length one, are
well conditioned, they are the basis, and the Cholesky factor of their Gram matrix is exact enough:
its error is that of rounding times the square of the condition number. Elsewhere a sketch of the
rows comes first: the triangular factor of its QR decomposition makes a basis whose condition number
is below two or three whatever that of the columns is, and what the error then grows with is the
condition number itself, as that of a QR decomposition of all rows does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack, qr

from pyprobe.errors import DomainError
from pyprobe.sketching._input import Matrix, Passes, Vector

__all__ = ["Space", "find_space", "inverse_factor", "power_of_two", "scaled_gram"]

GRAM_LIMIT = 1e6
"""Condition number of the scaled Gram matrix up to which it is used: errors up to about 1e-9."""
SKETCH_ROWS = 20
"""Rows of the sketch, for each column."""


@dataclass(frozen=True, slots=True)
class Space:
    """A basis of the column space, and the Gram matrix of the rows in it.

    The basis is a matrix (d, rank) that the columns are multiplied by, or some of the columns,
    scaled. Kernels sum up the rows in their own coordinates, `frame`: in the basis where it is a
    matrix or where squares of the columns overflow, in the columns else.
    """

    tall: Passes
    matrix: Matrix | None
    scales: Vector
    kept: npt.NDArray[np.intp]
    """Which columns are the basis where it is not a matrix."""
    is_extreme: bool
    """Whether squares of the columns, unscaled, are beyond the floating-point numbers."""
    gram: Matrix
    """Of the rows in the basis, shape (rank, rank)."""
    method: str
    """``"gram"``, ``"sketch_qr"`` or ``"approx"``."""

    @property
    def rank(self) -> int:
        """How many columns the basis has."""
        return len(self.gram)

    @property
    def frame(self) -> Matrix | Vector | None:
        """What kernels multiply the rows by."""
        return (
            self.matrix if self.matrix is not None else (self.scales if self.is_extreme else None)
        )

    def to_columns(self, x: Matrix) -> Matrix:
        """Return combinations (rank, k) of the basis as combinations (d, k) of the columns."""
        if self.matrix is not None:
            return np.asarray(self.matrix @ x)
        found = np.zeros((len(self.scales), x.shape[1]))
        found[self.kept] = self.scales[self.kept, None] * x
        return found

    def to_frame(self, x: Matrix) -> Matrix:
        """Return combinations of the basis as combinations of the frame."""
        if self.matrix is not None:
            return x
        if not self.is_extreme:
            return self.to_columns(x)
        found = np.zeros((len(self.scales), x.shape[1]))
        found[self.kept] = x
        return found

    def from_frame(self, gram: Matrix) -> Matrix:
        """Return a Gram matrix of the rows in the basis, made in the frame."""
        if self.matrix is not None:
            return gram
        if not self.is_extreme:
            gram = self.scales[:, None] * gram * self.scales
        return gram[np.ix_(self.kept, self.kept)]

    def squared_norms(self, transform: Matrix) -> Any:
        """Return the squared norm of every row in the basis, times `transform`."""
        return self.tall.squared_norms(self.to_columns(transform))


def find_space(
    tall: Passes,
    method: str = "auto",
    *,
    ridge: float = 0.0,
    n_summed: int = 0,
    n_sketched: int | None = None,
) -> Space:
    """Return the column space of `tall`, of `[a; sqrt(ridge) I]` where there is a ridge.

    ``"approx"`` takes it from a sketch of `n_sketched` rows.

    Columns depend on others where what they add is less than the rounding of as many numbers as the
    rows, or those of their sketch, have been summed from; `n_summed` where that is more.

    Raises
    ------
    NotFiniteError
        Where an entry is infinite or NaN.
    DomainError
        Where all are zero.
    """
    if method == "approx" and (fast := _rough_space(tall, ridge, n_sketched)):
        return fast
    gram, scales, is_extreme = scaled_gram(tall)
    kept = np.flatnonzero(scales)
    if method == "gram" or (method == "auto" and not _is_singular(gram, scales, ridge)):
        gram = gram[np.ix_(kept, kept)]
        return Space(tall, None, scales, kept, is_extreme, gram, "gram")
    matrix = _sketched_basis(tall, _sketch(tall, n_sketched), scales, ridge, n_summed)
    if method == "approx":
        return Space(tall, matrix, scales, kept, is_extreme, np.eye(matrix.shape[1]), method)
    gram = tall.gram(matrix)
    return Space(tall, matrix, scales, kept, is_extreme, gram, "sketch_qr")


def _rough_space(tall: Passes, ridge: float, n_sketched: int | None) -> Space | None:
    """Return the space in a basis that is orthonormal up to the error of a sketch.

    None where an entry is not finite, or squares overflow.
    """
    rows = _sketch(tall, n_sketched)
    with np.errstate(over="ignore"):
        squares = np.square(rows).sum(axis=0)
    inside = (squares > 1e-200) & (squares < 1e200)
    if not (inside | (squares == 0)).all() or not inside.any():
        return None
    scales = power_of_two(np.sqrt(squares))
    matrix = _sketched_basis(tall, rows, scales, ridge, 0)
    kept = np.flatnonzero(scales)
    return Space(tall, matrix, scales, kept, False, np.eye(matrix.shape[1]), "approx")


def scaled_gram(
    tall: Passes, gram_of: Callable[[Vector | None], Matrix] | None = None
) -> tuple[Matrix, Vector, bool]:
    """Return the Gram matrix of the columns, scaled to lengths near 1 by powers of two, and these.

    Columns of zeros have scale 0. Last comes whether squares of the columns themselves overflow.
    `gram_of` may give more rows than there are columns, whose own columns are scaled alike.
    """
    gram_of = gram_of or tall.gram
    gram = gram_of(None)
    d = tall.shape[1]  # after a pass: chunks are counted by then
    squares = gram.diagonal()
    scales = np.ones(d)
    # Plain numbers: a pass over a few columns takes no longer than a few calls of NumPy. Where the
    # squares are numbers, so are all products.
    plain = squares.tolist()
    is_extreme = not any(plain) or any(s != 0 and not 1e-200 < s < 1e200 for s in plain)
    if is_extreme:
        maxima = tall.check_finite()
        scales = power_of_two(maxima)
        gram = gram_of(scales)
        squares = gram.diagonal()
        if not squares.any():
            raise DomainError(f"'{tall.name}' must not be all zero.")
    factors = power_of_two(np.sqrt(squares))
    gram = gram * factors
    gram[:d] *= factors[:, None]
    return gram, scales * factors, is_extreme


def power_of_two(values: Vector) -> Vector:
    """Return powers of two that bring positive values into [1, 2); 0 for a value of 0."""
    exponents = np.frexp(values)[1]
    # The inverse of the smallest subnormal number is not a number.
    return np.where(values > 0, np.ldexp(1.0, np.minimum(1 - exponents, 1023)), 0.0)


def _is_singular(gram: Matrix, scales: Vector, ridge: float) -> bool:
    """Whether the condition number of the Gram matrix is too large for it to be used."""
    kept = scales > 0
    if ridge and not kept.all():
        return True
    matrix = _penalized(gram, scales, ridge)[np.ix_(kept, kept)]
    if not np.isfinite(matrix).all():
        return True
    lengths = 1 / np.sqrt(matrix.diagonal())
    matrix = lengths[:, None] * matrix * lengths
    factor, failed = lapack.dpotrf(matrix)
    if failed:
        return True
    inverse_condition, _ = lapack.dpocon(factor, np.abs(matrix).sum(axis=0).max())
    return bool(inverse_condition * GRAM_LIMIT < 1)


def _penalized(gram: Matrix, scales: Vector, ridge: float) -> Matrix:
    """Return the Gram matrix of the scaled columns with the ridge, which may overflow."""
    if not ridge:
        return gram
    with np.errstate(over="ignore"):
        return gram + np.diag(np.square(np.sqrt(ridge) * scales))


def _sketch(tall: Passes, n_sketched: int | None) -> Matrix:
    """Return a sketch of the rows, or the rows where they are few."""
    n, d = tall.shape
    m = n_sketched or SKETCH_ROWS * d
    return tall.dense() if n <= 2 * m else tall.sketch(m)


def _sketched_basis(
    tall: Passes, rows: Matrix, scales: Vector, ridge: float, n_summed: int = 0
) -> Matrix:
    """Return a matrix (d, rank) that makes the columns a well conditioned basis of their space."""
    d = tall.shape[1]
    rows = rows * scales
    gram = rows.T @ rows
    if scales.all() and not _is_singular(gram, scales, ridge):
        return scales[:, None] * inverse_factor(_penalized(gram, scales, ridge))
    safe = np.where(scales > 0, scales, 1.0)
    if ridge:
        rows = np.vstack([rows, np.sqrt(ridge) * np.diag(safe)])
    factor, order = qr(rows, mode="r", pivoting=True, check_finite=False)
    diagonal = np.abs(np.diag(factor))
    rounding = np.finfo(tall.dtype).eps * max(*rows.shape, n_summed)
    rank = int((diagonal > rounding * diagonal[0]).sum())
    inverse, _ = lapack.dtrtri(factor[:rank, :rank])
    basis = np.zeros((d, rank))
    basis[order[:rank]] = inverse
    return safe[:, None] * basis


def inverse_factor(gram: Matrix) -> Matrix:
    """Return the upper triangular T with T T' the inverse of a positive definite matrix.

    Raises
    ------
    numpy.linalg.LinAlgError
        Where it is not.
    """
    lengths = np.sqrt(gram.diagonal())
    if not (lengths > 0).all():
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    factor, failed = lapack.dpotrf(gram / lengths[:, None] / lengths, lower=0)
    if failed:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    inverse, _ = lapack.dtrtri(np.triu(factor), lower=0)
    return np.asarray(np.triu(inverse) / lengths[:, None])
