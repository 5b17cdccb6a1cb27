"""Entropic optimal transport.

`sinkhorn`           the plan between two sets of weights for a matrix of costs
`SinkhornResult`     what it returns: potentials, values, the plan on demand
`relative_epsilon`   a strength of the entropy in proportion to the costs
"""

from pyprobe.transport.sinkhorn import SinkhornResult, relative_epsilon, sinkhorn

__all__ = ["SinkhornResult", "relative_epsilon", "sinkhorn"]
