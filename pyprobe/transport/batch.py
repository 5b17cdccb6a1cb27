"""Many small problems of entropic optimal transport at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe._validate import (
    as_float_array,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, PyprobeError, ShapeError
from pyprobe.transport._check import (
    Vector,
    as_cost,
    as_masses,
    as_penalties,
    check_epsilon,
    check_reachable,
)
from pyprobe.transport.sinkhorn import (
    MAX_NEWTON,
    MEMORY,
    METHODS,
    SinkhornResult,
    as_result,
    check_feasible,
)

__all__ = ["sinkhorn_batch"]


def sinkhorn_batch(
    a: npt.ArrayLike | Sequence[npt.ArrayLike | None] | None,
    b: npt.ArrayLike | Sequence[npt.ArrayLike | None] | None,
    cost: npt.ArrayLike | Sequence[npt.ArrayLike],
    *,
    epsilon: float | npt.ArrayLike,
    method: Literal["auto", "log", "scaling", "newton"] = "auto",
    tol: float = 1e-9,
    max_iter: int = 10_000,
    unbalanced: float | tuple[float | None, float | None] | None = None,
) -> list[SinkhornResult]:
    """Solve many entropic optimal transport problems, in parallel over the problems.

    Parameters
    ----------
    a : array_like, shape (B, n), or sequence of B vectors, or None
        Weights of the rows; None, for all or for one problem, stands for equal weights. A single
        vector of shape (n,) serves all problems.
    b : array_like, shape (B, m), or sequence of B vectors, or None
        Weights of the columns.
    cost : array_like, shape (B, n, m), or sequence of B matrices
        Costs; the matrices of a sequence may differ in shape. Plus infinity forbids a pair.
    epsilon : float or array_like, shape (B,)
        Strength of the entropy, for all or each.
    method, tol, max_iter, unbalanced
        As in `sinkhorn`. Each problem stops by itself.

    Returns
    -------
    list of SinkhornResult
        One a problem, in order: the same bits as `sinkhorn` gives for it alone.

    Raises
    ------
    ShapeError, DomainError, NotFiniteError
        As `sinkhorn`; the message begins with the problem's index.

    Warns
    -----
    ConvergenceWarning  if problems end with a marginal error above `tol`; says which.

    Notes
    -----
    Engines: native.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import sinkhorn_batch
    >>> cost = np.random.default_rng(0).random((10, 6, 8))
    >>> results = sinkhorn_batch(None, None, cost, epsilon=0.1)
    >>> len(results), all(result.converged for result in results)
    (10, True)
    """
    check_choice("method", method, METHODS[:-1])
    penalties = as_penalties(unbalanced)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    if any(hasattr(given, "detach") for given in (a, b, cost)):
        raise TypeError("torch tensors are not taken yet: pass .numpy() arrays.")
    costs = _as_costs(cost)
    n_problems = len(costs)
    first, second = _as_list("a", a, n_problems), _as_list("b", b, n_problems)
    epsilons = np.asarray(epsilon, dtype=np.float64)
    if epsilons.shape not in ((), (n_problems,)):
        raise ShapeError(
            f"'epsilon' must be a number or have shape ({n_problems},); got {epsilons.shape}."
        )
    strengths = [
        _of_problem(index, check_epsilon, value)
        for index, value in enumerate(np.broadcast_to(epsilons, n_problems))
    ]
    weights: list[tuple[Vector, Vector]] = []
    for index, matrix in enumerate(costs):
        masses = _of_problem(index, as_masses, first[index], second[index], matrix.shape, penalties)
        _of_problem(index, check_reachable, *masses, matrix, penalties)
        weights.append(masses)
    found = _core.sinkhorn_batch(
        costs,
        [masses[0] for masses in weights],
        [masses[1] for masses in weights],
        strengths,
        penalties,
        method=method,
        tol=tol,
        max_iter=max_iter,
        max_newton=MAX_NEWTON,
        relaxation=True,
        memory=MEMORY,
    )
    results = [
        as_result(one, *masses, matrix, strength, penalties, method)
        for one, masses, matrix, strength in zip(found, weights, costs, strengths, strict=True)
    ]
    late = [index for index, result in enumerate(results) if not result.converged]
    if not any(map(math.isfinite, penalties)):
        for index in late:
            _of_problem(index, check_feasible, *weights[index], costs[index])
    if late:
        worst = max(results[index].marginal_error for index in late)
        warn(
            f"sinkhorn_batch: {len(late)} of {n_problems} problems, the first at index {late[0]}, "
            f"stopped with marginal errors up to {worst:.1e} > tol {tol:.1e}; raise max_iter or "
            "epsilon, or use method='newton'.",
            ConvergenceWarning,
        )
    return results


def _of_problem(index: int, check: Callable[..., Any], *arguments: Any) -> Any:
    """Call a check, and say of which problem it complains."""
    try:
        return check(*arguments)
    except PyprobeError as error:
        raise type(error)(f"problem {index}: {error}") from None


def _as_costs(cost: Any) -> list[Any]:
    if isinstance(cost, np.ndarray) and cost.ndim != 3:
        raise ShapeError(
            f"'cost' must have shape (B, n, m), or be a sequence of matrices; got {cost.shape}."
        )
    costs = [_of_problem(index, as_cost, matrix) for index, matrix in enumerate(cost)]
    if not costs:
        raise ShapeError("'cost' must hold at least one problem; got none.")
    if any(matrix.dtype != costs[0].dtype for matrix in costs):
        return [matrix.astype(np.float64) for matrix in costs]
    return costs


def _as_list(name: str, weights: Any, n_problems: int) -> Sequence[Any]:
    """Return the weights of each problem."""
    if weights is None:
        return [None] * n_problems
    if all(np.ndim(weight) == 0 and weight is not None for weight in weights):
        return [as_float_array(name, weights)] * n_problems
    if len(weights) != n_problems:
        raise ShapeError(
            f"'{name}' must hold the weights of {n_problems} problems; got {len(weights)}."
        )
    return weights  # type: ignore[no-any-return]
