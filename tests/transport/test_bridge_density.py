"""Log-densities and potentials of a bridge by the kernels, and their gradients."""

import signal
import time

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

import pyprobe
from pyprobe.transport import LightSchrodingerBridge

KINDS = ("spherical", "diag", "full")


def random_bridge(kind, *, k=4, d=3, epsilon=0.7, horizon=1.5, seed=0):
    rng = np.random.default_rng(seed)
    turns = np.stack([np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(k)])
    scales = {
        "spherical": rng.uniform(0.2, 2.0, k),
        "diag": rng.uniform(0.2, 2.0, (k, d)),
        "full": (turns * rng.uniform(0.2, 2.0, (k, 1, d))) @ turns.transpose(0, 2, 1),
    }[kind]
    if kind == "full":
        scales = (scales + scales.transpose(0, 2, 1)) / 2
    return LightSchrodingerBridge.from_parameters(
        rng.dirichlet(np.ones(k)),
        rng.normal(size=(k, d)),
        scales,
        epsilon=epsilon,
        horizon=horizon,
        origin=rng.normal(size=d),
    )


def plain_log_density(bridge, x, start, s, t):
    """The log-density of x at time t, given a start at time s, by SciPy, component by component.

    The law of the end given a place is a Gaussian mixture; between them runs a Brownian bridge.
    """
    k, d = bridge.shifts.shape
    eye, S = np.eye(d), bridge.scales
    if S.ndim < 3:
        S = np.broadcast_to(S.reshape(k, -1, 1), (k, d, 1)) * eye
    e, s, t = bridge.epsilon * bridge.horizon, s / bridge.horizon, t / bridge.horizon
    u, logits, values = start - bridge.origin, [], []
    for weight, shift, scale in zip(
        bridge.log_weights, bridge.shifts - bridge.origin, S, strict=True
    ):
        # Component k as one Gaussian: of (place at s, place at t) from the origin.
        D = [(1 - time) * eye + time * scale for time in (s, t)]
        before = scipy.linalg.inv(D[0])
        form = u @ (scale - eye) @ before @ u + 2 * shift @ before @ u - s * shift @ before @ shift
        logits.append(weight - np.linalg.slogdet(D[0])[1] / 2 + form / (2 * e))
        mean = start + (t - s) * before @ ((scale - eye) @ u + shift)
        covariance = e * (t - s) * D[1] @ before
        values.append(
            scipy.stats.multivariate_normal(mean, (covariance + covariance.T) / 2).logpdf(x)
        )
    logits = np.array(logits)
    return scipy.special.logsumexp(logits - scipy.special.logsumexp(logits) + np.array(values))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 5, 16])
def test_densities_are_those_of_scipy(kind, d):
    bridge = random_bridge(kind, d=d, k=5)
    rng = np.random.default_rng(1)
    starts, ends = rng.normal(size=(37, d)), 2 * rng.normal(size=(3, 37, d))
    for s, t in ((0.0, 1.5), (0.0, 0.3), (0.4, 1.1)):
        law = bridge.transition(starts, s, t)
        expected = np.array(
            [[plain_log_density(bridge, x, y, s, t) for x, y in zip(some, starts, strict=True)]
             for some in ends]
        )  # fmt: skip
        near = {"rtol": 1e-11, "atol": 1e-11}
        np.testing.assert_allclose(law.log_prob(ends), expected, **near)
        np.testing.assert_allclose(law.log_prob(ends[1]), expected[1], **near)
        one = bridge.transition(starts[4:5], s, t)
        expected = [plain_log_density(bridge, x, starts[4], s, t) for x in ends[0]]
        np.testing.assert_allclose(one.log_prob(ends[0]), expected, **near)
        narrow = bridge.transition(starts[4:5].astype(np.float32), s, t)
        found = narrow.log_prob(ends[0].astype(np.float32))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    found = bridge.log_prob(ends, given=starts)
    np.testing.assert_array_equal(found, bridge.conditional(starts).log_prob(ends))


@pytest.mark.parametrize("kind", KINDS)
def test_no_number_of_threads_changes_a_bit(kind):
    bridge, rng = random_bridge(kind, k=7, d=5), np.random.default_rng(2)
    starts, ends = rng.normal(size=(2, 3001, 5))
    before, found = pyprobe.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            pyprobe.set_num_threads(n)
            parts = bridge.log_prob(ends, given=starts), bridge.log_prob(ends, given=starts[:1])
            parts += bridge.log_phi(ends, 0.3), bridge.log_potential(ends)
            found.append(np.concatenate([*parts, bridge.drift(ends, 0.3).reshape(-1)]))
    finally:
        pyprobe.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def exact_log_prob(bridge, x1, x0):
    """The log-density in 60 digits, for scales along the axes and a horizon of 1."""
    with mpmath.workdps(60):
        e, logits, values = mpmath.mpf(bridge.epsilon), [], []
        for weight, shift, scale in zip(
            bridge.log_weights, bridge.shifts, bridge.scales, strict=True
        ):
            logit, value = mpmath.mpf(weight), mpmath.mpf(0)
            for a, b, target, S in zip(x0, x1, shift, scale, strict=True):
                u, S, target = mpmath.mpf(a), mpmath.mpf(S), mpmath.mpf(target)
                logit += (u * S * u + 2 * target * u) / (2 * e)
                away = mpmath.mpf(b) - (target + S * u)
                value -= away**2 / (2 * e * S) + mpmath.log(2 * mpmath.pi * e * S) / 2
            logits.append(logit)
            values.append(value)
        top = max(logits)
        total = mpmath.log(sum(mpmath.exp(one - top) for one in logits))
        sums = [one - top + value for one, value in zip(logits, values, strict=True)]
        high = max(sums)
        return float(high + mpmath.log(sum(mpmath.exp(one - high) for one in sums)) - total)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-4, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("far", [1.0, 1e4, 1e60])
def test_far_places_and_extreme_noise_keep_their_digits(epsilon, scale, far):
    rng = np.random.default_rng(3)
    shifts = rng.normal(size=(3, 2))
    bridge = LightSchrodingerBridge(
        log_weights=rng.normal(size=3),
        shifts=shifts,
        scales=scale * rng.uniform(0.5, 2.0, (3, 2)),
        epsilon=epsilon,
    )
    turned = LightSchrodingerBridge(
        log_weights=bridge.log_weights,
        shifts=shifts,
        scales=bridge.scales[:, :, None] * np.eye(2),
        epsilon=epsilon,
    )
    starts = far * rng.normal(size=(6, 2))
    ends = bridge.sample(starts, rng=0)
    ends[3:] += far * rng.normal(size=(3, 2))
    for one in (bridge, turned):
        found = one.log_prob(ends, given=starts)
        single = [
            one.log_prob(x[None], given=y[None])[0] for x, y in zip(ends, starts, strict=True)
        ]
        for value, alone, x1, x0 in zip(found, single, ends, starts, strict=True):
            exact = exact_log_prob(bridge, x1, x0)
            # What an ulp of the end, of the mean or of the weights' exponents is worth.
            deviation = np.sqrt(epsilon * bridge.scales.min())
            place = 1 + np.abs([x0, x1]).max() + bridge.scales.max() * np.abs(x0).max()
            ulp = 1e-15 * place / deviation
            slack = ulp * (1 + np.sqrt(2 * abs(exact)) + ulp) + 1e-14 * abs(exact) + 1e-12
            slack += 1e-15 * (bridge.scales.max() * far + 1) * far / epsilon
            assert abs(value - exact) <= slack
            assert abs(alone - exact) <= slack
            assert not np.isnan(value)


def test_a_density_beyond_float64_is_minus_infinity():
    for kind in KINDS:
        bridge = random_bridge(kind)
        far = np.array([[1e200, 0.0, -1e200], [0.0, 1.0, 2.0]])
        found = bridge.log_prob(far, given=np.zeros((2, 3)))
        assert found[0] == -np.inf
        assert np.isfinite(found[1])
        assert bridge.log_prob(far, given=np.zeros((1, 3)))[0] == -np.inf


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that raise signals")
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_an_interrupt_stops_the_kernel(kind):
    bridge = random_bridge(kind, k=60, d=24)
    rows = np.zeros((400_000, 24))
    end = time.perf_counter() + 60

    def interrupt(*_):
        raise KeyboardInterrupt

    def repeat():
        while time.perf_counter() < end:
            bridge.log_prob(rows, given=rows)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(KeyboardInterrupt):
            repeat()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- gradients ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", [((5, 3), (5, 3)), ((2, 5, 3), (5, 3)), ((4, 2, 3), (1, 3))])
def test_gradients_are_those_of_the_density(kind, shapes):
    torch = pytest.importorskip("torch")
    bridge, rng = random_bridge(kind), np.random.default_rng(4)
    x1, x0 = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes)

    def log_prob(x1, x0):
        return bridge.log_prob(x1, given=x0)

    assert "LogProb" in type(log_prob(x1, x0).grad_fn).__name__
    np.testing.assert_allclose(
        log_prob(x1, x0).detach(),
        bridge.log_prob(x1.detach().numpy(), given=x0.detach().numpy()),
        rtol=1e-13,
        atol=1e-13,
    )
    assert torch.autograd.gradcheck(log_prob, (x1, x0))
    assert torch.autograd.gradgradcheck(log_prob, (x1, x0))
    for held in (0, 1):
        pair = [x.detach() if i == held else x for i, x in enumerate((x1, x0))]
        assert torch.autograd.gradcheck(log_prob, pair)
        assert torch.autograd.gradgradcheck(log_prob, pair)
    # The module's formulas, by autograd.
    module, weights = bridge.to_torch(), torch.tensor(rng.normal(size=shapes[0][:-1]))
    found, expected = (
        torch.autograd.grad((value * weights).sum(), (x1, x0))
        for value in (log_prob(x1, x0), module.log_prob(x1, given=x0))
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    narrow = [x.detach().float().requires_grad_() for x in (x1, x0)]
    found = torch.autograd.grad((log_prob(*narrow) * weights).sum(), narrow)
    assert all(one.dtype == torch.float32 for one in found)
    torch.testing.assert_close(
        [one.double() for one in found], list(expected), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_potential_are_the_drift(kind):
    torch = pytest.importorskip("torch")
    bridge = random_bridge(kind)
    x = torch.tensor(np.random.default_rng(5).normal(size=(6, 3)), requires_grad=True)
    for t in (0.0, 0.7, 1.5):
        value = bridge.log_phi(x, t)
        assert "LogPhi" in type(value.grad_fn).__name__
        np.testing.assert_array_equal(value.detach(), bridge.log_phi(x.detach().numpy(), t))
        assert torch.autograd.gradcheck(lambda x, t=t: bridge.log_phi(x, t), x)
        assert torch.autograd.gradgradcheck(lambda x, t=t: bridge.log_phi(x, t), x)
        slope = bridge.epsilon * torch.autograd.grad(value.sum(), x)[0]
        torch.testing.assert_close(slope, bridge.drift(x.detach(), t))


def test_gradients_take_batches_and_stay_finite_far_away():
    torch = pytest.importorskip("torch")
    for kind in KINDS:
        bridge = random_bridge(kind, epsilon=1e-10)
        x1, x0 = (torch.tensor(1e3 * np.eye(3), requires_grad=True) for _ in range(2))
        value = bridge.log_prob(x1, given=x0)
        eye = torch.eye(3, dtype=torch.float64)
        together = torch.autograd.grad(
            value, (x1, x0), eye, is_grads_batched=True, retain_graph=True
        )
        for i in range(3):
            alone = torch.autograd.grad(value[i], (x1, x0), retain_graph=True)
            for one, many in zip(alone, together, strict=True):
                assert one.isfinite().all()
                torch.testing.assert_close(one, many[i])
