r"""
Plans that leave mass behind
============================

Of two groups the first has shrunk and the second has grown between two samples, and a few points of
the first sample are no part of either. A Schrödinger bridge must carry everything: it turns half of
the points into the other group. The unbalanced plan may leave mass behind and let mass appear, at
the price :math:`\rho`:

.. math:: \min_\pi \int \tfrac12 |x_0 - x_1|^2 d\pi + \varepsilon\, \mathrm{KL}(\pi | p_0 \otimes p_1)
    + \rho\, \mathrm{KL}(\pi_0 | p_0) + \rho\, \mathrm{KL}(\pi_1 | p_1) .

The data are those of Gazdieva et al., "Light unbalanced optimal transport" (NeurIPS 2024), with
outliers.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from pyprobe.transport import LightSchrodingerBridge, LightUnbalancedBridge, sinkhorn_points

# %%
# Two samples
# -----------

rng = np.random.default_rng(0)
n = 3000
before, after = np.array([[-3.0, 3.0], [1.0, 3.0]]), np.array([[-3.0, 0.0], [1.0, 0.0]])
group = rng.choice(2, n, p=[0.25, 0.75])
x0 = before[group] + 0.3 * rng.normal(size=(n, 2))
x1 = after[rng.choice(2, n, p=[0.75, 0.25])] + 0.3 * rng.normal(size=(n, 2))
outliers = rng.choice(n, 60, replace=False)
x0[outliers] = [-1.0, 7.0] + 0.3 * rng.normal(size=(60, 2))
group[outliers] = 2

# %%
# From all to what is worth its way
# ---------------------------------
# The groups lie 3 apart, and 4 aside of one another: the way to the other one is 5 long. The penalty says
# how much of each way is taken.

epsilon = 0.05
plans = {}
for rho in (100.0, 10.0, 1.0):
    begin = time.perf_counter()
    plans[rho] = LightUnbalancedBridge.fit(
        x0, x1, epsilon=epsilon, unbalanced=rho, n_components=10, rng=0
    )
    plan, seconds = plans[rho], time.perf_counter() - begin
    ends = plan.sample(x0, rng=1)
    weights = plan.start_weights(x0)
    crossing = (ends[:, 0] > -1) != (x0[:, 0] > -1)
    print(
        f"rho {rho:5.0f}: {seconds:.1f} s, mass {plan.mass:.3f}; of it "
        f"{weights[group < 2] @ crossing[group < 2] / weights.sum():6.1%} change group, "
        f"{weights[group == 2].sum() / weights.sum():8.2%} come from the outliers"
    )

# %%
# With a small penalty nothing crosses any more, and the outliers stay behind.

balanced = LightSchrodingerBridge.fit(x0, x1, epsilon=epsilon, n_components=10, rng=0)
fig, axes = plt.subplots(1, 3, figsize=(11, 4.6), layout="constrained", sharex=True, sharey=True)
times = np.linspace(0, 1, 40)
panels = [("balanced", balanced, np.ones(n))]
panels += [
    (
        rf"$\rho$ = {rho:g}, mass {plans[rho].mass:.2f}",
        plans[rho].bridge,
        plans[rho].start_weights(x0),
    )
    for rho in (10.0, 1.0)
]
for axis, (title, bridge, weights) in zip(axes, panels, strict=True):
    axis.scatter(*x1[:800].T, s=4, color="0.8")
    chosen = rng.choice(n, 60, p=weights / weights.sum())
    for path, which in zip(
        bridge.sample_path(x0[chosen], times, rng=2), group[chosen], strict=True
    ):
        axis.plot(*path.T, color=("C0", "C1", "C3")[which], lw=0.6, alpha=0.7)
    # As large as it takes part.
    axis.scatter(*x0[:800].T, s=8 * weights[:800] / weights.mean(), color="k", alpha=0.5, lw=0)
    axis.set(title=title, aspect="equal", xlabel="$x$")
axes[0].set(ylabel="$y$")
plt.show()

# %%
# Black dots are starts, as large as their weights; gray ones are ends. Paths are drawn from starts in
# proportion to their weights. On the left everything must go, outliers in red included.
#
# Beside Sinkhorn's plan
# ----------------------
# `sinkhorn_points` solves the same problem between the points themselves, for the squared distance
# without the half: epsilon and penalty are doubled. Its rows' sums are the weights of the starts.

rho = 10.0
exact = sinkhorn_points(x0, x1, epsilon=2 * epsilon, unbalanced=2 * rho)
rows = n * exact.apply(np.ones(n))
weights = plans[rho].start_weights(x0)
print(f"mass: {plans[rho].mass:.4f} by the mixtures, {rows.mean():.4f} by Sinkhorn")
print(f"dual: {plans[rho].score(x0, x1):.3f} and {exact.value / 2:.3f}")

fig, axis = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
axis.scatter(rows, weights, s=4, c=np.array(["C0", "C1", "C3"])[group])
limit = 1.05 * rows.max()
axis.plot([0, limit], [0, limit], color="0.5", lw=0.8)
axis.set(
    xlabel="weight of a start, by Sinkhorn", ylabel="by the mixtures", title=rf"$\rho$ = {rho:g}"
)
plt.show()

# %%
# The mixtures know the weight of starts that were not in the sample, too.
