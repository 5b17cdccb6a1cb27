"""Barycenters of weights on a fixed support."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import (
    as_float_array,
    as_weights,
    check_bool,
    check_callback,
    check_positive_float,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError, ShapeError
from pyprobe.progress import Callback, Progress, ends
from pyprobe.transport._check import Vector, as_cost, check_epsilon
from pyprobe.typing import Array, ArrayLike, FloatArray

__all__ = ["SinkhornBarycenter", "sinkhorn_barycenter"]

_SYMMETRY = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SinkhornBarycenter:
    """A barycenter and how it was found.

    Attributes
    ----------
    barycenter : array, shape (n,)
        Weights that sum to 1.
    converged : bool
        Whether the marginal error is within the tolerance.
    stopped : bool
        Whether the callback ended the iteration.
    n_iter : int
        Iterations made.
    marginal_error : float
        Weighted mean, over the plans from the barycenter to the weights given, of the L1 distance
        of their marginals from what they should be, and by how much the barycenter last moved.
    """

    barycenter: Array
    converged: bool
    stopped: bool
    n_iter: int
    marginal_error: float

    def __repr__(self) -> str:
        return (
            f"SinkhornBarycenter(n={len(self.barycenter)}, converged={self.converged}, "
            f"n_iter={self.n_iter}, marginal_error={self.marginal_error:.1e})"
        )


def sinkhorn_barycenter(
    weights: ArrayLike | None,
    marginals: ArrayLike,
    cost: ArrayLike,
    *,
    epsilon: float,
    debiased: bool = True,
    tol: float = 1e-9,
    max_iter: int = 10_000,
    callback: Callback | None = None,
) -> SinkhornBarycenter:
    r"""Compute the entropic barycenter of several weights on one set of points.

    Minimizes :math:`\sum_k w_k S_\varepsilon(\alpha, \alpha_k)` over weights :math:`\alpha` on the
    same points, with the Sinkhorn divergence S or, if not `debiased`, the entropic cost alone,
    whose barycenter is blurred by about :math:`\sqrt{\varepsilon}`: that with the entropy of the
    plan itself, :math:`\langle C, P \rangle + \varepsilon \sum P \log P`, which is the ``value`` of
    `sinkhorn` plus :math:`\varepsilon \sum \alpha \log \alpha` and what does not depend on it.

    Parameters
    ----------
    weights : array_like, shape (k,), or None
        Importance of each of the weights; scaled to sum to 1. None for equal ones.
    marginals : array_like, shape (k, n)
        The weights; each row is nonnegative and sums to 1.
    cost : array_like, shape (n, n)
        Symmetric costs between the points.
    epsilon : float
        Strength of the entropy, in the unit of the costs.
    debiased : bool, default True
        Whether the blur is taken off.
    tol : float, default 1e-9
        Largest marginal error.
    max_iter : int, default 10000
        The most iterations.
    callback : callable, optional
        Called after every iteration with a `Progress`, its ``value`` the marginal error; returning
        ``True`` ends the iteration.

    Returns
    -------
    SinkhornBarycenter
        ``barycenter``, of the library and dtype of `cost`, and how it was found.

    Raises
    ------
    ShapeError, DomainError, NotFiniteError
        If the shapes do not fit, a weight is negative, a row does not sum to 1, or the costs are
        not symmetric.
    RuntimeError
        If a tensor requires a gradient.

    Warns
    -----
    ConvergenceWarning  if the marginal error is above `tol` at the end.

    Notes
    -----
    Cost: 2 k n^2 exponentials an iteration (and n^2 more to take the blur off), in the log domain.
    Engines: native, also for torch tensors on the CPU, without gradients.

    References
    ----------
    .. [1] H. Janati, M. Cuturi and A. Gramfort, "Debiased Sinkhorn barycenters", ICML 2020,
       algorithm 1.
    .. [2] J.-D. Benamou et al., "Iterative Bregman projections for regularized transportation
       problems", SIAM J. Sci. Comput. 37(2), 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import sinkhorn_barycenter
    >>> x = np.linspace(-5, 5, 101)
    >>> bumps = np.exp(-0.5 * ((x - np.array([[-2.0], [2.0]])) / 0.5) ** 2)
    >>> bumps /= bumps.sum(axis=1, keepdims=True)
    >>> result = sinkhorn_barycenter(None, bumps, (x[:, None] - x) ** 2, epsilon=0.05)
    >>> mean = result.barycenter @ x
    >>> deviation = (result.barycenter @ (x - mean) ** 2) ** 0.5
    >>> print(round(abs(mean), 3), round(deviation, 3))
    0.0 0.5
    """
    # As a number, epsilon goes with any library.
    tensor: Any = epsilon if hasattr(epsilon, "detach") else None
    names = ("weights", "marginals", "cost", "epsilon")
    engine = select(weights, marginals, cost, tensor, names=names)
    if engine is not Engine.NATIVE:
        import torch

        from pyprobe.transport import _torch

        weights, marginals, cost, epsilon = _torch.views(
            "sinkhorn_barycenter", weights=weights, marginals=marginals, cost=cost, epsilon=epsilon
        )
    epsilon = check_epsilon(epsilon)
    debiased = check_bool("debiased", debiased)
    check_callback("callback", callback)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    costs = as_cost(cost)
    log_marginals = _as_log_marginals(marginals, costs)
    k, n = log_marginals.shape
    shares = np.full(k, 1 / k) if weights is None else as_weights("weights", weights, k, "row")
    log_marginals, shares = log_marginals[shares > 0], shares[shares > 0] / shares.sum()
    k = len(shares)

    def sums(v: Vector) -> Vector:
        return _core.transport_log_kernel_sums(costs, epsilon, v)

    begin = time.perf_counter()
    log_b: Vector = np.zeros((k, n))
    log_d: Vector = np.zeros((1, n))
    log_center: Vector = np.full(n, -np.log(n))
    log_kb = sums(log_b)
    error, step, stopped = np.inf, 0, False
    while error > tol and step < max_iter and not stopped:
        log_a = _log_ratio(log_marginals, log_kb)
        log_ka = sums(log_a)
        # The barycenter is the geometric mean of what the plans bring to it, times the correction.
        before, log_center = log_center, log_d[0] + shares @ log_ka
        if np.isneginf(log_center).all():
            raise DomainError(
                "'cost' lets no point be reached from all the weights: there is no barycenter. "
                "Allow more pairs."
            )
        log_b = _log_ratio(log_center, log_ka)
        if debiased:
            log_d = 0.5 * (log_d + _log_ratio(log_center, sums(log_d)))
        log_kb = sums(log_b)
        misses = np.abs(np.exp(log_a + log_kb) - np.exp(log_marginals)).sum(axis=1)
        # The correction may still move where the plans fit.
        change = np.abs(np.exp(log_center) - np.exp(before)).sum()
        error, step = float(shares @ misses + change), step + 1
        if callback is not None:
            elapsed = time.perf_counter() - begin
            progress = Progress(step=step, total=max_iter, value=error, elapsed=elapsed)
            stopped = ends(callback(progress))
    if not (error <= tol or stopped):  # not a number, too
        warn(
            f"sinkhorn_barycenter stopped after {step} iterations with marginal error {error:.1e} "
            f"> tol {tol:.1e}; raise max_iter or epsilon.",
            ConvergenceWarning,
        )
    center = np.exp(log_center)
    center = (center / center.sum()).astype(costs.dtype, copy=False)
    return SinkhornBarycenter(
        barycenter=center if engine is Engine.NATIVE else torch.from_numpy(center),
        converged=error <= tol,
        stopped=stopped,
        n_iter=step,
        marginal_error=error,
    )


def _log_ratio(x: Vector, y: Vector) -> Vector:
    """Return ``x - y``; where there is nothing to share out, minus infinity whatever `y`."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(x), -np.inf, x - y)


def _as_log_marginals(marginals: Any, cost: FloatArray) -> Vector:
    rows = as_float_array("marginals", marginals)
    n = cost.shape[0]
    if cost.shape != (n, n):
        raise ShapeError(f"'cost' must have shape (n, n); got {cost.shape}.")
    if rows.ndim != 2 or rows.shape[1] != n or len(rows) == 0:
        raise ShapeError(
            f"'marginals' must have shape (k, {n}), one set of weights a row; got {rows.shape}."
        )
    with np.errstate(invalid="ignore"):  # infinity minus infinity: both forbid the pair
        excess = np.abs(cost - cost.T)
    excess[cost == cost.T] = 0
    if excess.max() > _SYMMETRY * max(float(np.abs(cost[cost < np.inf]).max(initial=0)), 1e-300):
        i, j = np.unravel_index(int(excess.argmax()), cost.shape)
        raise DomainError(
            f"'cost' must be symmetric; got {cost[i, j]:.6g} at ({i}, {j}) and {cost[j, i]:.6g} at "
            f"({j}, {i})."
        )
    checked = np.stack(
        [as_weights(f"marginals[{k}]", row, n, "point") for k, row in enumerate(rows)]
    )
    masses = checked.sum(axis=1)
    worst = int(np.abs(masses - 1).argmax())
    if abs(masses[worst] - 1) > 1e-6:
        raise DomainError(
            f"'marginals' must sum to 1 in every row; row {worst} sums to {masses[worst]:.9g}. "
            "Divide each row by its sum."
        )
    with np.errstate(divide="ignore"):
        logs: Vector = np.log(checked / masses[:, None])
    return logs
