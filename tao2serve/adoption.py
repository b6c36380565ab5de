"""Adopt a finished TAO results folder: read it, hold it together, say what is missing in ClearML, put it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.errors import UsageError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.execution import open_model
from tao2serve.export.signature import check_against_spec
from tao2serve.loadtest.addresses import shown_url
from tao2serve.registry.adoption.adopt import Uploaded, adopt, is_complete
from tao2serve.registry.adoption.find import AdoptedRun, Tracked, find_adopted, find_tracked
from tao2serve.registry.adoption.lineage import MadeFrom, find_made_from
from tao2serve.registry.adoption.plan import (
    Choice,
    ChosenWeights,
    choose_weights,
    evidence_of,
    task_name,
    training_command,
)
from tao2serve.registry.adoption.task import Adoption, missing_from
from tao2serve.registry.publish import require_storage
from tao2serve.registry.session import clearml, require_configured, translated
from tao2serve.steps import Step, Steps
from tao2serve.tao.hdf5 import is_hdf5
from tao2serve.tao.project_name import SHORTEST_NAME, too_short_in
from tao2serve.tao.results import Results, read_results

__all__ = ["AdoptionRequest", "Outcome", "adopt_results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionRequest:
    """What the user asks for; empty names are taken from the spec's own clearml_config, if it has one."""

    folder: Path
    spec: Path | None = None
    log: Path | None = None
    project: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()
    checkpoints: Choice = "best"
    made_from: str = ""
    plan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is planned, or was done: `uploaded` is None for a plan; `notes` are what the user must know."""

    adoption: Adoption
    uploaded: Uploaded | None
    notes: tuple[str, ...]
    steps: Steps

    @property
    def missing(self) -> tuple[ChosenWeights, ...]:
        """The weights that ClearML did not hold before."""
        return missing_from(self.adoption)

    @property
    def complete_before(self) -> bool:
        """Whether there was nothing to add."""
        return is_complete(self.adoption)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve adopt`."""
        adoption, missing = self.adoption, {one.sha256 for one in self.missing}
        task_id = self.uploaded.task_id if self.uploaded else adoption.found.task_id if adoption.found else None
        return {
            "outcome": "planned" if self.uploaded is None else "ok" if self.uploaded.added else "unchanged",
            "folder": str(adoption.results.folder),
            "project": adoption.project,
            "task": adoption.name,
            "task_id": task_id,
            "tags": list(adoption.tags),
            "spec": str(adoption.results.spec_path),
            "classes": list(adoption.results.spec.classes),
            "training_command": adoption.command,
            "storage": shown_url(adoption.storage),
            "models": [_described(one, self.uploaded, adoption, uploads=one.sha256 in missing)
                       for one in adoption.chosen],
            "upload_bytes": sum(one.file.bytes for one in self.missing),
            "left_out": [str(path) for path in left_out(adoption.results, adoption.chosen)],
            "made_from": {
                "model_id": adoption.made_from.model_id or None,
                "task_id": adoption.made_from.task_id or None,
                "how": adoption.made_from.how,
            },
            "tracked_by_tao_as": adoption.tracked.task_id if adoption.tracked else None,
            "added": list(self.uploaded.added) if self.uploaded else None,
            "notes": list(self.notes),
            "steps": self.steps.to_list(),
        }  # fmt: skip


def adopt_results(request: AdoptionRequest, *, steps: Steps) -> Outcome:
    """Put a results folder into ClearML, or with `plan` say what that would be; what is there is not sent again.

    Raises InputError for a folder, spec or weights that are no finished training of DetectNet_v2 or not of one,
    UsageError without names for project and task, ServiceError if ClearML does not take it or has no storage.
    """
    with steps.step("read the results folder") as step:
        results = read_results(request.folder, spec=request.spec, log=request.log)
        project, task, tags = _names(request, results)
        require_configured()  # the weights, gigabytes perhaps, are read after this
        chosen = choose_weights(results, request.checkpoints)
        evidence = evidence_of(results)
        step.note(_in_words(results, chosen))
    with steps.step("hold the weights against the spec") as step:
        unread = _check(results, chosen)
        step.note("; ".join([f"{', '.join(results.spec.classes)}: they fit", *unread]))
    with steps.step("look into ClearML") as step:
        clearml()
        storage = require_storage()
        name = task_name(task, results.begun)
        with translated("ClearML", "could not be asked about this run"):
            found = find_adopted(project, results, name=name, contents=[one.sha256 for one in chosen])
            files = [file.path.name for file in results.weights]
            tracked = find_tracked(project, task, results, files=files)
            adoption = Adoption(
                results=results,
                chosen=chosen,
                evidence=evidence,
                project=project,
                name=found.name if found else name,
                tags=tags,
                command=training_command(results, chosen),
                made_from=_made_from(results, project, request.made_from, found, tracked, step),
                storage=storage,
                found=found,
                tracked=tracked,
            )
        step.note("; ".join(_said(adoption)))
    notes = (*results.notes, *_about(adoption), *unread)
    uploaded = None if request.plan else adopt(adoption, steps=steps)
    return Outcome(adoption=adoption, uploaded=uploaded, notes=notes, steps=steps)


def _made_from(
    results: Results, project: str, named: str, found: AdoptedRun | None, tracked: Tracked | None, step: Step
) -> MadeFrom:
    """Return what the run was made from; what was found when it was adopted before stands, unless one is named."""
    if found is not None and found.parent and not named:
        how = found.properties.get("made_from", "as it was adopted before")
        return MadeFrom(model_id=next(iter(found.inputs), ""), task_id=found.parent, name="its parent", how=how)
    itself = [task.task_id for task in (found, tracked) if task is not None]
    return find_made_from(results, project=project, named=named, other_than=itself, on_news=step.news)


def left_out(results: Results, chosen: Sequence[ChosenWeights]) -> tuple[Path, ...]:
    """Return the files of weights that are not wanted; one of the same content as a wanted one is among them."""
    wanted = {one.file.path for one in chosen}
    return tuple(file.path for file in results.weights if file.path not in wanted)


def _names(request: AdoptionRequest, results: Results) -> tuple[str, str, tuple[str, ...]]:
    """Return project, task and tags; raises UsageError if a name is missing or too short for ClearML."""
    said = results.spec.clearml
    project = request.project or (said.project if said else "")
    task = request.task or (said.task if said else "")
    for option, value in (("--project", project), ("--task", task)):
        if not value:
            raise UsageError(
                option, "is missing, and the experiment spec has no clearml_config to take it from",
                hint=f"name it: {option} NAME",
            )  # fmt: skip
        short = too_short_in(value) if option == "--project" else value if len(value.strip()) < SHORTEST_NAME else None
        if short is not None:
            raise UsageError(
                option, f"is {value!r}, and ClearML takes no name shorter than {SHORTEST_NAME} characters",
                evidence=f"{short!r}" if short != value else "",
            )  # fmt: skip
    if any(not tag.strip() for tag in request.tags):
        raise UsageError("--tag", "is empty", hint="give a name, or leave it out")
    tags = request.tags or (said.tags if said and not request.project else ())
    return project, task, tuple(dict.fromkeys(tags))


def _check(results: Results, chosen: Sequence[ChosenWeights]) -> tuple[str, ...]:
    """Raise InputError if weights are no network of this spec; return what could not be looked into."""
    unread = []
    for one in chosen:
        path = one.file.path
        if is_hdf5(path):
            check_against_spec(open_model(path).signature, results.spec, subject=str(path))
        elif path.suffix.lower() == ".onnx":
            accept_onnx(path, spec=results.spec)
        elif path.suffix.lower() == ".hdf5":
            open_model(path)  # which says what it is not
        else:
            unread.append(f"{path.name} is encrypted, and was not held against the spec")
    return tuple(unread)


def _in_words(results: Results, chosen: Sequence[ChosenWeights]) -> str:
    files = len(results.weights)
    said = [f"{files} file{'s' * (files != 1)} of weights, {len(chosen)} wanted"]
    if results.begun:
        said.append(f"begun {results.begun:%Y-%m-%d %H:%M:%S}")
    best = [one for one in chosen if one.mean_average_precision is not None]
    if best:
        top = max(best, key=lambda one: one.mean_average_precision or 0.0)
        said.append(f"mAP {top.mean_average_precision:.4f} at epoch {top.epoch}")
    return ", ".join(said)


def _said(adoption: Adoption) -> list[str]:
    found = adoption.found
    said = [f"adopted before, as ClearML task {found.task_id}"] if found else ["not there yet"]
    if adoption.tracked:
        said.append(f"TAO's own record of it is ClearML task {adoption.tracked.task_id}")
    if adoption.made_from.model_id:
        said.append(f"made from {adoption.made_from.name}")
    return said


def _about(adoption: Adoption) -> list[str]:
    """Return what the user must know of lineage, of a run that did not end, and of files that stay."""
    notes, results = [], adoption.results
    made_from = adoption.made_from
    if made_from.model_id:
        notes.append(f"made from {made_from.name} ({made_from.model_id}): {made_from.how}")
    elif results.spec.model and results.spec.model.load_graph:
        notes.append(f"what it was made from is not known: {made_from.how}; name it with --made-from ID")
    tracked = adoption.tracked
    if tracked is not None and tracked.uploaded:
        notes.append(
            f"ClearML has {', '.join(tracked.uploaded[:3])} of this run already, in task {tracked.task_id} of TAO's "
            "own: adopting it makes a second task of one run"
        )
    if results.ended_well is False:
        notes.append("status.json does not end with SUCCESS: the task will be stopped, not completed")
    if adoption.found and adoption.found.name != adoption.name:
        notes.append(f"it was adopted before as {adoption.found.name}, and keeps that name")
    unknown = [file.path.name for file in results.weights if file.role == "checkpoint" and file.epoch is None]
    if unknown:
        notes.append(f"nothing tells the epoch of {', '.join(unknown[:3])}: not uploaded")
    return notes


def _described(one: ChosenWeights, uploaded: Uploaded | None, adoption: Adoption, *, uploads: bool) -> dict[str, Any]:
    held = adoption.found.held(one.sha256) if adoption.found else None
    model_id = uploaded.models[one.sha256] if uploaded else held.model_id if held else None
    return {
        "path": str(one.file.path),
        "bytes": one.file.bytes,
        "sha256": one.sha256,
        "model_id": model_id,
        "epoch": one.epoch,
        "mean_average_precision": one.mean_average_precision,
        "average_precision": dict(one.reading.average_precision) if one.reading else {},
        "metric_source": one.reading.source if one.reading else "",
        "why": one.why,
        "upload": uploads,
    }
