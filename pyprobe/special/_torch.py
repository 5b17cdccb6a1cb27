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
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from pyprobe.special._kernels import (
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    LOG_HYP0F1,
    LOG_KV,
    LOG_KVE,
    LOG_MATERN,
    Function,
)
from pyprobe.special._torch_edge import edge
from pyprobe.special._torch_jet import Partials
from pyprobe.special._torch_large import large_s, reduced
from pyprobe.special._torch_small_i import small_i
from pyprobe.special._torch_small_k import TEMME, small_k, temme, trapezoid

__all__ = ["bessel", "bessel_ratio_inverse"]

INF = math.inf
_LARGE = 22.0
"""From this s on the expansion in 1/s serves."""
_TERMS = ((_LARGE, 24), (40.0, 14), (300.0, 7))
"""Lower ends of the bins of s, with the terms that leave less than 1e-16 there."""


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


Formula: TypeAlias = Callable[[int, Tensor, Tensor], Partials]


def _regions(function: Function, v: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Formula]]:
    """Yield the elements that share a formula, and the formula of (order, v, x)."""
    is_k = function in (LOG_KV, LOG_KVE)
    nu = v.abs() if is_k else v - 1 if function is LOG_HYP0F1 else v
    z = 2 * x.sqrt() if function is LOG_HYP0F1 else x
    inside = v > 0 if function in (LOG_HYP0F1, LOG_MATERN) else nu >= 0
    inside &= (z > 0) & (nu < INF) & (z < INF)
    s = torch.hypot(nu, z)
    yield ~inside, lambda _, v, x: edge(function, v, x)
    small, large = inside & (s < _LARGE), inside & (s >= _LARGE)
    if function is LOG_HYP0F1:
        large, near_zero = large & (x > v), large & (x <= v)
        yield near_zero, _hyp0f1_near_zero
    if is_k or function is LOG_MATERN:
        yield small & (z < TEMME), lambda o, v, x: small_k(function, o, v, x, temme)
        yield small & (z >= TEMME), lambda o, v, x: small_k(function, o, v, x, trapezoid)
    else:
        yield small, lambda o, v, x: small_i(function, o, v, x)
    for n, (low, terms) in enumerate(_TERMS):
        high = _TERMS[n + 1][0] if n + 1 < len(_TERMS) else INF
        region = large & (s >= low) & ((s < high) | (high == INF))
        yield region, partial(large_s, function, terms)


def _hyp0f1_near_zero(order: int, b: Tensor, z: Tensor) -> Partials:
    """Sum the power series where the expansion's terms cancel, but for the curvature in z."""
    series = small_i(LOG_HYP0F1, order, b, z)
    return series._replace(xx=reduced(1.0, b, 2 * z.sqrt(), _TERMS[0][1]).xx)


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
