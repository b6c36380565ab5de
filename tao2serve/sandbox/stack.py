"""The local stack: ClearML-compatible server, Triton and ClearML Serving, up and down in order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path

from tao2serve.errors import NotReadyError, ServiceError, ToolError, UsageError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.sandbox import agent as clearml_agent
from tao2serve.sandbox import triton_server
from tao2serve.sandbox.health import free_ports, is_free
from tao2serve.sandbox.parts import (
    AGENT,
    CONTROLLER,
    SERVER,
    SERVING,
    TRITON,
    start_agent,
    start_controller,
    start_server,
    start_serving,
    start_triton,
    wait_for,
    wait_for_agent,
    write_seed,
)
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import ProcessRecord, is_alive, stop
from tao2serve.sandbox.state import Ports, SandboxState, read_record, read_state, write_json, write_state
from tao2serve.triton.repository import check_location

__all__ = ["down", "is_running", "is_up", "processes", "up"]

# The controller ends its Triton first; both then report to ClearML for the last time.
# The agent ends the task it runs, which may have to undo something.
GRACE_S = {AGENT: 20.0, SERVING: 5.0, CONTROLLER: 20.0, TRITON: 12.0, SERVER: 5.0}
Report = Callable[[str], None]


def up(
    home: Path, *, managed: bool | None = None, agent: bool | None = None, on_step: Report = lambda _: None
) -> SandboxState:
    """Start what is not running and return the state; a running sandbox is left as it is.

    `managed`: ClearML Serving's own controller owns Triton, not tao2serve; None is as the last time. `agent`: ClearML's
    own agent takes tasks from the queue `default`; it is started and ended beside a sandbox that runs. Of a sandbox
    that was up, only what has ended is started anew, and the rest serves on. One that never came up is cleared away
    first; its data stays. Raises UsageError if one of the other kind runs, ToolError, NotReadyError or ServiceError
    naming the part, its last words and its log; what was started is then ended again.
    """
    paths = SandboxPaths(home)
    _check_prerequisites(paths)
    with _locked(paths):
        state = read_state(paths.state)
        if state is not None and state.ready and any(map(is_alive, state.processes)):
            _check_kind(paths, state, managed)
            if not is_running(state):
                state = _restart_ended(paths, state, on_step)
            return _with_agent(paths, state, agent, on_step)
        if state is not None:
            _end(paths, state)
        was_managed = paths.controller.is_dir()
        state = _fresh_state(paths, managed=was_managed if managed is None else managed)
        try:
            state = _start_all(paths, state, on_step)
            return _with_agent(paths, state, paths.agent_wanted.is_file() if agent is None else agent, on_step)
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


def processes(home: Path, state: SandboxState) -> tuple[ProcessRecord, ...]:
    """Return all processes of the sandbox; a Triton that the controller started is not in the state."""
    triton = read_record(SandboxPaths(home).triton_record) if state.managed else None
    return (*state.processes, triton) if triton is not None else state.processes


def _check_kind(paths: SandboxPaths, state: SandboxState, managed: bool | None) -> None:
    if managed is None or managed == state.managed:
        return
    owners = {True: "ClearML Serving's own controller", False: "tao2serve"}
    raise UsageError(
        f"sandbox in {paths.home}",
        f"runs a Triton that {owners[state.managed]} owns, not {owners[managed]}",
        hint="end it first: tao2serve sandbox down",
    )


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
    state = start_server(paths, state)
    on_step("sample runs")
    state = write_seed(paths, state)
    # Both take seconds to boot, so they boot side by side.
    on_step("Triton and ClearML Serving")
    state = start_controller(paths, state) if state.managed else start_triton(paths, state)
    state = start_serving(paths, state)
    _wait_until_up(paths, state)
    state = replace(state, ready=True)
    write_state(state, paths.state)
    return state


def _with_agent(paths: SandboxPaths, state: SandboxState, wanted: bool | None, on_step: Report) -> SandboxState:
    """Start or end the agent beside what runs; None leaves it as it is."""
    if wanted is None or wanted == state.agent:
        return state
    if not wanted:
        return _without_agent(paths, state)
    clearml_agent.make_environment(paths, on_step)
    on_step(f"clearml-agent on queue {clearml_agent.QUEUE}")
    try:
        state = replace(start_agent(paths, state), agent=True)
        write_state(state, paths.state)
        wait_for_agent(paths, state)
        paths.agent_wanted.touch()
        return state
    except BaseException:
        with deferred_interrupts():
            _stop_agent(paths, read_state(paths.state) or state)
        raise


def _without_agent(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    """End the agent, for the next `up` too; its environment stays."""
    with deferred_interrupts():
        paths.agent_wanted.unlink(missing_ok=True)
        return _stop_agent(paths, state)


def _stop_agent(paths: SandboxPaths, state: SandboxState) -> SandboxState:
    for record in state.processes:
        if record.name == AGENT:
            stop(record, grace_s=GRACE_S[AGENT])
    clearml_agent.clean(paths)
    kept = tuple(record for record in state.processes if record.name != AGENT)
    state = replace(state, processes=kept, agent=False)
    write_state(state, paths.state)
    return state


def _restart_ended(paths: SandboxPaths, state: SandboxState, on_step: Report) -> SandboxState:
    """Start what has ended, each as it was; what cannot be started ends itself alone."""
    gone = [record for record in state.processes if not is_alive(record)]
    ended = {record.name for record in gone}
    on_step(f"anew: {', '.join(sorted(ended))}")
    state = replace(state, processes=tuple(record for record in state.processes if record.name not in ended))
    left = state
    try:
        for record in gone:  # for what it has left behind
            stop(record, grace_s=0)
        if SERVER in ended:
            state = start_server(paths, state)
        if SERVING in ended:  # while none runs: this closes the task that the ended one has left
            state = write_seed(paths, state)
        if not ended.isdisjoint((TRITON, CONTROLLER)):
            if (orphan := read_record(paths.triton_record)) is not None:
                stop(orphan, grace_s=GRACE_S[TRITON])
            triton_server.clean_shared_memory(state.shared_memory)
            state = start_controller(paths, state) if state.managed else start_triton(paths, state)
        if SERVING in ended:
            state = start_serving(paths, state)
        if AGENT in ended:
            clearml_agent.make_environment(paths, on_step)
            clearml_agent.clean(paths)
            state = start_agent(paths, state)
        _wait_until_up(paths, state)
        if AGENT in ended:
            wait_for_agent(paths, state)
        return state
    except BaseException:
        with deferred_interrupts():
            state = read_state(paths.state) or state
            for record in state.processes:
                if record not in left.processes:
                    stop(record, grace_s=GRACE_S.get(record.name, 5.0))
        raise


def _wait_until_up(paths: SandboxPaths, state: SandboxState) -> None:
    ports = state.ports
    owner = CONTROLLER if state.managed else TRITON
    wait_for(paths, state, owner, f"http://127.0.0.1:{ports.triton_http}/v2/health/live", timeout_s=90)
    wait_for(paths, state, SERVING, f"http://127.0.0.1:{ports.serving}/openapi.json", timeout_s=120)


def _end(paths: SandboxPaths, state: SandboxState) -> None:
    """End in reverse order: the inference service would not end while the ClearML server is already gone."""
    with deferred_interrupts():
        # A controller that was killed has left its Triton running.
        for record in sorted(processes(paths.home, state), key=_stop_order):
            stop(record, grace_s=GRACE_S.get(record.name, 5.0))
        triton_server.clean_shared_memory(state.shared_memory)
        triton_server.clean_environment_folders()
        clearml_agent.clean(paths)
        shutil.rmtree(paths.temporary, ignore_errors=True)
        paths.triton_record.unlink(missing_ok=True)
        paths.state.unlink(missing_ok=True)


def _stop_order(record: ProcessRecord) -> int:
    return (AGENT, SERVING, CONTROLLER, TRITON, SERVER).index(record.name)


def _fresh_state(paths: SandboxPaths, *, managed: bool) -> SandboxState:
    shared_memory = f"tao2serve_{secrets.token_hex(4)}_"
    state = SandboxState(ports=_ports(paths), shared_memory=shared_memory, managed=managed)
    if not managed:
        shutil.rmtree(paths.controller, ignore_errors=True)
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
        raise ServiceError(
            str(paths.home),
            "cannot be written",
            evidence=error.strerror or str(error),
            hint="choose another: export TAO2SERVE_HOME=DIR",
        ) from error
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
