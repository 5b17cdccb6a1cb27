"""Fits: exact data sets, certified concentrations, bias, standard errors, cones, warnings."""

import warnings

import numpy as np
import pytest
from reference_tables import FOLDER
from scipy import stats

import pyprobe
from pyprobe.directional import SphericalUniform, VonMisesFisher, rayleigh_test
from pyprobe.errors import DomainError, NumericalWarning

TABLE = np.genfromtxt(FOLDER / "von_mises_fisher.csv", delimiter=",", names=True)


def axis(dim: int, k: int = 0) -> np.ndarray:
    e = np.zeros(dim)
    e[k] = 1
    return e


def pair(dim: int, length: float, complement: float) -> np.ndarray:
    """Return two unit vectors whose mean has this length, along the first axis."""
    x = np.zeros((2, dim))
    x[:, 0] = length
    x[:, 1] = np.sqrt(complement * (1 + length)) * np.array([1, -1])
    return x


def test_the_fit_of_a_pair_has_the_certified_concentration():
    for row in TABLE:
        x = pair(int(row["dim"]), row["length"], row["complement"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)
            fit = VonMisesFisher.fit(x)
        assert fit.concentration == pytest.approx(row["concentration"], rel=1e-13, abs=0), fit
        np.testing.assert_allclose(fit.loc, axis(int(row["dim"])), atol=1e-15)
        assert fit.info.mean_resultant_length == pytest.approx(row["length"], rel=1e-15)
        assert fit.info.mean_resultant_complement == pytest.approx(row["complement"], rel=1e-14)


def test_a_simulated_fit_recovers_its_distribution(seed):
    loc = np.array([0.0, -0.6, 0.8])
    x = VonMisesFisher(loc, 20.0).sample((20_000,), rng=seed)
    fit = VonMisesFisher.fit(x)
    # 4.9 standard errors are passed once in 10^6.
    assert abs(fit.concentration - 20) < 4.9 * fit.info.concentration_stderr
    assert np.arccos(fit.loc @ loc) < 0.02
    assert fit.info.converged
    assert fit.info.reliable
    assert fit.info.n_samples == fit.info.n_effective == 20_000


def test_weights_count_as_repetitions():
    x = VonMisesFisher(axis(3), 5.0).sample((6,), rng=0)
    weights = np.array([3.0, 1.0, 0.0, 2.0, 1.0, 4.0])
    weighted = VonMisesFisher.fit(x, weights=weights)
    repeated = VonMisesFisher.fit(np.repeat(x, weights.astype(int), axis=0))
    assert weighted.concentration == pytest.approx(repeated.concentration, rel=1e-14)
    np.testing.assert_allclose(weighted.loc, repeated.loc, rtol=1e-14)
    assert weighted.info.n_effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    scaled = VonMisesFisher.fit(x, weights=1e-3 * weights)
    assert scaled.concentration == pytest.approx(weighted.concentration, rel=1e-13)


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-161, 1e153, 1e300, 1.7e308])
def test_the_scale_of_the_weights_does_not_count(scale):
    x = VonMisesFisher(axis(3), 5.0).sample((40,), rng=0)
    plain, weighted = VonMisesFisher.fit(x), VonMisesFisher.fit(x, weights=np.full(40, scale))
    assert weighted.concentration == pytest.approx(plain.concentration, rel=1e-13)
    np.testing.assert_allclose(weighted.loc, plain.loc, rtol=1e-13)
    assert weighted.info.n_effective == pytest.approx(40)


def test_layout_and_threads_change_no_bit(seed):
    x = VonMisesFisher(axis(40), 30.0).sample((3000,), rng=seed)
    expected = VonMisesFisher.fit(x)
    spread = np.zeros((3000, 80))
    spread[:, ::2] = x
    before = pyprobe.get_num_threads()
    try:
        for n in (1, 2, 4):
            pyprobe.set_num_threads(n)
            for layout in (x, np.asfortranarray(x), spread[:, ::2], x.astype(">f8")):
                fit = VonMisesFisher.fit(layout)
                assert fit.concentration == expected.concentration
                np.testing.assert_array_equal(fit.loc, expected.loc)
    finally:
        pyprobe.set_num_threads(before)


def test_float32_rows_give_a_float32_direction_and_nearly_the_same_concentration(seed):
    x = VonMisesFisher(axis(300), 500.0).sample((1000,), rng=seed)
    double, single = VonMisesFisher.fit(x), VonMisesFisher.fit(x.astype(np.float32))
    assert single.loc.dtype == np.float32
    assert single.concentration == pytest.approx(double.concentration, rel=1e-6)


@pytest.mark.statistical
def test_bias_correction_removes_the_bias_of_few_samples_in_many_dimensions(seed):
    dim, kappa, n, repeats = 1024, 50.0, 100, 40
    draws = VonMisesFisher(axis(dim), kappa).sample((repeats, n), rng=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        plain = [VonMisesFisher.fit(x).concentration for x in draws]
    fits = [VonMisesFisher.fit(x, bias_correction=True) for x in draws]
    corrected = np.array([fit.concentration for fit in fits])
    # Maximum likelihood solves A = R with R^2 near rho^2 + 1/n: more than twice too high.
    assert min(plain) > 2 * kappa
    error = corrected.std(ddof=1) / np.sqrt(repeats)
    assert abs(corrected.mean() - kappa) < 5.5 * error  # of Student's law with 39 degrees: 2e-6
    assert error < 0.03 * kappa  # so that a bias of a sixth would be seen


@pytest.mark.statistical
@pytest.mark.parametrize(("dim", "kappa", "n"), [(3, 5.0, 100), (20, 30.0, 300), (512, 60.0, 150)])
def test_standard_errors_are_those_of_repeated_fits(seed, dim, kappa, n):
    repeats = 600
    draws = VonMisesFisher(axis(dim), kappa).sample((repeats, n), rng=seed)
    fits = [VonMisesFisher.fit(x, bias_correction=True) for x in draws]
    spread = np.std([fit.concentration for fit in fits], ddof=1)
    claimed = np.median([fit.info.concentration_stderr for fit in fits])
    # Chi-squared bounds for 600 repeats at 1e-6, and a tenth for the linearization.
    low, high = np.sqrt(stats.chi2.ppf([5e-7, 1 - 5e-7], repeats - 1) / (repeats - 1))
    assert low / 1.1 < spread / claimed < high * 1.1


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("dim", "kappa", "n"),
    [(2, 2.0, 50), (3, 100.0, 4), (3, 5.0, 50), (20, 5.0, 50), (60, 30.0, 80), (512, 60.0, 150)],
)
def test_cones_cover_the_direction_as_often_as_they_say(seed, dim, kappa, n):
    repeats = 1000
    draws = VonMisesFisher(axis(dim), kappa).sample((repeats, n), rng=seed)
    fits = [VonMisesFisher.fit(x, bias_correction=True) for x in draws]
    covered = sum(np.arccos(np.clip(fit.loc[0], -1, 1)) < fit.info.loc_cone for fit in fits)
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], repeats, 0.95)
    # The approximations may take or add one percent.
    assert low - 10 <= covered <= high + 10


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(("dim", "n"), [(2000, 100), (100, 120), (20, 100), (3, 50)])
def test_noise_is_called_uniform_however_many_samples_there_are(dim, n, corrected):
    """At its level of 0.05 the test lets one sample of noise in twenty pass."""
    passed = 0
    for seed in range(20):
        noise = SphericalUniform(dim).sample((n,), rng=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit = VonMisesFisher.fit(noise, bias_correction=corrected)
        assert fit.info.pvalue == rayleigh_test(noise).pvalue
        if fit.info.pvalue < 0.05:
            passed += 1
        else:
            assert not fit.info.reliable
            assert fit.info.loc_cone == np.pi
            assert "finds no direction" in str(caught[0].message)
    assert passed <= 5  # of 20, at 0.05 each: more in 3 of 10000


def test_a_bias_beyond_its_standard_error_is_reported():
    """Near the mode the bias is 1 / (n - 1), the error sqrt(2 / (n (d - 1))), both relative."""
    x = VonMisesFisher(axis(200), 1e5).sample((20,), rng=0)
    message = r"overestimate .* by 0\.053 of itself or 2\.2 standard errors.* bias_correction=True"
    with pytest.warns(NumericalWarning, match=message):
        fit = VonMisesFisher.fit(x)
    assert not fit.info.reliable
    corrected = VonMisesFisher.fit(x, bias_correction=True)
    assert corrected.info.reliable
    assert abs(corrected.concentration - 1e5) < 3 * corrected.info.concentration_stderr
    assert corrected.info.mean_resultant_length == fit.info.mean_resultant_length
    assert VonMisesFisher.fit(VonMisesFisher(axis(40), 1e5).sample((50,), rng=0)).info.reliable


@pytest.mark.parametrize(("dtype", "kappa"), [("f4", 1e16), ("f8", 1e32)])
def test_the_spread_of_rounding_is_not_taken_for_one_of_samples(dtype, kappa):
    x = VonMisesFisher([0.48, 0.6, 0.64], kappa).sample((100,), rng=0).astype(dtype)
    with pytest.warns(NumericalWarning, match=f"rounding of float{8 * x.itemsize}"):
        fit = VonMisesFisher.fit(x)
    assert not fit.info.reliable


@pytest.mark.parametrize("corrected", [False, True])
def test_one_sample_has_an_infinite_concentration(corrected):
    with pytest.warns(NumericalWarning, match="the concentration is infinite: there is one sample"):
        fit = VonMisesFisher.fit([[0.6, 0.8]], bias_correction=corrected)
    assert fit.concentration == np.inf
    assert not fit.info.converged
    assert not fit.info.reliable
    np.testing.assert_array_equal(fit.sample((2,), rng=0), [[0.6, 0.8]] * 2)
    finite = VonMisesFisher([0.6, 0.8], 1.0)
    for density in (
        lambda: fit.log_prob([0.6, 0.8]),
        fit.entropy,
        lambda: fit.kl_divergence(finite),
        lambda: finite.kl_divergence(fit),
    ):
        with pytest.raises(DomainError, match="a point mass has no density"):
            density()
    np.testing.assert_array_equal(fit.mean, [0.6, 0.8])
    np.testing.assert_array_equal(fit.variance, 0)


def test_equal_samples_have_an_infinite_concentration():
    with pytest.warns(NumericalWarning, match="all samples are equal"):
        fit = VonMisesFisher.fit([[0.6, 0.8]] * 3)
    assert fit.concentration == np.inf


def test_opposite_samples_have_no_direction():
    with pytest.warns(NumericalWarning, match=r"no direction \(p = 1\)"):
        fit = VonMisesFisher.fit([[0.6, 0.8, 0.0], [-0.6, -0.8, 0.0]] * 3)
    assert fit.concentration == 0
    assert fit.info.loc_cone == np.pi
    assert np.isfinite(fit.info.concentration_stderr)
