"""The weights at which components have given shares of the sources."""

import numpy as np
import pytest

from pyprobe.transport import _bridge_balance
from pyprobe.transport._bridge_balance import BALANCED, balance
from pyprobe.transport._bridge_kinds import KINDS
from pyprobe.transport._bridge_model import Model, Parameters, Sample


def problem(kind, epsilon, rng, n=900, k=7, dim=3):
    """Components far apart beside the noise, rows that weigh differently, and shares."""
    model = Model(KINDS[kind], epsilon)
    weights = rng.uniform(0.5, 1.5, size=n)
    sources = Sample(rng.normal(size=(n, dim)), weights / weights.sum())
    factors = rng.normal(size=(k, dim, dim)) / np.sqrt(dim)
    scales = {
        "spherical": rng.uniform(0.3, 1, size=k),
        "diag": rng.uniform(0.3, 1, size=(k, dim)),
        "full": factors @ factors.swapaxes(1, 2) + 0.1 * np.eye(dim),
    }[kind]
    shifts = rng.normal(size=(k, dim))
    masses = rng.uniform(0.3, 1, size=k)
    return model, sources, Parameters(np.zeros(k), shifts, scales), masses / masses.sum()


def objective(model, sources, components, masses):
    """The mean log-sum-exp less the shares times the log-weights, row by row in NumPy."""
    x, (logits, shifts, scales) = sources.points, components
    dim = shifts.shape[1]
    full = {
        1: lambda s: s[:, None, None] * np.eye(dim),
        2: lambda s: s[:, :, None] * np.eye(dim),
        3: lambda s: s,
    }[scales.ndim](scales)
    forms = np.einsum("ni,kij,nj->nk", x, full, x) / 2 + x @ shifts.T
    levels = logits + forms / model.epsilon
    high = levels.max(axis=1, keepdims=True)
    shares = np.exp(levels - high)
    sums = shares.sum(axis=1, keepdims=True)
    value = sources.weights @ (high + np.log(sums))[:, 0] - masses @ logits
    return value, sources.weights @ (shares / sums), sources.weights @ (high + np.log(sums))[:, 0]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("epsilon", [1.0, 0.1])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_shares_agree(kind, epsilon, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(_bridge_balance, "_KEPT", 0)
    for seed in range(5):
        model, sources, components, masses = problem(kind, epsilon, np.random.default_rng(seed))
        logits, mean = balance(model, sources, components, masses)
        _, shares, expected = objective(model, sources, components._replace(logits=logits), masses)
        assert np.abs(shares - masses).sum() < BALANCED
        assert mean == pytest.approx(expected, rel=1e-10)


def test_components_without_a_share_get_it():
    # Twenty times less noise: most rows belong to one component each, and some have no row at all.
    raised = 0
    for seed in range(20):
        model, sources, components, masses = problem("diag", 0.005, np.random.default_rng(seed))
        first, before, _ = objective(model, sources, components, masses)
        logits, _ = balance(model, sources, components, masses, rough=True)
        last, after, _ = objective(model, sources, components._replace(logits=logits), masses)
        assert last < first
        assert (after > 0.1 * masses).all()
        raised += (before < 1e-6 * masses).any()
    assert raised > 5


def test_few_rows_come_before_many(monkeypatch):
    monkeypatch.setattr(_bridge_balance, "_KEPT", 7 * 400)
    model, sources, components, masses = problem("diag", 0.02, np.random.default_rng(0), n=4000)
    few = sources.take(np.arange(400))
    logits, _ = balance(model, sources, components, masses, few)
    _, shares, _ = objective(model, sources, components._replace(logits=logits), masses)
    assert np.abs(shares - masses).sum() < 0.02
