"""Sketches and least squares by them, beside NumPy, SciPy and LAPACK in the same run.

    python benches/bench_sketch.py [--rounds 9] [--part srht|regression|linf] [--quick] [--write]

One thread on every side; times are of the processor. `--write` puts the results of all parts into
docs/benchmarks.md. The largest problem holds 1.6 GB, and LAPACK a copy; `--quick` takes a fifth.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
from _timing import interleave, limit_threads, machine, markdown, median_ratio, write_section
from scipy import stats

from pyprobe import _core
from pyprobe.sketching import sketch_operator, sketched_lstsq

PARTS: dict[str, Callable[[Any], str]] = {}


def main() -> None:
    PARTS.update(srht=srht, regression=regression, linf=coordinates)
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--part", choices=tuple(PARTS))
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    sections = [
        "## Sketches",
        "Written by `benches/bench_sketch.py`. " + machine("numpy", "scipy"),
        *(part(options) for name, part in PARTS.items() if options.part in (None, name)),
    ]
    text = "\n\n".join(sections)
    print(text)
    if options.write:
        if options.part:
            raise SystemExit("--write is for all parts")
        write_section(__file__, text)


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int, **options: float) -> Any:
    """Return the median processor time of each call, and a function for ratios of two."""
    timings = interleave(calls, rounds=rounds, **options)
    medians = {name: 1e3 * statistics.median(t.cpu) for name, t in timings.items()}
    return medians, lambda slow, fast: median_ratio(timings[slow].cpu, timings[fast].cpu)


# The transform.


def by_levels(x: np.ndarray) -> np.ndarray:
    """The Walsh-Hadamard transform down the columns, a level at a time."""
    x, half = x.copy(), 1
    while half < len(x):
        pairs = x.reshape(-1, 2, half, x.shape[1])
        total, difference = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        pairs[:, 0], pairs[:, 1] = total, difference
        half *= 2
    return x


def srht(options: Any) -> str:
    n, d = 131072, 20
    x = np.random.default_rng(0).normal(size=(n, d))
    operators = {m: sketch_operator("srht", m, n, rng=0) for m in (160, 1000, 8000)}
    signs = _core.sketch_srht_signs(n, 0)[:, None]

    def numpy_srht(m: int) -> np.ndarray:
        rows = np.random.default_rng(0).choice(n, m, replace=False)
        return by_levels(signs * x)[rows] / np.sqrt(m)

    exact = by_levels(x)
    error = np.abs(_core.sketch_walsh_hadamard(x) - exact).max() / np.abs(exact).max()
    calls: dict[str, Callable[[], Any]] = {
        "NumPy": lambda: numpy_srht(1000),
        "dct": lambda: scipy.fft.dct(x, axis=0),
        "transform": lambda: _core.sketch_walsh_hadamard(x),
    }
    calls |= {f"srht, m = {m}": lambda s=s: s @ x for m, s in operators.items()}
    for kind in ("sparse_sign", "countsketch", "gaussian"):
        s = sketch_operator(kind, 160, n, rng=0)
        calls[f"{kind}, m = 160"] = lambda s=s: s @ x
    medians, ratio = milliseconds(calls, options.rounds)
    rows = []
    for name in list(calls)[2:]:
        targets = (" (target 10)", " (target 3)") if name == "srht, m = 1000" else ("", "")
        rows.append(
            [
                name,
                medians[name],
                f"**{ratio('NumPy', name):.1f}**{targets[0]}",
                f"**{ratio('dct', name):.1f}**{targets[1]}",
            ]
        )
    return (
        f"### Transforms and sketches\n\nOf n = {n} rows and d = {d} columns, float64. Beside the "
        f"same SRHT in NumPy, a level at a time ({medians['NumPy']:.0f} ms), and beside "
        f"`scipy.fft.dct` down the columns ({medians['dct']:.0f} ms). `transform` copies its input "
        f"and keeps all rows; it differs from NumPy's by {error:.0e} of the largest entry.\n\n"
        + markdown(["", "ms", "NumPy / ours", "dct / ours"], rows)
    )


# Least squares.


def problem(n: int, d: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(d)
    a = rng.normal(size=(n, d))
    if condition > 1:
        v = np.linalg.qr(rng.normal(size=(d, d)))[0]
        a = (a * np.logspace(0, -np.log10(condition), d)) @ v.T
    b = a @ rng.normal(size=d) + rng.normal(size=n)
    return a, b


def by_normal_equations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.solve(a.T @ a, a.T @ b)


def by_qr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    q, r = np.linalg.qr(a)
    return scipy.linalg.solve_triangular(r, q.T @ b)


def backward_errors(a: np.ndarray, b: np.ndarray, *solutions: np.ndarray) -> list[float]:
    """Karlson and Walden's estimates of the least relative change of a that makes x a solution."""
    _, s, vt = np.linalg.svd(np.linalg.qr(a, mode="r"))
    return [backward_error(a, b, x, s, vt) for x in solutions]


def backward_error(
    a: np.ndarray, b: np.ndarray, x: np.ndarray, s: np.ndarray, vt: np.ndarray
) -> float:
    gradient, squares = np.zeros(a.shape[1], dtype=np.longdouble), np.longdouble(0)
    for first in range(0, len(a), 10_000):
        rows = a[first : first + 10_000].astype(np.longdouble)
        left = b[first : first + 10_000] - rows @ x.astype(np.longdouble)
        gradient += rows.T @ left
        squares += left @ left
    size = np.linalg.norm(x)
    damping = float(np.sqrt(squares)) / size
    return float(np.linalg.norm(vt @ gradient.astype(float) / np.hypot(s, damping)) / size / s[0])


def available() -> float:
    """Return the gigabytes that are free, or 0 where nobody says."""
    info = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+)", info.read_text()) if info.exists() else None
    return int(found[1]) / 1e6 if found else 0.0


def regression(options: Any) -> str:
    sizes = [(10_000, 5), (100_000, 5), (1_000_000, 5), (131_072, 20), (131_072, 50), (400_000, 50)]
    rows = [row(n, d, 1.0, options.rounds) for n, d in sizes]
    rows += [row(n, d, 1e8, options.rounds) for n, d in ((131_072, 20), (131_072, 50))]
    large = 200_000 if options.quick or available() < 8 else 1_000_000
    rows += [row(large, 200, condition, 1) for condition in (1.0, 1e8)]
    head = [
        "n", "d", "condition", "method", "ms, ours", "ms, normal equations", "ms, gelsd",
        "ours / best", "gelsd / ours", "backward error", "that of QR", "of the normal equations",
    ]  # fmt: skip
    return (
        "### Exact regression\n\n`sketched_lstsq(a, b)` beside the normal equations in NumPy "
        "(`np.linalg.solve(a.T @ a, a.T @ b)`) and `scipy.linalg.lstsq` (`gelsd`). The best is the "
        "faster of the two whose backward error is that of a QR decomposition. Backward errors are "
        "the estimates of Karlson and Walden, with residuals in extended precision.\n\n"
        + markdown(head, rows)
    )


def row(n: int, d: int, condition: float, rounds: int) -> list[Any]:
    a, b = problem(n, d, condition)
    calls = {
        "ours": lambda: sketched_lstsq(a, b),
        "normal": lambda: by_normal_equations(a, b),
        "gelsd": lambda: scipy.linalg.lstsq(a, b),
    }
    for name in ("ours", "normal"):
        calls[name]()
    medians, ratio = milliseconds(calls, rounds, at_least=2e-3 if n * d < 10**7 else 0)
    found = sketched_lstsq(a, b)
    small = n * d <= 10**7 or rounds == 1
    errors: list[float | None] = [None] * 3
    if small:
        errors = [*backward_errors(a, b, found.x, by_qr(a, b), by_normal_equations(a, b))]
    best = "normal" if condition < 1e4 and medians["normal"] < medians["gelsd"] else "gelsd"
    targets = (" (target 1.2)" if d <= 50 else "", " (target 3)" if d == 200 else "")
    return [
        n,
        d,
        f"{condition:.0e}",
        found.info.method,
        *medians.values(),
        f"**{ratio('ours', best):.2f}**{targets[0]}",
        f"**{ratio('gelsd', 'ours'):.1f}**{targets[1]}",
        *(None if error is None else f"{error:.1e}" for error in errors),
    ]


# Coordinates.


def coordinates(options: Any) -> str:
    n, d, m, draws = 8192, 64, 1024, 60 if options.quick else 200
    spikes = np.zeros(n)
    spikes[[1000, 3000, 5000, 7000]] = 0.5
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(n, d)))[0]
    left = rng.normal(size=n)
    left -= turned @ (turned.T @ left)
    instances = {"spikes": (np.eye(n, d), spikes), "turned": (turned, left / np.linalg.norm(left))}
    predicted, rows = np.sqrt(2 * np.log(d) / m), []
    for kind in ("srht", "gaussian", "sparse_sign", "countsketch"):
        cells: list[Any] = [kind]
        for a, b in instances.values():
            found = [solve(kind, m, a, b, seed) for seed in range(draws)]
            worst = np.quantile([np.abs(x).max() for x in found], 0.95)
            target = " (target 1.4)" if kind == "srht" else ""
            length = np.sqrt(np.mean([x @ x for x in found]))
            cells += [f"{worst:.3f}", f"**{worst / predicted:.2f}**{target}", f"{length:.3f}"]
        rows.append(cells)
    head = [
        "", "95 % error, spikes", "beside predicted", "rms length",
        "95 % error, turned", "beside predicted", "rms length",
    ]  # fmt: skip
    return (
        f"### Errors of coordinates\n\nn = {n}, d = {d}, m = {m}, {draws} draws. The largest error "
        "of a coordinate, where A is d unit vectors and b is 1/2 in four other rows, and where "
        f"both are turned at random; predicted is sqrt(2 log d / m) = {predicted:.3f}. In length "
        'all kinds are alike. The sparse kinds are what `guarantee="linf"` refuses.\n\n'
        + markdown(head, rows)
        + "\n\n"
        + coverage(draws)
    )


def solve(kind: str, m: int, a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    s = sketch_operator(kind, m, len(a), rng=seed)
    return np.linalg.lstsq(s @ a, s @ b)[0]


def coverage(draws: int) -> str:
    rows = []
    for kind, n, d, m in (
        ("srht", 8192, 20, 400),
        ("srht", 8192, 20, 4000),
        ("srht", 131_072, 50, 2000),
        ("gaussian", 8192, 20, 400),
    ):
        a, b = problem(n, d, 30.0)
        exact = sketched_lstsq(a, b).x
        quantile, inside = stats.t.ppf(0.975, m - d), []
        for seed in range(draws):
            s = sketched_lstsq(a, b, guarantee="linf", sketch=kind, n_rows=m, rng=seed)
            inside.append(np.abs(s.x - exact) <= quantile * s.standard_error)
        rows.append([kind, n, d, m, f"**{100 * np.mean(inside):.1f} %** (target 93 to 98)"])
    return (
        f"How often 95 % intervals from `standard_error` hold the exact coordinate, over {draws} "
        "draws:\n\n" + markdown(["", "n", "d", "m", "coverage"], rows)
    )


if __name__ == "__main__":
    main()
