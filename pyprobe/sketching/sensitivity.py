"""Sensitivities: the largest part that a row can have in a sum of powers over all rows.

For A of shape (n, d) and p >= 1, s_i = max over x of |a_i x|^p / ||A x||_p^p. With Lewis weights w
and their geometry M = A' W^(1 - 2/p) A, Hölder's inequality puts them between two bounds that are
cheap,

    w_i^2 / sum_j |a_j' M^-1 a_i|^p  <=  s_i  <=  w_i max(1, rank^(p/2 - 1)),

of which the first is what x = M^-1 a_i attains. For p = 2 both are the leverage scores.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyprobe import _core
from pyprobe._rng import key as key_of
from pyprobe._validate import (
    check_callback,
    check_choice,
    check_positive_float,
    check_positive_int,
)
from pyprobe.errors import ConvergenceWarning, DomainError, NotPositiveDefiniteError
from pyprobe.progress import Callback, Reporter
from pyprobe.sketching._input import Matrix, Passes, Vector, check_exponent, read_tall
from pyprobe.sketching.leverage import ranked_scores
from pyprobe.sketching.lewis import LewisWeights, find_lewis, warn_open
from pyprobe.sketching.sampling import draw
from pyprobe.typing import Rng

__all__ = ["TotalSensitivity", "lp_sensitivities", "total_sensitivity"]

METHODS = ("onestep", "exact", "group")
MAX_ITER = 200
"""Steps for one row: 5 to 40 are usual."""
NOT_CONVEX = " Below 1 the problem is not convex: lewis_weights takes p from about 0.03 on."


def lp_sensitivities(
    a: Any,
    p: float,
    *,
    method: str = "onestep",
    n_coreset: int | None = 4000,
    tol: float = 1e-3,
    group_size: int = 8,
    rng: Rng = None,
    callback: Callback | None = None,
) -> Any:
    """Compute the sensitivities of the rows of a matrix in the norm of exponent p.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        Rows; see `leverage_scores`.
    p : float
        Exponent of the norm, finite and at least 1.
    method : {"onestep", "exact", "group"}
        ``"onestep"``: the part that row i has at ``x = M^-1 a_i``: a lower bound, within a few
        percent for most rows. ``"exact"``: the maximum, by iterated least squares (for p = 1 an
        interior point method), between bounds from both sides. ``"group"``, for p = 1: one search
        for ``group_size`` rows at a time, at upper bounds, but for a risk of 1 %, whose sum is at
        most ``group_size`` times too large.
    n_coreset : int or None
        Rows that stand for all in the sums over rows, drawn by Lewis weights; None takes all. The
        error of the draw, a few percent, comes on top.
    tol : float
        Relative distance of the bounds at which a search ends; below 1e-7 rounding may end it.
    group_size : int
        Rows of a group.
    rng : int, numpy.random.Generator, torch.Generator or None
        Of the coreset and the groups.
    callback : callable, optional
        Called with a `pyprobe.progress.Progress`, whose value is the part of the rows done, while
        ``"exact"`` and ``"group"`` run; an exception it raises ends them.

    Returns
    -------
    ndarray or torch.Tensor, shape (n,)
        Numbers of [0, 1], in the float type of ``a``. Constants for autograd.

    Raises
    ------
    ShapeError, NotFiniteError
        As `leverage_scores`.
    DomainError
        Where ``p`` is below 1 or infinite, all entries are zero, or ``"group"`` has another p than
        1.

    Warns
    -----
    ConvergenceWarning
        Where searches of ``"exact"`` leave the bounds apart by more than ``tol``, or
        ``"onestep"`` starts from Lewis weights whose residual stays above 1e-2, as from p = 100 or
        so on.

    Notes
    -----
    For m rows that stand for all: ``"onestep"`` O(n m d), ``"exact"`` O(n m d^2) times 5 to 40
    steps, ``"group"`` that times ``log(n) / group_size``.

    References
    ----------
    Woodruff and Yasuda (2023), Sharper bounds for lp sensitivity sampling; Padmanabhan, Woodruff
    and Zhang (2023), Computing approximate lp sensitivities (groups).

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import lp_sensitivities
    >>> a = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> lp_sensitivities(a, 1.0, method="exact").round(3)
    array([0.5, 0.5, 1. ])
    """
    p = check_exponent(p, minimum=1.0, why=NOT_CONVEX)
    check_choice("method", method, METHODS)
    if n_coreset is not None:
        n_coreset = check_positive_int("n_coreset", n_coreset)
    tol = check_positive_float("tol", tol)
    group_size = check_positive_int("group_size", group_size)
    check_callback("callback", callback)
    if method == "group" and p != 1:
        raise DomainError(f'method="group" is for p = 1; got p = {p:g}. Use "exact" or "onestep".')
    tall = read_tall("a", a)
    if p == 2:
        return tall.wrap(ranked_scores(tall)[0])
    key = key_of(rng)
    among = Among.of(tall, p, n_coreset, key)
    if method == "onestep":
        return tall.wrap(among.one_step())
    watch = _watch(callback, tall.shape[0])
    if method == "exact":
        return tall.wrap(among.exact(among.rows(), tol, watch))
    return tall.wrap(_by_groups(among, tol, group_size, key, watch))


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalSensitivity:
    """The sum of all sensitivities, from some of them.

    Attributes
    ----------
    value : float
        The estimate.
    standard_error : float
        Of the draw of rows whose sensitivities were computed.
    n_rows : int
        How many these were.
    """

    value: float
    standard_error: float
    n_rows: int

    def __float__(self) -> float:
        return self.value


def total_sensitivity(
    a: Any,
    p: float,
    *,
    n_rows: int = 400,
    n_coreset: int | None = 4000,
    tol: float = 1e-3,
    rng: Rng = None,
    callback: Callback | None = None,
) -> TotalSensitivity:
    """Estimate the sum of the sensitivities of all rows: how many rows a sample must have.

    Rows are drawn with probabilities in proportion to their Lewis weights, and the exact
    sensitivities of these averaged with weights. The ratio of the two is bounded, so the relative
    error falls as ``1 / sqrt(n_rows)`` whatever the data are.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        Rows; see `leverage_scores`.
    p : float
        Exponent of the norm, finite and at least 1.
    n_rows : int
        Rows whose sensitivity is computed.
    n_coreset, tol, rng, callback
        As in `lp_sensitivities`. Through a coreset of 4000 rows the estimate was up to 3 % too
        large where it was measured.

    Returns
    -------
    TotalSensitivity
        Between 1 and the rank for p <= 2, and ``rank ** (p / 2)`` above.

    Raises
    ------
    ShapeError, NotFiniteError, DomainError
        As `lp_sensitivities`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import total_sensitivity
    >>> total_sensitivity(np.eye(3), 1.0).value
    3.0
    """
    p = check_exponent(p, minimum=1.0, why=NOT_CONVEX)
    n_rows = check_positive_int("n_rows", n_rows, minimum=2)
    if n_coreset is not None:
        n_coreset = check_positive_int("n_coreset", n_coreset)
    tol = check_positive_float("tol", tol)
    check_callback("callback", callback)
    tall = read_tall("a", a)
    key = key_of(rng)
    among = Among.of(tall, p, n_coreset, key)
    w = among.lewis.w
    if n_rows >= np.count_nonzero(w):
        rows = np.flatnonzero(w)
        found = among.exact(among.rows(rows), tol, _watch(callback, len(rows)))
        return TotalSensitivity(value=float(found.sum()), standard_error=0.0, n_rows=len(rows))
    ends = np.cumsum(w)
    rows = np.searchsorted(ends, ends[-1] * _core.row_uniforms(key ^ 1, 0, n_rows), side="right")
    found = among.exact(among.rows(rows), tol, _watch(callback, n_rows))
    parts = found * (ends[-1] / w[rows])
    error = float(parts.std(ddof=1) / math.sqrt(n_rows))
    return TotalSensitivity(value=float(parts.mean()), standard_error=error, n_rows=n_rows)


def augmented_sensitivities(tall: Passes, p: float) -> tuple[Vector, int]:
    """Return scores that are enough to sample by, sensitivities plus leverage scores; and the rank.

    Sensitivities alone miss directions that many rows share: Munteanu and Omlor (2024).
    """
    check_exponent(p, minimum=1.0, why=NOT_CONVEX)
    leverage, rank = ranked_scores(tall)
    if p == 2:
        return leverage, rank
    return Among.of(tall, p, max(4000, 10 * rank), 0).one_step() + leverage, rank


@dataclass(frozen=True, slots=True)
class Among:
    """The rows that sums go over, in coordinates in which M is the identity."""

    tall: Passes
    p: float
    lewis: LewisWeights
    points: Matrix
    """Shape (m, rank)."""
    weights: Vector

    @classmethod
    def of(cls, tall: Passes, p: float, n_coreset: int | None, key: int) -> Among:
        """Draw them; all rows where they are no more than `n_coreset`."""
        lewis = find_lewis(tall, p)
        if n_coreset is None or n_coreset >= np.count_nonzero(lewis.w):
            indices = np.flatnonzero(lewis.w)
            weights = np.ones(len(indices))
        else:
            if n_coreset < lewis.info.rank:
                raise DomainError(
                    f"'n_coreset' must be at least the rank of 'a', {lewis.info.rank}; got "
                    f"{n_coreset}: fewer rows cannot stand for all."
                )
            # Not by the variates of a sample of the same seed, which may follow by these scores.
            drawn = draw(lewis.w, n_coreset, "bernoulli", key ^ 3)
            indices, weights = drawn.indices, drawn.weights
        transform = lewis.space.to_columns(lewis.transform)
        return cls(tall, p, lewis, tall.take_rows(indices) @ transform, weights)

    def rows(self, indices: Any = None) -> Matrix:
        """Return these rows of the matrix, or all, in the coordinates."""
        every = np.arange(self.tall.shape[0]) if indices is None else indices
        return self.tall.take_rows(every) @ self.lewis.space.to_columns(self.lewis.transform)

    def cut(self, found: Vector, w: Vector) -> Vector:
        """Return what is not above the upper bound, nor 1."""
        return np.minimum(found, np.minimum(1.0, self.bound_factor * w))

    @property
    def bound_factor(self) -> float:
        """What Lewis weights are multiplied by to bound sensitivities from above."""
        # The weights come to 1 % or so; a bound must hold.
        slack = self.p * self.lewis.info.residual
        growth = max(0.0, (self.p / 2 - 1) * math.log(self.lewis.info.rank))
        return math.exp(min(slack + growth, 700.0))  # beyond it the bound is 1 anyway

    def one_step(self) -> Vector:
        """Return the lower bounds; warn where the point that makes them is far from the best."""
        warn_open(
            self.lewis.info,
            self.p,
            'bounds from below, method="onestep", may be far off. Use method="exact".',
        )
        transform = self.lewis.space.to_columns(self.lewis.transform)
        p = self.p
        own = self.tall.squared_norms(transform)
        sums = self.tall.pair_power_sums(transform, self.points, self.weights, p)
        # In two factors: the square of a weight leaves the floating-point numbers before it does.
        w = own ** (p / 2)
        live = sums > 0
        found = np.where(live, w / np.where(live, sums, 1.0), self.bound_factor) * w
        return self.cut(found, w)

    def exact(self, targets: Matrix, tol: float, watch: Any) -> Vector:
        """Return the largest parts of targets (k, rank), from below to `tol`."""
        lengths = np.linalg.norm(targets, axis=1)
        lower, upper = self.search(
            targets / np.where(lengths > 0, lengths, 1.0)[:, None], tol, watch
        )
        live = lower > 0
        gaps = upper[live] / lower[live] - 1
        n_open = int((gaps > 1.01 * tol).sum())
        if n_open:
            warnings.warn(
                f"the bounds of {n_open} of {len(lower)} sensitivities are still apart by a part "
                f"of up to {gaps.max():.1e} where searches ended, after {MAX_ITER} steps or by "
                f"rounding, above tol = {tol:g}; those from below are returned.",
                ConvergenceWarning,
                stacklevel=3,
            )
        powers = lengths**self.p
        return self.cut(lower * powers, powers)

    def search(self, targets: Matrix, tol: float, watch: Any) -> tuple[Vector, Vector]:
        """Return bounds of the largest parts of targets (k, rank), from below and above."""
        try:
            return _core.exact_sensitivities(
                self.points, self.weights, targets, self.p, tol, MAX_ITER, watch
            )
        except NotPositiveDefiniteError:
            raise DomainError(
                "the rows that stand for all do not span the columns, or their powers vanish for "
                f"'p' = {self.p:g}; raise 'n_coreset', or use method=\"onestep\"."
            ) from None


def _by_groups(among: Among, tol: float, group_size: int, key: int, watch: Any) -> Vector:
    """Return one number for all rows of a group: the most that a sum of them, with signs, attains.

    Where x is best for a row, the others of its group add to it for one of two signs: of log2(n)
    + 7 sums with random signs one is as large as the row's part, but for a risk of 1 %.
    """
    rows = among.rows()
    n = len(rows)
    rng = np.random.default_rng(key ^ 2)
    groups = np.array_split(rng.permutation(n), math.ceil(n / group_size))
    n_trials = math.ceil(math.log2(n)) + 7
    sums = np.concatenate(
        [rng.choice([-1.0, 1.0], size=(n_trials, len(group))) @ rows[group] for group in groups]
    )
    lower, upper = among.search(sums, tol, watch)
    most = np.where(np.isfinite(upper), upper, lower).reshape(len(groups), n_trials).max(axis=1)
    found = np.empty(n)
    for group, value in zip(groups, most, strict=True):
        found[group] = value
    return among.cut(found, among.lewis.w)


def _watch(callback: Callback | None, total: int) -> Any:
    if callback is None:
        return None
    report = Reporter(callback, total)

    def watch(done: int) -> None:
        step = min(done, total)
        report(step, step / total)

    return watch
