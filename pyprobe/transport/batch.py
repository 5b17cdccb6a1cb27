"""Many small problems of entropic optimal transport at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import (
    as_float_array,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, NumericalWarning, PyprobeError, ShapeError
from pyprobe.transport._check import (
    Vector,
    as_cost,
    as_masses,
    as_penalties,
    check_epsilon,
    check_reachable,
)
from pyprobe.transport.sinkhorn import (
    MEMORY,
    METHODS,
    SinkhornResult,
    SolverOptions,
    as_result,
    check_feasible,
    range_of,
    unresolved,
)
from pyprobe.typing import ArrayLike

__all__ = ["sinkhorn_batch"]


def sinkhorn_batch(
    a: ArrayLike | Sequence[ArrayLike | None] | None,
    b: ArrayLike | Sequence[ArrayLike | None] | None,
    cost: ArrayLike | Sequence[ArrayLike],
    *,
    epsilon: float | ArrayLike,
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
    cost : array_like, shape (B, n, m) or (n, m), or sequence of B matrices
        Costs; the matrices of a sequence may differ in shape. A single array serves all problems
        where `a` or `b` holds the weights of each. Plus infinity forbids a pair.
    epsilon : float or array_like, shape (B,)
        Strength of the entropy, for all or each; numbers go with any library.
    method, tol, max_iter, unbalanced
        As in `sinkhorn`. Each problem stops by itself.

    Returns
    -------
    list of SinkhornResult
        One a problem, in order: on the CPU the same bits as `sinkhorn` gives for it alone, where
        matrices of different dtypes are all taken as float64.

    Raises
    ------
    ShapeError, DomainError, NotFiniteError
        As `sinkhorn`; the message begins with the problem's index.

    Warns
    -----
    ConvergenceWarning  if problems end with a marginal error above `tol`; says which.
    NumericalWarning    if `epsilon` is below 1e-6 of the range of a problem's costs, or 1e-7 of the
                        largest; says which.

    Notes
    -----
    Each result of tensors is differentiable as that of `sinkhorn`; gradients gather in what was
    passed, such as one tensor of shape (B, n, m). A loss adds the values up, or stacks them:
    ``torch.stack([result.value for result in results])``.

    Engines: native, also for torch tensors on the CPU, which are not copied; torch elsewhere, where
    small problems of one shape are solved side by side, in torch's operations, and each result has
    the dtype of its costs.

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
    options = SolverOptions(method, tol, max_iter, None, None, MEMORY)
    problems = _split(a, b, cost, epsilon)
    engine = _engine_of(problems)
    if engine is Engine.TORCH:
        results, remarks = _solve_by_twin(problems, penalties, options)
    else:
        are_tensors = engine is Engine.NATIVE_TORCH
        results, remarks = _solve_at_once(problems, penalties, options, are_tensors=are_tensors)
    if remarks:
        index, remark = remarks[0]
        warn(
            f"problem {index}, the first of {len(remarks)} such among {len(results)}: {remark}",
            NumericalWarning,
        )
    late = [index for index, result in enumerate(results) if not result.converged]
    if late:
        worst = max(results[index].marginal_error for index in late)
        warn(
            f"sinkhorn_batch: {len(late)} of {len(results)} problems, the first at index "
            f"{late[0]}, stopped with marginal errors up to {worst:.1e} > tol {tol:.1e}; raise "
            "max_iter or epsilon, or use method='newton'.",
            ConvergenceWarning,
        )
    return results


_Given: TypeAlias = tuple[Any, Any, Any, Any]
"""Weights, costs and epsilon of one problem, as they were passed."""

_Solved: TypeAlias = tuple[list[SinkhornResult], list[tuple[int, str]]]
"""The results, and what `unresolved` says of which problems."""


def _solve_at_once(
    problems: list[_Given],
    penalties: tuple[float, float],
    options: SolverOptions,
    *,
    are_tensors: bool,
) -> _Solved:
    """Solve by the kernel, which runs problems in parallel."""
    bare = problems
    if are_tensors:
        from pyprobe.transport import _torch

        bare = [
            _of_problem(index, _torch.plain, *given, None) for index, given in enumerate(problems)
        ]
    costs = [_of_problem(index, as_cost, given[2]) for index, given in enumerate(bare)]
    if any(matrix.dtype != costs[0].dtype for matrix in costs):
        costs = [matrix.astype(np.float64) for matrix in costs]
    strengths, first, second, remarks = [], [], [], []
    equal: dict[tuple[int, int], tuple[Vector, Vector]] = {}  # one pair of weights a shape
    for index, (given, (a, b, *_), matrix) in enumerate(zip(problems, bare, costs, strict=True)):
        epsilon = _of_problem(index, check_epsilon, _detached(given[3]))
        masses = equal.get(matrix.shape) if a is None and b is None else None
        if masses is None:
            masses = _of_problem(index, as_masses, a, b, matrix.shape, penalties)
            if a is None and b is None:
                equal[matrix.shape] = masses
        _of_problem(index, check_reachable, *masses, matrix, penalties)
        strengths.append(epsilon)
        first.append(masses[0])
        second.append(masses[1])
        remark = unresolved(epsilon, *range_of(matrix))
        if remark is not None:
            remarks.append((index, remark))
    found = _core.sinkhorn_batch(costs, first, second, strengths, penalties, **options.of_kernel())
    arguments = zip(found, first, second, costs, strengths, strict=True)
    results = [as_result(*each, penalties, options.method) for each in arguments]
    if not any(map(math.isfinite, penalties)):
        for index, result in enumerate(results):
            if not result.converged:
                _of_problem(index, check_feasible, first[index], second[index], costs[index])
    if are_tensors:
        results = [_torch.wrap(*pair) for pair in zip(results, problems, strict=True)]
    return results, remarks


def _solve_by_twin(
    problems: list[_Given], penalties: tuple[float, float], options: SolverOptions
) -> _Solved:
    """Solve where the tensors are."""
    from pyprobe.transport import _torch

    bare, strengths, remarks = [], [], []
    for index, given in enumerate(problems):
        bare.append(_of_problem(index, _torch.plain, *given, None))
        strengths.append(_of_problem(index, check_epsilon, _detached(given[3])))
    ranges = _torch.check_batch(bare, penalties, options.method)
    for index, (a, b, cost, _) in enumerate(bare):
        if ranges is None:
            _of_problem(index, _torch.check, a, b, cost, penalties, options.method)
        extremes = range_of(cost) if ranges is None else ranges[index]
        remark = unresolved(strengths[index], *extremes)
        if remark is not None:
            remarks.append((index, remark))
    return _torch.solve_batch(problems, strengths, penalties, options), remarks


def _of_problem(index: int, check: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a check, and say of which problem it complains."""
    try:
        return check(*arguments, **options)
    except (PyprobeError, TypeError) as error:
        raise type(error)(f"problem {index}: {error}") from None


def _detached(epsilon: Any) -> Any:
    return epsilon.detach() if hasattr(epsilon, "detach") else epsilon


def _engine_of(problems: list[_Given]) -> Engine:
    names = ("a", "b", "cost", "epsilon", "cost of problem 0")
    engine = Engine.NATIVE
    for index, given in enumerate(problems):
        other = problems[0][2] if index else None
        engine = _of_problem(index, select, *given, other, names=names)
    return engine


def _split(a: Any, b: Any, cost: Any, epsilon: Any) -> list[_Given]:
    """Return the problems one by one; a tensor is taken apart once, for all their gradients."""
    a, b = _listed("a", a), _listed("b", b)
    if hasattr(cost, "ndim"):
        shared = [len(w) for w in (a, b) if cost.ndim == 2 and not _serves_all(w)]
        if cost.ndim != 3 and not shared:
            raise ShapeError(
                "'cost' must have shape (B, n, m), or be a sequence of matrices; got "
                f"{tuple(cost.shape)}. One matrix serves all problems where 'a' or 'b' has a row "
                "for each."
            )
        if shared and not hasattr(cost, "detach"):
            cost = as_cost(cost)  # converted once
        costs = [cost] * shared[0] if shared else list(cost)
    elif isinstance(cost, Iterable):
        costs = list(cost)
    else:
        raise TypeError(
            "'cost' must have shape (B, n, m), or be a sequence of matrices; got "
            f"{type(cost).__name__}."
        )
    n = len(costs)
    if n == 0:
        raise ShapeError("'cost' must hold at least one problem; got none.")
    parts = _each("a", a, n), _each("b", b, n), costs, _each_epsilon(epsilon, n)
    return list(zip(*parts, strict=True))


def _listed(name: str, weights: Any) -> Any:
    """Return weights as they are where that is an array or None, else as a list."""
    ndim, dtype = getattr(weights, "ndim", None), getattr(weights, "dtype", None)
    if weights is None or (ndim and getattr(dtype, "kind", "") != "O"):
        return weights
    if ndim == 0 or not isinstance(weights, Iterable):
        raise TypeError(
            f"'{name}' must be one vector for all problems, or hold one for each; got a single "
            f"{type(weights).__name__}."
        )
    return list(weights)


def _serves_all(weights: Any) -> bool:
    """Whether listed weights are one vector, or None, for all problems."""
    if isinstance(weights, list):
        return all(np.ndim(weight) == 0 and weight is not None for weight in weights)
    return weights is None or weights.ndim == 1


def _each(name: str, weights: Any, n_problems: int) -> Sequence[Any]:
    """Return the weights of each problem."""
    if weights is None:
        return [None] * n_problems
    if _serves_all(weights):
        is_list = isinstance(weights, list)
        return [as_float_array(name, weights) if is_list else weights] * n_problems
    each = list(weights)
    if len(each) != n_problems:
        raise ShapeError(
            f"'{name}' must hold the weights of {n_problems} problems; got {len(each)}."
        )
    return each


def _each_epsilon(epsilon: Any, n_problems: int) -> Sequence[Any]:
    """Return epsilon for each problem: numbers, which go with any library, or 0-d tensors."""
    if isinstance(epsilon, (list, tuple)) and any(hasattr(e, "detach") for e in epsilon):
        each = list(epsilon)
        if len(each) != n_problems:
            raise ShapeError(f"'epsilon' must hold {n_problems} numbers; got {len(each)}.")
        return each
    if not hasattr(epsilon, "detach"):
        try:
            epsilon = np.asarray(epsilon, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"'epsilon' must be a number or {n_problems} of them; got {epsilon!r}."
            ) from None
    if epsilon.shape not in ((), (n_problems,)):
        raise ShapeError(
            f"'epsilon' must be a number or have shape ({n_problems},); got {tuple(epsilon.shape)}."
        )
    each = epsilon.tolist() if isinstance(epsilon, np.ndarray) else epsilon
    return list(each) if epsilon.ndim else [each] * n_problems
