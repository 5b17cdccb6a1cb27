"""Densities, entropies, divergences and moments, against tables and closed forms."""

import math

import numpy as np
import pytest
from reference_tables import FOLDER
from scipy import integrate, stats

from pyprobe.directional import SphericalUniform, VonMisesFisher

mpmath = pytest.importorskip("mpmath")

TABLE = np.genfromtxt(FOLDER / "von_mises_fisher.csv", delimiter=",", names=True)


def axis(dim: int, k: int = 0) -> np.ndarray:
    e = np.zeros(dim)
    e[k] = 1
    return e


def distributions():
    return [(row, VonMisesFisher(axis(int(row["dim"])), row["concentration"])) for row in TABLE]


def test_entropy_matches_the_certified_table():
    for row, vmf in distributions():
        error = abs(vmf.entropy() - row["entropy"]) / max(1, abs(row["entropy"]))
        assert error <= 1e-13, vmf


def test_divergence_from_uniform_matches_the_certified_table_relatively():
    for row, vmf in distributions():
        uniform = SphericalUniform(vmf.dim)
        assert vmf.kl_divergence(uniform) == pytest.approx(row["kl_uniform"], rel=1e-13, abs=0)


def test_moments_match_the_certified_table():
    for row, vmf in distributions():
        if vmf.dim > 2000:
            continue
        assert vmf.mean[0] == pytest.approx(row["length"], rel=3e-15, abs=0)
        assert vmf.variance[0] == pytest.approx(row["slope"], rel=1e-13, abs=0)
        # The variances of all coordinates add up to 1 - A^2.
        total = row["complement"] * (1 + row["length"])
        assert vmf.variance.sum() == pytest.approx(total, rel=1e-13, abs=0)


def test_log_density_at_the_mode_and_at_its_antipode_matches_the_certified_table():
    for row, vmf in distributions():
        kappa, peak = row["concentration"], row["log_normalizer"]
        # log C + kappa is a difference of large numbers in the table: allow for its rounding.
        tolerance = 1e-13 * max(1, abs(peak)) + 2.3e-16 * kappa
        assert abs(vmf.log_prob(vmf.loc) - (peak + kappa)) <= tolerance
        assert abs(vmf.log_prob(-vmf.loc) - (peak - kappa)) <= tolerance


@pytest.mark.parametrize("kappa", [1e-9, 0.3, 20.0, 1e4, 1e10])
def test_log_density_in_space_keeps_its_digits_near_the_mode(kappa):
    # d = 3: C = kappa / (2 pi (1 - exp(-2 kappa))) for the density C exp(-kappa |x - mu|^2 / 2).
    vmf = VonMisesFisher(axis(3), kappa)
    log_c = math.log(kappa / (2 * math.pi)) - math.log(-math.expm1(-2 * kappa))
    for h in (0.0, 1e-7, 1e-5, 1e-3, 1.0):
        x = [math.cos(h), math.sin(h), 0.0]
        expected = log_c - kappa * 2 * math.sin(h / 2) ** 2
        assert vmf.log_prob(x) == pytest.approx(expected, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("dim", [2, 3, 4, 10, 50])
@pytest.mark.parametrize("kappa", [0.0, 1.0, 30.0])
def test_the_density_integrates_to_one(dim, kappa):
    vmf = VonMisesFisher(axis(dim), kappa)
    # Area of the sphere at height w = cos(t): that of the unit sphere in d - 1 dimensions times
    # sin(t)^(d-2) dt.
    log_area = math.log(2) + (dim - 1) / 2 * math.log(math.pi) - math.lgamma((dim - 1) / 2)

    def density(t):
        x = math.cos(t) * axis(dim) + math.sin(t) * axis(dim, 1)
        return math.exp(vmf.log_prob(x) + log_area) * math.sin(t) ** (dim - 2)

    total, _ = integrate.quad(density, 0, math.pi, epsabs=1e-11, epsrel=1e-11)
    assert total == pytest.approx(1, abs=1e-10)


def test_scipy_agrees_where_it_works():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    theirs, ours = stats.vonmises_fisher(x[0], 7.0), VonMisesFisher(x[0], 7.0)
    np.testing.assert_allclose(ours.log_prob(x), theirs.logpdf(x), rtol=1e-12)
    assert ours.entropy() == pytest.approx(theirs.entropy(), rel=1e-12)


def cumulant(dim, kappa):
    """Return G and A to 80 digits."""
    with mpmath.workdps(80):
        b, z = mpmath.mpf(dim) / 2, mpmath.mpf(kappa) ** 2 / 4
        low = mpmath.hyp0f1(b, z, maxterms=10**6)
        high = mpmath.hyp0f1(b + 1, z, maxterms=10**6)
        return mpmath.log(low), mpmath.mpf(kappa) / dim * high / low


@pytest.mark.parametrize("dim", [2, 3, 5, 128, 2048, 32768])
@pytest.mark.parametrize("kappa", [1e-6, 0.5, 30.0, 5000.0])
@pytest.mark.parametrize("ratio", [1e-12, 1e-6, 1e-2, 0.4, 1.0, 7.0, -1e-6, -0.5, -0.999])
def test_divergence_of_two_concentrations_is_relatively_accurate(dim, kappa, ratio):
    other = kappa * (1 + ratio)
    with mpmath.workdps(80):
        first, mean = cumulant(dim, kappa)
        expected = cumulant(dim, other)[0] - first - mean * (mpmath.mpf(other) - mpmath.mpf(kappa))
    loc = axis(dim)
    found = VonMisesFisher(loc, kappa).kl_divergence(VonMisesFisher(loc, other))
    assert found == pytest.approx(float(expected), rel=1e-12, abs=0)


@pytest.mark.parametrize("kappa", [1e-3, 2.0, 1e5])
def test_divergence_of_two_directions_in_space_has_its_closed_form(kappa):
    coth_minus = 1 / math.tanh(kappa) - 1 / kappa if kappa > 1e-2 else kappa / 3 - kappa**3 / 45
    for angle in (1e-8, 0.3, math.pi):
        other = VonMisesFisher([math.cos(angle), math.sin(angle), 0.0], kappa)
        found = VonMisesFisher(axis(3), kappa).kl_divergence(other)
        expected = kappa * coth_minus * 2 * math.sin(angle / 2) ** 2
        assert found == pytest.approx(expected, rel=1e-12, abs=0)


def test_zero_concentration_is_the_uniform_distribution():
    for dim in (2, 3, 1000):
        vmf, uniform = VonMisesFisher(axis(dim), 0.0), SphericalUniform(dim)
        x = uniform.sample((5,), rng=0)
        np.testing.assert_allclose(vmf.log_prob(x), uniform.log_prob(x), rtol=1e-15)
        assert vmf.entropy() == pytest.approx(uniform.entropy(), rel=1e-15)
        assert vmf.kl_divergence(uniform) == 0
        np.testing.assert_allclose(vmf.mean, 0, atol=0)
        np.testing.assert_allclose(vmf.variance, 1 / dim, rtol=1e-15)


@pytest.mark.parametrize("dim", [2, 3, 512, 32768, 131072])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 1.0, 1e4, 1e8, 1e15])
def test_everything_is_finite_in_all_dimensions(dim, kappa):
    vmf = VonMisesFisher(axis(dim), kappa)
    other = VonMisesFisher(axis(dim, 1), 3.0)
    values = [
        vmf.log_prob(vmf.loc),
        vmf.log_prob(other.loc),
        vmf.entropy(),
        vmf.kl_divergence(other),
        other.kl_divergence(vmf),
        vmf.kl_divergence(SphericalUniform(dim)),
    ]
    assert np.isfinite(values).all()


def test_covariance_is_that_of_the_formula():
    loc = np.array([0.6, 0.0, 0.8])
    vmf = VonMisesFisher(loc, 2.0)
    mean = 1 / math.tanh(2.0) - 0.5
    slope = 1 - mean**2 - 2 * mean / 2.0
    expected = mean / 2.0 * (np.eye(3) - np.outer(loc, loc)) + slope * np.outer(loc, loc)
    np.testing.assert_allclose(vmf.covariance_matrix(), expected, atol=1e-15)
    np.testing.assert_allclose(vmf.variance, np.diag(expected), atol=1e-15)
    np.testing.assert_array_equal(vmf.mode, loc)


def test_batches_broadcast_as_single_distributions_would():
    locs = np.array([[[0.6, 0.8]], [[0.0, 1.0]]])
    kappas = np.array([0.5, 3.0, 40.0])
    batch = VonMisesFisher(locs, kappas)
    assert batch.batch_shape == (2, 3)
    x = SphericalUniform(2).sample((4, 1, 1), rng=0)
    other = VonMisesFisher([1.0, 0.0], 2.0)
    for i in range(2):
        for j in range(3):
            one = VonMisesFisher(locs[i, 0], kappas[j])
            np.testing.assert_allclose(batch.log_prob(x)[:, i, j], one.log_prob(x[:, 0, 0]))
            for name in ("entropy", "covariance_matrix"):
                np.testing.assert_allclose(getattr(batch, name)()[i, j], getattr(one, name)())
            np.testing.assert_allclose(batch.mean[i, j], one.mean)
            np.testing.assert_allclose(batch.variance[i, j], one.variance)
            assert batch.kl_divergence(other)[i, j] == pytest.approx(one.kl_divergence(other))
            assert other.kl_divergence(batch)[i, j] == pytest.approx(other.kl_divergence(one))
    assert batch.sample((5, 7), rng=0).shape == (5, 7, 2, 3, 2)
    assert batch.sample(rng=0).shape == (2, 3, 2)
    assert VonMisesFisher(axis(2), kappas).entropy().shape == (3,)
    assert VonMisesFisher(locs, 1.0).entropy().shape == (2, 1)


def test_float32_stays_float32_and_is_as_good_as_its_rounding():
    double = VonMisesFisher([0.6, 0.0, 0.8], 50.0)
    single = VonMisesFisher(double.loc.astype(np.float32), 50.0)
    x = double.sample((10,), rng=0)
    for name in ("mean", "variance", "loc"):
        assert getattr(single, name).dtype == np.float32
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=2e-7)
    found = single.log_prob(x.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, double.log_prob(x), rtol=1e-5)
    assert single.sample((3,), rng=0).dtype == np.float32


def test_saved_distributions_come_back_as_they_were(tmp_path):
    path = tmp_path / "vmf.npz"
    x = VonMisesFisher([0.6, 0.8], 5.0).sample((50,), rng=0)
    for vmf in (
        VonMisesFisher.fit(x),
        VonMisesFisher(np.eye(3, dtype=np.float32), [1.0, 2.0, 3.0]),
    ):
        vmf.save(path)
        back = VonMisesFisher.load(path)
        np.testing.assert_array_equal(back.loc, vmf.loc)
        assert back.loc.dtype == vmf.loc.dtype
        np.testing.assert_array_equal(back.concentration, vmf.concentration)
        assert repr(back.info) == repr(vmf.info)


def test_the_value_cannot_be_changed():
    loc = np.array([0.6, 0.8])
    vmf = VonMisesFisher(loc, 5.0)
    loc[:] = 0  # the value has its own copy
    np.testing.assert_array_equal(vmf.loc, [0.6, 0.8])
    with pytest.raises(ValueError, match="read-only"):
        vmf.loc[0] = 1
    with pytest.raises(AttributeError):
        vmf.concentration = 2.0


def test_repr_shows_shapes_and_scalars():
    assert repr(VonMisesFisher(axis(3), 2.5)) == "VonMisesFisher(dim=3, concentration=2.5)"
    batch = VonMisesFisher(np.eye(3), [1.0, 2.0, 3.0])
    assert repr(batch) == "VonMisesFisher(dim=3, concentration=shape (3,), batch_shape=(3,))"
