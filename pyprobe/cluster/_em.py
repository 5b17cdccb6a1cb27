"""The loop of expectation and maximization, written once for every mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from pyprobe._warn import warn
from pyprobe.errors import NumericalWarning
from pyprobe.progress import Callback, Reporter
from pyprobe.typing import FloatArray

__all__ = ["EMInfo", "Expectation", "expectation_maximization"]

P = TypeVar("P")
S = TypeVar("S")


class Expectation(NamedTuple, Generic[S]):
    """What an E-step finds at some parameters.

    Attributes
    ----------
    value : float
        Mean log-likelihood of a sample.
    rounding : float
        How far `value` may be off by rounding; a fall by less is not reported.
    statistics : object
        What the M-step needs.
    """

    value: float
    rounding: float
    statistics: S


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EMInfo:
    """How an EM fit went.

    Attributes
    ----------
    converged : bool
        Whether the last iteration raised the log-likelihood by no more than the tolerance; or
        changed it by no more, where the M-step need not raise it.
    stopped : bool
        Whether the callback ended the fit.
    n_iter : int
        Iterations made, each one M-step and one E-step.
    log_likelihood : float
        Mean log-likelihood of a sample under the returned parameters.
    trace : ndarray, shape (n_iter + 1,)
        The same at the start and after every iteration.
    n_reseeded : int
        How many times a component that had lost its samples was given a new place.
    """

    converged: bool
    stopped: bool
    n_iter: int
    log_likelihood: float
    trace: FloatArray
    n_reseeded: int

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(converged={self.converged}, n_iter={self.n_iter}, "
            f"log_likelihood={self.log_likelihood:.6g}, n_reseeded={self.n_reseeded})"
        )


def expectation_maximization(
    expect: Callable[[P], Expectation[S]],
    maximize: Callable[[P, S], tuple[P, int]],
    start: P,
    *,
    max_iter: int,
    tol: float,
    monotone: bool = True,
    callback: Callback | None = None,
) -> tuple[P, EMInfo]:
    """Alternate the two steps of EM until the log-likelihood stands still.

    Parameters
    ----------
    expect : callable
        Maps parameters to their `Expectation`.
    maximize : callable
        Maps parameters and the statistics found at them to new parameters and the number of
        components that were given a new place; after such a move the log-likelihood may fall, and
        the loop does not stop.
    start : object
        The first parameters.
    max_iter : int
        The most iterations.
    tol : float
        The loop stops when the mean log-likelihood of a sample rises by no more than this, in nats;
        where it is not `monotone`, when it changes by no more.
    monotone : bool, default True
        Whether the M-step maximizes, so that a fall of the log-likelihood would be an error.
    callback : callable, optional
        Called with a `Progress` after every iteration; returning ``True`` ends the loop.

    Returns
    -------
    parameters : object
        The last ones, whose log-likelihood is the last of the trace.
    info : EMInfo
        How it went.

    Warns
    -----
    NumericalWarning
        If the log-likelihood falls where it cannot but for rounding.

    References
    ----------
    .. [1] A. P. Dempster, N. M. Laird and D. B. Rubin, "Maximum likelihood from incomplete data via
       the EM algorithm", J. R. Stat. Soc. B 39(1), 1977.
    """
    report = Reporter(callback, max_iter)
    parameters = start
    value, _, statistics = expect(parameters)
    trace = [value]
    converged = stopped = False
    n_reseeded = 0
    while not (converged or stopped) and len(trace) <= max_iter:
        parameters, moved = maximize(parameters, statistics)
        value, rounding, statistics = expect(parameters)
        n_reseeded += moved
        gain = value - trace[-1]
        trace.append(value)
        if not moved:
            # Where the M-step maximizes, a fall is rounding, or else reported.
            converged = (gain if monotone else abs(gain)) <= tol
            if monotone and gain < -rounding:
                warn(
                    f"the log-likelihood fell by {-gain:.3g} in iteration {len(trace) - 1}, more "
                    "than rounding explains.",
                    NumericalWarning,
                )
        stopped = not report(len(trace) - 1, value)
    return parameters, EMInfo(
        converged=converged,
        stopped=stopped,
        n_iter=len(trace) - 1,
        log_likelihood=value,
        trace=np.array(trace),
        n_reseeded=n_reseeded,
    )
