"""Light Schrödinger bridges beside the official code (ngushchin/LightSB).

    python benches/bench_bridge.py [--part abcdefgh] [--official PATH] [--data PATH] [--quick]
        [--only TEXT] [--write]

Parts: a, the mixtures benchmark; b, single cells; c, the swiss roll; d, full covariances; e, small
samples; f, inference; g, robustness; h, log-densities, beside torch's own mixtures. One processor
for all, and seconds are of processor time, to which other work on the machine adds nothing.
`--official` gives a checkout of the official code, which then runs first, in the same process (it
needs `pip install geotorch`); its figures are kept in bridge_official.json with their date, and
stand beside ours in later runs without it. `--data` is the folder of `full_cite_pcas_50_day_*.npy`,
from the same repository. `--quick` takes the smaller samples alone, `--only` those problems of
parts a, b and c whose names have the text ("d=16 eps=1", "2->4", "eps=0.002"). `--write` puts each
part's results into a section of docs/benchmarks.md, when it is done.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _bridge import Peer, sampled_cbw, swiss_roll
from _bridge_density import densities
from _bridge_fits import (
    Case,
    Line,
    cells,
    compare,
    first_at,
    fit,
    official,
    reach,
    replica,
    rolls,
    small,
    turned,
)
from _bridge_inference import inference
from _bridge_official import load
from _bridge_robust import robustness
from _timing import limit_threads, machine, markdown, write_section

PUBLISHED = {
    (2, 0.1): 0.03,
    (2, 1): 0.05,
    (2, 10): 0.07,
    (16, 0.1): 0.08,
    (16, 1): 0.09,
    (16, 10): 0.11,
    (64, 0.1): 0.28,
    (64, 1): 0.24,
    (64, 10): 0.21,
}
"""cBW2-UVP of the paper's table 1, by the moments of a thousand draws."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--part", default="abcdefgh", help="any of the letters a to h")
    arguments.add_argument("--official", type=Path, help="a checkout of ngushchin/LightSB")
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "single_cell"
    arguments.add_argument("--data", type=Path, default=folder, help="cells of part b")
    arguments.add_argument("--only", default="", help="problems of parts a to c that have this")
    arguments.add_argument("--quick", action="store_true", help="the smaller samples only")
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    peer = Peer(load(options.official) if options.official else None)
    sizes = (20_000,) if options.quick else (20_000, 100_000)
    parts: dict[str, Callable[[], str]] = {
        "a": lambda: benchmark(peer, sizes, options.only),
        "b": lambda: days(peer, options.data, options.only),
        "c": lambda: roll(peer, sizes, options.only),
        "d": lambda: full(peer, sizes),
        "e": lambda: few(peer),
        "f": lambda: inference(peer),
        "g": lambda: robustness(lambda case: theirs_of(peer, case)),
        "h": densities,
    }
    for letter in options.part:
        if letter == "b" and not options.data.exists():
            print(f"Part b is left out: there is no {options.data}.", flush=True)
            continue
        peer.seen = []
        text = f"{parts[letter]()}\n\nWritten by `benches/bench_bridge.py --part {letter}`. "
        text += f"{machine('numpy', 'torch')} {peer}"
        print(text, end="\n\n", flush=True)
        if options.write:
            write_section(f"{__file__} --part {letter}", text)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A table of rows whose cells have the columns' names."""
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


def theirs_of(peer: Peer, case: Case) -> dict[str, Any]:
    return peer.figures(case.name, lambda light_sb: official(case, light_sb))


HEAD = [
    "s, official, all steps",
    "s, official, first at its loss in the end",
    "at step (looked at every)",
    "s, ours",
    "s, ours, to that loss",
]
RATIOS = (
    "The loss to reach is that of the official code after its 10000 steps. The first ratio, which "
    "the target is of, charges the official code the whole of its run, which is its published "
    "recipe and has no rule to stop by, and ours the time to the first iteration at that loss. "
    "The official loss goes up and down, and was often as low before: the second ratio is of the "
    "times at which each side is there first. The official code is looked at every so many steps "
    "as the table says, so its time may be longer than needed by as many; ours at every "
    "iteration, found by bisection, or in a fit of more than 5 s at four of them."
)


def beside(line: Line, target: str) -> dict[str, Any]:
    """Seconds of both, by the columns' names, and the two ratios: never one without the other."""
    theirs = line.theirs
    missing = "not reached" if theirs else "-"
    step, first = first_at(theirs, theirs["loss"]) if theirs else (None, None)
    seen = f"{step} ({theirs['trace'][0][0]})" if theirs else None
    figures = (theirs.get("seconds"), first, seen, line.ours.seconds, line.to_loss)
    ratios = (line.ratio, line.ratio_of_first)
    whole, both = (missing if one is None else f"**{one:.3g}**" for one in ratios)
    found = dict(zip(HEAD, figures, strict=True))
    return found | {f"all steps / ours ({target})": whole, "both first there": both}


# Part a


def benchmark(peer: Peer, sizes: Sequence[int], only: str) -> str:
    rows, moments, lines = [], [], []
    for case, truth in replica():
        if only not in case.name:
            continue
        theirs = theirs_of(peer, case)
        dim, epsilon = truth.starts.shape[1], truth.plan.epsilon
        x0, x1 = truth.draw(np.random.default_rng(7), 100_000)
        found = [compare(case, theirs, x0[:n], x1[:n]) for n in sizes]
        lines.append(found)
        for line in found:
            kl, theirs_kl = line.figures["kl"], theirs.get("kl")
            rows.append(
                {"d": dim, "epsilon": f"{epsilon:g}", "pairs": line.n}
                | beside(line, "target 30 at epsilon = 1, d = 16 and 64")
                | {"KL, official": theirs_kl, "KL, ours": kl}
                | {"KL ours / official": kl / theirs_kl if theirs_kl else None}
            )
        moments.append(
            [
                dim,
                f"{epsilon:g}",
                theirs.get("cbw"),
                *(line.figures["cbw"] for line in found),
                PUBLISHED[dim, epsilon],
                sampled_cbw(truth),
            ]
        )
    second = ["d", "epsilon", "official", *(f"ours, {n} pairs" for n in sizes)]
    second += ["published", "the truth by 1000 draws"]
    return (
        "### The mixtures benchmark, built anew\n\nStarts N(0, I / 4); a potential of five modes "
        "on a sphere of radius 5, with variance 1/16 (1/100 at epsilon = 10), so that the true "
        "plan is known. Both have 50 diagonal components. The official code makes 10000 steps of "
        "Adam on 128 fresh pairs, with its own rates; ours is `fit` with default settings on a "
        "stored sample. KL is that of the fitted plan from the true one, a mean of exact log-"
        f"densities over 100000 draws, in nats, and the loss is that on these.\n\n{RATIOS}\n\n"
        + table(rows)
        + f"\n\n{verdict([found[-1] for found in lines])}\n\ncBW2-UVP in per cent by the exact "
        "moments of 1000 conditional laws; published, and in the last column, by those of 1000 "
        "draws from each, which no plan can undercut on average.\n\n" + markdown(second, moments)
    )


def verdict(lines: Sequence[Line]) -> str:
    """How many cells reach the targets."""
    if not (known := [line for line in lines if line.theirs]):
        return ""
    parts = [line.figures["kl"] / line.theirs["kl"] for line in known]
    hot = [part for line, part in zip(known, parts, strict=True) if line.case.recipe.epsilon == 10]
    pairs = lines[0].n
    return (
        f"With {pairs} pairs KL is at most the official one in {sum(p <= 1 for p in parts)} of "
        f"{len(parts)} cells (target 8), at most half of it in {sum(p <= 0.5 for p in parts)} "
        f"(target 7), at most a tenth at epsilon = 10 in {sum(p <= 0.1 for p in hot)} of "
        f"{len(hot)} (target all)."
    )


# Part b


def days(peer: Peer, folder: Path, only: str) -> str:
    rows = []
    for case, data in cells(folder):
        if only not in case.name:
            continue
        theirs = theirs_of(peer, case)
        line = compare(case, theirs, data.starts, data.ends)
        found = line.figures
        rows.append(
            {"days": case.name.removeprefix("single cell ")}
            | beside(line, "target 30")
            | {
                "loss, official": f"{theirs['loss']:.2f}" if theirs else None,
                "loss, ours (target 10 less)": f"{line.ours.loss:.2f}",
                "end, official": theirs.get("end"),
                "end, ours (target half)": found["end"],
                "day between, official": theirs.get("held"),
                "day between, ours": found["held"],
            }
        )
    return (
        "### Single cells in 50 dimensions\n\nThe cells of two days of "
        '"Open Problems: Multimodal Single-Cell Integration", by their first 50 principal '
        "components, and of a day between that no fit has seen; epsilon = 0.1 in units of the mean "
        "deviation of a coordinate, 10 diagonal components. The loss is that on all cells, in "
        "nats. Then energy distances, E|X-Y| - E|X-X'|/2 - E|Y-Y'|/2 in the unit of the data: of "
        "the plan's ends to the last day, and of its places at the time of the day between to "
        f"that.\n\n{RATIOS}\n\n" + table(rows)
    )


# Part c


def roll(peer: Peer, sizes: Sequence[int], only: str) -> str:
    rows = []
    for case in rolls():
        if only not in case.name:
            continue
        theirs = theirs_of(peer, case)
        for n in sizes if case.recipe.n_components < 500 else sizes[:1]:
            line = compare(case, theirs, *swiss_roll(np.random.default_rng(7), n))
            rows.append(
                {
                    "epsilon": f"{case.recipe.epsilon:g}",
                    "components": case.recipe.n_components,
                    "pairs": n,
                }
                | beside(line, "target 15; 5 at epsilon = 0.002")
                | {
                    "loss, official": f"{theirs['loss']:.3f}" if theirs else None,
                    "loss, ours": f"{line.ours.loss:.3f}",
                    "s, official, to our loss": earlier(theirs, line.ours.loss),
                }
            )
    return (
        "### Swiss roll\n\nFrom N(0, I) in the plane, diagonal components, 10000 steps of the "
        f"official code. The loss is that on 50000 fresh pairs.\n\n{RATIOS}\n\n" + table(rows)
    )


def earlier(theirs: dict[str, Any], loss: float) -> Any:
    """When the official code had our loss."""
    if not theirs:
        return None
    seconds = first_at(theirs, loss)[1]
    return "never" if math.isnan(seconds) else seconds


# Part d


def full(peer: Peer, sizes: Sequence[int]) -> str:
    case, truth = turned()
    theirs, rows = theirs_of(peer, case), []
    x0, x1 = truth.draw(np.random.default_rng(7), 100_000)
    for n in sizes:
        line = compare(case, theirs, x0[:n], x1[:n])
        part = line.ours.seconds / theirs["seconds"] if theirs else None
        rows.append(
            {"pairs": n}
            | beside(line, "target 20")
            | {
                "s ours / official, whole fits": part,
                "KL, official": theirs.get("kl"),
                "KL, ours (target: at most)": line.figures["kl"],
                "cBW2-UVP, official": theirs.get("cbw"),
                "cBW2-UVP, ours": line.figures["cbw"],
            }
        )
    return (
        "### Full covariances\n\nThe mixtures benchmark with d = 16 and epsilon = 1, but modes "
        "with covariances of their own, turned, with variances from 1/64 to 1; 10 full "
        f"components on both sides.\n\n{RATIOS}\n\n" + table(rows)
    )


# Part e


def few(peer: Peer) -> str:
    rows = []
    for (dim, epsilon), seed in product(((16, 0.1), (16, 1.0), (64, 1.0)), range(3)):
        case, (x0, x1) = small(dim, epsilon, seed)
        theirs = theirs_of(peer, case)
        ours = fit(case, x0, x1)
        best = min(theirs["trace"], key=lambda one: one[2]) if theirs else (None, None, None)
        to_loss = reach(case, x0, x1, ours, best[2]) if theirs else None
        rows.append([dim, f"{epsilon:g}", seed, *best, theirs.get("loss")])
        rows[-1] += [1e3 * ours.seconds, 1e3 * to_loss if to_loss else None, ours.loss]
        rows[-1].append(f"**{ours.loss / best[2]:.3g}**" if theirs else "-")
    head = ["d", "epsilon", "seed", "best step, official", "s to there", "KL there"]
    head += ["KL, last step", "ms, ours", "ms, ours, to that KL", "KL, ours"]
    head += ["KL ours / best (target: at most 1)"]
    return (
        "### Small samples\n\nThe mixtures benchmark with 50 components, but 150 starts and 150 "
        "ends. The official code makes 2000 steps on batches of these and is looked at every 50; "
        "its best checkpoint by the exact KL, which nobody has in practice, stands beside our "
        "default fit.\n\n" + markdown(head, rows)
    )


if __name__ == "__main__":
    main()
