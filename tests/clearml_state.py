"""All that a sandbox holds, as values that can be compared: ClearML's tasks and models, Triton, its repository."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
from command_line import CommandLine

# What a running process touches without changing anything.
VOLATILE = {"last_update", "last_change", "last_changed_by", "active_duration", "last_worker_report", "last_iteration"}


class ClearML:
    """A ClearML server, asked over its API without the SDK."""

    def __init__(self, command_line: CommandLine) -> None:
        variables = command_line.environment
        self.url = variables["CLEARML_API_HOST"]
        self.service_id = variables["CLEARML_SERVING_TASK_ID"]
        keys = (variables["CLEARML_API_ACCESS_KEY"], variables["CLEARML_API_SECRET_KEY"])
        token = httpx.post(f"{self.url}/auth.login", auth=keys, json={}, trust_env=False).json()["data"]["token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def call(self, name: str, **fields: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/v2.23/{name}", headers=self.headers, json=fields, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def tasks(self, **wanted: Any) -> list[dict[str, Any]]:
        return self.call("tasks.get_all_ex", page_size=500, page=0, search_hidden=True, **wanted)["tasks"]

    def models(self) -> list[dict[str, Any]]:
        return self.call("models.get_all_ex", page_size=500, page=0)["models"]

    def operations(self, endpoint: str) -> list[dict[str, Any]]:
        """The operations on an endpoint of the sandbox's serving service, oldest first, with their properties."""
        found = []
        for task in self.tasks(parent=self.service_id, order_by=["created"]):
            items = (task.get("hyperparams") or {}).get("properties") or {}
            properties = {name: item.get("value", "") for name, item in items.items()}
            if properties.get("endpoint") == endpoint:
                found.append({"id": task["id"], "status": task["status"], **properties})
        return found

    def configured(self, name: str) -> str:
        """A configuration object of the serving service, as text."""
        (task,) = self.tasks(id=[self.service_id])
        return str((task["configuration"].get(name) or {}).get("value") or "")


def everything(command_line: CommandLine) -> dict[str, Any]:
    """ClearML's tasks and models, the files of Triton's repository with their times, and what Triton has loaded."""
    clearml = ClearML(command_line)
    home = Path(command_line.environment["TAO2SERVE_HOME"])
    return {
        # An inference instance says what it has applied, when it does, in its own task and on the service's console.
        "tasks": sorted(
            (_lasting(task) for task in clearml.tasks() if task["type"] != "inference"), key=lambda task: task["id"]
        ),
        "models": sorted((_lasting(model) for model in clearml.models()), key=lambda model: model["id"]),
        "uploads": _tree(home / "sandbox" / "clearml-server" / "files"),
        "repository": _tree(Path(command_line.environment["TAO2SERVE_MODEL_REPOSITORY"])),
        "loads": (home / "sandbox" / "logs" / "triton.log").read_text(errors="replace").count('] "loading: '),
    }


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """What differs between two answers of `everything`, each with its path: short enough to be read."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        return [line for name in names for line in changes(before.get(name), after.get(name), f"{path}/{name}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for index, (one, other) in pairs for line in changes(one, other, f"{path}/{index}")]
    return [] if before == after else [f"{path}: {str(before)[:200]} -> {str(after)[:200]}"]


def _lasting(document: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in document.items() if name not in VOLATILE}
    # The inference instance reports of itself: machine metrics and what its process is doing.
    for name in ("last_metrics", "runtime", "metric_stats"):
        kept.pop(name, None)
    return json.loads(json.dumps(kept, sort_keys=True))


def _tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(
            folder
        ).as_posix(): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "__pycache__"
    }
