"""Waiting for servers, with the last reason seen."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tao2serve.errors import NotReadyError, ToolError
from tao2serve.sandbox.process import ProcessRecord, is_alive, tail

PORTS = range(18_000, 32_000)


def free_ports(count: int) -> tuple[int, ...]:
    """Return loopback ports that are free now, all different.

    They are kept for good, so they lie below the range from which the system takes ports for connections.
    """
    chosen = [port for port in random.sample(PORTS, 40 * count) if is_free(port)][:count]
    if len(chosen) < count:
        raise ToolError("ports", f"fewer than {count} are free between {PORTS.start} and {PORTS.stop}")
    return tuple(chosen)


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def http_answer(url: str, *, expected: int = 200) -> Callable[[], str]:
    """Return a check that gives "" when `url` answers with the expected status, else the reason it does not."""

    def check() -> str:
        try:
            status = httpx.get(url, timeout=5.0, trust_env=False).status_code
        except httpx.HTTPError as error:
            return f"{url}: {error or type(error).__name__}"
        return "" if status == expected else f"{url} answered {status}"

    return check


def wait_until_healthy(record: ProcessRecord, check: Callable[[], str], *, timeout_s: float, log: Path) -> None:
    """Return when the check passes.

    Raises ToolError as soon as the process has ended, NotReadyError with the last reason after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        reason = check()
        if not reason:
            return
        if not is_alive(record):
            raise ToolError(
                record.name,
                "ended while it was starting",
                evidence=tail(log),
                hint="mend what its log says, then run the command again",
                log=log,
            )
        if time.monotonic() > deadline:
            raise NotReadyError(
                record.name,
                f"is not ready after {timeout_s:g} s: {reason}",
                evidence=tail(log),
                hint="on a busy machine run the command again; otherwise its log says what it waits for",
                log=log,
            )
        time.sleep(0.1)
