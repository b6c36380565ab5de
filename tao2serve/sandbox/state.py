"""The sandbox's state file: what was started, where it listens, and which serving service it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tao2serve.errors import Tao2ServeError
from tao2serve.sandbox.process import ProcessRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of the four servers; 0 is a port that a sandbox of an earlier release does not have."""

    api: int
    files: int
    serving: int
    triton_http: int
    triton_grpc: int
    triton_metrics: int
    metrics: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxState:
    """Written after every start, so that `down` finds everything even when `up` was killed half-way."""

    ports: Ports
    shared_memory: str
    service_id: str = ""
    processes: tuple[ProcessRecord, ...] = ()
    ready: bool = False
    managed: bool = False  # ClearML Serving's own controller owns Triton
    agent: bool = False  # ClearML's own agent takes tasks from its queue

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.api}"

    @property
    def files_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.files}"

    @property
    def serving_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.serving}/serve"

    @property
    def triton_grpc(self) -> str:
        return f"127.0.0.1:{self.ports.triton_grpc}"


def read_state(path: Path) -> SandboxState | None:
    """Return the state, or None when there is no sandbox; raises Tao2ServeError if the file is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return SandboxState(
            ports=Ports(**document.pop("ports")),
            processes=tuple(ProcessRecord(**entry) for entry in document.pop("processes")),
            **document,
        )
    except (FileNotFoundError, NotADirectoryError):  # the latter where the home, or what holds it, is a file
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Tao2ServeError(
            str(path), "is damaged", evidence=str(error), hint="end the listed processes by hand and remove the file"
        ) from error


def read_record(path: Path) -> ProcessRecord | None:
    """Return a process recorded in a file of its own, or None if there is none that can be read."""
    try:
        return ProcessRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(state: SandboxState, path: Path) -> None:
    """Replace the state file in one step."""
    write_json(asdict(state), path)


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Replace a small JSON file in one step: a command that is cut off leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(document, indent=2), encoding="utf-8")
    staged.replace(path)
