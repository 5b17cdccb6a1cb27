# ruff: noqa: E501 - one case a line
"""The fit of light Schrödinger bridges, against closed forms and bridges that are known."""

import re
import warnings

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
from pyprobe.transport import LightSchrodingerBridge, suggest_epsilon

COVARIANCES = ("diag", "full", "spherical")
fit = LightSchrodingerBridge.fit


def correlated(rng, n, dim, scale=1.0):
    """Normal draws with axes of different lengths, turned."""
    root = rng.normal(size=(dim, dim)) / np.sqrt(dim) + np.eye(dim)
    return scale * rng.normal(size=(n, dim)) @ root


def known(dim, epsilon, n, rng, n_modes=5, scales=None):
    """Draws of a bridge from N(0, I / 4) to modes on a sphere of radius 5, and the bridge itself.

    Gushchin et al. 2023, section 4: the plain potential is a mixture of N(mu, I / 16).
    """
    mu = rng.normal(size=(n_modes, dim))
    mu *= 5 / np.linalg.norm(mu, axis=1, keepdims=True)
    width = 1 / 16
    shifts = epsilon / (1 + epsilon / width) / width * mu
    truth = LightSchrodingerBridge(
        log_weights=-0.5 * (mu**2).sum(1) / (width + epsilon),
        shifts=shifts,
        scales=np.full(n_modes, 1 / (1 + epsilon / width)) if scales is None else scales,
        epsilon=epsilon,
    )
    x0 = 0.5 * rng.normal(size=(n, dim))
    return x0, truth.sample(0.5 * rng.normal(size=(n, dim)), rng=rng), truth


def interrupt(_progress):
    raise KeyboardInterrupt


def divergence(truth, found, dim, rng, n=4000):
    """KL(truth | found), by draws: its mean and the standard error."""
    x0 = 0.5 * rng.normal(size=(n, dim))
    x1 = truth.sample(x0, rng=rng)
    excess = truth.log_prob(x1, given=x0) - found.log_prob(x1, given=x0)
    return excess.mean(), excess.std() / np.sqrt(n)


@pytest.mark.parametrize("horizon", [1.0, 2.5])
def test_one_full_component_is_the_gaussian_bridge(horizon):
    # Janati et al. 2020: with A and B the covariances and s2 = epsilon T, the cross-covariance is
    # (A^1/2 (4 A^1/2 B A^1/2 + s2^2 I)^1/2 A^-1/2 - s2 I) / 2.
    rng = np.random.default_rng(0)
    x0, x1 = correlated(rng, 500, 4) + 3.0, correlated(rng, 400, 4, 2.0) - 1.0
    bridge = fit(
        x0,
        x1,
        epsilon=0.3,
        horizon=horizon,
        n_components=1,
        covariance="full",
        validation_fraction=0,
    )
    s2 = 0.3 * horizon
    a, b = np.cov(x0.T, bias=True), np.cov(x1.T, bias=True)
    root = scipy.linalg.sqrtm(a)
    inner = scipy.linalg.sqrtm(4 * root @ b @ root + s2**2 * np.eye(4))
    cross = (root @ inner @ np.linalg.inv(root) - s2 * np.eye(4)) / 2
    np.testing.assert_allclose(a @ bridge.scales[0], cross, atol=1e-10)
    np.testing.assert_allclose(bridge.origin, x0.mean(0), atol=1e-12)
    np.testing.assert_allclose(bridge.shifts[0], x1.mean(0), atol=1e-10)
    assert bridge.info.converged
    assert bridge.horizon == horizon


@pytest.mark.parametrize("covariance", ["diag", "spherical"])
def test_one_component_solves_its_own_quadratic(covariance):
    rng = np.random.default_rng(1)
    x0, x1 = correlated(rng, 300, 3), correlated(rng, 200, 3, 0.3)
    bridge = fit(x0, x1, epsilon=0.7, n_components=1, covariance=covariance, validation_fraction=0)
    c0, c1 = x0.var(0), x1.var(0)
    if covariance == "spherical":
        c0, c1 = c0.mean(), c1.mean()
    s = bridge.scales[0]
    np.testing.assert_allclose(s * c0 * s + 0.7 * s, c1, rtol=1e-10)


@pytest.mark.parametrize(("dim", "epsilon"), [(2, 0.1), (2, 1.0), (16, 1.0)])
def test_a_known_bridge_is_found(dim, epsilon):
    rng = np.random.default_rng(2)
    x0, x1, truth = known(dim, epsilon, 20_000, rng)
    bridge = fit(x0, x1, epsilon=epsilon, n_components=20, rng=0)
    value, error = divergence(truth, bridge, dim, rng)
    # 20 components of 2 d + 1 parameters: half of them over n, where all are fitted as well as any.
    assert value < 20 * (2 * dim + 1) / (2 * 20_000) + 3 * error
    assert bridge.info.validation_loss == pytest.approx(bridge.info.loss, abs=0.5)


def test_full_scales_turn_the_axes():
    rng = np.random.default_rng(3)
    turns = [np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(3)]
    scales = np.stack([q @ np.diag([0.02, 0.1, 0.3, 0.8]) @ q.T for q in turns])
    x0, x1, truth = known(4, 1.0, 10_000, rng, 3, scales)
    values = {
        kind: divergence(
            truth, fit(x0, x1, epsilon=1.0, n_components=6, covariance=kind, rng=0), 4, rng
        )[0]
        for kind in COVARIANCES
    }
    assert values["full"] < 0.02
    assert values["full"] < 0.1 * values["diag"] < 0.1 * values["spherical"]


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("start", ["broad", "kmeans"])
def test_every_iteration_is_reported_and_the_shares_agree(covariance, start):
    rng = np.random.default_rng(4)
    x0, x1, _ = known(3, 0.5, 2000, rng)
    seen = []
    bridge = fit(
        x0,
        x1,
        epsilon=0.5,
        n_components=8,
        covariance=covariance,
        start=start,
        validation_fraction=0,
        max_iter=200,
        tol=1e-4,
        rng=0,
        callback=seen.append,
    )
    assert [p.step for p in seen] == list(range(1, bridge.info.n_iter + 1))
    assert [p.value for p in seen] == list(bridge.info.losses)
    assert bridge.info.loss == pytest.approx(bridge.info.losses.min(), abs=1e-10)
    assert bridge.info.start == start
    assert bridge.info.converged
    assert bridge.info.mass_gap < 5e-3
    assert bridge.info.loss == pytest.approx(-bridge.score(x0, x1), abs=1e-8)
    assert bridge.info.validation_loss is None


def clusters(rng, n=3000, dim=30):
    """Draws around six places, and around the same ones further out; and the places."""
    centres = 2 * rng.normal(size=(6, dim))
    x0, x1 = (
        scale * centres[rng.integers(6, size=n)] + 0.3 * rng.normal(size=(n, dim))
        for scale in (1.0, 1.2)
    )
    return x0, x1, centres


@pytest.mark.filterwarnings("ignore:LightSchrodingerBridge.fit stopped")
# Ten components for six clusters: those too many may end on single rows.
@pytest.mark.filterwarnings("ignore:[0-9]+ components:pyprobe.errors.NumericalWarning")
@pytest.mark.parametrize("start", ["broad", "kmeans"])
@pytest.mark.parametrize("seed", range(5))
def test_components_do_not_merge_where_the_noise_is_small(start, seed):
    # Far apart at little noise, components win and lose everything with small changes of weight:
    # without care, one of them gets all. And the held-out loss of the first iterations says little.
    x0, x1, centres = clusters(np.random.default_rng(5 + seed))
    single = fit(x0, x1, epsilon=0.2, n_components=1, rng=0).score(x0, x1)
    # Each cluster's own Gaussian bridge, with the weights fitted: what six components can do.
    scale = (np.sqrt(0.2**2 + 4 * 0.3**4) - 0.2) / (2 * 0.3**2)
    known = LightSchrodingerBridge.from_parameters(
        np.full(6, 1 / 6), (1.2 - scale) * centres, np.full(6, scale), epsilon=0.2
    )
    gain = fit(x0, x1, epsilon=0.2, start=known, validation_fraction=0).score(x0, x1) - single
    bridge = fit(x0, x1, epsilon=0.2, n_components=10, start=start, rng=seed)
    assert bridge.score(x0, x1) - single > 0.5 * gain > 5


@pytest.mark.filterwarnings("ignore:LightSchrodingerBridge.fit stopped")
@pytest.mark.parametrize("start", ["broad", "kmeans"])
def test_a_start_is_drawn_towards_the_single_bridge(start):
    # Skewed and correlated, without clusters: from the starts themselves all components become one.
    rng = np.random.default_rng(5)
    x0, x1 = (
        2 * rng.gamma(1.0, size=(3000, 30)) @ (rng.normal(size=(30, 30)) / np.sqrt(30))
        for _ in range(2)
    )
    losses = [
        fit(x0, x1, epsilon=0.2, n_components=k, start=start, max_iter=30, rng=0).info
        for k in (1, 10)
    ]
    assert losses[1].validation_loss < losses[0].validation_loss - 10


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_it_matters_neither_where_the_samples_lie_nor_in_which_unit(covariance):
    rng = np.random.default_rng(6)
    x0, x1, _ = known(3, 0.5, 600, rng)
    options = {"n_components": 5, "covariance": covariance, "rng": 0}
    bridge = fit(x0, x1, epsilon=0.5, **options)
    moved = fit(x0 + 1e4, x1 - 1e4, epsilon=0.5, **options)
    scaled = fit(1e3 * x0, 1e3 * x1, epsilon=0.5e6, **options)
    y = x0[:20]
    mean = bridge.mean(y)
    np.testing.assert_allclose(moved.mean(y + 1e4) + 1e4, mean, atol=1e-6)
    np.testing.assert_allclose(scaled.mean(1e3 * y) / 1e3, mean, atol=1e-8)
    # Offsets of 1e4 in float32 leave the data 1e-3 of their digits: as rounded here, they decide.
    far0, far1 = (x0 + 1e4).astype(np.float32), (x1 - 1e4).astype(np.float32)
    single = fit(far0, far1, epsilon=0.5, **options)
    near = fit(far0.astype(float) - 1e4, far1.astype(float) + 1e4, epsilon=0.5, **options)
    np.testing.assert_allclose(single.mean(y + 1e4) + 1e4, near.mean(y), atol=1e-6)


def test_weights_stand_for_repeated_rows():
    rng = np.random.default_rng(7)
    x0, x1 = correlated(rng, 60, 2), correlated(rng, 50, 2, 2.0)
    times = rng.integers(0, 4, size=60), rng.integers(0, 4, size=50)
    options = {"epsilon": 0.4, "n_components": 1, "covariance": "full", "validation_fraction": 0}
    weighted = fit(x0, x1, weights_x0=times[0], weights_x1=10.0 * times[1], **options)
    repeated = fit(np.repeat(x0, times[0], 0), np.repeat(x1, times[1], 0), **options)
    np.testing.assert_allclose(weighted.scales, repeated.scales, rtol=1e-9)
    np.testing.assert_allclose(weighted.shifts, repeated.shifts, rtol=1e-9)


def test_little_noise_tends_to_the_optimal_map_and_much_to_independence():
    rng = np.random.default_rng(8)
    x0, x1 = correlated(rng, 400, 3), correlated(rng, 400, 3, 2.0) + 1.0
    options = {"n_components": 1, "covariance": "full", "validation_fraction": 0}
    x0, x1 = x0 / x0.std(0), x1 / x1.std(0)
    sharp = fit(x0, x1, epsilon=1e-3, **options)
    a, b = np.cov(x0.T, bias=True), np.cov(x1.T, bias=True)
    root = scipy.linalg.sqrtm(a)
    inverse = np.linalg.inv(root)
    bures = inverse @ scipy.linalg.sqrtm(root @ b @ root) @ inverse
    # They differ by epsilon / 2 times the inverse of A, to first order.
    np.testing.assert_allclose(root @ (bures - sharp.scales[0]) @ root, 5e-4 * np.eye(3), atol=1e-5)
    blurred = fit(x0, x1, epsilon=900.0, **options)
    assert np.ptp(blurred.mean(x0), axis=0).max() < 0.1


@pytest.mark.parametrize("options", [{}, {"start": "annealed"}, {"solver": "adam", "max_iter": 3}])
def test_a_seed_gives_the_same_bits_for_any_number_of_threads(options):
    rng = np.random.default_rng(9)
    x0, x1, _ = known(4, 0.5, 3000, rng)
    before, found = pyprobe.get_num_threads(), []
    try:
        for n in (1, 2):
            pyprobe.set_num_threads(n)
            found.append(fit(x0, x1, epsilon=0.5, n_components=12, rng=3, **options))
    finally:
        pyprobe.set_num_threads(before)
    for name in ("log_weights", "shifts", "scales"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
    other = fit(x0, x1, epsilon=0.5, n_components=12, rng=4, **options)
    assert not np.array_equal(other.shifts, found[0].shifts)


def test_the_best_of_several_starts_is_kept():
    rng = np.random.default_rng(10)
    x0, x1, _ = known(3, 0.2, 800, rng)
    options = {"epsilon": 0.2, "n_components": 4, "validation_fraction": 0, "tol": 1e-3}
    many = fit(x0, x1, n_init=4, rng=0, **options)
    assert many.info.loss <= fit(x0, x1, n_init=1, rng=0, **options).info.loss + 1e-9


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_few_and_repeated_rows_are_no_reason_to_fail(covariance):
    rng = np.random.default_rng(11)
    x0, x1 = rng.normal(size=(30, 2)), np.repeat(rng.normal(size=(6, 2)), 5, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        bridge = fit(
            x0,
            x1,
            epsilon=0.01,
            n_components=20,
            covariance=covariance,
            validation_fraction=0,
            tol=1e-3,
        )
    assert np.isfinite(bridge.sample(x0, rng=0)).all()
    assert np.isfinite(bridge.log_prob(x1, given=x0)).all()


@pytest.mark.parametrize("n_rows", [300, 600, 2000])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_two_clusters_are_told_apart_however_few_the_rows(n_rows, covariance):
    # Beside the bridge of one component lies a saddle: a fit that begins there sees no way down.
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x0 = rng.normal(size=(n_rows, 2))
        x1 = 0.3 * rng.normal(size=(n_rows, 2))
        x1[:, 0] += rng.choice([-2.0, 2.0], n_rows)
        bridge = fit(x0, x1, epsilon=0.5, covariance=covariance, rng=seed)
        between = np.abs(bridge.sample(x0, rng=0)[:, 0]) < 1
        assert between.mean() < 0.02


def test_clusters_in_many_dimensions_are_more_than_one_component():
    # Two in each of ten coordinates: the gain that a fit of enough components must make is large.
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=(5000, 10))
    x1 = 0.5 * rng.normal(size=(5000, 10)) + rng.choice([-1.0, 1.0], size=(5000, 10))
    one, many = (fit(x0, x1, epsilon=0.5, n_components=n, rng=0).score(x0, x1) for n in (1, 50))
    assert many > one + 0.5


def test_held_out_rows_stop_a_fit_that_would_only_learn_its_rows():
    # 50 components for 150 rows: with all rows fitted to the end it is about 1.
    rng = np.random.default_rng(12)
    x0, x1, truth = known(2, 0.5, 150, rng)
    bridge = fit(x0, x1, epsilon=0.5, n_components=50, rng=0)
    assert divergence(truth, bridge, 2, rng)[0] < 0.2


@pytest.mark.filterwarnings("ignore:[0-9]+ components:pyprobe.errors.NumericalWarning")
@pytest.mark.parametrize("start", ["broad", "kmeans"])
def test_the_noise_of_the_held_out_rows_does_not_end_a_fit(start):
    # With little noise between clusters 300 rows tell a loss to several nats: where it rises on
    # them by less than that, while it falls by as much on the others, it has not risen.
    x0, x1, _ = clusters(np.random.default_rng(7))
    options = {"epsilon": 0.2, "n_components": 10, "start": start, "rng": 2}
    bridge = fit(x0, x1, **options)
    whole = fit(x0, x1, validation_fraction=0, max_iter=100, tol=1e-2, **options)
    single = fit(x0, x1, epsilon=0.2, n_components=1, rng=0)
    gain = whole.score(x0, x1) - single.score(x0, x1)
    assert bridge.score(x0, x1) - single.score(x0, x1) > 0.9 * gain > 15


def test_a_fit_with_half_the_noise_starts_from_one_that_is_done():
    rng = np.random.default_rng(19)
    x0, x1 = rng.normal(size=(2, 3000, 2))
    x1 = np.abs(x1) ** 1.5 * np.sign(x1) + 1.0
    options = {"n_components": 20, "validation_fraction": 0, "tol": 1e-3, "rng": 0}
    first = fit(x0, x1, epsilon=0.4, horizon=0.5, **options)
    fresh = fit(x0, x1, epsilon=0.1, **options)
    warm = fit(x0, x1, epsilon=0.1, start=first, **options)
    assert warm.info.start == "given"
    # Which of the two ends lower is chance; the other needs more than twice as many steps to here.
    assert 2 * warm.info.n_iter < fresh.info.n_iter
    assert warm.info.loss < fresh.info.losses[2 * warm.info.n_iter - 1]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_bridge_to_start_from_is_taken_as_it_is(covariance):
    # From the truth, counted from elsewhere, one iteration gains what the sample is off by.
    rng = np.random.default_rng(20)
    x0, x1, truth = known(3, 0.5, 4000, rng)
    origin = np.ones((1, 3))
    law = truth.conditional(origin)
    with np.errstate(divide="ignore"):
        start = LightSchrodingerBridge(
            log_weights=np.append(np.log(law.weights[0]), -np.inf),
            shifts=np.vstack([law.locs[0], np.ones(3)]),
            scales=np.append(truth.scales, 1.0),
            epsilon=0.5,
            origin=origin[0],
        )
    np.testing.assert_allclose(start.mean(x0), truth.mean(x0), atol=1e-9)
    options = {"epsilon": 0.5, "covariance": covariance, "validation_fraction": 0}
    bridge = fit(x0, x1, start=start, tol=10.0, **options)
    assert bridge.n_components == 5  # what has no weight is left out
    assert 0 < -truth.score(x0, x1) - bridge.info.losses[0] < 0.05


def test_a_callback_sees_the_loss_and_may_end_the_fit():
    rng = np.random.default_rng(13)
    x0, x1, _ = known(3, 0.5, 1000, rng)
    seen = []

    def watch(progress):
        seen.append(progress)
        return len(seen) == 2

    options = {"n_components": 8, "validation_fraction": 0, "start": "broad", "rng": 0}
    bridge = fit(x0, x1, epsilon=0.5, callback=watch, **options)
    assert [p.step for p in seen] == [1, 2]
    assert seen[-1].total == 200
    assert bridge.info.stopped
    assert not bridge.info.converged
    assert bridge.info.n_iter == 2
    assert seen[-1].value == bridge.info.losses[-1]


@pytest.mark.filterwarnings("ignore:LightSchrodingerBridge.fit stopped")
def test_the_trials_of_starts_are_reported_and_may_be_ended():
    rng = np.random.default_rng(25)
    x0, x1, _ = known(3, 0.5, 1000, rng)
    options = {"epsilon": 0.5, "n_components": 5, "rng": 0}
    seen = []
    bridge = fit(x0, x1, callback=seen.append, **options)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert {p.total for p in seen} == {200 + 4 * 20}  # two starts, twice each
    assert np.isfinite([p.value for p in seen]).all()
    assert bridge.info.n_iter < len(seen) <= bridge.info.n_iter + 4 * 20
    for last in (1, len(seen) - bridge.info.n_iter):  # within the first trial, and the last one
        few = []
        ended = fit(x0, x1, callback=lambda p, few=few, n=last: few.append(p) or p.step == n, **options)  # fmt: skip
        assert len(few) == last
        assert ended.info.stopped
        assert ended.info.n_iter == 0
        assert np.isfinite(ended.mean(x0)).all()

    with pytest.raises(KeyboardInterrupt):
        fit(x0, x1, callback=interrupt, **options)


@pytest.mark.filterwarnings("ignore:LightSchrodingerBridge.fit stopped")
def test_annealing_is_reported_and_may_be_ended():
    rng = np.random.default_rng(24)
    x0, x1 = rng.normal(size=(2, 400, 2))
    options = {"epsilon": 0.004, "n_components": 4, "start": "annealed", "n_init": 2, "rng": 0}
    seen = []
    bridge = fit(x0, x1, callback=seen.append, max_iter=5, tol=0.0, **options)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert {p.total for p in seen} == {2 * (5 + 60)}
    assert np.isfinite([p.value for p in seen]).all()
    assert bridge.info.n_iter == 5
    assert len(seen) == 2 * (5 + 60)
    few = []
    ended = fit(x0, x1, callback=lambda p: few.append(p) or len(few) == 3, **options)
    assert few[-1].step == len(few) == 3
    assert ended.info.stopped
    assert not ended.info.converged
    assert ended.info.n_iter == 0
    assert np.isfinite(ended.mean(x0)).all()

    # Early in the second of two starts: the first is the better.
    late = fit(x0, x1, callback=lambda p: p.step == 66, max_iter=5, tol=0.0, **options)
    assert late.info.stopped
    assert late.info.n_iter == 5

    with pytest.raises(KeyboardInterrupt):
        fit(x0, x1, callback=interrupt, **options)


def test_what_is_not_to_be_trusted_is_said():
    rng = np.random.default_rng(14)
    x0, x1, _ = known(3, 0.5, 500, rng)
    with pytest.warns(
        ConvergenceWarning, match=r"stopped after 1 iterations.*Raise max_iter or tol"
    ):
        fit(x0, x1, epsilon=0.5, n_components=8, validation_fraction=0, max_iter=1, rng=0)
    with pytest.warns(
        NumericalWarning, match=r"'epsilon' times 'horizon' = 1e\+06 .* the noise alone"
    ):
        fit(x0, x1, epsilon=1e6, n_components=2, rng=0)
    with pytest.warns(NumericalWarning, match="nearly deterministic"):
        fit(x0, x1, epsilon=1e-6, n_components=1, rng=0)
    line = x1[:, :1] * np.ones(3)
    with pytest.warns(
        NumericalWarning, match=r"1 components \(0\) have shrunk onto single points of 'x1'"
    ):
        fit(x0, line, epsilon=0.5, n_components=1, covariance="full", rng=0)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_columns_that_do_not_vary_are_said_once(covariance):
    rng = np.random.default_rng(15)
    x0, x1, _ = known(3, 0.5, 500, rng)
    options = {"epsilon": 0.5, "n_components": 3, "covariance": covariance, "rng": 0}
    x0 = np.where(np.arange(3) == 2, -1.0, x0)
    flat = np.where(np.arange(3) == 1, 2.0, x1)
    for ends, message in (
        (flat, "'x0' is constant in column 2 and 'x1' is constant in column 1: .*Leave such"),
        (x1, "^'x0' is constant in column 2: "),
    ):
        with pytest.warns(NumericalWarning, match=message) as caught:
            bridge = fit(x0, ends, **options)
        assert len(caught) == 1
        mean = bridge.mean(x0)
        assert np.isfinite(mean).all()
        if ends is flat and covariance != "spherical":
            np.testing.assert_allclose(mean[:, 1], 2.0, atol=1e-2)


def test_as_many_components_as_rows_and_rows_that_nearly_agree_are_no_reason_to_fail():
    rng = np.random.default_rng(16)
    x0, x1 = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    near = np.repeat(x1[:4], 5, axis=0) * (1 + 1e-12 * rng.normal(size=(20, 2)))
    for ends in (x1, near):
        for covariance in COVARIANCES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumericalWarning)
                bridge = fit(
                    x0,
                    ends,
                    epsilon=0.1,
                    n_components=20,
                    covariance=covariance,
                    validation_fraction=0,
                    tol=1e-3,
                    rng=0,
                )
            assert np.isfinite(bridge.mean(x0)).all()
            assert np.isfinite(bridge.score(x0, ends))


def test_more_components_never_fit_the_rows_worse():
    rng = np.random.default_rng(17)
    x0, x1, _ = known(2, 0.5, 2000, rng)
    losses = [
        fit(x0, x1, epsilon=0.5, n_components=k, validation_fraction=0, n_init=3, rng=0).info.loss
        for k in range(1, 6)
    ]
    assert (np.diff(losses) < 1e-4).all()
    assert losses[4] < losses[0] - 1


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(18)
    x0, x1, truth = known(3, 0.5, 700, rng)
    begin = LightSchrodingerBridge(
        log_weights=truth.log_weights,
        shifts=truth.shifts + 0.1,
        scales=np.full((5, 3), 0.3),
        epsilon=0.5,
    )
    options = {"epsilon": 0.5, "start": begin, "validation_fraction": 0, "tol": 1e-9}
    one = fit(x0, x1, **options)
    other = fit(rng.permutation(x0), rng.permutation(x1), **options)
    assert one.info.loss == pytest.approx(other.info.loss, abs=1e-7)
    np.testing.assert_allclose(one.mean(x0), other.mean(x0), atol=1e-3)


def test_by_default_there_are_at_most_as_many_components_as_fitted_rows():
    rng = np.random.default_rng(21)
    x0, x1 = rng.normal(size=(2, 40, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        assert fit(x0, x1, epsilon=0.5, rng=0).n_components == 36
        weights = np.arange(40) < 30
        assert fit(x0, x1, weights_x1=weights, epsilon=0.5, rng=0).n_components == 27


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_ends_at_a_single_point_are_flagged(covariance):
    rng = np.random.default_rng(22)
    with (
        pytest.warns(NumericalWarning, match="'x1' is constant in column 0, 1"),
        pytest.warns(NumericalWarning, match=r"1 components \(0\) have shrunk"),
    ):
        bridge = fit(
            rng.normal(size=(50, 2)),
            np.ones((9, 2)),
            epsilon=0.5,
            n_components=1,
            covariance=covariance,
        )
    assert list(bridge.info.collapsed) == [0]


def test_the_noise_is_compared_with_the_mean_variance_of_the_samples():
    rng = np.random.default_rng(23)
    x0, x1 = rng.normal(size=(500, 3)), 3 * rng.normal(size=(500, 3))
    variance = (x0.var(0).mean() + x1.var(0).mean()) / 2
    with pytest.warns(
        NumericalWarning,
        match=re.escape(f"mean variance of the samples in a coordinate ({variance:.3g})"),
    ):
        fit(x0, x1, epsilon=3e3 * variance, n_components=1)


@pytest.mark.parametrize(("scale", "value"), [(1e200, "inf"), (1e-200, "0")])
def test_no_epsilon_is_suggested_beyond_float64(scale, value):
    rows = scale * np.array([[0.0], [1.0]])
    message = f"squared distances.*that float64 holds; their mean comes out as {value}"
    with pytest.raises(DomainError, match=message):
        suggest_epsilon(rows, rows, fraction=0.1)


GIVEN = LightSchrodingerBridge.from_parameters(
    [0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], np.ones((2, 2)), epsilon=1.0
)
X0, X1 = np.zeros((5, 2)) + np.arange(5.0)[:, None], np.ones((6, 2)) * np.arange(6.0)[:, None]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"x0": X0[:, 0]},
            ShapeError,
            r"'x0' must have shape \(n, d\), one point a row; got \(5,\)\. For points on a line pass x0\[:, None\]\.",
        ),
        ({"x1": X1[:1]}, ShapeError, "'x1' must hold two points or more; got 1."),
        (
            {"x1": X1[:, :1]},
            ShapeError,
            r"'x0' and 'x1' must have as many columns as each other; got shapes \(5, 2\) and \(6, 1\)\.",
        ),
        ({"x0": np.where(X0 > 3, np.nan, X0)}, NotFiniteError, "'x0' must be finite"),
        ({"epsilon": 0.0}, DomainError, "'epsilon' must be finite and positive; got 0.0."),
        (
            {"n_components": 7},
            DomainError,
            "'n_components' must be at most 6, the number of rows of 'x1' that are fitted; got 7. Take fewer components.",
        ),
        ({"covariance": "tied"}, DomainError, "'covariance' must be"),
        ({"start": "random"}, DomainError, "'start' must be"),
        ({"solver": "sgd"}, DomainError, "'solver' must be"),
        (
            {"solver": "matching", "covariance": "full"},
            DomainError,
            "'solver' must not be 'matching' with full scales; take covariance='diag' or 'spherical', or another solver.",
        ),
        (
            {"start": GIVEN, "n_components": 3},
            DomainError,
            "'n_components' must be 2, as 'start' has them; got 3. Leave it out.",
        ),
        (
            {"start": GIVEN, "n_init": 2},
            DomainError,
            "'n_init' must be 1 where 'start' is a bridge, which draws nothing; got 2.",
        ),
        (
            {"start": GIVEN, "covariance": "spherical"},
            DomainError,
            "'start' must have scales of the form of 'covariance', 'spherical', or a simpler one; got 'diag'. Pass covariance='diag'.",
        ),
        (
            {"start": GIVEN, "x0": X0[:, :1], "x1": X1[:, :1]},
            ShapeError,
            "'start' must have the dimension of the samples, 1; got one of 2.",
        ),
        (
            {"validation_fraction": 0.7},
            DomainError,
            "'validation_fraction' must be at most 0.5; got 0.7.",
        ),
        (
            {"weights_x0": [-1, 1, 1, 1, 1]},
            DomainError,
            "'weights_x0' must be nonnegative; got -1.0 at index 0.",
        ),
        ({"weights_x1": np.zeros(6)}, DomainError, "'weights_x1' must not be all zero."),
        (
            {"x0": np.ones((5, 2)), "x1": np.ones((5, 2))},
            DomainError,
            "'x0' and 'x1' must hold rows that differ; all are equal.",
        ),
        (
            {"weights_x0": [1, 0, 0, 0, 0]},
            DomainError,
            "'weights_x0' must be positive for two rows of 'x0' or more; got one. Give more rows weight, or leave it out.",
        ),
        (
            {"weights_x1": [1, 0, 0, 0, 0, 0]},
            DomainError,
            "'weights_x1' must be positive for two rows of 'x1' or more; got one.",
        ),
        (
            {"x1": X1[:2], "n_components": 1, "validation_fraction": 0.1},
            ShapeError,
            "'x1' must keep two rows or more beside those held out; got 2 with weight, of which 1 would be held out. Pass validation_fraction=0, or more rows.",
        ),
        (
            {"weights_x0": [1, 1, 0, 0, 0], "validation_fraction": 0.1},
            ShapeError,
            "'x0' must keep two rows or more beside those held out; got 2 with weight",
        ),
        (
            {"epsilon": 1e200},
            DomainError,
            "'epsilon' times 'horizon' must be from 1e-100 to 1e+100 times the mean variance of the samples in a coordinate, 2.46; got 1e+200. See suggest_epsilon.",
        ),
        ({"epsilon": 1e-320}, DomainError, "'epsilon' times 'horizon' must be from 1e-100"),
        ({"horizon": 1e200, "epsilon": 1e200}, DomainError, "2.46; got inf."),
        (
            {"x0": 1e300 * X0, "x1": 1e300 * X1},
            DomainError,
            "'x0' and 'x1' must have a variance from 1e-280 to 1e+280, within what float64 holds; got inf. Bring them to another unit, and 'epsilon' to its square.",
        ),
        (
            {"x0": 1e-200 * X0, "x1": 1e-200 * X1},
            DomainError,
            "'x0' and 'x1' must have a variance from 1e-280 to 1e+280, within what float64 holds; got 0.",
        ),
        ({"max_iter": 0}, DomainError, "'max_iter' must be"),
        ({"callback": 3}, TypeError, "'callback' must be a function of one Progress"),
    ],
)
def test_what_a_fit_cannot_use_is_said(change, error, message):
    arguments = {
        "x0": X0,
        "x1": X1,
        "epsilon": 0.5,
        "n_components": 2,
        "validation_fraction": 0.0,
    } | change
    with pytest.raises(error, match=message if "\\" in message else re.escape(message)):
        fit(arguments.pop("x0"), arguments.pop("x1"), **arguments)
