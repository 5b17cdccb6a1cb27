"""Leverage scores: how much each row of a tall matrix alone can say.

For A of shape (n, d), tau_i = a_i' (A' A)^+ a_i: the diagonal of the projection onto the space that
the columns span, between 0 and 1, in sum the rank. O(n d^2) in two passes over the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import qr

from pyprobe._rng import key as key_of
from pyprobe._validate import check_choice, check_positive_float, check_positive_int
from pyprobe.errors import DomainError
from pyprobe.sketching._input import Passes, Tall, Vector, read_passes
from pyprobe.sketching._space import SKETCH_ROWS, find_space, inverse_factor
from pyprobe.typing import Rng

__all__ = ["leverage_scores"]

METHODS = ("auto", "gram", "qr", "sketch_qr", "approx")


def leverage_scores(
    a: Any,
    *,
    method: str = "auto",
    ridge: float = 0.0,
    n_projections: int = 20,
    rng: Rng = None,
) -> Any:
    """Compute the leverage scores of the rows of a matrix.

    Parameters
    ----------
    a : array_like, sparse matrix or torch.Tensor, shape (n, d)
        Rows; dense, or sparse in SciPy's or torch's CSR form. Columns may depend on one another and
        be of any scale. Or row chunks that can be read again: a list of such matrices, anything
        with a length that gives one for each index, or a function that begins to read anew each
        time it is called.
    method : {"auto", "gram", "qr", "sketch_qr", "approx"}
        ``"gram"`` factors the Gram matrix: fastest, for condition numbers up to about 1e5.
        ``"sketch_qr"`` first makes a good basis from a QR decomposition of a sketch: as accurate
        as ``"qr"``, which decomposes all rows. ``"auto"`` takes the first where the condition
        number allows it, else the second. ``"approx"`` multiplies a basis from a sketch of m =
        ``max(20 d, 8 n_projections)`` rows by ``n_projections`` random vectors: scores with a
        relative standard error of ``sqrt(2 / n_projections + 2 / m)``, cut at 1. The sketch is
        always the same: means over many ``rng`` keep its part of the error.
    ridge : float
        Strength of a penalty: scores ``a_i' (A' A + ridge I)^-1 a_i``, in sum the effective
        dimension. Not with ``method="qr"``.
    n_projections : int
        Random vectors of ``"approx"``.
    rng : int, numpy.random.Generator, torch.Generator or None
        Of the projections; only ``"approx"`` draws any.

    Returns
    -------
    ndarray or torch.Tensor, shape (n,)
        Scores of [0, 1], in the float type of ``a``; in sum the rank of ``a``. Constants for
        autograd.

    Raises
    ------
    ShapeError
        Where ``a`` is not a matrix with a row and a column, or a chunk has another number of
        columns.
    TypeError
        Where chunks are of different kinds, or can be read only once: `StreamingCoreset` takes
        these.
    NotFiniteError
        Where an entry is infinite or NaN; it is named.
    DomainError
        Where all entries are zero, ``method="gram"`` meets columns that depend on one another, or
        ``method="qr"`` meets chunks.

    Notes
    -----
    O(n d^2) for two passes over the rows, three with a sketch; ``"approx"`` O(n d
    n_projections). The same bits for any number of threads, and for any chunks. Relative errors are
    about 1e-16 times the square of the condition number of the columns, scaled to one length, with
    ``"gram"``, and times the number itself with ``"sketch_qr"``. A column counts as dependent on
    others where what it adds to them is less than 20 d roundings of the float type of ``a``: 4e-15
    d of the longest in float64, 2e-6 d in float32. `RowSample.rank` says how many are left.

    References
    ----------
    Drineas, Magdon-Ismail, Mahoney and Woodruff (2012), Fast approximation of matrix coherence and
    statistical leverage.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import leverage_scores
    >>> leverage_scores(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    array([0.5, 0.5, 1. ])
    """
    check_choice("method", method, METHODS)
    ridge = check_positive_float("ridge", ridge, allow_zero=True)
    n_projections = check_positive_int("n_projections", n_projections)
    tall = read_passes("a", a)
    if method == "qr":
        if not isinstance(tall, Tall):
            raise DomainError(
                'method="qr" needs all rows at once, on the CPU; use method="sketch_qr".'
            )
        return tall.wrap(_by_qr(tall, ridge))
    scores, _ = ranked_scores(tall, method, ridge=ridge, n_projections=n_projections, rng=rng)
    return tall.wrap(scores)


def ranked_scores(
    tall: Passes,
    method: str = "auto",
    *,
    ridge: float = 0.0,
    n_projections: int = 20,
    rng: Rng = None,
) -> tuple[Any, int]:
    """Return leverage scores, and the rank of the matrix."""
    m = None
    if method == "approx":  # so many rows that their error is small beside that of the projections
        m = max(SKETCH_ROWS * tall.shape[1], 8 * n_projections)
    space = find_space(tall, method, ridge=ridge, n_sketched=m)
    gram = space.gram
    if ridge and method != "approx":  # whose basis the ridge has made
        basis = space.to_columns(np.eye(space.rank))
        gram = gram + ridge * basis.T @ basis
    try:
        transform = inverse_factor(gram)
    except np.linalg.LinAlgError:
        raise DomainError(
            f"'{tall.name}' has columns that depend on one another, up to rounding, which "
            'method="gram" cannot tell apart; use method="auto".'
        ) from None
    if m is not None:
        normals = np.random.default_rng(key_of(rng)).standard_normal((space.rank, n_projections))
        transform = transform @ normals / np.sqrt(n_projections)
        # The inverse of a Gram matrix of few degrees of freedom is too large; a ridge is exact.
        if tall.shape[0] > 2 * m and not ridge:
            transform *= np.sqrt((m - space.rank - 1) / m)
    return np.minimum(space.squared_norms(transform), 1.0), space.rank


def _by_qr(tall: Tall, ridge: float) -> Vector:
    """Return the squared norms of the rows of Q."""
    if ridge:
        raise DomainError('\'ridge\' must be 0 with method="qr"; use method="sketch_qr".')
    maxima = tall.check_finite()
    if not maxima.any():
        raise DomainError(f"'{tall.name}' must not be all zero.")
    rows = tall.dense() / np.where(maxima > 0, maxima, 1.0)
    q, factor, _ = qr(rows, mode="economic", pivoting=True, check_finite=False)
    diagonal = np.abs(np.diag(factor))
    # What is left of a dependent column is a few roundings, however many rows there are.
    n_rounded = min(max(rows.shape), SKETCH_ROWS * rows.shape[1])
    rank = int((diagonal > np.finfo(tall.dtype).eps * n_rounded * diagonal[0]).sum())
    return np.asarray(np.minimum(np.square(q[:, :rank]).sum(axis=1), 1.0))
