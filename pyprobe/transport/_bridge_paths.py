"""Draws of whole paths of a light Schrödinger bridge."""

from __future__ import annotations

import math

import numpy as np

from pyprobe.transport._components import Components, Vector
from pyprobe.transport.gaussian_mixture import mixture_at
from pyprobe.typing import FloatArray

__all__ = ["euler_maruyama", "exact_paths"]


def exact_paths(
    components: Components,
    x0: FloatArray,
    times: Vector,
    n: int,
    generator: np.random.Generator,
) -> FloatArray:
    """Return n paths (n, m, l, d) from each start: an end, and a Brownian bridge to it."""
    starts = x0.astype(np.float64)
    ends = mixture_at(components, starts, 0.0, 1.0).sample(n=n, rng=generator)
    path = np.empty((*ends.shape[:2], len(times), ends.shape[2]), x0.dtype)
    here: FloatArray = np.broadcast_to(starts, ends.shape)
    now = 0.0
    for i, t in enumerate(times.tolist()):
        if t == 1:
            here = ends
        elif t > now:
            variance = components.epsilon * (t - now) * (1 - t) / (1 - now)
            noise = math.sqrt(variance) * generator.standard_normal(ends.shape)
            here = here + (t - now) / (1 - now) * (ends - here) + noise
        path[:, :, i] = here
        now = t
    return path


def euler_maruyama(
    components: Components, x0: Vector, n_steps: int, generator: np.random.Generator
) -> Vector:
    """Return where equal steps along the drift, with noise, end: (n, d)."""
    x, deviation = x0, math.sqrt(components.epsilon / n_steps)
    for step in range(n_steps):
        drift = components.drift(x, step / n_steps)
        x = x + drift / n_steps + deviation * generator.standard_normal(x.shape)
    return x
