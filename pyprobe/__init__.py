"""Probabilistic modelling on a Rust-accelerated core.

`special`      log-Bessel functions and their ratios, differentiable in argument and order
`metrics`      energy distance, maximum mean discrepancy, Wasserstein distances of samples
`directional`  von Mises-Fisher distributions and mixtures on the sphere
`transport`    entropic optimal transport: plans, divergences, barycenters
`sketching`    tall data made small: scores of rows, samples of them, sketches

The doors to other libraries are imported by name: `pyprobe.pyro`, `pyprobe.gpytorch`,
`pyprobe.sklearn`, `pyprobe.dask`. Importing `pyprobe` loads neither torch nor matplotlib.
"""

from typing import Any

from pyprobe._threads import get_num_threads, set_num_threads

__all__ = ["get_num_threads", "set_num_threads"]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # on demand: reading it takes longer than the rest of the import
        from importlib.metadata import version

        return version("pyprobe-rs")
    raise AttributeError(f"module 'pyprobe' has no attribute {name!r}")
