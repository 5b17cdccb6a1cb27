"""Sparse Newton iterations as published, beside Sinkhorn and beside our own Newton's method.

The three kinds of problem of X. Tang et al., "Accelerating Sinkhorn algorithm with sparse Newton
iterations" (ICLR 2024), at epsilon = max C / 1200, to a marginal error of 1e-12, on one thread.
"""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

import _timing
import _transport
import numpy as np

from pyprobe import _core

TOL = 1e-12
MAX_ITER = 100_000
EXACT = (np.inf, np.inf)


class Case(NamedTuple):
    name: str
    problem: _transport.Problem
    n_start: int
    """Iterations of Sinkhorn before the sparse Newton steps."""
    density: float
    """The paper's lambda times n."""


def cases() -> list[Case]:
    return [
        Case("random assignment, n = 500", _transport.assignment(500, 1 / 1200), 20, 2),
        Case("digits, squared l2", _transport.digits("squared l2", 1 / 1200), 20, 2),
        Case("digits, l1", _transport.digits("l1", 1 / 1200), 700, 15),
    ]


def solve(problem: _transport.Problem, method: str, **options: Any) -> tuple[float, dict[str, Any]]:
    """Return seconds, the least of three, and what was found."""
    settings = {"relaxation": False, "max_iter": MAX_ITER, "max_newton": 200, "memory": 2**31}
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        found = _core.sinkhorn(
            problem.cost,
            problem.a,
            problem.b,
            problem.epsilon,
            EXACT,
            method=method,
            tol=TOL,
            **{**settings, **options},
        )
        seconds.append(time.perf_counter() - begin)
        if seconds[-1] > 3:
            break
    return min(seconds), found


def row(case: Case) -> list[Any]:
    problem = case.problem
    # Both sides of the second derivative, 2n rows, count towards lambda (2n)^2 entries.
    sparse = {"sns": (case.n_start, 2 * case.density)}
    runs = {
        "log": solve(problem, "log"),
        "scaling": solve(problem, "scaling"),
        "sns": solve(problem, "sns", **sparse),
        "newton": solve(problem, "newton"),
    }

    def cell(name: str) -> str:
        seconds, found = runs[name]
        steps = f"{found['n_iter']}"
        if found["n_newton"]:
            steps += f" + {found['n_newton']}"
        error = "" if found["converged"] else f", stops at {found['marginal_error']:.0e}"
        return f"{steps}: {1e3 * seconds:.3g} ms{error}"

    ratio = runs["scaling"][0] / runs["sns"][0]
    return [case.name, *map(cell, runs), f"**{ratio:.2g}**"]


def main() -> None:
    _transport.bind()
    _timing.limit_threads(1)
    head = [
        "problem",
        "Sinkhorn, log domain",
        "Sinkhorn, stored plan",
        "sparse Newton (`sns`)",
        "`newton`",
        "stored plan / `sns`",
    ]
    text = f"""## Sparse Newton iterations

Written by `benches/bench_sns.py`. {_timing.machine("numpy")}

Iterations of Sinkhorn + steps of Newton, and the time, to a marginal error of {TOL:.0e}; Sinkhorn
without over-relaxation, at most {MAX_ITER} iterations. `sns` keeps 2/n of the second derivative's
entries after 20 iterations (15/n after 700 in the last row), as published.

{_timing.markdown(head, [row(case) for case in cases()])}
"""
    print(text)
    if "--write" in sys.argv:
        _timing.write_section(__file__, text)


if __name__ == "__main__":
    main()
