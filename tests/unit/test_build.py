"""`build` without a server: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tao2serve.build import BuildRequest, build
from tao2serve.config import Settings
from tao2serve.errors import InputError, UsageError
from tao2serve.registry.source import Source
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.steps import Steps
from tao2serve.triton.config import parse_config

PRUNED = SAMPLE / "pruned"


@pytest.fixture
def request_of(tmp_path: Path) -> BuildRequest:
    (weights,) = (PRUNED / "weights").glob("*.hdf5")
    return BuildRequest(source=Source(text=str(weights)), name="street", repository=tmp_path / "repository")


@pytest.fixture
def without_spec(tmp_path: Path) -> Source:
    """Weights that lie by themselves."""
    (weights,) = (PRUNED / "weights").glob("*.hdf5")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    return Source(text=str(shutil.copy(weights, folder / "model.hdf5")))


def test_the_document_names_models_artifact_and_steps(request_of: BuildRequest) -> None:
    """Each model with name, version, path, backend and whether it is new; the one to ask comes last."""
    document = build(request_of, Settings(placement="ensemble"), steps=Steps()).to_dict()
    assert set(document) == {"outcome", "models", "artifact", "placement", "steps"}
    assert [model["name"] for model in document["models"]][-1] == "street"
    for model in document["models"]:
        assert set(model) == {"name", "version", "path", "backend", "created"}
        assert (model["version"], model["created"]) == ("1", True)
        assert Path(model["path"], "config.pbtxt").is_file()
    assert document["artifact"]["precision"] == "fp32"
    assert [step["name"] for step in document["steps"]][-1] == "write the Triton models"
    again = build(request_of, Settings(placement="ensemble"), steps=Steps()).to_dict()
    assert not any(model["created"] for model in again["models"])


def test_nothing_lies_beside_the_models(request_of: BuildRequest) -> None:
    """No staging folder is left, and the repository is readable by others than who wrote it."""
    build(request_of, Settings(), steps=Steps())
    (folder,) = request_of.repository.iterdir()
    assert folder.name == "street"
    assert folder.stat().st_mode & 0o055 == 0o055


def test_settings_reach_the_configuration(request_of: BuildRequest) -> None:
    """What is set for a deployment holds for what is built too."""
    build(request_of, Settings(max_batch_size=3, instances=2, warmup=False), steps=Steps())
    path = request_of.repository / "street" / "config.pbtxt"
    message = parse_config(path.read_text(), source=path)
    assert (message.max_batch_size, message.instance_group[0].count, len(message.model_warmup)) == (3, 2, 0)


def test_a_network_alone_needs_no_spec(request_of: BuildRequest, without_spec: Source) -> None:
    """Tensors in, tensors out; only who clusters boxes must know how, and says so before the work."""
    request = BuildRequest(source=without_spec, name="street", repository=request_of.repository)
    assert build(request, Settings(), steps=Steps()).models[-1].created
    with pytest.raises(InputError, match="no experiment spec"):
        build(request, Settings(placement="ensemble"), steps=Steps())


@pytest.mark.parametrize("name", ["people_4", "4people", "a-b", ""])
def test_names_are_those_of_endpoints(request_of: BuildRequest, name: str) -> None:
    """`people_4` would be a version of `people`; nothing is written."""
    request = BuildRequest(source=request_of.source, name=name, repository=request_of.repository)
    with pytest.raises(UsageError):
        build(request, Settings(), steps=Steps())
    assert not request_of.repository.exists()


def test_a_folder_that_triton_cannot_work_in_is_refused(request_of: BuildRequest, tmp_path: Path) -> None:
    """A space in the path would hang Triton's python backend; nothing is written."""
    request = BuildRequest(source=request_of.source, name="street", repository=tmp_path / "my models")
    with pytest.raises(UsageError, match="no folder for Triton"):
        build(request, Settings(), steps=Steps())
    assert not request.repository.exists()
