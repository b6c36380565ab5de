"""Which hardware serves: by NVML here, by the page of a Triton elsewhere (both made up: nothing here is measured)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tao2serve.deployment.job import told_hardware
from tao2serve.loadtest.hardware import NO_GPU, serving_hardware
from tao2serve.loadtest.machine import describe_machine
from tao2serve.tuned import Tuned

PAGE = """nv_gpu_utilization{gpu_uuid="GPU-bb"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-aa"} 0.5
nv_inference_request_success{model="street_1",version="1"} 3
"""


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of something that listens here, and gives that page on the usual port of metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr("tao2serve.loadtest.servers._METRICS_PORT", server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def with_gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let NVML name these GPUs; none at all: it is not installed."""
    nvml = ModuleType("pynvml")
    vars(nvml).update(
        NVMLError=OSError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetName=lambda index: names[index],
        nvmlDeviceGetUUID=lambda index: f"GPU-{index}",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml if names else None)


def test_a_triton_here_has_this_machines_cpu_and_gpus(triton: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the models of the GPUs, so that an H100 is no T4."""
    with_gpus(monkeypatch, "NVIDIA H100 80GB HBM3")
    told = serving_hardware(triton, ["street_1"])
    assert told["gpu"] == "NVIDIA H100 80GB HBM3"
    assert told["cpu_count"] == describe_machine()["cpu_count"]


def test_without_nvml_a_gpu_is_told_by_its_number(triton: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which Triton's page has; that of another Triton, which does not know our model, is not taken."""
    with_gpus(monkeypatch)
    assert serving_hardware(triton, ["street_1"])["gpu"] == "GPU-aa, GPU-bb (by Triton's metrics; model not known)"
    assert serving_hardware(triton, ["people_7"])["gpu"] == serving_hardware(triton)["gpu"] == NO_GPU


def test_a_triton_elsewhere_has_not_this_machines_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its CPU nor its GPU; that none is seen is said."""
    with_gpus(monkeypatch, "Tesla T4")
    monkeypatch.setattr("tao2serve.loadtest.gpus._TIMEOUT_S", 0.1)
    assert serving_hardware("192.0.2.7:8001", ["street_1"]) == {"gpu": NO_GPU}
    assert serving_hardware("", ["street_1"]) == {"gpu": NO_GPU}


def test_a_deployment_is_warned_of_other_hardware(triton: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was tuned on a T4 is not used on an H100 without a word; on the same there is nothing to warn of."""
    site: Any = SimpleNamespace(host=SimpleNamespace(control=SimpleNamespace(
        address=triton, models=lambda: {"street_1": True}
    )))  # fmt: skip
    with_gpus(monkeypatch, "Tesla T4")
    tuned = Tuned(settings={}, source_sha256="a", precision="fp32", hardware=serving_hardware(triton))
    assert told_hardware(tuned, site).startswith("the same: ")
    with_gpus(monkeypatch, "NVIDIA H100")
    assert told_hardware(tuned, site) == "warning: tuned on other hardware: gpu Tesla T4, here NVIDIA H100"
    with_gpus(monkeypatch)
    assert "gpu Tesla T4, here GPU-aa, GPU-bb (by Triton's metrics; model not known)" in told_hardware(tuned, site)
