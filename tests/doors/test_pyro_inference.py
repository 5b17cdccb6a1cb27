"""Latent directions and learned directional models under SVI, NUTS and autoguides."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.optim import ClippedAdam
from torch.distributions.constraints import positive

from pyprobe import directional
from pyprobe.errors import DomainError, ShapeError
from pyprobe.pyro import (
    SphericalUniform,
    VonMisesFisher,
    VonMisesFisherMixture,
    VonMisesFisherReparam,
    as_distribution,
    from_pyro,
    unit_vector,
)

REPARAM = {"direction": VonMisesFisherReparam()}


@pytest.fixture(autouse=True)
def fresh():
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def axis(dim, k=0):
    return torch.eye(dim)[k]


def mean_length(dim, concentration):
    order = dim / 2
    return scipy.special.ive(order, concentration) / scipy.special.ive(order - 1, concentration)


# A conjugate model: prior vMF(m, k0), data vMF(direction, k); the posterior is vMF too, with
# concentration times direction k0 m + k sum x.

PRIOR, LIKELIHOOD = 2.0, 4.0


def data(dim, n=6):
    torch.manual_seed(5)
    return VonMisesFisher(axis(dim, 1), LIKELIHOOD).sample((n,))


def conjugate(x):
    direction = pyro.sample("direction", VonMisesFisher(axis(x.shape[-1]), PRIOR))
    with pyro.plate("data", len(x)):
        pyro.sample("x", VonMisesFisher(direction, LIKELIHOOD), obs=x)


def posterior(x):
    natural = PRIOR * axis(x.shape[-1]) + LIKELIHOOD * x.sum(0)
    return natural / natural.norm(), natural.norm().item()


def log_evidence(x):
    loc, concentration = posterior(x)
    prior = VonMisesFisher(axis(x.shape[-1]), PRIOR).log_prob(loc)
    likelihood = VonMisesFisher(loc, LIKELIHOOD).log_prob(x).sum()
    return (prior + likelihood - VonMisesFisher(loc, concentration).log_prob(loc)).item()


def run(model, guide, *args, n_steps, lr=0.05, loss=None, decay=1.0):
    svi = SVI(
        model, guide, ClippedAdam({"lr": lr, "lrd": decay ** (1 / n_steps)}), loss or Trace_ELBO()
    )
    return [svi.step(*args) for _ in range(n_steps)]


# SVI


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_a_guide_of_the_right_family_finds_the_exact_posterior(elbo):
    x = data(4)

    def guide(x):
        loc = pyro.param("loc", axis(4, 2), constraint=unit_vector)
        concentration = pyro.param("concentration", torch.tensor(10.0), constraint=positive)
        pyro.sample("direction", VonMisesFisher(loc, concentration))

    loss = elbo(num_particles=16, vectorize_particles=True)

    def model(x):
        # TraceMeanField asks that the observed plate be apart from the particles' own.
        direction = pyro.sample("direction", VonMisesFisher(axis(4), PRIOR))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", VonMisesFisher(direction, LIKELIHOOD), obs=x)

    run(model, guide, x, n_steps=500, loss=loss, decay=0.02)
    loc, concentration = posterior(x)
    assert (pyro.param("loc") @ loc).item() > 0.999
    assert pyro.param("concentration").item() == pytest.approx(concentration, rel=0.05)
    # The bound is tight for the exact posterior.
    bound = elbo(num_particles=4000, vectorize_particles=True).loss(model, guide, x)
    assert bound == pytest.approx(-log_evidence(x), abs=0.1)


def test_learned_parameters_are_the_maximum_likelihood_fit():
    x = VonMisesFisher(axis(5), 7.0).sample((400,))

    def model(x):
        loc = pyro.param("loc", axis(5, 1), constraint=unit_vector)
        concentration = pyro.param("concentration", torch.tensor(1.0), constraint=positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", VonMisesFisher(loc, concentration), obs=x)

    run(model, lambda x: None, x, n_steps=400, lr=0.1, decay=1e-3)
    mean = x.mean(0)
    torch.testing.assert_close(pyro.param("loc").detach(), mean / mean.norm(), rtol=0, atol=1e-4)
    expected = scipy.optimize.brentq(lambda k: mean_length(5, k) - mean.norm().item(), 1e-3, 100)
    assert pyro.param("concentration").item() == pytest.approx(expected, rel=1e-3)


def test_a_mixture_is_learned_with_enumerated_assignments():
    truth = VonMisesFisherMixture(
        torch.tensor([0.3, 0.7]), torch.eye(2, 6), torch.tensor([20.0, 10.0])
    )
    x = truth.sample((600,))

    @config_enumerate
    def model(x):
        weights = pyro.param("weights", torch.ones(2) / 2, constraint=dist.constraints.simplex)
        start = torch.nn.functional.normalize(torch.eye(2, 6) + 0.5, dim=-1)
        locs = pyro.param("locs", start, constraint=dist.constraints.independent(unit_vector, 1))
        concentrations = pyro.param("concentrations", torch.full((2,), 5.0), constraint=positive)
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(weights))
            pyro.sample("x", VonMisesFisher(locs[label], concentrations[label]), obs=x)

    losses = run(
        model, lambda x: None, x, n_steps=300, loss=TraceEnum_ELBO(max_plate_nesting=1), decay=0.01
    )
    learned = VonMisesFisherMixture(
        *(pyro.param(name).detach() for name in ("weights", "locs", "concentrations"))
    )
    assert losses[-1] == pytest.approx(-learned.log_prob(x).sum().item(), rel=1e-3)
    assert learned.log_prob(x).sum() >= truth.log_prob(x).sum()
    torch.testing.assert_close(learned.weights, truth.weights, rtol=0, atol=0.06)
    assert ((learned.locs * truth.locs).sum(-1) > 0.98).all()


def test_an_autoencoder_with_a_latent_direction_learns():
    true_decoder = torch.randn(3, 8)
    z = SphericalUniform(3).sample((300,))
    x = z @ true_decoder + 0.1 * torch.randn(300, 8)
    decoder, encoder = torch.nn.Linear(3, 8), torch.nn.Linear(8, 4)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", SphericalUniform(3))
            pyro.sample("x", dist.Normal(decoder(z), 0.1).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            code = encoder(x)
            loc = torch.nn.functional.normalize(code[:, :3], dim=-1)
            concentration = torch.nn.functional.softplus(code[:, 3]) * 50 + 1
            pyro.sample("z", VonMisesFisher(loc, concentration))

    run(model, guide, x, n_steps=400, lr=0.03, loss=TraceMeanField_ELBO(), decay=0.1)
    code = torch.nn.functional.normalize(encoder(x)[:, :3], dim=-1)
    residual = (decoder(code) - x).square().mean()
    assert residual < 0.05 * x.var()


# The reparameterizer


@pytest.mark.parametrize(
    "make",
    [
        lambda: VonMisesFisher(axis(4), 5.0),
        lambda: SphericalUniform(4),
        lambda: VonMisesFisherMixture(torch.tensor([0.4, 0.6]), torch.eye(2, 4), 8.0),
    ],
)
def test_reparameterized_density_and_law_are_those_of_the_model(make):
    @poutine.reparam(config=REPARAM)
    def model():
        return pyro.sample("direction", make())

    trace = poutine.trace(model).get_trace()
    vector, direction = (trace.nodes[n]["value"] for n in ("direction_vector", "direction"))
    torch.testing.assert_close(direction, vector / vector.norm())
    # In polar coordinates, dz = r^(d-1) dr du, it is the density of u times that of the length.
    length = vector.norm().item()
    log_chi = scipy.stats.chi(16).logpdf(length) - 3 * math.log(length)
    expected = make().log_prob(direction).item() + log_chi
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-12)

    drawn = Predictive(model, num_samples=4000, parallel=True)()["direction"]
    direct = make().sample((4000,))
    for k in range(2):
        assert scipy.stats.ks_2samp(drawn[..., k].flatten(), direct[:, k]).pvalue > 1e-6


def test_reparameterizer_works_in_plates_and_under_to_event():
    @poutine.reparam(config=REPARAM)
    def model():
        with pyro.plate("rows", 5):
            return pyro.sample("direction", VonMisesFisher(torch.eye(2, 3), 5.0).to_event(1))

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["direction_vector"]["value"].shape == (5, 2, 3)
    assert trace.nodes["direction_vector"]["log_prob"].shape == (5,)
    assert trace.nodes["direction"]["value"].norm(dim=-1).sub(1).abs().max() < 1e-12


def test_an_initial_direction_can_be_given():
    @poutine.reparam(config=REPARAM)
    def model():
        return pyro.sample("direction", VonMisesFisher(axis(3), 5.0))

    start = torch.tensor([0.0, 0.6, -0.8])
    guide = AutoNormal(model, init_loc_fn=init_to_value(values={"direction": start}))
    guide()
    direction = guide.median()["direction_vector"]
    torch.testing.assert_close(direction / direction.norm(), start)


def test_reparameterizer_says_what_it_is_not_for():
    @poutine.reparam(config=REPARAM)
    def observed():
        pyro.sample("direction", VonMisesFisher(axis(3), 5.0), obs=axis(3))

    @poutine.reparam(config=REPARAM)
    def other():
        pyro.sample("direction", dist.Normal(0.0, 1.0))

    with pytest.raises(DomainError, match="'direction' is observed"):
        observed()
    with pytest.raises(DomainError, match="'direction' has Normal"):
        other()


def test_without_it_autoguides_and_nuts_say_how_to_go_on():
    x = data(3)
    with pytest.raises(NotImplementedError, match="VonMisesFisherReparam"):
        AutoNormal(conjugate)(x)
    with pytest.raises(NotImplementedError, match="VonMisesFisherReparam"):
        MCMC(NUTS(conjugate), num_samples=1, disable_progbar=True).run(x)


def test_an_autoguide_finds_a_latent_direction():
    x = data(3, n=20)
    model = poutine.reparam(conjugate, config=REPARAM)
    guide = AutoMultivariateNormal(model)
    losses = run(model, guide, x, n_steps=800, lr=0.03, decay=0.03)
    drawn = Predictive(model, guide=guide, num_samples=2000)(x)["direction"].reshape(-1, 3)
    loc, concentration = posterior(x)
    mean = drawn.mean(0)
    assert (mean @ loc / mean.norm()).item() > 0.999
    assert mean.norm().item() == pytest.approx(mean_length(3, concentration), abs=0.01)
    # A bound on the evidence, loose by what a normal law cannot say of a direction.
    assert -log_evidence(x) < np.mean(losses[-200:]) < -log_evidence(x) + 0.3


def assert_posterior(samples, x):
    """Compare the moments of NUTS draws, (chains, n, d), with the conjugate posterior's."""
    loc, concentration = posterior(x)
    dim = x.shape[-1]
    cosine = samples @ loc
    n_effective = pyro.ops.stats.effective_sample_size(cosine, 0, 1).item()
    assert n_effective > 50
    ratio = mean_length(dim, concentration)
    variance = 1 - ratio**2 - (dim - 1) * ratio / concentration
    assert abs(cosine.mean() - ratio) < 4.9 * math.sqrt(variance / n_effective)
    assert cosine.var().item() == pytest.approx(variance, rel=12 / math.sqrt(n_effective))
    across = samples - cosine[..., None] * loc
    spread = across.square().sum(-1).mean().item()
    assert spread == pytest.approx((dim - 1) * ratio / concentration, rel=0.2)
    assert across.mean((0, 1)).norm() < 4.9 * math.sqrt(spread / n_effective)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(("dim", "n"), [(2, 60), (8, 20)])
def test_nuts_draws_a_latent_direction_from_its_posterior(dim, n):
    x = data(dim, n)
    model = poutine.reparam(conjugate, config=REPARAM)
    mcmc = MCMC(NUTS(model), num_samples=400, warmup_steps=150, disable_progbar=True)
    mcmc.run(x)
    assert not mcmc.diagnostics()["divergences"]["chain 0"]
    vector = mcmc.get_samples(group_by_chain=True)["direction_vector"]
    assert_posterior(vector / vector.norm(dim=-1, keepdim=True), x)


@pytest.mark.slow
@pytest.mark.statistical
# Python 3.12 and later warn of any fork in a process with threads: here, torch's and ours.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nuts_runs_two_chains_in_forked_processes(monkeypatch):
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 3)  # else one after the other
    x = data(3)
    VonMisesFisher(axis(64), 5.0).sample((20_000,))  # our threads are running at the fork
    model = poutine.reparam(conjugate, config=REPARAM)
    mcmc = MCMC(
        NUTS(model),
        num_samples=300,
        warmup_steps=150,
        num_chains=2,
        mp_context="fork",
        disable_progbar=True,
    )
    mcmc.run(x)
    vector = mcmc.get_samples(group_by_chain=True)["direction_vector"]
    assert vector.shape[:2] == (2, 300)
    assert not torch.equal(vector[0], vector[1])
    assert_posterior(vector / vector.norm(dim=-1, keepdim=True), x)


# Conversions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fitted_values_come_into_pyro_and_go_back(dtype):
    x = VonMisesFisherMixture(
        torch.tensor([0.4, 0.6]), torch.eye(2, 5), torch.tensor([30.0, 9.0])
    ).sample((500,))
    x = x.numpy().astype(dtype)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    for value in (
        directional.VonMisesFisher.fit(x),
        directional.VonMisesFisherMixture.fit(x, 2, rng=0),
        directional.SphericalUniform(5),
    ):
        carried = as_distribution(value)
        assert type(carried).__name__ == type(value).__name__
        expected = value.log_prob(x)
        np.testing.assert_allclose(
            carried.log_prob(torch.from_numpy(x)), expected, rtol=rtol, atol=rtol
        )
        back = from_pyro(carried)
        assert type(back) is type(value)
        again = back.log_prob(torch.from_numpy(x))
        np.testing.assert_allclose(again, expected, rtol=rtol, atol=rtol)


def test_a_trained_distribution_leaves_pyro_without_its_graph():
    concentration = torch.tensor(3.0, requires_grad=True)
    value = from_pyro(VonMisesFisher(axis(3), concentration))
    with torch.no_grad():
        concentration += 1
    assert float(value.concentration) == 3.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_pyros_constraints_let_pass_leaves_pyro(dtype):
    """Those of directions and weights leave more room than pyprobe.directional does."""
    loc = (torch.tensor([0.6, 0.0, 0.8]).double() * (1 + 9e-6)).to(dtype)
    value = from_pyro(VonMisesFisher(loc, 3.0))
    assert value.loc.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert abs(value.loc.norm() - 1) < 1e-6
    locs, weights = torch.stack([loc, -loc]), torch.tensor([0.25, 0.75], dtype=dtype)
    mixture = from_pyro(VonMisesFisherMixture(weights, locs, 3.0))
    assert mixture.locs.dtype == value.loc.dtype
    torch.testing.assert_close(mixture.locs, torch.stack([value.loc, -value.loc]))
    assert abs(mixture.weights.sum() - 1) < 1e-6


def test_a_batch_of_distributions_leaves_pyro():
    d = VonMisesFisher(torch.eye(2, 3), torch.tensor([1.0, 4.0]))
    value = from_pyro(d)
    assert value.batch_shape == (2,)
    torch.testing.assert_close(value.log_prob(axis(3)), d.log_prob(axis(3)))
    torch.testing.assert_close(as_distribution(value).entropy(), d.entropy())


def test_conversions_refuse_what_they_cannot_carry():
    with pytest.raises(TypeError, match="'value' must be a VonMisesFisher"):
        as_distribution(3.0)
    with pytest.raises(TypeError, match=r"'distribution' must be .* got Normal"):
        from_pyro(dist.Normal(0.0, 1.0))
    with pytest.raises(ShapeError, match=r"empty batch shape; got \(2,\)"):
        from_pyro(VonMisesFisherMixture(torch.ones(2) / 2, torch.eye(2, 3), 1.0).expand((2,)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_densities_can_be_traced_and_draws_refuse_it():
    """Pyro's JIT records a step once, and repeats it with other parameters."""
    pyro.set_rng_seed(0)
    loc = torch.eye(3)[0]
    x = VonMisesFisher(loc, 20.0).sample((500,))

    def model(prior=dist.Gamma):
        concentration = pyro.sample("concentration", prior(2.0, 0.1))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", VonMisesFisher(loc, concentration), obs=x)

    def learn(elbo):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        guide = AutoDelta(model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        for _ in range(200):
            svi.step()
        return guide.median()["concentration"].item()

    traced = learn(JitTrace_ELBO(ignore_jit_warnings=True))
    assert traced == pytest.approx(learn(Trace_ELBO()), rel=1e-4)
    assert 17 < traced < 23

    def guide():
        pyro.sample("u", VonMisesFisher(loc, pyro.param("kappa", torch.tensor(2.0))))

    def latent():
        pyro.sample("u", SphericalUniform(3))

    svi = SVI(latent, guide, pyro.optim.Adam({"lr": 0.1}), JitTrace_ELBO())
    with pytest.raises(DomainError, match="cannot be traced"):
        svi.step()
