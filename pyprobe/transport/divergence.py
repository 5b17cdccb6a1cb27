r"""The Sinkhorn divergence: entropic transport without its bias.

.. math:: S(a, b) = \mathrm{OT}_\varepsilon(a, b) - \tfrac12 \mathrm{OT}_\varepsilon(a, a)
    - \tfrac12 \mathrm{OT}_\varepsilon(b, b)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import check_positive_float, check_positive_int
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning
from pyprobe.transport._check import (
    Clouds,
    Vector,
    as_clouds,
    as_masses,
    as_penalties,
    check_epsilon,
)
from pyprobe.transport.points import MEMORY
from pyprobe.transport.sinkhorn import SinkhornResult, SolverOptions, as_result, solve
from pyprobe.typing import ArrayLike, FloatArray

__all__ = ["SinkhornDivergence", "sinkhorn_divergence"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SinkhornDivergence:
    """A Sinkhorn divergence with the three problems behind it.

    Attributes
    ----------
    value : float
        The divergence, in the unit of the costs.
    converged : bool
        Whether all three problems are solved to the tolerance.
    marginal_error : float
        The largest of theirs.
    xy, xx, yy : SinkhornResult
        The problems. ``(xy.f, xy.g)`` serves as `init` of a problem nearby.
    """

    value: float
    converged: bool
    marginal_error: float
    xy: SinkhornResult
    xx: SinkhornResult
    yy: SinkhornResult

    def __repr__(self) -> str:
        return (
            f"SinkhornDivergence(value={self.value:.8g}, converged={self.converged}, "
            f"marginal_error={self.marginal_error:.1e})"
        )


def sinkhorn_divergence(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float,
    metric: Literal["sqeuclidean", "euclidean", "cityblock"] = "sqeuclidean",
    tol: float = 1e-9,
    max_iter: int = 10_000,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    unbalanced: float | None = None,
) -> SinkhornDivergence:
    r"""Compute the Sinkhorn divergence of two clouds of points.

    It is 0 for equal clouds and positive otherwise, and lies between the Wasserstein cost (small
    `epsilon`) and a kernel distance (large `epsilon`).

    Parameters
    ----------
    x, y : array_like, shapes (n, d) and (m, d)
        Points, one a row.
    a, b : array_like, shapes (n,) and (m,), optional
        Weights; default equal.
    epsilon : float
        Strength of the entropy, in the unit of the costs.
    metric : {"sqeuclidean", "euclidean", "cityblock"}
        As in `sinkhorn_points`.
    tol : float, default 1e-9
        Largest marginal error of each of the three problems; the value's error is of the order of
        its square.
    max_iter : int, default 10000
        The most iterations of each.
    init : pair of array_like, optional
        Potentials ``(f, g)`` of the problem between the clouds to start from.
    unbalanced : float, optional
        Penalty on the marginals, the same on both sides.

    Returns
    -------
    SinkhornDivergence
        ``value``, and the three problems.

    Raises
    ------
    ShapeError, DomainError, NotFiniteError
        As `sinkhorn_points`.

    Warns
    -----
    ConvergenceWarning  if one of the problems is not solved to the tolerance: the value can then be
                        negative.

    Notes
    -----
    Cost O((n m + n^2 + m^2) d) an iteration. The problems of a cloud with itself take ten to thirty
    iterations by the symmetric update. Engines: native.

    References
    ----------
    .. [1] J. Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn
       divergences", AISTATS 2019, equation 3.
    .. [2] T. Séjourné et al., "Sinkhorn divergences for unbalanced optimal transport", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import sinkhorn_divergence
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> shifted = sinkhorn_divergence(x, x + [1.0, 0.0], epsilon=0.5)
    >>> round(shifted.value, 6)
    1.0
    >>> abs(sinkhorn_divergence(x, x, epsilon=0.5).value) < 1e-9
    True
    """
    epsilon = check_epsilon(epsilon)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    if isinstance(unbalanced, (tuple, list)):
        raise TypeError(
            "'unbalanced' must be a number here: the problems of a cloud with itself know no "
            f"sides; got {unbalanced!r}."
        )
    penalties = as_penalties(unbalanced)
    if select(x, y, a, b, names=("x", "y", "a", "b")) is not Engine.NATIVE:
        raise TypeError("torch tensors are not taken yet: pass .numpy() arrays.")
    clouds = as_clouds(x, y, metric)
    first, second = as_masses(a, b, clouds.shape, penalties)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, of all three
        options = SolverOptions("auto", tol, max_iter, init, None, MEMORY)
        xy = solve(first, second, clouds, epsilon, penalties, options)
    xx = _to_itself(clouds.x, first, metric, epsilon, penalties, tol, max_iter)
    yy = _to_itself(clouds.y, second, metric, epsilon, penalties, tol, max_iter)
    excess = float(first.sum() - second.sum())
    # The last term is 0 for equal masses (Séjourné et al. 2019, definition 5).
    value = xy.value - 0.5 * (xx.value + yy.value) + 0.5 * epsilon * excess**2
    error = max(xy.marginal_error, xx.marginal_error, yy.marginal_error)
    converged = xy.converged and xx.converged and yy.converged
    if not converged:
        warn(
            f"sinkhorn_divergence stopped with marginal error {error:.1e} > tol {tol:.1e}: the "
            "value may be off by as much, and negative; raise max_iter or epsilon.",
            ConvergenceWarning,
        )
    return SinkhornDivergence(
        value=float(value), converged=converged, marginal_error=error, xy=xy, xx=xx, yy=yy
    )


def _to_itself(
    x: FloatArray,
    a: Vector,
    metric: str,
    epsilon: float,
    penalties: tuple[float, float],
    tol: float,
    max_iter: int,
) -> SinkhornResult:
    clouds = Clouds(x, x, metric)
    found = _core.sinkhorn_symmetric(clouds, a, epsilon, penalties[0], tol=tol, max_iter=max_iter)
    return as_result(found, a, a, clouds, epsilon, penalties, "symmetric")
