"""What a finished DetectNet_v2 training leaves in its results folder: weights, spec, status.json, console log.

TAO 5 writes `<results>/weights/<name>.hdf5`, `<results>/model.epoch-N.hdf5` (some releases below `weights/`),
`experiment_spec.txt`, `status.json` and `events/`; TAO 4 and before `.tlt` for `.hdf5`, and `model.step-N.tlt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tao2serve.errors import InputError
from tao2serve.tao.console import ConsoleEvaluation, read_console
from tao2serve.tao.spec import ExperimentSpec, read_spec
from tao2serve.tao.status import StatusRecord, TrainingStatus, read_status

__all__ = ["WEIGHTS", "Results", "WeightFile", "by_suffix", "moment_of", "read_log", "read_results"]

ORIGINALS: Final = (".hdf5", ".tlt")  # what training writes; the others are exported from these
WEIGHTS: Final = (*ORIGINALS, ".onnx", ".etlt")
EPOCH: Final = re.compile(r"epoch[-_](\d{1,9})")
STEP: Final = re.compile(r"step[-_](\d{1,9})")
SPEC_NAME: Final = "experiment_spec.txt"  # TAO's own copy
SPEC_SUFFIXES: Final = (".txt", ".cfg", ".prototxt", ".pbtxt", ".conf")
SPEC_MARKS: Final = ("model_config", "cost_function_config")
SPEC_BYTES: Final = 8 << 20
LOG_MARK: Final = "Mean average_precision"
LOG_SUFFIXES: Final = (".log", ".txt", ".out")
LOG_BYTES: Final = 64 << 20

Role: TypeAlias = Literal["final", "checkpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One file of weights; `epoch` is the one its name tells, None for final weights and for what tells none."""

    path: Path
    role: Role
    bytes: int
    epoch: int | None = None

    @property
    def is_original(self) -> bool:
        """Whether training itself wrote it; others were exported."""
        return self.path.suffix.lower() in ORIGINALS


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A results folder as it was read; `notes` are what its user must know, a sentence each."""

    folder: Path
    weights: tuple[WeightFile, ...]  # checkpoints by epoch, final weights last
    spec: ExperimentSpec
    spec_path: Path
    status: TrainingStatus | None = None
    status_path: Path | None = None
    console: tuple[ConsoleEvaluation, ...] = ()
    log: Path | None = None
    events: tuple[Path, ...] = ()  # of TensorBoard
    notes: tuple[str, ...] = ()

    @property
    def started(self) -> StatusRecord | None:
        """The line with which TAO began this run, the first time if it was resumed."""
        return next((record for record in self.status.records), None) if self.status else None

    @property
    def begun(self) -> datetime | None:
        """When it began, by the clock of the container."""
        return moment_of(self.started) if self.started else None

    @property
    def ended(self) -> datetime | None:
        """When status.json was written last, by the clock of the container."""
        return moment_of(self.status.records[-1]) if self.status else None

    @property
    def ended_well(self) -> bool | None:
        """Whether TAO says that the training came to its end; None without a status.json."""
        return self.status.succeeded if self.status else None


def moment_of(record: StatusRecord) -> datetime | None:
    """Return the time of a record, None if it has none that can be read."""
    try:
        return datetime.strptime(f"{record.date} {record.time}", "%m/%d/%Y %H:%M:%S")
    except ValueError:
        return None


def read_results(folder: Path, *, spec: Path | None = None, log: Path | None = None) -> Results:
    """Read a results folder, or the `weights` folder in it; `spec` and `log` come before what lies there.

    Raises InputError if there are no weights, no training spec of DetectNet_v2, several texts that could be it, or if
    spec and status.json are of different trainings.
    """
    folder = _results_folder(folder)
    weights = _weights(folder)
    if not weights:
        raise _no_weights(folder)
    spec_path = spec or _find_spec(folder)
    read = read_spec(spec_path)
    if read.kind != "experiment":
        raise InputError(
            str(spec_path), "is a spec for inference, and the one of the training is needed",
            hint="give what `detectnet_v2 train -e` was run with: --spec FILE",
        )  # fmt: skip
    notes: list[str] = []
    status_path = folder / "status.json"
    status = read_status(status_path) if status_path.is_file() else None
    if status is not None:
        notes += _held_together(read, spec_path, status)
    console_path = log or _find_log(folder, spec_path)
    console = _console(console_path) if console_path else ()
    notes += _about_evaluations(status, console, console_path, given=log is not None)
    return Results(
        folder=folder,
        weights=weights,
        spec=read,
        spec_path=spec_path,
        status=status,
        status_path=status_path if status else None,
        console=console,
        log=console_path,
        events=tuple(sorted(path for path in folder.rglob("events.out.tfevents*") if path.is_file())),
        notes=tuple(notes),
    )


def _results_folder(folder: Path) -> Path:
    if not folder.is_dir():
        fact = "is a file, and the results folder of a training is needed" if folder.exists() else "does not exist"
        raise InputError(str(folder), fact, hint="give the folder that `detectnet_v2 train -r` named")
    whole = folder.resolve()
    beside = any((whole.parent / name).is_file() for name in ("status.json", SPEC_NAME))
    return whole.parent if whole.name == "weights" and beside else whole


def _weights(folder: Path) -> tuple[WeightFile, ...]:
    found = []
    for place in (folder, folder / "weights"):
        for path in _files(place):
            if path.suffix.lower() in WEIGHTS:
                named = EPOCH.search(path.name)
                numbered = named or STEP.search(path.name)
                found.append(
                    WeightFile(
                        path=path,
                        role="checkpoint" if numbered else "final",
                        bytes=path.stat().st_size,
                        epoch=int(named.group(1)) if named else None,
                    )
                )
    found = [file for file in found if file.bytes]
    return tuple(sorted(found, key=lambda file: (file.role == "final", file.epoch or 0, str(file.path))))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []


def _no_weights(folder: Path) -> InputError:
    below = sorted({path.parent for path in folder.glob("*/*") if path.name in ("status.json", "weights")})
    names = [path.name for path in sorted(folder.iterdir())][:8]
    if below:
        hint = f"these folders in it look like results: {', '.join(str(path) for path in below[:5])}"
    else:
        hint = "give the folder that `detectnet_v2 train -r` named, with its weights"
    return InputError(
        str(folder),
        "holds no weights of a DetectNet_v2 training",
        evidence=f"looked for {', '.join(WEIGHTS)} in it and in weights/; it holds {', '.join(names) or 'nothing'}",
        hint=hint,
    )


def _find_spec(folder: Path) -> Path:
    """Return TAO's own copy, or the one text that reads like a training spec."""
    if (folder / SPEC_NAME).is_file():
        return folder / SPEC_NAME
    texts = [
        path
        for place in (folder, folder / "weights", folder / "specs")
        for path in _files(place)
        if path.suffix.lower() in SPEC_SUFFIXES and _reads_like_spec(path)
    ]
    if len(texts) == 1:
        return texts[0]
    if texts:
        raise InputError(
            str(folder), "holds several texts that could be the experiment spec",
            evidence=", ".join(str(path.relative_to(folder)) for path in texts[:5]), hint="name one: --spec FILE",
        )  # fmt: skip
    raise InputError(
        str(folder), "holds no experiment spec",
        evidence=f"looked for {SPEC_NAME} and for texts with {' and '.join(SPEC_MARKS)}, in it, weights/ and specs/",
        hint="give the one that `detectnet_v2 train -e` was run with: --spec FILE",
    )  # fmt: skip


def _reads_like_spec(path: Path) -> bool:
    try:
        if path.stat().st_size > SPEC_BYTES:
            return False
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return all(re.search(rf"^\s*{mark}\s*:?\s*{{", text, re.MULTILINE) for mark in SPEC_MARKS)


def _held_together(spec: ExperimentSpec, path: Path, status: TrainingStatus) -> list[str]:
    """Raise InputError if status.json names classes that the spec has not; return what else is at odds."""
    names = {name for record in status.evaluations for name in record.average_precision}
    strange = sorted(names - set(spec.classes))
    if strange:
        raise InputError(
            str(path), "is not the spec of this training",
            evidence=f"status.json has precisions of {', '.join(sorted(names))}; the spec's classes are "
            f"{', '.join(spec.classes)}",
            hint="give the one that it was run with: --spec FILE",
        )  # fmt: skip
    epochs = {record.max_epoch for record in status.records if record.max_epoch}
    planned = spec.training.num_epochs if spec.training else 0
    if epochs and planned and planned not in epochs:
        said = ", ".join(map(str, sorted(epochs)))
        return [f"the spec is for {planned} epochs, status.json for {said}: is it the spec of this training?"]
    return []


def _find_log(folder: Path, spec: Path) -> Path | None:
    """Return the one file in the folder that holds what TAO printed."""
    logs = [path for path in _files(folder) if path.suffix.lower() in LOG_SUFFIXES and path != spec and _has_mark(path)]
    return logs[0] if len(logs) == 1 else None


def _has_mark(path: Path) -> bool:
    return LOG_MARK in read_log(path)


def read_log(path: Path) -> str:
    """Return the end of a log, at most LOG_BYTES of it; raises InputError if it cannot be read."""
    if not path.is_file():  # a pipe would never end
        raise InputError(str(path), "is no file" if path.exists() else "does not exist")
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - LOG_BYTES, 0))
            return file.read(LOG_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error


def _console(path: Path) -> tuple[ConsoleEvaluation, ...]:
    return read_console(read_log(path))


def _about_evaluations(
    status: TrainingStatus | None, console: Sequence[ConsoleEvaluation], log: Path | None, *, given: bool
) -> list[str]:
    notes = []
    if given and not console:
        notes.append(f"{log} holds no evaluation of DetectNet_v2")
    evaluated = bool(status and status.evaluations)
    if evaluated:
        return notes
    what = "there is no status.json" if status is None else "status.json holds no evaluation"
    if any(one.epoch is not None for one in console):
        notes.append(f"{what}: the precisions are those of the console log")
    else:
        notes.append(f"{what} and no console log with evaluations: ClearML will know no mAP (give one: --log FILE)")
    return notes


def by_suffix(files: Iterable[WeightFile]) -> list[WeightFile]:
    """Return files with what training wrote before what was exported, .hdf5 before .tlt, .onnx before .etlt."""
    return sorted(files, key=lambda file: (WEIGHTS.index(file.path.suffix.lower()), str(file.path)))
