"""The parts of the sandbox, each started as a process of its own and recorded at once."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Final

from tao2serve.errors import NotReadyError, ToolError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.sandbox import agent, triton_server
from tao2serve.sandbox import environment as env
from tao2serve.sandbox.health import http_answer, wait_until_healthy
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import start, tail
from tao2serve.sandbox.state import SandboxState, write_state
from tao2serve.sandbox.triton_shim import Shim, write_shim
from tao2serve.triton.repository import check_model

__all__ = [
    "AGENT",
    "CONTROLLER",
    "SERVER",
    "SERVING",
    "TRITON",
    "start_agent",
    "start_controller",
    "start_server",
    "start_serving",
    "start_triton",
    "wait_for",
    "wait_for_agent",
    "write_seed",
]

log = logging.getLogger(__name__)

SERVER, TRITON, CONTROLLER, SERVING = "clearml-server", "triton", "triton-controller", "clearml-serving"
AGENT: Final = "clearml-agent"
# clearml-serving polls in minutes; one second keeps a deployment in the sandbox short.
POLL_MINUTES: Final = 1 / 60
METRIC_MINUTES: Final = 10 / 60  # each report writes a line and some dozens of scalars
SEED_LIMIT_S: Final = 180


def start_server(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    paths.temporary.mkdir(parents=True, exist_ok=True)
    env.make_credentials(paths)
    env.write_clearml_conf(paths, state)
    command = (
        *(sys.executable, "-m", "tao2serve.sandbox.clearml_server"),
        *("--data", str(paths.server), "--credentials", str(paths.credentials)),
        *("--api-port", str(state.ports.api), "--files-port", str(state.ports.files)),
    )
    state = _launch(paths, state, SERVER, command, env.child_environment(paths, state))
    wait_for(paths, state, SERVER, f"{state.api_url}/_control/health", timeout_s=30)
    return state


def write_seed(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    """Write the sample runs and the serving service through the real SDK, in a process of its own."""
    result, output = paths.seed, paths.log("seed")
    paths.logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tao2serve.sandbox.seed", str(result)]
    environment = env.child_environment(paths, state)
    environment["TAO2SERVE_SANDBOX_TRITON"] = state.triton_grpc
    environment["TAO2SERVE_SANDBOX_SERVING"] = state.serving_url
    try:
        with output.open("ab") as file:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                cwd=paths.logs, timeout=SEED_LIMIT_S, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NotReadyError(
            "sample runs",
            f"were not written to ClearML within {SEED_LIMIT_S} s",
            evidence=tail(output),
            hint="on a busy machine run the command again",
            log=output,
        ) from error
    if done.returncode:
        raise ToolError(
            "sample runs",
            "could not be written to ClearML",
            evidence=tail(output),
            hint="mend what the log says, then run the command again",
            log=output,
        )
    state = replace(state, service_id=json.loads(result.read_text(encoding="utf-8"))["service_id"])
    write_state(state, paths.state)
    return state


def start_triton(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    paths.repository.mkdir(parents=True, exist_ok=True)
    models = sorted(folder.name for folder in paths.repository.iterdir() if not folder.name.startswith("."))
    for name in models:
        check_model(paths.repository / name, name=name)
    command = triton_server.triton_command(
        paths.repository, paths.backends, _triton_ports(state), shared_memory=state.shared_memory
    ) + tuple(f"--load-model={name}" for name in models)
    environment = triton_server.triton_environment(env.child_environment(paths, state))
    return _launch(paths, state, TRITON, command, environment)


def start_controller(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    """Start ClearML Serving's own controller, which downloads what is registered and starts Triton on it.

    It begins with an empty folder, as in a new container: folders of removed endpoints are gone, and none is there
    that an earlier run left half-written, on which Triton could hang.
    """
    shutil.rmtree(paths.controller, ignore_errors=True)
    paths.downloads.mkdir(parents=True)
    options = triton_server.triton_options(paths.backends, _triton_ports(state), shared_memory=state.shared_memory)
    binary = str(triton_server.triton_binary())
    write_shim(Shim(binary=binary, options=options, record=str(paths.triton_record)), paths.shim)
    command = (
        *(sys.executable, "-m", "tao2serve.sandbox.triton_controller"),
        *("--serving-id", state.service_id, "--repository", str(paths.downloads)),
        *("--metrics-port", str(state.ports.triton_metrics)),
        *("--update-frequency", f"{POLL_MINUTES:.6f}", "--metric-frequency", f"{METRIC_MINUTES:.6f}"),
    )
    environment = triton_server.triton_environment(env.child_environment(paths, state))
    environment["PATH"] = os.pathsep.join((str(paths.shim), environment["PATH"]))
    # It removes what it has taken from the cache, which another process may be about to read.
    environment["CLEARML_CACHE_DIR"] = str(paths.controller_cache)
    return _launch(paths, state, CONTROLLER, command, environment)


def start_serving(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    command = (
        *(sys.executable, "-m", "uvicorn", "clearml_serving.serving.main:app"),
        *("--host", "127.0.0.1", "--port", str(state.ports.serving), "--no-access-log"),
    )
    environment = {
        **env.child_environment(paths, state),
        "CLEARML_SERVING_POLL_FREQ": f"{POLL_MINUTES:.6f}",
        "CLEARML_DEFAULT_TRITON_GRPC_ADDR": state.triton_grpc,
        "CLEARML_BKG_THREAD_REPORT": "1",
        "TAO2SERVE_METRICS_PORT": str(state.ports.metrics),
        "TAO2SERVE_METRICS_FOLDER": str(paths.temporary / "metrics"),
    }
    return _launch(paths, state, SERVING, command, environment)


def start_agent(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    """Start ClearML's agent on its queue; its environment is there."""
    environment = agent.agent_environment(paths, env.child_environment(paths, state))
    return _launch(paths, state, AGENT, agent.agent_command(paths), environment)


def wait_for_agent(paths: SandboxPaths, state: SandboxState) -> None:
    """Wait until the server lists the agent."""
    record = next(record for record in state.processes if record.name == AGENT)
    ask = agent.is_registered(state, env.make_credentials(paths))
    wait_until_healthy(record, ask, timeout_s=60, log=paths.log(AGENT))


def _launch(
    paths: SandboxPaths, state: SandboxState, name: str, command: tuple[str, ...], environment: dict[str, str]
) -> SandboxState:
    with deferred_interrupts():  # what is started is recorded, whatever happens in between
        record = start(name, command, environment=environment, log=paths.log(name))
        state = replace(state, processes=(*state.processes, record))
        write_state(state, paths.state)
    log.info("%s started, pid %d", name, record.pid)
    return state


def wait_for(paths: SandboxPaths, state: SandboxState, name: str, url: str, *, timeout_s: float) -> None:
    record = next(record for record in state.processes if record.name == name)
    wait_until_healthy(record, http_answer(url), timeout_s=timeout_s, log=paths.log(name))


def _triton_ports(state: SandboxState) -> triton_server.TritonPorts:
    ports = state.ports
    return triton_server.TritonPorts(http=ports.triton_http, grpc=ports.triton_grpc, metrics=ports.triton_metrics)
