"""What an endpoint version counts, and how processes share it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tao2serve.runtime import cells, exporter, metrics
from tao2serve.runtime.answer import ServedModel
from tao2serve.runtime.cells import Family, Series, open_cells
from tao2serve.runtime.exporter import Target, merged
from tao2serve.runtime.metrics import CLASS_LIMIT, OTHER_CLASSES, Meter, measured_by

MODEL = ServedModel(endpoint="street", version="3", id="abc")
VERSION = ("street", "3")


@dataclass
class Answered:
    """A reply as the endpoint gives it."""

    status_code: int = 200
    document: dict[str, Any] = field(default_factory=dict)


def one_image(*found: tuple[str, float], total_ms: float = 30.0) -> dict[str, Any]:
    return {
        "timing_ms": {"preprocess": 4.0, "infer": 20.0, "postprocess": 0.4, "total": total_ms},
        "predictions": [{"label": label, "score": score} for label, score in found],
    }


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What copies of the code share in a process is this test's own, and no thread shows the numbers."""
    monkeypatch.delitem(sys.modules, "_tao2serve_metrics", raising=False)
    monkeypatch.setattr(metrics, "export", lambda chosen: None)
    for name in (exporter.PORT, exporter.ADDRESS, exporter.TEXTFILE, exporter.FOLDER):
        monkeypatch.delenv(name, raising=False)


def ask(meter: Meter, *replies: Answered | BaseException) -> None:
    async def work(reply: Answered | BaseException) -> Answered:
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def run() -> None:
        await asyncio.gather(*(meter.measured(work(reply)) for reply in replies), return_exceptions=True)

    asyncio.run(run())


def meter(folder: Path, *, model: ServedModel = MODEL, classes: tuple[str, ...] = ("car", "person")) -> Meter:
    return Meter(model, classes, Target(folder=folder, address="127.0.0.1", port=1, textfile=None))


def counted(folder: Path, family: Family, *last: str, version: tuple[str, str] = VERSION) -> list[float]:
    return merged(folder)[family][(*version, *last)]


def test_requests_are_counted_by_status_and_failures_by_kind(tmp_path: Path) -> None:
    """Each way a request can end is one count under its status, and one under its kind unless it succeeded."""
    replies: list[Answered | BaseException] = [
        Answered(document=one_image()), Answered(422), Answered(503), Answered(504), Answered(504),
        RuntimeError("a defect"), asyncio.CancelledError(), Answered(418),
    ]  # fmt: skip
    ask(meter(tmp_path), *replies)
    requests, failures = merged(tmp_path)[metrics.REQUESTS], merged(tmp_path)[metrics.FAILURES]
    assert {values[-1]: number for values, (number,) in requests.items()} == {
        "200": 1, "422": 1, "499": 1, "500": 2, "503": 1, "504": 2,
    }  # fmt: skip
    assert {values[-1]: number for values, (number,) in failures.items()} == {
        "image": 1, "cancelled": 1, "defect": 2, "unavailable": 1, "timeout": 2,
    }  # fmt: skip
    *buckets, seconds = counted(tmp_path, metrics.DURATION)
    assert sum(buckets) == len(replies)
    assert 0 < seconds < 5
    assert counted(tmp_path, metrics.IN_FLIGHT) == [0]


def test_images_stages_and_detections_fall_into_their_buckets(tmp_path: Path) -> None:
    """A request of two images: one request, two images, four stages of each, scores by class; a bound is included."""
    document = {"results": [one_image(("car", 0.9), ("car", 0.95), ("person", 0.05)), one_image(total_ms=60.0)]}
    ask(meter(tmp_path), Answered(document=document))
    bounds = metrics.SCORE.bounds
    *cars, total = counted(tmp_path, metrics.SCORE, "car")
    assert [bounds[at] for at, number in enumerate(cars) if number] == [0.9, 1.0]
    assert total == pytest.approx(1.85)
    assert sum(counted(tmp_path, metrics.SCORE, "person")[:-1]) == 1
    assert counted(tmp_path, metrics.IMAGES)[1] == 1  # at most 2 images, more than 1
    *images, detections = counted(tmp_path, metrics.DETECTIONS)
    assert (images[0], images[3], sum(images), detections) == (1, 1, 2, 3)  # none; at most 5
    for stage, seconds in (("preprocess", 0.008), ("infer", 0.04), ("postprocess", 0.0008), ("total", 0.09)):
        *buckets, spent = counted(tmp_path, metrics.STAGE, stage)
        assert sum(buckets) == 2
        assert spent == pytest.approx(seconds)


def test_a_request_is_in_flight_until_it_ends(tmp_path: Path) -> None:
    """While the work runs the gauge is one."""
    seen: list[float] = []

    async def work() -> Answered:
        seen.extend(counted(tmp_path, metrics.IN_FLIGHT))
        return Answered(422)

    asyncio.run(meter(tmp_path).measured(work()))
    assert seen == [1]
    assert counted(tmp_path, metrics.IN_FLIGHT) == [0]


def test_what_was_counted_survives_being_made_anew(tmp_path: Path) -> None:
    """clearml-serving drops every object at each change: the next one of the same version goes on counting."""
    first = meter(tmp_path)
    ask(first, Answered(422))
    del first
    second, third = meter(tmp_path), meter(tmp_path)  # the old one may still answer while the new one is there
    ask(second, Answered(422))
    ask(third, Answered(422))
    assert counted(tmp_path, metrics.REQUESTS, "422") == [3]


def test_versions_are_counted_apart(tmp_path: Path) -> None:
    """Two versions in one process, with other classes, share the folder and no series."""
    other = ServedModel(endpoint="street", version="4", id="def")
    ask(meter(tmp_path), Answered(document=one_image(("car", 0.5))))
    ask(meter(tmp_path, model=other, classes=("bus",)), Answered(document=one_image(("bus", 0.5))))
    assert set(merged(tmp_path)[metrics.SCORE]) == {
        ("street", "3", "car"), ("street", "3", "person"), ("street", "4", "bus"),
    }  # fmt: skip
    assert counted(tmp_path, metrics.REQUESTS, "200") == [1]


def test_there_are_as_many_series_as_classes_up_to_a_limit(tmp_path: Path) -> None:
    """The classes beyond the limit are counted together, so a spec cannot make series without end."""
    names = tuple(f"class{number}" for number in range(CLASS_LIMIT + 20))
    ask(meter(tmp_path, classes=names), Answered(document=one_image((names[0], 0.5), (names[-1], 0.5))))
    assert len(merged(tmp_path)[metrics.SCORE]) == CLASS_LIMIT + 1
    assert sum(counted(tmp_path, metrics.SCORE, OTHER_CLASSES)[:-1]) == 1


def test_a_folder_that_was_cleaned_is_filled_again(tmp_path: Path) -> None:
    """Whoever cleans the temporary folder takes the counts away, until the objects are made anew."""
    folder = tmp_path / "cells"
    ask(meter(folder), Answered(422))
    shutil.rmtree(folder)
    assert merged(folder) == {}
    ask(meter(folder), Answered(422))
    assert counted(folder, metrics.REQUESTS, "422") == [1]
    assert cells.living(folder) == 1


def test_one_name_is_shown_in_one_form(tmp_path: Path) -> None:
    """Of two releases in one process: other words are the same metric, other labels or bounds are left out."""
    first = Family(name="x", help="first", kind="histogram", labels=("class",), bounds=(1.0,))
    reworded = replace(first, help="second")
    for family in (first, reworded, replace(first, bounds=(2.0,)), replace(first, labels=("kind",))):
        open_cells(tmp_path, [Series(family=family, values=("car",))])[0] += 1
    ((family, series),) = merged(tmp_path).items()
    same = {first.form: 2, replace(first, bounds=(2.0,)).form: 1, replace(first, labels=("kind",)).form: 1}
    assert series == {("car",): [same[family.form], 0, 0]}


def test_a_full_disk_is_no_fault_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Space for the numbers is taken when they are opened: later there is no write that could fail."""

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setenv(exporter.PORT, "9999")
    monkeypatch.setenv(exporter.FOLDER, str(tmp_path))
    assert reply_of(measured_by(MODEL, ["car"])) == 422
    assert "No space left" in said()[0]


def test_damaged_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    """Whatever lies in the folder, the rest is read."""
    ask(meter(tmp_path), Answered(422))
    (good,) = tmp_path.glob("*.cells")
    content = good.read_bytes()
    later = json.loads(content[24 : content.index(b"]]}") + 3])
    later["families"][0]["unit"] = "s"
    text = json.dumps(later).encode()
    for number, damaged in enumerate(
        (
            b"", content[:-8], content[:-3], content[:60], content + bytes(8),
            cells.MARK + (3).to_bytes(8, "little") + b"[1]",
            cells.MARK + (33).to_bytes(8, "little") + b'{"families":[],"series":[[0,[]]]}',
            cells.MARK + len(text).to_bytes(8, "little") + text,
        ),
        start=1,
    ):  # fmt: skip
        (tmp_path / good.name.replace("0-", f"{number}-")).write_bytes(damaged)
    assert counted(tmp_path, metrics.REQUESTS, "422") == [1]


@pytest.mark.parametrize("kept", [0, 60, -8, -3])
def test_a_file_that_is_not_whole_is_made_anew(kept: int, tmp_path: Path) -> None:
    """What a full disk or a crash left of a file keeps nobody from counting, and whoever has it mapped lives on."""
    first = meter(tmp_path)
    (path,) = tmp_path.glob("*.cells")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:kept])
    ask(meter(tmp_path), Answered(422))
    ask(first, Answered(422))
    assert counted(tmp_path, metrics.REQUESTS, "422") == [1]
    assert path.read_bytes()[: len(content) // 2] == content[: len(content) // 2]


def test_a_slot_is_taken_over_without_shrinking_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files that others may read or have mapped only the gauges are written, and files of later releases stay."""
    own = meter(tmp_path)
    numbers, at = own._cells, own._at[metrics.IN_FLIGHT.name, "3"]
    (path,) = tmp_path.glob("*.cells")
    numbers[at], numbers[0] = 3.0, 5.0
    (tmp_path / "0-later.cells").write_bytes(b"t2s-cells-2 of a later release")

    def shrinks(path: Path, content: bytes) -> int:
        raise AssertionError(f"{path} was written anew")

    monkeypatch.setattr(Path, "write_bytes", shrinks)
    inode = path.stat().st_ino
    cells._reset_gauges(tmp_path, "0")
    assert (numbers[at], numbers[0], path.stat().st_ino) == (0.0, 5.0, inode)


def test_a_slot_whose_lock_was_cleaned_away_is_not_taken_over(tmp_path: Path) -> None:
    """Its owner may live and count in its files: the next one counts in files of its own, and both are added up."""
    with (tmp_path / "7.slot").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        first = meter(tmp_path)
        ask(first, Answered(422))
        (tmp_path / "0.slot").unlink()
        ask(meter(tmp_path), Answered(422))
        ask(first, Answered(422))
        assert {path.name.partition("-")[0] for path in tmp_path.glob("*.cells")} == {"0", "1"}
        assert counted(tmp_path, metrics.REQUESTS, "422") == [3]
        assert len(cells._open_files()) == 1  # the lock that is gone was let go


def test_a_request_never_fails_for_its_counts(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    """A reply that is not as expected, or numbers that are not there: the reply is given, and it is said once."""
    odd = meter(tmp_path)
    for reply in (Answered(document={"predictions": []}), Answered(document=one_image(("nobody's class", 0.5)))):
        assert reply_of(odd.measured, reply) == 200
    assert counted(tmp_path, metrics.REQUESTS, "200") == [2]
    odd._cells = odd._cells[:0]
    assert reply_of(odd.measured) == 422
    assert all(sentence.startswith("not all is counted: ") for sentence in said())


def test_whatever_is_wrong_the_endpoint_is_made(monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]) -> None:
    """A defect of ours in opening the numbers is a sentence in the log, too."""

    def broken(folder: Path, layout: Any) -> Any:
        raise TypeError("a defect")

    monkeypatch.setattr(metrics, "open_cells", broken)
    monkeypatch.setenv(exporter.PORT, "9999")
    assert reply_of(measured_by(MODEL, ["car"])) == 422
    assert said() == ["no metrics: a defect"]


def test_a_file_that_cannot_be_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Whatever goes wrong in adding up, the thread that writes the file goes on."""

    def broken(folder: Path) -> Any:
        raise ValueError("a defect")

    registry = CollectorRegistry()
    registry.register(exporter._Sum(tmp_path))
    monkeypatch.setattr(exporter, "merged", broken)
    exporter._write(tmp_path / "x.prom", registry)
    assert "a defect; trying again" in said()[0]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What was logged so far."""
    with caplog.at_level(logging.WARNING, logger="tao2serve.metrics"):
        yield lambda: caplog.messages


def reply_of(measured: Any, answered: Answered | None = None) -> int:
    async def work() -> Answered:
        return answered or Answered(422)

    reply: Answered = asyncio.run(_awaited(measured(work())))
    return reply.status_code


async def _awaited(work: Any) -> Any:
    return await work


def test_nothing_is_counted_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Without a port and a file no folder is made, and nothing is said."""
    monkeypatch.setenv(exporter.FOLDER, str(tmp_path / "cells"))
    assert reply_of(measured_by(MODEL, ["car"])) == 422
    assert not (tmp_path / "cells").exists()
    assert not said()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (exporter.PORT, "9x", "no port"), (exporter.PORT, "0", "no port"), (exporter.PORT, "70000", "no port"),
        (exporter.TEXTFILE, "/tmp/metrics.txt", "end in .prom"), (exporter.FOLDER, "/dev/null/x", "Not a directory"),
        (exporter.FOLDER, "/dev/null", "File exists"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_said_once(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """The endpoint serves without metrics and says why in one sentence, however often it is made anew."""
    monkeypatch.setenv(exporter.PORT, "9999")
    monkeypatch.setenv(name, value)
    for _ in range(3):
        assert reply_of(measured_by(MODEL, ["car"])) == 422
    (sentence,) = said()
    assert words in sentence


def test_a_server_without_prometheus_client_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """The stock image of clearml-serving has no prometheus_client: no metrics, one sentence."""
    monkeypatch.setattr(metrics, "export", exporter.export)
    monkeypatch.setattr(exporter, "find_spec", lambda name: None)
    monkeypatch.setenv(exporter.PORT, "9999")
    monkeypatch.setenv(exporter.FOLDER, str(tmp_path))
    for _ in range(2):
        assert reply_of(measured_by(MODEL, ["car"])) == 422
    assert said() == ["no metrics: the package prometheus_client is not installed in this service"]


def test_a_folder_of_another_user_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default lies in the temporary folder, where anybody may have made one by that name, or a link."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="own"):
        open_cells(tmp_path / "link", ())
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OSError, match="own"):
        open_cells(tmp_path, ())


def test_a_series_starts_at_a_whole_word(tmp_path: Path) -> None:
    """Names of any length and script: the numbers still lie at multiples of eight bytes, and read back."""
    for name in ("a", "ab", "größe", 'quote"\n'):
        family = Family(name="x", help=name, kind="counter", labels=("class",))
        numbers = open_cells(tmp_path, [Series(family=family, values=(name,))])
        numbers[0] += 2
        (series,) = merged(tmp_path).values()
        assert series[name,] == [2]
