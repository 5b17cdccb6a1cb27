"""Batches of Gaussian mixtures: the laws of a light Schrödinger bridge, given where it is now.

Each row has its own weights and means; the covariances of the components are the same in all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pyprobe import _core, _rng
from pyprobe._io import Frozen
from pyprobe._validate import check_positive_int
from pyprobe.errors import ShapeError
from pyprobe.transport._bridge_input import as_rows
from pyprobe.transport._components import (
    Components,
    Moment,
    Vector,
    blocks,
)
from pyprobe.typing import ArrayLike, FloatArray, Rng

__all__ = ["GaussianMixtureBatch", "mixture_at"]


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMixtureBatch(Frozen):
    r"""A batch of m Gaussian mixtures of k components in d dimensions, one mixture a row.

    The law of a bridge's place at a later time: `LightSchrodingerBridge.conditional`,
    ``conditional_at`` and ``transition`` make it. The value is immutable.

    Attributes
    ----------
    weights, log_weights : ndarray, shape (m, k)
        Probabilities of the components, and their logarithms in float64.
    locs : ndarray, shape (m, k, d)
        Means of the components, made anew at each access.
    component_covariances : ndarray, shape (k, d) or (k, d, d)
        Covariances of the components, the same for every row: their diagonals where they are
        diagonal.
    mean : ndarray, shape (m, d)
        Means of the mixtures.
    covariance : ndarray, shape (m, d, d)
        Covariances of the mixtures.

    Notes
    -----
    Everything is computed in float64, in blocks of rows, and comes out in the dtype of the rows
    that the bridge was given, where that is float32, and else in float64. Cost O(k d) a
    row (O(k d^2) with full scales); draws O(k + d).

    Examples
    --------
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1], epsilon=0.5
    ... )
    >>> law = bridge.conditional([[0.0, 0.0], [0.0, 1.0]])
    >>> law
    GaussianMixtureBatch(n_rows=2, n_components=2, dim=2)
    >>> law.mean
    array([[0. , 0. ],
           [0. , 0.1]])
    >>> law.sample(n=3, rng=0).shape
    (3, 2, 2)
    """

    _components: Components
    _start: Vector
    _times: tuple[float, float]
    _dtype: Any

    def __repr__(self) -> str:
        k, d = self._components.shifts.shape
        return f"GaussianMixtureBatch(n_rows={len(self._start)}, n_components={k}, dim={d})"

    @cached_property
    def log_weights(self) -> Vector:
        """Logarithms of the probabilities of the components, shape (m, k)."""
        found = self._components.log_shares(self._start, self._times[0])
        found.flags.writeable = False
        return found

    @property
    def weights(self) -> FloatArray:
        """Probabilities of the components, shape (m, k)."""
        weights: FloatArray = np.exp(self.log_weights).astype(self._dtype, copy=False)
        return weights

    @property
    def locs(self) -> FloatArray:
        """Means of the components, shape (m, k, d)."""
        locs = np.empty((len(self._start), *self._components.shifts.shape), self._dtype)
        for rows in blocks(len(locs), self._components.width):
            steps = self._components.turn_back(self._steps(rows))
            locs[rows] = self._moved(rows)[:, None, :] + steps
        return locs

    @cached_property
    def component_covariances(self) -> FloatArray:
        """Covariances of the components, (k, d, d), or their diagonals (k, d)."""
        found = self._components.as_matrices(self._variances).astype(self._dtype, copy=False)
        found.flags.writeable = False
        return found

    @property
    def mean(self) -> FloatArray:
        """Means of the mixtures, shape (m, d)."""
        s, t = self._times
        mean: FloatArray = self._start + (t - s) * self._components.drift(self._start, s)
        return mean.astype(self._dtype, copy=False)

    @property
    def covariance(self) -> FloatArray:
        """Covariances of the mixtures, shape (m, d, d): within the components and between them."""
        m, d = self._start.shape
        inner = self._components.as_matrices(self._variances)
        covariance = np.empty((m, d, d), self._dtype)
        for rows in blocks(m, self._components.width + d * d):
            shares = np.exp(self._log_weights_of(rows))
            apart = self._components.turn_back(self._steps(rows))
            apart = apart - np.matmul(shares[:, None, :], apart)
            block = np.matmul((shares[:, :, None] * apart).swapaxes(1, 2), apart)
            if inner.ndim == 2:
                block[:, range(d), range(d)] += shares @ inner
            else:
                block += np.tensordot(shares, inner, 1)
            covariance[rows] = block
        return covariance

    def log_prob(self, x: ArrayLike) -> FloatArray:
        """Return the log-density at `x`, in nats.

        Parameters
        ----------
        x : array_like, shape (..., m, d)
            One point for each row, or several; any number where there is one row (m = 1).

        Returns
        -------
        ndarray, shape (..., m)

        Raises
        ------
        ShapeError      if the last two dimensions are not (m, d).
        NotFiniteError  if ``x`` is infinite or NaN somewhere.
        """
        m, d = self._start.shape
        points = as_rows("x", x, d, batch=True)
        if points.shape[-2] != m != 1:
            raise ShapeError(
                f"'x' must have shape (..., {m}, {d}), a point for each row; got {points.shape}."
            )
        flat = points.reshape(-1, d).astype(np.float64, copy=False)
        values = self._components.log_density(flat, self._start, self._times)
        dtype = np.float32 if points.dtype == self._dtype == np.float32 else np.float64
        return values.reshape(points.shape[:-1]).astype(dtype, copy=False)

    def sample(self, *, n: int | None = None, rng: Rng = None) -> FloatArray:
        """Draw from each mixture: the component first, then d normal numbers.

        Parameters
        ----------
        n : int, optional
            Draws from each row; None stands for one, without a dimension of its own.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        ndarray, shape (m, d) or (n, m, d)
        """
        count = 1 if n is None else check_positive_int("n", n)
        key = _rng.key(rng)
        if self._components.frame is None:
            draws = self._sample_turned(count, np.random.default_rng(key))
        else:
            draws = _core.bridge_sample(
                self._start, self._components.frame, self._times, count, key
            )
        found: FloatArray = (draws[0] if n is None else draws).astype(self._dtype, copy=False)
        return found

    def _sample_turned(self, count: int, generator: np.random.Generator) -> Vector:
        """Draw from components that each have axes of their own, shape (count, m, d)."""
        m, d = self._start.shape
        # All numbers come before the blocks are cut, which therefore do not matter.
        levels = generator.random((count, m)).reshape(-1)
        noise = generator.standard_normal((count, m, d)).reshape(-1, d)
        sources = np.broadcast_to(np.arange(m), (count, m)).reshape(-1)
        draws = np.empty((count * m, d))
        if count > 1:
            _ = self.log_weights  # needed more than once
        for rows in blocks(count * m, self._components.width):
            source = sources[rows]
            # Scaled by the total: rounding must not leave a level above the last step.
            steps = np.exp(self._log_weights_of(source)).cumsum(axis=1)
            which = (levels[rows, None] * steps[:, -1:] >= steps).sum(axis=1)
            draws[rows] = self._moved(source) + self._random_step(source, which, noise[rows])
        return draws.reshape(count, m, d)

    @cached_property
    def _variances(self) -> Vector:
        """Variances of the components in their eigenbases, (k, d)."""
        s, t = self._times
        ratio = self._components.denominators(t) / self._components.denominators(s)
        variances: Vector = self._components.epsilon * (t - s) * ratio
        return variances

    @cached_property
    def _now(self) -> Moment:
        return self._components.at(self._times[0])

    def _log_weights_of(self, rows: Any) -> Vector:
        """Return the log-weights of some rows; those of all are kept only if they are asked for."""
        if "log_weights" in self.__dict__:
            kept: Vector = self.log_weights[rows]
            return kept
        return self._components.log_shares(self._start[rows], self._times[0])

    def _moved(self, rows: Any) -> Vector:
        """Return where the rows would be if they only moved with the frame."""
        s, t = self._times
        moved: Vector = self._start[rows] + (t - s) * self._components.velocity
        return moved

    def _steps(self, rows: Any) -> Vector:
        """Return the mean steps of all components, beside the frame's, in the eigenbases."""
        s, t = self._times
        steps: Vector = (t - s) * self._now.gains * self._offsets(rows)
        steps += (t - s) * self._components.turned_shifts
        return steps

    def _offsets(self, rows: Any) -> Vector:
        c = self._components
        return c.offsets(c.place(self._start[rows], self._now.t), self._now)

    def _random_step(self, rows: Any, which: Any, noise: Vector) -> Vector:
        """Return a random step of the component `which` of each row."""
        c, (s, t) = self._components, self._times
        assert c.bases is not None  # along the axes, a kernel draws
        y = c.place(self._start[rows], s)
        deviations = np.sqrt(self._variances)
        steps = np.empty_like(y)
        for k in np.unique(which):
            own = which == k
            pulls = self._now.gains[k] * (y[own] @ c.bases[k] - s * c.turned_shifts[k])
            turned = (t - s) * (pulls + c.turned_shifts[k]) + deviations[k] * noise[own]
            steps[own] = turned @ c.bases[k].T
        return steps


def mixture_at(components: Components, x: FloatArray, s: float, t: float) -> GaussianMixtureBatch:
    """Return the laws at time `t` of a bridge that is at the rows of `x` at time `s` before."""
    start = x.astype(np.float64)
    start.flags.writeable = False
    return GaussianMixtureBatch(components, start, (s, t), x.dtype)
