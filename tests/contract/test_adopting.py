"""Adopting results folders, through the real SDK and the sandbox server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

TESTS = Path(__file__).resolve().parents[1]
PROJECT = "Contract/adopting runs"  # a space, as people have them


@pytest.fixture(scope="module")
def told(
    shared_server: Any, client_environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What came of adopting folders one after the other; no call may have found no route."""
    folder = tmp_path_factory.mktemp("adopting")
    environment = {**client_environment, "TAO2SERVE_HOME": str(folder / "home")}
    command = [sys.executable, str(TESTS / "contract" / "flows" / "adopt.py"), PROJECT, str(folder), str(TESTS)]
    shared_server.watch()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    shared_server.assert_answered()
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def test_a_plan_changes_nothing(told: dict[str, Any]) -> None:
    """A plan names files, sizes and what they would become, and makes neither task nor project."""
    planned = told["planned"]
    assert (planned["outcome"], planned["task_id"], planned["added"]) == ("planned", None, None)
    assert planned["upload_bytes"] == sum(model["bytes"] for model in planned["models"] if model["upload"]) > 1e6
    assert told["planned_project"] == []


def test_a_run_is_adopted_as_tao_would_have_tracked_it(told: dict[str, Any]) -> None:
    """The task is a completed training with the spec, the labels, the command, the curves and status.json."""
    task = told["task"]
    assert (task["type"], task["status"], task["name"]) == ("training", "completed", "street_23/26/11_08:38:40")
    assert "model_config" in task["configuration"]["experiment_spec"]["value"]
    assert task["execution"]["model_labels"] == {"car": 0, "person": 1, "road_sign": 2}
    assert [artifact["key"] for artifact in task["execution"]["artifacts"]] == ["status.json"]
    properties = {name: item["value"] for name, item in task["hyperparams"]["properties"].items()}
    assert properties["training_command"].startswith("detectnet_v2 train -e ")
    assert (properties["training_begun"], properties["tao_status"]) == ("2026-11-23 08:38:40", "SUCCESS")
    assert "Adopted by tao2serve" in task["comment"]
    assert told["curves"]["car_AP (in %)"]["x"] == list(range(2, 17, 2))
    assert told["curves"]["mean average precision (mAP) (in %)"]["y"][-1] == pytest.approx(0.995659)
    assert {"total_cost", "learning_rate", "validation_cost", "person_AP (in %)"} <= told["curves"].keys()


def test_no_key_leaves_the_machine(told: dict[str, Any]) -> None:
    """The console log goes to ClearML without the key that a command line in it shows."""
    printed = "\n".join(event["msg"] for event in told["log"]["events"])
    assert "Mean average_precision" in printed
    assert "-k *** -r out" in printed
    assert "tlt_secret" not in printed


def test_each_checkpoint_has_its_own_epoch(told: dict[str, Any]) -> None:
    """Models are uploaded, known by their SHA-256, each with epoch and mAP of its own; all sources agree."""
    adopted = [model for model in told["models"] if model["task_id"] == told["first"]["task_id"]]
    by_name = {model["name"]: model for model in adopted}
    assert by_name.keys() == {"model.epoch-8", "model.epoch-14", "resnet10_street"}
    assert by_name["model.epoch-8"]["epoch"] == 8
    assert by_name["resnet10_street"]["epoch"] == 16
    for model in adopted:
        assert model["fetchable"], model
        assert len(model["sha256"]) == 64
        assert model["tags"] == ["street"]
        assert [reading["source"] for reading in model["readings"]] == ["status.json", "scalars", "console"]
        assert model["metric_note"] == ""


def test_a_run_that_tao_tracked_by_path_is_rescued(told: dict[str, Any]) -> None:
    """The model that TAO registered by a path of its container is answered by the one that was uploaded for it."""
    assert told["first"]["tracked_by_tao_as"] == told["hook"]["task_id"]
    assert told["hook"]["model_id"] not in [model["model_id"] for model in told["models"]]
    found = told["by_old_id"]
    assert found["registered_model_id"] == told["hook"]["model_id"]
    assert (found["fetchable"], found["mean_average_precision"]) == (True, pytest.approx(0.995659))


def test_again_changes_nothing(told: dict[str, Any]) -> None:
    """A second run of the same command makes no call that writes."""
    assert (told["again"]["outcome"], told["again"]["task_id"]) == ("unchanged", told["first"]["task_id"])
    assert told["again_writes"] == []
    assert (told["retrained_again"]["outcome"], told["retrained_writes"]) == ("unchanged", [])
    assert "models.create" in told["grown_writes"]  # what one that adds something does


def test_a_folder_that_has_grown_is_gone_on_with(told: dict[str, Any]) -> None:
    """A checkpoint that came later is added to the same task, and nothing else is sent."""
    assert told["grown"]["task_id"] == told["first"]["task_id"]
    assert told["grown"]["added"] == ["model.epoch-16.hdf5"]
    assert told["grown_task"]["status"] == "completed"
    assert len(told["grown_task"]["models"]["output"]) == 4
    kept = {model["path"]: model["model_id"] for model in told["first"]["models"]}
    assert kept.items() <= {model["path"]: model["model_id"] for model in told["grown"]["models"]}.items()


def test_a_tag_alone_is_something_new(told: dict[str, Any]) -> None:
    """It is written, and said: such a run is not called unchanged."""
    assert (told["tagged"]["outcome"], told["tagged"]["added"]) == ("ok", ["tags"])
    assert {"street", "later"} <= {*told["tagged_task"]["tags"]}
    assert told["tagged_task"]["status"] == "completed"


def test_lineage_is_found_by_content_before_names(told: dict[str, Any]) -> None:
    """The pretrained file's SHA-256 tells, then its filters, then its name; which of them it was is said."""
    unpruned = next(m["model_id"] for m in told["grown"]["models"] if m["path"].endswith("resnet10_street.hdf5"))
    for case, how in (("by_content", "SHA-256"), ("by_filters", "first convolution"), ("by_name", "name alone")):
        made_from = told[case]["made_from"]
        assert how in made_from["how"], case
        assert made_from["task_id"] == told["first"]["task_id"], case
    assert told["by_content"]["made_from"]["model_id"] == unpruned
    assert told["retrained"]["parent"]["id"] == told["first"]["task_id"]
    assert [item["model"]["id"] for item in told["retrained"]["models"]["input"]] == [unpruned]


def test_without_status_json_the_console_tells(told: dict[str, Any]) -> None:
    """Without status.json the precisions are those of the log that is given; without either, that is said."""
    assert any("ClearML will know no mAP" in note for note in told["silent"]["notes"])
    assert told["silent"]["models"][0]["mean_average_precision"] is None
    (model,) = told["console_models"]
    assert (model["epoch"], model["metric_source"]) == (16, "scalars")
    assert model["mean_average_precision"] == pytest.approx(0.995659, abs=2e-6)


def test_a_training_that_did_not_end_is_stopped(told: dict[str, Any]) -> None:
    """A status.json that does not end with SUCCESS makes no completed task."""
    assert told["broken_task"]["status"] == "stopped"
    assert any("does not end with SUCCESS" in note for note in told["broken"]["notes"])


def test_what_cannot_take_it_is_refused(told: dict[str, Any]) -> None:
    """A published task and a storage that is only a folder of this machine end it with exit code 5, and say why."""
    assert told["published"]["exit_code"] == 5
    assert told["published"]["error"]["fact"] == "is published, and takes nothing more"
    assert told["by_path"]["exit_code"] == 5
    assert "only a folder of this machine" in told["by_path"]["error"]["fact"]


def test_where_it_goes_is_told_without_a_password(told: dict[str, Any]) -> None:
    """Plans are pasted into tickets."""
    assert told["to_bucket"]["storage"] == "s3://***@minio:9000/models"
    assert "hidden" not in str(told["to_bucket"])


def test_odd_names_are_uploaded_and_found_again(told: dict[str, Any]) -> None:
    """Umlauts, spaces, slashes, and what has a meaning in a URL, in project, task, folder and file."""
    assert told["odd"]["outcome"] == "ok"
    (model,) = told["odd_models"]
    assert (model["name"], model["fetchable"]) == ("modell ü:1 #2%20?", True)
    assert model["uri"].endswith("_2_20_.hdf5")
