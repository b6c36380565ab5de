"""The inference instances of a serving service, as they report to ClearML: which live, and what each has applied.

clearml-serving 1.3.5 gives every inference container a task of its own (`setup_task`: type inference, system tag
`service`), whose `endpoints` and `canary` it writes after each change that it has applied (end of `deserialize`).
The task does not name its serving service, but its console does: `[service_id=…]`, `configuration sync every X sec`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.registry.session import clearml, translated
from tao2serve.serving.state import ServiceState, parse_state

__all__ = ["SILENCE_S", "Instance", "Instances", "poll_of", "read_state", "server_time", "state_of"]

log = logging.getLogger(__name__)

# The SDK's worker thread touches its task every 30 s (`development.worker.ping_period_sec`): four beats missed.
SILENCE_S: Final = 120.0
DEFAULT_POLL_S: Final = 300.0  # clearml-serving's own: five minutes
OBJECTS: Final = ("endpoints", "canary", "model_monitoring_eps")
FIELDS: Final = (
    *("id", "name", "project", "status", "last_update", "runtime"),
    *(f"configuration.{name}" for name in OBJECTS),
)
LOG_LINES: Final = 200
ASK_AGAIN_S: Final = 5.0  # one that is just starting says it in a moment
SERVICE_ID: Final = re.compile(r"\[service_id=(\w+)\]")
SYNC: Final = re.compile(r"configuration sync every ([0-9.]+) sec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One inference service process group; `state` is what it says it serves."""

    task_id: str
    host: str
    silent_s: float
    poll_s: float | None
    state: ServiceState

    @property
    def is_alive(self) -> bool:
        """Whether it gave a sign lately; one that was killed stays `in_progress` in ClearML for hours."""
        return self.silent_s <= SILENCE_S

    def __str__(self) -> str:
        return f"instance {self.task_id[:8]} on {self.host or 'an unknown host'}"


@dataclass(slots=True)
class Instances:
    """Reads the instances of one serving service; what a console said is asked once."""

    service_id: str
    _api: Any = None
    _service: list[Any] | None = None  # its own task, asked for once: whoever waits reads the instances many times
    _consoles: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)  # when, for those that have not said all of it

    def read(self) -> tuple[Instance, ...]:
        """Return those that ClearML holds as running, the dead among them included (`is_alive`).

        Raises ServiceError if ClearML does not answer.
        """
        clearml()
        with translated("ClearML", "did not list the inference instances"):
            from clearml.backend_api.session.client import APIClient

            self._api = self._api or APIClient()
            if self._service is None:
                named = self._api.tasks.get_all(id=[self.service_id], only_fields=["id", "name", "project"])
                self._service = [task.data for task in named]
            home = self._service[0] if self._service else None
            tasks = self._api.tasks.get_all(
                type=["inference"], status=["in_progress"], system_tags=["service"], only_fields=list(FIELDS),
                page=0, page_size=500,
            )  # fmt: skip
            now = server_time()
            return tuple(instance for task in tasks if (instance := self._instance(task.data, home, now)) is not None)

    def close(self) -> int:
        """Mark all of them as stopped, and return how many: for whoever knows that none runs.

        Others would wait for one that was killed until it has been silent for long enough.
        """
        found = self.read()
        with translated("ClearML", "did not close the tasks of inference services that are gone"):
            for instance in found:
                self._api.tasks.stopped(task=instance.task_id, force=True, status_reason="its process is gone")
        return len(found)

    def _instance(self, task: Any, home: Any, now: datetime) -> Instance | None:
        service_id, poll_s = self._console(task.id)
        if not service_id and home is not None:
            # An old console may have been trimmed; clearml-serving's own name for it is the next best.
            is_named_so = task.name == f"{home.name} - serve instance" and task.project == home.project
            service_id = self.service_id if is_named_so else ""
        if service_id != self.service_id:
            return None
        last = task.last_update
        return Instance(
            task_id=task.id,
            host=str((task.runtime or {}).get("hostname") or ""),
            silent_s=max((now - last).total_seconds(), 0.0) if last is not None else float("inf"),
            poll_s=poll_s,
            state=state_of(task),
        )

    def _console(self, task_id: str) -> tuple[str, float | None]:
        """Return which service it serves and how often it looks, as its first lines say: "" and None if they do not."""
        known, now = self._consoles.get(task_id), time.monotonic()
        if known is not None and (all(known) or now - self._asked[task_id] < ASK_AGAIN_S):
            return known
        said = _said(self._lines(task_id, navigate_earlier=False))
        if not all(said):  # a continued task's last start is at the end
            said = _said(self._lines(task_id, navigate_earlier=True))
        self._consoles[task_id], self._asked[task_id] = said, now
        return said

    def _lines(self, task_id: str, *, navigate_earlier: bool) -> list[str]:
        answer = self._api.events.get_task_log(task=task_id, batch_size=LOG_LINES, navigate_earlier=navigate_earlier)
        events = answer.response.to_dict().get("events") or ()
        ordered = sorted(events, key=lambda event: float(event.get("timestamp") or 0))
        return [str(event.get("msg") or "") for event in ordered]


def _said(lines: Sequence[str]) -> tuple[str, float | None]:
    text = "\n".join(lines)
    services, polls = SERVICE_ID.findall(text), SYNC.findall(text)
    return (services[-1] if services else ""), (float(polls[-1]) if polls else None)


def poll_of(instances: Sequence[Instance], settings: Settings) -> float:
    """Return how many seconds may pass until every living instance has looked: the setting, else the slowest of them.

    What says nothing counts with clearml-serving's own five minutes.
    """
    if settings.serving_poll_s is not None:
        return settings.serving_poll_s
    alive = [instance for instance in instances if instance.is_alive]
    return max((instance.poll_s or DEFAULT_POLL_S for instance in alive), default=DEFAULT_POLL_S)


def read_state(service_id: str, *, api: Any = None) -> ServiceState:
    """Return what the service is configured to do now, by one request that changes nothing."""
    clearml()
    with translated(f"serving service {service_id}", "could not be read"):
        from clearml.backend_api.session.client import APIClient

        found = (api or APIClient()).tasks.get_all(id=[service_id], only_fields=list(FIELDS))
        if not found:
            raise LookupError("ClearML has no such task")
        return state_of(found[0].data)


def state_of(task: Any) -> ServiceState:
    """Return the configuration objects of a task of the API as a value."""
    held: Mapping[str, Any] = task.configuration or {}
    return parse_state({name: _document(held[name].value or "") for name in OBJECTS if name in held})


@lru_cache(maxsize=64)  # two endpoints take 50 ms to parse, and who waits reads the same text many times
def _document(text: str) -> Mapping[str, Any]:
    """Configuration objects are HOCON, as the SDK writes dictionaries."""
    if not text.strip():
        return {}
    from clearml.utilities.config import text_to_config_dict

    document: Mapping[str, Any] = text_to_config_dict(text)
    return document


def server_time() -> datetime:
    """Return the ClearML server's time, by which the dates it gives are to be judged; ours if it does not tell."""
    import httpx
    from clearml.backend_api.session import Session

    try:
        answer = httpx.get(f"{Session.get_api_server_host()}/debug.ping", timeout=10.0, verify=False)  # noqa: S501
        return parsedate_to_datetime(answer.headers["date"])
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
        log.info("the ClearML server does not tell its time", exc_info=True)
        return datetime.now(UTC)
