"""The torch twin of the kernels in ``rust/core/src/special``: the same formulas, tensor by tensor.

It runs on any device that has float64, and is never differentiated: `pyprobe.special._ops` asks it
for derivatives as the native kernels are asked. Elements are gathered by formula, which waits for
the device, but spares the many elements the long series of the few.

With s = hypot(v, x):

=================  =========================================================================
s >= 22            the expansion in 1/s (DLMF 10.41), regular at v = 0 and at x = 0
s < 22, I          the power series
s < 22, K          Temme's series for x < 1.5, else the trapezoidal rule; upward recurrence
0, infinity, NaN   limits
=================  =========================================================================

Derivatives in the order come from truncated Taylor arithmetic (`Jet`), those in the argument from
the ratios of neighbors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyprobe import _core
from pyprobe.special._kernels import (
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    LOG_HYP0F1,
    LOG_IV,
    LOG_IVE,
    LOG_KV,
    LOG_KVE,
    LOG_MATERN,
    Function,
)

__all__ = ["bessel", "bessel_ratio_inverse"]

INF = math.inf
_RATIOS = (BESSEL_RATIO, BESSEL_RATIO_COMPLEMENT)
_LARGE = 22.0
"""From this s on the expansion in 1/s serves."""
_TERMS = ((_LARGE, 24), (40.0, 14), (300.0, 7))
"""Lower ends of the bins of s, with the terms that leave less than 1e-16 there."""
_STIRLING = 8.0
"""From this order on Stirling's series serves."""
_TEMME = 1.5
"""Below this x Temme's series serves, from there on the trapezoidal rule."""
_STEP, _NODES = 0.125, 36
"""The rule's step, and its nodes on the half line."""


@torch.no_grad()
def bessel(
    function: Function, orders: Sequence[tuple[int, int]], first: Tensor, second: Tensor
) -> list[Tensor]:
    """Return the derivatives of `function` of these orders, of the broadcast shape."""
    if first.is_meta:
        raise TypeError(
            f"{function.name} needs tensors that hold numbers; got tensors on the device 'meta'."
        )
    v, x = torch.broadcast_tensors(first.detach().double(), second.detach().double())
    shape, v, x = v.shape, v.reshape(-1), x.reshape(-1)
    found = [torch.empty_like(x) for _ in orders]
    order = max(i + j for i, j in orders)
    for region, formula in _regions(function, v, x):
        at = region.nonzero().squeeze(1)
        if at.numel():
            partials = formula(order, v[at], x[at])
            for result, (i, j) in zip(found, orders, strict=True):
                result[at] = partials.at(i, j)
    return [result.reshape(shape).to(first.dtype) for result in found]


class Partials(NamedTuple):
    """A function of two arguments with its derivatives; those not asked for may be missing."""

    f: Tensor
    v: Tensor | float = 0.0
    x: Tensor | float = 0.0
    vv: Tensor | float = 0.0
    vx: Tensor | float = 0.0
    xx: Tensor | float = 0.0

    def at(self, i: int, j: int) -> Tensor | float:
        """Return the derivative of order (i, j)."""
        return (self.f, self.x, self.xx, self.v, self.vx, 0.0, self.vv)[3 * i + j]


Formula: TypeAlias = Callable[[int, Tensor, Tensor], Partials]


def _regions(function: Function, v: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Formula]]:
    """Yield the elements that share a formula, and the formula of (order, v, x)."""
    is_k = function in (LOG_KV, LOG_KVE)
    nu = v.abs() if is_k else v - 1 if function is LOG_HYP0F1 else v
    z = 2 * x.sqrt() if function is LOG_HYP0F1 else x
    inside = v > 0 if function in (LOG_HYP0F1, LOG_MATERN) else nu >= 0
    inside &= (z > 0) & (nu < INF) & (z < INF)
    s = torch.hypot(nu, z)
    yield ~inside, lambda _, v, x: _edge(function, v, x)
    small, large = inside & (s < _LARGE), inside & (s >= _LARGE)
    if function is LOG_HYP0F1:
        large, near_zero = large & (x > v), large & (x <= v)
        yield near_zero, _hyp0f1_near_zero
    if is_k or function is LOG_MATERN:
        yield small & (z < _TEMME), lambda o, v, x: _small_k(function, o, v, x, _temme)
        yield small & (z >= _TEMME), lambda o, v, x: _small_k(function, o, v, x, _trapezoid)
    else:
        yield small, lambda o, v, x: _small_i(function, o, v, x)
    for n, (low, terms) in enumerate(_TERMS):
        high = _TERMS[n + 1][0] if n + 1 < len(_TERMS) else INF
        region = large & (s >= low) & ((s < high) | (high == INF))
        yield region, partial(_large, function, terms)


# Large s: the expansion T(w, y) = sum_k D_k(w) y^k, y = 1/s, w = (v/s)^2, of which every derivative
# follows by d/dx [y^n F] = -x y^(n+2) (n F + y F_y + 2 w F_w) and
#            d/dv [y^n F] = -v y^(n+2) (n F + y F_y - 2 (1 - w) F_w).


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
        f, first, second = _polynomial(rows[k], w)
        terms = (f, first, k * f, second, k * first, k * (k - 1) * f)
        sums = [torch.addcmul(term, total, y) for total, term in zip(sums, terms, strict=True)]
    return Series(*sums)


def _polynomial(c: Sequence[float], w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the polynomial with coefficients c, constant term first, and two derivatives."""
    zero = torch.zeros_like(w)
    f, first, half_second = zero + c[-1], zero, zero
    for a in c[-2::-1]:
        half_second = torch.addcmul(first, half_second, w)
        first = torch.addcmul(f, first, w)
        f = f * w + a
    return f, first, 2 * half_second


@cache
def _debye(terms: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return the rows D_0 = 0, D_1, .. and E_0 = 1/2, E_k = k D_k + 2 w D_k'."""
    flat = _tables()["debye"]
    d = [flat[k * (k + 1) // 2 - 1 : k * (k + 1) // 2 + k] for k in range(1, terms + 1)]
    e = [[(k + 2 * j) * a for j, a in enumerate(row)] for k, row in enumerate(d, 1)]
    return [[0.0], *d], [[0.5], *e]


@cache
def _tables() -> dict[str, list[float]]:
    """Return the coefficients that the native kernels use too."""
    return _core.special_tables()


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


def _large(function: Function, terms: int, _: int, v: Tensor, x: Tensor) -> Partials:
    if function in _RATIOS:
        p = _large_ratio(v, x, terms)
        if function is BESSEL_RATIO:
            return p
        return _complement(p, _large_complement(v, x, terms))
    if function is LOG_HYP0F1:
        return _reduced(1.0, v, 2 * x.sqrt(), terms)
    if function is LOG_MATERN:
        return _reduced(-1.0, v, x, terms)
    sigma = 1.0 if function in (LOG_IV, LOG_IVE) else -1.0
    scaled = function in (LOG_IVE, LOG_KVE)
    return _even(_log_bessel(sigma, scaled, v.abs(), x, terms), v)


def _even(p: Partials, v: Tensor) -> Partials:
    """Reflect the derivatives at |v| of a function that is even in v."""
    sign = torch.sign(v)
    return p._replace(v=sign * p.v, vx=sign * p.vx)


def _complement(p: Partials, value: Tensor) -> Partials:
    return Partials(value, *(-derivative for derivative in p[1:]))


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


def _reduced(sigma: float, b: Tensor, x: Tensor, terms: int) -> Partials:
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
    (g, g1, g2), log = _log_gamma(b.clamp(max=_STIRLING + 1)), torch.log(0.5 * (p.s + nu))
    half = 0.5 * math.log(2 * math.pi)
    low_f = sigma * (p.s - nu * log - half + g) - 0.5 * torch.log(p.s)
    low_v = sigma * (g1 - log) - 0.5 * nu * y * y
    low_vv = sigma * (g2 - y) + y2 * (w - 0.5)
    # .. and beyond.
    safe = nu.clamp(min=_STIRLING)
    (c, c1, c2), d = _binet(safe), p.s_minus_v
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


def _hyp0f1_near_zero(order: int, b: Tensor, z: Tensor) -> Partials:
    """Sum the power series where the expansion's terms cancel, but for the curvature in z."""
    series = _small_i(LOG_HYP0F1, order, b, z)
    return series._replace(xx=_reduced(1.0, b, 2 * z.sqrt(), _TERMS[0][1]).xx)


def _e_w(w: Tensor, t: Series) -> Tensor:
    return t.wy + 2 * (t.w + w * t.ww)


# Gamma.


def _binet(v: Tensor) -> list[Tensor]:
    """Return Binet's log Gamma(v) - (v - 1/2) log v + v - log(2 pi)/2, v >= 8, and derivatives."""
    r = 1 / v
    z = r * r
    c = _tables()["stirling"]
    first = [(2 * k + 1) * a for k, a in enumerate(c)]
    second = [(2 * k + 2) * a for k, a in enumerate(first)]
    value, slope, curve = (_polynomial(row, z)[0] for row in (c, first, second))
    return [r * value, -z * slope, r * z * curve]


def _log_gamma(b: Tensor) -> list[Tensor]:
    """Return log Gamma(b), b > 0, and two derivatives: Stirling's series from b + 8 on."""
    rising = Jet.variable(b, 3)
    for k in range(1, 8):
        rising = rising * Jet.variable(b + k, 3)
    z = b + 8
    log, r = torch.log(z), 1 / z
    half = 0.5 * math.log(2 * math.pi)
    stirling = [(z - 0.5) * log - z + half, log - 0.5 * r, r + 0.5 * r * r]
    product = rising.log().derivatives()
    return [s + c - p for s, c, p in zip(stirling, _binet(z), product, strict=True)]


# Small s.


class Jet:
    """The Taylor coefficients f, f', f''/2 in the order, as many as are wanted."""

    __slots__ = ("c",)

    def __init__(self, c: Sequence[Any]) -> None:
        self.c = tuple(c)  # tensors, but numbers where these are the same for all elements

    @classmethod
    def variable(cls, value: Tensor, length: int) -> Jet:
        """Return the order itself, or something that runs along with it."""
        return cls((value, 1.0, 0.0)[:length])

    def derivatives(self) -> list[Tensor]:
        """Return f, f', f''."""
        return [a * math.factorial(k) for k, a in enumerate(self.c)]

    def __add__(self, other: Jet | Tensor | float) -> Jet:
        if isinstance(other, Jet):
            return Jet([a + b for a, b in zip(self.c, other.c, strict=True)])
        return Jet((self.c[0] + other, *self.c[1:]))

    __radd__ = __add__

    def __neg__(self) -> Jet:
        return Jet([-a for a in self.c])

    def __sub__(self, other: Jet | Tensor | float) -> Jet:
        return self + -other

    def __rsub__(self, other: Jet | Tensor | float) -> Jet:
        return -self + other

    def __mul__(self, other: Jet | Tensor | float) -> Jet:
        a = self.c
        if not isinstance(other, Jet):
            return Jet([coefficient * other for coefficient in a])
        b = other.c
        products: list[Any] = []
        for n in range(len(a)):
            total = a[0] * b[n]
            for i in range(1, n + 1):
                total = total + a[i] * b[n - i]
            products.append(total)
        return Jet(products)

    __rmul__ = __mul__

    def __truediv__(self, other: Jet | Tensor | float) -> Jet:
        if not isinstance(other, Jet):
            return Jet([coefficient / other for coefficient in self.c])
        b, quotients = other.c, list[Any]()
        for n, a in enumerate(self.c):
            for i in range(n):
                a = a - quotients[i] * b[n - i]
            quotients.append(a / b[0])
        return Jet(quotients)

    def log(self, value: Tensor | None = None) -> Jet:
        """Return the logarithm; `value` where it is known to more digits than its argument."""
        c = self.c
        out = [torch.log(c[0]) if value is None else value]
        if len(c) > 1:
            out.append(c[1] / c[0])
        if len(c) > 2:
            out.append(c[2] / c[0] - 0.5 * out[1] * out[1])
        return Jet(out)

    def log1p(self) -> Jet:
        """Return log(1 + self)."""
        return (self + 1.0).log(torch.log1p(self.c[0]))

    def polynomial(self, c: Sequence[float]) -> Jet:
        """Return the polynomial with these coefficients, constant term first."""
        total = self * 0.0 + c[-1]
        for a in c[-2::-1]:
            total = total * self + a
        return total

    def where(self, condition: Tensor, other: Jet) -> Jet:
        """Return this where the condition holds, else `other`."""
        pairs = zip(self.c, other.c, strict=True)
        return Jet([torch.where(condition, a, b) for a, b in pairs])


def _small_i(function: Function, order: int, v: Tensor, x: Tensor) -> Partials:
    """Evaluate through S = 0F1(; b; q), q = x^2/4, b = v + 1, a series of positive terms."""
    length = order + 1
    if function is LOG_HYP0F1:
        s, slope, curve, _ = _series(Jet.variable(v, length), x)
        f, f_v, f_vv = _first_three(s.log1p())
        curvature = 2.0 * curve - slope * slope
        return Partials(f, f_v, slope.c[0], f_vv, _first_three(slope)[1], curvature.c[0])
    q = 0.25 * x * x
    s, *slopes = _series(Jet.variable(v + 1, length), q)
    r = _small_ratio(v, x, q, slopes)
    if function is BESSEL_RATIO:
        return r
    if function is BESSEL_RATIO_COMPLEMENT:
        return _complement(r, _kummer(v, x, r.f))
    # 1/Gamma(1 + v) = (1 + rho) / product, v = n + u: below v = 1/2, log I goes to 0 with v and x.
    n = torch.round(v)
    u = Jet.variable(v - n, length)
    rho, product = _rho(u), _product(n, u)
    rest = s * rho + (s + rho)
    log = rest.log1p().where(n == 0, ((rest + 1.0) / product).log())
    f, f_v, f_vv = _first_three(log)
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


def _first_three(jet: Jet) -> list[Tensor]:
    """Return f, f', f'', zero where the jet does not carry them."""
    found = jet.derivatives()
    return [*found, *[torch.zeros_like(found[0])] * (3 - len(found))]


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
    return Partials(r, 0.5 * x * _first_three(g1)[1], r_x, vx=_first_three(slope)[1], xx=r_xx)


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


# Small s, K: v = n + u with |u| <= 1/2, and k_j stands for e^x (x/2)^(u+j) K_{u+j}(x).


def _small_k(function: Function, order: int, v: Tensor, x: Tensor, start: Start) -> Partials:
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
    g0, g_v, _ = _first_three(g)
    if function is LOG_MATERN:
        f, f_v, f_vv = _first_three((current * _reciprocal_gamma(n, u)).log() + log_factor)
        f_xx = torch.where(v == 0.5, 0.0, 1 - (2 * v - 1) * g0 / x - g0 * g0)  # e^-x
        return Partials(f + (math.log(2) - x), f_v, -g0, f_vv, -g_v, f_xx)
    log_half, scaled = torch.log(half), function is LOG_KVE
    f, f_v, f_vv = _first_three(current.log() + log_factor)
    f_x = -(v / x + g0)
    partials = Partials(
        f - v * log_half - (0 if scaled else x),
        f_v - log_half,
        torch.where((v < x) & (x >= _TEMME), _scaled_slope(v, x), f_x + 1) if scaled else f_x,
        f_vv,
        -(1 / x + g_v),
        1 + v / x / x - (2 * v - 1) * g0 / x - g0 * g0,
    )
    return _even(partials, signed)


def _scaled_slope(v: Tensor, x: Tensor) -> Tensor:
    """Return d/dx log(e^x K_v) for 1.5 <= x, v < x: minus the mean of cosh t - 1."""
    total = mean = torch.zeros_like(x)
    for node in range(_NODES):
        t = _STEP * node
        drop = 2 * math.sinh(0.5 * t) ** 2
        weight = (0.5 if node == 0 else 1.0) * torch.exp(-drop * x) * torch.cosh(t * v)
        total, mean = total + weight, mean + drop * weight
    return -mean / total


def _reciprocal_gamma(n: Tensor, u: Jet) -> Jet:
    """Return 1 / Gamma(n + u), |u| <= 1/2, as a product: its logarithm would cost digits."""
    reciprocal = _rho(u) + 1.0  # 1 / Gamma(1 + u)
    return (u * reciprocal).where(n == 0, reciprocal / _product(n - 1, u))


def _product(n: Tensor, u: Jet) -> Jet:
    """Return (u + 1) (u + 2) .. (u + n), 1 for n <= 0."""
    product = u * 0.0 + 1.0
    for j in range(1, int(n.max()) + 1):
        product = product.where(n < j, product * (u + float(j)))
    return product


def _rho(u: Jet) -> Jet:
    """Return 1 / Gamma(1 + u) - 1, |u| <= 1/2, relatively accurate."""
    # 1 / Gamma(1 +- u) = gamma_2 -+ u gamma_1, polynomials in u^2, the second with 1 in front.
    square = u * u
    odd, even = square.polynomial(_tables()["gamma_1"]), _tables()["gamma_2"]
    return square * square.polynomial(even[1:]) - u * odd


Start: TypeAlias = Callable[[Jet, Tensor], tuple[Jet, Jet, Jet, Jet]]
"""Of (u, x): (x/2)^(u+1) K_{1-u}, (x/2)^u K_u and (x/2)^(u+1) K_{u+1}, all divided by one factor,
and its logarithm plus x."""


def _temme(u: Jet, x: Tensor) -> tuple[Jet, Jet, Jet, Jet]:
    """Sum Temme's series (J. Comput. Phys. 19, 1975), all terms multiplied by (x/2)^u."""
    length, q = len(u.c), 0.25 * x * x
    log = -torch.log(0.5 * x)
    square = u * u
    gamma1, gamma2 = (square.polynomial(_tables()[name]) for name in ("gamma_1", "gamma_2"))
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
    value, first, second = _polynomial(row, torch.where(near, z, 0.0))
    z = torch.where(near, 1.0, z)
    e = torch.exp(-z)
    far = -torch.expm1(-z) / z
    far_first = (e - far) / z
    far_second = -(e + 2 * far_first) / z
    pairs = ((value, far), (first, far_first), (0.5 * second, 0.5 * far_second))
    return [torch.where(near, a, b) for a, b in pairs]


def _trapezoid(u: Jet, x: Tensor) -> tuple[Jet, Jet, Jet, Jet]:
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


# The edges of the domain.


def _edge(function: Function, v: Tensor, x: Tensor) -> Partials:
    """Return the limits at 0 and infinity, and NaN outside of the domain."""
    is_k = function in (LOG_KV, LOG_KVE)
    nu = v.abs() if is_k else v
    top, end = nu == INF, x == INF
    inside = (x >= 0) & ~(top & end)
    inside &= v > 0 if function in (LOG_HYP0F1, LOG_MATERN) else nu >= 0
    nan = torch.full_like(x, math.nan)
    fields = [
        torch.where(inside, torch.where(end, c, torch.where(top, b, a)), nan)
        for a, b, c in zip(*_EDGES[function](nu, x), strict=True)
    ]
    p = Partials(*fields)
    if function in (LOG_IVE, LOG_KVE):
        slope = p.x - 1 if function is LOG_IVE else p.x + 1
        p = p._replace(f=torch.where(inside & end, -INF, p.f), x=slope)
    if function is BESSEL_RATIO_COMPLEMENT:
        p = _complement(p, 1 - p.f)
    return _even(p, v) if is_k else p


Row: TypeAlias = tuple[Tensor | float, ...]
"""f, f_v, f_x, f_vv, f_vx, f_xx."""


def _edge_i(v: Tensor, x: Tensor) -> tuple[Row, Row, Row]:
    flat = v == 0  # (x/2)^v / Gamma(v+1), and 1 + x^2/4 for v = 0
    vv = -_log_gamma(v.clamp(max=1e9) + 1)[2]
    f, slope = torch.where(flat, 0.0, -INF), torch.where(flat, 0.0, INF)
    at_zero = (f, -INF, slope, vv, INF, torch.where(flat, 0.5, -INF))
    return at_zero, (-INF, -INF, INF, 0.0, 1 / x, -INF), (INF, 0.0, 1.0, 0.0, 0.0, 0.0)


def _edge_k(v: Tensor, x: Tensor) -> tuple[Row, Row, Row]:
    flat = v == 0  # Gamma(v) (x/2)^-v / 2, even in v
    vv = torch.where(flat, INF, _log_gamma(v.clamp(1e-300, 1e9))[2])
    at_zero = (INF, torch.where(flat, 0.0, INF), -INF, vv, torch.where(flat, 0.0, -INF), INF)
    return at_zero, (INF, INF, -INF, 0.0, -1 / x, INF), (-INF, 0.0, -1.0, 0.0, 0.0, 0.0)


def _edge_ratio(v: Tensor, _: Tensor) -> tuple[Row, Row, Row]:
    slope = 0.5 / (v + 1)  # x / (2v + 2)
    at_zero = (0.0, 0.0, slope, 0.0, -slope / (v + 1), 0.0)
    return at_zero, (0.0,) * 6, (1.0, *(0.0,) * 5)


def _edge_hyp0f1(b: Tensor, _: Tensor) -> tuple[Row, Row, Row]:
    slope = 1 / b  # z/b - z^2 / (2 b^2 (b + 1))
    vx = -slope * slope
    at_end = (INF, -INF, 0.0, _log_gamma(b.clamp(1e-300, 1e9))[2], 0.0, 0.0)
    return (0.0, 0.0, slope, 0.0, vx, vx / (b + 1)), (0.0,) * 6, at_end


def _edge_matern(nu: Tensor, _: Tensor) -> tuple[Row, Row, Row]:
    # -x^2 / (4 nu - 4) for nu > 1, else -c(nu) x^(2 nu) with c > 0, c(1/2) = 1.
    smooth, rough = nu > 0.5, nu < 0.5
    curvature = torch.where(nu > 1, -0.5 / (nu - 1).clamp(min=0), -INF)
    at_zero = (
        0.0,
        0.0,
        torch.where(smooth, 0.0, torch.where(rough, -INF, -1.0)),
        0.0,
        torch.where(smooth, 0.0, INF),
        torch.where(smooth, curvature, torch.where(rough, INF, 0.0)),
    )
    at_end = (-INF, INF, -1.0, -_log_gamma(nu.clamp(1e-300, 1e9))[2], 0.0, 0.0)
    return at_zero, (0.0,) * 6, at_end


_EDGES: dict[Function, Callable[[Tensor, Tensor], tuple[Row, Row, Row]]] = {
    LOG_IV: _edge_i,
    LOG_IVE: _edge_i,
    LOG_KV: _edge_k,
    LOG_KVE: _edge_k,
    BESSEL_RATIO: _edge_ratio,
    BESSEL_RATIO_COMPLEMENT: _edge_ratio,
    LOG_HYP0F1: _edge_hyp0f1,
    LOG_MATERN: _edge_matern,
}


@torch.no_grad()
def bessel_ratio_inverse(v: Tensor, r: Tensor, complement: Tensor) -> Tensor:
    """Return the x whose ratio is r, by Halley's method within the bounds of Hornik and Grün."""
    dtype = r.dtype
    v, r, complement = torch.broadcast_tensors(v.double(), r.double(), complement.double())
    complement = torch.where(r > 0.5, complement, 1 - r)
    rest = complement * (1 + r)  # 1 - r^2

    def inverse(a: Tensor, b: Tensor) -> Tensor:
        return r * ((a + torch.hypot(a * r, b * rest.sqrt())) / rest)

    low = torch.maximum(inverse(v, v + 2), inverse(v + 0.5, (v + 0.5).sqrt() * (v + 1.5).sqrt()))
    high = inverse(v + 0.5, v + 1.5)
    slack = 4 * torch.finfo(torch.float64).eps
    x = (r * (2 * v + 2 - r * r) / rest).clamp(low, high)
    for _ in range(4):  # two or three are enough
        ratio, slope = bessel(BESSEL_RATIO, [(0, 0), (0, 1)], v, x)
        (rest_ratio,) = bessel(BESSEL_RATIO_COMPLEMENT, [(0, 0)], v, x)
        residual = torch.where(r > 0.5, complement - rest_ratio, ratio - r)
        curvature = (2 * v + 1) / x * (ratio / x - slope) - 2 * ratio * slope
        newton = residual / slope
        following = x - newton / (1 - 0.5 * newton * curvature / slope)
        following = following.clamp(low * (1 - slack), high * (1 + slack))
        x = torch.where(following.isfinite(), following, x)
    inside = (v >= 0) & (v < INF) & (r >= 0) & (r <= 1) & (complement >= 0) & (complement <= 1)
    x = torch.where(complement == 0, INF, torch.where(r == 0, 0.0, x))
    return torch.where(inside, x, math.nan).to(dtype)
