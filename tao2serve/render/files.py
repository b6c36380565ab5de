"""Writing what was rendered: nothing that is there is overwritten unasked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tao2serve.errors import UsageError

__all__ = ["RenderedFile", "WrittenFile", "write_files"]

State: TypeAlias = Literal["written", "unchanged", "replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFile:
    name: str  # relative, with / between folders
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    path: Path
    state: State


def write_files(files: Sequence[RenderedFile], folder: Path, *, force: bool = False) -> tuple[WrittenFile, ...]:
    """Write the files and say of each what became of it; other files of the folder are left alone.

    Raises UsageError, before anything is written, naming the files that are there with other content, unless `force`.
    """
    try:
        differing = [file.name for file in files if _differs(folder / file.name, file.text)]
        if differing and not force:
            raise UsageError(
                str(folder),
                "has files of these names with other content; nothing was written",
                evidence="\n".join(differing),
                hint="choose another -o DIR, or replace them: --force",
            )
        return tuple(_write(file, folder) for file in files)
    except OSError as error:
        raise UsageError(
            str(folder),
            "cannot be written",
            evidence=error.strerror or str(error),
            hint="choose another -o DIR",
        ) from error


def _differs(path: Path, text: str) -> bool:
    return path.exists() and (not path.is_file() or path.read_bytes() != text.encode())


def _write(file: RenderedFile, folder: Path) -> WrittenFile:
    path = folder / file.name
    if path.is_file() and path.read_bytes() == file.text.encode():
        return WrittenFile(path=path, state="unchanged")
    state: State = "replaced" if path.exists() else "written"
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".new")
    staged.write_text(file.text, encoding="utf-8")
    staged.replace(path)
    return WrittenFile(path=path, state=state)
