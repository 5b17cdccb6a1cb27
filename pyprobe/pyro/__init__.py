"""Door to Pyro: distributions on the sphere that its models and guides use like its own.

`VonMisesFisher`          any dimension and batch shape, with unbiased reparameterized gradients
`VonMisesFisherMixture`   a finite mixture of them
`SphericalUniform`        the uniform law
`VonMisesFisherReparam`   makes a latent direction fit autoguides and NUTS
`unit_vector`             the constraint: their `support`, and that of a direction's ``pyro.param``
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

from pyprobe.pyro.constraints import unit_vector
from pyprobe.pyro.conversions import as_distribution, from_pyro
from pyprobe.pyro.distributions import SphericalUniform, VonMisesFisher, VonMisesFisherMixture
from pyprobe.pyro.reparam import VonMisesFisherReparam

__all__ = [
    "SphericalUniform",
    "VonMisesFisher",
    "VonMisesFisherMixture",
    "VonMisesFisherReparam",
    "as_distribution",
    "from_pyro",
    "unit_vector",
]
