"""Reads a training run back with the real SDK, as another process would. Prints what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from clearml import Model, Task

project, task_id, model_id = sys.argv[1:4]
task = Task.get_task(task_id=task_id)
by_name = Task.get_task(project_name=project, task_name="train one")
outputs = {model.name: model for model in task.models["output"]}


def names(**query: object) -> list[str]:
    return sorted(model.name for model in Model.query_models(project_name=project, **query))


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
            "plots": [plot["metric"] for plot in task.get_reported_plots()],
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
