"""One run of `deploy`: what is asked for, what it is made from, and where it goes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tao2serve.config import Settings
from tao2serve.deployment.course import Course
from tao2serve.deployment.inputs import Chosen, choose, weights_sha256
from tao2serve.deployment.request import DeployRequest, check_request
from tao2serve.deployment.site import Site, open_site
from tao2serve.errors import UsageError
from tao2serve.loadtest.hardware import serving_hardware
from tao2serve.registry.source import give_to_clearml
from tao2serve.serving.managed import check_manageable
from tao2serve.steps import WARNING, Steps
from tao2serve.tuned import Tuned

__all__ = ["GIVE_WEIGHTS", "Job", "give_weights", "open_job"]

GIVE_WEIGHTS: Final = "give the weights to ClearML"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all steps need to know."""

    request: DeployRequest
    settings: Settings
    chosen: Chosen
    site: Site
    folder: Path  # for files of this run; it is gone afterwards
    steps: Steps
    course: Course

    @property
    def gives_weights(self) -> bool:
        """Whether the user gave a file of weights for a model that ClearML tracks."""
        return self.request.source.weights is not None and self.chosen.source.trained is not None


def open_job(
    request: DeployRequest,
    settings: Settings,
    *,
    folder: Path,
    steps: Steps,
    stack: ExitStack,
    course: Course | None = None,
) -> Job:
    """Choose the trained model and find where it is to serve; nothing is changed anywhere.

    Raises UsageError for what cannot be asked for, and as `choose` and `open_site` do.
    """
    check_request(request)
    check_manageable(settings)
    with steps.step("choose the trained model") as step:
        chosen = choose(request, settings, folder=folder, on_news=step.news)
        step.note(f"{chosen.source.weights.name}: {chosen.source.reason}")
    if request.tuned is not None:
        with steps.step("see what was tuned") as step:
            step.note(check_tuned(request.tuned, chosen, request))
    with steps.step("find the serving service") as step:
        site = open_site(request.endpoint, settings, stack)
        step.note(site.service.id)
    if request.tuned is not None:
        with steps.step("compare its hardware with what was tuned on") as step:
            step.note(told_hardware(request.tuned, site))
    return Job(
        request=request, settings=settings, chosen=chosen, site=site, folder=folder, steps=steps,
        course=course or Course(),
    )  # fmt: skip


def check_tuned(tuned: Tuned, chosen: Chosen, request: DeployRequest) -> str:
    """Say what tuned settings are; raises UsageError if they were made for another model than the chosen one."""
    weights, precision = weights_sha256(chosen.source), request.artifacts.precision
    hint = f"tune this model: tao2serve loadtest {request.endpoint} --tune; or copy what fits into tao2serve.toml"
    if weights != tuned.source_sha256:
        evidence = f"SHA-256 {tuned.source_sha256}, and {chosen.source.weights.name} has {weights}"
        raise UsageError(str(tuned.path), "was made for other weights", evidence=evidence, hint=hint)
    if precision is not None and tuned.precision and precision != tuned.precision:
        evidence = f"{tuned.precision}, and --precision says {precision}"
        raise UsageError(str(tuned.path), "was made for another precision", evidence=evidence, hint=hint)
    return ", ".join(f"{name} {value}" for name, value in tuned.settings.items())


def told_hardware(tuned: Tuned, site: Site) -> str:
    """Say whether it is the same; other hardware is a warning and no error: not all of it is seen from everywhere."""
    here = serving_hardware(site.host.control.address, site.host.control.models())
    if other := tuned.other_hardware(here):
        return f"{WARNING}tuned on other hardware: {other}"
    return f"the same: {', '.join(here.values())}"


def give_weights(job: Job) -> Job:
    """Give ClearML the weights that the user gave for a model which it knows by a path alone; once.

    Not before they are proved: what cannot be deployed leaves nothing in ClearML.
    """
    if not job.gives_weights:
        return job
    with job.steps.step(GIVE_WEIGHTS) as step:
        source = give_to_clearml(job.chosen.source, job.request.source, on_news=step.news)
        if source.trained is not None:
            step.note(f"model {source.trained.model_id}")
    return replace(job, chosen=replace(job.chosen, source=source))
