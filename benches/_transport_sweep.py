"""Two hundred problems of every kind: which solvers reach the tolerance, and which say so."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _timing import markdown
from _transport import (
    MAX_ITER,
    TOL,
    Outcome,
    Problem,
    RegOT,
    installed,
    marginal_error,
    ott_compiled,
    ours,
)
from scipy.spatial.distance import cdist

SIZES = np.unique(np.round(2 ** (np.arange(2, 22.5) / 2)).clip(max=2000)).astype(int)
"""Few sizes, since OTT is compiled for each."""
SLOW = 10
"""Times the median of the problems of about the same size."""


class Attempt(NamedTuple):
    """A solver's outcome on a problem, its recomputed error and the seconds it took."""

    outcome: Outcome
    error: float
    seconds: float

    @property
    def kind(self) -> str:
        if self.error <= 1.01 * TOL:
            return "reached"
        if self.outcome.note == "out of time":
            return "out of time"
        return "silent failure" if self.outcome.claims else "said so"


def sweep(n_problems: int, limit: float, peers: bool = True) -> str:
    """Run the solvers on the problems of seeds 0, 1, ...; tables of what came out."""
    problems = [draw(seed) for seed in range(n_problems)]
    found: dict[str, list[Attempt]] = {}
    for name, solve in solvers(problems, limit).items() if peers else [("ours", solve_ours)]:
        found[name] = [attempt(problem, solve) for problem in problems]
        print(f"{name}: {sum(one.seconds for one in found[name]):.0f} s", flush=True)
    kinds = ("reached", "said so", "out of time", "silent failure")
    rows = []
    for name, attempts in found.items():
        counts = [sum(one.kind == kind for one in attempts) for kind in kinds]
        rows.append([name, *counts, 1e3 * statistics.median(one.seconds for one in attempts)])
    head = ["solver", "reached 1e-9", "said that it did not", "out of time", "silent failure"]
    return (
        f"### Reliability\n\n{n_problems} problems: sizes log-uniform in 2..2000, epsilon "
        "log-uniform from max C to max C / 2000, clouds of 1 to 64 dimensions in four metrics and "
        "independent costs; half with weights exp(3 z), z normal, half with a tenth of the weights "
        "zero, a quarter with duplicated points. The error is that of rows and columns, L1, "
        f"recomputed from the plan. Every solver may make {MAX_ITER} iterations (RegOT and "
        f"geomloss 1000) and take {limit:g} s a problem; those that test the L2 norm are given a "
        "tolerance that implies the one in L1. geomloss takes no tolerance and makes all of its "
        "iterations.\n\n"
        + markdown([*head, "ms, median"], rows)
        + "\n\nOurs, where it did not reach the tolerance or took more than "
        f"{SLOW} times the median of its size:\n\n" + troubles(problems, found["ours"])
    )


def draw(seed: int) -> Problem:
    """A problem of any kind; its name says which."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(2), np.log(2000)))
    at = int(np.abs(np.log(SIZES / size)).argmin())
    n, m = int(SIZES[at]), int(SIZES[max(0, at - rng.integers(2))])
    dim, metric = (
        rng.choice([1, 2, 3, 16, 64]),
        rng.choice(["sqeuclidean", "euclidean", "cityblock", "chebyshev", "independent"]),
    )
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 0.5
    skewed, sparse, duplicated = rng.random(3) < (0.5, 0.5, 0.25)
    if duplicated:
        x, y = x[rng.integers((n + 1) // 2, size=n)], y[rng.integers((m + 1) // 2, size=m)]
    cost = rng.random((n, m)) if metric == "independent" else cdist(x, y, metric)
    a, b = (weights(rng, size, skewed, sparse) for size in (n, m))
    fraction = np.exp(rng.uniform(np.log(1 / 2000), 0))
    marks = [word for word, on in zip(MARKS, (skewed, sparse, duplicated), strict=True) if on]
    name = f"{n} x {m}, {metric} {dim}-D, max C / {1 / fraction:.4g}{''.join(marks)}"
    return Problem(name, a, b, cost, fraction * cost.max())


MARKS = (", skewed", ", zeros", ", duplicates")


def weights(rng: np.random.Generator, n: int, skewed: bool, sparse: bool) -> np.ndarray:
    w = np.exp(3 * rng.normal(size=n)) if skewed else np.ones(n)
    if sparse:
        w[1:][rng.random(n - 1) < 0.1] = 0
    return w / w.sum()


def attempt(problem: Problem, solve: Callable[[Problem], Outcome]) -> Attempt:
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            outcome = solve(problem)
        except Exception as error:  # whatever a solver raises, it said so
            outcome = Outcome(None, claims=False, note=repr(error))
    seconds = time.process_time() - start
    if any(issubclass(one.category, UserWarning) for one in caught):
        outcome = outcome._replace(claims=False)
    seconds = seconds if outcome.seconds is None else outcome.seconds
    return Attempt(outcome, marginal_error(problem, outcome.plan), seconds)


def solvers(problems: list[Problem], limit: float) -> dict[str, Callable[[Problem], Outcome]]:
    """The solvers that are installed, ready to be timed."""
    found: dict[str, Callable[[Problem], Outcome]] = {"ours": solve_ours}
    if installed("ot"):
        found["POT, log"] = lambda problem: solve_pot(problem, limit, "sinkhorn_log", 60e-9)
        found["POT, kernel"] = lambda problem: solve_pot(problem, limit, "sinkhorn", 2e-9)
    if installed("ott"):
        for problem in problems:
            compiled(problem, limit)
        found["OTT"] = lambda problem: solve_ott(problem, limit)
    if installed("geomloss"):
        found["geomloss"] = lambda problem: solve_geomloss(problem, limit)
    if installed("regot"):
        process = RegOT()
        for method in ("ssns", "splr"):
            found[f"RegOT, {method}"] = lambda problem, method=method: solve_regot(
                process, problem, method, limit
            )
    return found


def solve_ours(problem: Problem) -> Outcome:
    result = ours(problem)
    note = f"{result.n_iter} + {result.n_newton}"
    return Outcome(result.plan(), claims=result.converged, note=note)


def iterations(problem: Problem, limit: float, seconds: float) -> int:
    """Iterations for which there is time, at so many seconds an entry."""
    return max(10, min(MAX_ITER, int(limit / (seconds * problem.cost.size + 20e-6))))


def solve_pot(problem: Problem, limit: float, method: str, seconds: float) -> Outcome:
    import ot

    most = iterations(problem, limit, seconds)
    plan, log = ot.sinkhorn(
        problem.a,
        problem.b,
        problem.cost,
        problem.epsilon,
        method=method,
        numItermax=most,
        stopThr=TOL / math.sqrt(len(problem.b)),
        log=True,
    )
    late = log["niter"] == most - 1 and most < MAX_ITER
    return Outcome(plan, claims=True, note="out of time" if late else "")


def solve_ott(problem: Problem, limit: float) -> Outcome:
    solve, most = compiled(problem, limit)
    plan, converged = solve(problem.cost, problem.a, problem.b, problem.epsilon)
    late = not converged and most < MAX_ITER
    return Outcome(np.asarray(plan), claims=bool(converged), note="out of time" if late else "")


def compiled(problem: Problem, limit: float) -> tuple[Callable[..., Any], int]:
    most = iterations(problem, limit, 6e-9)
    return ott_compiled(problem.cost.shape, 0, most, TOL), most


def solve_geomloss(problem: Problem, limit: float) -> Outcome:
    import torch
    from geomloss import ot

    a, b, cost = (torch.from_numpy(x) for x in (problem.a, problem.b, problem.cost))
    most = min(1000, iterations(problem, limit, 60e-9))
    plan = ot.solve(cost, reg=problem.epsilon, a=a, b=b, max_iter=most).plan
    return Outcome(plan.numpy(), claims=True)


def solve_regot(process: RegOT, problem: Problem, method: str, limit: float) -> Outcome:
    tol = TOL / math.sqrt(sum(problem.cost.shape))
    outcome, seconds = process.solve(problem, method, tol, limit)
    return outcome._replace(seconds=seconds)


def troubles(problems: list[Problem], attempts: list[Attempt]) -> str:
    """Our failures and slow problems, each with its seed."""
    classes: dict[int, list[float]] = defaultdict(list)
    for problem, one in zip(problems, attempts, strict=True):
        classes[size_class(problem)].append(one.seconds)
    medians = {key: statistics.median(seconds) for key, seconds in classes.items()}
    rows: list[list[Any]] = []
    for seed, (problem, one) in enumerate(zip(problems, attempts, strict=True)):
        times = one.seconds / medians[size_class(problem)]
        if one.kind != "reached" or times > SLOW:
            row = [seed, problem.name, one.kind, f"{one.error:.1e}", one.outcome.note]
            rows.append([*row, 1e3 * one.seconds, times])
    head = ["seed", "problem", "outcome", "error", "iterations + Newton steps", "ms"]
    return markdown([*head, "/ median"], rows) if rows else "none."


def size_class(problem: Problem) -> int:
    return round(math.log2(problem.cost.size) / 2)
