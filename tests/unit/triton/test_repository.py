"""A model repository never shows a partial model and never changes one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tao2serve import runtime
from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError
from tao2serve.triton.config import ModelConfig, parse_config, render_config
from tao2serve.triton.repository import check_model, last_version, remove_model, write_model
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

SIGNATURE = ModelSignature(
    input=Tensor(name="input_1:0", datatype="FP32", shape=(3, 192, 320)),
    coverage=Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(2, 12, 20)),
    bbox=Tensor(name="output_bbox/BiasAdd:0", datatype="FP32", shape=(8, 12, 20)),
)
CONFIG = ModelConfig(name="street_1", signature=SIGNATURE, max_batch_size=4, instances=2, intra_op_threads=1)


@pytest.fixture
def artifact(tmp_path: Path) -> ModelArtifact:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    return ModelArtifact(format="onnx", path=path, sha256="0", precision="fp32", signature=SIGNATURE, source_sha256="1")


def test_config_says_what_was_asked() -> None:
    """Names, shapes, batching, instances and threads come back from Triton's own parser."""
    message = parse_config(render_config(CONFIG), source=Path("config.pbtxt"))
    assert (message.name, message.backend, message.max_batch_size) == ("street_1", "python", 4)
    assert [tuple(tensor.dims) for tensor in (*message.input, *message.output)] == [
        (3, 192, 320),
        (2, 12, 20),
        (8, 12, 20),
    ]
    assert [tensor.name for tensor in message.output] == ["output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"]
    assert message.instance_group[0].count == 2
    assert message.parameters["intra_op_threads"].string_value == "1"
    assert message.HasField("dynamic_batching")


def test_a_plan_runs_on_tensorrt(artifact: ModelArtifact, tmp_path: Path) -> None:
    """A plan has Triton's own backend, a GPU, and lies there alone; the precision is said to whoever asks."""
    plan = dataclasses.replace(artifact, format="tensorrt_plan", precision="fp16")
    config = ModelConfig.of(Settings(), name="street_2", artifact=plan)
    model = write_model(plan, config, repository=tmp_path / "repository")
    message = parse_config((model.path / "config.pbtxt").read_text(), source=Path("config.pbtxt"))
    assert (message.backend, message.instance_group[0].Kind.Name(message.instance_group[0].kind)) == (
        "tensorrt",
        "KIND_GPU",
    )
    assert message.parameters["precision"].string_value == "fp16"
    assert [path.name for path in (model.path / "1").iterdir()] == ["model.plan"]
    check_model(model.path, name="street_2")


def test_written_model_is_whole(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Configuration, the runtime's own model code and the ONNX file lie where Triton looks, and nothing besides."""
    model = write_model(artifact, CONFIG, repository=tmp_path / "repository")
    files = sorted(path.relative_to(model.path).as_posix() for path in model.path.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "1/model.py", "config.pbtxt"]
    assert (model.path / "1/model.py").read_text() == Path(runtime.__file__).with_name("triton_model.py").read_text()
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["street_1"]
    check_model(model.path, name="street_1")


def test_weights_beside_the_onnx_file_travel_with_it(artifact: ModelArtifact, tmp_path: Path) -> None:
    """ONNX external data keeps its name relative to the model file."""
    weights = tmp_path / "weights" / "model.data"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    model = write_model(
        dataclasses.replace(artifact, companions=(weights,)), CONFIG, repository=tmp_path / "repository"
    )
    assert (model.path / "1" / "weights" / "model.data").read_bytes() == b"weights"


def test_same_content_again_is_accepted_other_content_refused(artifact: ModelArtifact, tmp_path: Path) -> None:
    """A model that is there is never rewritten: equal is fine, different is an error that changes nothing."""
    repository = tmp_path / "repository"
    first = write_model(artifact, CONFIG, repository=repository)
    assert first.created
    before = (first.path / "1/model.onnx").stat().st_mtime_ns
    (first.path / "1/__pycache__").mkdir()
    (first.path / "1/__pycache__/model.pyc").write_bytes(b"left by Triton")
    assert not write_model(artifact, CONFIG, repository=repository).created
    artifact.path.write_bytes(b"other")
    with pytest.raises(InputError, match="never rewritten"):
        write_model(artifact, CONFIG, repository=repository)
    assert (first.path / "1/model.onnx").stat().st_mtime_ns == before
    assert [path.name for path in repository.iterdir()] == ["street_1"]


def test_a_failure_leaves_no_trace(artifact: ModelArtifact, tmp_path: Path) -> None:
    """When the artifact is empty, nothing of the model appears."""
    artifact.path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no 1/model\.onnx"):
        write_model(artifact, CONFIG, repository=tmp_path / "repository")
    assert not list((tmp_path / "repository").iterdir())


@pytest.mark.parametrize("missing", ["config.pbtxt", "1/model.py", "1/model.onnx"])
def test_check_names_what_is_missing(artifact: ModelArtifact, tmp_path: Path, missing: str) -> None:
    """A missing file, which can hang Triton for good, is found first."""
    model = write_model(artifact, CONFIG, repository=tmp_path / "repository")
    (model.path / missing).unlink()
    with pytest.raises(InputError, match=missing):
        check_model(model.path, name="street_1")


def test_check_finds_a_damaged_or_foreign_configuration(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Text that is no configuration, and one of another model, are named with their place."""
    model = write_model(artifact, CONFIG, repository=tmp_path / "repository")
    with pytest.raises(InputError, match="is named 'street_1'"):
        check_model(model.path, name="street_2")
    (model.path / "config.pbtxt").write_text("name: {")
    with pytest.raises(InputError, match="no Triton model configuration"):
        check_model(model.path, name="street_1")


def test_the_last_version_counts_folders_of_this_endpoint_only(tmp_path: Path) -> None:
    """Numbers already in the repository are not used again, whoever wrote them."""
    assert last_version("street", repository=tmp_path / "missing") == 0
    for name in ("street_2", "street_10", "street_x", "my_street_40", ".street_50.abc", "streets_60"):
        (tmp_path / name).mkdir()
    assert last_version("street", repository=tmp_path) == 10


def test_a_repository_that_cannot_be_written_is_named(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Exit 5 with the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="cannot be written"):
        write_model(artifact, CONFIG, repository=tmp_path / "file" / "repository")


def test_remove_takes_one_model_away(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Only the named folder goes; a name that leads elsewhere, or is not there, does nothing."""
    repository = tmp_path / "repository"
    write_model(artifact, CONFIG, repository=repository)
    for name in ("../repository", "street_9", ""):
        remove_model(name, repository=repository)
    assert [path.name for path in repository.iterdir()] == ["street_1"]
    remove_model("street_1", repository=repository)
    assert not list(repository.iterdir())
