"""Schrödinger bridges in torch: derivatives, training, states, and what is refused."""

import copy
import io
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.special

from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.transport import LightSchrodingerBridge, suggest_epsilon

torch = pytest.importorskip("torch")
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.func import functional_call, hessian, jacfwd, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = ("spherical", "diag", "full")


def random_bridge(kind, *, k=3, d=2, seed=0, **options):
    rng = np.random.default_rng(seed)
    scales = {
        "spherical": rng.uniform(0.2, 2.0, k),
        "diag": rng.uniform(0.2, 2.0, (k, d)),
        "full": np.stack([np.cov(rng.normal(size=(d, 3 * d))) + 0.1 * np.eye(d) for _ in range(k)]),
    }[kind]
    options = {"epsilon": 0.7, "horizon": 1.5, "origin": rng.normal(size=d)} | options
    return LightSchrodingerBridge.from_parameters(
        rng.dirichlet(np.ones(k)), rng.normal(size=(k, d)), scales, **options
    )


def rows(*shape, seed=1):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


METHODS = {
    "mean": lambda m, x, y: m.mean(x),
    "covariance": lambda m, x, y: m.covariance(x),
    "log_prob": lambda m, x, y: m.log_prob(y, given=x),
    "drift": lambda m, x, y: m.drift(x, 0.6),
    "drift at the end": lambda m, x, y: m.drift(x, 1.5),
    "drift at times": lambda m, x, y: m.drift(x, 0.7 + y[:, 0].tanh() / 2),
    "log_phi at times": lambda m, x, y: m.log_phi(x, 0.7 + y[:, 0].tanh() / 2),
    "log_potential": lambda m, x, y: m.log_potential(x),
    "transport_cost": lambda m, x, y: m.transport_cost(x),
    "backward_weights": lambda m, x, y: m.backward_weights(y, x),
    "loss": lambda m, x, y: m.loss(x, y),
    "transition": lambda m, x, y: m.transition(x, 0.3, 0.9).log_prob(y),
    "place at times": lambda m, x, y: m.conditional_at(x, 0.7 + y[:, 0].tanh() / 2).log_prob(y),
}


class Call(torch.nn.Module):
    """A method as the forward pass, for functional_call."""

    def __init__(self, module, method):
        super().__init__()
        self.module, self.method = module, METHODS[method]

    def forward(self, x, y):
        return self.method(self.module, x, y)


def as_function(bridge, method):
    """Return a method as a function of rows and parameters, and these."""
    module = Call(bridge.to_torch(), method)
    with torch.no_grad():  # off the place where they begin
        for seed, parameter in enumerate(module.parameters()):
            parameter += 0.1 * rows(*parameter.shape, seed=seed)
    names, values = zip(*module.named_parameters(), strict=True)

    def function(x, y, *parameters):
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x, y))

    return function, [value.detach().requires_grad_() for value in values]


# --- derivatives ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_parameters_have_both_derivatives(kind, method):
    function, parameters = as_function(random_bridge(kind), method)
    arguments = rows(2, 2).requires_grad_(), rows(2, 2, seed=2).requires_grad_(), *parameters
    assert gradcheck(function, arguments)
    assert gradgradcheck(function, arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["drift", "log_prob", "loss", "mean"])
def test_transforms_of_torch_func_see_through(kind, method):
    function, parameters = as_function(random_bridge(kind), method)
    x, y = rows(2, 2), rows(2, 2, seed=2)
    for argument in range(2 + len(parameters)):
        forward = jacfwd(function, argument)(x, y, *parameters)
        torch.testing.assert_close(forward, jacrev(function, argument)(x, y, *parameters))
    batch = [torch.stack([p.detach(), p.detach() + 0.1]) for p in parameters]
    mapped = vmap(function, (None, None, *(0 for _ in batch)))(x, y, *batch)
    for i in range(2):
        torch.testing.assert_close(mapped[i], function(x, y, *(p[i] for p in batch)))


@pytest.mark.parametrize("kind", KINDS)
def test_single_rows_can_be_mapped_over(kind):
    module = random_bridge(kind).to_torch()
    x, y, t = rows(5, 2), rows(5, 2, seed=2), torch.linspace(0, 1.5, 5, dtype=torch.float64)
    torch.testing.assert_close(vmap(module.drift)(x, t), module.drift(x, t))
    torch.testing.assert_close(vmap(module.mean)(x), module.mean(x))
    pairs = vmap(lambda x, y: module.log_prob(y, given=x))(x, y)
    torch.testing.assert_close(pairs, module.log_prob(y, given=x))
    # The drift is a gradient, and its Jacobian the Hessian of the potential.
    jacobian = vmap(jacrev(module.drift), (0, None))(x, 0.6)
    expected = vmap(hessian(module.log_phi), (0, None))(x, 0.6)
    torch.testing.assert_close(jacobian, module.epsilon * expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["module", "value"])
def test_the_drift_is_the_gradient_of_the_potential(kind, model):
    bridge = random_bridge(kind, d=4, seed=3)
    model = bridge if model == "value" else bridge.to_torch()
    x = (2 * rows(7, 4)).requires_grad_()
    times = torch.linspace(0, 1.5, 7, dtype=torch.float64)
    for t in (0.0, 0.5, 1.4999, 1.5, times):
        (slope,) = grad(model.log_phi(x, t).sum(), x)
        drift = model.drift(x, t)
        torch.testing.assert_close(drift, bridge.epsilon * slope, rtol=1e-9, atol=1e-9)


def test_the_gradient_of_the_loss_is_that_of_the_responsibilities():
    # Weights, means and second moments under the responsibilities of the components, in NumPy.
    bridge = random_bridge("diag", k=4, d=3, horizon=1.0, origin=np.zeros(3))
    x0, x1 = rows(11, 3), rows(13, 3, seed=2)
    module = bridge.to_torch()
    module.loss(x0, x1).backward()
    p = np.exp(bridge.conditional(x0.numpy()).log_weights)
    away = x1.numpy()[:, None] - bridge.shifts
    S, e = bridge.scales, bridge.epsilon
    b = bridge.log_weights - np.log(S).sum(1) / 2 - (away**2 / S).sum(-1) / (2 * e)
    q = scipy.special.softmax(b, axis=1)
    x = x0.numpy()
    in_weights = p.mean(0) - q.mean(0)
    pulled = np.einsum("nk,nkd->kd", q, away) / len(x1)
    in_shifts = (p.T @ x / len(x) - pulled / S) / e
    squares = np.einsum("nk,nkd->kd", q, away**2) / len(x1)
    in_scales = p.T @ x**2 / len(x) / (2 * e) + q.mean(0)[:, None] / S / 2 - squares / S**2 / 2 / e
    np.testing.assert_allclose(module.log_weights.grad, in_weights, atol=1e-13)
    np.testing.assert_allclose(module.offsets.grad, in_shifts, atol=1e-12)
    np.testing.assert_allclose(module.log_scales.grad, S * in_scales, atol=1e-12)


def test_a_component_without_weight_leaves_gradients_finite():
    bridge = LightSchrodingerBridge.from_parameters(
        [0.5, 0.0, 0.5], [[1.0], [2.0], [3.0]], [0.5, 0.5, 0.5], epsilon=0.3
    )
    module = bridge.to_torch()
    x = rows(4, 1).requires_grad_()
    gradients = grad(module.drift(x, 0.5).sum() + module.loss(x, x), [x, *module.parameters()])
    assert all(g.isfinite().all() for g in gradients)
    np.testing.assert_allclose(module.to_bridge().weights, bridge.weights)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scales_leave_derivatives_finite(kind):
    scales = {"spherical": np.ones(2), "diag": np.ones((2, 3)), "full": np.stack([np.eye(3)] * 2)}
    module = LightSchrodingerBridge.from_parameters(
        [0.5, 0.5], rows(2, 3).numpy(), scales[kind], epsilon=0.3
    ).to_torch()
    x = rows(4, 3, seed=2).requires_grad_()
    gradients = grad(module.drift(x, 0.5).sum(), [x, *module.parameters()], create_graph=True)
    second = grad(sum(g.square().sum() for g in gradients), [x, *module.parameters()])
    assert all(g.isfinite().all() for g in (*gradients, *second))


def test_small_scales_lose_no_more_digits_than_the_docstring_says():
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(-16, 0, (6, 2)))
    shifts = rng.normal(size=(6, 2)) * 3
    bridge = LightSchrodingerBridge.from_parameters(np.full(6, 1 / 6), shifts, scales, epsilon=0.1)
    x1 = shifts[:, None] + 3 * np.sqrt(0.1 * scales[:, None]) * rng.normal(size=(6, 50, 2))
    x1 = x1.reshape(-1, 2)
    found = bridge.to_torch().log_potential(torch.tensor(x1)).numpy(force=True)
    bound = 1e-16 * (x1**2).sum(1) / (0.1 * scales.min())
    assert (np.abs(found - bridge.log_potential(x1)) < bound + 1e-12).all()


# --- training ---


def train(module, x0, x1, n_steps, lr):
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        optimizer.zero_grad()
        module(x0, x1).backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("kind", KINDS)
def test_one_component_learns_the_gaussian_bridge(kind):
    # The best bridge of the family between two samples is that between their Gaussians, with
    # S C0 S + epsilon S = C1: for full scales the axes have to turn from those of the identity.
    rng = np.random.default_rng(4)
    epsilon, d, n = 0.5, 3, 400
    x0 = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 0.5 + 2
    x1 = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 0.5 - 1
    C0, C1 = np.cov(x0.T, bias=True), np.cov(x1.T, bias=True)
    if kind == "full":
        root = np.real(scipy.linalg.sqrtm(C1))
        middle = np.real(scipy.linalg.sqrtm(root @ C0 @ root + epsilon**2 / 4 * np.eye(d)))
        expected = root @ np.linalg.inv(middle + epsilon / 2 * np.eye(d)) @ root
        start = np.eye(d)[None]
    else:
        c0, c1 = np.diag(C0), np.diag(C1)
        if kind == "spherical":
            c0, c1 = c0.mean(keepdims=True), c1.mean(keepdims=True)
        expected = 2 * c1 / (epsilon + np.sqrt(epsilon**2 + 4 * c0 * c1))
        start = np.ones((1, d) if kind == "diag" else 1)
    bridge = LightSchrodingerBridge.from_parameters(
        [1.0], x1.mean(0)[None] + 0.3, start, epsilon=epsilon, origin=x0.mean(0)
    )
    module = bridge.to_torch()
    train(module, torch.tensor(x0), torch.tensor(x1), 600, 0.05)
    found = module.to_bridge()
    np.testing.assert_allclose(found.scales.reshape(np.shape(expected)), expected, atol=1e-5)
    np.testing.assert_allclose(found.shifts[0], x1.mean(0), atol=1e-5)


def test_training_improves_on_a_fit_and_scores_as_the_value_does():
    rng = np.random.default_rng(5)
    x0 = rng.normal(size=(500, 2))
    x1 = rng.choice([-2.0, 2.0], size=(500, 2)) + 0.3 * rng.normal(size=(500, 2))
    bridge = LightSchrodingerBridge.fit(x0, x1, epsilon=0.5, n_components=4, max_iter=5, rng=0)
    module = bridge.to_torch()
    starts, ends = torch.tensor(x0), torch.tensor(x1)
    before = module.loss(starts, ends).item()
    assert before == pytest.approx(-bridge.score(x0, x1), rel=1e-12)
    train(module, starts, ends, 50, 0.02)
    after = module.loss(starts, ends).item()
    assert after < before
    assert after == pytest.approx(-module.to_bridge().score(x0, x1), rel=1e-12)


def test_where_the_data_lie_does_not_matter_to_training():
    bridge = random_bridge("diag", origin=np.zeros(2), horizon=1.0)
    x0, x1 = rows(20, 2), rows(20, 2, seed=2)
    losses = {}
    for far in (0.0, 1e4):
        moved = LightSchrodingerBridge(
            log_weights=bridge.log_weights,
            shifts=bridge.shifts + far,
            scales=bridge.scales,
            epsilon=bridge.epsilon,
            origin=bridge.origin + far,
        )
        module = moved.to_torch().float()
        train(module, x0 + far, x1 + far, 20, 0.1)
        losses[far] = module.loss(x0 + far, x1 + far).item()
    assert losses[1e4] == pytest.approx(losses[0.0], abs=1e-4)


# --- states and copies ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_leads_to_the_same_bridge(kind):
    bridge = random_bridge(kind, d=4, epsilon=0.3)
    back = bridge.to_torch().to_bridge()
    for name in ("log_weights", "shifts", "scales", "origin"):
        found, expected = getattr(back, name), getattr(bridge, name)
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)
    assert (back.epsilon, back.horizon, back.info) == (bridge.epsilon, bridge.horizon, None)
    module = bridge.to_torch()
    for name in ("weights", "shifts", "scales"):
        found = getattr(module, name).detach().numpy()
        np.testing.assert_allclose(found, getattr(bridge, name), rtol=1e-13, atol=1e-14)
    assert (module.n_components, module.dim) == (bridge.n_components, bridge.dim)
    assert repr(module) == repr(bridge).replace("LightSchrodingerBridge", "TorchBridge")


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_loaded_without_pickle_into_a_module_of_its_kind(kind):
    bridge, other = random_bridge(kind), random_bridge(kind, seed=8)
    module = torch.nn.Sequential(bridge.to_torch())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    fresh = torch.nn.Sequential(other.to_torch())
    fresh.load_state_dict(state)
    x = rows(5, 2)
    assert fresh[0].drift(x, 0.5).equal(module[0].drift(x, 0.5))
    assert fresh[0].conditional(x).log_prob(x).equal(module[0].conditional(x).log_prob(x))
    for old, new in zip(fresh.state_dict().items(), module.state_dict().items(), strict=True):
        assert old[0] == new[0]
        assert old[1].equal(new[1])
    del state["0.epsilon"]
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.epsilon"):
        fresh.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fresh.load_state_dict(module.state_dict() | {"0.other": torch.ones(1)})


def test_a_state_of_another_noise_is_refused_before_anything_is_loaded():
    bridge = random_bridge("diag")
    module = random_bridge("diag", seed=8, epsilon=0.2).to_torch()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(DomainError, match=r"epsilon 0\.7, the module has 0\.2\..*rescale\(epsilon"):
        module.load_state_dict(bridge.to_torch().state_dict())
    for name, value in module.state_dict().items():
        assert value.equal(before[name])
    module = random_bridge("diag", horizon=1.0).to_torch()
    with pytest.raises(DomainError, match=r"horizon 1\.5, the module has 1\. Load"):
        module.load_state_dict(bridge.to_torch().state_dict())


def test_rescaled_components_keep_maps_and_cells():
    module = random_bridge("diag", k=5, epsilon=0.01).to_torch()
    x = 3 * rows(200, 2)
    before = module.to_bridge().conditional(x.numpy())
    module.rescale(0.001)
    after = module.to_bridge()
    assert after.epsilon == module.epsilon == 0.001
    law = after.conditional(x.numpy())
    np.testing.assert_allclose(law.locs, before.locs, atol=1e-12)
    # Of a log-weight all but a tenth of the noise's share stays: far from the borders of the cells
    # the likeliest component is the same.
    sure = np.sort(before.weights, axis=1)[:, -1] > 0.9
    assert sure.sum() > 150
    assert (law.log_weights.argmax(1) == before.log_weights.argmax(1))[sure].all()
    np.testing.assert_allclose(
        (law.log_weights - law.log_weights[:, :1]) * 0.001,
        (before.log_weights - before.log_weights[:, :1]) * 0.01,
        atol=1e-12,
    )
    with pytest.raises(DomainError, match="'epsilon' must be finite and positive"):
        module.rescale(0.0)


def test_places_stay_exact_in_a_module_of_float32():
    bridge = random_bridge("full", origin=np.array([1e4 + 1 / 3, 0.1]))
    module = bridge.to_torch().float()
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert {b.dtype for b in module.buffers()} == {torch.float64}
    np.testing.assert_array_equal(module.to_bridge().origin, bridge.origin)
    assert module.to_bridge().epsilon == bridge.epsilon
    assert module.double().origin.dtype == torch.float64
    assert copy.deepcopy(module).drift(rows(2, 2), 0.1).equal(module.drift(rows(2, 2), 0.1))


class Products(TorchDispatchMode):
    """Collects the formats that matrices are multiplied in."""

    def __init__(self):
        super().__init__()
        self.formats = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.overloadpacket._qualified_op_name.endswith("mm"):
            self.formats |= {a.dtype for a in arguments if torch.is_tensor(a)}
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_no_product_runs_in_a_short_format(kind):
    # Neither autocast nor TF32, which a device may use for float32 alone, can reach it.
    module, x = random_bridge(kind).to_torch().float(), rows(5, 2).float()
    expected = module.drift(x, 0.5), module.loss(x, x)
    with torch.autocast("cpu", dtype=torch.bfloat16), Products() as products:
        found = module.drift(x, 0.5), module.loss(x, x)
        (found[0].sum() + found[1]).backward()
    assert products.formats == {torch.float64}
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_another_device_slips_in(kind, monkeypatch):
    # The meta device refuses to meet another one, as CUDA does; entries cannot be looked at there.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)
    module, x = random_bridge(kind).to_torch().to("meta"), rows(5, 2).to("meta")
    results = [method(module, x, x) for method in METHODS.values()]
    results += [module.sample(x, n=2), module.sample_path(x, [0.0, 0.5, 1.5])]
    results += [module.conditional_at(x, 0.5).rsample(), module.conditional(x).mean]
    assert {found.device.type for found in results} == {"meta"}


# --- draws ---


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_moments_of_their_laws(kind, seed):
    # 5.5 standard errors in 54 comparisons: a false-fail rate of 2e-6, as far as means of 100 000
    # draws are normal. A mean that is off by 2 % of a deviation is found.
    module = random_bridge(kind, k=4, d=3).to_torch()
    torch.manual_seed(seed)
    x0, n = rows(2, 3), 100_000
    times = torch.tensor([0.4, 1.2], dtype=torch.float64)
    for law in (
        module.conditional(x0),
        module.conditional_at(x0, times),
        module.transition(x0, 0.5, 1.0),
    ):
        draws = law.sample((n,))
        mean, covariance = law.mean.detach(), law.covariance_matrix.detach()
        away = draws - mean
        error = away.mean(0) / (law.variance.detach() / n).sqrt()
        assert error.abs().max() < 5.5
        products = away.unsqueeze(-1) * away.unsqueeze(-2)
        error = (products.mean(0) - covariance) / (products.std(0) / math.sqrt(n))
        assert error.abs().max() < 5.5


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_paths_have_the_laws_of_their_times(kind, seed):
    module = random_bridge(kind).to_torch()
    x0, times, n = rows(2, 2), [0.0, 0.3, 1.1, 1.5], 100_000
    path = module.sample_path(x0, times, n=n, rng=seed)
    assert (path[:, :, 0] == x0).all()
    for i, t in enumerate(times[1:], 1):
        law, draws = module.conditional_at(x0, t), path[:, :, i]
        mean, covariance = law.mean.detach(), law.covariance_matrix.detach()
        error = (draws.mean(0) - mean) / (law.variance.detach() / n).sqrt()
        assert error.abs().max() < 5.5
        products = (draws - mean).unsqueeze(-1) * (draws - mean).unsqueeze(-2)
        error = (products.mean(0) - covariance) / (products.std(0) / math.sqrt(n))
        assert error.abs().max() < 5.5
    # And a place is the mean of the ends to come from it: the two are drawn together.
    drift = module.drift(path[:, 0, 1], 0.3).detach()
    step = path[:, 0, 3] - path[:, 0, 1] - 1.2 * drift
    assert ((step.mean(0) / (step.std(0) / math.sqrt(n))).abs() < 5.5).all()
    along = (step * path[:, 0, 1]).mean(0) / ((step * path[:, 0, 1]).std(0) / math.sqrt(n))
    assert (along.abs() < 5.5).all()


def test_the_default_generator_rules_draws_of_a_module():
    module, x0 = random_bridge("diag").to_torch(), rows(5, 2)
    torch.manual_seed(3)
    first = module.sample(x0, n=2), module.sample_path(x0, [0.5, 1.5])
    torch.manual_seed(3)
    again = module.sample(x0, n=2), module.sample_path(x0, [0.5, 1.5])
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    state = torch.get_rng_state()
    module.sample(x0, rng=0)
    module.sample_path(x0, [0.5], rng=np.random.default_rng(0))
    module.sample_transition(x0, 0.1, 0.5, rng=torch.Generator().manual_seed(0))
    assert torch.get_rng_state().equal(state)


def test_draws_of_no_rows_are_empty():
    for kind in KINDS:
        module = random_bridge(kind).to_torch()
        assert module.sample(rows(0, 2)).shape == (0, 2)
        assert module.sample(rows(2, 0, 2), n=3).shape == (3, 2, 0, 2)
        assert module.conditional(rows(2, 2)).sample((0,)).shape == (0, 2, 2)
        assert module.drift(rows(0, 2), 0.3).shape == (0, 2)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_draws_are_those_of_the_mean(kind, seed):
    # Against derivatives of closed-form moments; means of 100 batches, 5.5 standard errors.
    module = random_bridge(kind, seed=1, k=3, d=3).to_torch()
    torch.manual_seed(seed)
    x0 = rows(1, 3).requires_grad_()
    t = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    arguments = [x0, t, *module.parameters()]
    form = rows(3, 3, seed=4)

    def law():
        return module.conditional_at(x0, t)

    def gradient(value):
        return torch.cat([g.flatten() for g in grad(value, arguments)])

    mean = law().mean[0]
    moment = (form * (law().covariance_matrix[0] + torch.outer(mean, mean))).sum()
    expected = gradient(moment)
    draws = []
    for _ in range(100):
        x = law().rsample((2000,))
        draws.append(gradient((x * (x @ form)).sum(-1).mean()))
    draws = torch.stack(draws)
    # One component's weight says nothing of the others' sum: no spread, no error.
    error = (draws.mean(0) - expected).abs()
    assert (error < 5.5 * draws.std(0) / 10 + 1e-12).all()
    assert (draws.std(0) / 10 < 0.02 * expected.abs().max()).all()


def test_second_derivatives_of_draws_are_refused():
    module, x0 = random_bridge("full").to_torch(), rows(4, 2).requires_grad_()
    x = module.conditional(x0).rsample()
    gradients = grad(x.square().sum(), [x0, *module.parameters()], create_graph=True)
    for gradient in gradients:
        with pytest.raises(RuntimeError, match="first order only"):
            grad(gradient.sum(), [x0], retain_graph=True)
    again = module.conditional(x0).sample()
    assert not again.requires_grad


def test_laws_expand_and_broadcast():
    module = random_bridge("diag").to_torch()
    law = module.conditional(rows(3, 1, 2))
    assert (law.batch_shape, law.event_shape) == ((3, 1), (2,))
    wide = law.expand((4, 3, 5))
    assert wide.mean.shape == wide.variance.shape == wide.sample().shape == (4, 3, 5, 2)
    assert wide.covariance_matrix.shape == (4, 3, 5, 2, 2)
    assert wide.logits.shape == (4, 3, 5, 3)
    x = wide.sample((6,))
    assert wide.log_prob(x).shape == law.log_prob(x).shape == (6, 4, 3, 5)
    torch.testing.assert_close(wide.log_prob(x), law.log_prob(x))
    assert wide.rsample((2,)).shape == (2, 4, 3, 5, 2)
    with pytest.raises(ShapeError, match="'batch_shape' must extend"):
        law.expand((4, 1))
    assert repr(law) == "BridgeLaw(batch=(3, 1), n_components=3, dim=2)"
    times = torch.tensor([0.2, 1.5], dtype=torch.float64)
    several = module.conditional_at(rows(3, 1, 2), times)
    assert several.batch_shape == (3, 2)
    for i, t in enumerate(times.tolist()):
        one = module.conditional_at(rows(3, 2), t)
        torch.testing.assert_close(several.mean[:, i], one.mean)
        torch.testing.assert_close(several.covariance_matrix[:, i], one.covariance_matrix)
        torch.testing.assert_close(
            several.log_prob(x[0, 0, :, :2])[:, i], one.log_prob(x[0, 0, :, i])
        )


# --- values on tensors ---


def test_gradients_flow_through_the_value_to_the_rows():
    bridge = random_bridge("full")
    x0, x1 = rows(3, 2).requires_grad_(), rows(3, 2, seed=2)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: bridge.log_prob(x1, given=x), x0)
    assert gradcheck(bridge.drift, (x0, t))
    assert gradgradcheck(bridge.transport_cost, x0)
    slope = torch.func.grad(lambda x: bridge.log_phi(x[None], 0.3)[0])(x1[0])
    torch.testing.assert_close(bridge.epsilon * slope, bridge.drift(x1[:1], 0.3)[0])
    # Inside no_grad there is nothing to track, and arrays' own way is taken.
    with torch.no_grad():
        expected = bridge.drift(x0.detach().numpy(), 0.3)
        np.testing.assert_array_equal(bridge.drift(x0, 0.3), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_call_within_a_transform_spoils_no_later_one(kind):
    x = rows(1, 2)
    expected = torch.tensor(random_bridge(kind).drift(x.numpy(), 0.3))

    def slope(take):
        bridge = random_bridge(kind)
        first = take(lambda x: bridge.epsilon * bridge.log_phi(x, 0.3)[0])(x)
        return first, grad(bridge.epsilon * bridge.log_phi(y, 0.3).sum(), y)[0]

    y = x.clone().requires_grad_()
    for take in (torch.func.grad, jacrev, jacfwd):
        for found in slope(take):
            torch.testing.assert_close(found, expected)
    bridge = random_bridge(kind)
    torch.testing.assert_close(vmap(lambda x: bridge.drift(x, 0.3))(x[None])[0], expected)
    torch.testing.assert_close(bridge.drift(y, 0.3), expected)
    with torch.inference_mode():
        fresh = random_bridge(kind)
        torch.testing.assert_close(vmap(lambda x: fresh.drift(x, 0.3))(x[None])[0], expected)
    torch.testing.assert_close(fresh.drift(y, 0.3), expected)


def test_a_fit_takes_tensors_of_the_cpu():
    x0, x1 = rows(200, 2).float(), rows(200, 2, seed=2).float() + 1
    weights = torch.rand(200, generator=torch.Generator().manual_seed(0))
    options = {"epsilon": 0.5, "n_components": 3, "max_iter": 3, "tol": 1.0, "rng": 0}
    found = LightSchrodingerBridge.fit(x0, x1, weights_x1=weights, **options)
    expected = LightSchrodingerBridge.fit(
        x0.numpy(), x1.numpy(), weights_x1=weights.numpy(), **options
    )
    np.testing.assert_array_equal(found.shifts, expected.shifts)
    with pytest.raises(RuntimeError, match=r"'x0' requires one: pass x0\.detach"):
        LightSchrodingerBridge.fit(x0.clone().requires_grad_(), x1, **options)
    with pytest.raises(TypeError, match="arrays of one library"):
        LightSchrodingerBridge.fit(x0, x1.numpy(), **options)
    with pytest.raises(TypeError, match="runs on the CPU alone; got 'x0' on meta"):
        LightSchrodingerBridge.fit(x0.to("meta"), x1.to("meta"), **options)


@pytest.mark.parametrize("wants_gradient", [False, True])
def test_tensors_are_refused_in_the_words_of_arrays(wants_gradient):
    bridge = random_bridge("diag")
    x0 = rows(3, 2).requires_grad_(wants_gradient)
    calls = {
        lambda: bridge.mean(x0[0]): (ShapeError, r"'x0' must have shape \(n, 2\)"),
        lambda: bridge.drift(x0[:, :1], 0.3): (ShapeError, "'x' must have 2 columns"),
        lambda: bridge.drift(x0, 2.0): (DomainError, r"'t' must be in \[0, 1\.5\]"),
        lambda: bridge.drift(x0, torch.tensor([0.0, 1.0, 1.6])): (DomainError, "at index 2"),
        lambda: bridge.drift(x0, torch.tensor([0.0])): (ShapeError, "'t' must be a number or have"),
        lambda: bridge.mean(x0 * math.nan): (NotFiniteError, "'x0' must be finite"),
        lambda: bridge.log_prob(x0[:2], given=x0): (ShapeError, "a row for each of 'given'"),
        lambda: bridge.score(x0, x0[:0]): (ShapeError, "'x1' must have at least one row"),
        lambda: bridge.sample(x0, n=0): (DomainError, "'n' must be at least 1"),
        lambda: bridge.sample_path(x0, [0.5, 0.2]): (DomainError, "'times' must increase"),
        lambda: bridge.sample_transition(x0, 1.0, 0.5): (DomainError, "'s' must be before 't'"),
        lambda: bridge.mean(x0.half()): (TypeError, "'x0' must be float32 or float64"),
        lambda: bridge.log_prob(x0, given=x0.detach().numpy()): (TypeError, "of one library"),
        lambda: bridge.drift(x0, [0.1, 0.2, 0.3]): (TypeError, "of one library"),
        lambda: bridge.conditional(x0): (TypeError, r"module that to_torch\(\)"),
        lambda: bridge.mean(x0, 3): (TypeError, "too many positional|takes 2 positional"),
    }
    for call, (error, message) in calls.items():
        with pytest.raises(error, match=message):
            call()


def test_an_epsilon_is_suggested_for_samples_of_one_library():
    x0, x1 = rows(5, 2), rows(4, 2, seed=2)
    pairs = (x0[:, None] - x1).square().sum(-1)
    assert suggest_epsilon(x0, x1, fraction=0.1) == pytest.approx(0.1 * pairs.mean().item())
    with pytest.raises(TypeError, match="arrays of one library"):
        suggest_epsilon(x0.numpy(), x1, fraction=0.1)
    with pytest.raises(RuntimeError, match=r"'x1' requires one: pass x1\.detach"):
        suggest_epsilon(x0, x1.requires_grad_(), fraction=0.1)


def test_what_only_arrays_can_do_says_so():
    bridge, x0 = random_bridge("diag"), rows(3, 2)
    assert torch.is_tensor(bridge.sample_sde(x0, 5, rng=0))
    found = bridge.kl_to_reference(x0, rng=0)
    assert torch.is_tensor(found.value)
    assert "n_rows=3" in repr(found)
    with pytest.raises(RuntimeError, match="sample_sde' has no gradients, but 'x0' requires one"):
        bridge.sample_sde(x0.requires_grad_(), 5)
    with pytest.raises(TypeError, match="kl_to_reference' runs on the CPU alone"):
        bridge.kl_to_reference(x0.to("meta"))


def test_the_module_refuses_what_does_not_fit():
    module, x = random_bridge("diag").to_torch(), rows(3, 2)
    calls = {
        lambda: module.drift(x.numpy(), 0.3): (TypeError, "'x' must be a torch tensor; got ndarr"),
        lambda: module.drift(x[:, :1], 0.3): (ShapeError, r"'x' must have shape \(\.\.\., 2\)"),
        lambda: module.drift(x, 1.6): (DomainError, r"'t' must be in \[0, 1\.5\]"),
        lambda: module.drift(x, torch.ones(2)): (ShapeError, "broadcast with the rows"),
        lambda: module.drift(x > 0, 0.3): (TypeError, "must hold real numbers; got torch.bool"),
        lambda: module.drift(x, torch.tensor(3.0)): (DomainError, r"in \[0, 1\.5\].*got 3\."),
        lambda: module.log_phi(x, torch.tensor([0.0, -1.0, math.nan])): (DomainError, "got -1"),
        lambda: module.drift(x, x[:, 0] * math.nan): (DomainError, "got nan"),
        lambda: module.conditional_at(x, 0.0): (DomainError, r"'t' must be in \(0, 1\.5\]; got 0"),
        lambda: module.conditional_at(x, 5.0): (DomainError, r"'t' must be in \(0, 1\.5\].*got 5"),
        lambda: module.conditional_at(x, torch.tensor(5.0)): (
            DomainError,
            r"'t' must be in \(0, 1\.5\].*got 5",
        ),
        lambda: module.conditional_at(x, torch.tensor(0.0)): (DomainError, "has no density"),
        lambda: module.score(x[:0], x): (ShapeError, "'x0' must have at least one row; got"),
        lambda: module.loss(x, x[:0]): (ShapeError, "'x1' must have at least one row; got"),
        lambda: module.backward_weights(x, x[:0]): (ShapeError, "'x0' must have at least one row"),
        lambda: module.transition(x, 0.5, 0.5): (DomainError, "'s' must be before 't'"),
        lambda: module.sample(x, n=0): (DomainError, "'n' must be at least 1"),
    }
    for call, (error, message) in calls.items():
        with pytest.raises(error, match=message):
            call()


def test_times_of_the_module_are_checked_where_they_can_be_read():
    module, x = random_bridge("diag").to_torch(), rows(3, 2)
    late = torch.tensor([1.0, 1.6, 0.3])
    for device_time in (late, late.requires_grad_()):
        with pytest.raises(DomainError, match=r"got 1\.6"):
            module.drift(x, device_time)
    # Under a transform there are no numbers to read: the form goes on as it is.
    mapped = vmap(module.drift)(x, torch.tensor([0.2, 0.3, 1.5]))
    torch.testing.assert_close(mapped, module.drift(x, torch.tensor([0.2, 0.3, 1.5])))
    assert module.drift(x.float(), torch.tensor(1.5)).isfinite().all()


def test_the_last_time_in_single_precision_is_not_late():
    module, x = random_bridge("diag", horizon=0.1).to_torch(), rows(3, 2)
    last = torch.tensor(0.1)  # above 0.1 as a number of float64
    torch.testing.assert_close(module.drift(x, last), module.drift(x, 0.1), rtol=1e-6, atol=1e-6)


def test_the_classes_of_torch_have_a_public_name_that_does_not_load_torch():
    code = """
import sys
import pyprobe.transport
assert "torch" not in sys.modules
from pyprobe.transport import BridgeLaw, LightSchrodingerBridge, TorchBridge
bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
import torch
assert type(bridge.to_torch()) is TorchBridge
assert type(bridge.to_torch().conditional(torch.zeros(3, 1))) is BridgeLaw
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    import pyprobe.transport

    with pytest.raises(AttributeError, match="has no attribute 'TorchBridges'"):
        _ = pyprobe.transport.TorchBridges


def test_copies_and_pickles_of_a_value_leave_torch_out():
    # A value that has met tensors is as light as before, for processes without torch.
    code = """
import pickle, sys
import numpy as np
from pyprobe.transport import LightSchrodingerBridge
bridge = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
bridge.mean([[1.0]])
assert "torch" not in sys.modules
import torch
bridge.drift(torch.ones(1, 1, requires_grad=True), 0.3)
bridge.to_torch()
assert b"torch" not in pickle.dumps(bridge)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
