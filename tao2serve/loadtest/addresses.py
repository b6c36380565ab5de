"""Addresses: read, and as they may be shown, since people read reports, logs and ClearML who need not know a secret."""

from __future__ import annotations

import contextlib
import ipaddress
from urllib.parse import urlsplit

from tao2serve.errors import UsageError

__all__ = ["bracketed", "has_userinfo", "host_and_port", "is_loopback", "place_of", "shown_url"]

_MASK = "***"


def shown_url(address: str) -> str:
    """Return a URL, or another text as it is, without user and password, and with its query's values masked."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:  # an unclosed bracket: nothing of it can be told apart
        return f"{address.partition('://')[0]}://{_MASK}"
    host = parts.netloc.rpartition("@")
    query = "&".join(_masked(part) for part in parts.query.split("&")) if parts.query else ""
    shown = parts._replace(
        netloc=f"{_MASK}@{host[2]}" if host[1] else host[2], query=query, fragment=_MASK if parts.fragment else ""
    )
    return shown.geturl()


def has_userinfo(url: str) -> bool:
    """Whether a URL names a user, with or without a password."""
    return "@" in urlsplit(url).netloc


def host_and_port(address: str, *, option: str, hint: str) -> tuple[str, int]:
    """Read HOST:PORT; raises UsageError of the option for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(option, f"{address!r} is not HOST:PORT", hint=hint)
    return host.strip("[]"), int(port)


def place_of(address: str) -> tuple[str, int]:
    """Return host and port of a URL or of HOST:PORT, ("", 0) if there is none."""
    if not address:
        return "", 0
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # an unclosed bracket, a port that is no number
        return "", 0
    return parts.hostname or "", port


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its loopback address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _masked(part: str) -> str:
    name, equals, _ = part.partition("=")
    return f"{name}={_MASK}" if equals else _MASK  # a value alone may be a token
