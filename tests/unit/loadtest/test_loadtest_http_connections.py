"""HTTP with a server that says exactly what a test gives it."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tao2serve.loadtest.http_connections import HttpConnections, request_head
from tao2serve.loadtest.posting import EndpointSender, Image
from tao2serve.loadtest.replies import socket_failure

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Server:
    """Answers the n-th request of all by the n-th answer; None or the end of them closes the connection."""

    answers: list[bytes | None]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/serve/a"

    def serve(self, opened: socket.socket) -> None:
        while head := self._head(opened):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = head.partition(b"\r\n\r\n")[2]
            while len(body) < length:
                body += opened.recv(65536)
            self.requests.append(head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body)
            answer = self.answers.pop(0) if self.answers else None
            if answer is None:
                break
            opened.sendall(answer)
        opened.close()
        self.answered.set()

    def _head(self, opened: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            received = opened.recv(65536)
            if not received:
                return b""
            head += received
        return head


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    listening = socket.create_server(("127.0.0.1", 0))

    def start(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> Server:
        made = Server(answers=list(answers), port=listening.getsockname()[1])

        def accept() -> None:
            try:
                while True:
                    opened, _ = listening.accept()
                    if tls is not None:
                        opened = tls.wrap_socket(opened, server_side=True)
                    made.connections.append(opened)
                    threading.Thread(target=made.serve, args=(opened,), daemon=True).start()
            except OSError:
                pass  # the test is over

        threading.Thread(target=accept, daemon=True).start()
        return made

    yield start
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def exchange(server: Server, count: int = 1, body: bytes = b"picture") -> list[tuple[int, bytes]]:
    connections = HttpConnections(server.url, timeout_s=2)
    head = request_head(server.url, {"Content-Type": "image/jpeg"})
    try:
        answers = [connections.exchange(head, body) for _ in range(count)]
    finally:
        connections.close()
    return [(answer.status, answer.content) for answer in answers]


def test_a_connection_is_kept(server: Callable[..., Server]) -> None:
    """Three requests, one connection; what arrives is the whole picture under the headers it was given."""
    running = server(OK, OK, OK)
    body = bytes(range(256)) * 8192
    assert exchange(running, 3, body) == [(200, b"ok")] * 3
    assert len(running.connections) == 1
    head, _, received = running.requests[2].partition(b"\r\n\r\n")
    assert received == body
    assert head.split(b"\r\n") == [
        b"POST /serve/a HTTP/1.1", b"Host: 127.0.0.1:%d" % running.port, b"User-Agent: tao2serve",
        b"Content-Type: image/jpeg", b"Content-Length: %d" % len(body),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_the_server_ends_is_not_used_again(server: Callable[..., Server], answer: bytes) -> None:
    """Neither one that it says to close, nor one that it closes without a word once it has answered."""
    running = server(answer, OK)
    assert exchange(running, 2) == [(200, b"ok")] * 2
    assert len(running.connections) == 2


def test_a_connection_that_was_closed_meanwhile_is_noticed(server: Callable[..., Server]) -> None:
    """It costs no request: another connection is made."""
    running = server(OK, OK)
    connections = HttpConnections(running.url, timeout_s=2)
    head = request_head(running.url, {})
    connections.exchange(head, b"1")
    running.connections[0].shutdown(socket.SHUT_RDWR)
    running.answered.wait(2)
    assert connections.exchange(head, b"2").content == b"ok"
    assert len(running.connections) == 2
    connections.close()


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n" + gzip.compress(b"ok"), b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_answers_come_in_many_ways(server: Callable[..., Server], answer: bytes, content: bytes) -> None:
    """In pieces, packed, after an interim one, without content: each is read to its end and not further."""
    assert exchange(server(answer, OK), 2) == [(200, content), (200, b"ok")]


def test_an_answer_that_ends_with_its_connection(server: Callable[..., Server]) -> None:
    """Without a length the end of the connection is the end of the answer."""
    running = server(b"HTTP/1.1 200 OK\r\n\r\nok")
    threading.Timer(0.1, lambda: running.connections[0].shutdown(socket.SHUT_RDWR)).start()
    assert exchange(running) == [(200, b"ok")]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ((None,), "connection closed"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", None), "timeout"),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), "HTTPParseError"),
    ],
)
def test_failures_have_their_names(server: Callable[..., Server], answers: tuple[bytes | None, ...], kind: str) -> None:
    """A closed connection, half an answer, another protocol; none is sent twice."""
    running = server(*answers)
    connections = HttpConnections(running.url, timeout_s=0.3)
    with pytest.raises(Exception) as raised:  # noqa: PT011  any of them
        connections.exchange(request_head(running.url, {}), b"1")
    assert socket_failure(raised.value)[0] == kind
    assert len(running.requests) == 1


def test_a_refusal_before_the_end_of_the_body_is_read(server: Callable[..., Server]) -> None:
    """A server may answer 413 and close while the picture is still on its way."""
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        opened, _ = listening.accept()
        opened.recv(1000)
        opened.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        opened.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        opened.close()

    threading.Thread(target=refuse, daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    with listening:
        assert HttpConnections(url, timeout_s=2).exchange(request_head(url, {}), b"x" * 200_000).status == 413


def test_over_tls(tmp_path: Path, server: Callable[..., Server]) -> None:
    """The same over an encrypted connection, which is kept too; the certificate need not be one that is trusted."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=nobody"
    subprocess.run(
        [*command.split(), "-keyout", "key", "-out", "certificate"], cwd=tmp_path, check=True, capture_output=True
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    running = server(OK, OK, tls=context)
    body = bytes(range(256)) * 2048
    connections = HttpConnections(running.url.replace("http", "https"), timeout_s=2)
    head = request_head(running.url, {})
    assert [connections.exchange(head, body).content for _ in range(2)] == [b"ok", b"ok"]
    assert len(running.connections) == 1
    assert running.requests[1].endswith(body)
    connections.close()


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://h", b"POST / HTTP/1.1", b"Host: h"),
        ("http://h:80/a b/ü?x=1 2&y=%20", b"POST /a%20b/%C3%BC?x=1%202&y=%20 HTTP/1.1", b"Host: h:80"),
        ("https://[::1]:8443/serve/a", b"POST /serve/a HTTP/1.1", b"Host: [::1]:8443"),
        ("http://bücher.example/a#part", b"POST /a HTTP/1.1", b"Host: xn--bcher-kva.example"),
    ],
)
def test_what_a_request_begins_with(url: str, line: bytes, host: bytes) -> None:
    """Path and query as a URL may hold them, what is quoted not quoted again; the host as a server knows it."""
    assert request_head(url, {}).split(b"\r\n")[:2] == [line, host]


def test_an_endpoint_sender_says_what_came_of_it(server: Callable[..., Server]) -> None:
    """The server's timing of an answer, its words in a refusal, the name of a failure; the bytes in both directions."""
    timing = b'{"timing_ms": {"infer": 2.5}}'
    refusal = b'{"detail": "queue is full"}'
    answers = [b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)
               for status, text in ((b"200 OK", timing), (b"503 No", refusal))]  # fmt: skip
    running = server(*answers, None)
    sender = EndpointSender(running.url, (Image(path=None, body=b"picture", media_type="image/png"),), timeout_s=2)
    good, refused, failed = (sender.send(0) for _ in range(3))
    sender.close()
    assert (good.status, good.error, good.timing_ms) == (200, "", {"infer": 2.5})
    assert (good.sent_bytes, good.received_bytes) == (7, len(timing))
    assert (refused.status, refused.error, refused.detail) == (503, "HTTP 503", "queue is full")
    assert (failed.status, failed.error) == (0, "connection closed")
    assert b"Content-Type: image/png" in running.requests[0]
