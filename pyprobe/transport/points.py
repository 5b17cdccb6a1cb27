"""Entropic optimal transport between clouds of points, without a matrix of costs."""

from __future__ import annotations

from typing import Literal

from pyprobe._engine import Engine, select
from pyprobe._validate import (
    check_callback,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe.progress import Callback
from pyprobe.transport._check import as_clouds, as_masses, as_penalties, check_epsilon
from pyprobe.transport.sinkhorn import METHODS, SinkhornResult, SolverOptions, solve
from pyprobe.typing import ArrayLike

__all__ = ["sinkhorn_points"]

MEMORY = 64 * 2**20
"""Bytes that a stored plan may take: that of 2896 points by as many."""


def sinkhorn_points(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float,
    metric: Literal["sqeuclidean", "euclidean", "cityblock"] = "sqeuclidean",
    method: Literal["auto", "log", "scaling", "newton"] = "auto",
    tol: float = 1e-9,
    max_iter: int = 10_000,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    unbalanced: float | tuple[float | None, float | None] | None = None,
    callback: Callback | None = None,
) -> SinkhornResult:
    r"""Solve an entropic optimal transport problem between two clouds of points.

    As `sinkhorn` with the distances of the points as costs, which are computed whenever they are
    needed and never held: the memory is O((n + m) d), and 64 MB at most for stored plans where the
    clouds are small. Only ``method="newton"``, where it is asked for, stores two whole plans.

    Parameters
    ----------
    x : array_like, shape (n, d) or (n,)
        Points, one a row; one dimension stands for points on a line.
    y : array_like, shape (m, d) or (m,)
        Points to go to.
    a, b : array_like, shapes (n,) and (m,), optional
        Weights, as in `sinkhorn`; default equal.
    epsilon : float
        Strength of the entropy, in the unit of the costs: that of the coordinates squared for
        ``"sqeuclidean"``. Its square root is the scale below which the plan is blurred.
    metric : {"sqeuclidean", "euclidean", "cityblock"}
        :math:`|x - y|^2` (without a factor 1/2), :math:`|x - y|`, or :math:`\sum_k |x_k - y_k|`.
    method, tol, max_iter, init, unbalanced, callback
        As in `sinkhorn`.

    Returns
    -------
    SinkhornResult
        Its methods compute in pieces too, except those that return a dense plan.

    Raises
    ------
    ShapeError, DomainError, NotFiniteError
        As `sinkhorn`.

    Warns
    -----
    ConvergenceWarning  if the marginal error is above `tol` at the end.

    Notes
    -----
    An iteration costs O(n m d) operations and n m exponentials. Distances are formed from
    differences of coordinates: nothing cancels, however far the clouds lie from the origin.
    Engines: native.

    References
    ----------
    .. [1] J. Feydy, "Geometric data analysis, beyond convolutions", PhD thesis, 2020, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import sinkhorn_points
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(500, 2)), rng.normal([3.0, 0.0], 1.0, (400, 2))
    >>> result = sinkhorn_points(x, y, epsilon=0.1)
    >>> moved = (result.barycentric_map(y) - x).mean(axis=0)
    >>> np.allclose(moved, y.mean(axis=0) - x.mean(axis=0))
    True
    """
    check_choice("method", method, METHODS)
    check_callback("callback", callback)
    epsilon = check_epsilon(epsilon)
    penalties = as_penalties(unbalanced)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    if select(x, y, a, b, names=("x", "y", "a", "b")) is not Engine.NATIVE:
        raise TypeError("torch tensors are not taken yet: pass .numpy() arrays.")
    clouds = as_clouds(x, y, metric)
    weights = as_masses(a, b, clouds.shape, penalties)
    options = SolverOptions(method, tol, max_iter, init, callback, MEMORY)
    return solve(*weights, clouds, epsilon, penalties, options)
