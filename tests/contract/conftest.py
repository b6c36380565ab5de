"""The sandbox server as a process, and what a client needs to reach it.

With TAO2SERVE_LIVE_CLEARML=1 the tests of the SDK and of clearml-serving run against the ClearML server that
CLEARML_API_HOST, CLEARML_WEB_HOST, CLEARML_FILES_HOST and the two keys name; tests of the process itself skip.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import tao2serve

_FLOWS = Path(__file__).with_name("flows")
_PACKAGE_ROOT = Path(tao2serve.__file__).parents[1]
_START_S = 20.0
_FLOW_S = 90.0
_KEYS = ("contract-access", "contract-secret")
# docs/clearml.md: the reporter's subprocess costs seconds at every close; the environment cannot switch it off.
_CLIENT_CONF = "sdk { development { report_use_subprocess: false } }\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running sandbox server."""

    data: Path
    process: subprocess.Popen[bytes] | None = None
    api: str
    files: str
    log: Path
    keys: tuple[str, str] = _KEYS

    def watch(self) -> None:
        """Forget the calls that were counted so far."""
        with self.client() as client:
            client.delete("/_control/unhandled")

    def client(self) -> httpx.Client:
        """Return a client with the server's credentials."""
        return httpx.Client(base_url=self.api, auth=self.keys, timeout=30)

    def call(self, endpoint: str, **params: Any) -> dict[str, Any]:
        """Make one API call that must succeed; return its data."""
        with self.client() as client:
            answer = client.post(f"/v2.31/{endpoint}", json=params)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def unhandled(self) -> dict[str, Any]:
        """Return what the server was asked and could not answer."""
        with self.client() as client:
            report: dict[str, Any] = client.get("/_control/unhandled").json()
        return report

    def assert_answered(self) -> None:
        """Fail if a call found no route, or met a defect of the server."""
        report = self.unhandled()
        assert (report["count"], report["defects"]) == (0, {}), (report, self.log.read_text()[-4000:])


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveServer(Server):
    """A real ClearML server: it has no control API and is nobody's process."""

    def watch(self) -> None:
        """Do nothing: a real server counts nothing for us."""

    def assert_answered(self) -> None:
        """Do nothing: a real server has no calls it does not know."""


def live_server(environ: Mapping[str, str]) -> LiveServer | None:
    """Return the real server that the environment asks the tests to run against, if any."""
    if environ.get("TAO2SERVE_LIVE_CLEARML") != "1":
        return None
    nowhere = Path(os.devnull)
    return LiveServer(
        data=nowhere,
        api=environ["CLEARML_API_HOST"],
        files=environ["CLEARML_FILES_HOST"],
        log=nowhere,
        keys=(environ["CLEARML_API_ACCESS_KEY"], environ["CLEARML_API_SECRET_KEY"]),
    )


def write_credentials(folder: Path) -> Path:
    """Write the credentials file that the server starts with."""
    path = folder / "credentials.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"access_key": _KEYS[0], "secret_key": _KEYS[1]}))
    return path


def server_environment() -> dict[str, str]:
    """Return the environment of a server process: the package that is tested, and no ClearML settings."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CLEARML_", "TRAINS_"))}
    return {**clean, "PYTHONPATH": str(_PACKAGE_ROOT)}


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """Start a server on a folder (its data survives); end it, by force if it does not go."""
    data, log = folder / "data", folder / "server.log"
    command = [sys.executable, "-m", "tao2serve.sandbox.clearml_server", "--data", str(data)]
    command += ["--credentials", str(write_credentials(folder))]
    (data / "address.json").unlink(missing_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=server_environment())
    try:
        address = _wait_for(data / "address.json", process, log)
        yield Server(data=data, process=process, api=address["api"], files=address["files"], log=log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> Mapping[str, str]:
    deadline = time.monotonic() + _START_S
    while not path.is_file():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    content: Mapping[str, str] = json.loads(path.read_text())
    return content


@pytest.fixture
def embedded() -> None:
    """Skip when the tests run against a real ClearML server."""
    if live_server(os.environ):
        pytest.skip("TAO2SERVE_LIVE_CLEARML=1: this test is about the embedded server itself")


@pytest.fixture
def start_server(embedded: None) -> Callable[[Path], Any]:
    """Start servers of one's own: `with start_server(folder) as server`."""
    return running_server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave each other's projects alone."""
    live = live_server(os.environ)
    if live:
        yield live
        return
    with running_server(tmp_path_factory.mktemp("clearml")) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The shared server; the test fails if a call found no route."""
    shared_server.watch()
    yield shared_server
    shared_server.assert_answered()


def environment_for(server: Server, folder: Path) -> Mapping[str, str]:
    """Return what ClearML clients read to find a server; their settings and caches lie in a folder."""
    conf = folder / "clearml.conf"
    conf.write_text(_CLIENT_CONF)
    return {
        **server_environment(),
        "CLEARML_API_HOST": server.api,
        "CLEARML_WEB_HOST": os.environ.get("CLEARML_WEB_HOST", server.api),
        "CLEARML_FILES_HOST": server.files,
        "CLEARML_API_ACCESS_KEY": server.keys[0],
        "CLEARML_API_SECRET_KEY": server.keys[1],
        "CLEARML_CONFIG_FILE": str(conf),
        "CLEARML_CACHE_DIR": str(folder / "cache"),
    }


@pytest.fixture(scope="session")
def client_environment(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What ClearML clients read to find the shared server."""
    return environment_for(shared_server, tmp_path_factory.mktemp("client"))


@pytest.fixture
def flow(server: Server, client_environment: Mapping[str, str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a script of `flows/` with the real SDK; it prints its result as the last line, in JSON."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, str(_FLOWS / name), *arguments]
        done = subprocess.run(
            command, env=dict(client_environment), cwd=tmp_path, capture_output=True, text=True, timeout=_FLOW_S
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    return run


@pytest.fixture
def serving_cli(server: Server, client_environment: Mapping[str, str], tmp_path: Path) -> Callable[..., str]:
    """Run the real `clearml-serving`; return what it printed."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "clearml_serving", *arguments]
        done = subprocess.run(
            command, env=dict(client_environment), cwd=tmp_path, capture_output=True, text=True, timeout=_FLOW_S
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="module")
def module_server() -> Callable[[Path], Any]:
    """Start a server of the module's own."""
    return running_server


@pytest.fixture(scope="module")
def module_client() -> Callable[[Server, Path], Mapping[str, str]]:
    """Return what clients read to find a server of the module's own."""
    return environment_for
