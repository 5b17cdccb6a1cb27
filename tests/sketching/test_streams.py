"""Rows in chunks: the same bits as in one array, in little memory; and a sample in one pass."""

import itertools
import pathlib
import pickle
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import scipy.sparse
from scipy import stats
from tall_matrices import coherent

import pyprobe
from pyprobe.errors import ConvergenceWarning, DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import (
    StreamingCoreset,
    leverage_scores,
    lewis_weights,
    lp_sensitivities,
    sample_rows,
    streaming,
    subspace_distortion,
)


def sparse(n, d):
    rng = np.random.default_rng(5)
    return scipy.sparse.csr_array(coherent(n, d) * (rng.random((n, d)) < 0.2))


# 41 011 rows are five or six leaves: a tree that is not full.
FAMILIES = {
    "plain": lambda: coherent(41_011, 7),
    "ill conditioned": lambda: np.vander(np.linspace(0, 1, 41_011), 14),
    "rank deficient": lambda: coherent(41_011, 3) @ np.ones((3, 9)) + coherent(41_011, 9)[:, :1],
    "extreme scales": lambda: coherent(41_011, 5) * np.logspace(-150, 150, 5),
    "float32": lambda: coherent(41_011, 6).astype(np.float32),
    "sparse": lambda: sparse(41_011, 8),
    "wide": lambda: coherent(17_000, 70),
}


def cut(a, n_chunks):
    ends = np.sort(np.random.default_rng(n_chunks).integers(0, a.shape[0], n_chunks - 1))
    ends = [0, *ends, a.shape[0]]
    return [a[i:j] for i, j in itertools.pairwise(ends)]


@pytest.fixture
def threads():
    yield pyprobe.set_num_threads
    pyprobe.set_num_threads(None)


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_and_threads_change_no_bit(family, threads):
    a = FAMILIES[family]()
    leverage = leverage_scores(a)
    weights = lewis_weights(a, 1.0, tol=0.1)
    samples = {p: sample_rows(a, 300, p=p, rng=1) for p in (1.0, 2.0)}
    for n_chunks in (1, 7, 100):
        chunks = cut(a, n_chunks)
        for n_threads in (1, 2):
            threads(n_threads)
            found = leverage_scores(chunks)
            assert found.dtype == leverage.dtype
            np.testing.assert_array_equal(found, leverage)
            np.testing.assert_array_equal(lewis_weights(chunks, 1.0, tol=0.1), weights)
            for p, sample in samples.items():
                again = sample_rows(chunks, 300, p=p, rng=1)
                np.testing.assert_array_equal(again.indices, sample.indices)
                np.testing.assert_array_equal(again.weights, sample.weights)


@pytest.mark.parametrize("method", ["gram", "sketch_qr", "approx"])
@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_all_methods_that_make_passes_take_chunks(method, ridge):
    a = coherent(30_000, 6)
    expected = leverage_scores(a, method=method, ridge=ridge, rng=0)
    found = leverage_scores(cut(a, 7), method=method, ridge=ridge, rng=0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scores", ["root_leverage", "sensitivity", "uniform", "given"])
@pytest.mark.parametrize("scheme", ["bernoulli", "pivotal", "replacement"])
def test_all_scores_and_schemes_take_chunks(scores, scheme):
    a = coherent(20_000, 4)
    scores = np.random.default_rng(0).random(20_000) if scores == "given" else scores
    first, second = (
        sample_rows(rows, 200, scores=scores, scheme=scheme, p=1.5, rng=3)
        for rows in (a, cut(a, 7))
    )
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.weights, second.weights)


class Files:
    """What reads a chunk when it is asked for it, and counts."""

    def __init__(self, chunks):
        self.chunks = chunks
        self.n_reads = 0

    def __len__(self):
        return len(self.chunks)

    def __getitem__(self, i):
        self.n_reads += 1
        return self.chunks[i]


class Again(Files):
    def __iter__(self):
        return iter(self.chunks)


def test_chunks_come_from_whatever_can_be_read_again():
    a = coherent(20_000, 3)
    chunks = cut(a, 5)
    expected = leverage_scores(a)
    sources = [chunks, tuple(chunks), Files(chunks), Again(chunks), lambda: (c for c in chunks)]
    for source in sources:
        np.testing.assert_array_equal(leverage_scores(source), expected)
        sample = sample_rows(source, 50, rng=0)
        np.testing.assert_array_equal(sample.apply(source), a[sample.indices])
        np.testing.assert_array_equal(sample.scaled(source), sample.scaled(a))
        assert sample.distortion(source) == subspace_distortion(a, sample)
    # Rows that are lists are a matrix, as ever.
    np.testing.assert_allclose(leverage_scores([[1, 0], [1, 0], [0, 3]]), [0.5, 0.5, 1], rtol=1e-14)


def test_leverage_scores_read_every_chunk_twice():
    files = Files(cut(coherent(20_000, 3), 5))
    leverage_scores(files)
    assert files.n_reads == 1 + 2 * 5  # and look at the first


def test_targets_come_in_chunks_as_well():
    a, y = coherent(9000, 3), np.arange(9000.0)
    sample = sample_rows(cut(a, 4), 40, rng=0)
    np.testing.assert_array_equal(sample.apply(cut(y, 4)), sample.indices)


def test_tensors_and_sparse_chunks_come_back_as_they_were():
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(coherent(9000, 3)).float()
    chunks = list(a.split(2000))
    scores = leverage_scores(chunks)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, leverage_scores(a))
    sample = sample_rows(chunks, 40, rng=0)
    assert torch.equal(sample.scaled(chunks), sample.scaled(a))
    csr = sparse(9000, 5)
    sample = sample_rows(cut(csr, 4), 40, rng=0)
    assert (sample.apply(cut(csr, 4)) != csr[sample.indices]).nnz == 0
    coreset = StreamingCoreset(50, rng=0)
    for chunk in chunks:
        coreset.update(chunk)
    assert torch.equal(coreset.rows(), a[coreset.result().indices])


def test_integers_and_empty_chunks_are_taken():
    a = np.random.default_rng(0).integers(-3, 4, size=(5000, 3))
    empty = np.empty((0, 7))
    expected = leverage_scores(a)
    np.testing.assert_array_equal(leverage_scores([empty, a[:70], empty, a[70:]]), expected)


def test_what_does_not_fit_is_named_with_its_chunk():
    a = coherent(300, 3)
    with pytest.raises(ShapeError, match=r"3 columns in every chunk.*chunk 2 has shape \(100, 2\)"):
        leverage_scores([a[:100], a[100:200], a[200:, :2]])
    with pytest.raises(TypeError, match="one float type; chunk 1 has float32, the first float64"):
        leverage_scores([a, a.astype(np.float32)])
    with pytest.raises(TypeError, match="dense in every chunk or sparse in every chunk; chunk 1"):
        leverage_scores([a, scipy.sparse.csr_array(a)])
    with pytest.raises(ShapeError, match=r"'a\[1\]' must be a matrix"):
        leverage_scores([a, a[0]])
    with pytest.raises(ShapeError, match="a row at least; got 2 chunks without any"):
        leverage_scores([a[:0], a[:0]])
    with pytest.raises(DomainError, match="must not be all zero"):
        leverage_scores([np.zeros((3, 2)), np.zeros((4, 2))])
    broken = a.copy()
    broken[150, 1] = np.nan
    for function in (leverage_scores, lambda x: lewis_weights(x, 1.0)):
        with pytest.raises(
            NotFiniteError, match=r"row 50, column 1.*chunk 1, whose first row is 100"
        ):
            function([a[:100], broken[100:]])
    with pytest.raises(
        DomainError, match=r'"qr" needs all rows at once, on the CPU; use method="sketch_qr"'
    ):
        leverage_scores([a, a], method="qr")
    with pytest.raises(TypeError, match=r"must be one matrix here.*sample_rows"):
        lp_sensitivities([a, a], 1.0)
    sample = sample_rows([a, a], 20, rng=0)
    with pytest.raises(
        ShapeError, match="the 600 rows that were sampled from; got 1 chunks with 300"
    ):
        sample.apply([a])
    with pytest.raises(
        ShapeError, match=r"the 600 rows that were sampled from; got shape \(300, 3\)"
    ):
        sample.distortion([a])


def test_what_can_be_read_once_is_refused_and_pointed_on():
    a = coherent(300, 3)
    with pytest.raises(TypeError, match=r"got a generator.*StreamingCoreset, which needs a single"):
        leverage_scores(chunk for chunk in [a])
    used_up = iter([a])
    with pytest.raises(DomainError, match="the same rows every time it is read"):
        leverage_scores(lambda: used_up)


def test_passes_over_chunks_hold_little_in_memory():
    # 320 MB of rows in chunks of 8 MB; scores of 16 MB, a piece of 8 MB, and a chunk or two.
    found = peak(
        """
        base = np.random.default_rng(0).standard_normal((50_000, 20))
        chunks = lambda: (base * (1 + i) for i in range(40))
        run = lambda: pyprobe.sketching.sample_rows(chunks, 2000, rng=0)
        """
    )
    assert 16 < found < 110  # the scores alone are 16


def test_a_stream_holds_little_in_memory():
    # The same rows; 3 x 2000 + 8192 rows of 160 bytes, and a chunk or two.
    found = peak(
        """
        base = np.random.default_rng(0).standard_normal((50_000, 20))
        def run():
            coreset = pyprobe.sketching.StreamingCoreset(2000, rng=0)
            for i in range(40):
                coreset.update(base * (1 + i))
            assert len(coreset.result()) == 2000
        """
    )
    assert 1 < found < 50


def peak(setup):
    """Return by how many megabytes a run makes the memory of a process grow, at its highest."""
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("reads the peak from /proc")
    # Not resource.getrusage: its peak is at first that of the parent process.
    script = """
import numpy as np
import scipy.linalg, scipy.sparse
import pyprobe, pyprobe.sketching
def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))
pyprobe.sketching.sample_rows(np.random.default_rng(1).standard_normal((9000, 20)), 50, rng=0)
{setup}
before = kilobytes("VmHWM")
run()
print((kilobytes("VmHWM") - before) / 1000)
"""
    code = script.format(setup=textwrap.dedent(setup))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(ran.stdout)


def streamed(a, n_samples, size, *, p=2.0, rng=0):
    coreset = StreamingCoreset(n_samples, p=p, rng=rng)
    for start in range(0, a.shape[0], size):
        coreset.update(a[start : start + size])
    return coreset


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_chunks_and_threads_change_no_stream(p, kind, threads):
    a = coherent(30_011, 5) if kind == "dense" else sparse(30_011, 5)
    expected = streamed(a, 400, 30_011, p=p).result()
    assert len(expected) == 400
    assert (np.diff(expected.indices) > 0).all()
    for size, n_threads in ((5000, 2), (311, 1)):
        threads(n_threads)
        coreset = streamed(a, 400, size, p=p)
        found = coreset.result()
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.weights, expected.weights)
        rows, scaled = coreset.rows(), coreset.scaled()
        if kind == "sparse":
            rows, scaled = rows.toarray(), scaled.toarray()
            np.testing.assert_array_equal(scaled, found.scaled(a).toarray())
            np.testing.assert_array_equal(rows, a[found.indices].toarray())
        else:
            np.testing.assert_array_equal(scaled, found.scaled(a))
            np.testing.assert_array_equal(rows, a[found.indices])


def test_looking_at_a_result_and_pickling_change_nothing_that_comes():
    a = coherent(40_000, 4)
    expected = streamed(a, 300, 40_000).result()
    coreset = streamed(a[:25_000], 300, 5000)
    assert coreset.result().n_rows == 25_000
    other = pickle.loads(pickle.dumps(coreset))
    for stream in (coreset, other):
        stream.update(a[25_000:])
        np.testing.assert_array_equal(stream.result().weights, expected.weights)
    assert repr(coreset) == "StreamingCoreset(n_samples=300, p=2, n_rows=40000)"


def test_one_pass_is_as_good_as_two():
    # Errors of squared norms in all directions; the same uniform variates on both sides.
    for a in (coherent(60_000, 10), np.vander(np.linspace(0, 1, 60_000), 8)):
        one, two = (
            np.mean([max(1 - low, high - 1) for low, high in found])
            for found in (
                [streamed(a, 500, 9999, rng=s).result().distortion(a) for s in range(5)],
                [sample_rows(a, 500, rng=s).distortion(a) for s in range(5)],
            )
        )
        assert one < 1.15 * two


def check_no_larger(ratios):
    """Check that the geometric mean of ratios is at most 1.05, at a false-fail rate of 1e-6."""
    logs = np.log(ratios)
    error = logs.std(ddof=1) / np.sqrt(len(logs))
    assert logs.mean() < np.log(1.05) + stats.t.isf(1e-6, len(logs) - 1) * error


def largest_change(sample, a):
    low, high = sample.distortion(a)
    return max(1 - low, high - 1)


@pytest.mark.statistical
def test_in_other_norms_one_pass_comes_near_to_two(seed):
    # Logarithms of the ratio have a standard deviation of 0.15: 1.35 times larger would fail.
    a = coherent(20_000, 6)
    check_no_larger(
        [
            largest_change(streamed(a, 400, 9999, p=1.0, rng=key).result(), a)
            / largest_change(sample_rows(a, 400, p=1.0, rng=key), a)
            for key in range(seed, seed + 20)
        ]
    )


def test_probabilities_of_a_single_block_are_in_proportion_to_the_scores():
    a = coherent(5000, 5)
    sample = streamed(a, 200, 777).result()
    np.testing.assert_array_equal(sample.weights, 1 / sample.probabilities)
    certain = sample.probabilities == 1
    assert certain.any()
    ratio = sample.probabilities / leverage_scores(a)[sample.indices]
    np.testing.assert_allclose(ratio[~certain], ratio[~certain][0], rtol=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("merged", [False, True])
def test_sums_and_products_of_a_stream_are_unbiased(p, merged, monkeypatch):
    # Five reductions, or two, a merge and two; 4 cases x 3 means, false-fail rate 1e-6 together.
    monkeypatch.setattr(streaming, "BLOCK", 8)
    a = coherent(400, 3)
    values = np.random.default_rng(1).random((400, 2)) + np.array([0.0, 1.0])
    rng, found = np.random.default_rng(2), []
    for _ in range(1000):
        coreset = streamed(a[:200] if merged else a, 40, 400, p=p, rng=rng)
        if merged:
            coreset.merge(streamed(a[200:300], 40, 400, p=p, rng=rng))
            coreset.update(a[300:])
        sample = coreset.result()
        parts = sample.weights[:, None] * values[sample.indices]
        own = sample.weights @ (values[sample.indices, 0] * values[sample.indices, 1])
        total = parts.sum(axis=0)
        # Of different rows the products of the parts, of the same row the part of the product.
        found.append([*total, total[0] * total[1] - parts[:, 0] @ parts[:, 1] + own])
    total = values.sum(axis=0)
    error = np.mean(found, axis=0) - np.array([*total, total[0] * total[1]])
    z = error / (np.std(found, axis=0) / np.sqrt(len(found)))
    assert np.abs(z).max() < stats.norm.isf(0.5e-6 / 12)


def test_weights_that_did_not_converge_are_told_once_a_stream(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 128)
    a = np.random.default_rng(3).standard_normal((800, 3))
    with warnings.catch_warnings(record=True, action="always") as found:
        coreset = streamed(a, 50, 100, p=200)  # five reductions
        coreset.result()
        coreset.update(a)
        pickle.loads(pickle.dumps(coreset)).update(a)
        # What it merges with has no reduction yet, and brings some about.
        coreset.merge(streamed(a[:150], 50, 150, p=200, rng=1))
        coreset.result()
    residual = r"Lewis weights of p = 200 have a residual of .* after 300 passes, above tol = 0.01"
    assert len(found) == 1
    assert re.match(rf"the {residual}; .*unbiased.*larger variance", str(found[0].message))
    assert found[0].filename == __file__
    assert found[0].category is ConvergenceWarning
    # Where all rows stay, or weights come near enough, there is nothing to tell.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(streamed(a[:40], 50, 40, p=200).result()) == 40
        streamed(a, 50, 100, p=8).result()
        # An error comes after all rows are in.
        coreset = StreamingCoreset(50, p=200, rng=0)
        with pytest.raises(ConvergenceWarning):
            coreset.update(a)
        coreset.update(a)
    with pytest.warns(ConvergenceWarning):
        expected = streamed(np.vstack([a, a]), 50, 1600, p=200)
    np.testing.assert_array_equal(coreset.result().weights, expected.result().weights)


def test_a_result_and_a_merge_tell_of_weights_what_has_not_been_told(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 128)
    a = np.random.default_rng(3).standard_normal((800, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = streamed(a[:120], 50, 120, p=200)  # no reduction but that of the result
    with pytest.warns(ConvergenceWarning, match="residual"):
        short.result()
    with pytest.warns(ConvergenceWarning, match="residual"):
        told = streamed(a, 50, 100, p=200, rng=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = streamed(a[:40], 50, 40, p=200, rng=2)
        merged.merge(told)
        merged.update(a)
        merged.result()


def test_merged_streams_are_one_stream_of_both():
    a = coherent(6000, 4)
    first, second = streamed(a[:2500], 300, 999, rng=0), streamed(a[2500:], 300, 999, rng=1)
    second_before = second.result()
    first.merge(second)
    sample = first.result()
    assert first.n_rows == sample.n_rows == 6000
    np.testing.assert_array_equal(first.rows(), a[sample.indices])
    certain = sample.probabilities == 1
    ratio = sample.probabilities / leverage_scores(a)[sample.indices]
    np.testing.assert_allclose(ratio[~certain], ratio[~certain][0], rtol=1e-9)
    np.testing.assert_array_equal(second.result().indices, second_before.indices)


def test_streams_merge_after_reductions_and_go_on():
    a = coherent(90_000, 6)
    parts = [streamed(a[i : i + 20_000], 500, 7000, rng=i) for i in range(0, 80_000, 20_000)]
    empty = StreamingCoreset(500, rng=99)
    for part in parts:
        empty.merge(part)
    empty.merge(StreamingCoreset(500, rng=100))
    empty.update(a[80_000:])
    sample = empty.result()
    assert (len(sample), sample.n_rows, sample.rank) == (500, 90_000, 6)
    np.testing.assert_array_equal(empty.rows(), a[sample.indices])


@pytest.mark.statistical
def test_merged_streams_are_as_good_as_two_passes(seed):
    # Logarithms of the ratio have a standard deviation of 0.46: 1.25 times larger would fail.
    a, ratios = coherent(20_000, 6), []
    for key in range(seed, seed + 300):
        merged = StreamingCoreset(300, rng=np.random.default_rng([key, 0]))
        for number, part in enumerate(np.split(a, 4), 1):
            rng = np.random.default_rng([key, number])
            merged.merge(streamed(part, 300, 2000, rng=rng))
        single = sample_rows(a, 300, rng=key)
        ratios.append(largest_change(merged.result(), a) / largest_change(single, a))
    check_no_larger(ratios)


def test_few_rows_are_all_kept_and_rows_of_zeros_never():
    a = coherent(300, 3)
    a[::3] = 0
    coreset = streamed(a, 250, 100)
    np.testing.assert_array_equal(coreset.result().indices, np.flatnonzero(a.any(axis=1)))
    assert (coreset.result().weights == 1).all()
    coreset.merge(streamed(a, 250, 100, rng=1))
    assert len(coreset.result()) == 250
    assert coreset.rows().any(axis=1).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_rank_of_a_stream_is_found(dtype):
    rng = np.random.default_rng(5)
    a = (rng.standard_normal((200_000, 6)) @ rng.standard_normal((6, 10))).astype(dtype)
    a *= np.array([1, 1e-6] * 5, dtype=dtype)
    assert streamed(a, 300, 50_000).result().rank == 6
    # Columns that no row has seen for long.
    b = rng.standard_normal((40_000, 4))
    b[:30_000, 2:] = 0
    for p in (1.0, 2.0):
        found = streamed(b, 200, 9000, p=p).result()
        assert found.rank == 4
        assert (found.indices >= 30_000).sum() > 60


def test_bad_input_of_a_stream_is_told_and_changes_nothing():
    a = coherent(9000, 3)
    coreset = streamed(a[:4000], 100, 2000)
    broken = a[4000:].copy()
    broken[7, 2] = np.inf
    with pytest.raises(NotFiniteError, match=r"row 7, column 2.*chunk 2, whose first row is 4000"):
        coreset.update(broken)
    with pytest.raises(ShapeError, match=r"3 columns in every chunk.*\(5, 2\)"):
        coreset.update(a[:5, :2])
    with pytest.raises(TypeError, match="one float type"):
        coreset.update(a[:5].astype(np.float32))
    coreset.update(a[:0])
    coreset.update(a[4000:])
    np.testing.assert_array_equal(coreset.result().weights, streamed(a, 100, 9000).result().weights)


def test_streams_that_cannot_be_told_so():
    a = coherent(500, 3)
    with pytest.raises(DomainError, match="has no rows yet; call 'update' first"):
        StreamingCoreset(10).result()
    with pytest.raises(DomainError, match="'n_samples' must be at least the rank of 'a', 3; got 2"):
        streamed(a, 2, 100).result()
    for p in (1.0, 2.0):
        with pytest.raises(DomainError, match="must not be all zero; got 20000 rows that are"):
            streamed(np.zeros((20_000, 2)), 5, 3000, p=p).result()
    with pytest.raises(DomainError, match="n_samples=10 and p=2; got StreamingCoreset"):
        streamed(a, 10, 100).merge(streamed(a, 11, 100, rng=1))
    with pytest.raises(DomainError, match="'other' must have another 'rng'"):
        streamed(a, 10, 100).merge(streamed(a, 10, 100))
    with pytest.raises(ShapeError, match=r"'other' must have rows of 3 columns.*; got 2"):
        streamed(a, 10, 100).merge(streamed(a[:, :2], 10, 100, rng=1))
    with pytest.raises(TypeError, match="rows that are dense float64; got sparse float64"):
        streamed(a, 10, 100).merge(streamed(sparse(500, 3), 10, 100, rng=1))
