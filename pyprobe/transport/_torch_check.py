"""Whether transport problems of tensors are what they must be: numbers are read, no arrays.

To say what is wrong, and only then, arrays are copied to the CPU: its checks find the words.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyprobe.errors import DomainError
from pyprobe.transport import _torch_solver as twin
from pyprobe.transport._check import FAR, as_clouds, as_cost, as_masses, check_reachable
from pyprobe.transport._torch_points import detached

__all__ = ["check", "check_batch", "check_points", "of_one_shape"]

METHODS = ("auto", "log")


def check(a: Any, b: Any, cost: Any, penalties: tuple[float, float], method: str) -> None:
    """Raise where the arguments are not what they must be.

    Groups of points that forbidden pairs keep apart are not looked for: the iteration will not
    converge, and warns.
    """
    _check_method(method, cost)
    if _is_sound(a, b, cost, penalties):
        return
    costs = as_cost(_on_cpu(cost))
    weights = as_masses(_on_cpu(a), _on_cpu(b), costs.shape, penalties)
    check_reachable(*weights, costs, penalties)


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
        and _sound_weights(a, b, (len(x), len(y)), x.device, penalties) is not None
    ):
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


def _is_sound(a: Any, b: Any, cost: Any, penalties: tuple[float, float]) -> bool:
    if not (isinstance(cost, Tensor) and cost.ndim == 2 and 0 not in cost.shape):
        return False
    if not cost.is_floating_point() or not bool(cost.amin() > -math.inf):
        return False
    weights = _sound_weights(a, b, cost.shape, cost.device, penalties)
    if weights is None:
        return False
    has_a, has_b = weights[0] > 0, weights[1] > 0
    allowed = (cost < math.inf) & has_a[:, None] & has_b
    stranded = (has_a & ~allowed.any(1)).any() | (has_b & ~allowed.any(0)).any()
    return not bool(stranded)


def _sound_weights(
    a: Any, b: Any, shape: tuple[int, ...], device: torch.device, penalties: tuple[float, float]
) -> list[Tensor] | None:
    """Return both weights in float64, or None where `as_masses` would complain."""
    weights = []
    for given, n in zip((a, b), shape, strict=True):
        weight = torch.ones(n, device=device) if given is None else torch.as_tensor(given)
        if weight.shape != (n,) or weight.is_complex():
            return None
        if not bool(((weight >= 0) & (weight < math.inf)).all() & (weight > 0).any()):
            return None
        weights.append(weight.double() if given is not None else weight.double() / n)
    totals = [float(weight.sum()) for weight in weights]
    if all(map(math.isinf, penalties)) and abs(totals[0] - totals[1]) > 1e-6 * max(totals):
        return None
    return weights


def check_batch(
    problems: list[tuple[Any, Any, Any, Any]], penalties: tuple[float, float], method: str
) -> list[tuple[float, float]] | None:
    """Return the least and the largest finite cost of each, or None where `check` has to look."""
    ranges: dict[int, tuple[float, float]] = {}
    costs = [cost for _, _, cost, _ in problems]
    if method not in METHODS or any(cost.ndim != 2 for cost in costs):
        return None
    for members in of_one_shape(costs):
        some = [problems[index] for index in members]
        cost = torch.stack([detached(costs[index]) for index in members])
        sides = []
        for side, n in enumerate(cost.shape[1:]):
            given = [detached(problem[side]) for problem in some]
            if any(w is not None and (w.shape != (n,) or w.is_complex()) for w in given):
                return None
            even = torch.full((n,), 1 / n, dtype=torch.float64, device=cost.device)
            sides.append(torch.stack([even if w is None else w.double() for w in given]))
        if not (
            cost.is_floating_point() and 0 not in cost.shape and _are_sound(sides, cost, penalties)
        ):
            return None
        finite = torch.where(cost < math.inf, cost, -math.inf)
        extremes = torch.stack([cost.amin((1, 2)), finite.amax((1, 2))], 1).double().tolist()
        ranges |= {index: tuple(pair) for index, pair in zip(members, extremes, strict=True)}
    return [ranges[index] for index in range(len(problems))]


def _are_sound(sides: list[Tensor], cost: Tensor, penalties: tuple[float, float]) -> bool:
    """Whether `_is_sound` holds of all, with one look at the device."""
    a, b = sides
    allowed = (cost < math.inf) & (a > 0)[:, :, None] & (b > 0)[:, None]
    stranded = ((a > 0) & ~allowed.any(2)).any() | ((b > 0) & ~allowed.any(1)).any()
    sound = ~stranded & (cost > -math.inf).all()
    for weights in sides:
        sound = sound & ((weights >= 0) & (weights < math.inf)).all() & (weights > 0).any(1).all()
    if all(map(math.isinf, penalties)):
        masses = a.sum(1), b.sum(1)
        difference = (masses[0] - masses[1]).abs()
        sound = sound & (difference <= 1e-6 * torch.maximum(*masses)).all()
    return bool(sound)


def of_one_shape(costs: list[Tensor]) -> list[list[int]]:
    """Return the places of costs of each shape and dtype, so many at once as make a block."""
    shapes: dict[Any, list[int]] = {}
    for index, cost in enumerate(costs):
        shapes.setdefault((cost.shape, cost.dtype), []).append(index)
    parts = []
    for (shape, _), members in shapes.items():
        size = max(1, twin.BLOCK // max(1, math.prod(shape)))
        parts += [members[start : start + size] for start in range(0, len(members), size)]
    return parts
