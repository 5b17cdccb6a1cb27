"""Conjugate gradients for several right sides at once, and what they tell of the condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh_tridiagonal

__all__ = ["Run", "conjugate_gradients"]

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


class Run(NamedTuple):
    """Where conjugate gradients have come to."""

    y: Matrix
    converged: bool
    condition: float
    """The condition number as the first right side shows it: that of the Lanczos matrix."""


def conjugate_gradients(
    multiply: Callable[[Matrix], Matrix], right: Matrix, tolerance: Vector | float, most: int
) -> Run:
    """Solve ``G y = right`` for a positive definite G, to squared residuals of `tolerance`."""
    left = right
    y, direction = np.zeros_like(left), left
    squares = np.square(left).sum(axis=0)
    lengths: list[float] = []
    ratios: list[float] = []
    while not (done := bool((squares <= tolerance).all())) and len(lengths) < most:
        product = multiply(direction)
        curvature = (direction * product).sum(axis=0)
        length = np.divide(squares, curvature, out=np.zeros_like(squares), where=curvature > 0)
        y = y + length * direction
        left = left - length * product
        before, squares = squares, np.square(left).sum(axis=0)
        ratio = np.divide(squares, before, out=np.zeros_like(squares), where=before > 0)
        direction = left + ratio * direction
        lengths.append(float(length[0]))
        ratios.append(float(ratio[0]))
    return Run(y, done, _condition(np.array(lengths), np.array(ratios)))


def _condition(lengths: Vector, ratios: Vector) -> float:
    """Return the condition number of the Lanczos matrix of some steps."""
    if len(lengths) == 0 or not (lengths > 0).all():
        return np.inf if len(lengths) else 1.0
    diagonal = 1 / lengths
    diagonal[1:] += ratios[:-1] / lengths[:-1]
    values = eigvalsh_tridiagonal(diagonal, np.sqrt(ratios[:-1]) / lengths[:-1])
    return float(values[-1] / values[0]) if values[0] > 0 else np.inf
