"""Differentiable torch operations around kernels that autograd cannot look into.

A kernel declares its derivative rule once; `op` makes these calls of it, and picks one:

| when                        | what runs                                                |
|-----------------------------|----------------------------------------------------------|
| nothing needs a derivative  | the kernel itself                                        |
| a gradient is needed        | an ``autograd.Function`` around the kernel               |
| forward mode, ``torch.func``| one with ``jvp`` and ``vmap``                            |
| ``torch.compile``,          | a custom op with a fake kernel and the same rule         |
| ``torch.jit.trace`` or a    |                                                          |
| mode like ``make_fx`` traces|                                                          |

Only while tracing: a custom op returns zero tangents in forward mode without an error.

The rule is written with differentiable operations, usually the op itself under other parameters, so
that second order comes free. First order stays cheap nevertheless: the kernel is asked for the
value and the partial derivatives that will be wanted in one call, and the backward pass uses the
rule only where it is itself to be differentiated (``create_graph=True``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, is_grad_enabled

# Private, but the only way to ask; torch's own functions ask in the same words.
from torch._C import _are_functorch_transforms_active as _are_transforms_active
from torch._C import _len_torch_dispatch_stack as _count_modes
from torch._C._functorch import is_functorch_wrapped_tensor as is_wrapped
from torch._C._functorch import is_legacy_batchedtensor as is_batched
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.jit import is_tracing  # type: ignore[attr-defined]  # documented, not in a stub

from pyprobe.errors import PyprobeError

__all__ = [
    "Op",
    "check_eager",
    "check_one_by_one",
    "is_batched",
    "is_plain",
    "is_tracing",
    "is_wrapped",
    "once",
    "op",
]

Marks: TypeAlias = tuple[bool, ...]
"""One for each input."""

Kernel: TypeAlias = Callable[..., Sequence[Tensor]]
"""``kernel(parameters, wanted, *inputs)``: the value, then the partial derivatives in the inputs
that `wanted` marks, all of the broadcast shape. It never sees a graph, a tangent or a batch of
``torch.func.vmap``."""

Partial: TypeAlias = Callable[..., Tensor]
"""``partial(parameters, index, *inputs)``: the derivative in input `index`, differentiable."""


Saves: TypeAlias = Callable[[tuple[int, ...], Marks], Marks]
"""``saves(parameters, needed)``: the inputs that need a gradient and whose partial derivatives the
kernel gives together with the value. By default it gives none, and `wanted` marks nothing."""


def op(
    name: str, n_inputs: int, kernel: Kernel, partial: Partial, *, saves: Saves | None = None
) -> Op:
    """Make a differentiable elementwise operation of a kernel and its partial derivatives.

    `name` is that of the custom op, ``pyprobe::name``. The result is called with the parameters,
    one or more ints in a tuple that `kernel` and `partial` know how to read (torch mistakes an
    empty one for a list of tensors), and `n_inputs` tensors of one floating dtype and device, which
    broadcast.
    """
    return Op(name, n_inputs, kernel, partial, saves)


def is_plain(inputs: tuple[Tensor, ...]) -> bool:
    """Whether nothing differentiates, transforms or traces what is done with these tensors."""
    if is_compiling() or is_tracing() or _are_transforms_active() or _count_modes():
        return False
    if forward_ad._current_level >= 0:  # noqa: SLF001
        return False
    if is_grad_enabled():
        for tensor in inputs:
            if tensor.requires_grad:
                return False
    return True


def check_eager(name: str, tensors: Iterable[Tensor]) -> None:
    """Raise unless autograd in reverse mode is all that may want to see what is done with these.

    For a function that reads the numbers of its tensors: tracers would take what they see for
    constants, and the transforms of ``torch.func`` would find nothing to transform.
    """
    if is_compiling() or is_tracing() or _count_modes():
        raise RuntimeError(
            f"'{name}' reads the numbers it is given, so it cannot be traced or compiled: call it "
            "outside, or from a function under torch.compiler.disable."
        )
    for tensor in tensors:
        if is_wrapped(tensor):
            raise RuntimeError(
                f"'{name}' cannot be transformed by torch.func (grad, vmap, jvp, hessian): "
                "differentiate with torch.autograd, and loop over what would be mapped."
            )
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:  # noqa: SLF001
            raise RuntimeError(
                f"'{name}' has no derivatives in forward mode: differentiate in reverse, with "
                "torch.autograd.grad or backward()."
            )


def check_one_by_one(what: str, *grads: Tensor | None) -> None:
    """Raise where what comes down a backward pass is a batch of gradients; `what` is plural."""
    if any(grad is not None and is_batched(grad) for grad in grads):
        raise PyprobeError(
            f"{what} have no rule for batched gradients. Take one at a time (vectorize=False, "
            "is_grads_batched=False)."
        )


def once(message: str, gradients: Sequence[Tensor | None], *inputs: Tensor) -> list[Tensor | None]:
    """Return gradients whose own derivative, in `inputs` or what came down, raises `message`.

    For a backward pass that runs under ``create_graph=True``. torch's ``once_differentiable``
    leaves the gradients without a graph if what came down had none: they pass for constants.
    """
    return [None if g is None else _Once.apply(message, g, *inputs) for g in gradients]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, message: str, gradient: Tensor, *inputs: Tensor) -> Tensor:  # noqa: ARG004
        ctx.message = message
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ARG004
        raise RuntimeError(ctx.message)


class Op:
    """A differentiable elementwise operation; made by `op`."""

    def __init__(
        self, name: str, n_inputs: int, kernel: Kernel, partial: Partial, saves: Saves | None
    ) -> None:
        self.kernel, self.partial, self.saves = kernel, partial, saves
        self.nothing_wanted = (False,) * n_inputs
        inputs = ", ".join(f"Tensor input_{i}" for i in range(n_inputs))
        self.traced = torch.library.custom_op(
            f"pyprobe::{name}",
            lambda *arguments: list(kernel(*_ordered(arguments))),
            mutates_args=(),
            schema=f"({inputs}, int[] parameters, int[] wanted) -> Tensor[]",
            # The twin may wait for the device, to gather the elements of a region.
            tags=(torch.Tag.cudagraph_unsafe,) if hasattr(torch.Tag, "cudagraph_unsafe") else (),
        )
        self.traced.register_fake(_fake)
        self.traced.register_autograd(self._traced_backward, setup_context=_traced_context)

    def __call__(self, parameters: tuple[int, ...], *inputs: Tensor) -> Tensor:
        """Evaluate at `inputs`."""
        if is_plain(inputs):
            return self.kernel(parameters, self.nothing_wanted, *inputs)[0]
        tracing = is_compiling()
        if _are_transforms_active() or forward_ad._current_level >= 0:  # noqa: SLF001
            if tracing:
                # Seen as an exception, the compiler gives the function up, or says so.
                raise RuntimeError(
                    "torch.func's transforms of this function cannot be compiled: a custom op "
                    "would silently return zero tangents. Compile the function, or transform the "
                    "compiled one."
                )
            return _Transformed.apply(self, parameters, *inputs)  # type: ignore[no-any-return]  # untyped in torch
        wanted = self.nothing_wanted
        # The older tracer compares what it records with and without gradients.
        if self.saves is not None and is_grad_enabled() and not is_tracing():
            wanted = self.saves(parameters, tuple([tensor.requires_grad for tensor in inputs]))
        if tracing or is_tracing() or _count_modes():
            found: list[Tensor] = self.traced(*inputs, parameters, wanted)
            return found[0]
        return _Reverse.apply(self, parameters, wanted, *inputs)  # type: ignore[no-any-return]  # untyped in torch

    def gradients(
        self,
        parameters: tuple[int, ...],
        inputs: Sequence[Tensor],
        saved: Sequence[Tensor | None],
        needs: Sequence[bool],
        grad: Tensor,
    ) -> list[Tensor | None]:
        """Return the product of `grad` with each partial derivative that is needed."""
        gradients: list[Tensor | None] = [None] * len(inputs)
        for index, tensor in enumerate(inputs):
            if needs[index]:
                derivative = saved[index]
                if derivative is None or is_grad_enabled():
                    derivative = self.partial(parameters, index, *inputs)
                gradients[index] = _times(grad, derivative).sum_to_size(tensor.shape)
        return gradients

    def _traced_backward(self, ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
        inputs, saved = _restore(ctx)
        gradients: list[Tensor | None] = [None] * len(inputs)
        if grads[0] is not None:
            needs = ctx.needs_input_grad
            gradients = self.gradients(ctx.parameters, inputs, saved, needs, grads[0])
        return *gradients, None, None


class _Reverse(torch.autograd.Function):
    """The kernel with its rule in reverse mode.

    Not `_Transformed`: what torch does around ``setup_context`` takes ten times as long.
    """

    @staticmethod
    def forward(
        ctx: Any,
        op: Op,
        parameters: tuple[int, ...],
        wanted: Marks,
        *inputs: Tensor,
    ) -> Tensor:
        value, *partials = op.kernel(parameters, wanted, *inputs)
        ctx.op, ctx.parameters, ctx.wanted = op, parameters, wanted
        ctx.save_for_backward(*inputs, *partials)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        inputs, saved = _restore(ctx)
        needs = ctx.needs_input_grad[3:]
        return None, None, None, *ctx.op.gradients(ctx.parameters, inputs, saved, needs, grads[0])


class _Transformed(torch.autograd.Function):
    """The kernel with its rule in forward mode and under the transforms of torch.func, nested.

    These differentiate the rule itself, so that nothing but the inputs is saved.
    """

    @staticmethod
    def forward(op: Op, parameters: tuple[int, ...], *inputs: Tensor) -> Tensor:
        # Not the kernel itself: below a frame that the compiler gave up, this one may be traced.
        found: list[Tensor] = op.traced(*inputs, parameters, op.nothing_wanted)
        return found[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.op, ctx.parameters, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        inputs, needs = ctx.saved_tensors, ctx.needs_input_grad[2:]
        if grads[0] is None:
            return (None,) * (len(inputs) + 2)
        saved = [None] * len(inputs)
        return None, None, *ctx.op.gradients(ctx.parameters, inputs, saved, needs, grads[0])

    @staticmethod
    def jvp(ctx: Any, *arguments: Tensor | None) -> Tensor | None:
        # torch disables forward mode within a jvp rule, which would lose the tangents of an outer
        # transform without a word (jacfwd of jacfwd). Enabled again, the rule must see the primals,
        # or it would be asked for tangents of this level for ever.
        inputs = [forward_ad.unpack_dual(tensor).primal for tensor in ctx.saved_tensors]
        total: Tensor | None = None
        with forward_ad._set_fwd_grad_enabled(True):  # noqa: SLF001
            for index, tangent in enumerate(arguments[2:]):
                if tangent is not None:
                    term = _times(tangent, ctx.op.partial(ctx.parameters, index, *inputs))
                    total = term if total is None else total + term
        return total

    @staticmethod
    def vmap(
        info: Any,  # noqa: ARG004
        in_dims: tuple[int | None, ...],
        op: Op,
        parameters: tuple[int, ...],
        *inputs: Tensor,
    ) -> tuple[Tensor, int]:
        dims = in_dims[2:]
        rank = max(t.ndim - (dim is not None) for t, dim in zip(inputs, dims, strict=True))
        aligned = [
            # The batch in front, then ones, so that the rest broadcasts as it did.
            t if dim is None else t.movedim(dim, 0)[(slice(None), *[None] * (rank - t.ndim + 1))]
            for t, dim in zip(inputs, dims, strict=True)
        ]
        return op(parameters, *aligned), 0


def _restore(ctx: Any) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """Return the inputs, and for each its saved partial derivative or None."""
    tensors, n = ctx.saved_tensors, len(ctx.wanted)
    partials = iter(tensors[n:])
    return tensors[:n], [next(partials, None) if wanted else None for wanted in ctx.wanted]


def _traced_context(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    *tensors, parameters, wanted = inputs
    ctx.parameters, ctx.wanted = tuple(parameters), tuple(map(bool, wanted))
    partials = output[1:]
    ctx.mark_non_differentiable(*partials)
    ctx.save_for_backward(*tensors, *partials)
    ctx.set_materialize_grads(False)


def _ordered(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of the custom op (schemas put tensors first) as a kernel takes them."""
    *inputs, parameters, wanted = arguments
    return tuple(parameters), tuple(map(bool, wanted)), *inputs


def _fake(*arguments: Any) -> list[Tensor]:
    *inputs, _, wanted = arguments
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in inputs))
    return [inputs[0].new_empty(shape) for _ in range(1 + sum(wanted))]


def _times(factor: Tensor, derivative: Tensor) -> Tensor:
    """Return the product, with 0 for 0 * inf: a masked-out element sends a zero.

    Only the infinite derivative is replaced: at a zero `factor` the product must keep its own
    derivative in `factor`.
    """
    masked = (factor == 0) & derivative.isinf()
    return factor * torch.where(masked, 0.0, derivative)
