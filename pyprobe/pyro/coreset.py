"""Small stand-ins for tall data in Pyro's models: a likelihood factor, and weighted rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyprobe._validate import as_float_array, check_finite
from pyprobe.errors import DomainError, PyprobeError, ShapeError
from pyprobe.pyro.distributions import _check_tensor
from pyprobe.sketching import GLMCoreset

__all__ = ["glm_coreset_factor", "weighted_plate"]


def glm_coreset_factor(coreset: GLMCoreset, theta: Tensor, *, name: str = "likelihood") -> None:
    r"""Add the log-likelihood of all the data, as a coreset has it, to a model.

    It stands for the plate over the data and the observed site within it. The prior of `theta` is
    the model's own; hierarchies and transforms are as usual.

    Parameters
    ----------
    coreset : GLMCoreset
        Of `pyprobe.sketching`, with its control variate.
    theta : Tensor, shape (..., d)
        The coefficients. The batch dimensions are those of the plates around, such as the particles
        of an ELBO.
    name : str, default "likelihood"
        Of the site.

    Raises
    ------
    ShapeError   if the last dimension of `theta` is not d.
    DomainError  if the coreset has no control variate: its posterior would be off by many widths.
    TypeError    if `coreset` is something else, or `theta` no tensor of floats.

    Notes
    -----
    The factor is the log-likelihood less ``coreset.center_value``: a number near 0 where the
    posterior is, so that float32 keeps its digits. Add that constant to an evidence, or to an ELBO
    that is compared with another model's. Use the factor outside plates over data: each of their
    rows would count all the data once more. Cost O(m d + d^2).

    Start a sampler at the center, ``NUTS(model, init_strategy=init_to_value(values={"theta":
    torch.tensor(coreset.center)}))``: it is the mode, or near it, and the coreset is good there.

    Examples
    --------
    >>> import numpy as np, torch, pyro
    >>> import pyro.distributions as dist
    >>> from pyprobe.pyro import glm_coreset_factor
    >>> from pyprobe.sketching import GLMCoreset
    >>> rng = np.random.default_rng(0)
    >>> x = np.column_stack([np.ones(5000), rng.normal(size=5000)])
    >>> y = rng.poisson(np.exp(x @ [0.5, 0.3]))
    >>> coreset = GLMCoreset.fit(x, y, family="poisson", n_samples=50, prior_precision=1.0, rng=0)
    >>> def model():
    ...     theta = pyro.sample("theta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...     glm_coreset_factor(coreset, theta)
    >>> pyro.poutine.trace(model).get_trace().nodes["likelihood"]["fn"].batch_shape
    torch.Size([])
    """
    if not isinstance(coreset, GLMCoreset):
        raise TypeError(
            "'coreset' must be a GLMCoreset of pyprobe.sketching; got "
            f"{type(coreset).__name__}. Any other weighted sample goes into a weighted_plate."
        )
    if not coreset.control_variate:
        raise DomainError(
            "'coreset' must have its control variate: the posterior of a plain weighted sample is "
            f"off by about {coreset.info.expected_error:.2g} standard deviations. Fit it with "
            "control_variate=True; to optimize, minimize its log_likelihood."
        )
    _check_tensor("theta", theta)
    value: Any = coreset.log_likelihood(theta.double())
    ratio = value - coreset.center_value
    pyro.factor(name, ratio.to(theta.dtype))


@contextmanager
def weighted_plate(
    name: str,
    weights: Any,
    *,
    dim: int | None = None,
    subsample_size: int | None = None,
    allow_latent: bool = False,
) -> Iterator[Tensor]:
    r"""Open a plate whose rows count with weights: a weighted sample in any model.

    Each row's log-density is multiplied by its weight, as if the row were there that many times.

    Parameters
    ----------
    name : str
        Of the plate.
    weights : array_like or Tensor, shape (m,)
        Positive, one a row: such as the ``weights`` of a sample of rows, which say how many rows of
        all the data each stands for.
    dim : int, optional
        As in ``pyro.plate``: the batch dimension, negative.
    subsample_size : int, optional
        As in ``pyro.plate``: how many rows are taken at random each time. Select the data by the
        index that the plate yields.
    allow_latent : bool, default False
        Whether sites within may be latent. Their terms are weighted too, which is right for the
        ELBO of a guide with a factor for each row, as where Pyro subsamples, and for nothing else:
        integrated over a latent value, as by MCMC, a weighted term is not the weighted logarithm
        of the marginal.

    Yields
    ------
    Tensor
        The indices of the rows.

    Raises
    ------
    TypeError       if the weights are no real numbers.
    ShapeError      if they are no vector, or have no entry.
    DomainError     if a weight is not positive.
    NotFiniteError  if a weight is infinite or NaN.
    PyprobeError    if a site within is enumerated, or is latent without `allow_latent`.

    Warnings
    --------
    A weighted sample moves posterior means by about :math:`\sqrt{n / m}` of their standard
    deviations, however it is drawn: the weights are right on average only. It serves to optimize.
    For posteriors of generalized linear models see `glm_coreset_factor`.

    Notes
    -----
    Enumerated sites are refused: the weight of a mixture's row belongs on the logarithm of the sum
    over its components, but Pyro would multiply each term within the sum. Write the sum yourself,
    with an observed ``MixtureSameFamily`` or a ``pyro.factor`` of the marginal.

    Examples
    --------
    >>> import torch, pyro
    >>> import pyro.distributions as dist
    >>> from pyprobe.pyro import weighted_plate
    >>> y, weights = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([1.0, 2.5, 10.0])
    >>> def model():
    ...     mean = pyro.param("mean", torch.tensor(2.0))
    ...     with weighted_plate("rows", weights) as rows:
    ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])
    >>> found = pyro.poutine.trace(model).get_trace().log_prob_sum()
    >>> bool(torch.isclose(found, weights @ dist.Normal(2.0, 1.0).log_prob(y)))
    True
    """
    counts = _as_weights(weights)
    plate = pyro.plate(name, len(counts), dim=dim, subsample_size=subsample_size)
    with plate as rows:
        if rows.device != counts.device:
            counts = counts.to(rows.device)
        # The plate has now chosen its dimension, counted from the right.
        scale = counts[rows].reshape(-1, *[1] * (-plate.dim - 1))
        with poutine.scale(scale=scale), _Refusals(name, allow_latent):
            yield rows


class _Refusals(Messenger):
    """Refuses the sites that weights would make mean something else."""

    def __init__(self, plate: str, allow_latent: bool) -> None:
        super().__init__()
        self._plate, self._allow_latent = plate, allow_latent

    def _pyro_post_sample(self, msg: Any) -> None:
        # After all handlers outside, which enumerate and condition, have had their say.
        if site_is_subsample(msg):  # of a plate within
            return
        infer = msg["infer"] or {}
        if infer.get("enumerate") is not None or infer.get("_enumerate_dim") is not None:
            raise PyprobeError(
                f"'{msg['name']}' must not be enumerated within the weighted plate "
                f"'{self._plate}': the weights would multiply the terms within its sum. Observe "
                "its marginal, as with MixtureSameFamily, or pass that to pyro.factor."
            )
        if not (msg["is_observed"] or self._allow_latent):
            raise PyprobeError(
                f"'{msg['name']}' must be observed within the weighted plate '{self._plate}': a "
                "latent value's terms would be weighted with it, which is wrong for MCMC. For an "
                "ELBO with a guide for every row, pass allow_latent=True."
            )


def _as_weights(weights: Any) -> Tensor:
    if not isinstance(weights, Tensor):
        array = np.array(as_float_array("weights", weights))
        weights = torch.as_tensor(array, dtype=torch.get_default_dtype())
    if weights.is_complex() or weights.is_meta:
        kind = weights.device if weights.is_meta else weights.dtype
        raise TypeError(f"'weights' must hold real numbers; got a tensor of {kind}. Pass floats.")
    if weights.ndim != 1 or len(weights) == 0:
        raise ShapeError(
            "'weights' must be a vector with an entry at least, one a row; got shape "
            f"{tuple(weights.shape)}. Leave a plate without rows out."
        )
    if not (weights > 0).all() or weights.isinf().any():
        values = weights.detach().cpu().double().numpy()
        check_finite("weights", values)
        index = int((values <= 0).argmax())
        raise DomainError(
            f"'weights' must be positive; got {values[index]:.6g} at index {index}. Drop such rows."
        )
    return weights
