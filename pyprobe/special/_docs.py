"""What the docstrings of the special functions share, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

__all__ = ["document"]

F = TypeVar("F", bound=Callable[..., object])

_DERIVATIVE = """\
derivative : (int, int), optional
    How many derivatives to take in `{first}` and in `{second}`:
    {most}, by default none. NumPy has no automatic differentiation: this is how its
    users get at derivatives of full accuracy. Tensors have both ways.

Returns
-------
numpy.ndarray, numpy.floating or torch.Tensor
    Of the broadcast shape, a scalar for two scalars. Tensors keep their dtype and device; other
    results are float32 where all arrays are, else float64.

Raises
------
TypeError
    If tensors come with NumPy arrays or from several devices, or numbers are complex or masked.
ShapeError
    If the shapes do not broadcast.
DomainError
    If `derivative` is not a pair of orders that is offered."""

_NOTES = """\
NaN passes through element by element, and marks arguments outside of the domain. Derivatives at
the edges of the domain are limits too.

Values and first derivatives are good to a few units in the last place all over the domain, second
derivatives to 1e-12, relative or scaled as the :doc:`accuracy page </accuracy>` says for each
function and region.

A bounded number of terms an element: O(n) for n elements, whatever their size. Long calls run on
:func:`pyprobe.set_num_threads` threads, with the same bits for any number of them.

Differentiable in both arguments, {smooth}, under torch's
reverse and forward mode, ``torch.func`` and ``torch.compile``; a derivative beyond raises
`PyprobeError`. Engines: native (NumPy, and torch on the CPU), torch (other devices). float32 is
computed in float64 and rounded; torch's half precision is computed as float32."""

_SMOOTH = "to a total order of two"
_SMOOTH_RATIO = "once in `v` and any number of times in `x`"
_MOST = "at most two together"
_MOST_RATIO = "at most two together and one in `v`"

_REFERENCES = """\
.. [1] NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, 10.25 (definitions),
   10.29 (ratios), 10.41 (uniform expansions for large order).
.. [2] A. Plesner, H. H. B. Sørensen, S. Hauberg, "Accurate computation of the logarithm of modified
   Bessel functions on GPUs", ICS 2024, arXiv:2409.08729."""


def document(first: str = "v", second: str = "x", *, ratio: bool = False) -> Callable[[F], F]:
    """Return a decorator that puts the shared parts into a docstring.

    They stand for lines that read ``{derivative}``, ``{notes}`` and ``{references}``.
    """
    parts = {
        "{derivative}": _DERIVATIVE.format(
            first=first, second=second, most=_MOST_RATIO if ratio else _MOST
        ),
        "{notes}": _NOTES.format(smooth=_SMOOTH_RATIO if ratio else _SMOOTH),
        "{references}": _REFERENCES,
    }

    def decorate(function: F) -> F:
        text = inspect.getdoc(function)
        if text is not None:  # python -OO strips it
            for mark, part in parts.items():
                text = text.replace(mark, part)
            function.__doc__ = text
        return function

    return decorate
