"""Names, answers, boxes and drawings of an endpoint, without one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from tao2serve.config import Settings
from tao2serve.errors import InputError, NotReadyError, ParityError, ServiceError, UsageError
from tao2serve.parity.boxes import compare_boxes
from tao2serve.registry.publish import PublishedModel
from tao2serve.runtime import Detections, DetectorParams
from tao2serve.serving import client
from tao2serve.serving.client import Answer, Prediction, ask, wait_for_answer
from tao2serve.serving.names import check_endpoint_name
from tao2serve.serving.package import check_servable, write_package
from tao2serve.serving.parity import check_boxes
from tao2serve.serving.service import EndpointVersion
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

DOCUMENT = {
    "image": {"width": 200, "height": 100},
    "model": {"endpoint": "street", "version": "3", "id": "abc"},
    "bbox_format": "xyxy",
    "predictions": [{"bbox": [10, 10, 60, 50], "score": 0.9, "raw_score": 2.5, "class_id": 0, "label": "car"}],
    "timing_ms": {"preprocess": 1.0, "infer": 2.0, "postprocess": 0.5, "total": 3.5},
}


@pytest.mark.parametrize("name", ["street", "a", "Street_Cars", "people4"])
def test_good_names_pass(name: str) -> None:
    """Letters, digits and underscores after a letter."""
    assert check_endpoint_name(name) == name


@pytest.mark.parametrize("name", ["", "4people", "street-cars", "a/b", "people_4", "x" * 65, "straße", "a\n"])
def test_bad_names_are_refused(name: str) -> None:
    """Whatever clearml-serving or Triton would mistake exits 2."""
    with pytest.raises(UsageError):
        check_endpoint_name(name)


@pytest.fixture
def respond(monkeypatch: pytest.MonkeyPatch):
    """Have the next requests answered by these responses, the last one for ever."""

    def install(*responses: httpx.Response | Exception) -> list[str]:
        queue, asked = list(responses), []

        def post(url: str, **_options: object) -> httpx.Response:
            asked.append(url)
            response = queue.pop(0) if len(queue) > 1 else queue[0]
            if isinstance(response, Exception):
                raise response
            return response

        monkeypatch.setattr(client.httpx, "post", post)
        return asked

    return install


def test_an_answer_becomes_a_value(respond) -> None:
    """Boxes, names, version and times are read as they came."""
    respond(httpx.Response(200, json=DOCUMENT))
    answer = ask("http://x/serve/street", b"jpeg")
    assert answer.version == "3"
    assert answer.predictions == (
        Prediction(bbox=(10.0, 10.0, 60.0, 50.0), score=0.9, raw_score=2.5, class_id=0, label="car"),
    )


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (httpx.Response(422, json={"detail": "the body is no image"}), InputError, "no image"),
        (httpx.Response(413, text="Request Entity Too Large"), InputError, "Too Large"),
        (httpx.Response(404, json={"detail": "not found"}), ServiceError, "not found"),
        (httpx.Response(503, text="down"), ServiceError, "down"),
        (httpx.Response(200, text="<html>"), ServiceError, "<html>"),
        (httpx.Response(200, json={"image": {}}), ServiceError, "image"),
        (httpx.Response(200, text=json.dumps(DOCUMENT).replace("2.5", "NaN")), ServiceError, "NaN"),
        (httpx.ConnectError("refused"), ServiceError, "refused"),
    ],
)
def test_every_other_answer_is_a_named_error(respond, response, kind, words) -> None:
    """A refused image is the caller's (3), everything else the service's (5); the evidence is what was said."""
    respond(response)
    with pytest.raises(kind) as caught:
        ask("http://x/serve/street", b"jpeg")
    assert words in caught.value.evidence


def test_waiting_ends_with_the_right_version(respond) -> None:
    """404 while the service has not polled, then the old version, then the new one."""
    old = {**DOCUMENT, "model": {**DOCUMENT["model"], "version": "2"}}
    asked = respond(httpx.Response(404), httpx.Response(200, json=old), httpx.Response(200, json=DOCUMENT))
    assert wait_for_answer("http://x/serve/street", b"jpeg", timeout_s=5, version=3).version == "3"
    assert len(asked) == 3


def test_waiting_too_long_says_what_was_seen_last(respond) -> None:
    """Exit 6 with the last reason."""
    respond(httpx.Response(404, json={"detail": "endpoint was not found"}))
    with pytest.raises(NotReadyError) as caught:
        wait_for_answer("http://x/serve/street", b"jpeg", timeout_s=0.3)
    assert "endpoint was not found" in caught.value.evidence


def test_waiting_ends_when_clearml_is_away(respond, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inference service would hear of the new version from a server that is known not to answer: exit 5."""
    gone = ServiceError("ClearML server http://x", "gave no answer for 60 s")
    respond(httpx.Response(404))
    monkeypatch.setattr(client, "away", lambda: gone)
    with pytest.raises(ServiceError) as caught:
        wait_for_answer("http://x/serve/street", b"jpeg", timeout_s=60)
    assert caught.value is gone


def test_a_lasting_fault_ends_the_wait_before_the_poll_could(respond, monkeypatch: pytest.MonkeyPatch) -> None:
    """404 may last a whole poll, but a service that answers 503 does not get minutes."""
    monkeypatch.setattr(client, "FAULT_LIMIT_S", 0.3)
    respond(httpx.Response(404), httpx.Response(503, text="Triton cannot run street_3"))
    news: list[str] = []
    with pytest.raises(NotReadyError) as caught:
        wait_for_answer("http://x/serve/street", b"jpeg", timeout_s=60, on_news=news.append)
    assert "cannot run street_3" in caught.value.evidence
    assert "not an endpoint" in news[0]


def answer_of(*boxes: tuple[float, float, float, float], class_id: int = 0) -> Answer:
    predictions = tuple(Prediction(bbox=box, score=0.5, raw_score=1.0, class_id=class_id, label="car") for box in boxes)
    return Answer(width=100, height=100, endpoint="e", version="1", predictions=predictions, timing_ms={}, document={})


def detections_of(*boxes: tuple[float, float, float, float]) -> Detections:
    count = len(boxes)
    return Detections(
        xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        score=np.full(count, 0.5, dtype=np.float32),
        raw_score=np.full(count, 1.25, dtype=np.float32),
        class_id=np.zeros(count, dtype=np.int64),
    )


def test_boxes_are_paired_one_to_one() -> None:
    """Two equal boxes on one side need two on the other; class and overlap must agree."""
    one, two = (0.0, 0.0, 50.0, 50.0), (50.0, 50.0, 90.0, 90.0)
    parity = compare_boxes(detections_of(one, two), answer_of(two, one).detections)
    assert (parity.matched, parity.matched_ratio, parity.max_score_difference) == (2, 1.0, 0.25)
    assert compare_boxes(detections_of(one, one), answer_of(one).detections).matched_ratio == 0.5
    assert compare_boxes(detections_of(one), answer_of(one, class_id=1).detections).matched == 0
    assert compare_boxes(detections_of(), answer_of().detections).matched_ratio == 1.0


def test_a_surplus_or_missing_box_is_a_parity_error() -> None:
    """Exit 7, with the counts."""
    with pytest.raises(ParityError) as caught:
        check_boxes(detections_of((0, 0, 50, 50)), answer_of((0, 0, 50, 50), (50, 50, 90, 90)), subject="x")
    assert "1 besides" in caught.value.evidence


def artifact_of(folder: Path, *, datatype: str = "FP32") -> ModelArtifact:
    signature = ModelSignature(
        input=Tensor(name="i", datatype=datatype, shape=(3, 64, 96)),
        coverage=Tensor(name="c", datatype="FP32", shape=(1, 4, 6)),
        bbox=Tensor(name="b", datatype="FP32", shape=(4, 4, 6)),
    )
    return ModelArtifact(format="onnx", path=folder, sha256="", precision="fp32", signature=signature, source_sha256="")


def test_only_float32_in_and_out_can_be_served(tmp_path: Path) -> None:
    """A network with half-precision input is refused before anything is published, naming the tensor."""
    check_servable(artifact_of(tmp_path), Settings())
    with pytest.raises(InputError) as caught:
        check_servable(artifact_of(tmp_path, datatype="FP16"), Settings())
    assert "i is FP16" in caught.value.evidence


def test_what_takes_pixels_is_not_served_to_who_said_no(tmp_path: Path) -> None:
    """A file made to take pixels cannot be made to take planes again: exit 2, rather than serving it all the same."""
    artifact = artifact_of(tmp_path)
    pixels = Tensor(name="pixels", datatype="UINT8", shape=(64, 96, 3))
    lean = replace(artifact, signature=replace(artifact.signature, input=pixels))
    check_servable(lean, Settings())
    with pytest.raises(UsageError, match="--no-uint8-input"):
        check_servable(lean, Settings(uint8_input=False))


def test_the_package_is_the_runtime_with_its_two_files(tmp_path: Path) -> None:
    """What is handed to ClearML Serving loads as it loads it, and knows its model, names and limits."""
    import importlib.util

    params = DetectorParams.from_dict(
        {"family": "detectnet_v2", "input": {"channels": 3, "height": 64, "width": 96}, "bbox_scale": 35.0,
         "bbox_offset": 0.5, "classes": [{"name": "car"}]}
    )  # fmt: skip
    endpoint = EndpointVersion(name="street", version=3, base_url="http://x/serve")
    folder = write_package(
        endpoint,
        PublishedModel(model_id="abc", uri="u"),
        artifact_of(tmp_path),
        params,
        Settings(),
        directory=tmp_path / "package",
    )
    assert json.loads((folder / "endpoint.json").read_text())["triton_model"] == "street_3"
    name = "py_code_street_3"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder), *sys.path]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        assert module.Preprocess()._settings.model.version == "3"
    finally:
        for loaded in [key for key in sys.modules if key.split(".")[0] == name]:
            del sys.modules[loaded]
