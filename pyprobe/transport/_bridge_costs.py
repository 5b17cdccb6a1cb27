"""What a light Schrödinger bridge costs, and how well it explains two samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from pyprobe.transport._components import Components, Vector, blocks, normalize
from pyprobe.transport.gaussian_mixture import mixture_at
from pyprobe.typing import Array, FloatArray

__all__ = ["KLEstimate", "backward_weights", "expected_cost", "kl_to_reference", "mean_log_prob"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KLEstimate:
    """Kullback-Leibler divergences, one a row, and how well they are known.

    Attributes
    ----------
    value : ndarray or tensor, shape (m,)
        In nats.
    standard_error : ndarray or tensor, shape (m,)
        Of the mean over draws; 0 where `value` is in closed form.
    n_draws : int
        Draws a row; 0 for the closed form.
    """

    value: Array
    standard_error: Array
    n_draws: int

    def __repr__(self) -> str:
        worst = max(map(float, self.standard_error), default=0.0)
        return (
            f"KLEstimate(n_rows={len(self.value)}, n_draws={self.n_draws}, "
            f"standard_error up to {worst:.1e})"
        )


def expected_cost(components: Components, x0: Vector) -> Vector:
    """Return the expected half squared distance to the end, for each start."""
    traces = components.epsilon * components.eigenvalues.sum(axis=1)
    shares, squares = np.exp(components.log_shares(x0, 0.0)), _mean_squares(components, x0)
    cost: Vector = (shares * (squares + traces)).sum(axis=1) / 2
    return cost


def kl_to_reference(
    components: Components, x0: Vector, n: int, generator: np.random.Generator
) -> KLEstimate:
    """Return the divergence of the end's law from that of Brownian motion, for each start.

    With the component k of the end x1, of law N_k, and N the law of Brownian motion,
    KL = sum_k p_k KL(N_k | N) - H(p) + E H(p(. | x1)), whose last term alone needs draws.
    """
    excess = components.eigenvalues - 1
    shapes = (excess - np.log1p(excess)).sum(axis=1)
    law = mixture_at(components, x0, 0.0, 1.0)
    shares, squares = np.exp(law.log_weights), _mean_squares(components, x0)
    value = (shares * (shapes + squares / components.epsilon)).sum(axis=1) / 2
    if components.n_components == 1:
        return KLEstimate(value=value, standard_error=np.zeros(len(x0)), n_draws=0)
    mean, sums = np.zeros(len(x0)), np.zeros(len(x0))
    for count in range(1, n + 1):  # Welford's sums: no draws are kept
        ends = law.sample(rng=generator).astype(np.float64, copy=False)
        entropy = entr(np.exp(components.log_shares(ends, 1.0))).sum(axis=1)
        away = entropy - mean
        mean += away / count
        sums += away * (entropy - mean)
    value += mean - entr(shares).sum(axis=1)
    return KLEstimate(value=value, standard_error=np.sqrt(sums / (n - 1) / n), n_draws=n)


def mean_log_prob(components: Components, x0: Vector, x1: Vector) -> float:
    """Return the mean log-density of the ends given the starts, over all pairs."""
    u, y = components.place(x0, 0.0), components.place(x1, 1.0)
    inner = float(u.mean(axis=0) @ y.mean(axis=0)) / components.epsilon
    log_c = _log_normalizers(components, x0, u)
    return float(components.log_target(x1).mean() - log_c.mean()) + inner


def backward_weights(components: Components, x1: FloatArray, x0: FloatArray) -> FloatArray:
    """Return the probabilities of the starts `x0` given each end, (m, n)."""
    starts = x0.astype(np.float64, copy=False)
    u = components.place(starts, 0.0)
    log_c = _log_normalizers(components, starts, u)
    dtype = np.float32 if x1.dtype == x0.dtype == np.float32 else np.float64
    weights = np.empty((len(x1), len(x0)), dtype)
    for rows in blocks(len(x1), len(x0)):
        inner = components.place(x1[rows].astype(np.float64), 1.0) @ u.T / components.epsilon
        weights[rows] = np.exp(normalize(inner - log_c)[0])
    return weights


def _log_normalizers(components: Components, x0: Vector, u: Vector) -> Vector:
    """Return log c(x0), in the frame: the starts are `u` there."""
    squares = (u * u).sum(axis=1) / (2 * components.epsilon)
    log_c: Vector = components.log_sums(x0, 0.0) + squares
    return log_c


def _mean_squares(components: Components, x0: Vector) -> Vector:
    """Return the squared mean displacement of each start by each component, (m, k)."""
    now = components.at(0.0)
    squares = np.empty((len(x0), components.n_components))
    for rows in blocks(len(x0), components.width):
        pulls = now.gains * components.offsets(components.place(x0[rows], 0.0), now)
        squares[rows] = ((pulls + components.turned_motion) ** 2).sum(axis=-1)
    return squares
