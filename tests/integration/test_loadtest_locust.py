"""The load test against a server whose latency is known, with the real locust."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from loadtest_servers import noise_images, slow_server

import tao2serve
from tao2serve.errors import ServiceError
from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadProgress, LoadResult, Target, run_load_test

pytestmark = pytest.mark.integration

ROOT = Path(tao2serve.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_images(tmp_path_factory.mktemp("images"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    result: LoadResult
    seen: list[tuple[float, int]]  # what the server recorded, without the probe
    progress: list[LoadProgress]
    directory: Path


@pytest.fixture(scope="module")
def outcome(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run: 20 ms per answer, the first 9 requests take 400 ms, each 7th fails."""
    folder = tmp_path_factory.mktemp("run")
    progress: list[LoadProgress] = []
    with slow_server(folder, delay_ms=20, slow_first=9, slow_ms=400, fail_every=7) as server:
        plan = LoadPlan(
            targets=(Target(url=server.url),),
            images=images,
            shape=ClosedLoop(users=4),
            run_time_s=4,
            warmup_s=1.5,
            endpoint="people/4",
        )
        result = run_load_test(plan, directory=folder, on_progress=progress.append)
        seen = server.stop()[1:]
    return Outcome(result=result, seen=seen, progress=progress, directory=folder)


@pytest.mark.alone
def test_p50_agrees_with_the_server(outcome: Outcome) -> None:
    """The median is that of the server's own clock, within 10 % and 2 ms for the way there and back."""
    server_p50 = statistics.median(duration for duration, _ in outcome.seen)
    assert outcome.result.latency_ms is not None
    measured = outcome.result.latency_ms.p50
    print(f"p50: server {server_p50:.2f} ms, load test {measured:.2f} ms")
    assert server_p50 <= measured + 0.5
    assert measured <= server_p50 * 1.1 + 2


def test_every_request_is_counted_once(outcome: Outcome) -> None:
    """Warm-up and run time together are the requests the server answered, those open at the end included."""
    result = outcome.result
    assert result.requests + result.warmup.requests == len(outcome.seen)
    assert result.throughput_rps == pytest.approx(result.successes / result.plan.run_time_s, rel=0.05)


def test_failures_have_the_servers_reason(outcome: Outcome) -> None:
    """An answer other than 200 is a failure, counted under its status and the server's `detail`."""
    refused = sum(status != 200 for _, status in outcome.seen)
    result = outcome.result
    assert result.failures + result.warmup.failures == refused > 10
    assert [(error.kind, error.detail) for error in result.errors] == [("HTTP 503", "queue is full")]
    assert result.errors[0].count == result.failures


def test_the_warmup_is_outside_the_run_time(outcome: Outcome) -> None:
    """Slow first requests show in the warm-up and nowhere else; the run time is whole."""
    result = outcome.result
    assert result.warmup.latency_ms is not None
    assert result.latency_ms is not None
    assert result.warmup.latency_ms.max >= 400
    assert result.latency_ms.max < 400
    starts = [record.start_s for record in result.records]
    assert min(starts) == pytest.approx(-1.5, abs=0.3)
    assert max(starts) == pytest.approx(4, abs=0.3)
    assert max(starts) < 4


def test_server_timing_is_split_by_stage(outcome: Outcome) -> None:
    """`timing_ms` of the answers is summed up by stage, with what was outside the server."""
    means = {stage.stage: stage.mean for stage in outcome.result.stages}
    assert list(means) == ["preprocess", "infer", "postprocess", "total", "outside"]
    assert means["infer"] == 10
    assert 0 < means["outside"] < 20


def test_progress_the_client_and_the_log(outcome: Outcome) -> None:
    """Progress comes about once per second; the client's CPU is measured; locust's log is kept."""
    assert 4 <= len(outcome.progress) <= 10
    assert {told.phase for told in outcome.progress} >= {"warm-up", "run"}
    assert [told.requests for told in outcome.progress] == sorted(told.requests for told in outcome.progress)
    assert outcome.result.client.cpu_ratio is not None
    assert 0 < outcome.result.client.cpu_ratio < 1.5
    assert "Starting Locust" in (outcome.directory / "locust.log").read_text(encoding="utf-8")
    assert sorted(path.name for path in outcome.directory.iterdir()) == ["locust.log", "seen"]


def test_no_answer_in_time_is_a_timeout(images: Path, tmp_path: Path) -> None:
    """A request without an answer is a failure of kind timeout and costs no other request its number."""
    with slow_server(tmp_path, delay_ms=20, hang_every=20) as server:
        plan = LoadPlan(
            targets=(Target(url=server.url),),
            images=images,
            shape=ClosedLoop(users=2),
            run_time_s=1.5,
            warmup_s=0,
            timeout_s=0.5,
        )
        result = run_load_test(plan)
    assert [error.kind for error in result.errors] == ["timeout"]
    assert result.latency_ms is not None
    assert result.latency_ms.max < 500


def test_a_server_that_goes_away(images: Path, tmp_path: Path) -> None:
    """A server that ends during the run is reported by what the sockets said, and the test ends in time."""
    with slow_server(tmp_path, delay_ms=20) as server:

        def stop(told: LoadProgress) -> None:
            if told.requests:
                server.process.kill()

        plan = LoadPlan(
            targets=(Target(url=server.url),), images=images, shape=ClosedLoop(users=2), run_time_s=2, warmup_s=0
        )
        result = run_load_test(plan, on_progress=stop)
    assert "connection refused" in {error.kind for error in result.errors}
    assert result.failures == sum(error.count for error in result.errors)


def test_an_endpoint_that_does_not_answer_is_no_load_test(images: Path, tmp_path: Path) -> None:
    """Before any load: ServiceError, with what the probe request met."""
    with slow_server(tmp_path, delay_ms=1) as server:
        server.stop()
        with pytest.raises(ServiceError, match="does not answer") as caught:
            run_load_test(LoadPlan(targets=(Target(url=server.url),), images=images))
    assert "ConnectError" in caught.value.evidence


def test_an_endpoint_that_refuses_is_no_load_test(images: Path, tmp_path: Path) -> None:
    """Before any load: ServiceError with the status and what the server said about it."""
    with slow_server(tmp_path, delay_ms=1, fail_from=0) as server:
        with pytest.raises(ServiceError, match="answered 503") as caught:
            run_load_test(LoadPlan(targets=(Target(url=server.url),), images=images))
        assert len(server.stop()) == 3
    assert "queue is full" in caught.value.evidence


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(images: Path, tmp_path: Path, kind: signal.Signals) -> None:
    """Ctrl-C ends locust at once; so does it end itself when we were killed and could not."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tao2serve.loadtest import ClosedLoop, LoadPlan, Target, run_load_test\n"
        "plan = LoadPlan(targets=(Target(url=sys.argv[1]),), images=Path(sys.argv[2]),\n"
        "    shape=ClosedLoop(users=2), run_time_s=60)\n"
        "run_load_test(plan, on_progress=lambda told: print(told.phase, flush=True))\n"
    )
    with slow_server(tmp_path, delay_ms=20) as server:
        command = [sys.executable, "-c", program, server.url, str(images)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as runner:
            assert runner.stdout is not None
            while runner.stdout.readline().strip() != "warm-up":
                assert runner.poll() is None
            [locust] = psutil.Process(runner.pid).children(recursive=True)
            runner.send_signal(kind)
            _, stderr = runner.communicate(timeout=10)
        assert gone(locust, within_s=3)
    assert ("KeyboardInterrupt" in stderr) == (kind == signal.SIGINT)
    left = list(tmp_path.glob("tao2serve-loadtest-*"))
    assert bool(left) == (kind != signal.SIGINT)  # nobody is there any more to remove it


def gone(process: psutil.Process, *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False
