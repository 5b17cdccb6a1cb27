"""Print the tables of gamma.rs: python generate_gamma.py (needs mpmath).

Chebyshev interpolation in 60 digits, written in powers of a variable that runs over [-1, 1] (or
[0, 1/4]), where powers are well conditioned.
"""

from collections.abc import Callable

from mpmath import (
    bernoulli,
    cos,
    digamma,
    euler,
    loggamma,
    lu_solve,
    matrix,
    mp,
    mpf,
    pi,
    polyval,
    psi,
    rgamma,
    sqrt,
)

mp.dps = 60

SHIFT = 7  # Gamma(1 + v) through Gamma(1 + v + SHIFT), whose nearest pole is farther away
LOW, HIGH = mpf(-1), mpf(22)  # the orders that the tables serve

Function = Callable[[mpf], mpf]


def moebius() -> tuple[mpf, mpf, mpf]:
    """Return a, b, p: t = a - b / (v + p) takes LOW to -1, HIGH to 1, the cut to |t| > a."""
    half = 2 * (HIGH + 1 + SHIFT) / (HIGH - LOW) - 1
    a = half + sqrt(half * half - 1)
    p = ((a - 1) * HIGH - (a + 1) * LOW) / 2
    p = mpf(round(4 * p)) / 4
    low, high = 1 / (LOW + p), 1 / (HIGH + p)
    b = 2 / (low - high)
    return mpf(float(b * low - 1)), mpf(float(b)), p


def interpolate(f: Function, low: float, high: float, degree: int) -> tuple[list[mpf], mpf]:
    """Return the coefficients, constant term first, and the largest error on a grid."""
    n = degree + 1
    middle, radius = mpf(low + high) / 2, mpf(high - low) / 2
    points = [middle + radius * cos(pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    powers = matrix([[t**j for j in range(n)] for t in points])
    coefficients = list(lu_solve(powers, matrix([f(t) for t in points])))
    grid = [middle + radius * (mpf(k) / 100 - 1) for k in range(201)]
    return coefficients, max(abs(polyval(coefficients[::-1], t) - f(t)) for t in grid)


def show(name: str, coefficients: list[mpf], error: mpf, text: str) -> None:
    """Print one table as Rust."""
    print(f"/// {text}{f'; error below {float(error):.0e}' if error else ''}.")
    print(f"pub(crate) const {name}: [f64; {len(coefficients)}] = [")
    for c in coefficients:
        print(f"    {float(c)!r},")
    print("];\n")


def main() -> None:
    """Print every table."""
    a, b, p = moebius()
    print(f"const MOEBIUS_A: f64 = {float(a)!r};\nconst MOEBIUS_B: f64 = {float(b)!r};")
    print(f"const POLE: f64 = {float(p)!r};\n")

    def order(t: mpf) -> mpf:
        return b / (a - t) - p

    def slope(t: mpf) -> mpf:
        v = order(t)
        return (loggamma(8 + v) - loggamma(8)) / v

    def gamma_1(m: mpf) -> mpf:
        u = sqrt(m)
        return (rgamma(1 - u) - rgamma(1 + u)) / (2 * u) if u else -euler

    def gamma_2(m: mpf) -> mpf:
        u = sqrt(m)
        return (rgamma(1 - u) + rgamma(1 + u)) / 2

    text = "(ln Gamma(8 + v) - ln Gamma(8)) / v as a polynomial in t"
    show("SLOPE", *interpolate(slope, -1, 1, 21), text)
    text = "psi'(8 + v) as a polynomial in t"
    show("TRIGAMMA", *interpolate(lambda t: psi(1, 8 + order(t)), -1, 1, 19), text)
    rising = [mpf(1)]
    for j in range(1, SHIFT + 1):
        rising = [x + y / j for x, y in zip([*rising, 0], [0, *rising], strict=True)]
    show("RISING", rising[1:], mpf(0), "p(v) / v in v")
    first = mpf(float(rising[1]))
    numerator = [(k + 1) * rising[k + 1] - first * rising[k] for k in range(1, SHIFT)]
    text = "(p'(v) - p'(0) (1 + p(v))) / v in v"
    show("RISING_SLOPE", [*numerator, -first * rising[-1]], mpf(0), text)
    text = "psi(8 + v) - p'(0) as a polynomial in t"
    show("DIGAMMA", *interpolate(lambda t: digamma(8 + order(t)) - first, -1, 1, 21), text)
    text = "(1/Gamma(1 - u) - 1/Gamma(1 + u)) / 2u in u^2, for |u| <= 1/2"
    show("GAMMA_1", *interpolate(gamma_1, 0, 0.25, 8), text)
    text = "(1/Gamma(1 - u) + 1/Gamma(1 + u)) / 2 in u^2, for |u| <= 1/2"
    show("GAMMA_2", *interpolate(gamma_2, 0, 0.25, 8), text)
    stirling = [bernoulli(2 * k) / (2 * k * (2 * k - 1)) for k in range(1, 11)]
    text = "Stirling's coefficients `B_2k / (2k (2k - 1))`, for arguments from 8 on"
    show("STIRLING", stirling, abs(bernoulli(22) / (22 * 21 * mpf(8) ** 21)), text)


if __name__ == "__main__":
    main()
