"""Every function and derivative against certified values, within the bounds of ``bounds.csv``."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference_tables import BOUNDS, Bound, read, scaled_error, worst_points

from pyprobe import special


def of_torch(array: Any) -> Any:
    return importlib.import_module("torch").from_numpy(array)


@pytest.fixture(params=["numpy", "torch"])
def library(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Turn a NumPy array into one of the library under test."""
    if request.param == "numpy":
        return np.asarray
    pytest.importorskip("torch")
    return of_torch


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.column)
def test_function_matches_its_certified_values(bound: Bound, library: Callable[[Any], Any]) -> None:
    v, x, columns = read(bound.table)
    expected = columns[bound.column]
    function = getattr(special, bound.function)
    got = np.asarray(function(library(v), library(x), derivative=bound.derivative))
    error = scaled_error(got, expected, v, x, bound.scale)
    assert error.max() <= bound.bound, worst_points(error, got, expected, v, x)


def test_bessel_ratio_inverse_recovers_the_argument(library: Callable[[Any], Any]) -> None:
    v, x, columns = read("bessel_ratio")
    ratio, complement = columns["bessel_ratio_00"], columns["bessel_ratio_complement_00"]
    got = np.asarray(
        special.bessel_ratio_inverse(library(v), library(ratio), complement=library(complement))
    )
    error = scaled_error(got, x, v, x, "relative")
    assert error.max() <= 1e-13, worst_points(error, got, x, v, x)


def test_bessel_ratio_inverse_needs_no_complement_where_the_ratio_is_not_near_one(
    library: Callable[[Any], Any],
) -> None:
    v, x, columns = read("bessel_ratio")
    middling = columns["bessel_ratio_00"] < 0.9
    v, x, ratio = (a[middling] for a in (v, x, columns["bessel_ratio_00"]))
    got = np.asarray(special.bessel_ratio_inverse(library(v), library(ratio)))
    error = scaled_error(got, x, v, x, "relative")
    assert error.max() <= 1e-13, worst_points(error, got, x, v, x)


def test_scaled_functions_share_the_other_derivatives(library: Callable[[Any], Any]) -> None:
    v, x, _ = read("log_iv")
    v, x = library(v), library(x)
    for derivative in ((1, 0), (2, 0), (1, 1), (0, 2)):
        for scaled, plain in (
            (special.log_ive, special.log_iv),
            (special.log_kve, special.log_kv),
        ):
            np.testing.assert_array_equal(
                scaled(v, x, derivative=derivative), plain(v, x, derivative=derivative)
            )


def test_complement_has_the_derivatives_of_the_ratio_with_the_other_sign(
    library: Callable[[Any], Any],
) -> None:
    v, x, _ = read("bessel_ratio")
    v, x = library(v), library(x)
    for derivative in ((1, 0), (0, 1), (1, 1), (0, 2)):
        np.testing.assert_array_equal(
            special.bessel_ratio_complement(v, x, derivative=derivative),
            -special.bessel_ratio(v, x, derivative=derivative),
        )
