"""Reparameterized gradients of von Mises-Fisher draws: unbiased, and of first order."""

import math

import mpmath
import numpy as np
import pytest
from scipy.special import xlogy

torch = pytest.importorskip("torch")
pytest.importorskip("pyro")

from pyprobe import _core
from pyprobe._engine import Engine
from pyprobe.directional import _torch as twin
from pyprobe.errors import DomainError
from pyprobe.pyro import VonMisesFisher, _draws

FALSE_FAIL = 4.9  # standard errors: 1e-6


def direction(dim, seed=0):
    x = torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm()


def mean_length(dim, concentration):
    """Return A and A' from mpmath."""
    with mpmath.workdps(50):
        k, order = mpmath.mpf(concentration), mpmath.mpf(dim) / 2
        ratio = mpmath.besseli(order, k) / mpmath.besseli(order - 1, k)
        return float(ratio), float(1 - ratio**2 - (dim - 1) * ratio / k)


def beats(values, expected):
    """Return the error of the mean of `values` in standard errors."""
    return abs(values.mean() - expected) / (values.std() / math.sqrt(len(values)))


@pytest.mark.statistical
@pytest.mark.parametrize(
    # The last number: what differentiating the accepted proposal of the rejection sampler with its
    # randomness held fixed would give in place of 1. The sample must be large enough to tell.
    ("dim", "concentration", "naive"),
    [
        (2, 1.0, None),
        (3, 5.0, None),
        (5, 2.0, 0.866),
        (10, 10.0, 0.924),
        (128, 200.0, 0.995),
        (2048, 1000.0, 0.9997),
    ],
)
def test_mean_of_the_marginal_derivative_is_the_slope_of_the_mean(dim, concentration, naive):
    n = 1_000_000
    kappa = np.array([concentration])
    complement = _core.vmf_sample_marginal(dim, kappa, n, 1)
    slide = _core.vmf_marginal_gradient(dim, kappa, complement)
    _, slope = mean_length(dim, concentration)
    assert beats(slide, slope) < FALSE_FAIL
    if naive is not None:
        assert beats(slide, naive * slope) > 2 * FALSE_FAIL


@pytest.mark.parametrize("dim", [2, 3, 5, 10, 128, 2048])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_marginal_derivative_is_that_of_the_quantile(dim, scale):
    # F(w(kappa); kappa) = u gives dw/dkappa = sin(theta) / g(theta) times the integral of
    # (cos s - A) g(s) over angles s below theta: here by trapezoids over all of the bulk.
    concentration = scale * dim
    ratio, _ = mean_length(dim, concentration)

    def log_density(angle):
        return concentration * np.cos(angle) + xlogy(dim - 2, np.sin(angle))

    coarse = np.linspace(0, np.pi, 20_001)
    inside = np.flatnonzero(log_density(coarse) > log_density(coarse).max() - 60)
    low, high = coarse[max(inside[0] - 1, 0)], coarse[min(inside[-1] + 1, 20_000)]
    angle, step = np.linspace(low, high, 200_001, retstep=True)
    density = np.exp(log_density(angle) - log_density(angle).max())
    moment = (np.cos(angle) - ratio) * density
    tail = np.concatenate([[0], np.cumsum((moment[1:] + moment[:-1]) / 2)]) * step
    bulk = np.flatnonzero(density > 1e-3)
    bulk = bulk[:: len(bulk) // 50][1:-1]
    expected = np.sin(angle[bulk]) * tail[bulk] / density[bulk]
    complement = 1 - np.cos(angle[bulk])
    native = _core.vmf_marginal_gradient(dim, np.array([concentration]), complement)
    np.testing.assert_allclose(native, expected, rtol=1e-6, atol=1e-7 * expected.max())
    by_twin = twin.marginal_gradient(
        torch.from_numpy(complement), torch.tensor(concentration, dtype=torch.float64), dim
    )
    np.testing.assert_allclose(by_twin.numpy(), native, rtol=1e-11, atol=1e-14 * expected.max())


def test_twin_of_the_marginal_derivative_agrees_at_the_ends():
    complement = torch.tensor(
        [0.0, 1e-300, 1e-30, 1e-9, 0.999, 1.0, 1.001, 2 - 1e-12, 2.0]
    ).double()
    for dim in (2, 3, 4, 64):
        for concentration in (0.0, 1e-3, 5.0, 1e6):
            kappa = torch.tensor(concentration, dtype=torch.float64)
            ours = _core.vmf_marginal_gradient(dim, kappa.reshape(1).numpy(), complement.numpy())
            by_twin = twin.marginal_gradient(complement, kappa, dim).numpy()
            # The exponents, differences of 1 - w times kappa, carry eps * kappa.
            rtol = 1e-12 + 1e-15 * concentration
            np.testing.assert_allclose(by_twin, ours, rtol=rtol, atol=1e-300)


@pytest.mark.statistical
@pytest.mark.parametrize("engine", [Engine.NATIVE_TORCH, Engine.TORCH])
@pytest.mark.parametrize("dim", [2, 3, 10, 40])
def test_gradient_of_a_mean_is_the_mean_of_gradients(monkeypatch, dim, engine):
    # E[a . x] = A(kappa) a . loc and E[(a . x)^2] is known too: both have exact derivatives.
    monkeypatch.setattr(_draws, "select", lambda *_: engine)
    torch.manual_seed(2)
    n, concentration = 200_000, 0.8 * dim
    a, loc = direction(dim, 1), direction(dim)
    ratio, slope = mean_length(dim, concentration)
    batch = loc.expand(n, dim).clone().requires_grad_()
    kappa = torch.full((n,), concentration, dtype=torch.float64, requires_grad=True)
    x = VonMisesFisher(batch, kappa).rsample()
    grad_loc, grad_kappa = torch.autograd.grad((x @ a).sum(), (batch, kappa), retain_graph=True)
    assert beats(grad_kappa.numpy(), slope * (a @ loc).item()) < FALSE_FAIL
    # Only tangent moves of loc stay on the sphere, and only they have a gradient.
    assert (grad_loc @ loc).abs().max() < 1e-12
    tangent = a - (a @ loc) * loc
    assert beats((grad_loc @ tangent).numpy(), ratio * (tangent @ tangent).item()) < FALSE_FAIL
    # E[x x^T] = A/kappa I + (1 - d A/kappa) loc loc^T.
    grad_loc, grad_kappa = torch.autograd.grad((x @ a).square().sum(), (batch, kappa))
    across = ratio / concentration
    d_across = slope / concentration - ratio / concentration**2
    cosine = (a @ loc).item()
    assert beats(grad_kappa.numpy(), d_across * (1 - dim * cosine**2)) < FALSE_FAIL
    expected = 2 * (1 - dim * across) * cosine * (tangent @ tangent).item()
    assert beats((grad_loc @ tangent).numpy(), expected) < FALSE_FAIL


def test_draws_turn_with_their_mean_direction():
    # Under a rotation of loc, x must move by the rotation itself: dx = w v - (x . v) loc.
    torch.manual_seed(0)
    loc = direction(4).requires_grad_()
    x = VonMisesFisher(loc, 3.0).rsample()
    jacobian = torch.stack([torch.autograd.grad(c, loc, retain_graph=True)[0] for c in x])
    v = direction(4, 7)
    v = v - (v @ loc.detach()) * loc.detach()
    x, mu = x.detach(), loc.detach()
    torch.testing.assert_close(jacobian @ v, (x @ mu) * v - (x @ v) * mu)


def test_draws_slide_along_their_meridian():
    torch.manual_seed(0)
    kappa = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loc = direction(4)
    x = VonMisesFisher(loc, kappa).rsample()
    speed = torch.stack([torch.autograd.grad(c, kappa, retain_graph=True)[0] for c in x])
    x = x.detach()
    assert abs((speed @ x).item()) < 1e-14  # stays on the sphere
    slide = twin.marginal_gradient(1 - x @ loc, kappa.detach(), 4)
    assert (speed @ loc).item() == pytest.approx(slide.item(), rel=1e-10)


def test_gradients_are_summed_over_what_was_broadcast():
    torch.manual_seed(0)
    loc = direction(3).requires_grad_()
    kappa = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)
    x = VonMisesFisher(loc, kappa).expand((4, 2)).rsample((3,))
    x.sum().backward()
    assert loc.grad.shape == (3,)
    assert kappa.grad.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("concentration", [0.0, 1e-8, 1.0, 1e6, 1e12])
def test_gradients_are_finite_at_extreme_concentrations(dtype, concentration):
    torch.manual_seed(0)
    for dim in (2, 3, 50):
        loc = direction(dim).to(dtype).requires_grad_()
        kappa = torch.tensor(concentration, dtype=dtype, requires_grad=True)
        x = VonMisesFisher(loc, kappa).rsample((1000,))
        (x @ torch.ones(dim, dtype=dtype)).sum().backward()
        assert loc.grad.isfinite().all()
        assert kappa.grad.isfinite()


def test_a_second_derivative_is_refused_plainly():
    loc = direction(3).requires_grad_()
    kappa = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = VonMisesFisher(loc, kappa).rsample()
    (first,) = torch.autograd.grad(x.sum() + kappa**2, kappa, create_graph=True)
    with pytest.raises(DomainError, match="gradients of first order only"):
        torch.autograd.grad(first, kappa)


def test_only_the_gradients_asked_for_are_computed(monkeypatch):
    monkeypatch.setattr(_draws, "_marginal_gradient", None)
    loc = direction(3).requires_grad_()
    VonMisesFisher(loc, 2.0).rsample().sum().backward()
    assert loc.grad.isfinite().all()


@pytest.mark.parametrize("loc_batch", [(), (3,), (2, 3), (2, 1)])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("outer", [(), (4, 2, 3), (5000, 2, 3)])
def test_the_cosines_of_the_gradient_are_those_of_the_draws(loc_batch, batch, outer):
    dim = 7
    loc = torch.randn(*loc_batch, dim, dtype=torch.float64)
    loc = loc / loc.norm(dim=-1, keepdim=True)
    kappa = torch.rand(batch, dtype=torch.float64) * 20
    shape = torch.Size((*outer, dim)) if outer else torch.Size((2, 3, dim))
    x, complement = _draws._sample(loc, kappa, shape, with_complement=True)
    assert x.shape == shape
    torch.testing.assert_close(1 - (x * loc).sum(-1), complement, rtol=0, atol=1e-14)
