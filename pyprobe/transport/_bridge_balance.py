r"""Newton's method on the weights of components, whose shares of the sources are given.

What their log-weights l minimize, the mean of :math:`\log \sum_k e^{a_k}` less the shares times l,
is convex, but flat wherever a component has nothing: with little noise most have nothing that have
just moved. Those are first raised to where their share of the rows is nearest to them. And the
second derivatives are damped by the shares that are wanted, in proportion to how far off they are,
and more where a step does not lower the objective (Levenberg 1944, Marquardt 1963): far off a step
is as long as a share is wrong, beside the end it is Newton's.
"""

from __future__ import annotations

import math

import numpy as np

from pyprobe import _core
from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import Model, Parameters, Sample, hessian

__all__ = ["BALANCED", "balance"]

BALANCED = 1e-3
"""Distance of the components' two shares, summed, at which they need no further step."""
_LITTLE = 0.1
"""Part of its share below which a component is raised."""
_LOOKS = 16
"""How often the shares are looked at: of nearly all that can be balanced they agree by then."""
_DAMPING, _LEAST_DAMPING, _FACTOR = 0.1, 1e-8, 10.0
"""The first damping over the distance of the shares, the least, and what it changes by."""
_KEPT = 4_000_000
"""Logits that are kept from look to look, 32 MB of them."""
_BENT_ROWS, _RAISING_ROWS = 8000, 2000
"""Rows that second derivatives are summed over, and that show how far a component is raised."""
_BLOCK = 1000
"""Rows whose products of coordinates are made at once."""


def balance(
    model: Model,
    sources: Sample,
    components: Parameters,
    masses: Vector,
    few: Sample | None = None,
    *,
    rough: bool = False,
) -> tuple[Vector, float]:
    """Move the log-weights until components have about these masses of the sources.

    Where the rows are many, `few` of them come first, and stand for all in second derivatives.
    `rough` ends it as soon as every component has a tenth of its mass. Returns the log-weights and
    the mean log-sum-exp there.
    """
    _, slopes, offsets = model.of_sources(components)
    shares: _Kept | _Passed
    if len(sources.points) * len(offsets) <= _KEPT:
        shares = _Kept(model, sources, slopes)
    else:
        if few is not None:
            offsets, _ = balance(model, few, components, masses, rough=rough)
        shares = _Passed(model, sources, slopes, few or sources)
    value, now = shares.look(offsets)
    damping, left = _DAMPING * float(np.abs(now - masses).sum()), _LOOKS - 1
    while left > 0:
        if (now < _LITTLE * masses).any():
            left -= 1
            moved = shares.raised(offsets, now, masses)
            new_value, new_masses = shares.look(moved)
            if new_value - masses @ moved < value - masses @ offsets:
                offsets, value, now = moved, new_value, new_masses
            else:
                shares.look(offsets)  # the second derivatives are those of the last look
        gradient = now - masses
        if np.abs(gradient).sum() < BALANCED:
            break
        bent = shares.bent(offsets, now)
        while left > 0:
            left -= 1
            step = -np.linalg.solve(bent + np.diag(damping * masses + 1e-12), gradient)
            step -= step.mean()
            moved = offsets + step
            new_value, new_masses = shares.look(moved)
            if new_value - value <= masses @ step + 1e-4 * (gradient @ step):
                offsets, value, now = moved, new_value, new_masses
                break
            damping *= _FACTOR
        damping = max(damping / _FACTOR, _LEAST_DAMPING)
        if rough and (now >= _LITTLE * masses).all():
            break
    return offsets, value


class _Kept:
    """What components have of a sample, as their offsets move and all else stays."""

    def __init__(self, model: Model, sample: Sample, slopes: Vector) -> None:
        points, self.weights = sample
        self.levels = np.empty((slopes.shape[1], len(points)))
        for start in range(0, len(points), _BLOCK):
            rows = points[start : start + _BLOCK]
            features = np.hstack([rows, model.kind.products(rows)])
            self.levels[:, start : start + _BLOCK] = slopes.T @ features.T
        self.shares, self.sums = self.levels, self.weights

    def look(self, offsets: Vector) -> tuple[float, Vector]:
        """Return the mean log-sum-exp and the masses."""
        levels = self.levels + offsets[:, None]
        high = levels.max(axis=0)
        levels -= high
        np.exp(levels, out=levels)
        sums = levels.sum(axis=0)
        levels /= sums
        self.shares, self.sums = levels, high + np.log(sums)
        return float(self.weights @ self.sums), levels @ self.weights

    def bent(self, _offsets: Vector, masses: Vector) -> Vector:
        """Return the second derivatives where it was looked last."""
        step = math.ceil(len(self.weights) / _BENT_ROWS)
        shares, weights = self.shares[:, ::step], self.weights[::step]
        held = shares * (weights / weights.sum())
        # A component that none of the few belongs to must not seem flat.
        found: Vector = np.diag(np.maximum(held.sum(axis=1), masses)) - held @ shares.T
        return found

    def raised(self, offsets: Vector, now: Vector, masses: Vector) -> Vector:
        """Return offsets at which components that have little win the rows nearest to them.

        As many as is their share, against what the others have where it was looked last.
        """
        offsets = offsets.copy()
        step = math.ceil(len(self.weights) / _RAISING_ROWS)
        weights = self.weights[::step] / self.weights[::step].sum()
        for k in np.flatnonzero(now < _LITTLE * masses):
            height = self.sums[::step] - self.levels[k, ::step]
            order = np.argsort(height)
            held = np.cumsum(weights[order])
            offsets[k] = height[order[min(np.searchsorted(held, masses[k]), len(order) - 1)]]
        return offsets


class _Passed:
    """The same of many rows, with a pass over them for every look."""

    def __init__(self, model: Model, sample: Sample, slopes: Vector, few: Sample) -> None:
        self.sample, self.few = sample, few
        self.name, self.slopes = model.kind.name, slopes

    def look(self, offsets: Vector) -> tuple[float, Vector]:
        """Return the mean log-sum-exp and the masses."""
        logits = self.name, self.slopes, offsets
        value, masses, *_ = _core.bridge_pass(*self.sample, logits, moments=False, gram=False)
        return value, masses

    def bent(self, offsets: Vector, masses: Vector) -> Vector:
        """Return the second derivatives."""
        return hessian(self.few, (self.name, self.slopes, offsets), masses)

    def raised(self, offsets: Vector, _now: Vector, _masses: Vector) -> Vector:
        """Return the offsets as they are: few of the rows have come before."""
        return offsets
