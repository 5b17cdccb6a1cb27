"""Speed and reliability of entropic transport, beside POT, OTT, RegOT, geomloss and KeOps.

    python benches/bench_transport.py [--part abcdef] [--quick] [--limit 60] [--only TEXT]
        [--ours] [--write]

Parts: a, an iteration; b, to a marginal error of 1e-9, with `--only` for some of its problems;
c, two hundred problems of every kind, for which `--ours` leaves the peers out; d, large clouds of
points; e, a batch of small problems; f, gradients. One processor for all, and seconds are of
processor time, to which other work on the machine adds nothing. Peers are measured in the same run
where they are installed: `pip install pot ott-jax regot geomloss pykeops`. `--write` puts each
part's results into a section of docs/benchmarks.md, when it is done.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from _timing import (
    Steps,
    limit_threads,
    machine,
    markdown,
    median_ratio,
    time_steps,
    write_section,
)
from _transport import (
    TOL,
    Problem,
    RegOT,
    assignment,
    bind,
    cloud,
    digits,
    installed,
    marginal_error,
    ott,
    ours,
    plain_iterations,
    pot,
)
from _transport_batch import batch
from _transport_clouds import clouds
from _transport_gradients import gradients
from _transport_sweep import sweep

PEERS = {
    "pot": "ot",
    "ott-jax": "ott",
    "regot": "regot",
    "geomloss": "geomloss",
    "pykeops": "pykeops",
}
"""Their modules, by their names on the package index."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--part", default="abcdef", help="any of the letters a to f")
    arguments.add_argument("--quick", action="store_true", help="small problems only")
    arguments.add_argument(
        "--limit", type=float, default=60, help="seconds a peer may take, part b"
    )
    arguments.add_argument("--only", default="", help="problems of part b whose names have this")
    arguments.add_argument("--ours", action="store_true", help="part c without peers")
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    bind()
    limit_threads(1)
    parts: dict[str, Callable[[], str]] = {
        "a": lambda: iterations((500, 1000) if options.quick else (500, 1000, 2000, 5000)),
        "b": lambda: to_tolerance(
            [
                one
                for one in problems()
                if options.only in one.name and not (options.quick and len(one.a) > 1000)
            ],
            options.limit,
        ),
        "c": lambda: sweep(40 if options.quick else 200, 2.0, not options.ours),
        "d": lambda: clouds((2000,) if options.quick else (5000, 20000)),
        "e": lambda: batch(32 if options.quick else 256),
        "f": lambda: gradients(*((300, 100, 2000) if options.quick else (1000, 500, 4000))),
    }
    for letter in options.part:
        text = f"{parts[letter]()}\n\nWritten by `benches/bench_transport.py --part {letter}`. "
        text += versions()
        print(text, end="\n\n", flush=True)
        if options.write:
            write_section(f"{__file__} --part {letter}", text)


def versions() -> str:
    """The machine, the peers that are installed, and those that are not."""
    here = [name for name, module in PEERS.items() if installed(module)]
    missing = [name for name in PEERS if name not in here]
    return machine("numpy", "torch", *here) + (
        f" Not installed, and so left out: {', '.join(missing)}." if missing else ""
    )


# Part a


def iterations(sizes: tuple[int, ...]) -> str:
    rows = []
    for n in sizes:
        times = iteration_times(cloud(n, 2, 0.05), rounds=5 if n < 5000 else 3)
        log, scaling = times["ours, log"], times["ours, scaling"]

        def beside(name: str, ours: list[float], times: dict[str, list[float]] = times) -> Any:
            if name not in times:
                return "-"
            return f"**{median_ratio(times[name], ours):.3g}**"

        rows.append(
            [
                n,
                *(1e3 * statistics.median(times[name]) if name in times else "-" for name in NAMES),
                beside("POT, log", log),
                beside("OTT", log),
                beside("POT, kernel", log),
                beside("POT, kernel", scaling),
            ]
        )
    head = ["n", *(f"ms, {name}" for name in NAMES)]
    head += [
        "POT log / log (target 25)",
        "OTT / log (target 3.5; 3 at n = 500)",
        "POT kernel / log (target 0.5 at n = 500, 1 at 5000)",
        "POT kernel / scaling (target 1.4)",
    ]
    return (
        "### One iteration\n\nOf both potentials, in the plane, epsilon = max C / 20, where the "
        "plan is dense: the difference of runs of different length, which leaves out what is done "
        "once. POT and OTT test the error every ten iterations, which is counted.\n\n"
        + markdown(head, rows)
    )


NAMES = ("ours, log", "ours, scaling", "POT, log", "POT, kernel", "OTT")


def iteration_times(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Seconds an iteration, round by round."""
    n = len(problem.a)
    many = 10 * max(2, 3000 // n)
    steps = {
        f"ours, {name}": Steps(partial(our_steps, problem, name), 10, 10 + many)
        for name in ("log", "scaling")
    }
    if installed("ot"):
        # The first touch of a run's 200 MB arrays at n = 5000 takes about as long as an iteration
        # and varies: it must be small beside what is measured.
        few = (1, 11) if n < 5000 else (1, 21)
        steps["POT, log"] = Steps(lambda k: pot(problem, k, "sinkhorn_log"), *few)
        steps["POT, kernel"] = Steps(lambda k: pot(problem, k, "sinkhorn"), 10, 10 + many)
    if installed("ott"):
        steps["OTT"] = Steps(partial(ott, problem), 10, 20)
    return time_steps(steps, rounds)


def our_steps(problem: Problem, method: str, k: int) -> Callable[[], None]:
    def call() -> None:
        found = ours(problem, method, k, tol=1e-300)
        if found.n_iter != k:
            raise RuntimeError(f"{found.n_iter} iterations instead of {k}.")

    return call


# Part b


def problems() -> list[Problem]:
    """The twelve."""
    return [
        cloud(500, 2, 1 / 20),
        cloud(500, 2, 1 / 200),
        cloud(500, 2, 1 / 1200),
        cloud(5000, 2, 1 / 20),
        cloud(5000, 2, 1 / 200),
        cloud(5000, 2, 1 / 1200),
        cloud(500, 64, 1 / 200),
        cloud(2000, 64, 1 / 1200),
        cloud(5000, 64, 1 / 200),
        assignment(500, 1 / 1200),
        digits("l1", 1 / 1200),
        digits("squared l2", 1 / 1200),
    ]


PLAIN = {
    "cloud 2-D, n = 500, eps = max C / 20": 39,
    "cloud 2-D, n = 500, eps = max C / 200": 420,
    "cloud 2-D, n = 500, eps = max C / 1200": 2401,
    "cloud 2-D, n = 5000, eps = max C / 20": 40,
    "cloud 2-D, n = 5000, eps = max C / 200": 414,
    "cloud 2-D, n = 5000, eps = max C / 1200": 2488,
    "cloud 64-D, n = 500, eps = max C / 200": 25151,
    "random assignment, n = 500, eps = max C / 1200": 20354,
    "digits 28 x 28, l1, eps = max C / 1200": 18068,
    "digits 28 x 28, squared l2, eps = max C / 1200": 2342,
    "cloud 64-D, n = 2000, eps = max C / 1200": 92036,  # at least, by the rate after 10000
    "cloud 64-D, n = 5000, eps = max C / 200": 8810,  # at least, by the rate after 1600
}
"""What `plain_iterations` returns, which takes minutes."""


class Run(NamedTuple):
    """A solver on a problem: seconds to the tolerance, or why there are none."""

    seconds: float
    error: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        return self.note if math.isnan(self.seconds) else f"{self.seconds:.3g} s{self.note}"


def to_tolerance(chosen: list[Problem], limit: float) -> str:
    rows, times = [], []
    regot = RegOT() if installed("regot") else None
    for problem in chosen:
        count = PLAIN.get(problem.name) or plain_iterations(problem)
        found = {"ours": time_ours(problem)}
        if installed("ot"):
            found["POT, log"] = iterate(problem, count, limit, named(pot, "sinkhorn_log"))
            found["POT, kernel"] = iterate(problem, count, limit, named(pot, "sinkhorn"))
        if installed("ott"):
            found["OTT"] = iterate(problem, count, limit, ott)
        if regot:
            found["RegOT"] = min(
                (time_regot(regot, problem, method, limit) for method in ("ssns", "splr")),
                key=lambda run: run.seconds if run.seconds == run.seconds else math.inf,
            )
        again = time_ours(problem)  # before and after the peers: what disturbs them disturbs it
        found["ours"] = again._replace(seconds=(found["ours"].seconds + again.seconds) / 2)
        times.append({name: run.seconds for name, run in found.items()})
        rows.append([problem.name, count, *(found.get(name, "-") for name in SOLVERS)])
        ratio = rival(times[-1])
        rows[-1].append("-" if math.isnan(ratio) else f"**{ratio:.3g}**")
        print(*map(str, rows[-1]), sep=" | ", flush=True)
    if regot:
        regot.close()
    head = ["problem", "plain iterations", *SOLVERS, "ours / best of POT kernel and RegOT"]
    return (
        f"### To a marginal error of {TOL:g}\n\nThe marginal error of each plan, rows and columns, "
        "L1, was recomputed from it. POT and OTT make as many iterations as Sinkhorn's iteration "
        "without over-relaxation needs; where these would take more than "
        f"{limit:g} s, the time of one is measured and multiplied, marked ~. RegOT is the faster "
        "of its ssns and splr. OTT is compiled beforehand. Target of the last column: at most "
        "1.3 in every row.\n\n" + markdown(head, rows) + "\n\n" + means(times)
    )


SOLVERS = ("ours", "POT, log", "POT, kernel", "OTT", "RegOT")
TARGETS = {"POT, log": 300, "OTT": 30, "POT, kernel": 5}


def rival(times: dict[str, float]) -> float:
    """Our time over that of the best of the two that come nearest."""
    peers = [times.get(name, math.nan) for name in ("POT, kernel", "RegOT")]
    return times["ours"] / min((t for t in peers if t == t), default=math.nan)


def means(times: list[dict[str, float]]) -> str:
    """The geometric means of peers' times over ours, where they came to an end."""
    rows = []
    for name in SOLVERS[1:]:
        ratios = [row[name] / row["ours"] for row in times if row.get(name, math.nan) > 0]
        if ratios:
            mean = statistics.geometric_mean(ratios)
            rows.append([name, len(ratios), f"**{mean:.3g}**", TARGETS.get(name, "-")])
    head = ["peer", "problems it solves", "its time / ours, geometric mean", "target"]
    return markdown(head, rows)


def named(peer: Callable[..., Any], method: str) -> Callable[[Problem, int], Callable[[], Any]]:
    return lambda problem, n_iter: peer(problem, n_iter, method)


def clock(call: Callable[[], Any], limit: float = 3.0) -> tuple[float, Any]:
    """Median seconds of at most five calls, no more than fit the limit; and the result."""
    seconds: list[float] = []
    while len(seconds) < 5 and (not seconds or sum(seconds) + seconds[-1] < limit):
        start = time.process_time()
        result = call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def time_ours(problem: Problem) -> Run:
    def call() -> tuple[Any, np.ndarray]:
        found = ours(problem)
        return found, found.plan()

    seconds, (found, plan) = clock(call)
    error = marginal_error(problem, plan)
    note = f" ({found.n_iter} + {found.n_newton})"
    return Run(
        seconds, error, note if error <= 1.01 * TOL else f"{note} NOT CONVERGED: {error:.1e}"
    )


def iterate(
    problem: Problem,
    count: int,
    limit: float,
    peer: Callable[[Problem, int], Callable[[], Any]],
) -> Run:
    """A peer's time to the tolerance, multiplied up from some iterations where that is long."""
    short = clock(peer(problem, 1), 0)[0]
    long = clock(peer(problem, 11 if 11 * short < limit else 3), 0)[0]
    each = (long - short) / (10 if 11 * short < limit else 2)
    if short + each * count > limit:
        if not finite(peer(problem, max(3, min(count, int(limit / 4 / each))))):
            return Run(math.nan, note="breaks down")
        return Run(short + each * count, note=" ~")
    for _ in range(4):
        seconds, plan = clock(peer(problem, count))
        error = marginal_error(problem, plan)
        if error <= 1.01 * TOL or seconds > limit:
            break
        count = math.ceil(1.05 * count) + 10
    return (
        Run(seconds, error)
        if error <= 1.01 * TOL
        else Run(math.nan, error, f"stays at {error:.1e}")
    )


def finite(call: Callable[[], Any]) -> bool:
    """Whether the iteration is still going: neither broken off nor not a number."""
    with warnings.catch_warnings():
        plan = call()
    return bool(np.isfinite(plan).all() and plan.any())


def time_regot(process: RegOT, problem: Problem, method: str, limit: float) -> Run:
    """RegOT's time, with a tolerance that brings the L1 error below ours."""
    for tol in (TOL / 10, TOL / 100):
        outcome, seconds = process.solve(problem, method, tol, limit)
        if outcome.plan is None:
            return Run(math.nan, note=outcome.note)
        if (error := marginal_error(problem, outcome.plan)) <= 1.01 * TOL:
            return Run(seconds, error, f" ({method}, {outcome.note})")
    return Run(math.nan, error, f"stays at {error:.1e}")


if __name__ == "__main__":
    main()
