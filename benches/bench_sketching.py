"""Scores of rows and samples by them: speed, accuracy, and what samples keep.

    python benches/bench_sketching.py [--part abcdefg] [--quick] [--rounds 5] [--write]

Times are of the processor, with one thread on every side. statsmodels, the peer of part a, is used
where it is installed. `--write` puts each part into its own section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from _tall import COHERENT, FLAT, chebyshev, monomials, normal
from _tall_samples import calibration, distortions, draws, rows_needed
from _timing import (
    Steps,
    Timings,
    interleave,
    limit_threads,
    machine,
    markdown,
    median_ratio,
    time_steps,
    write_section,
)
from scipy.linalg import lapack
from scipy.special import gamma

from pyprobe.errors import ConvergenceWarning
from pyprobe.sketching import leverage_scores, lewis_weights, total_sensitivity

HAS_STATSMODELS = importlib.util.find_spec("statsmodels") is not None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--part", default="abcdefg", help="any of the letters a to g")
    arguments.add_argument("--quick", action="store_true", help="fewer rows and draws")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    n = 10_000 if options.quick else 100_000
    parts: dict[str, Callable[[], str]] = {
        "a": lambda: leverage(n, options.rounds),
        "b": lambda: lewis(n, options.rounds),
        "c": lambda: totals(n),
        "d": lambda: distortions(n),
        "e": lambda: rows_needed(n, 3 if options.quick else 7),
        "f": lambda: calibration(n, *((40, 10) if options.quick else (200, 40))),
        "g": lambda: draws(100 * n, options.rounds),
    }
    packages = ("numpy", "scipy", *(["statsmodels"] if HAS_STATSMODELS else []))
    for letter in options.part:
        text = f"{parts[letter]()}\n\nWritten by `benches/bench_sketching.py --part {letter}`. "
        text += machine(*packages)
        print(text, end="\n\n", flush=True)
        if options.write:
            write_section(f"{__file__} --part {letter}", text)


def speed(slow: Timings, fast: Timings, target: float | None = None) -> str:
    found = f"**{median_ratio(slow.cpu, fast.cpu):.3g}**"
    return found if target is None else f"{found} (target {target:g})"


def milliseconds(timings: Timings) -> float:
    return 1e3 * float(np.median(timings.cpu))


# Part a


def leverage(n: int, rounds: int) -> str:
    text = (
        "## Scores and samples of rows\n\n### Leverage scores\n\nLargest relative error of a table "
        f"of powers of {n} points of [0, 1], against the scores of Legendre polynomials, which "
        "span the same space. The last two are NumPy's: the diagonal of `a pinv(a'a) a'`, row by "
        "row, and the squared norms of the rows of Q.\n\n" + errors_of_powers(n)
    )
    if not HAS_STATSMODELS:
        return text + "\n\nstatsmodels is not installed: times are left out."
    return (
        text + f"\n\nBeside statsmodels, `OLSInfluence(OLS(y, x).fit()).hat_matrix_diag`, for "
        f"normals of {n} rows.\n\n" + beside_statsmodels(n, rounds)
    )


def errors_of_powers(n: int) -> str:
    rows = []
    for d in (8, 12, 16, 20):
        a = monomials(n, d)
        q, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, n), d - 1))
        expected = np.square(q).sum(axis=1)
        line: list[Any] = [d, f"{np.linalg.cond(a):.0e}"]
        ours: list[Callable[[], Any]] = [
            lambda method=method, a=a: leverage_scores(a, method=method)
            for method in ("gram", "sketch_qr", "auto", "qr")
        ]
        theirs = [
            lambda a=a: np.einsum("ij,ij->i", a @ np.linalg.pinv(a.T @ a), a),
            lambda a=a: np.square(np.linalg.qr(a)[0]).sum(axis=1),
        ]
        for call in [*ours, *theirs]:
            try:
                line.append(f"{np.abs(call() / expected - 1).max():.0e}")
            except ValueError:
                line.append("refused")
        rows.append(line)
    head = ["d", "condition", "gram", "sketch_qr", "auto", "qr", "pinv of the Gram matrix", "QR"]
    return markdown(head, rows)


def beside_statsmodels(n: int, rounds: int) -> str:
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.outliers_influence import OLSInfluence

    rows = []
    for d, methods in ((20, {"auto": 12, "sketch_qr": None}), (100, {"auto": 25, "approx": 60})):
        a = normal(n, d)
        y = a.sum(axis=1)

        def peer(a: Any = a, y: Any = y) -> Any:
            return OLSInfluence(OLS(y, a).fit()).hat_matrix_diag

        expected = peer()
        calls: dict[str, Callable[[], Any]] = {"statsmodels": peer}
        for method in methods:
            calls[method] = lambda method=method, a=a: leverage_scores(a, method=method)
        errors = {name: np.abs(calls[name]() / expected - 1).max() for name in methods}
        timings = interleave(calls, rounds=rounds, at_least=0)
        theirs = timings["statsmodels"]
        for method, target in methods.items():
            found = timings[method]
            times = [milliseconds(found), milliseconds(theirs), speed(theirs, found, target)]
            rows.append([d, method, *times, f"{errors[method]:.0e}"])
    head = ["d", "method", "ms, ours", "ms, statsmodels", "statsmodels / ours", "difference"]
    return markdown(head, rows)


# Part b


def lewis(n: int, rounds: int) -> str:
    families = {**FLAT, "rare columns, t(1.5) scales": COHERENT["rare columns, t(1.5) scales"]}
    rows = []
    for p in (1.0, 1.5, 3.0, 4.0, 8.0, 16.0, 32.0):
        line: list[Any] = [f"{p:g}"]
        for make in families.values():
            a = make(n)
            _, rough = lewis_weights(a, p, return_info=True)
            _, fine = lewis_weights(a, p, tol=1e-8, return_info=True)
            line.append(f"{rough.n_iter - 1}, {fine.n_iter - 1} ({fine.residual:.0e})")
        rows.append(line)
    return (
        f"### Lewis weights\n\nSteps to a residual of 1e-2 (target 8 for p up to 4) and of 1e-8, "
        f"with the residual then; {n} rows of 20 columns. One pass more measures the last step.\n\n"
        + markdown(["p", *families], rows)
        + "\n\nA pass over normals, beside one in NumPy: a product, its row norms, logarithms and "
        "exponentials of a vector, and the Gram matrix of the rows times the roots of their "
        "weights, in place.\n\n" + lewis_passes(n, rounds)
    )


def lewis_passes(n: int, rounds: int) -> str:
    a = normal(n)
    rows = []
    for p in (1.0, 1.5, 4.0):

        def ours(k: int, p: float = p) -> Callable[[], Any]:
            def call() -> None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    lewis_weights(a, p, tol=1e-300, max_iter=k)

            return call

        def numpy(k: int, p: float = p) -> Callable[[], Any]:
            return lambda: lewis_in_numpy(a, p, k)

        difference = np.abs(lewis_in_numpy(a, p, 40) / lewis_weights(a, p, tol=1e-9) - 1).max()
        times = time_steps({"ours": Steps(ours, 2, 12), "NumPy": Steps(numpy, 2, 12)}, rounds)
        medians = [1e3 * float(np.median(times[name])) for name in ("ours", "NumPy")]
        faster = f"**{median_ratio(times['NumPy'], times['ours']):.3g}** (target 2)"
        rows.append([f"{p:g}", *medians, faster, f"{difference:.0e}"])
    head = ["p", "ms a pass, ours", "ms, NumPy", "NumPy / ours", "difference of the weights"]
    return markdown(head, rows)


def lewis_in_numpy(a: Any, p: float, n_iter: int) -> Any:
    n, d = a.shape
    c = 2 * p / (p + 2)
    log_w = np.full(n, math.log(d / n))
    rows = np.empty_like(a)
    for _ in range(n_iter):
        np.multiply(a, np.exp((0.5 - 1 / p) * log_w)[:, None], out=rows)
        factor, _ = lapack.dpotrf(rows.T @ rows)
        inverse, _ = lapack.dtrtri(np.triu(factor))
        np.matmul(a, inverse, out=rows)
        log_tau = np.log(np.einsum("ij,ij->i", rows, rows)) + (1 - 2 / p) * log_w
        log_w += c * (log_tau - log_w)
    return np.exp(log_w)


# Part c


POLYNOMIALS = {1.0: 11.83, 3.0: 26.86, 4.0: 32.86, 8.0: 51.76}
"""Sums of sensitivities by their exponents; two grids agree to 0.3 %."""


def totals(n: int) -> str:
    """The sums of the method sheet: closed forms of normals, and polynomials on a fine grid."""
    d = 20
    modulus = math.sqrt(2) * gamma((d + 1) / 2) / gamma(d / 2) / math.sqrt(2 / math.pi)
    rows = []
    for name, p, expected in (
        ("normal", 1.0, modulus),
        ("normal", 4.0, d * (d + 2) / 3),
        *(("Chebyshev", p, total) for p, total in POLYNOMIALS.items()),
    ):
        # All rows of a coarser grid: its sums differ by 0.3 % (and those of fewer normals more).
        few = n // 10
        every = chebyshev(few) if name == "Chebyshev" else normal(n)
        n_some = 2000
        n_exact = n_some if name == "Chebyshev" else 8
        exact, exact_seconds = timed_total(every, p, n_rows=n_exact, n_coreset=None)
        a = chebyshev(n) if name == "Chebyshev" else every
        through, seconds = timed_total(a, p, n_rows=n_some)
        line = [name, f"{p:g}", expected, f"{exact.value:.4g} ({exact.standard_error:.1g})"]
        line += [f"**{100 * (exact.value / expected - 1):.2g}**", exact_seconds]
        line += [f"{through.value:.4g} ({through.standard_error:.1g})"]
        line += [f"**{100 * (through.value / expected - 1):.2g}**", seconds]
        rows.append(line)
    head = ["rows", "p", "known", "all rows", "off, % (target 1)", "s"]
    head += ["4000 rows", "off, % (target 3)", "s"]
    return (
        f"### Totals of sensitivities\n\nTwenty columns, {n} rows (all rows of Chebyshev "
        f"polynomials: {n // 10}), and in brackets the standard error of the rows drawn: 2000, but "
        "of all normals 8. Those of polynomials were computed once on two fine grids.\n\n"
        + markdown(head, rows)
    )


def timed_total(a: Any, p: float, **options: Any) -> tuple[Any, float]:
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = total_sensitivity(a, p, rng=0, **options)
    return found, time.process_time() - start


if __name__ == "__main__":
    main()
