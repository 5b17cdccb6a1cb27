r"""The components of a light Schrödinger bridge, and the closed forms that all its methods share.

Here time runs from 0 to 1, :math:`\varepsilon` is that of the whole horizon, and u is the place
relative to the origin. Component k takes u to :math:`N(r_k + S_k u, \varepsilon S_k)`, and has
probability :math:`\alpha_k` at u = 0. With :math:`D_k(t) = (1 - t) I + t S_k`,
:math:`z_k = u - t r_k` and the pull :math:`q_k = (S_k - I) D_k(t)^{-1} z_k`,

.. math::
   \log w_k(u, t) &= \log \alpha_k - \tfrac12 \log |D_k(t)|
      + (q_k \cdot z_k + 2 r_k \cdot u - t |r_k|^2) / (2 \varepsilon), \\
   X_t \mid X_s = u, k &\sim N(u + (t - s) (r_k + q_k),\;
      \varepsilon (t - s) D_k(t) D_k(s)^{-1}),

k being drawn with the weights :math:`w_k(u, s)`, normalized; the drift is their mean of
:math:`r_k + q_k`, and the logarithm of their sum is that of the potential of u at s. Nothing here
is singular at s = 0 or t = 1, nor divides a difference of large numbers by a small :math:`S_k`. At
time 0 :math:`z_k` is u itself, so that products of matrices do for scales along the axes; there
this is Korotin, Gushchin and Burnaev (2024), propositions 3.2 and 3.3.

In a frame that moves with a velocity m, :math:`y = u - t m` stands for u and :math:`r_k - m` for
:math:`r_k`. This takes m from the drift and :math:`(m \cdot u - t |m|^2 / 2) / \varepsilon` from
every :math:`\log w_k`, so the components weigh the same. The mean of the :math:`r_k` for m leaves
small numbers, however far apart the two ends are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pyprobe import _core

__all__ = ["Components", "Time", "Vector", "blocks", "normalize", "weighted_squares"]

Vector: TypeAlias = npt.NDArray[np.float64]
Time: TypeAlias = float | Vector
"""A time between 0 and 1, or one a row."""

BLOCK = 2**17
"""The most numbers in a temporary of one for each row, component and coordinate."""


def blocks(n: int, width: int) -> Iterator[slice]:
    """Cut n rows into blocks whose temporaries, of `width` numbers a row, stay in the cache."""
    size = max(1, BLOCK // max(1, width))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def normalize(log_weights: Vector) -> tuple[Vector, Vector]:
    """Return log-weights that sum to 1 along the last axis, and the logarithm of the old sum."""
    top = log_weights.max(axis=-1, keepdims=True)
    total = top + np.log(np.exp(log_weights - top).sum(axis=-1, keepdims=True))
    return log_weights - total, total[..., 0]


class Moment(NamedTuple):
    """A time, or one a row, and what the components make of it."""

    t: Time
    gains: Vector
    """The eigenvalues of (S - I) / D(t), which make a pull of z: (k, d), or (n, k, d)."""
    halves: Vector
    """Half the logarithms of the determinants of D(t): (k,), or (n, k)."""


@dataclass(frozen=True, eq=False)
class Components:
    """The components in a moving frame, each in the eigenbasis of its own scale."""

    log_weights: Vector
    """The logarithms of the probabilities at the origin, (k,)."""
    shifts: Vector
    """Where the origin goes to, in the frame: (k, d)."""
    eigenvalues: Vector
    """Of the scales, (k, d)."""
    bases: Vector | None
    """Their eigenvectors, one a column, (k, d, d); None where they are the axes."""
    epsilon: float
    """Of the whole horizon."""
    origin: Vector
    velocity: Vector

    @classmethod
    def of(
        cls, log_weights: Vector, shifts: Vector, scales: Vector, epsilon: float, origin: Vector
    ) -> Components:
        """Make the frame and the eigenbases from what the bridge is told."""
        bases = None
        if scales.ndim == 3:
            eigenvalues, bases = np.linalg.eigh(scales)
        else:
            eigenvalues = np.broadcast_to(scales.reshape(len(scales), -1), shifts.shape)
        target = shifts.mean(axis=0)
        return cls(
            log_weights, shifts - target, eigenvalues, bases, epsilon, origin, target - origin
        )

    @property
    def n_components(self) -> int:
        """The number of components."""
        return len(self.log_weights)

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return int(self.shifts.shape[1])

    @property
    def width(self) -> int:
        """Numbers of a temporary a row."""
        return self.shifts.size

    @cached_property
    def parameters(self) -> tuple[Vector, Vector, Vector, float, Vector, Vector]:
        """What the kernels take, some of them beside `bases`."""
        scales = np.ascontiguousarray(self.eigenvalues)
        return self.log_weights, self.shifts, scales, self.epsilon, self.origin, self.velocity

    @property
    def frame(self) -> tuple[Vector, Vector, Vector, float, Vector, Vector] | None:
        """What the kernels take that are for scales along the axes; None for others."""
        return self.parameters if self.bases is None else None

    @cached_property
    def turned_shifts(self) -> Vector:
        """The shifts, each in its eigenbasis."""
        return self._turn_own(self.shifts)

    @cached_property
    def turned_motion(self) -> Vector:
        """Shift and velocity together, in the eigenbases."""
        return self._turn_own(self.shifts + self.velocity)

    def place(self, x: Vector, t: Time) -> Vector:
        """Return `x` in the frame at time `t`."""
        return x - (self.origin + np.multiply.outer(t, self.velocity))

    def denominators(self, t: Time) -> Vector:
        """Return the eigenvalues of D(t): (k, d), or (n, k, d) for a time a row."""
        tau = _over_components(t)
        found: Vector = (1 - tau) + tau * self.eigenvalues
        return found

    def at(self, t: Time) -> Moment:
        """Return what depends on the time alone."""
        denominators = self.denominators(t)
        halves = np.log(denominators).sum(axis=-1) / 2
        return Moment(t, (self.eigenvalues - 1) / denominators, halves)

    def offsets(self, y: Vector, now: Moment) -> Vector:
        """Return z in every eigenbasis, (n, k, d): (n, 1, d) where it is the same for all."""
        turned = self.turn(y)
        if isinstance(now.t, float) and now.t == 0:
            return turned
        z: Vector = turned - _over_components(now.t) * self.turned_shifts
        return z

    def log_weights_at(self, y: Vector, z: Vector, now: Moment) -> Vector:
        """Return log w (n, k), not normalized, at the places `y` with the offsets `z`."""
        squares = np.multiply.outer(now.t, (self.shifts**2).sum(axis=1))
        exponents = weighted_squares(z, now.gains) + 2 * (y @ self.shifts.T) - squares
        found: Vector = self.log_weights - now.halves + exponents / (2 * self.epsilon)
        return found

    def mean_step(self, shares: Vector, z: Vector, now: Moment) -> Vector:
        """Return the mean (n, d) of the components' drifts in the frame."""
        step: Vector = shares @ self.shifts
        if self.bases is not None:
            stacked = self.bases.transpose(0, 2, 1).reshape(-1, self.dim)
            step += (shares[:, :, None] * (now.gains * z)).reshape(len(z), -1) @ stacked
        elif z.shape[1] == 1 and now.gains.ndim == 2:
            step += (shares @ now.gains) * z[:, 0]
        else:
            step += np.matmul(shares[:, None, :], now.gains * z)[:, 0]
        return step

    def log_sums(self, x: Vector, t: Time) -> Vector:
        """Return the logarithm of the sum of the weights in the frame, (n,)."""
        if isinstance(t, float):
            return _core.bridge_log_sums_at(x, self.parameters, self.bases, t)
        return _core.bridge_log_sums_at_times(x, self.parameters, self.bases, t)

    def log_phi(self, x: Vector, t: Time) -> Vector:
        """Return the logarithm of the potential, (n,)."""
        # What the moving frame has taken from every component.
        common = (x - self.origin) @ self.velocity
        common -= np.multiply(t, self.velocity @ self.velocity / 2)
        found: Vector = self.log_sums(x, t) + common / self.epsilon - self.log_constant
        return found

    def log_shares(self, x: Vector, t: Time) -> Vector:
        """Return the logarithms of the normalized weights, (n, k)."""
        if self.frame is not None and isinstance(t, float):
            return _core.bridge_log_weights(x, self.frame, t)[0]
        shares = np.empty((len(x), self.n_components))
        for rows, now in self._blocks_at(len(x), t):
            y = self.place(x[rows], now.t)
            shares[rows] = normalize(self.log_weights_at(y, self.offsets(y, now), now))[0]
        return shares

    def drift(self, x: Vector, t: Time) -> Vector:
        """Return the drift at `x`, for a horizon of 1."""
        if isinstance(t, float):
            return _core.bridge_drift(x, self.parameters, self.bases, t)
        if self.frame is not None:
            return _core.bridge_drift_at_times(x, self.frame, t)
        drift = np.empty_like(x)
        for rows, now in self._blocks_at(len(x), t):
            y = self.place(x[rows], now.t)
            z = self.offsets(y, now)
            shares = np.exp(normalize(self.log_weights_at(y, z, now))[0])
            drift[rows] = self.velocity + self.mean_step(shares, z, now)
        return drift

    def log_density(self, x: Vector, starts: Vector, times: tuple[float, float]) -> Vector:
        """Return the log-densities of `x` (n, d) at the second time, given `starts` at the first.

        Row i goes with the start i modulo m, of shape (m, d).
        """
        return _core.bridge_log_density(x, starts, self.parameters, self.bases, times)

    def log_density_slopes(
        self, x: Vector, starts: Vector, times: tuple[float, float]
    ) -> tuple[Vector, Vector]:
        """Return the log-densities, and their gradients in `x`."""
        return _core.bridge_log_density_slopes(x, starts, self.parameters, self.bases, times)

    def log_target(self, x: Vector) -> Vector:
        """Return log v, the logarithm of the mixture of N(shift, epsilon scale), at `x`."""
        # What the process comes to from the origin, but for the sum of the weights there.
        densities = self.log_density(x, self.origin[None], (0.0, 1.0))
        return densities + normalize(self.log_weights)[1]

    @property
    def log_constant(self) -> float:
        """Half the logarithm of (2 pi epsilon)^d."""
        return self.dim / 2 * math.log(2 * math.pi * self.epsilon)

    def turn(self, y: Vector) -> Vector:
        """Return `y` in every eigenbasis: (n, k, d), or (n, 1, d) where all are the axes."""
        if self.bases is None:
            return y[:, None, :]
        stacked = self.bases.transpose(1, 0, 2).reshape(self.dim, -1)
        return (y @ stacked).reshape(len(y), self.n_components, self.dim)

    def turn_back(self, h: Vector) -> Vector:
        """Return vectors (n, k, d) that are given in the eigenbases."""
        if self.bases is None:
            return h
        found: Vector = np.einsum("kij,nkj->nki", self.bases, h)
        return found

    def as_matrices(self, variances: Vector) -> Vector:
        """Return matrices (k, d, d) of these eigenvalues; the same, (k, d), without bases."""
        if self.bases is None:
            return np.array(variances)
        found: Vector = np.einsum("kij,kj,klj->kil", self.bases, variances, self.bases)
        return found

    def _blocks_at(self, n: int, t: Time) -> Iterator[tuple[slice, Moment]]:
        """Cut n rows into blocks, each with its time or times."""
        common = None if isinstance(t, np.ndarray) else self.at(t)
        for rows in blocks(n, self.width):
            yield rows, common or self.at(cast(Vector, t)[rows])

    def _turn_own(self, vectors: Vector) -> Vector:
        """Return the vector of each component in its own eigenbasis."""
        if self.bases is None:
            return vectors
        found: Vector = np.einsum("kji,kj->ki", self.bases, vectors)
        return found


def _over_components(t: Time) -> Time:
    return t[:, None, None] if isinstance(t, np.ndarray) else t


def weighted_squares(z: Vector, weights: Vector) -> Vector:
    """Sum the squares of (n, k, d), times weights of (k, d) or (n, k, d), over the last axis."""
    if z.shape[1] == 1 and weights.ndim == 2:
        found: Vector = z[:, 0] ** 2 @ weights.T
        return found
    across = "nkd" if weights.ndim == 3 else "kd"
    sums: Vector = np.einsum(f"nkd,nkd,{across}->nk", z, z, weights)
    return sums
