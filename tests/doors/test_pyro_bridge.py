"""Schrödinger bridges as conditional laws of Pyro's models and guides."""

import math

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, JitTrace_ELBO, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.optim import ClippedAdam
from torch.autograd import gradcheck

from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.pyro import ConditionalBridge, as_distribution
from pyprobe.transport import LightSchrodingerBridge

KINDS = ("spherical", "diag", "full")


@pytest.fixture(autouse=True)
def fresh():
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def bridge_of(kind="diag", *, k=3, d=2, epsilon=0.4, horizon=1.0):
    rng = np.random.default_rng(0)
    scales = {
        "spherical": rng.uniform(0.3, 1.5, k),
        "diag": rng.uniform(0.3, 1.5, (k, d)),
        "full": np.stack([np.cov(rng.normal(size=(d, 3 * d))) + 0.1 * np.eye(d) for _ in range(k)]),
    }[kind]
    return LightSchrodingerBridge.from_parameters(
        rng.dirichlet(np.ones(k)), rng.normal(size=(k, d)), scales, epsilon=epsilon, horizon=horizon
    )


def run(model, guide, *args, n_steps, lr=0.05, loss=None):
    optimizer = ClippedAdam({"lr": lr, "lrd": 0.02 ** (1 / n_steps)})
    svi = SVI(model, guide, optimizer, loss or Trace_ELBO())
    return [svi.step(*args) for _ in range(n_steps)]


# Values and shapes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [None, 0.7])
def test_the_density_is_that_of_the_bridge(kind, t):
    bridge = bridge_of(kind, horizon=2.0)
    x0, x = torch.randn(5, 2), torch.randn(3, 5, 2)
    expected = bridge.conditional(x0.numpy()) if t is None else bridge.conditional_at(x0.numpy(), t)
    for source in (bridge, bridge.to_torch()):
        d = ConditionalBridge(source, x0, t=t)
        assert isinstance(d, dist.TorchDistribution)
        found = d.log_prob(x).detach()
        np.testing.assert_allclose(found, expected.log_prob(x.numpy()), rtol=1e-12)
        np.testing.assert_allclose(d.mean.detach(), expected.mean, rtol=1e-12, atol=1e-12)
    assert gradcheck(
        lambda x, x0: ConditionalBridge(bridge, x0, t=t).log_prob(x),
        (x.requires_grad_(), x0.requires_grad_()),
    )


@pytest.mark.parametrize("reparam", [False, True])
def test_it_expands_sits_in_plates_and_keeps_its_dtype(reparam):
    bridge = bridge_of()
    x0 = torch.randn(4, 1, 2, dtype=torch.float32)
    d = ConditionalBridge(bridge, x0, reparam=reparam)
    assert (d.batch_shape, d.event_shape) == ((4, 1), (2,))
    wide = d.expand((3, 4, 5))
    assert type(wide) is ConditionalBridge
    assert wide.has_rsample is reparam
    x = wide()
    assert (x.shape, x.dtype) == ((3, 4, 5, 2), torch.float32)
    assert wide.log_prob(x).shape == (3, 4, 5)
    assert wide.to_event(1).log_prob(x).shape == (3, 4)
    assert wide.mask(False).log_prob(x).abs().max() == 0
    assert repr(d) == "ConditionalBridge(batch=(4, 1), n_components=3, dim=2)"

    def model():
        with pyro.plate("outer", 7, dim=-1):
            pyro.sample("one", ConditionalBridge(bridge, torch.zeros(2), reparam=reparam))
            with pyro.plate("inner", 4, dim=-2):
                pyro.sample("two", ConditionalBridge(bridge, x0, t=0.4, reparam=reparam))

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["one"]["value"].shape == (7, 2)
    assert trace.nodes["two"]["log_prob"].shape == (4, 7)
    draws = Predictive(model, num_samples=6, parallel=True)()
    assert draws["two"].shape == (6, 4, 7, 2)


def test_the_seed_of_pyro_rules_the_draws():
    d = ConditionalBridge(bridge_of("full"), torch.zeros(10, 2))
    pyro.set_rng_seed(5)
    first = d.sample((3,))
    pyro.set_rng_seed(5)
    assert d.sample((3,)).equal(first)
    assert not d.sample((3,)).equal(first)


@pytest.mark.statistical
@pytest.mark.parametrize("reparam", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_law(kind, reparam, seed):
    # Kolmogorov's distance at a false-fail rate of 1e-6; a distance of 0.02 is found.
    torch.manual_seed(seed)
    bridge, x0 = bridge_of(kind), torch.tensor([0.5, -1.0])
    n = 100_000
    draws = ConditionalBridge(bridge, x0, reparam=reparam)((n,))[:, 0].numpy()
    law = bridge.conditional(x0.numpy()[None])
    covariances = law.component_covariances
    variances = covariances[:, 0, 0] if kind == "full" else covariances[:, 0]
    points = np.sort(draws)
    cdf = scipy.stats.norm.cdf(points[:, None], law.locs[0, :, 0], np.sqrt(variances))
    distance = np.abs(cdf @ law.weights[0] - (np.arange(n) + 0.5) / n).max()
    assert distance < math.sqrt(math.log(2 / 1e-6) / 2 / n) < 0.01


# Inference


def gaussian(epsilon=0.5):
    """A bridge of one component: the end from x0 is N(shift + S x0, epsilon S)."""
    return LightSchrodingerBridge.from_parameters(
        [1.0], [[1.0, -2.0]], [[0.5, 1.5]], epsilon=epsilon
    )


@pytest.mark.slow
def test_a_latent_end_has_the_known_posterior_under_svi():
    bridge, x0, y, noise = gaussian(), torch.tensor([0.4, 0.2]), torch.tensor([2.0, -1.0]), 0.3

    def model():
        end = pyro.sample("end", ConditionalBridge(bridge, x0))
        pyro.sample("y", dist.Normal(end, noise).to_event(1), obs=y)

    guide = AutoMultivariateNormal(model)
    run(model, guide, n_steps=600, loss=Trace_ELBO(num_particles=8, vectorize_particles=True))
    prior = bridge.conditional(x0.numpy()[None])
    variance = np.diag(prior.covariance[0])
    gain = variance / (variance + noise**2)
    found = guide.get_posterior()
    mean = prior.mean[0] + gain * (y.numpy() - prior.mean[0])
    np.testing.assert_allclose(found.mean.detach(), mean, atol=0.03)
    np.testing.assert_allclose(found.variance.detach(), gain * noise**2, rtol=0.15)


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_a_mixture():
    bridge = bridge_of("full", k=2)
    x0, y, noise = torch.tensor([[0.3, 0.1]]), torch.tensor([0.4, 0.6]), 0.8

    def model():
        end = pyro.sample("end", ConditionalBridge(bridge, x0[0]))
        pyro.sample("y", dist.Normal(end, noise).to_event(1), obs=y)

    sampler = MCMC(NUTS(model), num_samples=400, warmup_steps=150, disable_progbar=True)
    sampler.run()
    draws = sampler.get_samples()["end"]
    # Each component's posterior is a Gaussian, with its evidence for a weight.
    law = bridge.conditional(x0.numpy())
    evidence, means = [], []
    for weight, loc, C in zip(law.weights[0], law.locs[0], law.component_covariances, strict=True):
        total = C + noise**2 * np.eye(2)
        evidence.append(weight * scipy.stats.multivariate_normal(loc, total).pdf(y.numpy()))
        means.append(loc + C @ np.linalg.solve(total, y.numpy() - loc))
    expected = np.array(evidence) @ means / sum(evidence)
    # A chain of 400 is worth 100 independent draws at least: 4.5 standard errors.
    bound = 4.5 * draws.std(0).numpy() / 10
    assert (np.abs(draws.mean(0).numpy() - expected) < bound).all()
    assert bound.max() < 0.35


def test_a_module_learns_the_known_bridge_from_pairs():
    # Per coordinate the likelihood of pairs is highest where S^2 E u^2 + epsilon S = E e^2, with
    # u = x0 - mean and e = x1 - mean, as its derivative in S says.
    rng = np.random.default_rng(1)
    truth = gaussian()
    x0 = rng.normal(size=(300, 2))
    x1 = truth.sample(x0, rng=2)
    u, e = (x.var(axis=0) for x in (x0, x1))
    S = 2 * e / (truth.epsilon + np.sqrt(truth.epsilon**2 + 4 * u * e))
    start = LightSchrodingerBridge.from_parameters(
        [1.0], [[0.0, 0.0]], np.ones((1, 2)), epsilon=truth.epsilon, origin=x0.mean(0)
    )
    module = start.to_torch()
    starts, ends = torch.tensor(x0), torch.tensor(x1)

    def model():
        pyro.module("bridge", module)
        with pyro.plate("pairs", len(starts)):
            pyro.sample("x1", ConditionalBridge(module, starts), obs=ends)

    run(model, lambda: None, n_steps=400)
    found = module.to_bridge()
    np.testing.assert_allclose(found.scales[0], S, rtol=1e-3)
    np.testing.assert_allclose(found.shifts[0], x1.mean(0), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_reparameterized_bridge_in_the_guide_finds_the_exact_posterior(kind):
    # From the origin the law of a bridge of one component is N(shift, epsilon S).
    root = torch.tensor([[0.6, 0.0], [0.8, 0.5]]) if kind == "full" else 0.6 * torch.eye(2)
    y = torch.randn(4, 2) @ root.T + torch.tensor([1.0, -0.5])
    scales = {"spherical": [1.0], "diag": [[1.0, 1.0]], "full": np.eye(2)[None]}[kind]
    start = LightSchrodingerBridge.from_parameters([1.0], [[0.0, 0.0]], scales, epsilon=0.2)
    module = start.to_torch()

    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y), dim=-1):
            pyro.sample("y", dist.MultivariateNormal(z, scale_tril=root), obs=y)

    def guide():
        pyro.module("bridge", module)
        pyro.sample("z", ConditionalBridge(module, torch.zeros(2), reparam=True))

    run(model, guide, n_steps=500, loss=Trace_ELBO(num_particles=16, vectorize_particles=True))
    inverse = torch.linalg.inv(root @ root.T)
    covariance = torch.linalg.inv(torch.eye(2) + len(y) * inverse)
    found = module.to_bridge().conditional(np.zeros((1, 2)))
    np.testing.assert_allclose(found.mean[0], covariance @ inverse @ y.sum(0), atol=0.02)
    np.testing.assert_allclose(found.covariance[0], covariance, atol=0.01)


def test_draws_without_reparam_train_by_their_score():
    # A guide of two components and the matching model: the loss falls to 0, minus the evidence.
    bridge = bridge_of("diag", k=2)
    module = bridge.to_torch()
    with torch.no_grad():
        module.offsets += 0.3

    def model():
        pyro.sample("z", ConditionalBridge(bridge, torch.ones(2)))

    def guide():
        pyro.module("bridge", module)
        pyro.sample("z", ConditionalBridge(module, torch.ones(2)))

    before = Trace_ELBO(num_particles=500, vectorize_particles=True).loss(model, guide)
    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True)
    run(model, guide, n_steps=200, lr=0.03, loss=elbo)
    after = Trace_ELBO(num_particles=500, vectorize_particles=True).loss(model, guide)
    assert before > 0.15
    assert abs(after) < 0.02


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes are compared
def test_only_densities_and_plain_draws_can_be_traced():
    bridge = bridge_of("full")
    module, y = bridge.to_torch(), torch.tensor([0.4, 0.6])

    def model():
        end = pyro.sample("end", ConditionalBridge(bridge, torch.zeros(2)))
        pyro.sample("y", dist.Normal(end, 0.8).to_event(1), obs=y)

    def guide():
        pyro.module("bridge", module)
        pyro.sample("end", ConditionalBridge(module, torch.zeros(2), reparam=True))

    with pytest.raises(DomainError, match="cannot be traced or compiled"):
        run(model, guide, n_steps=1, loss=JitTrace_ELBO(ignore_jit_warnings=True))
    kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
    sampler = MCMC(kernel, num_samples=20, warmup_steps=20, disable_progbar=True)
    sampler.run()
    assert len(sampler.get_samples()["end"].unique(dim=0)) > 10
    law = torch.jit.trace(
        lambda x0: ConditionalBridge(bridge, x0).sample(), torch.zeros(9, 2), check_trace=False
    )
    assert not law(torch.zeros(9, 2)).equal(law(torch.zeros(9, 2)))


def test_a_time_can_be_learned():
    # Where along the way were they seen? The likelihood of one component, on a grid of times.
    bridge = gaussian()
    x0 = torch.randn(200, 2)
    seen = torch.tensor(bridge.conditional_at(x0.numpy(), 0.35).sample(rng=0))

    def model():
        t = pyro.param("t", torch.tensor(0.8), constraint=dist.constraints.unit_interval)
        with pyro.plate("cells", len(x0)):
            pyro.sample("seen", ConditionalBridge(bridge, x0, t=t), obs=seen)

    run(model, lambda: None, n_steps=200)
    grid = np.linspace(0.2, 0.6, 401)
    likelihood = [bridge.conditional_at(x0.numpy(), t).log_prob(seen.numpy()).sum() for t in grid]
    assert pyro.param("t").item() == pytest.approx(grid[np.argmax(likelihood)], abs=2e-3)


# What is refused


def test_what_does_not_fit_is_refused():
    bridge, x0 = bridge_of(), torch.zeros(3, 2)
    calls = {
        lambda: ConditionalBridge(3, x0): (TypeError, "'bridge' must be a LightSchrodingerBridge"),
        lambda: ConditionalBridge(bridge, x0.numpy()): (TypeError, "'x0' must be a torch tensor"),
        lambda: ConditionalBridge(bridge, x0.long()): (TypeError, "a tensor of torch.int64"),
        lambda: ConditionalBridge(bridge, x0[:, :1]): (
            ShapeError,
            r"'x0' must have shape \(\.\.\., 2",
        ),
        lambda: ConditionalBridge(bridge, x0 / 0): (NotFiniteError, "entries in row 0"),
        lambda: ConditionalBridge(bridge, x0, t=0.0): (
            DomainError,
            r"'t' must be in \(0, 1\]; got 0",
        ),
        lambda: ConditionalBridge(bridge, x0, t=2.0): (DomainError, r"'t' must be in \(0, 1\]"),
        lambda: ConditionalBridge(bridge, x0, t=torch.tensor([0.5, 0.0, 1.0])): (
            DomainError,
            r"'t' must be in \(0, 1\]; got 0",
        ),
        lambda: ConditionalBridge(bridge, x0, t=torch.ones(2)): (ShapeError, "broadcast with"),
        lambda: ConditionalBridge(bridge, x0).expand((2,)): (ShapeError, "'batch_shape' must"),
        lambda: ConditionalBridge(bridge, x0).rsample(): (NotImplementedError, "reparam=True"),
        lambda: ConditionalBridge(bridge, x0).log_prob(torch.ones(3)): (ValueError, "."),
        lambda: as_distribution(bridge): (TypeError, r"ConditionalBridge\(value, x0\)"),
    }
    for call, (error, message) in calls.items():
        with pytest.raises(error, match=message):
            call()
