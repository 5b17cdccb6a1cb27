"""Leverage scores against QR decompositions, orthogonal polynomials and what they must sum to."""

import numpy as np
import pytest
import scipy.sparse
from numpy.polynomial import legendre
from tall_matrices import coherent

import pyprobe
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import leverage_scores


def by_qr(a):
    q, _ = np.linalg.qr(a)
    return (q**2).sum(axis=1)


def vandermonde(n, d):
    """Monomials on [0, 1], and the scores of their space from Legendre's polynomials."""
    t = np.linspace(0, 1, n)
    return t[:, None] ** np.arange(d), by_qr(legendre.legvander(2 * t - 1, d - 1))


@pytest.mark.parametrize("method", ["auto", "gram", "qr", "sketch_qr"])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 3), (5000, 20), (3000, 60), (700, 300)])
def test_scores_are_those_of_qr_and_sum_to_the_rank(method, n, d):
    a = coherent(n, d) if n > 10 else np.random.default_rng(1).standard_normal((n, d))
    scores = leverage_scores(a, method=method)
    np.testing.assert_allclose(scores, by_qr(a), rtol=1e-8, atol=1e-11)
    assert abs(scores.sum() - d) < 1e-8
    assert scores.min() >= 0
    assert scores.max() <= 1


@pytest.mark.parametrize(("d", "bound"), [(8, 1e-9), (12, 1e-6)])
def test_ill_conditioned_columns_cost_no_more_than_with_qr(d, bound):
    # Condition numbers 1e5 and 1e8.
    a, expected = vandermonde(100_000, d)
    for method in ("auto", "sketch_qr"):
        assert np.abs(leverage_scores(a, method=method) / expected - 1).max() < bound


def test_scores_depend_on_the_space_alone():
    rng = np.random.default_rng(2)
    a = coherent(4000, 12)
    mixed = a @ (rng.standard_normal((12, 12)) + 3 * np.eye(12))
    np.testing.assert_allclose(leverage_scores(mixed), leverage_scores(a), rtol=1e-8)


def test_a_row_twice_has_its_score_in_halves():
    a = coherent(1000, 6)
    twice = leverage_scores(np.vstack([a, a]))
    np.testing.assert_allclose(twice[:1000] + twice[1000:], leverage_scores(a), rtol=1e-9)


@pytest.mark.parametrize("method", ["auto", "qr", "sketch_qr"])
def test_dependent_columns_and_columns_of_zeros_leave_the_scores(method):
    rng = np.random.default_rng(3)
    a = coherent(3000, 5)
    wide = np.column_stack([a @ rng.standard_normal((5, 4)), np.zeros(3000), a, a[:, 0]])
    scores = leverage_scores(wide, method=method)
    np.testing.assert_allclose(scores, by_qr(a), rtol=1e-7, atol=1e-11)
    assert abs(scores.sum() - 5) < 1e-8


def test_more_columns_than_rows():
    a = np.random.default_rng(4).standard_normal((5, 9))
    np.testing.assert_allclose(leverage_scores(a), np.ones(5), rtol=1e-10)


def test_columns_of_any_scale():
    a = coherent(2000, 4)
    scaled = a * [1e-150, 1e150, 1.0, 1e-307]
    np.testing.assert_allclose(leverage_scores(scaled), leverage_scores(a), rtol=1e-9)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize(("n", "d", "k"), [(20_000, 1, 1000), (20_000, 10, 1000), (20_000, 30, 50)])
def test_approximate_scores_have_the_error_that_is_claimed(n, d, k, heavy):
    rng = np.random.default_rng(5)
    a = rng.standard_normal((n, d)) * (rng.standard_t(2, size=(n, 1)) if heavy else 1)
    exact, m, n_seeds = leverage_scores(a), max(20 * d, 8 * k), 25
    ratios = [
        leverage_scores(a, method="approx", n_projections=k, rng=seed) / exact
        for seed in range(n_seeds)
    ]
    claimed = np.sqrt(2 / k + 2 / m)
    assert np.sqrt(np.mean(np.square(np.array(ratios) - 1))) < 1.4 * claimed
    # For one column all scores have a single error, of which the part of the sketch is in common.
    assert abs(np.mean(ratios) - 1) < 4 * np.sqrt(2 / (k * n_seeds) + 2 / m)


@pytest.mark.parametrize("ridge", [0.0, 1e7])
def test_approximate_scores_are_right_on_average(ridge):
    # An inverse Wishart matrix of 2000 degrees of freedom in 100 dimensions is 5 % too large.
    a = np.random.default_rng(8).standard_normal((20_000, 100))
    exact = leverage_scores(a, ridge=ridge)
    ratios = [
        leverage_scores(a, method="approx", n_projections=50, ridge=ridge, rng=seed) / exact
        for seed in range(10)
    ]
    assert abs(np.mean(ratios) - 1) < 0.02


@pytest.mark.parametrize("power", [-3, 0, 3])
@pytest.mark.parametrize("columns", ["independent", "dependent", "ill-conditioned"])
def test_ridge_scores_are_those_of_the_definition(power, columns):
    a = coherent(1500, 6, seed=7) if columns != "ill-conditioned" else vandermonde(1500, 8)[0]
    if columns == "dependent":
        a = np.column_stack([a, a[:, :2] @ [[1.0], [2.0]], np.zeros(1500)])
    ridge = 10.0**power
    stacked = np.vstack([a, np.sqrt(ridge) * np.eye(a.shape[1])])
    expected = by_qr(stacked)[: len(a)]
    np.testing.assert_allclose(leverage_scores(a, ridge=ridge), expected, rtol=1e-7, atol=1e-12)


def test_sparse_rows_have_the_scores_of_dense_ones():
    rng = np.random.default_rng(6)
    dense = rng.standard_normal((3000, 25)) * (rng.random((3000, 25)) < 0.1)
    expected = leverage_scores(dense)
    for kind in (scipy.sparse.csr_array, scipy.sparse.csc_matrix, scipy.sparse.coo_array):
        np.testing.assert_allclose(leverage_scores(kind(dense)), expected, rtol=1e-9, atol=1e-13)
    found = leverage_scores(scipy.sparse.csr_array(dense), method="sketch_qr")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)
    zero = ~dense.any(axis=1)
    assert zero.any()
    assert not expected[zero].any()


def test_float32_stays_and_is_summed_in_double_precision():
    a = coherent(20_000, 10).astype(np.float32)
    scores = leverage_scores(a)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_qr(a.astype(float)), rtol=1e-6)
    assert leverage_scores(np.arange(6).reshape(3, 2)).dtype == np.float64


def test_any_number_of_threads_gives_the_same_bits():
    a = coherent(30_000, 13)
    before = pyprobe.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            found.append(leverage_scores(a))
    finally:
        pyprobe.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_tensors_come_back_as_tensors():
    torch = pytest.importorskip("torch")
    a = coherent(500, 4)
    expected = leverage_scores(a)
    for tensor in (torch.tensor(a, requires_grad=True), torch.tensor(a).to_sparse_csr()):
        found = leverage_scores(tensor)
        assert found.dtype == torch.float64
        assert not found.requires_grad
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert leverage_scores(torch.tensor(a, dtype=torch.float32)).dtype == torch.float32
    with pytest.raises(TypeError, match=r"sparse_csr.*to_sparse_csr\(\)"):
        leverage_scores(torch.tensor(a).to_sparse_coo())


def test_bad_input_is_named():
    a = coherent(100, 3)
    holed = a.copy()
    holed[17, 2] = np.nan
    for method in ("auto", "qr", "approx"):
        with pytest.raises(NotFiniteError, match=r"'a' must be finite.*row 17, column 2"):
            leverage_scores(holed, method=method)
    with pytest.raises(NotFiniteError, match=r"row 17, column 2"):
        leverage_scores(scipy.sparse.csr_array(holed))
    with pytest.raises(ShapeError, match=r"'a' must be a matrix.*got shape \(100,\)"):
        leverage_scores(a[:, 0])
    for empty in (a[:0], a[:, :0]):
        with pytest.raises(ShapeError, match="a row and a column at least"):
            leverage_scores(empty)
    with pytest.raises(TypeError, match="complex"):
        leverage_scores(a + 0j)
    with pytest.raises(TypeError, match="'a' must hold real numbers"):
        leverage_scores(a.astype(object))
    with pytest.raises(DomainError, match="'a' must not be all zero"):
        leverage_scores(np.zeros((4, 2)))
    with pytest.raises(DomainError, match="'method' must be one of 'auto'"):
        leverage_scores(a, method="svd")
    with pytest.raises(DomainError, match="'ridge' must be finite and nonnegative"):
        leverage_scores(a, ridge=-1.0)
    with pytest.raises(DomainError, match=r"depend on one another.*method=\"auto\""):
        leverage_scores(np.column_stack([a, a]), method="gram")


@pytest.mark.parametrize("method", ["qr", "sketch_qr"])
def test_many_rows_hide_no_column(method):
    # Powers of a grid, of condition number 1e11, whose scores are those of Legendre polynomials.
    n, d = 50_000, 16
    grid = np.linspace(0, 1, n)
    q, _ = np.linalg.qr(np.polynomial.legendre.legvander(2 * grid - 1, d - 1))
    found = leverage_scores(np.vander(grid, d), method=method)
    np.testing.assert_allclose(found, np.square(q).sum(axis=1), rtol=1e-3)
    # And a column that the others make stays found.
    a = np.column_stack([q[:, :5], q[:, :5] @ [1.0, -2.0, 0.5, 3.0, 1e-3]])
    found = leverage_scores(a, method=method)
    np.testing.assert_allclose(found, np.square(q[:, :5]).sum(axis=1), rtol=1e-8)
