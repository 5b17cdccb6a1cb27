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
equal. They bring the components to their places, and where they slow down L-BFGS goes on, in
coordinates that the Gaussian bridges make round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe.errors import DomainError
from pyprobe.transport._bridge_adam import ANNEALING_REPORTS, anneal, train
from pyprobe.transport._bridge_descent import Options, Watch, descend
from pyprobe.transport._bridge_kinds import KINDS, Vector
from pyprobe.transport._bridge_lbfgs import polish
from pyprobe.transport._bridge_matching import matching_slopes
from pyprobe.transport._bridge_model import (
    FLOOR,
    Model,
    Pair,
    Parameters,
    Sample,
    log_sum,
    loss,
    slopes,
    some,
)
from pyprobe.transport._bridge_starts import STARTS, draw_in, draw_rows, trial_rows

__all__ = [
    "KINDS",
    "SHARP",
    "SOLVERS",
    "STARTS",
    "BridgeFit",
    "Fitted",
    "Options",
    "Sample",
    "collapsed",
    "fit",
    "held_out_rows",
]

SOLVERS = ("em", "lbfgs", "adam", "matching")
_TRIAL_STEPS = 20
"""Iterations that choose between the starts."""
_JUDGING = 0.2
"""Part of the rows that they are judged by."""
_FEW = 10
"""Components up to which a start is drawn twice: the fewer they are, the more hangs on the draw.

And what is fitted to few rows is then kept, for it is fitted to many a component.
"""
SHARP = 0.005
"""Noise, in units of the samples' variance, below which components start where there is more."""
_NARROW = 0.1
"""Scales that annealing begins with: components as wide as the data are all alike."""
_WORK = 3e7
"""Rows times components that an iteration looks at, at the most."""


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
        On the rows that were fitted, after each iteration. Those of L-BFGS lower the loss and a
        penalty on narrow components: the loss alone may rise.
    mass_gap : float
        The largest distance between a component's share of the sources and of the targets.
    start : str
        Which start was taken; "given" where it was a bridge.
    solver : str
        Which solver was used.
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
    solver: str
    collapsed: npt.NDArray[np.intp]

    @property
    def last_fall(self) -> float:
        """How much the last iteration lowered the loss; negative where it rose."""
        return float(self.losses[-2] - self.losses[-1]) if len(self.losses) > 1 else math.inf


class Start(NamedTuple):
    """Where a fit begins; `settled`, where L-BFGS may go on at once; `stopped`, where none may."""

    name: str
    components: Parameters
    settled: bool = False
    stopped: bool = False


class Fitted(NamedTuple):
    """Parameters in the units of the data, for sources counted from `origin`."""

    log_weights: Vector
    shifts: Vector
    scales: Vector
    origin: Vector
    info: BridgeFit | None


def fit(
    sources: Sample,
    targets: Sample,
    *,
    epsilon: float,
    n_components: int,
    covariance: str,
    start: str | Fitted,
    solver: str = "em",
    validation_fraction: float,
    n_init: int,
    options: Options,
    rng: np.random.Generator,
) -> Fitted:
    """Fit to weighted samples, which are centred and scaled first; `epsilon` is that of the end.

    A start of components has log-weights for this epsilon.
    """
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
    fitted, held_out = pair, None
    if validation_fraction > 0:
        fitted, held_out = split(pair, validation_fraction, rng)

    # The density of the ends, in their own unit.
    constant = targets.points.shape[1] * math.log(unit)
    reported = options.reported
    options = options._replace(reported=lambda step, value: reported(step, value + constant))
    watches: list[tuple[str, Watch]] = []
    names = _tried(start, model, fitted, n_components) if isinstance(start, str) else ()
    options.announced(n_init * (options.max_iter + _reports(names)))
    for _ in range(n_init):
        if isinstance(start, str):
            first = _choose(model, fitted, n_components, names, solver, options.reported, rng)
        else:
            first = Start("given", _moved_in(model, start, centres, unit, epsilon))
        watches.append((first.name, Watch(model, held_out, options)))
        if first.stopped:
            watches[-1][1].start(first.components, loss(model, first.components, *fitted))
            watches[-1][1].stopped = True
        else:
            _minimize(model, fitted, first, watches[-1][1], solver, rng)
        if watches[-1][1].stopped:
            break
    # By all rows: those held out alone are few, and each fit has ended where they like it best.
    found = [(loss(model, watch.best, *pair), name, watch) for name, watch in watches if watch.best]
    if not found:
        raise DomainError(
            "no bridge could be fitted: the loss is infinite where the fit begins. Bring 'x0' and "
            "'x1' to a common unit, or begin elsewhere with 'start'."
        )
    _, name, watch = min(found, key=lambda candidate: candidate[0])
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
        stopped=watches[-1][1].stopped,  # whichever of them is the best
        n_iter=len(watch.losses),
        loss=value - other + constant,
        validation_loss=None if held_out is None else watch.lowest + constant,
        losses=np.array(watch.losses) + constant,
        mass_gap=float(np.abs(m - n).max()),
        start=name,
        solver=solver,
        collapsed=collapsed(model, watch.best, fitted.targets),
    )
    return Fitted(logits - log_sum(logits), centres[1] + unit * shifts, scales, centres[0], info)


def _moved_in(
    model: Model, start: Fitted, centres: list[Vector], unit: float, epsilon: float
) -> Parameters:
    """Return components in the units of the fit, for sources counted from their mean."""
    kind = model.kind
    n = len(start.shifts)
    way = np.tile(centres[0] - start.origin, (n, 1))
    pulled = kind.apply(start.scales, way)
    tilt = ((pulled + 2 * (start.shifts - start.origin)) * way).sum(1) / (2 * epsilon)
    logits = start.log_weights + tilt
    shifts = (start.shifts + pulled - centres[1]) / unit
    return Parameters(logits - log_sum(logits), shifts, start.scales)


def collapsed(model: Model, found: Parameters, targets: Sample) -> npt.NDArray[np.intp]:
    """Return the components whose share of the targets has no more variance than the floor.

    In the columns that vary at all; in the others none has any. Where none varies, it is all.
    """
    _, (masses, _, covariances) = model.shares(targets, model.of_targets(found))
    varies = np.ptp(targets.points, axis=0) > 0
    if not varies.any():
        return np.flatnonzero(masses > 0)
    if covariances.ndim == 1:
        least = covariances
    elif covariances.ndim == 2:
        least = covariances[:, varies].min(axis=1, initial=np.inf)
    else:
        least = np.linalg.eigvalsh(covariances[:, varies][:, :, varies])
        least = least.min(axis=1, initial=np.inf)
    return np.flatnonzero((least <= FLOOR) & (masses > 0))


def held_out_rows(n: int, fraction: float) -> int:
    """Return how many of n rows are held out."""
    return max(1, round(fraction * n)) if fraction > 0 else 0


def split(pair: Pair, fraction: float, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Return the rows that are kept, and those that are held out."""
    kept, out = [], []
    for sample in pair:
        order = rng.permutation(len(sample.points))
        n = held_out_rows(len(order), fraction)
        out.append(sample.take(order[:n]))
        kept.append(sample.take(order[n:]))
    return Pair(*kept), Pair(*out)


def _tried(start: str, model: Model, pair: Pair, n: int) -> tuple[str, ...]:
    """Return the starts that are tried."""
    if start != "auto":
        return (start,)
    # One component needs no choice, and few held-out rows would choose wrongly.
    if n == 1 or min(len(sample.points) for sample in pair) < 20 * n:
        return ("broad",)
    if model.epsilon < SHARP:
        return ("annealed",)
    return (*STARTS, *STARTS) if n <= _FEW else tuple(STARTS)


def _reports(names: tuple[str, ...]) -> int:
    """Return how often the making of a start is reported at the most."""
    if names == ("annealed",):
        return ANNEALING_REPORTS
    return _TRIAL_STEPS * len(names) if len(names) > 1 else 0


def _choose(
    model: Model,
    pair: Pair,
    n: int,
    names: tuple[str, ...],
    solver: str,
    reported: Callable[[int, float], bool],
    rng: np.random.Generator,
) -> Start:
    """Make the start, or of several the best after a few iterations on a few rows."""
    if names == ("annealed",):
        first = STARTS["broad"](model, *pair, n, rng)
        first = first._replace(scales=_NARROW * first.scales)
        moved, goes_on = anneal(model, pair, first, rng, reported)
        return Start("annealed", moved, stopped=not goes_on)
    if len(names) == 1:
        (name,) = names
        return Start(name, draw_in(model, pair, STARTS[name](model, *pair, n, rng), rng))
    # By other rows than end the fit: those would be looked at too often to be trusted.
    rows = max(trial_rows(n), draw_rows(n, model.epsilon))
    few, judges = (
        Pair(*(some(sample, rows, rng) for sample in part)) for part in split(pair, _JUDGING, rng)
    )
    options = Options(_TRIAL_STEPS, 0.0, lambda _step, value: reported(0, value))
    trials: list[tuple[float, Start]] = []
    for name in names:
        first = draw_in(model, pair, STARTS[name](model, *pair, n, rng), rng)
        watch = Watch(model, judges, options)
        _minimize(model, few, Start(name, first), watch, "em", rng)
        tried = Start(name, first, stopped=watch.stopped)
        if solver == "em" and n <= _FEW and watch.best is not None:
            tried = tried._replace(components=watch.best, settled=True)
        trials.append((watch.lowest, tried))
        if watch.stopped:
            break
    best = min(trials, key=lambda trial: trial[0])[1]
    return best._replace(stopped=trials[-1][1].stopped)


def _minimize(
    model: Model,
    pair: Pair,
    start: Start,
    watch: Watch,
    solver: str,
    rng: np.random.Generator,
) -> None:
    """Go from `start` to where the watch ends it."""
    first = start.components
    if solver in ("adam", "matching"):
        train(model, pair, first, watch, rng, slopes if solver == "adam" else matching_slopes(rng))
        return
    most = int(_WORK / len(first.shifts))
    pair = Pair(*(some(sample, most, rng) for sample in pair))
    now: Parameters | None = first
    if solver == "em" and not start.settled:
        now = descend(model, pair, first, watch, rng)
    else:
        watch.start(first, loss(model, first, *pair))
    if now is not None:
        polish(model, pair, now, watch, rng)
