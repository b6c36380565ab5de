"""What a serving service serves, seen from all sides: ClearML, its inference instances, Triton, the repository.

It asks and changes nothing, and a side that is away is one of the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tao2serve.config import Settings
from tao2serve.errors import InputError, Tao2ServeError
from tao2serve.registry.calls import get_by_ids, text
from tao2serve.registry.operations import OperationRecord, list_operations
from tao2serve.registry.session import translated
from tao2serve.serving.client import problem_of
from tao2serve.serving.instances import Instance, Instances, poll_of, server_time, state_of
from tao2serve.serving.inventory import Inventory, read_elsewhere, read_folders
from tao2serve.serving.judgement import EndpointStatus, Note, VersionStatus, judge
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.ownership import mark_of, with_proof
from tao2serve.serving.service import service_task
from tao2serve.serving.state import ServiceState, split_url
from tao2serve.triton.control import ModelTraffic, TritonControl

__all__ = ["ServiceStatus", "Side", "read_status", "source_of"]

LAST_OPERATIONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server that was asked: its address, whether it answers, and what it said if it does not."""

    address: str
    is_there: bool
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """All of it; `notes` are what is orphaned or wrong, each with what mends it."""

    service_id: str
    service_name: str
    service_status: str
    inference: Side
    triton: Side
    repository: str  # "" if it is not known here, or is the controller's own
    poll_s: float
    instances: tuple[Instance, ...]
    state: ServiceState
    endpoints: tuple[EndpointStatus, ...]
    running: tuple[OperationRecord, ...]
    now: datetime  # by the server's clock
    notes: tuple[Note, ...]
    managed: bool = False  # ClearML Serving's own controller runs Triton

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `status`, as docs/rollout.md lists its members."""
        return {
            "outcome": "ok",
            "service": {"id": self.service_id, "name": self.service_name, "status": self.service_status},
            "inference": _side(self.inference) | {"poll_s": self.poll_s},
            "instances": [self._instance(instance) for instance in self.instances],
            "triton": _side(self.triton) | {"managed": self.managed},
            "model_repository": self.repository or None,
            "endpoints": [self._endpoint(endpoint) for endpoint in self.endpoints],
            "running": [_operation(record, is_running=True) for record in self.running],
            "notes": [
                {"kind": note.kind, "subject": note.subject, "fact": note.fact, "next": note.mend}
                for note in self.notes
            ],
        }

    def is_current(self, instance: Instance) -> bool:
        """Whether an instance has applied what the service is configured to do."""
        return instance.state.endpoints == self.state.endpoints and instance.state.routes == self.state.routes

    def _instance(self, instance: Instance) -> dict[str, Any]:
        return {
            "task_id": instance.task_id,
            "host": instance.host,
            "alive": instance.is_alive,
            "silent_s": round(instance.silent_s, 1),
            "poll_s": instance.poll_s,
            "current": self.is_current(instance),
        }

    def _endpoint(self, endpoint: EndpointStatus) -> dict[str, Any]:
        return {
            "name": endpoint.name,
            "url": endpoint.url or None,
            "route": {str(version): round(share, 9) for version, share in endpoint.weights.items()},
            "route_applied_by": endpoint.route_applied,
            "instances": endpoint.instances,
            "versions": [_version(version) for version in endpoint.versions],
            "operations": [_operation(record, is_running=record.goes_on(self.now)) for record in endpoint.operations],
        }


def read_status(endpoint: str, settings: Settings) -> ServiceStatus:
    """Ask all sides about one endpoint, or about all if none is named.

    Raises UsageError or ServiceError if there is no serving service, or ClearML does not answer; InputError listing
    the endpoints there are if the one that is named is not among them.
    """
    task = service_task(settings.service)
    state = state_of(task)
    instances, now = Instances(task.id).read(), server_time()
    managed = settings.managed
    repository = None if managed else settings.model_repository  # the controller fills a folder of its own
    address = settings.triton_grpc or _general(task, "triton_grpc_server")
    triton, models, traffic = _ask_triton(address, managed=managed)
    inventory = with_proof(Inventory(
        state=state,
        operations=list_operations(task.id),
        elsewhere=read_elsewhere(task.id),
        folders=read_folders(repository),
        on_triton=models,
        mark=mark_of(task.id),
        now=now,
    ), repository)  # fmt: skip
    if endpoint and endpoint not in state.names() and endpoint not in {name.endpoint for name in inventory.orphans()}:
        raise InputError(
            f"endpoint {endpoint}",
            "is not in this serving service",
            evidence=f"there are: {', '.join(state.names()) or 'none'}",
            hint="deploy one: tao2serve deploy; all that is known: tao2serve status",
        )
    inference = _ask_inference((settings.serving_base_url or _general(task, "serving_base_url")).rstrip("/"))
    alive = [instance for instance in instances if instance.is_alive]
    names = state.names() if not endpoint else (endpoint,)
    known = _models(state)
    sources = _sources(inventory, known)
    endpoints = tuple(
        _endpoint_status(name, inference.address, inventory, alive, known, sources, traffic)
        for name in names
        if name in state.names()
    )
    return ServiceStatus(
        service_id=task.id, service_name=task.name, service_status=str(task.status), inference=inference,
        triton=triton, repository=str(repository or ""), poll_s=poll_of(instances, settings),
        instances=instances, state=state, endpoints=endpoints,
        running=tuple(record for record in inventory.operations if record.goes_on(now)),
        now=now,
        notes=judge(
            inventory, endpoints, only=endpoint, instances=instances,
            inference_is_there=inference.is_there, triton_is_there=triton.is_there, managed=managed,
        ),
        managed=managed,
    )  # fmt: skip


def _general(task: Any, name: str) -> str:
    """Return one of the service's own settings, as `clearml-serving config` writes them."""
    section = (task.hyperparams or {}).get("General") or {}
    value = str(getattr(section.get(name), "value", None) or "")
    return "" if value == "None" else value


def _ask_triton(address: str, *, managed: bool) -> tuple[Side, dict[str, bool] | None, Mapping[str, ModelTraffic]]:
    if not address:
        return Side(address="", is_there=False, problem="its address is not known"), None, {}
    try:
        with TritonControl(address, timeout_s=5.0) as control:
            # One model that does not load keeps the controller's Triton from being ready, and the others serve.
            if not (control.is_live() if managed else control.is_ready()):
                lacks = "live" if managed else "ready"
                return Side(address=address, is_there=False, problem=f"cannot be reached or is not {lacks}"), None, {}
            return Side(address=address, is_there=True), control.models(), control.traffic()
    except Tao2ServeError as error:
        return Side(address=address, is_there=False, problem=f"{error.fact}: {error.evidence}"), None, {}


def _ask_inference(base_url: str) -> Side:
    if not base_url:
        return Side(address="", is_there=False, problem="its URL is not known")
    problem = problem_of(base_url)
    return Side(address=base_url, is_there=not problem, problem=problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What ClearML knows of a published model."""

    precision: str
    source_id: str  # of what it was published from, first


def _models(state: ServiceState) -> dict[str, _Model]:
    """Return by id the models that registered versions name, as far as ClearML still has them."""
    ids = [entry.model_id for entry in state.endpoints.values() if entry.model_id]
    with translated("ClearML", "did not tell the models of the endpoints"):
        found = get_by_ids("models", ids, fields=["metadata"])
    return {
        key: _Model(
            precision=text(row, "metadata", "precision", "value"),
            source_id=text(row, "metadata", "source_model", "value"),
        )
        for key, row in found.items()
    }


def source_of(inventory: Inventory, url: str, *, published_from: str) -> str:
    """Return the id of the trained model that a registered version came from; "" if that was a file.

    Its own deployment knows: the published model may be shared by versions whose trained models have equal content,
    and says only what the first was `published_from`. That counts for versions whose deployment is not known.
    """
    name, version = split_url(url)
    maker = inventory.maker(name, version) if version is not None else None
    return maker.trained_id if maker is not None else published_from


def _sources(inventory: Inventory, models: Mapping[str, _Model]) -> dict[str, tuple[str, str]]:
    """Return by url the id and the name of the trained model of each registered version; "" for what is not known."""
    ids = {}
    for url, entry in inventory.state.endpoints.items():
        model = models.get(entry.model_id)
        ids[url] = source_of(inventory, url, published_from=model.source_id if model else "")
    with translated("ClearML", "did not tell the trained models of the endpoints"):
        named = get_by_ids("models", list(ids.values()), fields=["name"])
    return {url: (source, text(named.get(source), "name")) for url, source in ids.items()}


def _endpoint_status(
    name: str,
    base_url: str,
    inventory: Inventory,
    alive: Sequence[Instance],
    models: Mapping[str, _Model],
    sources: Mapping[str, tuple[str, str]],
    traffic: Mapping[str, ModelTraffic],
) -> EndpointStatus:
    state = inventory.state
    weights, route = state.weights(name), state.routes.get(name)
    versions = []
    for version in state.versions(name):
        url = f"{name}/{version}"
        entry = state.endpoints[url]
        model, (source_id, source_name) = models.get(entry.model_id), sources[url]
        triton_model = triton_model_name(name, version)
        versions.append(VersionStatus(
            version=version, url=f"{base_url}/{url}" if base_url else "", share=weights.get(version, 0.0),
            other_aliases=tuple(alias for alias in state.routed_urls().get(url, ()) if alias != name),
            model_id=entry.model_id, model_is_there=model is not None,
            precision=model.precision if model else "",
            source_id=source_id, source_name=source_name, is_managed=entry.is_managed,
            triton_model=triton_model,
            is_ready=None if inventory.on_triton is None else inventory.on_triton.get(triton_model, False),
            traffic=traffic.get(triton_model),
            known_to=tuple(instance.task_id for instance in alive if url in instance.state.endpoints),
            instances=len(alive),
        ))  # fmt: skip
    applied = sum(_route_is_applied(name, state, instance.state) for instance in alive)
    return EndpointStatus(
        name=name, url=f"{base_url}/{name}" if base_url else "", has_alias=route is not None, weights=weights,
        versions=tuple(versions), missing=state.missing().get(name, ()), route_applied=applied, instances=len(alive),
        operations=tuple(record for record in inventory.operations if record.endpoint == name)[:LAST_OPERATIONS],
    )  # fmt: skip


def _route_is_applied(name: str, wanted: ServiceState, seen: ServiceState) -> bool:
    return wanted.routes.get(name) == seen.routes.get(name)


def _side(side: Side) -> dict[str, Any]:
    return {"address": side.address or None, "reachable": side.is_there, "problem": side.problem}


def _version(version: VersionStatus) -> dict[str, Any]:
    traffic = version.traffic
    return {
        "version": str(version.version),
        "url": version.url or None,
        "weight": round(version.share, 9),
        "model_id": version.model_id or None,
        "precision": version.precision or None,
        "source_model_id": version.source_id or None,
        "source_model_name": version.source_name or None,
        "triton": {
            "model": version.triton_model,
            "ready": version.is_ready,
            "requests_since_load": traffic.answered if traffic else None,
            "failed_since_load": traffic.failed if traffic else None,
            "last_request": _iso(traffic.last_request) if traffic else None,
        },
        "known_to_instances": list(version.known_to),
    }


def _operation(record: OperationRecord, *, is_running: bool) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "endpoint": record.endpoint,
        "task_id": record.task_id,
        "status": record.status,
        "running": is_running,
        "created": _iso(record.created),
        "by": str(record.holder) if record.holder else None,
        "version": str(record.version) if record.version is not None else None,
        "stage": record.properties.get("stage") or None,
        "message": record.message or None,
    }


def _iso(when: datetime | None) -> str | None:
    return when.isoformat(timespec="seconds") if when is not None else None
