"""Part g of the benchmark of bridges: shifts, units and threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import threadpoolctl
from _bridge import Plan, Truth, mixtures
from _bridge_fits import Case, known
from _bridge_official import Recipe
from _timing import limit_threads, markdown

import pyprobe
from pyprobe.transport import LightSchrodingerBridge

__all__ = ["robustness"]

SHIFTS = (1.0, 10.0)
"""Those that the official code is given."""


def robustness(figures: Callable[[Case], dict[str, Any]]) -> str:
    truth = mixtures(16, 1.0)
    x0, x1 = truth.draw(np.random.default_rng(7), 20_000)
    rows = [["official", "none", figures(known_case(truth)).get("kl")]]
    rows += [
        ["official", f"+{a:g} in every coordinate", figures(moved(truth, a)).get("kl")]
        for a in SHIFTS
    ]
    for name, shift, unit, dtype in (
        ("none", 0.0, 1.0, np.float64),
        ("+10000", 1e4, 1.0, np.float64),
        ("-10000 (starts only)", (-1e4, 0.0), 1.0, np.float64),
        ("times 1000", 0.0, 1e3, np.float64),
        ("times 1/1000", 0.0, 1e-3, np.float64),
        ("times 1024", 0.0, 1024.0, np.float64),
        ("none, float32", 0.0, 1.0, np.float32),
        ("+1000, float32", 1e3, 1.0, np.float32),
    ):
        kl = refit(truth, x0, x1, shift, unit, dtype)
        rows.append(["ours", name, f"{kl:.8f}"])
    return (
        "### Shifts, units and threads\n\nKL from the true plan, in nats, where both samples of "
        "the mixtures benchmark with d = 16 and epsilon = 1 are moved, or brought to another unit "
        "with epsilon to match: 20000 pairs, default settings, and the official code with fresh "
        "ones.\n\n"
        + markdown(["code", "change", "KL"], rows)
        + "\n\nThe same seed with 2 threads in place of 1, bit by bit: of pyprobe, and of NumPy's "
        "BLAS. Draws and drift are those of one bridge.\n\n"
        + markdown(["", "pyprobe", "BLAS"], threads(x0, x1))
    )


def known_case(truth: Truth) -> Case:
    return known("mixtures d=16 eps=1", Recipe(50, 1.0, 3e-3, 1.0), truth)


def moved(truth: Truth, shift: float) -> Case:
    """The benchmark with both laws moved, its figures those of the plan moved back."""
    case = known_case(truth)

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        x0, x1 = truth.draw(rng, n)
        return x0 + shift, x1 + shift

    def loss(plan: Plan) -> float:
        return case.loss(moved_back(plan, shift))

    def measure(plan: Plan) -> dict[str, float]:
        return case.measure(moved_back(plan, shift))

    return case._replace(
        name=f"mixtures d=16 eps=1 moved by {shift:g}", draw=draw, loss=loss, measure=measure
    )


def moved_back(plan: Plan, shift: float) -> Plan:
    """Return the plan between the laws before both were moved."""
    return plan._replace(shifts=plan.shifts - shift, origin=plan.origin - shift)


def refit(
    truth: Truth, x0: np.ndarray, x1: np.ndarray, shift: Any, unit: float, dtype: Any
) -> float:
    """Return the KL of a fit to samples that were moved and multiplied, taken back."""
    first, second = np.broadcast_to(shift, (2,))
    bridge = LightSchrodingerBridge.fit(
        (unit * x0 + first).astype(dtype),
        (unit * x1 + second).astype(dtype),
        epsilon=unit**2 * truth.plan.epsilon,
        rng=0,
    )
    # As a user sees it, at the moved places; the density is that in the old unit.
    ends, starts = unit * truth.ends + second, unit * truth.starts + first
    log_prob = float(np.mean(bridge.log_prob(ends, given=starts)))
    return truth.log_prob - log_prob - truth.ends.shape[1] * float(np.log(unit))


def threads(x0: np.ndarray, x1: np.ndarray) -> list[list[Any]]:
    """Return what has the same bits with two threads of pyprobe, and of NumPy's BLAS."""
    kept = LightSchrodingerBridge.fit(x0, x1, epsilon=1.0, rng=0)

    def look() -> dict[str, np.ndarray]:
        bridge = LightSchrodingerBridge.fit(x0, x1, epsilon=1.0, rng=0)
        return {
            "fit": np.concatenate([bridge.log_weights, bridge.shifts.ravel()]),
            "ends": kept.sample(x0, rng=1),
            "paths": kept.sample_path(x0[:2000], np.linspace(0, 1, 11), rng=1),
            "transitions": kept.sample_transition(x0, 0.2, 0.7, rng=1),
            "Euler's steps": kept.sample_sde(x0[:2000], 10, rng=1),
            "drift": kept.drift(x0, 0.5),
        }

    limit_threads(1)
    one = look()
    pyprobe.set_num_threads(2)
    two = look()
    pyprobe.set_num_threads(1)
    with threadpoolctl.threadpool_limits(2):
        blas = look()
    return [[name, *(equal(one[name], other[name]) for other in (two, blas))] for name in one]


def equal(first: np.ndarray, second: np.ndarray) -> str:
    if np.array_equal(first, second):
        return "equal"
    return f"differ by {np.abs(first - second).max():.0e}"
