r"""Wasserstein distances between samples whose points have equal weights.

.. math:: W_p = \Bigl(\min_P \sum_{ij} P_{ij} |x_i - y_j|^p\Bigr)^{1/p}

over the couplings P of the two samples. On a line the sorted points are coupled in order, which is
exact for samples of any sizes.
"""

from __future__ import annotations

from typing import Any

from pyprobe import _rng
from pyprobe._validate import check_positive_float, check_positive_int
from pyprobe.errors import DomainError
from pyprobe.metrics import _numpy
from pyprobe.metrics._samples import as_samples
from pyprobe.typing import Array, ArrayLike, Rng

__all__ = ["sliced_wasserstein", "wasserstein"]


def wasserstein(x: ArrayLike, y: ArrayLike, *, p: float = 1) -> Array:
    r"""Return the exact Wasserstein distance between two samples.

    It is :math:`(\min_P \sum_{ij} P_{ij} |x_i - y_j|^p)^{1/p}` over the couplings of the samples,
    with Euclidean distances: by sorting on a line, by an assignment for samples of one size, else
    by the network simplex of POT.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (n, d)
        Points of equal weight, one a row; shape (n,) stands for (n, 1).
    y : array_like or torch.Tensor, shape (m, d)
        Points of the other sample.
    p : float, default 1
        At least 1.

    Returns
    -------
    numpy.floating or torch.Tensor
        A scalar in the unit of the data; float32 where both samples are.

    Raises
    ------
    ShapeError
        If a sample has no rows, or other dimensions than the other one.
    DomainError
        If `p` is less than 1 or infinite, or squared distances overflow.
    NotFiniteError
        If a coordinate is infinite or NaN.
    MissingDependencyError
        If n and m differ, d > 1, and POT is not installed (extra ``ot``).
    TypeError
        If tensors come with NumPy arrays or from several devices.

    Warns
    -----
    ConvergenceWarning
        If the network simplex stops before the optimum.

    See Also
    --------
    sliced_wasserstein : for samples too large for an exact solution beyond a line.

    Notes
    -----
    Cost O((n + m) log(n + m)) on a line. Beyond it a matrix of n m costs is held, and the time
    grows about like the cube of the size: a few thousand points are practical.

    Differentiable in the points any number of times, with the optimal coupling held, which is the
    derivative wherever that coupling is the only one; a pair of equal points has the subgradient 0.
    Beyond a line the coupling is found on the CPU, to which the points of another device are
    copied, and ``torch.func`` raises `PyprobeError`. Engines: NumPy with SciPy, torch.

    References
    ----------
    .. [1] G. Peyré and M. Cuturi, "Computational optimal transport", Foundations and Trends in
       Machine Learning 11(5-6), 2019, remarks 2.28 and 2.30 (the line), section 3 (exact solvers).

    Examples
    --------
    >>> from pyprobe.metrics import wasserstein
    >>> float(wasserstein([0.0, 1.0, 3.0], [5.0, 6.0, 8.0]))
    5.0
    >>> float(wasserstein([[0.0, 0.0], [4.0, 3.0]], [[4.0, 3.0], [3.0, 4.0]]))
    2.5
    """
    p = _order(p)
    samples = as_samples(x, y)
    distance = samples.formulas.exact_distance(samples.x, samples.y, p)
    value: Array = samples.formulas.result(distance, samples.dtype)
    return value


def sliced_wasserstein(
    x: ArrayLike,
    y: ArrayLike,
    *,
    p: float = 2,
    n_projections: int = 200,
    rng: Rng = None,
) -> Array:
    r"""Return the sliced Wasserstein distance between two samples.

    With unit vectors :math:`\theta` drawn uniformly it is

    .. math:: \Bigl(\frac{1}{L} \sum_{l=1}^{L} W_p^p(\theta_l \cdot x, \theta_l \cdot y)
        \Bigr)^{1/p},

    the distances on the lines being exact. Its p-th power is an unbiased estimate of the mean over
    all directions. On a line it is `wasserstein` itself.

    Parameters
    ----------
    x : array_like or torch.Tensor, shape (n, d)
        Points of equal weight, one a row; shape (n,) stands for (n, 1).
    y : array_like or torch.Tensor, shape (m, d)
        Points of the other sample.
    p : float, default 2
        At least 1.
    n_projections : int, default 200
        L.
    rng : int, Generator or None
        Seed of the directions; the same seed gives the same ones for arrays and tensors on any
        device.

    Returns
    -------
    numpy.floating or torch.Tensor
        A scalar in the unit of the data; float32 where both samples are.

    Raises
    ------
    ShapeError
        If a sample has no rows, or other dimensions than the other one.
    DomainError
        If `p` is less than 1 or infinite, there are no projections, or distances overflow.
    NotFiniteError
        If a coordinate is infinite or NaN.
    TypeError
        If tensors come with NumPy arrays or from several devices.

    Notes
    -----
    Cost O(L (n + m) (d + log(n + m))) time; some projections are held at a time, all of them where
    torch records a gradient. In float64 throughout. Projections shrink a distance by about
    :math:`d^{-1/2}`: values of different dimensions do not compare.

    Differentiable in the points any number of times, with the order of the projections held, in
    torch's reverse and forward mode and ``torch.func`` without ``vmap``; equal points have the
    subgradient 0. Engines: NumPy, torch.

    References
    ----------
    .. [1] N. Bonneel, J. Rabin, G. Peyré and H. Pfister, "Sliced and Radon Wasserstein barycenters
       of measures", J. Math. Imaging Vision 51, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.metrics import sliced_wasserstein
    >>> x = np.random.default_rng(0).normal(size=(1000, 5))
    >>> shift = np.array([3.0, 0, 0, 0, 0])
    >>> near = sliced_wasserstein(x, x + shift, n_projections=2000, rng=0)
    >>> bool(abs(near - 3 / 5**0.5) < 0.05)  # each line sees the shift's component along it
    True
    """
    p = _order(p)
    n_projections = check_positive_int("n_projections", n_projections)
    samples = as_samples(x, y)
    formulas, dim = samples.formulas, samples.x.shape[1]
    key = _rng.key(rng)  # a generator advances on a line too
    if dim == 1:
        distance = formulas.exact_distance(samples.x, samples.y, p)
    else:
        lines = _numpy.directions(n_projections, dim, key)
        distances = formulas.projected_distances(samples.x, samples.y, lines, p)
        distance = formulas.weighted_norm(distances, 1 / n_projections, p)
    value: Array = formulas.result(distance, samples.dtype)
    return value


def _order(p: Any) -> float:
    number = check_positive_float("p", p)
    if number < 1:
        raise DomainError(f"'p' must be at least 1; got {number}.")
    return number
