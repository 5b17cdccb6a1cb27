r"""Mixtures of von Mises-Fisher distributions.

The density of a unit vector :math:`x` in :math:`R^d` with respect to the surface measure is

.. math:: p(x) = \sum_k \alpha_k\, C_d(\kappa_k)\, e^{\kappa_k \mu_k \cdot x}.

An EM iteration (Banerjee et al. 2005, section 4) finds responsibilities :math:`r_{ik}`, then
:math:`S_k = \sum_i r_{ik} x_i` and :math:`N_k = \sum_i r_{ik}`; the new :math:`\mu_k` is the
direction of :math:`S_k`, and :math:`\kappa_k` solves :math:`A_d(\kappa_k) = |S_k| / N_k`. It costs
two products of the data with a matrix of k columns, made in one pass.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pyprobe import _core, _io, _rng
from pyprobe._engine import Engine, select
from pyprobe._validate import (
    as_float_array,
    as_matrix,
    as_weights,
    check_bool,
    check_callback,
    check_choice,
    check_finite,
    check_positive_float,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.cluster import EMInfo
from pyprobe.directional._arrays import check_shape, like, to_numpy
from pyprobe.directional._mixture_data import Data
from pyprobe.directional._mixture_em import EM, best_of_starts, log_offsets
from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning, ShapeError
from pyprobe.progress import Callback
from pyprobe.special import bessel_ratio
from pyprobe.typing import Array, ArrayLike, FloatArray, Rng

__all__ = ["MixtureInfo", "VonMisesFisherMixture"]

Vector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MixtureInfo(EMInfo):
    """How the fit of a mixture went; see also `pyprobe.cluster.EMInfo`.

    Attributes
    ----------
    n_samples : int
        Rows fitted.
    common_concentration : bool
        Whether all components share one concentration.
    bias_correction : bool
        Whether the concentrations are corrected for small numbers of samples.
    collapsed : tuple of int
        Components that sit on copies of one direction. Their likelihood has no bound, and their
        concentration is only the largest that the fit allows.
    doubtful : tuple of int
        Components with so few samples for the dimension that the bias of maximum likelihood in
        their concentrations exceeds its standard error.
    """

    n_samples: int
    common_concentration: bool
    bias_correction: bool
    collapsed: tuple[int, ...]
    doubtful: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class VonMisesFisherMixture(_io.Frozen):
    r"""A mixture of von Mises-Fisher distributions on the unit sphere of any dimension.

    Made from parameters, or by `fit`. The value is immutable.

    Parameters
    ----------
    weights : array_like, shape (k,)
        Probabilities of the components; they sum to 1.
    locs : array_like, shape (k, d)
        Mean directions: unit vectors, d at least 2.
    concentrations : float or array_like, shape (k,)
        Nonnegative; 0 is the uniform distribution.

    Attributes
    ----------
    info : MixtureInfo or None
        How the fit went; None where there was none.

    Raises
    ------
    ShapeError      if the shapes do not fit.
    DomainError     if a direction is not a unit vector, a concentration is negative, or the weights
                    are not probabilities.
    NotFiniteError  if an argument is infinite or NaN.

    Notes
    -----
    The methods take NumPy arrays, SciPy sparse matrices (which stay sparse) or torch tensors, and
    answer in kind. Engines: native, torch.

    Log-densities are off by about the rounding of the working precision times the largest
    concentration. In float32 that is below 0.01 up to 8e4; above, all products are made in float64,
    at about twice the cost, and the norms of the rows are divided out, within a fit too.

    Examples
    --------
    >>> from pyprobe.directional import VonMisesFisherMixture
    >>> truth = VonMisesFisherMixture([0.3, 0.7], [[1.0, 0, 0], [0, 1.0, 0]], [50.0, 20.0])
    >>> x = truth.sample((4000,), rng=0)
    >>> fit = VonMisesFisherMixture.fit(x, 2, rng=0)
    >>> sorted(fit.weights.round(1).tolist())
    [0.3, 0.7]
    >>> fit.info.converged
    True
    """

    weights: Array
    locs: Array
    concentrations: Array
    info: MixtureInfo | None = None

    def __post_init__(self) -> None:
        engine = select(self.locs)
        locs = as_matrix("locs", to_numpy(self.locs))
        n_components = len(locs)
        if n_components == 0:
            raise ShapeError("'locs' must have at least one row; got none.")
        _check_unit("locs", locs)
        weights = as_weights("weights", to_numpy(self.weights), n_components, "component")
        if abs(weights.sum() - 1) > 1e-4:
            raise DomainError(f"'weights' must sum to 1; they sum to {weights.sum():.6g}.")
        concentrations = as_float_array("concentrations", to_numpy(self.concentrations))
        if concentrations.ndim == 0:
            concentrations = np.full(n_components, concentrations)
        if concentrations.shape != (n_components,):
            raise ShapeError(
                f"'concentrations' must have shape ({n_components},), one for each row of 'locs'; "
                f"got {concentrations.shape}."
            )
        check_finite("concentrations", concentrations)
        if (concentrations < 0).any():
            raise DomainError(
                f"'concentrations' must be nonnegative; got {concentrations.min():.6g}."
            )
        # The caller's arrays may change later: the value keeps copies of its own.
        for name, array in (
            ("weights", weights),
            ("locs", locs),
            ("concentrations", concentrations),
        ):
            kept = np.array(array, dtype=locs.dtype)
            kept.flags.writeable = engine is not Engine.NATIVE
            object.__setattr__(self, name, like(self.locs, kept))

    def __repr__(self) -> str:
        low, high = float(self.concentrations.min()), float(self.concentrations.max())
        return (
            f"VonMisesFisherMixture(n_components={self.n_components}, dim={self.dim}, "
            f"concentrations={low:.4g} to {high:.4g})"
        )

    @classmethod
    def fit(
        cls,
        x: ArrayLike,
        n_components: int,
        *,
        kind: Literal["soft", "hard"] = "soft",
        common_concentration: bool = False,
        bias_correction: bool = False,
        init: Literal["k-means++"] | ArrayLike = "k-means++",
        n_init: int = 1,
        max_iter: int = 100,
        tol: float = 1e-6,
        rng: Rng = None,
        callback: Callback | None = None,
    ) -> Self:
        r"""Fit a mixture to unit vectors by EM.

        Parameters
        ----------
        x : array_like, sparse matrix or torch.Tensor, shape (n, d)
            Unit vectors, one a row; norms are checked to 1e-6 (float32: 1e-4). SciPy's sparse
            matrices stay sparse.
        n_components : int
            At most n.
        kind : {"soft", "hard"}
            Whether a row is shared among the components by their posterior probabilities (EM), or
            belongs wholly to the likeliest one (classification EM), whose mean log-likelihood then
            counts that one alone.
        common_concentration : bool, default False
            Whether all components share one concentration.
        bias_correction : bool, default False
            Use the unbiased estimate :math:`(|S_k|^2 - Q_k) / (N_k^2 - Q_k)` of the squared mean
            resultant length, with :math:`Q_k = \sum_i r_{ik}^2`, instead of
            :math:`|S_k|^2 / N_k^2`. The log-likelihood may fall then, and the fit goes on.
        init : "k-means++" or array_like of shape (n_components, d)
            Three rounds of seeds by spherical k-means++, `n_components` at a time, then a few steps
            of spherical k-means, then the nearest clusters merged (`pyprobe.cluster`); or
            directions to start from.
        n_init : int, default 1
            Starts; the fit with the highest log-likelihood is returned.
        max_iter : int, default 100
            The most iterations of a start.
        tol : float, default 1e-6
            A start ends when the mean log-likelihood of a sample rises by no more than this, in
            nats; with `bias_correction`, when it changes by no more.
        rng : int, Generator or None
            Seed of the starts.
        callback : callable, optional
            Called with a `Progress` after every iteration, its ``value`` the mean log-likelihood;
            returning ``True`` ends the fit.

        Returns
        -------
        VonMisesFisherMixture
            Its arrays are of the library, dtype and device of `x`; see ``.info``.

        Raises
        ------
        ShapeError      if ``x`` is not a matrix, ``d < 2`` or ``n < n_components``.
        DomainError     if a row is not a unit vector, or an option is out of range.
        NotFiniteError  if ``x`` is infinite or NaN somewhere.

        Warns
        -----
        ConvergenceWarning  if `max_iter` is reached first.
        NumericalWarning    if components collapsed onto copies of one direction, or if components
                            have so few samples for the dimension that their concentrations are
                            overestimated.

        Notes
        -----
        Cost O(n d k) an iteration, or O(k) times the number of stored entries plus d. The same seed
        gives the same bits for any number of threads. Sums run in float64.

        A component left with less than half a sample is put on the row that is explained worst, at
        most once for each component of a start. Engines: native, torch.

        References
        ----------
        .. [1] A. Banerjee, I. S. Dhillon, J. Ghosh and S. Sra, "Clustering on the unit hypersphere
           using von Mises-Fisher distributions", JMLR 6, 2005.
        .. [2] K. Hornik and B. Grün, "movMF: an R package for fitting mixtures of von Mises-Fisher
           distributions", J. Stat. Softw. 58(10), 2014.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.directional import VonMisesFisherMixture
        >>> x = np.repeat(np.eye(3), 50, axis=0) + np.random.default_rng(0).normal(0, 0.1, (150, 3))
        >>> x /= np.linalg.norm(x, axis=1, keepdims=True)
        >>> mixture = VonMisesFisherMixture.fit(x, 3, rng=0)
        >>> np.abs(mixture.locs).max(axis=1).round(1)
        array([1., 1., 1.])
        >>> mixture.predict(x).reshape(3, 50).std(axis=1)
        array([0., 0., 0.])
        """
        check_choice("kind", kind, ("soft", "hard"))
        common_concentration = check_bool("common_concentration", common_concentration)
        bias_correction = check_bool("bias_correction", bias_correction)
        check_callback("callback", callback)
        n_components = check_positive_int("n_components", n_components)
        n_init = check_positive_int("n_init", n_init)
        max_iter = check_positive_int("max_iter", max_iter)
        tol = check_positive_float("tol", tol, allow_zero=True)
        data = Data.of(x)
        n, d = data.shape
        if n < n_components:
            raise ShapeError(
                f"'x' must have at least n_components = {n_components} rows; got {n} "
                f"{'sample' if n == 1 else 'samples'} (shape {data.shape})."
            )
        locs = None if isinstance(init, str) else _starting_locs(init, n_components, d)
        if locs is None:
            check_choice("init", init, ("k-means++",))

        em, parameters, info = best_of_starts(
            data,
            n_components,
            hard=kind == "hard",
            common=common_concentration,
            corrected=bias_correction,
            locs=locs,
            n_init=n_init,
            max_iter=max_iter,
            tol=tol,
            generator=np.random.default_rng(_rng.key(rng)),
            callback=callback,
        )
        report = MixtureInfo(
            **{name: getattr(info, name) for name in EMInfo.__dataclass_fields__},
            n_samples=n,
            common_concentration=common_concentration,
            bias_correction=bias_correction,
            collapsed=em.collapsed(),
            doubtful=em.doubtful(),
        )
        _warn_of(em, report, tol)
        locs = (parameters.directions / data.to_kernel(parameters.norms)).T
        arrays = (parameters.weights, locs, parameters.concentrations)
        weights, locs, concentrations = (data.answer(array, batch=False) for array in arrays)
        return cls(weights, locs, concentrations, report)

    def log_prob(self, x: ArrayLike) -> Array:
        """Return the log-density at `x` with respect to the surface measure.

        Parameters
        ----------
        x : array_like, torch.Tensor of shape (..., d), or sparse matrix of shape (n, d)
            Unit vectors. A tensor is differentiated through, if it asks for that.

        Returns
        -------
        ndarray or torch.Tensor, shape (...)
            In nats.

        Raises
        ------
        ShapeError      if the last dimension of ``x`` is not d.
        DomainError     if a row is not a unit vector.
        NotFiniteError  if ``x`` is infinite or NaN somewhere.
        """
        data = self._data(x)
        values = data.kernels.vmf_mixture_log_prob(data.samples, self._parameters(data))
        answer: Array = data.answer(values)
        return answer

    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the posterior probabilities of the components at `x`, shape (..., k)."""
        data = self._data(x)
        shares = data.kernels.vmf_mixture_responsibilities(data.samples, self._parameters(data))
        answer: Array = data.answer(shares)
        return answer

    def predict(self, x: ArrayLike) -> Any:
        """Return the likeliest component at `x`, as integers of shape (...)."""
        data = self._data(x)
        labels = data.kernels.vmf_mixture_labels(data.samples, self._parameters(data))
        return data.answer(labels)

    def sample(self, shape: tuple[int, ...] = (), *, rng: Rng = None) -> Array:
        """Draw unit vectors.

        Parameters
        ----------
        shape : tuple of int
            Shape of the draws.
        rng : int, Generator or None
            Seed; the same seed gives the same draws for any number of threads.

        Returns
        -------
        ndarray or torch.Tensor, shape ``(*shape, d)``
            Of the library, dtype and device of ``locs``. Drawn on the CPU.

        Examples
        --------
        >>> from pyprobe.directional import VonMisesFisherMixture
        >>> mixture = VonMisesFisherMixture([0.5, 0.5], [[1.0, 0], [0, 1.0]], [10.0, 10.0])
        >>> mixture.sample((2, 5), rng=0).shape
        (2, 5, 2)
        """
        shape = check_shape(shape)
        generator = np.random.default_rng(_rng.key(rng))
        locs, weights = to_numpy(self.locs), to_numpy(self.weights).astype(np.float64)
        which = generator.choice(len(weights), size=math.prod(shape), p=weights / weights.sum())
        concentrations = to_numpy(self.concentrations).astype(np.float64)[which]
        draws = _core.vmf_sample(locs[which], concentrations, 1, _rng.key(generator))
        answer: Array = like(self.locs, draws.reshape(*shape, locs.shape[1]))
        return answer

    @property
    def n_components(self) -> int:
        """k, the number of components."""
        return int(self.locs.shape[0])

    @property
    def dim(self) -> int:
        """d, the dimension of the space."""
        return int(self.locs.shape[1])

    @property
    def mean(self) -> Array:
        """The mean vector, shape (d,)."""
        concentrations = to_numpy(self.concentrations).astype(np.float64)
        lengths = np.asarray(bessel_ratio(self.dim / 2 - 1, concentrations))
        mean = (to_numpy(self.weights) * lengths) @ to_numpy(self.locs)
        value: Array = like(self.locs, mean.astype(to_numpy(self.locs).dtype))
        return value

    @property
    def n_parameters(self) -> int:
        """Free parameters: k (d - 1) of the directions, the concentrations, and k - 1 weights."""
        k, d = self.n_components, self.dim
        common = self.info is not None and self.info.common_concentration
        return k * (d - 1) + (1 if common else k) + k - 1

    def aic(self, x: ArrayLike) -> float:
        """Return Akaike's information criterion, -2 log L + 2 p; lower is better."""
        return 2 * self.n_parameters - 2 * self._total(x)[0]

    def bic(self, x: ArrayLike) -> float:
        """Return the Bayesian information criterion, -2 log L + p log n; lower is better.

        It rests on n far above p, which fails in high dimensions: judge by the `log_prob` of
        samples held out there.
        """
        total, n = self._total(x)
        return self.n_parameters * math.log(n) - 2 * total

    def _total(self, x: Any) -> tuple[float, int]:
        """Log-likelihood and number of samples."""
        data = self._data(x)
        if data.shape[0] == 0:
            shape = (*data.batch, self.dim)
            raise ShapeError(f"'x' must have at least one row; got shape {shape}.")
        values = data.kernels.vmf_mixture_log_prob(data.samples, self._parameters(data))
        return float(values.sum()), data.shape[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mixture to `path`, an npz file without pickled objects.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from pyprobe.directional import VonMisesFisherMixture
        >>> mixture = VonMisesFisherMixture([1.0], [[1.0, 0]], [10.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mixture.npz")
        ...     mixture.save(path)
        ...     VonMisesFisherMixture.load(path)
        VonMisesFisherMixture(n_components=1, dim=2, concentrations=10 to 10)
        """
        fields: dict[str, Any] = {name: to_numpy(getattr(self, name)) for name in _ARRAYS}
        if self.info is not None:
            fields["trace"] = self.info.trace
            fields["info"] = {
                name: getattr(self.info, name)
                for name in MixtureInfo.__dataclass_fields__
                if name != "trace"
            }
        _io.save(path, "VonMisesFisherMixture", fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a mixture that `save` wrote; its arrays are NumPy's."""
        fields = _io.load(path, "VonMisesFisherMixture")
        info = None
        if "info" in fields:
            facts: dict[str, Any] = fields["info"]
            for name in ("collapsed", "doubtful"):
                facts[name] = tuple(facts[name])
            info = MixtureInfo(trace=fields["trace"], **facts)
        return cls(fields["weights"], fields["locs"], fields["concentrations"], info)

    def _data(self, x: Any) -> Data:
        return Data.of(x, dim=self.locs.shape[1])

    def _parameters(self, data: Data) -> tuple[Any, Vector, Vector]:
        directions, scale, offset = self._logits
        return data.to_kernel(directions), scale, offset

    @cached_property
    def _logits(self) -> tuple[Vector, Vector, Vector]:
        """Directions (d, k), scale and offset of the logits, in float64."""
        concentrations = to_numpy(self.concentrations).astype(np.float64)
        weights = to_numpy(self.weights).astype(np.float64)
        locs = to_numpy(self.locs).astype(np.float64)
        # In single precision norms are off by 1e-8, which a high concentration would multiply.
        locs /= np.linalg.norm(locs, axis=1, keepdims=True)
        return locs.T, concentrations, log_offsets(locs.shape[1], concentrations, weights)


_ARRAYS = ("weights", "locs", "concentrations")


def _check_unit(name: str, locs: FloatArray) -> None:
    if locs.shape[1] < 2:
        raise ShapeError(f"'{name}' must have at least 2 columns; got shape {locs.shape}.")
    check_finite(name, locs)
    norms = np.linalg.norm(locs.astype(np.float64), axis=1)
    error = np.abs(norms - 1)
    if (error > (1e-4 if locs.dtype == np.float32 else 1e-6)).any():
        row = int(error.argmax())
        raise DomainError(
            f"'{name}' must hold unit vectors: row {row} has norm {norms[row]:.6g}. Divide by the "
            "norm."
        )


def _starting_locs(init: Any, n_components: int, d: int) -> Vector:
    locs = as_matrix("init", to_numpy(init)).astype(np.float64)
    if locs.shape != (n_components, d):
        raise ShapeError(
            f"'init' must have shape ({n_components}, {d}) to match 'n_components' and 'x'; got "
            f"{locs.shape}."
        )
    _check_unit("init", as_matrix("init", to_numpy(init)))
    return locs


def _warn_of(em: EM, info: MixtureInfo, tol: float) -> None:
    if not (info.converged or info.stopped):
        gain = info.trace[-1] - info.trace[-2]
        warn(
            f"VonMisesFisherMixture.fit stopped after {info.n_iter} iterations, the last of which "
            f"changed the mean log-likelihood by {gain:+.1e}, with tol {tol:.1e}; raise max_iter "
            "or tol.",
            ConvergenceWarning,
        )
    if info.collapsed:
        warn(
            f"{_listed(info.collapsed)} collapsed onto copies of one direction; the likelihood has "
            "no bound there, and the concentration is only the largest allowed. "
            + (
                "Fit more samples."
                if info.n_samples == em.n_components
                else "Drop duplicates, or pass common_concentration=True or fewer components."
            ),
            NumericalWarning,
        )
    if info.doubtful:
        few = "has" if len(info.doubtful) == 1 else "have"
        warn(
            f"{_listed(info.doubtful)} {few} so few samples for {em.data.shape[1]} dimensions that "
            "maximum likelihood overestimates their concentrations by more than a standard error; "
            "pass bias_correction=True or common_concentration=True, and judge by the log_prob of "
            "samples held out.",
            NumericalWarning,
        )


def _listed(places: tuple[int, ...]) -> str:
    if len(places) == 1:
        return f"component {places[0]}"
    more = ", ..." if len(places) > 5 else ""
    return f"{len(places)} components ({', '.join(map(str, places[:5]))}{more})"
