"""The loss of a light Schrödinger bridge, its slopes, and the shares that components have."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe.transport._bridge_kinds import Kind, Vector

__all__ = [
    "FLOOR",
    "Model",
    "Moments",
    "Pair",
    "Parameters",
    "Sample",
    "Slopes",
    "hessian",
    "log_sum",
    "loss",
    "slopes",
    "some",
]

FLOOR = 1e-6
"""Least variance of a component's targets, in units of the samples' variance."""

_SPARSE = 30.0
"""Rows a component at which the pooled covariance counts for twice as many points as with many."""


class Parameters(NamedTuple):
    """Log-weights ``l`` (K,), shifts ``r`` (K, d) and scales ``S``: (K,), (K, d) or (K, d, d)."""

    logits: Vector
    shifts: Vector
    scales: Vector


class Sample(NamedTuple):
    """Points, shape (n, d), with weights that sum to one."""

    points: Vector
    weights: Vector

    @property
    def size(self) -> float:
        """The number of equal weights that would be as good."""
        return float(1 / (self.weights @ self.weights))

    def take(self, rows: npt.NDArray[np.intp]) -> Sample:
        """Return some of the points, with their weights in proportion."""
        weights = self.weights[rows]
        return Sample(np.ascontiguousarray(self.points[rows]), weights / weights.sum())


class Pair(NamedTuple):
    """Two samples."""

    sources: Sample
    targets: Sample


class Moments(NamedTuple):
    """The share of a sample that each component has: masses, means and covariances."""

    masses: Vector
    means: Vector
    covariances: Vector


class Model(NamedTuple):
    """What turns components into logits."""

    kind: Kind
    epsilon: float

    def of_sources(self, components: Parameters) -> tuple[str, Vector, Vector]:
        """Return features, slopes and offsets of ``a_k``."""
        _, shifts, scales = components
        slopes = np.hstack([shifts, self.kind.quadratic(scales)]) / self.epsilon
        return self.kind.name, np.ascontiguousarray(slopes.T), components.logits

    def of_targets(self, components: Parameters) -> tuple[str, Vector, Vector]:
        """Return features, slopes and offsets of ``b_k``."""
        logits, shifts, scales = components
        dim, inverse = shifts.shape[1], self.kind.inverse(scales)
        pulled = self.kind.apply(inverse, shifts)
        slopes = np.hstack([pulled, -self.kind.quadratic(inverse)]) / self.epsilon
        norm = dim * math.log(2 * math.pi * self.epsilon) + self.kind.log_det(scales, dim)
        offsets = logits - 0.5 * norm - 0.5 * (shifts * pulled).sum(1) / self.epsilon
        return self.kind.name, np.ascontiguousarray(slopes.T), offsets

    def shares(self, sample: Sample, logits: tuple[str, Vector, Vector]) -> tuple[float, Moments]:
        """Return the mean log-sum-exp, and what each component has of the sample."""
        value, masses, sums, _ = _core.bridge_pass(
            sample.points, sample.weights, logits, moments=True, gram=False
        )
        dim = sample.points.shape[1]
        means = (sums / np.maximum(masses, 1e-300)).T
        first = np.ascontiguousarray(means[:, :dim])
        return value, Moments(masses, first, self.kind.covariances(means[:, dim:], first))

    def shrunk(self, moments: Moments, sample: Sample, lost: Vector | None = None) -> Vector:
        """Return covariances drawn towards their mean, as if it had been seen on a few points.

        The fewer rows a component has, the more its own covariance is noise, and the more points
        that are. `lost` says how many rows' worth the mean of each component takes from it; without
        it the covariances count as those about known means.
        """
        masses, means, covariances = moments
        size, total = sample.size, masses.sum()
        count = self.kind.pseudo_count(means.shape[1]) * (1 + _SPARSE * len(masses) / size)
        shape = (-1,) + (1,) * (covariances.ndim - 1)
        counts = masses * size
        pooled = self.kind.pooled(covariances, masses / total)
        left = counts
        if lost is not None:
            left = np.maximum(counts - lost, 0)
            pooled = pooled * (total * size / max(left.sum(), 1.0))
        summed = counts.reshape(shape) * covariances + count * pooled
        return summed / (left + count).reshape(shape)


def log_sum(logits: Vector) -> float:
    """Return the logarithm of the sum of the exponentials."""
    high = logits.max()
    return float(high + np.log(np.exp(logits - high).sum()))


def loss(model: Model, components: Parameters, sources: Sample, targets: Sample) -> float:
    """Return the loss on two samples."""
    first = _core.bridge_pass(*sources, model.of_sources(components), moments=False, gram=False)
    second = _core.bridge_pass(*targets, model.of_targets(components), moments=False, gram=False)
    return float(first[0] - second[0])


class Slopes(NamedTuple):
    """The loss, and its derivatives."""

    value: float
    logits: Vector
    shifts: Vector
    scales: Vector


def slopes(model: Model, components: Parameters, sources: Sample, targets: Sample) -> Slopes:
    """Return the loss on two samples and its slopes, from one pass over each.

    Those in full scales are symmetric matrices G, with a change of the loss by the trace of G dS.
    """
    (kind, epsilon), (_, shifts, scales) = model, components
    dim, inverse = shifts.shape[1], kind.inverse(scales)
    first, (m, x0, c0) = model.shares(sources, model.of_sources(components))
    second, (n, x1, c1) = model.shares(targets, model.of_targets(components))
    off = x1 - shifts
    shape = (-1,) + (1,) * (c0.ndim - 1)
    m_, n_ = m.reshape(shape), n.reshape(shape)
    spread = kind.between_inverses(inverse, c1 + kind.outer(off))
    in_scales = m_ * (c0 + kind.outer(x0)) / epsilon + n_ * (inverse - spread / epsilon)
    in_shifts = (m[:, None] * x0 - n[:, None] * kind.apply(inverse, off)) / epsilon
    return Slopes(first - second, m - n, in_shifts, 0.5 * kind.repeats(dim) * in_scales)


def hessian(few: Sample, logits: tuple[str, Vector, Vector], masses: Vector) -> Vector:
    """Return the second derivatives of the mean log-sum-exp in the offsets, from a few rows.

    `masses` are those of all rows: a component that none of the few belongs to must not seem flat.
    """
    _, seen, _, gram = _core.bridge_pass(*few, logits, moments=False, gram=True)
    found: Vector = np.diag(np.maximum(seen, masses)) - gram
    return found


def some(sample: Sample, n: int, rng: np.random.Generator) -> Sample:
    """Return the sample, or n of its points where it has more."""
    if len(sample.points) <= n:
        return sample
    return sample.take(rng.choice(len(sample.points), n, replace=False))
