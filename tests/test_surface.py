"""The public names and signatures, beside a committed list: no change of them goes unseen.

Where a change is meant, write the list anew and read the difference:

    python tests/test_surface.py --write
"""

import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import types

import pytest

import pyprobe

SNAPSHOT = pathlib.Path(__file__).with_name("surface.txt")
# What a module needs beyond NumPy and SciPy, to be imported at all.
HOSTS = {
    "pyprobe.pyro": "pyro",
    "pyprobe.gpytorch": "gpytorch",
    "pyprobe.sklearn": "sklearn",
    "pyprobe.dask": "dask",
}


def public_modules() -> list[str]:
    found = [m.name for m in pkgutil.iter_modules(pyprobe.__path__) if not m.name.startswith("_")]
    return ["pyprobe", *(f"pyprobe.{name}" for name in found)]


def describe(module_name: str) -> list[str]:
    """Return one line a public name, and one below a class for each member that is ours."""
    module = importlib.import_module(module_name)
    lines = []
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.isclass(value):
            arguments = "" if issubclass(value, BaseException) else signature(value)
            lines.append(f"class {name}{arguments}")
            lines += [f"    {line}" for line in members(value)]
        elif callable(value):
            lines.append(f"{name}{signature(value)}")
        else:
            lines.append(f"{name}: {type(value).__name__}")
    return lines


def members(cls: type) -> list[str]:
    ours = [c for c in cls.__mro__ if c.__module__.startswith("pyprobe")]
    names = sorted({name for c in ours for name in vars(c) if not name.startswith("_")})
    lines = []
    for name in names:
        value = inspect.getattr_static(cls, name)
        if isinstance(value, classmethod | staticmethod):
            lines.append(f"{type(value).__name__} {name}{signature(getattr(cls, name))}")
        elif inspect.isfunction(value):
            lines.append(f"{name}{signature(value)}")
        else:
            lines.append(name)
    return lines


def signature(value: object) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"frozenset\(\{.*?\}\)", "frozenset(...)", text)  # their order is random


def read_snapshot() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in SNAPSHOT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line:
            current.append(line)
    return sections


def write_snapshot() -> None:
    blocks = ["\n".join([f"[{name}]", *describe(name)]) for name in public_modules()]
    SNAPSHOT.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def test_the_list_names_every_public_module():
    assert sorted(read_snapshot()) == sorted(public_modules())


@pytest.mark.parametrize("module", public_modules())
def test_names_and_signatures_are_those_of_the_list(module):
    if module in HOSTS:
        pytest.importorskip(HOSTS[module])
    assert describe(module) == read_snapshot().get(module)


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_has_a_docstring(module):
    if module in HOSTS:
        pytest.importorskip(HOSTS[module])
    loaded = importlib.import_module(module)
    values = {name: getattr(loaded, name) for name in loaded.__all__}
    documented = (type, types.FunctionType)  # an alias of a type has its docstring in the source
    assert loaded.__doc__
    assert [n for n, v in values.items() if isinstance(v, documented) and not v.__doc__] == []


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write_snapshot()
