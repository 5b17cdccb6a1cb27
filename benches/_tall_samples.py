"""Parts d to g of the benchmark of sketching: what samples of rows keep, and how fast they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from _tall import COHERENT, FLAT, chebyshev, coherent, indicators, normal, sparse_low_rank
from _timing import interleave, markdown, median_ratio

from pyprobe.sketching import leverage_scores, lewis_weights, lp_sensitivities, sample_rows
from pyprobe.sketching.sampling import size_for

__all__ = ["calibration", "distortions", "draws", "rows_needed"]

SCHEMES = ("uniform", "leverage", "Lewis", "sensitivity", "with leverage", "root leverage")
TABLE: tuple[tuple[str, float, Callable[[int], Any], tuple[float | None, ...]], ...] = (
    ("normal", 1.0, normal, (0.17, 0.19, 0.18, 0.17, 0.18, 0.17)),
    ("coherent", 1.0, coherent, (1.0, 0.28, 0.16, 0.16, 0.18, 0.34)),
    ("sparse + low rank", 1.0, sparse_low_rank, (0.34, 0.27, 0.18, 0.21, 0.21, 0.23)),
    ("Chebyshev", 1.0, chebyshev, (0.64, 0.23, 0.24, 0.18, 0.20, 0.33)),
    ("coherent", 1.5, coherent, (1.0, 0.095, 0.071, 0.074, 0.068, 0.070)),
    ("Chebyshev", 3.0, chebyshev, (0.54, 0.13, 0.13, 0.14, 0.13, None)),
    ("Chebyshev", 4.0, chebyshev, (0.54, 0.11, 0.10, 0.11, 0.11, None)),
    ("Chebyshev", 8.0, lambda n: chebyshev(n // 5), (0.22, 0.07, 0.06, 0.07, 0.08, None)),
    ("sparse + low rank", 4.0, sparse_low_rank, (0.93, 0.014, 0.007, 0.007, 0.008, None)),
)
"""Families, exponents, and the medians that were measured before there was this code."""


def distortion(
    a: Any, scores: Any, m: int, p: float, seed: int, scheme: str = "bernoulli"
) -> float:
    """The larger of what norms rise and fall by."""
    low, high = sample_rows(a, m, scores=scores, p=p, scheme=scheme, rng=seed).distortion(a)
    return max(high - 1, 1 - low)


# Part d


def scores_of(a: Any, p: float) -> dict[str, Any]:
    leverage, sensitivity = leverage_scores(a), lp_sensitivities(a, p, rng=0)
    found = {
        "uniform": np.ones(len(a)),
        "leverage": leverage,
        "Lewis": lewis_weights(a, p),
        "sensitivity": sensitivity,
        "with leverage": sensitivity + leverage,
    }
    return found | ({"root leverage": leverage ** (p / 2)} if p < 2 else {})


def distortions(n: int, m: int = 1000, n_draws: int = 25) -> str:
    rows, near = [], []
    medians: dict[tuple[str, float, str], float] = {}
    for name, p, make, known in TABLE:
        a = make(n)
        line: list[Any] = [name, f"{p:g}"]
        scores = scores_of(a, p)
        for scheme, expected in zip(SCHEMES, known, strict=True):
            if expected is None:
                line.append(None)
                continue
            found = np.median([distortion(a, scores[scheme], m, p, k) for k in range(n_draws)])
            found = medians[name, p, scheme] = min(found, 1.0)
            near.append(abs(found / expected - 1) <= 0.35)
            line.append(f"{found:.2g} ({expected:g})")
        rows.append(line)
    lewis, leverage = (medians["coherent", 1.0, scheme] for scheme in ("Lewis", "leverage"))
    return (
        f"### Distortion of norms by a thousand rows\n\nMedians of {n_draws} draws, {n} rows of 20 "
        "columns (a fifth of them for p = 8); in brackets the medians of 3 draws that a prototype "
        f"in NumPy found on families of the same kind: {sum(near)} of {len(near)} are within 35 % "
        "of it. 1 is a subspace lost, or more. Uniform draws vary most: whether a row near an end "
        "is among them decides.\n\n"
        + markdown(["", "p", *SCHEMES], rows)
        + "\n\nThe distortion falls as 1 / sqrt(rows): for that of leverage scores on the coherent "
        f"rows, p = 1, Lewis weights need **{(lewis / leverage) ** 2:.2g}** of the rows (target "
        "0.5)."
    )


# Part e


def rows_needed(n: int, n_draws: int, m: int = 1600) -> str:
    """How many draws with replacement come to the distortion of m rows drawn on their own."""
    rows, shares = [], []
    for name, make in {**COHERENT, **FLAT}.items():
        a = make(n)
        scores = leverage_scores(a)

        def median(m: int, scheme: str, a: Any = a, scores: Any = scores) -> float:
            found = [distortion(a, scores, m, 2.0, seed, scheme) for seed in range(n_draws)]
            return float(np.median(found))

        own = median(m, "bernoulli")
        draws, beyond = draws_for(own, lambda k, median=median: median(k, "replacement"), m, n - 1)
        few = rows_for(0.1, lambda k, median=median: median(k, "bernoulli"), 20, m * 4)
        many, _ = draws_for(0.1, lambda k, median=median: median(k, "replacement"), m, n - 1)
        if name in COHERENT:
            shares.append(m / draws)
        rows.append(
            [
                name if name in COHERENT else f"({name})",
                f"{own:.2g}",
                f"{draws:.2g}" + ("*" if beyond else ""),
                f"**1/{draws / m:.3g}**",
                few,
                f"{many:.2g}",
                f"1/{many / few:.3g}",
            ]
        )
    mean = math.exp(-float(np.mean(np.log(shares))))
    head = ["data", f"distortion, {m} rows", "draws for it", "rows / draws (target 1/8)"]
    head += ["rows for 0.1", "draws for 0.1", "rows / draws"]
    return (
        f"### Rows needed beside independent draws\n\nBy leverage scores, for p = 2: rows drawn on "
        f"their own, and draws with replacement, for the same median distortion of {n_draws} "
        f"samples; {n} rows of 20 columns. Families in brackets are not coherent. With a star: "
        f"more than {n} draws, from the rate 1 / sqrt(draws) there. Geometric mean over the "
        f"coherent families: **1/{mean:.3g}** (target 1/20).\n\n" + markdown(head, rows)
    )


def draws_for(
    target: float, median: Callable[[int], float], start: int, most: int
) -> tuple[float, bool]:
    """Return how many draws bring `median` to the target, and whether that is an extrapolation."""
    m = start
    for _ in range(6):  # medians of few draws may go to and fro
        # The rate is 1 / sqrt(m), nearly: from a point close by it is exact enough.
        wanted = m * (median(m) / target) ** 2
        if 0.8 < wanted / m < 1.25 or m == most:
            break
        m = int(min(max(wanted, 100), most))
    return wanted, wanted > 1.25 * most


def rows_for(target: float, median: Callable[[int], float], low: int, high: int) -> int:
    """Return the least size that `median` is at most the target at, to 5 %, by bisection."""
    while high > 1.05 * low + 1:
        middle = round(math.sqrt(low * high))
        low, high = (low, middle) if median(middle) <= target else (middle, high)
    return high


# Part f


def calibration(n: int, n_squares: int, n_others: int) -> str:
    rows = []
    for p, epsilon in ((2.0, 0.2), (0.5, 0.5), (1.0, 0.25), (1.25, 0.25), (1.5, 0.2), (3.0, 0.2)):
        line: list[Any] = [f"{p:g}", epsilon, None]
        for make in CALIBRATED.values():
            a = make(n if p == 2 else n // 2)
            scores = leverage_scores(a) if p == 2 else lewis_weights(a, p)
            m = size_for(epsilon, 20, p, "", "calibrated")
            n_draws = n_squares if p == 2 else n_others
            found = [distortion(a, scores, m, p, seed) for seed in range(n_draws)]
            line[2] = m
            line.append(float(np.quantile(found, 0.95)) / epsilon)
        rows.append(line)
    return (
        f"### Sizes from a distortion\n\nThe 95 % quantile of the distortion beside `epsilon`, of "
        f"samples of the size that it chooses: at most 1 where that is enough. {n_squares} draws "
        f"from {n} rows for p = 2, and {n_others} from {n // 2} for the others (leverage, Lewis "
        "weights); 20 columns.\n\n" + markdown(["p", "epsilon", "rows", *CALIBRATED], rows)
    )


CALIBRATED: dict[str, Callable[[int], Any]] = {
    **FLAT,
    "indicators": indicators,
    "coherent": coherent,
    "mixture of subspaces": COHERENT["mixture of subspaces"],
    "cubic in t(2)": COHERENT["cubic in t(2)"],
}


# Part g


def draws(n: int, rounds: int) -> str:
    from pyprobe import _core
    from pyprobe.sketching.sampling import draw

    scores = np.random.default_rng(0).pareto(1.5, size=n)
    m = 10_000
    probabilities = scores / scores.sum()
    rng = np.random.default_rng(0)
    level = _core.water_level(scores, float(m))
    calls: dict[str, Callable[[], Any]] = {
        "rows on their own": lambda: _core.bernoulli_rows(scores, level, 1, 0),
        "with the level of their probabilities": lambda: draw(scores, m, "bernoulli", 1),
        "exactly so many": lambda: draw(scores, m, "pivotal", 1),
        "with replacement": lambda: draw(scores, m, "replacement", 1),
        "`rng.choice`": lambda: rng.choice(n, m, p=probabilities),
        "`rng.choice`, no replacement": lambda: rng.choice(n, m, replace=False, p=probabilities),
    }
    for call in calls.values():
        call()
    timings = interleave(calls, rounds=rounds, at_least=0)
    peer = timings["`rng.choice`"]
    rows = [
        [name, 1e3 * float(np.median(found.cpu)), f"**{median_ratio(peer.cpu, found.cpu):.2g}**"]
        for name, found in timings.items()
    ]
    return f"### A draw of {m} of {n:.0e} rows\n\nScores of a Pareto law.\n\n" + markdown(
        ["", "ms", "`rng.choice` / this"], rows
    )
