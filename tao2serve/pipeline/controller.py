"""ClearML's own PipelineController over the steps: its graph, its tasks, its order."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.errors import ServiceError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.pipeline.course import command_of
from tao2serve.pipeline.jobs import STOP_LIMIT_S as STEP_LIMIT_S
from tao2serve.pipeline.jobs import OnLine, local_job, queue_job
from tao2serve.pipeline.main_task import make_main_task
from tao2serve.pipeline.request import PipelineRequest, pipeline_name, pipeline_project
from tao2serve.pipeline.results import StepResult, read_result
from tao2serve.pipeline.reuse import KEY, MODEL, Choice, key_of
from tao2serve.registry.session import clearml, translated
from tao2serve.remote.protocol import PARAMETERS
from tao2serve.remote.submit import Submission, submit

__all__ = ["STOP_LIMIT_S", "Course", "run_controller"]

log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = STEP_LIMIT_S + 30.0  # the running step's, and the controller's to notice and to report
LOOK_LOCAL_S: Final = 0.3
LOOK_QUEUE_S: Final = 2.0
OnStatus = Callable[[str, str], None]  # told the step's name and its new status, in ClearML's words
HERE: Final = "here"  # the SDK wants the name of a queue, and local jobs use none


@dataclass(slots=True, kw_only=True)
class Course:
    """One run of the pipeline: the results of steps, those of earlier runs first, and what ended it."""

    request: PipelineRequest
    choice: Choice
    settings: Settings
    results: dict[str, StepResult]
    reused: frozenset[str]
    on_line: OnLine
    on_status: OnStatus
    task_id: str = ""  # of the controller
    started: dict[str, str] = field(default_factory=dict)  # task of each step that was begun
    error: BaseException | None = None  # what kept a step from being begun
    is_running_on: bool = False  # it was to end, and had not after STOP_LIMIT_S

    @property
    def project(self) -> str:
        return pipeline_project(self.settings.artifact_project, self.request.endpoint)

    def task_of(self, step: str) -> str:
        """Make the task of a step from what the steps before it have left, and return its id."""
        request = self.request
        for before in request.steps[: request.steps.index(step)]:
            if before not in self.results:
                self.results[before] = self._passed(before)
        command = command_of(step, request, self.choice.model_id, self.results)
        before_ids = [self.results[name].task_id for name in request.steps[: request.steps.index(step)]]
        key = key_of(step, command, self.choice, request.settings, before_ids)
        self.started[step] = submit(
            Submission(
                command=command,
                project=self.project,
                settings=request.settings,
                image=request.queue.image if request.queue else "",
                extras=("loadtest",) if step == "loadtest" else (),
                name=step,
                parameters={KEY: key, MODEL: self.choice.model_id, "endpoint": request.endpoint},
                reports=True,
            )
        )
        return self.started[step]

    def _passed(self, step: str) -> StepResult:
        """Read the result of a step that ran; whatever ClearML calls its task, a failed one is not gone on from."""
        result = read_result(step, self.started[step])
        if result.exit_code:
            raise ServiceError(
                f"step {step}, ClearML task {result.task_id}", f"ended with exit code {result.exit_code}",
                hint="see its console in ClearML, then run the same command again",
            )  # fmt: skip
        return result


def run_controller(course: Course) -> None:
    """Run the steps that do not stand yet; returns when they have ended, or one has failed.

    The controller's task is the main task of this process while it runs. Interrupted, the running step is ended, and
    the pipeline is marked as stopped.
    """
    request = course.request
    with _main_task(course) as task:
        course.task_id = str(task.id)
        controller = _controller(course)
        runner = _Runner(controller)
        try:
            with translated(f"pipeline {request.endpoint}", "could not be run"):
                runner.run()
        except BaseException:
            with deferred_interrupts():
                course.is_running_on = not runner.stop()
            raise


class _Runner:
    """Runs the controller in a thread: an interrupt of Thread.join would have Python take that thread for ended."""

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Return when the pipeline has ended; raises what the controller has raised."""
        threading.Thread(target=self._go, name="tao2serve pipeline", daemon=True).start()
        while not self._ended.wait(0.2):
            pass
        if self._error is not None:
            raise self._error

    def stop(self) -> bool:
        """End the running step, wait until it has taken back what it must, and mark the pipeline as stopped.

        Returns whether it has ended within STOP_LIMIT_S.
        """
        has_ended = True
        event = self._controller._stop_event
        if event is not None:
            event.set()
            has_ended = self._ended.wait(STOP_LIMIT_S)
        self._controller.stop(timeout=0.1, mark_aborted=True)
        return has_ended

    def _go(self) -> None:
        try:
            self._controller.start_locally()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


@contextlib.contextmanager
def _main_task(course: Course) -> Iterator[Any]:
    """Make the controller's task as PipelineController itself would, but that nothing of this process is captured."""
    request = course.request
    with translated("ClearML", "did not make the task of the pipeline"):
        from clearml.automation.controller import PipelineController

        name = pipeline_name(request.endpoint)
        named = PipelineController._create_pipeline_project_args(name, course.settings.artifact_project)
        task = make_main_task(named["project_name"], named["task_name"], kind="controller")
        PipelineController._create_pipeline_projects(
            task=task, parent_project=named["parent_project"], project_name=named["project_name"]
        )
        task.set_system_tags([*(task.get_system_tags() or []), PipelineController._tag])
        told = {MODEL: course.choice.model_id, "endpoint": request.endpoint, "watch": request.watch}
        task.set_user_properties(**{name: value for name, value in told.items() if value})
    try:
        yield task
    finally:
        with contextlib.suppress(Exception):
            task.close()


def _controller(course: Course) -> Any:
    """Build the pipeline: its parameters, and a step for each, below the one before it."""
    from clearml.automation.controller import PipelineController

    request, queue = course.request, course.request.queue
    kind = queue_job(course.on_line, queue.wait_s) if queue else local_job(course.on_line)

    class Controller(PipelineController):  # type: ignore[misc]
        """ClearML's controller with our jobs; a step that cannot be begun ends the pipeline, with its error kept."""

        _clearml_job_class = kind

        def _launch_node(self, node: Any) -> bool:
            if node.executed or node.job:
                return bool(super()._launch_node(node))
            try:
                return bool(super()._launch_node(node))
            except BaseException as error:
                course.error = course.error or error
                self._pipeline_task_status_failed = True
                node.skip_job = True
                return False

    controller = Controller(
        name=pipeline_name(request.endpoint), project=course.settings.artifact_project, abort_on_failure=True,
        retry_on_failure=0, pool_frequency=(LOOK_QUEUE_S if queue else LOOK_LOCAL_S) / 60,
    )  # fmt: skip
    controller.set_default_execution_queue(queue.name if queue else HERE)
    for name, value in _parameters(request, course.choice).items():
        controller.add_parameter(name, value)
    before: list[str] = []
    for step in request.steps:
        controller.add_step(
            name=step, parents=before,
            base_task_factory=lambda node: clearml().Task.get_task(task_id=course.task_of(str(node.name))),
            parameter_override={f"{PARAMETERS}/{parent}": f"${{{parent}.id}}" for parent in before},
            status_change_callback=lambda _pipeline, node, _before: course.on_status(str(node.name), str(node.status)),
        )  # fmt: skip
        before = [step]
    for step in course.reused:
        controller.get_pipeline_dag()[step].executed = course.results[step].task_id
    return controller


def _parameters(request: PipelineRequest, choice: Choice) -> Mapping[str, str]:
    return {
        "endpoint": request.endpoint,
        "model": choice.model_id,
        "canary_percent": f"{request.canary:g}",
        "gates": ", ".join(request.slo),
        "until": request.until,
    }
