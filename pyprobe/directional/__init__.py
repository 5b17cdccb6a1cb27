"""Distributions of directions: unit vectors of any dimension.

`VonMisesFisher`          one mean direction, one concentration; closed-form fit and exact sampling
`VonMisesFisherMixture`   several of them, fitted by EM
`SphericalUniform`        no direction at all, and `rayleigh_test`, the test of it
"""

from pyprobe.directional.mixture import MixtureInfo, VonMisesFisherMixture
from pyprobe.directional.uniform import RayleighResult, SphericalUniform, rayleigh_test
from pyprobe.directional.vmf import VonMisesFisher, VonMisesFisherInfo

__all__ = [
    "MixtureInfo",
    "RayleighResult",
    "SphericalUniform",
    "VonMisesFisher",
    "VonMisesFisherInfo",
    "VonMisesFisherMixture",
    "rayleigh_test",
]
