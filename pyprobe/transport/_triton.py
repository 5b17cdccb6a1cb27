"""Sinkhorn's iteration and sums over a plan's rows, for GPUs that Triton compiles for.

The floor of an iteration is its exponentials: of clouds no block of costs is formed, and a matrix
of costs is read once a side. In operations of torch each block would be written and read about ten
times. A half step takes two kernels: one for the sums, over shares of the columns, and one that
puts the shares together, steps, and says by how much the side is missed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyprobe._triton import (
    LAUNCH,
    MOST_SLOPES,
    STEP,
    THREADS,
    accumulate,
    difference_within,
    shares,
    sums_and_slopes,
)
from pyprobe.transport._torch_points import Points

__all__ = ["MOST_SLOPES", "HalfStep", "Iteration", "log_sums", "moments", "works_on"]

ROWS, COLUMNS = 32, 64
"""Entries of a matrix that a program reads at once."""
METRICS = {"sqeuclidean": 1, "euclidean": 2, "cityblock": 3}
LOWEST = tl.constexpr(-1.7e308)


@triton.jit
def _cost(x, y, i, j, n, inside, used, D: tl.constexpr, METRIC: tl.constexpr):
    """Return the costs from points `i` to point `j`."""
    if METRIC == 3:
        return accumulate(x, y, i, j, n, inside, used, D, 1)
    total = accumulate(x, y, i, j, n, inside, used, D, 2)
    return tl.sqrt(total) if METRIC == 2 else total


@triton.jit
def _add_term(high, total, exponent):
    """Add an exponential to a sum that is ``exp(high) total``; `high` is the largest exponent."""
    # Of the new term and the sum so far, one is scaled down and the other by 1.
    term = tl.exp(-tl.abs(exponent - high))
    total = tl.where(exponent > high, total * term + 1.0, total + term)
    return tl.maximum(high, exponent), total


@triton.jit(do_not_specialize=("n", "m", "width"))
def _sums_of_points(
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
            cost = _cost(x, y, i, j, n, inside, used, D, METRIC)
            exponent = tl.load(gamma + j, mask=used, other=float("-inf")) - cost * factor
            high, total = _add_term(high, total, exponent)
    tl.store(out + tl.program_id(1) * n + i, high + tl.log(total), mask=inside)


@triton.jit(do_not_specialize=("n", "m", "width"))
def _sums_of_matrix(
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


@triton.jit(do_not_specialize=("n", "n_shares", "omega"))
def _half_step(
    parts,
    weights,
    slack,
    potential,
    following,
    errors,
    n,
    n_shares,
    omega,
    STRICT: tl.constexpr,
    AFTER: tl.constexpr,
    THREADS: tl.constexpr,
):
    """Write the next potential of a side, and the error of each program's points.

    The error is that of the potential after the step, or of that before it. See `Side`.
    """
    i = tl.program_id(0) * THREADS + tl.arange(0, THREADS)
    inside = i < n
    weight = tl.load(weights + i, mask=inside, other=0.0)
    own = tl.load(potential + i, mask=inside, other=0.0)
    has = weight > 0
    high = tl.full((THREADS,), LOWEST, tl.float64)
    total = tl.zeros((THREADS,), tl.float64)
    for share in range(n_shares):
        part = tl.load(parts + share * n + i, mask=inside, other=float("-inf"))
        high, total = _add_term(high, total, part)
    sums = high + tl.log(total)
    log_weight = tl.log(tl.where(has, weight, 1.0))
    strength = tl.load(slack)
    step = log_weight - sums / (1.0 + strength) - own
    # Passed as a number omega is rounded to float32, which moves no fixed point.
    after = tl.where(has, own + omega * step, own)
    tl.store(following + i, after, mask=inside)
    at = after if AFTER else own
    wanted = weight
    if not STRICT:
        wanted = weight * tl.exp(-strength * (at - log_weight))
    miss = tl.where(has, tl.abs(tl.exp(at + sums) - wanted), 0.0)
    tl.store(errors + tl.program_id(0), tl.sum(miss, axis=0))


@triton.jit(do_not_specialize=("n", "m", "width", "coordinate"))
def _moments_of_points(
    x,
    y,
    phi,
    gamma,
    out,
    n,
    m,
    width,
    coordinate,
    scale,
    D: tl.constexpr,
    METRIC: tl.constexpr,
    SLOPES: tl.constexpr,
    THREADS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Write sums over `width` columns of ``P_ij`` times 1, the cost and three of its derivatives.

    These are by a coordinate and the next two of point i.
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
            cost = _cost(x, y, i, j, n, inside, used, D, METRIC)
            other = tl.load(gamma + j, mask=used, other=float("-inf"))
            part = tl.exp(own + other - cost * factor)
            mass += part
            spent += part * cost
            if METRIC == 2:
                part = tl.where(cost > 0, part / tl.where(cost > 0, cost, 1.0), 0.0)
            if SLOPES:
                pull_0 += part * _slope(x, y, i, j, n, inside, used, coordinate, D, METRIC)
                pull_1 += part * _slope(x, y, i, j, n, inside, used, coordinate + 1, D, METRIC)
                pull_2 += part * _slope(x, y, i, j, n, inside, used, coordinate + 2, D, METRIC)
    at = out + tl.program_id(1) * 5 * n + i
    tl.store(at, mass, mask=inside)
    tl.store(at + n, spent, mask=inside)
    tl.store(at + 2 * n, pull_0, mask=inside)
    tl.store(at + 3 * n, pull_1, mask=inside)
    tl.store(at + 4 * n, pull_2, mask=inside)


@triton.jit
def _slope(x, y, i, j, n, inside, used, k, D: tl.constexpr, METRIC: tl.constexpr):
    """Return the derivative by coordinate k, of the distance times itself under ``euclidean``."""
    apart = difference_within(x, y, i, j, n, inside, used, k, D)
    if METRIC == 1:
        apart = 2.0 * apart
    if METRIC == 3:
        apart = tl.where(apart > 0, 1.0, tl.where(apart < 0, -1.0, 0.0))
    return apart


class _Sums:
    """The logarithms of sums over the rows of some costs, by shares of the columns."""

    def __init__(self, cost: Tensor | Points, scale: Tensor) -> None:
        n, m = cost.shape
        self.tail: tuple[Any, ...]
        self.given: tuple[Tensor, ...]
        if isinstance(cost, Points):
            self.grid, self.width = shares(n, m)
            self.run, self.tail = _sums_of_points, (scale,)
            self.given, self.constants = _of_points(cost)
        else:
            self.grid, self.width = shares(n, m, ROWS, COLUMNS)
            self.run, self.tail = _sums_of_matrix, (cost.stride(0), cost.stride(1), scale)
            self.given, self.constants = (cost.resolve_neg(),), {"ROWS": ROWS, "COLUMNS": COLUMNS}
        self.parts = scale.new_empty((self.grid[1], n))
        self.shape = n, m

    def __call__(self, gamma: Tensor) -> Tensor:
        """Return the shares, shape (k, n), in a buffer that the next call writes anew."""
        sizes = (*self.shape, self.width)
        given = *self.given, gamma, self.parts, *sizes, *self.tail
        self.run[self.grid](*given, **self.constants, **LAUNCH)
        return self.parts


class HalfStep:
    """One side's half step: see ``Side``."""

    def __init__(
        self, cost: Tensor | Points, epsilon: float, weights: Tensor, penalty: float
    ) -> None:
        self.weights = weights.contiguous()
        self.sums = _Sums(cost, weights.new_full((), 1 / epsilon))
        self.slack = weights.new_full((), epsilon / penalty)
        self.strict = math.isinf(penalty)
        self.n_blocks = triton.cdiv(len(weights), THREADS)

    def __call__(
        self, other: Tensor, potential: Tensor, omega: float, *, after: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the next potential, and errors whose sum is that after the step, or before it."""
        with torch.cuda.device_of(potential):
            parts = self.sums(other.contiguous())
            following, errors = torch.empty_like(potential), potential.new_empty(self.n_blocks)
            _half_step[(self.n_blocks,)](
                *(parts, self.weights, self.slack, potential, following, errors),
                *(len(potential), len(parts), omega),
                STRICT=self.strict,
                AFTER=after,
                THREADS=THREADS,
                **LAUNCH,
            )
        return following, errors


class Iteration:
    """Full steps of the rows and then of the columns, as the twin's own of this name."""

    def __init__(
        self,
        cost: Tensor | Points,
        epsilon: float,
        weights: tuple[Tensor, Tensor],
        penalties: tuple[float, float],
    ) -> None:
        self.rows = HalfStep(cost, epsilon, weights[0], penalties[0])
        self.columns = HalfStep(cost.T, epsilon, weights[1], penalties[1])

    def __call__(self, phi: Tensor, gamma: Tensor, omega: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return phi after its half step, gamma after the next, and the error between them."""
        phi, of_rows = self.rows(gamma, phi, omega, after=True)
        following, of_columns = self.columns(phi, gamma, omega, after=False)
        return phi, following, of_rows.sum() + of_columns.sum()

    def exact(self, phi: Tensor, gamma: Tensor, following: Tensor, omega: float) -> Tensor:  # noqa: ARG002
        """Return `following`: no sum has lost terms to underflow."""
        return following


def log_sums(cost: Tensor | Points, epsilon: float, gamma: Tensor) -> Tensor:
    """Return ``log sum_j exp(gamma_j - C_ij / epsilon)`` in float64."""
    with torch.cuda.device_of(gamma):
        parts = _Sums(cost, gamma.new_full((), 1 / epsilon))(gamma.contiguous())
    return parts[0] if len(parts) == 1 else parts.logsumexp(0)


def moments(
    cost: Points, epsilon: float, phi: Tensor, gamma: Tensor, *, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums (n,) of the plan and of the plan times costs, and of it times slopes (n, d).

    The slopes are the costs' derivatives by the points of `x`; without them the last is empty.
    """
    (n, m), d = cost.shape, cost.x.shape[1]
    scale = phi.new_full((), 1 / epsilon)
    phi, gamma = phi.contiguous(), gamma.contiguous()
    points, constants = _of_points(cost)
    grid, width = shares(n, m)

    def launch(out: Tensor, coordinate: int) -> None:
        given = *points, phi, gamma, out, n, m, width, coordinate, scale
        _moments_of_points[grid](*given, SLOPES=slopes, **constants, **LAUNCH)

    with torch.cuda.device_of(phi):
        sums, pulls = sums_and_slopes(launch, phi, 2, grid[1], (n, d), slopes=slopes)
    return sums[0], sums[1], pulls


def _of_points(cost: Points) -> tuple[tuple[Tensor, Tensor], dict[str, int]]:
    """Return clouds as kernels read them, and what these are compiled for."""
    constants = {"D": cost.x.shape[1], "METRIC": METRICS[cost.metric]}
    # Signs that torch has only taken note of are not seen by kernels.
    points = cost.x.T.contiguous().resolve_neg(), cost.y.contiguous().resolve_neg()
    return points, constants | {"THREADS": THREADS, "STEP": STEP}


def works_on(device: torch.device) -> bool:
    """Whether the kernels can be compiled for a device, and sum right: may raise anything."""
    ones = torch.ones((2, 1), dtype=torch.float64, device=device)
    points = Points(ones, ones, "sqeuclidean")
    half_step = HalfStep(points, 1.0, ones[:, 0] / 2, math.inf)
    following, errors = half_step(ones[:, 0], ones[:, 0], 1.0, after=True)
    mass = moments(points, 1.0, following, ones[:, 0], slopes=True)[0]
    logs = log_sums(ones @ ones.T, 1.0, ones[:, 0])
    expected = torch.tensor([0.0, 0.5, math.log(2)], dtype=torch.float64, device=device)
    found = torch.stack([errors.sum(), mass[0], logs[0]])
    return bool(((found - expected).abs() < 1e-12).all())
