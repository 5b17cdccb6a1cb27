"""Schrödinger bridges on arrays and on tensors, on every device that is here."""

import copy

import numpy as np
import pytest

from pyprobe.transport import LightSchrodingerBridge

torch = pytest.importorskip("torch")

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]
KINDS = ("spherical", "diag", "full")


def random_bridge(kind, *, k=5, d=3, epsilon=0.7, horizon=1.0, offset=3.0):
    rng = np.random.default_rng(0)
    scales = {
        "spherical": rng.uniform(0.2, 2.0, k),
        "diag": rng.uniform(0.2, 2.0, (k, d)),
        "full": np.stack([np.cov(rng.normal(size=(d, 3 * d))) + 0.1 * np.eye(d) for _ in range(k)]),
    }[kind]
    return LightSchrodingerBridge.from_parameters(
        rng.dirichlet(np.ones(k)),
        rng.normal(size=(k, d)) * 2 + offset,
        scales,
        epsilon=epsilon,
        horizon=horizon,
        origin=rng.normal(size=d) * 0.3 + offset,
    )


def values(bridge, x0, x1, times):
    """Return what a bridge, as a value or a module, says of these rows."""
    parts = {
        "mean": bridge.mean(x0),
        "covariance": bridge.covariance(x0),
        "log_prob": bridge.log_prob(x1, given=x0),
        "log_prob of several": bridge.log_prob(x1[None] + x0[:2, None], given=x0),
        "log_prob from one": bridge.log_prob(x1, given=x0[:1]),
        "log_potential": bridge.log_potential(x1),
        "transport_cost": bridge.transport_cost(x0),
        "score": bridge.score(x0, x1[:7]),
        "backward_weights": bridge.backward_weights(x1[:4], x0),
    }
    for name, t in {"0": 0.0, "0.4": 0.4 * bridge.horizon, "T": bridge.horizon, "n": times}.items():
        parts[f"drift at {name}"] = bridge.drift(x0, t)
        parts[f"log_phi at {name}"] = bridge.log_phi(x0, t)
    return parts


def laws(bridge, x0, x1):
    """Return what its laws say: those of arrays and of tensors name the covariance differently."""
    parts = {}
    times = 0.3 * bridge.horizon, 0.8 * bridge.horizon
    for name, law in {
        "end": bridge.conditional(x0),
        "place": bridge.conditional_at(x0, times[1]),
        "transition": bridge.transition(x0, *times),
    }.items():
        is_tensor = torch.is_tensor(x0)
        parts[f"mean, {name}"] = law.mean
        parts[f"covariance, {name}"] = law.covariance_matrix if is_tensor else law.covariance
        parts[f"log-weights, {name}"] = law.logits if is_tensor else law.log_weights
        parts[f"log_prob, {name}"] = law.log_prob(x1)
    return parts


def assert_agree(found, expected, device, tolerance=1e-12):
    for name, wanted in expected.items():
        tensor = found[name]
        assert torch.is_tensor(tensor), name
        assert tensor.device.type == device, name
        got = tensor.detach().cpu().numpy()
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=name)


def rows(bridge):
    rng = np.random.default_rng(1)
    x0, x1 = rng.normal(size=(2, 20, bridge.dim)) * 2 + 3
    return x0, x1, rng.uniform(0, bridge.horizon, 20)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [1.0, 2.5])
def test_the_module_says_what_the_value_says(kind, horizon, device):
    bridge = random_bridge(kind, horizon=horizon)
    arrays = rows(bridge)
    module = bridge.to_torch().to(device)
    tensors = [torch.tensor(array, device=device) for array in arrays]
    assert_agree(values(module, *tensors), values(bridge, *arrays), device)
    assert_agree(laws(module, *tensors[:2]), laws(bridge, *arrays[:2]), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("wants_gradient", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_value_answers_in_kind(kind, wants_gradient, device):
    bridge = random_bridge(kind, horizon=2.0)
    x0, x1, times = rows(bridge)
    expected = values(bridge, x0, x1, times)
    tensors = [torch.tensor(array, device=device) for array in (x0, x1, times)]
    tensors[0].requires_grad_(wants_gradient)
    found = values(bridge, *tensors)
    is_native = device == "cpu" and not wants_gradient
    assert_agree(found, expected, device, tolerance=0 if is_native else 1e-12)
    assert all(
        part.requires_grad == wants_gradient
        for name, part in found.items()
        if name != "log_potential"  # of the ends
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [0.0, 1e4])
def test_float32_keeps_to_float64_wherever_the_data_lie(kind, far, device):
    bridge = random_bridge(kind, d=64 if kind == "diag" else 16, offset=far)
    times = [0.0, 0.3, 0.9, 0.99, 0.999, 1 - 1e-6, 1.0]
    # Rows that float32 holds as they are; what it makes of the data is not the module's matter.
    x = (np.random.default_rng(2).normal(size=(30, bridge.dim)) + far).astype(np.float32)
    rows, module = torch.tensor(x, device=device), bridge.to_torch().to(device)
    # In a module of float32 the parameters are rounded too.
    models = (bridge, 1e-6), (module, 1e-6), (copy.deepcopy(module).float(), 1e-4)
    for model, tolerance in models:
        for t in times:
            exact, found = bridge.drift(x.astype(np.float64), t), model.drift(rows, t)
            assert found.dtype == torch.float32
            error = np.linalg.norm(found.numpy(force=True) - exact, axis=1)
            assert (error <= tolerance * np.linalg.norm(exact, axis=1)).all(), t


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_draws_lie_where_the_rows_do_and_repeat(kind, device):
    bridge = random_bridge(kind, horizon=2.0)
    x0 = torch.tensor(rows(bridge)[0], device=device, dtype=torch.float32)
    times = [0.0, 0.5, 2.0]
    for maker in (bridge, bridge.to_torch().to(device)):
        for draw, shape in {
            (lambda m, **o: m.sample(x0, **o)): (20, 3),
            (lambda m, **o: m.sample_path(x0, times, **o)): (20, 3, 3),
            (lambda m, **o: m.sample_transition(x0, 0.5, 1.0, **o)): (20, 3),
        }.items():
            found = draw(maker, n=4, rng=7)
            assert found.shape == (4, *shape)
            assert draw(maker, rng=7).shape == shape
            assert (found.dtype, found.device) == (torch.float32, x0.device)
            assert found.equal(draw(maker, n=4, rng=7))
            assert not found.equal(draw(maker, n=4, rng=8))
            generator = torch.Generator(device).manual_seed(0)
            assert not draw(maker, rng=generator).equal(draw(maker, rng=generator))
