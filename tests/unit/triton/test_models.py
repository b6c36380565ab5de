"""What Triton is told of the models of a deployment."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tao2serve import runtime
from tao2serve.config import Settings
from tao2serve.errors import InputError, UsageError
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.preprocess import read_pixels
from tao2serve.triton.config import Batching, ModelConfig, Warmup, parse_config, render_config
from tao2serve.triton.models import models_of
from tao2serve.triton.repository import check_model, write_models
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

SIGNATURE = ModelSignature(
    input=Tensor(name="input_1:0", datatype="FP32", shape=(3, 192, 320)),
    coverage=Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(2, 12, 20)),
    bbox=Tensor(name="output_bbox/BiasAdd:0", datatype="FP32", shape=(8, 12, 20)),
)
LEAN = ModelSignature(
    input=Tensor(name="pixels", datatype="UINT8", shape=(192, 320, 3)),
    coverage=Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(2, 12, 20)),
    bbox=Tensor(name="output_boxes", datatype="FP32", shape=(8, 12, 20)),
)
PARAMS = DetectorParams.from_dict(
    {
        "family": "detectnet_v2",
        "input": {"channels": 3, "height": 192, "width": 320},
        "bbox_scale": 35.0,
        "bbox_offset": 0.5,
        "classes": [{"name": "car"}, {"name": "person"}],
    }
)


@pytest.fixture
def artifact(tmp_path: Path) -> ModelArtifact:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    return ModelArtifact(format="onnx", path=path, sha256="0", precision="fp32", signature=SIGNATURE, source_sha256="1")


def messages(artifact: ModelArtifact, **settings: Any) -> dict[str, Any]:
    """The configurations as Triton's own parser reads them, by name; also holds that what is written is complete."""
    models = models_of(artifact, PARAMS, Settings(**settings), name="street_4")
    return {
        model.config.name: parse_config(render_config(model.config), source=Path("config.pbtxt")) for model in models
    }


def dims(tensors: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.dims) for tensor in tensors]


def test_config_says_what_was_asked(artifact: ModelArtifact) -> None:
    """Names, shapes, batching, instances, threads and version policy come back from Triton's own parser."""
    message = messages(
        artifact, max_batch_size=4, instances=2, cpu_threads=3, queue_delay_us=250, preferred_batch_sizes="2,4",
        version_policy="specific", warmup=False,
    )["street_4"]  # fmt: skip
    assert (message.backend, message.max_batch_size) == ("python", 4)
    assert dims((*message.input, *message.output)) == [(3, 192, 320), (2, 12, 20), (8, 12, 20)]
    assert [tensor.name for tensor in message.output] == ["output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"]
    assert message.instance_group[0].count == 2
    assert message.parameters["cpu_threads"].string_value == "3"
    assert message.dynamic_batching.max_queue_delay_microseconds == 250
    assert list(message.dynamic_batching.preferred_batch_size) == [2, 4]
    assert list(message.version_policy.specific.versions) == [1]
    assert not message.model_warmup


def test_batching_is_on_without_a_delay_too(artifact: ModelArtifact) -> None:
    """By default requests that wait together share a batch, and none waits for others; one version is served."""
    message = messages(artifact)["street_4"]
    assert message.HasField("dynamic_batching")
    assert message.dynamic_batching.max_queue_delay_microseconds == 0
    assert message.version_policy.latest.num_versions == 1
    assert "cpu_threads" not in message.parameters
    assert messages(artifact, version_policy="all")["street_4"].version_policy.HasField("all")


@pytest.mark.parametrize(("largest", "batches"), [(8, [1, 8]), (1, [1])])
def test_the_detector_is_warmed_up_with_one_and_with_its_largest_batch(
    artifact: ModelArtifact, largest: int, batches: list[int]
) -> None:
    """Its first real request finds memory and threads in place, whatever its batch."""
    message = messages(artifact, max_batch_size=largest)["street_4"]
    assert [sample.batch_size for sample in message.model_warmup] == batches
    for sample in message.model_warmup:
        given = sample.inputs["input_1:0"]
        assert given.zero_data
        assert tuple(given.dims) == (3, 192, 320)


def test_an_ensemble_passes_each_tensor_on_by_one_name(artifact: ModelArtifact) -> None:
    """Every tensor a step takes is the ensemble's input or an earlier step's output; all it promises is made."""
    found = messages(artifact, placement="ensemble")
    assert list(found) == ["street_4_preprocess", "street_4_detector", "street_4_postprocess", "street_4"]
    known = {tensor.name: tensor for tensor in found["street_4"].input}
    for step in found["street_4"].ensemble_scheduling.step:
        model = found[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        assert set(step.output_map) == {tensor.name for tensor in model.output}
        for tensor in model.input:
            passed = known[step.input_map[tensor.name]]
            assert (passed.data_type, list(passed.dims)) == (tensor.data_type, list(tensor.dims))
        known |= {step.output_map[tensor.name]: tensor for tensor in model.output}
    for tensor in found["street_4"].output:
        assert (known[tensor.name].data_type, list(known[tensor.name].dims)) == (tensor.data_type, list(tensor.dims))
    assert len({message.max_batch_size for message in found.values()}) == 1


def test_pictures_and_boxes_are_not_batched(artifact: ModelArtifact) -> None:
    """Requests that wait for the first and last model go one by one to whichever instance is free."""
    found = messages(artifact, placement="ensemble", cpu_instances=3, instances=2)
    for name in ("street_4_preprocess", "street_4_postprocess"):
        assert not found[name].HasField("dynamic_batching")
        assert found[name].instance_group[0].count == 3
    assert found["street_4_detector"].HasField("dynamic_batching")
    assert found["street_4_detector"].instance_group[0].count == 2


def test_an_ensemble_ships_the_runtime_verbatim(artifact: ModelArtifact, tmp_path: Path) -> None:
    """First and last model hold every file of the runtime, the detector's parameters, and a picture to warm up with."""
    settings = Settings(placement="ensemble", resize="fast", max_image_bytes=1000, max_image_pixels=2000)
    models = models_of(artifact, PARAMS, settings, name="street_4")
    write_models(models, repository=tmp_path / "repository")
    sources = {path.name: path.read_bytes() for path in Path(runtime.__file__).parent.glob("*.py")}
    for part in ("preprocess", "postprocess"):
        folder = tmp_path / "repository" / f"street_4_{part}"
        assert {path.name: path.read_bytes() for path in (folder / "1" / "runtime").iterdir()} == sources
        assert DetectorParams.from_dict(json.loads((folder / "1" / "params.json").read_text())) == PARAMS
        assert f"from .runtime.triton_{part} import" in (folder / "1" / "model.py").read_text()
    image = (tmp_path / "repository" / "street_4_preprocess" / "warmup" / "image").read_bytes()
    assert int.from_bytes(image[:4], "little") == len(image) - 4
    assert read_pixels(image[4:], PARAMS)[1] == (1920, 1080)
    parameters = parse_config(render_config(models[0].config), source=Path("config.pbtxt")).parameters
    assert {name: value.string_value for name, value in parameters.items()} == {
        "resize": "fast", "max_image_bytes": "1000", "max_image_pixels": "2000",
    }  # fmt: skip


def test_a_graph_that_takes_pixels_and_gives_boxes_is_told_so(artifact: ModelArtifact) -> None:
    """UINT8 of (H, W, 3) between first model and detector, and boxes are not decoded a second time."""
    lean = dataclasses.replace(artifact, signature=LEAN)
    assert dims(messages(lean)["street_4"].input) == [(192, 320, 3)]
    found = messages(lean, placement="ensemble")
    (pixels,) = (tensor for tensor in found["street_4_preprocess"].output if tensor.name == "pixels")
    assert (pixels.data_type, tuple(pixels.dims)) == (found["street_4_detector"].input[0].data_type, (192, 320, 3))
    assert found["street_4_postprocess"].parameters["boxes"].string_value == "absolute"
    usual = messages(artifact, placement="ensemble")["street_4_postprocess"]
    assert usual.parameters["boxes"].string_value == "offsets"


def test_an_ensemble_needs_parameters(artifact: ModelArtifact) -> None:
    """Without an experiment spec there is nothing to cluster boxes by; the network alone does without."""
    assert models_of(artifact, None, Settings(), name="street")
    with pytest.raises(InputError, match="needs an experiment spec"):
        models_of(artifact, None, Settings(placement="ensemble"), name="street")


def test_a_plan_runs_on_tensorrt(artifact: ModelArtifact, tmp_path: Path) -> None:
    """A plan has Triton's own backend, a GPU, and lies there alone; the precision is said to whoever asks."""
    plan = dataclasses.replace(artifact, format="tensorrt_plan", precision="fp16", batches=(1, 8))
    (model,) = write_models(
        models_of(plan, PARAMS, Settings(cpu_threads=2), name="street_2"),
        repository=tmp_path / "repository",
    )
    message = parse_config((model.path / "config.pbtxt").read_text(), source=Path("config.pbtxt"))
    kind = message.instance_group[0]
    assert (message.backend, kind.Kind.Name(kind.kind)) == ("tensorrt", "KIND_GPU")
    assert {name: value.string_value for name, value in message.parameters.items()} == {"precision": "fp16"}
    assert [path.name for path in (model.path / "1").iterdir()] == ["model.plan"]
    check_model(model.path, name="street_2")


@pytest.mark.parametrize(("wanted", "batches", "largest"), [(8, (1, 4), 4), (8, (1, 32), 8), (8, None, 8)])
def test_batches_are_what_settings_and_plan_both_allow(
    artifact: ModelArtifact, wanted: int, batches: tuple[int, int] | None, largest: int
) -> None:
    """Triton forms no batch that the plan's profile has not, nor one larger than was asked for."""
    plan = dataclasses.replace(artifact, batches=batches)
    assert messages(plan, max_batch_size=wanted)["street_4"].max_batch_size == largest


def test_a_plan_without_a_batch_of_one_is_refused(artifact: ModelArtifact) -> None:
    """A request alone would fail on Triton, one by one; it is said before, with the remedy."""
    with pytest.raises(InputError, match="takes no single image") as caught:
        messages(dataclasses.replace(artifact, batches=(4, 8)))
    assert "--min-batch 1" in caught.value.hint


def test_a_preferred_batch_that_cannot_be_is_refused(artifact: ModelArtifact) -> None:
    """Triton would refuse to load the model; the error names the setting and the limit, also the plan's."""
    with pytest.raises(UsageError, match="preferred_batch_sizes has 16"):
        messages(artifact, preferred_batch_sizes="4,16")
    with pytest.raises(UsageError, match="has 8, and batches have 1 to 4"):
        messages(dataclasses.replace(artifact, batches=(1, 4)), preferred_batch_sizes="4,8")


@pytest.mark.parametrize("text", ["4,", "a", "4;8", "-1", "12345"])
def test_preferred_batches_are_numbers(text: str) -> None:
    """Whatever else is written there is a wrong setting."""
    with pytest.raises(ValidationError):
        Settings(preferred_batch_sizes=text)


def test_a_warmup_names_the_file_of_its_input() -> None:
    """An input with a file is read from it, another is zeros."""
    config = ModelConfig(
        name="street_1",
        backend="python",
        inputs=(Tensor(name="a", datatype="STRING", shape=(1,)), Tensor(name="b", datatype="INT32", shape=(2,))),
        outputs=(),
        batching=Batching(),
        warmup=(Warmup(batch=2, files={"a": "image"}),),
    )
    (sample,) = parse_config(render_config(config), source=Path("config.pbtxt")).model_warmup
    assert sample.inputs["a"].input_data_file == "image"
    assert sample.inputs["b"].zero_data


def test_a_graph_that_decodes_says_with_what(artifact: ModelArtifact) -> None:
    """Scale and offset of its boxes are in its configuration, for whoever compares them with another graph's."""
    lean = dataclasses.replace(artifact, signature=LEAN)
    for placement, name in (("endpoint", "street_4"), ("ensemble", "street_4_detector")):
        said = messages(lean, placement=placement)[name].parameters
        assert (said["bbox_scale"].string_value, said["bbox_offset"].string_value) == ("35.0", "0.5")
    assert "bbox_scale" not in messages(artifact)["street_4"].parameters
