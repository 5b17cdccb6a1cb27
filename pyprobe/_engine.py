"""Which engine runs a call. Nobody else asks what an array is.

| input                    | engine                                                        |
|--------------------------|---------------------------------------------------------------|
| lists, numbers, NumPy    | ``NATIVE``: the Rust kernel                                   |
| torch tensors on the CPU | ``NATIVE_TORCH``: the same kernel on views without a copy     |
| torch tensors elsewhere  | ``TORCH``: the twin in the domain's ``_torch.py``             |
| a mixture                | ``TypeError``                                                 |

torch is never imported here: whoever passes a tensor has done so. Twins hand loops over pairs of
points to kernels of Triton where these run: `kernels`.
"""

from __future__ import annotations

import enum
import functools
import importlib
import itertools
import sys
import warnings
from typing import Any

import numpy as np

from pyprobe._warn import warn

__all__ = ["Engine", "kernels", "select"]


class Engine(enum.Enum):
    """Who computes: the Rust kernel on NumPy arrays or CPU tensors, or torch."""

    NATIVE = "native"
    NATIVE_TORCH = "native on torch tensors"
    TORCH = "torch"


# As module constants: the attribute look-up on an Enum class costs more than the whole fast path.
_NATIVE, _NATIVE_TORCH, _TORCH = Engine.NATIVE, Engine.NATIVE_TORCH, Engine.TORCH
_NUMPY = frozenset({np.ndarray, float, int, list, np.float64, np.float32})


def select(*arrays: Any, names: tuple[str, ...] = ()) -> Engine:
    """Return the engine for a call with these arguments; ``None`` stands for an absent one.

    `names` are what an error calls them.

    Raises
    ------
    TypeError
        If tensors are mixed with NumPy arrays or lists, or lie on different devices. Python
        numbers go with either.
    """
    for array in arrays:
        if type(array) not in _NUMPY:
            break
    else:
        return _NATIVE
    torch = sys.modules.get("torch")
    if torch is None:
        return _NATIVE
    tensor: Any = torch.Tensor
    device: Any = None
    on_cpu = others = False
    for array in arrays:
        if isinstance(array, tensor):
            if device is None:
                device, on_cpu = array.device, array.is_cpu
            elif array.device != device:
                raise _mixture(arrays, names, tensor)
        elif not (array is None or isinstance(array, (int, float))):
            others = True
    if device is None:
        return _NATIVE
    if others:
        raise _mixture(arrays, names, tensor)
    return _NATIVE_TORCH if on_cpu else _TORCH


def _mixture(arrays: tuple[Any, ...], names: tuple[str, ...], tensor: Any) -> TypeError:
    came = ", ".join(
        (f"{name!r} a " if name else "")
        + (f"torch tensor on {a.device}" if isinstance(a, tensor) else type(a).__name__)
        for a, name in itertools.zip_longest(arrays, names)
        if a is not None
    )
    return TypeError(
        f"arrays of one library on one device are expected; got {came}. Convert with "
        "torch.as_tensor, .to(device) or .numpy()."
    )


def kernels(module: str, device: Any, n_numbers: int) -> Any:
    """Return a module of Triton kernels where a device runs them, or None.

    `n_numbers` are those of the longest array: kernels count in 32 bits, and write a few for each.
    """
    if device.type != "cuda" or n_numbers >= 1 << 28:
        return None
    return _kernels(module, device)


@functools.cache
def _kernels(module: str, device: Any) -> Any:
    try:
        importlib.import_module("triton")
    except ImportError:  # torch brings it, but not on every system
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Triton's own, at the first kernel
            found = importlib.import_module(module)
            if found.works_on(device):
                return found
        reason = "their sums are wrong"
    except Exception as error:  # whatever it is, torch's own operations do without
        reason = f"{type(error).__name__}: {error}"
    warn(
        f"Triton's kernels do not run on {device} ({reason}). Torch's own operations take their "
        "place, which are many times slower; Triton needs a C compiler and a cache folder.",
        RuntimeWarning,
    )
    return None
