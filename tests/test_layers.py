"""The levels of the package, and what importing it must not do."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "pyprobe",
        "pyprobe.special",
        "pyprobe.metrics",
        "pyprobe.directional",
        "pyprobe.transport",
        "pyprobe.sketching",
        "pyprobe.demo",
        "pyprobe.plot",
    ],
)
def test_importing_loads_neither_torch_nor_matplotlib(module):
    heavy = "{'torch', 'matplotlib', 'sklearn', 'pyro', 'gpytorch', 'tqdm', 'ot', 'dask'}"
    assert run(f"import sys, {module}; print({heavy} & set(sys.modules))").strip() == "set()"


def test_importing_changes_nothing_in_numpy_warnings_logging_or_signals():
    run(
        "import logging, signal, warnings, numpy as np\n"
        # Loaded first, so that what SciPy changes is not laid at our door.
        "import scipy.sparse, scipy.special\n"
        "def state():\n"
        "    return (np.geterr(), np.get_printoptions(), warnings.filters[:], logging.root.level,\n"
        "            logging.root.handlers[:], signal.getsignal(signal.SIGINT),\n"
        "            np.random.get_state()[1].tobytes())\n"
        "before = state()\n"
        "import pyprobe, pyprobe.special, pyprobe.directional\n"
        "assert state() == before\n"
    )


def test_every_module_imports_only_lower_levels(monkeypatch):
    cli = pytest.importorskip("importlinter.cli")
    if not (ROOT / "pyprobe").is_dir():
        pytest.skip("the sources are not here")
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True) == 0
