"""Reference values of Bessel functions and their derivatives in ball arithmetic.

Everything is a truncated Taylor series in the order (python-flint's ``arb_series``), so that the
derivatives in ``v`` are exact; those in ``x`` follow from the differential equation. Three sources,
none of which the library itself uses where it is checked against them:

* the hypergeometric series 0F1, which Arb bounds rigorously, where it has few terms;
* elsewhere for I the path of steepest descent of Schlaefli's integral (DLMF 10.32.12): with
  ``t = asinh((v/x) theta/sin theta) + i theta`` the exponent ``x cosh t - v t`` is real, and
  ``I_v(x) = 1/pi * int_0^pi Im[(dt/dtheta) exp(x cosh t - v t)] dtheta``;
* for K the integral ``1/2 int exp(v t - x cosh t) dt`` over the line (DLMF 10.32.9).

Both integrands are analytic and die off, so the trapezoidal rule converges geometrically: halving
the step squares the error. A rule is accepted when the last halving moved the integral by less than
the square root of the tolerance, and every integral carries the tolerance as a radius. Precision
and tolerance rise together until each requested value is certified to 80 bits.

The two digits at the end of a name count the derivatives in the first and second argument.
"""

import math
from collections.abc import Callable, Iterator

from flint import acb_series, arb, arb_series, ctx

__all__ = ["CERTIFIED_BITS", "bessel", "certify", "log_hyp0f1", "log_matern", "von_mises_fisher"]

CERTIFIED_BITS = 80
ctx.cap = 3  # series in the order: value, first and half the second derivative
EULER = arb_series([0, 1])  # the variable of the series: the offset from the order


def certify(function: Callable[..., dict[str, arb]], *args: float) -> dict[str, arb]:
    """Raise the precision until every value of ``function(*args)`` has 80 certain bits."""
    for tolerance in (140, 200, 300, 450, 700):
        ctx.prec = 2 * tolerance
        values = function(*map(arb, args), tolerance)
        if all(y.is_zero() or y.rel_accuracy_bits() >= CERTIFIED_BITS for y in values.values()):
            return values
    raise ArithmeticError(f"{function.__name__}{args} is not certified: {values}")


def bessel(v: arb, x: arb, tolerance: int) -> dict[str, arb]:
    """Logarithms of I and K, the ratio ``I_{v+1}/I_v``, and all derivatives to order two."""
    log_i, ratio = _jets_of_i(v, x, tolerance)
    log_k, lower = _jets_of_k(v, x, tolerance)
    order = v + EULER
    # DLMF 10.29.2: r' = 1 - r^2 - (2v+1) r/x, and k' = k^2 + (2v-1) k/x - 1 for k = K_{v-1}/K_v.
    ratio_x = 1 - ratio * ratio - (2 * order + 1) * ratio / x
    ratio_xx = -2 * ratio * ratio_x - (2 * order + 1) * (ratio_x / x - ratio / (x * x))
    lower_x = lower * lower + (2 * order - 1) * lower / x - 1
    i_x, k_x = ratio + order / x, -lower - order / x
    values = {
        "log_iv_00": log_i[0],
        "log_ive_00": log_i[0] - x,
        "log_iv_10": log_i[1],
        "log_iv_01": i_x[0],
        "log_ive_01": i_x[0] - 1,
        "log_iv_20": 2 * log_i[2],
        "log_iv_11": i_x[1],
        "log_iv_02": ratio_x[0] - v / x**2,
        "log_kv_00": log_k[0],
        "log_kve_00": log_k[0] + x,
        "log_kv_10": log_k[1],
        "log_kv_01": k_x[0],
        "log_kve_01": k_x[0] + 1,
        "log_kv_20": 2 * log_k[2],
        "log_kv_11": k_x[1],
        "log_kv_02": v / x**2 - lower_x[0],
        "bessel_ratio_00": ratio[0],
        "bessel_ratio_complement_00": 1 - ratio[0],
        "bessel_ratio_10": ratio[1],
        "bessel_ratio_01": ratio_x[0],
        "bessel_ratio_11": ratio_x[1],
        "bessel_ratio_02": ratio_xx[0],
    }
    if v.is_zero():  # K is even in v, and dI/dv = -K there (DLMF 10.38.4)
        values["log_kv_10"] = values["log_kv_11"] = arb(0)
        values["log_iv_10"] = -(log_k[0] - log_i[0]).exp()
        values["log_iv_11"] = (-2 * log_i[0]).exp() / x
    return values


def log_hyp0f1(b: arb, z: arb, tolerance: int) -> dict[str, arb]:
    """Logarithm of ``0F1(; b; z)`` and its derivatives in ``(b, z)`` to order two."""
    value, slope = _jets_of_hyp0f1(b, z, tolerance)
    return {
        "log_hyp0f1_00": value[0],
        "log_hyp0f1_10": value[1],
        "log_hyp0f1_01": slope[0],
        "log_hyp0f1_20": 2 * value[2],
        "log_hyp0f1_11": slope[1],
        "log_hyp0f1_02": (1 - b * slope[0]) / z - slope[0] ** 2,  # z y'' + b y' = y
    }


def log_matern(nu: arb, x: arb, tolerance: int) -> dict[str, arb]:
    """Logarithm of the Matern correlation and its derivatives in ``(nu, x)`` to order two."""
    log_k, lower = _jets_of_k(nu, x, tolerance)
    order = nu + EULER
    value = (1 - order) * arb(2).log() - order.lgamma() + order * x.log() + log_k
    values = {
        "log_matern_00": value[0],
        "log_matern_10": value[1],
        "log_matern_01": -lower[0],
        "log_matern_20": 2 * value[2],
        "log_matern_11": -lower[1],
        "log_matern_02": 1 - (2 * nu - 1) * lower[0] / x - lower[0] ** 2,
    }
    if nu == 0.5:  # log M = -x
        values["log_matern_02"] = arb(0)
    return values


def von_mises_fisher(dim: arb, kappa: arb, tolerance: int) -> dict[str, arb]:
    """Mean resultant length A, its complement and slope, normaliser, entropy, KL to uniform."""
    half, q = dim / 2, kappa * kappa / 4
    log_hyp, slope = _jets_of_hyp0f1(half, q, tolerance)
    length = slope[0] * kappa / 2
    log_uniform = half.lgamma() - arb(2).log() - half * arb.pi().log()
    divergence = kappa * length - log_hyp[0]
    return {
        "length": length,
        "complement": 1 - length,
        "slope": 1 - length**2 - (dim - 1) * length / kappa,
        "log_normalizer": log_uniform - log_hyp[0],
        "entropy": -log_uniform - divergence,
        "kl_uniform": divergence,
    }


def _jets_of_hyp0f1(b: arb, z: arb, tolerance: int) -> tuple[arb_series, arb_series]:
    """Series in the parameter of ``log 0F1(; b; z)`` and of its derivative in ``z``."""
    order = b + EULER
    if _series_is_short(b, z, tolerance):
        value = _hyp0f1(b, z)
        return value.log(), _hyp0f1(b + 1, z) / (order * value)
    x = 2 * z.sqrt()
    log_i, ratio = _jets_of_i(b - 1, x, tolerance)
    return log_i - (order - 1) * (x / 2).log() + order.lgamma(), 2 * ratio / x


def _jets_of_i(v: arb, x: arb, tolerance: int) -> tuple[arb_series, arb_series]:
    """Series in the order of ``log I_v(x)`` and ``I_{v+1}(x)/I_v(x)``, for ``v > -1``."""
    order, q = v + EULER, x * x / 4
    if _series_is_short(v + 1, q, tolerance):
        log_hyp, slope = _jets_of_hyp0f1(v + 1, q, tolerance)
        return log_hyp + order * (x / 2).log() - (order + 1).lgamma(), slope * x / 2
    if v < 0:  # the path of steepest descent gives I_{-v}: step down from the next order
        log_i, above = _jets_of_i(v + 1, x, tolerance)
        ratio = 1 / (above + 2 * (order + 1) / x)
        return log_i - ratio.log(), ratio
    centre, top = _saddle(v, x)

    slope, pi, negligible = v / x, arb.pi(), arb(2) ** (-tolerance - 20)

    def nodes(theta: arb, step: arb) -> Iterator[list[arb]]:
        while theta < pi:
            sin, cos = theta.sin_cos() if theta > 0 else (arb(0), arb(1))
            stretch = slope * theta / sin if theta > 0 else slope
            root = (1 + stretch * stretch).sqrt()
            a = stretch.asinh()
            weight = (x * root * cos - v * a - top).exp()
            if weight < negligible:
                return
            if theta == 0:
                weight /= 2  # the other half of this node lies on the conjugate path
            da = slope * (sin - theta * cos) / (sin * sin * root) if theta > 0 else arb(0)
            # Im[g(t) dt/dtheta] for g = (t - centre)^n and g = (t - centre)^n e^-t, n = 0, 1, 2
            shift, decay = a - centre, (-a).exp() * weight
            powers = (
                (arb(1), arb(0)),
                (-shift, -theta),
                ((shift * shift - theta * theta) / 2, shift * theta),
            )
            terms = [weight * (re + im * da) for re, im in powers]
            terms += [
                decay * (re * cos + im * sin + (im * cos - re * sin) * da) for re, im in powers
            ]
            yield terms
            theta += step

    sums = _trapezoid(nodes, arb(0), _gaussian_step(v, x, tolerance), tolerance)
    below, above = arb_series(sums[:3]), arb_series(sums[3:])
    log_i = below.log() + top - EULER * centre - arb.pi().log()
    return log_i, above / below


def _jets_of_k(v: arb, x: arb, tolerance: int) -> tuple[arb_series, arb_series]:
    """Series in the order of ``log K_v(x)`` and ``K_{v-1}(x)/K_v(x)``."""
    centre, top = _saddle(v, x)

    def nodes(start: arb, step: arb) -> Iterator[list[arb]]:
        t, grow, factor = start, (start + centre).exp(), step.exp()
        while t < end:
            weight = (v * (t + centre) - x * (grow + 1 / grow) / 2 + top).exp()
            terms = [weight, weight * t, weight * t * t / 2]
            yield terms + [y / grow for y in terms]
            t, grow = t + step, grow * factor

    lowest = _support(float(v) - 1, float(x), -1, tolerance) - float(centre)
    end = arb(_support(float(v), float(x), 1, tolerance) - float(centre))
    step = min(math.pi**2 / tolerance, _gaussian_step(v, x, tolerance))
    sums = _trapezoid(nodes, arb(lowest), step, tolerance)
    here, below = arb_series(sums[:3]), arb_series(sums[3:])
    return here.log() - top + EULER * centre - arb(2).log(), below / here


def _hyp0f1(b: arb, z: arb) -> arb_series:
    """``0F1(; b + e; z)`` as a series in ``e``, with Arb's rigorous bound."""
    value = acb_series.hypgeom([], [acb_series([b, 1])], acb_series([z]))
    return arb_series([value[n].real for n in range(3)])


def _series_is_short(b: arb, z: arb, tolerance: int) -> bool:
    """Whether 0F1 needs few terms; if not, ``2 sqrt(z)`` is so large that the integral converges."""
    return bool(z < 100 * b) or bool(4 * z < tolerance**2)


def _gaussian_step(v: arb, x: arb, tolerance: int) -> float:
    """A step at which ``exp(-s t^2/2)``, ``s = hypot(v, x)``, sums to half the tolerance's digits."""
    return 2 * math.pi / math.sqrt(math.hypot(float(v), float(x)) * tolerance * math.log(2))


def _trapezoid(
    nodes: Callable[[arb, arb], Iterator[list[arb]]], start: arb, first_step: float, tolerance: int
) -> list[arb]:
    """Integrals of the terms that ``nodes(start, step)`` yields, each with its error as radius."""

    def total(start: arb, step: arb) -> tuple[list[arb], list[arb]]:
        rows = list(nodes(start, step))
        columns = list(zip(*rows, strict=True))
        return [sum(c) * step for c in columns], [sum(map(abs, c)) * step for c in columns]

    step, accepted = arb(first_step), arb(2) ** (-tolerance / 2)
    sums, sizes = total(start, step)
    while True:
        between, more = total(start + step / 2, step)
        moved = [abs(b - a) / 2 for a, b in zip(sums, between, strict=True)]
        sums = [(a + b) / 2 for a, b in zip(sums, between, strict=True)]
        sizes = [(a + b) / 2 for a, b in zip(sizes, more, strict=True)]
        if all(y <= accepted * size for y, size in zip(moved, sizes, strict=True)):
            error = arb(0, accepted**2)
            return [y + error * size for y, size in zip(sums, sizes, strict=True)]
        step /= 2


def _saddle(v: arb, x: arb) -> tuple[arb, arb]:
    """The point ``asinh(v/x)`` where ``x cosh t - v t`` is stationary, and its value there."""
    centre = (v / x).asinh()
    return centre, (v * v + x * x).sqrt() - v * centre


def _support(v: float, x: float, side: int, tolerance: int) -> float:
    """Where ``exp(v t - x cosh t)`` has fallen by the tolerance, left or right of its peak."""
    peak = math.asinh(v / x)
    height = v * peak - math.hypot(v, x)
    drop = (tolerance + 20) * math.log(2)
    near, far = 0.0, 1.0

    def inside(distance: float) -> bool:
        t = peak + side * distance
        return v * t - x * math.cosh(t) > height - drop

    while inside(far):
        near, far = far, 2 * far
    for _ in range(20):
        middle = (near + far) / 2
        near, far = (middle, far) if inside(middle) else (near, middle)
    return peak + side * far
