"""The Matern kernel of any smoothness, as a GPyTorch kernel."""

import subprocess
import sys
import unittest

import numpy as np
import pytest
from scipy.special import gamma, kv

torch = pytest.importorskip("torch")
gpytorch = pytest.importorskip("gpytorch")

from gpytorch.constraints import GreaterThan, Interval
from gpytorch.kernels import ScaleKernel
from gpytorch.priors import GammaPrior, LogNormalPrior
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase

from pyprobe.errors import DomainError
from pyprobe.gpytorch import MaternKernel, as_kernel, from_gpytorch
from pyprobe.gpytorch.kernels import _correlation, _squared_distance

HALF_INTEGERS = (0.5, 1.5, 2.5)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


class TestGPyTorchsOwnKernelCase(unittest.TestCase, BaseKernelTestCase):
    def create_kernel_no_ard(self, **kwargs):
        return MaternKernel(nu=1.3, **kwargs)

    def create_kernel_ard(self, num_dims, **kwargs):
        return MaternKernel(nu=1.3, ard_num_dims=num_dims, **kwargs)


# Values


@pytest.mark.parametrize("nu", [0.05, 0.3, 0.8, 1.0, 2.2, 3.7, 12.5])
def test_kernel_matches_the_bessel_function_of_scipy(double, nu):
    x, y = torch.rand(7, 2), torch.rand(5, 2)
    kernel = MaternKernel(nu=nu)
    kernel.lengthscale = 0.37
    argument = np.sqrt(2 * nu) * torch.cdist(x, y).numpy() / 0.37
    expected = 2 ** (1 - nu) / gamma(nu) * argument**nu * kv(nu, argument)
    np.testing.assert_allclose(kernel(x, y).to_dense().detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("nu", HALF_INTEGERS)
@pytest.mark.parametrize("ard", [None, 3])
def test_kernel_equals_gpytorchs_at_half_integers(double, nu, ard):
    x, y = torch.rand(20, 3), torch.rand(10, 3)
    ours = MaternKernel(nu=nu, ard_num_dims=ard)
    theirs = gpytorch.kernels.MaternKernel(nu=nu, ard_num_dims=ard)
    lengthscale = torch.linspace(0.3, 0.9, ard or 1)
    ours.lengthscale = theirs.lengthscale = lengthscale
    torch.testing.assert_close(ours(x, y).to_dense(), theirs(x, y).to_dense(), rtol=1e-13, atol=0)
    torch.testing.assert_close(ours(x, diag=True), torch.ones(20), rtol=0, atol=0)


def test_kernel_tends_to_the_squared_exponential(double):
    x = torch.rand(10, 2)
    smooth = MaternKernel(nu=1e6)(x).to_dense()
    torch.testing.assert_close(
        smooth, gpytorch.kernels.RBFKernel()(x).to_dense(), rtol=0, atol=1e-6
    )


def test_coincident_points_have_correlation_one_exactly():
    x = torch.rand(40, 3)
    x[7] = x[31]
    for nu in (0.2, 0.5, 1.0, 3.3):
        covariance = MaternKernel(nu=nu)(x).to_dense()
        assert covariance[7, 31] == 1
        assert (covariance.diagonal() == 1).all()


def test_near_points_keep_their_digits(double):
    x = torch.tensor([[1e3], [1e3 + 2.0**-20]])  # the product form |x|^2 + |y|^2 - 2 x.y cancels
    kernel = MaternKernel(nu=0.5)
    kernel.lengthscale = 1.0
    covariance = kernel(x).to_dense()
    assert 1 - covariance[0, 1].item() == pytest.approx(-np.expm1(-(2.0**-20)), rel=1e-9)


def test_kernel_keeps_float32():
    x = torch.rand(6, 2)
    kernel = MaternKernel(nu=1.7)
    single = kernel(x).to_dense()
    assert single.dtype == torch.float32
    double = MaternKernel(nu=1.7).double()(x.double()).to_dense()
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


def test_each_batch_has_its_own_smoothness(double):
    x = torch.rand(2, 6, 3)
    kernel = MaternKernel(nu=torch.tensor([0.7, 2.2]).reshape(2, 1, 1), batch_shape=torch.Size([2]))
    kernel.lengthscale = torch.tensor([0.5, 0.8]).reshape(2, 1, 1)
    assert kernel.raw_nu.shape == (2, 1, 1)
    covariance = kernel(x).to_dense()
    for i, (nu, lengthscale) in enumerate([(0.7, 0.5), (2.2, 0.8)]):
        one = MaternKernel(nu=nu)
        one.lengthscale = lengthscale
        torch.testing.assert_close(covariance[i], one(x[i]).to_dense())
    torch.testing.assert_close(kernel(x, diag=True), torch.ones(2, 6))
    shifted = kernel(x, x + 0.1, diag=True)
    torch.testing.assert_close(shifted, kernel(x, x + 0.1).to_dense().diagonal(dim1=-2, dim2=-1))


@pytest.mark.parametrize("ard", [None, 3])
@pytest.mark.filterwarnings("ignore:The last_dim_is_batch argument is deprecated")
def test_last_dimension_can_be_a_batch(double, ard):
    x = torch.rand(2, 5, 3)
    kernel = MaternKernel(nu=0.9, ard_num_dims=ard)
    covariance = kernel(x, last_dim_is_batch=True).to_dense()
    assert covariance.shape == (2, 3, 5, 5)
    for k in range(3):
        one = MaternKernel(nu=0.9)
        torch.testing.assert_close(covariance[:, k], one(x[..., k : k + 1]).to_dense())
    assert kernel(x, diag=True, last_dim_is_batch=True).shape == (2, 3, 5)


# Parameters


def test_smoothness_is_registered_as_gpytorch_registers_a_lengthscale():
    kernel = MaternKernel(nu=1.2, nu_prior=GammaPrior(2.0, 1.0))
    assert kernel.nu.item() == pytest.approx(1.2)
    kernel.nu = 0.8
    assert kernel.nu.item() == pytest.approx(0.8)
    kernel.initialize(nu=torch.tensor(3.1))
    assert kernel.nu.item() == pytest.approx(3.1)
    assert {name for name, _ in kernel.named_parameters()} == {"raw_lengthscale", "raw_nu"}
    assert kernel.raw_nu.shape == (1, 1)
    assert [name for name, *_ in kernel.named_priors()] == ["nu_prior"]
    torch.manual_seed(0)
    kernel.sample_from_prior("nu_prior")
    assert kernel.nu.item() != pytest.approx(3.1)


def test_state_travels_by_state_dict():
    kernel = ScaleKernel(MaternKernel(nu=1.2))
    other = ScaleKernel(MaternKernel(nu=2.5))
    other.load_state_dict(kernel.state_dict())
    assert other.base_kernel.nu.item() == pytest.approx(1.2)


def test_smoothness_stays_inside_its_constraint():
    kernel = MaternKernel(nu=1.0, nu_constraint=Interval(0.5, 4.0))
    with torch.no_grad():
        kernel.raw_nu.fill_(50.0)
    assert kernel.nu.item() == pytest.approx(4.0)
    with pytest.raises(DomainError, match="'nu' must be finite, positive and within Interval"):
        kernel.nu = 5.0


@pytest.mark.parametrize("nu", [0.0, -1.0, float("nan"), float("inf")])
def test_smoothness_outside_its_domain_is_refused(nu):
    with pytest.raises(DomainError, match=r"'nu' must be finite, positive and within Positive\(\)"):
        MaternKernel(nu=nu)


def test_prior_of_another_type_is_refused():
    with pytest.raises(TypeError, match="'nu_prior' must be a gpytorch"):
        MaternKernel(nu_prior=2.0)


# Gradients


def whole_kernel(nu, lengthscale, x, y):
    return _correlation(nu, _squared_distance(x / lengthscale, y / lengthscale))


@pytest.mark.parametrize("nu", [0.3, 0.5, 0.9, 1.4, 2.5, 6.0])
def test_gradients_in_smoothness_lengthscale_and_inputs(double, nu):
    arguments = (
        torch.tensor([[nu]], requires_grad=True),
        torch.tensor([[0.4, 0.7]], requires_grad=True),
        torch.rand(4, 2, requires_grad=True),
        torch.rand(3, 2, requires_grad=True),
    )
    assert torch.autograd.gradcheck(whole_kernel, arguments)
    assert torch.autograd.gradgradcheck(whole_kernel, arguments)


@pytest.mark.parametrize("nu", [1.4, 2.5, 6.0])
def test_gradients_at_coincident_points(double, nu):
    x = torch.rand(4, 2)
    x[2] = x[0]
    x.requires_grad_()
    parameters = (
        torch.tensor([[nu]], requires_grad=True),
        torch.tensor([[0.4, 0.7]], requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda n, e, x: whole_kernel(n, e, x, x), (*parameters, x))
    if nu > 2:  # else the third derivative, on which the finite differences rest, is infinite
        assert torch.autograd.gradgradcheck(
            lambda n, e, x: whole_kernel(n, e, x, x), (*parameters, x)
        )


@pytest.mark.parametrize("nu", [2.3, 3.0, 7.5])
def test_second_derivative_at_coincident_points_is_the_spectral_moment(double, nu):
    # d2k / dx dy at x = y, the variance of the derivative: nu / (nu - 1) / lengthscale^2.
    x, y = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    value = whole_kernel(torch.tensor([[nu]]), torch.tensor([[0.4]]), x, y)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), y)
    assert first.item() == 0
    assert second.item() == pytest.approx(nu / (nu - 1) / 0.4**2, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nu", [0.1, 0.5, 0.7, 1.0, 1.2, 2.5, 30.0])
@pytest.mark.parametrize("ard", [None, 2])
def test_gradients_are_finite_with_coincident_points(dtype, nu, ard):
    x = torch.rand(8, 2, dtype=dtype)
    x[3] = x[5]
    x[4] = x[6] + 1e-15
    x.requires_grad_()
    kernel = MaternKernel(nu=nu, ard_num_dims=ard).to(dtype)
    kernel(x).to_dense().sum().backward()
    for gradient in (x.grad, kernel.raw_nu.grad, kernel.raw_lengthscale.grad):
        assert gradient.isfinite().all()


def test_gradient_at_a_tiny_distance_keeps_its_digits(double):
    # For nu = 2.5 and r -> 0, dk/dr = -5/3 r.
    x = torch.zeros(1, 1, requires_grad=True)
    kernel = MaternKernel(nu=2.5)
    kernel.lengthscale = 1.0
    kernel(x, torch.full((1, 1), 1e-9)).to_dense().sum().backward()
    assert x.grad.item() == pytest.approx(5 / 3 * 1e-9, rel=1e-12)


@pytest.mark.parametrize("nu", HALF_INTEGERS)
def test_gradients_equal_gpytorchs_at_half_integers(double, nu):
    x, weights = torch.rand(12, 2), torch.rand(12, 12)
    gradients = []
    for kernel in (MaternKernel(nu=nu), gpytorch.kernels.MaternKernel(nu=nu)):
        points = x.clone().requires_grad_()
        (kernel(points).to_dense() * weights).sum().backward()
        gradients.append((points.grad, kernel.raw_lengthscale.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


# In models


class Regression(gpytorch.models.ExactGP):
    def __init__(self, x, y, kernel):
        super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = kernel

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def negative_log_likelihood(model):
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    return -likelihood(model(*model.train_inputs), model.train_targets) * len(model.train_targets)


def train(model, n_steps=40):
    model.train()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=n_steps, line_search_fn="strong_wolfe", tolerance_change=1e-8
    )

    def closure():
        optimizer.zero_grad()
        loss = negative_log_likelihood(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()


def simulate(nu, n, seed, *, lengthscale=0.3, noise=1e-4):
    """Draw a Gaussian process of smoothness `nu` at `n` random times; SciPy's Bessel function."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(size=n))
    argument = np.sqrt(2 * nu) * np.abs(x[:, None] - x) / lengthscale
    safe = np.where(argument > 0, argument, 1)
    covariance = 2 ** (1 - nu) / gamma(nu) * safe**nu * kv(nu, safe)
    covariance = np.where(argument > 0, covariance, 1) + noise * np.eye(n)
    y = np.linalg.cholesky(covariance) @ rng.standard_normal(n)
    return torch.tensor(x)[:, None], torch.tensor(y)


def fitted(x, y):
    model = Regression(x, y, ScaleKernel(MaternKernel(nu=1.5)))
    model.covar_module.base_kernel.lengthscale = 0.5
    model.likelihood.noise_covar.register_constraint("raw_noise", GreaterThan(1e-6))
    model.likelihood.noise = 1e-3
    loss = train(model, 100)
    return model, loss


def spread_of_smoothness(model):
    """Return the standard deviation of ``raw_nu`` in Laplace's approximation.

    The Hessian of the negative log-likelihood in all parameters, by differences of its gradient.
    """
    parameters = list(model.parameters())

    def gradient():
        grads = torch.autograd.grad(negative_log_likelihood(model), parameters)
        return torch.cat([g.flatten() for g in grads])

    rows, step = [], 1e-3
    for parameter in parameters:
        differences = []
        for sign in (1, -1):
            parameter.data += sign * step
            differences.append(gradient())
            parameter.data -= sign * step
        rows.append((differences[0] - differences[1]) / (2 * step))
    hessian = torch.stack(rows)
    covariance = torch.linalg.inv((hessian + hessian.T) / 2)
    index = next(i for i, p in enumerate(parameters) if p is model.covar_module.base_kernel.raw_nu)
    return covariance[index, index].sqrt().item()


def standardized_error(nu, n, seed):
    model, _ = fitted(*simulate(nu, n, seed))
    kernel = model.covar_module.base_kernel
    truth = kernel.raw_nu_constraint.inverse_transform(torch.tensor(nu)).item()
    spread = spread_of_smoothness(model)
    assert spread < 1  # the data say something about the smoothness
    return (kernel.raw_nu.item() - truth) / spread


@pytest.mark.parametrize("nu", [0.7, 1.9])
def test_smoothness_is_learned_within_its_posterior_spread(double, nu):
    assert abs(standardized_error(nu, 150, seed=3)) < 3


@pytest.mark.slow
@pytest.mark.statistical
def test_errors_of_learned_smoothness_have_the_spread_they_report(double):
    errors = np.array([standardized_error(0.8, 150, seed) for seed in range(30)])
    # Sum of 30 squared standard normals: outside [8, 75] once in 1e5 on either side.
    assert 8 < (errors**2).sum() < 75


def test_free_smoothness_fits_better_than_the_nearest_fixed_one(double):
    x, y = simulate(1.0, 150, seed=5)
    _, free = fitted(x, y)
    fixed = []
    for nu in HALF_INTEGERS:
        model = Regression(x, y, ScaleKernel(gpytorch.kernels.MaternKernel(nu=nu)))
        model.likelihood.noise_covar.register_constraint("raw_noise", GreaterThan(1e-6))
        model.likelihood.noise = 1e-3
        fixed.append(train(model, 100))
    assert free < min(fixed) - 1


def test_training_and_prediction_work_in_float32():
    torch.manual_seed(0)
    x = torch.linspace(0, 1, 40)[:, None]
    y = torch.sin(6 * x[:, 0]) + 0.1 * torch.randn(40)
    prior = LogNormalPrior(0.0, 1.0)
    model = Regression(x, y, ScaleKernel(MaternKernel(nu=1.5, nu_prior=prior)))
    first = negative_log_likelihood(model).item()
    assert train(model, 20) < first
    model.eval()
    new = x[:-1] + 0.01
    with torch.no_grad():
        predicted = model.likelihood(model(new))
    assert (predicted.mean - torch.sin(6 * new[:, 0])).abs().max() < 0.2
    assert predicted.variance.dtype == torch.float32


# Conversions


@pytest.mark.parametrize("nu", HALF_INTEGERS)
@pytest.mark.parametrize("ard", [None, 2])
def test_trained_gpytorch_kernel_comes_over_and_goes_back_with_its_predictions(double, nu, ard):
    x = torch.rand(30, 2)
    y = torch.sin(5 * x[:, 0]) + x[:, 1]
    theirs = Regression(x, y, ScaleKernel(gpytorch.kernels.MaternKernel(nu=nu, ard_num_dims=ard)))
    train(theirs, 10)
    new = torch.rand(7, 2)

    def predict(kernel):
        model = Regression(x, y, kernel)
        model.likelihood.load_state_dict(theirs.likelihood.state_dict())
        model.eval()
        with torch.no_grad():
            posterior = model(new)
            return torch.stack([posterior.mean, posterior.variance])

    expected = predict(theirs.covar_module)
    ours = from_gpytorch(theirs.covar_module)
    assert isinstance(ours.base_kernel, MaternKernel)
    assert ours.base_kernel.nu.item() == pytest.approx(nu, rel=1e-15)
    torch.testing.assert_close(predict(ours), expected, rtol=1e-7, atol=1e-8)
    back = as_kernel(ours)
    assert type(back.base_kernel) is gpytorch.kernels.MaternKernel
    torch.testing.assert_close(predict(back), expected, rtol=0, atol=0)
    assert type(theirs.covar_module.base_kernel) is gpytorch.kernels.MaternKernel


def test_conversion_reaches_into_sums_and_keeps_options():
    part = gpytorch.kernels.MaternKernel(
        nu=1.5,
        active_dims=(1,),
        batch_shape=torch.Size([2]),
        lengthscale_prior=GammaPrior(2.0, 1.0),
        lengthscale_constraint=GreaterThan(0.1),
    )
    kernel = ScaleKernel(part) + gpytorch.kernels.RBFKernel()
    ours = from_gpytorch(kernel).kernels[0].base_kernel
    assert ours.batch_shape == (2,)
    assert ours.active_dims.tolist() == [1]
    assert ours.raw_lengthscale_constraint.lower_bound == pytest.approx(0.1)
    assert [name for name, *_ in ours.named_priors()] == ["lengthscale_prior"]
    x = torch.rand(2, 5, 2)
    torch.testing.assert_close(ours(x).to_dense(), part(x).to_dense(), rtol=1e-4, atol=1e-4)


def test_conversion_says_what_it_cannot_carry():
    with pytest.raises(DomainError, match="'kernel' must be or hold a gpytorch MaternKernel"):
        from_gpytorch(gpytorch.kernels.RBFKernel())
    with pytest.raises(DomainError, match="'kernel' must be or hold a pyprobe MaternKernel"):
        as_kernel(gpytorch.kernels.RBFKernel())
    with pytest.raises(DomainError, match=r"nu = 0.5, 1.5 or 2.5.*got 0.8"):
        as_kernel(MaternKernel(nu=0.8))


def test_missing_gpytorch_is_named_with_its_extra():
    code = (
        "import sys; sys.modules['gpytorch'] = None\n"
        "from pyprobe.errors import MissingDependencyError\n"
        "try:\n    import pyprobe.gpytorch\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'pyprobe-rs[gpytorch]'" in run.stdout
