"""What ClearML already has of a results folder: the task that adopted it, or that TAO's hook made when it ran."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tao2serve.registry.calls import call, get_all, tags_of, text
from tao2serve.registry.described import MODEL_FIELDS, fetchable, metadata
from tao2serve.registry.publish import UNFINISHED, is_whole
from tao2serve.tao.results import Results

__all__ = [
    "HOLDER", "RUN", "SPEC", "STATE", "AdoptedModel", "AdoptedRun", "Tracked", "find_adopted", "find_tracked",
    "identity", "read_adopted", "spec_digest", "state_of",
]  # fmt: skip

# User properties of an adopted run's task: which run it is, of which spec, by whom, and what it holds when complete.
RUN, SPEC, HOLDER, STATE = "adopted_run", "adopted_spec", "adopted_by", "adopted_state"
TASK_FIELDS: Final = (
    "name", "status", "tags", "parent", "hyperparams.properties", "configuration", "models.input", "last_update",
    "created", "execution.artifacts",
)  # fmt: skip
MOST_TASKS: Final = 5000
MOST_MODELS: Final = 5000
HOOK_NAME: Final = re.compile(r"_(\d{2}/\d{2}/\d{2}_\d{2}:\d{2}:\d{2})$")
# TAO's hook names its task when it is called, some time after the line with which status.json begins, or before it.
HOOK_NEAR: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedModel:
    """An output model of an adopted run; `whole` if its file was uploaded to its end and is there."""

    model_id: str
    uri: str
    sha256: str
    target: str
    whole: bool

    @property
    def unfinished(self) -> bool:
        """Whether its upload never came to its end, as ClearML's client names such a one."""
        return self.uri.rpartition("/")[2] in UNFINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedRun:
    """The task that holds an adopted run, as it is now."""

    task_id: str
    name: str
    status: str
    tags: tuple[str, ...]
    parent: str
    inputs: tuple[str, ...]
    properties: Mapping[str, str]
    last_update: str
    status_hash: str  # of the status.json among its artifacts
    models: tuple[AdoptedModel, ...] = ()

    def held(self, sha256: str) -> AdoptedModel | None:
        """Return the whole model with this content."""
        return next((model for model in self.models if model.whole and model.sha256 == sha256), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """The task of TAO's own hook for the same run: it has the run's models by paths of the container, by file name."""

    task_id: str
    name: str
    registered: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # file name → model id, URI
    uploaded: tuple[str, ...] = ()  # files that can be fetched from there already


def identity(results: Results) -> str:
    """Return what tells this run from others: how its status.json begins, or its spec where there is none."""
    first = results.started
    said = f"{first.date} {first.time} {first.status} {first.message}" if first else f"spec {spec_digest(results)}"
    return hashlib.sha256(said.encode()).hexdigest()


def spec_digest(results: Results) -> str:
    """Return the SHA-256 of the spec's bytes."""
    return hashlib.sha256(results.spec_path.read_bytes()).hexdigest()


def project_id(name: str) -> str:
    """Return the id of a project, "" if there is none of this name."""
    found = call("projects", "get_all", name=f"^{re.escape(name)}$", only_fields=["id", "name"], search_hidden=True)
    rows = found.get("projects")
    return text(rows[0], "id") if rows else ""


def find_adopted(project: str, results: Results, *, name: str, contents: Iterable[str]) -> AdoptedRun | None:
    """Return the task of the project that adopted this run before, oldest first if there are several.

    It is one whose run began with the same line, and that has the same spec or a file of the same content; without a
    status.json, the same spec and the same name, or the same content.
    """
    place = project_id(project)
    if not place:
        return None
    run, spec, ours = identity(results), spec_digest(results), set(contents)
    rows = get_all(
        "tasks", fields=["id", *TASK_FIELDS], limit=MOST_TASKS, project=[place], type=["training"],
        system_tags=["-archived"], order_by=["created"],
    )  # fmt: skip
    for row in rows:
        properties = _properties(row)
        if properties.get(RUN) != run:
            continue
        models = _models(text(row, "id"))
        shares = any(model.sha256 in ours for model in models)
        same_spec = properties.get(SPEC) == spec
        if shares or (same_spec and (results.status is not None or text(row, "name") == name)):
            return _run(row, properties, models)
    return None


def read_adopted(task_id: str) -> AdoptedRun | None:
    """Return an adopted run by its task, None if there is no such task."""
    rows = list(get_all("tasks", fields=["id", *TASK_FIELDS], limit=1, id=[task_id], search_hidden=True))
    return _run(rows[0], _properties(rows[0]), _models(task_id)) if rows else None


def find_tracked(project: str, task: str, results: Results, *, files: Sequence[str]) -> Tracked | None:
    """Return the one task of TAO's hook with this name, begun within minutes of this run, that has such files.

    None if there are several: which of them it was is then not known.
    """
    begun, place = results.begun, project_id(project)
    if begun is None or not place:
        return None
    rows = get_all(
        "tasks", fields=["id", *TASK_FIELDS], limit=MOST_TASKS, project=[place], type=["training"],
        system_tags=["-archived"], name=f"^{re.escape(task)}_",
    )  # fmt: skip
    found = []
    for row in rows:
        moment = _hook_moment(text(row, "name"), task)
        if moment is None or abs(moment - begun) > HOOK_NEAR or _properties(row).get(RUN):
            continue
        registered, uploaded = _registered(text(row, "id"))
        if any(file in registered or file in uploaded for file in files):
            found.append(
                Tracked(
                    task_id=text(row, "id"), name=text(row, "name"), registered=registered,
                    uploaded=tuple(file for file in files if file in uploaded),
                )
            )  # fmt: skip
    return found[0] if len(found) == 1 else None


def _hook_moment(name: str, task: str) -> datetime | None:
    match = HOOK_NAME.search(name)
    if match is None or name != f"{task}{match.group(0)}":
        return None
    try:
        return datetime.strptime(match.group(1), "%d/%y/%m_%H:%M:%S")
    except ValueError:
        return None


def _registered(task_id: str) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """Return the models that a task registered by a path that is not here, by file name, and the other files."""
    rows = get_all("models", fields=["id", *MODEL_FIELDS], limit=MOST_MODELS, task=[task_id])
    by_path, uploaded = {}, set()
    for row in rows:
        uri = text(row, "uri")
        name = PurePosixPath(unquote(urlsplit(uri).path)).name
        if urlsplit(uri).scheme in ("", "file") and not fetchable(uri)[0]:
            by_path[name] = (text(row, "id"), uri)
        else:
            uploaded.add(name)
    return by_path, uploaded


def _models(task_id: str) -> tuple[AdoptedModel, ...]:
    rows = get_all("models", fields=["id", *MODEL_FIELDS], limit=MOST_MODELS, task=[task_id], system_tags=["-archived"])
    return tuple(
        AdoptedModel(
            model_id=text(row, "id"), uri=text(row, "uri"), sha256=metadata(row, "sha256"),
            target=metadata(row, "file_name"), whole=bool(metadata(row, "sha256")) and is_whole(text(row, "uri")),
        )
        for row in rows
    )  # fmt: skip


def _run(row: Mapping[str, Any], properties: Mapping[str, str], models: tuple[AdoptedModel, ...]) -> AdoptedRun:
    held = row.get("models")
    inputs = held.get("input") if isinstance(held, dict) else None
    execution = row.get("execution")
    artifacts = execution.get("artifacts") if isinstance(execution, dict) else None
    return AdoptedRun(
        task_id=text(row, "id"),
        name=text(row, "name"),
        status=text(row, "status"),
        tags=tags_of(row),
        parent=text(row, "parent"),
        inputs=tuple(text(item, "model") for item in inputs or ()),
        properties=properties,
        last_update=text(row, "last_update"),
        status_hash=next((text(item, "hash") for item in artifacts or () if text(item, "key") == "status.json"), ""),
        models=models,
    )


def _properties(row: Mapping[str, Any]) -> dict[str, str]:
    sections = row.get("hyperparams")
    section = sections.get("properties") if isinstance(sections, dict) else None
    return {name: text(item, "value") for name, item in section.items()} if isinstance(section, dict) else {}


def state_of(**members: object) -> str:
    """Return a digest of what a complete adoption holds."""
    return hashlib.sha256(json.dumps(members, sort_keys=True, default=str).encode()).hexdigest()
