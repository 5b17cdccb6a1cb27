"""Two clouds of tensors as the matrix of costs that they stand for.

`Points` is read as a matrix is: its shape, blocks of rows, its transpose and, where nothing else
will do, all of it. Distances are made of differences of coordinates, formed in float64 before
anything else: nothing cancels. In gradients that holds of the native pass. Those of other devices,
and second derivatives, subtract products of weights and coordinates, which are taken from the mean
of `y`: what is lost is of the order of rounding times the extent of the clouds, wherever they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Points", "detached", "finite_costs", "leaves", "with_leaves"]


@dataclass(frozen=True, eq=False)
class Points:
    """Costs between `x` of shape (n, d) and `y` of shape (m, d), of one floating dtype."""

    x: Tensor
    y: Tensor
    metric: str

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (n, m)."""
        return len(self.x), len(self.y)

    @property
    def dtype(self) -> torch.dtype:
        """That of the points."""
        return self.x.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.x.device

    @property
    def T(self) -> Points:  # noqa: N802
        """The clouds exchanged."""
        return Points(self.y, self.x, self.metric)

    def __getitem__(self, rows: slice) -> Points:
        return Points(self.x[rows], self.y, self.metric)

    def detach(self) -> Points:
        """Return the clouds outside any graph."""
        x, y = self.x.detach(), self.y.detach()
        return Points(x.resolve_neg(), y.resolve_neg(), self.metric)

    def double(self) -> Tensor:
        """Return the matrix in float64, differentiable twice in the points."""
        found: Tensor = _Distances.apply(self.x.double(), self.y.double(), self.metric)
        return found

    def pull_back(self, in_cost: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients in x and y that belong to one in the costs, in float64."""
        return _pull_back(self.x.double(), self.y.double(), self.metric, in_cost)


def leaves(cost: Tensor | Points) -> tuple[Tensor, ...]:
    """Return the tensors that costs are made of: what autograd sees."""
    return (cost,) if isinstance(cost, Tensor) else (cost.x, cost.y)


def detached(value: Any) -> Any:
    """Return a tensor or points outside any graph, whole numbers in float64; else `value`."""
    if isinstance(value, Points):
        return value.detach()
    if not isinstance(value, Tensor):
        return value
    is_integer = not (value.is_floating_point() or value.is_complex())
    # Signs that torch has only taken note of are not seen by kernels.
    bare = value.detach().resolve_neg()
    return bare.double() if is_integer and value.dtype != torch.bool else bare


def with_leaves(cost: Tensor | Points, tensors: tuple[Tensor, ...]) -> Tensor | Points:
    """Return the same costs made of other tensors."""
    return tensors[0] if isinstance(cost, Tensor) else Points(tensors[0], tensors[1], cost.metric)


def finite_costs(cost: Tensor | Points) -> Tensor:
    """Return the matrix in float64, 0 where a pair is forbidden."""
    if isinstance(cost, Points):
        return cost.double()
    return torch.where(cost < torch.inf, cost, 0.0).double()


class _Distances(torch.autograd.Function):
    """The matrix of distances, for a backward pass in the memory of such matrices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, metric: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.metric = metric
        total = x.new_zeros((len(x), len(y)))
        for first, second in zip(x.T, y.T, strict=True):
            difference = first[:, None] - second
            if metric == "cityblock":
                total += difference.abs_()
            else:
                total.addcmul_(difference, difference)
        return total.sqrt_() if metric == "euclidean" else total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        return (*_pull_back(x, y, ctx.metric, grads[0]), None)


def _pull_back(x: Tensor, y: Tensor, metric: str, in_cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sum_j w_ij grad_1 c(x_i, y_j)`` and its like for y, differentiable in all.

    Where points coincide, or their coordinates under ``"cityblock"``, the subgradient 0.
    """
    if metric == "cityblock":
        columns = []
        for first, second in zip(x.detach().T, y.detach().T, strict=True):
            signed = in_cost * (first[:, None] - second).sign_()
            columns.append((signed.sum(1), -signed.sum(0)))
        in_x, in_y = zip(*columns, strict=True)
        return torch.stack(in_x, 1), torch.stack(in_y, 1)
    if metric == "euclidean":
        cost = _Distances.apply(x, y, metric)
        apart = cost > 0
        weights = torch.where(apart, in_cost, 0.0) / torch.where(apart, cost, 1.0)
    else:
        weights = 2 * in_cost
    center = y.detach().mean(0)  # does not count, and large coordinates would cancel
    x, y = x - center, y - center
    return (
        weights.sum(1)[:, None] * x - weights @ y,
        weights.sum(0)[:, None] * y - weights.T @ x,
    )
