"""Distances between samples of torch tensors: any device, with gradients.

Sums over pairs run in the Rust kernels for tensors on the CPU, and in their twins here elsewhere,
block by block: neither holds a matrix of pairs. Wasserstein distances are plain torch operations on
points whose coupling is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, is_grad_enabled

# Private, but the only way to ask; see `pyprobe._autograd`.
from torch._C import _are_functorch_transforms_active as _are_transforms_active
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from pyprobe import _core
from pyprobe._autograd import check_one_by_one, is_plain, is_tracing
from pyprobe._engine import kernels
from pyprobe.errors import DomainError, NotFiniteError, PyprobeError, ShapeError
from pyprobe.metrics import _numpy
from pyprobe.metrics._numpy import (
    Coupling,
    check_sums,
    projections_at_a_time,
    quantile_coupling,
    spread_rows,
)

__all__ = [
    "as_floats",
    "as_weights",
    "check_finite",
    "exact_distance",
    "median_distance",
    "pair_sums",
    "projected_distances",
    "result",
    "twin_gradient",
    "twin_sums",
    "weighted_norm",
]

_COMPUTED = (torch.float64, torch.float32)
_BLOCK = 1 << 23
"""Pairs whose distances the twins hold at a time."""


def as_floats(x: Any, y: Any) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return both as tensors of one dtype to compute in, and the dtype of the result."""
    tensor = x if isinstance(x, Tensor) else y
    x, y = (torch.as_tensor(value, device=tensor.device) for value in (x, y))
    for name, value in (("x", x), ("y", y)):
        if value.is_complex():
            raise TypeError(f"'{name}' must hold real numbers; got dtype {value.dtype}.")
    dtype = torch.promote_types(x.dtype, y.dtype)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    compute = dtype if dtype in _COMPUTED else torch.float32
    return x.to(compute), y.to(compute), dtype


def as_weights(name: str, weights: Any, points: Tensor) -> Tensor:
    """Return weights that add up to 1; equal ones for None."""
    n = len(points)
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=points.device)
    if not isinstance(weights, Tensor) or weights.shape != (n,):
        shape = tuple(getattr(weights, "shape", ()))
        raise ShapeError(f"'{name}' must have shape ({n},), one weight a point; got {shape}.")
    if weights.is_complex():
        raise TypeError(f"'{name}' must hold real numbers; got dtype {weights.dtype}.")
    w = weights.double()
    check_finite(name, w)
    if (w < 0).any():
        index = int(w.argmin())
        raise DomainError(f"'{name}' must be nonnegative; got {float(w[index])} at index {index}.")
    if not w.any():
        raise DomainError(f"'{name}' must not be all zero.")
    w = w / w.detach().max()
    return w / w.sum()


def check_finite(name: str, points: Tensor) -> None:
    """Raise `NotFiniteError` where an entry is infinite or NaN."""
    bad = ~points.detach().isfinite()
    if not bad.any():
        return
    count = int(bad.sum())
    first = tuple(bad.nonzero()[0].tolist())
    raise NotFiniteError(
        f"'{name}' must be finite; got {count} infinite or NaN "
        f"{'entry' if count == 1 else 'entries'}, the first ({float(points[first])}) at index "
        f"{first[0] if len(first) == 1 else first}."
    )


def result(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a number in the type of the tensors that came."""
    return value.to(dtype)


def median_distance(x: Tensor, y: Tensor) -> float:
    """Return the median distance between rows spread evenly over the two samples, pooled."""
    i, j = (torch.from_numpy(rows).to(x.device) for rows in spread_rows(len(x), len(y)))
    pooled = torch.cat([x.detach()[i], y.detach()[j]]).double()
    if len(pooled) < 2:
        return 0.0
    return float(torch.nn.functional.pdist(pooled).quantile(0.5))


# Sums over pairs.


def pair_sums(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, kernel: tuple[int, float]
) -> tuple[Tensor, ...]:
    """Return the weighted sums of a kernel over the pairs within x, within y and between them.

    A point does not make a pair with itself.
    """
    _refuse_tracing()
    inputs = (x, y, a, b)
    if is_plain(inputs):
        return _sums(kernel, *inputs).unbind()
    _refuse_transforms(inputs, "sums over pairs of points have no such rule.")
    sums: Tensor = _PairSums.apply(kernel, *inputs)
    return sums.unbind()


class _PairSums(torch.autograd.Function):
    """The three sums, with their first derivatives."""

    @staticmethod
    def forward(ctx: Any, kernel: tuple[int, float], *inputs: Tensor) -> Tensor:
        ctx.kernel = kernel
        ctx.save_for_backward(*inputs)
        return _sums(kernel, *inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        check_one_by_one("sums over pairs of points", grad)
        x, y, a, b = inputs = ctx.saved_tensors
        _, need_x, need_y, need_a, need_b = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * 4
        with torch.no_grad():
            within_x, within_y, between = grad.tolist()
            if need_x or need_a:
                found[0], found[2] = _gradient(ctx.kernel, x, a, y, b, within_x, between)
            if need_y or need_b:
                found[1], found[3] = _gradient(ctx.kernel, y, b, x, a, within_y, between)
        if is_grad_enabled():
            found = [t if t is None else _Once.apply(t, grad, *inputs) for t in found]
        return None, *found


class _Once(torch.autograd.Function):
    """A gradient that depends on the other arguments, but whose own derivative is not known."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *others: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # noqa: ARG004
        raise PyprobeError(
            "sums over pairs of points are differentiable once: there is no second derivative of "
            "energy_distance or mmd. sliced_wasserstein has one."
        )


def _refuse_tracing() -> None:
    """Raise where a tracer looks on; torch.compile then leaves the calling function as it is."""
    if is_compiling() or is_tracing():
        raise PyprobeError(
            "this distance cannot be traced. Call it outside of the traced function, or let "
            "torch.compile break the graph there (fullgraph=False)."
        )


def _refuse_transforms(inputs: tuple[Tensor, ...], why: str) -> None:
    """Raise where something other than reverse mode looks into the computation."""
    dual = forward_ad._current_level >= 0 and any(  # noqa: SLF001
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in inputs
    )
    if dual or _are_transforms_active():
        raise PyprobeError(
            f"this distance is differentiated by torch's reverse mode alone: {why} Use "
            "torch.autograd.grad or backward() in place of forward mode and torch.func."
        )


def _sums(kernel: tuple[int, float], x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    _refuse_tracing()
    if x.is_cpu:
        points, weights = (_view(x), _view(y)), (_view(a), _view(b))
        sums = torch.tensor(_core.pair_sums(points, weights, *kernel), dtype=torch.float64)
    else:
        sums = twin_sums(kernel, x, y, a, b)
    check_sums(sums.tolist())
    return sums


def _gradient(
    kernel: tuple[int, float],
    x: Tensor,
    a: Tensor,
    y: Tensor,
    b: Tensor,
    within: float,
    between: float,
) -> tuple[Tensor, Tensor]:
    """Return the derivative of within * xx + between * xy in `x` and in `a`."""
    _refuse_tracing()
    if not x.is_cpu:
        return twin_gradient(kernel, x, a, y, b, within, between)
    points, weights = (_view(x), _view(y)), (_view(a), _view(b))
    found = _core.pair_sums_gradient(points, weights, *kernel, within, between)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _view(tensor: Tensor) -> Any:
    _refuse_tracing()
    # `force` drops what autograd knows and resolves the lazy negation of a view; no copy otherwise.
    return tensor.numpy(force=True)


@torch.no_grad()
def twin_sums(kernel: tuple[int, float], x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the three sums, on any device."""
    sums = x.new_zeros(3, dtype=torch.float64)
    fused = _kernels(kernel, x, y)
    # x and y may be one tensor: the last pair of samples is told by its place.
    for index, (first, second, v, w) in enumerate([(x, x, a, a), (y, y, b, b), (x, y, a, b)]):
        if fused is not None:
            values = fused.row_sums(kernel, first, second, w, same=index < 2, slopes=False)[0]
            sums[index] = v @ values
            continue
        for rows in _blocks(len(first), len(second)):
            values = _value(kernel, _distances(first[rows], second)).double()
            if index < 2:
                values.diagonal(rows.start).zero_()
            sums[index] += v[rows] @ (values @ w)
    return sums


@torch.no_grad()
def twin_gradient(
    kernel: tuple[int, float],
    x: Tensor,
    a: Tensor,
    y: Tensor,
    b: Tensor,
    within: float,
    between: float,
) -> tuple[Tensor, Tensor]:
    """Return the derivative of within * xx + between * xy in `x` and in `a`, on any device."""
    gradient = torch.zeros_like(x, dtype=torch.float64)
    potential = torch.zeros_like(a)
    fused = _kernels(kernel, x, y)
    if fused is not None and x.shape[1] > fused.MOST_SLOPES:
        fused = None
    for itself, other, w, factor in ((True, x, a, 2 * within), (False, y, b, between)):
        if fused is not None:
            values, pulls = fused.row_sums(kernel, x, other, w, same=itself, slopes=True)
            potential += factor * values
            gradient += factor * pulls
            continue
        for rows in _blocks(len(x), len(other)):
            r = _distances(x[rows], other)
            values = _value(kernel, r).double()
            slopes = factor * w * _slope(kernel, r).double()
            if itself:
                values.diagonal(rows.start).zero_()
            potential[rows] += factor * (values @ w)
            # In float64, where the terms of near points keep their digits as they cancel.
            gradient[rows] += slopes.sum(1, keepdim=True) * x[rows].double()
            gradient[rows] -= slopes @ other.double()
    return (a[:, None] * gradient).to(x.dtype), potential


def _kernels(kernel: tuple[int, float], x: Tensor, y: Tensor) -> Any:
    """Return the module of fused kernels where they run, and where the bandwidth has a square."""
    if not 1e-150 < kernel[1] < 1e150:
        return None
    return kernels("pyprobe.metrics._triton", x.device, max(x.numel(), y.numel()))


def _blocks(n: int, m: int) -> Iterator[slice]:
    size = max(1, _BLOCK // m)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # By differences: the matrix product loses the digits of near points, and may run in TF32.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _value(kernel: tuple[int, float], r: Tensor) -> Tensor:
    number, h = kernel
    if number == 0:
        return r
    if number == 1:
        return (-0.5 * (r / h) ** 2).exp()
    if number == 2:
        return (-r / h).exp()
    return (1 + (r / h) ** 2).rsqrt()


def _slope(kernel: tuple[int, float], r: Tensor) -> Tensor:
    """Return the factor c of the gradient c (x - y) in x; 0 where the points coincide."""
    number, h = kernel
    if number == 0:
        return torch.where(r > 0, 1 / r, 0.0)
    if number == 1:
        return -_value(kernel, r) / h**2
    if number == 2:
        return torch.where(r > 0, -_value(kernel, r) / (h * r), 0.0)
    return -(_value(kernel, r) ** 3) / h**2


# Wasserstein distances.


def weighted_norm(gaps: Tensor, mass: Any, p: float) -> Tensor:
    """Return the p-th root of the sum of mass times the p-th power, over the last axis."""
    largest = gaps.detach().amax(-1)
    check_sums([float(largest.max())])
    safe = torch.where(largest > 0, largest, 1.0)
    total = (mass * (gaps / safe.unsqueeze(-1)) ** p).sum(-1)
    # Where all is 0 the root has an infinite slope; the distance has the subgradient 0.
    return largest * torch.where(largest > 0, total, 1.0) ** (1 / p)


def _line_distances(x: Tensor, y: Tensor, coupling: Coupling, p: float) -> Tensor:
    """Return the Wasserstein distances of samples (..., n) and (..., m) on lines."""
    i, j, mass = _as_tensors(coupling, x.device)
    gaps = (x.sort(dim=-1).values[..., i] - y.sort(dim=-1).values[..., j]).abs()
    return weighted_norm(gaps, mass, p)


def projected_distances(x: Tensor, y: Tensor, lines: Any, p: float) -> Tensor:
    """Return the Wasserstein distances of the projections on each of the lines."""
    _refuse_tracing()
    coupling = quantile_coupling(len(x), len(y))
    x, y = x.double(), y.double()
    blocks = torch.from_numpy(lines).to(x.device).split(projections_at_a_time(len(x), len(y)))
    return torch.cat([_line_distances(u @ x.T, u @ y.T, coupling, p) for u in blocks])


def exact_distance(x: Tensor, y: Tensor, p: float) -> Tensor:
    """Return the Wasserstein distance of samples of equal weights."""
    _refuse_tracing()
    x, y = x.double(), y.double()
    if x.shape[1] == 1:
        return _line_distances(x[:, 0], y[:, 0], quantile_coupling(len(x), len(y)), p)
    _refuse_transforms((), "the coupling is found by a solver that sees numbers alone.")
    coupling = _numpy.optimal_coupling(_view(x), _view(y), p)
    i, j, mass = _as_tensors(coupling, x.device)
    difference = x[i] - y[j]
    # The norm's slope at 0 is NaN once it is differentiated twice: equal points are taken out.
    apart = (difference != 0).any(-1)
    safe = torch.where(apart.unsqueeze(-1), difference, 1.0)
    return weighted_norm(torch.where(apart, safe.square().sum(-1).sqrt(), 0.0), mass, p)


def _as_tensors(coupling: Coupling, device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in coupling]
