"""The families of scales that the components of a bridge may have, and their M-steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "Kind", "Vector"]

Vector: TypeAlias = npt.NDArray[Any]
"""Also matrices and stacks of them: float64 arrays."""


class Kind:
    """A family of scales: which features the logits are linear in, and the M-step."""

    name: str

    def quadratic(self, scales: Vector) -> Vector:
        """Return the slopes, one a row, of ``x' S x / 2`` in the products of coordinates."""
        raise NotImplementedError

    def products(self, x: Vector) -> Vector:
        """Return those products, a row for each point."""
        raise NotImplementedError

    def covariances(self, squares: Vector, means: Vector) -> Vector:
        """Return covariances from means of those products, one a row."""
        raise NotImplementedError

    def apply(self, scales: Vector, x: Vector) -> Vector:
        """Return ``S_k x_k``."""
        raise NotImplementedError

    def inverse(self, scales: Vector) -> Vector:
        """Return the inverses."""
        return 1 / scales

    def between_inverses(self, inverse: Vector, covariances: Vector) -> Vector:
        """Return ``S^-1 C S^-1``."""
        return inverse**2 * covariances

    def log_det(self, scales: Vector, dim: int) -> Vector:
        """Return the logarithms of the determinants."""
        raise NotImplementedError

    def bridge(self, first: Vector, second: Vector, epsilon: float) -> Vector:
        """Return the S that solves ``S C0 S + epsilon S = C1``."""
        # The form without a difference: nothing cancels.
        return 2 * second / (epsilon + np.sqrt(epsilon**2 + 4 * first * second))

    def between(self, start: Vector, end: Vector, part: float) -> Vector:
        """Return scales a part of the way from one to the other."""
        return start ** (1 - part) * end**part

    def raised(self, covariances: Vector, floor: float) -> Vector:
        """Return covariances that are at least `floor`."""
        return np.maximum(covariances, floor)

    def pseudo_count(self, dim: int) -> float:  # noqa: ARG002
        """Return how many points the pooled covariance counts for."""
        return 2.0

    def identity(self, n: int, dim: int) -> Vector:
        """Return scales of one."""
        raise NotImplementedError

    def outer(self, x: Vector) -> Vector:
        """Return ``x_k x_k'``, as a covariance."""
        return x**2

    def form(self, scales: Vector, moments: Vector, dim: int) -> Vector:
        """Return the means of ``x' S_k x / 2`` over points with these second moments."""
        products = 0.5 * self.repeats(dim) * scales * moments
        found: Vector = products.reshape(len(products), -1).sum(1)
        return found

    def repeats(self, dim: int) -> int:  # noqa: ARG002
        """Return for how many coordinates a number of the scales stands."""
        return 1

    # Scales near others, S = A exp(z) A', in as many free numbers z as they have.

    def root(self, scales: Vector) -> Vector:
        """Return A with ``A A' = S``."""
        return np.sqrt(scales)

    def n_free(self, dim: int) -> int:
        """Return how many of them a component has."""
        return dim

    def spread(self, roots: Vector, x: Vector) -> Vector:
        """Return ``A_k x_k``."""
        return roots * x

    def spread_back(self, roots: Vector, x: Vector) -> Vector:
        """Return ``A_k' x_k``."""
        return roots * x

    def moved(self, roots: Vector, free: Vector) -> Vector:
        """Return the scales at the free numbers, one a row."""
        return roots**2 * np.exp(free.reshape(roots.shape))

    def pulled(self, roots: Vector, free: Vector, slopes: Vector) -> Vector:
        """Return the slopes in the free numbers, from those in the scales."""
        return (self.moved(roots, free) * slopes).reshape(len(roots), -1)

    def curvature(self, roots: Vector, covariances: Vector, epsilon: float, dim: int) -> Vector:
        """Return about the second derivatives of the loss in the free numbers, for a mass of 1."""
        found: Vector = self.repeats(dim) * (0.5 + roots**2 * covariances / epsilon)
        return found.reshape(len(roots), -1)

    def pooled(self, covariances: Vector, masses: Vector) -> Vector:
        """Return their weighted mean."""
        return np.tensordot(masses, covariances, 1)


class Spherical(Kind):
    name = "spherical"

    def quadratic(self, scales: Vector) -> Vector:
        return 0.5 * scales[:, None]

    def products(self, x: Vector) -> Vector:
        found: Vector = (x**2).sum(1, keepdims=True)
        return found

    def covariances(self, squares: Vector, means: Vector) -> Vector:
        found: Vector = np.maximum(squares[:, 0] - (means**2).sum(1), 0) / means.shape[1]
        return found

    def apply(self, scales: Vector, x: Vector) -> Vector:
        return scales[:, None] * x

    def log_det(self, scales: Vector, dim: int) -> Vector:
        return dim * np.log(scales)

    def identity(self, n: int, dim: int) -> Vector:  # noqa: ARG002
        return np.ones(n)

    def outer(self, x: Vector) -> Vector:
        found: Vector = (x**2).mean(1)
        return found

    def repeats(self, dim: int) -> int:
        return dim

    def n_free(self, dim: int) -> int:  # noqa: ARG002
        return 1

    def spread(self, roots: Vector, x: Vector) -> Vector:
        return roots[:, None] * x

    spread_back = spread


class Diagonal(Kind):
    name = "diagonal"

    def quadratic(self, scales: Vector) -> Vector:
        return 0.5 * scales

    def products(self, x: Vector) -> Vector:
        return x**2

    def covariances(self, squares: Vector, means: Vector) -> Vector:
        found: Vector = np.maximum(squares - means**2, 0)
        return found

    def apply(self, scales: Vector, x: Vector) -> Vector:
        return scales * x

    def log_det(self, scales: Vector, dim: int) -> Vector:  # noqa: ARG002
        found: Vector = np.log(scales).sum(1)
        return found

    def identity(self, n: int, dim: int) -> Vector:
        return np.ones((n, dim))


class Full(Kind):
    name = "full"

    def quadratic(self, scales: Vector) -> Vector:
        # x_i x_j with i < j stands for two entries.
        rows, columns = np.triu_indices(scales.shape[1])
        return np.where(rows == columns, 0.5, 1.0) * scales[:, rows, columns]

    def products(self, x: Vector) -> Vector:
        rows, columns = np.triu_indices(x.shape[1])
        found: Vector = x[:, rows] * x[:, columns]
        return found

    def covariances(self, squares: Vector, means: Vector) -> Vector:
        n, dim = means.shape
        rows, columns = np.triu_indices(dim)
        out = np.empty((n, dim, dim))
        out[:, rows, columns] = out[:, columns, rows] = squares
        found: Vector = out - means[:, :, None] * means[:, None]
        return found

    def apply(self, scales: Vector, x: Vector) -> Vector:
        found: Vector = np.einsum("kij,kj->ki", scales, x)
        return found

    def inverse(self, scales: Vector) -> Vector:
        return _symmetric(np.linalg.inv(scales))

    def between_inverses(self, inverse: Vector, covariances: Vector) -> Vector:
        return inverse @ covariances @ inverse

    def log_det(self, scales: Vector, dim: int) -> Vector:  # noqa: ARG002
        found: Vector = np.linalg.slogdet(scales)[1]
        return found

    def bridge(self, first: Vector, second: Vector, epsilon: float) -> Vector:
        # S = R [(R C0 R + eps^2 / 4)^(1/2) + eps / 2]^-1 R with R R = C1: C0 may be singular.
        root = _function(second, np.sqrt)
        middle = _symmetric(root @ first @ root)
        inner = _function(middle, lambda v: 1 / (np.sqrt(v + epsilon**2 / 4) + epsilon / 2))
        return _symmetric(root @ inner @ root)

    def between(self, start: Vector, end: Vector, part: float) -> Vector:
        return (1 - part) * start + part * end

    def raised(self, covariances: Vector, floor: float) -> Vector:
        return _function(covariances, lambda values: np.maximum(values, floor))

    def pseudo_count(self, dim: int) -> float:
        return float(dim)

    def identity(self, n: int, dim: int) -> Vector:
        return np.broadcast_to(np.eye(dim), (n, dim, dim)).copy()

    def outer(self, x: Vector) -> Vector:
        found: Vector = x[:, :, None] * x[:, None]
        return found

    # S = A T T' A' with A and T lower triangular: the free numbers are those of T below the
    # diagonal, and the logarithms of those on it.

    def root(self, scales: Vector) -> Vector:
        return np.linalg.cholesky(scales)

    def n_free(self, dim: int) -> int:
        return dim * (dim + 1) // 2

    def spread(self, roots: Vector, x: Vector) -> Vector:
        return self.apply(roots, x)

    def spread_back(self, roots: Vector, x: Vector) -> Vector:
        return self.apply(np.swapaxes(roots, 1, 2), x)

    def moved(self, roots: Vector, free: Vector) -> Vector:
        factors = roots @ _triangular(free, roots.shape[1])
        return _symmetric(factors @ np.swapaxes(factors, 1, 2))

    def pulled(self, roots: Vector, free: Vector, slopes: Vector) -> Vector:
        dim = roots.shape[1]
        turned = _triangular(free, dim)
        found = 2 * np.swapaxes(roots, 1, 2) @ slopes @ roots @ turned
        axis = np.arange(dim)
        found[:, axis, axis] *= turned[:, axis, axis]
        rows, columns = np.tril_indices(dim)
        return np.ascontiguousarray(found[:, rows, columns])

    def curvature(self, roots: Vector, covariances: Vector, epsilon: float, dim: int) -> Vector:
        held = np.einsum("kij,kil,klj->kj", roots, covariances, roots) / epsilon
        rows, columns = np.tril_indices(dim)
        found: Vector = 2 + 2 * (held[:, rows] + held[:, columns])
        return found


KINDS: dict[str, Kind] = {"diag": Diagonal(), "full": Full(), "spherical": Spherical()}
"""By what a user calls them."""


def _triangular(free: Vector, dim: int) -> Vector:
    """Return lower triangular matrices, one for each row; the numbers on the diagonal are logs."""
    rows, columns = np.tril_indices(dim)
    found = np.zeros((len(free), dim, dim))
    found[:, rows, columns] = free
    axis = np.arange(dim)
    found[:, axis, axis] = np.exp(found[:, axis, axis])
    return found


def _symmetric(matrices: Vector) -> Vector:
    return 0.5 * (matrices + np.swapaxes(matrices, 1, 2))


def _function(matrices: Vector, function: Callable[[Vector], Vector]) -> Vector:
    """Return a function of nonnegative symmetric matrices."""
    values, vectors = np.linalg.eigh(matrices)
    values = function(np.maximum(values, 0))
    return _symmetric(vectors * values[:, None] @ np.swapaxes(vectors, 1, 2))
