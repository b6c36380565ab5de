"""What is watched: the endpoints' metrics over several processes, and `ops/` in a real Prometheus."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from command_line import CommandLine
from prometheus_client.parser import text_string_to_metric_families

from tao2serve import runtime
from tao2serve.runtime import cells, exporter, metrics
from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.samples import pictures

pytestmark = pytest.mark.integration
OPS = Path(__file__).resolve().parents[2] / "ops"
RULES, RULE_TESTS, CONFIG = OPS / "tao2serve.rules.yml", OPS / "tao2serve.rules.test.yml", OPS / "prometheus.yml"
DASHBOARD = json.loads((OPS / "grafana-dashboard.json").read_text(encoding="utf-8"))
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
# What Grafana puts in: all endpoints, all versions, and a window of a few scrapes.
GRAFANA = {"$__rate_interval": "20s", "$endpoint": ".*", "$version": ".*"}


def debian(program: str) -> str:
    """The path of a program of Debian's package `prometheus`; on the CI machine it has to be there."""
    found = shutil.which(program)
    if found is None:
        assert "CI" not in os.environ, f"{program} is not on PATH"
        pytest.skip(f"{program} is not on PATH (Debian package prometheus)")
    return found


def until(check: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    """What the check returns as soon as that is something; fails with its last exception, or after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = check()
        except (httpx.HTTPError, AssertionError):
            if time.monotonic() > deadline:
                raise
        else:
            if found:
                return found
            assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def get(url: str, **parameters: str) -> httpx.Response:
    return httpx.get(url, params=parameters, timeout=5, trust_env=False)


Samples = dict[tuple[str, ...], float]


def samples(text: str, name: str, *labels: str) -> Samples:
    """One metric's values by some of its labels, the others added up."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                key = tuple(sample.labels[label] for label in labels)
                found[key] = found.get(key, 0) + sample.value
    return found


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its children, all gone at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.terminate()
        try:
            process.wait(10)
        finally:
            for pid in family:
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def listening(pid: int) -> set[int]:
    """The ports on which a process listens."""
    found = psutil.Process(pid).net_connections()
    return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}


def write_version(folder: Path, version: str) -> None:
    """A preprocess package as `deploy` writes it; the Triton it names is not there."""
    folder.mkdir(parents=True)
    for source in Path(runtime.__file__).parent.glob("*.py"):
        shutil.copyfile(source, folder / source.name)
    settings = {
        "model": {"endpoint": "street", "version": version, "id": "abc"}, "triton_model": f"street_{version}",
        "placement": "endpoint", "resize": "lanczos", "input": "float32", "boxes": "offsets", "input_name": "i",
        "coverage_name": "c", "bbox_name": "b", "deadline_s": 2.0, "max_pixels": 10**6, "max_bytes": 10**6,
    }  # fmt: skip
    params = {
        "family": "detectnet_v2", "input": {"channels": 3, "height": 32, "width": 64}, "bbox_scale": 35.0,
        "bbox_offset": 0.5, "classes": [{"name": "car"}],
    }  # fmt: skip
    (folder / "endpoint.json").write_text(json.dumps(settings))
    (folder / "params.json").write_text(json.dumps(params))


COUNTS = """
import asyncio, os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from tao2serve.runtime import cells
from tao2serve.runtime.answer import ServedModel
from tao2serve.runtime.exporter import Target
from tao2serve.runtime import metrics

folder = Path(sys.argv[1])
metrics.export = lambda chosen: None
model = ServedModel(endpoint="street", version="3", id="abc")
meter = metrics.Meter(model, ["car"], Target(folder=folder, address="", port=None, textfile=None))

async def refused():
    return SimpleNamespace(status_code=422)

async def killed():
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(meter.measured(refused()))
"""


def in_process(folder: Path, program: str) -> int:
    """The exit status of a process that counts one refused request, then does what is given."""
    command = [sys.executable, "-c", COUNTS + program, str(folder)]
    return subprocess.run(command, timeout=30, check=False).returncode


def refused_and_in_flight(folder: Path) -> tuple[float, float]:
    found = exporter.merged(folder)
    return found[metrics.REQUESTS]["street", "3", "422"][0], found[metrics.IN_FLIGHT]["street", "3"][0]


def test_a_killed_process_leaves_its_counts_and_its_place(tmp_path: Path) -> None:
    """While another process lives, counters of a killed one stay in the sum, what it had in hand does not.

    The next process takes its place, so files do not pile up; when none is left the next begins anew.
    """
    living = [sys.executable, "-c", COUNTS + "print(flush=True); sys.stdin.read()", str(tmp_path)]
    with subprocess.Popen(living, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert in_process(tmp_path, "asyncio.run(meter.measured(killed()))") == -signal.SIGKILL
        assert cells.living(tmp_path) == 1
        assert refused_and_in_flight(tmp_path) == (2, 0)
        files = set(tmp_path.iterdir())
        in_its_place = (
            "from tao2serve.runtime.exporter import merged\n"
            "assert cells.living(folder) == 2\n"
            "assert merged(folder)[metrics.IN_FLIGHT]['street', '3'] == [0]\n"
        )
        assert in_process(tmp_path, in_its_place) == 0
        assert refused_and_in_flight(tmp_path) == (3, 0)
        assert set(tmp_path.iterdir()) == files
    assert cells.living(tmp_path) == 0
    assert in_process(tmp_path, "") == 0
    assert refused_and_in_flight(tmp_path) == (1, 0)


def test_a_forked_child_holds_nothing_for_its_parent(tmp_path: Path) -> None:
    """The ClearML SDK forks a reporter: a worker that was killed is gone although its child lives on."""
    program = """
child = os.fork()
if not child:
    time.sleep(30)
    os._exit(0)
(folder / "child").write_text(str(child))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert in_process(tmp_path, program) == -signal.SIGKILL
    child = int((tmp_path / "child").read_text())
    try:
        assert psutil.pid_exists(child)
        assert cells.living(tmp_path) == 0
    finally:
        os.kill(child, signal.SIGKILL)


def test_workers_share_a_port_and_a_file(tmp_path: Path) -> None:
    """Two uvicorn workers, two versions, objects made anew, a taken port, a killed worker: no request fails for it.

    One port and one file show the sum of all workers; nothing that was counted is lost, and whoever showed it is
    followed by another.
    """
    for version in ("3", "4"):
        write_version(tmp_path / "packages" / version, version)
    port, metrics_port, nowhere = free_ports(3)
    textfile, log = tmp_path / "tao2serve.prom", tmp_path / "log"
    environment = {
        **os.environ, "PACKAGES": str(tmp_path / "packages"),
        "CLEARML_DEFAULT_TRITON_GRPC_ADDR": f"127.0.0.1:{nowhere}",
        exporter.PORT: str(metrics_port), exporter.TEXTFILE: str(textfile), exporter.FOLDER: str(tmp_path / "cells"),
        "PYTHONPATH": str(Path(__file__).parent),
    }  # fmt: skip
    command = [sys.executable, "-m", "uvicorn", "metered_app:app", "--workers", "2", "--port", str(port)]
    shown = f"http://127.0.0.1:{metrics_port}/metrics"
    sent = {"3": 0, "4": 0}
    pids: set[str] = set()

    def ask(version: str, body: bytes = b"no picture", *, status: int = 422) -> None:
        # A new connection each time: the kernel gives it to either worker.
        answer = httpx.post(f"http://127.0.0.1:{port}/{version}", content=body, timeout=10, trust_env=False)
        assert answer.status_code == status
        pids.add(answer.headers["x-pid"])
        if version in sent:
            sent[version] += 1

    def ask_all_workers(*versions: str) -> None:
        pids.clear()
        deadline = time.monotonic() + 30
        while len(pids) < 2:
            assert time.monotonic() < deadline, "only one worker answers"
            for version in versions:
                ask(version)

    def count_of(text: str) -> dict[str, float]:
        return {version: number for (version,), number in samples(text, "tao2serve_requests_total", "version").items()}

    with socket.socket() as stranger, running(command, environment, log):
        stranger.bind(("127.0.0.1", metrics_port))
        stranger.listen()
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/renew", trust_env=False).status_code == 200)
        ask_all_workers("3", "4")
        until(lambda: "Address already in use" in log.read_text())
        stranger.close()
        until(lambda: get(shown).status_code == 200)
        for _ in range(3):
            httpx.post(f"http://127.0.0.1:{port}/renew", trust_env=False)
            ask("4", pictures()[0].read_bytes(), status=503)
        ask_all_workers("3")
        text = get(shown).text
        assert count_of(text) == sent
        assert samples(text, "tao2serve_failures_total", "kind")["unavailable",] == 3
        assert samples(text, "tao2serve_workers") == {(): 2}
        owner = next(pid for pid in map(int, pids) if metrics_port in listening(pid))
        os.kill(owner, signal.SIGKILL)
        assert count_of(until(lambda: get(shown).text)) == sent
        ask_all_workers("3", "4")  # uvicorn has started another, which took the place of the killed one
        assert count_of(get(shown).text) == sent
        assert until(lambda: count_of(textfile.read_text()) == sent)
    assert log.read_text().count("not shown on") == 1
    assert "Traceback" not in log.read_text()


def test_rules_and_configuration_are_what_prometheus_reads() -> None:
    """`promtool` accepts the rules and the configuration, and each alert fires and keeps still where it should."""
    promtool = debian("promtool")
    for arguments in (("check", "rules", RULES), ("check", "config", CONFIG), ("test", "rules", RULE_TESTS)):
        done = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_described() -> None:
    """The rules' own tests let each alert fire once, and docs/watch.md has a section for each."""
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts:", RULE_TESTS.read_text())
    sections = re.findall(r"^### (\w+)$", (OPS.parent / "docs" / "watch.md").read_text(), re.MULTILINE)
    assert set(fired) == set(alerts) == set(sections)


def test_every_metric_is_described_and_every_one_that_is_used_exists() -> None:
    """docs/watch.md lists the metrics of the runtime; rules and dashboard use no others of that prefix."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    shown = {family.name + suffix for family in metrics.FAMILIES for suffix in suffixes[family.kind]}
    documented = set(re.findall(r"^\| `(tao2serve_\w+)`", (OPS.parent / "docs" / "watch.md").read_text(), re.MULTILINE))
    assert documented == {
        family.name + ("_total" if family.kind == "counter" else "") for family in metrics.FAMILIES
    } | {"tao2serve_workers"}
    used = set(re.findall(r"\btao2serve_\w+", RULES.read_text() + " ".join(EXPRESSIONS.values())))
    assert used <= shown | {"tao2serve_workers"}


@pytest.fixture(scope="module")
def prometheus(
    sandbox: CommandLine, deployed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a real Prometheus with our configuration and rules, which scrapes the sandbox under traffic."""
    program, folder, (port,) = debian("prometheus"), tmp_path_factory.mktemp("prometheus"), free_ports(1)
    urls = sandbox.tao2serve("sandbox", "status", "--json").assert_success().document["urls"]
    config = CONFIG.read_text().replace("15s", "1s")
    for example, name in (("127.0.0.1:9464", "endpoint_metrics"), ("127.0.0.1:8002", "triton_metrics")):
        assert example in config
        config = config.replace(example, re.sub(r"https?://|/metrics", "", urls[name]))
    (folder / CONFIG.name).write_text(config)
    shutil.copyfile(RULES, folder / RULES.name)
    command = [
        program, f"--config.file={folder / CONFIG.name}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    stop = threading.Event()

    def traffic() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not stop.is_set():
                for picture in pictures():
                    client.post(deployed["endpoint"]["url"], content=picture.read_bytes())
                    time.sleep(0.05)
                client.post(deployed["endpoint"]["url"], content=b"no picture")

    caller = threading.Thread(target=traffic)
    with running(command, dict(os.environ), folder / "log"):
        url = f"http://127.0.0.1:{port}"
        caller.start()
        try:
            until(lambda: get(f"{url}/-/ready").status_code == 200)
            # The last of what is recorded is there: two scrapes with traffic between them, and an evaluation.
            until(
                lambda: ask_prometheus(url, "tao2serve:failures:ratio5m and on () tao2serve:image_detections:mean30m")
            )
            yield url
        finally:
            stop.set()
            caller.join()


def ask_prometheus(url: str, expression: str) -> list[float]:
    """The numbers of an instant query."""
    document = get(f"{url}/api/v1/query", query=expression).json()
    assert document["status"] == "success", document
    return [float(series["value"][1]) for series in document["data"]["result"]]


def test_prometheus_scrapes_the_endpoints_and_triton(prometheus: str) -> None:
    """Both targets answer, and what is scraped carries the labels of our settings, not of the scrape."""
    targets = get(f"{prometheus}/api/v1/targets").json()["data"]["activeTargets"]
    assert {(target["labels"]["job"], target["health"]) for target in targets} == {
        ("tao2serve", "up"), ("triton", "up"),
    }  # fmt: skip
    assert ask_prometheus(prometheus, 'tao2serve_requests_total{endpoint="street", status="200", job="tao2serve"}')


def test_every_rule_is_evaluated_and_every_record_has_numbers(prometheus: str) -> None:
    """No rule fails, each record has a finite number, and a healthy sandbox raises no alert of a broken one."""

    def groups() -> Any:
        found = get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in found for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = until(groups)
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    records = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert len(records) == 7
    for record in records:
        assert any(map(math.isfinite, until(partial(ask_prometheus, prometheus, record)))), record
    broken = {"Tao2serveTritonDown", "Tao2serveServiceDown", "Tao2serveFailures", "Tao2serveNoTraffic"}
    # Before the first scrape `up` is absent, so an alert may wait for a moment.
    until(lambda: not broken & {rule["name"] for rule in groups() if rule.get("state", "inactive") != "inactive"})


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_every_expression_of_the_dashboard_gives_a_number(prometheus: str, title: str) -> None:
    """What each panel asks gives at least one finite number of a sandbox under traffic."""
    expression = EXPRESSIONS[title]
    for variable, value in GRAFANA.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    assert any(map(math.isfinite, until(lambda: ask_prometheus(prometheus, expression)))), expression


def test_the_variables_of_the_dashboard_list_what_there_is(prometheus: str) -> None:
    """The endpoints and versions to choose from are the values of labels that the metrics have."""
    for variable in DASHBOARD["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        for name, value in GRAFANA.items():
            metric = metric.replace(name, value)
        values = get(f"{prometheus}/api/v1/label/{label}/values", **{"match[]": metric}).json()["data"]
        assert values
        if label == "endpoint":
            assert "street" in values
