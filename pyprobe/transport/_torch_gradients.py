r"""Derivatives of entropic transport on torch tensors.

With :math:`k_{ij} = e^{(f_i + g_j - C_{ij}) / \varepsilon}` the plan is :math:`P_{ij} = a_i b_j
k_{ij}`, and the potentials solve

.. math::
   \sum_j b_j k_{ij} = e^{-f_i / \rho_a}, \qquad \sum_i a_i k_{ij} = e^{-g_j / \rho_b},

also where a weight is 0 (without penalties the right-hand sides are 1). The value is the dual
objective; at its maximum only its explicit dependence on the data counts (the envelope theorem):

.. math::
   \partial_{a_i} = u_a(f_i) - \varepsilon (e^{-f_i / \rho_a} - |b|), \quad
   \partial_C = P, \quad
   \partial_\varepsilon = \mathrm{KL}(P | a b^T),

with :math:`u_a(f) = \rho_a (1 - e^{-f / \rho_a})`, or f without a penalty. Of costs between
points :math:`\partial_{x_i} = \sum_j P_{ij} \nabla_1 c(x_i, y_j)`, summed without a matrix. The
potentials themselves are differentiated by the implicit function theorem: `pull_back`.

Everything here is float64 except the costs, or the points, which keep their dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyprobe import _core
from pyprobe._autograd import check_one_by_one, is_batched, once
from pyprobe.transport import _torch_solver as twin
from pyprobe.transport._torch_points import Points, finite_costs, leaves, with_leaves

__all__ = ["Potentials", "Solved", "Value", "plan_of", "pull_back"]

_TWICE = (
    "The potentials and the plan of 'sinkhorn' are differentiable once, its value twice: this "
    "would need one derivative more of the potentials."
)


@dataclass(frozen=True, eq=False)
class Solved:
    """A problem and the potentials that solve it, as plain tensors outside any graph.

    `f` and `g` are 0 for atoms that no finite cost connects to any weight: there is nothing to say.
    """

    a: Tensor
    b: Tensor
    cost: Tensor | Points
    epsilon: float
    penalties: tuple[float, float]
    f: Tensor
    g: Tensor
    native: Any = None
    """What the Rust kernels take, where they run."""

    @property
    def slacks(self) -> tuple[float, float]:
        """Epsilon over the penalties; 0 where there is none."""
        return self.epsilon / self.penalties[0], self.epsilon / self.penalties[1]

    @cached_property
    def is_whole(self) -> bool:
        """Whether no pair is forbidden and every atom has weight: then nothing needs a mask."""
        if not bool((self.a.amin() > 0) & (self.b.amin() > 0)):
            return False
        return isinstance(self.cost, Points) or bool(self.cost.amax() < math.inf)

    @property
    def potentials(self) -> tuple[Tensor, Tensor]:
        """Those of the plan, scaled and with the weights in them."""
        return self.f / self.epsilon + self.a.log(), self.g / self.epsilon + self.b.log()

    def exponentials(self, a: Tensor, b: Tensor) -> Tensor:
        """Return ``a_i b_j k_ij``: the plan, or what would be the plan of other weights."""
        phi, gamma = self.f / self.epsilon + a.log(), self.g / self.epsilon + b.log()
        if self.native is None:
            return twin.plan(self.cost, self.epsilon, phi, gamma)
        plan = self.native.cost, self.epsilon, phi.numpy(), gamma.numpy()
        return torch.from_numpy(_core.transport_plan(plan))

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row sums, column sums and cost of the plan."""
        if self.native is not None:
            rows, columns, total = self.native.sums
            return torch.from_numpy(rows), torch.from_numpy(columns), self.f.new_tensor(total)
        return twin.sums(self.cost, self.epsilon, *self.potentials)

    def apply(self, v: Tensor, *, transpose: bool = False) -> Tensor:
        """Return the plan, or its transpose, times a vector or a matrix."""
        if self.native is None:
            return twin.apply(self.cost, self.epsilon, *self.potentials, v, transpose=transpose)
        matrix = v.reshape(len(v), math.prod(v.shape[1:])).contiguous().numpy(force=True)
        found = _core.transport_apply(self.native.plan, matrix, transpose=transpose)
        return torch.from_numpy(found).reshape(len(found), *v.shape[1:])

    def in_costs(self) -> tuple[Tensor, ...]:
        """Return the value's gradients in what the costs are made of, in float64."""
        if not isinstance(self.cost, Points):
            return (self.exponentials(self.a, self.b),)
        if self.native is None:
            return twin.position_gradient(self.cost, self.epsilon, *self.potentials)
        x, y = _core.transport_position_gradient(self.native.plan)
        return torch.from_numpy(x), torch.from_numpy(y)

    def solve(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the system of a Newton step; atoms without weight are left out."""
        if self.native is not None:
            x, y = _core.transport_solve_adjoint(
                self.native.plan,
                self.native.a,
                self.native.b,
                self.penalties,
                rows.numpy(),
                columns.numpy(),
            )
            return torch.from_numpy(x), torch.from_numpy(y)
        plan, (slack_a, slack_b) = self.exponentials(self.a, self.b), self.slacks
        r = plan.sum(1) + slack_a * self.a * torch.exp(-self.f / self.penalties[0])
        q = plan.sum(0) + slack_b * self.b * torch.exp(-self.g / self.penalties[1])
        return twin.solve_adjoint(plan, r, q, rows, columns, singular=slack_a == slack_b == 0)


class Value(torch.autograd.Function):
    """The dual objective, by the envelope theorem.

    A pass costs nothing beyond the weights, a pass over the plan where the costs want their
    gradient, and no memory beyond that gradient. Under ``create_graph=True`` the gradient is a
    differentiable expression of the inputs and of the potentials, through which second order comes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        solved: Solved,
        value: float,
        a: Tensor,
        b: Tensor,
        epsilon: Tensor,
        f: Tensor,
        g: Tensor,
        *cost: Tensor,
    ) -> Tensor:
        ctx.solved = solved
        ctx.save_for_backward(a, b, epsilon, f, g, *cost)
        return a.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        solved, (grad,) = ctx.solved, grads
        a, b, epsilon, f, g, *tensors = ctx.saved_tensors
        for_a, for_b, for_epsilon = ctx.needs_input_grad[2:5]
        for_cost = any(ctx.needs_input_grad[7:])
        gradients: list[Tensor | None] = [None] * 3
        in_cost: tuple[Tensor | None, ...] = (None,) * len(tensors)
        if for_a:
            gradients[0] = grad * _in_weights(f, solved.penalties[0], epsilon, b.sum())
        if for_b:
            gradients[1] = grad * _in_weights(g, solved.penalties[1], epsilon, a.sum())
        if torch.is_grad_enabled() and (for_cost or for_epsilon):
            cost = with_leaves(solved.cost, tuple(tensors))
            plan, exponent = plan_of(a, b, cost, epsilon, f, g, whole=solved.is_whole)
            if for_cost:
                in_cost = _in_leaves(cost, grad * plan)
            if for_epsilon:
                divergence = (plan * exponent).sum() - plan.sum() + a.sum() * b.sum()
                gradients[2] = grad * divergence
        elif for_cost or for_epsilon:
            if for_cost:
                parts = [part.to(solved.cost.dtype) for part in solved.in_costs()]
                if is_batched(grad):
                    parts = [part * grad.to(part.dtype) for part in parts]
                elif not (grad.is_cpu and grad == 1):  # elsewhere a look would wait for the device
                    parts = [part.mul_(grad.to(part.dtype)) for part in parts]
                in_cost = tuple(parts)
            if for_epsilon:
                rows, columns, total = solved.sums
                divergence = (rows @ f + columns @ g - total) / epsilon
                gradients[2] = grad * (divergence - rows.sum() + a.sum() * b.sum())
        return None, None, *gradients, None, None, *in_cost


def _in_leaves(cost: Tensor | Points, in_cost: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients in what costs are made of, in its dtype."""
    parts = cost.pull_back(in_cost) if isinstance(cost, Points) else (in_cost,)
    return tuple(part.to(cost.dtype) for part in parts)


def _in_weights(potential: Tensor, penalty: float, epsilon: Tensor, other: Tensor) -> Tensor:
    """Return the value's derivative in one side's weights; `other` is the other side's mass."""
    if math.isinf(penalty):
        return potential - epsilon * (1 - other)
    decay = torch.expm1(-potential / penalty)
    return -penalty * decay - epsilon * (1 + decay - other)


class Potentials(torch.autograd.Function):
    """The potentials f and g, by the implicit function theorem; differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, solved: Solved, a: Tensor, b: Tensor, epsilon: Tensor, *cost: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.solved = solved
        ctx.save_for_backward(a, b, epsilon, *cost)
        # Else the value's backward pass, which asks nothing of them, would send zeros here.
        ctx.set_materialize_grads(False)
        return solved.f.clone(), solved.g.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if grads[0] is None and grads[1] is None:
            return (None,) * (len(inputs) + 1)
        check_one_by_one("the potentials and the plan of 'sinkhorn'", *grads)
        solved, needs = ctx.solved, ctx.needs_input_grad[1:]
        with torch.no_grad():
            in_a, in_b, in_cost, in_epsilon = pull_back(
                solved, grads[0], grads[1], (needs[0], needs[1], any(needs[3:]), needs[2])
            )
            in_leaves: tuple[Tensor | None, ...] = (None,) * len(leaves(solved.cost))
            if in_cost is not None:
                in_leaves = _in_leaves(solved.cost, in_cost)
            gradients = [in_a, in_b, in_epsilon, *in_leaves]
        if torch.is_grad_enabled():
            gradients = once(_TWICE, gradients, *inputs)
        return None, *gradients


def pull_back(
    solved: Solved, f_bar: Tensor | None, g_bar: Tensor | None, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    r"""Return the gradients in a, b, C (float64) and epsilon that belong to those in f and g.

    Differentiating the equations of the potentials, those with weight multiplied by it,

    .. math::
       R_i\, df_i + \sum_j P_{ij}\, dg_j = \sum_j P_{ij}\, (dC_{ij} + (f_i + g_j - C_{ij})\,
           d\varepsilon / \varepsilon) - \varepsilon a_i \sum_j k_{ij}\, db_j

    and alike for the columns, with :math:`R_i = (1 + \varepsilon / \rho_a) a_i e^{-f_i / \rho_a}`.
    With multipliers (x, y) that solve the transposed (the same) system for :math:`(\bar f, \bar
    g)`, the right-hand sides give

    .. math::
       \bar C_{ij} = P_{ij} (x_i + y_j), \quad
       \bar a_i = -\varepsilon \sum_j b_j k_{ij} y_j, \quad
       \bar b_j = -\varepsilon \sum_i a_i k_{ij} x_i, \quad
       \bar\varepsilon = \langle \bar C, f + g - C \rangle / \varepsilon.

    (:math:`\bar a` is :math:`\varepsilon (x - \bar f / a)`, without the division and its
    cancellation.)

    Without penalties the equations leave a constant free, (f + c, g - c), which :math:`\langle a, f
    \rangle = \langle b, g \rangle` fixes: half of :math:`t = \sum \bar f - \sum \bar g` is taken
    from either side in proportion to the weights, and returns as :math:`-t f / 2M` and :math:`t g /
    2M`.

    The equation of an atom without weight is not multiplied: its potential depends on the others',
    they not on it. So its multiplier is found first; then it is as if its weight in the plan were
    1, with no other such atom beside it.
    """
    a, b, f, g, epsilon = solved.a, solved.b, solved.f, solved.g, solved.epsilon
    f_bar = torch.zeros_like(f) if f_bar is None else f_bar
    g_bar = torch.zeros_like(g) if g_bar is None else g_bar
    has_a, has_b = a > 0, b > 0
    unit_a, unit_b = torch.where(has_a, a, 1.0), torch.where(has_b, b, 1.0)
    plan = solved.exponentials(unit_a, unit_b).double()

    balanced = all(map(math.isinf, solved.penalties))
    t = (f_bar.sum() - g_bar.sum()) / (2 * a.sum()) if balanced else a.new_zeros(())
    f_bar, g_bar = f_bar - t * a, g_bar + t * b

    if not solved.is_whole:
        # Two atoms without weight: nothing bounds their entry, which is mostly multiplied by 0.
        plan.clamp_(max=1e300)
        slack_a, slack_b = solved.slacks
        x_free = f_bar * torch.exp(f / solved.penalties[0]) / (1 + slack_a)
        y_free = g_bar * torch.exp(g / solved.penalties[1]) / (1 + slack_b)
        x_free, y_free = torch.where(has_a, 0.0, x_free), torch.where(has_b, 0.0, y_free)
        f_bar = torch.where(has_a, f_bar - plan @ y_free, 0.0)
        g_bar = torch.where(has_b, g_bar - x_free @ plan, 0.0)
    x, y = solved.solve(f_bar, g_bar)
    if balanced:  # the solution's own constant, seen by gradients in weights off the simplex alone
        constant = (a @ x - b @ y) / (2 * a.sum())
        x, y = x - constant, y + constant
    if not solved.is_whole:
        x, y = torch.where(has_a, x, x_free), torch.where(has_b, y, y_free)

    gradients: list[Tensor | None] = [None] * 4
    if needs[0]:
        gradients[0] = -epsilon * (plan @ y) / unit_a - t * f
    if needs[1]:
        gradients[1] = -epsilon * (x @ plan) / unit_b + t * g
    if needs[2] or needs[3]:
        # An atom's equation has the other side's weight in it, which must be there.
        whole = solved.is_whole
        total = x[:, None] + y if whole else x[:, None] * has_b + has_a[:, None] * y
        in_cost = plan.mul_(total)
        del total
        if needs[3]:
            total = in_cost.mul(finite_costs(solved.cost)).sum()
            spread = in_cost.sum(1) @ f + in_cost.sum(0) @ g - total
            gradients[3] = spread / epsilon
        if needs[2]:
            gradients[2] = in_cost
    return gradients


def plan_of(
    a: Tensor,
    b: Tensor,
    cost: Tensor | Points,
    epsilon: Tensor,
    f: Tensor,
    g: Tensor,
    *,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the plan and its exponents ``(f_i + g_j - C_ij) / epsilon``, differentiable in all.

    Forbidden pairs, and pairs neither of which has weight, are 0 and without derivatives; `whole`
    says that there are none.
    """
    if isinstance(cost, Points):
        cost = cost.double()
    if whole:
        exponent = (f[:, None] + g - cost.double()) / epsilon
        return a[:, None] * b * exponent.exp(), exponent
    allowed = (cost < math.inf) & ((a > 0)[:, None] | (b > 0))
    finite = torch.where(allowed, cost, 0.0).double()
    exponent = (f[:, None] + g - finite) / epsilon
    # Not the product's mask: the derivative of an infinite exponential would be NaN.
    kernel = torch.where(allowed, exponent, -math.inf).exp()
    return a[:, None] * b * kernel, exponent
