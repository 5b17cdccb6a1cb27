"""Entropic optimal transport, and Schrödinger bridges.

`sinkhorn`             the plan between two sets of weights for a matrix of costs
`sinkhorn_points`      the same for clouds of points, whose costs are never held
`sinkhorn_batch`       many small problems at once
`sinkhorn_divergence`  a distance between clouds: entropic transport without its bias
`sinkhorn_barycenter`  the mean of several weights on one set of points
`relative_epsilon`     a strength of the entropy in proportion to the costs

`LightSchrodingerBridge`  the random process between two samples, in closed form
`LightUnbalancedBridge`   the same where mass may stay behind, at a price
`suggest_epsilon`         a strength of its noise in proportion to squared distances
`select_n_components`     how many components it should have

`SinkhornResult`, `SinkhornDivergence`, `SinkhornBarycenter`, `GaussianMixtureBatch`, `BridgeFit`,
`UnbalancedFit`, `KLEstimate` and `ComponentSelection` are what they return.

`TorchBridge` is the module that `LightSchrodingerBridge.to_torch` returns, and `BridgeLaw` what its
methods give. They need torch and load it when they are asked for by name; a star leaves them out.
"""

from typing import TYPE_CHECKING, Any

from pyprobe.transport._bridge_costs import KLEstimate
from pyprobe.transport._bridge_fit import BridgeFit
from pyprobe.transport._unbalanced_fit import UnbalancedFit
from pyprobe.transport.barycenter import SinkhornBarycenter, sinkhorn_barycenter
from pyprobe.transport.batch import sinkhorn_batch
from pyprobe.transport.bridge import LightSchrodingerBridge
from pyprobe.transport.divergence import SinkhornDivergence, sinkhorn_divergence
from pyprobe.transport.epsilon import suggest_epsilon
from pyprobe.transport.gaussian_mixture import GaussianMixtureBatch
from pyprobe.transport.points import sinkhorn_points
from pyprobe.transport.selection import ComponentSelection, select_n_components
from pyprobe.transport.sinkhorn import SinkhornResult, relative_epsilon, sinkhorn
from pyprobe.transport.unbalanced_bridge import LightUnbalancedBridge

if TYPE_CHECKING:
    from pyprobe.transport._bridge_torch import TorchBridge as TorchBridge
    from pyprobe.transport._bridge_torch_law import BridgeLaw as BridgeLaw

__all__ = [
    "BridgeFit",
    "ComponentSelection",
    "GaussianMixtureBatch",
    "KLEstimate",
    "LightSchrodingerBridge",
    "LightUnbalancedBridge",
    "SinkhornBarycenter",
    "SinkhornDivergence",
    "SinkhornResult",
    "UnbalancedFit",
    "relative_epsilon",
    "select_n_components",
    "sinkhorn",
    "sinkhorn_barycenter",
    "sinkhorn_batch",
    "sinkhorn_divergence",
    "sinkhorn_points",
    "suggest_epsilon",
]


def __getattr__(name: str) -> Any:
    if name == "TorchBridge":
        from pyprobe.transport._bridge_torch import TorchBridge

        return TorchBridge
    if name == "BridgeLaw":
        from pyprobe.transport._bridge_torch_law import BridgeLaw

        return BridgeLaw
    raise AttributeError(f"module 'pyprobe.transport' has no attribute {name!r}")
