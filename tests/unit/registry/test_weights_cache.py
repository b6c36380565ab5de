"""The cache of fetched files: by content, whole or not at all, within bounds."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from tao2serve.errors import ToolError
from tao2serve.registry.cache import Staged, Store, find, known, remember, staged

STORE = Store(name="test", limit_files=3, limit_bytes=100)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    return tmp_path


def put(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    with staged(STORE) as file:
        file.write(content)
        file.keep(STORE.folder / digest)
    return digest


def test_what_is_kept_is_found_by_its_content() -> None:
    """A file is there under its hash; one whose bytes changed is not, and is removed."""
    digest = put(b"weights")
    path = find(STORE, digest)
    assert path is not None
    assert path.read_bytes() == b"weights"
    path.write_bytes(b"weight")
    assert find(STORE, digest) is None
    assert not path.exists()
    assert find(STORE, "../../etc/passwd") is None


def test_what_is_not_kept_is_gone() -> None:
    """A write that ends in an error, or is not kept, leaves nothing."""
    with pytest.raises(ValueError, match="cut off"), staged(STORE) as file:
        file.write(b"half")
        raise ValueError("cut off")
    with staged(STORE) as file:
        file.write(b"half")
    assert list(STORE.folder.iterdir()) == []


def test_no_room_is_said() -> None:
    """A cache that cannot be written, or is full, is exit code 4 with the folder, not a traceback."""
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(ToolError, match="cannot be written"):
        Staged(full, STORE.folder / "x").write(b"x")
    put(b"a")
    blocked = Store(name="test/blocked", limit_files=3, limit_bytes=100)
    (STORE.folder / "blocked").write_text("a file where the folder would be")
    with pytest.raises(ToolError, match="blocked"), staged(blocked):
        pass


def test_bounds_keep_what_was_used_last() -> None:
    """Beyond files or bytes the one used longest ago goes; a file over the bound alone stays."""
    digests = [put(bytes([n])) for n in range(3)]
    for age, digest in enumerate(digests):
        os.utime(STORE.folder / digest, (time.time() - 100 + age,) * 2)
    assert find(STORE, digests[0])  # used again
    put(b"fourth")
    assert [find(STORE, digest) is not None for digest in digests] == [True, False, True]
    large = put(bytes(500))
    assert [path.name for path in STORE.folder.iterdir()] == [large]


def test_leftovers_of_killed_commands_go() -> None:
    """A staged file of a day ago is removed, a young one may belong to another command."""
    put(b"a")
    old, young = STORE.folder / ".staged-old", STORE.folder / ".staged-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    put(b"b")
    assert (old.exists(), young.exists()) == (False, True)


def test_an_identity_stands_for_a_content() -> None:
    """What was remembered is known, and nothing else is; a damaged note is none."""
    digest = put(b"a")
    remember(STORE, "model 1, of 5 bytes", digest)
    assert known(STORE, "model 1, of 5 bytes") == digest
    assert known(STORE, "model 1, of 6 bytes") == ""
    for note in (STORE.folder / "index").iterdir():
        note.write_text("../x")
    assert known(STORE, "model 1, of 5 bytes") == ""
