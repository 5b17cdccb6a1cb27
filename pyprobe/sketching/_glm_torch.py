"""The log-likelihood of a coreset on tensors: differentiable to any order, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pyprobe.errors import ShapeError
from pyprobe.sketching._glm_data import LARGEST_ETA

if TYPE_CHECKING:
    from pyprobe.sketching.glm import GLMCoreset

__all__ = ["gradient", "hessian", "log_likelihood"]


class _Tensors(NamedTuple):
    center: Tensor
    constant: float
    slope: Tensor
    curvature: Tensor
    eta: Tensor
    reach: Tensor
    tail: Tensor
    rows: Tensor
    weights: Tensor


_KEPT: WeakKeyDictionary[GLMCoreset, dict[torch.device, _Tensors]] = WeakKeyDictionary()


def log_likelihood(coreset: GLMCoreset, theta: Tensor) -> Tensor:
    """Return the log-likelihood, shape (...), in the dtype of `theta`."""
    kept, delta, eta, beyond = _at(coreset, theta)
    value = kept.constant + delta @ kept.slope + ((delta @ kept.curvature) * delta).sum(-1) / 2
    # Within reach `beyond` is 0, but its derivatives cancel those that the clamp stops outside.
    tail = beyond * (_mean(coreset.family, eta) + kept.tail * beyond / 2)
    return (value - (_cumulant(coreset.family, eta) + tail) @ kept.weights).to(theta.dtype)


def gradient(coreset: GLMCoreset, theta: Tensor) -> Tensor:
    """Return the gradient, shape (..., d)."""
    kept, delta, eta, beyond = _at(coreset, theta)
    mean = _mean(coreset.family, eta) + kept.tail * beyond
    return (kept.slope + delta @ kept.curvature - (mean * kept.weights) @ kept.rows).to(theta.dtype)


def hessian(coreset: GLMCoreset, theta: Tensor) -> Tensor:
    """Return the Hessian, shape (..., d, d)."""
    kept, _, eta, beyond = _at(coreset, theta)
    variance = torch.where(beyond == 0, _variance(coreset.family, eta), kept.tail) * kept.weights
    weighted = variance.unsqueeze(-1) * kept.rows
    return (kept.curvature - weighted.transpose(-1, -2) @ kept.rows).to(theta.dtype)


def _at(coreset: GLMCoreset, theta: Tensor) -> tuple[_Tensors, Tensor, Tensor, Tensor]:
    """Return the arrays, theta less the center, each eta within its reach, and what is beyond."""
    if theta.ndim == 0 or theta.shape[-1] != coreset.dim:
        raise ShapeError(f"'theta' must have shape (..., {coreset.dim}); got {tuple(theta.shape)}.")
    if not theta.is_floating_point():
        raise TypeError(f"'theta' must hold floating point numbers; got {theta.dtype}.")
    kept = _tensors(coreset, theta.device)
    delta = theta.double() - kept.center
    steps = delta @ kept.rows.T
    inner = steps.clamp(-kept.reach, kept.reach)
    return kept, delta, kept.eta + inner, steps - inner


def _tensors(coreset: GLMCoreset, device: torch.device) -> _Tensors:
    """Return the coreset's arrays on a device, where they are sent once."""
    by_device = _KEPT.setdefault(coreset, {})
    if device not in by_device:
        constant, *arrays = coreset._polynomial  # noqa: SLF001  # the twin has its arrays
        slope, curvature, eta, reach, tail, center, rows, weights = (
            torch.tensor(array, device=device)
            for array in (*arrays, coreset.center, coreset._rows, coreset.weights)  # noqa: SLF001
        )
        by_device[device] = _Tensors(
            center, constant, slope, curvature, eta, reach, tail, rows, weights
        )
    return by_device[device]


def _cumulant(family: str, eta: Tensor) -> Tensor:
    if family == "gaussian":
        return eta**2 / 2
    if family == "logistic":
        # Not softplus, which drops exp(-eta) beyond a threshold.
        return -torch.nn.functional.logsigmoid(-eta)
    return eta.clamp(max=LARGEST_ETA).exp() * (1 + (eta - LARGEST_ETA).clamp(min=0))


def _mean(family: str, eta: Tensor) -> Tensor:
    if family == "gaussian":
        return eta
    return eta.sigmoid() if family == "logistic" else eta.clamp(max=LARGEST_ETA).exp()


def _variance(family: str, eta: Tensor) -> Tensor:
    if family == "gaussian":
        return torch.ones_like(eta)
    if family == "logistic":
        return eta.sigmoid() * (-eta).sigmoid()
    return eta.clamp(max=LARGEST_ETA).exp()
