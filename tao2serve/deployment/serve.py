"""Bringing a version to where it serves: Triton, then ClearML Serving, then proof, then the alias."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from tao2serve.deployment import reuse
from tao2serve.deployment.candidate import Candidate, has_remains
from tao2serve.deployment.course import Reached
from tao2serve.deployment.gate import GateResult, run_gate
from tao2serve.deployment.job import Job
from tao2serve.deployment.outcome import GateMissedError, Switch, outcome_of
from tao2serve.deployment.report import keep, show_load
from tao2serve.parity.boxes import BoxParity
from tao2serve.registry.operation import Operation
from tao2serve.registry.operations import mark
from tao2serve.registry.publish import is_whole
from tao2serve.runtime.endpoint import SETTINGS_FILE
from tao2serve.serving.client import Answer, wait_for_answer
from tao2serve.serving.managed import auxiliary_for, wait_until_loaded
from tao2serve.serving.package import write_package
from tao2serve.serving.parity import check_boxes
from tao2serve.serving.rollout import change_route
from tao2serve.serving.routes import described
from tao2serve.serving.service import EndpointVersion
from tao2serve.serving.state import same_weights
from tao2serve.serving.undo import take_back
from tao2serve.steps import Step
from tao2serve.triton.models import models_of
from tao2serve.values import TritonModel

__all__ = [
    "AWAIT_CONTROLLER",
    "ask_version",
    "await_controller",
    "bring_to_triton",
    "is_registered",
    "is_served",
    "pass_gate",
    "register",
    "switch_alias",
]

log = logging.getLogger(__name__)

AWAIT_CONTROLLER: Final = "wait for the controller to load it on Triton"


def is_served(candidate: Candidate, job: Job) -> bool:
    """Whether Triton has this version ready, the alias routes as asked, and no killed run left anything.

    Then nothing is to be changed.
    """
    site, state = job.site, job.site.state()
    wanted = site.route_with(candidate.endpoint.version, job.request.canary, state)
    is_routed = same_weights(state.weights(site.name), wanted)
    return is_routed and site.host.is_ready(candidate.endpoint) and not has_remains(job, state)


def bring_to_triton(candidate: Candidate, job: Job, undo: ExitStack) -> None:
    """Have the version's models in the repository and ready on Triton.

    A version that was not ready before this run is put on `undo`: registration, Triton and the folders that this run
    put into the repository, or the dead run that it goes on with. Others that have the same content stay. ClearML
    Serving's own controller, if it owns Triton, brings them once they are registered (`await_controller`).
    """
    endpoint, site = candidate.endpoint, job.site
    job.course.reached = Reached.BRINGING
    written = [*site.host.folders(endpoint)] if candidate.adopts else []
    if not candidate.was_ready:
        undo.callback(_undo, endpoint, written, job)
    if candidate.adopts:  # from here on it is this run that takes back
        mark(candidate.adopts, **{reuse.STAGE: reuse.ADOPTED})
    if site.host.repository is None:
        return
    with job.steps.step("load on Triton") as step:
        if candidate.product is not None:
            model = candidate.product.made.model
            folders = models_of(model, job.chosen.params, job.settings, name=endpoint.triton_model)
            written[:] = site.host.write(folders, adopted=bool(candidate.adopts))
        loaded = site.host.load(endpoint, job.settings)
        step.note(f"{endpoint.triton_model} on {site.host.control.address}{'' if loaded else ', ready already'}")


def _undo(endpoint: EndpointVersion, written: Sequence[TritonModel], job: Job) -> None:
    """Take back what this run added; what stays is kept in mind, so that it does not say it had taken all back."""
    try:
        take_back(job.site.service, job.site.host.control, endpoint, written)
    except Exception as error:  # what made the run fail says more than this one
        log.warning("%s", error)
        job.course.left.append(str(error))


def register(candidate: Candidate, job: Job, operation: Operation, step: Step) -> None:
    """Have the version registered with its preprocess code, once."""
    endpoint, model, service = candidate.endpoint, candidate.model, job.site.service
    if is_registered(endpoint, model.model_id, job):
        step.note(f"{endpoint.url}, registered already")
        return
    assert candidate.product is not None  # a recalled version is registered, and its code is there
    artifact = candidate.product.made.model
    code = write_package(
        endpoint, model, artifact, job.chosen.params, job.settings, directory=job.folder / "preprocess"
    )
    operation.record(SETTINGS_FILE, json.loads((code / SETTINGS_FILE).read_text(encoding="utf-8")))
    folders = models_of(artifact, job.chosen.params, job.settings, name=endpoint.triton_model)
    service.register(
        endpoint, model_id=model.model_id, signature=artifact.signature, preprocess_code=code,
        auxiliary=auxiliary_for(folders, model, job.settings),
    )  # fmt: skip
    operation.note(**{reuse.STAGE: "registered"})
    step.note(endpoint.url)


def is_registered(endpoint: EndpointVersion, model_id: str, job: Job) -> bool:
    """Whether the version is registered with this model, and its preprocess code is there."""
    entry = job.site.state().endpoints.get(f"{endpoint.name}/{endpoint.version}")
    return entry is not None and entry.model_id == model_id and is_whole(job.site.service.code_url(endpoint))


def await_controller(candidate: Candidate, job: Job) -> None:
    """Wait until Triton serves what ClearML Serving's own controller is to bring there; nothing if we brought it."""
    if job.site.host.repository is not None:
        return
    with job.steps.step(AWAIT_CONTROLLER) as step:
        said = wait_until_loaded(
            job.site.service.id, job.site.host.control, candidate.endpoint, candidate.model, job.settings,
            on_news=step.news,
        )  # fmt: skip
        step.note(said)


def ask_version(candidate: Candidate, job: Job, step: Step) -> tuple[Answer, BoxParity]:
    """Ask the version itself about the picture, and hold its boxes against those expected.

    Raises NotReadyError if it does not answer in time, ParityError if it answers other boxes.
    """
    url, limit_s = candidate.endpoint.url, job.settings.ready_timeout_s
    smoke = wait_for_answer(url, job.chosen.image, timeout_s=limit_s, on_news=step.news)
    parity = check_boxes(candidate.expected, smoke, subject=url)
    step.note(str(parity))
    return smoke, parity


def pass_gate(
    candidate: Candidate, job: Job, smoke: Answer, parity: BoxParity, operation: Operation
) -> GateResult | None:
    """Load-test the version if that is asked for and it has not passed yet; None if there was nothing to do.

    Raises GateMissedError, with the whole deployment, if it is too slow.
    """
    if job.request.gate is None or candidate.load is not None:
        return None
    with job.steps.step("load test and gate") as step:
        gate = run_gate(
            job.request.gate, candidate.endpoint, directory=job.folder / "load", on_news=step.news,
            triton=job.site.host.control.address,
        )  # fmt: skip
        step.note(str(gate))
    show_load(operation, gate)
    if not gate.passed:
        missed = outcome_of(candidate, job, smoke, parity, operation, gate=gate)
        keep(operation, missed, job)
        raise GateMissedError(missed, step.detail)
    return gate


def switch_alias(candidate: Candidate, job: Job, operation: Operation, step: Step) -> Switch:
    """Have the alias route as asked, and return its weights before and after; as it is already, nothing is written."""
    site, endpoint, state = job.site, candidate.endpoint, job.site.state()
    before = state.weights(site.name)
    wanted = site.route_with(endpoint.version, job.request.canary, state)
    shares = described(wanted)
    job.course.reached = Reached.SWITCHING
    if same_weights(before, wanted):
        step.note(f"{endpoint.alias_url}: {shares}, as before")
        return Switch(before=before, after=before)
    change_route(
        site.service, site.name, wanted, operation=operation, image=job.chosen.image, settings=job.settings,
        on_news=step.news,
    )  # fmt: skip
    step.note(f"{endpoint.alias_url}: {shares}")
    return Switch(before=before, after=wanted)
