"""Write a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from tao2serve.errors import ToolError, UsageError

__all__ = ["write_atomically"]


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
                hint="make room there, or choose another output; temporary files lie where TMPDIR says",
            ) from error  # fmt: skip
        raise UsageError(
            str(path),
            "cannot be written",
            evidence=error.strerror or str(error),
            hint="choose another output",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone after success; never there if the folder is not one
            staged.unlink()
