"""Pictures of distributions on the sphere: topics, densities, and how sure a concentration is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyprobe._validate import as_matrix, check_positive_int
from pyprobe._warn import warn
from pyprobe.directional import VonMisesFisher, VonMisesFisherMixture
from pyprobe.directional._arrays import as_directions, check_unit
from pyprobe.errors import DomainError, NumericalWarning, ShapeError
from pyprobe.plot._canvas import as_array, axes_of
from pyprobe.special import log_hyp0f1

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["concentration_profile", "mixture_topics", "sphere_density"]


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
    ax = axes_of(ax, figsize=(1.0 + 1.1 * n_words, height))
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
    ax = axes_of(ax, figsize=(7, 4), subplot_kw={"projection": "mollweide"})
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
    ax = axes_of(ax, figsize=(6, 4))
    ax.plot(grid, curve - curve.max())
    ax.axvline(fit.concentration, color="C1", linewidth=1)
    ax.axvspan(fit.concentration - error, fit.concentration + error, color="C1", alpha=0.2)
    ax.set_xlabel("concentration")
    ax.set_ylabel("log-likelihood, nats below its maximum")
    return ax


def _in_numpy(
    distribution: VonMisesFisher | VonMisesFisherMixture,
) -> tuple[Any, npt.NDArray[np.float64]]:
    """Return a distribution over NumPy arrays, and its mean directions, one a row."""
    if isinstance(distribution, VonMisesFisherMixture):
        locs = as_array(distribution.locs)
        concentrations = as_array(distribution.concentrations)
        return VonMisesFisherMixture(as_array(distribution.weights), locs, concentrations), locs
    loc = as_array(distribution.loc)
    return VonMisesFisher(loc, as_array(distribution.concentration)), loc[None]


def _globe(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return longitude and latitude of unit vectors."""
    return np.arctan2(x[..., 1], x[..., 0]), np.arcsin(np.clip(x[..., 2], -1, 1))
