"""What comes in: two samples with their weights, and the formulas of the library they come from."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyprobe._engine import Engine, select
from pyprobe.errors import DomainError, ShapeError
from pyprobe.metrics import _numpy

__all__ = ["Kernel", "Samples", "as_samples", "pair_terms"]

_NAMES = ("x", "y", "weights_x", "weights_y")


class Samples(NamedTuple):
    """Two samples of one library, float type and device."""

    formulas: Any
    """The module that computes with them: `_numpy`, or its twin `_torch`."""
    x: Any
    """Points, shape (n, d)."""
    y: Any
    """Points, shape (m, d)."""
    a: Any
    """Weights of `x`, float64, which add up to 1."""
    b: Any
    """Weights of `y`."""
    dtype: Any
    """The type of the result."""


class Kernel(NamedTuple):
    """A function of the distance of two points, as the binding takes it."""

    number: int
    bandwidth: float = 1.0


def as_samples(x: Any, y: Any, weights_x: Any = None, weights_y: Any = None) -> Samples:
    """Return the samples as matrices, checked, with weights that add up to 1."""
    if select(x, y, weights_x, weights_y, names=_NAMES) is Engine.NATIVE:
        formulas: Any = _numpy
    else:
        from pyprobe.metrics import _torch

        formulas = _torch
    x, y, dtype = formulas.as_floats(x, y)
    x, y = _as_points("x", x), _as_points("y", y)
    if x.shape[1] != y.shape[1]:
        raise ShapeError(
            f"'y' must have shape (m, {x.shape[1]}) to match 'x'; got {tuple(y.shape)}."
        )
    for name, points in (("x", x), ("y", y)):
        formulas.check_finite(name, points)
    a = formulas.as_weights("weights_x", weights_x, x)
    b = formulas.as_weights("weights_y", weights_y, y)
    return Samples(formulas, x, y, a, b, dtype)


def pair_terms(samples: Samples, kernel: Kernel, at_zero: float, unbiased: bool) -> tuple[Any, ...]:
    r"""Return estimates of :math:`E k(X, X')`, :math:`E k(Y, Y')` and :math:`E k(X, Y)`, float64.

    `at_zero` is k at distance 0: what the pairs of a point with itself add where the estimate is
    not to be `unbiased`.
    """
    _, x, y, a, b, _ = samples
    if unbiased:
        for name, points, weights in (("x", x, a), ("y", y, b)):
            _check_two("weights_" + name, name, points, weights)
    xx, yy, xy = samples.formulas.pair_sums(x, y, a, b, kernel)
    if unbiased:
        # sum over i != j of a_i a_j: 1 - sum a^2 without the cancellation where one weight rules
        return xx / (a * (1 - a)).sum(), yy / (b * (1 - b)).sum(), xy
    return xx + at_zero * (a * a).sum(), yy + at_zero * (b * b).sum(), xy


def _as_points(name: str, value: Any) -> Any:
    points = value[:, None] if value.ndim == 1 else value
    if points.ndim != 2 or points.shape[1] == 0:
        raise ShapeError(
            f"'{name}' must have shape (n, d), one point a row, or (n,) for points on a line; got "
            f"shape {tuple(value.shape)}."
        )
    if points.shape[0] == 0:
        raise ShapeError(f"'{name}' must have at least one row; got shape {tuple(value.shape)}.")
    return points


def _check_two(weights_name: str, name: str, points: Any, weights: Any) -> None:
    """Raise unless there are two points whose mutual distance can be seen."""
    if points.shape[0] < 2:
        raise ShapeError(
            f"'{name}' must have at least two rows for the unbiased estimate; got 1. Pass "
            "unbiased=False."
        )
    if int((weights > 0).sum()) < 2:
        raise DomainError(
            f"'{weights_name}' must have at least two positive entries for the unbiased estimate; "
            "got 1. Pass unbiased=False."
        )
