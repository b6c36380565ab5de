"""Compare models: find them, make ONNX of each, run them in turns, write the page, tell ClearML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tao2serve.comparison.candidates import Candidate, find_candidates
from tao2serve.comparison.compared import Compared, Comparison, columns_of, sentence, table_of, why_not
from tao2serve.comparison.figure import accuracy_over_latency
from tao2serve.comparison.measure import BATCH, Contender, load_average, measure, try_out
from tao2serve.comparison.page import write_page
from tao2serve.config import Settings
from tao2serve.errors import InputError, Tao2ServeError, ToolError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.export.encrypted import container_export
from tao2serve.export.inference import onnxruntime
from tao2serve.export.recognise import parameter_count
from tao2serve.export.signature import load_onnx
from tao2serve.loadtest.drawing import plotly
from tao2serve.loadtest.machine import describe_machine
from tao2serve.loadtest.plan import make_directory
from tao2serve.registry.comparing import report_comparison
from tao2serve.registry.session import clearml
from tao2serve.registry.trained import Selectors
from tao2serve.steps import Step, Steps
from tao2serve.tao.describe import describe
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelArtifact

__all__ = ["CompareRequest", "Outcome", "compare_models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """What is compared, and what is done with it; `output` None writes no page."""

    names: tuple[str, ...] = ()
    selectors: Selectors = field(default_factory=Selectors)
    measures: bool = True
    seconds: float = 5.0  # for each model
    output: Path | None = None
    reports: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The comparison, and where it lies."""

    comparison: Comparison
    page: Path | None
    task_id: str
    steps: Steps

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tao2serve models --compare`."""
        return {
            **self.comparison.to_dict(),
            "report": str(self.page) if self.page else None,
            "reported_to": self.task_id or None,
            "steps": self.steps.to_list(),
        }


def compare_models(request: CompareRequest, settings: Settings, *, folder: Path, steps: Steps) -> Outcome:
    """Compare, in `folder` for what is fetched and made; a model that cannot be run stays, and says why.

    Raises InputError for a name that stands for nothing, UsageError for too few or too many models or a folder that
    cannot be written, ServiceError if ClearML refuses the report.
    """
    with steps.step("find the models") as step:
        candidates = find_candidates(
            request.names, request.selectors, directory=folder / "fetched", on_news=step.news
        )  # fmt: skip
        step.note(", ".join(f"{one.letter} {one.name}" for one in candidates))
    if request.output is not None:  # what would fail at the end fails before the work
        plotly()
        make_directory(request.output)
    reports = request.reports and _can_report(candidates)
    comparison = _compared(candidates, request, settings, folder, steps)
    if request.reports and not reports:
        comparison = replace(comparison, notes=(*comparison.notes, "not reported: ClearML is not configured"))
    page, drawn = None, None
    with steps.step("draw accuracy over latency") as step:
        try:
            drawn = accuracy_over_latency(comparison)
            page = write_page(comparison, drawn, directory=request.output) if request.output else None
            step.note(sentence(comparison) or "fewer than two models have both numbers: no plot")
        except ToolError as error:
            if request.output:
                raise
            step.note(f"no plot: {error}; {error.hint}")
    task_id = ""
    if reports:
        task_id = _report(comparison, drawn, page, settings, steps)
    return Outcome(comparison=comparison, page=page, task_id=task_id, steps=steps)


def _compared(
    candidates: Sequence[Candidate], request: CompareRequest, settings: Settings, folder: Path, steps: Steps
) -> Comparison:
    """Make ONNX of each, and run them."""
    models, made = [], {}
    with steps.step("export to ONNX") as step:
        for candidate in candidates:
            compared, artifact = _exported(candidate, settings, folder / f"{candidate.letter}.onnx", step)
            models.append(compared)
            if artifact is not None:
                made[candidate.letter] = artifact
        step.note(f"{len(made)} of {len(models)}")
    before = load_average()
    if request.measures and made:
        with steps.step("run them in turns") as step:
            models = _measured(models, made, request.seconds, step)
    notes = _notes(models, request, before)
    return Comparison(
        models=tuple(models), machine=_machine(before, ran=request.measures), at=datetime.now(UTC), notes=notes
    )


def _exported(
    candidate: Candidate, settings: Settings, output: Path, step: Step
) -> tuple[Compared, ModelArtifact | None]:
    """Return a model with its sizes, and its ONNX file; one that there is no file of, or none can be made, says why."""
    if candidate.weights is None:
        return Compared(candidate=candidate, why_not=candidate.missing), None
    step.news(candidate.name)
    size = candidate.weights.stat().st_size
    try:
        spec = read_spec(candidate.spec) if candidate.spec else None
        artifact = export_onnx(
            candidate.weights, output=output, spec=spec, container=container_export(settings, on_news=step.news)
        )
    except Tao2ServeError as error:
        return Compared(candidate=candidate, file_bytes=size, why_not=_in_short(error)), None
    compared = Compared(
        candidate=candidate,
        file_bytes=size,
        onnx_bytes=artifact.path.stat().st_size + sum(file.stat().st_size for file in artifact.companions),
        parameters=_parameters(candidate.weights, artifact.path),
        network="x".join(map(str, artifact.signature.input.shape))
        + f", stride {artifact.signature.stride}, {artifact.precision}",
    )
    return compared, artifact


def _parameters(weights: Path, exported: Path) -> int:
    """Return how many a model has: of Keras's own file all of them, as TAO counts; else those of the graph."""
    if is_hdf5(weights):
        return describe(read_keras_hdf5(weights)).parameter_count
    return parameter_count(load_onnx(exported))


def _measured(models: Sequence[Compared], made: dict[str, ModelArtifact], seconds: float, step: Step) -> list[Compared]:
    """Return the models with how fast each is, or why it does not run."""
    contenders, trouble = {}, {}
    for model in models:
        if (artifact := made.get(model.letter)) is None:
            continue
        contender = Contender(name=model.candidate.name, path=artifact.path, signature=artifact.signature)
        try:
            try_out(contender)
        except InputError as error:
            trouble[model.letter] = _in_short(error)
        else:
            contenders[model.letter] = contender
    found = measure(tuple(contenders.values()), seconds=seconds, on_news=step.news) if contenders else []
    speeds = dict(zip(contenders, found, strict=True))
    step.note(", ".join(f"{letter} {speed.latency_ms:.2f} ms" for letter, speed in speeds.items()) or "none runs")
    return [
        replace(model, speed=speeds.get(model.letter), why_not=trouble.get(model.letter, model.why_not))
        for model in models
    ]


def _in_short(error: Tao2ServeError) -> str:
    return ": ".join(filter(None, (error.fact, error.evidence)))


def _machine(before: float | None, *, ran: bool) -> tuple[tuple[str, str], ...]:
    if not ran:
        return ()
    held = describe_machine()
    told = {
        "CPU": held.get("cpu_model", ""),
        "CPUs usable": held.get("cpu_count", ""),
        "System": held.get("system", ""),
        "Load before": f"{before:.1f}" if before is not None else "",
        "Run by": f"onnxruntime {onnxruntime().__version__}, CPU, all cores, ONNX as exported",
        "Latency": "one picture at a time, median; tensor in, tensors out",
        "Throughput": f"batches of {BATCH} pictures, median",
    }
    return tuple((name, value) for name, value in told.items() if value)


def _notes(models: Sequence[Compared], request: CompareRequest, before: float | None) -> tuple[str, ...]:
    notes = why_not(models)
    if not request.measures:
        notes.append("latency and throughput were not measured: --no-measure")
        return tuple(notes)
    cores = int(describe_machine().get("cpu_count") or 0)
    if before is not None and cores and before > cores:
        notes.append(
            f"the machine was busy (load {before:.1f} on {cores} CPUs): trust the ratios, which are taken "
            "turn by turn, more than the milliseconds"
        )
    sizes = {model.network.partition(",")[0] for model in models if model.network}
    if len(sizes) > 1:
        notes.append(f"the networks take pictures of different sizes: {', '.join(sorted(sizes))}")
    sources = {tuple(sorted(dict(m.candidate.average_precision))) for m in models if m.candidate.average_precision}
    if len(sources) > 1:
        notes.append("the models were evaluated on different classes, so their mAP are not of one kind")
    return tuple(notes)


def _can_report(candidates: Sequence[Candidate]) -> bool:
    """Whether there is a ClearML to report to; raises UsageError or ServiceError if there must be one."""
    try:
        clearml()
    except UsageError:
        if any(candidate.trained for candidate in candidates):
            raise
        return False
    return True


def _report(comparison: Comparison, drawn: Any | None, page: Path | None, settings: Settings, steps: Steps) -> str:
    """Make the ClearML task of a comparison, and return its id."""
    tracked = {
        f"{model.letter} {model.candidate.name}": model.candidate.trained.model_id
        for model in comparison.models
        if model.candidate.trained
    }
    with steps.step("report to ClearML") as step:
        values: dict[str, float] = {}
        for model in comparison.measured:
            assert model.speed is not None
            values[f"{model.letter} latency ms"] = round(model.speed.latency_ms, 3)
            values[f"{model.letter} images per second"] = round(model.speed.throughput, 2)
        for model in comparison.models:
            if model.candidate.mean_average_precision is not None:
                values[f"{model.letter} mAP"] = model.candidate.mean_average_precision
        task_id = report_comparison(
            project=settings.artifact_project,
            name=f"compare {', '.join(model.candidate.name for model in comparison.models)}"[:200],
            columns=columns_of(comparison),
            rows=table_of(comparison),
            figure=drawn,
            models=tracked,
            values=values,
            document=comparison.to_dict(),
            page=page,
        )
        step.note(f"ClearML task {task_id}")
    return task_id
