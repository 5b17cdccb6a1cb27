"""Exact and sliced Wasserstein distances."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pyprobe.errors import DomainError, MissingDependencyError, NotFiniteError, ShapeError
from pyprobe.metrics import sliced_wasserstein, wasserstein
from pyprobe.metrics._numpy import quantile_coupling

BOTH = [wasserstein, sliced_wasserstein]


def cloud(n, d, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


# On a line.


@given(n=st.integers(1, 60), m=st.integers(1, 60), seed=st.integers(0, 999))
def test_on_a_line_it_is_scipys(n, m, seed):
    x, y = cloud(n, 1, seed), cloud(m, 1, seed + 1000)
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0])
    assert wasserstein(x, y) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert sliced_wasserstein(x[:, 0], y[:, 0], p=1) == wasserstein(x, y)


@given(n=st.integers(1, 40), m=st.integers(1, 40))
def test_the_coupling_of_a_line_has_the_right_marginals(n, m):
    i, j, mass = quantile_coupling(n, m)
    assert (mass > 0).all()
    np.testing.assert_allclose(np.bincount(i, mass, n), np.full(n, 1 / n), rtol=1e-13)
    np.testing.assert_allclose(np.bincount(j, mass, m), np.full(m, 1 / m), rtol=1e-13)
    assert (np.diff(i) >= 0).all()
    assert (np.diff(j) >= 0).all()


@pytest.mark.parametrize("p", [1, 1.5, 2, 7])
def test_samples_of_different_sizes_are_those_of_their_copies(p):
    x, y = cloud(12, 1), cloud(20, 1, 1, shift=1.0)
    copies = wasserstein(np.repeat(x, 5, axis=0), np.repeat(y, 3, axis=0), p=p)
    assert wasserstein(x, y, p=p) == pytest.approx(copies, rel=1e-13)


def test_large_orders_and_numbers_do_not_overflow():
    assert wasserstein([0.0, 1e200], [1e200, 3e200], p=300) == pytest.approx(2e200, rel=1e-2)
    assert wasserstein([0.0, 0.0], [1e-200, 1e-200], p=3) == pytest.approx(1e-200, rel=1e-14)
    assert wasserstein([1.0], [1.0], p=2) == 0


@pytest.mark.statistical
def test_between_gaussians_it_is_near_the_closed_form(seed):
    # W_2^2 of N(0, 1) and N(s, v^2) is s^2 + (1 - v)^2. With 10^5 points the error of W_2 has a
    # standard deviation below 0.006 (that of the means and the spreads); 4.9 of them pass once in
    # 10^6.
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=100_000), 1.0 + 0.5 * rng.normal(size=100_000)
    assert wasserstein(x, y, p=2) == pytest.approx(math.hypot(1.0, 0.5), abs=4.9 * 0.006)


# Beyond it.


def test_a_permutation_is_undone():
    x = cloud(60, 4)
    order = np.random.default_rng(1).permutation(60)
    assert wasserstein(x, x[order]) == 0
    # A small shift leaves the assignment as it is.
    shift = np.array([1e-3, 0, 0, 0])
    for p in (1, 2, 3):
        assert wasserstein(x, x[order] + shift, p=p) == pytest.approx(1e-3, rel=1e-12)


def test_it_is_the_best_of_all_assignments():
    from itertools import permutations

    x, y = cloud(6, 2), cloud(6, 2, 1)
    for p in (1, 1.5, 2):
        gaps = [np.linalg.norm(x - y[list(order)], axis=1) for order in permutations(range(6))]
        best = min((gap**p).mean() ** (1 / p) for gap in gaps)
        assert wasserstein(x, y, p=p) == pytest.approx(best, rel=1e-13)


@pytest.mark.parametrize("p", [1, 2])
def test_different_sizes_are_those_of_pot_and_of_copies(p):
    ot = pytest.importorskip("ot")
    x, y = cloud(12, 3), cloud(8, 3, 1, shift=0.5)
    found = wasserstein(x, y, p=p)
    cost = ot.dist(x, y, metric="euclidean") ** p
    expected = ot.emd2(np.full(12, 1 / 12), np.full(8, 1 / 8), cost) ** (1 / p)
    assert found == pytest.approx(expected, rel=1e-12)
    copies = wasserstein(np.repeat(x, 2, axis=0), np.repeat(y, 3, axis=0), p=p)
    assert found == pytest.approx(copies, rel=1e-12)


def test_different_sizes_without_pot_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pyprobe-rs\[ot\]'"):
        wasserstein(cloud(3, 2), cloud(4, 2))
    assert wasserstein(cloud(3, 1), cloud(4, 1)) > 0


@pytest.mark.parametrize("distance", BOTH)
def test_symmetry_translation_and_scaling(distance):
    x, y = cloud(30, 3), cloud(30, 3, 1, shift=0.3)
    options = {"rng": 0} if distance is sliced_wasserstein else {}
    for p in (1, 2, 2.5):
        value = distance(x, y, p=p, **options)
        assert distance(y, x, p=p, **options) == pytest.approx(value, rel=1e-13)
        assert distance(x + 7, y + 7, p=p, **options) == pytest.approx(value, rel=1e-12)
        assert distance(9 * x, 9 * y, p=p, **options) == pytest.approx(9 * value, rel=1e-12)
        # BLAS may round a projection otherwise at another place.
        assert distance(x, x[::-1], p=p, **options) == pytest.approx(0, abs=1e-14)


# Sliced.


def test_it_is_the_mean_over_the_same_lines():
    from pyprobe import _rng
    from pyprobe.metrics._numpy import directions

    x, y = cloud(40, 3), cloud(25, 3, 1, shift=0.4)
    lines = directions(50, 3, _rng.key(4))
    np.testing.assert_allclose(np.linalg.norm(lines, axis=1), 1)
    for p in (1, 2, 3):
        powers = [wasserstein(x @ u, y @ u, p=p) ** p for u in lines]
        found = sliced_wasserstein(x, y, p=p, n_projections=50, rng=4)
        assert found == pytest.approx(np.mean(powers) ** (1 / p), rel=1e-12)


def test_it_is_pots():
    ot = pytest.importorskip("ot")
    from pyprobe import _rng
    from pyprobe.metrics._numpy import directions

    x, y = cloud(40, 3), cloud(25, 3, 1, shift=0.4)
    lines = directions(200, 3, _rng.key(0)).T
    expected = ot.sliced_wasserstein_distance(x, y, projections=lines)
    assert sliced_wasserstein(x, y, rng=0) == pytest.approx(expected, rel=1e-10)


@pytest.mark.statistical
def test_a_shift_is_seen_by_its_component_along_each_line(seed):
    # W_2 along u is |u . s|, whose square has mean |s|^2 / d and variance 2 |s|^4 (d - 1) / (d^2 (d
    # + 2)): 4.9 standard errors of the mean over 4000 lines fail once in 10^6.
    d, n = 5, 4000
    x, shift = cloud(50, d), np.array([3.0, 0, 0, 0, 0])
    found = sliced_wasserstein(x, x + shift, n_projections=n, rng=seed) ** 2
    error = math.sqrt(2 * 81 * (d - 1) / (d * d * (d + 2)) / n)
    assert abs(found - 9 / d) < 4.9 * error


def test_seeds_repeat_generators_advance_and_blocks_do_not_matter(monkeypatch):
    from pyprobe.metrics import _numpy

    x, y = cloud(40, 3), cloud(25, 3, 1)
    assert sliced_wasserstein(x, y, rng=1) == sliced_wasserstein(x, y, rng=1)
    assert sliced_wasserstein(x, y, rng=1) != sliced_wasserstein(x, y, rng=2)
    generator = np.random.default_rng(1)
    assert sliced_wasserstein(x, y, rng=generator) != sliced_wasserstein(x, y, rng=generator)
    whole = sliced_wasserstein(x, y, rng=1)
    monkeypatch.setattr(_numpy, "_HELD", 300)
    assert sliced_wasserstein(x, y, rng=1) == pytest.approx(whole, rel=1e-14)


# Types, and what does not fit.


@pytest.mark.parametrize("distance", BOTH)
def test_results_have_the_type_of_the_arrays(distance):
    x, y = cloud(10, 3), cloud(10, 3, 1)
    assert type(distance(x, y)) is np.float64
    assert type(distance(x.astype(np.float32), y.astype(np.float32))) is np.float32
    assert type(distance(x.tolist(), y.astype(np.float32))) is np.float64
    assert type(distance([1, 2], [3, 4])) is np.float64


@pytest.mark.parametrize("distance", BOTH)
def test_bad_arguments_are_named(distance):
    x = cloud(4, 2)
    for p, message in ((0.5, "'p' must be at least 1; got 0.5"), (np.inf, "'p' must be finite")):
        with pytest.raises(DomainError, match=message):
            distance(x, x, p=p)
    with pytest.raises(TypeError, match="'p' must be a number"):
        distance(x, x, p="two")
    with pytest.raises(
        ShapeError, match=r"'y' must have shape \(m, 2\) to match 'x'; got \(4, 1\)"
    ):
        distance(x, x[:, 0])
    with pytest.raises(ShapeError, match="'x' must have at least one row"):
        distance([], [1.0])
    with pytest.raises(NotFiniteError, match="'y' must be finite"):
        distance(x, x * np.nan)
    for far in ([1e308], [[1e308, 0.0]]):
        with pytest.raises(DomainError, match="neither distances nor their squares overflow"):
            distance(far, np.negative(far))
    with pytest.raises(DomainError, match="'n_projections' must be at least 1"):
        sliced_wasserstein(x, x, n_projections=0)
