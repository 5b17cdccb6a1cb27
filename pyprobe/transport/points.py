"""Entropic optimal transport between clouds of points, without a matrix of costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pyprobe._engine import Engine, select
from pyprobe._validate import (
    check_callback,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe.progress import Callback
from pyprobe.transport._check import METRICS, as_clouds, as_masses, as_penalties, check_epsilon
from pyprobe.transport.sinkhorn import METHODS, SinkhornResult, SolverOptions, solve
from pyprobe.typing import ArrayLike

if TYPE_CHECKING:
    import torch

__all__ = ["sinkhorn_points"]

MEMORY = 64 * 2**20, 2**30
"""Bytes of a plan stored for the iteration, 2896 points by as many, beyond which a stored one gains
nothing; and of the two plans of Newton's method, of 8192 points by as many."""


def sinkhorn_points(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float | torch.Tensor,
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
    needed and never held: the memory is O((n + m) d), and 64 MB at most for a stored plan where the
    clouds are small. Newton's method stores two plans: ``"auto"`` hands over to it where these take
    1 GB at most, as for 8192 points on either side (on the CPU), and ``"newton"`` always.

    Parameters
    ----------
    x : array_like, shape (n, d) or (n,)
        Points, one a row; one dimension stands for points on a line.
    y : array_like, shape (m, d) or (m,)
        Points to go to.
    a, b : array_like, shapes (n,) and (m,), optional
        Weights, as in `sinkhorn`; default equal.
    epsilon : float, or 0-d tensor
        Strength of the entropy, in the unit of the costs: that of the coordinates squared for
        ``"sqeuclidean"``. Its square root is the scale below which the plan is blurred.
    metric : {"sqeuclidean", "euclidean", "cityblock"}
        :math:`|x - y|^2` (without a factor 1/2), :math:`|x - y|`, or :math:`\sum_k |x_k - y_k|`.
    method, tol, max_iter, init, unbalanced, callback
        As in `sinkhorn`.

    Returns
    -------
    SinkhornResult
        Its methods compute in pieces too, except those that return a dense plan; of tensors if the
        points are.

    Raises
    ------
    ShapeError, DomainError, NotFiniteError
        As `sinkhorn`.

    Warns
    -----
    ConvergenceWarning  if the marginal error is above `tol` at the end.

    Notes
    -----
    Where the plans of Newton's method would take more than 1 GB, and epsilon is far below the
    distances, ``"auto"`` may come to its end with a warning after `max_iter` iterations;
    ``"newton"``, where the memory is there, takes some tens of steps.

    The NumericalWarning of `sinkhorn` for an epsilon that is lost beside the costs is not given:
    the costs are never all seen.

    An iteration costs O(n m d) operations and n m exponentials. Distances are formed from
    differences of coordinates: nothing cancels, however far the clouds lie from the origin.

    Differentiable in `x`, `y`, `a`, `b` and `epsilon` by torch's autograd, as `sinkhorn` in what it
    takes. The first derivatives of ``value`` take a pass over the plan, of one to three iterations,
    more in many dimensions, and memory of the order of the points. Whatever else is asked for in a
    graph or differentiated (``f``, ``plan``, ``apply``, ``barycentric_map``, ``transport_cost``,
    second derivatives) forms matrices of the size of the plan; under ``torch.no_grad()``, or of a
    detached result, nothing does. Where points coincide ``"euclidean"`` has the derivative 0, and
    ``"cityblock"`` in each coordinate that does.

    Engines: native, also for torch tensors on the CPU, which are not copied; torch elsewhere, for
    methods ``"auto"`` and ``"log"``: on a GPU by kernels of Triton in O((n + m) d) memory where
    these run, else with costs made in blocks of rows.

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
    check_choice("method", method, METHODS[:-1])
    check_callback("callback", callback)
    check_choice("metric", metric, METRICS)
    penalties = as_penalties(unbalanced)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    given: Any = x, y, a, b
    # As a number, epsilon goes with any library.
    tensor: Any = epsilon if hasattr(epsilon, "detach") else None
    engine = select(*given, tensor, names=("x", "y", "a", "b", "epsilon"))
    if engine is not Engine.NATIVE:
        from pyprobe.transport import _torch

        x, y, a, b, init = _torch.plain_points("sinkhorn_points", x, y, a, b, epsilon, init)
    number = check_epsilon(epsilon if tensor is None else tensor.detach())
    options = SolverOptions(method, tol, max_iter, init, callback, MEMORY)
    if engine is Engine.TORCH:
        _torch.check_points(given, metric, penalties, method)
        costs = _torch.as_points(given[0], given[1], metric)
        return _torch.solve((*given[2:], costs, epsilon), number, penalties, options)
    clouds = as_clouds(x, y, metric)
    weights = as_masses(a, b, clouds.shape, penalties, of="points")
    found = solve(*weights, clouds, number, penalties, options)
    if engine is Engine.NATIVE:
        return found
    costs = _torch.as_points(given[0], given[1], metric)
    return _torch.wrap(found, (*given[2:], costs, epsilon))
