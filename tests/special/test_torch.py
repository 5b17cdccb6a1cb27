"""The torch twin: as accurate as the native kernels, but for a factor of four."""

import math

import numpy as np
import pytest
from reference_tables import BOUNDS, read, scaled_error, worst_points

from pyprobe.special._kernels import BESSEL_RATIO, FUNCTIONS, MASKS

torch = pytest.importorskip("torch")
from pyprobe.special import _ops, _torch

BY_NAME = {function.name: function for function in FUNCTIONS}
SLACK = 4


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.column)
def test_the_twin_matches_the_certified_values(bound):
    v, x, columns = read(bound.table)
    expected = columns[bound.column]
    (got,) = _torch.bessel(
        BY_NAME[bound.function], [bound.derivative], torch.from_numpy(v), torch.from_numpy(x)
    )
    error = scaled_error(got.numpy(), expected, v, x, bound.scale)
    assert error.max() <= SLACK * bound.bound, worst_points(error, got.numpy(), expected, v, x)


def test_the_inverse_of_the_twin_recovers_the_argument():
    v, x, columns = read("bessel_ratio")
    ratio, complement = columns["bessel_ratio_00"], columns["bessel_ratio_complement_00"]
    tensors = (torch.from_numpy(a) for a in (v, ratio, complement))
    got = _torch.bessel_ratio_inverse(*tensors).numpy()
    error = scaled_error(got, x, v, x, "relative")
    assert error.max() <= SLACK * 1e-13, worst_points(error, got, x, v, x)


def test_the_inverse_of_the_twin_has_limits_at_the_ends():
    v, r = torch.tensor([1.0, 1.0, -1.0, 1.0, math.nan]), torch.tensor([0.0, 1.0, 0.3, 1.5, 0.3])
    got = _torch.bessel_ratio_inverse(v, r, 1 - r)
    assert got.dtype is torch.float32
    assert got[:2].tolist() == [0.0, math.inf]
    assert got[2:].isnan().all()


def test_the_complement_does_not_count_up_to_one_half_in_the_twin():
    r = torch.tensor([0.0, 1e-3, 0.25, 0.5]).double()
    v = torch.ones_like(r)
    expected = _torch.bessel_ratio_inverse(v, r, 1 - r)
    for complement in (0.0, 0.3, -1.0, 2.0, math.nan):
        got = _torch.bessel_ratio_inverse(v, r, torch.full_like(r, complement))
        assert torch.equal(got, expected)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_one_call_gives_every_derivative_of_the_broadcast_shape(function):
    v, x = torch.tensor([[0.5], [30.0]]).double(), torch.tensor([0.3, 3.0, 40.0]).double()
    orders = [order for order in MASKS if order[0] <= function.max_order]
    together = _torch.bessel(function, orders, v, x)
    for order, got in zip(orders, together, strict=True):
        assert got.shape == (2, 3)
        (alone,) = _torch.bessel(function, [order], v, x)
        torch.testing.assert_close(got, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_float32_is_computed_in_float64_and_rounded(function):
    v, x = torch.tensor([0.5, 3.0, 40.0]), torch.tensor([0.3, 20.0, 1e4])
    (got,) = _torch.bessel(function, [(0, 0)], v, x)
    (wide,) = _torch.bessel(function, [(0, 0)], v.double(), x.double())
    assert torch.equal(got, wide.float())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_empty_tensors_stay_empty(function):
    (got,) = _torch.bessel(function, [(0, 0)], torch.ones(0, 1), torch.ones(3))
    assert got.shape == (0, 3)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_the_twin_is_differentiable_like_the_native_engine(function):
    v = torch.tensor([0.3, 2.5, 10.2, 30.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.2, 1.7, 25.0, 11.0], dtype=torch.float64, requires_grad=True)
    call = lambda v, x: _ops._TWIN((function.number, 0, 0), v, x)  # noqa: E731
    assert torch.autograd.gradcheck(call, (v, x), check_forward_ad=True)
    if function.max_order == 2:
        assert torch.autograd.gradgradcheck(call, (v, x), check_fwd_over_rev=True)
    hessian = torch.func.vmap(torch.func.hessian(call, argnums=1))(v.detach(), x.detach())
    (expected,) = _torch.bessel(function, [(0, 2)], v, x)
    torch.testing.assert_close(hessian, expected, rtol=1e-12, atol=0)


def test_the_inverse_of_the_twin_is_differentiable():
    v = torch.tensor([0.1, 2.5, 31.0], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([0.2, 0.9, 0.45], dtype=torch.float64, requires_grad=True)
    call = lambda v, r: _ops._TWIN_INVERSE((0,), v, r, 1 - r)  # noqa: E731
    assert torch.autograd.gradcheck(call, (v, r), check_forward_ad=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_twin_can_be_compiled(compiled):
    v = torch.tensor([0.3, 30.0], dtype=torch.float64, requires_grad=True)
    call = lambda v: _ops._TWIN((BESSEL_RATIO.number, 0, 0), v, 2 * v)  # noqa: E731
    got = compiled(call)(v)
    assert torch.equal(got, call(v))
    gradients = (torch.autograd.grad(y.sum(), v)[0] for y in (got, call(v)))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_another_device_runs_the_twin(function, monkeypatch):
    # The meta device stands for one without a native kernel: what matters is who is called.
    called = []

    def twin(function, orders, first, second):
        called.append((function, orders))
        return [torch.empty_like(first) for _ in orders]

    monkeypatch.setattr(_torch, "bessel", twin)
    from pyprobe import special

    x = torch.ones(3, device="meta")
    got = getattr(special, function.name)(x, x)
    assert got.device.type == "meta"
    assert called == [(function, [(0, 0)])]


def test_tensors_without_numbers_are_refused():
    from pyprobe import special

    x = torch.full((3,), 0.4, device="meta")
    with pytest.raises(TypeError, match=r"log_iv needs tensors that hold numbers; .* 'meta'"):
        special.log_iv(1.0, x)
    with pytest.raises(TypeError, match=r"needs tensors that hold numbers; .* 'meta'"):
        special.bessel_ratio_inverse(1.0, x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.column)
def test_cuda_matches_the_certified_values(bound):
    from pyprobe import special

    v, x, columns = read(bound.table)
    expected = columns[bound.column]
    tensors = (torch.from_numpy(a).cuda() for a in (v, x))
    got = getattr(special, bound.function)(*tensors, derivative=bound.derivative).cpu().numpy()
    error = scaled_error(got, expected, v, x, bound.scale)
    assert error.max() <= SLACK * bound.bound, worst_points(error, got, expected, v, x)
    assert np.isfinite(got).all()
