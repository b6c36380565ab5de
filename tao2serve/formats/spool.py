"""JSON lists and objects that grow entry by entry, in a file once they are large."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import IO, Any, Final

__all__ = ["Spool"]

_IN_MEMORY_BYTES: Final = 4 << 20


class Spool:
    """The entries of one JSON list or object, kept as text; the temporary file is gone when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - its owner closes it
            max_size=_IN_MEMORY_BYTES, mode="w+", encoding="utf-8", newline=""
        )
        self.count = 0

    def add(self, value: Any, *, key: str | None = None, separator: str = ",\n") -> None:
        """Append a list's entry, or with `key` an object's."""
        name = f"{json.dumps(key)}: " if key is not None else ""
        self.add_text(name + json.dumps(value, default=str), separator=separator)

    def add_text(self, text: str, *, separator: str = "") -> None:
        """Append what is text already."""
        self._file.write((separator if self.count else "") + text)
        self.count += 1

    def copy_to(self, out: IO[str]) -> None:
        """Write the entries, with what separates them and without brackets."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, out)
        self._file.seek(0, 2)

    def close(self) -> None:
        self._file.close()
