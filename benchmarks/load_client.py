"""A light load generator: raw sockets kept open, in a process of its own, so that the servers are what is measured.

`LoadClient` starts it and speaks JSON lines with it. Each connection posts a picture, waits for the whole answer and
posts the next one (a closed loop). Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

__all__ = ["Block", "Connection", "LoadClient"]

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What came out of posting for some time: every request that began within it."""

    latencies_ms: tuple[float, ...]
    elapsed_s: float  # from the first request's start to the last answer's end
    client_cpu_s: float
    last_answer: dict[str, Any]
    timings_ms: tuple[dict[str, float], ...]  # `timing_ms` of each answer that has one

    @property
    def throughput_rps(self) -> float:
        return len(self.latencies_ms) / self.elapsed_s

    @property
    def client_cpu_ms(self) -> float:
        """Processor time of the client for one request."""
        return 1e3 * self.client_cpu_s / len(self.latencies_ms)


class Connection:
    """One kept connection to one URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: image/jpeg\r\n"
            "Accept: application/json\r\nContent-Length: "
        ).encode()

    def post(self, body: bytes) -> bytes:
        """Return the answer's body; anything but a 200 with a Content-Length raises RuntimeError."""
        self._socket.sendall(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        found = b""
        while (end := found.find(b"\r\n\r\n")) < 0:
            found += self._receive()
        head, content = found[:end], found[end + 4 :]
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), None)
        if length is None:
            raise RuntimeError(f"an answer without Content-Length: {head[:300]!r}")
        while len(content) < length:
            content += self._receive()
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0].decode()}: {content[:300].decode(errors='replace')}")
        return content

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        part = self._socket.recv(1 << 16)
        if not part:
            raise RuntimeError("the server closed the connection")
        return part


def post_for(url: str, images: Sequence[bytes], *, clients: int, seconds: float, least: int) -> Block:
    """Post over that many connections for `seconds`, at least `least` requests on each."""
    connections = [Connection(url) for _ in range(clients)]
    results: list[list[float]] = [[] for _ in connections]
    answers: list[list[bytes]] = [[] for _ in connections]
    faults: list[BaseException] = []
    cpu, start = time.process_time(), time.perf_counter()

    def loop(index: int) -> None:
        try:
            while len(results[index]) < least or time.perf_counter() - start < seconds:
                image = images[(index + len(results[index])) % len(images)]
                before = time.perf_counter()
                answer = connections[index].post(image)
                results[index].append(1e3 * (time.perf_counter() - before))
                answers[index].append(answer)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        connection.close()
    if faults:
        raise faults[0]
    documents = [json.loads(answer) for found in answers for answer in found]  # read after the clock was stopped
    return Block(
        latencies_ms=tuple(latency for found in results for latency in found),
        elapsed_s=elapsed,
        client_cpu_s=cpu,
        last_answer=documents[-1],
        timings_ms=tuple(document["timing_ms"] for document in documents if "timing_ms" in document),
    )


class LoadClient:
    """The load generator's process; use it as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True, env={"PATH": os.environ.get("PATH", "")},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def post(self, url: str, images: Sequence[Path], *, clients: int = 1, seconds: float, least: int = 1) -> Block:
        """Have it post; raises RuntimeError with its words if any answer was not 200."""
        job = {"url": url, "images": [str(path) for path in images], "clients": clients, "seconds": seconds,
               "least": least}  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        document: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"fault": "the load client ended"}')
        if "fault" in document:
            raise RuntimeError(f"{url}: {document['fault']}")
        document["latencies_ms"] = tuple(document["latencies_ms"])
        document["timings_ms"] = tuple(document["timings_ms"])
        return Block(**document)


def serve(jobs: IO[str], results: IO[str]) -> None:
    """Do each job that comes as a line and answer it with a line."""
    for line in jobs:
        job = json.loads(line)
        images = [Path(path).read_bytes() for path in job.pop("images")]
        try:
            document = asdict(post_for(job.pop("url"), images, **job))
        except (OSError, RuntimeError, ValueError) as error:
            document = {"fault": f"{type(error).__name__}: {error}"}
        results.write(json.dumps(document) + "\n")
        results.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
