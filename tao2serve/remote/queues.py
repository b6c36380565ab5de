"""ClearML's queues and the workers that serve them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tao2serve.errors import ServiceError
from tao2serve.registry.calls import call, get_all, text
from tao2serve.registry.session import translated

__all__ = ["Queue", "find_queue", "list_queues", "queues_in_words", "unserved"]

MOST = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue, how many tasks wait in it, and the workers that take them."""

    id: str
    name: str
    waiting: int
    workers: tuple[str, ...] = ()

    def __str__(self) -> str:
        served = f"served by {', '.join(self.workers)}" if self.workers else "served by no worker"
        return f"{self.name}: {served}, {self.waiting} waiting"


def list_queues() -> tuple[Queue, ...]:
    """Return all queues, by name; a worker counts until it has been silent for the time it registered for."""
    with translated("ClearML", "did not list its queues"):
        rows = list(get_all("queues", fields=["id", "name", "entries"], limit=MOST))
        listed = call("workers", "get_all").get("workers")
    workers = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return tuple(sorted((_queue(row, workers) for row in rows), key=lambda queue: queue.name))


def find_queue(name: str) -> Queue:
    """Return the queue of this name or id; raises ServiceError, with those there are, if there is none."""
    queues = list_queues()
    for queue in queues:
        if name in (queue.name, queue.id):
            return queue
    raise ServiceError(
        f"queue {name!r}",
        "does not exist in ClearML",
        evidence=queues_in_words(queues),
        hint="name one of these, or make it: ClearML's web app, Workers and Queues, or an agent started with "
        "--create-queue",
    )


def unserved(queue: Queue) -> ServiceError:
    """The error of a queue that nobody takes tasks from."""
    return ServiceError(
        f"queue {queue.name!r}",
        "is served by no worker, so nothing in it would run",
        evidence=queues_in_words(list_queues()),
        hint=f"start one: clearml-agent daemon --queue {_quoted(queue.name)}; in the sandbox: tao2serve sandbox up "
        "--agent; or wait for one to come: --queue-wait 10m",
    )


def queues_in_words(queues: Sequence[Queue]) -> str:
    """Return the queues, one a line."""
    return "\n".join(map(str, queues)) or "ClearML has no queues"


def _queue(row: dict[str, Any], workers: Sequence[dict[str, Any]]) -> Queue:
    identifier = text(row, "id")
    entries = row.get("entries")
    return Queue(
        id=identifier,
        name=text(row, "name"),
        waiting=len(entries) if isinstance(entries, list) else 0,
        workers=tuple(sorted(text(worker, "id") for worker in workers if identifier in _served(worker))),
    )


def _served(worker: dict[str, Any]) -> set[str]:
    queues = worker.get("queues")
    return {text(queue, "id") for queue in queues} if isinstance(queues, list) else set()


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"
