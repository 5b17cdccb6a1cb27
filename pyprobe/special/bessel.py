"""Logarithms of modified Bessel functions and their ratios, with derivatives in both arguments."""

from __future__ import annotations

from pyprobe.special._docs import document
from pyprobe.special._kernels import (
    BESSEL_RATIO,
    BESSEL_RATIO_COMPLEMENT,
    LOG_HYP0F1,
    LOG_IV,
    LOG_IVE,
    LOG_KV,
    LOG_KVE,
    LOG_MATERN,
    evaluate,
    invert_ratio,
)
from pyprobe.typing import Array, ArrayLike

__all__ = [
    "bessel_ratio",
    "bessel_ratio_complement",
    "bessel_ratio_inverse",
    "log_hyp0f1",
    "log_iv",
    "log_ive",
    "log_kv",
    "log_kve",
    "log_matern",
]


@document()
def log_iv(v: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the logarithm of the modified Bessel function of the first kind, log I_v(x).

    .. math:: I_v(x) = \sum_{k=0}^\infty \frac{(x/2)^{2k+v}}{k! \, \Gamma(k+v+1)}

    It stays finite where `scipy.special.iv` and ``ive`` overflow or underflow.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, v >= 0; broadcast against `x`.
    x : array_like or torch.Tensor
        Argument, x >= 0.
    {derivative}

    See Also
    --------
    log_ive : Scaled by exp(-x): keeps its digits where x is large.
    log_hyp0f1 : The same without the power of x, which is lost or dominates where x is small.
    bessel_ratio : The derivative in x, less v / x.

    Notes
    -----
    At x = 0 it is 0 for v = 0, else -inf; at x = inf it is inf.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.special import log_iv
    >>> x = np.array([0.5, 50.0, 5e6])
    >>> np.round(log_iv(2.5, x), 6)
    array([-4.64888800e+00,  4.70644500e+01,  4.99999137e+06])
    >>> round(float(log_iv(1000, 2.0)), 6)  # I_v(x) is 2.5e-2568
    -5912.127179
    >>> round(float(log_iv(1000, 2.0, derivative=(1, 0))), 6)
    -6.908256
    """
    return evaluate(LOG_IV, v, x, derivative)


@document()
def log_ive(v: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the logarithm of the scaled function of the first kind, log(exp(-x) I_v(x)).

    .. math:: \log I_v(x) - x

    without the subtraction, which would lose the digits of a large x.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, v >= 0; broadcast against `x`.
    x : array_like or torch.Tensor
        Argument, x >= 0.
    {derivative}

    See Also
    --------
    log_iv : Without the factor.

    Notes
    -----
    At x = 0 it is 0 for v = 0, else -inf; at x = inf it is -inf, as -log(2 pi x) / 2.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> from pyprobe.special import log_ive
    >>> round(float(log_ive(0, 1e12)), 6)
    -14.734449
    """
    return evaluate(LOG_IVE, v, x, derivative)


@document()
def log_kv(v: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the logarithm of the modified Bessel function of the second kind, log K_v(x).

    .. math:: K_v(x) = \int_0^\infty e^{-x \cosh t} \cosh(v t) \, dt

    It stays finite where `scipy.special.kv` and ``kve`` overflow or underflow.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, of either sign: K is even in it; broadcast against `x`.
    x : array_like or torch.Tensor
        Argument, x >= 0.
    {derivative}

    See Also
    --------
    log_kve : Scaled by exp(x): keeps its digits where x is large.
    log_matern : The same with the power of x that makes it finite at x = 0.

    Notes
    -----
    At x = 0 it is inf; at x = inf it is -inf.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.special import log_kv
    >>> np.round(log_kv(0.5, np.array([0.1, 1.0, 1e4])), 6)  # log(pi / 2x) / 2 - x
    array([ 1.27708400e+00, -7.74209000e-01, -1.00043794e+04])
    >>> round(float(log_kv(0.5, 1.0, derivative=(0, 1))), 6)
    -1.5
    """
    return evaluate(LOG_KV, v, x, derivative)


@document()
def log_kve(v: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the logarithm of the scaled function of the second kind, log(exp(x) K_v(x)).

    .. math:: \log K_v(x) + x

    without the addition, which would lose the digits of a large x.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, of either sign: K is even in it; broadcast against `x`.
    x : array_like or torch.Tensor
        Argument, x >= 0.
    {derivative}

    See Also
    --------
    log_kv : Without the factor.

    Notes
    -----
    At x = 0 it is inf; at x = inf it is -inf, as log(pi / 2x) / 2.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> from pyprobe.special import log_kve
    >>> round(float(log_kve(0.5, 1e12)), 6)  # log(pi / 2x) / 2
    -13.589719
    """
    return evaluate(LOG_KVE, v, x, derivative)


@document(ratio=True)
def bessel_ratio(v: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the ratio of modified Bessel functions of the first kind, I_{v+1}(x) / I_v(x).

    .. math:: r_v(x) = \frac{I_{v+1}(x)}{I_v(x)}

    In d dimensions, with v = d/2 - 1, it is the mean resultant length of the von Mises-Fisher
    distribution of concentration x. It rises from 0 to 1. It is not formed from logarithms, which
    would lose all digits that log I has before its point.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, v >= 0; broadcast against `x`.
    x : array_like or torch.Tensor
        Argument, x >= 0.
    {derivative}

    See Also
    --------
    bessel_ratio_complement : One minus this, accurate where this is near 1.
    bessel_ratio_inverse : The x that has a given ratio.

    Notes
    -----
    It is 0 at x = 0 and 1 at x = inf, and x / (2v + 2) for small x. Third and higher derivatives in
    `x`, by automatic differentiation, follow from r' = 1 - r^2 - (2v+1) r / x and lose digits where
    `v` or `x` is large.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.special import bessel_ratio
    >>> np.round(bessel_ratio(0.5, np.array([0.0, 1.0, 1e3])), 6)  # coth x - 1 / x
    array([0.      , 0.313035, 0.999   ])
    >>> round(float(bessel_ratio(0.5, 0.0, derivative=(0, 1))), 6)  # 1 / (2v + 2)
    0.333333
    """
    return evaluate(BESSEL_RATIO, v, x, derivative)


@document(ratio=True)
def bessel_ratio_complement(
    v: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)
) -> Array:
    r"""Return one minus the Bessel ratio, accurate where the ratio is near 1.

    .. math:: 1 - \frac{I_{v+1}(x)}{I_v(x)} \approx \frac{2v + 1}{2x}

    for large x, formed without subtracting.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, v >= 0; broadcast against `x`.
    x : array_like or torch.Tensor
        Argument, x >= 0.
    {derivative}

    See Also
    --------
    bessel_ratio : The ratio.

    Notes
    -----
    It is 1 at x = 0 and 0 at x = inf. Derivatives are those of the ratio, with the other sign.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> from pyprobe.special import bessel_ratio_complement
    >>> bessel_ratio_complement(0.5, 1e20)  # 1 - coth x + 1 / x
    np.float64(1e-20)
    """
    return evaluate(BESSEL_RATIO_COMPLEMENT, v, x, derivative)


def bessel_ratio_inverse(
    v: ArrayLike, r: ArrayLike, *, complement: ArrayLike | None = None
) -> Array:
    r"""Return the x whose Bessel ratio is r: the inverse of `bessel_ratio` in its argument.

    .. math:: \frac{I_{v+1}(x)}{I_v(x)} = r

    In d dimensions, with v = d/2 - 1, it is the maximum-likelihood concentration of a von
    Mises-Fisher sample with mean resultant length `r`.

    Parameters
    ----------
    v : array_like or torch.Tensor
        Order, v >= 0; broadcast against `r`.
    r : array_like or torch.Tensor
        Ratio, 0 <= r <= 1.
    complement : array_like or torch.Tensor, optional
        ``1 - r``, for where it is known to more digits than `r` has left: it counts where r > 1/2.
        By default the difference.

    Returns
    -------
    numpy.ndarray, numpy.floating or torch.Tensor
        Of the broadcast shape, a scalar for scalars. Tensors keep their dtype and device; other
        results are float32 where all arrays are, else float64.

    Raises
    ------
    TypeError
        If tensors come with NumPy arrays or from several devices, or numbers are complex or masked.
    ShapeError
        If the shapes do not broadcast.

    See Also
    --------
    bessel_ratio, bessel_ratio_complement

    Notes
    -----
    It is 0 at r = 0 and inf at r = 1; outside of the domain it is nan, and nan passes through.

    Halley's method from the start of [1]_; see the :doc:`accuracy page </accuracy>` for the error,
    a few units in the last place of what `r` or `complement` determine. O(n) for n elements, on
    :func:`pyprobe.set_num_threads` threads, with the same bits for any number of them.

    Differentiable by the implicit function theorem, twice in `r` and `complement` and once in `v`,
    under torch's reverse and forward mode, ``torch.func`` and ``torch.compile``. The gradient flows
    to `r` where r <= 1/2 and to `complement` elsewhere. Engines: native (NumPy, and torch on the
    CPU), torch (other devices).

    References
    ----------
    .. [1] A. Banerjee, I. S. Dhillon, J. Ghosh, S. Sra, "Clustering on the unit hypersphere using
       von Mises-Fisher distributions", JMLR 6, 2005, equation 4.4.
    .. [2] K. Hornik, B. Grün, "On maximum likelihood estimation of the concentration parameter of
       von Mises-Fisher distributions", Computational Statistics 29, 2014.

    Examples
    --------
    >>> from pyprobe.special import bessel_ratio, bessel_ratio_inverse
    >>> round(float(bessel_ratio_inverse(1023.0, bessel_ratio(1023.0, 500.0))), 9)
    500.0
    >>> round(float(bessel_ratio_inverse(0.5, 1.0, complement=1e-20)) / 1e20, 9)
    1.0
    """
    return invert_ratio(v, r, complement)


@document("b", "z")
def log_hyp0f1(b: ArrayLike, z: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the logarithm of the confluent hypergeometric limit function, log 0F1(; b; z).

    .. math:: {}_0F_1(; b; z) = \sum_{k=0}^\infty \frac{z^k}{(b)_k \, k!}
              = \Gamma(b) \, z^{(1-b)/2} \, I_{b-1}(2 \sqrt z)

    With b = d/2 and z = x^2/4 it is the logarithm of the normalizer of the von Mises-Fisher
    distribution of concentration x in d dimensions, against the uniform distribution. It is smooth
    and positive, and keeps its relative accuracy down to z = 0, where formed from log I_v it would
    be a difference of large numbers.

    Parameters
    ----------
    b : array_like or torch.Tensor
        Parameter, b > 0; broadcast against `z`.
    z : array_like or torch.Tensor
        Argument, z >= 0.
    {derivative}

    See Also
    --------
    log_iv : The Bessel function of the first kind.
    log_matern : The counterpart for the second kind.

    Notes
    -----
    At z = 0 it is 0 with the derivative 1 / b; at z = inf it is inf.

    {notes}

    References
    ----------
    {references}

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.special import log_hyp0f1
    >>> x = np.array([1e-8, 1.0, 1e4])
    >>> log_hyp0f1(1.5, x**2 / 4)  # log(sinh(x) / x)
    array([1.66666667e-17, 1.61439362e-01, 9.99009651e+03])
    """
    return evaluate(LOG_HYP0F1, b, z, derivative)


@document("nu", "x")
def log_matern(nu: ArrayLike, x: ArrayLike, *, derivative: tuple[int, int] = (0, 0)) -> Array:
    r"""Return the logarithm of the Matérn correlation of smoothness nu at the distance x.

    .. math:: M_\nu(x) = \frac{2^{1-\nu}}{\Gamma(\nu)} x^\nu K_\nu(x)

    The distance is scaled: for a kernel of lengthscale l it is ``sqrt(2 nu) r / l``. The derivative
    in x keeps its relative accuracy as x goes to 0, where formed from `log_kv` it would lose it.

    Parameters
    ----------
    nu : array_like or torch.Tensor
        Smoothness, nu > 0; broadcast against `x`.
    x : array_like or torch.Tensor
        Scaled distance, x >= 0.
    {derivative}

    See Also
    --------
    log_kv : The Bessel function of the second kind.

    Notes
    -----
    At x = 0 it is 0, and its derivative in x is 0 for nu > 1/2, -1 for nu = 1/2 and -inf for
    nu < 1/2; at x = inf it is -inf.

    {notes}

    References
    ----------
    {references}

    .. [3] M. L. Stein, "Interpolation of Spatial Data", Springer, 1999, section 2.7.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.special import log_matern
    >>> np.round(log_matern(1.5, np.array([0.0, 1.0, 30.0])), 6)  # log(1 + x) - x
    array([  0.      ,  -0.306853, -26.566013])
    >>> log_matern(2.5, 1e-12, derivative=(0, 1))  # -x / (2 nu - 2) as x goes to 0
    np.float64(-3.333333333333333e-13)
    """
    return evaluate(LOG_MATERN, nu, x, derivative)
