"""Bring a trained model's weights and experiment spec here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tao2serve.errors import InputError, ServiceError
from tao2serve.registry import cache
from tao2serve.registry.calls import get_by_ids
from tao2serve.registry.download import download, file_name
from tao2serve.registry.lineage import spec_text
from tao2serve.registry.session import clearml, translated
from tao2serve.tao.source import sha256_of
from tao2serve.values import TrainedModel

__all__ = ["fetch_spec", "fetch_weights", "fetched"]

News = Callable[[str], None]


def fetch_weights(trained: TrainedModel, *, directory: Path, on_news: News = lambda _: None) -> Path:
    """Copy the weights into `directory`, under TAO's own name, and return the file; the original is never touched.

    What was fetched before is not fetched again. Raises InputError if the URI is a path of another machine,
    ServiceError if the download fails or is not what ClearML recorded.
    """
    source = fetched(trained, on_news=on_news)
    directory.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, directory / file_name(trained.uri)))


def fetched(trained: TrainedModel, *, on_news: News = lambda _: None) -> Path:
    """Return the weights as a file here that is not to be changed: of the cache, or the original."""
    if urlsplit(trained.uri).scheme in ("", "file"):
        return _local(trained)
    return download(
        trained.uri,
        subject=f"weights of ClearML model {trained.model_id}",
        store=cache.WEIGHTS,
        sha256=trained.sha256,
        identity=f"{trained.model_id} {trained.last_update}" if trained.last_update else "",
        on_news=on_news,
    )


def _local(trained: TrainedModel) -> Path:
    if not trained.fetchable:
        raise InputError(
            f"ClearML model {trained.model_id}",
            "was registered by path and never uploaded",
            evidence=f"{trained.uri}: {trained.unfetchable_reason}",
            hint="set CLEARML_DEFAULT_OUTPUT_URI for the next training run; for this one put its results folder into "
            "ClearML: tao2serve adopt RESULTS_DIR --project NAME --task NAME, or give the file alone: tao2serve deploy "
            "ID --endpoint NAME --weights FILE; with --spec FILE if ClearML has none",
        )
    clearml()
    from clearml import StorageManager

    subject = f"weights of ClearML model {trained.model_id}"
    with translated(subject, "could not be read"):
        copy = StorageManager.get_local_copy(trained.uri, extract_archive=False)
    if not copy or not Path(copy).is_file():
        raise ServiceError(subject, "could not be read", evidence=trained.uri)
    if trained.sha256 and sha256_of(Path(copy)) != trained.sha256:
        raise ServiceError(
            subject, "is not what ClearML recorded", evidence=f"SHA-256 of {copy} is not {trained.sha256}",
            hint="the file was replaced after it was registered",
        )  # fmt: skip
    return Path(copy)


def fetch_spec(trained: TrainedModel, *, directory: Path) -> Path | None:
    """Write the experiment spec that the training task holds into `directory`; None if it holds none."""
    with translated(f"ClearML task {trained.task_id}", "could not be read"):
        row = get_by_ids("tasks", [trained.task_id], fields=["configuration"], search_hidden=True).get(
            trained.task_id, {}
        )
    text = spec_text(row.get("configuration"))
    if not text:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "experiment_spec.txt"
    path.write_text(text, encoding="utf-8")
    return path
