"""`undeploy`: out of the route, out of the endpoints, off Triton, out of the repository, in that order."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from tao2serve.config import Settings
from tao2serve.errors import ServiceError, Tao2ServeError
from tao2serve.registry.operation import Operation
from tao2serve.registry.operations import list_operations
from tao2serve.serving.alone import require_alone
from tao2serve.serving.client import problem_of
from tao2serve.serving.history import changes_of, hold_s
from tao2serve.serving.instances import Instances, poll_of, server_time
from tao2serve.serving.inventory import Inventory, read_elsewhere, read_folders
from tao2serve.serving.ownership import mark_of, with_proof
from tao2serve.serving.probe import triton_address, triton_of
from tao2serve.serving.removal import Removal, RemovalPlan, decide_removal
from tao2serve.serving.rollout import settle
from tao2serve.serving.routes import route_to_json
from tao2serve.serving.service import ServingService, find_service
from tao2serve.steps import Steps
from tao2serve.triton.control import TritonControl
from tao2serve.triton.repository import remove_folder

__all__ = ["Undeployment", "undeploy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undeployment:
    """What was taken away, and what was left and why."""

    plan: RemovalPlan
    remaining: tuple[int, ...]  # versions that are still registered
    service_id: str
    task_id: str
    left: tuple[str, ...]
    steps: Steps

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `undeploy`."""
        plan = self.plan
        return {
            "outcome": "unchanged" if plan.is_empty else "ok",
            "endpoint": {"name": plan.endpoint, "versions": [str(version) for version in self.remaining]},
            "removed": {
                "alias": plan.drops_route,
                "versions": [str(version) for version in plan.versions],
                "triton_models": list(plan.unload),
                "folders": list(plan.folders),
            },
            "left": list(self.left),
            "operation_task_id": self.task_id,
            "service_id": self.service_id,
            "steps": self.steps.to_list(),
        }


def undeploy(endpoint: str, wanted: Removal, settings: Settings, *, steps: Steps) -> Undeployment:
    """Take versions of an endpoint away, or all of it, so that no request is lost; what dead runs left goes too.

    Each part of it can be repeated: a run that was killed is finished by the next. Raises what `decide_removal`
    raises, NotReadyError if an instance does not follow; ServiceError if another operation runs on the endpoint, or if
    Triton is away: by then nothing asks it any more, and its models and folders are left for the next run.
    """
    with ExitStack() as stack:
        with steps.step("look at the endpoint"):
            service = find_service(settings.service)
            require_alone(service.id, endpoint)
            control = stack.enter_context(triton_of(service, settings))
            decide_removal(_inventory(service, control, settings), endpoint, wanted)  # refuses before it claims
        operation = stack.enter_context(
            Operation("undeploy", endpoint=endpoint, service_id=service.id, project=settings.artifact_project)
        )
        service.turn = operation.turn
        with steps.step("see what is ours") as step:
            inventory = _inventory(service, control, settings, own_task=operation.id)
            plan = decide_removal(inventory, endpoint, wanted)
            if control is None:  # nobody can tell what is loaded, so folders stay too
                plan = replace(plan, unload=(), folders=())
            step.note(_words(plan))
        _stop_serving(service, plan, operation, settings, steps)
        operation.require_running()
        _take_off_triton(control, plan, settings, steps, mark=mark_of(service.id))
        result = Undeployment(
            plan=plan, remaining=service.state().versions(endpoint), service_id=service.id, task_id=operation.id,
            left=(*plan.left, *_unasked(service, control, settings)), steps=steps,
        )  # fmt: skip
        operation.record("undeployment", result.to_dict())
        if control is None and triton_address(service, settings) and not _is_controllers(plan, inventory):
            raise _away(service, result, settings)
        return result


def _stop_serving(
    service: ServingService, plan: RemovalPlan, operation: Operation, settings: Settings, steps: Steps
) -> None:
    """Take away the alias, then, when nothing can be on its way any more, the versions; each is seen to arrive."""
    if plan.drops_route:
        with steps.step("take the alias away") as step:
            _drop_route(service, plan.endpoint, operation, settings, step.news)
    if plan.versions:
        with steps.step("wait for the last requests") as step:
            step.note(f"{_wait(service, plan, settings, step.news):.0f} s")
        with steps.step("unregister the versions") as step:
            _unregister(service, plan, settings, step.news)
            step.note(", ".join(f"{plan.endpoint}/{version}" for version in plan.versions))


def _take_off_triton(
    control: TritonControl | None, plan: RemovalPlan, settings: Settings, steps: Steps, *, mark: str
) -> None:
    """Unload, an ensemble before its parts, then remove the folders."""
    if plan.unload and control is not None:
        with steps.step("unload from Triton") as step:
            for model in plan.unload:
                control.unload(model)
            step.note(", ".join(plan.unload))
    if plan.folders and settings.model_repository is not None:
        with steps.step("remove the folders") as step:
            for folder in plan.folders:
                remove_folder(settings.model_repository / folder, mark=mark)
            step.note(", ".join(plan.folders))


def _inventory(
    service: ServingService, control: TritonControl | None, settings: Settings, *, own_task: str = ""
) -> Inventory:
    managed = settings.managed
    inventory = Inventory(
        state=service.state(),
        operations=list_operations(service.id),
        elsewhere=read_elsewhere(service.id),
        folders=None if managed else read_folders(settings.model_repository),
        on_triton=control.models() if control is not None else None,
        mark=mark_of(service.id),
        own_task=own_task,
        now=server_time(),
    )
    return with_proof(inventory, settings.model_repository)


def _drop_route(
    service: ServingService, endpoint: str, operation: Operation, settings: Settings, on_news: Callable[[str], None]
) -> None:
    """Take the alias away alone, and see that every instance has: a route to nothing can stop all endpoints."""
    operation.note(route_before=route_to_json(service.state().weights(endpoint)), route_wanted=route_to_json({}))
    settle(
        service, lambda: service.drop_route(endpoint), lambda state: endpoint not in state.routes,
        subject=f"alias {endpoint}", settings=settings, on_news=on_news,
    )  # fmt: skip
    operation.note(route=route_to_json({}))


def _wait(service: ServingService, plan: RemovalPlan, settings: Settings, on_news: Callable[[str], None]) -> float:
    """Wait until one poll and one deadline have passed since a route last named these versions; return the seconds.

    An instance may be several processes, and only one of them needs to have reported.
    """
    current = service.state().weights(plan.endpoint)
    changes = changes_of(list_operations(service.id, endpoint=plan.endpoint), current)
    instances = Instances(service.id).read()
    url = service.base_url(settings)
    if not any(instance.is_alive for instance in instances) and problem_of(url):
        on_news(f"no inference instance lives, and nobody answers at {url}")
        return 0.0
    grace_s = poll_of(instances, settings) + settings.deadline_s
    rest_s = hold_s(changes, current, plan.versions, now=server_time(), grace_s=grace_s)
    deadline = time.monotonic() + rest_s
    while (remaining_s := deadline - time.monotonic()) > 0:
        on_news(f"{remaining_s:.0f} s of a poll and the deadline of requests, {grace_s:.0f} s since the route changed")
        time.sleep(min(remaining_s, 1.0))
    return rest_s


def _unregister(service: ServingService, plan: RemovalPlan, settings: Settings, on_news: Callable[[str], None]) -> None:
    urls = {f"{plan.endpoint}/{version}" for version in plan.versions}
    settle(
        service, lambda: service.unregister_all(plan.endpoint, plan.versions),
        lambda state: not urls & set(state.endpoints),
        subject=f"endpoint {', '.join(sorted(urls))}", settings=settings, on_news=on_news,
    )  # fmt: skip


def _unasked(service: ServingService, control: TritonControl | None, settings: Settings) -> list[str]:
    """Say which servers or folders were not looked at, and why."""
    if settings.managed:
        return ["Triton's models stay: ClearML Serving's own controller owns them"]
    words = []
    if not triton_address(service, settings):
        words.append("models and folders stay: Triton's address is not known (TAO2SERVE_TRITON_GRPC)")
    if settings.model_repository is None:
        words.append("folders stay: the model repository is not known (TAO2SERVE_MODEL_REPOSITORY)")
    return words


def _is_controllers(plan: RemovalPlan, inventory: Inventory) -> bool:
    """Whether all that goes is on a Triton that nobody but ClearML Serving's own controller loads and unloads."""
    going = {(plan.endpoint, version) for version in plan.versions}
    return bool(going) and going <= inventory.managed()


def _words(plan: RemovalPlan) -> str:
    if plan.is_empty:
        return "nothing to remove"
    parts = [
        "the alias" if plan.drops_route else "",
        f"versions {', '.join(map(str, plan.versions))}" if plan.versions else "",
        f"{len(plan.unload)} on Triton",
        f"{len(plan.folders)} folders",
    ]
    return ", ".join(filter(None, parts))


def _away(service: ServingService, result: Undeployment, settings: Settings) -> Tao2ServeError:
    error = ServiceError(
        f"Triton at {triton_address(service, settings)}",
        "cannot be reached, so its models and folders stay",
        evidence=f"unregistered: {', '.join(map(str, result.plan.versions)) or 'nothing'}",
        hint="start it, then run this again",
    )
    error.details = {name: value for name, value in result.to_dict().items() if name != "outcome"}
    return error
