r"""
A cloud flows into another
==========================

The Sinkhorn divergence of two clouds,

.. math:: S(x, y) = \mathrm{OT}_\varepsilon(x, y) - \tfrac12 \mathrm{OT}_\varepsilon(x, x)
    - \tfrac12 \mathrm{OT}_\varepsilon(y, y) ,

is 0 only where they agree, so moving the points x down its gradient turns one cloud into the other.
Without the last two terms the cloud would shrink: the plan is blurred, and points aim at means.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from pyprobe.metrics import energy_distance
from pyprobe.transport import sinkhorn_divergence

# %%
# From a disc to two arcs
# -----------------------

rng = np.random.default_rng(0)
n = 500
radius, angle = np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
start = 0.5 * np.c_[radius * np.cos(angle), radius * np.sin(angle)] + [0.5, 0.25]
turn = np.pi * rng.random(n)
arcs = np.c_[np.cos(turn), np.sin(turn)]
arcs[n // 2 :] = [1, 0.5] - arcs[n // 2 :]
target = arcs + rng.normal(0, 0.05, (n, 2))

# %%
# The gradient
# ------------
# With the squared distance and weights :math:`a_i`, the derivative of the transport cost at its plan P is
#
# .. math:: \frac{\partial \mathrm{OT}_\varepsilon(x, y)}{\partial x_i} = 2 \sum_j P_{ij} (x_i - y_j)
#     = 2 a_i \bigl(x_i - T_{xy}(x_i)\bigr) ,
#
# with the barycentric map :math:`T_{xy}`; how the plan itself changes makes no difference to first
# order. The cost of x to itself has x on both sides, hence the factor 1/2 goes away, and
# :math:`\partial S / \partial x_i = 2 a_i (T_{xx}(x_i) - T_{xy}(x_i))`: the mean where a point would go
# within its own cloud, less the mean where it should go.


def gradient(x, divergence):
    return (divergence.xx.barycentric_map(x) - divergence.xy.barycentric_map(target)) * 2 / len(x)


epsilon = 0.02
first = sinkhorn_divergence(start, target, epsilon=epsilon)
direction = rng.normal(size=start.shape)
h = 1e-5
ahead, behind = (
    sinkhorn_divergence(start + s * h * direction, target, epsilon=epsilon).value for s in (1, -1)
)
print(f"derivative along a random direction: {(gradient(start, first) * direction).sum():.8f}")
print(f"by a central difference:             {(ahead - behind) / (2 * h):.8f}")

# %%
# The flow
# --------
# Moved by the gradient over :math:`2 a_i`, a point would be at its goal in one step, did the others stay;
# half of that is taken. Each problem starts from the potentials of the one before. For comparison, the
# transport cost alone, whose gradient has :math:`x_i` in the place of :math:`T_{xx}(x_i)`.


def flow(x, n_steps, debiased):
    clouds, values, init = [x], [], None
    for _ in range(n_steps):
        divergence = sinkhorn_divergence(x, target, epsilon=epsilon, tol=1e-6, init=init)
        init = divergence.xy.f, divergence.xy.g
        values.append(divergence.value)
        origin = divergence.xx.barycentric_map(x) if debiased else x
        x = x + 0.5 * (divergence.xy.barycentric_map(target) - origin)
        clouds.append(x)
    return clouds, values


begin = time.perf_counter()
clouds, values = flow(start, 40, debiased=True)
print(f"40 steps in {time.perf_counter() - begin:.1f} s")
biased, _ = flow(start, 40, debiased=False)
for name, cloud in (("start", start), ("divergence", clouds[-1]), ("transport cost", biased[-1])):
    divergence = sinkhorn_divergence(cloud, target, epsilon=epsilon, tol=1e-6)
    print(
        f"{name:14}: divergence {divergence.value:.1e}, "
        f"energy distance {energy_distance(cloud, target, unbiased=False):.1e}"
    )

fig, axes = plt.subplots(2, 3, figsize=(11, 6.6), layout="constrained")
panels = [(f"after {k} steps", clouds[k]) for k in (0, 2, 5, 40)]
panels.append(("after 40 steps,\nby the transport cost alone", biased[-1]))
for axis, (title, cloud) in zip(axes.flat, panels, strict=False):
    axis.scatter(*target.T, s=6, color="0.75")
    axis.scatter(*cloud.T, s=6, c=start[:, 0], cmap="plasma")
    axis.set(title=title, aspect="equal", xlim=(-1.3, 2.3), ylim=(-1.0, 1.5))
    axis.set_axis_off()
axes[1, 2].semilogy(range(40), values)
axes[1, 2].set(xlabel="step", ylabel="Sinkhorn divergence")
plt.show()

# %%
# The colors show where each point came from: the flow moves them in order, and the disc is torn apart
# where it must be. By the transport cost alone each arc becomes a thread, since every point goes to
# the *mean* of the targets that the blurred plan gives it.
