"""Coresets of generalized linear models: how far their posteriors are off, and what they save.

    python benches/bench_coreset.py [--rounds 7] [--write]

One thread on every side. `--write` puts the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _timing import interleave, limit_threads, machine, markdown, median_ratio, write_section
from scipy.linalg import solve_triangular
from scipy.special import expit

from pyprobe.sketching import GLMCoreset
from pyprobe.sketching._glm_data import as_data

SEEDS = 5
GROUPS = 20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    text = "\n\n".join(
        [
            "## Coresets of generalized linear models",
            "Written by `benches/bench_coreset.py`. " + machine("numpy", "scipy", "torch"),
            posteriors(),
            costs(options.rounds),
        ]
    )
    print(text)
    if options.write:
        write_section(__file__, text)


class Problem(NamedTuple):
    family: Any
    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    prior_precision: float
    n_draws: int


def gaussian_rows(
    n: int, d: int, family: str, heavy: bool = False
) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    def make(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, d))
        if heavy:
            x /= np.sqrt(rng.chisquare(2, size=(n, 1)) / 2)
        x[:, 0] = 1
        theta = rng.normal(size=d) * (0.7 if family == "logistic" else 0.2)
        eta = x @ theta
        if family == "logistic":
            return x, (rng.random(n) < expit(eta)).astype(float)
        return x, rng.poisson(np.exp(eta)).astype(float)

    return make


def rare_columns(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indicators of 6, 20 and 60 rows; those of the first all have y = 1."""
    x, y = gaussian_rows(20_000, 3, "logistic")(rng)
    rare = np.zeros((20_000, 3))
    for column, count in enumerate((6, 20, 60)):
        rare[rng.choice(20_000, count, replace=False), column] = 1
    y[rare[:, 0] == 1] = 1
    return np.column_stack([x, rare]), y


PROBLEMS = {
    "logistic, n = 20000, d = 6": Problem(
        "logistic", gaussian_rows(20_000, 6, "logistic"), 0.0, 4000
    ),
    "logistic, n = 200000, d = 12": Problem(
        "logistic", gaussian_rows(200_000, 12, "logistic"), 0.0, 1000
    ),
    "logistic, rows of Student's t with 2 degrees": Problem(
        "logistic", gaussian_rows(20_000, 6, "logistic", heavy=True), 0.0, 4000
    ),
    "logistic, rare columns, prior N(0, 9)": Problem("logistic", rare_columns, 1 / 9, 8000),
    "Poisson, n = 20000, d = 6": Problem("poisson", gaussian_rows(20_000, 6, "poisson"), 0.0, 4000),
}


class Draws(NamedTuple):
    """Draws from a Student's t distribution about the mode, in its posterior sds, and what is known
    of them."""

    standard: np.ndarray
    thetas: np.ndarray
    rest: np.ndarray
    """Log-prior less the proposal's log-density."""


def propose(coreset: GLMCoreset, n_draws: int) -> Draws:
    d, freedom = coreset.dim, 8
    rng = np.random.default_rng(1)
    z = rng.normal(size=(n_draws // 2, d))
    z /= np.sqrt(rng.chisquare(freedom, size=(len(z), 1)) / freedom)
    z = np.stack([z, -z], axis=1).reshape(-1, d)  # pairs lie side by side, in one group
    factor = np.linalg.cholesky(coreset.prior_precision - coreset.center_hessian)
    thetas = coreset.center + solve_triangular(factor, z.T, lower=True, trans="T").T
    proposal = -(freedom + d) / 2 * np.log1p((z**2).sum(axis=1) / freedom)
    prior = -((thetas @ coreset.prior_precision) * thetas).sum(axis=1) / 2
    return Draws(z, thetas, prior - proposal)


def weigh(draws: Draws, values: np.ndarray) -> np.ndarray:
    log_weights = values + draws.rest
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def moments(thetas: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = weights / weights.sum()
    mean = weights @ thetas
    return mean, np.sqrt(weights @ (thetas - mean) ** 2)


def shifts(draws: Draws, full: np.ndarray, ours: np.ndarray) -> tuple[float, float, float]:
    """Return the worst shift of a mean and of a log sd, and the standard error of the first.

    Both posteriors weigh the same draws, so that the noise of these nearly cancels; what is left
    is found by leaving out a group of draws at a time.
    """

    def worst(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (mean, sd), (other, other_sd) = (moments(draws.thetas[kept], w[kept]) for w in (full, ours))
        return (other - mean) / sd, np.log(other_sd / sd)

    every = np.arange(len(full))
    shift, log_sd = worst(every)
    groups = every * GROUPS // len(full)
    left = np.array([worst(every[groups != g])[0] for g in range(GROUPS)])
    error = np.sqrt((GROUPS - 1) / GROUPS * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    return np.abs(shift).max(), np.abs(log_sd).max(), error.max()


def plain_shift(plain: GLMCoreset) -> float:
    """Return how far the mode of a weighted sample is off, rms in posterior sds."""
    theta = plain.center
    for _ in range(30):
        slope = np.asarray(plain.gradient(theta)) - plain.prior_precision @ theta
        step = np.linalg.solve(plain.prior_precision - np.asarray(plain.hessian(theta)), slope)
        theta = theta + step / max(1.0, np.abs(step).max())
    precision = plain.prior_precision - plain.center_hessian
    delta = theta - plain.center
    return float(np.sqrt(delta @ precision @ delta / plain.dim))


def posteriors() -> str:
    rows = []
    for name, problem in PROBLEMS.items():
        x, y = problem.make(np.random.default_rng(0))
        options: Any = {
            "family": problem.family,
            "n_samples": len(x) // 100,
            "prior_precision": problem.prior_precision,
        }
        fits = [GLMCoreset.fit(x, y, rng=seed, **options) for seed in range(SEEDS)]
        draws = propose(fits[0], problem.n_draws)
        full = weigh(draws, as_data(problem.family, x, y, None).values(draws.thetas))
        count = 1 / (full**2).sum() / len(full)
        found = [
            shifts(draws, full, weigh(draws, fit.log_likelihood(draws.thetas))) for fit in fits
        ]
        delta = draws.thetas - fits[0].center
        quadratic = ((delta @ fits[0].center_hessian) * delta).sum(axis=1) / 2
        quadratic += delta @ fits[0].center_gradient
        laplace = shifts(draws, full, weigh(draws, quadratic))
        off: str | float = "-"
        if problem.family == "logistic":
            off = max(
                plain_shift(GLMCoreset.fit(x, y, rng=seed, control_variate=False, **options))
                for seed in range(SEEDS)
            )
        rows.append(
            [
                name,
                max(one[0] for one in found),
                f"{np.sqrt(np.mean([fit.info.expected_error**2 for fit in fits])):.2g}",
                max(one[1] for one in found),
                f"{max(one[2] for one in found):.0e}",
                f"{laplace[0]:.2g}, {laplace[1]:.2g}",
                off,
                f"{count:.0%}",
            ]
        )
    head = [
        "",
        "mean off, sd (target 0.05)",
        "expected, rms",
        "log sd off (target 0.02)",
        "standard error of these",
        "quadratic alone: mean, log sd",
        "plain weights: mean off, rms (> 5)",
        "draws that count",
    ]
    return (
        "### Posteriors from a hundredth of the rows\n\nThe worst coordinate, in posterior "
        f"standard deviations, of the worst of {SEEDS} coresets of m = n / 100 rows. Both "
        "posteriors are computed from one set of importance draws (1000 to 8000, of Student's t "
        "about the mode), so that their noise nearly cancels; its standard error is that of the "
        "difference of means, by leaving out a twentieth at a time. *Expected* is what the fit "
        "says of itself. *Quadratic alone* is the same without rows: Laplace's approximation, with "
        "this prior. *Plain weights* are l1 Lewis samples of as many rows without a control "
        "variate, measured at their mode, the worst of five.\n\n" + markdown(head, rows)
    )


def costs(rounds: int) -> str:
    import torch

    n, d = 1_000_000, 10
    x, y = gaussian_rows(n, d, "logistic")(np.random.default_rng(0))
    begin = time.process_time()
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=n // 100, rng=0)
    fit_seconds = time.process_time() - begin
    begin = time.process_time()
    check = coreset.check(x, y, rng=0)
    check_seconds = time.process_time() - begin
    rows, labels = torch.as_tensor(x), torch.as_tensor(y)
    theta = torch.tensor(coreset.center, requires_grad=True)

    def by_torch() -> Any:
        eta = rows @ theta
        value = (labels * eta - torch.nn.functional.softplus(eta)).sum()
        return torch.autograd.grad(value, theta)

    def by_pyro() -> Any:
        law = torch.distributions.Bernoulli(logits=rows @ theta, validate_args=False)
        return torch.autograd.grad(law.log_prob(labels).sum(), theta)

    def by_coreset() -> Any:
        return torch.autograd.grad(coreset.log_likelihood(theta), theta)

    def numpy_full() -> Any:
        eta = x @ coreset.center
        return y @ eta - np.logaddexp(0, eta).sum()

    calls = {
        "coreset, torch": by_coreset,
        "all rows, torch": by_torch,
        "all rows, Bernoulli": by_pyro,
        "coreset, NumPy": lambda: coreset.log_likelihood(coreset.center),
        "all rows, NumPy": numpy_full,
    }
    # Long enough that each finds in the caches what it left there, as in a sampler that calls no
    # other.
    timings = interleave(calls, rounds=rounds, at_least=0.1)
    table = []
    for full, small in (
        ("all rows, torch", "coreset, torch"),
        ("all rows, Bernoulli", "coreset, torch"),
        ("all rows, NumPy", "coreset, NumPy"),
    ):
        seconds = [timings[name].cpu for name in (full, small)]
        kind = "value" if "NumPy" in full else "value and gradient"
        times = [1e3 * statistics.median(one) for one in seconds]
        table.append([full, kind, *times, f"**{median_ratio(*seconds):.0f}**"])
    head = ["", "", "ms, all rows", "ms, coreset", "ratio (target 20)"]
    worth = fit_seconds / statistics.median(timings["all rows, torch"].cpu)
    return (
        f"### What a potential costs\n\nLogistic, n = 10^6, d = {d}, float64, in processor time, "
        "each called again and again for a tenth of a second as a sampler would. "
        f"The coreset keeps {len(coreset.weights)} rows. It was made in {fit_seconds:.1f} s "
        f"({coreset.info.n_iter} Newton steps), as long as {worth:.0f} evaluations on all rows; "
        f"its check, with {check.n_draws} draws, took {check_seconds:.1f} s and found it "
        f"{check.verdict}.\n\n" + markdown(head, table)
    )


if __name__ == "__main__":
    main()
