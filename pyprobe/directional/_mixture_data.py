"""Samples of a mixture as its kernels take them: dense or sparse, of NumPy or torch."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import as_float_array
from pyprobe.cluster._samples import as_samples, dtype_of, transposed
from pyprobe.errors import ShapeError

__all__ = ["Data"]

Vector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Samples as an engine takes them, and the way back to the caller's kind of array."""

    engine: Engine
    kernels: Any
    samples: Any
    shape: tuple[int, int]
    batch: tuple[int, ...]
    itemsize: int
    device: Any

    @classmethod
    def of(cls, x: Any, *, dim: int | None = None) -> Data:
        """Check `x`, to be fitted where `dim` is None, else to be judged in that dimension."""
        engine = select(x)
        kernels, samples = _on_engine(x, engine, judged=dim is not None)
        _check_shape(tuple(samples.shape), dim)
        batch, d = tuple(samples.shape[:-1]), samples.shape[-1]
        shape = (math.prod(batch), d)
        if kernels is _core:
            sparse = scipy.sparse.issparse(samples)
            samples = as_samples("x", samples if sparse else samples.reshape(shape))
            itemsize = dtype_of(samples).itemsize
        else:
            samples = samples.reshape(shape)
            itemsize = samples.element_size()
        kernels.check_unit_rows(samples)
        if dim is None and kernels is _core:
            samples = transposed(samples)
        device = None if engine is Engine.NATIVE else x.device
        return cls(engine, kernels, samples, shape, batch, itemsize, device)

    def to_kernel(self, array: Vector) -> Any:
        """Return a float64 array of parameters as the engine's."""
        return array if self.kernels is _core else self._tensor(array)

    def to_numpy(self, array: Any) -> Vector:
        """Return a float64 array of the engine's as NumPy's."""
        values: Vector = array if self.kernels is _core else array.cpu().numpy()
        return values

    def columns(self, rows: list[int]) -> Any:
        """Return some samples as the columns of a new float64 array."""
        if self.kernels is not _core:
            return self.samples[rows].T.double().contiguous()
        if isinstance(self.samples, np.ndarray):
            return np.ascontiguousarray(self.samples[rows].T, dtype=np.float64)
        indptr, indices, values, d = self.samples[0]
        out = np.zeros((d, len(rows)))
        for k, row in enumerate(rows):
            entries = slice(int(indptr[row]), int(indptr[row + 1]))
            out[indices[entries], k] = values[entries]
        return out

    def answer(self, array: Any, *, batch: bool = True) -> Any:
        """Return `array`, one entry a sample, as the caller's kind, shaped as the samples came."""
        dtype = np.float64 if self.itemsize == 8 else np.float32
        if isinstance(array, np.ndarray):
            array = array.astype(dtype if array.dtype.kind == "f" else np.int64, order="C")
            if self.engine is not Engine.NATIVE:
                array = self._tensor(array)
        elif array.is_floating_point():
            array = array.to(self.samples.dtype)
        return array.reshape(self.batch + array.shape[1:]) if batch else array

    def _tensor(self, array: Any) -> Any:
        return sys.modules["torch"].as_tensor(array, device=self.device)


def _on_engine(x: Any, engine: Engine, *, judged: bool) -> tuple[Any, Any]:
    """Return the kernels that take `x`, and `x` as floats for them."""
    if engine is Engine.NATIVE:
        return _core, x if scipy.sparse.issparse(x) else as_float_array("x", x)
    from pyprobe.directional import _mixture_torch

    samples = _mixture_torch.as_float_tensor(x)
    # Densities are differentiated, fits are not.
    if engine is Engine.TORCH or (judged and x.requires_grad):
        return _mixture_torch, samples
    return _core, samples.numpy(force=True)


def _check_shape(shape: tuple[int, ...], dim: int | None) -> None:
    if len(shape) == 0 or (dim is None and len(shape) != 2):
        raise ShapeError(
            f"'x' must be a matrix of shape (n, d), one sample a row; got shape {shape}."
        )
    if shape[-1] < 2:
        raise ShapeError(f"'x' must have at least 2 columns; got shape {shape}.")
    if dim not in (None, shape[-1]):
        raise ShapeError(
            f"'x' must have {dim} columns, as the mixture's locs have; got shape {shape}."
        )
