"""Worst errors of the log-Bessel functions, by region, against certified values.

    python benches/accuracy_special.py [--points 100000] [--write]

The reference values come from ball arithmetic (`tests/reference/arb_bessel.py`, python-flint), 80
bits certified; they take some minutes and are kept in the user's cache folder for the next run.
`--write` writes the page docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import inspect
import os
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _timing import machine

from pyprobe import special

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"
sys.path.insert(0, str(REFERENCE))

import arb_bessel  # noqa: E402
from reference_tables import BOUNDS, scaled_error  # noqa: E402

PAGE = ROOT / "docs" / "accuracy.md"
BESSEL = ("log_iv", "log_kv", "bessel_ratio")
REGIONS = ((0, 22), (22, 100), (100, 1e4), (1e4, np.inf))
DISTANCES = np.array([0, 22, 100, 1e4])
SCALES = {
    "relative": "|f|",
    "one": "max(1, |f|)",
    "hypot": "max(s, |f|)",
    "order": "max(1, v, |f|)",
    "order/x": "max(v/x, |f|)",
    "order/x^2": "max(v/x^2, |f|)",
    "1/s^2": "max(1/s^2, |f|)",
}
INTRODUCTION = """\
# Accuracy

<!-- Written by benches/accuracy_special.py. -->

The worst error of every function and derivative of {{mod}}`pyprobe.special`, in double precision,
against reference values from ball arithmetic ([Arb](https://flintlib.org), at least 80 bits
certified, rounded to the nearest double). With s = hypot(v, x), the columns split the points by the
region where they lie; the last ones show the bound that the tests enforce, the unit in which errors
are counted, and the arguments of the worst point. A name is followed by the number of derivatives
in the first and in the second argument.

Units: log I and log K pass through zero as a difference of terms of size s, where one unit in the
last place of x moves the result by 1e-16 s already; so their errors are counted in units of
max(|f|, s). log 0F1 and the ratios, which have no such crossing, are held to their own size. A
result that is not finite would count as an infinite error.

Measured with {points} points: a tenth at v = 0, else v log-uniform in [1e-3, 1e6] and x log-uniform
in [1e-6, 1e7], and a fifth of all with s uniform in [0, 60], around the seam between the two
algorithms. For log 0F1 and log Matern a quarter as many: b log-uniform in [1e-2, 1e6] with
z = kappa^2/4, kappa log-uniform in [1e-6, 1e7]; nu log-uniform in [1e-2, 1e3] with x log-uniform in
[1e-15, 1e7].

{machine}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--points", type=int, default=100_000)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = arguments.parse_args()
    lines = table(options.points, options.processes)
    print("\n".join(lines))
    if options.write:
        introduction = INTRODUCTION.format(
            points=f"{options.points:,}", machine=machine("pyprobe-rs", "numpy")
        )
        PAGE.write_text(introduction + "\n" + "\n".join(lines) + "\n")


def table(n_points: int, n_processes: int) -> list[str]:
    """The worst errors as lines of a Markdown table."""
    load = functools.cache(functools.partial(reference, n_points, n_processes))
    heads = [f"s < {REGIONS[0][1]}", *(f"{low:g} <= s < {high:g}" for low, high in REGIONS[1:-1])]
    heads = ["function", *heads, f"s >= {REGIONS[-1][0]:g}", "bound", "unit", "worst at"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for bound in BOUNDS:
        v, x, columns = load(bound.table)
        got = getattr(special, bound.function)(v, x, derivative=bound.derivative)
        error = scaled_error(got, columns[bound.column], v, x, bound.scale)
        order, argument = (v - 1, 2 * np.sqrt(x)) if bound.table == "log_hyp0f1" else (v, x)
        region = np.searchsorted(DISTANCES, np.hypot(order, argument), side="right") - 1
        worst = [error[region == k].max(initial=0) for k in range(len(REGIONS))]
        at = error.argmax()
        cells = [f"`{bound.function}` {bound.derivative[0]},{bound.derivative[1]}"]
        cells += [f"{value:.1e}" for value in worst]
        cells += [f"{bound.bound:g}" + ("" if max(worst) <= bound.bound else " **exceeded**")]
        cells += [f"`{SCALES[bound.scale]}`".replace("|", "\\|"), f"({v[at]:.6g}, {x[at]:.6g})"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def reference(
    n_points: int, n_processes: int, name: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Arguments and certified values of one table, from the cache where they are there."""
    family = "bessel" if name in BESSEL else name
    source = (REFERENCE / "arb_bessel.py").read_text() + inspect.getsource(points) + str(n_points)
    key = hashlib.sha256(source.encode()).hexdigest()[:12]
    path = cache_folder() / f"{family}-{key}.npz"
    if not path.exists():
        v, x = points(family, n_points)
        rows = []
        with get_context("spawn").Pool(n_processes) as pool:
            at = [(family, *pair) for pair in zip(v.tolist(), x.tolist(), strict=True)]
            for row in pool.imap(certified, at, chunksize=100):
                rows.append(row)
                if len(rows) % 1000 == 0:
                    print(f"\r{family}: {len(rows)}/{len(at)}", end="", file=sys.stderr)
        print(file=sys.stderr)
        columns = {column: np.array([row[column] for row in rows]) for column in rows[0]}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, v=v, x=x, **columns)
    with np.load(path) as file:
        columns = {column: file[column] for column in file.files if column not in ("v", "x")}
        return file["v"], file["x"], columns


def points(family: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Arguments over the range in which the accuracy is claimed."""
    rng = np.random.default_rng(1)
    if family == "bessel":
        v, x = log_uniform(rng, 1e-3, 1e6, n), log_uniform(rng, 1e-6, 1e7, n)
        v[: n // 10] = 0
        near = n // 5
        s, angle = rng.uniform(0, 60, near), rng.uniform(0, np.pi / 2, near)
        v[-near:], x[-near:] = s * np.sin(angle), s * np.cos(angle)
        return v, x
    n //= 4
    if family == "log_hyp0f1":
        return log_uniform(rng, 1e-2, 1e6, n), log_uniform(rng, 1e-6, 1e7, n) ** 2 / 4
    return log_uniform(rng, 1e-2, 1e3, n), log_uniform(rng, 1e-15, 1e7, n)


def certified(at: tuple[str, float, float]) -> dict[str, float]:
    """Certified values at one point, rounded to nearest."""
    family, v, x = at
    values = arb_bessel.certify(getattr(arb_bessel, family), v, x)
    return {column: float(value.mid()) for column, value in values.items()}


def log_uniform(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pyprobe" / "reference"


if __name__ == "__main__":
    main()
