"""Draws from von Mises-Fisher distributions, and how they move with their parameters."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Size, Tensor

from pyprobe import _core
from pyprobe._autograd import is_tracing
from pyprobe._engine import Engine, select
from pyprobe._rng import key
from pyprobe.directional import _torch as vmf
from pyprobe.errors import DomainError

__all__ = ["draw"]


def draw(loc: Tensor, concentration: Tensor, shape: Size) -> Tensor:
    """Draw unit vectors of `shape`, to whose batch `loc` and `concentration` broadcast.

    CPU tensors are drawn in Rust under a key from torch's default generator, others by the twin.
    Gradients are unbiased, and of first order. Half precision is drawn in float32 and rounded.
    """
    if loc.dtype not in (torch.float32, torch.float64):
        return draw(loc.float(), concentration.float(), shape).to(loc.dtype)
    if is_tracing():
        raise DomainError(
            "draws of VonMisesFisher and its mixture cannot be traced: the trace would repeat the "
            "first draw for ever. Use Trace_ELBO instead of JitTrace_ELBO."
        )
    if torch.is_grad_enabled() and (loc.requires_grad or concentration.requires_grad):
        return _Draw.apply(loc, concentration, shape)[0]
    return _sample(loc, concentration, shape, with_complement=False)[0]


class _Draw(torch.autograd.Function):
    """A draw x, and 1 - w in float64, where w = loc . x.

    Where loc moves by a tangent vector v, x turns with it in the plane of the two, by
    dx = w v - (x . v) loc: a rotation carries the law along exactly. Where the concentration moves,
    x slides along its meridian, dx/dw = (loc - w x) / (1 - w^2), as its distribution function says
    (Figurnov, Mohamed and Mnih 2018, equation 5).
    """

    @staticmethod
    def forward(loc: Tensor, concentration: Tensor, shape: Size) -> tuple[Tensor, Tensor]:
        return _sample(loc, concentration, shape, with_complement=True)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Size], output: tuple[Tensor, Tensor]
    ) -> None:
        loc, concentration, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(loc, concentration, *output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        loc, concentration, x, complement = ctx.saved_tensors
        needs_loc, needs_concentration, _ = ctx.needs_input_grad
        gradients: list[Tensor | None] = [None, None]
        with torch.no_grad():
            if needs_loc:
                w = (1 - complement).to(x.dtype).unsqueeze(-1)
                turn = w * grad - (grad * loc).sum(-1, keepdim=True) * x
                gradients[0] = turn.sum_to_size(loc.shape)
            if needs_concentration:
                # loc - w x, without cancellation where x is near loc
                meridian = (loc - x) + complement.to(x.dtype).unsqueeze(-1) * x
                slide = _marginal_gradient(complement, concentration, x.shape[-1])
                slide = slide / (complement * (2 - complement))
                # At a pole itself nothing slides: there it is 0 / 0.
                slide = torch.where(slide.isfinite(), slide, 0).to(x.dtype)
                gradients[1] = (slide * (grad * meridian).sum(-1)).sum_to_size(concentration.shape)
        if torch.is_grad_enabled():  # create_graph=True
            gradients = [
                None if g is None else _FirstOrder.apply(g, loc, concentration, grad)
                for g in gradients
            ]
        return gradients[0], gradients[1], None


class _FirstOrder(torch.autograd.Function):
    """A gradient that must not be taken for a constant: differentiating it raises."""

    @staticmethod
    def forward(gradient: Tensor, *sources: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:  # noqa: ARG004
        raise DomainError(
            "draws of VonMisesFisher have gradients of first order only; a second derivative was "
            "asked for. Hold the draw fixed with .sample(), or differentiate the density."
        )


def _sample(
    loc: Tensor, concentration: Tensor, shape: Size, *, with_complement: bool
) -> tuple[Tensor, Tensor]:
    """Return the draws x, and 1 - loc . x in float64 if it is wanted (else empty)."""
    if select(loc, concentration) is Engine.TORCH:
        return vmf.sample(loc, concentration, shape[:-1])
    *batch, dim = shape
    # Draws are repeated over the dimensions that the parameters lack; a single direction is shared
    # by a batch of concentrations.
    n_outer = len(batch) - max(loc.ndim - 1, concentration.ndim)
    outer, inner = Size(batch[:n_outer]), Size(batch[n_outer:])
    loc = loc / torch.linalg.vector_norm(loc, dim=-1, keepdim=True)
    loc = loc.expand(*inner, dim) if loc.ndim > 1 else loc
    kappa = concentration.double().expand(inner)
    seed = key(torch.default_generator)
    x = vmf.draw(loc, kappa, tuple(outer), seed)
    if not with_complement:
        return x, kappa.new_empty(0)
    complement = _core.vmf_sample_marginal(
        dim, kappa.reshape(-1).numpy(force=True), outer.numel(), seed
    )
    return x, torch.from_numpy(complement).reshape(batch)


def _marginal_gradient(complement: Tensor, concentration: Tensor, dim: int) -> Tensor:
    """Return dw/dkappa for each element of `complement`, to which `concentration` broadcasts."""
    if select(complement, concentration) is Engine.TORCH:
        return vmf.marginal_gradient(complement, concentration, dim)
    inner = complement.shape[complement.ndim - concentration.ndim :]
    kappa = concentration.double().expand(inner).reshape(-1).numpy(force=True)
    flat = complement.reshape(-1).numpy(force=True)
    slide = _core.vmf_marginal_gradient(dim, kappa, flat)
    return torch.from_numpy(slide).reshape(complement.shape)
