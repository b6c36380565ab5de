"""Changing what an alias routes to without losing a request: written once, seen on every instance and in answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tao2serve.config import Settings
from tao2serve.errors import NotReadyError, ServiceError
from tao2serve.registry.operation import Operation
from tao2serve.serving.client import wait_for_answers
from tao2serve.serving.instances import SILENCE_S, Instance, Instances, poll_of, read_state
from tao2serve.serving.routes import described, route_to_json, with_canary
from tao2serve.serving.service import ServingService
from tao2serve.serving.state import ServiceState, same_weights

__all__ = ["Confirmation", "change_route", "confirm", "patience_s", "settle", "with_canary"]

OnNews = Callable[[str], None]
WRITES: Final = 3
PAUSE_S: Final = 0.25
# Beyond poll and deadline: applying a change took up to 2.1 s, the first request to each version 1.4 s more.
SLACK_S: Final = 60.0
LEAST_ANSWERS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """How a change arrived: the living instances that applied it, and how often they look for the next one."""

    instances: tuple[Instance, ...]
    poll_s: float


def change_route(
    service: ServingService,
    endpoint: str,
    weights: Mapping[int, float],
    *,
    operation: Operation,
    image: bytes,
    settings: Settings,
    on_news: OnNews,
) -> None:
    """Point the alias `endpoint` at versions by weight, and return when every instance does so.

    One canary-only update; then each living inference instance's own task must say that it has applied it, and the
    alias must answer with these versions. A foreign writer that puts the old route back is overwritten, a bounded
    number of times. The operation gets `route_before` before and `route` after. Raises NotReadyError naming what
    was waited for, ServiceError if the route does not stay.
    """
    before = service.state().weights(endpoint)
    total = sum(weights.values())
    wanted = {version: weight / total for version, weight in sorted(weights.items())} if total else {}
    # The intent is kept too: a run that is killed here leaves a route that rollback must be able to explain.
    operation.note(route_before=route_to_json(before), route_wanted=route_to_json(wanted))

    def write() -> None:
        service.route(endpoint, wanted)

    def is_so(state: ServiceState) -> bool:
        return same_weights(state.weights(endpoint), wanted)

    subject = f"alias {endpoint}"
    confirmation = settle(service, write, is_so, subject=subject, settings=settings, on_news=on_news)
    if not confirmation.instances:
        on_news("no inference instance reports to ClearML: the answers alone can tell")
    on_news(f"asking {endpoint}: {described(wanted)}")
    wait_for_answers(
        f"{service.base_url(settings)}/{endpoint}",
        image,
        versions=frozenset(str(version) for version in wanted),
        count=max(LEAST_ANSWERS, 2 * len(confirmation.instances)),
        timeout_s=patience_s(confirmation.poll_s, settings),
        on_news=on_news,
    )
    operation.note(route=route_to_json(wanted))


def settle(
    service: ServingService,
    write: Callable[[], None],
    is_so: Callable[[ServiceState], bool],
    *,
    subject: str,
    settings: Settings,
    on_news: OnNews,
) -> Confirmation:
    """Write a change, and return when the service holds it and every living instance has applied it."""
    for _ in range(WRITES):
        write()
        confirmation = confirm(service.id, is_so, subject=subject, settings=settings, on_news=on_news)
        if confirmation is not None:
            return confirmation
        on_news(f"{subject} was changed back by another program; writing it again")
    raise ServiceError(
        subject,
        f"was changed back {WRITES} times by another program",
        evidence=f"serving service {service.id}",
        hint="end it, then run this again; tao2serve status shows what holds now",
    )


def confirm(
    service_id: str, is_so: Callable[[ServiceState], bool], *, subject: str, settings: Settings, on_news: OnNews
) -> Confirmation | None:
    """Return when every living instance has applied what `is_so` asks for; None if the service itself holds it no more.

    An instance looks once per poll, and applies nothing before all requests that it answers are done, so one that
    hangs holds up all: the wait is as long as a poll, the deadline of requests and some slack, and long enough to
    tell one that was killed from one that is slow. Instances that gave no sign for two minutes are not waited for.
    """
    instances = Instances(service_id)
    start = time.monotonic()
    told_dead: set[str] = set()
    while True:
        found = instances.read()
        alive = tuple(instance for instance in found if instance.is_alive)
        for instance in found:
            if not instance.is_alive and instance.task_id not in told_dead:
                told_dead.add(instance.task_id)
                on_news(f"{instance} is not waited for: silent for {instance.silent_s:.0f} s")
        behind = [instance for instance in alive if not is_so(instance.state)]
        if not is_so(read_state(service_id)):
            return None
        poll_s = poll_of(found, settings)
        if not behind:
            return Confirmation(instances=alive, poll_s=poll_s)
        waited_s, limit_s = time.monotonic() - start, max(patience_s(poll_s, settings), SILENCE_S + SLACK_S)
        names = ", ".join(map(str, behind))
        if waited_s > limit_s:
            raise NotReadyError(
                subject,
                f"is not applied by every inference instance after {waited_s:.0f} s",
                evidence=f"behind: {names}; they look every {poll_s:.4g} s",
                hint="a request that hangs holds up every change: see the inference service's log; what was written "
                "stays, so run this again, or go back: tao2serve rollback ENDPOINT",
            )
        on_news(f"waiting {waited_s:.0f} s for {names}, of at most {limit_s:.0f} s (a look every {poll_s:.4g} s)")
        time.sleep(PAUSE_S if poll_s < 10 else 1.0)


def patience_s(poll_s: float, settings: Settings) -> float:
    """Return how long an instance may take to apply a change and answer by it."""
    return poll_s + settings.deadline_s + SLACK_S
