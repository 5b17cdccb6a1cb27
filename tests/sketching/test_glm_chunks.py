"""Coresets of rows in chunks: those of one matrix, in the memory of a chunk."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from glm_problems import near, problem

from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import GLMCoreset

OPTIONS = {"family": "logistic", "n_samples": 200, "prior_precision": 1.0, "rng": 0}


def cut(x, *ends):
    return [x[start:stop] for start, stop in zip((0, *ends), (*ends, x.shape[0]), strict=True)]


def is_the_same(found, expected):
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.x, expected.x)
    assert found.x.dtype == expected.x.dtype
    np.testing.assert_allclose(found.center, expected.center, rtol=1e-12)
    np.testing.assert_allclose(found.center_hessian, expected.center_hessian, rtol=1e-12)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-12)
    assert found.info.n_iter == expected.info.n_iter
    thetas = near(expected, 5, sds=20.0)
    np.testing.assert_allclose(
        found.log_likelihood(thetas), expected.log_likelihood(thetas), rtol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("ends", [(), (10_000,), (1, 7, 7, 8200, 59_999)])
def test_chunks_make_the_coreset_of_the_matrix(dtype, ends):
    x, y = problem("logistic", n=60_000, d=20)  # more than a piece of chunks, and many blocks
    x = x.astype(dtype)
    rng = np.random.default_rng(1)
    more = {"offset": rng.normal(size=60_000) / 3, "sample_weight": rng.integers(0, 4, size=60_000)}
    expected = GLMCoreset.fit(x, y, **OPTIONS, **more)
    chunks = cut(x, *ends)
    for rows in (chunks, tuple(chunks), lambda: iter(chunks)):
        is_the_same(GLMCoreset.fit(rows, y, **OPTIONS, **more), expected)
    check = expected.check(chunks, y, rng=0, **more)
    assert check.verdict == "faithful"
    np.testing.assert_allclose(
        check.log_weights, expected.check(x, y, rng=0, **more).log_weights, atol=1e-7
    )


def test_sparse_chunks_and_tensors_make_it_too():
    torch = pytest.importorskip("torch")
    x, y = problem("poisson", n=20_000)
    x[np.abs(x) < 0.5] = 0
    options = OPTIONS | {"family": "poisson"}
    expected = GLMCoreset.fit(x, y, **options)
    is_the_same(GLMCoreset.fit(cut(scipy.sparse.csr_array(x), 3000), y, **options), expected)
    tensors = cut(torch.tensor(x), 3000)
    is_the_same(GLMCoreset.fit(tensors, torch.tensor(y), **options), expected)
    is_the_same(GLMCoreset.fit(tensors, y, **options), expected)


def test_a_gaussian_coreset_of_chunks_is_exact():
    x, y = problem("gaussian")
    chunks = cut(x, 9000)
    coreset = GLMCoreset.fit(chunks, y, **OPTIONS | {"family": "gaussian"})
    assert coreset.x.shape == (0, 6)
    assert coreset.check(chunks, y, rng=0).n_effective == pytest.approx(100)


def test_one_chunk_is_in_memory_at_a_time():
    n, d, size = 200_000, 100, 10_000

    def chunks():
        rng = np.random.default_rng(0)
        for _ in range(n // size):
            yield rng.standard_normal((size, d))

    y = np.random.default_rng(1).integers(0, 2, size=n)
    tracemalloc.start()
    try:
        GLMCoreset.fit(chunks, y, **OPTIONS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two chunks (8 MB each, the old one goes after the new one came) and two pieces, of 160 MB; the
    # rest are vectors.
    assert peak < 40e6 + 20 * 8 * n


def test_a_memory_map_and_an_array_of_dask_are_arrays(tmp_path):
    dask = pytest.importorskip("dask.array")
    x, y = problem("logistic")
    expected = GLMCoreset.fit(x, y, **OPTIONS)
    np.save(tmp_path / "x.npy", x)
    is_the_same(GLMCoreset.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), y, **OPTIONS), expected)
    blocks = dask.from_array(x, chunks=(3000, 6))
    is_the_same(GLMCoreset.fit(blocks, y, **OPTIONS), expected)

    def chunks():
        return (blocks.partitions[i].compute() for i in range(blocks.npartitions))

    is_the_same(GLMCoreset.fit(chunks, y, **OPTIONS), expected)


# What is refused


def test_rows_that_come_only_once_are_refused():
    x, y = problem("logistic", n=1000)
    with pytest.raises(TypeError, match=r"'x' must be rows that can be read more.*got a generator"):
        GLMCoreset.fit((part for part in cut(x, 300)), y, **OPTIONS)
    used_up = iter(cut(x, 300))
    with pytest.raises(DomainError, match="'x' must give the same rows every time it is read"):
        GLMCoreset.fit(lambda: used_up, y, **OPTIONS)
    with pytest.raises(TypeError, match="'x' must be a function that gives row chunks"):
        GLMCoreset.fit(lambda: x, y, **OPTIONS)


def test_a_plain_sample_of_chunks_is_refused():
    x, y = problem("logistic", n=1000)
    with pytest.raises(TypeError, match="'x' must be one matrix for control_variate=False"):
        GLMCoreset.fit(cut(x, 300), y, control_variate=False, **OPTIONS)


def test_chunks_that_do_not_fit_are_refused():
    x, y = problem("logistic", n=1000)
    with pytest.raises(ShapeError, match="'x' must have 6 columns in every chunk"):
        GLMCoreset.fit([x[:300], x[300:, :5]], y, **OPTIONS)
    with pytest.raises(ShapeError, match=r"'y' must have shape \(700,\)"):
        GLMCoreset.fit([x[:300], x[300:700]], y, **OPTIONS)
    with pytest.raises(ShapeError, match="'x' must have a row at least; got 1 chunks without any"):
        GLMCoreset.fit([x[:0]], y, **OPTIONS)
    x[500, 2] = np.nan
    with pytest.raises(NotFiniteError, match=r"'x' must be finite.*row 200, .* of chunk 1"):
        GLMCoreset.fit(cut(x, 300), y, **OPTIONS)
