r"""Sketches: random linear maps S of n rows to m, which nearly keep the products of columns.

For all kinds :math:`E\, S'S = I`, so that :math:`E |Sx|^2 = |x|^2`; how far a sketch strays from
that, for all x of a d-dimensional space at once, is about :math:`2 \sqrt{d/m}` of the square.

| kind | entries | cost of S A, dense and sparse |
|---|---|---|
| ``"srht"`` | m rows of the Walsh-Hadamard matrix, its columns with random signs | n d log n, - |
| ``"gaussian"`` | independent normals of variance 1 / m | n m + n m d, n m + m nnz |
| ``"sparse_sign"`` | z = 8 in a column, each :math:`\pm 1/\sqrt z` | z n d, z nnz |
| ``"countsketch"`` | one in a column, :math:`\pm 1` | n d, nnz |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe._engine import Engine, select
from pyprobe._rng import key as key_of
from pyprobe._validate import (
    as_float_array,
    check_bool,
    check_choice,
    check_finite,
    check_positive_int,
)
from pyprobe.cluster._samples import Samples, as_samples
from pyprobe.errors import DomainError, ShapeError
from pyprobe.sketching._input import column_maxima, shape_of
from pyprobe.typing import Rng

__all__ = [
    "KINDS",
    "SketchOperator",
    "SketchTranspose",
    "padded_length",
    "sketch_operator",
    "sketch_samples",
]

KINDS = ("srht", "gaussian", "sparse_sign", "countsketch")

Matrix = npt.NDArray[np.float64]


def sketch_operator(
    kind: str,
    n_rows: int,
    n_input: int,
    *,
    rng: Rng = None,
    n_nonzeros: int = 8,
    allow_dense: bool = False,
) -> SketchOperator:
    r"""Make a random linear map of `n_input` rows to `n_rows`.

    Parameters
    ----------
    kind : {"srht", "gaussian", "sparse_sign", "countsketch"}
        ``"srht"`` keeps some rows of a Walsh-Hadamard transform with random signs: as good as
        ``"gaussian"`` on all data, for about the price of reading them. ``"sparse_sign"`` adds
        each row to `n_nonzeros` random ones: the fastest that is safe for a basis of the column
        space, on dense and on sparse data. ``"countsketch"`` adds it to one: it needs about
        :math:`d^2` rows to be safe.
    n_rows : int
        Rows of the result, m; for ``"srht"`` at most the power of two that `n_input` is padded to.
    n_input : int
        Rows of what is sketched.
    rng : int, numpy.random.Generator, torch.Generator or None
        The seed; with the same arguments it gives the same operator.
    n_nonzeros : int
        Entries of a column of ``"sparse_sign"`` that are not zero; all `n_rows` where that is less.
    allow_dense : bool
        Whether ``"srht"`` may take a sparse matrix. It reads one row by row, but costs as much as
        on a dense one.

    Returns
    -------
    SketchOperator
        With ``operator @ a``, ``operator.T @ y`` and ``operator.apply(chunk, start)``.

    Raises
    ------
    DomainError
        If `kind` is not one of these, a number is less than 1, or ``"srht"`` is asked for more rows
        than its transform has; the largest number is named.

    See Also
    --------
    sketched_lstsq : least squares by sketches.

    Notes
    -----
    The operator is never stored: column j of it is a function of the seed and of j, so that neither
    threads nor chunks change it. Sums run in float64.

    References
    ----------
    .. [1] N. Ailon and B. Chazelle, "The fast Johnson-Lindenstrauss transform and approximate
       nearest neighbors", SIAM J. Comput. 39(1), 2009; J. A. Tropp, "Improved analysis of the
       subsampled randomized Hadamard transform", Adv. Adapt. Data Anal. 3, 2011.
    .. [2] J. Nelson and H. L. Nguyen, "OSNAP: faster numerical linear algebra algorithms via
       sparser subspace embeddings", FOCS 2013.
    .. [3] K. L. Clarkson and D. P. Woodruff, "Low-rank approximation and regression in input
       sparsity time", J. ACM 63(6), 2017 (CountSketch).

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sketching import sketch_operator
    >>> a = np.random.default_rng(0).normal(size=(10_000, 3))
    >>> s = sketch_operator("srht", 1000, 10_000, rng=0)
    >>> bool(np.allclose((s @ a).T @ (s @ a), a.T @ a, rtol=0.2, atol=1000))
    True
    >>> parts = s.apply(a[:7000], 0) + s.apply(a[7000:], 7000)
    >>> bool(np.allclose(parts, s @ a))
    True
    """
    check_choice("kind", kind, KINDS)
    m, n = check_positive_int("n_rows", n_rows), check_positive_int("n_input", n_input)
    nonzeros = 1 if kind == "countsketch" else check_positive_int("n_nonzeros", n_nonzeros)
    padded = padded_length(n)
    if kind == "srht" and m > padded:
        raise DomainError(
            f"'n_rows' must be at most {padded} for an SRHT of {n} rows, which are padded to that "
            f"power of two; got {m}."
        )
    if m >= 2**31:
        raise DomainError(f"'n_rows' must be less than 2^31; got {m}.")
    key = key_of(rng)
    return SketchOperator(
        kind=kind,
        n_rows=m,
        n_input=n,
        n_nonzeros=min(nonzeros, m),
        allow_dense=check_bool("allow_dense", allow_dense),
        _key=key,
        _kept=_core.sketch_srht_rows(m, padded, key) if kind == "srht" else None,
    )


def padded_length(n: int) -> int:
    """Return the least power of two that is not less than `n`."""
    return 1 << (n - 1).bit_length()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchOperator:
    """A random linear map to few rows, made by `sketch_operator`.

    Attributes
    ----------
    kind : str
        ``"srht"``, ``"gaussian"``, ``"sparse_sign"`` or ``"countsketch"``.
    n_rows : int
        Rows of the result.
    n_input : int
        Rows of what is sketched.
    n_nonzeros : int
        Entries of a column that are not zero, for the sparse kinds.
    allow_dense : bool
        Whether an SRHT takes a sparse matrix.
    """

    kind: str
    n_rows: int
    n_input: int
    n_nonzeros: int
    allow_dense: bool
    _key: int = field(repr=False)
    _kept: npt.NDArray[np.uint64] | None = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_input)``."""
        return self.n_rows, self.n_input

    @property
    def T(self) -> SketchTranspose:  # noqa: N802  # the name that NumPy and SciPy give it
        """The transposed operator."""
        return SketchTranspose(self)

    def __matmul__(self, a: Any) -> Any:
        """Return the sketch of `a`, of shape (n_input, d) or (n_input,)."""
        return self._product(a, 0, "a", whole=True)

    def apply(self, chunk: Any, start: int) -> Any:
        """Return what some rows add to the sketch of all.

        Parameters
        ----------
        chunk : array_like, sparse matrix or torch.Tensor, shape (c, d) or (c,)
            The rows ``start`` to ``start + c`` of the matrix.
        start : int
            Where the chunk begins.

        Returns
        -------
        ndarray or torch.Tensor, shape (n_rows, d) or (n_rows,)
            In the float type of `chunk`. The parts of all chunks add up to the sketch.

        Raises
        ------
        ShapeError
            If the chunk ends beyond `n_input`, or is neither a matrix nor a vector.
        NotFiniteError
            If an entry is infinite or NaN; row and column are those within the chunk.
        DomainError
            If an SRHT meets a sparse matrix without ``allow_dense=True``.
        TypeError
            If the entries are not real numbers.

        Notes
        -----
        A NumPy array in C order, a CSR matrix and a tensor on the CPU are read where they lie, and
        tensors of other devices are sketched there. In torch it is differentiable in reverse mode,
        to any order.
        """
        return self._product(chunk, check_positive_int("start", start, minimum=0), "chunk")

    def to_array(self) -> Matrix:
        """Return the matrix itself, of shape (n_rows, n_input)."""
        return np.ascontiguousarray(self._transposed(np.eye(self.n_rows)).T)

    def _product(self, a: Any, start: int, name: str, *, whole: bool = False) -> Any:
        if select(a) is not Engine.NATIVE:
            from pyprobe.sketching import _torch

            self._check_rows(name, tuple(a.shape), start, whole)
            if a.numel() == 0:  # no columns
                return a.new_zeros(self.n_rows, *a.shape[1:])
            return _torch.product(self, a, start, name)
        vector = np.ndim(a) == 1 and not hasattr(a, "toarray")
        samples = as_samples(name, as_float_array(name, a)[:, None] if vector else a)
        self._check_rows(name, shape_of(samples)[:1] if vector else shape_of(samples), start, whole)
        found = sketch_samples(self, name, samples, start)
        dtype = samples.dtype if isinstance(samples, np.ndarray) else samples[0][2].dtype
        return (found[:, 0] if vector else found).astype(dtype, copy=False)

    def _check_rows(self, name: str, shape: tuple[int, ...], start: int, whole: bool) -> None:
        n = shape[0] if shape else 0
        if len(shape) not in (1, 2) or (n != self.n_input if whole else n + start > self.n_input):
            rows = f"{self.n_input}" if whole else f"c, with {start} + c at most {self.n_input}"
            raise ShapeError(f"'{name}' must have {rows} rows, in one or two axes; got {shape}.")

    def _transposed(self, y: Matrix) -> Matrix:
        return _core.sketch_apply_transpose(self._record(), y)

    def _record(self) -> tuple[str, int, int, int, int, npt.NDArray[np.uint64] | None]:
        """Return what the kernels know the operator by."""
        return self.kind, self.n_rows, self.n_input, self.n_nonzeros, self._key, self._kept


@dataclass(frozen=True, slots=True, eq=False)
class SketchTranspose:
    """The transpose of a `SketchOperator`: takes few rows back to many.

    Attributes
    ----------
    T : SketchOperator
        The operator whose transpose this is.
    """

    T: SketchOperator

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_input, n_rows)``."""
        return self.T.n_input, self.T.n_rows

    def __matmul__(self, y: Any) -> Any:
        """Return the product with `y`, of shape (n_rows, k) or (n_rows,)."""
        shape = tuple(np.shape(y))
        if len(shape) not in (1, 2) or shape[0] != self.T.n_rows:
            raise ShapeError(
                f"'y' must have {self.T.n_rows} rows, in one or two axes; got {shape}."
            )
        if select(y) is not Engine.NATIVE:
            from pyprobe.sketching import _torch

            if y.numel() == 0:  # no columns
                return y.new_zeros(self.T.n_input, *y.shape[1:])
            return _torch.transposed_product(self.T, y)
        rows = as_float_array("y", y)
        if rows.size == 0:  # no columns
            return np.zeros((self.T.n_input, *shape[1:]), dtype=rows.dtype)
        check_finite("y", rows)
        matrix = np.ascontiguousarray(rows.reshape(shape[0], -1), dtype=np.float64)
        found = self.T._transposed(matrix)
        return found.reshape(-1, *shape[1:]).astype(rows.dtype, copy=False)


def sketch_samples(operator: SketchOperator, name: str, samples: Samples, start: int = 0) -> Matrix:
    """Return the part of rows that are as the kernels take them, in double precision."""
    sparse = not isinstance(samples, np.ndarray)
    if operator.kind == "srht" and sparse and not operator.allow_dense:
        raise DomainError(
            f"'{name}' is sparse, and an SRHT costs as much as on a dense matrix. Pass "
            "allow_dense=True, or use kind='sparse_sign'."
        )
    found = _core.sketch_apply(operator._record(), samples, start)  # noqa: SLF001  # the same room
    if not np.isfinite(found).all():
        check_entries(name, samples)
        raise DomainError(f"'{name}' has entries so large that their sums overflow; scale it.")
    return found


def check_entries(name: str, samples: Samples) -> None:
    """Raise `NotFiniteError` where an entry is infinite or NaN, with its row and column."""
    if isinstance(samples, np.ndarray):
        check_finite(name, samples)
        return
    column_maxima(name, samples)
