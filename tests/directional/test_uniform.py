"""The uniform distribution, and Rayleigh's test against it."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from pyprobe.directional import (
    SphericalUniform,
    VonMisesFisher,
    VonMisesFisherMixture,
    rayleigh_test,
)
from pyprobe.errors import DomainError, NumericalWarning, ShapeError


def test_entropy_is_the_logarithm_of_the_area():
    assert SphericalUniform(2).entropy() == pytest.approx(math.log(2 * math.pi), rel=1e-15)
    assert SphericalUniform(3).entropy() == pytest.approx(math.log(4 * math.pi), rel=1e-15)
    assert SphericalUniform(4).entropy() == pytest.approx(math.log(2 * math.pi**2), rel=1e-15)


def test_log_density_is_the_same_everywhere_and_keeps_the_dtype():
    uniform = SphericalUniform(6)
    x = uniform.sample((3, 5), rng=0)
    np.testing.assert_array_equal(uniform.log_prob(x), np.full((3, 5), -uniform.entropy()))
    assert uniform.log_prob(x.astype(np.float32)).dtype == np.float32


def test_moments_are_those_of_symmetry():
    uniform = SphericalUniform(5)
    np.testing.assert_array_equal(uniform.mean, np.zeros(5))
    np.testing.assert_allclose(uniform.covariance_matrix(), np.eye(5) / 5)
    np.testing.assert_allclose(uniform.variance, np.full(5, 0.2))


def test_it_is_immutable_and_hashable():
    assert SphericalUniform(3) == SphericalUniform(3)
    assert len({SphericalUniform(3), SphericalUniform(3), SphericalUniform(4)}) == 2
    with pytest.raises(AttributeError):
        SphericalUniform(3).dim = 4


def test_bad_arguments_are_named():
    with pytest.raises(DomainError, match="'dim' must be at least 2; got 1"):
        SphericalUniform(1)
    with pytest.raises(ShapeError, match=r"'x' must have shape \(\.\.\., 3\); got \(2,\)"):
        SphericalUniform(3).log_prob([0.6, 0.8])
    with pytest.raises(DomainError, match="'x' must hold unit vectors: row 1 has norm 2"):
        SphericalUniform(2).log_prob([[0.6, 0.8], [2.0, 0.0]])
    with pytest.raises(ShapeError, match="'x' must have at least one row"):
        rayleigh_test(np.empty((0, 3)))
    with pytest.raises(DomainError, match="'x' must hold unit vectors: row 0"):
        rayleigh_test([[1.0, 1.0]])


@pytest.mark.parametrize("n", [8, 12, 30])
def test_pvalues_on_the_circle_are_near_the_exact_ones(n):
    # Kluyver: P(|sum of n unit vectors of the plane| > r) = 1 - r int J_1(r t) J_0(t)^n dt.
    for pvalue in (0.5, 0.1, 0.05, 0.01, 0.001):
        r = math.sqrt(-n * math.log(pvalue))  # about there
        integral, _ = integrate.quad(
            lambda t, r=r: special.j1(r * t) * special.j0(t) ** n, 0, 60, limit=500, epsabs=1e-13
        )
        exact = 1 - r * integral
        found = rayleigh_test(sum_of_unit_vectors(n, r)).pvalue
        assert abs(found - exact) < 0.075 / n**2


def sum_of_unit_vectors(n: int, r: float) -> np.ndarray:
    """Return n (even) unit vectors of the plane whose sum has length r."""
    angle = math.acos(r / n)
    return np.array([[math.cos(a), math.sin(a)] for a in [angle, -angle] * (n // 2)])


@pytest.mark.statistical
@pytest.mark.parametrize(("dim", "n"), [(2, 20), (3, 20), (10, 30), (300, 40)])
def test_pvalues_are_uniform_under_uniformity(seed, dim, n):
    repeats = 8000
    draws = SphericalUniform(dim).sample((repeats, n), rng=seed)
    pvalues = np.array([rayleigh_test(x).pvalue for x in draws])
    for level in (0.5, 0.1, 0.01):
        rejected = (pvalues < level).sum()
        low, high = stats.binom.ppf([5e-7, 1 - 5e-7], repeats, level)
        assert low <= rejected <= high, level


def test_a_direction_is_found():
    x = VonMisesFisher([0.0, 0.6, 0.8], 2.0).sample((100,), rng=0)
    result = rayleigh_test(x)
    assert result.pvalue < 1e-10
    assert result.mean_resultant_length == pytest.approx(np.linalg.norm(x.mean(axis=0)))
    assert "RayleighResult(statistic=" in repr(result)


def test_its_divergence_is_the_integral_of_the_log_ratio():
    """In three dimensions the density of w is uniform, so that log(sinh(k) / k) is left."""
    other = VonMisesFisher([0.6, 0.8, 0.0], [0.0, 1.0, 7.0])
    expected = [0.0, math.log(math.sinh(1.0)), math.log(math.sinh(7.0) / 7.0)]
    found = SphericalUniform(3).kl_divergence(other)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert SphericalUniform(3).kl_divergence(SphericalUniform(3)) == 0
    with pytest.raises(ShapeError, match="'other' must have dimension 3; got 2"):
        SphericalUniform(3).kl_divergence(SphericalUniform(2))


def test_its_divergence_has_the_batch_shape():
    loc = np.eye(4, 3) + [0, 0, 1] * (np.arange(4) > 2)[:, None]
    found = SphericalUniform(3).kl_divergence(VonMisesFisher(loc, 7.0))
    np.testing.assert_allclose(found, np.full(4, math.log(math.sinh(7.0) / 7.0)), rtol=1e-14)
    batch = VonMisesFisher(loc[:, None], [0.0, 7.0])
    assert SphericalUniform(3).kl_divergence(batch).shape == (4, 2)


def test_its_divergence_is_finite_for_any_concentration():
    # log 0F1 = kappa - (d - 1) / 2 log kappa + O(1), the concentration itself from 1e18 on.
    for kappa in (1e18, 1e154, 1e200, 1e308):
        assert SphericalUniform(3).kl_divergence(VonMisesFisher([0.6, 0.8, 0], kappa)) == kappa


def test_its_divergence_from_what_is_no_single_distribution_is_refused():
    mixture = VonMisesFisherMixture([1.0], [[0.6, 0.8, 0]], [7.0])
    with pytest.raises(TypeError, match="'other' must be a VonMisesFisher or a SphericalUniform"):
        SphericalUniform(3).kl_divergence(mixture)
    with pytest.warns(NumericalWarning, match="all samples are equal"):
        point = VonMisesFisher.fit([[0.6, 0.8]] * 3)
    with pytest.raises(DomainError, match="a point mass has no density"):
        SphericalUniform(2).kl_divergence(point)
