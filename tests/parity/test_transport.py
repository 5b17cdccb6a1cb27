"""Transport on every engine and dtype, beside one another."""

import contextlib
import math
import sys

import numpy as np
import pytest

from pyprobe._engine import Engine
from pyprobe.errors import ConvergenceWarning, DomainError, NotFiniteError, ShapeError
from pyprobe.transport import sinkhorn, sinkhorn_batch, sinkhorn_divergence, sinkhorn_points

torch = pytest.importorskip("torch")

from pyprobe.transport import _torch
from pyprobe.transport import _torch_solver as solver
from pyprobe.transport._check import as_penalties
from pyprobe.transport.sinkhorn import SolverOptions

SETTINGS = {
    "equal weights": {"weights": False},
    "weights": {},
    "small epsilon": {"epsilon": 0.01},
    "masked": {"masked": True},
    "weightless": {"weightless": True},
    "all": {"masked": True, "weightless": True, "unbalanced": (0.3, 2.0)},
    "unbalanced": {"unbalanced": 0.5},
    "unbalanced on a side": {"unbalanced": (None, 0.5)},
    "nearly balanced": {"unbalanced": 100.0},
}


def problem(
    n=23, m=31, *, epsilon=0.05, weights=True, masked=False, weightless=False, unbalanced=None
):
    rng = np.random.default_rng(5)
    x, y = rng.random((n, 2)), rng.random((m, 2))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = (rng.random(k) + 0.1 for k in (n, m))
    if weightless:
        a[::5] = b[1::4] = 0
    if masked:
        cost[rng.random((n, m)) < 0.2] = np.inf
    a, b = a / a.sum(), b / b.sum() * (1 if unbalanced is None else 1.4)
    pair = (a, b) if weights else (None, None)
    return (*pair, cost), epsilon, unbalanced


def tensors(arrays, dtype=torch.float64):
    return tuple(None if a is None else torch.as_tensor(a, dtype=dtype) for a in arrays)


def twin(arrays, epsilon, unbalanced=None, *, tol=1e-12, max_iter=10_000, init=None, callback=None):
    given = (*arrays, epsilon)
    penalties = as_penalties(unbalanced)
    _torch.check(*arrays, penalties, "auto")
    return _torch.solve(
        given, epsilon, penalties, SolverOptions("auto", tol, max_iter, init, callback, 0)
    )


def everything(result, n=23, m=31):
    """Return what a result gives that does not hang on how it was found."""
    v, u = np.linspace(-1, 1, m), np.linspace(0, 1, 2 * n).reshape(n, 2)
    if torch.is_tensor(result.f):
        v, u = torch.as_tensor(v), torch.as_tensor(u)
    parts = {
        "f": result.f,
        "g": result.g,
        "value": result.value,
        "plan": result.plan(),
        "apply": result.apply(v),
        "apply_transpose": result.apply_transpose(u),
        "barycentric_map": result.barycentric_map(v[:, None]),
        "transport_cost": result.transport_cost,
        "sparse_plan": result.sparse_plan(1e-5).toarray(),
    }
    with contextlib.suppress(DomainError):  # not defined with penalties
        parts["rounded_plan"] = result.rounded_plan()
    return {name: np.asarray(part, dtype=np.float64) for name, part in parts.items()}


@pytest.mark.parametrize("setting", SETTINGS)
def test_native_and_twin_agree(setting):
    arrays, epsilon, unbalanced = problem(**SETTINGS[setting])
    options = {"epsilon": epsilon, "unbalanced": unbalanced, "tol": 1e-13, "method": "log"}
    expected = sinkhorn(*arrays, **options)
    found = twin(tensors(arrays), epsilon, unbalanced, tol=1e-13)
    assert found.converged
    assert found.marginal_error <= 1e-13
    for (name, one), other in zip(
        everything(found).items(), everything(expected).values(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10, err_msg=name)
    if unbalanced is None:
        assert found.gap == pytest.approx(expected.gap, abs=1e-12)
        assert abs(expected.gap) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS)
def test_single_precision_is_near_double(setting):
    arrays, epsilon, unbalanced = problem(**SETTINGS[setting])
    options = {"epsilon": epsilon, "unbalanced": unbalanced, "tol": 1e-9}
    expected = everything(sinkhorn(*arrays, **options))
    single = tensors(arrays, torch.float32)
    for found in (sinkhorn(*single, **options), twin(single, epsilon, unbalanced, tol=1e-9)):
        assert found.f.dtype == found.plan().dtype == found.value.dtype == torch.float32
        for (name, one), other in zip(everything(found).items(), expected.values(), strict=True):
            if name != "sparse_plan":
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("setting", SETTINGS)
def test_tensors_and_arrays_share_their_bits(setting):
    arrays, epsilon, unbalanced = problem(**SETTINGS[setting])
    options = {"epsilon": epsilon, "unbalanced": unbalanced}
    expected, found = sinkhorn(*arrays, **options), sinkhorn(*tensors(arrays), **options)
    for name in ("f", "g", "value"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.n_iter == expected.n_iter
    assert repr(found) == repr(expected)
    one, other = everything(found), everything(expected)
    for name in ("apply", "apply_transpose", "transport_cost", "sparse_plan"):
        np.testing.assert_array_equal(one[name], other[name])
    for name in {"plan", "barycentric_map", "rounded_plan"} & set(other):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12, atol=1e-16)
    if unbalanced is None:
        assert found.gap == expected.gap


@pytest.mark.parametrize("unbalanced", [None, 0.5, (0.3, None)])
def test_native_and_twin_agree_on_batches(monkeypatch, unbalanced):
    scale = None if unbalanced is None else 1
    settings = [
        {"weights": False},
        {},
        {"masked": True},
        {"weightless": True},
        {"n": 9, "m": 31},
        {"masked": True, "weightless": True},
    ]
    problems = [problem(**setting, unbalanced=scale)[0] for setting in settings]
    epsilons = [0.05, 0.01, 0.2, 0.05, 0.05, 0.1]
    options = {"epsilon": epsilons, "unbalanced": unbalanced, "tol": 1e-12, "method": "log"}
    columns = [list(column) for column in zip(*problems, strict=True)]
    expected = sinkhorn_batch(*columns, **options)
    monkeypatch.setattr("pyprobe.transport.batch.select", lambda *_, **__: Engine.TORCH)
    given = [list(tensors(column)) for column in columns]
    found = sinkhorn_batch(*given, **options)
    for one, other, cost in zip(found, expected, columns[2], strict=True):
        assert one.converged
        assert one.n_iter <= 1.5 * other.n_iter + 20
        parts, wanted = (everything(result, *cost.shape) for result in (one, other))
        for name, part in parts.items():
            np.testing.assert_allclose(part, wanted[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_problem_takes_the_same_steps_in_a_batch_of_the_twin(monkeypatch):
    for module in ("batch", "sinkhorn"):
        where = sys.modules[
            f"pyprobe.transport.{module}"
        ]  # the package has a function of this name
        monkeypatch.setattr(where, "select", lambda *_, **__: Engine.TORCH)
    settings = ({}, {"masked": True}, {"n": 9}, {"weightless": True})
    for dtype in (torch.float64, torch.float32):
        problems = [tensors(problem(**setting)[0], dtype) for setting in settings]
        columns = [list(column) for column in zip(*problems, strict=True)]
        epsilons = [0.005, 0.01, 0.05, 0.02]
        found = sinkhorn_batch(*columns, epsilon=epsilons)
        for one, given, epsilon in zip(found, problems, epsilons, strict=True):
            alone = sinkhorn(*given, epsilon=epsilon)
            assert repr(one) == repr(alone)
            assert (one.method, one.n_iter, one.stopped) == (alone.method, alone.n_iter, False)
            assert one.f.dtype == one.plan().dtype == one.value.dtype == dtype
            np.testing.assert_allclose(one.errors, alone.errors, rtol=1e-6, atol=1e-13)
            tolerance = 1e-11 if dtype == torch.float64 else 1e-5
            torch.testing.assert_close(one.g, alone.g, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a, b, c: (a, b, c.T), ShapeError, "Transpose 'cost'?"),
        (lambda a, b, c: (a, b, c[:0]), ShapeError, "cost"),
        (lambda a, b, c: (-a, b, c), DomainError, "'a' must be nonnegative"),
        (lambda a, b, c: (a, 2 * b, c), DomainError, "must have the same mass"),
        (lambda a, b, c: (a, b, c * math.nan), NotFiniteError, "'cost' must not be NaN"),
        (lambda a, b, c: (a, b, c + math.inf), DomainError, "no plan can move that mass"),
        (lambda a, b, c: (a, b, c > 0), TypeError, "dtype bool"),
        (lambda a, b, c: (a, b, c.to_sparse()), TypeError, ""),
    ],
)
def test_a_batch_of_the_twin_names_the_bad_problem(monkeypatch, change, error, message):
    monkeypatch.setattr("pyprobe.transport.batch.select", lambda *_, **__: Engine.TORCH)
    good = tensors(problem()[0])
    columns = [list(column) for column in zip(good, change(*good), strict=True)]
    with pytest.raises(error, match=f"problem 1: .*{message}"):
        sinkhorn_batch(*columns, epsilon=0.1)


def test_large_problems_of_a_batch_are_solved_alone(monkeypatch):
    monkeypatch.setattr("pyprobe.transport.batch.select", lambda *_, **__: Engine.TORCH)
    monkeypatch.setattr(solver, "BLOCK", 100)
    monkeypatch.setattr("pyprobe.transport._torch_batch.solve", None)
    cost = torch.as_tensor(np.random.default_rng(0).random((3, 8, 8)))
    found = sinkhorn_batch(None, None, cost, epsilon=0.5)
    assert all(result.converged for result in found)


def test_a_batch_of_the_twin_says_which_problems_are_late(monkeypatch):
    monkeypatch.setattr("pyprobe.transport.batch.select", lambda *_, **__: Engine.TORCH)
    cost = torch.as_tensor(np.random.default_rng(0).random((3, 8, 8)))
    with pytest.warns(ConvergenceWarning, match="1 of 3 problems, the first at index 1,"):
        found = sinkhorn_batch(None, None, cost, epsilon=[0.5, 0.005, 0.5], max_iter=17)
    assert [result.converged for result in found] == [True, False, True]
    assert found[1].n_iter == len(found[1].errors) == 17
    leaf = cost.clone().requires_grad_()
    results = sinkhorn_batch(None, None, leaf, epsilon=0.5)
    (gradient,) = torch.autograd.grad(sum(result.value for result in results), leaf)
    torch.testing.assert_close(gradient[2], results[2].plan().detach(), rtol=1e-12, atol=1e-15)


CLOUDS = {
    "sqeuclidean": {},
    "euclidean": {"metric": "euclidean"},
    "cityblock": {"metric": "cityblock"},
    "weightless": {"weightless": True},
    "unbalanced": {"unbalanced": 0.5},
    "far": {"shift": 1e4},
}


def clouds(n=23, m=31, *, weightless=False, shift=0.0, **options):
    rng = np.random.default_rng(5)
    points = rng.random((n, 3)) + shift, rng.random((m, 3)) + shift
    a, b = (rng.random(k) + 0.1 for k in (n, m))
    if weightless:
        a[::5] = b[1::4] = 0
    weights = {"a": a / a.sum(), "b": b / b.sum() * (1.4 if "unbalanced" in options else 1)}
    return points, weights, {"epsilon": 0.1, "tol": 1e-12} | options


def as_tensors(points, weights, dtype=torch.float64):
    tensor = {name: torch.as_tensor(weight, dtype=dtype) for name, weight in weights.items()}
    return tensors(points, dtype), tensor


@pytest.mark.parametrize("setting", CLOUDS)
def test_clouds_of_tensors_share_the_bits_of_arrays(setting):
    points, weights, options = clouds(**CLOUDS[setting])
    pair, tensor = as_tensors(points, weights)
    for method in ("auto", "log", "scaling", "newton"):
        expected = sinkhorn_points(*points, **weights, **options, method=method)
        found = sinkhorn_points(*pair, **tensor, **options, method=method)
        assert repr(found) == repr(expected)
        one, other = everything(found), everything(expected)
        for name in ("f", "g", "value", "apply", "apply_transpose", "transport_cost"):
            np.testing.assert_array_equal(one[name], other[name])
        for name in {"plan", "barycentric_map", "rounded_plan", "sparse_plan"} & set(other):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-12, atol=1e-16)
        if "unbalanced" not in options:
            assert found.gap == expected.gap
    expected = sinkhorn_divergence(*points, **weights, **options)
    found = sinkhorn_divergence(*pair, **tensor, **options)
    assert found.value.item() == pytest.approx(expected.value, rel=1e-14, abs=1e-15)
    assert found.marginal_error == expected.marginal_error


@pytest.mark.parametrize("setting", CLOUDS)
def test_native_and_twin_agree_on_clouds(setting, monkeypatch):
    points, weights, options = clouds(**CLOUDS[setting])
    expected = sinkhorn_points(*points, **weights, **options, method="log")
    distance = sinkhorn_divergence(*points, **weights, **options)
    for module in ("points", "divergence"):
        where = f"pyprobe.transport.{module}.select"
        monkeypatch.setattr(where, lambda *_, **__: Engine.TORCH)
    pair, tensor = as_tensors(points, weights)
    found = sinkhorn_points(*pair, **tensor, **options)
    assert found.converged
    for (name, one), other in zip(
        everything(found).items(), everything(expected).values(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10, err_msg=name)
    if "unbalanced" not in options:
        assert found.gap == pytest.approx(expected.gap, abs=1e-11)
    debiased = sinkhorn_divergence(*pair, **tensor, **options)
    assert debiased.converged
    assert debiased.value.item() == pytest.approx(distance.value, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("setting", ["sqeuclidean", "euclidean", "unbalanced"])
def test_clouds_in_single_precision_are_near_double(setting, monkeypatch):
    points, weights, options = clouds(**CLOUDS[setting])
    options["tol"] = 1e-9
    expected = everything(sinkhorn_points(*points, **weights, **options))
    pair, tensor = as_tensors(points, weights, torch.float32)
    native = sinkhorn_points(*pair, **tensor, **options)
    monkeypatch.setattr("pyprobe.transport.points.select", lambda *_, **__: Engine.TORCH)
    for found in (native, sinkhorn_points(*pair, **tensor, **options)):
        assert found.f.dtype == found.plan().dtype == found.value.dtype == torch.float32
        for (name, one), other in zip(everything(found).items(), expected.values(), strict=True):
            if name != "sparse_plan":
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)


def test_tensors_of_any_layout_and_kind_are_taken():
    (a, b, cost), epsilon, _ = problem()
    expected = sinkhorn(a, b, cost, epsilon=epsilon).value
    a, b, cost = tensors((a, b, cost))
    strided = torch.stack([cost, cost], -1)[..., 0]
    for other in (cost.T.contiguous().T, strided, cost.neg().neg()):
        assert float(sinkhorn(a, b, other, epsilon=epsilon).value) == expected
    whole = torch.arange(6).reshape(2, 3)
    assert sinkhorn(None, None, whole, epsilon=1).plan().dtype == torch.float64
    uniform = torch.tensor(0.5, dtype=torch.float64).expand(2)
    sinkhorn(uniform, None, whole.double(), epsilon=1)


def test_twin_works_in_blocks_of_rows(monkeypatch):
    arrays, epsilon, _ = problem()
    whole = twin(tensors(arrays), epsilon)
    monkeypatch.setattr(solver, "BLOCK", 100)
    blocks = twin(tensors(arrays), epsilon)
    torch.testing.assert_close(blocks.plan(), whole.plan(), rtol=1e-12, atol=1e-15)


def test_twin_lengthens_its_steps():
    rng = np.random.default_rng(2)
    x, y = np.sort(rng.random(60)), np.sort(rng.random(60))
    arrays = tensors((None, None, (x[:, None] - y) ** 2))
    found = twin(arrays, 0.002, tol=1e-9)
    expected = sinkhorn(*arrays, epsilon=0.002, tol=1e-9, method="log")
    assert found.n_iter < 1.5 * expected.n_iter + 20


def test_twin_survives_costs_far_above_epsilon():
    rng = np.random.default_rng(2)
    cost = rng.random((12, 12)) * 1e3
    arrays = tensors((None, None, cost))
    with pytest.warns(ConvergenceWarning, match="sinkhorn stopped after 200 iterations"):
        found = twin(arrays, 0.1, max_iter=200)
    assert found.plan().isfinite().all()
    assert found.f.isfinite().all()
    assert not found.converged
    # From a start whose columns all underflow.
    start = torch.linspace(-1e4, 1e4, 12), torch.linspace(1e4, -1e4, 12)
    found = twin(arrays, 50.0, init=start)
    expected = sinkhorn(*arrays, epsilon=50.0, tol=1e-12)
    torch.testing.assert_close(found.plan(), expected.plan(), rtol=1e-9, atol=1e-11)


def test_twin_reports_and_stops():
    arrays, epsilon, _ = problem()
    seen = []

    def stop(progress):
        seen.append(progress.step)
        return progress.step >= 10

    found = twin(tensors(arrays), epsilon, callback=stop)
    assert found.stopped
    assert not found.converged
    assert found.n_iter == len(found.errors) == 10
    assert seen == [1, 10, 10]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a, b, c: (a, b, c.T), ShapeError, "Transpose 'cost'?"),
        (lambda a, b, c: (a, b, c[0]), ShapeError, "must be a matrix"),
        (lambda a, b, c: (-a, b, c), DomainError, "'a' must be nonnegative"),
        (lambda a, b, c: (a, 2 * b, c), DomainError, "must have the same mass"),
        (lambda a, b, c: (a * math.nan, b, c), NotFiniteError, "'a' must be finite"),
        (lambda a, b, c: (a, b, c * math.nan), NotFiniteError, "'cost' must not be NaN"),
        (lambda a, b, c: (a, b, c + math.inf), DomainError, "no plan can move that mass"),
        (lambda a, b, c: (a, b, c > 0), TypeError, "dtype bool"),
        (lambda a, b, c: (a, 0 * b, c), DomainError, "'b' must not be all zero"),
    ],
)
def test_both_engines_refuse_in_the_same_words(change, error, message):
    arrays, epsilon, _ = problem()
    arrays = change(*tensors(arrays))
    messages = []
    for run in (lambda: sinkhorn(*arrays, epsilon=epsilon), lambda: twin(arrays, epsilon)):
        with pytest.raises(error, match=message) as caught:
            run()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_methods_of_the_cpu_are_refused_elsewhere():
    with pytest.raises(DomainError, match="'method' must be 'auto' or 'log' for tensors on cpu"):
        _torch.check(None, None, torch.ones(2, 2), (math.inf, math.inf), "newton")


@pytest.mark.parametrize("singular", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_twin_solves_the_system_of_the_gradient(monkeypatch, direct, singular):
    rng = np.random.default_rng(0)
    plan = torch.as_tensor(rng.random((7, 5)))
    extra = 0 if singular else 0.3
    r, q = plan.sum(1) + extra, plan.sum(0) + extra
    rows, columns = torch.as_tensor(rng.standard_normal(7)), torch.as_tensor(rng.standard_normal(5))
    if singular:
        rows, columns = rows - rows.mean(), columns - columns.mean()
    if direct:
        monkeypatch.setattr(solver, "_conjugate_gradients", lambda *_: (None, False))
    x, y = solver.solve_adjoint(plan, r, q, rows, columns, singular=singular)
    torch.testing.assert_close(r * x + plan @ y, rows, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x @ plan + q * y, columns, rtol=1e-9, atol=1e-9)


def test_the_twin_refuses_distances_that_overflow():
    x = torch.tensor([[0.0], [1e200]], dtype=torch.float64)
    given, none = (x, x, None, None), as_penalties(None)
    _torch.check_points(given, "cityblock", none, "log")
    with pytest.raises(NotFiniteError, match="'x' and 'y' must lie so near"):
        _torch.check_points(given, "euclidean", none, "log")
