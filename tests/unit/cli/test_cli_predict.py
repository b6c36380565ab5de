"""`tao2serve predict` in words and documents, against a server on this machine that answers as told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from detector_server import Detector, detector_server
from PIL import Image

from tao2serve.cli.main import run


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Detector]:
    """A detector, and a working folder in which ff/x, ff/y and ff/z each hold an img.jpg of their own width."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for width, name in ((40, "x"), (41, "y"), (42, "z")):
        (tmp_path / "ff" / name).mkdir(parents=True)
        Image.new("RGB", (width, 30), "gray").save(tmp_path / "ff" / name / "img.jpg")
    with detector_server() as detector:
        yield detector


def test_people_get_a_table_a_picture(detector: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    """A heading over the columns, three digits of score, one detection and several."""
    assert run(["predict", detector.url, "ff/x/img.jpg"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ff/x/img.jpg: 2 detections, version 3, 3.5 ms on the server",
        "  label    score       x1      y1      x2      y2",
        "  class 1  0.750     10.0     7.5    30.0    22.5",
        "  class 0  0.250      0.0     0.0     4.0     4.0",
    ]
    assert run(["predict", detector.url, "ff/x/img.jpg", "--min-score", "0.5"]) == 0
    assert capsys.readouterr().out.startswith("ff/x/img.jpg: 1 detection, ")
    assert run(["predict", detector.url, "ff/x/img.jpg", "--min-score", "0.9"]) == 0
    assert capsys.readouterr().out == "ff/x/img.jpg: 0 detections, version 3, 3.5 ms on the server\n"


def test_pictures_of_one_path_have_absolute_names(detector: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    """From the second on, as FiftyOne's key and as COCO's file_name, wherever the command was run."""
    absolute = [os.path.realpath(f"ff/{name}/img.jpg") for name in ("y", "z")]
    folders = ["ff/x", "ff/y", "ff/z"]
    assert run(["predict", detector.url, *folders, "--format", "fiftyone"]) == 0
    assert list(json.loads(capsys.readouterr().out)["labels"]) == ["img", *absolute]
    assert run(["predict", detector.url, *folders, "--format", "coco"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [(image["file_name"], image["width"]) for image in images] == [
        ("img.jpg", 40), (absolute[0], 41), (absolute[1], 42),
    ]  # fmt: skip


def test_what_cannot_be_read_in_a_folder_is_named(detector: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty picture and a link to nothing: exit 3 with both, after the others were answered."""
    Path("ff/x/empty.jpg").touch()
    Path("ff/x/link.png").symlink_to("nowhere")
    assert run(["predict", detector.url, "ff/x"]) == 3
    shown = capsys.readouterr()
    assert "ff/x/empty.jpg: cannot be read: the file is empty\n" in shown.out
    assert "ff/x/link.png: cannot be read: No such file or directory\n" in shown.out
    assert "1 answered, 2 refused or not readable" in shown.err
    assert detector.requests == 1


@pytest.mark.parametrize("source", ["ff/x", "ff/x/img.jpg"])
def test_drawings_do_not_go_where_pictures_lie(
    detector: Detector, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    """Whether the folder or a picture in it is named: exit 2, nothing is asked about and nothing written."""
    assert run(["predict", detector.url, source, "-o", "ff/y/../x", "--json"]) == 2
    assert "where the pictures lie" in json.loads(capsys.readouterr().out)["error"]["fact"]
    assert detector.requests == 0
    assert [path.name for path in Path("ff/x").iterdir()] == ["img.jpg"]
