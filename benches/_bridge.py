"""Problems whose bridge is known, what is measured on them, and the figures that are kept.

`Plan` computes the plan of a light Schrödinger bridge for itself, in NumPy: all that is measured
comes from it, of the truth, of the official code's bridges and of ours alike.
"""

from __future__ import annotations

import datetime
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _timing import machine
from scipy.special import log_softmax, logsumexp

__all__ = [
    "Peer",
    "Plan",
    "Truth",
    "energy",
    "exact_cbw",
    "exact_kl",
    "mixtures",
    "rotated",
    "sampled_cbw",
    "single_cell",
    "swiss_roll",
    "yardstick",
]

ROWS = 20_000
"""Of a block."""
N_TEST = 100_000
"""Draws of the true plan."""
N_LAWS = 1000
"""Starts whose laws are compared, and draws of each where moments are estimated."""


class Plan(NamedTuple):
    """Given x and component k the end is N(shifts_k + S_k (x - origin), epsilon S_k)."""

    logits: np.ndarray  # log-probabilities of the components at the origin, up to a constant
    shifts: np.ndarray  # (k, d)
    scales: np.ndarray  # (k, d) or (k, d, d)
    epsilon: float
    origin: np.ndarray

    @classmethod
    def of(cls, bridge: Any) -> Plan:
        """Return that of a fitted `LightSchrodingerBridge` with a horizon of 1."""
        scales = np.asarray(bridge.scales)
        if scales.ndim == 1:
            scales = np.repeat(scales[:, None], bridge.dim, axis=1)
        fields = (np.asarray(bridge.log_weights), np.asarray(bridge.shifts), scales)
        return cls(*fields, bridge.epsilon, np.asarray(bridge.origin))

    def log_normals(self, x: np.ndarray, locs: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Return log N(x | loc_k, epsilon scale_k), shape (m, k)."""
        dim = x.shape[1]
        if scales.ndim == 2:
            inverse = 1 / scales
            squares = x**2 @ inverse.T - 2 * x @ (inverse * locs).T + (inverse * locs**2).sum(1)
            log_dets = np.log(scales).sum(1)
        else:
            roots = np.linalg.inv(np.linalg.cholesky(scales))
            squares = np.stack(
                [(((x - m) @ root.T) ** 2).sum(1) for root, m in zip(roots, locs, strict=True)], 1
            )
            log_dets = np.linalg.slogdet(scales)[1]
        norm = dim * math.log(2 * math.pi * self.epsilon) + log_dets
        return -0.5 * (squares / self.epsilon + norm)

    def log_c(self, x0: np.ndarray) -> np.ndarray:
        """Return the logits of the components given starts, whose log-sum-exp is log c."""
        x = x0 - self.origin
        if self.scales.ndim == 2:
            squares = x**2 @ self.scales.T
        else:
            squares = np.stack([((x @ scale) * x).sum(1) for scale in self.scales], axis=1)
        return self.logits + (0.5 * squares + x @ (self.shifts - self.origin).T) / self.epsilon

    def log_prob(self, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
        """Return log pi(x1 | x0), row by row."""
        parts = []
        for some in blocks(len(x0)):
            x, y = x0[some] - self.origin, x1[some] - self.origin
            log_v = logsumexp(self.log_normals_of_v(x1[some]), axis=1)
            log_c = logsumexp(self.log_c(x0[some]), axis=1)
            parts.append((x * y).sum(1) / self.epsilon + log_v - log_c)
        return np.concatenate(parts)

    def log_normals_of_v(self, x1: np.ndarray) -> np.ndarray:
        return self.logits + self.log_normals(
            x1 - self.origin, self.shifts - self.origin, self.scales
        )

    def loss(self, x0: np.ndarray, x1: np.ndarray) -> float:
        """Return E log c(x0) - E log v(x1) in coordinates about 0, as the official code does."""
        log_c = sum(logsumexp(self.log_c(x0[some]), axis=1).sum() for some in blocks(len(x0)))
        log_v = sum(
            logsumexp(self.log_normals_of_v(x1[some]), axis=1).sum() for some in blocks(len(x1))
        )
        mean0, mean1, o = x0.mean(0), x1.mean(0), self.origin
        moved = mean0 @ mean1 - (mean0 - o) @ (mean1 - o)
        return float(log_c / len(x0) - log_v / len(x1) + moved / self.epsilon)

    def sample(self, x0: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        parts = []
        for some in blocks(len(x0)):
            x = x0[some] - self.origin
            logits = self.log_c(x0[some])
            chosen = (logits + rng.gumbel(size=logits.shape)).argmax(1)
            z = math.sqrt(self.epsilon) * rng.normal(size=x.shape)
            if self.scales.ndim == 2:
                s = self.scales[chosen]
                parts.append(self.shifts[chosen] + s * x + np.sqrt(s) * z)
            else:
                end = np.empty_like(x)
                for k, scale in enumerate(self.scales):
                    rows = chosen == k
                    root = np.linalg.cholesky(scale)
                    end[rows] = self.shifts[k] + x[rows] @ scale + z[rows] @ root.T
                parts.append(end)
        return np.concatenate(parts)

    def moments(self, x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and covariances of the ends, shapes (m, d) and (m, d, d)."""
        x = x0 - self.origin
        shares = np.exp(log_softmax(self.log_c(x0), axis=1))
        if self.scales.ndim == 2:
            steps = x[:, None, :] * self.scales
            inner = (shares @ self.scales)[:, :, None] * np.eye(x.shape[1])
        else:
            steps = np.einsum("mi,kij->mkj", x, self.scales)
            inner = np.tensordot(shares, self.scales, 1)
        locs = self.shifts + steps
        mean = np.einsum("mk,mkd->md", shares, locs)
        apart = locs - mean[:, None, :]
        between = np.matmul((shares[:, :, None] * apart).swapaxes(1, 2), apart)
        return mean, self.epsilon * inner + between


def blocks(n: int) -> Iterator[slice]:
    return (slice(i, i + ROWS) for i in range(0, n, ROWS))


class Truth(NamedTuple):
    """A pair of laws, the plan between them, and draws of both to measure by."""

    plan: Plan
    starts: np.ndarray
    ends: np.ndarray
    log_prob: float
    """Mean of log pi(x1 | x0) over the draws."""

    @classmethod
    def of(cls, plan: Plan, n: int = N_TEST) -> Truth:
        rng = np.random.default_rng(2)
        starts = cls.draw_starts(plan, rng, n)
        ends = plan.sample(starts, rng)
        return cls(plan, starts, ends, float(plan.log_prob(starts, ends).mean()))

    @staticmethod
    def draw_starts(plan: Plan, rng: np.random.Generator, n: int) -> np.ndarray:
        return 0.5 * rng.normal(size=(n, plan.shifts.shape[1]))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return starts and ends that are not paired."""
        x0, other = (self.draw_starts(self.plan, rng, n) for _ in range(2))
        return x0, self.plan.sample(other, rng)


def mixtures(dim: int, epsilon: float, n: int = N_TEST) -> Truth:
    """The mixtures benchmark built anew: five modes on a sphere, whose potential is known."""
    modes = np.random.default_rng(dim).normal(size=(5, dim))
    modes *= 5 / np.linalg.norm(modes, axis=1, keepdims=True)
    variance = 1 / 100 if epsilon == 10 else 1 / 16
    return Truth.of(from_potential(modes, np.full((5, dim), variance), epsilon), n)


def rotated(dim: int, epsilon: float, n: int = N_TEST) -> Truth:
    """The same with a covariance of its own for every mode: turned axes, variances 1/64 to 1."""
    rng = np.random.default_rng(dim)
    modes = rng.normal(size=(5, dim))
    modes *= 5 / np.linalg.norm(modes, axis=1, keepdims=True)
    turns = np.linalg.qr(rng.normal(size=(5, dim, dim)))[0]
    variances = np.exp(rng.uniform(-math.log(64), 0, size=(5, dim)))
    covariances = np.matmul(turns * variances[:, None, :], turns.swapaxes(1, 2))
    return Truth.of(from_potential(modes, covariances, epsilon), n)


def from_potential(modes: np.ndarray, covariances: np.ndarray, epsilon: float) -> Plan:
    """Return the plan whose potential phi is a mixture with equal weights."""
    dim = modes.shape[1]
    full = covariances if covariances.ndim == 3 else covariances[:, :, None] * np.eye(dim)
    precisions = np.linalg.inv(full)
    scales = np.linalg.inv(np.eye(dim) + epsilon * precisions)
    scales = 0.5 * (scales + scales.swapaxes(1, 2))
    shifts = epsilon * np.einsum("kij,kjl,kl->ki", scales, precisions, modes)
    wide = full + epsilon * np.eye(dim)
    squares = np.einsum("ki,kij,kj->k", modes, np.linalg.inv(wide), modes)
    logits = -0.5 * (squares + np.linalg.slogdet(wide)[1])
    if covariances.ndim == 2:
        scales = scales[:, range(dim), range(dim)]
    return Plan(log_softmax(logits), shifts, scales, epsilon, np.zeros(dim))


def exact_kl(truth: Truth, plan: Plan) -> float:
    """Return KL(pi* || pi) as a mean of exact densities over draws of the true plan."""
    return truth.log_prob - float(plan.log_prob(truth.starts, truth.ends).mean())


def exact_cbw(truth: Truth, plan: Plan) -> float:
    """Return cBW2-UVP in per cent, by the moments of the laws themselves."""
    starts = truth.starts[:N_LAWS]
    return _cbw(truth, truth.plan.moments(starts), plan.moments(starts))


def sampled_cbw(truth: Truth) -> float:
    """Return what the true plan itself scores by the moments of a thousand draws from each law."""
    rng = np.random.default_rng(3)
    starts = truth.starts[:N_LAWS]
    found = [truth.plan.sample(np.tile(x, (N_LAWS, 1)), rng) for x in starts]
    means = np.stack([x.mean(0) for x in found])
    covariances = np.stack([np.cov(x.T) for x in found])
    return _cbw(truth, truth.plan.moments(starts), (means, covariances))


def _cbw(
    truth: Truth, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> float:
    values, axes = np.linalg.eigh(first[1])
    root = np.matmul(axes * np.sqrt(np.maximum(values, 0))[:, None, :], axes.swapaxes(1, 2))
    inner = np.linalg.eigvalsh(root @ second[1] @ root)
    cross = np.sqrt(np.maximum(inner, 0)).sum(1)
    traces = [np.trace(c, axis1=1, axis2=2) for c in (first[1], second[1])]
    squares = ((first[0] - second[0]) ** 2).sum(1) + traces[0] + traces[1] - 2 * cross
    return float(100 * squares.mean() / truth.ends.var(0).sum())


def energy(x: np.ndarray, y: np.ndarray) -> float:
    """Return E|X-Y| - E|X-X'| / 2 - E|Y-Y'| / 2, half of `pyprobe.metrics.energy_distance`."""
    from pyprobe.metrics import energy_distance

    return 0.5 * float(energy_distance(x.astype(np.float64), y.astype(np.float64)))


class Days(NamedTuple):
    """Cells of a first and a last day in a common unit, and those of one between them."""

    starts: np.ndarray
    ends: np.ndarray
    between: np.ndarray
    unit: float
    time: float


def single_cell(folder: Path, days: tuple[int, int, int]) -> Days:
    """Read the cells of three days in 50 dimensions: first, held out, last."""
    first, held, last = (np.load(folder / f"full_cite_pcas_50_day_{day}.npy") for day in days)
    unit = float(np.concatenate([first, last, held]).std(axis=0).mean())
    part = (days[1] - days[0]) / (days[2] - days[0])
    return Days(*(x.astype(np.float64) / unit for x in (first, last, held)), unit, part)


def swiss_roll(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw normal starts and ends on a swiss roll."""
    from sklearn.datasets import make_swiss_roll

    seed = int(rng.integers(2**31))
    roll = make_swiss_roll(n_samples=n, noise=0.8, random_state=seed)[0][:, [0, 2]] / 7.5
    return rng.normal(size=(n, 2)), roll


def yardstick() -> float:
    """Return the seconds of a fixed computation, by which figures of two days compare."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4000, 64)), rng.normal(size=(64, 50))
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(10):
            np.exp(-np.abs(x @ w))
        seconds.append(time.process_time() - begin)
    return min(seconds)


class Peer:
    """The official code, or figures of it that were kept in a file beside the benchmark."""

    PATH = Path(__file__).resolve().parent / "bridge_official.json"

    def __init__(self, light_sb: Any = None) -> None:
        self.light_sb = light_sb
        self.seen: list[dict[str, Any]] = []

    def figures(self, name: str, measure: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Return figures by their name: measured and kept, where the code is there, or kept."""
        if self.light_sb:
            found = measure(self.light_sb)
            day = datetime.datetime.now(datetime.UTC).date().isoformat()
            found |= {"date": day, "machine": machine("torch", "geotorch")}
            found |= {"yardstick": yardstick()}
            self.PATH.write_text(
                json.dumps(self.kept() | {name: found}, indent=1, sort_keys=True) + "\n"
            )
        else:
            found = self.kept().get(name, {})
        self.seen.append(found)
        return found

    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.PATH.read_text()) if self.PATH.exists() else {}
        return found

    def __str__(self) -> str:
        """Return when and where the figures were measured that were asked for since `seen`."""
        seen = [one for one in self.seen if one]
        if self.light_sb:
            return f"The official code in the same run, with {machine('torch', 'geotorch')}"
        if not seen:
            return "There are no figures of the official code."
        dates = " and ".join(sorted({one["date"] for one in seen}))
        speed = statistics.median(one["yardstick"] for one in seen) / yardstick()
        return (
            f"The official code on {dates}, {seen[0]['machine']} A fixed computation took "
            f"{speed:.2f} times as long then."
        )
