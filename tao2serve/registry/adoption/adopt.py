"""Put a finished training into ClearML as if TAO had been tracked: one task, its course, and its weights, uploaded.

Every part is looked for before it is written, so that a run that was killed is gone on with, and a second run adds
nothing. What a model is known by is the SHA-256 of its file, which stands in its metadata before the upload begins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from tao2serve import __version__
from tao2serve.errors import ServiceError, Tao2ServeError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.adoption.course import course_of, log_pieces, send_course, send_log
from tao2serve.registry.adoption.find import (
    STATE,
    AdoptedModel,
    AdoptedRun,
    read_adopted,
    spec_digest,
    state_of,
)
from tao2serve.registry.adoption.plan import ChosenWeights
from tao2serve.registry.adoption.task import Adoption, missing_from, new_about, note, open_task
from tao2serve.registry.calls import call
from tao2serve.registry.publish import UNFINISHED, is_whole, watched_upload
from tao2serve.registry.session import clearml, translated
from tao2serve.steps import Steps, tell_aftermath
from tao2serve.tao.source import sha256_of

__all__ = ["Adoption", "Uploaded", "adopt", "is_complete", "missing_from", "wanted_state"]

log = logging.getLogger(__name__)

FRAMEWORKS: Final = {".hdf5": "Keras", ".tlt": "Keras", ".onnx": "ONNX"}
ENDED: Final = ("completed", "stopped", "closed")
BEAT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What came of it: the task, and the models by SHA-256; `added` says what this run did, empty if nothing."""

    task_id: str
    models: Mapping[str, str]
    added: tuple[str, ...] = ()


def wanted_state(adoption: Adoption) -> str:
    """Return the digest of all that the task is to hold; one that holds it is not touched."""
    results, found = adoption.results, adoption.found
    held = {model.sha256 for model in found.models} if found else set()
    return state_of(
        models=sorted(held | {one.sha256 for one in adoption.chosen}),
        spec=spec_digest(results),
        status=sha256_of(results.status_path) if results.status_path else "",
        log=sha256_of(results.log) if results.log else "",
        tags=sorted({*(found.tags if found else ()), *adoption.tags}),
        parent=adoption.made_from.task_id,
    )


def is_complete(adoption: Adoption) -> bool:
    """Whether nothing is to be added."""
    found = adoption.found
    return (
        found is not None
        and found.status in (*ENDED, "published")
        and not missing_from(adoption)
        and found.properties.get(STATE) == wanted_state(adoption)
    )


def adopt(adoption: Adoption, *, steps: Steps) -> Uploaded:
    """Write what is missing, and return what ClearML holds then; `steps` tells how it goes.

    Raises ServiceError if ClearML refuses, if the run is published there, or if somebody else is adopting it.
    """
    if is_complete(adoption):
        assert adoption.found is not None
        return Uploaded(task_id=adoption.found.task_id, models=_ids(adoption.found.models, adoption.chosen))
    sdk = clearml()
    results = adoption.results
    added: list[str] = []
    with translated(f"results {results.folder}", "could not be adopted"):
        with steps.step("make the ClearML task" if adoption.found is None else "open the ClearML task again") as step:
            run = open_task(adoption)
            step.note(f"{run.name}, ClearML task {run.task_id}")
        added += new_about(adoption) if adoption.found is not None else ["the task"]
        with _held(run.task_id):
            try:
                task = sdk.Task.get_task(task_id=run.task_id)
                if not task.output_uri:
                    task.output_uri = True  # the files server that clearml.conf names
                added += _report(adoption, run, task, steps)
                models, uploads = _weights(adoption, run, task, steps)
                added += uploads
                with steps.step("complete the ClearML task") as step:
                    _close(adoption, task, step.note)
            except BaseException as error:
                with deferred_interrupts():
                    _fail(run.task_id, error)
                tell_aftermath(error, "what was uploaded stays in ClearML; the same command goes on with it")
                raise
    if not added and adoption.found is not None and adoption.found.status not in ENDED:
        added.append("its end")  # of one that was cut off when all was there
    return Uploaded(task_id=run.task_id, models=_ids(models, adoption.chosen), added=tuple(added))


def _ids(models: Sequence[AdoptedModel], chosen: Sequence[ChosenWeights]) -> dict[str, str]:
    by_content = {model.sha256: model.model_id for model in models}
    return {one.sha256: by_content[one.sha256] for one in chosen}


def _report(adoption: Adoption, run: AdoptedRun, task: Any, steps: Steps) -> list[str]:
    """Report curves, console log and status.json, those parts that are not there."""
    results, added = adoption.results, []
    with steps.step("report the course of the training") as step:
        points = course_of(results, adoption.evidence)
        sent = send_course(run.task_id, points, on_news=step.news)
        pieces = log_pieces(results)
        lines = send_log(run.task_id, pieces, begun=results.begun, on_news=step.news)
        told = [f"{len(points):,} points of {len({point.curve for point in points})} curves, {sent:,} of them new"]
        if pieces:
            told.append(f"{len(pieces):,} pieces of the console log, {lines:,} new")
        if results.status_path is not None and sha256_of(results.status_path) != run.status_hash:
            # The SDK would change a path that is not absolute.
            task.upload_artifact("status.json", artifact_object=results.status_path.resolve(), wait_on_upload=True)
            told.append("status.json")
            added.append("status.json")
        step.note(", ".join(told))
    return [*added, *([f"{sent:,} points"] if sent else []), *(["the console log"] if lines else [])]


def _weights(
    adoption: Adoption, run: AdoptedRun, task: Any, steps: Steps
) -> tuple[tuple[AdoptedModel, ...], list[str]]:
    """Upload the weights that are not there; what an upload that was cut off left is removed first."""
    missing = missing_from(adoption)
    for model in run.models:
        # One that was cut off before it could say what it is of has no digest.
        if model.unfinished or (not model.whole and any(one.sha256 == model.sha256 for one in missing)):
            _remove(model)
    for number, one in enumerate(missing, start=1):
        with steps.step(f"upload {one.file.path.name} ({number} of {len(missing)})") as step:
            model_id = _upload(adoption, one, task, step.news)
            step.note(f"{one.file.bytes / 1e6:.1f} MB, ClearML model {model_id}")
    for model in run.models:
        new = {*adoption.tags} - {*run.tags}
        if model.whole and new:
            call("models", "update", model=model.model_id, tags=sorted({*run.tags, *adoption.tags}))
    now = read_adopted(run.task_id)
    return (now.models if now else ()), [one.file.path.name for one in missing]


def _upload(adoption: Adoption, one: ChosenWeights, task: Any, on_news: Callable[[str], None]) -> str:
    registered = adoption.tracked.registered.get(one.file.path.name) if adoption.tracked else None
    model = clearml().OutputModel(
        task=task,
        name=one.name,
        framework=FRAMEWORKS.get(one.file.path.suffix.lower()),
        label_enumeration={name: index for index, name in enumerate(adoption.results.spec.classes)},
        tags=sorted({*adoption.tags, *(adoption.found.tags if adoption.found else ())}),
        comment=f"adopted from {one.file.path} by tao2serve {__version__}: {one.why}",
    )
    told = {
        "sha256": (one.sha256, "str"),
        "file_name": (one.target, "str"),
        "epoch": (str(one.epoch) if one.epoch is not None else "", "int"),
        "mean_average_precision": (f"{one.mean_average_precision:.6f}" if one.reading else "", "float"),
        "metric_source": (one.reading.source if one.reading else "", "str"),
        # The model that TAO registered by its path, which this one stands for.
        "registered_model": (registered[0] if registered else "", "str"),
        "original_uri": (registered[1] if registered else "", "str"),
    }
    # Before the upload: a model that is whole is never without its digest, whenever this process ends.
    if not model.set_all_metadata({key: {"value": v, "type": kind} for key, (v, kind) in told.items() if v}):
        raise ServiceError(f"ClearML model {model.id}", "did not take its metadata")
    with watched_upload(one.file.path, on_news):
        model.update_weights(
            weights_filename=str(one.file.path),
            target_filename=one.target,
            iteration=one.epoch,
            auto_delete_file=False,
            update_comment=False,
            async_enable=False,
        )
    uri = _registered_as_stored(str(model.id), str(model.url or ""))
    there = clearml().StorageManager.get_file_size_bytes(uri, silence_errors=True)
    if not is_whole(uri) or (there and there != one.file.bytes):
        raise ServiceError(
            str(one.file.path), "did not arrive whole", evidence=f"{there or 0:,} of {one.file.bytes:,} bytes at {uri}",
            hint="is the storage reachable, and is there room on it? Run this again: the rest is kept",
        )  # fmt: skip
    return str(model.id)


def _registered_as_stored(model_id: str, uri: str) -> str:
    """Have the model's URI lead to its file, and return it.

    clearml 2.1.12 stores under a name in which it has quoted what TAO's task names hold (":" as "%3A"), and after an
    upload that is waited for registers this name as the URL, unquoted: a server would look for ":", and find no file.
    """
    from clearml.storage.url import quote_url

    name = uri.rpartition("/")[2]
    quoted = uri if name in UNFINISHED else str(quote_url(uri))
    if quoted != uri:
        call("models", "edit", model=model_id, uri=quoted)
    return quoted


def _remove(model: AdoptedModel) -> None:
    """Remove a model whose upload was cut off; the file that may have arrived is written over by the next upload."""
    call("models", "delete", model=model.model_id, force=True)


def _close(adoption: Adoption, task: Any, say: Callable[[str], None]) -> None:
    """End the task as the training ended, as far as TAO says."""
    task.flush(wait_for_uploads=True)
    now = read_adopted(str(task.id))
    state = wanted_state(_with_found(adoption, now))
    if adoption.results.ended_well is False:
        last = adoption.results.status.records[-1] if adoption.results.status else None
        said = f"status.json ends with {last.status}: {last.message}" if last else ""
        call("tasks", "stopped", task=str(task.id), force=True, status_reason="adopted", status_message=said[:500])
        say(f"stopped: the training did not come to its end, {said}")
    else:
        call("tasks", "completed", task=str(task.id), force=True, status_reason="adopted", status_message="")
    note(str(task.id), {STATE: state})


def _with_found(adoption: Adoption, found: AdoptedRun | None) -> Adoption:
    return replace(adoption, found=found)


def _fail(task_id: str, error: BaseException) -> None:
    try:
        message = str(error) if isinstance(error, Tao2ServeError) else type(error).__name__
        call("tasks", "failed", task=task_id, status_reason=type(error).__name__, status_message=message[:1000],
             force=True)  # fmt: skip
    except Exception:  # the error that ended it says more than this one
        log.warning("ClearML task %s could not be marked as failed", task_id, exc_info=True)


@contextmanager
def _held(task_id: str) -> Iterator[None]:
    """Give a sign of life every few seconds: an upload may take long."""
    ended = threading.Event()

    def beat() -> None:
        ping = partial(call, "tasks", "ping", task=task_id)
        while not ended.wait(BEAT_S):
            try:
                ping()
            except Exception:  # the server may be away for a moment
                log.info("ClearML task %s could not be touched", task_id, exc_info=True)

    thread = threading.Thread(target=beat, name="tao2serve adopt", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(BEAT_S)
