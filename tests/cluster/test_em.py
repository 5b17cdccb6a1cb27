"""The EM loop, on a model whose every iterate is known in closed form."""

import numpy as np
import pytest

from pyprobe.cluster import Expectation, expectation_maximization
from pyprobe.errors import NumericalWarning


def halving(falls_at=None, moves_at=None):
    """EM on a number that each M-step halves; the log-likelihood is minus that number."""
    calls = {"expect": 0, "maximize": 0}

    def expect(p):
        calls["expect"] += 1
        value = -p - (10.0 if calls["expect"] == falls_at else 0.0)
        return Expectation(value, 1e-12, p)

    def maximize(p, statistics):
        assert p == statistics
        calls["maximize"] += 1
        return p / 2, int(calls["maximize"] == moves_at)

    return expect, maximize


def test_the_loop_stops_when_the_gain_reaches_the_tolerance():
    # The gains are 1/2, 1/4, 1/8, ...: the first one not above 0.1 is the fourth.
    p, info = expectation_maximization(*halving(), 1.0, max_iter=100, tol=0.1)
    assert p == 1 / 16
    assert info.converged
    assert not info.stopped
    assert info.n_iter == 4
    assert info.trace.tolist() == [-1, -1 / 2, -1 / 4, -1 / 8, -1 / 16]
    assert info.log_likelihood == -p  # of the parameters that are returned


def test_the_loop_stops_at_max_iter():
    p, info = expectation_maximization(*halving(), 1.0, max_iter=3, tol=0.0)
    assert p == 1 / 8
    assert not info.converged
    assert info.n_iter == 3


def test_a_callback_sees_every_iteration_and_stops_the_loop():
    seen = []

    def callback(progress):
        seen.append((progress.step, progress.total, progress.value))
        assert progress.elapsed >= 0
        return progress.step == 2

    p, info = expectation_maximization(*halving(), 1.0, max_iter=9, tol=0.0, callback=callback)
    assert seen == [(1, 9, -0.5), (2, 9, -0.25)]
    assert info.stopped
    assert not info.converged
    assert p == 0.25


def test_only_true_itself_stops_the_loop():
    _, info = expectation_maximization(
        *halving(), 1.0, max_iter=3, tol=0.0, callback=lambda progress: None
    )
    assert info.n_iter == 3


def test_a_fall_is_reported_where_the_m_step_maximizes():
    with pytest.warns(NumericalWarning, match=r"fell by 9\.\d+ in iteration 2"):
        expectation_maximization(*halving(falls_at=3), 1.0, max_iter=2, tol=-100.0)
    # Not asked for: no warning.
    expectation_maximization(*halving(falls_at=3), 1.0, max_iter=2, tol=-100.0, monotone=False)


def test_a_fall_is_no_convergence_where_the_m_step_need_not_maximize():
    # The third value falls by 10, then the gains are halved again.
    _, info = expectation_maximization(
        *halving(falls_at=3), 1.0, max_iter=100, tol=0.1, monotone=False
    )
    assert info.converged
    assert info.n_iter > 2
    assert abs(info.trace[-1] - info.trace[-2]) <= 0.1


def test_after_a_move_the_loop_goes_on_without_a_warning():
    _, info = expectation_maximization(*halving(falls_at=3, moves_at=2), 1.0, max_iter=100, tol=0.1)
    assert info.n_reseeded == 1
    assert info.converged
    assert info.n_iter > 2
    assert np.argmin(info.trace) == 2
    assert repr(info).startswith("EMInfo(converged=True, n_iter=")
