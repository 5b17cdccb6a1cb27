"""Door to Dask: scores and samples of rows of arrays and data frames that lie on many machines.

`leverage_scores`   of `pyprobe.sketching`, block by block
`lewis_weights`     the same for norms other than the Euclidean one
`sample_rows`       few rows that stand for all
`take_rows`         the rows of a sample, into memory

Results are those of `pyprobe.sketching` on the same rows in one array, bit for bit, however they
are partitioned and whichever scheduler runs. Only matrices of shape (d, d) travel, and one number a
row to draw a sample.
"""

from pyprobe.errors import MissingDependencyError

try:
    import dask.array as _array  # noqa: F401  # found out here, for a message that helps
except ImportError as error:
    raise MissingDependencyError(
        "pyprobe.dask needs Dask and its arrays: pip install 'pyprobe-rs[dask]'"
    ) from error

from pyprobe.dask._functions import leverage_scores, lewis_weights, sample_rows, take_rows

__all__ = ["leverage_scores", "lewis_weights", "sample_rows", "take_rows"]
