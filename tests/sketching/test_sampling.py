"""Samples of rows: unbiased sums, exact sizes, and draws that no chunking changes."""

import re

import numpy as np
import pytest
import scipy.sparse
from scipy import stats
from tall_matrices import coherent

import pyprobe
from pyprobe.errors import ConvergenceWarning, DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import leverage_scores, lewis_weights, lp_sensitivities, sample_rows

SCHEMES = ["bernoulli", "pivotal", "replacement"]


@pytest.mark.statistical
@pytest.mark.parametrize("scheme", SCHEMES)
def test_sums_over_samples_are_unbiased(scheme):
    # Total false-fail rate 3 schemes x 2 sums x 1e-6.
    a = coherent(400, 4)
    values = np.random.default_rng(1).random((400, 2)) + np.array([0.0, 1.0])
    rng = np.random.default_rng(2)
    sums = np.array(
        [
            sample.weights @ values[sample.indices]
            for sample in (sample_rows(a, 60, scheme=scheme, rng=rng) for _ in range(2000))
        ]
    )
    z = (sums.mean(axis=0) - values.sum(axis=0)) / (sums.std(axis=0) / np.sqrt(2000))
    assert np.abs(z).max() < stats.norm.isf(0.5e-6)


@pytest.mark.statistical
@pytest.mark.parametrize("scheme", ["bernoulli", "pivotal"])
def test_rows_are_kept_as_often_as_their_probabilities_say(scheme):
    # By the Chernoff bound a count is 5.6 standard deviations off once in 1e7; 50 rows.
    scores = np.random.default_rng(3).random(50) ** 4
    counts, n = np.zeros(50), 4000
    for seed in range(n):
        sample = sample_rows(np.ones((50, 1)), 10, scores=scores, scheme=scheme, rng=seed)
        counts[sample.indices] += 1
        assert scheme == "bernoulli" or len(sample) == 10
    full = np.arange(51)
    order = np.sort(scores)[::-1]
    level = next(
        (10 - k) / order[k:].sum() for k in full if order[k] * (10 - k) / order[k:].sum() < 1
    )
    probability = np.minimum(level * scores, 1)
    assert abs(probability.sum() - 10) < 1e-12
    spread = np.sqrt(n * probability * (1 - probability)) + 1e-12
    assert (np.abs(counts - n * probability) <= 5.6 * spread + 2).all()


def test_probabilities_and_weights_fit_each_other():
    a = coherent(3000, 5)
    sample = sample_rows(a, 200, rng=0)
    assert sample.rank == 5
    assert sample.n_rows == 3000
    assert sample.guarantee is None
    assert (np.diff(sample.indices) > 0).all()
    np.testing.assert_array_equal(sample.weights, 1 / sample.probabilities)
    ratio = sample.probabilities / leverage_scores(a)[sample.indices]
    certain = sample.probabilities == 1
    assert certain.any()
    np.testing.assert_allclose(ratio[~certain], ratio[~certain][0], rtol=1e-12)
    assert "RowSample(" in repr(sample)
    assert "of 3000 rows" in repr(sample)


def test_the_schemes_differ_in_what_is_exact():
    a = coherent(3000, 5)
    assert len(sample_rows(a, 250, scheme="pivotal", rng=1)) == 250
    drawn = sample_rows(a, 250, scheme="replacement", rng=1)
    assert len(drawn) < 250  # heavy rows many times
    np.testing.assert_allclose((drawn.weights * drawn.probabilities).sum(), 250, rtol=1e-12)
    sizes = [len(sample_rows(a, 250, rng=seed)) for seed in range(50)]
    assert abs(np.mean(sizes) - 250) < 5 * np.sqrt(250 / 50)


def test_heavy_rows_are_kept_once_with_weight_one():
    a = np.vstack([1e6 * np.eye(4), np.random.default_rng(0).standard_normal((2000, 4))])
    for scheme in ("bernoulli", "pivotal"):
        sample = sample_rows(a, 100, scheme=scheme, rng=0)
        np.testing.assert_array_equal(sample.indices[:4], range(4))
        np.testing.assert_allclose(sample.weights[:4], 1)


def test_scores_as_small_as_doubles_get_have_their_probabilities():
    # One row for certain; a level for the others would be 60 / 5e-322, which is no double.
    scores = np.where(np.arange(101) == 3, 1e300, 5e-324)
    sample = sample_rows(np.ones((101, 1)), 61, scores=scores, scheme="pivotal", rng=0)
    assert len(sample) == 61
    expected = np.where(sample.indices == 3, 1.0, 0.6)
    np.testing.assert_allclose(sample.probabilities, expected, rtol=1e-14)


def test_names_of_scores_and_scores_given_are_the_same_draw():
    a = coherent(2000, 5)
    leverage, lewis = leverage_scores(a), lewis_weights(a, 1.0)
    for p, name, scores in [
        (2, "auto", leverage),
        (2, "leverage", leverage),
        (1, "auto", lewis),
        (1, "lewis", lewis),
        (1, "root_leverage", np.sqrt(leverage)),
        (1, "uniform", np.ones(2000)),
    ]:
        named = sample_rows(a, 300, p=p, scores=name, rng=7)
        given = sample_rows(a, 300, p=p, scores=1e-200 * scores, rng=7)
        np.testing.assert_array_equal(named.indices, given.indices)
        np.testing.assert_allclose(named.weights, given.weights, rtol=1e-12)


def test_a_seed_repeats_and_threads_do_not_matter():
    a = coherent(50_000, 3)
    before = pyprobe.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            found.append(sample_rows(a, 2000, rng=3))
    finally:
        pyprobe.set_num_threads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].indices, other.indices)
        np.testing.assert_array_equal(found[0].weights, other.weights)
    assert not np.array_equal(found[0].indices, sample_rows(a, 2000, rng=4).indices)


def test_samples_are_applied_to_arrays_of_any_kind():
    a = coherent(1000, 4)
    sample = sample_rows(a, 100, p=1, rng=0)
    rows = a[sample.indices]
    scaled = rows * sample.weights[:, None]
    np.testing.assert_array_equal(sample.apply(a), rows)
    np.testing.assert_allclose(sample.scaled(a), scaled)
    np.testing.assert_allclose(sample.scaled(a[:, 0]), scaled[:, 0])
    assert sample.scaled(a.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(sample.scaled(np.arange(1000)), sample.indices * sample.weights)
    sparse = scipy.sparse.csr_array(a)
    np.testing.assert_array_equal(sample.apply(sparse).toarray(), rows)
    np.testing.assert_allclose(sample.scaled(sparse).toarray(), scaled)
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(a, requires_grad=True)
    np.testing.assert_array_equal(sample.apply(tensor).detach().numpy(), rows)
    found = sample.scaled(tensor)
    np.testing.assert_allclose(found.detach().numpy(), scaled)
    found.sum().backward()
    assert (tensor.grad[sample.indices] > 0).all()
    same = sample_rows(tensor, 100, p=1, rng=0)
    np.testing.assert_array_equal(same.indices, sample.indices)


def test_no_more_rows_than_there_are():
    a = coherent(40, 3)
    a[7] = 0
    sample = sample_rows(a, 39, rng=0)
    np.testing.assert_array_equal(sample.indices, np.delete(np.arange(40), 7))
    np.testing.assert_array_equal(sample.weights, np.ones(39))


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("d", [1, 6, 20])
def test_sizes_from_epsilon_are_enough_for_indicators(p, d):
    shares = 1 / np.arange(1, d + 1) ** 2
    numbers = np.random.default_rng(0).choice(d, 40_000, p=shares / shares.sum())
    a, epsilon, n_draws = np.eye(d)[numbers], 0.4 if p < 1 else 0.25, 200
    totals, scores, missed = a.sum(axis=0), lewis_weights(a, p), 0
    m = len(sample_rows(a, p=p, epsilon=epsilon, scheme="pivotal", rng=0))
    for seed in range(n_draws):
        sample = sample_rows(a, m, scores=scores, p=p, rng=seed)
        # Of columns that share no row the worst direction is one of them.
        kept = np.bincount(numbers[sample.indices], np.asarray(sample.weights), minlength=d)
        ratios = (kept / totals) ** (1 / p)
        missed += not 1 - epsilon <= ratios.min() <= ratios.max() <= 1 + epsilon
    assert missed <= 0.05 * n_draws + 3 * np.sqrt(0.05 * 0.95 * n_draws)


def test_sizes_from_epsilon_say_what_they_are():
    a = np.random.default_rng(5).standard_normal((20_000, 6))
    sample = sample_rows(a, epsilon=0.2, scheme="pivotal", rng=0)
    assert sample.guarantee == "calibrated"
    assert len(sample) == np.ceil(2.75 * 6 / 0.2**2)
    counts = 6 * (stats.norm.ppf(1 - 0.025 / 6) / 0.2) ** 2
    assert len(sample_rows(a, epsilon=0.2, p=1, scheme="pivotal", rng=0)) == np.ceil(counts)
    proven = sample_rows(a, epsilon=0.2, guarantee="theorem", rng=0)
    assert proven.guarantee == "theorem"
    assert len(proven) > len(sample)
    # Its bound on the spectrum of squared norms, at a risk of 5 %.
    q, _ = np.linalg.qr(a)
    norms = np.linalg.svd(proven.scaled(q), compute_uv=False)
    assert norms.max() < 1.2
    assert norms.min() > 0.8


def test_bad_input_is_named():
    a = coherent(100, 3)
    with pytest.raises(DomainError, match=r"at least the rank of 'a', 3; got 2"):
        sample_rows(a, 2)
    for arguments in ({}, {"n_samples": 10, "epsilon": 0.1}):
        with pytest.raises(DomainError, match="either 'n_samples' or 'epsilon'"):
            sample_rows(a, **arguments)
    with pytest.raises(DomainError, match="'n_samples' must be at least 1; got 0"):
        sample_rows(a, 0)
    with pytest.raises(TypeError, match="'n_samples' must be an integer"):
        sample_rows(a, 10.5)
    with pytest.raises(DomainError, match="'epsilon' must be below 1"):
        sample_rows(a, epsilon=1.5)
    with pytest.raises(DomainError, match=r"'epsilon' needs scores that come from 'a'"):
        sample_rows(a, epsilon=0.5, scores=np.ones(100))
    with pytest.raises(DomainError, match=r"guarantee=\"theorem\" is for p = 2"):
        sample_rows(a, epsilon=0.5, p=1, guarantee="theorem")
    with pytest.raises(DomainError, match=r"theorem.*independently.*got \"pivotal\""):
        sample_rows(a, epsilon=0.5, guarantee="theorem", scheme="pivotal")
    with pytest.raises(DomainError, match="either 'n_samples' or 'epsilon'"):
        sample_rows(np.full((3, 2), np.nan))  # before a pass over the rows
    with pytest.raises(DomainError, match="'scheme' must be one of"):
        sample_rows(a, 10, scheme="poisson")
    with pytest.raises(DomainError, match="'scores' must be one of"):
        sample_rows(a, 10, scores="hat")
    with pytest.raises(ShapeError, match=r"'scores' must have shape \(100,\).*got \(99,\)"):
        sample_rows(a, 10, scores=np.ones(99))
    with pytest.raises(DomainError, match=r"'scores' must be nonnegative; got -1.0 at index 4"):
        sample_rows(a, 10, scores=np.where(np.arange(100) == 4, -1.0, 1.0))
    with pytest.raises(DomainError, match="'scores' must not be all zero"):
        sample_rows(a, 10, scores=np.zeros(100))
    with pytest.raises(NotFiniteError, match="'scores' must be finite"):
        sample_rows(a, 10, scores=np.full(100, np.inf))
    with pytest.raises(NotFiniteError, match="row 2, column 1"):
        sample_rows(np.where(np.arange(300).reshape(100, 3) == 7, np.nan, a), 10, scores="uniform")
    with pytest.raises(ShapeError, match=r"'a' must have the 100 rows.*got shape \(99, 3\)"):
        sample_rows(a, 10, rng=0).apply(a[1:])


def test_weights_that_did_not_converge_are_told_once():
    a = np.random.default_rng(3).standard_normal((500, 3))
    residual = r"Lewis weights of p = 200 have a residual of .* after 300 passes, above tol = 0.01"
    with pytest.warns(ConvergenceWarning) as found:
        sample_rows(a, 50, p=200, rng=0)
    assert len(found) == 1
    assert re.match(rf"the {residual}.*scores=lewis_weights", str(found[0].message))
    assert found[0].filename == __file__
    for warns in (
        lambda: sample_rows(a, 50, p=200, scores="sensitivity", rng=0),
        lambda: lp_sensitivities(a, 200),
    ):
        with pytest.warns(ConvergenceWarning, match=rf'{residual}.*Use method="exact"') as found:
            warns()
        assert len(found) == 1
    # Scores of one's own, and weights that are near enough, are taken without a word.
    with pytest.warns(ConvergenceWarning, match=f"{residual}; raise max_iter"):
        scores = lewis_weights(a, 200)
    assert len(sample_rows(a, 50, p=200, scores=scores, rng=0)) > 20
    assert len(sample_rows(a, 50, p=8, rng=0)) > 20
