"""What a dead run left is removed only if it is what that run published."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tao2serve.config import Settings
from tao2serve.identity import holder
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving import undeploy
from tao2serve.serving.inventory import Inventory, read_folders
from tao2serve.serving.removal import decide_removal
from tao2serve.serving.state import ServiceState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NETWORK = b"a network"


def record_of(kind: str, **properties: str) -> OperationRecord:
    return OperationRecord(
        task_id="t", kind=kind, endpoint="street", status="failed", created=NOW, last_update=NOW, holder=holder(),
        properties=properties,
    )  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 3, a plain model, and version 4, an ensemble: both left by runs that were killed."""
    for place in ("street_3/1", "street_4_detector/1", "street_4/1", ".street_4_preprocess.ab12cd34/1"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "street_3" / "1" / "model.onnx").write_bytes(NETWORK)
    (tmp_path / "street_4_detector" / "1" / "model.onnx").write_bytes(NETWORK)
    return tmp_path


def remove_all(repository: Path, *more: OperationRecord) -> undeploy.RemovalPlan:
    inventory = Inventory(
        state=ServiceState(),
        operations=[*more, *(record_of("deploy", version=number, model=f"m{number}") for number in "34")],
        folders=read_folders(repository), now=NOW,
    )  # fmt: skip
    plan = decide_removal(inventory, "street", "old")
    return undeploy._proven(plan, inventory, Settings(model_repository=repository))


def test_what_the_run_published_is_removed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network in the folder, or in the ensemble's detector, is that of the ClearML model."""
    monkeypatch.setattr(undeploy, "_published_sha256", lambda _model: hashlib.sha256(NETWORK).hexdigest())
    plan = remove_all(repository)
    assert set(plan.folders) == {path.name for path in repository.iterdir()}
    assert plan.left == ()


def test_another_network_under_the_same_name_is_somebody_elses(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service of another ClearML server may have taken the number that a killed run only meant to."""
    published = {"m3": hashlib.sha256(b"ours").hexdigest(), "m4": hashlib.sha256(NETWORK).hexdigest()}
    monkeypatch.setattr(undeploy, "_published_sha256", published.__getitem__)
    plan = remove_all(repository)
    assert "street_3" not in plan.folders
    assert "street_4_detector" in plan.folders
    assert any("street_3 stays" in reason for reason in plan.left)


def test_what_an_undeploy_set_out_to_remove_needs_no_more_proof(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was registered, so it was ours; its ClearML model may be gone by now."""
    monkeypatch.setattr(undeploy, "_published_sha256", lambda _model: "none")
    plan = remove_all(repository, record_of("undeploy", removing="3"))
    assert "street_3" in plan.folders
    assert "street_4" not in plan.folders
