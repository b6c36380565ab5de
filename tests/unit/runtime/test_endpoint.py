"""The endpoint's class and its client, against a gRPC server that answers as Triton does."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tao2serve.runtime import Detections, endpoint, ensemble
from tao2serve.runtime.endpoint import EndpointSettings
from tao2serve.runtime.triton_client import InputTensor, TritonClient, TritonError

PARAMS = {
    "family": "detectnet_v2", "input": {"channels": 3, "height": 32, "width": 64}, "bbox_scale": 35.0,
    "bbox_offset": 0.5, "classes": [{"name": "car", "clustering": "nms", "nms_confidence_threshold": 0.05}],
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "model": {"endpoint": "street", "version": "1", "id": "abc"}, "triton_model": "street_1",
    "placement": "endpoint", "resize": "lanczos", "input": "float32", "boxes": "offsets", "input_name": "i",
    "coverage_name": "c", "bbox_name": "b", "deadline_s": 2.0, "max_pixels": 10_000, "max_bytes": 100_000,
}  # fmt: skip

Answer = Callable[[Any, Any], Any]


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Keeps what it was asked, as protobuf reads it, and how many asked at once."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Answer = lambda request, context: grids()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - Triton's name
        with self._lock:
            self.asked.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.answer(request, context)
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[Triton]:
    servicer = Triton()
    server = grpc.server(futures.ThreadPoolExecutor(20), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("CLEARML_DEFAULT_TRITON_GRPC_ADDR", f"127.0.0.1:{port}")
    servicer.address = f"127.0.0.1:{port}"  # type: ignore[attr-defined]
    try:
        yield servicer
    finally:
        server.stop(0).wait()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The endpoint's class beside its two files."""

    def made(**settings: Any) -> Any:
        (tmp_path / "endpoint.json").write_text(json.dumps({**SETTINGS, **settings}))
        (tmp_path / "params.json").write_text(json.dumps(PARAMS))
        monkeypatch.setattr(endpoint, "__file__", str(tmp_path / "endpoint.py"))
        return endpoint.Preprocess()

    return made


def response(**tensors: np.ndarray) -> Any:
    """What Triton sends for these outputs."""
    message = service_pb2.ModelInferResponse(model_name="street_1")
    for name, array in tensors.items():
        datatype = {"f": "FP32", "i": "INT32"}[array.dtype.kind]
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return message


def grids(coverage: float = 0.9) -> Any:
    """One confident cell of a 2x4 grid, its box 35 px to each side."""
    cov = np.zeros((1, 1, 2, 4), np.float32)
    cov[0, 0, 1, 2] = coverage
    bbox = np.ones((1, 4, 2, 4), np.float32)
    return response(b=bbox, c=cov)  # not in the order they were asked for


ROWS = Detections(
    xyxy=np.array([[1.1, 2.2, 30.3, 20.4], [0.1, 0.2, 9.3, 8.4]], np.float32),
    score=np.array([0.9, 0.7], np.float32), raw_score=np.array([1.9, 0.8], np.float32),
    class_id=np.array([0, 0], np.int64),
)  # fmt: skip


def found(detections: Detections = ROWS, *, rows: int = 3) -> Any:
    """An ensemble's answer for a picture of 100x50, filled up to `rows`."""
    padded = np.zeros((1, rows, ensemble.COLUMNS), np.float32)
    padded[0, : len(detections)] = ensemble.to_rows(detections)
    return response(
        detections=padded, count=np.array([[len(detections)]], np.int32), image_size=np.array([[100, 50]], np.int32),
        preprocess_ms=np.array([[2.0]], np.float32), postprocess_ms=np.array([[0.5]], np.float32),
    )  # fmt: skip


def picture(colour: tuple[int, int, int] = (10, 20, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def asked(preprocess: Any, *bodies: Any) -> list[tuple[int, Any]]:
    """The endpoint's answers to requests that come at once: status and document."""

    async def run() -> list[Any]:
        return await asyncio.gather(*(preprocess.process(body, {}) for body in bodies))

    return [(answer.status_code, json.loads(answer.body)) for answer in asyncio.run(run())]


def test_the_tensor_arrives_as_protobuf_says(triton: Triton, make: Callable[..., Any]) -> None:
    """What is put together by hand is a ModelInferRequest: names, shape, and the picture as float32 planes."""
    ((status, answer),) = asked(make(), picture())
    assert status == 200
    (request,) = triton.asked
    assert (request.model_name, request.inputs[0].name, request.inputs[0].datatype) == ("street_1", "i", "FP32")
    assert list(request.inputs[0].shape) == [1, 3, 32, 64]
    assert sorted(output.name for output in request.outputs) == ["b", "c"]
    (content,) = request.raw_input_contents
    planes = np.frombuffer(content, np.float32).reshape(3, 32, 64)
    np.testing.assert_array_equal(planes[:, 0, 0], (np.array([10, 20, 30]) / np.float32(255)).astype(np.float32))
    (box,) = answer["predictions"]
    # The cell's centre is (32.5, 16.5); the box is clipped to 64x32 and scaled to the picture of 100x50.
    assert box == {
        "bbox": [0.0, 0.0, 100.0, 50.0], "score": 0.9, "raw_score": 0.9, "class_id": 0, "label": "car",
    }  # fmt: skip


def test_pixels_are_a_quarter_of_the_bytes(triton: Triton, make: Callable[..., Any]) -> None:
    """A graph that takes pixels gets (H, W, 3) uint8."""
    asked(make(input="uint8"), picture())
    (request,) = triton.asked
    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == ("UINT8", [1, 32, 64, 3])
    (content,) = request.raw_input_contents
    assert content == bytes([10, 20, 30]) * (32 * 64)


def test_decoded_boxes_are_not_decoded_again(triton: Triton, make: Callable[..., Any]) -> None:
    """With boxes of network pixels the values themselves are the box."""
    triton.answer = lambda request, context: response(
        c=np.full((1, 1, 1, 1), 0.9, np.float32),
        b=np.array([8, 4, 32, 16], np.float32).reshape(1, 4, 1, 1),
    )
    ((_, answer),) = asked(make(boxes="absolute"), picture())
    assert answer["predictions"][0]["bbox"] == [12.5, 6.25, 50.0, 25.0]


def test_an_ensemble_gets_the_bytes_and_gives_the_boxes(triton: Triton, make: Callable[..., Any]) -> None:
    """The picture travels as it came, also out of base64; rows that only fill up are no boxes."""
    triton.answer = lambda request, context: found()
    body = picture()
    preprocess = make(placement="ensemble")
    (_, answer), (_, in_json) = asked(preprocess, body, {"image": base64.b64encode(body).decode()})
    assert in_json["predictions"] == answer["predictions"]
    assert answer["image"] == {"width": 100, "height": 50}
    assert [box["bbox"] for box in answer["predictions"]] == [[1.1, 2.2, 30.3, 20.4], [0.1, 0.2, 9.3, 8.4]]
    for request in triton.asked:
        assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == ("BYTES", [1, 1])
        assert request.raw_input_contents[0] == len(body).to_bytes(4, "little") + body
    times = answer["timing_ms"]
    assert (times["preprocess"], times["postprocess"]) == (2.0, 0.5)
    assert times["infer"] == pytest.approx(times["total"] - 2.5, abs=0.01)


def test_no_boxes_are_an_answer(triton: Triton, make: Callable[..., Any]) -> None:
    """A tensor without rows, as Triton sends it when no picture of a request has a box."""
    none = Detections(
        xyxy=np.zeros((0, 4), np.float32), score=np.zeros(0, np.float32), raw_score=np.zeros(0, np.float32),
        class_id=np.zeros(0, np.int64),
    )  # fmt: skip
    triton.answer = lambda request, context: found(none, rows=0)
    ((status, answer),) = asked(make(placement="ensemble"), picture())
    assert (status, answer["predictions"]) == (200, [])


def abort(code: grpc.StatusCode, reason: str) -> Answer:
    return lambda request, context: context.abort(code, reason)


def test_what_an_ensemble_refuses_is_422_with_the_sentence(triton: Triton, make: Callable[..., Any]) -> None:
    """The reason as the model gave it, without the words that Triton puts around it."""
    triton.answer = abort(
        grpc.StatusCode.INVALID_ARGUMENT, "in ensemble 'street_1', image refused: the body is no image; send one"
    )
    assert asked(make(placement="ensemble"), b"hello") == [(422, {"detail": "the body is no image; send one"})]


@pytest.mark.parametrize("placement", ["endpoint", "ensemble"])
def test_what_triton_itself_refuses_is_503(triton: Triton, make: Callable[..., Any], placement: str) -> None:
    """A wrong shape is a deployment's fault, not the caller's; a model that is not there likewise."""
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL):
        triton.answer = abort(code, "unexpected shape for input 'i'\nexpected [3,2,2]")
        ((status, answer),) = asked(make(placement=placement), picture())
        assert status == 503
        assert answer["detail"] == "Triton cannot run street_1: unexpected shape for input 'i' expected [3,2,2]"


def test_a_triton_that_hangs_is_504_in_time(triton: Triton, make: Callable[..., Any]) -> None:
    """One deadline for all pictures of a request, however many: clearml-serving waits for requests in flight."""
    release = threading.Event()
    triton.answer = lambda request, context: (release.wait(10), grids())[1]
    images = [base64.b64encode(picture()).decode()] * 8
    start = time.monotonic()
    ((status, answer),) = asked(make(deadline_s=0.5), {"images": images})
    release.set()
    assert status == 504
    assert "street_1" in answer["detail"]
    assert time.monotonic() - start < 3


def test_what_waited_too_long_is_not_decoded(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under too many requests those whose deadline has passed get 504 without the work."""
    preprocess = make(deadline_s=0.2)
    release = threading.Event()
    for _ in range(preprocess._pool._max_workers):
        preprocess._pool.submit(release.wait, 10)
    decoded: list[bytes] = []
    monkeypatch.setattr(endpoint, "read_input", lambda image, *_rest, **_options: decoded.append(image))
    threading.Timer(0.5, release.set).start()
    ((status, answer),) = asked(preprocess, picture())
    assert status == 504
    assert "too many requests" in answer["detail"]
    assert not decoded


@pytest.mark.parametrize("placement", ["endpoint", "ensemble"])
def test_pictures_of_a_list_are_asked_about_at_once(triton: Triton, make: Callable[..., Any], placement: str) -> None:
    """So that Triton can batch them; the results come in the order of the list."""
    barrier = threading.Barrier(4, timeout=10)

    def answer(request: Any, context: Any) -> Any:
        barrier.wait()  # passes only when all four are here
        content = request.raw_input_contents[0]
        if placement == "endpoint":
            return grids(coverage=float(np.frombuffer(content, np.float32)[0]))
        index = pictures.index(content[4:])
        return found(
            Detections(
                xyxy=ROWS.xyxy[:1], score=np.array([index], np.float32), raw_score=ROWS.raw_score[:1],
                class_id=ROWS.class_id[:1],
            )
        )  # fmt: skip

    pictures = [picture((51 * (index + 1), 0, 0)) for index in range(4)]
    triton.answer = answer
    body = {"images": [base64.b64encode(image).decode() for image in pictures]}
    ((status, document),) = asked(make(placement=placement), body)
    assert status == 200
    scores = [result["predictions"][0]["score"] for result in document["results"]]
    assert scores == ([0.2, 0.4, 0.6, 0.8] if placement == "endpoint" else [0.0, 1.0, 2.0, 3.0])
    assert triton.most_at_once == 4


@pytest.mark.parametrize("placement", ["endpoint", "ensemble"])
def test_one_bad_picture_fails_its_list(triton: Triton, make: Callable[..., Any], placement: str) -> None:
    """422 for the request, with the sentence about that picture; another request at the same time is answered."""

    def answer(request: Any, context: Any) -> Any:
        if placement == "endpoint":
            return grids()
        if request.raw_input_contents[0][4:] == b"bad":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "image refused: the body is no image")
        return found()

    triton.answer = answer
    mixed = {"images": [base64.b64encode(image).decode() for image in (picture(), b"bad", picture())]}
    (bad, refusal), (good, _) = asked(make(placement=placement), mixed, picture())
    assert (bad, good) == (422, 200)
    assert "the body is no image" in refusal["detail"]


def test_pictures_are_read_by_as_many_threads_as_there_are_cores(make: Callable[..., Any]) -> None:
    """Hundreds of requests do not take turns on the cores: each would be late."""
    assert make()._pool._max_workers == max(2, endpoint._cores())


def test_an_answer_can_be_looked_up_like_a_dict(triton: Triton, make: Callable[..., Any]) -> None:
    """clearml-serving reads configured metrics from what `process` returns by keys() and []."""
    answer = asyncio.run(make().process(picture(), {}))
    assert set(answer.keys()) == {"image", "model", "bbox_format", "predictions", "timing_ms"}
    assert answer["bbox_format"] == "xyxy"
    assert answer.media_type == "application/json"


@pytest.mark.parametrize(
    ("change", "words"), [({"batching": 1}, "batching"), ({"resize": None}, "resize"), ({"boxes": None}, "boxes")]
)
def test_settings_of_another_version_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """A member that is not known, or not there, is named; nothing is guessed."""
    document = {name: value for name, value in {**SETTINGS, **change}.items() if value is not None}
    path = tmp_path / "endpoint.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"endpoint\.json.*different versions: {words}"):
        EndpointSettings.read(path)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_a_tensor_of_any_size_is_carried(triton: Triton, size: int) -> None:
    """Lengths of one to four bytes in protobuf's own writing."""
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)

    async def run() -> None:
        tensor = InputTensor(name="i", datatype="UINT8", shape=(1, size))
        client = TritonClient(triton.address, "m", tensor=tensor, outputs=["c"])  # type: ignore[attr-defined]
        await client.infer((content[: size // 2], memoryview(content)[size // 2 :]), timeout_s=5)

    asyncio.run(run())
    assert list(triton.asked[0].raw_input_contents) == [content]


def test_nobody_there_is_503() -> None:
    """The caller hears which model cannot run."""

    async def run() -> None:
        tensor = InputTensor(name="i", datatype="UINT8", shape=(1, 1))
        await TritonClient("127.0.0.1:9", "m", tensor=tensor, outputs=["c"]).infer((b"x",), timeout_s=5)

    with pytest.raises(TritonError, match="Triton cannot run m") as caught:
        asyncio.run(run())
    assert caught.value.status == 503
