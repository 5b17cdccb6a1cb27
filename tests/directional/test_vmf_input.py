"""What does not fit is refused by name, and odd layouts are read as what they hold."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse

from pyprobe.directional import SphericalUniform, VonMisesFisher
from pyprobe.errors import DomainError, NotFiniteError, ShapeError

INF, NAN = np.inf, np.nan
VMF = VonMisesFisher([0.6, 0.8], 2.0)

PARAMETERS = [
    (
        ([1.0], 1.0),
        ShapeError,
        r"'loc' must have shape \(\.\.\., d\) with d at least 2; got \(1,\)",
    ),
    ((1.0, 1.0), ShapeError, r"'loc' must have shape .* got \(\)"),
    (([0.6, 0.9], 1.0), DomainError, r"'loc' must hold unit vectors: its norm is 1\.08166"),
    (([0.0, 0.0], 1.0), DomainError, r"its norm is 0\. Divide by the norm\."),
    (([0.6, 0.8 + 2e-6], 1.0), DomainError, "'loc' must hold unit vectors"),
    (([[0.6, 0.8], [1.0, 1.0]], 1.0), DomainError, "'loc' .* row 1 has norm 1.414214"),
    (([0.6, NAN], 1.0), NotFiniteError, "'loc' must be finite"),
    (([0.6, INF], 1.0), NotFiniteError, "'loc' must be finite"),
    (([0.6, 0.8], -1.0), DomainError, "'concentration' must be nonnegative; got -1"),
    (([0.6, 0.8], [1.0, -0.5]), DomainError, "'concentration' must be nonnegative; got -0.5"),
    (([0.6, 0.8], NAN), NotFiniteError, "'concentration' must be finite; got nan"),
    (([0.6, 0.8], INF), NotFiniteError, "'concentration' must be finite; got inf"),
    (([0.6, 0.8], -INF), NotFiniteError, "'concentration' must be finite; got -inf"),
    ((np.eye(2), [1.0, 2.0, 3.0]), ShapeError, r"'concentration' has batch shape \(3,\)"),
    ((np.array([0.6, 0.8j]), 1.0), TypeError, "'loc' must hold real numbers"),
    ((np.ma.array([0.6, 0.8]), 1.0), TypeError, "'loc' is a masked array"),
    (([0.6, 0.8], "much"), TypeError, "'concentration' must hold real numbers"),
]

ROWS = [
    ([0.6, 0.8], ShapeError, r"'x' must be a matrix of shape \(n, d\)"),
    (np.empty((0, 3)), ShapeError, r"'x' must have at least one row; got shape \(0, 3\)"),
    ([[1.0]], ShapeError, "with d at least 2"),
    ([[0.6, 0.8], [0.6, 0.9]], DomainError, r"'x' must hold unit vectors: row 1 has norm 1\.08166"),
    ([[0.0, 0.0]], DomainError, "row 0 has norm 0"),
    (
        [[0.6, 0.8], [NAN, 0.8]],
        NotFiniteError,
        "'x' must be finite; .* NaN: 1, the first at row 1, column 0",
    ),
    ([[INF, 0.8]], NotFiniteError, "'x' must be finite"),
    (np.array([[1j, 0.0]]), TypeError, "'x' must hold real numbers"),
    (np.ma.array([[0.6, 0.8]]), TypeError, "'x' is a masked array"),
    (scipy.sparse.csr_array(np.eye(2)), TypeError, r"a sparse csr_array, .* Pass \.toarray\(\)"),
    (np.array([[0.6, None]]), TypeError, r"got dtype object\. Convert with numpy\.asarray"),
    ([["a", "b"]], TypeError, "'x' must hold real numbers"),
]

WEIGHTS = [
    ([1.0], ShapeError, r"'weights' must have shape \(2,\)"),
    ([1.0, -1.0], DomainError, "'weights' must be nonnegative; got -1"),
    ([0.0, 0.0], DomainError, "'weights' must not be all zero"),
    ([1.0, NAN], NotFiniteError, "'weights' must be finite"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), PARAMETERS)
def test_bad_parameters_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        VonMisesFisher(*arguments)


@pytest.mark.parametrize(("x", "error", "message"), ROWS)
def test_bad_samples_are_named(x, error, message):
    with pytest.raises(error, match=message):
        VonMisesFisher.fit(x)


@pytest.mark.parametrize(("weights", "error", "message"), WEIGHTS)
def test_bad_weights_are_named(weights, error, message):
    with pytest.raises(error, match=message):
        VonMisesFisher.fit(np.eye(2), weights=weights)


def test_bad_points_are_named():
    with pytest.raises(ShapeError, match=r"'x' must have shape \(\.\.\., 2\); got \(3,\)"):
        VMF.log_prob([1.0, 0.0, 0.0])
    with pytest.raises(DomainError, match="'x' must hold unit vectors: row 1 has norm 2"):
        VMF.log_prob([[0.6, 0.8], [2.0, 0.0]])
    with pytest.raises(NotFiniteError, match="'x' must be finite"):
        VMF.log_prob([NAN, 0.8])
    batch = VonMisesFisher(np.eye(2), [1.0, 2.0])
    with pytest.raises(ShapeError, match=r"'x' has batch shape \(3,\), which does not broadcast"):
        batch.log_prob(np.eye(3, 2) + np.eye(3, 2, k=-2)[::-1] * 0 + [[0, 0], [0, 0], [1, 0]])


def test_bad_options_are_named():
    with pytest.raises(TypeError, match=r"'shape' must be a tuple of ints; got int. Write \(5,\)"):
        VMF.sample(5)
    with pytest.raises(DomainError, match="'shape' must be at least 0; got -1"):
        VMF.sample((-1,))
    with pytest.raises(TypeError, match="'rng' must be None, an int"):
        VMF.sample((1,), rng="seed")
    with pytest.raises(TypeError, match=r"'rng' must be .* got bool"):
        VMF.sample((1,), rng=True)
    with pytest.raises(ShapeError, match="'other' must have dimension 2; got 3"):
        VMF.kl_divergence(SphericalUniform(3))
    with pytest.raises(TypeError, match=r"'other' must be a VonMisesFisher .* got int"):
        VMF.kl_divergence(3)
    with pytest.raises(TypeError, match="'bias_correction' must be True or False; got 'no'"):
        VonMisesFisher.fit(np.eye(2), bias_correction="no")


@pytest.mark.parametrize("shape", [(10**12,), (10**19,), (2**40, 2**40)])
def test_more_draws_than_memory_holds_are_refused(shape):
    for distribution in (VMF, SphericalUniform(3)):
        with pytest.raises(MemoryError, match="there is no memory for"):
            distribution.sample(shape)


def test_copies_are_as_immutable():
    batch = VonMisesFisher(np.eye(2), [1.0, 2.0])
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        np.testing.assert_array_equal(twin.loc, batch.loc)
        for array in (twin.loc, twin.concentration):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 5.0


def test_empty_points_have_empty_densities():
    assert VMF.log_prob(np.empty((0, 2))).shape == (0,)
    assert VMF.log_prob(np.empty((3, 0, 2))).shape == (3, 0)


def test_odd_layouts_hold_the_same_numbers():
    x = VMF.sample((40,), rng=0)
    expected, fitted = VMF.log_prob(x), VonMisesFisher.fit(x)
    unaligned = np.zeros(40, dtype=[("pad", "i1"), ("x", "f8", 2)])
    unaligned["x"] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    spread = np.zeros((80, 6))
    spread[::2, ::3] = x
    layouts = {
        "unaligned": unaligned["x"],
        "big-endian": x.astype(">f8"),
        "read-only": read_only,
        "strided": spread[::2, ::3],
        "column order": np.asfortranarray(x),
        "backwards": x[::-1].copy()[::-1],
        "lists": x.tolist(),
    }
    for name, layout in layouts.items():
        np.testing.assert_array_equal(VMF.log_prob(layout), expected, err_msg=name)
        assert VonMisesFisher.fit(layout).concentration == fitted.concentration, name


def test_integers_and_half_precision_become_float64():
    assert VonMisesFisher([1, 0], 2).log_prob([0, 1]).dtype == np.float64
    assert VonMisesFisher(np.array([1, 0], dtype=np.float16), 2.0).loc.dtype == np.float64
