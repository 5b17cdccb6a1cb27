r"""
A bridge into a swiss roll
==========================

How does a cloud become a spiral? Two samples do not say. The Schrödinger bridge takes the answer that
is nearest to Brownian motion, and :math:`\varepsilon`, the variance of that motion in a unit of time,
says how random it is: with much noise a start may end nearly everywhere, with little nearly at one
place. This example fits ``pyprobe.transport.LightSchrodingerBridge`` at three strengths of the noise,
those of Korotin, Gushchin and Burnaev ("Light Schrödinger bridge", ICLR 2024), beside Sinkhorn's
iteration at the same ones.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_swiss_roll

from pyprobe import plot
from pyprobe.metrics import energy_distance
from pyprobe.transport import LightSchrodingerBridge, sinkhorn_points

# %%
# The two samples
# ---------------
# A normal distribution and a swiss roll, seen from the side. Ten thousand points of each are there to
# learn from, five thousand others to judge by; they are not paired.


def swiss_roll(n, seed):
    return make_swiss_roll(n, noise=0.8, random_state=seed)[0][:, [0, 2]] / 7.5


rng = np.random.default_rng(0)
x0, fresh0 = rng.normal(size=(10_000, 2)), rng.normal(size=(5000, 2))
x1, fresh1 = swiss_roll(10_000, 0), swiss_roll(5000, 1)

# %%
# Three strengths of the noise
# ----------------------------
# Sinkhorn's iteration couples two thousand points of either sample; its cost has no half, hence twice
# :math:`\varepsilon`. Its barycentric map takes each of those points to the mean of the points that it
# is coupled to. The bridge has a mean too, for any point, and draws beside it. The table gives
# energy distances from the fresh points of the roll; those of other points of it say what chance does.

epsilons = (0.1, 0.01, 0.002)
bridges, barycentric = {}, {}
others = [energy_distance(swiss_roll(5000, seed), fresh1) for seed in range(2, 6)]
print(f"other points of the roll: from {min(others):.4f} to {max(others):.4f}\n")
print("epsilon     fit  Sinkhorn   bridge, draws  bridge, mean  Sinkhorn, mean")
for epsilon in epsilons:
    begin = time.perf_counter()
    bridge = LightSchrodingerBridge.fit(
        x0, x1, epsilon=epsilon, n_components=50, covariance="full", rng=0
    )
    middle = time.perf_counter()
    result = sinkhorn_points(x0[:2000], x1[:2000], epsilon=2 * epsilon, tol=1e-5)
    end = time.perf_counter()
    bridges[epsilon] = bridge
    barycentric[epsilon] = result.barycentric_map(x1[:2000])
    distances = (
        energy_distance(found, fresh1)
        for found in (bridge.sample(fresh0, rng=0), bridge.mean(fresh0), barycentric[epsilon])
    )
    print(
        f"{epsilon:<7} {middle - begin:5.1f} s  {end - middle:6.1f} s "
        "{:>15.4f} {:>13.4f} {:>15.4f}".format(*distances)
    )

# %%
# Where points go
# ---------------
# All points are colored by the first coordinate of their start. On the left, paths from five starts,
# exact at every time.

starts = np.array([[-1.5, 0.0], [-0.6, 0.0], [0.0, 0.0], [0.6, 0.0], [1.5, 0.0]])
fig, axes = plt.subplots(3, 4, figsize=(12, 9.2), sharex=True, sharey=True, layout="constrained")
for epsilon, row in zip(epsilons, axes, strict=True):
    bridge = bridges[epsilon]
    plot.bridge_paths(bridge, starts, n=4, rng=0, ax=row[0])
    clouds = (
        (bridge.sample(fresh0[:2000], rng=0), fresh0[:2000]),
        (bridge.mean(fresh0[:2000]), fresh0[:2000]),
        (barycentric[epsilon], x0[:2000]),
    )
    for axis, (cloud, origin) in zip(row[1:], clouds, strict=True):
        axis.scatter(*cloud.T, s=3, c=origin[:, 0], cmap="viridis", vmin=-2, vmax=2)
    for axis in row:
        axis.set(xlabel="", ylabel="", xlim=(-2.1, 2.1), ylim=(-2.1, 2.3))
        axis.set_aspect("equal", adjustable="box")
    row[0].set_ylabel(rf"$\varepsilon = {epsilon}$", fontsize="large")
for axis in axes[1:, 0]:
    axis.get_legend().remove()
titles = ("bridge: paths", "bridge: draws", "bridge: mean", "Sinkhorn: barycentric map")
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)
plt.show()

# %%
# The means agree, and so do their faults: where a start may end on two windings of the roll, its mean
# lies on neither. Draws end on the roll whatever the noise. As :math:`\varepsilon` falls the plan tends
# to a map, and draws and means to one another. A component is an affine map, though: with little
# noise it takes a few starts far out in the tail, of which there were hardly any to learn from,
# beyond the roll. Sinkhorn's means, being means of points of the roll, cannot go there.
#
# The way
# -------
# One sample at five times, with the fresh points of the roll in gray below the last.

plot.bridge_marginals(bridges[0.01], fresh0[:2000], x1=fresh1[:2000], rng=0)
plt.show()

# %%
# What the bridge knows
# ---------------------
# Left: where three starts go, and the components of these plans. Right: the potential in the middle of
# the way, and its slope, the drift, which is what moves the points. It is in closed form, as everything
# here is: nothing was simulated to fit it.

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
plot.bridge_plans(bridges[0.1], starts[::2], rng=0, ax=left)
halfway = bridges[0.1].sample_path(fresh0[:1000], [0.5], rng=0)[:, 0]
plot.bridge_potential(bridges[0.1], halfway, t=0.5, ax=right)
plt.show()
