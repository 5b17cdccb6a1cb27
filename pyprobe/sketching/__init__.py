"""Tall data made small: scores of rows, samples of them, and sketches.

`leverage_scores`  how much each row alone says of a least squares problem
`lewis_weights`    the same for sums of powers other than two
`sample_rows`      few rows that stand for all
`sketch_operator`  random linear maps to few rows: SRHT, sparse signs, CountSketch, normals
`sketched_lstsq`   least squares, exact or by a sketch with standard errors

`RowSample`, `LewisInfo`, `SketchOperator`, `SketchTranspose`, `LstsqResult` and `LstsqInfo` are
what they return.
"""

from pyprobe.sketching.leverage import leverage_scores
from pyprobe.sketching.lewis import LewisInfo, lewis_weights
from pyprobe.sketching.operators import SketchOperator, SketchTranspose, sketch_operator
from pyprobe.sketching.regression import LstsqInfo, LstsqResult, sketched_lstsq
from pyprobe.sketching.sampling import RowSample, sample_rows

__all__ = [
    "LewisInfo",
    "LstsqInfo",
    "LstsqResult",
    "RowSample",
    "SketchOperator",
    "SketchTranspose",
    "leverage_scores",
    "lewis_weights",
    "sample_rows",
    "sketch_operator",
    "sketched_lstsq",
]
