r"""
Posteriors from few rows
========================

How far is a posterior off, if it is computed from m of n rows? A plain weighted sample moves its mean
by about :math:`\sqrt{n/m}` posterior standard deviations; a coreset with a control variate by about
:math:`d / 2 \sqrt{n m}`. Here both are measured, on the 1797 digits that come with scikit-learn,
expanded to one row a pixel.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from pyprobe.sketching import GLMCoreset

# %%
# A row a pixel
# -------------
# Is a pixel inked, given those before it in the scan: left, above left, above, and above right? Beyond
# the edge there is no ink. As each pixel is given what came before it, the likelihood of an image is the
# product over its pixels; there are 115 008 of them.

images = load_digits().images / 16
padded = np.pad(images, ((0, 0), (1, 0), (1, 1)))
left, above_left, above, above_right = (
    padded[:, i : i + 8, j : j + 8] for i, j in ((1, 0), (0, 0), (0, 1), (0, 2))
)
down, across = np.broadcast_arrays(*np.ogrid[-1:1:8j, -1:1:8j])
columns = [np.ones_like(left), left, above_left, above, above_right, left * above]
columns += [np.broadcast_to(c, left.shape) for c in (down, across, across**2)]
x = np.stack(columns, axis=-1).reshape(-1, 9)
y = (images >= 0.5).ravel()
n, d = x.shape

# %%
# The truth
# ---------
# Importance sampling: draws from the Laplace approximation, weighted by the likelihood of all rows. The
# posterior of a coreset weighs the same draws, so that their noise nearly cancels in the difference.
# The prior is N(0, 9) on each coefficient.

PRECISION = 1 / 9


def fit(m, seed, **options):
    return GLMCoreset.fit(
        x, y, family="logistic", n_samples=m, prior_precision=PRECISION, rng=seed, **options
    )


all_rows = fit(n, 0)
precision = all_rows.prior_precision - all_rows.center_hessian
factor = np.linalg.cholesky(precision)
z = np.random.default_rng(0).normal(size=(500, d))
z = np.concatenate([z, -z])
thetas = all_rows.center + np.linalg.solve(factor.T, z.T).T


def mean(log_likelihood):
    log_weights = log_likelihood - PRECISION * (thetas**2).sum(axis=1) / 2 + (z**2).sum(axis=1) / 2
    weights = np.exp(log_weights - log_weights.max())
    return weights @ z / weights.sum()  # in posterior standard deviations


truth = mean(all_rows.log_likelihood(thetas))

# %%
# Two ways to take a sample
# -------------------------
# The posterior of a plain sample is far from the draws; its mode, which is nearly its mean, is found
# by Newton's method. ``expected_error`` is what a fit says of itself, without any draws.


def mode(coreset):
    theta = coreset.center
    for _ in range(20):
        uphill = coreset.gradient(theta) - PRECISION * theta
        theta = theta + np.linalg.solve(PRECISION * np.eye(d) - coreset.hessian(theta), uphill)
    return (theta - all_rows.center) @ factor


sizes = (100, 300, 1000, 3000, 10_000)
seeds = range(4)
off, expected = np.empty((2, 2, len(sizes), len(seeds)))
for i, m in enumerate(sizes):
    for seed in seeds:
        coreset, plain = fit(m, seed), fit(m, seed, control_variate=False)
        off[0, i, seed] = np.linalg.norm(mean(coreset.log_likelihood(thetas)) - truth) / d**0.5
        off[1, i, seed] = np.linalg.norm(mode(plain)) / d**0.5
        expected[:, i, seed] = coreset.info.expected_error, plain.info.expected_error
    print(f"m = {m:5}: coreset {off[0, i].mean():.5f} sd, plain weights {off[1, i].mean():.2f} sd")

# %%
# Dots are single samples, lines what the fits expect of themselves. The horizontal line is the
# quadratic alone, without any rows: Laplace's approximation.

delta = thetas - all_rows.center
quadratic = ((delta @ all_rows.center_hessian) * delta).sum(axis=1) / 2
alone = np.linalg.norm(mean(quadratic + delta @ all_rows.center_gradient) - truth) / d**0.5

fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for found, said, name, color in zip(
    off, expected, ("with control variate", "plain weights"), ("C1", "C2"), strict=True
):
    ax.plot(sizes, said.mean(axis=1), color=color, label=f"{name}, expected")
    ax.plot(np.repeat(sizes, len(seeds)), found.ravel(), "o", color=color, markersize=4)
ax.axhline(alone, color="0.5", linestyle="--", linewidth=1, label="no rows: Laplace")
ax.set(xscale="log", yscale="log", xlabel="rows kept, of 115 008")
ax.set_ylabel("posterior mean off, in standard deviations (rms)")
ax.legend(fontsize="small")
plt.show()

# %%
# With so many rows this posterior is nearly Gaussian, and Laplace's approximation good to a hundredth of
# its width. Where a few rows decide a coefficient it is not: the benchmarks have such a problem, on which
# Laplace is off by 0.4 and a coreset by 0.001. Plain weights are off by many widths on either.
