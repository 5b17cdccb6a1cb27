"""The special functions on every engine and dtype, beside one another."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tables import BOUNDS, scaled_error

from pyprobe import special
from pyprobe.special._kernels import FUNCTIONS, MASKS

torch = pytest.importorskip("torch")
from pyprobe.special import _torch

BOUND = {(bound.function, bound.derivative): bound for bound in BOUNDS}
EDGES = [np.nan, -np.inf, -1.0, -0.0, 0.0, 0.25, 0.5, 1.0, 1.5, 22.0, 1e6, np.inf]
by_name = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)


def native(function, order, v, x):
    return np.asarray(getattr(special, function.name)(v, x, derivative=order))


def twin(function, order, v, x):
    tensors = (torch.as_tensor(a) for a in (v, x))
    return _torch.bessel(function, [order], *tensors)[0].numpy()


def orders(function):
    return [order for order in MASKS if order[0] <= function.max_order]


def log_uniform(low, high):
    return st.floats(np.log10(low), np.log10(high)).map(lambda e: 10.0**e)


@by_name
@given(v=log_uniform(1e-3, 1e6), x=log_uniform(1e-6, 1e7))
def test_native_and_twin_agree(function, v, x):
    v, x = np.array([v]), np.array([x])
    for order in orders(function):
        bound = BOUND.get((function.name, order))
        if bound is None:  # the scaled and complementary forms share these with the plain ones
            continue
        got, expected = (engine(function, order, v, x) for engine in (twin, native))
        error = scaled_error(got, expected, v, x, bound.scale)
        assert error <= 5 * bound.bound, (order, got, expected)


@by_name
def test_native_and_twin_have_the_same_limits(function):
    v, x = np.array(list(itertools.product(EDGES, EDGES))).T
    # The interior is compared elsewhere.
    positive = function.name in ("log_hyp0f1", "log_matern")
    inside = np.isfinite(v) & np.isfinite(x) & (x > 0) & ((v > 0) if positive else (v >= 0))
    if function.name.startswith("log_k"):
        inside = np.isfinite(v) & np.isfinite(x) & (x > 0)
    v, x = v[~inside], x[~inside]
    for order in orders(function):
        got, expected = (engine(function, order, v, x) for engine in (twin, native))
        np.testing.assert_allclose(got, expected, rtol=1e-14, err_msg=str(order))


@by_name
def test_float32_is_the_rounded_float64(function):
    rng = np.random.default_rng(0)
    v, x = (10 ** rng.uniform(-2, 4, 300).astype(np.float32) for _ in range(2))
    for order in orders(function):
        got = native(function, order, v, x)
        assert got.dtype == np.float32
        wide = native(function, order, v.astype(np.float64), x.astype(np.float64))
        np.testing.assert_array_equal(got, wide.astype(np.float32))


@by_name
def test_tensors_and_arrays_share_their_bits(function):
    rng = np.random.default_rng(1)
    v, x = 10 ** rng.uniform(-3, 5, (40, 1)), 10 ** rng.uniform(-5, 6, 50)
    for order in orders(function):
        tensors = (torch.from_numpy(a) for a in (v, x))
        got = getattr(special, function.name)(*tensors, derivative=order)
        np.testing.assert_array_equal(got.numpy(), native(function, order, v, x))


@given(v=log_uniform(1e-3, 1e6), x=log_uniform(1e-6, 1e7))
def test_the_inverse_is_the_same_on_both_engines(v, x):
    v = np.array([v])
    r, c = special.bessel_ratio(v, x), special.bessel_ratio_complement(v, x)
    got = _torch.bessel_ratio_inverse(*(torch.from_numpy(a) for a in (v, r, c))).numpy()
    expected = special.bessel_ratio_inverse(v, r, complement=c)
    np.testing.assert_allclose(got, expected, rtol=1e-13)
