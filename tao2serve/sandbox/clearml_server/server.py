"""The process: two loopback ports, one data folder, a clean end on SIGTERM."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from .app import Api, application
from .call import COMPANY, Identity
from .dispatch import Dispatcher
from .files.app import FileServer
from .services.auth.tokens import Credentials, Gate, load_signing_key
from .store import Store, StoreError

_log = logging.getLogger(__name__)

API_LIMIT_BYTES = 64 * 2**20
FILES_LIMIT_BYTES = 16 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server needs to start; port 0 lets the system choose."""

    data: Path
    credentials: Credentials
    host: str = "127.0.0.1"
    api_port: int = 0
    files_port: int = 0
    api_limit_bytes: int = API_LIMIT_BYTES
    files_limit_bytes: int = FILES_LIMIT_BYTES
    identity: Identity = field(default_factory=Identity)


class StartError(Exception):
    """The server cannot start; the text says why."""


def check_loopback(host: str) -> None:
    """Refuse any address that other machines could reach."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise StartError(f"{host} is no IP address; this server listens on loopback only") from error
    if not address.is_loopback:
        raise StartError(f"{host} is not a loopback address; this server listens on loopback only")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Hold the data folder: a second server on it does not start."""
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StartError(f"another server uses {data}") from error
    try:
        yield
    finally:
        os.close(handle)


def _write_address(data: Path, api: str, files: str) -> None:
    content = {"api": api, "web": api, "files": files, "pid": os.getpid()}
    temporary = data / "address.json.new"
    temporary.write_text(json.dumps(content))
    temporary.replace(data / "address.json")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave(number: int, frame: FrameType | None) -> None:
    """End through the `finally` blocks; uvicorn raises the signal again once it has shut down."""
    sys.exit(0)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; the addresses are in ``DATA/address.json`` once it listens."""
    check_loopback(settings.host)
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(settings.data):
        (settings.data / "address.json").unlink(missing_ok=True)  # of a server that was killed
        listeners = [
            _listen(settings.host, settings.api_port),
            _listen(settings.host, settings.files_port),
        ]
        try:
            store = Store(settings.data / "clearml.sqlite")
        except StoreError as error:
            raise StartError(str(error)) from error
        try:
            _run(settings, store, listeners)
        finally:
            store.close()
            for listener in listeners:
                listener.close()
            (settings.data / "address.json").unlink(missing_ok=True)


def _run(settings: Settings, store: Store, listeners: list[socket.socket]) -> None:
    gate = Gate(
        credentials=settings.credentials,
        key=load_signing_key(settings.data),
        user=settings.identity.user,
        company=COMPANY,
    )
    api = Api(
        Dispatcher(store, gate, who=settings.identity),
        limit_bytes=settings.api_limit_bytes,
    )
    files = FileServer(
        settings.data / "files",
        settings.data / "incoming",
        gate,
        limit_bytes=settings.files_limit_bytes,
    )
    config = uvicorn.Config(
        application(api, files, files_port=listeners[1].getsockname()[1]),
        http="h11",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    urls = _url(listeners[0]), _url(listeners[1])
    _write_address(settings.data, *urls)
    _log.info("API on %s, files on %s", *urls)
    uvicorn.Server(config).run(sockets=listeners)
