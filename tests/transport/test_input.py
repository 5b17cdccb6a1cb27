# ruff: noqa: E501 - one case a line
"""Bad input: every message names the argument, what was expected, what came, and a way out."""

import re

import numpy as np
import pytest

from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.transport import (
    relative_epsilon,
    sinkhorn,
    sinkhorn_barycenter,
    sinkhorn_batch,
    sinkhorn_divergence,
    sinkhorn_points,
)

COST = np.arange(20.0).reshape(5, 4)
A, B = np.full(5, 0.2), np.full(4, 0.25)
INF = np.inf


def replaced(array, index, value):
    copy = np.array(array, dtype=float)
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("a", "b", "cost", "options", "error", "message"),
    [
        (A, B, COST, {"epsilon": 0.0}, DomainError, "'epsilon' must be a positive finite number; got 0.0"),
        (A, B, COST, {"epsilon": -1}, DomainError, "'epsilon' must be a positive finite number; got -1"),
        (A, B, COST, {"epsilon": np.nan}, DomainError, "'epsilon' must be a positive finite number; got nan"),
        (A, B, COST, {"epsilon": "1e"}, TypeError, "'epsilon' must be a number; got str"),
        (replaced(A, 2, -0.1), B, COST, {}, DomainError, "'a' must be nonnegative; got -0.1 at index 2"),
        (A, replaced(B, 1, np.nan), COST, {}, NotFiniteError, "'b' must be finite; got 1 infinite or NaN entry, the first (nan) at index 1"),
        (A, B, replaced(COST, (3, 2), np.nan), {}, NotFiniteError, "'cost' must not be NaN or minus infinity; got 1 such entry, the first (nan) at index (3, 2)"),
        (A, B, replaced(COST, (0, 1), -INF), {}, NotFiniteError, "the first (-inf) at index (0, 1). Plus infinity forbids a pair"),
        (0 * A, B, COST, {}, DomainError, "'a' must not be all zero"),
        (2 * A, B, COST, {}, DomainError, "'a' and 'b' must have the same mass; they sum to 2 and 1. Divide each by its sum, or pass unbalanced=rho"),
        (A, B, replaced(COST, 3, INF), {}, DomainError, "'a' has weight 0.2 at index 3, but row 3 of 'cost' is infinite"),
        (A, B, replaced(COST, (slice(None), 2), INF), {}, DomainError, "'b' has weight 0.25 at index 2, but column 2 of 'cost' is infinite"),
        (B, A, COST, {}, ShapeError, "'cost' has shape (5, 4), so 'a' must have shape (5,) and 'b' (4,); got 'a' of shape (4,). Transpose 'cost'?"),
        (A, B[:3], COST, {}, ShapeError, "got 'b' of shape (3,)."),
        (A, B, COST[0], {}, ShapeError, "'cost' must be a matrix of shape (n, m); got shape (4,). Weights come first"),
        (A, B, None, {}, TypeError, "'cost' is None; it must be a matrix of shape (n, m), after the weights"),
        (A, B, COST[None], {}, ShapeError, "Batches go to sinkhorn_batch"),
        (A, B, COST[:0], {}, ShapeError, "'cost' must have at least one row and one column; got (0, 4)"),
        (A, B, COST > 3, {}, TypeError, "'cost' must hold real numbers; got dtype bool. A mask of forbidden pairs is written numpy.where"),
        (A, B, COST + 1j, {}, TypeError, "'cost' must hold real numbers; got dtype complex128. Pass the real part"),
        (A, B, COST, {"method": "lp"}, DomainError, "'method' must be one of 'auto', 'log', 'scaling', 'newton', 'sns'"),
        (A, B, COST, {"tol": 0}, DomainError, "'tol' must be finite and positive; got 0"),
        (A, B, COST, {"max_iter": 0}, DomainError, "'max_iter' must be at least 1; got 0"),
        (A, B, COST, {"unbalanced": -1.0}, DomainError, "'unbalanced' must be positive, or infinite on a side; got -1.0"),
        (A, B, COST, {"unbalanced": (1, 2, 3)}, ShapeError, "'unbalanced' must be a number or a pair of them; got (1, 2, 3)"),
        (A, B, COST, {"init": A}, TypeError, "'init' must be a pair of potentials (f, g)"),
        (A, B, COST, {"init": (B, A)}, ShapeError, "'init' must hold an 'f' of shape (5,); got (4,)"),
        (A, B, COST, {"callback": 3}, TypeError, "'callback' must be a function of one Progress"),
    ],
)  # fmt: skip
def test_sinkhorn_says_what_is_wrong(a, b, cost, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        sinkhorn(a, b, cost, **{"epsilon": 1.0, **options})


def test_points_that_could_only_vanish_are_refused_and_their_weight_has_a_known_price():
    stranded = replaced(COST, 3, INF)
    message = (
        "could vanish: give it a finite cost, or weight 0 and add (2 + epsilon * sum(b)) times"
    )
    with pytest.raises(DomainError, match=re.escape(message)):
        sinkhorn(A, B, stranded, epsilon=0.1, unbalanced=2.0)
    with pytest.raises(DomainError, match="Give it a finite cost, or no weight"):
        sinkhorn(A, B, stranded, epsilon=0.1, unbalanced=(None, 2.0))
    options = {"epsilon": 0.1, "unbalanced": 2.0, "tol": 1e-12}
    far = sinkhorn(A, B, replaced(COST, 3, 1e4), **options).value
    without = sinkhorn(replaced(A, 3, 0), B, stranded, **options).value
    assert far == pytest.approx(without + (2.0 + 0.1 * B.sum()) * 0.2, abs=1e-9)


def test_penalties_may_be_an_array():
    pair = sinkhorn(A, B, COST, epsilon=1.0, unbalanced=[1.0, 2.0])
    array = sinkhorn(A, B, COST, epsilon=1.0, unbalanced=np.array([1.0, 2.0]))
    assert pair.value == array.value


@pytest.mark.parametrize("answer", [1, "stop", [0]])
def test_only_true_ends_the_work(answer):
    assert not sinkhorn(A, B, COST, epsilon=1.0, callback=lambda _: answer).stopped


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_distances_that_overflow_are_refused(metric):
    far = np.array([0.0, 1e200])
    with pytest.raises(NotFiniteError, match=r"'x' and 'y' must lie so near .* a common scale"):
        sinkhorn_points(far, far, epsilon=1.0, metric=metric)
    assert sinkhorn_points(far, far, epsilon=1e199, metric="cityblock").converged


def test_masks_that_no_plan_can_obey_are_found():
    blocks = np.full((4, 4), INF)
    blocks[:2, :2] = blocks[2:, 2:] = 1.0
    a = np.array([0.3, 0.3, 0.2, 0.2])
    message = "connects 2 rows of mass 0.6, the first at index 0, with 2 columns of mass 0.5 and"
    with pytest.raises(DomainError, match=message):
        sinkhorn(a, B, blocks, epsilon=0.1)
    assert sinkhorn(a, B, blocks, epsilon=0.1, unbalanced=1.0).converged
    # Connected, but rows 0 and 1 have nowhere else to go than column 0.
    narrow = np.ones((4, 4))
    narrow[:2, 1:] = INF
    with pytest.raises(DomainError, match=r"at most 0\.65 of the mass can be moved"):
        sinkhorn(a, B, narrow, epsilon=0.1, max_iter=300)


def test_masses_that_differ_by_rounding_are_made_equal():
    result = sinkhorn(A, B * (1 + 5e-7), COST, epsilon=1.0)
    assert result.converged
    assert result.plan().sum() == pytest.approx(1.0, abs=1e-12)
    free = sinkhorn(A, 3 * B, COST, epsilon=1.0, unbalanced=2.0)
    assert free.converged


def test_gap_and_rounded_plan_are_not_defined_with_penalties():
    result = sinkhorn(A, B, COST, epsilon=1.0, unbalanced=2.0)
    with pytest.raises(DomainError, match="'gap' compares plans that meet the weights"):
        _ = result.gap
    with pytest.raises(DomainError, match="'rounded_plan' is of plans that meet the weights"):
        result.rounded_plan()


def test_products_refuse_what_does_not_fit():
    result = sinkhorn(A, B, COST, epsilon=1.0)
    with pytest.raises(ShapeError, match=r"'v' must have shape \(4,\) or \(4, k\); got \(5,\)"):
        result.apply(A)
    with pytest.raises(ShapeError, match=r"'u' must have shape \(5,\) or \(5, k\); got \(4,\)"):
        result.apply_transpose(B)
    with pytest.raises(ShapeError, match=r"'y' must have shape \(m, d\)"):
        result.barycentric_map(B)
    with pytest.raises(NotFiniteError, match=r"'v' must be finite; got 1 .*\(nan\) at index 1"):
        result.apply(replaced(B, 1, np.nan))
    with pytest.raises(NotFiniteError, match="'u' must be finite"):
        result.apply_transpose(replaced(A, 0, INF))
    with pytest.raises(NotFiniteError, match="'y' must be finite"):
        result.barycentric_map(np.full((4, 2), -INF))
    assert result.apply(np.zeros((4, 0))).shape == (5, 0)


def test_points_have_no_sparse_newton_iterations():
    with pytest.raises(DomainError, match=r"'log', 'scaling', 'newton'; got 'sns'"):
        sinkhorn_points(A, B, epsilon=1.0, method="sns")


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3)), {}, ShapeError, "points of equal dimension; got shapes (3, 2) and (3, 3)"),
        (np.zeros((0, 2)), np.zeros((3, 2)), {}, ShapeError, "'x' must hold at least one point"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), {}, NotFiniteError, "'y' must be finite; got 6"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"metric": "cosine"}, DomainError, "'metric' must be one of 'sqeuclidean', 'euclidean', 'cityblock'; got 'cosine'"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"a": np.ones(2)}, ShapeError, "'x' has 3 points, so 'a' must have shape (3,); got (2,)."),
        (np.zeros((3, 2)), np.zeros((1, 2)), {"b": np.ones(2)}, ShapeError, "'y' has 1 point, so 'b' must have shape (1,); got (2,)."),
        (np.zeros((3, 2)), np.zeros((2, 2)), {"a": np.ones(2), "b": np.ones(3)}, ShapeError, "got (2,). Exchange 'a' and 'b'?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [sinkhorn_points, sinkhorn_divergence])
def test_clouds_say_what_is_wrong(function, x, y, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(x, y, epsilon=1.0, **options)


def test_batches_name_the_problem():
    costs = np.stack([COST, COST])
    with pytest.raises(DomainError, match="problem 1: 'a' and 'b' must have the same mass"):
        sinkhorn_batch([A, 2 * A], [B, B], costs, epsilon=1.0)
    with pytest.raises(ShapeError, match="'a' must hold the weights of 2 problems; got 1"):
        sinkhorn_batch([A], None, costs, epsilon=1.0)
    with pytest.raises(ShapeError, match=r"'cost' must have shape \(B, n, m\)"):
        sinkhorn_batch(None, None, COST, epsilon=1.0)
    with pytest.raises(
        ShapeError, match=r"'epsilon' must be a number or have shape \(2,\); got \(3,\)"
    ):
        sinkhorn_batch(None, None, costs, epsilon=[1.0, 1.0, 1.0])
    with pytest.raises(NotFiniteError, match="problem 1: 'cost' must not be NaN"):
        sinkhorn_batch(None, None, replaced(costs, (1, 0, 0), np.nan), epsilon=1.0)
    with pytest.raises(DomainError, match="problem 1: 'epsilon' must be a positive finite number"):
        sinkhorn_batch(None, None, costs, epsilon=[1.0, 0.0])
    with pytest.raises(DomainError, match="'method' must be one of"):
        sinkhorn_batch(None, None, costs, epsilon=1.0, method="sns")
    assert len(sinkhorn_batch(A.tolist(), None, costs, epsilon=1.0)) == 2
    with pytest.raises(ShapeError, match="'cost' must hold at least one problem"):
        sinkhorn_batch(None, None, [], epsilon=1.0)
    with pytest.raises(TypeError, match="'epsilon' must be a number or 2 of them; got 'a'"):
        sinkhorn_batch(None, None, costs, epsilon="a")
    with pytest.raises(TypeError, match="or be a sequence of matrices; got NoneType"):
        sinkhorn_batch(None, None, None, epsilon=1.0)
    with pytest.raises(TypeError, match="problem 1: 'cost' is None"):
        sinkhorn_batch(None, None, [COST, None], epsilon=1.0)
    for a in (0.5, np.float64(0.5)):
        with pytest.raises(TypeError, match="'a' must be one vector for all problems, or hold"):
            sinkhorn_batch(a, None, costs, epsilon=1.0)


def test_one_matrix_serves_all_the_weights_of_a_batch():
    b = np.stack([B, [0.1, 0.2, 0.3, 0.4], B[::-1]])
    for given in (b, list(b)):
        results = sinkhorn_batch(None, given, COST, epsilon=1.0)
        expected = sinkhorn_batch(None, b, np.stack([COST] * 3), epsilon=1.0)
        assert [r.value for r in results] == [r.value for r in expected]
    with pytest.raises(ShapeError, match="'b' must hold the weights of 2 problems; got 3"):
        sinkhorn_batch([A, A], b, COST, epsilon=1.0)
    with pytest.raises(ShapeError, match="One matrix serves all problems where 'a' or 'b'"):
        sinkhorn_batch(A, B, COST, epsilon=1.0)


def test_barycenters_say_what_is_wrong():
    cost = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    with pytest.raises(DomainError, match="'cost' must be symmetric; got 7 at"):
        sinkhorn_barycenter(None, [B], replaced(cost, (0, 3), 7.0), epsilon=1.0)
    with pytest.raises(
        DomainError, match="'marginals' must sum to 1 in every row; row 1 sums to 2"
    ):
        sinkhorn_barycenter(None, [B, 2 * B], cost, epsilon=1.0)
    with pytest.raises(ShapeError, match=r"'marginals' must have shape \(k, 4\)"):
        sinkhorn_barycenter(None, B, cost, epsilon=1.0)
    with pytest.raises(ShapeError, match=r"'cost' must have shape \(n, n\); got \(5, 4\)"):
        sinkhorn_barycenter(None, [B], COST, epsilon=1.0)


def test_relative_epsilon_needs_a_scale():
    assert relative_epsilon([[1.0, 3.0]], 0.5, scale="mean") == 1.0
    assert relative_epsilon([[1.0, 3.0, INF]], 0.5, scale="std") == 0.5
    with pytest.raises(DomainError, match="positive max for a relative epsilon; got 0"):
        relative_epsilon([[0.0, 0.0]])
    with pytest.raises(DomainError, match="'cost' must have finite entries"):
        relative_epsilon([[INF]])
    for bad in (np.nan, -INF):
        with pytest.raises(NotFiniteError, match="'cost' must not be NaN or minus infinity; got 1"):
            relative_epsilon([[bad, 1.0]])


def test_a_divergence_knows_no_sides():
    for pair in ((1.0, None), np.array([1.0, 2.0])):
        with pytest.raises(TypeError, match="'unbalanced' must be a number here"):
            sinkhorn_divergence(np.eye(2), np.eye(2), epsilon=1.0, unbalanced=pair)
