"""Reads a training run back with the real SDK, as another process would. Prints what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from clearml import Model, StorageManager, Task
from PIL import Image

project, task_id, model_id = sys.argv[1:4]
task = Task.get_task(task_id=task_id)
by_name = Task.get_task(project_name=project, task_name="train one")
outputs = {model.name: model for model in task.models["output"]}


def names(**query: object) -> list[str]:
    return sorted(model.name for model in Model.query_models(project_name=project, **query))


def bars(iterations: int) -> list[object]:
    plots = task.get_reported_plots(max_iterations=iterations)
    found = [plot for plot in plots if plot["metric"] == "weights"]
    return [[plot["iter"], json.loads(plot["plot_str"])["data"][0]["y"]] for plot in found]


def table() -> object:
    (plot,) = (plot for plot in task.get_reported_plots() if plot["metric"] == "classes")
    return json.loads(plot["plot_str"])["data"][0]["cells"]["values"]


def images(iterations: int) -> list[object]:
    samples = task.get_debug_samples("image", "first", n_last_iterations=iterations)
    found = []
    for sample in samples:
        with Image.open(StorageManager.get_local_copy(sample["url"])) as picture:
            found.append([sample["iter"], picture.size, round(np.asarray(picture).mean())])
    return found


print(
    json.dumps(
        {
            "status": task.get_status(),
            "same_by_name": by_name.id == task.id,
            "parameters": task.get_parameters(),
            "spec": task.get_configuration_object("spec"),
            "text": task.get_configuration_object("text"),
            "scalars": task.get_reported_scalars(),
            "single": task.get_reported_single_values(),
            "log": "\n".join(task.get_reported_console_output(5)),
            "plots": bars(1),
            "more_plots": bars(2),
            "table": table(),
            "images": images(2),
            "last_metrics": task.get_last_scalar_metrics(),
            "last_iteration": task.get_last_iteration(),
            "artifact": task.artifacts["metrics"].get(),
            "folder": sorted(path.name for path in Path(task.artifacts["folder"].get_local_copy()).rglob("*")),
            "properties": task.get_user_properties(value_only=True),
            "inputs": [model.name for model in task.models["input"]],
            "outputs": sorted(outputs),
            "weights_size": Path(Model(model_id).get_local_copy(force_download=True)).stat().st_size,
            "package": sorted(path.name for path in Path(outputs["package"].get_local_copy()).rglob("*")),
            "labels": Model(model_id).labels,
            "metadata": Model(model_id).get_all_metadata_casted(),
            "published": Model(model_id).published,
            "tags_any": names(tags=["tao", "nothing"]),
            "tags_all": names(tags=["__$all", "tao", "nothing"]),
            "tags_not": names(tags=["-tao"]),
            "only_published": names(only_published=True),
            "by_metadata": names(metadata={"epoch": "120"}),
            "tasks_by_tag": Task.query_tasks(project_name=project, tags=["tao"]),
            "tasks_not_tag": Task.query_tasks(project_name=project, tags=["-tao"]),
            "tasks_by_status": Task.query_tasks(
                project_name=project, task_filter={"status": ["completed"], "order_by": ["-last_update"]}
            ),
            "unknown": Task.get_task(project_name=project, task_name="nothing") is None,
        }
    )
)
