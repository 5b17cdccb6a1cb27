# ruff: noqa: E501 - one case a line
"""Unbalanced light bridges, against closed forms, Sinkhorn's plans and the balanced bridge."""

import dataclasses
import math
import pickle
import re

import numpy as np
import pytest
import scipy.linalg

import pyprobe
from pyprobe.errors import (
    ConvergenceWarning,
    DomainError,
    NotFiniteError,
    NumericalWarning,
    ShapeError,
)
from pyprobe.transport import LightSchrodingerBridge, LightUnbalancedBridge, sinkhorn_points
from pyprobe.transport._bridge_descent import Options
from pyprobe.transport._bridge_kinds import KINDS
from pyprobe.transport._bridge_model import Model, Parameters, Sample
from pyprobe.transport._unbalanced_fit import PlanWatch, TiltedCoordinates, descend
from pyprobe.transport._unbalanced_problem import Problem, Side

COVARIANCES = ("diag", "full", "spherical")
fit = LightUnbalancedBridge.fit


def quadrature(mean, covariance, n=24):
    """Points and weights whose sums are the integrals over a Gaussian in the plane."""
    t, w = np.polynomial.hermite_e.hermegauss(n)
    points = np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2)
    return mean + points @ np.linalg.cholesky(covariance).T, np.outer(w, w).ravel() / w.sum() ** 2


def gaussian_plan(a, A, b, B, epsilon, rho):
    """Mass, mean, first and mixed covariance of the unbalanced plan: Janati et al. 2020, theorem 3.

    There the cost is |x - y|^2, its entropy 2 sigma^2 and the penalty gamma.
    """
    sigma2, gamma, eye = epsilon, 2 * rho, np.eye(len(a))
    lam, tau = sigma2 + gamma / 2, gamma / (2 * sigma2 + gamma)
    At = gamma / 2 * (eye - lam * np.linalg.inv(A + lam * eye))
    Bt = gamma / 2 * (eye - lam * np.linalg.inv(B + lam * eye))
    C = scipy.linalg.sqrtm(At @ Bt / tau + sigma2**2 / 4 * eye) - sigma2 / 2 * eye
    X = np.linalg.inv(A + B + lam * eye)
    mean = np.concatenate([a + A @ X @ (b - a), b + B @ X @ (a - b)])
    first = (eye + C / lam) @ (A - A @ X @ A)
    mixed = C + (eye + C / lam) @ A @ X @ B
    det = np.linalg.det
    volume = det(C) * math.sqrt(det(At @ Bt) ** tau / det(A @ B))
    mass = sigma2 ** (len(a) * sigma2 / (2 * (gamma + sigma2))) * volume ** (1 / (tau + 1))
    mass *= math.exp(-(a - b) @ X @ (a - b) / (2 * (tau + 1)))
    return mass / math.sqrt(det(C - 2 / gamma * At @ Bt)), mean, first, mixed


def two_groups(rng, n):
    """Two groups, 4 apart, in different shares; the ends lie a step aside."""
    groups = np.array([[-2.0, 0.0], [2.0, 0.0]])
    first, second = rng.choice(2, n, p=[0.25, 0.75]), rng.choice(2, n, p=[0.75, 0.25])
    x0 = groups[first] + 0.4 * rng.normal(size=(n, 2))
    return x0, groups[second] + [0.0, 1.5] + 0.4 * rng.normal(size=(n, 2)), first


# --- against mathematics ---


@pytest.mark.parametrize("rho", [0.3, 2.0, 50.0])
def test_one_full_component_is_the_unbalanced_gaussian_plan(rho):
    rng = np.random.default_rng(0)
    a, b = np.array([0.5, -1.0]), np.array([1.5, 0.5])
    A, B = (m @ m.T + 0.3 * np.eye(2) for m in rng.normal(size=(2, 2, 2)))
    (x0, w0), (x1, w1) = quadrature(a, A), quadrature(b, B)
    mass, mean, first, mixed = gaussian_plan(a, A, b, B, 0.3, rho)
    plan = fit(x0, x1, weights_x0=w0, weights_x1=w1, epsilon=0.15, horizon=2.0, unbalanced=rho, n_components=1, covariance="full", validation_fraction=0, tol=1e-12)  # fmt: skip
    assert plan.mass == pytest.approx(mass, rel=1e-6)
    np.testing.assert_allclose(plan.starts.mean[0], mean[:2], atol=1e-6)
    np.testing.assert_allclose(plan.starts.covariance[0], first, atol=1e-6)
    np.testing.assert_allclose(first @ plan.bridge.scales[0], mixed, atol=1e-6)
    np.testing.assert_allclose(plan.bridge.mean(mean[None, :2])[0], mean[2:], atol=1e-6)
    for weights, rows in ((plan.start_weights(x0), w0), (plan.end_weights(x1), w1)):
        assert weights @ rows == pytest.approx(mass, rel=1e-6)


def test_the_score_of_the_best_plan_is_its_cost():
    # At the optimum it is (rho0 + rho1 + epsilon) (1 - mass), Sejourne et al. 2019.
    x0, x1 = np.random.default_rng(0).normal(size=(2, 600, 2)) * [[[1.0]], [[0.5]]]
    plan = fit(x0, x1 + 1.0, epsilon=0.3, unbalanced=(2.0, 3.0), n_components=2, rng=0)
    assert plan.score(x0, x1 + 1.0) == pytest.approx(5.3 * (1 - plan.mass), rel=1e-9)
    assert plan.start_weights(x0).mean() == pytest.approx(plan.mass, rel=1e-9)
    assert plan.end_weights(x1 + 1.0).mean() == pytest.approx(plan.mass, rel=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("penalties", [(5.0, 4.0), (math.inf, 4.0), (5.0, math.inf)])
def test_gradient_against_central_differences(covariance, penalties):
    rng = np.random.default_rng(0)
    (n, m), d, k, kind = (50, 61), 3, 4, KINDS[covariance]
    starts, ends = (Sample(rng.normal(size=(rows, d)), rng.dirichlet(np.ones(rows))) for rows in (n, m))  # fmt: skip
    problem = Problem(
        Model(kind, 0.5),
        Side(starts, rng.normal(size=n), 1.0, penalties[0]),
        Side(ends, rng.normal(size=m), -1.0, penalties[1]),
    )
    where = Parameters(rng.normal(size=k), rng.normal(size=(k, d)), 0.7 * kind.identity(k, d))
    around = TiltedCoordinates(problem, where, rng)
    for found, expected in zip(around.components(np.zeros(around.size)), where, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-13)
    x, h = 0.1 * rng.normal(size=around.size), 1e-5
    _, gradient = around.look(x)
    assert around.value == pytest.approx(problem.loss(around.components(x)), rel=1e-12)
    ahead, behind = (
        np.array([around.look(x + sign * h * axis)[0] for axis in np.eye(len(x))])
        for sign in (1, -1)
    )
    difference = (ahead - behind) / (2 * h)
    np.testing.assert_allclose(gradient, difference, atol=1e-6 * np.abs(difference).max())


def test_large_penalties_tend_to_the_balanced_bridge():
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=(800, 2))
    x1 = rng.normal(size=(800, 2)) @ np.array([[1.5, 0.5], [0.0, 0.5]]) + 2.0
    options = {"epsilon": 0.3, "n_components": 1, "covariance": "full", "validation_fraction": 0}
    balanced = LightSchrodingerBridge.fit(x0, x1, **options)
    distances = []
    for rho in (1e2, 1e4, 1e6, math.inf):
        plan = fit(x0, x1, unbalanced=rho, tol=1e-10, **options)
        distances.append(np.abs(plan.bridge.mean(x0) - balanced.mean(x0)).max())
    # The distance falls as 1 / rho.
    np.testing.assert_allclose(distances[1] / distances[0], 1e-2, rtol=0.1)
    np.testing.assert_allclose(distances[2] / distances[1], 1e-2, rtol=0.1)
    assert distances[3] < 1e-7
    assert plan.mass == 1
    assert (plan.start_weights(x0) == 1).all()
    # The potentials, whose sum the plan sees: that of entropic transport between Gaussians.
    assert plan.score(x0, x1) == pytest.approx(
        plan.start_potential(x0).mean() + plan.end_potential(x1).mean(), rel=1e-12
    )


# --- against Sinkhorn's plan ---


@pytest.mark.parametrize("rho", [2.0, (2.0, 8.0), (5.0, None), (None, 5.0)])
def test_beside_sinkhorn(rho):
    rng = np.random.default_rng(1)
    x0, x1, _ = two_groups(rng, 1500)
    plan = fit(x0, x1, epsilon=0.2, unbalanced=rho, n_components=10, rng=0)
    both = rho if isinstance(rho, tuple) else (rho, rho)
    doubled = tuple(None if side is None else 2 * side for side in both)
    exact = sinkhorn_points(x0, x1, epsilon=0.4, unbalanced=doubled)
    rows, columns = 1500 * exact.apply(np.ones(1500)), 1500 * exact.apply_transpose(np.ones(1500))
    # On 1500 rows either is off by about a hundredth.
    assert plan.mass == pytest.approx(rows.mean(), rel=0.01)
    assert np.abs(plan.start_weights(x0) - rows).mean() < 0.02 * plan.mass
    assert np.abs(plan.end_weights(x1) - columns).mean() < 0.03 * plan.mass
    assert plan.score(x0, x1) == pytest.approx(exact.value / 2, rel=0.01)
    apart = np.linalg.norm(plan.bridge.mean(x0) - exact.barycentric_map(x1), axis=1)
    assert rows @ apart / rows.sum() < 0.05
    assert np.abs(plan.start_potential(x0) - exact.f / 2).mean() < 0.05
    assert np.abs(plan.end_potential(x1) - exact.g / 2).mean() < 0.1


def test_in_many_dimensions_it_knows_the_mass_where_sinkhorn_sees_the_sample():
    # Points of a sample are further apart than the laws are.
    rng, d = np.random.default_rng(0), 16
    x0, x1 = rng.normal(size=(2, 2000, d))
    x1[:, 0] += 2.0
    mass, *_ = gaussian_plan(np.zeros(d), np.eye(d), 2.0 * np.eye(d)[0], np.eye(d), 0.1, 5.0)
    plan = fit(x0, x1, epsilon=0.1, unbalanced=5.0, n_components=5, rng=0)
    assert plan.mass == pytest.approx(mass, rel=0.02)
    exact = sinkhorn_points(x0, x1, epsilon=0.2, unbalanced=10.0, tol=1e-4)
    assert exact.apply(np.ones(2000)).sum() < 0.9 * mass


# Thirty components are more than two clusters need: by chance some shrink onto single rows.
@pytest.mark.filterwarnings("ignore:.*have shrunk onto single points")
@pytest.mark.parametrize("start", ["auto", "broad", "kmeans"])
def test_far_clusters_with_little_noise(start):
    # Each cluster has a potential of its own that a balanced problem does not see.
    rng = np.random.default_rng(0)
    x0, x1, first = two_groups(rng, 2000)
    plan = fit(x0, x1, epsilon=0.02, unbalanced=2.0, n_components=30, start=start, rng=0)
    exact = sinkhorn_points(x0, x1, epsilon=0.04, unbalanced=4.0, tol=1e-5)
    rows = 2000 * exact.apply(np.ones(2000))
    weights = plan.start_weights(x0)
    for group in (0, 1):
        assert weights[first == group].mean() == pytest.approx(rows[first == group].mean(), rel=0.03)  # fmt: skip


# --- what it is for ---


def test_shares_of_classes_may_differ():
    rng = np.random.default_rng(0)
    x0, x1, first = two_groups(rng, 2000)
    plan = fit(x0, x1, epsilon=0.05, unbalanced=1.0, n_components=10, rng=0)
    stays = np.sign(plan.sample(x0, rng=0)[:, 0]) == np.sign(x0[:, 0])
    assert stays.mean() > 0.995  # of the exact plan 0.9996: a few from between the groups
    # A balanced plan has to take half of all to the other class.
    balanced = LightSchrodingerBridge.fit(x0, x1, epsilon=0.05, n_components=10, rng=0)
    crossing = np.sign(balanced.sample(x0, rng=0)[:, 0]) != np.sign(x0[:, 0])
    assert 0.45 < crossing.mean() < 0.55
    # Pairs of shares p and q at the same price carry in proportion to sqrt(p q): the weights are
    # in the ratio sqrt(3) to 1 / sqrt(3).
    weights = plan.start_weights(x0)
    assert weights[first == 0].mean() / weights[first == 1].mean() == pytest.approx(3, rel=0.1)


def test_outliers_stay_behind():
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(1000, 2)), rng.normal([1.0, 0.0], 0.5, (1000, 2))
    clean = fit(x0, x1, epsilon=0.1, unbalanced=3.0, n_components=5, rng=0)
    x0[:50] += [30.0, 0.0]
    plan = fit(x0, x1, epsilon=0.1, unbalanced=3.0, n_components=5, rng=0)
    weights = plan.start_weights(x0)
    assert weights[:50].max() < 1e-6
    np.testing.assert_allclose(plan.starts.mean[0], clean.starts.mean[0], atol=0.15)
    # 5 in 100 are lost: their mass is not, since the rest stands in for them.
    assert 0.95 * clean.mass < plan.mass < clean.mass
    drawn = plan.sample_starts(2000, among=x0, rng=0)
    assert np.abs(drawn).max() < 6
    assert np.abs(drawn.mean(axis=0) - plan.starts.mean[0]).max() < 0.1
    new = plan.sample_starts(20000, rng=0)
    np.testing.assert_allclose(new.mean(axis=0), plan.starts.mean[0], atol=0.05)
    np.testing.assert_allclose(np.cov(new.T), plan.starts.covariance[0], atol=0.06)


# --- invariances ---


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_common_shift_and_scale(covariance):
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 500)
    options = {"n_components": 4, "covariance": covariance, "rng": 0}
    plan = fit(x0, x1, epsilon=0.2, unbalanced=(2.0, 3.0), **options)
    move = lambda x: 8.0 * x + 1000.0  # noqa: E731
    moved = fit(move(x0), move(x1), epsilon=64 * 0.2, unbalanced=(64 * 2.0, 64 * 3.0), **options)
    assert moved.mass == pytest.approx(plan.mass, rel=1e-8)
    np.testing.assert_allclose(moved.start_weights(move(x0)), plan.start_weights(x0), rtol=1e-6)
    np.testing.assert_allclose(moved.end_weights(move(x1)), plan.end_weights(x1), rtol=1e-6)
    np.testing.assert_allclose(moved.bridge.mean(move(x0)), move(plan.bridge.mean(x0)), atol=1e-5)
    assert moved.score(move(x0), move(x1)) == pytest.approx(64 * plan.score(x0, x1), rel=1e-7)


def test_a_shift_of_one_side_costs_mass():
    # Gaussians of equal covariance C: exp(-|shift|^2 / (2 (tau + 1)) / (2 C + epsilon + rho)).
    (x0, w0), (x1, w1) = quadrature(np.zeros(2), np.eye(2)), quadrature(np.zeros(2), np.eye(2))
    options = {"weights_x0": w0, "weights_x1": w1, "epsilon": 0.5, "unbalanced": 2.0, "n_components": 1, "covariance": "full", "validation_fraction": 0, "tol": 1e-10}  # fmt: skip
    near, far = fit(x0, x1, **options), fit(x0, x1 + np.array([2.0, 0.0]), **options)
    tau = 2.0 / 2.5
    assert far.mass / near.mass == pytest.approx(math.exp(-4 / (2 * (tau + 1) * 4.5)), rel=1e-5)


def test_weights_stand_for_repeated_rows():
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 300)
    times = rng.integers(1, 4, 300)
    options = {"epsilon": 0.3, "unbalanced": 2.0, "n_components": 1, "covariance": "full", "validation_fraction": 0, "tol": 1e-10}  # fmt: skip
    weighted = fit(x0, x1, weights_x0=times, **options)
    repeated = fit(np.repeat(x0, times, axis=0), x1, **options)
    assert weighted.mass == pytest.approx(repeated.mass, rel=1e-6)
    np.testing.assert_allclose(weighted.bridge.mean(x0), repeated.bridge.mean(x0), atol=1e-4)


# --- the value ---


def test_shapes_types_and_repetition():
    rng = np.random.default_rng(0)
    x0, x1, _ = (a.astype(np.float32) for a in two_groups(rng, 400))
    calls = []
    plan = fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=4, n_source_components=3, rng=0, callback=calls.append)  # fmt: skip
    assert (plan.dim, plan.n_components, plan.epsilon, plan.horizon) == (2, 4, 0.2, 1.0)
    assert plan.starts.weights.shape == (1, 3)
    assert calls[-1].step == plan.info.n_iter
    np.testing.assert_array_equal([call.value for call in calls], plan.info.losses)
    for method, x in (("start_weights", x0), ("end_weights", x1), ("start_potential", x0), ("end_potential", x1)):  # fmt: skip
        found = getattr(plan, method)(x[:7])
        assert found.shape == (7,)
        assert found.dtype == np.float32
    assert plan.sample(x0[:5], n=3, rng=0).shape == (3, 5, 2)
    np.testing.assert_array_equal(plan.conditional(x0[:5]).mean, plan.bridge.mean(x0[:5]))
    again = fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=4, n_source_components=3, rng=0)
    np.testing.assert_array_equal(again.start_weights(x0), plan.start_weights(x0))
    assert repr(plan).startswith("LightUnbalancedBridge(n_components=4, dim=2, epsilon=0.2, unbalanced=(2, 2), mass=")  # fmt: skip


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_files_and_pickle(tmp_path, covariance):
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 300)
    plan = fit(x0, x1, epsilon=0.2, unbalanced=(2.0, None), n_components=3, covariance=covariance, horizon=1.5, rng=0)  # fmt: skip
    plan.save(tmp_path / "plan.npz")
    loaded = LightUnbalancedBridge.load(tmp_path / "plan.npz")
    for name, value in dataclasses.asdict(plan.info).items():
        np.testing.assert_array_equal(getattr(loaded.info, name), value)
    for other in (loaded, pickle.loads(pickle.dumps(plan))):
        assert (other.mass, other.unbalanced, other.horizon) == (plan.mass, plan.unbalanced, 1.5)
        np.testing.assert_array_equal(other.start_weights(x0), plan.start_weights(x0))
        np.testing.assert_array_equal(other.end_potential(x1), plan.end_potential(x1))
        np.testing.assert_array_equal(other.sample(x0, rng=0), plan.sample(x0, rng=0))
        np.testing.assert_array_equal(other.sample_starts(9, rng=0), plan.sample_starts(9, rng=0))
    with pytest.raises(DomainError, match="holds a LightUnbalancedBridge"):
        LightSchrodingerBridge.load(tmp_path / "plan.npz")


def test_no_number_of_threads_changes_a_bit():
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 25000)  # less would not be worth a second thread
    before, found = pyprobe.get_num_threads(), []
    try:
        for n in (1, 2):
            pyprobe.set_num_threads(n)
            found.append(fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=4, max_iter=8, tol=0.1, rng=0))  # fmt: skip
    finally:
        pyprobe.set_num_threads(before)
    for name in ("log_weights", "shifts", "scales"):
        np.testing.assert_array_equal(getattr(found[0].bridge, name), getattr(found[1].bridge, name))  # fmt: skip
    np.testing.assert_array_equal(found[0].start_weights(x0), found[1].start_weights(x0))
    assert found[0].mass == found[1].mass


def test_it_is_made_by_fit_or_load_alone():
    with pytest.raises(TypeError, match=r"take LightUnbalancedBridge\.fit"):
        LightUnbalancedBridge()
    x0, x1, _ = two_groups(np.random.default_rng(0), 100)
    plan = fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=2, rng=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.mass = 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_on_the_cpu(dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x0, x1 = (a.astype(dtype) for a in two_groups(rng, 300)[:2])
    w0 = rng.uniform(size=300)
    options = {"epsilon": 0.2, "unbalanced": 2.0, "n_components": 3, "rng": 0}
    plan = fit(x0, x1, weights_x0=w0, **options)
    t0, t1 = torch.tensor(x0), torch.tensor(x1)
    other = fit(t0, t1, weights_x0=torch.tensor(w0), **options)
    np.testing.assert_array_equal(other.bridge.shifts, plan.bridge.shifts)
    assert other.mass == plan.mass
    for method, x, t in (("start_weights", x0, t0), ("end_weights", x1, t1), ("start_potential", x0, t0), ("end_potential", x1, t1)):  # fmt: skip
        found = getattr(plan, method)(t)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == t.dtype
        np.testing.assert_array_equal(found.numpy(), getattr(plan, method)(x))
    assert plan.score(t0, t1) == plan.score(x0, x1)
    assert plan.score(x1=t1, x0=t0) == plan.score(x0, x1)
    np.testing.assert_array_equal(plan.sample(t0, rng=0).numpy(), plan.sample(x0, rng=0))
    drawn = plan.sample_starts(5, among=t0, rng=0)
    np.testing.assert_array_equal(drawn.numpy(), plan.sample_starts(5, among=x0, rng=0))


def test_tensors_that_are_refused_are_told_a_way():
    torch = pytest.importorskip("torch")
    x0, x1 = (torch.tensor(a) for a in two_groups(np.random.default_rng(0), 300)[:2])
    options = {"epsilon": 0.2, "unbalanced": 2.0, "n_components": 3, "rng": 0}
    plan = fit(x0, x1, **options)
    wanted = x0.clone().requires_grad_()
    with pytest.raises(RuntimeError, match=r"LightUnbalancedBridge.fit.*pass x0.detach\(\)"):
        fit(wanted, x1, **options)
    with pytest.raises(RuntimeError, match=r"start_weights.*pass x0.detach\(\)"):
        plan.start_weights(wanted)
    with pytest.raises(TypeError, match="arrays of one library"):
        fit(x0, x1.numpy(), **options)
    with pytest.raises(TypeError, match=r"'x0'.*bridge.to_torch\(\).conditional\(x0\)"):
        plan.conditional(x0)
    # That way.
    law = plan.bridge.to_torch().conditional(x0)
    np.testing.assert_allclose(law.mean.detach(), plan.conditional(x0.numpy()).mean, rtol=1e-10)
    plan.bridge.mean(wanted).sum().backward()
    assert wanted.grad.isfinite().all()


# --- hard and bad input ---


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_constant_column_is_said_and_is_no_collapse(covariance):
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(2, 1000, 2))
    x1[:, 1] = 3.0
    with pytest.warns(NumericalWarning, match="'x1' is constant in column 1") as caught:
        plan = fit(x0, x1, epsilon=0.5, unbalanced=20.0, n_components=5, covariance=covariance, rng=0)  # fmt: skip
    assert len(caught) == 1
    assert plan.info.collapsed.size == 0


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.filterwarnings("ignore::pyprobe.errors.NumericalWarning")
@pytest.mark.filterwarnings("ignore::pyprobe.errors.ConvergenceWarning")
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_axes_of_unlike_scale_overflow_nowhere(covariance):
    # Where they are spherical, L-BFGS without bounds looks where scales overflow, in each of these.
    x0, x1 = np.random.default_rng(0).normal(size=(2, 300, 3))
    x0, x1 = x0 * [1.0, 5.0, 0.01], x1 * [0.01, 3.0, 1.0] + [0.0, 3.0, 0.0]
    for epsilon, seed in ((1e-3, 4), (1e-3, 7), (1e-4, 2), (1e-4, 6)):
        plan = fit(x0, x1, epsilon=epsilon, unbalanced=0.01, n_components=30, covariance=covariance, rng=seed)  # fmt: skip
        assert np.isfinite(plan.bridge.scales).all()


def test_a_component_without_rows_costs_no_digits():
    # Its logit is told by nothing: how low it is must not move those of the others.
    rng = np.random.default_rng(0)
    starts, ends = (Sample(rng.normal(size=(200, 2)), np.full(200, 1 / 200)) for _ in range(2))
    problem = Problem(Model(KINDS["diag"], 0.5), Side(starts, np.zeros(200), 1.0, 5.0), Side(ends, np.zeros(200), -1.0, 4.0))  # fmt: skip
    shifts, found = rng.normal(size=(3, 2)), []
    for low in (-1e3, -1e14):
        watch = PlanWatch(problem.model, None, Options(4, 0.0))
        where = Parameters(np.array([0.0, 0.0, low]), shifts, np.full((3, 2), 0.7))
        found.append(descend(problem, where, watch))
        assert watch.losses
    np.testing.assert_allclose(found[1].logits[:2], found[0].logits[:2], atol=1e-12)
    np.testing.assert_allclose(found[1].shifts[:2], found[0].shifts[:2], atol=1e-12)


@pytest.mark.filterwarnings("ignore::pyprobe.errors.NumericalWarning")
@pytest.mark.filterwarnings("ignore::pyprobe.errors.ConvergenceWarning")
def test_a_mass_that_overflows_is_refused_and_one_above_all_is_said():
    x0, x1 = np.random.default_rng(0).normal(size=(2, 600, 2))
    options = {"epsilon": 0.1, "n_components": 2, "rng": 0}
    # A single row far away is held out: the potential there is none.
    x1[0] += 1000.0
    with pytest.raises(DomainError, match="the mass of the plan overflows"):
        fit(x0, x1, unbalanced=(5.0, 0.1), **options)
    # Nearer, but after a single iteration, which leaves it where no component is.
    x1[0] -= 980.0
    with pytest.warns(NumericalWarning, match="carries a mass of .* from samples of mass 1"):
        plan = fit(x0, x1, unbalanced=(5.0, 0.1), max_iter=1, **options)
    assert 1.5 < plan.mass < math.inf


@pytest.mark.parametrize(("far", "epsilon"), [(1e160, 0.1), (-1e200, 1e300), (1e150, 1e-10)])
def test_distances_that_overflow_are_refused(far, epsilon):
    x0, x1 = np.random.default_rng(0).normal(size=(2, 60, 2))
    with pytest.raises(DomainError, match="lie so near each other that squared distances"):
        fit(x0, x1 + far, epsilon=epsilon, unbalanced=1.0, n_components=2, rng=0)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.filterwarnings("ignore::pyprobe.errors.NumericalWarning")
@pytest.mark.filterwarnings("ignore::pyprobe.errors.ConvergenceWarning")
def test_a_row_is_held_out_of_the_smallest_samples(n):
    x0, x1 = np.random.default_rng(0).normal(size=(2, n, 2))
    options = {"epsilon": 1.0, "unbalanced": 1.0, "rng": 0}
    with pytest.raises(DomainError, match=f"'n_components' must be at most {n - 1},"):
        fit(x0, x1, n_components=n, **options)
    if n > 3:  # of fewer, what is fitted to one or two rows is no plan of the row held out
        assert fit(x0, x1, n_components=n - 1, **options).n_components == n - 1
    assert fit(x0, x1, n_components=n, validation_fraction=0, **options).n_components == n


def test_a_callback_ends_the_fit():
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 300)
    plan = fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=4, rng=0, callback=lambda p: p.step == 2)  # fmt: skip
    assert plan.info.stopped
    assert plan.info.n_iter == 2


def test_no_convergence_is_said():
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 300)
    with pytest.warns(ConvergenceWarning, match="stopped after 2 iterations"):
        plan = fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=4, max_iter=2, rng=0)
    assert not plan.info.converged


def test_a_plan_that_rests_on_few_rows_is_said():
    # With next to no penalty only the nearest pairs are worth their way.
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(300, 1)), rng.normal(size=(300, 1)) + 30.0
    with pytest.warns(NumericalWarning, match="rests on few rows of 'x[01]'"):
        plan = fit(x0, x1, epsilon=0.1, unbalanced=0.5, n_components=1, validation_fraction=0, rng=0)  # fmt: skip
    assert 0 <= plan.mass < 1e-50


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.filterwarnings("ignore::pyprobe.errors.NumericalWarning")
@pytest.mark.filterwarnings("ignore::pyprobe.errors.ConvergenceWarning")
@pytest.mark.parametrize("case", ["duplicates", "constant feature", "few rows", "far apart", "one end"])  # fmt: skip
def test_hard_samples_give_finite_numbers(covariance, case):
    rng = np.random.default_rng(0)
    x0, x1, _ = two_groups(rng, 60)
    n, fraction = 5, 0.1
    if case == "duplicates":
        x0, x1 = np.repeat(x0[:6], 10, axis=0), np.repeat(x1[:6], 10, axis=0)
    elif case == "constant feature":
        x0[:, 1] = 3.0
    elif case == "few rows":
        x0, x1, n, fraction = x0[:2], x1[:3], 2, 0.0
    elif case == "far apart":
        x1 = x1 + 1e4
    else:
        x1 = np.repeat(x1[:1], 60, axis=0)
    plan = fit(x0, x1, epsilon=0.2, unbalanced=2.0, n_components=n, covariance=covariance, validation_fraction=fraction, rng=0)  # fmt: skip
    assert np.isfinite(plan.bridge.shifts).all()
    assert 0 <= plan.mass <= 1.5
    assert np.isfinite(plan.start_potential(x0)).all()
    assert np.isfinite(plan.end_potential(x1)).all()
    assert np.isfinite(plan.bridge.mean(x0)).all()


BAD = [
    ({"unbalanced": 0.0}, DomainError, "'unbalanced' must be positive"),
    ({"unbalanced": (1.0, 2.0, 3.0)}, ShapeError, "'unbalanced' must be a number or a pair"),
    ({"unbalanced": "much"}, TypeError, "'unbalanced' must be a number or a pair"),
    ({"epsilon": 0.0}, DomainError, "'epsilon' must be"),
    ({"epsilon": math.nan}, DomainError, "'epsilon' must be"),
    ({"n_components": 0}, DomainError, "'n_components' must be"),
    ({"n_components": 28}, DomainError, "'n_components' must be at most 27, the number of rows of 'x1'"),
    ({"n_source_components": 19}, DomainError, "'n_source_components' must be at most 18, the number of rows of 'x0'"),
    ({"covariance": "tied"}, DomainError, "'covariance' must be one of"),
    ({"start": "nowhere"}, DomainError, "'start' must be one of"),
    ({"validation_fraction": 0.9}, DomainError, "'validation_fraction' must be at most 0.5"),
    ({"weights_x0": np.zeros(20)}, DomainError, "'weights_x0' must not be all zero"),
    ({"x0": np.zeros((20, 3))}, ShapeError, "must have as many columns as each other"),
    ({"x0": np.zeros(20)}, ShapeError, "'x0' must have shape (n, d)"),
    ({"x0": np.full((20, 2), np.nan)}, NotFiniteError, "'x0' must be finite"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
def test_bad_input(bad, error, message):
    rng = np.random.default_rng(0)
    good = {"x0": rng.normal(size=(20, 2)), "x1": rng.normal(size=(30, 2)), "epsilon": 0.2, "unbalanced": 1.0, "n_components": 2}  # fmt: skip
    with pytest.raises(error, match=re.escape(message)):
        fit(**{**good, **bad})


def test_bad_rows():
    rng = np.random.default_rng(0)
    plan = fit(rng.normal(size=(20, 2)), rng.normal(size=(30, 2)), epsilon=0.2, unbalanced=1.0, n_components=1, rng=0)  # fmt: skip
    for method in (plan.start_weights, plan.end_weights, plan.start_potential, plan.end_potential):
        with pytest.raises(ShapeError, match="must have 2 columns"):
            method(np.zeros((3, 4)))
    with pytest.raises(ShapeError, match="'among' must have at least one row"):
        plan.sample_starts(3, among=np.zeros((0, 2)))
    with pytest.raises(DomainError, match="'n' must be"):
        plan.sample_starts(0)
    with pytest.raises(ShapeError, match="'x0' must have at least one row"):
        plan.score(np.zeros((0, 2)), np.zeros((3, 2)))
