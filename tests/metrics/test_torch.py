"""Distances of tensors: values of NumPy's, gradients, the twin, and what is refused."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad
from torch.func import grad, hessian, jvp, vmap

import pyprobe
from pyprobe.errors import DomainError, NotFiniteError, PyprobeError, ShapeError
from pyprobe.metrics import _torch, energy_distance, mmd, sliced_wasserstein, wasserstein
from pyprobe.metrics._samples import Kernel

KERNELS = ["gaussian", "laplace", "inverse_multiquadric"]
NUMBERS = range(4)  # of the kernels, the distance first


def cloud(n, d, seed=0, shift=0.0, **options):
    points = np.random.default_rng(seed).normal(size=(n, d)) + shift
    return torch.tensor(points, **options)


def weights(n, seed=0, **options):
    return torch.tensor(np.random.default_rng(seed).exponential(size=n), **options)


def distances(unbiased=True, **options):
    yield lambda x, y, a=None, b=None: energy_distance(
        x, y, weights_x=a, weights_y=b, unbiased=unbiased
    )
    for kernel in KERNELS:
        yield lambda x, y, a=None, b=None, kernel=kernel: mmd(
            x, y, kernel=kernel, bandwidth=1.3, weights_x=a, weights_y=b, unbiased=unbiased
        )


# Values.


def test_tensors_give_the_numbers_of_arrays():
    x, y, a = cloud(90, 3), cloud(80, 3, 1, 0.5), weights(90)
    for distance in distances():
        found = distance(x, y, a)
        assert found.dtype == torch.float64
        assert found.ndim == 0
        assert float(distance(x, y)) == distance(x.numpy(), y.numpy())
        # The sum of the weights runs in another order.
        expected = distance(x.numpy(), y.numpy(), a.numpy())
        assert float(found) == pytest.approx(expected, rel=1e-12)
    assert float(mmd(x, y)) == pytest.approx(mmd(x.numpy(), y.numpy()), rel=1e-14)
    for p in (1, 1.5, 2):
        for n in (80, 90):
            exact = wasserstein(x[:80], y, p=p)
            assert float(exact) == pytest.approx(
                wasserstein(x[:80].numpy(), y.numpy(), p=p), rel=1e-13
            )
            sliced = sliced_wasserstein(x[:n], y, p=p, rng=3)
            assert float(sliced) == pytest.approx(
                sliced_wasserstein(x[:n].numpy(), y.numpy(), p=p, rng=3), rel=1e-12
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_are_kept(dtype):
    x, y = cloud(20, 3).to(dtype).requires_grad_(), cloud(20, 3, 1, 0.5).to(dtype)
    for distance in (energy_distance, mmd, wasserstein, sliced_wasserstein):
        value = distance(x, y)
        assert value.dtype == dtype
        value.backward()
        assert x.grad.dtype == dtype
        if distance is not sliced_wasserstein:  # which draws other lines each time
            exact = float(distance(x.detach().double(), y.double()))
            assert float(value.detach()) == pytest.approx(exact, rel=torch.finfo(dtype).eps)


def test_integers_and_mixed_dtypes_are_promoted():
    whole = torch.tensor([0, 1, 3])
    assert energy_distance(whole, whole + 1).dtype == torch.get_default_dtype()
    assert energy_distance(whole.float(), whole.double() + 1).dtype == torch.float64


# Gradients.


@pytest.mark.parametrize("unbiased", [True, False])
def test_first_derivatives_pass_the_finite_difference_check(unbiased):
    x, y = cloud(6, 3, requires_grad=True), cloud(5, 3, 1, 0.3, requires_grad=True)
    a, b = weights(6, requires_grad=True), weights(5, 1, requires_grad=True)
    for distance in distances(unbiased):
        assert torch.autograd.gradcheck(distance, (x, y, a, b))


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize(("n", "d"), [(5, 3), (7, 1), (5, 1)])
def test_wasserstein_distances_have_first_and_second_derivatives(n, d, p):
    x, y = cloud(n, d, requires_grad=True), cloud(5, d, 1, 0.3, requires_grad=True)
    for distance in (
        lambda x, y: wasserstein(x, y, p=p),
        lambda x, y: sliced_wasserstein(x, y, p=p, n_projections=5, rng=0),
    ):
        assert torch.autograd.gradcheck(distance, (x, y))
        assert torch.autograd.gradgradcheck(distance, (x, y))


def test_only_what_is_asked_for_gets_a_gradient():
    x, y = cloud(6, 3, requires_grad=True), cloud(5, 3, 1)
    energy_distance(x, y).backward()
    assert x.grad.shape == (6, 3)
    assert y.grad is None
    with torch.no_grad():
        assert not energy_distance(x, y).requires_grad


def test_one_sample_against_itself_adds_both_gradients():
    x = cloud(9, 2, requires_grad=True)
    for distance in distances(unbiased=False):
        (gradient,) = torch.autograd.grad(distance(x, x), x)
        assert gradient.abs().max() < 1e-14  # the distance is 0 wherever x moves
    with torch.no_grad():
        assert abs(energy_distance(x, x, unbiased=False)) < 1e-14


def test_coincident_points_have_subgradient_zero():
    x = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    y = torch.ones(4, 2, dtype=torch.float64)
    values = [distance(x, y) for distance in distances(unbiased=False)]
    values += [wasserstein(x, y, p=p) for p in (1, 2, 3)]
    values += [sliced_wasserstein(x, y, p=p, rng=0) for p in (1, 2, 3)]
    for value in values:
        assert float(value.detach()) == pytest.approx(0, abs=1e-15)
        (gradient,) = torch.autograd.grad(value, x)
        assert torch.equal(gradient, torch.zeros_like(x))


def test_a_pair_of_equal_points_leaves_the_other_gradients_alone():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(wasserstein(x, y), x, create_graph=True)
    assert torch.equal(gradient, torch.tensor([[0.0, 0.0], [0.0, -0.5]], dtype=torch.float64))
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert torch.isfinite(second).all()


def test_gradients_have_the_same_bits_for_any_number_of_threads():
    x, y = cloud(900, 5, requires_grad=True), cloud(800, 5, 1)
    found = []
    try:
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            found.append([torch.autograd.grad(distance(x, y), x)[0] for distance in distances()])
    finally:
        pyprobe.set_num_threads(None)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_float32_gradients_are_rounded_once():
    x, y = cloud(60, 4).float().requires_grad_(), cloud(50, 4, 1).float()
    wide = x.detach().double().requires_grad_()
    for distance in distances():
        (found,) = torch.autograd.grad(distance(x, y), x)
        (exact,) = torch.autograd.grad(distance(wide, y.double()), wide)
        torch.testing.assert_close(found, exact.float(), rtol=1e-6, atol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_gradients_hold_no_matrix_of_pairs():
    # 12000 by 12000 distances are 1.2 GB. A program of its own has its own peak.
    code = """
        import torch
        from pyprobe.metrics import energy_distance

        def peak():
            lines = open("/proc/self/status").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

        x, y = torch.randn(2, 12_000, 3, generator=torch.manual_seed(0))
        x.requires_grad_()
        torch.autograd.grad(energy_distance(x[:900], y[:900]), x)
        before = peak()
        torch.autograd.grad(energy_distance(x, y), x)
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000  # kB


# The twin for other devices, on this one.


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_the_twin_agrees(monkeypatch, number, block):
    monkeypatch.setattr(_torch, "_BLOCK", block)
    x, y = cloud(30, 4), cloud(20, 4, 1, 0.5)
    x[3] = x[4]
    y[2] = x[3]
    a, b = weights(30), weights(20, 1)
    kernel = Kernel(number, 1.3)
    torch.testing.assert_close(
        _torch.twin_sums(kernel, x, y, a, b), _torch._sums(kernel, x, y, a, b), rtol=1e-13, atol=0
    )
    for within, between in ((1.0, -2.0), (0.0, 1.0), (0.7, 0.0)):
        found = _torch.twin_gradient(kernel, x, a, y, b, within, between)
        expected = _torch._gradient(kernel, x, a, y, b, within, between)
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_twin_agrees_for_one_tensor_twice(number):
    x, a, kernel = cloud(30, 4), weights(30), Kernel(number, 1.3)
    found, expected = (f(kernel, x, x, a, a) for f in (_torch.twin_sums, _torch._sums))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    found, expected = (
        f(kernel, x, a, x, a, 1.0, -1.5) for f in (_torch.twin_gradient, _torch._gradient)
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_twin_in_float32_is_as_near_as_that(number):
    x, y = cloud(30, 4).float(), cloud(20, 4, 1, 0.5).float()
    x[3] = x[4] + 1e-4  # the terms of near points are large, and cancel
    a, b = weights(30), weights(20, 1)
    kernel = Kernel(number, 1.3)
    expected = _torch._sums(kernel, x, y, a, b)
    torch.testing.assert_close(_torch.twin_sums(kernel, x, y, a, b), expected, rtol=2e-7, atol=0)
    found = _torch.twin_gradient(kernel, x, a, y, b, 1.0, -2.0)[0]
    exact = _torch._gradient(kernel, x.double(), a, y.double(), b, 1.0, -2.0)[0]
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6 * float(exact.abs().max()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    x, y, a = cloud(300, 5, requires_grad=True), cloud(200, 5, 1, 0.5), weights(300)
    there = x.detach().cuda().requires_grad_()
    everything = [
        *(lambda x, y, a, f=f: f(x, y, a) for f in distances()),
        lambda x, y, a: mmd(x, y),
        lambda x, y, a: wasserstein(x[:200], y),
        lambda x, y, a: sliced_wasserstein(x, y, rng=0),
    ]
    for distance in everything:
        found, expected = distance(there, y.cuda(), a.cuda()), distance(x, y, a)
        assert found.device == there.device
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-10, atol=1e-13)
        one, two = torch.autograd.grad(found, there)[0], torch.autograd.grad(expected, x)[0]
        torch.testing.assert_close(one.cpu(), two, rtol=1e-9, atol=1e-13)


# Beyond reverse mode.


def test_a_second_derivative_of_pair_sums_is_refused_but_its_graph_is_not():
    x, y = cloud(6, 3, requires_grad=True), cloud(5, 3, 1)
    for distance in distances():
        (gradient,) = torch.autograd.grad(distance(x, y), x, create_graph=True)
        (plain,) = torch.autograd.grad(distance(x, y), x)
        assert torch.equal(gradient, plain)
        with pytest.raises(PyprobeError, match="there is no second derivative"):
            torch.autograd.grad(gradient.square().sum(), x)


def test_forward_mode_and_transforms_of_pair_sums_are_refused():
    x, y = cloud(6, 3), cloud(5, 3, 1)
    for distance in distances():

        def one(x, distance=distance):
            return distance(x, y)

        for call in (lambda: grad(one)(x), lambda: jvp(one, (x,), (x,)), lambda: hessian(one)(x)):
            with pytest.raises(PyprobeError, match="by torch's reverse mode alone"):
                call()
        with forward_ad.dual_level():
            with pytest.raises(PyprobeError, match="by torch's reverse mode alone"):
                one(forward_ad.make_dual(x, torch.ones_like(x)))
            assert torch.isfinite(one(x))
        with pytest.raises(RuntimeError, match="vmap"):
            vmap(one)(torch.stack([x, x]))
        with pytest.raises(PyprobeError, match="batched gradients"):
            torch.autograd.functional.jacobian(one, x, vectorize=True)


def test_wasserstein_distances_have_forward_mode():
    x, y, t = cloud(5, 3), cloud(5, 3, 1), cloud(5, 3, 2)
    for distance in (
        lambda x: sliced_wasserstein(x, y, rng=0),
        lambda x: wasserstein(x, y),
        lambda x: wasserstein(x[:, 0], y[:, 0]),
    ):
        leaf = x.clone().requires_grad_()
        expected = (torch.autograd.grad(distance(leaf), leaf)[0] * t).sum()
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(distance(forward_ad.make_dual(x, t))).tangent
        torch.testing.assert_close(found, expected)
    for distance in (
        lambda x: sliced_wasserstein(x, y, rng=0),
        lambda x: wasserstein(x[:, 0], y[:, 0]),
    ):
        (expected,) = torch.autograd.grad(distance(leaf), leaf)
        torch.testing.assert_close(grad(distance)(x), expected)
    for call in (grad, hessian):
        with pytest.raises(PyprobeError, match="found by a solver"):
            call(lambda x: wasserstein(x, y))(x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, about its own tracing
def test_compiled_functions_leave_the_distances_alone():
    x, y = cloud(6, 3, requires_grad=True), cloud(6, 3, 1)
    for distance in (energy_distance, wasserstein):

        def twice(x, distance=distance):
            return 2 * distance(x, y)

        found = torch.autograd.grad(torch.compile(twice, backend="eager")(x), x)[0]
        assert torch.equal(found, torch.autograd.grad(twice(x), x)[0])
        torch._dynamo.reset()


# What does not fit.

NAN = float("nan")


@pytest.mark.parametrize("distance", [energy_distance, mmd, wasserstein, sliced_wasserstein])
def test_bad_tensors_are_named(distance):
    one = torch.ones(2, 3)
    with pytest.raises(ShapeError, match=r"'y' must have shape \(m, 3\) to match 'x'; got \(2, 2"):
        distance(one, torch.ones(2, 2))
    with pytest.raises(NotFiniteError, match=r"'x' must be finite; got 1 .* index \(1, 0\)"):
        distance(torch.tensor([[1.0], [NAN]]), torch.ones(2, 1))
    with pytest.raises(TypeError, match="one library"):
        distance(one, one.numpy())
    with pytest.raises(TypeError, match="'x' must hold real numbers; got dtype torch"):
        distance(one * 1j, one)


def test_bad_options_are_named():
    x = cloud(4, 2)
    for a, error, message in (
        (torch.ones(3), ShapeError, r"'weights_x' must have shape \(4,\)"),
        (torch.tensor([1.0, -1, 1, 1]), DomainError, "nonnegative; got -1.0 at index 1"),
        (torch.zeros(4), DomainError, "must not be all zero"),
        (torch.tensor([1.0, NAN, 1, 1]), NotFiniteError, "'weights_x' must be finite"),
        (torch.tensor([1.0, 0, 0, 0]), DomainError, "at least two positive"),
        (torch.ones(4) * 1j, TypeError, "'weights_x' must hold real numbers"),
    ):
        with pytest.raises(error, match=message):
            energy_distance(x, x, weights_x=a)
    with pytest.raises(TypeError, match="'bandwidth' must be a number: there is no derivative"):
        mmd(x, x, bandwidth=torch.ones((), requires_grad=True))
    with pytest.raises(DomainError, match="their squares overflow"):
        energy_distance(1e200 * x, x)
