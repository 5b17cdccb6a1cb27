"""The tour runs, says what it measured, and saves what it drew."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from pyprobe import demo
from pyprobe.demo.bridge import at_levels, film
from pyprobe.demo.directional import mean_and_error
from pyprobe.demo.sketching import pixels
from pyprobe.demo.transport import palette, recolor, through_table
from pyprobe.transport import LightSchrodingerBridge, sinkhorn_points


def test_the_list_names_every_stop(capsys):
    assert demo.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(demo.STOPS)


def test_an_unknown_stop_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        demo.main(["bessel"])
    assert (
        "no stop is called 'bessel'; choose from topics, concentration" in capsys.readouterr().err
    )


def test_the_stop_beside_scipy_shows_both_estimates_of_every_dimension(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert demo.main(["concentration", "--out", str(tmp_path / "figures")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if " ± " in line]
    table = {int(row[0]): row[1:] for row in rows if row[0].isdigit()}
    assert {3, 30, 100, 1000} <= set(table)
    for d, (estimate, _, error, scipy_estimate, *_) in table.items():
        assert abs(float(estimate) - d) < 5 * float(error)
        if d <= 30:  # where SciPy works, the two agree to the digits shown
            assert abs(float(scipy_estimate) - float(estimate)) <= 0.01
    assert (tmp_path / "figures" / "concentration.png").stat().st_size > 10_000


def test_a_folder_that_cannot_be_written_is_refused_before_a_stop_runs(
    tmp_path, capsys, monkeypatch
):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(demo.STOPS, "colors", lambda _: pytest.fail("the stop runs"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "figures"):
        with pytest.raises(SystemExit) as caught:
            demo.main(["colors", "--out", str(folder)])
        assert caught.value.code == 2
        printed = capsys.readouterr()
        assert f"--out: cannot write to {folder}: " in printed.err
        assert printed.out == ""


def test_without_matplotlib_the_tables_remain(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert demo.main(["concentration", "--out", str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr().out
    assert " ± " in printed
    assert "pip install 'pyprobe-rs[plot]'" in printed
    assert not (tmp_path / "figures").exists()


def test_the_stop_of_the_photographs_recolors_them_and_stands_beside_pot(tmp_path, capsys):
    for package in ("matplotlib", "sklearn", "PIL"):
        pytest.importorskip(package)
    assert demo.main(["colors", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    errors = re.findall(r"(?:pyprobe.transport.sinkhorn|ot.sinkhorn) (\d.\de-\d\d)", printed)
    assert len(errors) == 1 + bool(importlib.util.find_spec("ot"))
    assert all(float(error) <= 1e-5 for error in errors)
    found = re.search(r"colors was ([\d.]+); once recolored, it is ([\d.]+) and ([\d.]+)", printed)
    before, *after = map(float, found.groups())
    assert max(after) < 0.05 * before
    assert (tmp_path / "colors_of_photographs.png").stat().st_size > 100_000


def test_without_pillow_the_stop_of_the_photographs_is_left_out_and_says_why(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert demo.main(["colors"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out: the photographs need scikit-learn and Pillow: pip install" in said


def test_a_palette_holds_every_pixel_once_and_keeps_the_mean_color():
    image = np.random.default_rng(0).integers(0, 256, size=(30, 40, 3), dtype=np.uint8)
    colors, shares = palette(image)
    counts = shares * 1200
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    assert len(np.unique((colors * 255 // 16).astype(int), axis=0)) == len(colors)
    np.testing.assert_allclose(shares @ colors, image.reshape(-1, 3).mean(axis=0) / 255)


def test_the_colors_of_the_plan_go_where_its_barycentric_map_takes_them():
    rng = np.random.default_rng(0)
    axis = np.array([0, 51, 255], dtype=np.uint8)  # 51 / 255 lies between entries of the table
    image = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, 27, 3)
    x, y, b = image[0] / 255, rng.random((15, 3)), rng.dirichlet(np.ones(15))
    result = sinkhorn_points(x, y, b=b, epsilon=0.5)
    found = recolor(image, result, y, b, result.g)[0]
    np.testing.assert_allclose(found / 255, result.barycentric_map(y), atol=1.5 / 255)


def test_a_table_of_colors_is_exact_at_its_entries_and_linear_between():
    image = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    image[0, :2] = [[0, 0, 0], [255, 255, 255]]
    np.testing.assert_allclose(through_table(image, lambda c: 1 - c), 1 - image / 255, atol=1e-12)
    asked = []
    through_table(image[:1, :2], lambda c: asked.append(c) or c)
    assert len(np.concatenate(asked)) == 8 + 1  # the corners of one cell, and the last entry


@pytest.fixture
def plan():
    """Two components with axes that are turned, in two dimensions."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    scales = np.stack([turn @ np.diag([0.1, 0.6]) @ turn.T, turn.T @ np.diag([0.3, 0.2]) @ turn])
    bridge = LightSchrodingerBridge.from_parameters(
        [0.4, 0.6], [[-0.5, 0.2], [0.7, -0.3]], scales, epsilon=0.5
    )
    return bridge.conditional([[0.0, 0.0], [0.3, -0.4]]), turn


def test_a_point_at_given_levels_has_them_in_each_coordinate_given_those_before(plan):
    law, axes = plan
    levels = np.array([0.3, 0.8])
    found = at_levels(law, levels, axes) @ axes
    grid = np.linspace(-6, 6, 601)
    across, up = np.meshgrid(grid, grid, indexing="ij")
    cells = np.stack([across, up], axis=-1).reshape(-1, 1, 2) @ axes.T
    for i in range(2):
        density = np.exp(law.log_prob(np.repeat(cells, 2, axis=1))[:, i]).reshape(601, 601)
        # Trapezoids: the errors of what is smooth and 0 at both ends are those of the last one.
        first = density.sum(axis=1).cumsum() * 0.02**2 - density.sum(axis=1) * 0.02**2 / 2
        assert abs(np.interp(found[i, 0], grid, first) - levels[0]) < 1e-4
        line = np.stack([np.full(601, found[i, 0]), grid], axis=-1) @ axes.T
        along = np.exp(law.log_prob(np.repeat(line[:, None], 2, axis=1))[:, i])
        second = (along.cumsum() - along / 2) / along.sum()
        assert abs(np.interp(found[i, 1], grid, second) - levels[1]) < 1e-4


def test_a_film_begins_and_ends_at_its_pictures_and_all_pixels_share_its_noise():
    start, end = np.random.default_rng(0).uniform(0.4, 0.6, size=(2, 5, 6, 3))
    first, *middle, last = film(start, end, 0.001, np.random.default_rng(1))
    np.testing.assert_allclose(first / 255, start, atol=0.5 / 255 + 1e-12)
    np.testing.assert_allclose(last / 255, end, atol=0.5 / 255 + 1e-12)
    assert len(middle) == 3
    for t, picture in zip((0.25, 0.5, 0.75), middle, strict=True):
        noise = picture / 255 - (1 - t) * start - t * end
        assert np.ptp(noise, axis=(0, 1)).max() <= 1 / 255 + 1e-12
    draws = [film(start, end, 0.001, np.random.default_rng(s))[1] / 255 for s in range(400)]
    noise = np.array([draw[0, 0] for draw in draws]) - 0.75 * start[0, 0] - 0.25 * end[0, 0]
    variance = 0.001 * 0.25 * 0.75 + 1 / (12 * 255**2)  # and that of rounding
    assert abs(noise.var() / variance - 1) < 6 * np.sqrt(2 / 1200)


def test_the_stop_of_the_bridge_draws_the_colors_that_means_make_dull(tmp_path, capsys):
    for package in ("matplotlib", "sklearn", "PIL"):
        pytest.importorskip(package)
    assert demo.main(["recolorings", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    names = ("nothing done", "Sinkhorn, barycentric map", "mean of the plan", "draw from the plan")
    nothing, by_sinkhorn, mean, draw = (
        float(re.search(rf"{name} .* (-?\d\.\d+)$", printed, re.MULTILINE)[1]) for name in names
    )
    # The mean of a plan is nearly that of Sinkhorn's; a draw is as near as other pixels are.
    assert abs(mean / by_sinkhorn - 1) < 0.2
    assert mean < 0.05 * nothing
    assert abs(draw) < 0.1 * mean
    assert (tmp_path / "recolorings.png").stat().st_size > 100_000


@pytest.mark.slow
def test_the_stop_of_the_regression_has_the_posterior_of_all_rows_from_few(tmp_path, capsys):
    for package in ("matplotlib", "sklearn", "PIL", "pyro"):
        pytest.importorskip(package)
    assert demo.main(["regression", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    off = {
        name: [
            float(number)
            for number in re.search(rf"^{name} .* (\S+) +(\S+)$", printed, re.MULTILINE).groups()
        ]
        for name in ("coreset", "plain weights")
    }
    assert max(off["coreset"]) < 0.05
    assert off["plain weights"][0] > 3
    assert (tmp_path / "regression_on_pixels.png").stat().st_size > 20_000


def test_without_pyro_the_stop_of_the_regression_is_left_out_and_says_why(capsys, monkeypatch):
    for package in ("sklearn", "PIL"):
        pytest.importorskip(package)
    monkeypatch.setitem(sys.modules, "pyro", None)
    for name in [name for name in sys.modules if name.startswith("pyprobe.pyro")]:
        monkeypatch.delitem(sys.modules, name)
    assert demo.main(["regression"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out: pyprobe.pyro needs Pyro: pip install 'pyprobe-rs[pyro]'" in said


def test_the_pixels_of_a_photograph_become_rows_of_what_was_scanned_before():
    photograph = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    x, y = pixels(photograph)
    gray = photograph.mean(axis=-1) / 32
    assert x.shape == (4 * 4, 8)
    i, j = 2, 4  # its row: the second below the first, the third of those with two to the left
    row = x[(i - 1) * 4 + j - 2]
    north, nw, ne = gray[i - 1, j], gray[i - 1, j - 1], gray[i - 1, j + 1]
    w, ww = gray[i, j - 1], gray[i, j - 2]
    np.testing.assert_allclose(row[:5], [1, north - nw, ne - north, w - ww, nw - w])
    np.testing.assert_allclose(row[5:], [abs(north - nw), abs(w - ww), (north - nw) * (w - ww)])
    assert y[(i - 1) * 4 + j - 2] == (gray[i, j] > w)


@pytest.mark.slow
def test_the_whole_tour_finds_topics_that_hold_for_modules_never_seen(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "pyprobe", "topics", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    gains = [line for line in done.stdout.splitlines() if " ± " in line and "s.e." not in line]
    assert len(gains) == 4
    for line in gains:
        value, error = line.partition(" ± ")[0].split()[-1], line.partition(" ± ")[2].split()[0]
        assert float(value) > 5 * float(error) > 0


def test_the_standard_error_takes_a_group_as_one_observation():
    values = np.random.default_rng(0).normal(size=100)
    each = np.arange(100)
    mean, error = mean_and_error(values, each)
    assert mean == values.mean()
    assert np.isclose(error, values.std() / 10)
    # Copies of a document in its module tell nothing new.
    repeated_mean, repeated_error = mean_and_error(np.repeat(values, 4), np.repeat(each, 4))
    assert np.isclose(repeated_mean, mean)
    assert np.isclose(repeated_error, error)
