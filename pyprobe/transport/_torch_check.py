"""Whether transport problems of tensors are what they must be: numbers are read, no arrays.

To say what is wrong, and only then, arrays are copied to the CPU: its checks find the words.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyprobe.errors import DomainError
from pyprobe.transport import _torch_solver as twin
from pyprobe.transport._check import FAR, as_clouds, as_cost, as_masses, check_reachable
from pyprobe.transport._torch_points import detached

__all__ = ["Given", "check", "check_batch", "check_points", "of_one_shape"]

METHODS = ("auto", "log")

Given: TypeAlias = tuple[Any, Any, Any, Any]
"""Weights, costs and epsilon, as they were passed."""


def check(a: Any, b: Any, cost: Any, penalties: tuple[float, float], method: str) -> None:
    """Raise where the arguments are not what they must be.

    Groups of points that forbidden pairs keep apart are not looked for: the iteration will not
    converge, and warns.
    """
    _check_method(method, cost)
    if _look([(a, b, cost, None)], penalties) is not None:
        return
    costs = as_cost(_on_cpu(cost))
    weights = as_masses(_on_cpu(a), _on_cpu(b), costs.shape, penalties)
    check_reachable(*weights, costs, penalties)


def check_batch(
    problems: list[Given], penalties: tuple[float, float], method: str
) -> list[tuple[float, float]] | None:
    """Return the least and the largest finite cost of each, or None where `check` has to look."""
    costs = [cost for _, _, cost, _ in problems]
    if method not in METHODS or not all(isinstance(cost, Tensor) for cost in costs):
        return None
    ranges: dict[int, tuple[float, float]] = {}
    for members in of_one_shape(costs):
        found = _look([problems[index] for index in members], penalties)
        if found is None:
            return None
        ranges |= dict(zip(members, found, strict=True))
    return [ranges[index] for index in range(len(problems))]


def check_points(
    given: tuple[Tensor, Tensor, Any, Any],
    metric: str,
    penalties: tuple[float, float],
    method: str,
) -> None:
    """Raise where clouds and weights are not what they must be; see `check`."""
    x, y, a, b = map(detached, given)
    _check_method(method, x)
    fits = all(t.ndim in (1, 2) and t.numel() and t.is_floating_point() for t in (x, y))
    if (
        fits
        and x.shape[1:] == y.shape[1:]
        and all(bool((t.double().abs() < FAR).all()) for t in (x, y))
    ):
        weights, others = _stacked([a], len(x), x.device), _stacked([b], len(y), x.device)
        if weights is not None and others is not None and _are_masses(weights, others, penalties):
            return
    clouds = as_clouds(_on_cpu(x), _on_cpu(y), metric)
    as_masses(_on_cpu(a), _on_cpu(b), clouds.shape, penalties, of="points")


def _check_method(method: str, tensor: Tensor) -> None:
    if method not in METHODS:
        raise DomainError(
            f"'method' must be 'auto' or 'log' for tensors on {tensor.device}; got {method!r}, "
            "which runs on the CPU alone. Pass tensors .to('cpu')."
        )


def _on_cpu(tensor: Any) -> Any:
    return None if tensor is None else torch.as_tensor(tensor).numpy(force=True)


def _look(
    problems: list[Given], penalties: tuple[float, float]
) -> list[tuple[float, float]] | None:
    """Return the ranges of the costs of problems of one shape, or None where one is not sound."""
    costs = [detached(cost) for _, _, cost, _ in problems]
    first = costs[0]
    if not isinstance(first, Tensor) or first.ndim != 2 or 0 in first.shape:
        return None
    if first.layout is not torch.strided or not first.is_floating_point():
        return None
    cost = torch.stack(costs) if len(costs) > 1 else first[None]
    a, b = (
        _stacked([detached(problem[side]) for problem in problems], n, cost.device)
        for side, n in enumerate(first.shape)
    )
    if a is None or b is None:
        return None
    allowed = (cost < math.inf) & (a > 0)[:, :, None] & (b > 0)[:, None]
    stranded = ((a > 0) & ~allowed.any(2)).any() | ((b > 0) & ~allowed.any(1)).any()
    if not bool(_are_masses(a, b, penalties) & ~stranded & (cost > -math.inf).all()):
        return None
    finite = torch.where(cost < math.inf, cost, -math.inf)
    extremes = torch.stack([cost.amin((1, 2)), finite.amax((1, 2))], 1).tolist()
    return [(least, most) for least, most in extremes]


def _stacked(given: list[Any], n: int, device: torch.device) -> Tensor | None:
    """Return weights of shape (B, n) in float64, or None where some have no such shape."""
    even = torch.full((n,), 1 / n, dtype=torch.float64, device=device)
    weights = [even if weight is None else torch.as_tensor(weight) for weight in given]
    if any(weight.shape != (n,) or weight.is_complex() for weight in weights):
        return None
    return torch.stack([weight.double() for weight in weights])


def _are_masses(a: Tensor, b: Tensor, penalties: tuple[float, float]) -> Tensor:
    """Return whether `as_masses` would have no complaint of any problem, as a tensor."""
    sound = torch.ones((), dtype=torch.bool, device=a.device)
    for weights in (a, b):
        sound = sound & ((weights >= 0) & (weights < math.inf)).all() & (weights > 0).any(1).all()
    if all(map(math.isinf, penalties)):
        masses = a.sum(1), b.sum(1)
        difference = (masses[0] - masses[1]).abs()
        sound = sound & (difference <= 1e-6 * torch.maximum(*masses)).all()
    return sound


def of_one_shape(costs: list[Tensor]) -> list[list[int]]:
    """Return the places of costs of each shape and dtype, so many at once as make a block."""
    shapes: dict[Any, list[int]] = {}
    for index, cost in enumerate(costs):
        shapes.setdefault((cost.shape, cost.dtype), []).append(index)
    parts = []
    for (shape, _), members in shapes.items():
        # A few matrices are formed of each.
        size = max(1, twin.BLOCK // (4 * max(1, math.prod(shape))))
        parts += [members[start : start + size] for start in range(0, len(members), size)]
    return parts
