# Kept by hand, checked against the built module by tests/test_core_stub.py.

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyprobe.typing import FloatArray

class Cancelled(RuntimeError): ...

def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...

# special

def bessel(function: int, mask: int, v: FloatArray, x: FloatArray) -> Any: ...
def bessel_at(function: int, mask: int, v: float, x: float) -> float: ...
def bessel_ratio_inverse(
    v: FloatArray, r: FloatArray, complement: FloatArray | None = None
) -> FloatArray: ...
def special_tables() -> dict[str, list[float]]: ...

# metrics: samples are two matrices of one float type, with a vector of weights each

def pair_sums(
    samples: tuple[FloatArray, FloatArray],
    weights: tuple[NDArray[np.float64], NDArray[np.float64]],
    number: int,
    bandwidth: float,
) -> tuple[float, float, float]: ...
def pair_sums_gradient(
    samples: tuple[FloatArray, FloatArray],
    weights: tuple[NDArray[np.float64], NDArray[np.float64]],
    number: int,
    bandwidth: float,
    within: float,
    between: float,
) -> tuple[FloatArray, NDArray[np.float64]]: ...

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

# cluster and mixtures: samples are a matrix in C order, or a sparse one row by row as
# (indptr, indices, values, n_columns), with its transpose where an M-step follows

_Compressed: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.uint32], FloatArray, int]
_Samples: TypeAlias = FloatArray | tuple[_Compressed, _Compressed | None]
_Vector: TypeAlias = NDArray[np.float64]
_Parameters: TypeAlias = tuple[NDArray[np.float64], _Vector, _Vector]

def check_unit_rows(x: _Samples) -> None: ...
def spherical_seeds(x: _Samples, k: int, n_rounds: int, key: int) -> list[int]: ...
def merge_directions(resultants: NDArray[np.float64], k: int) -> list[int]: ...
def vmf_mixture_step(
    x: _Samples, parameters: _Parameters, hard: bool
) -> tuple[NDArray[np.float64], _Vector, _Vector, _Vector, float, int]: ...
def vmf_mixture_log_prob(x: _Samples, parameters: _Parameters) -> _Vector: ...
def vmf_mixture_responsibilities(x: _Samples, parameters: _Parameters) -> NDArray[np.float64]: ...
def vmf_mixture_labels(x: _Samples, parameters: _Parameters) -> NDArray[np.uintp]: ...

# transport: costs are a matrix in C order, or (x, y, metric); a plan is (cost, epsilon, phi, gamma),
# exp(phi_i + gamma_j - cost_ij / epsilon)

_Costs: TypeAlias = FloatArray | tuple[FloatArray, FloatArray, str]
_Plan: TypeAlias = tuple[_Costs, float, _Vector, _Vector]

def sinkhorn(
    cost: _Costs,
    a: _Vector,
    b: _Vector,
    epsilon: float,
    penalties: tuple[float, float],
    *,
    method: str,
    tol: float,
    max_iter: int,
    max_newton: int,
    relaxation: bool,
    memory: tuple[int, int],
    sns: tuple[int, float] | None = None,
    start: tuple[_Vector, _Vector] | None = None,
    watch: Callable[[int, float], bool] | None = None,
) -> dict[str, Any]: ...
def sinkhorn_batch(
    costs: list[FloatArray],
    a: list[_Vector],
    b: list[_Vector],
    epsilon: list[float],
    penalties: tuple[float, float],
    *,
    method: str,
    tol: float,
    max_iter: int,
    max_newton: int,
    relaxation: bool,
    memory: tuple[int, int],
) -> list[dict[str, Any]]: ...
def sinkhorn_symmetric(
    cost: _Costs,
    a: _Vector,
    epsilon: float,
    penalty: float,
    *,
    tol: float,
    max_iter: int,
    start: _Vector | None = None,
) -> dict[str, Any]: ...
def transport_plan(plan: _Plan) -> FloatArray: ...
def transport_sparse_plan(
    plan: _Plan, threshold: float
) -> tuple[NDArray[np.uintp], NDArray[np.uintp], _Vector]: ...
def transport_sums(plan: _Plan) -> tuple[_Vector, _Vector, float]: ...
def transport_position_gradient(
    plan: _Plan,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def transport_apply(
    plan: _Plan, v: NDArray[np.float64], transpose: bool
) -> NDArray[np.float64]: ...
def transport_rounded_value(
    plan: _Plan, a: _Vector, b: _Vector, rounding: tuple[_Vector, _Vector, _Vector, _Vector]
) -> float: ...
def transport_solve_adjoint(
    plan: _Plan,
    a: _Vector,
    b: _Vector,
    penalties: tuple[float, float],
    rows: _Vector,
    columns: _Vector,
) -> tuple[_Vector, _Vector]: ...
def transport_log_kernel_sums(
    cost: _Costs, epsilon: float, v: NDArray[np.float64]
) -> NDArray[np.float64]: ...

# light Schrödinger bridges: the features ("spherical", "diagonal" or "full"), slopes (features, k)
# and offsets (k,) of the logits; log-weights, shifts, scales, epsilon, origin and velocity of what
# moves; the eigenvectors (k, d, d) of scales, one a column, unless these are the axes

_Logits: TypeAlias = tuple[str, NDArray[np.float64], _Vector]
_Frame: TypeAlias = tuple[
    _Vector, NDArray[np.float64], NDArray[np.float64], float, _Vector, _Vector
]
_Bases: TypeAlias = NDArray[np.float64] | None

def bridge_pass(
    x: NDArray[np.float64], weights: _Vector, logits: _Logits, moments: bool, gram: bool
) -> tuple[float, _Vector, NDArray[np.float64], NDArray[np.float64]]: ...
def bridge_log_sums(x: NDArray[np.float64], logits: _Logits) -> _Vector: ...
def bridge_log_weights(
    x: NDArray[np.float64], frame: _Frame, t: float
) -> tuple[NDArray[np.float64], _Vector]: ...
def bridge_log_sums_at(
    x: NDArray[np.float64], frame: _Frame, bases: _Bases, t: float
) -> _Vector: ...
def bridge_log_sums_at_times(
    x: NDArray[np.float64], frame: _Frame, bases: _Bases, times: _Vector
) -> _Vector: ...
def bridge_drift(
    x: NDArray[np.float64], frame: _Frame, bases: _Bases, t: float
) -> NDArray[np.float64]: ...
def bridge_drift_at_times(
    x: NDArray[np.float64], frame: _Frame, times: _Vector
) -> NDArray[np.float64]: ...
def bridge_log_density(
    x: NDArray[np.float64],
    starts: NDArray[np.float64],
    frame: _Frame,
    bases: _Bases,
    times: tuple[float, float],
) -> _Vector: ...
def bridge_log_density_slopes(
    x: NDArray[np.float64],
    starts: NDArray[np.float64],
    frame: _Frame,
    bases: _Bases,
    times: tuple[float, float],
) -> tuple[_Vector, NDArray[np.float64]]: ...
def bridge_sample(
    x: NDArray[np.float64], frame: _Frame, times: tuple[float, float], n_draws: int, key: int
) -> NDArray[np.float64]: ...
def brownian_bridges(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    times: _Vector,
    epsilon: float,
    key: int,
) -> _Vector: ...

# tall data: a basis is factors (d,) of the columns or a matrix (d, r) that rows are multiplied by

_Basis: TypeAlias = NDArray[np.float64] | None

def rows_gram(
    x: _Samples, basis: _Basis = None, weights: _Vector | None = None
) -> NDArray[np.float64]: ...
def rows_leaf() -> int: ...
def column_maxima(x: _Samples) -> _Vector: ...
def rows_squared_norms(x: _Samples, transform: NDArray[np.float64]) -> _Vector: ...
def lewis_step(
    x: _Samples, basis: _Basis, transform: NDArray[np.float64], log_w: _Vector, p: float, c: float
) -> tuple[_Vector, NDArray[np.float64], float]: ...
def pair_power_sums(
    x: _Samples,
    transform: NDArray[np.float64],
    points: NDArray[np.float64],
    weights: _Vector,
    p: float,
) -> _Vector: ...
def power_sums(
    x: _Samples,
    directions: NDArray[np.float64],
    weights: _Vector | None,
    p: float,
) -> _Vector: ...
def exact_sensitivities(
    points: NDArray[np.float64],
    weights: _Vector,
    targets: NDArray[np.float64],
    p: float,
    tol: float,
    max_iter: int,
    callback: Any,
) -> tuple[_Vector, _Vector]: ...
def row_uniforms(key: int, start: int, n: int) -> _Vector: ...

# a level of probabilities: a power of two, and what is left of the factor

_Level: TypeAlias = tuple[float, float]

def water_level(scores: _Vector, size: float) -> _Level | None: ...
def row_probabilities(scores: _Vector, level: _Level) -> _Vector: ...
def bernoulli_rows(scores: _Vector, level: _Level, key: int, start: int) -> NDArray[np.int64]: ...
def pivotal_rows(probabilities: _Vector, key: int) -> NDArray[np.int64]: ...

# sketches: kind, numbers of rows, of input rows and of entries a column, key, rows of an SRHT

_Sketch: TypeAlias = tuple[str, int, int, int, int, NDArray[np.uint64] | None]

def sketch_apply(sketch: _Sketch, x: _Samples, start: int) -> NDArray[np.float64]: ...
def sketch_apply_transpose(sketch: _Sketch, y: NDArray[np.float64]) -> NDArray[np.float64]: ...
def sketch_srht_rows(m: int, n: int, key: int) -> NDArray[np.uint64]: ...
def sketch_srht_signs(n: int, key: int) -> _Vector: ...
def sketch_sparse_columns(
    sketch: _Sketch, start: int, stop: int
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]: ...
def sketch_gaussian_columns(sketch: _Sketch, start: int, stop: int) -> NDArray[np.float64]: ...
def sketch_walsh_hadamard(x: NDArray[np.float64]) -> NDArray[np.float64]: ...
def sketch_normal_equations(
    x: _Samples, scales: _Vector | None, b: NDArray[np.float64]
) -> NDArray[np.float64]: ...
def sketch_residual(
    x: _Samples, b: NDArray[np.float64], beta: NDArray[np.float64]
) -> tuple[NDArray[np.float64], _Vector]: ...
