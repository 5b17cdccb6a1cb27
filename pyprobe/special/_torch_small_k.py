"""K_v(x) and the Matern correlation for hypot(v, x) < 22: two ways to begin, and a recurrence.

With v = n + u, |u| <= 1/2, k_j stands for e^x (x/2)^(u+j) K_{u+j}(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyprobe.special._kernels import LOG_KVE, LOG_MATERN, Function
from pyprobe.special._torch_gamma import reciprocal_gamma, tables
from pyprobe.special._torch_jet import Jet, Partials, even, first_three, polynomial

__all__ = ["TEMME", "small_k", "temme", "trapezoid"]

TEMME = 1.5
"""Below this x Temme's series serves, from there on the trapezoidal rule."""
_STEP, _NODES = 0.125, 36
"""The rule's step, and its nodes on the half line."""

Start: TypeAlias = Callable[[Jet, Tensor], tuple[Jet, Jet, Jet, Jet]]
"""Of (u, x): (x/2)^(u+1) K_{1-u}, (x/2)^u K_u and (x/2)^(u+1) K_{u+1}, all divided by one factor,
and its logarithm plus x."""


def small_k(function: Function, order: int, v: Tensor, x: Tensor, start: Start) -> Partials:
    """Go from K_u and K_{u+1}, as `start` makes them, up to K_v."""
    signed, v = v, v.abs()
    n = torch.round(v)
    u = Jet.variable(v - n, order + 1)
    half, q = 0.5 * x, 0.25 * x * x
    below, k0, k1, log_factor = start(u, x)
    previous, current = k0, k1
    for j in range(1, int(n.max())):
        following = previous * q + current * (u + float(j))
        more = n > j
        previous, current = current.where(more, previous), following.where(more, current)
    at_zero = n == 0
    current = k0.where(at_zero, current)
    g = (below / half).where(at_zero, previous * half) / current  # K_{v-1} / K_v
    g0, g_v, _ = first_three(g)
    if function is LOG_MATERN:
        f, f_v, f_vv = first_three((current * reciprocal_gamma(n, u)).log() + log_factor)
        f_xx = torch.where(v == 0.5, 0.0, 1 - (2 * v - 1) * g0 / x - g0 * g0)  # e^-x
        return Partials(f + (math.log(2) - x), f_v, -g0, f_vv, -g_v, f_xx)
    log_half, scaled = torch.log(half), function is LOG_KVE
    f, f_v, f_vv = first_three(current.log() + log_factor)
    f_x = -(v / x + g0)
    partials = Partials(
        f - v * log_half - (0 if scaled else x),
        f_v - log_half,
        torch.where((v < x) & (x >= TEMME), _scaled_slope(v, x), f_x + 1) if scaled else f_x,
        f_vv,
        -(1 / x + g_v),
        1 + v / x / x - (2 * v - 1) * g0 / x - g0 * g0,
    )
    return even(partials, signed)


def _scaled_slope(v: Tensor, x: Tensor) -> Tensor:
    """Return d/dx log(e^x K_v) for 1.5 <= x, v < x: minus the mean of cosh t - 1."""
    total = mean = torch.zeros_like(x)
    for node in range(_NODES):
        t = _STEP * node
        drop = 2 * math.sinh(0.5 * t) ** 2
        weight = (0.5 if node == 0 else 1.0) * torch.exp(-drop * x) * torch.cosh(t * v)
        total, mean = total + weight, mean + drop * weight
    return -mean / total


def temme(u: Jet, x: Tensor) -> tuple[Jet, Jet, Jet, Jet]:
    """Sum Temme's series (J. Comput. Phys. 19, 1975), all terms multiplied by (x/2)^u."""
    length, q = len(u.c), 0.25 * x * x
    log = -torch.log(0.5 * x)
    square = u * u
    gamma1, gamma2 = (square.polynomial(tables()[name]) for name in ("gamma_1", "gamma_2"))
    plus, minus = gamma2 - u * gamma1, gamma2 + u * gamma1  # 1 / Gamma(1 + u), 1 / Gamma(1 - u)
    # With z = 2 u log(2/x), (x/2)^u cosh(z/2) = (1 + e^-z) / 2, and sinh(z/2) likewise.
    z = 2 * u.c[0] * log
    chain: tuple[Any, ...] = (1.0, 2 * log, 4 * log * log)
    power = Jet([a * b for a, b in zip(_exp_minus(z), chain, strict=True)][:length])
    mean = Jet([a * b for a, b in zip(_mean_exp_minus(z), chain, strict=True)][:length])
    f = ((power + 1.0) * 0.5 * gamma1 + mean * log * gamma2) / (plus * minus)
    p = (u * 0.0 + 0.5) / plus
    r = power * 0.5 / minus
    k0, k1, below, c = f, p, r, torch.ones_like(x)
    for k in range(1, 18):
        f = (f * float(k) + p + r) / (float(k * k) - square)
        p, r = p / (float(k) - u), r / (float(k) + u)
        c = c * (q / k)
        k0, k1 = k0 + f * c, k1 + (p - f * float(k)) * c
        below = below + (r - f * float(k)) * c
    return below, k0, k1, Jet((x, 0.0, 0.0)[:length])


def _exp_minus(z: Tensor) -> list[Tensor]:
    """Return the Taylor coefficients of e^-z."""
    e = torch.exp(-z)
    return [e, -e, 0.5 * e]


def _mean_exp_minus(z: Tensor) -> list[Tensor]:
    """Return the Taylor coefficients of (1 - e^-z) / z, for |z| < 1 by its series."""
    near = z.abs() < 1
    row = [(-1) ** k / math.factorial(k + 1) for k in range(21)]
    value, first, second = polynomial(row, torch.where(near, z, 0.0))
    z = torch.where(near, 1.0, z)
    e = torch.exp(-z)
    far = -torch.expm1(-z) / z
    far_first = (e - far) / z
    far_second = -(e + 2 * far_first) / z
    pairs = ((value, far), (first, far_first), (0.5 * second, 0.5 * far_second))
    return [torch.where(near, a, b) for a, b in pairs]


def trapezoid(u: Jet, x: Tensor) -> tuple[Jet, Jet, Jet, Jet]:
    """Apply the trapezoidal rule to e^x K_u = int_0^inf exp(-x (cosh t - 1)) cosh(u t) dt."""
    length = len(u.c)
    plus, minus = torch.exp(_STEP * u.c[0]), torch.exp(-_STEP * u.c[0])
    up, down = torch.ones_like(x), torch.ones_like(x)  # e^(u t) and e^(-u t)
    sums = [u * 0.0] * 3
    for node in range(_NODES):
        t = _STEP * node
        e = math.exp(t)
        weight = (0.25 if node == 0 else 0.5) * _STEP * torch.exp(-2 * math.sinh(0.5 * t) ** 2 * x)
        # e^((u+a) t) + e^(-(u+a) t) for K_{u+a}, with its derivatives in u.
        for place, factor in enumerate((1 / e, 1.0, e)):
            rise, fall = weight * factor * up, weight / factor * down
            powers = [t**n / math.factorial(n) for n in range(length)]
            sums[place] += Jet([c * (rise + (-1) ** n * fall) for n, c in enumerate(powers)])
        up, down = up * plus, down * minus
    below, k0, k1 = sums
    half = 0.5 * x
    log_half = torch.log(half)
    return below * half, k0, k1 * half, Jet((u.c[0] * log_half, log_half, 0.0)[:length])
