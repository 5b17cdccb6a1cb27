"""Families of tall data for the benchmarks of sketching, of 20 columns where `d` is not given."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

__all__ = [
    "COHERENT",
    "FLAT",
    "chebyshev",
    "coherent",
    "indicators",
    "monomials",
    "normal",
    "sparse_low_rank",
]

Matrix = npt.NDArray[np.float64]
D = 20


def normal(n: int, d: int = D) -> Matrix:
    """Rows of normals: all of much the same leverage."""
    return np.random.default_rng(0).standard_normal((n, d))


def chebyshev(n: int, d: int = D) -> Matrix:
    """Chebyshev polynomials of a grid of [-1, 1]: rows near its ends say more."""
    return np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, n), d - 1)


def monomials(n: int, d: int) -> Matrix:
    """Powers of a grid of [0, 1]: of any condition number."""
    return np.vander(np.linspace(0, 1, n), d, increasing=True)


def coherent(n: int, n_rare: int = 5, n_each: int = 40) -> Matrix:
    """Rows of t(1.5) scales, and some columns that are zero in nearly all rows."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal((n, D)) * rng.standard_t(1.5, size=(n, 1))
    for j in range(n_rare):
        a[np.delete(np.arange(n), rng.choice(n, n_each, replace=False)), j] = 0
    return a


def sparse_low_rank(n: int) -> Matrix:
    """Normals of rank 3, a tenth in size, under five t(2.5) numbers in a hundred entries."""
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((n, 3)) @ rng.standard_normal((3, D))
    return np.where(rng.random((n, D)) < 0.05, rng.standard_t(2.5, size=(n, D)), 0.0) + 0.1 * dense


def indicators(n: int) -> Matrix:
    """Of categories, of which the j-th has a share in proportion to 1 / j^2."""
    shares = 1 / np.arange(1, D + 1) ** 2
    return np.eye(D)[np.random.default_rng(6).choice(D, n, p=shares / shares.sum())]


def rare_columns(n: int) -> Matrix:
    """Every column is zero but in 60 rows, beside a little noise."""
    rng = np.random.default_rng(3)
    a = 1e-3 * rng.standard_normal((n, D))
    for j in range(D):
        a[rng.choice(n, 60, replace=False), j] += rng.standard_normal(60)
    return a


def heavy_tails(n: int) -> Matrix:
    """Rows of t(1) scales."""
    rng = np.random.default_rng(4)
    return rng.standard_normal((n, D)) * rng.standard_t(1.0, size=(n, 1))


def lognormal(n: int) -> Matrix:
    """Rows of scales exp(2.5 g)."""
    rng = np.random.default_rng(5)
    return rng.standard_normal((n, D)) * np.exp(2.5 * rng.standard_normal((n, 1)))


def mixture(n: int) -> Matrix:
    """One row in 200 is a hundred times larger than the others."""
    rng = np.random.default_rng(6)
    return rng.standard_normal((n, D)) * np.where(rng.random((n, 1)) < 0.005, 100.0, 1.0)


def clusters(n: int) -> Matrix:
    """A mixture whose components are in subspaces of their own: the rarer, the larger."""
    rng = np.random.default_rng(7)
    a = np.zeros((n, D))
    component = rng.choice(4, size=n, p=[0.99, 0.004, 0.004, 0.002])
    for k, scale in enumerate((1e-2, 1.0, 3.0, 10.0)):
        rows = np.flatnonzero(component == k)
        basis = rng.standard_normal((D, D if k == 0 else 7))
        a[rows] = scale * rng.standard_normal((len(rows), basis.shape[1])) @ basis.T
    return a


def cubic(n: int) -> Matrix:
    """All monomials to the third degree of three t(2) variables."""
    rng = np.random.default_rng(8)
    x = np.column_stack([np.ones(n), rng.standard_t(2, size=(n, 3))])
    return np.column_stack(
        [x[:, j].prod(axis=1) for j in map(list, combinations_with_replacement(range(4), 3))]
    )


def spikes(n: int) -> Matrix:
    """Noise with one spike in 500 rows, in one column each, of t(1) size."""
    rng = np.random.default_rng(9)
    a = 0.01 * rng.standard_normal((n, D))
    rows = rng.choice(n, n // 500, replace=False)
    a[rows, rng.integers(0, D, len(rows))] += 3 * rng.standard_t(1.0, len(rows))
    return a


FLAT: dict[str, Callable[[int], Matrix]] = {
    "normal": normal,
    "Chebyshev": chebyshev,
    "sparse + low rank": sparse_low_rank,
}
COHERENT: dict[str, Callable[[int], Matrix]] = {
    "rare columns, t(1.5) scales": coherent,
    "rare columns": rare_columns,
    "t(1) scales": heavy_tails,
    "lognormal scales": lognormal,
    "mixture of scales": mixture,
    "mixture of subspaces": clusters,
    "cubic in t(2)": cubic,
    "spikes": spikes,
}
