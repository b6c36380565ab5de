"""`tao2serve render` on the command line: what it says, what it takes from the settings, what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tao2serve.cli.main import run

CLEARML = (
    *("--clearml-api", "http://api:8008", "--clearml-web", "http://app:8080"),
    *("--clearml-files", "http://files:8081", "--service", "0123456789abcdef"),
)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("TAO2SERVE_", "CLEARML_")):
            monkeypatch.delenv(name)


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert run(["render", *arguments, "--json"]) == code
    loaded = json.loads(capsys.readouterr().out)
    assert isinstance(loaded, dict)
    return loaded


def test_compose_says_what_it_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    """The document names each file with its state, and the TensorRT that plans must have; again, nothing changes."""
    first = document(capsys, "compose", "-o", "out", "--tensorrt", "10.5")
    assert first["triton"] == {"image": "nvcr.io/nvidia/tritonserver:24.10-py3", "tensorrt": "10.5.0"}
    assert {entry["state"] for entry in first["files"]} == {"written"}
    assert all(Path(entry["path"]).is_file() for entry in first["files"])
    again = document(capsys, "compose", "-o", "out", "--tensorrt", "10.5")
    assert {entry["state"] for entry in again["files"]} == {"unchanged"}
    other = document(capsys, "compose", "-o", "out", code=2)
    assert other["error"]["evidence"].splitlines() == ["compose.yaml", "README.md", "triton.Dockerfile"]
    forced = document(capsys, "compose", "-o", "out", "--force")
    assert [Path(entry["path"]).name for entry in forced["files"] if entry["state"] == "replaced"] == [
        "compose.yaml", "README.md", "triton.Dockerfile",
    ]  # fmt: skip


def test_the_proxy_follows_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Images the endpoints take pass the proxy, and it waits longer than Triton's deadline."""
    monkeypatch.setenv("TAO2SERVE_MAX_IMAGE_BYTES", "1048576")
    monkeypatch.setenv("TAO2SERVE_DEADLINE_S", "30")
    assert document(capsys, "kubernetes", "-o", "out", *CLEARML)["max_body_bytes"] == 3 * 1024 * 1024
    conf = Path("out/nginx.conf").read_text(encoding="utf-8")
    assert "client_max_body_size 3145728;" in conf
    assert "proxy_read_timeout 36s;" in conf


def test_clearml_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Addresses are taken from ClearML's own variables; its credentials are in no file that is written."""
    assert "--clearml-api" in document(capsys, "kubernetes", "-o", "out", code=2)["error"]["hint"]
    assert not Path("out").exists()
    for name, value in {
        "CLEARML_API_HOST": "http://api:8008",
        "CLEARML_WEB_HOST": "http://app:8080",
        "CLEARML_FILES_HOST": "http://files:8081",
        "CLEARML_SERVING_TASK_ID": "0123456789abcdef",
        "CLEARML_API_ACCESS_KEY": "THE-ACCESS-KEY",
        "CLEARML_API_SECRET_KEY": "the-secret-key",
    }.items():
        monkeypatch.setenv(name, value)
    for kind in ("kubernetes", "compose"):
        written = document(capsys, kind, "-o", kind)
        texts = [Path(entry["path"]).read_text(encoding="utf-8") for entry in written["files"]]
        assert any("http://api:8008" in text for text in texts)
        assert not any("the-secret-key" in text or "THE-ACCESS-KEY" in text for text in texts)


@pytest.mark.parametrize(
    "options",
    [
        ("--triton", "25.01", "--tensorrt", "10.8"),
        ("--triton", "19.01"),
        ("--tls-cert", "a.pem"),
        ("--gpus", "-1"),
        ("--port", "0"),
    ],
)
def test_wrong_options_write_nothing(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Options that contradict or mean nothing exit 2, and no folder is made."""
    assert document(capsys, "compose", "-o", "out", *options, code=2)["outcome"] == "error"
    assert not Path("out").exists()
