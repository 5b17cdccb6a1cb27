"""Pictures of fitted models, drawn with Matplotlib.

Every function draws into the axes it is given, or into a new figure, and returns the axes. None
shows the figure, changes a style, or computes anything that the model does not already know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyprobe._validate import as_matrix, check_positive_int
from pyprobe._warn import warn
from pyprobe.directional import VonMisesFisher, VonMisesFisherMixture
from pyprobe.directional._arrays import as_directions, check_unit
from pyprobe.errors import DomainError, MissingDependencyError, NumericalWarning, ShapeError
from pyprobe.special import log_hyp0f1
from pyprobe.transport import SinkhornResult
from pyprobe.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "concentration_profile",
    "convergence",
    "mixture_topics",
    "sphere_density",
    "transport_plan",
]


def mixture_topics(
    mixture: VonMisesFisherMixture,
    vocabulary: Sequence[str] | npt.NDArray[np.str_],
    *,
    n_words: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """Draw the components of a mixture over words as a table, the largest first.

    A row is a component; its cells are the words of the largest entries of its mean direction,
    shaded by those entries.

    Parameters
    ----------
    mixture : VonMisesFisherMixture
        Fitted to rows such as `pyprobe.datasets.tf_idf` makes.
    vocabulary : sequence of str, length d
        The words of the columns.
    n_words : int, default 8
        Words a row.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> from pyprobe import plot
    >>> from pyprobe.datasets import tf_idf
    >>> from pyprobe.directional import VonMisesFisherMixture
    >>> x, vocabulary = tf_idf(["red rose", "red wine", "sea salt", "salt sea"] * 5, max_df=1)
    >>> mixture = VonMisesFisherMixture.fit(x, 2, common_concentration=True, rng=0)
    >>> ax = plot.mixture_topics(mixture, vocabulary, n_words=2)
    """
    if not isinstance(mixture, VonMisesFisherMixture):
        raise TypeError(f"'mixture' must be a VonMisesFisherMixture; got {type(mixture).__name__}.")
    locs = np.asarray(mixture.locs)
    n_words = min(check_positive_int("n_words", n_words), locs.shape[1])
    if len(vocabulary) != locs.shape[1]:
        raise ShapeError(
            f"'vocabulary' must hold {locs.shape[1]} words, one a dimension of the mixture; "
            f"got {len(vocabulary)}."
        )
    order = np.argsort(-np.asarray(mixture.weights), kind="stable")
    top = np.argsort(-locs[order], axis=1, kind="stable")[:, :n_words]
    height = 0.7 + 0.28 * len(order)
    ax = _axes(ax, figsize=(1.0 + 1.1 * n_words, height))
    shades = np.take_along_axis(locs[order], top, axis=1)
    ax.imshow(shades, aspect="auto", cmap="Blues", vmin=0, vmax=1.5 * shades.max())
    for i, row in enumerate(top):
        for j, word in enumerate(row):
            ax.text(j, i, vocabulary[word], ha="center", va="center", fontsize="small")
    labels = [f"{mixture.weights[k]:.1%}" for k in order]
    ax.set_yticks(range(len(order)), labels, fontsize="small")
    ax.set_xticks([])
    ax.set_xlabel("words of largest weight in the mean direction")
    ax.set_ylabel("share of the documents")
    ax.tick_params(length=0)
    return ax


def sphere_density(
    distribution: VonMisesFisher | VonMisesFisherMixture,
    *,
    samples: npt.ArrayLike | None = None,
    n_grid: int = 200,
    ax: Axes | None = None,
) -> Axes:
    """Draw the density of a distribution on the sphere of three dimensions as a map of the world.

    Parameters
    ----------
    distribution : VonMisesFisher or VonMisesFisherMixture
        With ``d = 3``.
    samples : array_like, shape (n, 3), optional
        Unit vectors, drawn as dots.
    n_grid : int, default 200
        Cells along the equator; half as many from pole to pole.
    ax : matplotlib.axes.Axes, optional
        Axes with a projection of the globe, such as ``"mollweide"``; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes: longitude is the angle of the first two coordinates, latitude that of the third.

    Warns
    -----
    NumericalWarning    if a peak is narrower than the cells of the map.

    Examples
    --------
    >>> from pyprobe import plot
    >>> from pyprobe.directional import VonMisesFisher
    >>> ax = plot.sphere_density(VonMisesFisher([0.0, 0.6, 0.8], 10.0))
    """
    if not isinstance(distribution, VonMisesFisher | VonMisesFisherMixture):
        raise TypeError(
            "'distribution' must be a VonMisesFisher or a VonMisesFisherMixture of "
            f"pyprobe.directional; got {type(distribution).__name__}."
        )
    if distribution.dim != 3 or getattr(distribution, "batch_shape", None):
        raise ShapeError(f"'distribution' must be a single one with d = 3; got {distribution}.")
    n_grid = check_positive_int("n_grid", n_grid, minimum=2)
    edges = (
        np.linspace(-np.pi, np.pi, n_grid + 1),
        np.linspace(-np.pi / 2, np.pi / 2, n_grid // 2 + 1),
    )
    longitude, latitude = np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges))
    points = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=-1,
    )
    distribution, locs = _in_numpy(distribution)
    density = np.exp(distribution.log_prob(points))
    peak = float(np.exp(distribution.log_prob(locs)).max())
    ax = _axes(ax, figsize=(7, 4), subplot_kw={"projection": "mollweide"})
    if density.max() < 0.5 * peak:
        warn(
            f"sphere_density: a peak of {peak:.3g} falls between the points of the grid, which "
            f"reach {density.max():.3g}; crosses mark the mean directions. Raise n_grid.",
            NumericalWarning,
        )
        ax.plot(*_globe(locs), "x", color="C3", zorder=3)
    mesh = ax.pcolormesh(*edges, density, cmap="Blues", rasterized=True)
    if samples is not None:
        x = as_directions("samples", samples, 3)
        check_unit("samples", x)
        ax.plot(*_globe(x), ".", color="C1", markersize=3)
    ax.figure.colorbar(mesh, ax=ax, shrink=0.7, label="density")
    ax.grid(visible=True, alpha=0.3)
    ax.tick_params(labelsize="x-small")
    return ax


def concentration_profile(x: npt.ArrayLike, *, ax: Axes | None = None) -> Axes:
    r"""Draw how the log-likelihood of a sample depends on the concentration.

    The curve is :math:`n(\kappa\bar R - G(\kappa))`, less its maximum; the line marks the maximum
    likelihood estimate, and the band one standard error on either side of it.

    Parameters
    ----------
    x : array_like, shape (n, d)
        Unit vectors, one a row.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> from pyprobe import plot
    >>> from pyprobe.directional import VonMisesFisher
    >>> x = VonMisesFisher([0.0, 0.6, 0.8], 10.0).sample((50,), rng=0)
    >>> ax = plot.concentration_profile(x)
    """
    x = as_matrix("x", x)
    fit = VonMisesFisher.fit(x)
    info: Any = fit.info
    if not info.converged:
        raise DomainError(
            "'x' must hold rows that differ: the likelihood of equal ones has no maximum."
        )
    error = info.concentration_stderr
    low, high = max(fit.concentration - 5 * error, 0.02 * error), fit.concentration + 5 * error
    grid = np.linspace(low, high, 200)
    n, d = x.shape
    resultant = float(np.linalg.norm(x.mean(axis=0, dtype=np.float64)))
    curve = n * (grid * resultant - log_hyp0f1(d / 2, grid**2 / 4))
    ax = _axes(ax, figsize=(6, 4))
    ax.plot(grid, curve - curve.max())
    ax.axvline(fit.concentration, color="C1", linewidth=1)
    ax.axvspan(fit.concentration - error, fit.concentration + error, color="C1", alpha=0.2)
    ax.set_xlabel("concentration")
    ax.set_ylabel("log-likelihood, nats below its maximum")
    return ax


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
    n, m = len(result.f), len(result.g)
    if (x is None) != (y is None):
        raise TypeError("'x' and 'y' must be given together, or neither.")
    if x is None or y is None:
        ax = _axes(ax, figsize=(5.5, 4.5))
        image = ax.imshow(_array(result.plan()), aspect="auto", cmap="Blues", vmin=0)
        ax.figure.colorbar(image, ax=ax, label="mass")
        ax.set_xlabel("column")
        ax.set_ylabel("row")
        return ax
    points = []
    for name, value, length in (("x", x, n), ("y", y, m)):
        matrix = as_matrix(name, _array(value))
        if matrix.shape != (length, 2):
            raise ShapeError(
                f"'{name}' must have shape ({length}, 2), points of the plane, to match 'result'; "
                f"got {matrix.shape}. Without points the plan is drawn as a matrix."
            )
        points.append(matrix)
    n_lines = check_positive_int("n_lines", n_lines)
    from_rows, to_columns = _marginals(result)
    tails, heads, masses = _heaviest(result, n_lines, float(from_rows.sum()))
    ax = _axes(ax, figsize=(6, 5))
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
    ax = _axes(ax, figsize=(6, 4))
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


def _marginals(result: SinkhornResult) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what leaves the rows and what reaches the columns."""
    f: Any = result.f
    n, m = len(f), len(result.g)
    if isinstance(f, np.ndarray):
        return np.asarray(result.apply(np.ones(m))), np.asarray(result.apply_transpose(np.ones(n)))
    import torch

    with torch.no_grad():  # in a graph the plan would be formed
        return (
            _array(result.apply(f.new_ones(m))),
            _array(result.apply_transpose(f.new_ones(n))),
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


def _in_numpy(
    distribution: VonMisesFisher | VonMisesFisherMixture,
) -> tuple[Any, npt.NDArray[np.float64]]:
    """Return a distribution over NumPy arrays, and its mean directions, one a row."""
    if isinstance(distribution, VonMisesFisherMixture):
        locs = _array(distribution.locs)
        concentrations = _array(distribution.concentrations)
        return VonMisesFisherMixture(_array(distribution.weights), locs, concentrations), locs
    loc = _array(distribution.loc)
    return VonMisesFisher(loc, _array(distribution.concentration)), loc[None]


def _array(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return value.numpy(force=True) if hasattr(value, "numpy") else value


def _globe(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return longitude and latitude of unit vectors."""
    return np.arctan2(x[..., 1], x[..., 0]), np.arcsin(np.clip(x[..., 2], -1, 1))


def _axes(ax: Axes | None, **options: Any) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingDependencyError(
            "pyprobe.plot needs Matplotlib: pip install 'pyprobe-rs[plot]'"
        ) from error
    axes: Axes = pyplot.subplots(layout="constrained", **options)[1]
    return axes
