r"""A sample of the rows of a stream, in one pass and in little memory.

Every row has a uniform variate :math:`u_i`, and is kept while :math:`u_i < \pi_i`. Whenever a block
is full, scores :math:`s_i` of all rows held are made anew, and with T the (m + 1)-th smallest
:math:`u_i / s_i`,

.. math:: \pi_i \leftarrow \min(\pi_i, T s_i),

which leaves m rows. In the end a row weighs :math:`1 / \pi_i`. A row that is kept to the end has
been below T each time: had its variate been 0, nothing computed on the way would have been another
number. So, given the variates of the others, its weight is 1 in expectation, whatever the scores
were, and the same goes for any set of rows together: sums over rows, and products of two of them,
are unbiased. One variate decides for all reductions, so that their errors do not add up, as those
of draws from draws do. This is priority sampling (Duffield, Lund and Thorup 2007) with a threshold
that adapts (Ting 2017).

For p = 2 the scores are leverage scores among all rows so far: the triangular factor of their QR
decomposition is kept up to date. For other p they are Lewis weights of the rows held, each standing
for as many as it weighs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from pyprobe import _core
from pyprobe._rng import key as key_of
from pyprobe._validate import check_positive_int
from pyprobe.cluster._samples import Samples, as_samples, dtype_of
from pyprobe.errors import DomainError
from pyprobe.sketching._chunks import ChunkReader, copied, finite_maxima, holds_chunks, join
from pyprobe.sketching._input import (
    Matrix,
    Tall,
    Vector,
    as_dense,
    as_matrix,
    check_exponent,
    cut,
    shape_of,
)
from pyprobe.sketching._space import find_space, inverse_factor
from pyprobe.sketching.lewis import LewisInfo, find_lewis, warn_open
from pyprobe.sketching.sampling import RowSample, times
from pyprobe.typing import Rng

__all__ = ["StreamingCoreset"]

BLOCK = 8192
"""Rows that are read between two reductions, or twice the sample where that is more."""


class StreamingCoreset:
    """A sample of the rows of a stream that is read once.

    Unlike the other values of this library it changes: `update` takes in rows, `merge` those of
    another. It can be pickled, to go on later or elsewhere.

    Parameters
    ----------
    n_samples : int
        Number of rows to keep, at least the rank of all rows.
    p : float
        Exponent of the norm to be kept, positive and finite.
    rng : int, numpy.random.Generator, torch.Generator or None
        Of the draw. Each row has a number of its own: chunks never change a sample. Streams that
        will be merged need different ones.

    Raises
    ------
    DomainError
        Where ``n_samples`` is not positive, or ``p`` not positive and finite.

    Warns
    -----
    ConvergenceWarning
        Once for a stream, by `update`, `merge` or `result`, where Lewis weights are left with a
        residual above 1e-2, as from p = 100 or so on: the sample is unbiased still, but has a
        larger variance, so that it may need more rows.

    See Also
    --------
    sample_rows : two passes or more over chunks that can be read again.

    Notes
    -----
    Memory: ``3 n_samples`` rows, or ``n_samples + 8192`` where that is more, and for p = 2 a matrix
    of shape (d, d). O(d^2) a row: for p = 2 about three times the time of `sample_rows` on rows in
    memory, for other p about twice. With p = 2 the scores are those of `leverage_scores` on all
    rows, and the sample is as good as that of `sample_rows` at the same size. With other p they are
    estimated from the rows held.

    References
    ----------
    Duffield, Lund and Thorup (2007), Priority sampling for estimation of arbitrary subset sums;
    Ting (2017), Adaptive threshold sampling and unbiased estimation; Cohen, Musco and Pachocki
    (2016), Online row sampling.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import StreamingCoreset
    >>> rng = np.random.default_rng(0)
    >>> coreset = StreamingCoreset(500, rng=0)
    >>> for _ in range(20):
    ...     coreset.update(rng.standard_normal((1000, 3)))
    >>> coreset.result()
    RowSample(500 of 20000 rows, p=2, rank=3, guarantee=None)
    >>> coreset.rows().shape
    (500, 3)
    """

    def __init__(self, n_samples: int, *, p: float = 2.0, rng: Rng = None) -> None:
        self._n_samples = check_positive_int("n_samples", n_samples)
        self._p = check_exponent(p)
        self._key = key_of(rng)
        self._keys = {self._key}
        self._reader = ChunkReader("a")
        self._n_rows = 0
        self._kept: list[_Held] = []
        self._fresh: list[_Held] = []
        self._n_held = 0  # of both
        # Has the products of columns of all rows that have been through a reduction; for p = 2.
        self._factor: Matrix | None = None
        self._final: tuple[_Held, int] | None = None
        # Of the first reduction whose weights have not converged; and whether that has been told.
        self._open: LewisInfo | None = None
        self._warned = False

    @property
    def n_samples(self) -> int:
        """Number of rows to keep."""
        return self._n_samples

    @property
    def p(self) -> float:
        """Exponent of the norm to be kept."""
        return self._p

    @property
    def n_rows(self) -> int:
        """Number of rows read so far."""
        return self._n_rows

    def __repr__(self) -> str:
        return (
            f"StreamingCoreset(n_samples={self._n_samples}, p={self._p:g}, n_rows={self._n_rows})"
        )

    def update(self, chunk: Any) -> None:
        """Take in the next rows of the stream.

        Parameters
        ----------
        chunk : array_like, sparse matrix or torch.Tensor, shape (k, d)
            Rows; all chunks have d columns, are dense or all sparse, and of one float type. Empty
            ones are skipped. Nothing of it is kept but copies of rows.

        Raises
        ------
        ShapeError
            Where it is not a matrix, or has another number of columns than the chunks before.
        NotFiniteError
            Where an entry is infinite or NaN. The rows of the chunk are not taken in.
        TypeError
            Where it is of another kind than the chunks before, or many chunks at once.
        """
        if holds_chunks(chunk):
            raise TypeError(
                f"'chunk' must be one matrix of rows; got a {type(chunk).__name__} of chunks. "
                "Call update with each of them, in a loop."
            )
        number = self._reader.n_read
        samples = self._reader.read(chunk)
        if samples is None:
            return
        finite_maxima(samples, number, self._n_rows)
        at, n = 0, shape_of(samples)[0]
        self._final = None
        while at < n:
            stop = min(n, at + self._room())
            uniforms = _core.row_uniforms(self._key, self._n_rows, stop - at)
            numbers = np.arange(self._n_rows, self._n_rows + stop - at)
            rows = copied(cut(samples, at, stop))
            self._fresh.append(_Held(rows, numbers, uniforms, np.ones(stop - at)))
            self._n_rows += stop - at
            self._n_held += stop - at
            at = stop
            if self._room() == 0:
                self._reduce()
        self._warn_once()

    def merge(self, other: StreamingCoreset) -> None:
        """Take in the rows of another stream, which are numbered after one's own.

        The other stays as it is.

        Raises
        ------
        DomainError
            Where ``n_samples`` or ``p`` differ, or the draws of both are of the same ``rng``.
        ShapeError, TypeError
            Where the rows do not fit together, or ``other`` is no stream.
        """
        if not isinstance(other, StreamingCoreset):
            raise TypeError(
                f"'other' must be a StreamingCoreset; got {type(other).__name__}. Rows go into "
                "update."
            )
        if (other.n_samples, other.p) != (self.n_samples, self.p):
            raise DomainError(
                f"'other' must have n_samples={self.n_samples} and p={self.p:g}; got {other!r}."
            )
        if self._keys & other._keys:
            raise DomainError(
                "'other' must have another 'rng': with the same one the draws of both depend on "
                "each other. Give every stream its own, np.random.default_rng([seed, number])."
            )
        self._reader.check_fits(other._reader)
        begin = self._n_rows
        self._kept += [part.shifted(begin) for part in other._kept]
        self._fresh += [part.shifted(begin) for part in other._fresh]
        self._factor = _stacked(self._factor, other._factor)
        self._keys |= other._keys
        self._n_rows += other._n_rows
        self._n_held += other._n_held
        self._final = None
        self._open = self._open or other._open
        self._warned |= other._warned
        if self._room() <= 0:
            self._reduce()
        self._warn_once()

    def result(self) -> RowSample:
        """Return the sample of the rows so far; the stream may go on.

        Raises
        ------
        DomainError
            Where there are no rows, all are zero, or ``n_samples`` is below their rank.
        """
        kept, rank = self._finish()
        return RowSample(
            indices=kept.indices,
            weights=1 / kept.probabilities,
            probabilities=kept.probabilities,
            p=self._p,
            n_rows=self._n_rows,
            rank=rank,
        )

    def rows(self) -> Any:
        """Return the rows that `result` has the numbers of: an array, CSR matrix or tensor."""
        kept, _ = self._finish()
        found = as_matrix(kept.samples)
        return found if scipy.sparse.issparse(found) else self._wrap(found)

    def scaled(self) -> Any:
        """Return these rows times ``weights ** (1 / p)``; see `RowSample.scaled`."""
        return times(self.rows(), self.result().weights ** (1 / self._p))

    def _wrap(self, found: Any) -> Any:
        wrap = self._reader.wrap
        return found if wrap is None else wrap(found)

    def _finish(self) -> tuple[_Held, int]:
        if self._final is None:
            if self._n_rows == 0:
                raise DomainError("the stream has no rows yet; call 'update' first.")
            kept, _, rank = self._reduced()
            if rank == 0:
                raise DomainError(f"'a' must not be all zero; got {self._n_rows} rows that are.")
            if self._n_samples < rank:
                raise DomainError(
                    f"'n_samples' must be at least the rank of 'a', {rank}; got "
                    f"{self._n_samples}: fewer rows cannot span its columns."
                )
            self._final = kept.in_order(), rank
            self._warn_once()
        return self._final

    def _room(self) -> int:
        """Return how many rows more can be held before the next reduction."""
        return self._n_samples + max(BLOCK, 2 * self._n_samples) - self._n_held

    def _reduce(self) -> None:
        kept, self._factor, _ = self._reduced()
        self._kept, self._fresh, self._n_held = [kept], [], len(kept.indices)

    def _reduced(self) -> tuple[_Held, Matrix | None, int]:
        """Return the rows that stay, what has the products of columns of all, and their rank."""
        held, factor = _Held.joined(self._kept + self._fresh), self._factor
        if self._p == 2:
            fresh = [as_dense(as_matrix(part.samples)) for part in self._fresh]
            stack = _stacked(factor, *fresh)
            scores, factor, rank = _leverage(held.samples, stack, self._n_rows)
        else:
            scores, info = _lewis(held, self._p)
            rank = info.rank
            if not info.converged and np.count_nonzero(scores) > self._n_samples:
                self._open = self._open or info
        return _drawn(held, scores, self._n_samples), factor, rank

    def _warn_once(self) -> None:
        # After all rows are in: where warnings are errors, nothing of a chunk is lost.
        if self._open is not None and not self._warned:
            self._warned = True
            warn_open(
                self._open,
                self._p,
                "rows of the stream are kept by them as they are: sums over the sample stay "
                "unbiased, with a larger variance. Raise n_samples; or, of rows that can be read "
                "again, sample_rows takes scores=lewis_weights(a, p, max_iter=...).",
            )


@dataclass(frozen=True, slots=True)
class _Held:
    """Rows, with the probabilities to be held until now."""

    samples: Samples
    indices: npt.NDArray[np.int64]
    uniforms: Vector
    probabilities: Vector

    def shifted(self, by: int) -> _Held:
        """Return the same rows by other numbers."""
        return replace(self, indices=self.indices + by)

    def in_order(self) -> _Held:
        return self.taken(np.argsort(self.indices, kind="stable"))

    def taken(self, which: Any) -> _Held:
        """Return a copy of some."""
        rows = as_samples("a", as_matrix(self.samples)[which])
        rest = (self.indices[which], self.uniforms[which], self.probabilities[which])
        return _Held(rows, *rest)

    @classmethod
    def joined(cls, parts: list[_Held]) -> _Held:
        """Return the rows of all parts."""
        return cls(
            join([part.samples for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.uniforms for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
        )


def _drawn(held: _Held, scores: Vector, n_samples: int) -> _Held:
    """Return the rows that stay, by these scores of those held."""
    live = np.flatnonzero(scores)
    held, scores = held.taken(live), scores[live]
    if len(live) <= n_samples:
        return held
    with np.errstate(over="ignore"):  # of the smallest scores, whose rows do not stay
        priorities = held.uniforms / scores
        threshold = np.partition(priorities, n_samples)[n_samples]
        probabilities = np.minimum(held.probabilities, threshold * scores)
    stays = np.flatnonzero(priorities < threshold)
    return replace(held, probabilities=probabilities).taken(stays)


def _stacked(*parts: Matrix | None) -> Any:
    """Return rows that have the products of columns of all parts together."""
    there = [part for part in parts if part is not None]
    return np.vstack(there) if there else None


def _leverage(samples: Samples, stack: Matrix, n_rows: int) -> tuple[Vector, Matrix, int]:
    """Return leverage scores of rows among all, which have the products of columns of a stack.

    Then come the triangular factor of the stack, and its rank.
    """
    if not stack.any():
        return np.zeros(shape_of(samples)[0]), stack[:0], 0
    # The rounding of decompositions of decompositions adds up as a walk does.
    n_summed = max(20 * stack.shape[1], math.isqrt(n_rows))
    all_rows = Tall("a", stack, shape_of(stack), dtype_of(samples), np.asarray)
    space = find_space(all_rows, n_summed=n_summed)
    if space.method == "gram":
        factor = np.zeros((space.rank, stack.shape[1]))
        factor[:, space.kept] = np.linalg.cholesky(space.gram).T / space.scales[space.kept]
    else:
        factor = np.asarray(np.linalg.qr(stack, mode="r"), dtype=np.float64)
    transform = space.to_columns(inverse_factor(space.gram))
    return np.minimum(_core.rows_squared_norms(samples, transform), 1.0), factor, space.rank


def _lewis(held: _Held, p: float) -> tuple[Vector, LewisInfo]:
    """Return Lewis weights of rows among all, for which these stand by theirs.

    A row of weight v stands for v rows, as its multiple by v^(1 / p) does. Beside the weights comes
    how their iteration went.
    """
    with np.errstate(over="ignore"):
        factors = held.probabilities ** (-1 / p)
    if not np.isfinite(factors).all():
        raise DomainError(f"weights ** (1 / p) overflow for 'p' = {p:g}; use a larger one.")
    rows = as_samples("a", times(as_matrix(held.samples), factors))
    if not _core.column_maxima(rows).any():
        nothing = LewisInfo(converged=True, n_iter=0, residual=0.0, rank=0)
        return np.zeros(len(held.indices)), nothing
    found = find_lewis(Tall("a", rows, shape_of(rows), dtype_of(rows), np.asarray), p)
    transform = found.space.to_columns(found.transform)
    squares = _core.rows_squared_norms(held.samples, transform)
    return np.asarray(squares ** (p / 2)), found.info
