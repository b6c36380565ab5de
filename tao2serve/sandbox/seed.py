"""Write the sample runs and a serving service into the sandbox, through the real ClearML SDK.

Runs as a process of its own (`python -m tao2serve.sandbox.seed RESULT`), since a task belongs to a process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tao2serve.sandbox.samples import LOCAL_PROJECT, PROJECT, SAMPLE, pictures
from tao2serve.sandbox.state import write_json
from tao2serve.sandbox.tao_console import Curve, History, console_log, read_history
from tao2serve.sandbox.tao_summaries import validation_pictures, weight_histograms
from tao2serve.serving.instances import Instances

SERVICE_PROJECT: Final = "DevOps"
SERVICE_NAME: Final = "tao2serve sandbox"
NETWORK_SIZE: Final = (384, 224)  # of the sample's specs, width and height
CONTAINER_RESULTS: Final = "/workspace/tao-experiments/street_detector"

Curves = Mapping[str, Curve]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """One finished TAO run as its results folder holds it."""

    folder: Path
    task_name: str
    tags: tuple[str, ...]

    @property
    def status(self) -> Path:
        """Its status.json."""
        return self.folder / "status.json"

    @property
    def weights(self) -> Path:
        """Its final weights."""
        (found,) = (self.folder / "weights").glob("*.hdf5")
        return found

    def history(self) -> History:
        """Return the course of the training."""
        lines = self.status.read_text(encoding="utf-8").splitlines()
        return read_history([json.loads(line) for line in lines if line.strip()])

    def curves(self) -> Curves:
        """Return the scalars it reported, by TensorFlow's name for them."""
        curves: Curves = json.loads((self.folder / "scalars.json").read_text(encoding="utf-8"))
        return curves


UNPRUNED: Final = SampleRun(
    folder=SAMPLE / "unpruned", task_name="detectnet_v2_train", tags=("detectnet_v2", "resnet10", "unpruned")
)
PRUNED: Final = SampleRun(
    folder=SAMPLE / "pruned", task_name="detectnet_v2_retrain", tags=("detectnet_v2", "resnet10", "pruned")
)
ABORTED_AFTER: Final = 8  # epochs
EARLIER: Final = timedelta(days=7)


def main(result: Path) -> None:
    """Seed once; later calls only point the serving service at the current addresses."""
    known = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    seeded = known or {"service_id": "", "runs": _write_runs()}
    seeded["service_id"] = _configure_service(seeded["service_id"])
    Instances(seeded["service_id"]).close()  # those of a sandbox that crashed: no inference service runs yet
    write_json(seeded, result)


def _write_runs() -> list[dict[str, str]]:
    _write_aborted(UNPRUNED)
    trained = _write_run(UNPRUNED)
    return [trained, _write_run(PRUNED, made_from=trained)]


def _write_run(run: SampleRun, *, made_from: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write one run as TAO's ClearML hook leaves it, with models uploaded (CLEARML_DEFAULT_OUTPUT_URI set).

    Beyond the hook, as a user would: the spec as configuration, status.json as artifact, the epoch as metadata, and
    for a retraining the lineage. The hook itself names no parent, and only the pruned file as what was loaded.
    """
    from clearml import InputModel, OutputModel

    history, curves = run.history(), run.curves()
    task = _begin(PROJECT, f"{run.task_name}_{history.begun:%d/%y/%m_%H:%M:%S}", run.tags, uploads=True)
    if made_from:
        task.set_parent(made_from["task_id"])
        task.connect(InputModel(made_from["model_id"]))
    task.connect_configuration(run.folder / "experiment_spec.txt", name="experiment_spec")
    _report_training(task, history, curves)
    _report_summaries(task, run, step=_steps(history, curves) * history.epochs)
    task.upload_artifact("status.json", artifact_object=run.status, wait_on_upload=True)
    model = OutputModel(task=task, name=run.weights.stem, framework="Keras", tags=list(run.tags))
    epoch = history.last_epoch
    model.update_weights(weights_filename=str(run.weights), iteration=epoch, auto_delete_file=False, async_enable=False)
    model.set_metadata("epoch", str(epoch), "int")
    task.flush(wait_for_uploads=True)
    task.close()
    return {"task_id": str(task.id), "model_id": str(model.id)}


def _write_aborted(run: SampleRun) -> None:
    """Write the first half of a run as the hook leaves one by default: nothing is uploaded, models are paths.

    It is in a project of its own, so that the sample project keeps the two runs one can deploy. What was measured is
    the sample's own; that the training was aborted, and a week before, is told so that there is such a run to see.
    """
    from clearml import OutputModel, Task

    whole, curves = run.history(), run.curves()
    steps = _steps(whole, curves)
    history = whole.until(ABORTED_AFTER, earlier=EARLIER)
    task = _begin(LOCAL_PROJECT, f"{run.task_name}_{history.begun:%d/%y/%m_%H:%M:%S}", run.tags[:2], uploads=False)
    half = {title: [point for point in points if point[0] < steps * ABORTED_AFTER] for title, points in curves.items()}
    _report_training(task, history, half, steps=steps)
    for evaluation in history.evaluations[1::2]:
        name = f"model.epoch-{evaluation.epoch}"
        model = OutputModel(task=task, name=name, framework="Keras")
        uri = f"file://{CONTAINER_RESULTS}/{name}.hdf5"
        model.update_weights(register_uri=uri, iteration=evaluation.epoch * steps)
    task.flush(wait_for_uploads=True)
    task.close()
    # Closing calls a task that runs completed, whatever was said before.
    Task.get_task(task_id=task.id).mark_stopped(force=True, status_message="aborted by the user")


def _begin(project: str, name: str, tags: Sequence[str], *, uploads: bool) -> Any:
    from clearml import Task

    return Task.init(
        project_name=project,
        # TAO names its tasks with the time of the run: day/year/month, as its code has it.
        task_name=name,
        tags=list(tags),
        reuse_last_task_id=False,
        auto_connect_frameworks=False,
        auto_connect_arg_parser=False,
        auto_connect_streams=False,
        auto_resource_monitoring=False,
        output_uri=os.environ["CLEARML_FILES_HOST"] if uploads else None,
    )


def _steps(history: History, curves: Mapping[str, Curve]) -> int:
    """Return the steps of an epoch: the last report is that of the last step, and steps count from 0."""
    return (int(curves["total_cost"][-1][0]) + 1) // history.epochs


def _report_training(task: Any, history: History, curves: Curves, *, steps: int | None = None) -> None:
    """Report scalars and the console log.

    With the visualizer TAO reports its evaluations too, at the step behind the epoch's last one. Its average precisions
    are ratios there, although their titles say percent (`validation_hook.py`).
    """
    logger, per_epoch = task.get_logger(), steps or _steps(history, curves)
    for title, points in curves.items():
        for iteration, value in points:
            logger.report_scalar(title, title, value=value, iteration=int(iteration))
    for one in history.evaluations:
        scores = {f"{name}_AP (in %)": score / 100 for name, score in one.average_precisions.items()}
        mean = {"mean average precision (mAP) (in %)": one.mean_average_precision / 100}
        for title, value in {"validation_cost": one.cost, **mean, **scores}.items():
            logger.report_scalar(title, title, value=value, iteration=one.epoch * per_epoch)
    for text in console_log(
        history, losses=curves["total_cost"], rates=curves["learning_rate"], steps_per_epoch=per_epoch
    ):
        logger.report_text(text, print_console=False)


def _report_summaries(task: Any, run: SampleRun, *, step: int) -> None:
    """Report weight histograms and validation pictures; the SDK puts a line of zeros below a single one."""
    logger = task.get_logger()
    for one in weight_histograms(run.weights):
        logger.report_surface(
            title=one.title, series=one.variant, iteration=0, xaxis=" ", yaxis="iteration",
            xlabels=[f"{end:.2f}" for end in one.ends], ylabels=["", str(step)],
            matrix=[0 * one.counts, one.counts], camera=(-0.1, 1.3, 1.4),
        )  # fmt: skip
    for picture in validation_pictures(pictures(), SAMPLE / "labels", size=NETWORK_SIZE):
        logger.report_image("image", picture.variant, iteration=step, image=picture.image)


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
