r"""What is minimized in the fit of unbalanced light bridges.

With :math:`\lambda_0 = (\rho_0 + \varepsilon) / \varepsilon` and :math:`\lambda_1 = \rho_1 /
\varepsilon`, the dual of unbalanced entropic transport, maximized over the potential of the starts
and over the constant that the two potentials share, leaves

.. math:: G(v) = \lambda_0 \log E_{p_0} e^{(\log c_v(x_0) - |x_0|^2 / 2 \varepsilon) / \lambda_0}
    + \lambda_1 \log E_{p_1} e^{-(\log v(x_1) - \log q(x_1) + |x_1|^2 / 2 \varepsilon) / \lambda_1}

to be minimized over the mixture v, where q is a density of the ends. The mass of the plan is
:math:`e^{G / (\lambda_0 + \lambda_1)}`. The gradient is that of the balanced loss on reweighted
rows, and for infinite penalties G is that loss itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyprobe import _core
from pyprobe.transport._bridge_kinds import Vector
from pyprobe.transport._bridge_model import Model, Pair, Parameters, Sample

__all__ = ["Problem", "Side", "Tilt", "total"]


class Tilt(NamedTuple):
    r"""A side's part of the loss, :math:`\lambda \log E e^{t / \lambda}`, and what rows weigh."""

    value: float
    weights: Vector


def total(tilts: tuple[Tilt, Tilt]) -> float:
    """Return the loss, of which these are the two parts."""
    return tilts[0].value + tilts[1].value


class Side(NamedTuple):
    r"""A sample, what its log-sums are compared with, and how freely it may be reweighted.

    Rows weigh :math:`e^{(\pm s - o) / \lambda}` with their log-sums s, plus for the starts and
    minus for the ends, the offsets o, and the penalty :math:`\lambda` in units of epsilon.
    """

    sample: Sample
    offsets: Vector
    sign: float
    penalty: float

    def tilt(self, logits: tuple[str, Vector, Vector]) -> Tilt:
        """Return the value, and the rows' weights."""
        points, weights = self.sample
        exponents = self.sign * _core.bridge_log_sums(points, logits) - self.offsets
        if self.penalty == math.inf:
            return Tilt(float(weights @ exponents), weights)
        scaled = exponents / self.penalty
        top = scaled.max()
        terms = weights * np.exp(scaled - top)
        total = float(terms.sum())
        return Tilt(self.penalty * (float(top) + math.log(total)), terms / total)


class Problem(NamedTuple):
    """Both sides, and the model that makes logits for them."""

    model: Model
    starts: Side
    ends: Side

    def tilts(self, components: Parameters) -> tuple[Tilt, Tilt]:
        """Return both parts of the loss, with the weights of the rows."""
        starts = self.starts.tilt(self.model.of_sources(components))
        return starts, self.ends.tilt(self.model.of_targets(components))

    def loss(self, components: Parameters) -> float:
        """Return the loss G."""
        return total(self.tilts(components))

    def carried(self, tilts: tuple[Tilt, Tilt]) -> Pair:
        """Return the two samples with these weights."""
        return Pair(
            Sample(self.starts.sample.points, tilts[0].weights),
            Sample(self.ends.sample.points, tilts[1].weights),
        )

    def gauge(self, components: Parameters) -> tuple[float, float]:
        """Return the constant that one potential gains from the other, and the mass of the plan."""
        starts, ends = self.tilts(components)
        penalties = self.starts.penalty, self.ends.penalty
        if min(penalties) == math.inf:
            # Nothing sees it: the two potentials are given the same mean.
            return (ends.value - starts.value) / 2, 1.0
        # The two marginals have the same mass.
        inverse = [1 / penalty for penalty in penalties]
        constant = (ends.value * inverse[1] - starts.value * inverse[0]) / sum(inverse)
        with np.errstate(over="ignore"):
            return constant, float(np.exp((starts.value + ends.value) / sum(penalties)))
