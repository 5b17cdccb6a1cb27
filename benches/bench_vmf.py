"""Speed of the von Mises-Fisher distribution, beside SciPy and NumPy in the same run.

    python benches/bench_vmf.py [--rounds 9] [--write]

One thread on every side. `--write` puts the results into docs/benchmarks.md. TensorFlow Probability
is measured where it is installed: `pip install tensorflow-probability "jax[cpu]==0.6.2"` (version
0.25 fails to import with jax 0.10).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from _timing import Timings, interleave, limit_threads, machine, markdown, ratio, write_section
from scipy import stats

from pyprobe import _core
from pyprobe.directional import VonMisesFisher
from pyprobe.special import bessel_ratio


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = arguments.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    text = "\n\n".join(
        [
            "## Von Mises-Fisher distribution",
            "Written by `benches/bench_vmf.py`. " + machine("numpy", "scipy"),
            draws_beside_scipy(options.rounds),
            draws_beside_tensorflow_probability(options.rounds),
            draws_beside_normals(options.rounds),
            gradients(options.rounds),
            fits(options.rounds),
        ]
    )
    print(text)
    if options.write:
        write_section(__file__, text)


def direction(dim: int) -> np.ndarray:
    x = np.random.default_rng(dim).normal(size=dim)
    return x / np.linalg.norm(x)


def compare(rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> list[Timings]:
    timings = interleave({"ours": ours, "theirs": theirs}, rounds=rounds)
    return [timings["ours"], timings["theirs"]]


def draws_beside_scipy(rounds: int) -> str:
    rows = []
    generator = np.random.default_rng(0)
    for dim, n in ((2, 100_000), (3, 100_000), (10, 10_000), (128, 1000), (2048, 1), (2048, 100)):
        loc, kappa = direction(dim), float(dim)
        vmf, peer = VonMisesFisher(loc, kappa), stats.vonmises_fisher(loc, kappa)
        ours, theirs = compare(
            rounds if dim < 1000 else 3,
            lambda vmf=vmf, n=n: vmf.sample((n,), rng=generator),
            lambda peer=peer, n=n: peer.rvs(n, random_state=generator),
        )
        target = " (target 100)" if (dim, n) == (2048, 1) else ""
        row = [
            dim,
            n,
            1e6 * ours.median,
            1e6 * theirs.median,
            f"**{ratio(theirs, ours):.3g}**{target}",
        ]
        rows.append(row)
    head = ["d", "draws", "us, ours", "us, SciPy", "SciPy / ours"]
    return (
        "### Draws\n\nBeside `scipy.stats.vonmises_fisher(mu, kappa).rvs`, which forms a d-by-d "
        "rotation for d > 3. The concentration is d.\n\n" + markdown(head, rows)
    )


def draws_beside_tensorflow_probability(rounds: int) -> str:
    title = "### Draws beside TensorFlow Probability\n\n"
    if any(importlib.util.find_spec(name) is None for name in ("tensorflow_probability", "jax")):
        return title + "Not measured: `tensorflow_probability` with `jax` is not installed."
    # Read once, when jax starts.
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
        + os.environ.get("XLA_FLAGS", "")
    )
    import jax
    import tensorflow_probability.substrates.jax as tfp

    rows, generator = [], np.random.default_rng(0)
    key = jax.random.PRNGKey(0)
    for dim, n in ((128, 10_000), (2048, 1000)):
        loc = direction(dim).astype(np.float32)
        vmf = VonMisesFisher(loc, float(dim))
        peer = tfp.distributions.VonMisesFisher(loc, np.float32(dim))
        sample = jax.jit(lambda key, peer=peer, n=n: peer.sample(n, seed=key))
        ours, theirs = compare(
            rounds,
            lambda vmf=vmf, n=n: vmf.sample((n,), rng=generator),
            lambda sample=sample: sample(key).block_until_ready(),
        )
        row = [dim, n, 1e6 * ours.median, 1e6 * theirs.median]
        rows.append([*row, f"**{ratio(theirs, ours):.3g}** (target 5)"])
    head = ["d", "draws", "us, ours", "us, TFP", "TFP / ours"]
    versions = f"tensorflow-probability {tfp.__version__}, jax {jax.__version__}"
    return (
        f"{title}Beside `VonMisesFisher(loc, kappa).sample` of its substrate for JAX ({versions}), "
        "compiled, after a first call; float32 on both sides. The concentration is d.\n\n"
        + markdown(head, rows)
    )


def draws_beside_normals(rounds: int) -> str:
    rows = []
    generator = np.random.default_rng(0)
    for dim, n in ((128, 10_000), (2048, 1000), (32768, 60), (131072, 15)):
        for dtype in (np.float64, np.float32):
            vmf = VonMisesFisher(direction(dim).astype(dtype), float(dim))
            ours, theirs = compare(
                rounds,
                lambda vmf=vmf, n=n: vmf.sample((n,), rng=generator),
                lambda n=n, dim=dim: generator.standard_normal((n, dim)),
            )
            per = 1e9 / (n * dim)
            row = [dim, n, dtype.__name__, per * ours.median, per * theirs.median]
            rows.append([*row, f"**{ratio(ours, theirs):.2f}** (target 0.6)"])
    head = ["d", "draws", "dtype", "ns an element, ours", "ns, NumPy's normals", "ours / NumPy"]
    return (
        "### Draws beside bare normals\n\nThe floor of any sampler that starts from d normals: "
        "`Generator.standard_normal` for as many of them, in float64.\n\n" + markdown(head, rows)
    )


def gradients(rounds: int) -> str:
    rows, n = [], 1_000_000
    for dim in (2, 3, 5, 10, 128, 2048):
        kappas = np.array([float(dim)])
        complement = _core.vmf_sample_marginal(dim, kappas, n, 1)
        gradient = _core.vmf_marginal_gradient(dim, kappas, complement)
        slope = bessel_ratio(dim / 2 - 1, kappas[0], derivative=(0, 1))
        z = (gradient.mean() - slope) / (gradient.std() / n**0.5)
        few = complement[:20_000]
        timings = interleave(
            {
                "draws": lambda dim=dim, k=kappas: _core.vmf_sample_marginal(dim, k, 20_000, 1),
                "gradient": lambda dim=dim, k=kappas, u=few: _core.vmf_marginal_gradient(dim, k, u),
            },
            rounds=rounds,
        )
        times = [1e9 * timings[name].median / 20_000 for name in ("draws", "gradient")]
        rows.append([dim, *times, gradient.mean() / slope - 1, z])
    head = [
        "d",
        "ns a draw of w",
        "ns a gradient",
        "mean / A' - 1",
        "in standard errors (target 4.9)",
    ]
    return (
        "### Reparameterized gradients\n\nThe derivative of w = loc . x in the concentration (d of "
        "it), whose mean is A' exactly; 10^6 draws.\n\n" + markdown(head, rows)
    )


def fits(rounds: int) -> str:
    rows = []
    for dim, n in ((3, 1_000_000), (128, 50_000), (2048, 5000), (32768, 1000)):
        for kappa in (float(dim), 1e4 * dim):
            x = VonMisesFisher(direction(dim), kappa).sample((n,), rng=0)
            ours, theirs = compare(
                rounds,
                lambda x=x: VonMisesFisher.fit(x),
                lambda x=x: (x.mean(0), np.einsum("ij,ij->i", x, x)),
            )
            fit = VonMisesFisher.fit(x, bias_correction=n < dim)
            z = (fit.concentration - kappa) / fit.info.concentration_stderr
            passes = 2 if fit.info.mean_resultant_complement < 1e-3 else 1
            row = [dim, n, f"{kappa:g}", passes, 1e3 * ours.median, 1e3 * theirs.median]
            target = " (target 1.3)" if (dim, passes) == (32768, 1) else ""
            rows.append([*row, f"**{ratio(ours, theirs):.2f}**{target}", f"{z:.1f}"])
    head = ["d", "n", "kappa", "passes", "ms, ours", "ms, mean and norms", "ratio", "error / s.e."]
    return (
        "### Fits\n\nBeside the least that has to be done in NumPy: `x.mean(0)` and the norms by "
        "`einsum`. (With n < d the error is that of the bias-corrected fit.)\n\n"
        + markdown(head, rows)
    )


if __name__ == "__main__":
    main()
