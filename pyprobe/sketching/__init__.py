"""Tall data made small: scores of rows, samples of them, and sketches.

`leverage_scores`      how much each row alone says of a least squares problem
`lewis_weights`        the same for sums of powers other than two
`lp_sensitivities`     the largest part that each row can have in such a sum
`total_sensitivity`    what they add up to
`sample_rows`          few rows that stand for all
`subspace_distortion`  by how much they do not
`GLMCoreset`           a small stand-in for the likelihood of a generalized linear model

`RowSample`, `LewisInfo`, `TotalSensitivity`, `GLMCoresetInfo` and `GLMCoresetCheck` are what they
return.
"""

from pyprobe.sketching.distortion import subspace_distortion
from pyprobe.sketching.glm import GLMCoreset, GLMCoresetCheck, GLMCoresetInfo
from pyprobe.sketching.leverage import leverage_scores
from pyprobe.sketching.lewis import LewisInfo, lewis_weights
from pyprobe.sketching.sampling import RowSample, sample_rows
from pyprobe.sketching.sensitivity import TotalSensitivity, lp_sensitivities, total_sensitivity

__all__ = [
    "GLMCoreset",
    "GLMCoresetCheck",
    "GLMCoresetInfo",
    "LewisInfo",
    "RowSample",
    "TotalSensitivity",
    "leverage_scores",
    "lewis_weights",
    "lp_sensitivities",
    "sample_rows",
    "subspace_distortion",
    "total_sensitivity",
]
