"""The random streams of the kernels, made of torch on any device: the columns of sketches.

A stream is ChaCha with 8 rounds (Bernstein 2008), a function of its key, its number and a counter:
sums, exclusive ors and shifts of 32-bit words, which are the same everywhere. So a seed gives the
same sparse sketch as on the CPU, and the same normals up to the rounding of their logarithms, and
nothing comes over from the host.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["normal_columns", "random_signs", "sparse_columns"]

_WORD = (1 << 32) - 1
_GROUP = 64
"""Columns of a sparse sketch whose places come from one stream."""


def sparse_columns(
    shape: tuple[int, int], key: int, start: int, stop: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return places and signs of the entries of columns of a sparse sketch.

    `shape` is that of m rows and z entries a column; both results have z numbers for every column.
    """
    m, z = shape
    first = start // _GROUP
    groups = torch.arange(first, -(-stop // _GROUP), device=device)
    low, high = (
        half.reshape(-1, z)[start - first * _GROUP : stop - first * _GROUP]
        for half in _words(key, groups, _GROUP * z)
    )
    places = torch.empty_like(low)
    # Floyd's algorithm: every set of places is equally likely.
    for j, last in enumerate(range(m - z, m)):
        # The high half of a product with the upper 63 bits, which has 94 bits at most.
        rest = ((low[:, j] >> 1) * (last + 1)) >> 31
        drawn = (high[:, j] * (last + 1) + rest) >> 32
        taken = (places[:, :j] == drawn[:, None]).any(dim=1)
        places[:, j] = torch.where(taken, last, drawn)
    return places, (1 - 2 * (low & 1)).double()


def normal_columns(m: int, key: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return standard normals of shape (stop - start, m), a stream for every column of a sketch."""
    low, high = _words(key, torch.arange(start, stop, device=device), -(-m // 64) * 64)
    # Of 64 words the first half makes radii, the second angles (Box and Muller 1958).
    halves = ((high << 20) | (low >> 12)).double().reshape(len(low), -1, 2, 32)
    radius = torch.sqrt(-2 * torch.log((halves[:, :, 0] + 0.5) * 2.0**-52))
    angle = (halves[:, :, 1] * 2.0**-52 - 0.5) * (math.pi / 2)
    # An angle of a quarter circle; two bits reflect it in the diagonal and in the origin.
    bits = low.reshape(halves.shape)[:, :, 1]
    radius = radius * (1 - (bits & 2))
    pair = torch.stack([angle.cos(), angle.sin()])
    pair = radius * torch.where((bits & 1).bool(), pair.flip(0), pair)
    return pair.permute(1, 2, 0, 3).reshape(len(low), -1)[:, :m]


def random_signs(n: int, key: int, device: torch.device) -> Tensor:
    """Return the signs of `n` rows of an SRHT, each 1 or -1: a stream for 64 words of them."""
    halves = _words(key, torch.arange(-(-n // 4096), device=device), 64)
    bits = torch.stack(halves, dim=-1)[..., None] >> torch.arange(32, device=device)
    return (1 - 2 * (bits & 1)).double().reshape(-1)[:n]


def _words(key: int, streams: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the low and high halves of the first `n` words of 64 bits, of each of the streams."""
    n_batches = -(-n // 64)
    blocks = _blocks(key, streams, torch.arange(8 * n_batches, device=streams.device))
    # Eight blocks make a batch; words 2 k and 2 k + 1 of block l of it are the word 8 k + l.
    pairs = blocks.reshape(8, 2, len(streams), n_batches, 8).permute(1, 2, 3, 0, 4)
    low, high = pairs.reshape(2, len(streams), -1)[:, :, :n].long() & _WORD
    return low, high


def _blocks(key: int, streams: Tensor, counters: Tensor) -> Tensor:
    """Return the 16 words of blocks, in int32: shape (16, streams, counters)."""
    seed = [key >> shift & _WORD for shift in range(0, 128, 32)]
    # "expand 32-byte k", the seed, and a tag of zero; then what is not the same for all.
    fixed = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *seed, 0, 0, 0, 0]
    signed = [word - (word >> 31 << 32) for word in fixed]
    start = streams.new_empty((16, len(streams), len(counters)), dtype=torch.int32)
    start[:12] = torch.tensor(signed, dtype=torch.int32, device=start.device)[:, None, None]
    start[12:14] = counters.view(torch.int32).reshape(-1, 2).T[:, None, :]
    start[14:] = streams.view(torch.int32).reshape(-1, 2).T[:, :, None]
    p, q, r, s = start.clone().split(4)
    for _ in range(4):
        p, q, r, s = _quarter_rounds(p, q, r, s)
        p, q, r, s = _quarter_rounds(p, q.roll(-1, 0), r.roll(-2, 0), s.roll(-3, 0))
        q, r, s = q.roll(1, 0), r.roll(2, 0), s.roll(3, 0)
    return torch.cat([p, q, r, s]).add_(start)


def _quarter_rounds(
    p: Tensor, q: Tensor, r: Tensor, s: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four quarter rounds, side by side; sums of 32-bit integers wrap in torch."""
    for first, second in ((16, 12), (8, 7)):
        p = p + q
        s = _rotate(s ^ p, first)
        r = r + s
        q = _rotate(q ^ r, second)
    return p, q, r, s


def _rotate(x: Tensor, n: int) -> Tensor:
    # The shift to the right draws the sign along.
    return (x << n).bitwise_or_((x >> (32 - n)).bitwise_and_((1 << n) - 1))
