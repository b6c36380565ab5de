"""The five layouts, field by field, as their readers define them."""

from __future__ import annotations

import contextlib
import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tao2serve.errors import UsageError
from tao2serve.formats import FORMATS, Format, Layout, PictureDetections, layout_of
from tao2serve.formats.files import check_replaceable, write_own_file, write_shared_files
from tao2serve.formats.kitti import kitti_line, kitti_text
from tao2serve.parity.labels import read_labels
from tao2serve.values import Prediction

CAR = Prediction(bbox=(10.0, 20.5, 110.25, 60.0), score=0.9, raw_score=2.5, class_id=0, label="car")
SIGN = Prediction(bbox=(0.0, 0.0, 200.0, 100.0), score=0.25, raw_score=0.75, class_id=2, label="road sign")
FIRST = PictureDetections(
    name="sub/a.jpg", width=200, height=100, predictions=(CAR, SIGN), path="pictures/sub/a.jpg",
    document={"bbox_format": "xyxy", "timing_ms": {"total": 12.5}},
)  # fmt: skip
EMPTY = PictureDetections(
    name="b.png", width=64, height=48, predictions=(), document={"bbox_format": "xyxy"}, path="pictures/b.png"
)


def written(layout: Layout, name: str) -> str:
    out = io.StringIO()
    layout.write(name, out)
    return out.getvalue()


def of(name: Format, *pictures: PictureDetections) -> Any:
    """The layout with these pictures, to be closed by the test's stack."""
    layout = layout_of(name)
    for picture in pictures:
        layout.add(picture)
    return layout


def test_a_kitti_line_is_that_of_nvidias_own_inference() -> None:
    """Sixteen columns, three decimals, TAO's confidence last; a name with a space stays one column."""
    assert kitti_line(CAR) == ("car 0.00 0 0.00 10.000 20.500 110.250 60.000 0.00 0.00 0.00 0.00 0.00 0.00 0.00 2.500")
    assert kitti_line(SIGN).split()[0] == "road_sign"
    assert len(kitti_line(SIGN).split()) == 16
    nameless = Prediction(bbox=CAR.bbox, score=1, raw_score=1, class_id=7, label=" \t")
    assert kitti_line(nameless).startswith("class_7 0.00 ")
    odd = Prediction(bbox=CAR.bbox, score=1, raw_score=1, class_id=7, label="a\x1b[31m\ud800 b")
    assert kitti_line(odd).startswith("a_[31m_b 0.00 ")


def test_kitti_files_are_read_back_by_our_own_reader(tmp_path: Path) -> None:
    """Names and boxes come back; a picture without objects is an empty file that reads as such."""
    labels = read_labels(write_own_file(kitti_text(FIRST.predictions), tmp_path / "a.txt"))
    assert labels.names == ("car", "road_sign")
    np.testing.assert_allclose(labels.xyxy, [CAR.bbox, SIGN.bbox], atol=5e-4)
    assert len(read_labels(write_own_file(kitti_text(()), tmp_path / "b.txt"))) == 0


def test_a_coco_dataset_has_every_field_of_the_format() -> None:
    """Ids count from 1 and category ids are class ids plus one; boxes are x, y, width, height."""
    with of("coco", FIRST, EMPTY) as layout:
        dataset = json.loads(written(layout, "instances.json"))
        results = json.loads(written(layout, "results.json"))
    assert set(dataset) == {"info", "licenses", "categories", "images", "annotations"}
    assert dataset["categories"] == [
        {"id": 1, "name": "car", "supercategory": "object"},
        {"id": 3, "name": "road sign", "supercategory": "object"},
    ]
    assert dataset["images"] == [
        {"id": 1, "file_name": "sub/a.jpg", "width": 200, "height": 100},
        {"id": 2, "file_name": "b.png", "width": 64, "height": 48},
    ]
    assert dataset["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10.0, 20.5, 100.25, 39.5], "score": 0.9,
         "area": 3959.875, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0.0, 0.0, 200.0, 100.0], "score": 0.25,
         "area": 20000.0, "iscrowd": 0},
    ]  # fmt: skip
    assert results == [
        {"image_id": 1, "category_id": 1, "bbox": [10.0, 20.5, 100.25, 39.5], "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": [0.0, 0.0, 200.0, 100.0], "score": 0.25},
    ]


def test_pycocotools_scores_the_results_against_the_dataset(tmp_path: Path) -> None:
    """The real reader takes both files, and finds every object again: average precision 1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with of("coco", FIRST, EMPTY) as layout:
        write_shared_files(layout, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "instances.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    assert truth.getCatIds() == [1, 3]
    assert truth.getImgIds() == [1, 2]


def test_a_roboflow_object_is_centred_and_in_pixels() -> None:
    """The members of the inference server's answer; ids are UUIDs and the same in the next run."""
    layout = of("roboflow", FIRST)
    with layout:
        document = json.loads(layout.text_of(FIRST))
        assert json.loads(layout.text_of(FIRST)) == document
    assert set(document) == {"inference_id", "time", "image", "predictions"}
    assert document["image"] == {"width": 200, "height": 100}
    assert document["time"] == 0.0125
    car, sign = document["predictions"]
    identity = {car.pop("detection_id"), sign.pop("detection_id"), document["inference_id"]}
    assert len({str(uuid.UUID(one)) for one in identity}) == 3
    assert car == {
        "x": 60.125, "y": 40.25, "width": 100.25, "height": 39.5, "confidence": 0.9, "class": "car", "class_id": 0,
    }  # fmt: skip
    assert (sign["x"], sign["y"], sign["class"], sign["class_id"]) == (100.0, 50.0, "road sign", 2)


def test_roboflow_prints_one_object_or_a_list() -> None:
    """As the inference server answers one picture and several."""
    for pictures, kind in (((FIRST,), dict), ((FIRST, EMPTY), list), ((), list)):
        with of("roboflow", *pictures) as layout:
            out = io.StringIO()
            layout.write_alone(out)
            assert isinstance(json.loads(out.getvalue()), kind)


def test_fiftyone_labels_are_shares_of_the_picture() -> None:
    """`classes` and `labels`, these by the picture's path without ending; box and confidence in [0, 1]."""
    with of("fiftyone", FIRST, EMPTY) as layout:
        document = json.loads(written(layout, "labels.json"))
    assert document["classes"] == ["car", "road sign"]
    assert document["labels"] == {
        "sub/a": [
            {"label": "car", "bounding_box": [0.05, 0.205, 0.50125, 0.395], "confidence": 0.9},
            {"label": "road sign", "bounding_box": [0.0, 0.0, 1.0, 1.0], "confidence": 0.25},
        ],
        "b": [],
    }


def test_fiftyone_tells_two_pictures_of_one_stem_apart() -> None:
    """The second gets its absolute path as key, which FiftyOne opens as it is."""
    twin = PictureDetections(name="b.jpg", width=64, height=48, predictions=(), path="pictures/b.jpg")
    with of("fiftyone", EMPTY, twin) as layout:
        first, second = json.loads(written(layout, "labels.json"))["labels"]
    assert first == "b"
    assert Path(second).is_absolute()
    assert Path(second).name == "b.jpg"


def test_absolute_names_stay_absolute_in_coco_and_fiftyone() -> None:
    """A picture whose path below its folder was taken: file_name and key are its absolute path, with the ending."""
    twin = PictureDetections(name="/data/y/b.png", width=64, height=48, predictions=(), path="y/b.png")
    with of("fiftyone", EMPTY, twin) as layout:
        assert list(json.loads(written(layout, "labels.json"))["labels"]) == ["b", "/data/y/b.png"]
    with of("coco", EMPTY, twin) as layout:
        images = json.loads(written(layout, "instances.json"))["images"]
    assert [image["file_name"] for image in images] == ["b.png", "/data/y/b.png"]


def test_native_lines_are_the_endpoints_documents() -> None:
    """One JSON object a line, with the file it belongs to."""
    with of("native", FIRST, EMPTY) as layout:
        lines = [json.loads(line) for line in written(layout, "predictions.jsonl").splitlines()]
    assert lines == [{"file": one.path, **one.document} for one in (FIRST, EMPTY)]


@pytest.mark.parametrize("name", FORMATS)
def test_no_picture_is_a_valid_file_too(name: Format, tmp_path: Path) -> None:
    """Every shared file of nothing is valid, and may be replaced by the next run."""
    with of(name) as layout:
        for path in write_shared_files(layout, tmp_path):
            text = path.read_text()
            assert text == "" if path.suffix == ".jsonl" else json.loads(text) is not None
        check_replaceable(layout, tmp_path, ())


@pytest.mark.parametrize("name", FORMATS)
def test_a_layout_of_many_pictures_goes_to_a_file(name: Format, tmp_path: Path) -> None:
    """What does not fit into memory comes out whole and in order."""
    pictures = [
        PictureDetections(name=f"{number}.jpg", width=200, height=100, predictions=(CAR,) * 20,
                          document={"number": number, "fill": "x" * 2000})
        for number in range(2500)
    ]  # fmt: skip
    with of(name, *pictures) as layout:
        texts = {path.name: path.read_text() for path in write_shared_files(layout, tmp_path)}
    if name == "native":
        assert [json.loads(line)["number"] for line in texts["predictions.jsonl"].splitlines()] == list(range(2500))
    elif name == "coco":
        assert [one["id"] for one in json.loads(texts["instances.json"])["annotations"]] == list(range(1, 50001))
        assert len(json.loads(texts["results.json"])) == 50000
    elif name == "fiftyone":
        assert list(json.loads(texts["labels.json"])["labels"]) == [str(number) for number in range(2500)]
    else:
        assert texts == {}


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_an_earlier_run_are_replaced(name: Format, tmp_path: Path) -> None:
    """What a run wrote, with objects and without, the next one may write over."""
    for picture in (FIRST, EMPTY):
        with of(name, picture) as layout:
            check_replaceable(layout, tmp_path, (FIRST.stem, EMPTY.stem))
            write_shared_files(layout, tmp_path)
            if layout.ending:
                write_own_file(layout.text_of(picture), tmp_path / f"{picture.stem}{layout.ending}")
    with layout_of(name) as layout:
        check_replaceable(layout, tmp_path, (FIRST.stem, EMPTY.stem))


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("kitti", "b.txt", "car 0.00 0 0.00 1 2 3 4 0 0 0 0 0 0 0\n"),
        ("kitti", "b.txt", "0 0.5 0.5 0.1 0.1\n"),
        ("roboflow", "b.json", '{"shapes": []}'),
        ("coco", "instances.json", '{"images": [], "annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}]}'),
        ("fiftyone", "labels.json", '{"classes": ["car"], "labels": {"b": [{"label": 0}]}}'),
        ("fiftyone", "labels.json", "\ufffd\ufffd"),
    ],
)
def test_labels_are_never_replaced_by_predictions(name: Format, file: str, content: str, tmp_path: Path) -> None:
    """A file that holds no confidence may be somebody's ground truth: exit 2, and it stays."""
    (tmp_path / file).write_text(content)
    with layout_of(name) as layout, pytest.raises(UsageError, match="no predictions") as caught:
        check_replaceable(layout, tmp_path, (EMPTY.stem,))
    assert str(tmp_path / file) in caught.value.subject
    assert (tmp_path / file).read_text() == content


def test_a_file_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    """A path below a file exits 2, and no temporary file is left."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_own_file("x", tmp_path / "file" / "x.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
