"""A stop of the tour: several recolorings of one photograph, and the ways to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from pyprobe.demo._tour import Tour, timed
from pyprobe.demo.transport import (
    CREDIT,
    as_image,
    load_photographs,
    palette,
    recolor,
    through_table,
)
from pyprobe.metrics import energy_distance
from pyprobe.transport import LightSchrodingerBridge, sinkhorn, suggest_epsilon
from pyprobe.transport.gaussian_mixture import GaussianMixtureBatch
from pyprobe.typing import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["recolorings_of_a_photograph"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

_N_PIXELS, _N_FRESH = 10_000, 3000
_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)


def recolorings_of_a_photograph(tour: Tour) -> None:
    """Several recolorings of one photograph: a Schrödinger bridge, beside Sinkhorn.

    A bridge is fitted to the colors of some pixels of the two photographs. It takes a color not to
    one other but to a distribution of them, so that there are many recolorings, and a way to each.
    """
    other, image = load_photographs()
    rng = np.random.default_rng(0)
    (x0, fresh0), (x1, fresh1) = (
        np.split(
            rng.permutation(photograph.reshape(-1, 3))[: _N_PIXELS + _N_FRESH] / 255, [_N_PIXELS]
        )
        for photograph in (image, other)
    )
    epsilon = suggest_epsilon(x0, x1, fraction=0.02)
    tour.say(
        f"A light Schrödinger bridge of 30 full components is fitted to the colors of {_N_PIXELS} "
        f"pixels of either photograph. Its epsilon, {epsilon:.4f}, is 2 % of their mean squared "
        f"distance. Sinkhorn's iteration is given the same strength, {2 * epsilon:.4f} for the "
        "squared distance without a half, on the cells of colors of all pixels."
    )
    bridge, seconds = timed(
        lambda: LightSchrodingerBridge.fit(
            x0, x1, epsilon=epsilon, n_components=30, covariance="full", rng=0
        )
    )
    (x, a), (y, b) = palette(image), palette(other)
    plan, plan_seconds = timed(
        lambda: sinkhorn(a, b, ((x[:, None] - y) ** 2).sum(axis=-1), epsilon=2 * epsilon, tol=1e-6)
    )

    def sinkhorn_mean(colors: Pixels) -> FloatArray:
        return recolor(colors, plan, y, b, plan.g) / 255

    def away(colors: FloatArray) -> str:
        return f"{energy_distance(colors, fresh1):.5f}"

    mapped = away(sinkhorn_mean(as_image(fresh0[None]))[0])
    mean, drawn = (
        away(np.asarray(to)) for to in (bridge.mean(fresh0), bridge.sample(fresh0, rng=1))
    )
    tour.table(
        "<>>",
        ["", "fit", "energy distance"],
        [
            ["nothing done", "", away(fresh0)],
            ["Sinkhorn, barycentric map", f"{plan_seconds:.2f} s", mapped],
            ["bridge, mean of the plan", f"{seconds:.2f} s", mean],
            ["bridge, a draw from the plan", "the same", drawn],
        ],
    )
    tour.say(
        f"The energy distance is that of {_N_FRESH} fresh pixels, recolored, from {_N_FRESH} fresh "
        "ones of the photograph whose colors they take. A mean is duller than what it is the mean "
        "of, by either method; a draw is not."
    )
    axes = np.linalg.eigh(np.cov(x1.T))[1][:, ::-1]  # lightness first, or nearly
    show_ways(tour, bridge, image[::2, ::2], other[::2, ::2], axes, sinkhorn_mean, rng)


def show_ways(
    tour: Tour,
    bridge: LightSchrodingerBridge,
    picture: Pixels,
    other: Pixels,
    axes: FloatArray,
    sinkhorn_mean: Callable[[Pixels], FloatArray],
    rng: np.random.Generator,
) -> None:
    """Draw three recolorings of a picture and the ways to them, and what else is made of it."""

    def at(levels: FloatArray) -> FloatArray:
        return through_table(picture, lambda c: at_levels(bridge.conditional(c), levels, axes))

    # Uniform, and in another third each time.
    levels = (rng.permuted(np.tile(np.arange(3), (3, 1)), axis=1).T + rng.random((3, 3))) / 3
    rows, seconds = timed(
        lambda: [film(picture / 255, at(drawn), bridge.epsilon, rng) for drawn in levels]
    )
    tour.say(
        "With noise of its own for every pixel a recoloring is grainy. The figure therefore takes "
        "all pixels to the same quantiles of their plans, lightness first, then the others given "
        "those before; they are drawn once a recoloring, and so is the noise on the way. "
        f"{len(rows)} recolorings, with the ways to them, took {seconds:.1f} s."
    )
    flat = picture.reshape(-1, 3) / 255
    rows.append(
        [
            other,
            as_image(sinkhorn_mean(picture)),
            as_image(through_table(picture, lambda c: np.asarray(bridge.mean(c)))),
            as_image(np.asarray(bridge.sample(flat, rng=2)).reshape(picture.shape)),
            as_image(at(np.full(3, 0.5))),
        ]
    )
    tour.figure("recolorings", lambda ax: draw_rows(ax, rows), size=(10, 6.4))


def at_levels(
    law: GaussianMixtureBatch, levels: FloatArray, axes: FloatArray
) -> npt.NDArray[np.float64]:
    """Return, for each row of `law`, the point at the given levels along the columns of `axes`.

    The first level is that of the distribution function of the first coordinate, the second that
    of the second given the first, and so on (Rosenblatt 1952): levels drawn uniformly make a draw
    from each row, and points of neighboring rows lie side by side.
    """
    means = law.locs @ axes
    covariances = axes.T @ law.component_covariances @ axes
    log_weights = law.log_weights
    found = np.empty((len(means), len(levels)))
    for i, level in enumerate(levels):
        # Each component's law of this coordinate, given those before.
        slopes = np.linalg.solve(covariances[:, :i, :i], covariances[:, :i, i, None])[..., 0]
        middle = means[..., i] + ((found[:, None, :i] - means[..., :i]) * slopes).sum(axis=-1)
        deviation = np.sqrt(covariances[:, i, i] - (covariances[:, i, :i] * slopes).sum(axis=-1))
        shares = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        low, high = (middle - 8 * deviation).min(axis=1), (middle + 8 * deviation).max(axis=1)
        for _ in range(20):  # halves an interval of a few units to 1e-5
            found[:, i] = (low + high) / 2
            reached = (shares * ndtr((found[:, i, None] - middle) / deviation)).sum(axis=1)
            low, high = (
                np.where(reached < level, found[:, i], low),
                np.where(reached < level, high, found[:, i]),
            )
        away = (found[:, i, None] - middle) / deviation
        log_weights = log_weights - away**2 / 2 - np.log(deviation)
    points: npt.NDArray[np.float64] = found @ axes.T
    return points


def film(
    start: FloatArray, end: FloatArray, epsilon: float, rng: np.random.Generator
) -> list[Pixels]:
    """Return the pictures between two, on Brownian bridges that share their noise."""
    times = np.array(_TIMES)
    steps = rng.normal(size=(len(times) - 1, 3)) * np.sqrt(np.diff(times))[:, None]
    motion = np.vstack([np.zeros(3), steps.cumsum(axis=0)])
    noise = np.sqrt(epsilon) * (motion - times[:, None] * motion[-1])
    return [
        as_image((1 - t) * start + t * end + away) for t, away in zip(times, noise, strict=True)
    ]


def draw_rows(ax: Axes, rows: list[list[Pixels]]) -> None:
    """Draw the ways to three recolorings, and below them what else may be made of the picture."""
    height, width, _ = rows[0][0].shape
    across, down = width + 6, height + 6
    sheet = np.full((4 * down + 24, 5 * across - 6, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        top = i * down + (30 if i == 3 else 0)
        for j, image in enumerate(row):
            sheet[top : top + height, j * across : j * across + width] = image
    ax.imshow(sheet)
    below = (
        "the colors to take",
        "Sinkhorn: mean",
        "bridge: mean",
        "bridge: a draw for each pixel",
        "bridge: medians",
    )
    for j, (t, label) in enumerate(zip(_TIMES, below, strict=True)):
        middle = j * across + width / 2
        ax.text(middle, -8, f"t = {t:g}", ha="center", va="bottom", fontsize=9)
        ax.text(middle, 3 * down + 10, label, ha="center", va="center", fontsize=9)
    ax.set_xlabel(
        "Upper rows: three ways to the colors of another photograph, drawn from one bridge. All "
        "pixels go to the same quantiles of their plans,\nwhich are drawn once a row, as is the "
        f"noise on the way.\n{CREDIT}, recolored",
        fontsize=8,
    )
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
