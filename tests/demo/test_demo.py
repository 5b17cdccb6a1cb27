"""The tour runs, says what it measured, and saves what it drew."""

import subprocess
import sys

import numpy as np
import pytest

from pyprobe import demo
from pyprobe.demo.directional import mean_and_error


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
