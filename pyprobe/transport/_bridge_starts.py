"""Where the fit of a light Schrödinger bridge begins."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe.transport._bridge_balance import balance
from pyprobe.transport._bridge_kinds import KINDS, Vector
from pyprobe.transport._bridge_model import FLOOR, Model, Pair, Parameters, Sample, log_sum, some

__all__ = ["STARTS", "draw_in", "draw_rows", "trial_rows"]

_DRAW_ROWS, _DRAW_NOISE = 1000, 8.0
"""Rows that show how far a start is to be drawn in; 20 a component, where that is more.

And so many in units of the noise: by as much the masses on other rows differ from those on these.
"""
_COOLING = 2.5
_PART = 0.25
_LLOYD_STEPS = 5


def trial_rows(n: int) -> int:
    """Return how many rows a start of n components is made from, and tried on."""
    return max(2000, min(80 * n, 4000), 20 * n)


def draw_rows(n: int, epsilon: float) -> int:
    """Return how many rows show how far a start of n components is to be drawn in.

    The logits of a component differ by the distance of the means of two samples, times its shift
    over epsilon: balanced on few rows, a component may take all of the others'.
    """
    return max(_DRAW_ROWS, 20 * n, math.ceil(_DRAW_NOISE / epsilon))


def broad_start(
    model: Model, sources: Sample, targets: Sample, n: int, rng: np.random.Generator
) -> Parameters:
    """Return components that move all sources alike, to places drawn from the targets."""
    dim = targets.points.shape[1]
    rows = rng.choice(len(targets.points), n, replace=False, p=targets.weights)
    shifts = targets.points[rows] - sources.weights @ sources.points
    return Parameters(np.full(n, -math.log(n)), shifts, model.kind.identity(n, dim))


def clustered_start(
    model: Model, sources: Sample, targets: Sample, n: int, rng: np.random.Generator
) -> Parameters:
    """Return components at clusters of the targets, the sources shared among them by annealing."""
    few = some(targets, trial_rows(n), rng)
    centres = _plus_plus(few, n, rng)
    for _ in range(_LLOYD_STEPS):
        labels = _nearest(few.points, centres)
        held = np.bincount(labels, few.weights, n)
        seen = held > 0
        sums = np.stack([np.bincount(labels, few.weights * x, n) for x in few.points.T], axis=1)
        centres[seen] = sums[seen] / held[seen, None]
    labels = _nearest(few.points, centres)
    counts: Vector = np.maximum(np.bincount(labels, few.weights, n), 0.5 / len(labels))
    masses = counts / counts.sum()
    dim = few.points.shape[1]
    spread = few.weights @ (few.points - centres[labels]) ** 2
    mean = sources.weights @ sources.points
    source_spread = sources.weights @ (sources.points - mean) ** 2
    scales = KINDS["diag"].bridge(source_spread / n, np.maximum(spread, FLOOR), model.epsilon)
    if model.kind.name == "spherical":
        stacked = np.full(n, scales.mean())
    else:
        stacked = np.broadcast_to(scales, (n, dim)).copy()
        if model.kind.name == "full":
            stacked = stacked[:, :, None] * np.eye(dim)
    components = Parameters(
        np.log(masses), centres - model.kind.apply(stacked, np.tile(mean, (n, 1))), stacked
    )
    _, slopes, _ = model.of_sources(components)
    rows = some(sources, trial_rows(n), rng)
    heat = max(1.0, float(np.std(rows.points[:200] @ slopes[:dim])))
    logits = np.zeros(n)
    while True:
        # Logits over the heat are those of so much more noise.
        warm = Model(model.kind, heat * model.epsilon)
        moved = components._replace(logits=logits / heat)
        logits, _ = balance(warm, rows, moved, masses, rough=heat > 1.0)
        logits = heat * (logits - logits.mean())
        if heat == 1.0:
            return components._replace(logits=logits)
        heat = max(1.0, heat / _COOLING)


def draw_in(model: Model, pair: Pair, start: Parameters, rng: np.random.Generator) -> Parameters:
    """Return components a part of the way from the bridge of one component to the start.

    Where the noise is small beside the data, components far apart win and lose all that they have
    with small changes of their weights, and the first to win would keep it. Nearer the single one
    they come apart slowly; at it, not at all: it is a saddle.
    """
    kind, epsilon = model
    n = len(start.shifts)
    pair = Pair(*(some(sample, draw_rows(n, epsilon), rng) for sample in pair))
    alone = kind.name, np.zeros((len(model.of_sources(start)[1]), 1)), np.zeros(1)
    _, (_, x0, c0) = model.shares(pair.sources, alone)
    _, (_, x1, c1) = model.shares(pair.targets, alone)
    scale = kind.bridge(c0, kind.raised(c1, FLOOR), epsilon)
    shift = x1 - kind.apply(scale, x0)
    masses = _core.bridge_pass(*pair.targets, model.of_targets(start), moments=False, gram=False)[1]
    masses = 0.5 * masses + 0.5 / n
    moved = Parameters(
        _PART * start.logits,
        shift + _PART * (start.shifts - shift),
        kind.between(np.repeat(scale, n, axis=0), start.scales, _PART),
    )
    logits, _ = balance(model, pair.sources, moved, masses)
    return moved._replace(logits=logits - log_sum(logits))


def _nearest(points: Vector, centres: Vector) -> npt.NDArray[np.intp]:
    found: npt.NDArray[np.intp] = ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)
    return found


def _plus_plus(sample: Sample, n: int, rng: np.random.Generator) -> Vector:
    """Return points drawn one after the other, each in proportion to its distance squared."""
    points, weights = sample
    centres = np.empty((n, points.shape[1]))
    distances = np.full(len(points), np.inf)
    chances = weights
    for k in range(n):
        centres[k] = points[rng.choice(len(points), p=chances)]
        distances = np.minimum(distances, ((points - centres[k]) ** 2).sum(1))
        total = weights @ distances
        # Where every point is a centre already, any will do.
        chances = weights * distances / total if total > 0 else weights
    return centres


STARTS: dict[str, Callable[..., Parameters]] = {"broad": broad_start, "kmeans": clustered_start}
