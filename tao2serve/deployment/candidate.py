"""The version that a deployment is about: recalled from ClearML, or made here, published and numbered."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tao2serve import __version__
from tao2serve.artifacts import Artifacts, make_artifacts
from tao2serve.deployment import reuse
from tao2serve.deployment.course import Reached
from tao2serve.deployment.job import Job
from tao2serve.deployment.site import Site
from tao2serve.errors import Tao2ServeError
from tao2serve.export.execution import open_model
from tao2serve.export.local import detect
from tao2serve.registry.naming import named_as_known
from tao2serve.registry.operation import Operation
from tao2serve.registry.operations import OperationRecord, discard, mark, read_records
from tao2serve.registry.package import Package, pack
from tao2serve.registry.publish import PublishedModel, held_model, is_whole, publish, remove_unfinished
from tao2serve.runtime import Detections
from tao2serve.serving.client import read_answer
from tao2serve.serving.package import check_servable
from tao2serve.serving.service import EndpointVersion
from tao2serve.serving.state import ServiceState
from tao2serve.serving.undo import take_back
from tao2serve.steps import Step, attempt

__all__ = [
    "ANSWER",
    "DOCUMENT",
    "Candidate",
    "Product",
    "artifact_document",
    "has_remains",
    "make_product",
    "metadata",
    "number",
    "pack_product",
    "publish_product",
    "recall",
    "tidy",
    "use_of",
]

log = logging.getLogger(__name__)

# The documents of an operation that the next one reads.
DOCUMENT: Final = "deployment"
ANSWER: Final = "answer"
PARITY_STEPS: Final = ("prove parity with the weights", "make the graph lean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """What was made here to be served, and what it answers for the picture."""

    made: Artifacts
    expected: Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The version that is to serve; `product` is None where all of it is in ClearML and on Triton already."""

    endpoint: EndpointVersion
    model: PublishedModel
    expected: Detections
    artifact: Mapping[str, Any]  # member of the JSON document
    load: Mapping[str, Any] | None  # of the gate that it has passed
    task_id: str  # of the deployment that made it
    was_ready: bool  # it answered before this run, which must not take it away
    reused: bool  # its number is that of an earlier run
    adopts: str  # ClearML task of the dead run that it goes on with, and whose folders are its own; "" if none
    product: Product | None


def recall(job: Job) -> Candidate | None:
    """Return the version that an earlier deployment left from the same inputs, if all of it is really there still.

    Registered with its model, the model's file and its preprocess code in ClearML's storage, its folders in the
    repository; whether Triton has it loaded and the alias routes to it is seen to later. None if anything is missing.
    """
    site = job.site
    record = None if job.request.force else reuse.latest(site.records(), job.chosen.inputs, site.state())
    version = record.version if record else None
    if record is None or version is None:
        return None
    endpoint = site.version(version)
    if not site.host.is_stored(endpoint, job.settings) or not is_whole(site.service.code_url(endpoint)):
        return None
    model = held_model(record.properties[reuse.MODEL])
    kept = read_records(record.task_id, DOCUMENT, ANSWER)
    try:
        expected, document = read_answer(kept[ANSWER]).detections, kept[DOCUMENT]
        artifact, load, task_id = document["artifact"], document["load"], str(document["deployment_task_id"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.info("%s is not recalled: its record cannot be read (%r)", record, error)
        return None
    if model is None:
        return None
    return Candidate(
        endpoint=endpoint, model=model, expected=expected, artifact=artifact, load=load, task_id=task_id,
        was_ready=True, reused=True, adopts="", product=None,
    )  # fmt: skip


def make_product(job: Job) -> Product:
    """Make what is to be served, and ask it here about the picture, by the code that serves it.

    Raises as `make_artifacts` does, and InputError for an artifact that cannot be served or a picture that is none.
    """
    source, folder = job.chosen.source, job.folder / "made"
    with named_as_known(source, made=folder):
        made = make_artifacts(
            source.weights, job.chosen.spec, job.request.artifacts, job.settings, folder=folder, steps=job.steps
        )
    with job.steps.step("look at the picture here") as step:
        check_servable(made.model, job.settings)
        limits = (job.settings.max_image_bytes, job.settings.max_image_pixels)
        model, image = open_model(made.model.path), job.chosen.image
        expected = detect(
            model, image, job.chosen.params, subject="the picture", limits=limits, mode=job.settings.resize
        )  # fmt: skip
        step.note(f"{len(expected)} boxes")
    return Product(made=made, expected=expected)


def pack_product(product: Product, job: Job) -> Package:
    """Put what was made into its package, a copy; its name says no version, since several may share it."""
    made, params = product.made, job.chosen.params.to_dict()
    target = job.folder / f"{job.site.name}_{made.model.precision}.zip"
    return pack(made.model, params=params, original=made.original, target=target)


def publish_product(operation: Operation, product: Product, job: Job, step: Step) -> PublishedModel:
    """Have ClearML hold what was made, and note it on the operation; what it holds already is not uploaded again."""
    package = pack_product(product, job)
    model = publish(
        operation,
        product.made.model,
        package,
        name=package.path.stem,
        metadata=metadata(product.made, job),
        trained=job.chosen.source.trained,
        preferred=reuse.models_of(job.site.records(), job.chosen.inputs),
        on_news=step.news,
    )
    operation.note(**{reuse.MODEL: model.model_id, reuse.STAGE: "published"})
    job.course.reached = Reached.PUBLISHED
    step.note(f"model {model.model_id}" + (", there already with the same content" if model.reused else ""))
    return model


def metadata(made: Artifacts, job: Job) -> dict[str, str]:
    """Return what a published model says of itself: digests, parity, where it comes from, and by which tools."""
    artifact, trained, cost = made.model, job.chosen.source.trained, made.cost
    said = {event.name: event.detail for event in job.steps.done}
    return {
        "sha256": artifact.sha256,
        "precision": artifact.precision,
        "signature": str(artifact.signature),
        "source_sha256": artifact.source_sha256,
        "original_sha256": made.original.sha256 if made.original else "",
        "source_model": trained.model_id if trained else "",
        "source_task": trained.task_id if trained else "",
        "parity": "; ".join(filter(None, (said.get(name, "") for name in PARITY_STEPS))),
        "matched_ratio": f"{cost.boxes.matched_ratio:.6f}" if cost else "",
        "inputs": job.chosen.inputs.made_of,
        "tao2serve": __version__,
        **tool_versions(artifact.format),
    }


def tool_versions(format_name: str) -> dict[str, str]:
    """Return the versions of what made an artifact."""
    from importlib.metadata import PackageNotFoundError, version

    names = ("onnx", "onnxruntime") if format_name == "onnx" else ("tensorrt",)
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a plan is often built elsewhere
            continue
    return found


def number(operation: Operation, product: Product, model: PublishedModel, job: Job, step: Step) -> Candidate:
    """Give what was made its version, and note it before anything is written under that number.

    The same inputs and the same published model are the same version: one that is registered, or the number of a run
    that was killed.
    """
    site, records, state = job.site, job.site.records(), job.site.state()
    use = use_of(job, records, model.model_id, state)
    endpoint = site.version(use.version) if use else site.next_version()
    operation.note(**{reuse.VERSION: str(endpoint.version), reuse.STAGE: "numbered"})
    step.note(f"version {endpoint.version}{_origin(use)}")
    return Candidate(
        endpoint=endpoint,
        model=model,
        expected=product.expected,
        artifact=artifact_document(product.made, model),
        load=None,
        task_id=operation.id,
        was_ready=use is not None and use.was_ready,
        reused=use is not None,
        adopts=use.record.task_id if use and not use.was_ready else "",
        product=product,
    )


def use_of(job: Job, records: Sequence[OperationRecord], model_id: str, state: ServiceState) -> reuse.Use | None:
    """Return the version that is to be used again, None for a new one.

    The number of a dead run is not if somebody else has put a model there, into the repository that they share.
    """
    use = None if job.request.force else reuse.use_again(records, job.chosen.inputs, model_id, state)
    if use is None or use.was_ready or not job.site.why_not_ours(use.version, model_id):
        return use
    return None


def has_remains(job: Job, state: ServiceState) -> bool:
    """Whether there is anything that `tidy` would take away; a run of another machine cannot be seen to be dead."""
    records = job.site.records()
    return any(record.is_gone for record in records) or bool(reuse.remains(records, state))


def tidy(candidate: Candidate, job: Job) -> None:
    """Take away what killed runs left, except the version that is deployed: only an operation on the endpoint may."""
    site, version = job.site, candidate.endpoint.version
    job.course.numbered(candidate.endpoint, was_ready=candidate.was_ready, adopts=candidate.adopts)
    site.host.sweep(site.name)
    records = site.records()
    for record in records:
        if record.is_gone and not record.is_running:  # killed before it began
            attempt(partial(discard, record.task_id))
    remains = reuse.remains(records, site.state(), keep=version)
    if remains:
        with job.steps.step("take away what killed runs left") as step:
            step.note("; ".join(_sweep(record, site) for record in remains))


def artifact_document(made: Artifacts, model: PublishedModel) -> dict[str, Any]:
    """Return the member `artifact` of the JSON document."""
    from importlib.metadata import version

    return {
        "format": made.model.format,
        "precision": made.model.precision,
        "sha256": made.model.sha256,
        "model_id": model.model_id,
        "reused": model.reused,
        "cost": made.cost.to_dict() if made.cost else None,
        "warnings": list(made.warnings),
        "tools": {"tao2serve": __version__, "clearml": version("clearml"), **tool_versions(made.model.format)},
    }


def _origin(use: reuse.Use | None) -> str:
    if use is None:
        return ""
    return ", there already" if use.was_ready else f", begun by ClearML task {use.record.task_id}"


def _sweep(record: OperationRecord, site: Site) -> str:
    """Take away what a run that was killed left: its registration, its models on Triton, a half upload.

    Returns what was done, in words. What cannot be taken away now is tried again by the next deployment; what somebody
    else has put under its number by now was never its own.
    """
    version = record.version
    strange = ""
    try:
        remove_unfinished(record.task_id)
        if version is not None:
            endpoint = site.version(version)
            strange = site.why_not_ours(version, record.properties.get(reuse.MODEL, ""))
            folders = () if strange else site.host.folders(endpoint)
            take_back(site.service, site.host.control, endpoint, folders)
        mark(record.task_id, **{reuse.STAGE: reuse.TAKEN_BACK})
    except Tao2ServeError as error:
        log.warning("what %s left stays where it is: %s", record, error)
        return f"what ClearML task {record.task_id} left stays: {error}"
    said = f"version {version} of ClearML task {record.task_id}" if version else f"ClearML task {record.task_id}"
    return f"{said}, but {strange}" if strange else said
