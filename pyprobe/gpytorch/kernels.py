r"""The Matern kernel with a smoothness that is learned.

.. math:: k(x_1, x_2) = M_\nu(\sqrt{2 \nu}\, r), \qquad
          M_\nu(z) = \frac{2^{1 - \nu}}{\Gamma(\nu)}\, z^\nu K_\nu(z),

where :math:`r` is the distance of the points in lengthscales (Rasmussen and Williams 2006,
equation 4.14). GPyTorch offers nu = 1/2, 3/2 and 5/2, where the Bessel function is elementary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import gpytorch
import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.kernels import Kernel
from gpytorch.priors import Prior
from torch import Tensor

from pyprobe.errors import DomainError
from pyprobe.special import log_matern

__all__ = ["MaternKernel", "as_kernel", "from_gpytorch"]

_HALF_INTEGERS = (0.5, 1.5, 2.5)


class MaternKernel(Kernel):
    r"""Matern kernel of any smoothness ``nu > 0``, learned like the lengthscale.

    Samples are :math:`\lceil \nu \rceil - 1` times differentiable in mean square; nu = 1/2 is the
    exponential kernel, nu to infinity the squared exponential. It has no output scale: wrap it in a
    ``gpytorch.kernels.ScaleKernel``.

    Parameters
    ----------
    nu : float or Tensor, shape (\*batch_shape, 1, 1) or one that broadcasts, default 2.5
        The smoothness to start from. ``kernel.raw_nu.requires_grad_(False)`` keeps it there.
    nu_prior : gpytorch.priors.Prior, optional
        Prior of ``nu``. Data say little about a large nu, so a prior helps.
    nu_constraint : gpytorch.constraints.Interval, optional
        Default ``Positive()``. ``GreaterThan(0.5)`` keeps gradients in the inputs finite at
        coincident points.
    **kwargs
        As for every GPyTorch kernel: ``ard_num_dims``, ``batch_shape``, ``active_dims``,
        ``lengthscale_prior``, ``lengthscale_constraint``.

    Attributes
    ----------
    nu : Tensor, shape (\*batch_shape, 1, 1)
        The smoothness.
    raw_nu : torch.nn.Parameter, shape (\*batch_shape, 1, 1)
        What an optimizer moves: ``nu`` before its constraint.

    Raises
    ------
    DomainError
        If ``nu`` lies outside its constraint.

    Notes
    -----
    Cost O(n m d), and O(n m) memory. Values and gradients come from `pyprobe.special.log_matern`.
    Differentiable twice in ``nu``, the lengthscale and the inputs, coincident points included.
    Where a derivative in the inputs does not exist there (the first for nu <= 1/2, the second for
    nu <= 1), coincident points add zero to it.

    References
    ----------
    .. [1] C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, MIT
       Press, 2006, equation 4.14.
    .. [2] M. L. Stein, Interpolation of Spatial Data, Springer, 1999, section 2.7.

    Examples
    --------
    >>> import torch
    >>> from gpytorch.kernels import ScaleKernel
    >>> from pyprobe.gpytorch import MaternKernel
    >>> kernel = ScaleKernel(MaternKernel(nu=0.8, ard_num_dims=2))
    >>> covariance = kernel(torch.rand(5, 2)).to_dense()
    >>> covariance.sum().backward()
    >>> kernel.base_kernel.raw_nu.grad.shape
    torch.Size([1, 1])
    """

    has_lengthscale = True

    def __init__(
        self,
        nu: float | Tensor = 2.5,
        *,
        nu_prior: Prior | None = None,
        nu_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.register_parameter("raw_nu", torch.nn.Parameter(torch.zeros(*self.batch_shape, 1, 1)))
        if nu_prior is not None:
            if not isinstance(nu_prior, Prior):
                raise TypeError(
                    f"'nu_prior' must be a gpytorch.priors.Prior; got {type(nu_prior).__name__}."
                )
            self.register_prior("nu_prior", nu_prior, _get_nu, _set_nu)
        self.register_constraint("raw_nu", Positive() if nu_constraint is None else nu_constraint)
        self.nu = nu

    @property
    def nu(self) -> Tensor:
        r"""The smoothness, shape (\*batch_shape, 1, 1)."""
        return self.raw_nu_constraint.transform(self.raw_nu)

    @nu.setter
    def nu(self, value: float | Tensor) -> None:
        try:
            value = torch.as_tensor(value).to(self.raw_nu).expand(self.raw_nu.shape)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"'nu' must be a number, or a tensor that broadcasts to {tuple(self.raw_nu.shape)};"
                f" got {value!r}."
            ) from error
        constraint = self.raw_nu_constraint
        if not (bool(((value > 0) & value.isfinite()).all()) and constraint.check(value)):
            raise DomainError(
                f"'nu' must be finite, positive and within {constraint}; got {value.tolist()}."
            )
        self.initialize(raw_nu=constraint.inverse_transform(value))

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,  # noqa: ARG002  # part of GPyTorch's signature
    ) -> Tensor:
        """Return the correlations, shape (..., n, m), or (..., n) where `diag`."""
        nu, lengthscale = self.nu, self.lengthscale
        if self.ard_num_dims is not None:
            x1, x2, lengthscale = x1 / lengthscale, x2 / lengthscale, None
        if last_dim_is_batch:
            x1, x2 = x1.mT.unsqueeze(-1), x2.mT.unsqueeze(-1)
            nu = nu.unsqueeze(-3)
            lengthscale = None if lengthscale is None else lengthscale.unsqueeze(-3)
        if diag:
            squared = (x1 - x2).square().sum(-1)
            nu = nu.squeeze(-1)
            lengthscale = None if lengthscale is None else lengthscale.squeeze(-1)
        else:
            squared = _squared_distance(x1, x2)
        # One lengthscale divides after the distances: its gradient then needs none in the inputs.
        return _correlation(nu, squared if lengthscale is None else squared / lengthscale.square())


def from_gpytorch(kernel: Kernel) -> Kernel:
    """Copy a GPyTorch kernel and its state, with our `MaternKernel` in place of GPyTorch's.

    Predictions stay the same, and ``nu`` may be learned from there.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        A ``gpytorch.kernels.MaternKernel``, or any kernel that holds some: scaled, summed, product.

    Returns
    -------
    gpytorch.kernels.Kernel
        A new kernel; `kernel` is left as it was.

    Raises
    ------
    DomainError
        If there is no ``gpytorch.kernels.MaternKernel`` in it.

    Examples
    --------
    >>> import gpytorch
    >>> from pyprobe.gpytorch import from_gpytorch
    >>> kernel = from_gpytorch(gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=1.5)))
    >>> round(kernel.base_kernel.nu.item(), 6)
    1.5
    """
    return _converted(kernel, gpytorch.kernels.MaternKernel, _from_half_integer)


def as_kernel(kernel: Kernel) -> Kernel:
    """Copy a kernel and its state, with GPyTorch's own Matern kernel in place of ours.

    The other direction of `from_gpytorch`, for code that knows GPyTorch's kernels alone.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        A `MaternKernel` with nu = 1/2, 3/2 or 5/2, or any kernel that holds some.

    Returns
    -------
    gpytorch.kernels.Kernel
        A new kernel; `kernel` is left as it was. A prior of ``nu`` is dropped.

    Raises
    ------
    DomainError
        If there is no `MaternKernel` in it, or one has another smoothness.

    Examples
    --------
    >>> from pyprobe.gpytorch import MaternKernel, as_kernel
    >>> as_kernel(MaternKernel(nu=1.5)).nu
    1.5
    """
    return _converted(kernel, MaternKernel, _to_half_integer)


def _get_nu(kernel: MaternKernel) -> Tensor:
    return kernel.nu


def _set_nu(kernel: MaternKernel, value: Tensor) -> None:
    kernel.nu = value


def _correlation(nu: Tensor, squared: Tensor) -> Tensor:
    """Matern correlation at squared distances, differentiable twice, zero distances included.

    At zero the chain through the square root is 0 * inf; there the first two terms of the series,
    1 - nu r^2 / (2 (nu - 1)), stand in. They hold for nu > 1; below, the derivative in r^2 is
    infinite, while that in the inputs is zero (or does not exist): the slope 0 says so.
    """
    apart = squared > 0
    argument = (2 * nu * torch.where(apart, squared, 1)).sqrt()
    smooth = nu > 1
    slope = torch.where(smooth, nu / (2 * (torch.where(smooth, nu, 2) - 1)), 0)
    log_correlation = cast(Tensor, log_matern(nu, argument))
    return torch.where(apart, log_correlation.exp(), 1 - slope * squared)


def _squared_distance(x1: Tensor, x2: Tensor) -> Tensor:
    # Outside the Function: what autograd sums over a broadcast batch is its own business.
    batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    return _SquaredDistance.apply(
        x1.expand(*batch, *x1.shape[-2:]), x2.expand(*batch, *x2.shape[-2:])
    )


class _SquaredDistance(torch.autograd.Function):
    """Squared distances of all pairs from differences, never from |x|^2 + |y|^2 - 2 x.y.

    Coincident points get exactly 0, where GPyTorch's product form leaves 1e-15 and its gradients
    lose half their digits between near points. A plain composition would hold (n, m, d) numbers.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x1: Tensor, x2: Tensor) -> Tensor:
        distance = torch.cdist(x1, x2, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x1, x2 = ctx.saved_tensors
        need1, need2 = ctx.needs_input_grad
        twice = 2 * grad
        rows, columns = [], []
        for a, b in zip(x1.unbind(-1), x2.unbind(-1), strict=True):
            pull = twice * (a.unsqueeze(-1) - b.unsqueeze(-2))
            if need1:
                rows.append(pull.sum(-1))
            if need2:
                columns.append(-pull.sum(-2))
        return torch.stack(rows, -1) if need1 else None, torch.stack(columns, -1) if need2 else None


def _converted(kernel: Kernel, kind: type[Kernel], convert: Callable[[Any], Kernel]) -> Kernel:
    """Return a copy of `kernel` with each part of type `kind` converted."""
    kernel = copy.deepcopy(kernel)
    parts = [
        (path, part)
        for path, part in kernel.named_modules(remove_duplicate=False)
        if type(part) is kind
    ]
    if not parts:
        library = kind.__module__.partition(".")[0]
        raise DomainError(
            f"'kernel' must be or hold a {library} {kind.__name__}; got {type(kernel).__name__}."
        )
    converted = {part: convert(part) for _, part in parts}
    for path, part in parts:
        if path:
            kernel.set_submodule(path, converted[part])
    return converted.get(kernel, kernel)


def _from_half_integer(kernel: Kernel) -> MaternKernel:
    converted = MaternKernel(**_options(kernel))
    _carry(kernel, converted)
    converted.nu = kernel.nu  # in its own dtype: a constraint's round trip in float32 costs digits
    return converted


def _to_half_integer(kernel: MaternKernel) -> Kernel:
    nu = kernel.nu.detach()
    near = [half for half in _HALF_INTEGERS if (nu - half).abs().max() <= 1e-6 * half]
    if not near:
        came = ", ".join(f"{value:.6g}" for value in nu.flatten())
        raise DomainError(
            f"'kernel' must have nu = 0.5, 1.5 or 2.5, those that GPyTorch offers; got {came}."
        )
    converted = gpytorch.kernels.MaternKernel(nu=near[0], **_options(kernel))
    _carry(kernel, converted)
    return converted


def _options(kernel: Kernel) -> dict[str, Any]:
    return {
        "ard_num_dims": kernel.ard_num_dims,
        "batch_shape": kernel.batch_shape,
        "active_dims": kernel.active_dims,
        "lengthscale_constraint": kernel.raw_lengthscale_constraint,
        "lengthscale_prior": getattr(kernel, "lengthscale_prior", None),
    }


def _carry(source: Kernel, target: Kernel) -> None:
    """Give `target` the lengthscale, dtype, device and mode of `source`."""
    target.to(source.raw_lengthscale)
    with torch.no_grad():
        target.raw_lengthscale.copy_(source.raw_lengthscale)
    target.raw_lengthscale.requires_grad_(source.raw_lengthscale.requires_grad)
    target.train(source.training)
