"""The load client: every answer counts, whole, and anything but a 200 ends the block."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from load_client import LoadClient, post_for

PADDING = "x" * 200_000  # more than one packet


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.seen.append((self.client_address, body, self.headers["Content-Type"]))
        answer = json.dumps({"timing_ms": {"total": len(body)}, "padding": PADDING}).encode()
        self.send_response(422 if body == b"bad" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Any]:
    """An HTTP server on loopback that answers what it was sent."""
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    running.seen = []
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    running.url = f"http://127.0.0.1:{running.server_port}/serve/x/1"
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_each_client_keeps_its_connection_and_posts_the_pictures_by_turns(server: Any) -> None:
    """Three requests of two clients come over two connections, bytes as they are, and each is counted."""
    block = post_for(server.url, [b"one", b"three"], clients=2, seconds=0.0, least=3)
    assert len(block.latencies_ms) == 6
    assert len({address for address, _, _ in server.seen}) == 2
    assert sorted(body for _, body, _ in server.seen) == [b"one"] * 3 + [b"three"] * 3
    assert {kind for _, _, kind in server.seen} == {"image/jpeg"}
    assert sorted(timing["total"] for timing in block.timings_ms) == [3, 3, 3, 5, 5, 5]
    assert block.last_answer["padding"] == PADDING
    assert block.throughput_rps == pytest.approx(6 / block.elapsed_s)
    assert min(block.latencies_ms) > 0


def test_a_refusal_is_no_measurement(server: Any) -> None:
    """An endpoint that refuses is not measured as a fast one: its words are in the error."""
    with pytest.raises(RuntimeError, match=r"(?s)422.*timing_ms"):
        post_for(server.url, [b"bad"], clients=1, seconds=0.0, least=1)


def test_the_process_posts_and_reports_faults(server: Any, tmp_path: Path) -> None:
    """The client's own process gives the same figures, outlives a refusal, and says how much processor it took."""
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    with LoadClient() as client:
        with pytest.raises(RuntimeError, match="422"):
            client.post(server.url, [bad], seconds=0.0)
        block = client.post(server.url, [good], clients=2, seconds=0.05, least=2)
    assert len(block.latencies_ms) >= 4
    assert block.client_cpu_s > 0
    assert block.timings_ms[0] == {"total": 4}
