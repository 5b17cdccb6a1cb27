"""L-BFGS for light Schrödinger bridges, in coordinates in which the loss is about round.

Near some components, their Gaussian bridges tell how the loss bends: by mass over the variance in
the shifts, by mass and what the scale moves in the logarithms of the scales. In the log-weights the
second derivatives are summed over a few rows, K by K once in many iterations. And a log-weight is
counted at the mean of the sources that its component has, where shifts and scales hardly change it.

A penalty keeps components from shrinking onto single points, where the loss has no lower bound: it
stands for a few more rows of every component, whose covariances are the mean ones.
"""

from __future__ import annotations

import math

import numpy as np

from pyprobe.transport._bridge_descent import HESSIAN_ROWS, Watch
from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import FLOOR, Model, Pair, Parameters, hessian, slopes, some

__all__ = ["polish"]

_ROUND = 25
"""Iterations until the coordinates are made anew."""
_MEMORY = 20
_PATIENCE = 5
"""Iterations that the held-out loss may rise: it does so more easily than on the direct way."""
_FURTHEST = 5.0
"""Most that the logarithm of a scale changes before the coordinates are made anew."""
_RIDGE = 1e-3
"""Part of its mass by which the loss is taken to bend at least in a component's log-weight."""


def polish(
    model: Model, pair: Pair, start: Parameters, watch: Watch, rng: np.random.Generator
) -> None:
    """Go on from `start` until the watch ends it, or no step lowers the penalized loss.

    That falls with every iteration until the coordinates are made anew. The loss itself may rise.
    """
    import scipy.optimize  # a quarter of a second, for those alone whose fit comes here

    watch.patience = _PATIENCE
    around = Coordinates(model, pair, start, rng)
    now, lowest = start, math.inf

    def after(z: Vector) -> None:
        nonlocal now, lowest
        now, fall, lowest = around.components(z), lowest - around.penalized, around.penalized
        if not watch.step(now, around.value, fall):
            raise StopIteration

    while watch.left > 0:
        begun = len(watch.losses)
        # The penalty is made anew with the coordinates: falls are those of one round.
        around.look(np.zeros(around.size))
        lowest = around.penalized
        scipy.optimize.minimize(
            around.look,
            np.zeros(around.size),
            jac=True,
            method="L-BFGS-B",
            callback=after,
            bounds=scipy.optimize.Bounds(-around.reach, around.reach),
            options={
                "maxcor": _MEMORY,
                "maxiter": min(_ROUND, watch.left),
                "ftol": 0,
                "gtol": 0,
            },
        )
        if watch.converged or watch.stopped:
            return
        if len(watch.losses) == begun:  # no step lowers the penalized loss
            watch.converged = True
            return
        around = Coordinates(model, pair, now, rng)


class Coordinates:
    """Coordinates around some components, which are at zero."""

    def __init__(
        self, model: Model, pair: Pair, start: Parameters, rng: np.random.Generator
    ) -> None:
        self.model, self.pair = model, pair
        self.value = self.penalized = math.inf
        kind, epsilon = model
        n, dim = start.shifts.shape
        logits = model.of_sources(start)
        _, (m, self.means, covariances) = model.shares(pair.sources, logits)
        _, (k, _, others) = model.shares(pair.targets, model.of_targets(start))
        masses = np.maximum(np.maximum(m, k), 0.1 / n)
        count = kind.pseudo_count(dim) / min(sample.size for sample in pair)
        self.prior = count * kind.repeats(dim)
        self.pooled = (
            kind.pooled(covariances, m / m.sum())[None],
            kind.raised(kind.pooled(others, k / k.sum())[None], FLOOR),
        )
        bent = hessian(some(pair.sources, HESSIAN_ROWS, rng), logits, m)
        # Inverted once: products are faster then, and it is well conditioned.
        self.unit = np.linalg.inv(np.linalg.cholesky(bent + _RIDGE * np.diag(masses)))
        self.roots = kind.root(start.scales)
        self.shifts = start.shifts
        self.shift_unit = np.sqrt(epsilon / masses)[:, None]
        curvature = masses[:, None] * kind.curvature(self.roots, covariances, epsilon, dim)
        self.scale_unit = 1 / np.sqrt(curvature)
        self.heights = start.logits + self._lift(start.shifts, start.scales)
        self.splits = n, n + n * dim
        self.size = n + n * dim + curvature.size
        self.reach = np.full(self.size, np.inf)
        self.reach[self.splits[1] :] = _FURTHEST / self.scale_unit.ravel()

    def components(self, z: Vector) -> Parameters:
        """Return the components at `z`."""
        first, second, third = np.split(z, self.splits)
        moved = self.shift_unit * second.reshape(self.shifts.shape)
        shifts = self.shifts + self.model.kind.spread(self.roots, moved)
        scales = self.model.kind.moved(
            self.roots, self.scale_unit * third.reshape(self.scale_unit.shape)
        )
        heights = self.heights + self.unit.T @ first
        return Parameters(heights - self._lift(shifts, scales), shifts, scales)

    def look(self, z: Vector) -> tuple[float, Vector]:
        """Return the penalized loss at `z` and its slopes; keep it, and the loss as `value`."""
        kind, epsilon = self.model
        dim = self.shifts.shape[1]
        components = self.components(z)
        found = slopes(self.model, components, *self.pair)
        penalty, bent = self._penalty(components.scales)
        gap = found.logits
        in_shifts = found.shifts - gap[:, None] * self.means / epsilon
        held = kind.outer(self.means)
        shape = (-1,) + (1,) * (held.ndim - 1)
        in_scales = found.scales + bent
        in_scales -= 0.5 * kind.repeats(dim) * gap.reshape(shape) * held / epsilon
        free = self.scale_unit * z[self.splits[1] :].reshape(self.scale_unit.shape)
        parts = (
            self.unit @ gap,
            self.shift_unit * kind.spread_back(self.roots, in_shifts),
            self.scale_unit * kind.pulled(self.roots, free, in_scales),
        )
        self.value, self.penalized = found.value, found.value + penalty
        return self.penalized, np.concatenate([part.ravel() for part in parts])

    def _penalty(self, scales: Vector) -> tuple[float, Vector]:
        """Return what the added rows give to the loss, and its slopes in the scales."""
        kind, epsilon = self.model
        (first, second), inverse = self.pooled, kind.inverse(scales)
        traces = float((scales * first + inverse * second).sum()) / epsilon
        dim = self.shifts.shape[1]
        logs = float(kind.log_det(scales, dim).sum()) / kind.repeats(dim)
        slope = first / epsilon + inverse - kind.between_inverses(inverse, second) / epsilon
        return 0.5 * self.prior * (traces + logs), 0.5 * self.prior * slope

    def _lift(self, shifts: Vector, scales: Vector) -> Vector:
        """Return how much higher a component's logit is at the mean of its sources than at 0."""
        pulled = self.model.kind.apply(scales, self.means) + 2 * shifts
        found: Vector = (pulled * self.means).sum(1) / (2 * self.model.epsilon)
        return found
