"""Lewis weights: the fixed point itself, its invariances, and how fast it is reached."""

import numpy as np
import pytest
import scipy.sparse
from tall_matrices import coherent

import pyprobe
from pyprobe.errors import ConvergenceWarning, DomainError, NotFiniteError
from pyprobe.sketching import leverage_scores, lewis_weights

EXPONENTS = [0.5, 1.0, 1.5, 3.0, 4.0, 8.0, 16.0, 32.0]


def residual(a, w, p):
    """log(tau / w) by the definition, w_i = (a_i' M^-1 a_i)^(p/2) with M = A' W^(1 - 2/p) A."""
    a, w = a[w > 0], w[w > 0]
    m = (a * w[:, None] ** (1 - 2 / p)).T @ a
    q = (a * np.linalg.solve(m, a.T).T).sum(axis=1)
    return np.abs(np.log(q) - 2 / p * np.log(w)).max()


@pytest.mark.parametrize("p", EXPONENTS)
def test_weights_are_the_fixed_point_and_sum_to_the_rank(p):
    a = coherent(2000, 8)
    w, info = lewis_weights(a, p, tol=1e-8, return_info=True)
    assert info.converged
    assert info.residual <= 1e-8
    assert info.rank == 8
    assert residual(a, w, p) < 1e-6
    assert abs(w.sum() - 8) < 1e-6


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_residual_reported_is_that_of_the_weights_returned(p):
    a = coherent(1500, 6, seed=1)
    w, info = lewis_weights(a, p, return_info=True)
    np.testing.assert_allclose(info.residual, residual(a, w, p), rtol=1e-6)
    assert info.residual <= 1e-2


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, 4.0])
def test_few_passes_are_enough_for_sampling(p):
    for a in (coherent(5000, 20, seed=2), np.random.default_rng(3).standard_normal((5000, 20))):
        _, info = lewis_weights(a, p, return_info=True)
        assert info.n_iter <= 9  # 8 steps, and the pass that measures the last


def test_squares_have_leverage_scores_after_one_pass():
    a = coherent(1000, 5)
    w, info = lewis_weights(a, 2, return_info=True)
    assert info.n_iter == 1
    np.testing.assert_array_equal(w, leverage_scores(a))


@pytest.mark.parametrize("p", [0.5, 1.0, 4.0])
def test_weights_depend_on_the_space_alone(p):
    rng = np.random.default_rng(4)
    a = coherent(1000, 5)
    w = lewis_weights(a, p, tol=1e-10)
    mixed = a @ (rng.standard_normal((5, 5)) + 3 * np.eye(5))
    np.testing.assert_allclose(lewis_weights(mixed, p, tol=1e-10), w, rtol=1e-8)
    # A row in k copies, each with its part of the sum of powers, splits its weight evenly.
    split = np.vstack([a[1:], *[a[:1] * 3 ** (-1 / p)] * 3])
    found = lewis_weights(split, p, tol=1e-10)
    np.testing.assert_allclose(found[:-3], w[1:], rtol=1e-8)
    np.testing.assert_allclose(found[-3:], w[0] / 3, rtol=1e-8)


@pytest.mark.parametrize("p", [1.0, 4.0])
def test_dependent_columns_rows_of_zeros_and_sparse_rows(p):
    a = coherent(900, 5)
    a[[3, 500]] = 0
    w = lewis_weights(a, p, tol=1e-9)
    assert not w[[3, 500]].any()
    kept = np.delete(np.arange(900), [3, 500])
    np.testing.assert_allclose(lewis_weights(a[kept], p, tol=1e-9), w[kept], rtol=1e-7)
    wide = np.column_stack([a, a[:, :2] @ [1.0, -1.0], np.zeros(900)])
    found, info = lewis_weights(wide, p, tol=1e-9, return_info=True)
    assert info.rank == 5
    np.testing.assert_allclose(found, w, rtol=1e-7)
    found = lewis_weights(scipy.sparse.csr_array(a), p, tol=1e-9)
    np.testing.assert_allclose(found, w, rtol=1e-9)


def test_float32_and_tensors_and_threads():
    a = coherent(20_000, 6)
    w = lewis_weights(a.astype(np.float32), 1.0)
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, lewis_weights(a, 1.0), rtol=1e-5)
    before = pyprobe.get_num_threads()
    try:
        pyprobe.set_num_threads(1)
        one = lewis_weights(a, 1.0)
        pyprobe.set_num_threads(3)
        three = lewis_weights(a, 1.0)
    finally:
        pyprobe.set_num_threads(before)
    np.testing.assert_array_equal(one, three)
    torch = pytest.importorskip("torch")
    found = lewis_weights(torch.tensor(a), 1.0)
    np.testing.assert_array_equal(found.numpy(), lewis_weights(a, 1.0))


def test_an_iteration_that_is_cut_short_says_so():
    a = coherent(1000, 5)
    with pytest.warns(ConvergenceWarning, match=r"residual of .* after 3 passes.*max_iter"):
        _, info = lewis_weights(a, 32.0, tol=1e-8, max_iter=3, return_info=True)
    assert not info.converged
    assert info.residual > 1e-8
    seen = []

    def stop(progress):
        seen.append(progress)
        return progress.step == 2

    with pytest.warns(ConvergenceWarning, match="after 2 passes"):
        lewis_weights(a, 32.0, tol=1e-8, callback=stop)
    assert [progress.step for progress in seen] == [1, 2]
    assert seen[0].total == 300


def test_exponents_that_are_too_small_are_refused():
    a = np.random.default_rng(7).standard_normal((50_000, 6))
    for p in (0.02, 0.01, 1e-3):
        with pytest.raises(DomainError, match=r"'p' = .* is too small for these rows"):
            lewis_weights(a, p)
    assert abs(lewis_weights(a, 0.05, tol=1e-3).sum() - 6) < 1e-2


def test_bad_input_is_named():
    a = coherent(100, 3)
    for p in (0.0, -1.0, np.nan):
        with pytest.raises(DomainError, match="'p' must be positive"):
            lewis_weights(a, p)
    with pytest.raises(DomainError, match=r"'p' must be finite; got inf.*A large p"):
        lewis_weights(a, np.inf)
    with pytest.raises(TypeError, match="'p' must be a number; got list"):
        lewis_weights(a, [1.0])
    holed = a.copy()
    holed[17, 2] = np.inf
    with pytest.raises(NotFiniteError, match=r"'a' must be finite.*row 17, column 2"):
        lewis_weights(holed, 1.0)
    with pytest.raises(DomainError, match="'a' must not be all zero"):
        lewis_weights(np.zeros((4, 2)), 1.0)
