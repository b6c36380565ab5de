"""Load on a real Triton, directly: what is sent, how failures are named, and perf_analyzer's word for the figures."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from perf_analyzer import PROTOCOLS, PerfAnalyzer, measure_ours, target_of, write_picture
from tries import one_of_three
from waiting_triton import WaitingTriton, waiting_triton

from tao2serve.errors import InputError, ServiceError
from tao2serve.loadtest import LoadPlan, OpenLoop, Target, run_load_test
from tao2serve.loadtest.servers import with_triton
from tao2serve.loadtest.tritons import probe_triton

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent
WAIT_MS = 25.0
NOWHERE = WaitingTriton(http="127.0.0.1:9", grpc="127.0.0.1:9", pid=0)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WaitingTriton]:
    with waiting_triton(tmp_path_factory.mktemp("triton"), wait_ms=WAIT_MS) as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_picture(tmp_path_factory.mktemp("picture"))


def loop(
    target: Target, image: Path, *, users: int, run_time_s: float, timeout_s: float = 10.0, kill: int = 0
) -> dict[str, Any]:
    """Let greenlets send in a process that gevent has patched, and return what triton_loop.py says."""
    config = {
        "target": {"url": target.url, "protocol": target.protocol, "model": target.model},
        "images": [str(image)], "users": users, "run_time_s": run_time_s, "timeout_s": timeout_s, "kill": kill,
    }  # fmt: skip
    command = [sys.executable, str(HERE / "triton_loop.py"), json.dumps(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_kind_of_input_gets_what_it_takes(triton: WaitingTriton, picture: Path, protocol: str) -> None:
    """The server itself checks it: pixels by shape and type, a JPEG by its first bytes, a tensor by its range."""
    said = {
        model: probe_triton(target_of(triton, protocol, model), (picture,), timeout_s=10)
        for model in ("waits", "waits_bytes", "waits_floats")
    }
    assert "takes pixels 1×32×48×3" in said["waits"]
    assert "takes the 1 pictures as they are" in said["waits_bytes"]
    assert "FP32 tensors in [0, 1] 1×3×32×48" in said["waits_floats"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_cannot_be_measured_is_said_first(triton: WaitingTriton, picture: Path, protocol: str) -> None:
    """No load goes to a model that is not there (the error names those that are), refuses the picture, or is away."""
    with pytest.raises(ServiceError, match="not known") as absent:
        run_load_test(LoadPlan(targets=(target_of(triton, protocol, "street_4"),), images=picture))
    assert "waits, waits_bytes, waits_floats" in absent.value.evidence
    png = picture.with_name("no.png")
    png.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="refused") as refused:
        probe_triton(target_of(triton, protocol, "waits_bytes"), (png,), timeout_s=10)
    assert "this is no JPEG" in refused.value.evidence
    png.unlink()
    away = target_of(NOWHERE, protocol)
    with pytest.raises(ServiceError, match="does not answer"):
        probe_triton(away, (picture,), timeout_s=2)


@contextlib.contextmanager
def slow_triton(wait_ms: int) -> Iterator[WaitingTriton]:
    command = [sys.executable, str(HERE / "slow_triton.py"), str(wait_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            http, grpc = (f"127.0.0.1:{port}" for port in process.stdout.readline().split())
            yield WaitingTriton(http=http, grpc=grpc, pid=process.pid)
        finally:
            process.kill()


def asked(triton: WaitingTriton) -> int:
    return int(httpx.get(f"http://{triton.http}/asked").json())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_greenlets_wait_at_the_same_time(picture: Path, protocol: str) -> None:
    """60 requests to a server that takes 500 ms take little longer than one, and hold up no other greenlet."""
    with slow_triton(500) as slow:
        seen = loop(target_of(slow, protocol), picture, users=60, run_time_s=0.1)
    assert Counter(reply["error"] for reply in seen["replies"]) == {"": 60}
    assert seen["elapsed_s"] < 1.5
    assert min(reply["latency_ms"] for reply in seen["replies"]) > 490
    assert seen["ticks"] > 20


def test_two_processes_of_locust_ask_it_over_http(picture: Path) -> None:
    """Master and workers: Triton got what was recorded, half of it from each, and answered all of it."""
    with slow_triton(50) as slow:
        shape = OpenLoop(rate_rps=100, arrivals="constant")
        target = target_of(slow, "triton-http")
        plan = LoadPlan(targets=(target,), images=picture, shape=shape, processes=2, run_time_s=1, warmup_s=0.2)
        result = run_load_test(plan)
        seen = asked(slow) - 1  # without the probe
    assert result.errors == ()
    assert len(result.records) == seen == pytest.approx(120, abs=2)
    assert Counter(record.user for record in result.records) == {0: seen - seen // 2, 1: seen // 2}
    assert result.latency_ms is not None
    assert result.latency_ms.p50 >= 50


def test_what_grpc_cannot_keep_open_is_held_back_and_said(picture: Path) -> None:
    """1,500 requests that wait 2 s: 1,000 are open, the others are sent later and counted, and the run says so."""
    with slow_triton(2000) as slow:
        shape = OpenLoop(rate_rps=1500, arrivals="constant")
        target = target_of(slow, "triton-grpc")
        plan = LoadPlan(targets=(target,), images=picture, shape=shape, run_time_s=1, warmup_s=0, timeout_s=8)
        result = run_load_test(plan)
        assert len(result.records) == asked(slow) - 1 == 1500
    assert result.client.saturated
    assert "were held back, since a process had 1000 open" in result.client.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_late_answer_is_a_timeout(triton: WaitingTriton, picture: Path, protocol: str) -> None:
    """Forty users of four instances wait 250 ms; with a limit of 150 ms some time out, and are told apart."""
    seen = loop(target_of(triton, protocol), picture, users=40, run_time_s=0.5, timeout_s=0.15)
    kinds = Counter(reply["error"] for reply in seen["replies"])
    assert set(kinds) == {"", "timeout"}
    assert all(reply["status"] == (0 if reply["error"] else 200) for reply in seen["replies"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_dies_is_named(picture: Path, tmp_path: Path, protocol: str) -> None:
    """Requests that it had are closed connections, those after are refused ones, as for an endpoint."""
    with waiting_triton(tmp_path, wait_ms=WAIT_MS) as dying:
        seen = loop(target_of(dying, protocol), picture, users=3, run_time_s=1.4, timeout_s=2.0, kill=dying.pid)
    kinds = Counter(reply["error"] for reply in seen["replies"])
    assert set(kinds) == {"", "connection closed", "connection refused"}
    assert kinds[""] > 10
    assert kinds["connection refused"] > 10


@pytest.mark.alone
@one_of_three
def test_perf_analyzer_says_the_same(triton: WaitingTriton, picture: Path, tmp_path: Path) -> None:
    """At concurrency 1, 2 and 4 p50 and throughput of NVIDIA's own tool and of ours are within 10 %, in one run."""
    analyzer = PerfAnalyzer(Path(tempfile.mkdtemp(dir=tmp_path)) / "perf_analyzer")
    ratios = {}
    for concurrency in (1, 2, 4):
        ours = measure_ours(target_of(triton, "triton-grpc"), picture, concurrency=concurrency, run_time_s=2.0)
        theirs = analyzer.measure(triton, "triton-grpc", concurrency=concurrency, window_s=0.7)
        assert theirs.p50_ms > WAIT_MS
        ratios[f"p50 at {concurrency}"] = ours.p50_ms / theirs.p50_ms
        ratios[f"throughput at {concurrency}"] = ours.throughput_rps / theirs.throughput_rps
    assert ratios == {name: pytest.approx(1.0, abs=0.1) for name in ratios}


def test_over_http_the_servers_part_is_told_too(triton: WaitingTriton, picture: Path) -> None:
    """Through the gRPC port of the very Triton: the configured one if the model is there, else nothing is told."""
    plan = LoadPlan(targets=(target_of(triton, "triton-http", "waits"),), images=picture, run_time_s=1.5, warmup_s=0.2)
    found = run_load_test(plan, triton_grpc=triton.grpc)
    assert found.server is not None
    (model,) = found.server.models
    assert model.name == "waits"
    assert model.total_ms >= WAIT_MS
    assert found.environment["triton"][0].isdigit()
    assert with_triton(plan, configured="127.0.0.1:9").triton != "127.0.0.1:9"
    strange = LoadPlan(targets=(target_of(triton, "triton-http", "another"),), images=picture)
    assert with_triton(strange, configured=triton.grpc).triton == ""
