"""A tour of pyprobe on real data that is already on the machine: ``python -m pyprobe``.

Each stop is a function of a `Tour`, on which it prints tables and draws figures. A new stop is one
function, named in `STOPS`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from pyprobe.demo._tour import Tour
from pyprobe.demo.bridge import recolorings_of_a_photograph
from pyprobe.demo.directional import concentration_beside_scipy, topics_of_docstrings
from pyprobe.demo.sketching import regression_on_pixels
from pyprobe.demo.transport import colors_of_photographs
from pyprobe.errors import MissingDependencyError

__all__ = ["STOPS", "Tour", "main"]

STOPS: dict[str, Callable[[Tour], None]] = {
    "topics": topics_of_docstrings,
    "concentration": concentration_beside_scipy,
    "colors": colors_of_photographs,
    "recolorings": recolorings_of_a_photograph,
    "regression": regression_on_pixels,
}
"""The stops by name, in order. The first line of a stop's docstring is its heading."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tour, or the stops named in `arguments`, and return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; default that of the process.

    Returns
    -------
    int
        0, whether or not a stop had to be left out for want of an optional package.

    Examples
    --------
    >>> from pyprobe.demo import main
    >>> main(["--list"])
    topics         Topics in the documentation of Python, NumPy and SciPy
    concentration  One von Mises-Fisher fit, beside SciPy's
    colors         Colors of one photograph for another, beside POT
    recolorings    Several recolorings of one photograph: a Schrödinger bridge, beside Sinkhorn
    regression     Bayesian regression in Pyro, on all rows and on a hundredth of them
    0
    """
    headings = {
        name: (stop.__doc__ or name).splitlines()[0].rstrip(".") for name, stop in STOPS.items()
    }
    parser = argparse.ArgumentParser(prog="python -m pyprobe", description="A tour of pyprobe.")
    parser.add_argument("stops", nargs="*", metavar="STOP", help="default: all; see --list")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("figures"),
        help="folder for the figures (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"pyprobe {version('pyprobe-rs')}")
    parser.add_argument("--list", action="store_true", help="name the stops and leave")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.stops if name not in STOPS]:
        parser.error(f"no stop is called {unknown[0]!r}; choose from {', '.join(STOPS)}")
    if options.list:
        for name, heading in headings.items():
            print(f"{name:<14} {heading}")
        return 0

    start = time.perf_counter()
    tour = Tour(options.out)
    try:
        tour.prepare()
        for name in options.stops or STOPS:
            tour.heading(headings[name])
            try:
                STOPS[name](tour)
            except MissingDependencyError as error:
                tour.say(f"left out: {error}")
    except OSError as error:
        parser.error(f"--out: cannot write to {options.out}: {error.strerror}")
    tour.finish(time.perf_counter() - start)
    return 0
