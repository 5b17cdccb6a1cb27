"""What the check of a coreset says of draws: of none that move, off, narrow or wide."""

import numpy as np
import pytest
from glm_problems import near, problem
from scipy.special import ndtri

from pyprobe.errors import DomainError, NumericalWarning
from pyprobe.sketching import GLMCoreset
from pyprobe.sketching._glm_check import compare


@pytest.fixture(scope="module")
def data():
    return problem("logistic", n=5000)


@pytest.fixture(scope="module")
def coreset(data):
    return GLMCoreset.fit(*data, family="logistic", n_samples=200, prior_precision=4.0, rng=0)


def laplace_sds(coreset):
    return np.sqrt(np.diag(np.linalg.inv(coreset.prior_precision - coreset.center_hessian)))


def standard_draws(coreset, n=100):
    """Draws whose means and standard deviations are those of the Laplace approximation."""
    draws = near(coreset, n)
    draws = (draws - draws.mean(axis=0)) / draws.std(axis=0, ddof=1)
    return coreset.center + draws * laplace_sds(coreset)


def test_draws_that_never_moved_are_refused(data, coreset):
    still = np.tile(coreset.center, (100, 1))
    with pytest.raises(DomainError, match=r"that has moved; got a standard deviation of .* coord"):
        coreset.check(*data, draws=still)
    draws = standard_draws(coreset)
    draws[:, 2] = 0.1
    with pytest.raises(DomainError, match="in coordinate 2, where that of the posterior is about"):
        coreset.check(*data, draws=draws)
    draws[:, 2] += 0.9e-3 * laplace_sds(coreset)[2] * np.tile([-1.0, 1.0], 50)
    with pytest.raises(DomainError, match="Start the sampler at coreset"):
        coreset.check(*data, draws=draws)
    plain = GLMCoreset.fit(
        *data, family="logistic", n_samples=200, prior_precision=4.0, control_variate=False, rng=0
    )
    with pytest.raises(DomainError, match="that has moved"):
        plain.check(*data, draws=still)


def test_draws_that_are_off_and_narrow_get_a_warning_beside_the_verdict(data, coreset):
    sds = laplace_sds(coreset)
    draws = coreset.center + 3 * sds + 0.3 * (standard_draws(coreset) - coreset.center)
    with pytest.warns(NumericalWarning, match="cannot know whether the sampler") as record:
        check = coreset.check(*data, draws=draws)
    assert check.verdict == "faithful"  # of the coreset, where they are
    assert "have a mean 3 standard deviations off the center" in check.reason
    assert "are 0.3 times as wide as it in coordinate" in check.reason
    assert str(record[0].message) in f"GLMCoreset.check: {check.reason.partition('. ')[2]}"
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("shift", "scale", "found"),
    [
        (2.1, 1.0, "have a mean 2.1 standard deviations off the center in coordinate 4"),
        (-2.1, 1.0, "have a mean 2.1 standard deviations off the center in coordinate 4"),
        (0.0, 0.48, "are 0.48 times as wide as it in coordinate 4"),
        (0.0, 2.1, "are 2.1 times as wide as it in coordinate 4"),
        (1.9, 1.0, None),
        (0.0, 0.52, None),
        (0.0, 1.9, None),
    ],
)
def test_one_coordinate_is_enough(data, coreset, shift, scale, found):
    draws = standard_draws(coreset)
    moved = coreset.center + shift * laplace_sds(coreset)
    draws[:, 4] = moved[4] + scale * (draws[:, 4] - coreset.center[4])
    if found is None:
        assert "Laplace" not in coreset.check(*data, draws=draws).reason
    else:
        with pytest.warns(NumericalWarning, match=found):
            assert found in coreset.check(*data, draws=draws).reason


def test_draws_off_along_a_direction_that_no_coordinate_shows_are_seen():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(5000), rng.normal(20, 1, size=5000)])
    y = (rng.random(5000) < 0.5).astype(float)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=200, rng=0)
    draws = standard_draws(coreset)  # of coordinates that ought to go together, but do not
    draws[:, 0] = coreset.center[0] + rng.normal(size=100) * laplace_sds(coreset)[0]
    with pytest.warns(NumericalWarning, match=r"lie \S+ posterior standard deviations from the c"):
        coreset.check(x, y, draws=draws)


def test_the_prior_of_the_fit_is_told_apart_from_a_sampler_that_is_stuck():
    x, y = problem("logistic", n=500)
    precision = 1e4
    draws = 0.01 * np.random.default_rng(0).normal(size=(200, 6))  # the prior decides all of it
    told = GLMCoreset.fit(x, y, family="logistic", n_samples=200, prior_precision=precision, rng=0)
    assert "Laplace" not in told.check(x, y, draws=told.center + draws).reason
    untold = GLMCoreset.fit(x, y, family="logistic", n_samples=200, rng=0)
    with pytest.warns(NumericalWarning, match="prior of the model moves or narrows"):
        untold.check(x, y, draws=told.center + draws)


@pytest.mark.parametrize(("shift", "verdict"), [(0.31, "faithful"), (0.34, "reweight")])
def test_a_share_of_nine_tenths_is_a_third_of_a_standard_deviation(shift, verdict):
    # Draws of N(0, 1) against N(shift, 1), at the quantiles.
    z = ndtri((np.arange(20_000) + 0.5) / 20_000)[:, None]
    check = compare(z, shift * z[:, 0], 1.0, "")
    assert check.n_effective / check.n_draws == pytest.approx(np.exp(-(shift**2)), rel=1e-2)
    assert check.verdict == verdict
    assert check.mean_shift[0] == pytest.approx(-shift, rel=1e-2)
