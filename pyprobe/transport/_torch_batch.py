"""Problems of one shape side by side: the iteration of `_torch_solver` with one more axis.

What is asked of every problem afterwards, its value and the sums of its plan, is found for all at
once as well: on a GPU a hundred small operations take longer than the iteration.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyprobe.transport import _torch_solver as twin

__all__ = ["solve"]


class _Run:
    """How it goes with one problem."""

    def __init__(self, goal: float) -> None:
        self.goal = goal
        self.errors: list[float] = []
        self.relaxation = twin.Relaxation()
        self.end: tuple[Tensor, Tensor] | None = None

    def look(self, errors: list[float], phi: Tensor, gamma: Tensor, *, is_last: bool) -> None:
        """Take note of iterations, unless the problem has ended, and end it where they say so."""
        if self.end is not None:
            return
        self.errors += errors
        if errors[-1] <= self.goal or is_last:
            self.end = phi, gamma
        else:
            self.relaxation.observe_all(errors)


@torch.no_grad()
def solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: Tensor,
    penalties: tuple[float, float],
    *,
    tol: float,
    max_iter: int,
) -> list[dict[str, Any]]:
    """Solve problems with costs (B, n, m), weights (B, n) and (B, m), and epsilon (B,), in float64.

    Each steps by a factor of its own and stops by itself. Of each, what the twin's `sinkhorn`
    returns, with the sums of its plan, its value, and whether it needs no mask.
    """
    runs = [_Run(goal) for goal in (tol * a.sum(1)).tolist()]
    scaled = cost / epsilon[:, None, None]
    _iterate(runs, scaled, a, b, epsilon, penalties, max_iter)
    rows, columns = twin.sides(a, b, epsilon, penalties)
    ends = [run.end for run in runs if run.end is not None]
    phi, gamma = (torch.stack(side) for side in zip(*ends, strict=True))
    phi, gamma = twin.center(rows, columns, phi, gamma)
    has_all = (a > 0).all(1) & (b > 0).all(1)
    if bool(has_all.all()):
        row_logs, column_logs = torch.zeros_like(phi), torch.zeros_like(gamma)
    else:
        row_logs = torch.logsumexp(gamma[:, None] - scaled, 2)
        column_logs = torch.logsumexp(phi[:, :, None] - scaled, 1)
    f = epsilon[:, None] * rows.unscaled(phi, row_logs)
    g = epsilon[:, None] * columns.unscaled(gamma, column_logs)

    potentials = [torch.where(side.isfinite(), side, 0.0) for side in (f, g)]
    logs = [
        side / epsilon[:, None] + weights.log()
        for side, weights in zip(potentials, (a, b), strict=True)
    ]
    plan = (logs[0][:, :, None] + logs[1][:, None] - scaled).exp_()
    sums = plan.sum(2), plan.sum(1)
    spent = epsilon * plan.mul_(scaled).nan_to_num_(nan=0.0).sum((1, 2))  # 0 times infinity
    values = twin.dual((a, b), potentials, penalties, epsilon, sums[0].sum(1)).tolist()
    whole = (has_all & (cost.amax((1, 2)) < math.inf)).tolist()
    return [
        {
            "f": f[index],
            "g": g[index],
            "errors": run.errors,
            "n_iter": len(run.errors),
            "n_newton": 0,
            "converged": run.errors[-1] <= run.goal,
            "stopped": False,
            "rate": run.relaxation.rate,
            "value": values[index],
            "sums": (sums[0][index], sums[1][index], spent[index]),
            "is_whole": whole[index],
        }
        for index, run in enumerate(runs)
    ]


def _iterate(
    runs: list[_Run],
    scaled: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: Tensor,
    penalties: tuple[float, float],
    max_iter: int,
) -> None:
    """Iterate until all have ended."""
    rows, columns = twin.sides(a, b, epsilon, penalties)
    phi, gamma = rows.log_weights, columns.log_weights
    # Problems that have ended are iterated until they are half of all.
    here, n_iter = list(range(len(runs))), 0
    omega: Any = 1.0
    unread = []
    while here:
        exponent, high = twin.shifted(gamma[:, None] - scaled)
        terms = exponent.exp_()
        row_logs = high + terms.sum(2).log()
        phi = rows.half_step(phi, row_logs, omega)
        sums = ((phi + high).exp()[:, None] @ terms)[:, 0]
        miss = (sums - columns.target(gamma)).abs().sum(1)
        unread.append(twin.missed(rows, phi, row_logs) + miss)
        logs = sums.clamp_min(twin.LEAST_SUM).log() - gamma
        n_iter += 1
        look = n_iter % twin.PERIOD == 0 or n_iter == max_iter or n_iter == 1
        if look:
            for place, fresh in enumerate(torch.stack(unread, 1).tolist()):
                runs[here[place]].look(fresh, phi[place], gamma[place], is_last=n_iter == max_iter)
            unread = []
            if bool(((sums < twin.LEAST_SUM) & (columns.weights > 0)).any()):
                logs = torch.logsumexp(phi[:, :, None] - scaled, 1)
        gamma = columns.half_step(gamma, logs, omega)
        phi, gamma = twin.translate(rows, columns, phi, gamma)
        if not look:
            continue
        live = [place for place, index in enumerate(here) if runs[index].end is None]
        if 2 * len(live) <= len(here):
            here = [here[place] for place in live]
            rows, columns = twin.sides(a[here], b[here], epsilon[here], penalties)
            scaled, phi, gamma = (t[live] for t in (scaled, phi, gamma))
        factors = [runs[index].relaxation.omega for index in here]
        omega = torch.tensor(factors, dtype=torch.float64, device=scaled.device)[:, None]
