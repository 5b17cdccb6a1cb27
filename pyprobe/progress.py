"""Progress of long work: what a ``callback`` is given, and a bar made of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pyprobe.errors import MissingDependencyError

__all__ = ["Callback", "Progress", "bar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an algorithm has come.

    Attributes
    ----------
    step : int
        Steps finished.
    total : int
        The most steps there can be.
    value : float
        What the algorithm watches: a log-likelihood, an error; its documentation says which.
    elapsed : float
        Seconds since the start.
    """

    step: int
    total: int
    value: float
    elapsed: float


Callback: TypeAlias = Callable[[Progress], bool | None]
"""Called after each step; returning ``True`` stops the algorithm early."""


def ends(answer: object) -> bool:
    """Whether a callback's answer ends the work: ``True``, also NumPy's, and nothing else."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


class Reporter:
    """Tells a callback, if there is one, of each step; true where the work goes on.

    The time runs from when the reporter is made. The total may be set once it is known.
    """

    def __init__(self, callback: Callback | None, total: int) -> None:
        self.total = total
        self._callback, self._begin = callback, time.perf_counter()

    def __call__(self, step: int, value: float) -> bool:
        if self._callback is None:
            return True
        elapsed = time.perf_counter() - self._begin
        progress = Progress(step=step, total=self.total, value=value, elapsed=elapsed)
        return not ends(self._callback(progress))


def bar(description: str = "") -> Callback:
    """Return a callback that draws a progress bar with tqdm.

    Raises
    ------
    MissingDependencyError
        If tqdm is not installed (extra ``progress``).

    Examples
    --------
    >>> from pyprobe.progress import bar
    >>> callback = bar("mixture")  # then: VonMisesFisherMixture.fit(x, 8, callback=callback)
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingDependencyError(
            "progress.bar() needs tqdm: pip install 'pyprobe-rs[progress]'"
        ) from error
    line: tqdm | None = None

    def callback(progress: Progress) -> None:
        nonlocal line
        if line is None or progress.step <= line.n:
            line = tqdm(total=progress.total, desc=description)
        line.set_postfix_str(f"{progress.value:.6g}", refresh=False)
        line.update(progress.step - line.n)
        if progress.step == progress.total:
            line.close()

    return callback
