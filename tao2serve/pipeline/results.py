"""What a step left in ClearML: its result, its outputs, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tao2serve.errors import ServiceError
from tao2serve.registry.calls import text
from tao2serve.registry.download import download
from tao2serve.registry.session import translated
from tao2serve.remote.bundle import STORE
from tao2serve.remote.follow import RunState, look
from tao2serve.remote.protocol import RESULT, output_key

__all__ = ["OutputFile", "StepResult", "read_result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A folder that a step filled, as ClearML holds it."""

    uri: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a step's command ended; `document` is its JSON, `error` what it told if it failed."""

    step: str
    task_id: str
    worker: str
    exit_code: int
    document: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    output: OutputFile | None = None


def read_result(step: str, task_id: str) -> StepResult:
    """Read what a step's task holds; raises ServiceError if it ended without a result."""
    with translated(f"ClearML task {task_id}", "could not be read"):
        state = look(task_id)
    if not state.result:
        raise ServiceError(
            f"step {step}, ClearML task {task_id}",
            f"ended without a result: {state.status}",
            evidence=state.message,
            hint="see its console in ClearML, then run the same command again",
        )
    held = _document(task_id, state)
    return StepResult(
        step=step,
        task_id=task_id,
        worker=str(held.get("worker") or state.worker),
        exit_code=int(held.get("exit_code", 1)),
        document=_parsed(str(held.get("stdout") or "")),
        error=held.get("error") or {},
        output=_output(state, held.get("outputs") or {}),
    )


def _document(task_id: str, state: RunState) -> dict[str, Any]:
    digest = text(state.artifacts[RESULT], "hash")
    path = download(state.result, subject=f"result of ClearML task {task_id}", store=STORE, sha256=digest)
    found = _parsed(path.read_text(encoding="utf-8"))
    if "exit_code" not in found:
        raise ServiceError(f"result of ClearML task {task_id}", "is not that of a command")
    return found


def _parsed(words: str) -> dict[str, Any]:
    try:
        found = json.loads(words)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _output(state: RunState, sent: Mapping[str, Any]) -> OutputFile | None:
    key = output_key(0)
    artifact = state.artifacts.get(key, {})
    size = artifact.get("content_size")
    if not sent.get(key) or not text(artifact, "uri") or not isinstance(size, int):
        return None
    return OutputFile(uri=text(artifact, "uri"), sha256=str(sent[key]), bytes=size)
