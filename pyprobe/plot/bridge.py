"""Pictures of Schrödinger bridges: paths, marginals over time, plans, and the potential."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyprobe._validate import as_matrix, check_positive_int
from pyprobe.errors import DomainError, ShapeError
from pyprobe.plot._canvas import as_array, axes_of
from pyprobe.transport import LightSchrodingerBridge
from pyprobe.typing import ArrayLike, Rng

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bridge_marginals", "bridge_paths", "bridge_plans", "bridge_potential"]


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
    ax = axes_of(ax, figsize=(6, 5))
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
    moments = np.linspace(0, bridge.horizon, 5) if times is None else np.asarray(as_array(times))
    paths = bridge.sample_path(starts, moments, rng=rng)[..., drawn]
    ends: npt.NDArray[Any] = np.empty((0, 2))
    if x1 is not None:
        matrix = as_matrix("x1", as_array(x1))
        if matrix.shape[1] != bridge.dim:
            raise ShapeError(
                f"'x1' must have {bridge.dim} columns, as the bridge has; got {matrix.shape}."
            )
        ends = matrix[:, drawn]
    everything = np.concatenate([paths.reshape(-1, 2), ends])
    low, high = everything.min(axis=0), everything.max(axis=0)
    middle, reach = (low + high) / 2, 0.55 * (high - low).max() or 1.0
    ax = axes_of(ax, figsize=(0.6 + 2.2 * len(moments), 2.7))
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
    ax = axes_of(ax, figsize=(6, 5))
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
    points = as_matrix("x", as_array(x))
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
    ax = axes_of(ax, figsize=(6.5, 5))
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
    starts = as_matrix("x0", as_array(x0))
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
