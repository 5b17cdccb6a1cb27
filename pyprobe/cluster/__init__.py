"""What clusterings and mixtures share: starts, and the loop of expectation and maximization.

`spherical_seeds`              rows of a matrix of unit vectors that seed a clustering
`merge_directions`             joins the nearest of too many clusters of directions
`expectation_maximization`     the EM loop, with its stopping rule, progress and record
"""

from pyprobe.cluster._em import EMInfo, Expectation, expectation_maximization
from pyprobe.cluster._seeding import merge_directions, spherical_seeds

__all__ = [
    "EMInfo",
    "Expectation",
    "expectation_maximization",
    "merge_directions",
    "spherical_seeds",
]
