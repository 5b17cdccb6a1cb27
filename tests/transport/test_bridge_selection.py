"""How many components a bridge should have, by rows held out."""

import numpy as np
import pytest

from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning, ShapeError
from pyprobe.transport import LightSchrodingerBridge, select_n_components
from pyprobe.transport._bridge_model import Sample
from pyprobe.transport.selection import _log_norms, _loss

TRUTH = LightSchrodingerBridge.from_parameters(
    [0.3, 0.4, 0.3], [[-3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0.2, 0.2, 0.2], epsilon=0.5
)


def draws(n=1500, seed=0):
    x0, others = np.random.default_rng(seed).normal(size=(2, n, 2))
    return x0, TRUTH.sample(others, rng=seed)


@pytest.mark.filterwarnings("ignore:select_n_components chose the largest candidate")
def test_the_number_of_the_truth_is_chosen():
    # One standard error is little: now and then six do better by more.
    tries = [
        select_n_components(*draws(seed=seed), [6, 1, 3, 2], epsilon=0.5, rng=seed)
        for seed in range(5)
    ]
    assert [found.n_components for found in tries].count(3) > 2
    found = next(found for found in tries if found.n_components == 3)
    assert found.n_components == 3
    assert not found.at_end
    np.testing.assert_array_equal(found.candidates, [1, 2, 3, 6])
    assert found.bridge.n_components == 3
    lowest = found.scores.argmin()
    assert found.standard_errors[lowest] == 0
    excess = found.scores - found.scores[lowest]
    assert excess[2] <= found.standard_errors[2]
    assert (excess[:2] > found.standard_errors[:2]).all()
    assert repr(found) == "ComponentSelection(n_components=3, candidates=[1, 2, 3, 6])"


def test_the_losses_are_those_of_the_score():
    rng = np.random.default_rng(1)
    x0, x1 = draws(200)
    bridge = LightSchrodingerBridge.fit(x0, x1, epsilon=0.5, n_components=2, rng=0)
    tests = [Sample(x, np.full(50, 0.02)) for x in rng.normal(size=(2, 50, 2))]
    rows = _log_norms(bridge, tests[0].points), bridge.log_potential(tests[1].points)
    score = bridge.score(tests[0].points, tests[1].points)
    assert _loss(bridge, rows, *tests) == pytest.approx(-score, abs=1e-9)


def test_the_last_candidate_is_said_to_be_the_last():
    with pytest.warns(
        NumericalWarning, match=r"largest candidate, 2, which lowers .* against 1: .*Add larger"
    ):
        found = select_n_components(*draws(), [1, 2], epsilon=0.5, rng=0)
    assert found.at_end
    assert found.n_components == 2


def test_a_callback_ends_the_search():
    seen = []

    def watch(progress):
        seen.append((progress.step, progress.total))
        return progress.step == 2

    found = select_n_components(*draws(), [1, 2, 3, 6], epsilon=0.5, rng=0, callback=watch)
    assert seen == [(1, 4), (2, 4)]
    assert found.n_components == 2
    assert len(found.scores) == 2


def test_options_and_weights_reach_the_fits():
    x0, x1 = draws(300)
    found = select_n_components(
        x0,
        x1,
        [1],
        epsilon=0.5,
        weights_x1=np.where(x1[:, 0] > 0, 1.0, 0.0),
        covariance="full",
        horizon=2.0,
        validation_fraction=0,
        rng=0,
    )
    assert found.bridge.scales.shape == (1, 2, 2)
    assert found.bridge.horizon == 2.0
    assert found.bridge.mean(x0)[:, 0].mean() > 1


def test_tensors_give_what_arrays_give():
    torch = pytest.importorskip("torch")
    x0, x1 = draws(300)
    options = {"epsilon": 0.5, "rng": 0}
    arrays = select_n_components(x0, x1, [2], **options)
    tensors = select_n_components(torch.from_numpy(x0), torch.from_numpy(x1), [2], **options)
    np.testing.assert_array_equal(arrays.scores, tensors.scores)


def test_as_many_components_as_rows_are_tried():
    with pytest.warns(ConvergenceWarning):
        found = select_n_components(
            *draws(20), [1, 16], epsilon=0.5, validation_fraction=0, max_iter=2, rng=0
        )
    np.testing.assert_array_equal(found.candidates, [1, 16])


@pytest.mark.parametrize(
    ("candidates", "options", "error", "message"),
    [
        ([], {}, ShapeError, "'candidates' must hold one number of components or more; got none"),
        ([2, 2], {}, DomainError, r"'candidates' must differ from each other; got \[2, 2\]"),
        ([0], {}, DomainError, "'candidates' must be"),
        ([1], {"test_fraction": 0.7}, DomainError, "'test_fraction' must be at most 0.5; got 0.7"),
        ([1], {"epsilon": -1.0}, DomainError, "'epsilon' must be"),
        (3, {}, TypeError, r"'candidates' must be a sequence of integers, .*; got int"),
        (None, {}, TypeError, r"'candidates' must be a sequence of integers, .*; got NoneType"),
        ([1, 2.5], {}, TypeError, r"'candidates' must hold integers; got 2\.5 at index 1"),
        # 20 rows: 16 stay after the test, and 14 after the validation.
        ([1, 15], {}, DomainError, "'candidates' must be at most 14, .* fitted; got 15"),
        ([1, 17], {"validation_fraction": 0}, DomainError, "'candidates' must be at most 16"),
        ([1], {"n_components": 2}, TypeError, "'n_components' is what is chosen here"),
        ([1], {"n_iter": 2}, TypeError, "'n_iter' is no option of select_n_components"),
        ([2, 3], {"start": TRUTH}, DomainError, r"'start' is a bridge of 3 .* candidates \[2, 3\]"),
    ],
)
def test_what_it_cannot_use_is_said_before_a_fit(candidates, options, error, message, monkeypatch):
    monkeypatch.setattr(LightSchrodingerBridge, "fit", lambda *_, **__: pytest.fail("it fits"))
    with pytest.raises(error, match=message):
        select_n_components(*draws(20), candidates, **({"epsilon": 0.5} | options))
