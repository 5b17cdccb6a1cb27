"""The functions of `pyprobe.sketching` that pass over rows, for Dask."""

from __future__ import annotations

from typing import Any

import dask.array as da

from pyprobe import sketching
from pyprobe._validate import check_bool
from pyprobe.dask._blocks import Blocks, blocks_of, lengths_of, taken
from pyprobe.errors import ShapeError
from pyprobe.progress import Callback
from pyprobe.sketching import RowSample
from pyprobe.sketching._chunks import concatenated
from pyprobe.sketching.sampling import times
from pyprobe.typing import Rng

__all__ = ["leverage_scores", "lewis_weights", "sample_rows", "take_rows"]


def leverage_scores(
    a: Any,
    *,
    method: str = "auto",
    ridge: float = 0.0,
    n_projections: int = 20,
    rng: Rng = None,
) -> Any:
    """Compute the leverage scores of the rows of a Dask array or data frame.

    Options and errors are those of `pyprobe.sketching.leverage_scores`.

    Parameters
    ----------
    a : dask.array.Array or dask.dataframe.DataFrame, shape (n, d)
        Rows, dense. A data frame must have columns of numbers; sizes of partitions that are not
        known cost a pass.
    method, ridge, n_projections, rng
        As there; but ``method="qr"`` needs all rows at once.

    Returns
    -------
    dask.array.Array, shape (n,)
        Scores, in the blocks of ``a``. They are computed when they are asked for; what is the same
        for all rows has been computed already, in one pass, three with a sketch.

    Raises
    ------
    TypeError
        Where ``a`` is nothing of Dask, or has columns that are no numbers.

    Notes
    -----
    Each pass computes ``a`` anew: persist it where that is dear and there is memory for it. Blocks
    are cut at fixed numbers of rows, so that the result has the same bits for any partition.

    Examples
    --------
    >>> import dask.array as da
    >>> import pyprobe.dask
    >>> a = da.random.default_rng(0).normal(size=(20_000, 3), chunks=(7000, 3))
    >>> scores = pyprobe.dask.leverage_scores(a)
    >>> float(scores.sum().compute().round(6))
    3.0
    """
    return sketching.leverage_scores(
        Blocks.read("a", a), method=method, ridge=ridge, n_projections=n_projections, rng=rng
    )


def lewis_weights(
    a: Any,
    p: float,
    *,
    tol: float = 1e-2,
    max_iter: int = 300,
    return_info: bool = False,
    callback: Callback | None = None,
) -> Any:
    """Compute the Lewis weights of the rows of a Dask array or data frame.

    Options, errors and warnings are those of `pyprobe.sketching.lewis_weights`.

    Parameters
    ----------
    a : dask.array.Array or dask.dataframe.DataFrame, shape (n, d)
        Rows; see `leverage_scores`.
    p, tol, max_iter, return_info, callback
        As there.

    Returns
    -------
    w : dask.array.Array, shape (n,)
        Weights, in the blocks of ``a``; what they are made of lies where the last pass left it.
    info : LewisInfo
        Only where ``return_info`` is True.

    Examples
    --------
    >>> import dask.array as da
    >>> import pyprobe.dask
    >>> a = da.random.default_rng(0).normal(size=(20_000, 3), chunks=(7000, 3))
    >>> w = pyprobe.dask.lewis_weights(a, 1.0)
    >>> float(w.sum().compute().round(2))
    3.0
    """
    return sketching.lewis_weights(
        Blocks.read("a", a),
        p,
        tol=tol,
        max_iter=max_iter,
        return_info=return_info,
        callback=callback,
    )


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
    """Draw rows of a Dask array or data frame by their scores.

    Options, errors and warnings are those of `pyprobe.sketching.sample_rows`.

    Parameters
    ----------
    a : dask.array.Array or dask.dataframe.DataFrame, shape (n, d)
        Rows; see `leverage_scores`.
    n_samples, p, scheme, epsilon, guarantee, rng
        As there.
    scores : str, array_like or dask.array.Array
        As there; numbers of one's own may lie in Dask too.

    Returns
    -------
    RowSample
        The same rows and weights as from one array. Their scores, a number a row, come to this
        process; `take_rows` brings the rows.

    Examples
    --------
    >>> import dask.array as da
    >>> import pyprobe.dask
    >>> a = da.random.default_rng(0).normal(size=(20_000, 3), chunks=(7000, 3))
    >>> sample = pyprobe.dask.sample_rows(a, 200, scheme="pivotal", rng=0)
    >>> pyprobe.dask.take_rows(a, sample).shape
    (200, 3)
    """
    return sketching.sample_rows(
        Blocks.read("a", a),
        n_samples,
        scores=scores.compute() if hasattr(scores, "compute") else scores,
        p=p,
        scheme=scheme,
        epsilon=epsilon,
        guarantee=guarantee,
        rng=rng,
    )


def take_rows(a: Any, sample: RowSample, *, scaled: bool = False) -> Any:
    """Bring the rows of a sample into memory.

    Parameters
    ----------
    a : dask.array.Array, dask.dataframe.DataFrame or Series, shape (n, ...)
        The rows that were sampled from, or anything with one entry for each, as targets.
    sample : RowSample
        Of these rows.
    scaled : bool
        Whether rows come multiplied with ``weights ** (1 / p)``, as `RowSample.scaled` gives them.

    Returns
    -------
    ndarray, pandas.DataFrame or pandas.Series, shape (m, ...)
        In memory, an array where they are scaled. Only rows of the sample leave their partitions.

    Raises
    ------
    TypeError
        Where ``a`` is nothing of Dask, or ``sample`` no `RowSample`.
    ShapeError
        Where ``a`` has not as many rows as were sampled from.

    Examples
    --------
    >>> import dask.array as da
    >>> import pyprobe.dask
    >>> a = da.arange(10_000, chunks=3000).reshape(-1, 1)
    >>> sample = pyprobe.dask.sample_rows(a, 10, rng=0)
    >>> bool((pyprobe.dask.take_rows(a, sample)[:, 0] == sample.indices).all())
    True
    """
    scaled = check_bool("scaled", scaled)
    if not (isinstance(a, da.Array) or hasattr(a, "to_dask_array")):
        raise TypeError(
            f"'a' must be a Dask array, data frame or series; got {type(a).__name__}. Of what is "
            "in memory sample.apply and sample.scaled take the rows."
        )
    if not isinstance(sample, RowSample):
        raise TypeError(
            f"'sample' must be a RowSample; got {type(sample).__name__}. sample_rows makes one."
        )
    if a.ndim == 0:
        raise ShapeError(
            f"'a' must have the {sample.n_rows} rows that were sampled from; got a scalar."
        )
    array = a.rechunk(dict.fromkeys(range(1, a.ndim), -1)) if hasattr(a, "rechunk") else a
    blocks = blocks_of(array)
    lengths = lengths_of(array, blocks)
    if sum(lengths) != sample.n_rows:
        raise ShapeError(
            f"'a' must have the {sample.n_rows} rows that were sampled from; got {sum(lengths)}."
        )
    rows = concatenated(taken(blocks, lengths, sample.indices))
    return times(rows, sample.weights ** (1 / sample.p)) if scaled else rows
