"""What `undeploy` may take away: decided from values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tao2serve.errors import InputError, UsageError
from tao2serve.serving.inventory import Inventory, in_order_of_unloading

__all__ = ["Removal", "RemovalPlan", "decide_removal"]

Removal: TypeAlias = Literal["old", "all"] | int  # versions without traffic, the whole endpoint, or one version
_NOT_KNOWN: Final = "no operation of this service made it as it is, or another service uses it"
_CONTROLLERS: Final = "ClearML Serving's own controller owns it"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalPlan:
    """What goes, in this order: the route, the registered versions, the models on Triton, the folders."""

    endpoint: str
    drops_route: bool = False
    versions: tuple[int, ...] = ()
    unload: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    left: tuple[str, ...] = ()  # what stays because it is not known to be ours, a sentence each

    @property
    def is_empty(self) -> bool:
        return not (self.drops_route or self.versions or self.unload or self.folders)


def decide_removal(inventory: Inventory, endpoint: str, wanted: Removal) -> RemovalPlan:
    """Return what is to be taken away of an endpoint; what an alias routes to is not, unless all of it is meant.

    Folders and models go if this service is known to have made them: those of the versions that go, and what dead
    runs left. Raises InputError for what is not there, UsageError for what still gets traffic.
    """
    state = inventory.state
    orphaned = {name.version for name in inventory.orphans() if name.endpoint == endpoint}
    if endpoint not in state.names() and not orphaned:
        raise InputError(
            f"endpoint {endpoint}",
            "is not in this serving service, and has left nothing behind",
            evidence=f"there are: {', '.join(state.names()) or 'none'}",
            hint="look: tao2serve status",
        )
    versions = _versions(inventory, endpoint, wanted, orphaned)
    busy = {version for name, version in inventory.busy() if name == endpoint}
    managed = {version for name, version in inventory.managed() if name == endpoint}
    leftovers = {name.text for name in inventory.orphans() if wanted in ("old", "all", name.version)}
    of_endpoint = [name for name in inventory.names() if name.endpoint == endpoint]
    going = {
        name.text
        for name in of_endpoint
        if name.text in leftovers
        or (name.version in versions and name.version not in busy | managed and inventory.is_ours(name))
    }
    concerned = {
        *versions,
        *(version for version in _strange(inventory, endpoint) if wanted in ("old", "all", version)),
    }
    staying = [name for name in of_endpoint if name.version in concerned and name.text not in going]
    loaded = {text for text, is_ready in (inventory.on_triton or {}).items() if is_ready}
    return RemovalPlan(
        endpoint=endpoint,
        drops_route=wanted == "all" and endpoint in state.routes,
        versions=versions,
        unload=in_order_of_unloading(going & loaded),
        folders=in_order_of_unloading(going & (inventory.folders or frozenset())),
        left=tuple(f"{name.text} stays: {_CONTROLLERS if name.version in managed else _NOT_KNOWN}" for name in staying),
    )


def _strange(inventory: Inventory, endpoint: str) -> set[int]:
    """Return the unregistered numbers of ours under which somebody else's model lies by now."""
    return {version for name, version in inventory.strange if name == endpoint}


def _versions(inventory: Inventory, endpoint: str, wanted: Removal, orphaned: set[int]) -> tuple[int, ...]:
    """Return the registered versions that go."""
    state = inventory.state
    registered = state.versions(endpoint)
    aliases = {version: state.routed_urls().get(f"{endpoint}/{version}", ()) for version in registered}
    routed = {version: names for version, names in aliases.items() if names}
    if isinstance(wanted, int):
        return _one(endpoint, wanted, registered, routed, orphaned)
    if wanted == "all":
        foreign = sorted({name for names in routed.values() for name in names if name != endpoint})
        if foreign:
            raise UsageError(
                f"endpoint {endpoint}",
                "gets requests through another alias too",
                evidence=f"alias {', '.join(foreign)}",
                hint=f"take that away first: tao2serve undeploy {foreign[0]} --all, or clearml-serving model remove",
            )
        return registered
    if registered and not routed:
        raise UsageError(
            f"endpoint {endpoint}",
            "has no alias, so each of its versions may be the one in use",
            evidence=f"registered: {', '.join(map(str, registered))}",
            hint=f"name one: tao2serve undeploy {endpoint}/{registered[0]}; or remove all: --all",
        )
    return tuple(version for version in registered if version not in routed)


def _one(
    endpoint: str,
    version: int,
    registered: tuple[int, ...],
    routed: dict[int, tuple[str, ...]],
    orphaned: set[int],
) -> tuple[int, ...]:
    if version in routed:
        raise UsageError(
            f"endpoint {endpoint}/{version}",
            "gets requests",
            evidence=f"alias {', '.join(routed[version])} routes to it",
            hint=f"route to another version first: tao2serve promote {endpoint} VERSION; "
            f"or remove the whole endpoint: tao2serve undeploy {endpoint} --all",
        )
    if version not in registered and version not in orphaned:
        raise InputError(
            f"endpoint {endpoint}/{version}",
            "is not registered, and has left nothing behind",
            evidence=f"registered: {', '.join(map(str, registered)) or 'none'}",
            hint=f"look: tao2serve status {endpoint}",
        )
    return (version,) if version in registered else ()
