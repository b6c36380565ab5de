"""What a Triton model is sent for a picture, and how much of it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tao2serve.errors import InputError, UsageError
from tao2serve.loadtest import Target
from tao2serve.loadtest.triton_input import TritonInput, input_of, kept, payloads
from tao2serve.loadtest.tritons import prepare, probe_triton
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.preprocess import preprocess, read_pixels

HTTP = Target(url="127.0.0.1:8000", protocol="triton-http", model="street_4")
GRPC = Target(url="127.0.0.1:8001", protocol="triton-grpc", model="street_4")
PARAMS = DetectorParams(channels=3, height=32, width=48, bbox_scale=35.0, bbox_offset=0.5, classes=())


def config(datatype: str, dims: list[int], *, batch: int = 8, **more: Any) -> dict[str, Any]:
    tensor = {"name": "given", "data_type": f"TYPE_{datatype}", "dims": dims}
    return {"name": "street_4", "max_batch_size": batch, "input": [tensor], **more}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG of another size than the network's, turned by its EXIF orientation."""
    picture = Image.effect_noise((90, 70), 60).convert("RGB")
    exif = picture.getexif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("datatype", "dims", "kind", "shape"),
    [
        ("STRING", [1], "picture", (1, 1)),
        ("STRING", [-1], "picture", (1, 1)),
        ("UINT8", [32, 48, 3], "pixels", (1, 32, 48, 3)),
        ("FP32", [3, 32, 48], "tensor", (1, 3, 32, 48)),
        ("FP16", [1, 32, 48], "tensor", (1, 1, 32, 48)),
    ],
)
def test_an_input_is_known_by_its_type_and_shape(
    datatype: str, dims: list[int], kind: str, shape: tuple[int, ...]
) -> None:
    """A request is a batch of one; a model that takes no batches is sent no batch dimension."""
    found = input_of(GRPC, config(datatype, dims))
    assert (found.kind, found.shape, found.name) == (kind, shape, "given")
    assert input_of(GRPC, config(datatype, dims, batch=0)).shape == shape[1:]


@pytest.mark.parametrize(
    ("datatype", "dims"),
    [("FP32", [3, -1, -1]), ("FP32", [4, 32, 48]), ("UINT8", [3, 32, 48]), ("INT64", [3, 32, 48]), ("STRING", [2])],
)
def test_what_no_picture_becomes_is_refused(datatype: str, dims: list[int]) -> None:
    """The error names what the model takes instead."""
    with pytest.raises(InputError, match="something else") as error:
        input_of(HTTP, config(datatype, dims))
    assert f"given TYPE_{datatype}" in error.value.evidence


def test_a_model_of_two_inputs_is_refused_unless_one_is_optional() -> None:
    """What is optional is left out."""
    two = config("UINT8", [32, 48, 3])
    two["input"].append({"name": "more", "data_type": "TYPE_FP32", "dims": [1]})
    with pytest.raises(InputError, match="something else"):
        input_of(GRPC, two)
    two["input"][1]["optional"] = True
    assert input_of(GRPC, two).name == "given"


def test_contents_are_what_the_endpoint_would_send(photo: Path) -> None:
    """Bit for bit the runtime's own pixels and tensor, in the model's own resize mode; a picture's length and bytes."""
    image = photo.read_bytes()
    (pixels,) = payloads(input_of(GRPC, config("UINT8", [32, 48, 3])), (photo,)).contents
    assert pixels == read_pixels(image, PARAMS)[0].tobytes()
    (tensor,) = payloads(input_of(GRPC, config("FP32", [3, 32, 48])), (photo,)).contents
    assert tensor == preprocess(image, PARAMS)[0].tobytes()
    (half,) = payloads(input_of(GRPC, config("FP16", [3, 32, 48])), (photo,)).contents
    assert half == preprocess(image, PARAMS)[0].astype("<f2").tobytes()
    fast = input_of(GRPC, config("FP32", [3, 32, 48], parameters={"resize": {"string_value": "fast"}}))
    assert payloads(fast, (photo,)).contents[0] == preprocess(image, PARAMS, mode="fast")[0].tobytes()
    (whole,) = payloads(input_of(GRPC, config("STRING", [1])), (photo,)).contents
    assert whole == len(image).to_bytes(4, "little") + image


def test_memory_is_bounded_and_said(photo: Path) -> None:
    """Of large tensors as many are kept as fit in 256 MiB, always one; the sentence says how many of how many."""
    images = (photo,) * 100
    large = input_of(GRPC, config("FP32", [3, 544, 960]))
    chosen, note = kept(large, images)
    assert len(chosen) == 42
    assert "42 of 100 were kept, as many as fit in 256 MiB" in note
    assert "scaled to that size (lanczos) before the run" in note
    assert kept(input_of(GRPC, config("FP32", [3, 10_000, 10_000])), images)[0] == (photo,)
    everything, note = kept(input_of(GRPC, config("UINT8", [32, 48, 3])), images)
    assert len(everything) == 100
    assert "kept" not in note


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    """A file that cannot be decoded is named; a model that takes bytes gets it as it is."""
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        payloads(input_of(GRPC, config("FP32", [3, 32, 48])), (path,))
    assert payloads(input_of(GRPC, config("STRING", [1])), (path,)).contents[0].endswith(b"no picture")


@pytest.mark.parametrize(("datatype", "dims"), [("UINT8", [32, 48, 3]), ("STRING", [1])])
def test_requests_are_tritonclients_own(photo: Path, datatype: str, dims: list[int]) -> None:
    """What tritonclient itself would send for the same tensor, over HTTP and gRPC."""
    from tritonclient.grpc import InferInput, service_pb2
    from tritonclient.utils import serialize_byte_tensor

    tensor: TritonInput = input_of(HTTP, config(datatype, dims))
    prepared = prepare(HTTP, tensor, (photo,))
    body, headers = prepared.requests[0], prepared.headers[0]
    (content,) = payloads(tensor, (photo,)).contents
    length = int(headers["Inference-Header-Content-Length"])
    assert body[length:] == content
    head = json.loads(body[:length])
    assert head["inputs"][0]["parameters"]["binary_data_size"] == len(content)
    assert (head["inputs"][0]["datatype"], head["parameters"]) == (tensor.datatype, {"binary_data_output": True})

    theirs = InferInput("given", list(tensor.shape), tensor.datatype)
    if datatype == "STRING":
        values: Any = np.array([[photo.read_bytes()]], dtype=object)
        assert serialize_byte_tensor(values).item() == content
    else:
        values = np.frombuffer(content, np.uint8).reshape(tensor.shape)
    theirs.set_data_from_numpy(values)
    request = service_pb2.ModelInferRequest.FromString(prepare(GRPC, tensor, (photo,)).requests[0])
    assert request.inputs[0] == theirs._get_tensor()
    assert list(request.raw_input_contents) == [theirs._get_content()]
    assert request.model_name == "street_4"


def test_an_address_is_a_host_and_a_port(photo: Path) -> None:
    """A URL is refused before anything is asked, and an endpoint is no Triton."""
    for target in (
        Target(url="http://127.0.0.1:8000", protocol="triton-http", model="street_4"),
        Target(url="http://127.0.0.1:8080/serve/street"),
    ):
        with pytest.raises(UsageError, match="not the address of a Triton"):
            probe_triton(target, (photo,), timeout_s=1)


def test_others_may_run_between_two_pictures(photo: Path) -> None:
    """A process that makes many large tensors still answers who waits for a sign of life."""
    calls: list[None] = []
    made = payloads(input_of(GRPC, config("UINT8", [32, 48, 3])), (photo,) * 3, between=lambda: calls.append(None))
    assert len(calls) == len(made.contents) == 3
