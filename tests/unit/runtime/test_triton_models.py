"""The ensemble's first and last model, with Triton's own module played by a small one."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tao2serve.runtime import (
    DetectorParams,
    ensemble,
    postprocess,
    preprocess,
    reading,
    triton_postprocess,
    triton_preprocess,
)
from tao2serve.runtime.ensemble import from_rows, to_rows
from tao2serve.runtime.preprocess import read_pixels

PARAMS = DetectorParams.from_dict(
    {
        "family": "detectnet_v2",
        "input": {"channels": 3, "height": 32, "width": 64},
        "bbox_scale": 35.0,
        "bbox_offset": 0.5,
        "classes": [{"name": "car", "clustering": "nms", "nms_confidence_threshold": 0.05}],
    }
)


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class TritonError:
    INVALID_ARG = 3

    def __init__(self, message: str, code: int = 0) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.outputs = {tensor.name: tensor.array for tensor in output_tensors or []}
        self.error = error


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Initialize a model as Triton does, from its folder and its configuration."""
    backend = SimpleNamespace(
        Tensor=Tensor, TritonError=TritonError, InferenceResponse=InferenceResponse,
        get_input_tensor_by_name=lambda request, name: Tensor(name, request[name]),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "params.json").write_text(json.dumps(PARAMS.to_dict()))

    def loaded(module: Any, config: dict[str, Any], **parameters: str) -> Any:
        config["parameters"] = {name: {"string_value": value} for name, value in parameters.items()}
        model = module.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config), "model_repository": str(tmp_path), "model_version": "1"})
        return model

    return loaded


def first(load: Any, *, datatype: str = "TYPE_FP32", resize: str = "lanczos") -> Any:
    outputs = [{"name": "net", "data_type": datatype}, {"name": "image_size"}, {"name": "preprocess_ms"}]
    limits = {"max_image_bytes": "100000", "max_image_pixels": "10000"}
    return load(triton_preprocess, {"output": outputs}, resize=resize, **limits)


def last(load: Any, *, boxes: str = "offsets") -> Any:
    inputs = [{"name": "c"}, {"name": "b"}, {"name": "image_size"}]
    return load(triton_postprocess, {"input": inputs}, boxes=boxes)


def picture(seed: int = 0, size: tuple[int, int] = (80, 60)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def request(*images: bytes) -> dict[str, np.ndarray]:
    return {"image": np.array([[image] for image in images], dtype=object)}


@pytest.mark.parametrize("mode", ["lanczos", "fast"])
def test_pictures_become_what_the_endpoint_makes_of_them(load: Any, mode: Any) -> None:
    """Float32 planes or pixels, bit for bit, with sizes and times picture by picture."""
    images = [picture(0), picture(1, (50, 40))]
    (planes,) = first(load, resize=mode).execute([request(*images)])
    (pixels,) = first(load, datatype="TYPE_UINT8", resize=mode).execute([request(*images)])
    for index, image in enumerate(images):
        np.testing.assert_array_equal(planes.outputs["net"][index], preprocess(image, PARAMS, mode=mode)[0])
        np.testing.assert_array_equal(pixels.outputs["net"][index], read_pixels(image, PARAMS, mode=mode)[0])
    assert planes.outputs["image_size"].tolist() == [[80, 60], [50, 40]]
    assert planes.outputs["image_size"].dtype == np.int32
    assert planes.outputs["preprocess_ms"].shape == (2, 1)
    assert (planes.outputs["preprocess_ms"] > 0).all()


@pytest.mark.parametrize(
    ("bad", "words"), [(b"", "empty"), (b"hello", "no image"), (picture(0, (200, 100)), "10,000 pixels"),
                       (b"x" * 100_001, "100,000")],
)  # fmt: skip
def test_a_bad_picture_is_its_own_request_s_error(load: Any, bad: bytes, words: str) -> None:
    """The requests before and behind it in one call are answered; the reason is marked as a refusal."""
    before, refused, behind = first(load).execute([request(picture(0)), request(picture(1), bad), request(picture(2))])
    assert before.error is None
    assert behind.error is None
    assert before.outputs["net"].shape == behind.outputs["net"].shape == (1, 3, 32, 64)
    assert refused.error.code == TritonError.INVALID_ARG
    assert refused.error.message.startswith(ensemble.REFUSED)
    assert words in refused.error.message


def test_a_defect_is_its_own_request_s_error_too(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of does not reach the other requests either, and is no refusal of the picture."""

    def broken(image: bytes, *_rest: Any, **_options: Any) -> Any:
        if image == b"odd":
            raise MemoryError("no room")
        return read_pixels(picture(0), PARAMS)

    model = first(load)
    monkeypatch.setattr(reading, "read_pixels", broken)
    good, odd = model.execute([request(b"good"), request(b"odd")])
    assert good.error is None
    assert "MemoryError: no room" in odd.error.message
    assert ensemble.REFUSED not in odd.error.message


def grids(count: int) -> tuple[np.ndarray, np.ndarray]:
    """One image with `count` confident cells, apart from each other."""
    cov, bbox = np.zeros((1, 2, 4), np.float32), np.full((4, 2, 4), 0.1, np.float32)
    cov.reshape(-1)[:count] = np.linspace(0.9, 0.5, count)
    return cov, bbox


def test_boxes_are_those_of_the_runtime_whatever_their_number(load: Any) -> None:
    """Three pictures of one request, with three, no and one box: each its own, filled up with zeros, counted."""
    made = [grids(count) for count in (3, 0, 1)]
    sizes = np.array([[64, 32], [100, 50], [640, 320]], np.int32)
    batch = {"c": np.stack([cov for cov, _ in made]), "b": np.stack([bbox for _, bbox in made]), "image_size": sizes}
    (answer,) = last(load).execute([batch])
    assert answer.outputs["count"].tolist() == [[3], [0], [1]]
    assert answer.outputs["detections"].shape == (3, 3, ensemble.COLUMNS)
    for index, (cov, bbox) in enumerate(made):
        expected = postprocess(cov, bbox, PARAMS, image_size=tuple(sizes[index].tolist()))
        rows = answer.outputs["detections"][index]
        found = from_rows(rows[: len(expected)])
        for name in ("xyxy", "score", "raw_score", "class_id"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert not rows[len(expected) :].any()


def test_pictures_without_boxes_are_an_answer(load: Any) -> None:
    """No row at all."""
    cov, bbox = grids(0)
    (answer,) = last(load).execute([{"c": cov[None], "b": bbox[None], "image_size": np.array([[64, 32]], np.int32)}])
    assert answer.error is None
    assert answer.outputs["detections"].shape == (1, 0, ensemble.COLUMNS)


def test_grids_that_do_not_fit_are_their_own_request_s_error(load: Any) -> None:
    """Another request in the same call is answered."""
    cov, bbox = grids(1)
    good = {"c": cov[None], "b": bbox[None], "image_size": np.array([[64, 32]], np.int32)}
    odd, answer = last(load).execute([{**good, "b": bbox[None, :3]}, good])
    assert "ValueError" in odd.error.message
    assert answer.outputs["count"].tolist() == [[1]]


def test_boxes_that_are_decoded_already_stay_what_they_are(load: Any) -> None:
    """With the parameter `absolute` the values are network pixels."""
    cov, bbox = np.full((1, 1, 1, 1), 0.9, np.float32), np.array([8, 4, 32, 16], np.float32).reshape(1, 4, 1, 1)
    sizes = np.array([[64, 32]], np.int32)
    (answer,) = last(load, boxes="absolute").execute([{"c": cov, "b": bbox, "image_size": sizes}])
    assert answer.outputs["detections"][0, 0, :4].tolist() == [8, 4, 32, 16]


def test_rows_are_detections_and_back() -> None:
    """Also a class id as large as there will be."""
    cov, bbox = grids(2)
    found = postprocess(cov, bbox, PARAMS, image_size=(123, 77))
    found.class_id[:] = (0, 5000)
    again = from_rows(to_rows(found))
    for name in ("xyxy", "score", "raw_score", "class_id"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype
