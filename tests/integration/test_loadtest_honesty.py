"""What a load test must not hide: a stall, a starved generator, a lost one, requests that got lost on their way."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from loadtest_servers import noise_images, slow_server

from tao2serve.errors import ToolError
from tao2serve.loadtest import (
    ClosedLoop,
    LoadPlan,
    LoadProgress,
    LoadResult,
    OpenLoop,
    Target,
    Workers,
    parse_gate,
    passed,
    run_load_test,
    run_worker,
)
from tao2serve.loadtest.gates import evaluate
from tao2serve.sandbox.health import free_ports

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_images(tmp_path_factory.mktemp("images"))


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides(images: Path, tmp_path: Path) -> None:
    """One stall of 2 s in 20 s at 40 requests/s: the open loop's p99 is 1.5 to 2.3 s, the closed loop's is not."""
    open_folder, closed_folder = tmp_path / "open", tmp_path / "closed"
    open_folder.mkdir()
    closed_folder.mkdir()
    with (
        slow_server(open_folder, delay_ms=20, stall_at=300, stall_ms=2000) as first,
        slow_server(closed_folder, delay_ms=20, stall_at=300, stall_ms=2000) as second,
        ThreadPoolExecutor(2) as pool,
    ):
        opened, closed = (
            pool.submit(
                run_load_test,
                LoadPlan(targets=(Target(url=url),), images=images, shape=shape, run_time_s=20, warmup_s=1),
            )
            for url, shape in ((first.url, OpenLoop(rate_rps=40)), (second.url, ClosedLoop(users=1)))
        )
        shown, hidden = opened.result(), closed.result()
    assert shown.latency_ms is not None
    assert shown.service_ms is not None
    assert hidden.latency_ms is not None
    print(f"open loop: {shown.latency_ms}, {shown.requests} requests; closed loop: {hidden.latency_ms}")
    assert 1500 <= shown.latency_ms.p99 <= 2300
    assert shown.latency_ms.p50 < 40
    assert shown.requests == pytest.approx(800, rel=0.15)
    assert shown.failures == hidden.failures == 0
    assert hidden.latency_ms.max >= 1900, "the stall was there"
    assert hidden.latency_ms.p99 < 200


def not_accused(plan: LoadPlan) -> LoadResult:
    """Run until the generator is not said to be the limit, three times at most: others may use the machine."""
    reasons = []
    for _ in range(3):
        result = run_load_test(plan)
        if not result.client.saturated:
            return result
        reasons.append(result.client.reason)
    pytest.fail(f"accused each time: {reasons}")


@contextlib.contextmanager
def one_core_busy(core: int, loops: int) -> Iterator[None]:
    """Loops that never wait on that core, to which what this process starts is bound too."""
    allowed = os.sched_getaffinity(0)
    with contextlib.ExitStack() as busy:
        for _ in range(loops):
            loop = busy.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            busy.callback(loop.kill)
            os.sched_setaffinity(loop.pid, {core})
        os.sched_setaffinity(0, {core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, allowed)


@pytest.mark.alone
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the server needs a core of its own")
def test_a_starved_client_is_caught(images: Path, tmp_path: Path) -> None:
    """With a sixth of a core, which others use, the generator cannot keep a rate that takes more: it says so.

    It passes no gate then. The control is the same without the others, at a lower rate: it is not accused.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    with slow_server(tmp_path, delay_ms=20) as server:
        os.sched_setaffinity(server.process.pid, others)
        plan = LoadPlan(
            targets=(Target(url=server.url),),
            images=images / "a.jpg",
            shape=OpenLoop(rate_rps=4000),
            run_time_s=3,
            warmup_s=0.5,
        )
        with one_core_busy(first, loops=5):
            result = run_load_test(plan)
        control = not_accused(replace(plan, shape=OpenLoop(rate_rps=200)))
    print(result.client, control.client)
    assert result.client.saturated
    assert result.client.start_lag_p99_ms is not None
    assert result.client.start_lag_p99_ms > 20
    assert control.client.start_lag_p99_ms is not None
    assert result.client.start_lag_p99_ms > 3 * control.client.start_lag_p99_ms
    verdicts = evaluate(result, [parse_gate("max=1000s")])
    assert not any(verdict.passed for verdict in verdicts)
    assert not passed(result, verdicts)


@pytest.mark.alone
def test_a_client_with_time_to_spare_is_not_accused(images: Path, tmp_path: Path) -> None:
    """Most of 400 requests start within a few milliseconds, evenly spaced, and their latency is the server's."""
    with slow_server(tmp_path, delay_ms=20) as server:
        shape = OpenLoop(rate_rps=200, arrivals="constant")
        plan = LoadPlan(targets=(Target(url=server.url),), images=images, shape=shape, run_time_s=2, warmup_s=0.5)
        result = not_accused(plan)
    assert result.client.reason == ""
    assert result.requests == pytest.approx(400, abs=1)
    intended = [record.intended_s for record in result.records]
    gaps_ms = {round((after - before) * 1000, 1) for before, after in itertools.pairwise(intended)}
    assert gaps_ms == {5.0}
    assert result.latency_ms is not None
    lags_ms = sorted((record.start_s - record.intended_s) * 1000 for record in result.records)
    assert lags_ms[0] >= 0
    assert lags_ms[len(lags_ms) // 2] < 10
    assert 20 <= result.latency_ms.p50 < 40


def test_processes_share_a_rate_and_targets_by_weight(images: Path, tmp_path: Path) -> None:
    """Two processes make one rate, cover both targets 3 to 1, and every request the servers saw has its record."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with slow_server(tmp_path / "one", delay_ms=20) as one, slow_server(tmp_path / "two", delay_ms=20) as two:
        plan = LoadPlan(
            targets=(Target(url=one.url, weight=3), Target(url=two.url)),
            images=images,
            shape=OpenLoop(rate_rps=200),
            order="sample",
            processes=2,
            run_time_s=2,
            warmup_s=0.5,
        )
        result = run_load_test(plan)
        seen = [len(server.stop()) - 1 for server in (one, two)]  # without the probe
    targets = Counter(record.target for record in result.records)
    assert [targets[0], targets[1]] == seen
    assert 2 < targets[0] / targets[1] < 4.5
    assert result.requests == pytest.approx(400, rel=0.2)
    assert len({record.user for record in result.records}) == 2
    assert set(Counter(record.image for record in result.records)) == {0, 1}
    assert result.environment["load_generators"] == "2"
    assert result.client.cpu_ratio is not None


def test_workers_join_from_elsewhere(images: Path, tmp_path: Path) -> None:
    """Workers get plan and images over the wire; users are spread over them, and all of their records arrive."""
    (port,) = free_ports(1)
    with slow_server(tmp_path, delay_ms=20) as server:
        plan = LoadPlan(
            targets=(Target(url=server.url),), images=images, shape=ClosedLoop(users=4), run_time_s=2, warmup_s=0.5
        )
        joining = threading.Thread(target=run_worker, args=(f"127.0.0.1:{port}",), kwargs={"processes": 2})
        joining.start()
        result = run_load_test(plan, workers=Workers(count=2, port=port))
        joining.join(timeout=20)
        seen = len(server.stop()) - 1
    assert not joining.is_alive()
    assert len(result.records) == seen > 200
    assert {record.user for record in result.records} == {0, 1, 2, 3}


def test_a_worker_too_many_is_turned_away(images: Path, tmp_path: Path) -> None:
    """Three join a test for two: it goes on with two, each sends its part, and the third has a log that says why."""
    (port,) = free_ports(1)
    errors: list[ToolError] = []

    def join() -> None:
        try:
            run_worker(f"127.0.0.1:{port}", processes=3)
        except ToolError as error:
            errors.append(error)

    with slow_server(tmp_path, delay_ms=20) as server:
        plan = LoadPlan(
            targets=(Target(url=server.url),), images=images, shape=OpenLoop(rate_rps=40), run_time_s=2, warmup_s=0.5
        )
        joining = threading.Thread(target=join)
        joining.start()
        result = run_load_test(plan, workers=Workers(count=2, port=port, wait_s=20))
        joining.join(timeout=20)
        seen = len(server.stop()) - 1
    assert not joining.is_alive()
    assert {record.user for record in result.records} == {0, 1}
    assert len(result.records) == seen
    assert result.requests == pytest.approx(80, rel=0.4)
    (error,) = errors
    assert error.fact == "was refused by the master"
    assert error.log is not None
    assert "the test has its 2 workers" in error.log.read_text(encoding="utf-8")
    shutil.rmtree(error.log.parent)


def test_a_worker_that_is_killed_is_noticed(images: Path, tmp_path: Path) -> None:
    """The load was not what the plan says: ToolError at once, and no process is left."""
    killed_s: list[float] = []

    def kill_one(told: LoadProgress) -> None:
        if told.phase == "run" and not killed_s:
            workers = [child for child in psutil.Process().children() if "--worker" in child.cmdline()]
            workers[0].kill()
            killed_s.append(time.monotonic())

    with slow_server(tmp_path, delay_ms=20) as server:
        plan = LoadPlan(
            targets=(Target(url=server.url),),
            images=images,
            shape=ClosedLoop(users=2),
            processes=2,
            run_time_s=60,
            warmup_s=0,
        )
        with pytest.raises(ToolError, match="ended early with exit code -9"):
            run_load_test(plan, directory=tmp_path, on_progress=kill_one)
    assert time.monotonic() - killed_s[0] < 10
    assert not [child for child in psutil.Process().children() if "locust" in " ".join(child.cmdline())]


def test_a_worker_of_another_machine_that_is_lost_is_noticed(images: Path, tmp_path: Path) -> None:
    """The master misses its heartbeat, says which worker it was, and ends the test."""
    (port,) = free_ports(1)
    program = "import sys; from tao2serve.loadtest import run_worker; run_worker(sys.argv[1])"
    command = [sys.executable, "-c", program, f"127.0.0.1:{port}"]
    with slow_server(tmp_path, delay_ms=20) as server, subprocess.Popen(command) as joining:

        def kill_it(told: LoadProgress) -> None:
            if told.phase == "run":
                joining.kill()  # its locust process then ends itself

        plan = LoadPlan(
            targets=(Target(url=server.url),), images=images, shape=OpenLoop(rate_rps=20), run_time_s=60, warmup_s=0
        )
        with pytest.raises(ToolError, match=r"worker 0 \(.*\) was lost"):
            run_load_test(plan, directory=tmp_path, on_progress=kill_it, workers=Workers(count=1, port=port))
