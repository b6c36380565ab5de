"""Files written whole or not at all: what is said where that cannot be."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from tao2serve.errors import ToolError, UsageError
from tao2serve.export.atomic import write_atomically


@pytest.mark.parametrize("temporary", [True, False])
def test_the_remedy_is_one_the_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: bool) -> None:
    """A run's own temporary folder is moved with TMPDIR; any other place is an output that was named."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Path(tempfile.mkdtemp(prefix="tao2serve-deploy-")) if temporary else tmp_path / "tao2serve-out"
    wanted = "TMPDIR" if temporary else "another output"

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(ToolError, match="is full") as caught:
        patched.setattr(os, "fsync", full)
        write_atomically(folder / "made" / "model.onnx", b"x")
    assert wanted in caught.value.hint
    (folder / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written") as refused:
        write_atomically(folder / "file" / "model.onnx", b"x")
    assert wanted in refused.value.hint
    assert not list((folder / "made").iterdir())
