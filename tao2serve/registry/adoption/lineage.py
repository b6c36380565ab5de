"""What an adopted run was made from: the model that ClearML knows whose weights it was pruned from, or began with.

The SHA-256 of the pretrained file tells, where that file lies here. TAO prunes by leaving out filters and changes none
that stay, so the first convolution tells of a pruned file too. Names come last.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np

from tao2serve.errors import InputError, Tao2ServeError
from tao2serve.registry.calls import get_all, get_by_ids, text
from tao2serve.registry.described import MODEL_FIELDS, is_trained, metadata, training_task
from tao2serve.registry.fetch import fetched
from tao2serve.registry.trained import Selectors, find_trained_model, find_trained_models
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.keras import Array
from tao2serve.tao.results import Results
from tao2serve.tao.source import sha256_of
from tao2serve.values import TrainedModel

__all__ = ["MadeFrom", "find_made_from", "is_pruned_of", "local_pretrained", "plain_stem"]

log = logging.getLogger(__name__)

MOST_LOOKED_INTO: Final = 5  # models whose weights are fetched to be compared
ANCESTORS: Final = 4
CONVOLUTIONS: Final = ("Conv2D", "QuantizedConv2D")
PRUNING: Final = re.compile(r"[-_.]?(un)?pruned|[-_.]?prune\b", re.IGNORECASE)
News = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFrom:
    """A model in ClearML that a training started from, and what says so; none where `model_id` is empty."""

    model_id: str = ""
    task_id: str = ""
    name: str = ""
    how: str = ""


def find_made_from(
    results: Results, *, project: str, named: str = "", other_than: Sequence[str] = (), on_news: News = lambda _: None
) -> MadeFrom:
    """Return the model that this run was made from: the one that is named, else by content, else by name.

    Tasks of `other_than` are the run itself. Only ClearML and files here are read.
    Raises InputError if a model is named that is not there.
    """
    if named:
        model = find_trained_model(named).model
        return _made(model, "it was named")
    settings = results.spec.model
    if settings is None or not settings.pretrained_model_file:
        return MadeFrom(how="the spec names no pretrained model")
    pretrained = settings.pretrained_model_file
    local = local_pretrained(results)
    if local is not None:
        known = _by_sha256(sha256_of(local), other_than)
        if known is not None:
            return known
    if not settings.load_graph:
        return MadeFrom(how=f"{pretrained} is no model that ClearML knows, and is not retrained whole (load_graph)")
    try:
        models = find_trained_models(Selectors(project=project))
    except InputError:  # a project that is yet to be made
        models = ()
    models = tuple(model for model in models if model.task_id not in other_than)
    if local is not None:
        found = _by_filters(local, models, on_news)
        if found is not None:
            return found
    return _by_name(pretrained, models, project)


def local_pretrained(results: Results) -> Path | None:
    """Return the pretrained file that the spec names, if it lies here under its path or beside the results.

    The path is the container's; its last parts are looked for below the folders above the results.
    """
    model = results.spec.model
    if model is None or not model.pretrained_model_file:
        return None
    path = PurePosixPath(model.pretrained_model_file)
    own = {file.path for file in results.weights}
    tails = [Path(*path.parts[-count:]) for count in range(min(len(path.parts), 4), 0, -1)]
    places = [results.folder, *list(results.folder.parents)[:ANCESTORS]]
    candidates = [Path(path), *(place / tail for tail in tails for place in places)]
    for candidate in candidates:
        try:
            if candidate.is_file() and candidate.resolve() not in own:
                return candidate.resolve()
        except OSError:
            continue
    return None


def is_pruned_of(pruned: Path, whole: Path) -> bool | None:
    """Whether a file can have been pruned from another: its first convolution has none but that one's filters.

    None if that cannot be told: a file that is no Keras file, or has as many filters and other numbers.
    """
    if not is_hdf5(pruned) or not is_hdf5(whole):
        return None
    kept, all_of_them = _first_kernel(pruned), _first_kernel(whole)
    if kept is None or all_of_them is None or kept.shape[:3] != all_of_them.shape[:3]:
        return None
    known = {all_of_them[..., index].tobytes() for index in range(all_of_them.shape[3])}
    return all(np.ascontiguousarray(kept[..., index]).tobytes() in known for index in range(kept.shape[3]))


def plain_stem(path: str) -> str:
    """Return a file's name without ending and without what is written there of pruning, for names to be compared."""
    return PRUNING.sub("", PurePosixPath(path).name.rpartition(".")[0] or path).lower()


def _first_kernel(path: Path) -> Array | None:
    layers = read_keras_hdf5(path).layers
    return next((layer.weights[0].values for layer in layers if layer.class_name in CONVOLUTIONS), None)


def _made(model: TrainedModel, how: str) -> MadeFrom:
    return MadeFrom(model_id=model.model_id, task_id=model.task_id, name=model.name, how=how)


def _by_sha256(sha256: str, other_than: Sequence[str]) -> MadeFrom | None:
    rows = get_all(
        "models", fields=["id", *MODEL_FIELDS], limit=20, system_tags=["-archived"], order_by=["-created"],
        **{"metadata.sha256.value": [sha256]},
    )  # fmt: skip
    # A server that does not know such a filter passes it over.
    found: list[dict[str, Any]] = [row for row in rows if metadata(row, "sha256") == sha256 and is_trained(row)]
    found = [row for row in found if training_task(row) not in other_than]
    tasks = get_by_ids("tasks", [training_task(row) for row in found], fields=["name"], search_hidden=True)
    row = next((row for row in found if training_task(row) in tasks), None)
    if row is None:
        return None
    return MadeFrom(
        model_id=text(row, "id"), task_id=training_task(row), name=text(row, "name"),
        how="the pretrained file of the spec has its SHA-256",
    )  # fmt: skip


def _by_filters(pretrained: Path, models: Sequence[TrainedModel], on_news: News) -> MadeFrom | None:
    """Compare with the weights of models that are not pruned; what cannot be fetched or read is passed over."""
    looked = 0
    for model in models:
        if model.pruned or not model.fetchable or not model.uri.lower().endswith(".hdf5"):
            continue
        if looked >= MOST_LOOKED_INTO:
            break
        looked += 1
        on_news(f"is it pruned from {model.name}?")
        try:
            if is_pruned_of(pretrained, fetched(model)):
                return _made(model, "each filter of the pretrained file's first convolution is one of its filters")
        except Tao2ServeError as error:
            log.info("weights of %s cannot be compared: %s", model.model_id, error)
    return None


def _by_name(pretrained: str, models: Sequence[TrainedModel], project: str) -> MadeFrom:
    wanted = plain_stem(pretrained)
    file = PurePosixPath(pretrained).name
    same = [model for model in models if _file_of(model) == file and not model.pruned]
    alike = same or [model for model in models if plain_stem(_file_of(model)) == wanted and not model.pruned]
    if len({model.task_id for model in alike}) == 1:
        return _made(alike[0], f"by its name alone: the spec's pretrained file is {file}")
    if alike:
        names = ", ".join(sorted({f"{model.name} ({model.model_id})" for model in alike})[:4])
        return MadeFrom(how=f"several models could be what {file} was made of: {names}")
    return MadeFrom(how=f"no model in project {project!r} goes with {pretrained}, by content or name")


def _file_of(model: TrainedModel) -> str:
    return PurePosixPath(unquote(urlsplit(model.registered_uri or model.uri).path)).name
