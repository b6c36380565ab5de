"""GPU figures from pages of metrics that are made up here: no GPU is needed, so none of these is a measurement."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from loadtest_samples import plan

from tao2serve.errors import ServiceError
from tao2serve.loadtest.gpus import GpuReading, TritonMetrics, gpus_on_page, nvml_reader, used_gpus
from tao2serve.loadtest.servers import gpu_reader

# As Triton 2.51 writes it where there is a GPU (its docs/user_guide/metrics.md).
PAGE = """# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-aa"} %s
nv_gpu_memory_total_bytes{gpu_uuid="GPU-aa"} 85520809984.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-aa"} 2000000000.000000
nv_gpu_power_usage{gpu_uuid="GPU-aa"} 150.5
nv_gpu_utilization{gpu_uuid="GPU-bb"} nan
nv_gpu_power_usage{gpu_uuid="GPU-bb"} 60
nv_inference_request_success{model="people_4",version="1"} 3
"""
CPU_PAGE = 'nv_inference_request_success{model="people_4",version="1"} 3\nnv_cpu_utilization 0.5\n'


@pytest.fixture
def page() -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server with a fake page: its URL, and the pages it gives, the last one for ever."""
    pages: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (pages.pop(0) if len(pages) > 1 else pages[0]).encode()
            self.send_response(200 if body else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics", pages
        finally:
            server.shutdown()
            thread.join()


def test_mean_and_maximum_over_the_readings(page: tuple[str, list[str]]) -> None:
    """Each GPU apart; what it does not tell is None and no zero."""
    url, pages = page
    pages[:] = [PAGE % "0.2", PAGE % "0.4", PAGE % "0.9"]
    metrics = TritonMetrics(url)
    first, second = used_gpus([metrics.read() for _ in range(3)], source="Triton's metrics")
    assert (first.gpu, first.source) == ("GPU-aa", "Triton's metrics")
    assert (first.utilisation_ratio_mean, first.utilisation_ratio_max) == (pytest.approx(0.5), 0.9)
    assert (first.memory_used_bytes_mean, first.memory_used_bytes_max) == (2e9, 2e9)
    assert (first.power_w_mean, first.power_w_max) == (150.5, 150.5)
    assert (second.gpu, second.utilisation_ratio_mean, second.utilisation_ratio_max) == ("GPU-bb", None, None)
    assert (second.power_w_mean, second.memory_used_bytes_max) == (60, None)


def test_without_a_gpu_nothing_is_claimed() -> None:
    """The page of a Triton on the CPU names none."""
    assert gpus_on_page(CPU_PAGE) == {}
    assert used_gpus([{}, {}], source="Triton's metrics") == ()


def test_the_page_is_chosen(page: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A named page that names a GPU is read; on the usual port only one that knows our model is Triton's own."""
    url, pages = page
    pages[:] = [PAGE % "0.2"]
    assert gpu_reader(replace(plan(), triton_metrics=url))[1] == "Triton's metrics"
    monkeypatch.setattr("tao2serve.loadtest.servers._METRICS_PORT", int(url.split(":")[2].split("/")[0]))
    assert gpu_reader(replace(plan(), triton="127.0.0.1:1", triton_model="people_4"))[1] == "Triton's metrics"
    monkeypatch.setattr("tao2serve.loadtest.servers.nvml_reader", lambda: None)
    assert gpu_reader(replace(plan(), triton="127.0.0.1:1", triton_model="street_1")) == (None, "", [])
    assert gpu_reader(replace(plan(), triton="127.0.0.1:1", triton_model="peop")) == (None, "", [])
    pages[:] = [CPU_PAGE]
    assert gpu_reader(replace(plan(), triton_metrics=url)) == (None, "", [])


def test_a_page_that_cannot_be_had(page: tuple[str, list[str]]) -> None:
    """Said in words, with what was met, if the page was named."""
    url, pages = page
    pages[:] = [""]
    with pytest.raises(ServiceError, match="gives no metrics"):
        TritonMetrics(url).read()
    read, _, notes = gpu_reader(replace(plan(), triton_metrics=url))
    assert read is None
    assert len(notes) == 1
    assert "503" in notes[0]


class NvmlError(Exception):
    pass


def fake_nvml(*, count: int) -> ModuleType:
    """A stand-in for pynvml with one GPU that does not tell its utilisation, as a MIG instance."""

    def refused(handle: int) -> Any:
        raise NvmlError

    members: dict[str, Any] = {
        "NVMLError": NvmlError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: count,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: b"GPU-cc",
        "nvmlDeviceGetUtilizationRates": refused,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=1024),
        "nvmlDeviceGetPowerUsage": lambda handle: 70_500,
    }
    module = ModuleType("pynvml")
    vars(module).update(members)
    return module


def test_nvml_in_our_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watts and bytes; what NVML refuses is None. Without a GPU, or without pynvml, there is no reader."""
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(count=1))
    read = nvml_reader()
    assert read is not None
    assert read() == {"GPU-cc": GpuReading(memory_used_bytes=1024, power_w=70.5)}
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(count=0))
    assert nvml_reader() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml_reader() is None
