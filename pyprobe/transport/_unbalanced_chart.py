"""Coordinates in which L-BFGS minimizes the loss of unbalanced light bridges."""

from __future__ import annotations

import math

import numpy as np

from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import Parameters
from pyprobe.transport._unbalanced_problem import Problem, Sums

__all__ = ["Chart", "chart_about"]

_ROOT_2 = math.sqrt(2)
_FARTHEST = 5.0
"""The most that the logarithm of a component's width changes within a chart."""
_FLOOR = 1e-6
"""Least variance that components are drawn to, in units of the samples' variance."""


class Chart:
    r"""Coordinates about given components, in which the loss has a curvature of about one.

    A component is given by where it takes the mean :math:`\bar x` of its starts, by its logit there
    and by its scale: with these three, how many starts it has, where they go and how they spread
    are nearly apart. They are counted in units of the component's noise, over the square root of
    its mass. Here scales are along the axes, and vary by their logarithms.
    """

    def __init__(self, problem: Problem, components: Parameters, starts: Sums, ends: Sums) -> None:
        self.problem = problem
        self.kind, self.epsilon = problem.model
        self.n, self.dim = components.shifts.shape
        masses = np.maximum(0.5 * (starts.masses + ends.masses), 0.1 / self.n)
        self.units = 1 / np.sqrt(masses)
        self.centres = starts.first / np.maximum(starts.masses, 1e-300)[:, None]
        self.centres[starts.masses < 1e-12] = starts.first.sum(axis=0)
        self.logits = components.logits + self._rise(components.shifts, components.scales)
        self.places = components.shifts + self.kind.apply(components.scales, self.centres)
        # Covariances are drawn towards their mean, as in the balanced fit, here by a term of the
        # loss. With one count for both sides it moves no component that is alone.
        rows = (1 / problem.starts.sample.size + 1 / problem.ends.sample.size) / 2
        self.count = self.kind.pseudo_count(self.dim) * rows
        self.pools = []
        for sums in (starts, ends):
            own = sums.first / np.maximum(sums.masses, 1e-300)[:, None]
            pool = sums.about(own, self.kind.name)[1].sum(axis=0) / sums.masses.sum()
            self.pools.append(self.kind.raised(pool[None], _FLOOR)[0])
        self._keep(components.scales)

    def parameters(self, x: Vector) -> Parameters:
        """Return the components that have these coordinates."""
        logits, moves, spreads = self._split(x)
        scales = self._scales(spreads)
        places = self.places + math.sqrt(self.epsilon) * self._step(moves)
        shifts = places - self.kind.apply(scales, self.centres)
        return Parameters(self.logits + logits - self._rise(shifts, scales), shifts, scales)

    def look(self, x: Vector) -> tuple[float, float, Vector]:
        """Return the loss, what shrinkage adds to it, and the gradient of both together."""
        kind, epsilon = self.kind, self.epsilon
        _, shifts, scales = components = self.parameters(x)
        value, starts, ends = self.problem.sums(components)
        away, spread = starts.about(self.centres, kind.name)
        past, scatter = ends.about(shifts + kind.apply(scales, self.centres), kind.name)
        in_places = (away - kind.apply(kind.inverse(scales), past)) / epsilon
        extra, in_scales = self._in_scales(scales, ends.masses, spread, scatter)
        blocks = (
            (starts.masses - ends.masses)[:, None],
            math.sqrt(epsilon) * self._pull(in_places),
            self._in_spreads(x, scales, in_scales),
        )
        gradient = np.concatenate([(self.units[:, None] * block).ravel() for block in blocks])
        return value, extra, gradient

    @property
    def origin(self) -> Vector:
        """The coordinates of the components that the chart was made about."""
        return np.zeros(self.n * (1 + self.dim + self._width))

    def _split(self, x: Vector) -> tuple[Vector, Vector, Vector]:
        logits, moves, spreads = np.split(x, [self.n, self.n * (1 + self.dim)])
        unit = self.units[:, None]
        return (
            logits * self.units,
            moves.reshape(self.n, self.dim) * unit,
            # A line search may look far beyond where the minimum can be.
            np.clip(spreads.reshape(self.n, self._width) * unit, -_FARTHEST, _FARTHEST),
        )

    def _rise(self, shifts: Vector, scales: Vector) -> Vector:
        """Return a component's logit at its centre, less that at 0."""
        pulled = self.kind.apply(scales, self.centres) + 2 * shifts
        found: Vector = (pulled * self.centres).sum(axis=1) / (2 * self.epsilon)
        return found

    def _keep(self, scales: Vector) -> None:
        # Where one number does for all axes, it is kept as a column.
        self.scales = scales.reshape(self.n, -1)
        self._width = self.scales.shape[1]
        self._axes = self.dim // self._width

    def _step(self, moves: Vector) -> Vector:
        found: Vector = np.sqrt(self.scales) * moves
        return found

    def _pull(self, gradients: Vector) -> Vector:
        return self._step(gradients)

    def _scales(self, spreads: Vector) -> Vector:
        scales: Vector = self.scales * np.exp(_ROOT_2 * spreads)
        return scales[:, 0] if self.kind.name == "spherical" else scales

    def _in_scales(
        self, scales: Vector, masses: Vector, spread: Vector, scatter: Vector
    ) -> tuple[float, Vector]:
        """Return what shrinkage adds to the loss, and the gradient of both in the scales."""
        scales = scales.reshape(self.n, -1)
        count, (pool, other) = self.count, self.pools
        spread, scatter = spread + count * pool, scatter + count * other
        held = self._axes * (masses[:, None] + count)
        gradient = 0.5 * ((spread - scatter / scales**2) / self.epsilon + held / scales)
        extra = (count * pool * scales + count * other / scales) / self.epsilon
        extra += self._axes * count * np.log(scales)
        return 0.5 * float(extra.sum()), gradient

    def _in_spreads(self, x: Vector, scales: Vector, in_scales: Vector) -> Vector:  # noqa: ARG002
        """Return the gradient in the spreads."""
        return _ROOT_2 * scales.reshape(self.n, -1) * in_scales


class FullChart(Chart):
    """A chart whose scales are R E E' R', with R R' the scale at the origin and E triangular."""

    def _keep(self, scales: Vector) -> None:
        self.root = np.linalg.cholesky(scales)
        self._width = self.dim * (self.dim + 1) // 2

    def _step(self, moves: Vector) -> Vector:
        found: Vector = np.einsum("kij,kj->ki", self.root, moves)
        return found

    def _pull(self, gradients: Vector) -> Vector:
        found: Vector = np.einsum("kij,ki->kj", self.root, gradients)
        return found

    def _triangle(self, spreads: Vector) -> Vector:
        rows, columns = np.tril_indices(self.dim)
        triangle = np.zeros((self.n, self.dim, self.dim))
        triangle[:, rows, columns] = spreads
        i = np.arange(self.dim)
        triangle[:, i, i] = np.exp(triangle[:, i, i])
        return triangle

    def _scales(self, spreads: Vector) -> Vector:
        root = self.root @ self._triangle(spreads)
        found: Vector = root @ np.swapaxes(root, 1, 2)
        return found

    def _in_scales(
        self, scales: Vector, masses: Vector, spread: Vector, scatter: Vector
    ) -> tuple[float, Vector]:
        count, (pool, other) = self.count, self.pools
        spread, scatter = spread + count * pool, scatter + count * other
        inverse = self.kind.inverse(scales)
        gradient = (spread - inverse @ scatter @ inverse) / self.epsilon
        gradient = 0.5 * (gradient + (masses + count)[:, None, None] * inverse)
        extra = count * np.einsum("ij,kij->", pool, scales)
        extra += count * np.einsum("ij,kij->", other, inverse)
        extra = extra / self.epsilon + count * self.kind.log_det(scales, self.dim).sum()
        return 0.5 * float(extra), gradient

    def _in_spreads(self, x: Vector, scales: Vector, in_scales: Vector) -> Vector:  # noqa: ARG002
        triangle = self._triangle(self._split(x)[2])
        found = 2 * np.swapaxes(self.root, 1, 2) @ in_scales @ self.root @ triangle
        i = np.arange(self.dim)
        found[:, i, i] *= triangle[:, i, i]
        rows, columns = np.tril_indices(self.dim)
        return found[:, rows, columns]


def chart_about(problem: Problem, components: Parameters) -> tuple[float, Chart]:
    """Return the loss at the components, and coordinates about them."""
    value, starts, ends = problem.sums(components)
    kind = FullChart if problem.model.kind.name == "full" else Chart
    return value, kind(problem, components, starts, ends)
