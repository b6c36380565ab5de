"""Put what was built into ClearML, with its lineage; what is there already is not uploaded again."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from tao2serve import __version__
from tao2serve.errors import ServiceError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.operations import TRAINED
from tao2serve.registry.package import Package
from tao2serve.registry.session import clearml, translated
from tao2serve.values import ModelArtifact, TrainedModel

__all__ = [
    "PublishedModel",
    "Publisher",
    "find_published",
    "held_model",
    "is_whole",
    "mark_published",
    "publish",
    "remove_unfinished",
    "require_storage",
    "use_published",
    "watched_upload",
]

log = logging.getLogger(__name__)

FRAMEWORKS: Final = {"onnx": "ONNX", "tensorrt_plan": "TensorRT"}
DIGEST: Final = "package_sha256"
# What clearml 2.1.12 names a model that it is uploading, or failed to upload.
UNFINISHED: Final = ("uploading_file", "failed_uploading")
NEWS_EVERY_S: Final = 1.0


class Publisher(Protocol):
    """Whoever publishes: an operation on an endpoint, or a step of a pipeline; `task` is the SDK's."""

    @property
    def id(self) -> str: ...

    @property
    def task(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """An artifact as ClearML holds it; `reused` if it was there before."""

    model_id: str
    uri: str
    reused: bool = False


def require_storage(operation: Publisher | None = None) -> str:
    """Return where ClearML will put an upload; raises ServiceError if that is no place others can read.

    Without an operation: where one's task would put it.
    """
    with translated("ClearML", "did not say where models are stored"):
        if operation is not None:
            place = str(operation.task.output_uri or "")
        else:
            clearml()
            from clearml.backend_api.session import Session
            from clearml.config import config

            # As Task.output_uri does it: the variable, then clearml.conf, then the files server.
            named = os.environ.get("CLEARML_DEFAULT_OUTPUT_URI") or config.get("development.default_output_uri", None)
            place = str(named or Session.get_files_server_host() or "")
    if urlsplit(place).scheme in ("", "file"):
        raise ServiceError(
            "artifacts",
            "cannot be uploaded: ClearML has no storage to put them in, only a folder of this machine",
            evidence=f"output URI {place or 'none'}",
            hint="set api.files_server in clearml.conf, or CLEARML_DEFAULT_OUTPUT_URI, to a server or bucket",
        )
    return place


def find_published(package: Package, *, preferred: Sequence[str] = ()) -> PublishedModel | None:
    """Return the model that holds this very content, looked up by its digest; one of `preferred` if several do.

    A model whose upload was cut off, one whose file is gone and one that only names a path are none.
    """
    sdk = clearml()
    with translated("ClearML", "did not list the published models"):
        found = sdk.Model.query_models(tags=["tao2serve"], metadata={DIGEST: package.sha256})
        # A server that does not know such a filter passes it over.
        held = [model for model in found if model.get_metadata(DIGEST) == package.sha256]
        ranked = sorted(held, key=lambda model: (model.id not in preferred, not model.published))
        for model in ranked:
            if is_whole(str(model.url or "")):
                return PublishedModel(model_id=str(model.id), uri=str(model.url), reused=True)
    return None


def is_whole(uri: str) -> bool:
    """Whether a model's file was uploaded to its end and is still there."""
    if urlsplit(uri).scheme in ("", "file") or uri.rpartition("/")[2] in UNFINISHED:
        return False
    sdk = clearml()
    return bool(sdk.StorageManager.exists_file(uri))


def held_model(model_id: str) -> PublishedModel | None:
    """Return the published model of this id if its file is there, whole; None otherwise."""
    sdk = clearml()
    with translated(f"ClearML model {model_id}", "could not be read"):
        try:
            uri = str(sdk.Model(model_id=model_id).url or "")
        except (ValueError, AttributeError):  # how clearml 2.1.12 says that there is no such model
            return None
        return PublishedModel(model_id=model_id, uri=uri, reused=True) if is_whole(uri) else None


def publish(
    operation: Publisher,
    artifact: ModelArtifact,
    package: Package,
    *,
    name: str,
    metadata: Mapping[str, str],
    trained: TrainedModel | None = None,
    preferred: Sequence[str] = (),
    on_news: Callable[[str], None] = lambda _: None,
) -> PublishedModel:
    """Have ClearML hold this package as a model, and return it; unchanged content is not uploaded again.

    Either way the operation shows what it used: the trained model, and one that was there already, as input models.
    A new one is an output model of the operation's task, a draft until `mark_published`; one whose upload fails is
    removed again. Raises ServiceError, before anything is uploaded, if ClearML has no storage.
    """
    require_storage(operation)
    if trained is not None:
        with translated(f"ClearML task {operation.id}", "did not take its input model"):
            operation.task.set_input_model(model_id=trained.model_id, name=TRAINED)
    known = find_published(package, preferred=preferred)
    if known is not None:
        use_published(operation, known.model_id)
        return known
    try:
        with translated(f"artifact {name}", "could not be published to ClearML"):
            return _upload(operation, artifact, package, name=name, metadata=metadata, on_news=on_news)
    except BaseException:
        with deferred_interrupts():
            remove_unfinished(operation.id)
        raise


def use_published(operation: Publisher, model_id: str) -> None:
    """Show a model that was published before as an input of the operation."""
    with translated(f"ClearML task {operation.id}", "did not take its input model"):
        operation.task.set_input_model(model_id=model_id, name="published artifact")


def mark_published(model: PublishedModel) -> None:
    """Mark a model as published in ClearML's sense, ready to be used; being so already is no error."""
    with translated(f"ClearML model {model.model_id}", "could not be marked as published"):
        held = clearml().Model(model_id=model.model_id)
        if not held.published:
            held.publish()


def remove_unfinished(task_id: str) -> tuple[str, ...]:
    """Remove the models whose upload an operation did not finish, with what there may be of the file; return their ids.

    Never raises: what could not be removed is logged, and is never taken for a whole one.
    """
    removed = []
    try:
        sdk = clearml()
        for model in sdk.Task.get_task(task_id=task_id).models["output"]:
            folder, _, name = str(model.url or "").rpartition("/")
            if name not in UNFINISHED or model.published:
                continue
            # The file may have arrived without a word in the model; it is called as the package was.
            left = f"{folder}/models/{model.name}.zip"
            if sdk.StorageManager.exists_file(left):
                sdk.storage.helper.StorageHelper.get(left).delete(left)
            if sdk.Model.remove(model, delete_weights_file=False, force=True):
                removed.append(str(model.id))
    except Exception:
        log.warning("half uploads of ClearML task %s could not be removed", task_id, exc_info=True)
    return tuple(removed)


def _upload(
    operation: Publisher,
    artifact: ModelArtifact,
    package: Package,
    *,
    name: str,
    metadata: Mapping[str, str],
    on_news: Callable[[str], None],
) -> PublishedModel:
    model = clearml().OutputModel(
        task=operation.task,
        name=name,
        framework=FRAMEWORKS[artifact.format],
        tags=["tao2serve", artifact.precision],
        comment=f"{artifact.signature.class_count} classes, built by tao2serve {__version__}",
    )
    told = {**metadata, DIGEST: package.sha256, "package_bytes": str(package.bytes)}
    # Before the upload: a model that is whole is never without its digest, whenever this process ends.
    model.set_all_metadata({key: {"value": value, "type": "str"} for key, value in told.items() if value})
    with watched_upload(package.path, on_news):
        model.update_weights(
            weights_filename=str(package.path),
            auto_delete_file=False,
            update_comment=False,  # it would hold a path of this machine
            is_package=True,
            async_enable=False,
        )
    uri = str(model.url or "")
    if not is_whole(uri):
        raise ServiceError(
            f"artifact {name}",
            "was not uploaded whole",
            evidence=f"URI {uri!r}",
            hint="is the storage reachable, and is there room on it? Run this again: the rest is kept",
        )
    return PublishedModel(model_id=str(model.id), uri=uri)


@contextmanager
def watched_upload(path: Path, on_news: Callable[[str], None]) -> Iterator[None]:
    """Tell how far an upload is: the SDK takes a path, so this looks at how far that file has been read."""
    ended, size = threading.Event(), path.stat().st_size

    def watch() -> None:
        while not ended.wait(NEWS_EVERY_S):
            done = read_so_far(path)
            if done is not None:
                on_news(f"uploading, {done / 1e6:,.0f} of {size / 1e6:,.0f} MB")

    on_news(f"uploading {size / 1e6:,.1f} MB")
    watcher = threading.Thread(target=watch, name="tao2serve upload", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def read_so_far(path: Path) -> int | None:
    """Return how many bytes of a file this process has read, where Linux tells; None if it has not opened it."""
    try:
        for link in Path("/proc/self/fd").iterdir():
            try:
                if link.readlink() == path.resolve():
                    first = Path(f"/proc/self/fdinfo/{link.name}").read_text(encoding="ascii").splitlines()[0]
                    return int(first.removeprefix("pos:"))
            except OSError:  # closed meanwhile
                continue
    except (OSError, ValueError):
        pass
    return None
