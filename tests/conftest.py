"""What every test shares: fixed seeds, with a switch that unlocks them."""

import os
import secrets
import zlib
from importlib import metadata

import hypothesis
import pytest

# `PYPROBE_FRESH_SEEDS=1 pytest` draws new seeds: statistical tests then fail at their stated rate,
# and hypothesis looks at new examples.
FRESH_SEEDS = os.environ.get("PYPROBE_FRESH_SEEDS", "") not in ("", "0")

hypothesis.settings.register_profile(
    "pyprobe",
    deadline=None,
    derandomize=not FRESH_SEEDS,
    database=None,
    print_blob=True,
)
hypothesis.settings.load_profile("pyprobe")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return this test's own seed: always the same, or fresh under ``PYPROBE_FRESH_SEEDS``."""
    value = secrets.randbits(32) if FRESH_SEEDS else zlib.crc32(request.node.nodeid.encode())
    request.node.add_report_section("setup", "seed", str(value))
    return value


def pytest_report_header() -> list[str]:
    hosts = ("numpy", "scipy", "torch", "pyro-ppl", "gpytorch", "scikit-learn")
    found = {name for name in hosts for _ in metadata.distributions(name=name)}
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in hosts if name in found)
    return [f"hosts: {versions}", f"seeds: {'fresh' if FRESH_SEEDS else 'fixed'}"]
