"""Clouds, batches, divergences, barycenters: each against what it stands for."""

import tracemalloc
import warnings

import numpy as np
import pytest
from transport_problems import skewed

import pyprobe
from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning
from pyprobe.transport import (
    sinkhorn,
    sinkhorn_barycenter,
    sinkhorn_batch,
    sinkhorn_divergence,
    sinkhorn_points,
)

METRICS = {
    "sqeuclidean": lambda d: (d**2).sum(-1),
    "euclidean": lambda d: np.sqrt((d**2).sum(-1)),
    "cityblock": lambda d: np.abs(d).sum(-1),
}


@pytest.mark.parametrize("method", ["auto", "log", "scaling", "newton"])
@pytest.mark.parametrize("metric", METRICS)
def test_clouds_are_solved_as_their_matrix_of_costs(metric, method):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(47, 3)) + 1e4
    x += 1e4  # far from the origin: nothing may cancel
    a, b = skewed(rng, 60, 0.1), skewed(rng, 47, 0.1)
    cost = METRICS[metric](x[:, None] - y)
    matrix = sinkhorn(a, b, cost, epsilon=0.1, tol=1e-11)
    result = sinkhorn_points(x, y, a=a, b=b, epsilon=0.1, metric=metric, method=method, tol=1e-11)
    assert result.converged
    np.testing.assert_allclose(result.plan(), matrix.plan(), atol=1e-9)
    assert result.value == pytest.approx(matrix.value, rel=1e-12)
    assert result.transport_cost == pytest.approx(matrix.transport_cost, rel=1e-9)
    assert result.gap == pytest.approx(matrix.gap, abs=1e-9)
    np.testing.assert_allclose(result.apply(y), result.plan() @ y, rtol=1e-12)


def test_points_on_a_line_may_have_one_dimension():
    x, y = np.linspace(0, 1, 20), np.linspace(0, 2, 30)
    result = sinkhorn_points(x, y, epsilon=0.1)
    np.testing.assert_array_equal(result.f, sinkhorn_points(x[:, None], y[:, None], epsilon=0.1).f)


def test_large_clouds_take_little_memory():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3000, 3)), rng.normal(size=(3000, 3))
    tracemalloc.start()
    result = sinkhorn_points(x, y, epsilon=1.0, tol=1e-4)
    result.barycentric_map(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.converged
    assert peak < 3000 * 3000  # bytes: an eighth of a matrix


def test_a_batch_has_the_bits_of_its_problems_alone():
    rng = np.random.default_rng(2)
    cost = rng.random((30, 12, 9))
    a, b = skewed(rng, 12), np.stack([skewed(rng, 9) for _ in range(30)])
    epsilon = rng.uniform(0.02, 0.5, 30)
    found = []
    for threads in (1, 3):
        pyprobe.set_num_threads(threads)
        found.append(sinkhorn_batch(a, b, cost, epsilon=epsilon))
    pyprobe.set_num_threads(None)
    for k, results in enumerate(zip(*found, strict=True)):
        alone = sinkhorn(a, b[k], cost[k], epsilon=epsilon[k])
        for result in results:
            np.testing.assert_array_equal(result.f, alone.f)
            np.testing.assert_array_equal(result.plan(), alone.plan())


def test_a_batch_may_be_ragged_and_says_who_is_late():
    rng = np.random.default_rng(3)
    costs = [rng.random((n, m)) for n, m in ((3, 4), (10, 2), (1, 1))]
    results = sinkhorn_batch(None, None, costs, epsilon=0.1)
    assert [result.plan().shape for result in results] == [(3, 4), (10, 2), (1, 1)]
    with pytest.warns(ConvergenceWarning, match="1 of 3 problems, the first at index 1"):
        sinkhorn_batch(None, None, costs, epsilon=[1.0, 1e-3, 1.0], method="log", max_iter=30)


def test_a_batch_says_where_epsilon_is_lost_beside_the_costs():
    costs = [np.eye(3), 1e9 * np.eye(3), np.full((2, 2), 7.0), 1e8 * np.eye(2)]
    costs[1][0, 1] = np.inf
    message = "problem 1, the first of 2 such among 4: 'epsilon' = 1 is below 1e-6 of the range"
    with pytest.warns(NumericalWarning, match=message) as caught:
        sinkhorn_batch(None, None, costs, epsilon=1.0, tol=1e-6)
    assert [warning.filename for warning in caught] == [__file__]


def test_the_divergence_is_a_distance(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        n, m, d = rng.integers(1, 30, 3)
        x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
        a, b = skewed(rng, n, 0.2), skewed(rng, m, 0.2)
        epsilon = float(np.exp(rng.uniform(-3, 3)))
        there = sinkhorn_divergence(x, y, a=a, b=b, epsilon=epsilon, tol=1e-11)
        back = sinkhorn_divergence(y, x, a=b, b=a, epsilon=epsilon, tol=1e-11)
        assert there.converged
        assert there.value == pytest.approx(back.value, abs=1e-10)
        assert there.value > 0
        assert abs(sinkhorn_divergence(x, x, a=a, b=a, epsilon=epsilon, tol=1e-11).value) < 1e-10


def test_the_divergence_is_made_of_three_problems():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(50, 2)) + 1
    for unbalanced in (None, 0.7):
        result = sinkhorn_divergence(x, y, epsilon=0.2, unbalanced=unbalanced)
        parts = [
            sinkhorn_points(u, v, epsilon=0.2, unbalanced=unbalanced).value
            for u, v in ((x, y), (x, x), (y, y))
        ]
        assert result.value == pytest.approx(parts[0] - 0.5 * (parts[1] + parts[2]), abs=1e-9)
    # Of a shift, all of it is transport.
    shifted = sinkhorn_divergence(x, x + np.array([2.0, 0.0]), epsilon=0.2)
    assert shifted.value == pytest.approx(4.0, abs=1e-9)


def test_a_divergence_that_is_not_solved_says_so():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 2))
    with pytest.warns(
        ConvergenceWarning, match="is of that order at worst, and may make it negative"
    ):
        result = sinkhorn_divergence(x, x + 1, epsilon=1e-3, max_iter=5)
    assert not result.converged


def test_the_barycenter_of_gaussians_is_a_gaussian():
    # Janati et al. 2020, theorem 3: without blur the variance is the Wasserstein barycenter's.
    x = np.linspace(-6, 6, 241)
    means, deviations = np.array([-1.5, 1.0]), np.array([0.4, 0.8])
    bumps = np.exp(-0.5 * ((x - means[:, None]) / deviations[:, None]) ** 2)
    bumps /= bumps.sum(axis=1, keepdims=True)
    cost = (x[:, None] - x) ** 2
    weights = np.array([0.3, 0.7])

    def moments(center):
        mean = center @ x
        return mean, np.sqrt(center @ (x - mean) ** 2)

    sharp = sinkhorn_barycenter(weights, bumps, cost, epsilon=0.05)
    assert sharp.converged
    mean, deviation = moments(sharp.barycenter)
    assert mean == pytest.approx(weights @ means, abs=1e-6)
    assert deviation == pytest.approx(weights @ deviations, abs=2e-3)
    blurred = sinkhorn_barycenter(weights, bumps, cost, epsilon=0.05, debiased=False)
    assert moments(blurred.barycenter)[1] > deviation + 0.01


def test_clouds_are_handed_over_to_newtons_method_while_its_plans_fit(monkeypatch):
    x, y = np.random.default_rng(2).normal(size=(2, 3000, 2))
    options = {"epsilon": 0.01, "tol": 1e-6, "max_iter": 400}
    found = sinkhorn_points(x, y, **options)
    assert found.converged
    assert found.n_newton > 0
    monkeypatch.setattr("pyprobe.transport.points.MEMORY", (2**26, 2 * 8 * 3000**2 - 1))
    with pytest.warns(ConvergenceWarning):
        assert sinkhorn_points(x, y, **options).n_newton == 0


def test_the_blurred_barycenter_is_the_minimum_that_it_is_said_to_be():
    x = np.linspace(-4, 4, 41)
    cost = (x[:, None] - x) ** 2
    bumps = np.exp(-0.5 * ((x - np.array([[-1.5], [1.0]])) / [[0.6], [0.9]]) ** 2)
    bumps /= bumps.sum(axis=1, keepdims=True)
    weights = np.array([0.3, 0.7])

    def objective(center):
        values = [sinkhorn(center, bump, cost, epsilon=1.0, tol=1e-12).value for bump in bumps]
        return weights @ values + center @ np.log(center)

    found = sinkhorn_barycenter(weights, bumps, cost, epsilon=1.0, debiased=False, tol=1e-12)
    least, rng = objective(found.barycenter), np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1):
        moved = found.barycenter * np.exp(size * rng.standard_normal(41))
        assert objective(moved / moved.sum()) > least


def test_a_barycenter_that_does_not_exist_is_refused():
    cost = np.full((4, 4), np.inf)
    cost[:2, :2] = cost[2:, 2:] = 1.0
    apart = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    with pytest.raises(DomainError, match="no point be reached from all the weights"):
        sinkhorn_barycenter(None, apart, cost, epsilon=0.5)
    alone = sinkhorn_barycenter([1.0, 0.0], apart, cost, epsilon=0.5)
    np.testing.assert_allclose(alone.barycenter, apart[0], atol=1e-8)


def test_the_barycenter_of_one_is_itself():
    rng = np.random.default_rng(6)
    x = np.arange(10.0)
    weights = skewed(rng, 10)
    cost = (x[:, None] - x) ** 2
    result = sinkhorn_barycenter(None, [weights], cost, epsilon=0.5, tol=1e-12)
    np.testing.assert_allclose(result.barycenter, weights, atol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        stopped = sinkhorn_barycenter(
            None, [weights], cost, epsilon=0.5, tol=1e-15, callback=lambda p: p.step == 3
        )
    assert stopped.stopped
    assert stopped.n_iter == 3
