"""Methods of values that take rows as arrays or as torch tensors, and answer in kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pyprobe._engine import Engine, select

__all__ = ["in_kind"]

P = ParamSpec("P")
R = TypeVar("R")


def in_kind(
    method: Callable[P, R],
    rows: tuple[str, ...],
    on_tensors: Callable[[Callable[P, R], dict[str, Any]], R],
) -> Callable[P, R]:
    """Return `method` with tensors let through to `on_tensors`, which is given its arguments.

    The arguments called as in `rows` say which library a call is made in.
    """
    signature = inspect.signature(method)
    names = tuple(signature.parameters)

    @functools.wraps(method)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        given: dict[str, Any] = dict(zip(names, arguments, strict=False)) | options
        seen = tuple(name for name in rows if name in given)
        if select(*(given[name] for name in seen), names=seen) is Engine.NATIVE:
            return method(*arguments, **options)
        return on_tensors(method, signature.bind(*arguments, **options).arguments)

    return call
