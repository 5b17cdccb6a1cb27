"""Lewis weights: leverage scores for norms other than the Euclidean one.

For A of shape (n, d) and p > 0 the weights w are the fixed point w_i = tau_i(W^(1/2 - 1/p) A),
where tau are leverage scores; equivalently w_i = (a_i' M^-1 a_i)^(p/2) with M = A' W^(1 - 2/p) A.
They are unique, lie in [0, 1] and sum to the rank (Lewis 1978; Cohen and Peng 2015).

The iteration w <- w (tau / w)^c with c = 2 p / (p + 2) is that of Cohen and Peng, c = p/2, damped.
Its linearisation in log w has eigenvalues 1 - c (2/p + (1 - 2/p) rho) with rho in [0, 1], and this
c makes the two ends equal: a rate of |p - 2| / (p + 2) for every p, where c = p/2 diverges from p
= 4 on. That is an argument about the neighbourhood of the solution; the residual, max |log(tau /
w)|, says whether it was reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyprobe._validate import check_bool, check_callback, check_positive_float, check_positive_int
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError
from pyprobe.progress import Callback, Reporter
from pyprobe.sketching._input import Matrix, Passes, check_exponent, read_passes
from pyprobe.sketching._space import Space, find_space, inverse_factor

__all__ = ["LewisInfo", "lewis_weights"]

TOL = 1e-2
"""The residual at which weights are near enough for sampling."""
PATIENCE = 5
"""Passes without a fall of the residual after which the step is halved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LewisInfo:
    """How an iteration for Lewis weights went."""

    converged: bool
    n_iter: int
    """Passes over the rows."""
    residual: float
    """The largest ``|log(tau / w)|`` of the weights returned: their distance to the fixed point."""
    rank: int


def lewis_weights(
    a: Any,
    p: float,
    *,
    tol: float = 1e-2,
    max_iter: int = 300,
    return_info: bool = False,
    callback: Callback | None = None,
) -> Any:
    """Compute the Lewis weights of the rows of a matrix.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        Rows; see `leverage_scores`.
    p : float
        Exponent of the norm, positive and finite; from about 0.03 on.
    tol : float
        Largest residual, ``max |log(tau / w)|``. The default is enough for sampling; 1e-8 gives the
        weights themselves.
    max_iter : int
        Passes over the rows at most.
    return_info : bool
        Whether to return a `LewisInfo` as well.
    callback : callable, optional
        Called with a `pyprobe.progress.Progress`; returning True stops the iteration.

    Returns
    -------
    w : ndarray or torch.Tensor, shape (n,)
        Weights of [0, 1], in the float type of ``a``; in sum the rank of ``a``, to the tolerance.
        Rows of zeros have weight 0. Constants for autograd.
    info : LewisInfo
        Only where ``return_info`` is True.

    Raises
    ------
    ShapeError, NotFiniteError
        As `leverage_scores`.
    DomainError
        Where ``p`` is not positive and finite, or so small (below 0.03 or so) that powers of
        weights are no numbers; or all entries are zero.

    Warns
    -----
    ConvergenceWarning
        Where ``max_iter`` passes, or a callback, leave the residual above ``tol``.

    Notes
    -----
    O(n d^2) a pass, of which 3 to 8 are enough for ``tol=1e-2`` up to p = 4, and about
    ``log(1 / tol) / log((p + 2) / |p - 2|)`` in general; each reads the rows once. With p = 2 they
    are the leverage scores. The same bits for any number of threads, and for any chunks.

    References
    ----------
    Cohen and Peng (2015), lp row sampling by Lewis weights.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import lewis_weights
    >>> a = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> lewis_weights(a, 1.0, tol=1e-8).round(6)
    array([0.5, 0.5, 1. ])
    """
    p = check_exponent(p)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    return_info = check_bool("return_info", return_info)
    check_callback("callback", callback)
    tall = read_passes("a", a)
    weights = find_lewis(tall, p, tol=tol, max_iter=max_iter, callback=callback)
    warn_open(weights.info, p, "raise max_iter.", tol=tol)
    w = tall.wrap(weights.w)
    return (w, weights.info) if return_info else w


@dataclass(frozen=True, slots=True)
class LewisWeights:
    """Weights, and the geometry that goes with them."""

    w: Any
    info: LewisInfo
    space: Space
    transform: Matrix
    """Upper triangular T with ``w_i = |b_i T|^p`` for the rows b_i in the basis of the space."""


def find_lewis(
    tall: Passes,
    p: float,
    *,
    tol: float = TOL,
    max_iter: int = 300,
    callback: Callback | None = None,
) -> LewisWeights:
    """Return the Lewis weights of `tall`, whether or not the iteration reaches `tol`."""
    space = find_space(tall)
    n, rank = tall.shape[0], space.rank
    transform = inverse_factor(space.gram)
    if p == 2:
        w = np.minimum(space.squared_norms(transform), 1.0)
        info = LewisInfo(converged=True, n_iter=1, residual=0.0, rank=rank)
        return LewisWeights(w, info, space, transform)
    start = math.log(rank / n)
    log_w = tall.constant(start)
    transform = transform * math.exp((1 / p - 0.5) * start)
    c, best, stalled = 2 * p / (p + 2), math.inf, 0
    report = Reporter(callback, max_iter)
    for n_iter in range(1, max_iter + 1):
        new, gram, residual = tall.lewis_step(space.frame, space.to_frame(transform), log_w, p, c)
        goes_on = report(n_iter, residual)
        if residual <= tol or not goes_on or n_iter == max_iter:
            break
        best, stalled = (residual, 0) if residual < best else (best, stalled + 1)
        if stalled == PATIENCE:
            c, stalled = c / 2, 0
        try:
            transform = inverse_factor(space.from_frame(gram))
        except np.linalg.LinAlgError:
            raise _out_of_range(p) from None
        log_w = new
    # The residual is that of the weights before the last step, and these are what is returned.
    info = LewisInfo(converged=residual <= tol, n_iter=n_iter, residual=residual, rank=rank)
    w = np.exp(np.where(new == -np.inf, -np.inf, log_w))
    # Leverage scores sum to the rank, and are the weights up to the residual.
    total = float(w.sum())
    if not (total > 0 and abs(math.log(total / rank)) <= residual + 1e-3):
        raise _out_of_range(p)
    return LewisWeights(w, info, space, transform)


def warn_open(info: LewisInfo, p: float, way_out: str, *, tol: float = TOL) -> None:
    """Warn where an iteration has ended above its tolerance."""
    if not info.converged:
        warn(
            f"the Lewis weights of p = {p:g} have a residual of {info.residual:.2g} after "
            f"{info.n_iter} passes, above tol = {tol:g}; {way_out}",
            ConvergenceWarning,
        )


def _out_of_range(p: float) -> DomainError:
    return DomainError(
        f"'p' = {p:g} is too small for these rows: powers w ** (1 - 2 / p) of their weights are "
        "beyond the floating-point numbers. Use a larger one."
    )
