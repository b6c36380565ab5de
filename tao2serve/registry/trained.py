"""Trained TAO models that ClearML tracks: find them, and say which is best and why."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tao2serve.errors import InputError
from tao2serve.registry.session import clearml, translated
from tao2serve.tao.status import TrainingStatus, read_status
from tao2serve.values import TrainedModel

__all__ = ["BestModel", "Selectors", "choose_best", "find_trained_model", "find_trained_models"]

log = logging.getLogger(__name__)

SUFFIXES: Final = (".hdf5", ".onnx", ".tlt", ".etlt")
STATUS_ARTIFACT: Final = "status.json"
EPOCH: Final = re.compile(r"epoch[-_](\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Which models are meant: all of what is given must hold; several tags must all be there."""

    project: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"project {self.project!r}"] * bool(self.project) + [f"task {self.task!r}"] * bool(self.task)
        return ", ".join([*parts, *(f"tag {tag!r}" for tag in self.tags)]) or "any project"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestModel:
    """The model that was chosen, and the sentence that says why."""

    model: TrainedModel
    reason: str


def find_trained_models(selectors: Selectors) -> tuple[TrainedModel, ...]:
    """Return the trained TAO models that match, best metric first, those without a metric last.

    Raises ServiceError if ClearML cannot be reached, InputError if the project does not exist.
    """
    sdk = clearml()
    with translated("ClearML", "did not list the models"):
        found = _query(sdk, selectors)
        tasks: dict[str, Any] = {}
        models = [_describe(sdk, model, tasks) for model in found if _is_trained(model)]
    wanted = [model for model in models if re.search(selectors.task, model.task_name)] if selectors.task else models
    return tuple(sorted(wanted, key=_rank))


def _query(sdk: Any, selectors: Selectors) -> list[Any]:
    try:
        return list(
            sdk.Model.query_models(
                project_name=selectors.project or None,
                tags=["__$all", *selectors.tags] if selectors.tags else None,
                max_results=500,
            )
        )
    except ValueError as error:
        if "No projects found" not in str(error):
            raise
        raise InputError(
            f"ClearML project {selectors.project!r}",
            "does not exist",
            hint="project names are exact, parents included: Parent/Child",
        ) from error


def find_trained_model(identifier: str) -> TrainedModel:
    """Return the model with this id, or the best of the task with this id; raises InputError if there is neither."""
    sdk = clearml()
    with translated("ClearML", "did not answer"):
        try:
            model = sdk.Model(model_id=identifier)
            if model.id and model.url:
                return _describe(sdk, model, {})
        except (ValueError, AttributeError):
            pass  # how clearml 2.1.12 says that there is no such model
        task = sdk.Task.get_task(task_id=identifier) if _task_exists(sdk, identifier) else None
        if task is None:
            raise InputError(
                identifier,
                "is neither a file nor the id of a ClearML model or task",
                hint="list what there is: tao2serve models",
            )
        models = [_describe(sdk, model, {task.id: task}) for model in task.models["output"] if _is_trained(model)]
    return choose_best(models, subject=f"ClearML task {identifier}").model


def choose_best(models: Sequence[TrainedModel], *, subject: str) -> BestModel:
    """Choose by mean average precision at the checkpoint's own epoch; of equals, the pruned one.

    Raises InputError if there is none, or if several have no metric to choose by.
    """
    if not models:
        raise InputError(subject, "has no trained TAO model", hint="list what there is: tao2serve models")
    ranked = sorted(models, key=_rank)
    best = ranked[0]
    if len(ranked) == 1:
        return BestModel(model=best, reason="the only trained model")
    if best.mean_average_precision is None:
        names = ", ".join(f"{model.name} ({model.model_id})" for model in ranked[:5])
        raise InputError(
            subject,
            f"has {len(ranked)} trained models and no metric to choose by",
            evidence=names,
            hint="name one by its model id",
        )
    others = [model.mean_average_precision for model in ranked[1:] if model.mean_average_precision is not None]
    runner_up = f", the next {max(others):.4f}" if others else ""
    at_epoch = f" at epoch {best.epoch}" if best.epoch is not None else ""
    return BestModel(
        model=best,
        reason=f"highest mean average precision of {len(ranked)} models: {best.mean_average_precision:.4f}"
        f"{at_epoch} (from {best.metric_source}){runner_up}",
    )


def _rank(model: TrainedModel) -> tuple[bool, float, bool, str]:
    score = model.mean_average_precision
    return score is None, -(score or 0.0), not model.pruned, model.model_id


def _is_trained(model: Any) -> bool:
    path = unquote(urlsplit(model.url or "").path)
    return bool(model.task) and Path(path).suffix.lower() in SUFFIXES


def _describe(sdk: Any, model: Any, tasks: dict[str, Any]) -> TrainedModel:
    if model.task and model.task not in tasks:
        tasks[model.task] = sdk.Task.get_task(task_id=model.task)
    task = tasks.get(model.task)
    tags = tuple(model.tags or ())
    status = _status(task) if task else None
    epoch = _epoch(model, status)
    score = _score_at(epoch, status)
    fetchable, reason = _fetchable(model.url)
    return TrainedModel(
        model_id=model.id,
        name=model.name,
        task_id=model.task or "",
        task_name=task.name if task else "",
        project=task.get_project_name() if task else "",
        tags=tags,
        uri=model.url,
        fetchable=fetchable,
        unfetchable_reason=reason,
        pruned=_pruned(tags, model.name),
        epoch=epoch,
        mean_average_precision=score,
        metric_source=STATUS_ARTIFACT if score is not None else "",
    )


def _status(task: Any) -> TrainingStatus | None:
    artifact = task.artifacts.get(STATUS_ARTIFACT)
    copy = artifact.get_local_copy() if artifact is not None else None
    if copy is None:
        return None
    try:
        return read_status(Path(copy))
    except InputError as error:
        log.warning("status.json of task %s cannot be read: %s", task.id, error)
        return None


def _epoch(model: Any, status: TrainingStatus | None) -> int | None:
    """Return the checkpoint's epoch: its metadata, its file name, or for the final weights the last one trained."""
    recorded = str((model.get_all_metadata() or {}).get("epoch", {}).get("value", ""))
    if recorded.isdigit():
        return int(recorded)
    named = EPOCH.search(unquote(model.url or ""))
    if named:
        return int(named.group(1))
    trained = [record.epoch for record in status.records if record.epoch is not None] if status else []
    return max(trained, default=None)


def _score_at(epoch: int | None, status: TrainingStatus | None) -> float | None:
    """Return the mAP that was measured at the checkpoint's own epoch; another epoch's says nothing of this file."""
    if status is None:
        return None
    scores = [record.mean_average_precision for record in status.evaluations if record.epoch == epoch]
    return scores[-1] if scores else None


def _pruned(tags: Sequence[str], name: str) -> bool | None:
    if "unpruned" in tags:
        return False
    return True if "pruned" in tags or "pruned" in name else None


def _fetchable(uri: str) -> tuple[bool, str]:
    parts = urlsplit(uri)
    if parts.scheme == "file" or not parts.scheme:
        path = Path(unquote(parts.path))
        if path.is_file():
            return True, ""
        return False, f"{path} is a path of the machine or container that trained it, and not here"
    return True, ""


def _task_exists(sdk: Any, identifier: str) -> bool:
    return bool(sdk.Task.query_tasks(task_filter={"id": [identifier]}))
