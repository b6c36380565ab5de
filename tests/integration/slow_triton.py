"""Triton's own protocols with a model that takes its time and lets any number of requests wait at once, as a process.

    slow_triton.py WAIT_MS

It prints the ports of HTTP and gRPC. The model `waits` takes pixels (32, 48, 3). `/asked` over HTTP says how often it
was asked, over both.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

WAIT_S = float(sys.argv[1]) / 1000
INPUT = {"name": "picture", "data_type": "TYPE_UINT8", "dims": [32, 48, 3]}
asked = 0
CONFIG = {"name": "waits", "max_batch_size": 8, "input": [INPUT]}


async def wait() -> None:
    global asked
    asked += 1
    await asyncio.sleep(WAIT_S)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name == "waits")

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ModelConfigResponse()
        answer.config.name, answer.config.max_batch_size = "waits", 8
        answer.config.input.add(name="picture", data_type="TYPE_UINT8", dims=INPUT["dims"])
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        await wait()
        return service_pb2.ModelInferResponse(model_name="waits")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = [line for line in head.split("\r\n") if line.startswith("content-length:")]
            await reader.readexactly(int(length[0].partition(":")[2]) if length else 0)
            line = head.partition("\r\n")[0]
            if "/infer" in line:
                await wait()
            body = json.dumps(asked if "/asked" in line else CONFIG).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    http = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=500)
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(http.sockets[0].getsockname()[1], port, flush=True)
    await server.wait_for_termination()


asyncio.run(main())
