"""The mode of a generalized linear model, by Newton's method, and scores of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky

from pyprobe.errors import DomainError
from pyprobe.sketching._glm_data import Data, Vector, cumulant

__all__ = ["MAX_ITER", "Mode", "find_mode", "precision_factor", "pulls", "remainders"]

MAX_ITER = 60

_TOL = 1e-4
"""Length of the last step, in posterior standard deviations: an expansion need not be nearer."""

_EVEN = 0.01  # and in eta
_STILL = 1e-5  # a move in eta, where others go 1
_PIVOT = 1e-13
_SERIES = 1e-3  # variance of eta below which two terms of Taylor's series have three digits
_NODES = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Mode:
    """Where Newton's method stopped, with the log-likelihood and its derivatives there."""

    theta: Vector
    eta: Vector
    gradient: Vector
    hessian: Vector
    factor: Vector
    """Lower Cholesky factor of the posterior precision."""
    n_iter: int
    last_step: float
    converged: bool


def find_mode(data: Data, precision: Vector, report: Callable[[int, float], bool]) -> Mode:
    """Maximize log-likelihood minus theta' P theta / 2, from 0.

    `report` takes the number of steps made and the value, and says whether to go on.

    Raises
    ------
    DomainError     if there is no mode: columns are dependent, or some direction only goes up.
    """

    def penalized(theta: Vector, eta: Vector) -> float:
        return data.value(eta) - float(theta @ precision @ theta) / 2

    theta, eta = np.zeros(data.shape[1]), data.offset
    value = penalized(theta, eta)
    length, converged, ends = np.inf, False, False
    n_iter = 0
    while True:
        gradient, hessian = data.derivatives(eta)
        factor = precision_factor(precision - hessian)
        if converged or ends or n_iter == MAX_ITER:
            break
        uphill = gradient - precision @ theta
        step = cho_solve((factor, True), uphill, check_finite=False)
        move = data.predict(step)
        if n_iter >= 8 and _only_goes_up(data, step, move, precision):
            raise _no_mode(data.family)
        length, farthest = float(np.sqrt(max(uphill @ step, 0.0))), float(np.abs(move).max())
        # Up to 1 in eta, Newton's step surely goes up, since |A'''| <= A'' (Bach 2010); so does the
        # shorter step, whatever `farthest` is.
        new = penalized(theta + step, eta + move)
        if farthest > 1 and not new > value + 0.1 * length**2:
            scale = np.log1p(farthest) / farthest
            step, move = scale * step, scale * move
            new = penalized(theta + step, eta + move)
        theta, eta, value = theta + step, eta + move, new
        n_iter += 1
        # Where there is no mode the steps shorten too, as the curvature goes; but not in eta.
        converged = length <= _TOL and farthest <= _EVEN
        ends = not report(n_iter, value)
    return Mode(
        theta=theta,
        eta=eta,
        gradient=gradient,
        hessian=hessian,
        factor=factor,
        n_iter=n_iter,
        last_step=length,
        converged=converged,
    )


def remainders(data: Data, mode: Mode, squares: Vector) -> tuple[Vector, Vector]:
    r"""Return what the quadratic expansion leaves of each row, given its variances of eta.

    With delta ~ N(0, h) the remainder is r = A(eta + delta) - A - A' delta - A'' delta^2 / 2. The
    first result is its root mean square: probabilities in proportion to it make the variance of
    the sum of remainders least. The second is sqrt(h) E r', the covariance of r with the standard
    normal behind delta (Stein's lemma): how far the row pulls the posterior mean. Both are times
    the weight of the row.
    """
    third, fourth = (cumulant(data.family, mode.eta, order) for order in (3, 4))
    size = np.sqrt(15 / 36 * third**2 * squares**3 + 105 / 576 * fourth**2 * squares**4)
    pull = np.abs(third) * squares**1.5 / 2
    far = squares > _SERIES
    if far.any() and data.family != "gaussian":
        size[far], pull[far] = _by_quadrature(data.family, mode.eta[far], squares[far])
    return data.weight * size, data.weight * pull


def pulls(data: Data, mode: Mode, squares: Vector) -> Vector:
    """Return how far each row by itself pulls the posterior mean, in standard deviations."""
    return data.weight * np.sqrt(squares) * np.abs(data.y - cumulant(data.family, mode.eta, 1))


def _by_quadrature(family: str, eta: Vector, squares: Vector) -> tuple[Vector, Vector]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    value, slope, curvature = (cumulant(family, eta, order) for order in range(3))
    deviation = np.sqrt(squares)
    mean_square, mean_slope = np.zeros_like(eta), np.zeros_like(eta)
    for node, weight in zip(nodes, weights, strict=True):
        delta = node * deviation
        rest = cumulant(family, eta + delta, 0) - value - slope * delta - curvature * delta**2 / 2
        mean_square += weight * np.clip(rest, -1e100, 1e100) ** 2
        mean_slope += weight * (cumulant(family, eta + delta, 1) - slope - curvature * delta)
    return np.sqrt(mean_square), deviation * np.abs(mean_slope)


def precision_factor(precision: Vector) -> Vector:
    """Return the lower Cholesky factor of a posterior precision, whatever the columns' scales."""
    scale = np.sqrt(np.diag(precision))
    if not (np.isfinite(scale).all() and scale.min() > 0):
        column = int(np.argmin(np.where(np.isfinite(scale), scale, -1.0)))
        raise DomainError(
            f"'x' must have columns that vary, of a scale within float64 when squared: the data "
            f"have the curvature {precision[column, column]:.3g} along column {column}. Drop or "
            "rescale it, or pass a prior_precision."
        )
    try:
        factor: Vector = cholesky(precision / np.outer(scale, scale), lower=True)
        least = float(np.diag(factor).min() ** 2)
    except LinAlgError:
        least = 0.0
    if least < _PIVOT * len(scale):
        raise DomainError(
            "'x' must have linearly independent columns, or 'prior_precision' must make up for "
            "them: the posterior has no width in some direction. Drop columns, or pass a positive "
            "prior_precision."
        )
    return scale[:, None] * factor


def _only_goes_up(data: Data, step: Vector, move: Vector, precision: Vector) -> bool:
    """Whether no row's likelihood falls along `step`, nor the prior's: there is no mode.

    Along such a direction each of Newton's steps goes about 1 further in eta, while the moves of
    rows that lie in it die away.
    """
    if data.family == "gaussian" or np.abs(move).max() < 0.5:
        return False
    if step @ precision @ step > 1e-12 * np.trace(precision) * (step @ step):
        return False
    if data.family == "logistic":
        falls = np.where(data.y == 1, -move, move)
    else:
        falls = np.where(data.y == 0, move, np.abs(move))
    return bool(falls.max() <= _STILL)


def _no_mode(family: str) -> DomainError:
    if family == "logistic":
        return DomainError(
            "'x' and 'y' must not be separable: a plane parts the rows with y = 0 from those with "
            "y = 1, so the likelihood has no maximum, and mu-complexity is unbounded: no weighted "
            "sample of fewer rows stands for all. Pass a positive prior_precision (with "
            "control_variate=True, its default), such as 1 / s**2 for coefficients of size s."
        )
    return DomainError(
        "'x' and 'y' must bound the coefficients: along some direction the rates of rows with "
        "y = 0 fall for ever while those of the others stay, so the likelihood has no maximum. "
        "Pass a positive prior_precision, such as 1 / s**2 for coefficients of size s."
    )
