"""Distances between samples, for NumPy arrays and torch tensors.

`energy_distance`       from all pairs of points; no parameter, no matrix of pairs in memory
`mmd`                   the maximum mean discrepancy: the same with a kernel and a bandwidth
`sliced_wasserstein`    the Wasserstein distance of projections on random lines; for large samples
`wasserstein`           the exact Wasserstein distance: by sorting on a line, else by assignment

All are differentiable in the points where they are smooth.
"""

from pyprobe.metrics.energy import energy_distance
from pyprobe.metrics.mmd import mmd
from pyprobe.metrics.wasserstein import sliced_wasserstein, wasserstein

__all__ = ["energy_distance", "mmd", "sliced_wasserstein", "wasserstein"]
