"""The fit of unbalanced light bridges: a start, rounds of L-BFGS, and what the plan is told by."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe.transport import _bridge_fit
from pyprobe.transport._bridge_balance import BALANCED
from pyprobe.transport._bridge_descent import LONGER, SHORTER, Options, Watch
from pyprobe.transport._bridge_fit import collapsed, split
from pyprobe.transport._bridge_kinds import KINDS, Vector
from pyprobe.transport._bridge_lbfgs import Coordinates
from pyprobe.transport._bridge_model import FLOOR, Model, Pair, Parameters, Sample, log_sum, some
from pyprobe.transport._mixture_fit import MixtureParameters, fit_mixture, log_density
from pyprobe.transport._unbalanced_problem import Problem, Side, Tilt, total

__all__ = ["UnbalancedFit", "fit"]

_START_STEPS = 10
"""Iterations of the balanced fit that the unbalanced one starts from."""
_START_ROWS, _START_TOL, _START_SINKHORN = 1000, 1e-3, 300
"""Rows that it sees, and how far Sinkhorn's iteration goes that says what they weigh."""
_ROUND = 40
"""Iterations of L-BFGS before its coordinates are laid anew."""
_SETTLING, _SETTLED = 30, 0.01
"""The most iterations towards Gaussian bridges, and the fall of the loss that ends them."""
_FIRST_NEWTON_STEPS, _NEWTON_STEPS = 30, 2
_LEAST_PART = 1e-3
"""Part of a step below which the loss is taken not to fall."""
_PATIENCE = 10
"""Iterations that the held-out loss may rise before the fit ends with its lowest."""
_WINDOW = 5
"""Iterations over which the fall of the loss is averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbalancedFit:
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
        On the rows that were fitted, in nats: it falls as the plan nears the best one.
    validation_loss : float or None
        On the rows held out, of the plan that is returned.
    losses : ndarray, shape (n_iter,)
        On the rows that were fitted, after each iteration.
    mass_gap : float
        The largest distance between a component's share of the starts and of the ends.
    n_starts, n_ends : float
        The number of equal weights that would be as good as the weights of the fitted rows.
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
    n_starts: float
    n_ends: float
    collapsed: npt.NDArray[np.intp]

    @property
    def last_fall(self) -> float:
        """How much the last iteration lowered the loss."""
        return float(self.losses[-2] - self.losses[-1]) if len(self.losses) > 1 else math.inf


class PlanWatch(Watch):
    """Judges by the loss of the plan, and knows a slow fall by the mean of several iterations."""

    def __init__(self, model: Model, unseen: Problem | None, options: Options) -> None:
        super().__init__(model, None, options)
        self.unseen, self.patience = unseen, _PATIENCE
        self.is_slow = False

    @property
    def goes_on(self) -> bool:
        """Whether there may be another iteration."""
        return self.left > 0 and not (self.converged or self.stopped)

    def note(self, components: Parameters, value: float) -> None:
        """Take note of an iteration's end. A slow fall alone does not end the fit."""
        self.step(components, value)
        past = self.losses[-1 - _WINDOW :]
        self.is_slow = len(past) > _WINDOW and past[0] - value < _WINDOW * self.options.tol
        self.converged = self.waited >= self.patience

    def _judge(self, parameters: Parameters, value: float) -> None:
        if self.unseen is None:
            super()._judge(parameters, value)
            return
        super()._judge(parameters, self.unseen.loss(parameters))
        self.waited += self.best is not parameters


def balance(
    problem: Problem, components: Parameters, steps: int
) -> tuple[Parameters, tuple[Tilt, Tilt]]:
    """Move the log-weights by damped Newton steps, and return what the rows weigh there too.

    Where clusters are far apart, a balanced bridge does not see the difference of their potentials;
    here it says how much of each takes part. The second derivatives are those of the convex bound
    that fixed responsibilities of the ends give.
    """
    model, tilts = problem.model, problem.tilts(components)
    for _ in range(steps):
        sources, targets = problem.carried(tilts)
        (_, m, _, p), (_, n, _, q) = (
            _core.bridge_pass(*sample, logits, moments=False, gram=True)
            for sample, logits in (
                (sources, model.of_sources(components)),
                (targets, model.of_targets(components)),
            )
        )
        gradient = m - n
        if np.abs(gradient).sum() < BALANCED:
            break
        hessian = np.diag(m * (1 + 1e-6) + 1e-9) - p
        hessian += (p - np.outer(m, m)) / problem.starts.penalty
        hessian += (q - np.outer(n, n)) / problem.ends.penalty
        step = -np.linalg.solve(hessian, gradient)
        step -= m @ step  # not their mean: a component without rows may be told to go anywhere
        slope, part = gradient @ step, 1.0
        while True:
            moved = components._replace(logits=components.logits + part * step)
            others = problem.tilts(moved)
            if total(others) <= total(tilts) + 1e-4 * part * slope:
                break
            part *= SHORTER
            if part < _LEAST_PART:
                return components, tilts
        components, tilts = moved, others
    return components, tilts


def descend(problem: Problem, start: Parameters, watch: PlanWatch) -> Parameters:
    """Go towards the Gaussian bridges of the components' shares, as long as that pays.

    This is the iteration of the balanced fit on rows that weigh what they do in the plan so far. In
    it the log-weights, which the shares depend on steeply where there is little noise, are found by
    Newton's method.
    """
    model, part = problem.model, 1.0
    kind, epsilon = model
    now, tilts = balance(problem, start, _FIRST_NEWTON_STEPS)
    watch.start(now, total(tilts))
    while watch.goes_on and len(watch.losses) < _SETTLING:
        sources, targets = problem.carried(tilts)
        _, moments = model.shares(sources, model.of_sources(now))
        _, scatter = model.shares(targets, model.of_targets(now))
        x0, c0 = moments.means, model.shrunk(moments, sources)
        scales = kind.bridge(c0, kind.raised(model.shrunk(scatter, targets), FLOOR), epsilon)
        shifts = scatter.means - kind.apply(scales, x0)
        while True:
            new_scales = kind.between(now.scales, scales, part)
            new_shifts = (1 - part) * now.shifts + part * shifts
            # What a component has of the starts at their mean stays as it is.
            change = kind.apply(now.scales - new_scales, x0) + 2 * (now.shifts - new_shifts)
            logits = now.logits + (change * x0).sum(axis=1) / (2 * epsilon)
            moved = Parameters(logits - log_sum(logits), new_shifts, new_scales)
            moved, others = balance(problem, moved, _NEWTON_STEPS)
            fall = total(tilts) - total(others)
            if fall > 0:
                break
            part *= SHORTER
            if part < _LEAST_PART:
                return now
        now, tilts, part = moved, others, min(1.0, LONGER * part)
        watch.note(now, total(tilts))
        if fall < _SETTLED:
            return now
    return now


def polish(problem: Problem, start: Parameters, watch: PlanWatch, rng: np.random.Generator) -> None:
    """Go on from `start` by L-BFGS, in rounds, each with coordinates of its own."""
    now = start
    while watch.goes_on:
        before, first = len(watch.losses), problem.loss(now)
        now = polish_once(TiltedCoordinates(problem, now, rng), watch)
        # A round may end early because its coordinates, or what it shrinks to, are out of date.
        taken = len(watch.losses) - before
        if taken == 0 or (
            watch.is_slow and abs(first - watch.losses[-1]) < taken * watch.options.tol
        ):
            watch.converged = True


class TiltedCoordinates(Coordinates):
    """Coordinates of the balanced fit, with rows that weigh what they do in the plan.

    The loss has the gradient of the balanced one on reweighted rows.
    """

    def __init__(self, problem: Problem, start: Parameters, rng: np.random.Generator) -> None:
        self.problem = problem
        carried = problem.carried(problem.tilts(start))
        super().__init__(problem.model, carried, start, rng)
        # Its penalty is for a few rows more of those given, not of the fewer that take part.
        given = min(problem.starts.sample.size, problem.ends.sample.size)
        self.prior *= min(sample.size for sample in carried) / given

    def look(self, z: Vector) -> tuple[float, Vector]:
        """Return the loss at `z`, which is kept as `value`, with the penalty, and its slopes."""
        tilts = self.problem.tilts(self.components(z))
        self.pair = self.problem.carried(tilts)
        found, slopes = super().look(z)
        penalty = found - self.value
        self.value = total(tilts)
        return self.value + penalty, slopes


def polish_once(around: Coordinates, watch: PlanWatch) -> Parameters:
    """Return where a round of L-BFGS ends."""
    import scipy.optimize  # a quarter of a second, for those alone who fit

    origin, begun = np.zeros(around.size), len(watch.losses)
    now = around.components(origin)

    def after(z: Vector) -> None:
        nonlocal now
        now = around.components(z)
        watch.note(now, around.value)
        if not watch.goes_on or (watch.is_slow and len(watch.losses) - begun > _WINDOW):
            raise StopIteration

    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            around.look,
            origin,
            jac=True,
            method="L-BFGS-B",
            callback=after,
            bounds=scipy.optimize.Bounds(-around.reach, around.reach),
            options={"maxcor": 20, "maxiter": min(_ROUND, watch.left), "ftol": 0, "gtol": 0},
        )
    return now


class Fitted(NamedTuple):
    """Everything in the units of the data: first what a bridge is made from."""

    log_weights: Vector
    shifts: Vector
    scales: Vector
    origin: Vector
    log_scale: float
    """What the log-potential of that bridge lacks, as an absolute one."""
    mass: float
    starts: MixtureParameters
    ends: MixtureParameters
    info: UnbalancedFit


def fit(
    sources: Sample,
    targets: Sample,
    *,
    epsilon: float,
    penalties: tuple[float, float],
    n_components: int,
    n_source_components: int,
    covariance: str,
    start: str,
    validation_fraction: float,
    options: Options,
    rng: np.random.Generator,
) -> Fitted:
    """Fit to weighted samples, which are centred and scaled first; `epsilon` is that of the end."""
    centres = [weights @ points for points, weights in (sources, targets)]
    spread = [
        float((sample.weights @ (sample.points - centre) ** 2).mean())
        for sample, centre in zip((sources, targets), centres, strict=True)
    ]
    unit = math.sqrt(0.5 * sum(spread)) or 1.0
    pair = Pair(
        *(
            Sample((sample.points - centre) / unit, sample.weights)
            for sample, centre in zip((sources, targets), centres, strict=True)
        )
    )
    apart, noise = (centres[0] - centres[1]) / unit, epsilon / unit**2
    model = Model(KINDS[covariance], noise)
    kept, out = split(pair, validation_fraction, rng) if validation_fraction > 0 else (pair, None)
    ends = fit_mixture(kept.targets, n_components, covariance, out and out.targets, rng)

    def as_problem(pair: Pair) -> Problem:
        # The two centres differ: what that adds to the cost is linear in the rows, and is no
        # constant that a potential could take up for free, as it is without penalties.
        x0, x1 = pair.sources.points, pair.targets.points
        density = log_density(ends, covariance, x1)
        lost = ((x0**2).sum(axis=1) / 2 + x0 @ apart + apart @ apart / 2) / noise
        gained = ((x1**2).sum(axis=1) / 2 - x1 @ apart) / noise - density
        return Problem(
            model,
            Side(pair.sources, lost, 1.0, (penalties[0] / epsilon + 1)),
            Side(pair.targets, gained, -1.0, penalties[1] / epsilon),
        )

    problem, held_out = as_problem(kept), None if out is None else as_problem(out)
    watch = PlanWatch(model, held_out, options)
    first = balanced_start(problem, apart, n_components, covariance, start, rng)
    polish(problem, descend(problem, first, watch), watch, rng)
    assert watch.best is not None

    found = watch.best
    logits, shifts, scales = found
    height = log_sum(logits)
    constant, mass = as_problem(pair).gauge(found)
    return Fitted(
        logits - height,
        centres[1] + unit * shifts,
        scales,
        centres[0],
        height + constant - float(apart @ apart) / (2 * noise),
        mass,
        _carried(problem, held_out, found, n_source_components, covariance, rng).in_units(
            unit, centres[0]
        ),
        ends.in_units(unit, centres[1]),
        _report(problem, watch, found),
    )


def _carried(
    problem: Problem,
    held_out: Problem | None,
    found: Parameters,
    n: int,
    covariance: str,
    rng: np.random.Generator,
) -> MixtureParameters:
    """Fit a mixture to the starts, weighted as they take part."""
    samples = [
        each.starts.sample._replace(weights=each.tilts(found)[0].weights)
        for each in (problem, held_out)
        if each is not None
    ]
    return fit_mixture(samples[0], n, covariance, samples[1] if held_out else None, rng)


def _report(problem: Problem, watch: PlanWatch, found: Parameters) -> UnbalancedFit:
    model, tilts = problem.model, problem.tilts(found)
    sources, targets = problem.carried(tilts)
    _, starts = model.shares(sources, model.of_sources(found))
    _, ends = model.shares(targets, model.of_targets(found))
    return UnbalancedFit(
        converged=watch.converged,
        stopped=watch.stopped,
        n_iter=len(watch.losses),
        loss=total(tilts),
        validation_loss=None if watch.unseen is None else watch.lowest,
        losses=np.array(watch.losses),
        mass_gap=float(np.abs(starts.masses - ends.masses).max()),
        n_starts=sources.size,
        n_ends=targets.size,
        collapsed=collapsed(model, found, targets),
    )


def balanced_start(
    problem: Problem,
    apart: Vector,
    n: int,
    covariance: str,
    start: str,
    rng: np.random.Generator,
) -> Parameters:
    """Return the components of a balanced fit, of a few iterations, to some of the rows.

    These weigh what they do in the unbalanced plan between them: from the balanced bridge of all
    rows the way is long where much stays behind, and may end elsewhere.
    """
    model = problem.model
    pair = [
        some(side.sample, max(_START_ROWS, 10 * n), rng) for side in (problem.starts, problem.ends)
    ]
    if min(problem.starts.penalty, problem.ends.penalty) < math.inf:
        pair = _as_carried(problem, pair, apart)
    if start == "auto" and model.epsilon < _bridge_fit.SHARP:
        start = "kmeans"  # annealed, far clusters end with shares that no later step mends
    found = _bridge_fit.fit(
        *pair,
        epsilon=model.epsilon,
        n_components=n,
        covariance=covariance,
        start=start,
        validation_fraction=0.0,
        n_init=1,
        options=Options(_START_STEPS, 1e-5),
        rng=rng,
    )
    # It counts the sources from an origin of its own.
    origin = np.tile(found.origin, (n, 1))
    pulled = model.kind.apply(found.scales, origin)
    logits = found.log_weights + (pulled * origin).sum(1) / (2 * model.epsilon)
    logits -= (found.shifts * origin).sum(1) / model.epsilon
    return Parameters(logits - log_sum(logits), found.shifts - pulled, found.scales)


def _as_carried(problem: Problem, pair: list[Sample], apart: Vector) -> list[Sample]:
    """Return rows with the weights that they have in the unbalanced plan between them."""
    (x0, a), (x1, b) = pair
    epsilon = problem.model.epsilon
    # Twice the cost of the bridge, and the penalty of the starts itself.
    penalties = 2 * epsilon * (problem.starts.penalty - 1), 2 * epsilon * problem.ends.penalty
    cost = np.ascontiguousarray(x0 + apart), x1, "sqeuclidean"
    found = _core.sinkhorn(
        cost,
        a,
        b,
        2 * epsilon,
        penalties,
        method="log",
        tol=_START_TOL,
        max_iter=_START_SINKHORN,
        max_newton=0,
        relaxation=True,
        memory=(0, 0),
    )
    rows, columns, _ = _core.transport_sums((cost, 2 * epsilon, found["phi"], found["gamma"]))
    if not min(rows.sum(), columns.sum()) > 0:
        return pair  # too little to be told from nothing
    carried = []
    for (points, _), masses in zip(pair, (rows, columns), strict=True):
        # A start takes a row for every component: none has no weight at all.
        weights = masses / masses.sum() + 1e-6 / len(masses)
        carried.append(Sample(points, weights / weights.sum()))
    return carried
