"""I_v(x), its ratio and 0F1 for hypot(v, x) < 22: a power series of positive terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyprobe.special._kernels import (
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    LOG_HYP0F1,
    LOG_IVE,
    Function,
)
from pyprobe.special._torch_gamma import reciprocal_gamma1pm1, rising_product
from pyprobe.special._torch_jet import Jet, Partials, complement, first_three

__all__ = ["small_i"]


def small_i(function: Function, order: int, v: Tensor, x: Tensor) -> Partials:
    """Evaluate through S = 0F1(; b; q), q = x^2/4, b = v + 1, a series of positive terms."""
    length = order + 1
    if function is LOG_HYP0F1:
        s, slope, curve, _ = _series(Jet.variable(v, length), x)
        f, f_v, f_vv = first_three(s.log1p())
        curvature = 2.0 * curve - slope * slope
        return Partials(f, f_v, slope.c[0], f_vv, first_three(slope)[1], curvature.c[0])
    q = 0.25 * x * x
    s, *slopes = _series(Jet.variable(v + 1, length), q)
    r = _small_ratio(v, x, q, slopes)
    if function is BESSEL_RATIO:
        return r
    if function is BESSEL_RATIO_COMPLEMENT:
        return complement(r, _kummer(v, x, r.f))
    # 1/Gamma(1 + v) = (1 + rho) / product, v = n + u: below v = 1/2, log I goes to 0 with v and x.
    n = torch.round(v)
    u = Jet.variable(v - n, length)
    rho, product = reciprocal_gamma1pm1(u), rising_product(n, u)
    rest = s * rho + (s + rho)
    log = rest.log1p().where(n == 0, ((rest + 1.0) / product).log())
    f, f_v, f_vv = first_three(log)
    log_half = torch.log(0.5 * x)
    f, f_v = f + v * log_half, f_v + log_half
    scaled = function is LOG_IVE
    f_x = v / x + r.f
    return Partials(
        f - x if scaled else f,
        f_v,
        f_x - 1 if scaled else f_x,
        f_vv,
        1 / x + r.v,
        r.x - v / x / x,
    )


def _series(b: Jet, q: Tensor) -> list[Jet]:
    """Return S - 1, then the Taylor coefficients of S in q, from the first on, over S."""
    one = b * 0.0 + 1.0
    sums = [one, *[one * 0.0] * 3]
    for k in range(38, 0, -1):
        # S = 1 + q / (1 b) (1 + q / (2 (b + 1)) (1 + ..))
        factor = one / (float(k) * (b + (k - 1.0)))
        shifted = [sums[0] * q, *(sums[i] * q + sums[i - 1] for i in (1, 2, 3))]
        sums = [shift * factor for shift in shifted]
        rest, sums[0] = sums[0], sums[0] + 1.0
    return [rest, *(derivative / sums[0] for derivative in sums[1:])]


def _small_ratio(v: Tensor, x: Tensor, q: Tensor, slopes: Sequence[Jet]) -> Partials:
    """Return r = (x/2) g' for g = log S as a function of q."""
    g1, c2, c3 = slopes
    g2 = 2.0 * c2 - g1 * g1
    g3 = 6.0 * (c3 - c2 * g1) + 2.0 * (g1 * g1 * g1)
    slope = 0.5 * g1 + g2 * q
    r, r_x = 0.5 * x * g1.c[0], slope.c[0]
    r_xx = 0.5 * x * (1.5 * g2 + g3 * q).c[0]
    # Beyond the turning point these cancel, and Riccati's equation does not.
    m, beyond = 2 * v + 1, x > 2 * v + 4
    r_x = torch.where(beyond, _kummer(v, x, r) * (1 + r) - m * r / x, r_x)
    r_xx = torch.where(beyond, -2 * r * r_x - m * (r_x / x - r / x / x), r_xx)
    return Partials(r, 0.5 * x * first_three(g1)[1], r_x, vx=first_three(slope)[1], xx=r_xx)


def _kummer(v: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Return 1 - r: where that cancels, M(v+1/2, 2v+2, 2x) / M(v+1/2, 2v+1, 2x)."""
    out = 1 - r
    at = (r > 0.5).nonzero().squeeze(1)
    v, x = v[at], x[at]
    m = 2 * v + 1
    term = torch.ones_like(x)
    above, below = term, term
    for k in range(1, 110):
        term = term * ((v + (k - 0.5)) / (m + (k - 1)) * (2 * x / k))
        below = below + term
        above = above + term * (m / (m + k))
    out[at] = above / below
    return out
