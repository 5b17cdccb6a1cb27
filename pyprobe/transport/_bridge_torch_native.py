r"""Log-densities and potentials of a bridge on tensors of the CPU: the kernels and their gradients.

The gradient in the end comes out of the kernel. That in the start, and that of the potential, are
the drift: with :math:`\pi = N(x_1 | x_0, \varepsilon) \varphi_1(x_1) / \varphi_0(x_0)`, where
:math:`\varepsilon \nabla \log \varphi_t` is the drift,

.. math:: \nabla_{x_0} \log \pi = (x_1 - x_0 - g(x_0, 0)) / \varepsilon.

Only these first derivatives are taken here. Where they are to be differentiated, the forms of
`_bridge_torch` take them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyprobe.transport._bridge_torch import Forms
    from pyprobe.transport._components import Components

__all__ = ["log_phi", "log_prob"]


def log_prob(components: Components, forms: Forms, x1: Tensor, given: Tensor) -> Tensor:
    """Return the log-densities of ends (..., m, d), given starts (m, d) or (1, d)."""
    found: Tensor = _LogProb.apply(components, forms, x1, given)
    return found


def log_phi(components: Components, forms: Forms, x: Tensor, t: float) -> Tensor:
    """Return the logarithms of the potential at places (m, d); `t` is a part of the horizon."""
    found: Tensor = _LogPhi.apply(components, forms, x, t)
    return found


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: Components, forms: Forms, x1: Tensor, given: Tensor) -> Tensor:
        ends, starts = _array(x1).reshape(-1, c.dim), _array(given)
        slopes = pulls = None
        if ctx.needs_input_grad[2]:
            values, found = c.log_density_slopes(ends, starts, (0.0, 1.0))
            slopes = torch.from_numpy(found).reshape(x1.shape)
        else:
            values = c.log_density(ends, starts, (0.0, 1.0))
        if ctx.needs_input_grad[3]:
            pulls = torch.from_numpy(c.drift(starts, 0.0))
        ctx.save_for_backward(x1, given, slopes, pulls)
        ctx.forms, ctx.epsilon = forms, c.epsilon
        log_probs = torch.from_numpy(values).reshape(x1.shape[:-1])
        return log_probs.to(torch.promote_types(_dtype(x1), _dtype(given)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x1, given, slopes, pulls = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            needs = ctx.needs_input_grad[2:]
            found = _twice(ctx.forms.log_prob(x1, given=given), (x1, given), needs, grads[0])
            return None, None, *found
        grad = grads[0].double().unsqueeze(-1)
        to_ends = to_starts = None
        if slopes is not None:
            to_ends = (grad * slopes).to(x1.dtype)
        if pulls is not None:
            whole = grad * ((x1.double() - given.double() - pulls) / ctx.epsilon)
            to_starts = whole.sum_to_size(given.shape).to(given.dtype)
        return None, None, to_ends, to_starts


class _LogPhi(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: Components, forms: Forms, x: Tensor, t: float) -> Tensor:
        places = _array(x)
        ctx.save_for_backward(x, torch.from_numpy(c.drift(places, t) / c.epsilon))
        ctx.forms, ctx.t = forms, t
        return torch.from_numpy(c.log_phi(places, t)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            found = ctx.forms.log_phi(x, ctx.t * ctx.forms.horizon)
            return None, None, *_twice(found, (x,), (True,), grads[0]), None
        return None, None, (grads[0].double().unsqueeze(-1) * slopes).to(x.dtype), None


def _twice(value: Tensor, inputs: tuple[Tensor, ...], needs: Any, grad: Tensor) -> list[Any]:
    """Return gradients that can be differentiated themselves, None where none is needed."""
    wanted = [tensor for tensor, needed in zip(inputs, needs, strict=True) if needed]
    found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
    return [next(found) if needed else None for needed in needs]


def _array(x: Tensor) -> Any:
    return x.double().numpy(force=True)


def _dtype(rows: Tensor) -> torch.dtype:
    return rows.dtype if rows.is_floating_point() else torch.float64
