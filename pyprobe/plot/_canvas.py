"""What all pictures share: the axes that they are drawn into, and arrays for Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyprobe.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["as_array", "axes_of"]


def axes_of(ax: Axes | None, **options: Any) -> Axes:
    """Return axes that were given, or those of a new figure."""
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise MissingDependencyError(
            "pyprobe.plot needs Matplotlib: pip install 'pyprobe-rs[plot]'"
        ) from error
    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        raise TypeError(
            f"'ax' must be axes of Matplotlib; got {type(ax).__name__}. Of several that "
            "pyplot.subplots returns, pass one."
        )
    axes: Axes = pyplot.subplots(layout="constrained", **options)[1]
    return axes


def as_array(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return value.numpy(force=True) if hasattr(value, "numpy") else value
