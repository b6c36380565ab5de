"""The first requests after a load, against a real server in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tao2serve.errors import ServiceError
from tao2serve.loadtest.cold_start import ColdStart, first_requests


class Cold(BaseHTTPRequestHandler):
    """The first answer takes 100 ms; a body of `bad` is refused."""

    bodies: list[bytes] = []  # noqa: RUF012 - what a server of one test got

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.bodies:
            time.sleep(0.1)
        self.bodies.append(body)
        self.send_response(503 if body == b"bad" else 200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"busy")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Cold.bodies = []
    with HTTPServer(("127.0.0.1", 0), Cold) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/serve/x/1"
        server.shutdown()
        thread.join()


def test_each_request_is_timed_by_itself(url: str, tmp_path: Path) -> None:
    """In order, the pictures in turn; the slow first one is seen."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    taken_ms = first_requests(url, tmp_path, timeout_s=5, count=3)
    assert Cold.bodies == [b"a.jpg", b"b.jpg", b"a.jpg"]
    assert taken_ms[0] >= 100
    assert len(taken_ms) == 3
    told = ColdStart(models=("x_1",), load_s=1.23456, requests_ms=taken_ms).to_dict()
    assert told["load_s"] == 1.235


def test_a_failure_is_no_latency(url: str, tmp_path: Path) -> None:
    """An answer other than 200, and none at all, end it with the server's words."""
    (tmp_path / "a.jpg").write_bytes(b"bad")
    with pytest.raises(ServiceError, match="503 to request 1") as caught:
        first_requests(url, tmp_path, timeout_s=5)
    assert caught.value.evidence == "busy"
    with pytest.raises(ServiceError, match="no answer to request 1"):
        first_requests("http://127.0.0.1:9/serve/x/1", tmp_path, timeout_s=5)
