"""The hand-written stub of the compiled module, beside the module."""

import ast
import inspect
import pathlib

import pyprobe
from pyprobe import _core

STUB = pathlib.Path(pyprobe.__file__).with_name("_core.pyi")
TREE = ast.parse(STUB.read_text(encoding="utf-8")).body
FUNCTIONS = {node.name: node for node in TREE if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name for node in TREE if isinstance(node, ast.ClassDef)}


def parameters(node: ast.FunctionDef) -> list[tuple[str, str | None]]:
    """Return names and defaults as the stub states them."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults, *arguments.kw_defaults]
    return [
        (argument.arg, None if default is None else ast.unparse(default))
        for argument, default in zip([*positional, *arguments.kwonlyargs], defaults, strict=True)
    ]


def test_the_stub_names_what_the_module_has():
    public = {name for name in vars(_core) if not name.startswith("__")}
    assert public == set(FUNCTIONS) | CLASSES


def test_signatures_are_those_of_the_stub():
    built = {
        name: [
            (p.name, None if p.default is inspect.Parameter.empty else repr(p.default))
            for p in inspect.signature(getattr(_core, name)).parameters.values()
        ]
        for name in FUNCTIONS
        if hasattr(_core, name)
    }
    assert built == {name: parameters(FUNCTIONS[name]) for name in built}
