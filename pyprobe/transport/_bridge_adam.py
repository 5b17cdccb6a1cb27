r"""Adam over small batches, for light Schrödinger bridges.

The recipe of Korotin, Gushchin and Burnaev (2024), with slopes in closed form and a rate that ends
at zero. It moves :math:`\varepsilon l`, the shifts and the logarithms of the scales: numbers whose
size does not depend on :math:`\varepsilon`, so that this may fall on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pyprobe.transport._bridge_descent import Watch
from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import Model, Pair, Parameters, Sample, Slopes, loss, slopes

__all__ = ["ANNEALING_REPORTS", "BATCH", "Adam", "anneal", "train"]

BATCH = 128
"""Rows of either sample that a step looks at."""
_RATE = 0.05
"""Length of the first steps, in units of the noise, or of the data where that is less."""
_MOMENTUM, _SQUARES = 0.9, 0.99
_WARMEST, _COOLING = 0.1, 0.6
"""The epsilon that annealing begins with, for data of variance 1, and its part of all steps."""
_STEPS = 6000
ANNEALING_REPORTS = 60
"""How often annealing says where it is."""

Gradient = Callable[[Model, Parameters, Sample, Sample], Slopes]


class Adam:
    """The state of the method of Kingma and Ba (2015), for components that begin at `start`."""

    def __init__(self, model: Model, start: Parameters, rate: float) -> None:
        self.kind, self.rate = model.kind, rate
        n, dim = start.shifts.shape
        self.roots = self.kind.root(start.scales)
        n_free = self.kind.n_free(dim)
        self.shapes = [(n,), (n, dim), (n, n_free)]
        self.now = np.concatenate(
            [model.epsilon * start.logits, start.shifts.ravel(), np.zeros(n * n_free)]
        )
        self.mean, self.square = np.zeros_like(self.now), np.zeros_like(self.now)
        self.count = 0

    def components(self, epsilon: float) -> Parameters:
        """Return the components, for a noise of `epsilon`."""
        first, second, third = self._parts()
        return Parameters(first / epsilon, second, self.kind.moved(self.roots, third))

    def step(self, epsilon: float, slope: Slopes, left: float) -> None:
        """Go a step down, of the part `left` of the first ones."""
        in_free = self.kind.pulled(self.roots, self._parts()[2], slope.scales)
        parts = slope.logits, epsilon * slope.shifts, epsilon * in_free
        found = np.concatenate([part.ravel() for part in parts])
        self.count += 1
        self.mean += (1 - _MOMENTUM) * (found - self.mean)
        self.square += (1 - _SQUARES) * (found**2 - self.square)
        mean = self.mean / (1 - _MOMENTUM**self.count)
        square = self.square / (1 - _SQUARES**self.count)
        self.now = self.now - left * self.rate * mean / (np.sqrt(square) + 1e-12)

    def _parts(self) -> list[Vector]:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts: Any = zip(np.split(self.now, ends), self.shapes, strict=True)
        return [part.reshape(shape) for part, shape in parts]


def rate(epsilon: float) -> float:
    """Return the length of the first steps."""
    return _RATE * min(1.0, math.sqrt(epsilon))


def batches(sample: Sample, rng: np.random.Generator) -> Iterator[Sample]:
    """Return small parts of a sample without end.

    Where rows have equal weights, all of it comes before any of it comes again, and so on; else
    every row is drawn on its own, by the weights.
    """
    points, weights = sample
    size = min(BATCH, len(points))
    equal = np.full(size, 1 / size)
    is_even = np.ptp(weights) <= 1e-12 * weights.max()
    n, left = len(points), points[:0]
    while True:
        order = rng.permutation(n) if is_even else rng.choice(n, n, p=weights)
        shuffled = np.concatenate([left, points[order]])
        n_whole = len(shuffled) // size * size
        for start in range(0, n_whole, size):
            yield Sample(shuffled[start : start + size], equal)
        left = shuffled[n_whole:]


def train(
    model: Model,
    pair: Pair,
    start: Parameters,
    watch: Watch,
    rng: np.random.Generator,
    gradient: Gradient = slopes,
) -> None:
    """Go on from `start`; an iteration of the watch is as many batches as the larger sample holds.

    The loss rises and falls while the rate is high: all the passes are made.
    """
    epsilon = model.epsilon
    watch.patience, watch.options = watch.options.max_iter + 1, watch.options._replace(tol=0.0)
    steps = max(1, max(len(sample.points) for sample in pair) // BATCH)
    total = steps * watch.options.max_iter
    adam = Adam(model, start, rate(epsilon))
    streams = [batches(sample, rng) for sample in pair]
    watch.start(start, loss(model, start, *pair))
    for step in range(total):
        found = gradient(model, adam.components(epsilon), next(streams[0]), next(streams[1]))
        adam.step(epsilon, found, 1 - step / total)
        if (step + 1) % steps == 0:
            now = adam.components(epsilon)
            if not watch.step(now, loss(model, now, *pair)):
                break
    # The rate is zero by now: there is nothing more to come.
    watch.converged = not watch.stopped


def anneal(
    model: Model,
    pair: Pair,
    start: Parameters,
    rng: np.random.Generator,
    reported: Callable[[int, float], bool],
) -> tuple[Parameters, bool]:
    """Return components that have followed the noise down to that of the model.

    And whether to go on. `reported` is called now and then, as for iteration 0 of a fit, with the
    loss of a batch at the noise of the moment.

    With little noise a component has a cell of the sources to itself, and one that has lost its
    cell does not come back: the slopes do not see it. Where there is much of it all have a share.
    """
    adam, warmest = Adam(model, start, rate(model.epsilon)), max(_WARMEST, model.epsilon)
    streams = [batches(sample, rng) for sample in pair]
    for step in range(_STEPS):
        part = min(1.0, (step + 1) / (_COOLING * _STEPS))
        epsilon = warmest ** (1 - part) * model.epsilon**part
        now = Model(model.kind, epsilon)
        found = slopes(now, adam.components(epsilon), next(streams[0]), next(streams[1]))
        adam.step(epsilon, found, 1 - step / _STEPS)
        if (step + 1) % (_STEPS // ANNEALING_REPORTS) == 0 and not reported(0, found.value):
            return adam.components(model.epsilon), False
    return adam.components(model.epsilon), True
