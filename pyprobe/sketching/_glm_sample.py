"""Which rows a coreset of a generalized linear model keeps: their scores, and the draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyprobe import _core
from pyprobe.errors import DomainError
from pyprobe.sketching._chunks import Chunks
from pyprobe.sketching._glm_data import Data, Vector
from pyprobe.sketching._input import read_tall
from pyprobe.sketching.leverage import ranked_scores
from pyprobe.sketching.lewis import find_lewis
from pyprobe.sketching.sampling import draw

__all__ = ["check_plain", "draw_rows", "guarded", "loss_scores"]

_EVEN_SHARE = 0.2  # of the rows, drawn whatever their score: a guard away from the mode


def check_plain(data: Data, n_samples: int) -> None:
    """Refuse a sample without a control variate where none can be promised, or made."""
    if isinstance(data.x, Chunks):
        raise TypeError(
            "'x' must be one matrix for control_variate=False; got row chunks. Put them together, "
            "or take an np.memmap; a posterior, with control_variate=True, is made of chunks too."
        )
    if data.family == "poisson":
        raise DomainError(
            "'control_variate' must be True for the Poisson family: no weighted sample bounds a "
            "loss that grows exponentially. With the control variate it is approximated near the "
            "mode."
        )
    if n_samples < data.shape[1]:
        raise DomainError(
            f"'n_samples' must be at least {data.shape[1]}, the number of columns, for a plain "
            f"weighted sample; got {n_samples}."
        )


def guarded(sizes: Vector, n_samples: int, weight: Vector) -> Vector:
    """Return probabilities in proportion to `sizes`, at most 1, and a fifth spread by `weight`.

    Rows of weight 0 have none; the others have 1 where they are no more than `n_samples`.
    """
    counted, budget = weight > 0, (1 - _EVEN_SHARE) * n_samples
    if n_samples >= counted.sum() or not sizes.any():
        return np.where(counted, float(sizes.any()), 0.0)
    level = _core.water_level(sizes, budget)
    shares = np.sign(sizes) if level is None else _core.row_probabilities(sizes, level)
    scores: Vector = shares + _EVEN_SHARE * n_samples * weight / weight.sum()
    return scores


def loss_scores(data: Data) -> Vector:
    """Return scores for the loss itself; those of a regression go with its responses."""
    if data.family == "gaussian":
        dense = data.rows(np.arange(data.shape[0]))
        columns = np.column_stack([dense, data.y - data.offset])
        shares, _ = ranked_scores(read_tall("x", _times(columns, np.sqrt(data.weight))))
    else:
        x = data.x
        if data.offset.any():  # a column more, whose coefficient is 1
            join = np.column_stack if isinstance(x, np.ndarray) else _beside
            x = join([x, data.offset[:, None]])
        shares = find_lewis(read_tall("x", _times(x, data.weight)), 1.0).w
    scores: Vector = shares / shares.sum() + data.weight / data.weight.sum()
    return scores


def _times(x: Any, factors: Vector) -> Any:
    """Return rows times factors: where a norm to the p stands for w rows, its p-th root."""
    if (factors == 1).all():
        return x
    if isinstance(x, np.ndarray):
        return x * factors[:, None]
    return x.multiply(factors[:, None]).tocsr()


def _beside(parts: list[Any]) -> Any:
    import scipy.sparse

    return scipy.sparse.hstack(parts, format="csr")


def draw_rows(
    scores: Vector, n_samples: int, key: int
) -> tuple[npt.NDArray[np.int64], Vector, Vector]:
    """Return the rows drawn, their probabilities p, and 1 / p - 1 of all rows; 0 where p is 0."""
    if not scores.any():  # nothing is left beside the quadratic
        return np.empty(0, dtype=np.int64), np.empty(0), np.zeros(len(scores))
    drawn = draw(scores, n_samples, "bernoulli", key)
    level = _core.water_level(scores, float(n_samples))
    if level is None:
        return drawn.indices, drawn.probabilities, np.zeros(len(scores))
    every = _core.row_probabilities(scores, level)
    unseen = np.divide(1, every, out=np.ones_like(every), where=every > 0) - 1
    return drawn.indices, drawn.probabilities, unseen
