# make demo    build pyprobe and show what it does, on real data
# make test    every Rust and Python test
# make lint | docs | bench | clean
#
# Each target makes what it needs from nothing: a virtual environment in .venv, its packages, and
# the Rust extension. A second run finds the stamps of the first and starts at once.

VENV ?= .venv
OUT ?= figures
STAMPS := $(VENV)/stamps
BIN := $(VENV)/bin
RUN := $(BIN)/python

# One set of flags for cargo and maturin alike, or each would rebuild what the other has built.
export PYO3_BUILD_EXTENSION_MODULE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1
# Packages and builds must land in this environment whatever the caller has activated.
export VIRTUAL_ENV := $(abspath $(VENV))
unexport PYTHONPATH PYTHONHOME CONDA_PREFIX

# The first interpreter that is new enough and really runs (a shim may stand for one that is not there).
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v $$p; break; }; done)

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

.PHONY: demo test test-rust test-python lint docs bench build clean

demo: build
	$(RUN) -m pyprobe --out $(OUT)

test: test-rust test-python

test-rust: $(STAMPS)/tools
	cargo test --quiet --workspace

test-python: build
	$(RUN) -m pytest

lint: build
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

docs: build
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: build
	$(RUN) benches/run.py

build: $(STAMPS)/extension

$(STAMPS)/extension: $(STAMPS)/packages $(RUST_SOURCES)
	@echo 'Building the extension (minutes the first time, when PyTorch is downloaded as well)'
	@touch $@.begun
	@$(BIN)/maturin develop --quiet --release --extras all
	@mv $@.begun $@ # as old as the start: a source saved since then is newer

$(STAMPS)/packages: pyproject.toml | $(STAMPS)/tools
	@echo 'Installing the tools into $(VENV)'
	@$(RUN) -m pip install --upgrade pip
	@$(RUN) -m pip install --group dev
	@touch $@

# What pip and maturin cannot bring: said plainly, before anything is made.
$(STAMPS)/tools:
	@command -v cargo >/dev/null || { \
		echo 'pyprobe needs Rust 1.89 or newer, and `cargo` is not on PATH.'; \
		echo 'Get it from https://rustup.rs, or your system'"'"'s package manager, open a new shell, and run make again.'; \
		exit 1; }
	@test -n '$(PYTHON)' || { \
		echo 'pyprobe needs Python 3.11 or newer with the venv module, and none was found on PATH.'; \
		echo 'Get it from https://www.python.org/downloads (Debian, Ubuntu: apt install python3 python3-venv),'; \
		echo 'or name one: make PYTHON=/path/to/python3.12 ...'; \
		exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

clean:
	rm -rf $(VENV) target dist docs/_build docs/gallery_out
