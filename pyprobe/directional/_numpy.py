r"""Von Mises-Fisher mathematics on NumPy arrays; `_torch` is its twin, name by name.

With :math:`\nu = d/2 - 1`, the uniform density :math:`U_d`, :math:`G(\kappa) = \log {}_0F_1(; \nu +
1; \kappa^2 / 4)` and its slope :math:`A = I_{\nu+1}(\kappa) / I_\nu(\kappa)`, the density is
:math:`\log p(x) = \kappa \mu \cdot x - G(\kappa) + \log U_d`.

Each quantity is arranged so that no two large terms cancel: G itself where the concentration is
small, :math:`\kappa - G` and :math:`1 - A` where it is large.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe._validate import as_float_array
from pyprobe.special import bessel_ratio, bessel_ratio_complement, log_hyp0f1, log_ive
from pyprobe.typing import FloatArray

__all__ = [
    "cumulant",
    "draw",
    "entropy",
    "kl_divergence",
    "kl_to_uniform",
    "log_prob",
    "log_uniform",
    "mean_direction",
    "mean_resultant_length",
    "variances",
]

Doubles = npt.NDArray[np.float64]


def log_uniform(dim: int) -> float:
    """Return the logarithm of the uniform density on the unit sphere of R^dim."""
    return math.lgamma(dim / 2) - math.log(2) - dim / 2 * math.log(math.pi)


def log_prob(x: npt.ArrayLike, loc: FloatArray, concentration: npt.ArrayLike) -> Any:
    """Return the log-density at `x`, shape (..., d); all arguments broadcast."""
    x = as_float_array("x", x)
    kappa = np.asarray(concentration, dtype=np.float64)
    dim = x.shape[-1]
    # kappa mu . x = kappa - kappa |x - mu|^2 / 2: near the mode the small term is computed as such.
    distance = _one_minus_dot(x, loc)
    value = _mode_height(kappa, dim) + log_uniform(dim) - kappa * distance
    return value.astype(x.dtype)[()]


def cumulant(kappa: Doubles, dim: int) -> Doubles:
    """Return G: the logarithm of the normaliser, relative to that of the uniform density."""
    # Where the square would overflow, G is kappa to far beyond the last digit.
    below = np.minimum(kappa, 1e150)
    return np.where(kappa > below, kappa, log_hyp0f1(dim / 2, below * below / 4))


def mean_resultant_length(concentration: npt.ArrayLike, dim: int) -> Any:
    """Return A, the length of the mean vector."""
    return bessel_ratio(dim / 2 - 1, concentration)


def variances(concentration: npt.ArrayLike, dim: int) -> tuple[Any, Any]:
    """Return the variances of a coordinate across the mean direction and of the one along it."""
    # A / kappa = (1 - A' - A^2) / (d - 1), from the ratio's differential equation; regular at 0.
    ratio = bessel_ratio(dim / 2 - 1, concentration)
    along = bessel_ratio(dim / 2 - 1, concentration, derivative=(0, 1))
    complement = bessel_ratio_complement(dim / 2 - 1, concentration)
    return (complement * (1 + ratio) - along) / (dim - 1), along


def entropy(concentration: npt.ArrayLike, dim: int) -> Any:
    """Return the differential entropy in nats."""
    return -kl_to_uniform(concentration, dim) - log_uniform(dim)


def kl_to_uniform(concentration: npt.ArrayLike, dim: int) -> Any:
    """Return the Kullback-Leibler divergence from the uniform distribution, kappa A - G."""
    kappa = np.asarray(concentration, dtype=np.float64)
    order = dim / 2 - 1
    near = kappa * bessel_ratio(order, kappa) - cumulant(kappa, dim)
    far = _mode_height(kappa, dim) - kappa * bessel_ratio_complement(order, kappa)
    return _as_came(np.where(kappa > dim, far, near), concentration)


def kl_divergence(
    loc: FloatArray,
    concentration: npt.ArrayLike,
    other_loc: FloatArray,
    other_concentration: npt.ArrayLike,
) -> Any:
    """Return the Kullback-Leibler divergence of a first distribution from another one."""
    dim = loc.shape[-1]
    kappa = np.asarray(concentration, dtype=np.float64)
    other = np.asarray(other_concentration, dtype=np.float64)
    # 1 - mu . mu' without cancellation; the rest is the Bregman divergence of G.
    apart = 0.5 * np.square(np.subtract(loc, other_loc, dtype=np.float64)).sum(-1)
    turned = other * np.asarray(mean_resultant_length(kappa, dim)) * apart
    return _as_came(turned + _bregman(kappa, other, dim), concentration)


def draw(
    loc: FloatArray, concentration: npt.ArrayLike, shape: tuple[int, ...], key: int
) -> FloatArray:
    """Draw arrays of shape (*shape, *batch, d), where batch is that of the parameters."""
    dim = loc.shape[-1]
    kappa = np.asarray(concentration, dtype=np.float64)
    batch = np.broadcast_shapes(loc.shape[:-1], kappa.shape)
    # What is shared is not repeated: the kernel takes one row beside many.
    locs = loc if loc.ndim == 1 else np.broadcast_to(loc, (*batch, dim))
    kappas = kappa if kappa.ndim == 0 else np.broadcast_to(kappa, batch)
    if math.prod(shape) * math.prod(batch) == 0:
        return np.empty((*shape, *batch, dim), dtype=loc.dtype)
    draws = _core.vmf_sample(locs.reshape(-1, dim), kappas.reshape(-1), math.prod(shape), key)
    return draws.reshape(*shape, *batch, dim)


def mean_direction(
    x: FloatArray, weights: Doubles | None
) -> tuple[Doubles, float, float, float, float]:
    """Return the mean direction, R, 1 - R, the total weight and the effective number of rows."""
    return _core.vmf_mean_direction(x, weights)


def _one_minus_dot(x: FloatArray, loc: FloatArray) -> Doubles:
    """Return |x - loc|^2 / 2, of the broadcast batch shape; the rows of `x` are checked."""
    dim = loc.shape[-1]
    batch = loc.shape[:-1]
    shape = np.broadcast_shapes(x.shape[:-1], batch)
    rows = np.broadcast_to(x, (*shape, dim)).reshape(-1, dim)
    # The kernel pairs row i with row i mod m.
    if shape[len(shape) - len(batch) :] != batch:
        loc = np.broadcast_to(loc, (*shape, dim))
    return _core.vmf_one_minus_dot(rows, loc.reshape(-1, dim)).reshape(shape)


def _mode_height(kappa: Doubles, dim: int) -> Doubles:
    """Return kappa - G: the log-density at the mode, relative to the uniform one."""
    order = dim / 2 - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        near = kappa - cumulant(kappa, dim)
        far = order * np.log(kappa / 2) - math.lgamma(dim / 2) - np.asarray(log_ive(order, kappa))
    return np.where(kappa > dim, far, near)


def _bregman(kappa: Doubles, other: Doubles, dim: int) -> Doubles:
    """Return G(other) - G(kappa) - A(kappa) (other - kappa)."""
    order = dim / 2 - 1
    step = other - kappa
    near = cumulant(other, dim) - cumulant(kappa, dim) - step * bessel_ratio(order, kappa)
    far = (
        _mode_height(kappa, dim)
        - _mode_height(other, dim)
        + step * bessel_ratio_complement(order, kappa)
    )
    # Near one another, the integral of (other - k) A'(k) over k, whose poles lie on the imaginary
    # axis, at least |order| from 0: ten nodes reach 1e-16.
    nodes, weights = _gauss_legendre(10)
    slopes = bessel_ratio(order, kappa[..., None] + step[..., None] * nodes, derivative=(0, 1))
    integral = step * (step * (slopes * (weights * (1 - nodes))).sum(-1))
    reach = np.hypot(np.minimum(kappa, other), max(order, 1.0))
    value = np.where(np.abs(step) <= 0.5 * reach, integral, np.where(kappa > dim, far, near))
    return np.asarray(value)


def _as_came(value: Doubles, concentration: Any) -> Any:
    """Return `value` in the type of `concentration`: float32 only where that is."""
    dtype = getattr(concentration, "dtype", np.float64)
    return value.astype(np.float32 if dtype == np.float32 else np.float64)[()]


@functools.cache
def _gauss_legendre(n: int) -> tuple[Doubles, Doubles]:
    """Return the nodes and weights of the n-point rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 + 0.5 * nodes, 0.5 * weights
