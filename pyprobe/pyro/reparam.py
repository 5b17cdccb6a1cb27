r"""A latent direction for inference that needs a vector space.

The direction :math:`u` with density :math:`p` on the sphere is carried by a vector :math:`z = r u`
whose length :math:`r` is independent of it, with density :math:`f`. In polar coordinates

.. math:: q(z) = f(|z|)\, |z|^{1-d}\, p(z / |z|)

is a proper density on :math:`\mathbb{R}^d`, under which :math:`z / |z|` has the law of u exactly. f
is the chi density of max(d, 16) degrees of freedom. With d of them and a uniform p, z would be
normal; but in few dimensions that comes near the origin, where directions turn fast, and NUTS
diverges.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import Delta, TorchDistribution
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult
from pyro.ops.tensor_utils import safe_normalize
from torch import Tensor
from torch.distributions import constraints

from pyprobe.errors import DomainError
from pyprobe.pyro.distributions import SphericalUniform, VonMisesFisher, VonMisesFisherMixture

__all__ = ["VonMisesFisherReparam"]

_DIRECTIONS = (VonMisesFisher, VonMisesFisherMixture, SphericalUniform)
_LEAST_DEGREES = 16


class VonMisesFisherReparam(Reparam):
    """Reparameterizer of a latent direction, for autoguides, HMC and NUTS.

    A site ``name`` of one of this module's distributions becomes a latent site ``name_vector`` in
    R^d and a deterministic site ``name``, its direction. Both the posterior of the direction and
    its prior predictive law are exactly those of the model as written.

    Raises
    ------
    DomainError
        If the site is observed, or has another distribution.

    Notes
    -----
    The vector's length is free, so that its coordinates vary together wherever the posterior is
    concentrated: ``AutoMultivariateNormal`` can follow, ``AutoNormal`` is too narrow. A guide of
    your own can sample the direction from `VonMisesFisher`, and needs no reparameterizer.

    References
    ----------
    .. [1] M. I. Gorinova, D. Moore and M. D. Hoffman, Automatic reparameterisation of probabilistic
       programs, ICML 2020, arXiv:1906.03028.

    Examples
    --------
    >>> import pyro, torch
    >>> from pyprobe.pyro import VonMisesFisher, VonMisesFisherReparam
    >>> @pyro.poutine.reparam(config={"direction": VonMisesFisherReparam()})
    ... def model():
    ...     return pyro.sample("direction", VonMisesFisher(torch.eye(3)[0], 5.0))
    >>> guide = pyro.infer.autoguide.AutoMultivariateNormal(model)
    >>> sorted(pyro.poutine.trace(model).get_trace().nodes)[2:]
    ['direction', 'direction_vector']
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        """Put the vector in place of the direction."""
        name, value = msg["name"], msg["value"]
        if msg["is_observed"]:
            raise DomainError(
                f"VonMisesFisherReparam is for latent sites; {name!r} is observed. Leave it out of "
                "the reparam config."
            )
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, _DIRECTIONS):
            raise DomainError(
                f"VonMisesFisherReparam is for sites of pyprobe.pyro distributions; {name!r} has "
                f"{type(fn).__name__}."
            )
        lifted = _Lifted(fn)
        # An initial direction: any length will do, this is a usual one.
        vector = None if value is None else value * math.sqrt(lifted.degrees)
        vector = pyro.sample(
            f"{name}_vector",
            self._wrap(lifted, event_dim),
            obs=vector,
            infer={"is_observed": False},
        )
        if value is None:
            value = safe_normalize(vector)
        return {
            "fn": Delta(value, event_dim=event_dim).mask(False),
            "value": value,
            "is_observed": True,
        }


class _Lifted(TorchDistribution):
    """A vector whose direction has the law `base`, and whose length a chi law, independently."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self, base: TorchDistribution) -> None:
        self.base = base
        self.degrees = max(base.event_shape[0], _LEAST_DEGREES)
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        return self.base.has_rsample

    def expand(self, batch_shape: Any, _instance: _Lifted | None = None) -> _Lifted:
        return _Lifted(self.base.expand(batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self._lengthen(self.base.sample(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._lengthen(self.base.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(value, dim=-1)
        log_scale = (self.degrees / 2 - 1) * math.log(2) + math.lgamma(self.degrees / 2)
        # The chi density and the Jacobian |z|^(1-d) together.
        power = torch.xlogy(self.degrees - self.event_shape[0], length)
        relative = self.base.log_prob(safe_normalize(value))
        return relative + power - 0.5 * length.square() - log_scale

    def _lengthen(self, direction: Tensor) -> Tensor:
        square = torch.distributions.Chi2(direction.new_tensor(self.degrees))
        return square.sample(direction.shape[:-1]).sqrt().unsqueeze(-1) * direction
