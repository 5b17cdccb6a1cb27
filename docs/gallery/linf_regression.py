r"""
Coordinates from a sketch
=========================

A sketched regression solves :math:`\min |S(Ax - b)|`, with fewer rows, in place of :math:`\min |Ax -
b|`. Any good sketch makes the *length* of the error small. Whether every *coordinate* is near its own
is another question, on which sketches differ: Song, Ye, Yin and Zhang ("A nearly-optimal bound for fast
regression with :math:`\ell_\infty` guarantee", ICML 2023). This example is the one where a sketch with
one entry in each column fails.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyprobe.errors import DomainError
from pyprobe.sketching import sketch_operator, sketched_lstsq

# %%
# A problem whose residual is in four rows
# ----------------------------------------
# The columns are those of the identity, and the target is orthogonal to them: one half in four of the
# other rows. The solution is 0, so that what a sketch finds is its error. The second problem is the
# first, with all rows mixed by a random rotation: the same geometry, spread over all rows.

n, d, m = 4096, 64, 1024
spiked = np.eye(n, d), np.r_[np.zeros(d), np.full(4, 0.5), np.zeros(n - d - 4)]
basis = np.linalg.qr(np.random.default_rng(0).standard_normal((n, d + 1)))[0]
problems = {
    "spiked: identity and four rows": spiked,
    "the same, rotated": (basis[:, :d], basis[:, d]),
}

# %%
# Four sketches
# -------------
# CountSketch has one entry in each column: where one of the four rows falls on that of a coordinate,
# this coordinate takes all of its half. The others spread each row over all of the sketch, or over
# eight of its rows. A Gaussian sketch would have normal errors of variance :math:`|r|^2 / m` in each
# coordinate, the largest of d of them near :math:`\sqrt{2 \ln d / m}`: the dashed line.

kinds = ("gaussian", "srht", "sparse_sign", "countsketch")
predicted = np.sqrt(2 * np.log(d) / m)
fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for (name, (a, b)), ax in zip(problems.items(), axes, strict=True):
    print(name)
    for kind in kinds:
        errors = []
        for seed in range(100):
            sketch = sketch_operator(kind, m, n, rng=seed)
            rows = sketch @ np.column_stack([a, b])
            errors.append(np.linalg.lstsq(rows[:, :d], rows[:, d])[0])
        largest = np.sort(abs(np.array(errors)).max(axis=1))
        ax.ecdf(largest, label=kind)
        length = np.sqrt(np.mean(np.square(errors)) * d)
        print(
            f"  {kind:12} length {length:.3f}, largest coordinate in 95 of 100: {largest[94]:.3f}"
        )
    ax.axvline(predicted, color="0.6", linestyle="--", label=r"$\sqrt{2 \ln d / m}$")
    ax.set(title=name, xlabel="largest error of a coordinate")
axes[0].set_ylabel("part of the draws")
axes[0].legend(loc="lower right")
plt.show()

# %%
# What the library promises
# -------------------------
# The lengths of the errors are the same for all four. ``guarantee="linf"`` promises coordinates, and
# comes with a standard error for each; it takes no CountSketch.

a, b = spiked
found = sketched_lstsq(a, b, guarantee="linf", n_rows=m, rng=0)
inside = abs(found.x) < 2 * found.standard_error
print(
    f"{inside.sum()} of {d} coordinates are within two standard errors, {found.standard_error.max():.3f}"
)
try:
    sketched_lstsq(a, b, guarantee="linf", sketch="countsketch", n_rows=m)
except DomainError as error:
    print(error)
