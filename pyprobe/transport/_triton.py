"""Sums over a plan's rows in one kernel, for GPUs that Triton compiles for.

The floor of such a sum is its exponentials: of clouds no block of costs is formed, and a matrix of
costs is read once. In operations of torch each block would be written and read about ten times.
Every thread has a row of a cloud and sees its columns one after the other, so that nothing is
passed between threads; the result does not hang on the order in which programs run.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyprobe.transport._torch_points import Points

__all__ = ["log_sums", "moments", "runs_on"]

ROWS, COLUMNS = 32, 64
"""Entries of a matrix that a program reads at once."""
THREADS, STEP = 128, 4
"""Rows of a cloud that a program has, and columns that it sees at once."""
PROGRAMS = 2048
"""So many at least, if there are columns enough to share: a GPU has about 130 processors."""
METRICS = {"sqeuclidean": 1, "euclidean": 2, "cityblock": 3}
LOWEST = tl.constexpr(-1.7e308)


@triton.jit
def _distance(x, y, i, j, n, inside, used, D: tl.constexpr, METRIC: tl.constexpr):
    """Return the costs from points `i` to point `j`; `x` has its coordinates in rows."""
    total = tl.zeros_like(i).to(tl.float64)
    if D <= 8:
        for k in tl.static_range(D):
            one = tl.load(x + k * n + i, mask=inside, other=0.0).to(tl.float64)
            total = _add(total, one - tl.load(y + j * D + k, mask=used, other=0.0), METRIC)
    else:
        for k in range(D):
            one = tl.load(x + k * n + i, mask=inside, other=0.0).to(tl.float64)
            total = _add(total, one - tl.load(y + j * D + k, mask=used, other=0.0), METRIC)
    if METRIC == 2:
        total = tl.sqrt(total)
    return total


@triton.jit
def _add(total, difference, METRIC: tl.constexpr):
    if METRIC == 3:
        total += tl.abs(difference)
    else:
        total += difference * difference
    return total


@triton.jit(do_not_specialize=("n", "m", "width"))
def _log_sums_of_points(
    x,
    y,
    gamma,
    out,
    n,
    m,
    width,
    scale,
    D: tl.constexpr,
    METRIC: tl.constexpr,
    THREADS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Write ``log sum_j exp(gamma_j - scale C_ij)`` over `width` columns."""
    i = tl.program_id(0) * THREADS + tl.arange(0, THREADS)
    first = tl.program_id(1) * width
    last = tl.minimum(first + width, m)
    inside = i < n
    high = tl.full((THREADS,), LOWEST, tl.float64)
    total = tl.zeros((THREADS,), tl.float64)
    factor = tl.load(scale)  # a number passed as such would be rounded to float32
    for start in range(first, last, STEP):
        for step in tl.static_range(STEP):
            j = start + step
            used = j < last
            cost = _distance(x, y, i, j, n, inside, used, D, METRIC)
            exponent = tl.load(gamma + j, mask=used, other=float("-inf")) - cost * factor
            # Of the new term and the sum so far, one is scaled down and the other by 1.
            term = tl.exp(-tl.abs(exponent - high))
            total = tl.where(exponent > high, total * term + 1.0, total + term)
            high = tl.maximum(high, exponent)
    tl.store(out + tl.program_id(1) * n + i, high + tl.log(total), mask=inside)


@triton.jit(do_not_specialize=("n", "m", "width"))
def _moments_of_points(
    x,
    y,
    phi,
    gamma,
    out,
    n,
    m,
    width,
    scale,
    D: tl.constexpr,
    METRIC: tl.constexpr,
    FIRST: tl.constexpr,
    THREADS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Write sums over `width` columns of ``P_ij`` times 1, the cost and three of its derivatives.

    These are by coordinates `FIRST` and the next two of point i.
    """
    i = tl.program_id(0) * THREADS + tl.arange(0, THREADS)
    first = tl.program_id(1) * width
    last = tl.minimum(first + width, m)
    inside = i < n
    mass = tl.zeros((THREADS,), tl.float64)
    spent = tl.zeros((THREADS,), tl.float64)
    pull_0 = tl.zeros((THREADS,), tl.float64)
    pull_1 = tl.zeros((THREADS,), tl.float64)
    pull_2 = tl.zeros((THREADS,), tl.float64)
    factor = tl.load(scale)
    own = tl.load(phi + i, mask=inside, other=float("-inf"))
    for start in range(first, last, STEP):
        for step in tl.static_range(STEP):
            j = start + step
            used = j < last
            cost = _distance(x, y, i, j, n, inside, used, D, METRIC)
            other = tl.load(gamma + j, mask=used, other=float("-inf"))
            part = tl.exp(own + other - cost * factor)
            mass += part
            spent += part * cost
            if METRIC == 2:
                part = tl.where(cost > 0, part / tl.where(cost > 0, cost, 1.0), 0.0)
            if FIRST < D:
                pull_0 += part * _slope(x, y, i, j, n, inside, used, FIRST, D, METRIC)
            if FIRST + 1 < D:
                pull_1 += part * _slope(x, y, i, j, n, inside, used, FIRST + 1, D, METRIC)
            if FIRST + 2 < D:
                pull_2 += part * _slope(x, y, i, j, n, inside, used, FIRST + 2, D, METRIC)
    at = out + tl.program_id(1) * 5 * n + i
    tl.store(at, mass, mask=inside)
    tl.store(at + n, spent, mask=inside)
    tl.store(at + 2 * n, pull_0, mask=inside)
    tl.store(at + 3 * n, pull_1, mask=inside)
    tl.store(at + 4 * n, pull_2, mask=inside)


@triton.jit
def _slope(x, y, i, j, n, inside, used, K: tl.constexpr, D: tl.constexpr, METRIC: tl.constexpr):
    """Return the derivative by coordinate K, of the distance times itself under ``euclidean``."""
    one = tl.load(x + K * n + i, mask=inside, other=0.0).to(tl.float64)
    difference = one - tl.load(y + j * D + K, mask=used, other=0.0)
    if METRIC == 1:
        difference = 2.0 * difference
    if METRIC == 3:
        difference = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    return difference


@triton.jit(do_not_specialize=("n", "m", "width"))
def _log_sums_of_matrix(
    costs,
    gamma,
    out,
    n,
    m,
    width,
    of_row,
    of_column,
    scale,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write ``log sum_j exp(gamma_j - scale C_ij)`` over `width` columns."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * width
    last = tl.minimum(first + width, m)
    inside = i < n
    high = tl.full((ROWS,), LOWEST, tl.float64)
    total = tl.zeros((ROWS,), tl.float64)
    factor = tl.load(scale)
    for start in range(first, last, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        both = inside[:, None] & (j < last)[None, :]
        at = i.to(tl.int64)[:, None] * of_row + j.to(tl.int64)[None, :] * of_column
        cost = tl.load(costs + at, mask=both, other=0.0).to(tl.float64)
        other = tl.load(gamma + j, mask=j < last, other=float("-inf"))
        exponent = other[None, :] - cost * factor
        top = tl.maximum(high, tl.max(exponent, axis=1))
        terms = tl.sum(tl.exp(exponent - top[:, None]), axis=1)
        total = total * tl.exp(high - top) + terms
        high = top
    tl.store(out + tl.program_id(1) * n + i, high + tl.log(total), mask=inside)


def log_sums(cost: Tensor | Points, epsilon: float, gamma: Tensor) -> Tensor:
    """Return ``log sum_j exp(gamma_j - C_ij / epsilon)`` in float64."""
    n, m = cost.shape
    scale = gamma.new_full((), 1 / epsilon)
    gamma = gamma.contiguous()
    with torch.cuda.device_of(gamma):
        if isinstance(cost, Points):
            grid, width = _shares(n, m, THREADS, STEP)
            out = gamma.new_empty((grid[1], n))
            x, y, constants = _of_points(cost)
            _log_sums_of_points[grid](x, y, gamma, out, n, m, width, scale, **constants)
        else:
            grid, width = _shares(n, m, ROWS, COLUMNS)
            out = gamma.new_empty((grid[1], n))
            strides = cost.stride(0), cost.stride(1)
            _log_sums_of_matrix[grid](
                *(cost, gamma, out, n, m, width, *strides, scale), ROWS=ROWS, COLUMNS=COLUMNS
            )
    return out[0] if grid[1] == 1 else out.logsumexp(0)


def moments(
    cost: Points, epsilon: float, phi: Tensor, gamma: Tensor, *, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums (n,) of the plan and of the plan times costs, and of it times slopes (n, d).

    The slopes are the costs' derivatives by the points of `x`; without them the last is empty.
    """
    (n, m), d = cost.shape, cost.x.shape[1]
    scale = phi.new_full((), 1 / epsilon)
    phi, gamma = phi.contiguous(), gamma.contiguous()
    x, y, constants = _of_points(cost)
    grid, width = _shares(n, m, THREADS, STEP)
    parts = []
    with torch.cuda.device_of(phi):
        for first in range(0, d, 3) if slopes else (d,):
            out = phi.new_empty((grid[1], 5, n))
            _moments_of_points[grid](
                *(x, y, phi, gamma, out, n, m, width, scale), FIRST=first, **constants
            )
            parts.append(out.sum(0))
    pulls = torch.cat([part[2:] for part in parts])[: d if slopes else 0]
    return parts[0][0], parts[0][1], pulls.T


def _of_points(cost: Points) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Return clouds as kernels read them, and what these are compiled for."""
    constants = {"D": cost.x.shape[1], "METRIC": METRICS[cost.metric]}
    threads = {"THREADS": THREADS, "STEP": STEP, "num_warps": THREADS // 32}
    return cost.x.T.contiguous(), cost.y.contiguous(), constants | threads


def _shares(n: int, m: int, rows: int, columns: int) -> tuple[tuple[int, int], int]:
    """Return the programs for rows and for columns, and how many columns each of these has."""
    blocks = triton.cdiv(n, rows)
    shares = min(triton.cdiv(PROGRAMS, blocks), triton.cdiv(m, columns))
    width = columns * triton.cdiv(triton.cdiv(m, shares), columns)
    return (blocks, triton.cdiv(m, width)), width


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether kernels can be compiled for a device: that needs a C compiler, too."""
    ones = torch.ones((2, 1), dtype=torch.float64, device=device)
    try:
        found = log_sums(Points(ones, ones, "sqeuclidean"), 1.0, ones[:, 0])
    except Exception:  # of whatever kind: torch's own operations do it without
        return False
    return bool((found - (1 + math.log(2))).abs().max() < 1e-12)
