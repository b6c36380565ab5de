"""Files fetched before, kept by their content: under $TAO2SERVE_HOME/cache, within bounds.

The SDK's own cache (`~/.clearml/cache`) is keyed by URL and neither knows a size nor a hash: what was written anew
under the same URL, or cut off by a full disk, comes out of it as if it were whole. A file is here only under the
SHA-256 of its bytes, is read once more before it is used, and gets there by a rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tao2serve.config import home
from tao2serve.errors import InputError, ToolError
from tao2serve.tao.source import sha256_of

__all__ = ["STATUS", "WEIGHTS", "Store", "find", "known", "remember", "staged"]

SHA256: Final = re.compile(r"[0-9a-f]{64}")
STALE_S: Final = 24 * 3600.0  # a staged file of a command that was killed
PREFIX: Final = ".staged-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One folder of the cache; the files used longest ago go first, the newest always stays."""

    name: str
    limit_files: int
    limit_bytes: int

    @property
    def folder(self) -> Path:
        return home() / "cache" / self.name


WEIGHTS: Final = Store(name="weights", limit_files=32, limit_bytes=8 << 30)
STATUS: Final = Store(name="status", limit_files=2000, limit_bytes=256 << 20)


def find(store: Store, sha256: str) -> Path | None:
    """Return the file with this content; one whose bytes are no longer those of its name is removed."""
    if not SHA256.fullmatch(sha256):
        return None
    path = store.folder / sha256
    try:
        if sha256_of(path) == sha256:
            os.utime(path)
            return path
        path.unlink()
    except (OSError, InputError):  # not there, or gone in between
        pass
    return None


def known(store: Store, identity: str) -> str:
    """Return the SHA-256 that was found under this identity; empty if none was."""
    try:
        content = _index(store, identity).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return content if SHA256.fullmatch(content) else ""


def remember(store: Store, identity: str, sha256: str) -> None:
    """Note which content an identity has: a model as it is now, at its URI, of its size."""
    index = _index(store, identity)
    with staged(store) as file:
        file.write(sha256.encode("ascii"))
        file.keep(index)


def _index(store: Store, identity: str) -> Path:
    return store.folder / "index" / hashlib.sha256(identity.encode()).hexdigest()


class Staged:
    """A file of the cache while it is written; raises ToolError if there is no room for it, or no right."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path

    def write(self, chunk: bytes) -> None:
        """Add some bytes."""
        with _writable(self._path.parent):
            self._file.write(chunk)

    def keep(self, target: Path) -> Path:
        """Put the file under its name, whole, and return that."""
        with _writable(target.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(target)
        return target


@contextmanager
def staged(store: Store) -> Iterator[Staged]:
    """Yield a file to write; what is not kept is gone at the end."""
    with _writable(store.folder):
        store.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PREFIX, dir=store.folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            yield Staged(file, path)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    # Looking at every file each time would be quadratic where there are thousands; being a little over is no harm.
    if store.limit_files <= 100 or secrets.randbelow(50) == 0:
        _prune(store)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ToolError(
            str(folder),
            "cannot be written",
            evidence=error.strerror or str(error),
            hint="make room there, or set TAO2SERVE_HOME to another folder",
        ) from error


def _prune(store: Store) -> None:
    """Remove what is beyond the bounds, and what killed commands left."""
    for folder in (store.folder, store.folder / "index"):
        entries = []
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    state = path.stat()
                    if path.name.startswith(PREFIX):
                        if time.time() - state.st_mtime > STALE_S:
                            path.unlink()
                    elif path.is_file():
                        entries.append((state.st_mtime, state.st_size, path))
        entries.sort(reverse=True)
        total = 0
        for place, (_, size, path) in enumerate(entries):
            total += size
            if place and (place >= store.limit_files or total > store.limit_bytes):
                with contextlib.suppress(OSError):
                    path.unlink()
