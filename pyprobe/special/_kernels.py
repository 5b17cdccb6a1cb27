"""From a public function to its kernel: one crossing into Rust, or one torch operation."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import as_float_arrays
from pyprobe.errors import DomainError
from pyprobe.typing import Array, ArrayLike, FloatArray

__all__ = [
    "BESSEL_RATIO",
    "BESSEL_RATIO_COMPLEMENT",
    "FUNCTIONS",
    "LOG_HYP0F1",
    "LOG_IV",
    "LOG_IVE",
    "LOG_KV",
    "LOG_KVE",
    "LOG_MATERN",
    "MASKS",
    "Function",
    "evaluate",
    "invert_ratio",
]


class Function(NamedTuple):
    """What the kernels offer under one name."""

    number: int
    name: str
    arguments: tuple[str, str] = ("v", "x")
    max_order: int = 2
    """How many derivatives there are in the first argument; in both together there are two."""


LOG_IV = Function(0, "log_iv")
LOG_IVE = Function(1, "log_ive")
LOG_KV = Function(2, "log_kv")
LOG_KVE = Function(3, "log_kve")
BESSEL_RATIO = Function(4, "bessel_ratio", max_order=1)
BESSEL_RATIO_COMPLEMENT = Function(5, "bessel_ratio_complement", max_order=1)
LOG_HYP0F1 = Function(6, "log_hyp0f1", ("b", "z"))
LOG_MATERN = Function(7, "log_matern", ("nu", "x"))

# In the order of their numbers, which the binding knows too.
FUNCTIONS = (
    LOG_IV,
    LOG_IVE,
    LOG_KV,
    LOG_KVE,
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    LOG_HYP0F1,
    LOG_MATERN,
)

MASKS = {(0, 0): 1, (1, 0): 2, (0, 1): 4, (2, 0): 8, (1, 1): 16, (0, 2): 32}
"""The bit that asks a kernel for a derivative of this order in the two arguments."""

# As module constants: the attribute look-up on an Enum class would show in a call on one element.
_NATIVE = Engine.NATIVE
_ops: Any = None
"""`pyprobe.special._ops`, which imports torch, once a tensor has come."""
_FLOAT64 = np.dtype(np.float64)


def evaluate(
    function: Function, first: ArrayLike, second: ArrayLike, derivative: tuple[int, int]
) -> Array:
    """Evaluate a derivative of `function` by the engine that the arguments call for."""
    try:
        mask = MASKS.get(derivative)
    except TypeError:  # a list cannot be looked up
        mask = None
    if mask is None or derivative[0] > function.max_order:
        _refuse(function, derivative)
    point = _point(first, second)
    if point is not None:
        v, x, ndim = point
        value = _core.bessel_at(function.number, mask, v, x)
        found: Any = np.array(value, ndmin=ndim) if ndim else np.float64(value)
        return found  # type: ignore[no-any-return]  # a scalar, as ufuncs return
    if _ops is not None:
        tensor = _ops.point(function, mask, first, second)
        if tensor is not None:
            return tensor  # type: ignore[no-any-return]
    engine = select(first, second)
    if engine is not _NATIVE:
        return _torch_ops().bessel(function, first, second, derivative, engine)  # type: ignore[no-any-return]
    first, second = as_float_arrays(function.arguments, (first, second))
    return _array_or_scalar(_core.bessel(function.number, mask, first, second))


def _torch_ops() -> Any:
    global _ops
    if _ops is None:
        from pyprobe.special import _ops as module

        _ops = module
    return _ops


def _point(first: Any, second: Any) -> tuple[float, float, int] | None:
    """Return two numbers and the rank of the result, where the arguments are one float64 each.

    Numbers cross into Rust at a fraction of what arrays cost.
    """
    ndim = 0
    if type(first) is np.ndarray:
        if first.size != 1 or first.dtype is not _FLOAT64:
            return None
        ndim = first.ndim
        first = first.item()
    elif type(first) is not float:
        return None
    if type(second) is np.ndarray:
        if second.size != 1 or second.dtype is not _FLOAT64:
            return None
        if second.ndim > ndim:
            ndim = second.ndim
        second = second.item()
    elif type(second) is not float:
        return None
    return first, second, ndim


def invert_ratio(v: ArrayLike, r: ArrayLike, complement: ArrayLike | None) -> Array:
    """Evaluate `bessel_ratio_inverse`."""
    engine = select(v, r, complement)
    if engine is not _NATIVE:
        return _torch_ops().bessel_ratio_inverse(v, r, complement, engine)  # type: ignore[no-any-return]
    if complement is None:
        result = _core.bessel_ratio_inverse(*as_float_arrays(("v", "r"), (v, r)))
    else:
        names = ("v", "r", "complement")
        result = _core.bessel_ratio_inverse(*as_float_arrays(names, (v, r, complement)))
    return _array_or_scalar(result)


def _array_or_scalar(array: FloatArray) -> Array:
    """Return a scalar for an array without dimensions, as ufuncs do."""
    return array if array.ndim else array[()]


def _refuse(function: Function, derivative: Any) -> NoReturn:
    first, second = function.arguments
    most = "" if function.max_order == 2 else f", at most {function.max_order} of them in '{first}'"
    raise DomainError(
        f"'derivative' must be a pair (i, j) of nonnegative integers, how many derivatives of "
        f"{function.name} to take in '{first}' and in '{second}', with i + j <= 2{most}; "
        f"got {derivative!r}."
    )
