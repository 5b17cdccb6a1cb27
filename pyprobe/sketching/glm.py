r"""Coresets of Bayesian generalized linear models: a few weighted rows, and sums over the rest.

With the natural link the log-likelihood is

.. math::
   L(\theta) = \sum_i y_i \eta_i - A(\eta_i) + c(y_i), \quad \eta_i = x_i \cdot \theta + o_i.

A weighted sample of rows alone is a poor stand-in for a posterior: though unbiased, it moves the
mean by about :math:`\sqrt{n / m}` posterior standard deviations. So the sample is only asked for
what a quadratic leaves over:

.. math::
   \hat L(\theta) = L_0 + g_0 \cdot \delta + \tfrac12 \delta \cdot H_0 \delta
      + \sum_{i \in S} \frac{r_i(x_i \cdot \delta)}{p_i}, \qquad
   r_i(t) = -\bigl(A(\eta_i + t) - A - A' t - \tfrac12 A'' t^2\bigr),

where :math:`\delta = \theta - \theta_0` and :math:`L_0, g_0, H_0` are those of *all* rows at the
mode :math:`\theta_0`. It is exact to second order at the mode, and unbiased as far as every
remainder reaches: far off, where the sampled curvature might outweigh that of all rows, each goes
on along its tangent, so that the quadratic wins and the log-likelihood falls. Where rows have
weights of their own, each term of both sums is times the row's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pyprobe import _io, _rng
from pyprobe._engine import Engine, select
from pyprobe._validate import (
    as_float_array,
    check_bool,
    check_callback,
    check_choice,
    check_finite,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError, ShapeError
from pyprobe.progress import Callback, Reporter
from pyprobe.sketching._glm_check import (
    GLMCoresetCheck,
    compare,
    judge_draws,
    posterior_draws,
)
from pyprobe.sketching._glm_data import (
    FAMILIES,
    Data,
    Vector,
    as_data,
    as_precision,
    cells,
    cumulant,
    tamed_cumulant,
)
from pyprobe.sketching._glm_fit import (
    MAX_ITER,
    Mode,
    find_mode,
    precision_factor,
    pulls,
    remainders,
)
from pyprobe.sketching._glm_sample import check_plain, draw_rows, guarded, loss_scores
from pyprobe.sketching._input import array_of
from pyprobe.typing import Array, ArrayLike, FloatArray, Rng

if TYPE_CHECKING:
    import scipy.sparse
    from torch import Tensor

__all__ = ["GLMCoreset", "GLMCoresetCheck", "GLMCoresetInfo"]

_KIND = "GLMCoreset"
_SAME = 1e-8  # of the terms of a log-likelihood: beyond their rounding
_REACH = 4.0, 20.0  # posterior standard deviations of eta, beyond the draws of a posterior


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GLMCoresetInfo:
    """How the fit of a coreset went, and what to expect of it.

    Attributes
    ----------
    converged : bool
        Whether Newton's method came within 1e-4 posterior standard deviations of the mode.
    n_iter : int
        Its steps.
    last_step : float
        Length of the last one, in posterior standard deviations.
    n_samples : int
        Rows asked for; the number that is drawn is random, this is its mean.
    expected_error : float
        How far the posterior mean is expected to be off, a root mean square over coordinates in
        posterior standard deviations; to leading order in the width of the posterior, over all
        draws of rows with the probabilities of this one.
    """

    converged: bool
    n_iter: int
    last_step: float
    n_samples: int
    expected_error: float


class _Polynomial(NamedTuple):
    """The log-likelihood is ``constant + slope . D + D' curvature D / 2 - sum_i w_i A(eta_i)``.

    D is theta less the center, and eta_i is given there.
    """

    constant: float
    slope: Vector
    curvature: Vector
    eta: Vector
    reach: Vector
    """How far each eta goes from here before A goes on along a parabola,"""
    tail: Vector
    """of this curvature."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GLMCoreset(_io.Frozen):
    r"""A small stand-in for the log-likelihood of a generalized linear model; made by `fit`.

    Attributes
    ----------
    family : {"logistic", "poisson", "gaussian"}
        The model.
    x : ndarray, shape (m, d)
        The rows drawn, dense, in the dtype of the data.
    y, offset, sample_weight : ndarray, shape (m,)
        Their responses, offsets and weights among the data.
    weights : ndarray, shape (m,)
        What each stands for: its ``sample_weight`` / (probability of being drawn).
    indices : ndarray, shape (m,)
        Where they stood among the data, in increasing order.
    n_rows : int
        n, the rows of the data.
    center : ndarray, shape (d,)
        :math:`\theta_0`, the mode of the full posterior.
    center_value, center_gradient, center_hessian : float, ndarray (d,) and ndarray (d, d)
        The log-likelihood of all rows there, with its derivatives.
    prior_precision : ndarray, shape (d, d)
        Of the Gaussian prior about 0 that took part in finding the mode. It is no part of the
        log-likelihood.
    control_variate : bool
        Whether the log-likelihood is that of the quadratic and the remainders of the rows, as a
        posterior needs; or the weighted sum over rows alone, for optimization.
    info : GLMCoresetInfo
        How the fit went.

    Notes
    -----
    The value is immutable. It holds m (d + 5) + 2 d^2 numbers, and no reference to the data. An
    evaluation costs O(m d + d^2), whatever n is.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import GLMCoreset
    >>> rng = np.random.default_rng(0)
    >>> x = np.column_stack([np.ones(20_000), rng.normal(size=(20_000, 3))])
    >>> y = rng.random(20_000) < 1 / (1 + np.exp(-x @ [-1.0, 0.5, 1.0, 0.0]))
    >>> coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=200, rng=0)
    >>> coreset.info.expected_error < 0.01
    True
    >>> coreset.check(x, y, rng=0).verdict
    'faithful'
    """

    family: str
    x: FloatArray
    y: Vector
    offset: Vector
    sample_weight: Vector
    weights: Vector
    indices: npt.NDArray[np.int64]
    n_rows: int
    center: Vector
    center_value: float
    center_gradient: Vector
    center_hessian: Vector
    prior_precision: Vector
    control_variate: bool
    info: GLMCoresetInfo

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def __repr__(self) -> str:
        plain = "" if self.control_variate else ", control_variate=False"
        return (
            f"GLMCoreset(family={self.family!r}, n_rows={self.n_rows}, kept={len(self.weights)}, "
            f"dim={self.dim}{plain})"
        )

    @property
    def dim(self) -> int:
        """d, the number of coefficients."""
        return len(self.center)

    @classmethod
    def fit(
        cls,
        x: ArrayLike | scipy.sparse.sparray | Sequence[Any] | Callable[[], Iterable[Any]],
        y: ArrayLike,
        *,
        family: Literal["logistic", "poisson", "gaussian"],
        n_samples: int,
        offset: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        prior_precision: ArrayLike = 0.0,
        control_variate: bool = True,
        rng: Rng = None,
        callback: Callback | None = None,
    ) -> Self:
        r"""Make a coreset of the data of a logistic, Poisson or Gaussian regression.

        Newton's method finds the mode of the full posterior. Each row is kept with a probability in
        proportion to the root mean square of its remainder :math:`r_i` over the Laplace
        approximation, at most 1; that makes the variance of the log-likelihood least. A fifth of
        the rows are drawn evenly, as a guard away from the mode.

        Parameters
        ----------
        x : array_like, SciPy sparse matrix or row chunks, shape (n, d)
            The rows. For an intercept, add a column of ones: none is added here. Chunks are a list
            or sequence of matrices, or a function that begins to read them anew: there are two
            passes a step, and 15 to 25 in all. An ``np.memmap`` is read in blocks, too; a Dask
            array or a data frame comes into memory as a whole.
        y : array_like, shape (n,)
            0 or 1 (``"logistic"``), counts (``"poisson"``, with the logarithmic link) or numbers
            (``"gaussian"``, with noise of variance 1).
        family : {"logistic", "poisson", "gaussian"}
            The model.
        n_samples : int
            Rows to keep, on average. All are kept, as they are, where it is n or more.
        offset : array_like, shape (n,), optional
            Added to x . theta, such as the logarithm of an exposure.
        sample_weight : array_like, shape (n,), optional
            How often each row counts: its log-likelihood is times that. Not negative, and not all
            zero; whole numbers are the same as rows that are repeated, and a row of weight 0 is as
            if it were not there. See the notes. Default: 1.
        prior_precision : float or array_like, shape () or (d,) or (d, d), default 0
            Precision of a Gaussian prior about 0, which decides only where the mode is and how wide
            the posterior; take that of your model, or nearly. It is needed where the data alone
            have no mode.
        control_variate : bool, default True
            With False, a plain weighted sample for *minimizing the loss*, by l1 Lewis weights and
            an even share (logistic; [2]_) or by leverage with the responses (Gaussian), which
            approximates it by a factor everywhere. **It is not for posteriors**, whose mean it
            moves by about :math:`\sqrt{n / m}` standard deviations; ``info.expected_error`` says
            how far.
        rng : None, int, numpy.random.Generator or torch.Generator
            Seed or source of the draw.
        callback : callable, optional
            Called with a `pyprobe.progress.Progress` after every step of Newton's method, whose
            value is the log-posterior; returning ``True`` expands where it has got to.

        Returns
        -------
        GLMCoreset
            Its ``info`` says how the fit went. A Gaussian log-likelihood is quadratic, so that its
            coreset with a control variate keeps no rows, and is exact.

        Raises
        ------
        ShapeError      if the shapes do not fit.
        TypeError       if `x` can be read only once; or for a plain sample of row chunks.
        DomainError     if a response is outside the family; if a weight is negative, or all are 0;
                        if there is no mode: for separable data or dependent columns without a
                        prior; for a plain sample of less than d rows, or of Poisson's family, where
                        it has no guarantee.
        NotFiniteError  if an argument is infinite or NaN somewhere.

        Warns
        -----
        ConvergenceWarning  if Newton's method makes 60 steps without coming close enough.

        Notes
        -----
        It is good where the posterior is near the mode: `check` says whether it is. Cost O(n d^2)
        for each step of Newton's method, of which there are 5 to 10, and memory for some vectors of
        length n; float32 and CSR rows are read in blocks, and computed with in float64. Of chunks
        one is in memory at a time, with what they are cut into: 2^20 numbers or 8 MB. Only a
        plain sample copies the rows, where responses or an offset go beside them, or weights. The
        draw is the same for any number of threads; the mode depends on those of NumPy's linear
        algebra in its last bits.

        Weights are numbers of observations: the posterior is as narrow as their sum makes it. Those
        of a survey, which sum to a population, should be scaled to sum to the size of the sample,
        or to what it is worth. A group with s successes in k trials is two rows of a logistic
        regression with the same x: y = 1 with the weight s, and y = 0 with the weight k - s. The
        logarithm of the binomial coefficient, a constant, is no part of the log-likelihood then.

        References
        ----------
        .. [1] M. Quiroz, R. Kohn, M. Villani and M.-N. Tran, "Speeding up MCMC by efficient data
           subsampling", JASA 114, 2019, arXiv:1404.4178.
        .. [2] T. Mai, C. Musco and A. Rao, "Coresets for classification - simplified and
           strengthened", NeurIPS 2021, arXiv:2106.04254.
        """
        check_choice("family", family, FAMILIES)
        n_samples = check_positive_int("n_samples", n_samples)
        control_variate = check_bool("control_variate", control_variate)
        check_callback("callback", callback)
        data = as_data(family, x, y, offset, sample_weight)
        precision = as_precision(prior_precision, data.shape[1])
        if not control_variate:
            check_plain(data, n_samples)
        key = _rng.key(rng)
        mode = find_mode(data, precision, Reporter(callback, MAX_ITER))
        squares = data.squares(mode.factor)
        if control_variate:
            sizes, pull = remainders(data, mode, squares)
            scores = guarded(sizes, n_samples, data.weight)
        else:
            pull, scores = pulls(data, mode, squares), loss_scores(data)
        indices, probabilities, unseen = draw_rows(scores, n_samples, key)
        expected = np.sqrt(unseen @ pull**2 / data.shape[1])
        return cls(
            family=family,
            x=data.rows(indices),
            y=data.y[indices],
            offset=data.offset[indices],
            sample_weight=data.weight[indices],
            weights=data.weight[indices] / probabilities,
            indices=indices,
            n_rows=data.shape[0],
            center=mode.theta,
            center_value=data.value(mode.eta),
            center_gradient=mode.gradient,
            center_hessian=mode.hessian,
            prior_precision=precision,
            control_variate=control_variate,
            info=_info(mode, n_samples, float(expected)),
        )

    def log_likelihood(self, theta: ArrayLike) -> Array:
        r"""Return the log-likelihood of all the data, as the coreset has it.

        Parameters
        ----------
        theta : array_like or torch.Tensor, shape (..., d)
            Coefficients, one vector or many. Tensors may lie on any device.

        Returns
        -------
        ndarray or torch.Tensor, shape (...)
            In nats, with all constants, in the library, dtype and device of `theta`; computed in
            float64. A log-likelihood is a large number: in float32 its differences drown.

        Raises
        ------
        ShapeError      if the last dimension is not d.
        NotFiniteError  if an array is infinite or NaN somewhere; tensors are not looked at.

        Notes
        -----
        Near the center it is the quadratic of all rows and the weighted remainders of those kept.
        From 4 to 20 posterior standard deviations of its eta on, the farther the less the
        `expected_error` is, a remainder goes on along its tangent; that of a row which was kept for
        certain does not, which is known and not estimated. So far off the quadratic wins: the
        log-likelihood goes to -inf in every direction in which that of all rows does, and a sampler
        finds its way back. But there it says little of the data: start samplers at ``center``.

        Cost O(m d + d^2) for each vector. Tensors: differentiable to any order, in reverse and
        forward mode, and under ``torch.func``; second derivatives jump where tangents begin. Of
        rows without an end the exponential of the Poisson family goes on along its tangent beyond
        eta = 500, so that values and gradients stay finite.

        Examples
        --------
        >>> import numpy as np
        >>> from pyprobe.sketching import GLMCoreset
        >>> x = np.linspace([1.0, -2.0], [1.0, 2.0], 500)
        >>> y = np.random.default_rng(0).poisson(np.exp(x @ [1.0, 0.5]))
        >>> coreset = GLMCoreset.fit(x, y, family="poisson", n_samples=50, rng=0)
        >>> coreset.log_likelihood(np.zeros((3, 4, 2))).shape
        (3, 4)
        """
        if select(theta, names=("theta",)) is not Engine.NATIVE:
            found: Tensor = _twin("log_likelihood")(self, theta)
            return found
        points, given = self._points(theta)
        constant, slope, curvature, *_ = self._polynomial
        values: Vector = constant + points @ slope + ((points @ curvature) * points).sum(axis=1) / 2
        for part in cells(len(points), len(self.weights)):
            values[part] -= self._cumulant(points[part], 0) @ self.weights
        return values.reshape(given.shape[:-1]).astype(given.dtype)

    def gradient(self, theta: ArrayLike) -> Array:
        """Return the gradient of `log_likelihood` in `theta`.

        Parameters
        ----------
        theta : array_like or torch.Tensor, shape (..., d)
            Coefficients.

        Returns
        -------
        ndarray or torch.Tensor, shape (..., d)
            As `log_likelihood` returns it; exact at the center.
        """
        if select(theta, names=("theta",)) is not Engine.NATIVE:
            found: Tensor = _twin("gradient")(self, theta)
            return found
        points, given = self._points(theta)
        _, slope, curvature, *_ = self._polynomial
        slopes = slope + points @ curvature
        for part in cells(len(points), len(self.weights)):
            slopes[part] -= (self._cumulant(points[part], 1) * self.weights) @ self._rows
        return slopes.reshape(given.shape).astype(given.dtype)

    def hessian(self, theta: ArrayLike) -> Array:
        """Return the Hessian of `log_likelihood` in `theta`.

        Parameters
        ----------
        theta : array_like or torch.Tensor, shape (..., d)
            Coefficients.

        Returns
        -------
        ndarray or torch.Tensor, shape (..., d, d)
            As `log_likelihood` returns it; exact at the center. Cost O(m d^2).
        """
        if select(theta, names=("theta",)) is not Engine.NATIVE:
            found: Tensor = _twin("hessian")(self, theta)
            return found
        points, given = self._points(theta)
        curvature = self._polynomial.curvature
        curvatures = np.empty((len(points), self.dim, self.dim))
        for i, point in enumerate(points):
            variance = self._cumulant(point, 2) * self.weights
            curvatures[i] = curvature - (self._rows * variance[:, None]).T @ self._rows
        return curvatures.reshape(*given.shape, self.dim).astype(given.dtype)

    def check(
        self,
        x: ArrayLike | scipy.sparse.sparray | Sequence[Any] | Callable[[], Iterable[Any]],
        y: ArrayLike,
        *,
        offset: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        draws: ArrayLike | None = None,
        n_draws: int = 100,
        rng: Rng = None,
    ) -> GLMCoresetCheck:
        r"""Compare the coreset's posterior with that of all the data, by importance weights.

        At draws from the coreset's posterior the log-likelihood of all rows is computed; its
        difference from the coreset's makes importance weights, the same for any prior. Equal ones
        mean equal posteriors. Whether draws that it is given are of that posterior it cannot know:
        it compares likelihoods where they are.

        Parameters
        ----------
        x, y, offset, sample_weight
            The data that the coreset was made of; it keeps no reference to them.
        draws : array_like, shape (k, d), optional
            Draws from the coreset's posterior, such as NUTS makes. Default: `n_draws`, for the
            prior of the fit, by resampling 50 times as many from a Student's t distribution about
            the mode.
        n_draws : int, default 100
            Draws to make, at least 10.
        rng : None, int, numpy.random.Generator or torch.Generator
            Seed or source of these.

        Returns
        -------
        GLMCoresetCheck
            Effective sample size, the shifts of means and widths, and a verdict.

        Raises
        ------
        DomainError     if the data are others than those of the fit, by the rows that were kept and
                        by the log-likelihood of all at the center.
                        Or if the draws given do not vary: in some coordinate their standard
                        deviation is less than 1e-3 of what Laplace's approximation has, with the
                        prior of the fit.
        ShapeError      if shapes do not fit, or there are less than 10 draws.
        NotFiniteError  if an argument is infinite or NaN somewhere.

        Warns
        -----
        NumericalWarning  if the draws given are unlike Laplace's approximation: in some coordinate
                          their mean is more than 2 of its standard deviations off the center, or
                          theirs is less than half or more than twice as large; or their distances
                          have a root mean square above 3. So are those of a sampler that has not
                          converged, or of a model whose prior moves or narrows them and was not
                          given to the fit. ``reason`` has the sentences too.

        Notes
        -----
        Cost O(n d) a draw; of chunks there are 4 passes.
        """
        data = as_data(self.family, x, y, offset, sample_weight)
        self._check_same(data)
        proposal, remark = 1.0, ""
        if draws is None:
            n_draws = check_positive_int("n_draws", n_draws, minimum=10)
            generator = np.random.default_rng(_rng.key(rng))
            thetas, proposal = posterior_draws(self, n_draws, generator)
        else:
            if hasattr(draws, "detach"):
                draws = array_of("draws", draws)
            points, given = self._points(draws, "draws")
            if given.ndim != 2 or len(points) < 10:
                raise ShapeError(
                    f"'draws' must have shape (k, {self.dim}) with k at least 10; got "
                    f"{given.shape}."
                )
            thetas = points + self.center
            remark = judge_draws(self, thetas)
        differences = data.values(thetas) - np.asarray(self.log_likelihood(thetas))
        return compare(thetas, differences, proposal, remark)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the coreset to `path`, as a NumPy archive without pickle.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from pyprobe.sketching import GLMCoreset
        >>> x, y = np.linspace([1.0, -1.0], [1.0, 1.0], 100), np.arange(100) // 7 % 2
        >>> coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=20, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "coreset.npz"
        ...     coreset.save(path)
        ...     again = GLMCoreset.load(path)
        >>> bool(again.log_likelihood([0.1, 0.2]) == coreset.log_likelihood([0.1, 0.2]))
        True
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "info"}
        _io.save(path, _KIND, {**fields, "info": asdict(self.info)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a coreset that `save` wrote.

        Raises
        ------
        DomainError     if the file holds something else.
        """
        fields = _io.load(path, _KIND)
        return cls(**{**fields, "info": GLMCoresetInfo(**fields["info"])})

    @cached_property
    def _rows(self) -> Vector:
        return np.asarray(self.x, dtype=np.float64)

    @property
    def _kept(self) -> Data:
        """The rows as data that stand for all."""
        return Data(
            family=self.family, x=self._rows, y=self.y, offset=self.offset, weight=self.weights
        )

    @cached_property
    def _polynomial(self) -> _Polynomial:
        """What is left once the linear and quadratic terms of the rows are summed up."""
        eta = self._rows @ self.center + self.offset
        value, slope, curvature = (cumulant(self.family, eta, order) for order in range(3))
        w, rows = self.weights, self._rows
        if not self.control_variate:
            constant = float((w * self.y) @ eta) + self._kept.base
            flat, endless = np.zeros((self.dim, self.dim)), np.full(len(eta), np.inf)
            return _Polynomial(constant, (w * self.y) @ rows, flat, eta, endless, curvature)
        return _Polynomial(
            self.center_value + float(w @ value),
            self.center_gradient + (w * slope) @ rows,
            self.center_hessian + (rows * (w * curvature)[:, None]).T @ rows,
            eta,
            self._reach,
            curvature,
        )

    @property
    def _reach(self) -> Vector:
        """How far eta may go from the center before a row's remainder goes on along its tangent.

        T posterior standard deviations of eta. Where T is 1 / (2 e sqrt(d)) with the expected error
        e, the slope of the noise, e sqrt(d) T^2 (it is cubic), is half the slope T of the
        posterior. Rows that are kept for certain have no noise, and no end.
        """
        factor = precision_factor(self.prior_precision - self.center_hessian)
        squares = self._kept.squares(factor)
        least, most = _REACH
        steep = 2 * self.info.expected_error * np.sqrt(self.dim)
        widths = most if steep * most <= 1 else max(least, 1 / steep)
        return np.where(self.weights > self.sample_weight, widths * np.sqrt(squares), np.inf)

    def _cumulant(self, points: Vector, order: int) -> Vector:
        """Return a derivative of A at each row, given differences from the center."""
        _, _, _, eta, reach, tail = self._polynomial
        return tamed_cumulant(self.family, eta, points @ self._rows.T, reach, tail, order)

    def _points(self, theta: Any, name: str = "theta") -> tuple[Vector, FloatArray]:
        """Return differences from the center, one a row, and what was given."""
        given = as_float_array(name, theta)
        if given.ndim == 0 or given.shape[-1] != self.dim:
            raise ShapeError(f"'{name}' must have shape (..., {self.dim}); got {given.shape}.")
        check_finite(name, given)
        return given.reshape(-1, self.dim) - self.center, given

    def _check_same(self, data: Data) -> None:
        same = data.shape == (self.n_rows, self.dim) and (
            np.array_equal(data.rows(self.indices), self.x)
            and np.array_equal(data.y[self.indices], self.y)
            and np.array_equal(data.offset[self.indices], self.offset)
            and np.array_equal(data.weight[self.indices], self.sample_weight)
            and self._has_value(data)
        )
        if not same:
            raise DomainError(
                f"'x', 'y', 'offset' and 'sample_weight' must be the data of the fit, "
                f"{self.n_rows} rows of {self.dim} columns in the same order; got others, of shape "
                f"{data.shape}. What the fit was given, the check needs too."
            )

    def _has_value(self, data: Data) -> bool:
        """Whether data have the log-likelihood of the fit at the center, up to rounding.

        Rows that were not kept, and their weights, have their part in that alone.
        """
        eta = data.predict(self.center) + data.offset
        size = (data.weight * np.abs(data.y)) @ np.abs(eta) + abs(data.base)
        error = abs(data.value(eta) - self.center_value)
        return bool(error <= _SAME * (size + abs(self.center_value)))


def _twin(name: str) -> Any:
    """Return the function of that name for tensors; torch is loaded by whoever has one."""
    from pyprobe.sketching import _glm_torch

    return getattr(_glm_torch, name)


def _info(mode: Mode, n_samples: int, expected_error: float) -> GLMCoresetInfo:
    if not mode.converged and mode.n_iter == MAX_ITER:
        warn(
            f"GLMCoreset.fit: Newton's method stopped after {MAX_ITER} steps, the last of "
            f"{mode.last_step:.1e} posterior standard deviations; pass a prior_precision, or "
            "columns of like scale.",
            ConvergenceWarning,
        )
    return GLMCoresetInfo(
        converged=mode.converged,
        n_iter=mode.n_iter,
        last_step=mode.last_step,
        n_samples=n_samples,
        expected_error=expected_error,
    )
