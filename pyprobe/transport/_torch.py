"""Entropic transport on torch tensors: results in a graph, and the engine of other devices.

CPU tensors are solved by the Rust kernels on views of them (`plain`, `wrap`), other devices by the
twin (`check`, `solve`). What the result gives is then a tensor, and where something requires a
gradient a differentiable expression of the data and of the potentials. Costs are a matrix, or
`Points`, of which a matrix is formed where such an expression is, or its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from pyprobe._autograd import check_eager, is_wrapped
from pyprobe._engine import select
from pyprobe._validate import check_finite, check_positive_float
from pyprobe.errors import DomainError, ShapeError
from pyprobe.transport import _torch_batch
from pyprobe.transport import _torch_solver as twin
from pyprobe.transport._check import Clouds, check_balanced
from pyprobe.transport._rounding import Correction, correction
from pyprobe.transport._torch_check import Given, check, check_batch, check_points, of_one_shape
from pyprobe.transport._torch_gradients import Potentials, Solved, Value, plan_of
from pyprobe.transport._torch_points import Points, detached, finite_costs, leaves, with_leaves
from pyprobe.transport.sinkhorn import SinkhornResult, SolverOptions, _warn, _watch
from pyprobe.typing import ArrayLike

__all__ = [
    "as_points",
    "check",
    "check_batch",
    "check_points",
    "debiased",
    "graph",
    "plain",
    "plain_points",
    "solve",
    "solve_batch",
    "solve_symmetric",
    "views",
    "wrap",
]

Problem: TypeAlias = tuple[Tensor, Tensor, Tensor | Points, float, tuple[float, float]]
"""Weights, costs, epsilon and penalties, as they were solved."""


def plain(a: Any, b: Any, cost: Any, epsilon: Any, init: Any) -> tuple[Any, Any, Any, Any]:
    """Return weights, costs and start without their graph: on the CPU views as NumPy arrays."""
    _check_tensors("sinkhorn", epsilon, a=a, b=b, cost=cost)
    return _bare(a), _bare(b), _bare(cost), _bare_start(init)


def plain_points(
    function: str, x: Any, y: Any, a: Any, b: Any, epsilon: Any, init: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """Return points, weights and start without their graph; see `plain`."""
    _check_tensors(function, epsilon, x=x, y=y, a=a, b=b)
    return _bare(x), _bare(y), _bare(a), _bare(b), _bare_start(init)


def _check_tensors(function: str, epsilon: Any, **given: Any) -> None:
    check_eager(function, [t for t in (*given.values(), epsilon) if isinstance(t, Tensor)])
    _check_precision(**given)


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


def _bare_start(init: Any) -> Any:
    return tuple(map(_bare, init)) if isinstance(init, (tuple, list)) else init


def as_points(x: Tensor, y: Tensor, metric: str) -> Points:
    """Return points whose shapes have been checked as costs, in their graph."""
    pair = [t if t.is_floating_point() else t.double() for t in (x, y)]
    dtype = torch.promote_types(pair[0].dtype, pair[1].dtype)
    first, second = ((t[:, None] if t.ndim == 1 else t).to(dtype) for t in pair)
    return Points(first, second, metric)


def _bare(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_cpu:
        return value.numpy(force=True)
    return detached(value)


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
    if isinstance(native.cost, Clouds):
        x, y = (torch.from_numpy(points) for points in (native.cost.x, native.cost.y))
        costs: Tensor | Points = Points(x, y, native.cost.metric)
    else:
        costs = torch.from_numpy(native.cost)
    return (a, b, costs, native.epsilon, native.penalties), f, g


def _wants_gradient(given: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(
        tensor.requires_grad
        for value in given
        if isinstance(value, (Tensor, Points))
        for tensor in leaves(value)
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


def solve(
    given: Given, epsilon: float, penalties: tuple[float, float], options: SolverOptions
) -> SinkhornResult:
    """Solve a problem where its tensors are."""
    method, tol, max_iter, init, callback, _ = options
    problem = _problem(given, epsilon, penalties)
    watch, report = _watch(callback, max_iter)
    start = _start(init, problem[2])
    found = _solve_alone(problem, tol, max_iter, start, watch)
    result = _of_twin(problem, found, method, given)
    report(result.n_iter, result.marginal_error)
    if not (result.converged or result.stopped):
        _warn(result, found["rate"], tol)
    return result


def solve_batch(
    problems: list[Given],
    strengths: list[float],
    penalties: tuple[float, float],
    options: SolverOptions,
) -> list[SinkhornResult]:
    """Solve problems where their tensors are, small ones of one shape side by side; none warns."""
    tol, max_iter = options.tol, options.max_iter
    pairs = zip(problems, strengths, strict=True)
    bare = [_problem(given, epsilon, penalties) for given, epsilon in pairs]
    results: dict[int, SinkhornResult] = {}
    for members in of_one_shape([cast(Tensor, problem[2]) for problem in bare]):
        if len(members) == 1:
            found = [_solve_alone(bare[members[0]], tol, max_iter, (None, None), None)]
        else:
            a, b, costs, epsilon, _ = zip(*(bare[index] for index in members), strict=True)
            found = _torch_batch.solve(
                torch.stack(costs).double(),
                torch.stack(a),
                torch.stack(b),
                torch.tensor(epsilon, dtype=torch.float64, device=a[0].device),
                penalties,
                tol=tol,
                max_iter=max_iter,
            )
        for index, one in zip(members, found, strict=True):
            results[index] = _of_twin(bare[index], one, options.method, problems[index])
    return [results[index] for index in range(len(problems))]


def _solve_alone(
    problem: Problem,
    tol: float,
    max_iter: int,
    start: tuple[Tensor | None, Tensor | None],
    watch: Callable[[int, float], bool] | None,
) -> dict[str, Any]:
    a, b, cost, epsilon, penalties = problem
    given = cost, a, b, epsilon, penalties
    return twin.sinkhorn(*given, tol=tol, max_iter=max_iter, start=start, watch=watch)


def _problem(given: Given, epsilon: float, penalties: tuple[float, float]) -> Problem:
    """Return what is solved, as plain tensors."""
    a, b, cost = map(detached, given[:3])
    return (*_weights(a, b, cost, penalties), cost, epsilon, penalties)


def _of_twin(problem: Problem, found: dict[str, Any], method: str, given: Given) -> SinkhornResult:
    """Return a result of what the twin has found: of a batch more, for all at once."""
    facts = _facts(found, problem[0], method)
    known = {name: found[name] for name in ("sums", "is_whole") if name in found}
    parts = problem, found["f"], found["g"], facts, given, None
    return _connect(*parts, value=found.get("value"), known=known)


def debiased(
    given: tuple[Tensor, Tensor, Any, Any],
    metric: str,
    epsilon: Any,
    penalties: tuple[float, float],
) -> list[Given]:
    """Return the problem between two clouds, and those of each with itself."""
    x, y, a, b = given
    cost = as_points(x, y, metric)
    first, second = _weights(a, b, cost, penalties)
    return [
        (first, second, cost, epsilon),
        (first, first, Points(cost.x, cost.x, metric), epsilon),
        (second, second, Points(cost.y, cost.y, metric), epsilon),
    ]


def solve_symmetric(
    given: Given, epsilon: float, penalties: tuple[float, float], tol: float, max_iter: int
) -> SinkhornResult:
    """Solve the problem of a cloud with itself, where its tensors are."""
    a, _, cost = map(detached, given[:3])
    found = twin.symmetric(cost, a, epsilon, penalties[0], tol=tol, max_iter=max_iter)
    problem = a, a, cost, epsilon, penalties
    facts = _facts(found, a, "symmetric")
    return _connect(problem, found["f"], found["g"], facts, given, None)


def _facts(found: dict[str, Any], a: Tensor, method: str) -> dict[str, Any]:
    mass = float(a.sum())
    facts = {name: found[name] for name in ("converged", "stopped", "n_iter", "n_newton")}
    errors = np.array(found["errors"]) / mass
    return facts | {"marginal_error": float(errors[-1]), "method": method, "errors": errors}


def _weights(
    a: Any, b: Any, cost: Tensor | Points, penalties: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return both weights in float64, those of the columns of the rows' mass; see `as_masses`."""
    both = [
        torch.full((n,), 1 / n, dtype=torch.float64, device=cost.device)
        if given is None
        else torch.as_tensor(given).double()
        for given, n in ((a, cost.shape[0]), (b, cost.shape[1]))
    ]
    if all(map(math.isinf, penalties)):
        # The difference is a rounding, not a dependence: a constant in the graph.
        both[1] = both[1] * (both[0].sum() / both[1].sum()).detach()
    return both[0], both[1]


def _start(init: Any, cost: Tensor | Points) -> tuple[Tensor | None, Tensor | None]:
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
    *,
    value: float | None = None,
    known: dict[Any, Any] | None = None,
) -> SinkhornResult:
    """Make the result, in the graph of what was given if that requires a gradient.

    `native` is the Rust kernels' result, where they ran; `value` and what is `known` of what was
    solved need not be found again.
    """
    a, b, cost, epsilon, penalties = problem
    solved = _solved(problem, f, g, native, known)
    if value is None:
        value = float(_dual(solved) if native is None else native.value)
    if _wants_gradient(given):
        is_real = all(t.is_floating_point() for t in leaves(given[2]))
        costs = (
            with_leaves(cost, tuple(t.to(cost.dtype) for t in leaves(given[2])))
            if is_real
            else cost
        )
        weights = a, b
        if _wants_gradient(given[:2]):
            weights = _weights(given[0], given[1], costs, penalties)
        inputs = (*weights, _scalar(given[3], a))
        potentials = Potentials.apply(solved, *inputs, *leaves(costs))
        dual = Value.apply(solved, value, *inputs, *potentials, *leaves(costs))
    else:
        costs, inputs = cost, (a, b, _scalar(epsilon, a))
        potentials, dual = (solved.f, solved.g), a.new_tensor(value)
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
        # A result of tensors holds them where another holds arrays; mypy counts no unpacked tuples.
        _problem=_Graph(*inputs, costs, *potentials, dual, solved, native),  # type: ignore[arg-type,call-arg]
    )


def _solved(
    problem: Problem,
    f: Tensor,
    g: Tensor,
    native: SinkhornResult | None,
    known: dict[Any, Any] | None = None,
) -> Solved:
    known = known or {}
    # Where nothing is forbidden and all have weight, so all have potentials.
    if not (known.get("is_whole") or math.isfinite(float(f.sum() + g.sum()))):
        f, g = torch.where(f.isfinite(), f, 0.0), torch.where(g.isfinite(), g, 0.0)
    solved = Solved(*problem, f, g, None if native is None else native._problem)  # noqa: SLF001
    vars(solved).update(known)  # its cached properties, which it would find when first asked
    return solved


def _scalar(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=like.device).reshape(())


def _dual(solved: Solved) -> Tensor:
    """Return the dual objective."""
    weights, potentials = (solved.a, solved.b), [solved.f, solved.g]
    return twin.dual(weights, potentials, solved.penalties, solved.epsilon, solved.sums[0].sum())


@dataclass(frozen=True, eq=False)
class _Graph:
    """The data and the potentials of a result as autograd sees them, and as plain tensors."""

    a: Tensor
    b: Tensor
    epsilon: Tensor
    cost: Tensor | Points
    f: Tensor
    g: Tensor
    value: Tensor
    solved: Solved
    native: SinkhornResult | None

    def wants_gradient(self, *others: Tensor) -> bool:
        tensors = (self.f, self.a, self.b, self.epsilon, *leaves(self.cost), *others)
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
        solved = self.solved
        if isinstance(solved.cost, Points) or any(map(math.isfinite, solved.penalties)):
            return None
        if bool(solved.cost.amax() < math.inf):
            return None
        logs = solved.a.log()[:, None] + solved.b.log()
        exponents = logs + (solved.f[:, None] + solved.g - solved.cost.double()) / self.epsilon
        rows, columns, _ = solved.sums
        given = exponents, solved.a - rows, solved.b - columns
        return correction(*(tensor.numpy(force=True) for tensor in given))

    def matrix(self, value: Any, name: str, n: int) -> Tensor:
        """Return an argument that multiplies the plan, in float64."""
        like = "x" if isinstance(self.cost, Points) else "cost"
        select(value, leaves(self.cost)[0], names=(name, like))
        tensor = torch.as_tensor(value).double()
        if tensor.ndim not in (1, 2) or tensor.shape[0] != n:
            shape = tuple(tensor.shape)
            raise ShapeError(f"'{name}' must have shape ({n},) or ({n}, k); got {shape}.")
        if tensor.is_cpu and not is_wrapped(tensor):  # elsewhere a look would wait for the device
            check_finite(name, tensor.numpy(force=True))
        return tensor


def graph(result: SinkhornResult) -> _Graph:
    """Return what autograd sees of a result on tensors."""
    found: _Graph = cast(_TensorResult, result)._graph  # noqa: SLF001
    return found


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
        value = solved.a.new_tensor(float(found.value))
        data = solved.a, solved.b, _scalar(found.epsilon, solved.a), solved.cost
        return _Graph(*data, solved.f, solved.g, value, solved, found)

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
        if graph.wants_gradient(tensor):
            plan = graph.plan()
            return self._rounded((plan.T if transpose else plan) @ tensor)
        return self._rounded(graph.solved.apply(tensor, transpose=transpose))

    def barycentric_map(self, y: ArrayLike) -> Tensor:
        graph = self._graph
        points = graph.matrix(y, "y", graph.cost.shape[1])
        if points.ndim != 2:
            shape = tuple(points.shape)
            raise ShapeError(f"'y' must have shape (m, d), one point a row; got {shape}.")
        sums = graph.solved.sums[0][:, None]
        if not graph.wants_gradient(points):
            return self._rounded(graph.solved.apply(points) / sums)
        # Without the row's own weight and potential, which cancel: 0 / 0 has no gradient.
        kernel = graph.expression(torch.ones_like(graph.a))
        total = kernel.sum(1, keepdim=True)
        means = kernel @ points / torch.where(total > 0, total, 1.0)
        return self._rounded(torch.where(sums > 0, means, math.nan))

    def sparse_plan(self, threshold: float = 0.0) -> scipy.sparse.csr_array:
        if self._graph.native is not None:
            return self._graph.native.sparse_plan(threshold)
        threshold = check_positive_float("threshold", threshold, allow_zero=True)
        solved, parts = self._graph.solved, []
        for block, plan, _ in twin.plan_rows(solved.cost, solved.epsilon, *solved.potentials):
            rows, columns = ((plan >= threshold) & (plan > 0)).nonzero(as_tuple=True)
            parts.append((plan[rows, columns], rows + block.start, columns))
        values, *where = (torch.cat(part).numpy(force=True) for part in zip(*parts, strict=True))
        return scipy.sparse.csr_array((values, tuple(where)), shape=tuple(solved.cost.shape))

    # Not cached: what is first asked for without gradients may be wanted with them later.
    @property
    def transport_cost(self) -> Tensor:  # type: ignore[override]
        graph = self._graph
        if not graph.wants_gradient():
            return self._rounded(graph.solved.sums[2])
        finite = graph.cost.double() if graph.solved.is_whole else finite_costs(graph.cost)
        return self._rounded((graph.plan() * finite).sum())

    def rounded_plan(self) -> Tensor:
        check_balanced("rounded_plan", self._graph.solved.penalties)
        return self._rounded(self._feasible_plan())

    def _feasible_plan(self) -> Tensor:  # type: ignore[override]  # a tensor for an array
        graph = self._graph
        a, b, plan = graph.a, graph.b, graph.plan()
        if graph.native is not None:
            if graph.native._problem.corrected is not None:  # noqa: SLF001
                feasible = torch.from_numpy(graph.native._feasible_plan())  # noqa: SLF001
                return plan + (feasible - plan).detach()
        elif graph.correction is not None:
            i, j, mass, _ = (torch.as_tensor(part, device=a.device) for part in graph.correction)
            # A constant: the marginals, and so what they miss, change with nothing.
            corrected = plan.index_put((i.long(), j.long()), mass, accumulate=True)
            return corrected.clamp_min(0.0)
        plan = plan * _at_most(a, plan.sum(1))[:, None]
        plan = plan * _at_most(b, plan.sum(0))
        u, v = _rest(a, b, plan.sum(1), plan.sum(0))
        return plan + u[:, None] * v

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
            if self._graph.correction is None:
                return float(_rounded_value(solved) - self._graph.value)
            scaled = finite_costs(solved.cost) / self.epsilon
            value = _regularized(self._feasible_plan(), solved.a[:, None] * solved.b, scaled)
            return float(self.epsilon * value - self._graph.value)

    def _rounded(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._graph.cost.dtype)


def _at_most(weights: Tensor, sums: Tensor) -> Tensor:
    """Return the factors, at most 1, that bring sums down to the weights."""
    heavy = sums > weights
    return torch.where(heavy, weights / torch.where(heavy, sums, 1.0), 1.0)


def _rest(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return u and v whose product is what the sums lack of the weights."""
    u, v = (a - rows).clamp_min(0.0), (b - columns).clamp_min(0.0)
    total = v.sum()
    return u, v / torch.where(total > 0, total, 1.0)


def _rounded_value(solved: Solved) -> Tensor:
    """Return the regularized cost of the rounded plan, in blocks of rows."""
    a, b = solved.a, solved.b
    x = _at_most(a, solved.sums[0])
    columns = solved.apply(x, transpose=True)
    y = _at_most(b, columns)
    u, v = _rest(a, b, x * solved.apply(y), y * columns)
    value = a.new_zeros(())
    for block, part, scaled in twin.plan_rows(solved.cost, solved.epsilon, *solved.potentials):
        plan = x[block, None] * part * y + u[block, None] * v
        other = a[block, None] * b
        value += _regularized(plan, other, scaled)
    return solved.epsilon * value


def _regularized(plan: Tensor, other: Tensor, scaled: Tensor) -> Tensor:
    """Return the cost of a plan and its relative entropy, for costs in units of epsilon."""
    has = plan > 0
    ratio = torch.where(has, plan, 1.0) / torch.where(has, other, 1.0)
    entropy = (plan * ratio.log() - plan + other).sum()
    return entropy + (plan * torch.where(has, scaled, 0.0)).sum()
