"""Tall data made small: scores of rows, samples of them, and sketches.

`leverage_scores`  how much each row alone says of a least squares problem
`lewis_weights`    the same for sums of powers other than two
`sample_rows`      few rows that stand for all
`GLMCoreset`       a small stand-in for the likelihood of a generalized linear model

`RowSample`, `LewisInfo`, `GLMCoresetInfo` and `GLMCoresetCheck` are what they return.
"""

from pyprobe.sketching.glm import GLMCoreset, GLMCoresetCheck, GLMCoresetInfo
from pyprobe.sketching.leverage import leverage_scores
from pyprobe.sketching.lewis import LewisInfo, lewis_weights
from pyprobe.sketching.sampling import RowSample, sample_rows

__all__ = [
    "GLMCoreset",
    "GLMCoresetCheck",
    "GLMCoresetInfo",
    "LewisInfo",
    "RowSample",
    "leverage_scores",
    "lewis_weights",
    "sample_rows",
]
