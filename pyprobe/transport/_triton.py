"""The logarithms of row sums in one kernel, for GPUs that Triton compiles for.

The floor of an iteration is its exponentials: of clouds no matrix is formed, and a matrix of costs
is read once. In operations of torch each block of it would be written and read about ten times.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyprobe.transport._torch_points import Points

__all__ = ["log_sums", "runs_on"]

ROWS, COLUMNS = 32, 64
"""Entries that a program makes at once."""
PROGRAMS = 1024
"""So many at least, if there are columns enough to share: a GPU has about 130 processors."""
METRICS = {"matrix": 0, "sqeuclidean": 1, "euclidean": 2, "cityblock": 3}


@triton.jit(do_not_specialize=("n", "m", "width"))
def _log_sums_kernel(
    x,
    y,
    gamma,
    out,
    n,
    m,
    width,
    of_row,
    of_column,
    scale,
    METRIC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write ``log sum_j exp(gamma_j - scale C_ij)`` over `width` columns."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * width
    last = tl.minimum(first + width, m)
    inside = i < n
    high = tl.full((ROWS,), float("-inf"), tl.float64)
    total = tl.zeros((ROWS,), tl.float64)
    factor = tl.load(scale)  # a number passed as such would be rounded to float32
    for start in range(first, last, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        both = inside[:, None] & (j < last)[None, :]
        cost = tl.zeros((ROWS, COLUMNS), tl.float64)
        if METRIC == 0:
            at = i.to(tl.int64)[:, None] * of_row + j.to(tl.int64)[None, :] * of_column
            cost += tl.load(x + at, mask=both, other=0.0)
        else:
            # Here the strides are the number of coordinates.
            for k in range(of_row):
                one = tl.load(x + i * of_row + k, mask=inside, other=0.0).to(tl.float64)
                two = tl.load(y + j * of_row + k, mask=j < last, other=0.0).to(tl.float64)
                difference = one[:, None] - two[None, :]
                if METRIC == 3:
                    cost += tl.abs(difference)
                else:
                    cost += difference * difference
            if METRIC == 2:
                cost = tl.sqrt(cost)
        other = tl.load(gamma + j, mask=j < last, other=float("-inf"))
        exponent = other[None, :] - cost * factor
        top = tl.maximum(high, tl.max(exponent, axis=1))
        shift = tl.where(top > float("-inf"), top, 0.0)
        total = total * tl.exp(high - shift) + tl.sum(tl.exp(exponent - shift[:, None]), axis=1)
        high = top
    shift = tl.where(high > float("-inf"), high, 0.0)
    tl.store(out + tl.program_id(1) * n + i, shift + tl.log(total), mask=inside)


def log_sums(cost: Tensor | Points, epsilon: float, gamma: Tensor) -> Tensor:
    """Return ``log sum_j exp(gamma_j - C_ij / epsilon)`` in float64."""
    n, m = cost.shape
    blocks = triton.cdiv(n, ROWS)
    shares = min(triton.cdiv(PROGRAMS, blocks), triton.cdiv(m, COLUMNS))
    width = COLUMNS * triton.cdiv(triton.cdiv(m, shares), COLUMNS)
    shares = triton.cdiv(m, width)
    out = gamma.new_empty((shares, n))
    if isinstance(cost, Points):
        x, y, metric = cost.x.contiguous(), cost.y.contiguous(), cost.metric
        strides = (x.shape[1], x.shape[1])
    else:
        x, y, metric, strides = cost, cost, "matrix", (cost.stride(0), cost.stride(1))
    with torch.cuda.device_of(gamma):
        _log_sums_kernel[(blocks, shares)](
            *(
                x,
                y,
                gamma.contiguous(),
                out,
                n,
                m,
                width,
                *strides,
                gamma.new_full((), 1 / epsilon),
            ),
            METRIC=METRICS[metric],
            ROWS=ROWS,
            COLUMNS=COLUMNS,
        )
    return out[0] if shares == 1 else out.logsumexp(0)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether kernels can be compiled for a device: that needs a C compiler, too."""
    ones = torch.ones((2, 1), dtype=torch.float64, device=device)
    try:
        found = log_sums(Points(ones, ones, "sqeuclidean"), 1.0, ones[:, 0])
    except Exception:  # of whatever kind: torch's own operations do it without
        return False
    return bool((found - (1 + math.log(2))).abs().max() < 1e-12)
