"""What a kill, a full disk and a damaged file do: nothing acknowledged is lost, nothing half is served."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.usefixtures("embedded")

Start = Callable[[Path], Any]
WRITERS = 3  # of each kind
LARGEST = 400_000  # bytes


def content_of(name: str) -> bytes:
    """Return what is uploaded under a name, so that any bytes that come back can be judged."""
    size = int(hashlib.sha256(name.encode()).hexdigest(), 16) % LARGEST
    return (name.encode() * (size // len(name) + 1))[:size]


def upload(server: Any, name: str, content: bytes) -> httpx.Response:
    """Upload as the SDK does; urllib3's quoting is not needed for these names."""
    return httpx.post(server.files, files={name: (name, content)}, auth=server.keys, timeout=20)


class Writers:
    """Threads that write until the server is gone, and remember what it acknowledged."""

    def __init__(self, server: Any, task: str) -> None:
        self.server, self.task = server, task
        self.parameters: set[str] = set()
        self.events: set[int] = set()
        self.files: set[str] = set()
        self.versions: dict[str, int] = {}
        self.tried: set[str] = set()
        writers = (self._edit, self._report, self._upload, self._overwrite)
        self._threads = [
            threading.Thread(target=self._until_gone, args=(write, number))
            for write in writers
            for number in range(WRITERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for_all(self) -> None:
        """Return when each kind of write was acknowledged at least once."""
        deadline = time.monotonic() + 30
        while not all((self.parameters, self.events, self.files, self.versions)):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _until_gone(self, write: Callable[[int, int], None], number: int) -> None:
        try:
            for turn in itertools.count():
                write(number, turn)
        except httpx.TransportError:
            return  # the server was killed

    def _edit(self, number: int, turn: int) -> None:
        name = f"edit-{number}-{turn}"
        item = {"section": "properties", "name": name, "value": name}
        self.server.call("tasks.edit_hyper_params", task=self.task, hyperparams=[item])
        self.parameters.add(name)

    def _report(self, number: int, turn: int) -> None:
        step = number + WRITERS * turn
        event = {"type": "training_stats_scalar", "task": self.task, "metric": "m", "variant": "v"}
        self.server.call("events.add", **event, value=float(step), iter=step)
        self.events.add(step)

    def _upload(self, number: int, turn: int) -> None:
        name = f"new/{number}/{turn}.bin"
        self.tried.add(name)
        assert upload(self.server, name, content_of(name)).status_code == 200
        self.files.add(name)

    def _overwrite(self, number: int, turn: int) -> None:
        assert upload(self.server, f"same/{number}.bin", content_of(f"{number}-{turn}")).status_code == 200
        self.versions[f"same/{number}.bin"] = turn


def test_kill_9_amid_many_writers_loses_nothing_acknowledged(tmp_path: Path, start_server: Start) -> None:
    """After SIGKILL at a random moment every acknowledged edit, event and file is there, and every file is whole."""
    with start_server(tmp_path) as server:
        task = server.call("tasks.create", name="crash", type="training")["id"]
        writers = Writers(server, task)
        writers.start()
        writers.wait_for_all()
        time.sleep(random.uniform(0.1, 0.8))
        server.process.kill()
        writers.join()
    with start_server(tmp_path) as server:
        doc = server.call("tasks.get_by_id", task=task)["task"]
        assert writers.parameters <= {item["value"] for item in doc["hyperparams"]["properties"].values()}
        curve = server.call("events.scalar_metrics_iter_histogram", task=task, samples=100_000)["m"]["v"]
        assert writers.events <= set(curve["x"])
        assert curve["x"] == curve["y"]
        summary = next(iter(next(iter(doc["last_metrics"].values())).values()))
        assert summary["count"] == len(curve["x"])  # an event and what the task remembers of it are one write
        for name in writers.tried:
            answer = httpx.get(f"{server.files}/{name}", auth=server.keys, timeout=10)
            assert answer.status_code == 200 or name not in writers.files
            assert answer.status_code in (200, 404)
            if answer.status_code == 200:
                assert answer.content == content_of(name)
        for name, turn in writers.versions.items():
            found = httpx.get(f"{server.files}/{name}", auth=server.keys, timeout=10).content
            number = name.removeprefix("same/").removesuffix(".bin")
            assert found in (content_of(f"{number}-{turn}"), content_of(f"{number}-{turn + 1}"))
        assert list((server.data / "incoming").iterdir()) == []
        check = sqlite3.connect(server.data / "clearml.sqlite")
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        check.close()


def started(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to refuse to start."""
    command = [sys.executable, "-m", "tao2serve.sandbox.clearml_server", "--data", str(folder / "data")]
    command += ["--credentials", str(folder / "credentials.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_torn_log_loses_only_its_tail_and_a_damaged_database_is_refused(tmp_path: Path, start_server: Start) -> None:
    """Garbage behind the write-ahead log is ignored; garbage inside the database is one sentence and exit 2."""
    with start_server(tmp_path) as server:
        made = [server.call("projects.create", name=f"Kept {number}")["id"] for number in range(50)]
        server.process.kill()
        server.process.wait()
    database, log = tmp_path / "data" / "clearml.sqlite", tmp_path / "data" / "clearml.sqlite-wal"
    with log.open("ab") as file:
        file.write(os.urandom(3000))
    with start_server(tmp_path) as server:
        found = server.call("projects.get_all", name="^Kept", only_fields=["id"])["projects"]
        assert [project["id"] for project in found] == made
    pages = bytearray(database.read_bytes())
    pages[4096:] = os.urandom(len(pages) - 4096)
    for damaged in (bytes(pages), b"no database " * 1000):
        database.write_bytes(damaged)
        done = started(tmp_path)
        assert done.returncode == 2
        assert "is damaged" in done.stderr
        assert "--purge" in done.stderr
        assert "Traceback" not in done.stderr
        assert database.read_bytes() == damaged


def test_a_cut_off_signing_key_is_made_anew(tmp_path: Path, start_server: Start) -> None:
    """A key file that a kill left empty signs no tokens."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "signing.key").touch(mode=0o600)
    with start_server(tmp_path) as server:
        assert (server.data / "signing.key").stat().st_size == 32
        assert server.call("debug.ping")


def test_a_full_disk_is_told_and_survived(tmp_path: Path, start_server: Start) -> None:
    """Calls and uploads that find no room fail with a sentence, leave nothing half, and work again later.

    The room is that of RLIMIT_FSIZE, which stops a file of a process as a full disk would.
    """
    with start_server(tmp_path) as server:
        kept = server.call("projects.create", name="Kept")["id"]
        pid = server.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        with server.client() as client:
            answer = client.post("/v2.31/projects.create", json={"name": "Lost"})
        assert answer.status_code == answer.json()["meta"]["result_code"] == 500
        assert "could not store" in answer.json()["meta"]["result_msg"]
        refused = upload(server, "half/file.bin", b"x" * 100_000)
        assert refused.status_code == 507
        assert "full" in refused.text
        assert not (server.data / "files" / "half").exists()
        assert list((server.data / "incoming").iterdir()) == []
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found = server.call("projects.get_all", only_fields=["id"])["projects"]
        assert [project["id"] for project in found] == [kept]
        assert server.call("projects.create", name="Found")
        assert upload(server, "half/file.bin", b"x" * 100_000).status_code == 200
        assert server.unhandled()["defects"] == {}
    shutil.rmtree(tmp_path / "data")
