"""The space that the columns of a tall matrix span: a basis of it in which nothing is lost.

Scores of rows are those of any basis of this space. Where the columns, scaled to length one, are
well conditioned, they are the basis, and the Cholesky factor of their Gram matrix is exact enough:
its error is that of rounding times the square of the condition number. Elsewhere a sketch of the
rows comes first: the triangular factor of its QR decomposition makes a basis whose condition number
is below two or three whatever that of the columns is, and what the error then grows with is the
condition number itself, as that of a QR decomposition of all rows does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack, qr

from pyprobe import _core
from pyprobe.errors import DomainError
from pyprobe.sketching._input import Tall, Vector

__all__ = ["Space", "find_space", "inverse_factor", "power_of_two", "scaled_gram"]

Matrix = npt.NDArray[np.float64]

GRAM_LIMIT = 1e6
"""Condition number of the scaled Gram matrix up to which it is used: errors up to about 1e-9."""
SKETCH_ROWS = 20
"""Rows of the sketch, for each column."""


@dataclass(frozen=True, slots=True)
class Space:
    """A basis of the column space, and the Gram matrix of the rows in it."""

    tall: Tall
    basis: npt.NDArray[np.float64]
    """Factors of the columns, shape (d,), or a matrix of shape (d, rank)."""
    gram: Matrix
    """Shape (rank, rank), well conditioned."""
    rank: int
    method: str
    """``"gram"`` or ``"sketch_qr"``."""

    def squared_norms(self, transform: Matrix) -> Vector:
        """Return the squared norm of every row in the basis, times `transform`."""
        return _core.rows_squared_norms(self.tall.samples, self.basis, transform)

    def to_columns(self, x: Matrix) -> Matrix:
        """Return combinations (rank, k) of the basis as combinations (d, k) of the columns."""
        return np.asarray(self.basis[:, None] * x if self.basis.ndim == 1 else self.basis @ x)


def find_space(tall: Tall, method: str = "auto", *, ridge: float = 0.0) -> Space:
    """Return the column space of `tall`, of `[a; sqrt(ridge) I]` where there is a ridge.

    Raises
    ------
    NotFiniteError
        Where an entry is infinite or NaN.
    DomainError
        Where all are zero.
    """
    gram, scales = scaled_gram(tall)
    if method == "gram" or (method == "auto" and not _is_singular(gram, scales, ridge)):
        basis, kept = scales, np.flatnonzero(scales)
        if len(kept) < len(scales):
            basis = np.zeros((len(scales), len(kept)))
            basis[kept, np.arange(len(kept))] = scales[kept]
        return Space(tall, basis, gram[np.ix_(kept, kept)], len(kept), "gram")
    basis = _sketched_basis(tall, scales, ridge)
    gram = _core.rows_gram(tall.samples, basis)
    return Space(tall, basis, gram, basis.shape[1], "sketch_qr")


def scaled_gram(tall: Tall, targets: Matrix | None = None) -> tuple[Matrix, Vector]:
    """Return powers of two that scale the columns to lengths near 1, and the Gram matrix of these.

    Columns of zeros have scale 0. Targets of shape (n, k) stand beside the columns, as they are.
    """
    d = tall.shape[1]

    def gram_of(scales: Vector) -> Matrix:
        if targets is None:
            return _core.rows_gram(tall.samples, scales)
        return _core.sketch_normal_equations(tall.samples, scales, targets)

    scales = np.ones(d)
    gram = gram_of(scales)
    squares = gram.diagonal()[:d]
    inside = (squares > 1e-200) & (squares < 1e200)
    if not (inside | (squares == 0)).all() or not np.isfinite(gram).all() or not inside.any():
        maxima = tall.check_finite()
        scales = power_of_two(maxima)
        gram = gram_of(scales)
        squares = gram.diagonal()[:d]
        if not squares.any():
            raise DomainError(f"'{tall.name}' must not be all zero.")
    lengths = np.ones(len(gram))
    lengths[:d] = power_of_two(np.sqrt(squares))
    return lengths[:, None] * gram * lengths, scales * lengths[:d]


def power_of_two(values: Vector) -> Vector:
    """Return powers of two that bring positive values into [1, 2); 0 for a value of 0."""
    exponents = np.frexp(values)[1]
    # Two factors: the inverse of the smallest subnormal number is not a number.
    half = (1 - exponents) // 2
    found = np.ldexp(np.ldexp(1.0, half), 1 - exponents - half)
    return np.where(values > 0, np.minimum(found, 2.0**1023), 0.0)


def _is_singular(gram: Matrix, scales: Vector, ridge: float) -> bool:
    """Whether the condition number of the Gram matrix is too large for it to be used."""
    kept = scales > 0
    if ridge and not kept.all():
        return True
    if ridge:
        with np.errstate(over="ignore"):
            gram = gram + np.diag(np.square(np.sqrt(ridge) * scales))
        if not np.isfinite(gram).all():
            return True
    matrix = gram[np.ix_(kept, kept)]
    lengths = 1 / np.sqrt(matrix.diagonal())
    matrix = lengths[:, None] * matrix * lengths
    factor, failed = lapack.dpotrf(matrix)
    if failed:
        return True
    inverse_condition, _ = lapack.dpocon(factor, np.abs(matrix).sum(axis=0).max())
    return bool(inverse_condition * GRAM_LIMIT < 1)


def _sketched_basis(tall: Tall, scales: Vector, ridge: float) -> Matrix:
    """Return a matrix (d, rank) that makes the columns a well conditioned basis of their space."""
    n, d = tall.shape
    n_sketch = SKETCH_ROWS * d
    rows = scales * (sketch_rows(tall, n_sketch) if n > 2 * n_sketch else tall.dense())
    if ridge:
        rows = np.vstack([rows, np.sqrt(ridge) * np.diag(np.where(scales > 0, scales, 1.0))])
    factor, order = qr(rows, mode="r", pivoting=True, check_finite=False)
    diagonal = np.abs(np.diag(factor))
    rank = int((diagonal > np.finfo(tall.dtype).eps * max(rows.shape) * diagonal[0]).sum())
    inverse, _ = lapack.dtrtri(factor[:rank, :rank])
    basis = np.zeros((d, rank))
    basis[order[:rank]] = inverse
    return np.where(scales > 0, scales, 1.0)[:, None] * basis


def sketch_rows(tall: Tall, n_rows: int) -> Matrix:
    """Return a sparse sign embedding of the rows: products of columns are nearly kept."""
    import scipy.sparse

    n, nonzeros = tall.shape[0], 8
    rng = np.random.default_rng(0)
    places = rng.integers(0, n_rows, size=n * nonzeros)
    signs = rng.choice([-1.0, 1.0], size=n * nonzeros) / np.sqrt(nonzeros)
    pointers = np.arange(0, n * nonzeros + 1, nonzeros)
    operator = scipy.sparse.csc_array((signs, places, pointers), shape=(n_rows, n))
    return np.asarray(operator @ tall.dense())


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
