"""The Gamma function for the other formulas: Binet's part of it, and its reciprocal at a jet."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from pyprobe import _core
from pyprobe.special._torch_jet import Jet, polynomial

__all__ = [
    "binet",
    "log_gamma",
    "reciprocal_gamma",
    "reciprocal_gamma1pm1",
    "rising_product",
    "tables",
]


def binet(v: Tensor) -> list[Tensor]:
    """Return Binet's log Gamma(v) - (v - 1/2) log v + v - log(2 pi)/2, v >= 8, and derivatives."""
    r = 1 / v
    z = r * r
    c = tables()["stirling"]
    first = [(2 * k + 1) * a for k, a in enumerate(c)]
    second = [(2 * k + 2) * a for k, a in enumerate(first)]
    value, slope, curve = (polynomial(row, z)[0] for row in (c, first, second))
    return [r * value, -z * slope, r * z * curve]


def log_gamma(b: Tensor) -> list[Tensor]:
    """Return log Gamma(b), b > 0, and two derivatives: Stirling's series from b + 8 on."""
    rising = Jet.variable(b, 3)
    for k in range(1, 8):
        rising = rising * Jet.variable(b + k, 3)
    z = b + 8
    log, r = torch.log(z), 1 / z
    half = 0.5 * math.log(2 * math.pi)
    stirling = [(z - 0.5) * log - z + half, log - 0.5 * r, r + 0.5 * r * r]
    product = rising.log().derivatives()
    return [s + c - p for s, c, p in zip(stirling, binet(z), product, strict=True)]


def reciprocal_gamma(n: Tensor, u: Jet) -> Jet:
    """Return 1 / Gamma(n + u), |u| <= 1/2, as a product: its logarithm would cost digits."""
    reciprocal = reciprocal_gamma1pm1(u) + 1.0  # 1 / Gamma(1 + u)
    return (u * reciprocal).where(n == 0, reciprocal / rising_product(n - 1, u))


def rising_product(n: Tensor, u: Jet) -> Jet:
    """Return (u + 1) (u + 2) .. (u + n), 1 for n <= 0."""
    product = u * 0.0 + 1.0
    for j in range(1, int(n.max()) + 1):
        product = product.where(n < j, product * (u + float(j)))
    return product


def reciprocal_gamma1pm1(u: Jet) -> Jet:
    """Return 1 / Gamma(1 + u) - 1, |u| <= 1/2, relatively accurate."""
    # 1 / Gamma(1 +- u) = gamma_2 -+ u gamma_1, polynomials in u^2, the second with 1 in front.
    square = u * u
    odd, even = square.polynomial(tables()["gamma_1"]), tables()["gamma_2"]
    return square * square.polynomial(even[1:]) - u * odd


@cache
def tables() -> dict[str, list[float]]:
    """Return the coefficients that the native kernels use too."""
    return _core.special_tables()
