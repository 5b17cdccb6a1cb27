"""Mixtures of tensors: the native kernels on CPU tensors, and the twins against the kernels."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyprobe import _core
from pyprobe._engine import Engine
from pyprobe.directional import (
    VonMisesFisher,
    VonMisesFisherMixture,
    _mixture_data,
    _mixture_torch,
)
from pyprobe.errors import DomainError, NotFiniteError


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    return VonMisesFisherMixture([0.2, 0.3, 0.5], unit(rng.normal(size=(3, 8))), [20.0, 30.0, 40.0])


@pytest.fixture
def twins(monkeypatch):
    """Let CPU tensors take the path of tensors on other devices."""
    select = _mixture_data.select

    def elsewhere(*arrays):
        engine = select(*arrays)
        return Engine.TORCH if engine is Engine.NATIVE_TORCH else engine

    monkeypatch.setattr(_mixture_data, "select", elsewhere)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tensors_in_tensors_out(truth, dtype):
    x = torch.from_numpy(truth.sample((600,), rng=1)).to(dtype)
    fit = VonMisesFisherMixture.fit(x, 3, rng=2)
    same = VonMisesFisherMixture.fit(x.numpy(), 3, rng=2)
    for name in ("weights", "locs", "concentrations"):
        value = getattr(fit, name)
        assert value.dtype == dtype
        np.testing.assert_array_equal(value.numpy(), getattr(same, name))
    assert fit.log_prob(x).dtype == dtype
    np.testing.assert_array_equal(fit.log_prob(x).numpy(), same.log_prob(x.numpy()))
    assert fit.predict(x).dtype == torch.int64
    assert fit.predict_proba(x).shape == (600, 3)
    assert fit.sample((2, 3), rng=0).dtype == dtype
    assert fit.sample((2, 3), rng=0).shape == (2, 3, 8)
    assert fit.aic(x) == same.aic(x.numpy())


def test_answers_follow_the_data_and_not_the_model(truth):
    x = truth.sample((5,), rng=0)
    assert isinstance(truth.log_prob(torch.from_numpy(x)), torch.Tensor)
    model = VonMisesFisherMixture.fit(torch.from_numpy(truth.sample((300,), rng=1)), 3, rng=2)
    assert isinstance(model.log_prob(x), np.ndarray)


def test_saving_a_model_of_tensors_gives_one_of_arrays(truth, tmp_path):
    x = torch.from_numpy(truth.sample((300,), rng=1))
    fit = VonMisesFisherMixture.fit(x, 3, rng=2)
    fit.save(tmp_path / "fit.npz")
    back = VonMisesFisherMixture.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(back.locs, fit.locs.numpy())


def test_a_torch_generator_advances(truth):
    generator = torch.Generator().manual_seed(3)
    first = truth.sample((4,), rng=generator)
    assert (first != truth.sample((4,), rng=generator)).all()
    np.testing.assert_array_equal(first, truth.sample((4,), rng=torch.Generator().manual_seed(3)))


def test_log_prob_is_differentiable_in_x(truth):
    x = torch.from_numpy(truth.sample((4,), rng=0)).requires_grad_()
    value = truth.log_prob(x)
    np.testing.assert_allclose(
        value.detach().numpy(), truth.log_prob(x.detach().numpy()), rtol=1e-13
    )
    (gradient,) = torch.autograd.grad(value.sum(), x)
    # The posterior mean of kappa mu.
    shares = truth.predict_proba(x.detach().numpy())
    expected = shares @ (truth.concentrations[:, None] * truth.locs)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("hard", [False, True])
def test_a_step_of_the_twin_is_that_of_the_kernel(truth, dtype, hard):
    x = truth.sample((1000,), rng=0).astype(dtype)
    directions = np.ascontiguousarray(truth.locs.T)
    offset = np.array([-1.0, 0.5, 0.0])
    native = _core.vmf_mixture_step(x, (directions, truth.concentrations, offset), hard)
    twin = _mixture_torch.vmf_mixture_step(
        torch.from_numpy(x), (torch.from_numpy(directions), truth.concentrations, offset), hard
    )
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for a, b in zip(native, twin, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_the_twin_fits_what_the_kernel_fits(truth, dtype, kind):
    array = truth.sample((2000,), rng=1)
    x = torch.from_numpy(array).to(dtype)
    twin = VonMisesFisherMixture.fit(x, 3, kind=kind, init=torch.from_numpy(truth.locs.copy()))
    native = VonMisesFisherMixture.fit(array, 3, kind=kind, init=truth.locs)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for name in ("weights", "locs", "concentrations"):
        assert getattr(twin, name).dtype == dtype
        np.testing.assert_allclose(
            getattr(twin, name).numpy(), getattr(native, name), rtol=tolerance, atol=tolerance
        )
    np.testing.assert_allclose(twin.log_prob(x).numpy(), native.log_prob(array), rtol=1e-2)
    np.testing.assert_allclose(twin.predict_proba(x), native.predict_proba(array), atol=1e-2)
    np.testing.assert_array_equal(
        twin.predict(x[:50]).numpy(), native.predict_proba(array[:50]).argmax(axis=1)
    )


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize(("d", "kappa"), [(3, 1e7), (1000, 1e8)])
def test_the_twin_carries_high_concentrations_in_float32(d, kappa):
    rng = np.random.default_rng(0)
    locs = unit(unit(rng.normal(size=d)) + kappa**-0.5 * rng.normal(size=(4, d)))
    double = VonMisesFisherMixture(np.full(4, 0.25), locs, kappa)
    x = torch.from_numpy(double.sample((500,), rng=1)).float()
    rows = unit(x.double().numpy())
    twin = double.log_prob(x)
    assert twin.dtype == torch.float32
    expected = double.log_prob(rows)
    np.testing.assert_allclose(twin, expected, rtol=0, atol=6e-8 * abs(expected).max() + 1e-6)
    np.testing.assert_array_equal(double.predict(x), double.predict(rows))
    directions, *rest = double._logits
    native = _core.vmf_mixture_step(x.numpy(), (directions, *rest), False)
    step = _mixture_torch.vmf_mixture_step(x, (torch.from_numpy(directions), *rest), False)
    for a, b in zip(native, step, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(double.log_prob(x.requires_grad_()).sum(), x)
    expected = kappa * double.predict_proba(rows) @ locs
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 * kappa)


@pytest.mark.usefixtures("twins")
def test_the_twin_starts_by_itself(truth):
    x = torch.from_numpy(truth.sample((2000,), rng=1))
    fit = VonMisesFisherMixture.fit(x, 3, rng=0)
    order = np.argmax(truth.locs @ fit.locs.numpy().T, axis=1)
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(fit.concentrations.numpy()[order], truth.concentrations, rtol=0.1)
    again = VonMisesFisherMixture.fit(x, 3, rng=0)
    assert torch.equal(fit.locs, again.locs)


def test_the_twin_seeds_reach_every_cluster():
    x = torch.eye(6, dtype=torch.float64)[torch.arange(600) % 6]
    for key in range(20):
        seeds = _mixture_torch.spherical_seeds(x, 6, 4, key)
        assert {seed % 6 for seed in seeds} == set(range(6))
        assert seeds == sorted(set(seeds))
    # Nothing is left to draw where all rows are equal.
    assert len(_mixture_torch.spherical_seeds(x[::6], 3, 4, 0)) == 3


@pytest.mark.usefixtures("twins")
def test_the_twin_refuses_bad_rows():
    with pytest.raises(DomainError, match="'x' must hold unit vectors: row 1 has norm 2"):
        VonMisesFisherMixture.fit(torch.diag(torch.tensor([1.0, 2.0])), 1)
    with pytest.raises(NotFiniteError, match=r"'x' must be finite; .* NaN: 1, the first at row 0"):
        VonMisesFisherMixture.fit(torch.diag(torch.tensor([torch.nan, 1.0])), 1)
    with pytest.raises(TypeError, match="real numbers"):
        VonMisesFisherMixture.fit(torch.eye(3, dtype=torch.complex64), 1)


def test_sparse_tensors_are_refused_with_the_way_out():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its CSR layout a beta version
        rows = torch.eye(3).to_sparse_csr()
    for x in (torch.eye(3).to_sparse(), rows):
        with pytest.raises(TypeError, match=r"dense torch tensor .*\.to_dense\(\), or .* SciPy"):
            VonMisesFisherMixture.fit(x, 2)
        with pytest.raises(TypeError, match=r"dense torch tensor .*\.to_dense\(\)"):
            VonMisesFisher.fit(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_gpu_stay_there(truth):
    x = torch.from_numpy(truth.sample((2000,), rng=1)).cuda()
    fit = VonMisesFisherMixture.fit(x, 3, rng=0)
    assert fit.locs.is_cuda
    assert fit.log_prob(x).is_cuda
    assert fit.sample((2,), rng=0).is_cuda


def test_float32_keeps_its_digits_under_autocast(truth):
    x = torch.from_numpy(truth.sample((50,), rng=1)).float()
    k = len(truth.weights)
    parameters = torch.from_numpy(np.array(truth.locs.T)), np.full(k, 20.0), np.zeros(k)
    expected = _mixture_torch.vmf_mixture_log_prob(x, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        found = _mixture_torch.vmf_mixture_log_prob(x, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
