"""Door to scikit-learn: estimators that pass its own checks.

`VonMisesFisherMixture`   density and clusters of directions

The mathematics is that of the fitted values in `pyprobe`; here is only scikit-learn's grammar.
"""

from pyprobe.errors import MissingDependencyError

try:
    import sklearn as _sklearn  # noqa: F401  # found out here, for a message that helps
except ImportError as error:
    raise MissingDependencyError(
        "pyprobe.sklearn needs scikit-learn: pip install 'pyprobe-rs[sklearn]'"
    ) from error

from pyprobe.sklearn._mixture import VonMisesFisherMixture

__all__ = ["VonMisesFisherMixture"]
