"""The tour runs, says what it measured, and saves what it drew."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from pyprobe import demo
from pyprobe.demo.directional import mean_and_error
from pyprobe.demo.transport import palette, recolor
from pyprobe.transport import sinkhorn_points


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
