"""Speed of the von Mises-Fisher mixture, beside NumPy's products and scikit-learn in the same run.

    python benches/bench_mixture.py [--rounds 7] [--seeds 5] [--write]

One thread on every side. `--write` puts the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from _timing import interleave, limit_threads, machine, markdown, ratio, write_section
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from pyprobe import _core
from pyprobe.directional import VonMisesFisherMixture
from pyprobe.directional._mixture_data import Data
from pyprobe.directional._mixture_em import EM  # one iteration by itself has no public name


class Problem(NamedTuple):
    """A mixture, draws from it, and the components they are from."""

    truth: VonMisesFisherMixture
    x: np.ndarray
    labels: np.ndarray


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    text = "\n\n".join(
        [
            "## Von Mises-Fisher mixtures",
            "Written by `benches/bench_mixture.py`. " + machine("numpy", "scikit-learn"),
            iterations(options.rounds),
            fits(options.seeds),
            sparse(options.rounds),
        ]
    )
    print(text)
    if options.write:
        write_section(__file__, text)


def problem(seed: int, n: int, d: int, k: int, low: float, high: float) -> Problem:
    """`n` draws from a mixture whose concentrations lie between `low` and `high`."""
    rng = np.random.default_rng(seed)
    locs = rng.normal(size=(k, d))
    locs /= np.linalg.norm(locs, axis=1, keepdims=True)
    truth = VonMisesFisherMixture(rng.dirichlet(np.full(k, 10.0)), locs, rng.uniform(low, high, k))
    labels = rng.choice(k, n, p=truth.weights)
    x = _core.vmf_sample(locs[labels], truth.concentrations[labels], 1, seed)
    return Problem(truth, x, labels)


def iteration(x: Any, init: np.ndarray) -> Any:
    """One EM iteration, E-step and M-step, as `fit` makes it."""
    em = EM(Data.of(x), len(init), hard=False, common=False, corrected=False)
    parameters = em.start(0, init)

    def call() -> None:
        em.maximize(parameters, em.expect(parameters).statistics)

    return call


def iterations(rounds: int) -> str:
    """One iteration beside its two matrix products, and beside scikit-learn's."""
    rows = []
    for n, d, k in [(20_000, 256, 20), (20_000, 256, 50), (20_000, 32, 10), (2_000, 4096, 20)]:
        for dtype in (np.float64, np.float32):
            truth, x, _ = problem(0, n, d, k, d / 2, d)
            x = x.astype(dtype)
            w, r = truth.locs.T.astype(dtype), np.ones((n, k), dtype)
            peer = GaussianMixture(
                k, covariance_type="spherical", means_init=truth.locs, max_iter=1
            )
            peer.fit(x)

            def gaussian(peer: Any = peer, x: np.ndarray = x) -> None:
                peer._m_step(x, peer._e_step(x)[1])  # noqa: SLF001  # what its fit repeats

            timings = interleave(
                {
                    "ours": iteration(x, truth.locs),
                    "products": lambda x=x, w=w, r=r: (x @ w, r.T @ x),
                    "gaussian": gaussian,
                },
                rounds=rounds,
            )
            ours, products = timings["ours"], timings["products"]
            rows.append(
                [
                    f"{n} x {d}, k = {k}, {np.dtype(dtype).name}",
                    ours.median * 1e3,
                    products.median * 1e3,
                    timings["gaussian"].median * 1e3,
                    f"**{ratio(ours, products):.2f}**",
                    f"**{ratio(timings['gaussian'], ours):.1f}**",
                ]
            )
    head = ["data", "ms, ours", "ms, two products (NumPy)", "ms, GaussianMixture"]
    head += ["ours / products (target 1.5)", "times as fast as GaussianMixture (target 1.8)"]
    return (
        "### One iteration\n\nE-step and M-step, beside the two matrix products without which no "
        "iteration can do, made by NumPy, and beside an iteration of "
        '`GaussianMixture(covariance_type="spherical")`.\n\n' + markdown(head, rows)
    )


def fits(seeds: int) -> str:
    """Whole fits beside scikit-learn's, on directional data."""
    rows = []
    for n, d, k, low, high in [
        (20_000, 256, 20, 100, 300),
        (20_000, 32, 10, 20, 60),
        (5_000, 1000, 20, 300, 600),
    ]:
        found = []
        for seed in range(seeds):
            truth, x, labels = problem(seed, n, d, k, low, high)
            start = time.perf_counter()
            theirs = GaussianMixture(k, covariance_type="spherical", random_state=seed).fit(x)
            peer_time = time.perf_counter() - start
            peer_score = adjusted_rand_score(labels, theirs.predict(x))
            start = time.perf_counter()
            ours = VonMisesFisherMixture.fit(x, k, rng=seed)
            our_time = time.perf_counter() - start
            order = np.argmax(truth.locs @ ours.locs.T, axis=1)
            error = np.abs(ours.concentrations[order] / truth.concentrations - 1).max()
            speed = peer_time / time_to(peer_score, x, labels, k, seed, ours.info.n_iter)
            our_score = adjusted_rand_score(labels, ours.predict(x))
            found.append([our_time, peer_time, our_score, peer_score, speed, error])
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        times, scores = medians[:2], [f"{score:.3f}" for score in medians[2:4]]
        speed = f"**{medians[4]:.1f}**"
        rows.append([f"{n} x {d}, k = {k}", *times, *scores, speed, f"{medians[5]:.1%}"])
    head = ["data", "s, ours", "s, GaussianMixture", "ARI, ours", "ARI, GaussianMixture"]
    head += [
        "times as fast to the ARI at which GaussianMixture ends (target 5)",
        "largest error of a concentration",
    ]
    return (
        f"### Whole fits\n\nDraws from mixtures of von Mises-Fisher distributions; medians of "
        f"{seeds} seeds, starts included, both with their defaults. ARI is the adjusted Rand index "
        "with the true components.\n\n" + markdown(head, rows)
    )


def time_to(
    score: float, x: np.ndarray, labels: np.ndarray, k: int, seed: int, n_iter: int
) -> float:
    """Seconds of the shortest fit that comes to a score; infinity where none does."""
    for max_iter in range(1, n_iter + 1):
        start = time.perf_counter()
        fit = VonMisesFisherMixture.fit(x, k, max_iter=max_iter, rng=seed)
        seconds = time.perf_counter() - start
        if adjusted_rand_score(labels, fit.predict(x)) >= score:
            return seconds
    return float("inf")


def sparse(rounds: int) -> str:
    """One iteration on sparse rows, beside SciPy's products."""
    n, d, k, words = 7_000, 30_000, 20, 60
    rng = np.random.default_rng(0)
    indices = np.minimum(rng.zipf(1.3, size=(n, words)), d) - 1
    x = scipy.sparse.csr_array(
        (np.ones(n * words), indices.ravel(), np.arange(0, n * words + 1, words)), shape=(n, d)
    )
    x.sum_duplicates()
    x = (scipy.sparse.diags_array(1 / np.sqrt(x.multiply(x).sum(axis=1))) @ x).tocsr()
    init = x[rng.choice(n, k, replace=False)].toarray()
    w, r, columns = np.ascontiguousarray(init.T), np.full((n, k), 1 / k), x.T.tocsr()
    timings = interleave(
        {"ours": iteration(x, init), "products": lambda: (x @ w, columns @ r)}, rounds=rounds
    )
    ours, products = timings["ours"], timings["products"]
    row = [
        f"{n} x {d}, {x.nnz} entries, k = {k}",
        ours.median * 1e3,
        products.median * 1e3,
        f"**{ratio(ours, products):.2f}**",
    ]
    head = ["data", "ms, ours", "ms, two products (SciPy)", "ours / products"]
    return (
        "### Sparse rows\n\nOne iteration, beside the two sparse products made by SciPy, the "
        "second with the transpose at hand.\n\n" + markdown(head, [row])
    )


if __name__ == "__main__":
    main()
