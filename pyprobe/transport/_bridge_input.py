"""What comes into a light Schrödinger bridge: its parameters, rows and times, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyprobe._engine import Engine, select
from pyprobe._validate import as_float_array, as_weights, check_finite, check_positive_float
from pyprobe.errors import DomainError, NotFiniteError, NotPositiveDefiniteError, ShapeError
from pyprobe.transport._bridge_model import Sample
from pyprobe.transport._components import Time, Vector, normalize
from pyprobe.typing import FloatArray

__all__ = [
    "as_fraction",
    "as_later_time",
    "as_log_weights",
    "as_origin",
    "as_rows",
    "as_sample",
    "as_samples",
    "as_scales",
    "as_shifts",
    "as_time",
    "as_time_pair",
    "as_times",
    "as_times_of_rows",
    "digits",
    "say_at_start",
]

_SYMMETRY = 1e-8
"""Matrices may differ from their transposes by this part of their largest entry."""


def as_rows(name: str, value: Any, dim: int, *, least: int = 0, batch: bool = False) -> FloatArray:
    """Return `value` as floats of shape (n, dim), finite; with `batch`, (..., n, dim)."""
    array = _as_floats(name, value)
    if array.shape == (dim,) and dim > 1:
        raise ShapeError(
            f"'{name}' must have shape (n, {dim}), one point a row; got ({dim},). For a single "
            f"point pass {name}[None]."
        )
    if array.ndim < 2 or (array.ndim > 2 and not batch):
        raise ShapeError(
            f"'{name}' must have shape ({'..., ' if batch else ''}n, {dim}), one point a row; got "
            f"{array.shape}."
        )
    if array.shape[-1] != dim:
        raise ShapeError(
            f"'{name}' must have {dim} columns, as the bridge's shifts have; got shape "
            f"{array.shape}."
        )
    if len(array) < least:
        raise ShapeError(f"'{name}' must have at least one row; got shape {array.shape}.")
    check_finite(name, array)
    return array


def as_samples(
    caller: str, x0: Any, x1: Any, weights_x0: Any, weights_x1: Any
) -> tuple[Sample, Sample]:
    """Return the starts and the ends of a fit, from arrays or from tensors on the CPU."""
    given = {"x0": x0, "x1": x1, "weights_x0": weights_x0, "weights_x1": weights_x1}
    if select(*given.values(), names=tuple(given)) is not Engine.NATIVE:
        from pyprobe.transport import _torch

        x0, x1, weights_x0, weights_x1 = _torch.views(caller, **given)
    sources = as_sample("x0", x0, "weights_x0", weights_x0)
    targets = as_sample("x1", x1, "weights_x1", weights_x1)
    if sources.points.shape[1] != targets.points.shape[1]:
        raise ShapeError(
            "'x0' and 'x1' must have as many columns as each other; got shapes "
            f"{np.shape(x0)} and {np.shape(x1)}."
        )
    return sources, targets


def as_fraction(value: float) -> float:
    """Return the part of the rows that is held out."""
    fraction = check_positive_float("validation_fraction", value, allow_zero=True)
    if fraction > 0.5:
        raise DomainError(f"'validation_fraction' must be at most 0.5; got {fraction:g}.")
    return fraction


def as_sample(name: str, value: Any, weights_name: str, weights: Any) -> Sample:
    """Return points, one a row, in float64, with weights that sum to one."""
    array = _as_floats(name, value)
    if array.ndim != 2 or array.shape[1] == 0:
        hint = f" For points on a line pass {name}[:, None]." if array.ndim == 1 else ""
        raise ShapeError(
            f"'{name}' must have shape (n, d), one point a row; got {array.shape}.{hint}"
        )
    n = len(array)
    if n < 2:
        raise ShapeError(f"'{name}' must hold two points or more; got {n}.")
    check_finite(name, array)
    points = np.ascontiguousarray(array, dtype=np.float64)
    if weights is None:
        return Sample(points, np.full(n, 1 / n))
    shares = as_weights(weights_name, weights, n, f"row of '{name}'")
    kept = shares > 0
    if kept.sum() < 2:
        raise DomainError(
            f"'{weights_name}' must be positive for two rows of '{name}' or more; got one. Give "
            "more rows weight, or leave it out."
        )
    return Sample(points[kept], shares[kept] / shares.sum())


def as_time(name: str, value: Any, horizon: float, *, low: str = "[0") -> float:
    """Return a time in [0, horizon] as a fraction of the horizon; `low` is for the message."""
    try:
        time = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"'{name}' must be a number; got {type(value).__name__}.") from None
    if not 0 <= time <= horizon:  # not a number, too
        raise DomainError(
            f"'{name}' must be in {low}, {digits(horizon)}], the horizon; got {digits(time)}."
        )
    return time / horizon


def as_later_time(name: str, value: Any, horizon: float) -> float:
    """Return a time in (0, horizon], at which the process has left its start, as a fraction."""
    time = as_time(name, value, horizon, low="(0")
    if time == 0:
        raise DomainError(say_at_start(name, horizon))
    return time


def say_at_start(name: str, horizon: float) -> str:
    """Return what is said of a time 0 where there must be a density."""
    return (
        f"'{name}' must be in (0, {digits(horizon)}]; got 0, where the process is at 'x0' itself "
        "and has no density."
    )


def digits(number: float) -> str:
    """Return a number in few digits where these are all, and otherwise in as many as it has."""
    number = float(number)
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def as_time_pair(s: Any, t: Any, horizon: float) -> tuple[float, float]:
    """Return two times, one before the other, as fractions of the horizon."""
    start, end = as_time("s", s, horizon), as_time("t", t, horizon)
    if start >= end:
        raise DomainError(f"'s' must be before 't'; got s = {digits(s)} and t = {digits(t)}.")
    return start, end


def as_times(name: str, value: Any, horizon: float) -> Vector:
    """Return increasing times as fractions of the horizon."""
    times = _as_floats(name, value).astype(np.float64)
    if times.ndim != 1 or len(times) == 0:
        raise ShapeError(
            f"'{name}' must have shape (l,), with one time or more; got {times.shape}."
        )
    _check_range(name, times, horizon)
    steps = np.diff(times)
    if not (steps > 0).all():
        index = int(np.argmin(steps > 0)) + 1
        raise DomainError(
            f"'{name}' must increase; got {digits(times[index])} after {digits(times[index - 1])} "
            f"at index {index}."
        )
    fractions: Vector = times / horizon
    return fractions


def as_times_of_rows(value: Any, n: int, horizon: float) -> Time:
    """Return a time, or one for each of n rows, as fractions of the horizon."""
    if isinstance(value, int | float):
        return as_time("t", value, horizon)
    times = _as_floats("t", value).astype(np.float64)
    if times.ndim == 0:
        return as_time("t", times, horizon)
    if times.shape != (n,):
        raise ShapeError(
            f"'t' must be a number or have shape ({n},), a time for each row; got {times.shape}."
        )
    _check_range("t", times, horizon)
    fractions: Vector = times / horizon
    return fractions


def as_shifts(value: Any) -> Vector:
    """Return the shifts (k, d), finite, at least one."""
    shifts = _as_floats("shifts", value).astype(np.float64)
    if shifts.ndim != 2 or 0 in shifts.shape:
        raise ShapeError(
            "'shifts' must have shape (k, d), a row for each component, with k and d at least 1; "
            f"got {shifts.shape}."
        )
    check_finite("shifts", shifts)
    return shifts


def as_log_weights(value: Any, k: int) -> Vector:
    """Return k log-weights, normalized; minus infinity is a component without weight."""
    array = _as_floats("log_weights", value).astype(np.float64)
    if array.shape != (k,):
        raise ShapeError(
            f"'log_weights' must have shape ({k},), one for each row of 'shifts'; got "
            f"{array.shape}."
        )
    if not (array < np.inf).all() or array.max() == -np.inf:
        raise NotFiniteError(
            "'log_weights' must be below infinity, and one of them above minus infinity; got "
            f"{array.max():g}."
        )
    return normalize(array)[0]


def as_scales(value: Any, k: int, d: int) -> Vector:
    """Return scales as positive numbers (k,), diagonals (k, d) or matrices (k, d, d)."""
    scales = _as_floats("scales", value).astype(np.float64)
    if scales.shape not in ((k,), (k, d), (k, d, d)):
        raise ShapeError(
            f"'scales' must have shape ({k},), ({k}, {d}) or ({k}, {d}, {d}) to match 'shifts'; "
            f"got {scales.shape}."
        )
    check_finite("scales", scales)
    if scales.ndim < 3:
        if not scales.min() > 0:
            index = np.unravel_index(int(scales.argmin()), scales.shape)
            raise DomainError(
                f"'scales' must be positive; got {scales.min():g} in component {int(index[0])}."
            )
        return scales
    transposed = scales.swapaxes(1, 2)
    error = np.abs(scales - transposed).max(axis=(1, 2))
    if (error > _SYMMETRY * np.abs(scales).max(axis=(1, 2))).any():
        worst = int(error.argmax())
        raise DomainError(
            f"'scales' must hold symmetric matrices; that of component {worst} differs from its "
            f"transpose by {error[worst]:.3g}. Pass (scales + scales.swapaxes(1, 2)) / 2."
        )
    symmetric: Vector = (scales + transposed) / 2
    least = np.linalg.eigvalsh(symmetric)[:, 0]
    if not least.min() > 0:
        worst = int(least.argmin())
        raise NotPositiveDefiniteError(
            f"'scales' must hold positive definite matrices; that of component {worst} has an "
            f"eigenvalue of {least[worst]:.3g}."
        )
    return symmetric


def as_origin(value: Any, d: int) -> Vector:
    """Return the origin (d,); zero for None."""
    if value is None:
        return np.zeros(d)
    origin = _as_floats("origin", value).astype(np.float64)
    if origin.shape != (d,):
        raise ShapeError(
            f"'origin' must have shape ({d},), a point like the rows of 'shifts'; got "
            f"{origin.shape}."
        )
    check_finite("origin", origin)
    return origin


def _check_range(name: str, times: Vector, horizon: float) -> None:
    good = (times >= 0) & (times <= horizon)  # false for what is not a number
    if not good.all():
        index = int(np.argmin(good))
        raise DomainError(
            f"'{name}' must be in [0, {digits(horizon)}], the horizon; got {digits(times[index])} "
            f"at index {index}."
        )


def _as_floats(name: str, value: Any) -> FloatArray:
    if select(value) is not Engine.NATIVE:
        raise TypeError(
            f"'{name}' must be a NumPy array here; got a torch tensor. Pass "
            f"{name}.numpy(force=True); for tensors there is the module that to_torch() returns."
        )
    return as_float_array(name, value)
