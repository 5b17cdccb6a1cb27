"""Gaussian mixtures for the two sides of a plan, by EM."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyprobe import _core
from pyprobe.transport._bridge_kinds import KINDS, Vector
from pyprobe.transport._bridge_model import FLOOR, Model, Parameters, Sample
from pyprobe.transport._bridge_starts import _plus_plus

__all__ = ["MixtureParameters", "fit_mixture", "log_density"]

_STEPS, _TOL, _PATIENCE = 100, 1e-5, 3


class MixtureParameters(NamedTuple):
    """Log-weights (k,), means (k, d) and covariances: (k,), (k, d) or (k, d, d)."""

    log_weights: Vector
    locs: Vector
    covariances: Vector

    def in_units(self, unit: float, centre: Vector) -> MixtureParameters:
        """Return the mixture of `centre` + `unit` x, with no covariances of the form (k,)."""
        covariances = self.covariances
        if covariances.ndim == 1:
            covariances = np.tile(covariances[:, None], (1, self.locs.shape[1]))
        return MixtureParameters(self.log_weights, centre + unit * self.locs, unit**2 * covariances)


def log_density(mixture: MixtureParameters, covariance: str, x: Vector) -> Vector:
    """Return the log-density of the mixture at the rows of `x`."""
    logits = Model(KINDS[covariance], 1.0).of_targets(Parameters(*mixture))
    return _core.bridge_log_sums(x, logits)


def fit_mixture(
    sample: Sample,
    n: int,
    covariance: str,
    held_out: Sample | None,
    rng: np.random.Generator,
) -> MixtureParameters:
    """Fit a Gaussian mixture by EM.

    Covariances are drawn towards their mean as in the fit of bridges. On held-out rows the
    likelihood ends by falling, and the mixture with the highest is returned.
    """
    # The logits of a bridge's ends are those of a mixture.
    model = Model(KINDS[covariance], 1.0)
    kind, dim = model.kind, sample.points.shape[1]
    mean = sample.weights @ sample.points
    spread = max(float((sample.weights @ (sample.points - mean) ** 2).mean()), FLOOR)
    now = Parameters(
        np.full(n, -math.log(n)),
        _plus_plus(sample, n, rng),
        kind.identity(n, dim) * spread / n ** (2 / dim),
    )
    best, highest, waited, last = now, -math.inf, 0, -math.inf
    for _ in range(_STEPS):
        logits = model.of_targets(now)
        value, moments = model.shares(sample, logits)
        seen = value
        if held_out is not None:
            seen = _core.bridge_pass(*held_out, logits, moments=False, gram=False)[0]
        waited += 1
        if seen > highest:
            best, highest, waited = now, seen, 0
        if waited >= _PATIENCE or value - last < _TOL:
            break
        last = value
        masses = np.maximum(moments.masses, 1e-300)
        # A component that has lost its rows stays where it was.
        lost = moments.masses < 1e-12
        now = Parameters(
            np.log(masses / masses.sum()),
            np.where(lost[:, None], now.shifts, moments.means),
            kind.raised(model.shrunk(moments, sample), FLOOR),
        )
    return MixtureParameters(*best)
