"""How far the posterior of a coreset is from that of all the data: importance weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from pyprobe._warn import warn
from pyprobe.errors import DomainError, NumericalWarning
from pyprobe.sketching._glm_data import Vector
from pyprobe.sketching._glm_fit import precision_factor

if TYPE_CHECKING:
    from pyprobe.sketching.glm import GLMCoreset

__all__ = ["GLMCoresetCheck", "compare", "judge_draws", "posterior_draws"]

_FAITHFUL, _USABLE = 0.9, 0.3
_FREEDOM, _SURPLUS = 5.0, 50
_STEPS, _NEAR = 20, 1e-2
_FAR = 3.0  # root mean square of draws, in standard deviations; that of a posterior is near 1
_STILL = 1e-3  # standard deviation of draws, in those of Laplace's approximation: no sampler moved
_OFF = 2.0  # of their mean from the center
_NARROW, _WIDE = 0.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GLMCoresetCheck:
    """How the posterior of a coreset compares with that of all the data.

    Attributes
    ----------
    verdict : {"faithful", "reweight", "unfaithful", "unknown"}
        ``"faithful"``: the effective size is at least 0.9 of the draws. ``"reweight"``: at least
        0.3, so that draws weighted by `log_weights` stand for the full posterior. ``"unfaithful"``:
        less. ``"unknown"``: the draws made here are too few in effect, because the posterior is far
        from Gaussian; pass those of a sampler. With means s standard deviations apart, and nothing
        else, a share :math:`e^{-s^2}` counts: 0.9 is s = 0.3, and 0.3 is s = 1.1.
    reason : str
        A sentence with the numbers, and a way out where one is needed; others where the draws may
        be no sample of the posterior.
    n_effective : float
        Effective sample size of the importance weights, at most n_draws.
    n_draws : int
        Draws compared.
    mean_shift : ndarray, shape (d,)
        Posterior mean of the coreset less that of all the data, in posterior standard deviations,
        estimated on the draws; meaningless where they are unfaithful, as then few of them count.
    log_sd_shift : ndarray, shape (d,)
        Likewise the logarithm of the ratio of the standard deviations.
    log_weights : ndarray, shape (n_draws,)
        Full log-likelihood less the coreset's at each draw, with their mean taken away.
    """

    verdict: Literal["faithful", "reweight", "unfaithful", "unknown"]
    reason: str
    n_effective: float
    n_draws: int
    mean_shift: Vector
    log_sd_shift: Vector
    log_weights: Vector

    def __repr__(self) -> str:
        return (
            f"GLMCoresetCheck(verdict={self.verdict!r}, n_effective={self.n_effective:.1f}, "
            f"n_draws={self.n_draws})"
        )


def posterior_draws(
    coreset: GLMCoreset, n_draws: int, rng: np.random.Generator
) -> tuple[Vector, float]:
    """Draw from the coreset's posterior under the prior of the fit, by resampling.

    Also returns the share of the proposals that counts, in effect.
    """
    center, factor = _own_mode(coreset)
    n, d = _SURPLUS * n_draws, coreset.dim
    normal = rng.normal(size=(n, d))
    steps = normal / np.sqrt(rng.chisquare(_FREEDOM, size=(n, 1)) / _FREEDOM)
    thetas: Vector = center + solve_triangular(factor, steps.T, lower=True, trans="T").T
    prior = ((thetas @ coreset.prior_precision) * thetas).sum(axis=1) / 2
    log_proposal = -(_FREEDOM + d) / 2 * np.log1p((steps**2).sum(axis=1) / _FREEDOM)
    weights = _weights(np.asarray(coreset.log_likelihood(thetas)) - prior - log_proposal)
    # Systematic: the copies of a draw number within one of what its weight asks for.
    levels = (np.arange(n_draws) + rng.random()) / n_draws
    chosen = np.minimum(weights.cumsum().searchsorted(levels), n - 1)
    return thetas[chosen], 1 / float((weights**2).sum()) / n


def _own_mode(coreset: GLMCoreset) -> tuple[Vector, Vector]:
    """Return mode and Cholesky factor of the coreset's posterior; a plain sample's is elsewhere."""
    prior, theta = coreset.prior_precision, coreset.center
    factor: Vector = cholesky(prior - coreset.center_hessian, lower=True)
    for _ in range(_STEPS):
        uphill = np.asarray(coreset.gradient(theta)) - prior @ theta
        step = cho_solve((factor, True), uphill)
        theta = theta + step
        try:
            factor = cholesky(prior - np.asarray(coreset.hessian(theta)), lower=True)
        except LinAlgError:  # far out the quadratic and the remainders may curve upwards
            theta = theta - step
            break
        if uphill @ step < _NEAR**2:
            break
    return theta, factor


def judge_draws(coreset: GLMCoreset, thetas: Vector) -> str:
    """Warn of draws that are unlike Laplace's approximation, and return the sentences.

    Those of a sampler that has not converged are so, of which likelihoods alone say nothing.

    Raises
    ------
    DomainError     if they do not vary.
    """
    factor = precision_factor(coreset.prior_precision - coreset.center_hessian)
    inverse = solve_triangular(factor, np.eye(coreset.dim), lower=True)
    widths, delta = np.linalg.norm(inverse, axis=0), thetas - coreset.center
    ratios, offsets = delta.std(axis=0, ddof=1) / widths, np.abs(delta.mean(axis=0)) / widths
    _check_moved(ratios, widths)
    if not coreset.control_variate:  # the posterior of a plain sample is elsewhere, by itself
        return ""
    distance = float(np.sqrt(((delta @ factor) ** 2).sum(axis=1).mean() / coreset.dim))
    found = []
    if distance > _FAR:
        found.append(f"lie {distance:.3g} posterior standard deviations from the center")
    if offsets.max() > _OFF:
        found.append(
            f"have a mean {offsets.max():.3g} standard deviations off the center in coordinate "
            f"{offsets.argmax()}"
        )
    for worst, is_odd in ((ratios.argmin(), ratios < _NARROW), (ratios.argmax(), ratios > _WIDE)):
        if is_odd.any():
            found.append(f"are {ratios[worst]:.3g} times as wide as it in coordinate {worst}")
    if not found:
        return ""
    sentences = (
        f"Against Laplace's approximation the draws {', and '.join(found)}. The check compares "
        "likelihoods where the draws are; it cannot know whether the sampler has converged. Unless "
        "the prior of the model moves or narrows them so, or the posterior is far from Gaussian: "
        "start the sampler at coreset.center, run it for longer, and give the fit that prior."
    )
    warn(f"GLMCoreset.check: {sentences}", NumericalWarning)
    return " " + sentences


def _check_moved(ratios: Vector, widths: Vector) -> None:
    least = int(ratios.argmin())
    if ratios[least] < _STILL:
        raise DomainError(
            "'draws' must be those of a sampler that has moved; got a standard deviation of "
            f"{ratios[least] * widths[least]:.3g} in coordinate {least}, where that of the "
            f"posterior is about {widths[least]:.3g}. Start the sampler at coreset.center and look "
            "at its step size; or give the fit the prior of the model, if that is so narrow."
        )


def compare(thetas: Vector, differences: Vector, proposal: float, remark: str) -> GLMCoresetCheck:
    """Judge by log-weights at draws; `proposal` is the share of proposals that counted."""
    n = len(thetas)
    weights = _weights(differences)
    n_effective = 1 / float((weights**2).sum())
    means, deviations = thetas.mean(axis=0), thetas.std(axis=0)
    full = weights @ thetas
    spread = np.sqrt(np.maximum(weights @ (thetas - full) ** 2, 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # a single draw counts
        shift, log_ratio = (means - full) / deviations, np.log(deviations / spread)
    verdict, reason = _verdict(n_effective, n, proposal)
    return GLMCoresetCheck(
        verdict=verdict,
        reason=reason + remark,
        n_effective=n_effective,
        n_draws=n,
        mean_shift=shift,
        log_sd_shift=log_ratio,
        log_weights=differences - differences.mean(),
    )


def _verdict(
    n_effective: float, n: int, proposal: float
) -> tuple[Literal["faithful", "reweight", "unfaithful", "unknown"], str]:
    counted = f"of {n} draws from its posterior {n_effective:.1f} count, in effect, for that of all"
    if proposal * _SURPLUS < 2:  # less than two proposals for a draw
        return "unknown", (
            "the posterior is too far from Gaussian for the draws made here; pass draws of a "
            "sampler."
        )
    if n_effective >= _FAITHFUL * n:
        return "faithful", f"{counted}."
    if n_effective >= _USABLE * n:
        return "reweight", f"{counted}; weight draws by exp(log_weights), or keep more rows."
    return "unfaithful", (
        f"{counted}; keep more rows, with the control variate, or give the prior of the model."
    )


def _weights(log_weights: Vector) -> Vector:
    weights: Vector = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return weights
