"""The special functions as differentiable torch operations, on either engine.

Each is one `Op` for all functions and orders: the derivative of order (i, j) has those of order
(i + 1, j) and (i, j + 1) as its partial derivatives, up to a total order of two.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyprobe import _core
from pyprobe._autograd import Op, is_plain, op
from pyprobe._engine import Engine
from pyprobe.errors import PyprobeError
from pyprobe.special import _torch
from pyprobe.special._kernels import (
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    FUNCTIONS,
    MASKS,
    Function,
)
from pyprobe.typing import FloatArray

__all__ = ["bessel", "bessel_ratio_inverse", "point"]

_NATIVE_TORCH = Engine.NATIVE_TORCH
_NO_PARAMETERS = (0,)
_COMPUTED = (torch.float64, torch.float32)


def point(function: Function, mask: int, first: Any, second: Any) -> Tensor | None:
    """Evaluate where both arguments are one float64 on the CPU and nothing is recorded, else None.

    A number is taken from a tensor at a fifth of the cost of a view of its memory.
    """
    if type(first) is not Tensor or type(second) is not Tensor or not is_plain((first, second)):
        return None
    if first.dtype is not torch.float64 or second.dtype is not torch.float64:
        return None
    if first.numel() != 1 or second.numel() != 1 or not (first.is_cpu and second.is_cpu):
        return None
    value = _core.bessel_at(function.number, mask, first.item(), second.item())
    ndim = first.ndim
    if second.ndim > ndim:
        ndim = second.ndim
    return torch.from_numpy(np.array(value, ndmin=ndim))


def bessel(
    function: Function, first: Any, second: Any, derivative: tuple[int, int], engine: Engine
) -> Tensor:
    """Evaluate a derivative of `function` at tensors or numbers."""
    operation = _NATIVE if engine is _NATIVE_TORCH else _TWIN
    parameters = (function.number, *derivative)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        dtype = first.dtype
        if dtype is second.dtype and (dtype is torch.float64 or dtype is torch.float32):
            return operation(parameters, first, second)
    (first, second), dtype = _as_tensors(first, second)
    return operation(parameters, first, second).to(dtype)


def bessel_ratio_inverse(v: Any, r: Any, complement: Any, engine: Engine) -> Tensor:
    """Evaluate `pyprobe.special.bessel_ratio_inverse` at tensors or numbers."""
    if complement is None:
        complement = 1 - r  # exact where it counts, for r >= 1/2
    inputs, dtype = _as_tensors(v, r, complement)
    operation = _NATIVE_INVERSE if engine is _NATIVE_TORCH else _TWIN_INVERSE
    return operation(_NO_PARAMETERS, *inputs).to(dtype)


# Engines: what to call without a graph.


def _native_bessel(
    parameters: tuple[int, ...], wanted: tuple[bool, ...], first: Tensor, second: Tensor
) -> list[Tensor]:
    number, i, j = parameters
    if True not in wanted:
        mask = MASKS[i, j]
        return [torch.from_numpy(_core.bessel(number, mask, _view(first), _view(second)))]
    orders = _orders(parameters, wanted)
    mask = sum([MASKS[order] for order in orders])
    found = _core.bessel(number, mask, _view(first), _view(second))
    return [torch.from_numpy(array) for array in (found if len(orders) > 1 else [found])]


def _view(tensor: Tensor) -> FloatArray:
    # `force` drops what autograd knows and resolves the lazy negation of a view; no copy otherwise.
    array: FloatArray = tensor.numpy(force=True)
    return array


def _twin_bessel(
    parameters: tuple[int, ...], wanted: tuple[bool, ...], first: Tensor, second: Tensor
) -> list[Tensor]:
    function = FUNCTIONS[parameters[0]]
    return _torch.bessel(function, _orders(parameters, wanted), first, second)


def _orders(parameters: tuple[int, ...], wanted: tuple[bool, ...]) -> list[tuple[int, int]]:
    """Return the order of the value and those of the wanted partial derivatives."""
    _, i, j = parameters
    orders = [(i, j)]
    if wanted[0]:
        orders.append((i + 1, j))
    if wanted[1]:
        orders.append((i, j + 1))
    return orders


def _saves(parameters: tuple[int, ...], needed: tuple[bool, ...]) -> tuple[bool, ...]:
    """Return the partial derivatives that the kernels have: there are none beyond the second."""
    index, i, j = parameters
    return needed[0] and i + j < 2 and i < FUNCTIONS[index].max_order, needed[1] and i + j < 2


def _native_inverse(
    _: tuple[int, ...], wanted: tuple[bool, ...], v: Tensor, r: Tensor, complement: Tensor
) -> list[Tensor]:
    found = _core.bessel_ratio_inverse(_view(v), _view(r), _view(complement))
    x = torch.from_numpy(found)
    return [x, *_inverse_partials(_NATIVE, wanted, v.detach(), r.detach(), x)]


def _twin_inverse(
    _: tuple[int, ...], wanted: tuple[bool, ...], v: Tensor, r: Tensor, complement: Tensor
) -> list[Tensor]:
    x = _torch.bessel_ratio_inverse(v, r, complement)
    return [x, *_inverse_partials(_TWIN, wanted, v.detach(), r.detach(), x)]


# The derivative rules.


def _bessel_partial(
    operation: Op, parameters: tuple[int, ...], input_index: int, v: Tensor, x: Tensor
) -> Tensor:
    index, i, j = parameters
    i, j = (i + 1, j) if input_index == 0 else (i, j + 1)
    function = FUNCTIONS[index]
    if i <= function.max_order:
        if i + j <= 2:
            return operation((index, i, j), v, x)
        if function is BESSEL_RATIO:
            return _ratio_third(operation, i, v, x)
        if function is BESSEL_RATIO_COMPLEMENT:
            return -_ratio_third(operation, i, v, x)
    first, second = function.arguments
    raise PyprobeError(
        f"{function.name} has no derivative of order {i} in '{first}' and {j} in '{second}': it is "
        + (
            f"differentiable any number of times in '{second}' but once in '{first}'."
            if function.max_order == 1
            else "differentiable twice, in both arguments together."
        )
    )


def _ratio_third(operation: Op, i: int, v: Tensor, x: Tensor) -> Tensor:
    """Return the derivative of order (i, 3 - i), i <= 1, of r(v, x) = I_{v+1}(x) / I_v(x).

    From r' = 1/(2v+2) - r^2 + c r s with s = r(v+1, x) and c = (2v+1)/(2v+2), which is Riccati's
    equation r' = 1 - r^2 - (2v+1) r/x without its division by x: 1 - r s = (2v+2) r/x. All that
    stands here is differentiable, so that every higher order in x follows.
    """

    def ratio(order_v: int, order_x: int, v: Tensor) -> Tensor:
        return operation((BESSEL_RATIO.number, order_v, order_x), v, x)

    c = (2 * v + 1) / (2 * v + 2)
    r, r1, s, s1 = ratio(0, 0, v), ratio(0, 1, v), ratio(0, 0, v + 1), ratio(0, 1, v + 1)
    if i == 0:
        r2, s2 = ratio(0, 2, v), ratio(0, 2, v + 1)
        return -2 * (r1 * r1 + r * r2) + c * (r2 * s + 2 * r1 * s1 + r * s2)
    rv, r1v, sv, s1v = ratio(1, 0, v), ratio(1, 1, v), ratio(1, 0, v + 1), ratio(1, 1, v + 1)
    cv = 0.5 / (v + 1) ** 2
    product = r1v * s + r1 * sv + rv * s1 + r * s1v
    return -2 * (rv * r1 + r * r1v) + cv * (r1 * s + r * s1) + c * product


def _inverse_partial(
    inverse: Op, operation: Op, parameters: tuple[int, ...], index: int, *inputs: Tensor
) -> Tensor:
    wanted = tuple(index == i for i in range(3))
    v, r, _ = inputs
    return _inverse_partials(operation, wanted, v, r, inverse(parameters, *inputs))[0]


def _inverse_partials(
    operation: Op, wanted: tuple[bool, ...], v: Tensor, r: Tensor, x: Tensor
) -> list[Tensor]:
    """Return the wanted derivatives of x in (v, r, complement), from ratio(v, x) = r.

    As the solver does, they follow r where it is at most 1/2 and its complement elsewhere.
    """
    if True not in wanted:
        return []
    slope = operation((BESSEL_RATIO.number, 0, 1), v, x)
    partials = []
    if wanted[0]:
        change = operation((BESSEL_RATIO.number, 1, 0), v, x)
        # At r = 1 both vanish, and x is infinite for every order.
        partials.append(torch.where(x.isinf(), x, -change / slope))
    if wanted[1]:
        partials.append(torch.where(r <= 0.5, 1 / slope, 0.0))
    if wanted[2]:
        partials.append(torch.where(r <= 0.5, 0.0, -1 / slope))
    return partials


def _make(suffix: str, kernel: Any, inverse_kernel: Any) -> tuple[Op, Op]:
    def partial(*arguments: Any) -> Tensor:
        return _bessel_partial(operation, *arguments)

    def inverse_partial(*arguments: Any) -> Tensor:
        return _inverse_partial(inverse, operation, *arguments)

    operation = op(f"bessel{suffix}", 2, kernel, partial, saves=_saves)
    name = f"bessel_ratio_inverse{suffix}"
    inverse = op(name, 3, inverse_kernel, inverse_partial, saves=lambda _, needed: needed)
    return operation, inverse


_NATIVE, _NATIVE_INVERSE = _make("", _native_bessel, _native_inverse)
_TWIN, _TWIN_INVERSE = _make("_torch", _twin_bessel, _twin_inverse)


def _as_tensors(*values: Any) -> tuple[list[Tensor], torch.dtype]:
    """Return tensors of the dtype to compute in, and the dtype of the result.

    The latter is torch's own promotion: tensors with dimensions rule over those without, these
    over numbers, and integers become the default dtype. Half precision is computed in float32.
    """
    tensors = [value for value in values if isinstance(value, Tensor)]
    dtype = _result_type(tensors)
    compute = dtype if dtype in _COMPUTED else torch.float32
    device = tensors[0].device
    return [
        value.to(compute)
        if isinstance(value, Tensor)
        else torch.full((), value, dtype=compute, device=device)
        for value in values
    ], dtype


def _result_type(tensors: list[Tensor]) -> torch.dtype:
    for tensor in tensors:
        if tensor.dtype.is_complex:
            raise TypeError(f"real numbers are expected; got {tensor.dtype}. Pass the real part.")
    floats = [tensor for tensor in tensors if tensor.dtype.is_floating_point]
    if not floats:
        return torch.get_default_dtype()
    ruling = [tensor.dtype for tensor in floats if tensor.ndim] or [t.dtype for t in floats]
    return reduce(torch.promote_types, ruling)
