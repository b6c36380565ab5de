"""Encrypted models before any container runs: the key, and what is said without the launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.config import load_settings
from tao2serve.errors import ToolError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.export.encrypted import KEY_VARIABLE, ContainerExport, container_export, read_key

KEY = "dGhlLWtleQ=="


@pytest.fixture
def no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize("suffix", [".tlt", ".etlt", ".TLT"])
def test_without_the_launcher_the_error_has_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Exit 4 with both ways: the launcher's installation, and plain Docker; a key that is set is in neither."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    source = tmp_path / f"my model{suffix}"
    source.write_bytes(b"\0" * 64)
    with pytest.raises(ToolError) as caught:
        export_onnx(source, output=tmp_path)
    error = caught.value
    assert error.exit_code == 4
    assert "pip install nvidia-tao==6.26.3 setuptools" in error.hint
    assert "TAO2SERVE_TAO_LAUNCHER=~/tao/bin/tao" in error.hint
    assert f"docker run --rm --gpus all -e KEY -v {tmp_path}:/model" in error.hint
    assert '-k "$KEY"' in error.hint
    assert ("is itself an export" in error.hint) == (suffix == ".etlt")
    assert KEY not in str(error.to_dict())


def test_an_etlt_is_refused_with_a_launcher_too(tmp_path: Path) -> None:
    """An .etlt is an export itself: nothing is started for it."""
    program = tmp_path / "tao"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    source = tmp_path / "model.etlt"
    source.write_bytes(b"\0" * 64)
    with pytest.raises(ToolError, match="is encrypted") as caught:
        export_onnx(source, output=tmp_path, container=ContainerExport(launcher=program))
    assert "use the .tlt or .hdf5 it was made from" in caught.value.hint


def test_where_the_key_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named file wins over the variable; white space around a key is none of it."""
    file = tmp_path / "key"
    file.write_text(f"  {KEY}\n")
    monkeypatch.setenv(KEY_VARIABLE, "other\n")
    assert read_key(file) == KEY
    assert read_key(None) == "other"
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(UsageError, match="is not given") as caught:
        read_key(None)
    assert KEY_VARIABLE in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"SEC\nRET", b"\xff\xfe", b"SEC\0", b"SEC" * 500])
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    """A file that holds no key is named, and nothing of it is shown."""
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="holds no key") as caught:
        read_key(file)
    assert "SEC" not in str(caught.value.to_dict()).replace(str(file), "")


@pytest.mark.parametrize("name", ["none", ".", "nul\0", "~nobody-is-called-so/key"])
def test_a_key_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A folder, a missing file and a name that is none are UsageErrors."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_key(Path(name) if name.startswith("~") else tmp_path / name)


def test_the_settings_say_how_the_container_runs(tmp_path: Path) -> None:
    """Launcher, key file and time limit are settings."""
    settings = load_settings({"tao_launcher": "tao", "tao_key_file": str(tmp_path), "tao_timeout_s": 5})
    container = container_export(settings)
    assert (container.launcher, container.key_file, container.timeout_s) == (Path("tao"), tmp_path, 5.0)
