"""What the operations on an endpoint say about its route: how it came to be, and what there is to go back to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.routes import route_from_json
from tao2serve.serving.state import same_weights

__all__ = ["Change", "Earlier", "canary_of", "changes_of", "cut_off", "earlier_routes", "hold_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a route; `undid` names the changes that a rollback took back, `at` is the server's time."""

    task_id: str
    kind: str
    before: Mapping[int, float]
    after: Mapping[int, float]
    at: datetime
    version: int | None = None
    undid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A route that was there before, and the changes that going back to it undoes."""

    route: Mapping[int, float]
    undoes: tuple[str, ...]
    because: str


def changes_of(records: Sequence[OperationRecord], current: Mapping[int, float]) -> tuple[Change, ...]:
    """Return the changes of one endpoint's route, oldest first, from its operations, newest first.

    A run that was killed after it wrote the route, and before it had seen it everywhere, counts if what came after
    it, the next change or the current route, begins where it wanted to end.
    """
    found: list[Change] = []
    follower: Mapping[int, float] = current
    for record in records:
        properties = record.properties
        before = route_from_json(properties.get("route_before", ""))
        after = route_from_json(properties.get("route", ""))
        wanted = route_from_json(properties.get("route_wanted", ""))
        if after is None and wanted is not None and same_weights(wanted, follower):
            after = wanted
        if before is None or after is None:
            continue
        follower = before
        if same_weights(before, after):
            continue
        found.append(Change(
            task_id=record.task_id, kind=record.kind, before=before, after=after, at=record.last_update,
            version=record.version,
            undid=tuple(filter(None, properties.get("undid", "").split(","))),
        ))  # fmt: skip
    return tuple(reversed(found))


def earlier_routes(changes: Sequence[Change], current: Mapping[int, float]) -> tuple[Earlier, ...]:
    """Return what a rollback may go back to, the nearest first.

    A rollback takes back the last change that is not taken back yet, so a second one goes a step further, and not
    forward again. A route that somebody else changed goes back to the last one that an operation left.
    """
    standing: list[Change] = []
    for change in changes:
        if change.kind == "rollback":
            standing = [kept for kept in standing if kept.task_id not in change.undid]
        else:
            standing.append(change)
    found: list[Earlier] = []
    if changes and not same_weights(changes[-1].after, current):
        found.append(Earlier(route=changes[-1].after, undoes=(), because="the last route that an operation left"))
    undone: list[str] = []
    for change in reversed(standing):
        undone.append(change.task_id)
        found.append(
            Earlier(route=change.before, undoes=tuple(undone), because=f"before the {change.kind} of {change.at:%F %R}")
        )
    return tuple(entry for entry in found if entry.route and not same_weights(entry.route, current))


def cut_off(records: Sequence[OperationRecord], current: Mapping[int, float], *, kind: str) -> OperationRecord | None:
    """Return the last operation on the route if it wrote the current route and ended before all instances had it.

    Running the command again must end that one: not go another step back, nor choose another version.
    """
    # One that was refused, or failed before it came to the route, says nothing of it.
    routing = (record for record in records if record.properties.keys() & {"route", "route_wanted"})
    last = next(routing, None)
    if last is None or last.kind != kind or "route" in last.properties:
        return None
    wanted = route_from_json(last.properties.get("route_wanted", ""))
    return last if wanted is not None and same_weights(wanted, current) else None


def canary_of(changes: Sequence[Change], current: Mapping[int, float]) -> int:
    """Return the version on trial in a route of several: the one its operation brought in, else the newest."""
    for change in reversed(changes):
        if (
            change.version is not None
            and change.version in current
            and change.kind != "rollback"
            and same_weights(change.after, current)
        ):
            return change.version
    return max(current)


def hold_s(
    changes: Sequence[Change],
    current: Mapping[int, float],
    versions: Iterable[int],
    *,
    now: datetime,
    grace_s: float,
) -> float:
    """Return how long to wait until no worker sends requests for these versions, `grace_s` after the route left them.

    Nothing for versions that no route ever named. All of it if the current route is none that an operation left:
    somebody else changed it, and nobody knows when.
    """
    wanted = set(versions)
    if not wanted:
        return 0.0
    if not changes or not same_weights(changes[-1].after, current):
        return grace_s
    left = [change.at for change in changes if wanted & set(change.before)]
    if not left:
        return 0.0
    return min(max(grace_s - (now - max(left)).total_seconds(), 0.0), grace_s)
