"""Distances between samples of NumPy arrays; `_torch` is its twin, name by name."""

from __future__ import annotations

import warnings
from math import gcd, isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyprobe import _core, _validate
from pyprobe._validate import as_float_arrays
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError, MissingDependencyError
from pyprobe.typing import FloatArray

__all__ = [
    "Coupling",
    "as_floats",
    "as_weights",
    "check_finite",
    "check_sums",
    "directions",
    "exact_distance",
    "line_distances",
    "median_distance",
    "optimal_coupling",
    "pair_sums",
    "projected_distances",
    "projections_at_a_time",
    "quantile_coupling",
    "result",
    "spread_rows",
    "weighted_norm",
]

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_MEDIAN_ROWS = 1000
"""Rows whose distances are looked at for their median: half a million pairs."""
_HELD = 1 << 22
"""Projected coordinates held at a time."""
_MAX_ITER = 10**8
"""Pivots of the network simplex: in practice no limit."""


class Coupling(NamedTuple):
    """Mass moved between pairs of points: row `i[k]` of x to row `j[k]` of y."""

    i: Indices
    j: Indices
    mass: Doubles


def as_floats(x: Any, y: Any) -> tuple[FloatArray, FloatArray, Any]:
    """Return both as float arrays of one dtype, and the type of the result."""
    first, second = as_float_arrays(("x", "y"), (x, y))
    return first, second, first.dtype.type


def as_weights(name: str, weights: Any, points: FloatArray) -> Doubles:
    """Return weights that add up to 1; equal ones for None."""
    n = len(points)
    if weights is None:
        return np.full(n, 1 / n)
    w = _validate.as_weights(name, weights, n, "point").astype(np.float64)
    w = w / w.max()  # their sum might overflow
    return np.asarray(w / w.sum())


def check_finite(name: str, points: FloatArray) -> None:
    """Raise `NotFiniteError` where a coordinate is infinite or NaN."""
    _validate.check_finite(name, points)


def result(value: Any, dtype: Any) -> Any:
    """Return a number in the type of the arrays that came."""
    return dtype(value)


def pair_sums(
    x: FloatArray, y: FloatArray, a: Doubles, b: Doubles, kernel: tuple[int, float]
) -> Any:
    """Return the weighted sums of a kernel over the pairs within x, within y and between them.

    A point does not make a pair with itself.
    """
    sums = _core.pair_sums((x, y), (a, b), *kernel)
    check_sums(sums)
    return sums


def check_sums(sums: Any) -> None:
    """Raise where distances or their squares have overflowed."""
    if not all(map(isfinite, sums)):
        raise DomainError(
            "'x' and 'y' must lie so near that neither distances nor their squares overflow. "
            "Divide both by a common scale."
        )


def median_distance(x: FloatArray, y: FloatArray) -> float:
    """Return the median distance between rows spread evenly over the two samples, pooled."""
    from scipy.spatial.distance import pdist  # these modules take a second to load

    i, j = spread_rows(len(x), len(y))
    pooled = np.concatenate([x[i], y[j]]).astype(np.float64)
    return float(np.median(pdist(pooled))) if len(pooled) > 1 else 0.0


def spread_rows(n: int, m: int) -> tuple[Indices, Indices]:
    """Return the rows of either sample that stand for all in a median."""
    k = min(n + m, _MEDIAN_ROWS)
    rows = np.arange(k, dtype=np.int64) * (n + m) // k
    return rows[rows < n], rows[rows >= n] - n


# Wasserstein distances.


def quantile_coupling(n: int, m: int) -> Coupling:
    """Return the optimal coupling of n and m sorted points of equal weights on a line.

    The quantile functions are constant between the multiples of 1/n and of 1/m: counted in units of
    1/(n m), the ends of those intervals are whole numbers.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    assert len(ends) == n + m - gcd(n, m)
    last = ends - 1
    return Coupling(last // m, last // n, np.diff(ends, prepend=0) / (n * m))


def weighted_norm(gaps: Doubles, mass: Any, p: float) -> Any:
    """Return the p-th root of the sum of mass times the p-th power, over the last axis."""
    largest = gaps.max(axis=-1)
    check_sums(np.reshape(largest, -1))
    safe = np.where(largest > 0, largest, 1.0)
    # Relative to the largest, no power overflows.
    return largest * (mass * (gaps / safe[..., None]) ** p).sum(axis=-1) ** (1 / p)


def line_distances(x: Doubles, y: Doubles, coupling: Coupling, p: float) -> Any:
    """Return the Wasserstein distances of samples (..., n) and (..., m) on lines."""
    with np.errstate(over="ignore"):  # the norm looks for infinity
        gaps = np.abs(np.sort(x)[..., coupling.i] - np.sort(y)[..., coupling.j])
    return weighted_norm(gaps, coupling.mass, p)


def directions(n: int, dim: int, key: int) -> Doubles:
    """Return uniform unit vectors, one a row: those of `SphericalUniform` with this key."""
    return np.asarray(_core.vmf_sample(np.eye(1, dim), np.zeros(1), n, key), dtype=np.float64)


def projections_at_a_time(n: int, m: int) -> int:
    """Return how many projections of n and m points are held in memory together."""
    return max(1, _HELD // (n + m))


def projected_distances(x: FloatArray, y: FloatArray, lines: Doubles, p: float) -> Doubles:
    """Return the Wasserstein distances of the projections on each of the lines."""
    coupling = quantile_coupling(len(x), len(y))
    columns_x, columns_y = (np.asarray(a, dtype=np.float64).T for a in (x, y))
    size = projections_at_a_time(len(x), len(y))
    blocks = [lines[k : k + size] for k in range(0, len(lines), size)]
    return np.concatenate(
        [line_distances(u @ columns_x, u @ columns_y, coupling, p) for u in blocks]
    )


def exact_distance(x: FloatArray, y: FloatArray, p: float) -> Any:
    """Return the Wasserstein distance of samples of equal weights."""
    first, second = (np.asarray(a, dtype=np.float64) for a in (x, y))
    if x.shape[1] == 1:
        coupling = quantile_coupling(len(x), len(y))
        return line_distances(first[:, 0], second[:, 0], coupling, p)
    i, j, mass = optimal_coupling(first, second, p)
    return weighted_norm(np.linalg.norm(first[i] - second[j], axis=1), mass, p)


def optimal_coupling(x: FloatArray, y: FloatArray, p: float) -> Coupling:
    """Return an optimal coupling of samples of equal weights."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    n, m = len(x), len(y)
    cost = cdist(x, y)
    largest = cost.max()
    check_sums([largest])
    if p != 1 and largest > 0:
        cost = (cost / largest) ** p
    if n == m:
        i, j = linear_sum_assignment(cost)
        return Coupling(i, j, np.full(n, 1 / n))
    plan = _network_simplex(n, m, cost)
    i, j = np.nonzero(plan)
    return Coupling(i, j, plan[i, j])


def _network_simplex(n: int, m: int, cost: Doubles) -> Doubles:
    try:
        import ot
    except ImportError as error:
        raise MissingDependencyError(
            "wasserstein of samples of different sizes beyond one dimension needs POT: "
            "pip install 'pyprobe-rs[ot]'. Samples of one size do without."
        ) from error
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what went wrong stands in the log
        plan, log = ot.emd(a, b, cost, numItermax=_MAX_ITER, log=True)
    if log["warning"] is not None:
        warn(
            f"the network simplex stopped before the optimum: {log['warning']}",
            ConvergenceWarning,
        )
    return np.asarray(plan)
