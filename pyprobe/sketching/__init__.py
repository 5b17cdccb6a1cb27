"""Tall data made small: scores of rows, samples of them, and sketches.

`leverage_scores`      how much each row alone says of a least squares problem
`lewis_weights`        the same for sums of powers other than two
`lp_sensitivities`     the largest part that each row can have in such a sum
`total_sensitivity`    what they add up to
`sample_rows`          few rows that stand for all
`StreamingCoreset`     the same of a stream that is read once
`subspace_distortion`  by how much they do not
`sketch_operator`      random linear maps to few rows: SRHT, sparse signs, CountSketch, normals
`sketched_lstsq`       least squares, exact or by a sketch with standard errors
`GLMCoreset`           a small stand-in for the likelihood of a generalized linear model

`RowSample`, `LewisInfo`, `TotalSensitivity`, `SketchOperator`, `SketchTranspose`, `LstsqResult`,
`LstsqInfo`, `GLMCoresetInfo` and `GLMCoresetCheck` are what they return.
"""

from pyprobe.sketching.distortion import subspace_distortion
from pyprobe.sketching.glm import GLMCoreset, GLMCoresetCheck, GLMCoresetInfo
from pyprobe.sketching.leverage import leverage_scores
from pyprobe.sketching.lewis import LewisInfo, lewis_weights
from pyprobe.sketching.operators import SketchOperator, SketchTranspose, sketch_operator
from pyprobe.sketching.regression import LstsqInfo, LstsqResult, sketched_lstsq
from pyprobe.sketching.sampling import RowSample, sample_rows
from pyprobe.sketching.sensitivity import TotalSensitivity, lp_sensitivities, total_sensitivity
from pyprobe.sketching.streaming import StreamingCoreset

__all__ = [
    "GLMCoreset",
    "GLMCoresetCheck",
    "GLMCoresetInfo",
    "LewisInfo",
    "LstsqInfo",
    "LstsqResult",
    "RowSample",
    "SketchOperator",
    "SketchTranspose",
    "StreamingCoreset",
    "TotalSensitivity",
    "leverage_scores",
    "lewis_weights",
    "lp_sensitivities",
    "sample_rows",
    "sketch_operator",
    "sketched_lstsq",
    "subspace_distortion",
    "total_sensitivity",
]
