"""Scores and samples of rows on several workers: those of one array, bit for bit."""

import numpy as np
import pytest

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
pd = pytest.importorskip("pandas")

from tall_matrices import coherent

import pyprobe.dask
from pyprobe import sketching
from pyprobe.errors import ConvergenceWarning, DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import RowSample

N = 41_011


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield


@pytest.fixture
def one_machine(monkeypatch):
    """Run on the threads of this process, without a cluster."""
    import dask

    with dask.config.set(scheduler="threads"):
        yield


def partitioned(a):
    """Return arrays and data frames of the same rows, in unlike blocks."""
    frame = dd.from_pandas(pd.DataFrame(a, columns=[f"x{i}" for i in range(a.shape[1])]), 5)
    columns = (3, a.shape[1] - 3)
    return {
        "array": da.from_array(a, chunks=((10_000, 1, 20_000, len(a) - 30_001), columns)),
        "small blocks": da.from_array(a, chunks=(777, a.shape[1])),
        "frame": frame,
        # How many rows a partition has is no longer known.
        "unknown sizes": frame[frame.x0 < np.inf],
    }


@pytest.mark.parametrize("kind", ["array", "unknown sizes"])
def test_two_workers_give_the_scores_and_samples_of_one_array(kind, cluster):
    a = coherent(N, 6)
    compare(a, partitioned(a)[kind])


@pytest.mark.parametrize("kind", ["small blocks", "frame"])
def test_threads_do_as_well(kind, one_machine):
    a = coherent(N, 6)
    compare(a, partitioned(a)[kind])


def test_ill_conditioned_columns_have_the_same_sketch(one_machine):
    a = np.vander(np.linspace(0, 1, N), 12)
    scores = pyprobe.dask.leverage_scores(da.from_array(a, chunks=(9999, 12)))
    np.testing.assert_array_equal(scores.compute(), sketching.leverage_scores(a))


def compare(a, lazy):
    scores = pyprobe.dask.leverage_scores(lazy)
    assert isinstance(scores, da.Array)
    np.testing.assert_array_equal(scores.compute(), sketching.leverage_scores(a))
    weights, info = pyprobe.dask.lewis_weights(lazy, 1.0, tol=0.1, return_info=True)
    expected, expected_info = sketching.lewis_weights(a, 1.0, tol=0.1, return_info=True)
    np.testing.assert_array_equal(weights.compute(), expected)
    assert (info.n_iter, info.residual) == (expected_info.n_iter, expected_info.residual)
    if hasattr(lazy, "chunks"):
        assert scores.chunks == weights.chunks == (lazy.chunks[0],)
    for p, kind in ((2.0, "auto"), (1.0, "auto"), (1.5, "sensitivity")):
        sample = pyprobe.dask.sample_rows(lazy, 200, p=p, scores=kind, rng=1)
        same(sample, sketching.sample_rows(a, 200, p=p, scores=kind, rng=1))
    rows = pyprobe.dask.take_rows(lazy, sample)
    np.testing.assert_array_equal(np.asarray(rows), a[sample.indices])
    scaled = pyprobe.dask.take_rows(lazy, sample, scaled=True)
    np.testing.assert_array_equal(scaled, sample.scaled(a))


def same(first: RowSample, second: RowSample):
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.weights, second.weights)
    assert (first.n_rows, first.rank) == (second.n_rows, second.rank)


def test_scores_of_ones_own_may_be_of_dask_too(one_machine):
    a = coherent(9000, 3)
    given = np.random.default_rng(0).random(9000)
    lazy = da.from_array(a, chunks=(2000, 3))
    expected = sketching.sample_rows(a, 100, scores=given, rng=0)
    for scores in (given, da.from_array(given, chunks=1234)):
        same(pyprobe.dask.sample_rows(lazy, 100, scores=scores, rng=0), expected)


def test_float_types_stay_and_integers_become_floats(one_machine):
    a = np.random.default_rng(0).integers(-3, 4, size=(5000, 3))
    for dtype in (np.float32, np.int16):
        lazy = da.from_array(a.astype(dtype), chunks=(2000, 3))
        scores = pyprobe.dask.leverage_scores(lazy)
        expected = sketching.leverage_scores(a.astype(dtype))
        assert scores.dtype == scores.compute().dtype == expected.dtype
        np.testing.assert_array_equal(scores.compute(), expected)


def test_columns_of_a_frame_may_differ_in_type(one_machine):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "whole": pd.array(rng.integers(-3, 4, size=5000), dtype="Int64"),
            "flag": rng.random(5000) < 0.5,
            "real": rng.standard_normal(5000).astype(np.float32),
        }
    )
    expected = sketching.leverage_scores(frame.to_numpy(dtype=np.float64))
    scores = pyprobe.dask.leverage_scores(dd.from_pandas(frame, npartitions=3))
    np.testing.assert_array_equal(scores.compute(), expected)


def test_targets_come_beside_the_rows(one_machine):
    a, y = coherent(9000, 3), np.arange(9000.0)
    sample = sketching.sample_rows(a, 60, rng=0)
    for lazy in (da.from_array(y, chunks=1000), dd.from_pandas(pd.Series(y), npartitions=4)):
        np.testing.assert_array_equal(pyprobe.dask.take_rows(lazy, sample), sample.indices)


def test_a_sample_may_have_no_rows(one_machine):
    a, y = np.ones((9000, 2)), np.arange(9000.0)
    none = RowSample(
        indices=np.empty(0, dtype=np.int64),
        weights=np.empty(0),
        probabilities=np.empty(0),
        p=2.0,
        n_rows=9000,
    )
    rows = pyprobe.dask.take_rows(da.from_array(a, chunks=(4000, 2)), none, scaled=True)
    assert rows.shape == (0, 2)
    targets = pyprobe.dask.take_rows(dd.from_pandas(pd.Series(y), npartitions=4), none)
    assert targets.shape == (0,)


def test_what_cannot_be_read_is_told(one_machine):
    a = coherent(9000, 3)
    lazy = da.from_array(a, chunks=(4000, 3))
    with pytest.raises(TypeError, match="must be a Dask array or data frame; got ndarray"):
        pyprobe.dask.leverage_scores(a)
    frame = dd.from_pandas(pd.DataFrame({"x": [1.0, 2.0], "name": ["a", "b"]}), npartitions=1)
    with pytest.raises(TypeError, match="must have columns of numbers; name are not"):
        pyprobe.dask.sample_rows(frame, 1)
    with pytest.raises(ShapeError, match="a column at least; got a series"):
        pyprobe.dask.leverage_scores(frame.x)
    with pytest.raises(ShapeError, match=r"a matrix of shape \(n, d\).*got 1 axes"):
        pyprobe.dask.leverage_scores(lazy[:, 0])
    with pytest.raises(TypeError, match="must hold real numbers; got dtype complex128"):
        pyprobe.dask.leverage_scores(lazy * 1j)
    with pytest.raises(ShapeError, match=r"a row and a column at least; got shape \(0, 3\)"):
        pyprobe.dask.leverage_scores(lazy[:0])
    with pytest.raises(DomainError, match='"qr" needs all rows at once'):
        pyprobe.dask.leverage_scores(lazy, method="qr")
    masked = da.from_array(np.ma.masked_less(a, -1.0), chunks=(4000, 3))
    for method in ("auto", "approx"):
        with pytest.raises(TypeError, match="masked array, whose mask would be lost"):
            pyprobe.dask.leverage_scores(masked, method=method)
    broken = a.copy()
    broken[4005, 2] = np.nan
    with pytest.raises(NotFiniteError, match="row 5, column 2 of chunk 1, whose first row is 4000"):
        pyprobe.dask.leverage_scores(da.from_array(broken, chunks=(4000, 3)))
    broken[::1000] = np.nan
    with pytest.raises(NotFiniteError, match="NaN: 3, the first at row 0, column 0 of chunk 0"):
        pyprobe.dask.leverage_scores(da.from_array(broken, chunks=(10, 3)))
    with pytest.raises(ShapeError, match="the 9000 rows that were sampled from; got 8999"):
        pyprobe.dask.take_rows(lazy[1:], sketching.sample_rows(a, 9, rng=0))
    with pytest.raises(ShapeError, match="the 9000 rows that were sampled from; got a scalar"):
        pyprobe.dask.take_rows(lazy.sum(), sketching.sample_rows(a, 9, rng=0))
    for rows in (a, [a], None):
        with pytest.raises(TypeError, match=r"a Dask array, data frame or series; got.*sample.app"):
            pyprobe.dask.take_rows(rows, sketching.sample_rows(a, 9, rng=0))
    with pytest.raises(TypeError, match=r"'sample' must be a RowSample; got ndarray"):
        pyprobe.dask.take_rows(lazy, np.arange(9))
    with pytest.warns(ConvergenceWarning, match="after 1 passes"):
        pyprobe.dask.lewis_weights(lazy, 1.0, max_iter=1)
    with pytest.warns(ConvergenceWarning, match=r"after 300 passes.*drawn by them as they are"):
        pyprobe.dask.sample_rows(lazy[:500], 50, p=200, rng=0)
