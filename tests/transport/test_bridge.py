# ruff: noqa: E501 - one case a line
"""The light Schrödinger bridge as a value: closed forms against formulas written independently."""

import copy
import math
import pickle
import re
import tracemalloc

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.special
import scipy.stats

from pyprobe import _io
from pyprobe.errors import DomainError, NotFiniteError, NotPositiveDefiniteError, ShapeError
from pyprobe.transport import LightSchrodingerBridge, _components, sinkhorn_points, suggest_epsilon

KINDS = ("spherical", "diag", "full")


def spd(rng, d, low=0.3, high=2.0):
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return (q * rng.uniform(low, high, d)) @ q.T


def random_bridge(seed, kind, *, k=4, d=3, epsilon=0.7, horizon=1.0, offset=0.0):
    rng = np.random.default_rng(seed)
    scales = {
        "spherical": lambda: rng.uniform(0.2, 2.0, k),
        "diag": lambda: rng.uniform(0.2, 2.0, (k, d)),
        "full": lambda: np.stack([spd(rng, d) for _ in range(k)]),
    }[kind]()
    return LightSchrodingerBridge.from_parameters(
        rng.dirichlet(np.ones(k)),
        rng.normal(size=(k, d)) * 2 + offset,
        scales,
        epsilon=epsilon,
        horizon=horizon,
        origin=rng.normal(size=d) * 0.3 + offset,
    )


def matrices(bridge):
    """The scales as matrices, whatever their kind."""
    if bridge.scales.ndim == 3:
        return bridge.scales
    k, d = bridge.shifts.shape
    return np.broadcast_to(bridge.scales.reshape(k, -1, 1), (k, d, 1)) * np.eye(d)


def plain_conditional(bridge, x0):
    """Weights, means and covariances of the end from one start, by the formulas of the paper."""
    e = bridge.epsilon * bridge.horizon
    u, r, S = x0 - bridge.origin, bridge.shifts - bridge.origin, matrices(bridge)
    a = np.log(bridge.weights) + (np.einsum("i,kij,j->k", u, S, u) + 2 * r @ u) / (2 * e)
    return scipy.special.softmax(a), bridge.shifts + S @ u, e * S


def plain_log_phi(bridge, x, t):
    """log phi by the textbook formula, in torch, for one point and a time in [0, horizon]."""
    torch = pytest.importorskip("torch")
    e, tau = bridge.epsilon * bridge.horizon, t / bridge.horizon
    d = bridge.dim
    S, eye = torch.tensor(matrices(bridge)), torch.eye(d, dtype=torch.float64)
    u = x - torch.tensor(bridge.origin)
    r = torch.tensor(bridge.shifts - bridge.origin)
    terms = []
    for log_weight, shift, scale in zip(bridge.log_weights, r, S, strict=True):
        D = (1 - tau) * eye + tau * scale
        inverse = torch.linalg.inv(D)
        form = u @ (scale - eye) @ inverse @ u + 2 * shift @ inverse @ u
        form = form - tau * shift @ inverse @ shift
        terms.append(log_weight - torch.logdet(D) / 2 + form / (2 * e))
    return torch.logsumexp(torch.stack(terms), 0) - d / 2 * math.log(2 * math.pi * e)


def plain_drift(bridge, x, t):
    torch = pytest.importorskip("torch")
    point = torch.tensor(x, requires_grad=True)
    return bridge.epsilon * torch.autograd.grad(plain_log_phi(bridge, point, t), point)[0].numpy()


# --- laws of the end ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [1.0, 2.5])
def test_the_law_of_the_end_is_that_of_the_paper(kind, horizon):
    bridge = random_bridge(0, kind, horizon=horizon)
    rng = np.random.default_rng(1)
    x0, x1 = rng.normal(size=(2, 20, 3))
    law = bridge.conditional(x0)
    mean, covariance = bridge.mean(x0), bridge.covariance(x0)
    log_prob, cost = bridge.log_prob(x1, given=x0), bridge.transport_cost(x0)
    for i in range(len(x0)):
        p, m, C = plain_conditional(bridge, x0[i])
        np.testing.assert_allclose(law.weights[i], p, rtol=1e-12)
        np.testing.assert_allclose(law.locs[i], m, atol=1e-13)
        inner = law.component_covariances
        inner = inner if inner.ndim == 3 else np.stack([np.diag(v) for v in inner])
        np.testing.assert_allclose(inner, C, atol=1e-13)
        np.testing.assert_allclose(mean[i], p @ m, atol=1e-13)
        second = np.einsum("k,kij->ij", p, C + np.einsum("ki,kj->kij", m, m))
        np.testing.assert_allclose(covariance[i], second - np.outer(p @ m, p @ m), atol=1e-12)
        density = sum(
            w * scipy.stats.multivariate_normal(a, b).pdf(x1[i])
            for w, a, b in zip(p, m, C, strict=True)
        )
        assert log_prob[i] == pytest.approx(math.log(density), rel=1e-12)
        away = second - np.outer(p @ m, x0[i]) - np.outer(x0[i], p @ m) + np.outer(x0[i], x0[i])
        assert cost[i] == pytest.approx(np.trace(away) / 2, rel=1e-12)
    np.testing.assert_array_equal(law.mean, mean)
    np.testing.assert_array_equal(law.covariance, covariance)
    np.testing.assert_array_equal(law.log_prob(x1), log_prob)


@pytest.mark.parametrize("kind", KINDS)
def test_the_potential_gives_the_law_of_the_end_and_what_normalizes_it(kind):
    bridge = random_bridge(2, kind)
    x0, x1 = np.random.default_rng(3).normal(size=(2, 30, 3))
    e, u0, u1 = bridge.epsilon, x0 - bridge.origin, x1 - bridge.origin
    # log c, as phi at time 0 without its square.
    log_c = bridge.log_phi(x0, 0.0) + (u0**2).sum(axis=1) / (2 * e) + 1.5 * math.log(2 * np.pi * e)
    log_v = bridge.log_potential(x1)
    expected = (u0 * u1).sum(axis=1) / e + log_v - log_c
    np.testing.assert_allclose(bridge.log_prob(x1, given=x0), expected, atol=1e-11)
    at_end = log_v + (u1**2).sum(axis=1) / (2 * e)
    np.testing.assert_allclose(bridge.log_phi(x1, 1.0), at_end, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0.2, 1.0, 1.5])
def test_the_density_integrates_to_one_and_the_potential_is_its_mean_over_brownian_motion(kind, t):
    bridge = random_bridge(4, kind, d=1, horizon=1.5)
    x = np.array([[0.4]])
    grid = np.linspace(-25, 25, 20_001)[:, None]
    density = np.exp(bridge.conditional_at(x, t).log_prob(grid))
    assert scipy.integrate.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-12)
    if t < bridge.horizon:
        left = bridge.epsilon * (bridge.horizon - t)
        kernel = scipy.stats.norm(x[0, 0], math.sqrt(left)).logpdf(grid[:, 0])
        values = np.exp(kernel + bridge.log_phi(grid, bridge.horizon))
        log_mean = math.log(scipy.integrate.trapezoid(values, grid[:, 0]))
        assert bridge.log_phi(x, t)[0] == pytest.approx(log_mean, rel=1e-10)


# --- one Gaussian to another ---


def gaussian_case(seed, epsilon, horizon=1.0, d=4):
    """Two Gaussians, their bridge by the Riccati equation, and the cross-covariance of its ends."""
    rng = np.random.default_rng(seed)
    A, B = spd(rng, d, 0.5, 3.0), spd(rng, d, 0.5, 3.0)
    m0, m1 = rng.normal(size=(2, d)) * 3
    e = epsilon * horizon
    root = np.real(scipy.linalg.sqrtm(A))
    inverse = np.linalg.inv(root)
    product = root @ B @ root
    # (product + e^2 / 4)^(1/2) - e / 2, without the difference.
    sum_of_roots = np.real(scipy.linalg.sqrtm(product + e**2 / 4 * np.eye(d))) + e / 2 * np.eye(d)
    S = inverse @ np.linalg.solve(sum_of_roots, product) @ inverse
    bridge = LightSchrodingerBridge.from_parameters(
        [1.0], m1[None], S[None], epsilon=epsilon, horizon=horizon, origin=m0
    )
    # Janati et al. 2020, theorem 1.
    middle = np.real(scipy.linalg.sqrtm(4 * root @ B @ root + e**2 * np.eye(d)))
    C = (root @ middle @ inverse - e * np.eye(d)) / 2
    return bridge, m0, A, m1, B, C


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
def test_the_gaussian_bridge_has_the_known_cross_covariance_and_end(epsilon):
    bridge, m0, A, m1, B, C = gaussian_case(0, epsilon)
    (S,) = bridge.scales
    # The mean is affine in the start: its slope times A is the cross-covariance.
    steps = bridge.mean(m0 + np.eye(4)) - bridge.mean(m0[None])
    np.testing.assert_allclose(A @ steps, C, atol=1e-12)
    np.testing.assert_allclose(bridge.mean(m0[None])[0], m1, atol=1e-13)
    np.testing.assert_allclose(S @ A @ S + bridge.covariance(m0[None])[0], B, atol=1e-12)


@pytest.mark.parametrize("horizon", [1.0, 3.0])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 1.0])
def test_the_drift_is_that_of_the_gaussian_bridge(horizon, fraction):
    bridge, m0, A, m1, B, C = gaussian_case(1, 0.6, horizon)
    t, e, eye = fraction, 0.6 * horizon, np.eye(4)
    # Bunne et al. 2023, theorem 3, for Brownian motion.
    mean = (1 - t) * m0 + t * m1
    cov = (1 - t) ** 2 * A + t**2 * B + t * (1 - t) * (C + C.T + e * eye)
    slope = (t * B + (1 - t) * C) - ((1 - t) * A + t * C).T - e * t * eye
    x = np.random.default_rng(2).normal(size=(10, 4)) * 2
    expected = m1 - m0 + np.linalg.solve(cov, (x - mean).T).T @ slope
    np.testing.assert_allclose(bridge.drift(x, t * horizon) * horizon, expected, atol=1e-11)
    if t < 1:  # and by regression of the end on the place
        cross = (1 - t) * C + t * B
        ends = m1 + np.linalg.solve(cov, (x - mean).T).T @ cross
        np.testing.assert_allclose(expected, (ends - x) / (1 - t), atol=1e-10)


def test_the_law_of_a_gaussian_bridge_between_is_gaussian_too():
    bridge, m0, A, _, B, C = gaussian_case(3, 0.6)
    law = bridge.conditional_at(m0 + np.eye(4), 0.3)
    slope = law.mean - bridge.conditional_at(m0[None], 0.3).mean
    cov = slope.T @ A @ slope + law.covariance[0]
    expected = 0.49 * A + 0.09 * B + 0.21 * (C + C.T + 0.6 * np.eye(4))
    np.testing.assert_allclose(cov, expected, atol=1e-12)


def test_small_noise_gives_the_transport_map_and_large_noise_none():
    bridge, m0, A, m1, B, _ = gaussian_case(4, 1e-7)
    root = np.real(scipy.linalg.sqrtm(A))
    inverse = np.linalg.inv(root)
    monge = inverse @ np.real(scipy.linalg.sqrtm(root @ B @ root)) @ inverse
    x = np.random.default_rng(5).normal(size=(5, 4))
    np.testing.assert_allclose(bridge.mean(x), m1 + (x - m0) @ monge, atol=1e-5)
    bridge, m0, A, m1, B, _ = gaussian_case(4, 1e7)
    np.testing.assert_allclose(bridge.mean(x), np.tile(m1, (5, 1)), atol=1e-5)


def test_the_plan_of_sinkhorn_with_twice_the_epsilon_is_the_bridge_between_two_samples():
    # In one dimension, on a fine grid: N(0, 1) to N(2, 0.25).
    epsilon, grid = 0.5, np.linspace(-6, 8, 561)
    a, b = scipy.stats.norm(0, 1).pdf(grid), scipy.stats.norm(2, 0.5).pdf(grid)
    result = sinkhorn_points(
        grid[:, None], grid[:, None], a=a / a.sum(), b=b / b.sum(), epsilon=2 * epsilon, tol=1e-12
    )
    scale = math.sqrt(0.25 + epsilon**2 / 4) - epsilon / 2
    bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [scale], epsilon=epsilon)
    rows = slice(200, 280)
    ends = np.asarray(result.barycentric_map(grid[:, None]))[rows]
    np.testing.assert_allclose(ends, bridge.mean(grid[rows, None]), atol=1e-6)


# --- drift ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [1.0, 2.5])
def test_potential_and_drift_are_those_of_the_textbook(kind, horizon):
    torch = pytest.importorskip("torch")
    bridge = random_bridge(6, kind, horizon=horizon)
    x = np.random.default_rng(7).normal(size=(6, 3)) * 2
    times = np.array([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]) * horizon
    values, drifts = bridge.log_phi(x, times), bridge.drift(x, times)
    for i, t in enumerate(times):
        expected = plain_log_phi(bridge, torch.tensor(x[i]), t).item()
        assert values[i] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(drifts[i], plain_drift(bridge, x[i], t), rtol=1e-9, atol=1e-9)
        # A time for each row is the time of that row alone.
        np.testing.assert_allclose(bridge.drift(x[i : i + 1], t)[0], drifts[i], rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drift_points_to_the_mean_of_the_end(kind):
    bridge = random_bridge(8, kind, horizon=2.0)
    x = np.random.default_rng(9).normal(size=(10, 3)) * 2
    for s in (0.0, 0.6, 1.8):
        ends = bridge.transition(x, s, 2.0).mean
        np.testing.assert_allclose(
            bridge.drift(x, s), (ends - x) / (2.0 - s), rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 64])
def test_the_drift_in_float32_is_that_in_float64_up_to_the_end(kind, d):
    bridge = random_bridge(10, kind, d=d)
    x = np.random.default_rng(11).normal(size=(50, d)).astype(np.float32)
    for t in (0.0, 0.5, 0.99, 1 - 1e-6, 1.0):
        single = bridge.drift(x, t)
        assert single.dtype == np.float32
        double = bridge.drift(x.astype(np.float64), t)
        np.testing.assert_allclose(single, double, rtol=1e-6, atol=1e-6)
        assert np.isfinite(double).all()


@pytest.mark.parametrize("epsilon", [0.002, 50.0])
def test_potential_and_drift_agree_with_fifty_digits(epsilon):
    # Log-weights of thousands of nats, and scales from 1e-4: the exponents are near 1e4.
    rng = np.random.default_rng(40)
    k, d = 12, 2
    bridge = LightSchrodingerBridge(
        log_weights=rng.normal(size=k) * 2 / epsilon,
        shifts=rng.normal(size=(k, d)) * 3 + 10,
        scales=np.exp(rng.uniform(-9, 1, (k, d))),
        epsilon=epsilon,
        origin=rng.normal(size=d),
    )
    x = rng.normal(size=(5, d)) + np.linspace(0, 10, 5)[:, None]
    with mpmath.workdps(50):
        for t in (0.0, 0.4, 1 - 1e-9, 1.0):
            values, drifts = bridge.log_phi(x, t), bridge.drift(x, t)
            for i in range(5):
                # The textbook: the components' weights and drifts with numbers of 50 digits.
                u = [
                    mpmath.mpf(a) - mpmath.mpf(o) for a, o in zip(x[i], bridge.origin, strict=True)
                ]
                weights, pulls = [], []
                for j in range(k):
                    weight, pull = mpmath.exp(mpmath.mpf(bridge.log_weights[j])), []
                    for c in range(d):
                        S = mpmath.mpf(bridge.scales[j, c])
                        r = mpmath.mpf(bridge.shifts[j, c]) - mpmath.mpf(bridge.origin[c])
                        D = (1 - mpmath.mpf(t)) + mpmath.mpf(t) * S
                        form = ((S - 1) * u[c] ** 2 + 2 * r * u[c] - t * r**2) / D
                        weight *= mpmath.exp(form / (2 * mpmath.mpf(epsilon))) / mpmath.sqrt(D)
                        pull.append(((S - 1) * u[c] + r) / D)
                    weights.append(weight)
                    pulls.append(pull)
                total = sum(weights)
                constant = d / 2 * math.log(2 * math.pi * epsilon)
                expected = float(mpmath.log(total)) - constant
                assert values[i] == pytest.approx(expected, rel=1e-12, abs=1e-12)
                for c in range(d):
                    drift = sum(w * p[c] for w, p in zip(weights, pulls, strict=True)) / total
                    assert drifts[i, c] == pytest.approx(float(drift), rel=1e-9, abs=1e-9)


def test_tiny_scales_lose_no_digits():
    # A component of width 1e-6 at (1, 2): near it the drift at the end is (target - x) / S + x,
    # and the log-density is that of the component alone.
    bridge = LightSchrodingerBridge.from_parameters(
        [0.5, 0.5], [[1.0, 2.0], [50.0, 0.0]], [1e-12, 1.0], epsilon=1.0
    )
    x = np.array([[1 + 2.0**-20, 2.0]])
    np.testing.assert_allclose(bridge.drift(x, 1.0)[0, 0], 1 - 2.0**-20 * (1e12 - 1), rtol=1e-12)
    expected = math.log(0.5) - math.log(2 * math.pi * 1e-12) - 2.0**-40 / 2e-12
    assert bridge.log_potential(x)[0] == pytest.approx(expected, rel=1e-13)


# --- time ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [1.0, 4.0])
def test_transitions_compose(kind, horizon):
    bridge = random_bridge(12, kind, d=1, horizon=horizon)
    x, (s, u, t) = np.array([[0.3]]), np.array([0.1, 0.45, 0.8]) * horizon
    grid = np.linspace(-30, 30, 4001)[:, None]
    step = grid[1, 0] - grid[0, 0]
    weights = np.exp(bridge.transition(x, s, u).log_prob(grid)) * step
    second = bridge.transition(grid, u, t)
    mean = weights @ second.mean
    square = weights @ (second.covariance[:, :, 0] + second.mean**2)
    direct = bridge.transition(x, s, t)
    np.testing.assert_allclose(mean, direct.mean[0], rtol=1e-10)
    np.testing.assert_allclose(square - mean**2, direct.covariance[0, 0], rtol=1e-9)
    assert np.trapezoid(weights / step, grid[:, 0]) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_law_at_a_time_is_a_brownian_bridge_to_the_end(kind):
    bridge = random_bridge(13, kind, horizon=2.0)
    x0 = np.random.default_rng(14).normal(size=(7, 3))
    end, law = bridge.conditional(x0), bridge.conditional_at(x0, 0.8)
    np.testing.assert_allclose(law.weights, end.weights, rtol=1e-13)
    np.testing.assert_allclose(law.locs, 0.6 * x0[:, None] + 0.4 * end.locs, atol=1e-13)
    noise = 0.7 * 2.0 * 0.4 * 0.6 * np.eye(3)
    np.testing.assert_allclose(law.covariance, 0.16 * end.covariance + noise, atol=1e-12)
    np.testing.assert_array_equal(bridge.conditional_at(x0, 2.0).locs, end.locs)


# --- draws ---


def assert_moments(draws, mean, covariance, z=6.0):
    """Compare the moments of draws (n, m, d) with those of the law; z standard errors."""
    n = len(draws)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    assert (np.abs(draws.mean(axis=0) - mean) < z * np.sqrt(variances / n)).all()
    away = draws - mean
    products = away[..., :, None] * away[..., None, :]
    error = products.std(axis=0) / math.sqrt(n)
    assert (np.abs(products.mean(axis=0) - covariance) < z * error).all()


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_moments_of_their_laws(kind, seed):
    # 6 standard errors in 72 comparisons: a false-fail rate below 1e-6; in 200 000 draws a variance
    # that is off by 3 % is found.
    bridge = random_bridge(15, kind, horizon=2.0)
    x0 = np.random.default_rng(16).normal(size=(2, 3))
    rng = np.random.default_rng(seed)
    for law in (
        bridge.conditional(x0),
        bridge.conditional_at(x0, 0.5),
        bridge.transition(x0, 0.5, 1.5),
    ):
        draws = law.sample(n=200_000, rng=rng)
        assert_moments(draws, law.mean, law.covariance)


@pytest.mark.statistical
def test_one_coordinate_of_a_draw_follows_its_law(seed):
    # Kolmogorov's distance: false-fail rate 1e-6; a distance of 0.02 is found.
    bridge = random_bridge(17, "full")
    x0 = np.zeros((1, 3))
    law = bridge.conditional(x0)
    draws = law.sample(n=100_000, rng=seed)[:, 0, 0]
    p, m, C = plain_conditional(bridge, x0[0])
    points = np.sort(draws)
    cdf = scipy.stats.norm.cdf(points[:, None], m[:, 0], np.sqrt(C[:, 0, 0])) @ p
    distance = np.abs(cdf - (np.arange(len(points)) + 0.5) / len(points)).max()
    assert distance < math.sqrt(math.log(2 / 1e-6) / 2 / len(points)) < 0.01


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["spherical", "full"])
def test_paths_have_the_laws_of_their_times(kind, seed):
    bridge = random_bridge(18, kind, horizon=2.0, d=2)
    x0 = np.random.default_rng(19).normal(size=(2, 2))
    times = [0.0, 0.3, 1.1, 2.0]
    path = bridge.sample_path(x0, times, n=100_000, rng=seed)
    assert path.shape == (100_000, 2, 4, 2)
    assert (path[:, :, 0] == x0).all()
    for i, t in enumerate(times[1:], 1):
        law = bridge.conditional_at(x0, t)
        assert_moments(path[:, :, i], law.mean, law.covariance)
    # Given the place at one time, the next is that of the transition: the residual of its mean has
    # no mean, and none together with the place.
    here, then = path[:20_000, 0, 1], path[:20_000, 0, 2]
    residual = then - bridge.transition(here, 0.3, 1.1).mean
    for product in (residual, residual * here, residual * here[:, ::-1]):
        error = product.std(axis=0) / math.sqrt(len(product))
        assert (np.abs(product.mean(axis=0)) < 6 * error).all()


@pytest.mark.statistical
def test_steps_of_euler_and_maruyama_come_near_the_exact_law(seed):
    # Narrow ends: the noise of the last of two steps alone is too wide for them.
    bridge = LightSchrodingerBridge.from_parameters(
        [0.4, 0.6], [[-2.0, 0.0], [2.0, 1.0]], [[0.05, 0.3], [0.1, 0.1]], epsilon=0.5, horizon=2.0
    )
    x0 = np.array([[0.2, -0.1]])
    mean, spread = bridge.mean(x0)[0], np.sqrt(np.diag(bridge.covariance(x0)[0]))

    def error(n_steps):
        ends = bridge.sample_sde(x0, n_steps, n=4000, rng=seed)
        assert ends.shape == (4000, 1, 2)
        deviation = ends[:, 0].std(axis=0) / spread - 1
        return np.abs([(ends[:, 0].mean(axis=0) - mean) / spread, deviation]).max()

    assert error(200) < 0.08 < error(2)


def test_the_draws_of_a_seed_do_not_depend_on_the_blocks(monkeypatch):
    for kind in KINDS:
        results = []
        for size in (1, 100, 2**17):
            monkeypatch.setattr(_components, "BLOCK", size)
            bridge = random_bridge(21, kind)
            x0 = np.random.default_rng(22).normal(size=(30, 3))
            law = bridge.conditional(x0)
            results.append(
                [
                    bridge.sample(x0, n=3, rng=5),
                    bridge.sample_path(x0, [0.2, 1.0], rng=5),
                    bridge.sample_sde(x0, 3, rng=5),
                    bridge.kl_to_reference(x0, n=4, rng=5).value,
                    law.locs,
                    law.covariance,
                    law.log_prob(x0),
                    bridge.log_phi(x0, np.linspace(0, 1, 30)),
                    bridge.drift(x0, np.linspace(0, 1, 30)),
                    bridge.log_potential(x0),
                    bridge.transport_cost(x0),
                    bridge.backward_weights(x0, x0[:7]),
                ]
            )
        for result in results[1:]:
            for array, reference in zip(result, results[0], strict=True):
                np.testing.assert_allclose(array, reference, rtol=1e-12, atol=1e-13)


def test_many_rows_and_components_take_no_memory_for_their_products():
    # A number for each row and component would take 32 MB, one for each coordinate too 128 MB.
    bridge = random_bridge(41, "diag", k=200, d=4)
    x0 = np.random.default_rng(42).normal(size=(20_000, 4))
    for call in (
        lambda: bridge.sample(x0, rng=0),
        lambda: bridge.mean(x0),
        lambda: bridge.drift(x0, 0.5),
        lambda: bridge.log_prob(x0, given=x0),
        lambda: bridge.score(x0, x0),
    ):
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10e6


def test_a_seed_repeats_and_a_generator_advances():
    bridge = random_bridge(23, "diag")
    x0 = np.zeros((4, 3))
    for draw in (
        bridge.sample,
        lambda x, **options: bridge.sample_path(x, [0.5, 1.0], **options),
        lambda x, **options: bridge.sample_transition(x, 0.1, 0.4, **options),
        lambda x, **options: bridge.sample_sde(x, 2, **options),
    ):
        np.testing.assert_array_equal(draw(x0, rng=1), draw(x0, rng=1))
        rng = np.random.default_rng(1)
        assert (draw(x0, rng=rng) != draw(x0, rng=rng)).any()
        assert draw(x0, n=2, rng=1).shape == (2, *draw(x0, rng=1).shape)
        assert draw(x0[:0], n=2, rng=1).shape[:2] == (2, 0)


# --- divergence, score, backward weights ---


def test_the_divergence_from_brownian_motion_is_closed_for_one_component():
    bridge, m0, _, _, _, _ = gaussian_case(24, 0.6, 2.0)
    x0 = m0 + np.eye(4)
    found = bridge.kl_to_reference(x0)
    assert found.n_draws == 0
    assert (found.standard_error == 0).all()
    C, mean = bridge.covariance(x0)[0] / 1.2, bridge.mean(x0)
    for i in range(4):
        away = mean[i] - x0[i]
        expected = (np.trace(C) - 4 - np.linalg.slogdet(C)[1] + away @ away / 1.2) / 2
        assert found.value[i] == pytest.approx(expected, rel=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_from_brownian_motion_is_the_integral(kind, seed):
    bridge = random_bridge(25, kind, d=1, horizon=2.0)
    x0 = np.array([[-1.0], [0.0], [2.0]])
    grid = np.linspace(-40, 40, 40_001)[:, None]
    found = bridge.kl_to_reference(x0, n=1000, rng=seed)
    assert found.n_draws == 1000
    for i in range(3):
        log_prob = bridge.log_prob(grid, given=x0[i : i + 1])
        reference = scipy.stats.norm(x0[i, 0], math.sqrt(1.4)).logpdf(grid[:, 0])
        expected = scipy.integrate.trapezoid(np.exp(log_prob) * (log_prob - reference), grid[:, 0])
        assert 0 < found.standard_error[i] < math.log(4) / math.sqrt(1000)
        assert abs(found.value[i] - expected) < 6 * found.standard_error[i]


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_mean_log_density_over_all_pairs(kind):
    bridge = random_bridge(26, kind)
    rng = np.random.default_rng(27)
    x0, x1 = rng.normal(size=(15, 3)), rng.normal(size=(11, 3)) + 1
    pairs = [bridge.log_prob(x1, given=row[None]).mean() for row in x0]
    assert bridge.score(x0, x1) == pytest.approx(np.mean(pairs), rel=1e-12)
    # It is minus the loss of the paper in coordinates about the mean of the starts.
    e, u = bridge.epsilon, x0 - bridge.origin
    square = (u**2).sum(axis=1) / (2 * e) + 1.5 * math.log(2 * np.pi * e)
    loss = (bridge.log_phi(x0, 0.0) + square).mean() - bridge.log_potential(x1).mean()
    turned = u.mean(axis=0) @ (x1 - bridge.origin).mean(axis=0) / e
    assert bridge.score(x0, x1) == pytest.approx(turned - loss, rel=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_backward_weights_are_bayes_rule(kind):
    bridge = random_bridge(28, kind)
    x0, x1 = np.random.default_rng(29).normal(size=(2, 9, 3))
    weights = bridge.backward_weights(x1[:4], x0)
    for i in range(4):
        likelihood = [bridge.log_prob(x1[i : i + 1], given=row[None])[0] for row in x0]
        np.testing.assert_allclose(weights[i], scipy.special.softmax(likelihood), rtol=1e-11)


# --- invariances ---


def moved(bridge, offset, factor=1.0):
    return LightSchrodingerBridge(
        log_weights=bridge.log_weights,
        shifts=bridge.shifts * factor + offset,
        scales=bridge.scales,
        epsilon=bridge.epsilon * factor**2,
        horizon=bridge.horizon,
        origin=bridge.origin * factor + offset,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_moving_and_scaling_all_changes_only_the_units(kind):
    bridge = random_bridge(30, kind, horizon=1.5)
    other = moved(bridge, 1e4, 3.0)
    # Coarse numbers, which survive the offset exactly.
    x0, x1 = np.round(np.random.default_rng(31).normal(size=(2, 8, 3)) * 64) / 64
    y0, y1 = 3 * x0 + 1e4, 3 * x1 + 1e4
    near = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(other.mean(y0), 3 * bridge.mean(x0) + 1e4, rtol=1e-13)
    np.testing.assert_allclose(other.covariance(y0), 9 * bridge.covariance(x0), **near)
    for t in (0.0, 0.7, 1.5):
        np.testing.assert_allclose(other.drift(y0, t), 3 * bridge.drift(x0, t), **near)
    jacobian = 3 * math.log(3)
    np.testing.assert_allclose(
        other.log_prob(y1, given=y0), bridge.log_prob(x1, given=x0) - jacobian, **near
    )
    assert other.score(y0, y1) == pytest.approx(bridge.score(x0, x1) - jacobian, rel=1e-9)
    np.testing.assert_allclose(other.transport_cost(y0), 9 * bridge.transport_cost(x0), **near)
    np.testing.assert_allclose(
        other.kl_to_reference(y0, n=5, rng=0).value,
        bridge.kl_to_reference(x0, n=5, rng=0).value,
        **near,
    )
    np.testing.assert_allclose(
        other.backward_weights(y1, y0), bridge.backward_weights(x1, x0), **near
    )
    np.testing.assert_allclose(
        other.sample(y0, rng=0) - 1e4, 3 * bridge.sample(x0, rng=0), atol=1e-9
    )
    # In float32, the rows that come in are exact, and what comes out is rounded once.
    single = other.mean(y0.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, other.mean(y0), rtol=2.0**-24)
    for method in (
        lambda x: other.drift(x, 0.5),
        lambda x: other.transition(x, 0.5, 1.0).mean,
        lambda x: other.log_prob(y1.astype(x.dtype), given=x),
        lambda x: other.sample_path(x, [0.5, 1.5], rng=0),
        lambda x: other.backward_weights(y1.astype(x.dtype), x),
        other.transport_cost,
    ):
        single = method(y0.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, method(y0), rtol=1e-7, atol=1e-30)


def test_ends_far_from_starts_lose_no_digits():
    # A common motion m is added to the process: the law is that of the same bridge, moved along.
    bridge = random_bridge(32, "diag")
    motion = 2.0**20
    far = LightSchrodingerBridge(
        log_weights=bridge.log_weights,
        shifts=bridge.shifts + motion,
        scales=bridge.scales,
        epsilon=bridge.epsilon,
        origin=bridge.origin,
    )
    x0 = np.round(np.random.default_rng(33).normal(size=(8, 3)) * 64) / 64
    # Rounding of 2^20 in float64 is 1e-10, which the steepest log-weight here turns into 1e-9.
    np.testing.assert_allclose(
        far.conditional(x0).weights, bridge.conditional(x0).weights, atol=1e-8
    )
    np.testing.assert_allclose(
        far.drift(x0 + motion / 2, 0.5) - motion, bridge.drift(x0, 0.5), atol=1e-8
    )
    assert far.score(x0, x0 + motion) == pytest.approx(bridge.score(x0, x0), abs=1e-7)


def test_log_weights_that_no_probability_can_hold_are_kept():
    log_weights = np.array([0.0, -5000.0])
    bridge = LightSchrodingerBridge(
        log_weights=log_weights, shifts=[[-1.0], [1.0]], scales=[0.1, 0.1], epsilon=0.002
    )
    # The second one wins where 2 * 2 x / (2 epsilon) exceeds 5000: beyond x = 5.
    weights = bridge.conditional([[4.0], [5.0], [6.0]]).weights
    np.testing.assert_allclose(weights, [[1, 0], [0.5, 0.5], [0, 1]], atol=1e-10)
    assert np.isfinite(bridge.drift([[6.0]], [0.3])).all()


def test_a_component_without_weight_changes_nothing():
    with_none = LightSchrodingerBridge.from_parameters(
        [0.0, 1.0, 0.0], [[9.0], [1.0], [5.0]], [1.0, 0.5, 2.0], epsilon=0.1
    )
    single = LightSchrodingerBridge.from_parameters([1.0], [[1.0]], [0.5], epsilon=0.1)
    x = np.linspace(-3, 3, 7)[:, None]
    np.testing.assert_allclose(with_none.mean(x), single.mean(x), atol=1e-13)
    np.testing.assert_allclose(with_none.drift(x, 0.4), single.drift(x, 0.4), atol=1e-12)
    np.testing.assert_allclose(with_none.sample(x, rng=0).std(), single.sample(x, rng=0).std())


def test_the_three_kinds_of_scales_agree():
    k, d = 3, 4
    rng = np.random.default_rng(34)
    numbers = rng.uniform(0.2, 2, k)
    shifts = rng.normal(size=(k, d))
    x0, x1 = rng.normal(size=(2, 6, d))
    laws = []
    for scales in (numbers, np.repeat(numbers[:, None], d, 1), numbers[:, None, None] * np.eye(d)):
        bridge = LightSchrodingerBridge.from_parameters(
            np.full(k, 1 / k), shifts, scales, epsilon=0.3
        )
        laws.append(
            [
                bridge.mean(x0),
                bridge.covariance(x0),
                bridge.drift(x0, 0.6),
                bridge.log_prob(x1, given=x0),
                bridge.transport_cost(x0),
            ]
        )
    for other in laws[1:]:
        for found, expected in zip(other, laws[0], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)


# --- the value ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_bridge_comes_back_bit_by_bit(tmp_path, kind):
    bridge = random_bridge(35, kind, epsilon=0.1, horizon=1 / 3)
    bridge.save(tmp_path / "bridge.npz")
    for other in (
        LightSchrodingerBridge.load(tmp_path / "bridge.npz"),
        pickle.loads(pickle.dumps(bridge)),
        copy.deepcopy(bridge),
    ):
        for name in ("log_weights", "weights", "shifts", "scales", "origin"):
            np.testing.assert_array_equal(getattr(other, name), getattr(bridge, name))
        assert (other.epsilon, other.horizon, other.info) == (0.1, 1 / 3, None)
        np.testing.assert_array_equal(
            other.sample(np.eye(3), rng=0), bridge.sample(np.eye(3), rng=0)
        )
        assert repr(other) == repr(bridge)
        for name in ("log_weights", "shifts", "scales", "origin"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(other, name)[:] = 0


def test_a_saved_bridge_still_says_how_its_fit_went(tmp_path):
    x0, x1 = np.random.default_rng(36).normal(size=(2, 200, 2))
    bridge = LightSchrodingerBridge.fit(x0, x1, epsilon=0.5, n_components=2, rng=0)
    bridge.save(tmp_path / "bridge.npz")
    again = LightSchrodingerBridge.load(tmp_path / "bridge.npz").info
    assert (again.converged, again.start, again.loss) == (
        bridge.info.converged, bridge.info.start, bridge.info.loss
    )  # fmt: skip
    np.testing.assert_array_equal(again.losses, bridge.info.losses)
    assert again.last_fall == bridge.info.last_fall


def test_a_file_of_something_else_is_refused_by_name(tmp_path):
    _io.save(tmp_path / "other.npz", "VonMisesFisher", {"loc": np.eye(2)})
    with pytest.raises(DomainError, match="not a saved LightSchrodingerBridge: it holds a VonMis"):
        LightSchrodingerBridge.load(tmp_path / "other.npz")


def test_the_value_is_immutable_and_keeps_copies():
    shifts = np.zeros((1, 2))
    bridge = LightSchrodingerBridge.from_parameters([1.0], shifts, [1.0], epsilon=1)
    shifts[:] = 7
    assert (bridge.shifts == 0).all()
    with pytest.raises(AttributeError):
        bridge.epsilon = 2.0
    assert repr(bridge) == (
        "LightSchrodingerBridge(n_components=1, dim=2, epsilon=1, scales='spherical')"
    )
    law = bridge.conditional(np.zeros((3, 2), dtype=np.float32))
    assert repr(law) == "GaussianMixtureBatch(n_rows=3, n_components=1, dim=2)"
    assert {law.weights.dtype, law.locs.dtype, law.mean.dtype, law.covariance.dtype} == {
        np.dtype(np.float32)
    }
    assert repr(bridge.kl_to_reference(np.zeros((3, 2)))) == (
        "KLEstimate(n_rows=3, n_draws=0, standard_error up to 0.0e+00)"
    )


def test_no_rows_give_no_rows():
    for kind in KINDS:
        bridge, none = random_bridge(36, kind), np.empty((0, 3))
        assert bridge.mean(none).shape == (0, 3)
        assert bridge.covariance(none).shape == (0, 3, 3)
        assert bridge.drift(none, 0.5).shape == (0, 3)
        assert bridge.drift(none, []).shape == (0, 3)
        assert bridge.log_prob(none, given=none).shape == (0,)
        assert bridge.kl_to_reference(none).value.shape == (0,)
        assert bridge.backward_weights(none, np.eye(3)).shape == (0, 3)


# --- epsilon ---


def test_the_suggested_epsilon_is_a_fraction_of_the_mean_squared_distance_of_all_pairs():
    rng = np.random.default_rng(37)
    x0, x1 = rng.normal(size=(20, 3)), rng.normal(size=(30, 3)) * 2 + 1
    pairs = ((x0[:, None] - x1) ** 2).sum(axis=-1)
    assert suggest_epsilon(x0, x1, fraction=0.1) == pytest.approx(0.1 * pairs.mean(), rel=1e-12)
    far = suggest_epsilon((x0 + 1e4).astype(np.float32), (x1 + 1e4).astype(np.float32), fraction=1)
    assert far == pytest.approx(pairs.mean(), rel=1e-3)


# --- bad input ---

X = np.zeros((4, 2))
GOOD = LightSchrodingerBridge.from_parameters(
    [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], [1.0, 1.0], epsilon=0.5, horizon=2.0
)
NAN = np.array([[0.0, 0.0], [np.nan, 0.0]])
PARAMETERS = {"weights": [0.5, 0.5], "shifts": np.eye(2), "scales": np.ones(2), "epsilon": 0.5}


# fmt: off
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": [0.5, 0.6]}, DomainError, "'weights' must sum to 1; they sum to 1.1. Divide by the sum"),
        ({"weights": [1.5, -0.5]}, DomainError, "'weights' must be nonnegative; got -0.5 at index 1"),
        ({"weights": [1.0]}, ShapeError, "'weights' must have shape (2,), one weight a component; got (1,)"),
        ({"shifts": [1.0, 2.0]}, ShapeError, "'shifts' must have shape (k, d), a row for each component, with k and d at least 1; got (2,)"),
        ({"shifts": [[1.0, np.inf], [0.0, 0.0]]}, NotFiniteError, "'shifts' must be finite; got 1 infinite or NaN entry, the first (inf) at index (0, 1)"),
        ({"shifts": np.eye(2) + 1j}, TypeError, "'shifts' must hold real numbers; got dtype complex128"),
        ({"scales": np.ones((2, 3))}, ShapeError, "'scales' must have shape (2,), (2, 2) or (2, 2, 2) to match 'shifts'; got (2, 3)"),
        ({"scales": [1.0, 0.0]}, DomainError, "'scales' must be positive; got 0 in component 1"),
        ({"scales": [1.0, np.nan]}, NotFiniteError, "'scales' must be finite"),
        ({"scales": [np.eye(2), [[1.0, 0.5], [0.0, 1.0]]]}, DomainError, "'scales' must hold symmetric matrices; that of component 1 differs from its transpose by 0.5. Pass (scales"),
        ({"scales": [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]}, NotPositiveDefiniteError, "'scales' must hold positive definite matrices; that of component 1 has an eigenvalue of -1"),
        ({"epsilon": 0.0}, DomainError, "'epsilon' must be finite and positive; got 0.0"),
        ({"epsilon": np.nan}, DomainError, "'epsilon' must be finite and positive; got nan"),
        ({"horizon": -1.0}, DomainError, "'horizon' must be finite and positive; got -1.0"),
        ({"origin": [0.0]}, ShapeError, "'origin' must have shape (2,), a point like the rows of 'shifts'; got (1,)"),
    ],
)
def test_bad_parameters_are_named(changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        LightSchrodingerBridge.from_parameters(**{**PARAMETERS, **changes})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GOOD.mean([0.0, 0.0]), ShapeError, "'x0' must have shape (n, 2), one point a row; got (2,). For a single point pass x0[None]"),
        (lambda: GOOD.mean(0.0), ShapeError, "'x0' must have shape (n, 2), one point a row; got ()"),
        (lambda: GOOD.mean(X[None]), ShapeError, "'x0' must have shape (n, 2), one point a row; got (1, 4, 2)"),
        (lambda: GOOD.sample(np.zeros((4, 3))), ShapeError, "'x0' must have 2 columns, as the bridge's shifts have; got shape (4, 3)"),
        (lambda: GOOD.drift(NAN, 0.5), NotFiniteError, "'x' must be finite; got 1 infinite or NaN entry, the first (nan) at index (1, 0)"),
        (lambda: GOOD.drift(X, 2.1), DomainError, "'t' must be in [0, 2], the horizon; got 2.1"),
        (lambda: GOOD.drift(X, 2.0000001), DomainError, "'t' must be in [0, 2], the horizon; got 2.0000001."),
        (lambda: GOOD.conditional_at(X, 3.0), DomainError, "'t' must be in (0, 2], the horizon; got 3."),
        (lambda: GOOD.drift(X, np.nan), DomainError, "'t' must be in [0, 2], the horizon; got nan"),
        (lambda: GOOD.drift(X, [0, 1, 2, -1]), DomainError, "'t' must be in [0, 2], the horizon; got -1 at index 3"),
        (lambda: GOOD.log_phi(X, [0.0, 1.0]), ShapeError, "'t' must be a number or have shape (4,), a time for each row; got (2,)"),
        (lambda: GOOD.drift(X, "now"), TypeError, "'t' must hold real numbers"),
        (lambda: GOOD.transition(X, 1.0, 1.0), DomainError, "'s' must be before 't'; got s = 1 and t = 1"),
        (lambda: GOOD.sample_transition(X, 1.0, 3.0), DomainError, "'t' must be in [0, 2], the horizon; got 3"),
        (lambda: GOOD.transition(X, None, 1.0), TypeError, "'s' must be a number; got NoneType"),
        (lambda: GOOD.conditional_at(X, 0.0), DomainError, "'t' must be in (0, 2]; got 0, where the process is at 'x0' itself and has no density"),
        (lambda: GOOD.sample_path(X, [0.0, 1.0, 1.0]), DomainError, "'times' must increase; got 1 after 1 at index 2"),
        (lambda: GOOD.sample_path(X, [0.0, 2.5]), DomainError, "'times' must be in [0, 2], the horizon; got 2.5 at index 1"),
        (lambda: GOOD.sample_path(X, 1.0), ShapeError, "'times' must have shape (l,), with one time or more; got ()"),
        (lambda: GOOD.sample(X, n=0), DomainError, "'n' must be at least 1; got 0"),
        (lambda: GOOD.sample(X, rng=-1), DomainError, "'rng' must be a nonnegative seed"),
        (lambda: GOOD.sample_sde(X, 0), DomainError, "'n_steps' must be at least 1; got 0"),
        (lambda: GOOD.kl_to_reference(X, n=1), DomainError, "'n' must be at least 2; got 1"),
        (lambda: GOOD.log_prob(X, given=X[:3]), ShapeError, "'x1' must have shape (..., 3, 2), a row for each of 'given'; got (4, 2)"),
        (lambda: GOOD.conditional(X).log_prob(X[:3]), ShapeError, "'x' must have shape (..., 4, 2), a point for each row; got (3, 2)"),
        (lambda: GOOD.score(X[:0], X), ShapeError, "'x0' must have at least one row; got shape (0, 2)"),
        (lambda: GOOD.backward_weights(X, X[:0]), ShapeError, "'x0' must have at least one row"),
        (lambda: LightSchrodingerBridge(log_weights=[np.nan], shifts=[[0.0]], scales=[1.0], epsilon=1), NotFiniteError, "'log_weights' must be below infinity, and one of them above minus infinity; got nan"),
        (lambda: LightSchrodingerBridge(log_weights=[0.0, 0.0], shifts=[[0.0]], scales=[1.0], epsilon=1), ShapeError, "'log_weights' must have shape (1,), one for each row of 'shifts'; got (2,)"),
        (lambda: suggest_epsilon(X[:1], X, fraction=0.1), ShapeError, "'x0' must have at least 2 rows and 1 column; got shape (1, 2)"),
        (lambda: suggest_epsilon(X, np.zeros((4, 3)), fraction=0.1), ShapeError, "'x0' and 'x1' must have as many columns as each other; got shapes (4, 2) and (4, 3)"),
        (lambda: suggest_epsilon(X, X, fraction=0.1), DomainError, "'x0' and 'x1' must hold rows that differ; all are equal. Give epsilon as a number"),
        (lambda: suggest_epsilon(X, X, fraction=0.0), DomainError, "'fraction' must be finite and positive; got 0"),
        (lambda: suggest_epsilon(X, NAN, fraction=0.1), NotFiniteError, "'x1' must be finite"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
# fmt: on


@pytest.mark.parametrize("dtype", [np.float16, np.int8, bool])
def test_rows_that_are_not_of_a_float_we_compute_with_give_float64(dtype):
    x = np.ones((4, 2), dtype=dtype)
    for method in (GOOD.mean, GOOD.sample, GOOD.transport_cost, lambda x: GOOD.conditional(x).mean):
        assert method(x).dtype == np.float64
        assert method(x.astype(np.float32)).dtype == np.float32
