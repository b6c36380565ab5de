"""The models to compare: files, results folders, ClearML ids and PROJECT/TASK names, each with what is known of it."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tao2serve.errors import InputError, Tao2ServeError, UsageError
from tao2serve.registry.adoption.plan import choose_weights, epoch_of, evidence_of, reading_at
from tao2serve.registry.fetch import fetch_spec, fetch_weights
from tao2serve.registry.named import find_by_name
from tao2serve.registry.source import MODEL_SUFFIXES, spec_beside
from tao2serve.registry.trained import Selectors, find_trained_model, find_trained_models
from tao2serve.tao.results import Results, WeightFile, read_results
from tao2serve.values import MetricReading, TrainedModel

__all__ = ["MOST", "Candidate", "find_candidates"]

MOST = 12  # models: more are no table that anybody reads
News = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model: `letter` and `name` stand for it; without a file, `missing` says why."""

    letter: str
    name: str
    named: str  # as the user named it
    weights: Path | None
    spec: Path | None
    trained: TrainedModel | None = None
    epoch: int | None = None
    mean_average_precision: float | None = None
    average_precision: tuple[tuple[str, float], ...] = ()
    metric_source: str = ""
    missing: str = ""

    @property
    def pruned(self) -> bool | None:
        """Whether it is pruned, as far as ClearML tells."""
        return self.trained.pruned if self.trained else None


def find_candidates(
    names: Sequence[str], selectors: Selectors, *, directory: Path, on_news: News = lambda _: None
) -> tuple[Candidate, ...]:
    """Return what the names stand for, in their order, or all that the selectors select; weights are fetched.

    A model that cannot be fetched stays, and says why. Raises InputError for a name that stands for nothing,
    UsageError for fewer than two or more than MOST models.
    """
    if names and selectors.selects:
        raise UsageError("the models to compare", "are named, and selected by --project, --task or --tag as well")
    if names:
        found = [_named(name, selectors.metric, directory / str(index), on_news) for index, name in enumerate(names)]
    else:
        models = find_trained_models(selectors)
        if len(models) > MOST:
            raise UsageError(
                f"{len(models)} models", f"are more than the {MOST} that can be compared",
                hint="choose fewer: --task, --tag, or name them",
            )  # fmt: skip
        found = [_tracked(model, model.name, directory / str(i), on_news) for i, model in enumerate(models)]
    if not 2 <= len(found) <= MOST:
        count = "one model" if len(found) == 1 else f"{len(found) or 'no'} models"
        raise UsageError(
            count, "cannot be compared", evidence=f"from 2 to {MOST} can",
            hint="tao2serve models --compare A B, where each is a model or task id, a file, or PROJECT/TASK",
        )  # fmt: skip
    return tuple(
        replace(candidate, letter=letter) for candidate, letter in zip(found, string.ascii_uppercase, strict=False)
    )


def _named(name: str, metric: str, directory: Path, on_news: News) -> Candidate:
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    if path.suffix.lower() in MODEL_SUFFIXES and "/" in name:
        raise InputError(name, "does not exist")
    best = find_by_name(name, metric=metric) if "/" in name else find_trained_model(name, metric=metric)
    return _tracked(best.model, name, directory, on_news)


def _folder(folder: Path) -> Candidate:
    """Return the best model of a results folder."""
    results = read_results(folder)
    chosen = choose_weights(results, "best")[0]
    return _of_results(results, chosen.file, chosen.epoch, chosen.reading, named=str(folder))


def _file(path: Path) -> Candidate:
    """Return a file; if it lies in a results folder, with what that says of its epoch."""
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        if (folder / "status.json").is_file():
            try:
                results = read_results(folder)
            except InputError:
                break
            file = next((file for file in results.weights if file.path == path.resolve()), None)
            if file is not None:
                evidence = evidence_of(results)
                epoch = epoch_of(file, results, evidence)
                return _of_results(results, file, epoch, reading_at(epoch, evidence), named=str(path))
    return Candidate(letter="", name=path.stem, named=str(path), weights=path, spec=spec_beside(path))


def _of_results(
    results: Results, file: WeightFile, epoch: int | None, reading: MetricReading | None, *, named: str
) -> Candidate:
    return Candidate(
        letter="",
        name=file.path.stem,
        named=named,
        weights=file.path,
        spec=results.spec_path,
        epoch=epoch,
        mean_average_precision=reading.mean_average_precision if reading else None,
        average_precision=reading.average_precision if reading else (),
        metric_source=reading.source if reading else "",
    )


def _tracked(model: TrainedModel, named: str, directory: Path, on_news: News) -> Candidate:
    """Return a model of ClearML, fetched if that can be done."""
    on_news(f"fetching {model.name}")
    weights, spec, missing = None, None, ""
    try:
        weights = fetch_weights(model, directory=directory, on_news=on_news)
        spec = fetch_spec(model, directory=directory)
    except Tao2ServeError as error:
        missing = f"{error}: {error.evidence}" if error.evidence else str(error)
    return Candidate(
        letter="",
        name=model.name,
        named=named,
        weights=weights,
        spec=spec,
        trained=model,
        epoch=model.epoch,
        mean_average_precision=model.mean_average_precision,
        average_precision=model.average_precision,
        metric_source=model.metric_source,
        missing=missing,
    )
