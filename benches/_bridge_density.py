"""Part h of the benchmark of bridges: log-densities of ends and their gradients."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from _timing import interleave, markdown

from pyprobe.transport import LightSchrodingerBridge

__all__ = ["densities"]

SIZES = (
    *product(("diag",), (2, 16, 64), (5, 10, 50)),
    *product(("full",), (2, 16), (5, 10, 50)),
    ("full", 64, 5),  # torch takes minutes for more
)
N, BLOCK = 10_000, 500
"""Rows, and how many of them torch's mixture takes at once: all would not fit any cache."""
EPSILON = 0.125


def bridge_of(kind: str, dim: int, n: int) -> LightSchrodingerBridge:
    rng = np.random.default_rng(dim + n)
    scales = np.exp(rng.normal(size=(n, dim)) - 1)
    if kind == "full":
        axes = np.linalg.qr(rng.normal(size=(n, dim, dim)))[0]
        scales = (axes * scales[:, None, :]) @ axes.transpose(0, 2, 1)
        scales = (scales + scales.transpose(0, 2, 1)) / 2
    return LightSchrodingerBridge(
        log_weights=rng.normal(size=n),
        shifts=rng.normal(size=(n, dim)),
        scales=scales,
        epsilon=EPSILON,
    )


def mixture_of(bridge: LightSchrodingerBridge) -> Callable[[Any, Any], Any]:
    """The paper's conditional law by torch's own distributions, for diagonal or full scales."""
    import torch
    from torch import distributions as d

    logits, shifts, scales = map(torch.tensor, (bridge.log_weights, bridge.shifts, bridge.scales))
    is_full = scales.ndim == 3
    covariances = EPSILON * scales
    factors = torch.linalg.cholesky(covariances) if is_full else covariances.sqrt()
    stacked = scales.reshape(-1, scales.shape[-1]).T if is_full else None

    def log_prob(x1: Any, x0: Any) -> Any:
        moved = (x0 @ stacked).reshape(-1, *shifts.shape) if is_full else x0[:, None] * scales
        tilts = ((moved * x0[:, None]).sum(-1) + 2 * x0 @ shifts.T) / (2 * EPSILON)
        if is_full:
            parts: Any = d.MultivariateNormal(
                moved + shifts, scale_tril=factors, validate_args=False
            )
        else:
            parts = d.Independent(d.Normal(moved + shifts, factors, validate_args=False), 1)
        weights = d.Categorical(logits=logits + tilts, validate_args=False)
        return d.MixtureSameFamily(weights, parts, validate_args=False).log_prob(x1)

    return log_prob


def densities() -> str:
    rows = []
    for kind, dim, n in SIZES:
        figures = measure(kind, dim, n)
        print(kind, dim, n, figures, flush=True)
        rows.append([kind, dim, n])
        for what in ("value", "one start", "gradients"):
            ours, theirs = figures[what], figures[f"torch, {what}"]
            rows[-1] += [ours, theirs, f"**{theirs / ours:.3g}**"]
    head = ["scales", "d", "components"]
    for what in ("a start each", "one start", "with gradients"):
        head += [f"us a row, ours, {what}", "torch", "torch / ours"]
    return (
        f"### Log-densities of ends\n\nOf {N} ends, float64: `log_prob` given a start for each, or "
        "one for all, and with the gradients in both (through autograd on both sides). Beside it "
        "the same law as a `MixtureSameFamily` of torch, made from the formulas of the paper, "
        f"{BLOCK} rows at a time.\n\n" + markdown(head, rows)
    )


def measure(kind: str, dim: int, n: int) -> dict[str, float]:
    """Median processor time a row, in microseconds, of calls that take turns."""
    import torch

    bridge, rng = bridge_of(kind, dim, n), np.random.default_rng(0)
    x0 = 0.5 * rng.normal(size=(N, dim))
    x1 = bridge.sample(x0, rng=1)
    plain = mixture_of(bridge)
    pair = tuple(torch.tensor(x) for x in (x1, x0))
    blocks = list(zip(*(x.split(BLOCK) for x in pair), strict=True))
    tracked = tuple(x.clone().requires_grad_() for x in pair)
    followed = [tuple(x.clone().requires_grad_() for x in block) for block in blocks]
    found = torch.cat([plain(*block) for block in blocks]).numpy()
    np.testing.assert_allclose(bridge.log_prob(x1, given=x0), found, rtol=1e-9, atol=1e-9)
    calls: dict[str, Callable[[], Any]] = {
        "value": lambda: bridge.log_prob(x1, given=x0),
        "torch, value": lambda: [plain(*block) for block in blocks],
        "one start": lambda: bridge.log_prob(x1, given=x0[:1]),
        "torch, one start": lambda: [plain(one, pair[1][:1]) for one, _ in blocks],
        "gradients": lambda: torch.autograd.grad(
            bridge.log_prob(tracked[0], given=tracked[1]).sum(), tracked
        ),
        "torch, gradients": lambda: [
            torch.autograd.grad(plain(*block).sum(), block) for block in followed
        ],
    }
    timings = interleave(calls, rounds=3)
    return {name: 1e6 * statistics.median(one.cpu) / N for name, one in timings.items()}
