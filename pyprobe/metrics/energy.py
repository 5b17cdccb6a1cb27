r"""The energy distance.

.. math:: D(X, Y) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|,

with independent copies :math:`X', Y'`. Between laws with finite means it is 0 exactly where they
are the same (Székely and Rizzo 2013); it needs no bandwidth, and scales like the data.
"""

from __future__ import annotations

from pyprobe._validate import check_bool
from pyprobe.metrics._samples import Kernel, as_samples, pair_terms
from pyprobe.typing import Array, ArrayLike

__all__ = ["energy_distance"]

_DISTANCE = Kernel(0)


def energy_distance(
    x: ArrayLike,
    y: ArrayLike,
    *,
    weights_x: ArrayLike | None = None,
    weights_y: ArrayLike | None = None,
    unbiased: bool = True,
) -> Array:
    r"""Return the energy distance between two samples.

    It estimates :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|` with Euclidean distances. For weights
    that add up to 1,

    .. math:: 2 \sum_{ij} a_i b_j |x_i - y_j|
        - \frac{\sum_{i \ne j} a_i a_j |x_i - x_j|}{\sum_{i \ne j} a_i a_j}
        - \frac{\sum_{i \ne j} b_i b_j |y_i - y_j|}{\sum_{i \ne j} b_i b_j}

    is unbiased wherever the weights do not depend on the points: the U-statistic. It may be
    negative. Without the denominators it is the V-statistic, the distance between the two samples
    themselves: never negative, 0 only for equal samples, but above the distance of the laws on
    average.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (n, d)
        Points, one a row; shape (n,) stands for (n, 1).
    y : array_like or torch.Tensor, shape (m, d)
        Points of the other sample.
    weights_x : array_like or torch.Tensor, shape (n,), optional
        Nonnegative, not all zero; default equal. Only their ratios count: they say how much of the
        law a point stands for, not how often it was seen.
    weights_y : array_like or torch.Tensor, shape (m,), optional
        Those of `y`.
    unbiased : bool, default True
        Whether to return the U-statistic.

    Returns
    -------
    numpy.floating or torch.Tensor
        A scalar in the unit of the data; float32 where both samples are. The square of
        `scipy.stats.energy_distance`, which is the V-statistic on a line.

    Raises
    ------
    ShapeError
        If a sample has no rows, other dimensions than the other one, or a single row where
        `unbiased`.
    DomainError
        If weights are negative or too few are positive, or squared distances overflow.
    NotFiniteError
        If a coordinate or a weight is infinite or NaN.
    TypeError
        If tensors come with NumPy arrays or from several devices.

    See Also
    --------
    mmd : the same with a kernel in place of the distance.

    Notes
    -----
    Cost O((n + m)^2 d) time and O((n + m) d) memory: no matrix of distances is held. Sums run in
    float64, with the same bits for any number of threads; what lies below 1e-16 of the distances
    themselves is rounding. Points nearer than 1e-150 count as equal.

    Differentiable once, in the points and in the weights, in torch's reverse mode, at the same
    order of cost; a pair of equal points has the subgradient 0. Second derivatives,
    forward mode, ``torch.func`` and tracing raise an error; ``torch.compile`` leaves the call as it
    is. Engines: native (NumPy, and torch on the CPU), torch (other devices; on a GPU a kernel of
    Triton where that runs).

    References
    ----------
    .. [1] G. J. Székely and M. L. Rizzo, "Energy statistics: a class of statistics based on
       distances", J. Statist. Plann. Inference 143(8), 2013.
    .. [2] A. Gretton, K. M. Borgwardt, M. J. Rasch, B. Schölkopf and A. Smola, "A kernel two-sample
       test", JMLR 13, 2012, equation (3) (the U-statistic).

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.metrics import energy_distance
    >>> x = np.random.default_rng(0).normal(size=(500, 3))
    >>> y = np.random.default_rng(1).normal(size=(400, 3))
    >>> bool(abs(energy_distance(x, y)) < 0.02)
    True
    >>> bool(energy_distance(x, y + 1.0) > 0.5)
    True
    """
    unbiased = check_bool("unbiased", unbiased)
    samples = as_samples(x, y, weights_x, weights_y)
    xx, yy, xy = pair_terms(samples, _DISTANCE, 0.0, unbiased)
    value: Array = samples.formulas.result(2 * xy - xx - yy, samples.dtype)
    return value
