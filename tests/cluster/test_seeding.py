"""Seeds of a clustering of directions, and their merging."""

import itertools

import numpy as np
import pytest
import scipy.sparse

import pyprobe
from pyprobe.cluster import merge_directions, spherical_seeds
from pyprobe.errors import DomainError, ShapeError


def bundles(rng, n, d, spread=1e-3):
    """Rows near the axes, in turn; the last axis gets three rows only."""
    axis = np.arange(n) % (d - 1)
    axis[-3:] = d - 1
    x = np.eye(d)[axis] + spread * rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True), axis


@pytest.mark.parametrize("seed", range(20))
def test_seeds_reach_every_far_cluster_however_small(seed):
    x, axis = bundles(np.random.default_rng(0), 500, 8)
    # Each round finds most of what is left: the cluster of three rows comes last.
    seeds = spherical_seeds(x, 8, n_rounds=6, rng=seed)
    assert set(axis[seeds]) == set(range(8))
    assert 8 <= len(seeds) <= 48
    assert (np.diff(seeds) > 0).all()


def test_seeds_are_the_same_for_sparse_and_dense_rows_and_any_threads():
    x, _ = bundles(np.random.default_rng(1), 5000, 6, spread=0.3)
    x[np.abs(x) < 0.2] = 0
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = spherical_seeds(x, 6, rng=3)
    try:
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            for rows in (x, scipy.sparse.csr_array(x), scipy.sparse.coo_matrix(x)):
                np.testing.assert_array_equal(spherical_seeds(rows, 6, rng=3), expected)
    finally:
        pyprobe.set_num_threads(None)


@pytest.mark.statistical
def test_the_second_round_draws_in_proportion_to_the_complement_of_the_cosine():
    # Rows a and b at angles whose 1 - cos to the rows at the pole are 0.5 and 1.5. The first round
    # draws one of 1000 rows uniformly, nearly always at the pole, and the second then b three times
    # as often as a. 20000 trials, false-fail rate 1e-6: 4.9 standard errors of 0.0031.
    pole = np.tile([1.0, 0.0], (998, 1))
    x = np.vstack([pole, [[0.5, np.sqrt(0.75)], [-0.5, np.sqrt(0.75)]]])
    generator = np.random.default_rng(5)
    second = []
    for _ in range(20_000):
        seeds = spherical_seeds(x, 1, n_rounds=2, rng=generator)
        if seeds[0] < 998:
            second.append(seeds[-1])
    share = np.mean(np.array(second) == 999)
    assert abs(share - 0.75) < 4.9 * np.sqrt(0.75 * 0.25 / len(second))


def test_seeds_need_a_row_a_cluster():
    with pytest.raises(ShapeError, match="at least 4 rows"):
        spherical_seeds(np.eye(3), 4)
    with pytest.raises(DomainError, match="'n_clusters' must be at least 1"):
        spherical_seeds(np.eye(3), 0)


def objective(resultants, groups):
    sums = [resultants[groups == g].sum(axis=0) for g in np.unique(groups)]
    return sum(np.linalg.norm(s) for s in sums)


@pytest.mark.parametrize("seed", range(10))
def test_one_merge_loses_least_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(7, 3)) * rng.exponential(size=(7, 1))
    losses = []
    for a, b in itertools.combinations(range(7), 2):
        groups = np.arange(7)
        groups[b] = a
        losses.append(objective(s, np.unique(groups, return_inverse=True)[1]))
    assert objective(s, merge_directions(s, 6)) == pytest.approx(max(losses), abs=1e-12)


def test_merging_finds_the_bundles():
    x, axis = bundles(np.random.default_rng(2), 60, 5, spread=0.05)
    groups = merge_directions(x, 5)
    for k in range(5):
        assert len(set(groups[axis == k])) == 1
    assert set(groups) == set(range(5))


def test_nothing_is_merged_where_nothing_need_be():
    np.testing.assert_array_equal(merge_directions(np.eye(3), 3), [0, 1, 2])
    with pytest.raises(ShapeError, match="at least 4 rows"):
        merge_directions(np.eye(3), 4)
