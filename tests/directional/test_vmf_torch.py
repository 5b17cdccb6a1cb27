"""Tensors in, tensors out: the values of the NumPy engine, with gradients; the twin on the CPU."""

import math

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from pyprobe.directional import SphericalUniform, VonMisesFisher, _torch, rayleigh_test
from pyprobe.errors import DomainError, NotFiniteError, NumericalWarning

DIMS = [2, 3, 64, 4096]
KAPPAS = [0.0, 1e-6, 0.7, 50.0, 1e4, 1e9]


def direction(dim: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=dim)
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("dim", DIMS)
def test_tensors_give_the_numbers_of_arrays(dim):
    loc, kappas = direction(dim), np.array(KAPPAS)
    ours = VonMisesFisher(loc, kappas)
    theirs = VonMisesFisher(torch.tensor(loc), torch.tensor(kappas))
    near, far = VonMisesFisher(loc, 0.71), VonMisesFisher(direction(dim, 1), 400.0)
    x = ours.sample((3,), rng=0)
    pairs = [
        (theirs.log_prob(torch.tensor(x)), ours.log_prob(x)),
        (theirs.entropy(), ours.entropy()),
        (theirs.mean, ours.mean),
        (theirs.variance, ours.variance),
        (theirs.kl_divergence(SphericalUniform(dim)), ours.kl_divergence(SphericalUniform(dim))),
    ]
    for other in (near, far):
        tensors = VonMisesFisher(torch.tensor(other.loc), other.concentration)
        pairs.append((theirs.kl_divergence(tensors), ours.kl_divergence(other)))
        pairs.append((tensors.kl_divergence(theirs), other.kl_divergence(ours)))
    for found, expected in pairs:
        assert isinstance(found, torch.Tensor)
        # Sums of d squares run in another order.
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_are_kept(dtype):
    loc = torch.tensor([0.6, 0.0, 0.8], dtype=dtype)
    vmf = VonMisesFisher(loc, 5.0)
    x = vmf.sample((100,), rng=0)
    fit = VonMisesFisher.fit(x)
    for value in (
        x, vmf.log_prob(x), vmf.entropy(), vmf.mean, vmf.variance, vmf.covariance_matrix(),
        vmf.kl_divergence(fit), fit.loc, fit.concentration,
    ):  # fmt: skip
        assert value.dtype == dtype
    assert "concentration=" in repr(fit)


def test_the_same_seed_draws_the_same_bits_as_numpy():
    loc, kappas = direction(7), np.array([0.5, 80.0])
    expected = VonMisesFisher(loc, kappas).sample((11,), rng=3)
    found = VonMisesFisher(torch.tensor(loc), torch.tensor(kappas)).sample((11,), rng=3)
    np.testing.assert_array_equal(found.numpy(), expected)
    first, second = (torch.Generator().manual_seed(0) for _ in range(2))
    vmf = VonMisesFisher(torch.tensor(loc), 2.0)
    assert torch.equal(vmf.sample((3,), rng=first), vmf.sample((3,), rng=second))
    assert not torch.equal(vmf.sample((3,), rng=first), vmf.sample((3,), rng=0))


def test_fits_are_those_of_numpy():
    x = VonMisesFisher(direction(30), 40.0).sample((500,), rng=0)
    weights = np.random.default_rng(0).random(500)
    ours = VonMisesFisher.fit(x, weights=weights, bias_correction=True)
    theirs = VonMisesFisher.fit(
        torch.tensor(x), weights=torch.tensor(weights), bias_correction=True
    )
    np.testing.assert_array_equal(theirs.loc.numpy(), ours.loc)
    assert float(theirs.concentration) == ours.concentration
    assert repr(theirs.info) == repr(ours.info)
    assert rayleigh_test(torch.tensor(x)).pvalue == rayleigh_test(x).pvalue


def test_divergences_from_the_uniform_distribution_are_those_of_numpy():
    kappas = torch.tensor([0.0, 1e-6, 3.0, 1e4, 1e200], dtype=torch.float64)
    other = VonMisesFisher(torch.tensor([0.6, 0.0, 0.8]).double(), kappas)
    found = SphericalUniform(3).kl_divergence(other)
    expected = SphericalUniform(3).kl_divergence(VonMisesFisher([0.6, 0.0, 0.8], kappas.numpy()))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)
    # A steep target, from a distribution that is not: kappa (1 - A) and lower terms.
    for loc in (np.array([0.6, 0.0, 0.8]), torch.tensor([0.6, 0.0, 0.8]).double()):
        flat, steep = VonMisesFisher(loc, 1.0), VonMisesFisher(loc, 1e200)
        ratio = 1 / math.tanh(1.0) - 1.0
        assert float(flat.kl_divergence(steep)) == pytest.approx(1e200 * (1 - ratio), rel=1e-13)


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 1000])
def test_the_scale_of_the_weights_does_not_count_in_the_twin(exponent):
    x = torch.tensor(VonMisesFisher(direction(5), 4.0).sample((50,), rng=0))
    weights, scale = np.random.default_rng(0).random(50), 2.0**exponent
    expected = _torch.mean_direction_twin(x, weights)
    found = _torch.mean_direction_twin(x, scale * weights)
    assert torch.equal(found[0], expected[0])
    assert found[1:] == (*expected[1:3], scale * expected[3], expected[4])


@pytest.mark.parametrize("concentrated", [False, True])
def test_the_twin_of_the_fit_agrees(monkeypatch, concentrated):
    x = VonMisesFisher(direction(30), 1e7 if concentrated else 40.0).sample((500,), rng=0)
    weights = np.random.default_rng(0).random(500)
    expected = _torch.mean_direction(torch.tensor(x), weights)
    found = _torch.mean_direction_twin(torch.tensor(x), weights)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-12)
    equal = torch.tensor([[0.6, 0.8]] * 3)
    assert _torch.mean_direction_twin(equal, None)[2] == 0


@pytest.mark.statistical
@pytest.mark.parametrize(("dim", "kappa"), [(2, 3.0), (3, 0.0), (5, 20.0), (128, 100.0)])
def test_the_twin_of_the_sampler_has_the_same_law(seed, dim, kappa):
    loc = torch.tensor(direction(dim))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x, complement = _torch.sample(loc, torch.tensor(kappa), (20_000,))
    ours = VonMisesFisher(loc, kappa).sample((20_000,), rng=seed)
    np.testing.assert_allclose(torch.linalg.vector_norm(x, dim=1), 1, atol=1e-14)
    np.testing.assert_allclose(1 - x @ loc, complement, atol=1e-14)
    # The two-sample statistic passes 1.96 sqrt(2 / n) * 1.4 with probability 1e-6.
    distance = stats.ks_2samp((x @ loc).numpy(), (ours @ loc).numpy()).statistic
    assert distance < 2.70 * math.sqrt(2 / 20_000)


def test_gradients_pass_the_finite_difference_check():
    loc = torch.tensor(direction(4)).requires_grad_()
    other = torch.tensor(direction(4, 1))
    x = VonMisesFisher(loc.detach(), 2.0).sample((3,), rng=0).requires_grad_()
    for value in (0.3, 3.0, 60.0):
        kappa = torch.tensor([value, 1.3 * value], dtype=torch.float64).requires_grad_()

        def log_prob(x, loc, kappa):
            return _torch.log_prob(x.unsqueeze(1), loc, kappa)

        def divergence(loc, kappa):
            return VonMisesFisher(loc, kappa).kl_divergence(VonMisesFisher(other, 2.0))

        def reverse(kappa):
            return VonMisesFisher(other, 2.0).kl_divergence(VonMisesFisher(loc.detach(), kappa))

        def entropy(kappa):
            return VonMisesFisher(loc.detach(), kappa).entropy()

        assert torch.autograd.gradcheck(log_prob, (x, loc, kappa))
        assert torch.autograd.gradgradcheck(log_prob, (x, loc, kappa))
        assert torch.autograd.gradcheck(reverse, (kappa,))
        assert torch.autograd.gradcheck(entropy, (kappa,))
        assert torch.autograd.gradgradcheck(entropy, (kappa,))
        gradient = torch.autograd.grad(divergence(loc, kappa).sum(), (loc, kappa))
        assert all(torch.isfinite(g).all() for g in gradient)


def test_the_gradient_at_zero_concentration_is_finite():
    kappa = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loc = torch.tensor([0.6, 0.8], dtype=torch.float64)
    vmf = VonMisesFisher(loc, kappa)
    for value, slope in (
        (vmf.log_prob(loc), 1.0),
        (vmf.log_prob(-loc), -1.0),
        (vmf.entropy(), 0.0),
    ):
        (gradient,) = torch.autograd.grad(value, kappa, retain_graph=True)
        assert float(gradient) == pytest.approx(slope, abs=1e-15)


def test_bad_tensors_are_named():
    with pytest.raises(DomainError, match=r"'loc' must hold unit vectors: its norm is 1\.414"):
        VonMisesFisher(torch.ones(2), 1.0)
    with pytest.raises(NotFiniteError, match="'concentration' must be finite; got nan"):
        VonMisesFisher(torch.tensor([0.6, 0.8]), torch.tensor(math.nan))
    vmf = VonMisesFisher(torch.tensor([0.6, 0.8]), 1.0)
    with pytest.raises(DomainError, match="'x' must hold unit vectors: row 1 has norm 2"):
        vmf.log_prob(torch.tensor([[0.6, 0.8], [2.0, 0.0]]))
    with pytest.raises(TypeError, match="one library"):
        vmf.log_prob(np.array([0.6, 0.8]))
    with pytest.raises(TypeError, match="one library"):
        vmf.kl_divergence(VonMisesFisher([0.6, 0.8], 1.0))
    with pytest.raises(TypeError, match="one library"):
        VonMisesFisher(torch.tensor([0.6, 0.8]), np.array([1.0]))


def test_one_sample_warns_as_with_arrays():
    with pytest.warns(NumericalWarning, match="there is one sample"):
        fit = VonMisesFisher.fit(torch.tensor([[0.6, 0.8]]))
    assert math.isinf(fit.concentration)


def test_tensors_are_saved_as_arrays(tmp_path):
    vmf = VonMisesFisher(torch.tensor([0.6, 0.8], dtype=torch.float64), 3.0)
    vmf.save(tmp_path / "vmf.npz")
    back = VonMisesFisher.load(tmp_path / "vmf.npz")
    np.testing.assert_array_equal(back.loc, [0.6, 0.8])
    assert back.concentration == 3.0
