"""Sinkhorn's iteration in torch, for devices that the Rust kernels do not reach.

The same conventions and the same iteration as in Rust's ``log_domain``: one exponential an entry,
shifted by the row's maximum, with over-relaxation. The costs stay as they are; blocks of rows are
widened to float64, or made of points, as they are read. On a GPU kernels of Triton take their place
where they run (`_triton`), with a second exponential an entry, but without writing any block.
Numbers are read off the device every `PERIOD` iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyprobe._engine import kernels
from pyprobe.errors import PyprobeError
from pyprobe.transport._torch_points import Points, leaves

__all__ = [
    "BLOCK",
    "LEAST_SUM",
    "PERIOD",
    "Relaxation",
    "Side",
    "apply",
    "center",
    "dual",
    "log_sums",
    "missed",
    "plan",
    "plan_rows",
    "position_gradient",
    "shifted",
    "sides",
    "sinkhorn",
    "solve_adjoint",
    "sums",
    "symmetric",
    "translate",
]

PERIOD = 10
"""Iterations between two looks at the error."""
BLOCK = 1 << 24
"""Entries of the plan that are made at once."""
LEAST_SUM = 1e-280
"""Column sums below have lost terms to underflow."""
MAX_DIRECT = 3000
"""Columns beyond which no system is solved directly."""
ADJOINT_TOL, ADJOINT_ACCEPTED = 1e-11, 1e-8
"""Residual of the system of a gradient, relative to its right-hand side: aimed at, and accepted."""
ADJOINT_FLOOR = 1e-15
"""What rounding leaves of that right-hand side, relative to the parts that were subtracted."""


@dataclass(frozen=True, eq=False)
class Side:
    """One side's weights, and how strictly the plan must meet them; see Rust's ``Marginal``.

    Of many problems at once too: then weights and potentials have shape (B, n), the slack (B, 1).
    """

    weights: Tensor
    slack: float | Tensor

    @property
    def is_strict(self) -> bool:
        """Whether the weights must be met."""
        return not isinstance(self.slack, Tensor) and self.slack == 0

    @property
    def log_weights(self) -> Tensor:
        """Minus infinity where there is none."""
        return self.weights.log()

    def scaled(self, potential: Tensor | None, epsilon: float) -> Tensor:
        """Return ``f / epsilon + log a``."""
        return self.log_weights if potential is None else self.log_weights + potential / epsilon

    def unscaled(self, potential: Tensor, sums: Tensor) -> Tensor:
        """Return ``f / epsilon``; a point without weight gets what its half step would give it."""
        plain = potential - self.log_weights
        return torch.where(self.weights > 0, plain, -sums / (1 + self.slack))

    def target(self, potential: Tensor) -> Tensor:
        """Return the sums that the side asks for."""
        if self.is_strict:
            return self.weights
        excess = torch.where(self.weights > 0, potential - self.log_weights, 0.0)
        return self.weights * torch.exp(-self.slack * excess)

    def half_step(self, potential: Tensor, sums: Tensor, omega: float | Tensor) -> Tensor:
        """Return the next potential; `sums` are the logarithms of the plan's without its factor."""
        full = self.log_weights - sums / (1 + self.slack)
        step = torch.where(self.weights > 0, full - potential, 0.0)
        return potential + omega * step

    def dual(self, potential: Tensor) -> Tensor:
        """Return ``<a, f / epsilon>``."""
        has = self.weights > 0
        return (self.weights * torch.where(has, potential - self.log_weights, 0.0)).sum(-1)


class Relaxation:
    """How far to step beyond Sinkhorn's own step; see Rust's ``Relaxation`` for the formulas."""

    window, patience = 10, 50

    def __init__(self) -> None:
        self.omega = 1.0
        self.rate: float | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the errors: the factor has changed."""
        self.errors: list[float] = []
        self.least, self.since_least = math.inf, 0

    def observe_all(self, errors: list[float]) -> None:
        """Take note of iterations' errors, up to a change: what remains was made without it."""
        any(self.observe(error) for error in errors)

    def observe(self, error: float) -> bool:
        """Take note of an iteration's error; return whether the factor has changed."""
        self.errors.append(error)
        self.since_least = 0 if error < self.least else self.since_least + 1
        self.least = min(self.least, error)
        if self.since_least >= self.patience and self.omega > 1:
            self.omega = 1 + 0.5 * (self.omega - 1)
            self.restart()
            return True
        now = len(self.errors)
        if now <= 2 * self.window or now % 5 or not error > 0:
            return False
        late, early = self._fall(now - 1), self._fall(now - 1 - self.window)
        if not late < 0 or abs(late - early) > 0.3 * abs(late):
            return False
        self.rate = rate = math.exp(late)
        theta = ((rate + self.omega - 1) / self.omega) ** 2 / rate
        if not (rate > self.omega - 1 and theta < 1):
            return False
        best = 2 / (1 + math.sqrt(1 - theta))
        if best - 1 <= 1.02 * (self.omega - 1) + 0.01:
            return False
        self.omega, self.rate = best, best - 1
        self.restart()
        return True

    def _fall(self, end: int) -> float:
        return math.log(self.errors[end] / self.errors[end - self.window]) / self.window


@torch.no_grad()
def sinkhorn(
    cost: Tensor | Points,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    penalties: tuple[float, float],
    *,
    tol: float,
    max_iter: int,
    start: tuple[Tensor | None, Tensor | None],
    watch: Callable[[int, float], bool] | None,
) -> dict[str, Any]:
    """Solve a problem; return what ``_core.sinkhorn`` does, but for the value."""
    rows, columns = sides(a, b, epsilon, penalties)
    phi, gamma = rows.scaled(start[0], epsilon), columns.scaled(start[1], epsilon)
    fused = _kernels(cost)
    if fused is None:
        steps = _Iteration(cost, epsilon, rows, columns)
    else:
        steps = fused.Iteration(cost, epsilon, (a, b), penalties)
    relaxation = Relaxation()
    tol = tol * float(a.sum())
    errors: list[float] = []
    unread: list[Tensor] = []
    stopped = False
    while True:
        omega = relaxation.omega if errors else 1.0
        phi, following, error = steps(phi, gamma, omega)
        unread.append(error)
        n_iter = len(errors) + len(unread)
        look = n_iter % PERIOD == 0 or n_iter == max_iter or not errors
        if look:
            fresh = torch.stack(unread).tolist()
            errors, unread = errors + fresh, []
            stopped = watch is not None and not watch(n_iter, errors[-1])
            if errors[-1] <= tol or n_iter == max_iter or stopped:
                break
            relaxation.observe_all(fresh)
        if look:
            following = steps.exact(phi, gamma, following, omega)
        phi, gamma = translate(rows, columns, phi, following)
    phi, gamma = center(rows, columns, phi, gamma)
    found = _found(cost, epsilon, (rows, columns), (phi, gamma), errors, tol)
    return found | {"stopped": stopped and errors[-1] > tol, "rate": relaxation.rate}


def sides(
    a: Tensor, b: Tensor, epsilon: float | Tensor, penalties: tuple[float, float]
) -> tuple[Side, Side]:
    """Return both sides of a problem, or of several with an epsilon each."""
    strength = epsilon[:, None] if isinstance(epsilon, Tensor) else epsilon
    first, second = (0.0 if math.isinf(penalty) else strength / penalty for penalty in penalties)
    return Side(a, first), Side(b, second)


@torch.no_grad()
def symmetric(
    cost: Points, a: Tensor, epsilon: float, penalty: float, *, tol: float, max_iter: int
) -> dict[str, Any]:
    """Solve a problem of equal clouds and weights; see Rust's ``sinkhorn_symmetric``."""
    side = Side(a, epsilon / penalty)
    potential = side.log_weights
    tol = tol * float(a.sum())
    errors: list[float] = []
    unread: list[Tensor] = []
    fused = _kernels(cost)
    step = None if fused is None else fused.HalfStep(cost, epsilon, a, penalty)
    while True:
        n_iter = len(errors) + len(unread) + 1
        omega = 0.5 if n_iter > 1 else 1.0  # the first step from nothing is a whole one
        if step is None:
            sums = log_sums(cost, epsilon, potential)
            miss = missed(side, potential, sums)
            following = side.half_step(potential, sums, omega)
        else:
            following, parts = step(potential, potential, omega, after=False)
            miss = parts.sum()
        unread.append(2 * miss)
        if n_iter % PERIOD == 0 or n_iter == max_iter:
            errors, unread = errors + torch.stack(unread).tolist(), []
            if errors[-1] <= tol or n_iter == max_iter:
                break
        potential = following
    return _found(cost, epsilon, (side, side), (potential, potential), errors, tol)


def _found(
    cost: Tensor | Points,
    epsilon: float,
    sides: tuple[Side, Side],
    potentials: tuple[Tensor, Tensor],
    errors: list[float],
    tol: float,
) -> dict[str, Any]:
    (rows, columns), (phi, gamma) = sides, potentials
    return {
        "f": epsilon * rows.unscaled(phi, _sums_if(rows.weights, cost, epsilon, gamma)),
        "g": epsilon * columns.unscaled(gamma, _sums_if(columns.weights, cost.T, epsilon, phi)),
        "errors": errors,
        "n_iter": len(errors),
        "n_newton": 0,
        "converged": errors[-1] <= tol,
        "stopped": False,
        "rate": None,
    }


def _blocks(cost: Tensor | Points, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows of ``C / epsilon`` in float64."""
    size = max(1, BLOCK // cost.shape[1])
    for start in range(0, cost.shape[0], size):
        block = slice(start, start + size)
        yield block, cost[block].double() / epsilon


class _Iteration:
    """Full steps of the rows and then of the columns, in torch's operations."""

    def __init__(self, cost: Tensor | Points, epsilon: float, rows: Side, columns: Side) -> None:
        self.cost, self.epsilon = cost, epsilon
        self.rows, self.columns = rows, columns
        self.sums: Tensor

    def __call__(self, phi: Tensor, gamma: Tensor, omega: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return phi after its half step, gamma after the next, and the error between them."""
        parts, self.sums = [], torch.zeros_like(gamma)
        error = gamma.new_zeros(())
        for block, scaled in _blocks(self.cost, self.epsilon):
            side = Side(self.rows.weights[block], self.rows.slack)
            exponent, high = shifted(gamma - scaled)
            terms = exponent.exp_()
            row_logs = high + terms.sum(1).log()
            potential = side.half_step(phi[block], row_logs, omega)
            self.sums += (potential + high).exp() @ terms
            error = error + missed(side, potential, row_logs)
            parts.append(potential)
        error = error + (self.sums - self.columns.target(gamma)).abs().sum()
        logs = self.sums.clamp_min(LEAST_SUM).log() - gamma
        return torch.cat(parts), self.columns.half_step(gamma, logs, omega), error

    def exact(self, phi: Tensor, gamma: Tensor, following: Tensor, omega: float) -> Tensor:
        """Return `following`, made anew where sums of the columns have lost terms to underflow."""
        if not bool(((self.sums < LEAST_SUM) & (self.columns.weights > 0)).any()):
            return following
        logs = log_sums(self.cost.T, self.epsilon, phi)
        return self.columns.half_step(gamma, logs, omega)


def missed(side: Side, potential: Tensor, sums: Tensor) -> Tensor:
    """Return by how much a side's sums of the plan miss what it asks for."""
    wanted = side.target(potential)
    return torch.where(side.weights > 0, (potential + sums).exp() - wanted, 0.0).abs().sum(-1)


def shifted(exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the rows' maxima, in place; 0 where all is minus infinity."""
    high = exponent.amax(-1)
    high = torch.where(high > -math.inf, high, 0.0)
    return exponent.sub_(high[..., None]), high


@torch.no_grad()
def log_sums(cost: Tensor | Points, epsilon: float, gamma: Tensor) -> Tensor:
    """Return ``log sum_j exp(gamma_j - C_ij / epsilon)``."""
    fused = _kernels(cost)
    if fused is not None:
        found: Tensor = fused.log_sums(cost, epsilon, gamma)
        return found
    parts = [torch.logsumexp(gamma - scaled, 1) for _, scaled in _blocks(cost, epsilon)]
    return torch.cat(parts)


def _kernels(cost: Tensor | Points) -> Any:
    """Return the module of fused kernels where the costs' device runs them, or None."""
    sizes = [t.numel() for t in leaves(cost)] if isinstance(cost, Points) else cost.shape
    return kernels("pyprobe.transport._triton", cost.device, max(sizes))


def _sums_if(weights: Tensor, cost: Tensor | Points, epsilon: float, other: Tensor) -> Tensor:
    """Return `log_sums` where a point without weight will need them."""
    if bool((weights > 0).all()):
        return torch.zeros_like(weights)
    return log_sums(cost, epsilon, other)


def translate(rows: Side, columns: Side, phi: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Share the constant that the plan does not see as the penalties like it best."""
    if rows.is_strict and columns.is_strict:
        return phi, gamma
    total = rows.target(phi).sum(-1, keepdim=True) / columns.target(gamma).sum(-1, keepdim=True)
    shift = total.log() / (rows.slack + columns.slack)
    shift = shift.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return phi + shift, gamma - shift


def center(rows: Side, columns: Side, phi: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Share it equally, where no penalty sees it."""
    if not (rows.is_strict and columns.is_strict):
        return phi, gamma
    shift = 0.5 * (columns.dual(gamma) - rows.dual(phi)) / rows.weights.sum(-1)
    return phi + shift[..., None], gamma - shift[..., None]


def dual(
    weights: tuple[Tensor, Tensor],
    potentials: list[Tensor],
    penalties: tuple[float, float],
    epsilon: float | Tensor,
    mass: Tensor,
) -> Tensor:
    """Return the dual objective of a plan with this mass, for one problem or many."""
    total: Any = 0.0
    for weight, potential, penalty in zip(weights, potentials, penalties, strict=True):
        if math.isinf(penalty):
            total = total + (weight * potential).sum(-1)
        else:
            total = total - penalty * (weight * torch.expm1(-potential / penalty)).sum(-1)
    found: Tensor = total - epsilon * (mass - weights[0].sum(-1) * weights[1].sum(-1))
    return found


@torch.no_grad()
def plan(cost: Tensor | Points, epsilon: float, phi: Tensor, gamma: Tensor) -> Tensor:
    """Return ``exp(phi_i + gamma_j - C_ij / epsilon)`` in float64."""
    exponent = cost.double() / -epsilon
    return exponent.add_(phi[:, None]).add_(gamma).exp_()


@torch.no_grad()
def plan_rows(
    cost: Tensor | Points, epsilon: float, phi: Tensor, gamma: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield blocks of rows of the plan and of ``C / epsilon``, in float64."""
    for block, scaled in _blocks(cost, epsilon):
        yield block, (phi[block][:, None] + gamma).sub_(scaled).exp_(), scaled


@torch.no_grad()
def sums(
    cost: Tensor | Points, epsilon: float, phi: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return row sums, column sums and cost of the plan."""
    fused = _kernels(cost)
    if fused is not None and isinstance(cost, Points):
        in_rows, spent, _ = fused.moments(cost, epsilon, phi, gamma, slopes=False)
        in_columns = fused.moments(cost.T, epsilon, gamma, phi, slopes=False)[0]
        return in_rows, in_columns, spent.sum()
    rows, columns, total = [], torch.zeros_like(gamma), gamma.new_zeros(())
    for _, part, scaled in plan_rows(cost, epsilon, phi, gamma):
        rows.append(part.sum(1))
        columns += part.sum(0)
        total += part.mul_(scaled).nan_to_num_(nan=0.0).sum()  # 0 times infinity
    return torch.cat(rows), columns, epsilon * total


@torch.no_grad()
def apply(
    cost: Tensor | Points,
    epsilon: float,
    phi: Tensor,
    gamma: Tensor,
    v: Tensor,
    *,
    transpose: bool,
) -> Tensor:
    """Return the plan, or its transpose, times a vector or a matrix."""
    if transpose:
        cost, phi, gamma = cost.T, gamma, phi
    parts = [part @ v for _, part, _ in plan_rows(cost, epsilon, phi, gamma)]
    return torch.cat(parts)


@torch.no_grad()
def position_gradient(
    cost: Points, epsilon: float, phi: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``<P, C>`` in the points, the plan held."""
    fused = _kernels(cost)
    if fused is not None and cost.x.shape[1] <= fused.MOST_SLOPES:
        return (
            fused.moments(cost, epsilon, phi, gamma, slopes=True)[2],
            fused.moments(cost.T, epsilon, gamma, phi, slopes=True)[2],
        )
    in_x, in_y = [], torch.zeros_like(cost.y, dtype=torch.float64)
    for block, part, _ in plan_rows(cost, epsilon, phi, gamma):
        pulls = cost[block].pull_back(part)
        in_x.append(pulls[0])
        in_y += pulls[1]
    return torch.cat(in_x), in_y


@torch.no_grad()
def solve_adjoint(
    plan: Tensor, r: Tensor, q: Tensor, rows: Tensor, columns: Tensor, *, singular: bool
) -> tuple[Tensor, Tensor]:
    """Solve ``[[diag r, P], [P', diag q]] (x, y) = (rows, columns)``: Rust's ``solve_adjoint``."""
    inverse = torch.where(r > 0, 1 / r, 0.0)
    has = q > 0
    # A column without weight has nothing in it: any pivot gives 0.
    q = torch.where(has, q, 1.0)
    right = torch.where(has, columns - (rows * inverse) @ plan, 0.0)

    def schur(y: Tensor) -> Tensor:
        return q * y - (inverse * (plan @ y)) @ plan

    small = len(q) <= MAX_DIRECT
    diagonal = torch.maximum(q - inverse @ plan.square(), 1e-12 * q)
    norm = torch.linalg.vector_norm
    # Where the two parts cancel there is nothing but rounding to solve for; see Rust.
    floor = ADJOINT_FLOOR * (rows.abs().sum() + columns.abs().sum())
    goal = torch.maximum(floor, ADJOINT_TOL * norm(right))
    y, met = _conjugate_gradients(schur, diagonal, right, goal, 500 if small else 10_000)
    if not met and small:
        # S maps constants to 0 without penalties, and so does the right-hand side: what is added to
        # every entry makes it definite and changes nothing else.
        level = q.sum() / len(q) ** 2 if singular else 0.0
        matrix = q.diag() - plan.T @ (inverse[:, None] * plan) + level
        factor, _ = torch.linalg.cholesky_ex(matrix)
        y = torch.cholesky_solve(right[:, None], factor)[:, 0]
        accepted = torch.maximum(floor, ADJOINT_ACCEPTED * norm(right))
        met = bool(norm(schur(y) - right) <= accepted)
    if not met:
        raise PyprobeError("the linear system of the gradient did not converge.")
    return inverse * (rows - plan @ y), y


def _conjugate_gradients(
    apply: Callable[[Tensor], Tensor], diagonal: Tensor, right: Tensor, goal: Tensor, limit: int
) -> tuple[Tensor, bool]:
    """Solve until the residual's norm is at most `goal`; say whether it is."""
    y, residual = torch.zeros_like(right), right
    z = residual / diagonal
    p, rz = z, residual @ z
    for step in range(limit + 1):
        if step % PERIOD == 0 and bool(residual @ residual <= goal**2):
            return y, True
        image = apply(p)
        curvature = p @ image
        # After the last digit all is 0, or noise: then nothing moves any more.
        alpha = torch.where(curvature > 0, rz / curvature, 0.0)
        y, residual = y + alpha * p, residual - alpha * image
        z = residual / diagonal
        rz, last = residual @ z, rz
        p = z + torch.where(last > 0, rz / last, 0.0) * p
    return y, bool(residual @ residual <= goal**2)
