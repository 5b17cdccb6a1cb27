"""Door to Pyro: distributions that its models and guides use like its own.

`VonMisesFisher`          on the sphere of any dimension, with unbiased reparameterized gradients
`VonMisesFisherMixture`   a finite mixture of them
`SphericalUniform`        the uniform law on the sphere
`VonMisesFisherReparam`   makes a latent direction fit autoguides and NUTS
`unit_vector`             the constraint of a direction: their `support`, and for ``pyro.param``
`ConditionalBridge`       where a Schrödinger bridge of `pyprobe.transport` goes from a place
`glm_coreset_factor`      the likelihood of a coreset of `pyprobe.sketching`, in a model
`weighted_plate`          a plate whose rows count with weights
`as_distribution`         a fitted value of `pyprobe.directional` as one of these
`from_pyro`               and back
"""

from pyprobe.errors import MissingDependencyError

try:
    import pyro as _pyro  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        "pyprobe.pyro needs Pyro: pip install 'pyprobe-rs[pyro]'"
    ) from error

from pyprobe.pyro.bridge import ConditionalBridge
from pyprobe.pyro.constraints import unit_vector
from pyprobe.pyro.conversions import as_distribution, from_pyro
from pyprobe.pyro.coreset import glm_coreset_factor, weighted_plate
from pyprobe.pyro.distributions import SphericalUniform, VonMisesFisher, VonMisesFisherMixture
from pyprobe.pyro.reparam import VonMisesFisherReparam

__all__ = [
    "ConditionalBridge",
    "SphericalUniform",
    "VonMisesFisher",
    "VonMisesFisherMixture",
    "VonMisesFisherReparam",
    "as_distribution",
    "from_pyro",
    "glm_coreset_factor",
    "unit_vector",
    "weighted_plate",
]
