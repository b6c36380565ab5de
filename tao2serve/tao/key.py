"""The key of a training run: where it is given, and that nothing shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tao2serve.errors import UsageError

__all__ = ["KEY_VARIABLE", "key_if_given", "read_key"]

KEY_VARIABLE: Final = "TAO2SERVE_TAO_KEY"
_LONGEST_KEY: Final = 1024  # bytes


def read_key(key_file: Path | None) -> str:
    """Return the key of the training run: of the file if one is named, else of the variable.

    Raises UsageError if there is none, or it cannot be a key; no error shows any of it.
    """
    if key_file is not None:
        subject, content = str(key_file), _content(key_file)
    elif os.environ.get(KEY_VARIABLE):
        subject, content = KEY_VARIABLE, os.environb[KEY_VARIABLE.encode()]
    else:
        raise UsageError(
            "the key of the training run",
            "is not given, and encrypted models open with nothing else",
            hint=f"put it into a file and name that by the setting tao_key_file, or into the variable {KEY_VARIABLE}",
        )
    try:
        key = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable() or len(content) > _LONGEST_KEY:
        raise UsageError(
            subject,
            "holds no key: one line of text is expected",
            evidence=f"{len(content)} bytes" if len(content) <= _LONGEST_KEY else f"more than {_LONGEST_KEY} bytes",
            hint="put the key that `detectnet_v2 train -k` was given there, and nothing else",
        )
    return key


def key_if_given(key_file: Path | None) -> str:
    """Return the key as `read_key` does, "" if none is given: TAO 5.0 trains and exports .hdf5 without."""
    return read_key(key_file) if key_file is not None or os.environ.get(KEY_VARIABLE) else ""


def _content(path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            return file.read(_LONGEST_KEY + 1)
    except (OSError, ValueError, RuntimeError) as error:  # NUL in the name; ~ of nobody
        raise UsageError(str(path), "cannot be read, and is to hold the key", evidence=str(error)) from error
