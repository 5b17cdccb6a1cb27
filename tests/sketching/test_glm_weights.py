"""Coresets of weighted rows: the posterior of rows that are repeated, and of groups."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from glm_problems import log_likelihood, near, problem
from scipy.special import expit

from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import GLMCoreset
from pyprobe.sketching._glm_data import as_data
from pyprobe.sketching._glm_sample import loss_scores

FAMILIES = ("logistic", "poisson", "gaussian")


def weighted(family, n=600, d=4, seed=3):
    """Rows with offsets and whole weights, a fifth of them 0."""
    x, y = problem(family, n=n, d=d)
    rng = np.random.default_rng(seed)
    return x, y, rng.normal(size=n) / 3, rng.choice([0, 1, 2, 7], p=[0.2, 0.4, 0.2, 0.2], size=n)


def by_row(family, x, y, theta, offset):
    return np.array(
        [
            log_likelihood(family, row[None], one[None], theta, shift[None])
            for row, one, shift in zip(x, y, offset, strict=True)
        ]
    )


# Whole weights are rows that are repeated


@pytest.mark.parametrize(
    ("family", "control_variate"),
    [*((family, True) for family in FAMILIES), ("logistic", False), ("gaussian", False)],
)
def test_whole_weights_are_rows_that_are_repeated(family, control_variate):
    x, y, offset, weight = weighted(family)
    options = {"family": family, "prior_precision": 0.5, "control_variate": control_variate}
    ours = GLMCoreset.fit(x, y, offset=offset, sample_weight=weight, n_samples=600, **options)
    many = [np.repeat(part, weight, axis=0) for part in (x, y, offset)]
    theirs = GLMCoreset.fit(*many[:2], offset=many[2], n_samples=len(many[0]), **options)
    assert ours.info.n_iter == theirs.info.n_iter
    np.testing.assert_allclose(ours.center, theirs.center, rtol=1e-10)
    assert ours.center_value == pytest.approx(theirs.center_value, rel=1e-12)
    np.testing.assert_allclose(ours.center_gradient, theirs.center_gradient, atol=1e-9)
    np.testing.assert_allclose(ours.center_hessian, theirs.center_hessian, rtol=1e-10)
    # Far off too: rows that are kept for certain have no end, whatever their weight is.
    thetas = np.vstack([near(theirs, 5), near(theirs, 5, sds=50.0)])
    for name in ("log_likelihood", "gradient", "hessian"):
        found, expected = (getattr(coreset, name)(thetas) for coreset in (ours, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("family", ["logistic", "gaussian"])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_scores_of_a_loss_are_the_sums_over_repeated_rows(family, kind):
    x, y, offset, weight = weighted(family)
    ours = loss_scores(as_data(family, kind(x), y, offset, weight))
    many = [np.repeat(part, weight, axis=0) for part in (x, y, offset)]
    theirs = loss_scores(as_data(family, kind(many[0]), *many[1:]))
    summed = np.bincount(np.repeat(np.arange(600), weight), theirs, 600)
    np.testing.assert_allclose(ours, summed, rtol=5e-2)  # Lewis weights to 1e-2, either side
    if family == "gaussian":
        np.testing.assert_allclose(ours, summed, rtol=1e-9)


def test_weights_of_one_change_nothing():
    x, y = problem("logistic", n=2000)
    options = {"family": "logistic", "n_samples": 100, "rng": 0}
    first = GLMCoreset.fit(x, y, **options)
    second = GLMCoreset.fit(x, y, sample_weight=np.ones(2000, dtype=int), **options)
    np.testing.assert_array_equal(second.indices, first.indices)
    np.testing.assert_array_equal(second.weights, first.weights)
    np.testing.assert_array_equal(second.center, first.center)
    assert second.check(x, y, rng=0).verdict == "faithful"


# Any weights


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_center_all_is_that_of_all_weighted_rows(family):
    x, y, offset, _ = weighted(family, n=3000)
    weight = np.random.default_rng(0).gamma(0.5, size=3000)
    coreset = GLMCoreset.fit(
        x, y, family=family, n_samples=60, offset=offset, sample_weight=weight, rng=0
    )
    theta = coreset.center
    eta = x @ theta + offset
    mean = {"logistic": expit, "poisson": np.exp, "gaussian": lambda e: e}[family](eta)
    variance = {"logistic": mean * (1 - mean), "poisson": mean, "gaussian": np.ones(len(y))}[family]
    value = weight @ by_row(family, x, y, theta, offset)
    assert coreset.log_likelihood(theta) == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(coreset.gradient(theta), x.T @ (weight * (y - mean)), atol=1e-7)
    curvature = -(x.T * (weight * variance)) @ x
    np.testing.assert_allclose(coreset.hessian(theta), curvature, rtol=1e-9, atol=1e-7)
    assert np.abs(coreset.gradient(theta)).max() < 1e-2


@pytest.mark.statistical
@pytest.mark.parametrize("control_variate", [True, False])
def test_the_weighted_log_likelihood_is_unbiased_away_from_the_mode(control_variate, seed):
    x, y = problem("logistic", n=400)
    rng = np.random.default_rng(seed)
    weight = np.random.default_rng(0).gamma(1.0, size=400)
    options = {"family": "logistic", "n_samples": 40, "control_variate": control_variate}
    fits = [GLMCoreset.fit(x, y, sample_weight=weight, rng=rng, **options) for _ in range(300)]
    theta = fits[0].center / 2
    found = np.array([fit.log_likelihood(theta) for fit in fits])
    error = found.std() / np.sqrt(len(found))
    truth = weight @ by_row("logistic", x, y, theta, np.zeros(400))
    assert abs(found.mean() - truth) < 4.9 * error  # fails once in 10^6
    delta = theta - fits[0].center
    quadratic = fits[0].center_value + delta @ fits[0].center_hessian @ delta / 2
    assert 4.9 * error < (0.5 * abs(truth - quadratic) if control_variate else 0.15 * abs(truth))


@pytest.mark.parametrize("family", ["logistic", "poisson"])
def test_the_expected_error_of_weighted_rows_is_what_is_found(family):
    x, y = problem(family)
    weight = np.random.default_rng(0).gamma(0.5, size=20_000)
    shifts, expected = [], []
    for seed in range(8):
        coreset = GLMCoreset.fit(x, y, family=family, n_samples=100, sample_weight=weight, rng=seed)
        check = coreset.check(x, y, sample_weight=weight, n_draws=1000, rng=0)
        assert check.verdict == "faithful"
        shifts.append(check.mean_shift)
        expected.append(coreset.info.expected_error)
    assert np.ptp(expected) == 0
    assert 0.6 < np.sqrt(np.square(shifts).mean()) / expected[0] < 1.6
    # However large a weight is, none stands for more than five times its share.
    certain = coreset.weights == coreset.sample_weight
    assert (coreset.weights[~certain] <= 5.01 * weight.sum() / 100).all()


def test_groups_are_binomial():
    rng = np.random.default_rng(0)
    groups = np.column_stack([np.ones(50), rng.normal(size=(50, 2))])
    trials = rng.integers(0, 200, size=50)
    successes = rng.binomial(trials, expit(groups @ [-0.5, 0.4, 0.0]))
    x, y = np.vstack([groups, groups]), np.repeat([1.0, 0.0], 50)
    weight = np.concatenate([successes, trials - successes])
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=100, sample_weight=weight)
    thetas = near(coreset, 5, sds=3.0)
    full = scipy.stats.binom.logpmf(successes, trials, expit(thetas @ groups.T)).sum(axis=1)
    constants = full - coreset.log_likelihood(thetas)
    np.testing.assert_allclose(constants, constants[0], rtol=1e-9)


# Rows of weight 0


def test_rows_of_weight_zero_count_for_nothing():
    x, y = problem("logistic", n=2000, d=3)
    options = {"family": "logistic", "n_samples": 100, "rng": 0}
    first = GLMCoreset.fit(x[:1500], y[:1500], **options)
    weight = np.repeat([1.0, 0.0], [1500, 500])
    x[1500:] *= 1e6  # would stop each of Newton's steps short
    for kind in (np.asarray, scipy.sparse.csr_array):
        for control_variate in (True, False):
            coreset = GLMCoreset.fit(
                kind(x), y, sample_weight=weight, control_variate=control_variate, **options
            )
            assert coreset.indices.max() < 1500
            assert coreset.info.n_iter == first.info.n_iter
            np.testing.assert_allclose(coreset.center, first.center, rtol=1e-9)
    every = GLMCoreset.fit(x, y, sample_weight=weight, family="logistic", n_samples=1500)
    np.testing.assert_array_equal(every.indices, np.arange(1500))
    np.testing.assert_array_equal(every.weights, 1.0)
    assert every.info.expected_error == 0


def test_a_row_of_weight_zero_does_not_undo_separation():
    x = np.column_stack([np.ones(1000), np.linspace(-1, 1, 1000)])
    y, weight = (x[:, 1] > 0).astype(float), np.ones(1000)
    y[0] = 1
    GLMCoreset.fit(x, y, family="logistic", n_samples=100, sample_weight=weight)
    weight[0] = 0
    with pytest.raises(DomainError, match="must not be separable"):
        GLMCoreset.fit(x, y, family="logistic", n_samples=100, sample_weight=weight)


# The check, and forms of input


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_wants_the_weights_of_the_fit(family):
    x, y = problem(family, n=2000)
    weight = np.random.default_rng(0).gamma(1.0, size=2000)
    coreset = GLMCoreset.fit(x, y, family=family, n_samples=50, sample_weight=weight, rng=0)
    assert coreset.check(x, y, sample_weight=weight, rng=0).verdict == "faithful"
    other = weight.copy()
    other[np.setdiff1d(np.arange(2000), coreset.indices)[0]] += 1  # a row that was not kept
    for wrong in (None, np.ones(2000), 2 * weight, other):
        with pytest.raises(DomainError, match="'sample_weight' must be the data of the fit"):
            coreset.check(x, y, sample_weight=wrong)
    plain = GLMCoreset.fit(x, y, family=family, n_samples=50, rng=0)
    with pytest.raises(DomainError, match="'sample_weight' must be the data of the fit"):
        plain.check(x, y, sample_weight=weight)


def test_the_check_knows_its_data_where_the_mode_is_far():
    # Labels that a plane parts, nearly without a prior: terms of 1e4 whose sum is 1e-3.
    x = np.column_stack([np.ones(5000), np.random.default_rng(0).normal(size=5000)])
    y = (x[:, 1] > 0).astype(float)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=100, prior_precision=1e-8, rng=0)
    assert coreset.center_value > -1
    assert np.abs(x @ coreset.center).max() > 1e4
    assert coreset.check(x, y, rng=0).n_draws == 100
    with pytest.raises(DomainError, match="'sample_weight' must be the data of the fit"):
        coreset.check(x, y, sample_weight=np.full(5000, 2.0))


def test_tensors_files_and_sparse_rows_have_weights(tmp_path):
    torch = pytest.importorskip("torch")
    x, y, offset, weight = weighted("logistic")
    options = {"family": "logistic", "n_samples": 60, "rng": 0}
    first = GLMCoreset.fit(x, y, offset=offset, sample_weight=weight, **options)
    first.save(tmp_path / "coreset.npz")
    for other in (
        GLMCoreset.fit(
            *map(torch.tensor, (x, y)),
            offset=torch.tensor(offset),
            sample_weight=torch.tensor(weight),
            **options,
        ),
        GLMCoreset.fit(
            scipy.sparse.csr_array(x), y, offset=offset, sample_weight=weight, **options
        ),
        GLMCoreset.load(tmp_path / "coreset.npz"),
    ):
        np.testing.assert_array_equal(other.indices, first.indices)
        np.testing.assert_array_equal(other.weights, first.weights)
        np.testing.assert_array_equal(other.sample_weight, weight[first.indices])
    thetas = near(first, 5, sds=20.0)
    for name in ("log_likelihood", "gradient", "hessian"):
        found = getattr(first, name)(torch.tensor(thetas))
        np.testing.assert_allclose(found, getattr(first, name)(thetas), rtol=1e-9, atol=1e-8)
    with pytest.raises(TypeError, match="'sample_weight' a torch tensor on cpu"):
        GLMCoreset.fit(x, y, sample_weight=torch.tensor(weight), **options)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.where(np.arange(100) == 7, -1.0, 1.0), DomainError, r"nonnegative; got -1\.0 at index"),
        (np.full(100, np.nan), NotFiniteError, "'sample_weight' must be finite"),
        (np.full(100, np.inf), NotFiniteError, "'sample_weight' must be finite"),
        (np.ones(99), ShapeError, r"'sample_weight' must have shape \(100,\).*got \(99,\)"),
        (np.ones((100, 1)), ShapeError, r"'sample_weight' must have shape \(100,\)"),
        (2.0, ShapeError, r"'sample_weight' must have shape \(100,\)"),
        (np.zeros(100), DomainError, "'sample_weight' must not be all zero"),
        (np.full(100, "a"), TypeError, "'sample_weight' must hold real numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weight, error, message):
    x, y = problem("logistic", n=100, d=3)
    options = {"family": "logistic", "n_samples": 10}
    coreset = GLMCoreset.fit(x, y, **options)
    with pytest.raises(error, match=message):
        GLMCoreset.fit(x, y, sample_weight=weight, **options)
    with pytest.raises(error, match=message):
        coreset.check(x, y, sample_weight=weight)
