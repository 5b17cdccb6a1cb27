"""The torch twins of the mixture kernels: the same names and signatures, on any device.

``parameters`` are ``(directions, scale, offset)`` with logit_k(x) = scale_k <x, directions_k> +
offset_k, the directions a tensor of shape (d, k), the others NumPy vectors. `vmf_mixture_log_prob`
is differentiable in ``x``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyprobe.errors import DomainError, NotFiniteError

__all__ = [
    "as_float_tensor",
    "check_unit_rows",
    "spherical_seeds",
    "vmf_mixture_labels",
    "vmf_mixture_log_prob",
    "vmf_mixture_responsibilities",
    "vmf_mixture_step",
]

Vector: TypeAlias = npt.NDArray[np.float64]
Parameters: TypeAlias = tuple[Tensor, Vector, Vector]

_UNIT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_BLOCK = 1 << 16
"""Rows whose responsibilities are held at a time."""
_CARRIED = 1e-2 / torch.finfo(torch.float32).eps
"""The largest concentration whose product with the rounding of float32 stays below 0.01."""


def as_float_tensor(x: Tensor) -> Tensor:
    """Return `x` in float32 or float64: integers and other floats become float64."""
    if x.layout is not torch.strided:
        raise TypeError(
            f"a dense torch tensor is expected; got one of layout {x.layout}. Pass .to_dense(), or "
            "to a mixture a SciPy sparse matrix, which stays sparse."
        )
    if x.is_complex():
        raise TypeError(f"'x' must hold real numbers; got dtype {x.dtype}.")
    return x if x.dtype in _UNIT_TOLERANCE else x.double()


@torch.no_grad()
def vmf_mixture_step(
    x: Tensor, parameters: Parameters, hard: bool
) -> tuple[Tensor, Vector, Vector, Vector, float, int]:
    """Return resultants, their squared norms, counts, squared counts, log-likelihood, worst row."""
    k = len(parameters[1])
    resultants = torch.zeros(x.shape[1], k, dtype=torch.float64, device=x.device)
    counts = torch.zeros(2, k, dtype=torch.float64, device=x.device)
    values = []
    for block in _blocks(x, parameters):
        logits = _logits(block, parameters)
        if hard:
            value, winner = logits.max(dim=1)
            r = torch.nn.functional.one_hot(winner, k).double()
        else:
            value = torch.logsumexp(logits, dim=1)
            r = torch.softmax(logits, dim=1)
        values.append(value)
        counts += torch.stack([r.sum(0), r.square().sum(0)])
        resultants += (block.T @ r.to(block.dtype)).double()
    value = torch.cat(values)
    squared_norms = resultants.square().sum(0)
    n, squares = counts.cpu().numpy()
    return (
        resultants,
        squared_norms.cpu().numpy(),
        n,
        squares,
        float(value.sum()),
        int(value.argmin()),
    )


def vmf_mixture_log_prob(x: Tensor, parameters: Parameters) -> Tensor:
    """Return the log-density of every row, in float64."""
    return torch.cat(
        [torch.logsumexp(_logits(b, parameters), dim=1) for b in _blocks(x, parameters)]
    )


@torch.no_grad()
def vmf_mixture_responsibilities(x: Tensor, parameters: Parameters) -> Tensor:
    """Return the posterior probabilities of the components for every row, in float64."""
    return torch.cat([torch.softmax(_logits(b, parameters), dim=1) for b in _blocks(x, parameters)])


@torch.no_grad()
def vmf_mixture_labels(x: Tensor, parameters: Parameters) -> Tensor:
    """Return the likeliest component of every row."""
    return torch.cat([_logits(b, parameters).argmax(dim=1) for b in _blocks(x, parameters)])


@torch.no_grad()
def spherical_seeds(x: Tensor, k: int, n_rounds: int, key: int) -> list[int]:
    """Return rows that seed a clustering; the random numbers are not those of the kernel."""
    generator = np.random.default_rng(key)
    fresh = torch.as_tensor(generator.choice(len(x), k, replace=False), device=x.device)
    seeds = [fresh]
    closest = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for _ in range(1, n_rounds):
        cosine = torch.cat([(block @ x[fresh].T).amax(dim=1) for block in x.split(_BLOCK)])
        closest = torch.minimum(closest, (1 - cosine.double()).clamp_(min=0))
        closest[fresh] = 0
        sums = closest.cumsum(0)
        if not sums[-1] > 0:
            break
        targets = torch.as_tensor(generator.random(k), device=x.device) * sums[-1]
        fresh = torch.searchsorted(sums, targets, right=True).clamp_(max=len(x) - 1).unique()
        seeds.append(fresh)
    rows: list[int] = torch.cat(seeds).unique().tolist()
    return rows


@torch.no_grad()
def check_unit_rows(x: Tensor) -> None:
    """Raise unless every row of `x` is a unit vector."""
    norms = torch.linalg.vector_norm(x.double(), dim=1)
    bad = ~((norms - 1).abs() <= _UNIT_TOLERANCE[x.dtype])
    if not bad.any():
        return
    finite = torch.isfinite(x)
    if not finite.all():
        first = (~finite).nonzero()[0].tolist()
        raise NotFiniteError(
            f"'x' must be finite; entries that are infinite or NaN: {int((~finite).sum())}, the "
            f"first at row {first[0]}, column {first[1]}"
        )
    row = int(bad.nonzero()[0])
    raise DomainError(f"'x' must hold unit vectors: row {row} has norm {float(norms[row]):.6g}")


def _logits(x: Tensor, parameters: Parameters) -> Tensor:
    directions, *vectors = parameters
    # Copies: NumPy's vectors may be read-only, which tensors cannot be.
    scale, offset = (torch.tensor(vector, device=x.device) for vector in vectors)
    return (x @ directions.to(x.dtype)).double() * scale + offset


def _float32_is_whole(x: Tensor) -> bool:
    """Whether products of float32 keep its digits: torch may round them to TF32 or bfloat16."""
    if torch.is_autocast_enabled(x.device.type):
        return False
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # where it was set by torch's newer names, which this one cannot read
        return False


def _blocks(x: Tensor, parameters: Parameters) -> Iterator[Tensor]:
    """Yield blocks of rows in a precision that carries the concentrations.

    Where they are high that is float64, and the norms of the rows, which are off by rounding as the
    products would be, are divided out.
    """
    directions, scale, _ = parameters
    lengths = torch.linalg.vector_norm(directions.detach(), dim=0).cpu().numpy()
    carried = _float32_is_whole(x) and (np.abs(scale) * lengths).max() <= _CARRIED
    for block in x.split(_BLOCK):
        if carried:
            yield block
        else:
            norms = torch.linalg.vector_norm(block.detach().double(), dim=1, keepdim=True)
            yield block.double() / norms
