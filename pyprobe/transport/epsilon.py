"""A strength of the noise for a Schrödinger bridge, from the spread of the data."""

from __future__ import annotations

import numpy as np

from pyprobe._engine import Engine, select
from pyprobe._validate import as_matrix, check_finite, check_positive_float
from pyprobe.errors import DomainError, ShapeError
from pyprobe.typing import ArrayLike

__all__ = ["suggest_epsilon"]


def suggest_epsilon(x0: ArrayLike, x1: ArrayLike, *, fraction: float) -> float:
    r"""Return `fraction` of the mean squared distance between the rows of two samples.

    :math:`E |x_0 - x_1|^2 = |E x_0 - E x_1|^2 + \mathrm{tr} \mathrm{Cov}\, x_0 + \mathrm{tr}
    \mathrm{Cov}\, x_1`, over all pairs, which are not made.

    Parameters
    ----------
    x0 : array_like, shape (n, d)
        Starts, at least 2; tensors, too, on the CPU and without gradients.
    x1 : array_like, shape (m, d)
        Ends, at least 2.
    fraction : float
        Positive. The mean square includes that of all d coordinates: noise as large as the whole
        displacement in every coordinate has a fraction of 1 / d.

    Returns
    -------
    float
        An ``epsilon`` for a `LightSchrodingerBridge` of horizon 1; for another, divide by it.

    Raises
    ------
    ShapeError      if the shapes do not fit, or there are fewer than 2 rows.
    DomainError     if `fraction` is not positive, all rows of both samples are equal, or their
                    squared distances are beyond float64.
    NotFiniteError  if a sample is infinite or NaN somewhere.
    TypeError       if one sample is a tensor and the other is not.

    Notes
    -----
    Cost O((n + m) d). Sums run in float64.

    Examples
    --------
    >>> from pyprobe.transport import suggest_epsilon
    >>> suggest_epsilon([[0.0], [2.0]], [[4.0], [6.0]], fraction=0.1)
    1.8
    """
    fraction = check_positive_float("fraction", fraction)
    if select(x0, x1, names=("x0", "x1")) is not Engine.NATIVE:
        from pyprobe.transport import _torch

        x0, x1 = _torch.views("suggest_epsilon", x0=x0, x1=x1)
    samples = []
    for name, value in (("x0", x0), ("x1", x1)):
        matrix = as_matrix(name, value)
        if len(matrix) < 2 or matrix.shape[1] == 0:
            raise ShapeError(
                f"'{name}' must have at least 2 rows and 1 column; got shape {matrix.shape}."
            )
        check_finite(name, matrix)
        samples.append(matrix)
    if samples[0].shape[1] != samples[1].shape[1]:
        raise ShapeError(
            "'x0' and 'x1' must have as many columns as each other; got shapes "
            f"{samples[0].shape} and {samples[1].shape}."
        )
    if all((matrix == samples[0][0]).all() for matrix in samples):
        raise DomainError(
            "'x0' and 'x1' must hold rows that differ; all are equal. Give epsilon as a number."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        means = [matrix.mean(axis=0, dtype=np.float64) for matrix in samples]
        variances = [
            float(((matrix - mean) ** 2).mean(axis=0).sum())
            for matrix, mean in zip(samples, means, strict=True)
        ]
        distance = float(((means[0] - means[1]) ** 2).sum()) + sum(variances)
    least = float(np.finfo(np.float64).tiny)
    if not (distance >= least and least <= fraction * distance < np.inf):
        raise DomainError(
            "'x0' and 'x1' must have squared distances, and 'fraction' a part of them, that "
            f"float64 holds; their mean comes out as {distance:g}. Bring them to another unit."
        )
    return fraction * distance
