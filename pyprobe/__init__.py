"""Probabilistic modelling on a Rust-accelerated core.

`special`      log-Bessel functions and their ratios, differentiable in argument and order
`directional`  von Mises-Fisher distributions and mixtures on the sphere

The doors to other libraries are imported by name: `pyprobe.pyro`, `pyprobe.gpytorch`,
`pyprobe.sklearn`. Importing `pyprobe` loads neither torch nor matplotlib.
"""

from pyprobe._threads import get_num_threads, set_num_threads

__all__ = ["get_num_threads", "set_num_threads"]
