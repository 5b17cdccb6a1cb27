"""Least squares by sketches: exact ones beside LAPACK, sketched ones beside their own promises."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from scipy import stats

import pyprobe
from pyprobe.cluster._samples import as_samples
from pyprobe.errors import (
    ConvergenceWarning,
    DomainError,
    NotFiniteError,
    PyprobeError,
    ShapeError,
)
from pyprobe.sketching import _least_squares, _sparse_rows, sketch_operator, sketched_lstsq

EPS = np.finfo(float).eps


def problem(seed, n=3000, d=8, condition=1.0, noise=1.0):
    """Columns of a given condition number, turned both ways, and targets."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(n, d)))[0]
    v = np.linalg.qr(rng.normal(size=(d, d)))[0]
    a = (u * np.logspace(0, -np.log10(condition), d)) @ v.T
    return a, a @ rng.normal(size=d) + noise * rng.normal(size=n) / np.sqrt(n)


def backward_error(a, b, x):
    """Karlson and Walden's estimate of the least change of a that makes x a solution, by |a|."""
    long = np.longdouble
    r = b.astype(long) - a.astype(long) @ x.astype(long)
    gradient = (a.astype(long).T @ r).astype(float)
    _, s, vt = np.linalg.svd(a, full_matrices=False)
    damping = np.linalg.norm(r.astype(float)) / np.linalg.norm(x)
    return np.linalg.norm(vt @ gradient / np.hypot(s, damping)) / np.linalg.norm(x) / s[0]


def by_qr(a, b):
    q, r = np.linalg.qr(a)
    return scipy.linalg.solve_triangular(r, q.T @ b)


# Exact.


@pytest.mark.parametrize("sketch", ["auto", "sparse_sign", "srht", "gaussian", "countsketch"])
def test_the_exact_solution_is_that_of_lapack(sketch, seed):
    a, b = problem(seed)
    # d^2 rows are what CountSketch needs.
    n_rows = 640 if sketch == "countsketch" else None
    found = sketched_lstsq(a, b, sketch=sketch, n_rows=n_rows)
    expected, squares, rank, _ = np.linalg.lstsq(a, b)
    np.testing.assert_allclose(found.x, expected, rtol=1e-12)
    np.testing.assert_allclose(found.residual_norm, np.sqrt(squares[0]), rtol=1e-13)
    assert found.rank == rank == 8
    assert found.standard_error is None
    assert found.info.converged
    assert found.info.method == ("cholesky" if sketch == "auto" else "sketch")
    assert found.info.sketch == (None if sketch == "auto" else sketch)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", range(1, 10))
def test_few_columns_are_solved_whatever_the_number_of_rows(d, dtype, seed):
    rng = np.random.default_rng([seed, d])
    for n in (d, d + 1, 13, 500, 16_391):
        a = rng.standard_normal((n, d)).astype(dtype)
        b = a.sum(axis=1) + rng.standard_normal(n)
        found = sketched_lstsq(a, b)
        expected = scipy.linalg.lstsq(a.astype(float), b)[0]
        np.testing.assert_allclose(found.x, expected, rtol=1e-7, atol=1e-10)
        length = np.linalg.norm(b - a @ expected)
        np.testing.assert_allclose(found.residual_norm, length, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("noise", [1.0, 1e-8, 0.0])
@pytest.mark.parametrize("condition", [1e4, 1e8, 1e12])
def test_backward_errors_are_those_of_a_qr_decomposition(condition, noise, seed):
    a, b = problem(seed, condition=condition, noise=noise)
    found = sketched_lstsq(a, b)
    theirs = backward_error(a, b, by_qr(a, b))
    assert found.info.method == ("cholesky" if condition == 1e4 else "sketch")
    assert found.rank == 8
    assert backward_error(a, b, found.x) < 3 * theirs + 2 * EPS


@pytest.mark.parametrize("condition", [1e6, 1e9, 1e12])
def test_conjugate_gradients_are_as_exact(condition, seed, monkeypatch):
    monkeypatch.setattr(_least_squares, "_WIDE", 7)  # 8 columns are many then
    a, b = problem(seed, condition=condition)
    found = sketched_lstsq(a, b)
    assert found.info.method == "sketch"
    assert found.info.n_rows == 96
    assert backward_error(a, b, found.x) < 3 * backward_error(a, b, by_qr(a, b)) + 2 * EPS


@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 5), (40, 7), (3, 6), (130, 16)])
@pytest.mark.parametrize("condition", [1.0, 1e9])
def test_few_rows_are_solved_too(n, d, condition, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d)) * np.logspace(0, -np.log10(condition), d)
    b = rng.normal(size=n)
    found = sketched_lstsq(a, b)
    expected = np.linalg.lstsq(a, b, rcond=1e-14)[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.x, expected, atol=1e-10 * scale * condition**0.5)
    assert found.rank == min(n, d)


def test_dependent_columns_give_the_shortest_solution(seed):
    a, b = problem(seed, d=5)
    a = np.hstack([a, a[:, :2] @ [[1.0, 2.0], [3.0, -1.0]], np.zeros((len(a), 1))])
    expected = np.linalg.pinv(a, rcond=1e-12) @ b
    for sketch in ("auto", "sparse_sign", "srht"):
        found = sketched_lstsq(a, b, sketch=sketch)
        assert found.rank == 5
        np.testing.assert_allclose(found.x, expected, rtol=1e-9, atol=1e-12)
    few = sketched_lstsq(a[:30], b[:30])
    np.testing.assert_allclose(few.x, np.linalg.pinv(a[:30], rcond=1e-12) @ b[:30], atol=1e-11)
    rough = sketched_lstsq(a, b, guarantee="l2", n_rows=1000, rng=0)
    assert rough.rank == 5
    null = scipy.linalg.null_space(a, rcond=1e-12)
    assert np.abs(null.T @ rough.x).max() < 1e-9


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e-30])
def test_the_shortest_solution_is_so_among_columns_of_any_scale(size, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=3000)
    b = 3 * z + 1 + rng.normal(size=3000)
    one = np.ones(3000)
    mean, slope = np.linalg.lstsq(np.column_stack([one, z]), b)[0]
    pair = mean * np.array([1.0, 7.0]) / 50  # of all with x[0] + 7 x[1] = mean
    x = sketched_lstsq(np.column_stack([one, 7 * one, size * z]), b).x
    np.testing.assert_allclose(x, [*pair, slope / size], rtol=1e-11)
    # Two dependences, which a basis of the null space may mix.
    apart = np.column_stack([one, size * z, 7 * one, 2 * size * z])
    x = sketched_lstsq(apart, b).x
    short = slope / size * np.array([1.0, 2.0]) / 5
    np.testing.assert_allclose(x, [pair[0], short[0], pair[1], short[1]], rtol=1e-11)
    # More that depend than do not.
    many = np.column_stack([one, 7 * one, one, size * z, 2 * size * z, one])
    x = sketched_lstsq(many, b).x
    ones = mean * np.array([1.0, 7.0, 1.0, 1.0]) / 52
    expected = [ones[0], ones[1], ones[2], short[0], short[1], ones[3]]
    np.testing.assert_allclose(x, expected, rtol=1e-11)
    # One group whose members differ in length.
    x = sketched_lstsq(np.column_stack([size * one, one, 7 * one, z]), b).x
    expected = mean * np.array([size, 1.0, 7.0]) / (50 + size**2)
    np.testing.assert_allclose(x, [*expected, slope], rtol=1e-11)


@pytest.mark.parametrize("condition", [1.0, 1e9])
def test_columns_of_any_scale_are_as_well_solved(condition, seed):
    a, b = problem(seed, condition=condition)
    exponents = np.array([500, -500, 0, 300, -300, 100, -100, 0])
    reference = sketched_lstsq(a, b)
    found = sketched_lstsq(np.ldexp(a, exponents), b)
    close = 1e-12 if condition == 1.0 else 1e-6
    np.testing.assert_allclose(np.ldexp(found.x, exponents), reference.x, rtol=close)
    np.testing.assert_allclose(found.residual_norm, reference.residual_norm, rtol=1e-12)
    for shift in (500, -500):
        moved = sketched_lstsq(a, np.ldexp(b, shift))
        np.testing.assert_array_equal(np.ldexp(moved.x, -shift), reference.x)
    with pytest.raises(DomainError, match="solution too large"):
        sketched_lstsq(a * 1e-200, b * 1e200)


def test_many_targets_are_solved_at_once(seed):
    for condition in (1.0, 1e7):
        a, b = problem(seed, condition=condition)
        targets = np.column_stack([b, a @ np.arange(8.0), np.zeros(len(b))])
        found = sketched_lstsq(a, targets)
        assert found.x.shape == (8, 3)
        assert found.residual_norm.shape == (3,)
        expected = a @ by_qr(a, targets)
        np.testing.assert_allclose(a @ found.x, expected, atol=1e-13 + 1e-15 * condition)
        np.testing.assert_array_equal(found.x[:, 2], 0.0)
        assert found.residual_norm[1] < 1e-12 * np.linalg.norm(targets[:, 1])


@pytest.mark.parametrize("d", [6, 100])
@pytest.mark.parametrize("condition", [1.0, 1e8])
def test_sparse_data_give_the_solution_of_dense_ones(d, condition, seed):
    rng = np.random.default_rng(seed)
    a = scipy.sparse.random_array((4000, d), density=0.1, random_state=rng, format="csr")
    a = a + scipy.sparse.eye_array(4000, d, format="csr")
    a = a @ scipy.sparse.diags_array(np.logspace(0, -np.log10(condition), d))
    mixing = np.eye(d) + np.diag(np.ones(d - 1), 1)
    a = scipy.sparse.csr_array(a @ mixing)
    b = rng.normal(size=4000)
    found = sketched_lstsq(a, b)
    dense = a.toarray()
    theirs = backward_error(dense, b, by_qr(dense, b))
    assert backward_error(dense, b, found.x) < 3 * theirs + 2 * EPS
    # As far as the residual itself is known: its rounding is that of the terms it is made of.
    rounding = EPS * np.linalg.norm(np.abs(dense) @ np.abs(found.x))
    expected = np.linalg.norm(b - dense @ by_qr(dense, b))
    np.testing.assert_allclose(found.residual_norm, expected, rtol=1e-13, atol=rounding)


def rows_of_few_entries(seed, n, d, entries):
    """Random places and numbers, and the identity below: every column has an entry."""
    rng = np.random.default_rng(seed)
    a = scipy.sparse.csr_array(
        (
            rng.normal(size=n * entries),
            rng.integers(0, d, size=n * entries),
            np.arange(0, n * entries + 1, entries),
        ),
        shape=(n, d),
    )
    return scipy.sparse.csr_array(scipy.sparse.vstack([a, scipy.sparse.eye_array(d)]))


@pytest.mark.parametrize("method", ["cholesky", "conjugate_gradients"])
def test_short_rows_need_no_sketch(method, seed, monkeypatch):
    if method == "conjugate_gradients":
        monkeypatch.setattr(_sparse_rows, "_PASSES", 0)  # as if passes cost nothing
    d = 300
    a = rows_of_few_entries(seed, 20 * d, d, 4)
    b = np.random.default_rng(seed).normal(size=(a.shape[0], 2))
    found = sketched_lstsq(a, b)
    assert found.info.method == method
    assert found.info.converged
    assert found.rank == d
    dense = a.toarray()
    gram = dense.T @ dense
    # Of scaled columns; what is said is an estimate.
    lengths = np.sqrt(np.diag(gram))
    condition = np.sqrt(np.linalg.cond(gram / lengths / lengths[:, None]))
    assert condition / 3 < found.info.condition < 8 * condition
    exact = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram), dense.T @ b)
    np.testing.assert_allclose(found.x, exact, rtol=0, atol=1e-13 * np.abs(exact).max())
    np.testing.assert_allclose(
        found.residual_norm, np.linalg.norm(b - dense @ exact, axis=0), rtol=1e-12
    )
    # Columns of any scale, and float32.
    exponents = np.where(np.arange(d) % 2, 400, -400)
    scaled = a @ scipy.sparse.diags_array(np.ldexp(1.0, exponents))
    other = sketched_lstsq(scaled, b)
    assert other.info.method == method
    np.testing.assert_allclose(
        np.ldexp(other.x, exponents[:, None]), exact, rtol=0, atol=1e-13 * np.abs(exact).max()
    )


def test_the_pairs_of_entries_make_the_normal_equations(seed, monkeypatch):
    a = rows_of_few_entries(seed, 500, 20, 3)
    b = np.random.default_rng(seed).normal(size=(520, 2))
    scales = np.ldexp(1.0, np.arange(20))
    monkeypatch.setattr(_sparse_rows, "_BLOCK", 1)  # many blocks
    found = _sparse_rows.normal_equations(as_samples("a", a)[0], scales, b)
    dense = a.toarray() * scales
    expected = np.vstack([dense.T @ dense, b.T @ dense])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_columns_that_depend_are_no_matter_for_conjugate_gradients_alone(seed, monkeypatch):
    # Whatever the way costs, it is tried and given up: the rank is that of the matrix.
    monkeypatch.setattr(_sparse_rows, "_PASSES", 0)
    a = rows_of_few_entries(seed, 6000, 100, 4).tolil()
    a[:, [3]] = a[:, [4]] + a[:, [5]]
    a = scipy.sparse.csr_array(a)
    b = np.random.default_rng(seed).normal(size=a.shape[0])
    found = sketched_lstsq(a, b)
    assert found.rank == 99
    assert found.info.method == "sketch"
    np.testing.assert_allclose(found.x, np.linalg.pinv(a.toarray(), rcond=1e-12) @ b, atol=1e-11)


@pytest.mark.parametrize("n_free", [3, 40])
@pytest.mark.parametrize("condition", [1.0, 1e3])
@pytest.mark.parametrize("way", ["dense", "sparse", "sketch", "float32"])
def test_columns_that_depend_are_left_out_of_the_normal_equations(
    way, condition, n_free, seed, monkeypatch
):
    if way == "sketch":
        costs = _sparse_rows.Costs(gram=2.0, in_pairs=False, passes=3.0, sketch=1.0)
        monkeypatch.setattr(_least_squares, "estimate_costs", lambda rows: costs)
    # Few of 70 columns or most of them; twice another, and sums of two.
    rng, d = np.random.default_rng(seed), 70
    dense = rows_of_few_entries(seed, 4000, d, 5).toarray()
    free, rest = np.split(rng.permutation(d), [n_free])
    dense[:, free] *= np.logspace(0, -np.log10(condition), n_free)
    dense[:, free[1:]] += dense[:, free[:-1]]
    for j, column in enumerate(rest):
        others = free[[j % n_free, (3 * j + 1) % n_free]]
        dense[:, column] = dense[:, others] @ [2.0, 1.0 if j % 2 else 0.0]
    if way == "float32":
        dense = dense.astype(np.float32)
    b = rng.normal(size=(len(dense), 2))
    found = sketched_lstsq(dense if way == "dense" else scipy.sparse.csr_array(dense), b)
    assert found.info.method == ("sketch" if way == "sketch" else "cholesky")
    assert found.info.converged
    assert found.rank == n_free
    dense = dense.astype(float)
    cut = 1e-12 if way != "float32" else 1e-6
    expected = np.linalg.pinv(dense, rcond=cut) @ b
    assert np.linalg.cond(dense[:, free]) > condition / 10
    # Sums that were rounded to float32 depend on others to that rounding.
    close = (1e-13 if way != "float32" else 1e-5) * condition
    np.testing.assert_allclose(found.x, expected, rtol=0, atol=close * np.abs(expected).max())
    gradient = dense.T @ (b - dense @ found.x)
    assert np.abs(gradient).max() < close * np.linalg.norm(dense, 2) * np.linalg.norm(b)


@pytest.mark.parametrize("apart", [1e-7, 1e-9, 1e-11])
def test_columns_that_nearly_depend_are_kept(apart, seed):
    rng = np.random.default_rng(seed)
    dense = rows_of_few_entries(seed, 4000, 70, 5).toarray()
    dense[:, 0] = dense[:, 1] + apart * rng.normal(size=len(dense))
    b = dense @ rng.normal(size=70) + rng.normal(size=len(dense))
    found = sketched_lstsq(scipy.sparse.csr_array(dense), b)
    assert (found.rank, found.info.method) == (70, "sketch")
    theirs = backward_error(dense, b, by_qr(dense, b))
    assert backward_error(dense, b, found.x) < 3 * theirs + 2 * EPS


@pytest.mark.parametrize("noise", [0.0, 1e-8, 1.0])
@pytest.mark.parametrize(("apart", "easy"), [(1.0, True), (3e-3, False)])
def test_conjugate_gradients_stay_where_they_are_exact(apart, easy, noise, seed, monkeypatch):
    # Two columns nearly alike: a single small eigenvalue, to which the passes converge soon.
    monkeypatch.setattr(_sparse_rows, "_PASSES", 0)
    rng = np.random.default_rng(seed)
    dense = rows_of_few_entries(seed, 4000, 100, 5).toarray()
    dense[:, 0] = dense[:, 1]
    dense[:4, 0] += apart
    b = dense @ rng.normal(size=100) + noise * rng.normal(size=len(dense))
    found = sketched_lstsq(scipy.sparse.csr_array(dense), b)
    assert (found.info.method == "conjugate_gradients") == easy
    theirs = backward_error(dense, b, by_qr(dense, b))
    assert backward_error(dense, b, found.x) < 3 * theirs + 2 * EPS


@pytest.mark.parametrize("condition", [1e4, 1e9])
def test_sketches_of_sparse_rows_are_as_exact(condition, seed):
    a = rows_of_few_entries(seed, 4000, 100, 10)
    a = a @ scipy.sparse.csr_array(np.diag(np.logspace(0, -np.log10(condition), 100)))
    a = scipy.sparse.csr_array(a @ (np.eye(100) + np.diag(np.ones(99), 1)))
    b = np.random.default_rng(seed).normal(size=a.shape[0])
    dense = a.toarray()
    found = sketched_lstsq(a, b, sketch="sparse_sign")
    assert found.info.method == "sketch"
    theirs = backward_error(dense, b, by_qr(dense, b))
    assert backward_error(dense, b, found.x) < 3 * theirs + 2 * EPS


def test_the_wider_float_type_is_that_of_the_solution(seed):
    a, b = problem(seed)
    for one, other in ((a.astype(np.float32), b), (a, b.astype(np.float32))):
        assert sketched_lstsq(one, other).x.dtype == np.float64
    single = a.astype(np.float32)
    assert sketched_lstsq(single, np.arange(3000)).x.dtype == np.float64
    found = sketched_lstsq(single, b)
    np.testing.assert_array_equal(found.x, sketched_lstsq(single.astype(float), b).x)
    torch = pytest.importorskip("torch")
    mixed = sketched_lstsq(torch.from_numpy(single), torch.from_numpy(b))
    assert mixed.x.dtype == torch.float64
    np.testing.assert_array_equal(mixed.x.numpy(), found.x)


def test_float32_and_integers_are_solved_in_double_precision(seed):
    a, b = problem(seed)
    single = sketched_lstsq(a.astype(np.float32), b.astype(np.float32))
    assert single.x.dtype == np.float32
    double = sketched_lstsq(a.astype(np.float32).astype(float), b.astype(np.float32).astype(float))
    np.testing.assert_array_equal(single.x, double.x.astype(np.float32))
    counts = np.arange(60).reshape(20, 3) ** 2
    whole = sketched_lstsq(counts, counts @ [1, 2, 3])
    np.testing.assert_allclose(whole.x, [1, 2, 3], rtol=1e-9)


def test_threads_change_no_bit(seed):
    a, b = problem(seed, n=50_000)
    hard, _ = problem(seed, n=50_000, condition=1e8)
    before, found = pyprobe.get_num_threads(), []
    for n in (1, 2):
        pyprobe.set_num_threads(n)
        solved = [
            sketched_lstsq(a, b),
            sketched_lstsq(hard, b),
            sketched_lstsq(a, b, guarantee="linf", n_rows=500, rng=0),
        ]
        found.append([np.append(s.x, s.residual_norm) for s in solved])
    pyprobe.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])


def test_callbacks_see_the_steps_and_can_end_them(seed):
    a, b = problem(seed, condition=1e8)
    steps = []
    sketched_lstsq(a, b, callback=steps.append)
    assert [p.step for p in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].value < steps[0].value
    ended = sketched_lstsq(a, b, callback=lambda _: True)
    assert ended.info.n_iter == 1
    assert ended.info.stopped
    assert not ended.info.converged


def test_ending_above_rounding_warns(seed, monkeypatch):
    a, b = problem(seed, condition=1e8)
    monkeypatch.setattr(_least_squares, "MAX_STEPS", 1)
    with pytest.warns(ConvergenceWarning, match="stopped after 1 steps"):
        assert not sketched_lstsq(a, b).info.converged


def test_a_sketch_of_hardly_enough_rows_still_leads_to_the_solution(seed):
    a, b = problem(seed, condition=1e4)
    for n_rows in (9, 10, 12):
        found = sketched_lstsq(a, b, sketch="gaussian", n_rows=n_rows)
        assert backward_error(a, b, found.x) < 3 * backward_error(a, b, by_qr(a, b)) + 2 * EPS


@pytest.mark.parametrize("n", [1, 30, 70])
def test_an_srht_of_few_rows_keeps_all_that_there_are(n, seed):
    a, b = (part[:n] for part in problem(seed))
    found = sketched_lstsq(a, b, sketch="srht")
    assert found.info.n_rows <= 128
    np.testing.assert_allclose(found.x, np.linalg.lstsq(a, b)[0], rtol=1e-9)


# By a sketch.


def instance_of_the_sheet():
    """Unit vectors in the first rows, and targets that weigh on four others: the solution is 0."""
    n, d = 8192, 64
    b = np.zeros(n)
    b[[1000, 3000, 5000, 7000]] = 0.5
    return np.eye(n, d), b


def test_coordinates_are_small_by_an_srht_and_not_by_a_countsketch():
    a, b = instance_of_the_sheet()
    errors = {"srht": [], "countsketch": []}
    lengths = {"srht": [], "countsketch": []}
    for seed in range(60):
        for kind in errors:
            s = sketch_operator(kind, 1024, len(a), rng=seed)
            x = np.linalg.lstsq(s @ a, s @ b)[0]
            errors[kind].append(np.abs(x).max())
            lengths[kind].append(np.linalg.norm(x))
    assert np.quantile(errors["srht"], 0.95) <= 0.12
    # A row of a meets one of b's in about one sketch of four, and moves a coordinate by 1/2.
    assert np.quantile(errors["countsketch"], 0.95) >= 0.45
    # In length the two are as good.
    rms = [np.sqrt(np.mean(np.square(lengths[kind]))) for kind in lengths]
    assert min(rms) > 0.2
    assert max(rms) < 0.32
    solved = sketched_lstsq(a, b, guarantee="linf", n_rows=1024, rng=0)
    assert np.abs(solved.x).max() <= 0.12


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("kind", "m", "n"), [("srht", 400, 4096), ("srht", 2000, 3500), ("gaussian", 60, 600)]
)
def test_intervals_hold_the_exact_solution_as_often_as_they_say(kind, m, n, seed):
    d = 10
    a, b = problem(seed, n=n, d=d, condition=30.0)
    exact = sketched_lstsq(a, b).x
    inside = []
    for draw in range(250):
        s = sketched_lstsq(a, b, guarantee="linf", sketch=kind, n_rows=m, rng=draw)
        half = stats.t.ppf(0.975, m - d) * s.standard_error
        inside.append(np.abs(s.x - exact) <= half)
    # 2500 intervals of which those of one draw are dependent: a standard error of at most 0.014,
    # and of 0.0044 were they independent.
    assert 0.93 <= np.mean(inside) <= 0.98


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["gaussian", "srht", "sparse_sign"])
def test_epsilon_bounds_the_length_of_the_error(kind, seed):
    a, b = problem(seed, n=6000, d=5, condition=10.0)
    exact = sketched_lstsq(a, b)
    errors = []
    for draw in range(100):
        s = sketched_lstsq(a, b, guarantee="l2", sketch=kind, epsilon=0.2, rng=draw)
        errors.append(np.linalg.norm(a @ (s.x - exact.x)) / exact.residual_norm)
        assert s.residual_norm >= exact.residual_norm
        assert s.standard_error is None
    # Each fails with probability 0.01: more than 8 of 100 do so once in 10^6 runs.
    assert sum(error > 0.2 for error in errors) <= 8
    assert s.info.n_rows > 5


def test_the_rows_for_a_length_are_those_of_hotellings_law():
    from pyprobe.sketching.regression import _rows_for_length

    for d, eps in ((1, 0.1), (5, 0.3), (60, 0.5), (200, 0.05)):
        m = _rows_for_length(d, eps)
        ratio = stats.f(d, m - d + 1).ppf(0.99) * d / (m - d + 1)
        before = stats.f(d, m - d).ppf(0.99) * d / (m - d)
        assert ratio <= eps**2 < before


def test_standard_errors_are_in_the_unit_of_their_coordinate(seed):
    a, b = problem(seed)
    plain = sketched_lstsq(a, b, guarantee="linf", n_rows=300, rng=1)
    scaled = sketched_lstsq(
        np.ldexp(a, 500), np.ldexp(b, -400), guarantee="linf", n_rows=300, rng=1
    )
    np.testing.assert_allclose(
        scaled.standard_error, np.ldexp(plain.standard_error, -900), rtol=1e-13
    )
    both = sketched_lstsq(a, np.column_stack([b, 2 * b]), guarantee="linf", n_rows=300, rng=1)
    np.testing.assert_allclose(both.standard_error[:, 1], 2 * plain.standard_error, rtol=1e-13)
    # All rows are kept: nothing is left to chance.
    full = sketched_lstsq(a, b, guarantee="linf", n_rows=4096, rng=1)
    np.testing.assert_array_equal(full.standard_error, 0.0)
    np.testing.assert_allclose(full.x, sketched_lstsq(a, b).x, rtol=1e-11)


def test_sparse_data_are_sketched_by_normals_for_coordinates(seed):
    a, b = problem(seed)
    sparse = scipy.sparse.csr_array(np.where(np.abs(a) > 0.01, a, 0.0))
    found = sketched_lstsq(sparse, b, guarantee="linf", n_rows=400, rng=0)
    assert found.info.sketch == "gaussian"
    exact = sketched_lstsq(sparse, b)
    assert (np.abs(found.x - exact.x) < 6 * found.standard_error).all()


# Tensors.


def test_tensors_come_back_as_tensors(seed):
    torch = pytest.importorskip("torch")
    a, b = problem(seed)
    found = sketched_lstsq(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_array_equal(found.x.numpy(), sketched_lstsq(a, b).x)
    single = sketched_lstsq(
        torch.from_numpy(a).float(), torch.from_numpy(b).float(), guarantee="linf", n_rows=200
    )
    assert single.x.dtype == single.standard_error.dtype == torch.float32
    with pytest.raises(PyprobeError, match=r"no derivatives.*'a' requires a gradient"):
        sketched_lstsq(torch.from_numpy(a).requires_grad_(), torch.from_numpy(b))
    with pytest.raises(TypeError, match="'a' a torch tensor on cpu, 'b' a ndarray"):
        sketched_lstsq(torch.from_numpy(a), b)
    with pytest.raises(TypeError, match=r"'a' must hold numbers.*'meta'"):
        sketched_lstsq(torch.empty(3, 2, device="meta"), torch.empty(3, device="meta"))


# Bad input.


@pytest.mark.parametrize("options", [{}, {"guarantee": "l2", "n_rows": 50}, {"sketch": "srht"}])
def test_entries_that_are_not_finite_are_named(options, seed):
    a, b = problem(seed)
    a[123, 4] = np.inf
    with pytest.raises(NotFiniteError, match=r"'a' must be finite.*(row 123, column 4|\(123, 4\))"):
        sketched_lstsq(a, b, **options)
    a[123, 4], b[7] = 0.0, np.nan
    with pytest.raises(NotFiniteError, match=r"'b' must be finite; got 1 .* \(nan\) at index 7"):
        sketched_lstsq(a, b, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guarantee": "l1"}, "'guarantee' must be one of 'exact', 'l2', 'linf'; got 'l1'"),
        ({"sketch": "dct"}, "'sketch' must be one of 'auto', 'srht'"),
        ({"epsilon": 0.1}, "'epsilon' is for guarantee='l2' and 'linf'"),
        ({"n_rows": 8}, "'n_rows' must be at least 9 for the 8 columns of 'a'; got 8"),
        ({"guarantee": "l2", "n_rows": 3}, "'n_rows' must be at least 9 .*; got 3"),
        ({"guarantee": "l2", "n_rows": 30, "epsilon": 0.1}, "pass one of the two"),
        ({"guarantee": "l2", "epsilon": 0.0}, "'epsilon' must be finite and positive; got 0.0"),
        ({"guarantee": "linf", "epsilon": 0.05}, "needs a sketch of .* rows, and 'a' has 3000"),
        ({"guarantee": "linf", "sketch": "countsketch"}, "'srht' or 'gaussian'.*'countsketch'"),
        ({"guarantee": "linf", "sketch": "sparse_sign"}, "single coordinates by far more"),
        ({"guarantee": "linf", "n_rows": 4097}, "at most 4096, .* the 3000 rows .*; got 4097"),
        ({"guarantee": "l2", "n_rows": 4097}, "at most 4096, .* the 3000 rows .*; got 4097"),
        ({"n_rows": 10**6}, "at most 4096, .* the 3000 rows .* guarantee='exact'"),
        ({"guarantee": "l2", "epsilon": 2}, "'epsilon' must be less than 1; got 2"),
        ({"guarantee": "linf", "epsilon": 1.0}, "'epsilon' must be less than 1; got 1"),
    ],
)
def test_bad_options_say_what_would_do(options, message, seed):
    a, b = problem(seed)
    with pytest.raises(DomainError, match=message):
        sketched_lstsq(a, b, **options)


def test_shapes_that_do_not_fit_are_named(seed):
    a, b = problem(seed)
    with pytest.raises(
        ShapeError, match=r"'b' must have shape \(3000,\) or \(3000, k\).*\(2999,\)"
    ):
        sketched_lstsq(a, b[1:])
    with pytest.raises(ShapeError, match="'a' must be a matrix"):
        sketched_lstsq(b, b)
    with pytest.raises(ShapeError, match="'a' must have a row and a column"):
        sketched_lstsq(a[:, :0], b)
    with pytest.raises(ShapeError, match=r"'b' must have shape.*got \(3000, 0\)"):
        sketched_lstsq(a, b[:, None][:, :0])
    with pytest.raises(TypeError, match="'a' must hold real numbers; got dtype complex128"):
        sketched_lstsq(1j * a, b)
    with pytest.raises(DomainError, match="'a' must not be all zero"):
        sketched_lstsq(0 * a, b)
    with pytest.raises(DomainError, match="'a' must not be all zero"):
        sketched_lstsq(0 * a, b, guarantee="l2")
    with pytest.raises(TypeError, match="'callback' must be a function"):
        sketched_lstsq(a, b, callback=1)
    for guarantee in ("exact", "l2", "linf"):
        with pytest.raises(TypeError, match=r"'rng' must be None, an int, .*; got str"):
            sketched_lstsq(a, b, guarantee=guarantee, rng="a")


def test_what_a_guarantee_cannot_keep_is_refused(seed):
    a, b = problem(seed)
    with pytest.raises(DomainError, match=r"'srht' for a sparse matrix.*a.toarray"):
        sketched_lstsq(scipy.sparse.csr_array(a), b, guarantee="l2", sketch="srht", n_rows=99)
    a[:, 0] = a[:, 1]
    with pytest.raises(DomainError, match="'a' has rank 7 and 8 columns"):
        sketched_lstsq(a, b, guarantee="linf", n_rows=100)
