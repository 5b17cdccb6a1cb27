"""Tall data made small: scores of rows, samples of them, and sketches."""

from pyprobe.sketching.glm import GLMCoreset, GLMCoresetCheck, GLMCoresetInfo

__all__ = ["GLMCoreset", "GLMCoresetCheck", "GLMCoresetInfo"]
