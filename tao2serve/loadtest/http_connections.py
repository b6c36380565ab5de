"""HTTP as a load generator needs it: whole requests over kept connections, and nothing that takes time beside that.

No redirects, cookies, proxies or second tries, and what a request says of itself is put together once, before the run.
Processor time of the client is time in which other requests wait; with this one a request costs the generator less
than it costs plain locust, which does more besides (benchmarks/README.md). In locust's process gevent has replaced
`socket` and `ssl`: whoever waits here lets others run.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

__all__ = ["Answer", "HttpConnections", "request_head"]

_BLOCK_BYTES = 2**16  # read from a socket at a time
_ALLOWED = "%/:=&?~+!$,;'@()*[]"  # in a path or query as it is given, what is quoted already too


def request_head(url: str, headers: Mapping[str, str]) -> bytes:
    """Return what a POST to the URL begins with, for `HttpConnections.exchange`."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe=_ALLOWED) + (f"?{quote(parts.query, safe=_ALLOWED)}" if parts.query else "")
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "User-Agent: tao2serve"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), ""]).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, unpacked if gzip had packed it."""

    status: int
    content: bytes


@dataclass(frozen=True, slots=True)
class _Connection:
    socket: Any
    is_quiet: Callable[[], bool]  # nothing has arrived, its end neither


class HttpConnections:
    """Connections to the server of a URL, as many as exchange at once, without a limit of their own.

    `timeout_s` is the longest wait for a connection or for the next bytes. Certificates are not checked, as by locust.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        from geventhttpclient.response import HTTPSocketResponse

        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _unchecked() if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []
        self._answer_of: Any = HTTPSocketResponse

    def exchange(self, head: bytes, body: bytes) -> Answer:
        """Post a body and return the whole answer; raises what the socket, or the reader of answers, raises."""
        connection = self._connected()
        opened = connection.socket
        try:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it may have refused half a body
                self._send(opened, b"%bContent-Length: %d\r\n\r\n" % (head, len(body)), body)
            answer = self._answer_of(opened, block_size=_BLOCK_BYTES, method="POST")
            content = answer.read()
        except BaseException:
            opened.close()
            raise
        if answer.should_close():
            opened.close()
        else:
            self._idle.append(connection)
        if answer.get("content-encoding") == "gzip":
            content = zlib.decompress(content, 16 + zlib.MAX_WBITS)
        return Answer(answer.get_code(), content)

    def close(self) -> None:
        """Close what nobody uses; others may still wait for answers."""
        while self._idle:
            self._idle.pop().socket.close()

    def _send(self, opened: Any, head: bytes, body: bytes) -> None:
        if self._tls is not None:
            opened.sendall(head + body)
            return
        sent = opened.sendmsg((head, body))  # at once, and without a copy of the picture
        if sent < len(head):
            opened.sendall(head[sent:] + body)
        elif sent < len(head) + len(body):
            opened.sendall(memoryview(body)[sent - len(head) :])

    def _connected(self) -> _Connection:
        """Return the one used last, which the server is least likely to have closed, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.socket.close()
        opened: Any = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            opened = self._tls.wrap_socket(opened, server_hostname=self._host)
        return _Connection(opened, _quietness(opened))


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _quietness(opened: Any) -> Callable[[], bool]:
    """Return what asks the kernel: gevent has no `poll` that does not wait, and `select` knows no file above 1,023."""
    monkey = sys.modules.get("gevent.monkey")
    watch = (monkey.get_original("select", "poll") if monkey is not None else select.poll)()
    watch.register(opened, select.POLLIN)
    return lambda: not watch.poll(0)
