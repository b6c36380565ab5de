"""The local stack: ClearML-compatible server, Triton and ClearML Serving, up and down in order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path

from tao2serve.errors import NotReadyError, ServiceError, ToolError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.sandbox import environment as env
from tao2serve.sandbox import triton_server
from tao2serve.sandbox.health import free_ports, http_answer, is_free, wait_until_healthy
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import ProcessRecord, is_alive, start, stop, tail
from tao2serve.sandbox.state import Ports, SandboxState, read_state, write_json, write_state
from tao2serve.triton.repository import check_location, check_model

__all__ = ["down", "is_running", "is_up", "up"]

log = logging.getLogger(__name__)

SERVER, TRITON, SERVING = "clearml-server", "triton", "clearml-serving"
# clearml-serving polls in minutes; one second keeps a deployment in the sandbox short.
POLL_MINUTES = 1 / 60
SEED_LIMIT_S = 180
GRACE_S = {SERVING: 5.0, TRITON: 12.0, SERVER: 5.0}
Report = Callable[[str], None]


def up(home: Path, *, on_step: Report = lambda _: None) -> SandboxState:
    """Start what is not running and return the state; a running sandbox is left as it is.

    A sandbox that crashed is cleared away first; its data stays. Raises ToolError, NotReadyError or
    ServiceError naming the part, its last words and its log; what was started is then ended again.
    """
    paths = SandboxPaths(home)
    _check_prerequisites(paths)
    with _locked(paths):
        state = read_state(paths.state)
        if state is not None and state.ready and is_running(state):
            return state
        if state is not None:
            _end(paths, state)
        state = _fresh_state(paths)
        try:
            return _start_all(paths, state, on_step)
        except BaseException:
            _end(paths, read_state(paths.state) or state)
            raise


def down(home: Path, *, purge: bool = False) -> bool:
    """End the recorded processes and clean up after them; returns whether there was a sandbox.

    The data stays for the next `up`, unless `purge` is set.
    """
    paths = SandboxPaths(home)
    if not paths.root.is_dir():
        return False
    with _locked(paths):
        state = read_state(paths.state)
        if state is not None:
            _end(paths, state)
        if purge:
            shutil.rmtree(paths.root, ignore_errors=True)
    if purge:
        paths.lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            home.rmdir()
    return state is not None


def is_up(home: Path) -> bool:
    """Whether a sandbox of this home is up and ready."""
    state = read_state(SandboxPaths(home).state)
    return state is not None and state.ready and is_running(state)


def is_running(state: SandboxState) -> bool:
    """Whether every recorded process still runs."""
    return bool(state.processes) and all(is_alive(record) for record in state.processes)


def _check_prerequisites(paths: SandboxPaths) -> None:
    check_location(paths.home, remedy="choose another: export TAO2SERVE_HOME=/var/tmp/tao2serve")
    for package in ("uvicorn", "starlette", "fastapi", "jwt", "pytriton"):
        if find_spec(package) is None:
            raise ToolError(f"package {package}", "is not installed", hint=triton_server.EXTRA_HINT)


def _start_all(paths: SandboxPaths, state: SandboxState, on_step: Report) -> SandboxState:
    triton_server.prepare_backends(paths.backends)
    on_step("ClearML server")
    if not paths.seed.is_file():
        # No `up` ever came to its end, so what the server holds is a half-written seed.
        shutil.rmtree(paths.server, ignore_errors=True)
    state = _start_server(paths, state)
    on_step("sample runs")
    state = _seed(paths, state)
    # Both take seconds to boot, so they boot side by side.
    on_step("Triton and ClearML Serving")
    state = _start_triton(paths, state)
    state = _start_serving(paths, state)
    ports = state.ports
    _wait(paths, state, TRITON, f"http://127.0.0.1:{ports.triton_http}/v2/health/live", timeout_s=60)
    _wait(paths, state, SERVING, f"http://127.0.0.1:{ports.serving}/openapi.json", timeout_s=120)
    state = replace(state, ready=True)
    write_state(state, paths.state)
    return state


def _start_server(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    paths.temporary.mkdir(parents=True, exist_ok=True)
    env.make_credentials(paths)
    env.write_clearml_conf(paths, state)
    command = (
        *(sys.executable, "-m", "tao2serve.sandbox.clearml_server"),
        *("--data", str(paths.server), "--credentials", str(paths.credentials)),
        *("--api-port", str(state.ports.api), "--files-port", str(state.ports.files)),
    )
    state = _launch(paths, state, SERVER, command, env.child_environment(paths, state))
    _wait(paths, state, SERVER, f"{state.api_url}/_control/health", timeout_s=30)
    return state


def _seed(paths: SandboxPaths, state: SandboxState) -> SandboxState:
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


def _start_triton(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    paths.repository.mkdir(parents=True, exist_ok=True)
    models = sorted(folder.name for folder in paths.repository.iterdir() if not folder.name.startswith("."))
    for name in models:
        check_model(paths.repository / name, name=name)
    ports = triton_server.TritonPorts(
        http=state.ports.triton_http, grpc=state.ports.triton_grpc, metrics=state.ports.triton_metrics
    )
    command = triton_server.triton_command(
        paths.repository, paths.backends, ports, shared_memory=state.shared_memory
    ) + tuple(f"--load-model={name}" for name in models)
    environment = triton_server.triton_environment(env.child_environment(paths, state))
    return _launch(paths, state, TRITON, command, environment)


def _start_serving(paths: SandboxPaths, state: SandboxState) -> SandboxState:
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


def _launch(
    paths: SandboxPaths, state: SandboxState, name: str, command: tuple[str, ...], environment: dict[str, str]
) -> SandboxState:
    with deferred_interrupts():  # what is started is recorded, whatever happens in between
        record = start(name, command, environment=environment, log=paths.log(name))
        state = replace(state, processes=(*state.processes, record))
        write_state(state, paths.state)
    log.info("%s started, pid %d", name, record.pid)
    return state


def _wait(paths: SandboxPaths, state: SandboxState, name: str, url: str, *, timeout_s: float) -> None:
    record = next(record for record in state.processes if record.name == name)
    wait_until_healthy(record, http_answer(url), timeout_s=timeout_s, log=paths.log(name))


def _end(paths: SandboxPaths, state: SandboxState) -> None:
    """End in reverse order: the inference service would not end while the ClearML server is already gone."""
    with deferred_interrupts():
        for record in sorted(state.processes, key=_stop_order):
            stop(record, grace_s=GRACE_S.get(record.name, 5.0))
        triton_server.clean_shared_memory(state.shared_memory)
        triton_server.clean_environment_folders()
        shutil.rmtree(paths.temporary, ignore_errors=True)
        paths.state.unlink(missing_ok=True)


def _stop_order(record: ProcessRecord) -> int:
    return (SERVING, TRITON, SERVER).index(record.name)


def _fresh_state(paths: SandboxPaths) -> SandboxState:
    state = SandboxState(ports=_ports(paths), shared_memory=f"tao2serve_{secrets.token_hex(4)}_")
    write_state(state, paths.state)
    return state


def _ports(paths: SandboxPaths) -> Ports:
    """Return the sandbox's ports, chosen once: the URLs of stored models and artifacts name them."""
    names = [field.name for field in fields(Ports)]
    if not paths.ports.is_file():
        ports = Ports(**dict(zip(names, free_ports(len(names)), strict=True)))
        write_json(asdict(ports), paths.ports)
        return ports
    stored = json.loads(paths.ports.read_text(encoding="utf-8"))
    # A sandbox of an earlier release lacks the ports that came later.
    missing = [name for name in names if name not in stored]
    ports = Ports(**stored, **dict(zip(missing, free_ports(len(missing)), strict=True)))
    if missing:
        write_json(asdict(ports), paths.ports)
    for name in names:
        port = getattr(ports, name)
        if not is_free(port):
            raise ServiceError(
                f"port {port}",
                f"is taken by another program, and this sandbox's {name} lives there",
                evidence=str(paths.ports),
                hint="end that program, or begin anew with: tao2serve sandbox down --purge",
            )
    return ports


@contextlib.contextmanager
def _locked(paths: SandboxPaths) -> Iterator[None]:
    """Let one command at a time change a sandbox."""
    try:
        paths.home.mkdir(parents=True, exist_ok=True)
        file = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(str(paths.home), "cannot be written", evidence=str(error)) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotReadyError(
                f"sandbox in {paths.home}", "is being started or stopped by another command", hint="wait for it to end"
            ) from error
        yield
    finally:
        os.close(file)
