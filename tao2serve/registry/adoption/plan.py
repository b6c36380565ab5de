"""Which weights of a results folder go into ClearML, of which epoch they are, and how good that epoch was."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tao2serve.errors import InputError
from tao2serve.registry.evidence import Evidence, of_console, of_status
from tao2serve.tao.results import Results, WeightFile, by_suffix
from tao2serve.tao.source import sha256_of
from tao2serve.values import MetricReading

__all__ = ["CHOICES", "Choice", "ChosenWeights", "choose_weights", "evidence_of", "task_name", "training_command"]

Choice: TypeAlias = Literal["best", "last", "all"]
# clearml 2.1.12 quotes a task's name in what it uploads to, and not a file's: these would end the path, or be unquoted.
UNSAFE: Final = re.compile(r"[#?%]")
CHOICES: Final[tuple[Choice, ...]] = ("best", "last", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenWeights:
    """One file that goes into ClearML; `sha256` is what it is known by there."""

    file: WeightFile
    name: str  # of the model in ClearML
    target: str  # file name in the storage: no two of a run are the same
    sha256: str
    epoch: int | None
    reading: MetricReading | None  # of its own epoch
    why: str

    @property
    def mean_average_precision(self) -> float | None:
        return self.reading.mean_average_precision if self.reading else None


def evidence_of(results: Results) -> tuple[Evidence, ...]:
    """Return what the folder says of each epoch, status.json before the console log."""
    found = []
    if results.status is not None:
        found.append(of_status(results.status))
    if results.console:
        found.append(of_console(results.console))
    return tuple(evidence for evidence in found if evidence.by_epoch)


def choose_weights(results: Results, which: Choice) -> tuple[ChosenWeights, ...]:
    """Choose files, the same content once, and find the precision of each one's own epoch.

    `best` is the best by mAP and the final weights: the first is what `deploy` takes, the other what TAO's pruning and
    export go on from. `last` is the final weights alone, `all` is every file. Raises InputError if none is left.
    """
    evidence = evidence_of(results)
    epochs = {file.path: epoch_of(file, results, evidence) for file in results.weights}
    chosen: list[tuple[WeightFile, str]] = []
    if which == "all":
        chosen = [(file, "all of them are wanted") for file in results.weights if _has_place(file, epochs[file.path])]
    else:
        final = _final(results)
        if which == "best":
            best = _best(results, epochs, evidence, final)
            chosen += [(best, "the highest mAP of those whose epoch was evaluated")] if best else []
        chosen += [(final, "the final weights" if final.role == "final" else "the last checkpoint")]
    found: dict[str, ChosenWeights] = {}
    for file, why in chosen:
        sha256 = sha256_of(file.path)
        if sha256 not in found:
            epoch = epochs[file.path]
            found[sha256] = ChosenWeights(
                file=file, name=file.path.stem, target=_target(file, sha256, list(found.values())), sha256=sha256,
                epoch=epoch, reading=reading_at(epoch, evidence), why=why,
            )  # fmt: skip
    if not found:
        raise InputError(
            str(results.folder),
            "holds no weights whose epoch is known",
            evidence=", ".join(file.path.name for file in results.weights[:5]),
        )
    return tuple(found.values())


def epoch_of(file: WeightFile, results: Results, evidence: Sequence[Evidence]) -> int | None:
    """Return the epoch of a file: what its name tells; of the final weights the last one that TAO speaks of."""
    if file.epoch is not None or file.role == "checkpoint":
        return file.epoch
    last = [one.last_epoch for one in evidence if one.last_epoch is not None]
    if last:
        return last[0]
    records = results.status.records if results.status else ()
    named = [record.epoch for record in records if record.epoch is not None]
    return named[-1] if named else None


def reading_at(epoch: int | None, evidence: Sequence[Evidence]) -> MetricReading | None:
    """Return what the most believed source says of an epoch."""
    readings = [one.by_epoch[epoch] for one in evidence if epoch is not None and epoch in one.by_epoch]
    return next((reading for reading in readings if reading.mean_average_precision is not None), None)


def task_name(task: str, begun: datetime | None) -> str:
    """Return the name that TAO's hook would have given the task: day, year, month, and the time it began."""
    return f"{task}_{begun:%d/%y/%m_%H:%M:%S}" if begun else task


def training_command(results: Results, chosen: Sequence[ChosenWeights]) -> str:
    """Return the command line of the training, as far as the folder tells; the key is named, never shown."""
    finals = [one.name for one in chosen if one.file.role == "final"]
    parts = ["detectnet_v2", "train", "-e", str(results.spec_path), "-r", str(results.folder)]
    return f"{shlex.join(parts)} -k $KEY" + (f" -n {shlex.quote(finals[0])}" if finals else "")


def _has_place(file: WeightFile, epoch: int | None) -> bool:
    """A checkpoint that names a step and no epoch would be taken for the final weights."""
    return epoch is not None or file.role == "final"


def _final(results: Results) -> WeightFile:
    """Return the final weights, as training wrote them if that is there; without any, the last checkpoint."""
    finals = by_suffix(file for file in results.weights if file.role == "final")
    if finals:
        return finals[0]
    numbered = [file for file in results.weights if file.epoch is not None]
    if not numbered:
        raise InputError(
            str(results.folder),
            "holds only checkpoints whose epoch nothing tells",
            evidence=", ".join(file.path.name for file in results.weights[:5]),
            hint="the final weights are needed: <results>/weights/NAME.hdf5",
        )
    last = max(file.epoch or 0 for file in numbered)
    return by_suffix(file for file in numbered if file.epoch == last)[0]


def _best(
    results: Results, epochs: Mapping[Path, int | None], evidence: Sequence[Evidence], final: WeightFile
) -> WeightFile | None:
    """Return the file of the epoch with the highest mAP; of equals the final weights, then the later epoch."""
    measured = []
    for file in by_suffix(results.weights):
        reading = reading_at(epochs[file.path], evidence)
        if reading is not None and reading.mean_average_precision is not None:
            rank = (reading.mean_average_precision, file.is_original, file is final, epochs[file.path] or 0)
            measured.append((rank, file))
    return max(measured, key=lambda pair: pair[0])[1] if measured else None


def _target(file: WeightFile, sha256: str, others: Sequence[ChosenWeights]) -> str:
    name = UNSAFE.sub("_", file.path.name)
    if all(other.target != name for other in others):
        return name
    return f"{UNSAFE.sub('_', file.path.stem)}-{sha256[:8]}{file.path.suffix}"
