"""Put weights into ClearML that its training run registered only by their path, tied to that run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from tao2serve.errors import InputError, ServiceError, Tao2ServeError
from tao2serve.registry.calls import get_all, text
from tao2serve.registry.described import SUFFIXES
from tao2serve.registry.download import file_name
from tao2serve.registry.fetch import fetched
from tao2serve.registry.publish import require_storage
from tao2serve.registry.session import clearml, translated
from tao2serve.tao.source import sha256_of
from tao2serve.values import TrainedModel

__all__ = ["find_weights", "upload_weights"]

log = logging.getLogger(__name__)
News = Callable[[str], None]


def upload_weights(trained: TrainedModel, weights: Path, *, on_news: News = lambda _: None) -> TrainedModel:
    """Upload the weights of a trained model, and return it as it can be fetched now; the same file only once.

    ClearML takes no further output of a task that is completed (400 "Invalid task status", or force), and the run's
    own records stay as TAO left them: the file becomes the output of a small task beside the training task, which is
    its parent, with the registered model as its input. Raises InputError if the file is none that TAO writes,
    ServiceError if there is no storage for it or it does not arrive whole.
    """
    held = find_weights(trained, weights, on_news=on_news)
    if held is not None:
        on_news("ClearML has these weights")
        return held
    require_storage()  # before a task is made
    original = file_name(trained.registered_uri or trained.uri)
    taken = f" as {original}" if original != weights.name else ""
    on_news(f"uploading {weights.name}{taken}, {weights.stat().st_size / 1e6:.1f} MB")
    registered_id, sha256 = _registered_id(trained), sha256_of(weights)
    with translated(f"weights of ClearML model {registered_id}", "could not be uploaded"):
        return _as_uploaded(trained, _upload(trained, registered_id, weights, sha256), sha256)


def find_weights(trained: TrainedModel, weights: Path, *, on_news: News = lambda _: None) -> TrainedModel | None:
    """Return a trained model as it can be fetched, if ClearML holds just these weights of it; nothing is changed.

    Raises InputError if the file is none that TAO writes.
    """
    if weights.suffix.lower() not in SUFFIXES:
        raise InputError(str(weights), "is no file of weights", hint=f"one that ends in {', '.join(SUFFIXES)}")
    sha256 = sha256_of(weights)
    if trained.fetchable and (trained.sha256 or sha256_of(fetched(trained, on_news=on_news))) == sha256:
        return replace(trained, sha256=sha256)
    registered_id = _registered_id(trained)
    with translated(f"weights of ClearML model {registered_id}", "could not be looked for"):
        known = _known(registered_id, sha256)
    return _as_uploaded(trained, known, sha256) if known is not None else None


def _registered_id(trained: TrainedModel) -> str:
    return trained.registered_model_id or trained.model_id


def _as_uploaded(trained: TrainedModel, known: dict[str, Any], sha256: str) -> TrainedModel:
    return replace(
        trained,
        model_id=text(known, "id"),
        uri=text(known, "uri"),
        fetchable=True,
        unfetchable_reason="",
        last_update=text(known, "last_update"),
        sha256=sha256,
        registered_model_id=_registered_id(trained),
        registered_uri=trained.registered_uri or trained.uri,
    )


def _known(registered_id: str, sha256: str) -> dict[str, Any] | None:
    """Return the model under which these bytes were uploaded for this one before."""
    filters = {"metadata.registered_model.value": [registered_id], "metadata.sha256.value": [sha256]}
    found = get_all(
        "models", fields=["id", "uri", "last_update", "metadata"], limit=1, system_tags=["-archived"],
        order_by=["-created"], **filters,
    )  # fmt: skip
    # A server that does not know such a filter passes it over.
    return next((row for row in found if text(row, "metadata", "sha256", "value") == sha256), None)


def _upload(trained: TrainedModel, registered_id: str, weights: Path, sha256: str) -> dict[str, Any]:
    sdk = clearml()
    task = sdk.Task.create(
        project_name=trained.project or "tao2serve",
        # Of the file, not of the run: TAO's task names hold slashes and colons, which end up in the URL.
        task_name=f"upload of {weights.name}",
        task_type="data_processing",
    )
    try:
        task.set_parent(trained.task_id)
        task.set_tags(list(trained.task_tags))  # what selects the run selects this
        task.mark_started()
        if not task.output_uri:
            task.output_uri = True  # the files server that clearml.conf names
        task.set_input_model(model_id=registered_id, name="registered by path")
        model = _output_model(sdk, task, trained, registered_id, weights, sha256)
        task.flush(wait_for_uploads=True)
        task.mark_completed()
    except BaseException as error:
        _fail(task, error)
        raise
    return {"id": str(model.id), "uri": str(model.url)}


def _output_model(sdk: Any, task: Any, trained: TrainedModel, registered_id: str, weights: Path, sha256: str) -> Any:
    original = trained.registered_uri or trained.uri
    name = PurePosixPath(file_name(original))
    model = sdk.OutputModel(
        task=task,
        name=trained.name,
        framework=trained.framework or None,
        tags=list(trained.tags),
        comment=f"weights of model {registered_id}, uploaded by tao2serve",
    )
    # What it is a copy of comes first, its hash last: an upload that was cut off has none, and counts for nothing.
    _describe(model, registered_model=registered_id, training_task=trained.task_id, original_uri=original)
    model.update_weights(
        weights_filename=str(weights),
        target_filename=name.name if name.suffix.lower() == weights.suffix.lower() else weights.name,
        iteration=trained.epoch,
        auto_delete_file=False,
        update_comment=False,  # it would hold a path of this machine
        async_enable=False,
    )
    _check(sdk, str(model.url or ""), weights)
    epoch = {"epoch": str(trained.epoch)} if trained.epoch is not None else {}
    _describe(model, **epoch, sha256=sha256)
    return model


def _describe(model: Any, **values: str) -> None:
    for key, value in values.items():
        if not model.set_metadata(key, value, "str"):
            raise ServiceError(f"ClearML model {model.id}", f"did not take its metadata {key}")


def _check(sdk: Any, uri: str, weights: Path) -> None:
    there, here = sdk.StorageManager.get_file_size_bytes(uri, silence_errors=True), weights.stat().st_size
    if there and there != here:
        raise ServiceError(str(weights), "did not arrive whole", evidence=f"{there:,} of {here:,} bytes at {uri}")


def _fail(task: Any, error: BaseException) -> None:
    try:
        message = str(error) if isinstance(error, Tao2ServeError) else type(error).__name__
        task.mark_failed(status_reason=type(error).__name__, status_message=message[:1000], force=True)
    except Exception:  # the error that ended the upload says more than this one
        log.warning("ClearML task %s could not be marked as failed", task.id, exc_info=True)
