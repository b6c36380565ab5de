"""The real clearml-serving against the sandbox server: its command line and its inference service."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration

Cli = Callable[..., str]
_ID = re.compile(r"\bid=([0-9a-f]{32})")
_BOOT_S = 90.0
_SYNC_S = 30.0
_TRITON_ENDPOINT = (
    *("model", "add", "--engine", "triton", "--endpoint", "people", "--version", "1"),
    *("--input-name", "in", "--input-type", "float32", "--input-size", "3", "4", "4"),
    *("--output-name", "out", "--output-type", "float32", "--output-size", "1"),
)
_AUTO_UPDATE = (
    *("model", "auto-update", "--engine", "custom", "--endpoint", "auto"),
    *("--name", "weights", "--max-versions", "2"),
)
_PREPROCESS = """
class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"sum": sum(data["x"])}
"""


@pytest.fixture
def service(serving_cli: Cli, request: pytest.FixtureRequest) -> str:
    """The id of a fresh serving service."""
    printed = serving_cli("create", "--name", request.node.name, "--project", "Contract serving")
    found = _ID.search(printed)
    assert found, printed
    return found[1]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with preprocess code."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "preprocess.py").write_text(_PREPROCESS)
    (folder / "__init__.py").write_text("from .preprocess import Preprocess\n")
    return folder


def _configuration(server: Any, service: str) -> Mapping[str, str]:
    task = server.call("tasks.get_by_id", task=service)["task"]
    return {name: item["value"] for name, item in task["configuration"].items()}


def test_command_line_round_trip(serving_cli: Cli, service: str, code: Path, server: Any) -> None:
    """create, list, model add/canary/auto-update/remove, metrics add and config leave what they say."""
    model = server.call("models.create", name="weights", uri=f"{server.files}/w.onnx", project="")["id"]
    assert service in serving_cli("list")
    at = ("--id", service)
    file = str(code / "preprocess.py")
    serving_cli(*at, *_TRITON_ENDPOINT, "--model-id", model, "--preprocess", file)
    serving_cli(*at, "model", "add", "--engine", "custom", "--endpoint", "echo", "--preprocess", str(code))
    serving_cli(*at, "model", "canary", "--endpoint", "alias", "--weights", "1", "--input-endpoints", "people/1")
    serving_cli(*at, *_AUTO_UPDATE, "--preprocess", file)
    serving_cli(*at, "metrics", "add", "--endpoint", "echo", "--variable-scalar", "x=0,1,2")
    serving_cli(*at, "config", "--base-serving-url", "http://127.0.0.1:9/serve")
    listed = serving_cli(*at, "model", "list")
    assert all(name in listed for name in ("people/1", "echo", "alias", "auto"))
    configuration = _configuration(server, service)
    assert model in configuration["endpoints"]
    assert "people/1" in configuration["canary"]
    assert "auto" in configuration["model_monitoring"]
    assert "echo" in configuration["metric_logging"]
    task = server.call("tasks.get_by_id", task=service)["task"]
    assert {item["name"] for item in task["models"]["input"]} == {"people"}
    assert {item["key"] for item in task["execution"]["artifacts"]} >= {"py_code_people_1", "py_code_echo"}
    serving_cli(*at, "model", "remove", "--endpoint", "people/1")
    assert "people/1" not in _configuration(server, service)["endpoints"]


@contextmanager
def _inference_service(environment: Mapping[str, str], service: str, log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "clearml_serving.serving.main:app"]
    command += ["--host", "127.0.0.1", "--port", port]
    settings = {"CLEARML_SERVING_TASK_ID": service, "CLEARML_SERVING_POLL_FREQ": "0.02"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**environment, **settings}, stdout=output, stderr=output)
    try:
        yield f"http://127.0.0.1:{port}/serve"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(url: str, *, limit_s: float, log: Path) -> Any:
    """Ask until the endpoint is there; the service syncs with the server in the background."""
    deadline = time.monotonic() + limit_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(url, json={"x": [1, 2, 3]}, timeout=20)
            if answer.status_code == 200:
                return answer.json()
            last = answer.text
        except httpx.TransportError as error:
            last = error
        time.sleep(0.5)
    pytest.fail(f"{url}: {last}\n{log.read_text()[-4000:]}")


def test_inference_service_runs_on_the_sandbox(
    serving_cli: Cli,
    service: str,
    code: Path,
    server: Any,
    client_environment: Mapping[str, str],
    tmp_path: Path,
) -> None:
    """The real inference service loads an endpoint and takes up one that is added while it runs."""
    at, file, log = ("--id", service), str(code / "preprocess.py"), tmp_path / "inference.log"
    add = ("model", "add", "--engine", "custom", "--endpoint", "echo", "--preprocess", file)
    serving_cli(*at, *add)
    with _inference_service(client_environment, service, log) as url:
        assert _ask(f"{url}/echo", limit_s=_BOOT_S, log=log) == {"sum": 6}
        serving_cli(*at, *add, "--version", "2")
        assert _ask(f"{url}/echo/2", limit_s=_SYNC_S, log=log) == {"sum": 6}
    assert server.call("tasks.get_by_id", task=service)["task"]["status"] in ("created", "in_progress")
