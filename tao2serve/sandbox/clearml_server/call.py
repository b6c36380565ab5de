"""One API call as a service sees it, and a route: an endpoint's name with the function that answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .store import Tx
from .validation import Field

COMPANY = "d1bd92a3b039400cbafc60a7a5b1e52b"
COMPANY_NAME = "clearml"

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls: the one account of this server."""

    user: str = "sandbox"
    name: str = "Sandbox User"
    since: str = "2024-01-01T00:00:00.000000+00:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Parameters, caller, time and the transaction of one call."""

    tx: Tx
    params: Params
    who: Identity
    now: str
    items: tuple[Any, ...] = ()
    peer: str = "127.0.0.1"

    def text(self, name: str, default: str = "") -> str:
        """Return a string parameter."""
        value = self.params.get(name)
        return default if value is None else str(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean parameter."""
        value = self.params.get(name)
        return default if value is None else bool(value)

    def stamp(self, *, update: bool = True) -> dict[str, str]:
        """Return the fields that say when and by whom a document was changed."""
        fields = {"last_change": self.now, "last_changed_by": self.who.user}
        return {**fields, "last_update": self.now} if update else fields


Handler = Callable[[Call], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An endpoint: what it checks, who may call it, and what answers it."""

    name: str
    handler: Handler
    fields: tuple[Field, ...] = ()
    version: str = "1.0"
    public: bool = False
    batch: bool = False
