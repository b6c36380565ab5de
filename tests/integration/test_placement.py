"""One detector in both placements, on the real Triton and the real ClearML Serving: the same boxes to the last bit."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from command_line import CommandLine
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tao2serve.config import Settings
from tao2serve.export.convert import export_onnx
from tao2serve.export.lean import make_lean
from tao2serve.registry.publish import PublishedModel
from tao2serve.runtime import DetectorParams, ensemble
from tao2serve.runtime import endpoint as endpoint_module
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.serving.package import write_package
from tao2serve.serving.service import EndpointVersion
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment
from tao2serve.triton.control import TritonControl
from tao2serve.triton.models import models_of
from tao2serve.triton.repository import remove_models, write_models
from tao2serve.values import ModelArtifact

pytestmark = pytest.mark.integration
PRUNED = SAMPLE / "pruned"
PICTURES = [path.read_bytes() for path in pictures()]
BOMB = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d494844520000ea600000ea600802000000") + b"\0\0\0\0"
PARTS = ("_detector", "_postprocess", "_preprocess")


@pytest.fixture(scope="module")
def repository(sandbox: CommandLine) -> Path:
    return Path(sandbox.environment["TAO2SERVE_MODEL_REPOSITORY"])


@pytest.fixture(scope="module")
def control(sandbox: CommandLine) -> Iterator[TritonControl]:
    with TritonControl(sandbox.environment["TAO2SERVE_TRITON_GRPC"]) as control:
        yield control


@pytest.fixture(scope="module")
def params() -> DetectorParams:
    return DetectorParams.from_dict(to_params(read_experiment(PRUNED / "experiment_spec.txt")))


def post(url: str, body: bytes, media_type: str = "image/jpeg") -> httpx.Response:
    return httpx.post(url, content=body, headers={"Content-Type": media_type}, timeout=30, trust_env=False)


def post_images(url: str, images: list[bytes]) -> httpx.Response:
    body = {"images": [base64.b64encode(image).decode() for image in images]}
    return httpx.post(url, json=body, timeout=30, trust_env=False)


def test_both_placements_answer_the_same(deployed: dict[str, Any], whole: dict[str, Any]) -> None:
    """Every member of the answer but model and times is equal, as bytes and as a list in JSON."""
    urls = [document["endpoint"]["url"] for document in (deployed, whole)]
    assert whole["parity"]["matched_ratio"] == 1.0
    for body in PICTURES:
        one, other = (post(url, body).json() for url in urls)
        assert one["predictions"] == other["predictions"]
        assert one["predictions"]
        assert (one["image"], one["bbox_format"]) == (other["image"], other["bbox_format"])
        assert list(one) == list(other)
    lists = [post_images(url, PICTURES).json()["results"] for url in urls]
    assert len(lists[0]) == len(PICTURES)
    assert [one["predictions"] for one in lists[0]] == [one["predictions"] for one in lists[1]]


def test_the_times_of_an_ensemble_add_up(whole: dict[str, Any]) -> None:
    """Both ends report their own milliseconds; what is left of the total is infer, and none is made up."""
    times = post(whole["endpoint"]["url"], PICTURES[0]).json()["timing_ms"]
    assert all(value > 0 for value in times.values())
    assert times["preprocess"] + times["infer"] + times["postprocess"] == pytest.approx(times["total"], abs=0.01)


REFUSED = {"empty": b"", "text": b"hello", "truncated": PICTURES[0][:2000] if PICTURES else b"", "bomb": BOMB}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_picture_gets_the_same_sentence(deployed: dict[str, Any], whole: dict[str, Any], name: str) -> None:
    """422 with the reason the other placement gives, word for word."""
    one, other = (post(document["endpoint"]["url"], REFUSED[name]) for document in (deployed, whole))
    assert one.status_code == other.status_code == 422
    assert one.json() == other.json()


def test_bad_pictures_among_good_ones_harm_nobody(whole: dict[str, Any]) -> None:
    """Forty requests at once, every fourth bad: 422 for those, the usual boxes for the others."""
    url = whole["endpoint"]["url"]
    alone = [post(url, body).json()["predictions"] for body in PICTURES]
    bodies = [b"bad" if index % 4 == 3 else PICTURES[index % len(PICTURES)] for index in range(40)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda body: post(url, body), bodies))
    for index, answer in enumerate(answers):
        assert answer.status_code == (422 if index % 4 == 3 else 200)
        if index % 4 != 3:
            found = answer.json()["predictions"]
            expected = alone[index % len(PICTURES)]
            assert [one["label"] for one in found] == [one["label"] for one in expected]
            for box, other in zip(found, expected, strict=True):
                assert box["bbox"] == pytest.approx(other["bbox"], abs=0.05)  # batches round differently
    mixed = post_images(url, [PICTURES[0], b"bad"])
    assert mixed.status_code == 422
    assert "no image" in mixed.json()["detail"]


def test_verify_finds_the_network_in_the_ensemble(sandbox: CommandLine, whole: dict[str, Any]) -> None:
    """`NAME_detector` on Triton is the network, whose tensors are those of the weights."""
    weights = next((PRUNED / "weights").glob("*.hdf5"))
    host = sandbox.environment["TAO2SERVE_TRITON_GRPC"]
    address = f"grpc://{host}/whole_{whole['endpoint']['version']}_detector"
    document = sandbox.tao2serve("verify", weights, address, "--json").assert_success().document
    assert document["candidate"]["name"] == address


def test_a_late_failure_takes_the_whole_set_back(sandbox: CommandLine, repository: Path) -> None:
    """Exit 6 when the endpoint does not answer: no folder of the four is left, and Triton runs none of them."""
    before = sorted(path.name for path in repository.iterdir())
    impatient = CommandLine(
        environment={**sandbox.environment, "TAO2SERVE_SERVING_BASE_URL": "http://127.0.0.1:9/serve",
                     "TAO2SERVE_READY_TIMEOUT_S": "5", "TAO2SERVE_PLACEMENT": "ensemble"},
        folder=sandbox.folder,
    )  # fmt: skip
    outcome = impatient.tao2serve("deploy", "--project", "street-detector", "--endpoint", "tardy", "--json")
    assert outcome.code == 6
    # On a busy machine it is late already when Triton starts the processes; that is taken back in the same way.
    assert outcome.document["step"] in ("load on Triton", "ask it, and compare with the artifact")
    assert sorted(path.name for path in repository.iterdir()) == before
    with TritonControl(sandbox.environment["TAO2SERVE_TRITON_GRPC"]) as control:
        assert not any(control.is_model_ready(f"tardy_1{part}") for part in ("", *PARTS))
    assert "tardy" not in sandbox.clearml_serving("model", "list").assert_success().stdout


def ask(host: str, model: str, images: list[bytes]) -> list[np.ndarray]:
    """One request with all images; their rows, without what fills them up."""
    tensor = InferInput(ensemble.IMAGE, [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image] for image in images], dtype=object))
    client = InferenceServerClient(host)
    try:
        answer = client.infer(model, [tensor])
    finally:
        client.close()
    counts = answer.as_numpy(ensemble.COUNT)[:, 0]
    return [rows[:count] for rows, count in zip(answer.as_numpy(ensemble.DETECTIONS), counts, strict=True)]


def test_what_build_writes_loads_and_answers(
    sandbox: CommandLine, whole: dict[str, Any], repository: Path, control: TritonControl
) -> None:
    """Built without a server, loaded by name, warmed up: boxes of a request of several pictures, each its own."""
    weights = next((PRUNED / "weights").glob("*.hdf5"))
    tuned = CommandLine(
        environment={**sandbox.environment, "TAO2SERVE_QUEUE_DELAY_US": "500", "TAO2SERVE_CPU_THREADS": "1",
                     "TAO2SERVE_PREFERRED_BATCH_SIZES": "2,4", "TAO2SERVE_VERSION_POLICY": "specific"},
        folder=sandbox.folder,
    )  # fmt: skip
    arguments = ("build", weights, "--name", "built", "--placement", "ensemble", "--max-batch-size", "4", "--json")
    document = tuned.tao2serve(*arguments).assert_success().document
    names = [model["name"] for model in document["models"]]
    assert names == ["built_preprocess", "built_detector", "built_postprocess", "built"]
    assert all(model["created"] for model in document["models"])
    assert document["placement"] == "ensemble"
    again = tuned.tao2serve(*arguments).assert_success().document
    assert not any(model["created"] for model in again["models"])
    other = tuned.tao2serve(*arguments, "--resize", "fast")
    assert other.code == 3
    assert "never rewritten" in other.document["error"]["fact"]
    host = sandbox.environment["TAO2SERVE_TRITON_GRPC"]
    control.load("built")
    try:
        together = ask(host, "built", PICTURES[:3])
        for rows, picture in zip(together, PICTURES[:3], strict=True):
            expected = post(whole["endpoint"]["url"], picture).json()["predictions"]
            assert len(rows) == len(expected) > 0
            boxes = [box["bbox"] for box in expected]
            np.testing.assert_allclose(rows[:, :4], boxes, atol=0.05)  # batches round differently
        with pytest.raises(InferenceServerException, match=r"image refused: the body is no image"):
            ask(host, "built", [PICTURES[0], b"bad", PICTURES[1]])
    finally:
        for name in reversed(names):
            control.unload(name)
            shutil.rmtree(repository / name)


def lean_artifact(folder: Path, params: DetectorParams, weights: Path) -> ModelArtifact:
    """The sample as a graph that takes pixels and gives boxes."""
    usual = export_onnx(weights, output=folder / "usual.onnx")
    return make_lean(usual, output=folder / "lean.onnx", uint8_input=True, absolute_boxes=True, params=params)


@pytest.mark.parametrize("placement", ["endpoint", "ensemble"])
def test_a_lean_graph_gives_the_same_boxes(
    sandbox: CommandLine, deployed: dict[str, Any], params: DetectorParams, repository: Path, control: TritonControl,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: Any,
) -> None:  # fmt: skip
    """Pixels to Triton, a quarter of the bytes, and decoded boxes back: the answers of the usual graph."""
    artifact = lean_artifact(tmp_path, params, next((PRUNED / "weights").glob("*.hdf5")))
    settings = Settings(placement=placement)
    version = EndpointVersion(name=f"lean_{placement}", version=1, base_url="http://x/serve")
    written = write_models(models_of(artifact, params, settings, name=version.triton_model), repository=repository)
    package = write_package(
        version, PublishedModel(model_id="abc", uri="u"), artifact, params, settings, directory=tmp_path / "package"
    )
    document = json.loads((package / "endpoint.json").read_text())
    assert (document["input"], document["boxes"]) == ("uint8", "absolute")
    monkeypatch.setattr(endpoint_module, "__file__", str(package / "endpoint.py"))
    monkeypatch.setenv("CLEARML_DEFAULT_TRITON_GRPC_ADDR", sandbox.environment["TAO2SERVE_TRITON_GRPC"])
    try:
        control.load(version.triton_model)

        async def answers() -> list[Any]:
            preprocess = endpoint_module.Preprocess()
            return [json.loads((await preprocess.process(picture, {})).body) for picture in PICTURES]

        for answer, picture in zip(asyncio.run(answers()), PICTURES, strict=True):
            expected = post(deployed["endpoint"]["url"], picture).json()
            assert answer["predictions"] == expected["predictions"]
    finally:
        for model in reversed(written):
            control.unload(model.name)
        remove_models(written)
