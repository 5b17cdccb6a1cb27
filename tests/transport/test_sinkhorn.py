"""Entropic transport: marginals, optimality, invariances, hard inputs."""

import math
import threading
import time
import warnings

import hypothesis
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import strategies as st
from transport_problems import assignment, clouds, grid, marginal_error, skewed, uniform

import pyprobe
from pyprobe.errors import ConvergenceWarning, NumericalWarning, PyprobeError
from pyprobe.transport import relative_epsilon, sinkhorn, sinkhorn_batch

METHODS = ("auto", "log", "scaling", "newton")
PROBLEMS = {
    "assignment": lambda rng: assignment(rng, 200),
    "clouds": lambda rng: clouds(rng, 70, 45),
    "clouds in 64 dimensions": lambda rng: clouds(rng, 40, 60, 64),
    "pictures": lambda rng: grid(rng, 8),
    "pictures, squared": lambda rng: grid(rng, 7, 2),
}


@pytest.mark.parametrize("fraction", [0.1, 0.01, 1e-3])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_all_methods_reach_the_tolerance_and_agree(problem, fraction):
    a, b, cost = PROBLEMS[problem](np.random.default_rng(0))
    epsilon = relative_epsilon(cost, fraction)
    # With so little entropy the plan is a permutation but for 1e-8, and the error of Sinkhorn's
    # iteration falls like a power of the number of iterations: below 1e-9 after 1e6 or so.
    slow = problem == "assignment" and fraction == 1e-3
    results = [
        sinkhorn(a, b, cost, epsilon=epsilon, method=method, max_iter=200_000)
        for method in (("auto", "newton") if slow else METHODS)
    ]
    plans = [result.plan() for result in results]
    for result, plan in zip(results, plans, strict=True):
        assert result.converged
        assert result.marginal_error <= 1e-9
        # What is reported is what the plan has, recomputed here.
        assert marginal_error(plan, a, b) == pytest.approx(result.marginal_error, abs=1e-12)
        assert abs(result.value - results[0].value) <= 1e-9 * cost.max()
        assert np.abs(plan - plans[0]).sum() <= 1e-7 / fraction
        # The dual bounds the regularized cost from below, a plan that can be from above.
        assert -1e-12 <= result.gap <= 1e-8 * cost.max()
        assert result.transport_cost == pytest.approx((plan * cost).sum(), rel=1e-12)
        rounded = result.rounded_plan()
        assert marginal_error(rounded, a, b) < 1e-14
        assert len(result.errors) == result.n_iter + result.n_newton
        assert np.dot(a, result.f) == pytest.approx(np.dot(b, result.g), abs=1e-12)


def test_the_plan_is_the_formula_of_the_potentials():
    a, b, cost = clouds(np.random.default_rng(1), 20, 30)
    result = sinkhorn(a, b, cost, epsilon=0.1)
    plan = np.outer(a, b) * np.exp((result.f[:, None] + result.g - cost) / 0.1)
    np.testing.assert_allclose(result.plan(), plan, rtol=1e-11)
    primal = (plan * cost).sum() + 0.1 * (plan * np.log(plan / np.outer(a, b))).sum()
    assert result.value == pytest.approx(primal, abs=1e-8)


def test_two_points_have_the_closed_form():
    # By symmetry P = [[p, 1/2 - p], [1/2 - p, p]] with p / (1/2 - p) = exp(1 / epsilon).
    epsilon = 0.3
    result = sinkhorn(None, None, [[0.0, 1.0], [1.0, 0.0]], epsilon=epsilon, tol=1e-14)
    p = 0.5 / (1 + math.exp(-1 / epsilon))
    np.testing.assert_allclose(result.plan(), [[p, 0.5 - p], [0.5 - p, p]], rtol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_gaussians_on_a_line_have_the_closed_form(method):
    # Janati et al. 2020, theorem 1, with sigma^2 = epsilon / 2: OT of N(0, 1) and N(1, 1/4).
    x = np.linspace(-8, 8, 1601)

    def weights(mean, deviation):
        density = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
        return density / density.sum()

    epsilon, s0, s1, shift = 1.0, 1.0, 0.5, 1.0
    variance = epsilon / 2
    root = math.sqrt(4 * s0**2 * s1**2 + variance**2)
    expected = (
        shift**2
        + s0**2
        + s1**2
        - root
        + variance * (1 - math.log(2 * variance) + math.log(root + variance))
    )
    assert expected == pytest.approx(1.87257192, abs=1e-8)
    cost = (x[:, None] - x) ** 2
    result = sinkhorn(weights(0, s0), weights(1, s1), cost, epsilon=epsilon, method=method)
    assert result.value == pytest.approx(expected, abs=1e-8)


def test_little_entropy_comes_near_the_linear_program(seed):
    rng = np.random.default_rng(seed)
    n, m = 12, 9
    a, b, cost = skewed(rng, n), skewed(rng, m), rng.random((n, m))
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    program = scipy.optimize.linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[a, b], method="highs"
    )

    def entropy(weights):
        return -(weights * np.log(weights)).sum()

    for epsilon in (0.1, 0.01, 1e-3):
        result = sinkhorn(a, b, cost, epsilon=epsilon, method="newton")
        excess = result.transport_cost - program.fun
        assert -1e-9 <= excess <= epsilon * min(entropy(a), entropy(b))


@pytest.mark.parametrize("method", METHODS)
def test_what_the_problem_does_not_change_the_solution_does_not(method):
    rng = np.random.default_rng(2)
    a, b, cost = clouds(rng, 25, 18)

    def solve(a, b, cost, epsilon=0.05):
        return sinkhorn(a, b, cost, epsilon=epsilon, method=method, tol=1e-12)

    result = solve(a, b, cost)
    swapped = solve(b, a, cost.T)
    np.testing.assert_allclose(swapped.plan().T, result.plan(), atol=1e-10)
    np.testing.assert_allclose(swapped.f, result.g, atol=1e-9)
    order, other = rng.permutation(25), rng.permutation(18)
    shuffled = solve(a[order], b[other], cost[np.ix_(order, other)])
    np.testing.assert_allclose(shuffled.plan(), result.plan()[np.ix_(order, other)], atol=1e-10)
    assert solve(a, b, cost + 7).value == pytest.approx(result.value + 7, abs=1e-10)
    assert solve(a, b, 1e6 * cost, 1e6 * 0.05).value == pytest.approx(1e6 * result.value, rel=1e-9)
    # Twice the mass is twice the plan.
    np.testing.assert_allclose(solve(2 * a, 2 * b, cost).plan(), 2 * result.plan(), atol=1e-10)


def test_the_error_falls_and_the_dual_rises_with_the_iterations():
    a, b, cost = clouds(np.random.default_rng(3), 40, 40)
    values = []
    for n in range(1, 15):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = sinkhorn(a, b, cost, epsilon=0.05, method="log", max_iter=n)
        assert result.n_iter == n
        assert not result.converged
        assert marginal_error(result.plan(), a, b) == pytest.approx(result.marginal_error)
        assert result.gap >= -1e-12
        values.append(result.value)
    assert np.all(np.diff(values) >= -1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_points_without_weight_get_no_mass_and_a_price(method):
    rng = np.random.default_rng(4)
    a, b, cost = skewed(rng, 30, 0.3), skewed(rng, 20, 0.3), rng.random((30, 20))
    assert (a == 0).any()
    assert (b == 0).any()
    result = sinkhorn(a, b, cost, epsilon=0.02, method=method)
    plan = result.plan()
    assert result.converged
    assert not plan[a == 0].any()
    assert not plan[:, b == 0].any()
    # The half step that a little weight there would meet.
    price = -0.02 * np.log(np.exp((result.g - cost) / 0.02) @ b)
    np.testing.assert_allclose(result.f[a == 0], price[a == 0], atol=1e-9)
    price = -0.02 * np.log(a @ np.exp((result.f[:, None] - cost) / 0.02))
    np.testing.assert_allclose(result.g[b == 0], price[b == 0], atol=1e-9)
    kept = sinkhorn(a[a > 0], b[b > 0], cost[a > 0][:, b > 0], epsilon=0.02, method=method)
    assert kept.value == pytest.approx(result.value, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_forbidden_pairs_get_nothing(method):
    rng = np.random.default_rng(5)
    a, b, cost = uniform(30), uniform(30), rng.random((30, 30))
    forbidden = rng.random((30, 30)) < 0.5
    np.fill_diagonal(forbidden, False)
    cost[forbidden] = np.inf
    result = sinkhorn(a, b, cost, epsilon=0.02, method=method)
    assert result.converged
    assert not result.plan()[forbidden].any()
    assert math.isfinite(result.value)
    assert math.isfinite(result.transport_cost)
    large = sinkhorn(a, b, np.where(forbidden, 1e3, cost), epsilon=0.02, method=method)
    np.testing.assert_allclose(result.plan(), large.plan(), atol=1e-9)
    assert_certified_on_allowed_pairs(result, a, b, cost)


def assert_certified_on_allowed_pairs(result, a, b, cost, least=-1e-12, most=1e-8):
    """The gap is what the rounded plan, which meets the weights, costs above the value."""
    rounded, independent = result.rounded_plan(), np.outer(a, b)
    allowed = cost < np.inf
    assert marginal_error(rounded, a, b) < 1e-14
    assert rounded.min() >= 0
    assert not rounded[~allowed].any()
    entropy = scipy.special.kl_div(rounded, independent).sum()
    primal = (rounded[allowed] * cost[allowed]).sum() + result.epsilon * entropy
    assert result.gap == pytest.approx(primal - result.value, abs=1e-13)
    assert least <= result.gap <= most


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("tol", [1e-3, 1e-9])
def test_the_gap_is_finite_beside_forbidden_pairs(share, tol):
    rng = np.random.default_rng(12)
    cost, possible = rng.random((2, 40, 60))
    forbidden = rng.random((40, 60)) < share
    cost[forbidden], possible[forbidden], possible[3] = np.inf, 0, 0
    possible /= possible.sum()
    a, b = possible.sum(1), possible.sum(0)
    result = sinkhorn(a, b, cost, epsilon=0.05, tol=tol)
    assert_certified_on_allowed_pairs(result, a, b, cost, most=tol)


def test_the_gap_is_infinite_where_a_plan_is_too_far_off_to_be_corrected():
    rng = np.random.default_rng(13)
    cost = rng.random((30, 30))
    cost[0, 1] = np.inf
    with pytest.warns(ConvergenceWarning):
        early = sinkhorn(None, None, cost, epsilon=1e-3, max_iter=1, method="log")
    assert early.gap == np.inf
    assert marginal_error(early.rounded_plan(), uniform(30), uniform(30)) < 1e-14
    late = sinkhorn(None, None, cost, epsilon=1e-3)
    assert_certified_on_allowed_pairs(late, uniform(30), uniform(30), cost)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_that_do_not_mix_are_solved_side_by_side(method):
    rng = np.random.default_rng(6)
    first, second = rng.random((12, 10)), rng.random((8, 9))
    cost = np.full((20, 19), np.inf)
    cost[:12, :10], cost[12:, 10:] = first, second
    a = np.r_[np.full(12, 0.7 / 12), np.full(8, 0.3 / 8)]
    b = np.r_[np.full(10, 0.07), np.full(9, 0.3 / 9)]
    result = sinkhorn(a, b, cost, epsilon=0.05, method=method)
    assert result.converged
    alone = sinkhorn(a[:12], b[:10], first, epsilon=0.05)
    np.testing.assert_allclose(result.plan()[:12, :10], alone.plan(), atol=1e-8)
    assert_certified_on_allowed_pairs(result, a, b, cost)


@pytest.mark.parametrize("method", METHODS)
def test_huge_and_tiny_scales_stay_finite(method):
    rng = np.random.default_rng(7)
    a, b, cost = assignment(rng, 10)
    for scale in (1e-200, 1e-30, 1e30, 1e200):
        result = sinkhorn(a, b, scale * cost, epsilon=scale * 0.05, method=method)
        assert result.converged
        assert result.value == pytest.approx(scale * sinkhorn(a, b, cost, epsilon=0.05).value)
    tiny = np.r_[1e-250, 1e-30, np.full(8, 1 / 8)]
    result = sinkhorn(tiny, b, cost, epsilon=0.05, method=method)
    assert result.converged
    assert np.isfinite(result.f).all()
    np.testing.assert_allclose(result.plan().sum(1), tiny, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_costs_far_above_epsilon_end_in_a_permutation_or_in_a_warning(method):
    a, b, cost = assignment(np.random.default_rng(8), 15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sinkhorn(a, b, cost, epsilon=1e-6, method=method, max_iter=2000)
    assert np.isfinite(result.f).all()
    assert np.isfinite(result.plan()).all()
    assert math.isfinite(result.marginal_error)
    if result.converged:
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        assert result.transport_cost == pytest.approx(cost[rows, columns].mean(), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_warm_start_ends_where_a_cold_one_does_and_sooner(method):
    a, b, cost = clouds(np.random.default_rng(9), 50, 40)
    cold = sinkhorn(a, b, cost, epsilon=0.02, method=method)
    warm = sinkhorn(a, b, cost, epsilon=0.02, method=method, init=(cold.f, cold.g))
    np.testing.assert_allclose(warm.plan(), cold.plan(), atol=1e-8)
    assert warm.n_iter + warm.n_newton <= 6 < cold.n_iter + cold.n_newton


@pytest.mark.parametrize("method", METHODS)
def test_the_unit_of_mass_makes_no_difference(method):
    rng = np.random.default_rng(20)
    a, b, cost = clouds(rng, 60, 50)
    one = sinkhorn(a, b, cost, epsilon=0.01, method=method)
    for mass in (1e-6, 1e3, 1e9):
        result = sinkhorn(mass * a, mass * b, cost, epsilon=0.01, method=method)
        assert result.converged
        np.testing.assert_allclose(result.plan() / mass, one.plan(), atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_an_error_of_exactly_a_hundredth_of_the_mass_ends_nothing(method):
    # Half of the mass of 100 is half a percent off in the first plan of all.
    cost = [[0, 60.0], [60.0, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = sinkhorn(
            [50.5, 49.5], [50.0, 50.0], cost, epsilon=1.0, method=method, max_iter=2000
        )
    assert result.n_iter <= 2100
    assert math.isfinite(result.marginal_error)


@pytest.mark.parametrize("method", METHODS)
def test_light_points_have_the_potentials_of_a_half_step(method):
    x = np.linspace(0, 10, 200)

    def weights(mean, deviation):
        density = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
        return density / density.sum()

    cost = (x[:, None] - x) ** 2
    for deviation, epsilon in ((0.6, 0.01), (0.25, 0.1)):  # down to 1e-50, and to 1e-220
        a, b = weights(2, deviation), weights(8, deviation)
        result = sinkhorn(a, b, cost, epsilon=epsilon, method=method, max_iter=100_000)
        exponents = (result.g - cost) / epsilon + np.log(b)
        half_step = -epsilon * np.logaddexp.reduce(exponents, axis=1)
        np.testing.assert_allclose(result.f, half_step, atol=1e-6)
        exponents = ((result.f[:, None] - cost) / epsilon + np.log(a)[:, None]).T
        half_step = -epsilon * np.logaddexp.reduce(exponents, axis=1)
        np.testing.assert_allclose(result.g, half_step, atol=1e-6)


@pytest.mark.parametrize("method", ["auto", "newton", "scaling", "log"])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_what_is_found_at_a_stop_is_what_is_said(method, calls):
    rng = np.random.default_rng(21)
    x, y = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a = b = uniform(1000)
    seen = []

    def callback(progress):
        seen.append(progress)
        return len(seen) >= calls

    result = sinkhorn(a, b, cost, epsilon=1e-3, method=method, callback=callback)
    plan = result.plan()
    assert result.marginal_error == pytest.approx(marginal_error(plan, a, b), abs=1e-9)
    assert result.gap >= -1e-12


def test_equal_points_share_alike():
    rng = np.random.default_rng(10)
    x = np.repeat(rng.normal(size=(10, 2)), 3, axis=0)
    cost = ((x[:, None] - x) ** 2).sum(-1)
    for method in METHODS:
        result = sinkhorn(None, None, cost, epsilon=1e-2, method=method)
        assert result.converged
        plan = result.plan().reshape(10, 3, 10, 3)
        np.testing.assert_allclose(plan, plan[:, :1, :, :1] * np.ones((1, 3, 1, 3)), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@hypothesis.given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    fraction=st.floats(2e-3, 2.0),
    key=st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=60)
def test_small_problems_of_any_kind_converge(method, n, m, fraction, key):
    rng = np.random.default_rng(key)
    a, b = skewed(rng, n, 0.2), skewed(rng, m, 0.2)
    cost = rng.normal(size=(n, m)).round(int(rng.integers(0, 4)))
    epsilon = fraction * max(np.ptp(cost), 1.0)
    result = sinkhorn(a, b, cost, epsilon=epsilon, method=method, max_iter=500_000)
    assert result.converged
    assert marginal_error(result.plan(), a, b) < 2e-9
    assert -1e-12 <= result.gap < 1e-7


def test_the_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(11)
    a, b, cost = clouds(rng, 1300, 1100)
    for method, epsilon in (("log", 0.1), ("scaling", 0.1), ("newton", 0.05)):
        found = []
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            found.append(sinkhorn(a, b, cost, epsilon=epsilon, method=method))
        pyprobe.set_num_threads(None)
        for other in found[1:]:
            np.testing.assert_array_equal(other.f, found[0].f)
            np.testing.assert_array_equal(other.errors, found[0].errors)
            assert other.value == found[0].value


def test_single_precision_is_computed_in_double():
    a, b, cost = clouds(np.random.default_rng(12), 60, 50)
    double = sinkhorn(a, b, cost, epsilon=0.05)
    single = sinkhorn(a.astype("f4"), b.astype("f4"), cost.astype("f4"), epsilon=0.05)
    assert single.f.dtype == single.plan().dtype == np.float32
    assert single.converged
    assert single.value == pytest.approx(double.value, rel=1e-4)
    np.testing.assert_allclose(single.plan(), double.plan(), rtol=1e-4, atol=1e-9)


def test_layouts_make_no_difference():
    a, b, cost = clouds(np.random.default_rng(13), 24, 16)
    expected = sinkhorn(a, b, cost, epsilon=0.1).f
    wide = np.zeros((48, 32))
    wide[::2, ::2] = cost
    read_only = cost.copy()
    read_only.flags.writeable = False
    for other in (
        np.asfortranarray(cost),
        wide[::2, ::2],
        cost.astype(">f8"),
        read_only,
        cost.tolist(),
    ):
        np.testing.assert_array_equal(sinkhorn(a, b, other, epsilon=0.1).f, expected)
    counts = (100 * cost).astype(int)
    integers = sinkhorn(a, b, counts, epsilon=10.0)
    assert integers.f.dtype == np.float64
    assert integers.value == sinkhorn(a, b, counts.astype(float), epsilon=10.0).value


def test_products_with_the_plan_need_no_plan():
    rng = np.random.default_rng(14)
    a, b, cost = clouds(rng, 30, 22)
    result = sinkhorn(a, b, cost, epsilon=0.05)
    plan, v, u = result.plan(), rng.normal(size=(22, 3)), rng.normal(size=30)
    np.testing.assert_allclose(result.apply(v), plan @ v, atol=1e-15)
    np.testing.assert_allclose(result.apply_transpose(u), plan.T @ u, atol=1e-15)
    np.testing.assert_allclose(
        result.barycentric_map(v), plan @ v / plan.sum(1)[:, None], atol=1e-12
    )
    sparse = result.sparse_plan(1e-4)
    np.testing.assert_array_equal(sparse.toarray(), np.where(plan >= 1e-4, plan, 0))
    assert result.sparse_plan().nnz == np.count_nonzero(plan)


def test_penalties_tend_to_the_marginals_and_to_nothing():
    rng = np.random.default_rng(15)
    a, b, cost = clouds(rng, 20, 15)
    exact = sinkhorn(a, b, cost, epsilon=0.1, tol=1e-12)
    near = sinkhorn(a, b, cost, epsilon=0.1, unbalanced=1e7, tol=1e-12)
    np.testing.assert_allclose(near.plan(), exact.plan(), atol=1e-6)
    far = sinkhorn(a, b, cost + 1.0, epsilon=1e-3, unbalanced=1e-3)
    assert far.plan().sum() < 1e-6
    one_side = sinkhorn(a, 3 * b, cost, epsilon=0.1, unbalanced=(None, 0.5))
    np.testing.assert_allclose(one_side.plan().sum(1), a, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("penalties", [0.3, (0.2, 5.0), (None, 0.4), 1e4])
def test_penalized_plans_are_where_the_dual_is_flat(method, penalties):
    rng = np.random.default_rng(16)
    a, b, cost = clouds(rng, 20, 25)
    b = 1.7 * b
    epsilon = 0.05
    result = sinkhorn(a, b, cost, epsilon=epsilon, method=method, unbalanced=penalties, tol=1e-11)
    assert result.converged
    rho = penalties if isinstance(penalties, tuple) else (penalties, penalties)
    plan = result.plan()
    for potential, weights, sums, penalty in (
        (result.f, a, plan.sum(1), rho[0]),
        (result.g, b, plan.sum(0), rho[1]),
    ):
        target = weights if penalty is None else weights * np.exp(-potential / penalty)
        np.testing.assert_allclose(sums, target, atol=1e-10)

    def dual(f, g):
        def side(weights, potential, penalty):
            if penalty is None:
                return weights @ potential
            return -penalty * weights @ np.expm1(-potential / penalty)

        plan = np.outer(a, b) * np.exp((f[:, None] + g - cost) / epsilon)
        entropy = epsilon * (plan.sum() - a.sum() * b.sum())
        return side(a, f, rho[0]) + side(b, g, rho[1]) - entropy

    best = dual(result.f, result.g)
    assert result.value == pytest.approx(best, rel=1e-12)
    for _ in range(20):
        step_f, step_g = 1e-4 * rng.normal(size=20), 1e-4 * rng.normal(size=25)
        assert dual(result.f + step_f, result.g + step_g) < best


def test_a_result_that_is_not_to_be_trusted_says_so():
    a, b, cost = assignment(np.random.default_rng(17), 40)
    message = r"sinkhorn stopped after 10 iterations with marginal error .* > tol 1\.0e-09.*newton"
    with pytest.warns(ConvergenceWarning, match=message):
        result = sinkhorn(a, b, cost, epsilon=1e-3, method="log", max_iter=10)
    assert not result.converged
    assert "converged=False" in repr(result)
    sinkhorn([1.0], [1.0], [[0.0]], epsilon=1.0)  # no range: no warning
    with pytest.warns(NumericalWarning, match=r"below 1e-6 of the range.*write numpy\.inf"):
        sinkhorn(None, None, [[0.0, 1e8]], epsilon=1.0)
    with pytest.warns(NumericalWarning, match=r"costs as large as 3e\+07 is .*Subtract a constant"):
        sinkhorn(None, None, [[-3e7, 1 - 3e7]], epsilon=1.0)
    sinkhorn(None, None, [[9e6, 9e6 + 1]], epsilon=1.0)


def test_what_stops_at_rounding_is_told_to_raise_the_tolerance():
    a, b, cost = assignment(np.random.default_rng(17), 40)
    with pytest.warns(ConvergenceWarning, match=r"tol 1\.0e-18: that is rounding, .*; raise tol\."):
        sinkhorn(a, b, cost, epsilon=0.5, method="log", max_iter=1000, tol=1e-18)
    with pytest.warns(ConvergenceWarning, match=r"falling by a fraction of .* an iteration; raise"):
        sinkhorn(a, b, cost, epsilon=0.01, method="log", max_iter=100)


def test_a_callback_sees_the_error_fall_and_can_end_the_iteration():
    rng = np.random.default_rng(18)
    a, b, cost = assignment(rng, 700)
    seen = []

    def callback(progress):
        seen.append(progress)
        return len(seen) >= 2

    result = sinkhorn(a, b, cost, epsilon=2e-5, method="log", max_iter=10**6, callback=callback)
    assert result.stopped
    assert not result.converged
    assert seen[-1].step >= seen[0].step
    numpys = sinkhorn(
        a, b, cost, epsilon=2e-5, method="log", max_iter=10**6, callback=lambda _: np.True_
    )
    assert numpys.stopped
    assert seen[-1].value == pytest.approx(result.marginal_error)
    assert marginal_error(result.plan(), a, b) == pytest.approx(result.marginal_error, abs=1e-11)


def test_ctrl_c_ends_a_long_solve():
    a, b, cost = assignment(np.random.default_rng(19), 1000)

    def interrupt():
        import _thread

        time.sleep(0.3)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        sinkhorn(a, b, cost, epsilon=1e-5, method="log", max_iter=10**7)
    thread.join()
    assert time.perf_counter() - begin < 2.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("epsilon", "rho", "far"), [(0.1, 1.0, 1e4), (1.0, 1.0, 1e6), (0.05, 3.0, 1e5)]
)
def test_what_is_too_far_to_be_carried_vanishes(method, epsilon, rho, far):
    # No plan: rho for each side's mass, and epsilon times the mass of a b'.
    for a, b in (([1.0], [1.0]), ([0.3, 0.7, 0.0], [0.5, 0.5])):
        cost = far + np.random.default_rng(0).random((len(a), len(b)))
        result = sinkhorn(a, b, cost, epsilon=epsilon, unbalanced=rho, method=method)
        assert result.converged
        assert result.value == pytest.approx(2 * rho + epsilon, rel=1e-14)
        assert result.plan().max() == 0.0


def test_a_gap_beside_forbidden_pairs_is_finite_once_converged():
    # A band, whose points at the ends hang by entries smaller than the tolerance.
    n = 60
    offset = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    cost = np.where(offset <= 3, np.random.default_rng(3).random((n, n)), np.inf)
    result = sinkhorn(None, None, cost, epsilon=0.01)
    plan = result.rounded_plan()
    assert -1e-12 < result.gap < 1e-8
    assert plan[cost == np.inf].max() == 0.0
    for axis in (0, 1):
        np.testing.assert_allclose(plan.sum(axis), 1 / n, rtol=1e-13)
    assert (plan * np.where(cost < np.inf, cost, 0)).sum() <= result.transport_cost + 1e-8


def test_a_batch_says_which_problem_cannot_be_solved():
    far = np.array([[0.0, 1.0], [1e308, 1e308]])
    with pytest.raises(PyprobeError, match=r"problem 1: 'a' has mass at index 1, but every pair"):
        sinkhorn_batch(None, None, [np.eye(2), far], epsilon=1e-9, method="log")
