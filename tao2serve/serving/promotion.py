"""`promote` and `rollback`: which version the alias names next, and the order in which that is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError, Tao2ServeError, UsageError
from tao2serve.registry.operation import Operation
from tao2serve.registry.operations import OperationRecord, list_operations
from tao2serve.serving.alone import require_alone
from tao2serve.serving.history import Change, Earlier, canary_of, changes_of, cut_off, earlier_routes
from tao2serve.serving.instances import Instances, poll_of
from tao2serve.serving.probe import prove_versions
from tao2serve.serving.rollout import change_route, patience_s
from tao2serve.serving.routes import check_percent, described, with_canary
from tao2serve.serving.service import ServingService, find_service
from tao2serve.serving.state import ServiceState, require_ours, same_weights
from tao2serve.steps import Step, Steps

__all__ = ["RouteChange", "decide_promotion", "promote", "require_known", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """What a command did to an alias; `outcome` is "unchanged" if the route was so already."""

    kind: Literal["promote", "rollback"]
    endpoint: str
    alias_url: str
    before: Mapping[int, float]
    after: Mapping[int, float]
    service_id: str
    task_id: str  # of the operation
    reason: str = ""
    skipped: tuple[str, ...] = ()  # earlier routes that cannot be served any more, and why
    steps: Steps

    @property
    def changed(self) -> bool:
        return not same_weights(self.before, self.after)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `promote` and `rollback`."""
        return {
            "outcome": "ok" if self.changed else "unchanged",
            "endpoint": {"name": self.endpoint, "alias_url": self.alias_url},
            "route_before": {str(version): weight for version, weight in self.before.items()},
            "route": {str(version): weight for version, weight in self.after.items()},
            "reason": self.reason,
            "skipped": list(self.skipped),
            "operation_task_id": self.task_id,
            "service_id": self.service_id,
            "steps": self.steps.to_list(),
        }


def promote(
    endpoint: str, version: int | None, percent: float | None, settings: Settings, *, steps: Steps
) -> RouteChange:
    """Give a version all requests of the alias, or `percent` of them, once it has answered a smoke request.

    Without a version: the canary's, or the newest. What serves goes on serving until every inference instance has
    the new route, and then stays registered and loaded. What cannot be asked for is refused before an operation is
    begun.
    """
    if percent is not None:
        check_percent(percent)
    with steps.step("look at the endpoint"):
        service = find_service(settings.service)
        state = _free_endpoint(service, endpoint)
        _choose(state, endpoint, list_operations(service.id, endpoint=endpoint), version, percent)
        base_url = service.base_url(settings)
    with Operation("promote", endpoint=endpoint, service_id=service.id, project=settings.artifact_project) as operation:
        service.turn = operation.turn
        with steps.step("choose the version") as step:
            state = service.state()
            before = state.weights(endpoint)
            chosen, weights, reason = _choose(state, endpoint, _others(operation), version, percent)
            step.note(f"version {chosen}, {reason}")
        operation.note(version=str(chosen))
        with steps.step("ask the version itself") as step:
            image = prove_versions(
                service, state, endpoint, (chosen,), settings=settings,
                patience_s=_patience_s(service, settings), on_news=step.news,
            )  # fmt: skip
            step.note(f"{base_url}/{endpoint}/{chosen}")
        # Also if the route says so already: a run that was killed may have written it, and not seen it arrive.
        _switch(service, endpoint, weights, operation, image, settings, steps)
        return RouteChange(
            kind="promote", endpoint=endpoint, alias_url=f"{base_url}/{endpoint}", before=before, after=weights,
            service_id=service.id, task_id=operation.id, reason=reason, steps=steps,
        )  # fmt: skip


def rollback(endpoint: str, settings: Settings, *, steps: Steps) -> RouteChange:
    """Go back to the route before the last change that is not taken back yet; a second one goes a step further.

    Routes whose versions are gone, or do not answer, are passed over. Raises InputError if there is none to go
    back to, or none of whose versions are registered, before an operation is begun; ServiceError if they are, and do
    not answer.
    """
    with steps.step("look at the endpoint"):
        service = find_service(settings.service)
        state = _free_endpoint(service, endpoint)
        _earlier(state, endpoint, list_operations(service.id, endpoint=endpoint))
        base_url = service.base_url(settings)
    with Operation(
        "rollback", endpoint=endpoint, service_id=service.id, project=settings.artifact_project
    ) as operation:
        service.turn = operation.turn
        with steps.step("find the route before") as step:
            state = service.state()
            before = state.weights(endpoint)
            earlier = _earlier(state, endpoint, _others(operation))
            step.note(described(earlier[0].route))
        with steps.step("ask its versions") as step:
            target, image, skipped = _first_that_answers(service, state, endpoint, earlier, settings, step)
            step.note(f"{described(target.route)}, {target.because}")
        operation.note(undid=",".join(target.undoes))
        _switch(service, endpoint, target.route, operation, image, settings, steps)
        return RouteChange(
            kind="rollback", endpoint=endpoint, alias_url=f"{base_url}/{endpoint}", before=before, after=target.route,
            service_id=service.id, task_id=operation.id, reason=target.because, skipped=skipped, steps=steps,
        )  # fmt: skip


def _others(operation: Operation) -> list[OperationRecord]:
    """Return the earlier operations on the endpoint, newest first."""
    records = list_operations(operation.service_id, endpoint=operation.endpoint)
    return [record for record in records if record.task_id != operation.id]


def _free_endpoint(service: ServingService, endpoint: str) -> ServiceState:
    """Return what the service is configured to do, if the endpoint is there, ours, and nobody changes it now."""
    state = service.state()
    require_known(state, endpoint)
    require_ours(state, endpoint)
    require_alone(service.id, endpoint)
    return state


def _choose(
    state: ServiceState,
    endpoint: str,
    records: Sequence[OperationRecord],
    version: int | None,
    percent: float | None,
) -> tuple[int, dict[int, float], str]:
    """Return what `decide_promotion` does; a promotion that was cut off is ended, if nothing else is asked for."""
    current = state.weights(endpoint)
    half = cut_off(records, current, kind="promote") if version is None and percent is None else None
    return decide_promotion(
        state, endpoint, changes_of(records, current), version=half.version if half else version, percent=percent
    )


def _earlier(state: ServiceState, endpoint: str, records: Sequence[OperationRecord]) -> tuple[Earlier, ...]:
    """Return what there is to go back to, the nearest first; raises InputError if there is nothing, by what is known
    without asking the versions."""
    current, registered = state.weights(endpoint), state.versions(endpoint)
    if cut_off(records, current, kind="rollback"):
        return (Earlier(route=current, undoes=(), because="that a rollback which was cut off had written"),)
    earlier = earlier_routes(changes_of(records, current), current)
    if not earlier:
        raise InputError(
            f"endpoint {endpoint}",
            "has no earlier route to go back to",
            evidence=f"now {described(current)}; registered: {', '.join(map(str, registered)) or 'no version'}",
            hint=f"route to a version by name: tao2serve promote {endpoint} VERSION",
        )
    gone = [sorted(set(entry.route) - set(registered)) for entry in earlier]
    if all(gone):
        raise _none_served(InputError, endpoint, [
            f"{described(entry.route)}: no longer registered: {', '.join(map(str, versions))}"
            for entry, versions in zip(earlier, gone, strict=True)
        ])  # fmt: skip
    return earlier


def require_known(state: ServiceState, endpoint: str) -> None:
    """Raise InputError listing the endpoints there are unless this is one of them."""
    if endpoint not in state.names():
        raise InputError(
            f"endpoint {endpoint}",
            "is not in this serving service",
            evidence=f"there are: {', '.join(state.names()) or 'none'}",
            hint="deploy one: tao2serve deploy, or name another service: --service ID",
        )


def decide_promotion(
    state: ServiceState,
    endpoint: str,
    changes: Sequence[Change],
    *,
    version: int | None,
    percent: float | None,
) -> tuple[int, dict[int, float], str]:
    """Return the version, the weights, and why that version.

    Raises InputError for a version that is not registered, UsageError for a share that leaves the rest to nobody.
    """
    versions, current = state.versions(endpoint), state.weights(endpoint)
    if not versions:
        raise InputError(f"endpoint {endpoint}", "has no registered version", hint="deploy one: tao2serve deploy")
    if version is not None:
        chosen, reason = version, "as asked for"
    elif len(current) > 1:
        chosen, reason = canary_of(changes, current), "the canary"
    else:
        chosen, reason = max(versions), "the newest"
    if chosen not in versions:
        raise InputError(
            f"endpoint {endpoint}/{chosen}",
            "is not registered",
            evidence=f"registered: {', '.join(map(str, versions))}",
            hint=f"name one of these, or deploy another: tao2serve deploy --endpoint {endpoint}",
        )
    if percent is None or percent == 100:
        return chosen, {chosen: 1.0}, reason
    weights = with_canary(current, chosen, percent)
    if len(weights) == 1:
        others = [other for other in versions if other != chosen]
        raise UsageError(
            "--canary",
            f"leaves {100 - percent:g} % of the requests to no version",
            evidence=f"alias {endpoint} routes to {described(current)}",
            hint=f"name another version: {', '.join(map(str, others))}"
            if others
            else f"deploy another version: tao2serve deploy --endpoint {endpoint} --canary {percent:g}",
        )
    return chosen, weights, reason


def _first_that_answers(
    service: ServingService,
    state: ServiceState,
    endpoint: str,
    earlier: Sequence[Earlier],
    settings: Settings,
    step: Step,
) -> tuple[Earlier, bytes, tuple[str, ...]]:
    """Return the nearest earlier route whose versions all answer, a picture, and the routes passed over with why."""
    skipped: list[str] = []
    kind: type[Tao2ServeError] = InputError
    for entry in earlier:
        try:
            image = prove_versions(
                service, state, endpoint, entry.route, settings=settings,
                patience_s=_patience_s(service, settings), on_news=step.news,
            )  # fmt: skip
        except Tao2ServeError as error:
            kind = kind if isinstance(error, InputError) else ServiceError
            why = f"{described(entry.route)}: {error.subject} {error.fact}"
            skipped.append(why + (f" ({error.evidence})" if error.evidence else ""))
            step.news(f"passed over {why}")
            continue
        return entry, image, tuple(skipped)
    raise _none_served(kind, endpoint, skipped)


def _none_served(kind: type[Tao2ServeError], endpoint: str, skipped: Sequence[str]) -> Tao2ServeError:
    return kind(
        f"endpoint {endpoint}",
        "has earlier routes, and none can be served now",
        evidence="\n".join(skipped),
        hint=f"what serves is left as it is; see tao2serve status {endpoint}",
    )


def _switch(
    service: ServingService,
    endpoint: str,
    weights: Mapping[int, float],
    operation: Operation,
    image: bytes,
    settings: Settings,
    steps: Steps,
) -> None:
    with steps.step("switch the alias") as step:
        change_route(service, endpoint, weights, operation=operation, image=image, settings=settings, on_news=step.news)
        step.note(described(weights))


def _patience_s(service: ServingService, settings: Settings) -> float:
    return patience_s(poll_of(Instances(service.id).read(), settings), settings)
