"""Make the ClearML task of a remote run: script, command and inputs; the same content is uploaded once."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tao2serve
from tao2serve.errors import ServiceError
from tao2serve.registry.calls import call, get_all, text
from tao2serve.registry.publish import require_storage
from tao2serve.registry.session import clearml, translated
from tao2serve.remote import bootstrap
from tao2serve.remote.bundle import write_zip
from tao2serve.remote.protocol import PARAMETERS, TAG, input_key
from tao2serve.remote.request import HandedOn, RemoteCommand
from tao2serve.remote.wheel import EXTRAS, extras_here, write_wheel
from tao2serve.tao.source import sha256_of

__all__ = ["Submission", "submit"]

log = logging.getLogger(__name__)

EARLIER: Final = 100  # tasks that are looked through for inputs which were uploaded before
TYPES: Final = {"verify": "testing", "loadtest": "testing", "export": "data_processing", "deploy": "custom"}
# The bootstrap downloads the package with it; the package brings what it needs itself.
REQUIREMENTS: Final = "clearml>=2.1.12,<3\n"
News = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """How to run a command elsewhere."""

    command: RemoteCommand
    project: str
    settings: Mapping[str, Any]
    image: str = ""  # for agents that run tasks in Docker; others pass it over
    extras: tuple[str, ...] = ()  # besides those that are installed here
    name: str = ""  # of the task
    tags: tuple[str, ...] = ()  # besides its own
    parameters: Mapping[str, str] = field(default_factory=dict)  # shown with the task
    reports: bool = False  # the task shows what the command's JSON document says


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uploaded:
    uri: str
    bytes: int


def submit(submission: Submission, *, on_news: News = lambda _: None) -> str:
    """Make the task with all it needs, not yet in a queue, and return its id.

    Raises ServiceError if ClearML has no storage or does not take it; the task is then marked as failed.
    """
    require_storage()
    with tempfile.TemporaryDirectory(prefix="tao2serve-remote-") as name:
        folder = Path(name)
        files = _files(submission.command, folder)
        package = write_wheel(folder)
        description = _description(submission, files, package)
        with translated("ClearML", f"did not make the task of this {submission.command.command}"):
            task_id = _make_task(submission, description)
        try:
            with translated(f"ClearML task {task_id}", "did not take its inputs"):
                for key, one in _handed(submission.command).items():
                    _refer(task_id, key, one.place, one.sha256, _Uploaded(uri=one.uri, bytes=one.bytes))
                _send(task_id, submission.project, {**files, bootstrap.PACKAGE: package}, on_news)
        except BaseException as error:
            with contextlib.suppress(Exception):  # the error that ended it says more
                message = str(error)[:1000] or type(error).__name__
                call("tasks", "failed", task=task_id, status_reason="not sent", status_message=message, force=True)
            raise
    return task_id


def _files(command: RemoteCommand, folder: Path) -> dict[str, Path]:
    """Return what is uploaded, by artifact; folders become one file each."""
    files = {}
    for index, one in enumerate(command.inputs):
        key = input_key(index)
        files[key] = write_zip(one.path, folder / f"{key}.zip") if one.is_folder else one.path
    return files


def _handed(command: RemoteCommand) -> dict[str, HandedOn]:
    """Return what others left in ClearML, by artifact: those keys come after those of what is uploaded."""
    return {input_key(index): one for index, one in enumerate(command.handed, start=len(command.inputs))}


def _description(submission: Submission, files: Mapping[str, Path], package: Path) -> dict[str, Any]:
    command = submission.command
    extras = tuple(sorted({*submission.extras, *extras_here()}))
    return {
        "arguments": list(command.arguments),
        "inputs": [
            {
                "artifact": input_key(index),
                "place": one.place,
                "folder": one.is_folder,
                "sha256": sha256_of(files[input_key(index)]),
                "bytes": files[input_key(index)].stat().st_size,
            }
            for index, one in enumerate(command.inputs)
        ]
        + [
            {"artifact": key, "place": one.place, "folder": one.is_folder, "sha256": one.sha256, "bytes": one.bytes}
            for key, one in _handed(command).items()
        ],
        "outputs": [{"place": one.place, "file": one.is_file} for one in command.outputs],
        "settings": dict(submission.settings),
        "reports": submission.reports,
        "package": {
            "digest": bootstrap.package_digest(Path(tao2serve.__file__).parent),
            "wheel": package.name,
            "wheel_sha256": sha256_of(package),
            "extras": list(extras),
            "modules": [EXTRAS[extra] for extra in extras],
        },
    }


def _make_task(submission: Submission, description: Mapping[str, Any]) -> str:
    from clearml.backend_interface.util import get_or_create_project

    sdk, command = clearml(), submission.command
    project = str(get_or_create_project(sdk.Task._get_default_session(), submission.project))
    container = {"container": {"image": submission.image}} if submission.image else {}
    made = call(
        "tasks",
        "create",
        name=submission.name or f"{command.command} on a queue",
        type=TYPES.get(command.command, "custom"),
        project=project,
        tags=[TAG, command.command, *submission.tags],
        script={
            "repository": "",
            "entry_point": "tao2serve_task.py",
            "working_dir": ".",
            "binary": "python3",
            "diff": bootstrap.script(description["package"]),
            "requirements": {"pip": REQUIREMENTS},
        },
        configuration={
            bootstrap.CONFIGURATION: {
                "name": bootstrap.CONFIGURATION,
                "value": json.dumps(description, indent=2),
                "type": "json",
            }
        },
        **container,
        **_hyperparams(submission.parameters),
    )
    return text(made, "id")


def _hyperparams(parameters: Mapping[str, str]) -> dict[str, Any]:
    if not parameters:
        return {}
    section = {name: {"section": PARAMETERS, "name": name, "value": value} for name, value in parameters.items()}
    return {"hyperparams": {PARAMETERS: section}}


def _send(task_id: str, project: str, files: Mapping[str, Path], on_news: News) -> None:
    task = clearml().Task.get_task(task_id=task_id)
    if not task.output_uri:
        task.output_uri = True  # the files server that clearml.conf names
    known = _uploaded_before(str(task.project))
    total = sum(path.stat().st_size for path in files.values())
    done = 0
    for index, (key, path) in enumerate(files.items(), start=1):
        digest, size = sha256_of(path), path.stat().st_size
        told = f"{index} of {len(files)}, {done / 1e6:.1f} of {total / 1e6:.1f} MB: {path.name}"
        before = known.get(digest)
        if before is not None and before.bytes == size and _is_there(before):
            on_news(f"{told} was uploaded before")
            _refer(task_id, key, path.name, digest, before)
        else:
            on_news(told)
            _upload(task, key, path, digest)
        done += size
    task.flush(wait_for_uploads=True)


def _uploaded_before(project: str) -> dict[str, _Uploaded]:
    """Return what earlier remote runs of this project have uploaded, by its SHA-256."""
    rows = get_all(
        "tasks", fields=["execution.artifacts"], limit=EARLIER, project=[project], tags=[TAG],
        order_by=["-created"], system_tags=["-archived"], search_hidden=True,
    )  # fmt: skip
    found: dict[str, _Uploaded] = {}
    for row in rows:
        artifacts = (row.get("execution") or {}).get("artifacts")
        for artifact in artifacts if isinstance(artifacts, list) else ():
            uri, size = text(artifact, "uri"), artifact.get("content_size")
            digest = text(artifact, "hash")
            if uri and digest and isinstance(size, int):
                found.setdefault(digest, _Uploaded(uri=uri, bytes=size))
    return found


def _is_there(uploaded: _Uploaded) -> bool:
    return bool(clearml().StorageManager.exists_file(uploaded.uri))


def _refer(task_id: str, key: str, name: str, digest: str, before: _Uploaded) -> None:
    artifact = {
        "key": key,
        "type": "custom",
        "uri": before.uri,
        "hash": digest,
        "content_size": before.bytes,
        "type_data": {"preview": name},
    }
    call("tasks", "add_or_update_artifacts", task=task_id, artifacts=[artifact], force=True)


def _upload(task: Any, key: str, path: Path, digest: str) -> None:
    """Upload a file as an artifact; ClearML records the SHA-256 of what it got."""
    if not task.upload_artifact(key, artifact_object=str(path), preview=path.name, wait_on_upload=True):
        raise ServiceError(str(path), "could not be uploaded to ClearML")
    task.reload()
    recorded = task.artifacts.get(key)
    if recorded is None or str(recorded.hash) != digest:
        raise ServiceError(str(path), "did not arrive whole", evidence=f"SHA-256 {digest}")
