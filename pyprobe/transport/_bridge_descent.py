"""The fixed-point iteration of Gaussian bridges, one a component, and who watches it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pyprobe import _core
from pyprobe.transport._bridge_balance import balance
from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import (
    FLOOR,
    Model,
    Moments,
    Pair,
    Parameters,
    Sample,
    log_sum,
    some,
)

__all__ = [
    "HESSIAN_ROWS",
    "LONGER",
    "PATIENCE",
    "SHORTER",
    "Options",
    "Watch",
    "descend",
]

HESSIAN_ROWS = 8000
"""Rows that the second derivatives in the weights are summed over: they cost the square of K."""
_LEAST_PART = 1e-3
"""Part of the way to the fixed point below which the loss is taken not to fall."""
SHORTER, LONGER = 0.4, 1.6
_FEW_ROWS = 20
"""Rows a component below which it matters that its mean is fitted too."""
_LEAST_STEPS, _LATELY, _SLOW = 5, 5, 0.05
"""Iterations at least, the last that count, and the part of the mean fall that is a slow one."""
_LEAST_FALL = 1e-2
"""The same in nats, for a fit that begins near its end."""
PATIENCE = 3
"""Iterations that the held-out loss may rise before the fit ends."""
_MATTERS = 0.1
"""Fall of the loss, in nats, that is weighed against a rise on the rows held out."""


class Options(NamedTuple):
    """How far a fit goes.

    `reported` is called with the number of an iteration and its loss, 0 where it chooses a start,
    and says whether to go on; `announced` before that, with how often it may be at the most.
    """

    max_iter: int
    tol: float
    reported: Callable[[int, float], bool] = lambda _step, _value: True
    announced: Callable[[int], None] = lambda _most: None


class Watch:
    """Takes note of every iteration, keeps the best components, and says when to end."""

    def __init__(self, model: Model, held_out: Pair | None, options: Options) -> None:
        self.model, self.held_out, self.options = model, held_out, options
        self.best: Parameters | None = None
        self.lowest = self.fitted = math.inf
        self.rows = np.zeros(0), np.zeros(0)
        self.losses: list[float] = []
        self.waited, self.patience = 0, PATIENCE
        self.converged = self.stopped = False

    def start(self, parameters: Parameters, value: float) -> None:
        """Take note of where the fit begins."""
        self._judge(parameters, value)

    def step(self, parameters: Parameters, value: float, fall: float = math.inf) -> bool:
        """Take note of an iteration's end, and return whether to go on.

        A small `fall`, of what the solver minimizes, ends the fit.
        """
        self.losses.append(value)
        self._judge(parameters, value)
        # On held-out rows the loss ends by rising; a small fall may be a slow beginning.
        self.converged = self.waited >= self.patience or 0 <= fall < self.options.tol
        self.stopped = not self.options.reported(len(self.losses), value)
        return self.left > 0 and not (self.converged or self.stopped)

    @property
    def left(self) -> int:
        """Iterations that there may be."""
        return self.options.max_iter - len(self.losses)

    def _judge(self, parameters: Parameters, value: float) -> None:
        if self.held_out is None:
            if value < self.lowest:
                self.best, self.lowest, self.waited = parameters, value, 0
            return
        rows = _log_sums(self.model, parameters, self.held_out)
        seen = float(
            self.held_out.sources.weights @ rows[0] - self.held_out.targets.weights @ rows[1]
        )
        rise, fall = seen - self.lowest, self.fitted - value
        if rise < 0 or (fall > _MATTERS and rise * fall < self._variance(rows)):
            self.best, self.lowest, self.waited = parameters, seen, 0
            self.fitted, self.rows = value, rows
        else:
            self.waited += 1

    def _variance(self, rows: tuple[Vector, Vector]) -> float:
        """Return the variance of how much the held-out loss differs from that of the best.

        The loss may be taken to fall as on the rows that are fitted, give or take as much. What the
        others say is then outweighed, where their rise times that fall is less than this.
        """
        assert self.held_out is not None
        variance = 0.0
        for (_, weights), now, best in zip(self.held_out, rows, self.rows, strict=True):
            change = now - best
            variance += float(weights**2 @ (change - weights @ change) ** 2)
        return variance


def _log_sums(model: Model, parameters: Parameters, pair: Pair) -> tuple[Vector, Vector]:
    """Return what the loss is the difference of the means of, row by row."""
    return (
        _core.bridge_log_sums(pair.sources.points, model.of_sources(parameters)),
        _core.bridge_log_sums(pair.targets.points, model.of_targets(parameters)),
    )


def descend(
    model: Model, pair: Pair, start: Parameters, watch: Watch, rng: np.random.Generator
) -> Parameters | None:
    """Iterate from `start` as long as it pays; return where it is then.

    That is where the loss falls slowly, beside its mean fall until there, or not at all. None,
    where the watch has ended it.
    """
    (sources, targets), (kind, epsilon) = pair, model
    few = some(sources, HESSIAN_ROWS, rng)
    now, part = start, 1.0
    values: list[float] = []
    while True:
        # Those of the targets lie in clusters, which are no normal cloud: they stay.
        first, (_, _, c0), x0 = _shrunk(model, sources, model.of_sources(now))
        second, (masses, x1, c1), _ = _shrunk(model, targets, model.of_targets(now))
        value = first - second
        if not values:
            watch.start(now, value)
        elif not watch.step(now, value):
            return None
        values.append(value)
        if len(values) > _LEAST_STEPS and _is_slow(values):
            return now
        scales = kind.bridge(c0, kind.raised(c1, FLOOR), epsilon)
        shifts = x1 - kind.apply(scales, x0)
        while True:
            new_scales = kind.between(now.scales, scales, part)
            new_shifts = (1 - part) * now.shifts + part * shifts
            # The logits of a component stay what they are on average over its share.
            change = kind.form(now.scales - new_scales, c0 + kind.outer(x0), x0.shape[1])
            change += ((now.shifts - new_shifts) * x0).sum(1)
            moved = Parameters(now.logits + change / epsilon, new_shifts, new_scales)
            # As near as it takes: shares that agree at once hold components where they are too
            # soon, and fits end higher.
            logits, mean = balance(model, sources, moved, masses, few, rough=True)
            level = log_sum(logits)
            moved = moved._replace(logits=logits - level)
            found = _core.bridge_pass(*targets, model.of_targets(moved), moments=False, gram=False)
            if mean - level - found[0] < value:
                break
            if part < _LEAST_PART:
                return now
            part *= SHORTER
        now, part = moved, min(1.0, LONGER * part)


def _is_slow(values: list[float]) -> bool:
    """Return whether the loss falls slowly, beside its mean fall. A single fall may be small."""
    lately = (values[-1 - _LATELY] - values[-1]) / _LATELY
    return lately < max(_LEAST_FALL, _SLOW * (values[0] - values[-1]) / (len(values) - 1))


def _shrunk(
    model: Model, sample: Sample, logits: tuple[str, Vector, Vector]
) -> tuple[float, Moments, Vector]:
    """Return the mean log-sum-exp, moments whose covariances are shrunk, and shrunken means.

    A covariance about a fitted mean is too small: by a row of n where a component has n rows to
    itself, by less where it shares them. And such means lie too far apart. Both matter where the
    rows are few.
    """
    value, moments = model.shares(sample, logits)
    masses, means, _ = moments
    if len(sample.points) >= _FEW_ROWS * len(masses):
        return value, moments._replace(covariances=model.shrunk(moments, sample)), means
    _, _, _, gram = _core.bridge_pass(*sample, logits, moments=False, gram=True)
    lost = np.diag(gram) / np.maximum(masses, 1e-300)
    # Means of normal rows with normal means: drawn in by the variance within over that between.
    centre = masses @ means / masses.sum()
    between = float(masses @ ((means - centre) ** 2).sum(1) / masses.sum())
    everything = float(sample.weights @ ((sample.points - centre) ** 2).sum(1))
    ratio = max(everything - between, 0.0) / max(between, 1e-300)
    counts = (masses * sample.size)[:, None]
    drawn = centre + counts / (counts + ratio) * (means - centre)
    return value, moments._replace(covariances=model.shrunk(moments, sample, lost)), drawn
