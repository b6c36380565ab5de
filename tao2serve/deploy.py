"""`deploy`: the order of things, from a trained model to an endpoint that answers."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from tao2serve.config import Settings
from tao2serve.deployment.aftermath import aftermath_told
from tao2serve.deployment.candidate import make_product, number, publish_product, recall, tidy
from tao2serve.deployment.course import Reached
from tao2serve.deployment.job import give_weights, open_job
from tao2serve.deployment.outcome import Deployment, outcome_of
from tao2serve.deployment.report import finish, operating
from tao2serve.deployment.request import DeployRequest
from tao2serve.deployment.serve import (
    ask_version,
    await_controller,
    bring_to_triton,
    is_served,
    pass_gate,
    register,
    switch_alias,
)
from tao2serve.steps import Steps, undone_on_failure

__all__ = ["DeployRequest", "Deployment", "deploy"]


def deploy(request: DeployRequest, settings: Settings, *, steps: Steps) -> Deployment:
    """Leave a live, verified endpoint version, and its alias pointing at it.

    If all of that is there already it is asked once, and nothing is changed. What was serving stays untouched until
    the alias is switched, the last step; when a step before that fails, what this run added to Triton and to the
    serving service is taken away again, and after a run that was killed the next one goes on with what it left. What
    ends it early says what became of the version (`deployment.aftermath`).
    """
    with ExitStack() as stack:
        course = stack.enter_context(aftermath_told())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tao2serve-deploy-")))
        job = open_job(request, settings, folder=folder, steps=steps, stack=stack, course=course)
        candidate = recall(job)
        if candidate is not None and is_served(candidate, job):
            job = give_weights(job)
            with steps.step("ask what serves already") as step:
                smoke, parity = ask_version(candidate, job, step)
            return outcome_of(candidate, job, smoke, parity)
        operation = stack.enter_context(operating(job))
        candidate = recall(job)  # anew: until here others may have been at work
        if candidate is not None:
            job = give_weights(job)
        else:
            product = make_product(job)
            job = give_weights(job)
            with steps.step("publish to ClearML") as step:
                model = publish_product(operation, product, job, step)
            with steps.step("decide on the version") as step:
                candidate = number(operation, product, model, job, step)
        tidy(candidate, job)
        undo = stack.enter_context(undone_on_failure())
        bring_to_triton(candidate, job, undo)
        with steps.step("register the endpoint version") as step:
            register(candidate, job, operation, step)
        await_controller(candidate, job)
        with steps.step("ask it, and compare with the artifact") as step:
            smoke, parity = ask_version(candidate, job, step)
        gate = pass_gate(candidate, job, smoke, parity, operation)
        with steps.step("switch the alias") as step:
            route = switch_alias(candidate, job, operation, step)
        undo.pop_all()  # it is live
        course.reached = Reached.LIVE
        return finish(operation, outcome_of(candidate, job, smoke, parity, operation, route, gate), candidate, job)
