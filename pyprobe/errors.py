"""Exceptions and warnings: one root, and the built-in class a caller would catch anyway."""

__all__ = [
    "ConvergenceWarning",
    "DomainError",
    "MissingDependencyError",
    "NotFiniteError",
    "NotPositiveDefiniteError",
    "NumericalWarning",
    "PyprobeError",
    "ShapeError",
]


class PyprobeError(Exception):
    """Root of every exception that pyprobe raises on purpose."""


class ShapeError(PyprobeError, ValueError):
    """An array has the wrong shape, or two shapes do not fit each other."""


class DomainError(PyprobeError, ValueError):
    """A value lies outside the domain of the function or model."""


class NotFiniteError(PyprobeError, ValueError):
    """An array holds infinite or NaN entries where a model needs finite ones."""


class NotPositiveDefiniteError(PyprobeError, ValueError):
    """A matrix that must be positive definite is not."""


class MissingDependencyError(PyprobeError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before it reached its tolerance; the result says how far it got."""


class NumericalWarning(UserWarning):
    """A result was computed as asked, but should not be trusted as it stands."""
