"""Every function that takes tensors: on each device that is here, beside itself on arrays."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyprobe import _engine, directional, metrics, sketching, special, transport

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]
PRECISIONS = {torch.float64: 1e-10, torch.float32: 1e-5}
on_devices = pytest.mark.parametrize("device", DEVICES)


def cloud(n, d, seed=0, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def weights(*shape, seed=0):
    rows = np.random.default_rng(seed).random(shape) + 0.1
    return rows / rows.sum(axis=-1, keepdims=True)


def directions(n, d, seed=0):
    x = cloud(n, d, seed) + np.linspace(0, 1, d)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def three_directions():
    x = cloud(300, 4) + 9 * np.repeat(np.eye(3, 4), [50, 100, 150], axis=0)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def problem(*batch, n=23, m=31):
    rng = np.random.default_rng(1)
    return weights(*batch, n), weights(*batch, m, seed=1), rng.random((*batch, n, m))


def of_plan(result):
    v, u = result.g * 0 + 0.5, result.f * 0 + 0.25
    return (
        *(result.f - result.f[:1], result.plan(), result.value, result.transport_cost),
        *(result.apply(v), result.apply_transpose(u), result.gap),
    )


def of_batch(results):
    return tuple(part for one in results for part in (one.plan(), one.value, one.transport_cost))


def divergence(x, y, a, b):
    return transport.sinkhorn_divergence(x, y, a=a, b=b, epsilon=0.5, tol=1e-12).value


def points(x, y, a, b, metric):
    options = {"epsilon": 0.5, "tol": 1e-12, "metric": metric}
    return of_plan(transport.sinkhorn_points(x, y, a=a, b=b, **options))


def von_mises_fisher(loc, concentration, x):
    law = directional.VonMisesFisher(loc, concentration)
    other = directional.VonMisesFisher(-loc, 2 * concentration)
    parts = law.mean, law.variance, law.covariance_matrix(), law.entropy(), law.kl_divergence(other)
    return law.log_prob(x), *parts


def fitted_direction(x):
    law = directional.VonMisesFisher.fit(x)
    return law.loc, law.concentration


def fitted_mixture(x):
    law = directional.VonMisesFisherMixture.fit(x, 3, rng=0, tol=1e-13)
    order = np.argsort(np.asarray(law.weights.tolist()))
    return law.locs[order], law.concentrations[order], law.log_prob(x)


def lewis(a, p):
    return sketching.lewis_weights(a, p, tol=1e-12)


def row_sample(a):
    sample = sketching.sample_rows(a, 60, scheme="pivotal", rng=0)
    return sample.scaled(a)


def sketch(a, kind):
    return sketching.sketch_operator(kind, 40, len(a), rng=0, allow_dense=True) @ a


CLOUDS = (cloud(40, 3), cloud(30, 3, 1, 0.5), weights(40), weights(30, seed=1))
TALL = cloud(500, 6) * np.random.default_rng(3).standard_t(2, size=(500, 1))
ORDERS = np.geomspace(1e-2, 300, 12)[:, None], np.geomspace(1e-2, 1e3, 15)

# What is called, on what, and how many of the arrays have a derivative.
DIFFERENTIABLE = {
    **{
        name: (getattr(special, name), ORDERS, 2)
        for name in ("log_iv", "log_ive", "log_kv", "log_kve", "log_matern", "log_hyp0f1")
    },
    "bessel_ratio": (special.bessel_ratio, ORDERS, 2),
    "bessel_ratio_complement": (special.bessel_ratio_complement, ORDERS, 2),
    "bessel_ratio_inverse": (special.bessel_ratio_inverse, (3.0, np.linspace(0.01, 0.99, 9)), 0),
    "von Mises-Fisher": (
        von_mises_fisher,
        (directions(4, 5), np.geomspace(0.1, 1e3, 4), directions(4, 5, 1)),
        2,
    ),
    "energy distance": (metrics.energy_distance, CLOUDS[:2], 2),
    "mmd": (partial(metrics.mmd, bandwidth=1.0), CLOUDS[:2], 2),
    "sliced Wasserstein": (partial(metrics.sliced_wasserstein, rng=0), CLOUDS[:2], 2),
    "Wasserstein": (metrics.wasserstein, (cloud(30, 1), cloud(30, 1, 1)), 2),
    "sinkhorn": (
        lambda a, b, c: of_plan(transport.sinkhorn(a, b, c, epsilon=0.1, tol=1e-12)),
        problem(),
        3,
    ),
    "unbalanced sinkhorn": (
        lambda a, b, c: transport.sinkhorn(a, 2 * b, c, epsilon=0.1, unbalanced=1.0).value,
        problem(),
        3,
    ),
    "batch": (
        lambda a, b, c: of_batch(transport.sinkhorn_batch(a, b, c, epsilon=0.1, tol=1e-12)),
        problem(5),
        3,
    ),
    **{
        f"points, {metric}": (partial(points, metric=metric), CLOUDS, 4)
        for metric in ("sqeuclidean", "euclidean", "cityblock")
    },
    "divergence": (divergence, CLOUDS, 4),
    **{
        f"sketch, {kind}": (partial(sketch, kind=kind), (TALL,), 1)
        for kind in ("srht", "sparse_sign", "gaussian")
    },
}
CONSTANT = {
    "direction, fitted": (fitted_direction, (directions(300, 4),)),
    "mixture, fitted": (fitted_mixture, (three_directions(),)),
    "Rayleigh test": (lambda x: directional.rayleigh_test(x).statistic, (directions(300, 4),)),
    "relative epsilon": (transport.relative_epsilon, (problem()[2],)),
    "leverage": (sketching.leverage_scores, (TALL,)),
    "leverage with a ridge": (partial(sketching.leverage_scores, ridge=3.0), (TALL,)),
    "leverage, gram": (partial(sketching.leverage_scores, method="gram"), (TALL,)),
    "Lewis weights, p=1": (partial(lewis, p=1.0), (TALL,)),
    "Lewis weights, p=6": (partial(lewis, p=6.0), (TALL,)),
    "sample of rows": (row_sample, (TALL,)),
}
OF_THE_CPU = {
    "suggested epsilon": (partial(transport.suggest_epsilon, fraction=0.1), CLOUDS[:2]),
    "barycenter": (
        lambda w, a, c: transport.sinkhorn_barycenter(w, a, c, epsilon=0.05),
        (weights(3), weights(3, 8), (np.arange(8)[:, None] - np.arange(8)) ** 2 / 20),
    ),
    "bridge": (partial(transport.LightSchrodingerBridge.fit, epsilon=1.0), CLOUDS[:2]),
    "unbalanced bridge": (
        partial(transport.LightUnbalancedBridge.fit, epsilon=1.0, unbalanced=1.0),
        CLOUDS[:2],
    ),
    "components": (
        partial(transport.select_n_components, candidates=[1, 2], epsilon=1.0),
        CLOUDS[:2],
    ),
    "least squares": (sketching.sketched_lstsq, (TALL, TALL[:, 0])),
    "coreset": (
        partial(sketching.GLMCoreset.fit, family="gaussian", n_samples=50),
        (TALL, TALL[:, 0]),
    ),
    "sensitivities": (partial(sketching.lp_sensitivities, p=1.0), (TALL,)),
}
ALL = {name: case[:2] for name, case in {**DIFFERENTIABLE, **CONSTANT}.items()}


def tensors(arrays, device, dtype, n_leaves=0):
    return [
        torch.tensor(a, device=device, dtype=dtype, requires_grad=at < n_leaves)
        if isinstance(a, np.ndarray)
        else a
        for at, a in enumerate(arrays)
    ]


def parts(found):
    return found if isinstance(found, tuple) else (found,)


def assert_near(found, expected, device, tolerance):
    """Compare errors with the largest entry: what small ones lose, it has lost as well."""
    for one, other in zip(parts(found), parts(expected), strict=True):
        if not torch.is_tensor(one):  # a number that all devices return
            assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
            continue
        assert one.device.type == device
        got, wanted = one.detach().double().cpu().numpy(), np.asarray(other)
        assert got.shape == wanted.shape
        assert np.isfinite(got).all()
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


@on_devices
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_tensors_say_what_arrays_say(name, dtype, device):
    function, arrays = ALL[name]
    # Arrays of what the tensors hold: what rounding them changes is not the function's matter.
    given = tensors(arrays, device, dtype)
    expected = function(*(a.double().cpu().numpy() if torch.is_tensor(a) else a for a in given))
    found = function(*given)
    assert_near(found, expected, device, PRECISIONS[dtype])


@on_devices
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", [name for name, case in DIFFERENTIABLE.items() if case[2]])
def test_derivatives_are_those_of_the_cpu(name, dtype, device):
    if (device, dtype) == ("cpu", torch.float64):
        pytest.skip("beside itself")
    function, arrays, n_leaves = DIFFERENTIABLE[name]
    gradients = []
    for where, kind in ((device, dtype), ("cpu", torch.float64)):
        given = tensors(arrays, where, kind, n_leaves)
        found = [one for one in parts(function(*given)) if torch.is_tensor(one)]
        rows = (one.double().cpu().flatten() for one in found if one.requires_grad)
        total = sum(row @ torch.arange(len(row)).double().cos() for row in rows)
        gradients.append(torch.autograd.grad(total, given[:n_leaves]))
    for one, other in zip(*gradients, strict=True):
        tolerance = 100 * PRECISIONS[dtype]  # of sums of many entries
        assert_near(one, other.numpy(), device, tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("module", ["pyprobe.metrics._triton", "pyprobe.transport._triton"])
def test_kernels_of_triton_are_what_runs_there(module):
    pytest.importorskip("triton")
    assert _engine.kernels(module, torch.device("cuda", 0), 100) is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", OF_THE_CPU)
def test_what_runs_on_the_cpu_alone_says_so(name):
    function, arrays = OF_THE_CPU[name]
    with pytest.raises(TypeError, match=r"\.cpu\(\)"):
        function(*tensors(arrays, "cuda", torch.float64))


@on_devices
def test_distributions_of_pyro_draw_and_measure_there(device):
    pytest.importorskip("pyro")
    from pyprobe.pyro import SphericalUniform, VonMisesFisher, VonMisesFisherMixture

    loc = torch.tensor(directions(3, 4), device=device, requires_grad=True)
    strength = torch.tensor([0.5, 10.0, 1e3], dtype=torch.float64, device=device).requires_grad_()
    law = VonMisesFisher(loc, strength)
    x = law.rsample((500,))
    assert x.device.type == device
    torch.testing.assert_close(torch.linalg.vector_norm(x, dim=-1), torch.ones_like(x[..., 0]))
    # At seven standard errors of a mean over 500 draws.
    assert ((x.mean(0) - law.mean).norm(dim=-1) < 7 / 500**0.5).all()
    gradients = torch.autograd.grad(x.square().cos().sum(), (loc, strength))
    assert all(g.device.type == device and g.isfinite().all() for g in gradients)
    cpu = VonMisesFisher(loc.detach().cpu(), strength.detach().cpu())
    torch.testing.assert_close(law.log_prob(x).cpu(), cpu.log_prob(x.cpu()), rtol=1e-11, atol=1e-11)
    mixture = VonMisesFisherMixture(strength.detach() / strength.detach().sum(), loc, strength)
    assert mixture.sample((7,)).device.type == device
    assert mixture.log_prob(x[:, 0]).device.type == device
    uniform = SphericalUniform(4, dtype=torch.float64, device=device)
    assert uniform.log_prob(uniform.rsample((7,))).device.type == device


@on_devices
def test_a_kernel_of_gpytorch_runs_there(device):
    pytest.importorskip("gpytorch")
    from pyprobe.gpytorch import MaternKernel

    x = torch.tensor(cloud(20, 3), device=device, requires_grad=True)
    kernel = MaternKernel(nu=1.7).double().to(device)
    matrix = kernel(x).to_dense()
    assert matrix.device.type == device
    gradient = torch.autograd.grad(matrix.sum(), (x, kernel.raw_nu))
    there = x.detach().cpu().requires_grad_()
    kernel = MaternKernel(nu=1.7).double()
    expected = kernel(there).to_dense()
    torch.testing.assert_close(matrix.cpu(), expected, rtol=1e-11, atol=1e-12)
    expected = torch.autograd.grad(expected.sum(), (there, kernel.raw_nu))
    for one, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-10)


@on_devices
@pytest.mark.parametrize("family", ["gaussian", "logistic", "poisson"])
def test_a_coreset_is_evaluated_there(family, device):
    rng = np.random.default_rng(0)
    x, eta = cloud(3000, 3), cloud(3000, 3) @ [0.5, -0.3, 0.2]
    y = {
        "gaussian": eta + rng.standard_normal(3000),
        "logistic": rng.random(3000) < 1 / (1 + np.exp(-eta)),
        "poisson": rng.poisson(np.exp(eta)),
    }[family]
    coreset = sketching.GLMCoreset.fit(x, y, family=family, n_samples=100, rng=0)
    theta = coreset.center + 0.1 * rng.standard_normal((5, 3))
    there = torch.tensor(theta, device=device, requires_grad=True)
    value = coreset.log_likelihood(there)
    expected = coreset.log_likelihood(theta)
    np.testing.assert_allclose(value.detach().cpu(), expected, rtol=1e-11)
    (gradient,) = torch.autograd.grad(value.sum(), there)
    np.testing.assert_allclose(gradient.cpu(), coreset.gradient(theta), rtol=1e-9, atol=1e-9)
    hessian = coreset.hessian(there.detach()).cpu()
    np.testing.assert_allclose(hessian, coreset.hessian(theta), rtol=1e-9, atol=1e-9)


@on_devices
def test_single_precision_is_not_rounded_to_tensorfloat(device):
    (a, b, cost), precision = problem(n=200, m=150), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        given = [torch.tensor(array, device=device, dtype=torch.float32) for array in (a, b, cost)]
        found = transport.sinkhorn(*given, epsilon=0.02)
        exact = transport.sinkhorn(*(t.double().cpu().numpy() for t in given), epsilon=0.02)
        assert float(found.value) == pytest.approx(exact.value, rel=1e-6)
        x = torch.tensor(directions(300, 4), device=device).float()
        law = directional.VonMisesFisherMixture.fit(x, 2, rng=0, tol=1e-3)
        assert_near(law.log_prob(x), law.log_prob(x.double()).double().cpu(), device, 1e-5)
        for distance in (metrics.energy_distance, partial(metrics.mmd, bandwidth=1.0)):
            value, exact = distance(x[:100], x[100:]), distance(x[:100].double(), x[100:].double())
            assert float(value) == pytest.approx(float(exact), rel=1e-5)
        scores = sketching.leverage_scores(torch.tensor(TALL, device=device).float())
        bridge = transport.LightSchrodingerBridge.from_parameters(
            weights(5), cloud(5, 20), np.ones((5, 20)), epsilon=1.0
        )
        starts = torch.tensor(cloud(30, 20), device=device).float()
        drifts = bridge.drift(starts, 0.5), bridge.drift(starts.double(), 0.5)
        assert_near(drifts[0], drifts[1].double().cpu(), device, 1e-6)
        np.testing.assert_allclose(
            scores.cpu(), sketching.leverage_scores(TALL.astype(np.float32)), rtol=1e-5
        )
    finally:
        torch.set_float32_matmul_precision(precision)
