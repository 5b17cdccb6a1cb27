"""Pictures of fitted models, drawn with Matplotlib.

Every function draws into the axes it is given, or into a new figure, and returns the axes. None
shows the figure, changes a style, or computes anything that the model does not already know.
"""

from __future__ import annotations

import operator
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
from pyprobe.transport import LightSchrodingerBridge, SinkhornResult
from pyprobe.typing import ArrayLike, Rng

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "bridge_marginals",
    "bridge_paths",
    "bridge_plans",
    "bridge_potential",
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


def bridge_paths(
    bridge: LightSchrodingerBridge,
    x0: ArrayLike,
    *,
    n: int = 10,
    n_times: int = 200,
    coordinates: tuple[int, int] = (0, 1),
    rng: Rng = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw paths of a Schrödinger bridge from given starts.

    The paths are drawn exactly, without a step size: with more times they show more of the noise,
    and their law at the others stays the same.

    Parameters
    ----------
    bridge : LightSchrodingerBridge
        In two dimensions or more.
    x0 : array_like, shape (m, d)
        The starts; each has a color of its own, which runs along their longest axis.
    n : int, default 10
        Paths from each start.
    n_times : int, default 200
        Equal steps of time, each a piece of the lines.
    coordinates : tuple of two int, default (0, 1)
        The coordinates that are drawn, across and up.
    rng : int, Generator or None
        Seed of the draws.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> from pyprobe import plot
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... )
    >>> ax = plot.bridge_paths(bridge, [[0.0, -1.0], [0.0, 1.0]], n=5, rng=0)
    """
    drawn = _check_coordinates(bridge, coordinates)
    starts = _starts(x0)
    times = np.linspace(0, bridge.horizon, 1 + check_positive_int("n_times", n_times))
    n = check_positive_int("n", n)
    paths = bridge.sample_path(starts, times, n=n, rng=rng)[..., drawn]
    ax = _axes(ax, figsize=(6, 5))
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    own = _along(starts[:, drawn])
    colors = np.tile(own, (n, 1))
    lines = list(paths.reshape(-1, *paths.shape[2:]))
    ax.add_collection(LineCollection(lines, colors=colors, linewidths=0.8, alpha=0.6, zorder=1))
    (x, y), (end_x, end_y) = starts[:, drawn].T, paths[:, :, -1].reshape(-1, 2).T
    ax.scatter(end_x, end_y, 9, color=colors, zorder=2)
    ax.scatter(x, y, 40, color=own, edgecolors="k", zorder=3)
    _name_coordinates(ax, drawn)
    ax.set_aspect("equal", adjustable="datalim")
    gray: dict[str, Any] = {"color": "0.5", "linestyle": "none"}
    handles = [
        Line2D([], [], marker="o", markeredgecolor="k", label="start", **gray),
        Line2D([], [], marker="o", markersize=3, label="end", **gray),
    ]
    ax.legend(handles=handles, fontsize="small")
    return ax


def bridge_marginals(
    bridge: LightSchrodingerBridge,
    x0: ArrayLike,
    *,
    times: ArrayLike | None = None,
    x1: ArrayLike | None = None,
    coordinates: tuple[int, int] = (0, 1),
    rng: Rng = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw where a sample is at several times of a Schrödinger bridge, as a strip of pictures.

    A dot is one path, drawn exactly, and has the same color in all pictures.

    Parameters
    ----------
    bridge : LightSchrodingerBridge
        In two dimensions or more.
    x0 : array_like, shape (m, d)
        A sample of the starts, colored along its longest axis.
    times : array_like, shape (l,), optional
        Increasing, in [0, horizon]; default five from the start to the end.
    x1 : array_like, shape (n, d), optional
        A sample of the ends, drawn in gray below the dots of the last picture.
    coordinates : tuple of two int, default (0, 1)
        The coordinates that are drawn, across and up.
    rng : int, Generator or None
        Seed of the draws.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes that hold the strip; its pictures are their ``child_axes``.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe import plot
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... )
    >>> ax = plot.bridge_marginals(bridge, np.random.default_rng(0).normal(size=(100, 2)), rng=0)
    >>> len(ax.child_axes)
    5
    """
    drawn = _check_coordinates(bridge, coordinates)
    starts = _starts(x0)
    moments = np.linspace(0, bridge.horizon, 5) if times is None else np.asarray(_array(times))
    paths = bridge.sample_path(starts, moments, rng=rng)[..., drawn]
    ends: npt.NDArray[Any] = np.empty((0, 2))
    if x1 is not None:
        matrix = as_matrix("x1", _array(x1))
        if matrix.shape[1] != bridge.dim:
            raise ShapeError(
                f"'x1' must have {bridge.dim} columns, as the bridge has; got {matrix.shape}."
            )
        ends = matrix[:, drawn]
    everything = np.concatenate([paths.reshape(-1, 2), ends])
    low, high = everything.min(axis=0), everything.max(axis=0)
    middle, reach = (low + high) / 2, 0.55 * (high - low).max() or 1.0
    ax = _axes(ax, figsize=(0.6 + 2.2 * len(moments), 2.7))
    colors = _along(starts[:, drawn])
    ax.set_axis_off()
    for i, t in enumerate(moments):
        panel = ax.inset_axes((i / len(moments), 0, 0.94 / len(moments), 1))
        if i == len(moments) - 1:
            panel.scatter(ends[:, 0], ends[:, 1], 6, color="0.75", edgecolors="none", zorder=1)
        x, y = paths[:, i].T
        panel.scatter(x, y, 6, color=colors, edgecolors="none", zorder=2)
        panel.set_xlim(middle[0] - reach, middle[0] + reach)
        panel.set_ylim(middle[1] - reach, middle[1] + reach)
        panel.set_aspect("equal")
        panel.set_title(f"t = {t:.4g}", fontsize="medium")
        _name_coordinates(panel, drawn)
        if i > 0:
            panel.set_ylabel("")
            panel.set_yticklabels([])
    return ax


def bridge_plans(
    bridge: LightSchrodingerBridge,
    x0: ArrayLike,
    *,
    n: int = 200,
    coordinates: tuple[int, int] = (0, 1),
    rng: Rng = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw where a Schrödinger bridge takes a few starts: the laws of their ends.

    Dots are draws of the end and a cross is its mean. An ellipse is a component that carries at
    least a hundredth of the law, at two standard deviations, the darker the more it carries.

    Parameters
    ----------
    bridge : LightSchrodingerBridge
        In two dimensions or more.
    x0 : array_like, shape (m, d)
        A few starts; each has a color of its own, which runs along their longest axis.
    n : int, default 200
        Draws from each start.
    coordinates : tuple of two int, default (0, 1)
        The coordinates that are drawn, across and up.
    rng : int, Generator or None
        Seed of the draws.
    ax : matplotlib.axes.Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> from pyprobe import plot
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... )
    >>> ax = plot.bridge_plans(bridge, [[-0.2, 1.0], [0.2, -1.0]], rng=0)
    >>> len(ax.patches)  # two components from either start
    4
    """
    drawn = _check_coordinates(bridge, coordinates)
    starts = _starts(x0)
    law = bridge.conditional(starts)
    draws = law.sample(n=check_positive_int("n", n), rng=rng)[..., drawn]
    covariances = law.component_covariances
    if covariances.ndim == 2:
        covariances = covariances[:, :, None] * np.eye(bridge.dim)
    variances, axes = np.linalg.eigh(covariances[:, drawn][:, :, drawn])
    angles = np.degrees(np.arctan2(axes[:, 1, 1], axes[:, 0, 1]))
    ax = _axes(ax, figsize=(6, 5))
    from matplotlib.lines import Line2D
    from matplotlib.patches import Ellipse

    means, locs, shares = law.mean[:, drawn], law.locs[..., drawn], law.weights
    for i, color in enumerate(_along(starts[:, drawn])):
        x, y = draws[:, i].T
        ax.scatter(x, y, 5, color=color, edgecolors="none", alpha=0.6, zorder=1)
        for k in np.flatnonzero(shares[i] >= 0.01):
            minor, major = 4 * np.sqrt(variances[k])  # from edge to edge
            ellipse = Ellipse(locs[i, k], major, minor, angle=angles[k], fill=False, zorder=2)
            ellipse.set_edgecolor((*color[:3], min(1.0, 0.2 + shares[i, k])))
            ax.add_patch(ellipse)
        (x, y), (end_x, end_y) = starts[i, drawn], means[i]
        ax.plot([x, end_x], [y, end_y], ":", color=color, linewidth=1, zorder=2)
        ax.plot(x, y, "o", color=color, markeredgecolor="k", zorder=3)
        ax.plot(end_x, end_y, "X", color=color, markeredgecolor="k", zorder=3)
    _name_coordinates(ax, drawn)
    ax.set_aspect("equal", adjustable="datalim")
    gray: dict[str, Any] = {"color": "0.5", "linestyle": "none"}
    handles = [
        Line2D([], [], marker="o", markeredgecolor="k", label="start", **gray),
        Line2D([], [], marker="X", markeredgecolor="k", label="mean end", **gray),
        Line2D([], [], marker=".", markersize=4, label="end, drawn", **gray),
        Line2D([], [], color="0.5", linewidth=1, label="component, 2 s.d."),
    ]
    ax.legend(handles=handles, fontsize="small")
    return ax


def bridge_potential(
    bridge: LightSchrodingerBridge,
    x: ArrayLike,
    *,
    t: float = 0.0,
    n_grid: int = 100,
    n_arrows: int = 16,
    ax: Axes | None = None,
) -> Axes:
    r"""Draw the potential of a Schrödinger bridge at a time, and the drift, which is its slope.

    The potential is :math:`\varepsilon \log \varphi_t`, in the unit of the data squared over that
    of time, less its least value; arrows show the drift, :math:`\varepsilon \nabla \log \varphi_t`.

    Parameters
    ----------
    bridge : LightSchrodingerBridge
        In two dimensions.
    x : array_like, shape (m, 2)
        Points such as the process may be at, at time `t`; drawn as dots. The picture covers them.
    t : float, default 0
        The time, in [0, horizon]. At the horizon the potential is ``epsilon`` times
        `LightSchrodingerBridge.log_potential`, and half the squared distance from the origin of the
        bridge over the horizon.
    n_grid : int, default 100
        Points of the grid along either side.
    n_arrows : int, default 16
        Arrows along either side.
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
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... )
    >>> x0 = np.random.default_rng(0).normal(size=(100, 2))
    >>> ax = plot.bridge_potential(bridge, bridge.sample_path(x0, [0.5], rng=0)[:, 0], t=0.5)
    """
    _check_coordinates(bridge, (0, 1))
    if bridge.dim != 2:
        raise ShapeError(f"'bridge' must have two dimensions; it has {bridge.dim}.")
    points = as_matrix("x", _array(x))
    if points.shape[1] != 2 or not len(points):
        raise ShapeError(f"'x' must have shape (m, 2), at least one row; got {points.shape}.")
    n_grid = check_positive_int("n_grid", n_grid, minimum=2)
    n_arrows = check_positive_int("n_arrows", n_arrows)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * (high - low).max() or 1.0

    def grid(n: int) -> npt.NDArray[np.float64]:
        sides = [np.linspace(a - margin, b + margin, n) for a, b in zip(low, high, strict=True)]
        return np.stack(np.meshgrid(*sides), axis=-1)

    fine = grid(n_grid)
    heights = bridge.epsilon * bridge.log_phi(fine.reshape(-1, 2), t).reshape(n_grid, n_grid)
    tails = grid(n_arrows + 2)[1:-1, 1:-1].reshape(-1, 2)
    arrows = bridge.drift(tails, t)
    ax = _axes(ax, figsize=(6.5, 5))
    shades = ax.contourf(
        fine[..., 0], fine[..., 1], heights - heights.min(), levels=20, cmap="Blues"
    )
    ax.figure.colorbar(shades, ax=ax, label="epsilon log phi, above its least value")
    ax.scatter(points[:, 0], points[:, 1], 5, color="C1", edgecolors="none", zorder=2)
    ax.quiver(*tails.T, *arrows.T, angles="xy", color="0.15", width=0.003, zorder=3)
    ax.set_title(f"potential and drift at t = {t:.4g}", fontsize="medium")
    ax.set_aspect("equal")
    _name_coordinates(ax, [0, 1])
    return ax


def _check_result(name: str, value: Any) -> None:
    if not isinstance(value, SinkhornResult):
        raise TypeError(
            f"'{name}' must be a SinkhornResult of pyprobe.transport"
            f"{', or several' if name == 'results' else ''}; got {type(value).__name__}."
        )


def _check_coordinates(bridge: Any, coordinates: tuple[int, int]) -> list[int]:
    """Return two different coordinates of what must be a bridge."""
    if not isinstance(bridge, LightSchrodingerBridge):
        raise TypeError(
            "'bridge' must be a LightSchrodingerBridge of pyprobe.transport; "
            f"got {type(bridge).__name__}."
        )
    if bridge.dim < 2:
        raise ShapeError("'bridge' must have two dimensions or more; it has 1.")
    try:
        drawn = [operator.index(i) for i in coordinates]
    except TypeError:
        raise TypeError(
            f"'coordinates' must be a pair of integers, such as (0, 1); got {coordinates!r}."
        ) from None
    if len(drawn) != 2 or drawn[0] == drawn[1] or not all(0 <= i < bridge.dim for i in drawn):
        raise DomainError(
            f"'coordinates' must be two different ones from 0 to {bridge.dim - 1}; "
            f"got {coordinates}."
        )
    return drawn


def _starts(x0: ArrayLike) -> npt.NDArray[Any]:
    starts = as_matrix("x0", _array(x0))
    if not len(starts):
        raise ShapeError("'x0' must hold at least one start; got none.")
    return starts


def _along(points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return colors, one a row, that run along the longest axis of the points."""
    from matplotlib import colormaps

    away = points - points.mean(axis=0)
    axis = np.linalg.eigh(away.T @ away)[1][:, -1]
    axis = axis if axis.sum() > 0 else -axis
    ranks = (away @ axis).argsort(kind="stable").argsort()
    colors: npt.NDArray[np.float64] = colormaps["viridis"](0.9 * ranks / max(len(points) - 1, 1))
    return colors


def _name_coordinates(ax: Axes, drawn: list[int]) -> None:
    ax.set_xlabel(f"coordinate {drawn[0]}")
    ax.set_ylabel(f"coordinate {drawn[1]}")


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
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise MissingDependencyError(
            "pyprobe.plot needs Matplotlib: pip install 'pyprobe-rs[plot]'"
        ) from error
    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        raise TypeError(
            f"'ax' must be axes of Matplotlib; got {type(ax).__name__}. Of several that "
            "pyplot.subplots returns, pass one."
        )
    axes: Axes = pyplot.subplots(layout="constrained", **options)[1]
    return axes
