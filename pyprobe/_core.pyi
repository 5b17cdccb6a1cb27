# Kept by hand, checked against the built module by tests/test_core_stub.py.

import numpy as np
from numpy.typing import NDArray

from pyprobe.typing import FloatArray

class Cancelled(RuntimeError): ...

def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...

# directional

def vmf_sample(
    loc: FloatArray, concentration: NDArray[np.float64], n: int, key: int
) -> FloatArray: ...
def vmf_sample_marginal(
    dim: int, concentration: NDArray[np.float64], n: int, key: int
) -> NDArray[np.float64]: ...
def vmf_marginal_gradient(
    dim: int, concentration: NDArray[np.float64], complement: NDArray[np.float64]
) -> NDArray[np.float64]: ...
def vmf_mean_direction(
    x: FloatArray, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float, float, float, float]: ...
def vmf_one_minus_dot(x: FloatArray, loc: FloatArray) -> NDArray[np.float64]: ...
