"""Coresets of generalized linear models: exactness, unbiasedness, what they say of themselves."""

import pickle
import re
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from glm_problems import log_likelihood, near, problem
from scipy.special import expit

from pyprobe.errors import (
    ConvergenceWarning,
    DomainError,
    NotFiniteError,
    NotPositiveDefiniteError,
    NumericalWarning,
    ShapeError,
)
from pyprobe.sketching import GLMCoreset
from pyprobe.sketching import glm as module
from pyprobe.sketching._glm_data import as_data, cumulant
from pyprobe.sketching._glm_fit import find_mode, remainders
from pyprobe.sketching._glm_sample import guarded

FAMILIES = ("logistic", "poisson", "gaussian")


def moments(coresets, x, y, n_draws=1000):
    """Yield shifts of mean and log sd, in sds, by importance from one set of Laplace draws.

    The coresets have one center. The draws are shared with the full posterior, so that their noise
    nearly cancels in the difference.
    """
    first = coresets[0]
    thetas = near(first, n_draws)
    delta = thetas - first.center
    precision = first.prior_precision - first.center_hessian
    rest = ((delta @ precision) * delta).sum(axis=1) / 2
    rest -= ((thetas @ first.prior_precision) * thetas).sum(axis=1) / 2

    def mean_and_sd(values):
        weights = np.exp(values + rest - (values + rest).max())
        weights /= weights.sum()
        assert 1 / (weights**2).sum() > n_draws / 2
        mean = weights @ thetas
        return mean, np.sqrt(weights @ (thetas - mean) ** 2)

    mean, sd = mean_and_sd(as_data(first.family, x, y, None).values(thetas))
    for coreset in coresets:
        ours, our_sd = mean_and_sd(coreset.log_likelihood(thetas))
        yield (ours - mean) / sd, np.log(our_sd / sd)


# Exactness


@pytest.mark.parametrize("family", FAMILIES)
def test_with_every_row_it_is_the_likelihood_everywhere(family):
    x, y = problem(family, n=500)
    offset = np.random.default_rng(1).normal(size=500) / 3
    for control_variate in (True, False) if family != "poisson" else (True,):
        coreset = GLMCoreset.fit(
            x, y, family=family, n_samples=500, offset=offset, control_variate=control_variate
        )
        np.testing.assert_array_equal(coreset.weights, 1.0)
        for theta in np.random.default_rng(2).normal(size=(5, 6)):
            expected = log_likelihood(family, x, y, theta, offset)
            assert coreset.log_likelihood(theta) == pytest.approx(expected, rel=1e-11)
            step = 1e-6 * np.eye(6)
            slope = [
                (
                    log_likelihood(family, x, y, theta + e, offset)
                    - log_likelihood(family, x, y, theta - e, offset)
                )
                / 2e-6
                for e in step
            ]
            np.testing.assert_allclose(coreset.gradient(theta), slope, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_center_value_gradient_and_hessian_are_those_of_all_rows(family):
    x, y = problem(family)
    coreset = GLMCoreset.fit(x, y, family=family, n_samples=100, prior_precision=2.0, rng=0)
    theta = coreset.center
    mean = {"logistic": expit, "poisson": np.exp, "gaussian": lambda e: e}[family](x @ theta)
    variance = {"logistic": mean * (1 - mean), "poisson": mean, "gaussian": np.ones(len(y))}[family]
    value = log_likelihood(family, x, y, theta)
    assert coreset.log_likelihood(theta) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(coreset.gradient(theta), x.T @ (y - mean), atol=1e-7)
    np.testing.assert_allclose(coreset.hessian(theta), -(x.T * variance) @ x, rtol=1e-9, atol=1e-7)
    # It is the mode: the gradient of the log-posterior vanishes.
    assert np.abs(coreset.gradient(theta) - 2.0 * theta).max() < 1e-2


def test_a_gaussian_likelihood_needs_no_rows():
    x, y = problem("gaussian")
    coreset = GLMCoreset.fit(x, y, family="gaussian", n_samples=10)
    assert coreset.weights.size == 0
    assert coreset.info.expected_error == 0
    for theta in np.random.default_rng(0).normal(size=(3, 6)):
        expected = log_likelihood("gaussian", x, y, theta)
        assert coreset.log_likelihood(theta) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("family", ["logistic", "poisson"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_each_derivative_of_the_cumulant_is_that_of_the_one_before(family, order):
    eta = np.linspace(-6, 6, 41)
    step = 1e-5
    slope = (cumulant(family, eta + step, order) - cumulant(family, eta - step, order)) / (2 * step)
    np.testing.assert_allclose(cumulant(family, eta, order + 1), slope, rtol=1e-7, atol=1e-9)


def test_the_remainders_are_what_a_fine_quadrature_says_on_both_sides_of_the_seam():
    x, y = problem("logistic", n=300)
    data = as_data("logistic", x, y, None)
    mode = find_mode(data, np.eye(6), lambda *_: True)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    for squares in (np.full(300, 1e-5), np.full(300, 0.999e-3), np.full(300, 0.05)):
        size, pull = remainders(data, mode, squares)
        delta = nodes * np.sqrt(squares)[:, None]
        eta = mode.eta[:, None]
        rest = cumulant("logistic", eta + delta, 0) - cumulant("logistic", eta, 0)
        rest -= cumulant("logistic", eta, 1) * delta + cumulant("logistic", eta, 2) * delta**2 / 2
        large = np.abs(cumulant("logistic", mode.eta, 3)) > 0.01
        expected = np.sqrt(rest**2 @ weights)
        np.testing.assert_allclose(size[large], expected[large], rtol=5e-3, atol=1e-14)
        covariance = np.abs((rest * nodes) @ weights)
        np.testing.assert_allclose(pull[large], covariance[large], rtol=2e-2, atol=1e-13)


# The draw


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("family", "control_variate"), [("logistic", True), ("logistic", False), ("poisson", True)]
)
def test_the_log_likelihood_is_unbiased_away_from_the_mode(family, control_variate, seed):
    x, y = problem(family, n=400)
    rng = np.random.default_rng(seed)
    fits = [
        GLMCoreset.fit(x, y, family=family, n_samples=40, control_variate=control_variate, rng=rng)
        for _ in range(300)
    ]
    theta = fits[0].center / 2  # far away in posterior sds, but within the reach of each row
    found = np.array([fit.log_likelihood(theta) for fit in fits])
    error = found.std() / np.sqrt(len(found))
    truth = log_likelihood(family, x, y, theta)
    assert abs(found.mean() - truth) < 4.9 * error  # fails once in 10^6
    # Half of what the quadratic alone is off would be seen, or a seventh of it all.
    quadratic = fits[0].center_value + (
        (theta - fits[0].center) @ fits[0].center_hessian @ (theta - fits[0].center) / 2
    )
    assert 4.9 * error < (0.5 * abs(truth - quadratic) if control_variate else 0.15 * abs(truth))


def test_the_weights_are_of_rows_that_were_there_and_the_number_is_near():
    x, y = problem("logistic")
    coreset = GLMCoreset.fit(x.astype(np.float32), y, family="logistic", n_samples=300, rng=3)
    assert (np.diff(coreset.indices) > 0).all()
    np.testing.assert_array_equal(coreset.x, x.astype(np.float32)[coreset.indices])
    np.testing.assert_array_equal(coreset.y, y[coreset.indices])
    assert (coreset.x.dtype, coreset.weights.dtype) == (np.float32, np.float64)
    assert abs(len(coreset.weights) - 300) < 5 * np.sqrt(300)
    assert coreset.weights.min() >= 1
    assert coreset.weights.max() < 5.01 * len(x) / 300  # a fifth of the rows is drawn evenly
    again = GLMCoreset.fit(x.astype(np.float32), y, family="logistic", n_samples=300, rng=3)
    np.testing.assert_array_equal(again.indices, coreset.indices)


def test_rows_that_alone_decide_a_direction_are_all_kept():
    x, y = problem("logistic", n=5000)
    rare = np.zeros((5000, 1))
    rare[:8, 0] = 1
    y[:8] = [1, 1, 1, 1, 1, 1, 0, 1]
    coreset = GLMCoreset.fit(
        np.hstack([x, rare]), y, family="logistic", n_samples=100, prior_precision=0.1, rng=0
    )
    np.testing.assert_array_equal(coreset.indices[:8], np.arange(8))
    np.testing.assert_allclose(coreset.weights[:8], 1)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 5, 9])
@pytest.mark.parametrize(
    "sizes",
    [
        [1e90, 1e30, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [3.0, 2.0, 1.0, 1e-9, 1e-9, 1e-9, 0.0, 0.0, 0.0, 0.0],
        np.arange(10.0),
        np.ones(10),
    ],
)
def test_shares_add_up_and_no_large_row_takes_what_it_cannot_use(sizes, n_samples):
    sizes = np.asarray(sizes, dtype=float)
    shares = guarded(sizes, n_samples, np.ones(10)) - 0.2 * n_samples / 10
    assert shares.sum() == pytest.approx(min(0.8 * n_samples, np.count_nonzero(sizes)))
    assert shares.max() <= 1 + 1e-12
    below = shares < 1 - 1e-9
    if below.any() and shares.sum() < np.count_nonzero(sizes) - 1e-9:
        largest = np.where(below, sizes, 0).argmax()
        expected = shares[largest] / sizes[largest] * sizes[below]
        np.testing.assert_allclose(shares[below], expected, rtol=1e-9, atol=1e-14)


# The posterior


@pytest.mark.parametrize("family", ["logistic", "poisson"])
def test_two_hundred_rows_of_twenty_thousand_hold_the_posterior(family):
    x, y = problem(family)
    coresets = [GLMCoreset.fit(x, y, family=family, n_samples=200, rng=seed) for seed in range(5)]
    shifts, log_ratios = zip(*moments(coresets, x, y), strict=True)
    assert np.abs(shifts).max() <= 0.05
    assert np.abs(log_ratios).max() <= 0.02
    # What a fit expects of itself is what is found, over 30 squares: 3 of their sds.
    ratio = np.sqrt(np.square(shifts).mean()) / coresets[0].info.expected_error
    assert 0.6 < ratio < 1.5


def test_plain_weights_move_the_posterior_by_the_root_of_n_over_m():
    x, y = problem("logistic")
    shifts, expected = [], []
    for seed in range(5):
        plain = GLMCoreset.fit(
            x, y, family="logistic", n_samples=200, control_variate=False, rng=seed
        )
        best = scipy.optimize.minimize(
            lambda t, c=plain: -c.log_likelihood(t),
            plain.center,
            jac=lambda t, c=plain: -c.gradient(t),
            method="BFGS",
        ).x
        factor = np.linalg.cholesky(-plain.center_hessian)
        shifts.append(factor.T @ (best - plain.center))
        expected.append(plain.info.expected_error)
    found = np.sqrt(np.square(shifts).mean())
    assert 5 < found < 20  # sqrt(n / m) = 10
    assert 0.6 < found / np.mean(expected) < 1.6
    check = plain.check(x, y, rng=0)
    assert check.verdict == "unfaithful"
    assert "with the control variate" in check.reason
    assert "start the sampler" not in check.reason


def test_the_loss_of_a_plain_sample_is_near_everywhere():
    x, y = problem("logistic")
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=2000, control_variate=False, rng=0)
    for theta in 3 * np.random.default_rng(1).normal(size=(50, 6)):
        truth = log_likelihood("logistic", x, y, theta)
        assert coreset.log_likelihood(theta) == pytest.approx(truth, rel=0.15)
    x, y = problem("gaussian")
    coreset = GLMCoreset.fit(x, y, family="gaussian", n_samples=2000, control_variate=False, rng=0)
    for theta in 3 * np.random.default_rng(1).normal(size=(50, 6)):
        truth = log_likelihood("gaussian", x, y, theta)
        assert coreset.log_likelihood(theta) == pytest.approx(truth, rel=0.15)


def test_a_sample_of_no_rows_says_how_far_it_is_off():
    x = np.random.default_rng(0).normal(size=(1000, 2))
    y = (np.random.default_rng(1).random(1000) < expit(x @ [1.0, -0.5])).astype(float)
    fits = [GLMCoreset.fit(x, y, family="logistic", n_samples=1, rng=seed) for seed in range(20)]
    assert min(len(fit.weights) for fit in fits) == 0
    assert len({fit.info.expected_error for fit in fits}) == 1
    # To leading order sqrt(n / m) of the error of 1000 rows drawn one by one.
    thousand = GLMCoreset.fit(x, y, family="logistic", n_samples=100, rng=0)
    assert 5 < fits[0].info.expected_error / thousand.info.expected_error < 20


# The check


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_a_plain_sample_keeps_rows_whose_offset_makes_them_heavy(kind):
    x, y = problem("logistic", n=2000, d=3)
    offset = np.zeros(2000)
    offset[17], y[17] = 500.0, 0.0  # half of the loss, whatever theta is
    for seed in range(5):
        coreset = GLMCoreset.fit(
            kind(x),
            y,
            family="logistic",
            n_samples=60,
            offset=offset,
            control_variate=False,
            rng=seed,
        )
        assert coreset.weights[coreset.indices == 17] == [1.0]


def test_the_check_says_what_the_posteriors_differ_by():
    x, y = problem("logistic", n=600, d=4)
    verdicts = set()
    for n_samples in (8, 30, 600):
        coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=n_samples, rng=1)
        check = coreset.check(x, y, n_draws=2000, rng=0)
        ((shift, log_sd),) = moments([coreset], x, y)
        verdicts.add(check.verdict)
        if check.verdict == "faithful":
            # 2000 draws that are weighted: the noise of the differences, 4.9 times.
            noise = 4.9 * check.log_weights.std() / np.sqrt(2000)
            assert np.abs(check.mean_shift - shift).max() < noise + 0.01
            assert np.abs(check.log_sd_shift - log_sd).max() < noise + 0.01
    assert check.verdict == "faithful"
    assert check.n_effective == pytest.approx(2000, rel=1e-9)
    np.testing.assert_allclose(check.log_weights, 0, atol=1e-8)
    assert "2000 draws" in check.reason
    assert repr(check) == "GLMCoresetCheck(verdict='faithful', n_effective=2000.0, n_draws=2000)"


def test_the_check_takes_draws_of_a_sampler_and_knows_its_data():
    x, y = problem("poisson")
    coreset = GLMCoreset.fit(x, y, family="poisson", n_samples=100, rng=0)
    draws = near(coreset, 50)
    check = coreset.check(x, y, draws=draws)
    full = np.array([log_likelihood("poisson", x, y, theta) for theta in draws])
    difference = full - coreset.log_likelihood(draws)
    np.testing.assert_allclose(check.log_weights, difference - difference.mean(), atol=1e-7)
    weights = np.exp(difference - difference.max())
    assert check.n_effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-6)
    for other in ((x[::-1], y), (x, np.roll(y, 1)), (x[:-1], y[:-1])):
        with pytest.raises(DomainError, match="must be the data of the fit, 20000 rows of 6"):
            coreset.check(*other)
    with pytest.raises(ShapeError, match=r"'draws' must have shape \(k, 6\) with k at least 10"):
        coreset.check(x, y, draws=draws[:5])


def test_the_check_sees_draws_from_where_the_coreset_is_wrong_and_what_it_cannot_judge():
    x, y = problem("logistic", n=600)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=10, rng=0)
    with pytest.warns(NumericalWarning, match="start the sampler at coreset.center"):
        check = coreset.check(x, y, draws=near(coreset, 50, sds=20.0))
    assert check.verdict == "unfaithful"
    assert "keep more rows" in check.reason
    far = re.search(r"lie (\S+) posterior .* start the sampler at coreset.center", check.reason)
    assert 17 < float(far[1]) < 23
    assert "coreset.center" not in coreset.check(x, y, draws=near(coreset, 50)).reason
    x, y = quasi_separable()
    far = GLMCoreset.fit(x, y, family="logistic", n_samples=100, prior_precision=1e-4, rng=0)
    check = far.check(x, y, rng=0)
    assert check.verdict == "unknown"
    assert "pass draws of a sampler" in check.reason


def test_the_draws_of_the_check_follow_the_posterior_of_the_coreset():
    x, y = problem("logistic")
    plain = GLMCoreset.fit(x, y, family="logistic", n_samples=500, control_variate=False, rng=0)
    from pyprobe.sketching._glm_check import posterior_draws

    thetas, share = posterior_draws(plain, 2000, np.random.default_rng(0))
    assert share > 0.3
    best = scipy.optimize.minimize(
        lambda t: -plain.log_likelihood(t), plain.center, jac=lambda t: -plain.gradient(t)
    ).x
    factor = np.linalg.cholesky(-plain.hessian(best))
    standard = (thetas - best) @ factor
    # The posterior of 500 rows is nearly Gaussian about its mode.
    assert np.abs(standard.mean(axis=0)).max() < 0.25
    np.testing.assert_allclose(np.cov(standard.T), np.eye(6), atol=0.25)


# Where there is no mode, or it is far


def separable(n=1000):
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return x, (x @ [0.2, 1.0, -1.0] > 0).astype(float)


def quasi_separable(n=1000):
    x, y = problem("logistic", n=n, d=3)
    rare = (np.arange(n) < 5).astype(float)
    y[:5] = 1
    return np.column_stack([x, rare]), y


@pytest.mark.parametrize("control_variate", [True, False])
@pytest.mark.parametrize("data", [separable, quasi_separable])
def test_separable_data_are_refused_until_there_is_a_prior(data, control_variate):
    x, y = data()
    options = {"family": "logistic", "n_samples": 100, "control_variate": control_variate}
    with pytest.raises(DomainError, match=r"mu-complexity is unbounded.*prior_precision"):
        GLMCoreset.fit(x, y, **options)
    coreset = GLMCoreset.fit(x, y, prior_precision=0.5, rng=0, **options)
    assert coreset.info.converged
    if control_variate:
        assert coreset.check(x, y, rng=0).verdict == "faithful"


def test_labels_of_one_kind_and_rates_that_may_fall_for_ever_are_refused():
    x, _ = problem("logistic", n=200)
    with pytest.raises(DomainError, match="must not be separable"):
        GLMCoreset.fit(x, np.ones(200), family="logistic", n_samples=50)
    with pytest.raises(DomainError, match="rates of rows with y = 0 fall for ever"):
        GLMCoreset.fit(x, np.zeros(200), family="poisson", n_samples=50)
    rare = (np.arange(200) < 3).astype(float)
    y = np.where(rare == 1, 0, 1 + np.arange(200) % 3)
    with pytest.raises(DomainError, match="rates of rows"):
        GLMCoreset.fit(np.column_stack([x, rare]), y, family="poisson", n_samples=50)


def test_labels_that_are_nearly_separable_are_fitted():
    # One of 20000 rows stands on the wrong side: the mode is far, and there.
    x = np.column_stack([np.ones(20_000), np.arange(20_000) < 10_000]).astype(float)
    y = x[:, 1].copy()
    y[[0, -1]] = 1 - y[[0, -1]]
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=100, rng=0)
    slope = np.log(9999)
    np.testing.assert_allclose(coreset.center, [-slope, 2 * slope], rtol=1e-4)


def test_large_counts_and_far_offsets_find_their_mode():
    x, _ = problem("poisson", n=3000)
    y = np.random.default_rng(0).poisson(np.exp(x @ [9.0, 1.0, -0.5, 0.0, 0.3, 0.0]))
    coreset = GLMCoreset.fit(x, y, family="poisson", n_samples=50, rng=0)
    assert coreset.info.converged
    np.testing.assert_allclose(coreset.center, [9.0, 1.0, -0.5, 0.0, 0.3, 0.0], atol=1e-2)
    shifted = GLMCoreset.fit(
        x, y, family="poisson", n_samples=50, offset=np.full(3000, 30.0), rng=0
    )
    np.testing.assert_allclose(shifted.center[0], coreset.center[0] - 30, atol=1e-4)
    every = GLMCoreset.fit(x, y, family="poisson", n_samples=3000)
    far = every.center + np.eye(6)[0] * 5000
    assert np.isfinite(every.log_likelihood(far))
    assert every.log_likelihood(far) < -1e200
    assert np.isfinite(every.gradient(far)).all()


def test_the_scale_of_a_column_changes_nothing_but_its_coefficient():
    x, y = problem("logistic", n=2000)
    scale = np.array([1.0, 1e6, 1e-6, 1e40, 1.0, 1e-40])
    first = GLMCoreset.fit(x, y, family="logistic", n_samples=100, rng=0)
    second = GLMCoreset.fit(x * scale, y, family="logistic", n_samples=100, rng=0)
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_allclose(second.center * scale, first.center, rtol=1e-6)
    with pytest.raises(DomainError, match=r"curvature .* along column 1\. Drop or rescale it"):
        GLMCoreset.fit(x * [1, 1e200, 1, 1, 1, 1], y, family="logistic", n_samples=100)


def test_a_callback_sees_each_step_and_may_end_the_search():
    x, y = problem("logistic", n=2000)
    seen = []
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=100, callback=seen.append)
    assert [p.step for p in seen] == list(range(1, coreset.info.n_iter + 1))
    assert (np.diff([p.value for p in seen]) > -1e-8).all()
    ended = GLMCoreset.fit(x, y, family="logistic", n_samples=2000, callback=lambda p: p.step == 2)
    assert (ended.info.n_iter, ended.info.converged) == (2, False)
    theta = coreset.center
    expected = log_likelihood("logistic", x, y, theta)
    assert ended.log_likelihood(theta) == pytest.approx(expected, rel=1e-12)


def test_running_out_of_steps_warns(monkeypatch):
    from pyprobe.sketching import _glm_fit

    monkeypatch.setattr(_glm_fit, "MAX_ITER", 2)
    monkeypatch.setattr(module, "MAX_ITER", 2)
    x, y = problem("logistic", n=2000)
    with pytest.warns(ConvergenceWarning, match="stopped after 2 steps"):
        GLMCoreset.fit(x, y, family="logistic", n_samples=100)


# Forms of input


def test_sparse_rows_and_tensors_make_the_same_coreset():
    torch = pytest.importorskip("torch")
    x, y = problem("logistic", n=3000)
    x[np.abs(x) < 0.5] = 0
    first = GLMCoreset.fit(x, y, family="logistic", n_samples=100, rng=0)
    for rows in (scipy.sparse.csr_array(x), scipy.sparse.coo_matrix(x)):
        other = GLMCoreset.fit(rows, y, family="logistic", n_samples=100, rng=0)
        np.testing.assert_array_equal(other.x, first.x)
        np.testing.assert_array_equal(other.center, first.center)
        assert other.check(rows, y, rng=0).verdict == "faithful"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its sparse tensors a beta
        compressed = torch.tensor(x).to_sparse_csr()
    other = GLMCoreset.fit(compressed, torch.tensor(y), family="logistic", n_samples=100, rng=0)
    np.testing.assert_array_equal(other.center, first.center)
    other = GLMCoreset.fit(
        torch.tensor(x), torch.tensor(y), family="logistic", n_samples=100, rng=0
    )
    np.testing.assert_array_equal(other.center, first.center)
    assert other.check(torch.tensor(x), torch.tensor(y), draws=torch.tensor(near(first, 20)))


def test_a_prior_may_be_a_number_a_diagonal_or_a_matrix():
    x, y = problem("poisson", n=1000)
    fits = [
        GLMCoreset.fit(x, y, family="poisson", n_samples=100, prior_precision=p, rng=0)
        for p in (3.0, np.full(6, 3.0), 3 * np.eye(6))
    ]
    for fit in fits:
        np.testing.assert_array_equal(fit.center, fits[0].center)
    matrix = 3 * np.eye(6)
    GLMCoreset.fit(x, y, family="poisson", n_samples=100, prior_precision=matrix)
    matrix[0, 0] = 4  # stays the caller's
    best = scipy.optimize.minimize(
        lambda t: -log_likelihood("poisson", x, y, t) + 1.5 * t @ t, np.zeros(6), tol=1e-10
    ).x
    np.testing.assert_allclose(fits[0].center, best, atol=1e-4)


def test_the_value_is_immutable_and_survives_a_file_and_a_pickle(tmp_path):
    x, y = problem("poisson", n=1000)
    coreset = GLMCoreset.fit(x, y, family="poisson", n_samples=50, prior_precision=1.0, rng=0)
    with pytest.raises(ValueError, match="read-only"):
        coreset.weights[0] = 2
    with pytest.raises(AttributeError):
        coreset.family = "logistic"
    coreset.save(tmp_path / "coreset.npz")
    theta = near(coreset, 4)
    for other in (GLMCoreset.load(tmp_path / "coreset.npz"), pickle.loads(pickle.dumps(coreset))):
        np.testing.assert_array_equal(other.log_likelihood(theta), coreset.log_likelihood(theta))
        assert other.info.expected_error == coreset.info.expected_error
        assert repr(other) == repr(coreset)
        assert not other.weights.flags.writeable
    assert repr(coreset).startswith("GLMCoreset(family='poisson', n_rows=1000, kept=")


def test_thetas_of_any_shape_are_taken_in_their_own_dtype():
    x, y = problem("logistic", n=500)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=50, rng=0)
    thetas = near(coreset, 12).reshape(3, 4, 6)
    values = coreset.log_likelihood(thetas)
    assert values.shape == (3, 4)
    assert coreset.gradient(thetas).shape == (3, 4, 6)
    assert coreset.hessian(thetas).shape == (3, 4, 6, 6)
    assert values[1, 2] == pytest.approx(float(coreset.log_likelihood(thetas[1, 2])), rel=1e-14)
    assert coreset.log_likelihood(thetas.astype(np.float32)).dtype == np.float32
    assert coreset.log_likelihood(np.empty((0, 6))).shape == (0,)


# Tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_agree_with_arrays_and_have_right_gradients(family):
    torch = pytest.importorskip("torch")
    x, y = problem(family, n=1000)
    coreset = GLMCoreset.fit(x, y, family=family, n_samples=30, rng=0)
    thetas = torch.tensor(near(coreset, 6, sds=5.0).reshape(2, 3, 6), requires_grad=True)
    arrays = thetas.detach().numpy()
    for name in ("log_likelihood", "gradient", "hessian"):
        found = getattr(coreset, name)(thetas).detach()
        np.testing.assert_allclose(found, getattr(coreset, name)(arrays), rtol=1e-10, atol=1e-8)
    one = thetas[0, 0].detach().requires_grad_()
    assert torch.autograd.gradcheck(coreset.log_likelihood, thetas)
    assert torch.autograd.gradgradcheck(coreset.log_likelihood, one)
    far = torch.tensor(near(coreset, 3, sds=40.0))
    for name in ("log_likelihood", "gradient", "hessian"):
        found = getattr(coreset, name)(far)
        np.testing.assert_allclose(found, getattr(coreset, name)(far.numpy()), rtol=1e-10)
    assert torch.autograd.gradgradcheck(coreset.log_likelihood, far.requires_grad_())
    far = far.detach()
    curvatures = torch.stack([torch.func.hessian(coreset.log_likelihood)(theta) for theta in far])
    np.testing.assert_allclose(curvatures, coreset.hessian(far), rtol=1e-8, atol=1e-7)
    (slope,) = torch.autograd.grad(coreset.log_likelihood(one), one)
    np.testing.assert_allclose(slope, coreset.gradient(one.detach()), rtol=1e-9, atol=1e-8)
    curvature = torch.func.hessian(coreset.log_likelihood)(one.detach())
    np.testing.assert_allclose(curvature, coreset.hessian(one.detach()), rtol=1e-8, atol=1e-7)
    mapped = torch.func.vmap(coreset.log_likelihood)(thetas.detach()[0])
    np.testing.assert_allclose(mapped, coreset.log_likelihood(arrays[0]), rtol=1e-12)
    tangent = torch.func.jvp(coreset.log_likelihood, (one.detach(),), (torch.ones(6).double(),))[1]
    assert tangent.item() == pytest.approx(slope.sum().item(), rel=1e-8, abs=1e-7)
    assert coreset.log_likelihood(thetas.detach().float()).dtype == torch.float32


def test_far_out_a_poisson_likelihood_stays_finite_on_tensors_too():
    torch = pytest.importorskip("torch")
    x, y = problem("poisson", n=500)
    coreset = GLMCoreset.fit(x, y, family="poisson", n_samples=500)
    far = torch.tensor([800.0, 0, 0, 0, 0, 0], dtype=torch.float64, requires_grad=True)
    value = coreset.log_likelihood(far)
    value.backward()
    assert value.isfinite()
    assert far.grad.isfinite().all()
    assert far.grad[0] < -1e200
    np.testing.assert_allclose(
        value.item(), coreset.log_likelihood(far.detach().numpy()), rtol=1e-12
    )


# What is refused


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"family": "probit"}, DomainError, "'family' must be one of 'logistic', 'poisson'"),
        ({"n_samples": 0}, DomainError, "'n_samples' must be at least 1; got 0"),
        ({"n_samples": 1.5}, TypeError, "'n_samples' must be an integer"),
        ({"control_variate": 1}, TypeError, "'control_variate' must be True or False"),
        ({"callback": 3}, TypeError, "'callback' must be a function"),
        ({"rng": "x"}, TypeError, "'rng' must be None"),
        ({"x": np.ones(5)}, ShapeError, r"'x' must be a matrix of shape \(n, d\)"),
        ({"x": np.ones((0, 3))}, ShapeError, "'x' must have a row and a column at least"),
        ({"x": np.ones((5, 0))}, ShapeError, "'x' must have a row and a column at least"),
        ({"x": np.ones((5, 3)) * 1j}, TypeError, "'x' must hold real numbers; got dtype complex"),
        ({"x": np.array([[1, np.nan]])}, NotFiniteError, r"'x' must be finite.*row 0, column 1"),
        (
            {"x": scipy.sparse.csr_array(np.array([[1.0, 0], [0, np.inf]]))},
            NotFiniteError,
            "row 1, column 1",
        ),
        ({"y": np.ones(7)}, ShapeError, r"'y' must have shape \(100,\), one number a row"),
        ({"y": np.full(100, np.nan)}, NotFiniteError, "'y' must be finite"),
        ({"y": np.full(100, -1.0)}, DomainError, r"'y' must hold 0 or 1.*make \(y \+ 1\) / 2"),
        ({"y": np.full(100, 0.5), "family": "poisson"}, DomainError, "'y' must hold counts"),
        ({"offset": np.ones(3)}, ShapeError, r"'offset' must have shape \(100,\)"),
        ({"prior_precision": -1.0}, DomainError, "'prior_precision' must not be negative; got -1"),
        ({"prior_precision": np.ones(4)}, ShapeError, r"have shape \(3,\) or \(3, 3\); got \(4,\)"),
        ({"prior_precision": np.inf}, NotFiniteError, "'prior_precision' must be finite"),
        ({"prior_precision": np.triu(np.ones((3, 3)))}, DomainError, "must be symmetric"),
        (
            {"prior_precision": np.diag([1.0, -1.0, 1.0])},
            NotPositiveDefiniteError,
            "positive semidefinite; its least eigenvalue is -1",
        ),
        (
            {"family": "poisson", "control_variate": False},
            DomainError,
            "'control_variate' must be True for the Poisson family",
        ),
        (
            {"control_variate": False, "n_samples": 2},
            DomainError,
            "'n_samples' must be at least 3, the number of columns",
        ),
        ({"x": np.ones((100, 2))}, DomainError, "linearly independent columns"),
        ({"x": np.zeros((100, 1))}, DomainError, "'x' must have columns that vary"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    x, y = problem("logistic", n=100, d=3)
    options = {"x": x, "y": y, "family": "logistic", "n_samples": 10} | change
    if change.get("x") is not None and "finite" in message:
        options["y"] = np.zeros(change["x"].shape[0])
    with pytest.raises(error, match=message):
        GLMCoreset.fit(**options)


def test_thetas_that_do_not_fit_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    x, y = problem("logistic", n=100, d=3)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=10)
    for theta in (np.zeros(4), 1.0, torch.zeros(4), torch.tensor(1.0)):
        with pytest.raises(ShapeError, match=r"'theta' must have shape \(\.\.\., 3\); got"):
            coreset.log_likelihood(theta)
    with pytest.raises(NotFiniteError, match="'theta' must be finite"):
        coreset.log_likelihood([0.0, np.nan, 1.0])
    with pytest.raises(TypeError, match="'theta' must hold floating point numbers"):
        coreset.log_likelihood(torch.zeros(3, dtype=torch.int64))
    np.savez(tmp_path / "other.npz", x=x)
    with pytest.raises(DomainError, match="is not a saved GLMCoreset"):
        GLMCoreset.load(tmp_path / "other.npz")
