r"""The Sinkhorn divergence: entropic transport without its bias.

.. math:: S(a, b) = \mathrm{OT}_\varepsilon(a, b) - \tfrac12 \mathrm{OT}_\varepsilon(a, a)
    - \tfrac12 \mathrm{OT}_\varepsilon(b, b)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import check_choice, check_positive_float, check_positive_int
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning
from pyprobe.transport._check import (
    METRICS,
    Clouds,
    Vector,
    as_clouds,
    as_masses,
    as_number,
    as_penalties,
    check_epsilon,
)
from pyprobe.transport.points import MEMORY
from pyprobe.transport.sinkhorn import SinkhornResult, SolverOptions, as_result, solve
from pyprobe.typing import Array, ArrayLike

if TYPE_CHECKING:
    import torch

__all__ = ["SinkhornDivergence", "sinkhorn_divergence"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SinkhornDivergence:
    """A Sinkhorn divergence with the three problems behind it.

    Attributes
    ----------
    value : float or 0-d tensor
        The divergence, in the unit of the costs.
    converged : bool
        Whether all three problems are solved to the tolerance.
    marginal_error : float
        The largest of theirs.
    xy, xx, yy : SinkhornResult
        The problems. ``(xy.f, xy.g)`` serves as `init` of a problem nearby.
    """

    value: Array | float
    converged: bool
    marginal_error: float
    xy: SinkhornResult
    xx: SinkhornResult
    yy: SinkhornResult

    def __repr__(self) -> str:
        return (
            f"SinkhornDivergence(value={as_number(self.value):.8g}, converged={self.converged}, "
            f"marginal_error={self.marginal_error:.1e})"
        )


def sinkhorn_divergence(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float | torch.Tensor,
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
    epsilon : float, or 0-d tensor
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
    iterations by the symmetric update. Where epsilon is small, the problem of the two clouds may be
    handed over to Newton's method, with 1 GB of plans at most; see `sinkhorn_points`.

    Differentiable in `x`, `y`, `a`, `b` and `epsilon` by torch's autograd: ``value`` to second
    order, the three results as `sinkhorn_points` says. The first derivatives take one pass over
    each of the three plans, and memory of the order of the points.

    Engines: native, also for torch tensors on the CPU, which are not copied; torch elsewhere.

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
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    if unbalanced is not None and np.ndim(unbalanced) > 0:
        raise TypeError(
            "'unbalanced' must be a number here: the problems of a cloud with itself know no "
            f"sides; got {unbalanced!r}."
        )
    check_choice("metric", metric, METRICS)
    penalties = as_penalties(unbalanced)
    given: Any = x, y, a, b
    # As a number, epsilon goes with any library.
    tensor: Any = epsilon if hasattr(epsilon, "detach") else None
    engine = select(*given, tensor, names=("x", "y", "a", "b", "epsilon"))
    if engine is not Engine.NATIVE:
        from pyprobe.transport import _torch

        x, y, a, b, init = _torch.plain_points("sinkhorn_divergence", x, y, a, b, epsilon, init)
    number = check_epsilon(epsilon if tensor is None else tensor.detach())
    options = SolverOptions("auto", tol, max_iter, init, None, MEMORY)
    results: Sequence[SinkhornResult]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, of all three
        if engine is Engine.TORCH:
            _torch.check_points(given, metric, penalties, "auto")
            problems = _torch.debiased(given, metric, epsilon, penalties)
            results = [_torch.solve(problems[0], number, penalties, options)]
            for problem in problems[1:]:
                results.append(_torch.solve_symmetric(problem, number, penalties, tol, max_iter))
        else:
            clouds = as_clouds(x, y, metric)
            weights = as_masses(a, b, clouds.shape, penalties, of="points")
            results = _solve(clouds, weights, number, penalties, options)
    if engine is Engine.NATIVE_TORCH:
        problems = _torch.debiased(given, metric, epsilon, penalties)
        results = list(map(_torch.wrap, results, problems))
    xy, xx, yy = results
    if engine is Engine.NATIVE:
        data: Any = xy._problem  # noqa: SLF001
        values: list[Any] = [result.value for result in results]
    else:
        graphs = [_torch.graph(result) for result in results]
        data = graphs[0]
        # In float64, since they are nearly equal where the clouds are.
        values = [graph.value for graph in graphs]
    excess: Any = data.a.sum() - data.b.sum()
    # The last term is 0 for equal masses (Séjourné et al. 2019, definition 5).
    value = values[0] - 0.5 * (values[1] + values[2]) + 0.5 * data.epsilon * excess**2
    error = max(xy.marginal_error, xx.marginal_error, yy.marginal_error)
    converged = xy.converged and xx.converged and yy.converged
    if not converged:
        warn(
            f"sinkhorn_divergence stopped with marginal error {error:.1e} > tol {tol:.1e}: the "
            "value's error is of that order at worst, and may make it negative; raise max_iter or "
            "epsilon.",
            ConvergenceWarning,
        )
    return SinkhornDivergence(
        value=float(value) if engine is Engine.NATIVE else value.to(data.cost.dtype),
        converged=converged,
        marginal_error=error,
        xy=xy,
        xx=xx,
        yy=yy,
    )


def _solve(
    clouds: Clouds,
    weights: tuple[Vector, Vector],
    epsilon: float,
    penalties: tuple[float, float],
    options: SolverOptions,
) -> list[SinkhornResult]:
    """Solve the problem between the clouds, and of each with itself."""
    results = [solve(*weights, clouds, epsilon, penalties, options)]
    for x, a in zip(clouds[:2], weights, strict=True):
        costs = Clouds(x, x, clouds.metric)
        found = _core.sinkhorn_symmetric(
            costs, a, epsilon, penalties[0], tol=options.tol, max_iter=options.max_iter
        )
        results.append(as_result(found, a, a, costs, epsilon, penalties, "symmetric"))
    return results
