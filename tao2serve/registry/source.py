"""SOURCE of a command: a file, a ClearML id, or selectors; resolved to weights and spec on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tao2serve.errors import InputError, UsageError
from tao2serve.registry.fetch import fetch_spec, fetch_weights
from tao2serve.registry.lineage import SPEC_NAMES
from tao2serve.registry.trained import BestModel, Selectors, choose_best, find_trained_model, find_trained_models
from tao2serve.registry.upload import upload_weights
from tao2serve.tao.source import sha256_of
from tao2serve.values import TrainedModel

__all__ = ["ResolvedSource", "Source", "give_to_clearml", "resolve", "spec_beside", "spec_of"]

MODEL_SUFFIXES = (".hdf5", ".h5", ".onnx", ".plan", ".engine", ".tlt", ".etlt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the user named; `text` is a path or an id, and empty when selectors are meant."""

    text: str = ""
    selectors: Selectors = field(default_factory=Selectors)
    spec: Path | None = None
    weights: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSource:
    """Weights and experiment spec as files here; `trained` is what ClearML tracks of them, if it does."""

    weights: Path
    spec: Path | None
    trained: TrainedModel | None
    reason: str  # why this one
    sha256: str  # of the file of weights, without those that an ONNX file may keep beside itself
    spec_sha256: str = ""  # of the spec's bytes, when there is one
    known_as: tuple[tuple[Path, str], ...] = ()  # of what was fetched: the file here, and its name in ClearML

    @property
    def experiment_spec(self) -> Path:
        """The spec, for whoever cannot do without; raises InputError if there is none."""
        if self.spec is not None:
            return self.spec
        looked = (
            f"ClearML task {self.trained.task_id} holds no configuration object named {', '.join(SPEC_NAMES)}, "
            "nor one that reads like a spec"
            if self.trained
            else "looked for experiment_spec.txt in its folder and the one above"
        )
        raise InputError(str(self.weights), "has no experiment spec", evidence=looked, hint="give it: --spec FILE")


def resolve(source: Source, *, directory: Path, on_news: Callable[[str], None] = lambda _: None) -> ResolvedSource:
    """Find and fetch what SOURCE names; downloads go into `directory`, and nothing is changed in ClearML.

    Raises UsageError when nothing is named, InputError when it is not there.
    """
    if source.text and source.selectors.selects:
        raise UsageError("SOURCE", "and --project, --task or --tag are given, which name models each in its own way")
    if source.text and _is_path(source.text):
        return _local(source)
    weights = source.weights
    if weights is not None and not weights.is_file():
        raise InputError(str(weights), "does not exist")
    best = _find(source)
    trained, known_as = best.model, []
    if weights is None:
        on_news(f"fetching {trained.name}")
        weights = fetch_weights(trained, directory=directory, on_news=on_news)
        known_as.append((weights, f"{weights.name} of ClearML model {trained.model_id}"))
    spec = source.spec or fetch_spec(trained, directory=directory)
    if spec is not None and source.spec is None:
        known_as.append((spec, f"{spec.name} of ClearML task {trained.task_id}"))
    given = f"given for {trained.name}, {best.reason}" if source.weights else best.reason
    return replace(_resolved(weights, spec, trained=trained, reason=given), known_as=tuple(known_as))


def give_to_clearml(
    resolved: ResolvedSource, source: Source, *, on_news: Callable[[str], None] = lambda _: None
) -> ResolvedSource:
    """Upload weights that the user gave for a model which ClearML holds only by path, once; `trained` is then that."""
    if source.weights is None or resolved.trained is None:
        return resolved
    return replace(resolved, trained=upload_weights(resolved.trained, resolved.weights, on_news=on_news))


def _find(source: Source) -> BestModel:
    if source.text:
        return find_trained_model(source.text, metric=source.selectors.metric)
    if source.selectors.selects:
        models = find_trained_models(source.selectors)
        return choose_best(models, subject=str(source.selectors), metric=source.selectors.metric)
    raise UsageError("SOURCE", "is missing", hint="give a file, a ClearML model or task id, or --project/--task/--tag")


def _resolved(weights: Path, spec: Path | None, *, trained: TrainedModel | None, reason: str) -> ResolvedSource:
    return ResolvedSource(
        weights=weights,
        spec=spec,
        trained=trained,
        reason=reason,
        sha256=sha256_of(weights),
        # A spec that cannot be read is an error of whoever reads it.
        spec_sha256=hashlib.sha256(spec.read_bytes()).hexdigest() if spec is not None and spec.is_file() else "",
    )


def _local(source: Source) -> ResolvedSource:
    weights = Path(source.text)
    if source.weights is not None:
        raise UsageError("--weights", "is for models that ClearML tracks, and SOURCE is a file")
    if weights.is_dir():
        raise InputError(str(weights), "is a folder, not a model file", hint="give the .hdf5 below <results>/weights")
    if not weights.is_file():
        raise InputError(str(weights), "does not exist")
    return _resolved(weights, source.spec or spec_beside(weights), trained=None, reason="given as a file")


def spec_of(source: Source, *, directory: Path) -> Path | None:
    """Return the spec that `resolve` would find, without fetching the weights; raises what `resolve` would."""
    if source.spec is not None:
        return source.spec
    if source.text and _is_path(source.text):
        return spec_beside(Path(source.text))
    return fetch_spec(_find(source).model, directory=directory)


def spec_beside(weights: Path) -> Path | None:
    """Return the spec that lies with a model: TAO leaves `<results>/experiment_spec.txt` and `<results>/weights/…`."""
    for folder in (weights.resolve().parent, weights.resolve().parent.parent):
        if (folder / "experiment_spec.txt").is_file():
            return folder / "experiment_spec.txt"
    return None


def _is_path(text: str) -> bool:
    """Whether SOURCE is meant as a path: it is one, or looks like one; anything else is an id."""
    try:
        return "/" in text or Path(text).suffix.lower() in MODEL_SUFFIXES or Path(text).exists()
    except OSError:  # too long for a name, or in a folder nobody may look into
        return False
