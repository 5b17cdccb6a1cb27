"""Part f of the benchmark of bridges: draws, paths and drift of a known bridge."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from _bridge import Peer, Plan
from _timing import markdown

from pyprobe.transport import LightSchrodingerBridge

__all__ = ["inference"]

SIZES = ((2, 50), (16, 50), (64, 50), (512, 10), (512, 50))
"""Dimensions and components; 10 at d = 512 are those of the paper's faces."""
N, N_TIMES, N_CHECKED = 10_000, 100, 100
EPSILON = 0.125
TIMES = (0.0, 0.5, 0.99, 1.0)
BATCHES = (16, 64, 128, 256, 512, 1024, 4096, N)
LARGEST = 3e7
"""Entries of an array that the official code may make for every row and component."""


def n_paths(dim: int) -> int:
    return 1000 if dim < 512 else 200


class Model(NamedTuple):
    """Parameters that float32 holds exactly, of the official code and of ours."""

    logits: np.ndarray
    shifts: np.ndarray
    logs: np.ndarray

    @classmethod
    def of(cls, dim: int, n: int) -> Model:
        rng = np.random.default_rng(dim + n)
        shapes = (n,), (n, dim), (n, dim)
        logits, shifts, logs = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        return cls(logits, shifts, logs - 1)

    @property
    def ours(self) -> LightSchrodingerBridge:
        logits, shifts, logs = (x.astype(np.float64) for x in self)
        return LightSchrodingerBridge(
            log_weights=logits, shifts=shifts, scales=np.exp(logs), epsilon=EPSILON
        )

    @property
    def plan(self) -> Plan:
        logits, shifts, logs = (x.astype(np.float64) for x in self)
        return Plan(logits, shifts, np.exp(logs), EPSILON, np.zeros(shifts.shape[1]))

    def official(self, light_sb: Any) -> Any:
        import torch

        n, dim = self.shifts.shape
        model = light_sb(dim=dim, n_potentials=n, epsilon=EPSILON)
        model.log_alpha_raw.data = torch.tensor(self.logits) * EPSILON
        model.r.data = torch.tensor(self.shifts)
        model.S_log_diagonal_matrix.data = torch.tensor(self.logs)
        return model


def inference(peer: Peer) -> str:
    draws, paths, drifts, errors = [], [], [], []
    for dim, n in SIZES:
        model = Model.of(dim, n)
        name = f"inference d={dim} K={n}"
        theirs = peer.figures(name, partial(official, model))
        ours = measure(model)
        print(name, ours, theirs, flush=True)

        def ratio(
            what: str, mine: str, theirs: dict[str, Any] = theirs, ours: dict[str, Any] = ours
        ) -> str:
            return f"**{theirs[what] / ours[mine]:.3g}**" if what in theirs else "-"

        ms = {f"{key}": 1e3 * value for key, value in ours.items() if key != "errors"}
        other = {key: 1e3 * theirs[key] for key in TIMED if key in theirs}
        draws.append([dim, n, ms["draws"], ms["draws, float64"]])
        draws[-1] += [other.get("draws, default"), other.get("draws"), theirs.get("batch")]
        draws[-1] += [ratio("draws, default", "draws"), ratio("draws", "draws")]
        paths.append([dim, n, ms["paths"], other.get("Euler"), other.get("moments")])
        paths[-1] += [ratio("Euler", "paths"), ratio("moments", "paths")]
        drifts.append([dim, n, ms["drift"], ms["drift, float64"], other.get("drift")])
        drifts[-1] += [theirs.get("drift batch"), ratio("drift", "drift")]
        drifts[-1] += [ms["drift, a time each"], ratio("drift", "drift, a time each")]
        for dtype in ("float32", "float64"):
            there = theirs.get("errors", {}).get(dtype, ["-"] * len(TIMES))
            errors.append([dim, n, dtype, *map(shown, ours["errors"][dtype]), *map(shown, there)])
    return text(draws, paths, drifts, errors)


TIMED = ("draws, default", "draws", "Euler", "moments", "drift")


def shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.0e}" if value is not None and math.isfinite(value) else "NaN"


def text(draws: list[Any], paths: list[Any], drifts: list[Any], errors: list[Any]) -> str:
    head = ["d", "components"]
    first = [*head, "ms, ours", "ms, ours, float64", "ms, official, 1 row at once (default)"]
    first += ["ms, official, best", "rows at once there", "default / ours"]
    first += ["best / ours (target 15; 5 at d = 512)"]
    second = [*head, "ms, ours", "ms, Euler and Maruyama", "ms, times one by one"]
    second += ["Euler / ours (target 8)", "one by one / ours"]
    third = [*head, "ms, ours", "ms, ours, float64", "ms, official, best"]
    third += ["rows at once there", "official / ours (target 8)"]
    third += ["ms, ours, a time each", "official / ours, a time each"]
    last = [*head, "dtype", *(f"ours, t = {t:g}" for t in TIMES)]
    last += [f"official, t = {t:g}" for t in TIMES]
    return (
        "### Inference\n\nA bridge with random parameters, diagonal components, rows in float32 "
        f"where nothing else is said. Ends of {N} starts: `sample` beside the official `forward`, "
        "with its default of a row at once and with the fastest number of rows.\n\n"
        + markdown(first, draws)
        + f"\n\nPaths of {n_paths(2)} starts ({n_paths(512)} at d = 512) at {N_TIMES} times: "
        "`sample_path`, which is exact, "
        f"beside `sample_euler_maruyama` with {N_TIMES} steps, and `sample_at_time_moment` for "
        "every time, which is exact for each time alone.\n\n"
        + markdown(second, paths)
        + f"\n\nDrift at {N} places: at one time, and with a time for each place, all that the "
        "official code takes.\n\n"
        + markdown(third, drifts)
        + f"\n\nError of the drift, relative, the worst of {N_CHECKED} places where the bridge is "
        "at that time; the reference is the formula in 80 bits.\n\n" + markdown(last, errors)
    )


def clock(call: Callable[[], Any], rounds: int = 5) -> float:
    """Median processor seconds of a call, after one that is not counted where it is short."""
    seconds: list[float] = []
    while len(seconds) < rounds and sum(seconds) < 3:
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds[1:] or seconds)


def places(model: Model, t: float, n: int, seed: int = 0) -> np.ndarray:
    """Draw where the bridge is at a time, in float32."""
    rng = np.random.default_rng(seed)
    x0 = 0.5 * rng.normal(size=(n, model.shifts.shape[1]))
    x1 = model.plan.sample(x0, rng)
    noise = math.sqrt(EPSILON * t * (1 - t)) * rng.normal(size=x0.shape)
    return ((1 - t) * x0 + t * x1 + noise).astype(np.float32)


def measure(model: Model) -> dict[str, Any]:
    """Time ours."""
    bridge, x0, x = model.ours, places(model, 0.0, N), places(model, 0.5, N)
    times = np.linspace(0, 1, N_TIMES + 1)[1:]
    wide0, wide = x0.astype(np.float64), x.astype(np.float64)
    t, few = np.random.default_rng(6).random(N), x0[: n_paths(bridge.dim)]
    return {
        "draws": clock(lambda: bridge.sample(x0, rng=0)),
        "draws, float64": clock(lambda: bridge.sample(wide0, rng=0)),
        "paths": clock(lambda: bridge.sample_path(few, times, rng=0)),
        "drift": clock(lambda: bridge.drift(x, 0.5)),
        "drift, float64": clock(lambda: bridge.drift(wide, 0.5)),
        "drift, a time each": clock(lambda: bridge.drift(x, t)),
        "errors": drift_errors(model, bridge.drift, (np.float32, np.float64)),
    }


def official(model: Model, light_sb: Any) -> dict[str, Any]:
    """Time the official code."""
    import torch

    n, dim = model.shifts.shape
    x0, x = torch.tensor(places(model, 0.0, N)), torch.tensor(places(model, 0.5, N))
    batches = [size for size in BATCHES if size * n * dim <= LARGEST]
    few, one = x0[: n_paths(dim)], model.official(light_sb)
    default = clock(lambda: one(x0), 1)

    def draw(size: int) -> Any:
        one.sampling_batch_size = size
        return one(x0)

    draws = {size: clock(lambda size=size: draw(size), 3) for size in batches}
    batch = min(draws, key=lambda size: draws[size])
    one.sampling_batch_size = batch
    times = [torch.full((len(few), 1), t) for t in np.linspace(0, 1, N_TIMES + 1)[1:].tolist()]
    half = torch.full((N,), 0.5)

    def drift(size: int) -> list[Any]:
        return [one.get_drift(a, b) for a, b in zip(x.split(size), half.split(size), strict=True)]

    drifts = {size: clock(lambda size=size: drift(size), 3) for size in batches}
    drift_batch = min(drifts, key=lambda size: drifts[size])
    figures = {
        "draws, default": default,
        "draws": draws[batch],
        "batch": batch,
        "Euler": clock(lambda: one.sample_euler_maruyama(few, N_TIMES), 3),
        "moments": clock(lambda: [one.sample_at_time_moment(few, t) for t in times], 3),
        "drift": drifts[drift_batch],
        "drift batch": drift_batch,
    }

    def checked(x: np.ndarray, t: float) -> np.ndarray:
        if x.dtype == np.float64:
            one.double()
        rows = torch.tensor(x)
        found: np.ndarray = one.get_drift(rows, torch.full((len(x),), t, dtype=rows.dtype)).numpy()
        return found

    return figures | {"errors": drift_errors(model, checked, (np.float32, np.float64))}


def drift_errors(
    model: Model, drift: Callable[[np.ndarray, float], np.ndarray], dtypes: tuple[Any, ...]
) -> dict[str, list[float | None]]:
    """Return the largest error relative to the drift, by dtype and time; None for NaN."""
    found: dict[str, list[float | None]] = {}
    for dtype in dtypes:
        errors: list[float | None] = []
        for t in TIMES:
            x = places(model, t, N_CHECKED, seed=1)
            reference = drift_in_80_bits(model, x, t)
            off = np.linalg.norm((drift(x.astype(dtype), t) - reference).astype(float), axis=1)
            worst = float((off / np.linalg.norm(reference.astype(float), axis=1)).max())
            errors.append(worst if math.isfinite(worst) else None)
        found[np.dtype(dtype).name] = errors
    return found


def drift_in_80_bits(model: Model, x: np.ndarray, t: float) -> np.ndarray:
    """Return sum_k w_k D_k^-1 ((S_k - 1) x + r_k), D_k = 1 - t + t S_k."""
    logits, shifts, logs = (one.astype(np.longdouble) for one in model)
    scales, rows = np.exp(logs), x.astype(np.longdouble)[:, None, :]
    t_, epsilon = np.longdouble(t), np.longdouble(EPSILON)
    d = (1 - t_) + t_ * scales
    squares = (scales - 1) / d * rows**2 + 2 * shifts / d * rows - t_ * shifts**2 / d
    log_w = logits - np.log(d).sum(1) / 2 + squares.sum(2) / (2 * epsilon)
    w = np.exp(log_w - log_w.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    found: np.ndarray = (w[:, :, None] * (((scales - 1) * rows + shifts) / d)).sum(1)
    return found
