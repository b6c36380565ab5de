"""An end to the ClearML SDK's waiting for a server that is down, hangs or is being repaired.

clearml 2.1.12 repeats a call 240 times with pauses of up to 120 s (`api.http.retries`), then begins anew without end
(`InterfaceBase._send`, and `_send_request` for 503 and TLS errors). Its reporter threads do the same, and the process
waits for them when it ends. Here every HTTP session that the SDK makes asks again for a bounded time, and what finds
no answer then is an error of ours. Once a host is known to be away, later calls only look whether it is back.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final
from urllib.parse import urlsplit

from tao2serve.errors import ServiceError

__all__ = ["away", "limit_waiting"]

log = logging.getLogger(__name__)

PAUSE_S: Final = 0.5
CONNECT_S: Final = 10.0
LOOK_S: Final = 1.0  # how long to look whether a host is back, and for how long that holds
BUSY: Final = (429, 502, 503, 504)  # what proxies and a server in maintenance say
SLOWEST_UPLOAD_BYTES_S: Final = 1 << 20
HINT: Final = (
    "start it, or wait until it is back, then run this again: what serves goes on meanwhile; "
    "for the sandbox: tao2serve sandbox up"
)


class _GivenUp(BaseException):  # it only gets an error past the SDK's `except Exception`
    def __init__(self, error: ServiceError) -> None:
        super().__init__(str(error))
        self.error = error


class _Patience:
    """What is known of the hosts that the SDK talks to."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.errors: dict[str, ServiceError] = {}
        self._looked: dict[str, float] = {}

    def ask(self, request: Callable[..., Any], method: str, url: str, **options: Any) -> Any:
        """Make a request, again while it finds no server, and return the answer; raises ServiceError at the end."""
        from requests.exceptions import RequestException, SSLError

        host = _host(url)
        deadline = time.monotonic() + self.patience_s
        body = options.get("data")
        if hasattr(body, "read"):  # it can be sent only once
            self._await(request, host, deadline)
            options["timeout"] = self._limits(getattr(body, "len", 0) / SLOWEST_UPLOAD_BYTES_S)
            deadline = 0.0
        else:
            if host in self.errors:
                self._await(request, host, 0.0)
            options["timeout"] = self._limits(0.0)
        while True:
            try:
                answer = request(method, url, **options)
                if answer.status_code not in BUSY:
                    self.errors.pop(host, None)
                    return answer
                fact, seen = "answers, but does not take requests", f"HTTP {answer.status_code}: {answer.text[:200]}"
            except RequestException as error:
                fact, seen = f"gave no answer for {self.patience_s:g} s", _words(error)
                if isinstance(error, SSLError):
                    raise self._away(host, "cannot be trusted", seen) from error
            if time.monotonic() + PAUSE_S > deadline:
                raise self._away(host, fact, seen)
            time.sleep(PAUSE_S)

    def give_up(self, host: str, seen: str) -> ServiceError:
        """Return the error for a host that answers, but nothing that the SDK can use."""
        return self._away(host, f"gave no usable answer for {self.patience_s:g} s", seen)

    def _await(self, request: Callable[..., Any], host: str, deadline: float) -> None:
        """Return when anything answers at `host`; raises ServiceError after the deadline, one that has passed too."""
        from requests.exceptions import RequestException

        if (known := self.errors.get(host)) is not None and time.monotonic() - self._looked.get(host, 0.0) < LOOK_S:
            raise known
        while True:
            try:
                status = request("GET", f"{host}/", timeout=min(LOOK_S, self.patience_s)).status_code
                if status not in BUSY:
                    return
                seen = f"HTTP {status}"
            except RequestException as error:
                seen = _words(error)
            self._looked[host] = time.monotonic()
            if time.monotonic() > deadline:
                raise self.errors.get(host) or self._away(host, f"gave no answer for {self.patience_s:g} s", seen)
            time.sleep(PAUSE_S)

    def _limits(self, upload_s: float) -> tuple[float, float]:
        return min(CONNECT_S, self.patience_s), self.patience_s + upload_s

    def _away(self, host: str, fact: str, seen: str) -> ServiceError:
        from clearml.backend_api.session import Session

        part = "ClearML server" if host == _host(str(Session.get_api_server_host())) else "ClearML's storage"
        self._looked[host] = time.monotonic()
        self.errors[host] = error = ServiceError(f"{part} {host}", fact, evidence=seen, hint=HINT)
        return error


def away() -> ServiceError | None:
    """Return the error of a server that did not answer the SDK in time and has not answered since; None if all do."""
    if not limit_waiting.cache_info().currsize:
        return None
    # A copy: threads of the SDK may be asking.
    return next(iter(list(limit_waiting().errors.values())), None)


@cache
def limit_waiting() -> _Patience:
    """Have each call of the SDK end within the setting `clearml_timeout_s`; once a process, before the first call."""
    from tao2serve.config import load_settings  # main imports this module, and --help need not wait for pydantic

    patience = _Patience(load_settings().clearml_timeout_s)
    session: Any = importlib.import_module("clearml.backend_api.session.session")
    helper: Any = importlib.import_module("clearml.storage.helper")
    base = importlib.import_module("clearml.backend_interface.base").InterfaceBase
    make = session.get_http_session_with_retry

    def make_bounded(**options: Any) -> Any:
        made = make(**{**options, **dict.fromkeys(("total", "connect", "read", "status"), 0), "status_forcelist": None})
        # Bodies above 15 kB would get 300 s.
        made.write_timeout = patience._limits(0.0)
        made.request = partial(patience.ask, made.request)
        return made

    session.Session._write_session_timeout = patience._limits(0.0)
    session.get_http_session_with_retry = helper.get_http_session_with_retry = make_bounded
    send = base._send.__func__

    def send_bounded(cls: Any, session: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return send(cls, _Bounded(session, patience), *arguments, **options)
        except _GivenUp as given_up:
            raise given_up.error from given_up.error.__cause__

    base._send = classmethod(send_bounded)
    _keep_threads_quiet()
    return patience


class _Bounded:
    """A session for one call of `InterfaceBase._send`, which repeats it at once and without end on most failures."""

    def __init__(self, session: Any, patience: _Patience) -> None:
        self._session, self._patience = session, patience
        self._deadline = time.monotonic() + patience.patience_s
        self._seen = ""

    def send(self, request: Any, async_enable: bool = False) -> Any:
        from clearml.backend_api.session.session import LoginError

        host = _host(str(self._session.host))
        if self._seen:
            if time.monotonic() > self._deadline:
                raise _GivenUp(self._patience.give_up(host, self._seen))
            time.sleep(PAUSE_S)
        try:
            answer = self._session.send(request, async_enable=async_enable)
        except Exception as error:
            known = error if isinstance(error, ServiceError) else self._patience.errors.get(host)
            if known is None and isinstance(error, LoginError):
                known = ServiceError(
                    f"ClearML server {host}", "did not let us in", evidence=_words(error),
                    hint="check CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or clearml.conf",
                )  # fmt: skip
            if known is not None:
                raise _GivenUp(known) from error
            self._seen = _words(error)
            raise
        self._seen = str(answer.meta) if answer is not None else "nothing"
        return answer


def _keep_threads_quiet() -> None:
    """A thread of the SDK that finds no server ends with a word in the log, not with a traceback on the terminal."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if isinstance(arguments.exc_value, ServiceError):
            log.info("a thread of the ClearML SDK ended: %s", arguments.exc_value)
        else:
            before(arguments)

    threading.excepthook = hook


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _words(error: Exception) -> str:
    """Return an error in one line, without queries of URLs, which may be signatures."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)  # what urllib3 wraps, at length
    if isinstance(reason, Exception):
        error = reason
    return re.sub(r"\?\S+", "?…", f"{type(error).__name__}: {' '.join(str(error).split())}")[:400]
