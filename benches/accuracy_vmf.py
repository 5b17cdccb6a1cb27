"""Worst errors of the von Mises-Fisher distribution, by dimension, against certified values.

    python benches/accuracy_vmf.py [--points 40] [--write]

References come from ball arithmetic (`tests/reference/arb_bessel.py`, python-flint), 80 bits
certified. `--write` puts the table into docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from pyprobe.directional import SphericalUniform, VonMisesFisher
from pyprobe.special import bessel_ratio_inverse

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "reference"))

import arb_bessel  # noqa: E402

PAGE = ROOT / "docs" / "accuracy.md"
DIMS = (2, 3, 5, 64, 1024, 32768, 131072)
INTRODUCTION = """\
## Von Mises-Fisher distribution

Written by `benches/accuracy_vmf.py`: the worst errors over {points} concentrations for each
dimension, log-uniform in [1e-6, 1e10]. They are relative, except that those of the entropy and of
the log-density at the mode are counted in units of max(1, |value|). "Solver" is the concentration
of a certified mean resultant length R and 1 - R, "fit" that of two rows whose mean has that length;
"KL, near" is the divergence of two concentrations that differ by a millionth of themselves."""
HEAD = ("d", "entropy", "peak", "KL to uniform", "KL, near", "solver", "fit")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--points", type=int, default=40)
    arguments.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = arguments.parse_args()
    warnings.simplefilter("ignore")  # two rows are few samples
    rng = np.random.default_rng(1)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for dim in DIMS:
        kappas = np.exp(rng.uniform(np.log(1e-6), np.log(1e10), options.points))
        worst = np.max([errors(dim, kappa) for kappa in kappas.tolist()], axis=0)
        lines.append(f"| {dim} | " + " | ".join(f"{error:.1e}" for error in worst) + " |")
    text = INTRODUCTION.format(points=options.points) + "\n\n" + "\n".join(lines)
    print(text)
    if options.write:
        write(text)


def errors(dim: int, kappa: float) -> list[float]:
    """The errors at one concentration, in the order of the table."""
    near = kappa * (1 + 1e-6)
    exact = arb_bessel.certify(arb_bessel.von_mises_fisher, dim, kappa)
    value = {name: float(ball.mid()) for name, ball in exact.items()}
    loc = np.eye(1, dim)[0]
    vmf = VonMisesFisher(loc, kappa)
    length, complement = value["length"], value["complement"]
    x = np.zeros((2, dim))
    x[:, 0] = length
    x[:, 1] = np.sqrt(complement * (1 + length)) * np.array([1, -1])
    entropy, peak = value["entropy"], float((exact["log_normalizer"] + kappa).mid())
    found = [
        (vmf.entropy(), entropy, max(1, abs(entropy))),
        (vmf.log_prob(loc), peak, max(1, abs(peak))),
        (vmf.kl_divergence(SphericalUniform(dim)), value["kl_uniform"], value["kl_uniform"]),
        near_divergence(dim, kappa, near, exact),
        (bessel_ratio_inverse(dim / 2 - 1, length, complement=complement), kappa, kappa),
        (VonMisesFisher.fit(x).concentration, kappa, kappa),
    ]
    return [abs(float(got) - want) / unit for got, want, unit in found]


def near_divergence(dim, kappa, near, exact) -> tuple[float, float, float]:
    """The divergence of a concentration from a near one: ours, certified, and its unit."""
    # G = log C(0) - log C(kappa): differences of G are those of the log-normalizer. The balls have
    # 280 bits or more, of which the difference loses some 40.
    other = arb_bessel.certify(arb_bessel.von_mises_fisher, dim, near)
    loc = np.eye(1, dim)[0]
    got = VonMisesFisher(loc, kappa).kl_divergence(VonMisesFisher(loc, near))
    drop = exact["log_normalizer"] - other["log_normalizer"]
    want = float((drop - exact["length"] * (arb_bessel.arb(near) - arb_bessel.arb(kappa))).mid())
    return got, want, want


def write(text: str) -> None:
    """Put the table into its own section of the page."""
    begin, end = "<!-- begin accuracy_vmf.py -->", "<!-- end accuracy_vmf.py -->"
    page = PAGE.read_text() if PAGE.exists() else "# Accuracy\n"
    page = re.sub(f"\n*{begin}.*?{end}\n*", "\n", page, flags=re.DOTALL)
    PAGE.write_text(f"{page.rstrip()}\n\n{begin}\n{text}\n{end}\n")


if __name__ == "__main__":
    main()
