"""Publishes, resets and deletes with the real SDK, files included. Prints what it saw."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from clearml import InputModel, Model, OutputModel, Task

project, folder = sys.argv[1], Path(sys.argv[2])


def make(name: str) -> tuple[Task, OutputModel]:
    """Return a finished task with an artifact, a debug image, a picture in a plot, and an uploaded model."""
    task = Task.init(project, name, output_uri=True, reuse_last_task_id=False, auto_connect_frameworks=False)
    logger = task.get_logger()
    logger.report_image("images", "first", iteration=3, image=np.zeros((8, 8, 3), np.uint8))
    logger.report_scalar("loss", "train", value=1.0, iteration=3)
    task.upload_artifact("text", folder / "artifact.txt", wait_on_upload=True)
    model = OutputModel(task, name=f"{name} model", framework="onnx")
    model.update_weights(str(folder / "weights.onnx"), auto_delete_file=False, async_enable=False)
    task.flush(wait_for_uploads=True)
    task.close()
    return Task.get_task(task_id=task.id), model


def refusal(action: Callable[[], object]) -> str:
    """Return what the SDK says when it refuses, or what it returned."""
    try:
        return f"done: {action()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


(folder / "artifact.txt").write_text("text")
(folder / "weights.onnx").write_bytes(b"onnx" * 1000)
seen: dict[str, object] = {}

published, model = make("to publish")
draft = Task.create(project, "never started")
seen["publish_draft"] = refusal(draft.publish)
published.publish()
seen["published"] = [str(published.get_status()), Model(model.id).published]
seen["published_again"] = refusal(published.publish)
seen["delete_published"] = bool(published.delete())

user = Task.create(project, "user of the model")
user.set_input_model(model_id=model.id)
seen["remove_used"] = bool(Model.remove(model.id))
seen["used_is_there"] = InputModel(model.id).url

reset, _ = make("to reset")
reset.reset(force=True)
reset.reload()
seen["reset"] = [
    str(reset.get_status()),
    list(reset.artifacts),
    list(reset.models["output"]),
    reset.get_reported_scalars(),
]

doomed, doomed_model = make("to delete")
child = Task.clone(doomed, name="child")
samples = doomed.get_debug_samples("images", "first")
seen["urls"] = {
    "artifact": doomed.artifacts["text"].url,
    "image": samples[0]["url"],
    "weights": Model(doomed_model.id).url,
}
seen["deleted"] = bool(doomed.delete())
seen["orphan"] = [child.id, doomed.id]

kept, kept_model = make("to keep")
seen["removed_model_url"] = Model(kept_model.id).url
seen["removed_model"] = bool(Model.remove(kept_model.id))
seen["kept"] = [entry.id for entry in Task.get_task(task_id=kept.id).models["output"]]
print(json.dumps(seen))
