"""Parts a to e of the benchmark of bridges: fits beside those of the official code."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _bridge import (
    Days,
    Plan,
    Truth,
    energy,
    exact_cbw,
    exact_kl,
    mixtures,
    rotated,
    single_cell,
    swiss_roll,
)
from _bridge_official import Recipe, plan_of, train

from pyprobe.transport import LightSchrodingerBridge

__all__ = [
    "Case",
    "Line",
    "cells",
    "compare",
    "first_at",
    "fit",
    "known",
    "official",
    "reach",
    "replica",
    "rolls",
    "small",
    "turned",
]

RATES = {0.1: 1e-3, 1.0: 3e-3, 10.0: 6e-2}
"""Steps of Adam in the official notebook of the benchmark, by epsilon."""
N_FEW = 150
SHORT, LONG = 1.0, 5.0
"""Seconds of a fit below which it is timed three times, and above which it is repeated rarely."""

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


class Case(NamedTuple):
    """A problem: fresh pairs of it, what the official code is given, and what is measured."""

    name: str
    recipe: Recipe
    draw: Draw
    loss: Callable[[Plan], float]
    measure: Callable[[Plan], dict[str, float]]
    every: int = 250


def replica(dims: tuple[int, ...] = (2, 16, 64)) -> Iterator[tuple[Case, Truth]]:
    for dim in dims:
        for epsilon, rate in RATES.items():
            truth = mixtures(dim, epsilon)
            name = f"mixtures d={dim} eps={epsilon:g}"
            yield known(name, Recipe(50, epsilon, rate, 1.0), truth), truth


def turned() -> tuple[Case, Truth]:
    truth = rotated(16, 1.0)
    return known("rotated d=16 eps=1", Recipe(10, 1.0, 3e-3, 1.0, full=True), truth), truth


def known(name: str, recipe: Recipe, truth: Truth) -> Case:
    def loss(plan: Plan) -> float:
        return plan.loss(truth.starts, truth.ends)

    def measure(plan: Plan) -> dict[str, float]:
        return {"kl": exact_kl(truth, plan), "cbw": exact_cbw(truth, plan)}

    return Case(name, recipe, truth.draw, loss, measure)


def cells(folder: Path) -> Iterator[tuple[Case, Days]]:
    for days in ((2, 3, 4), (3, 4, 7)):
        yield of_cells(f"single cell {days[0]}->{days[2]}", single_cell(folder, days))


def of_cells(name: str, data: Days) -> tuple[Case, Days]:
    x0, x1, between, unit, t = data

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return x0[rng.integers(len(x0), size=n)], x1[rng.integers(len(x1), size=n)]

    def measure(plan: Plan) -> dict[str, float]:
        rng = np.random.default_rng(4)
        ends = plan.sample(x0, rng)
        noise = np.sqrt(plan.epsilon * t * (1 - t)) * rng.normal(size=x0.shape)
        there = (1 - t) * x0 + t * ends + noise
        return {
            "end": unit * energy(ends, x1),
            "held": unit * energy(there, between),
        }

    recipe = Recipe(10, 0.1, 1e-2)
    return Case(name, recipe, draw, lambda plan: plan.loss(x0, x1), measure), data


def rolls() -> Iterator[Case]:
    for epsilon, n, rate in ((0.1, 50, 1e-3), (0.002, 500, 3e-4)):
        x0, x1 = swiss_roll(np.random.default_rng(5), 50_000)

        def loss(plan: Plan, x0: np.ndarray = x0, x1: np.ndarray = x1) -> float:
            return plan.loss(x0, x1)

        name = f"swiss roll eps={epsilon:g}"
        yield Case(name, Recipe(n, epsilon, rate), swiss_roll, loss, _nothing)


def small(dim: int, epsilon: float, seed: int) -> tuple[Case, tuple[np.ndarray, np.ndarray]]:
    """Return a problem of few rows, and these."""
    truth = mixtures(dim, epsilon, 20_000)
    x0, x1 = truth.draw(np.random.default_rng(100 + seed), N_FEW)

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return x0[rng.integers(N_FEW, size=n)], x1[rng.integers(N_FEW, size=n)]

    recipe = Recipe(50, epsilon, RATES[epsilon], 1.0, steps=2000)
    name = f"mixtures d={dim} eps={epsilon:g} of {N_FEW} rows, seed {seed}"
    return Case(name, recipe, draw, lambda plan: exact_kl(truth, plan), _nothing, 50), (x0, x1)


def _nothing(_: Plan) -> dict[str, float]:
    return {}


def official(case: Case, light_sb: Any) -> dict[str, Any]:
    """Train the official code and return its figures."""
    found = train(light_sb, case.recipe, case.draw, judge=case.loss, every=case.every)
    plan = plan_of(found.model)
    return {
        "seconds": found.seconds,
        "steps": case.recipe.steps,
        "loss": case.loss(plan),
        "trace": found.trace,
        **case.measure(plan),
    }


class Ours(NamedTuple):
    """A fit: seconds, iterations, the plan, and the loss on what is not fitted."""

    seconds: float
    n_iter: int
    plan: Plan
    loss: float
    losses: list[float]
    """On the rows that are fitted, after each iteration."""


def fit(case: Case, x0: np.ndarray, x1: np.ndarray, *, stop: int = 0, seed: int = 0) -> Ours:
    """Fit ours with default settings, ended after `stop` iterations."""

    def end(progress: Any) -> bool:
        losses.append(progress.value)
        return bool(progress.step == stop)

    seconds: list[float] = []
    while not seconds or (len(seconds) < 3 and seconds[0] < SHORT):
        losses: list[float] = []
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where it says that it could go on
            bridge = LightSchrodingerBridge.fit(
                x0,
                x1,
                epsilon=case.recipe.epsilon,
                n_components=case.recipe.n_components,
                covariance="full" if case.recipe.full else "diag",
                rng=seed,
                callback=end,
            )
        seconds.append(time.process_time() - begin)
    plan = Plan.of(bridge)
    return Ours(statistics.median(seconds), len(losses), plan, case.loss(plan), losses)


def reach(case: Case, x0: np.ndarray, x1: np.ndarray, whole: Ours, loss: float) -> float | None:
    """Return the seconds of the shortest fit whose loss is as low as that.

    The losses on the fitted rows say about where that is; a long fit is looked at near there only.
    """
    if not whole.loss <= loss:
        return None
    off = whole.loss - whole.losses[-1]
    guess = next((k for k, value in enumerate(whole.losses, 1) if value + off <= loss), 1)
    best, low, high, probes = whole, 0, whole.n_iter, 3 if whole.seconds > LONG else 20
    step = max(1, min(guess, high - 1))
    while low + 1 < high and probes > 0:
        probes -= 1
        found = fit(case, x0, x1, stop=step)
        if found.loss <= loss:
            best, high = found, step
        else:
            low = step
        if low == 0:
            step = max(1, high * 4 // 5)
        elif best is whole:
            step = min(high - 1, low * 5 // 4 + 1)
        else:
            step = (low + high) // 2
    return min(best.seconds, whole.seconds)


class Line(NamedTuple):
    """Ours beside the official code on one sample."""

    case: Case
    theirs: dict[str, Any]
    n: int
    ours: Ours
    figures: dict[str, float]
    to_loss: float | None

    @property
    def ratio(self) -> float | None:
        """The official code's time for all its steps over ours to its loss in the end."""
        return self.theirs["seconds"] / self.to_loss if self.to_loss else None

    @property
    def ratio_of_first(self) -> float | None:
        """The same, but the official code's time is also that to the first such loss."""
        if not self.to_loss:
            return None
        return first_at(self.theirs, self.theirs["loss"])[1] / self.to_loss


def first_at(theirs: dict[str, Any], loss: float) -> tuple[int, float]:
    """Return the step and the seconds at which the official code was first seen at that loss.

    Not a number, where it never was.
    """
    found = ((step, seconds) for step, seconds, value in theirs["trace"] if value <= loss)
    return next(found, (0, math.nan))


def compare(case: Case, theirs: dict[str, Any], x0: np.ndarray, x1: np.ndarray) -> Line:
    ours = fit(case, x0, x1)
    to_loss = reach(case, x0, x1, ours, theirs["loss"]) if theirs else None
    line = Line(case, theirs, len(x1), ours, case.measure(ours.plan), to_loss)
    ratios = line.ratio, line.ratio_of_first
    print(case.name, len(x1), ours.seconds, ours.loss, *ratios, line.figures, flush=True)
    return line
