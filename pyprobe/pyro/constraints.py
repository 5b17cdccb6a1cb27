"""What a direction must satisfy: a norm of 1, up to the rounding of float32."""

from __future__ import annotations

from typing import NoReturn

import torch
from pyro.distributions.transforms import Normalize
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to

__all__ = ["unit_vector"]


class _UnitVector(constraints.Constraint):
    """Vectors of norm 1 to within 1e-5 in float64, 1e-4 in float32, 4 eps in half precision.

    Rows normalized in float32 are off by up to 3e-6 in 131072 dimensions, and stay so when they are
    cast to float64; Pyro's ``constraints.sphere`` asks for a few eps of the dtype they come in.
    """

    is_discrete = False
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Tell which vectors, along the last dimension, have norm 1."""
        tolerance = {torch.float64: 1e-5, torch.float32: 1e-4}.get(value.dtype)
        if tolerance is None:
            tolerance, value = 4 * torch.finfo(value.dtype).eps, value.float()
        norm: Tensor = torch.linalg.vector_norm(value, dim=-1)
        return (norm - 1).abs() <= tolerance

    # Not named after the sphere: for any support that is, Pyro recommends its own reparameterizer.
    def __repr__(self) -> str:
        return "UnitVector()"


unit_vector = _UnitVector()


@transform_to.register(unit_vector)
def _normalize(constraint: _UnitVector) -> Normalize:  # noqa: ARG001
    return Normalize()


@biject_to.register(unit_vector)
def _refuse_bijection(constraint: _UnitVector) -> NoReturn:
    raise NotImplementedError(
        "there is no smooth bijection from a vector space to the sphere, so autoguides and HMC "
        "cannot handle a latent direction as it stands. Reparameterize its site: "
        "pyro.poutine.reparam(model, config={'site': pyprobe.pyro.VonMisesFisherReparam()})."
    )
