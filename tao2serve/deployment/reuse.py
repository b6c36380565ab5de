"""What earlier deployments of an endpoint left: one to recall, a version to use again, remains to take away.

Deciding does no I/O. What an operation notes of itself, in this order, is what a run after it may rely on:
`inputs` and `judged` at its start; `model` once it is published; `version` before anything is written under that
number. `stage` says how far it came; of one that failed it says `taken back` once it, or another run, has tidied up
what it left, and `adopted` once another run has gone on with its version: if it says anything else it was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tao2serve.deployment.inputs import Inputs
from tao2serve.registry.operations import VERSION, OperationRecord
from tao2serve.serving.routes import route_from_json
from tao2serve.serving.state import ServiceState, split_url

__all__ = [
    "ADOPTED",
    "DEPLOY",
    "INPUTS",
    "JUDGED",
    "MODEL",
    "STAGE",
    "TAKEN_BACK",
    "VERSION",
    "Use",
    "latest",
    "models_of",
    "remains",
    "use_again",
]

DEPLOY: Final = "deploy"
INPUTS, JUDGED, MODEL, STAGE = "inputs", "judged", "model", "stage"
TAKEN_BACK, ADOPTED = "taken back", "adopted"
ROUTES: Final = ("route_before", "route_wanted", "route")
ENDED_EARLY: Final = ("failed", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A version to use again. One that was ready stays when this run fails; one of a dead run does not."""

    version: int
    record: OperationRecord
    was_ready: bool


def latest(records: Sequence[OperationRecord], inputs: Inputs, state: ServiceState) -> OperationRecord | None:
    """Return the newest finished deployment from these inputs, judged as now, whose version is still registered."""
    for record in _deployments(records):
        same = (record.properties.get(INPUTS), record.properties.get(JUDGED)) == (inputs.made_of, inputs.judged_by)
        if same and record.is_done and _is_registered(record, state):
            return record
    return None


def models_of(records: Sequence[OperationRecord], inputs: Inputs) -> tuple[str, ...]:
    """Return the published models of earlier runs from these inputs, newest first."""
    found = (record.properties.get(MODEL, "") for record in _deployments(records) if _is_of(record, inputs))
    return tuple(dict.fromkeys(model for model in found if model))


def use_again(records: Sequence[OperationRecord], inputs: Inputs, model_id: str, state: ServiceState) -> Use | None:
    """Return the version that holds exactly this: the same inputs and the same published model. None: make a new one.

    It is one that is registered with this model, or the number of a dead run that nothing else can have used.
    """
    ready = _ready_versions(records, state)
    given_up = {record.version for record in records if record.properties.get(STAGE) == TAKEN_BACK}
    for record in _deployments(records):
        version = record.version
        if version is None or not _is_of(record, inputs) or record.properties.get(MODEL) != model_id:
            continue
        unused = _is_dead(record) and version not in {*state.versions(record.endpoint), *ready, *given_up}
        if _is_registered(record, state) or unused:
            return Use(version=version, record=record, was_ready=version in ready)
    return None


def remains(
    records: Sequence[OperationRecord], state: ServiceState, *, keep: int | None = None
) -> tuple[OperationRecord, ...]:
    """Return the runs that ended without tidying up, newest first, except the one whose version is kept.

    A version that some deployment finished, or that an alias routes to or may once have routed to, is no remain; nor is
    one that was refused before it began, because another operation had the endpoint.
    """
    ready = _ready_versions(records, state)
    return tuple(
        record
        for record in _deployments(records)
        if _is_dead(record)
        and record.properties.get(INPUTS)
        and (record.version is None or record.version not in {keep, *ready})
    )


def _deployments(records: Sequence[OperationRecord]) -> list[OperationRecord]:
    return [record for record in records if record.kind == DEPLOY]


def _is_of(record: OperationRecord, inputs: Inputs) -> bool:
    return record.properties.get(INPUTS) == inputs.made_of


def _is_dead(record: OperationRecord) -> bool:
    return record.status in ENDED_EARLY and record.properties.get(STAGE, "") not in (TAKEN_BACK, ADOPTED)


def _routed(record: OperationRecord) -> set[int]:
    """The versions of the routes that an operation found, wanted and brought about.

    One that was killed while it waited for the instances has written the route that it wanted.
    """
    routes = (route_from_json(record.properties.get(name, "")) for name in ROUTES)
    return {version for route in routes for version in route or ()}


def _is_registered(record: OperationRecord, state: ServiceState) -> bool:
    entry = state.endpoints.get(f"{record.endpoint}/{record.version}")
    return entry is not None and bool(entry.model_id) and entry.model_id == record.properties.get(MODEL)


def _ready_versions(records: Sequence[OperationRecord], state: ServiceState) -> set[int]:
    """The versions that some deployment finished, that an alias routes to, or that ours may ever have routed to."""
    routed = [split_url(url) for url in state.routed_urls()]
    found: set[int] = set()
    for record in records:
        found |= {version for name, version in routed if name == record.endpoint and version is not None}
        found |= _routed(record)
        if record.kind != DEPLOY:
            continue
        version = record.version
        if version is not None and record.is_done:
            found.add(version)
    return found
