"""What a load test may be asked to do, and what the two processes say to each other."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loadtest_samples import plan, record, run

import tao2serve.loadtest
from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.loadtest import ClosedLoop, LoadPlan, OpenLoop, Target, images_within, run_load_test
from tao2serve.loadtest.machine import describe_machine
from tao2serve.loadtest.records import read_records, request_row, write_records
from tao2serve.loadtest.runner import _progress_pipe


@pytest.mark.parametrize(
    "change",
    [
        {"targets": ()},
        {"processes": 0},
        {"run_time_s": 0},
        {"run_time_s": float("nan")},
        {"warmup_s": -1},
        {"timeout_s": float("inf")},
    ],
)
def test_an_impossible_plan_is_a_usage_error(change: dict[str, Any]) -> None:
    """A plan that cannot be run cannot be made."""
    with pytest.raises(UsageError):
        replace(plan(), **change)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Target(url="127.0.0.1:8080/serve/people"),
        lambda: Target(url="ftp://host/x"),
        lambda: Target(url="http://"),
        lambda: Target(url="127.0.0.1:8001", protocol="triton-grpc"),
        lambda: Target(url="http://h/x", weight=0),
        lambda: ClosedLoop(users=0),
        lambda: OpenLoop(rate_rps=0),
        lambda: OpenLoop(rate_rps=float("inf")),
    ],
)
def test_an_impossible_target_or_shape_is_a_usage_error(make: Callable[[], object]) -> None:
    """Nor can what it is made of."""
    with pytest.raises(UsageError):
        make()


def test_images_are_found_by_name(tmp_path: Path) -> None:
    """Images of a directory in order; other files, empty ones and subdirectories are left out."""
    for name in ("b.PNG", "a.jpg", "c.webp", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in images_within(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]
    assert images_within(tmp_path / "a.jpg") == (tmp_path / "a.jpg",)


@pytest.mark.parametrize("name", ["absent", "notes.txt", "."])
def test_no_images_is_an_input_error(tmp_path: Path, name: str) -> None:
    """Exit 3 before anything is started, also when the directory holds something else."""
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError):
        run_load_test(LoadPlan(targets=(Target(url="http://127.0.0.1:1/x"),), images=tmp_path / name))


def test_without_locust_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4 with the command that installs it."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "locust" else find_spec(name))
    with pytest.raises(ToolError) as caught:
        run_load_test(plan())
    assert caught.value.hint == "pip install 'tao2serve[loadtest]'"


HEADER = {
    "started_at": 1_790_000_000.0,
    "window_start_s": 100.0,
    "run_time_s": 10.0,
    "locust": "2.47.0",
    "python": "3.11.7",
    "requests": 1,
    "capped": 0,
    "open_limit": 0,
}


def test_records_survive_the_file(tmp_path: Path) -> None:
    """What one process writes the other reads, texts in any script included."""
    records = [
        record(-0.5, 12.3456, timing_ms={"total": 9.5}),
        record(1.25, 3.0, error="HTTP 422", detail='not an "image"\n größer'),
    ]
    write_records(tmp_path / "records", {**HEADER, "requests": 2}, map(request_row, records))
    assert read_records(tmp_path / "records") == run(records)


def test_fewer_rows_than_were_counted_are_a_tool_error(tmp_path: Path) -> None:
    """A row that got lost on its way is noticed."""
    write_records(tmp_path / "records", {**HEADER, "requests": 2}, [request_row(record(1, 2))])
    with pytest.raises(ToolError, match="no complete records") as caught:
        read_records(tmp_path / "records")
    assert "1 of 2 requests" in caught.value.evidence


@pytest.mark.parametrize("text", ["", "{}\n", '{"format":4}\n', "[1]\n"])
def test_incomplete_records_are_a_tool_error(tmp_path: Path, text: str) -> None:
    """A file that locust did not finish is never read as a short test."""
    (tmp_path / "records").write_text(text, encoding="utf-8")
    with pytest.raises(ToolError, match="no complete records"):
        read_records(tmp_path / "records")


def test_a_cut_off_row_is_a_tool_error(tmp_path: Path) -> None:
    """Half a row at the end means half a test."""
    write_records(tmp_path / "records", HEADER, [request_row(record(1, 2))])
    text = (tmp_path / "records").read_text(encoding="utf-8")
    (tmp_path / "records").write_text(text[:-10], encoding="utf-8")
    with pytest.raises(ToolError):
        read_records(tmp_path / "records")


def test_importing_the_package_is_cheap() -> None:
    """Neither locust, which patches the process, nor plotly, nor an HTTP client is imported."""
    program = (
        "import sys, tao2serve.loadtest; "
        "print(sorted({'locust', 'gevent', 'plotly', 'httpx', 'jinja2', 'psutil'} & set(sys.modules)))"
    )
    root = str(Path(tao2serve.loadtest.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    assert done.stdout.strip() == "[]"


def test_the_public_surface_is_there() -> None:
    """Everything in `__all__` can be had, in order."""
    names = tao2serve.loadtest.__all__
    assert all(hasattr(tao2serve.loadtest, name) for name in names)
    assert sorted(names) == sorted(set(names))


def test_the_machine_is_described(tmp_path: Path) -> None:
    """CPU model and count are named where the system tells them, and left out where not."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\n", encoding="utf-8")
    assert describe_machine(cpuinfo)["cpu_model"] == "AMD EPYC 9654"
    assert int(describe_machine(cpuinfo)["cpu_count"]) >= 1
    assert "cpu_model" not in describe_machine(tmp_path / "absent")


def test_a_pipe_that_was_closed_early_closes_nothing_else(tmp_path: Path) -> None:
    """The number of a closed end may belong to another load test of this process by the time this one ends."""
    with _progress_pipe() as (_, writer):
        number = writer.fileno()
        writer.close()
        other = os.open(tmp_path / "other", os.O_CREAT | os.O_WRONLY)
        assert other == number
    os.write(other, b"still open")
    os.close(other)
