"""Trained TAO models that ClearML tracks: find them, and say which is best and why."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tao2serve.errors import InputError
from tao2serve.registry.calls import IDS, call, get_all, get_by_ids, tags_of, text
from tao2serve.registry.described import (
    MODEL_FIELDS,
    SUFFIXES,
    describe,
    fetchable,
    is_trained,
    metadata,
    own_epoch,
    training_task,
)
from tao2serve.registry.runs import TASK_FIELDS, Wanted, read_runs
from tao2serve.registry.session import clearml, translated
from tao2serve.values import TrainedModel

__all__ = [
    "MEAN", "SUFFIXES", "BestModel", "Selectors", "choose_best", "find_trained_model", "find_trained_models", "score",
]  # fmt: skip

log = logging.getLogger(__name__)

# More models than this are nobody's list; the newest come first.
MOST_MODELS: Final = 5000
MEAN: Final = ("", "map", "mean_average_precision", "mean average precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Which models are meant: all of what is given must hold; several tags must all be there, on the model or its run.

    `metric` says what the best is best at: mean average precision, or the average precision of one class.
    """

    project: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()
    metric: str = ""

    @property
    def selects(self) -> bool:
        """Whether they name any models; a metric alone does not."""
        return bool(self.project or self.task or self.tags)

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

    It takes few calls however many models there are: 5 or 6, and up to 3 for each run that has to be looked into.
    Raises ServiceError if ClearML cannot be reached, InputError if the project does not exist.
    """
    clearml()
    with translated("ClearML", "did not list the models"):
        models = _described(_query(selectors), task=selectors.task, tags=selectors.tags)
    return tuple(sorted(models, key=lambda model: _rank(model, selectors.metric)))


def find_trained_model(identifier: str, *, metric: str = "") -> BestModel:
    """Return the model with this id, or the best of the task with this id; raises InputError if there is neither.

    A model that holds only a path is answered by the one that was uploaded in its place, if one was.
    """
    clearml()
    with translated("ClearML", "did not answer"):
        named = get_by_ids("models", [identifier], fields=MODEL_FIELDS)
        if named:
            row = named[identifier]
            copies = get_all("models", fields=["id", *MODEL_FIELDS], limit=MOST_MODELS, **_copies_of(identifier))
            described = _described([row, *(copy for copy in copies if text(copy, "id") != identifier)])
            found = [m for m in described if identifier in (m.model_id, m.registered_model_id)]
            # Of a model that can be fetched its own file is meant, whatever was uploaded beside it.
            found.sort(key=lambda model: model.model_id != identifier)
            if found:
                return BestModel(model=found[0], reason="named by its id")
            maker = "made by a task" if text(row, "task") else "made by no task"
            raise InputError(
                f"ClearML model {identifier}",
                "is no trained TAO model",
                evidence=f"{text(row, 'uri') or 'no URI'}, {maker}",
                hint="list what there is: tao2serve models",
            )
        if not get_by_ids("tasks", [identifier], fields=["name"], search_hidden=True):
            raise InputError(
                identifier,
                "is neither a file nor the id of a ClearML model or task",
                hint="list what there is: tao2serve models",
            )
        own = list(get_all("models", fields=["id", *MODEL_FIELDS], limit=MOST_MODELS, task=[identifier], **_ours()))
        copies = get_all("models", fields=["id", *MODEL_FIELDS], limit=MOST_MODELS, **_copies_of(identifier, task=True))
        models = _described([*own, *copies])
    best = choose_best(models, subject=f"ClearML task {identifier}", metric=metric)
    return BestModel(model=best.model, reason=f"of the task named by its id, {best.reason}")


def choose_best(models: Sequence[TrainedModel], *, subject: str, metric: str = "") -> BestModel:
    """Choose by the metric at the checkpoint's own epoch; of equals, one that can be fetched, then the pruned one.

    Raises InputError if there is none, if several have no metric to choose by, or if no model has that metric.
    """
    if not models:
        raise InputError(subject, "has no trained TAO model", hint="list what there is: tao2serve models")
    ranked = sorted(models, key=lambda model: _rank(model, metric))
    best, value = ranked[0], score(ranked[0], metric)
    if value is None and metric.lower() not in MEAN:
        classes = sorted({name for model in models for name, _ in model.average_precision})
        raise InputError(
            f"--metric {metric}",
            f"is a metric of none of the models in {subject}",
            evidence=f"known: {', '.join(['mAP', *classes])}",
        )
    if len(ranked) == 1:
        return BestModel(model=best, reason="the only trained model")
    if value is None:
        raise InputError(
            subject,
            f"has {len(ranked)} trained models and no metric to choose by",
            evidence=", ".join(f"{model.name} ({model.model_id})" for model in ranked[:5]),
            hint="name one by its model id",
        )
    return BestModel(model=best, reason=_reason(best, value, ranked, metric))


def score(model: TrainedModel, metric: str = "") -> float | None:
    """Return a model's metric at its own epoch: the mean, or the average precision of the class of that name."""
    if metric.lower() in MEAN:
        return model.mean_average_precision
    classes = dict(model.average_precision)
    return classes.get(metric, {name.lower(): value for name, value in classes.items()}.get(metric.lower()))


def _reason(best: TrainedModel, value: float, ranked: Sequence[TrainedModel], metric: str) -> str:
    others = [other for other in (score(model, metric) for model in ranked[1:]) if other is not None]
    name = next((name for name, _ in best.average_precision if name.lower() == metric.lower()), metric)
    what = "mean average precision" if metric.lower() in MEAN else f"average precision for {name}"
    at_epoch = f" at epoch {best.epoch}" if best.epoch is not None else ""
    equals = sum(other == value for other in others)
    runner_up = f", the next {max(others):.4f}" if others else ""
    if equals:
        runner_up = f", {equals} more as good: what can be fetched comes first, of that what is pruned"
    without = len(ranked) - 1 - len(others)
    unknown = f", {without} without a metric at their own epoch" if without else ""
    note = f"; {best.metric_note}" if best.metric_note else ""
    return (
        f"highest {what} of {len(ranked)} models: {value:.4f}{at_epoch} (from {best.metric_source})"
        f"{runner_up}{unknown}{note}"
    )


def _rank(model: TrainedModel, metric: str) -> tuple[bool, float, bool, bool, str]:
    value = score(model, metric)
    return value is None, -(value or 0.0), not model.fetchable, not model.pruned, model.model_id


def _ours() -> dict[str, Any]:
    """Return the filter of models that may be TAO's: by the ending of their URI, and not archived."""
    endings = "|".join(suffix[1:] for suffix in SUFFIXES)
    return {
        "_any_": {"pattern": rf"\.({endings}|{endings.upper()})$", "fields": ["uri"]},
        "system_tags": ["-archived"],
        "order_by": ["-created"],
    }


def _copies_of(identifier: str, *, task: bool = False) -> dict[str, Any]:
    key = "training_task" if task else "registered_model"
    return {f"metadata.{key}.value": [identifier], **_ours()}


def _query(selectors: Selectors) -> list[dict[str, Any]]:
    filters = _ours()
    if selectors.project:
        name = f"^{re.escape(selectors.project)}$"
        found = call("projects", "get_all", name=name, only_fields=["id", "name"], search_hidden=True).get("projects")
        if not found:
            raise InputError(
                f"ClearML project {selectors.project!r}",
                "does not exist",
                hint="project names are exact, parents included: Parent/Child",
            )
        filters["project"] = [text(row, "id") for row in found]
    rows = _tagged(selectors.tags, filters) if selectors.tags else _listed(filters)
    if len(rows) >= MOST_MODELS:
        log.warning("more than %d models in %s: only the newest are looked at", MOST_MODELS, selectors)
    return rows


def _listed(filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(get_all("models", fields=["id", *MODEL_FIELDS], limit=MOST_MODELS, **filters))


def _tagged(tags: Sequence[str], filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the models that have one of these tags, or whose run has: TAO's hook tags the run, and the models that the
    SDK makes of what Keras saves inherit none of it."""
    found = {text(row, "id"): row for row in _listed({**filters, "tags": [*tags]})}
    where = {"project": filters["project"]} if "project" in filters else {}
    runs = get_all("tasks", fields=["id"], limit=MOST_MODELS, tags=[*tags], order_by=["-last_update"], **where)
    ids = [text(row, "id") for row in runs]
    for start in range(0, len(ids), IDS):
        found |= {text(row, "id"): row for row in _listed({**filters, "task": ids[start : start + IDS]})}
    return list(found.values())


def _described(rows: Iterable[dict[str, Any]], *, task: str = "", tags: Sequence[str] = ()) -> list[TrainedModel]:
    """Return the trained models among these rows, with their runs' evidence, uploads in the place of paths."""
    models = [row for row in rows if is_trained(row)]
    tasks = get_by_ids("tasks", [training_task(row) for row in models], fields=TASK_FIELDS, search_hidden=True)
    if task:
        tasks = {key: row for key, row in tasks.items() if re.search(task, text(row, "name"))}
    models = [row for row in models if training_task(row) in tasks]
    models = _without_paths([row for row in models if {*tags_of(row), *tags_of(tasks[training_task(row)])} >= {*tags}])
    wanted: dict[str, Wanted] = {}
    for row in models:
        epoch, _ = own_epoch(row)
        key = training_task(row)
        before = wanted.get(key, Wanted())
        wanted[key] = Wanted(
            epochs=before.epochs | ({epoch} if epoch is not None else set()), last=before.last or epoch is None
        )
    runs = read_runs(wanted, tasks={key: tasks[key] for key in wanted})
    return [describe(row, runs[training_task(row)]) for row in models]


def _without_paths(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what an upload stands for: a model that holds only a path, and earlier uploads of it."""
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: text(row, "created")):
        if registered := metadata(row, "registered_model"):
            newest[registered] = row
    kept = []
    for row in rows:
        registered = metadata(row, "registered_model")
        if registered and newest[registered] is not row:
            continue
        if not registered and text(row, "id") in newest and not fetchable(text(row, "uri"))[0]:
            continue
        kept.append(row)
    return kept
