"""Derivatives of transport: against central differences, to the order that is offered."""

import functools
import math

import numpy as np
import pytest

from pyprobe.errors import PyprobeError, ShapeError
from pyprobe.transport import sinkhorn

torch = pytest.importorskip("torch")
from torch.autograd import forward_ad, grad, gradcheck, gradgradcheck

from pyprobe.transport import _torch
from pyprobe.transport._check import as_penalties
from pyprobe.transport.sinkhorn import SolverOptions

# What a result gives, made a number; the weights make every entry count differently.
W = torch.linspace(-1.0, 1.3, 30, dtype=torch.float64).sin()
OUTPUTS = {
    "value": lambda r: r.value,
    "f": lambda r: r.f @ W[:6],
    "g": lambda r: r.g.square() @ W[:5],
    "plan": lambda r: (r.plan() * W.reshape(6, 5)).sum(),
    "apply": lambda r: r.apply(W[:5]).square().sum(),
    "apply_transpose": lambda r: r.apply_transpose(W[:12].reshape(6, 2)).square().sum(),
    "barycentric_map": lambda r: r.barycentric_map(W[:10].reshape(5, 2)).nansum(),
    "transport_cost": lambda r: r.transport_cost,
    "rounded_plan": lambda r: (r.rounded_plan() * W.reshape(6, 5)).sum(),
}
PROBLEMS = {
    "balanced": {},
    "mass 2.5": {"mass": 2.5},
    "masked": {"masked": True},
    "weightless": {"weightless": True},
    "weightless masked": {"weightless": True, "masked": True},
    "unbalanced": {"unbalanced": 0.6},
    "unbalanced on a side": {"unbalanced": (None, 0.4)},
    "unbalanced weightless": {"unbalanced": (0.5, 2.0), "weightless": True},
}


def inputs(n=6, m=5):
    """Return what the weights are made of, costs and epsilon."""
    generator = torch.Generator().manual_seed(7)
    shapes = (n,), (m,), (n, m)
    tensors = [torch.rand(s, dtype=torch.float64, generator=generator) for s in shapes]
    return [t.requires_grad_() for t in (*tensors, torch.tensor(0.15, dtype=torch.float64))]


def native(a, b, cost, epsilon, unbalanced, tol=1e-14):
    return sinkhorn(a, b, cost, epsilon=epsilon, unbalanced=unbalanced, tol=tol, method="log")


def twin(a, b, cost, epsilon, unbalanced, tol=1e-14):
    penalties = as_penalties(unbalanced)
    given = a, b, cost, epsilon
    return _torch.solve(
        given, float(epsilon.detach()), penalties, SolverOptions("log", tol, 10_000, None, None, 0)
    )


def solve(
    engine, x, y, cost, epsilon, *, mass=1.0, masked=False, weightless=False, unbalanced=None
):
    """Return the result for weights in proportion to `x` and `y`: tangent to the simplex."""
    if weightless:
        x = x * x.new_tensor([1, 0, 1, 1, 0, 1])
        y = y * y.new_tensor([1, 1, 0, 1, 1])
    a, b = mass * x / x.sum(), mass * y / y.sum()
    if unbalanced is not None:
        a, b = x, 1.5 * y
    if masked:
        # Row 1 (without weight where `weightless`) meets only columns 2 and 3.
        mask = torch.zeros(cost.shape, dtype=torch.bool)
        mask[0, 1] = mask[3, 3] = mask[1, 0] = mask[1, 1] = mask[1, 4] = True
        cost = cost.masked_fill(mask, math.inf)
    return engine(a, b, cost, epsilon, unbalanced)


@pytest.mark.parametrize("engine", [native, twin])
@pytest.mark.parametrize(
    ("problem", "output"),
    [
        (problem, output)
        for problem, options in PROBLEMS.items()
        for output in OUTPUTS
        if not ("unbalanced" in options and output == "rounded_plan")
    ],
)
@pytest.mark.filterwarnings("ignore:sinkhorn stopped")  # 1e-14 is at rounding
def test_gradient_is_the_central_difference(problem, output, engine):
    def number(*tensors):
        return OUTPUTS[output](solve(engine, *tensors, **PROBLEMS[problem]))

    tensors = inputs()
    gradients = grad(number(*tensors), tensors)
    step = 1e-5
    with torch.no_grad():
        for k, gradient in enumerate(gradients):
            assert gradient.isfinite().all()
            change = (
                torch.cos(torch.arange(gradient.numel()) + 1.0).double().reshape(gradient.shape)
            )
            ends = []
            for sign in (1, -1):
                moved = [
                    t + sign * step * change * (i == k) if i == k else t
                    for i, t in enumerate(tensors)
                ]
                ends.append(number(*moved))
            difference = (ends[0] - ends[1]) / (2 * step)
            expected = float((gradient * change).sum())
            assert float(difference) == pytest.approx(expected, rel=1e-6, abs=1e-8), k


@pytest.mark.parametrize("unbalanced", [None, 0.7, (None, 0.5)])
@pytest.mark.filterwarnings("ignore:sinkhorn stopped")
def test_value_is_differentiable_twice_and_the_rest_once(unbalanced):
    tensors = inputs(4, 3)

    def result(*tensors):
        return solve(functools.partial(native, tol=1e-13), *tensors, unbalanced=unbalanced)

    def rest(*tensors):
        r = result(*tensors)
        rounded = () if unbalanced else (r.rounded_plan(),)
        return r.f, r.g, r.plan(), r.transport_cost, *rounded

    assert gradcheck(lambda *t: result(*t).value, tensors)
    assert gradgradcheck(lambda *t: result(*t).value, tensors)
    assert gradcheck(rest, tensors)


@pytest.mark.parametrize("engine", [native, twin])
def test_second_order_of_the_value_with_masks_and_weightless_atoms(engine):
    x, y, cost, epsilon = inputs()
    direction = W.reshape(6, 5)

    def slope(cost, *, create_graph=False):
        """Return a combination of all first derivatives."""
        leaves = x, y, cost, epsilon
        r = solve(functools.partial(engine, tol=1e-13), *leaves, masked=True, weightless=True)
        gradients = grad(r.value, leaves, create_graph=create_graph)
        return sum((g * W[: g.numel()].reshape(g.shape)).sum() for g in gradients)

    (second,) = grad(slope(cost, create_graph=True), cost)
    assert second.isfinite().all()
    step = 1e-5
    ends = [slope((cost.detach() + k * step * direction).requires_grad_()) for k in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    assert float(difference) == pytest.approx(float((second * direction).sum()), rel=1e-6)


@pytest.mark.parametrize("output", ["f", "g", "plan", "value", "transport_cost"])
def test_derivative_in_a_weight_of_zero_is_the_one_sided_one(output):
    _, _, cost, epsilon = (t.detach() for t in inputs())
    a = torch.tensor([0.2, 0.0, 0.1, 0.3, 0.4, 0.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.3, 0.3, 0.0, 0.3, 0.1], dtype=torch.float64, requires_grad=True)

    def number(a, b):
        r = sinkhorn(a, b, cost, epsilon=epsilon, tol=1e-13, method="log")
        return OUTPUTS[output](r)

    gradients = grad(number(a, b), (a, b))
    step = 1e-5
    # Mass comes to the atoms without weight from others, on both sides at once.
    changes = (a.new_tensor([0, 1, 0, -1, -1, 1]), b.new_tensor([0, 0, 1, -1, 0]))
    with torch.no_grad():
        points = [
            number(*(t + k * step * c for t, c in zip((a, b), changes, strict=True)))
            for k in range(3)
        ]
    difference = (-3 * points[0] + 4 * points[1] - points[2]) / (2 * step)
    expected = sum(float(g @ c) for g, c in zip(gradients, changes, strict=True))
    assert float(difference) == pytest.approx(expected, rel=1e-5)


def test_first_order_of_the_value_is_potentials_plan_and_divergence():
    x, y, cost, epsilon = inputs()
    a, b = (x / x.sum()).detach().requires_grad_(), (y / y.sum()).detach().requires_grad_()
    result = sinkhorn(a, b, cost, epsilon=epsilon, tol=1e-13, method="log")
    found = grad(result.value, (a, b, cost, epsilon))
    plan = result.plan().detach()
    divergence = (plan * (plan / (a[:, None] * b)).log()).sum() - plan.sum() + 1
    expected = result.f, result.g, plan, divergence
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted.detach(), rtol=1e-11, atol=1e-11)


def test_value_asks_for_no_solve_and_no_plan(monkeypatch):
    x, y, cost, epsilon = inputs()
    result = sinkhorn((x / x.sum()), (y / y.sum()), cost.detach(), epsilon=epsilon)

    def refuse(*arguments):
        raise AssertionError("not needed")

    from pyprobe.transport import _torch_gradients

    for name in ("transport_solve_adjoint", "transport_plan"):
        monkeypatch.setattr(_torch_gradients._core, name, refuse)
    assert all(g.isfinite().all() for g in grad(result.value, (x, y, epsilon)))


def test_atoms_beyond_reach_leave_no_trace():
    a = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64, requires_grad=True)
    cost = torch.full((3, 3), math.inf, dtype=torch.float64)
    cost[:2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.2]])
    cost.requires_grad_()
    small = [a.detach()[:2].requires_grad_(), b.detach()[:2].requires_grad_()]
    small.append(cost.detach()[:2, :2].requires_grad_())
    found = []
    for leaves in ((a, b, cost), small):
        r = sinkhorn(*leaves, epsilon=0.3, tol=1e-12)
        number = r.value + r.plan().square().sum() + r.transport_cost + r.f[:2].sin().sum()
        found.append(grad(number, leaves))
    for padded, plain in zip(*found, strict=True):
        inner = padded[tuple(slice(0, 2) for _ in padded.shape)]
        torch.testing.assert_close(inner, plain, rtol=1e-9, atol=1e-10)
        assert float(padded.abs().sum()) == pytest.approx(float(inner.abs().sum()), abs=1e-12)
    assert r.f.shape == (2,)
    padded = sinkhorn(a, b, cost, epsilon=0.3)
    assert padded.f[2] == padded.g[2] == math.inf
    # A result may start the next solve.
    assert sinkhorn(a, b, cost, epsilon=0.3, init=(padded.f, padded.g)).n_iter <= 2


def test_warm_start_changes_no_gradient():
    x, y, cost, epsilon = inputs()
    cold = solve(functools.partial(native, tol=1e-12), x, y, cost, epsilon)
    a, b = x / x.sum(), y / y.sum()
    init = (cold.f + 0.01, cold.g)  # in the graph, which must not count
    warm = sinkhorn(a, b, cost, epsilon=epsilon, init=init, tol=1e-12, method="log")
    assert warm.n_iter < cold.n_iter
    leaves = (x, y, cost, epsilon)
    for output in ("value", "f", "plan"):
        pair = [grad(OUTPUTS[output](r), leaves, retain_graph=True) for r in (cold, warm)]
        for one, other in zip(*pair, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_results_and_gradients_have_the_dtype_of_their_inputs():
    single = [t.detach().float().requires_grad_() for t in inputs()[:3]]
    wide = [t.detach().double().requires_grad_() for t in single]
    found = []
    for x, y, cost in (single, wide):
        result = sinkhorn(x / x.sum(), y / y.sum(), cost, epsilon=0.15, tol=1e-10)
        outputs = [result.f, result.g, result.value, result.plan(), result.apply(W[:5])]
        outputs += [result.transport_cost, result.rounded_plan(), result.apply_transpose(W[:6])]
        outputs += [result.barycentric_map(W[:5, None])]
        assert {t.dtype for t in outputs} == {cost.dtype}
        gradients = grad(sum(t.square().sum() for t in outputs), (x, y, cost))
        assert {t.dtype for t in gradients} == {cost.dtype}
        found.append([*outputs, *gradients])
        assert result.sparse_plan(1e-3).shape == (6, 5)
    for narrow, double in zip(*found, strict=True):
        torch.testing.assert_close(narrow.double(), double, rtol=1e-4, atol=1e-5)


def test_gradients_off_graph_are_not_made():
    x, y, cost, epsilon = inputs()
    with torch.no_grad():
        result = sinkhorn(x / x.sum(), y / y.sum(), cost, epsilon=epsilon)
    assert not (result.value.requires_grad)
    assert not (result.f.requires_grad)
    wanted = sinkhorn(x / x.sum(), y / y.sum(), cost, epsilon=epsilon)
    with torch.no_grad():
        assert not wanted.plan().requires_grad
        assert not wanted.transport_cost.requires_grad
    assert wanted.transport_cost.requires_grad


def value_of(cost):
    return sinkhorn(None, None, cost, epsilon=0.2).value


def third_order(cost):
    (first,) = grad(value_of(cost), cost, create_graph=True)
    (second,) = grad(first.square().sum(), cost, create_graph=True)
    return grad(second.square().sum(), cost)


def second_order_of(output):
    def run(cost):
        r = sinkhorn(None, None, cost, epsilon=0.2)
        (first,) = grad(output(r), cost, create_graph=True)
        # The other term would hide that the first had no graph.
        (first.square().sum() + cost.sum()).backward()

    return run


def forward_mode(cost):
    with forward_ad.dual_level():
        value_of(forward_ad.make_dual(cost.detach(), torch.ones_like(cost)))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (third_order, "its value twice"),
        (second_order_of(lambda r: r.f[0]), "differentiable once"),
        (second_order_of(lambda r: r.plan()[0, 0]), "differentiable once"),
        (forward_mode, "forward mode"),
        (lambda cost: torch.func.grad(value_of)(cost.detach()), "torch.func"),
        (lambda cost: torch.func.vmap(value_of)(cost.detach()[None]), "torch.func"),
        (lambda cost: torch.func.hessian(value_of)(cost.detach()), "torch.func"),
        (lambda cost: torch.jit.trace(value_of, cost.detach()), "cannot be traced"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*jit:DeprecationWarning")
def test_what_is_not_offered_is_refused(run, message):
    cost = inputs()[2]
    with pytest.raises(RuntimeError, match=message):
        run(cost)


def test_gradients_of_values_may_be_batched_and_those_of_the_rest_say_that_they_may_not():
    jacobian = torch.autograd.functional.jacobian
    cost = inputs()[2].detach()

    def values(cost):
        return torch.stack([value_of(cost), 3 * value_of(2 * cost)])

    np.testing.assert_allclose(jacobian(values, cost, vectorize=True), jacobian(values, cost))
    message = "the potentials and the plan of 'sinkhorn' have no rule for batched gradients"
    with pytest.raises(PyprobeError, match=message):
        jacobian(lambda c: sinkhorn(None, None, c, epsilon=0.2).f, cost, vectorize=True)


def test_arguments_of_torch_are_checked():
    cost = inputs()[2].detach()
    with pytest.raises(TypeError, match="'cost' must be float32 or float64"):
        sinkhorn(None, None, cost.bfloat16(), epsilon=0.2)
    with pytest.raises(ShapeError, match="'epsilon' must be one number; got shape \\(2,\\)"):
        sinkhorn(None, None, cost, epsilon=torch.ones(2))
    with pytest.raises(TypeError, match="one library"):
        sinkhorn(None, None, cost.numpy(), epsilon=torch.tensor(0.2))
    with pytest.raises(TypeError, match="one library"):
        sinkhorn(np.full(6, 1 / 6), None, cost, epsilon=0.2)
    result = sinkhorn(None, None, cost, epsilon=0.2)
    with pytest.raises(TypeError, match="one library"):
        result.apply(np.ones(5))
    for name, call in (("v", result.apply), ("u", result.apply_transpose)):
        with pytest.raises(ShapeError, match=f"'{name}' must have shape"):
            call(torch.ones(7, dtype=torch.float64))
    with pytest.raises(ShapeError, match="'y' must have shape"):
        result.barycentric_map(torch.ones(5, dtype=torch.float64))


def test_costs_changed_in_place_are_noticed():
    cost = inputs()[2].detach().clone().requires_grad_()
    scaled = cost * 1.0
    value = sinkhorn(None, None, scaled, epsilon=0.2).value
    scaled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_gradients_at_small_epsilon_against_differences():
    # The plan is near a permutation: conjugate gradients are slow, and the direct solve takes over.
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(40, 40, dtype=torch.float64, generator=generator).requires_grad_()

    def number(cost):
        return sinkhorn(None, None, cost, epsilon=0.01, method="newton", tol=1e-13).transport_cost

    (gradient,) = grad(number(cost), cost)
    change = torch.rand(40, 40, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        step = 1e-6
        difference = (number(cost + step * change) - number(cost - step * change)) / (2 * step)
    assert float(difference) == pytest.approx(float((gradient * change).sum()), rel=1e-6)


def test_gradients_do_not_keep_each_other_alive():
    import gc
    import weakref

    cost = inputs()[2]
    gc.disable()
    try:
        result = sinkhorn(None, None, cost, epsilon=0.2)
        (result.value + result.f.sum()).backward()
        gone = weakref.ref(result._problem)
        del result
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", [native, twin])
@pytest.mark.parametrize("tol", [1e-6, 1e-12])
def test_what_the_marginals_fix_has_no_gradient(engine, tol):
    # The right-hand side of the linear system is rounding, or the marginal error, and no more.
    x, y, cost, epsilon = inputs()
    result = solve(functools.partial(engine, tol=tol), x, y, cost, epsilon)
    plan = result.plan()
    for sums in (plan.sum(), plan.sum(1) @ W[:6], 0 * result.f.sum()):
        (gradient,) = grad(sums, cost, retain_graph=True)
        assert gradient.abs().max() < 100 * tol
    # The value, by its potentials.
    a, b = x.detach() / x.detach().sum(), y.detach() / y.detach().sum()
    gradients = grad(a @ result.f + b @ result.g, (x, cost), retain_graph=True)
    assert gradients[0].abs().max() < 100 * tol
    torch.testing.assert_close(gradients[1], plan.detach(), rtol=0, atol=100 * tol)
