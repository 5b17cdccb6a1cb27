"""Read the reference tables, and measure errors on the scales that ``bounds.csv`` names.

=========== ============================================================================
relative    ``|y|``
one         ``max(1, |y|)``
hypot       ``max(|y|, hypot(v, x))``: log I crosses zero as a difference of such terms
order       ``max(1, |y|, v)``: what is left of that where ``exp(x)`` is divided out
order/x     ``max(|y|, v/x)``: the derivative of such a function crosses zero too
order/x^2   ``max(|y|, v/x^2)``: and so does the second derivative of log I
1/s^2       ``max(|y|, hypot(v, x)^-2)``: second derivatives that cross zero, or vanish at
            ``v = 0`` (exponentially for I) or at ``nu = 1/2`` (log Matern is ``-x`` there)
=========== ============================================================================
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOUNDS", "Bound", "read", "scaled_error", "worst_points"]

FOLDER = Path(__file__).parent
Floats = NDArray[np.float64]


class Bound(NamedTuple):
    """How accurate one column must be: a function and how often it is differentiated."""

    column: str
    table: str
    bound: float
    scale: str

    @property
    def function(self) -> str:
        """Name of the public function."""
        return self.column.rpartition("_")[0]

    @property
    def derivative(self) -> tuple[int, int]:
        """How many derivatives in the first and the second argument."""
        first, second = self.column.rpartition("_")[2]
        return int(first), int(second)


with (FOLDER / "bounds.csv").open() as _file:
    BOUNDS = [Bound(a, b, float(c), d) for a, b, c, d in list(csv.reader(_file))[1:]]


def read(table: str) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Return both arguments and, by name, the columns of a table."""
    rows = np.genfromtxt(FOLDER / f"{table}.csv", delimiter=",", names=True)
    first, second, *columns = rows.dtype.names
    return rows[first].copy(), rows[second].copy(), {name: rows[name].copy() for name in columns}


def scaled_error(got: Floats, expected: Floats, v: Floats, x: Floats, scale: str) -> Floats:
    """Errors as multiples of the scale's unit; infinite where ``got`` is NaN."""
    size = np.abs(expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        if scale == "one":
            size = np.maximum(size, 1)
        elif scale == "hypot":
            size = np.maximum(size, np.hypot(v, x))
        elif scale == "order":
            size = np.maximum(np.maximum(size, v), 1)
        elif scale == "order/x":
            size = np.maximum(size, v / x)
        elif scale == "order/x^2":
            size = np.maximum(size, v / (x * x))
        elif scale == "1/s^2":
            size = np.maximum(size, np.hypot(v, x) ** -2)
        elif scale != "relative":
            raise ValueError(f"unknown scale {scale!r}")
        error = np.where(got == expected, 0.0, np.abs(got - expected) / size)
    return np.where(np.isnan(error), np.inf, error)


def worst_points(error: Floats, got: Floats, expected: Floats, v: Floats, x: Floats) -> str:
    """Return a table of the five worst points, for the message of a failed test."""
    lines = [f"{'first':>24} {'second':>24} {'got':>24} {'expected':>24}   error"]
    for i in np.argsort(error)[::-1][:5]:
        numbers = " ".join(f"{float(y[i])!r:>24}" for y in (v, x, got, expected))
        lines.append(f"{numbers} {error[i]:.2e}")
    return "\n".join(lines)
