"""Write the reference tables of log-Bessel functions: ``python tests/reference/make_bessel.py``.

Each table is a CSV of shortest decimal forms, so that a reader gets back the same doubles: the
arguments first, then the certified value of each column rounded to nearest. The points sample the
range in which accuracy is claimed and are doubled, a relative 1e-12 apart, at the seams between
the branches of the implementation. Needs python-flint; takes a few seconds.
"""

import csv
import math
import random
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path

from arb_bessel import bessel, certify, log_hyp0f1, log_matern, von_mises_fisher
from flint import arb, ctx

FOLDER = Path(__file__).parent
NEAR = (1 - 1e-12, 1 + 1e-12)
SEAMS_IN_S = (22, 25, 28, 32, 36, 40, 50, 60, 80, 100, 150, 300, 500, 2e3, 1e4, 1e5)
SEAMS_IN_X = (1e-3, 2e-3, 0.1, 0.15, 0.5, 1, 1.5, 3, 4, 10, 11)

Point = tuple[float, float]


def main() -> None:
    """Write all tables."""
    with get_context("spawn").Pool(2) as pool:
        rows = pool.map(bessel_row, sorted(set(bessel_points())), chunksize=20)
        for name, prefixes in {
            "log_iv": ("log_iv_", "log_ive_"),
            "log_kv": ("log_kv_", "log_kve_"),
            "bessel_ratio": ("bessel_ratio_",),
        }.items():
            write(name, ("v", "x"), [(at, pick(values, prefixes)) for at, values in rows])
        rows = pool.map(hyp0f1_row, sorted(set(hyp0f1_points())), chunksize=20)
        write("log_hyp0f1", ("b", "z"), rows)
        rows = pool.map(matern_row, sorted(set(matern_points())), chunksize=20)
        write("log_matern", ("nu", "x"), rows)
        rows = pool.map(von_mises_fisher_row, von_mises_fisher_points(), chunksize=20)
        write("von_mises_fisher", ("dim", "concentration"), rows)


def bessel_points() -> Iterator[Point]:
    """Orders ``v`` in 0 and [1e-3, 1e6], arguments ``x`` in [1e-6, 1e7]."""
    rng = random.Random(1)
    for _ in range(100):
        yield 0.0, log_uniform(rng, 1e-6, 1e7)
    for _ in range(650):
        yield log_uniform(rng, 1e-3, 1e6), log_uniform(rng, 1e-6, 1e7)
    for _ in range(150):  # the region of series and recurrences
        yield rng.uniform(0, 22), log_uniform(rng, 1e-6, 22)
    for _ in range(100):
        s, angle = rng.uniform(15, 60), rng.uniform(0, math.pi / 2)
        yield s * math.sin(angle), s * math.cos(angle)
    for s in SEAMS_IN_S:
        for v, x in ((0, 1), (0.01, 1), (0.6, 0.8), (1, 0.1), (1, 1e-3)):
            scale = s / math.hypot(v, x)
            yield from ((v * scale * side, x * scale * side) for side in NEAR)
    for x in SEAMS_IN_X:
        for v in (0, 0.3, 0.5, 1.4, 1.5, 2.5, 7.2, 12.5, 20):
            yield from ((float(v), x * side) for side in NEAR)
    for v in (0.5, 1, 1.5, 2, 2.5, 3, 5, 10, 10.5, 20, 21, 21.5):
        yield from ((float(v), x) for x in (1e-6, 1e-3, 0.1, 1.0, 3.0, 8.0, 20.0))
    for v in (0.5, 1.5, 5.5, 15.5):  # where the nearest integer changes, and K's recurrence starts
        yield from ((v + side, x) for side in (-1e-9, 1e-9) for x in (1e-3, 1.0, 5.0))
    for v in (3, 10, 20, 30, 100, 1e3, 1e5):  # log I is near 0
        yield float(v), 0.6627434193 * v


def hyp0f1_points() -> Iterator[Point]:
    """Parameters ``b`` in [1e-2, 1e6], ``z = kappa^2/4`` for ``kappa`` in [1e-6, 1e7]."""
    rng = random.Random(2)
    for _ in range(250):
        yield log_uniform(rng, 1e-2, 1e6), log_uniform(rng, 1e-6, 1e7) ** 2 / 4
    for b in (0.01, 0.5, 1, 1.5, 3, 9, 23, 100, 1e3, 1e5):
        yield from ((float(b), b * side) for side in NEAR)
    for nu in (-0.9, -0.5, 0, 3, 8, 12, 21.9):
        kappa = math.sqrt(22**2 - nu**2)
        yield from ((nu + 1.0, (kappa * side) ** 2 / 4) for side in NEAR)
    for nu in (8, 22):
        for kappa in (1, 10, 20, 30, 100, 1e4):
            yield from ((nu * side + 1, kappa**2 / 4) for side in NEAR)


def matern_points() -> Iterator[Point]:
    """Smoothness ``nu`` in [1e-2, 1e3], distance ``x`` in [1e-15, 1e7]."""
    rng = random.Random(3)
    for low, high, count in ((1e-15, 1e-3, 80), (1e-6, 1e4, 170), (1e4, 1e7, 20)):
        for _ in range(count):
            yield log_uniform(rng, 1e-2, 1e3), log_uniform(rng, low, high)
    for nu in (0.5, 1, 1.5, 2, 2.5, 3.5, 10):
        yield from ((float(nu), x) for x in (1e-15, 1e-12, 1e-8, 1e-4, 0.1, 1.0, 10.0, 100.0))
    for nu in (0.3, 0.5, 2.5, 8, 12, 21.9):
        x = math.sqrt(22**2 - nu**2)
        yield from ((float(nu), y * side) for y in (*SEAMS_IN_X, x) for side in NEAR)
    for x in (1e-3, 1, 10, 22, 30, 1e3):
        yield from ((nu * side, float(x)) for nu in (8, 22) for side in NEAR)


def von_mises_fisher_points() -> Iterator[Point]:
    """Dimensions and concentrations of directional data."""
    yield from ((2, 1.0), (3, 0.01), (3, 1000.0), (5, 2.0), (128, 100.0), (2048, 0.01))
    yield from ((8192, 1e4), (32768, 3e4))
    for dim in (2, 3, 5, 64, 1024, 32768, 131072):
        yield from ((dim, 10.0**power) for power in range(-6, 11))


def bessel_row(at: Point) -> tuple[Point, dict[str, float]]:
    """Certified values, held against identities and against Arb's own Bessel functions."""
    values = certify(bessel, *at)
    v, x = map(arb, at)
    log_i, log_k = values["log_iv_00"], values["log_kv_00"]
    # I and K come from different integrals; the Wronskian, and its derivative in v, join them.
    slope = values["log_iv_01"] - values["log_kv_01"]
    mixed = values["log_iv_11"] - values["log_kv_11"]
    wronskian = log_i + log_k + slope.log() + x.log()
    pairs = [(wronskian, 0), (values["log_iv_10"] + values["log_kv_10"] + mixed / slope, 0)]
    if x < 1e4 and v < 1e4:
        ctx.prec = max(ctx.prec, 500)
        pairs += [(x.bessel_i(v).log(), log_i), (x.bessel_k(v).log(), log_k)]
    if not all(one.overlaps(arb(other)) for one, other in pairs):
        raise ArithmeticError(f"contradiction at {at}: {pairs}")
    return at, nearest(values)


def hyp0f1_row(at: Point) -> tuple[Point, dict[str, float]]:
    """Certified values of ``log 0F1``."""
    return at, nearest(certify(log_hyp0f1, *at))


def matern_row(at: Point) -> tuple[Point, dict[str, float]]:
    """Certified values of the log of the Matern correlation."""
    return at, nearest(certify(log_matern, *at))


def von_mises_fisher_row(at: Point) -> tuple[Point, dict[str, float]]:
    """Certified values of what a von Mises-Fisher distribution needs."""
    return at, nearest(certify(von_mises_fisher, *at))


def nearest(values: dict[str, arb]) -> dict[str, float]:
    """Each ball as the double nearest to its midpoint."""
    return {name: float(value.mid()) for name, value in values.items()}


def pick(values: dict[str, float], prefixes: tuple[str, ...]) -> dict[str, float]:
    """The columns of one file."""
    return {name: value for name, value in values.items() if name.startswith(prefixes)}


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    """A draw whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def write(
    name: str, arguments: tuple[str, str], rows: Iterable[tuple[Point, dict[str, float]]]
) -> None:
    """Write one table."""
    rows = list(rows)
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*arguments, *rows[0][1]])
        out.writerows([*at, *values.values()] for at, values in rows)
    print(f"{name}.csv: {len(rows)} points")


if __name__ == "__main__":
    main()
