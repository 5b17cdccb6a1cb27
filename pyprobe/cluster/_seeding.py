"""Starts of a clustering of directions: more seeds than clusters, then merging."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _core, _rng
from pyprobe._validate import as_matrix, check_positive_int
from pyprobe.cluster._samples import as_samples
from pyprobe.errors import ShapeError
from pyprobe.typing import Rng

__all__ = ["merge_directions", "spherical_seeds"]


def spherical_seeds(
    x: Any, n_clusters: int, *, n_rounds: int = 3, rng: Rng = None
) -> npt.NDArray[np.intp]:
    r"""Pick rows of `x` that seed a clustering of directions: more than there will be clusters.

    The first round draws `n_clusters` rows uniformly, each further one as many at once, with
    probability proportional to :math:`1 - \cos` of the angle to the nearest so far, which is half
    the squared distance: k-means|| [1]_ on the sphere. In high dimensions the rows of a cluster are
    hardly nearer to each other than to any other row, so k seeds seldom find k clusters. Of a few
    times k every cluster gets some, and `merge_directions` joins what belongs together after a few
    steps of k-means have averaged the noise away.

    Parameters
    ----------
    x : array_like or sparse matrix, shape (n, d)
        Unit vectors, one a row; not checked.
    n_clusters : int
        At most n.
    n_rounds : int, default 3
        Each reads `x` once.
    rng : int, Generator or None
        Seed of the draws.

    Returns
    -------
    ndarray of int
        Rising indices of rows, between `n_clusters` and `n_rounds` times as many.

    Raises
    ------
    ShapeError      if ``x`` is not a matrix, or has fewer rows than `n_clusters`.

    Notes
    -----
    Cost O(n d k) a round. Engine: native.

    References
    ----------
    .. [1] B. Bahmani, B. Moseley, A. Vattani, R. Kumar and S. Vassilvitskii, "Scalable k-means++",
       PVLDB 5(7), 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.cluster import spherical_seeds
    >>> x = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    >>> set((spherical_seeds(x, 3, rng=0) // 2).tolist())
    {0, 1, 2}
    """
    n_clusters = check_positive_int("n_clusters", n_clusters)
    n_rounds = check_positive_int("n_rounds", n_rounds)
    seeds = _core.spherical_seeds(as_samples("x", x), n_clusters, n_rounds, _rng.key(rng))
    return np.array(seeds, dtype=np.intp)


def merge_directions(resultants: npt.ArrayLike, n_clusters: int) -> npt.NDArray[np.intp]:
    r"""Join clusters of directions, the cheapest pair first, until `n_clusters` are left.

    The clusters have resultants :math:`S_k`, the sums of their unit vectors. Spherical k-means
    maximizes :math:`\sum_k |S_k|`; joining two clusters costs :math:`|S_a| + |S_b| - |S_a + S_b|`.
    This is Ward's method [1]_ on the sphere.

    Parameters
    ----------
    resultants : array_like, shape (m, d)
        One cluster a row.
    n_clusters : int
        At most m.

    Returns
    -------
    ndarray of int, shape (m,)
        For every row the number of its cluster, from 0 to ``n_clusters - 1``.

    Raises
    ------
    ShapeError      if ``resultants`` is not a matrix, or has fewer rows than `n_clusters`.

    Notes
    -----
    Cost O(m^2 d + m^3). Engine: native.

    References
    ----------
    .. [1] J. H. Ward, "Hierarchical grouping to optimize an objective function", JASA 58, 1963.

    Examples
    --------
    >>> from pyprobe.cluster import merge_directions
    >>> merge_directions([[5.0, 0.0], [0.0, 4.0], [3.0, 0.1]], 2)
    array([0, 1, 0])
    """
    s = as_matrix("resultants", resultants).astype(np.float64)
    n_clusters = check_positive_int("n_clusters", n_clusters)
    if len(s) < n_clusters:
        raise ShapeError(f"'resultants' must have at least {n_clusters} rows; got shape {s.shape}.")
    return np.array(_core.merge_directions(s.T, n_clusters), dtype=np.intp)
