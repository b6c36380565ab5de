"""Whose folders and models are: those of a service that made them, proven where nothing registers them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tao2serve.errors import InputError
from tao2serve.identity import holder
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving import ownership
from tao2serve.serving.inventory import Inventory, read_folders, read_model_name
from tao2serve.serving.ownership import mark_of
from tao2serve.serving.removal import RemovalPlan, decide_removal
from tao2serve.serving.state import ServiceState
from tao2serve.triton.config import ModelConfig
from tao2serve.triton.models import ModelFolder
from tao2serve.triton.repository import remove_models, write_models

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NETWORK = b"a network"
MARK = "0123abcd"


def record_of(kind: str, **properties: str) -> OperationRecord:
    return OperationRecord(
        task_id="t", kind=kind, endpoint="street", status="failed", created=NOW, last_update=NOW, holder=holder(),
        properties=properties,
    )  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 3, a plain model, and version 4, an ensemble: both left by runs that were killed."""
    for place in ("street_3/1", "street_4_detector/1", "street_4/1", f".street_4_preprocess.of-{MARK}.ab12cd34/1"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "street_3" / "1" / "model.onnx").write_bytes(NETWORK)
    (tmp_path / "street_4_detector" / "1" / "model.onnx").write_bytes(NETWORK)
    return tmp_path


def inventory_of(repository: Path, *more: OperationRecord) -> Inventory:
    inventory = Inventory(
        state=ServiceState(),
        operations=[*more, *(record_of("deploy", version=number, model=f"m{number}") for number in "34")],
        folders=read_folders(repository), mark=MARK, now=NOW,
    )  # fmt: skip
    return ownership.with_proof(inventory, repository)


def with_mark(inventory: Inventory, mark: str) -> Inventory:
    return replace(inventory, mark=mark)


def remove_all(repository: Path) -> RemovalPlan:
    return decide_removal(inventory_of(repository), "street", "old")


def test_what_the_run_published_is_removed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network in the folder, or in the ensemble's detector, is that of the ClearML model."""
    monkeypatch.setattr(ownership, "_published_sha256", lambda _model: hashlib.sha256(NETWORK).hexdigest())
    plan = remove_all(repository)
    assert set(plan.folders) == {path.name for path in repository.iterdir()}
    assert plan.left == ()


def test_another_network_under_the_same_name_is_somebody_elses(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service of another ClearML server may have taken the number that a killed run only meant to."""
    published = {"m3": hashlib.sha256(b"ours").hexdigest(), "m4": hashlib.sha256(NETWORK).hexdigest()}
    monkeypatch.setattr(ownership, "_published_sha256", published.__getitem__)
    plan = remove_all(repository)
    assert "street_3" not in plan.folders
    assert "street_4_detector" in plan.folders
    assert any("street_3 stays" in reason for reason in plan.left)


def test_a_number_that_was_once_undeployed_here_is_proven_like_any_other(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its folder is gone, a service of another ClearML server may take that number: its model serves."""
    monkeypatch.setattr(ownership, "_published_sha256", lambda _model: hashlib.sha256(b"ours").hexdigest())
    undeployed = replace(record_of("undeploy", removing="3"), status="completed")
    inventory = inventory_of(repository, undeployed)
    with pytest.raises(InputError, match="left nothing behind"):
        decide_removal(with_mark(inventory, ""), "street", "all")
    assert [name.text for name in inventory.orphans()] == [".street_4_preprocess.of-0123abcd.ab12cd34"]
    assert {"street_3", "street_4", "street_4_detector"} <= {name.text for name in inventory.strangers()}


def test_only_the_service_that_is_writing_removes_what_it_has_half_written(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hidden folder of another service may be filled this moment; its name says whose it is, doomed or staged."""
    monkeypatch.setattr(ownership, "_published_sha256", lambda _model: hashlib.sha256(NETWORK).hexdigest())
    theirs = (
        ".street_3.of-ffffffff.ab12cd34",
        "..street_3.of-ffffffff.ab12cd34.of-ffffffff.ab12cd34",
        ".street_3.ab12cd34",
    )
    for name in theirs:
        (repository / name).mkdir()
    plan = decide_removal(inventory_of(repository), "street", "all")
    assert ".street_4_preprocess.of-0123abcd.ab12cd34" in plan.folders
    assert not set(theirs) & set(plan.folders)
    assert "street_3" in plan.folders


def test_folders_are_staged_and_doomed_under_the_mark_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen in the repository while a set of models is written, and while it is removed."""
    seen: set[str] = set()

    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.update(path.name for path in tmp_path.iterdir() if path.name.startswith("."))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    model = ModelFolder(
        config=ModelConfig(name="street_3", backend="ensemble", inputs=(), outputs=()), files={"1/README": b"x"}
    )
    mark = mark_of("a service")
    written = write_models([model], repository=tmp_path, mark=mark)
    remove_models(written, mark=mark)
    names = [read_model_name(text) for text in seen]
    assert len(names) == 2
    assert [(name.endpoint, name.version, name.mark) for name in names if name] == [("street", 3, mark)] * 2
    assert list(tmp_path.iterdir()) == []
    assert mark_of("another service") != mark
