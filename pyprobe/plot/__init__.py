"""Pictures of fitted models, drawn with Matplotlib.

Every function draws into the axes it is given, or into a new figure, and returns the axes. None
shows the figure, changes a style, or computes anything that the model does not already know.
"""

from pyprobe.plot.bridge import bridge_marginals, bridge_paths, bridge_plans, bridge_potential
from pyprobe.plot.directional import concentration_profile, mixture_topics, sphere_density
from pyprobe.plot.transport import convergence, transport_plan

__all__ = [
    "bridge_marginals",
    "bridge_paths",
    "bridge_plans",
    "bridge_potential",
    "concentration_profile",
    "convergence",
    "mixture_topics",
    "sphere_density",
    "transport_plan",
]
