"""Kernels over pairs of points, for GPUs that Triton compiles for: what those of two domains share.

Every thread has a row and sees its columns one after the other, so that nothing is passed between
threads, and the result does not hang on the order in which programs run. Where there are few rows
the columns are shared out among programs, and the shares are put together afterwards.

Triton comes with torch on Linux. It wants a C compiler, too: `runs_on` says whether it can work.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["STEP", "THREADS", "accumulate", "runs_on", "shares"]

THREADS, STEP = 128, 4
"""Rows that a program has, and columns that it sees at once."""
_PROGRAMS = 2048
"""So many at least, if there are columns enough: a GPU has about 130 processors."""
_UNROLLED = tl.constexpr(8)


@triton.jit
def accumulate(x, y, i, j, n, inside, used, D: tl.constexpr, P: tl.constexpr):
    """Return the sums over D coordinates of the differences, their P-th powers, P = 1 or 2.

    `x` has the coordinates of points `i` in rows of length n, `y` those of point `j` together.
    """
    total = tl.zeros_like(i).to(tl.float64)
    if D <= _UNROLLED:
        for k in tl.static_range(D):
            total += _power(difference(x, y, i, j, n, inside, used, k, D), P)
    else:
        for k in range(D):
            total += _power(difference(x, y, i, j, n, inside, used, k, D), P)
    return total


@triton.jit
def difference(x, y, i, j, n, inside, used, k, D: tl.constexpr):
    """Return the difference of points `i` and point `j` in coordinate k, in float64."""
    one = tl.load(x + k * n + i, mask=inside, other=0.0).to(tl.float64)
    return one - tl.load(y + j * D + k, mask=used, other=0.0)


@triton.jit
def _power(value, P: tl.constexpr):
    return tl.abs(value) if P == 1 else value * value


def shares(n: int, m: int, rows: int = THREADS, columns: int = STEP) -> tuple[tuple[int, int], int]:
    """Return the programs for rows and for columns, and how many columns each of these has."""
    blocks = triton.cdiv(n, rows)
    most = min(triton.cdiv(_PROGRAMS, blocks), triton.cdiv(m, columns))
    width = columns * triton.cdiv(triton.cdiv(m, most), columns)
    return (blocks, triton.cdiv(m, width)), width


@triton.jit
def _add_one(x, n, THREADS: tl.constexpr):
    i = tl.arange(0, THREADS)
    tl.store(x + i, tl.load(x + i, mask=i < n, other=0.0) + 1.0, mask=i < n)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether kernels can be compiled for a device."""
    found: Tensor = torch.ones(3, dtype=torch.float64, device=device)
    try:
        with torch.cuda.device_of(found):
            _add_one[(1,)](found, 3, THREADS=THREADS)
    except Exception:  # of whatever kind: torch's own operations do it without
        return False
    return found.tolist() == [2.0, 2.0, 2.0]
