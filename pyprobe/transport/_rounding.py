"""What rounding adds to a plan beside forbidden pairs.

A plan's marginals miss the weights by little. Over a spanning tree of the allowed pairs there is
just one way to add what is missing, of either sign: a leaf's pair takes all that the leaf misses.
In the tree of the largest entries these corrections are small beside what they correct.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csgraph

from pyprobe.transport._check import Vector

__all__ = ["Correction", "correction"]

_LEFT_OVER = 1e-12
"""Part of the mass that rounding may leave missing where pairs do not connect all points."""


class Correction(NamedTuple):
    """Mass to be added to some entries of a plan, and what they hold."""

    i: npt.NDArray[np.intp]
    j: npt.NDArray[np.intp]
    mass: Vector
    before: Vector


def correction(exponents: Vector, rows: Vector, columns: Vector) -> Correction | None:
    """Return what adds `rows` and `columns` to the marginals of the plan ``exp(exponents)``.

    None where that would leave an entry negative, or cannot be. O(n m log(n m)).
    """
    i, j = np.nonzero(exponents > -math.inf)
    n, m = exponents.shape
    # All above 0, which would be no edge. A root meets every point where nothing else does.
    lengths = exponents[i, j].max() - exponents[i, j] + 1
    root, far = n + m, lengths.max() + 1
    tails, heads = np.r_[i, np.full(n + m, root)], np.r_[j + n, np.arange(n + m)]
    lengths = np.r_[lengths, np.full(n + m, far)]
    graph = coo_array((lengths, (tails, heads)), shape=(root + 1, root + 1)).tocsr()
    # Older releases of SciPy take no others.
    graph.indices, graph.indptr = graph.indices.astype(np.int32), graph.indptr.astype(np.int32)
    tree = csgraph.minimum_spanning_tree(graph)
    order, parents = csgraph.breadth_first_order(tree, root, directed=False)
    missing = np.r_[rows, columns, 0.0]
    for point in order[:0:-1]:
        missing[parents[point]] -= missing[point]
    points = order[1:]
    is_top = parents[points] == root
    if np.abs(missing[points[is_top]]).sum() > _LEFT_OVER * np.exp(exponents[i, j]).sum():
        return None
    points = points[~is_top]
    i, j = np.minimum(points, parents[points]), np.maximum(points, parents[points]) - n
    mass, before = missing[points], np.exp(exponents[i, j])
    return Correction(i, j, mass, before) if (before + mass >= 0).all() else None
