"""The real clearml-serving against the sandbox server: its command line and its inference service."""

from __future__ import annotations

import json
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
_MODEL_ID = re.compile(r"\bModel ID=([0-9a-f]{32})")
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


def _listed(printed: str) -> dict[str, Any]:
    """Return the objects that a listing of the command line prints, by their headings."""
    parts = re.split(r"^([A-Z][A-Za-z ]+):$", printed, flags=re.M)[1:]
    return {heading: json.loads(text) for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def test_command_line_round_trip(serving_cli: Cli, service: str, code: Path, server: Any) -> None:
    """create, list, config, and model upload/add/auto-update/canary/remove leave in the task what they say."""
    at, file, models = ("--yes", "--id", service), str(code / "preprocess.py"), ("--project", "Contract models")
    weights = code.parent / "weights.onnx"
    weights.write_bytes(b"onnx" * 100)
    upload = ("model", "upload", "--name", "weights", *models, "--framework", "onnx", "--path", str(weights))
    found = _MODEL_ID.search(serving_cli(*at, *upload, "--tags", "edge", "--publish"))
    assert found
    model = server.call("models.get_by_id", model=found[1])["model"]
    assert (model["ready"], model["framework"], model["tags"]) == (True, "onnx", ["edge"])
    assert httpx.get(model["uri"], auth=server.keys, timeout=10).content == weights.read_bytes()
    assert service in serving_cli("list")

    # The model is found by its name, project and tags, among published ones.
    query = ("--name", "weights", *models, "--tags", "edge", "--published")
    extra = ("--aux-config", "max_batch_size=8", "instance_group=[{count: 2}]")
    serving_cli(*at, *_TRITON_ENDPOINT, *query, "--preprocess", file, *extra)
    serving_cli(*at, "model", "add", "--engine", "custom", "--endpoint", "echo", "--preprocess", str(code))
    serving_cli(*at, *_AUTO_UPDATE, *models, "--published", "--preprocess", file)
    serving_cli(*at, "model", "canary", "--endpoint", "alias", "--weights", "1", "--input-endpoint-prefix", "people/")
    address = ("--base-serving-url", "http://127.0.0.1:9/serve", "--triton-grpc-server", "127.0.0.1:8001")
    serving_cli(*at, "config", *address, "--kafka-metric-server", "127.0.0.1:9092")

    listed = _listed(serving_cli(*at, "model", "list"))
    endpoint = listed["Endpoints"]["people/1"]
    assert (endpoint["model_id"], endpoint["engine_type"], endpoint["version"]) == (model["id"], "triton", "1")
    assert (endpoint["input_size"], endpoint["input_type"]) == ([[3, 4, 4]], ["float32"])
    assert endpoint["auxiliary_cfg"] == {"max_batch_size": 8, "instance_group": [{"count": 2}]}
    assert listed["Canary"]["alias"]["load_endpoint_prefix"] == "people/"
    assert listed["Model Monitoring"]["auto"]["monitor_name"] == "weights"
    task = server.call("tasks.get_by_id", task=service)["task"]
    general = {name: item["value"] for name, item in task["hyperparams"]["General"].items()}
    assert general["serving_base_url"] == "http://127.0.0.1:9/serve"
    assert general["triton_grpc_server"] == "127.0.0.1:8001"
    assert general["kafka_service_server"] == "127.0.0.1:9092"
    assert {item["name"] for item in task["models"]["input"]} == {"people"}
    assert {item["key"] for item in task["execution"]["artifacts"]} == {
        "py_code_people_1",
        "py_code_echo",
        "py_code_auto",
    }
    assert (task["status"], task["system_tags"]) == ("created", ["serving-control-plane"])

    for name in ("auto", "alias", "people/1"):
        serving_cli(*at, "model", "remove", "--endpoint", name)
    listed = _listed(serving_cli(*at, "model", "list"))
    assert (list(listed["Endpoints"]), listed["Canary"], listed["Model Monitoring"]) == (["echo"], {}, {})


def test_metrics_of_the_command_line(serving_cli: Cli, service: str, code: Path, server: Any) -> None:
    """metrics add, list and remove keep each variable with its kind and buckets, and drop one or all of them."""
    at, endpoint = ("--yes", "--id", service), ("--endpoint", "echo")
    serving_cli(*at, "model", "add", "--engine", "custom", *endpoint, "--preprocess", str(code))
    kinds = ("--variable-scalar", "x=0,1,2", "--variable-enum", "animal=cat,dog", "--variable-value", "z")
    serving_cli(*at, "metrics", "add", *endpoint, "--log-freq", "0.5", *kinds)
    stored = _listed(serving_cli(*at, "metrics", "list"))["Logged Metrics"]["echo"]
    assert stored["log_frequency"] == 0.5
    assert stored["metrics"] == {
        "x": {"type": "scalar", "buckets": [0, 1, 2]},
        "animal": {"type": "enum", "buckets": ["cat", "dog"]},
        "z": {"type": "value", "buckets": None},
    }
    serving_cli(*at, "metrics", "remove", *endpoint, "--variable", "z")
    kept = _configuration(server, service)["metric_logging"]
    assert "animal {" in kept
    assert "z {" not in kept
    serving_cli(*at, "metrics", "remove", *endpoint)
    assert _configuration(server, service)["metric_logging"] == "{}"


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
