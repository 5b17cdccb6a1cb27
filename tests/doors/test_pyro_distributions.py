"""The distributions of `pyprobe.pyro`: values, shapes, draws, refusals."""

import math
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist
from pyro import poutine
from torch.distributions import biject_to, kl_divergence, transform_to

from pyprobe.directional import _torch as twin
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.pyro import SphericalUniform, VonMisesFisher, VonMisesFisherMixture, unit_vector

# d, concentration, log C, A, A', entropy, KL to uniform: mpmath at 60 digits.
TABLE = """
2 1 -2.0737914249165241 0.44638996589653451 0.35434603245035625 1.6274014590199896 0.21047560738935586
3 0.01 -2.5310409135804023 3.3333111113227493e-3 0.33332666677248529 2.5310075804692890 1.6666500001763651e-5
3 1000 -994.93012178742721 0.999 1e-6 -4.0698782125727916 6.6009024595420824
5 2 -3.6498030408447885 0.36110665020670828 0.14738868676307348 2.9275897404313720 0.34269928427915459
128 100 95.061468821697639 0.54832914971433527 2.9571234363482985e-3 -149.89438379313117 22.840927268771196
2048 0.01 4898.3838626296909 4.8828124998836984e-6 4.8828124996510948e-4 -4898.3838626785190 2.4414062499127738e-8
8192 1e4 21021.245752280172 0.67105435300914806 2.5434757680532626e-5 -27731.789282371653 2450.9657473140269
32768 3e4 113156.94181144955 0.59328402435373650 9.4789133388668310e-6 -130955.46254206164 7108.0155375252126
"""  # noqa: E501
REFERENCE = [tuple(map(float, line.split())) for line in TABLE.strip().splitlines()]


def directions(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    return x / x.norm(dim=-1, keepdim=True)


def angle_cdf(dim, concentration):
    """Return the distribution function of loc . x, by quadrature of its density over the angle."""
    angle = np.linspace(0, np.pi, 200_001)
    with np.errstate(divide="ignore"):
        log_density = concentration * (np.cos(angle) - 1)
        log_density += scipy.special.xlogy(dim - 2, np.sin(angle))
    density = np.exp(log_density - log_density.max())
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return lambda w: 1 - np.interp(np.arccos(np.clip(w, -1, 1)), angle, mass / mass[-1])


# Values


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"d{row[0]:.0f}-kappa{row[1]:g}")
def test_density_moments_and_divergences_match_mpmath(row):
    dim, concentration, log_c, ratio, slope, entropy, kl = int(row[0]), *row[1:]
    loc = directions(dim)
    d = VonMisesFisher(loc, torch.tensor(concentration, dtype=torch.float64))
    assert d.log_prob(loc).item() == pytest.approx(log_c + concentration, rel=1e-13, abs=1e-12)
    assert d.log_prob(-loc).item() == pytest.approx(log_c - concentration, rel=1e-13, abs=1e-12)
    assert (d.mean @ loc).item() == pytest.approx(ratio, rel=1e-14)
    assert d.entropy().item() == pytest.approx(entropy, rel=1e-13, abs=1e-13)
    assert kl_divergence(d, SphericalUniform(dim)).item() == pytest.approx(kl, rel=1e-13, abs=0)
    if dim <= 128:
        covariance = d.covariance_matrix
        assert (loc @ covariance @ loc).item() == pytest.approx(slope, rel=1e-12)
        across = ratio / concentration
        assert covariance.trace().item() == pytest.approx(slope + (dim - 1) * across, rel=1e-12)
        torch.testing.assert_close(covariance.diagonal(), d.variance)


def test_density_matches_scipy():
    loc, x = directions(6), directions(20, 6, seed=1)
    theirs = scipy.stats.vonmises_fisher(loc.numpy(), 7.5).logpdf(x.numpy())
    np.testing.assert_allclose(VonMisesFisher(loc, 7.5).log_prob(x), theirs, rtol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 17, 2048])
def test_concentration_zero_is_the_uniform_distribution(dim):
    x = directions(4, dim)
    d, uniform = VonMisesFisher(directions(dim, seed=2), 0.0), SphericalUniform(dim)
    torch.testing.assert_close(d.log_prob(x), uniform.log_prob(x).double(), rtol=1e-6, atol=1e-6)
    assert kl_divergence(d, uniform).item() == 0
    assert d.mean.norm() == 0
    torch.testing.assert_close(d.variance, torch.full((dim,), 1 / dim, dtype=torch.float64))


@pytest.mark.parametrize("dim", [2, 3, 10, 100])
@pytest.mark.parametrize(
    "pair",
    [
        (1e-3, 2e-3),
        (1.0, 1.0 + 1e-6),
        (10.0, 17.0),
        (100.0, 30.0),
        (1e4, 3e4),
        (3e4, 5.0),
        (1e6, 1e7),
    ],
)
def test_divergence_of_two_concentrations_matches_mpmath(dim, pair):
    with mpmath.workdps(60):
        p, q = (mpmath.mpf(k) for k in pair)

        def cumulant(k):
            return mpmath.log(mpmath.besseli(mpmath.mpf(dim) / 2 - 1, k)) - (
                mpmath.mpf(dim) / 2 - 1
            ) * mpmath.log(k)

        ratio = mpmath.besseli(mpmath.mpf(dim) / 2, p) / mpmath.besseli(mpmath.mpf(dim) / 2 - 1, p)
        expected = float(cumulant(q) - cumulant(p) - ratio * (q - p))
    loc = directions(dim)
    kl = kl_divergence(VonMisesFisher(loc, pair[0]), VonMisesFisher(loc, pair[1]))
    assert kl.item() == pytest.approx(expected, rel=1e-12, abs=0)


def test_divergence_is_the_mean_of_the_log_ratio():
    torch.manual_seed(0)
    p = VonMisesFisher(directions(4), 6.0)
    q = VonMisesFisher(directions(4, seed=5), 3.0)
    for other in (q, SphericalUniform(4, dtype=torch.float64)):
        x = p.sample((200_000,))
        log_ratio = p.log_prob(x) - other.log_prob(x)
        error = log_ratio.mean() - kl_divergence(p, other)
        assert abs(error) < 4.9 * log_ratio.std() / len(x) ** 0.5
        x = SphericalUniform(4, dtype=torch.float64).sample((200_000,))
    log_ratio = SphericalUniform(4, dtype=torch.float64).log_prob(x) - q.log_prob(x)
    error = log_ratio.mean() - kl_divergence(SphericalUniform(4), q)
    assert abs(error) < 4.9 * log_ratio.std() / len(x) ** 0.5
    assert kl_divergence(SphericalUniform(4), SphericalUniform(4)).item() == 0


def test_density_keeps_float32():
    loc, x = directions(9), directions(5, 9, seed=1)
    d = VonMisesFisher(loc.float(), 40.0)
    assert d.log_prob(x.float()).dtype == d.entropy().dtype == d.sample().dtype == torch.float32
    exact = VonMisesFisher(loc, 40.0).log_prob(x)
    torch.testing.assert_close(d.log_prob(x.float()).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("concentration", [0.0, 1e-6, 3.0, 1e4, 1e8])
def test_density_has_both_derivatives_in_all_arguments(concentration):
    x, loc = directions(3, 4), directions(4, seed=3)
    kappa = torch.tensor(max(concentration, 0.5), dtype=torch.float64)
    arguments = [t.clone().requires_grad_() for t in (x, loc, kappa)]
    if concentration < 1e4:
        assert torch.autograd.gradcheck(twin.log_prob, arguments)
        assert torch.autograd.gradgradcheck(twin.log_prob, arguments)
    kappa = torch.tensor(concentration, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(VonMisesFisher(loc, kappa).log_prob(x).sum(), kappa)
    mean = VonMisesFisher(loc, concentration).mean
    assert slope.item() == pytest.approx(((x - mean) @ loc).sum().item(), abs=1e-12)


# Shapes


def test_batches_broadcast_and_expand():
    d = VonMisesFisher(directions(5, 1, 3), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert (d.batch_shape, d.event_shape) == ((5, 2), (3,))
    assert d.loc.shape == d.mean.shape == d.variance.shape == d.mode.shape == (5, 2, 3)
    assert d.concentration.shape == d.entropy().shape == (5, 2)
    assert d.covariance_matrix.shape == (5, 2, 3, 3)
    x = d.rsample((7,))
    assert x.shape == (7, 5, 2, 3)
    assert d.log_prob(x).shape == (7, 5, 2)
    assert d.log_prob(x[0, 0, 0]).shape == (5, 2)
    expanded = d.expand((4, 5, 2))
    assert expanded.rsample().shape == (4, 5, 2, 3)
    assert expanded.entropy().shape == (4, 5, 2)
    torch.testing.assert_close(expanded.log_prob(x[0]), d.log_prob(x[0]).expand(4, 5, 2))
    event = d.to_event(1)
    assert (event.batch_shape, event.event_shape) == ((5,), (2, 3))
    assert event.log_prob(x).shape == (7, 5)
    assert VonMisesFisher.infer_shapes(torch.Size((5, 1, 3)), torch.Size((2,))) == ((5, 2), (3,))
    for shape in ((5, 3), (3, 2), (2,)):
        with pytest.raises(ShapeError, match="'batch_shape' must extend"):
            d.expand(shape)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 1)])
def test_draws_have_the_shape_asked_for(shape):
    for d in (
        VonMisesFisher(directions(2, 4), 3.0),
        SphericalUniform(4).expand((2,)),
        VonMisesFisherMixture(torch.ones(3, dtype=torch.float64) / 3, directions(2, 3, 4), 5.0),
    ):
        x = d.sample(shape)
        assert x.shape == (*shape, 2, 4)
        assert d.log_prob(x).shape == (*shape, 2)


def test_each_row_of_a_batch_is_drawn_from_its_own_parameters():
    torch.manual_seed(0)
    loc = directions(3, 1, 6)
    concentration = torch.tensor([1e8, 1e9], dtype=torch.float64)
    x = VonMisesFisher(loc, concentration).sample((50,))
    assert (x - loc).abs().max() < 1e-3
    x = VonMisesFisher(directions(6), concentration).expand((4, 2)).sample((3,))
    assert (x - directions(6)).abs().max() < 1e-3


def test_a_shared_concentration_costs_one_bessel_function_under_a_plate(monkeypatch):
    sizes = []
    real = twin.log_ive
    monkeypatch.setattr(twin, "log_ive", lambda v, x: sizes.append(x.numel()) or real(v, x))
    data = directions(1000, 3)
    with pyro.plate("data", 1000):
        pyro.sample("x", VonMisesFisher(directions(3), 5.0), obs=data)
    with poutine.trace() as trace, pyro.plate("data", 1000):
        pyro.sample("x", VonMisesFisher(directions(3), 5.0), obs=data)
    trace.trace.compute_log_prob()
    assert trace.trace.nodes["x"]["log_prob"].shape == (1000,)
    assert set(sizes) == {1}


def test_mixture_broadcasts_and_expands():
    weights = torch.tensor([[0.2, 0.8], [0.5, 0.5]], dtype=torch.float64)
    d = VonMisesFisherMixture(weights, directions(2, 4), torch.tensor([3.0, 9.0]).double())
    assert (d.batch_shape, d.event_shape) == ((2,), (4,))
    assert d.mean.shape == d.variance.shape == (2, 4)
    x = d.sample((6,))
    assert x.shape == (6, 2, 4)
    expanded = d.expand((3, 2))
    assert expanded.log_prob(x[:3]).shape == (3, 2)
    torch.testing.assert_close(expanded.log_prob(x[:3]), d.log_prob(x[:3]))
    assert expanded.component_distribution.batch_shape == (3, 2, 2)
    assert d.responsibilities(x).sum(-1).sub(1).abs().max() < 1e-12


def test_mixture_density_and_moments_are_those_of_its_components():
    torch.manual_seed(0)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    concentrations = torch.tensor([0.0, 4.0, 300.0], dtype=torch.float64)
    d = VonMisesFisherMixture(weights, directions(3, 5), concentrations)
    same = dist.MixtureSameFamily(
        dist.Categorical(weights), VonMisesFisher(directions(3, 5), concentrations)
    )
    x = d.sample((100_000,))
    torch.testing.assert_close(d.log_prob(x[:100]), same.log_prob(x[:100]))
    torch.testing.assert_close(d.mean, same.mean)
    torch.testing.assert_close(d.variance, same.variance)
    error = (x.mean(0) - d.mean).abs()
    assert (error < 4.9 * (d.variance / len(x)).sqrt()).all()


# Draws


def test_the_seed_of_torch_and_pyro_rules_the_draws():
    d = VonMisesFisher(directions(4, 5), 8.0)
    torch.manual_seed(3)
    first, second = d.sample((6,)), d.sample((6,))
    pyro.set_rng_seed(3)
    assert torch.equal(d.sample((6,)), first)
    assert torch.equal(d.rsample((6,)), second)
    assert not torch.equal(first, second)


def test_draws_are_the_same_with_a_gradient_recorded():
    d = VonMisesFisher(directions(5), 8.0)
    recorded = VonMisesFisher(directions(5), torch.tensor(8.0).double().requires_grad_())
    torch.manual_seed(3)
    x = d.sample((6,))
    torch.manual_seed(3)
    assert torch.equal(recorded.rsample((6,)).detach(), x)


@pytest.mark.statistical
@pytest.mark.parametrize("engine", ["native", "twin"])
@pytest.mark.parametrize(
    ("dim", "concentration"),
    [(2, 0.0), (2, 3.0), (3, 1.0), (3, 50.0), (5, 2.0), (32, 10.0), (256, 1000.0)],
)
def test_law_of_the_cosine_is_exact(engine, dim, concentration):
    torch.manual_seed(1)
    loc, n = directions(dim), 20_000
    kappa = torch.tensor(concentration, dtype=torch.float64)
    if engine == "native":
        x = VonMisesFisher(loc, kappa).sample((n,))
    else:
        x, complement = twin.sample(loc, kappa, (n,))
        torch.testing.assert_close(1 - x @ loc, complement, rtol=0, atol=1e-14)
    assert (x.norm(dim=-1) - 1).abs().max() < 1e-14
    test = scipy.stats.kstest((x @ loc).numpy(), angle_cdf(dim, concentration))
    assert test.pvalue > 1e-6
    # Across loc the draws are uniform, and independent of how far they are from it.
    across = directions(dim, seed=9)
    across = across - (across @ loc) * loc
    tangent = x - (x @ loc)[:, None] * loc
    cosine = tangent @ across / (tangent.norm(dim=-1) * across.norm())
    if dim > 2:
        assert scipy.stats.kstest(cosine.numpy(), angle_cdf(dim - 1, 0.0)).pvalue > 1e-6
    else:
        assert abs((cosine > 0).double().mean() - 0.5) < 4.9 * 0.5 / n**0.5


@pytest.mark.statistical
def test_uniform_draws_are_uniform():
    torch.manual_seed(0)
    x = SphericalUniform(5, dtype=torch.float64).sample((20_000,))
    assert scipy.stats.kstest((x @ directions(5)).numpy(), angle_cdf(5, 0.0)).pvalue > 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_drawn_in_single_and_rounded(dtype):
    loc = directions(4, 300).to(dtype)
    kappa = torch.tensor(900.0, dtype=dtype, requires_grad=True)
    d = VonMisesFisher(loc, kappa)
    single = VonMisesFisher(loc.float(), 900.0, validate_args=False)
    torch.manual_seed(0)
    x = d.rsample((50,))
    torch.manual_seed(0)
    assert x.dtype == dtype
    assert torch.equal(x, single.sample((50,)).to(dtype))
    (gradient,) = torch.autograd.grad((x * loc).sum(), kappa)
    assert gradient.dtype == dtype
    assert gradient > 0  # draws move towards loc
    assert d.log_prob(x.detach()).isfinite().all()
    weights = torch.tensor([0.25, 0.75], dtype=dtype)
    mixture = VonMisesFisherMixture(weights, loc[:2], kappa.detach())
    y = mixture.sample((50,))
    assert y.dtype == dtype
    assert mixture.log_prob(y).isfinite().all()
    assert SphericalUniform(300, dtype=dtype).sample((50,)).dtype == dtype


# Constraint


@pytest.mark.parametrize("dim", [2, 16, 2048, 131072])
def test_support_takes_rows_normalized_in_float32_which_pyros_sphere_refuses(dim):
    rows = directions(8, dim, dtype=torch.float32)
    by_hand = torch.tensor(rows.numpy() / np.sqrt((rows.numpy() ** 2).sum(-1, keepdims=True)))
    for x in (rows, rows.double(), by_hand, by_hand.double()):
        assert unit_vector.check(x).all()
    assert not dist.constraints.sphere.check(rows.double()).any()
    assert not unit_vector.check(1.001 * rows).any()
    assert not unit_vector.check(torch.full((dim,), math.nan))


def test_a_direction_can_be_a_parameter():
    pyro.clear_param_store()
    start = directions(3)
    direction = pyro.param("direction", start, constraint=unit_vector)
    torch.testing.assert_close(direction, start)
    raw = pyro.get_param_store()._params["direction"]
    with torch.no_grad():
        raw += torch.tensor([0.3, -2.0, 0.1])
    assert pyro.param("direction").norm().item() == pytest.approx(1)
    assert transform_to(unit_vector)(torch.tensor([0.0, 3.0])).tolist() == [0, 1]


def test_a_bijection_is_refused_with_the_way_out():
    for constraint in (unit_vector, VonMisesFisher(directions(2, 3), 1.0).to_event(1).support):
        with pytest.raises(NotImplementedError, match=r"pyprobe\.pyro\.VonMisesFisherReparam"):
            biject_to(constraint)


# Refusals


def test_bad_parameters_are_refused_by_name():
    loc, rows = directions(3), directions(2, 3)
    long_row = rows * torch.tensor([[1.0], [2.0]])
    cases = [
        (DomainError, r"'loc' must hold unit vectors: row 1 has norm 2", long_row, 1.0),
        (DomainError, r"'loc' must hold unit vectors: row 0 has norm 0\.", torch.zeros(3), 1.0),
        (NotFiniteError, r"'loc' must be finite; .* in row 0", torch.full((3,), math.nan), 1.0),
        (DomainError, r"'concentration' must not be negative; got -1\.", loc, -1.0),
        (NotFiniteError, r"'concentration' must be finite; got inf", loc, math.inf),
        (NotFiniteError, r"'concentration' must be finite; got nan", loc, math.nan),
        (ShapeError, r"'loc' must have shape \(\.\.\., d\).*got \(1,\)", torch.ones(1), 1.0),
        (ShapeError, r"'loc' must have shape", torch.tensor(1.0), 1.0),
        (ShapeError, r"'concentration' must broadcast .* \(2,\); got \(3,\)", rows, torch.ones(3)),
    ]
    for bad, came in [([1.0, 0.0], "list"), (torch.tensor([1, 0]), r"a tensor of torch\.int64")]:
        cases.append((TypeError, f"'loc' must be a torch tensor of floats; got {came}", bad, 1.0))
    cases.append((TypeError, "'concentration' must be a torch tensor or a num.* list", loc, [1.0]))
    for error, message, bad_loc, concentration in cases:
        with pytest.raises(error, match=message):
            VonMisesFisher(bad_loc, concentration)
    assert VonMisesFisher(2 * loc, 1.0, validate_args=False).batch_shape == ()


def test_bad_mixtures_are_refused_by_name():
    locs = directions(3, 4)
    third = torch.ones(3, dtype=torch.float64) / 3
    with pytest.raises(ShapeError, match=r"'weights' must have shape \(\.\.\., 3\)"):
        VonMisesFisherMixture(third[:2], locs, 1.0)
    with pytest.raises(ShapeError, match=r"'locs' must have shape \(\.\.\., k, d\)"):
        VonMisesFisherMixture(third, locs[0], 1.0)
    with pytest.raises(ShapeError, match="'concentrations' must broadcast"):
        VonMisesFisherMixture(third, locs, torch.ones(2))
    with pytest.raises(DomainError, match="'locs' must hold unit vectors: row 0"):
        VonMisesFisherMixture(third, 3 * locs, 1.0)
    with pytest.raises(ValueError, match="weights"):
        VonMisesFisherMixture(2 * third, locs, 1.0)


def test_bad_values_are_refused():
    for d in (VonMisesFisher(directions(3), 1.0), SphericalUniform(3)):
        with pytest.raises(ValueError, match="UnitVector"):
            d.log_prob(2 * directions(3))
    with pytest.raises(DomainError, match="'dim' must be at least 2; got 1"):
        SphericalUniform(1)


def test_divergences_between_spheres_of_different_dimension_are_refused():
    three, four = VonMisesFisher(directions(3), 1.0), VonMisesFisher(directions(4), 1.0)
    for p in (three, SphericalUniform(3)):
        for q in (four, SphericalUniform(4)):
            with pytest.raises(ShapeError, match="of one dimension; got 3 and 4"):
                kl_divergence(p, q)
            with pytest.raises(ShapeError, match="of one dimension; got 4 and 3"):
                kl_divergence(q, p)


def test_a_mixture_says_that_its_draws_have_no_gradient():
    mixture = VonMisesFisherMixture(torch.ones(2) / 2, torch.eye(2, 3), 1.0)
    assert not mixture.has_rsample
    with pytest.raises(NotImplementedError, match=r"carry no gradient: .* Use sample\(\)"):
        mixture.rsample()


def test_missing_pyro_is_named_with_its_extra():
    code = (
        "import sys; sys.modules['pyro'] = None\n"
        "from pyprobe.errors import MissingDependencyError\n"
        "try:\n    import pyprobe.pyro\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'pyprobe-rs[pyro]'" in run.stdout


def test_the_repr_shows_numbers_and_shapes():
    d = VonMisesFisher(directions(5, 3), 2.5)
    assert repr(d) == "VonMisesFisher(loc: (5, 3), concentration: 2.5)"
    assert repr(SphericalUniform(3)) == "SphericalUniform(3)"
    mixture = VonMisesFisherMixture(torch.ones(2) / 2, torch.eye(2, 3), 1.0)
    assert repr(mixture).endswith("(weights: (2,), locs: (2, 3), concentrations: 1)")
