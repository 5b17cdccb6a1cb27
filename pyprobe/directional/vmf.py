r"""The von Mises-Fisher distribution.

Its density at a unit vector :math:`x` of :math:`R^d`, with respect to the surface measure, is

.. math:: p(x) = C_d(\kappa)\, e^{\kappa \mu \cdot x}.

The mean vector is :math:`A \mu` with :math:`A = I_{d/2}(\kappa) / I_{d/2-1}(\kappa)`, so the
maximum-likelihood fit has the direction of the sample mean, and solves :math:`A = R` for its length
R (Mardia and Jupp 2000, section 10.3.1).
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.special import fdtri

from pyprobe import _io, _rng
from pyprobe._engine import select
from pyprobe._validate import as_weights, check_bool
from pyprobe._warn import warn
from pyprobe.directional._arrays import (
    as_directions,
    as_floats,
    as_samples,
    check_broadcast,
    check_shape,
    check_unit,
    formulas,
    shape_of,
    to_numpy,
)
from pyprobe.directional.uniform import SphericalUniform, rayleigh
from pyprobe.errors import DomainError, NotFiniteError, NumericalWarning, ShapeError
from pyprobe.special import bessel_ratio, bessel_ratio_inverse
from pyprobe.typing import Array, ArrayLike, Rng

__all__ = ["VonMisesFisher", "VonMisesFisherInfo"]

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VonMisesFisherInfo:
    r"""How the fit of a von Mises-Fisher distribution went, and how far to trust it.

    Attributes
    ----------
    converged : bool
        Whether there is a finite concentration; there is none for rows that are all equal.
    reliable : bool
        False where the concentration is infinite or that of rounding, where Rayleigh's test finds
        no direction at the level 0.05, or where the bias of maximum likelihood exceeds its standard
        error. The fit warns and says which.
    n_samples : int
        Rows fitted.
    n_effective : float
        The squared sum of the weights over the sum of their squares; n without weights.
    mean_resultant_length, mean_resultant_complement : float
        R, the length of the mean of the rows, and 1 - R without cancellation.
    pvalue : float
        Of Rayleigh's test against the uniform distribution (`rayleigh_test`).
    concentration_stderr : float
        Standard error of the concentration, :math:`1 / \sqrt{n A'}`; with `bias_correction` it
        includes what that correction adds. Whether the concentration differs from 0 is for
        ``pvalue`` to say: near 0 its law is far from normal.
    loc_cone : float
        Half-angle in radians of a cone about ``loc`` that holds the true direction with probability
        0.95; pi where Rayleigh's test finds no direction at that level.
    bias_correction : bool
        Whether the concentration was corrected for the number of samples.
    """

    converged: bool
    reliable: bool
    n_samples: int
    n_effective: float
    mean_resultant_length: float
    mean_resultant_complement: float
    pvalue: float
    concentration_stderr: float
    loc_cone: float
    bias_correction: bool


@dataclass(frozen=True, eq=False, repr=False)
class VonMisesFisher(_io.Frozen):
    r"""Von Mises-Fisher distribution on the unit sphere of any dimension, or a batch of them.

    The density with respect to the surface measure is :math:`C_d(\kappa) e^{\kappa \mu \cdot x}`;
    :math:`\kappa = 0` is the uniform distribution. Made from parameters, or by `fit`. The value is
    immutable: NumPy parameters are copied. Tensors are kept as they come, with their graph.

    Parameters
    ----------
    loc : array_like or torch.Tensor, shape (..., d)
        Mean direction :math:`\mu`: unit vectors, d at least 2; norms are checked to 1e-6 (float32:
        1e-4).
    concentration : float, array_like or torch.Tensor, shape (...)
        :math:`\kappa \ge 0`; broadcasts with the batch shape of `loc`.

    Attributes
    ----------
    info : VonMisesFisherInfo or None
        How the fit went; None where there was none.

    Raises
    ------
    ShapeError      if ``loc`` has no last dimension of at least 2, or the shapes do not fit.
    DomainError     if a row of ``loc`` is not a unit vector, or a concentration is negative.
    NotFiniteError  if an argument is infinite or NaN.

    Notes
    -----
    Entropy is good to 1e-13 of max(1, abs), and divergences to 1e-13 of themselves, for d from 2 to
    131072 and concentrations from 1e-6 to 1e10; see the :doc:`accuracy page </accuracy>`. Engines:
    native (NumPy, and torch on the CPU), torch (other devices).

    With tensors, `log_prob`, `entropy`, `kl_divergence` and the moments are differentiable in every
    argument. Gradients are those of :math:`-\kappa |x - \mu|^2 / 2 + \kappa + \log C_d(\kappa)`,
    which along the sphere, though not across it, are those of :math:`\kappa \mu \cdot x`.

    References
    ----------
    .. [1] K. V. Mardia and P. E. Jupp, "Directional Statistics", Wiley 2000, sections 9.3 and 10.3.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.directional import VonMisesFisher
    >>> truth = VonMisesFisher([0.0, 0.6, 0.8], 20.0)
    >>> x = truth.sample((1000,), rng=0)
    >>> fit = VonMisesFisher.fit(x)
    >>> abs(fit.concentration - 20) < 3 * fit.info.concentration_stderr
    True
    >>> bool(np.arccos(fit.loc @ truth.loc) < fit.info.loc_cone)
    True
    """

    loc: Array
    concentration: Any
    info: VonMisesFisherInfo | None = None

    def __post_init__(self) -> None:
        select(self.loc, self.concentration, names=("loc", "concentration"))
        loc = as_floats("loc", self.loc)
        if loc.ndim == 0 or loc.shape[-1] < 2:
            raise ShapeError(
                f"'loc' must have shape (..., d) with d at least 2; got {tuple(loc.shape)}."
            )
        check_unit("loc", loc)
        concentration = _concentration(self.concentration, loc)
        self._keep(loc, concentration)

    def _keep(self, loc: Any, concentration: Any) -> None:
        """Set the parameters, as copies where they are NumPy's: the caller's may change later."""
        if isinstance(loc, np.ndarray):
            loc = loc.copy()
            loc.flags.writeable = False
            if concentration.ndim:
                concentration = concentration.copy()
                concentration.flags.writeable = False
            else:
                concentration = float(concentration)
        object.__setattr__(self, "loc", loc)
        object.__setattr__(self, "concentration", concentration)

    def __repr__(self) -> str:
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        if math.prod(shape_of(self.concentration)) == 1:
            concentration = f"{float(to_numpy(self.concentration)):.6g}"
        else:
            concentration = f"shape {tuple(self.concentration.shape)}"
        return f"VonMisesFisher(dim={self.dim}, concentration={concentration}{batch})"

    @property
    def dim(self) -> int:
        """d, the dimension of the space."""
        return int(self.loc.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions; () for a single one."""
        return np.broadcast_shapes(shape_of(self.loc)[:-1], shape_of(self.concentration))

    @classmethod
    def fit(
        cls, x: ArrayLike, *, weights: ArrayLike | None = None, bias_correction: bool = False
    ) -> Self:
        r"""Fit a von Mises-Fisher distribution by maximum likelihood.

        The direction is that of the (weighted) mean of the rows, the concentration solves
        :math:`A(\kappa) = R` for the length R of that mean. In high dimensions R is biased upwards,
        :math:`E R^2 = \rho^2 + (1 - \rho^2) / n`, so that with n < d even uniform noise has a high
        concentration; `bias_correction` solves :math:`A(\kappa) = \rho` for the unbiased estimate
        :math:`\rho^2 = (n R^2 - 1) / (n - 1)` instead.

        Parameters
        ----------
        x : array_like or torch.Tensor, shape (n, d)
            Unit vectors, one a row; norms are checked to 1e-6 (float32: 1e-4).
        weights : array_like or torch.Tensor, shape (n,), optional
            Nonnegative, not all zero; default equal.
        bias_correction : bool, default False
            Whether to correct R for the number of samples.

        Returns
        -------
        VonMisesFisher
            ``loc`` of shape (d,), in the library, dtype and device of `x`, and a scalar
            ``concentration``; see ``.info``.

        Raises
        ------
        ShapeError      if ``x`` is not a matrix, is empty, or ``d < 2``; or ``weights`` do not fit.
        DomainError     if a row is not a unit vector, or a weight is negative.
        NotFiniteError  if ``x`` or ``weights`` are infinite or NaN somewhere.

        Warns
        -----
        NumericalWarning    if the fit is not reliable: if all rows are equal, so that the
                            concentration is infinite, or equal up to rounding; if Rayleigh's test
                            finds no direction; if the concentration is overestimated by more than
                            its standard error, as it is where n is below d / 2.

        Notes
        -----
        Cost O(n d): one pass over `x`, and a second one where :math:`1 - R < 10^{-3}`, whose digits
        it saves. Sums run in float64 in a fixed tree: the same bits for any number of threads. The
        concentration is good to 1e-13 of itself given R and 1 - R. Engines: native, torch. The
        result carries no gradient.

        References
        ----------
        .. [1] K. Hornik and B. Grün, "On maximum likelihood estimation of the concentration
           parameter of von Mises-Fisher distributions", Computational Statistics 29, 2014.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.directional import VonMisesFisher
        >>> x = VonMisesFisher(np.eye(1000)[0], 500.0).sample((100,), rng=0)
        >>> fit = VonMisesFisher.fit(x, bias_correction=True)
        >>> abs(fit.concentration - 500) < 3 * fit.info.concentration_stderr
        True
        """
        select(x, weights, names=("x", "weights"))
        bias_correction = check_bool("bias_correction", bias_correction)
        samples = as_samples(x)
        n, dim = samples.shape
        if weights is not None:
            weights = as_weights("weights", to_numpy(weights), n)
        loc, length, complement, _, n_effective = formulas(samples).mean_direction(samples, weights)
        info, concentration, doubt = _estimate(
            dim, n, n_effective, length, complement, bias_correction, samples.itemsize
        )
        if doubt:
            warn(f"VonMisesFisher.fit: {doubt}", NumericalWarning)
        value = object.__new__(cls)
        if isinstance(samples, np.ndarray):
            value._keep(loc.astype(samples.dtype), np.float64(concentration))
        else:
            loc = samples.new_tensor(loc) if isinstance(loc, np.ndarray) else loc.to(samples)
            value._keep(loc, samples.new_tensor(concentration))
        object.__setattr__(value, "info", info)
        return value

    def log_prob(self, x: ArrayLike) -> Array:
        """Return the log-density at `x` with respect to the surface measure.

        Parameters
        ----------
        x : array_like or torch.Tensor, shape (..., d)
            Unit vectors; broadcasts with the batch shape.

        Returns
        -------
        ndarray or torch.Tensor
            In nats, of the broadcast shape and the dtype of `x`.

        Raises
        ------
        ShapeError      if the last dimension of ``x`` is not d, or shapes do not broadcast.
        DomainError     if a row is not a unit vector.
        NotFiniteError  if ``x`` is infinite or NaN somewhere.
        """
        module = formulas(x, self.loc, names=("x", "loc"))
        check_density(self)
        x = as_directions("x", x, self.dim)
        check_broadcast("x", shape_of(x)[:-1], self.batch_shape)
        if not isinstance(x, np.ndarray):  # the NumPy kernel does so in its pass over x
            check_unit("x", x)
        value: Array = module.log_prob(x, self.loc, self.concentration)
        return value

    def sample(self, shape: tuple[int, ...] = (), *, rng: Rng = None) -> Array:
        """Draw unit vectors, exactly, by the rejection sampler of Ulrich and Wood.

        Parameters
        ----------
        shape : tuple of int
            Shape of the draws from each distribution of the batch.
        rng : int, Generator or None
            Seed; the same seed gives the same draws for any number of threads.

        Returns
        -------
        ndarray or torch.Tensor, shape ``(*shape, *batch_shape, d)``
            Of the library, dtype and device of ``loc``; without a gradient (`pyprobe.pyro` has
            reparameterized draws). Norms are 1 to rounding.

        References
        ----------
        .. [1] A. T. A. Wood, "Simulation of the von Mises Fisher distribution", Communications in
           Statistics - Simulation and Computation 23, 1994.

        Examples
        --------
        >>> from pyprobe.directional import VonMisesFisher
        >>> VonMisesFisher([0.6, 0.8], [1.0, 10.0]).sample((5,), rng=0).shape
        (5, 2, 2)
        """
        key = _rng.key(rng)
        module = formulas(self.loc)
        draws: Array = module.draw(self.loc, self.concentration, check_shape(shape), key)
        return draws

    def entropy(self) -> Any:
        """Return the differential entropy in nats, of the batch shape."""
        check_density(self)
        return self._of_batch(formulas(self.loc).entropy(self.concentration, self.dim))

    def kl_divergence(self, other: VonMisesFisher | SphericalUniform) -> Any:
        """Return the Kullback-Leibler divergence of this distribution from `other`, in nats.

        Parameters
        ----------
        other : VonMisesFisher or SphericalUniform
            Of the same dimension; batches broadcast.

        Returns
        -------
        float, ndarray or torch.Tensor
            Accurate also where the two are near each other: the divergence is formed as an integral
            of A', and from the distance between the directions.
        """
        check_other(other, self.dim)
        check_density(self)
        if isinstance(other, SphericalUniform):
            module = formulas(self.loc)
            return self._of_batch(module.kl_to_uniform(self.concentration, self.dim))
        check_density(other)
        module = formulas(self.loc, other.loc, names=("loc", "other.loc"))
        check_broadcast("other", other.batch_shape, self.batch_shape)
        return module.kl_divergence(self.loc, self.concentration, other.loc, other.concentration)

    @property
    def mean(self) -> Array:
        """The mean vector: ``loc`` times the mean resultant length; shape ``(*batch_shape, d)``."""
        length = formulas(self.loc).mean_resultant_length(self.concentration, self.dim)
        mean: Array = self._like_loc(length)[..., None] * self.loc
        return mean

    @property
    def mode(self) -> Array:
        """The direction of highest density: ``loc``."""
        return self.loc

    @property
    def variance(self) -> Array:
        """The variance of each coordinate, the diagonal of the covariance; shape as `mean`."""
        across, along = self._variances()
        square = self.loc**2
        # Along the direction the first term must vanish: it would drown the second one.
        variance: Array = across[..., None] * (1 - square) + along[..., None] * square
        return variance

    def covariance_matrix(self) -> Array:
        """Return the covariance of the coordinates, shape ``(*batch_shape, d, d)``."""
        across, along = self._variances()
        outer = self.loc[..., :, None] * self.loc[..., None, :]
        covariance: Array = (along - across)[..., None, None] * outer
        diagonal = list(range(self.dim))
        variance: Any = self.variance
        covariance[..., diagonal, diagonal] = variance
        return covariance

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the distribution to `path`, an npz file without pickled objects.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from pyprobe.directional import VonMisesFisher
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "fit.npz")
        ...     VonMisesFisher([0.6, 0.8], 3.0).save(path)
        ...     VonMisesFisher.load(path)
        VonMisesFisher(dim=2, concentration=3)
        """
        fields = {
            "loc": to_numpy(self.loc),
            "concentration": np.asarray(to_numpy(self.concentration)),
            "info": None if self.info is None else asdict(self.info),
        }
        _io.save(path, "VonMisesFisher", fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a distribution that `save` wrote; its arrays are NumPy's."""
        fields = _io.load(path, "VonMisesFisher")
        value = object.__new__(cls)
        value._keep(fields["loc"], fields["concentration"])
        info = fields["info"] and VonMisesFisherInfo(**fields["info"])
        object.__setattr__(value, "info", info)
        return value

    def _variances(self) -> tuple[Any, Any]:
        across, along = formulas(self.loc).variances(self.concentration, self.dim)
        return self._like_loc(across), self._like_loc(along)

    def _like_loc(self, value: Any) -> Any:
        """Return a NumPy value in the dtype of ``loc``; tensors already are."""
        return np.asarray(value, self.loc.dtype) if isinstance(self.loc, np.ndarray) else value

    def _of_batch(self, value: Any) -> Any:
        """Return a function of the concentrations expanded to the batch shape."""
        if shape_of(value) == self.batch_shape:
            return value
        if isinstance(value, float | np.ndarray):
            return np.broadcast_to(value, self.batch_shape).copy()
        return value.expand(self.batch_shape)


def _estimate(
    dim: int,
    n: int,
    n_effective: float,
    length: float,
    complement: float,
    corrected: bool,
    itemsize: int,
) -> tuple[VonMisesFisherInfo, float, str | None]:
    """Return the facts of a fit, its concentration, and what is to be said against it."""
    order = dim / 2 - 1
    unbiased, unbiased_complement = _unbiased(n_effective, length, complement)
    _, pvalue = rayleigh(n_effective, dim, length)
    found = pvalue < 1 - _CONFIDENCE and unbiased > 0
    least = float(bessel_ratio_inverse(order, unbiased, complement=unbiased_complement))
    most = float(bessel_ratio_inverse(order, length, complement=complement))
    kappa = least if corrected else most
    error = _standard_error(dim, kappa, n_effective, corrected)
    doubt = None
    if not math.isfinite(kappa):
        doubt = "the concentration is infinite: " + (
            "there is one sample." if n == 1 else "all samples are equal."
        )
    elif complement < np.finfo(f"f{itemsize}").eps ** 2:
        doubt = (
            f"the samples differ by no more than the rounding of float{8 * itemsize}, and so the "
            "concentration is only that of the rounding."
        )
    elif not found:
        doubt = (
            f"Rayleigh's test finds no direction (p = {pvalue:.2g}): these {n_effective:.6g} "
            f"samples in {dim} dimensions may be uniform. The mean resultant length of uniform "
            f"ones is near {n_effective**-0.5:.3g}; theirs is {length:.3g}."
        )
    elif kappa - least > error:
        doubt = (
            f"{n_effective:.6g} samples in {dim} dimensions overestimate the concentration, by "
            f"{kappa / least - 1:.2g} of itself or {(kappa - least) / error:.1f} standard errors. "
            "Pass bias_correction=True."
        )
    info = VonMisesFisherInfo(
        converged=math.isfinite(kappa),
        reliable=doubt is None,
        n_samples=n,
        n_effective=n_effective,
        mean_resultant_length=length,
        mean_resultant_complement=complement,
        pvalue=pvalue,
        concentration_stderr=error,
        loc_cone=_cone(dim, unbiased, unbiased_complement, n_effective) if found else math.pi,
        bias_correction=corrected,
    )
    return info, kappa, doubt


def _unbiased(n: float, length: float, complement: float) -> tuple[float, float]:
    """Return rho and 1 - rho, with rho^2 = (n R^2 - 1) / (n - 1) cut at 0."""
    # 1 - rho^2 = n (1 - R^2) / (n - 1)
    spread = complement * (1 + length)
    if spread == 0 or n <= 1:
        return length, complement
    spread = min(n * spread / (n - 1), 1.0)
    rho = math.sqrt(1 - spread)
    return rho, spread / (1 + rho)


def _standard_error(dim: int, kappa: float, n: float, corrected: bool) -> float:
    """Return the standard error of a concentration from n samples."""
    if not math.isfinite(kappa):
        return math.inf
    slope = float(bessel_ratio(dim / 2 - 1, kappa, derivative=(0, 1)))
    error = 1 / math.sqrt(n * slope)
    if corrected and kappa > 0:
        # rho^2 is a mean over pairs, of variance 4 rho^2 A' / n + 2 (d - 1) (rho / kappa)^2 / n^2.
        # With the first term alone this is the error of maximum likelihood.
        error *= math.sqrt(1 + (dim - 1) / (2 * n * kappa**2 * slope))
    return error


def _cone(dim: int, rho: float, complement: float, n: float) -> float:
    """Return the half-angle of a 95 % confidence cone about the mean direction.

    Across the direction the mean of n rows is nearly normal, of variance rho / (n kappa) in each of
    d - 1 coordinates; along it, it is nearly rho. With the variance estimated from the sample, the
    squared tangent of the angle follows an F law. Of its d - 1 degrees of freedom fewer are left
    where rho is uncertain: noise that lengthens the mean turns it too.
    """
    if complement == 0:
        return 0.0
    kappa = float(bessel_ratio_inverse(dim / 2 - 1, rho, complement=complement))
    freedom = max(1.0, (dim - 1) / (1 + 1 / (n * rho**2)) ** 2)
    quantile = float(fdtri(freedom, (n - 1) * (dim - 1), _CONFIDENCE))
    return math.atan(math.sqrt(quantile * (dim - 1) / (n * kappa * rho)))


def check_other(other: Any, dim: int) -> None:
    """Raise unless there may be a divergence from `other` in this dimension."""
    if not isinstance(other, VonMisesFisher | SphericalUniform):
        raise TypeError(
            f"'other' must be a VonMisesFisher or a SphericalUniform; got {type(other).__name__}."
        )
    if other.dim != dim:
        raise ShapeError(f"'other' must have dimension {dim}; got {other.dim}.")


def check_density(distribution: VonMisesFisher) -> None:
    """Raise for the fit of equal rows: a point mass has no density."""
    if distribution.info is not None and not distribution.info.converged:
        raise DomainError(
            "the fitted rows are all equal, so that the concentration is infinite, and a point "
            "mass has no density. Fit rows that differ."
        )


def _concentration(value: Any, loc: Any) -> Any:
    """Return the concentration as an array or tensor like `loc`, checked."""
    if isinstance(loc, np.ndarray):
        array = as_floats("concentration", value)
    else:
        array = value.to(loc) if hasattr(value, "to") else loc.new_tensor(value)
    if math.prod(array.shape):
        values = array if isinstance(array, np.ndarray) else array.detach()
        low, high = float(values.min()), float(values.max())
        if not (low > -math.inf and high < math.inf):
            worst = low if low == -math.inf else high
            raise NotFiniteError(f"'concentration' must be finite; got {worst}.")
        if low < 0:
            raise DomainError(f"'concentration' must be nonnegative; got {low:.6g}.")
    check_broadcast("concentration", shape_of(array), shape_of(loc)[:-1])
    return array
