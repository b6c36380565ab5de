"""Errors about what was fetched name ClearML's model and task, not the temporary files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tao2serve.artifacts import make_artifacts
from tao2serve.config import Settings
from tao2serve.deployment.inputs import choose
from tao2serve.deployment.request import DeployRequest
from tao2serve.errors import InputError, ToolError
from tao2serve.registry import source as sources
from tao2serve.registry.naming import named_as_known
from tao2serve.registry.source import Source, resolve
from tao2serve.registry.trained import BestModel
from tao2serve.sandbox.samples import SAMPLE, pictures
from tao2serve.steps import Steps
from tao2serve.tao.reading import read_experiment
from tao2serve.values import TrainedModel

pytestmark = pytest.mark.skipif(not pictures(), reason="the sample is not there")
WEIGHTS = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"), Path("missing"))
SPEC = SAMPLE / "pruned" / "experiment_spec.txt"
TRAINED = TrainedModel(
    model_id="m0", name="street", task_id="t0", task_name="train", project="p", tags=(), uri=f"http://x/{WEIGHTS.name}",
    fetchable=True,
)  # fmt: skip


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A model of ClearML's, and the text of its run's spec."""
    texts = {"spec": SPEC.read_text()}

    def fetch_weights(_trained: TrainedModel, *, directory: Path, **_others: object) -> Path:
        directory.mkdir(exist_ok=True)
        return Path(shutil.copy(WEIGHTS, directory))

    def fetch_spec(_trained: TrainedModel, *, directory: Path) -> Path:
        (directory / "experiment_spec.txt").write_text(texts["spec"])
        return directory / "experiment_spec.txt"

    monkeypatch.setattr(sources, "find_trained_model", lambda *_, **__: BestModel(model=TRAINED, reason="given"))
    monkeypatch.setattr(sources, "fetch_weights", fetch_weights)
    monkeypatch.setattr(sources, "fetch_spec", fetch_spec)
    return texts


@pytest.mark.parametrize("given", [True, False])
def test_a_spec_of_another_model_is_named_as_its_user_knows_it(
    tracked: dict[str, str], tmp_path: Path, given: bool
) -> None:
    """The weights by their ClearML model; the spec by the path that was given, else by its ClearML task."""
    wrong = SPEC.read_text().replace("output_image_width: 384", "output_image_width: 640")
    (tmp_path / "mine.txt").write_text(wrong)
    tracked["spec"] = wrong
    folder = tmp_path / "temporary"
    resolved = resolve(Source(text="m0", spec=tmp_path / "mine.txt" if given else None), directory=folder)
    request = DeployRequest(source=Source(), endpoint="e").artifacts
    with pytest.raises(InputError) as caught, named_as_known(resolved, made=folder / "made"):
        make_artifacts(
            resolved.weights, read_experiment(resolved.experiment_spec), request, Settings(), folder=folder / "made",
            steps=Steps(),
        )  # fmt: skip
    spec = str(tmp_path / "mine.txt") if given else "experiment_spec.txt of ClearML task t0"
    assert str(caught.value) == (f"{WEIGHTS.name} of ClearML model m0: does not belong to the experiment spec {spec}")
    assert caught.value.subject == f"{WEIGHTS.name} of ClearML model m0"


def test_a_spec_in_clearml_that_cannot_be_read_is_named_by_its_task(tracked: dict[str, str], tmp_path: Path) -> None:
    """`deploy` says whose spec is wrong, not where it lay for a second."""
    tracked["spec"] = "dataset_config { nonsense"
    with pytest.raises(InputError) as caught:
        choose(DeployRequest(source=Source(text="m0"), endpoint="e"), Settings(), folder=tmp_path / "temporary")
    assert caught.value.subject == "experiment_spec.txt of ClearML task t0"
    assert "temporary" not in f"{caught.value} {caught.value.evidence}"


def test_what_was_made_is_named_by_its_file_and_a_full_folder_by_its_place(
    tracked: dict[str, str], tmp_path: Path
) -> None:
    """Where there is no room is what the user must know; where an artifact lies for a while is not."""
    resolved = resolve(Source(text="m0"), directory=tmp_path)
    with pytest.raises(InputError) as caught, named_as_known(resolved, made=tmp_path / "made"):
        raise InputError(str(tmp_path / "made" / "street.onnx"), "is bad", evidence=f"read {tmp_path}/made/street.onnx")
    assert (caught.value.subject, caught.value.evidence) == ("street.onnx", "read street.onnx")
    with pytest.raises(ToolError) as full, named_as_known(resolved, made=tmp_path / "made"):
        raise ToolError(str(tmp_path / "made"), "is full", evidence=f"of {tmp_path / 'made' / 'street.onnx'}")
    assert full.value.subject == str(tmp_path / "made")
