"""Watch a remote run: its state, its console as it comes, and its result once it is there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tao2serve.registry.calls import call, get_by_ids, text
from tao2serve.remote.protocol import LINE, RESULT

__all__ = ["FINAL", "Console", "RunState", "look"]

FINAL: Final = frozenset({"completed", "failed", "stopped", "closed", "published"})
BATCH: Final = 500
OVERLAP_MS: Final = 10_000  # worker and command write their lines side by side, and not in order
KEPT_LINES: Final = 30
PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What ClearML says of the task now; `result` is the URI of the last artifact, "" until it is there."""

    status: str
    message: str
    worker: str
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def result(self) -> str:
        return text(self.artifacts.get(RESULT, {}), "uri")

    @property
    def is_over(self) -> bool:
        return bool(self.result) or self.status in FINAL


def look(task_id: str) -> RunState:
    """Ask ClearML for the state of a task; one that was deleted counts as ended."""
    fields = ["status", "status_message", "status_reason", "last_worker", "execution.artifacts"]
    row = get_by_ids("tasks", [task_id], fields=fields, search_hidden=True).get(task_id)
    if row is None:
        return RunState(status="closed", message="somebody deleted it", worker="")
    artifacts = (row.get("execution") or {}).get("artifacts")
    said = [text(row, "status_reason"), text(row, "status_message")]
    return RunState(
        status=text(row, "status"),
        message=": ".join(filter(None, said)),
        worker=text(row, "last_worker"),
        artifacts={text(one, "key"): one for one in artifacts} if isinstance(artifacts, list) else {},
    )


class Console:
    """A task's console, read on from where it was: lines of the command itself apart from those of its agent."""

    def __init__(self, task_id: str, *, on_line: Callable[[str], None], on_agent: Callable[[str], None]) -> None:
        self._task_id = task_id
        self._on_line, self._on_agent = on_line, on_agent
        self._latest = 0
        self._seen: dict[str, int] = {}
        self.last: deque[str] = deque(maxlen=KEPT_LINES)  # of all, for whoever asks why it ended

    def read(self) -> None:
        """Tell what is new."""
        for event in self._new():
            message = text(event, "msg")
            for line in message.splitlines():
                if line.startswith(LINE):
                    self.last.append(line.removeprefix(LINE))
                    self._on_line(line.removeprefix(LINE))
                elif line.strip() and "access_key" not in line.lower():  # which agents print of their own
                    self.last.append(line)
                    self._on_agent(line)

    def _new(self) -> Iterator[dict[str, Any]]:
        since = max(self._latest - OVERLAP_MS, 0)
        while True:
            page = self._page(since)
            fresh = [event for event in page if self._is_fresh(event)]
            yield from fresh
            if len(page) < BATCH or not fresh:
                break
            since = self._latest - 1
        self._seen = {key: at for key, at in self._seen.items() if at >= self._latest - 2 * OVERLAP_MS}

    def _page(self, since: int) -> list[dict[str, Any]]:
        answer = call(
            "events", "get_task_log", task=self._task_id, order="asc", navigate_earlier=False,
            from_timestamp=since, batch_size=BATCH,
        )  # fmt: skip
        events = answer.get("events")
        return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []

    def _is_fresh(self, event: dict[str, Any]) -> bool:
        at = event.get("timestamp")
        stamp = at if isinstance(at, int) else 0
        key = f"{stamp} {text(event, 'worker')} {text(event, 'msg')}"
        if key in self._seen:
            return False
        self._seen[key] = stamp
        self._latest = max(self._latest, stamp)
        return True


def wait_until(condition: Callable[[], bool], *, limit_s: float) -> bool:
    """Return whether the condition came true in time; it is asked at least once."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True
