"""Coresets and weighted rows in Pyro's models: the right posterior, or a refusal."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.optim import Adam, ClippedAdam
from scipy.special import expit

from pyprobe.errors import DomainError, NotFiniteError, PyprobeError, ShapeError
from pyprobe.pyro import glm_coreset_factor, weighted_plate
from pyprobe.sketching import GLMCoreset

N, D, SCALE = 3000, 3, 2.0


@pytest.fixture(autouse=True)
def fresh():
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(N), rng.normal(size=(N, D - 1))])
    return x, (rng.random(N) < expit(x @ [-1.0, 0.8, 0.5])).astype(float)


@pytest.fixture(scope="module")
def coreset(data):
    return GLMCoreset.fit(*data, family="logistic", n_samples=60, prior_precision=SCALE**-2, rng=0)


def prior():
    return pyro.sample("theta", dist.Normal(torch.zeros(D), SCALE).to_event(1))


def full_posterior(data, coreset):
    """Means and sds by importance sampling from the Laplace approximation: errors of 0.01 sds."""
    x, y = data
    precision = coreset.prior_precision - coreset.center_hessian
    z = np.random.default_rng(1).normal(size=(10_000, D))
    z = np.concatenate([z, -z])
    thetas = coreset.center + z @ np.linalg.inv(np.linalg.cholesky(precision))
    eta = thetas @ x.T
    values = eta @ y - np.logaddexp(0, eta).sum(axis=1) - (thetas**2).sum(axis=1) / (2 * SCALE**2)
    log_weights = values + (z**2).sum(axis=1) / 2
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    assert 1 / (weights**2).sum() > 0.9 * len(weights)
    mean = weights @ thetas
    return mean, np.sqrt(weights @ (thetas - mean) ** 2)


# The factor


def test_the_factor_is_the_log_likelihood_less_its_value_at_the_center(coreset):
    def model(theta):
        glm_coreset_factor(coreset, theta, name="data")

    thetas = torch.tensor(coreset.center) + 0.1 * torch.randn(5, 1, D)
    site = poutine.trace(model).get_trace(thetas).nodes["data"]
    expected = coreset.log_likelihood(thetas.numpy()) - coreset.center_value
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), expected, rtol=1e-9, atol=1e-9)
    theta = thetas[0, 0].float().requires_grad_()
    factor = poutine.trace(model).get_trace(theta).nodes["data"]["fn"].log_factor
    assert factor.dtype == torch.float32
    factor.backward()
    slope = coreset.gradient(theta.detach().double().numpy())
    np.testing.assert_allclose(theta.grad, slope, rtol=1e-4, atol=1e-3)


def test_the_factor_of_weighted_rows_is_that_of_a_weighted_plate(data):
    x, y = data
    weights = np.random.default_rng(0).gamma(1.0, size=N)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=N, sample_weight=weights)

    def rows(theta):
        with weighted_plate("data", torch.tensor(weights)):
            logits = torch.tensor(x) @ theta
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=torch.tensor(y))

    for theta in torch.tensor(coreset.center) + torch.randn(3, D):
        expected = poutine.trace(rows).get_trace(theta).log_prob_sum() - coreset.center_value
        found = poutine.trace(glm_coreset_factor).get_trace(coreset, theta).log_prob_sum()
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nuts_with_two_percent_of_the_rows_finds_the_posterior_of_all(data, coreset, dtype):
    torch.set_default_dtype(dtype)

    def model():
        glm_coreset_factor(coreset, prior())

    sampler = MCMC(NUTS(model), num_samples=400, warmup_steps=150, disable_progbar=True)
    sampler.run()
    draws = sampler.get_samples()["theta"].double().numpy()
    assert sampler.get_samples()["theta"].dtype == dtype
    mean, sd = full_posterior(data, coreset)
    # A chain of 400 is worth 100 independent draws at least: 4.5 standard errors.
    assert (np.abs(draws.mean(axis=0) - mean) < 0.45 * sd).all()
    assert (np.abs(np.log(draws.std(axis=0) / sd)) < 4.5 / np.sqrt(200)).all()
    assert coreset.check(*data, draws=draws).verdict == "faithful"


@pytest.mark.slow
def test_nuts_comes_back_from_two_thousand_standard_deviations_off():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(20_000), rng.normal(40, 12, 20_000)])
    y = (rng.random(20_000) < expit(0.1 * x[:, 1] - 4)).astype(float)
    coreset = GLMCoreset.fit(x, y, family="logistic", n_samples=300, prior_precision=0.04, rng=0)
    factor = np.linalg.cholesky(coreset.prior_precision - coreset.center_hessian)

    def model():
        theta = pyro.sample("theta", dist.Normal(torch.zeros(2), 5.0).to_event(1))
        glm_coreset_factor(coreset, theta)

    kernel = NUTS(model)  # starts anywhere in [-2, 2]^2
    sampler = MCMC(kernel, num_samples=100, warmup_steps=300, disable_progbar=True)
    sampler.run()
    draws = sampler.get_samples()["theta"].numpy()
    assert np.abs(((draws - coreset.center) @ factor).mean(axis=0)).max() < 1
    assert coreset.check(x, y, draws=draws).verdict == "faithful"


@pytest.mark.parametrize("loss", [Trace_ELBO, JitTrace_ELBO])
def test_svi_with_particles_in_a_plate_finds_it_too(data, coreset, loss):
    def model():
        glm_coreset_factor(coreset, prior())

    guide = AutoMultivariateNormal(model, init_scale=0.05)
    options = {"ignore_jit_warnings": True} if loss is JitTrace_ELBO else {}
    elbo = loss(num_particles=64, vectorize_particles=True, **options)
    svi = SVI(model, guide, ClippedAdam({"lr": 0.05, "lrd": 0.01 ** (1 / 400)}), elbo)
    for _ in range(400):
        svi.step()
    mean, sd = full_posterior(data, coreset)
    found = guide.get_posterior()
    np.testing.assert_allclose((found.mean.detach().numpy() - mean) / sd, 0, atol=0.2)
    np.testing.assert_allclose(found.variance.detach().sqrt().numpy() / sd, 1, atol=0.2)


def test_what_is_no_coreset_or_no_coefficient_is_refused(data, coreset):
    theta = torch.zeros(D)
    plain = GLMCoreset.fit(*data, family="logistic", n_samples=60, control_variate=False, rng=0)
    calls = {
        lambda: glm_coreset_factor(plain, theta): (DomainError, "must have its control variate"),
        lambda: glm_coreset_factor(3, theta): (TypeError, "'coreset' must be a GLMCoreset"),
        lambda: glm_coreset_factor(coreset, np.zeros(D)): (TypeError, "'theta' must be a torch"),
        lambda: glm_coreset_factor(coreset, theta.long()): (TypeError, "a tensor of torch.int64"),
        lambda: glm_coreset_factor(coreset, theta[:2]): (ShapeError, r"shape \(\.\.\., 3\)"),
    }
    for call, (error, message) in calls.items():
        with pytest.raises(error, match=message):
            call()


# Weighted plates

WEIGHTS = torch.tensor([1.0, 0.25, 3.5, 2.0], dtype=torch.float64)
Y = torch.tensor([0.3, 3.0, -1.0, 2.0], dtype=torch.float64)


def normal_rows(weights=WEIGHTS, dim=None, **options):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with weighted_plate("rows", weights, dim=dim, **options) as rows:
        y = Y[rows].reshape(-1, *[1] * (0 if dim is None else -dim - 1))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.parametrize("dim", [None, -1, -2, -3])
@pytest.mark.parametrize("kind", [list, np.asarray, torch.as_tensor])
def test_rows_count_with_their_weights_in_any_dimension(dim, kind):
    weights = kind(WEIGHTS.tolist())
    model = poutine.condition(normal_rows, data={"mean": torch.tensor(0.4)})
    trace = poutine.trace(model).get_trace(weights, dim)
    each = WEIGHTS * dist.Normal(0.4, 1.0).log_prob(Y)
    trace.compute_log_prob()
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].flatten(), each)
    assert trace.nodes["y"]["log_prob_sum"] == pytest.approx(each.sum().item())


def test_a_subsample_of_weighted_rows_is_scaled_by_both():
    model = poutine.condition(normal_rows, data={"mean": torch.tensor(0.4)})
    each = WEIGHTS * dist.Normal(0.4, 1.0).log_prob(Y)
    seen = set()
    for _ in range(30):
        trace = poutine.trace(model).get_trace(subsample_size=2)
        rows = trace.nodes["rows"]["value"]
        trace.compute_log_prob()
        total = trace.nodes["y"]["log_prob_sum"].item()
        assert total == pytest.approx(2 * each[rows].sum().item())
        seen.add(tuple(sorted(rows.tolist())))
    assert len(seen) == 6


def test_nuts_and_svi_have_the_posterior_that_conjugacy_gives():
    # As if each row were there that many times.
    precision = 1 / 4 + WEIGHTS.sum()
    mean = (WEIGHTS * Y).sum() / precision
    sampler = MCMC(NUTS(normal_rows), num_samples=400, warmup_steps=100, disable_progbar=True)
    sampler.run()
    draws = sampler.get_samples()["mean"]
    assert abs(draws.mean() - mean) < 0.45 * precision**-0.5
    assert abs((draws.std() * precision**0.5).log()) < 4.5 / 200**0.5
    guide = AutoNormal(normal_rows)
    svi = SVI(
        normal_rows,
        guide,
        Adam({"lr": 0.03}),
        Trace_ELBO(num_particles=4, vectorize_particles=True),
    )
    for _ in range(300):
        svi.step()
    assert abs(guide.median()["mean"] - mean) < 0.3 * precision**-0.5


def test_inner_plates_and_vectors_of_rows_take_their_weights():
    def model():
        with weighted_plate("rows", WEIGHTS, dim=-1), pyro.plate("repeats", 3, dim=-2):
            pyro.sample("y", dist.Normal(torch.zeros(3, 4, 2), 1.0).to_event(1), obs=table)

    table = torch.randn(3, 4, 2)
    expected = (WEIGHTS * dist.Normal(0.0, 1.0).log_prob(table).sum(-1)).sum()
    assert poutine.trace(model).get_trace().log_prob_sum().item() == pytest.approx(expected.item())


def mixture(infer=None, allow_latent=False):
    shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
    with weighted_plate("rows", WEIGHTS, allow_latent=allow_latent):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])), infer=infer)
        pyro.sample("y", dist.Normal(shift + torch.tensor([0.0, 1.0])[z], 1.0), obs=Y)


def guide_of_shift(*args, **options):
    pyro.sample("shift", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("allow_latent", [True, False])
def test_enumerated_sites_are_refused_by_every_way_of_inference(allow_latent):
    options = {"allow_latent": allow_latent}
    with pytest.raises(PyprobeError, match="'z' must not be enumerated within the weighted plate"):
        TraceEnum_ELBO(max_plate_nesting=1).loss(
            config_enumerate(mixture), guide_of_shift, **options
        )
    with pytest.raises(PyprobeError, match="'z' must not be enumerated"):
        Trace_ELBO().loss(lambda: mixture({"enumerate": "sequential"}, **options), guide_of_shift)
    # NUTS enumerates of itself: Pyro alone would weight the terms within the sum, in silence.
    kernel = NUTS(mixture, max_plate_nesting=1)
    with pytest.raises(PyprobeError, match="'z' must not be enumerated"):
        MCMC(kernel, num_samples=1, warmup_steps=1, disable_progbar=True).run(**options)


def test_the_marginal_of_a_mixture_takes_its_weights_as_the_message_says():
    law = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.tensor([0.0, 1.0]), 1.0)
    )

    def model():
        with weighted_plate("rows", WEIGHTS):
            pyro.sample("y", law, obs=Y)

    found = poutine.trace(model).get_trace().log_prob_sum()
    assert found.item() == pytest.approx((WEIGHTS * law.log_prob(Y)).sum().item())


def test_a_global_site_may_be_enumerated_outside():
    def model():
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        with weighted_plate("rows", WEIGHTS):
            pyro.sample("y", dist.Normal(shift + torch.tensor([0.0, 1.0])[z], 1.0), obs=Y)

    shift = torch.tensor(0.2)
    each = [(WEIGHTS * dist.Normal(shift + loc, 1.0).log_prob(Y)).sum() for loc in (0.0, 1.0)]
    expected = torch.logsumexp(torch.stack(each) + torch.tensor([0.3, 0.7]).log(), 0)
    expected += dist.Normal(0.0, 1.0).log_prob(shift)
    kernel = NUTS(model, max_plate_nesting=1)
    kernel.setup(0)
    assert kernel.potential_fn({"shift": shift}).item() == pytest.approx(-expected.item())


def test_latent_rows_are_refused_unless_an_elbo_takes_them():
    def model(allow_latent):
        with weighted_plate("rows", WEIGHTS, allow_latent=allow_latent):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=Y)

    def guide(allow_latent):
        with weighted_plate("rows", WEIGHTS, allow_latent=allow_latent):
            pyro.sample("z", dist.Normal(Y / 2, 0.5**0.5))

    with pytest.raises(PyprobeError, match=r"'z' must be observed.*pass allow_latent=True"):
        Trace_ELBO().loss(model, guide, False)
    # The guide is the posterior, so that the bound is the weighted evidence, whatever is drawn.
    evidence = (WEIGHTS * dist.Normal(0.0, 2**0.5).log_prob(Y)).sum()
    assert Trace_ELBO().loss(model, guide, True) == pytest.approx(-evidence.item())


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (torch.ones(2, 2), ShapeError, r"'weights' must be a vector.*shape \(2, 2\)"),
        (1.0, ShapeError, "'weights' must be a vector"),
        ([1.0, -1.0], DomainError, "'weights' must be positive; got -1 at index 1"),
        ([0.0, 2.0], DomainError, "got 0 at index 0. Drop such rows"),
        ([1.0, float("nan")], NotFiniteError, "'weights' must be finite"),
        ([1.0, float("inf")], NotFiniteError, "'weights' must be finite"),
        (["a"], TypeError, "'weights' must hold real numbers"),
        ([], ShapeError, r"a vector with an entry at least.*got shape \(0,\).*Leave a plate"),
        (torch.ones(0), ShapeError, r"a vector with an entry at least.*got shape \(0,\)"),
        (torch.ones(2, device="meta"), TypeError, "must hold real numbers; got a tensor of meta"),
        (torch.ones(2) * 1j, TypeError, "must hold real numbers; got a tensor of torch.complex64"),
        (-torch.ones(2).bfloat16(), DomainError, "'weights' must be positive; got -1 at index 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        normal_rows(weights)
