"""Write TAO runs into ClearML with the real SDK, as its hook and its users do: `tao_runs.py PROJECT FOLDER`."""

import json
import sys
from pathlib import Path

from clearml import OutputModel, Task

PROJECT, FOLDER = sys.argv[1], Path(sys.argv[2])
SPEC = """
model_config {{ arch: "resnet" {model} }}
cost_function_config {{ target_classes {{ name: "car" }} target_classes {{ name: "person" }} }}
augmentation_config {{ preprocessing {{ output_image_width: 384 output_image_height: 224 output_image_channel: 3 }} }}
evaluation_config {{
  validation_period_during_training: 10  # epochs
  first_validation_epoch: 10
}}
training_config {{ num_epochs: {epochs} }}
"""


def precision(epoch: int, best: int = 30) -> float:
    """The mean average precision of an epoch: it rises to `best`, then falls."""
    return round(0.9 - 0.01 * abs(epoch - best), 6)


def begin(
    name: str, tags: list[str], *, epochs: int = 40, model: str = "", spec: bool = True, parent: str = ""
) -> Task:
    task = Task.create(project_name=PROJECT, task_name=name, task_type="training")
    task.set_tags(tags)
    task.mark_started()
    task.output_uri = True
    if parent:
        task.set_parent(parent)
    if spec:
        task.set_configuration_object("experiment_spec", config_text=SPEC.format(model=model, epochs=epochs))
    return task


def end(task: Task) -> str:
    task.flush(wait_for_uploads=True)
    task.mark_completed()
    return str(task.id)


def status(task: Task, epochs: list[int], *, best: int = 30, shift: float = 0.0) -> None:
    """status.json as TAO writes it: an epoch's first step names the epochs before it, its evaluation none."""
    lines = [
        {"date": "5/3/2024", "time": "9:1:2", "status": "STARTED", "message": "Starting DetectNet_v2 Training job"}
    ]
    for epoch in epochs:
        mean = 100 * (precision(epoch, best) + shift)
        lines.append({"status": "RUNNING", "epoch": epoch - 1, "max_epoch": 40, "time_per_epoch": "0:01:00"})
        lines.append(
            {
                "status": "RUNNING",
                "message": "Evaluation metrics generated.",
                "categorical": {"average_precision": {"car": round(mean + 5, 4), "person": round(mean - 5, 4)}},
                "kpi": {"mean average precision": round(mean, 4), "validation cost": 0.001},
            }
        )
    path = FOLDER / f"{task.id}-status.json"
    path.write_text("\n".join(json.dumps(line) for line in [*lines, {"status": "SUCCESS"}]))
    task.upload_artifact("status.json", artifact_object=path, wait_on_upload=True)


def evaluation(epoch: int, epochs: int, *, best: int = 30) -> str:
    """What TAO prints when it evaluates."""
    mean = 100 * precision(epoch, best)
    logger = "[TAO Toolkit] [INFO] nvidia_tao_tf1.cv.detectnet_v2.tfhooks.task_progress_monitor_hook 149"
    return (
        f"2024-05-03 09:01:02,000 {logger}: "
        f"Epoch {epoch - 1}/{epochs}: loss: 0.00123 learning rate: 0.0005 Time taken: 0:01:00 ETA: 0:10:00\n"
        "Matching predictions to ground truth, class 1/2.: 100%|#####| 11/11 [00:00<00:00, 9.1it/s]"
        f"Epoch {epoch}/{epochs}\n"
        "=========================\n\nValidation cost: 0.001234\n"
        f"Mean average_precision (in %): {mean:.4f}\n\n"
        "+------------+--------------------------+\n| class name | average precision (in %) |\n"
        "+------------+--------------------------+\n"
        f"|    car     |     {mean + 5!r}    |\n|   person   |    {mean - 5!r}    |\n"
        "+------------+--------------------------+\n\nMedian Inference Time: 0.005\n"
        "2024-05-03 09:02:02,000 [TAO Toolkit] [INFO] root 2102: Evaluation metrics generated."
    )


def scalars(task: Task, epochs: list[int], *, steps: int = 25, best: int = 30) -> None:
    """The precision curves of TAO's visualizer: ratios, by global step, in spite of their names."""
    for epoch in epochs:
        for tag, value in (
            ("mean average precision (mAP) (in %)", precision(epoch, best)),
            ("car_AP (in %)", precision(epoch, best) + 0.05),
            ("person_AP (in %)", precision(epoch, best) - 0.05),
        ):
            task.get_logger().report_scalar(tag, tag, value=value, iteration=epoch * steps)


def weights(task: Task, name: str, *, content: bytes | None = None, tags: list[str] | None = None) -> str:
    """Register weights: uploaded if there is content, else by a path of the training container."""
    model = OutputModel(task=task, name=name.rsplit(".", 1)[0], framework="Keras", tags=tags or [])
    if content is None:
        model.update_weights(register_uri=f"file:///workspace/tao-experiments/run/weights/{name}")
    else:
        path = FOLDER / name
        path.write_bytes(content)
        model.update_weights(str(path), auto_delete_file=False, async_enable=False)
    return str(model.id)


def main() -> dict[str, object]:
    ids: dict[str, object] = {}
    run = begin("unpruned_03/24/05_09:01:02", ["street"], model='pretrained_model_file: "/w/resnet18.hdf5"')
    status(run, [10, 20, 30, 40])
    ids["unpruned"] = [weights(run, f"model.epoch-{n}.hdf5", content=f"unpruned {n}".encode() * 1000) for n in (30, 40)]
    ids["final"] = weights(run, "final_unpruned.hdf5", content=b"unpruned 40" * 1000)
    ids["unpruned_task"] = end(run)

    run = begin(
        "retrain_03/24/05_12:00:00",
        ["street", "unpruned"],
        model='load_graph: true pretrained_model_file: "/w/pruned.hdf5"',
        parent=ids["unpruned_task"],
    )
    run.set_input_model(model_id=ids["final"])
    run.get_logger().report_text("begun", print_console=False)
    for epoch in (10, 20, 30, 40):
        run.get_logger().report_text(evaluation(epoch, 40, best=20), print_console=False)
    scalars(run, [10, 20, 30, 40], best=20)
    ids["console"] = [weights(run, f"model.epoch-{n}.hdf5") for n in (20, 25, 40)]
    ids["console_task"] = end(run)

    run = begin("at odds", ["odd"])
    status(run, [10, 20], shift=0.01)
    scalars(run, [10, 20])
    run.get_logger().report_text(evaluation(20, 40), print_console=False)
    ids["odds"] = weights(run, "model.epoch-20.hdf5", content=b"odds" * 1000)
    end(run)

    run = begin("only scalars", ["only"], epochs=40)
    scalars(run, [10, 20, 30, 40], best=28)
    ids["scalars"] = weights(run, "model.epoch-30.hdf5", content=b"scalars" * 1000)
    end(run)

    run = begin("says nothing", ["silent"], spec=False)
    ids["silent"] = weights(run, "pruned_model.tlt", content=b"silent" * 1000)
    end(run)
    return ids


if __name__ == "__main__":
    print(json.dumps(main()))
