"""A small HTTP server with a known latency, run as a process: the yardstick of the load test's own numbers.

    slow_server.py CONFIG SEEN

CONFIG is JSON: `delay_ms` for each answer, `slow_first` requests that take `slow_ms` instead, `fail_every`
Nth request that gets 503, `fail_from` the number from which all do, `hang_every` Nth that gets no answer,
`stall_at` the number of the request at which the whole process stops for `stall_ms`. It
prints its port, and on SIGTERM writes SEEN: one line `milliseconds status` per request that it answered.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from pathlib import Path

CONFIG: dict[str, int] = json.loads(sys.argv[1])
SEEN = Path(sys.argv[2])
seen: list[tuple[float, int]] = []
arrivals = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            await serve_one(reader, writer)
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    global arrivals
    head = await reader.readuntil(b"\r\n\r\n")
    arrived_s = time.monotonic()
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(fields[b"content-length"]))
    number, arrivals = arrivals, arrivals + 1
    if number == CONFIG.get("stall_at"):
        time.sleep(CONFIG["stall_ms"] / 1000)
    if number and number % CONFIG.get("hang_every", 10**9) == 0:
        await asyncio.sleep(3600)
    slow = number < CONFIG.get("slow_first", 0)
    await asyncio.sleep((CONFIG["slow_ms"] if slow else CONFIG["delay_ms"]) / 1000)
    failed = number > 0 and number % CONFIG.get("fail_every", 10**9) == 0
    failed = failed or number >= CONFIG.get("fail_from", 10**9)
    writer.write(answer(failed))
    await writer.drain()
    seen.append(((time.monotonic() - arrived_s) * 1000, 503 if failed else 200))


def answer(failed: bool) -> bytes:
    delay_ms = CONFIG["delay_ms"]
    timing_ms = {"preprocess": delay_ms / 4, "infer": delay_ms / 2, "postprocess": 0.5, "total": delay_ms}
    document = {"detail": "queue is full"} if failed else {"predictions": [], "timing_ms": timing_ms}
    body = json.dumps(document).encode()
    status = b"503 Service Unavailable" if failed else b"200 OK"
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        len(body),
    )
    return head + body


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    SEEN.write_text("".join(f"{duration} {status}\n" for duration, status in seen), encoding="utf-8")


asyncio.run(main())
