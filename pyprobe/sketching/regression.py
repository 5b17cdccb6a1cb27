r"""Least squares of tall data: exact, or by a sketch with errors that are known.

The solution of the sketched problem :math:`\min |S(Ax - b)|` misses that of the problem itself by
:math:`(SA)^+ S r`, where :math:`r = b - A x^*` is orthogonal to the columns. A sketch that keeps
the geometry of the columns makes this small in length; one that also keeps every inner product of
fixed vectors makes every coordinate small, and nearly normal with a standard error that the
sketched problem knows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.special import fdtri

from pyprobe._engine import Engine, select
from pyprobe._rng import key as key_of
from pyprobe._validate import (
    as_float_array,
    check_callback,
    check_choice,
    check_finite,
    check_positive_float,
    check_positive_int,
)
from pyprobe._warn import warn
from pyprobe.errors import ConvergenceWarning, DomainError, PyprobeError, ShapeError
from pyprobe.progress import Callback, Reporter
from pyprobe.sketching._input import (
    Tall,
    array_of,
    as_numpy_type,
    as_torch_type,
    read_tall,
    refuse_meta,
)
from pyprobe.sketching._least_squares import (
    MAX_STEPS,
    Matrix,
    Problem,
    Refined,
    Solution,
    Vector,
    least_rows,
    solve_exactly,
    whiten,
)
from pyprobe.sketching._space import power_of_two
from pyprobe.sketching.operators import KINDS, padded_length, sketch_operator, sketch_samples
from pyprobe.typing import Rng

__all__ = ["LstsqInfo", "LstsqResult", "sketched_lstsq"]

GUARANTEES = ("exact", "l2", "linf")
_FAILURE = 0.01
"""The probability with which a sketch may miss its `epsilon`."""
_EPSILON = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class LstsqInfo:
    """How a least squares problem was solved.

    Attributes
    ----------
    method : str
        ``"cholesky"`` of the normal equations, ``"conjugate_gradients"`` on the columns, scaled to
        one length, ``"sketch"`` (a sketch makes the columns well conditioned), ``"qr"`` of all
        rows, or ``"sketch_and_solve"``.
    sketch : str or None
        The kind of the sketch.
    n_rows : int or None
        Its rows.
    condition : float
        About the condition number of the columns, scaled to one length.
    n_iter : int
        Steps of refinement, each a pass over the rows.
    error : float
        The length of A times the last step, over that of ``b``.
    converged : bool
        Whether what was left after the last step is rounding.
    stopped : bool
        Whether the callback ended it before.
    """

    method: str
    sketch: str | None
    n_rows: int | None
    condition: float
    n_iter: int
    error: float
    converged: bool
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LstsqResult:
    """The solution of a least squares problem.

    Attributes
    ----------
    x : ndarray or torch.Tensor, shape (d,) or (d, k)
        The solution; where the columns depend on one another, that of the least Euclidean norm,
        of all that differ by what `a`, with its columns scaled to one length, takes to zero up to
        rounding. In the wider float type of `a` and `b`, integers counting as float64.
    residual_norm : float, or ndarray of shape (k,)
        The norm of ``b - a x``, from a pass over the rows.
    rank : int
        The rank of ``a``, up to rounding.
    standard_error : ndarray or torch.Tensor, shape (d,) or (d, k), or None
        The standard error of each coordinate of ``x`` as an estimate of the exact solution:
        of what the sketch adds, not of what the noise in ``b`` does. With ``guarantee="linf"``.
    info : LstsqInfo
        How it was solved.
    """

    x: Any
    residual_norm: Any
    rank: int
    standard_error: Any
    info: LstsqInfo


def sketched_lstsq(
    a: Any,
    b: Any,
    *,
    guarantee: str = "exact",
    sketch: str = "auto",
    n_rows: int | None = None,
    epsilon: float | None = None,
    rng: Rng = None,
    callback: Callback | None = None,
) -> LstsqResult:
    r"""Solve a least squares problem of many rows: exactly, or by a sketch of them.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        Dense, or sparse in CSR form; columns may be of any scale and depend on one another.
    b : array_like or torch.Tensor, shape (n,) or (n, k)
        Targets.
    guarantee : {"exact", "l2", "linf"}
        ``"exact"``: the solution up to rounding, as accurate as by a QR decomposition.
        ``"l2"``: :math:`|A(x - x^*)| \le \epsilon\, |r|`, r being the residual of the solution
        :math:`x^*`. ``"linf"``: :math:`|x - x^*|_\infty \le (\epsilon / \sqrt d)\, |r|\, |A^+|`,
        with a standard error for every coordinate.
    sketch : {"auto", "srht", "gaussian", "sparse_sign", "countsketch"}
        For ``"exact"``, ``"auto"`` uses one only where the condition number or the shape asks for
        it, and a name always does. Else ``"auto"`` is ``"sparse_sign"`` for ``"l2"`` and
        ``"srht"`` for ``"linf"`` (``"gaussian"`` on sparse data). ``"linf"`` refuses the sparse
        kinds: where a row of `a` is far from all others, they move single coordinates by much more
        than their standard errors.
    n_rows : int, optional
        Rows of the sketch: more than d, and at most the power of two that n is padded to.
    epsilon : float, optional
        Chooses `n_rows` so that the bound holds with probability 0.99: exactly so for a Gaussian
        sketch in ``"l2"``, calibrated for the others. Less than 1; default 0.25 where `n_rows` is
        not given.
    rng : int, numpy.random.Generator, torch.Generator or None
        The seed of the sketch. Exact solutions depend on it in the last digits only; without one
        they repeat.
    callback : callable, optional
        Called with a `Progress` after each step of refinement, whose value is the length of A
        times the step over that of b. Returning ``True`` ends it there.

    Returns
    -------
    LstsqResult
        ``x``, ``residual_norm``, ``rank``, ``standard_error`` and ``info``.

    Raises
    ------
    ShapeError
        If `a` is not a matrix with a row and a column, or `b` does not fit it.
    NotFiniteError
        If an entry is infinite or NaN; it is named.
    DomainError
        If `n_rows` is d or less, or beyond the power of two that n is padded to, `epsilon` is 1 or
        more or asks for as many rows as there are, all entries of `a` are zero, or a sketch cannot
        keep what `guarantee` promises.
    TypeError
        If tensors come with NumPy arrays, or are not on the CPU, or `rng` is none of its types.
    PyprobeError
        If a gradient is asked for.

    Warns
    -----
    ConvergenceWarning
        If refinement ends above its tolerance.

    See Also
    --------
    sketch_operator : the sketches themselves.

    Notes
    -----
    ``"exact"`` makes the normal equations and refines their solution where the condition number
    allows it, up to about 1e5: O(n d^2) once, and two or three passes. Columns that are sums of
    others up to rounding are left out of them, which is checked by the rows. Else a sketch of 8 d
    rows makes the columns well conditioned first, which takes that time twice; for more than 512
    columns, and more than 64 sparse ones, 12 d rows are decomposed in O(d^3), and conjugate
    gradients follow, in about thirty passes.
    Sparse rows make the normal equations of their pairs of entries where these are few. Where even
    that costs more than passes over more than 64 columns, conjugate gradients on the columns as
    they are come first, and are given up after 60 passes or for a condition number above 100. Fewer
    than 16 d rows are decomposed as they are where the normal equations do not do. ``info.method``
    says which it was.

    Sketches cost what `sketch_operator` says, and O(m d^2). Standard errors are those of regression
    on the sketched rows, :math:`\hat\sigma\, |(SA)^+_{j}|` with :math:`\hat\sigma^2 = |S(b - Ax)|^2
    / (m - d)`: exact t intervals with m - d degrees of freedom for a Gaussian sketch. For an SRHT
    they are smaller by :math:`\sqrt{1 - m/N}`, since rows are drawn without replacement from N.
    The same bits for any number of threads.

    References
    ----------
    .. [1] E. N. Epperly, M. Meier and Y. Nakatsukasa, "Fast randomized least-squares solvers can be
       just as accurate and stable as classical direct solvers", arXiv 2406.03468, 2024.
    .. [2] Z. Song, M. Ye, J. Yin and L. Zhang, "A nearly-optimal bound for fast regression with
       l-infinity guarantee", ICML 2023, arXiv 2302.00248.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import sketched_lstsq
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=(20_000, 3))
    >>> b = a @ [1.0, 2.0, 3.0] + rng.normal(size=20_000)
    >>> exact = sketched_lstsq(a, b)
    >>> bool(np.allclose(exact.x, np.linalg.lstsq(a, b)[0], atol=1e-12))
    True
    >>> rough = sketched_lstsq(a, b, guarantee="linf", n_rows=2000, rng=0)
    >>> bool((abs(rough.x - exact.x) < 4 * rough.standard_error).all())
    True
    """
    check_choice("guarantee", guarantee, GUARANTEES)
    check_choice("sketch", sketch, ("auto", *KINDS))
    check_callback("callback", callback)
    seed = 0 if rng is None and guarantee == "exact" else key_of(rng)
    a, problem, form = _read(a, b)
    if guarantee == "exact":
        if epsilon is not None:
            raise DomainError("'epsilon' is for guarantee='l2' and 'linf'; 'exact' has no error.")
        m = None if n_rows is None else _check_rows(n_rows, a.shape)
        kind = ("sparse_sign" if m else None) if sketch == "auto" else sketch
        _check_kind(a, kind or "sparse_sign", "exact")
        found = solve_exactly(problem, kind, m, seed, _watch(callback))
        errors = None
    else:
        kind = _choose_kind(a, sketch, guarantee)
        m = _choose_rows(n_rows, epsilon, a.shape, guarantee)
        _check_kind(a, kind, guarantee)
        found, errors = _solve_sketched(problem, kind, m, seed, guarantee)
    return _result(found, errors, form)


class _Form(NamedTuple):
    """What makes results of what was computed."""

    vector: bool
    """Whether b is one."""
    exponents: Any
    """Of the powers of two that the columns of b were divided by; None where they were not."""
    largest: float
    """The largest number of the wider float type of a and b."""
    wrap: Callable[[Any], Any]

    def scaled(self, values: Any) -> Any:
        """Return what was found for the scaled columns of b for these themselves."""
        if self.exponents is None:
            return values
        with np.errstate(over="ignore"):
            return np.ldexp(values, self.exponents)


def _read(a: Any, b: Any) -> tuple[Tall, Problem, _Form]:
    """Return the checked arguments, and the form of results."""
    kinds = None
    if select(a, b, names=("a", "b")) is not Engine.NATIVE:
        for name, tensor in (("a", a), ("b", b)):
            refuse_meta(name, tensor)
            if not tensor.is_cpu:
                raise TypeError(
                    f"'{name}' must lie on the CPU; got a tensor on {tensor.device}. Use .cpu()."
                )
            if tensor.requires_grad and sys.modules["torch"].is_grad_enabled():
                raise PyprobeError(
                    f"sketched_lstsq has no derivatives, and '{name}' requires a gradient. Use "
                    ".detach(), or torch.linalg.lstsq on a sketch of both."
                )
        torch = sys.modules["torch"]
        kinds = [t.dtype if t.dtype.is_floating_point else torch.float64 for t in (a, b)]
        b = array_of("b", b)
    tall = read_tall("a", a)
    targets = as_float_array("b", b)
    dtype = np.promote_types(tall.dtype, targets.dtype)
    wrap, limits = partial(as_numpy_type, dtype=dtype), np.finfo(dtype)
    if kinds is not None:
        kind = torch.promote_types(*kinds)
        wrap, limits = partial(as_torch_type, dtype=kind), torch.finfo(kind)
    n = tall.shape[0]
    if targets.ndim not in (1, 2) or targets.shape[0] != n or targets.size == 0:
        raise ShapeError(
            f"'b' must have shape ({n},) or ({n}, k) to match 'a'; got {targets.shape}."
        )
    columns = np.ascontiguousarray(targets.reshape(n, -1), dtype=np.float64)
    norms = _norms(columns)
    exponents = None
    if not all(1e-140 < norm < 1e140 for norm in norms.tolist()):
        check_finite("b", targets)
        exponents = np.frexp(np.abs(columns).max(axis=0))[1].astype(np.int64)
        columns = np.ldexp(columns, -exponents)
        norms = _norms(columns)
    return (
        tall,
        Problem(tall, columns, norms),
        _Form(targets.ndim == 1, exponents, float(limits.max), wrap),
    )


def _norms(columns: Matrix) -> Vector:
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", columns, columns)))


def _choose_kind(a: Tall, sketch: str, guarantee: str) -> str:
    if sketch != "auto":
        return sketch
    if guarantee == "l2":
        return "sparse_sign"
    return "srht" if isinstance(a.samples, np.ndarray) else "gaussian"


def _check_kind(a: Tall, kind: str, guarantee: str) -> None:
    """Raise where a kind of sketch does not do for these data."""
    if guarantee == "linf" and kind in ("countsketch", "sparse_sign"):
        raise DomainError(
            f"'sketch' must be 'srht' or 'gaussian' for guarantee='linf'; got {kind!r}. Its "
            "columns are sparse, so two rows that meet change single coordinates by far more than "
            "the bound, even where the error is small in length. Use guarantee='l2'."
        )
    if kind == "srht" and not isinstance(a.samples, np.ndarray):
        raise DomainError(
            "'sketch' must not be 'srht' for a sparse matrix, on which it costs as much as on "
            "a dense one. Use 'gaussian' or 'sparse_sign', or pass a.toarray()."
        )


def _check_rows(n_rows: Any, shape: tuple[int, int]) -> int:
    m, (n, d) = check_positive_int("n_rows", n_rows), shape
    if m < least_rows(d):
        raise DomainError(
            f"'n_rows' must be at least {least_rows(d)} for the {d} columns of 'a'; got {m}."
        )
    most = padded_length(n)
    if m > most:
        raise DomainError(
            f"'n_rows' must be at most {most}, the power of two to which the {n} rows of 'a' are "
            f"padded; got {m}. A sketch of more rows saves nothing: use guarantee='exact' without "
            "'n_rows'."
        )
    return m


def _choose_rows(
    n_rows: int | None, epsilon: float | None, shape: tuple[int, int], guarantee: str
) -> int:
    """Return the rows that a sketch needs, or those that are asked for."""
    n, d = shape
    if n_rows is not None:
        if epsilon is not None:
            raise DomainError("'epsilon' chooses 'n_rows': pass one of the two.")
        return _check_rows(n_rows, shape)
    eps = check_positive_float("epsilon", _EPSILON if epsilon is None else epsilon)
    if eps >= 1:
        raise DomainError(
            f"'epsilon' must be less than 1; got {eps:g}. It is a part of the length of the "
            "residual, and an error as long as that is no bound. Use n_rows for a small sketch."
        )
    if guarantee == "linf":
        # The largest of d normal errors, each with the standard error |r| |A^+| / sqrt(m - d).
        m = d + math.ceil(2 * d * math.log(2 * d / _FAILURE) / eps**2)
    else:
        m = _rows_for_length(d, eps)
    if m >= n:
        raise DomainError(
            f"'epsilon' = {eps:g} with guarantee={guarantee!r} needs a sketch of {m} rows, and 'a' "
            f"has {n}. Use guarantee='exact', a larger epsilon, or n_rows of at least "
            f"{least_rows(d)}."
        )
    return m


def _rows_for_length(d: int, eps: float) -> int:
    """Return the least m for |A(x - x*)| <= eps |r| with probability 0.99, for a Gaussian sketch.

    The square of the ratio has the law of chi2(d) / chi2(m - d + 1): Hotelling's.
    """

    def quantile(m: int) -> float:
        freedom = m - d + 1
        return d / freedom * float(fdtri(d, freedom, 1 - _FAILURE))

    low, high = d, 2 * d
    while quantile(high) > eps**2:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if quantile(middle) > eps**2 else (low, middle)
    return max(high, least_rows(d))


def _solve_sketched(
    problem: Problem, kind: str, m: int, seed: int, guarantee: str
) -> tuple[Solution, Matrix | None]:
    """Solve the least squares of the sketched rows."""
    a, b = problem.a, problem.b
    operator = sketch_operator(kind, m, a.shape[0], rng=seed)
    rows, targets = sketch_samples(operator, "a", a.samples), sketch_samples(operator, "b", b)
    maxima = np.abs(rows).max(axis=0)
    if not maxima.any():
        raise DomainError("'a' must not be all zero.")
    scales = np.where(maxima > 0, power_of_two(maxima), 1.0)
    rows = rows * scales
    found = whiten(rows, targets, scales, a.dtype)
    x = found.basis @ found.start
    rank, d = found.basis.shape[1], a.shape[1]
    errors = None
    if guarantee == "linf":
        if rank < d:
            raise DomainError(
                f"'a' has rank {rank} and {d} columns: coordinates are not determined, and have "
                "no standard errors. Drop dependent columns, or use guarantee='l2'."
            )
        # P has orthonormal rows times the sketch: its own rows are those of (SA)^+ in length.
        left = _norms(targets - rows @ (x / scales[:, None]))
        fraction = m / padded_length(a.shape[0]) if kind == "srht" else 0.0
        sigma = left * math.sqrt((1 - fraction) / (m - d))
        errors = np.linalg.norm(found.basis / scales[:, None], axis=1)[:, None]
        errors = scales[:, None] * errors * sigma
    x = found.null.shortest(x)
    squares = problem.residual(x)[1]
    refined = Refined(x, squares, 0, 0.0, True)
    return Solution(refined, rank, "sketch_and_solve", found.condition, operator), errors


def _watch(callback: Callback | None) -> Callable[[int, float], bool]:
    report = Reporter(callback, total=MAX_STEPS)
    return lambda step, error: not report(step, error)


def _result(found: Solution, errors: Matrix | None, form: _Form) -> LstsqResult:
    fit, operator = found.refined, found.operator
    if not (fit.converged or fit.stopped):
        warn(
            f"sketched_lstsq stopped after {fit.n_iter} steps, the last {fit.error:.1e} of the "
            "length of 'b'; the columns may depend on one another more than their numbers can say.",
            ConvergenceWarning,
        )

    def shaped(values: Matrix) -> Any:
        values = form.scaled(values)
        plain = values[:, 0] if form.vector else values
        if not np.abs(plain).max() <= form.largest:
            raise DomainError("'a' and 'b' have a solution too large for their type; scale them.")
        return form.wrap(np.ascontiguousarray(plain))

    norms = form.scaled(np.sqrt(fit.squares))
    info = LstsqInfo(
        method=found.method,
        sketch=None if operator is None else operator.kind,
        n_rows=None if operator is None else operator.n_rows,
        condition=found.condition,
        n_iter=fit.n_iter,
        error=fit.error,
        converged=fit.converged,
        stopped=fit.stopped,
    )
    return LstsqResult(
        x=shaped(fit.x),
        residual_norm=float(norms[0]) if form.vector else norms,
        rank=found.rank,
        standard_error=None if errors is None else shaped(errors),
        info=info,
    )
