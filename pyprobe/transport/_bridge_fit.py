r"""The fit of light Schrödinger bridges: a fixed point of Gaussian bridges, one a component.

In coordinates about the means of the two samples and in units of their common spread, the loss

.. math:: L = E_{p_0} \log \sum_k e^{a_k(x_0)} - E_{p_1} \log \sum_k e^{b_k(x_1)}, \quad
    a_k = l_k + (x' S_k x + 2 r_k' x) / 2\varepsilon, \quad
    b_k = l_k + \log N(x \mid r_k, \varepsilon S_k)

(Korotin, Gushchin and Burnaev 2024, section 3) is the Kullback-Leibler divergence of the bridge
from the true one, up to a constant. Where its gradient is zero for fixed responsibilities, every
component is the Gaussian Schrödinger bridge between its share of the sources, of covariance
:math:`C_0`, and its share of the targets, of covariance :math:`C_1`: :math:`S C_0 S + \varepsilon S
= C_1`, and :math:`r` takes the one mean to the other. An iteration goes there as far as the loss
falls, and then solves the convex problem in :math:`l` that makes the two shares of every component
equal.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe.transport._bridge_kinds import KINDS, Kind, Vector

__all__ = ["KINDS", "STARTS", "BridgeFit", "Options", "Sample", "fit"]

_LEAST_STEP = 1e-3
"""Part of the way to the fixed point below which the loss is taken not to fall."""
_SHORTER, _LONGER = 0.4, 1.6
_NEWTON_STEPS = 2
_BALANCED = 1e-3
"""Distance of the components' two shares, summed, at which they need no further step."""
_POLISH_STEPS = 20
"""Iterations of L-BFGS where no step along the fixed point's direction lowers the loss."""
_PATIENCE = 3
"""Iterations that the held-out loss may rise before the fit ends with its lowest."""
_FLOOR = 1e-6
"""Least variance of a component's targets, in units of the samples' variance."""
_TRIAL_ROWS, _TRIAL_STEPS = 4000, 3
"""Rows and iterations that choose between the two starts."""
_COOLING = 2.5
_PARTS, _DRAW_STEPS = (1.0, 0.5, 0.25, 0.125, 0.06, 0.03, 0.015), 10
_UNEVEN = 3.0
"""Mean square of the components' shares of the targets, in units of that of equal ones."""
_LLOYD_STEPS = 5


class Parameters(NamedTuple):
    """Log-weights ``l`` (K,), shifts ``r`` (K, d) and scales ``S``: (K,), (K, d) or (K, d, d)."""

    logits: Vector
    shifts: Vector
    scales: Vector


class Sample(NamedTuple):
    """Points, shape (n, d), with weights that sum to one."""

    points: Vector
    weights: Vector

    @property
    def size(self) -> float:
        """The number of equal weights that would be as good."""
        return float(1 / (self.weights @ self.weights))

    def take(self, rows: npt.NDArray[np.intp]) -> Sample:
        """Return some of the points, with their weights in proportion."""
        weights = self.weights[rows]
        return Sample(np.ascontiguousarray(self.points[rows]), weights / weights.sum())


class Pair(NamedTuple):
    """Two samples."""

    sources: Sample
    targets: Sample


class Moments(NamedTuple):
    """The share of a sample that each component has: masses, means and covariances."""

    masses: Vector
    means: Vector
    covariances: Vector


class Options(NamedTuple):
    """How far a fit goes; `reported` is called with the number of an iteration and its loss."""

    max_iter: int
    tol: float
    reported: Callable[[int, float], bool] = lambda _step, _value: True


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeFit:
    """How a fit went.

    Attributes
    ----------
    converged : bool
        Whether the loss, on the held-out rows or else on all, has ceased to fall.
    stopped : bool
        Whether the callback ended it.
    n_iter : int
        Iterations.
    loss : float
        On the rows that were fitted, about their means. It has no zero; differences are
        divergences, in nats.
    validation_loss : float or None
        On the rows held out, of the bridge that is returned.
    losses : ndarray, shape (n_iter,)
        On the rows that were fitted, after each iteration.
    mass_gap : float
        The largest distance between a component's share of the sources and of the targets.
    start : str
        Which start was taken.
    collapsed : ndarray of int
        Components whose variance is at its floor: they stand for single points of the data.
    """

    converged: bool
    stopped: bool
    n_iter: int
    loss: float
    validation_loss: float | None
    losses: Vector
    mass_gap: float
    start: str
    collapsed: npt.NDArray[np.intp]

    @property
    def last_fall(self) -> float:
        """How much the last iteration lowered the loss."""
        return float(self.losses[-2] - self.losses[-1]) if len(self.losses) > 1 else math.inf


class Model(NamedTuple):
    """What turns components into logits."""

    kind: Kind
    epsilon: float

    def of_sources(self, components: Parameters) -> tuple[str, Vector, Vector]:
        """Return features, slopes and offsets of ``a_k``."""
        _, shifts, scales = components
        slopes = np.hstack([shifts, self.kind.quadratic(scales)]) / self.epsilon
        return self.kind.name, np.ascontiguousarray(slopes.T), components.logits

    def of_targets(self, components: Parameters) -> tuple[str, Vector, Vector]:
        """Return features, slopes and offsets of ``b_k``."""
        logits, shifts, scales = components
        dim, inverse = shifts.shape[1], self.kind.inverse(scales)
        pulled = self.kind.apply(inverse, shifts)
        slopes = np.hstack([pulled, -self.kind.quadratic(inverse)]) / self.epsilon
        norm = dim * math.log(2 * math.pi * self.epsilon) + self.kind.log_det(scales, dim)
        offsets = logits - 0.5 * norm - 0.5 * (shifts * pulled).sum(1) / self.epsilon
        return self.kind.name, np.ascontiguousarray(slopes.T), offsets

    def shares(self, sample: Sample, logits: tuple[str, Vector, Vector]) -> tuple[float, Moments]:
        """Return the mean log-sum-exp, and what each component has of the sample."""
        value, masses, sums, _ = _core.bridge_pass(
            sample.points, sample.weights, logits, moments=True, gram=False
        )
        dim = sample.points.shape[1]
        means = (sums / np.maximum(masses, 1e-300)).T
        first = np.ascontiguousarray(means[:, :dim])
        return value, Moments(masses, first, self.kind.covariances(means[:, dim:], first))

    def shrunk(self, moments: Moments, sample: Sample) -> Vector:
        """Return covariances drawn towards their mean, as if it had been seen on a few points."""
        masses, means, covariances = moments
        count = self.kind.pseudo_count(means.shape[1])
        shape = (-1,) + (1,) * (covariances.ndim - 1)
        counts = (masses * sample.size).reshape(shape)
        pooled = self.kind.pooled(covariances, masses / masses.sum())
        return (counts * covariances + count * pooled) / (counts + count)


def loss(model: Model, components: Parameters, sources: Sample, targets: Sample) -> float:
    """Return the loss on two samples."""
    first = _core.bridge_pass(*sources, model.of_sources(components), moments=False, gram=False)
    second = _core.bridge_pass(*targets, model.of_targets(components), moments=False, gram=False)
    return float(first[0] - second[0])


def balance(
    sources: Sample,
    logits: tuple[str, Vector, Vector],
    masses: Vector,
    steps: int,
) -> tuple[Vector, float]:
    """Move the offsets until components have these masses of the sources, by damped Newton steps.

    Returns the offsets and the mean log-sum-exp there.
    """
    kind, slopes, offsets = logits

    def look(offsets: Vector) -> tuple[float, Vector, Vector]:
        found = _core.bridge_pass(*sources, (kind, slopes, offsets), moments=False, gram=True)
        return found[0], found[1], found[3]

    value, now, gram = look(offsets)
    for _ in range(steps):
        gradient = now - masses
        if np.abs(gradient).sum() < _BALANCED:
            break
        hessian = np.diag(now * (1 + 1e-6) + 1e-9) - gram
        step = -np.linalg.solve(hessian, gradient)
        step -= step.mean()
        objective, slope, part = value - masses @ offsets, gradient @ step, 1.0
        while True:
            moved = offsets + part * step
            new_value, new_masses, new_gram = look(moved)
            if new_value - masses @ moved <= objective + 1e-4 * part * slope or part < _LEAST_STEP:
                break
            part *= _SHORTER
        offsets, value, now, gram = moved, new_value, new_masses, new_gram
    return offsets, value


def broad_start(
    model: Model, sources: Sample, targets: Sample, n: int, rng: np.random.Generator
) -> Parameters:
    """Return components that move all sources alike, to places drawn from the targets."""
    dim = targets.points.shape[1]
    rows = rng.choice(len(targets.points), n, replace=False, p=targets.weights)
    shifts = targets.points[rows] - sources.weights @ sources.points
    return Parameters(np.full(n, -math.log(n)), shifts, model.kind.identity(n, dim))


def clustered_start(
    model: Model, sources: Sample, targets: Sample, n: int, rng: np.random.Generator
) -> Parameters:
    """Return components at clusters of the targets, the sources shared among them by annealing."""
    few = _some(targets, max(_TRIAL_ROWS, 20 * n), rng)
    centres = _plus_plus(few, n, rng)
    for _ in range(_LLOYD_STEPS):
        labels = _nearest(few.points, centres)
        held = np.bincount(labels, few.weights, n)
        seen = held > 0
        sums = np.stack([np.bincount(labels, few.weights * x, n) for x in few.points.T], axis=1)
        centres[seen] = sums[seen] / held[seen, None]
    labels = _nearest(few.points, centres)
    counts: Vector = np.maximum(np.bincount(labels, few.weights, n), 0.5 / len(labels))
    masses = counts / counts.sum()
    dim = few.points.shape[1]
    spread = few.weights @ (few.points - centres[labels]) ** 2
    mean = sources.weights @ sources.points
    source_spread = sources.weights @ (sources.points - mean) ** 2
    scales = KINDS["diag"].bridge(source_spread / n, np.maximum(spread, _FLOOR), model.epsilon)
    if model.kind.name == "spherical":
        stacked = np.full(n, scales.mean())
    else:
        stacked = np.broadcast_to(scales, (n, dim)).copy()
        if model.kind.name == "full":
            stacked = stacked[:, :, None] * np.eye(dim)
    components = Parameters(
        np.log(masses), centres - model.kind.apply(stacked, np.tile(mean, (n, 1))), stacked
    )
    kind, slopes, _ = model.of_sources(components)
    some = _some(sources, max(_TRIAL_ROWS, 20 * n), rng)
    heat = max(1.0, float(np.std(some.points[:200] @ slopes[:dim])))
    offsets = np.zeros(n)
    while True:
        offsets, _ = balance(some, (kind, slopes / heat, offsets / heat), masses, 4)
        offsets = heat * (offsets - offsets.mean())
        if heat == 1.0:
            return components._replace(logits=offsets)
        heat = max(1.0, heat / _COOLING)


def _draw_in(model: Model, pair: Pair, start: Parameters) -> Parameters:
    """Return the start, or what is best on the way from it to the bridge of one component.

    Where the noise is small beside the data, components far apart win and lose all that they have
    with small changes of their weights: the fit would end with one of them. Near the single one
    they come apart slowly.
    """
    kind, epsilon = model
    n = len(start.shifts)
    alone = kind.name, np.zeros((len(model.of_sources(start)[1]), 1)), np.zeros(1)
    _, (_, x0, c0) = model.shares(pair.sources, alone)
    _, (_, x1, c1) = model.shares(pair.targets, alone)
    scale = kind.bridge(c0, kind.raised(c1, _FLOOR), epsilon)
    shift = x1 - kind.apply(scale, x0)
    masses = _core.bridge_pass(*pair.targets, model.of_targets(start), moments=False, gram=False)[1]
    masses = 0.5 * masses + 0.5 / n
    best, lowest = start, math.inf
    for part in _PARTS:
        moved = Parameters(
            part * start.logits,
            shift + part * (start.shifts - shift),
            kind.between(np.repeat(scale, n, axis=0), start.scales, part),
        )
        logits, _ = balance(pair.sources, model.of_sources(moved), masses, _DRAW_STEPS)
        moved = moved._replace(logits=logits - logits.mean())
        value = loss(model, moved, *pair)
        held = _core.bridge_pass(*pair.targets, model.of_targets(moved), moments=False, gram=False)[
            1
        ]
        if value < lowest and n * (held @ held) < _UNEVEN:
            best, lowest = moved, value
    return best


def _some(sample: Sample, n: int, rng: np.random.Generator) -> Sample:
    if len(sample.points) <= n:
        return sample
    return sample.take(rng.choice(len(sample.points), n, replace=False))


def _nearest(points: Vector, centres: Vector) -> npt.NDArray[np.intp]:
    found: npt.NDArray[np.intp] = ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)
    return found


def _plus_plus(sample: Sample, n: int, rng: np.random.Generator) -> Vector:
    """Return points drawn one after the other, each in proportion to its distance squared."""
    points, weights = sample
    centres = np.empty((n, points.shape[1]))
    distances = np.full(len(points), np.inf)
    chances = weights
    for k in range(n):
        centres[k] = points[rng.choice(len(points), p=chances)]
        distances = np.minimum(distances, ((points - centres[k]) ** 2).sum(1))
        total = weights @ distances
        # Where every point is a centre already, any will do.
        chances = weights * distances / total if total > 0 else weights
    return centres


STARTS: dict[str, Callable[..., Parameters]] = {"broad": broad_start, "kmeans": clustered_start}


class Watch:
    """Takes note of every iteration, keeps the best components, and says when to end."""

    def __init__(self, model: Model, held_out: Pair | None, options: Options) -> None:
        self.model, self.held_out, self.options = model, held_out, options
        self.best: Parameters | None = None
        self.lowest = math.inf
        self.losses: list[float] = []
        self.waited = 0
        self.converged = self.stopped = False

    def start(self, parameters: Parameters, value: float) -> None:
        """Take note of where the fit begins."""
        self._judge(parameters, value)

    def step(self, parameters: Parameters, value: float) -> bool:
        """Take note of an iteration's end, and return whether to go on."""
        self.losses.append(value)
        self._judge(parameters, value)
        fall = self.losses[-2] - value if len(self.losses) > 1 else math.inf
        # On held-out rows the loss ends by rising; a small fall may be a slow beginning.
        self.converged = self.waited >= _PATIENCE or 0 <= fall < self.options.tol
        self.stopped = not self.options.reported(len(self.losses), value)
        return self.left > 0 and not (self.converged or self.stopped)

    @property
    def left(self) -> int:
        """Iterations that there may be."""
        return self.options.max_iter - len(self.losses)

    def _judge(self, parameters: Parameters, value: float) -> None:
        seen = value if self.held_out is None else loss(self.model, parameters, *self.held_out)
        if seen < self.lowest:
            self.best, self.lowest, self.waited = parameters, seen, 0
        elif self.held_out is not None:
            self.waited += 1


def descend(model: Model, pair: Pair, start: Parameters, watch: Watch) -> bool:
    """Iterate from `start`; return whether it ended because no step lowered the loss."""
    (sources, targets), (kind, epsilon) = pair, model
    now, part, is_first = start, 1.0, True
    while True:
        first, (_, x0, c0) = _shrunk(model, sources, model.of_sources(now))
        second, (masses, x1, c1) = _shrunk(model, targets, model.of_targets(now))
        value = first - second
        if is_first:
            watch.start(now, value)
        elif not watch.step(now, value):
            return False
        is_first = False

        scales = kind.bridge(c0, kind.raised(c1, _FLOOR), epsilon)
        shifts = x1 - kind.apply(scales, x0)
        while True:
            new_scales = kind.between(now.scales, scales, part)
            new_shifts = (1 - part) * now.shifts + part * shifts
            # What a component has of the sources at their mean stays as it is.
            change = kind.apply(now.scales, x0) - kind.apply(new_scales, x0)
            change += 2 * (now.shifts - new_shifts)
            logits = now.logits + (change * x0).sum(1) / (2 * epsilon)
            moved = Parameters(logits, new_shifts, new_scales)
            logits, mean = balance(sources, model.of_sources(moved), masses, _NEWTON_STEPS)
            moved = moved._replace(logits=logits - logits.mean())
            found = _core.bridge_pass(*targets, model.of_targets(moved), moments=False, gram=False)
            if mean - logits.mean() - found[0] < value:
                break
            if part < _LEAST_STEP:
                return True
            part *= _SHORTER
        now, part = moved, min(1.0, _LONGER * part)


def polish(model: Model, pair: Pair, start: Parameters, watch: Watch, max_iter: int) -> Parameters:
    """Go on by L-BFGS in the log-weights, the shifts and the logarithms of the scales."""
    import scipy.optimize  # a quarter of a second, for those alone whose fit comes here

    (sources, targets), (kind, epsilon) = pair, model
    n, dim = start.shifts.shape
    last, value = start, math.inf

    def unpacked(x: Vector) -> Parameters:
        logits, shifts, logs = np.split(x, [n, n + n * dim])
        return Parameters(logits, shifts.reshape(n, dim), np.exp(logs).reshape(start.scales.shape))

    def look(x: Vector) -> tuple[float, Vector]:
        nonlocal value
        _, shifts, scales = found = unpacked(x)
        passes = [
            _core.bridge_pass(*sample, logits, moments=True, gram=False)
            for sample, logits in (
                (sources, model.of_sources(found)),
                (targets, model.of_targets(found)),
            )
        ]
        (first, m, sums0, _), (second, k, sums1, _) = passes
        off = sums1[:dim].T - k[:, None] * shifts
        in_shifts = (sums0[:dim].T - kind.apply(kind.inverse(scales), off)) / epsilon
        # Sums of (x1 - r)^2, by coordinate or over all.
        across = shifts * (2 * off + k[:, None] * shifts)
        squares, spread, held = sums0[dim:].T, sums1[dim:].T, k[:, None]
        if scales.ndim == 1:
            squares, spread, held = squares[:, 0], spread[:, 0] - across.sum(1), dim * k
        else:
            spread = spread - across
        in_logs = 0.5 * (scales * squares / epsilon + held - spread / (epsilon * scales))
        value = first - second
        return value, np.concatenate([m - k, in_shifts.ravel(), in_logs.ravel()])

    def after(x: Vector) -> None:
        nonlocal last
        last = unpacked(x)
        if not watch.step(last, value):
            raise StopIteration

    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            look,
            np.concatenate([start.logits, start.shifts.ravel(), np.log(start.scales).ravel()]),
            jac=True,
            method="L-BFGS-B",
            callback=after,
            options={"maxcor": 20, "maxiter": min(max_iter, watch.left), "ftol": 0, "gtol": 0},
        )
    return last


def minimize(model: Model, pair: Pair, start: Parameters, watch: Watch) -> None:
    """Descend; where that gets stuck, go on by L-BFGS for a while."""
    while descend(model, pair, start, watch) and watch.left > 0:
        before = watch.losses[-1] if watch.losses else math.inf
        if model.kind.name == "full" or watch.best is None:
            watch.converged = True
            return
        start = polish(model, pair, watch.best, watch, _POLISH_STEPS)
        if watch.left == 0:
            return
        if watch.converged or watch.stopped or before - watch.losses[-1] < watch.options.tol:
            watch.converged = not watch.stopped
            return


def _shrunk(
    model: Model, sample: Sample, logits: tuple[str, Vector, Vector]
) -> tuple[float, Moments]:
    value, moments = model.shares(sample, logits)
    return value, moments._replace(covariances=model.shrunk(moments, sample))


class Fitted(NamedTuple):
    """Parameters in the units of the data, for sources counted from `origin`."""

    log_weights: Vector
    shifts: Vector
    scales: Vector
    origin: Vector
    info: BridgeFit


def fit(
    sources: Sample,
    targets: Sample,
    *,
    epsilon: float,
    n_components: int,
    covariance: str,
    start: str,
    validation_fraction: float,
    n_init: int,
    options: Options,
    rng: np.random.Generator,
) -> Fitted:
    """Fit to weighted samples, which are centred and scaled first; `epsilon` is that of the end."""
    centres = [weights @ points for points, weights in (sources, targets)]
    spread = [
        sample.weights @ (sample.points - centre) ** 2
        for sample, centre in zip((sources, targets), centres, strict=True)
    ]
    unit = math.sqrt(0.5 * float(spread[0].mean() + spread[1].mean())) or 1.0
    pair = Pair(
        *(
            Sample((sample.points - centre) / unit, sample.weights)
            for sample, centre in zip((sources, targets), centres, strict=True)
        )
    )
    model = Model(KINDS[covariance], epsilon / unit**2)
    fitted, held_out = _hold_out(pair, validation_fraction, rng)

    # The density of the ends, in their own unit.
    constant = targets.points.shape[1] * math.log(unit)
    reported = options.reported
    options = options._replace(reported=lambda step, value: reported(step, value + constant))
    watches: list[tuple[str, Watch]] = []
    for _ in range(n_init):
        name, first = _choose(model, fitted, held_out, n_components, start, rng)
        watches.append((name, Watch(model, held_out, options)))
        minimize(model, fitted, first, watches[-1][1])
        if watches[-1][1].stopped:
            break
    name, watch = min(watches, key=lambda pair: pair[1].lowest)
    assert watch.best is not None
    logits, shifts, scales = watch.best
    value, m, *_ = _core.bridge_pass(
        *fitted.sources, model.of_sources(watch.best), moments=False, gram=False
    )
    other, n, *_ = _core.bridge_pass(
        *fitted.targets, model.of_targets(watch.best), moments=False, gram=False
    )
    info = BridgeFit(
        converged=watch.converged,
        stopped=watch.stopped,
        n_iter=len(watch.losses),
        loss=value - other + constant,
        validation_loss=None if held_out is None else watch.lowest + constant,
        losses=np.array(watch.losses) + constant,
        mass_gap=float(np.abs(m - n).max()),
        start=name,
        collapsed=_collapsed(model, watch.best, fitted.targets),
    )
    return Fitted(logits - _log_sum(logits), centres[1] + unit * shifts, scales, centres[0], info)


def _log_sum(logits: Vector) -> float:
    high = logits.max()
    return float(high + np.log(np.exp(logits - high).sum()))


def _collapsed(model: Model, found: Parameters, targets: Sample) -> npt.NDArray[np.intp]:
    """Return the components whose share of the targets has no more variance than the floor."""
    _, (masses, _, covariances) = model.shares(targets, model.of_targets(found))
    least = covariances if covariances.ndim < 3 else np.linalg.eigvalsh(covariances)
    narrow = least <= _FLOOR
    return np.flatnonzero((narrow if narrow.ndim == 1 else narrow.any(1)) & (masses > 0))


def _hold_out(pair: Pair, fraction: float, rng: np.random.Generator) -> tuple[Pair, Pair | None]:
    if fraction == 0:
        return pair, None
    kept, out = [], []
    for sample in pair:
        order = rng.permutation(len(sample.points))
        n = max(1, round(fraction * len(order)))
        out.append(sample.take(order[:n]))
        kept.append(sample.take(order[n:]))
    return Pair(*kept), Pair(*out)


def _choose(
    model: Model,
    pair: Pair,
    held_out: Pair | None,
    n: int,
    start: str,
    rng: np.random.Generator,
) -> tuple[str, Parameters]:
    """Make the start, or of both the one that is better after a few iterations on a few rows."""
    some = Pair(*(_some(sample, max(_TRIAL_ROWS, 20 * n), rng) for sample in pair))
    if start == "auto" and min(len(sample.points) for sample in pair) < 20 * n:
        start = "broad"  # few held-out rows would choose wrongly
    if start != "auto":
        return start, _draw_in(model, some, STARTS[start](model, *pair, n, rng))
    best: tuple[float, str, Parameters] | None = None
    for name, make in STARTS.items():
        first = _draw_in(model, some, make(model, *pair, n, rng))
        watch = Watch(model, None, Options(_TRIAL_STEPS, 0.0))
        minimize(model, some, first, watch)
        value = loss(model, watch.best or first, *(held_out or pair))
        if best is None or value < best[0]:
            best = value, name, first  # what was fitted to few rows is not kept
    assert best is not None
    return best[1], best[2]
