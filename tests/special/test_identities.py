"""Identities, limits and argument handling of the log-Bessel functions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import pyprobe
from pyprobe import special

EPS = np.finfo(float).eps
INF, NAN = math.inf, math.nan
SEAMS = (22, 25, 28, 32, 36, 40, 50, 60, 80, 100, 150, 300, 500, 2e3, 1e4, 1e5)
TWO_ARGUMENTS = (
    special.log_iv,
    special.log_ive,
    special.log_kv,
    special.log_kve,
    special.bessel_ratio,
    special.bessel_ratio_complement,
    special.log_hyp0f1,
    special.log_matern,
)
every_function = pytest.mark.parametrize("function", TWO_ARGUMENTS, ids=lambda f: f.__name__)


def powers_of_ten(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda power: 10.0**power)


orders = st.one_of(st.just(0.0), st.integers(0, 40).map(lambda n: n / 2), powers_of_ten(-3, 6))
arguments = powers_of_ten(-6, 7)


def log_grid() -> tuple[np.ndarray, np.ndarray]:
    """Orders and arguments over the whole range, and densely where the small region ends."""
    v = np.concatenate([[0.0], np.geomspace(1e-3, 1e6, 60)])
    x = np.geomspace(1e-6, 1e7, 80)
    v, x = (a.ravel() for a in np.meshgrid(v, x))
    s, angle = (a.ravel() for a in np.meshgrid(np.linspace(20, 25, 51), np.linspace(0, 1.57, 60)))
    return np.concatenate([v, s * np.sin(angle)]), np.concatenate([x, s * np.cos(angle)])


# Identities


def wronskian_defect(v: Any, x: Any) -> Any:
    """Return ``log(x (I_v K_{v+1} + I_{v+1} K_v))`` in units of its rounding error."""
    log_i, log_k = special.log_iv(v, x), special.log_kv(v, x)
    above = v / x - special.log_kv(v, x, derivative=(0, 1))  # K_{v+1} / K_v
    defect = log_i + log_k + np.log(special.bessel_ratio(v, x) + above) + np.log(x)
    terms = [np.ones_like(x), np.hypot(v, x), np.abs(log_i), np.abs(log_k), np.abs(np.log(x))]
    return np.abs(defect) / (EPS * np.max(terms, axis=0))


def test_wronskian_of_i_and_k_is_one_over_x_on_the_whole_grid() -> None:
    v, x = log_grid()
    defect = wronskian_defect(v, x)
    worst = defect.argmax()
    assert defect[worst] <= 4, (v[worst], x[worst])


@given(orders, arguments)
def test_wronskian_of_i_and_k_is_one_over_x(v: float, x: float) -> None:
    assert wronskian_defect(v, x) <= 4


def test_half_integer_orders_have_their_closed_forms() -> None:
    x = np.geomspace(1e-6, 1e3, 400)
    log_sinh = x + np.log1p(-np.exp(-2 * x)) - math.log(2)
    log_sinh = np.where(x < 1, np.log(np.sinh(np.minimum(x, 1))), log_sinh)
    scale = {"rtol": 0, "atol": 1e-14}
    k_half = 0.5 * np.log(np.pi / (2 * x)) - x
    for got, expected in (
        (special.log_iv(0.5, x), 0.5 * np.log(2 / (np.pi * x)) + log_sinh),
        (special.log_kv(0.5, x), k_half),
        (special.log_kv(-0.5, x), k_half),
        (special.log_kv(1.5, x), k_half + np.log1p(1 / x)),
        (special.log_matern(0.5, x), -x),
        (special.log_matern(1.5, x), np.log1p(x) - x),
        (special.log_matern(2.5, x), np.log1p(x + x * x / 3) - x),
        (special.log_hyp0f1(1.5, x * x / 4), log_sinh - np.log(x)),
    ):
        size = np.maximum(1, np.maximum(np.abs(expected), x))
        assert_allclose(got / size, expected / size, **scale)


def test_log_hyp0f1_of_one_half_is_log_cosh() -> None:
    kappa = np.geomspace(1e-6, 1e3, 200)
    log_cosh = np.where(
        kappa < 0.5,
        np.log1p(2 * np.sinh(np.minimum(kappa, 1) / 2) ** 2),
        kappa + np.log1p(np.exp(-2 * kappa)) - math.log(2),
    )
    assert_allclose(special.log_hyp0f1(0.5, kappa**2 / 4), log_cosh, rtol=4e-15)


def test_ratio_of_order_one_half_is_the_langevin_function() -> None:
    x = np.geomspace(2, 1e7, 200)
    assert_allclose(special.bessel_ratio(0.5, x), 1 / np.tanh(x) - 1 / x, rtol=2e-15)


@given(orders, arguments)
def test_ratios_of_neighboring_orders_obey_the_recurrence(v: float, x: float) -> None:
    below, above = special.bessel_ratio(v, x), special.bessel_ratio(v + 1, x)
    assert 1 / below == pytest.approx(above + 2 * ((v + 1) / x), rel=5e-15)


@given(orders, arguments)
def test_ratio_and_complement_sum_to_one(v: float, x: float) -> None:
    total = special.bessel_ratio(v, x) + special.bessel_ratio_complement(v, x)
    assert total == pytest.approx(1, abs=2 * EPS)


@given(orders, arguments)
def test_log_iv_is_the_reduced_function_times_its_power(v: float, x: float) -> None:
    power = v * math.log(x / 2) - math.lgamma(v + 1)
    got = special.log_hyp0f1(v + 1, (x / 2) ** 2) + power
    size = max(1, abs(power), math.hypot(v, x))
    assert got / size == pytest.approx(special.log_iv(v, x) / size, abs=2e-15)


@given(orders, arguments)
def test_log_kv_is_even_in_the_order(v: float, x: float) -> None:
    for derivative, sign in (((0, 0), 1), ((1, 0), -1), ((0, 1), 1), ((2, 0), 1), ((1, 1), -1)):
        for function in (special.log_kv, special.log_kve):
            left = function(-v, x, derivative=derivative)
            assert left == sign * function(v, x, derivative=derivative)


# Shape


@pytest.mark.parametrize(
    ("function", "in_order", "in_argument"),
    [
        (special.log_iv, -1, 1),
        (special.log_kv, 1, -1),
        (special.bessel_ratio, -1, 1),
        (special.bessel_ratio_complement, 1, -1),
        (special.log_hyp0f1, -1, 1),
        (special.log_matern, 1, -1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@given(v=powers_of_ten(-3, 6), x=arguments, factor=powers_of_ten(-9, 1))
def test_functions_are_monotone_in_order_and_argument(
    function: Any, in_order: int, in_argument: int, v: float, x: float, factor: float
) -> None:
    here = function(v, x)
    slack = 8 * EPS * max(abs(here), math.hypot(v, x) if "log" in function.__name__ else 0)
    assert in_argument * (function(v, x * (1 + factor)) - here) >= -slack
    assert in_order * (function(v * (1 + factor), x) - here) >= -slack


def jump(function: Any, v: np.ndarray, x: np.ndarray, direction: tuple[Any, Any]) -> np.ndarray:
    """Return the mean step of ``function`` across the points ``(v, x)``, its slope taken off.

    The means over many neighbors on both sides average out the rounding of single values.
    """
    offsets = np.linspace(1e-13, 1e-11, 100)
    centre, sides = function(v, x)[:, None], []
    for sign in (-1, 1):
        dv = sign * np.multiply.outer(direction[0], offsets)
        dx = sign * np.multiply.outer(direction[1], offsets)
        near_v, near_x = v[:, None] + dv, x[:, None] + dx
        slope = function(v, x, derivative=(0, 1))[:, None] * (near_x - x[:, None])
        if np.any(dv):
            slope = slope + function(v, x, derivative=(1, 0))[:, None] * (near_v - v[:, None])
        sides.append((function(near_v, near_x) - centre - slope).mean(axis=1))
    return np.abs(sides[1] - sides[0])


@every_function
@pytest.mark.parametrize("s", SEAMS)
def test_no_jump_where_the_number_of_terms_changes(function: Any, s: float) -> None:
    angle = np.linspace(0.01, 1.56, 40)
    v, x = s * np.sin(angle), s * np.cos(angle)
    direction = (v, x)
    if function is special.log_hyp0f1:
        v, x, direction = v + 1, (x / 2) ** 2, (v, x * x / 2)
    size = np.abs(function(v, x))
    if function.__name__ not in ("bessel_ratio", "bessel_ratio_complement"):
        size = np.maximum(size, s)
    assert np.all(jump(function, v, x, direction) <= 4e-16 * size)


@pytest.mark.parametrize("x", [1.5, 4.0, 10.0])
@pytest.mark.parametrize("function", [special.log_kv, special.log_matern])
def test_no_jump_where_the_sum_for_k_changes(function: Any, x: float) -> None:
    v = np.linspace(0.05, 18, 60)
    x = np.full_like(v, x)
    size = np.maximum(np.abs(function(v, x)), np.hypot(v, x))
    assert np.all(jump(function, v, x, (0 * v, x)) <= 4e-16 * size)


@pytest.mark.parametrize("function", [special.log_kv, special.log_iv, special.log_matern])
def test_no_jump_where_the_nearest_integer_order_changes(function: Any) -> None:
    v, x = (a.ravel() for a in np.meshgrid(np.arange(20) + 0.5, [0.01, 0.5, 3.0, 8.0]))
    size = np.maximum(np.abs(function(v, x)), np.hypot(v, x))
    assert np.all(jump(function, v, x, (v, 0 * x)) <= 4e-16 * size)


# Edges of the domain


@pytest.mark.parametrize(
    ("name", "v", "x", "expected"),
    [
        ("log_iv", 0, 0, 0),
        ("log_iv", 2.5, 0, -INF),
        ("log_iv", 2.5, INF, INF),
        ("log_iv", 2.5, -1, NAN),
        ("log_iv", -1, 2, NAN),
        ("log_iv", NAN, 2, NAN),
        ("log_iv", 2, NAN, NAN),
        ("log_ive", 0, 0, 0),
        ("log_ive", 1, 0, -INF),
        ("log_ive", 1, INF, -INF),
        ("log_kv", 0, 0, INF),
        ("log_kv", 2.5, 0, INF),
        ("log_kv", -2.5, 0, INF),
        ("log_kv", 2.5, INF, -INF),
        ("log_kv", 2.5, -1, NAN),
        ("log_kve", 1, 0, INF),
        ("log_kve", 1, INF, -INF),
        ("bessel_ratio", 1, 0, 0),
        ("bessel_ratio", 1, INF, 1),
        ("bessel_ratio", -1, 1, NAN),
        ("bessel_ratio", 1, -1, NAN),
        ("bessel_ratio_complement", 1, 0, 1),
        ("bessel_ratio_complement", 1, INF, 0),
        ("bessel_ratio_complement", 1, NAN, NAN),
        ("log_hyp0f1", 2, 0, 0),
        ("log_hyp0f1", 2, INF, INF),
        ("log_hyp0f1", 0, 1, NAN),
        ("log_hyp0f1", -1, 1, NAN),
        ("log_hyp0f1", 1, -1, NAN),
        ("log_matern", 0.3, 0, 0),
        ("log_matern", 2.5, 0, 0),
        ("log_matern", 2.5, INF, -INF),
        ("log_matern", 0, 1, NAN),
        ("log_matern", -1, 1, NAN),
        ("log_matern", 1, -1, NAN),
    ],
)
def test_edges_of_the_domain_have_their_limits(
    name: str, v: float, x: float, expected: float
) -> None:
    assert_array_equal(getattr(special, name)(v, x), expected)


@pytest.mark.parametrize(
    ("name", "v", "x", "derivative", "expected"),
    [
        ("log_iv", 0, 0, (0, 1), 0),
        ("log_iv", 0, 0, (0, 2), 0.5),
        ("log_iv", 0, 0, (2, 0), -(math.pi**2) / 6),
        ("log_iv", 2.5, 0, (0, 1), INF),
        ("log_iv", 2.5, INF, (0, 1), 1),
        ("log_iv", 2.5, INF, (1, 0), 0),
        ("log_kv", 2.5, 0, (0, 1), -INF),
        ("log_kv", 0, 1, (1, 0), 0),
        ("log_kv", 0, 1e3, (1, 1), 0),
        ("log_kv", 2.5, INF, (0, 1), -1),
        ("bessel_ratio", 3, 0, (0, 1), 1 / 8),
        ("bessel_ratio", 3, 0, (1, 1), -1 / 32),
        ("bessel_ratio", 3, 0, (0, 2), 0),
        ("bessel_ratio", 3, INF, (0, 1), 0),
        ("bessel_ratio_complement", 3, 0, (0, 1), -1 / 8),
        ("log_hyp0f1", 4, 0, (0, 1), 1 / 4),
        ("log_hyp0f1", 4, 0, (1, 0), 0),
        ("log_hyp0f1", 4, 0, (1, 1), -1 / 16),
        ("log_hyp0f1", 4, 0, (0, 2), -1 / 80),
        ("log_matern", 0.3, 0, (0, 1), -INF),
        ("log_matern", 0.5, 0, (0, 1), -1),
        ("log_matern", 1.5, 0, (0, 1), 0),
        ("log_matern", 0.3, 0, (1, 0), 0),
        ("log_matern", 2.5, 0, (1, 0), 0),
        ("log_matern", 2.5, 0, (0, 2), -1 / 3),
        ("log_matern", 0.5, 0, (0, 2), 0),
    ],
)
def test_derivatives_have_their_limits_at_the_edges(
    name: str, v: float, x: float, derivative: tuple[int, int], expected: float
) -> None:
    assert_allclose(getattr(special, name)(v, x, derivative=derivative), expected, rtol=1e-15)


def test_the_complement_counts_where_the_ratio_is_above_one_half() -> None:
    r = np.array([0.0, 1e-300, 0.25, 0.5])
    expected = special.bessel_ratio_inverse(1.5, r)
    for complement in (0.0, 0.3, -1.0, 2.0, NAN):
        found = special.bessel_ratio_inverse(1.5, r, complement=complement)
        np.testing.assert_array_equal(found, expected)
    assert special.bessel_ratio_inverse(1.5, 0.6, complement=0.0) == INF
    assert math.isnan(special.bessel_ratio_inverse(1.5, 0.6, complement=NAN))


def test_bessel_ratio_inverse_has_its_limits() -> None:
    assert special.bessel_ratio_inverse(3, 0) == 0
    assert special.bessel_ratio_inverse(3, 1) == INF
    assert special.bessel_ratio_inverse(3, 1.0, complement=0.0) == INF
    for v, r in ((3, -0.1), (3, 1.1), (-1, 0.5), (NAN, 0.5), (3, NAN)):
        assert math.isnan(special.bessel_ratio_inverse(v, r))


@every_function
def test_values_are_finite_over_the_whole_range(function: Any) -> None:
    v, x = log_grid()
    if function in (special.log_hyp0f1, special.log_matern):
        v = np.maximum(v, 1e-3)
    assert np.isfinite(function(v, x)).all()


@every_function
def test_extreme_arguments_give_no_nan(function: Any) -> None:
    v, x = (a.ravel() for a in np.meshgrid(*[[1e-300, 1e-20, 1.0, 1e20, 1e150, 1e300]] * 2))
    assert not np.isnan(function(v, x)).any()


# Arrays


@every_function
def test_arguments_broadcast(function: Any) -> None:
    v = np.array([0.5, 3.0, 40.0])[:, None, None]
    x = np.geomspace(0.1, 100, 4)
    got = function(v, x)
    assert got.shape == (3, 1, 4)
    for i, j in np.ndindex(3, 4):
        assert got[i, 0, j] == function(v[i, 0, 0], x[j])


@every_function
@pytest.mark.parametrize("derivative", [(0, 0), (0, 1), (1, 1)])
def test_bits_depend_neither_on_neighbors_nor_on_threads(
    function: Any, derivative: tuple[int, int]
) -> None:
    v, x = (np.concatenate([a, a[::-1]]) for a in log_grid())
    expected = function(v, x, derivative=derivative)
    assert_array_equal(function(v[7:], x[7:], derivative=derivative), expected[7:])
    for i in range(0, v.size, 37):
        assert_array_equal(function(v[i], x[i], derivative=derivative), expected[i])
    before = pyprobe.get_num_threads()
    try:
        for n in (1, 2, 4):
            pyprobe.set_num_threads(n)
            assert_array_equal(function(v, x, derivative=derivative), expected)
    finally:
        pyprobe.set_num_threads(before)


@every_function
def test_shapes_that_do_not_broadcast_are_refused(function: Any) -> None:
    with pytest.raises(ValueError, match=r"'x'.*[(\[]3"):
        function(np.ones(2), np.ones(3))


@every_function
def test_numbers_and_empty_arrays_keep_their_shape(function: Any) -> None:
    assert isinstance(function(1.5, 2.0), float)
    assert isinstance(function(np.array(1.5), 2), float)
    assert function([], 1.0).shape == (0,)
    assert function(np.ones((3, 0)), np.ones((1, 1))).shape == (3, 0)


@every_function
def test_float32_is_the_rounded_float64_result(function: Any) -> None:
    v, x = (a.astype(np.float32) for a in log_grid())
    v = np.maximum(v, np.float32(1e-3))
    got = function(v, x)
    assert got.dtype == np.float32
    assert_array_equal(got, function(v.astype(float), x.astype(float)).astype(np.float32))
    assert function(v, 2.0).dtype == np.float32
    assert function(v, x.astype(float)).dtype == np.float64


@every_function
def test_any_memory_layout_gives_the_same_values(function: Any) -> None:
    v, x = np.geomspace(0.01, 1e3, 60), np.geomspace(1e-3, 1e4, 60)[::-1].copy()
    expected = function(v, x)
    unaligned = np.zeros(60, dtype=np.dtype([("pad", "i1"), ("x", "f8")]))
    unaligned["x"] = x
    assert not unaligned["x"].flags.aligned
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = np.zeros((60, 3))
    wide[:, 1] = x
    for same in (unaligned["x"], x.astype(">f8"), frozen, wide[:, 1], x[::-1].copy()[::-1]):
        assert_array_equal(function(v, same), expected)
        assert_array_equal(function(same, v), function(x, v))
    square_v, square_x = v.reshape(6, 10), x.reshape(6, 10)
    for order in "CF":
        got = function(np.array(square_v, order=order), np.array(square_x, order="C"))
        assert_array_equal(got, expected.reshape(6, 10))
    assert_array_equal(function(square_v.T, square_x.T), expected.reshape(6, 10).T)


@every_function
def test_integers_and_booleans_become_float64(function: Any) -> None:
    expected = function(2.0, 3.0)
    for kind in (np.int8, np.uint16, np.int64):
        got = function(np.array([2], kind), np.array([3], kind))
        assert got.dtype == np.float64
        assert got[0] == expected
    assert function(2, 3) == expected
    assert function(True, np.array([True])) == function(1.0, 1.0)


@every_function
@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        (np.ma.masked_array([1.0, 2.0], [True, False]), "filled"),
        (np.array([1 + 2j]), "real part"),
        (np.array(["1"]), "real numbers"),
    ],
    ids=["masked", "complex", "text"],
)
def test_arrays_without_a_meaning_are_refused(function: Any, value: Any, way_out: str) -> None:
    with pytest.raises(TypeError, match=way_out):
        function(1.0, value)
    with pytest.raises(TypeError, match=way_out):
        function(value, 1.0)


@every_function
@pytest.mark.parametrize("derivative", [(0, 3), (2, 1), (-1, 0), (1.5, 0), (1,), 1])
def test_derivatives_that_do_not_exist_are_refused(function: Any, derivative: Any) -> None:
    with pytest.raises(ValueError, match="derivative"):
        function(1.0, 2.0, derivative=derivative)


@pytest.mark.parametrize("function", [special.bessel_ratio, special.bessel_ratio_complement])
def test_ratio_offers_one_derivative_in_the_order(function: Any) -> None:
    with pytest.raises(ValueError, match="derivative"):
        function(1.0, 2.0, derivative=(2, 0))


@every_function
def test_numpy_and_torch_do_not_mix(function: Any) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="torch"):
        function(np.ones(3), torch.ones(3))
    with pytest.raises(TypeError, match="torch"):
        function(torch.ones(3), [1.0, 2.0, 3.0])


@every_function
def test_torch_tensors_give_tensors_of_their_dtype(function: Any) -> None:
    torch = pytest.importorskip("torch")
    v, x = torch.linspace(0.5, 30, 20, dtype=torch.float64), torch.logspace(-1, 3, 20).double()
    expected = function(v.numpy(), x.numpy())
    assert_array_equal(function(v, x).numpy(), expected)
    assert_array_equal(
        function(v.reshape(4, 5).T, x.reshape(4, 5).T).numpy(), expected.reshape(4, 5).T
    )
    assert function(v.float(), x.float()).dtype == torch.float32
    assert function(v.float(), 2.0).dtype == torch.float32
    assert function(2, x).dtype == torch.float64
