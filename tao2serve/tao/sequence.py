"""NVIDIA's whole notebook as one run that can be taken up again: train, evaluate, prune, retrain, evaluate, export.

What is finished is written down in the results folder, with a digest of what it was made from and the files it left. A
step that was cut short goes again; TAO's own training then goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeAlias

from tao2serve.errors import ServiceError, ToolError, UsageError
from tao2serve.tao import subtask as tao
from tao2serve.tao.console import read_console
from tao2serve.tao.mounts import reach
from tao2serve.tao.place import Place
from tao2serve.tao.retraining import require_loads, retraining_spec
from tao2serve.tao.source import sha256_of
from tao2serve.tao.subtask import PruneOptions, Subtask

__all__ = [
    "STATE",
    "SequenceRequest",
    "SequenceStep",
    "StepReport",
    "finished_steps",
    "pruned_in_container",
    "run_sequence",
    "sequence_steps",
]

STATE: Final = "tao2serve-run.json"
_LOCK: Final = ".tao2serve-run.lock"
_RETRAIN_SPEC: Final = "experiment_spec_retrain.txt"
_ENDS: Final = ("evaluate", "evaluate-retrained")  # nothing is made from what these leave
State: TypeAlias = Literal["finished", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRequest:
    """`retrain_spec` None: it is made of `spec`, for the pruned model."""

    spec: Path
    results: Path
    name: str
    retrain_spec: Path | None = None
    prune: PruneOptions = field(default_factory=PruneOptions)
    gpus: int = 1
    amp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStep:
    """One step: what runs, where its status.json goes, which file it leaves, which spec it reads."""

    name: str
    subtask: Subtask
    results: Path
    output: Path
    spec: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What became of one step; `mean_average_precision` is a ratio, None where nothing was evaluated."""

    name: str
    state: State
    output: Path
    log: Path
    seconds: float
    mean_average_precision: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "output": str(self.output),
            "log": str(self.log),
            "seconds": round(self.seconds, 1),
            "mean_average_precision": self.mean_average_precision,
        }


def sequence_steps(request: SequenceRequest) -> tuple[SequenceStep, ...]:
    """Return the six steps, in folders named as NVIDIA's notebook has them."""
    results, name, spec = request.results, request.name, request.spec
    retrain_spec = request.retrain_spec or results / _RETRAIN_SPEC
    unpruned, pruned, retrained = (results / f"experiment_dir_{part}" for part in ("unpruned", "pruned", "retrain"))
    final = results / "experiment_dir_final"
    model = unpruned / "weights" / f"{name}.hdf5"
    pruned_model = pruned / f"{name}_pruned.hdf5"
    retrained_model = retrained / "weights" / f"{name}_pruned.hdf5"
    exported = final / f"{name}.onnx"
    steps = (
        (
            "train",
            tao.train(spec, results=unpruned, name=name, gpus=request.gpus, amp=request.amp),
            unpruned,
            model,
            spec,
        ),
        _evaluation("evaluate", model, spec, results / "evaluate_unpruned"),
        (
            "prune",
            tao.prune(model, output=pruned_model, results=pruned, options=request.prune),
            *(pruned, pruned_model, None),
        ),
        (
            "retrain",
            tao.train(retrain_spec, results=retrained, name=f"{name}_pruned", gpus=request.gpus, amp=request.amp),
            *(retrained, retrained_model, retrain_spec),
        ),
        _evaluation("evaluate-retrained", retrained_model, retrain_spec, results / "evaluate_retrain"),
        (
            "export",
            tao.export(retrained_model, spec=retrain_spec, output=exported, results=final),
            *(final, exported, retrain_spec),
        ),
    )
    return tuple(
        SequenceStep(name=title, subtask=subtask, results=folder, output=output, spec=read)
        for title, subtask, folder, output, read in steps
    )


def _evaluation(name: str, model: Path, spec: Path, folder: Path) -> tuple[str, Subtask, Path, Path, Path]:
    # In a folder of its own: TAO's evaluation writes status.json anew, and would take the training's place.
    return name, tao.evaluate(model, spec=spec, results=folder), folder, folder / "status.json", spec


def pruned_in_container(request: SequenceRequest, place: Place) -> str:
    """Return the path under which the retraining finds the pruned model."""
    pruned = sequence_steps(request)[2].output.relative_to(request.results)
    inside = (
        PurePosixPath(request.results.resolve()) if place.way == "inside" else reach(place.mounts, request.results)[1]
    )
    return str(inside / pruned)


def run_sequence(
    request: SequenceRequest,
    place: Place,
    *,
    run: Callable[[SequenceStep, Path], None],
    on_step: Callable[[SequenceStep, StepReport | None], None],
) -> tuple[StepReport, ...]:
    """Run what is not finished yet, and return what became of each step.

    `run` carries out a step, its log going to the path it is given; `on_step` is told of each beginning (None) and end.
    Raises UsageError if a finished step was made from something else; ServiceError if another run is at work in
    these results; ToolError for a step that did not leave its file.
    """
    request.results.mkdir(parents=True, exist_ok=True)
    with _alone(request.results):
        made, record, digests = _held_against(request, place)
        due = _due(request, record)
        if made:  # not before what is finished was found to be of it
            _replace(request.results / _RETRAIN_SPEC, made)
        reports: list[StepReport] = []
        for step in sequence_steps(request):
            report = None if step in due else record.finished(step)
            if report is None:
                on_step(step, None)
                report = _step(step, request, record, digests[step.name], run)
            on_step(step, report)
            reports.append(report)
        return tuple(reports)


def finished_steps(request: SequenceRequest, place: Place) -> tuple[str, ...]:
    """Return the steps that a run would skip; nothing is written. Raises UsageError where the run would."""
    _, record, _ = _held_against(request, place)
    due = _due(request, record)
    return tuple(step.name for step in sequence_steps(request) if step not in due)


def _due(request: SequenceRequest, record: _Record) -> tuple[SequenceStep, ...]:
    """Return the steps that are not finished, or made from what one of them makes.

    Raises UsageError, before any of them runs, if a finished training would be among them.
    """
    due: list[SequenceStep] = []
    for step in sequence_steps(request):
        if record.finished(step) is None or any(before.name not in _ENDS for before in due):
            record.require_open(step)
            due.append(step)
    return tuple(due)


def _held_against(request: SequenceRequest, place: Place) -> tuple[str, _Record, dict[str, str]]:
    """Return the retraining's spec, "" if one is given, the record, and what each step is made from, as a digest.

    Raises UsageError if a finished step was made from something else.
    """
    pruned = pruned_in_container(request, place)
    made = ""
    if request.retrain_spec is not None:
        require_loads(request.retrain_spec, pruned=pruned)
    else:
        made = retraining_spec(request.spec, pruned=pruned)
    record = _Record(request.results / STATE)
    steps = sequence_steps(request)
    digests = {step.name: _digest(step, request, made) for step in steps}
    for step in steps:
        record.require_same(step, digests[step.name])
    return made, record, digests


def _step(
    step: SequenceStep,
    request: SequenceRequest,
    record: _Record,
    digest: str,
    run: Callable[[SequenceStep, Path], None],
) -> StepReport:
    start = time.monotonic()
    log = request.results / "logs" / f"{step.name}-{time.strftime('%Y%m%d-%H%M%S')}.log"
    for folder in (step.results, step.output.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if step.name == "export":
        step.output.unlink(missing_ok=True)  # TAO's exporter refuses a file that is there, though it be half of one
    record.begin(step, log)
    run(step, log)
    if not step.output.is_file() or not step.output.stat().st_size:
        raise ToolError(
            step.subtask.title, "succeeded, and did not leave its file", evidence=str(step.output),
            hint="the log has all it printed", log=log,
        )  # fmt: skip
    report = StepReport(
        name=step.name, state="finished", output=step.output, log=log, seconds=time.monotonic() - start,
        mean_average_precision=_precision(log),
    )  # fmt: skip
    record.end(step, report, digest)
    return report


def _precision(log: Path) -> float | None:
    found = read_console(log.read_text(encoding="utf-8", errors="replace"))
    return found[-1].mean_average_precision if found else None


def _digest(step: SequenceStep, request: SequenceRequest, made: str) -> str:
    """Return what tells a step from one with other options or another spec; `made` is the retraining's, if made here.

    From where the files are named makes no difference: the spec counts by its content.
    """
    words = [
        word if isinstance(word, str) else "spec" if word == step.spec else str(word.relative_to(request.results))
        for word in step.subtask.arguments
    ]
    spec = ""
    if step.spec is not None:
        is_made = made and step.spec == request.results / _RETRAIN_SPEC
        spec = hashlib.sha256(made.encode()).hexdigest() if is_made else sha256_of(step.spec)
    return hashlib.sha256(json.dumps([step.subtask.name, words, spec]).encode()).hexdigest()


@contextlib.contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Let one run at a time work in a results folder; the lock goes with the process."""
    with (results / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceError(
                str(results), "is being worked in by another run", hint="wait for it, or give other --results"
            ) from error
        yield


class _Record:
    """The state file: what each step was made from, and what it left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            self._steps: dict[str, dict[str, Any]] = dict(document["steps"])
        except FileNotFoundError:
            self._steps = {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                str(path), "cannot be read, and says how far the run came", evidence=str(error)[:200],
                hint="remove it to begin anew: TAO's training goes on from its own checkpoints",
            ) from error  # fmt: skip

    def require_same(self, step: SequenceStep, digest: str) -> None:
        known = self._steps.get(step.name, {})
        if known.get("state") == "finished" and known.get("inputs") != digest:
            raise UsageError(
                f"step {step.name}",
                f"was finished in {self._path.parent} with another spec or other options",
                hint="give a --results folder of its own to what is to be made anew",
            )

    def require_open(self, step: SequenceStep) -> None:
        """Refuse to train again into the folder of a training that was finished: TAO would take its last checkpoint."""
        if step.subtask.name == "train" and self._steps.get(step.name, {}).get("state") == "finished":
            raise UsageError(
                f"step {step.name}",
                "was finished, and what it left, or what it was made from, is no longer what it was",
                evidence=str(step.output),
                hint="give a --results folder of its own to what is to be trained anew",
            )

    def finished(self, step: SequenceStep) -> StepReport | None:
        """Return the report of a step that is finished, and whose file is still what it left; else None."""
        known = self._steps.get(step.name, {})
        if known.get("state") != "finished" or known.get("left") != _left(step.output):
            return None
        return StepReport(
            name=step.name, state="skipped", output=step.output, log=Path(known["log"]),
            seconds=float(known["seconds"]), mean_average_precision=known.get("mean_average_precision"),
        )  # fmt: skip

    def begin(self, step: SequenceStep, log: Path) -> None:
        self._say(step, {"state": "started", "log": str(log.absolute())})

    def end(self, step: SequenceStep, report: StepReport, digest: str) -> None:
        self._say(
            step,
            {
                "state": "finished",
                "inputs": digest,
                "left": _left(step.output),
                "log": str(report.log.absolute()),
                "seconds": round(report.seconds, 1),
                "mean_average_precision": report.mean_average_precision,
            },
        )

    def _say(self, step: SequenceStep, said: Mapping[str, Any]) -> None:
        self._steps[step.name] = dict(said)
        _replace(self._path, json.dumps({"version": 1, "steps": self._steps}, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    staged = path.with_suffix(".new")
    staged.write_text(text, encoding="utf-8", newline="")
    staged.replace(path)


def _left(output: Path) -> list[int] | None:
    """Return size and time of a file, None if it is gone."""
    try:
        found = output.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
