"""Entropic transport on torch tensors: results in a graph, and the engine of other devices.

CPU tensors are solved by the Rust kernels on views of them (`plain`, `wrap`), other devices by the
twin (`check`, `solve`). What the result gives is then a tensor, and where something requires a
gradient a differentiable expression of the data and of the potentials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from pyprobe._autograd import check_eager
from pyprobe._engine import select
from pyprobe._validate import check_positive_float
from pyprobe.errors import DomainError, ShapeError
from pyprobe.transport import _torch_solver as twin
from pyprobe.transport._check import as_cost, as_masses, check_reachable
from pyprobe.transport._rounding import Correction, correction
from pyprobe.transport._torch_gradients import Potentials, Solved, Value, plan_of
from pyprobe.transport.sinkhorn import SinkhornResult, SolverOptions, _warn, _watch
from pyprobe.typing import ArrayLike

__all__ = ["check", "plain", "solve", "views", "wrap"]

Given: TypeAlias = tuple[Any, Any, Any, Any]
"""Weights, costs and epsilon, as they were passed."""

Problem: TypeAlias = tuple[Tensor, Tensor, Tensor, float, tuple[float, float]]
"""Weights, costs, epsilon and penalties, as they were solved."""


def plain(a: Any, b: Any, cost: Any, epsilon: Any, init: Any) -> tuple[Any, Any, Any, Any]:
    """Return weights, costs and start without their graph: on the CPU views as NumPy arrays."""
    tensors = [t for t in (a, b, cost, epsilon) if isinstance(t, Tensor)]
    check_eager("sinkhorn", tensors)
    _check_precision(a=a, b=b, cost=cost)
    start = tuple(map(_bare, init)) if isinstance(init, (tuple, list)) else init
    return _bare(a), _bare(b), _bare(cost), start


def views(function: str, **given: Any) -> list[Any]:
    """Return tensors as NumPy arrays, for a function of the CPU without gradients."""
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    check_eager(function, tensors.values())
    _check_precision(**tensors)
    for name, tensor in tensors.items():
        if not tensor.is_cpu:
            raise TypeError(
                f"'{function}' runs on the CPU alone; got '{name}' on {tensor.device}. Pass .cpu() "
                "tensors."
            )
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"'{function}' has no gradients, but '{name}' requires one: pass {name}.detach()."
            )
    return [_bare(value) for value in given.values()]


def _check_precision(**given: Any) -> None:
    for name, value in given.items():
        if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(f"'{name}' must be float32 or float64; got {value.dtype}.")


def _bare(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_cpu:
        return value.numpy(force=True)
    return _detached(value)


def _detached(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    is_integer = not (value.is_floating_point() or value.is_complex())
    return value.double() if is_integer and value.dtype != torch.bool else value.detach()


def wrap(found: SinkhornResult, given: Given) -> SinkhornResult:
    """Return a result on NumPy arrays as one on the CPU tensors that were given."""
    facts = {name: getattr(found, name) for name in _FACTS}
    if _wants_gradient(given):
        return _connect(*_as_tensors(found), facts, given, found)
    f, g = torch.tensor(found.f), torch.tensor(found.g)
    value, problem = torch.tensor(found.value, dtype=f.dtype), cast(Any, found)
    return _TensorResult(f=f, g=g, value=value, epsilon=found.epsilon, **facts, _problem=problem)


def _as_tensors(found: SinkhornResult) -> tuple[Problem, Tensor, Tensor]:
    """Return what the Rust kernels have solved, and its potentials in float64."""
    native = found._problem  # noqa: SLF001
    a, b = torch.from_numpy(native.a), torch.from_numpy(native.b)

    def potential(scaled: Any, weights: Tensor, rounded: Any) -> Tensor:
        known = torch.from_numpy(rounded)
        if known.dtype == torch.float64:
            return known
        exact = native.epsilon * (torch.from_numpy(scaled) - weights.log())
        return torch.where(weights > 0, exact, known.double())

    f = potential(native.phi, a, found.f)
    g = potential(native.gamma, b, found.g)
    return (a, b, torch.from_numpy(native.cost), native.epsilon, native.penalties), f, g


def _wants_gradient(given: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in given
    )


_FACTS = (
    "marginal_error",
    "converged",
    "stopped",
    "n_iter",
    "n_newton",
    "method",
    "errors",
)


def check(a: Any, b: Any, cost: Any, penalties: tuple[float, float], method: str) -> None:
    """Raise where the arguments are not what they must be; numbers are read, no arrays.

    To say what is wrong, and only then, arrays are copied to the CPU: its checks find the words.
    Groups of points that forbidden pairs keep apart are not looked for: the iteration will not
    converge, and warns.
    """
    if method not in ("auto", "log"):
        raise DomainError(
            f"'method' must be 'auto' or 'log' for tensors on {cost.device}; got {method!r}, which "
            "runs on the CPU alone. Pass tensors .to('cpu')."
        )
    if _is_sound(a, b, cost, penalties):
        return
    arrays = [None if t is None else torch.as_tensor(t).numpy(force=True) for t in (a, b, cost)]
    costs = as_cost(arrays[2])
    weights = as_masses(arrays[0], arrays[1], costs.shape, penalties)
    check_reachable(*weights, costs, penalties)


def _is_sound(a: Any, b: Any, cost: Any, penalties: tuple[float, float]) -> bool:
    if not (isinstance(cost, Tensor) and cost.ndim == 2 and 0 not in cost.shape):
        return False
    if not cost.is_floating_point() or not bool(cost.amin() > -math.inf):
        return False
    weights = []
    for given, n in ((a, cost.shape[0]), (b, cost.shape[1])):
        weight = cost.new_ones(n) if given is None else torch.as_tensor(given)
        if weight.shape != (n,) or weight.is_complex():
            return False
        if not bool(((weight >= 0) & (weight < math.inf)).all() & (weight > 0).any()):
            return False
        weights.append(weight.double() if given is not None else weight.double() / n)
    masses = [float(weight.sum()) for weight in weights]
    if all(map(math.isinf, penalties)) and abs(masses[0] - masses[1]) > 1e-6 * max(masses):
        return False
    allowed = (cost < math.inf) & (weights[0] > 0)[:, None] & (weights[1] > 0)
    stranded = ((weights[0] > 0) & ~allowed.any(1)).any() | (
        (weights[1] > 0) & ~allowed.any(0)
    ).any()
    return not bool(stranded)


def solve(
    given: Given,
    epsilon: float,
    penalties: tuple[float, float],
    options: SolverOptions,
    *,
    warns: bool = True,
) -> SinkhornResult:
    """Solve a problem where its tensors are."""
    method, tol, max_iter, init, callback, _ = options
    a, b, cost = map(_detached, given[:3])
    weights_a, weights_b = _weights(a, b, cost, penalties)
    watch, report = _watch(callback, max_iter)
    found = twin.sinkhorn(
        cost,
        weights_a,
        weights_b,
        epsilon,
        penalties,
        tol=tol,
        max_iter=max_iter,
        start=_start(init, cost),
        watch=watch,
    )
    mass = float(weights_a.sum())
    facts = {name: found[name] for name in ("converged", "stopped", "n_iter", "n_newton")}
    facts["marginal_error"] = found["errors"][-1] / mass
    facts |= {"method": method, "errors": np.array(found["errors"]) / mass}
    problem = weights_a, weights_b, cost, epsilon, penalties
    result = _connect(problem, found["f"], found["g"], facts, given, None)
    report(result.n_iter, result.marginal_error)
    if warns and not (result.converged or result.stopped):
        _warn(result, found["rate"], tol)
    return result


def _weights(a: Any, b: Any, cost: Tensor, penalties: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return both weights in float64, those of the columns of the rows' mass; see `as_masses`."""
    both = [
        cost.new_full((n,), 1 / n, dtype=torch.float64)
        if given is None
        else torch.as_tensor(given).double()
        for given, n in ((a, cost.shape[0]), (b, cost.shape[1]))
    ]
    if all(map(math.isinf, penalties)):
        # The difference is a rounding, not a dependence: a constant in the graph.
        both[1] = both[1] * (both[0].sum() / both[1].sum()).detach()
    return both[0], both[1]


def _start(init: Any, cost: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if init is None:
        return None, None
    try:
        f, g = init
    except (TypeError, ValueError):
        raise TypeError("'init' must be a pair of potentials (f, g).") from None
    pair = []
    for name, potential, n in (("f", f, cost.shape[0]), ("g", g, cost.shape[1])):
        tensor = torch.as_tensor(potential, device=cost.device).double()
        if tensor.shape != (n,):
            shape = tuple(tensor.shape)
            raise ShapeError(f"'init' must hold an '{name}' of shape ({n},); got {shape}.")
        tensor = torch.where(tensor == math.inf, 0.0, tensor)  # as the CPU's start does
        if not bool(tensor.isfinite().all()):
            raise DomainError(f"'init' must be finite; '{name}' is not.")
        pair.append(tensor)
    return pair[0], pair[1]


def _connect(
    problem: Problem,
    f: Tensor,
    g: Tensor,
    facts: dict[str, Any],
    given: Given,
    native: SinkhornResult | None,
) -> SinkhornResult:
    """Make the result, in the graph of what was given if that requires a gradient.

    `native` is the Rust kernels' result, where they ran.
    """
    a, b, cost, epsilon, penalties = problem
    solved = _solved(problem, f, g, native)
    value = _dual(solved) if native is None else float(native.value)
    if _wants_gradient(given):
        costs = given[2].to(cost.dtype) if given[2].is_floating_point() else cost
        weights = a, b
        if _wants_gradient(given[:2]):
            weights = _weights(given[0], given[1], costs, penalties)
        inputs = (*weights, costs, _scalar(given[3], a))
        potentials = Potentials.apply(solved, *inputs)
        dual = Value.apply(solved, value, *inputs, *potentials)
    else:
        inputs = a, b, cost, _scalar(epsilon, a)
        potentials = solved.f, solved.g
        dual = a.new_tensor(value)
    dtype, seen = cost.dtype, potentials
    if solved.f is not f:
        pairs = zip((f, g), potentials, strict=True)
        seen = [torch.where(was.isfinite(), now, math.inf) for was, now in pairs]
    return _TensorResult(
        f=seen[0].to(dtype, copy=True),
        g=seen[1].to(dtype, copy=True),
        value=dual.to(dtype),
        epsilon=epsilon,
        **facts,
        _problem=_Graph(*inputs, potentials[0], potentials[1], solved, native),  # type: ignore[arg-type]
    )


def _solved(problem: Problem, f: Tensor, g: Tensor, native: SinkhornResult | None) -> Solved:
    if not math.isfinite(float(f.sum() + g.sum())):
        f, g = torch.where(f.isfinite(), f, 0.0), torch.where(g.isfinite(), g, 0.0)
    return Solved(*problem, f, g, None if native is None else native._problem)  # noqa: SLF001


def _scalar(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=like.device).reshape(())


def _dual(solved: Solved) -> float:
    """Return the dual objective."""
    total = solved.a.new_zeros(())
    for weights, potential, penalty in zip(
        (solved.a, solved.b), (solved.f, solved.g), solved.penalties, strict=True
    ):
        if math.isinf(penalty):
            total = total + weights @ potential
        else:
            total = total - penalty * (weights @ torch.expm1(-potential / penalty))
    entropy = solved.sums[0].sum() - solved.a.sum() * solved.b.sum()
    return float(total - solved.epsilon * entropy)


@dataclass(frozen=True, eq=False)
class _Graph:
    """The data and the potentials of a result as autograd sees them, and as plain tensors."""

    a: Tensor
    b: Tensor
    cost: Tensor
    epsilon: Tensor
    f: Tensor
    g: Tensor
    solved: Solved
    native: SinkhornResult | None

    def wants_gradient(self, *others: Tensor) -> bool:
        tensors = (self.f, self.a, self.b, self.cost, self.epsilon, *others)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def plan(self) -> Tensor:
        """Return the plan in float64, differentiable where anything requires it."""
        if not self.wants_gradient():
            return self.solved.exponentials(self.solved.a, self.solved.b).double()
        return self.expression(self.a)

    def expression(self, a: Tensor) -> Tensor:
        """Return what would be the plan of other weights of the rows, differentiable."""
        data = a, self.b, self.cost, self.epsilon, self.f, self.g
        return plan_of(*data, whole=self.solved.is_whole)[0]

    @cached_property
    def correction(self) -> Correction | None:
        """What gives the plan the weights as marginals beside forbidden pairs: found on the CPU."""
        if self.native is not None:
            return self.native._problem.correction  # noqa: SLF001
        solved = self.solved
        if any(map(math.isfinite, solved.penalties)) or bool(solved.cost.amax() < math.inf):
            return None
        logs = solved.a.log()[:, None] + solved.b.log()
        exponents = logs + (solved.f[:, None] + solved.g - solved.cost.double()) / self.epsilon
        rows, columns, _ = solved.sums
        given = exponents, solved.a - rows, solved.b - columns
        return correction(*(tensor.numpy(force=True) for tensor in given))

    def matrix(self, value: Any, name: str, n: int) -> Tensor:
        """Return an argument that multiplies the plan, in float64."""
        select(value, self.cost, names=(name, "cost"))
        tensor = torch.as_tensor(value).double()
        if tensor.ndim not in (1, 2) or tensor.shape[0] != n:
            shape = tuple(tensor.shape)
            raise ShapeError(f"'{name}' must have shape ({n},) or ({n}, k); got {shape}.")
        return tensor


class _TensorResult(SinkhornResult):
    """A result whose arrays are tensors; the plan is formed where gradients are wanted."""

    _problem: Any

    @cached_property
    def _graph(self) -> _Graph:
        """What was solved, made of the kernels' result only now where no gradient was wanted."""
        found = self._problem
        if isinstance(found, _Graph):
            return found
        solved = _solved(*_as_tensors(found), found)
        data = solved.a, solved.b, solved.cost, _scalar(found.epsilon, solved.a)
        return _Graph(*data, solved.f, solved.g, solved, found)

    def plan(self) -> Tensor:
        return self._rounded(self._graph.plan())

    def apply(self, v: ArrayLike) -> Tensor:
        tensor = self._graph.matrix(v, "v", self._graph.cost.shape[1])
        return self._apply(tensor, transpose=False)

    def apply_transpose(self, u: ArrayLike) -> Tensor:
        tensor = self._graph.matrix(u, "u", self._graph.cost.shape[0])
        return self._apply(tensor, transpose=True)

    def _apply(self, tensor: Tensor, *, transpose: bool) -> Tensor:
        graph = self._graph
        if graph.native is None or graph.wants_gradient(tensor):
            plan = graph.plan()
            return self._rounded((plan.T if transpose else plan) @ tensor)
        found = graph.native.apply_transpose if transpose else graph.native.apply
        return torch.from_numpy(found(tensor.numpy(force=True)))

    def barycentric_map(self, y: ArrayLike) -> Tensor:
        graph = self._graph
        points = graph.matrix(y, "y", graph.cost.shape[1])
        if points.ndim != 2:
            shape = tuple(points.shape)
            raise ShapeError(f"'y' must have shape (m, d), one point a row; got {shape}.")
        sums = graph.solved.sums[0][:, None]
        if not graph.wants_gradient(points):
            return self._rounded(self._apply(points, transpose=False).double() / sums)
        # Without the row's own weight and potential, which cancel: 0 / 0 has no gradient.
        kernel = graph.expression(torch.ones_like(graph.a))
        total = kernel.sum(1, keepdim=True)
        means = kernel @ points / torch.where(total > 0, total, 1.0)
        return self._rounded(torch.where(sums > 0, means, math.nan))

    def sparse_plan(self, threshold: float = 0.0) -> scipy.sparse.csr_array:
        if self._graph.native is not None:
            return self._graph.native.sparse_plan(threshold)
        threshold = check_positive_float("threshold", threshold, allow_zero=True)
        with torch.no_grad():
            plan = self._graph.plan()
            where = ((plan >= threshold) & (plan > 0)).nonzero(as_tuple=True)
            values, rows, columns = (t.numpy(force=True) for t in (plan[where], *where))
        return scipy.sparse.csr_array((values, (rows, columns)), shape=tuple(plan.shape))

    # Not cached: what is first asked for without gradients may be wanted with them later.
    @property
    def transport_cost(self) -> Tensor:  # type: ignore[override]
        graph = self._graph
        if not graph.wants_gradient():
            return self._rounded(graph.solved.sums[2])
        cost, whole = graph.cost, graph.solved.is_whole
        finite = (cost if whole else torch.where(cost < math.inf, cost, 0.0)).double()
        return self._rounded((graph.plan() * finite).sum())

    def rounded_plan(self) -> Tensor:
        return self._rounded(self._feasible_plan())

    def _feasible_plan(self) -> Tensor:
        graph = self._graph
        a, b, plan = graph.a, graph.b, graph.plan()
        if graph.correction is not None:
            i, j, mass, _ = (torch.as_tensor(part, device=a.device) for part in graph.correction)
            # A constant: the marginals, and so what they miss, change with nothing.
            corrected = plan.index_put((i.long(), j.long()), mass, accumulate=True)
            return corrected.clamp_min(0.0)
        plan = plan * _at_most(a, plan.sum(1))[:, None]
        plan = plan * _at_most(b, plan.sum(0))
        u, v = (a - plan.sum(1)).clamp_min(0.0), (b - plan.sum(0)).clamp_min(0.0)
        total = v.sum()
        found: Tensor = plan + u[:, None] * (v / torch.where(total > 0, total, 1.0))
        return found

    @cached_property
    def gap(self) -> float:
        if self._graph.native is not None:
            return float(self._graph.native.gap)
        solved = self._graph.solved
        if not all(map(math.isinf, solved.penalties)):
            raise DomainError(
                "'gap' compares plans that meet the weights; with 'unbalanced' there are none."
            )
        with torch.no_grad():
            plan, other = self._feasible_plan(), solved.a[:, None] * solved.b
            has = plan > 0
            cost = torch.where(has, solved.cost, 0.0).double()
            ratio = torch.where(has, plan, 1.0) / torch.where(has, other, 1.0)
            entropy = (plan * ratio.log() - plan + other).sum()
            return float((plan * cost).sum() + self.epsilon * entropy - self.value)

    def _rounded(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._graph.cost.dtype)


def _at_most(weights: Tensor, sums: Tensor) -> Tensor:
    """Return the factors, at most 1, that bring sums down to the weights."""
    heavy = sums > weights
    return torch.where(heavy, weights / torch.where(heavy, sums, 1.0), 1.0)
