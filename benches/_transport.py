"""The problems and the solvers that the benchmarks of entropic transport compare.

A solver that is not installed is left out. All run in float64 on one processor, which the process
and its children are bound to.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

TOL = 1e-9
MAX_ITER = 10_000


class Problem(NamedTuple):
    """Weights, costs and epsilon, and what they are called."""

    name: str
    a: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    epsilon: float


class Outcome(NamedTuple):
    """What a solver found, and what it says of it."""

    plan: np.ndarray | None
    claims: bool
    """Whether it lets stand that the tolerance was reached."""
    note: str = ""
    seconds: float | None = None
    """Of another process, which measures them itself."""


def bind() -> None:
    """Bind this process to one processor; before JAX is imported, which counts them then."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ["KEOPS_VERBOSE"] = "0"  # else it prints, also where others import it
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def marginal_error(problem: Problem, plan: np.ndarray | None) -> float:
    """L1 error of a plan's rows and columns together, relative to the mass."""
    if plan is None:
        return math.inf
    rows, columns = plan.sum(axis=1) - problem.a, plan.sum(axis=0) - problem.b
    error = (np.abs(rows).sum() + np.abs(columns).sum()) / problem.a.sum()
    return float(error) if np.isfinite(error) else math.inf


def cloud(n: int, dim: int, fraction: float, seed: int = 0) -> Problem:
    """Two clouds of points in the unit cube, squared distances."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((n, dim)), rng.random((n, dim)) ** 1.5
    cost = squared_distances(x, y)
    weights = np.full(n, 1 / n)
    name = f"cloud {dim}-D, n = {n}, {label(fraction)}"
    return Problem(name, weights, weights, cost, fraction * cost.max())


def assignment(n: int, fraction: float, seed: int = 0) -> Problem:
    """Independent uniform costs."""
    cost = np.random.default_rng(seed).random((n, n))
    weights = np.full(n, 1 / n)
    name = f"random assignment, n = {n}, {label(fraction)}"
    return Problem(name, weights, weights, cost, fraction)


def digits(metric: str, fraction: float) -> Problem:
    """Two pictures of digits of 28 x 28 pixels, distances between pixels."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    first, second = (zoom(image, 3.5, order=1) / 16 for image in load_digits().images[:2])
    a, b = ((image.ravel() + 0.01) / (image + 0.01).sum() for image in (first, second))
    grid = np.stack(np.meshgrid(*2 * [np.arange(28.0)]), axis=-1).reshape(-1, 2)
    offsets = grid[:, None] - grid
    cost = np.abs(offsets).sum(-1) if metric == "l1" else (offsets**2).sum(-1)
    name = f"digits 28 x 28, {metric}, {label(fraction)}"
    return Problem(name, a, b, cost, fraction * cost.max())


def label(fraction: float) -> str:
    return f"eps = max C / {1 / fraction:.4g}"


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cost = (x**2).sum(-1)[:, None] + (y**2).sum(-1) - 2 * x @ y.T
    return np.maximum(cost, 0)


# Ours


def ours(problem: Problem, method: str = "auto", max_iter: int = MAX_ITER, tol: float = TOL) -> Any:
    """Our result, without its warnings."""
    from pyprobe.transport import sinkhorn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sinkhorn(
            problem.a,
            problem.b,
            problem.cost,
            epsilon=problem.epsilon,
            method=method,
            max_iter=max_iter,
            tol=tol,
        )


def plain_iterations(problem: Problem) -> int:
    """Iterations of Sinkhorn without over-relaxation to the tolerance.

    After some thousands the rest is reckoned from the rate by then, which is an optimistic one.
    """
    from pyprobe import _core

    found = _core.sinkhorn(
        problem.cost,
        problem.a,
        problem.b,
        problem.epsilon,
        (math.inf, math.inf),
        method="scaling",
        tol=TOL,
        max_iter=min(200_000, 40_000_000_000 // problem.cost.size),
        max_newton=0,
        relaxation=False,
        memory=1 << 30,
    )
    errors = found["errors"]
    if found["converged"]:
        return len(errors)
    fall = math.log(errors[-len(errors) // 10] / errors[-1]) / (len(errors) // 10)
    return round(len(errors) + math.log(errors[-1] / TOL) / fall)


# Peers that iterate: a call that makes so many iterations and returns the plan


def pot(problem: Problem, n_iter: int, method: str) -> Callable[[], np.ndarray]:
    import ot

    def call() -> np.ndarray:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return ot.sinkhorn(
                problem.a,
                problem.b,
                problem.cost,
                problem.epsilon,
                method=method,
                numItermax=n_iter,
                stopThr=0,
                warn=False,
            )

    return call


def ott(problem: Problem, n_iter: int) -> Callable[[], np.ndarray]:
    solve = ott_compiled(problem.cost.shape, n_iter, n_iter, 0.0)
    return lambda: np.asarray(
        solve(problem.cost, problem.a, problem.b, problem.epsilon)[0].block_until_ready()
    )


@cache
def ott_compiled(
    shape: tuple[int, int], min_iterations: int, max_iterations: int, threshold: float
) -> Callable[..., Any]:
    """OTT, by log-sum-exp, compiled for a shape: the plan and whether it converged."""
    import jax
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    jax.config.update("jax_enable_x64", True)
    solver = Sinkhorn(
        threshold=threshold, min_iterations=min_iterations, max_iterations=max_iterations
    )

    def solve(cost: Any, a: Any, b: Any, epsilon: Any) -> Any:
        found = solver(LinearProblem(Geometry(cost_matrix=cost, epsilon=epsilon), a=a, b=b))
        return found.matrix, found.converged

    vectors = [jax.ShapeDtypeStruct((n,), "float64") for n in shape]
    cost, epsilon = jax.ShapeDtypeStruct(shape, "float64"), jax.ShapeDtypeStruct((), "float64")
    return jax.jit(solve).lower(cost, *vectors, epsilon).compile()


# RegOT, whose calls cannot be stopped: in a process of its own


class RegOT:
    """A process that solves one problem at a time, ended where that takes too long."""

    def __init__(self) -> None:
        self._process: Any = None

    def solve(
        self, problem: Problem, method: str, tol: float, limit: float
    ) -> tuple[Outcome, float]:
        """Return what it found, and the seconds it took."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            self._pipe.recv()
        self._pipe.send((problem, method, tol))
        if self._pipe.poll(limit):
            return self._pipe.recv()
        self.close()
        return Outcome(None, claims=False, note="out of time"), limit

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Any) -> None:
    import time

    import regot

    pipe.send("ready")
    while True:
        problem, method, tol = pipe.recv()
        solve, cost = getattr(regot, f"sinkhorn_{method}"), np.asfortranarray(problem.cost)
        start = time.process_time()
        try:
            found = solve(cost, problem.a, problem.b, problem.epsilon, tol, 1000)
        except Exception as error:  # what it raises has no common class
            outcome = Outcome(None, claims=False, note=str(error))
        else:
            outcome = Outcome(found.plan, claims=found.mar_errs[-1] <= tol, note=f"{found.niter}")
        pipe.send((outcome, time.process_time() - start))
