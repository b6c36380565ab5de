"""The server as a process: who gets in, what survives, how it ends, what stays inside its folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.usefixtures("embedded")

Start = Callable[[Path], Any]


def _token(server: Any) -> str:
    with server.client() as client:
        token: str = client.post("/auth.login").json()["data"]["token"]
    return token


def _get(server: Any, path: str, **headers: str) -> httpx.Response:
    return httpx.get(server.api + path, headers=headers, timeout=10)


def test_acknowledged_calls_and_sessions_survive_kill_9(tmp_path: Path, start_server: Start) -> None:
    """After SIGKILL the same folder serves every acknowledged document, and old tokens stay valid."""
    with start_server(tmp_path) as server:
        token = _token(server)
        made = [server.call("projects.create", name=f"Kept {number}")["id"] for number in range(20)]
        server.process.kill()
        server.process.wait()
    with start_server(tmp_path) as server:
        found = server.call("projects.get_all", name="^Kept", only_fields=["id"])["projects"]
        assert [project["id"] for project in found] == made
        answer = _get(server, "/v2.31/projects.get_all", Authorization=f"Bearer {token}")
        assert answer.status_code == 200


def test_sigterm_ends_the_server_cleanly_and_soon(tmp_path: Path, start_server: Start) -> None:
    """SIGTERM ends the process within two seconds with code 0; its address file is gone."""
    with start_server(tmp_path) as server:
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - begun < 2
        assert not (server.data / "address.json").exists()


def test_private_files_stay_private_and_no_secret_is_shown(tmp_path: Path, start_server: Start) -> None:
    """The data folder and the signing key are the owner's; log and command line hold no secret."""
    with start_server(tmp_path) as server:
        token = _token(server)
        command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode()
        assert server.data.stat().st_mode & 0o077 == 0
        assert (server.data / "signing.key").stat().st_mode & 0o077 == 0
        for secret in (server.keys[1], token):
            assert secret not in command
            assert secret not in server.log.read_text()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example"])
def test_refuses_addresses_that_others_can_reach(tmp_path: Path, host: str) -> None:
    """Any address but loopback is refused before a socket is opened."""
    done = _start(tmp_path, "--host", host)
    assert done.returncode == 2
    assert "loopback" in done.stderr


def test_refuses_credentials_that_others_can_read(tmp_path: Path) -> None:
    """A credentials file with group or world access is refused."""
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"access_key": "a", "secret_key": "b"}))
    path.chmod(0o644)
    done = _start(tmp_path, "--credentials", str(path))
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


def test_a_second_server_on_the_same_folder_does_not_start(tmp_path: Path, start_server: Start) -> None:
    """The data folder belongs to one process at a time."""
    with start_server(tmp_path):
        done = _start(tmp_path, "--credentials", str(tmp_path / "credentials.json"))
    assert done.returncode == 2
    assert "another server" in done.stderr


def _start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLEARML_API_ACCESS_KEY": "a", "CLEARML_API_SECRET_KEY": "b"}
    command = [sys.executable, "-m", "tao2serve.sandbox.clearml_server", "--data", str(folder / "data")]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=30, env=environment, check=False
    )


def test_credentials_are_needed_everywhere(server: Any) -> None:
    """API, files and control refuse callers without credentials, with wrong ones, and forged tokens."""
    forged = _token(server)[:-4] + "AAAA"
    for base, path in ((server.api, "/tasks.get_all"), (server.files, "/a/b"), (server.api, "/_control/unhandled")):
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": f"Bearer {forged}"}):
            assert httpx.get(base + path, headers=headers, timeout=10).status_code == 401, (path, headers)
        assert httpx.get(base + path, auth=(server.keys[0], "wrong"), timeout=10).status_code == 401
    assert httpx.get(server.api + "/_control/health", timeout=10).json() == {"status": "ok"}


def test_unhandled_calls_are_counted(tmp_path: Path, start_server: Start) -> None:
    """Endpoints ClearML has and this server has not answer 400, unknown ones 404; both are counted."""
    with start_server(tmp_path) as server, server.client() as client:
        assert client.post("/v2.31/projects.merge", json={}).status_code == 400
        unknown = client.post("/v2.31/tasks.nothing", json={})
        assert unknown.json()["meta"]["result_code"] == unknown.status_code == 404
        report = client.get("/_control/unhandled").json()
        assert report["calls"] == {"projects.merge": 1, "tasks.nothing": 1}
        assert client.post("/_control/reset").status_code == 200
        assert client.get("/_control/unhandled").json()["count"] == 0


def test_connections_close_after_every_answer(server: Any) -> None:
    """No connection outlives its answer: a forked client process inherits no socket in use."""
    for base in (server.api, server.files):
        assert httpx.get(base + "/debug.ping", timeout=10).headers["connection"] == "close"


def test_parallel_edits_lose_nothing(server: Any) -> None:
    """Calls from many threads are applied one after the other: no entry and no event is lost."""
    task = server.call("tasks.create", name="parallel", type="training")["id"]

    def work(number: int) -> None:
        item = {"section": "properties", "name": f"p{number}", "value": str(number)}
        server.call("tasks.edit_hyper_params", task=task, hyperparams=[item])
        event = {"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v"}
        server.call("events.add", **event, value=float(number), iter=number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    doc = server.call("tasks.get_by_id", task=task)["task"]
    assert len(doc["hyperparams"]["properties"]) == 40
    (metric,) = (value for variants in doc["last_metrics"].values() for value in variants.values())
    assert (metric["count"], metric["min_value"], metric["max_value"]) == (40, 0.0, 39.0)
    curve = server.call("events.scalar_metrics_iter_histogram", task=task)["m"]["v"]
    assert curve["x"] == list(range(40))


def test_bodies_that_are_too_large_are_refused(server: Any) -> None:
    """An API body over the limit is 413 in the envelope, and the server lives on."""
    host, port = server.api.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"POST /v2.31/tasks.get_all HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        try:
            for _ in range(80):
                connection.sendall(block)
        except OSError:
            pass
        answer = connection.recv(100)
    assert b" 413 " in answer
    assert server.call("debug.ping") == {"msg": "ClearML server"}


def _linked_folder(server: Any) -> Path:
    """Return a folder outside that a link inside the files folder points to."""
    outside = Path(server.data).parent / "outside"
    if not outside.exists():
        outside.mkdir()
        (outside / "secret").write_text("secret")
        (Path(server.data) / "files" / "link").symlink_to(outside)
    return outside


def _raw(base: str, method: str, target: str, auth: str) -> int:
    """Send a request line as it is, which well-behaved clients would normalise; return the status."""
    host, port = base.removeprefix("http://").split(":")
    request = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {auth}\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request.encode())
        return int(connection.recv(64).split()[1])


@pytest.mark.parametrize(
    "target",
    [
        *("/../clearml.sqlite", "/%2e%2e/clearml.sqlite", "/%2e%2e%2fclearml.sqlite", "/a/../../signing.key"),
        *("/..%2f..%2fetc/passwd", "//etc/passwd", "/%00", "/a%00b", "/link/secret", "/" + "x" * 300, "/./a"),
    ],
)
def test_nothing_outside_the_files_folder_can_be_read_or_deleted(server: Any, target: str) -> None:
    """Dots, encoded dots, absolute paths, links and NUL never reach a file outside."""
    outside = _linked_folder(server)
    auth = f"Bearer {_token(server)}"
    for method in ("GET", "HEAD", "DELETE"):
        assert _raw(server.files, method, target, auth) in (400, 404)
    assert (server.data / "signing.key").is_file()
    assert (outside / "secret").is_file()


@pytest.mark.parametrize("name", ["../escaped", "/../../escaped", "a/../../escaped", "..", "link/escaped", ""])
def test_nothing_outside_the_files_folder_can_be_written(server: Any, name: str) -> None:
    """An upload whose field name leaves the folder is refused and leaves no file behind."""
    _linked_folder(server)
    boundary = "b0undary"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'
        f"content\r\n--{boundary}--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = httpx.post(server.files, content=body, headers=headers, auth=server.keys, timeout=10)
    assert answer.status_code == 400
    assert not list(server.data.parent.rglob("escaped"))
    assert list((server.data / "incoming").iterdir()) == []


def test_a_broken_upload_leaves_nothing(server: Any) -> None:
    """An upload that ends early is refused; neither the file nor a temporary stays."""
    body = b'--b\r\nContent-Disposition: form-data; name="half/file.bin"\r\n\r\nonly the beginning'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = httpx.post(server.files, content=body, headers=headers, auth=server.keys, timeout=10)
    assert answer.status_code == 400
    assert not (server.data / "files" / "half").exists()
    assert list((server.data / "incoming").iterdir()) == []


def test_files_are_served_whole_and_cannot_run_in_a_browser(server: Any, tmp_path: Path) -> None:
    """A large upload comes back byte for byte, HEAD tells its size, and pages are sandboxed."""
    content = os.urandom(3_000_000)
    name = "/proj/it's a \u00fcn\u00efcode name.html"
    sent = httpx.post(server.files, files={name: ("f", content)}, auth=server.keys, timeout=30)
    assert sent.json() == [name.removeprefix("/")]
    got = httpx.get(server.files + name, auth=server.keys, timeout=30)
    assert got.content == content
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]
    head = httpx.head(server.files + name, auth=server.keys, timeout=10)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
    assert httpx.delete(server.files + name, auth=server.keys, timeout=10).status_code == 200
    assert httpx.delete(server.files + name, auth=server.keys, timeout=10).status_code == 404


def test_names_that_hold_an_escape_are_found_as_the_sdk_asks_for_them(server: Any) -> None:
    """The SDK uploads a colon in a task's name as a literal "%3A" and asks for that URL: it is found, and deleted."""
    sent = httpx.post(server.files, files={"/run%3A1/w.bin": ("f", b"weights")}, auth=server.keys, timeout=10)
    assert sent.json() == ["run%3A1/w.bin"]
    for url in (f"{server.files}/run%3A1/w.bin", f"{server.files}/run%253A1/w.bin"):
        assert httpx.get(url, auth=server.keys, timeout=10).content == b"weights"
    assert httpx.delete(f"{server.files}/run%3A1/w.bin", auth=server.keys, timeout=10).text == "run%3A1/w.bin"
    assert httpx.get(f"{server.files}/run%3A1/w.bin", auth=server.keys, timeout=10).status_code == 404
