r"""Least squares to the last digit: normal equations of well conditioned columns, and refinement.

Each step solves for a correction from the gradient of the residual itself,

.. math:: x \leftarrow x + P M^{-1} P' A' (b - A x), \qquad M \approx (A P)' (A P),

whose error is the last step's times the error of M: about u kappa(A P)^2 for a Gram matrix, u
kappa(A) for one of columns that a sketch has made well conditioned. What stays is the rounding of
the residual and the gradient: that of a backward stable method (Epperly, Meier and Nakatsukasa
2024; their inner iteration is exchanged for a factor of M where that costs less).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack, qr_multiply

from pyprobe import _core
from pyprobe.cluster._samples import Samples
from pyprobe.errors import DomainError
from pyprobe.sketching._conjugate import conjugate_gradients
from pyprobe.sketching._independent import Factored, factor_gram, factor_positive
from pyprobe.sketching._input import Tall
from pyprobe.sketching._shortest import Dependence, dependence_of_null, find_dependence
from pyprobe.sketching._space import power_of_two, scaled_gram
from pyprobe.sketching._sparse_rows import column_lengths, estimate_costs, normal_equations
from pyprobe.sketching.operators import (
    SketchOperator,
    padded_length,
    sketch_operator,
    sketch_samples,
)
from pyprobe.typing import Rng

__all__ = [
    "MAX_STEPS",
    "Problem",
    "Refined",
    "Solution",
    "Whitening",
    "least_rows",
    "solve_exactly",
    "whiten",
]

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_SHARE = 1e-3
"""Least that the rounding of a gradient moves a solution by, beside u kappa(A) of the residual."""
MAX_STEPS = 12
"""Of refinement."""
_MAX_CG = 100
_MAX_PROBE = 60
"""Passes after which conjugate gradients on the columns as they are are given up."""
_CG_TOL = 1e-10
_EASY = 1e4
"""Condition number of the Gram matrix up to which they are as exact as a factorization: what they
leave along a direction is of the size of rounding over its eigenvalue."""
_WIDE = 512
"""Columns beyond which thirty passes over the data cost less than a product with d by d."""
_WIDE_SPARSE = 64
"""The same for sparse data, whose passes are shorter and whose products are dense."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A matrix and its targets."""

    a: Tall
    b: Matrix
    """Shape (n, k), each column scaled by a power of two where it needs that."""
    norms: Vector
    """Those of the columns of `b`."""

    def residual(self, x: Matrix) -> tuple[Matrix, Vector]:
        """Return A' (b - A x), and the squared norms of the columns of b - A x."""
        return _core.sketch_residual(self.a.samples, self.b, x)


class Refined(NamedTuple):
    """Where refinement has come to."""

    x: Matrix
    squares: Vector
    """Squared norms of the residuals."""
    n_iter: int
    error: float
    """The length of A times the last step, over that of b."""
    converged: bool
    stopped: bool = False


class Solution(NamedTuple):
    """A solution, and how it was found."""

    refined: Refined
    rank: int
    method: str
    condition: float
    operator: SketchOperator | None


class Solver(NamedTuple):
    """How a step is made."""

    newton: Callable[[Matrix], Matrix]
    """From the gradient to the correction."""
    contraction: float
    """What a step leaves of the error, at most."""


class Whitening(NamedTuple):
    """A basis of the row space in which the columns of a matrix are orthonormal."""

    basis: Matrix
    """P, shape (d, rank), with the scales of the columns."""
    start: Matrix
    """Q' b, shape (rank, k): the solution is P times it."""
    condition: float
    null: Dependence
    """What the matrix takes to zero."""


def solve_exactly(
    problem: Problem,
    kind: str | None,
    n_rows: int | None,
    rng: Rng,
    watch: Callable[[int, float], bool],
) -> Solution:
    """Return the least squares solution; a sketch is used where `kind` names it or it must be."""
    a = problem.a
    n, d = a.shape
    by_product = d <= (_WIDE if isinstance(a.samples, np.ndarray) else _WIDE_SPARSE)
    found, scales = _without_sketch(problem, watch) if kind is None and n > d else (None, None)
    if found is not None:
        return found
    hard = scales is not None
    scales = _scales(a) if scales is None else np.where(scales > 0, scales, 1.0)
    m = n_rows or max(64, (8 if by_product else 12) * d)
    if n_rows is None and kind == "srht":
        m = min(m, padded_length(n))
    if kind is None and n <= 2 * m:
        white = whiten(scales * a.dense(), problem.b, scales, a.dtype)
        solver = Solver(lambda g: white.basis @ (white.basis.T @ g), _rounding(white.condition))
        return _finish(problem, white, solver, None, watch)
    operator = sketch_operator(kind or "sparse_sign", m, n, rng=rng)
    rows = sketch_samples(operator, "a", a.samples) * scales
    # No start: the first step from nothing goes farther than the solution of a sketch of b would.
    targets = np.zeros((m, problem.b.shape[1]))
    white = (None if hard else _whiten_fast(rows, targets, scales, a.dtype)) or whiten(
        rows, targets, scales, a.dtype
    )
    solver = (_by_product if by_product else _by_conjugate_gradients)(problem, white)
    return _finish(problem, white, solver, operator, watch)


def _without_sketch(
    problem: Problem, watch: Callable[[int, float], bool]
) -> tuple[Solution | None, Vector | None]:
    """Return the solution where the columns are well conditioned.

    Beside it come the scales of the columns where these are known to be not.
    """
    samples = problem.a.samples
    make: Callable[[Samples, Vector | None, Matrix], Matrix] = _core.sketch_normal_equations
    if not isinstance(samples, np.ndarray):
        costs = estimate_costs(samples[0])
        few = problem.a.shape[1] <= _WIDE_SPARSE
        if not few and costs.passes < min(costs.gram, costs.sketch):
            found = _by_columns(problem, watch)
            if found is not None:
                return found, None
        if not few and costs.gram > costs.sketch:
            return None, None
        if costs.in_pairs:
            make = _normal_equations_of_pairs
    gram, scales, _ = scaled_gram(problem.a, lambda scales: make(samples, scales, problem.b))
    n, d = problem.a.shape
    lengths = scales + (scales == 0)
    system = factor_gram(
        samples, gram, lengths, lengths, lambda: _least((min(n, 12 * d), d), problem.a.dtype)
    )
    if system is None:
        return None, scales
    return _by_cholesky(problem, system, scales, gram, watch), scales


def _normal_equations_of_pairs(samples: Samples, scales: Vector | None, b: Matrix) -> Matrix:
    return normal_equations(samples[0], scales, b)


def _scales(a: Tall) -> Vector:
    """Return powers of two that bring the largest entries of the columns near 1."""
    maxima = a.check_finite()
    if not maxima.any():
        raise DomainError("'a' must not be all zero.")
    return np.where(maxima > 0, power_of_two(maxima), 1.0)


def whiten(rows: Matrix, targets: Matrix, scales: Vector, dtype: np.dtype[Any]) -> Whitening:
    """Return the whitening of `rows`, which stand for all, with columns scaled already."""
    products, factor = qr_multiply(rows, targets.T, mode="right")
    u, values, vt = np.linalg.svd(factor, full_matrices=False)
    least = _least(rows.shape, dtype)
    rank = int((values > least * values[0]).sum())
    basis = scales[:, None] * (vt[:rank].T / values[:rank])
    start = u[:, :rank].T @ products.T
    null = find_dependence(vt, rank, scales, least)
    return Whitening(basis, start, float(values[0] / values[rank - 1]), null)


def _whiten_fast(
    rows: Matrix, targets: Matrix, scales: Vector, dtype: np.dtype[Any]
) -> Whitening | None:
    """Return the whitening from the normal equations, where they are well conditioned enough."""
    gram = _core.sketch_normal_equations(rows, None, targets)
    d = len(scales)
    found = factor_gram(rows, gram, np.ones(d), scales, lambda: _least(rows.shape, dtype))
    if found is None:
        return None
    turned = lapack.dtrtri(found.factor)[0]
    basis = np.zeros((d, len(turned)))
    basis[found.kept] = scales[found.kept, None] * turned
    start = turned.T @ gram[d:, found.kept].T
    null = found.null or dependence_of_null(np.zeros((d, 0)), scales, 0.0)
    return Whitening(basis, start, found.condition, null)


def _least(shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    """Return the part of the largest singular value up to which others are rounding."""
    # Sums of many rows are rounded, and so were the entries when they were stored.
    return max(_EPS * max(shape), 4 * float(np.finfo(dtype).eps))


def _rounding(condition: float) -> float:
    """Return what rounding leaves of the error in the solution of a system, at most."""
    return min(0.5, 20 * _EPS * condition)


def least_rows(d: int) -> int:
    """Return the fewest rows of a sketch that leave a degree of freedom to the residual."""
    return d + 1


def _by_cholesky(
    problem: Problem,
    found: Factored,
    scales: Vector,
    gram: Matrix,
    watch: Callable[[int, float], bool],
) -> Solution:
    def solve(right: Matrix) -> Matrix:
        return np.asarray(scales[:, None] * found.solve(right))

    solver = Solver(lambda g: solve(scales[:, None] * g), _rounding(1 / found.inverse))
    start = solve(gram[len(scales) :].T)
    refined = _refine(problem, start, solver, found.condition, watch)
    if found.null is not None:
        refined = refined._replace(x=found.null.shortest(refined.x))
    return Solution(refined, len(found.factor), "cholesky", found.condition, None)


def _by_product(problem: Problem, found: Whitening) -> Solver:
    """Factor the Gram matrix of the whitened columns, whose condition number is near 1."""
    basis = found.basis
    gram = _core.rows_gram(problem.a.samples, basis)
    factor, inverse = factor_positive(gram)
    if inverse < 1e-6:  # too few rows in the sketch
        return _by_conjugate_gradients(problem, found)

    def newton(gradient: Matrix) -> Matrix:
        solved, _ = lapack.dpotrs(factor, basis.T @ gradient)
        return np.asarray(basis @ solved)

    return Solver(newton, _rounding(found.condition / inverse))


def _by_conjugate_gradients(problem: Problem, found: Whitening) -> Solver:
    """Solve with the Gram matrix of the whitened columns in passes over the data."""
    basis = found.basis
    return _in_passes(problem, lambda y: basis @ y, lambda g: basis.T @ g)


def _in_passes(
    problem: Problem, spread: Callable[[Matrix], Matrix], gather: Callable[[Matrix], Matrix]
) -> Solver:
    """Solve by conjugate gradients in the columns ``A P``; `spread` is P, and `gather` P'."""
    multiply = _multiply(problem, spread, gather)

    def newton(gradient: Matrix) -> Matrix:
        right = gather(gradient)
        squares = np.square(right).sum(axis=0)
        # Shorter than that is rounding, whatever the step was.
        enough = np.maximum(squares * _CG_TOL**2, np.square(0.1 * _EPS * problem.norms))
        return spread(conjugate_gradients(multiply, right, enough, _MAX_CG).y)

    # The last step has to be short itself: nobody knows how good the one before was.
    return Solver(newton, 0.5)


def _multiply(
    problem: Problem, spread: Callable[[Matrix], Matrix], gather: Callable[[Matrix], Matrix]
) -> Callable[[Matrix], Matrix]:
    def multiply(y: Matrix) -> Matrix:
        nothing = np.zeros((len(problem.b), y.shape[1]))
        return gather(_core.sketch_residual(problem.a.samples, nothing, -spread(y))[0])

    return multiply


def _by_columns(problem: Problem, watch: Callable[[int, float], bool]) -> Solution | None:
    """Solve by conjugate gradients in the columns, scaled to length 1, if they converge soon.

    A right side of random numbers comes first, which has a part in every direction: with columns
    that depend on one another it does not converge, and else it shows their condition number.
    """
    maxima = problem.a.check_finite()
    if not maxima.all():
        return None
    lengths = power_of_two(maxima)
    lengths /= column_lengths(problem.a.samples[0], lengths)
    scales = lengths[:, None]

    def change(y: Matrix) -> Matrix:
        return np.asarray(scales * y)

    random = np.random.default_rng(0).normal(size=(len(lengths), 1))
    tolerance = _CG_TOL**2 * np.square(random).sum(axis=0)
    run = conjugate_gradients(_multiply(problem, change, change), random, tolerance, _MAX_PROBE)
    if not run.converged or run.condition > _EASY:
        return None
    start, condition = np.zeros((len(lengths), problem.b.shape[1])), run.condition**0.5
    solver = _in_passes(problem, change, change)
    refined = _refine(problem, start, solver, condition, watch)
    return Solution(refined, len(lengths), "conjugate_gradients", condition, None)


def _finish(
    problem: Problem,
    found: Whitening,
    solver: Solver,
    operator: SketchOperator | None,
    watch: Callable[[int, float], bool],
) -> Solution:
    """Refine from the solution of the whitened problem, and take the shortest of the solutions."""
    refined = _refine(problem, found.basis @ found.start, solver, found.condition, watch)
    x = found.null.shortest(refined.x)
    method = "qr" if operator is None else "sketch"
    rank = found.basis.shape[1]
    return Solution(refined._replace(x=x), rank, method, found.condition, operator)


def _refine(
    problem: Problem,
    x: Matrix,
    solver: Solver,
    condition: float,
    watch: Callable[[int, float], bool],
) -> Refined:
    """Step until what is left is rounding."""
    sizes = problem.norms + (problem.norms == 0)
    error, converged, stopped = np.inf, False, False
    for step in range(1, MAX_STEPS + 1):
        gradient, squares = problem.residual(x)
        correction = solver.newton(gradient)
        # The squared length of A times the correction.
        moved = np.maximum((gradient * correction).sum(axis=0), 0.0)
        x = x + correction
        errors = np.sqrt(moved) / sizes
        before, error = error, float(errors.max())
        stopped = watch(step, error)
        ahead = solver.contraction / _EPS
        if (
            error * ahead <= 0.5
            or (
                errors * ahead <= np.maximum(0.5, _SHARE * condition * np.sqrt(squares) / sizes)
            ).all()
        ):
            converged = True
            break
        if error > 0.5 * before:
            # The gradient is rounding: of the size of u kappa for a large residual.
            converged = error <= 100 * _EPS * condition
            break
        if stopped:
            break
    # Differences of squares lose their digits where the last step was not short.
    again = (moved > 0.1 * squares).any()
    squares = problem.residual(x)[1] if again else squares - moved
    return Refined(x, squares, step, error, converged, stopped and not converged)
