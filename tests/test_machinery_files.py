"""Saving, loading and progress."""

import gc
import io
import json
import warnings
import zipfile

import numpy as np
import pytest

from pyprobe import _io, progress
from pyprobe.errors import DomainError, MissingDependencyError
from pyprobe.progress import Progress

FIELDS = {
    "loc": np.array([0.6, 0.8]),
    "counts": np.arange(3, dtype=np.int32),
    "concentration": 2.5,
    "kind": "soft",
    "n": 7,
    "info": None,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def test_a_model_comes_back_as_it_was_saved(path):
    _io.save(path, "Model", FIELDS)
    found = _io.load(path, "Model")
    assert found.keys() == FIELDS.keys()
    for name, value in FIELDS.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value
            assert type(found[name]) is type(value)


def test_a_file_holds_no_pickle(path):
    _io.save(path, "Model", FIELDS)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            np.load(io.BytesIO(archive.read(name)), allow_pickle=False)


def test_arrays_of_objects_cannot_be_saved(path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        _io.save(path, "Model", {"x": np.array([None])})
    assert list(path.parent.iterdir()) == []


def test_a_failed_save_leaves_the_old_file_alone(path):
    _io.save(path, "Model", FIELDS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Object arrays"):
        _io.save(path, "Model", {"x": np.array([None])})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_truncated_file_is_refused_and_closed(path):
    _io.save(path, "Model", FIELDS)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DomainError, match="it is not an npz file"):
                _io.load(path, "Model")
            gc.collect()


def test_a_missing_folder_is_named_and_no_file_of_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder to save into") as caught:
        _io.save(tmp_path / "none" / "model.npz", "Model", FIELDS)
    assert caught.value.filename == str(tmp_path / "none")


def test_a_file_of_another_class_is_refused_by_name(path):
    _io.save(path, "Model", FIELDS)
    with pytest.raises(DomainError, match=r"model.npz' is not a saved Mixture: it holds a Model"):
        _io.load(path, "Mixture")


def test_a_newer_format_is_refused_with_a_way_out(path):
    header = json.dumps({"format": 99, "kind": "Model", "plain": {}})
    np.savez(path, __header__=np.array(header))
    with pytest.raises(DomainError, match=r"it has format 99, .* up to 1\. Update pyprobe"):
        _io.load(path, "Model")


def test_other_files_are_refused(path):
    path.write_bytes(b"not an archive")
    with pytest.raises(DomainError, match="it is not an npz file"):
        _io.load(path, "Model")
    np.savez(path, x=np.ones(1))
    with pytest.raises(DomainError, match="it has no header"):
        _io.load(path, "Model")
    with path.open("wb") as file:
        np.save(file, np.ones(1))
    with pytest.raises(DomainError, match="it is a single array"):
        _io.load(path, "Model")
    np.savez(path, __header__=np.array({"format": 1}, dtype=object))
    with pytest.raises(DomainError, match="not a saved Model"):
        _io.load(path, "Model")
    np.savez(path, __header__=np.array("[]"))
    with pytest.raises(DomainError, match="not a saved Model"):
        _io.load(path, "Model")


def test_a_missing_file_is_what_it_is(path):
    with pytest.raises(FileNotFoundError):
        _io.load(path, "Model")


def test_a_reporter_goes_on_until_the_callback_returns_true():
    told = []
    report = progress.Reporter(lambda step: told.append(step) or step.step == 2, total=0)
    report.total = 5  # known only once the work has begun
    assert [report(1, 0.5), report(2, 0.25)] == [True, False]
    assert [(step.step, step.total, step.value) for step in told] == [(1, 5, 0.5), (2, 5, 0.25)]
    assert 0 <= told[0].elapsed <= told[1].elapsed
    assert progress.Reporter(None, total=5)(1, 0.5)


def test_progress_is_immutable_and_by_keyword():
    step = Progress(step=1, total=5, value=0.5, elapsed=0.1)
    with pytest.raises(AttributeError):
        step.step = 2
    with pytest.raises(TypeError):
        Progress(1, 5, 0.5, 0.1)


def test_a_bar_follows_the_steps(capsys):
    pytest.importorskip("tqdm")
    callback = progress.bar("mixture")
    for step in (1, 2, 4):
        assert callback(Progress(step=step, total=4, value=-1.5, elapsed=0.1)) is None
    text = capsys.readouterr().err
    assert "mixture" in text
    assert "4/4" in text
    assert "-1.5" in text
    for step in (1, 2):  # a second run begins a line of its own
        callback(Progress(step=step, total=2, value=0.0, elapsed=0.0))
    assert "2/2" in capsys.readouterr().err


def test_a_bar_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(MissingDependencyError, match=r"pyprobe-rs\[progress\]") as caught:
        progress.bar()
    assert isinstance(caught.value, ImportError)
