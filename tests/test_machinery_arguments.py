"""Validation of arguments, choice of engine, random keys."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprobe import _engine, _rng, _validate, special
from pyprobe._engine import Engine
from pyprobe.errors import DomainError, NotFiniteError, PyprobeError, ShapeError

FUNCTIONS = [getattr(special, name) for name in special.__all__ if name != "bessel_ratio_inverse"]


@pytest.fixture(params=FUNCTIONS, ids=lambda function: function.__name__)
def function(request):
    return request.param


# Arrays of every make.


def test_float_arrays_pass_through_uncopied_whatever_their_strides():
    x = np.arange(12.0).reshape(3, 4)
    for view in (x, x.T, x[:, ::2], x[::-1], x[:0], x.astype(np.float32)):
        assert _validate.as_float_array("x", view) is view


def test_read_only_arrays_are_read():
    x = np.array([0.5, 2.0])
    x.flags.writeable = False
    assert _validate.as_float_array("x", x) is x
    assert special.log_iv(x, x).shape == (2,)


@pytest.mark.parametrize("dtype", [">f8", "<f8", np.float16, np.int8, np.uint64, bool])
def test_other_real_dtypes_become_native_float64(dtype):
    got = _validate.as_float_array("x", np.array([0, 1], dtype=dtype))
    assert got.dtype == np.float64
    assert got.dtype.isnative
    assert got.tolist() == [0.0, 1.0]


def test_big_endian_float32_stays_float32():
    got = _validate.as_float_array("x", np.array([1.5], dtype=">f4"))
    assert got.dtype == np.float32
    assert got.dtype.isnative
    assert got[0] == 1.5


def test_an_unaligned_field_is_copied_and_not_misread(function):
    packed = np.zeros(5, dtype=[("tag", "u1"), ("x", "f8")])
    packed["x"] = [0.5, 1.0, 2.0, 30.0, 400.0]
    field = packed["x"]
    assert not field.flags.aligned
    assert _validate.as_float_array("x", field).flags.aligned
    np.testing.assert_array_equal(function(field, field), function(field.copy(), field.copy()))
    one = field[:1]
    np.testing.assert_array_equal(function(one, one), function(one.copy(), one.copy()))


def test_strided_big_endian_and_empty_arrays_give_the_values_of_plain_ones(function):
    v = np.linspace(0.5, 40, 24).reshape(4, 6)
    x = np.geomspace(0.1, 1e3, 24).reshape(4, 6)
    plain = function(v, x)
    np.testing.assert_array_equal(function(v.T, x.T), plain.T)
    np.testing.assert_array_equal(function(v[::-2, 1::3], x[::-2, 1::3]), plain[::-2, 1::3])
    np.testing.assert_array_equal(function(v.astype(">f8"), x.astype(">f8")), plain)
    np.testing.assert_array_equal(function(v.tolist(), x.tolist()), plain)
    assert function(v[:0], x[:0]).shape == (0, 6)
    assert function(np.empty((0, 1)), x[0]).shape == (0, 6)


def test_masked_arrays_are_refused_with_a_way_out(function):
    masked = np.ma.masked_array([1.0, 2.0], mask=[True, False])
    with pytest.raises(TypeError, match=r"is a masked array.*numpy\.ma\.filled"):
        function(masked, 1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1j]), "must hold real numbers; got dtype complex128. Pass the real part"),
        (np.array(["a"]), "must hold real numbers; got dtype <U1"),
        (np.array([None]), "must hold real numbers; got dtype object"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "must hold real numbers; got dtype datetime64"),
    ],
)
def test_what_is_not_a_real_number_is_refused(value, message):
    with pytest.raises(TypeError) as caught:
        special.log_iv(value, 1.0)
    assert str(caught.value).startswith("'v' ")
    assert message in str(caught.value)


def test_the_message_names_the_argument_of_the_function():
    complex_number = np.array([1j])
    with pytest.raises(TypeError, match="'z' must hold real numbers"):
        special.log_hyp0f1(1.0, complex_number)
    with pytest.raises(TypeError, match="'nu' must hold real numbers"):
        special.log_matern(complex_number, 1.0)
    with pytest.raises(TypeError, match="'complement' must hold real numbers"):
        special.bessel_ratio_inverse(1.0, 0.5, complement=complex_number)


def test_ragged_lists_are_refused():
    with pytest.raises(ShapeError, match="'x' must be a regular array of numbers"):
        special.log_iv(1.0, [[1.0, 2.0], [3.0]])


def test_shapes_that_do_not_broadcast_are_refused(function):
    with pytest.raises(ShapeError, match=r"\[2\].*\[3\]|\[3\].*\[2\]"):
        function(np.ones(2), np.ones(3))


# Types out.


def test_results_have_the_type_that_a_ufunc_would_give(function):
    x64, x32 = np.array([1.0, 2.0]), np.array([1.0, 2.0], dtype=np.float32)
    assert type(function(1.0, 2.0)) is np.float64
    assert type(function(1, 2)) is np.float64
    assert type(function(np.float32(1), 2)) is np.float32
    assert type(function(np.array(1.0), np.array(2.0))) is np.float64
    assert function(1.0, x32).dtype == np.float32
    assert function(x32, x32).dtype == np.float32
    assert function(np.float64(1), x32).dtype == np.float64
    assert function(x64, x32).dtype == np.float64
    assert function(np.ones((1, 1)), np.ones(1)).shape == (1, 1)
    assert function(1.0, np.ones((1, 1))).shape == (1, 1)
    for result in (function(x64, 1.0), function(np.ones(1), np.ones(1))):
        assert result.flags.owndata or result.base is not None
        result[0] = 0.0  # the caller's own


def test_one_point_has_the_value_it_has_in_an_array(function):
    v, x = np.array([0.3, 2.5, 30.0]), np.array([0.2, 25.0, 1e4])
    orders = ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2))
    for order in orders:
        whole = function(v, x, derivative=order)
        for a, b, expected in zip(v, x, whole, strict=True):
            assert function(float(a), float(b), derivative=order) == expected


@pytest.mark.parametrize("derivative", [(0, 3), (2, 1), (-1, 0), (1,), "x", None, [0, 1]])
def test_a_derivative_that_is_not_offered_is_refused(function, derivative):
    with pytest.raises(DomainError, match=r"'derivative' must be a pair \(i, j\)"):
        function(1.0, 2.0, derivative=derivative)


def test_the_ratio_offers_one_derivative_in_the_order():
    with pytest.raises(DomainError, match=r"at most 1 of them in 'v'; got \(2, 0\)"):
        special.bessel_ratio(1.0, 2.0, derivative=(2, 0))


# Other checks.


def test_weights_are_checked():
    assert _validate.as_weights("w", [1, 2], 2).dtype == np.float64
    with pytest.raises(ShapeError, match=r"'w' must have shape \(3,\)"):
        _validate.as_weights("w", [1, 2], 3)
    with pytest.raises(DomainError, match=r"must be nonnegative; got -1.0 at index 1"):
        _validate.as_weights("w", [1, -1], 2)
    with pytest.raises(DomainError, match="must not be all zero"):
        _validate.as_weights("w", [0, 0], 2)
    with pytest.raises(NotFiniteError, match="got 1 infinite or NaN entry"):
        _validate.as_weights("w", [0, np.nan], 2)


def test_infinite_entries_are_counted_and_the_first_is_named():
    x = np.zeros((2, 3))
    x[1, 2] = x[1, 0] = np.inf
    with pytest.raises(NotFiniteError, match=r"'x'.*got 2 .*entries.*\(inf\) at index \(1, 0\)"):
        _validate.check_finite("x", x)


def test_a_matrix_must_have_two_dimensions():
    assert _validate.as_matrix("x", np.ones((3, 4)).T).flags.c_contiguous
    with pytest.raises(ShapeError, match=r"'x' must be a matrix .* got shape \(3,\)"):
        _validate.as_matrix("x", np.ones(3))


def test_numbers_and_choices_are_checked():
    assert _validate.check_positive_int("n", np.int64(3)) == 3
    with pytest.raises(TypeError, match="'n' must be an integer; got float"):
        _validate.check_positive_int("n", 3.0)
    with pytest.raises(DomainError, match="'n' must be at least 1; got 0"):
        _validate.check_positive_int("n", 0)
    with pytest.raises(DomainError, match=r"'e' must be finite and positive; got 0\.0"):
        _validate.check_positive_float("e", 0)
    with pytest.raises(DomainError, match="'e' must be finite and positive; got nan"):
        _validate.check_positive_float("e", float("nan"))
    assert _validate.check_positive_float("e", 0, allow_zero=True) == 0
    with pytest.raises(TypeError, match="'e' must be a number"):
        _validate.check_positive_float("e", "a")
    with pytest.raises(DomainError, match="'method' must be one of 'a', 'b'; got 'c'"):
        _validate.check_choice("method", "c", ("a", "b"))


def test_every_error_of_ours_is_also_the_builtin_one_would_catch():
    for error in (DomainError, ShapeError, NotFiniteError):
        assert issubclass(error, ValueError)
        assert issubclass(error, PyprobeError)


# Engines.


def test_numbers_lists_and_arrays_go_to_the_native_engine():
    for arguments in ((1, 2.0), ([1], np.ones(2)), (np.float32(1), None), (np.ma.ones(1), 1)):
        assert _engine.select(*arguments) is Engine.NATIVE


def test_tensors_choose_the_engine_of_their_device():
    torch = pytest.importorskip("torch")
    here, elsewhere = torch.ones(2), torch.ones(2, device="meta")
    assert _engine.select(here, 1.0, None) is Engine.NATIVE_TORCH
    assert _engine.select(2, torch.nn.Parameter(here)) is Engine.NATIVE_TORCH
    assert _engine.select(elsewhere, elsewhere, 1) is Engine.TORCH


def test_mixtures_of_libraries_or_devices_are_refused_by_name():
    torch = pytest.importorskip("torch")
    x = torch.ones(2)
    for first, second, message in (
        (x, np.ones(2), "torch tensor on cpu, ndarray"),
        ([1.0], x, "list, torch tensor on cpu"),
        (x, torch.ones(2, device="meta"), "torch tensor on cpu, torch tensor on meta"),
    ):
        with pytest.raises(TypeError, match=message):
            special.log_iv(first, second)


def test_without_torch_loaded_everything_is_native(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert _engine.select(object(), [1]) is Engine.NATIVE


# Keys.


@given(seed=st.integers(0, 2**200))
def test_a_seed_repeats_its_key_of_128_bits(seed):
    key = _rng.key(seed)
    assert key == _rng.key(seed)
    assert 0 <= key < 2**128


def test_seeds_give_keys_of_their_own():
    keys = [_rng.key(seed) for seed in range(1000)]
    assert len(set(keys)) == 1000
    assert max(keys) > 2**120
    assert _rng.key(np.int64(7)) == _rng.key(7)


def test_generators_advance_and_repeat_from_the_same_state():
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    keys = [_rng.key(first) for _ in range(2)]
    assert keys[0] != keys[1]
    assert keys == [_rng.key(second) for _ in range(2)]


def test_torch_generators_advance_and_repeat_from_the_same_state():
    torch = pytest.importorskip("torch")
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    keys = [_rng.key(first) for _ in range(2)]
    assert keys[0] != keys[1]
    assert keys == [_rng.key(second) for _ in range(2)]
    assert keys[0] > 2**64


def test_no_seed_is_fresh_entropy():
    assert _rng.key(None) != _rng.key(None)


def test_keys_leave_global_generators_alone():
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    _rng.key(None)
    _rng.key(5)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


@pytest.mark.parametrize("rng", ["a", 1.5, np.random.RandomState(0)])
def test_other_sources_of_randomness_are_refused(rng):
    with pytest.raises(TypeError, match="'rng' must be None, an int"):
        _rng.key(rng)


def test_a_negative_seed_is_refused():
    with pytest.raises(DomainError, match="nonnegative seed; got -1"):
        _rng.key(-1)
