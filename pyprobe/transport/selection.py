"""How many components a light Schrödinger bridge should have, by the loss on rows held out."""

from __future__ import annotations

import inspect
import math
import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _rng
from pyprobe._validate import check_callback, check_positive_float
from pyprobe._warn import warn
from pyprobe.errors import DomainError, NumericalWarning, ShapeError
from pyprobe.progress import Callback, Progress, ends
from pyprobe.transport._bridge_fit import held_out_rows
from pyprobe.transport._bridge_input import as_samples
from pyprobe.transport._bridge_model import Sample
from pyprobe.transport.bridge import LightSchrodingerBridge
from pyprobe.typing import ArrayLike, FloatArray, Rng

__all__ = ["ComponentSelection", "select_n_components"]

_FIT = inspect.signature(LightSchrodingerBridge.fit).parameters
"""The options that are passed on, with their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComponentSelection:
    """The number of components that was chosen, and why.

    Attributes
    ----------
    n_components : int
        The fewest whose loss is within one standard error of the lowest.
    candidates : ndarray of int, shape (c,)
        In increasing order.
    scores : ndarray, shape (c,)
        Losses on the rows held out, lower is better: minus the mean logarithm of the density of
        the end given the start, over all pairs of those rows. Differences are divergences, in nats.
    standard_errors : ndarray, shape (c,)
        Of the differences from the lowest loss; 0 at the lowest.
    at_end : bool
        Whether the largest candidate was chosen: larger ones may be better yet.
    bridge : LightSchrodingerBridge
        Fitted to all rows, with the number that was chosen.
    """

    n_components: int
    candidates: npt.NDArray[np.int64]
    scores: FloatArray
    standard_errors: FloatArray
    at_end: bool
    bridge: LightSchrodingerBridge

    def __repr__(self) -> str:
        end = ", at_end=True" if self.at_end else ""
        tried = ", ".join(map(str, self.candidates))
        return f"ComponentSelection(n_components={self.n_components}, candidates=[{tried}]{end})"


def select_n_components(
    x0: ArrayLike,
    x1: ArrayLike,
    candidates: Sequence[int],
    *,
    epsilon: float,
    weights_x0: ArrayLike | None = None,
    weights_x1: ArrayLike | None = None,
    test_fraction: float = 0.2,
    rng: Rng = None,
    callback: Callback | None = None,
    **options: Any,
) -> ComponentSelection:
    """Choose the number of components of a bridge by the loss on rows held out.

    Every candidate is fitted to the same rows and judged on the same others. The loss is a mean
    over either sample, so that differences between candidates have standard errors, row by row.
    Close calls go to the fewer components: the smallest candidate is taken whose loss exceeds the
    lowest by no more than one standard error of that difference.

    Parameters
    ----------
    x0 : array_like, shape (n, d)
        Starts; tensors, too, on the CPU and without gradients.
    x1 : array_like, shape (m, d)
        Ends.
    candidates : sequence of int
        Numbers of components to try.
    epsilon : float
        Variance of the noise per unit of time.
    weights_x0, weights_x1 : array_like, shapes (n,) and (m,), optional
        Nonnegative weights of the rows; default equal.
    test_fraction : float, default 0.2
        Part of either sample that judges, and that the candidates do not see; at most 0.5.
    rng : None, int, numpy.random.Generator or torch.Generator
        Seed or source of the rows held out and of the fits.
    callback : callable, optional
        Called with a `pyprobe.progress.Progress` after every candidate, whose value is its loss;
        returning ``True`` chooses among those seen so far.
    **options
        As those of `LightSchrodingerBridge.fit`: covariance, solver, start, horizon and so on.

    Returns
    -------
    ComponentSelection
        With a bridge that is fitted to all rows.

    Raises
    ------
    ShapeError      if the samples do not fit one another, are too small, or there is no candidate.
    DomainError     if a number is out of range, a candidate comes twice or has more components than
                    there are rows to fit, or `start` is a bridge with another number of them.
    TypeError       if `candidates` does not hold integers, or an option is unknown to the fit.
    NotFiniteError  if a sample is infinite or NaN somewhere.

    Warns
    -----
    NumericalWarning    if the largest of several candidates is chosen: larger ones may be better.

    Notes
    -----
    Costs a fit for every candidate, and one more. The standard errors are those of the rows that
    judge; fits from other starts differ as well, by less where ``n_init`` is larger.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.transport import LightSchrodingerBridge, select_n_components
    >>> truth = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... )
    >>> x0, others = np.random.default_rng(0).normal(size=(2, 2000, 2))
    >>> x1 = truth.sample(others, rng=0)
    >>> found = select_n_components(x0, x1, [1, 2, 4, 8], epsilon=0.5, rng=0)
    >>> found
    ComponentSelection(n_components=2, candidates=[1, 2, 4, 8])
    >>> bool(found.scores[0] > found.scores[1] + 0.3)
    True
    """
    epsilon = check_positive_float("epsilon", epsilon)
    fraction = check_positive_float("test_fraction", test_fraction)
    if fraction > 0.5:
        raise DomainError(f"'test_fraction' must be at most 0.5; got {fraction:g}.")
    numbers = _as_numbers(candidates)
    _check_options(options, numbers)
    check_callback("callback", callback)
    samples = as_samples("select_n_components", x0, x1, weights_x0, weights_x1)
    generator = np.random.default_rng(_rng.key(rng))
    parts = [_split(sample, fraction, generator) for sample in samples]
    seed = int(generator.integers(2**63))
    n_rows = len(parts[1][0].points)
    out = options.get("validation_fraction", _FIT["validation_fraction"].default)
    most = n_rows - held_out_rows(
        n_rows, check_positive_float("validation_fraction", out, allow_zero=True)
    )
    if numbers[-1] > most:
        raise DomainError(
            f"'candidates' must be at most {most}, the number of rows of 'x1' that are fitted; got "
            f"{numbers[-1]}. Leave out larger ones."
        )

    def fit(n: int, sources: Sample, targets: Sample) -> LightSchrodingerBridge:
        return LightSchrodingerBridge.fit(
            sources.points,
            targets.points,
            epsilon=epsilon,
            n_components=n,
            weights_x0=sources.weights,
            weights_x1=targets.weights,
            rng=seed,
            **options,
        )

    tests = [part[1] for part in parts]
    begin = time.perf_counter()
    seen: list[tuple[FloatArray, FloatArray]] = []
    scores: list[float] = []
    for n in numbers:
        bridge = fit(n, parts[0][0], parts[1][0])
        potentials = np.asarray(bridge.log_potential(tests[1].points))
        seen.append((_log_norms(bridge, tests[0].points), potentials))
        scores.append(_loss(bridge, seen[-1], *tests))
        elapsed = time.perf_counter() - begin
        progress = Progress(step=len(seen), total=len(numbers), value=scores[-1], elapsed=elapsed)
        if callback is not None and ends(callback(progress)):
            break
    lowest = int(np.argmin(scores))
    errors = np.array([_standard_error(rows, seen[lowest], tests) for rows in seen])
    close = np.array(scores) - scores[lowest] <= errors
    chosen = int(np.argmax(close))
    at_end = chosen == len(numbers) - 1
    if at_end and len(numbers) > 1:
        gain = scores[-2] - scores[-1]
        warn(
            f"select_n_components chose the largest candidate, {numbers[-1]}, which lowers the "
            f"loss by {gain:.2g} nats against {numbers[-2]}: more may be better yet. Add larger "
            "candidates.",
            NumericalWarning,
        )
    return ComponentSelection(
        n_components=numbers[chosen],
        candidates=np.array(numbers[: len(scores)]),
        scores=np.array(scores),
        standard_errors=errors,
        at_end=at_end,
        bridge=fit(numbers[chosen], *samples),
    )


def _as_numbers(candidates: Any) -> list[int]:
    """Return numbers of components in increasing order, all different."""
    try:
        given = list(candidates)
    except TypeError:
        raise TypeError(
            "'candidates' must be a sequence of integers, such as [1, 2, 4]; got "
            f"{type(candidates).__name__}."
        ) from None
    if not given:
        raise ShapeError("'candidates' must hold one number of components or more; got none.")
    numbers = []
    for i, number in enumerate(given):
        try:
            numbers.append(operator.index(number))
        except TypeError:
            raise TypeError(
                f"'candidates' must hold integers; got {number!r} at index {i}."
            ) from None
        if numbers[-1] < 1:
            raise DomainError(f"'candidates' must be at least 1; got {numbers[-1]} at index {i}.")
    if len(set(numbers)) < len(numbers):
        raise DomainError(f"'candidates' must differ from each other; got {sorted(numbers)}.")
    return sorted(numbers)


def _check_options(options: dict[str, Any], numbers: list[int]) -> None:
    """Raise where what is to be passed on cannot serve the fits of all candidates."""
    if "n_components" in options:
        raise TypeError("'n_components' is what is chosen here: give it as 'candidates'.")
    for name in options:
        if name not in _FIT:
            raise TypeError(
                f"'{name}' is no option of select_n_components, nor of LightSchrodingerBridge.fit."
            )
    start = options.get("start")
    if isinstance(start, LightSchrodingerBridge) and numbers != [start.n_components]:
        raise DomainError(
            f"'start' is a bridge of {start.n_components} components, from which only as many can "
            f"be fitted; got the candidates {numbers}. Leave it out, or name a kind of start."
        )


def _split(sample: Sample, fraction: float, rng: np.random.Generator) -> tuple[Sample, Sample]:
    order = rng.permutation(len(sample.points))
    n = max(1, round(fraction * len(order)))
    return sample.take(order[n:]), sample.take(order[:n])


def _log_norms(bridge: LightSchrodingerBridge, x0: FloatArray) -> FloatArray:
    """Return ``log c``, what normalizes the plan of every start."""
    assert bridge.origin is not None  # filled in when the value was made
    strength = bridge.epsilon * bridge.horizon
    square = ((x0 - bridge.origin) ** 2).sum(1) / strength
    constant = bridge.dim * math.log(2 * math.pi * strength)
    found: FloatArray = np.asarray(bridge.log_phi(x0, 0.0)) + 0.5 * (square + constant)
    return found


def _loss(
    bridge: LightSchrodingerBridge,
    rows: tuple[FloatArray, FloatArray],
    sources: Sample,
    targets: Sample,
) -> float:
    assert bridge.origin is not None
    means = [sample.weights @ sample.points - bridge.origin for sample in (sources, targets)]
    tilt = float(means[0] @ means[1]) / (bridge.epsilon * bridge.horizon)
    return float(sources.weights @ rows[0] - targets.weights @ rows[1]) - tilt


def _standard_error(
    rows: tuple[FloatArray, FloatArray], best: tuple[FloatArray, FloatArray], tests: list[Sample]
) -> float:
    """Return that of the difference of two losses: of two means over samples of their own."""
    total = 0.0
    for values, others, sample in zip(rows, best, tests, strict=True):
        change = values - others
        spread = sample.weights @ (change - sample.weights @ change) ** 2
        total += float(spread) / max(sample.size - 1, 1)
    return float(np.sqrt(total))
