"""The two steps that are no command by themselves: choosing a model, and publishing what is made of it."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.config import Settings
from tao2serve.deployment.candidate import artifact_document, make_product, metadata, pack_product
from tao2serve.deployment.job import open_job
from tao2serve.deployment.request import DeployRequest
from tao2serve.errors import UsageError
from tao2serve.registry.publish import publish
from tao2serve.registry.session import clearml, translated
from tao2serve.registry.source import Source, resolve
from tao2serve.remote.protocol import TASK_VARIABLE
from tao2serve.steps import Steps
from tao2serve.tao.reading import read_experiment

__all__ = ["choose_alone", "publish_alone"]


@dataclass(frozen=True, slots=True)
class _StepTask:
    """The task of the step, as what is published belongs to."""

    id: str
    task: Any


def choose_alone(source: Source, clustering: Path | None, *, steps: Steps) -> dict[str, Any]:
    """Fetch the chosen model and read its spec, as every step that follows will; return what it is."""
    with tempfile.TemporaryDirectory(prefix="tao2serve-choose-") as folder, steps.step("fetch and read it") as step:
        found = resolve(source, directory=Path(folder), on_news=step.news)
        spec = read_experiment(found.experiment_spec, clustering=clustering)
        trained = found.trained
        step.note(f"{found.weights.name}: classes {', '.join(spec.classes)}")
    if trained is None:
        raise UsageError(source.text, "is no model that ClearML tracks")
    return {
        "outcome": "ok",
        "model_id": trained.model_id,
        "task_id": trained.task_id,
        "name": trained.name,
        "reason": found.reason,
        "mean_average_precision": trained.mean_average_precision,
        "average_precision": dict(trained.average_precision),
        "weights_sha256": found.sha256,
        "spec_sha256": found.spec_sha256,
        "classes": list(spec.classes),
        "steps": steps.to_list(),
    }


def publish_alone(request: DeployRequest, settings: Settings, *, steps: Steps) -> dict[str, Any]:
    """Make what a deployment of this request would serve, and have ClearML hold it as a model of the step's own task.

    A deployment of the same request finds it there, by its digest.
    """
    task_id = os.environ.get(TASK_VARIABLE, "")
    if not task_id:
        raise UsageError("step publish", "runs for a ClearML task only", hint="tao2serve pipeline")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tao2serve-publish-")))
        job = open_job(request, settings, folder=folder, steps=steps, stack=stack)
        product = make_product(job)
        with steps.step("publish to ClearML") as step:
            with translated(f"ClearML task {task_id}", "could not be read"):
                task = clearml().Task.get_task(task_id=task_id)
                if not task.output_uri:
                    task.output_uri = True  # the files server that clearml.conf names
            package = pack_product(product, job)
            model = publish(
                _StepTask(task_id, task), product.made.model, package, name=package.path.stem,
                metadata=metadata(product.made, job), trained=job.chosen.source.trained, on_news=step.news,
            )  # fmt: skip
            step.note(f"model {model.model_id}" + (", there already with the same content" if model.reused else ""))
    return {"outcome": "ok", "artifact": artifact_document(product.made, model), "steps": steps.to_list()}
