"""What the serving benchmarks compare, and how they read what they measured; without servers."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import floor
import numpy as np
import pictures
import placement
import pytest
import stock_endpoint
import stock_path
from answers import alike
from detectors import light_detector, sample_detector
from PIL import Image

from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import open_model
from tao2serve.export.local import detect
from tao2serve.tao.spec import read_spec


def test_the_light_detector_finds_what_is_drawn(tmp_path: Path) -> None:
    """A picture's things become boxes on them, so that clustering has something to do; the empty one has none."""
    detector = light_detector(tmp_path, sizes={"960x544": (960, 544)})
    artifact = export_onnx(Path(detector.source[0]), output=tmp_path / "light.onnx")
    assert read_spec(Path(detector.source[2])).classes
    model = open_model(artifact.path)
    for path in detector.first_pictures:
        found = detect(model, path.read_bytes(), detector.params)
        assert 5 <= len(found) <= 24
        pixels = np.asarray(Image.open(path)).astype(float)
        for box, class_id in zip(found.xyxy, found.class_id, strict=True):
            x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
            patch = pixels[max(y - 40, 0) : y + 40, max(x - 40, 0) : x + 40, int(class_id)]
            assert patch.max() > 150
    nothing = pictures.draw_picture(960, 544, things=0, seed=1)
    assert len(detect(model, nothing, detector.params)) == 0


def test_pictures_are_photographs_in_size_and_the_same_everywhere() -> None:
    """Bytes per pixel as a camera's, and no difference from run to run."""
    drawn = pictures.draw_picture(960, 544, things=12, seed=3)
    assert drawn == pictures.draw_picture(960, 544, things=12, seed=3)
    assert Image.open(io.BytesIO(drawn)).size == (960, 544)
    assert 0.1 < len(drawn) / (960 * 544) < 0.4


def test_the_sample_detector_is_the_sandboxs() -> None:
    """Its params are those of the sample's own spec."""
    params = sample_detector().params
    assert (params.height, params.width) == (224, 384)


def test_the_stock_side_gives_our_tensor_and_our_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its preprocess is ours to the bit at LANCZOS, its postprocess our clustering: the path is what is compared."""
    import json

    from tao2serve.runtime import postprocess, preprocess

    detector = light_detector(tmp_path, sizes={"320x200": (320, 200)})
    monkeypatch.setattr(stock_endpoint, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "params.json").write_text(json.dumps(detector.params.to_dict()))
    stock, state = stock_endpoint.Preprocess(), {}
    body = detector.first_pictures[0].read_bytes()
    tensor = stock.preprocess(body, state)
    ours, size = preprocess(body, detector.params)
    assert tensor.dtype == np.float32
    assert np.array_equal(tensor[0], ours)
    assert state["size"] == size == (320, 200)
    artifact = export_onnx(Path(detector.source[0]), output=tmp_path / "light.onnx")
    outputs = open_model(artifact.path).run(tensor)
    answer = stock.postprocess([outputs.coverage, outputs.bbox], state)
    found = postprocess(outputs.coverage[0], outputs.bbox[0], detector.params, image_size=size)
    assert len(found) > 0
    assert [entry["bbox"] for entry in answer["predictions"]] == found.xyxy.tolist()


def test_other_boxes_are_not_alike() -> None:
    """Order does not matter; number, label and place do."""
    first = {"label": "red", "bbox": [0.0, 0.0, 10.0, 10.0]}
    second = {"label": "blue", "bbox": [5.0, 5.0, 20.0, 20.0]}
    moved = {"label": "blue", "bbox": [5.0, 5.0, 20.0, 20.5]}

    def are(one: list[dict[str, object]], other: list[dict[str, object]], within: float) -> bool:
        return alike({"predictions": one}, {"predictions": other}, within_pixels=within)

    assert are([first, second], [second, first], 0.01)
    assert are([first, second], [first, moved], 1.0)
    assert not are([first, second], [first, moved], 0.01)
    assert not are([first, second], [first], 1.0)
    assert not are([first], [{**first, "label": "blue"}], 1.0)


def test_profiles_count_what_is_busy_by_its_innermost_known_place() -> None:
    """Waiting threads and the polling of the configuration are no part of a request."""
    samples = "\n".join((
        "run (/lib/asyncio/runners.py:1);process (/x/endpoint.py:9);decode (/site/PIL/Image.py:3) 60",
        "run (/lib/asyncio/runners.py:1);_infer (/x/endpoint.py:9);_invoke (/site/grpc/aio/_call.py:5) 30",
        "run (/lib/asyncio/runners.py:1);select (/lib/selectors.py:468) 1000",
        "_sync_daemon (/site/clearml_serving/processor.py:1);parse (/site/pyparsing/core.py:4) 50",
        "main (/x/unheard_of.py:1) 10",
    ))  # fmt: skip
    assert floor.shares(samples) == {"reading the picture": 0.6, "gRPC to Triton": 0.3, "other": 0.1}
    assert floor.shares("") == {}


def test_settings_on_the_command_line_are_ours() -> None:
    """Anything but a variable of tao2serve's is refused: it would change nothing, and the table would lie."""
    assert stock_path.setting("TAO2SERVE_RESIZE=fast") == ("TAO2SERVE_RESIZE", "fast")
    for wrong in ("RESIZE=fast", "TAO2SERVE_RESIZE"):
        with pytest.raises(argparse.ArgumentTypeError):
            stock_path.setting(wrong)


def test_placement_keeps_what_it_does_not_measure_again(tmp_path: Path) -> None:
    """A file of an earlier run is read whole; without one there is nothing."""
    assert placement.read(None) == placement.read(tmp_path / "none.json") == {"cases": [], "alone_ms": {}}
    (tmp_path / "kept.json").write_text('{"cases": [1], "alone_ms": {"light": {}}}')
    assert placement.read(tmp_path / "kept.json")["cases"] == [1]
