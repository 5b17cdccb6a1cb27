"""Sketches of torch tensors: the kernel on the CPU, the same operator made of torch elsewhere.

A sketch is linear, so its derivative is its transpose: reverse mode, to any order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyprobe._autograd import check_eager
from pyprobe.cluster._samples import as_samples
from pyprobe.errors import NotFiniteError
from pyprobe.sketching._input import array_of, refuse_meta
from pyprobe.sketching._torch_random import normal_columns, random_signs, sparse_columns
from pyprobe.sketching.operators import padded_length, sketch_samples

if TYPE_CHECKING:
    from pyprobe.sketching.operators import SketchOperator

__all__ = ["product", "transposed_product", "twin_product", "twin_transposed_product"]

_ENTRIES = 1 << 22
"""Random entries that the twins make at a time: 250 MB with what is made on the way."""


def product(operator: SketchOperator, a: Tensor, start: int, name: str) -> Tensor:
    """Return what the rows `a` from `start` on add to the sketch."""
    _check(name, a)
    found: Tensor = _Product.apply(a, operator, start, name)
    return found


def transposed_product(operator: SketchOperator, y: Tensor) -> Tensor:
    """Return the product of the transposed sketch with `y`."""
    _check("y", y)
    found: Tensor = _TransposedProduct.apply(y, operator)
    return found


def _check(name: str, a: Tensor) -> None:
    check_eager(name, (a,))
    refuse_meta(name, a)
    if a.layout is not torch.strided:
        raise TypeError(f"'{name}' must be a dense tensor; got layout {a.layout}. Use .to_dense().")
    if a.is_complex():
        raise TypeError(f"'{name}' must hold real numbers; got dtype {a.dtype}.")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, operator: SketchOperator, start: int, name: str) -> Tensor:
        ctx.operator, ctx.rows = operator, slice(start, start + len(a))
        columns = a.detach().reshape(len(a), -1)
        if a.is_cpu:
            samples = as_samples(name, array_of(name, columns))
            found = torch.from_numpy(sketch_samples(operator, name, samples, start))
        else:
            found = twin_product(operator, columns, start)
            if not found.isfinite().all():
                raise NotFiniteError(f"'{name}' must be finite; its sketch is not.")
        return found.reshape(-1, *a.shape[1:]).to(_result(a))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return transposed_product(ctx.operator, grads[0])[ctx.rows], None, None, None


class _TransposedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, operator: SketchOperator) -> Tensor:
        ctx.operator = operator
        columns = y.detach().reshape(len(y), -1).double()
        if y.is_cpu:
            rows = np.ascontiguousarray(columns.numpy())
            found = torch.from_numpy(operator._transposed(rows))  # noqa: SLF001  # the same room
        else:
            found = twin_transposed_product(operator, columns)
        return found.reshape(-1, *y.shape[1:]).to(_result(y))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return product(ctx.operator, grads[0], 0, "grad"), None


def _result(a: Tensor) -> torch.dtype:
    return a.dtype if a.is_floating_point() else torch.get_default_dtype()


# The same operators in torch, for any device.


def twin_product(operator: SketchOperator, a: Tensor, start: int) -> Tensor:
    """Return what the rows `a` of shape (c, d) from `start` on add to the sketch, in float64."""
    a, stop = a.double(), start + len(a)
    if operator.kind == "srht":
        padded = a.new_zeros(padded_length(operator.n_input), a.shape[1])
        padded[start:stop] = a * _signs(operator, a.device)[start:stop, None]
        kept = _kept(operator, a.device)
        return _walsh_hadamard(padded)[kept] / math.sqrt(operator.n_rows)
    out = a.new_zeros(operator.n_rows, a.shape[1])
    for first, last, columns in _columns(operator, start, stop, a.device):
        rows = a[first - start : last - start]
        if operator.kind == "gaussian":
            out += columns.T @ rows
            continue
        places, entries = columns
        for place, entry in zip(places.unbind(1), entries.unbind(1), strict=True):
            out.index_add_(0, place, rows * entry[:, None])
    return out


def twin_transposed_product(operator: SketchOperator, y: Tensor) -> Tensor:
    """Return the product of the transposed sketch with `y` of shape (m, k), in float64."""
    y = y.double()
    if operator.kind == "srht":
        padded = y.new_zeros(padded_length(operator.n_input), y.shape[1])
        padded[_kept(operator, y.device)] = y / math.sqrt(operator.n_rows)
        signs = _signs(operator, y.device)
        return _walsh_hadamard(padded)[: operator.n_input] * signs[:, None]
    parts = []
    for _, _, columns in _columns(operator, 0, operator.n_input, y.device):
        if operator.kind == "gaussian":
            parts.append(columns @ y)
        else:
            places, entries = columns
            parts.append((y[places] * entries[..., None]).sum(dim=1))
    return torch.cat(parts)


def _walsh_hadamard(x: Tensor) -> Tensor:
    shape, half = x.shape, 1
    while half < shape[0]:
        pairs = x.reshape(-1, 2, half, shape[1])
        x = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], dim=1)
        half *= 2
    return x.reshape(shape)


def _kept(operator: SketchOperator, device: torch.device) -> Tensor:
    kept = operator._record()[5]  # noqa: SLF001  # the same room
    return torch.from_numpy(np.asarray(kept, dtype=np.int64)).to(device)


def _signs(operator: SketchOperator, device: torch.device) -> Tensor:
    key = operator._record()[4]  # noqa: SLF001  # the same room
    return random_signs(operator.n_input, key, device)


def _columns(operator: SketchOperator, start: int, stop: int, device: torch.device) -> Any:
    """Yield blocks of columns: their range, and the normals or the places and entries of them."""
    m, z, key = operator.n_rows, operator.n_nonzeros, operator._record()[4]  # noqa: SLF001
    size = max(1, _ENTRIES // (m if operator.kind == "gaussian" else z))
    for first in range(start, stop, size):
        last = min(first + size, stop)
        if operator.kind == "gaussian":
            yield first, last, normal_columns(m, key, first, last, device) / math.sqrt(m)
        else:
            places, signs = sparse_columns((m, z), key, first, last, device)
            yield first, last, (places, signs / math.sqrt(z))
