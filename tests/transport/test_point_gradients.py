"""Derivatives in the points of clouds: against central differences, and without matrices."""

import math
import subprocess
import sys
import textwrap

import pytest

from pyprobe._engine import Engine
from pyprobe.errors import ConvergenceWarning, DomainError, NotFiniteError, ShapeError
from pyprobe.transport import sinkhorn_divergence, sinkhorn_points

torch = pytest.importorskip("torch")
from torch.autograd import grad, gradcheck, gradgradcheck

from pyprobe.transport import _torch_points
from pyprobe.transport import _torch_solver as solver

METRICS = ("sqeuclidean", "euclidean", "cityblock")
W = torch.linspace(-1.0, 1.3, 30, dtype=torch.float64).sin()
OUTPUTS = {
    "value": lambda r, y: r.value,
    "f": lambda r, y: r.f @ W[:6],
    "g": lambda r, y: r.g.square() @ W[:5],
    "plan": lambda r, y: (r.plan() * W.reshape(6, 5)).sum(),
    "apply": lambda r, y: r.apply(y).square().sum(),
    "apply_transpose": lambda r, y: r.apply_transpose(W[:6]).square().sum(),
    "barycentric_map": lambda r, y: (r.barycentric_map(y) * W[:12].reshape(6, 2)).nansum(),
    "transport_cost": lambda r, y: r.transport_cost,
}
PROBLEMS = {
    "balanced": {},
    "weightless": {"weightless": True},
    "unbalanced": {"unbalanced": 0.6},
    "unbalanced weightless": {"unbalanced": 0.5, "weightless": True},
}
pytestmark = pytest.mark.filterwarnings("ignore:sinkhorn.* stopped")  # 1e-14 is at rounding


@pytest.fixture(params=["native", "twin"])
def engine(request, monkeypatch):
    """Run on the Rust kernels, or on what other devices run, on the CPU."""
    if request.param == "twin":
        for module in ("points", "divergence"):
            where = f"pyprobe.transport.{module}.select"
            monkeypatch.setattr(where, lambda *_, **__: Engine.TORCH)
    return request.param


def inputs(n=6, m=5, d=2):
    """Return clouds, what the weights are made of, and epsilon."""
    generator = torch.Generator().manual_seed(11)
    shapes = (n, d), (m, d), (n,), (m,)
    tensors = [torch.rand(s, dtype=torch.float64, generator=generator) for s in shapes]
    return [t.requires_grad_() for t in (*tensors, torch.tensor(0.2, dtype=torch.float64))]


def weights(u, v, *, weightless=False, unbalanced=None):
    if weightless:
        u = u * (torch.arange(len(u)) % 3 != 1)
        v = v * (torch.arange(len(v)) % 3 != 2)
    return (u / u.sum(), v / v.sum()) if unbalanced is None else (u, 1.5 * v)


def solve(x, y, u, v, epsilon, metric, tol=1e-14, **problem):
    a, b = weights(u, v, **problem)
    return sinkhorn_points(
        x,
        y,
        a=a,
        b=b,
        epsilon=epsilon,
        metric=metric,
        unbalanced=problem.get("unbalanced"),
        tol=tol,
        method="log",
    )


def divergence(x, y, u, v, epsilon, metric, tol=1e-14, **problem):
    a, b = weights(u, v, **problem)
    options = {"unbalanced": problem.get("unbalanced"), "tol": tol}
    return sinkhorn_divergence(x, y, a=a, b=b, epsilon=epsilon, metric=metric, **options)


def assert_gradient_is_the_difference(number, tensors, step=1e-5):
    gradients = grad(number(*tensors), tensors)
    for k, gradient in enumerate(gradients):
        assert gradient.isfinite().all()
        change = torch.cos(torch.arange(gradient.numel()) + 1.0).double().reshape(gradient.shape)
        with torch.no_grad():
            ends = [
                number(*(t + s * step * change if i == k else t for i, t in enumerate(tensors)))
                for s in (1, -1)
            ]
        difference = float(ends[0] - ends[1]) / (2 * step)
        assert difference == pytest.approx(float((gradient * change).sum()), rel=1e-6, abs=1e-8), k


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("engine")
def test_gradient_is_the_central_difference(metric, problem, output):
    def number(*tensors):
        return OUTPUTS[output](solve(*tensors, metric, **PROBLEMS[problem]), tensors[1])

    assert_gradient_is_the_difference(number, inputs())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("engine")
def test_gradient_of_the_divergence_is_the_central_difference(metric, problem):
    def number(*tensors):
        return divergence(*tensors, metric, **PROBLEMS[problem]).value

    assert_gradient_is_the_difference(number, inputs())


@pytest.mark.parametrize("unbalanced", [None, 0.7])
@pytest.mark.parametrize("metric", METRICS)
def test_value_and_divergence_are_differentiable_twice(metric, unbalanced):
    def value(*tensors):
        return solve(*tensors, metric, tol=1e-13, unbalanced=unbalanced).value

    def debiased(*tensors):
        return divergence(*tensors, metric, tol=1e-13, unbalanced=unbalanced).value

    tensors = inputs(4, 3)
    for function in (value, debiased):
        assert gradcheck(function, tensors)
        assert gradgradcheck(function, tensors)


def test_first_order_of_the_value_is_what_the_plan_pulls():
    x, y, u, v, epsilon = inputs()
    result = solve(x, y, u, v, epsilon, "sqeuclidean", tol=1e-6)  # rows not met to all digits
    plan = result.plan().detach()
    in_x, in_y = grad(result.value, (x, y))
    expected = (
        2 * (plan.sum(1)[:, None] * x - plan @ y),
        2 * (plan.sum(0)[:, None] * y - plan.T @ x),
    )
    torch.testing.assert_close(in_x, expected[0].detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(in_y, expected[1].detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("metric", METRICS)
def test_first_order_of_the_value_forms_no_matrix(metric, monkeypatch):
    from pyprobe.transport import _torch_gradients

    def refuse(*arguments):
        raise AssertionError("not needed")

    for name in ("transport_solve_adjoint", "transport_plan"):
        monkeypatch.setattr(_torch_gradients._core, name, refuse)
    monkeypatch.setattr(_torch_points.Points, "double", refuse)
    tensors = inputs()
    for function in (solve, divergence):
        result = function(*tensors, metric, tol=1e-9)
        assert all(g.isfinite().all() for g in grad(result.value, tensors))
    with torch.no_grad():
        plain = solve(*tensors, metric, tol=1e-9)
        for part in (plain.apply(W[:5]), plain.apply_transpose(W[:6]), plain.transport_cost):
            assert part.isfinite().all()
        assert plain.barycentric_map(tensors[1]).isfinite().all()
        assert plain.gap == pytest.approx(0, abs=1e-7)
        assert plain.sparse_plan(1e-3).nnz > 0


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_gradients_of_large_clouds_take_little_memory():
    script = """
        import resource, torch
        from pyprobe.transport import sinkhorn_divergence, sinkhorn_points

        def run(n):
            x = torch.randn(n, 3, generator=torch.manual_seed(0), dtype=torch.float64)
            x.requires_grad_()
            y = torch.randn(n, 3, dtype=torch.float64)
            result = sinkhorn_points(x, y, epsilon=5.0, tol=1e-3, method="log")
            result.value.backward()
            with torch.no_grad():
                result.barycentric_map(y), result.transport_cost

        run(50)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(4000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(printed) * unit < 2 * 4000 * 4000  # bytes: a quarter of a matrix


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("engine")
def test_points_that_coincide_have_the_derivative_zero(metric):
    x = torch.tensor([[0.0, 0.0], [1.0, 0.5], [1.0, 0.5]], dtype=torch.float64).requires_grad_()
    y = x.detach()[:2].clone().requires_grad_()
    result = sinkhorn_points(x, y, epsilon=0.3, metric=metric, tol=1e-12)
    first = grad(result.value + result.transport_cost, (x, y), create_graph=True)
    second = grad(result.value, (x, y), create_graph=True)
    second = grad(sum((g * g).sum() for g in second), (x, y))
    assert all(g.isfinite().all() for g in (*first, *second))
    same = sinkhorn_divergence(x, x.detach(), epsilon=0.3, metric=metric, tol=1e-12)
    (gradient,) = grad(same.value, x)
    assert gradient.abs().max() < 1e-9


def test_a_cloud_flows_into_another():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 2, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.rand(50, 2, generator=generator, dtype=torch.float64) + 2
    values = []
    for _ in range(20):
        found = sinkhorn_divergence(x, y, epsilon=0.1, tol=1e-6)
        (gradient,) = grad(found.value, x)
        with torch.no_grad():
            x -= 0.5 * len(x) * gradient / 2
        values.append(found.value.item())
    assert values[-1] < 1e-3 * values[0]


def test_results_and_gradients_have_the_dtype_of_the_points(engine):
    single = [t.detach().float().requires_grad_() for t in inputs()]
    wide = [t.detach().double().requires_grad_() for t in single]
    found = []
    for tensors in (single, wide):
        result, debiased = (f(*tensors, "euclidean", tol=1e-10) for f in (solve, divergence))
        y = tensors[1]
        outputs = [result.f, result.g, result.value, result.plan(), result.apply(y)]
        outputs += [result.transport_cost, result.barycentric_map(y), debiased.value]
        assert {t.dtype for t in outputs} == {y.dtype}
        gradients = grad(sum(t.square().sum() for t in outputs), tensors)
        assert {t.dtype for t in gradients} == {y.dtype}
        found.append([*outputs, *gradients])
    for narrow, double in zip(*found, strict=True):
        torch.testing.assert_close(narrow.double(), double, rtol=1e-4, atol=1e-5)
    assert repr(result).startswith("SinkhornResult(shape=(6, 5), epsilon=0.2, value=")
    assert repr(debiased).startswith("SinkhornDivergence(value=")


def test_a_small_divergence_survives_single_precision(engine):
    x = torch.rand(50, 2, generator=torch.manual_seed(3)).requires_grad_()
    moved = x.detach() + torch.tensor([1e-4, 0.0])
    value = sinkhorn_divergence(x, moved, epsilon=0.1, tol=1e-12).value
    assert value.item() == pytest.approx(1e-8, rel=1e-2)


def test_points_on_a_line_and_whole_numbers_are_taken(engine):
    line = torch.linspace(0, 1, 6, dtype=torch.float64).requires_grad_()
    whole = torch.arange(5)
    result = sinkhorn_points(line, whole, epsilon=0.3)
    column = sinkhorn_points(line.detach()[:, None], whole.double()[:, None], epsilon=0.3)
    assert result.value.item() == column.value.item()
    (gradient,) = grad(result.value, line)
    assert gradient.shape == (6,)
    mixed = sinkhorn_points(line.detach().float(), whole.double(), epsilon=0.3)
    assert mixed.f.dtype == torch.float64


def test_twin_works_in_blocks_of_rows(engine, monkeypatch):
    tensors = inputs()
    found = []
    for block in (solver.BLOCK, 7):
        monkeypatch.setattr(solver, "BLOCK", block)
        result = solve(*tensors, "euclidean", tol=1e-12, weightless=True)
        with torch.no_grad():
            products = result.apply(W[:5]), result.apply_transpose(W[:6]), result.transport_cost
        found.append([*grad(result.value, tensors), *products, torch.tensor(result.gap)])
    for whole, blocks in zip(*found, strict=True):
        torch.testing.assert_close(whole, blocks, rtol=1e-12, atol=1e-13)


def test_twin_of_a_cloud_with_itself_takes_few_iterations(engine):
    x = torch.rand(40, 2, generator=torch.manual_seed(3), dtype=torch.float64)
    found = sinkhorn_divergence(x, x, epsilon=0.01, tol=1e-9)
    assert found.xx.converged
    assert found.xx.n_iter <= 50
    assert abs(found.value.item()) < 1e-9
    with pytest.warns(ConvergenceWarning, match="sinkhorn_divergence stopped with marginal error"):
        sinkhorn_divergence(x, x + 1, epsilon=0.01, max_iter=2)


@pytest.mark.parametrize("function", [sinkhorn_points, sinkhorn_divergence])
def test_arguments_of_torch_are_checked(function, engine):
    x, y, u, v, _ = (t.detach() for t in inputs())
    cases = [
        ((x.bfloat16(), y), {}, TypeError, "'x' must be float32 or float64; got torch.bfloat16"),
        ((x, y[:, :1]), {}, ShapeError, "points of equal dimension; got shapes"),
        ((x, y * math.nan), {}, NotFiniteError, "'y' must be finite; got 10"),
        ((x[:0], y), {}, ShapeError, "'x' must hold at least one point"),
        ((x[None], y), {}, ShapeError, "'x' must be a matrix"),
        ((x, y), {"a": -u}, DomainError, "'a' must be nonnegative"),
        ((x, y), {"a": u, "b": v / v.sum() * 9}, DomainError, "must have the same mass"),
        ((x, y), {"a": v}, ShapeError, "'a' must have shape"),
        ((x, y), {"metric": "cosine"}, DomainError, "'metric' must be one of"),
        ((x, y), {"epsilon": torch.ones(2)}, ShapeError, "'epsilon' must be one number"),
    ]
    if engine == "native":
        cases += [
            ((x.numpy(), y), {}, TypeError, "'x' a ndarray, 'y' a torch tensor on cpu"),
            ((x, y), {"a": u.numpy()}, TypeError, "'a' a ndarray"),
            (
                (x.numpy(), y.numpy()),
                {"epsilon": torch.tensor(1.0)},
                TypeError,
                "'epsilon' a torch",
            ),
        ]
    for clouds, options, error, message in cases:
        with pytest.raises(error, match=message):
            function(*clouds, **{"epsilon": 0.2, **options})


@pytest.mark.parametrize("function", [sinkhorn_points, sinkhorn_divergence])
def test_what_is_not_offered_is_refused(function):
    x, y, *_ = inputs()

    def value(x):
        return function(x, y.detach(), epsilon=0.2).value

    def third(x):
        (first,) = grad(value(x), x, create_graph=True)
        (second,) = grad(first.square().sum(), x, create_graph=True)
        return grad(second.square().sum(), x)

    def of_potential(x):
        result = sinkhorn_points(x, y.detach(), epsilon=0.2)
        (first,) = grad(result.f[0], x, create_graph=True)
        (first.square().sum() + x.sum()).backward()

    with pytest.raises(RuntimeError, match="its value twice"):
        third(x)
    with pytest.raises(RuntimeError, match="differentiable once"):
        of_potential(x)
    with pytest.raises(RuntimeError, match=f"'{function.__name__}' cannot be transformed"):
        torch.func.grad(value)(x.detach())


def test_methods_of_the_cpu_are_refused_elsewhere(monkeypatch):
    monkeypatch.setattr("pyprobe.transport.points.select", lambda *_, **__: Engine.TORCH)
    x = inputs()[0].detach()
    with pytest.raises(DomainError, match="'method' must be 'auto' or 'log' for tensors on cpu"):
        sinkhorn_points(x, x, epsilon=1.0, method="newton")


def test_points_changed_in_place_are_noticed():
    x, y, *_ = inputs()
    scaled = x * 1.0
    value = sinkhorn_points(scaled, y, epsilon=0.2).value
    scaled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
