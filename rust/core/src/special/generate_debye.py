"""Write ``debye_table.rs``: the coefficients of the logarithm of the Debye series.

With ``s = hypot(v, x)``, ``w = (v / s)**2`` and the Debye polynomials ``u_k`` (DLMF 10.41.10),
``u_k(t) / v**k = P_k(w) / s**k`` is regular at v = 0, and

    p[k+1, j] = p[k, j] ((k + 2j) / 2 + 1 / (8 (k + 2j + 1)))
              - p[k, j-1] ((k + 2j - 2) / 2 + 5 / (8 (k + 2j + 1))).

The logarithm of the series is taken term by term:
``k D_k = k P_k - sum(i D_i P_(k-i) for 1 <= i < k)``. All in exact rationals, rounded once.

Usage: ``python generate_debye.py > debye_table.rs``
"""

from fractions import Fraction
from itertools import zip_longest
from math import factorial

TERMS = 24

Polynomial = list[Fraction]


def debye_polynomials(n: int) -> list[Polynomial]:
    """Return P_0 .. P_n, each a list of coefficients in w, constant term first."""
    result = [[Fraction(1)]]
    for k in range(n):
        last = [*result[-1], Fraction(0)]
        result.append(
            [
                last[j] * (Fraction(k + 2 * j, 2) + Fraction(1, 8 * (k + 2 * j + 1)))
                - (last[j - 1] if j else 0)
                * (Fraction(k + 2 * j - 2, 2) + Fraction(5, 8 * (k + 2 * j + 1)))
                for j in range(k + 2)
            ]
        )
    return result


def product(a: Polynomial, b: Polynomial) -> Polynomial:
    """Return the product of two polynomials."""
    result = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            result[i + j] += x * y
    return result


def logarithm(p: list[Polynomial]) -> list[Polynomial]:
    """Return D_k of ``log(sum(P_k y**k)) = sum(D_k y**k)``; the entry of k = 0 is unused."""
    result: list[Polynomial] = [[]]
    for k in range(1, len(p)):
        total = [k * c for c in p[k]]
        for i in range(1, k):
            term = product(result[i], p[k - i])
            total = [a - i * b for a, b in zip_longest(total, term, fillvalue=Fraction(0))]
        result.append([c / k for c in total])
    return result


def check(p: list[Polynomial], d: list[Polynomial]) -> None:
    """Compare with closed forms: P_k(0) of Hankel's series, D_k(1) of Stirling's."""
    for k, row in enumerate(p):
        odd = Fraction(factorial(2 * k), 2**k * factorial(k))  # (2k - 1)!!
        assert row[0] == odd**2 / (factorial(k) * 8**k)
    stirling = [Fraction(-1, 12), 0, Fraction(1, 360), 0, Fraction(-1, 1260), 0, Fraction(1, 1680)]
    assert [sum(row) for row in d[1:8]] == stirling


def main() -> None:
    """Print the Rust module."""
    p = debye_polynomials(TERMS)
    d = logarithm(p)
    check(p, d)
    print("//! Coefficients of the logarithm of the Debye series; written by `generate_debye.py`.")
    print()
    print("/// How many terms the table holds.")
    print(f"pub(crate) const TERMS: usize = {TERMS};")
    print()
    print("/// `D_1`, `D_2`, .. in turn, each as its k + 1 coefficients in w, constant term first.")
    print("#[rustfmt::skip]")
    print(f"pub(crate) const D: [f64; {sum(map(len, d))}] = [")
    for k, row in enumerate(d[1:], start=1):
        print(f"    // D_{k}")
        for c in row:
            print(f"    {float(c)!r},")
    print("];")


if __name__ == "__main__":
    main()
