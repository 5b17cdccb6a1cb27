"""Mixtures of von Mises-Fisher distributions: fit, criteria, draws, guards, bad input."""

import copy
import math
import warnings

import mpmath
import numpy as np
import pytest
import scipy.sparse
import scipy.special
import scipy.stats

import pyprobe
from pyprobe.directional import SphericalUniform, VonMisesFisher, VonMisesFisherMixture
from pyprobe.errors import (
    ConvergenceWarning,
    DomainError,
    NotFiniteError,
    NumericalWarning,
    ShapeError,
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def random_mixture(seed, k, d, low, high):
    rng = np.random.default_rng(seed)
    return VonMisesFisherMixture(
        rng.dirichlet(np.full(k, 10.0)), unit(rng.normal(size=(k, d))), rng.uniform(low, high, k)
    )


def plain_log_prob(mixture, x):
    """The formula with mpmath's Bessel function: log sum_k alpha_k C_d(kappa_k) e^(kappa mu.x)."""
    d = x.shape[1]
    nu = mpmath.mpf(d) / 2 - 1
    total = 0
    for weight, loc, kappa in zip(
        mixture.weights, mixture.locs, mixture.concentrations, strict=True
    ):
        kappa = mpmath.mpf(float(kappa))
        constant = kappa**nu / ((2 * mpmath.pi) ** (nu + 1) * mpmath.besseli(nu, kappa))
        total = total + np.array(
            [float(weight) * constant * mpmath.exp(kappa * mpmath.mpf(c)) for c in x @ loc]
        )
    return np.array([float(mpmath.log(t)) for t in total])


def matched(fit, truth):
    """Components of `fit` in the order of those of `truth`."""
    order = np.argmax(truth.locs @ fit.locs.T, axis=1)
    assert sorted(order) == list(range(len(order)))
    return order


# --- the model ---


@pytest.mark.parametrize(("d", "kappa"), [(2, 1.0), (3, 50.0), (10, 200.0), (100, 30.0)])
def test_log_prob_and_posteriors_follow_the_formula(d, kappa):
    mixture = random_mixture(d, 4, d, 0.5 * kappa, kappa)
    x = unit(np.random.default_rng(0).normal(size=(20, d)))
    reference = plain_log_prob(mixture, x)
    np.testing.assert_allclose(mixture.log_prob(x), reference, atol=1e-12 * kappa)
    parts = np.stack(
        [
            math.log(w) + VonMisesFisher(m, c).log_prob(x)
            for w, m, c in zip(mixture.weights, mixture.locs, mixture.concentrations, strict=True)
        ],
        axis=1,
    )
    shares = np.exp(parts - reference[:, None])
    np.testing.assert_allclose(mixture.predict_proba(x), shares, atol=1e-12 * kappa)
    np.testing.assert_array_equal(mixture.predict(x), parts.argmax(axis=1))


def test_no_concentration_is_the_uniform_distribution():
    mixture = VonMisesFisherMixture([0.4, 0.6], np.eye(2, 1000), [0.0, 0.0])
    x = unit(np.random.default_rng(0).normal(size=(5, 1000)))
    uniform = SphericalUniform(1000).log_prob(x)
    np.testing.assert_allclose(mixture.log_prob(x), uniform, rtol=1e-14)


def test_a_component_without_weight_changes_nothing():
    mixture = VonMisesFisherMixture([1.0, 0.0], np.eye(2, 3), [5.0, 1e8])
    single = VonMisesFisherMixture([1.0], np.eye(1, 3), [5.0])
    x = unit(np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(mixture.log_prob(x), single.log_prob(x), rtol=1e-14)
    assert (mixture.predict_proba(x)[:, 1] == 0).all()


def test_batches_of_any_shape_are_judged():
    mixture = random_mixture(0, 3, 4, 5, 20)
    x = unit(np.random.default_rng(0).normal(size=(2, 5, 4)))
    assert mixture.log_prob(x).shape == (2, 5)
    assert mixture.predict_proba(x).shape == (2, 5, 3)
    assert mixture.predict(x).shape == (2, 5)
    assert mixture.log_prob(x[0, 0]).shape == ()
    np.testing.assert_array_equal(mixture.log_prob(x)[1], mixture.log_prob(x[1]))
    assert mixture.log_prob(x[:0]).shape == (0, 5)


def test_sparse_rows_are_judged_as_dense_ones():
    mixture = random_mixture(0, 3, 40, 5, 20)
    x = scipy.sparse.random_array((50, 40), density=0.2, random_state=0).toarray()
    x += np.eye(50, 40, 3)
    x = unit(x + (x.sum(axis=1) == 0)[:, None])
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_array):
        np.testing.assert_allclose(mixture.log_prob(kind(x)), mixture.log_prob(x), rtol=1e-13)
        np.testing.assert_allclose(
            mixture.predict_proba(kind(x)), mixture.predict_proba(x), atol=1e-13
        )
        np.testing.assert_array_equal(mixture.predict(kind(x)), mixture.predict(x))


def test_repeated_entries_of_a_sparse_row_add_up():
    mixture = VonMisesFisherMixture([1.0], [[0.6, 0.8]], [7.0])
    twice = scipy.sparse.csr_array(
        (np.array([0.3, 0.3, 0.8]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2)
    )
    np.testing.assert_allclose(mixture.log_prob(twice), mixture.log_prob([[0.6, 0.8]]), rtol=1e-14)
    assert twice.nnz == 3  # the caller's matrix is left alone


def test_criteria_follow_their_formulas():
    k, d, n = 3, 7, 500
    truth = random_mixture(1, k, d, 20, 40)
    x = truth.sample((n,), rng=0)
    for common, concentrations in ((False, k), (True, 1)):
        fit = VonMisesFisherMixture.fit(x, k, common_concentration=common, rng=0)
        parameters = k * (d - 1) + concentrations + k - 1
        total = fit.log_prob(x).sum()
        assert fit.n_parameters == parameters
        assert fit.aic(x) == pytest.approx(2 * parameters - 2 * total, rel=1e-13)
        assert fit.bic(x) == pytest.approx(math.log(n) * parameters - 2 * total, rel=1e-13)


def test_bic_finds_the_number_of_components():
    truth = random_mixture(3, 4, 5, 50, 80)
    x = truth.sample((2000,), rng=0)
    scores = {
        k: VonMisesFisherMixture.fit(x, k, n_init=3, max_iter=1000, rng=0).bic(x)
        for k in (2, 3, 4, 5, 6)
    }
    assert min(scores, key=scores.get) == 4


# --- the fit ---


def test_concentrations_are_recovered_within_two_percent():
    truth = random_mixture(0, 20, 256, 150, 400)
    x = truth.sample((20_000,), rng=1)
    fit = VonMisesFisherMixture.fit(x, 20, rng=2)
    order = matched(fit, truth)
    np.testing.assert_allclose(fit.concentrations[order], truth.concentrations, rtol=0.02)
    np.testing.assert_allclose(fit.weights[order], truth.weights, atol=0.005)
    assert ((fit.locs[order] * truth.locs).sum(axis=1) > 0.99).all()
    assert fit.info.converged
    assert fit.info.n_samples == 20_000
    assert fit.info.doubtful == ()


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("common", [False, True])
def test_the_log_likelihood_never_falls(kind, common):
    # Far overlapping components: many iterations. A warning for a fall would be an error.
    truth = random_mixture(4, 6, 4, 2, 10)
    x = truth.sample((3000,), rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = VonMisesFisherMixture.fit(
            x, 6, kind=kind, common_concentration=common, tol=0.0, max_iter=300, rng=1
        )
    assert np.diff(fit.info.trace).min() >= -1e-12
    assert len(fit.info.trace) == fit.info.n_iter + 1
    if kind == "soft":
        assert fit.info.log_likelihood == pytest.approx(fit.log_prob(x).mean(), rel=1e-12)
    if common:
        assert len(set(fit.concentrations)) == 1


def test_a_converged_fit_is_a_fixed_point_of_the_em_equations():
    truth = random_mixture(5, 3, 5, 10, 30)
    x = truth.sample((2000,), rng=0)
    fit = VonMisesFisherMixture.fit(x, 3, tol=1e-13, max_iter=2000, rng=1)
    r = fit.predict_proba(x)
    s, n = r.T @ x, r.sum(axis=0)
    np.testing.assert_allclose(fit.weights, n / len(x), atol=1e-5)
    np.testing.assert_allclose(fit.locs, unit(s), atol=1e-5)
    for kappa, length in zip(fit.concentrations, np.linalg.norm(s, axis=1) / n, strict=True):
        ratio = mpmath.besseli(2.5, kappa) / mpmath.besseli(1.5, kappa)
        assert float(ratio) == pytest.approx(length, abs=1e-6)


def test_one_component_is_the_fit_of_one_distribution():
    x = VonMisesFisher([0.0, 0.6, 0.8], 12.0).sample((500,), rng=0)
    single, mixture = VonMisesFisher.fit(x), VonMisesFisherMixture.fit(x, 1)
    assert mixture.concentrations[0] == pytest.approx(single.concentration, rel=1e-12)
    np.testing.assert_allclose(mixture.locs[0], single.loc, atol=1e-13)
    corrected = VonMisesFisherMixture.fit(x, 1, bias_correction=True)
    reference = VonMisesFisher.fit(x, bias_correction=True)
    assert corrected.concentrations[0] == pytest.approx(reference.concentration, rel=1e-12)


def test_hard_assignment_fits_each_cluster_by_itself():
    truth = random_mixture(6, 4, 30, 100, 200)
    x = truth.sample((2000,), rng=0)
    fit = VonMisesFisherMixture.fit(x, 4, kind="hard", rng=1)
    labels = fit.predict(x)
    for k in range(4):
        part = VonMisesFisher.fit(x[labels == k])
        assert fit.concentrations[k] == pytest.approx(part.concentration, rel=1e-9)
        np.testing.assert_allclose(fit.locs[k], part.loc, atol=1e-9)


def test_a_common_concentration_is_that_of_the_pooled_resultants():
    truth = random_mixture(7, 3, 10, 30, 30)
    x = truth.sample((3000,), rng=0)
    fit = VonMisesFisherMixture.fit(
        x, 3, kind="hard", common_concentration=True, max_iter=200, rng=1
    )
    labels = fit.predict(x)
    length = sum(np.linalg.norm(x[labels == k].sum(axis=0)) for k in range(3)) / len(x)
    kappa = fit.concentrations[0]
    ratio = float(mpmath.besseli(5, kappa) / mpmath.besseli(4, kappa))
    assert ratio == pytest.approx(length, rel=1e-10)


@pytest.mark.parametrize("common", [False, True])
def test_bias_correction_sees_through_noise_and_keeps_what_is_there(common):
    options = {"bias_correction": True, "common_concentration": common, "rng": 0}
    d, n = 1000, 300
    truth = VonMisesFisherMixture([0.5, 0.5], np.eye(2, d), [300.0, 300.0])
    x = truth.sample((n,), rng=1)
    corrected = VonMisesFisherMixture.fit(x, 2, **options)
    np.testing.assert_allclose(corrected.concentrations, 300.0, rtol=0.05)
    with pytest.warns(NumericalWarning, match="bias_correction=True"):
        plain = VonMisesFisherMixture.fit(x, 2, rng=0)
    # E R^2 = rho^2 + (1 - rho^2) / 150 with rho = 0.277: the concentration is 4 to 5 % too high.
    assert plain.concentrations.min() > 310
    assert plain.info.doubtful == (0, 1)


def test_bias_correction_goes_on_after_a_fall():
    locs = SphericalUniform(5).sample((3,), rng=103)
    x = VonMisesFisher(locs, 4.0).sample((20,), rng=3).reshape(-1, 5)
    fit = VonMisesFisherMixture.fit(x, 3, rng=3, bias_correction=True, max_iter=2000)
    steps = np.diff(fit.info.trace)
    assert steps.min() < -1e-6  # it does fall
    assert fit.info.converged
    assert abs(steps[-1]) <= 1e-6 < abs(steps[:-1]).min()
    with pytest.warns(ConvergenceWarning, match=r"changed the mean log-likelihood by [+-]\d"):
        VonMisesFisherMixture.fit(x, 3, rng=3, bias_correction=True, max_iter=2)


def close_components(d, kappa, k=5):
    """A mixture whose components overlap, its rows, and log-densities, component by component.

    All in what single precision leaves of them, as unit vectors of double precision.
    """
    rng = np.random.default_rng(d)
    spread = 3 / math.sqrt(kappa * max(d / 9, 1.0))
    locs = unit(unit(rng.normal(size=d)) + spread * rng.normal(size=(k, d)))
    single = VonMisesFisherMixture(np.full(k, 1 / k), locs.astype(np.float32), kappa)
    x = VonMisesFisherMixture(np.full(k, 1 / k), locs, kappa).sample((1000,), rng=1)
    x = x.astype(np.float32)
    rows, locs = unit(x.astype(float)), unit(single.locs.astype(float))
    parts = [VonMisesFisher(loc, kappa).log_prob(rows) - math.log(k) for loc in locs]
    return single, x, np.stack(parts, axis=1)


@pytest.mark.parametrize(("d", "kappa"), [(3, 1e7), (50, 1e6), (1000, 1e6), (1000, 1e8)])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_float32_carries_high_concentrations(d, kappa, kind):
    mixture, x, parts = close_components(d, kappa)
    reference = scipy.special.logsumexp(parts, axis=1)
    # float32 answers: half an ulp of the largest.
    tolerance = 6e-8 * abs(reference).max() + 1e-14 * kappa
    np.testing.assert_allclose(mixture.log_prob(kind(x)), reference, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(mixture.predict(kind(x)), parts.argmax(axis=1))
    shares = np.exp(parts - reference[:, None])
    np.testing.assert_allclose(mixture.predict_proba(kind(x)), shares, atol=1e-6)


def test_a_high_concentration_is_fitted_in_float32_as_in_float64():
    truth = VonMisesFisherMixture([0.5, 0.5], unit([[1.0, 0, 0, 0], [1.0, 8e-3, 0, 0]]), 1e6)
    x = truth.sample((4000,), rng=0).astype(np.float32)
    start = np.eye(2, 4)[[0, 0]] + [[0, -1e-3, 0, 0], [0, 7e-3, 0, 0]]
    options = {"init": unit(start), "tol": 1e-13, "max_iter": 1000}
    single = VonMisesFisherMixture.fit(x, 2, **options)
    double = VonMisesFisherMixture.fit(unit(x.astype(float)), 2, **options)
    # Answers are rounded once.
    np.testing.assert_allclose(single.weights, double.weights, rtol=1e-6)
    np.testing.assert_allclose(single.concentrations, double.concentrations, rtol=1e-6)
    assert single.info.log_likelihood == pytest.approx(double.info.log_likelihood, rel=1e-10)


def test_float32_gives_what_float64_gives():
    truth = random_mixture(8, 5, 64, 60, 120)
    x = truth.sample((5000,), rng=0)
    double = VonMisesFisherMixture.fit(x, 5, rng=1)
    single = VonMisesFisherMixture.fit(x.astype(np.float32), 5, rng=1)
    for name in ("weights", "locs", "concentrations"):
        assert getattr(single, name).dtype == np.float32
        assert getattr(double, name).dtype == np.float64
    order = matched(single, double)
    np.testing.assert_allclose(single.concentrations[order], double.concentrations, rtol=1e-4)
    assert single.log_prob(x.astype(np.float32)).dtype == np.float32
    assert single.predict_proba(x.astype(np.float32)).dtype == np.float32
    assert single.predict(x.astype(np.float32)).dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sparse_rows_are_fitted_as_dense_ones(dtype, index):
    rng = np.random.default_rng(9)
    x = np.repeat(np.eye(4, 60), 100, axis=0) + 0.3 * rng.exponential(size=(400, 60))
    x = unit(np.where((rng.random(x.shape) < 0.3) | (x > 1), x, 0)).astype(dtype)
    sparse = scipy.sparse.csr_array(x)
    sparse.indices, sparse.indptr = sparse.indices.astype(index), sparse.indptr.astype(index)
    a = VonMisesFisherMixture.fit(x, 4, rng=0)
    b = VonMisesFisherMixture.fit(sparse, 4, rng=0)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(a.locs, b.locs, atol=tolerance)
    np.testing.assert_allclose(a.concentrations, b.concentrations, rtol=tolerance)
    assert b.locs.dtype == dtype


def test_sparse_rows_stay_sparse():
    # Dense, the rows would take 8 GB.
    n, d = 10_000, 100_000
    rng = np.random.default_rng(0)
    columns = rng.integers(0, d, size=(n, 20)).astype(np.int32)
    columns[:, 0] = np.arange(n) % 5
    values = np.full((n, 20), (0.7 / 19) ** 0.5)
    values[:, 0] = 0.3**0.5
    indptr = np.arange(0, 20 * n + 1, 20)
    x = scipy.sparse.csr_array((values.ravel(), columns.ravel(), indptr), shape=(n, d))
    x.sum_duplicates()
    x = scipy.sparse.diags_array(1 / np.sqrt(x.multiply(x).sum(axis=1))) @ x
    fit = VonMisesFisherMixture.fit(x.tocsr(), 5, common_concentration=True, rng=0)
    labels = fit.predict(x.tocsr())
    assert all(len(set(labels[k::5])) == 1 for k in range(5))


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads():
    truth = random_mixture(10, 5, 20, 10, 30)
    x = truth.sample((3000,), rng=0)
    sparse = scipy.sparse.csr_array(np.where(np.abs(x) > 0.15, x, 0))
    sparse = scipy.sparse.csr_array(unit(sparse.toarray()))
    fits = []
    try:
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            for rows in (x, sparse, x.astype(np.float32)):
                fits.append(VonMisesFisherMixture.fit(rows, 5, max_iter=300, rng=7))
            fits.append(fits[0].sample((1000,), rng=3))
            fits.append(fits[0].log_prob(x))
    finally:
        pyprobe.set_num_threads(None)
    for first, *others in zip(fits[:5], fits[5:10], fits[10:], strict=True):
        for other in others:
            if isinstance(first, np.ndarray):
                np.testing.assert_array_equal(first, other)
            else:
                np.testing.assert_array_equal(first.locs, other.locs)
                np.testing.assert_array_equal(first.concentrations, other.concentrations)
                np.testing.assert_array_equal(first.info.trace, other.info.trace)


def test_a_generator_advances_and_a_seed_repeats():
    x = random_mixture(11, 3, 5, 10, 30).sample((500,), rng=0)
    generator = np.random.default_rng(1)
    mixture = VonMisesFisherMixture.fit(x, 3, max_iter=500, rng=generator)
    assert (mixture.sample((3,), rng=generator) != mixture.sample((3,), rng=generator)).all()
    np.testing.assert_array_equal(mixture.sample((3,), rng=5), mixture.sample((3,), rng=5))


def test_more_starts_are_never_worse_and_the_callback_sees_them_all():
    truth = random_mixture(12, 8, 4, 20, 60)
    x = truth.sample((1000,), rng=0)
    steps = []

    def fit(n_init, callback=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return VonMisesFisherMixture.fit(
                x, 8, n_init=n_init, max_iter=20, rng=3, callback=callback
            )

    one, many = fit(1), fit(5, lambda p: steps.append((p.step, p.total)))
    assert many.info.log_likelihood >= one.info.log_likelihood
    assert steps == sorted(steps)
    assert {total for _, total in steps} == {100}
    assert max(steps)[0] > 80


def test_a_callback_stops_the_fit():
    x = random_mixture(13, 5, 4, 3, 6).sample((1000,), rng=0)
    fit = VonMisesFisherMixture.fit(
        x, 5, n_init=4, tol=0.0, rng=0, callback=lambda progress: progress.step == 3
    )
    assert fit.info.n_iter == 3
    assert fit.info.stopped
    assert not fit.info.converged


def test_a_fit_stopped_by_max_iter_says_so():
    x = random_mixture(13, 5, 4, 3, 6).sample((1000,), rng=0)
    with pytest.warns(ConvergenceWarning, match=r"stopped after 2 iterations.*raise max_iter"):
        fit = VonMisesFisherMixture.fit(x, 5, max_iter=2, rng=0)
    assert not fit.info.converged


def test_a_fit_starts_from_given_directions():
    truth = random_mixture(14, 4, 12, 60, 90)
    x = truth.sample((2000,), rng=0)
    fit = VonMisesFisherMixture.fit(x, 4, init=truth.locs)
    np.testing.assert_allclose(fit.locs, truth.locs, atol=0.05)  # in the same order


# --- guards ---


def test_copies_of_one_row_leave_a_finite_mixture_and_a_warning():
    x = np.tile([0.6, 0.8, 0.0], (20, 1))
    with pytest.warns(NumericalWarning, match="collapsed"):
        fit = VonMisesFisherMixture.fit(x, 3, rng=0)
    for array in (fit.weights, fit.locs, fit.concentrations, fit.log_prob(x)):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(fit.weights.sum(), 1)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_one_component_a_row_is_finite(kind):
    x = unit(np.random.default_rng(0).normal(size=(6, 4)))
    with pytest.warns(NumericalWarning, match="6 components .* collapsed"):
        fit = VonMisesFisherMixture.fit(x, 6, kind=kind, rng=0)
    assert sorted(fit.predict(x)) == list(range(6))
    assert np.isfinite(fit.concentrations).all()
    assert fit.info.collapsed == tuple(range(6))


def test_bias_correction_makes_nothing_of_single_rows():
    x = unit(np.random.default_rng(0).normal(size=(6, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = VonMisesFisherMixture.fit(x, 6, bias_correction=True, max_iter=3, rng=0)
    assert fit.concentrations.max() < 10
    assert fit.info.collapsed == ()


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_component_without_rows_is_given_a_new_place(kind):
    truth = VonMisesFisherMixture(np.full(3, 1 / 3), np.eye(3, 5), np.full(3, 200.0))
    x = truth.sample((600,), rng=0)
    # Two starts lie opposite to all data, where no row will go.
    far = unit(-np.ones((2, 5)) - 0.1 * np.eye(2, 5))
    fit = VonMisesFisherMixture.fit(x, 3, kind=kind, init=np.vstack([np.eye(1, 5), far]))
    assert fit.info.n_reseeded >= 1
    np.testing.assert_allclose(fit.weights, 1 / 3, atol=0.1)
    matched(fit, truth)


def test_few_rows_for_the_dimension_are_warned_of():
    noise = SphericalUniform(500).sample((60,), rng=0)
    with pytest.warns(NumericalWarning, match=r"overestimates .* held out"):
        fit = VonMisesFisherMixture.fit(noise, 3, rng=0)
    assert len(fit.info.doubtful) == 3
    # What was warned of is so: the truth is 0.
    assert fit.concentrations.min() > 50
    for option in ("bias_correction", "common_concentration"):
        assert VonMisesFisherMixture.fit(noise, 3, rng=0, **{option: True}).info.doubtful == ()


def test_rows_in_plenty_are_not_warned_of():
    x = random_mixture(15, 3, 5, 1, 5).sample((5000,), rng=0)
    assert VonMisesFisherMixture.fit(x, 3, max_iter=5000, rng=0).info.doubtful == ()


# --- draws, files ---


@pytest.mark.statistical
def test_draws_follow_the_law_of_the_components():
    # For each component, the law of loc . x against its integral by SciPy's quadrature: four
    # Kolmogorov-Smirnov tests and one chi-square at 2e-7 each, 1e-6 in all. With 20000 draws a
    # distance of 0.03 in one of the laws, or 0.02 in a weight, is found.
    d, n = 6, 20_000
    mixture = VonMisesFisherMixture([0.1, 0.2, 0.3, 0.4], np.eye(4, d), [0.0, 5.0, 50.0, 500.0])
    x = mixture.sample((n,), rng=12)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=4e-16 * 4)
    # The whole law of each coordinate is a mixture of marginals: that of the first four differ.
    grid = np.cos(np.linspace(np.pi, 0, 20_001))

    def cdf(kappa):
        density = np.exp(kappa * (grid - 1)) * (1 - grid**2) ** ((d - 3) / 2)
        steps = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
        return steps / steps[-1]

    labels = mixture.predict(x)
    counts = np.bincount(labels, minlength=4)
    expected = mixture.predict_proba(x).sum(axis=0)
    assert np.abs(expected / n - mixture.weights).max() < 0.02
    assert counts.sum() == n
    for k in range(4):
        kappa = mixture.concentrations[k]
        single = VonMisesFisherMixture([1.0], mixture.locs[k : k + 1], [kappa])
        w = single.sample((n,), rng=100 + k) @ mixture.locs[k]
        distance = scipy.stats.kstest(w, lambda t, kappa=kappa: np.interp(t, grid, cdf(kappa)))
        assert distance.pvalue > 2e-7


def test_draws_have_the_shape_asked_for():
    mixture = random_mixture(16, 3, 4, 5, 9)
    assert mixture.sample(rng=0).shape == (4,)
    assert mixture.sample((0,), rng=0).shape == (0, 4)
    assert mixture.sample((2, 3), rng=0).shape == (2, 3, 4)


def test_a_fit_survives_saving(tmp_path):
    x = random_mixture(17, 3, 6, 20, 40).sample((500,), rng=0).astype(np.float32)
    fit = VonMisesFisherMixture.fit(x, 3, common_concentration=True, rng=0)
    fit.save(tmp_path / "mixture.npz")
    back = VonMisesFisherMixture.load(tmp_path / "mixture.npz")
    for name in ("weights", "locs", "concentrations"):
        np.testing.assert_array_equal(getattr(back, name), getattr(fit, name))
        assert getattr(back, name).dtype == np.float32
    np.testing.assert_array_equal(back.info.trace, fit.info.trace)
    assert repr(back.info) == repr(fit.info)
    assert back.info.collapsed == fit.info.collapsed
    assert back.aic(x) == fit.aic(x)
    plain = VonMisesFisherMixture([1.0], [[0.0, 1.0]], [3.0])
    plain.save(tmp_path / "plain.npz")
    assert VonMisesFisherMixture.load(tmp_path / "plain.npz").info is None
    VonMisesFisher([0.6, 0.8], 3.0).save(tmp_path / "other.npz")
    with pytest.raises(DomainError, match="it holds a VonMisesFisher"):
        VonMisesFisherMixture.load(tmp_path / "other.npz")


def test_a_mixture_is_immutable_and_does_not_keep_the_callers_arrays():
    locs = np.eye(2)
    mixture = VonMisesFisherMixture([0.5, 0.5], locs, [1.0, 2.0])
    locs[0] = [0.0, 1.0]
    np.testing.assert_array_equal(mixture.locs, np.eye(2))
    with pytest.raises(ValueError, match="read-only"):
        mixture.locs[0, 0] = 3
    with pytest.raises(AttributeError):
        mixture.weights = [1.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        copy.deepcopy(mixture).locs[0, 0] = 3
    assert repr(mixture) == "VonMisesFisherMixture(n_components=2, dim=2, concentrations=1 to 2)"


# --- bad input ---

GOOD = np.eye(3)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (GOOD[0], {}, ShapeError, "matrix of shape"),
        (np.ones((5, 1)), {}, ShapeError, "at least 2 columns"),
        (GOOD, {"n_components": 4}, ShapeError, "at least n_components = 4 rows; got 3 samples"),
        (GOOD[:0], {}, ShapeError, "at least n_components = 2 rows; got 0 samples"),
        (2 * GOOD, {}, DomainError, "'x' must hold unit vectors: row 0 has norm 2"),
        (np.diag([1, 1, 0.0]), {}, DomainError, "row 2 has norm 0"),
        (np.diag([1, np.nan, 1]), {}, NotFiniteError, "'x' must be finite.*row 1"),
        (np.diag([1, np.inf, 1]), {}, NotFiniteError, "'x' must be finite.*row 1"),
        (scipy.sparse.csr_array(np.diag([1, 0.0, 1])), {}, DomainError, "row 1 has norm 0"),
        (scipy.sparse.csr_array(np.diag([1, np.nan, 1])), {}, NotFiniteError, "row 1, column 1"),
        (scipy.sparse.coo_array(np.ones(3)), {}, ShapeError, "matrix of shape"),
        (GOOD.astype(complex), {}, TypeError, "must hold real numbers"),
        (np.ma.masked_array(GOOD), {}, TypeError, "masked array"),
        (scipy.sparse.csr_array(GOOD.astype(complex)), {}, TypeError, "must hold real numbers"),
        (GOOD, {"n_components": 0}, DomainError, "'n_components' must be at least 1"),
        (GOOD, {"n_components": 2.0}, TypeError, "'n_components' must be an integer"),
        (GOOD, {"kind": "fuzzy"}, DomainError, "'kind' must be one of 'soft', 'hard'"),
        (GOOD, {"init": "random"}, DomainError, "'init' must be one of 'k-means"),
        (GOOD, {"init": np.eye(3)}, ShapeError, r"'init' must have shape \(2, 3\)"),
        (GOOD, {"init": 2 * np.eye(2, 3)}, DomainError, "'init' must hold unit vectors: row 0"),
        (GOOD, {"n_init": 0}, DomainError, "'n_init' must be at least 1"),
        (GOOD, {"max_iter": 0}, DomainError, "'max_iter' must be at least 1"),
        (GOOD, {"tol": -1.0}, DomainError, "'tol' must be finite and nonnegative"),
        (GOOD, {"rng": -1}, DomainError, "'rng' must be a nonnegative seed"),
        (GOOD, {"common_concentration": "no"}, TypeError, "'common_concentration' must be True or"),
        (GOOD, {"callback": True}, TypeError, "'callback' must be a function of one Progress"),
    ],
)
def test_a_fit_refuses_what_it_cannot_use(x, options, error, message):
    with pytest.raises(error, match=message):
        VonMisesFisherMixture.fit(x, **({"n_components": 2} | options))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], np.eye(2), [1.0, 1.0]), ShapeError, r"shape \(2,\), one weight a component"),
        (([0.5, 0.5], np.eye(2), [1.0]), ShapeError, r"'concentrations' must have shape \(2,\)"),
        (([0.5, 0.6], np.eye(2), [1.0, 1.0]), DomainError, "'weights' must sum to 1"),
        (([1.5, -0.5], np.eye(2), [1.0, 1.0]), DomainError, "'weights' must be nonnegative"),
        (([0.5, 0.5], np.eye(2), [1.0, -1.0]), DomainError, "'concentrations' must be nonneg"),
        (([0.5, 0.5], np.eye(2), [1.0, np.inf]), NotFiniteError, "'concentrations' must be fin"),
        (([0.5, 0.5], np.diag([1, 2.0]), [1.0, 1.0]), DomainError, "'locs' .* row 1 has norm 2"),
        (([1.0], [1.0, 0.0], [1.0]), ShapeError, "'locs' must be a matrix"),
        (([1.0], [[1.0]], [1.0]), ShapeError, "'locs' must have at least 2 columns"),
        (([], np.ones((0, 2)), []), ShapeError, "'locs' must have at least one row"),
    ],
)
def test_a_mixture_refuses_parameters_that_are_none(arguments, error, message):
    with pytest.raises(error, match=message):
        VonMisesFisherMixture(*arguments)


@pytest.mark.parametrize("x", [np.empty((0, 2)), scipy.sparse.csr_array((0, 2))])
def test_criteria_need_a_row(x):
    mixture = VonMisesFisherMixture([1.0], [[0.0, 1.0]], [3.0])
    for criterion in (mixture.aic, mixture.bic):
        with pytest.raises(ShapeError, match=r"'x' must have at least one row; got shape \(0, 2\)"):
            criterion(x)


def test_judging_refuses_another_dimension():
    mixture = VonMisesFisherMixture([1.0], [[0.0, 1.0]], [3.0])
    for method in (mixture.log_prob, mixture.predict, mixture.predict_proba):
        with pytest.raises(ShapeError, match="'x' must have 2 columns"):
            method(np.eye(3))
        with pytest.raises(DomainError, match="row 1 has norm 3"):
            method([[1.0, 0.0], [0.0, 3.0]])


@pytest.mark.parametrize("layout", ["strided", "fortran", "big-endian", "read-only", "unaligned"])
def test_any_layout_of_the_data_is_read_right(layout):
    mixture = random_mixture(18, 3, 4, 5, 9)
    x = mixture.sample((40,), rng=0)
    if layout == "strided":
        y = np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3]
    elif layout == "fortran":
        y = np.asfortranarray(x)
    elif layout == "big-endian":
        y = x.astype(">f8")
    elif layout == "read-only":
        y = x.copy()
        y.flags.writeable = False
    else:
        record = np.zeros(40, dtype=[("pad", "i1"), ("x", "f8", (4,))])
        record["x"] = x
        y = record["x"]
        assert not y.flags.aligned
    np.testing.assert_array_equal(mixture.log_prob(y), mixture.log_prob(x))
    a, b = (VonMisesFisherMixture.fit(z, 2, rng=0, max_iter=500) for z in (x, y))
    np.testing.assert_array_equal(a.locs, b.locs)


def test_the_mean_is_that_of_the_draws():
    mixture = VonMisesFisherMixture([0.25, 0.75], np.eye(2, 3), [2.0, 5.0])
    x = mixture.sample((100_000,), rng=0)
    # Coordinates lie in [-1, 1]: five standard errors are below 0.016.
    np.testing.assert_allclose(mixture.mean, x.mean(axis=0), atol=0.016)
    assert (mixture.n_components, mixture.dim) == (2, 3)


def test_one_concentration_serves_all_components():
    shared = VonMisesFisherMixture([0.25, 0.75], np.eye(2, 3), 2.0)
    np.testing.assert_array_equal(shared.concentrations, [2.0, 2.0])
