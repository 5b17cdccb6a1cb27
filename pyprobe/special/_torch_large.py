"""The expansion in 1/s for s = hypot(v, x) >= 22: every function, whatever v / x.

It is T(w, y) = sum_k D_k(w) y^k with y = 1/s, w = (v/s)^2, of which every derivative follows by
d/dx [y^n F] = -x y^(n+2) (n F + y F_y + 2 w F_w) and
d/dv [y^n F] = -v y^(n+2) (n F + y F_y - 2 (1 - w) F_w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pyprobe import _core
from pyprobe.special._kernels import (
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    LOG_HYP0F1,
    LOG_IV,
    LOG_IVE,
    LOG_KVE,
    LOG_MATERN,
    Function,
)
from pyprobe.special._torch_gamma import binet, log_gamma
from pyprobe.special._torch_jet import Partials, complement, even, polynomial

__all__ = ["large_s", "reduced"]

_RATIOS = (BESSEL_RATIO, BESSEL_RATIO_COMPLEMENT)
_STIRLING = 8.0
"""From this order on Stirling's series serves."""


def large_s(function: Function, terms: int, _: int, v: Tensor, x: Tensor) -> Partials:
    """Evaluate with so many terms; the derivatives come whether or not they are asked for."""
    if function in _RATIOS:
        p = _large_ratio(v, x, terms)
        if function is BESSEL_RATIO:
            return p
        return complement(p, _large_complement(v, x, terms))
    if function is LOG_HYP0F1:
        return reduced(1.0, v, 2 * x.sqrt(), terms)
    if function is LOG_MATERN:
        return reduced(-1.0, v, x, terms)
    sigma = 1.0 if function in (LOG_IV, LOG_IVE) else -1.0
    scaled = function in (LOG_IVE, LOG_KVE)
    return even(_log_bessel(sigma, scaled, v.abs(), x, terms), v)


def _log_bessel(sigma: float, scaled: bool, v: Tensor, x: Tensor, terms: int) -> Partials:
    """Return log I (sigma = 1) or log K (-1): sigma (s - v L) - log(s)/2 + c + T(w, sigma y)."""
    p = Point.of(v, x)
    t = _sum(_debye(terms)[0], p.w, sigma * p.y)
    # L = asinh(v/x); beyond 1e300 the quotient may overflow, and there s = v.
    quotient = (v + p.s_minus_x) / x
    apart = torch.log(v) + math.log(2) - torch.log(x)
    log = torch.where(quotient < 1e300, torch.log1p(quotient), apart)
    length = p.s_minus_x if scaled else p.s
    constant = 0.5 * math.log(2 * math.pi if sigma < 0 else 1 / (2 * math.pi))
    if sigma < 0:
        constant -= math.log(2)
    e, f, e_x, f_v, f_x = _slopes(p, t)
    slope, y2 = v / x, p.y**2
    return Partials(
        t.f + (constant - 0.5 * torch.log(p.s)) + sigma * (length - v * log),
        v=v * p.y * p.y * (f - 0.5) - sigma * log,
        x=sigma * (length / x) - x * p.y * p.y * (e + 0.5),
        vv=y2 * ((f - 0.5) + p.w * (1 + f_v)) - sigma * p.y,
        vx=x * p.y * v * p.y * y2 * (1 + f_x) + sigma * (slope * p.y),
        xx=y2 * (p.u * (1 + e_x) - (e + 0.5)) - sigma * (slope * p.y * slope),
    )


def _large_ratio(v: Tensor, x: Tensor, terms: int) -> Partials:
    """Return r = x / (s + v) - x y^2 G(w, y), G = sum_k E_k y^k."""
    p = Point.of(v, x)
    _, y, w, u, *_ = p
    g = _sum(_debye(terms)[1], w, y)
    a, xy, vy, y2 = 1 / (p.s + v), x * y, v * y, y * y
    # d/dx [y^2 G] = -x y^4 Q, d/dv [y^2 G] = -v y^4 R.
    q = 2 * g.f + g.y + 2 * w * g.w
    r = 2 * g.f + g.y - 2 * u * g.w
    q_y, q_w = 3 * g.y + g.yy + 2 * w * g.wy, 4 * g.w + g.wy + 2 * w * g.ww
    r_y, r_w = 3 * g.y + g.yy - 2 * u * g.wy, 4 * g.w + g.wy - 2 * u * g.ww
    y3 = y * y2
    return Partials(
        x * a - xy * y * g.f,
        v=xy * (vy * y2 * r - a),
        x=vy * a - y2 * (g.f - u * q),
        vx=y * ((1 - vy - w) * a + vy * y2 * (r - u * (4 * r + r_y + 2 * w * r_w))),
        xx=xy * (y3 * (3 * q - u * (4 * q + q_y + 2 * w * q_w)) - vy * a * a * (2 + vy)),
    )


def _large_complement(v: Tensor, x: Tensor, terms: int) -> Tensor:
    p = Point.of(v, x)
    g = _sum(_debye(terms)[1], p.w, p.y)
    return (v + p.s_minus_x) / (p.s + v) + x * p.y * p.y * g.f


def reduced(sigma: float, b: Tensor, x: Tensor, terms: int) -> Partials:
    """Return log 0F1(; b; x^2/4) with its derivatives in b and x^2/4, or log_matern(b, x).

    f = sigma (d - nu log1p(d / 2 nu)) - log1p(d / nu)/2 + T(w, sigma y) + sigma binet(nu),
    d = s - nu; for small nu the same with the Gamma function in full.
    """
    nu = b - 1 if sigma > 0 else b
    p = Point.of(nu, x)
    _, y, w, u, *_ = p
    y2 = y * y
    t = _sum(_debye(terms)[0], w, sigma * y)
    e, f, e_x, f_v, _ = _slopes(p, t)
    low = nu < _STIRLING
    # The part without T: at low order ..
    (g, g1, g2), log = log_gamma(b.clamp(max=_STIRLING + 1)), torch.log(0.5 * (p.s + nu))
    half = 0.5 * math.log(2 * math.pi)
    low_f = sigma * (p.s - nu * log - half + g) - 0.5 * torch.log(p.s)
    low_v = sigma * (g1 - log) - 0.5 * nu * y * y
    low_vv = sigma * (g2 - y) + y2 * (w - 0.5)
    # .. and beyond.
    safe = nu.clamp(min=_STIRLING)
    (c, c1, c2), d = binet(safe), p.s_minus_v
    log = torch.log1p(0.5 * d / safe)
    high_f = sigma * (c + (d - safe * log)) - 0.5 * torch.log1p(d / safe)
    high_v = sigma * (c1 - log) + 0.5 * u / safe
    high_vv = sigma * (c2 + d / safe * y) + y2 * (w - 0.5) - 0.5 / safe**2
    # The derivative in x is x h, h = sigma / (s + nu) - y^2 (1/2 + E).
    a = 1 / (p.s + nu)
    h = sigma * a - y2 * (0.5 + e)
    h_x = y * (y * y2 * (1 + e_x) - sigma * a * a)  # over x
    e_v = e_x - 2 * _e_w(w, t)
    h_v = y * (nu * y * y2 * (1 + e_v) - sigma * a)
    xx = y2 * (u * (1 + e_x) - (e + 0.5)) - nu * y * a  # of log_matern: h + x^2 h_x cancels
    return Partials(
        t.f + torch.where(low, low_f, high_f),
        v=nu * y * y * f + torch.where(low, low_v, high_v),
        x=2 * h if sigma > 0 else x * h,
        vv=y2 * (f + w * f_v) + torch.where(low, low_vv, high_vv),
        vx=2 * h_v if sigma > 0 else x * h_v,
        xx=4 * h_x if sigma > 0 else torch.where(nu == 0.5, 0.0, xx),  # e^-x
    )


def _slopes(p: Point, t: Series) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return E, F with T_x = -x y^2 E and T_v = v y^2 F, then the second derivatives.

    These are e_x = -(y^2 E)_x / (x y^4), f_v = (y^2 F)_v / (v y^4) and f_x = (y^2 F)_x / (x y^4).
    """
    e = t.y + 2 * p.w * t.w
    f = 2 * p.u * t.w - t.y
    e_w, e_y = t.wy + 2 * (t.w + p.w * t.ww), t.y + t.yy + 2 * p.w * t.wy
    f_w, f_y = 2 * (p.u * t.ww - t.w) - t.wy, 2 * p.u * t.wy - t.y - t.yy
    e_x = 2 * e + e_y + 2 * p.w * e_w
    f_v = -(2 * f + f_y - 2 * p.u * f_w)
    f_x = -(2 * f + f_y + 2 * p.w * f_w)
    return e, f, e_x, f_v, f_x


def _e_w(w: Tensor, t: Series) -> Tensor:
    return t.wy + 2 * (t.w + w * t.ww)


class Point(NamedTuple):
    """What all formulas share: s, y = 1/s, w = (v/s)^2, u = 1 - w, and s - x, s - v uncancelled."""

    s: Tensor
    y: Tensor
    w: Tensor
    u: Tensor
    s_minus_x: Tensor
    s_minus_v: Tensor

    @classmethod
    def of(cls, v: Tensor, x: Tensor) -> Point:
        s = torch.hypot(v, x)
        y = 1 / s
        return cls(s, y, (v * y) ** 2, (x * y) ** 2, v * (v / (s + x)), x * (x / (s + v)))


class Series(NamedTuple):
    """F(w, y) with its derivatives, those in y multiplied by as many powers of y."""

    f: Tensor
    w: Tensor
    y: Tensor
    ww: Tensor
    wy: Tensor
    yy: Tensor


def _sum(rows: Sequence[Sequence[float]], w: Tensor, y: Tensor) -> Series:
    """Sum row k, a polynomial in w, times y^k."""
    zero = torch.zeros_like(w)
    sums = [zero] * 6
    for k in range(len(rows) - 1, -1, -1):
        f, first, second = polynomial(rows[k], w)
        terms = (f, first, k * f, second, k * first, k * (k - 1) * f)
        sums = [torch.addcmul(term, total, y) for total, term in zip(sums, terms, strict=True)]
    return Series(*sums)


@cache
def _debye(terms: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return the rows D_0 = 0, D_1, .. and E_0 = 1/2, E_k = k D_k + 2 w D_k'."""
    flat = _core.special_tables()["debye"]
    d = [flat[k * (k + 1) // 2 - 1 : k * (k + 1) // 2 + k] for k in range(1, terms + 1)]
    e = [[(k + 2 * j) * a for j, a in enumerate(row)] for k, row in enumerate(d, 1)]
    return [[0.0], *d], [[0.5], *e]
