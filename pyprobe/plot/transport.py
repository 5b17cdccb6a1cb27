"""Pictures of entropic optimal transport: a plan, and how its solver converged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyprobe._validate import as_matrix, check_positive_int
from pyprobe.errors import ShapeError
from pyprobe.plot._canvas import as_array, axes_of
from pyprobe.transport import SinkhornResult
from pyprobe.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["convergence", "transport_plan"]


def transport_plan(
    result: SinkhornResult,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    n_lines: int = 1000,
    ax: Axes | None = None,
) -> Axes:
    """Draw a transport plan: as lines between points of the plane, or as a matrix.

    Parameters
    ----------
    result : SinkhornResult
        Of `pyprobe.transport`.
    x, y : array_like, shapes (n, 2) and (m, 2), optional
        The points of the rows and of the columns. With them the pairs that carry most are drawn as
        lines, the darker the more they carry, and the points with areas in proportion to what
        leaves and reaches them; the legend says which part of the mass the lines stand for. Without
        them the plan is drawn as an image.
    n_lines : int, default 1000
        The most lines.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe import plot
    >>> from pyprobe.transport import sinkhorn_points
    >>> x, y = np.random.default_rng(0).normal(size=(2, 30, 2))
    >>> result = sinkhorn_points(x, y, epsilon=0.1)
    >>> ax = plot.transport_plan(result, x, y)
    """
    _check_result("result", result)
    if (x is None) != (y is None):
        raise TypeError("'x' and 'y' must be given together, or neither.")
    if x is None or y is None:
        return _as_image(result, ax)
    points = _as_points("x", x, len(result.f)), _as_points("y", y, len(result.g))
    n_lines = check_positive_int("n_lines", n_lines)
    from_rows, to_columns = _marginals(result)
    tails, heads, masses = _heaviest(result, n_lines, float(from_rows.sum()))
    ax = axes_of(ax, figsize=(6, 5))
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    colors = np.full((len(masses), 4), 0.35)
    colors[:, 3] = np.clip(masses / masses.max(initial=0), 0.02, 0.8)
    share = masses.sum() / from_rows.sum()
    kind = "heaviest pair" if len(masses) == 1 else f"heaviest {len(masses)} pairs"
    label = f"{kind}: {share:.0%} of the mass"
    segments = list(np.stack([points[0][tails], points[1][heads]], axis=1))
    ax.add_collection(
        LineCollection(segments, colors=colors, linewidths=0.8, zorder=1, label=label)
    )
    handles: list[Any] = [Line2D([], [], color="0.35", linewidth=0.8, label=label)]
    for name, place, weights, color in (
        ("x", points[0], from_rows, "C0"),
        ("y", points[1], to_columns, "C1"),
    ):
        first, second = place.T
        sizes = 20 * weights / weights.mean()
        ax.scatter(first, second, sizes, color=color, edgecolors="none", zorder=2)
        handles.append(Line2D([], [], color=color, marker="o", linestyle="none", label=name))
    ax.legend(handles=handles, fontsize="small")
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def convergence(
    results: SinkhornResult | Sequence[SinkhornResult] | Mapping[str, SinkhornResult],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw how the marginal error fell, iteration by iteration.

    Parameters
    ----------
    results : SinkhornResult, or sequence or mapping of them
        Of `pyprobe.transport`; the keys of a mapping are the labels, by default the methods. A dot
        ends the curve of one that converged, a cross that of one that did not. Where the longest is
        more than ten times as long as the shortest, iterations are on a logarithmic scale too.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, the errors on a logarithmic scale.

    Notes
    -----
    Iterations of Sinkhorn and steps of Newton are counted alike, though a step costs as much as
    many iterations. Where epsilon falls along a path, as with ``method="newton"``, an error is that
    of the problem at the epsilon of its iteration, and the curve jumps where epsilon changes.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe import plot
    >>> from pyprobe.transport import sinkhorn
    >>> cost = np.random.default_rng(0).random((50, 50))
    >>> results = [sinkhorn(None, None, cost, epsilon=0.01, method=m) for m in ("log", "newton")]
    >>> ax = plot.convergence(results)
    """
    named: list[tuple[str, SinkhornResult]]
    if isinstance(results, SinkhornResult):
        named = [(results.method, results)]
    elif isinstance(results, Mapping):
        named = list(results.items())
    elif isinstance(results, Iterable):
        named = [(getattr(result, "method", ""), result) for result in results]
    else:
        named = [("", results)]
    for _, result in named:
        _check_result("results", result)
    if not named:
        raise ShapeError("'results' must hold at least one result; got none.")
    ax = axes_of(ax, figsize=(6, 4))
    for label, result in named:
        # Rounding may leave an error of exactly 0, which a logarithm cannot show.
        errors = np.maximum(np.asarray(result.errors, dtype=np.float64), 1e-17)
        counts = np.arange(1, len(errors) + 1)
        (line,) = ax.plot(counts, errors, linewidth=1.2, label=label)
        marker = "o" if result.converged else "x"
        ax.plot(counts[-1:], errors[-1:], marker, color=line.get_color())
    ax.set_yscale("log")
    lengths = [len(result.errors) for _, result in named]
    if max(lengths) > 10 * max(min(lengths), 1):
        ax.set_xscale("log")
    ax.set_xlabel("iterations and steps")
    ax.set_ylabel("marginal error")
    ax.legend(fontsize="small")
    return ax


def _check_result(name: str, value: Any) -> None:
    if not isinstance(value, SinkhornResult):
        raise TypeError(
            f"'{name}' must be a SinkhornResult of pyprobe.transport"
            f"{', or several' if name == 'results' else ''}; got {type(value).__name__}."
        )


def _as_image(result: SinkhornResult, ax: Axes | None) -> Axes:
    ax = axes_of(ax, figsize=(5.5, 4.5))
    image = ax.imshow(as_array(result.plan()), aspect="auto", cmap="Blues", vmin=0)
    ax.figure.colorbar(image, ax=ax, label="mass")
    ax.set_xlabel("column")
    ax.set_ylabel("row")
    return ax


def _as_points(name: str, value: ArrayLike, n: int) -> npt.NDArray[Any]:
    points = as_matrix(name, as_array(value))
    if points.shape != (n, 2):
        raise ShapeError(
            f"'{name}' must have shape ({n}, 2), points of the plane, to match 'result'; got "
            f"{points.shape}. Without points the plan is drawn as a matrix."
        )
    return points


def _marginals(result: SinkhornResult) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what leaves the rows and what reaches the columns."""
    f: Any = result.f
    n, m = len(f), len(result.g)
    if isinstance(f, np.ndarray):
        return np.asarray(result.apply(np.ones(m))), np.asarray(result.apply_transpose(np.ones(n)))
    import torch

    with torch.no_grad():  # in a graph the plan would be formed
        return (
            as_array(result.apply(f.new_ones(m))),
            as_array(result.apply_transpose(f.new_ones(n))),
        )


def _heaviest(
    result: SinkhornResult, n_pairs: int, mass: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return rows, columns and masses of the `n_pairs` largest entries, the largest last."""
    # At most mass / threshold entries reach the threshold: few are held where few carry the mass.
    threshold = mass / n_pairs
    entries = result.sparse_plan(threshold)
    while entries.nnz < n_pairs and entries.sum() < 0.999 * mass and threshold > 1e-12 * mass:
        threshold /= 10
        entries = result.sparse_plan(threshold)
    found = entries.tocoo()
    order = np.argsort(found.data, kind="stable")[-n_pairs:]
    return found.row[order], found.col[order], found.data[order]
