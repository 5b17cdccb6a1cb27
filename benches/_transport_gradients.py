"""Derivatives of the value of entropic transport, on torch tensors on the CPU."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from _timing import Steps, elsewhere, interleave, markdown, median_ratio, peak_rise, time_steps
from _transport import cloud, installed

FRACTION = 1 / 20
TOL = 1e-300
"""Out of reach, so that all make as many iterations as they may."""
FEW = 5
"""Iterations before a backward pass that is measured alone."""
POINTS = "x, y"
SHARE = 10
"""Of the iterations, POT's log mode makes so many times fewer."""


def gradients(n: int, n_iter: int, n_memory: int) -> str:
    """Tables of forward and backward passes together, and of backward passes alone."""
    return (
        "### Gradients\n\nThe value and its gradients, forward and backward together, in the plane "
        f"with n = {n}, epsilon = max C / 20, {n_iter} iterations on every side, in float64. POT "
        "unrolled is `ot.sinkhorn`, differentiated through all iterations; its log mode, whose "
        f"graph takes gigabytes, makes 1/{SHARE} of them, and its time is multiplied, marked ~. "
        'POT by envelope is `ot.solve(grad="envelope")`, which like ours does not unroll, in its '
        "log mode. The difference is that of the first gradient from ours, relative to its largest "
        "entry.\n\n"
        + beside_peers(n, n_iter)
        + f"\n\n`value.backward()` alone, in units of one iteration of the log method at n = {n}, "
        "by what requires a gradient; and by how much it raises the peak of a fresh process, with "
        f"n = {n_memory}, where a matrix of costs has {8e-6 * n_memory**2:.0f} MB. Points are "
        "in space (d = 3), and their unit is an iteration without a matrix.\n\n"
        + backward_alone(n, n_memory)
    )


# Forward and backward


class Side(NamedTuple):
    """A solver's value as a function of what requires a gradient, at a number of iterations."""

    value: Callable[..., torch.Tensor]
    leaves: tuple[torch.Tensor, ...]
    n_iter: int
    times: int = 1
    """What its time is to be multiplied by."""

    def gradients(self) -> tuple[torch.Tensor, ...]:
        fresh = [leaf.clone().requires_grad_() for leaf in self.leaves]
        return torch.autograd.grad(self.value(*fresh, self.n_iter), fresh)


def beside_peers(n: int, n_iter: int) -> str:
    rows = []
    for leaves, sides in {"cost, a, b": in_costs(n, n_iter), "x, y": in_points(n, n_iter)}.items():
        if "ours, log" not in sides:
            continue
        first = {name: side.gradients()[0] for name, side in sides.items()}
        calls = {name: side.gradients for name, side in sides.items()}
        timings = interleave(calls, rounds=3, at_least=0)
        times = {name: [sides[name].times * t for t in timings[name].cpu] for name in sides}
        for name, side in sides.items():
            is_whole = side.times == 1
            seconds = f"{'' if is_whole else '~'}{statistics.median(times[name]):.3g}"
            ratios = [
                None
                if name.startswith("ours")
                else f"**{median_ratio(times[name], times[own]):.3g}**"
                for own in ("ours, log", "ours, scaling")
            ]
            of_ours = first["ours, log"]
            difference = float((first[name] - of_ours).abs().max() / of_ours.abs().max())
            rows.append([leaves, name, seconds, *ratios, f"{difference:.0e}" if is_whole else None])
    head = ["gradients in", "solver", "s", "its time / ours, log (target 10 of POT unrolled)"]
    return markdown([*head, "its time / ours, scaling", "difference"], rows)


def in_costs(n: int, n_iter: int) -> dict[str, Side]:
    """Return the sides with costs and weights as leaves."""
    problem = cloud(n, 2, FRACTION)
    leaves = tuple(map(torch.from_numpy, (problem.cost, problem.a, problem.b)))
    values = {f"ours, {method}": partial(our_value, method) for method in ("log", "scaling")}
    return {
        name: Side(partial(value, problem.epsilon), leaves, n_iter)
        for name, value in values.items()
    } | peers(lambda value: partial(value, problem.epsilon), leaves, n_iter)


def in_points(n: int, n_iter: int) -> dict[str, Side]:
    """Return the sides with points as leaves."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(points) for points in (rng.random((n, 2)), rng.random((n, 2)) ** 1.5))
    epsilon = FRACTION * float(squared_distances(x, y).max())
    weights = torch.full((n,), 1 / n, dtype=torch.float64)

    def of_points(value: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda x, y, k: value(epsilon, squared_distances(x, y), weights, weights, k)

    return {
        f"ours, {method}": Side(partial(our_value_of_points, method, epsilon), (x, y), n_iter)
        for method in ("log", "scaling")
    } | peers(of_points, (x, y), n_iter)


def peers(
    adapt: Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]],
    leaves: tuple[torch.Tensor, ...],
    n_iter: int,
) -> dict[str, Side]:
    """Return POT's sides; `adapt` makes of its values functions of the leaves."""
    if not installed("ot"):
        return {}
    kernel, log = (adapt(partial(pot_value, method)) for method in ("sinkhorn", "sinkhorn_log"))
    return {
        "POT, kernel, unrolled": Side(kernel, leaves, n_iter),
        "POT, log, unrolled": Side(log, leaves, n_iter // SHARE, SHARE),
        "POT, envelope": Side(adapt(pot_envelope), leaves, n_iter),
    }


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T


def our_value(
    method: Any,
    epsilon: float | torch.Tensor,
    cost: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    n_iter: int,
) -> Any:
    from pyprobe.transport import sinkhorn

    return checked(
        lambda: sinkhorn(a, b, cost, epsilon=epsilon, method=method, max_iter=n_iter, tol=TOL),
        n_iter,
    )


def our_value_of_points(method: Any, epsilon: float, x: Any, y: Any, n_iter: int) -> Any:
    from pyprobe.transport import sinkhorn_points

    return checked(
        lambda: sinkhorn_points(x, y, epsilon=epsilon, method=method, max_iter=n_iter, tol=TOL),
        n_iter,
    )


def checked(solve: Callable[[], Any], n_iter: int) -> Any:
    """Return the value after so many iterations, without the warning that they were too few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = solve()
    if found.n_iter != n_iter:
        raise RuntimeError(f"{found.n_iter} iterations instead of {n_iter}.")
    return found.value


def pot_value(
    method: str,
    epsilon: float,
    cost: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    n_iter: int,
) -> torch.Tensor:
    import ot

    plan = ot.sinkhorn(a, b, cost, epsilon, method=method, numItermax=n_iter, stopThr=0, warn=False)
    divergence = (plan * (plan / (a[:, None] * b)).log()).sum() - plan.sum() + a.sum() * b.sum()
    return (plan * cost).sum() + epsilon * divergence


def pot_envelope(
    epsilon: float, cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor, n_iter: int
) -> torch.Tensor:
    import ot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ot.solve(
            cost, a, b, epsilon, reg_type="KL", max_iter=n_iter, tol=0, grad="envelope"
        )
    return found.value


# Backward alone


def backward_alone(n: int, n_memory: int) -> str:
    times: dict[str, list[float]] = {
        wanted: [] for wanted in ("a", "epsilon", "cost", "a, b, epsilon", POINTS)
    }
    iterations: dict[str, list[float]] = {"cost": [], POINTS: []}
    steps = {
        unit: Steps(lambda k, unit=unit: partial(value_in, unit, n, k), FEW, FEW + 20)
        for unit in iterations
    }
    for _ in range(7):
        for unit, seconds in time_steps(steps, rounds=1).items():
            iterations[unit] += seconds
        for wanted, found in times.items():
            found.append(backward_time(wanted, n))
    rows = [
        [
            wanted,
            1e3 * statistics.median(found),
            f"**{median_ratio(found, iterations.get(wanted, iterations['cost'])):.3g}**",
            elsewhere(backward_peak, wanted, n_memory),
        ]
        for wanted, found in times.items()
    ]
    head = ["gradients in", "ms", "in iterations (target 1.5)", "MB"]
    return markdown(head, rows)


def value_in(wanted: str, n: int, n_iter: int) -> Any:
    """Return the value in the graph of those of the data that are wanted."""
    if wanted == POINTS:
        rng = np.random.default_rng(0)
        points = rng.random((n, 3)), rng.random((n, 3)) ** 1.5
        x, y = (torch.from_numpy(p).requires_grad_() for p in points)
        return our_value_of_points("log", 3 * FRACTION, x, y, n_iter)
    problem = cloud(n, 2, FRACTION)
    data = {
        "epsilon": torch.tensor(problem.epsilon, dtype=torch.float64),
        "cost": torch.from_numpy(problem.cost),
        "a": torch.from_numpy(problem.a.copy()),
        "b": torch.from_numpy(problem.b.copy()),
    }
    for name in wanted.split(", "):
        data[name].requires_grad_()
    return our_value("log", data["epsilon"], data["cost"], data["a"], data["b"], n_iter)


def backward_time(wanted: str, n: int) -> float:
    value = value_in(wanted, n, FEW)
    start = time.process_time()
    value.backward()
    return time.process_time() - start


def backward_peak(wanted: str, n: int) -> float | None:
    """Return by how many MB the backward pass raises the peak of this process."""
    value_in(POINTS if wanted == POINTS else "cost, a, b, epsilon", 10, FEW).backward()
    return peak_rise(value_in(wanted, n, FEW).backward)
