"""The official code of light Schrödinger bridges (ngushchin/LightSB), from a checkout of it.

It is driven through its public class, `LightSB`, and trained as its notebooks do.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _bridge import Plan

__all__ = ["Recipe", "Trained", "load", "plan_of", "train"]

BATCH = 128
CHUNK = 500
"""Steps whose batches are drawn at once, off the clock."""


class Recipe(NamedTuple):
    """What its notebooks set."""

    n_components: int
    epsilon: float
    rate: float
    scale: float = 0.1
    steps: int = 10_000
    full: bool = False


class Trained(NamedTuple):
    """A model, the processor seconds of its steps, and (step, seconds, value) along the way."""

    model: Any
    seconds: float
    trace: list[tuple[int, float, float]]


def load(checkout: Path) -> Any:
    """Return the class `LightSB`."""
    path = checkout / "src" / "light_sb.py"
    spec = importlib.util.spec_from_file_location("light_sb", path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"{checkout} is no checkout of ngushchin/LightSB: it has no {path.name}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LightSB


def train(
    light_sb: Any,
    recipe: Recipe,
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]],
    *,
    seed: int = 0,
    judge: Callable[[Plan], float] | None = None,
    every: int = 250,
) -> Trained:
    """Train a model; `draw` gives fresh pairs, and `judge` looks at it now and then, unclocked."""
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(1000 + seed)
    first = draw(rng, max(BATCH, recipe.n_components))[1][: recipe.n_components]
    model = light_sb(
        dim=first.shape[1],
        n_potentials=recipe.n_components,
        epsilon=recipe.epsilon,
        is_diagonal=not recipe.full,
        sampling_batch_size=BATCH,
        S_diagonal_init=recipe.scale,
    )
    model.init_r_by_samples(torch.tensor(first, dtype=torch.float32))
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    seconds, trace = 0.0, []
    for step in range(recipe.steps):
        if step % CHUNK == 0:
            batches = [
                torch.tensor(x, dtype=torch.float32).split(BATCH)
                for x in draw(rng, BATCH * min(CHUNK, recipe.steps - step))
            ]
        x0, x1 = (x[step % CHUNK] for x in batches)
        begin = time.process_time()
        optimizer.zero_grad()
        loss = (model.get_log_C(x0) - model.get_log_potential(x1)).mean()
        loss.backward()
        optimizer.step()
        seconds += time.process_time() - begin
        if judge and (step + 1) % every == 0:
            trace.append((step + 1, seconds, judge(plan_of(model))))
    return Trained(model, seconds, trace)


def plan_of(model: Any) -> Plan:
    """Return its plan in float64."""
    import torch

    with torch.no_grad():
        found = [model.get_log_alpha(), model.get_r(), model.get_S()]
        logits, shifts, scales = (x.double().numpy() for x in found)
        epsilon = float(model.epsilon)
    if scales.ndim == 3:
        scales = 0.5 * (scales + scales.swapaxes(1, 2))
    # Its epsilon is a float32; the plan's factors must belong together.
    return Plan(logits, shifts, scales, epsilon, np.zeros(shifts.shape[1]))
