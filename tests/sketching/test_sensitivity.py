"""Sensitivities: beside linear programs and an optimizer, between bounds, and in sum."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import linprog, minimize
from scipy.special import gamma
from tall_matrices import coherent

import pyprobe
from pyprobe._rng import key as key_of
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import (
    leverage_scores,
    lewis_weights,
    lp_sensitivities,
    sample_rows,
    total_sensitivity,
)
from pyprobe.sketching._input import read_tall
from pyprobe.sketching.sensitivity import Among

EXPONENTS = [1.0, 1.5, 3.0, 4.0, 8.0]


def chebyshev(n, degree):
    return np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, n), degree)


def by_linear_program(a):
    """1 / min sum t over -t <= A x <= t, a_i x = 1."""
    n, d = a.shape
    eye = scipy.sparse.eye_array(n)
    bounds = scipy.sparse.block_array([[a, -eye], [-a, -eye]])
    costs = np.r_[np.zeros(d), np.ones(n)]
    found = []
    for row in a:
        equality = np.r_[row, np.zeros(n)][None]
        limits = [(None, None)] * d + [(0, None)] * n
        end = linprog(costs, bounds, np.zeros(2 * n), equality, [1.0], limits, method="highs")
        assert end.success
        found.append(1 / end.fun)
    return np.array(found)


def by_ascent(a, p, seed):
    """The largest |a_i x|^p / ||A x||_p^p from many starts, by its logarithm."""
    a, _ = np.linalg.qr(a)
    rng = np.random.default_rng(seed)

    def ratio(x, row):
        y, own = a @ x, row @ x
        powers = np.abs(y) ** (p - 1)
        total = (powers * np.abs(y)).sum()
        slope = p * (a.T @ (powers * np.sign(y))) / total - p * row / own
        return np.log(total) - p * np.log(abs(own)), slope

    found = []
    for row in a:
        starts = row / np.linalg.norm(row) + rng.normal(size=(6, len(row))) * np.arange(6)[:, None]
        ends = [
            minimize(ratio, start, args=(row,), jac=True, method="BFGS").fun for start in starts
        ]
        found.append(np.exp(-min(ends)))
    return np.array(found)


@pytest.mark.parametrize("method", ["onestep", "exact"])
def test_for_squares_they_are_leverage_scores(method):
    a = coherent(500, 5)
    np.testing.assert_allclose(
        lp_sensitivities(a, 2, method=method), leverage_scores(a), rtol=1e-12
    )


@pytest.mark.parametrize("a", [coherent(80, 4), chebyshev(80, 5)], ids=["coherent", "chebyshev"])
def test_for_moduli_they_are_those_of_linear_programs(a):
    np.testing.assert_allclose(
        lp_sensitivities(a, 1.0, method="exact"), by_linear_program(a), rtol=1e-3
    )


@pytest.mark.parametrize("tol", [1e-2, 1e-7])
def test_for_moduli_linear_programs_lie_between_the_bounds_of_a_search(tol):
    # Whole numbers, some rows alike: many vertices are as good as the best.
    a = np.random.default_rng(14).integers(-1, 2, size=(60, 4)).astype(float)
    a = np.vstack([a, a[:9], np.zeros((2, 4))])[a.shape[0] - 30 :]
    a = a[np.abs(a).any(axis=1)]
    among = Among.of(read_tall("a", a), 1.0, None, 0)
    rows = among.rows()
    lower, upper = among.search(rows, tol, None)
    expected = by_linear_program(a)
    assert (lower <= expected * (1 + 1e-9)).all()
    assert (expected <= upper * (1 + 1e-9)).all()
    assert (upper <= (1 + tol) * lower).all()


@pytest.mark.parametrize("p", EXPONENTS[1:])
@pytest.mark.parametrize("a", [coherent(50, 3), chebyshev(50, 3)], ids=["coherent", "chebyshev"])
def test_no_ascent_climbs_higher(p, a):
    found = lp_sensitivities(a, p, method="exact")
    np.testing.assert_allclose(found, by_ascent(a, p, seed=1), rtol=1e-3)


@pytest.mark.parametrize("p", [8.0, 16.0, 32.0])
def test_large_exponents_have_bounds_that_meet(p):
    # Powers of most residuals are nothing beside the largest. Open bounds would warn.
    a = chebyshev(500, 11)[::-1]
    found = lp_sensitivities(a, p, method="exact")
    np.testing.assert_allclose(found, found[::-1], rtol=2e-3)
    assert (lp_sensitivities(a, p) <= found * (1 + 2e-3)).all()


@pytest.mark.parametrize("p", EXPONENTS)
def test_they_lie_between_their_bounds(p):
    a = coherent(300, 6, seed=2)
    rank = 6
    least = lp_sensitivities(a, p)
    exact = lp_sensitivities(a, p, method="exact", tol=1e-6)
    w = lewis_weights(a, p, tol=1e-10)
    # Where a bound is attained, the two differ by the tolerance.
    assert (least <= exact * (1 + 2e-6)).all()
    assert (exact <= max(1.0, rank ** (p / 2 - 1)) * w * (1 + 1e-8)).all()
    assert least.min() > 0
    if p < 2:
        assert (exact <= leverage_scores(a) ** (p / 2) * (1 + 1e-8)).all()
        assert (w <= rank ** (1 - p / 2) * exact * (1 + 2e-6)).all()


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_a_lower_bound_is_the_part_at_its_point(p):
    a = coherent(200, 4, seed=3)
    w = lewis_weights(a, p, tol=1e-12)
    m = (a * w[:, None] ** (1 - 2 / p)).T @ a
    x = np.linalg.solve(m, a.T)
    parts = np.abs(a @ x) ** p
    # Its point is that of weights to 1 %, at which the ratio is stationary only in part.
    np.testing.assert_allclose(lp_sensitivities(a, p), parts.diagonal() / parts.sum(0), rtol=2e-2)


def test_one_column_and_rows_of_their_own():
    a = np.random.default_rng(4).standard_normal((40, 1))
    for p in EXPONENTS:
        for method in ("onestep", "exact"):
            found = lp_sensitivities(a, p, method=method)
            np.testing.assert_allclose(found, (np.abs(a) ** p / (np.abs(a) ** p).sum())[:, 0])
            np.testing.assert_allclose(lp_sensitivities(np.eye(3), p, method=method), 1)
    found = lp_sensitivities(a, 1.0, method="group", group_size=1)
    np.testing.assert_allclose(found, np.abs(a[:, 0]) / np.abs(a).sum(), rtol=1e-3)


@pytest.mark.parametrize("p", [1.0, 4.0])
def test_they_depend_on_the_space_alone(p):
    a = coherent(200, 4, seed=5)
    found = lp_sensitivities(a, p, method="exact", tol=1e-6)
    mixed = np.column_stack([a @ np.diag([1e-80, 1.0, 1e80, 3.0]), a[:, 1] - 2 * a[:, 3]])
    np.testing.assert_allclose(
        lp_sensitivities(mixed, p, method="exact", tol=1e-6), found, rtol=1e-5
    )
    # A row in three copies has a third of the part, and rows of zeros none.
    split = np.vstack([a[1:], *[a[:1] * 3 ** (-1 / p)] * 3, np.zeros((2, 4))])
    thirds = lp_sensitivities(split, p, method="exact", tol=1e-6)
    np.testing.assert_allclose(thirds[:199], found[1:], rtol=1e-5)
    np.testing.assert_allclose(thirds[199:202], found[0] / 3, rtol=1e-5)
    assert not thirds[202:].any()


@pytest.mark.parametrize("p", [8.0, 16.0, 32.0])
@pytest.mark.parametrize("method", ["onestep", "exact"])
def test_rows_that_are_tiny_have_their_power_of_the_part(p, method):
    # A row times t has t^p of the part, as far as it counts for nothing in the sum; the weights
    # that make the point come to 1 %.
    a = np.random.default_rng(12).standard_normal((100, 3))
    a[7] *= 1e-6
    found = lp_sensitivities(a, p, method=method)
    smaller = a.copy()
    smaller[7] *= 1e-4
    again = lp_sensitivities(smaller, p, method=method)
    assert (found > 0).all()
    np.testing.assert_allclose(np.delete(again, 7), np.delete(found, 7), rtol=1e-3)
    np.testing.assert_allclose(again[7], found[7] * 1e-4**p, rtol=1e-2)


def test_rows_that_do_not_stand_for_all_columns_are_told():
    tall = read_tall("a", np.random.default_rng(13).standard_normal((200, 4)))
    among = Among.of(tall, 1.5, None, 0)
    lost = dataclasses.replace(among, points=among.points * [1.0, 1.0, 1.0, 0.0])
    with pytest.raises(DomainError, match=r"do not span the columns.*raise 'n_coreset'"):
        lost.exact(among.rows(), 1e-3, None)


def test_groups_are_above_and_in_sum_not_far():
    a = np.vstack([coherent(150, 4, seed=6), chebyshev(100, 3)])
    exact = lp_sensitivities(a, 1.0, method="exact")
    for group_size in (1, 5, 8):
        found = lp_sensitivities(a, 1.0, method="group", group_size=group_size, rng=1)
        assert (found >= exact * (1 - 1e-12)).all()
        # Bounds from above, which for p = 1 may be some percent away.
        assert found.sum() <= group_size * exact.sum() * 1.005
        assert (found <= lewis_weights(a, 1.0, tol=1e-8) * 1.03).all()


def test_a_coreset_has_other_variates_than_a_sample_of_its_seed():
    # Else sums over samples by these scores are biased: by 1 %, with sixty rows and sixty rows.
    a = np.random.default_rng(14).standard_normal((2000, 3))
    for seed in range(5):
        points = Among.of(read_tall("a", a), 1.0, 200, key_of(seed)).points
        sample = sample_rows(a, 200, p=1, rng=seed)
        among = Among.of(read_tall("a", a), 1.0, None, 0).points
        kept = {tuple(row) for row in among[sample.indices].round(9)}
        common = sum(tuple(row) in kept for row in points.round(9))
        assert common < 60  # about 20 of 200


def test_a_coreset_stands_for_all_rows():
    a = coherent(10_000, 5, seed=7)
    some = np.r_[:20, 1000:1060]
    every = lp_sensitivities(a[:4000], 1.0)
    np.testing.assert_array_equal(every, lp_sensitivities(a[:4000], 1.0, n_coreset=None))
    for p in (1.0, 3.0):
        by_some = lp_sensitivities(a, p, n_coreset=3000, rng=0)
        by_all = lp_sensitivities(a, p, n_coreset=None)
        ratio = by_some[some] / by_all[some]
        assert np.abs(np.log(ratio)).max() < 0.25
        assert abs(by_some.sum() / by_all.sum() - 1) < 0.05


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # Rows of normals: the part of x = a_i, |a|^p / (n E|g|^p), is the largest for large n.
        (1.0, lambda d: np.sqrt(2) * gamma((d + 1) / 2) / gamma(d / 2) / np.sqrt(2 / np.pi)),
        (4.0, lambda d: d * (d + 2) / 3),
    ],
    ids=["1", "4"],
)
def test_the_total_of_normal_rows_is_known(p, expected):
    a = np.random.default_rng(8).standard_normal((10_000, 6))
    found = total_sensitivity(a, p, n_rows=150, n_coreset=None, rng=0)
    assert found.n_rows == 150
    assert found.standard_error < 0.02 * found.value
    # Beside its own error that of the rows: the sum of |a|^p, and what n adds to the maximum.
    assert abs(float(found) - expected(6)) < 4 * found.standard_error + 0.01 * expected(6)


def test_the_total_is_the_sum():
    a = coherent(500, 4, seed=9)
    exact = lp_sensitivities(a, 1.0, method="exact").sum()
    every = total_sensitivity(a, 1.0, n_rows=500)
    np.testing.assert_allclose(every.value, exact, rtol=1e-12)
    assert every.standard_error == 0
    errors = []
    for seed in range(30):
        some = total_sensitivity(a, 1.0, n_rows=60, rng=seed)
        errors.append((some.value - exact) / some.standard_error)
    # Thirty studentized errors: unbiased, and of the size that is reported.
    assert abs(np.mean(errors)) < 5 / np.sqrt(30)
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) < 2
    np.testing.assert_allclose(total_sensitivity(a, 2.0, n_rows=500).value, 4, rtol=1e-3)


def test_float32_sparse_rows_tensors_and_threads():
    a = coherent(600, 4, seed=10).astype(np.float32)
    before = pyprobe.get_num_threads()
    for method in ("onestep", "exact", "group"):
        options = {"method": method, "n_coreset": 120, "rng": 3}
        found = lp_sensitivities(a, 1.0, **options)
        assert found.dtype == np.float32
        sparse = lp_sensitivities(scipy.sparse.csr_array(a), 1.0, **options)
        np.testing.assert_allclose(sparse, found, rtol=1e-5)
        np.testing.assert_allclose(
            lp_sensitivities(a.astype(float), 1.0, **options), found, rtol=1e-4
        )
        try:
            pyprobe.set_num_threads(3 if before == 1 else 1)
            np.testing.assert_array_equal(lp_sensitivities(a, 1.0, **options), found)
        finally:
            pyprobe.set_num_threads(before)
        torch = pytest.importorskip("torch")
        tensor = lp_sensitivities(torch.tensor(a, requires_grad=True), 1.0, **options)
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad
        np.testing.assert_array_equal(tensor.numpy(), found)


def test_searches_report_their_progress_and_may_be_ended():
    a = coherent(600, 4, seed=11)
    seen = []
    lp_sensitivities(a, 1.5, method="exact", callback=seen.append)
    assert all(progress.total == 600 and progress.value <= 1 for progress in seen)
    assert [progress.step for progress in seen] == sorted(progress.step for progress in seen)

    class EnoughError(Exception):
        pass

    def end(progress):
        raise EnoughError

    with pytest.raises(EnoughError):
        lp_sensitivities(coherent(3000, 20), 1.5, method="exact", callback=end)


def test_bad_input_is_named():
    a = coherent(100, 3)
    for function in (lp_sensitivities, total_sensitivity):
        with pytest.raises(DomainError, match=r"'p' must be at least 1; got 0.5.*lewis_weights"):
            function(a, 0.5)
        with pytest.raises(DomainError, match=r"'p' must be finite; got inf.*A large p"):
            function(a, np.inf)
        with pytest.raises(DomainError, match="'p' must be at least 1; got nan"):
            function(a, np.nan)
        with pytest.raises(TypeError, match="'p' must be a number; got str"):
            function(a, "one")
        with pytest.raises(DomainError, match=r"'n_coreset' must be at least the rank of 'a', 3"):
            function(a, 1.0, n_coreset=2)
        with pytest.raises(DomainError, match="'n_coreset' must be at least 1; got 0"):
            function(a, 1.0, n_coreset=0)
        with pytest.raises(DomainError, match="'tol' must be finite and positive"):
            function(a, 1.0, tol=0.0)
        with pytest.raises(NotFiniteError, match="row 2, column 1"):
            function(np.where(np.arange(300).reshape(100, 3) == 7, np.nan, a), 1.0)
        with pytest.raises(ShapeError, match="'a' must be"):
            function(a[:, 0], 1.0)
        with pytest.raises(ShapeError, match=r"a row and a column at least; got shape \(0, 3\)"):
            function(a[:0], 1.0)
        with pytest.raises(DomainError, match="'a' must not be all zero"):
            function(np.zeros((4, 2)), 1.0)
        with pytest.raises(TypeError, match="'callback'"):
            function(a, 1.0, callback=3)
    with pytest.raises(DomainError, match="'method' must be one of"):
        lp_sensitivities(a, 1.0, method="ascent")
    with pytest.raises(DomainError, match=r'method="group" is for p = 1; got p = 3'):
        lp_sensitivities(a, 3.0, method="group")
    with pytest.raises(DomainError, match="'group_size' must be at least 1; got 0"):
        lp_sensitivities(a, 1.0, method="group", group_size=0)
    with pytest.raises(DomainError, match="'n_rows' must be at least 2; got 1"):
        total_sensitivity(a, 1.0, n_rows=1)
