"""Between fitted values of `pyprobe.directional` and Pyro's distributions."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyprobe import directional
from pyprobe.errors import ShapeError
from pyprobe.pyro.distributions import SphericalUniform, VonMisesFisher, VonMisesFisherMixture
from pyprobe.transport import LightSchrodingerBridge

__all__ = ["as_distribution", "from_pyro"]


def as_distribution(value: Any) -> TorchDistribution:
    """Carry a value of `pyprobe.directional` into Pyro.

    Parameters
    ----------
    value : VonMisesFisher, VonMisesFisherMixture or SphericalUniform of `pyprobe.directional`
        Fitted, or made from parameters.

    Returns
    -------
    TorchDistribution
        The distribution of the same name in `pyprobe.pyro`, with the same density. Its parameters
        are tensors of their own, in the dtype of the value's arrays.

    Raises
    ------
    TypeError
        If `value` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.directional import VonMisesFisher
    >>> from pyprobe.pyro import as_distribution
    >>> x = VonMisesFisher(np.array([0.6, 0.8]), 20.0).sample((500,), rng=0)
    >>> prior = as_distribution(VonMisesFisher.fit(x))
    >>> prior.event_shape
    torch.Size([2])
    """
    if isinstance(value, directional.VonMisesFisher):
        loc = _tensor(value.loc)
        return VonMisesFisher(loc, _tensor(value.concentration).to(loc))
    if isinstance(value, directional.VonMisesFisherMixture):
        locs = _tensor(value.locs)
        weights = _tensor(value.weights).to(locs)
        # Sums to 1 within the rounding of where it was fitted; Pyro's simplex asks for 1e-6.
        return VonMisesFisherMixture(
            weights / weights.sum(), locs, _tensor(value.concentrations).to(locs)
        )
    if isinstance(value, directional.SphericalUniform):
        return SphericalUniform(value.dim)
    if isinstance(value, LightSchrodingerBridge):
        raise TypeError(
            "'value' must be one distribution; a LightSchrodingerBridge is one for each start. Use "
            "ConditionalBridge(value, x0)."
        )
    raise TypeError(
        "'value' must be a VonMisesFisher, VonMisesFisherMixture or SphericalUniform of "
        f"pyprobe.directional; got {type(value).__name__}."
    )


def from_pyro(
    distribution: TorchDistribution,
) -> directional.VonMisesFisher | directional.VonMisesFisherMixture | directional.SphericalUniform:
    """Take a distribution of this door over as a value of `pyprobe.directional`.

    Parameters
    ----------
    distribution : VonMisesFisher, VonMisesFisherMixture or SphericalUniform of `pyprobe.pyro`
        The batch shape of a mixture must be empty: its value is one distribution.

    Returns
    -------
    VonMisesFisher, VonMisesFisherMixture or SphericalUniform of `pyprobe.directional`
        Holding detached copies of the parameters, as tensors of float32 or float64. Directions are
        divided by their norms, and weights by their sum, since Pyro's constraints leave more room.

    Raises
    ------
    ShapeError      if the batch shape of a mixture is not empty.
    TypeError       if `distribution` is something else.

    Examples
    --------
    >>> import torch
    >>> from pyprobe.pyro import VonMisesFisher, from_pyro
    >>> trained = VonMisesFisher(torch.tensor([0.6, 0.8]), torch.tensor(20.0, requires_grad=True))
    >>> float(from_pyro(trained).concentration)
    20.0
    """
    if isinstance(distribution, VonMisesFisher):
        return directional.VonMisesFisher(
            _unit(distribution.loc), _tensor(distribution.concentration)
        )
    if isinstance(distribution, SphericalUniform):
        return directional.SphericalUniform(distribution.dim)
    if not isinstance(distribution, VonMisesFisherMixture):
        raise TypeError(
            "'distribution' must be a VonMisesFisher, VonMisesFisherMixture or SphericalUniform of "
            f"pyprobe.pyro; got {type(distribution).__name__}."
        )
    if distribution.batch_shape:
        raise ShapeError(
            "'distribution' must have an empty batch shape; got "
            f"{tuple(distribution.batch_shape)}. Make a value of each mixture."
        )
    locs, weights = _unit(distribution.locs), distribution.weights.detach().double()
    return directional.VonMisesFisherMixture(
        weights / weights.sum(), locs, _tensor(distribution.concentrations).to(locs)
    )


def _unit(locs: Tensor) -> Tensor:
    """Return directions of norm 1 in float32 or float64."""
    locs = _tensor(locs).to(torch.promote_types(locs.dtype, torch.float32))
    return locs / torch.linalg.vector_norm(locs, dim=-1, keepdim=True)


def _tensor(array: Any) -> Tensor:
    return array.detach().clone() if isinstance(array, Tensor) else torch.tensor(array)
