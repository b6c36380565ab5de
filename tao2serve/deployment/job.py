"""One run of `deploy`: what is asked for, what it is made from, and where it goes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tao2serve.config import Settings
from tao2serve.deployment.inputs import Chosen, choose
from tao2serve.deployment.request import DeployRequest, check_request
from tao2serve.deployment.site import Site, open_site
from tao2serve.serving.managed import check_manageable
from tao2serve.steps import Steps

__all__ = ["Job", "open_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all steps need to know."""

    request: DeployRequest
    settings: Settings
    chosen: Chosen
    site: Site
    folder: Path  # for files of this run; it is gone afterwards
    steps: Steps
    left: list[str] = field(default_factory=list)  # what this run could not take back


def open_job(
    request: DeployRequest, settings: Settings, *, folder: Path, steps: Steps, stack: ExitStack, upload: bool
) -> Job:
    """Choose the trained model and find where it is to serve; nothing is changed anywhere, but weights that ClearML
    knows by their path alone are given to it with `upload`.

    Raises UsageError for what cannot be asked for, and as `choose` and `open_site` do.
    """
    check_request(request)
    check_manageable(settings)
    with steps.step("choose the trained model") as step:
        chosen = choose(request, settings, folder=folder, upload=upload, on_news=step.news)
        step.note(f"{chosen.source.weights.name}: {chosen.source.reason}")
    with steps.step("find the serving service") as step:
        site = open_site(request.endpoint, settings, stack)
        step.note(site.service.id)
    return Job(request=request, settings=settings, chosen=chosen, site=site, folder=folder, steps=steps)
