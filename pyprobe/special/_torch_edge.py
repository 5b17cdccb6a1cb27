"""Limits of the special functions at 0 and at infinity, and NaN outside of their domain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

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
from pyprobe.special._torch_gamma import log_gamma
from pyprobe.special._torch_jet import Partials, complement, even

__all__ = ["edge"]

INF = math.inf

Row: TypeAlias = tuple[Tensor | float, ...]
"""f, f_v, f_x, f_vv, f_vx, f_xx."""


def edge(function: Function, v: Tensor, x: Tensor) -> Partials:
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
        p = complement(p, 1 - p.f)
    return even(p, v) if is_k else p


def _edge_i(v: Tensor, x: Tensor) -> tuple[Row, Row, Row]:
    flat = v == 0  # (x/2)^v / Gamma(v+1), and 1 + x^2/4 for v = 0
    vv = -log_gamma(v.clamp(max=1e9) + 1)[2]
    f, slope = torch.where(flat, 0.0, -INF), torch.where(flat, 0.0, INF)
    at_zero = (f, -INF, slope, vv, INF, torch.where(flat, 0.5, -INF))
    return at_zero, (-INF, -INF, INF, 0.0, 1 / x, -INF), (INF, 0.0, 1.0, 0.0, 0.0, 0.0)


def _edge_k(v: Tensor, x: Tensor) -> tuple[Row, Row, Row]:
    flat = v == 0  # Gamma(v) (x/2)^-v / 2, even in v
    vv = torch.where(flat, INF, log_gamma(v.clamp(1e-300, 1e9))[2])
    at_zero = (INF, torch.where(flat, 0.0, INF), -INF, vv, torch.where(flat, 0.0, -INF), INF)
    return at_zero, (INF, INF, -INF, 0.0, -1 / x, INF), (-INF, 0.0, -1.0, 0.0, 0.0, 0.0)


def _edge_ratio(v: Tensor, _: Tensor) -> tuple[Row, Row, Row]:
    slope = 0.5 / (v + 1)  # x / (2v + 2)
    at_zero = (0.0, 0.0, slope, 0.0, -slope / (v + 1), 0.0)
    return at_zero, (0.0,) * 6, (1.0, *(0.0,) * 5)


def _edge_hyp0f1(b: Tensor, _: Tensor) -> tuple[Row, Row, Row]:
    slope = 1 / b  # z/b - z^2 / (2 b^2 (b + 1))
    vx = -slope * slope
    at_end = (INF, -INF, 0.0, log_gamma(b.clamp(1e-300, 1e9))[2], 0.0, 0.0)
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
    at_end = (-INF, INF, -1.0, -log_gamma(nu.clamp(1e-300, 1e9))[2], 0.0, 0.0)
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
