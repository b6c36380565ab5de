"""Bring one file here through the SDK's own storage: whole and as ClearML recorded it, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tao2serve.errors import InputError, ServiceError, ToolError, UsageError
from tao2serve.registry import cache
from tao2serve.registry.cache import Store
from tao2serve.registry.session import clearml, translated

__all__ = ["download", "file_name", "shown"]

# By scheme: what the SDK's driver imports, its extra, and where clearml.conf holds the access.
DRIVERS: Final = {
    "s3": ("boto3", "s3", "sdk.aws.s3"),
    "gs": ("google.cloud.storage", "gs", "sdk.google.storage"),
    "azure": ("azure.storage.blob", "azure", "sdk.azure.storage"),
}
CHUNK_BYTES: Final = 1 << 20
NEWS_EVERY_S: Final = 0.5
STORAGE_LOGGER: Final = "clearml.storage"
ATTEMPTS: Final = 2  # a connection that breaks in between is tried once more, from the beginning
News = Callable[[str], None]


def download(
    uri: str,
    *,
    subject: str,
    store: Store,
    sha256: str = "",
    size: int | None = None,
    identity: str = "",
    limit_bytes: int | None = None,
    on_news: News = lambda _: None,
) -> Path:
    """Return a file with the content of `uri`, from the cache if it was fetched before; not to be changed.

    `sha256` and `size` are what ClearML recorded; `identity` stands for the content where it recorded no hash.
    Raises ServiceError if it does not arrive whole and as recorded, ToolError if the SDK's driver for its storage is
    missing, UsageError if clearml.conf has no access to it. Of what failed nothing is kept.
    """
    found = cache.find(store, sha256)
    if found is not None:
        on_news(f"{file_name(uri)} was fetched before")
        return found
    require_driver(uri)
    clearml()
    from clearml import StorageManager

    _require_access(StorageManager, uri, subject)
    there = StorageManager.get_file_size_bytes(uri, silence_errors=True) or None
    key = f"{identity}\n{uri}\n{there}" if identity and there else ""
    if key and (found := cache.find(store, cache.known(store, key))) is not None:
        on_news(f"{file_name(uri)} was fetched before")
        return found
    if size is not None and there is not None and size != there:
        raise _not_whole(subject, uri, f"the storage has {there:,} bytes, ClearML recorded {size:,}")
    expected = size if size is not None else there
    if limit_bytes is not None and (expected or 0) > limit_bytes:
        raise InputError(subject, "is too large", evidence=f"{expected:,} bytes")
    for attempt in range(ATTEMPTS):
        try:
            digest, path = _fetch(uri, subject, store, sha256, expected, limit_bytes, on_news)
            break
        except _BrokenOffError:
            if attempt + 1 == ATTEMPTS:
                raise
            on_news(f"{file_name(uri)} did not arrive whole, fetching it again")
    if key:
        cache.remember(store, key, digest)
    return path


class _BrokenOffError(ServiceError):
    """Some bytes came, and then no more."""


def require_driver(uri: str) -> None:
    """Raise ToolError, with the command that mends it, if the SDK's driver for this URI is not installed."""
    driver = DRIVERS.get(urlsplit(uri).scheme)
    if driver is None:
        return
    module, extra, _ = driver
    try:
        present = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        present = False
    if not present:
        raise ToolError(
            shown(uri),
            f"needs the package {module}, which is not installed",
            evidence=f"ClearML's storage of {urlsplit(uri).scheme}:// is an extra of it",
            hint=f"pip install 'clearml[{extra}]'",
        )


def file_name(uri: str) -> str:
    """Return the last part of a URI's path, as it was before it was quoted."""
    return PurePosixPath(unquote(urlsplit(uri).path)).name


def shown(text: str) -> str:
    """Return a text without what may be secret in its URLs: signatures in queries, names before the host."""
    return re.sub(r"(\w+://[^\s?]+)\?\S+", r"\1?…", re.sub(r"(\w+://)[^\s/@]+@", r"\1", text))


def _require_access(manager: Any, uri: str, subject: str) -> None:
    with _sdk_says() as said:
        try:
            helper = manager.storage_helper.get(uri)
        except Exception as error:  # of Azure without configuration the SDK raises what it otherwise logs
            helper = None
            said.fails(str(error))
    if helper is None:
        section = DRIVERS.get(urlsplit(uri).scheme, ("", "", "sdk.storage"))[2]
        raise UsageError(
            subject,
            "is in a storage that ClearML's client has no access to",
            evidence=shown(f"{uri}: {said}"),
            hint=f"configure {section} in clearml.conf, or the variables of that storage",
        )


def _fetch(
    uri: str, subject: str, store: Store, sha256: str, expected: int | None, limit: int | None, on_news: News
) -> tuple[str, Path]:
    """Stage the content, hold it against what is known of it, and keep it under its hash."""
    from clearml import StorageManager

    digest, received = hashlib.sha256(), 0
    progress = _Progress(file_name(uri), expected, on_news)
    with cache.staged(store) as file:
        with _sdk_says() as said, translated(subject, "could not be downloaded"):
            stream = StorageManager.get_stream(uri, chunk_size=CHUNK_BYTES)
            for chunk in _until_broken(stream or (), said):
                received += len(chunk)
                if limit is not None and received > limit:
                    raise InputError(subject, "is too large", evidence=f"more than {limit:,} bytes")
                digest.update(chunk)
                file.write(chunk)
                progress(received)
        if stream is None or said.failed:  # the SDK logs what went wrong, and ends the stream as if all was well
            kind = ServiceError if stream is None else _BrokenOffError
            raise kind(
                subject,
                "could not be downloaded",
                evidence=shown(f"{uri}: {said}"),
                hint="is the file still there, and may these credentials read it?",
            )
        if received == 0 or (expected is not None and received != expected):
            wanted = f" of {expected:,}" if expected is not None else ""
            raise _BrokenOffError(
                subject,
                "did not arrive whole",
                evidence=f"{received:,}{wanted} bytes; {shown(uri)} {said}".strip(),
                hint="run it again; if it stays so, the file is damaged where it lies",
            )
        if cache.SHA256.fullmatch(sha256) and digest.hexdigest() != sha256:
            raise _not_whole(subject, uri, f"SHA-256 {digest.hexdigest()}, ClearML recorded {sha256}")
        return digest.hexdigest(), file.keep(store.folder / digest.hexdigest())


def _not_whole(subject: str, uri: str, evidence: str) -> ServiceError:
    return ServiceError(
        subject,
        "is not what ClearML recorded",
        evidence=f"{evidence}; {shown(uri)}",
        hint="it was cut off or replaced after it was registered: upload it again, or give it with --weights FILE",
    )


def _until_broken(stream: Iterable[bytes], said: _Said) -> Iterator[bytes]:
    """Yield what comes; a connection that breaks ends it, as with the storages that only log it."""
    try:
        yield from stream
    except OSError as error:  # requests' errors are OSErrors
        said.fails(f"{type(error).__name__}: {error}")


class _Progress:
    """Tells how far a download is, now and then."""

    def __init__(self, name: str, expected: int | None, on_news: News) -> None:
        self._name, self._expected, self._on_news = name, expected, on_news
        self._told = time.monotonic()

    def __call__(self, received: int) -> None:
        now = time.monotonic()
        if now - self._told < NEWS_EVERY_S and received != self._expected:
            return
        self._told = now
        if self._expected:
            share = f" of {self._expected / 1e6:.1f} MB ({100 * received // self._expected} %)"
        else:
            share = " MB"
        self._on_news(f"fetching {self._name}: {received / 1e6:.1f}{share}")


class _Said(logging.Handler):
    """What the SDK's storage logged: `failed` if this thread logged an error (S3 is read in threads of the SDK's)."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.failed = False
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().strip())
        self.failed |= record.levelno >= logging.ERROR and record.thread == self._thread

    def fails(self, message: str) -> None:
        """Add what was raised instead of logged."""
        self.messages.append(message)
        self.failed = True

    def __str__(self) -> str:
        return "; ".join(self.messages)[:400]


@contextlib.contextmanager
def _sdk_says() -> Iterator[_Said]:
    """Yield what the SDK's storage logs as a warning or worse: it says so instead of raising."""
    said = _Said()
    logger = logging.getLogger(STORAGE_LOGGER)
    logger.addHandler(said)
    try:
        yield said
    finally:
        logger.removeHandler(said)
