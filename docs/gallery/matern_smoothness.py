r"""
Learning how smooth a function is
=================================

The Matern kernel has a smoothness :math:`\nu`: samples are :math:`\lceil \nu \rceil - 1` times
differentiable. GPyTorch's kernel takes 1/2, 3/2 or 5/2, where the Bessel function in it is
elementary; the choice is usually made by habit. With ``pyprobe.gpytorch.MaternKernel`` it is a
parameter like the lengthscale. What do data say about it, and what does it cost?
"""

import time

import gpytorch
import matplotlib.pyplot as plt
import torch
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import ScaleKernel

from pyprobe.gpytorch import MaternKernel, from_gpytorch

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
print("GPyTorch", gpytorch.__version__)

# %%
# A rough function
# ----------------
# 250 readings of a process with :math:`\nu = 0.9`, lengthscale 0.2 and a little noise.

truth = MaternKernel(nu=0.9)
truth.lengthscale = 0.2
x = torch.rand(250, 1).sort(0).values
with torch.no_grad():
    covariance = truth(x).to_dense() + 1e-4 * torch.eye(len(x))
    y = torch.linalg.cholesky(covariance) @ torch.randn(len(x))


class Regression(gpytorch.models.ExactGP):
    def __init__(self, kernel):
        super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = kernel
        self.likelihood.noise_covar.register_constraint("raw_noise", GreaterThan(1e-6))
        self.likelihood.noise = 1e-3

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def loss(model):
    """The negative log marginal likelihood, in nats."""
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    return -likelihood(model(x), y) * len(x)


def train(kernel):
    """A model trained on all parameters of the kernel, its loss, and the seconds it took."""
    model = Regression(kernel)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(parameters, max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        return value

    start = time.perf_counter()
    optimizer.step(closure)
    return model, loss(model).item(), time.perf_counter() - start


# %%
# Three habits, and the data's own choice
# ---------------------------------------
# The conversion starts ours from the best of GPyTorch's own, with all it has learned.

best = None
for nu in (0.5, 1.5, 2.5):
    model, value, seconds = train(ScaleKernel(gpytorch.kernels.MaternKernel(nu=nu)))
    print(f"GPyTorch, nu = {nu}: loss {value:8.2f}, trained in {seconds:.2f} s")
    if best is None or value < best[1]:
        best = model, value

free, value, seconds = train(from_gpytorch(best[0].covar_module))
kernel = free.covar_module.base_kernel
print(
    f"pyprobe, nu learned: loss {value:8.2f}, trained in {seconds:.2f} s, nu = {kernel.nu.item():.3f}"
)

# %%
# How sure is it?
# ---------------
# The profile of the likelihood: for each smoothness, the other parameters at their best. An interval
# where it lies within 1.92 of its highest has a confidence of about 95 %.

smoothness = torch.linspace(0.5, 1.75, 26)
profile = []
for nu in smoothness:
    fixed = MaternKernel(nu=nu)
    fixed.lengthscale = kernel.lengthscale.detach()
    fixed.raw_nu.requires_grad_(False)
    profile.append(-train(ScaleKernel(fixed))[1])
profile = torch.tensor(profile)

figure, axis = plt.subplots(figsize=(7, 4))
axis.plot(smoothness, profile + value, label="profile log-likelihood")
axis.axhline(-1.92, color="gray", linewidth=0.8, label="95 % interval")
axis.axvline(0.9, color="gray", linestyle=":", label="truth")
axis.plot(kernel.nu.item(), 0, "o", label="learned")
axis.set(xlabel=r"smoothness $\nu$", ylabel="log-likelihood below its maximum", ylim=(-30, 2))
axis.legend()
plt.show()

# %%
# The price
# ---------
# One evaluation of the loss with its gradient. An element of GPyTorch's kernel is an exponential, one
# of ours a Bessel function with its derivatives in both arguments. The larger the data, the more
# of the time goes into the Cholesky factor, which is the same for both.

for name, model in (("GPyTorch, nu = 1.5", best[0]), ("pyprobe, nu learned", free)):
    times = []
    for _ in range(20):
        start = time.perf_counter()
        loss(model).backward()
        times.append(time.perf_counter() - start)
    print(f"{name:20}: {1e3 * min(times):.1f} ms")
