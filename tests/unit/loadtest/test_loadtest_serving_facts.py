"""What is said of the servers: what is known of them, and nothing that is this machine's alone."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType, SimpleNamespace

import pytest
from loadtest_samples import plan

from tao2serve.loadtest import LoadPlan, Target
from tao2serve.loadtest.gpus import gpu_names
from tao2serve.loadtest.serving_facts import describe_servers, triton_version


class Metadata(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"name": "triton", "version": "2.51.0"}).encode()
        self.send_response(200 if self.path == "/v2" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def here() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_here_has_this_machines_cpu(here: str) -> None:
    """One that listens on this machine; Triton says its version over HTTP too."""
    target = Target(url=here, protocol="triton-http", model="people_4")
    told = describe_servers(replace(plan(), targets=(target,)), cpu_model="EPYC")
    assert (told["triton"], told["serving_cpu"]) == ("2.51.0", "EPYC")


def test_of_a_server_elsewhere_nothing_is_claimed(here: str) -> None:
    """Neither of another machine, nor where one of two targets is on another, nor of a port nobody listens on."""
    away, near = Target(url="http://192.0.2.7:8080/serve/people"), Target(url=f"http://{here}/serve/people")
    for targets in ((away,), (near, away), (Target(url="http://127.0.0.1:1/serve/people"),)):
        assert describe_servers(LoadPlan(targets=targets, images=plan().images), cpu_model="EPYC") == {}


def test_a_triton_that_does_not_answer_has_no_version() -> None:
    """And raises nothing: the load test says in time what is wrong."""
    assert triton_version("127.0.0.1:1") == triton_version("") == ""


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By NVML (made up here), each one; without it nothing is said."""
    nvml = ModuleType("pynvml")
    vars(nvml).update(
        vars(SimpleNamespace(
            NVMLError=OSError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetName=lambda index: ("NVIDIA A10", b"NVIDIA H100")[index],
        ))
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpu_names() == "NVIDIA A10, NVIDIA H100"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_names() == ""
