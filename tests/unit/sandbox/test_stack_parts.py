"""The sandbox's parts, without starting it: processes, state, credentials, environment, Triton's command line."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from tao2serve.errors import NotReadyError, ServiceError, Tao2ServeError, ToolError, UsageError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.sandbox import stack, triton_server
from tao2serve.sandbox.environment import (
    child_environment,
    client_environment,
    left_in,
    make_credentials,
    shell_exports,
)
from tao2serve.sandbox.health import free_ports, is_free, wait_until_healthy
from tao2serve.sandbox.paths import SandboxPaths
from tao2serve.sandbox.process import ProcessRecord, is_alive, start, stop, tail
from tao2serve.sandbox.state import Ports, SandboxState, read_state, write_state

PORTS = Ports(api=1, files=2, serving=3, triton_http=4, triton_grpc=5, triton_metrics=6)
STATE = SandboxState(
    ports=PORTS, shared_memory="x_", service_id="s", processes=(ProcessRecord(name="triton", pid=1, identity="boot:2"),)
)


def run(tmp_path: Path, program: str) -> ProcessRecord:
    return start("part", [sys.executable, "-c", program], environment=os.environ, log=tmp_path / "part.log")


def test_a_stubborn_process_and_its_children_are_ended(tmp_path: Path) -> None:
    """SIGTERM first; who does not listen, and what it started, gets SIGKILL after the grace period."""
    child = "import time; time.sleep(100)"
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    record = run(tmp_path, program)
    deadline = time.monotonic() + 10
    while not tail(tmp_path / "part.log") and time.monotonic() < deadline:
        time.sleep(0.02)
    grandchild = int(tail(tmp_path / "part.log"))
    assert is_alive(record)
    stop(record, grace_s=0.2)
    assert not is_alive(record)
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_a_reused_pid_is_not_touched(tmp_path: Path) -> None:
    """A record whose identity does not fit names nobody: neither alive nor ended."""
    record = run(tmp_path, "import time; time.sleep(100)")
    try:
        other = replace(record, identity="another boot:1")
        assert not is_alive(other)
        stop(other, grace_s=0.1)
        assert is_alive(record)
    finally:
        stop(record, grace_s=5)


def test_a_program_that_is_not_there_is_a_tool_error(tmp_path: Path) -> None:
    """Exit 4, naming the part."""
    with pytest.raises(ToolError, match="part"):
        start("part", [str(tmp_path / "nothing")], environment={}, log=tmp_path / "part.log")


def test_waiting_ends_at_once_when_the_process_does(tmp_path: Path) -> None:
    """The error holds the process's last words, and does not wait for the time limit."""
    record = run(tmp_path, "print('no space left'); raise SystemExit(3)")
    before = time.monotonic()
    with pytest.raises(ToolError) as caught:
        wait_until_healthy(record, lambda: "not yet", timeout_s=30, log=tmp_path / "part.log")
    assert "no space left" in caught.value.evidence
    assert time.monotonic() - before < 10


def test_waiting_too_long_gives_the_last_reason(tmp_path: Path) -> None:
    """Exit 6 with what the check said last."""
    record = run(tmp_path, "import time; time.sleep(100)")
    try:
        with pytest.raises(NotReadyError, match="still loading"):
            wait_until_healthy(record, lambda: "still loading", timeout_s=0.3, log=tmp_path / "part.log")
    finally:
        stop(record, grace_s=5)


def test_state_survives_the_file(tmp_path: Path) -> None:
    """What is written is read; no file is no state, nor is a home that is a file; a damaged file is named."""
    path = tmp_path / "deep" / "state.json"
    assert read_state(path) is None
    (tmp_path / "home").write_text("")
    assert read_state(SandboxPaths(tmp_path / "home").state) is None
    write_state(STATE, path)
    assert read_state(path) == STATE
    path.write_text('{"ports": 5}')
    with pytest.raises(Tao2ServeError, match="damaged"):
        read_state(path)


def test_credentials_are_made_once_at_random_and_private(tmp_path: Path) -> None:
    """Two homes have different keys; one keeps its own; nobody else can read them."""
    one, two = SandboxPaths(tmp_path / "one"), SandboxPaths(tmp_path / "two")
    first = make_credentials(one)
    assert make_credentials(one) == first
    assert make_credentials(two) != first
    assert one.credentials.stat().st_mode & 0o777 == 0o600
    assert len(first.secret_key) >= 32


def test_exports_reach_a_shell_unchanged(tmp_path: Path) -> None:
    """`eval` of the exports sets exactly these values, spaces and quotes in a path included."""
    paths = SandboxPaths(tmp_path / "it's a home")
    variables = client_environment(paths, STATE)
    script = shell_exports(variables) + "\nenv -0"
    output = subprocess.run(["/bin/sh", "-c", script], env={"PATH": os.defpath}, capture_output=True, check=True).stdout
    seen = dict(entry.split("=", 1) for entry in output.decode().split("\0") if "=" in entry)
    assert {name: seen[name] for name in variables} == variables
    assert shlex.split(shell_exports(variables).splitlines()[0])[0] == "export"


@pytest.mark.parametrize("name", ["a home", "josé", "a;b", "$(x)", "it's"])
def test_a_home_that_triton_cannot_take_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Triton's python backend starts through a shell, unquoted, in ASCII: exit 2 and a better place, not a hang."""
    with pytest.raises(UsageError) as caught:
        stack.up(tmp_path / name)
    assert "TAO2SERVE_HOME" in caught.value.hint
    assert not (tmp_path / name).exists()


def test_a_missing_extra_is_seen_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4 with the line that installs it."""
    monkeypatch.setattr(stack, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ToolError) as caught:
        stack.up(tmp_path / "home")
    assert "tao2serve[sandbox]" in caught.value.hint
    assert not (tmp_path / "home").exists()


def test_a_proxy_is_not_asked_for_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the user's stays for everything else, and so do his own exceptions."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "intranet.example")
    environment = child_environment(SandboxPaths(tmp_path), STATE)
    assert environment["http_proxy"] == "http://proxy.example:3128"
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"


@pytest.mark.parametrize("before", ["", "intranet.example", "localhost, intranet.example"])
def test_the_environment_twice_is_the_environment_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """`eval "$(tao2serve sandbox env)"` again adds nothing, and what the user had excepted stays excepted once."""
    monkeypatch.setenv("no_proxy", before)
    monkeypatch.delenv("NO_PROXY", raising=False)
    once = client_environment(SandboxPaths(tmp_path), STATE)
    for name, value in once.items():
        monkeypatch.setenv(name, value)
    assert client_environment(SandboxPaths(tmp_path), STATE) == once
    hosts = once["no_proxy"].split(",")
    assert sorted(hosts) == sorted({"127.0.0.1", "localhost", *filter(None, before.replace(" ", "").split(","))})


def test_what_the_user_had_before_is_not_to_be_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what `sandbox env` has set, as it has set it; nothing for a shell that points elsewhere."""
    paths = SandboxPaths(tmp_path)
    ours = client_environment(paths, STATE)
    shell = {**ours, "TAO2SERVE_TRITON_GRPC": "mine:8001", "PATH": "/usr/bin", "TAO2SERVE_INSTANCES": "2"}
    mine = {"TAO2SERVE_HOME", "no_proxy", "NO_PROXY", "TAO2SERVE_TRITON_GRPC"}
    assert set(left_in(shell, paths, STATE)) == ours.keys() - mine
    assert left_in({**shell, "CLEARML_API_HOST": "https://api.example"}, paths, STATE) == ()
    assert left_in({"TAO2SERVE_HOME": str(tmp_path)}, paths, STATE) == ()


def test_the_callers_own_clearml_does_not_reach_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configured ClearML account of the user is not used by the sandbox's processes."""
    monkeypatch.setenv("CLEARML_API_HOST", "https://example.org")
    monkeypatch.setenv("CLEARML_DEFAULT_OUTPUT_URI", "s3://bucket")
    environment = child_environment(SandboxPaths(tmp_path), STATE)
    assert environment["CLEARML_API_HOST"] == "http://127.0.0.1:1"
    assert "CLEARML_DEFAULT_OUTPUT_URI" not in environment


def test_free_ports_are_free_and_different() -> None:
    """A port in use is seen as taken."""
    ports = free_ports(4)
    assert len(set(ports)) == 4
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports[0]))
        server.listen()
        assert not is_free(ports[0])
    assert is_free(ports[1])


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    """`up` refuses when another program sits on a port that stored URLs name."""
    paths = SandboxPaths(tmp_path)
    stack._ports(paths)
    taken = stack._ports(paths).files
    with socket.socket() as server:
        server.bind(("127.0.0.1", taken))
        server.listen()
        with pytest.raises(ServiceError, match=f"port {taken}"):
            stack.up(tmp_path)
    assert read_state(paths.state) is None


def test_a_sandbox_of_an_earlier_release_gets_the_ports_it_lacks(tmp_path: Path) -> None:
    """Ports that are stored stay, for URLs name them; one that came later is chosen, and stored beside them."""
    paths = SandboxPaths(tmp_path)
    chosen = asdict(stack._ports(paths))
    earlier = {name: port for name, port in chosen.items() if name != "metrics"}
    paths.ports.write_text(json.dumps(earlier))
    ports = asdict(stack._ports(paths))
    assert ports["metrics"]
    assert {name: ports[name] for name in earlier} == earlier
    assert json.loads(paths.ports.read_text()) == ports


def test_one_command_at_a_time(tmp_path: Path) -> None:
    """While one command holds the sandbox another exits 6."""
    paths = SandboxPaths(tmp_path)
    paths.root.mkdir(parents=True)
    with stack._locked(paths), pytest.raises(NotReadyError, match="another command"):
        stack.down(tmp_path)


def test_down_of_nothing_makes_nothing(tmp_path: Path) -> None:
    """No sandbox: False, and no folder appears."""
    assert stack.down(tmp_path / "home") is False
    assert not (tmp_path / "home").exists()


def test_triton_is_told_loopback_and_explicit_mode() -> None:
    """Every address is loopback, models load only when asked for, and the shared memory carries our name."""
    ports = triton_server.TritonPorts(http=1, grpc=2, metrics=3)
    command = triton_server.triton_command(Path("/r"), Path("/b"), ports, shared_memory="mine_")
    addresses = [word for word in command if "-address=" in word]
    assert len(addresses) == 3
    assert all(word.endswith("=127.0.0.1") for word in addresses)
    assert "--model-control-mode=explicit" in command
    assert any("shm-region-prefix-name=mine_" in word for word in command)


def test_triton_finds_this_interpreter_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its python backend runs whichever python comes first on PATH."""
    environment = triton_server.triton_environment({"PATH": "/usr/bin"})
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_missing_libpython_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4 with the apt line."""
    monkeypatch.setattr(triton_server, "_python_library_is_found", lambda _version: False)
    with pytest.raises(ToolError) as caught:
        triton_server.prepare_backends(tmp_path)
    assert "apt-get install libpython3." in caught.value.hint


def test_empty_folders_of_ended_tritons_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only empty ones, only of Triton's name, and none while a Triton runs."""
    for name in ("python_env_abc123", "python_env_used12/x", "python_environment", "other"):
        (tmp_path / name).mkdir(parents=True)
    running = run(tmp_path, "import time; time.sleep(100)")
    try:
        monkeypatch.setattr(psutil.Process, "name", lambda _self: "tritonserver")
        triton_server.clean_environment_folders(tmp_path)
        assert (tmp_path / "python_env_abc123").exists()
        monkeypatch.setattr(psutil.Process, "name", lambda _self: "python")
        triton_server.clean_environment_folders(tmp_path)
    finally:
        stop(running, grace_s=5)
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert left == ["other", "python_env_used12", "python_environment"]


def test_only_our_shared_memory_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of another sandbox stay."""
    ours, other = Path("/dev/shm/tao2serve_test1_a"), Path("/dev/shm/tao2serve_test2_a")
    for path in (ours, other):
        path.write_bytes(b"x")
    try:
        triton_server.clean_shared_memory("tao2serve_test1_")
        assert not ours.exists()
        assert other.exists()
    finally:
        other.unlink()


def test_an_interrupt_waits_for_the_end_of_a_stretch() -> None:
    """Both signals, and a second Ctrl-C, wait; then one KeyboardInterrupt is raised and the handlers are back."""
    done = []
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        with deferred_interrupts():  # a stretch in a stretch does not cut the outer one either
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
            time.sleep(0.01)
        done.append("to the end")
    assert done
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_process_started_in_such_a_stretch_hears_signals(tmp_path: Path) -> None:
    """Neither ignoring nor blocking is handed on to it."""
    with deferred_interrupts():
        record = run(tmp_path, "import time; time.sleep(100)")
    before = time.monotonic()
    stop(record, grace_s=20)
    assert time.monotonic() - before < 10
