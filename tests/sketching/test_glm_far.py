"""Coresets of generalized linear models far from the mode: they fall, and draws do not notice."""

import numpy as np
import pytest
from glm_problems import log_likelihood, near, problem

from pyprobe.sketching import GLMCoreset
from pyprobe.sketching._glm_data import cumulant


@pytest.mark.parametrize("family", ["logistic", "poisson"])
@pytest.mark.parametrize("n_samples", [20, 100])
def test_far_off_the_log_likelihood_falls_for_ever_in_every_direction(family, n_samples):
    x, y = problem(family)
    coreset = GLMCoreset.fit(x, y, family=family, n_samples=n_samples, rng=0)
    assert (coreset.weights > 1).all()
    directions = near(coreset, 100) - coreset.center
    precision = -coreset.center_hessian
    directions /= np.sqrt(((directions @ precision) * directions).sum(axis=1))[:, None]
    radii = np.geomspace(1.0, 1e6, 200)[:, None, None]
    thetas = coreset.center + radii * directions
    values = coreset.log_likelihood(thetas)
    assert values.max() < coreset.log_likelihood(coreset.center)
    assert (np.diff(values, axis=0) < 0).all()
    assert ((coreset.gradient(thetas) * directions).sum(axis=2) < 0).all()
    # In the end the curvature is that of all rows, 1 in standard units.
    np.testing.assert_allclose(values[-1] / -5e11, 1, rtol=1e-2)
    curvature = coreset.hessian(thetas[-1])
    across = np.abs(directions @ coreset.x.T) * 1e6 > 1.0  # in every eta beyond any reach
    found = np.einsum("ki,kij,kj->k", directions, curvature, directions)
    assert across.all(axis=1).sum() > 50
    np.testing.assert_allclose(found[across.all(axis=1)], -1, rtol=1e-9)


@pytest.mark.parametrize("family", ["logistic", "poisson"])
def test_a_remainder_goes_on_along_its_tangent_beyond_its_reach(family):
    # Rows that are all the same: the sample is one row with the sum of its weights.
    x, y = problem(family, n=400, d=1)
    coreset = GLMCoreset.fit(x, y, family=family, n_samples=40, rng=0)
    weight, eta = coreset.weights.sum(), coreset.center
    width = (-coreset.center_hessian[0, 0]) ** -0.5  # of eta, as x = 1
    slope, curvature, third = (cumulant(family, eta, k)[0] for k in (1, 2, 3))
    # All rows are the same: the expected error is that of their number, to leading order.
    error = np.sqrt(400 * (400 / 40 - 1)) * abs(third) * width**3 / 2
    assert coreset.info.expected_error == pytest.approx(error, rel=0.05)
    reach = np.clip(1 / (2 * coreset.info.expected_error), 4, 20) * width

    def remainder(t):
        value = (cumulant(family, eta + t, 0) - cumulant(family, eta, 0))[0]
        return slope * t + curvature * t**2 / 2 - value

    for t in np.array([-3, -1.01, -0.99, -0.3, 0.3, 0.99, 1.01, 3]) * reach:
        end = np.clip(t, -reach, reach)
        slope_there = slope + curvature * end - cumulant(family, eta + end, 1)[0]
        expected = coreset.center_value - t**2 / width**2 / 2
        expected += weight * (remainder(end) + slope_there * (t - end))
        found = coreset.log_likelihood(coreset.center + t)
        assert found == pytest.approx(expected + coreset.center_gradient[0] * t, rel=1e-9)


def test_the_reach_is_out_of_the_way_of_draws_and_of_rows_kept_for_certain():
    x, y = problem("logistic", n=5000)
    rare = np.zeros((5000, 1))
    rare[:8, 0] = 1
    x, y = np.hstack([x, rare]), np.where(np.arange(5000) < 8, np.arange(5000) != 6, y)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=200, prior_precision=0.1, rng=0)
    thetas = near(coreset, 10_000)
    delta = thetas - coreset.center
    certain = coreset.weights == 1
    assert certain[:8].all()
    assert np.isinf(coreset._reach[certain]).all()
    assert (np.abs(delta @ coreset.x.T) < coreset._reach).all()
    # So the draws have the plain sum of remainders over rows.
    plain = coreset.center_value + delta @ coreset.center_gradient
    plain += ((delta @ coreset.center_hessian) * delta).sum(axis=1) / 2
    eta, t = coreset.x @ coreset.center, delta @ coreset.x.T
    value, slope, curvature = (cumulant("logistic", eta, k) for k in range(3))
    rest = value + slope * t + curvature * t**2 / 2 - cumulant("logistic", eta + t, 0)
    np.testing.assert_allclose(coreset.log_likelihood(thetas), plain + rest @ coreset.weights)
    # Along the rare column, where only these rows are, it is the likelihood itself at any distance.
    for step in (-30.0, 30.0):
        theta = coreset.center + step * np.eye(7)[6]
        truth = log_likelihood("logistic", x[:8], y[:8], theta)
        truth += log_likelihood("logistic", x[8:], y[8:], coreset.center)
        assert coreset.log_likelihood(theta) == pytest.approx(truth, rel=1e-9)
