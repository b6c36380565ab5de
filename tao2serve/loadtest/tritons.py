"""Senders for a Triton that is asked directly, over HTTP and gRPC: what an endpoint adds is then no part of it.

Both send raw bytes, prepared before the run, and open as many connections as requests wait at once, so that the two
compare like with like. In locust's process gevent has replaced the standard library, and gRPC has to be told of it
before its first object is made.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.loadtest.http_connections import HttpConnections, request_head
from tao2serve.loadtest.plan import Target
from tao2serve.loadtest.replies import DETAIL_LIMIT, refusal, socket_failure
from tao2serve.loadtest.sending import Reply, asked_patiently
from tao2serve.loadtest.triton_input import TritonInput, kept, model_input, payloads
from tao2serve.runtime.triton_client import METHOD, NO_LIMIT, RECONNECT

__all__ = ["GrpcSender", "HttpSender", "Prepared", "make_ready", "prepare", "probe_triton", "triton_sender"]

_OK: Final = 200
# What a status of gRPC would be in HTTP, for the records; others are 500.
_STATUSES: Final = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}
# gRPC says UNAVAILABLE for what a socket says and for what Triton says: only the words tell them apart.
_CLOSED: Final = ("socket closed", "connection reset", "broken pipe", "goaway", "end of file", "transport closed")


def make_ready(
    target: Target, images: tuple[Path, ...], *, timeout_s: float, between: Callable[[], object] = lambda: None
) -> Prepared:
    """Ask Triton what the model takes, and make it of the images; senders of this process then share it.

    `between` is called before each picture: to scale a large one takes a tenth of a second, and a process that made
    hundreds at a stretch would be taken for lost. Raises UsageError for another target, and as
    triton_input.model_input and payloads do.
    """
    _check(target)
    key = (target, images, timeout_s)
    if key not in _MADE:
        if target.protocol == "triton-grpc":
            _tell_grpc_of_gevent()
        _MADE[key] = prepare(target, model_input(target, timeout_s=timeout_s), images, between=between)
    return _MADE[key]


def triton_sender(target: Target, images: tuple[Path, ...], *, timeout_s: float) -> HttpSender | GrpcSender:
    """Return what sends to a Triton, as many requests at a time as are asked; see `make_ready`, which it calls.

    Image i is sent as the i-th that was kept, and from the first again beyond them; `note` of the sender says what
    is sent. Over gRPC `timeout_s` is the longest wait for the whole answer, and the threads that gevent has for it
    are the limit, see assignment.GRPC_OPEN_LIMIT.
    """
    prepared = make_ready(target, images, timeout_s=timeout_s)
    if target.protocol == "triton-grpc":
        return GrpcSender(target, prepared, timeout_s=timeout_s)
    return HttpSender(target, prepared, timeout_s=timeout_s)


def probe_triton(target: Target, images: tuple[Path, ...], *, timeout_s: float) -> str:
    """Send the first image once and return what will be sent, in a sentence for the report.

    An error of the server is asked about again twice. Raises ServiceError if the model is absent, not ready or gives
    an error, InputError if it takes no pictures or refuses this one. No part of gevent is imported here.
    """
    _check(target)
    tensor = model_input(target, timeout_s=timeout_s)
    prepared = prepare(target, tensor, images[:1])
    send = _call_once if target.protocol == "triton-grpc" else _post_once
    reply = asked_patiently(lambda: send(target, prepared, timeout_s), status=lambda reply: reply.status)
    if reply.error:
        said = f"{reply.error}: {reply.detail}" if reply.detail else reply.error
        if reply.status == _STATUSES["INVALID_ARGUMENT"]:
            hint = "give other pictures"
            raise InputError(str(images[0]), f"was refused by {target.label}", evidence=said, hint=hint)
        raise ServiceError(
            f"Triton model {target.model}",
            f"gave no answer to a probe request with {images[0].name}",
            evidence=said,
            hint="Triton's log may say more",
        )
    return kept(tensor, images)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Whole requests, one for each picture that is kept, and over HTTP the headers of each and what it begins with."""

    requests: tuple[bytes, ...]
    note: str
    headers: tuple[Mapping[str, str], ...] = ()
    heads: tuple[bytes, ...] = ()


# Made once a process: each user of a load test has senders of its own.
_MADE: dict[tuple[Target, tuple[Path, ...], float], Prepared] = {}


def prepare(
    target: Target, tensor: TritonInput, images: tuple[Path, ...], *, between: Callable[[], object] = lambda: None
) -> Prepared:
    """Make the requests; raises InputError for a picture that cannot be read."""
    made = payloads(tensor, images, between=between)
    if target.protocol == "triton-grpc":
        requests = tuple(_grpc_request(tensor, content) for content in made.contents)
        return Prepared(requests=requests, note=made.note)
    pairs = [_http_request(tensor, content) for content in made.contents]
    bodies, headers = zip(*pairs, strict=True)
    url = f"http://{target.url}{_path(target)}"
    heads = tuple(request_head(url, given) for given in headers)
    return Prepared(requests=bodies, headers=headers, heads=heads, note=made.note)


def _check(target: Target) -> None:
    if target.protocol == "endpoint" or "/" in target.url:
        raise UsageError(target.url, "is not the address of a Triton", hint="give HOST:PORT")


@functools.cache
def _tell_grpc_of_gevent() -> None:
    """Let gRPC wait in gevent's threads, else one waiting greenlet would stop all; nothing without gevent.

    With it 200 greenlets waited at the same time for a server that takes 300 ms, and each got its answer within
    310 ms (p50).
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from grpc.experimental.gevent import init_gevent

        init_gevent()


class HttpSender:
    """Posts to one model; made in the process that sends."""

    def __init__(self, target: Target, prepared: Prepared, *, timeout_s: float) -> None:
        self.note, self.kept = prepared.note, len(prepared.requests)
        self._requests, self._heads = prepared.requests, prepared.heads
        self._connections = HttpConnections(f"http://{target.url}", timeout_s=timeout_s)

    def send(self, image: int) -> Reply:
        index = image % self.kept
        body = self._requests[index]
        started_s = time.perf_counter()
        try:
            answer = self._connections.exchange(self._heads[index], body)
        except Exception as error:  # whatever it is, it is a failed request, and no end of the test
            latency_ms = (time.perf_counter() - started_s) * 1000
            kind, detail = socket_failure(error)
            return Reply(latency_ms=latency_ms, status=0, error=kind, detail=detail, sent_bytes=len(body))
        return _http_reply(answer.status, answer.content, (time.perf_counter() - started_s) * 1000, len(body))

    def close(self) -> None:
        self._connections.close()


class GrpcSender:
    """Calls one model; under gevent made after `_tell_grpc_of_gevent`, in the process that sends."""

    def __init__(self, target: Target, prepared: Prepared, *, timeout_s: float) -> None:
        self.note, self.kept = prepared.note, len(prepared.requests)
        self._address, self._timeout_s = target.url, timeout_s
        self._requests = prepared.requests
        self._channels: list[Any] = []
        self._idle: list[Any] = []

    def send(self, image: int) -> Reply:
        import grpc

        body = self._requests[image % self.kept]
        started_s = time.perf_counter()
        call = self._idle.pop() if self._idle else self._connect()
        try:
            content = call(body, timeout=self._timeout_s)
        except grpc.RpcError as error:
            latency_ms = (time.perf_counter() - started_s) * 1000
            status, kind, detail = _grpc_failure(error)
            return Reply(latency_ms=latency_ms, status=status, error=kind, detail=detail, sent_bytes=len(body))
        finally:
            self._idle.append(call)
        latency_ms = (time.perf_counter() - started_s) * 1000
        return Reply(latency_ms=latency_ms, status=_OK, sent_bytes=len(body), received_bytes=len(content))

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _connect(self) -> Any:
        """Open one more connection; channels would share one, and large tensors queue up on it."""
        import grpc

        options = [
            ("grpc.max_send_message_length", NO_LIMIT),
            ("grpc.max_receive_message_length", NO_LIMIT),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            *RECONNECT,
        ]
        channel = grpc.insecure_channel(self._address, options=options)
        self._channels.append(channel)
        # Bytes in, bytes out: to build and to parse messages is no part of a measurement of the server.
        return channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)


def _http_request(tensor: TritonInput, content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request by Triton's binary data extension; all outputs come back in binary."""
    given = {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": tensor.datatype,
        "parameters": {"binary_data_size": len(content)},
    }
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + content, headers


def _grpc_request(tensor: TritonInput, content: bytes) -> bytes:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=tensor.model, raw_input_contents=[content])
    request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return bytes(request.SerializeToString())


def _path(target: Target) -> str:
    return f"/v2/models/{target.model}/infer"


def _call_once(target: Target, prepared: Prepared, timeout_s: float) -> Reply:
    sender = GrpcSender(target, prepared, timeout_s=timeout_s)
    try:
        return sender.send(0)
    finally:
        sender.close()


def _post_once(target: Target, prepared: Prepared, timeout_s: float) -> Reply:
    import httpx

    body, headers = prepared.requests[0], dict(prepared.headers[0])
    url = f"http://{target.url}{_path(target)}"
    try:
        response = httpx.post(url, content=body, headers=headers, timeout=timeout_s, trust_env=False)
    except httpx.HTTPError as error:
        return Reply(latency_ms=0.0, status=0, error=type(error).__name__, detail=str(error))
    return _http_reply(response.status_code, response.content, response.elapsed.total_seconds() * 1000, len(body))


def _http_reply(status: int, content: bytes, latency_ms: float, sent_bytes: int) -> Reply:
    error = detail = ""
    if status != _OK:
        error, detail = refusal(status, content.decode("utf-8", "replace"), member="error")
    return Reply(
        latency_ms=latency_ms,
        status=status,
        error=error,
        detail=detail,
        sent_bytes=sent_bytes,
        received_bytes=len(content),
    )


def _grpc_failure(error: Any) -> tuple[int, str, str]:
    """Return status, kind and detail; the kinds of what is below gRPC are those of HTTP."""
    code, words = error.code().name, " ".join(str(error.details()).split())[:DETAIL_LIMIT]
    if code == "DEADLINE_EXCEEDED":
        return 0, "timeout", ""
    if code == "UNAVAILABLE" and "connection refused" in words.lower():
        return 0, "connection refused", ""
    if code == "UNAVAILABLE" and any(sign in words.lower() for sign in _CLOSED):
        return 0, "connection closed", words
    return _STATUSES.get(code, 500), f"gRPC {code}", words
