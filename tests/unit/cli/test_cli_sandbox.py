"""`tao2serve sandbox` where there is none, and what --purge leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tao2serve.cli.main import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("words", [["logs"], ["logs", "triton"], ["env"]])
def test_without_a_sandbox_there_is_nothing_to_show(
    home: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 6, as `sandbox status`, with the command that starts one."""
    assert run(["sandbox", *words, "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["error"]["hint"] == "tao2serve sandbox up"
    assert run(["sandbox", "status", "--json"]) == 6


def test_logs_of_a_sandbox_that_is_down_are_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a start that failed they are what is needed: exit 0."""
    (home / "sandbox" / "logs").mkdir(parents=True)
    (home / "sandbox" / "logs" / "triton.log").write_text("no room\n")
    assert run(["sandbox", "logs"]) == 0
    assert "no room" in capsys.readouterr().out
    assert run(["sandbox", "logs", "nginx"]) == 2
    assert "triton" in capsys.readouterr().err


def test_purge_says_what_it_leaves(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sandbox's data is gone; the cache of downloads, of any ClearML server, and the logs stay and are named."""
    for folder in ("sandbox/model-repository", "cache/weights", "logs"):
        (home / folder).mkdir(parents=True)
    assert run(["sandbox", "down", "--purge"]) == 0
    shown = capsys.readouterr().out
    assert "data is removed" in shown
    assert f"{home / 'cache'}, {home / 'logs'}" in shown
    assert sorted(path.name for path in home.iterdir()) == ["cache", "logs"]
    assert run(["sandbox", "down", "--purge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == [str(home / "cache"), str(home / "logs")]
    assert run(["sandbox", "down"]) == 0
    assert "kept" not in capsys.readouterr().out
