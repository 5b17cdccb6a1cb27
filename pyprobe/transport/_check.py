"""Checks of weights, costs and epsilon: what every solver of this domain asks of its arguments."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pyprobe._validate import (
    as_float_array,
    as_float_arrays,
    as_matrix,
    as_weights,
    check_choice,
    check_finite,
)
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.typing import FloatArray

__all__ = [
    "METRICS",
    "Clouds",
    "Vector",
    "as_clouds",
    "as_cost",
    "as_masses",
    "as_number",
    "as_penalties",
    "check_balanced",
    "check_costs",
    "check_epsilon",
    "check_reachable",
    "movable_share",
]


Vector: TypeAlias = npt.NDArray[np.float64]


class Clouds(NamedTuple):
    """Two clouds of points as costs; the binding takes the tuple as it is."""

    x: FloatArray
    y: FloatArray
    metric: str

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (n, m)."""
        return len(self.x), len(self.y)

    @property
    def dtype(self) -> Any:
        """That of the points."""
        return self.x.dtype


_MASS_TOLERANCE = 1e-6
"""Masses that differ by less, relative to the larger one, are taken for equal."""


def as_cost(value: Any) -> FloatArray:
    """Return `value` as a C-contiguous matrix of costs; plus infinity forbids a pair."""
    if getattr(getattr(value, "dtype", None), "kind", "f") == "b":
        raise TypeError(
            "'cost' must hold real numbers; got dtype bool. A mask of forbidden pairs is written "
            "numpy.where(allowed, cost, numpy.inf)."
        )
    if value is None:
        raise TypeError("'cost' is None; it must be a matrix of shape (n, m), after the weights.")
    cost = as_float_array("cost", value)
    if cost.ndim != 2:
        hints = {1: " Weights come first, 'cost' after them.", 3: " Batches go to sinkhorn_batch."}
        raise ShapeError(
            f"'cost' must be a matrix of shape (n, m); got shape {cost.shape}."
            + hints.get(cost.ndim, "")
        )
    if 0 in cost.shape:
        raise ShapeError(f"'cost' must have at least one row and one column; got {cost.shape}.")
    check_costs(cost)
    return np.ascontiguousarray(cost)


def check_costs(cost: FloatArray) -> None:
    """Raise `NotFiniteError` where a cost is NaN or minus infinity."""
    with np.errstate(invalid="ignore"):
        least = float(cost.min(initial=math.inf))  # NaN where an entry is
    if math.isnan(least) or least == -math.inf:
        bad = np.isnan(cost) | (cost == -np.inf)
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise NotFiniteError(
            f"'cost' must not be NaN or minus infinity; got {int(bad.sum())} such "
            f"{'entry' if bad.sum() == 1 else 'entries'}, the first ({cost[first]}) at index "
            f"{first[0] if len(first) == 1 else first}. Plus infinity forbids a pair."
        )


FAR = 1e150
"""Between points with larger coordinates distances, or their squares, may overflow."""
METRICS = ("sqeuclidean", "euclidean", "cityblock")


def as_clouds(x: Any, y: Any, metric: str) -> Clouds:
    """Return points, one a row, as C-contiguous matrices of one dtype."""
    check_choice("metric", metric, METRICS)
    first, second = as_float_arrays(("x", "y"), (x, y))
    matrices = []
    for name, points in (("x", first), ("y", second)):
        matrix = as_matrix(name, points[:, None] if points.ndim == 1 else points)
        if 0 in matrix.shape:
            raise ShapeError(
                f"'{name}' must hold at least one point of at least one coordinate; got shape "
                f"{points.shape}."
            )
        check_finite(name, matrix)
        matrices.append(matrix)
    if matrices[0].shape[1] != matrices[1].shape[1]:
        raise ShapeError(
            f"'x' and 'y' must have points of equal dimension; got shapes {first.shape} and "
            f"{second.shape}."
        )
    if max(float(np.abs(matrix).max()) for matrix in matrices) > FAR:
        _check_distances(np.concatenate(matrices, dtype=np.float64), metric)
    return Clouds(matrices[0], matrices[1], metric)


def _check_distances(points: Vector, metric: str) -> None:
    with np.errstate(over="ignore"):
        spans = points.max(axis=0) - points.min(axis=0)
        largest = spans.sum() if metric == "cityblock" else (spans**2).sum()
    if not np.isfinite(largest):
        raise NotFiniteError(
            "'x' and 'y' must lie so near that neither distances nor their squares overflow. "
            "Divide both by a common scale."
        )


def as_masses(
    a: npt.ArrayLike | None,
    b: npt.ArrayLike | None,
    shape: tuple[int, int],
    penalties: tuple[float, float],
    *,
    names: tuple[str, str] = ("a", "b"),
    of: Literal["cost", "points"] = "cost",
) -> tuple[Vector, Vector]:
    """Return both weights as float64; None stands for equal ones of mass 1.

    Unless a penalty stands for a marginal, the masses must be equal; `b` is scaled by what little
    they may differ. `of` says what a message is to call what they weigh.
    """
    n, m = shape
    given = tuple(
        None if w is None else as_float_array(name, w)
        for name, w in zip(names, (a, b), strict=True)
    )
    lengths = tuple(None if w is None else w.shape for w in given)
    for name, length, expected in zip(names, lengths, shape, strict=True):
        if length is not None and length != (expected,):
            swapped = lengths == ((m,), (n,)) and n != m
            if of == "points":
                raise ShapeError(
                    f"'{'x' if name == names[0] else 'y'}' has {expected} "
                    f"{'point' if expected == 1 else 'points'}, so '{name}' must have shape "
                    f"({expected},); got {length}."
                    + (f" Exchange '{names[0]}' and '{names[1]}'?" if swapped else "")
                )
            raise ShapeError(
                f"'cost' has shape ({n}, {m}), so '{names[0]}' must have shape ({n},) and "
                f"'{names[1]}' ({m},); got '{name}' of shape {length}."
                + (" Transpose 'cost'?" if swapped else "")
            )
    weights: list[Vector] = [
        # Copied: a result keeps them.
        np.full(k, 1.0 / k) if w is None else as_weights(name, w, k, what).copy()
        for name, w, k, what in zip(names, given, shape, ("row", "column"), strict=True)
    ]
    masses = [float(w.sum()) for w in weights]
    if not any(map(math.isfinite, penalties)):
        if abs(masses[0] - masses[1]) > _MASS_TOLERANCE * max(masses):
            raise DomainError(
                f"'{names[0]}' and '{names[1]}' must have the same mass; they sum to "
                f"{masses[0]:.9g} and {masses[1]:.9g}. Divide each by its sum, or pass "
                "unbalanced=rho to let mass appear and vanish at a price."
            )
        weights[1] = weights[1] * (masses[0] / masses[1])
    return weights[0], weights[1]


def check_epsilon(value: Any, name: str = "epsilon") -> float:
    """Return `value` as a positive finite float."""
    if getattr(value, "shape", ()) != ():
        raise ShapeError(f"'{name}' must be one number; got shape {tuple(value.shape)}.")
    try:
        epsilon = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"'{name}' must be a number; got {type(value).__name__}.") from None
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise DomainError(f"'{name}' must be a positive finite number; got {epsilon}.")
    return epsilon


def as_number(value: Any) -> float:
    """Return a number, or a 0-d tensor outside its graph, as a float."""
    return float(value.detach() if hasattr(value, "detach") else value)


def as_penalties(value: Any) -> tuple[float, float]:
    """Return the penalties of the two sides; None, or infinity on a side, means none."""
    if value is None:
        return math.inf, math.inf
    if getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ShapeError(f"'unbalanced' must be a number or a pair of them; got {value!r}.")
    numbers = []
    for penalty in pair:
        try:
            numbers.append(math.inf if penalty is None else float(penalty))
        except (TypeError, ValueError):
            raise TypeError(
                f"'unbalanced' must be a number or a pair of them; got {value!r}."
            ) from None
    if not all(number > 0 for number in numbers):
        raise DomainError(f"'unbalanced' must be positive, or infinite on a side; got {value!r}.")
    return numbers[0], numbers[1]


def check_balanced(name: str, penalties: tuple[float, float]) -> None:
    """Raise `DomainError` where penalties stand for marginals that `name` is to meet."""
    if any(map(math.isfinite, penalties)):
        raise DomainError(
            f"'{name}' is of plans that meet the weights; with 'unbalanced' there are none."
        )


def check_reachable(
    a: FloatArray, b: FloatArray, cost: FloatArray, penalties: tuple[float, float]
) -> None:
    """Raise `DomainError` where forbidden pairs leave weight without a partner.

    Sees points without any, and groups of points that no pair connects to the others but whose two
    masses differ. What remains impossible after that is found by `movable_share`.
    """
    allowed = cost < np.inf
    if allowed.all():
        return
    for name, weights, reach, penalty in (
        ("a", a, allowed[:, b > 0].any(axis=1), penalties[0]),
        ("b", b, allowed[a > 0].any(axis=0), penalties[1]),
    ):
        stranded = (weights > 0) & ~reach
        if stranded.any():
            index = int(stranded.argmax())
            line, other = ("row", "b") if name == "a" else ("column", "a")
            raise DomainError(
                f"'{name}' has weight {weights[index]:.6g} at index {index}, but {line} {index} of "
                "'cost' is infinite wherever the other side has weight: no plan can move that mass."
                + (
                    " Give it a finite cost, or no weight."
                    if math.isinf(penalty)
                    # Of an empty row, a_i is the divergence in the penalty, a_i |b| in the entropy.
                    else " Such a point is refused although its mass could vanish: give it a "
                    f"finite cost, or weight 0 and add ({penalty:.6g} + epsilon * sum({other})) "
                    "times its weight to the value."
                )
            )
    if not any(map(math.isfinite, penalties)):
        _check_groups(a, b, allowed)


def _check_groups(a: FloatArray, b: FloatArray, allowed: npt.NDArray[np.bool_]) -> None:
    # A point that reaches all others makes them one group, as nearly always.
    needed = allowed[a > 0][:, b > 0]
    if np.any(needed.all(axis=1)) or np.any(needed.all(axis=0)):
        return
    from scipy.sparse import coo_array, csgraph

    n, m = allowed.shape
    rows, columns = np.nonzero(allowed & (a > 0)[:, None] & (b > 0))
    ones = np.ones(len(rows), dtype=np.int8)
    graph = coo_array((ones, (rows, columns + n)), shape=(n + m, n + m))
    _, group = csgraph.connected_components(graph, directed=False)
    excess = np.bincount(group, np.r_[a, -b])
    worst = int(np.abs(excess).argmax())
    if abs(excess[worst]) > _MASS_TOLERANCE * a.sum():
        inside = group == worst
        raise DomainError(
            "'cost' forbids every plan: it connects "
            f"{int(inside[:n].sum())} rows of mass {a[inside[:n]].sum():.6g}, the first at index "
            f"{int(inside[:n].argmax())}, with {int(inside[n:].sum())} columns of mass "
            f"{b[inside[n:]].sum():.6g} and with no others. Allow more pairs, or pass "
            "unbalanced=rho to let mass appear and vanish at a price."
        )


_UNITS = 2**30
"""Parts that the mass is divided into for a flow of integers."""
_MOST_ARCS = 4_000_000


def movable_share(a: FloatArray, b: FloatArray, cost: FloatArray) -> float:
    """Return the largest part of the mass that the finite costs allow to be moved, to 1e-6.

    By a maximal flow; 1 where that would take too long.
    """
    from scipy.sparse import coo_array, csgraph

    rows, columns = np.nonzero(cost < np.inf)
    if len(rows) == cost.size or len(rows) > _MOST_ARCS:
        return 1.0
    (n, m), mass = cost.shape, a.sum()
    source, sink = n + m, n + m + 1
    # Rounded up where mass leaves, so that rounding alone holds nothing back.
    out = np.floor(a / mass * _UNITS).astype(np.int32)
    into = np.ceil(b / mass * _UNITS).astype(np.int32)
    tails = np.r_[np.full(n, source), rows, np.arange(n, n + m)]
    heads = np.r_[np.arange(n), columns + n, np.full(m, sink)]
    capacities = np.r_[out, out[rows], into].astype(np.int32)
    graph = coo_array((capacities, (tails, heads)), shape=(sink + 1, sink + 1)).tocsr()
    # Older releases of SciPy take no others.
    graph.indices, graph.indptr = graph.indices.astype(np.int32), graph.indptr.astype(np.int32)
    found = csgraph.maximum_flow(graph, source, sink)
    return float(found.flow_value) / max(int(out.sum(dtype=np.int64)), 1)
