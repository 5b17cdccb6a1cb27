"""Sums of a kernel over pairs of points in one pass, for GPUs that Triton compiles for."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyprobe._triton import (
    LAUNCH,
    MOST_SLOPES,
    STEP,
    THREADS,
    accumulate,
    difference_within,
    shares,
    sums_and_slopes,
)

__all__ = ["MOST_SLOPES", "row_sums", "works_on"]


@triton.jit(do_not_specialize=("n", "m", "width", "coordinate"))
def _sums(
    x,
    y,
    w,
    out,
    n,
    m,
    width,
    coordinate,
    bandwidth,
    D: tl.constexpr,
    KERNEL: tl.constexpr,
    SAME: tl.constexpr,
    SLOPES: tl.constexpr,
    THREADS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Write sums over `width` columns of the kernel times weights, and of three slopes times them.

    These are of a coordinate and the next two of the rows' points. With `SAME` a point makes no
    pair with itself.
    """
    i = tl.program_id(0) * THREADS + tl.arange(0, THREADS)
    first = tl.program_id(1) * width
    last = tl.minimum(first + width, m)
    inside = i < n
    values = tl.zeros((THREADS,), tl.float64)
    pull_0 = tl.zeros((THREADS,), tl.float64)
    pull_1 = tl.zeros((THREADS,), tl.float64)
    pull_2 = tl.zeros((THREADS,), tl.float64)
    h = tl.load(bandwidth)  # a number passed as such would be rounded to float32
    for start in range(first, last, STEP):
        for step in tl.static_range(STEP):
            j = start + step
            used = j < last
            squared = accumulate(x, y, i, j, n, inside, used, D, 2)
            weight = tl.load(w + j, mask=used, other=0.0)
            if KERNEL == 0:
                value = tl.sqrt(squared)
                slope = tl.where(squared > 0, 1.0 / tl.where(squared > 0, value, 1.0), 0.0)
            elif KERNEL == 1:
                value = tl.exp(-0.5 * squared / (h * h))
                slope = -value / (h * h)
            elif KERNEL == 2:
                r = tl.sqrt(squared)
                value = tl.exp(-r / h)
                slope = tl.where(squared > 0, -value / (h * tl.where(squared > 0, r, 1.0)), 0.0)
            else:
                value = 1.0 / tl.sqrt(1.0 + squared / (h * h))
                slope = -value * value * value / (h * h)
            if SAME:
                value = tl.where(i == j, 0.0, value)
            values += weight * value
            slope = weight * slope
            if SLOPES:
                pull_0 += slope * difference_within(x, y, i, j, n, inside, used, coordinate, D)
                pull_1 += slope * difference_within(x, y, i, j, n, inside, used, coordinate + 1, D)
                pull_2 += slope * difference_within(x, y, i, j, n, inside, used, coordinate + 2, D)
    at = out + tl.program_id(1) * 4 * n + i
    tl.store(at, values, mask=inside)
    tl.store(at + n, pull_0, mask=inside)
    tl.store(at + 2 * n, pull_1, mask=inside)
    tl.store(at + 3 * n, pull_2, mask=inside)


def row_sums(
    kernel: tuple[int, float], x: Tensor, y: Tensor, w: Tensor, *, same: bool, slopes: bool
) -> tuple[Tensor, Tensor]:
    """Return ``sum_j w_j k(x_i, y_j)``, shape (n,), and its derivative in x_i, shape (n, d).

    In float64, whatever the points are. With `same`, x and y are one sample. Without `slopes` the
    derivative is empty.
    """
    (n, d), m = x.shape, len(y)
    number, h = kernel
    grid, width = shares(n, m)
    bandwidth = w.new_full((), h)
    # Signs that torch has only taken note of are not seen by kernels.
    x, y, w = (t.contiguous().resolve_neg() for t in (x.T, y, w))
    constants = {"D": d, "KERNEL": number, "SAME": same, "SLOPES": slopes}
    constants |= {"THREADS": THREADS, "STEP": STEP}

    def launch(out: Tensor, coordinate: int) -> None:
        sizes = n, m, width, coordinate
        _sums[grid](x, y, w, out, *sizes, bandwidth, **constants, **LAUNCH)

    with torch.cuda.device_of(x):
        (values,), pulls = sums_and_slopes(launch, bandwidth, 1, grid[1], (n, d), slopes=slopes)
    return values, pulls


def works_on(device: torch.device) -> bool:
    """Whether the kernel can be compiled for a device, and sums right: may raise anything."""
    x = torch.tensor([[0.0], [3.0]], dtype=torch.float64, device=device)
    values, slopes = row_sums((0, 1.0), x, x, torch.ones_like(x[:, 0]), same=True, slopes=True)
    found = torch.cat([values, slopes[:, 0]])
    expected = torch.tensor([3.0, 3.0, -1.0, 1.0], dtype=torch.float64, device=device)
    return bool(((found - expected).abs() < 1e-12).all())
