r"""The loss of bridge matching, whose minimizer is that of the bridge's own.

.. math:: E\, \Bigl| g(x_t, t) - \frac{x_1 - x_t}{1 - t} \Bigr|^2 / (2 \varepsilon), \quad
    x_t \sim N((1 - t) x_0 + t x_1,\; \varepsilon t (1 - t) I)

Over the drifts g of light Schrödinger bridges, and for any coupling of the two samples, this is the
bridge's loss up to a constant (Gushchin, Kholkin, Burnaev and Korotin 2024, theorem 3.3): here for
the independent one. Its slopes, unlike those of the loss itself, are those of draws of t and of
:math:`x_t`. It is here for comparison. O(n k d) numbers for n rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import Model, Parameters, Sample, Slopes

__all__ = ["drift_slopes", "matching_slopes"]

_LATEST = 0.99
"""The target's variance is infinite at 1; the paper's own code ends here too."""


def matching_slopes(
    rng: np.random.Generator,
) -> Callable[[Model, Parameters, Sample, Sample], Slopes]:
    """Return a function that draws a place between every two rows, and gives the slopes there."""

    def look(model: Model, components: Parameters, sources: Sample, targets: Sample) -> Slopes:
        n = min(len(sources.points), len(targets.points))
        x0, x1 = sources.points[:n], targets.points[:n]
        t = rng.uniform(0, _LATEST, (n, 1))
        noise = np.sqrt(model.epsilon * t * (1 - t)) * rng.normal(size=x0.shape)
        x = (1 - t) * x0 + t * x1 + noise
        return drift_slopes(model, components, x, t, (x1 - x) / (1 - t))

    return look


def drift_slopes(
    model: Model, components: Parameters, x: Vector, t: Vector, velocities: Vector
) -> Slopes:
    """Return the mean squared error of the drift over twice epsilon, and its slopes.

    Shapes (n, d), (n, 1) and (n, d). The scales are diagonal or spherical.
    """
    epsilon, (logits, shifts, scales) = model.epsilon, components
    n, dim = x.shape
    wide = scales if scales.ndim == 2 else np.repeat(scales[:, None], dim, axis=1)
    # With D = 1 - t + t S: g = sum_k w_k D^-1 ((S - 1) x + r), arrays of (n, k, d).
    x_, t_ = x[:, None], t[:, None]
    inverse = 1 / (1 - t_ + t_ * wide)
    drifts = ((wide - 1) * x_ + shifts) * inverse
    height = (wide - 1) * x_**2 + 2 * shifts * x_ - t_ * shifts**2
    logs = logits + (0.5 * np.log(inverse) + 0.5 * height * inverse / epsilon).sum(2)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    drift = np.einsum("nk,nkd->nd", weights, drifts)
    error = drift - velocities

    # Of the weights' logarithms, and of the components' own drifts, over n and epsilon.
    projected = np.einsum("nd,nkd->nk", error, drifts)
    in_logs = weights * (projected - (error * drift).sum(1, keepdims=True))
    in_drifts = weights[:, :, None] * error[:, None]
    off = (x_ - t_ * shifts) * inverse
    in_shifts = in_drifts * inverse + in_logs[:, :, None] * off / epsilon
    through_logs = 0.5 * off**2 / epsilon - 0.5 * t_ * inverse
    in_scales = (in_drifts * off * inverse + in_logs[:, :, None] * through_logs).sum(0)
    if scales.ndim == 1:
        in_scales = in_scales.sum(1)
    size = n * epsilon
    value = float((error**2).sum() / (2 * size))
    return Slopes(value, in_logs.sum(0) / size, in_shifts.sum(0) / size, in_scales / size)
