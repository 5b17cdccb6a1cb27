"""The number of threads that the kernels use."""

from __future__ import annotations

import os

from pyprobe import _core
from pyprobe._validate import check_positive_int
from pyprobe.errors import DomainError

__all__ = ["get_num_threads", "set_num_threads"]


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that the kernels use; ``None`` means one a processor.

    Results do not depend on it: the same bits come out for any number. The environment variable
    ``PYPROBE_NUM_THREADS`` sets the number a process starts with. torch's and BLAS's own threads
    are not touched.

    Parameters
    ----------
    n : int or None
        At least 1.

    Raises
    ------
    DomainError
        If `n` is less than 1.

    Examples
    --------
    >>> import pyprobe
    >>> pyprobe.set_num_threads(1)
    >>> pyprobe.get_num_threads()
    1
    >>> pyprobe.set_num_threads(None)
    """
    _core.set_num_threads(0 if n is None else check_positive_int("n", n))


def get_num_threads() -> int:
    """Return the number of threads that the next kernel will use.

    Examples
    --------
    >>> import pyprobe
    >>> pyprobe.get_num_threads() >= 1
    True
    """
    return _core.num_threads()


def _read_environment() -> None:
    text = os.environ.get("PYPROBE_NUM_THREADS", "").strip()
    if not text:
        return
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise DomainError(
            f"the environment variable PYPROBE_NUM_THREADS must be a positive integer; got "
            f"{text!r}. Unset it to use every processor."
        )
    set_num_threads(int(text))


_read_environment()
