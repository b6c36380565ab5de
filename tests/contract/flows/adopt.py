"""Adopt results folders with the real SDK, as users do who have nothing else: `adopt.py PROJECT FOLDER TESTS`."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

PROJECT, FOLDER = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, sys.argv[3])

from clearml import OutputModel, Task  # noqa: E402
from results_folders import console, copied, other_content, pruned_from, with_checkpoints  # noqa: E402

from tao2serve.adoption import AdoptionRequest, adopt_results  # noqa: E402
from tao2serve.cli.models import models_document  # noqa: E402
from tao2serve.errors import Tao2ServeError  # noqa: E402
from tao2serve.registry.calls import call  # noqa: E402
from tao2serve.registry.trained import Selectors, find_trained_model, find_trained_models  # noqa: E402
from tao2serve.steps import Steps  # noqa: E402


def adopt(folder: Path, task: str, **more: Any) -> dict[str, Any]:
    """Adopt a folder, or what that ends in."""
    request = AdoptionRequest(**{"folder": folder, "project": PROJECT, "task": task, **more})
    try:
        return adopt_results(request, steps=Steps()).to_dict()
    except Tao2ServeError as error:
        return {"exit_code": error.exit_code, "error": error.to_dict()}


def task_of(document: dict[str, Any]) -> dict[str, Any]:
    (row,) = call("tasks", "get_all_ex", id=[document["task_id"]])["tasks"]
    return row


def models_in(project: str) -> list[dict[str, Any]]:
    found = find_trained_models(Selectors(project=project))
    return models_document(found, None)["models"]


def run_of_the_hook(folder: Path) -> dict[str, str]:
    """The task that TAO's hook made of a run: weights by path, named two minutes after status.json begins."""
    task = Task.create(project_name=PROJECT, task_name="street_23/26/11_08:40:40", task_type="training")
    task.mark_started()
    model = OutputModel(task=task, name="resnet10_street", framework="Keras")
    model.update_weights(register_uri="file:///workspace/street/weights/resnet10_street.hdf5")
    task.flush(wait_for_uploads=True)
    task.mark_completed()
    return {"task_id": str(task.id), "model_id": str(model.id)}


def count_writes(action: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What an action returns, and the calls by which the SDK's session changed something meanwhile."""
    session = Task._get_default_session()
    plain, seen = session._send_request, []

    def watched(service: str, action: str, *args: Any, **options: Any) -> Any:
        seen.append(f"{service}.{action}")
        return plain(service, action, *args, **options)

    session._send_request = watched
    try:
        result = action()
    finally:
        session._send_request = plain
    reads = ("get", "scalar_metrics", "login", "ping", "supported_modes")
    return result, [name for name in seen if not name.partition(".")[2].startswith(reads)]


def main() -> dict[str, Any]:
    told: dict[str, Any] = {}
    unpruned = with_checkpoints(copied("unpruned", FOLDER / "unpruned"), (8, 14))
    (unpruned / "train.log").write_text(f"detectnet_v2 train -e spec.txt -k tlt_secret -r out\n{console(unpruned)}")
    told["hook"] = run_of_the_hook(unpruned)
    told["before"] = call("tasks", "get_all", only_fields=["id"], project=[], name="^street_")["tasks"]

    # The other way about it would be a project of the same name for every plan.
    elsewhere = adopt(unpruned, "street", project=f"{PROJECT} planned", plan=True)
    told["planned"] = elsewhere
    told["planned_project"] = call("projects", "get_all", name="planned$").get("projects")

    told["first"] = adopt(unpruned, "street", tags=("street",), checkpoints="all")
    told["task"] = task_of(told["first"])
    told["log"] = call("events", "get_task_log", task=told["first"]["task_id"], order="asc", navigate_earlier=False)
    curves = call("events", "scalar_metrics_iter_histogram", task=told["first"]["task_id"])
    told["curves"] = {name: curve[name] for name, curve in curves.items()}
    told["models"] = models_in(PROJECT)
    told["by_old_id"] = asdict(find_trained_model(told["hook"]["model_id"]).model)
    told["again"], told["again_writes"] = count_writes(
        lambda: adopt(unpruned, "street", tags=("street",), checkpoints="all")
    )

    with_checkpoints(unpruned, (16,))
    told["grown"], told["grown_writes"] = count_writes(lambda: adopt(unpruned, "street", checkpoints="all"))
    told["grown_task"] = task_of(told["grown"])
    told["tagged"] = adopt(unpruned, "street", tags=("street", "later"), checkpoints="all")
    told["tagged_task"] = task_of(told["tagged"])

    pruned = copied("pruned", FOLDER / "pruned")
    original = unpruned / "weights" / "resnet10_street.hdf5"
    pretrained = FOLDER / "street" / "pruned" / "resnet10_street_pruned.hdf5"
    pruned_from(original, pretrained, filters=5)
    told["by_filters"] = adopt(pruned, "retrained", plan=True)
    pretrained.write_bytes(original.read_bytes())
    told["by_content"] = adopt(pruned, "retrained", plan=True)
    pretrained.unlink()
    told["by_name"] = adopt(pruned, "retrained")
    told["retrained"] = task_of(told["by_name"])
    told["retrained_again"], told["retrained_writes"] = count_writes(lambda: adopt(pruned, "retrained"))

    silent = copied("unpruned", FOLDER / "silent")
    (silent / "status.json").unlink()
    other_content(original, silent / "weights" / "resnet10_street.hdf5", mark="silent")
    told["silent"] = adopt(silent, "silent", plan=True)
    (FOLDER / "printed.txt").write_text(console(unpruned))
    told["by_console"] = adopt(silent, "silent", log=FOLDER / "printed.txt")
    told["console_models"] = [m for m in models_in(PROJECT) if m["task_id"] == told["by_console"]["task_id"]]

    broken = copied("unpruned", FOLDER / "broken")
    lines = (broken / "status.json").read_text().splitlines()
    (broken / "status.json").write_text("\n".join([lines[0].replace("8:38:40", "8:39:00"), *lines[1:4]]))
    told["broken"] = adopt(broken, "broken")
    told["broken_task"] = task_of(told["broken"])

    odd = copied("unpruned", FOLDER / "Läufe #1")
    (weights,) = (odd / "weights").iterdir()
    weights.rename(weights.with_name("modell ü:1 #2%20?.hdf5"))
    told["odd"] = adopt(odd, "lauf/a:b #1?", project=f"{PROJECT} ü/x y z")
    told["odd_models"] = models_in(f"{PROJECT} ü/x y z")

    call("tasks", "publish", task=told["broken"]["task_id"])
    with_checkpoints(broken, (6,))
    told["published"] = adopt(broken, "broken", checkpoints="all")
    os.environ["CLEARML_DEFAULT_OUTPUT_URI"] = "s3://access:hidden@minio:9000/models"
    told["to_bucket"] = adopt(copied("unpruned", FOLDER / "late"), "to a bucket", plan=True)
    os.environ["CLEARML_DEFAULT_OUTPUT_URI"] = "file:///tmp/models"
    told["by_path"] = adopt(FOLDER / "late", "by path", plan=True)
    return told


if __name__ == "__main__":
    print(json.dumps(main(), default=str))
