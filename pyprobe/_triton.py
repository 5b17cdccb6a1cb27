"""Kernels over pairs of points, for GPUs that Triton compiles for: what those of two domains share.

Every thread has a row and sees its columns one after the other, so that nothing is passed between
threads, and the result does not hang on the order in which programs run. Where there are few rows
the columns are shared out among programs, and the shares are put together afterwards.

Triton comes with torch on Linux. It wants a C compiler, too, and older ones may not know what newer
ones do: each module of kernels has a function ``works_on`` that tries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "LAUNCH",
    "MOST_SLOPES",
    "STEP",
    "THREADS",
    "accumulate",
    "difference_within",
    "shares",
    "sums_and_slopes",
]

THREADS, STEP = 128, 4
"""Rows that a program has, and columns that it sees at once."""
LAUNCH = {"num_warps": THREADS // 32, "enable_fp_fusion": True}
"""Options of a kernel whose programs have so many rows; products and sums may be fused."""
MOST_SLOPES = 16
"""Coordinates up to which slopes are summed by kernels: each three take all distances anew."""
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
def difference_within(x, y, i, j, n, inside, used, k, D: tl.constexpr):
    """As `difference`, of a coordinate that is a tensor; 0 behind the last."""
    last = tl.minimum(k, D - 1)
    return tl.where(k < D, difference(x, y, i, j, n, inside, used, last, D), 0.0)


@triton.jit
def _power(value, P: tl.constexpr):
    return tl.abs(value) if P == 1 else value * value


def shares(n: int, m: int, rows: int = THREADS, columns: int = STEP) -> tuple[tuple[int, int], int]:
    """Return the programs for rows and for columns, and how many columns each of these has."""
    blocks = triton.cdiv(n, rows)
    most = min(triton.cdiv(_PROGRAMS, blocks), triton.cdiv(m, columns))
    width = columns * triton.cdiv(triton.cdiv(m, most), columns)
    return (blocks, triton.cdiv(m, width)), width


def sums_and_slopes(
    launch: Callable[[Tensor, int], None],
    like: Tensor,
    n_sums: int,
    n_shares: int,
    shape: tuple[int, int],
    *,
    slopes: bool,
) -> tuple[list[Tensor], Tensor]:
    """Return sums over rows, (n,) each, and sums of slopes (n, d), of points of this shape.

    ``launch(out, coordinate)`` writes shares (n_shares, n_sums + 3, n): the sums, and those of the
    slopes in a coordinate and the next two. Without `slopes` these are not wanted.
    """
    (n, d), parts = shape, []
    for coordinate in range(0, d, 3) if slopes else (0,):
        out = like.new_empty((n_shares, n_sums + 3, n))
        launch(out, coordinate)
        parts.append(out.sum(0))
    pulls = torch.cat([part[n_sums:] for part in parts])[: d if slopes else 0]
    return list(parts[0][:n_sums]), pulls.T
