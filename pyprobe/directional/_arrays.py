"""What comes in: directions as NumPy arrays or tensors, and the formulas that go with them."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from pyprobe._engine import Engine, select
from pyprobe._validate import as_float_array, check_positive_int
from pyprobe.directional import _numpy
from pyprobe.errors import DomainError, NotFiniteError, ShapeError

__all__ = [
    "as_directions",
    "as_floats",
    "as_samples",
    "check_broadcast",
    "check_shape",
    "check_unit",
    "formulas",
    "like",
    "shape_of",
    "to_numpy",
]


def formulas(*arrays: Any, names: tuple[str, ...] = ()) -> Any:
    """Return the module of formulas for these arrays: `_numpy`, or its twin `_torch`."""
    if select(*arrays, names=names) is Engine.NATIVE:
        return _numpy
    from pyprobe.directional import _torch

    return _torch


def as_floats(name: str, value: Any) -> Any:
    """Return `value` as a float array, or a tensor as one of float32 or float64."""
    if select(value) is Engine.NATIVE:
        return as_float_array(name, value)
    from pyprobe.directional import _mixture_torch

    return _mixture_torch.as_float_tensor(value)


def as_directions(name: str, value: Any, dim: int) -> Any:
    """Return `value` as floats of shape (..., dim)."""
    array = as_floats(name, value)
    if array.ndim == 0 or array.shape[-1] != dim:
        raise ShapeError(f"'{name}' must have shape (..., {dim}); got {tuple(array.shape)}.")
    return array


def as_samples(value: Any) -> Any:
    """Return the samples `x` of a fit: a matrix of one row or more, in C order."""
    x = as_floats("x", value)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ShapeError(
            "'x' must be a matrix of shape (n, d) with d at least 2, one unit vector a row; got "
            f"shape {tuple(x.shape)}."
        )
    if x.shape[0] == 0:
        raise ShapeError(f"'x' must have at least one row; got shape {tuple(x.shape)}.")
    return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x


def check_unit(name: str, x: Any) -> None:
    """Raise unless `x`, of shape (..., d), holds unit vectors."""
    if isinstance(x, np.ndarray):
        norms = np.linalg.norm(x, axis=-1).reshape(-1)
    else:
        norms = x.detach().square().sum(-1).sqrt().reshape(-1)
    tolerance = 1e-4 if norms.itemsize == 4 else 1e-6
    good = abs(norms - 1) <= tolerance
    if good.all():
        return
    row = good.tolist().index(False)
    norm = float(norms[row])
    where = f"row {row} has norm {norm:.7g}" if x.ndim > 1 else f"its norm is {norm:.7g}"
    if math.isnan(norm) or norm == math.inf:
        raise NotFiniteError(f"'{name}' must be finite; {where}.")
    raise DomainError(
        f"'{name}' must hold unit vectors: {where}. Divide by the norm. (In "
        f"float{8 * norms.itemsize} it may be off by {tolerance:.0e}.)"
    )


def check_broadcast(name: str, shape: tuple[int, ...], batch: tuple[int, ...]) -> None:
    """Raise unless the batch shape of an argument broadcasts with another one."""
    try:
        np.broadcast_shapes(shape, batch)
    except ValueError:
        raise ShapeError(
            f"'{name}' has batch shape {shape}, which does not broadcast with {batch}."
        ) from None


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array, tensor or number."""
    return tuple(getattr(value, "shape", ()))


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape of draws as a tuple of nonnegative ints."""
    if not isinstance(shape, tuple | list):
        raise TypeError(
            f"'shape' must be a tuple of ints; got {type(shape).__name__}. Write ({shape!r},)."
        )
    sizes = tuple(check_positive_int("shape", size, minimum=0) for size in shape)
    if math.prod(sizes) > sys.maxsize:
        raise MemoryError(f"there is no memory for draws of shape {sizes}.")
    return sizes


def to_numpy(array: Any) -> Any:
    """Return `array` as NumPy takes it: tensors come to the CPU."""
    return array.numpy(force=True) if select(array) is not Engine.NATIVE else array


def like(model: Any, array: Any) -> Any:
    """Return `array` of the library, dtype and device of `model`."""
    if select(model) is Engine.NATIVE:
        return array
    return sys.modules["torch"].as_tensor(array, dtype=model.dtype, device=model.device)
