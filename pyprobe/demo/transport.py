"""A stop of the tour: the colors of one photograph for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import interpn

from pyprobe.demo._tour import Tour, timed
from pyprobe.errors import MissingDependencyError
from pyprobe.transport import SinkhornResult, sinkhorn, sinkhorn_divergence
from pyprobe.typing import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CREDIT",
    "as_image",
    "colors_of_photographs",
    "load_photographs",
    "palette",
    "recolor",
    "through_table",
]

_EPSILON = 0.005  # colors are blurred over its square root, 0.07 of the range of a channel
_TOL = 1e-6
CREDIT = "Photographs: china.jpg by danielbuechele and flower.jpg by vultilion (Flickr), CC BY 2.0"
"""The photographs' authors and licence, which go with all that is made of them."""


def colors_of_photographs(tour: Tour) -> None:
    """Colors of one photograph for another, beside POT.

    The colors of the two photographs that come with scikit-learn are coupled by entropic transport;
    each color goes to the mean of those that it is coupled to. The same problem is given to POT.
    """
    photographs = load_photographs()
    palettes = [palette(image) for image in photographs]
    (x, a), (y, b) = palettes
    cost = ((x[:, None] - y) ** 2).sum(axis=-1)
    tour.say(
        f"{photographs[0][..., 0].size} pixels of each photograph are counted in a grid of 16 "
        f"shades of red, green and blue. {len(x)} and {len(y)} cells have any, which makes as many "
        "weighted points. The cost is the squared distance of colors, from 0 to 3; "
        f"epsilon is {_EPSILON}."
    )
    result, seconds = timed(lambda: sinkhorn(a, b, cost, epsilon=_EPSILON, tol=_TOL))
    error = marginal_error(np.asarray(result.plan()), a, b)
    steps = f"{result.n_iter} + {result.n_newton}" if result.n_newton else f"{result.n_iter}"
    rows = [["pyprobe.transport.sinkhorn", f"{error:.1e}", steps, f"{1e3 * seconds:.0f} ms"]]
    try:
        import ot
    except ImportError:
        tour.say("Without POT there is nothing to compare with: pip install 'pyprobe-rs[ot]'.")
    else:
        # Its tolerance is for the L2 norm of the columns' error, which is smaller than the L1 norm.
        (plan, log), seconds = timed(
            lambda: ot.sinkhorn(a, b, cost, _EPSILON, stopThr=0.1 * _TOL, numItermax=2000, log=True)
        )
        error = marginal_error(plan, a, b)
        rows.append(["ot.sinkhorn", f"{error:.1e}", f"{log['niter']}", f"{1e3 * seconds:.0f} ms"])
    tour.table("<>>>", ["", "marginal error", "iterations", "time"], rows)
    tour.say(
        "The marginal error is measured on both plans alike: L1, rows and columns together. One "
        f"call of each. The optimum lies within {result.gap:.0e} of the value {result.value:.6f}, "
        "as a rounded plan certifies."
    )
    recolored, seconds = timed(
        lambda: [
            recolor(photographs[0], result, y, b, result.g),
            recolor(photographs[1], result, x, a, result.f),
        ]
    )
    before = sinkhorn_divergence(x, y, a=a, b=b, epsilon=_EPSILON, tol=_TOL).value
    after = []
    for (points, weights), image in zip(palettes[::-1], recolored, strict=True):
        found, shares = palette(image)
        left = sinkhorn_divergence(found, points, a=shares, b=weights, epsilon=_EPSILON, tol=_TOL)
        after.append(left.value)
    tour.say(
        f"The map is extended to all colors by the potentials, in a table of {_SHADES} shades a "
        f"channel, and read between its entries: both photographs in {seconds:.1f} s. The Sinkhorn "
        f"divergence of their colors was {before:.3f}; once recolored, it is {after[0]:.4f} and "
        f"{after[1]:.4f} from the one to the colors of the other."
    )
    tour.figure(
        "colors_of_photographs",
        lambda ax: draw_photographs(ax, photographs, recolored),
        size=(9, 6.5),
    )


def load_photographs() -> list[npt.NDArray[np.uint8]]:
    """Return scikit-learn's two photographs, shape (427, 640, 3)."""
    try:
        from sklearn.datasets import load_sample_images

        bunch: Any = load_sample_images()
    except ImportError as error:  # of scikit-learn, or of Pillow within it
        raise MissingDependencyError(
            "the photographs need scikit-learn and Pillow: pip install 'pyprobe-rs[sklearn,plot]'"
        ) from error
    return list(bunch.images)


def palette(
    image: npt.NDArray[np.uint8], n_shades: int = 16
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean colors of the cells of a grid that hold pixels, and their shares of all."""
    pixels = image.reshape(-1, 3)
    red, green, blue = (pixels // (256 // n_shades)).astype(np.intp).T
    cells = (red * n_shades + green) * n_shades + blue
    _, cell_of, counts = np.unique(cells, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(cell_of, channel / 255) for channel in pixels.T], axis=1)
    return sums / counts[:, None], counts / counts.sum()


def marginal_error(plan: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the L1 distance of a plan's marginals from the weights."""
    return float(np.abs(plan.sum(axis=1) - a).sum() + np.abs(plan.sum(axis=0) - b).sum())


_SHADES = 33


def recolor(
    image: npt.NDArray[np.uint8],
    result: SinkhornResult,
    points: FloatArray,
    weights: FloatArray,
    potential: Any,
) -> npt.NDArray[np.uint8]:
    """Return an image whose colors are carried to `points`.

    The barycentric map of any color z, be it in the plan or not: the mean of the points y_j with
    weights b_j exp((g_j - |z - y_j|^2) / epsilon).
    """
    offsets = np.log(weights) + (potential - (points**2).sum(axis=1)) / result.epsilon

    def carry(colors: FloatArray) -> FloatArray:
        # Without |z|^2, which all the weights of a color share.
        logs = offsets + colors @ points.T * (2 / result.epsilon)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        carried: FloatArray = shares @ points / shares.sum(axis=1, keepdims=True)
        return carried

    return as_image(through_table(image, carry))


def through_table(
    image: npt.NDArray[np.uint8], carry: Callable[[FloatArray], FloatArray]
) -> npt.NDArray[np.float64]:
    """Return what `carry` makes of an image's colors, in [0, 1], by a table of them.

    Only the entries beside some pixel are made, and the others left at 0.
    """
    axis = np.linspace(0, 1, _SHADES)
    cells = image.reshape(-1, 3) * np.int32(_SHADES - 1) // 255
    needed = np.zeros((_SHADES,) * 3, dtype=bool)
    for corner in np.ndindex(2, 2, 2):
        needed[tuple(np.minimum(cells + corner, _SHADES - 1).T)] = True
    table = np.zeros((*needed.shape, 3))
    entries = np.argwhere(needed)
    for part in np.array_split(entries, 1 + len(entries) // 2000):
        table[tuple(part.T)] = carry(axis[part])
    found: npt.NDArray[np.float64] = interpn((axis,) * 3, table, image / 255)
    return found


def as_image(colors: FloatArray) -> npt.NDArray[np.uint8]:
    """Round colors to 8 bits a channel."""
    rounded: npt.NDArray[np.uint8] = np.rint(255 * np.clip(colors, 0, 1)).astype(np.uint8)
    return rounded


def draw_photographs(
    ax: Axes,
    photographs: list[npt.NDArray[np.uint8]],
    recolored: list[npt.NDArray[np.uint8]],
) -> None:
    """Draw both photographs, and below each itself in the colors of the other."""
    height, width, _ = photographs[0].shape
    gap = 8
    sheet = np.full((2 * height + gap, 2 * width + gap, 3), 255, dtype=np.uint8)
    for i, pair in enumerate((photographs, recolored)):
        for j, image in enumerate(pair):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = image
    ax.imshow(sheet)
    ax.set_title("Above: two photographs. Below: each in the colors of the other.", fontsize=10)
    ax.set_xlabel(f"{CREDIT}, recolored below", fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
