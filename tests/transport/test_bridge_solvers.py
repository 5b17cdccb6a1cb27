"""The solvers of light Schrödinger bridges: slopes against differences, optima against others."""

import numpy as np
import pytest

from pyprobe.transport import LightSchrodingerBridge
from pyprobe.transport._bridge_adam import batches
from pyprobe.transport._bridge_descent import Options, Watch
from pyprobe.transport._bridge_kinds import KINDS
from pyprobe.transport._bridge_lbfgs import Coordinates, polish
from pyprobe.transport._bridge_matching import drift_slopes, matching_slopes
from pyprobe.transport._bridge_model import Model, Pair, Parameters, Sample, loss, slopes

COVARIANCES = ("diag", "full", "spherical")
fit = LightSchrodingerBridge.fit


def problem(covariance, rng, n=517, dim=3, k=4):
    """Components of a kind, and two samples whose size is no multiple of a block."""
    shares = rng.random(n)
    sample = Sample(rng.normal(size=(n, dim)), shares / shares.sum())
    pair = Pair(sample, Sample(2 * rng.normal(size=(n, dim)), np.full(n, 1 / n)))
    root = rng.normal(size=(k, dim, dim))
    scales = {
        "spherical": rng.uniform(0.3, 1.3, k),
        "diag": rng.uniform(0.3, 1.3, (k, dim)),
        "full": root @ root.swapaxes(1, 2) + 0.3 * np.eye(dim),
    }[covariance]
    model = Model(KINDS[covariance], 0.4)
    return model, Parameters(rng.normal(size=k), rng.normal(size=(k, dim)), scales), pair


def changes(components, rng, h=1e-5):
    """Small changes of each kind of parameter, up and down."""
    for name in ("logits", "shifts", "scales"):
        value = getattr(components, name)
        change = rng.normal(size=value.shape)
        if change.ndim == 3:
            change = change + change.swapaxes(1, 2)
        yield (
            name,
            change,
            components._replace(**{name: value + h * change}),
            components._replace(**{name: value - h * change}),
            2 * h,
        )


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_slopes_of_the_loss_are_its_differences(covariance):
    rng = np.random.default_rng(0)
    model, components, pair = problem(covariance, rng)
    found = slopes(model, components, *pair)
    assert found.value == pytest.approx(loss(model, components, *pair), rel=1e-12)
    for name, change, up, down, width in changes(components, rng):
        slope = (loss(model, up, *pair) - loss(model, down, *pair)) / width
        assert (getattr(found, name) * change).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_slopes_in_round_coordinates_are_their_differences(covariance):
    rng = np.random.default_rng(1)
    model, components, pair = problem(covariance, rng)
    around = Coordinates(model, pair, components, rng)
    back = around.components(np.zeros(around.size))
    for value, other in zip(back, components, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-10, atol=1e-12)
    z, way = 0.1 * rng.normal(size=around.size), rng.normal(size=around.size)
    slope = (around.look(z + 1e-5 * way)[0] - around.look(z - 1e-5 * way)[0]) / 2e-5
    assert around.look(z)[1] @ way == pytest.approx(slope, rel=1e-6)


class Recorder(Watch):
    """Keeps the components of every iteration, and how far they are said to have fallen."""

    def step(self, parameters, value, fall=np.inf):
        self.__dict__.setdefault("seen", []).append((parameters, value, fall))
        return super().step(parameters, value, fall)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_every_iteration_of_lbfgs_lowers_the_penalized_loss(covariance):
    # Few rows a component, where the loss itself rises now and then.
    rng = np.random.default_rng(9)
    model, start, pair = problem(covariance, rng, n=60, k=20)
    watch = Recorder(model, None, Options(20, 0.0))
    watch.start(start, loss(model, start, *pair))
    polish(model, pair, start, watch, rng)
    assert len(watch.seen) == len(watch.losses) == 20  # one round: one penalty
    around = Coordinates(model, pair, start, rng)
    penalized = [around.look(np.zeros(around.size))[0]]
    for parameters, value, fall in watch.seen:
        assert value == pytest.approx(loss(model, parameters, *pair), rel=1e-9)
        penalized.append(value + around._penalty(parameters.scales)[0])
        assert fall == pytest.approx(penalized[-2] - penalized[-1], abs=1e-8)
    assert (np.diff(penalized) < 0).all()


@pytest.mark.filterwarnings("ignore:.*have shrunk onto single points")
@pytest.mark.filterwarnings("ignore:LightSchrodingerBridge.fit stopped")
def test_iterations_that_raise_the_loss_are_counted_and_reported():
    rng = np.random.default_rng(10)
    x0, x1 = rng.normal(size=(2, 150, 2))
    options = {"epsilon": 0.5, "n_components": 50, "validation_fraction": 0, "tol": 1e-7}
    seen = []
    info = fit(x0, 2 * x1, max_iter=100, callback=seen.append, rng=0, **options).info
    assert (np.diff(info.losses) > 0).any()  # else the rows show nothing
    assert [p.value for p in seen] == list(info.losses)
    assert info.loss == pytest.approx(info.losses.min(), abs=1e-10)


@pytest.mark.parametrize("covariance", ["diag", "spherical"])
def test_the_slopes_of_matching_are_its_differences(covariance):
    rng = np.random.default_rng(2)
    model, components, _ = problem(covariance, rng)
    x, t, v = rng.normal(size=(50, 3)), rng.uniform(0, 0.99, (50, 1)), rng.normal(size=(50, 3))
    found = drift_slopes(model, components, x, t, v)
    for name, change, up, down, width in changes(components, rng):
        values = [drift_slopes(model, moved, x, t, v).value for moved in (up, down)]
        slope = (values[0] - values[1]) / width
        assert (getattr(found, name) * change).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_matching_measures_the_drift_of_the_bridge():
    rng = np.random.default_rng(3)
    model, components, _ = problem("diag", rng)
    logits, shifts, scales = components
    bridge = LightSchrodingerBridge(
        log_weights=logits, shifts=shifts, scales=scales, epsilon=model.epsilon
    )
    x, t = rng.normal(size=(40, 3)), rng.uniform(0, 0.99, (40, 1))
    drift = bridge.drift(x, t[:, 0])
    assert drift_slopes(model, components, x, t, drift).value == pytest.approx(0, abs=1e-20)
    wrong = drift_slopes(model, components, x, t, drift + 1)
    assert wrong.value == pytest.approx(3 / (2 * model.epsilon), rel=1e-10)


@pytest.mark.statistical
def test_matching_has_the_slopes_of_the_loss(seed):
    # Theorem 3.3 of Gushchin et al. 2024: for any coupling the two differ by a constant. Times end
    # at 0.99, which leaves out a hundredth of the integral.
    rng = np.random.default_rng(4)
    model, components, pair = problem("diag", rng, n=300)
    sources = Sample(pair.sources.points, np.full(300, 1 / 300))
    exact = slopes(model, components, sources, pair.targets)
    draw, found = np.random.default_rng(seed), []
    look = matching_slopes(draw)
    for _ in range(400):
        rows = [draw.integers(300, size=1000) for _ in range(2)]
        weights = np.full(1000, 1e-3)
        batch = [Sample(s.points[i], weights) for s, i in zip(pair, rows, strict=True)]
        part = look(model, components, *batch)
        found.append(np.concatenate([v.ravel() for v in part[1:]]))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    expected = np.concatenate([v.ravel() for v in exact[1:]])
    assert (error < 0.1 * np.abs(expected).max()).all()  # small enough to tell
    assert (np.abs(mean - expected) < 5 * error + 0.03 * np.abs(expected).max()).all()


@pytest.mark.parametrize("n", [1, 100, 128, 200, 513])
def test_batches_bring_all_rows_before_any_comes_again(n):
    stream = batches(Sample(np.arange(n)[:, None], np.full(n, 1 / n)), np.random.default_rng(11))
    rows = np.concatenate([next(stream).points[:, 0] for _ in range(20)])
    for start in range(0, len(rows) - n + 1, n):
        assert set(rows[start : start + n]) == set(range(n))


def test_batches_bring_rows_as_often_as_they_weigh():
    weights = np.repeat([1.0, 3.0], 100) / 400
    stream = batches(Sample(np.arange(200)[:, None], weights), np.random.default_rng(12))
    rows = np.concatenate([next(stream).points[:, 0] for _ in range(200)])
    # The standard error of the part is 0.0027.
    assert (rows >= 100).mean() == pytest.approx(0.75, abs=0.014)


def test_matching_has_the_gaussian_bridge_as_its_optimum():
    rng = np.random.default_rng(5)
    x0, x1 = rng.normal(size=(2000, 2)), np.array([1.5, 0.5]) * rng.normal(size=(2000, 2)) + 1.0
    options = {"epsilon": 0.5, "n_components": 1, "validation_fraction": 0, "rng": 0}
    exact = fit(x0, x1, **options)
    for solver in ("adam", "matching"):
        found = fit(x0, x1, solver=solver, max_iter=200, **options)
        np.testing.assert_allclose(found.scales, exact.scales, rtol=0.05)
        np.testing.assert_allclose(found.shifts, exact.shifts, atol=0.03)
        assert found.info.solver == solver
        assert found.info.converged
        assert len(found.info.losses) == 200


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_all_solvers_find_a_known_bridge(covariance):
    rng = np.random.default_rng(6)
    truth = LightSchrodingerBridge.from_parameters(
        [0.3, 0.4, 0.3], [[-3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0.2, 0.2, 0.2], epsilon=0.5
    )
    x0, others, fresh = rng.normal(size=(3, 4000, 2))
    x1, ends = truth.sample(others, rng=rng), truth.sample(fresh, rng=rng)
    # The start leaves all to the solver: it is 3 nats off.
    options = {"epsilon": 0.5, "n_components": 8, "covariance": covariance, "start": "broad"}
    for solver in ("em", "lbfgs", "adam", "matching"):
        if (solver, covariance) == ("matching", "full"):
            continue
        excess = []
        # Matching sees the rows with more noise, of its own: one fit of it says little.
        for seed in range(3 if solver == "matching" else 1):
            options |= {"rng": seed, "max_iter": 40 if solver != "em" else 200}
            bridge = fit(x0, x1, solver=solver, **options)
            assert bridge.info.solver == solver
            log_prob = bridge.log_prob(ends, given=fresh)
            excess.append((truth.log_prob(ends, given=fresh) - log_prob).mean())
        # Nats; 40 parameters over twice the rows are 0.005.
        assert np.mean(excess) < (0.05 if solver == "matching" else 0.02)


def test_one_full_component_by_lbfgs_is_the_gaussian_bridge():
    rng = np.random.default_rng(7)
    x0, x1 = (rng.normal(size=(n, 3)) @ rng.normal(size=(3, 3)) for n in (500, 400))
    options = {"epsilon": 0.3, "n_components": 1, "covariance": "full", "validation_fraction": 0}
    exact = fit(x0, x1, **options)
    found = fit(x0, x1, solver="lbfgs", tol=1e-12, **options)
    np.testing.assert_allclose(found.scales, exact.scales, atol=1e-4)
    np.testing.assert_allclose(found.shifts, exact.shifts, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*have shrunk onto single points")
def test_little_noise_is_annealed_and_other_starts_come_apart_too():
    # From a cloud to a curve: components whose cells vanish early would be lost for good.
    rng = np.random.default_rng(8)
    x0 = rng.normal(size=(6000, 2))
    angle = rng.uniform(0, 3 * np.pi, 6000)
    x1 = 0.2 * angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x1 += 0.05 * rng.normal(size=(6000, 2))
    options = {"epsilon": 0.002, "rng": 0}
    single = fit(x0, x1, n_components=1, **options)
    found = fit(x0, x1, n_components=40, **options)
    assert found.info.start == "annealed"
    shares = np.bincount(found.conditional(x0).weights.argmax(1), minlength=40)
    assert (shares > 0).mean() > 0.8
    gain = single.info.validation_loss - found.info.validation_loss
    for start in ("kmeans", "broad"):
        other = fit(x0, x1, n_components=40, start=start, **options)
        # A start beside the bridge of one component must not end there.
        assert single.info.validation_loss - other.info.validation_loss > 0.5 * gain
