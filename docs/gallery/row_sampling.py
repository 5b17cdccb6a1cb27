r"""
Which rows stand for all
========================

A few rows of a tall matrix, with weights, can stand for all in every sum :math:`\|Ax\|_p^p = \sum_i
|a_i x|^p`. How many are needed depends on how they are chosen. This example draws them by five
scores and follows the distortion, the most that a norm :math:`\|Ax\|_p` rises or falls by over all
:math:`x`, as the sample grows.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyprobe.sketching import (
    leverage_scores,
    lewis_weights,
    lp_sensitivities,
    sample_rows,
    total_sensitivity,
)

# %%
# Two tables of 10,000 rows and ten columns
# -----------------------------------------
# The Chebyshev polynomials of a grid are smooth data: rows near the ends of the interval say more than
# others, but none very much. In the other table the rows are of very different sizes, and two of the
# columns are zero in all but forty rows each: a uniform sample does not even see these.

n, d = 10_000, 10
rng = np.random.default_rng(0)
chebyshev = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, n), d - 1)
coherent = rng.standard_normal((n, d)) * rng.standard_t(1.5, size=(n, 1))
for column in (0, 1):
    coherent[np.delete(np.arange(n), rng.choice(n, 40, replace=False)), column] = 0
tables = {"Chebyshev polynomials": chebyshev, "rare columns, rows of many sizes": coherent}

# %%
# Distortion against rows
# -----------------------
# Each dot is the median of three draws. For p = 2 leverage scores, Lewis weights and sensitivities are
# the same. The gray lines are the rates that theorems give for :math:`d` dimensions, without their
# constants and logarithms: :math:`\sqrt{d / m}` for Lewis weights up to p = 2 (and, one after the
# other, root leverage), :math:`\sqrt{d^{p/2} / m}` above; dashed those for sensitivities,
# :math:`\sqrt{S^{2/p} / m}` below p = 2 and :math:`\sqrt{S^{2 - 2/p} / m}` above, where :math:`S` is
# their sum.


def scores_for(a, p):
    leverage = leverage_scores(a)
    return {
        "uniform": np.ones(len(a)),
        "leverage": leverage,
        "root leverage": leverage ** (p / 2) if p < 2 else None,
        "Lewis": lewis_weights(a, p),
        "sensitivity": lp_sensitivities(a, p, n_coreset=1000, rng=0),
    }


def distortion(a, scores, p, m):
    found = []
    for seed in range(3):
        low, high = sample_rows(a, m, scores=scores, p=p, rng=seed).distortion(a)
        found.append(max(high - 1, 1 - low))
    return np.median(found)


sizes = np.array([100, 400, 1600])
styles = {"uniform": "s", "leverage": "^", "root leverage": "v", "Lewis": "o", "sensitivity": "D"}
fig, axes = plt.subplots(2, 4, figsize=(13, 6.5), sharex=True, sharey="row", layout="constrained")
for (name, a), line in zip(tables.items(), axes, strict=True):
    for p, ax in zip((1.0, 1.5, 2.0, 4.0), line, strict=True):
        for (label, scores), color in zip(
            scores_for(a, p).items(), plt.cm.tab10.colors, strict=False
        ):
            if scores is not None:
                errors = [distortion(a, scores, p, m) for m in sizes]
                ax.loglog(
                    sizes, errors, styles[label] + "-", color=color, label=label, markersize=4
                )
        total = total_sensitivity(a, p, n_rows=30, n_coreset=1000, rng=0).value
        ax.loglog(sizes, np.sqrt(d ** max(1, p / 2) / sizes), color="0.6", label="rate, Lewis")
        power = 2 / p if p < 2 else 2 - 2 / p
        ax.loglog(
            sizes, np.sqrt(total**power / sizes), "--", color="0.6", label="rate, sensitivity"
        )
        ax.set_title(
            f"{name}\np = {p:g}, S = {total:.1f}"
            if ax is line[0]
            else f"p = {p:g}, S = {total:.1f}"
        )
        print(f"{name}, p = {p:g}: the sensitivities sum to {total:.1f}")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside right upper")
fig.supxlabel("rows")
fig.supylabel("distortion")
plt.show()

# %%
# How to read it
# --------------
# On the smooth table uniform rows are behind at small sizes only, and all scores are alike. On the
# other a uniform sample loses directions, and no size that is shown mends it. The slopes of the rest are
# those of the rates, and steeper where rows are heavy: these are kept for certain, weigh 1, and add no
# error at all.
#
# Lewis weights are never far from the best, which is why :func:`pyprobe.sketching.sample_rows` takes
# them where p is not 2. Leverage scores are made for p = 2; below it they fall behind where rows are of
# many sizes, and their roots less so. Sensitivities say how small a sample could be at all, but alone
# they can miss directions that very many rows share; ``scores="sensitivity"`` adds the leverage scores
# to them for this reason.
