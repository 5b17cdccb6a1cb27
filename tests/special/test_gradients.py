"""Derivatives of the special functions under everything that torch differentiates with."""

import math
from functools import partial

import numpy as np
import pytest

from pyprobe import _core, special
from pyprobe.errors import PyprobeError

torch = pytest.importorskip("torch")
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

LOGS = ["log_iv", "log_ive", "log_kv", "log_kve", "log_hyp0f1", "log_matern"]
RATIOS = ["bessel_ratio", "bessel_ratio_complement"]
NAMES = LOGS + RATIOS

# Each formula of each function has a point.
V = [0.3, 2.5, 0.7, 10.2, 7.8, 30.0, 3.1]
X = [0.2, 1.2, 5.0, 4.0, 25.0, 11.0, 400.0]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def function(name):
    return getattr(special, name)


def points(*, grad=True):
    v, x = (torch.tensor(a, dtype=torch.float64, requires_grad=grad) for a in (V, X))
    return v, x


def leaves(result):
    return torch.utils._pytree.tree_leaves(result)


def assert_close(got, expected):
    for a, b in zip(leaves(got), leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def max_first(name):
    return 1 if name in RATIOS else 2


def test_gradients_of_first_order_are_those_of_difference_quotients(function):
    assert gradcheck(function, points(), check_forward_ad=True, check_batched_grad=True)


@pytest.mark.parametrize("order", [(1, 0), (0, 1)])
def test_gradients_of_a_first_derivative_are_those_of_difference_quotients(name, order):
    function = partial(getattr(special, name), derivative=order)
    v, x = points()
    if order[0] == max_first(name):
        v = v.detach()
    assert gradcheck(function, (v, x), check_forward_ad=True)


def test_gradients_of_second_order_are_those_of_difference_quotients(function, name):
    v, x = points()
    if name in RATIOS:  # differentiable in v once: with both, and with x alone
        assert gradgradcheck(partial(function, v.detach()), (x,), check_fwd_over_rev=True)
        mixed = torch.autograd.grad(
            torch.autograd.grad(function(v, x).sum(), x, create_graph=True)[0].sum(), v
        )
        assert_close(mixed, (function(v, x, derivative=(1, 1)),))
    else:
        assert gradgradcheck(function, (v, x), check_fwd_over_rev=True, check_rev_over_rev=True)


def test_inputs_broadcast_and_gradients_are_summed_back(function):
    v = torch.tensor([[0.4], [3.0]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[[0.5, 2.0, 30.0]]], dtype=torch.float64, requires_grad=True)
    assert function(v, x).shape == (1, 2, 3)
    assert gradcheck(function, (v, x), check_forward_ad=True)


def test_an_empty_tensor_has_an_empty_gradient(function):
    x = torch.ones(0, 3, dtype=torch.float64, requires_grad=True)
    v = torch.ones(3, dtype=torch.float64, requires_grad=True)
    function(v, x).sum().backward()
    assert x.grad.shape == (0, 3)
    assert torch.equal(v.grad, torch.zeros(3, dtype=torch.float64))


def test_jvp_is_the_sum_over_both_arguments(function):
    v, x = points(grad=False)
    _, got = jvp(function, (v, x), (2 * v, x + 1))
    expected = 2 * v * function(v, x, derivative=(1, 0)) + (x + 1) * function(
        v, x, derivative=(0, 1)
    )
    assert_close(got, expected)


def test_dual_tensors_carry_their_tangents_through(function):
    v, x = points(grad=False)
    with forward_ad.dual_level():
        got = forward_ad.unpack_dual(function(v, forward_ad.make_dual(x, x + 1)))
        assert_close(got.tangent, (x + 1) * function(v, x, derivative=(0, 1)))
        assert_close(got.primal, function(v, x))


@pytest.mark.parametrize("inner", [jacfwd, jacrev])
@pytest.mark.parametrize("outer", [jacfwd, jacrev])
def test_nested_jacobians_are_the_second_derivatives(name, function, outer, inner):
    v, x = points(grad=False)
    argnums = 1 if name in RATIOS else (0, 1)
    got = outer(inner(lambda v, x: function(v, x).sum(), argnums=argnums), argnums=(0, 1))(v, x)
    mixed, in_x = (torch.diag(function(v, x, derivative=order)) for order in ((1, 1), (0, 2)))
    if name in RATIOS:
        assert_close(got, (mixed, in_x))
    else:
        in_v = torch.diag(function(v, x, derivative=(2, 0)))
        assert_close(got, ((in_v, mixed), (mixed, in_x)))


def test_vmap_agrees_with_broadcasting_at_any_nesting(function):
    v, x = points(grad=False)
    got = vmap(vmap(function, in_dims=(None, 0)), in_dims=(0, None))(v, x)
    assert torch.equal(got, function(v[:, None], x))
    stacked = torch.stack([x, 2 * x], dim=1)
    got = vmap(function, in_dims=(None, 1), out_dims=1)(v, stacked)
    assert torch.equal(got, function(v[:, None], stacked))
    ranks = vmap(function)(v, stacked)  # a batch of numbers against one of vectors
    assert torch.equal(ranks, function(v[:, None], stacked))


def test_vmap_of_a_hessian_and_per_sample_gradients(function):
    v, x = points(grad=False)
    assert_close(vmap(hessian(function, argnums=1))(v, x), function(v, x, derivative=(0, 2)))
    gradient = vmap(torch.func.grad(function, argnums=(0, 1)))(v, x)
    assert_close(gradient, tuple(function(v, x, derivative=o) for o in ((1, 0), (0, 1))))


def test_a_vjp_that_outlives_its_transform_is_differentiable_in_the_cotangent(function):
    v, x = points(grad=False)
    _, pull = torch.func.vjp(function, v, x)
    cotangent = torch.zeros_like(x, requires_grad=True)
    (got,) = torch.autograd.grad(pull(cotangent)[1].sum(), cotangent)
    assert_close(got, function(v, x, derivative=(0, 1)))  # also where the cotangent is zero


def test_reverse_over_dual_tensors_gives_second_derivatives(function):
    v, x = points()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        slope = forward_ad.unpack_dual(function(v.detach(), dual)).tangent
    (got,) = torch.autograd.grad(slope.sum(), x)
    assert_close(got, function(v, x, derivative=(0, 2)))


@pytest.fixture
def masks(monkeypatch):
    """Record what each crossing into Rust is asked for."""
    found = []
    native = _core.bessel

    def bessel(function, mask, v, x):
        found.append(mask)
        return native(function, mask, v, x)

    monkeypatch.setattr(_core, "bessel", bessel)
    return found


def test_a_first_order_step_crosses_into_rust_once(masks):
    v, x = points()
    special.log_kv(v, x).sum().backward()
    assert masks == [1 | 2 | 4]


def test_only_the_derivatives_that_are_needed_are_computed(masks):
    v, x = points()
    special.log_kv(v.detach(), x).sum().backward()
    special.log_kv(v, x.detach()).sum().backward()
    special.log_kv(2.0, x).sum().backward()
    with torch.no_grad():
        special.log_kv(v, x)
    special.log_kv(v.detach(), x.detach())
    assert masks == [1 | 4, 1 | 2, 1 | 4, 1, 1]


@pytest.mark.parametrize("name", LOGS)
def test_a_third_derivative_is_refused_in_every_mode(name):
    function = getattr(special, name)
    v, x = points()
    second = function(v, x, derivative=(1, 1))
    with pytest.raises(PyprobeError, match=f"{name} has no derivative of order 2 .* and 1 in"):
        torch.autograd.grad(second.sum(), v)
    with pytest.raises(PyprobeError, match="differentiable twice"):
        jvp(partial(function, v.detach(), derivative=(0, 2)), (x.detach(),), (x.detach(),))
    third = jacfwd(jacfwd(jacfwd(lambda x: function(2.5, x))))
    with pytest.raises(PyprobeError, match="differentiable twice"):
        third(torch.tensor(1.0, dtype=torch.float64))


def test_a_second_derivative_of_the_ratio_in_the_order_is_refused():
    v, x = points()
    (slope,) = torch.autograd.grad(special.bessel_ratio(v, x).sum(), v, create_graph=True)
    with pytest.raises(PyprobeError, match="any number of times in 'x' but once in 'v'"):
        torch.autograd.grad(slope.sum(), v)


@pytest.mark.parametrize("name", RATIOS)
def test_ratio_has_third_and_fourth_derivatives_in_the_argument(name):
    mp = pytest.importorskip("mpmath").mp
    sign = 1 if name == "bessel_ratio" else -1
    for v, x in ((0.0, 0.7), (0.5, 3.0), (2.5, 0.01), (10.0, 12.0), (1.5, 40.0)):
        at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = getattr(special, name)(v, at)
        with mp.workdps(60):
            ratio = lambda t, v=v: mp.besseli(v + 1, t) / mp.besseli(v, t)  # noqa: E731
            for order in range(1, 5):
                (y,) = torch.autograd.grad(y, at, create_graph=True)
                expected = float(sign * mp.diff(ratio, mp.mpf(x), order))
                assert y.item() == pytest.approx(expected, rel=1e-9), (v, x, order)


def test_the_third_derivative_of_the_ratio_in_both_arguments_is_symmetric():
    (v, x), (w, y) = points(), points(grad=False)
    (in_x,) = torch.autograd.grad(special.bessel_ratio(w, x, derivative=(1, 1)).sum(), x)
    (in_v,) = torch.autograd.grad(special.bessel_ratio(v, y, derivative=(0, 2)).sum(), v)
    torch.testing.assert_close(in_x, in_v, rtol=1e-9, atol=1e-15)
    step = 1e-4
    above, below = (special.bessel_ratio(w, y + h, derivative=(1, 1)) for h in (step, -step))
    torch.testing.assert_close(in_x, (above - below) / (2 * step), rtol=1e-4, atol=1e-9)


def test_derivatives_of_the_ratio_at_zero_are_finite():
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    y = special.bessel_ratio(1.0, x)
    for expected in (1 / 4, 0.0, -1 / 16):  # x/4 - x^3/96
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("edge", [0.0, math.inf])
@pytest.mark.parametrize("v", [0.0, 0.5, 2.5])
def test_a_masked_edge_sends_no_nan(name, function, edge, v):
    if name == "log_hyp0f1" and v == 0:
        v = 0.25
    if name == "log_matern" and v == 0:
        v = 0.25
    v = torch.full((2,), v, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([edge, 1.0], dtype=torch.float64, requires_grad=True)
    y = torch.where(x == edge, 0.0, function(v, x))
    first = torch.autograd.grad(y.sum(), (v, x), create_graph=True)
    for gradient in first:
        assert gradient[0] == 0
        assert gradient[1].isfinite()
    _, tangent = jvp(function, (v.detach(), x.detach()), (torch.zeros_like(v), torch.zeros_like(x)))
    assert torch.equal(tangent, torch.zeros_like(tangent))


def test_a_finite_limit_of_the_slope_arrives_where_the_value_is_infinite():
    x = torch.tensor(math.inf, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(special.log_iv(2.0, x), x) == (1.0,)
    assert torch.autograd.grad(special.log_kv(2.0, x), x) == (-1.0,)
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(special.log_matern(1.5, zero), zero) == (0.0,)
    assert torch.autograd.grad(special.log_matern(0.5, zero), zero) == (-1.0,)


# The inverse of the ratio.


def ratios(*, grad=True):
    v = torch.tensor([0.1, 0.5, 2.5, 31.0, 100.0], dtype=torch.float64, requires_grad=grad)
    r = torch.tensor([0.2, 0.9, 0.45, 0.6, 0.05], dtype=torch.float64, requires_grad=grad)
    return v, r


def test_the_inverse_is_differentiated_by_the_implicit_function_theorem():
    inverse = special.bessel_ratio_inverse
    assert gradcheck(inverse, ratios(), check_forward_ad=True, check_batched_grad=True)
    v, r = ratios()
    assert gradgradcheck(partial(inverse, v.detach()), (r,), check_fwd_over_rev=True)


def test_the_inverse_follows_the_complement_where_the_ratio_is_large():
    v, r = ratios(grad=False)
    c = (1 - r).requires_grad_()
    inverse = lambda c: special.bessel_ratio_inverse(v, r, complement=c)  # noqa: E731
    (got,) = torch.autograd.grad(inverse(c).sum(), c)
    x = inverse(c).detach()
    slope = special.bessel_ratio(v, x, derivative=(0, 1))
    assert_close(got, torch.where(r > 0.5, -1 / slope, 0.0))
    assert gradcheck(lambda c: inverse(c)[r > 0.5], (c,), check_forward_ad=True)


def test_the_inverse_undoes_the_ratio_under_transforms():
    v, x = points(grad=False)
    there_and_back = lambda x: special.bessel_ratio_inverse(v, special.bessel_ratio(v, x))  # noqa: E731
    assert_close(jacfwd(there_and_back)(x), torch.eye(len(x), dtype=torch.float64))
    assert_close(jacrev(there_and_back)(x), torch.eye(len(x), dtype=torch.float64))
    got = vmap(special.bessel_ratio_inverse, in_dims=(0, None))(v, torch.tensor(0.3).double())
    assert torch.equal(got, special.bessel_ratio_inverse(v, torch.tensor(0.3).double()))


def test_the_inverse_at_the_ends_has_limits_and_no_nan():
    v = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    x = special.bessel_ratio_inverse(v, r)
    assert x.tolist()[:2] == [0.0, math.inf]
    in_v, in_r = torch.autograd.grad(torch.where(x.isfinite(), x, 0.0).sum(), (v, r))
    assert in_v[:2].tolist() == [0.0, 0.0]
    assert in_r[:2].tolist() == [4.0, 0.0]  # 2 v + 2 at zero; masked at one


# torch.compile.


COMPILE_WARNINGS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@COMPILE_WARNINGS
def test_a_compiled_function_has_the_same_values_and_gradients(function, compiled):
    model = lambda v, x: function(2 * v, x) * function(v, x, derivative=(0, 1))  # noqa: E731
    v, x = points()
    got = compiled(model)(v, x)
    assert torch.equal(got, model(v, x))
    assert_close(
        torch.autograd.grad(got.sum(), (v, x)), torch.autograd.grad(model(v, x).sum(), (v, x))
    )


@COMPILE_WARNINGS
def test_a_compiled_second_derivative_of_the_ratio_is_differentiable(compiled):
    v, x = points()
    model = partial(special.bessel_ratio, derivative=(0, 2))
    got = compiled(lambda v, x: model(v, x))(v, x)
    gradients = (torch.autograd.grad(y.sum(), (v, x)) for y in (got, model(v, x)))
    assert_close(*gradients)


@COMPILE_WARNINGS
def test_a_compiled_step_crosses_into_rust_once(masks, compiled):
    v, x = points()
    step = compiled(lambda v, x: special.log_kv(v, x) * 2)
    step(v, x).sum().backward()
    masks.clear()
    step(v, x).sum().backward()
    assert masks == [1 | 2 | 4]


@COMPILE_WARNINGS
def test_the_compiled_inverse_has_the_same_gradients(compiled):
    v, r = ratios()
    got = compiled(special.bessel_ratio_inverse)(v, r)
    expected = special.bessel_ratio_inverse(v, r)
    assert torch.equal(got, expected)
    gradients = (torch.autograd.grad(y.sum(), (v, r)) for y in (got, expected))
    assert_close(*gradients)


@COMPILE_WARNINGS
def test_transforms_inside_a_compiled_function_are_right_or_refused(compiled):
    # A custom op would return zero tangents here, without a word.
    v, x = points(grad=False)
    slope = lambda x: jvp(partial(special.log_iv, v), (x,), (torch.ones_like(x),))[1]  # noqa: E731
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"torch\.func's transforms"):
        compiled(slope)(x)
    torch._dynamo.reset()
    got = torch.compile(slope, backend="aot_eager")(x)
    assert_close(got, special.log_iv(v, x, derivative=(0, 1)))


@pytest.mark.slow
@COMPILE_WARNINGS
def test_inductor_compiles_the_functions(compiled):
    v, x = points()
    model = lambda v, x: special.log_matern(v, x).exp() + special.log_hyp0f1(v, x)  # noqa: E731
    got = torch.compile(model, fullgraph=True)(v, x)
    assert_close(got, model(v, x))
    assert_close(
        torch.autograd.grad(got.sum(), (v, x)), torch.autograd.grad(model(v, x).sum(), (v, x))
    )


@pytest.mark.usefixtures("compiled")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_custom_ops_are_registered_as_torch_expects():
    special.log_iv(*points())
    arguments = (*points(), [0, 0, 0], [True, True])
    torch.library.opcheck(torch.ops.pyprobe.bessel.default, arguments)
    v, r = ratios()
    arguments = (v, r, 1 - r.detach(), [0], [True, True, False])
    torch.library.opcheck(torch.ops.pyprobe.bessel_ratio_inverse.default, arguments)


def test_what_records_operations_sees_an_operation(function):
    # Through a NumPy view the value would be recorded as a constant.
    v, x = points(grad=False)
    recorded = make_fx(lambda v, x: function(v, x))(v, x)
    assert torch.equal(recorded(v + 1, x), function(v + 1, x))
    with torch._subclasses.fake_tensor.FakeTensorMode():
        fake = torch.empty(3, 1, dtype=torch.float64)
        assert function(fake, torch.empty(2, dtype=torch.float64)).shape == (3, 2)


# What tensors can be.


def test_tensors_of_every_layout_give_the_same_values(function):
    v, x = points(grad=False)
    expected = function(v, x)
    assert torch.equal(function(torch.stack([v, v])[:, ::1].mT[:, 0], x), expected)
    assert torch.equal(function(v.flip(0), x.flip(0)).flip(0), expected)
    negated = torch.complex(torch.zeros_like(x), -x).conj().imag  # a lazy negation
    assert negated.is_neg()
    assert torch.equal(function(v, negated), expected)
    assert torch.equal(function(v.expand(3, -1), x), expected.expand(3, -1))
    assert torch.equal(function(torch.nn.Parameter(v), x).detach(), expected)


def test_a_tensor_that_needs_grad_is_just_a_tensor_under_no_grad(function):
    v, x = points()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert not function(v, x).requires_grad
            assert torch.equal(function(v, x), function(v.detach(), x.detach()))


def test_dtypes_follow_the_promotion_of_torch(function):
    f32, f64 = torch.ones(2, dtype=torch.float32), torch.ones(2, dtype=torch.float64)
    zero_dim = torch.tensor(1.0, dtype=torch.float64)
    integers = torch.ones(2, dtype=torch.int64)
    cases = [
        ((f32, f32), torch.float32),
        ((f32, f64), torch.float64),
        ((f32, zero_dim), torch.float32),
        ((1.5, f32), torch.float32),
        ((zero_dim, integers), torch.float64),
        ((integers, 2), torch.float32),
        ((f32.half(), 1), torch.float16),
        ((f32.bfloat16(), f32.bfloat16()), torch.bfloat16),
        ((f32.half(), f32.bfloat16()), torch.float32),
    ]
    for arguments, expected in cases:
        got = function(*arguments)
        assert got.dtype is expected
        wide = function(*(torch.as_tensor(a, dtype=torch.float64) for a in arguments))
        torch.testing.assert_close(got, wide.broadcast_to(got.shape).to(expected))


def test_half_precision_is_differentiable():
    x = torch.tensor([1.0, 50.0], dtype=torch.bfloat16, requires_grad=True)
    special.log_iv(1.0, x).sum().backward()
    expected = special.log_iv(1.0, x.detach().float(), derivative=(0, 1)).bfloat16()
    assert torch.equal(x.grad, expected)


def test_complex_tensors_are_refused(function):
    with pytest.raises(TypeError, match=r"real numbers are expected; got torch\.complex64"):
        function(1.0, torch.ones(2, dtype=torch.complex64))


def test_shapes_that_do_not_broadcast_are_refused(function):
    with pytest.raises(ValueError, match="broadcast"):
        function(torch.ones(2), torch.ones(3))
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="broadcast"):
        function(torch.ones(2), x)


def test_tensors_share_the_bits_of_arrays(function):
    v, x = points(grad=False)
    expected = function(v.numpy(), x.numpy())
    np.testing.assert_array_equal(function(v, x).numpy(), expected)
    np.testing.assert_array_equal([function(a, b) for a, b in zip(V, X, strict=True)], expected)
    one = function(v[:1], x[0])
    assert one.shape == (1,)
    assert one.item() == expected[0]


# torch.jit.trace, which Pyro's JIT still uses.


@COMPILE_WARNINGS
def test_a_traced_function_computes_anew(function):
    v, x = points()
    model = lambda v, x: 2 * function(v, x)  # noqa: E731
    traced = torch.jit.trace(model, (v.detach() + 1, x.detach() + 1))
    got = traced(v, x)
    assert torch.equal(got, model(v, x))
    gradients = (torch.autograd.grad(y.sum(), (v, x)) for y in (got, model(v, x)))
    assert_close(*gradients)
