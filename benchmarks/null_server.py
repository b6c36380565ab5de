"""An HTTP server that does nothing but answer, and count: the least that a load generator can be measured against.

    python benchmarks/null_server.py

It prints its port. A POST gets one fixed answer with `timing_ms`, a GET the number of POSTs so far.
"""

from __future__ import annotations

import asyncio
import json
import re

__all__ = ["ANSWER"]

BODY = json.dumps({"predictions": [], "timing_ms": {"preprocess": 1.0, "infer": 2.0, "total": 3.0}}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
posts = 0


class Null(asyncio.Protocol):
    """One connection; requests are not looked at beyond where they end."""

    def __init__(self) -> None:
        self.waiting_bytes = 0  # of the body of a request whose head has come
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, received: bytes) -> None:
        global posts
        if self.waiting_bytes:
            self.waiting_bytes -= len(received)
        else:
            self.head += received
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            if self.head.startswith(b"GET"):
                text = str(posts).encode()
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                self.head = b""
                return
            found = _LENGTH.search(self.head, 0, end + 2)
            assert found is not None
            self.waiting_bytes = int(found.group(1)) - (len(self.head) - end - 4)
            self.head = b""
        if self.waiting_bytes <= 0:  # nobody sends a second request before the answer to the first
            self.waiting_bytes = 0
            posts += 1
            self.transport.write(ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
