"""Checks of arguments, written once: what a kernel may rely on is settled here.

Every message names the argument, what was expected, what came, and a way out.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.typing import FloatArray

__all__ = [
    "as_float_array",
    "as_float_arrays",
    "as_matrix",
    "as_number",
    "as_weights",
    "check_bool",
    "check_callback",
    "check_choice",
    "check_finite",
    "check_positive_int",
    "check_positive_float",
]

_FLOAT64 = np.dtype(np.float64)
_FLOAT32 = np.dtype(np.float32)


def as_float_array(name: str, value: npt.ArrayLike) -> FloatArray:
    """Return `value` as an aligned float32 or float64 array of native byte order.

    Such an array passes through uncopied, whatever its strides; integers and booleans become
    float64, and so does float16. An unaligned field of a structured array is copied: a kernel would
    misread it in silence.
    """
    if type(value) is np.ndarray:
        array = value
    elif isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"'{name}' is a masked array, whose mask would be lost; "
            "fill it with numpy.ma.filled, or drop the masked entries."
        )
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:  # ragged sequences
            raise ShapeError(f"'{name}' must be a regular array of numbers: {error}") from error
        if array.dtype.kind == "O" and hasattr(getattr(value, "dtypes", None), "items"):
            array = _of_frame(name, value)
    dtype = array.dtype
    if (dtype is _FLOAT64 or dtype is _FLOAT32) and array.flags.aligned:
        return array
    if dtype.kind not in "fiub":
        raise TypeError(f"'{name}' must hold real numbers; got {_not_real(value, dtype)}")
    wanted = _FLOAT32 if dtype.kind == "f" and dtype.itemsize == 4 else _FLOAT64  # '>f4' too
    # A copy where unaligned, byte-swapped or of another type.
    return np.require(array, dtype=wanted, requirements="A")


def _of_frame(name: str, frame: Any) -> FloatArray:
    """Return a data frame whose columns have types that are not all one, as a matrix."""
    others = [
        str(column)
        for column, dtype in frame.dtypes.items()
        if getattr(dtype, "kind", "O") not in "fiub"
    ]
    if others:
        raise TypeError(
            f"'{name}' must hold real numbers; got a {type(frame).__name__} whose columns "
            f"{', '.join(others)} are not. Encode them, as pandas.get_dummies does, or drop them."
        )
    return np.asarray(frame.to_numpy(dtype=_FLOAT64, na_value=np.nan))


def _not_real(value: Any, dtype: np.dtype[Any]) -> str:
    """Say what came instead of real numbers, and the way out."""
    if dtype.kind == "c":
        return f"dtype {dtype}. Pass the real part, or the modulus."
    if dtype.kind == "O" and hasattr(value, "toarray"):
        return (
            f"a sparse {type(value).__name__}, which only mixtures take. Pass .toarray(), or fit a "
            "mixture of one component."
        )
    if hasattr(value, "to_numpy") and getattr(value, "ndim", None) == 1:
        return (
            f"a {type(value).__name__} of dtype {value.dtype}. Encode it as numbers, as "
            "(values == level).astype(float) does for one of two levels."
        )
    return f"dtype {dtype}. Convert with numpy.asarray(..., dtype=float)."


def as_float_arrays(names: Iterable[str], values: Sequence[npt.ArrayLike]) -> list[FloatArray]:
    """Return the values as float arrays of one dtype: float32 only where all arrays are.

    Python numbers take the dtype of the arrays beside them, as in NumPy's own promotion.
    """
    arrays = list(map(as_float_array, names, values))
    dtype = arrays[0].dtype
    if all([array.dtype is dtype for array in arrays]):  # noqa: C419  # half the time of a generator
        return arrays
    wanted = {
        array.dtype
        for array, value in zip(arrays, values, strict=True)
        if not isinstance(value, (int, float)) or isinstance(value, np.generic)
    }
    dtype = _FLOAT32 if wanted == {_FLOAT32} else _FLOAT64
    return [array if array.dtype is dtype else array.astype(dtype) for array in arrays]


def as_matrix(name: str, value: npt.ArrayLike) -> FloatArray:
    """Return `value` as a C-contiguous float matrix of shape (n, d)."""
    array = as_float_array(name, value)
    if array.ndim != 2:
        raise ShapeError(
            f"'{name}' must be a matrix of shape (n, d), one sample a row; got shape {array.shape}."
        )
    return np.ascontiguousarray(array)


def as_weights(
    name: str, value: npt.ArrayLike, n: int, what: str = "sample"
) -> npt.NDArray[np.float64]:
    """Return `value` as a float64 vector of `n` nonnegative weights, not all zero."""
    array = np.ascontiguousarray(as_float_array(name, value), dtype=np.float64)
    if array.shape != (n,):
        raise ShapeError(
            f"'{name}' must have shape ({n},), one weight a {what}; got {array.shape}."
        )
    check_finite(name, array)
    if n and array.min() < 0:
        index = int(array.argmin())
        raise DomainError(f"'{name}' must be nonnegative; got {array[index]} at index {index}.")
    if n and not array.any():
        raise DomainError(f"'{name}' must not be all zero.")
    return array


def check_finite(name: str, array: FloatArray) -> None:
    """Raise `NotFiniteError` where `array` holds an infinite or NaN entry."""
    finite = np.isfinite(array)
    if finite.all():
        return
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    count = array.size - int(finite.sum())
    raise NotFiniteError(
        f"'{name}' must be finite; got {count} infinite or NaN "
        f"{'entry' if count == 1 else 'entries'}, the first ({array[first]}) at index "
        f"{first[0] if len(first) == 1 else first}."
    )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `DomainError` unless `value` is one of `choices`."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise DomainError(f"'{name}' must be one of {listed}; got {value!r}.")


def check_positive_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"'{name}' must be an integer; got {type(value).__name__}.") from None
    if number < minimum:
        raise DomainError(f"'{name}' must be at least {minimum}; got {number}.")
    return number


def check_bool(name: str, value: Any) -> bool:
    """Return `value`, which must be a bool: other objects would count as true in silence."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"'{name}' must be True or False; got {value!r}.")
    return bool(value)


def check_callback(name: str, value: Any) -> None:
    """Raise unless `value` is callable or None."""
    if value is not None and not callable(value):
        raise TypeError(
            f"'{name}' must be a function of one Progress, such as pyprobe.progress.bar(); got "
            f"{value!r}."
        )


def as_number(name: str, value: Any) -> float:
    """Return `value` as a float; text is none, though Python would read it as one."""
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"'{name}' must be a number; got {type(value).__name__}.") from None


def check_positive_float(name: str, value: Any, *, allow_zero: bool = False) -> float:
    """Return `value` as a finite positive (or nonnegative) float."""
    number = as_number(name, value)
    if not (np.isfinite(number) and (number > 0 or (allow_zero and number == 0))):
        kind = "nonnegative" if allow_zero else "positive"
        raise DomainError(f"'{name}' must be finite and {kind}; got {number}.")
    return number
