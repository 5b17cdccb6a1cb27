r"""Entropic optimal transport between two weighted sets of points.

For weights :math:`a` and :math:`b` of equal mass, costs :math:`C` and :math:`\varepsilon > 0`,

.. math::
   \min_{P \ge 0,\; P 1 = a,\; P^T 1 = b} \langle P, C \rangle
       + \varepsilon\, \mathrm{KL}(P \,|\, a b^T), \qquad
   P_{ij} = a_i b_j\, e^{(f_i + g_j - C_{ij}) / \varepsilon}.

The potentials f and g are in the unit of the costs; the constant that P does not see is shared so
that
:math:`\langle a, f \rangle = \langle b, g \rangle`. POT's ``log_u`` is here
``f / epsilon + log(a)``, OTT's ``f`` is ``f + epsilon log(a)``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import scipy.sparse
from scipy.special import xlogy

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._validate import (
    as_float_array,
    check_callback,
    check_choice,
    check_finite,
    check_positive_float,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning, ShapeError
from pyprobe.progress import Callback, Progress, ends
from pyprobe.transport._check import (
    Clouds,
    Vector,
    as_cost,
    as_masses,
    as_number,
    as_penalties,
    check_balanced,
    check_costs,
    check_epsilon,
    check_reachable,
    movable_share,
)
from pyprobe.transport._rounding import Correction, correction
from pyprobe.typing import Array, ArrayLike, FloatArray

if TYPE_CHECKING:
    import torch

__all__ = ["SinkhornResult", "relative_epsilon", "sinkhorn"]

METHODS = ("auto", "log", "scaling", "newton", "sns")
MAX_NEWTON = 200
MEMORY = 2**31, 2**31
"""Bytes of a plan stored for the iteration, and of the two of Newton's method."""
_RESOLUTION = 1e-6
"""Below this part of the range of the costs, epsilon resolves nothing that rounding leaves."""
_OFFSET = 1e-7
"""The same of the largest cost, where a constant makes it large: its rounding counts, no more."""
_ROUNDING = 1e-14
"""No iteration brings a relative marginal error much below this."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SinkhornResult:
    r"""The entropic transport plan between two weighted sets, by its potentials.

    Attributes
    ----------
    f : array, shape (n,)
        Potential of the rows, in the unit of the costs. Where a weight is 0 it is the price at
        which a little weight there would be served.
    g : array, shape (m,)
        Potential of the columns.
    value : float or 0-d tensor
        The dual objective :math:`\langle a, f \rangle + \langle b, g \rangle - \varepsilon (\sum P
        - \sum a \sum b)`: a lower bound of the regularized cost, equal to it up to the square of
        the marginal error.
    epsilon : float
        Strength of the entropy.
    marginal_error : float
        Distance of the plan's two marginals from the weights, in L1, rows and columns together,
        relative to the mass.
    converged : bool
        Whether that is within the tolerance.
    stopped : bool
        Whether the callback ended the iteration.
    n_iter : int
        Iterations of Sinkhorn.
    n_newton : int
        Steps of Newton.
    method : str
        The one asked for.
    errors : ndarray, shape (n_iter + n_newton,)
        The marginal error after every iteration.

    Notes
    -----
    Large arrays are methods, made anew at each call; the costs, or the points, are kept by
    reference. After they have been changed in place, as by an optimizer's step, what is computed is
    of the new ones with the old potentials.

    Of tensors in a graph, all that the result gives shares that graph: where a backward pass of
    something else follows ``value.backward()``, that needs ``retain_graph=True``.
    """

    f: Array
    g: Array
    value: Array | float
    epsilon: float
    marginal_error: float
    converged: bool
    stopped: bool
    n_iter: int
    n_newton: int
    method: str
    errors: FloatArray
    _problem: _Problem = field()

    def __repr__(self) -> str:
        return (
            f"SinkhornResult(shape=({len(self.f)}, {len(self.g)}), epsilon={self.epsilon:.4g}, "
            f"value={as_number(self.value):.8g}, marginal_error={self.marginal_error:.1e}, "
            f"converged={self.converged}, n_iter={self.n_iter}, n_newton={self.n_newton}, "
            f"method={self.method!r})"
        )

    def plan(self) -> Array:
        """Return the plan, shape (n, m)."""
        problem = self._problem
        found: FloatArray = _core.transport_plan(problem.plan)
        return found

    def apply(self, v: ArrayLike) -> Array:
        """Return the plan times `v`, of shape (m,) or (m, k), without forming the plan."""
        return self._problem.apply(v, "v", transpose=False)

    def apply_transpose(self, u: ArrayLike) -> Array:
        """Return the transposed plan times `u`, of shape (n,) or (n, k)."""
        return self._problem.apply(u, "u", transpose=True)

    def barycentric_map(self, y: ArrayLike) -> Array:
        """Return where each row's mass goes on average: the plan's rows, normalized, times `y`.

        Parameters
        ----------
        y : array_like, shape (m, d)
            Positions of the columns.

        Returns
        -------
        array, shape (n, d)
            NaN where a row carries no mass.
        """
        points = as_float_array("y", y)
        if points.ndim != 2:
            raise ShapeError(f"'y' must have shape (m, d), one point a row; got {points.shape}.")
        sums = np.asarray(self._problem.sums[0])[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            found: FloatArray = self._problem.apply(points, "y", transpose=False) / sums
        return found

    def sparse_plan(self, threshold: float = 0.0) -> scipy.sparse.csr_array:
        """Return the entries of the plan that are at least `threshold`, as a SciPy CSR array."""
        threshold = check_positive_float("threshold", threshold, allow_zero=True)
        indptr, indices, values = _core.transport_sparse_plan(self._problem.plan, threshold)
        shape = self._problem.cost.shape
        where = indices.astype(np.int64), indptr.astype(np.int64)
        return scipy.sparse.csr_array((values, *where), shape=shape)

    @cached_property
    def transport_cost(self) -> float:
        r"""The cost of the plan, :math:`\langle P, C \rangle`, without the entropy."""
        return float(self._problem.sums[2])

    def rounded_plan(self) -> Array:
        """Return a plan near this one whose marginals are the weights, to rounding.

        Rows and columns that carry too much are scaled down, and what is missing is added as a
        product (Altschuler, Weed and Rigollet 2017, algorithm 2). Beside forbidden pairs it is
        added to, or taken from, entries that form a tree, which takes a sort of all pairs and the
        memory of ten matrices; where an entry is too small for that, the plan is first brought
        nearer to its marginals. That may fail far from convergence, and where some allowed pairs
        can carry nothing in any plan; then the product is used, which falls on forbidden pairs.
        Not defined with penalties.
        """
        check_balanced("rounded_plan", self._problem.penalties)
        return self._feasible_plan().astype(self._problem.cost.dtype, copy=False)

    def _feasible_plan(self) -> Vector:
        problem = self._problem
        if problem.corrected is not None:
            near, (i, j, mass, _) = problem.corrected
            dense = _core.transport_plan(near.plan).astype(np.float64, copy=False)
            dense[i, j] = np.maximum(dense[i, j] + mass, 0.0)
        else:
            x, y, u, v = problem.rounding
            dense = x[:, None] * _core.transport_plan(problem.plan) * y + np.outer(u, v)
        return dense

    @cached_property
    def gap(self) -> float:
        """The regularized cost of `rounded_plan` minus `value`: how far either can be from optimal.

        Both bound the optimum, whether or not the iteration converged. Infinite where
        `rounded_plan` falls on forbidden pairs. Not defined with penalties.
        """
        problem = self._problem
        if problem.is_unbalanced:
            raise DomainError(
                "'gap' compares plans that meet the weights; with 'unbalanced' there are none."
            )
        a, b = problem.a, problem.b
        if problem.corrected is None:
            rounded = _core.transport_rounded_value(problem.plan, a, b, problem.rounding)
            return rounded - float(self.value)
        near, added = problem.corrected
        as_it_is = np.ones_like(a), np.ones_like(b), np.zeros_like(a), np.zeros_like(b)
        rounded = _core.transport_rounded_value(near.plan, a, b, as_it_is)
        costs = np.asarray(problem.cost)[added.i, added.j].astype(np.float64)
        pairs, after = a[added.i] * b[added.j], added.before + added.mass
        entropy = xlogy(after, after / pairs) - xlogy(added.before, added.before / pairs)
        change = added.mass * (costs - self.epsilon) + self.epsilon * entropy
        return rounded + float(change.sum()) - float(self.value)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What was solved, with the scaled potentials that solve it, in float64."""

    a: Vector
    b: Vector
    cost: FloatArray | Clouds
    epsilon: float
    penalties: tuple[float, float]
    phi: Vector
    gamma: Vector

    @property
    def plan(self) -> tuple[FloatArray | Clouds, float, Vector, Vector]:
        """What the kernels call a plan."""
        return self.cost, self.epsilon, self.phi, self.gamma

    @property
    def is_unbalanced(self) -> bool:
        return any(map(math.isfinite, self.penalties))

    @cached_property
    def sums(self) -> tuple[Vector, Vector, float]:
        """Row sums, column sums and cost of the plan."""
        return _core.transport_sums(self.plan)

    @cached_property
    def rounding(self) -> tuple[Vector, Vector, Vector, Vector]:
        """``(x, y, u, v)`` such that ``diag(x) P diag(y) + u v'`` has the weights as marginals."""
        rows, columns, _ = self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            x = np.where(rows > self.a, self.a / rows, 1.0)
            columns = _core.transport_apply(self.plan, x[:, None], transpose=True)[:, 0]
            y = np.where(columns > self.b, self.b / columns, 1.0)
        rows = x * _core.transport_apply(self.plan, y[:, None], transpose=False)[:, 0]
        u = np.maximum(self.a - rows, 0.0)
        v = np.maximum(self.b - y * columns, 0.0)
        total = v.sum()
        return x, y, u, v / total if total > 0 else v

    @cached_property
    def corrected(self) -> tuple[_Problem, Correction] | None:
        """Potentials near these, and what gives their plan the weights beside forbidden pairs."""
        if isinstance(self.cost, Clouds) or self.is_unbalanced or (self.cost < math.inf).all():
            return None
        found = self.missing()
        if found is not None:
            return self, found
        near = self._nearer()
        found = near.missing()
        return None if found is None else (near, found)

    def missing(self) -> Correction | None:
        """Return what gives this very plan the weights beside forbidden pairs, where it can."""
        rows, columns, _ = self.sums
        scaled = np.asarray(self.cost, dtype=np.float64) / self.epsilon
        exponents = self.phi[:, None] + self.gamma - scaled
        return correction(exponents, self.a - rows, self.b - columns)

    def _nearer(self) -> _Problem:
        """Return potentials whose plan meets the weights to rounding, as nearly as can be."""
        with np.errstate(invalid="ignore", divide="ignore"):
            f, g = (
                np.where(weights > 0, self.epsilon * (scaled - np.log(weights)), 0.0)
                for scaled, weights in ((self.phi, self.a), (self.gamma, self.b))
            )
        options = SolverOptions("auto", 1e-15, 1000, None, None, MEMORY)
        found = _core.sinkhorn(
            self.cost,
            self.a,
            self.b,
            self.epsilon,
            self.penalties,
            start=(f, g),
            **options.of_kernel(),
        )
        return replace(self, phi=found["phi"], gamma=found["gamma"])

    def apply(self, v: ArrayLike, name: str, *, transpose: bool) -> FloatArray:
        vector = as_float_array(name, v)
        length = self.cost.shape[0 if transpose else 1]
        if vector.ndim not in (1, 2) or vector.shape[0] != length:
            raise ShapeError(
                f"'{name}' must have shape ({length},) or ({length}, k); got {vector.shape}."
            )
        check_finite(name, vector)
        width = math.prod(vector.shape[1:])
        matrix = np.ascontiguousarray(vector.reshape(length, width), dtype=np.float64)
        found = _core.transport_apply(self.plan, matrix, transpose=transpose)
        return found.reshape(len(found), *vector.shape[1:]).astype(self.cost.dtype, copy=False)


def sinkhorn(
    a: ArrayLike | None,
    b: ArrayLike | None,
    cost: ArrayLike,
    *,
    epsilon: float | torch.Tensor,
    method: Literal["auto", "log", "scaling", "newton", "sns"] = "auto",
    tol: float = 1e-9,
    max_iter: int = 10_000,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    unbalanced: float | tuple[float | None, float | None] | None = None,
    callback: Callback | None = None,
) -> SinkhornResult:
    r"""Solve an entropic optimal transport problem.

    Minimizes :math:`\langle P, C \rangle + \varepsilon\, \mathrm{KL}(P | a b^T)` over the plans P
    whose marginals are `a` and `b`.

    Parameters
    ----------
    a : array_like, shape (n,), or None
        Weights of the rows: nonnegative, not all zero. None stands for equal weights that sum to 1.
    b : array_like, shape (m,), or None
        Weights of the columns, of the same mass as `a`; a relative difference below 1e-6 is scaled
        away.
    cost : array_like, shape (n, m)
        Costs, of any sign. Plus infinity forbids a pair.
    epsilon : float, or 0-d tensor
        Strength of the entropy, in the unit of the costs; see `relative_epsilon`.
    method : {"auto", "log", "scaling", "newton", "sns"}
        How the potentials are found; all find the same.

        - ``"log"``: Sinkhorn's iteration in the log domain: no memory beyond the costs.
        - ``"scaling"``: the same on a stored plan, sparse where most of it is negligible: several
          times faster, for the memory of the costs once more.
        - ``"newton"``: Newton's method along a path of falling epsilon: a few dozen steps.
        - ``"sns"``: sparse Newton iterations as published [4]_, for comparison: 20 iterations of
          Sinkhorn, then steps with the three largest entries of the plan for each row.
        - ``"auto"``: ``"scaling"``, handed over to Newton where the rate observed says that it
          would take long.
    tol : float, default 1e-9
        Largest marginal error (L1, rows and columns together, relative to the mass).
    max_iter : int, default 10000
        The most iterations of Sinkhorn.
    init : pair of array_like, optional
        Potentials ``(f, g)`` to start from.
    unbalanced : float or pair, optional
        Replaces the marginals by penalties :math:`\rho\, \mathrm{KL}(P 1 | a)` and
        :math:`\rho\, \mathrm{KL}(P^T 1 | b)`, in the unit of the costs: mass may appear and vanish.
        A pair gives each side its own; None or infinity keeps a side exact.
    callback : callable, optional
        Called now and then with a `Progress`, its ``value`` the marginal error, and at the end;
        where the problem is small, at the end alone. Returning ``True`` ends the iteration with
        what has been found.

    Returns
    -------
    SinkhornResult
        Potentials of the dtype of `cost`, and the plan on demand; of tensors if `cost` is one.

    Raises
    ------
    ShapeError       if the shapes do not fit.
    DomainError      if `epsilon` is not positive, a weight is negative, the masses differ, or a
    point
                     with weight has no partner.
    NotFiniteError   if a weight is not finite, or a cost is NaN or minus infinity.

    Warns
    -----
    ConvergenceWarning  if the marginal error is above `tol` at the end.
    NumericalWarning    if `epsilon` is below 1e-6 of the range of the costs, or 1e-7 of the
                        largest.

    Notes
    -----
    An iteration costs one exponential an entry (``"log"``) or two products with a stored matrix
    (``"scaling"``). Steps are lengthened by over-relaxation once the rate has settled [3]_. Sums
    run in float64, whatever the dtype. The same bits come out for any number of threads.

    Differentiable in `a`, `b`, `cost` and `epsilon` by torch's autograd in reverse mode, with and
    without penalties, without unrolling: ``value`` to second order, by the envelope theorem (first
    order costs a pass over the plan where the costs want their gradient, and next to nothing else);
    potentials, plan and what is made of it to first order, by the implicit function theorem (a
    linear solve, with the memory of a few plans in float64). More is refused. The gradients are
    those of the optimum, wherever `init` started; their error is in proportion to `tol`. Without
    penalties only changes of the weights that keep the masses equal have a meaning; the derivative
    of ``value`` in `a` is then ``f - epsilon (1 - sum(b))``. That in a weight of 0 is the one-sided
    derivative, and 0 where no finite cost connects the atom to any weight.

    Engines: native, also for torch tensors on the CPU, which are not copied; torch elsewhere, for
    methods ``"auto"`` and ``"log"``, which are one there, in float64. What a tensor's result gives
    is formed in the dtype of `cost`, ``sparse_plan`` a SciPy array.

    References
    ----------
    .. [1] M. Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NeurIPS
       2013.
    .. [2] B. Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport
       problems", SIAM J. Sci. Comput. 41(3), 2019.
    .. [3] A. Thibault, L. Chizat, C. Dossal and N. Papadakis, "Overrelaxed Sinkhorn-Knopp algorithm
       for regularized optimal transport", Algorithms 14(5), 2021.
    .. [4] X. Tang et al., "Accelerating Sinkhorn algorithm with sparse Newton iterations", ICLR
       2024.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import sinkhorn
    >>> x, y = np.linspace(0, 1, 5), np.linspace(0, 1, 4)
    >>> result = sinkhorn(None, None, (x[:, None] - y) ** 2, epsilon=0.05)
    >>> result.converged
    True
    >>> result.plan().sum(axis=0).round(6)
    array([0.25, 0.25, 0.25, 0.25])
    >>> result.barycentric_map(y[:, None])[:, 0].round(2)
    array([0.02, 0.24, 0.5 , 0.76, 0.98])
    """
    check_choice("method", method, METHODS)
    check_callback("callback", callback)
    penalties = as_penalties(unbalanced)
    tol = check_positive_float("tol", tol)
    max_iter = check_positive_int("max_iter", max_iter)
    given: Any = a, b, cost, epsilon
    # As a number, epsilon goes with any library.
    tensor: Any = epsilon if hasattr(epsilon, "detach") else None
    engine = select(a, b, cost, tensor, names=("a", "b", "cost", "epsilon"))
    if engine is not Engine.NATIVE:
        from pyprobe.transport import _torch

        a, b, cost, init = _torch.plain(a, b, cost, epsilon, init)
    number = check_epsilon(epsilon if tensor is None else tensor.detach())
    options = SolverOptions(method, tol, max_iter, init, callback, MEMORY)
    if engine is Engine.TORCH:
        _torch.check(a, b, cost, penalties, method)
        _check_resolution(number, given[2].detach())
        return _torch.solve(given, number, penalties, options)
    costs = as_cost(cost)
    weights = as_masses(a, b, costs.shape, penalties)
    check_reachable(*weights, costs, penalties)
    _check_resolution(number, costs)
    found = solve(*weights, costs, number, penalties, options)
    return found if engine is Engine.NATIVE else _torch.wrap(found, given)


class SolverOptions(NamedTuple):
    """How `solve` goes about it."""

    method: str
    tol: float
    max_iter: int
    init: Any
    callback: Callback | None
    memory: tuple[int, int]
    """Bytes of a plan stored for the iteration, and of the two of Newton's method."""

    def of_kernel(self) -> dict[str, Any]:
        """Return what the kernels, of one problem and of many, ask for by name."""
        return {
            "method": self.method,
            "tol": self.tol,
            "max_iter": self.max_iter,
            "max_newton": MAX_NEWTON,
            "relaxation": True,
            "memory": self.memory,
        }


def solve(
    a: Vector,
    b: Vector,
    cost: FloatArray | Clouds,
    epsilon: float,
    penalties: tuple[float, float],
    options: SolverOptions,
) -> SinkhornResult:
    """Solve a problem whose arguments have been checked."""
    watch, report = _watch(options.callback, options.max_iter + MAX_NEWTON)
    start = None if options.init is None else _as_potentials(options.init, cost.shape)
    found = _core.sinkhorn(
        cost, a, b, epsilon, penalties, start=start, watch=watch, **options.of_kernel()
    )
    result = as_result(found, a, b, cost, epsilon, penalties, options.method)
    report(result.n_iter + result.n_newton, result.marginal_error)
    if not (result.converged or result.stopped):
        if not isinstance(cost, Clouds) and not any(map(math.isfinite, penalties)):
            check_feasible(a, b, cost)
        _warn(result, found["rate"], options.tol)
    return result


def check_feasible(a: FloatArray, b: FloatArray, cost: FloatArray) -> None:
    """Raise `DomainError` where forbidden pairs leave no plan: asked once an iteration failed."""
    share = movable_share(a, b, cost)
    if share < 1 - 1e-6:
        raise DomainError(
            f"'cost' forbids every plan: at most {share:.6g} of the mass can be moved over pairs "
            "of finite cost. Allow more pairs, or pass unbalanced=rho to let mass appear and "
            "vanish at a price."
        )


def as_result(
    found: dict[str, Any],
    a: Vector,
    b: Vector,
    cost: FloatArray | Clouds,
    epsilon: float,
    penalties: tuple[float, float],
    method: str,
) -> SinkhornResult:
    """Return what a kernel has found as a result."""
    mass = float(a.sum())
    dtype = cost.dtype
    return SinkhornResult(
        f=found["f"].astype(dtype, copy=False),
        g=found["g"].astype(dtype, copy=False),
        value=found["value"],
        epsilon=epsilon,
        marginal_error=found["marginal_error"] / mass,
        converged=found["converged"],
        stopped=found["stopped"],
        n_iter=found["n_iter"],
        n_newton=found["n_newton"],
        method=method,
        errors=found["errors"] / mass,
        _problem=_Problem(a, b, cost, epsilon, penalties, found["phi"], found["gamma"]),
    )


def _as_potentials(init: Any, shape: tuple[int, int]) -> tuple[Vector, Vector]:
    try:
        f, g = init
    except (TypeError, ValueError):
        raise TypeError("'init' must be a pair of potentials (f, g).") from None
    pair = []
    for name, potential, n in (("f", f, shape[0]), ("g", g, shape[1])):
        array = np.ascontiguousarray(as_float_array(f"init {name}", potential), dtype=np.float64)
        if array.shape != (n,):
            raise ShapeError(f"'init' must hold an '{name}' of shape ({n},); got {array.shape}.")
        # An atom without weight, beyond reach, has an infinite potential: any start will do.
        array = np.where(array == np.inf, 0.0, array)
        check_finite("init", array)
        pair.append(array)
    return pair[0], pair[1]


def _watch(
    callback: Callback | None, total: int
) -> tuple[Callable[[int, float], bool] | None, Callable[[int, float], object]]:
    """Return what the kernel calls now and then, and what is called at the end."""
    if callback is None:
        return None, lambda *_: None
    begin = time.perf_counter()

    def watch(step: int, value: float) -> bool:
        elapsed = time.perf_counter() - begin
        progress = Progress(step=step, total=total, value=value, elapsed=elapsed)
        return not ends(callback(progress))

    return watch, watch


def _check_resolution(epsilon: float, cost: Array) -> None:
    message = unresolved(epsilon, *range_of(cost))
    if message is not None:
        warn(message, NumericalWarning)


def range_of(cost: Array) -> tuple[float, float]:
    """Return the least and the largest of the finite costs."""
    least, most = float(cost.min()), float(cost.max())
    if most == math.inf and least < math.inf:
        most = float(cost[cost < math.inf].max())
    return least, most


def unresolved(epsilon: float, least: float, most: float) -> str | None:
    """Return what there is to say of an epsilon far below this range of the costs."""
    if most == math.inf:
        return None
    if epsilon < _RESOLUTION * (most - least):
        return (
            f"'epsilon' = {epsilon:.3g} is below 1e-6 of the range of the costs "
            f"({most - least:.3g}): rounding is no longer small beside it. For so little entropy "
            "use an exact solver, such as scipy.optimize.linear_sum_assignment; where huge costs "
            "stand for forbidden pairs, write numpy.inf."
        )
    largest = max(-least, most)
    if epsilon < _OFFSET * largest:
        return (
            f"the rounding of costs as large as {largest:.3g} is no longer small beside 'epsilon' "
            f"= {epsilon:.3g}. Subtract a constant from 'cost': without penalties nothing changes "
            "but the value, by that constant times the mass."
        )
    return None


def _warn(result: SinkhornResult, rate: float | None, tol: float) -> None:
    fall = f", falling by a fraction of {1 - rate:.1e} an iteration" if rate is not None else ""
    newton = f" and {result.n_newton} Newton steps" if result.n_newton else ""
    if result.marginal_error < _ROUNDING:
        remedy = ": that is rounding, which more iterations leave as it is; raise tol."
    else:
        remedy = f"{fall}; raise max_iter or epsilon"
        remedy += "." if newton else ", or use method='newton'."
    warn(
        f"sinkhorn stopped after {result.n_iter} iterations{newton} with marginal error "
        f"{result.marginal_error:.1e} > tol {tol:.1e}{remedy}",
        ConvergenceWarning,
    )


def relative_epsilon(
    cost: ArrayLike, fraction: float = 0.05, *, scale: Literal["max", "mean", "std"] = "max"
) -> float:
    """Return `fraction` of the largest, the mean or the standard deviation of the costs.

    Parameters
    ----------
    cost : array_like
        Costs; infinite ones (forbidden pairs) are left out.
    fraction : float, default 0.05
        Positive.
    scale : {"max", "mean", "std"}
        In proportion to what; OTT's default is 0.05 of the standard deviation.

    Returns
    -------
    float
        In the unit of the costs.

    Raises
    ------
    DomainError     if the scale of the costs is not positive.
    NotFiniteError  if a cost is NaN or minus infinity.

    Examples
    --------
    >>> from pyprobe.transport import relative_epsilon
    >>> relative_epsilon([[0.0, 2.0], [4.0, 2.0]], 0.05)
    0.2
    """
    check_choice("scale", scale, ("max", "mean", "std"))
    fraction = check_positive_float("fraction", fraction)
    values: Any = cost if select(cost) is not Engine.NATIVE else as_float_array("cost", cost)
    if not (values > -math.inf).all():
        check_costs(values if isinstance(values, np.ndarray) else values.numpy(force=True))
    finite = values[values < math.inf]
    if len(finite) == 0:
        raise DomainError("'cost' must have finite entries; got none.")
    reference = {"max": finite.max, "mean": finite.mean, "std": finite.std}[scale]()
    if not float(reference) > 0:
        raise DomainError(
            f"'cost' must have a positive {scale} for a relative epsilon; got "
            f"{float(reference):.6g}. Give epsilon as a number."
        )
    return fraction * float(reference)
