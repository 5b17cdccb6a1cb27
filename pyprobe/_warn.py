"""Warnings that point at the caller's line, however many of our own frames lie between."""

from __future__ import annotations

import inspect
import warnings

__all__ = ["warn"]


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning at the innermost line that is not in pyprobe."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith("pyprobe."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
