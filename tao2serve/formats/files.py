"""The files of a layout in a folder: whole or not there, and never in the place of somebody's labels."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from tao2serve.errors import UsageError
from tao2serve.formats.layouts import Layout

__all__ = ["check_replaceable", "write_own_file", "write_shared_files"]

_HEAD_CHARACTERS: Final = 1 << 16
_KITTI_COLUMNS: Final = 16
# Ground truth has no confidence; ours says who wrote it where there may be none.
_MARKS: Final = ('"score"', '"confidence"', '"tao2serve"', '"inference_id"', '"bbox_format"')


def check_replaceable(layout: Layout, folder: Path, stems: Iterable[str]) -> None:
    """Raise UsageError if a file of the layout would replace one that holds labels, or anything but predictions."""
    own = (f"{stem}{layout.ending}" for stem in stems) if layout.ending else ()
    for name in (*layout.files, *own):
        path = folder / name
        if path.exists() and not _holds_predictions(path):
            raise UsageError(
                str(path),
                "is there already, and holds no predictions",
                evidence="predictions have a confidence, these have none: they may be your labels",
                hint="choose another -o DIR, or remove the file",
            )


def write_own_file(text: str, path: Path) -> Path:
    """Write one picture's file; raises UsageError if it cannot be written."""
    with _Staged(path) as out:
        out.write(text)
    return path


def write_shared_files(layout: Layout, folder: Path) -> tuple[Path, ...]:
    """Write the files that all pictures share; raises UsageError if one cannot be written."""
    for name in layout.files:
        with _Staged(folder / name) as out:
            layout.write(name, out)
    return tuple(folder / name for name in layout.files)


class _Staged:
    """A text file under another name that gets its own at the end, or vanishes if anything went wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> IO[str]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._staged.open("x", encoding="utf-8", errors="replace", newline="\n")
        except OSError as error:
            raise self._error(error) from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        try:
            self._file.close()
            if kind is None:
                self._staged.replace(self._path)
        except OSError as failed:
            raise self._error(failed) from failed
        finally:
            with suppress(OSError):  # gone after success
                self._staged.unlink()
        if isinstance(error, OSError):
            raise self._error(error) from error

    def _error(self, error: OSError) -> UsageError:
        return UsageError(
            str(self._path), "cannot be written", evidence=error.strerror or str(error), hint="choose another output"
        )


def _holds_predictions(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(_HEAD_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return False
    if "".join(head.split()) in ("", "[]"):
        return True
    if path.suffix == ".txt":
        return len(head.strip().splitlines()[0].split()) == _KITTI_COLUMNS
    return any(mark in head for mark in _MARKS)
