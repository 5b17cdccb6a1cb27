"""Pictures show what they say they show."""

import sys

import numpy as np
import pytest

from pyprobe import plot
from pyprobe.directional import VonMisesFisher, VonMisesFisherMixture
from pyprobe.errors import (
    ConvergenceWarning,
    DomainError,
    MissingDependencyError,
    NumericalWarning,
    ShapeError,
)
from pyprobe.special import bessel_ratio
from pyprobe.transport import (
    LightSchrodingerBridge,
    sinkhorn,
    sinkhorn_divergence,
    sinkhorn_points,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
from matplotlib import pyplot  # only once the backend is chosen


@pytest.fixture(autouse=True)
def close_figures():
    before = matplotlib.rcParams.copy()
    yield
    assert matplotlib.rcParams == before
    pyplot.close("all")


@pytest.fixture
def mixture():
    locs = [[0.8, 0.6, 0.0], [0.0, 0.28, 0.96]]
    return VonMisesFisherMixture(weights=[0.25, 0.75], locs=locs, concentrations=[5.0, 7.0])


@pytest.fixture
def vmf():
    return VonMisesFisher([0.48, 0.6, 0.64], 12.0)


def test_topics_are_listed_by_share_with_their_heaviest_words_first(mixture):
    ax = plot.mixture_topics(mixture, ["ham", "spam", "egg"], n_words=2)
    assert [text.get_text() for text in ax.texts] == ["egg", "spam", "ham", "spam"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["75.0%", "25.0%"]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.96, 0.28], [0.8, 0.6]])


def test_topics_need_a_word_for_every_dimension(mixture):
    with pytest.raises(ShapeError, match=r"'vocabulary' must hold 3 words.*got 2"):
        plot.mixture_topics(mixture, ["ham", "spam"])


def test_the_map_of_a_density_integrates_to_one(vmf):
    n = 400
    ax = plot.sphere_density(vmf, n_grid=n)
    density = np.asarray(ax.collections[0].get_array()).reshape(n // 2, n)
    latitude = (np.arange(n // 2) + 0.5) * 2 * np.pi / n - np.pi / 2
    area = (2 * np.pi / n) ** 2 * np.cos(latitude)[:, None]
    assert abs(np.sum(density * area) - 1) < 1e-3


def test_the_map_is_brightest_at_the_mean_direction_and_shows_the_samples(vmf):
    n = 180
    ax = plot.sphere_density(vmf, n_grid=n, samples=[[0.0, 1.0, 0.0]])
    density = np.asarray(ax.collections[0].get_array()).reshape(n // 2, n)
    row, column = np.unravel_index(density.argmax(), density.shape)
    longitude, latitude = np.arctan2(0.6, 0.48), np.arcsin(0.64)
    cell = 2 * np.pi / n
    assert abs((column + 0.5) * cell - np.pi - longitude) < cell
    assert abs((row + 0.5) * cell - np.pi / 2 - latitude) < cell
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[np.pi / 2, 0]])


def test_the_map_is_of_three_dimensions_only():
    with pytest.raises(ShapeError, match="3"):
        plot.sphere_density(VonMisesFisher([0.6, 0.8], 1.0))


def test_the_profile_peaks_at_the_estimate_with_the_curvature_of_its_standard_error(vmf):
    x = vmf.sample((400,), rng=0)
    ax = plot.concentration_profile(x)
    grid, curve = ax.lines[0].get_data()
    fit = VonMisesFisher.fit(x)
    resultant = np.linalg.norm(x.mean(axis=0))
    assert abs(bessel_ratio(0.5, fit.concentration) - resultant) < 1e-12
    peak = np.argmax(curve)
    assert curve[peak] == 0
    assert abs(grid[peak] - fit.concentration) <= grid[1] - grid[0]
    # Half a nat is lost one standard error away, were the curve a parabola.
    error = fit.info.concentration_stderr
    np.testing.assert_allclose(
        np.interp(fit.concentration + np.array([-error, error]), grid, curve), -0.5, atol=0.05
    )


def test_the_axes_given_are_the_axes_drawn_into(vmf, mixture):
    figure, axes = pyplot.subplots(1, 2)
    assert plot.concentration_profile(vmf.sample((50,), rng=0), ax=axes[0]) is axes[0]
    assert plot.mixture_topics(mixture, ["a", "b", "c"], ax=axes[1]) is axes[1]
    assert pyplot.get_fignums() == [figure.number]


def test_without_matplotlib_the_extra_is_named(mixture, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    with pytest.raises(MissingDependencyError, match=r"pip install 'pyprobe-rs\[plot\]'"):
        plot.mixture_topics(mixture, ["a", "b", "c"])


def test_a_peak_between_the_points_of_the_map_is_told_of_and_marked():
    narrow = VonMisesFisher([0.48, 0.6, 0.64], 1e5)
    with pytest.warns(NumericalWarning, match=r"a peak of 1\.59e\+04 falls between") as caught:
        ax = plot.sphere_density(narrow)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[np.arctan2(0.6, 0.48), np.arcsin(0.64)]])


def test_what_cannot_be_drawn_is_named(vmf, mixture):
    with pytest.raises(DomainError, match="'samples' must hold unit vectors"):
        plot.sphere_density(vmf, samples=2 * np.eye(3))
    with pytest.raises(TypeError, match="'distribution' must be a VonMisesFisher or"):
        plot.sphere_density(3)
    with pytest.raises(TypeError, match="'mixture' must be a VonMisesFisherMixture; got VonMises"):
        plot.mixture_topics(vmf, "abc")
    with (
        pytest.warns(NumericalWarning, match="infinite"),
        pytest.raises(DomainError, match="'x' must hold rows that differ"),
    ):
        plot.concentration_profile([[0.6, 0.8]] * 4)


def test_a_distribution_of_tensors_is_drawn_as_one_of_arrays(vmf, mixture):
    torch = pytest.importorskip("torch")
    tensors = [
        VonMisesFisher(torch.tensor(vmf.loc), vmf.concentration),
        VonMisesFisherMixture(
            *map(torch.tensor, (mixture.weights, mixture.locs, mixture.concentrations))
        ),
    ]
    for value, twin in zip((vmf, mixture), tensors, strict=True):
        maps = [plot.sphere_density(v).collections[0].get_array() for v in (value, twin)]
        np.testing.assert_allclose(*maps, rtol=1e-12)


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 2)), rng.normal([4, 1], 1, size=(12, 2))


def test_the_lines_of_a_plan_are_its_heaviest_pairs_and_the_legend_gives_their_share(clouds):
    x, y = clouds
    result = sinkhorn_points(x, y, epsilon=0.5)
    plan = result.plan()
    ax = plot.transport_plan(result, x, y, n_lines=20)
    lines = ax.collections[0]
    order = np.argsort(plan, axis=None)[-20:]
    rows, columns = np.unravel_index(order, plan.shape)
    np.testing.assert_allclose(lines.get_segments(), np.stack([x[rows], y[columns]], axis=1))
    opacity = lines.get_colors()[:, 3]
    assert (np.diff(opacity) >= 0).all()
    assert opacity[-1] == 0.8
    assert lines.get_label() == f"heaviest 20 pairs: {plan.flat[order].sum():.0%} of the mass"


def test_a_plan_of_few_pairs_is_drawn_whole(clouds):
    x, y = clouds
    result = sinkhorn_points(x, y, epsilon=0.001)
    ax = plot.transport_plan(result, x, y)
    assert ax.collections[0].get_label().endswith(": 100% of the mass")
    assert len(ax.collections[0].get_segments()) < 100


def test_points_of_a_plan_have_areas_in_proportion_to_their_weights(clouds):
    x, y = clouds
    a = np.arange(1.0, 13) / 78
    ax = plot.transport_plan(sinkhorn_points(x, y, a=a, epsilon=0.5), x, y)
    np.testing.assert_allclose(ax.collections[1].get_offsets(), x)
    np.testing.assert_allclose(ax.collections[1].get_sizes(), 20 * 12 * a, rtol=1e-6)
    np.testing.assert_allclose(ax.collections[2].get_sizes(), 20, rtol=1e-6)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("of_points", [False, True])
def test_plans_of_tensors_are_drawn_like_those_of_arrays(clouds, wanted, of_points):
    torch = pytest.importorskip("torch")
    x, y = clouds
    expected = plot.transport_plan(sinkhorn_points(x, y, epsilon=0.5), x, y)
    tensors = tuple(torch.tensor(points, requires_grad=wanted) for points in clouds)
    result = sinkhorn_points(*tensors, epsilon=0.5)
    ax = plot.transport_plan(result, *(tensors if of_points else clouds))
    for found, known in zip(ax.collections[1:], expected.collections[1:], strict=True):
        np.testing.assert_allclose(found.get_offsets(), known.get_offsets())
        np.testing.assert_allclose(found.get_sizes(), known.get_sizes())


def test_a_plan_without_points_is_drawn_as_its_matrix(clouds):
    result = sinkhorn_points(*clouds, epsilon=0.5)
    ax = plot.transport_plan(result)
    np.testing.assert_array_equal(ax.images[0].get_array(), result.plan())


def test_convergence_shows_every_error_and_how_each_run_ended():
    cost = np.random.default_rng(0).random((30, 30))
    good = sinkhorn(None, None, cost, epsilon=0.05, method="log")
    with pytest.warns(ConvergenceWarning):
        bad = sinkhorn(None, None, cost, epsilon=0.001, method="log", max_iter=7)
    ax = plot.convergence({"enough": good, "too few": bad})
    assert ax.get_yscale() == "log"
    for curve, end, result, marker in zip(
        ax.lines[::2], ax.lines[1::2], (good, bad), "ox", strict=True
    ):
        np.testing.assert_array_equal(curve.get_ydata(), result.errors)
        np.testing.assert_array_equal(curve.get_xdata(), 1 + np.arange(len(result.errors)))
        assert end.get_marker() == marker
        assert end.get_color() == curve.get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["enough", "too few"]


def test_convergence_takes_one_result_or_a_list_and_names_their_methods():
    cost = np.random.default_rng(0).random((30, 30))
    results = [sinkhorn(None, None, cost, epsilon=0.01, method=m) for m in ("log", "newton")]
    legend = plot.convergence(results).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["log", "newton"]
    assert len(plot.convergence(results[0]).lines) == 2


def test_iterations_are_on_a_logarithmic_scale_where_lengths_differ_tenfold():
    cost = np.random.default_rng(0).random((30, 30))
    few, many = (sinkhorn(None, None, cost, epsilon=e, method="log") for e in (1, 0.01))
    assert len(many.errors) > 10 * len(few.errors)
    assert plot.convergence(many).get_xscale() == "linear"
    assert plot.convergence([few, many]).get_xscale() == "log"


def test_what_is_no_result_and_points_that_do_not_fit_are_refused(clouds):
    x, y = clouds
    result = sinkhorn_points(x, y, epsilon=0.5)
    with pytest.raises(TypeError, match=r"'result' must be a SinkhornResult of .*; got ndarray"):
        plot.transport_plan(result.plan())
    with pytest.raises(TypeError, match=r"'results' must be a SinkhornResult.*several; got ndarr"):
        plot.convergence([result.errors])
    for other in (sinkhorn_divergence(x, y, epsilon=0.5), 3):
        message = rf"'results' must be a SinkhornResult.*several; got {type(other).__name__}"
        with pytest.raises(TypeError, match=message):
            plot.convergence(other)
    with pytest.raises(ShapeError, match="'results' must hold at least one result; got none"):
        plot.convergence([])
    with pytest.raises(TypeError, match="'x' and 'y' must be given together"):
        plot.transport_plan(result, x)
    with pytest.raises(ShapeError, match=r"'y' must have shape \(12, 2\).*got \(11, 2\)"):
        plot.transport_plan(result, x, y[:11])


@pytest.fixture
def bridge():
    """A component that turns and one that does not, over a horizon of 2, in three dimensions."""
    turned = np.array([[0.5, 0.3, 0.0], [0.3, 0.5, 0.0], [0.0, 0.0, 0.1]])  # 0.8 along (1, 1, 0)
    return LightSchrodingerBridge.from_parameters(
        [0.3, 0.7],
        [[-2.0, 0.0, 5.0], [2.0, 0.0, 5.0]],
        np.stack([turned, 0.4 * np.eye(3)]),
        epsilon=0.25,
        horizon=2.0,
    )


@pytest.fixture
def plane():
    """One component of scale 1: its drift is its shift, everywhere and always."""
    return LightSchrodingerBridge.from_parameters([1.0], [[3.0, -4.0]], [1.0], epsilon=0.5)


def test_the_paths_of_a_bridge_begin_at_the_starts_and_have_the_noise_of_its_epsilon(bridge):
    starts = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.5, 0.0, 0.0]])
    ax = plot.bridge_paths(bridge, starts, n=4, n_times=5000, coordinates=(2, 0), rng=0)
    lines = np.array(ax.collections[0].get_segments())
    assert lines.shape == (12, 5001, 2)
    np.testing.assert_allclose(lines[:, 0], np.tile(starts[:, [2, 0]], (4, 1)))
    np.testing.assert_allclose(ax.collections[1].get_offsets(), lines[:, -1])
    np.testing.assert_allclose(ax.collections[2].get_offsets(), starts[:, [2, 0]])
    # The sum of squared steps tends to 2 epsilon T; its deviation is sqrt(2 / 5000) of it here.
    squares = (np.diff(lines, axis=1) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(squares, 2 * 0.25 * 2.0, rtol=6 * 5000**-0.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("coordinate 2", "coordinate 0")
    colors = ax.collections[0].get_colors().reshape(4, 3, 4)
    np.testing.assert_array_equal(colors, colors[:1].repeat(4, axis=0))
    assert len(np.unique(colors[0], axis=0)) == 3


def test_colors_run_along_the_longest_axis_of_the_starts(plane):
    starts = np.array([[0.1, 2.0], [0.0, -1.0], [-0.1, 0.5]])
    colors = plot.bridge_paths(plane, starts, rng=0).collections[2].get_facecolor()
    brightness = colors[:, :3] @ [0.299, 0.587, 0.114]
    assert brightness.argsort().tolist() == [1, 2, 0]


def test_a_strip_shows_one_sample_at_all_times_and_where_it_should_end(bridge):
    x0, x1 = np.random.default_rng(0).normal(size=(2, 50, 3))
    ax = plot.bridge_marginals(bridge, x0, x1=x1, coordinates=(0, 2), rng=0)
    panels = ax.child_axes
    titles = ["t = 0", "t = 0.5", "t = 1", "t = 1.5", "t = 2"]
    assert [panel.get_title() for panel in panels] == titles
    dots = [panel.collections[-1] for panel in panels]
    np.testing.assert_allclose(dots[0].get_offsets(), x0[:, [0, 2]])
    for dot, panel in zip(dots, panels, strict=True):
        np.testing.assert_array_equal(dot.get_facecolor(), dots[0].get_facecolor())
        assert (panel.get_xlim(), panel.get_ylim()) == (panels[0].get_xlim(), panels[0].get_ylim())
        x, y = np.asarray(dot.get_offsets()).T
        assert panel.get_xlim()[0] < x.min() < x.max() < panel.get_xlim()[1]
        assert panel.get_ylim()[0] < y.min() < y.max() < panel.get_ylim()[1]
    assert [len(panel.collections) for panel in panels] == [1, 1, 1, 1, 2]
    np.testing.assert_allclose(panels[-1].collections[0].get_offsets(), x1[:, [0, 2]])
    # Both components end at 5 in the last coordinate, with a deviation of sqrt(0.5 0.4) at most.
    ends = np.asarray(dots[-1].get_offsets())[:, 1]
    assert abs(ends.mean() - 5) < 6 * (0.2 / 50) ** 0.5 + 0.4 * abs(x0[:, 2].mean())


def test_a_strip_shows_the_times_that_it_is_given(plane):
    ax = plot.bridge_marginals(plane, [[0.0, 0.0]], times=[0.0, 0.25], rng=0)
    assert [panel.get_title() for panel in ax.child_axes] == ["t = 0", "t = 0.25"]


def test_the_ellipses_of_a_plan_are_its_components(bridge):
    starts = np.array([[0.0, 0.0, 0.0], [0.1, -0.2, 0.0]])
    ax = plot.bridge_plans(bridge, starts, n=300, rng=0)
    shares = bridge.conditional(starts).weights
    assert (shares > 0.01).all()
    first, second, *_ = ellipses = ax.patches
    assert len(ellipses) == 4
    np.testing.assert_allclose([first.center, second.center], bridge.shifts[:, :2])
    # Two standard deviations on either side, of variances epsilon T times the scales' eigenvalues.
    np.testing.assert_allclose(first.width, 4 * np.sqrt(0.5 * 0.8))
    np.testing.assert_allclose(first.height, 4 * np.sqrt(0.5 * 0.2))
    np.testing.assert_allclose(first.angle % 180, 45)
    np.testing.assert_allclose([second.width, second.height], 4 * np.sqrt(0.5 * 0.4))
    opacity = [ellipse.get_edgecolor()[3] for ellipse in ellipses]
    np.testing.assert_allclose(opacity, np.minimum(0.2 + shares.ravel(), 1))
    # In two dimensions 2 deviations hold 1 - e^-2 of a Gaussian, and what others put there.
    draws = np.asarray(ax.collections[0].get_offsets())
    held = [
        np.einsum("ni,ij,nj->n", away, np.linalg.inv(0.5 * scale[:2, :2]), away) < 4
        for shift, scale in zip(bridge.shifts, bridge.scales, strict=True)
        for away in [draws - shift[:2]]
    ]
    assert np.logical_or(*held).mean() > 1 - np.exp(-2) - 6 * (0.12 / 300) ** 0.5
    means = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "X"]
    np.testing.assert_allclose(means, bridge.mean(starts)[:, :2])


def test_components_that_carry_little_of_a_plan_are_left_out():
    bridge = LightSchrodingerBridge.from_parameters(
        [0.995, 0.005], [[0.0, 0.0], [1.0, 0.0]], [[0.3, 0.1], [0.2, 0.2]], epsilon=1.0
    )
    (ellipse,) = plot.bridge_plans(bridge, [[0.0, 0.0]], rng=0).patches
    np.testing.assert_array_equal(ellipse.center, 0)
    np.testing.assert_allclose([ellipse.width, ellipse.height], 4 * np.sqrt([0.3, 0.1]))
    assert ellipse.angle % 180 == 0


def test_the_arrows_of_a_potential_are_its_slope(plane):
    x = np.array([[-1.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    ax = plot.bridge_potential(plane, x, t=0.3, n_grid=50, n_arrows=7)
    arrows = next(c for c in ax.collections if hasattr(c, "U"))
    np.testing.assert_allclose(arrows.U, 3.0)
    np.testing.assert_allclose(arrows.V, -4.0)
    assert len(arrows.U) == 49
    # From corner to corner of the picture, a tenth larger than the points.
    shades = next(c for c in ax.collections if hasattr(c, "levels"))
    rise = 3.0 * 2.4 + 4.0 * 2.4
    assert shades.zmin == 0
    np.testing.assert_allclose(shades.zmax, rise)
    np.testing.assert_allclose(ax.get_xlim() + ax.get_ylim(), [-1.2, 1.2, -0.2, 2.2])


def test_starts_may_be_tensors(plane):
    torch = pytest.importorskip("torch")
    x0 = np.random.default_rng(0).normal(size=(6, 2))
    for draw in (plot.bridge_paths, plot.bridge_plans, plot.bridge_marginals):
        pair = [draw(plane, x, rng=0) for x in (x0, torch.tensor(x0, requires_grad=True))]
        found = [(ax.child_axes or [ax])[-1].collections[-1].get_offsets() for ax in pair]
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "draw", [plot.bridge_paths, plot.bridge_marginals, plot.bridge_plans, plot.bridge_potential]
)
def test_what_is_no_bridge_of_the_plane_is_refused(draw, plane, monkeypatch):
    with pytest.raises(TypeError, match=r"'bridge' must be a LightSchrodingerBridge .*got int"):
        draw(3, [[0.0, 0.0]])
    line = LightSchrodingerBridge.from_parameters([1.0], [[2.0]], [0.5], epsilon=0.1)
    with pytest.raises(ShapeError, match="'bridge' must have two dimensions or more; it has 1"):
        draw(line, [[0.0]])
    with pytest.raises(ShapeError, match=r"'x0?' must (hold|have shape \(m, 2\)).* at least one"):
        draw(plane, np.empty((0, 2)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    with pytest.raises(MissingDependencyError, match="plot"):
        draw(plane, [[0.0, 0.0]])


def test_coordinates_and_points_that_a_bridge_has_not_are_refused(bridge, plane):
    for coordinates in ((0, 3), (1, 1), (-1, 0)):
        with pytest.raises(DomainError, match="'coordinates' must be two different ones from 0 to"):
            plot.bridge_paths(bridge, np.zeros((1, 3)), coordinates=coordinates)
    for draw in (plot.bridge_paths, plot.bridge_marginals, plot.bridge_plans):
        with pytest.raises(DomainError, match=r"'coordinates' must be two .*got \(0, 1, 2\)"):
            draw(bridge, np.zeros((1, 3)), coordinates=(0, 1, 2))
        for coordinates in (1, (0, 1.5), "xy"):
            with pytest.raises(TypeError, match="'coordinates' must be a pair of integers"):
                draw(bridge, np.zeros((1, 3)), coordinates=coordinates)
        with pytest.raises(TypeError, match="'ax' must be axes of Matplotlib; got int"):
            draw(bridge, np.zeros((1, 3)), ax=3)
    with pytest.raises(ShapeError, match="'bridge' must have two dimensions; it has 3"):
        plot.bridge_potential(bridge, np.zeros((1, 2)))
    with pytest.raises(ShapeError, match=r"'x1' must have 2 columns.*got \(5, 3\)"):
        plot.bridge_marginals(plane, np.zeros((4, 2)), x1=np.zeros((5, 3)))
    with pytest.raises(DomainError, match="'t' must"):
        plot.bridge_potential(plane, np.zeros((4, 2)), t=1.5)
