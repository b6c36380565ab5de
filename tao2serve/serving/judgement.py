"""What is wrong or left over in a serving service, and what mends it: decided from what was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.history import canary_of, changes_of
from tao2serve.serving.instances import Instance
from tao2serve.serving.inventory import Inventory
from tao2serve.triton.control import ModelTraffic

__all__ = ["EndpointStatus", "Note", "NoteKind", "VersionStatus", "judge"]

NoteKind: TypeAlias = Literal[
    "frozen", "server-away", "no-instance", "dead-instance",
    "alias-without-version", "no-alias", "route-not-applied",
    "version-not-ready", "version-not-applied", "model-gone", "no-traffic", "canary",
    "orphan", "stranger", "dead-operation",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One registered version; `is_ready` is None if Triton could not be asked, `traffic` counts since the load."""

    version: int
    url: str
    share: float
    other_aliases: tuple[str, ...]
    model_id: str
    model_is_there: bool
    precision: str
    source_id: str
    source_name: str
    triton_model: str
    is_ready: bool | None
    traffic: ModelTraffic | None
    known_to: tuple[str, ...]  # task ids of living instances
    instances: int  # how many live
    is_managed: bool = False  # ClearML Serving's own controller brings it to Triton

    @property
    def is_routed(self) -> bool:
        return self.share > 0 or bool(self.other_aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """One endpoint; `missing` are urls its alias names and nobody registered."""

    name: str
    url: str
    has_alias: bool
    weights: Mapping[int, float]
    versions: tuple[VersionStatus, ...]
    missing: tuple[str, ...]
    route_applied: int
    instances: int
    operations: tuple[OperationRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing a person should know; `mend` is the command, or what to do, "" if nothing is to be done."""

    kind: NoteKind
    subject: str
    fact: str
    mend: str = ""


def judge(
    inventory: Inventory,
    endpoints: Sequence[EndpointStatus],
    *,
    only: str,
    instances: Sequence[Instance],
    inference_is_there: bool,
    triton_is_there: bool,
    managed: bool,
) -> tuple[Note, ...]:
    """Return what is wrong or left over, the worst first; of one endpoint if `only` names it."""
    return (
        *_frozen(inventory),
        *_servers(instances, inference_is_there, triton_is_there, managed=managed),
        *(note for endpoint in endpoints for note in _endpoint(endpoint)),
        *(note for endpoint in endpoints for note in _canary(inventory, endpoint)),
        *_left_over(inventory, only),
        *_operations(inventory, only),
    )


def _frozen(inventory: Inventory) -> Iterator[Note]:
    for name in inventory.state.frozen_by():
        yield Note(
            kind="frozen",
            subject=f"alias {name}",
            fact="stops every endpoint of this service: its registered weights add up to 0",
            mend=f"tao2serve promote {name} VERSION, or: clearml-serving model remove --endpoint {name}",
        )


def _servers(
    instances: Sequence[Instance], inference_is_there: bool, triton_is_there: bool, *, managed: bool
) -> Iterator[Note]:
    if not inference_is_there:
        yield Note(
            kind="server-away", subject="inference service", fact="does not answer", mend="start it, or mend its URL"
        )
    if not triton_is_there:
        yield Note(
            kind="server-away", subject="Triton", fact="does not answer: its models and traffic are not known",
            mend=f"start {'its controller' if managed else 'it'}, or set TAO2SERVE_TRITON_GRPC",
        )  # fmt: skip
    if not any(instance.is_alive for instance in instances):
        yield Note(
            kind="no-instance", subject="inference instances", fact="none gives a sign in ClearML",
            mend="start one: CLEARML_SERVING_TASK_ID must name this service",
        )  # fmt: skip
    for instance in instances:
        if not instance.is_alive:
            yield Note(
                kind="dead-instance", subject=str(instance),
                fact=f"gave no sign for {instance.silent_s:.0f} s, and is not waited for",
            )  # fmt: skip


def _endpoint(endpoint: EndpointStatus) -> Iterator[Note]:
    name = endpoint.name
    if endpoint.missing:
        yield Note(
            kind="alias-without-version", subject=f"alias {name}",
            fact=f"names {', '.join(endpoint.missing)}, which nobody registered",
            mend=f"tao2serve promote {name} VERSION" if endpoint.versions else f"tao2serve undeploy {name} --all",
        )  # fmt: skip
    if endpoint.versions and not endpoint.has_alias:
        newest = endpoint.versions[-1].version
        yield Note(
            kind="no-alias", subject=f"endpoint {name}", fact="has versions, and no alias that routes to one",
            mend=f"tao2serve promote {name} {newest}",
        )  # fmt: skip
    if endpoint.has_alias and endpoint.route_applied < endpoint.instances:
        yield Note(
            kind="route-not-applied", subject=f"alias {name}",
            fact=f"is applied by {endpoint.route_applied} of {endpoint.instances} instances so far",
            mend="wait for one poll; a request that hangs holds up the others",
        )  # fmt: skip
    for version in endpoint.versions:
        yield from _version(endpoint, version)


def _canary(inventory: Inventory, endpoint: EndpointStatus) -> Iterator[Note]:
    name, weights = endpoint.name, endpoint.weights
    if len(weights) > 1:
        records = [record for record in inventory.operations if record.endpoint == name]
        version = canary_of(changes_of(records, weights), weights)
        yield Note(
            kind="canary", subject=f"{name}/{version}", fact=f"is on trial with {weights[version] * 100:.4g} %",
            mend=f"all requests to it: tao2serve promote {name}; take it back: tao2serve rollback {name}",
        )  # fmt: skip


def _version(endpoint: EndpointStatus, version: VersionStatus) -> Iterator[Note]:
    subject, name = f"{endpoint.name}/{version.version}", endpoint.name
    if version.is_ready is False:
        yield Note(
            kind="version-not-ready", subject=subject, fact=f"is not ready on Triton as {version.triton_model}",
            mend=_to_make_ready(name, version),
        )  # fmt: skip
    if len(version.known_to) < version.instances:
        yield Note(
            kind="version-not-applied", subject=subject,
            fact=f"is known to {len(version.known_to)} of {version.instances} instances so far",
            mend="wait for one poll",
        )  # fmt: skip
    if version.model_id and not version.model_is_there:
        yield Note(
            kind="model-gone", subject=subject, fact=f"names model {version.model_id}, which ClearML no longer has",
            mend="deploy it again, or undeploy it: it serves as long as Triton keeps it loaded",
        )  # fmt: skip
    if endpoint.has_alias and not version.is_routed:
        yield Note(
            kind="no-traffic", subject=subject, fact="gets no requests from the alias",
            mend=f"keep it to go back to, or remove it: tao2serve undeploy {subject}",
        )  # fmt: skip


def _to_make_ready(name: str, version: VersionStatus) -> str:
    number = version.version
    if version.is_managed:  # nobody but the controller loads it
        wait = "the controller loads it after its next look, or its log says why not"
        return f"tao2serve rollback {name}, or wait: {wait}" if version.is_routed else f"wait: {wait}"
    if version.is_routed:
        return f"tao2serve rollback {name}, or load it: tao2serve promote {name} {number}"
    return f"tao2serve promote {name} {number} loads it; tao2serve undeploy {name}/{number} removes it"


def _left_over(inventory: Inventory, only: str) -> Iterator[Note]:
    loaded = {text for text, is_ready in (inventory.on_triton or {}).items() if is_ready}

    def where(text: str) -> str:
        places = (("a folder", text in (inventory.folders or ())), ("a loaded model", text in loaded))
        return " and ".join(word for word, is_so in places if is_so)

    for name in inventory.orphans():
        if not only or name.endpoint == only:
            yield Note(
                kind="orphan", subject=name.text,
                fact=f"is {where(name.text)} of ours with no registered version",
                mend=f"tao2serve undeploy {name.endpoint}"
                + ("" if name.version in inventory.state.versions(name.endpoint) else f"/{name.version}"),
            )  # fmt: skip
    for name in inventory.strangers():
        if not only or name.endpoint == only:
            yield Note(
                kind="stranger", subject=name.text,
                fact=f"is {where(name.text)} that this service is not known to have made, and is left alone",
            )  # fmt: skip


def _operations(inventory: Inventory, only: str) -> Iterator[Note]:
    for record in inventory.operations:
        if record.is_running and not record.goes_on(inventory.now) and (not only or record.endpoint == only):
            yield Note(
                kind="dead-operation", subject=f"{record.kind} {record.endpoint}",
                fact=f"was cut off: its process is gone (ClearML task {record.task_id})",
                mend="run it again; the next operation marks it as failed",
            )  # fmt: skip
