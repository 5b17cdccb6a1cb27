"""Draws of whole paths of a light Schrödinger bridge."""

from __future__ import annotations

import math

import numpy as np

from pyprobe import _core, _rng
from pyprobe.transport._components import Components, Vector
from pyprobe.transport.gaussian_mixture import mixture_at
from pyprobe.typing import FloatArray

__all__ = ["euler_maruyama", "exact_paths"]


def exact_paths(
    components: Components, x0: FloatArray, times: Vector, n: int, key: int
) -> FloatArray:
    """Return n paths (n, m, l, d) from each start: an end, and a Brownian bridge to it."""
    starts = x0.astype(np.float64)
    generator = np.random.default_rng(key)
    law = mixture_at(components, starts, 0.0, 1.0)
    ends = law.sample(n=n, rng=generator).astype(np.float64, copy=False)
    paths = _core.brownian_bridges(starts, ends, times, components.epsilon, _rng.key(generator))
    shape = (*ends.shape[:2], len(times), ends.shape[2])
    return paths.reshape(shape).astype(x0.dtype, copy=False)


def euler_maruyama(
    components: Components, x0: Vector, n_steps: int, generator: np.random.Generator
) -> Vector:
    """Return where equal steps along the drift, with noise, end: (n, d)."""
    x, deviation = x0, math.sqrt(components.epsilon / n_steps)
    for step in range(n_steps):
        drift = components.drift(x, step / n_steps)
        x = x + drift / n_steps + deviation * generator.standard_normal(x.shape)
    return x
