"""What the stops of the tour share: headings, tables, figures, a clock."""

from __future__ import annotations

import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Tour", "timed"]

_WIDTH = 96

T = TypeVar("T")


class Tour:
    """Prints to the terminal and saves figures into one folder.

    Parameters
    ----------
    out : Path
        The folder; made by `prepare`, or when the first figure is saved.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._figures: list[Path] = []
        self._note = ""

    def prepare(self) -> None:
        """Make the folder and see that files can be written there, before anything is computed."""
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError:
            return  # nothing will be drawn
        self._out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._out):
            pass

    def heading(self, text: str) -> None:
        """Start a stop."""
        print(f"\n{text}\n{'=' * len(text)}", flush=True)

    def say(self, text: str) -> None:
        """Print a paragraph."""
        print("\n" + textwrap.fill(" ".join(text.split()), _WIDTH), flush=True)

    def table(self, align: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; `align` holds ``<`` or ``>`` for each column."""
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        print()
        for row in (header, ["-" * width for width in widths], *rows):
            cells = zip(row, align, widths, strict=True)
            print("  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip())

    def figure(
        self, name: str, draw: Callable[[Axes], object], *, size: tuple[float, float] = (7, 4.5)
    ) -> None:
        """Save what `draw` draws as a PNG file."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            self._note = (
                "No figure was drawn: they need Matplotlib, pip install 'pyprobe-rs[plot]'."
            )
            return
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        self._out.mkdir(parents=True, exist_ok=True)
        path = self._out / f"{name}.png"
        figure.savefig(path, dpi=150)
        self._figures.append(path)

    def finish(self, seconds: float) -> None:
        """Name the figures and the time."""
        if self._figures:
            self.say("Figures: " + ", ".join(map(str, self._figures)))
        if self._note:
            self.say(self._note)
        self.say(f"The tour took {seconds:.0f} s.")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns, and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start
