r"""The components of a bridge on torch tensors: what `_components` does, as plain operations.

The same formulas, in the same moving frame. With :math:`D = (1 - t) I + t S` and the gain
:math:`G = (S - I) D^{-1}`, a component's drift at y is :math:`h(y) = G y + D^{-1} r`, and its
log-weight, times :math:`2 \varepsilon`, is :math:`y \cdot G y + 2 y \cdot D^{-1} r - t\, r \cdot
D^{-1} r`, beside :math:`\log \alpha - \tfrac12 \log |D|`. Where the time is one for all rows and
the scales lie along the axes, these are products of matrices. Otherwise there are numbers for each
row, component and coordinate anyway, and :math:`z = y - t r` is formed first, as in `_components`.

Everything runs in float64, whatever the dtype of the rows and of the parameters: no place loses
digits before it is taken from the frame, and no product of matrices is done in a shorter format, as
devices (TF32) and autocast would. All is differentiable to any order: nothing decomposes a matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor

__all__ = ["Components", "Time", "turned"]

Time: TypeAlias = float | Tensor
"""A time between 0 and 1; a tensor of such, which broadcasts with the rows."""


@dataclass(frozen=True, eq=False)
class Components:
    """The components in a moving frame, each in the eigenbasis of its own scale, in float64."""

    log_weights: Tensor
    """The logarithms of the probabilities at the origin, up to a constant: (k,)."""
    shifts: Tensor
    """Where the origin goes to, in the frame: (k, d)."""
    eigenvalues: Tensor
    """Of the scales, (k, d)."""
    bases: Tensor | None
    """Their eigenvectors, one a column, (k, d, d); None where they are the axes."""
    epsilon: float
    """Of the whole horizon."""
    origin: Tensor
    velocity: Tensor

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return self.shifts.shape[-1]

    @property
    def log_constant(self) -> float:
        """Half the logarithm of (2 pi epsilon)^d."""
        return self.dim / 2 * math.log(2 * math.pi * self.epsilon)

    @property
    def turned_shifts(self) -> Tensor:
        """The shifts, each in its eigenbasis."""
        return self.shifts if self.bases is None else turned(self.bases.mT, self.shifts)

    def place(self, x: Tensor, t: Time) -> Tensor:
        """Return `x`, (..., d), in the frame at time `t`."""
        return x.double() - (self.origin + _across(t, 1) * self.velocity)

    def denominators(self, t: Time) -> Tensor:
        """Return the eigenvalues of D: (k, d), or (..., k, d) for a time a row."""
        tau = _across(t, 2)
        return (1 - tau) + tau * self.eigenvalues

    def turn(self, y: Tensor) -> Tensor:
        """Return vectors (..., d) in every eigenbasis: (..., k, d), or (..., 1, d) for the axes."""
        if self.bases is None:
            return y.unsqueeze(-2)
        stacked = self.bases.movedim(-3, -2).flatten(-2)
        return (y @ stacked).reshape(*y.shape[:-1], *self.bases.shape[:2])

    def turn_back(self, h: Tensor) -> Tensor:
        """Return vectors (..., k, d) that are given in the eigenbases."""
        return h if self.bases is None else turned(self.bases, h)

    def as_matrices(self, variances: Tensor) -> Tensor:
        """Return matrices (..., k, d, d) of these eigenvalues (..., k, d)."""
        if self.bases is None:
            return torch.diag_embed(variances)
        return (self.bases * variances.unsqueeze(-2)) @ self.bases.mT

    def log_weights_at(self, y: Tensor, t: Time) -> Tensor:
        """Return log w (..., k), not normalized, at places `y` in the frame."""
        denominators = self.denominators(t)
        gains = (self.eigenvalues - 1) / denominators
        if self.bases is None and _is_common(t):
            reach = self.shifts / denominators
            exponents = torch.cat([y * y, y], -1) @ torch.cat([gains, 2 * reach], -1).mT
            exponents = exponents - t * (reach * self.shifts).sum(-1)
        else:
            z = self.turn(y) - _across(t, 2) * self.turned_shifts
            exponents = (z * z * gains).sum(-1) + 2 * (y @ self.shifts.mT)
            exponents = exponents - _across(t, 1) * self.shifts.square().sum(-1)
        halves = denominators.log().sum(-1) / 2
        return self.log_weights - halves + exponents / (2 * self.epsilon)

    def log_sums(self, y: Tensor, t: Time) -> Tensor:
        """Return the logarithm of the sum of the weights, (...)."""
        return self.log_weights_at(y, t).logsumexp(-1)

    def shares(self, y: Tensor, t: Time) -> Tensor:
        """Return the normalized weights, (..., k)."""
        return self.log_weights_at(y, t).softmax(-1)

    def steps(self, y: Tensor, t: Time) -> Tensor:
        """Return the drifts of all components in the frame and in their eigenbases, (..., k, d)."""
        denominators = self.denominators(t)
        gains = (self.eigenvalues - 1) / denominators
        return gains * (self.turn(y) - _across(t, 2) * self.turned_shifts) + self.turned_shifts

    def mean_step(self, shares: Tensor, y: Tensor, t: Time) -> Tensor:
        """Return the mean (..., d) of the components' drifts in the frame."""
        if self.bases is None and _is_common(t):
            denominators = self.denominators(t)
            gains = (self.eigenvalues - 1) / denominators
            return shares @ (self.shifts / denominators) + (shares @ gains) * y
        weighted = shares.unsqueeze(-1) * self.steps(y, t)
        if self.bases is None:
            return weighted.sum(-2)
        return weighted.flatten(-2) @ self.bases.mT.flatten(-3, -2)


def turned(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return the products of matrices (..., d, d) and vectors (..., d)."""
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)


def _is_common(t: Time) -> bool:
    return not isinstance(t, Tensor) or t.ndim == 0


def _across(t: Time, n: int) -> Time:
    """Return times that broadcast over `n` more dimensions."""
    return t if _is_common(t) else cast(Tensor, t)[(..., *(None,) * n)]
