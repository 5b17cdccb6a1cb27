"""Speed and memory of distances between samples, beside SciPy and POT in the same run.

    python benches/bench_metrics.py [--rounds 5] [--write]

One thread on every side. `--write` puts the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from typing import Any

import numpy as np
from _timing import (
    elsewhere,
    interleave,
    limit_threads,
    machine,
    markdown,
    peak_rise,
    ratio,
    write_section,
)
from scipy.spatial.distance import cdist

from pyprobe.metrics import energy_distance, mmd, sliced_wasserstein

N = 5000
HAS_POT = importlib.util.find_spec("ot") is not None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    packages = ("numpy", "scipy", "torch", *(["POT"] if HAS_POT else []))
    sections = [
        "## Distances between samples",
        "Written by `benches/bench_metrics.py`. " + machine(*packages),
        pairs_beside_scipy(options.rounds),
        gradients_beside_torch(options.rounds),
    ]
    if HAS_POT:
        sections.append(sliced_beside_pot(options.rounds))
    text = "\n\n".join(sections)
    print(text)
    if options.write:
        write_section(__file__, text)


def samples(d: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.random.default_rng(d).normal(size=(2, N, d))
    return x, y + 0.1


def energy_by_matrices(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    within = cdist(x, x).sum() / (n * (n - 1)) + cdist(y, y).sum() / (m * (m - 1))
    return 2 * cdist(x, y).mean() - within


def gaussian_by_matrices(x: np.ndarray, y: np.ndarray) -> float:
    def table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 / a.shape[1] * cdist(a, b, "sqeuclidean"))

    n, m = len(x), len(y)
    within = (table(x, x).sum() - n) / (n * (n - 1)) + (table(y, y).sum() - m) / (m * (m - 1))
    return within - 2 * table(x, y).mean()


CALLS: dict[str, Any] = {
    "energy_distance": energy_distance,
    "mmd, gaussian": lambda x, y: mmd(x, y, bandwidth=x.shape[1] ** 0.5),
    "energy by cdist": energy_by_matrices,
    "gaussian by cdist": gaussian_by_matrices,
}


def peak(name: str, d: int) -> float | None:
    """Return by how many MB a call raises the peak of this process."""
    x, y = samples(d)
    CALLS[name](x[:10], y[:10])
    return peak_rise(lambda: CALLS[name](x, y))


def pairs_beside_scipy(rounds: int) -> str:
    rows = []
    for ours, theirs in (
        ("energy_distance", "energy by cdist"),
        ("mmd, gaussian", "gaussian by cdist"),
    ):
        for d in (3, 64):
            x, y = samples(d)
            error = abs(CALLS[ours](x, y) - CALLS[theirs](x, y))
            timings = interleave(
                {name: lambda name=name, x=x, y=y: CALLS[name](x, y) for name in (ours, theirs)},
                rounds=rounds,
            )
            rows.append(
                [
                    ours,
                    d,
                    1e3 * timings[ours].median,
                    1e3 * timings[theirs].median,
                    f"**{ratio(timings[theirs], timings[ours]):.1f}**",
                    f"{error:.0e}",
                    elsewhere(peak, ours, d),
                    elsewhere(peak, theirs, d),
                ]
            )
    head = ["", "d", "ms, ours", "ms, SciPy", "SciPy / ours", "difference", "MB, ours", "MB, SciPy"]
    return (
        f"### Sums over pairs\n\nBeside the same from `scipy.spatial.distance.cdist` matrices and "
        f"NumPy, for n = m = {N}. Megabytes are the rise of the process's peak.\n\n"
        + markdown(head, rows)
    )


def gradients_beside_torch(rounds: int) -> str:
    import torch

    def ours(x: Any, y: Any) -> Any:
        return torch.autograd.grad(energy_distance(x, y), x)[0]

    def theirs(x: Any, y: Any) -> Any:
        n, m = len(x), len(y)
        # By differences, as ours: the matrix product would be fast and wrong for near points.
        mode = {"compute_mode": "donot_use_mm_for_euclid_dist"}
        value = 2 * torch.cdist(x, y, **mode).mean() - torch.cdist(x, x, **mode).sum() / n / (n - 1)
        value = value - torch.cdist(y, y, **mode).sum() / m / (m - 1)
        return torch.autograd.grad(value, x)[0]

    rows = []
    for d in (3, 64):
        x, y = (torch.from_numpy(a[:2000]) for a in samples(d))
        x.requires_grad_()
        error = float((ours(x, y) - theirs(x, y)).abs().max())
        timings = interleave(
            {"ours": lambda x=x, y=y: ours(x, y), "torch": lambda x=x, y=y: theirs(x, y)},
            rounds=rounds,
        )
        times = [1e3 * timings[name].median for name in ("ours", "torch")]
        speed = f"**{ratio(timings['torch'], timings['ours']):.1f}**"
        rows.append([d, *times, speed, f"{error:.0e}"])
    head = ["d", "ms, ours", "ms, torch", "torch / ours", "largest difference"]
    return (
        "### Value and gradient of the energy distance\n\nBeside `torch.cdist` by differences, for "
        "n = m = 2000, float64.\n\n" + markdown(head, rows)
    )


def sliced_beside_pot(rounds: int) -> str:
    import ot

    from pyprobe import _rng
    from pyprobe.metrics._numpy import directions

    rows = []
    for n, m in ((N, N), (N, 4000)):
        for d in (3, 64):
            x, y = samples(d)
            x, y = x[:n], y[:m]
            lines = directions(200, d, _rng.key(0)).T
            error = abs(
                ot.sliced_wasserstein_distance(x, y, projections=lines)
                - sliced_wasserstein(x, y, rng=0)
            )
            timings = interleave(
                {
                    "ours": lambda x=x, y=y: sliced_wasserstein(x, y, rng=0),
                    "POT": lambda x=x, y=y: ot.sliced_wasserstein_distance(
                        x, y, n_projections=200, seed=0
                    ),
                },
                rounds=rounds,
            )
            times = [1e3 * timings[name].median for name in ("ours", "POT")]
            speed = f"**{ratio(timings['POT'], timings['ours']):.1f}**"
            rows.append([n, m, d, *times, speed, f"{error:.0e}"])
    head = ["n", "m", "d", "ms, ours", "ms, POT", "POT / ours", "difference, same lines"]
    return (
        "### Sliced Wasserstein distance\n\nBeside `ot.sliced_wasserstein_distance`, with 200 "
        "projections.\n\n" + markdown(head, rows)
    )


if __name__ == "__main__":
    main()
