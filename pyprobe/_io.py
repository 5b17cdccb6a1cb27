"""Saving and loading fitted models: one ``.npz`` file, no pickle, a format version.

A file holds the model's arrays, its numbers as 0-d arrays, and a header that names its class. What
does not fit is refused by name. A `Frozen` model stays immutable on the way.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pyprobe.errors import DomainError

__all__ = ["Frozen", "fields_of", "load", "record_of", "save"]

_FORMAT = 1
_Record = TypeVar("_Record")


class Frozen:
    """A value whose arrays stay read-only when it is copied or unpickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)


def save(path: str | os.PathLike[str], kind: str, fields: Mapping[str, Any]) -> None:
    """Write `fields` (arrays, numbers, strings or None) of a model called `kind` to `path`.

    The file appears whole or not at all: it is written beside `path` and moved there.
    """
    arrays: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:  # older releases of savez would pickle it
                raise ValueError(f"Object arrays cannot be saved; '{name}' is one.")
            arrays[name] = value
        else:
            plain[name] = value
    header = json.dumps({"format": _FORMAT, "kind": kind, "plain": plain})
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "the folder to save into is not there", os.fspath(target.parent)
        )
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, __header__=np.array(header), **arrays)
        Path(partial).replace(target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def fields_of(name: str, record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as those of a model that has it as `name`; none of None."""
    if record is None:
        return {}
    values = {field: getattr(record, field) for field in record.__dataclass_fields__}
    return {
        f"{name}.{field}": value.item() if isinstance(value, np.generic) else value
        for field, value in values.items()
    }


def record_of(name: str, kind: type[_Record], fields: Mapping[str, Any]) -> _Record | None:
    """Return the dataclass that `fields_of` took apart, or None where there was none."""
    start = f"{name}."
    own = {key[len(start) :]: value for key, value in fields.items() if key.startswith(start)}
    return kind(**own) if own else None


def load(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read the fields that `save` wrote for a model called `kind`."""
    refusal = f"'{os.fspath(path)}' is not a saved {kind}"
    # Opened here: where it is broken, NumPy leaves a file open that it opened itself.
    with Path(path).open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
        except (ValueError, zipfile.BadZipFile, EOFError) as error:
            raise DomainError(f"{refusal}: it is not an npz file.") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DomainError(f"{refusal}: it is a single array.")
        if "__header__" not in file:
            raise DomainError(f"{refusal}: it has no header.")
        try:
            header = json.loads(str(file["__header__"]))
            _ = header["format"], header["kind"], header["plain"]
        except (ValueError, KeyError, TypeError) as error:
            raise DomainError(f"{refusal}: its header is not ours.") from error
        if header["format"] > _FORMAT:
            raise DomainError(
                f"{refusal} that this version can read: it has format {header['format']}, this "
                f"version reads up to {_FORMAT}. Update pyprobe."
            )
        if header["kind"] != kind:
            raise DomainError(f"{refusal}: it holds a {header['kind']}.")
        arrays = {name: file[name] for name in file.files if name != "__header__"}
    return {**header["plain"], **arrays}
