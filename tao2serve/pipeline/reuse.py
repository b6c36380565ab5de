"""Which steps of an earlier run stand: made from the same inputs, by the same code, and what they left is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tao2serve
from tao2serve.config import Settings
from tao2serve.deployment.inputs import digest_of
from tao2serve.errors import Tao2ServeError, UsageError
from tao2serve.pipeline.course import command_of, endpoint_version
from tao2serve.pipeline.request import PipelineRequest
from tao2serve.pipeline.results import StepResult, read_result
from tao2serve.registry.calls import call, get_all, text
from tao2serve.registry.publish import held_model, is_whole
from tao2serve.registry.session import translated
from tao2serve.remote.bootstrap import package_digest
from tao2serve.remote.protocol import PARAMETERS, TAG
from tao2serve.remote.request import RemoteCommand
from tao2serve.serving.service import find_service
from tao2serve.tao.source import sha256_of

__all__ = ["KEY", "MODEL", "Choice", "key_of", "standing"]

KEY: Final = "inputs"  # the parameter of a step's task that says what it was made from
MODEL: Final = "model"
MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The trained model that the pipeline is about, and the digests of what was trained."""

    model_id: str
    name: str
    reason: str
    sha256: str
    spec_sha256: str


def key_of(
    step: str, command: RemoteCommand, choice: Choice, settings: Mapping[str, Any], before: Sequence[str]
) -> str:
    """Return the digest of all that a step is made from; `before` are the tasks of the steps before it."""
    return digest_of({
        "step": step,
        "package": package_digest(Path(tao2serve.__file__).parent),
        "arguments": command.arguments,
        "inputs": [[one.place, _content(one.path)] for one in command.inputs],
        "settings": dict(settings),
        "model": [choice.model_id, choice.sha256, choice.spec_sha256],
        "before": list(before),
    })  # fmt: skip


def standing(
    request: PipelineRequest, choice: Choice, settings: Settings, *, project: str, on_news: Callable[[str], None]
) -> dict[str, StepResult]:
    """Return the results of the first steps that need not run again.

    From the first one that does on, all do. Raises UsageError if one before `--from-step` would have to run.
    """
    earlier = _completed(project)
    found: dict[str, StepResult] = {}
    for step in request.steps:
        if step == request.from_step:
            return found
        command = command_of(step, request, choice.model_id, found)
        key = key_of(step, command, choice, request.settings, [one.task_id for one in found.values()])
        result = _standing(step, earlier.get(key, ()), found, settings, on_news)
        if result is None:
            break
        found[step] = result
    if request.from_step:
        missing = request.steps[len(found)]
        raise UsageError(
            f"--from-step {request.from_step}",
            f"cannot begin there: step {missing} has not been done from these inputs",
            hint=f"leave it out, or --from-step {missing}",
        )  # fmt: skip
    return found


def _standing(
    step: str,
    task_ids: Sequence[str],
    found: Mapping[str, StepResult],
    settings: Settings,
    on_news: Callable[[str], None],
) -> StepResult | None:
    for task_id in task_ids:
        try:
            result = read_result(step, task_id)
            why_not = _why_not(step, result, found, settings)
        except Tao2ServeError as error:
            why_not = str(error)
        if not why_not:
            return result
        on_news(f"{step} is to run again: {why_not}")
    return None


def _why_not(step: str, result: StepResult, found: Mapping[str, StepResult], settings: Settings) -> str:
    """Say why what a step left does not hold any more; "" if it does."""
    if result.exit_code:
        return f"exit code {result.exit_code}"
    if result.output is not None and not is_whole(result.output.uri):
        return f"what ClearML task {result.task_id} left is gone"
    if step == "publish":
        model_id = str((result.document.get("artifact") or {}).get("model_id") or "")
        return "" if held_model(model_id) else f"ClearML model {model_id} is gone"
    if step in ("deploy", "promote"):
        return _why_not_served(step, found.get("deploy", result), settings)
    return ""


def _why_not_served(step: str, deployed: StepResult, settings: Settings) -> str:
    name, version = endpoint_version(deployed)
    state = find_service(settings.service).state()
    entry = state.endpoints.get(f"{name}/{version}")
    model_id = str((deployed.document.get("artifact") or {}).get("model_id") or "")
    if entry is None or entry.model_id != model_id:
        return f"version {version} is not registered any more"
    weights = state.weights(name)
    if int(version) not in weights:
        return f"version {version} gets no requests any more"
    return f"version {version} has not all requests" if step == "promote" and len(weights) > 1 else ""


def _completed(project: str) -> dict[str, list[str]]:
    """Return the ids of completed step tasks by their key, the newest first."""
    with translated("ClearML", "did not list the steps of earlier runs"):
        projects = call("projects", "get_all", name=f"^{re.escape(project)}$", only_fields=["id"], search_hidden=True)
        ids = [text(row, "id") for row in projects.get("projects") or ()]
        if not ids:
            return {}
        rows = get_all(
            "tasks", fields=["id", "hyperparams"], limit=MOST, project=ids, tags=[TAG], status=["completed"],
            order_by=["-last_update"], system_tags=["-archived"], search_hidden=True,
        )  # fmt: skip
        found: dict[str, list[str]] = {}
        for row in rows:
            if key := text(row, "hyperparams", PARAMETERS, KEY, "value"):
                found.setdefault(key, []).append(text(row, "id"))
    return found


def _content(path: Path) -> str:
    """Return the digest of a file, or of a folder's files and their names."""
    if path.is_file():
        return sha256_of(path)
    return digest_of([[name, sha256_of(path / name)] for name in _names(path)])


def _names(folder: Path) -> Iterator[str]:
    yield from sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
