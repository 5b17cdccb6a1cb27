"""Where a Schrödinger bridge goes from a place, as a distribution in Pyro's grammar."""

# ruff: noqa: SLF001  # the distribution takes over what the law holds

from __future__ import annotations

from typing import Any

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyprobe.errors import NotFiniteError
from pyprobe.pyro.distributions import _check_tensor
from pyprobe.transport import LightSchrodingerBridge
from pyprobe.transport._bridge_torch import Forms, forms_of
from pyprobe.transport._bridge_torch_law import BridgeLaw

__all__ = ["ConditionalBridge"]


class ConditionalBridge(BridgeLaw, TorchDistribution):
    r"""Where a Schrödinger bridge goes from a place: a Gaussian mixture.

    Parameters
    ----------
    bridge : LightSchrodingerBridge, or the module that its `to_torch` returns
        The parameters of a module are trained with the model: register it by ``pyro.module``.
    x0 : Tensor, shape (..., d)
        Where the process starts.
    t : float or Tensor, optional
        The time of the place, in (0, horizon]; default the horizon, the end. A tensor broadcasts
        with the batch shape of `x0`.
    reparam : bool, default False
        Whether draws carry gradients to `x0`, `t` and the parameters of a module: they are then
        drawn with `rsample`, in SVI as well.
    validate_args : bool, optional
        Whether to check arguments and values; by default as Pyro is set up.

    Raises
    ------
    ShapeError      if `x0` has no last dimension of d, or `t` does not broadcast with it.
    DomainError     if `t` is not in (0, horizon].
    NotFiniteError  if `x0` is infinite or NaN somewhere.
    TypeError       if `bridge` is something else, or `x0` no tensor of floats.

    Notes
    -----
    `log_prob` is differentiable, to any order, in the value, `x0`, `t` and the parameters of a
    module. A draw takes the component first, then d normal numbers, from torch's default generator,
    which ``pyro.set_rng_seed`` sets. Everything is computed in float64 and comes out in the dtype
    of `x0`. Cost O(k d) a value or draw, O(k d^2) with full scales.

    With ``reparam=True`` gradients are unbiased and of first order, by implicit reparameterization
    for scales of every kind. They vary the more, the wider the gaps between the components are;
    where these lie far apart, score gradients with a baseline may do better.

    Examples
    --------
    >>> import torch
    >>> from pyprobe.pyro import ConditionalBridge
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> bridge = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1], epsilon=0.5
    ... )
    >>> d = ConditionalBridge(bridge, torch.zeros(3, 2))
    >>> d.batch_shape, d.event_shape
    (torch.Size([3]), torch.Size([2]))
    >>> d.log_prob(d.sample((5,))).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        bridge: LightSchrodingerBridge | Forms,
        x0: Tensor,
        *,
        t: float | Tensor | None = None,
        reparam: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        _check_tensor("x0", x0)
        if isinstance(bridge, LightSchrodingerBridge):
            bridge = forms_of(bridge, x0.device)
        elif not isinstance(bridge, Forms):
            raise TypeError(
                "'bridge' must be a LightSchrodingerBridge, or the module that its to_torch() "
                f"returns; got {type(bridge).__name__}."
            )
        law = bridge.conditional(x0) if t is None else bridge.conditional_at(x0, t)
        if type(self)._validate_args if validate_args is None else validate_args:
            _check_place(x0)
        self.has_rsample = reparam
        super().__init__(law._components, law._start, *law._times, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ConditionalBridge:
        """Return the distribution with its batch expanded to `batch_shape`."""
        new = self._get_checked_instance(ConditionalBridge, _instance)
        new.has_rsample = self.has_rsample
        return super().expand(batch_shape, _instance=new)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, with gradients in the place, the time and the parameters, if made for it."""
        if not self.has_rsample:
            raise NotImplementedError(
                "draws of this ConditionalBridge carry no gradient. Use sample(), or make it with "
                "reparam=True."
            )
        return super().rsample(sample_shape)


def _check_place(x0: Tensor) -> None:
    finite = x0.detach().isfinite()
    if not finite.all():
        row = int((~finite.all(-1)).flatten().nonzero()[0])
        raise NotFiniteError(f"'x0' must be finite; got infinite or NaN entries in row {row}.")
