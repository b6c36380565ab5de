"""`tao2serve doctor` on real servers: all well, and each thing that can be wrong with them."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import CommandLine

from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.triton_server import TritonPorts, prepare_backends, triton_command, triton_environment

pytestmark = pytest.mark.integration
Checks = dict[tuple[str, str], dict[str, Any]]


def look(line: CommandLine, *, code: int) -> Checks:
    """Run doctor and return its checks by group and name."""
    outcome = line.tao2serve("doctor", "--json")
    assert outcome.code == code, outcome.stdout + outcome.stderr
    assert outcome.document["outcome"] == ("wrong" if code else "ok")
    for secret in (line.environment.get("CLEARML_API_SECRET_KEY"), line.environment.get("CLEARML_API_ACCESS_KEY")):
        assert not secret or secret not in outcome.stdout + outcome.stderr
    return {(check["group"], check["name"]): check for check in outcome.document["checks"]}


def changed(line: CommandLine, **variables: str) -> CommandLine:
    return dataclasses.replace(line, environment={**line.environment, **variables})


def test_all_is_well_with_the_sandbox(sandbox: CommandLine) -> None:
    """Pointed at a sandbox that is up, every server and ClearML itself are ok; the file it stored is gone again."""
    checks = look(sandbox, code=0)
    for group, names in {
        "sandbox": ("packages", "Triton", "shared memory", "running"),
        "ClearML": ("configuration", "server", "credentials", "serving service", "file server"),
        "Triton": ("repository folder", "server", "model control"),
        "serving": ("inference service",),
    }.items():
        for name in names:
            assert checks[group, name]["status"] == "ok", checks[group, name]
    assert checks["Triton", "repository"]["status"] in ("ok", "skipped")
    assert not checks["ClearML", "file server"]["evidence"]


def test_what_is_wrong_is_named(sandbox: CommandLine, tmp_path: Path) -> None:
    """Wrong credentials, a Triton that is not there, a URL of something else: each wrong, with a command."""
    wrong = changed(
        sandbox,
        CLEARML_API_SECRET_KEY="not-the-secret-key",
        TAO2SERVE_TRITON_GRPC="127.0.0.1:9",
        TAO2SERVE_SERVING_BASE_URL=f"{sandbox.environment['CLEARML_API_HOST']}/serve",
        TAO2SERVE_MODEL_REPOSITORY=str(tmp_path / "none"),
        TAO2SERVE_TAO_LAUNCHER=str(tmp_path / "no-tao"),
    )
    checks = look(wrong, code=4)
    for key in (
        ("ClearML", "credentials"),
        ("Triton", "server"),
        ("Triton", "repository folder"),
        ("serving", "inference service"),
        ("other", "tao launcher"),
    ):
        assert checks[key]["status"] == "wrong", checks[key]
        assert checks[key]["remedy"], checks[key]


def test_another_repository_and_service_are_noticed(sandbox: CommandLine, tmp_path: Path) -> None:
    """A folder that Triton does not see and a service that is not there are wrong; clearml.conf alone names servers."""
    (tmp_path / "street_99").mkdir()
    (tmp_path / "street_99" / "config.pbtxt").touch()
    environment = {name: value for name, value in sandbox.environment.items() if not name.endswith("_HOST")}
    by_conf = dataclasses.replace(sandbox, environment=environment)
    other = changed(by_conf, TAO2SERVE_MODEL_REPOSITORY=str(tmp_path), TAO2SERVE_SERVICE="0" * 32)
    checks = look(other, code=4)
    assert "not the folder" in checks["Triton", "repository"]["fact"]
    assert "street_99" in checks["Triton", "repository"]["evidence"]
    assert "does not exist" in checks["ClearML", "serving service"]["fact"]
    assert checks["ClearML", "configuration"]["fact"] == f"from {environment['CLEARML_CONFIG_FILE']}"
    assert checks["ClearML", "file server"]["status"] == "ok"


def test_a_managed_triton_is_well(managed_sandbox: CommandLine) -> None:
    """A Triton that ClearML Serving's controller runs needs no folder and no orders; called one's own, it is wrong."""
    checks = look(managed_sandbox, code=0)
    assert checks["Triton", "model control"]["status"] == "ok"
    assert not {("Triton", "repository"), ("Triton", "repository folder")} & set(checks)
    own = look(changed(managed_sandbox, TAO2SERVE_MANAGED="false"), code=4)
    assert "TAO2SERVE_MANAGED=true" in own["Triton", "model control"]["remedy"]


def test_servers_that_never_answer_hold_nothing_up(bare: CommandLine) -> None:
    """A server that takes connections and says nothing is wrong after some seconds; nothing is written here."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        hanging = changed(
            bare,
            CLEARML_API_HOST=f"http://{address}",
            CLEARML_FILES_HOST=f"http://{address}",
            CLEARML_API_ACCESS_KEY="ABCDEFGH",
            CLEARML_API_SECRET_KEY="some-secret-key",
            TAO2SERVE_TRITON_GRPC=address,
            TAO2SERVE_SERVING_BASE_URL=f"http://{address}/serve",
        )
        started = time.monotonic()
        checks = look(hanging, code=4)
        assert time.monotonic() - started < 20
    for folder in ("TAO2SERVE_HOME", "HOME"):
        assert not list(Path(bare.environment[folder]).glob("**/*")), folder
    assert not list(bare.folder.iterdir())
    for key in (("ClearML", "server"), ("Triton", "server"), ("serving", "inference service")):
        assert checks[key]["status"] == "wrong", checks[key]


@pytest.fixture
def triton_without_control(tmp_path: Path) -> Iterator[str]:
    """A real Triton that loads what it finds and takes no orders; gives its address."""
    prepare_backends(tmp_path / "backends")
    (tmp_path / "models").mkdir()
    ports = TritonPorts(**dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True)))
    command = [
        word.replace("explicit", "none")
        for word in triton_command(
            tmp_path / "models", tmp_path / "backends", ports, shared_memory=f"tao2serve_doctor_{os.getpid()}_"
        )
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=triton_environment(os.environ), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{ports.http}/v2/health/ready", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{ports.grpc}"
    finally:
        process.terminate()
        process.wait(30)


def test_a_triton_without_orders_and_half_a_sandbox_are_wrong(bare: CommandLine, triton_without_control: str) -> None:
    """A Triton that is ready but not in EXPLICIT mode, and a recorded process that is gone: how each is mended."""
    home = Path(bare.environment["TAO2SERVE_HOME"])
    (home / "sandbox").mkdir(parents=True)
    names = ("api", "files", "serving", "triton_http", "triton_grpc", "triton_metrics")
    state = {
        "ports": dict.fromkeys(names, 9),
        "shared_memory": "tao2serve_none_",
        "processes": [{"name": "triton", "pid": 2**22 + 1, "identity": "gone:0"}],
        "ready": True,
    }
    (home / "sandbox" / "state.json").write_text(json.dumps(state), encoding="utf-8")
    checks = look(changed(bare, TAO2SERVE_TRITON_GRPC=triton_without_control), code=4)
    assert checks["Triton", "server"]["status"] == "ok"
    assert checks["Triton", "model control"]["status"] == "wrong"
    assert "--model-control-mode=explicit" in checks["Triton", "model control"]["remedy"]
    running = checks["sandbox", "running"]
    assert (running["status"], running["remedy"]) == ("wrong", "tao2serve sandbox up")
    assert "triton" in running["fact"]
