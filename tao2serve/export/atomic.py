"""Write a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tao2serve.errors import ToolError, UsageError

__all__ = ["put_files", "write_atomically"]

TEMPORARY: Final = re.compile(r"tao2serve-[a-z]+-\w{8}/")  # as `tempfile` names the folders of our runs


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `content`; what was there stays if anything goes wrong.

    Without `durable` a crash of the machine may lose it: for what is quickly made again, and made in numbers.

    Raises UsageError if the place cannot be written, ToolError if there is no room. The mode follows the umask: a
    Triton running as another user must be able to read the file, which a `tempfile` with mode 0600 would prevent.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ToolError(
                str(path.parent), "is full", evidence=f"{len(content):,} bytes of {path.name}",
                hint=f"make room there, or {_remedy(path)}",
            ) from error  # fmt: skip
        raise UsageError(
            str(path),
            "cannot be written",
            evidence=error.strerror or str(error),
            hint=_remedy(path),
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone after success; never there if the folder is not one
            staged.unlink()


def put_files(contents: Mapping[Path, bytes], *, inputs: Sequence[Path], force: bool) -> None:
    """Write all files, each in one step; raises UsageError, before any is written, rather than replace what differs.

    With `force` other content is replaced, but never one of the `inputs`, which what is written was made from.
    """
    for target, content in contents.items():
        if target.is_dir():
            raise UsageError(str(target), "is a folder, and a file must go there", hint="choose another -o DIR")
        if not target.is_file() or target.read_bytes() == content:
            continue
        if any(target.samefile(source) for source in inputs):
            raise UsageError(
                str(target), "is what was exported, and would be written over", hint="choose another -o DIR"
            )
        if not force:
            raise UsageError(str(target), "is there already, with other content", hint="add --force, or another -o DIR")
    for target, content in contents.items():
        write_atomically(target, content)


def _remedy(path: Path) -> str:
    """Say how another place is chosen: that of a temporary file is no option of any command."""
    if TEMPORARY.match(os.path.relpath(path, tempfile.gettempdir())):
        return "choose another: export TMPDIR=DIR"
    return "choose another output"
