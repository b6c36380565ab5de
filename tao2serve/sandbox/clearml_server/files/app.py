"""The file server's endpoints: POST, GET, HEAD and DELETE."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from ..clock import new_id
from ..durable import FULL, publish
from ..errors import ApiError
from ..services.auth.tokens import Gate
from .multipart import MultipartError, PartBytes, PartStart, boundary_of, read_parts
from .paths import UnsafePathError, locate, safe_parts

_log = logging.getLogger(__name__)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class TooLargeError(Exception):
    """The body is larger than the server takes."""


class FileServer:
    """Serves one folder; uploads appear whole or not at all."""

    def __init__(self, root: Path, incoming: Path, gate: Gate, *, limit_bytes: int) -> None:
        self._root = root
        self._incoming = incoming
        self._gate = gate
        self._limit = limit_bytes
        for folder in (root, incoming):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in incoming.iterdir():
            leftover.unlink()

    async def answer(self, request: Request) -> Response:
        """Answer a request; credentials come first."""
        try:
            self._gate.check(request.headers.get("authorization", ""))
            response = await self._route(request)
        except ApiError as error:
            response = PlainTextResponse(error.message, status_code=error.code)
        except (UnsafePathError, MultipartError) as error:
            response = PlainTextResponse(str(error), status_code=400)
        except TooLargeError:
            response = PlainTextResponse("the body is too large", status_code=413)
        except OSError as error:
            response = _disk_failure(error)
        response.headers.update(_HEADERS)
        return response

    async def _route(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            found = self._find(request)
            return FileResponse(found) if found else PlainTextResponse("not found", status_code=404)
        if request.method == "POST" and request.scope["path"] == "/":
            return await self._upload(request)
        if request.method == "DELETE":
            return await run_in_threadpool(self._delete, request)
        return PlainTextResponse("method not allowed", status_code=405)

    def _find(self, request: Request) -> Path | None:
        """Return the file that a request names.

        clearml 2.1.12 uploads the models of a task named with a colon, as TAO's are, under a name that holds
        "%3A" literally, and registers them by that same, undecoded name; so that is looked for too.
        """
        raw: bytes = request.scope.get("raw_path", b"")
        places = (locate(self._root, path) for path in (request.scope["path"], raw.decode("ascii", "replace")))
        return next((place for place in places if place.is_file()), None)

    def _delete(self, request: Request) -> Response:
        place = self._find(request)
        if place is None:
            return PlainTextResponse("not found", status_code=404)
        place.unlink()
        return PlainTextResponse(str(place.relative_to(self._root)))

    async def _upload(self, request: Request) -> Response:
        boundary = boundary_of(request.headers.get("content-type", ""))
        pending: list[tuple[str, Path]] = []
        try:
            await self._receive(request, boundary, pending)
            stored = [await run_in_threadpool(self._publish, name, temporary) for name, temporary in pending]
        finally:
            for _, temporary in pending:
                temporary.unlink(missing_ok=True)
        return JSONResponse(stored)

    async def _receive(self, request: Request, boundary: bytes, pending: list[tuple[str, Path]]) -> None:
        handle = -1
        try:
            async for piece in read_parts(self._limited(request), boundary):
                if isinstance(piece, PartStart):
                    locate(self._root, piece.name)
                    temporary = self._incoming / new_id()
                    pending.append((piece.name, temporary))
                    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                elif isinstance(piece, PartBytes):
                    await run_in_threadpool(_write_all, handle, piece.content)
                else:
                    await run_in_threadpool(os.fsync, handle)
                    os.close(handle)
                    handle = -1
        finally:
            if handle >= 0:
                os.close(handle)

    async def _limited(self, request: Request) -> AsyncIterator[bytes]:
        taken = 0
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > self._limit:
                raise TooLargeError
            yield chunk

    def _publish(self, name: str, temporary: Path) -> str:
        place = locate(self._root, name)
        try:
            publish(temporary, place, root=self._root)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise UnsafePathError("a file and a folder would have the same name") from error
        return "/".join(safe_parts(name))


def _disk_failure(error: OSError) -> Response:
    """Return an answer that the SDK does not repeat: it would for 502, 503 and 504."""
    _log.error("a file was not stored or not read: %s", error)
    if error.errno in FULL:
        return PlainTextResponse("the disk of the sandbox's files is full; free some space, then upload again", 507)
    return PlainTextResponse(f"the sandbox's disk failed: {error.strerror}", status_code=500)


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
