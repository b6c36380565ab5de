"""The search for the highest rate, with the real locust, against a server that answers 50 requests a second."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tries import one_of_three

from tao2serve.cli.main import run

pytestmark = pytest.mark.integration

SERVER = Path(__file__).with_name("queue_server.py")


@contextlib.contextmanager
def queue_server(milliseconds: int) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, str(SERVER), str(milliseconds)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/serve/street/1"
        finally:
            process.kill()


@pytest.mark.alone
@one_of_three
def test_the_command_finds_what_a_server_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Below 50 requests/s at 20 ms each; it passes, says what it rests on, and keeps every run in a folder."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    picture, folder = tmp_path / "a.jpg", tmp_path / "out"
    Image.linear_gradient("L").convert("RGB").save(picture)
    with queue_server(20) as url:
        code = run([
            "loadtest", url, "--images", str(picture), "--find-max", "--rate", "30", "--slo", "p50=300ms",
            "--within", "100%", "--run-time", "2s", "--warmup", "0.2s", "-o", str(folder), "--json",
        ])  # fmt: skip
    told = json.loads(capfd.readouterr().out)
    highest = told["highest"]
    assert (code, told["passed"]) == (0, True), highest
    assert highest["confirmed"]
    assert 30 <= highest["holds_rps"] < 60
    assert highest["holds_rps"] < highest["fails_rps"] <= 2 * highest["holds_rps"]
    assert f"{highest['holds_rps']:g} requests/s held in" in highest["confidence"]
    decisive = told["runs"][told["decisive"]]
    assert decisive["rate_rps"] == highest["holds_rps"]
    assert told["latency_ms"] == decisive["latency_ms"]
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["highest"] == highest
    assert len(list((folder / "runs").glob("*/result.json"))) == len(told["runs"])
    assert "<html" in Path(told["report"]).read_text(encoding="utf-8")
