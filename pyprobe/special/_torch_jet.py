"""Derivatives that are carried along: jets in the order, and those in both arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Jet", "Partials", "complement", "even", "first_three", "polynomial"]


class Partials(NamedTuple):
    """A function of two arguments with its derivatives; those not asked for may be missing."""

    f: Tensor
    v: Tensor | float = 0.0
    x: Tensor | float = 0.0
    vv: Tensor | float = 0.0
    vx: Tensor | float = 0.0
    xx: Tensor | float = 0.0

    def at(self, i: int, j: int) -> Tensor | float:
        """Return the derivative of order (i, j)."""
        return (self.f, self.x, self.xx, self.v, self.vx, 0.0, self.vv)[3 * i + j]


def even(p: Partials, v: Tensor) -> Partials:
    """Reflect the derivatives at |v| of a function that is even in v."""
    sign = torch.sign(v)
    return p._replace(v=sign * p.v, vx=sign * p.vx)


def complement(p: Partials, value: Tensor) -> Partials:
    return Partials(value, *(-derivative for derivative in p[1:]))


class Jet:
    """The Taylor coefficients f, f', f''/2 in the order, as many as are wanted."""

    __slots__ = ("c",)

    def __init__(self, c: Sequence[Any]) -> None:
        self.c = tuple(c)  # tensors, but numbers where these are the same for all elements

    @classmethod
    def variable(cls, value: Tensor, length: int) -> Jet:
        """Return the order itself, or something that runs along with it."""
        return cls((value, 1.0, 0.0)[:length])

    def derivatives(self) -> list[Tensor]:
        """Return f, f', f''."""
        return [a * math.factorial(k) for k, a in enumerate(self.c)]

    def __add__(self, other: Jet | Tensor | float) -> Jet:
        if isinstance(other, Jet):
            return Jet([a + b for a, b in zip(self.c, other.c, strict=True)])
        return Jet((self.c[0] + other, *self.c[1:]))

    __radd__ = __add__

    def __neg__(self) -> Jet:
        return Jet([-a for a in self.c])

    def __sub__(self, other: Jet | Tensor | float) -> Jet:
        return self + -other

    def __rsub__(self, other: Jet | Tensor | float) -> Jet:
        return -self + other

    def __mul__(self, other: Jet | Tensor | float) -> Jet:
        a = self.c
        if not isinstance(other, Jet):
            return Jet([coefficient * other for coefficient in a])
        b = other.c
        products: list[Any] = []
        for n in range(len(a)):
            total = a[0] * b[n]
            for i in range(1, n + 1):
                total = total + a[i] * b[n - i]
            products.append(total)
        return Jet(products)

    __rmul__ = __mul__

    def __truediv__(self, other: Jet | Tensor | float) -> Jet:
        if not isinstance(other, Jet):
            return Jet([coefficient / other for coefficient in self.c])
        b, quotients = other.c, list[Any]()
        for n, a in enumerate(self.c):
            for i in range(n):
                a = a - quotients[i] * b[n - i]
            quotients.append(a / b[0])
        return Jet(quotients)

    def log(self, value: Tensor | None = None) -> Jet:
        """Return the logarithm; `value` where it is known to more digits than its argument."""
        c = self.c
        out = [torch.log(c[0]) if value is None else value]
        if len(c) > 1:
            out.append(c[1] / c[0])
        if len(c) > 2:
            out.append(c[2] / c[0] - 0.5 * out[1] * out[1])
        return Jet(out)

    def log1p(self) -> Jet:
        """Return log(1 + self)."""
        return (self + 1.0).log(torch.log1p(self.c[0]))

    def polynomial(self, c: Sequence[float]) -> Jet:
        """Return the polynomial with these coefficients, constant term first."""
        total = self * 0.0 + c[-1]
        for a in c[-2::-1]:
            total = total * self + a
        return total

    def where(self, condition: Tensor, other: Jet) -> Jet:
        """Return this where the condition holds, else `other`."""
        pairs = zip(self.c, other.c, strict=True)
        return Jet([torch.where(condition, a, b) for a, b in pairs])


def first_three(jet: Jet) -> list[Tensor]:
    """Return f, f', f'', zero where the jet does not carry them."""
    found = jet.derivatives()
    return [*found, *[torch.zeros_like(found[0])] * (3 - len(found))]


def polynomial(c: Sequence[float], w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the polynomial with coefficients c, constant term first, and two derivatives."""
    zero = torch.zeros_like(w)
    f, first, half_second = zero + c[-1], zero, zero
    for a in c[-2::-1]:
        half_second = torch.addcmul(first, half_second, w)
        first = torch.addcmul(f, first, w)
        f = f * w + a
    return f, first, 2 * half_second
