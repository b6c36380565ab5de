"""A small Docker Engine API on a unix socket that records what it is asked, since no engine can run where tests do.

**It is a fake, and the only one on the way**: NVIDIA's real launcher and the real `docker` command talk to it. It
starts no container. A container's command it runs as a process of this machine, with the container's environment and a
PATH on which `python` is the tests' own and `detectnet_v2` is played by `played_tao.py`, which finds the container's
paths through the binds. No code of Docker's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

API = "1.41"
PLAYER = Path(__file__).with_name("played_tao.py")
# The launcher looks for images at /var/run/docker.sock whatever DOCKER_HOST says: a mount namespace puts ours there.
NAMESPACE = (
    "unshare", "--mount", "--map-root-user", "sh", "-c",
    'mount -t tmpfs none /run && ln -s "$1" /run/docker.sock && shift && exec "$@"', "sh",
)  # fmt: skip


def require_docker() -> None:
    """End the test where the command docker is not: as a failure in CI, which has it."""
    if shutil.which("docker") is None:
        if os.environ.get("CI"):
            pytest.fail("the command docker is not on PATH: .ci/run unpacks it")
        pytest.skip("the command docker is not on PATH (apt-get install docker.io)")


def require_namespace() -> None:
    """End the test where NAMESPACE cannot be: as a failure in CI."""
    probe = subprocess.run([*NAMESPACE, "/x", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"no mount namespace can be made: {probe.stderr.decode()}")
        pytest.skip("no mount namespace can be made here, and the launcher looks at /var/run/docker.sock alone")


@dataclass
class Engine:
    """What was asked for, and what runs. `images` are here, others are missing."""

    folder: Path
    images: set[str]
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    execs: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def created(self) -> list[dict[str, Any]]:
        return [body for _, path, body in self.requests if path.endswith("/containers/create")]

    def asked(self, part: str) -> list[Any]:
        return [body for _, path, body in self.requests if part in path]

    def environment(self, container: str) -> dict[str, str]:
        """The variables of a process in the container: its own, those of the image, and how to find its paths."""
        config = self.containers[container]
        tools = self.folder / "tools"
        given = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
        binds = config.get("HostConfig", {}).get("Binds") or []
        return {
            "PATH": f"{tools}:/usr/bin:/bin", "HOME": "/", **given, "PLAYED_BINDS": json.dumps(binds),
            "PLAYED_FOLDER": str(self.folder),
        }  # fmt: skip

    def start(self, key: str, words: list[str], container: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            words, env=self.environment(container), cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        with self.lock:
            self.processes[key] = process
        return process

    def stop(self, container: str, number: int = signal.SIGTERM) -> None:
        with self.lock:
            running = [process for key, process in self.processes.items() if key.startswith(container)]
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, number)


def make_tools(folder: Path) -> None:
    """The programs a container would have: Python, and the part of detectnet_v2."""
    tools = folder / "tools"
    tools.mkdir(parents=True)
    for name, words in (("python", [sys.executable]), ("detectnet_v2", [sys.executable, str(PLAYER)])):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (tools / name).chmod(0o755)


@contextlib.contextmanager
def docker_engine(folder: Path, images: set[str]) -> Iterator[Engine]:
    """Serve an engine with these images until the block ends; nothing it started outlives it."""
    make_tools(folder)
    engine = Engine(folder=folder, images=images)
    handler = type("Handler", (_Handler,), {"engine": engine})

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(engine.socket), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            for process in engine.processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdout:
                    process.stdout.close()


class _Handler(BaseHTTPRequestHandler):
    engine: ClassVar[Engine]
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Say nothing: what was asked is recorded."""

    def do_HEAD(self) -> None:
        self._answer(200, None)

    def do_GET(self) -> None:
        self._dispatch("GET")

    def do_POST(self) -> None:
        self._dispatch("POST")

    def do_DELETE(self) -> None:
        self._dispatch("DELETE")

    def _dispatch(self, method: str) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else None
        parts = urlsplit(self.path)
        path = unquote(re.sub(r"^/v\d+\.\d+", "", parts.path))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        with self.engine.lock:
            self.engine.requests.append((method, path, body))
        for pattern, action in (
            (r"/_ping", self._ping), (r"/version", self._version), (r"/info", self._version),
            (r"/images/json", self._images), (r"/images/(.+)/json", self._image),
            (r"/containers/create", self._create), (r"/containers/([^/]+)/start", self._start),
            (r"/containers/([^/]+)/json", self._inspect), (r"/containers/([^/]+)/exec", self._exec),
            (r"/containers/([^/]+)/attach", self._attach), (r"/containers/([^/]+)/wait", self._wait),
            (r"/containers/([^/]+)/(?:stop)", self._stop), (r"/containers/([^/]+)/kill", self._kill),
            (r"/containers/([^/]+)", self._remove), (r"/exec/([^/]+)/start", self._exec_start),
            (r"/exec/([^/]+)/json", self._exec_inspect), (r"/(?:exec|containers)/([^/]+)/resize", self._nothing),
        ):  # fmt: skip
            if found := re.fullmatch(pattern, path):
                action(*found.groups(), body=body, query=query)  # type: ignore[operator]
                return
        self._answer(404, {"message": f"page not found: {method} {path}"})

    def _answer(self, code: int, body: Any) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Api-Version", API)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _ping(self, **_: Any) -> None:
        self._answer(200, "OK")

    def _version(self, **_: Any) -> None:
        self._answer(200, {"Version": "27.0.0-recording", "ApiVersion": API, "MinAPIVersion": "1.24", "Os": "linux"})

    def _images(self, **_: Any) -> None:
        self._answer(200, [{"Id": name, "RepoTags": [name]} for name in sorted(self.engine.images)])

    def _image(self, name: str, **_: Any) -> None:
        known = name in self.engine.images
        self._answer(200 if known else 404, {"Id": name, "RepoTags": [name]} if known else {"message": "No such image"})

    def _create(self, body: Any, query: dict[str, str], **_: Any) -> None:
        container = f"{len(self.engine.containers) + 1:064x}"
        with self.engine.lock:
            self.engine.containers[container] = {**body, "name": query.get("name", "")}
        self._answer(201, {"Id": container, "Warnings": []})

    def _found(self, name: str) -> str:
        for container, config in self.engine.containers.items():
            if container.startswith(name) or name.endswith(container[-12:]) or config["name"] == name:
                return container
        return name

    def _start(self, name: str, **_: Any) -> None:
        container = self._found(name)
        config = self.engine.containers[container]
        if config.get("Cmd"):
            self.engine.start(f"{container}:run", config["Cmd"], container)
        self._answer(204, None)

    def _inspect(self, name: str, **_: Any) -> None:
        container = self._found(name)
        config = self.engine.containers.get(container, {})
        state = {"Running": True, "Status": "running", "ExitCode": 0}
        self._answer(200, {"Id": container, "Name": f"/{config.get('name')}", "State": state, "Config": config,
                           "Image": config.get("Image"), "HostConfig": config.get("HostConfig", {})})  # fmt: skip

    def _stop(self, name: str, **_: Any) -> None:
        self.engine.stop(self._found(name))
        self._answer(204, None)

    def _kill(self, name: str, query: dict[str, str], **_: Any) -> None:
        said = query.get("signal", "KILL")
        number = int(said) if said.isdigit() else getattr(signal, f"SIG{said.removeprefix('SIG')}")
        self.engine.stop(self._found(name), number)
        self._answer(204, None)

    def _remove(self, name: str, **_: Any) -> None:
        self.engine.stop(self._found(name), signal.SIGKILL)
        self._answer(204, None)

    def _nothing(self, *_: Any, **__: Any) -> None:
        self._answer(201, {})

    def _exec(self, name: str, body: Any, **_: Any) -> None:
        container = self._found(name)
        key = f"{container}:{len(self.engine.execs)}"
        self.engine.execs[key] = {**body, "container": container}
        self._answer(201, {"Id": key})

    def _exec_start(self, key: str, **_: Any) -> None:
        given = self.engine.execs[key]
        process = self.engine.start(key, given["Cmd"], given["container"])
        self._stream(process, framed=not given.get("Tty"))

    def _exec_inspect(self, key: str, **_: Any) -> None:
        process = self.engine.processes.get(key)
        code = process.poll() if process else None
        self._answer(200, {"ID": key, "Running": process is not None and code is None, "ExitCode": code, "Pid": 1})

    def _attach(self, name: str, **_: Any) -> None:
        container = self._found(name)
        self._upgrade()
        process = self._running(container)
        self._pump(process, framed=True)

    def _wait(self, name: str, **_: Any) -> None:
        """Answer with headers at once, as Docker does, and with the code when the container has ended."""
        container = self._found(name)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        code = self._running(container).wait()
        content = json.dumps({"StatusCode": code if code >= 0 else 128 - code}).encode()
        with contextlib.suppress(OSError):
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))

    def _running(self, container: str) -> subprocess.Popen[bytes]:
        pause = threading.Event()
        while True:
            with self.engine.lock:
                process = self.engine.processes.get(f"{container}:run")
            if process is not None:
                return process
            pause.wait(0.01)

    def _upgrade(self) -> None:
        self.wfile.write(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        self.wfile.flush()

    def _stream(self, process: subprocess.Popen[bytes], *, framed: bool) -> None:
        self._upgrade()
        self._pump(process, framed=framed)

    def _pump(self, process: subprocess.Popen[bytes], *, framed: bool) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            while chunk := os.read(process.stdout.fileno(), 8192):
                self.wfile.write((struct.pack(">BxxxL", 1, len(chunk)) if framed else b"") + chunk)
                self.wfile.flush()
        process.wait()
        self.close_connection = True
