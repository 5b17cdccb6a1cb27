r"""
A latent direction in Pyro
==========================

A sensor is turned to an unknown direction and reports it with errors; some reports are plain
glitches, uniform over the sphere. Where does it point, and how well does it measure? The direction
is a latent variable on the sphere. Here it is inferred twice, by NUTS and by a variational guide.
"""

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO

from pyprobe.pyro import (
    SphericalUniform,
    VonMisesFisher,
    VonMisesFisherMixture,
    VonMisesFisherReparam,
    unit_vector,
)

torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(1)

# %%
# What Pyro brings itself
# -----------------------
# A von Mises-Fisher density in three dimensions without draws, the circle (``VonMises``), and the
# projected normal, another family, with a density in up to four dimensions.

print("Pyro", pyro.__version__)
for attempt in (
    lambda: dist.VonMises3D(torch.tensor([0.0, 0.0, 5.0])).sample(),
    lambda: dist.VonMises3D(torch.zeros(10)),
    lambda: dist.ProjectedNormal(torch.zeros(10)).log_prob(torch.eye(10)[0]),
):
    try:
        attempt()
    except Exception as error:
        print(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

# %%
# The model
# ---------
# The reports are a mixture of a von Mises-Fisher law around the direction and of the uniform law,
# which is the one of concentration zero.

direction = torch.tensor([2.0, 1.0, 2.0]) / 3
reports = VonMisesFisherMixture(
    torch.tensor([0.8, 0.2]), direction.expand(2, 3), torch.tensor([30.0, 0.0])
).sample((40,))


def model(reports):
    direction = pyro.sample("direction", SphericalUniform(3, dtype=torch.float64))
    concentration = pyro.sample("concentration", dist.LogNormal(3.0, 1.5))
    glitches = pyro.sample("glitches", dist.Beta(1.0, 4.0))
    weights = torch.stack([1 - glitches, glitches], -1)
    concentrations = torch.stack([concentration, torch.zeros_like(concentration)], -1)
    with pyro.plate("data", len(reports)):
        locs = direction.unsqueeze(-2).expand(*direction.shape[:-1], 2, 3)
        pyro.sample("report", VonMisesFisherMixture(weights, locs, concentrations), obs=reports)


# %%
# NUTS
# ----
# Hamiltonian dynamics need coordinates without an edge or a seam, which a sphere does not have. The
# reparameterizer samples a vector instead, whose direction has exactly the law of the model.

reparameterized = poutine.reparam(model, config={"direction": VonMisesFisherReparam()})
mcmc = MCMC(NUTS(reparameterized), num_samples=500, warmup_steps=300, disable_progbar=True)
mcmc.run(reports)
posterior = mcmc.get_samples()
vectors = posterior["direction_vector"]
drawn = vectors / vectors.norm(dim=-1, keepdim=True)
print("divergences:", len(mcmc.diagnostics()["divergences"]["chain 0"]))

# %%
# A guide
# -------
# A variational guide needs no reparameterizer: it draws the direction from a von Mises-Fisher
# distribution of its own, with unbiased gradients in both parameters.


def guide(reports):
    start = reports.mean(0) / reports.mean(0).norm()
    loc = pyro.param("loc", start, constraint=unit_vector)
    spread = pyro.param("spread", torch.tensor(100.0), constraint=dist.constraints.positive)
    pyro.sample("direction", VonMisesFisher(loc, spread))
    scales = pyro.param("scales", torch.full((2,), 0.3), constraint=dist.constraints.positive)
    means = pyro.param("means", torch.tensor([3.0, -1.5]))
    pyro.sample("concentration", dist.LogNormal(means[0], scales[0]))
    logit_normal = dist.TransformedDistribution(
        dist.Normal(means[1], scales[1]), dist.transforms.SigmoidTransform()
    )
    pyro.sample("glitches", logit_normal)


optimizer = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.995})
svi = SVI(model, guide, optimizer, Trace_ELBO(num_particles=8))
losses = [svi.step(reports) for _ in range(600)]
approximate = Predictive(model, guide=guide, num_samples=500)(reports)

# %%
# Both agree
# ----------

for name, nuts, variational, true in (
    ("concentration", posterior["concentration"], approximate["concentration"], 30.0),
    ("glitches", posterior["glitches"], approximate["glitches"], 0.2),
):
    print(
        f"{name:13}: NUTS {nuts.mean():.3f} ± {nuts.std():.3f}, "
        f"guide {variational.mean():.3f} ± {variational.std():.3f}, truth {true}"
    )
guided = approximate["direction"].reshape(-1, 3)
for name, sample in (("NUTS", drawn), ("guide", guided)):
    angle = torch.rad2deg(torch.acos((sample @ direction).clamp(-1, 1)))
    print(f"direction by {name}: half of the draws within {angle.median():.2f}° of the truth")


def seen_from(axis, points):
    """Lambert's equal-area projection of the half sphere around `axis`."""
    basis = torch.linalg.svd(axis[None])[2][1:]
    flat = points @ basis.T
    cosine = (points @ axis).clamp(min=-1 + 1e-9)
    return np.rad2deg(flat * torch.sqrt(2 / (1 + cosine))[:, None])


figure, axes = plt.subplots(1, 2, figsize=(9, 4.2))
for axis, extent in zip(axes, (100, 8), strict=True):
    axis.scatter(*seen_from(direction, reports).T, s=14, color="gray", label="reports")
    axis.scatter(*seen_from(direction, drawn).T, s=4, label="NUTS")
    axis.scatter(*seen_from(direction, guided).T, s=4, label="guide")
    axis.plot(0, 0, "k+", markersize=12, label="truth")
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xlabel="degrees")
axes[0].set_title("the half sphere around the truth")
axes[1].set_title("its middle")
axes[1].legend(loc="upper right")
plt.show()
