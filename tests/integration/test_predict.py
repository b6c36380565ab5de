"""predict on many pictures, against a server that answers as told and against the real endpoint."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine
from detector_server import Detector, detector_server
from PIL import Image

from tao2serve.parity.labels import match_labels, read_labels
from tao2serve.sandbox.samples import pictures

pytestmark = pytest.mark.integration


def make_pictures(folder: Path, count: int) -> Path:
    """Pictures of different widths, so that each has an answer of its own."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (40 + number, 30), "gray").save(folder / f"{number:04}.png")
    return folder


def started(bare: CommandLine, *arguments: str | Path, **streams: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tao2serve", "predict", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **streams}
    return subprocess.Popen(command, env=dict(bare.environment), cwd=bare.folder, text=True, **streams)


def until_asked(detector: Detector, count: int) -> None:
    deadline = time.monotonic() + 60
    while detector.requests < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert detector.requests >= count


def test_answers_keep_the_order_of_the_pictures(bare: CommandLine, tmp_path: Path) -> None:
    """A few at a time over as many connections, kept; one that the server ends without a word costs nothing."""
    folder = make_pictures(tmp_path / "many", 120)
    with detector_server(delay_s=0.005, drop_every=25) as detector:
        outcome = bare.tao2serve("predict", detector.url, folder, "--concurrency", "3", "--json").assert_success()
    assert [result["image"]["width"] for result in outcome.document["results"]] == list(range(40, 160))
    assert detector.most_at_once == 3
    assert detector.connections <= 3 + 120 // 25 + 1
    assert outcome.stderr == ""


def test_a_picture_that_fails_is_named_and_the_others_are_answered(bare: CommandLine, tmp_path: Path) -> None:
    """Refused, empty and missing ones: exit 3, each with its reason, also in words; boxes below --min-score go."""
    folder = make_pictures(tmp_path / "some", 3)
    (folder / "0001.png").write_text("no picture")
    (folder / "0003.png").touch()
    (folder / "0004.png").symlink_to("nowhere")
    arguments = (folder, tmp_path / "missing.jpg", "--min-score", "0.5")
    with detector_server() as detector:
        outcome = bare.tao2serve("predict", detector.url, *arguments, "--json")
        words = bare.tao2serve("predict", detector.url, *arguments)
    assert (outcome.code, words.code) == (3, 3)
    assert "0001.png" in outcome.document["error"]["subject"]
    errors = [result.get("error") for result in outcome.document["results"]]
    gone = "No such file or directory"
    assert errors == [None, "the body is no image", None, "the file is empty", gone, gone]
    assert [len(result["predictions"]) for result in outcome.document["results"] if "error" not in result] == [1, 1]
    assert "0001.png: refused: the body is no image" in words.stdout
    assert "missing.jpg: cannot be read: No such file or directory" in words.stdout
    assert "0003.png: cannot be read: the file is empty" in words.stdout
    assert "2 answered, 4 refused or not readable" in words.stderr
    first = words.stdout.splitlines()[:3]
    assert "0000.png: 1 detection, version" in first[0]
    assert first[1].split() == ["label", "score", "x1", "y1", "x2", "y2"]
    assert first[2].split()[-5] == "0.750"


def test_an_endpoint_that_goes_away_ends_it_with_what_there_is(bare: CommandLine, tmp_path: Path) -> None:
    """Exit 5 with the reason; the pictures answered until then are in the document, in the file and drawn."""
    folder = make_pictures(tmp_path / "many", 60)
    with detector_server(gone_after=20) as detector:
        outcome = bare.tao2serve("predict", detector.url, folder, "-o", tmp_path / "out", "--json")
        assert detector.requests < 60
    assert outcome.code == 5
    assert outcome.document["error"]["evidence"] == "gone"
    assert len(outcome.document["results"]) == 20
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == [one["file"] for one in outcome.document["results"]]
    assert len(list((tmp_path / "out").glob("*-detections.png"))) == 20
    assert "answered 503" in outcome.document["error"]["fact"]


@pytest.mark.parametrize("behaviour", [{"delay_s": 0.02}, {"hang_after": 12}], ids=["in time", "never"])
def test_an_interrupt_keeps_what_was_written(bare: CommandLine, tmp_path: Path, behaviour: dict[str, Any]) -> None:
    """Ctrl-C, also while the endpoint hangs: 130, how far it got, whole files of that, no temporary ones."""
    folder = make_pictures(tmp_path / "many", 400)
    with detector_server(**behaviour) as detector:
        process = started(bare, detector.url, folder, "--format", "coco", "-o", tmp_path / "out", "--json")
        until_asked(detector, 14)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
        assert time.monotonic() - start < 15
    document = json.loads(stdout)
    assert process.returncode == document["exit_code"] == 130
    count = len(document["results"])
    assert 0 < count < 400
    assert document["error"]["evidence"] == f"{count} of 400 pictures were asked about"
    assert len(json.loads((tmp_path / "out" / "instances.json").read_text())["images"]) == count
    assert not list((tmp_path / "out").glob(".*"))
    assert "Traceback" not in stderr


def test_a_terminal_gets_a_bar_and_a_pipe_the_result(bare: CommandLine, tmp_path: Path) -> None:
    """The bar is on stderr alone; stdout holds every picture's lines."""
    folder = make_pictures(tmp_path / "some", 8)
    ours, theirs = pty.openpty()
    with detector_server(delay_s=0.05) as detector:
        process = started(bare, detector.url, folder, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 4096):
                shown += part
        stdout, _ = process.communicate(timeout=60)
        os.close(ours)
    assert process.returncode == 0
    assert "8/8" in shown.decode()
    assert stdout.count("2 detections") == 8
    assert "\x1b" not in stdout


def test_nothing_of_the_users_is_written_over(bare: CommandLine, tmp_path: Path) -> None:
    """Pictures, labels beside them, and drawings of pictures with the same name in another folder."""
    first, second = make_pictures(tmp_path / "first", 2), make_pictures(tmp_path / "second", 2)
    out = tmp_path / "out"
    out.mkdir()
    (out / "0001.txt").write_text("car 0.00 0 0.00 1 2 30 40 0 0 0 0 0 0 0\n")
    with detector_server() as detector:
        refused = bare.tao2serve("predict", detector.url, first, second, "--format", "kitti", "-o", out)
        assert (refused.code, detector.requests) == (2, 0)
        assert [path.name for path in out.iterdir()] == ["0001.txt"]
        for source in (first, first / "0001.png"):
            own = bare.tao2serve("predict", detector.url, source, "-o", first)
            assert (own.code, detector.requests) == (2, 0)
        (out / "0001.txt").unlink()
        for _ in range(2):  # a second run replaces the first one's files
            bare.tao2serve("predict", detector.url, first, second, "--format", "kitti", "-o", out).assert_success()
    assert len(list(out.glob("*.txt"))) == len(list(out.glob("*-detections.png"))) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--format", "yolo"), 2), (("--format", "kitti"), 2), (("--min-score", "2"), 2), (("--concurrency", "0"), 2)],
)
def test_wrong_usage_asks_about_nothing(
    bare: CommandLine, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    """An unknown format, KITTI of several pictures without a folder, numbers out of range: exit 2."""
    folder = make_pictures(tmp_path / "some", 2)
    outcome = bare.tao2serve("predict", "http://127.0.0.1:9/serve/x", folder, *arguments)
    assert (outcome.code, outcome.stdout) == (code, "")


def test_every_format_of_the_real_endpoint(sandbox: CommandLine, deployed: dict[str, Any], tmp_path: Path) -> None:
    """A folder with subfolders and a broken picture: the same boxes in all formats, on stdout and in files."""
    from pycocotools.coco import COCO

    folder, out = tmp_path / "pictures", tmp_path / "out"
    (folder / "night").mkdir(parents=True)
    shutil.copy(pictures()[0], folder / "a.jpg")
    shutil.copy(pictures()[1], folder / "night" / "a.jpg")
    (folder / "broken.jpg").write_bytes(pictures()[2].read_bytes()[:3000])
    url = deployed["endpoint"]["url"]

    def ask(name: str) -> dict[str, Any]:
        outcome = sandbox.tao2serve("predict", url, folder, "-r", "--format", name, "-o", out / name, "--json")
        assert outcome.code == 3
        assert outcome.document["results"][1]["file"].endswith("broken.jpg")
        assert outcome.document["results"][1]["error"]
        for result in (outcome.document["results"][0], outcome.document["results"][2]):
            with Image.open(result["drawing"]) as drawing, Image.open(result["file"]) as picture:
                assert drawing.size == picture.size
        return outcome.document

    native = [one["predictions"] for one in ask("native")["results"] if "error" not in one]
    boxes = [np.array([one["bbox"] for one in some]) for some in native]
    assert min(map(len, boxes)) > 3

    coco = ask("coco")
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(out / "coco" / "instances.json"))
        results = dataset.loadRes(str(out / "coco" / "results.json"))
    assert [image["file_name"] for image in dataset.dataset["images"]] == ["a.jpg", "night/a.jpg"]
    for image_id, some in enumerate(boxes, start=1):
        found = np.array([one["bbox"] for one in results.loadAnns(results.getAnnIds(imgIds=[image_id]))])
        np.testing.assert_allclose(np.hstack([found[:, :2], found[:, :2] + found[:, 2:]]), some, atol=2e-3)
    assert coco["annotations"] == dataset.dataset["annotations"]

    ask("kitti")
    for path, some in ((out / "kitti" / "a.txt", boxes[0]), (out / "kitti" / "night" / "a.txt", boxes[1])):
        np.testing.assert_allclose(read_labels(path).xyxy, some, atol=1e-3)
    assert len(match_labels([folder / "a.jpg"], out / "kitti").pairs) == 1

    roboflow = [one for one in ask("roboflow")["results"] if "error" not in one]
    assert {key: roboflow[1][key] for key in ("image", "predictions")} == {
        key: json.loads((out / "roboflow" / "night" / "a.json").read_text())[key] for key in ("image", "predictions")
    }
    centres = np.array([(one["x"], one["y"]) for one in roboflow[0]["predictions"]])
    np.testing.assert_allclose(centres, (boxes[0][:, :2] + boxes[0][:, 2:]) / 2, atol=1e-3)

    fiftyone = ask("fiftyone")
    assert json.loads((out / "fiftyone" / "labels.json").read_text())["labels"] == fiftyone["labels"]
    shares = np.array([one["bounding_box"] for one in fiftyone["labels"]["night/a"]])
    np.testing.assert_allclose(shares[:, :2] * [960, 560], boxes[1][:, :2], atol=1e-3)

    for name, key in (("coco", "annotations"), ("roboflow", "predictions"), ("fiftyone", "labels")):
        printed = sandbox.tao2serve("predict", url, folder / "a.jpg", "--format", name).assert_success()
        assert printed.document[key]
    printed = sandbox.tao2serve("predict", url, folder / "a.jpg", "--format", "kitti").assert_success()
    assert printed.stdout == (out / "kitti" / "a.txt").read_text()
