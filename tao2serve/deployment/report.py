"""What ClearML shows of a deployment: its steps as they happen, what it used, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from tao2serve.deployment import reuse
from tao2serve.deployment.candidate import ANSWER, DOCUMENT, Candidate
from tao2serve.deployment.course import Reached
from tao2serve.deployment.gate import GateResult
from tao2serve.deployment.job import Job
from tao2serve.deployment.load_report import show
from tao2serve.deployment.outcome import Deployment
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.operation import Operation
from tao2serve.registry.operations import MANAGED
from tao2serve.registry.publish import mark_published, use_published
from tao2serve.serving.drawing import draw
from tao2serve.steps import StepEvent, Steps, attempt

__all__ = ["finish", "keep", "operating", "show_load"]

SERIES: Final = "deployment"


@contextmanager
def operating(job: Job) -> Iterator[Operation]:
    """Be the one operation on this endpoint; ClearML shows the steps as they happen, those before it too.

    Raises ServiceError, naming who, if another one runs. One that fails notes that it has tidied up, so put what is
    to be undone inside, and what could not be undone into the job's course: then the next run tries again.
    """
    chosen, site = job.chosen, job.site
    project = job.settings.artifact_project
    with Operation(reuse.DEPLOY, endpoint=site.name, service_id=site.service.id, project=project) as operation:
        job.course.reached = Reached.BEGUN
        site.service.turn = operation.turn
        operation.note(**{reuse.INPUTS: chosen.inputs.made_of, reuse.JUDGED: chosen.inputs.judged_by})
        if job.settings.managed:
            operation.note(**{MANAGED: "true"})
        try:
            with _told(operation, job.steps):
                operation.task.set_configuration_object(name="experiment_spec", config_text=chosen.spec_text)
                operation.record("params.json", chosen.params.to_dict())
                operation.record("settings", job.settings.model_dump(mode="json"))
                yield operation
        except BaseException:
            with deferred_interrupts():
                if not job.course.left:
                    attempt(lambda: operation.note(**{reuse.STAGE: reuse.TAKEN_BACK}))
            raise


def finish(operation: Operation, deployment: Deployment, candidate: Candidate, job: Job) -> Deployment:
    """Keep a deployment's documents, figures and picture with its operation, and mark its model as published."""
    if candidate.product is None:
        use_published(operation, candidate.model.model_id)
    keep(operation, deployment, job)
    mark_published(candidate.model)
    return deployment


def keep(operation: Operation, deployment: Deployment, job: Job) -> None:
    """Keep the documents, figures and picture with the operation, those of a version that missed its gate too."""
    operation.record(ANSWER, deployment.smoke.document)
    operation.record(DOCUMENT, deployment.to_dict())
    attempt(lambda: _figures(operation, deployment, job.chosen.image))


def show_load(operation: Operation, gate: GateResult) -> None:
    """Show a load test with the operation: the figures of the report, and its percentiles."""
    gates = [verdict.gate for verdict in gate.verdicts]
    attempt(lambda: show(operation.task.get_logger(), gate.result, series=SERIES, gates=gates))


@contextmanager
def _told(operation: Operation, steps: Steps) -> Iterator[None]:
    """Write each step into the task's console as it starts and ends, and how long they took at the end."""
    logger, watch = operation.task.get_logger(), steps.watch

    def say(event: StepEvent) -> None:
        logger.report_text(_line(event), print_console=False)

    def see(event: StepEvent) -> None:
        watch(event)
        attempt(partial(say, event))

    for event in steps.done:
        attempt(partial(say, event))
    steps.watch = see
    try:
        yield
    finally:
        steps.watch = watch
        attempt(lambda: _durations(logger, steps))


def _line(event: StepEvent) -> str:
    took = f" ({event.seconds:.1f} s)" if event.kind in ("done", "failed") else ""
    return f"{event.kind}: {event.name}{took}{': ' if event.detail else ''}{event.detail}"


def _durations(logger: Any, steps: Steps) -> None:
    if steps.done:
        logger.report_histogram(
            "step durations", SERIES, iteration=0, values=[round(event.seconds, 3) for event in steps.done],
            xlabels=[event.name for event in steps.done], yaxis="seconds",
        )  # fmt: skip


def _figures(operation: Operation, deployment: Deployment, image: bytes) -> None:
    logger, parity = operation.task.get_logger(), deployment.parity
    rows: list[list[Any]] = [["boxes", "expected", "found", "matched ratio", "largest difference of scores"]]
    rows.append(["endpoint and artifact", parity.expected, parity.found, parity.matched_ratio,
                 f"{parity.max_score_difference:.2g}"])  # fmt: skip
    cost = deployment.artifact.get("cost")
    if cost:
        boxes = cost["boxes"]
        rows.append([f"{deployment.precision} and fp32", boxes["expected"], boxes["found"], boxes["matched_ratio"],
                     f"{boxes['max_score_difference']:.2g}"])  # fmt: skip
        tensors = [["tensor", "largest difference", "mean difference", "cosine"]]
        tensors += [
            [tensor["name"], tensor["max_abs"], tensor["mean_abs"], tensor["cosine"]] for tensor in cost["tensors"]
        ]
        logger.report_table(f"cost of {deployment.precision}", SERIES, iteration=0, table_plot=tensors)
        logger.report_single_value(f"matched ratio of {deployment.precision}", boxes["matched_ratio"])
    logger.report_table("parity", SERIES, iteration=0, table_plot=rows)
    logger.report_single_value("matched ratio", parity.matched_ratio)
    for stage, took_ms in deployment.smoke.timing_ms.items():
        logger.report_single_value(f"smoke request {stage} ms", took_ms)
    picture = draw(image, deployment.smoke.predictions)
    logger.report_image("smoke request", "boxes", iteration=0, image=picture)
