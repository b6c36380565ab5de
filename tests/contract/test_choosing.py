"""Choosing among trained runs, fetching and uploading weights, through the real SDK and the sandbox server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

FLOWS = Path(__file__).with_name("flows")
PROJECT = "Contract/choosing"
GIVEN = hashlib.sha256(b"the checkpoint of epoch 20" * 1000).hexdigest()


@pytest.fixture(scope="module")
def written(
    shared_server: Any, client_environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The ids of the runs in ClearML, and what came of choosing among them; no call may have found no route."""
    folder = tmp_path_factory.mktemp("choosing")
    environment = {**client_environment, "TAO2SERVE_HOME": str(folder / "home")}

    def run(name: str, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, str(FLOWS / name), PROJECT, str(folder), *arguments]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    shared_server.watch()
    ids = run("tao_runs.py")
    yield ids, run("choose.py", json.dumps(ids))
    shared_server.assert_answered()


@pytest.fixture(scope="module")
def ids(written: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return written[0]


@pytest.fixture(scope="module")
def chosen(written: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return written[1]


@pytest.fixture
def models(chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {model["model_id"]: model for model in chosen["all"]["models"]}


def test_a_model_is_measured_at_its_own_epoch(models: dict[str, dict[str, Any]], ids: dict[str, Any]) -> None:
    """Each checkpoint has the precision of its epoch, not the run's best; an epoch that was not evaluated has none.

    TAO's status.json names the epoch before the evaluation, counted from 0; the final weights are of the last one.
    """
    best, last = (models[identifier] for identifier in ids["unpruned"])
    assert (best["epoch"], best["mean_average_precision"], best["metric_source"]) == (30, 0.9, "status.json")
    assert (last["epoch"], last["mean_average_precision"]) == (40, 0.8)
    final = models[ids["final"]]
    assert (final["epoch"], final["epoch_source"], final["mean_average_precision"]) == (40, "last evaluation", 0.8)
    unmeasured = models[ids["console"][1]]
    assert (unmeasured["epoch"], unmeasured["mean_average_precision"]) == (25, None)
    assert "epoch 25 was not evaluated" in unmeasured["metric_note"]


def test_three_sources_give_the_same_numbers(models: dict[str, dict[str, Any]], ids: dict[str, Any]) -> None:
    """What is in status.json, in scalars by step, and in the console is the same mean and the same classes."""
    scalars, console = models[ids["console"][0]]["readings"]
    assert (scalars["source"], console["source"]) == ("scalars", "console")
    assert scalars["mean_average_precision"] == pytest.approx(0.9, abs=1e-7)
    assert console["mean_average_precision"] == pytest.approx(0.9, abs=1e-7)
    assert scalars["average_precision"] == pytest.approx({"car": 0.95, "person": 0.85}, abs=1e-6)
    assert console["average_precision"] == pytest.approx({"car": 0.95, "person": 0.85}, abs=1e-6)
    assert models[ids["scalars"]]["metric_source"] == "scalars"


def test_sources_at_odds_are_told_of(models: dict[str, dict[str, Any]], ids: dict[str, Any]) -> None:
    """status.json is believed, and what another source says of the same epoch is shown beside it."""
    odds = models[ids["odds"]]
    assert (odds["mean_average_precision"], odds["metric_source"]) == (0.81, "status.json")
    assert "status.json says 0.8100" in odds["metric_note"]
    assert "says 0.8000" in odds["metric_note"]


def test_lineage_says_what_says_so(models: dict[str, dict[str, Any]], ids: dict[str, Any]) -> None:
    """Pruned is what TAO's spec says, tags against it are shown; parent, input model and pretrained file are there."""
    retrained = models[ids["console"][0]]
    assert retrained["pruned"] is True
    assert retrained["lineage"]["load_graph"] is True
    assert retrained["lineage"]["pretrained_model_file"] == "/w/pruned.hdf5"
    assert "against it: tag unpruned" in retrained["lineage"]["evidence"]
    assert retrained["lineage"]["parent_task_id"] == ids["unpruned_task"]
    assert [model["model_id"] for model in retrained["lineage"]["input_models"]] == [ids["final"]]
    assert models[ids["unpruned"][0]]["pruned"] is False
    assert (models[ids["silent"]]["pruned"], models[ids["silent"]]["mean_average_precision"]) == (True, None)


def test_selectors_and_metric(chosen: dict[str, Any], ids: dict[str, Any]) -> None:
    """Tags and task names select; the best is best at the metric that was asked for, and the sentence says why.

    TAO's hook tags the run, not its models; an upload is selected as what it stands for.
    """
    assert sorted(chosen["tagged"]) == sorted([chosen["uploaded"]["model_id"], *ids["console"][1:]])
    assert chosen["named"]
    assert all(name.startswith("unpruned") for name in chosen["named"])
    reason = chosen["all"]["reason"]
    assert "highest mean average precision of 9 models: 0.9000 at epoch 30 (from status.json)" in reason
    assert "average precision for car of 9 models: 0.9500" in chosen["car"]


def test_calls_do_not_grow_with_models(chosen: dict[str, Any]) -> None:
    """Models, tasks, projects and lineage are asked for together; a run costs at most its log and its curves."""
    together = [name for name in chosen["calls"] if not name.startswith("events.")]
    assert len(together) <= 6
    assert len(chosen["calls"]) - len(together) <= 2 * 5


def test_weights_are_fetched_once(chosen: dict[str, Any], ids: dict[str, Any]) -> None:
    """What was fetched is taken from the cache, whose damage is noticed; the hashes are those of the files."""
    best, again, mended = chosen["best"], chosen["again"], chosen["after_damage"]
    assert best["model_id"] == ids["unpruned"][0]
    assert best["sha256"] == best["content"] == again["sha256"] == mended["content"]
    assert best["spec_sha256"] == hashlib.sha256(best["spec"].encode()).hexdigest()
    assert any("of 0.0 MB (100 %)" in line for line in best["news"])
    assert "model.epoch-30.hdf5 was fetched before" in again["news"]
    assert any("of 0.0 MB (100 %)" in line for line in mended["news"])


def test_never_uploaded_has_two_remedies(chosen: dict[str, Any]) -> None:
    """A path of the training container ends in exit code 3 with both remedies."""
    error = chosen["never_uploaded"]
    assert error["exit_code"] == 3
    assert "/workspace/tao-experiments/run/weights/model.epoch-20.hdf5" in error["evidence"]
    assert "CLEARML_DEFAULT_OUTPUT_URI" in error["hint"]
    assert "--weights FILE" in error["hint"]


def test_given_weights_are_uploaded_once(chosen: dict[str, Any], ids: dict[str, Any], shared_server: Any) -> None:
    """Without `upload` nothing changes; with it the file is in ClearML, once, with its lineage, and can be fetched."""
    registered = ids["console"][0]
    assert chosen["planned"]["model_id"] == registered
    first, second = chosen["uploaded"], chosen["uploaded_again"]
    assert first["fetchable"]
    assert first["model_id"] == second["model_id"] != registered
    assert "ClearML has these weights" in second["news"]
    assert chosen["later"]["content"] == chosen["task"]["content"] == GIVEN
    (model,) = shared_server.call("models.get_all", id=[first["model_id"]])["models"]
    said = {key: item["value"] for key, item in model["metadata"].items()}
    assert said["sha256"] == GIVEN
    assert said["epoch"] == "20"
    assert said["original_uri"] == "file:///workspace/tao-experiments/run/weights/model.epoch-20.hdf5"
    assert (model["framework"], model["name"]) == ("Keras", "model.epoch-20")
    (task,) = shared_server.call("tasks.get_all", id=[model["task"]])["tasks"]
    assert (task["parent"], task["status"]) == (ids["console_task"], "completed")
    assert task["tags"] == ["street", "unpruned"]
    assert [item["model"] for item in task["models"]["input"]] == [registered]
    assert len(shared_server.call("models.get_all", **{"metadata.sha256.value": [GIVEN]})["models"]) == 1


def test_an_upload_stands_in_the_place_of_the_path(chosen: dict[str, Any], ids: dict[str, Any]) -> None:
    """Afterwards the list has the uploaded model with the run's metric and lineage, and no longer the path."""
    after = {model["model_id"]: model for model in chosen["afterwards"]["models"]}
    uploaded = after[chosen["uploaded"]["model_id"]]
    assert ids["console"][0] not in after
    assert len(after) == len(chosen["all"]["models"])
    assert uploaded["task_id"] == ids["console_task"]
    assert (uploaded["epoch"], uploaded["mean_average_precision"], uploaded["fetchable"]) == (20, 0.9, True)
    assert uploaded["registered_model_id"] == ids["console"][0]
    assert uploaded["best"]  # of equals the pruned one, now that it can be fetched


@pytest.mark.parametrize("damage", ["short", "other"])
def test_damaged_downloads_leave_nothing(chosen: dict[str, Any], damage: str) -> None:
    """A file that is cut off, or is not the one ClearML recorded, is exit code 5, and nothing of it is kept."""
    assert chosen[damage]["exit_code"] == 5
    assert chosen[damage]["kept"]


def test_a_broken_connection_is_tried_again(chosen: dict[str, Any]) -> None:
    """A download that breaks off begins anew, and is whole."""
    assert chosen["once"]["content"] == hashlib.sha256(bytes(100_000)).hexdigest()
    assert "model.hdf5 did not arrive whole, fetching it again" in chosen["once"]["news"]
