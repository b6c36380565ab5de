"""What a serving service is configured to do, as values: registered endpoints, and routes with their weights.

The same four configuration objects stand on the serving service and, once it has applied them, on each inference
instance's own task. What clearml-serving 1.3.5 makes of them is said here, without asking anybody.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tao2serve.errors import UsageError

__all__ = ["Registered", "Route", "ServiceState", "parse_state", "require_ours", "same_weights", "split_url"]

VERSION_URL: Final = re.compile(r"([^/]+)/(\d+)")
NEGLIGIBLE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One registered endpoint; `input_size` is (height, width) of what it takes, None if it does not say so."""

    url: str
    model_id: str = ""
    engine: str = ""
    preprocess_artifact: str = ""
    input_size: tuple[int, int] | None = None
    is_managed: bool = False  # says what only ClearML Serving's own Triton controller reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One canary route: listed urls with their weights, or the newest urls that begin with `prefix`."""

    name: str
    urls: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    prefix: str = ""

    def pairs(self, registered: Iterable[str]) -> dict[str, float]:
        """Return the weights as written of those urls that clearml-serving would route to; others it leaves out."""
        known = set(registered)
        if self.urls and not self.prefix:
            if len(self.urls) != len(self.weights):
                return {}
            return {url: weight for url, weight in zip(self.urls, self.weights, strict=True) if url in known}
        if self.prefix and not self.urls:
            begins = sorted((url for url in known if url.startswith(self.prefix)), key=_prefix_order, reverse=True)
            return dict(zip(begins, self.weights, strict=False))
        return {}

    def freezes(self, registered: Iterable[str]) -> bool:
        """Whether this route would stop every endpoint: registered weights that add up to nothing.

        clearml-serving divides by the sum inside its update lock, and the lock is not given back.
        """
        pairs = self.pairs(registered)
        return bool(pairs) and (not math.isfinite(sum(pairs.values())) or sum(pairs.values()) == 0)

    def shares(self, registered: Iterable[str]) -> dict[str, float]:
        """Return the share of requests of each url that gets any, adding up to 1; empty if nobody answers."""
        pairs = {url: weight for url, weight in self.pairs(registered).items() if weight > 0}
        total = sum(pairs.values())
        return {url: weight / total for url, weight in pairs.items()} if total > 0 else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """The configuration of a serving service, or what an inference instance says it has applied."""

    endpoints: Mapping[str, Registered] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    monitored: frozenset[str] = frozenset()  # urls that clearml-serving registers by itself (model auto-update)

    @property
    def urls(self) -> frozenset[str]:
        return self.monitored | frozenset(self.endpoints)

    def versions(self, endpoint: str) -> tuple[int, ...]:
        """Return the registered versions of an endpoint, ascending."""
        found = (split_url(url) for url in self.endpoints)
        return tuple(sorted(version for name, version in found if name == endpoint and version is not None))

    def names(self) -> tuple[str, ...]:
        """Return the names of endpoints: those of registered versions, and of aliases."""
        versioned = {name for name, version in map(split_url, self.endpoints) if version is not None}
        return tuple(sorted(versioned | set(self.routes)))

    def weights(self, endpoint: str) -> dict[int, float]:
        """Return the share of each of its own versions that the alias `endpoint` routes to, by version."""
        route = self.routes.get(endpoint)
        found: dict[int, float] = {}
        for url, share in (route.shares(self.urls) if route else {}).items():
            name, version = split_url(url)
            if name == endpoint and version is not None:
                found[version] = share
        return dict(sorted(found.items()))

    def routed_urls(self) -> dict[str, tuple[str, ...]]:
        """Return each url that some alias sends requests to, with the names of those aliases."""
        found: dict[str, list[str]] = {}
        for route in self.routes.values():
            for url in route.shares(self.urls):
                found.setdefault(url, []).append(route.name)
        return {url: tuple(names) for url, names in found.items()}

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Return, by alias, the listed urls that are not registered."""
        found = {route.name: tuple(url for url in route.urls if url not in self.urls) for route in self.routes.values()}
        return {name: urls for name, urls in found.items() if urls}

    def foreign(self, endpoint: str) -> str:
        """Say what is called `endpoint` and is nothing that tao2serve made; "" if there is no such thing.

        Ours are versions `NAME/1`, `NAME/2` … and a route to those by weight.
        """
        if endpoint in self.urls:
            return f"an endpoint is registered as {endpoint}, without a version"
        if monitored := sorted(url for url in self.monitored if split_url(url)[0] == endpoint):
            return f"clearml-serving registers {', '.join(monitored)} by itself (model auto-update)"
        route = self.routes.get(endpoint, Route(name=endpoint))
        if route.prefix:
            return f"alias {endpoint} routes to the newest of {route.prefix}…"
        strange = [url for url in route.urls if url == endpoint or split_url(url)[0] != endpoint]
        return f"alias {endpoint} routes to {', '.join(strange)}" if strange else ""

    def frozen_by(self) -> tuple[str, ...]:
        """Return the names of routes that stop every endpoint."""
        return tuple(sorted(route.name for route in self.routes.values() if route.freezes(self.urls)))


def split_url(url: str) -> tuple[str, int | None]:
    """Return name and version of `NAME/VERSION`; the version is None for any other url."""
    match = VERSION_URL.fullmatch(url)
    return (match.group(1), int(match.group(2))) if match else (url, None)


def require_ours(state: ServiceState, endpoint: str) -> None:
    """Raise UsageError if somebody else's endpoint or alias has this name: a change could not be taken back."""
    if said := state.foreign(endpoint):
        raise UsageError(
            f"endpoint {endpoint}",
            "is somebody else's: tao2serve did not make what has this name",
            evidence=said,
            hint=f"take another name, or take that away first: clearml-serving model remove --endpoint {endpoint}",
        )


def same_weights(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether two routes send the same share to the same versions."""
    return set(one) == set(other) and all(abs(one[version] - other[version]) < NEGLIGIBLE for version in one)


def parse_state(objects: Mapping[str, Mapping[str, Any]]) -> ServiceState:
    """Read the configuration objects `endpoints`, `canary` and `model_monitoring_eps`; members may be missing."""
    endpoints = {url: _registered(url, entry) for url, entry in _entries(objects.get("endpoints"))}
    routes = {name: _route(name, entry) for name, entry in _entries(objects.get("canary"))}
    monitored = frozenset(url for url, _ in _entries(objects.get("model_monitoring_eps")))
    return ServiceState(endpoints=endpoints, routes=routes, monitored=monitored)


def _entries(document: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(name), entry) for name, entry in (document or {}).items() if isinstance(entry, Mapping)]


def _registered(url: str, entry: Mapping[str, Any]) -> Registered:
    return Registered(
        url=url,
        model_id=str(entry.get("model_id") or ""),
        engine=str(entry.get("engine_type") or ""),
        preprocess_artifact=str(entry.get("preprocess_artifact") or ""),
        input_size=_input_size(entry),
        is_managed=bool(entry.get("auxiliary_cfg")),
    )


def _input_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of (C, H, W), or of (H, W, C) pixels."""
    sizes = entry.get("input_size") or [[]]
    try:
        shape = [int(size) for size in sizes[0]]
    except (TypeError, ValueError, IndexError):
        return None
    if len(shape) != 3 or min(shape) < 1:
        return None
    return (shape[0], shape[1]) if shape[2] in (1, 3) else (shape[1], shape[2])


def _route(name: str, entry: Mapping[str, Any]) -> Route:
    return Route(
        name=str(entry.get("endpoint") or name),
        urls=tuple(str(url) for url in entry.get("load_endpoints") or ()),
        weights=tuple(_number(weight) for weight in entry.get("weights") or ()),
        prefix=str(entry.get("load_endpoint_prefix") or ""),
    )


def _number(text: Any) -> float:
    """A weight that is no number stops clearml-serving as a sum of 0 does: `float` raises inside its lock."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _prefix_order(url: str) -> str:
    """clearml-serving's own order of a prefix route: the last part as a number of nine digits."""
    head, slash, tail = url.rpartition("/")
    return f"{head}/{tail:0>9}" if slash else url
