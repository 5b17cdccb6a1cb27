"""The EM iteration of von Mises-Fisher mixtures, from its seeds to the best of several starts.

The E-step is one pass of a kernel, which returns sums; the M-step is made of these. What is asked
of an iteration is in the documentation of `pyprobe.directional.mixture`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pyprobe import _rng
from pyprobe.cluster import EMInfo, Expectation, expectation_maximization, merge_directions
from pyprobe.directional._mixture_data import Data
from pyprobe.directional._numpy import cumulant, log_uniform
from pyprobe.progress import Callback, Progress
from pyprobe.special import bessel_ratio, bessel_ratio_inverse

__all__ = ["EM", "Fitted", "Parameters", "Statistics", "best_of_starts", "log_offsets"]

Vector: TypeAlias = npt.NDArray[np.float64]

_SEED_ROUNDS, _SEED_STEPS = 3, 2
"""Rounds of seeds, as many as components each, and steps of spherical k-means before the clusters
are merged. Fewer miss components in hundreds of dimensions; more find no others."""
_STARVED = 0.5
"""A component with fewer samples than this is given a new place."""
_SMALLEST_COMPLEMENT = {8: 1e-10, 4: 1e-6}
"""Least 1 - R of a component, by the bytes of a float: copies of one direction would else have an
infinite concentration, and single precision cannot tell smaller ones from rounding."""


class Parameters(NamedTuple):
    """Where an EM iteration stands: directions (d, k) of any length, their norms, the rest."""

    directions: Any
    norms: Vector
    concentrations: Vector
    weights: Vector


class Statistics(NamedTuple):
    """What a step of the kernel returns."""

    resultants: Any
    squared_norms: Vector
    counts: Vector
    squared_counts: Vector
    log_likelihood: float
    worst: int


class Fitted(NamedTuple):
    """Where EM ended, and how it went there."""

    em: EM
    parameters: Parameters
    info: EMInfo


def best_of_starts(
    data: Data,
    n_components: int,
    *,
    hard: bool,
    common: bool,
    corrected: bool,
    locs: Vector | None,
    n_init: int,
    max_iter: int,
    tol: float,
    generator: np.random.Generator,
    callback: Callback | None,
) -> Fitted:
    """Run EM from `n_init` starts, and return the run with the highest log-likelihood."""
    best: Fitted | None = None
    for run in range(n_init):
        em = EM(data, n_components, hard, common, corrected)
        parameters, info = expectation_maximization(
            em.expect,
            em.maximize,
            em.start(_rng.key(generator), locs),
            max_iter=max_iter,
            tol=tol,
            monotone=not corrected,
            callback=callback and _in_run(callback, run, n_init),
        )
        if best is None or info.log_likelihood > best.info.log_likelihood:
            best = Fitted(em, parameters, info)
        if info.stopped:
            break
    assert best is not None  # n_init is at least 1
    return best


def _in_run(callback: Callback, run: int, n_runs: int) -> Callback:
    """Tell `callback` the steps of all runs together."""

    def shifted(progress: Progress) -> bool | None:
        total = progress.total
        return callback(replace(progress, step=run * total + progress.step, total=n_runs * total))

    return shifted


class EM:
    """The two steps of EM for one start."""

    def __init__(
        self, data: Data, n_components: int, hard: bool, common: bool, corrected: bool
    ) -> None:
        self.data = data
        self.n_components = n_components
        self.hard, self.common, self.corrected = hard, common, corrected
        self.moves_left = n_components
        self.least_complement = _SMALLEST_COMPLEMENT[data.itemsize]
        self.counts = self.squared_counts = self.lengths = np.zeros(n_components)

    def start(self, key: int, locs: Vector | None) -> Parameters:
        """Make clusters of seeds, or of one assignment to the nearest of `locs`."""
        data, k = self.data, self.n_components
        if locs is not None:
            directions = data.to_kernel(np.ascontiguousarray(locs.T))
        else:
            seeds = data.kernels.spherical_seeds(data.samples, k, _SEED_ROUNDS, key)
            directions, norms = data.columns(seeds), np.ones(len(seeds))
            for _ in range(_SEED_STEPS):
                directions, norms = _directions(directions, norms, self._assign(directions, norms))
            groups = merge_directions(data.to_numpy(directions).T, k)
            directions = directions @ data.to_kernel(np.eye(k)[groups])
        norms = np.linalg.norm(data.to_numpy(directions), axis=0)
        # Where opposite clusters were joined the sum may be zero.
        norms = np.where(norms > 0, norms, 1)
        s = self._assign(directions, norms)
        return self.maximize(Parameters(directions, norms, np.zeros(k), np.zeros(k)), s)[0]

    def expect(self, p: Parameters) -> Expectation[Statistics]:
        """Responsibilities and their sums, by one pass over the data."""
        n, d = self.data.shape
        offset = log_offsets(d, p.concentrations, p.weights)
        s = self._step(p.directions, p.concentrations / p.norms, offset, hard=self.hard)
        value = s.log_likelihood / n
        # Logits are differences of two numbers about as large as the concentration.
        size = max(1.0, abs(value), float(p.concentrations.max()))
        return Expectation(value, 16 * 2.0 ** (-52 if self.data.itemsize == 8 else -23) * size, s)

    def maximize(self, previous: Parameters, s: Statistics) -> tuple[Parameters, int]:
        """Directions, concentrations and weights from the sums."""
        directions, norms = _directions(previous.directions, previous.norms, s)
        self.counts, self.squared_counts = s.counts, s.squared_counts
        self.lengths = np.sqrt(s.squared_norms)
        concentrations = self._concentrations(self.common, self.corrected)
        weights = s.counts / s.counts.sum()
        starved = np.flatnonzero(s.counts < _STARVED)
        moved = min(1, len(starved), self.moves_left)
        if moved:
            k = starved[0]
            directions[:, k] = self.data.columns([s.worst])[:, 0]
            norms[k] = 1
            concentrations[k] = self._concentrations(True, self.corrected)[k]
            weights[k] = 1 / self.n_components
            weights /= weights.sum()
            self.moves_left -= 1
        return Parameters(directions, norms, concentrations, weights), moved

    def collapsed(self) -> tuple[int, ...]:
        """Components whose samples all lie in one direction."""
        length = self._mean_lengths(self.common, self.corrected)
        return _places((1 - length <= self.least_complement) & (self.counts > 0))

    def doubtful(self) -> tuple[int, ...]:
        """Components whose concentrations are off by more than their standard errors."""
        if self.common or self.corrected:
            return ()
        kappa = self._concentrations(common=False, corrected=False)
        unbiased = self._concentrations(common=False, corrected=True)
        slope = np.asarray(bessel_ratio(self.data.shape[1] / 2 - 1, kappa, derivative=(0, 1)))
        error = 1 / np.sqrt(np.maximum(self.counts, 1) * slope)
        return _places((self.counts > 1) & (kappa - unbiased > error))

    def _step(self, directions: Any, scale: Vector, offset: Vector, *, hard: bool) -> Statistics:
        return Statistics(
            *self.data.kernels.vmf_mixture_step(
                self.data.samples, (directions, scale, offset), hard
            )
        )

    def _assign(self, directions: Any, norms: Vector) -> Statistics:
        """Spherical k-means: every row wholly to the nearest direction."""
        return self._step(directions, 1 / norms, np.zeros(len(norms)), hard=True)

    def _concentrations(self, common: bool, corrected: bool) -> Vector:
        """Solve A(kappa) = R for every component."""
        length = self._mean_lengths(common, corrected)
        complement = np.maximum(1 - length, self.least_complement)
        order = self.data.shape[1] / 2 - 1
        return np.asarray(bessel_ratio_inverse(order, 1 - complement, complement=complement))

    def _mean_lengths(self, common: bool, corrected: bool) -> Vector:
        """Mean resultant lengths R_k, or the common one k times."""
        if corrected:
            # E |S|^2 = Q + (N^2 - Q) rho^2, since different rows are independent.
            above = self.lengths**2 - self.squared_counts
            pairs = self.counts**2 - self.squared_counts
            # A single row says nothing of a concentration: rounding must not decide otherwise.
            pairs = np.where(pairs > 1e-9 * self.counts**2, pairs, 0)
            if common:
                above, pairs = above.sum(keepdims=True), pairs.sum(keepdims=True)
            length = np.sqrt(np.maximum(_ratio(above, pairs), 0))
        elif common:
            length = _ratio(self.lengths.sum(keepdims=True), self.counts.sum(keepdims=True))
        else:
            length = _ratio(self.lengths, self.counts)
        lengths: Vector = np.minimum(np.broadcast_to(length, self.n_components), 1)
        return lengths


def _directions(directions: Any, norms: Vector, s: Statistics) -> tuple[Any, Vector]:
    """Return the resultants and their norms; the old direction where a resultant is zero."""
    resultants, lengths = s.resultants, np.sqrt(s.squared_norms)
    for k in np.flatnonzero(lengths == 0):
        resultants[:, k] = directions[:, k] / norms[k]
        lengths[k] = 1
    return resultants, lengths


def log_offsets(d: int, concentrations: Vector, weights: Vector) -> Vector:
    """Logits at the equator of each component: log alpha + log C_d(kappa).

    log C_d(kappa) is the log-density of the uniform distribution less the cumulant G(kappa).
    """
    with np.errstate(divide="ignore"):  # a component of weight 0
        log_weights = np.log(weights)
    return np.asarray(log_weights + log_uniform(d) - cumulant(concentrations, d))


def _ratio(a: Vector, b: Vector) -> Vector:
    """Divide, with 0 where `b` is not positive."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _places(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(k) for k in np.flatnonzero(mask))
