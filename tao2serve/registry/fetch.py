"""Bring a trained model's weights and experiment spec here."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tao2serve.errors import InputError, ServiceError
from tao2serve.registry.session import clearml, translated
from tao2serve.values import TrainedModel

__all__ = ["SPEC_NAMES", "fetch_spec", "fetch_weights"]

SPEC_NAMES: Final = ("experiment_spec", "experiment_spec.txt", "spec")


def fetch_weights(trained: TrainedModel, *, directory: Path) -> Path:
    """Copy the weights into `directory` and return the file; the original is never moved or changed.

    Raises InputError if the URI is a path of another machine, ServiceError if the download fails.
    """
    if not trained.fetchable:
        raise InputError(
            f"ClearML model {trained.model_id}",
            "was registered by path and never uploaded",
            evidence=f"{trained.uri}: {trained.unfetchable_reason}",
            hint="set CLEARML_DEFAULT_OUTPUT_URI for the next training run, "
            "or give the file now: tao2serve deploy … --weights FILE",
        )
    sdk = clearml()
    subject = f"weights of ClearML model {trained.model_id}"
    with translated(subject, "could not be downloaded"):
        copy = sdk.Model(model_id=trained.model_id).get_local_copy(raise_on_error=True)
    if not copy or not Path(copy).is_file():
        raise ServiceError(subject, "could not be downloaded", evidence=trained.uri)
    directory.mkdir(parents=True, exist_ok=True)
    # The SDK's cache puts a hash before the name; TAO's own name says more.
    name = PurePosixPath(unquote(urlsplit(trained.uri).path)).name
    return Path(shutil.copyfile(copy, directory / name))


def fetch_spec(trained: TrainedModel, *, directory: Path) -> Path | None:
    """Write the experiment spec that the training task holds into `directory`; None if it holds none."""
    sdk = clearml()
    with translated(f"ClearML task {trained.task_id}", "could not be read"):
        task = sdk.Task.get_task(task_id=trained.task_id)
        text = next((text for text in (_configuration(task, name) for name in SPEC_NAMES) if text), "")
    if not text:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "experiment_spec.txt"
    path.write_text(text, encoding="utf-8")
    return path


def _configuration(task: Any, name: str) -> str:
    return str(task.get_configuration_object(name) or "")
