"""Batches and barycenters of torch tensors, beside those of arrays."""

import math

import numpy as np
import pytest

from pyprobe.errors import (
    ConvergenceWarning,
    DomainError,
    NotFiniteError,
    NumericalWarning,
    ShapeError,
)
from pyprobe.transport import relative_epsilon, sinkhorn, sinkhorn_barycenter, sinkhorn_batch

torch = pytest.importorskip("torch")
from torch.autograd import grad, gradcheck, gradgradcheck

from pyprobe._engine import Engine
from pyprobe.transport import barycenter, batch

PARTS = {
    "value": lambda r: r.value,
    "f": lambda r: r.f.square().sum(),
    "plan": lambda r: r.plan().square().sum(),
    "transport_cost": lambda r: r.transport_cost,
}


def problems(n_problems=4, n=6, m=5, *, weightless=False, masked=False, mass=1.0):
    rng = np.random.default_rng(3)
    a, b = rng.random((n_problems, n)) + 0.1, rng.random((n_problems, m)) + 0.1
    cost = rng.random((n_problems, n, m))
    if weightless:
        a[1, 2] = a[2, 0] = b[2, 3] = 0
    if masked:
        cost[0, 1, 2] = cost[2, 0, :2] = np.inf
    a, b = a / a.sum(1, keepdims=True), mass * b / b.sum(1, keepdims=True)
    return a, b, cost


def tensors(*arrays, dtype=torch.float64):
    return tuple(torch.as_tensor(array, dtype=dtype) for array in arrays)


def leaves(**options):
    a, b, cost = (t.requires_grad_() for t in tensors(*problems(**options)))
    epsilon = torch.linspace(0.1, 0.3, len(cost), dtype=torch.float64).requires_grad_()
    return a, b, cost, epsilon


def total(results, part="value"):
    return torch.stack([PARTS[part](result) for result in results]).cos().sum()


@pytest.fixture
def elsewhere(monkeypatch):
    """Send tensors on the CPU where those of other devices go."""
    monkeypatch.setattr(batch, "_engine_of", lambda _: Engine.TORCH)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("kind", "unbalanced"),
    [
        ({}, None),
        ({"weightless": True}, None),
        ({"masked": True, "weightless": True}, None),
        ({"mass": 1.4}, 0.5),
        ({"mass": 1.4, "weightless": True}, (None, 2.0)),
    ],
)
@pytest.mark.parametrize("wanted", [False, True])
def test_tensors_and_arrays_share_their_bits(kind, unbalanced, dtype, wanted):
    arrays = [array.astype(dtype) for array in problems(**kind)]
    given = [torch.from_numpy(array).requires_grad_(wanted) for array in arrays]
    options = {"epsilon": [0.1, 0.2, 0.3, 0.4], "unbalanced": unbalanced, "tol": 1e-6}
    expected, found = sinkhorn_batch(*arrays, **options), sinkhorn_batch(*given, **options)
    v = np.linspace(0, 1, 5)
    for one, other in zip(found, expected, strict=True):
        for name in ("f", "g", "value"):
            tensor = getattr(one, name)
            assert tensor.requires_grad == wanted
            np.testing.assert_array_equal(tensor.detach(), np.asarray(getattr(other, name), dtype))
        assert one.f.dtype == one.value.dtype == one.plan().dtype == given[2].dtype
        assert (one.n_iter, one.marginal_error) == (other.n_iter, other.marginal_error)
        exact = {"rtol": 1e-6 if dtype is np.float32 else 1e-13}
        np.testing.assert_allclose(one.plan().detach(), other.plan(), **exact)
        product = one.apply(torch.from_numpy(v)).detach()
        np.testing.assert_allclose(product, other.apply(v), **exact)
        assert one.transport_cost.item() == pytest.approx(other.transport_cost, rel=exact["rtol"])
        np.testing.assert_array_equal(one.sparse_plan().toarray(), other.sparse_plan().toarray())
        assert repr(one)[:40] == repr(other)[:40]
        if unbalanced is None:
            assert one.gap == other.gap


def test_batches_may_be_ragged_and_share_weights():
    rng = np.random.default_rng(0)
    costs = [rng.random(shape) for shape in ((6, 5), (6, 4), (6, 1))]
    a = rng.dirichlet(np.ones(6))
    b = [None, rng.dirichlet(np.ones(4)), None]
    expected = sinkhorn_batch(a, b, costs, epsilon=0.2)
    shared, second = (torch.as_tensor(w).requires_grad_() for w in (a, b[1]))
    found = sinkhorn_batch(shared, [None, second, None], list(tensors(*costs)), epsilon=0.2)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.f.detach(), other.f)
    gradients = grad(sum(result.value for result in found), (shared, second))
    slopes = sum(result.f for result in found).detach()
    torch.testing.assert_close(gradients, (slopes, found[1].g.detach()), rtol=1e-12, atol=1e-12)


def test_matrices_of_different_dtypes_are_taken_as_double():
    cost = tensors(*problems()[2])
    mixed = [cost[0].float().requires_grad_(), cost[1], torch.ones(2, 3, dtype=torch.int64)]
    results = sinkhorn_batch(None, None, mixed, epsilon=0.1)
    assert {t.dtype for r in results for t in (r.f, r.value, r.plan())} == {torch.float64}
    (gradient,) = grad(results[0].value + results[0].f[0], mixed[0])
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("kind", "unbalanced"),
    [
        ({}, None),
        ({"masked": True}, None),
        ({"masked": True, "weightless": True}, None),
        ({"mass": 1.4}, (0.6, 2.0)),
    ],
)
@pytest.mark.parametrize("engine", ["native", "elsewhere"])
@pytest.mark.filterwarnings("ignore:.*sinkhorn_batch")  # the tolerance is at rounding
def test_gradients_are_those_of_the_problems_one_by_one(kind, unbalanced, part, engine, request):
    given = leaves(**kind)
    options = {"unbalanced": unbalanced, "tol": 1e-13, "method": "log"}
    alone = [
        sinkhorn(a, b, cost, epsilon=epsilon, **options)
        for a, b, cost, epsilon in zip(*given, strict=True)
    ]
    expected = grad(total(alone, part), given)
    if engine == "elsewhere":
        request.getfixturevalue("elsewhere")
    together = sinkhorn_batch(*given[:3], epsilon=given[3], **options)
    found = grad(total(together, part), given)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.filterwarnings("ignore:sinkhorn_batch")
def test_gradients_are_central_differences():
    x, y, cost, epsilon = leaves(n_problems=3, n=4, m=3)

    def results(x, y, cost, epsilon):
        a, b = x / x.sum(1, keepdim=True), y / y.sum(1, keepdim=True)
        return sinkhorn_batch(a, b, cost, epsilon=epsilon, tol=1e-14, method="log")

    def values(*given):
        return torch.stack([result.value for result in results(*given)])

    def rest(*given):
        return tuple(t for r in results(*given) for t in (r.f, r.plan(), r.transport_cost))

    assert gradcheck(values, (x, y, cost, epsilon))
    assert gradgradcheck(values, (x, y, cost, epsilon))
    assert gradcheck(rest, (x, y, cost, epsilon))
    # One epsilon for all.
    one = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda e: values(x.detach(), y.detach(), cost.detach(), e), one)


def test_values_ask_for_no_plan(monkeypatch):
    a, b, cost, epsilon = leaves()
    results = sinkhorn_batch(a, b, cost.detach(), epsilon=epsilon)

    def refuse(*arguments):
        raise AssertionError("not needed")

    from pyprobe.transport import _torch_gradients

    for name in ("transport_solve_adjoint", "transport_plan"):
        monkeypatch.setattr(_torch_gradients._core, name, refuse)
    assert all(g.isfinite().all() for g in grad(total(results), (a, b, epsilon)))


def test_gradients_off_graph_are_not_made():
    a, b, cost, epsilon = leaves()
    with torch.no_grad():
        results = sinkhorn_batch(a, b, cost, epsilon=epsilon)
    for result in results:
        assert not result.value.requires_grad
        assert not result.plan().requires_grad
        assert not result.transport_cost.requires_grad


@pytest.mark.parametrize("wanted", [False, True])
def test_potentials_changed_in_place_change_no_plan(wanted):
    a, b, cost = tensors(*problems())
    result = sinkhorn_batch(a, b, cost.requires_grad_(wanted), epsilon=0.1)[0]
    expected = sinkhorn(a[0], b[0], cost[0].detach(), epsilon=0.1).plan()
    with torch.no_grad():
        result.f.add_(1)
    torch.testing.assert_close(result.plan().detach(), expected, rtol=1e-12, atol=1e-15)


def test_the_twin_solves_one_problem_after_the_other(elsewhere):
    given, epsilon = tensors(*problems(weightless=True)), [0.1, 0.2, 0.3, 1e-8]
    expected = [
        sinkhorn(a, b, cost, epsilon=e)
        for a, b, cost, e in zip(*given, [*epsilon[:3], 0.1], strict=True)
    ]
    with (
        pytest.warns(NumericalWarning, match="problem 3, the first of 1 such among 4"),
        pytest.warns(ConvergenceWarning, match="1 of 4 problems, the first at index 3"),
    ):
        found = sinkhorn_batch(*given, epsilon=epsilon, max_iter=200)
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one.plan(), other.plan(), rtol=1e-7, atol=1e-9)
    with pytest.raises(DomainError, match="problem 0: 'method' must be 'auto' or 'log'"):
        sinkhorn_batch(*given, epsilon=0.1, method="newton")
    with pytest.raises(DomainError, match="problem 0: 'a' and 'b' must have the same mass"):
        sinkhorn_batch(2 * given[0], *given[1:], epsilon=0.1)


def test_batches_of_tensors_name_the_problem():
    a, b, cost = problems()
    tensor_a, tensor_b, tensor_cost = tensors(a, b, cost)
    for given in ((a, tensor_b, tensor_cost), (tensor_a, tensor_b, cost)):
        with pytest.raises(TypeError, match=r"problem 0: arrays of one library.*'a' .*'cost' a"):
            sinkhorn_batch(*given, epsilon=1.0)
    with pytest.raises(TypeError, match=r"problem 1: .*'cost' a ndarray.*'cost of problem 0'"):
        sinkhorn_batch(None, None, [tensor_cost[0], cost[1]], epsilon=1.0)
    with pytest.raises(TypeError, match="'epsilon' a torch tensor on cpu"):
        sinkhorn_batch(a, b, cost, epsilon=torch.ones(4))
    with pytest.raises(ShapeError, match=r"must have shape \(B, n, m\), .*got \(6, 5\)"):
        sinkhorn_batch(None, None, tensor_cost[0], epsilon=1.0)
    with pytest.raises(ShapeError, match=r"'epsilon' must be a number or have shape \(4,\); got"):
        sinkhorn_batch(None, None, tensor_cost, epsilon=torch.ones(3))
    with pytest.raises(DomainError, match="problem 2: 'epsilon' must be a positive finite number"):
        sinkhorn_batch(None, None, tensor_cost, epsilon=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(ShapeError, match="'a' must hold the weights of 4 problems; got 2"):
        sinkhorn_batch(tensor_a[:2], None, tensor_cost, epsilon=1.0)
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0])[:, None]
    with pytest.raises(DomainError, match="problem 3: 'a' must be nonnegative"):
        sinkhorn_batch(tensor_a * signs, None, tensor_cost, epsilon=1.0)
    with pytest.raises(TypeError, match="problem 0: 'cost' must be float32 or float64"):
        sinkhorn_batch(None, None, tensor_cost.half(), epsilon=1.0)
    with pytest.raises(TypeError, match="problem 0: 'cost' must hold real numbers; got dtype bool"):
        sinkhorn_batch(None, None, tensor_cost > 0, epsilon=1.0)
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(lambda c: sinkhorn_batch(None, None, c, epsilon=1.0)[0].value)(tensor_cost)


EASY = {"epsilon": 0.5, "debiased": False, "tol": 1e-5}


def bumps():
    x = np.linspace(-3, 3, 41)
    rows = np.exp(-2 * (x - np.array([[-1.0], [0.5], [1.0]])) ** 2)
    return np.array([0.2, 0.3, 0.5]), rows / rows.sum(1, keepdims=True), (x[:, None] - x) ** 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_barycenters_of_tensors_share_the_bits_of_arrays(dtype):
    arrays = [array.astype(dtype) for array in bumps()]
    expected = sinkhorn_barycenter(*arrays, **EASY)
    for epsilon in (0.5, torch.tensor(0.5, dtype=torch.float64)):
        found = sinkhorn_barycenter(*map(torch.from_numpy, arrays), **{**EASY, "epsilon": epsilon})
        assert found.barycenter.dtype == torch.from_numpy(arrays[2]).dtype
        np.testing.assert_array_equal(found.barycenter, expected.barycenter)
        assert repr(found) == repr(expected)
    assert torch.is_tensor(sinkhorn_barycenter(None, *tensors(*arrays[1:]), **EASY).barycenter)


def test_barycenters_have_no_gradients_and_say_so():
    shares, rows, cost = tensors(*bumps())
    wanted = rows.clone().requires_grad_()
    message = r"no gradients, but 'marginals' requires one: pass marginals\.detach\(\)"
    with pytest.raises(RuntimeError, match=message):
        sinkhorn_barycenter(shares, wanted, cost, **EASY)
    with pytest.raises(RuntimeError, match="'epsilon' requires one"):
        sinkhorn_barycenter(None, rows, cost, epsilon=torch.tensor(0.5, requires_grad=True))
    with torch.no_grad():
        assert sinkhorn_barycenter(shares, wanted, cost, **EASY).converged
    with pytest.raises(TypeError, match="'marginals' a ndarray, 'cost' a torch tensor on cpu"):
        sinkhorn_barycenter(None, rows.numpy(), cost, **EASY)
    with pytest.raises(TypeError, match="'cost' must be float32 or float64"):
        sinkhorn_barycenter(None, rows, cost.half(), **EASY)
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.vmap(lambda r: sinkhorn_barycenter(None, r, cost, **EASY))(rows[None])


def test_barycenters_run_on_the_cpu_alone():
    cost = torch.empty(3, 3, device="meta")
    with pytest.raises(TypeError, match=r"runs on the CPU alone; got .* on meta\. Pass \.cpu\(\)"):
        sinkhorn_barycenter(None, cost, cost, **EASY)


def test_forbidden_pairs_stay_forbidden_in_a_barycenter():
    _, rows, cost = bumps()
    cost = np.where(cost > 4, math.inf, cost)
    expected = sinkhorn_barycenter(None, rows, cost, **EASY)
    found = sinkhorn_barycenter(None, *tensors(rows, cost), **EASY)
    np.testing.assert_array_equal(found.barycenter, expected.barycenter)
    assert barycenter.SinkhornBarycenter is type(found)


def test_one_matrix_serves_all_the_weights_of_a_batch_and_gathers_their_gradients():
    a, _, cost, _ = leaves()
    results = sinkhorn_batch(a, None, cost[0], epsilon=0.2)
    (found,) = grad(total(results), cost)
    one_by_one = [sinkhorn(weights, None, cost[0], epsilon=0.2) for weights in a]
    np.testing.assert_allclose(found, grad(total(one_by_one), cost)[0], atol=1e-12)


def test_epsilons_of_a_batch_may_be_a_list_of_tensors():
    *_, cost, epsilon = leaves()
    each = list(epsilon)
    found = grad(total(sinkhorn_batch(None, None, cost, epsilon=each)), epsilon)[0]
    expected = grad(total(sinkhorn_batch(None, None, cost, epsilon=epsilon)), epsilon)[0]
    assert torch.equal(found, expected)
    with pytest.raises(ShapeError, match="'epsilon' must hold 4 numbers; got 3"):
        sinkhorn_batch(None, None, cost, epsilon=each[:3])


def test_what_a_plan_of_tensors_is_multiplied_by_is_finite_and_may_be_empty():
    a, b, cost = (t[0] for t in tensors(*problems()))
    result = sinkhorn(a, b, cost, epsilon=0.2)
    with pytest.raises(NotFiniteError, match="'v' must be finite; got 5"):
        result.apply(torch.full((5,), math.nan))
    with pytest.raises(NotFiniteError, match="'u' must be finite"):
        result.apply_transpose(torch.full((6, 1), math.inf))
    with pytest.raises(NotFiniteError, match="'y' must be finite"):
        result.barycentric_map(torch.full((5, 2), math.nan))
    assert result.apply(torch.zeros(5, 0)).shape == (6, 0)
    assert result.apply_transpose(torch.zeros(6, 0)).shape == (5, 0)


def test_plans_of_tensors_with_penalties_are_not_rounded():
    a, b, cost = (t[0] for t in tensors(*problems()))
    result = sinkhorn(a, b, cost, epsilon=0.2, unbalanced=1.0)
    with pytest.raises(DomainError, match="'rounded_plan' is of plans that meet the weights"):
        result.rounded_plan()


def test_relative_epsilon_of_tensors_finds_what_is_not_finite():
    with pytest.raises(NotFiniteError, match="'cost' must not be NaN or minus infinity; got 1"):
        relative_epsilon(torch.tensor([[math.nan, 1.0]]))
