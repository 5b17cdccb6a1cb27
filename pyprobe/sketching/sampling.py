"""Samples of the rows of a tall matrix, by scores: few rows that stand for all.

Row i is kept with probability p_i = min(1, c s_i), the scores s_i times a level c that makes the
probabilities sum to the wanted size, and then weighs 1 / p_i: sums over the sample are unbiased,
and heavy rows are kept for certain, with weight 1. In the norm of exponent p the sample is ||S A
x||_p^p = sum of weights_i |a_i x|^p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.special import ndtri

from pyprobe import _core
from pyprobe._rng import key as key_of
from pyprobe._validate import (
    as_float_array,
    check_choice,
    check_finite,
    check_positive_float,
    check_positive_int,
)
from pyprobe.errors import DomainError, ShapeError
from pyprobe.sketching._chunks import is_stream, rows_of, take_from
from pyprobe.sketching._input import Passes, Vector, array_of, check_exponent, read_passes
from pyprobe.sketching.leverage import ranked_scores
from pyprobe.sketching.lewis import find_lewis, warn_open
from pyprobe.typing import Rng

__all__ = ["RowSample", "sample_rows"]

SCHEMES = ("bernoulli", "pivotal", "replacement")
SCORES = ("auto", "leverage", "root_leverage", "lewis", "sensitivity", "uniform")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowSample:
    """A sample of rows.

    Attributes
    ----------
    indices : ndarray of int64, shape (m,)
        Numbers of the rows that were kept, in rising order, each once.
    weights : ndarray, shape (m,)
        What each counts in a sum over all rows: how often it was drawn over how often it was
        expected, so ``1 / probabilities`` but with replacement.
    probabilities : ndarray, shape (m,)
        Of the rows kept: their expected numbers of draws.
    p : float
        Exponent of the norm that the sample is for.
    n_rows : int
        Number of rows that were sampled from.
    rank : int or None
        Of the matrix, where the scores came from it.
    guarantee : {None, "calibrated", "theorem"}
        Where the size came from ``epsilon``: whether it is proven or measured that it is enough.
    """

    indices: npt.NDArray[np.int64]
    weights: Vector
    probabilities: Vector
    p: float
    n_rows: int
    rank: int | None = None
    guarantee: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return (
            f"RowSample({len(self)} of {self.n_rows} rows, p={self.p:g}, rank={self.rank}, "
            f"guarantee={self.guarantee!r})"
        )

    def apply(self, a: Any) -> Any:
        """Return the rows of `a` that were kept: an array, a sparse matrix or a tensor.

        Raises
        ------
        ShapeError
            Where `a` has not as many rows as were sampled from.
        """
        return _taken(a, self.indices, self.n_rows)

    def scaled(self, a: Any) -> Any:
        """Return the rows of `a` that were kept, times ``weights ** (1 / p)``.

        Norms of exponent p of combinations of the columns are then those of all rows, nearly.
        """
        return times(_taken(a, self.indices, self.n_rows), self.weights ** (1 / self.p))

    def distortion(self, a: Any) -> tuple[float, float]:
        """Return the extremes of ``||S A x||_p / ||A x||_p``: see `subspace_distortion`."""
        from pyprobe.sketching.distortion import subspace_distortion

        return subspace_distortion(a, self)


def _taken(a: Any, indices: npt.NDArray[np.int64], n_rows: int) -> Any:
    # Chunks of targets, vectors, cannot be told from rows but by their number.
    vectors = isinstance(a, list | tuple) and a and getattr(a[0], "ndim", None) == 1
    if (vectors and len(a) != n_rows) or is_stream(a):
        return take_from(a, indices, n_rows)
    if not hasattr(a, "shape"):
        a = np.asarray(a)
    if not a.shape or a.shape[0] != n_rows:
        raise ShapeError(
            f"'a' must have the {n_rows} rows that were sampled from; got shape {tuple(a.shape)}."
        )
    return rows_of(a, indices)


def times(rows: Any, factors: Any) -> Any:
    """Return every row times a factor: an array, a sparse matrix or a tensor."""
    if scipy.sparse.issparse(rows):
        return rows.multiply(factors[:, None].astype(rows.dtype)).tocsr()
    if hasattr(rows, "new_tensor"):
        kind = rows.dtype if rows.is_floating_point() else None
        return rows * rows.new_tensor(factors, dtype=kind).reshape(-1, *[1] * (rows.ndim - 1))
    rows = np.asarray(rows) if hasattr(rows, "iloc") else rows
    kind = rows.dtype if rows.dtype.kind == "f" else np.dtype(np.float64)
    return rows * factors.astype(kind).reshape(-1, *[1] * (rows.ndim - 1))


def sample_rows(
    a: Any,
    n_samples: int | None = None,
    *,
    scores: Any = "auto",
    p: float = 2.0,
    scheme: str = "bernoulli",
    epsilon: float | None = None,
    guarantee: str = "calibrated",
    rng: Rng = None,
) -> RowSample:
    """Draw rows of a matrix by their scores, so that few of them stand for all.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        Rows; see `leverage_scores`.
    n_samples : int, optional
        Expected number of rows; exact with ``scheme="pivotal"``. Either this or ``epsilon``.
    scores : {"auto", "leverage", "root_leverage", "lewis", "sensitivity", "uniform"} or array_like
        What the probabilities are in proportion to: ``"auto"`` is ``"leverage"`` for p = 2 and
        ``"lewis"`` else; ``"root_leverage"`` is ``leverage ** (p / 2)``. Or nonnegative numbers of
        shape (n,).
    p : float
        Exponent of the norm to be kept.
    scheme : {"bernoulli", "pivotal", "replacement"}
        Rows on their own; so that their number is exact; or in independent draws of one row each,
        which need many times more rows where some are heavy.
    epsilon : float, optional
        Wanted distortion of norms, in (0, 1), from which the size is found.
    guarantee : {"calibrated", "theorem"}
        With ``epsilon``: sizes that were enough in 95 of 100 draws of each family of data in the
        benchmarks, and are, but for the skewness of counts, for columns that share no row: about
        ``rank log(rank) / (p epsilon)^2``; or, for p = 2, scores of leverage and independent
        draws (not ``"pivotal"``), those of the matrix Chernoff bound, at a risk of 5 %.
    rng : int, numpy.random.Generator, torch.Generator or None
        Of the draws. Each row has a number of its own: neither chunks nor threads change a sample.

    Returns
    -------
    RowSample
        Rows and weights; all rows of positive score where there are no more than ``n_samples``.

    Raises
    ------
    ShapeError, NotFiniteError
        As `leverage_scores`, or where ``scores`` do not fit.
    DomainError
        Where ``n_samples`` is below the rank, scores are negative or all zero, or ``p``,
        ``epsilon`` are out of range.

    Warns
    -----
    ConvergenceWarning
        Where the scores come from Lewis weights whose residual stays above 1e-2, as from p = 100
        or so on: the sample is unbiased still, but may need more rows.

    Notes
    -----
    O(n d^2) for the scores, O(n) for the draw.

    References
    ----------
    Cohen and Peng (2015), lp row sampling by Lewis weights; Deville and Tillé (1998), Unequal
    probability sampling without replacement through a splitting method; Tropp (2012), User-friendly
    tail bounds for sums of random matrices, Theorem 1.1.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import sample_rows
    >>> a = np.random.default_rng(0).standard_normal((100_000, 5))
    >>> sample = sample_rows(a, 1000, rng=0)
    >>> few = sample.scaled(a)
    >>> bool(np.linalg.norm(few.T @ few - a.T @ a, 2) < 0.2 * np.linalg.norm(a.T @ a, 2))
    True
    """
    p = check_exponent(p)
    check_choice("scheme", scheme, SCHEMES)
    check_choice("guarantee", guarantee, ("calibrated", "theorem"))
    if (n_samples is None) == (epsilon is None):
        raise DomainError("either 'n_samples' or 'epsilon' must be given, and not both.")
    if n_samples is not None:
        n_samples = check_positive_int("n_samples", n_samples)
    if guarantee == "theorem" and scheme == "pivotal":
        raise DomainError(
            'guarantee="theorem" is for rows drawn independently: scheme="bernoulli" or '
            '"replacement"; got "pivotal".'
        )
    tall = read_passes("a", a)
    key = key_of(rng)
    if isinstance(scores, str):
        check_choice("scores", scores, SCORES)
        kind = scores if scores != "auto" else ("leverage" if p == 2 else "lewis")
        values, rank = row_scores(tall, kind, p)
    else:
        kind, values, rank = "array", _given_scores(scores, tall.shape[0]), None
    promise = None
    if n_samples is None:
        n_samples = size_for(epsilon, rank, p, kind, guarantee)
        promise = guarantee
    if rank is not None and n_samples < rank:
        raise DomainError(
            f"'n_samples' must be at least the rank of 'a', {rank}; got {n_samples}: fewer rows "
            "cannot span its columns."
        )
    drawn = draw(values, n_samples, scheme, key)
    return RowSample(
        indices=drawn.indices,
        weights=drawn.weights,
        probabilities=drawn.probabilities,
        p=p,
        n_rows=tall.shape[0],
        rank=rank,
        guarantee=promise,
    )


def row_scores(tall: Passes, kind: str, p: float) -> tuple[Vector, int | None]:
    """Return the scores of this kind, and the rank where they tell it."""
    if kind == "uniform":
        tall.check_finite()
        return np.ones(tall.shape[0]), None
    if kind == "lewis":
        found = find_lewis(tall, p)
        warn_open(
            found.info,
            p,
            "rows are drawn by them as they are. Nearer ones are scores=lewis_weights(a, p, "
            "max_iter=...) with a larger number of passes.",
        )
        return found.w, found.info.rank
    if kind == "sensitivity":
        from pyprobe.sketching.sensitivity import augmented_sensitivities

        return augmented_sensitivities(tall, p)
    scores, rank = ranked_scores(tall)
    return (scores ** (p / 2) if kind == "root_leverage" else scores), rank


def _given_scores(scores: Any, n: int) -> Vector:
    if hasattr(scores, "detach"):
        scores = array_of("scores", scores)
    values = np.ascontiguousarray(as_float_array("scores", scores), dtype=np.float64)
    if values.shape != (n,):
        raise ShapeError(f"'scores' must have shape ({n},), one a row of 'a'; got {values.shape}.")
    check_finite("scores", values)
    if values.min() < 0:
        index = int(values.argmin())
        raise DomainError(f"'scores' must be nonnegative; got {values[index]} at index {index}.")
    if not values.any():
        raise DomainError("'scores' must not be all zero.")
    return values


def size_for(epsilon: float | None, rank: int | None, p: float, kind: str, guarantee: str) -> int:
    """Return the number of rows for a distortion of norms of `epsilon`."""
    epsilon = check_positive_float("epsilon", epsilon)
    if epsilon >= 1:
        raise DomainError(f"'epsilon' must be below 1, a relative error of norms; got {epsilon:g}.")
    if rank is None:
        raise DomainError(
            "'epsilon' needs scores that come from 'a', which tell its rank; give 'n_samples' with "
            "scores of your own, or uniform ones."
        )
    if guarantee == "calibrated":
        # The part of a sum of powers that its root may be off by.
        part = min((1 + epsilon) ** p - 1, 1 - (1 - epsilon) ** p)
        measured = (2.75 if p == 2 else (4.0 if p >= 1.5 else 5.0)) / epsilon**2
        # Columns that share no row are counts of draws, `rank` of them, of m / rank on average.
        counts: float = (float(ndtri(RISK / (2 * rank))) / part) ** 2
        return math.ceil(rank * max(measured, counts))
    if p != 2 or kind != "leverage":
        raise DomainError(
            'guarantee="theorem" is for p = 2 and scores="leverage": for other norms no constants '
            "are known; use guarantee=\"calibrated\", or give 'n_samples'."
        )
    # Of squared norms: they may fall to (1 - epsilon)^2 and rise to (1 + epsilon)^2.
    rates = [(1 + s) * math.log(1 + s) - s for s in (epsilon**2 - 2 * epsilon, 2 * epsilon)]
    return math.ceil(rank * math.log(2 * rank / RISK) / min(rates))


RISK = 0.05
"""Of a distortion above `epsilon`, with a theorem."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows, in rising order, with weights and expected numbers of draws."""

    indices: npt.NDArray[np.int64]
    weights: Vector
    probabilities: Vector = field(repr=False)


def draw(scores: Any, n_samples: int, scheme: str, key: int) -> Drawn:
    """Draw rows by their scores; all of positive score where these are no more than `n_samples`."""
    # Aligned too, which arrays that came from another process may not be.
    scores = np.require(scores, np.float64, ["C", "A"])
    level = _core.water_level(scores, float(n_samples))
    if level is None:
        indices = np.flatnonzero(scores)
        return Drawn(indices, np.ones(len(indices)), np.ones(len(indices)))
    if scheme == "replacement":
        return _with_replacement(scores, n_samples, key)
    if scheme == "bernoulli":
        indices = _core.bernoulli_rows(scores, level, key, 0)
        probabilities = _core.row_probabilities(scores[indices], level)
    else:
        every = _core.row_probabilities(scores, level)
        indices = _core.pivotal_rows(every, key)
        probabilities = every[indices]
    return Drawn(indices, 1 / probabilities, probabilities)


def _with_replacement(scores: Vector, n_samples: int, key: int) -> Drawn:
    scores = scores / scores.max()  # sums of scores of any scale stay numbers
    ends = np.cumsum(scores)
    uniforms = _core.row_uniforms(key, 0, n_samples)
    rows = np.searchsorted(ends, uniforms * ends[-1], side="right")
    indices, counts = np.unique(rows, return_counts=True)
    expected = n_samples * scores[indices] / ends[-1]
    return Drawn(indices.astype(np.int64), counts / expected, expected)
