r"""Distributions on the unit sphere, in Pyro's grammar.

The von Mises-Fisher density is :math:`p(x) \propto \exp(\kappa\, \mu \cdot x)` with respect to the
surface measure (Mardia and Jupp 2000, section 9.3.2). The mathematics lives in
`pyprobe.directional`; here are its shapes, its constraints and its gradients.

Parameters are kept as they come, and broadcast where they are used: under a plate of n data, a
shared concentration still costs one Bessel function.
"""

# ruff: noqa: SLF001  # distributions hand their parameters on to expanded ones, as they came

from __future__ import annotations

import math
from typing import Any, ClassVar, NoReturn

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Categorical, constraints, register_kl

from pyprobe._validate import check_positive_int
from pyprobe.directional import _torch as vmf
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.pyro._draws import draw
from pyprobe.pyro.constraints import unit_vector

__all__ = ["SphericalUniform", "VonMisesFisher", "VonMisesFisherMixture"]

_SCALAR = Size()


class VonMisesFisher(TorchDistribution):
    r"""Von Mises-Fisher distribution on the unit sphere of any dimension.

    The density with respect to the surface measure is :math:`C_d(\kappa) e^{\kappa \mu \cdot x}`;
    :math:`\kappa = 0` is the uniform distribution.

    Parameters
    ----------
    loc : Tensor, shape (..., d)
        Mean direction :math:`\mu`: unit vectors, d at least 2.
    concentration : Tensor or float, shape (...)
        Concentration :math:`\kappa \ge 0`; broadcasts with the batch shape of `loc`.
    validate_args : bool, optional
        Whether to check arguments and values; by default as Pyro is set up.

    Raises
    ------
    ShapeError      if ``loc`` has no last dimension of at least 2, or the shapes do not fit.
    DomainError     if a row of ``loc`` is not a unit vector, or a concentration is negative.
    NotFiniteError  if an argument is infinite or NaN.

    Notes
    -----
    Draws are keyed from torch's default generator: ``torch.manual_seed`` and ``pyro.set_rng_seed``
    repeat them, on any number of threads. CPU tensors are drawn in Rust.

    Gradients of `rsample` are unbiased [1]_: in the concentration, the implicit derivative of the
    law of :math:`\mu \cdot x`; in `loc`, the draw turns along the arc on which `loc` moves, so the
    gradient is tangent to the sphere. They are of first order: asking for more raises.

    References
    ----------
    .. [1] M. Figurnov, S. Mohamed and A. Mnih, Implicit reparameterization gradients, NeurIPS 2018,
       equation 5, arXiv:1805.08498.

    Examples
    --------
    >>> import torch
    >>> from pyprobe.pyro import VonMisesFisher
    >>> d = VonMisesFisher(torch.tensor([0.0, 0.6, 0.8]), torch.tensor([1.0, 10.0]))
    >>> d.batch_shape, d.event_shape
    (torch.Size([2]), torch.Size([3]))
    >>> d.rsample((5,)).shape
    torch.Size([5, 2, 3])
    """

    arg_constraints: ClassVar = {"loc": unit_vector, "concentration": constraints.nonnegative}
    support = unit_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None
    ) -> None:
        _check_tensor("loc", loc)
        if loc.ndim < 1 or loc.shape[-1] < 2:
            raise ShapeError(
                f"'loc' must have shape (..., d) with d at least 2; got {tuple(loc.shape)}."
            )
        concentration = _beside("concentration", concentration, loc)
        batch = _broadcast("concentration", concentration.shape, "loc", loc.shape[:-1])
        if type(self)._validate_args if validate_args is None else validate_args:
            _check_loc("loc", loc)
            _check_concentration("concentration", concentration)
        self._loc, self._concentration = loc, concentration
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    @staticmethod
    def infer_shapes(loc: Size, concentration: Size = _SCALAR) -> tuple[Size, Size]:
        """Return the batch and event shapes that arguments of these shapes give."""
        return torch.broadcast_shapes(loc[:-1], concentration), Size(loc[-1:])

    def expand(self, batch_shape: Any, _instance: VonMisesFisher | None = None) -> VonMisesFisher:
        """Return the distribution with its batch expanded to `batch_shape`."""
        new = self._get_checked_instance(VonMisesFisher, _instance)
        new._loc, new._concentration = self._loc, self._concentration
        return _expanded(self, new, batch_shape)

    def __repr__(self) -> str:
        return _parameters(self, loc=self._loc, concentration=self._concentration)

    @property
    def loc(self) -> Tensor:
        """Mean direction, shape (..., d)."""
        return self._loc.expand(self._extended_shape())

    @property
    def concentration(self) -> Tensor:
        """Concentration, shape (...)."""
        return self._concentration.expand(self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at unit vectors, with respect to the surface measure."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return vmf.log_prob(value, self._loc, self._concentration).expand(shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, with gradients in `loc` and `concentration`."""
        shape = self._extended_shape(sample_shape)
        return draw(self._loc, self._concentration, shape)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, with respect to the surface measure."""
        return vmf.entropy(self._concentration, self._dim).expand(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """The mean in space: `loc` times the mean resultant length."""
        return vmf.mean_resultant_length(self.concentration, self._dim).unsqueeze(-1) * self.loc

    @property
    def mode(self) -> Tensor:
        """The direction of highest density."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate: the diagonal of `covariance_matrix`."""
        across, along = vmf.variances(self.concentration.unsqueeze(-1), self._dim)
        square = self.loc.square()
        # Along the direction the first term must vanish: it would drown the second one.
        return across * (1 - square) + along * square

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance of the coordinates, shape (..., d, d)."""
        across, along = vmf.variances(self.concentration[..., None, None], self._dim)
        outer = (along - across) * (self.loc.unsqueeze(-1) * self.loc.unsqueeze(-2))
        return outer.diagonal_scatter(self.variance, dim1=-2, dim2=-1)

    @property
    def _dim(self) -> int:
        return self.event_shape[0]


class VonMisesFisherMixture(TorchDistribution):
    """Finite mixture of von Mises-Fisher distributions.

    Parameters
    ----------
    weights : Tensor, shape (..., k)
        Probabilities of the components.
    locs : Tensor, shape (..., k, d)
        Their mean directions: unit vectors.
    concentrations : Tensor or float, shape (..., k)
        Their concentrations, not negative.
    validate_args : bool, optional
        Whether to check arguments and values; by default as Pyro is set up.

    Raises
    ------
    ShapeError      if the shapes do not fit one another.
    DomainError     if a row of ``locs`` is not a unit vector, or a concentration is negative.
    NotFiniteError  if an argument is infinite or NaN.
    ValueError      if the weights are not probabilities.

    Notes
    -----
    `log_prob` is differentiable in the value and in all parameters. Draws carry no gradient: which
    component they come from is a discrete choice. Cost O(k d) a value. Log-densities are off by
    about the rounding of the dtype times the largest concentration: above 1e5 use float64.

    Examples
    --------
    >>> import torch
    >>> from pyprobe.pyro import VonMisesFisherMixture
    >>> weights, concentrations = torch.tensor([0.3, 0.7]), torch.tensor([9.0, 4.0])
    >>> d = VonMisesFisherMixture(weights, torch.eye(2, 5), concentrations)
    >>> d.log_prob(d.sample((6,))).shape
    torch.Size([6])
    """

    arg_constraints: ClassVar = {
        "weights": constraints.simplex,
        "locs": constraints.independent(unit_vector, 1),
        "concentrations": constraints.independent(constraints.nonnegative, 1),
    }
    support = unit_vector

    def __init__(
        self,
        weights: Tensor,
        locs: Tensor,
        concentrations: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        _check_tensor("weights", weights)
        _check_tensor("locs", locs)
        if locs.ndim < 2 or locs.shape[-1] < 2:
            raise ShapeError(
                f"'locs' must have shape (..., k, d) with d at least 2; got {tuple(locs.shape)}."
            )
        concentrations = _beside("concentrations", concentrations, locs)
        shape = _broadcast("concentrations", concentrations.shape, "locs", locs.shape[:-1])
        if weights.ndim < 1 or weights.shape[-1] != shape[-1]:
            raise ShapeError(
                f"'weights' must have shape (..., {shape[-1]}), one a component; got "
                f"{tuple(weights.shape)}."
            )
        shape = _broadcast("weights", weights.shape, "locs", shape)
        if type(self)._validate_args if validate_args is None else validate_args:
            _check_loc("locs", locs)
            _check_concentration("concentrations", concentrations)
        self._weights, self._locs, self._concentrations = weights, locs, concentrations
        super().__init__(shape[:-1], locs.shape[-1:], validate_args=validate_args)

    def expand(
        self, batch_shape: Any, _instance: VonMisesFisherMixture | None = None
    ) -> VonMisesFisherMixture:
        """Return the distribution with its batch expanded to `batch_shape`."""
        new = self._get_checked_instance(VonMisesFisherMixture, _instance)
        new._weights, new._locs = self._weights, self._locs
        new._concentrations = self._concentrations
        return _expanded(self, new, batch_shape)

    def __repr__(self) -> str:
        return _parameters(
            self, weights=self._weights, locs=self._locs, concentrations=self._concentrations
        )

    @property
    def weights(self) -> Tensor:
        """Probabilities of the components, shape (..., k)."""
        return self._weights.expand(*self.batch_shape, -1)

    @property
    def locs(self) -> Tensor:
        """Mean directions of the components, shape (..., k, d)."""
        return self._locs.expand(*self.batch_shape, -1, -1)

    @property
    def concentrations(self) -> Tensor:
        """Concentrations of the components, shape (..., k)."""
        return self._concentrations.expand(*self.batch_shape, self._locs.shape[-2])

    @property
    def component_distribution(self) -> VonMisesFisher:
        """The components, along the last dimension of its batch."""
        return VonMisesFisher(self.locs, self.concentrations, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at unit vectors, with respect to the surface measure."""
        return torch.logsumexp(self._joint(value), -1)

    def responsibilities(self, value: Tensor) -> Tensor:
        """Return the posterior probabilities of the components, shape (..., k)."""
        return torch.softmax(self._joint(value), -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw; without gradients."""
        shape = self._extended_shape(sample_shape)
        batch = shape[:-1]
        if shape.numel() == 0:
            return self._locs.new_empty(shape)
        with torch.no_grad():
            chosen = Categorical(self.weights, validate_args=False).sample(sample_shape)
            chosen = chosen.unsqueeze(-1)
            concentration = self.concentrations.expand(*batch, -1).gather(-1, chosen).squeeze(-1)
            rows = chosen.unsqueeze(-1).expand(*batch, 1, shape[-1])
            loc = self.locs.expand(*batch, -1, -1).gather(-2, rows).squeeze(-2)
            return draw(loc, concentration, shape)

    def rsample(self, sample_shape: Any = ()) -> NoReturn:
        """Refuse: which component a draw comes from is a discrete choice."""
        raise NotImplementedError(
            "draws of VonMisesFisherMixture carry no gradient: which component they come from is a "
            "discrete choice. Use sample(), or rsample() of component_distribution, and weigh."
        )

    @property
    def mean(self) -> Tensor:
        """The mean in space."""
        return (self.weights.unsqueeze(-1) * self.component_distribution.mean).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate."""
        components = self.component_distribution
        between = (components.mean - self.mean.unsqueeze(-2)).square()
        return (self.weights.unsqueeze(-1) * (components.variance + between)).sum(-2)

    def _joint(self, value: Tensor) -> Tensor:
        """Return the log-density of value and component together, shape (..., k)."""
        if self._validate_args:
            self._validate_sample(value)
        components = vmf.log_prob_components(value, self._locs, self._concentrations)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return (components + self._weights.log()).expand(*shape, -1)


class SphericalUniform(TorchDistribution):
    """Uniform distribution on the unit sphere.

    Parameters
    ----------
    dim : int
        Dimension d of the space around the sphere, at least 2.
    dtype, device : optional
        Of the draws; torch's defaults.
    validate_args : bool, optional
        Whether to check values; by default as Pyro is set up.

    Raises
    ------
    DomainError
        If `dim` is less than 2.

    Examples
    --------
    >>> from pyprobe.pyro import SphericalUniform
    >>> SphericalUniform(3).entropy()  # log(4 pi)
    tensor(2.5310)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = unit_vector
    has_rsample = True

    def __init__(
        self,
        dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        dim = check_positive_int("dim", dim, minimum=2)
        self._height = torch.tensor(vmf.log_uniform(dim), dtype=dtype, device=device)
        super().__init__(Size(), Size((dim,)), validate_args=validate_args)

    def expand(
        self, batch_shape: Any, _instance: SphericalUniform | None = None
    ) -> SphericalUniform:
        """Return the distribution with its batch expanded to `batch_shape`."""
        new = self._get_checked_instance(SphericalUniform, _instance)
        new._height = self._height
        return _expanded(self, new, batch_shape)

    def __repr__(self) -> str:
        return f"SphericalUniform({self.dim})"

    @property
    def dim(self) -> int:
        """Dimension of the space around the sphere."""
        return self.event_shape[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at unit vectors, with respect to the surface measure."""
        if self._validate_args:
            self._validate_sample(value)
        return self._height.expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw; there is no parameter to take a gradient in."""
        shape = self._extended_shape(sample_shape)
        normal = torch.randn(shape, dtype=self._height.dtype, device=self._height.device)
        return normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)

    def entropy(self) -> Tensor:
        """Return the logarithm of the area of the sphere."""
        return -self._height.expand(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """The mean in space: the center."""
        return self._height.new_zeros(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, 1 / d."""
        return self._height.new_full(self._extended_shape(), 1 / self.dim)


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_von_mises_fisher(p: VonMisesFisher, q: VonMisesFisher) -> Tensor:
    shape = _kl_shape(p, q)
    kl = vmf.kl_divergence(p._loc, p._concentration, q._loc, q._concentration)
    return kl.expand(shape)


@register_kl(VonMisesFisher, SphericalUniform)
def _kl_von_mises_fisher_uniform(p: VonMisesFisher, q: SphericalUniform) -> Tensor:
    shape = _kl_shape(p, q)
    kl = vmf.kl_to_uniform(p._concentration, p.event_shape[0])
    return kl.expand(shape)


@register_kl(SphericalUniform, VonMisesFisher)
def _kl_uniform_von_mises_fisher(p: SphericalUniform, q: VonMisesFisher) -> Tensor:
    shape = _kl_shape(p, q)
    kl = vmf.kl_divergence(q._loc, torch.zeros_like(q._concentration), q._loc, q._concentration)
    return kl.expand(shape)


@register_kl(SphericalUniform, SphericalUniform)
def _kl_uniform_uniform(p: SphericalUniform, q: SphericalUniform) -> Tensor:
    return p._height.new_zeros(_kl_shape(p, q))


def _kl_shape(p: TorchDistribution, q: TorchDistribution) -> Size:
    """Return the batch shape of a divergence between distributions on the same sphere."""
    if p.event_shape != q.event_shape:
        raise ShapeError(
            "a divergence needs distributions of one dimension; got "
            f"{p.event_shape[0]} and {q.event_shape[0]}."
        )
    return _broadcast("batch_shape", q.batch_shape, type(p).__name__, p.batch_shape)


def _expanded(old: Any, new: Any, batch_shape: Any) -> Any:
    """Finish `new`, which holds the parameters of `old`, with another batch shape."""
    shape = Size(batch_shape)
    try:
        fits = torch.broadcast_shapes(old.batch_shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"'batch_shape' must extend {tuple(old.batch_shape)} by broadcasting; got "
            f"{tuple(shape)}."
        )
    TorchDistribution.__init__(new, shape, old.event_shape, validate_args=False)
    new._validate_args = old._validate_args
    return new


def _broadcast(name: str, shape: Size, other: str, other_shape: Size) -> Size:
    try:
        return torch.broadcast_shapes(shape, other_shape)
    except RuntimeError:
        raise ShapeError(
            f"'{name}' must broadcast with the batch shape of '{other}', {tuple(other_shape)}; "
            f"got {tuple(shape)}."
        ) from None


def _check_tensor(name: str, value: Any) -> None:
    """Raise unless `value` is a tensor of floats."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return
    came = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    raise TypeError(
        f"'{name}' must be a torch tensor of floats; got {came}. Convert with torch.as_tensor(..., "
        "dtype=torch.float32), or torch.float64."
    )


def _beside(name: str, value: Any, loc: Tensor) -> Tensor:
    """Return a number or a tensor in the dtype and on the device of `loc`."""
    if not isinstance(value, (Tensor, int, float)):
        raise TypeError(f"'{name}' must be a torch tensor or a number; got {type(value).__name__}.")
    return torch.as_tensor(value, dtype=loc.dtype, device=loc.device)


def _parameters(distribution: TorchDistribution, **parameters: Tensor) -> str:
    """Return a repr: numbers as they are, larger parameters by their shapes."""
    shown = [
        f"{name}: {value.item():.6g}" if value.numel() == 1 else f"{name}: {tuple(value.shape)}"
        for name, value in parameters.items()
    ]
    return f"{type(distribution).__name__}({', '.join(shown)})"


def _check_loc(name: str, loc: Tensor) -> None:
    """Name the first row that is no unit vector: torch's own message would print them all."""
    good = unit_vector.check(loc)
    if good.all():
        return
    rows = loc.detach().reshape(-1, loc.shape[-1])
    row = int((~good).flatten().nonzero()[0])
    norm = torch.linalg.vector_norm(rows[row]).item()
    if not math.isfinite(norm):
        raise NotFiniteError(f"'{name}' must be finite; got infinite or NaN entries in row {row}.")
    raise DomainError(
        f"'{name}' must hold unit vectors: row {row} has norm {norm:.6g}. Divide by the norm."
    )


def _check_concentration(name: str, concentration: Tensor) -> None:
    values = concentration.detach().flatten()
    if not values.isfinite().all():
        bad = values[~values.isfinite()][0].item()
        raise NotFiniteError(f"'{name}' must be finite; got {bad}.")
    if (values < 0).any():
        raise DomainError(f"'{name}' must not be negative; got {values.min().item():.6g}.")
