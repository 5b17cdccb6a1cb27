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
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

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
from pyprobe.cluster import (
    EMInfo,
    Expectation,
    expectation_maximization,
    merge_directions,
)
from pyprobe.cluster._samples import as_samples, dtype_of, transposed
from pyprobe.directional._arrays import check_shape
from pyprobe.directional._numpy import cumulant, log_uniform
from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning, ShapeError
from pyprobe.progress import Callback, Progress
from pyprobe.special import bessel_ratio, bessel_ratio_inverse
from pyprobe.typing import Array, ArrayLike, FloatArray, Rng

__all__ = ["MixtureInfo", "VonMisesFisherMixture"]

Vector: TypeAlias = npt.NDArray[np.float64]

_SEED_ROUNDS, _SEED_STEPS = 3, 2
"""Rounds of seeds, as many as components each, and steps of spherical k-means before the clusters
are merged. Fewer miss components in hundreds of dimensions; more find no others."""
_STARVED = 0.5
"""A component with fewer samples than this is given a new place."""
_SMALLEST_COMPLEMENT = {8: 1e-10, 4: 1e-6}
"""Least 1 - R of a component, by the bytes of a float: copies of one direction would else have an
infinite concentration, and single precision cannot tell smaller ones from rounding."""


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
        locs = as_matrix("locs", _numpy(self.locs))
        n_components = len(locs)
        if n_components == 0:
            raise ShapeError("'locs' must have at least one row; got none.")
        _check_unit("locs", locs)
        weights = as_weights("weights", _numpy(self.weights), n_components, "component")
        if abs(weights.sum() - 1) > 1e-4:
            raise DomainError(f"'weights' must sum to 1; they sum to {weights.sum():.6g}.")
        concentrations = as_float_array("concentrations", _numpy(self.concentrations))
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
            object.__setattr__(self, name, _like(self.locs, kept))

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
        data = _Data.of(x)
        n, d = data.shape
        if n < n_components:
            raise ShapeError(
                f"'x' must have at least n_components = {n_components} rows; got {n} "
                f"{'sample' if n == 1 else 'samples'} (shape {data.shape})."
            )
        locs = None if isinstance(init, str) else _starting_locs(init, n_components, d)
        if locs is None:
            check_choice("init", init, ("k-means++",))

        generator = np.random.default_rng(_rng.key(rng))
        best: tuple[_EM, _Parameters, EMInfo] | None = None
        for run in range(n_init):
            em = _EM(data, n_components, kind == "hard", common_concentration, bias_correction)
            parameters, info = expectation_maximization(
                em.expect,
                em.maximize,
                em.start(_rng.key(generator), locs),
                max_iter=max_iter,
                tol=tol,
                monotone=not bias_correction,
                callback=callback and _in_run(callback, run, n_init),
            )
            if best is None or info.log_likelihood > best[2].log_likelihood:
                best = em, parameters, info
            if info.stopped:
                break
        assert best is not None  # n_init is at least 1
        em, parameters, info = best
        if not (info.converged or info.stopped):
            gain = info.trace[-1] - info.trace[-2]
            warn(
                f"VonMisesFisherMixture.fit stopped after {max_iter} iterations, the last of which "
                f"changed the mean log-likelihood by {gain:+.1e}, with tol {tol:.1e}; raise "
                "max_iter or tol.",
                ConvergenceWarning,
            )
        report = MixtureInfo(
            **{name: getattr(info, name) for name in EMInfo.__dataclass_fields__},
            n_samples=n,
            common_concentration=common_concentration,
            bias_correction=bias_correction,
            collapsed=em.collapsed(),
            doubtful=em.doubtful(),
        )
        _warn_of(em, report)
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
        locs, weights = _numpy(self.locs), _numpy(self.weights).astype(np.float64)
        which = generator.choice(len(weights), size=math.prod(shape), p=weights / weights.sum())
        concentrations = _numpy(self.concentrations).astype(np.float64)[which]
        draws = _core.vmf_sample(locs[which], concentrations, 1, _rng.key(generator))
        answer: Array = _like(self.locs, draws.reshape(*shape, locs.shape[1]))
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
        concentrations = _numpy(self.concentrations).astype(np.float64)
        lengths = np.asarray(bessel_ratio(self.dim / 2 - 1, concentrations))
        mean = (_numpy(self.weights) * lengths) @ _numpy(self.locs)
        value: Array = _like(self.locs, mean.astype(_numpy(self.locs).dtype))
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
        fields: dict[str, Any] = {name: _numpy(getattr(self, name)) for name in _ARRAYS}
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

    def _data(self, x: Any) -> _Data:
        return _Data.of(x, dim=self.locs.shape[1])

    def _parameters(self, data: _Data) -> tuple[Any, Vector, Vector]:
        directions, scale, offset = self._logits
        return data.to_kernel(directions), scale, offset

    @cached_property
    def _logits(self) -> tuple[Vector, Vector, Vector]:
        """Directions (d, k), scale and offset of the logits, in float64."""
        concentrations = _numpy(self.concentrations).astype(np.float64)
        weights = _numpy(self.weights).astype(np.float64)
        locs = _numpy(self.locs).astype(np.float64)
        # In single precision norms are off by 1e-8, which a high concentration would multiply.
        locs /= np.linalg.norm(locs, axis=1, keepdims=True)
        return locs.T, concentrations, _offset(locs.shape[1], concentrations, weights)


_ARRAYS = ("weights", "locs", "concentrations")


class _Parameters(NamedTuple):
    """Where an EM iteration stands: directions (d, k) of any length, their norms, the rest."""

    directions: Any
    norms: Vector
    concentrations: Vector
    weights: Vector


class _Statistics(NamedTuple):
    """What a step of the kernel returns."""

    resultants: Any
    squared_norms: Vector
    counts: Vector
    squared_counts: Vector
    log_likelihood: float
    worst: int


class _EM:
    """The two steps of EM for one start."""

    def __init__(
        self, data: _Data, n_components: int, hard: bool, common: bool, corrected: bool
    ) -> None:
        self.data = data
        self.n_components = n_components
        self.hard, self.common, self.corrected = hard, common, corrected
        self.moves_left = n_components
        self.least_complement = _SMALLEST_COMPLEMENT[data.itemsize]
        self.counts = self.squared_counts = self.lengths = np.zeros(n_components)

    def start(self, key: int, locs: Vector | None) -> _Parameters:
        """Make clusters of seeds, or of one assignment to the nearest of `locs`."""
        data, k = self.data, self.n_components
        if locs is not None:
            directions = data.to_kernel(np.ascontiguousarray(locs.T))
        else:
            seeds = data.kernels.spherical_seeds(data.samples, k, _SEED_ROUNDS, key)
            directions, norms = data.columns(seeds), np.ones(len(seeds))
            for _ in range(_SEED_STEPS):
                directions, norms = _directions(directions, norms, self._assign(directions, norms))
            groups = merge_directions(data.to_numpy(directions).T, k)
            directions = directions @ data.to_kernel(np.eye(k)[groups])
        norms = np.linalg.norm(data.to_numpy(directions), axis=0)
        # Where opposite clusters were joined the sum may be zero.
        norms = np.where(norms > 0, norms, 1)
        s = self._assign(directions, norms)
        return self.maximize(_Parameters(directions, norms, np.zeros(k), np.zeros(k)), s)[0]

    def expect(self, p: _Parameters) -> Expectation[_Statistics]:
        """Responsibilities and their sums, by one pass over the data."""
        n, d = self.data.shape
        offset = _offset(d, p.concentrations, p.weights)
        s = self._step(p.directions, p.concentrations / p.norms, offset, hard=self.hard)
        value = s.log_likelihood / n
        # Logits are differences of two numbers about as large as the concentration.
        size = max(1.0, abs(value), float(p.concentrations.max()))
        return Expectation(value, 16 * 2.0 ** (-52 if self.data.itemsize == 8 else -23) * size, s)

    def maximize(self, previous: _Parameters, s: _Statistics) -> tuple[_Parameters, int]:
        """Directions, concentrations and weights from the sums."""
        directions, norms = _directions(previous.directions, previous.norms, s)
        self.counts, self.squared_counts = s.counts, s.squared_counts
        self.lengths = np.sqrt(s.squared_norms)
        concentrations = self._concentrations(self.common, self.corrected)
        weights = s.counts / s.counts.sum()
        starved = np.flatnonzero(s.counts < _STARVED)
        moved = min(1, len(starved), self.moves_left)
        if moved:
            k = starved[0]
            directions[:, k] = self.data.columns([s.worst])[:, 0]
            norms[k] = 1
            concentrations[k] = self._concentrations(True, self.corrected)[k]
            weights[k] = 1 / self.n_components
            weights /= weights.sum()
            self.moves_left -= 1
        return _Parameters(directions, norms, concentrations, weights), moved

    def collapsed(self) -> tuple[int, ...]:
        """Components whose samples all lie in one direction."""
        length = self._mean_lengths(self.common, self.corrected)
        return _places((1 - length <= self.least_complement) & (self.counts > 0))

    def doubtful(self) -> tuple[int, ...]:
        """Components whose concentrations are off by more than their standard errors."""
        if self.common or self.corrected:
            return ()
        kappa = self._concentrations(common=False, corrected=False)
        unbiased = self._concentrations(common=False, corrected=True)
        slope = np.asarray(bessel_ratio(self.data.shape[1] / 2 - 1, kappa, derivative=(0, 1)))
        error = 1 / np.sqrt(np.maximum(self.counts, 1) * slope)
        return _places((self.counts > 1) & (kappa - unbiased > error))

    def _step(self, directions: Any, scale: Vector, offset: Vector, *, hard: bool) -> _Statistics:
        return _Statistics(
            *self.data.kernels.vmf_mixture_step(
                self.data.samples, (directions, scale, offset), hard
            )
        )

    def _assign(self, directions: Any, norms: Vector) -> _Statistics:
        """Spherical k-means: every row wholly to the nearest direction."""
        return self._step(directions, 1 / norms, np.zeros(len(norms)), hard=True)

    def _concentrations(self, common: bool, corrected: bool) -> Vector:
        """Solve A(kappa) = R for every component."""
        length = self._mean_lengths(common, corrected)
        complement = np.maximum(1 - length, self.least_complement)
        order = self.data.shape[1] / 2 - 1
        return np.asarray(bessel_ratio_inverse(order, 1 - complement, complement=complement))

    def _mean_lengths(self, common: bool, corrected: bool) -> Vector:
        """Mean resultant lengths R_k, or the common one k times."""
        if corrected:
            # E |S|^2 = Q + (N^2 - Q) rho^2, since different rows are independent.
            above = self.lengths**2 - self.squared_counts
            pairs = self.counts**2 - self.squared_counts
            # A single row says nothing of a concentration: rounding must not decide otherwise.
            pairs = np.where(pairs > 1e-9 * self.counts**2, pairs, 0)
            if common:
                above, pairs = above.sum(keepdims=True), pairs.sum(keepdims=True)
            length = np.sqrt(np.maximum(_ratio(above, pairs), 0))
        elif common:
            length = _ratio(self.lengths.sum(keepdims=True), self.counts.sum(keepdims=True))
        else:
            length = _ratio(self.lengths, self.counts)
        lengths: Vector = np.minimum(np.broadcast_to(length, self.n_components), 1)
        return lengths


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """Samples as an engine takes them, and the way back to the caller's kind of array."""

    engine: Engine
    kernels: Any
    samples: Any
    shape: tuple[int, int]
    batch: tuple[int, ...]
    itemsize: int
    device: Any

    @classmethod
    def of(cls, x: Any, *, dim: int | None = None) -> _Data:
        """Check `x`, to be fitted where `dim` is None, else to be judged in that dimension."""
        engine = select(x)
        device = None
        kernels: Any = _core
        samples: Any
        sparse = scipy.sparse.issparse(x)
        if engine is not Engine.NATIVE:
            device = x.device
            from pyprobe.directional import _mixture_torch

            samples = _mixture_torch.as_float_tensor(x)
            if engine is Engine.TORCH or (dim is not None and x.requires_grad):
                kernels = _mixture_torch
            else:
                samples = samples.numpy(force=True)
        else:
            samples = x if sparse else as_float_array("x", x)
        batch = tuple(samples.shape[:-1])
        if len(samples.shape) == 0 or (dim is None and len(samples.shape) != 2):
            raise ShapeError(
                "'x' must be a matrix of shape (n, d), one sample a row; got shape "
                f"{tuple(samples.shape)}."
            )
        d = samples.shape[-1]
        if d < 2:
            raise ShapeError(f"'x' must have at least 2 columns; got shape {tuple(samples.shape)}.")
        if dim not in (None, d):
            raise ShapeError(
                f"'x' must have {dim} columns, as the mixture's locs have; got shape "
                f"{tuple(samples.shape)}."
            )
        shape = (math.prod(batch), d)
        if kernels is _core:
            samples = as_samples("x", samples if sparse else samples.reshape(shape))
            itemsize = dtype_of(samples).itemsize
        else:
            samples = samples.reshape(shape)
            itemsize = samples.element_size()
        kernels.check_unit_rows(samples)
        if dim is None and kernels is _core:
            samples = transposed(samples)
        return cls(engine, kernels, samples, shape, batch, itemsize, device)

    def to_kernel(self, array: Vector) -> Any:
        """Return a float64 array of parameters as the engine's."""
        return array if self.kernels is _core else self._tensor(array)

    def to_numpy(self, array: Any) -> Vector:
        """Return a float64 array of the engine's as NumPy's."""
        values: Vector = array if self.kernels is _core else array.cpu().numpy()
        return values

    def columns(self, rows: list[int]) -> Any:
        """Return some samples as the columns of a new float64 array."""
        if self.kernels is not _core:
            return self.samples[rows].T.double().contiguous()
        if isinstance(self.samples, np.ndarray):
            return np.ascontiguousarray(self.samples[rows].T, dtype=np.float64)
        indptr, indices, values, d = self.samples[0]
        out = np.zeros((d, len(rows)))
        for k, row in enumerate(rows):
            entries = slice(int(indptr[row]), int(indptr[row + 1]))
            out[indices[entries], k] = values[entries]
        return out

    def answer(self, array: Any, *, batch: bool = True) -> Any:
        """Return `array`, one entry a sample, as the caller's kind, shaped as the samples came."""
        dtype = np.float64 if self.itemsize == 8 else np.float32
        if isinstance(array, np.ndarray):
            array = array.astype(dtype if array.dtype.kind == "f" else np.int64, order="C")
            if self.engine is not Engine.NATIVE:
                array = self._tensor(array)
        elif array.is_floating_point():
            array = array.to(self.samples.dtype)
        return array.reshape(self.batch + array.shape[1:]) if batch else array

    def _tensor(self, array: Any) -> Any:
        return sys.modules["torch"].as_tensor(array, device=self.device)


def _directions(directions: Any, norms: Vector, s: _Statistics) -> tuple[Any, Vector]:
    """Return the resultants and their norms; the old direction where a resultant is zero."""
    resultants, lengths = s.resultants, np.sqrt(s.squared_norms)
    for k in np.flatnonzero(lengths == 0):
        resultants[:, k] = directions[:, k] / norms[k]
        lengths[k] = 1
    return resultants, lengths


def _offset(d: int, concentrations: Vector, weights: Vector) -> Vector:
    """Logits at the equator of each component: log alpha + log C_d(kappa).

    log C_d(kappa) is the log-density of the uniform distribution less the cumulant G(kappa).
    """
    with np.errstate(divide="ignore"):  # a component of weight 0
        log_weights = np.log(weights)
    return np.asarray(log_weights + log_uniform(d) - cumulant(concentrations, d))


def _ratio(a: Vector, b: Vector) -> Vector:
    """Divide, with 0 where `b` is not positive."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _places(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(k) for k in np.flatnonzero(mask))


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
    locs = as_matrix("init", _numpy(init)).astype(np.float64)
    if locs.shape != (n_components, d):
        raise ShapeError(
            f"'init' must have shape ({n_components}, {d}) to match 'n_components' and 'x'; got "
            f"{locs.shape}."
        )
    _check_unit("init", as_matrix("init", _numpy(init)))
    return locs


def _in_run(callback: Callback, run: int, n_runs: int) -> Callback:
    """Tell `callback` the steps of all runs together."""

    def shifted(progress: Progress) -> bool | None:
        total = progress.total
        return callback(replace(progress, step=run * total + progress.step, total=n_runs * total))

    return shifted


def _warn_of(em: _EM, info: MixtureInfo) -> None:
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


def _numpy(array: Any) -> Any:
    """Return `array` as NumPy takes it: tensors come to the CPU."""
    return array.detach().cpu().numpy() if select(array) is not Engine.NATIVE else array


def _like(model: Any, array: Any) -> Any:
    """Return `array` of the library, dtype and device of `model`."""
    if select(model) is Engine.NATIVE:
        return array
    return sys.modules["torch"].as_tensor(array, dtype=model.dtype, device=model.device)
