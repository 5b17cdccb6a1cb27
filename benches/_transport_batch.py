"""Many small problems of entropic transport at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from _timing import interleave, markdown, median_ratio
from _transport import TOL, installed, squared_distances

EPSILON = 0.05
"""Of the largest cost of each problem, which is 1: POT takes one epsilon for all."""
MAX_ITER = 10_000
TARGETS = {"POT, batch": 2.5, "OTT, vmap": 8}


def batch(n_problems: int, n: int = 32) -> str:
    """A table of the time that all problems take together."""
    costs = np.stack([one_cost(n, seed) for seed in range(n_problems)])
    calls, errors = {}, {}
    for name, solve in solvers(costs).items():
        calls[name], errors[name] = reach(solve)
    timings = interleave(calls, rounds=7)
    ours = timings["ours"].cpu
    rows = []
    for name, timing in timings.items():
        ratio = None if name == "ours" else f"**{median_ratio(timing.cpu, ours):.3g}**"
        target = TARGETS.get(name)
        rows.append(
            [name, 1e3 * statistics.median(timing.cpu), ratio, target, f"{errors[name]:.1e}"]
        )
    head = ["solver", "ms", "its time / ours", "target", "largest marginal error"]
    return (
        f"### A batch of small problems\n\n{n_problems} problems of {n} by {n} points in the plane "
        f"with equal weights, epsilon = max C / {1 / EPSILON:g}, to a marginal error of {TOL:g} "
        "in every one, in float64; the dense plans are part of the result. The errors, rows and "
        "columns, L1, were recomputed from the plans; the tolerance handed to a solver is the "
        f"first of {TOL:g}, {TOL / 2:g}, ... with which they are small enough. "
        "POT's batches are torch tensors; OTT is compiled beforehand.\n\n" + markdown(head, rows)
    )


def one_cost(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cost = squared_distances(rng.random((n, 2)), rng.random((n, 2)) ** 1.5)
    return cost / cost.max()


Solve = Callable[[float], Any]
"""Takes a tolerance, and returns the plans."""


def reach(solve: Solve) -> tuple[Callable[[], Any], float]:
    """Return a call whose plans are as near to their marginals as asked, and how near."""
    for halvings in range(12):
        call = partial(solve, TOL / 2**halvings)
        if (error := largest_error(np.asarray(call()))) <= 1.01 * TOL:
            return call, error
    raise RuntimeError(f"No tolerance brings the marginal error below {error:.1e}.")


def largest_error(plans: np.ndarray) -> float:
    rows, columns = (np.abs(plans.sum(axis) - 1 / plans.shape[3 - axis]).sum(1) for axis in (2, 1))
    return float((rows + columns).max())


def solvers(costs: np.ndarray) -> dict[str, Solve]:
    found: dict[str, Solve] = {"ours": lambda tol: ours(costs, tol)}
    if installed("ot"):
        found["POT, batch"] = pot_batch(costs, "log_sinkhorn")
        found["POT, batch, kernel"] = pot_batch(costs, "sinkhorn")
        found["POT, in a loop"] = lambda tol: pot_loop(costs, tol)
    if installed("ott"):
        found["OTT, vmap"] = ott_vmap(costs)
    return found


def ours(costs: np.ndarray, tol: float) -> list[np.ndarray]:
    from pyprobe.transport import sinkhorn_batch

    results = sinkhorn_batch(None, None, costs, epsilon=EPSILON, tol=tol)
    return [result.plan() for result in results]


def pot_batch(costs: np.ndarray, method: str) -> Solve:
    import torch
    from ot.batch import solve_batch

    tensor = torch.from_numpy(costs)

    def solve(tol: float) -> Any:
        options = {"method": method, "tol": tol, "max_iter": MAX_ITER, "grad": "detach"}
        return solve_batch(tensor, EPSILON, **options).plan

    return solve


def pot_loop(costs: np.ndarray, tol: float) -> list[np.ndarray]:
    import ot

    weights = np.full(costs.shape[1], 1 / costs.shape[1])
    options = {"stopThr": tol, "numItermax": MAX_ITER}
    return [ot.sinkhorn(weights, weights, cost, EPSILON, **options) for cost in costs]


def ott_vmap(costs: np.ndarray) -> Solve:
    import jax
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    jax.config.update("jax_enable_x64", True)

    def plan(cost: Any, tol: Any) -> Any:
        solver = Sinkhorn(threshold=tol, max_iterations=MAX_ITER)
        return solver(LinearProblem(Geometry(cost_matrix=cost, epsilon=EPSILON))).matrix

    compiled = jax.jit(jax.vmap(plan, in_axes=(0, None))).lower(costs, TOL).compile()
    return lambda tol: jax.block_until_ready(compiled(costs, tol))
