"""Speed of the log-Bessel functions, beside SciPy in the same run.

    python benches/bench_special.py [--points 1000000] [--rounds 9] [--write]

One thread on every side. Beside each time stands the share of results that are not finite, and the
worst error of the others on a subsample, against certified values (python-flint). `--write` puts
the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
import scipy.special._ufuncs as scipy_private
import torch
from _timing import interleave, limit_threads, machine, markdown, ratio, write_section

from pyprobe import _core, special
from pyprobe.special import _kernels

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "reference"))

import arb_bessel  # noqa: E402
from reference_tables import scaled_error  # noqa: E402

PEERS: dict[str, tuple[Callable[..., Any], str, Callable[..., Any], str, float]] = {
    "log_iv_00": (
        special.log_iv,
        "`log(ive(v, x)) + x`",
        lambda v, x: np.log(scipy.special.ive(v, x)) + x,
        "hypot",
        8,
    ),
    "log_kv_00": (
        special.log_kv,
        "`log(kve(v, x)) - x`",
        lambda v, x: np.log(scipy.special.kve(v, x)) - x,
        "hypot",
        5,
    ),
    "bessel_ratio_00": (
        special.bessel_ratio,
        "`_ufuncs._iv_ratio(v + 1, x)` (private)",
        lambda v, x: scipy_private._iv_ratio(v + 1, x),  # noqa: SLF001
        "relative",
        5,
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--points", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    v, x = points(options.points)
    sections = [
        "## Log-Bessel functions",
        "Written by `benches/bench_special.py`. " + machine("numpy", "scipy", "torch"),
        beside_scipy(v, x, options.rounds),
        with_derivatives(v, x, options.rounds),
        tensors(v, x, options.rounds),
        single_calls(options.rounds),
        threads(v, x, options.rounds),
    ]
    text = "\n\n".join(sections)
    print(text)
    if options.write:
        write_section(__file__, text)


def points(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A tenth at v = 0, else v log-uniform in [1e-3, 1e6]; x log-uniform in [1e-6, 1e7]."""
    rng = np.random.default_rng(0)
    v = np.exp(rng.uniform(np.log(1e-3), np.log(1e6), n))
    v[rng.random(n) < 0.1] = 0
    return v, np.exp(rng.uniform(np.log(1e-6), np.log(1e7), n))


def beside_scipy(v: np.ndarray, x: np.ndarray, rounds: int) -> str:
    """Values at many points, one core."""
    some = slice(0, 1000)
    certified = [arb_bessel.certify(arb_bessel.bessel, *at) for at in np.stack([v, x], 1)[some]]
    rows = []
    for column, (ours, peer, theirs, scale, target) in PEERS.items():
        expected = np.array([float(values[column].mid()) for values in certified])

        def quality(
            results: np.ndarray, expected: np.ndarray = expected, scale: str = scale
        ) -> list[str]:
            share = np.mean(~np.isfinite(results))
            error = scaled_error(results[some], expected, v[some], x[some], scale)
            return [f"{share:.1%}", f"{error[np.isfinite(results[some])].max():.0e}"]

        with np.errstate(all="ignore"):
            timings = interleave(
                {"ours": lambda f=ours: f(v, x), "peer": lambda f=theirs: f(v, x)}, rounds=rounds
            )
            checks = quality(ours(v, x)) + quality(theirs(v, x))
        nanoseconds = [timings[name].median / v.size * 1e9 for name in ("ours", "peer")]
        times = f"**{ratio(timings['peer'], timings['ours']):.1f}**"
        rows.append([f"`{ours.__name__}`", peer, *nanoseconds, times, f"{target}", *checks])
    head = ["function", "peer", "ns, ours", "ns, peer", "times as fast", "target"]
    head += ["not finite, ours", "worst error, ours", "not finite, peer", "worst error, peer"]
    return (
        f"### Values beside SciPy\n\n{v.size:,} points: a tenth at v = 0, else v log-uniform in "
        "[1e-3, 1e6], x in [1e-6, 1e7]. Errors over the finite results; those of logarithms in "
        "units of max(|f|, hypot(v, x)), those of ratios relative.\n\n" + markdown(head, rows)
    )


def with_derivatives(v: np.ndarray, x: np.ndarray, rounds: int) -> str:
    """What derivatives cost when they are asked for together with the value."""
    masks = {
        "value": _mask((0, 0)),
        "d/dx": _mask((0, 0), (0, 1)),
        "both": _mask((0, 0), (0, 1), (1, 0)),
        "all": sum(_kernels.MASKS.values()),
    }
    rows = []
    for function, target in ((_kernels.LOG_IV, 3), (_kernels.LOG_KV, 2)):
        timings = interleave(
            {
                name: lambda f=function.number, mask=mask: _core.bessel(f, mask, v, x)
                for name, mask in masks.items()
            },
            rounds=rounds,
        )
        value = timings["value"]
        times = [f"{ratio(timings[name], value):.2f}" for name in ("d/dx", "both", "all")]
        rows.append(
            [f"`{function.name}`", value.median / v.size * 1e9, *times, f"1.5 and {target}"]
        )
    head = [
        "function",
        "ns, value",
        "with d/dx",
        "with d/dx and d/dv",
        "all to order two",
        "targets",
    ]
    return "### Derivatives, in units of the value's time\n\n" + markdown(head, rows)


def _mask(*orders: tuple[int, int]) -> int:
    return sum(_kernels.MASKS[order] for order in orders)


def tensors(v: np.ndarray, x: np.ndarray, rounds: int) -> str:
    """CPU tensors beside NumPy arrays: the same kernel."""
    tensor_v, tensor_x = torch.from_numpy(v), torch.from_numpy(x)
    rows = []
    for function in (special.log_iv, special.log_kv, special.bessel_ratio):
        timings = interleave(
            {
                "numpy": lambda f=function: f(v, x),
                "torch": lambda f=function: f(tensor_v, tensor_x),
            },
            rounds=rounds,
        )
        seconds = [timings[name].median * 1e3 for name in ("numpy", "torch")]
        rows.append([f"`{function.__name__}`", *seconds, ratio(timings["torch"], timings["numpy"])])
    head = ["function", "ms, NumPy", "ms, torch", "ratio (target 1.2)"]
    return "### Tensors on the CPU\n\n" + markdown(head, rows)


def single_calls(rounds: int) -> str:
    """Overhead of a call on one element."""
    array_v, array_x = np.array([1.5]), np.array([2.0])
    tensor_v, tensor_x = torch.from_numpy(array_v), torch.from_numpy(array_x)
    leaf_x = tensor_x.clone().requires_grad_()

    def gradient() -> None:
        special.log_ive(tensor_v, leaf_x).backward()
        leaf_x.grad = None

    calls = {
        "`scipy.special.ive`, numbers": lambda: scipy.special.ive(1.5, 2.0),
        "`log_ive`, numbers": lambda: special.log_ive(1.5, 2.0),
        "`scipy.special.ive`, arrays": lambda: scipy.special.ive(array_v, array_x),
        "`log_ive`, arrays": lambda: special.log_ive(array_v, array_x),
        "`log_ive`, tensors": lambda: special.log_ive(tensor_v, tensor_x),
        "`log_ive`, tensors, with a graph": lambda: special.log_ive(tensor_v, leaf_x),
        "`log_ive`, tensors, with a gradient": gradient,
    }
    timings = interleave(calls, rounds=5 * rounds)
    base = {"numbers": "`scipy.special.ive`, numbers", "arrays": "`scipy.special.ive`, arrays"}
    against = dict.fromkeys(calls, "`log_ive`, arrays") | {
        "`log_ive`, numbers": base["numbers"],
        "`log_ive`, arrays": base["arrays"],
    }
    targets = {"`log_ive`, numbers": 3, "`log_ive`, arrays": 3, "`log_ive`, tensors": 2}
    rows = []
    for name, timing in timings.items():
        if name.startswith("`scipy"):
            rows.append([name, timing.median * 1e6, "", ""])
        else:
            times = f"{ratio(timing, timings[against[name]]):.2f}"
            rows.append(
                [name, timing.median * 1e6, f"{times} x {against[name]}", targets.get(name, "")]
            )
    return "### One element a call\n\n" + markdown(["call", "us", "ratio", "target"], rows)


def threads(v: np.ndarray, x: np.ndarray, rounds: int) -> str:
    """A second thread: its gain beside that of a bare rayon loop, and the processor time."""
    wall, cpu = {}, {}
    for n in (1, 2) * 3:  # in turn, for the machine changes
        limit_threads(n)
        timing = interleave({"call": lambda: special.log_iv(v, x)}, rounds=rounds)["call"]
        wall.setdefault(n, []).append(timing.median)
        cpu.setdefault(n, []).append(float(np.median(timing.cpu)))
    limit_threads(1)
    speedup, work = (np.median(np.divide(a, b)) for a, b in ((wall[1], wall[2]), (cpu[2], cpu[1])))
    text = (
        f"### Two threads\n\n`log_iv` at {v.size:,} points is {speedup:.2f} times as fast with two "
        f"threads, for {work:.2f} times the processor time (target 1.1)."
    )
    if shutil.which("cargo"):
        command = ["cargo", "run", "--quiet", "--release", "--example", "thread_scaling"]
        run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        text += (
            " The kernel beside a bare rayon loop, interleaved "
            f"(`rust/core/examples/thread_scaling.rs`, target 0.9):\n\n```text\n{run.stdout}```"
        )
    return text


if __name__ == "__main__":
    main()
