"""The ClearML task of an adopted training: what it is called, says of itself and was made from."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Final

from tao2serve import __version__
from tao2serve.errors import ServiceError
from tao2serve.identity import Holder, holder
from tao2serve.registry.adoption.find import (
    HOLDER,
    RUN,
    SPEC,
    STATE,
    AdoptedRun,
    Tracked,
    find_adopted,
    identity,
    read_adopted,
    spec_digest,
)
from tao2serve.registry.adoption.lineage import MadeFrom
from tao2serve.registry.adoption.plan import ChosenWeights
from tao2serve.registry.calls import call, text
from tao2serve.registry.evidence import Evidence
from tao2serve.registry.session import clearml
from tao2serve.tao.results import Results

__all__ = ["Adoption", "missing_from", "new_about", "note", "open_task"]

SPEC_OBJECT: Final = "experiment_spec"
TAGS, MADE_FROM, EXPERIMENT = "tags", "what it was made from", "the spec"
SILENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """All that goes into ClearML of one results folder, and what is there of it."""

    results: Results
    chosen: tuple[ChosenWeights, ...]
    evidence: tuple[Evidence, ...]
    project: str
    name: str  # of the task
    tags: tuple[str, ...]
    command: str  # of the training
    made_from: MadeFrom
    storage: str
    found: AdoptedRun | None = None
    tracked: Tracked | None = None


def missing_from(adoption: Adoption) -> tuple[ChosenWeights, ...]:
    """Return the weights that ClearML does not hold yet."""
    found = adoption.found
    return tuple(one for one in adoption.chosen if found is None or found.held(one.sha256) is None)


def open_task(adoption: Adoption) -> AdoptedRun:
    """Return the task, running: a new one, or the one there is, with what is new of its description."""
    found = adoption.found
    if found is None:
        run = _created(adoption)
    else:
        if found.status == "published":
            raise ServiceError(
                f"ClearML task {found.task_id}", "is published, and takes nothing more",
                evidence=f"{len(missing_from(adoption))} models of {adoption.results.folder} are not in it",
                hint="adopt the folder under another --task",
            )  # fmt: skip
        _require_idle(found)
        call("tasks", "started", task=found.task_id, force=True)
        _describe_again(adoption, found)
        run = found
    if adoption.made_from.model_id and adoption.made_from.model_id not in run.inputs:
        made_from = adoption.made_from
        call(
            "tasks", "add_or_update_model", task=run.task_id, model=made_from.model_id, name=made_from.name,
            type="input",
        )  # fmt: skip
    return run


def _created(adoption: Adoption) -> AdoptedRun:
    """Make the task in one call: there is never one that does not say which run it is."""
    from clearml.backend_interface.util import get_or_create_project

    project = str(get_or_create_project(clearml().Task._get_default_session(), adoption.project))
    spec = adoption.results.spec
    made = call(
        "tasks", "create", name=adoption.name, type="training", project=project, tags=list(adoption.tags),
        comment=_comment(adoption),
        configuration={SPEC_OBJECT: _spec_object(adoption.results)},
        hyperparams={"properties": _section("properties", _properties(adoption)),
                     "Args": _section("Args", _arguments(adoption))},
        execution={"model_labels": {name: index for index, name in enumerate(spec.classes)}},
        script={"binary": "detectnet_v2", "entry_point": adoption.command, "working_dir": "."},
        **({"parent": adoption.made_from.task_id} if adoption.made_from.task_id else {}),
    )  # fmt: skip
    task_id = text(made, "id")
    # Two that begin at once both make one: the older stays.
    contents = [one.sha256 for one in adoption.chosen]
    oldest = find_adopted(adoption.project, adoption.results, name=adoption.name, contents=contents)
    if oldest is not None and oldest.task_id != task_id:
        call("tasks", "delete", task=task_id, force=True)
        raise _busy(oldest.task_id, "it began at the same moment")
    call("tasks", "started", task=task_id, force=True)
    run = read_adopted(task_id)
    if run is None:
        raise ServiceError(f"ClearML task {task_id}", "was made, and is not there")
    return run


def new_about(adoption: Adoption) -> tuple[str, ...]:
    """Return what of its description a task that is there does not say yet, in words."""
    found, made_from = adoption.found, adoption.made_from
    if found is None:
        return ()
    news = {
        TAGS: not {*adoption.tags} <= {*found.tags},
        MADE_FROM: (made_from.task_id not in ("", found.parent) or made_from.model_id not in ("", *found.inputs)),
        EXPERIMENT: found.properties.get(SPEC) != spec_digest(adoption.results),
    }
    return tuple(name for name, is_new in news.items() if is_new)


def _describe_again(adoption: Adoption, found: AdoptedRun) -> None:
    """Bring tags, parent and spec of a task up to what the folder and the command say now; nothing is taken away."""
    task_id, news = found.task_id, new_about(adoption)
    if TAGS in news:
        call("tasks", "update", task=task_id, tags=sorted({*found.tags, *adoption.tags}))
    if MADE_FROM in news and adoption.made_from.task_id:
        call("tasks", "edit", task=task_id, parent=adoption.made_from.task_id, force=True)
    if EXPERIMENT in news:
        call(
            "tasks", "edit_configuration", task=task_id, configuration=[_spec_object(adoption.results)],
            replace_configuration="none", force=True,
        )  # fmt: skip
    note(task_id, {**_properties(adoption), STATE: ""})


def _spec_object(results: Results) -> dict[str, str]:
    content = results.spec_path.read_text(encoding="utf-8", errors="replace")
    return {"name": SPEC_OBJECT, "value": content, "type": "txt"}


def _section(section: str, values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"section": section, "name": name, "value": value} for name, value in values.items() if value}


def note(task_id: str, values: Mapping[str, str]) -> None:
    """Write user properties, which a task takes whatever its status."""
    items = [{"section": "properties", "name": name, "value": value} for name, value in values.items()]
    call("tasks", "edit_hyper_params", task=task_id, hyperparams=items, force=True)


def _properties(adoption: Adoption) -> dict[str, str]:
    """Return what is known of the run beside its spec: when, with what, how it ended."""
    results = adoption.results
    status = results.status
    told = {
        RUN: identity(results),
        SPEC: spec_digest(results),
        HOLDER: json.dumps(asdict(holder())),
        "results_folder": f"{socket.gethostname()}:{results.folder}",
        "training_command": adoption.command,
        "training_begun": str(results.begun or ""),
        "training_ended": str(results.ended or ""),
        "tao_status": status.records[-1].status if status else "",
        "parameters_millions": str((status and status.param_count_millions) or ""),
        "made_from": adoption.made_from.how,
        "tracked_by_tao_as": adoption.tracked.task_id if adoption.tracked else "",
        "adopted_with": f"tao2serve {__version__}",
    }
    return {name: value for name, value in told.items() if value}


def _arguments(adoption: Adoption) -> dict[str, str]:
    """Return the arguments of `detectnet_v2 train` as TAO's hook would show them, those that the folder tells."""
    training, model = adoption.results.spec.training, adoption.results.spec.model
    finals = [one.name for one in adoption.chosen if one.file.role == "final"]
    return {
        "experiment_spec_file": str(adoption.results.spec_path),
        "results_dir": str(adoption.results.folder),
        "model_name": finals[0] if finals else "",
        "num_epochs": str(training.num_epochs or "") if training else "",
        "batch_size_per_gpu": str(training.batch_size_per_gpu or "") if training else "",
        "arch": f"{model.arch}{model.num_layers or ''}" if model else "",
    }


def _comment(adoption: Adoption) -> str:
    tracked = adoption.tracked
    beside = f"\nTAO's own record of this run is task {tracked.task_id}, {tracked.name}" if tracked else ""
    return (
        f"Adopted by tao2serve {__version__} from {socket.gethostname()}:{adoption.results.folder} on "
        f"{datetime.now(UTC):%Y-%m-%d}: a finished TAO training, reported from the files that it left{beside}"
    )


def _require_idle(found: AdoptedRun) -> None:
    """Raise ServiceError if another process is adopting this run: one that lives here, or gave a sign lately."""
    if found.status != "in_progress":
        return
    try:
        said = json.loads(found.properties.get(HOLDER, ""))
        by = Holder(**{field.name: said[field.name] for field in fields(Holder)})
    except (ValueError, TypeError, KeyError):
        return
    if by.is_gone():
        return
    if by.is_here():
        raise _busy(found.task_id, str(by))
    try:
        silent_s = (datetime.now(UTC) - datetime.fromisoformat(found.last_update)).total_seconds()
    except (ValueError, TypeError):
        return
    if silent_s <= SILENCE_S:
        raise _busy(found.task_id, f"{by}, {silent_s:.0f} s ago")


def _busy(task_id: str, evidence: str) -> ServiceError:
    return ServiceError(
        f"ClearML task {task_id}", "is being written by another adoption of the same run", evidence=evidence,
        hint="wait for it to end, then run this again",
    )  # fmt: skip
