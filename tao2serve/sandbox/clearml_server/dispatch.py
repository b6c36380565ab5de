"""From a request to an answer: find the route, let the caller in, check the fields, run it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .call import Call, Identity, Route
from .clock import Clock
from .errors import ApiError, unsupported
from .routes import is_known, route_table
from .services.auth.tokens import Gate
from .store import Store, StoreError
from .validation import check
from .wire import UNREADABLE, Target, envelope, parse_lines, parse_object, parse_path, parse_query

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came: nothing in it is parsed yet."""

    path: str
    query: str
    authorization: str
    body: bytes
    peer: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status and the body of the envelope."""

    status: int
    body: bytes


class Tally:
    """Counts calls that no route answers, and defects of the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unhandled: Counter[str] = Counter()
        self._defects: Counter[str] = Counter()

    def unhandled(self, name: str) -> None:
        """Count a call to an endpoint that is not here."""
        with self._lock:
            self._unhandled[name] += 1

    def defect(self, name: str) -> None:
        """Count a call that failed for a fault of the server."""
        with self._lock:
            self._defects[name] += 1

    def report(self) -> dict[str, Any]:
        """Return both counts, by endpoint."""
        with self._lock:
            return {
                "count": self._unhandled.total(),
                "calls": dict(self._unhandled),
                "defects": dict(self._defects),
            }

    def clear(self) -> None:
        """Forget all counts."""
        with self._lock:
            self._unhandled.clear()
            self._defects.clear()


class Dispatcher:
    """Answers API requests; safe to call from several threads."""

    def __init__(self, store: Store, gate: Gate, *, who: Identity) -> None:
        self.gate = gate
        self.tally = Tally()
        self._store = store
        self._who = who
        self._clock = Clock()
        self._routes = route_table(gate)

    def answer(self, request: Request) -> Answer:
        """Answer a request; every failure becomes an envelope."""
        target, actual = UNREADABLE, None
        try:
            target = parse_path(request.path)
            route = self._find(target)
            actual = route.version
            if not route.public:
                self.gate.check(request.authorization)
            data = self._run(route, request)
        except ApiError as error:
            return Answer(status=error.code, body=envelope(target, actual=actual, data={}, error=error))
        except StoreError as error:
            # 500 and no more: the SDK repeats calls without end on codes above it.
            _log.error("%s was not answered: %s", target.name, error)
            failure = ApiError(500, 0, f"The sandbox server could not store or read: {error}")
            return Answer(status=500, body=envelope(target, actual=actual, data={}, error=failure))
        except Exception:
            _log.exception("defect in %s", target.name)
            self.tally.defect(target.name)
            defect = ApiError(500, 0, f"The sandbox server failed in {target.name}; see its log")
            return Answer(status=500, body=envelope(target, actual=actual, data={}, error=defect))
        return Answer(status=200, body=envelope(target, actual=actual, data=data))

    def _find(self, target: Target) -> Route:
        route = self._routes.get(target.name)
        if route is not None:
            return route
        self.tally.unhandled(target.name)
        if is_known(target.name):
            raise unsupported(target.name)
        raise ApiError(404, 0, f"Unable to find endpoint for name {target.name} and version {target.version}")

    def _run(self, route: Route, request: Request) -> Mapping[str, Any]:
        items = parse_lines(request.body) if route.batch else ()
        params = parse_query(request.query)
        if not route.batch:
            params |= parse_object(request.body)
        check(route.fields, params)
        with self._store.transaction() as tx:
            call = Call(tx=tx, params=params, who=self._who, now=self._clock.now(), items=items, peer=request.peer)
            return route.handler(call)

    def reset(self) -> None:
        """Forget every document, event and count."""
        with self._store.transaction() as tx:
            tx.clear()
        self.tally.clear()
