"""Newton's method on the weights of components, whose shares of the sources are given.

What their offsets l minimize, the mean of :math:`\\log \\sum_k e^{a_k + l_k}` less the shares times
l, is convex, but flat wherever a component has nothing: with little noise that is where most of
them are that have just moved. So the second derivatives are damped by the shares that are wanted,
the more the less a step has lowered the objective (Levenberg 1944, Marquardt 1963): far off the
steps are as long as a share is wrong, beside the end they are Newton's.
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
_LOOKS = 16
"""How often the shares are looked at: nearly all that can be balanced are by then."""
_DAMPING, _LEAST_DAMPING, _FACTOR = 0.1, 1e-8, 10.0
"""The first and the least damping, and what it changes by."""
_LITTLE = 0.1
_KEPT = 1_000_000
"""Logits that are kept, since all that moves is their offsets: 8 MB."""
_BLOCK = 1000
"""Rows whose products are made at once."""


def balance(
    model: Model,
    sources: Sample,
    components: Parameters,
    masses: Vector,
    few: Sample | None = None,
    rough: bool = False,
) -> tuple[Vector, float]:
    """Move the log-weights until components have about these masses of the sources.

    The second derivatives are summed over `few` rows, where those are given and the rows are many.
    Returns the log-weights and the mean log-sum-exp there.
    """
    _, slopes, offsets = model.of_sources(components)
    shares: _Kept | _Passed
    if len(sources.points) * len(offsets) <= _KEPT:
        shares = _Kept(model, sources, slopes)
    else:
        shares = _Passed(model, sources, slopes, few or sources)
    value, now = shares.look(offsets)
    damping, left = _DAMPING * np.abs(now - masses).sum(), _LOOKS - 1
    while left > 0:
        if (now < _LITTLE * masses).any():
            moved = shares.lifted(offsets, now, masses)
            new_value, new_masses = shares.look(moved)
            left -= 1
            if new_value - masses @ moved < value - masses @ offsets:
                offsets, value, now = moved, new_value, new_masses
            else:
                shares.look(offsets)
        gradient = now - masses
        if np.abs(gradient).sum() < BALANCED:
            break
        bent = shares.bent(offsets, now)
        while left > 0:
            left -= 1
            step = -np.linalg.solve(bent + np.diag(damping * masses + 1e-12), gradient)
            step -= step.mean()
            moved, fall = offsets + step, gradient @ step
            new_value, new_masses = shares.look(moved)
            if new_value - value <= masses @ step + 1e-4 * fall:
                offsets, value, now = moved, new_value, new_masses
                break
            damping *= _FACTOR
        damping = max(damping / _FACTOR, _LEAST_DAMPING)
        if rough and (now >= _LITTLE * masses).all():
            break
    return offsets, value


class _Kept:
    """What components have of a sample, as their offsets move and all else is kept."""

    def __init__(self, model: Model, sample: Sample, slopes: Vector) -> None:
        points, self.weights = sample
        self.levels = np.empty((slopes.shape[1], len(points)))
        for start in range(0, len(points), _BLOCK):
            rows = points[start : start + _BLOCK]
            features = np.hstack([rows, model.kind.products(rows)])
            self.levels[:, start : start + _BLOCK] = slopes.T @ features.T
        self.shares = self.levels

    def look(self, offsets: Vector) -> tuple[float, Vector]:
        """Return the mean log-sum-exp and the masses."""
        levels = self.levels + offsets[:, None]
        high = levels.max(axis=0)
        levels -= high
        np.exp(levels, out=levels)
        sums = levels.sum(axis=0)
        levels /= sums
        self.shares = levels
        self.sums = high + np.log(sums)
        return float(self.weights @ self.sums), levels @ self.weights

    def lifted(self, offsets: Vector, now: Vector, masses: Vector) -> Vector:
        """Return offsets"""
        offsets = offsets.copy()
        for k in np.flatnonzero(now < _LITTLE * masses):
            gaps = self.sums - self.levels[k]
            order = np.argsort(gaps)
            held = np.cumsum(self.weights[order])
            offsets[k] = gaps[order[min(np.searchsorted(held, masses[k]), len(order) - 1)]]
        return offsets

    def bent(self, _offsets: Vector, masses: Vector) -> Vector:
        """Return the second derivatives where it was looked at last."""
        found: Vector = np.diag(masses) - (self.shares * self.weights) @ self.shares.T
        return found


class _Passed:
    """The same of many rows, with a pass over them for every look."""

    def __init__(self, model: Model, sample: Sample, slopes: Vector, few: Sample) -> None:
        self.sample, self.few = sample, few
        self.of = model.kind.name, slopes

    def look(self, offsets: Vector) -> tuple[float, Vector]:
        """Return the mean log-sum-exp and the masses."""
        logits = *self.of, offsets
        value, masses, *_ = _core.bridge_pass(*self.sample, logits, moments=False, gram=False)
        return value, masses

    def bent(self, offsets: Vector, masses: Vector) -> Vector:
        """Return the second derivatives."""
        return hessian(self.few, (*self.of, offsets), masses)
