"""What a GPU gives: Sinkhorn beside its peers there, and what else runs on it beside the CPU.

``python benches/bench_gpu.py [--write]``. Without a CUDA device there is nothing to measure. Peers
(KeOps, geomloss, OTT on jax) are timed where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from _timing import machine, markdown, write_section
from _transport import installed

import pyprobe
from pyprobe import metrics, sketching, special
from pyprobe.transport import (
    LightSchrodingerBridge,
    _torch_solver,
    sinkhorn,
    sinkhorn_batch,
    sinkhorn_divergence,
    sinkhorn_points,
)

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
warnings.simplefilter("ignore")
EPSILON = 3 / 20
SMALL, MOST = 5000, 20_000
"""Points up to which matrices are formed by geomloss, and by OTT."""
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


def an_iteration(prepare: Callable[[int], Callable[[], Any]], few: int = 10) -> float:
    """Return the milliseconds of an iteration: of what more iterations take longer."""
    short, long = (seconds(prepare(k), 5) for k in (few, 5 * few))
    return 1e3 * (long - short) / (4 * few)


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
    names = ["torch's operations", *(["KeOps"] if has_keops() else []), "OTT"]
    rows = []
    for n in sizes:
        rng = np.random.default_rng(0)
        x, y = rng.random((n, 3)), rng.random((n, 3)) ** 1.5
        few = 10 if n <= MOST else 2
        for dtype in (torch.float64, torch.float32):
            pair = tensor(x, dtype), tensor(y, dtype)
            ours = an_iteration(partial(our_clouds, *pair), few)
            peers: list[float | None] = [None for _ in names]
            if n <= MOST:
                with without_kernels():
                    peers[0] = an_iteration(partial(our_clouds, *pair))
            if "KeOps" in names:
                peers[names.index("KeOps")] = an_iteration(partial(keops, *pair), few)
            if installed("ott") and n <= MOST and dtype is torch.float64:
                peers[-1] = an_iteration(ott(point_cloud(x, y)))
            ratios = [peer and f"**{peer / ours:.3g}**" for peer in peers]
            kind = str(dtype).removeprefix("torch.")
            rows.append([n, kind, ours, *peers, *ratios, peak(our_clouds(*pair, 3))])
    head = ["n", "points", "ms, ours", *(f"ms, {name}" for name in names)]
    head += [*(f"{name} / ours" for name in names), "MB, ours"]
    return (
        "### Clouds\n\nAn iteration of both potentials, points in the unit cube of three "
        f"dimensions, squared distances, epsilon = {EPSILON:g}: the difference of runs of "
        "different length. Torch's operations are what we fall back on where Triton does not run. "
        "KeOps, where it runs, is the same iteration written with its `LazyTensor`, without a test "
        "of the error, in the type of the points; ours is in float64 whatever they are. OTT's is a "
        "`PointCloud`, which forms the matrix. Memory is by how much a solve raises the peak of "
        "what torch holds.\n\n" + markdown(head, rows)
    )


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Do what Triton's kernels do by torch's own operations."""
    kernels, _torch_solver._kernels = _torch_solver._kernels, lambda _: None  # noqa: SLF001
    try:
        yield
    finally:
        _torch_solver._kernels = kernels  # noqa: SLF001


def point_cloud(x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    def geometry() -> Any:
        from ott.geometry.pointcloud import PointCloud

        return PointCloud(x, y, epsilon=EPSILON)

    return geometry


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
        calls = {"ours": our_loss}
        if installed("geomloss") and n <= SMALL:
            calls["geomloss, tensorized"] = geomloss
        if installed("geomloss") and has_keops():
            calls["geomloss, online"] = partial(geomloss, backend="online")
        for name, call in calls.items():
            value, error = call(x, y)
            rows.append([n, name, 1e3 * seconds(partial(call, x, y), 3), value, error])
    head = ["n", "", "ms, value and gradient", "value", "marginal error"]
    return (
        "### Divergence\n\nThe debiased divergence of two clouds with its gradient, float64, "
        "epsilon = 0.02, ours to a marginal error of 1e-6; geomloss "
        '`SamplesLoss("sinkhorn", p=2, blur=0.1, scaling=0.9)`, whose cost is half the squared '
        "distance: its value is doubled. It does not measure its error.\n\n" + markdown(head, rows)
    )


def our_loss(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    leaf = x.clone().requires_grad_()
    found = sinkhorn_divergence(leaf, y, epsilon=0.02, tol=1e-6)
    found.value.backward()
    return float(found.value.detach()), found.marginal_error


def geomloss(x: torch.Tensor, y: torch.Tensor, backend: str = "tensorized") -> tuple[float, None]:
    from geomloss import SamplesLoss

    leaf = x.clone().requires_grad_()
    loss = SamplesLoss("sinkhorn", p=2, blur=0.1, scaling=0.9, backend=backend)
    value = 2 * loss(leaf, y)
    value.backward()
    return float(value.detach()), None


# Sinkhorn on matrices


def matrices(sizes: tuple[int, ...]) -> str:
    rows = []
    for n in sizes:
        cost = np.random.default_rng(0).random((n, n))
        ours = an_iteration(partial(our_matrix, tensor(cost)))
        single = an_iteration(partial(our_matrix, tensor(cost, torch.float32)))
        with without_kernels():
            plain = an_iteration(partial(our_matrix, tensor(cost)))
        peer = an_iteration(ott(matrix(cost))) if installed("ott") else None
        ratios = [other and f"**{other / ours:.3g}**" for other in (plain, peer)]
        rows.append([n, ours, single, plain, peer, *ratios])
    head = ["n", "ms, ours", "ms, ours, float32 costs", "ms, torch's operations", "ms, OTT"]
    head += ["torch's operations / ours", "OTT / ours"]
    return (
        "### Matrices of costs\n\nAn iteration of the log method, uniform random costs, epsilon = "
        "0.05; OTT's is compiled and looks at the error as seldom as ours, every ten "
        "iterations.\n\n" + markdown(head, rows)
    )


def our_matrix(cost: torch.Tensor, k: int) -> Callable[[], Any]:
    return lambda: sinkhorn(None, None, cost, epsilon=0.05, method="log", max_iter=k, tol=1e-300)


def matrix(cost: np.ndarray) -> Callable[[], Any]:
    def geometry() -> Any:
        from ott.geometry.geometry import Geometry

        return Geometry(cost, epsilon=0.05)

    return geometry


def ott(geometry: Callable[[], Any]) -> Callable[[int], Callable[[], Any]]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    given = jax.device_put(geometry())

    def prepare(k: int) -> Callable[[], Any]:
        solver = Sinkhorn(threshold=1e-30, max_iterations=k, min_iterations=k, inner_iterations=10)
        run = jax.jit(lambda geometry: solver(LinearProblem(geometry)).g)
        return lambda: run(given).block_until_ready()

    return prepare


def batches() -> str:
    """A table of the batch on the GPU, at once and problem by problem, and on the CPU."""
    cost = torch.tensor(np.random.default_rng(0).random((256, 32, 32)))
    there = cost.to(GPU)
    calls = {
        "GPU, `sinkhorn_batch`": lambda: sinkhorn_batch(None, None, there, epsilon=0.05),
        "GPU, `sinkhorn` in a loop": lambda: [sinkhorn(None, None, c, epsilon=0.05) for c in there],
        "CPU, `sinkhorn_batch`": lambda: sinkhorn_batch(None, None, cost, epsilon=0.05),
    }
    rows = [[name, 1e3 * seconds(call, 3)] for name, call in calls.items()]
    return "### 256 problems of 32 x 32\n\n" + markdown(["", "ms to 1e-9"], rows)


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
    for part in (batches, elsewhere):
        parts.append(part())
        print(parts[-1], flush=True)
    if arguments.write:
        write_section(__file__, "\n\n".join(parts))


if __name__ == "__main__":
    main()
