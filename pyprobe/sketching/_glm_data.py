"""Data of a generalized linear model with its natural link: what one pass over it gives.

The log-likelihood of a row is y eta - A(eta) + c(y) with eta = x . theta + offset, and all its
derivatives in eta but the first are those of the cumulant function A alone. That of all rows is
their sum with weights, such as the numbers of times that they were seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.special import expit, gammaln

from pyprobe._engine import Engine, select
from pyprobe._validate import as_float_array, as_weights, check_finite
from pyprobe.errors import DomainError, NotPositiveDefiniteError, PyprobeError, ShapeError
from pyprobe.sketching._chunks import Chunks, holds_chunks, is_used_up
from pyprobe.sketching._input import array_of, as_matrix, read_tall, refuse_meta

__all__ = [
    "FAMILIES",
    "LARGEST_ETA",
    "Data",
    "Vector",
    "as_data",
    "as_precision",
    "cells",
    "cumulant",
    "tamed_cumulant",
]

Vector: TypeAlias = npt.NDArray[np.float64]

FAMILIES = ("logistic", "poisson", "gaussian")
LARGEST_ETA = 500.0
"""Where the exponential of Poisson's family goes on along its tangent, to stay finite."""

_CELLS = 2**21  # etas held at once
_BLOCK = 2**18  # entries of a block of rows: 2 MB, which stay in the cache between its products


def cumulant(family: str, eta: Vector, order: int) -> Vector:
    """Return a derivative of A, of order 0 to 4, at `eta`."""
    if family == "gaussian":
        if order == 0:
            return eta**2 / 2
        return eta if order == 1 else np.full_like(eta, float(order == 2))
    if family == "poisson":
        value: Vector = np.exp(np.minimum(eta, LARGEST_ETA))
        if order == 0 and eta.size and eta.max() > LARGEST_ETA:
            value *= 1 + np.maximum(eta - LARGEST_ETA, 0)
        return value
    if order == 0:
        value = np.exp(-np.abs(eta))
        value = np.log1p(value, out=value)
        value += np.maximum(eta, 0)
        return value
    s: Vector = expit(eta)
    if order == 1:
        return s
    variance: Vector = s * expit(-eta)  # 1 - s would lose the digits of its tail
    if order == 2:
        return variance
    return variance * (1 - 2 * s if order == 3 else 1 - 6 * variance)


def tamed_cumulant(
    family: str, eta: Vector, steps: Vector, reach: Vector, curvature: Vector, order: int
) -> Vector:
    """Return a derivative, of order 0 to 2, of A(eta + step) where each step is within its reach.

    Beyond, A goes on along a parabola with the value and the slope that it has there, and the given
    curvature.
    """
    inner = np.clip(steps, -reach, reach)
    beyond = steps - inner
    value = cumulant(family, eta + inner, order)
    if not beyond.any():
        return value
    if order == 0:
        value += beyond * (cumulant(family, eta + inner, 1) + curvature * beyond / 2)
    elif order == 1:
        value += curvature * beyond
    else:
        value = np.where(beyond == 0, value, curvature)
    return value


@dataclass(frozen=True, eq=False, kw_only=True)
class Data:
    """Rows, responses, offsets and weights of a model.

    Rows are a matrix in C order, a CSR one, or chunks that are read anew in each pass.
    """

    family: str
    x: Any
    y: Vector
    offset: Vector
    weight: Vector

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        n, d = self.x.shape
        return n, d

    def blocks(self) -> Iterator[tuple[slice, Vector]]:
        """Yield some rows at a time, dense and in float64: what lies in memory stays small."""
        # A power of two, as pieces of chunks are: the blocks are the same, however rows are stored.
        size = 1 << max((_BLOCK // self.shape[1]).bit_length() - 1, 6)
        for begin, rows in self._pieces():
            n = rows.shape[0]
            for start in range(0, n, size):
                stop = min(start + size, n)
                yield slice(begin + start, begin + stop), _dense(rows[start:stop])

    def _pieces(self) -> Iterator[tuple[int, Any]]:
        """Yield matrices of rows, each with the number of its first one."""
        if isinstance(self.x, Chunks):
            yield from ((begin, as_matrix(samples)) for begin, samples in self.x.pieces())
        else:
            yield 0, self.x

    def rows(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.floating[Any]]:
        """Return some rows, dense and in their own dtype."""
        if isinstance(self.x, Chunks):
            return self.x.take_rows(indices).astype(self.x.dtype, copy=False)
        chosen = self.x[indices]
        return chosen if isinstance(chosen, np.ndarray) else chosen.toarray()

    def predict(self, theta: Vector) -> Vector:
        """Return x . theta, shape (n,); without the offset, and 0 for rows that do not count.

        So no step is judged by where it takes those.
        """
        found = np.empty(self.shape[0])
        for part, block in self.blocks():
            found[part] = block @ theta
        found[self.weight == 0] = 0
        return found

    @property
    def bases(self) -> Vector:
        """c(y) of each row."""
        if self.family == "logistic":
            return np.zeros_like(self.y)
        if self.family == "poisson":
            return np.asarray(-gammaln(self.y + 1), dtype=np.float64)
        return np.asarray(-(self.y**2 + np.log(2 * np.pi)) / 2)

    @cached_property
    def base(self) -> float:
        """The weighted sum of c(y)."""
        return float(self.weight @ self.bases)

    def value(self, eta: Vector) -> float:
        """Return the log-likelihood, given eta with the offset."""
        linear = (self.weight * self.y) @ eta
        return float(linear - self.weight @ cumulant(self.family, eta, 0)) + self.base

    def values(self, thetas: Vector) -> Vector:
        """Return the log-likelihood at each row of `thetas`, shape (k,)."""
        found = np.full(len(thetas), self.base)
        for part, block in self.blocks():
            weight = self.weight[part]
            for some in cells(len(thetas), len(block)):
                eta = thetas[some] @ block.T + self.offset[part]
                found[some] += eta @ (weight * self.y[part])
                found[some] -= cumulant(self.family, eta, 0) @ weight
        return found

    def derivatives(self, eta: Vector) -> tuple[Vector, Vector]:
        """Return gradient and Hessian of the log-likelihood, given eta with the offset."""
        d = self.shape[1]
        residual = self.weight * (self.y - cumulant(self.family, eta, 1))
        root = np.sqrt(self.weight * cumulant(self.family, eta, 2))
        gradient, hessian = np.zeros(d), np.zeros((d, d))
        for part, block in self.blocks():
            gradient += residual[part] @ block
            scaled = block * root[part, None]
            with np.errstate(over="ignore", invalid="ignore"):  # who takes it looks
                hessian -= scaled.T @ scaled
        return gradient, hessian

    def squares(self, factor: Vector) -> Vector:
        """Return x' (L L')^-1 x of each row, given L: its variance where L L' is a precision."""
        found = np.empty(self.shape[0])
        for part, block in self.blocks():
            solved = solve_triangular(factor, block.T, lower=True, check_finite=False)
            found[part] = np.einsum("ij,ij->j", solved, solved)
        return found


def cells(n_points: int, n_rows: int) -> list[slice]:
    """Return parts of the points, such that their etas on so many rows stay small in memory."""
    size = max(_CELLS // max(n_rows, 1), 1)
    return [slice(start, start + size) for start in range(0, n_points, size)]


def as_data(family: str, x: Any, y: Any, offset: Any, sample_weight: Any = None) -> Data:
    """Check the data of a model; CPU tensors are read as arrays."""
    names = ("x", "y", "offset", "sample_weight")
    chunked = holds_chunks(x)
    if select(None if chunked else x, y, offset, sample_weight, names=names) is Engine.TORCH:
        refuse_meta("x", x)
        raise TypeError(
            "'x' and 'y' must lie on the CPU: a fit reads them there. Pass .cpu(); the coreset "
            "itself takes a 'theta' on any device."
        )
    rows = _read_chunks(x) if chunked else _read_matrix(x)
    n = rows.shape[0]
    response = _column("y", y, n)
    _check_response(family, response)
    shift = np.zeros(n) if offset is None else _column("offset", offset, n)
    if sample_weight is None:
        weight = np.ones(n)
    else:
        weight = as_weights(
            "sample_weight", _plain("sample_weight", sample_weight), n, "row of 'x'"
        )
    return Data(family=family, x=rows, y=response, offset=shift, weight=weight)


def as_precision(value: Any, d: int) -> Vector:
    """Return a prior precision as a matrix: of a scalar, a diagonal or a matrix."""
    array = np.array(as_float_array("prior_precision", value), dtype=np.float64)
    if array.shape not in ((), (d,), (d, d)):
        raise ShapeError(
            f"'prior_precision' must be a number or have shape ({d},) or ({d}, {d}); got "
            f"{array.shape}."
        )
    check_finite("prior_precision", np.atleast_1d(array))
    if array.ndim < 2:
        if array.size and array.min() < 0:
            raise DomainError(f"'prior_precision' must not be negative; got {array.min()}.")
        return np.diag(np.broadcast_to(array, (d,)))
    if not np.allclose(array, array.T, rtol=1e-8, atol=0):
        raise DomainError("'prior_precision' must be symmetric; take (P + P.T) / 2.")
    least = np.linalg.eigvalsh(array)[0]
    if least < -1e-10 * np.abs(array).max():
        raise NotPositiveDefiniteError(
            f"'prior_precision' must be positive semidefinite; its least eigenvalue is {least:.3g}."
        )
    return array


def _read_matrix(x: Any) -> Any:
    tall = read_tall("x", x)
    tall.check_finite()
    return tall.matrix()


def _read_chunks(x: Any) -> Chunks:
    if is_used_up(x):
        raise TypeError(
            f"'x' must be rows that can be read more than once; got a {type(x).__name__}, which is "
            "used up by the first pass. Pass the function that makes it, a list of chunks or an "
            "np.memmap: a coreset needs sums over all rows at the mode, and finds that by passes."
        )
    try:
        rows = Chunks.read("x", x)
        rows.check_finite()
        next(rows.pieces())  # sees whether reading begins anew
    except (TypeError, PyprobeError) as error:  # some call all rows 'a'
        raise type(error)(str(error).replace("'a'", "'x'", 1)) from None
    return rows


def _column(name: str, value: Any, n: int) -> Vector:
    array = np.ascontiguousarray(as_float_array(name, _plain(name, value)), dtype=np.float64)
    if array.shape != (n,):
        raise ShapeError(
            f"'{name}' must have shape ({n},), one number a row of 'x'; got {array.shape}."
        )
    check_finite(name, array)
    return array


def _plain(name: str, value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return array_of(name, value) if hasattr(value, "detach") else value


def _check_response(family: str, y: Vector) -> None:
    if family == "logistic":
        wrong = (y != 0) & (y != 1)
        wanted, out = "0 or 1", "Of -1 and 1 make (y + 1) / 2."
    elif family == "poisson":
        wrong = (y < 0) | (y != np.floor(y))
        wanted, out = (
            "counts 0, 1, 2, ...",
            "A rate goes with the logarithm of its exposure, 'offset'.",
        )
    else:
        return
    if wrong.any():
        index = int(wrong.argmax())
        raise DomainError(
            f"'y' must hold {wanted} for the {family} family; got {y[index]:.6g} at index {index}. "
            + out
        )


def _dense(rows: Any) -> Vector:
    array = rows if isinstance(rows, np.ndarray) else rows.toarray()
    return np.asarray(array, dtype=np.float64)
