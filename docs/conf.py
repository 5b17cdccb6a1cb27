"""Sphinx configuration."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))

project = "pyprobe"
author = "The pyprobe developers"
copyright = "The pyprobe developers"
version = release = CARGO["workspace"]["package"]["version"]

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery", "sg_execution_times.rst"]
html_theme = "furo"
html_title = f"pyprobe {release}"

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_typehints = "none"  # the types stand in the docstrings, with the shapes
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "gallery_out",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "matplotlib_animations": False,
    "min_reported_time": 1,
}


def list_names(app, what, name, obj, options, lines):
    """Turn the table of names in a module's docstring into a list."""
    if what == "module":
        lines[:] = [re.sub(r"^(`[\w.]+`)\s{2,}", r"* \1: ", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", list_names)
