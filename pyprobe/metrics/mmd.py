r"""The maximum mean discrepancy.

For a positive definite kernel k, the squared distance between the mean embeddings of two laws is

.. math:: \mathrm{MMD}^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)

(Gretton et al. 2012). The kernels here are characteristic: it is 0 only for equal laws.
"""

from __future__ import annotations

from typing import Any

from pyprobe._validate import check_bool, check_choice, check_positive_float
from pyprobe.errors import DomainError
from pyprobe.metrics._numpy import check_sums
from pyprobe.metrics._samples import Kernel, Samples, as_samples, pair_terms
from pyprobe.typing import Array, ArrayLike

__all__ = ["mmd"]

_KERNELS = {"gaussian": 1, "laplace": 2, "inverse_multiquadric": 3}


def mmd(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kernel: str = "gaussian",
    bandwidth: float | str = "median",
    weights_x: ArrayLike | None = None,
    weights_y: ArrayLike | None = None,
    unbiased: bool = True,
) -> Array:
    r"""Return the squared maximum mean discrepancy between two samples.

    It estimates :math:`E k(X, X') + E k(Y, Y') - 2 E k(X, Y)`, with one of these kernels of the
    Euclidean distance r and the bandwidth h:

    ==========================  ============================
    ``"gaussian"``              :math:`\exp(-r^2 / (2 h^2))`
    ``"laplace"``               :math:`\exp(-r / h)`
    ``"inverse_multiquadric"``  :math:`(1 + r^2/h^2)^{-1/2}`
    ==========================  ============================

    The Gaussian sees differences at the scale of h and next to nothing at others; the inverse
    multiquadric, with its heavy tail, sees far points too; the Laplace kernel, which is not smooth,
    sees finer detail.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (n, d)
        Points, one a row; shape (n,) stands for (n, 1).
    y : array_like or torch.Tensor, shape (m, d)
        Points of the other sample.
    kernel : {"gaussian", "laplace", "inverse_multiquadric"}
        The kernel.
    bandwidth : float or "median"
        h, in the unit of the data. ``"median"`` takes the median distance of the pairs among 1000
        rows (or all, if there are fewer), spread evenly over the two samples one after the other;
        derivatives count it as constant.
    weights_x : array_like or torch.Tensor, shape (n,), optional
        Nonnegative, not all zero; default equal. As in `energy_distance`.
    weights_y : array_like or torch.Tensor, shape (m,), optional
        Those of `y`.
    unbiased : bool, default True
        Whether pairs of a point with itself are left out and the rest rescaled: the U-statistic,
        which may be negative. The V-statistic is never negative (up to rounding), and 0 for equal
        samples.

    Returns
    -------
    numpy.floating or torch.Tensor
        The square, a scalar without unit; float32 where both samples are.

    Raises
    ------
    ShapeError
        If a sample has no rows, other dimensions than the other one, or a single row where
        `unbiased`.
    DomainError
        If the kernel is unknown; if `bandwidth` is not positive, or the median distance is 0 or
        overflows; or if weights are negative or too few are positive.
    NotFiniteError
        If a coordinate or a weight is infinite or NaN.
    TypeError
        If tensors come with NumPy arrays or from several devices, or `bandwidth` requires a
        gradient.

    See Also
    --------
    energy_distance : the same with the kernel -r, which has no bandwidth.

    Notes
    -----
    Cost O((n + m)^2 d) time and O((n + m) d) memory: no matrix of the kernel is held. Sums run in
    float64, with the same bits for any number of threads; what lies below 1e-16 is rounding.

    Differentiable once, in the points and in the weights, in torch's reverse mode, at the same
    order of cost; a pair of equal points has the subgradient 0 of the Laplace kernel. Second
    derivatives, forward mode, ``torch.func`` and tracing raise an error; ``torch.compile`` leaves
    the call as it is. Engines: native (NumPy, and torch on the CPU), torch (other devices; on a
    GPU a kernel of Triton where that runs).

    References
    ----------
    .. [1] A. Gretton, K. M. Borgwardt, M. J. Rasch, B. Schölkopf and A. Smola, "A kernel two-sample
       test", JMLR 13, 2012, equations (3) and (5); section 8 for the median.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.metrics import mmd
    >>> x = np.random.default_rng(0).normal(size=(500, 3))
    >>> y = np.random.default_rng(1).normal(size=(400, 3))
    >>> bool(abs(mmd(x, y)) < 0.01)
    True
    >>> bool(mmd(x, y + 1.0, bandwidth=2.0) > 0.1)
    True
    """
    check_choice("kernel", kernel, tuple(_KERNELS))
    unbiased = check_bool("unbiased", unbiased)
    if getattr(bandwidth, "requires_grad", False):
        raise TypeError(
            "'bandwidth' must be a number: there is no derivative in it. Pass float(bandwidth)."
        )
    samples = as_samples(x, y, weights_x, weights_y)
    chosen = Kernel(_KERNELS[kernel], _bandwidth(bandwidth, samples))
    xx, yy, xy = pair_terms(samples, chosen, 1.0, unbiased)
    value: Array = samples.formulas.result(xx + yy - 2 * xy, samples.dtype)
    return value


def _bandwidth(bandwidth: Any, samples: Samples) -> float:
    if not isinstance(bandwidth, str):
        return check_positive_float("bandwidth", bandwidth)
    if bandwidth != "median":
        raise DomainError(f"'bandwidth' must be a positive number or 'median'; got {bandwidth!r}.")
    median = float(samples.formulas.median_distance(samples.x, samples.y))
    check_sums([median])
    if median == 0:
        raise DomainError(
            "'bandwidth' cannot be the median distance, which is 0: most points are equal. Pass a "
            "number."
        )
    return median
