"""Any box comes back from every layout where it was."""

from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from tao2serve.formats import PictureDetections, layout_of
from tao2serve.formats.kitti import kitti_line
from tao2serve.values import Prediction


@st.composite
def pictures(draw: st.DrawFn) -> PictureDetections:
    width, height = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
    corner = st.floats(0, 1, allow_nan=False)
    predictions = []
    for _ in range(draw(st.integers(0, 5))):
        x, y = sorted((draw(corner), draw(corner))), sorted((draw(corner), draw(corner)))
        box = (x[0] * width, y[0] * height, x[1] * width, y[1] * height)
        score, raw = draw(st.floats(0, 1)), draw(st.floats(0, 500))
        label = draw(st.text(st.characters(), max_size=12))
        predictions.append(
            Prediction(bbox=box, score=score, raw_score=raw, class_id=draw(st.integers(0, 40)), label=label)
        )
    name = draw(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=9)) + ".jpg"
    return PictureDetections(name=name, width=width, height=height, predictions=tuple(predictions), path=name)


def near(found: list[float], box: tuple[float, ...], tolerance: float) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(found, box, strict=True))


@given(picture=pictures())
def test_every_layout_gives_the_boxes_back(picture: PictureDetections) -> None:
    """Within two thousandths of a pixel, with scores and labels, and the JSON is valid whatever the texts are."""
    found: dict[str, list[tuple[list[float], float]]] = {}
    with layout_of("coco") as layout:
        layout.add(picture)
        out = io.StringIO()
        layout.write("instances.json", out)
        found["coco"] = [
            ([x, y, x + w, y + h], one["score"])
            for one in json.loads(out.getvalue())["annotations"]
            for x, y, w, h in (one["bbox"],)
        ]
    with layout_of("fiftyone") as layout:
        layout.add(picture)
        out = io.StringIO()
        layout.write("labels.json", out)
        (entries,) = json.loads(out.getvalue())["labels"].values()
        found["fiftyone"] = []
        for one in entries:
            assert all(0 <= number <= 1 for number in one["bounding_box"])
            x, y, w, h = one["bounding_box"]
            box = [x * picture.width, y * picture.height, (x + w) * picture.width, (y + h) * picture.height]
            found["fiftyone"].append((box, one["confidence"]))
        assert [one["label"] for one in entries] == [one.label for one in picture.predictions]
    with layout_of("roboflow") as layout:
        found["roboflow"] = [
            ([one["x"] - one["width"] / 2, one["y"] - one["height"] / 2,
              one["x"] + one["width"] / 2, one["y"] + one["height"] / 2], one["confidence"])
            for one in json.loads(layout.text_of(picture))["predictions"]
        ]  # fmt: skip
    for name, boxes in found.items():
        assert len(boxes) == len(picture.predictions), name
        for (box, score), prediction in zip(boxes, picture.predictions, strict=True):
            assert near(box, prediction.bbox, 2e-3), name
            assert score == prediction.score


@given(picture=pictures())
def test_a_kitti_line_has_sixteen_columns_whatever_the_class_is_called(picture: PictureDetections) -> None:
    """The box and TAO's confidence come back to three decimals."""
    for prediction in picture.predictions:
        columns = kitti_line(prediction).split()
        assert len(columns) == 16
        assert near([float(one) for one in columns[4:8]], prediction.bbox, 5.001e-4)
        assert abs(float(columns[15]) - prediction.raw_score) <= 5.001e-4
