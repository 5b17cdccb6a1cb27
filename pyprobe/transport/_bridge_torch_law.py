"""The laws of a bridge as distributions of torch, with exact draws and gradients through them."""

# ruff: noqa: SLF001  # a law hands what it holds on to its expanded copies

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.compiler import is_compiling
from torch.distributions import Distribution, constraints

from pyprobe._autograd import is_tracing, once
from pyprobe.errors import DomainError, ShapeError
from pyprobe.transport._bridge_torch_components import Components, Time, turned

__all__ = ["BridgeLaw", "log_transition"]

_BLOCK = 2**22
"""The most numbers of axes that are gathered at a time."""


def log_transition(c: Components, x: Tensor, t: Time, start: Tensor, s: float) -> Tensor:
    """Return the log-density of being at `x` at time `t`, given `start` at time `s` before.

    Brownian motion's, times the ratio of the potentials: no component meets another one's mean.
    """
    y, origin = c.place(x, t), c.place(start, s)
    variance = c.epsilon * (t - s)
    fall = (y - origin).square().sum(-1) / (2 * variance)
    logs = variance.log() if isinstance(variance, Tensor) else math.log(variance)
    constant = c.dim / 2 * (math.log(2 * math.pi) + logs)
    return c.log_sums(y, t) - c.log_sums(origin, s) - fall - constant


class BridgeLaw(Distribution):
    """The law of a bridge's place at a later time, given where it is: a Gaussian mixture.

    What `TorchBridge.conditional`, ``conditional_at`` and ``transition`` return. The batch shape is
    that of the places given, without their last dimension; the event shape is (d,).

    Notes
    -----
    `log_prob` is differentiable, to any order, in the value, the place, the time (where that is a
    tensor) and the parameters of the module. A draw takes the component first, then d normal
    numbers; they come from torch's default generator.

    `rsample` gives unbiased gradients of first order by implicit reparameterization [1]_: a draw
    moves so that its quantiles, coordinate by coordinate given the ones before, stay where they
    are. Where a weight changes, mass crosses the gap between components: the wider the gap is, the
    more the gradients vary. Cost O(k d) a draw, O(k d^2) with full scales.

    References
    ----------
    .. [1] M. Figurnov, S. Mohamed and A. Mnih, Implicit reparameterization gradients, NeurIPS 2018,
       equation 6, arXiv:1805.08498.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        components: Components,
        start: Tensor,
        s: float,
        t: Time,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._components, self._start, self._times = components, start, (s, t)
        batch = start.shape[:-1]
        if isinstance(t, Tensor):
            batch = torch.broadcast_shapes(batch, t.shape)
        super().__init__(batch, start.shape[-1:], validate_args=validate_args)

    def __repr__(self) -> str:
        k, d = self._components.shifts.shape
        return f"{type(self).__name__}(batch={tuple(self.batch_shape)}, n_components={k}, dim={d})"

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the law with its batch expanded to `batch_shape`."""
        new = self._get_checked_instance(BridgeLaw, _instance)  # type: ignore[no-untyped-call]
        shape = Size(batch_shape)
        try:
            fits = torch.broadcast_shapes(self.batch_shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(
                f"'batch_shape' must extend {tuple(self.batch_shape)} by broadcasting; got "
                f"{tuple(shape)}."
            )
        new._components, new._start, new._times = self._components, self._start, self._times
        Distribution.__init__(new, shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def logits(self) -> Tensor:
        """Logarithms of the components' probabilities, shape (..., k)."""
        c, (s, _) = self._components, self._times
        found = c.log_weights_at(c.place(self._start, s), s).log_softmax(-1)
        return self._out(found.expand(*self.batch_shape, -1))

    @property
    def mean(self) -> Tensor:
        """The mean, shape (..., d)."""
        c, s = self._components, self._times[0]
        y = c.place(self._start, s)
        step = c.velocity + c.mean_step(c.shares(y, s), y, s)
        mean = self._start.double() + self._over(1) * step
        return self._out(mean.expand(self._extended_shape()))

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, shape (..., d)."""
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance, shape (..., d, d): within the components and between them."""
        c, s = self._components, self._times[0]
        y = c.place(self._start, s)
        shares = c.shares(y, s)
        apart = c.turn_back(c.steps(y, s))
        apart = apart - (shares.unsqueeze(-2) @ apart)
        between = self._over(2) ** 2 * ((shares.unsqueeze(-1) * apart).mT @ apart)
        within = torch.einsum("...k,...kij->...ij", shares, c.as_matrices(self._variances))
        return self._out((within + between).expand(*self._extended_shape(), -1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at `value`, shape (..., d), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        s, t = self._times
        found = log_transition(self._components, value, t, self._start, s)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return self._out(found.expand(shape), value)

    def sample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Draw, without gradients; from torch's default generator, or one of the same device."""
        return self._out(self._draw(Size(sample_shape), generator))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, with gradients of first order in the place, the time and the parameters."""
        if is_compiling() or is_tracing():
            raise DomainError(
                "draws of a bridge that carry gradients cannot be traced or compiled: the trace "
                "would lose the gradients. Use Trace_ELBO instead of JitTrace_ELBO, or sample()."
            )
        c, (s, _) = self._components, self._times
        x = self._draw(Size(sample_shape), None)
        y = c.place(self._start, s)
        log_shares = c.log_weights_at(y, s).log_softmax(-1)
        steps = c.velocity + c.turn_back(c.steps(y, s))
        locs = self._start.double().unsqueeze(-2) + self._over(2) * steps
        if c.bases is None:
            factors = self._variances.sqrt()
        else:
            factors = torch.linalg.cholesky(c.as_matrices(self._variances))
        found = _Quantiles.apply(x, log_shares, locs, factors, c.bases is not None)
        return self._out(found)

    @torch.no_grad()
    def _draw(self, sample_shape: Size, generator: torch.Generator | None) -> Tensor:
        """Draw in float64: the component first, by its weight, then d normal numbers."""
        c, (s, t) = self._components, self._times
        shape = self._extended_shape(sample_shape)
        start = self._start.double().expand(*self.batch_shape, c.dim)
        if shape.numel() == 0:
            return start.new_empty(shape)
        y = c.place(start, s)
        shares = c.shares(y, s).reshape(-1, len(c.shifts))
        which = torch.multinomial(
            shares, sample_shape.numel(), replacement=True, generator=generator
        )
        which = which.T.reshape(-1)
        noise = torch.randn(
            shape, dtype=torch.float64, device=start.device, generator=generator
        ).reshape(-1, c.dim)
        rows = y.expand(shape).reshape(-1, c.dim)
        if isinstance(t, Tensor):
            times = t.expand(shape[:-1]).reshape(-1, 1)
        else:
            times = rows.new_full((len(rows), 1), t)
        # In blocks, as every row of full scales takes the axes of its component along.
        size = len(rows) if c.bases is None else max(1, _BLOCK // c.dim**2)
        parts = zip(*(whole.split(size) for whole in (which, rows, times, noise)), strict=True)
        steps = torch.cat([_random_step(c, s, *part) for part in parts])
        moved = start.expand(shape).reshape(-1, c.dim) + (times - s) * c.velocity
        return (moved + steps).reshape(shape)

    @property
    def _variances(self) -> Tensor:
        """Variances of the components in their eigenbases: (k, d), or (..., k, d)."""
        c, (s, t) = self._components, self._times
        variances: Tensor = c.epsilon * self._over(2) * c.denominators(t) / c.denominators(s)
        return variances

    def _over(self, n: int) -> Any:
        """Return how long it takes, to broadcast over `n` more dimensions."""
        s, t = self._times
        return (t - s)[(..., *(None,) * n)] if isinstance(t, Tensor) else t - s

    def _out(self, found: Tensor, value: Tensor | None = None) -> Tensor:
        """Return a result in the dtype of the places that came."""
        dtype = self._start.dtype if self._start.is_floating_point() else torch.float64
        if value is not None:
            dtype = torch.promote_types(dtype, value.dtype)
        return found.to(dtype)


def _random_step(
    c: Components, s: float, which: Tensor, y: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    """Return a step of the component `which` of each row, with its noise, beside the frame's."""
    bases = None if c.bases is None else c.bases[which]
    if bases is not None:
        y = turned(bases.mT, y)
    eigenvalues, shift = c.eigenvalues[which], c.turned_shifts[which]
    before, after = (1 - s) + s * eigenvalues, (1 - t) + t * eigenvalues
    mean = (eigenvalues - 1) / before * (y - s * shift) + shift
    step = (t - s) * mean + (c.epsilon * (t - s) * after / before).sqrt() * noise
    return step if bases is None else turned(bases, step)


class _Quantiles(torch.autograd.Function):
    """A draw, as a function of the mixture that it was drawn from."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_shares: Tensor, locs: Tensor, factors: Tensor, is_full: bool
    ) -> Tensor:
        ctx.save_for_backward(x, log_shares, locs, factors)
        ctx.is_full = is_full
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *mixture = ctx.saved_tensors
        leaves = [tensor.detach().requires_grad_() for tensor in mixture]
        with torch.enable_grad():
            moving = _moving(x, leaves[0], leaves[1], leaves[2], is_full=ctx.is_full)
        found = torch.autograd.grad(moving, leaves, grads[0].detach())
        needs = ctx.needs_input_grad[1:4]
        wanted = [g if needed else None for g, needed in zip(found, needs, strict=True)]
        if torch.is_grad_enabled():  # create_graph=True
            wanted = once(_FIRST_ORDER, wanted, *mixture, grads[0])
        return None, *wanted, None


_FIRST_ORDER = (
    "draws of a bridge have gradients of first order only; a second derivative was asked for. Hold "
    "the draw fixed with sample(), or differentiate the density."
)


def _moving(
    x: Tensor, log_shares: Tensor, locs: Tensor, factors: Tensor, *, is_full: bool
) -> Tensor:
    """Return `x`, with the first derivatives that keep every conditional quantile in place.

    Given the coordinates before it, a coordinate is drawn from a mixture of Gaussians too, whose
    weights these coordinates have tilted. `factors` are deviations (..., k, d), or lower triangular
    factors (..., k, d, d) of the covariances, which whiten one coordinate after the other.
    """
    columns: list[Tensor] = []
    whitened: list[Tensor] = []
    for j in range(x.shape[-1]):
        center, width = locs[..., j], factors[..., j, j] if is_full else factors[..., j]
        if is_full and j:
            center = center + (torch.stack(whitened, -1) * factors[..., j, :j]).sum(-1)
        shares, fixed = log_shares.softmax(-1), x[..., j]
        z = (fixed.unsqueeze(-1) - center) / width
        level = (shares * torch.special.ndtr(z)).sum(-1)
        densities = torch.exp(-z.square() / 2) / (math.sqrt(2 * math.pi) * width)
        density = (shares * densities).sum(-1).detach()
        columns.append(fixed - (level - level.detach()) / density)
        z = (columns[-1].unsqueeze(-1) - center) / width
        whitened.append(z)
        log_shares = log_shares - z.square() / 2 - width.log()
    return torch.stack(columns, -1)
