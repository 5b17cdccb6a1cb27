"""Distortions of samples: beside singular values, and beside every direction of a plane."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from tall_matrices import coherent

import pyprobe
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import RowSample, sample_rows, subspace_distortion
from pyprobe.sketching._input import read_tall
from pyprobe.sketching.distortion import _Ratio


def of_rows(indices, weights, n_rows, p=2.0):
    indices, weights = np.asarray(indices, dtype=np.int64), np.asarray(weights, dtype=float)
    return RowSample(
        indices=indices, weights=weights, probabilities=1 / weights, p=p, n_rows=n_rows
    )


@pytest.mark.parametrize("scheme", ["bernoulli", "pivotal", "replacement"])
def test_for_squares_it_is_that_of_singular_values(scheme):
    a = coherent(2000, 6)
    for seed in range(3):
        sample = sample_rows(a, 120, scheme=scheme, rng=seed)
        q, _ = np.linalg.qr(a)
        values = np.linalg.svd(sample.scaled(q), compute_uv=False)
        np.testing.assert_allclose(sample.distortion(a), (values[-1], values[0]), rtol=1e-10)


def ratios_of_a_plane(a, sample, p):
    # Angles of an orthonormal basis, in which the columns have no scale.
    angles = np.linspace(0, np.pi, 20_001)
    q, _ = np.linalg.qr(a)
    y = np.abs(q @ np.array([np.cos(angles), np.sin(angles)])) ** p
    return ((sample.weights @ y[sample.indices]) / y.sum(axis=0)) ** (1 / p)


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, 4.0, 8.0])
def test_in_a_plane_no_angle_goes_further(p):
    for a in (coherent(600, 2, seed=1), np.random.default_rng(2).standard_normal((600, 2))):
        for scores in ("lewis", "uniform"):
            sample = sample_rows(a, 60, p=p, scores=scores, rng=3)
            ratio = ratios_of_a_plane(a, sample, p)
            low, high = sample.distortion(a)
            np.testing.assert_allclose(low, ratio.min(), rtol=2e-3, atol=1e-12)
            np.testing.assert_allclose(high, ratio.max(), rtol=2e-3)
            assert low <= ratio.min() * (1 + 1e-6)
            assert high >= ratio.max() * (1 - 1e-6)


def test_below_one_the_search_finds_some_of_it():
    # Sums of roots have a cusp at each row: the search is local, and what it finds is attained.
    for a in (
        coherent(600, 2, seed=1, share=0.05),
        np.random.default_rng(2).standard_normal((600, 2)),
    ):
        sample = sample_rows(a, 60, p=0.5, rng=3)
        ratio = ratios_of_a_plane(a, sample, 0.5)
        low, high = sample.distortion(a)
        assert ratio.min() * (1 - 2e-3) <= low <= high <= ratio.max() * (1 + 2e-3)
        assert high - low >= 0.8 * (ratio.max() - ratio.min())


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0])
def test_all_rows_have_none(p):
    a = coherent(300, 4, seed=4)
    every = of_rows(np.arange(300), np.ones(300), 300, p)
    np.testing.assert_allclose(subspace_distortion(a, every), 1, rtol=1e-12)
    twice = of_rows(np.arange(300), np.full(300, 2.0), 300, p)
    np.testing.assert_allclose(subspace_distortion(a, twice), 2 ** (1 / p), rtol=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_a_sample_that_does_not_span_the_columns_loses_some(p):
    a = np.random.default_rng(5).standard_normal((400, 4))
    a[:, 3] = 0
    a[7, 3] = 1.0
    without = of_rows(np.arange(50), np.full(50, 8.0), 400, p)
    missing = of_rows(np.delete(np.arange(50), 7), np.full(49, 8.0), 400, p)
    assert subspace_distortion(a, without)[0] > 0
    low, high = subspace_distortion(a, missing)
    assert low == 0
    assert high > 0.8
    assert subspace_distortion(a, of_rows([1, 2, 3], np.ones(3), 400, p))[0] == 0
    assert subspace_distortion(a, of_rows([], [], 400, p)) == (0, 0)


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0])
def test_it_depends_on_the_space_alone(p):
    # Not sparser: from other starts the local search would then end in another minimum.
    a = coherent(800, 4, seed=6, share=0.05)
    sample = sample_rows(a, 100, p=p, rng=0)
    found = sample.distortion(a)
    mixed = np.column_stack([a @ np.diag([1e-80, 1.0, 1e80, 3.0]), a[:, 1] - 2 * a[:, 3]])
    np.testing.assert_allclose(sample.distortion(mixed), found, rtol=1e-3)


def test_an_exponent_may_be_given():
    a = coherent(500, 3, seed=7)
    sample = sample_rows(a, 60, rng=0)
    assert sample.p == 2
    other = of_rows(sample.indices, sample.weights, 500, 1.0)
    assert subspace_distortion(a, sample, 1.0) == subspace_distortion(a, other)
    assert subspace_distortion(a, sample, 2) == sample.distortion(a)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_float32_sparse_rows_tensors_and_threads(p):
    a = coherent(3000, 4, seed=8).astype(np.float32)
    sample = sample_rows(a, 200, p=p, rng=0)
    found = sample.distortion(a)
    np.testing.assert_allclose(sample.distortion(a.astype(float)), found, rtol=1e-4)
    np.testing.assert_allclose(sample.distortion(scipy.sparse.csr_array(a)), found, rtol=1e-4)
    before = pyprobe.get_num_threads()
    try:
        pyprobe.set_num_threads(3 if before == 1 else 1)
        assert sample.distortion(a) == found
    finally:
        pyprobe.set_num_threads(before)
    torch = pytest.importorskip("torch")
    assert sample.distortion(torch.tensor(a, requires_grad=True)) == found


def test_bad_input_is_named():
    a = coherent(100, 3)
    sample = sample_rows(a, 30, rng=0)
    with pytest.raises(ShapeError, match=r"'a' must have the 100 rows.*got shape \(99, 3\)"):
        sample.distortion(a[1:])
    with pytest.raises(DomainError, match=r"'p' must be finite; got inf.*A large p"):
        subspace_distortion(a, sample, np.inf)
    with pytest.raises(DomainError, match="'p' must be positive; got 0"):
        subspace_distortion(a, sample, 0)
    with pytest.raises(NotFiniteError, match="row 2, column 1"):
        sample.distortion(np.where(np.arange(300).reshape(100, 3) == 7, np.inf, a))
    with pytest.raises(DomainError, match="'a' must not be all zero"):
        sample.distortion(np.zeros((100, 3)))
    with pytest.raises(TypeError, match="'sample' must be a RowSample; got list"):
        subspace_distortion(a, [1, 2, 3])


@pytest.mark.parametrize("weight", [1e-13, 1e-20, 1e-26])
def test_ratios_far_below_one_are_found(weight):
    # Rows e_i have the ratios sqrt(weight_i), in all coordinates that are turned.
    turned, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((4, 4)))
    a = turned * [1.0, 1e3, 1e-3, 1.0]
    low, high = subspace_distortion(a, of_rows([0, 1, 2, 3], [1.0, 2.0, weight, 1.0], 4))
    # Rounding of the products, 1e-16 beside 1, in a quotient of 1e-13.
    assert low == pytest.approx(np.sqrt(weight), rel=1e-2, abs=0)
    assert high == pytest.approx(np.sqrt(2), rel=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("p", [1.0, 3.0])
def test_float32_is_not_copied_as_a_whole(p, sparse):
    rng = np.random.default_rng(5)
    a = rng.standard_normal((30_000, 40)).astype(np.float32)  # 9.6 MB in double precision
    tall = read_tall("a", scipy.sparse.csr_array(a) if sparse else a)
    rows, weights = a[:500].astype(float), rng.random(500)
    ratio, x = _Ratio(tall, tall.matrix(), np.eye(40), rows, weights, p), rng.standard_normal(40)
    tracemalloc.start()
    value, slope = ratio.one(x, 1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 7e6

    def norm(y, weights):
        return np.log(weights @ np.abs(y) ** p) / p

    def expected(x):
        return norm(rows @ x, weights) - norm(a.astype(float) @ x, np.ones(len(a)))

    assert value == pytest.approx(expected(x), rel=1e-12)
    steps = 1e-6 * np.eye(40)[:3]
    differences = [(expected(x + step) - expected(x - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(slope[:3], differences, atol=1e-7)
