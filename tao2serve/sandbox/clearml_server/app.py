"""The API as an ASGI application: bodies in, envelopes out, and the control API beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .dispatch import Dispatcher, Request
from .errors import ApiError
from .files.app import FileServer
from .wire import UNREADABLE, envelope

CONTROL_PREFIX = "/_control/"
_JSON = "application/json"


class Api:
    """Answers the ClearML API, and under ``/_control/`` questions about the server itself."""

    def __init__(self, dispatcher: Dispatcher, *, limit_bytes: int) -> None:
        self._dispatcher = dispatcher
        self._limit = limit_bytes

    async def answer(self, request: HttpRequest) -> Response:
        """Answer a request."""
        path = str(request.scope["path"])
        if path.startswith(CONTROL_PREFIX):
            return await run_in_threadpool(self._control, request, path.removeprefix(CONTROL_PREFIX))
        if request.method == "OPTIONS":
            return Response(headers={"Allow": "GET, POST, OPTIONS", "Content-Type": "text/html; charset=utf-8"})
        body = await self._body(request)
        if body is None:
            error = ApiError(413, 0, "The request body is too large")
            return Response(envelope(UNREADABLE, actual=None, data={}, error=error), 413, media_type=_JSON)
        parsed = Request(
            path=path,
            query=str(request.url.query),
            authorization=request.headers.get("authorization", ""),
            body=body,
            peer=request.client.host if request.client else "127.0.0.1",
        )
        answer = await run_in_threadpool(self._dispatcher.answer, parsed)
        return Response(answer.body, answer.status, media_type=_JSON)

    async def _body(self, request: HttpRequest) -> bytes | None:
        parts: list[bytes] = []
        taken = 0
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > self._limit:
                return None
            parts.append(chunk)
        return b"".join(parts)

    def _control(self, request: HttpRequest, action: str) -> Response:
        if action == "health" and request.method in ("GET", "HEAD"):
            return JSONResponse({"status": "ok"})
        try:
            self._dispatcher.gate.check(request.headers.get("authorization", ""))
        except ApiError as error:
            return JSONResponse({"error": error.message}, error.code)
        if action == "unhandled" and request.method == "GET":
            return JSONResponse(self._dispatcher.tally.report())
        if action == "unhandled" and request.method == "DELETE":
            self._dispatcher.tally.clear()
            return JSONResponse({"cleared": True})
        if action == "reset" and request.method == "POST":
            self._dispatcher.reset()
            return JSONResponse({"reset": True})
        return JSONResponse({"error": "no such control"}, 404)


def application(api: Api, files: FileServer, *, files_port: int) -> ASGIApp:
    """Return one application for both ports: the files port serves files, any other the API."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = HttpRequest(scope, receive)
        handler = files.answer if _port(scope) == files_port else api.answer
        response = await handler(request)
        # The SDK forks a reporter that inherits pooled sockets, so no connection outlives its answer.
        response.headers["Connection"] = "close"
        response.headers["X-Content-Type-Options"] = "nosniff"
        await response(scope, receive, send)

    return app


def _port(scope: Mapping[str, Any]) -> int | None:
    server = scope.get("server")
    return int(server[1]) if server and server[1] is not None else None
