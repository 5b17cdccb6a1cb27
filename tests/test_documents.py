"""Every example in a docstring, the README and the guide runs, and prints what it says it prints.

In a page, each block of Python runs by itself, in the order of the page. A comment behind a call of
`print` is what that call prints, unless it begins with "for instance".
"""

import contextlib
import doctest
import importlib.util
import io
import pathlib
import pkgutil
import re

import numpy as np
import pytest

import pyprobe

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What brings in an optional package, beside its own name.
HOSTS = {
    "torch": r"(pyprobe\.)?torch\b",
    "pyro": r"(pyprobe\.)?pyro\b",
    "gpytorch": r"(pyprobe\.)?gpytorch\b",
    "sklearn": r"(pyprobe\.)?sklearn\b",
    "dask": r"(pyprobe\.)?dask\b",
    "matplotlib": r"(matplotlib|pyprobe\.plot|pyprobe import plot)\b",
    "ot": r"ot\b",
    "tqdm": r"(tqdm\b|pyprobe\.progress import bar)",
}

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


def missing_host(source: str) -> str | None:
    """Return the first package that `source` imports, itself or by a door, and that is not here."""
    for host, names in HOSTS.items():
        imported = re.search(rf"^\s*(import|from) {names}", source, re.MULTILINE)
        if imported and importlib.util.find_spec(host) is None:
            return host
    return None


def modules() -> list[str]:
    found = pkgutil.walk_packages(pyprobe.__path__, "pyprobe.", onerror=lambda _: None)
    return ["pyprobe", *(m.name for m in found if not m.name.endswith(("_core", "__main__")))]


def blocks() -> list:
    return [
        pytest.param(
            match[1], id=f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 2}"
        )
        for page in PAGES
        if page.exists()
        for text in [page.read_text(encoding="utf-8")]
        for match in BLOCK.finditer(text)
    ]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_the_docstrings_of(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if getattr(error.__cause__ or error, "name", None) not in HOSTS:
            raise
        pytest.skip(str(error))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report = io.StringIO()
    for test in doctest.DocTestFinder().find(module, name):
        if not missing_host("".join(example.source for example in test.examples)):
            runner.run(test, out=report.write)
    assert runner.failures == 0, report.getvalue()


@pytest.mark.parametrize("source", blocks())
def test_the_example_in_the_page(source, tmp_path, monkeypatch):
    if host := missing_host(source):
        pytest.skip(f"{host} is not installed")
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), np.printoptions(legacy=False):
        exec(compile(source, "<page>", "exec"), {"__name__": "__main__"})
    expected = PRINTED.findall(source)
    lines = printed.getvalue().splitlines()
    assert len(lines) == len(expected)
    for line, promise in zip(lines, expected, strict=True):
        assert line == promise or promise.startswith("for instance")
