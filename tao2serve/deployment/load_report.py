"""Load tests on the ClearML task of the deployment that they tested: figures, numbers, report and JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.deployment.candidate import DOCUMENT
from tao2serve.loadtest import Gate, LoadResult, figures
from tao2serve.loadtest.series import LoadSeries
from tao2serve.loadtest.series_figures import series_figures
from tao2serve.registry.operations import list_operations, read_records
from tao2serve.registry.session import clearml, translated
from tao2serve.serving.instances import read_state
from tao2serve.serving.inventory import Inventory

__all__ = ["Deployed", "find_deployment", "report_load", "report_tuning", "show"]

_FILES: Final = ("report.html", "result.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The deployment behind an endpoint's version; `environment` is what a load test's report says of it."""

    task_id: str
    endpoint: str
    version: int
    environment: Mapping[str, str]


def find_deployment(endpoint: str, version: int | None, *, service_id: str) -> Deployed | None:
    """Return the deployment that made this version (`Inventory.maker`), without one that of the alias's version.

    None if no deployment of ours made it, or if the alias routes to several: their load is that of none alone.
    Raises ServiceError if ClearML does not answer.
    """
    state = read_state(service_id)
    if version is None:
        weights = state.weights(endpoint)
        if len(weights) != 1:
            return None
        (version,) = weights
    record = Inventory(state=state, operations=list_operations(service_id, endpoint=endpoint)).maker(endpoint, version)
    if record is None:
        return None
    document = read_records(record.task_id, DOCUMENT).get(DOCUMENT) or {}
    return Deployed(
        task_id=record.task_id, endpoint=endpoint, version=version,
        environment={**_told(document), **_serving(service_id), "deployment_task": record.task_id},
    )  # fmt: skip


def _told(document: Mapping[str, Any]) -> dict[str, str]:
    source, artifact = document.get("source") or {}, document.get("artifact") or {}
    tools = artifact.get("tools") or {}
    told = {
        **{name: tools.get(name) for name in ("onnxruntime", "tensorrt", "clearml")},
        "deployed_by": f"tao2serve {tools['tao2serve']}" if tools.get("tao2serve") else None,
        "precision": artifact.get("precision"),
        "placement": document.get("placement"),
        "weights": source.get("weights"),
        "trained_model": source.get("model_id"),
    }
    return {name: str(value) for name, value in told.items() if value}


def _serving(service_id: str) -> dict[str, str]:
    """Return the version of ClearML Serving, which its service notes on its own task (`_check_version`)."""
    with translated(f"serving service {service_id}", "could not be read"):
        version = clearml().Task.get_task(task_id=service_id)._get_runtime_properties().get("version")
    return {"clearml_serving": str(version)} if version else {}


def report_load(
    deployed: Deployed, load: LoadResult | LoadSeries, *, directory: Path, gates: Sequence[Gate] = ()
) -> None:
    """Add figures and numbers of a load test to its deployment's task, and the report's files as debug samples.

    `directory` holds what `write_report` or `write_series_report` wrote. Several tests stay side by side, by when they
    started; the task's single values are those of the last one. Its status stays as it is.
    Raises ServiceError if ClearML does not take them.
    """
    first = load if isinstance(load, LoadResult) else load.runs[0].result
    moment = f"{first.started_at:%Y-%m-%d %H:%M:%S}"
    with _task_of(deployed, "load test") as task:
        logger = task.get_logger()
        show(logger, load, series=moment, gates=gates)
        _report_files(logger, [directory / name for name in _FILES], "load test", series=moment)


def report_tuning(
    deployed: Deployed, drawn: Iterable[Any], numbers: Mapping[str, float], *, files: Sequence[Path], series: str
) -> None:
    """Add figures, numbers and files of a tuning to the task of the deployment that was tuned, as `report_load` does.

    Raises ServiceError if ClearML does not take them.
    """
    with _task_of(deployed, "tuning") as task:
        logger = task.get_logger()
        _show(logger, drawn, numbers, what="tuning", series=series)
        _report_files(logger, files, "tuning", series=series)


@contextmanager
def _task_of(deployed: Deployed, what: str) -> Iterator[Any]:
    """Yield the SDK's task; what is reported to it until the end has arrived then."""
    sdk = clearml()
    with translated(f"ClearML task {deployed.task_id}", f"did not take the {what}"):
        task = sdk.Task.get_task(task_id=deployed.task_id)
        yield task
        task.flush(wait_for_uploads=True)


def _report_files(logger: Any, files: Sequence[Path], what: str, *, series: str) -> None:
    """Report files as debug samples.

    An ended task takes events, but no artifacts (tasks.add_or_update_artifacts: "Invalid task status", also with
    force), and one that is started again for it would be a running operation to all others.
    """
    for path in files:
        logger.report_media(f"{what} {path.name}", series, iteration=0, local_path=path)


def show(logger: Any, load: LoadResult | LoadSeries, *, series: str, gates: Sequence[Gate] = ()) -> None:
    """Report the figures of the HTML page, and the headline numbers, through a task's logger."""
    drawn = figures(load, gates=gates) if isinstance(load, LoadResult) else series_figures(load)
    _show(logger, drawn, _numbers(load), what="load test", series=series)


def _show(logger: Any, drawn: Iterable[Any], numbers: Mapping[str, float], *, what: str, series: str) -> None:
    for figure in drawn:
        logger.report_plotly(f"{what}: {figure.layout.title.text}", series, figure, iteration=0)
    for name, value in numbers.items():
        logger.report_single_value(f"{what} {name}", value)


def _numbers(load: LoadResult | LoadSeries) -> dict[str, float]:
    """Return the single values: of a series those of the run that decides it, and the highest rate."""
    if isinstance(load, LoadSeries):
        numbers = _numbers(load.runs[load.decisive].result)
        if load.highest is not None and load.highest.holds_rps is not None:
            numbers["highest rate"] = load.highest.holds_rps
        return numbers
    latency_ms = load.latency_ms.to_dict() if load.latency_ms else {}
    service_ms = load.service_ms.to_dict() if load.plan.is_open and load.service_ms else {}
    return {
        **{f"{name} ms": value for name, value in latency_ms.items()},
        **{f"service time {name} ms": value for name, value in service_ms.items()},
        "requests per second": load.throughput_rps,
        **({} if load.failure_ratio is None else {"failure ratio": load.failure_ratio}),
        "client saturated": float(load.client.saturated),
    }
