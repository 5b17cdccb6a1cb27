"""Rows in chunks, in one pass and on two workers: what they cost, and what they lose.

    python benches/bench_streams.py [--rounds 5] [--n 1000000] [--write]

One thread on every side but that of Dask. `--write` puts the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dask.array as da
import distributed
import numpy as np
from _timing import (
    elsewhere,
    interleave,
    limit_threads,
    machine,
    markdown,
    median_ratio,
    peak_rise,
    write_section,
)
from dask import delayed

import pyprobe.dask
from pyprobe.sketching import StreamingCoreset, sample_rows

D, M = 20, 2000
CHUNK = 10_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--n", type=int, default=1_000_000)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    text = "\n\n".join(
        [
            "## Rows in chunks",
            "Written by `benches/bench_streams.py`. " + machine("numpy", "dask", "distributed"),
            costs(options.n, options.rounds),
            losses(),
        ]
    )
    print(text)
    if options.write:
        write_section(__file__, text)


def block(number: int) -> np.ndarray:
    """Return rows of heavy tails; two columns are rarely not zero."""
    rng = np.random.default_rng(number)
    a = rng.standard_normal((CHUNK, D)) * rng.standard_t(1.5, size=(CHUNK, 1))
    a[:, -2:] *= rng.random((CHUNK, 2)) < 0.02
    return a


def chunks(n: int) -> Iterator[np.ndarray]:
    return (block(number) for number in range(n // CHUNK))


def one_array(n: int, p: float) -> Any:
    return sample_rows(np.concatenate(list(chunks(n))), M, p=p, rng=0)


def many_chunks(n: int, p: float) -> Any:
    return sample_rows(partial(chunks, n), M, p=p, rng=0)


def one_pass(n: int, p: float) -> Any:
    return streamed(chunks(n), p, 0).result()


def streamed(rows: Iterator[np.ndarray], p: float, seed: int) -> StreamingCoreset:
    coreset = StreamingCoreset(M, p=p, rng=seed)
    for chunk in rows:
        coreset.update(chunk)
    return coreset


def costs(n: int, rounds: int) -> str:
    """Time rows that are in memory, and measure memory where they are made chunk by chunk."""
    parts = list(chunks(n))
    a = np.concatenate(parts)
    table = []
    for p in (2.0, 1.0):
        calls: dict[str, Callable[[], Any]] = {
            "one array": lambda p=p: sample_rows(a, M, p=p, rng=0),
            f"{len(parts)} chunks": lambda p=p: sample_rows(parts, M, p=p, rng=0),
            "`StreamingCoreset`": lambda p=p: streamed(iter(parts), p, 0).result(),
        }
        timings = interleave(calls, rounds=rounds, at_least=0.0)
        first = timings["one array"]
        peaks = [
            elsewhere(partial(peak_of, run, n, p)) for run in (one_array, many_chunks, one_pass)
        ]
        for (name, timing), peak in zip(timings.items(), peaks, strict=True):
            table.append(
                [
                    f"{p:g}",
                    name,
                    f"{1e3 * statistics.median(timing.cpu):.0f} ms",
                    f"{median_ratio(timing.cpu, first.cpu):.2f}",
                    f"{peak:.0f} MB",
                ]
            )
    heading = (
        f"A sample of {M} of {n} rows of {D} numbers, {a.nbytes / 1e6:.0f} MB, which lie in memory "
        "for the times, of a processor; for the memory, by which the peak of a process rises, "
        "chunks are made as they are read, and the array of them. All samples of two passes are "
        "the same, row for row and bit for bit, and that of Dask on two workers too: "
        f"{through_dask(a)}."
    )
    return heading + "\n\n" + markdown(["p", "rows", "time", "to one array", "memory"], table)


def peak_of(run: Callable[[int, float], Any], n: int, p: float) -> float:
    run(2 * CHUNK, p)
    return peak_rise(partial(run, n, p))


def through_dask(a: np.ndarray) -> str:
    """Say whether the samples are the same."""
    rows = min(len(a), 200_000)
    parts = [da.from_delayed(delayed(block)(i), (CHUNK, D), float) for i in range(rows // CHUNK)]
    lazy = da.concatenate(parts).rechunk((7777, D))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        found = pyprobe.dask.sample_rows(lazy, M, rng=0)
    others = [
        sample_rows(a[:rows], M, rng=0),
        sample_rows(np.array_split(a[:rows], 7), M, rng=0),
        sample_rows(np.array_split(a[:rows], 100), M, rng=0),
    ]
    same = all(
        np.array_equal(found.indices, other.indices)
        and np.array_equal(found.weights, other.weights)
        for other in others
    )
    return "yes" if same else "no"


def losses() -> str:
    """Compare distortions of one pass and two, at the same size."""
    n, table = 100_000, []
    families = {
        "Gaussian": np.random.default_rng(1).standard_normal((n, D)),
        "coherent": np.concatenate(list(chunks(n))),
        "polynomials": np.vander(np.linspace(0, 1, n), 8),
    }
    for name, a in families.items():
        for p in (2.0, 1.0):
            found = []
            for seed in range(5 if p == 2 else 2):
                one = streamed(iter(np.array_split(a, 11)), p, seed).result()
                two = sample_rows(a, M, p=p, rng=seed)
                found.append([error(sample.distortion(a)) for sample in (one, two)])
            one, two = np.median(found, axis=0)
            table.append([name, f"{p:g}", f"{one:.3f}", f"{two:.3f}", f"{one / two:.2f}"])
    heading = (
        f"Distortion of norms by a sample of {M} of {n} rows, at worst over all directions "
        "(found by search for p = 1), the median of draws:"
    )
    head = ["rows", "p", "one pass", "two passes or more", "ratio"]
    return heading + "\n\n" + markdown(head, table)


def error(extremes: tuple[float, float]) -> float:
    return max(1 - extremes[0], extremes[1] - 1)


if __name__ == "__main__":
    main()
