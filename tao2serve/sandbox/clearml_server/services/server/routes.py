"""The endpoints of `server` and `debug`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call, Route
from ...errors import forbidden
from ..auth.tokens import API_VERSION, SERVER_VERSION


def ping(call: Call) -> Mapping[str, Any]:
    """Answer without credentials."""
    return {"msg": "ClearML server"}


def info(call: Call) -> Mapping[str, Any]:
    """Return the versions that clients adapt to."""
    return {"version": SERVER_VERSION, "build": "", "commit": "", "api_version": API_VERSION}


def for_roots(call: Call) -> Mapping[str, Any]:
    """Refuse: for administrators only."""
    raise forbidden("root, system")


ROUTES = (
    Route(name="debug.ping", handler=ping, public=True),
    Route(name="server.info", handler=info, version="2.12"),
    Route(name="server.config", handler=for_roots),
    Route(name="server.endpoints", handler=for_roots),
)
