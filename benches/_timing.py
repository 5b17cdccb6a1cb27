"""What the benchmarks share: interleaved timings, ratios with their spread, the page they write.

Peers are timed in turn within one run, round by round, so that what disturbs the machine disturbs
all of them; a ratio is the median of the ratios of single rounds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "Steps",
    "Timings",
    "elsewhere",
    "interleave",
    "limit_threads",
    "machine",
    "markdown",
    "median_ratio",
    "peak_rise",
    "ratio",
    "time_steps",
    "write_section",
]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


class Timings(NamedTuple):
    """Seconds of a call, round by round: elapsed, and of processor time over all threads."""

    wall: list[float]
    cpu: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def minimum(self) -> float:
        return min(self.wall)


def interleave(
    calls: dict[str, Callable[[], Any]], *, rounds: int = 9, at_least: float = 2e-3
) -> dict[str, Timings]:
    """Time the calls in turn; a call shorter than `at_least` seconds is repeated within a round.

    With 0 for long calls each is only timed: they have been called before.
    """
    repeats = {}
    for name, call in calls.items():
        repeats[name] = 1
        if at_least > 0:
            call()
            start = time.perf_counter()
            call()
            repeats[name] = max(1, round(at_least / (time.perf_counter() - start)))
    results = {name: Timings([], []) for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            n = repeats[name]
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(n):
                call()
            results[name].wall.append((time.perf_counter() - wall) / n)
            results[name].cpu.append((time.process_time() - cpu) / n)
    return results


def ratio(slow: Timings, fast: Timings) -> float:
    """How many times longer `slow` takes."""
    return median_ratio(slow.wall, fast.wall)


def median_ratio(slow: Iterable[float], fast: Iterable[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


class Steps(NamedTuple):
    """A solver's iteration: the time of `long` of them less that of `short`."""

    prepare: Callable[[int], Callable[[], Any]]
    """Returns a call that makes so many."""
    short: int
    long: int


def time_steps(steps: dict[str, Steps], rounds: int) -> dict[str, list[float]]:
    """Return the processor seconds of an iteration, round by round."""
    calls = {name: [one.prepare(k) for k in (one.short, one.long)] for name, one in steps.items()}
    for short, _ in calls.values():
        short()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (_, n_short, n_long) in steps.items():
            times = [time.process_time()]
            for call in calls[name]:
                call()
                times.append(time.process_time())
            longer = times[2] - times[1] - (times[1] - times[0])
            found[name].append(longer / (n_long - n_short))
    return found


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of a module returns in a fresh process, whose memory is its own."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as process:
        return process.submit(function, *arguments).result()


def peak_rise(call: Callable[[], Any]) -> float | None:
    """Return the megabytes by which a call raises this process's peak; None where unknown.

    Not `resource.getrusage`: its peak is at first that of the parent process.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None

    def kilobytes(name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", status.read_text())
        return int(found[1]) if found else 0

    with contextlib.suppress(OSError):  # where it is allowed, the peak so far is forgotten
        Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    call()
    return (kilobytes("VmHWM") - before) / 1000


def limit_threads(n: int) -> None:
    """Let pyprobe, torch and the BLAS libraries that are loaded use `n` threads."""
    import threadpoolctl
    import torch

    import pyprobe

    pyprobe.set_num_threads(n)
    torch.set_num_threads(n)
    threadpoolctl.threadpool_limits(n)


def machine(*packages: str) -> str:
    """The processor and the versions of what is compared, in a line."""
    from importlib import metadata

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        model = found[1]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}."


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; floats with three digits, a dash for what there is not."""

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def write_section(script: str, text: str) -> None:
    """Put a script's results into its own section of docs/benchmarks.md."""
    name = Path(script).name
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = PAGE.read_text() if PAGE.exists() else "# Benchmarks\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in page:
        page = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: section, page, flags=re.DOTALL
        )
    else:
        page = f"{page.rstrip()}\n\n{section}\n"
    PAGE.write_text(page)
