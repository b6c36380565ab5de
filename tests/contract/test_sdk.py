"""The real ClearML SDK against the sandbox server: what it writes, another process reads back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration

PROJECT = "Contract/TAO runs"
Flow = Callable[..., dict[str, Any]]


@pytest.fixture
def trained(flow: Flow, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A finished training run in a project of the test's own."""
    project = f"{PROJECT}/{request.node.name}"
    return {**flow("train.py", project, str(tmp_path)), "project": project}


def test_what_the_sdk_writes_it_reads_back(trained: dict[str, Any], flow: Flow) -> None:
    """Parameters, configuration, scalars, plots, artifacts, models and queries survive the round trip."""
    found = flow("read_back.py", trained["project"], trained["task"], trained["model"])
    assert trained["imported_once"]
    assert found["status"] == "completed"
    assert found["same_by_name"]
    assert found["unknown"]
    assert found["parameters"]["General/lr"] == "0.1"
    assert found["parameters"]["General/nested/a"] == "True"
    assert "random_seed" in found["spec"]
    assert found["text"] == "a: 1\nb: 2\n"
    curve = found["scalars"]["loss"]["train"]
    assert curve["x"] == [0, 1, 2, 3, 4]
    assert curve["y"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert found["single"] == {"mAP": 0.75}
    assert "hello from training" in found["log"]
    assert found["table"] == [["car"], [3]]
    assert found["plots"] == [[2, [1, 2]]]
    assert found["more_plots"] == [[2, [1, 2]], [1, [1, 1]]]
    assert found["images"] == [[2, [8, 8], 160], [1, [8, 8], 80]]
    assert found["last_metrics"]["loss"]["train"]["last"] == pytest.approx(0.2)
    assert found["last_iteration"] == 4
    assert found["artifact"] == {"mAP": 0.75}
    assert found["folder"] == ["inner", "labels.txt", "model.onnx"]
    assert found["properties"]["board"] == "nano"
    assert found["inputs"] == ["local file"]


def test_models_keep_weights_labels_metadata_and_answer_queries(trained: dict[str, Any], flow: Flow) -> None:
    """Weights and folder packages download as they were; tags, metadata and `published` select models."""
    found = flow("read_back.py", trained["project"], trained["task"], trained["model"])
    assert found["outputs"] == ["detector", "package"]
    assert found["weights_size"] == 256 * 8000
    assert found["package"] == ["inner", "labels.txt", "model.onnx"]
    assert found["labels"] == {"car": 1}
    assert found["metadata"] == {"epoch": 120}
    assert found["published"] is True
    assert found["tags_any"] == ["detector"]
    assert found["tags_all"] == []
    assert found["tags_not"] == ["local file", "package"]
    assert found["only_published"] == ["detector"]
    assert found["by_metadata"] == ["detector"]
    assert found["tasks_by_tag"] == [trained["task"]]
    assert found["tasks_not_tag"] == []
    assert found["tasks_by_status"] == [trained["task"]]


def test_lifecycle_with_the_sdk(trained: dict[str, Any], flow: Flow, server: Any) -> None:
    """Clone, queue, stop, publish, archive and delete move tasks and models as the SDK expects."""
    seen = flow("lifecycle.py", trained["project"], trained["task"], trained["model"])
    assert seen == {
        "clone": ["created", True, True],
        "queued": "queued",
        "dequeued": "created",
        "stopped": "stopped",
        "published": "published",
        "archived": True,
        "listed_after_archive": [],
        "listed_after_unarchive": [True],
        "removed": True,
        "deleted": [False, True],  # the SDK does not delete published tasks
        "gone": True,
    }
    assert server.call("tasks.get_all", id=[trained["task"]]) == {"tasks": []}


def test_publish_reset_and_delete_with_the_sdk(flow: Flow, server: Any, tmp_path: Path) -> None:
    """Publishing takes the model along and happens once; what is deleted takes its files along, and nothing else."""
    seen = flow("endings.py", f"{PROJECT}/endings", str(tmp_path))
    assert "not stopped" in seen["publish_draft"]
    assert seen["published"] == ["published", True]
    assert "not stopped" in seen["published_again"]
    assert not seen["delete_published"]
    assert not seen["remove_used"]
    assert seen["reset"] == ["created", [], [], {}]
    assert (seen["deleted"], seen["removed_model"]) == (True, True)

    def stored(url: str) -> bool:
        return httpx.get(url, auth=server.keys, timeout=10).status_code == 200

    assert stored(seen["used_is_there"])
    assert [name for name, url in seen["urls"].items() if stored(url)] == []
    assert not stored(seen["removed_model_url"])
    child, parent = seen["orphan"]
    assert server.call("tasks.get_by_id", task=child)["task"]["parent"] == f"__DELETED__{parent}"
    assert seen["kept"] == []
