"""One run of `deploy`: what is asked for, what it is made from, and where it goes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tao2serve.config import Settings
from tao2serve.deployment.course import Course
from tao2serve.deployment.inputs import Chosen, choose
from tao2serve.deployment.request import DeployRequest, check_request
from tao2serve.deployment.site import Site, open_site
from tao2serve.registry.source import give_to_clearml
from tao2serve.serving.managed import check_manageable
from tao2serve.steps import Steps

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
    with steps.step("find the serving service") as step:
        site = open_site(request.endpoint, settings, stack)
        step.note(site.service.id)
    return Job(
        request=request, settings=settings, chosen=chosen, site=site, folder=folder, steps=steps,
        course=course or Course(),
    )  # fmt: skip


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
