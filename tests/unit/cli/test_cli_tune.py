"""What a tuning and its file refuse on the command line, before anybody else is asked."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from image_files import encode, picture

from tao2serve.cli.main import run

TUNE = ("loadtest", "street", "--images", "pictures", "--tune", "--json")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of pictures, a home, and no network."""
    import os

    for name in os.environ:
        if name.startswith(("TAO2SERVE_", "CLEARML_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(encode(picture()))

    def refused(*arguments: Any) -> None:
        raise AssertionError(f"asked the network: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--try", "moon=1"), 2, "--try has 'moon=1'"),
        (("--try", "instances=0"), 2, "--try instances is '0'"),
        (("--try", "instances=1", "--try", "instances=2"), 2, "--try names instances twice"),
        (("--blocks", "1"), 2, "--blocks is 1"),
        (("--images", "none"), 3, "none does not exist"),
    ],
)
def test_what_needs_nobody_is_refused_at_once(
    arguments: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ClearML or a Triton: nothing is asked, and no folder is made."""
    assert run([*TUNE, *arguments]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"{error['subject']} {error['fact']}".startswith(said)
    assert sorted(path.name for path in Path.cwd().iterdir() if path.name != "home") == ["pictures"]


def test_a_triton_that_is_not_ours_is_not_tuned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ClearML Serving's own controller: said before ClearML is asked."""
    monkeypatch.setenv("TAO2SERVE_MANAGED", "true")
    assert run(list(TUNE)) == 2
    assert "needs a Triton of ours" in json.loads(capsys.readouterr().out)["error"]["fact"]


@pytest.mark.parametrize(
    "text", [None, "instances = \n", "instances = 2\n", "instances = 0\n[made_for]\nsource_sha256 = 'a'\n"]
)
@pytest.mark.parametrize("command", [("config", "show"), ("deploy", "--project", "p", "--endpoint", "street")])
def test_a_file_of_settings_that_is_none_is_bad_input(
    command: tuple[str, ...], text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 whatever is wrong with it, not being there included, and wherever it is given."""
    if text is not None:
        Path("tuned.toml").write_text(text, encoding="utf-8")
    assert run([*command, "--tuned", "tuned.toml", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["subject"] == "tuned.toml"
