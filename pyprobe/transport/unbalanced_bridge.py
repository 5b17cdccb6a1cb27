r"""Unbalanced entropic transport between two samples, as a model in closed form.

Where the two samples hold different things in different shares, or things that have no business
being moved, a plan that must move everything moves it to the wrong place. Here the plan may leave
mass behind at a price (Gazdieva et al. 2024):

.. math:: \min_\pi \int \tfrac12 |x_0 - x_1|^2 d\pi
    + \varepsilon T\, \mathrm{KL}(\pi | p_0 \otimes p_1)
    + \rho_0\, \mathrm{KL}(\pi_0 | p_0) + \rho_1\, \mathrm{KL}(\pi_1 | p_1) ,

with the marginals :math:`\pi_0` and :math:`\pi_1` of the plan. Given where it starts, mass goes as
in a balanced problem: :math:`\pi(x_1 | x_0)` is a `LightSchrodingerBridge`. How much of each start
and of each end takes part follows from the same potential.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, ParamSpec, Self, TypeVar

import numpy as np

from pyprobe import _io, _rng
from pyprobe._engine import Engine, select
from pyprobe._validate import (
    check_callback,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe.progress import Callback, Reporter
from pyprobe.transport._bridge_checks import (
    as_count,
    check_extent,
    check_mass,
    check_strength,
    warn_of_constants,
    warn_of_plan,
)
from pyprobe.transport._bridge_fit import KINDS, STARTS, Options, held_out_rows
from pyprobe.transport._bridge_input import as_fraction, as_rows, as_samples
from pyprobe.transport._check import as_penalties
from pyprobe.transport._components import Vector
from pyprobe.transport._in_kind import in_kind
from pyprobe.transport._unbalanced_fit import UnbalancedFit, fit
from pyprobe.transport.bridge import LightSchrodingerBridge
from pyprobe.transport.gaussian_mixture import GaussianMixtureBatch
from pyprobe.typing import Array, ArrayLike, FloatArray, Rng

__all__ = ["LightUnbalancedBridge"]

_KIND = "LightUnbalancedBridge"
_P = ParamSpec("_P")
_R = TypeVar("_R")
_ROWS = ("x0", "x1", "among")


@dataclass(frozen=True, eq=False, repr=False)
class Mixture(_io.Frozen):
    """A Gaussian mixture: log-weights (k,), means (k, d), covariances (k, d) or (k, d, d)."""

    log_weights: Vector
    locs: Vector
    covariances: Vector

    def __post_init__(self) -> None:
        for array in (self.log_weights, self.locs, self.covariances):
            array.flags.writeable = False

    @cached_property
    def law(self) -> GaussianMixtureBatch:
        """The mixture as a batch of one."""
        # Where a bridge without tilt goes from its origin.
        origin = np.exp(self.log_weights) @ self.locs
        bridge = LightSchrodingerBridge(
            log_weights=self.log_weights,
            shifts=self.locs,
            scales=self.covariances,
            epsilon=1.0,
            origin=origin,
        )
        return bridge.conditional(origin[None])


def _takes_tensors(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a method of rows take tensors on the CPU too, without gradients, and answer in kind."""
    return in_kind(method, _ROWS, _on_tensors)


def _on_tensors(method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    import torch

    from pyprobe.transport import _torch

    rows = {name: arguments[name] for name in _ROWS if name in arguments}
    views = _torch.views(f"LightUnbalancedBridge.{method.__name__}", **rows)
    found = method(**(arguments | dict(zip(rows, views, strict=True))))
    return torch.from_numpy(found) if isinstance(found, np.ndarray) else found


@dataclass(frozen=True, eq=False, repr=False, init=False)
class LightUnbalancedBridge(_io.Frozen):
    r"""An unbalanced entropic plan between two samples, fitted as Gaussian mixtures.

    Made by `fit` and by `load`. The value is immutable.

    Attributes
    ----------
    bridge : LightSchrodingerBridge
        Where mass goes from a start, with all that bridges offer: laws, paths, drift.
    unbalanced : tuple of float
        The penalties :math:`\rho_0` and :math:`\rho_1` of the starts and of the ends, in the unit
        of the coordinates squared; infinite where a side is exact.
    mass : float
        Mass of the plan; that of either sample is 1.
    starts : GaussianMixtureBatch
        The law of the starts that take part: the left marginal of the plan over its mass.
    n_components, dim, epsilon, horizon
        Those of the bridge.
    info : UnbalancedFit or None
        How the fit went.

    Notes
    -----
    The cost is :math:`|x_0 - x_1|^2 / 2`. For the squared distance without the half, as in
    `sinkhorn_points`, ``epsilon`` is :math:`2 \varepsilon T`, ``unbalanced`` is :math:`2 \rho`, and
    potentials and values are twice those given here. Masses, weights and plans are the same.

    Samples and rows may be torch tensors on the CPU that want no gradient; results are tensors
    then. Laws (`conditional`, `starts`) are for arrays. `sample` and the methods of ``bridge`` take
    tensors as those of any bridge do, on any device and with gradients, and ``bridge.to_torch()``
    has the laws for them.

    References
    ----------
    .. [1] M. Gazdieva, A. Asadulaev, E. Burnaev and A. Korotin, "Light unbalanced optimal
       transport", NeurIPS 2024, arXiv:2303.07988.

    Examples
    --------
    Two groups on either side, in different shares: each start goes to the group across from it, and
    those of which there are too many take part less.

    >>> import numpy as np
    >>> from pyprobe.transport import LightUnbalancedBridge
    >>> rng = np.random.default_rng(0)
    >>> groups = np.array([[-4.0, 0.0], [4.0, 0.0]])
    >>> first = rng.choice(2, 2000, p=[0.25, 0.75])
    >>> second = rng.choice(2, 2000, p=[0.75, 0.25])
    >>> x0 = groups[first] + 0.4 * rng.normal(size=(2000, 2))
    >>> x1 = groups[second] + [0.0, 1.0] + 0.4 * rng.normal(size=(2000, 2))
    >>> plan = LightUnbalancedBridge.fit(
    ...     x0, x1, epsilon=0.1, unbalanced=2.0, n_components=4, rng=0
    ... )
    >>> weights = plan.start_weights(x0)
    >>> round(float(weights[first == 0].mean() / weights[first == 1].mean()))
    3
    >>> moved = plan.sample(x0, rng=0)
    >>> bool((np.sign(moved[:, 0]) == np.sign(x0[:, 0])).all())
    True
    """

    bridge: LightSchrodingerBridge
    unbalanced: tuple[float, float]
    mass: float
    info: UnbalancedFit | None
    _log_scale: float
    _starts: Mixture
    _ends: Mixture

    def __init__(self) -> None:
        raise TypeError(
            "LightUnbalancedBridge has no parameters to be made from: take "
            "LightUnbalancedBridge.fit(x0, x1, ...) or LightUnbalancedBridge.load(path)."
        )

    @classmethod
    def _of(cls, **fields: Any) -> Self:
        value = object.__new__(cls)
        value.__setstate__(fields)
        return value

    def __repr__(self) -> str:
        penalties = ", ".join(f"{penalty:.6g}" for penalty in self.unbalanced)
        return (
            f"LightUnbalancedBridge(n_components={self.n_components}, dim={self.dim}, "
            f"epsilon={self.epsilon:.6g}, unbalanced=({penalties}), mass={self.mass:.4g})"
        )

    @classmethod
    def fit(
        cls,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        epsilon: float,
        unbalanced: float | tuple[float | None, float | None],
        n_components: int = 50,
        n_source_components: int | None = None,
        covariance: Literal["diag", "full", "spherical"] = "diag",
        start: Literal["auto", "broad", "kmeans"] = "auto",
        weights_x0: ArrayLike | None = None,
        weights_x1: ArrayLike | None = None,
        horizon: float = 1.0,
        validation_fraction: float = 0.1,
        max_iter: int = 300,
        tol: float = 1e-5,
        rng: Rng = None,
        callback: Callback | None = None,
    ) -> Self:
        r"""Fit a plan to a sample of starts and one of ends, which need not be paired.

        Parameters
        ----------
        x0 : array_like, shape (n, d)
            Starts, at least 2.
        x1 : array_like, shape (m, d)
            Ends, at least 2.
        epsilon : float
            Variance of the noise per unit of time; see `suggest_epsilon`.
        unbalanced : float or pair
            Penalties :math:`\rho` on the divergences of the plan's marginals from the samples, as
            in `sinkhorn`, in the unit of the coordinates squared: of a lonely pair at a distance r
            a share of about :math:`e^{-r^2 / 4 \rho}` is carried. A pair gives each side its own;
            None or infinity keeps a side exact.
        n_components : int, default 50
            Components of the potential, at most as many as ends are fitted, less those held out.
        n_source_components : int, optional
            Components of the mixture for the starts that take part; default `n_components`, or a
            tenth of the starts where that is less.
        covariance : {"diag", "full", "spherical"}
            Form of the components' scales and covariances.
        start : {"auto", "broad", "kmeans"}
            Where the fit begins, as in `LightSchrodingerBridge.fit`.
        weights_x0, weights_x1 : array_like, shapes (n,) and (m,), optional
            Nonnegative weights of the rows; default equal. Only their proportions matter.
        horizon : float, default 1
            T, when the ends are reached.
        validation_fraction : float, default 0.1
            Part of either sample that is held out, at least a row. The fit ends where the loss on
            it has ceased to fall, and returns the plan with the lowest. 0 fits all rows to `tol`.
        max_iter : int, default 300
            The most iterations.
        tol : float, default 1e-5
            Mean fall of the loss over five iterations, in nats an iteration, below which the fit
            ends.
        rng : None, int, numpy.random.Generator or torch.Generator
            Seed or source of the starts and of the rows held out.
        callback : callable, optional
            Called with a `pyprobe.progress.Progress` after every iteration, whose value is the
            loss; returning ``True`` ends the fit with the best plan so far.

        Returns
        -------
        LightUnbalancedBridge
            Its ``info`` says how the fit went.

        Raises
        ------
        ShapeError      if the samples do not fit one another, or are too small.
        DomainError     if a number is out of range or an option is unknown, or if distances or the
                        mass of the plan overflow.
        NotFiniteError  if a sample is infinite or NaN somewhere.

        Warns
        -----
        ConvergenceWarning  if the loss still falls after `max_iter` iterations.
        NumericalWarning    if `epsilon` is far off the scale of the data, if a column does not
                            vary, if the plan rests on a few rows or carries far more than there
                            is, or if components have shrunk onto single points.

        Notes
        -----
        The dual is maximized by L-BFGS over the mixture of the potential, with its optimum over the
        potential of the starts and over the constant that the two share put in. As in the balanced
        problem this asks for no density of the starts. That of the ends is needed where their side
        is penalized, since a potential of theirs is a ratio of densities: a mixture of
        `n_components` is fitted to them for it, and what that is off, times :math:`\varepsilon`,
        counts as a cost of the end. The published method takes the entropy against the volume
        instead, so that the mass it carries depends on the unit of the coordinates; the
        entropy here is that of `sinkhorn`.

        Moving both samples together changes nothing. Moving one of them alone, which a balanced
        problem hardly notices, changes the price of every way, and so how much is carried. Scaling
        both by s goes with scaling `epsilon` and `unbalanced` by :math:`s^2`.

        An iteration costs O((n + m) k d) operations, with full scales O((n + m) k d^2 + k d^3). The
        start comes from Sinkhorn's iteration on some of the rows and from a balanced fit to what
        that carries.

        References
        ----------
        .. [1] M. Gazdieva, A. Asadulaev, E. Burnaev and A. Korotin, "Light unbalanced optimal
           transport", NeurIPS 2024, arXiv:2303.07988.
        .. [2] H. Janati, B. Muzellec, G. Peyré and M. Cuturi, "Entropic optimal transport between
           unbalanced Gaussian measures has a closed form", NeurIPS 2020: what a single component
           finds.

        Examples
        --------
        Outliers among the starts stay behind.

        >>> import numpy as np
        >>> from pyprobe.transport import LightUnbalancedBridge
        >>> rng = np.random.default_rng(0)
        >>> x0, x1 = rng.normal(size=(1000, 2)), rng.normal([1.0, 0.0], 0.5, (1000, 2))
        >>> x0[:50] += [20.0, 0.0]
        >>> plan = LightUnbalancedBridge.fit(
        ...     x0, x1, epsilon=0.1, unbalanced=3.0, n_components=5, rng=0
        ... )
        >>> plan.info.converged
        True
        >>> bool(plan.start_weights(x0[:50]).max() < 1e-4)
        True
        """
        sources, targets = as_samples("LightUnbalancedBridge.fit", x0, x1, weights_x0, weights_x1)
        epsilon = check_positive_float("epsilon", epsilon)
        horizon = check_positive_float("horizon", horizon)
        penalties = as_penalties(unbalanced)
        check_choice("covariance", covariance, tuple(KINDS))
        check_choice("start", start, ("auto", *STARTS))
        fraction = as_fraction(validation_fraction)
        n_starts, n_ends = (
            n - held_out_rows(n, fraction) for n in map(len, (sources.points, targets.points))
        )
        n_components = as_count("n_components", n_components, n_ends, "x1")
        if n_source_components is None:
            n_source_components = max(1, min(n_components, n_starts // 10))
        n_source_components = as_count("n_source_components", n_source_components, n_starts, "x0")
        max_iter = check_positive_int("max_iter", max_iter)
        tol = check_positive_float("tol", tol, allow_zero=True)
        check_callback("callback", callback)
        check_extent(epsilon * horizon, sources, targets)
        check_strength(epsilon * horizon, sources, targets)
        warn_of_constants(sources, targets)

        found = fit(
            sources,
            targets,
            epsilon=epsilon * horizon,
            penalties=penalties,
            n_components=n_components,
            n_source_components=n_source_components,
            covariance=covariance,
            start=start,
            validation_fraction=fraction,
            options=Options(max_iter, tol, Reporter(callback, max_iter)),
            rng=np.random.default_rng(_rng.key(rng)),
        )
        check_mass(found.mass)
        warn_of_plan(found.info, sources.size, targets.size)
        return cls._of(
            bridge=LightSchrodingerBridge(
                log_weights=found.log_weights,
                shifts=found.shifts,
                scales=found.scales,
                epsilon=epsilon,
                horizon=horizon,
                origin=found.origin,
            ),
            unbalanced=penalties,
            mass=found.mass,
            info=found.info,
            _log_scale=found.log_scale,
            _starts=Mixture(*found.starts),
            _ends=Mixture(*found.ends),
        )

    @property
    def n_components(self) -> int:
        """k, the number of components of the potential."""
        return self.bridge.n_components

    @property
    def dim(self) -> int:
        """d, the dimension of the space."""
        return self.bridge.dim

    @property
    def epsilon(self) -> float:
        """The variance of the noise per unit of time."""
        return self.bridge.epsilon

    @property
    def horizon(self) -> float:
        """T; times run over [0, T]."""
        return self.bridge.horizon

    @property
    def starts(self) -> GaussianMixtureBatch:
        """The law of the starts that take part: a mixture, as a batch of one."""
        return self._starts.law

    # --- how much takes part ---

    @_takes_tensors
    def start_weights(self, x0: ArrayLike) -> Array:
        r"""Return how much of each start takes part: the density ratio :math:`d\pi_0 / dp_0`.

        :math:`e^{-f(x_0) / \rho_0}`, with the potential f. It may exceed 1: where there are few
        starts for the ends nearby, each counts for several.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Starts, from the sample or not.

        Returns
        -------
        ndarray, shape (m,)
            Nonnegative; their mean over the law of the starts is `mass`. All 1 where the starts'
            side is exact.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.transport import LightUnbalancedBridge
        >>> x0, x1 = np.random.default_rng(0).normal(size=(2, 1000, 1))
        >>> plan = LightUnbalancedBridge.fit(
        ...     x0, x1 + 3.0, epsilon=0.1, unbalanced=4.0, n_components=1, rng=0
        ... )
        >>> weights = plan.start_weights([[-1.0], [1.0]])  # nearer is cheaper
        >>> bool(weights[0] < plan.mass < weights[1])
        True
        """
        rows = as_rows("x0", x0, self.dim)
        exponents, penalty = self._start_exponents(rows), self._penalties[0]
        return _weights(exponents, penalty).astype(rows.dtype, copy=False)

    @_takes_tensors
    def end_weights(self, x1: ArrayLike) -> Array:
        r"""Return how much of each end takes part: the density ratio :math:`d\pi_1 / dp_1`.

        :math:`e^{-g(x_1) / \rho_1}`, with the potential g.

        Parameters
        ----------
        x1 : array_like, shape (m, d)
            Ends, from the sample or not.

        Returns
        -------
        ndarray, shape (m,)
            Nonnegative; their mean over the law of the ends is `mass`. All 1 where the ends' side
            is exact.

        Raises
        ------
        ShapeError      if ``x1`` is not a matrix of d columns.
        NotFiniteError  if ``x1`` is infinite or NaN somewhere.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.transport import LightUnbalancedBridge
        >>> x0, x1 = np.random.default_rng(0).normal(size=(2, 1000, 1))
        >>> plan = LightUnbalancedBridge.fit(
        ...     x0, x1, epsilon=0.1, unbalanced=(4.0, None), n_components=1, rng=0
        ... )
        >>> plan.end_weights([[0.0], [2.0]])
        array([1., 1.])
        """
        rows = as_rows("x1", x1, self.dim)
        exponents, penalty = self._end_exponents(rows), self._penalties[1]
        return _weights(exponents, penalty).astype(rows.dtype, copy=False)

    @_takes_tensors
    def start_potential(self, x0: ArrayLike) -> Array:
        r"""Return the potential f of the starts, in the unit of the cost.

        The plan is :math:`p_0(x_0)\, q(x_1)\, e^{(f(x_0) + g(x_1) - |x_0 - x_1|^2 / 2) /
        \varepsilon T}`, with a density q of the ends. Half that of `sinkhorn_points`.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Starts.

        Returns
        -------
        ndarray, shape (m,)

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.
        """
        rows = as_rows("x0", x0, self.dim)
        rho, strength = self.unbalanced[0], self.epsilon * self.horizon
        share = 1.0 if rho == math.inf else rho / (rho + strength)
        return (-share * strength * self._start_exponents(rows)).astype(rows.dtype, copy=False)

    @_takes_tensors
    def end_potential(self, x1: ArrayLike) -> Array:
        r"""Return the potential g of the ends, in the unit of the cost.

        Parameters
        ----------
        x1 : array_like, shape (m, d)
            Ends.

        Returns
        -------
        ndarray, shape (m,)

        Raises
        ------
        ShapeError      if ``x1`` is not a matrix of d columns.
        NotFiniteError  if ``x1`` is infinite or NaN somewhere.
        """
        rows = as_rows("x1", x1, self.dim)
        strength = self.epsilon * self.horizon
        return (-strength * self._end_exponents(rows)).astype(rows.dtype, copy=False)

    @_takes_tensors
    def score(self, x0: ArrayLike, x1: ArrayLike) -> float:
        r"""Return the dual objective on two samples: higher is better.

        .. math:: -\rho_0\, E[e^{-f(x_0) / \rho_0} - 1] - \rho_1\, E[e^{-g(x_1) / \rho_1} - 1]
            - \varepsilon T (m - 1) ,

        with the mass m of the plan on the starts given: on average a lower bound of the cost of
        the best plan, and equal to it where the plan is the best. Half that of `sinkhorn_points`.

        Parameters
        ----------
        x0 : array_like, shape (n, d)
            Starts.
        x1 : array_like, shape (m, d)
            Ends; they need not be paired with the starts.

        Returns
        -------
        float
            In the unit of the cost, that of the coordinates squared.

        Raises
        ------
        ShapeError      if an argument is not a matrix of d columns, or is empty.
        NotFiniteError  if an argument is infinite or NaN somewhere.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.transport import LightUnbalancedBridge, sinkhorn_points
        >>> x0, x1 = np.random.default_rng(0).normal(size=(2, 1000, 1))
        >>> plan = LightUnbalancedBridge.fit(
        ...     x0, x1 + 1.0, epsilon=0.5, unbalanced=2.0, n_components=1, rng=0
        ... )
        >>> exact = sinkhorn_points(x0, x1 + 1.0, epsilon=1.0, unbalanced=4.0).value / 2
        >>> abs(plan.score(x0, x1 + 1.0) - exact) < 0.01
        True
        """
        starts = as_rows("x0", x0, self.dim, least=1)
        ends = as_rows("x1", x1, self.dim, least=1)
        gain = 0.0
        for exponents, penalty in zip(
            (self._start_exponents(starts), self._end_exponents(ends)), self._penalties, strict=True
        ):
            if penalty < math.inf:
                with np.errstate(over="ignore"):  # minus infinity is the value
                    exponents = penalty * np.expm1(exponents / penalty)
            gain -= float(exponents.mean())
        return self.epsilon * self.horizon * gain

    # --- laws and draws ---

    def conditional(self, x0: ArrayLike) -> GaussianMixtureBatch:
        """Return the laws of the end of what takes part, given the start.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Starts.

        Returns
        -------
        GaussianMixtureBatch
            A mixture for each row of `x0`, as ``bridge.conditional``.

        Raises
        ------
        ShapeError      if ``x0`` is not a matrix of d columns.
        NotFiniteError  if ``x0`` is infinite or NaN somewhere.
        TypeError       if ``x0`` is a tensor.
        """
        if select(x0) is not Engine.NATIVE:
            raise TypeError(
                "'x0' must be a NumPy array here; got a torch tensor. Pass x0.numpy(force=True), "
                "or take bridge.to_torch().conditional(x0) of this plan."
            )
        return self.bridge.conditional(x0)

    def sample(self, x0: ArrayLike, *, n: int | None = None, rng: Rng = None) -> Array:
        """Draw ends of given starts, as if each took part.

        For the starts of the plan itself see `sample_starts`.

        Parameters
        ----------
        x0 : array_like, shape (m, d)
            Starts.
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
        """
        return self.bridge.sample(x0, n=n, rng=rng)

    @_takes_tensors
    def sample_starts(self, n: int, *, among: ArrayLike | None = None, rng: Rng = None) -> Array:
        """Draw starts that take part: new ones, or some of those given.

        Parameters
        ----------
        n : int
            Draws.
        among : array_like, shape (m, d), optional
            Starts of which rows are drawn, again and again, in proportion to their weights; by
            default new starts are drawn from the mixture `starts`.
        rng : int, Generator or None
            Seed of the draws.

        Returns
        -------
        ndarray, shape (n, d)

        Raises
        ------
        ShapeError      if ``among`` is not a matrix of d columns, or is empty.
        DomainError     if ``n`` is not positive.
        NotFiniteError  if ``among`` is infinite or NaN somewhere.

        Examples
        --------
        Draws of the whole plan: starts, and an end for each.

        >>> import numpy as np
        >>> from pyprobe.transport import LightUnbalancedBridge
        >>> x0, x1 = np.random.default_rng(0).normal(size=(2, 1000, 1))
        >>> plan = LightUnbalancedBridge.fit(
        ...     x0, x1 + 3.0, epsilon=0.1, unbalanced=4.0, n_components=1, rng=0
        ... )
        >>> starts = plan.sample_starts(2000, rng=0)
        >>> ends = plan.sample(starts, rng=1)
        >>> bool(x0.mean() + 0.3 < starts.mean() < ends.mean() < x1.mean() + 2.7)
        True
        """
        n = check_positive_int("n", n)
        if among is None:
            return self.starts.sample(n=n, rng=rng)[:, 0]
        rows = as_rows("among", among, self.dim, least=1)
        scaled = self._start_exponents(rows) / self._penalties[0]
        shares = np.exp(scaled - scaled.max())
        generator = np.random.default_rng(_rng.key(rng))
        drawn: FloatArray = rows[generator.choice(len(rows), n, p=shares / shares.sum())]
        return drawn

    # --- files ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to `path`, an npz file without pickled objects.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from pyprobe.transport import LightUnbalancedBridge
        >>> x0, x1 = np.random.default_rng(0).normal(size=(2, 500, 1))
        >>> plan = LightUnbalancedBridge.fit(
        ...     x0, x1, epsilon=0.1, unbalanced=(None, 4.0), n_components=1, rng=0
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "plan.npz")
        ...     plan.save(path)
        ...     LightUnbalancedBridge.load(path)
        LightUnbalancedBridge(n_components=1, dim=1, epsilon=0.1, unbalanced=(inf, 4), mass=1)
        """
        fields = {name: getattr(self.bridge, name) for name in _BRIDGE}
        for side, mixture in (("start", self._starts), ("end", self._ends)):
            fields |= {f"{side}_{name}": getattr(mixture, name) for name in _MIXTURE}
        numbers = np.array([*self.unbalanced, self.mass, self._log_scale])
        fields |= _io.fields_of("info", self.info)
        _io.save(path, _KIND, {**fields, "numbers": numbers})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan that `save` wrote.

        Raises
        ------
        DomainError  if the file is not one of those, or of a newer format.
        """
        fields = _io.load(path, _KIND)
        bridge = object.__new__(LightSchrodingerBridge)
        bridge.__setstate__({**{name: fields[name] for name in _BRIDGE}, "info": None})
        starts, ends = (
            Mixture(**{name: fields[f"{side}_{name}"] for name in _MIXTURE})
            for side in ("start", "end")
        )
        first, second, mass, log_scale = map(float, fields["numbers"])
        return cls._of(
            bridge=bridge,
            unbalanced=(first, second),
            mass=mass,
            info=_io.record_of("info", UnbalancedFit, fields),
            _log_scale=log_scale,
            _starts=starts,
            _ends=ends,
        )

    # --- shared ---

    @property
    def _penalties(self) -> tuple[float, float]:
        """What the exponents of starts and ends are divided by to give log-weights."""
        strength = self.epsilon * self.horizon
        return self.unbalanced[0] / strength + 1, self.unbalanced[1] / strength

    def _start_exponents(self, rows: FloatArray) -> Vector:
        """Return the logarithms of what the starts could bring to the ends, in nats."""
        places = rows.astype(np.float64, copy=False)
        log_volume = self.dim / 2 * math.log(2 * math.pi * self.epsilon * self.horizon)
        log_phi = np.asarray(self.bridge.log_phi(places, 0.0), dtype=np.float64)
        return log_phi + (self._log_scale + log_volume)

    def _end_exponents(self, rows: FloatArray) -> Vector:
        """Return minus the potential of the ends over the noise, in nats."""
        places = rows.astype(np.float64, copy=False)
        assert self.bridge.origin is not None  # filled in when the bridge was made
        squares = ((places - self.bridge.origin) ** 2).sum(axis=1) / (
            2 * self.epsilon * self.horizon
        )
        log_potential = np.asarray(self.bridge.log_potential(places), dtype=np.float64)
        gain = log_potential + squares + self._log_scale
        exponents: Vector = self._ends.law.log_prob(places[:, None])[:, 0] - gain
        return exponents


_BRIDGE = ("log_weights", "shifts", "scales", "epsilon", "horizon", "origin")
_MIXTURE = ("log_weights", "locs", "covariances")


def _weights(exponents: Vector, penalty: float) -> Vector:
    if penalty == math.inf:
        return np.ones_like(exponents)
    with np.errstate(over="ignore"):  # far from all that was seen
        return np.exp(exponents / penalty)
