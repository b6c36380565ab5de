"""A small HTTP server with a known latency, run as a process: the yardstick of the load test's own numbers.

It answers a POST after DELAY_MS with the endpoint's kind of JSON, 503 to each Nth request from the 10th on if
FAIL_EVERY is set, and writes one line `arrived end` (monotonic seconds) per request to a file on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from pathlib import Path

DELAY_S = float(sys.argv[1]) / 1000
FAIL_EVERY = int(sys.argv[2])
SEEN = Path(sys.argv[3])
seen: list[tuple[float, float]] = []


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            arrived_s = time.monotonic()
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(fields[b"content-length"]))
            await asyncio.sleep(DELAY_S)
            seen.append((arrived_s, 0.0))
            index = len(seen) - 1
            failed = FAIL_EVERY and index >= 10 and index % FAIL_EVERY == 0
            answer(writer, failed, DELAY_S * 1000)
            await writer.drain()
            seen[index] = (arrived_s, time.monotonic())
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def answer(writer: asyncio.StreamWriter, failed: bool, delay_ms: float) -> None:
    status = b"503 Service Unavailable" if failed else b"200 OK"
    timing_ms = {"preprocess": delay_ms / 4, "infer": delay_ms / 2, "postprocess": 0.5, "total": delay_ms}
    document = {"detail": "queue is full"} if failed else {"predictions": [], "timing_ms": timing_ms}
    body = json.dumps(document).encode()
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        len(body),
    )
    writer.write(head + body)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    SEEN.write_text("".join(f"{arrived} {end}\n" for arrived, end in seen), encoding="utf-8")


asyncio.run(main())
