"""A model repository never shows a partial model and never changes one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError
from tao2serve.runtime import DetectorParams
from tao2serve.triton import repository as module
from tao2serve.triton.models import ModelFolder, models_of
from tao2serve.triton.repository import check_model, last_version, remove_models, write_models
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

SIGNATURE = ModelSignature(
    input=Tensor(name="input_1:0", datatype="FP32", shape=(3, 192, 320)),
    coverage=Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(2, 12, 20)),
    bbox=Tensor(name="output_bbox/BiasAdd:0", datatype="FP32", shape=(8, 12, 20)),
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
NAMES = ["street_1", "street_1_detector", "street_1_postprocess", "street_1_preprocess"]


@pytest.fixture
def artifact(tmp_path: Path) -> ModelArtifact:
    path = tmp_path / "made" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"onnx")
    return ModelArtifact(format="onnx", path=path, sha256="0", precision="fp32", signature=SIGNATURE, source_sha256="1")


def alone(artifact: ModelArtifact, name: str = "street_1") -> tuple[ModelFolder, ...]:
    return models_of(artifact, None, Settings(), name=name)


def whole(artifact: ModelArtifact, name: str = "street_1") -> tuple[ModelFolder, ...]:
    return models_of(artifact, PARAMS, Settings(placement="ensemble"), name=name)


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_written_model_is_whole(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Configuration, the runtime's own model code and the ONNX file lie where Triton looks, and nothing besides."""
    (model,) = write_models(alone(artifact), repository=tmp_path / "repository")
    assert files_of(tmp_path / "repository") == [
        "street_1/1/model.onnx", "street_1/1/model.py", "street_1/config.pbtxt",
    ]  # fmt: skip
    check_model(model.path, name="street_1")


def test_an_ensemble_is_four_models_and_the_last_one_is_asked(artifact: ModelArtifact, tmp_path: Path) -> None:
    """All four are there and pass the check; the name of the deployment comes last."""
    written = write_models(whole(artifact), repository=tmp_path / "repository")
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == NAMES
    assert written[-1].name == "street_1"
    assert [model.backend for model in written] == ["python", "python", "python", "ensemble"]
    for model in written:
        check_model(model.path, name=model.name)


def test_weights_beside_the_onnx_file_travel_with_it(artifact: ModelArtifact, tmp_path: Path) -> None:
    """ONNX external data keeps its name relative to the model file."""
    weights = artifact.path.parent / "weights" / "model.data"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    models = alone(dataclasses.replace(artifact, companions=(weights,)))
    (model,) = write_models(models, repository=tmp_path / "repository")
    assert (model.path / "1" / "weights" / "model.data").read_bytes() == b"weights"


def test_same_content_again_is_accepted_other_content_refused(artifact: ModelArtifact, tmp_path: Path) -> None:
    """A model that is there is never rewritten: equal is fine, different is an error that changes nothing."""
    repository = tmp_path / "repository"
    (first,) = write_models(alone(artifact), repository=repository)
    assert first.created
    before = (first.path / "1/model.onnx").stat().st_mtime_ns
    (first.path / "1/__pycache__").mkdir()
    (first.path / "1/__pycache__/model.pyc").write_bytes(b"left by Triton")
    assert not write_models(alone(artifact), repository=repository)[0].created
    artifact.path.write_bytes(b"other")
    with pytest.raises(InputError, match="never rewritten"):
        write_models(alone(artifact), repository=repository)
    assert (first.path / "1/model.onnx").stat().st_mtime_ns == before
    assert [path.name for path in repository.iterdir()] == ["street_1"]


def test_one_model_of_a_set_that_differs_refuses_them_all(artifact: ModelArtifact, tmp_path: Path) -> None:
    """A detector of that name with other content: no other model of the set appears."""
    repository = tmp_path / "repository"
    write_models(alone(artifact, "street_1_detector"), repository=repository)
    before = files_of(repository)
    artifact.path.write_bytes(b"other")
    with pytest.raises(InputError, match="street_1_detector is in the repository"):
        write_models(whole(artifact), repository=repository)
    assert files_of(repository) == before


def test_a_failure_leaves_no_trace(artifact: ModelArtifact, tmp_path: Path) -> None:
    """When the artifact is empty, nothing of the models appears."""
    artifact.path.write_bytes(b"")
    for models in (alone(artifact), whole(artifact)):
        with pytest.raises(InputError, match=r"no 1/model\.onnx"):
            write_models(models, repository=tmp_path / "repository")
        assert not list((tmp_path / "repository").iterdir())


def test_a_set_that_stops_halfway_is_taken_away(
    artifact: ModelArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the third folder cannot be put there, the first two go again; what was there before stays."""
    repository = tmp_path / "repository"
    write_models(alone(artifact, "road_1"), repository=repository)
    put = module._put

    def full(staged: Path, target: Path) -> None:
        if target.name.endswith("_postprocess"):
            raise ServiceError("repository", "is full")
        put(staged, target)

    monkeypatch.setattr(module, "_put", full)
    with pytest.raises(ServiceError, match="is full"):
        write_models(whole(artifact), repository=repository)
    assert [path.name for path in repository.iterdir()] == ["road_1"]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("street_1", "config.pbtxt"),
        ("street_1_detector", "1/model.py"),
        ("street_1_detector", "1/model.onnx"),
        ("street_1_preprocess", "1/model.py"),
        ("street_1_postprocess", "1/params.json"),
        ("street_1_preprocess", "1/runtime/__init__.py"),
    ],
)
def test_check_names_what_is_missing(artifact: ModelArtifact, tmp_path: Path, name: str, missing: str) -> None:
    """A missing file, which can hang Triton for good, is found first."""
    write_models(whole(artifact), repository=tmp_path)
    (tmp_path / name / missing).unlink()
    with pytest.raises(InputError, match=missing):
        check_model(tmp_path / name, name=name)


def test_check_finds_a_damaged_or_foreign_configuration(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Text that is no configuration, and one of another model, are named with their place."""
    (model,) = write_models(alone(artifact), repository=tmp_path / "repository")
    with pytest.raises(InputError, match="is named 'street_1'"):
        check_model(model.path, name="street_2")
    (model.path / "config.pbtxt").write_text("name: {")
    with pytest.raises(InputError, match="no Triton model configuration"):
        check_model(model.path, name="street_1")


def test_the_last_version_counts_folders_of_this_endpoint_only(tmp_path: Path) -> None:
    """Numbers already in the repository are not used again, whoever wrote them, not even for half a set."""
    assert last_version("street", repository=tmp_path / "missing") == 0
    for name in ("street_2", "street_10", "street_x", "my_street_40", ".street_50.abc", "streets_60", "street_70_old"):
        (tmp_path / name).mkdir()
    assert last_version("street", repository=tmp_path) == 10
    (tmp_path / "street_12_preprocess").mkdir()
    assert last_version("street", repository=tmp_path) == 12


def test_a_repository_that_cannot_be_written_is_named(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Exit 5 with the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="cannot be written"):
        write_models(alone(artifact), repository=tmp_path / "file" / "repository")


def test_remove_takes_the_set_away(artifact: ModelArtifact, tmp_path: Path) -> None:
    """Only the named folders go; a name that leads elsewhere, or is not there, does nothing."""
    repository = tmp_path / "repository"
    kept = write_models(alone(artifact, "road_1"), repository=repository)
    written = write_models(whole(artifact), repository=repository)
    remove_models([dataclasses.replace(kept[0], name=name) for name in ("../repository", "street_9", "")])
    assert len(list(repository.iterdir())) == 5
    remove_models(written)
    assert [path.name for path in repository.iterdir()] == ["road_1"]
