"""Training runs as ClearML holds them: read for many at once, with what says how good each epoch was."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from tao2serve.errors import InputError, Tao2ServeError
from tao2serve.registry import cache
from tao2serve.registry.calls import call, get_by_ids, tags_of, text
from tao2serve.registry.download import download
from tao2serve.registry.evidence import (
    CONSOLE,
    SCALARS,
    STATUS,
    Evidence,
    has_precision,
    of_console,
    of_scalars,
    of_status,
)
from tao2serve.registry.lineage import parse_spec, schedule, spec_text
from tao2serve.tao.console import read_console
from tao2serve.tao.spec_values import ExperimentSpec
from tao2serve.tao.status import read_status
from tao2serve.values import InputModel

__all__ = ["Run", "Wanted", "read_runs"]

log = logging.getLogger(__name__)

STATUS_ARTIFACT: Final = "status.json"
STATUS_BYTES: Final = 64 << 20
TASK_FIELDS: Final = (
    "name", "project", "parent", "status", "tags", "configuration", "execution.artifacts", "models.input",
    "last_metrics",
)  # fmt: skip
# Up to so many runs every source is read, and held against the others; of more only what is needed, source by source.
COMPARED_RUNS: Final = 50
AT_ONCE: Final = 8
# A console log is read from its end, at most so far. The SDK sends what was printed in 2 s or more as one event: this
# is most of a day of training.
CONSOLE_PAGE: Final = 1000
CONSOLE_EVENTS: Final = 30_000
CONSOLE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The epochs of a run that models are of; `last` if one is of the last epoch, whichever that is."""

    epochs: frozenset[int] = frozenset()
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One task, and the evidence of its evaluations, the most believed source first."""

    id: str
    name: str
    project: str
    tags: tuple[str, ...]
    status: str
    parent_id: str
    parent_name: str
    input_models: tuple[InputModel, ...]
    spec_text: str
    spec: ExperimentSpec | None
    evidence: tuple[Evidence, ...] = ()


def read_runs(wanted: Mapping[str, Wanted], *, tasks: Mapping[str, dict[str, Any]]) -> dict[str, Run]:
    """Return the runs of these tasks (rows with TASK_FIELDS) with the evidence for the epochs that are wanted."""
    projects = get_by_ids(
        "projects", [text(row, "project") for row in tasks.values()], fields=["name"], search_hidden=True
    )
    parents = get_by_ids("tasks", [text(row, "parent") for row in tasks.values()], fields=["name"], search_hidden=True)
    ids = [text(item, "model") for row in tasks.values() for item in _inputs(row)]
    inputs = get_by_ids("models", ids, fields=["name", "uri"])
    described = {
        identifier: _describe(identifier, row, projects=projects, parents=parents, inputs=inputs)
        for identifier, row in tasks.items()
    }
    compare = len(tasks) <= COMPARED_RUNS

    def read(identifier: str) -> Run:
        wish = wanted.get(identifier, Wanted())
        return replace(
            described[identifier], evidence=_evidence(described[identifier], tasks[identifier], wish, compare)
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {run.id: run for run in pool.map(read, tasks)}


def _inputs(row: Mapping[str, Any]) -> list[Any]:
    models = row.get("models")
    found = models.get("input") if isinstance(models, dict) else None
    return found if isinstance(found, list) else []


def _describe(
    identifier: str,
    row: Mapping[str, Any],
    *,
    projects: Mapping[str, dict[str, Any]],
    parents: Mapping[str, dict[str, Any]],
    inputs: Mapping[str, dict[str, Any]],
) -> Run:
    found = spec_text(row.get("configuration"))
    models = [text(item, "model") for item in _inputs(row)]
    return Run(
        id=identifier,
        name=text(row, "name"),
        project=text(projects.get(text(row, "project")), "name"),
        tags=tags_of(row),
        status=text(row, "status"),
        parent_id=text(row, "parent"),
        parent_name=text(parents.get(text(row, "parent")), "name"),
        input_models=tuple(
            InputModel(model_id=m, name=text(inputs.get(m), "name"), uri=text(inputs.get(m), "uri"))
            for m in models
            if m
        ),
        spec_text=found,
        spec=parse_spec(found),
    )


def _evidence(run: Run, row: Mapping[str, Any], wish: Wanted, compare: bool) -> tuple[Evidence, ...]:
    """Read the sources in the order they are believed, all of them or until every wanted epoch has a number."""
    found: list[Evidence] = []
    for source in (STATUS, CONSOLE, SCALARS):
        # Scalars come last here: the console may say which steps are which epoch.
        if found and not compare and _suffices(found, wish):
            break
        try:
            evidence = _read(source, run, row, wish, found)
        except Tao2ServeError as error:
            log.warning("%s of task %s cannot be read: %s; %s", source, run.id, error, error.evidence)
            evidence = Evidence(
                source=source, by_epoch={}, note=f"{source} cannot be read: {error.evidence or error.fact}"
            )
        if evidence is not None:
            found.append(evidence)
    order = (STATUS, SCALARS, CONSOLE)
    return tuple(sorted(found, key=lambda evidence: order.index(evidence.source)))


def _suffices(found: Sequence[Evidence], wish: Wanted) -> bool:
    known = {
        epoch
        for evidence in found
        for epoch, reading in evidence.by_epoch.items()
        if reading.mean_average_precision is not None
    }
    return wish.epochs <= known and (not wish.last or any(e.last_epoch is not None for e in found))


def _reaches_back(evidence: Evidence, wish: Wanted) -> bool:
    """Whether a log read from its end is past the wanted epochs: what is earlier in it is of earlier ones, or of an
    attempt that was begun again."""
    if not evidence.by_epoch or (wish.last and evidence.last_epoch is None):
        return False
    return not wish.epochs or min(evidence.by_epoch) < min(wish.epochs)


def _read(source: str, run: Run, row: Mapping[str, Any], wish: Wanted, found: Sequence[Evidence]) -> Evidence | None:
    if source == STATUS:
        return _status(run, row)
    if source == CONSOLE:
        return _console(run, wish)
    if not has_precision(row.get("last_metrics")):
        return None
    when = schedule(run.spec_text, completed=run.status in ("completed", "published", "closed"))
    known = next((sorted(evidence.by_epoch) for evidence in found if evidence.by_epoch), [])
    return of_scalars(call("events", "scalar_metrics_iter_histogram", task=run.id), when, known=known)


def _status(run: Run, row: Mapping[str, Any]) -> Evidence | None:
    """Read the run's status.json artifact, from the cache if it was read before: ClearML knows its hash."""
    execution = row.get("execution")
    artifacts = execution.get("artifacts") if isinstance(execution, dict) else None
    named = [item for item in artifacts or () if text(item, "key") == STATUS_ARTIFACT]
    if not named:
        return None
    uri, size = text(named[0], "uri"), named[0].get("content_size")
    if isinstance(size, int) and size > STATUS_BYTES:
        return Evidence(source=STATUS, by_epoch={}, note=f"status.json is {size:,} bytes, too large for one")
    path = download(
        uri,
        subject=f"status.json of ClearML task {run.id}",
        sha256=text(named[0], "hash"),
        size=size if isinstance(size, int) and size > 0 else None,
        store=cache.STATUS,
        limit_bytes=STATUS_BYTES,
    )
    try:
        return of_status(read_status(path))
    except InputError as error:
        return Evidence(source=STATUS, by_epoch={}, note=f"status.json {error.fact}")


def _console(run: Run, wish: Wanted) -> Evidence | None:
    """Read the console log from its end, until the wanted epochs are found or the bound is reached."""
    pages: list[str] = []
    events = size = 0
    before: float | None = None
    note = ""
    while True:
        since = {"from_timestamp": before} if before is not None else {}
        data = call(
            "events", "get_task_log", task=run.id, batch_size=CONSOLE_PAGE, navigate_earlier=True, order="desc", **since
        )
        batch = [event for event in data.get("events") or () if isinstance(event, dict)]
        if not batch:
            break
        messages = [text(event, "msg") for event in reversed(batch)]
        pages.insert(0, "\n".join(messages))
        events, size = events + len(batch), size + len(pages[0])
        evidence = of_console(read_console("\n".join(pages)))
        stamps = [event["timestamp"] for event in batch if isinstance(event.get("timestamp"), int | float)]
        if len(batch) < CONSOLE_PAGE or not stamps or min(stamps) == before:
            break
        if _suffices([evidence], wish) or _reaches_back(evidence, wish):
            break
        if events >= CONSOLE_EVENTS or size >= CONSOLE_BYTES:
            note = f"only the last {events:,} events of the console were read"
            break
        before = min(stamps)
    return of_console(read_console("\n".join(pages)), note=note) if pages else None
