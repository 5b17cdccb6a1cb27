"""Unbalanced light bridges beside Sinkhorn's plan of the samples, where the truth is known.

    python benches/bench_unbalanced_bridge.py [--quick] [--write]

Two Gaussians, whose unbalanced plan has a closed form (Janati et al. 2020, theorem 3): how much
mass it carries, by the bridge and by `sinkhorn_points` on the same samples. `--quick` takes the
smaller samples alone; `--write` puts the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg
from _timing import limit_threads, machine, markdown, write_section

from pyprobe.transport import LightUnbalancedBridge, sinkhorn_points

RHO = 5.0


def true_mass(shift: Any, first: Any, second: Any, epsilon: float) -> float:
    """Return the mass of the plan between N(0, first) and N(shift, second)."""
    eye, lam, tau = np.eye(len(shift)), epsilon + RHO, RHO / (epsilon + RHO)
    a, b = (RHO * (eye - lam * np.linalg.inv(c + lam * eye)) for c in (first, second))
    c = scipy.linalg.sqrtm(a @ b / tau + epsilon**2 / 4 * eye).real - epsilon / 2 * eye

    def log_det(matrix: Any) -> float:
        return float(np.linalg.slogdet(matrix)[1])

    volume = log_det(c) + 0.5 * (tau * log_det(a @ b) - log_det(first @ second))
    apart = shift @ np.linalg.solve(first + second + lam * eye, shift)
    exponent = len(shift) * epsilon / (2 * (2 * RHO + epsilon)) * math.log(epsilon)
    return math.exp(exponent + (volume - apart / 2) / (tau + 1) - 0.5 * log_det(c - a @ b / RHO))


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds of processor time."""
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Sinkhorn's iteration is cut short where it crawls
        found = call()
    return found, time.process_time() - begin


def case(dim: int, epsilon: float, n: int) -> list[Any]:
    """Return a row of the table."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    first, second = (
        turn.T * rng.uniform(0.3, 1.5, dim) @ turn,
        np.diag(rng.uniform(0.3, 1.5, dim)),
    )
    shift = 2.0 * np.eye(dim)[0]
    x0 = rng.multivariate_normal(np.zeros(dim), first, n)
    x1 = rng.multivariate_normal(shift, second, n)
    mass = true_mass(shift, first, second, epsilon)
    row = [dim, epsilon, n, f"{mass:.4f}"]
    for n_components, covariance in ((1, "full"), (20, "diag")):
        plan, seconds = timed(
            lambda k=n_components, c=covariance: LightUnbalancedBridge.fit(
                x0, x1, epsilon=epsilon, unbalanced=RHO, n_components=k, covariance=c, rng=0
            )
        )
        row.append(f"{plan.mass / mass - 1:+.1%}, {seconds:.2f} s")
    plan, seconds = timed(
        lambda: sinkhorn_points(
            x0, x1, epsilon=2 * epsilon, unbalanced=2 * RHO, tol=1e-4, max_iter=1000
        )
    )
    row.append(f"{plan.apply(np.ones(n)).sum() / mass - 1:+.1%}, {seconds:.2f} s")
    return row


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    sizes = (1000,) if options.quick else (1000, 4000)
    limit_threads(1)
    head = ["d", "epsilon", "points", "mass", "1 full component", "20 diagonal ones", "Sinkhorn"]
    rows = [case(*each) for each in product((2, 16, 64), (0.1, 1.0), sizes)]
    setting = (
        f"The mass of the unbalanced plan between two Gaussians, with penalties of {RHO:g}: the "
        "true one, which has a closed form, then how far off it is by `LightUnbalancedBridge` and "
        "by `sinkhorn_points` (to 1e-4, at most 1000 iterations) on the same samples, with seconds "
        "of processor time on one thread."
    )
    fairness = (
        "The plan between two Gaussians is that of one full component: its column shows what the "
        "samples and the fit cost, and nothing of how well a mixture follows other laws. The 20 "
        "diagonal components do not hold that plan, since the axes of the starts are turned. "
        "Sinkhorn's plan is that between the points, which it finds, and which lie further apart "
        "than their laws."
    )
    text = "\n\n".join(
        [
            "## Unbalanced bridges",
            "Written by `benches/bench_unbalanced_bridge.py`. " + machine("numpy", "scipy"),
            setting,
            fairness,
            markdown(head, rows),
        ]
    )
    print(text)
    if options.write:
        write_section(__file__, text)


if __name__ == "__main__":
    main()
