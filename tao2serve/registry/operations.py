"""The operations on the endpoints of a serving service, running and past, as ClearML holds them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.identity import Holder
from tao2serve.registry.claims import HOLDING, NOTHING, WANTING, Claim, ClaimState
from tao2serve.registry.session import clearml, translated

__all__ = [
    "CLAIM",
    "ENDPOINT",
    "HOLDER",
    "KIND",
    "MANAGED",
    "SERVICE",
    "SILENCE_S",
    "TAG",
    "TRAINED",
    "TRIED",
    "TURN",
    "VERSION",
    "OperationRecord",
    "discard",
    "held_by_another",
    "list_operations",
    "mark",
    "read_records",
]

log = logging.getLogger(__name__)

TAG: Final = "tao2serve"
# Properties that every operation's task has.
KIND, ENDPOINT, SERVICE, HOLDER, CLAIM, TURN = "kind", "endpoint", "service", "holder", "claim", "turn"
# An operation that gave no sign for so long, and whose process cannot be looked for, is taken to have ended.
SILENCE_S: Final = 60.0
VERSION: Final = "version"  # what an operation notes as soon as it knows which one it is about
TRIED: Final = "tried"  # what a tuning notes: the versions, as 5,6, that it serves its candidates under
MANAGED: Final = "managed"  # what a deployment for ClearML Serving's own Triton controller notes: "true"
TRAINED: Final = "trained model"  # as what a deployment shows the model that it was made from among its input models
DONE: Final = ("completed", "published", "closed")
PAGE: Final = 200
FIELDS: Final = (
    "id", "name", "status", "status_message", "created", "last_update", "tags", "hyperparams.properties",
    "models.input",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRecord:
    """One operation: a deployment, a promotion, a rollback …; dates are the server's."""

    task_id: str
    kind: str
    endpoint: str
    status: str  # ClearML's: in_progress, completed, failed, stopped
    created: datetime
    last_update: datetime
    holder: Holder | None  # None if what is written there cannot be read
    properties: Mapping[str, str]
    message: str = ""
    trained_id: str = ""  # the ClearML model that a deployment was made from; "" if that was a file

    def __str__(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        return (
            f"{self.kind} {self.endpoint}{by}, since {self.created:%Y-%m-%d %H:%M:%S} UTC, ClearML task {self.task_id}"
        )

    @property
    def version(self) -> int | None:
        """The version of the endpoint that it is about; None if it names none, or did not get so far."""
        text = self.properties.get(VERSION, "")
        return int(text) if text.isdigit() else None

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions of the endpoint that it is about: a tuning may be about several."""
        tried = tuple(int(text) for text in self.properties.get(TRIED, "").split(",") if text.isdigit())
        return tried or (() if self.version is None else (self.version,))

    @property
    def is_done(self) -> bool:
        """Whether it came to its end without a failure."""
        return self.status in DONE

    @property
    def is_gone(self) -> bool:
        """Whether it did not end, and its process is known to be gone; that is seen from where it ran only."""
        return self.status in ("created", "in_progress") and self.holder is not None and self.holder.is_gone()

    @property
    def is_running(self) -> bool:
        """Whether it runs as far as ClearML knows; its process may be gone."""
        return self.status == "in_progress"

    def goes_on(self, now: datetime) -> bool:
        """Whether it runs, as far as anybody can know; `now` is by the server's clock.

        Where its process can be looked for that alone tells: one that was stopped for long may go on at any moment.
        """
        if not self.is_running or (self.holder is not None and self.holder.is_gone()):
            return False
        if self.holder is not None and self.holder.is_here():
            return True
        return (now - self.last_update).total_seconds() <= SILENCE_S

    def claim(self, scope: str) -> Claim:
        """Return what it says of its endpoint (CLAIM), or of the service's configuration (TURN)."""
        states: dict[str, ClaimState] = {WANTING: WANTING, HOLDING: HOLDING}
        state = states.get(self.properties.get(scope, ""), NOTHING)
        return Claim(owner=self.task_id, order=(self.created.isoformat(), self.task_id), state=state)


def held_by_another(endpoint: str, who: str) -> ServiceError:
    """Return the error of whoever comes second to an endpoint."""
    return ServiceError(
        f"endpoint {endpoint}",
        "is being changed by another operation",
        evidence=who,
        hint="wait for it to end, then run this again",
    )


def list_operations(
    service_id: str, *, endpoint: str = "", running: bool = False, api: Any = None
) -> list[OperationRecord]:
    """Return the operations below a serving service, newest first; of one endpoint, or only those that run.

    Raises ServiceError if ClearML does not answer.
    """
    clearml()
    with translated("ClearML", "did not list the operations on its endpoints"):
        from clearml.backend_api.session.client import APIClient

        api = api or APIClient()
        wanted: dict[str, Any] = {"parent": service_id, "tags": ["__$all", TAG], "only_fields": list(FIELDS)}
        wanted |= {"order_by": ["-created"], "page_size": PAGE}
        if running:
            wanted["status"] = ["in_progress"]
        found: list[OperationRecord] = []
        page = 0
        while tasks := list(api.tasks.get_all(page=page, **wanted)):
            found += [record for record in map(_record, tasks) if record is not None]
            page += 1
            if len(tasks) < PAGE:
                break
    return [record for record in found if not endpoint or record.endpoint == endpoint]


def read_records(task_id: str, *names: str) -> dict[str, Any]:
    """Return the JSON documents of these names that an operation kept (Operation.record); those it lacks are left out.

    Raises ServiceError if ClearML does not answer.
    """
    clearml()
    with translated(f"ClearML task {task_id}", "could not be read"):
        from clearml.backend_api.session.client import APIClient

        fields = [f"configuration.{name}" for name in names]
        tasks = APIClient().tasks.get_all(id=[task_id], only_fields=fields)
        held = (tasks[0].data.to_dict().get("configuration") or {}) if tasks else {}
    found = {}
    for name in names:
        try:
            found[name] = json.loads((held.get(name) or {}).get("value") or "")
        except ValueError:
            log.info("ClearML task %s has no readable %s", task_id, name)
    return found


def mark(task_id: str, **properties: str) -> None:
    """Write properties of an operation's task, whatever its status; raises ServiceError if that fails."""
    clearml()
    with translated(f"ClearML task {task_id}", "did not take its properties"):
        from clearml.backend_api.session.client import APIClient

        write_properties(APIClient(), task_id, properties)


def discard(task_id: str) -> None:
    """Delete the task of an operation that never began; raises ServiceError if ClearML does not."""
    clearml()
    with translated(f"ClearML task {task_id}", "could not be deleted"):
        from clearml.backend_api.session.client import APIClient

        APIClient().tasks.delete(task=task_id, force=True)


def write_properties(api: Any, task_id: str, properties: Mapping[str, str]) -> None:
    """User properties are the one section that a task takes whatever its status."""
    items = [{"section": "properties", "name": name, "value": value} for name, value in properties.items()]
    api.tasks.edit_hyper_params(task=task_id, hyperparams=items, force=True)


def _record(task: Any) -> OperationRecord | None:
    """Return the task as an operation, None if it is something else that a user put below the service."""
    document = task.data.to_dict()
    items = (document.get("hyperparams") or {}).get("properties") or {}
    properties = {name: str(item.get("value") or "") for name, item in items.items()}
    if not properties.get(KIND) or not properties.get(ENDPOINT):
        return None
    return OperationRecord(
        task_id=document["id"],
        kind=properties[KIND],
        endpoint=properties[ENDPOINT],
        status=document["status"],
        created=task.data.created,
        last_update=task.data.last_update or task.data.created,
        holder=_holder(properties.get(HOLDER, "")),
        properties=properties,
        message=document.get("status_message") or "",
        trained_id=_trained_id((document.get("models") or {}).get("input") or []),
    )


def _trained_id(used: Sequence[Mapping[str, Any]]) -> str:
    found = next((str(entry.get("model") or "") for entry in used if entry.get("name") == TRAINED), "")
    return found.removeprefix("__DELETED__")  # how ClearML goes on naming a model that was deleted


def _holder(text: str) -> Holder | None:
    """Read who runs it; what a later release may say besides is passed over."""
    try:
        said = json.loads(text)
        return Holder(**{field.name: said[field.name] for field in fields(Holder)})
    except (ValueError, TypeError, KeyError):
        return None
