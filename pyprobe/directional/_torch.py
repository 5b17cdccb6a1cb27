r"""Von Mises-Fisher mathematics on torch tensors: batches, any device, derivatives.

With :math:`\nu = d/2 - 1`, the uniform density :math:`U_d`, :math:`G(\kappa) = \log {}_0F_1(; \nu +
1; \kappa^2 / 4)` and its slope :math:`A = I_{\nu+1}(\kappa) / I_\nu(\kappa)`, the density is
:math:`\log p(x) = \kappa \mu \cdot x - G(\kappa) + \log U_d`.

Each quantity is arranged so that no two large terms cancel: G itself where the concentration is
small, :math:`\kappa - G` and :math:`1 - A` where it is large. What depends on the concentration
alone is computed in float64 and returned in the dtype that came.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Size, Tensor

from pyprobe._autograd import op
from pyprobe.directional import _numpy
from pyprobe.directional._mixture_torch import check_unit_rows
from pyprobe.special import bessel_ratio, bessel_ratio_complement, log_hyp0f1, log_ive

__all__ = [
    "draw",
    "entropy",
    "kl_divergence",
    "kl_to_uniform",
    "log_prob",
    "log_prob_components",
    "log_uniform",
    "marginal_gradient",
    "mean_direction",
    "mean_direction_twin",
    "mean_resultant_length",
    "sample",
    "variances",
]


def log_uniform(dim: int) -> float:
    """Return the logarithm of the uniform density on the unit sphere of R^dim."""
    return math.lgamma(dim / 2) - math.log(2) - dim / 2 * math.log(math.pi)


def log_prob(x: Tensor, loc: Tensor, concentration: Tensor) -> Tensor:
    """Return the log-density at `x`, shape (..., d); all arguments broadcast."""
    dim = x.shape[-1]
    # kappa mu . x = kappa - kappa |x - mu|^2 / 2: near the mode the small term is computed as such.
    fall = -0.5 * concentration * (x - loc).square().sum(-1)
    return fall + (_peak((dim,), concentration) + log_uniform(dim))


def log_prob_components(x: Tensor, locs: Tensor, concentrations: Tensor) -> Tensor:
    """Return the log-densities (..., k) at `x`, (..., d), of k components: locs (..., k, d)."""
    # One matrix product; the differences of all pairs would be n k d numbers.
    dots = torch.einsum("...d,...kd->...k", x, locs)
    height = _peak((x.shape[-1],), concentrations) + log_uniform(x.shape[-1])
    return concentrations * (dots - 1) + height


def mean_resultant_length(concentration: Tensor, dim: int) -> Tensor:
    """Return A, the length of the mean vector."""
    return _ratio(concentration, dim)


def variances(concentration: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the variances of a coordinate across the mean direction and of the one along it."""
    # A / kappa = (1 - A^2 - A') / (d - 1), the ratio's differential equation: regular at 0.
    along = _ratio_slope(concentration, dim)
    one_minus_square = _complement(concentration, dim) * (1 + _ratio(concentration, dim))
    return (one_minus_square - along) / (dim - 1), along


def entropy(concentration: Tensor, dim: int) -> Tensor:
    """Return the differential entropy in nats."""
    return -kl_to_uniform(concentration, dim) - log_uniform(dim)


def kl_to_uniform(concentration: Tensor, dim: int) -> Tensor:
    """Return the Kullback-Leibler divergence from the uniform distribution, kappa A - G."""
    return _kl_to_uniform((dim,), concentration)


def kl_divergence(
    loc: Tensor, concentration: Tensor, other_loc: Tensor, other_concentration: Tensor
) -> Tensor:
    """Return the Kullback-Leibler divergence of a first distribution from another one."""
    dim = loc.shape[-1]
    # 1 - mu . mu' without cancellation; the rest is the Bregman divergence of G.
    apart = 0.5 * (loc - other_loc).square().sum(-1)
    turned = other_concentration * mean_resultant_length(concentration, dim) * apart
    return turned + _bregman((dim,), concentration, other_concentration)


def draw(loc: Tensor, concentration: Tensor, shape: tuple[int, ...], key: int) -> Tensor:
    """Draw tensors of shape (*shape, *batch, d), where batch is that of the parameters."""
    if loc.device.type == "cpu":
        parameters = loc.numpy(force=True), concentration.numpy(force=True)
        return torch.from_numpy(_numpy.draw(*parameters, shape, key))
    batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
    with torch.random.fork_rng([loc.device], device_type=loc.device.type):
        torch.manual_seed(key % 2**63)
        return sample(loc, concentration, (*shape, *batch))[0]


def mean_direction(
    x: Tensor, weights: npt.NDArray[np.float64] | None
) -> tuple[Tensor | npt.NDArray[np.float64], float, float, float, float]:
    """Return the mean direction, R, 1 - R, the total weight and the effective number of rows.

    CPU tensors go to the Rust kernel, others to its twin.
    """
    if x.device.type == "cpu":
        return _numpy.mean_direction(np.ascontiguousarray(x.numpy(force=True)), weights)
    return mean_direction_twin(x, weights)


@torch.no_grad()
def mean_direction_twin(
    x: Tensor, weights: npt.NDArray[np.float64] | None
) -> tuple[Tensor, float, float, float, float]:
    """Return what `mean_direction` does, on any device."""
    check_unit_rows(x)
    rows = x.double()
    n = len(rows)
    scale = 1.0
    if weights is None:
        w = rows.new_ones(n)
    else:
        # A power of two near the largest weight: squares neither overflow nor vanish.
        scale = 2.0 ** (int(np.frexp(weights.max())[1]) - 1)
        w = torch.as_tensor(weights / scale, device=x.device)
    total = w.sum()
    mean = (w @ rows) / total
    length = torch.linalg.vector_norm(mean)
    loc = mean / length if length > 0 else torch.eye(1, x.shape[1], device=x.device)[0].double()
    complement = 1 - length
    if complement < 1e-3:  # else 1 - R has kept its digits
        complement = 0.5 * (w @ (rows - loc).square().sum(1)) / total
        # The rounding of loc must not pass for a spread of rows that are all the same.
        if bool(((rows == rows[w.argmax()]).all(1) | (w == 0)).all()):
            complement = complement * 0
    effective = total**2 / w.square().sum()
    total_weight = scale * float(total)
    return loc, min(float(length), 1.0), float(complement), total_weight, float(effective)


def sample(loc: Tensor, concentration: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Draw x of shape (*shape, d), and 1 - loc . x in float64; no gradients.

    The twin of the Rust sampler, from torch's default generator of the device: the same law, other
    draws. `loc` and `concentration` broadcast to `shape`.
    """
    shape = Size(shape)
    with torch.no_grad():
        complement = _sample_complement(concentration.double().expand(shape), loc.shape[-1])
        normal = torch.randn(*shape, loc.shape[-1], dtype=loc.dtype, device=loc.device)
        # Twice: what is left along loc after the first projection is rounding, and counts where
        # the tangent is short.
        for _ in range(2):
            normal = normal - (normal * loc).sum(-1, keepdim=True) * loc
        tangent = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
        radius = (complement * (2 - complement)).sqrt().to(loc.dtype)
        along = (1 - complement).to(loc.dtype)
        return along.unsqueeze(-1) * loc + radius.unsqueeze(-1) * tangent, complement


def marginal_gradient(complement: Tensor, concentration: Tensor, dim: int) -> Tensor:
    """Return dw/dkappa at w = 1 - complement, with its value of the distribution function held.

    It is the integral of (t - A) f(t) / f(w) over t from w to 1 (Figurnov, Mohamed and Mnih 2018),
    in the angle, over the tail on the angle's side of the mean; float64, no gradients. The twin of
    the Rust kernel.
    """
    with torch.no_grad():
        complement = complement.double()
        kappa = concentration.double().expand(complement.shape)
        mean = _complement(kappa, dim)
        # Angles beyond a right one are seen from the other pole.
        far = complement > 1
        sign = torch.where(far, -1.0, 1.0)
        upper = ~far & (complement >= mean)
        kappa = sign * kappa
        mean = torch.where(far, 2 - mean, mean)
        u = torch.where(far, 2 - complement, complement).clamp_min(torch.finfo(mean.dtype).tiny)
        direction = torch.where(upper, 1.0, -1.0)
        half_sin, half_cos = (u / 2).sqrt(), (1 - u / 2).sqrt()
        sin, cos = 2 * half_sin * half_cos, 1 - u
        angle = 2 * torch.atan2(half_sin, half_cos)
        # The log-density falls by slope l + curvature l^2 / 2 or more: cut at a factor e^-45.
        slope = ((dim - 2) * cos / sin - kappa * sin).abs()
        curvature = dim - 2 + 0.5 * (kappa * cos).clamp_min(0)
        cut = 90 / (slope + (slope.square() + 90 * curvature).sqrt())
        length = torch.minimum(cut, torch.where(upper, math.pi - angle, angle))
        total = torch.zeros_like(u)
        for node, weight in zip(*_gauss_legendre(32), strict=True):
            half = 0.5 * (angle + direction * length * node)
            s, c = half.sin(), half.cos()
            v = 2 * s * s
            log_ratio = kappa * (u - v) + (dim - 2) * (s * c / (half_sin * half_cos)).log()
            total += weight * (mean - v) * log_ratio.exp()
        return -direction * length * sin * total


def _sample_complement(concentration: Tensor, dim: int) -> Tensor:
    """Draw 1 - w by rejection (Ulrich 1984; Wood 1994); at least 0.66 of the proposals pass."""
    m = dim - 1
    b = m / (2 * concentration + (4 * concentration.square() + m * m).sqrt())
    at_mode = 2 * b / (1 + b)  # 1 - x0, with the mode x0 of the envelope
    beta = torch.distributions.Beta(
        torch.full_like(b, m / 2), torch.full_like(b, m / 2), validate_args=False
    )
    drawn = torch.full_like(b, math.nan)
    while (waiting := drawn.isnan()).any():
        z = beta.sample()
        proposal = 2 * b * z / (1 - (1 - b) * z)
        # (1 - x0 w) / (1 - x0^2)
        quotient = (at_mode + (1 - at_mode) * proposal) / (at_mode * (2 - at_mode))
        accept = concentration * (at_mode - proposal) + m * quotient.log()
        drawn = torch.where(waiting & (accept >= torch.rand_like(b).log()), proposal, drawn)
    return drawn


@functools.cache
def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Return the nodes and weights of the n-point rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (0.5 + 0.5 * nodes).tolist(), (0.5 * weights).tolist()


# The special functions at the order of a dimension.


def _ratio(kappa: Tensor, dim: int) -> Tensor:
    """Return A."""
    return cast(Tensor, bessel_ratio(dim / 2 - 1, kappa))


def _ratio_slope(kappa: Tensor, dim: int) -> Tensor:
    """Return A', without the cancellation in 1 - A^2 - (d - 1) A / kappa."""
    return cast(Tensor, bessel_ratio(dim / 2 - 1, kappa, derivative=(0, 1)))


def _complement(kappa: Tensor, dim: int) -> Tensor:
    """Return 1 - A."""
    return cast(Tensor, bessel_ratio_complement(dim / 2 - 1, kappa))


def _cumulant(kappa: Tensor, dim: int) -> Tensor:
    """Return G."""
    # Where the square would overflow, G is kappa to far beyond the last digit.
    below = kappa.clamp_max(1e150)
    value = cast(Tensor, log_hyp0f1(dim / 2, below.square() / 4))
    return torch.where(kappa > below, kappa, value)


def _mode_height(kappa: Tensor, dim: int) -> Tensor:
    """Return kappa - G: the log-density at the mode, relative to the uniform one."""
    order = dim / 2 - 1
    scaled = cast(Tensor, log_ive(order, kappa))
    far = order * (kappa / 2).log() - math.lgamma(dim / 2) - scaled
    return torch.where(kappa > dim, far, kappa - _cumulant(kappa, dim))


# Differentiable functions of the concentration: kernels, which see plain tensors, and the partial
# derivatives that go with them.


def _peak_kernel(
    parameters: tuple[int, ...], _wanted: tuple[bool, ...], concentration: Tensor
) -> list[Tensor]:
    """Return the height of the mode."""
    return [_mode_height(concentration.double(), *parameters).to(concentration.dtype)]


def _peak_partial(parameters: tuple[int, ...], _index: int, concentration: Tensor) -> Tensor:
    return _complement(concentration, *parameters)


def _kl_kernel(
    parameters: tuple[int, ...], _wanted: tuple[bool, ...], concentration: Tensor
) -> list[Tensor]:
    """Return the divergence from the uniform distribution."""
    (dim,) = parameters
    kappa = concentration.double()
    near = kappa * _ratio(kappa, dim) - _cumulant(kappa, dim)
    far = _mode_height(kappa, dim) - kappa * _complement(kappa, dim)
    return [torch.where(kappa > dim, far, near).to(concentration.dtype)]


def _kl_partial(parameters: tuple[int, ...], _index: int, concentration: Tensor) -> Tensor:
    return concentration * _ratio_slope(concentration, *parameters)


def _bregman_kernel(
    parameters: tuple[int, ...], _wanted: tuple[bool, ...], first: Tensor, second: Tensor
) -> list[Tensor]:
    """Return the Bregman divergence G(second) - G(first) - A(first) (second - first)."""
    (dim,) = parameters
    kappa, other = torch.broadcast_tensors(first.double(), second.double())
    step = other - kappa
    small = _cumulant(other, dim) - _cumulant(kappa, dim) - step * _ratio(kappa, dim)
    large = _mode_height(kappa, dim) - _mode_height(other, dim) + step * _complement(kappa, dim)
    # Near one another: the integral of (second - k) A'(k), whose poles lie on the imaginary axis,
    # at least the order away from 0. Ten nodes reach rounding.
    integral = torch.zeros_like(small)
    for node, weight in zip(*_gauss_legendre(10), strict=True):
        integral += weight * (1 - node) * _ratio_slope(kappa + node * step, dim)
    least = torch.full_like(step, max(dim / 2 - 1, 1.0))
    near = step.abs() <= 0.5 * torch.hypot(torch.minimum(kappa, other), least)
    value = torch.where(near, step.square() * integral, torch.where(kappa > dim, large, small))
    return [value.to(first.dtype)]


def _bregman_partial(
    parameters: tuple[int, ...], index: int, first: Tensor, second: Tensor
) -> Tensor:
    (dim,) = parameters
    if index == 0:
        return (first - second) * _ratio_slope(first, dim)
    small = _ratio(second, dim) - _ratio(first, dim)
    large = _complement(first, dim) - _complement(second, dim)
    return torch.where(first > dim, large, small)


_peak = op("vmf_peak", 1, _peak_kernel, _peak_partial)
_kl_to_uniform = op("vmf_kl_to_uniform", 1, _kl_kernel, _kl_partial)
_bregman = op("vmf_bregman", 2, _bregman_kernel, _bregman_partial)
