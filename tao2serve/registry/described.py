"""One row of ClearML's list of models, with its run, as the trained model it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tao2serve.errors import ToolError
from tao2serve.registry.calls import tags_of, text
from tao2serve.registry.download import DRIVERS, require_driver
from tao2serve.registry.evidence import disagreement
from tao2serve.registry.lineage import pruned
from tao2serve.registry.runs import Run
from tao2serve.registry.session import clearml
from tao2serve.values import Lineage, TrainedModel

__all__ = ["MODEL_FIELDS", "SUFFIXES", "describe", "fetchable", "is_trained", "metadata", "own_epoch", "training_task"]

SUFFIXES: Final = (".hdf5", ".onnx", ".tlt", ".etlt")
EPOCH: Final = re.compile(r"epoch[-_](\d{1,9})")
MODEL_FIELDS: Final = ("name", "uri", "framework", "tags", "task", "project", "created", "last_update", "metadata")


def is_trained(row: Mapping[str, Any]) -> bool:
    path = PurePosixPath(unquote(urlsplit(text(row, "uri")).path))
    if not text(row, "task") or path.suffix.lower() not in SUFFIXES:
        return False
    # An upload that was cut off says of which model it is, but has no hash yet.
    return not metadata(row, "registered_model") or bool(metadata(row, "sha256"))


def describe(row: Mapping[str, Any], run: Run) -> TrainedModel:
    epoch, epoch_source = own_epoch(row)
    if epoch is None:
        last = [evidence.last_epoch for evidence in run.evidence if evidence.last_epoch is not None]
        epoch, epoch_source = (last[0], "last evaluation") if last else (None, "")
    readings = tuple(
        reading
        for reading in (evidence.by_epoch.get(epoch) for evidence in run.evidence if epoch is not None)
        if reading is not None
    )
    believed = next((reading for reading in readings if reading.mean_average_precision is not None), None)
    own_tags = tags_of(row)
    is_pruned, evidence = pruned(run.spec, tags=(*own_tags, *run.tags), names=(text(row, "name"), run.name))
    uri = text(row, "uri")
    reachable, reason = fetchable(uri)
    model = run.spec.model if run.spec else None
    return TrainedModel(
        model_id=text(row, "id"),
        name=text(row, "name"),
        task_id=run.id,
        task_name=run.name,
        project=run.project,
        tags=own_tags,
        uri=uri,
        fetchable=reachable,
        unfetchable_reason=reason,
        pruned=is_pruned,
        epoch=epoch,
        epoch_source=epoch_source,
        mean_average_precision=believed.mean_average_precision if believed else None,
        metric_source=believed.source if believed else "",
        metric_note=disagreement(readings) if believed else _no_metric(run, epoch),
        average_precision=believed.average_precision if believed else (),
        readings=readings,
        lineage=Lineage(
            parent_task_id=run.parent_id,
            parent_task_name=run.parent_name,
            input_models=run.input_models,
            pretrained_model_file=model.pretrained_model_file if model else "",
            load_graph=model.load_graph if model else None,
            evidence=evidence,
        ),
        task_status=run.status,
        task_tags=run.tags,
        framework=text(row, "framework"),
        last_update=text(row, "last_update"),
        sha256=metadata(row, "sha256"),
        registered_model_id=metadata(row, "registered_model"),
        registered_uri=metadata(row, "original_uri"),
    )


def _no_metric(run: Run, epoch: int | None) -> str:
    """Say why there is no metric at this epoch."""
    evaluated = sorted({number for evidence in run.evidence for number in evidence.by_epoch})
    notes = [evidence.note for evidence in run.evidence if evidence.note]
    if evaluated and epoch is not None and epoch not in evaluated:
        shown = ", ".join(map(str, evaluated[-5:]))
        return "; ".join([f"epoch {epoch} was not evaluated; the last that were: {shown}", *notes])
    if evaluated:
        return "; ".join(["the evaluation gave no number", *notes])
    return "; ".join(notes) or "no status.json artifact, no precision among the scalars, no evaluation in the console"


def own_epoch(row: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return the epoch a model itself names, and where: its metadata, or its file name. Final weights name none."""
    recorded = metadata(row, "epoch")
    if re.fullmatch(r"\d{1,9}", recorded):
        return int(recorded), "metadata"
    original = metadata(row, "original_uri") or text(row, "uri")
    named = EPOCH.search(PurePosixPath(unquote(urlsplit(original).path)).name)
    return (int(named.group(1)), "file name") if named else (None, "")


def training_task(row: Mapping[str, Any]) -> str:
    return metadata(row, "training_task") or text(row, "task")


def metadata(row: Mapping[str, Any], key: str) -> str:
    return text(row, "metadata", key, "value")


def fetchable(uri: str) -> tuple[bool, str]:
    """Say whether a URI can be fetched from here, and if not, why."""
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        clearml()
        from clearml import StorageManager

        # The SDK looks, since clearml.conf may say where paths of another machine lie here (path_substitution).
        if StorageManager.exists_file(uri):
            return True, ""
        path = unquote(urlsplit(uri).path)
        return False, f"{path} is a path of the machine or container that trained it, and not here"
    if scheme in ("http", "https"):
        return True, ""
    if scheme not in DRIVERS:
        return False, f"{scheme}:// is no storage that ClearML's client reads"
    try:
        require_driver(uri)
    except ToolError as error:
        return False, f"{error.fact}: {error.hint}"
    return True, ""
