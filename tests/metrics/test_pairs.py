"""Energy distance and maximum mean discrepancy: values, laws, bad input, bits, memory."""

import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import erf

import pyprobe
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.metrics import energy_distance, mmd

KERNELS = {
    "gaussian": lambda r, h: np.exp(-(r**2) / (2 * h**2)),
    "laplace": lambda r, h: np.exp(-r / h),
    "inverse_multiquadric": lambda r, h: (1 + r**2 / h**2) ** -0.5,
}
INF, NAN = np.inf, np.nan


def cloud(n, d, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def weights(n, seed=0):
    return np.random.default_rng(seed).exponential(size=n)


def brute(x, y, k, a=None, b=None, unbiased=True):
    """Return E k(X, X') + E k(Y, Y') - 2 E k(X, Y) from the matrices."""

    def mean(x, y, a, b, same):
        table = np.outer(a, b)
        if same and unbiased:
            np.fill_diagonal(table, 0)
        return (table * k(cdist(x, y))).sum() / table.sum()

    a = np.ones(len(x)) if a is None else a
    b = np.ones(len(y)) if b is None else b
    return mean(x, x, a, a, True) + mean(y, y, b, b, True) - 2 * mean(x, y, a, b, False)


# Values.

SIZES = [(2, 2, 1), (3, 70, 2), (65, 64, 3), (200, 131, 17)]


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_values_are_those_of_the_matrices(n, m, d, unbiased, weighted):
    x, y = cloud(n, d), cloud(m, d, 1, shift=0.5)
    a, b = (weights(n), weights(m, 1)) if weighted else (None, None)
    options = {"weights_x": a, "weights_y": b, "unbiased": unbiased}
    found = energy_distance(x, y, **options)
    assert found == pytest.approx(brute(x, y, np.negative, a, b, unbiased), rel=1e-12, abs=1e-14)
    for name, kernel in KERNELS.items():
        found = mmd(x, y, kernel=name, bandwidth=1.3, **options)
        expected = brute(x, y, lambda r, k=kernel: k(r, 1.3), a, b, unbiased)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-14), name


@pytest.mark.parametrize("weighted", [True, False])
def test_on_a_line_the_v_statistic_is_the_square_of_scipys(weighted):
    x, y = cloud(300, 1)[:, 0], cloud(200, 1, 1, shift=0.3)[:, 0]
    a, b = (weights(300), weights(200, 1)) if weighted else (None, None)
    found = energy_distance(x, y, weights_x=a, weights_y=b, unbiased=False)
    assert found == pytest.approx(stats.energy_distance(x, y, a, b) ** 2, rel=1e-11)
    column = energy_distance(x[:, None], y[:, None], weights_x=a, weights_y=b, unbiased=False)
    assert found == column


def test_diracs_are_as_far_apart_as_their_distance():
    assert energy_distance([[0.0, 0.0]], [[3.0, 4.0]], unbiased=False) == 10
    found = mmd([[0.0]], [[2.0]], bandwidth=2.0, unbiased=False)
    assert found == pytest.approx(2 - 2 * math.exp(-0.5), rel=1e-15)
    assert mmd([[1.0]], [[1.0]], bandwidth=2.0, unbiased=False) == 0


def test_equal_samples_have_distance_zero():
    x = cloud(150, 4)
    assert abs(energy_distance(x, x[::-1], unbiased=False)) < 1e-14
    for name in KERNELS:
        assert abs(mmd(x, x[::-1], kernel=name, unbiased=False)) < 1e-14


def test_weights_that_count_copies_are_those_of_the_v_statistic():
    x, y = cloud(20, 3), cloud(30, 3, 1)
    copies = np.arange(20) % 3
    found = energy_distance(x, y, weights_x=copies, unbiased=False)
    repeated = np.repeat(x, copies, axis=0)
    assert found == pytest.approx(energy_distance(repeated, y, unbiased=False), rel=1e-13)


def test_a_point_of_weight_zero_is_not_there():
    x, y = cloud(20, 3), cloud(30, 3, 1)
    a = np.ones(20)
    a[[3, 7]] = 0
    found = energy_distance(x, y, weights_x=a)
    assert found == pytest.approx(energy_distance(np.delete(x, [3, 7], 0), y), rel=1e-13)


def test_symmetry_translation_scaling_and_scale_of_weights():
    x, y = cloud(80, 3), cloud(90, 3, 1, shift=0.4)
    a = weights(80)
    value = energy_distance(x, y, weights_x=a)
    assert energy_distance(y, x, weights_y=a) == pytest.approx(value, rel=1e-13)
    assert energy_distance(x + 100, y + 100, weights_x=a) == pytest.approx(value, rel=1e-10)
    assert energy_distance(1e9 * x, 1e9 * y, weights_x=a) == pytest.approx(1e9 * value, rel=1e-13)
    assert energy_distance(x, y, weights_x=1e300 * a) == pytest.approx(value, rel=1e-13)
    rotation = np.linalg.qr(cloud(3, 3, 2))[0]
    assert energy_distance(x @ rotation, y @ rotation, weights_x=a) == pytest.approx(value)
    for name in KERNELS:
        value = mmd(x, y, kernel=name, bandwidth=0.7)
        assert mmd(3 * x, 3 * y, kernel=name, bandwidth=2.1) == pytest.approx(value, rel=1e-12)
        median = mmd(x, y, kernel=name)
        assert mmd(5 * x, 5 * y, kernel=name) == pytest.approx(median, rel=1e-12)


def test_near_points_far_from_the_origin_keep_their_distances():
    grid = np.arange(50.0) * 2**-10
    near = energy_distance(grid, grid + 2**-12, unbiased=False)
    far = energy_distance(2**30 + grid, 2**30 + (grid + 2**-12), unbiased=False)
    assert far == pytest.approx(near, rel=1e-9)


def test_the_median_is_that_of_all_pairs_where_there_are_few():
    x, y = cloud(40, 2), cloud(30, 2, 1, shift=1.0)
    pooled = np.concatenate([x, y])
    h = np.median(cdist(pooled, pooled)[np.triu_indices(70, 1)])
    assert mmd(x, y) == pytest.approx(mmd(x, y, bandwidth=h), rel=1e-13)
    assert mmd(x, y, bandwidth="median") == mmd(x, y)
    large = np.concatenate([cloud(5000, 2), cloud(5000, 2, 1)])
    found, h = mmd(large[:6000], large[6000:]), math.sqrt(2 * 2 * math.log(2))
    assert found == pytest.approx(mmd(large[:6000], large[6000:], bandwidth=h), abs=2e-5)


# Laws.


@pytest.mark.statistical
def test_estimates_of_gaussians_are_unbiased(seed):
    # E|Z| for Z ~ N(s, v) is known; so is E exp(-Z^2 / 2h^2). 400 independent repeats: the mean is
    # normal enough, and |z| > 4.9 has probability 1e-6.
    shift, n, m, repeats, h = 0.5, 12, 9, 400, 0.8
    rng = np.random.default_rng(seed)

    def absolute(s, v):
        return math.sqrt(2 * v / math.pi) * math.exp(-s * s / (2 * v)) + s * erf(
            s / math.sqrt(2 * v)
        )

    def gaussian(s, v):
        return h / math.sqrt(h * h + v) * math.exp(-s * s / (2 * (h * h + v)))

    expected = {
        "energy": 2 * absolute(shift, 2) - 2 * absolute(0.0, 2),
        "mmd": 2 * gaussian(0.0, 2) - 2 * gaussian(shift, 2),
    }
    a, b = rng.exponential(size=n), rng.exponential(size=m)  # of no influence on the points
    found = {"energy": [], "mmd": []}
    for _ in range(repeats):
        x, y = rng.normal(size=n), rng.normal(size=m) + shift
        found["energy"].append(energy_distance(x, y, weights_x=a, weights_y=b))
        found["mmd"].append(mmd(x, y, bandwidth=h, weights_x=a, weights_y=b))
    for name, values in found.items():
        error = np.std(values) / math.sqrt(repeats)
        assert abs(np.mean(values) - expected[name]) < 4.9 * error, name


# Types.


def test_results_have_the_type_of_the_arrays():
    x, y = cloud(30, 3), cloud(20, 3, 1)
    narrow = x.astype(np.float32), y.astype(np.float32)
    for distance in (energy_distance, mmd):
        assert type(distance(x, y)) is np.float64
        assert type(distance(*narrow)) is np.float32
        assert type(distance(x, narrow[1])) is np.float64
        assert type(distance(x.tolist(), y.tolist())) is np.float64
        assert distance(*narrow) == pytest.approx(
            distance(*(a.astype(np.float64) for a in narrow)), rel=1e-7
        )


def test_strides_orders_and_integers_are_read_as_what_they_hold():
    x, y = cloud(60, 6), cloud(50, 6, 1)
    expected = energy_distance(x[::-2, ::2].copy(), y[:, ::2].copy())
    assert energy_distance(x[::-2, ::2], np.asfortranarray(y[:, ::2])) == expected
    assert energy_distance([0, 1], [5, 6]) == energy_distance([0.0, 1.0], [5.0, 6.0])


# What does not fit.

BAD = [
    ((np.ones((2, 2, 2)), [1.0]), ShapeError, r"'x' must have shape \(n, d\), one point a row"),
    ((1.0, [1.0]), ShapeError, r"'x' must have shape .* got shape \(\)"),
    ((np.ones((3, 0)), np.ones((3, 0))), ShapeError, r"got shape \(3, 0\)"),
    ((np.ones((2, 3)), np.ones((2, 2))), ShapeError, r"'y' must have shape \(m, 3\) to match 'x'"),
    (([], [1.0]), ShapeError, "'x' must have at least one row"),
    (([1.0, 2.0], []), ShapeError, "'y' must have at least one row"),
    (([1.0, NAN], [1.0, 2.0]), NotFiniteError, "'x' must be finite; got 1 infinite or NaN entry"),
    (([1.0, 2.0], [[INF], [1.0]]), NotFiniteError, r"'y' must be finite.*\(inf\) at index \(0, 0"),
    (([1.0], [1.0, 2.0]), ShapeError, "'x' must have at least two rows for the unbiased estimate"),
    (([1.0, 2.0], [1.0]), ShapeError, r"'y' must have at least two rows.*Pass unbiased=False\."),
    (([1e200, 2.0], [1.0, -1e200]), DomainError, "neither distances nor their squares overflow"),
    ((np.array([1j, 2]), [1.0]), TypeError, "'x' must hold real numbers"),
    ((np.ma.array([1.0, 2.0]), [1.0]), TypeError, "'x' is a masked array"),
]
BAD_OPTIONS = [
    ({"weights_x": [1.0]}, ShapeError, r"'weights_x' must have shape \(3,\), one weight a point"),
    ({"weights_y": [1.0, -2.0]}, DomainError, "'weights_y' must be nonnegative; got -2.0 at index"),
    ({"weights_x": [0.0, 0, 0]}, DomainError, "'weights_x' must not be all zero"),
    ({"weights_x": [0.0, 1, 0]}, DomainError, "'weights_x' must have at least two positive"),
    ({"weights_y": [NAN, 1.0]}, NotFiniteError, "'weights_y' must be finite"),
    ({"unbiased": 1}, TypeError, "'unbiased' must be True or False"),
]
BAD_KERNELS = [
    ({"kernel": "linear"}, DomainError, "'kernel' must be one of 'gaussian', 'laplace'"),
    ({"bandwidth": 0.0}, DomainError, "'bandwidth' must be finite and positive; got 0.0"),
    ({"bandwidth": NAN}, DomainError, "'bandwidth' must be finite and positive"),
    ({"bandwidth": "mean"}, DomainError, "'bandwidth' must be a positive number or 'median'"),
    ({"bandwidth": None}, TypeError, "'bandwidth' must be a number"),
]


@pytest.mark.parametrize(("samples", "error", "message"), BAD)
@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_bad_samples_are_named(distance, samples, error, message):
    with pytest.raises(error, match=message):
        distance(*samples)


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_bad_weights_are_named(distance, options, error, message):
    with pytest.raises(error, match=message):
        distance([1.0, 2.0, 3.0], [1.0, 2.0], **options)


@pytest.mark.parametrize(("options", "error", "message"), BAD_KERNELS)
def test_bad_kernels_are_named(options, error, message):
    with pytest.raises(error, match=message):
        mmd([1.0, 2.0, 3.0], [1.0, 2.0], **options)


def test_a_median_of_zero_is_no_bandwidth():
    with pytest.raises(DomainError, match="'bandwidth' cannot be the median distance, which is 0"):
        mmd(np.ones(10), np.ones(10))


# Machine.


@pytest.mark.parametrize("d", [2, 40])
def test_bits_are_the_same_for_any_number_of_threads(d):
    x, y, a = cloud(1500, d), cloud(1300, d, 1), weights(1500)
    found = []
    try:
        for threads in (1, 2, 4):
            pyprobe.set_num_threads(threads)
            values = [energy_distance(x, y, weights_x=a)]
            values += [mmd(x, y, kernel=name, bandwidth=1.0) for name in KERNELS]
            found.append(values)
    finally:
        pyprobe.set_num_threads(None)
    assert found[0] == found[1] == found[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_no_matrix_of_pairs_is_held():
    # 20000 by 20000 distances are 3.2 GB; the samples 1 MB. A program of its own has its own peak.
    code = """
        import numpy as np
        from pyprobe.metrics import energy_distance, mmd

        def peak():
            lines = open("/proc/self/status").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

        x, y = np.random.default_rng(0).normal(size=(2, 20_000, 3))
        energy_distance(x[:2000], y[:2000])
        mmd(x[:2000], y[:2000])  # loads SciPy's distances
        before = peak()
        energy_distance(x, y)
        mmd(x, y, kernel="inverse_multiquadric")
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000  # kB
