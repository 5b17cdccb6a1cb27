"""How much the norm of a combination of the columns can change from all rows to a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyprobe import _core
from pyprobe.errors import ShapeError
from pyprobe.sketching._input import (
    Matrix,
    Passes,
    Tall,
    Vector,
    check_exponent,
    read_passes,
    read_tall,
)
from pyprobe.sketching._space import find_space, inverse_factor
from pyprobe.sketching.lewis import find_lewis
from pyprobe.sketching.sampling import RowSample

__all__ = ["subspace_distortion"]

N_RANDOM = 40
N_HEAVY = 20
N_REFINED = 3
"""Starts of the search, on each side: random directions, heavy rows; and those that are refined."""
_PART = 1 << 18
"""Numbers that are copied at a time: 2 MB, which stay in the cache."""


def subspace_distortion(a: Any, sample: RowSample, p: float | None = None) -> tuple[float, float]:
    """Compute the least and the largest of ``||S A x||_p / ||A x||_p`` over all x.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        All rows; for p = 2 also in chunks that can be read again, see `leverage_scores`.
    sample : RowSample
        Rows of ``a`` with weights, which make ``||S A x||_p^p = sum of weights_i |a_i x|^p``.
    p : float, optional
        Exponent of the norm; by default that of the sample.

    Returns
    -------
    low, high : float
        For p = 2 exact, from eigenvalues. Else found by a local search from heavy rows and random
        directions: the true ones lie at or beyond. ``low`` is 0 where the sample does not span the
        columns, or by so little that it cannot be told from rounding: by 1e-15 or so of ``high``,
        times the condition number of ``a``.

    Raises
    ------
    ShapeError, NotFiniteError, DomainError
        As `leverage_scores`, or where the sample is of another number of rows.
    TypeError
        Where ``sample`` is no `RowSample`.

    Notes
    -----
    O(n d^2) for p = 2; else about a hundred products with all rows more.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import sample_rows, subspace_distortion
    >>> a = np.random.default_rng(0).standard_normal((10_000, 4))
    >>> low, high = subspace_distortion(a, sample_rows(a, 1000, rng=0))
    >>> 0.8 < low < 1 < high < 1.2
    True
    """
    if not isinstance(sample, RowSample):
        raise TypeError(
            f"'sample' must be a RowSample; got {type(sample).__name__}. sample_rows makes one."
        )
    p = sample.p if p is None else check_exponent(p)
    if p == 2:
        passes = read_passes("a", a)
        space = find_space(passes)
        transform = space.to_columns(inverse_factor(space.gram))
        return _spectrum(passes, sample, transform)[1:]
    tall = read_tall("a", a)
    found = find_lewis(tall, p)
    transform = found.space.to_columns(found.transform)
    rows, low, _ = _spectrum(tall, sample, transform)
    return _search(tall, transform, sample, rows, p, spans=low > 0)


def _spectrum(tall: Passes, sample: RowSample, transform: Matrix) -> tuple[Matrix, float, float]:
    """Return the rows of the sample in the coordinates, and the extremes of their norms."""
    if tall.shape[0] != sample.n_rows:
        raise ShapeError(
            f"'a' must have the {sample.n_rows} rows that were sampled from; got shape "
            f"{tall.shape}."
        )
    given, roots = tall.take_rows(sample.indices), np.sqrt(sample.weights)[:, None]
    rows = given @ transform
    # Not the roots of eigenvalues of a Gram matrix, which are rounded at 1e-8 of the largest.
    values = np.linalg.svd(np.linalg.qr(roots * rows, mode="r"), compute_uv=False)
    if len(values) < rows.shape[1]:  # fewer rows than columns
        return rows, 0.0, float(values[0]) if len(values) else 0.0
    sizes = np.linalg.norm(roots * (np.abs(given) @ np.abs(transform)))
    rounding = np.finfo(np.float64).eps * tall.shape[1] * sizes  # of the products in `rows`
    return rows, float(values[-1]) if values[-1] > rounding else 0.0, float(values[0])


def _search(
    tall: Tall, transform: Matrix, sample: RowSample, rows: Matrix, p: float, *, spans: bool
) -> tuple[float, float]:
    """Return the extremes that are found, in the coordinates of the transform."""
    norms = tall.squared_norms(transform)
    rank = transform.shape[1]
    random = np.random.default_rng(0).standard_normal((N_RANDOM, rank))
    inside = np.zeros(len(norms), dtype=bool)
    inside[sample.indices] = True

    def heaviest(where: Any) -> Matrix:
        chosen = np.flatnonzero(where)
        chosen = chosen[np.argsort(norms[chosen], kind="stable")[::-1][:N_HEAVY]]
        return tall.take_rows(chosen) @ transform

    ratio = _Ratio(tall, tall.matrix(), transform, rows, sample.weights, p)
    high = _refined(ratio, np.vstack([heaviest(inside), random]), 1.0)
    if not spans:
        return 0.0, high
    return _refined(ratio, np.vstack([heaviest(~inside), random]), -1.0), high


def _refined(ratio: _Ratio, starts: Matrix, sign: float) -> float:
    """Return the largest (sign 1) or least (-1) ratio from the best of some starts."""
    from scipy.optimize import minimize

    lengths = np.linalg.norm(starts, axis=1)
    starts = starts[lengths > 0] / lengths[lengths > 0, None]
    values = ratio.many(starts)
    best = np.argsort(-sign * values, kind="stable")[:N_REFINED]
    found = sign * values[best[0]]
    if not np.isfinite(found):
        return 0.0  # a direction that the sample does not see; or, for the largest, no other
    for start in starts[best]:
        end = minimize(
            ratio.one,
            start,
            args=(-sign,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 60},
        )
        found = max(found, -end.fun)
    return float(np.exp(sign * found))


@dataclass(frozen=True, slots=True)
class _Ratio:
    """log ||S A x||_p - log ||A x||_p, and its gradient."""

    tall: Tall
    matrix: Any
    """All rows; made once, as a sparse one costs a copy of its indices."""
    transform: Matrix
    rows: Matrix
    weights: Vector
    p: float

    def many(self, x: Matrix) -> Vector:
        full = _core.power_sums(self.tall.samples, self.transform @ x.T, None, self.p)
        part = self.weights @ np.abs(self.rows @ x.T) ** self.p
        with np.errstate(divide="ignore"):
            return np.asarray((np.log(part) - np.log(full)) / self.p)

    def one(self, x: Vector, sign: float) -> tuple[float, Vector]:
        direction, parts = self.transform @ x, self._parts()
        every, few = np.empty(self.matrix.shape[0]), self.rows @ x
        for rows in parts:
            every[rows] = self.matrix[rows] @ direction
        full, slopes = _norm(every, 1.0, self.p)
        part, few_slopes = _norm(few, self.weights, self.p)
        total: Any = sum(self.matrix[rows].T @ slopes[rows] for rows in parts)
        gradient = self.rows.T @ few_slopes - self.transform.T @ total
        return sign * (part - full), sign * gradient

    def _parts(self) -> list[slice]:
        """Return parts of the rows: products of float32 with float64 make a copy of the former."""
        n, d = self.tall.shape
        size = n if self.tall.dtype == np.float64 else max(1, _PART // d)
        return [slice(start, start + size) for start in range(0, n, size)]


def _norm(y: Vector, weights: Any, p: float) -> tuple[float, Vector]:
    """Return the logarithm of the norm, and its slopes."""
    most = np.abs(y).max()
    sizes = np.abs(y) / most
    if p < 1:  # the slope at 0 has no end; 0 lies between its sides
        powers = weights * np.power(sizes, p - 1, out=np.zeros_like(sizes), where=sizes > 0)
    else:
        powers = weights * sizes ** (p - 1)
    total = (powers * sizes).sum()
    return float(np.log(most) + np.log(total) / p), np.sign(y) * powers / (most * total)
