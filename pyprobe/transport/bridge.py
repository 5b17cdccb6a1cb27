r"""The Schrödinger bridge between two samples, in closed form.

Among all processes that start with one law and end with another, the bridge is the nearest to
Brownian motion :math:`dX = \sqrt{\varepsilon}\, dW` over [0, T], in Kullback-Leibler divergence.
Where the bridge goes from x is a Gaussian mixture, for a potential that is one (Korotin, Gushchin
and Burnaev 2024, propositions 3.2 and 3.3):

.. math::
   \pi(x_1 | x_0) = \sum_k p_k(x_0)\, N(x_1 \mid s_k + S_k (x_0 - o),\; \varepsilon T S_k), \qquad
   p_k(x_0) \propto \alpha_k\,
      e^{((x_0 - o) \cdot S_k (x_0 - o) + 2 (s_k - o) \cdot (x_0 - o)) / (2 \varepsilon T)},

with shifts :math:`s_k`, scales :math:`S_k` and the weights :math:`\alpha_k` at the origin o. All
else follows: the drift, the law at any time, paths without a step size.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

import numpy as np

from pyprobe import _io, _rng
from pyprobe._validate import (
    as_weights,
    check_callback,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe.errors import (
    DomainError,
    MissingDependencyError,
    ShapeError,
)
from pyprobe.progress import Callback, Reporter
from pyprobe.transport._bridge_checks import (
    as_count,
    check_fitted,
    check_strength,
    warn_of_bridge,
    warn_of_constants,
)
from pyprobe.transport._bridge_costs import (
    KLEstimate,
    backward_weights,
    expected_cost,
    kl_to_reference,
    mean_log_prob,
)
from pyprobe.transport._bridge_fit import (
    KINDS,
    SOLVERS,
    STARTS,
    BridgeFit,
    Fitted,
    Options,
    fit,
)
from pyprobe.transport._bridge_input import (
    as_fraction,
    as_later_time,
    as_log_weights,
    as_origin,
    as_rows,
    as_samples,
    as_scales,
    as_shifts,
    as_time_pair,
    as_times,
    as_times_of_rows,
)
from pyprobe.transport._bridge_paths import euler_maruyama, exact_paths
from pyprobe.transport._components import Components, Vector
from pyprobe.transport._in_kind import in_kind
from pyprobe.transport.gaussian_mixture import GaussianMixtureBatch, mixture_at
from pyprobe.typing import Array, ArrayLike, FloatArray, Rng

if TYPE_CHECKING:
    from pyprobe.transport._bridge_torch import TorchBridge

__all__ = ["LightSchrodingerBridge"]

_KIND = "LightSchrodingerBridge"
_KINDS = {1: "spherical", 2: "diag", 3: "full"}

_N_COMPONENTS = 50

_P = ParamSpec("_P")
_R = TypeVar("_R")

# The arguments that say which library a method is called in.
_ROWS = ("x0", "x1", "x", "given", "t")


def _takes_tensors(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a method of rows take torch tensors too, and answer in kind."""
    return in_kind(method, _ROWS, _on_tensors)


def _on_tensors(method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    from pyprobe.transport import _bridge_torch

    return _bridge_torch.call(method, arguments)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LightSchrodingerBridge(_io.Frozen):
    r"""A Schrödinger bridge whose potential is a Gaussian mixture: all of it in closed form.

    From :math:`x_0` and with component k, the end is :math:`N(s_k + S_k (x_0 - o), \varepsilon T
    S_k)`; the components' probabilities are the weights at the origin o, and tilt away from it as
    the module says. Made by `from_parameters`. The value is immutable.

    Parameters
    ----------
    log_weights : array_like, shape (k,)
        Logarithms of the components' probabilities at the origin, up to a constant. With little
        noise they span thousands of nats, which the probabilities themselves cannot.
    shifts : array_like, shape (k, d)
        Where each component takes the origin.
    scales : array_like, shape (k,), (k, d) or (k, d, d)
        Positive numbers, diagonals or positive definite matrices :math:`S_k`: the slope of each
        component's map, and its covariance over :math:`\varepsilon T`.
    epsilon : float
        :math:`\varepsilon`, the variance of the noise per unit of time.
    horizon : float, default 1
        T; times run over [0, T].
    origin : array_like, shape (d,), optional
        o; default 0. Near the start of the process, it keeps the weights well scaled.
    info : BridgeFit, optional
        How the fit went; None where there was none.

    Raises
    ------
    ShapeError      if the shapes do not fit.
    DomainError     if a scale, `epsilon` or `horizon` is not positive, or a matrix is not
                    symmetric.
    NotPositiveDefiniteError    if a matrix is not positive definite.
    NotFiniteError  if an argument is infinite or NaN; a log-weight may be minus infinity.

    Notes
    -----
    The cost of the static problem is :math:`|x_0 - x_1|^2 / 2`, its entropy :math:`\varepsilon T`.
    For the squared distance without the half, as in `sinkhorn_points`, in OTT (``epsilon``) and in
    POT (``reg``), the same strength is :math:`2 \varepsilon T`; torchcfm's ``sigma`` is
    :math:`\sqrt{\varepsilon}`, for T = 1.

    Parameters are kept in float64, and everything is computed in it; results have the dtype of the
    rows that came in, float32 or float64; of other real ones they have float64. Cost O(k d) a row,
    O(k d^2) with matrices, in blocks that fit the cache.

    Where methods take rows, they take torch tensors too, and answer in kind. Tensors on the CPU
    that want no gradient go the way of arrays, and so do `log_prob` and, at one time, `log_phi`
    with first gradients; else the same formulas run in torch, in float64, and are differentiable
    in rows and times to any order. Laws (`conditional` and its like) are for arrays: `to_torch`
    gives a module that has them for tensors, and parameters to train. Engines: native, torch.

    References
    ----------
    .. [1] A. Korotin, N. Gushchin and E. Burnaev, "Light Schrödinger bridge", ICLR 2024,
       propositions 3.2 and 3.3, arXiv:2310.01174.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... )
    >>> bridge
    LightSchrodingerBridge(n_components=2, dim=2, epsilon=0.5, scales='spherical')
    >>> x0 = np.array([[0.0, 1.0], [0.1, 0.0]])
    >>> bridge.mean(x0).round(2)
    array([[0.  , 0.2 ],
           [1.63, 0.  ]])
    >>> bridge.sample_path(x0, [0.5, 1.0], rng=0).shape
    (2, 2, 2)
    """

    log_weights: Vector
    shifts: Vector
    scales: Vector
    epsilon: float
    horizon: float = 1.0
    origin: Vector | None = None
    info: BridgeFit | None = None

    def __post_init__(self) -> None:
        shifts = as_shifts(self.shifts)
        k, d = shifts.shape
        kept = {
            "log_weights": as_log_weights(self.log_weights, k),
            "shifts": shifts,
            "scales": as_scales(self.scales, k, d),
            "origin": as_origin(self.origin, d),
        }
        # The caller's arrays may change later: the value keeps copies of its own.
        for name, array in kept.items():
            copy = np.array(array)
            copy.flags.writeable = False
            object.__setattr__(self, name, copy)
        for name in ("epsilon", "horizon"):
            object.__setattr__(self, name, check_positive_float(name, getattr(self, name)))

    def __repr__(self) -> str:
        horizon = "" if self.horizon == 1 else f", horizon={self.horizon:.6g}"
        return (
            f"LightSchrodingerBridge(n_components={self.n_components}, dim={self.dim}, "
            f"epsilon={self.epsilon:.6g}{horizon}, scales={_KINDS[self.scales.ndim]!r})"
        )

    @classmethod
    def from_parameters(
        cls,
        weights: ArrayLike,
        shifts: ArrayLike,
        scales: ArrayLike,
        *,
        epsilon: float,
        horizon: float = 1.0,
        origin: ArrayLike | None = None,
    ) -> Self:
        r"""Make a bridge from the probabilities, shifts and scales of its components.

        Parameters
        ----------
        weights : array_like, shape (k,)
            Probabilities of the components at the origin; they sum to 1. Where they are too uneven
            for that, the class itself takes ``log_weights``.
        shifts, scales, epsilon, horizon, origin
            As those of the class.

        Returns
        -------
        LightSchrodingerBridge

        Raises
        ------
        ShapeError      if the shapes do not fit.
        DomainError     if the weights are not probabilities, or another parameter is out of range.
        NotFiniteError  if an argument is infinite or NaN.

        Examples
        --------
        A Gaussian bridge, from N(0, I) to N((5, 0), I): with one component, S solves
        :math:`S^2 + \varepsilon S = 1`.

        >>> import numpy as np
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> scale = np.sqrt(1 + 0.25 * 0.1**2) - 0.1 / 2
        >>> bridge = LightSchrodingerBridge.from_parameters(
        ...     [1.0], [[5.0, 0.0]], [scale], epsilon=0.1
        ... )
        >>> end = bridge.sample(np.random.default_rng(0).normal(size=(4000, 2)), rng=1)
        >>> end.mean(axis=0).round(1) + 0.0, end.std(axis=0).round(1)
        (array([5., 0.]), array([1., 1.]))
        """
        shapes = np.shape(shifts)
        probabilities = as_weights("weights", weights, shapes[0] if shapes else 1, "component")
        if abs(probabilities.sum() - 1) > 1e-4:
            raise DomainError(
                f"'weights' must sum to 1; they sum to {probabilities.sum():.6g}. Divide by the "
                "sum."
            )
        with np.errstate(divide="ignore"):  # a component of weight 0
            log_weights = np.log(probabilities)
        given: Any = shifts, scales, origin
        return cls(
            log_weights=log_weights,
            shifts=given[0],
            scales=given[1],
            epsilon=epsilon,
            horizon=horizon,
            origin=given[2],
        )

    @classmethod
    def fit(
        cls,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        epsilon: float,
        n_components: int | None = None,
        covariance: Literal["diag", "full", "spherical"] = "diag",
        solver: Literal["em", "lbfgs", "adam", "matching"] = "em",
        start: Literal["auto", "broad", "kmeans", "annealed"] | LightSchrodingerBridge = "auto",
        weights_x0: ArrayLike | None = None,
        weights_x1: ArrayLike | None = None,
        horizon: float = 1.0,
        validation_fraction: float = 0.1,
        max_iter: int = 200,
        tol: float = 1e-5,
        n_init: int = 1,
        rng: Rng = None,
        callback: Callback | None = None,
    ) -> Self:
        r"""Fit a bridge to a sample of starts and one of ends, which need not be paired.

        Minimizes :math:`E \log c(x_0) - E \log v(x_1)`, which is the divergence of the bridge from
        the true one up to a constant ([1]_, proposition 3.1). The samples are centred and brought
        to a common scale first; it matters neither where they lie nor in which unit.

        Parameters
        ----------
        x0 : array_like, shape (n, d)
            Starts, at least 2 beside those that are held out.
        x1 : array_like, shape (m, d)
            Ends, at least 2 beside those that are held out.
        epsilon : float
            Variance of the noise per unit of time; see `suggest_epsilon`.
        n_components : int, optional
            Components of the potential, at most as many as there are rows of x1 that are fitted:
            those that are not held out, and have weight. Default 50, or as many as such rows where
            they are fewer; or as many as the bridge has that the fit starts from.
        covariance : {"diag", "full", "spherical"}
            Form of the components' scales. Full ones take :math:`d^2` numbers and turn the axes.
        solver : {"em", "lbfgs", "adam", "matching"}
            Gaussian bridges a component, then L-BFGS; L-BFGS from the start; Adam over small
            batches; or that with the loss of bridge matching [2]_, whose minimum is the same. The
            last two are for comparison: they make `max_iter` passes over the larger sample, whether
            the loss falls or not. ``"matching"`` takes no full scales.
        start : {"auto", "broad", "kmeans", "annealed"} or LightSchrodingerBridge
            Where the fit begins. ``"broad"``: components that move all starts alike, to ends drawn
            at random. ``"kmeans"``: clusters of the ends. ``"annealed"``: components that have
            followed a noise as wide as the data down to `epsilon`. ``"auto"``: the first, for one
            component or where a sample has fewer than 20 rows a component; the last, where the
            noise is less than 0.005 of the mean variance of the samples in a coordinate; else the
            better of the first two after a few iterations on a few rows, each drawn twice for up to
            10 components. A bridge: its components, whose maps stay as they are; it may have
            another epsilon, and its scales must be of the form of `covariance` or a simpler one.
        weights_x0, weights_x1 : array_like, shapes (n,) and (m,), optional
            Nonnegative weights of the rows, two of them positive at least; default equal.
        horizon : float, default 1
            When the ends are reached.
        validation_fraction : float, default 0.1
            Part of either sample that is held out. The fit ends where the loss on it has ceased to
            fall, and returns the bridge before it rose: on finite samples the loss has no lower
            bound, since a component can shrink onto a single point. A rise there counts for less
            than a fall on the fitted rows while their product is below the variance of the rise.
            0 fits all rows to `tol`.
        max_iter : int, default 200
            The most iterations.
        tol : float, default 1e-5
            Fall of the loss and the penalty of L-BFGS, in nats an iteration, below which the fit
            ends.
        n_init : int, default 1
            Fits from different starts, of which the one with the lowest loss on all rows, also
            those held out, is returned; 1 where `start` is a bridge.
        rng : None, int, numpy.random.Generator or torch.Generator
            Seed or source of the starts and of the rows held out.
        callback : callable, optional
            Called with a `pyprobe.progress.Progress` after every iteration, whose value is the
            loss; returning ``True`` ends the fit with the best bridge so far. While a start is
            annealed, it is called 60 times more, with the loss of a batch at the noise so far; and
            where several starts are tried, up to 20 times for each, with the loss on the rows of
            the trial.

        Returns
        -------
        LightSchrodingerBridge
            Its ``info`` says how the fit went.

        Raises
        ------
        ShapeError      if the samples do not fit one another, or are too small.
        DomainError     if a number is out of range or an option is unknown; if the samples'
                        squares, or the noise beside them, are beyond float64.
        NotFiniteError  if a sample is infinite or NaN somewhere.

        Warns
        -----
        ConvergenceWarning  if the loss still falls after `max_iter` iterations.
        NumericalWarning    if `epsilon` is far off the scale of the data, a column does not vary,
                            or components have shrunk onto single points.

        Notes
        -----
        An iteration of ``"em"`` makes every component the Gaussian Schrödinger bridge between its
        shares of the two samples, shortened until the loss falls, with damped Newton steps on the
        weights. When five lower the loss by less than a twentieth of what five did on average, or
        by less than 0.05, L-BFGS goes on, in coordinates which those bridges make round. An
        iteration costs O((n + m) k d) operations, with full scales O((n + m) k d^2 + k d^3), and
        k^2 for each of up to 8000 rows where the weights are solved for: in each of the first kind,
        and in every 25th of L-BFGS. Samples of more than 3e7 / k rows are thinned to that, except
        for ``"adam"`` and ``"matching"``, which take batches of 128 rows.

        In the Gaussian bridges, covariances are drawn towards their mean as if it had been seen on
        2 (1 + 30 / r) points, with r rows a component (d for 2 where they are full). With less than
        20 rows a component they also count the rows that fitted means take from them, and the
        components' means of the starts are drawn together by the variance within over that between.
        The same seed gives the same bits for any number of pyprobe's threads; those of NumPy's
        linear algebra, which are its own, may change the last ones.

        Adam moves the shifts, the logarithms of the scales and epsilon times those of the weights,
        in units of the data. Its rate is 0.05 times the noise's standard deviation, at most 0.05,
        and falls to 0 at `max_iter` in a straight line; the decays are 0.9 and 0.99. Matching draws
        times from [0, 0.99].

        References
        ----------
        .. [1] A. Korotin, N. Gushchin and E. Burnaev, "Light Schrödinger bridge", ICLR 2024,
           arXiv:2310.01174.
        .. [2] N. Gushchin, S. Kholkin, E. Burnaev and A. Korotin, "Light and optimal Schrödinger
           bridge matching", ICML 2024, theorem 3.3, arXiv:2402.03207.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> rng = np.random.default_rng(0)
        >>> x0 = rng.normal(size=(2000, 2))
        >>> x1 = 0.3 * rng.normal(size=(2000, 2)) + rng.choice([-3.0, 3.0], size=(2000, 1))
        >>> bridge = LightSchrodingerBridge.fit(x0, x1, epsilon=0.5, n_components=5, rng=0)
        >>> bridge.info.converged
        True
        >>> moved = bridge.sample(x0, rng=0)
        >>> np.allclose(moved.mean(axis=0), x1.mean(axis=0), atol=0.3)
        True

        With half the noise, from there:

        >>> sharper = LightSchrodingerBridge.fit(x0, x1, epsilon=0.25, start=bridge, rng=0)
        >>> sharper.n_components, sharper.info.start
        (5, 'given')
        """
        sources, targets = as_samples("LightSchrodingerBridge.fit", x0, x1, weights_x0, weights_x1)
        epsilon = check_positive_float("epsilon", epsilon)
        horizon = check_positive_float("horizon", horizon)
        check_choice("covariance", covariance, tuple(KINDS))
        _check_solver(solver, covariance)
        max_iter = check_positive_int("max_iter", max_iter)
        n_init = check_positive_int("n_init", n_init)
        strength, dim = epsilon * horizon, sources.points.shape[1]
        begun, n_components = _as_start(start, n_components, n_init, covariance, dim, strength)
        fraction = as_fraction(validation_fraction)
        check_fitted("x0", sources, fraction)
        n_fitted = check_fitted("x1", targets, fraction)
        if n_components is None:
            n_components = min(_N_COMPONENTS, n_fitted)
        n_components = as_count("n_components", n_components, n_fitted, "x1")
        tol = check_positive_float("tol", tol, allow_zero=True)
        check_callback("callback", callback)
        check_strength(strength, sources, targets)
        warn_of_constants(sources, targets)

        reported, announced = _reports(callback)
        found = fit(
            sources,
            targets,
            epsilon=strength,
            n_components=n_components,
            covariance=covariance,
            start=begun,
            solver=solver,
            validation_fraction=fraction,
            n_init=n_init,
            options=Options(max_iter, tol, reported, announced),
            rng=np.random.default_rng(_rng.key(rng)),
        )
        assert found.info is not None  # it has just been fitted
        warn_of_bridge(found.info)
        return cls(
            log_weights=found.log_weights,
            shifts=found.shifts,
            scales=found.scales,
            epsilon=epsilon,
            horizon=horizon,
            origin=found.origin,
            info=found.info,
        )

    @property
    def n_components(self) -> int:
        """k, the number of components."""
        return len(self.shifts)

    @property
    def dim(self) -> int:
        """d, the dimension of the space."""
        return int(self.shifts.shape[1])

    @property
    def weights(self) -> FloatArray:
        """Probabilities of the components at the origin, shape (k,)."""
        weights: FloatArray = np.exp(self.log_weights)
        return weights

    # --- laws ---

    def conditional(self, x0: ArrayLike) -> GaussianMixtureBatch:
        """Return the laws of the end, given the start.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.

        Returns
        -------
        GaussianMixtureBatch
            A mixture for each row of `x0`.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> law = bridge.conditional([[0.0], [1.0]])
        >>> law.locs[:, 0], law.component_covariances
        (array([[2. ],
               [2.5]]), array([[0.05]]))
        """
        return mixture_at(self._components, as_rows("x0", x0, self.dim), 0.0, 1.0)

    def conditional_at(self, x0: ArrayLike, t: float) -> GaussianMixtureBatch:
        """Return the laws of the place at time `t`, in (0, horizon], given the start.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.
        t : float
            The time; at 0 the place is `x0` itself, and has no density.

        Returns
        -------
        GaussianMixtureBatch
            A mixture for each row of `x0`.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        DomainError     if ``t`` is not in (0, horizon].
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.conditional_at([[1.0]], 0.5).mean
        array([[1.75]])
        """
        rows = as_rows("x0", x0, self.dim)
        end = as_later_time("t", t, self.horizon)
        return mixture_at(self._components, rows, 0.0, end)

    def transition(self, x: ArrayLike, s: float, t: float) -> GaussianMixtureBatch:
        r"""Return the laws of the place at time `t`, given that at an earlier time `s`.

        With component k it is :math:`N(x + (t - s) h_k(x), \varepsilon (t - s) D_k(t)
        D_k(s)^{-1})`, where :math:`D_k(t) = (1 - t/T) I + (t/T) S_k`, and :math:`h_k` is the drift
        of the component at time s.

        Parameters
        ----------
        x : array_like, shape (m, d)
            Where the process is at time `s`.
        s, t : float
            Times, 0 <= s < t <= horizon.

        Returns
        -------
        GaussianMixtureBatch
            A mixture for each row of `x`.

        Raises
        ------
        ShapeError      if ``x`` is not a matrix of d columns.
        DomainError     if a time is out of range, or ``s >= t``.
        NotFiniteError  if ``x`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.transition([[1.75]], 0.5, 1.0).mean
        array([[2.5]])
        """
        rows = as_rows("x", x, self.dim)
        return mixture_at(self._components, rows, *as_time_pair(s, t, self.horizon))

    @_takes_tensors
    def mean(self, x0: ArrayLike) -> Array:
        r"""Return the mean of the end given the start, :math:`E[X_T | x_0]`, shape (m, d).

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.mean([[0.0], [1.0]])
        array([[2. ],
               [2.5]])
        """
        return self.conditional(x0).mean

    @_takes_tensors
    def covariance(self, x0: ArrayLike) -> Array:
        """Return the covariance of the end given the start, shape (m, d, d).

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.covariance([[0.0]])
        array([[[0.05]]])
        """
        return self.conditional(x0).covariance

    @_takes_tensors
    def log_prob(self, x1: ArrayLike, *, given: ArrayLike) -> Array:
        """Return the log-density of the end `x1`, given the start.

        Parameters
        ----------
        x1 : array_like, shape (..., m, d)
            Ends, one for each row of `given`, or several.
        given : array_like, shape (m, d)
            Where the process starts; a single row goes with any number of ends.

        Returns
        -------
        ndarray, shape (..., m)
            In nats.

        Raises
        ------
        ShapeError      if the shapes do not fit.
        NotFiniteError  if an argument is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.log_prob([[2.0], [3.0]], given=[[0.0]]).round(3)
        array([ 0.579, -9.421])
        """
        ends = as_rows("x1", x1, self.dim, batch=True)
        starts = as_rows("given", given, self.dim)
        if ends.shape[-2] != len(starts) != 1:
            raise ShapeError(
                f"'x1' must have shape (..., {len(starts)}, {self.dim}), a row for each of "
                f"'given'; got {ends.shape}."
            )
        return mixture_at(self._components, starts, 0.0, 1.0).log_prob(ends)

    # --- potentials and drift ---

    @_takes_tensors
    def drift(self, x: ArrayLike, t: ArrayLike) -> Array:
        r"""Return the drift of the bridge, :math:`\varepsilon \nabla \log \varphi_t(x)`.

        The bridge solves :math:`dX = g(X, t)\, dt + \sqrt{\varepsilon}\, dW`. The form used is
        finite on all of [0, horizon] and loses no digits near the end, unlike that by
        :math:`(E[X_T | X_t = x] - x) / (T - t)`, which it equals.

        Parameters
        ----------
        x : array_like, shape (m, d)
            Places.
        t : float or array_like, shape (m,)
            Time, or one for each row.

        Returns
        -------
        ndarray, shape (m, d)
            Per unit of time.

        Raises
        ------
        ShapeError      if ``x`` is not a matrix of d columns, or ``t`` does not fit it.
        DomainError     if a time is not in [0, horizon].
        NotFiniteError  if ``x`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.drift([[0.0], [3.0]], [0.0, 1.0])
        array([[2.],
               [1.]])
        """
        rows = as_rows("x", x, self.dim)
        times = as_times_of_rows(t, len(rows), self.horizon)
        drift = self._components.drift(rows.astype(np.float64, copy=False), times) / self.horizon
        return drift.astype(rows.dtype, copy=False)

    @_takes_tensors
    def log_phi(self, x: ArrayLike, t: ArrayLike) -> Array:
        r"""Return the logarithm of the potential :math:`\varphi_t(x)`, whose gradient is the drift.

        :math:`\varphi_T(x) = e^{|x - o|^2 / (2 \varepsilon T)} v(x)`, and before that its mean over
        the Brownian motion from x.

        Parameters
        ----------
        x : array_like, shape (m, d)
            Places.
        t : float or array_like, shape (m,)
            Time, or one for each row.

        Returns
        -------
        ndarray, shape (m,)

        Raises
        ------
        ShapeError      if ``x`` is not a matrix of d columns, or ``t`` does not fit it.
        DomainError     if a time is not in [0, horizon].
        NotFiniteError  if ``x`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [1.0], epsilon=0.5)
        >>> rise = bridge.log_phi([[1.0]], 0.3) - bridge.log_phi([[0.0]], 0.3)
        >>> 0.5 * rise, bridge.drift([[0.0]], 0.3)
        (array([2.]), array([[2.]]))
        """
        rows = as_rows("x", x, self.dim)
        times = as_times_of_rows(t, len(rows), self.horizon)
        log_phi = self._components.log_phi(rows.astype(np.float64, copy=False), times)
        return log_phi.astype(rows.dtype, copy=False)

    @_takes_tensors
    def log_potential(self, x: ArrayLike) -> Array:
        r"""Return the logarithm of the adjusted potential, the mixture v.

        :math:`v = \sum_k \alpha_k N(s_k, \varepsilon T S_k)`, and
        :math:`\pi(x_1 | x_0) \propto e^{(x_0 - o) \cdot (x_1 - o) / (\varepsilon T)} v(x_1)`.

        Parameters
        ----------
        x : array_like, shape (m, d)
            Places.

        Returns
        -------
        ndarray, shape (m,)

        Raises
        ------
        ShapeError      if ``x`` is not a matrix of d columns.
        NotFiniteError  if ``x`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.log_potential([[2.0]]).round(3)
        array([0.579])
        """
        rows = as_rows("x", x, self.dim)
        values = self._components.log_target(rows.astype(np.float64, copy=False))
        return values.astype(rows.dtype, copy=False)

    # --- scores and costs ---

    @_takes_tensors
    def score(self, x0: ArrayLike, x1: ArrayLike) -> Array | float:
        r"""Return how well the bridge explains two samples; higher is better.

        This is the mean of ``log_prob(x1, given=x0)`` over all pairs of rows, without making them:
        :math:`-L = \mathrm{mean} \log v(x_1) - \mathrm{mean} \log c(x_0)`, with :math:`c(x_0)` what
        normalizes :math:`\pi(\cdot | x_0)`, in coordinates about the mean of `x0`. Between two
        bridges the difference on new data estimates that of the Kullback-Leibler divergences from
        the true one; the value itself has no natural zero.

        Parameters
        ----------
        x0 : array_like, shape (n, d)
            Starts.
        x1 : array_like, shape (m, d)
            Ends; they need not be paired with the starts.

        Returns
        -------
        float, or 0-d tensor
            In nats.

        Raises
        ------
        ShapeError      if an argument is not a matrix of d columns, or is empty.
        NotFiniteError  if an argument is infinite or NaN somewhere.

        References
        ----------
        .. [1] A. Korotin, N. Gushchin and E. Burnaev, "Light Schrödinger bridge", ICLR 2024,
           proposition 3.1.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> round(bridge.score([[0.0], [1.0]], [[2.0], [2.5]]), 3)
        -0.671
        """
        starts = as_rows("x0", x0, self.dim, least=1).astype(np.float64, copy=False)
        ends = as_rows("x1", x1, self.dim, least=1).astype(np.float64, copy=False)
        return mean_log_prob(self._components, starts, ends)

    @_takes_tensors
    def transport_cost(self, x0: ArrayLike) -> Array:
        r"""Return the expected cost :math:`E[|X_T - x_0|^2 / 2]` for each start, shape (m,).

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.transport_cost([[0.0]])
        array([2.025])
        """
        rows = as_rows("x0", x0, self.dim)
        cost = expected_cost(self._components, rows.astype(np.float64, copy=False))
        return cost.astype(rows.dtype, copy=False)

    @_takes_tensors
    def kl_to_reference(self, x0: ArrayLike, *, n: int = 256, rng: Rng = None) -> KLEstimate:
        r"""Return the divergence of the end's law from Brownian motion's, for each start.

        :math:`\mathrm{KL}(\pi(\cdot | x_0) \,|\, N(x_0, \varepsilon T I))`, which is also that of
        the whole processes. It is the mean of the components' divergences, in closed form, less
        what an end tells of its component: the entropy of the weights at the start, minus the mean
        entropy of the posterior weights at the end, over draws.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.
        n : int, default 256
            Draws for each row; at least 2. None are made for a single component.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        KLEstimate
            Its standard error is at most log(k) / sqrt(n).

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        DomainError     if ``n`` is less than 2.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters(
        ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
        ... )
        >>> bridge.kl_to_reference([[0.0, 0.0]], rng=0).value.round(2)
        array([9.12])
        """
        n = check_positive_int("n", n, minimum=2)
        rows = as_rows("x0", x0, self.dim)
        generator = np.random.default_rng(_rng.key(rng))
        places = rows.astype(np.float64, copy=False)
        found = kl_to_reference(self._components, places, n, generator)
        parts: Any = found.value, found.standard_error
        value, error = (part.astype(rows.dtype, copy=False) for part in parts)
        return replace(found, value=value, standard_error=error)

    @_takes_tensors
    def backward_weights(self, x1: ArrayLike, x0: ArrayLike) -> Array:
        r"""Return the probabilities that an end came from each start of a sample.

        Proportional to :math:`\pi(x_1 | x_{0,i})`. They are empirical: where the process came from
        depends on the law of its starts, which is known by the sample `x0` alone.

        Parameters
        ----------
        x1 : array_like, shape (m, d)
            Ends.
        x0 : array_like, shape (n, d)
            A sample of the starts, at least one.

        Returns
        -------
        ndarray, shape (m, n)
            Rows sum to 1.

        Raises
        ------
        ShapeError      if an argument is not a matrix of d columns, or ``x0`` is empty.
        NotFiniteError  if an argument is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.backward_weights([[2.0]], [[0.0], [1.0]]).round(3)
        array([[0.924, 0.076]])
        """
        ends = as_rows("x1", x1, self.dim)
        starts = as_rows("x0", x0, self.dim, least=1)
        return backward_weights(self._components, ends, starts)

    # --- draws ---

    @_takes_tensors
    def sample(self, x0: ArrayLike, *, n: int | None = None, rng: Rng = None) -> Array:
        """Draw ends, exactly.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.
        n : int, optional
            Draws from each start; None stands for one, without a dimension of its own.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        ndarray, shape (m, d) or (n, m, d)

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        DomainError     if ``n`` is not positive.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Notes
        -----
        Cost O(k d) a start for the weights, O(k + d) a draw.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.sample([[0.0], [1.0]], n=5, rng=0).shape
        (5, 2, 1)
        """
        return self.conditional(x0).sample(n=n, rng=rng)

    @_takes_tensors
    def sample_transition(
        self, x: ArrayLike, s: float, t: float, *, n: int | None = None, rng: Rng = None
    ) -> Array:
        """Draw places at time `t`, exactly, given those at an earlier time `s`.

        Parameters
        ----------
        x : array_like, shape (m, d)
            Where the process is at time `s`.
        s, t : float
            Times, 0 <= s < t <= horizon.
        n : int, optional
            Draws from each row; None stands for one, without a dimension of its own.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        ndarray, shape (m, d) or (n, m, d)

        Raises
        ------
        ShapeError      if ``x`` is not a matrix of d columns.
        DomainError     if a time is out of range, or ``s >= t``.
        NotFiniteError  if ``x`` is infinite or NaN somewhere.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.sample_transition([[0.0], [1.0]], 0.2, 0.7, rng=0).shape
        (2, 1)
        """
        return self.transition(x, s, t).sample(n=n, rng=rng)

    @_takes_tensors
    def sample_path(
        self, x0: ArrayLike, times: ArrayLike, *, n: int | None = None, rng: Rng = None
    ) -> Array:
        """Draw paths at the given times, exactly: an end, and a Brownian bridge to it.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.
        times : array_like, shape (l,)
            Increasing, in [0, horizon].
        n : int, optional
            Paths from each start; None stands for one, without a dimension of its own.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        ndarray, shape (m, l, d) or (n, m, l, d)

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns, or ``times`` not a vector.
        DomainError     if the times do not increase, or are out of range.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Notes
        -----
        Cost O(k d) a start for the weights, O(k + l d) a path. There is no step size, and no error
        of one.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> path = bridge.sample_path([[0.0]], [0.0, 0.5, 1.0], rng=0)
        >>> path[0, :, 0].round(1)
        array([0. , 1. , 2.4])
        """
        rows = as_rows("x0", x0, self.dim)
        steps = as_times("times", times, self.horizon)
        count = 1 if n is None else check_positive_int("n", n)
        paths = exact_paths(self._components, rows, steps, count, _rng.key(rng))
        return paths[0] if n is None else paths

    @_takes_tensors
    def sample_sde(
        self, x0: ArrayLike, n_steps: int, *, n: int | None = None, rng: Rng = None
    ) -> Array:
        """Draw ends by Euler and Maruyama's steps, for comparison with `sample`, which is exact.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Where the process starts.
        n_steps : int
            Equal steps over [0, horizon].
        n : int, optional
            Draws from each start; None stands for one, without a dimension of its own.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        ndarray, shape (m, d) or (n, m, d)

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        DomainError     if ``n_steps`` or ``n`` is not positive.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Notes
        -----
        The law is off by O(1 / n_steps). Cost O(k d) a step and a draw.

        Examples
        --------
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> bridge.sample_sde([[0.0], [1.0]], 50, rng=0).shape
        (2, 1)
        """
        rows = as_rows("x0", x0, self.dim)
        n_steps = check_positive_int("n_steps", n_steps)
        count = 1 if n is None else check_positive_int("n", n)
        generator = np.random.default_rng(_rng.key(rng))
        starts = np.tile(rows.astype(np.float64), (count, 1))
        ends = euler_maruyama(self._components, starts, n_steps, generator)
        found = ends.astype(rows.dtype, copy=False)
        return found if n is None else found.reshape(count, *rows.shape)

    # --- torch ---

    def to_torch(self) -> TorchBridge:
        """Return the bridge as a module of torch, with parameters to train.

        Returns
        -------
        TorchBridge
            A ``torch.nn.Module`` with the same methods, on the CPU and in float64 at first; they
            are differentiable in rows, times and parameters, to any order. Its ``to_bridge()``
            leads back.

        Raises
        ------
        MissingDependencyError  if torch is not installed.

        Examples
        --------
        >>> import torch
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> module = bridge.to_torch()
        >>> module.mean(torch.tensor([[1.0]])).sum().backward()
        >>> {name: float(p.grad) for name, p in module.named_parameters()}
        {'log_weights': 0.0, 'offsets': 1.0, 'log_scales': 0.5}
        """
        try:
            from pyprobe.transport._bridge_torch import TorchBridge
        except ImportError as error:
            raise MissingDependencyError(
                "LightSchrodingerBridge.to_torch needs PyTorch: pip install 'pyprobe-rs[torch]'"
            ) from error
        return TorchBridge(self)

    # --- files ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bridge to `path`, an npz file without pickled objects.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from pyprobe.transport import LightSchrodingerBridge
        >>> bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "bridge.npz")
        ...     bridge.save(path)
        ...     LightSchrodingerBridge.load(path)
        LightSchrodingerBridge(n_components=1, dim=1, epsilon=0.1, scales='spherical')
        """
        fields = {name: getattr(self, name) for name in _SAVED}
        _io.save(path, _KIND, fields | _io.fields_of("info", self.info))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a bridge that `save` wrote.

        Raises
        ------
        DomainError  if the file is not one of those, or of a newer format.
        """
        fields = _io.load(path, _KIND)
        value = object.__new__(cls)
        info = _io.record_of("info", BridgeFit, fields)
        value.__setstate__({**{name: fields[name] for name in _SAVED}, "info": info})
        return value

    # --- shared ---

    @cached_property
    def _components(self) -> Components:
        """The components in their eigenbases, over a horizon of 1."""
        assert self.origin is not None  # filled in when the value was made
        return Components.of(
            self.log_weights,
            self.shifts,
            self.scales,
            self.epsilon * self.horizon,
            self.origin,
        )


_SAVED = ("log_weights", "shifts", "scales", "epsilon", "horizon", "origin")


def _check_solver(solver: str, covariance: str) -> None:
    check_choice("solver", solver, SOLVERS)
    if solver == "matching" and covariance == "full":
        raise DomainError(
            "'solver' must not be 'matching' with full scales; take covariance='diag' or "
            "'spherical', or another solver."
        )


def _as_start(
    start: str | LightSchrodingerBridge,
    n_components: int | None,
    n_init: int,
    covariance: str,
    dim: int,
    strength: float,
) -> tuple[str | Fitted, int | None]:
    """Return where a fit begins, and how many components there are, which a bridge settles."""
    if not isinstance(start, LightSchrodingerBridge):
        check_choice("start", start, ("auto", *STARTS, "annealed"))
        return start, n_components
    if n_init > 1:
        raise DomainError(
            f"'n_init' must be 1 where 'start' is a bridge, which draws nothing; got {n_init}."
        )
    given = _components_of(start, covariance, dim, strength)
    n_given = len(given.shifts)
    if n_components is None:
        n_components = n_given
    if n_components != n_given:
        raise DomainError(
            f"'n_components' must be {n_given}, as 'start' has them; got {n_components}. Leave it "
            "out."
        )
    return given, n_components


def _components_of(
    bridge: LightSchrodingerBridge, covariance: str, dim: int, strength: float
) -> Fitted:
    """Return a bridge's components with weights, for noise of another strength."""
    if bridge.dim != dim:
        raise ShapeError(
            f"'start' must have the dimension of the samples, {dim}; got one of {bridge.dim}."
        )
    ranks = {name: rank for rank, name in _KINDS.items()}
    if bridge.scales.ndim > ranks[covariance]:
        form = _KINDS[bridge.scales.ndim]
        raise DomainError(
            f"'start' must have scales of the form of 'covariance', {covariance!r}, or a simpler "
            f"one; got {form!r}. Pass covariance={form!r}."
        )
    kept = bridge.log_weights > -np.inf
    scales = bridge.scales[kept]
    if scales.ndim < ranks[covariance] and scales.ndim == 1:
        scales = np.repeat(scales[:, None], dim, axis=1)
    if scales.ndim < ranks[covariance]:
        scales = scales[:, :, None] * np.eye(dim)
    # Components keep their maps, and their parts of the starts, if epsilon times the logarithms of
    # the weights stay as they are.
    weights = bridge.log_weights[kept] * (bridge.epsilon * bridge.horizon / strength)
    assert bridge.origin is not None  # filled in when the value was made
    return Fitted(weights, bridge.shifts[kept], scales, bridge.origin, None)


def _reports(
    callback: Callback | None,
) -> tuple[Callable[[int, float], bool], Callable[[int], None]]:
    """Return what is told of every step, and first of how many there are in all starts and fits."""
    report, steps = Reporter(callback, 0), itertools.count(1)

    def announced(most: int) -> None:
        report.total = most

    return lambda _iteration, value: report(next(steps), value), announced
