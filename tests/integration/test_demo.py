"""The demo, as a newcomer runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, demo_processes, deserted_memory, processes_of
from labels import read_kitti, unmatched
from PIL import Image

from tao2serve.sandbox.samples import SAMPLE

pytestmark = pytest.mark.integration


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A folder for temporary files that nothing but the demo uses."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def demo(bare: CommandLine, temporary: Path) -> CommandLine:
    """A bare command line whose temporary files go there."""
    return replace(bare, environment={**bare.environment, "TMPDIR": str(temporary)})


def leftovers(temporary: Path) -> set[str]:
    """What a demo could forget outside its folder: temporary files, shared memory and processes."""
    files = {path.name for path in temporary.iterdir()}
    return files | deserted_memory() | {f"process {pid}" for pid in demo_processes(temporary)}


def test_demo_succeeds_twice_and_leaves_only_its_folder(demo: CommandLine, temporary: Path) -> None:
    """Two demos in a row into one folder: the detections match the labels, the load test failed nowhere.

    After the first all is down again. The second is kept: its endpoint goes on answering until its summary's last
    line takes it down.
    """
    before, home = leftovers(temporary), Path(demo.environment["TAO2SERVE_HOME"])
    # Settings for the user's own servers, which a demo must not touch.
    (demo.folder / "tao2serve.toml").write_text(
        'triton_grpc = "127.0.0.1:9"\nserving_base_url = "http://127.0.0.1:9"\n'
    )
    document = demo.tao2serve("demo", "--output", "demo", "--json", timeout_s=300).assert_success().document
    check_demo(document)
    assert leftovers(temporary) <= before
    assert not home.exists()
    # Neither the ClearML SDK's session file nor onnxruntime's telemetry, which writes a device id.
    assert not list(Path(demo.environment["HOME"]).iterdir())
    try:
        outcome = demo.tao2serve("demo", "--keep", "--output", "demo", timeout_s=300).assert_success()
        assert "tao2serve sandbox down" in outcome.stdout
        url = next(line.split()[2] for line in outcome.stdout.splitlines() if line.startswith("endpoint"))
        demo.tao2serve("predict", url, document["picture"]).assert_success()
    finally:
        demo.tao2serve("sandbox", "down", "--purge").assert_success()
    assert not processes_of(home)
    assert leftovers(temporary) <= before


def check_demo(document: dict[str, Any]) -> None:
    assert document["outcome"] == "ok"
    assert document["detections"] > 0
    labels = read_kitti(SAMPLE / "labels" / f"{Path(document['picture']).stem}.txt")
    missing, surplus = unmatched(labels, document["predictions"])
    assert not missing
    assert not surplus
    assert document["load"]["requests"] > 20
    assert document["load"]["failures"] == 0
    with Image.open(document["drawing"]) as drawing:
        assert drawing.size[0] > 300
    assert "<html" in Path(document["report"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "closed terminal"])
def test_demo_interrupted_takes_everything_down(demo: CommandLine, temporary: Path, number: signal.Signals) -> None:
    """Interrupted in the middle, nobody reading its stderr any more, and again while it tidies up: nothing left."""
    before = leftovers(temporary)
    process = subprocess.Popen(
        [sys.executable, "-m", "tao2serve", "demo", "--output", "demo"],
        env=dict(demo.environment), cwd=demo.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # under nohup it would be ignored
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "export to ONNX" in line:
            break
    process.stderr.close()
    process.send_signal(number)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert leftovers(temporary) <= before
