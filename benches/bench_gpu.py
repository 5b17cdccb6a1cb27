"""What a GPU gives: Sinkhorn beside its peers there, and what else runs on it beside the CPU.

``python benches/bench_gpu.py [--write]``. Without a CUDA device there is nothing to measure. Peers
(KeOps, geomloss, OTT on jax) are timed where they are installed.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from _timing import machine, markdown, write_section
from _transport import installed

import pyprobe
from pyprobe import metrics, sketching, special
from pyprobe.transport import LightSchrodingerBridge, sinkhorn, sinkhorn_points

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
warnings.simplefilter("ignore")
EPSILON = 3 / 20
GPU = torch.device("cuda")


def seconds(call: Callable[[], Any], rounds: int = 7) -> float:
    """Return the median time of a call, until the device has finished."""
    call()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def an_iteration(prepare: Callable[[int], Callable[[], Any]], few: int = 20) -> float:
    """Return the milliseconds of an iteration: of what more iterations take longer."""
    short, long = (seconds(prepare(k)) for k in (few, 6 * few))
    return 1e3 * (long - short) / (5 * few)


def peak(call: Callable[[], Any]) -> float:
    """Return by how many MB a call raises what torch holds on the device."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def tensor(array: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(array, dtype=dtype, device=GPU)


# Sinkhorn between clouds


def clouds(sizes: tuple[int, ...]) -> str:
    rows = []
    for n in sizes:
        rng = np.random.default_rng(0)
        x, y = rng.random((n, 3)), rng.random((n, 3)) ** 1.5
        few = 20 if n <= 20_000 else 3
        for dtype in (torch.float64, torch.float32):
            pair = tensor(x, dtype), tensor(y, dtype)
            ours = an_iteration(partial(our_clouds, *pair), few)
            peer = an_iteration(partial(keops, *pair), few) if has_keops() else None
            memory = peak(our_clouds(*pair, 3))
            kind = str(dtype).removeprefix("torch.")
            rows.append([n, kind, ours, peer, peer and f"**{peer / ours:.3g}**", memory])
    head = ["n", "points", "ms, ours", "ms, KeOps", "KeOps / ours", "MB, ours"]
    return (
        "### Clouds\n\nAn iteration of both potentials, points in the unit cube of three "
        f"dimensions, squared distances, epsilon = {EPSILON:g}: the difference of runs of "
        "different length. KeOps is the same iteration written with its `LazyTensor`, without a "
        "test of the error, in the type of the points; ours is in float64 whatever they are.\n\n"
        + markdown(head, rows)
    )


def our_clouds(x: torch.Tensor, y: torch.Tensor, k: int) -> Callable[[], Any]:
    options = {"epsilon": EPSILON, "max_iter": k, "tol": 1e-300}
    return lambda: sinkhorn_points(x, y, **options)


@functools.cache
def has_keops() -> bool:
    """Whether KeOps can run: it compiles for the device, and may end a process that it cannot."""
    if not installed("pykeops"):
        return False
    probe = (
        "import torch; from pykeops.torch import LazyTensor as L; x = torch.ones(9, 3).cuda(); "
        "L(x[:, None]).sqdist(L(x[None])).logsumexp(dim=1).sum().item()"
    )
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


def keops(x: torch.Tensor, y: torch.Tensor, k: int) -> Callable[[], Any]:
    from pykeops.torch import LazyTensor

    first, second = (points / EPSILON**0.5 for points in (x, y))

    def potential(to: torch.Tensor, of: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        distances = LazyTensor(to[:, None]).sqdist(LazyTensor(of[None]))
        exponents = LazyTensor(other[None, :, None]) - distances
        return float(np.log(len(of))) - exponents.logsumexp(dim=1)[:, 0]

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        f, g = x.new_zeros(len(x)), x.new_zeros(len(y))
        for _ in range(k):
            f = potential(first, second, g)
            g = potential(second, first, f)
        return f, g

    return call


def divergences(sizes: tuple[int, ...]) -> str:
    """The divergence with its gradient, as a loss is used, beside geomloss."""
    rows = []
    for n in sizes:
        rng = np.random.default_rng(0)
        x, y = tensor(rng.random((n, 3))), tensor(rng.random((n, 3)) ** 1.5)
        for name, call in {"ours": our_loss, "geomloss, online": geomloss}.items():
            if name != "ours" and not (installed("geomloss") and has_keops()):
                continue
            value, _, error = call(x, y)
            rows.append([n, name, 1e3 * seconds(partial(call, x, y), 3), value, error])
    head = ["n", "", "ms, value and gradient", "value", "marginal error"]
    return (
        "### Divergence\n\nThe debiased divergence of two clouds and its gradient in one, float64, "
        "epsilon = 0.01, ours to a marginal error of 1e-6; geomloss "
        '`SamplesLoss("sinkhorn", p=2, blur=0.1, scaling=0.9, backend="online")`, whose cost is '
        "half the squared distance (its value is doubled here, of a blur as large), does not "
        "measure its error.\n\n" + markdown(head, rows)
    )


def our_loss(x: torch.Tensor, y: torch.Tensor) -> tuple[float, Any, float]:
    from pyprobe.transport import sinkhorn_divergence

    leaf = x.clone().requires_grad_()
    found = sinkhorn_divergence(leaf, y, epsilon=0.02, tol=1e-6)
    found.value.backward()
    return float(found.value.detach()), leaf.grad, found.marginal_error


def geomloss(x: torch.Tensor, y: torch.Tensor) -> tuple[float, Any, None]:
    from geomloss import SamplesLoss

    leaf = x.clone().requires_grad_()
    loss = SamplesLoss("sinkhorn", p=2, blur=0.1, scaling=0.9, backend="online")
    value = 2 * loss(leaf, y)
    value.backward()
    return float(value.detach()), leaf.grad, None


# Sinkhorn on a matrix


def matrices(sizes: tuple[int, ...]) -> str:
    rows = []
    for n in sizes:
        cost = np.random.default_rng(0).random((n, n))
        row = [n]
        for dtype in (torch.float64, torch.float32):
            ours = an_iteration(partial(our_matrix, tensor(cost, dtype)))
            peer = an_iteration(ott(cost, dtype)) if installed("ott") else None
            row += [ours, peer, peer and f"**{peer / ours:.3g}**"]
        rows.append(row)
    head = ["n", "ms, ours", "ms, OTT", "OTT / ours"]
    head += [f"{name}, float32" for name in head[1:]]
    return (
        "### Matrices of costs\n\nAn iteration of the log method, uniform random costs, epsilon = "
        "0.05; OTT's is compiled and looks at the error as seldom as ours, every ten "
        "iterations.\n\n" + markdown(head, rows)
    )


def our_matrix(cost: torch.Tensor, k: int) -> Callable[[], Any]:
    return lambda: sinkhorn(None, None, cost, epsilon=0.05, method="log", max_iter=k, tol=1e-300)


def ott(cost: np.ndarray, dtype: torch.dtype) -> Callable[[int], Callable[[], Any]]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    costs = jax.device_put(cost.astype(str(dtype).removeprefix("torch.")))

    def prepare(k: int) -> Callable[[], Any]:
        solver = Sinkhorn(threshold=1e-30, max_iterations=k, min_iterations=k, inner_iterations=10)
        run = jax.jit(lambda c: solver(LinearProblem(Geometry(c, epsilon=0.05))).g)
        return lambda: run(costs).block_until_ready()

    return prepare


# The rest beside the CPU


def elsewhere() -> str:
    """Tables of the same call on tensors of the GPU and of the CPU."""
    rng = np.random.default_rng(0)
    tall, points = rng.standard_normal((1_000_000, 100)), rng.standard_normal((100_000, 10))
    orders = rng.uniform(0.5, 200, 10_000_000), rng.uniform(0.1, 400, 10_000_000)
    bridge = LightSchrodingerBridge.from_parameters(
        rng.dirichlet(np.ones(50)),
        rng.normal(size=(50, 64)),
        rng.uniform(0.5, 2, (50, 64)),
        epsilon=1.0,
    )
    starts = rng.standard_normal((100_000, 64))
    half = 50_000
    calls: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
        "log_iv, 1e7 orders and arguments": (special.log_iv, orders),
        "log_kv, 1e7": (special.log_kv, orders),
        "bessel_ratio, 1e7": (special.bessel_ratio, orders),
        "energy_distance, 2 x 50 000 points, d = 10": (
            lambda x: metrics.energy_distance(x[:half], x[half:]),
            (points,),
        ),
        "sliced_wasserstein, the same": (
            lambda x: metrics.sliced_wasserstein(x[:half], x[half:], rng=0),
            (points,),
        ),
        "leverage_scores, 1e6 x 100": (sketching.leverage_scores, (tall,)),
        "lewis_weights, p = 1, the same": (lambda a: sketching.lewis_weights(a, 1.0), (tall,)),
        "a sparse sign sketch of it, 400 rows": (
            lambda a: sketching.sketch_operator("sparse_sign", 400, len(a), rng=0) @ a,
            (tall,),
        ),
        "a bridge's drift, 1e5 x 64, K = 50": (lambda x: bridge.drift(x, 0.5), (starts,)),
        "a bridge's log_prob, the same": (lambda x: bridge.log_prob(x, given=x), (starts,)),
    }
    rows = []
    for name, (call, arrays) in calls.items():
        times = []
        for device in ("cuda", "cpu"):
            given = [torch.tensor(a, device=device) for a in arrays]
            times.append(seconds(partial(call, *given), 3))
        rows.append([name, *(1e3 * t for t in times), f"**{times[1] / times[0]:.3g}**"])
    head = ["", "ms, GPU", "ms, CPU", "CPU / GPU"]
    return (
        f"### Beside the CPU\n\nfloat64; the CPU has {pyprobe.get_num_threads()} threads.\n\n"
        + markdown(head, rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return
    where = f"{torch.cuda.get_device_name()}, {time.strftime('%Y-%m-%d')}; "
    parts = ["## On a GPU\n\n" + where + machine("torch", "triton")]
    sizes = {clouds: (5000, 20_000, 100_000), divergences: (5000, 20_000), matrices: (1000, 5000)}
    for part, these in sizes.items():
        parts.append(part(these))
        print(parts[-1], flush=True)
    parts.append(elsewhere())
    print(parts[-1], flush=True)
    if arguments.write:
        write_section(__file__, "\n\n".join(parts))


if __name__ == "__main__":
    main()
