"""Samples as the kernels of clusterings take them: a matrix, or compressed sparse rows."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from pyprobe._validate import as_float_array, as_matrix
from pyprobe.errors import ShapeError
from pyprobe.typing import FloatArray

__all__ = ["Compressed", "Samples", "as_samples", "dtype_of", "transposed"]

Compressed: TypeAlias = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32], FloatArray, int]
"""``(indptr, indices, values, n_columns)`` of a sparse matrix, row by row."""

Samples: TypeAlias = FloatArray | tuple[Compressed, Compressed | None]
"""A matrix in C order, or a sparse one with its transpose where a kernel needs that."""


def as_samples(name: str, x: Any) -> Samples:
    """Return `x`, array_like or a SciPy sparse matrix, as the kernels take it.

    float32 stays; a sparse matrix in CSR form is not copied, others are converted to it.
    """
    if not scipy.sparse.issparse(x):
        return as_matrix(name, x)
    if x.ndim != 2:
        raise ShapeError(
            f"'{name}' must be a matrix of shape (n, d), one sample a row; got shape {x.shape}."
        )
    rows = x.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is x else rows
        rows.sum_duplicates()
    return _compressed(name, rows), None


def transposed(x: Samples) -> Samples:
    """Return `x` with its transpose beside it, which costs a copy, where it is sparse."""
    if isinstance(x, np.ndarray):
        return x
    rows, _ = x
    indptr, indices, values, n_columns = rows
    # SciPy's index types are signed; the view costs nothing.
    csr = scipy.sparse.csr_array(
        (values, indices.view(np.int32), indptr.view(np.int64)), shape=(len(indptr) - 1, n_columns)
    )
    return rows, _compressed("x", csr.tocsc().T)


def dtype_of(x: Samples) -> np.dtype[Any]:
    """Return the float type of `x`."""
    return x.dtype if isinstance(x, np.ndarray) else x[0][2].dtype


def _compressed(name: str, rows: Any) -> Compressed:
    if rows.shape[1] >= 2**31:
        raise ShapeError(f"'{name}' must have fewer than 2^31 columns; got shape {rows.shape}.")
    values = np.ascontiguousarray(as_float_array(name, rows.data))
    indices = np.ascontiguousarray(rows.indices, dtype=np.int32).view(np.uint32)
    indptr = np.ascontiguousarray(rows.indptr, dtype=np.int64).view(np.uint64)
    return indptr, indices, values, rows.shape[1]
