"""Write the sample runs and a serving service into the sandbox, through the real ClearML SDK.

Runs as a process of its own (`python -m tao2serve.sandbox.seed RESULT`), since a task belongs to a process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.sandbox.samples import PROJECT, SAMPLE
from tao2serve.sandbox.state import write_json
from tao2serve.serving.instances import Instances

SERVICE_PROJECT: Final = "DevOps"
SERVICE_NAME: Final = "tao2serve sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """One finished TAO run as its results folder holds it."""

    folder: Path
    task_name: str
    tags: tuple[str, ...]
    parent: str = ""


RUNS: Final = (
    SampleRun(
        folder=SAMPLE / "unpruned", task_name="detectnet_v2_train", tags=("detectnet_v2", "resnet10", "unpruned")
    ),
    SampleRun(folder=SAMPLE / "pruned", task_name="detectnet_v2_retrain", tags=("detectnet_v2", "resnet10", "pruned")),
)


def main(result: Path) -> None:
    """Seed once; later calls only point the serving service at the current addresses."""
    known = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    seeded = known or {"service_id": "", "runs": [_write_run(run) for run in RUNS]}
    seeded["service_id"] = _configure_service(seeded["service_id"])
    Instances(seeded["service_id"]).close()  # those of a sandbox that crashed: no inference service runs yet
    write_json(seeded, result)


def _write_run(run: SampleRun) -> dict[str, str]:
    """Write one run as TAO's ClearML hook leaves it, with models uploaded (CLEARML_DEFAULT_OUTPUT_URI set)."""
    from clearml import OutputModel, Task

    status = run.folder / "status.json"
    task = Task.init(
        project_name=PROJECT,
        # TAO names its tasks with the time of the run: day/year/month, as its code has it.
        task_name=f"{run.task_name}_{_started(status)}",
        tags=list(run.tags),
        reuse_last_task_id=False,
        auto_connect_frameworks=False,
        auto_connect_arg_parser=False,
        auto_connect_streams=False,
        auto_resource_monitoring=False,
        output_uri=os.environ["CLEARML_FILES_HOST"],
    )
    spec = run.folder / "experiment_spec.txt"
    task.connect_configuration(spec, name="experiment_spec")
    for title, points in json.loads((run.folder / "scalars.json").read_text(encoding="utf-8")).items():
        for iteration, value in points:
            task.get_logger().report_scalar(title, title, value=value, iteration=int(iteration))
    task.upload_artifact("status.json", artifact_object=status, wait_on_upload=True)
    epoch = _last_epoch(status)
    (weights,) = (run.folder / "weights").glob("*.hdf5")
    model = OutputModel(task=task, name=weights.stem, framework="Keras", tags=list(run.tags))
    model.update_weights(weights_filename=str(weights), iteration=epoch, auto_delete_file=False, async_enable=False)
    model.set_metadata("epoch", str(epoch), "int")
    task.flush(wait_for_uploads=True)
    task.close()
    return {"task_id": str(task.id), "model_id": str(model.id)}


def _configure_service(service_id: str) -> str:
    """Make the serving service, or take the one there is, and write the current addresses into it."""
    from clearml_serving.serving.model_request_processor import ModelRequestProcessor

    processor = (
        ModelRequestProcessor(task_id=service_id)
        if service_id
        else ModelRequestProcessor(force_create=True, name=SERVICE_NAME, project=SERVICE_PROJECT)
    )
    processor.configure(
        external_serving_base_url=os.environ["TAO2SERVE_SANDBOX_SERVING"],
        external_triton_grpc_server=os.environ["TAO2SERVE_SANDBOX_TRITON"],
    )
    if not service_id:
        processor.serialize()
    return str(processor.get_id())


def _records(status: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in status.read_text(encoding="utf-8").splitlines() if line.strip()]


def _started(status: Path) -> str:
    """Return the time of the run's first record, as TAO writes it into the task's name (%d/%y/%m_%H:%M:%S)."""
    first = _records(status)[0]
    month, day, year = (int(part) for part in first["date"].split("/"))
    return f"{day:02d}/{year % 100:02d}/{month:02d}_{first['time']}"


def _last_epoch(status: Path) -> int:
    return max(int(record["epoch"]) for record in _records(status) if "epoch" in record)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
