"""Entropic transport between large clouds of points, whose costs nobody stores."""

from __future__ import annotations

import shutil
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from _timing import Steps, elsewhere, markdown, median_ratio, peak_rise, time_steps
from _transport import installed

EPSILON = 3 / 20
"""The largest squared distance in the unit cube, divided by 20."""
LARGEST_FOR_POT = 5000
TARGETS = {"KeOps": 8, "POT, lazy": 30}
NAMES = ("ours", *TARGETS)


def clouds(sizes: tuple[int, ...]) -> str:
    """Tables of the time of an iteration, and of memory."""
    rows, memory = [], []
    for n in sizes:
        times = time_steps(solvers(*points(n)), rounds=5 if n <= LARGEST_FOR_POT else 2)
        milliseconds = [
            1e3 * statistics.median(times[name]) if name in times else None for name in NAMES
        ]
        ratios = [
            f"**{median_ratio(times[name], times['ours']):.3g}**" if name in times else None
            for name in TARGETS
        ]
        rows.append([n, *milliseconds, *ratios])
        megabytes = [
            elsewhere(peak, name, n) if name in times else None for name in ("ours", "KeOps")
        ]
        memory.append([n, *megabytes, 8e-6 * n**2])
    head = ["n", *(f"ms, {name}" for name in NAMES)]
    head += [f"{name} / ours (target {target})" for name, target in TARGETS.items()]
    memory_head = ["n", "MB, ours (target 100)", "MB, KeOps", "MB, a matrix of costs"]
    return (
        "### Clouds of points\n\nAn iteration of both potentials, points in the unit cube of three "
        f"dimensions, squared distances, epsilon = {EPSILON:g}, in float64: the difference of runs "
        'of different length. Ours is `sinkhorn_points(method="log")`; KeOps the same iteration '
        "written with its `LazyTensor`, where there is a C++ compiler; POT "
        f"`empirical_sinkhorn(isLazy=True)`, up to n = {LARGEST_FOR_POT} only. The peers are "
        "without tests of the error.\n\n"
        + markdown(head, rows)
        + "\n\nMemory is by how much a solve raises the peak of a fresh process.\n\n"
        + markdown(memory_head, memory)
    )


def points(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((n, 3)), rng.random((n, 3)) ** 1.5


def solvers(x: np.ndarray, y: np.ndarray) -> dict[str, Steps]:
    few = (1, 6) if len(x) <= LARGEST_FOR_POT else (1, 3)
    found = {"ours": Steps(partial(ours, x, y), *few)}
    if has_keops():
        found["KeOps"] = Steps(partial(keops, x, y), 0, 1)
    if installed("ot") and len(x) <= LARGEST_FOR_POT:
        found["POT, lazy"] = Steps(partial(pot_lazy, x, y), 1, 3)
    return found


def peak(name: str, n: int) -> float | None:
    """Return by how many MB two iterations raise the peak of this process."""
    x, y = points(n)
    prepare = {"ours": ours, "KeOps": keops}[name]
    prepare(x[:10], y[:10], 1)()
    return peak_rise(prepare(x, y, 2))


# Each returns a call that makes k iterations


def ours(x: np.ndarray, y: np.ndarray, k: int) -> Callable[[], Any]:
    from pyprobe.transport import sinkhorn_points

    def call() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = sinkhorn_points(x, y, epsilon=EPSILON, method="log", max_iter=k, tol=1e-300)
        if found.n_iter != k:
            raise RuntimeError(f"{found.n_iter} iterations instead of {k}.")

    return call


def has_keops() -> bool:
    """Whether KeOps can run: it compiles its formulas when they are first used."""
    return installed("pykeops") and any(map(shutil.which, ("g++", "c++")))


def keops(x: np.ndarray, y: np.ndarray, k: int) -> Callable[[], Any]:
    from pykeops.numpy import LazyTensor

    # In units of epsilon: nothing is left to do for a pair but its distance and the exponential.
    scaled_x, scaled_y = (points / EPSILON**0.5 for points in (x, y))

    def potential(to: np.ndarray, of: np.ndarray, other: np.ndarray) -> np.ndarray:
        distances = LazyTensor(to[:, None]).sqdist(LazyTensor(of[None]))
        exponents = LazyTensor(other[None, :, None]) - distances
        return np.log(len(of)) - exponents.logsumexp(dim=1)[:, 0]

    def call(n_iter: int = k) -> tuple[np.ndarray, np.ndarray]:
        f, g = np.zeros(len(x)), np.zeros(len(y))
        for _ in range(n_iter):
            f = potential(scaled_x, scaled_y, g)
            g = potential(scaled_y, scaled_x, f)
        return EPSILON * f, EPSILON * g

    potential(scaled_x[:10], scaled_y[:10], np.zeros(10))  # compiles
    return call


def pot_lazy(x: np.ndarray, y: np.ndarray, k: int) -> Callable[[], Any]:
    import ot

    return lambda: ot.bregman.empirical_sinkhorn(
        x, y, EPSILON, numIterMax=k, stopThr=0, isLazy=True, warn=False
    )
