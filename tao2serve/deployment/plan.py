"""`deploy --plan`: what a deployment would do, found out without changing anything."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tao2serve.config import Settings
from tao2serve.deployment import reuse
from tao2serve.deployment.candidate import Candidate, make_product, pack_product, recall, use_of
from tao2serve.deployment.job import GIVE_WEIGHTS, Job, open_job
from tao2serve.deployment.outcome import Switch, endpoint_document
from tao2serve.deployment.request import DeployRequest
from tao2serve.deployment.serve import AWAIT_CONTROLLER, is_registered
from tao2serve.registry.operations import OperationRecord
from tao2serve.registry.package import Package
from tao2serve.registry.publish import PublishedModel, find_published, require_storage
from tao2serve.registry.upload import find_weights
from tao2serve.serving.routes import described
from tao2serve.serving.service import EndpointVersion
from tao2serve.serving.state import same_weights
from tao2serve.steps import Steps

__all__ = ["Plan", "PlannedStep", "plan_deployment"]

Would: TypeAlias = Literal["done", "do", "ask", "reuse", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step: `done` here for the plan, to `do`, to `ask` without changing anything, to `reuse`, or `nothing`."""

    name: str
    would: Would
    detail: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "would": self.would, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the same command without --plan would do, as things are now."""

    endpoint: EndpointVersion
    reused: bool  # the version is there, or begun
    alias: Switch
    upload_bytes: int  # 0 if the package is in ClearML
    package_sha256: str  # "" if nothing had to be made to know
    model_id: str  # of the model that would be reused, "" if it would be uploaded
    steps: tuple[PlannedStep, ...]

    @property
    def changes(self) -> bool:
        return any(step.would == "do" for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve deploy --plan`."""
        return {
            "outcome": "plan",
            "changes": self.changes,
            "endpoint": {**endpoint_document(self.endpoint), "reused": self.reused},
            "alias": self.alias.to_dict(),
            "artifact": {
                "model_id": self.model_id or None,
                "package_sha256": self.package_sha256 or None,
                "upload_bytes": self.upload_bytes,
            },
            "steps": [step.to_dict() for step in self.steps],
        }


def plan_deployment(request: DeployRequest, settings: Settings, *, steps: Steps) -> Plan:
    """Say what `deploy` would do, and change nothing: neither ClearML nor Triton nor the repository.

    What can be done on this machine alone is done, export and parity included, so what ends there raises as it would.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tao2serve-deploy-")))
        job = open_job(request, settings, folder=folder, steps=steps, stack=stack)
        candidate = recall(job)
        if candidate is not None:
            return _of_recalled(candidate, job)
        product = make_product(job)
        with steps.step("look into ClearML") as step:
            package = pack_product(product, job)
            records = job.site.records()
            model = find_published(package, preferred=reuse.models_of(records, job.chosen.inputs))
            step.note(f"model {model.model_id} has this content" if model else "nothing has this content yet")
        return _of_made(job, package, model, records)


def _of_recalled(candidate: Candidate, job: Job) -> Plan:
    """Everything is there: at most Triton has to load it, and the alias to be switched."""
    endpoint, alias = candidate.endpoint, _switch(candidate.endpoint.version, job)
    is_ready = job.site.host.is_ready(endpoint)
    steps = (
        *_done(job),
        *_giving(job),
        PlannedStep(name="publish to ClearML", would="reuse", detail=f"model {candidate.model.model_id}"),
        *_tidying(job, endpoint.version),
        *_served(job, endpoint, load="nothing" if is_ready else "do", register="reuse"),
        *_proofs(job, gate=candidate.load is None),
        _switching(alias),
    )
    return Plan(
        endpoint=endpoint, reused=True, alias=alias, upload_bytes=0, package_sha256="",
        model_id=candidate.model.model_id, steps=steps,
    )  # fmt: skip


def _of_made(job: Job, package: Package, model: PublishedModel | None, records: list[OperationRecord]) -> Plan:
    site, state = job.site, job.site.state()
    use = use_of(job, records, model.model_id, state) if model is not None else None
    endpoint = site.version(use.version) if use else site.next_version()
    alias = _switch(endpoint.version, job)
    registered = model is not None and is_registered(endpoint, model.model_id, job)
    loaded = use is not None and site.host.is_ready(endpoint) and site.host.is_stored(endpoint, job.settings)
    judging = ", there already: it is only judged anew" if registered and loaded else ", there already"
    upload = f"{package.bytes:,} bytes to {require_storage()}"
    steps = (
        *_done(job),
        *_giving(job),
        PlannedStep(
            name="publish to ClearML", would="reuse" if model else "do",
            detail=f"model {model.model_id}" if model else upload,
        ),
        PlannedStep(
            name="decide on the version", would="reuse" if use else "do",
            detail=f"version {endpoint.version}{judging if use else ', new'}",
        ),
        *_tidying(job, endpoint.version),
        *_served(job, endpoint, load="nothing" if loaded else "do", register="reuse" if registered else "do"),
        *_proofs(job, gate=True),
        _switching(alias),
    )  # fmt: skip
    return Plan(
        endpoint=endpoint, reused=use is not None, alias=alias, upload_bytes=0 if model else package.bytes,
        package_sha256=package.sha256, model_id=model.model_id if model else "", steps=steps,
    )  # fmt: skip


def _done(job: Job) -> tuple[PlannedStep, ...]:
    return tuple(PlannedStep(name=event.name, would="done", detail=event.detail) for event in job.steps.done)


def _giving(job: Job) -> tuple[PlannedStep, ...]:
    """The upload of weights that the user gave for a model which ClearML knows by a path alone."""
    trained, weights = job.chosen.source.trained, job.chosen.source.weights
    if trained is None or not job.gives_weights:
        return ()
    held = find_weights(trained, weights)
    if held is not None:
        return (PlannedStep(name=GIVE_WEIGHTS, would="reuse", detail=f"model {held.model_id}"),)
    size = f"{weights.name}, {weights.stat().st_size:,} bytes to {require_storage()}"
    return (PlannedStep(name=GIVE_WEIGHTS, would="do", detail=size),)


def _tidying(job: Job, version: int) -> tuple[PlannedStep, ...]:
    """What killed runs left, if they left anything; one that is still marked as running would be marked as failed."""
    site = job.site
    records = [replace(record, status="failed") if record.is_running else record for record in site.records()]
    remains = reuse.remains(records, site.state(), keep=version)
    if not remains:
        return ()
    left = "; ".join(str(record) for record in remains)
    return (PlannedStep(name="take away what killed runs left", would="do", detail=left),)


def _served(job: Job, endpoint: EndpointVersion, *, load: Would, register: Would) -> tuple[PlannedStep, ...]:
    """Loading before registering; ClearML Serving's own controller loads what is registered."""
    registering = PlannedStep(name="register the endpoint version", would=register, detail=endpoint.url)
    if job.site.host.repository is None:
        waiting = PlannedStep(name=AWAIT_CONTROLLER, would=load, detail=endpoint.triton_model)
        return registering, waiting
    return PlannedStep(name="load on Triton", would=load, detail=endpoint.triton_model), registering


def _proofs(job: Job, *, gate: bool) -> tuple[PlannedStep, ...]:
    asked = PlannedStep(name="ask it, and compare with the artifact", would="ask")
    wish = job.request.gate
    if wish is None or not gate:
        return (asked,)
    limits = ", ".join(limit.text for limit in wish.gates)
    return asked, PlannedStep(name="load test and gate", would="ask", detail=f"{wish.run_time_s:g} s, {limits}")


def _switch(version: int, job: Job) -> Switch:
    state = job.site.state()
    before = state.weights(job.site.name)
    return Switch(before=before, after=job.site.route_with(version, job.request.canary, state))


def _switching(alias: Switch) -> PlannedStep:
    same = same_weights(alias.before, alias.after)
    return PlannedStep(name="switch the alias", would="nothing" if same else "do", detail=described(alias.after))
