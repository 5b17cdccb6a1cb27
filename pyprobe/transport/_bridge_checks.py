"""What the fits of bridges refuse and warn of: samples and noise at first, and how they ended."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pyprobe._validate import check_positive_int
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning, ShapeError
from pyprobe.transport._bridge_fit import BridgeFit, held_out_rows
from pyprobe.transport._bridge_model import Sample
from pyprobe.transport._unbalanced_fit import UnbalancedFit

__all__ = [
    "as_count",
    "check_extent",
    "check_fitted",
    "check_mass",
    "check_strength",
    "warn_of_bridge",
    "warn_of_constants",
    "warn_of_plan",
]

_LEAST_SQUARE, _LEAST_RATIO = 1e-280, 1e-100
"""Variance of the samples, and the noise beside it, below which squares and quotients vanish."""
_FEW = 10
"""A plan that rests on fewer rows than this is warned of."""
_MOST = 1.5
"""A mass above this is warned of: that of the best plan is at most 1."""


def as_count(name: str, value: int, most: int, sample: str) -> int:
    """Return a number of components, for as many rows of a sample at the most."""
    n = check_positive_int(name, value)
    if n > most:
        raise DomainError(
            f"'{name}' must be at most {most}, the number of rows of '{sample}' that are fitted; "
            f"got {n}. Take fewer components."
        )
    return n


def check_fitted(name: str, sample: Sample, fraction: float) -> int:
    """Return how many rows are fitted, which must be two or more."""
    n = len(sample.points)
    n_out = held_out_rows(n, fraction)
    if n - n_out < 2:
        raise ShapeError(
            f"'{name}' must keep two rows or more beside those held out; got {n} with weight, of "
            f"which {n_out} would be held out. Pass validation_fraction=0, or more rows."
        )
    return n - n_out


def check_extent(strength: float, sources: Sample, targets: Sample) -> None:
    """Refuse samples whose squared distances, or what these are in units of the noise, overflow."""
    ends = [f(sample.points, axis=0) for sample in (sources, targets) for f in (np.min, np.max)]
    with np.errstate(over="ignore"):
        extent = 4 * (np.ptp(ends, axis=0) ** 2).sum()
        extent = max(extent, extent / np.float64(strength))
    if not extent < math.inf:
        raise DomainError(
            "'x0' and 'x1' must lie so near each other that squared distances over 'epsilon' times "
            f"'horizon' = {strength:.3g} do not overflow; their entries reach "
            f"{np.abs(ends).max():.3g}. Take a larger unit of length, or raise 'epsilon'."
        )


def check_strength(strength: float, sources: Sample, targets: Sample) -> None:
    """Warn where the noise is far off the scale of the data."""
    if not any(np.any(sample.points != sample.points[0]) for sample in (sources, targets)):
        raise DomainError("'x0' and 'x1' must hold rows that differ; all are equal.")
    # About the means, which the fit takes away.
    with np.errstate(over="ignore", invalid="ignore"):
        variances = [
            sample.weights @ (sample.points - sample.weights @ sample.points) ** 2
            for sample in (sources, targets)
        ]
        variance = 0.5 * float(sum(each.mean() for each in variances))
    if not _LEAST_SQUARE <= variance <= 1 / _LEAST_SQUARE:  # not a number, too
        raise DomainError(
            f"'x0' and 'x1' must have a variance from {_LEAST_SQUARE:g} to {1 / _LEAST_SQUARE:g}, "
            f"within what float64 holds; got {variance:.3g}. Bring them to another unit, and "
            "'epsilon' to its square."
        )
    ratio = strength / variance
    if not _LEAST_RATIO <= ratio <= 1 / _LEAST_RATIO:
        raise DomainError(
            f"'epsilon' times 'horizon' must be from {_LEAST_RATIO:g} to {1 / _LEAST_RATIO:g} "
            f"times the mean variance of the samples in a coordinate, {variance:.3g}; got "
            f"{strength:.3g}. See suggest_epsilon."
        )
    if not 2e-4 <= ratio <= 2e3:
        warn(
            f"'epsilon' times 'horizon' = {strength:.3g} is {ratio:.1e} times the mean variance "
            f"of the samples in a coordinate ({variance:.3g}): the bridge is nearly "
            + ("deterministic" if ratio < 1 else "the noise alone")
            + ". See suggest_epsilon, and check the unit of the data.",
            NumericalWarning,
        )


def warn_of_constants(*samples: Sample) -> None:
    """Warn once where columns do not vary."""
    found = []
    for name, sample in zip(("x0", "x1"), samples, strict=True):
        columns = np.flatnonzero(np.ptp(sample.points, axis=0) == 0)
        if len(columns):
            some = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
            found.append(f"'{name}' is constant in column {some}")
    if found:
        warn(
            f"{' and '.join(found)}: how the components scale it follows from the noise, or from "
            "the least variance that is allowed. Leave such columns out.",
            NumericalWarning,
        )


def check_mass(mass: float) -> None:
    """Refuse what overflows, and warn where the plan carries far more than there is."""
    if not mass < math.inf:
        raise DomainError(
            "the mass of the plan overflows: some rows of 'x1', held out or not, lie far from all "
            "components. Take out rows that lie apart, take fewer components or more data, or "
            "raise 'unbalanced'."
        )
    if mass > _MOST:
        warn(
            f"the plan carries a mass of {mass:.3g} from samples of mass 1, which no best plan "
            "does: the components follow 'x1' badly, at rows that lie apart or were held out. "
            "Raise 'unbalanced', take out such rows, or take more components.",
            NumericalWarning,
        )


def warn_of_bridge(info: BridgeFit) -> None:
    """Warn where the fit of a bridge ended too early, or on single points."""
    if not (info.converged or info.stopped):
        change = f", the last of which changed the loss by {-info.last_fall:.1e} nats"
        warn(
            f"LightSchrodingerBridge.fit stopped after {info.n_iter} iterations"
            f"{change if info.n_iter > 1 else ''}; the "
            f"components' shares of the samples differ by up to {info.mass_gap:.1e}. Raise "
            "max_iter or tol.",
            ConvergenceWarning,
        )
    _warn_of_collapsed(info.collapsed)


def warn_of_plan(info: UnbalancedFit, n_starts: float, n_ends: float) -> None:
    """Warn where the fit of an unbalanced plan ended too early, on few rows or on single points."""
    if not (info.converged or info.stopped):
        warn(
            f"LightUnbalancedBridge.fit stopped after {info.n_iter} iterations, the last of which "
            f"lowered the loss by {info.last_fall:.1e} nats; the components' shares of the samples "
            f"differ by up to {info.mass_gap:.1e}. Raise max_iter or tol.",
            ConvergenceWarning,
        )
    for name, few, all_rows in (("x0", info.n_starts, n_starts), ("x1", info.n_ends, n_ends)):
        if few < min(_FEW, all_rows / 10):
            warn(
                f"the plan rests on few rows of '{name}': their weights are as uneven as if it had "
                f"been fitted to {few:.1f}. Raise 'unbalanced' towards the squared distances that "
                "mass should travel, or give more data.",
                NumericalWarning,
            )
    _warn_of_collapsed(info.collapsed)


def _warn_of_collapsed(components: npt.NDArray[np.intp]) -> None:
    if len(components):
        some = ", ".join(map(str, components[:5])) + (", ..." if len(components) > 5 else "")
        warn(
            f"{len(components)} components ({some}) have shrunk onto single points of 'x1', or "
            "onto a plane in which it lies: take fewer components, more data, or hold more out "
            "with validation_fraction.",
            NumericalWarning,
        )
