"""Numbers that the processes of one service count together: each writes files of its own, a reader adds them up.

A file holds what its numbers are called, then the numbers, which the process that owns it has mapped into memory.
clearml-serving loads a copy of this code for each endpoint version and makes its objects anew at every change; all of
them find the same file again, so nothing that was counted is lost. A process owns a numbered *slot*, by a lock that
the kernel takes back when it ends; the next process takes the lowest free slot and goes on counting in its files.
When no process is left, the next one begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

__all__ = ["Family", "Reading", "Series", "close_in_children", "living", "locked", "open_cells", "process_wide", "read"]

MARK: Final = b"t2s-cells-1\0\0\0\0\0"
SUFFIX: Final = ".cells"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: a counter, a gauge, or a histogram with the upper bounds of its buckets, without infinity."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        """How many numbers a series has: one; of a histogram one for each bucket, not added up, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    @property
    def form(self) -> tuple[object, ...]:
        """What has to be the same for numbers to be added up."""
        return self.kind, self.labels, self.bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One metric with the values of its labels."""

    family: Family
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The numbers of one series in one file, and whether the process that counted them still lives."""

    series: Series
    numbers: tuple[float, ...]
    alive: bool


def open_cells(folder: Path, layout: Sequence[Series]) -> memoryview[float]:
    """Return this process's numbers for these series, one after the other; they keep what was counted before.

    A file that is not whole is made anew, beside the old one: a process that has it mapped would die if it shrank.

    Raises OSError if the folder cannot be written, is another user's, or the disk is full.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(f"{folder} is not a folder of this user's own")
    head = _head(layout)
    name = hashlib.sha256(head).hexdigest()[:16]
    with locked(folder / "changes.lock"):
        path = folder / f"{_slot(folder)}-{name}{SUFFIX}"
        if not _is_whole(path, head, layout):
            staged = path.with_suffix(".new")
            # Written, not only made longer: a full disk is an error here, not a signal that kills the process later.
            staged.write_bytes(head + bytes(_length(layout)))
            staged.replace(path)
        with path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 0))[len(head) :].cast("d")


def read(folder: Path) -> Iterator[Reading]:
    """Yield the numbers of all processes; a file that is no such file is passed over."""
    alive: dict[str, bool] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        slot = path.name.partition("-")[0]
        if slot not in alive:
            alive[slot] = _is_held(folder / f"{slot}.slot")
        try:
            layout, numbers = _parsed(path.read_bytes())
        except (OSError, ValueError):
            continue
        start = 0
        for series in layout:
            end = start + series.family.cells
            yield Reading(series=series, numbers=tuple(numbers[start:end]), alive=alive[slot])
            start = end


def living(folder: Path) -> int:
    """Return how many processes count at this moment."""
    return sum(map(_is_held, folder.glob("*.slot")))


def process_wide() -> dict[str, Any]:
    """Return the dictionary that all copies of this code in a process share, those of other releases too."""
    module = sys.modules.setdefault("_tao2serve_metrics", ModuleType("_tao2serve_metrics"))
    return vars(module)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the file's lock and hold it; it is also free once its holder has ended, however it did."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    close_in_children(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        _open_files().discard(file)
        os.close(file)


def close_in_children(file: int) -> None:
    """Have a forked child close it: the ClearML SDK forks a reporter, which would hold locks and ports for us."""
    files = _open_files()
    if not process_wide().setdefault("closes_in_children", False):
        process_wide()["closes_in_children"] = True
        os.register_at_fork(after_in_child=partial(_close_all, files))
    files.add(file)


def _open_files() -> set[int]:
    files: set[int] = process_wide().setdefault("open_files", set())
    return files


def _close_all(files: set[int]) -> None:
    for file in files:
        os.close(file)
    files.clear()


def _slot(folder: Path) -> str:
    """Return the name of this process's slot, taken at the first call; the caller holds the lock on changes."""
    held: dict[tuple[str, int], tuple[str, int]] = process_wide().setdefault("slot_files", {})
    key = (str(folder), os.getpid())  # a fork is another process
    if key in held:
        slot, file = held[key]
        if _is_at(file, folder / f"{slot}.slot"):
            return slot
        del held[key]  # somebody cleaned the folder: what lies at that path is not ours
        _open_files().discard(file)
        os.close(file)
    if not living(folder):
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink()
    held[key] = slot, _ = _take_slot(folder)
    _reset_gauges(folder, slot)
    return slot


def _take_slot(folder: Path) -> tuple[str, int]:
    for number in count():
        path = folder / f"{number}.slot"
        if not path.exists() and any(folder.glob(f"{number}-*{SUFFIX}")):
            continue  # cleaned away; whoever had it may live, and count in these files
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        close_in_children(file)
        return str(number), file
    raise AssertionError("there is always a free number")


def _is_at(file: int, path: Path) -> bool:
    """Whether this open file is the one that is found at the path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _reset_gauges(folder: Path, slot: str) -> None:
    """What the slot's last owner had in hand when it ended is not in this process's hands.

    Only these numbers are written, in place: the file may be read, and mapped by whoever owns it, at any moment.
    """
    for path in folder.glob(f"{slot}-*{SUFFIX}"):
        with path.open("r+b") as file:
            content = file.read()
            try:
                layout, _ = _parsed(content)
            except ValueError:  # damaged, or of a release with another form: `read` passes it over, too
                continue
            at = len(content) - _length(layout)
            for series in layout:
                if series.family.kind == "gauge":
                    os.pwrite(file.fileno(), bytes(8), at)
                at += 8 * series.family.cells


def _head(layout: Sequence[Series]) -> bytes:
    families = list(dict.fromkeys(series.family for series in layout))
    document = {
        "families": [asdict(family) for family in families],
        "series": [(families.index(series.family), series.values) for series in layout],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 8)  # so that each number lies within one word of memory
    return MARK + len(text).to_bytes(8, "little") + text


def _length(layout: Sequence[Series]) -> int:
    """Return how many bytes the numbers of these series take."""
    return 8 * sum(series.family.cells for series in layout)


def _is_whole(path: Path, head: bytes, layout: Sequence[Series]) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return content.startswith(head) and len(content) == len(head) + _length(layout)


def _parsed(content: bytes) -> tuple[tuple[Series, ...], memoryview[float]]:
    """Return what the file's numbers are called, and the numbers; raises ValueError unless it is whole."""
    start = len(MARK) + 8
    if content[: len(MARK)] != MARK:
        raise ValueError("no file of cells")
    end = start + int.from_bytes(content[len(MARK) : start], "little")
    layout = _layout(content[start:end])
    if len(content) != end + _length(layout):
        raise ValueError("a file of cells that is not whole")
    return layout, memoryview(content)[end:].cast("d")


@lru_cache(maxsize=256)  # what a file's numbers are called never changes, and is most of the work of reading it
def _layout(text: bytes) -> tuple[Series, ...]:
    try:
        document = json.loads(text)
        families = [
            Family(**{**entry, "labels": tuple(entry["labels"]), "bounds": tuple(entry["bounds"])})
            for entry in document["families"]
        ]
        return tuple(Series(family=families[index], values=tuple(values)) for index, values in document["series"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no head of cells: {error}") from error
