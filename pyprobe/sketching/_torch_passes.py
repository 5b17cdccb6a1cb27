"""Passes over the rows of a tensor on another device than the CPU, made of torch.

Products are made there in double precision, a block of rows at a time; what comes to the host are
matrices of the columns, scores (n,) and the few rows that a sample asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyprobe.errors import NotFiniteError
from pyprobe.sketching._input import Matrix, Passes, Vector

__all__ = ["TensorRows"]

_BLOCK = 1 << 24
"""Numbers of a block."""


@dataclass(frozen=True, slots=True)
class TensorRows(Passes):
    """A dense tensor (n, d) of any device."""

    name: str
    a: Tensor
    dtype: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        # Types of half precision count as on the CPU, where they are widened to float32.
        single = self.a.dtype.is_floating_point and self.a.dtype is not torch.float64
        object.__setattr__(self, "dtype", np.dtype(np.float32 if single else np.float64))

    @property
    def shape(self) -> tuple[int, int]:
        return self.a.shape[0], self.a.shape[1]

    def wrap(self, found: Any) -> Tensor:
        kind = self.a.dtype if self.a.dtype.is_floating_point else torch.float64
        return torch.as_tensor(found).to(device=self.a.device, dtype=kind)

    def _blocks(self, width: int) -> Iterator[tuple[slice, Tensor]]:
        n, size = len(self.a), max(1, _BLOCK // max(width, self.a.shape[1]))
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            yield rows, self.a[rows].double()

    def _here(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64, device=self.a.device)

    def _framed(self, rows: Tensor, frame: Tensor | None) -> Tensor:
        if frame is None:
            return rows
        return rows * frame if frame.ndim == 1 else rows @ frame

    def check_finite(self) -> Vector:
        maxima = self._here(np.zeros(self.shape[1]))
        for rows, block in self._blocks(0):
            bad = ~torch.isfinite(block)
            if bad.any():
                row, column = (int(at) for at in bad.nonzero()[0])
                raise NotFiniteError(
                    f"'{self.name}' must be finite; entries that are infinite or NaN: "
                    f"{int(bad.sum())}, the first at row {rows.start + row}, column {column}"
                )
            maxima = torch.maximum(maxima, block.abs().amax(dim=0))
        return maxima.cpu().numpy()

    def gram(self, frame: Matrix | Vector | None = None) -> Matrix:
        basis = None if frame is None else self._here(frame)
        total: Any = 0.0
        for _, block in self._blocks(0):
            rows = self._framed(block, basis)
            total = total + rows.T @ rows
        return np.asarray(total.cpu().numpy())

    def squared_norms(self, transform: Matrix) -> Vector:
        matrix = self._here(transform)
        parts = [(block @ matrix).square().sum(dim=1) for _, block in self._blocks(len(matrix.T))]
        return np.asarray(torch.cat(parts).cpu().numpy())

    def constant(self, value: float) -> Vector:
        return np.full(self.shape[0], value)

    def lewis_step(
        self, frame: Matrix | Vector | None, transform: Matrix, log_w: Vector, p: float, c: float
    ) -> tuple[Vector, Matrix, float]:
        basis = None if frame is None else self._here(frame)
        matrix, logs = self._here(transform), self._here(log_w)
        total: Any = 0.0
        new, worst = [], self._here(0.0)
        for rows, block in self._blocks(len(matrix.T)):
            framed = self._framed(block, basis)
            q = (framed @ matrix).square().sum(dim=1)
            live = (q > 0) & (logs[rows] > -torch.inf)
            step = torch.where(live, q.log() - (2 / p) * logs[rows], 0.0)
            worst = torch.maximum(worst, step.abs().max())
            new.append(torch.where(live, logs[rows] + c * step, -torch.inf))
            factor = torch.where(live, ((1 - 2 / p) * new[-1]).exp(), 0.0)
            total = total + framed.T @ (factor[:, None] * framed)
        return torch.cat(new).cpu().numpy(), np.asarray(total.cpu().numpy()), float(worst)

    def pair_power_sums(
        self, transform: Matrix, points: Matrix, weights: Vector, p: float
    ) -> Vector:
        matrix, w = self._here(transform @ points.T), self._here(weights)
        parts = [(block @ matrix).abs() ** p @ w for _, block in self._blocks(len(w))]
        return np.asarray(torch.cat(parts).cpu().numpy())

    def sketch(self, n_rows: int) -> Matrix:
        from pyprobe.sketching._torch import twin_product
        from pyprobe.sketching.operators import sketch_operator

        operator = sketch_operator("sparse_sign", n_rows, len(self.a), rng=0)
        parts = (twin_product(operator, block, rows.start) for rows, block in self._blocks(0))
        total: Any = sum(parts)
        return np.asarray(total.cpu().numpy())

    def take_rows(self, indices: Any) -> Matrix:
        at = torch.as_tensor(np.asarray(indices), device=self.a.device)
        return np.asarray(self.a[at].double().cpu().numpy())

    def dense(self) -> Matrix:
        return np.asarray(self.a.double().cpu().numpy())
