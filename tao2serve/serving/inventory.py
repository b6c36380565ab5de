"""What belongs to whom in a model repository and on Triton: to registered versions, to running or dead operations.

Names alone prove nothing: other serving services, of this ClearML server or of another one, may write into the same
repository. Ours is what an operation below this serving service says it deployed, what no other service uses, and what
ownership.py found to be so where nothing registers it; of hidden folders, those that carry this service's mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tao2serve.registry.operations import MANAGED, OperationRecord, list_operations
from tao2serve.registry.session import clearml, translated
from tao2serve.serving.instances import FIELDS, state_of
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.state import ServiceState, split_url
from tao2serve.triton.models import PARTS

__all__ = ["Inventory", "ModelName", "read_elsewhere", "read_folders", "read_model_name"]

NAME: Final = re.compile(rf"([A-Za-z]\w*?)_(\d+)({'|'.join(PARTS)})?", re.ASCII)
# Staged or doomed folders of triton/repository.py: hidden, with whose they are and eight random characters at the end.
HIDDEN: Final = re.compile(r"\.(.+?)(?:\.of-([0-9a-f]+))?\.[a-z0-9_]{8}")
SERVICES: Final = {"type": ["service"], "system_tags": ["serving-control-plane"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A model or folder named by our convention: version of an endpoint, part of an ensemble, half-written or not."""

    text: str
    endpoint: str
    version: int
    part: str = ""
    is_hidden: bool = False
    mark: str = ""  # whose a hidden one is

    @property
    def version_of(self) -> tuple[str, int]:
        """The endpoint version that it belongs to."""
        return self.endpoint, self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is there, and what is known of it; `folders` and `on_triton` are None where nobody could be asked."""

    state: ServiceState
    operations: Sequence[OperationRecord] = ()  # of this service, newest first
    elsewhere: frozenset[str] = frozenset()  # Triton models that other services use, or are about to
    folders: frozenset[str] | None = None
    on_triton: Mapping[str, bool] | None = None  # the models it knows of: whether each is ready
    strange: frozenset[tuple[str, int]] = frozenset()  # versions of ours whose names hold somebody else's models
    mark: str = ""  # of this service's hidden folders
    own_task: str = ""  # the operation that asks, which runs itself
    now: datetime = field(default_factory=lambda: datetime.now(UTC))  # by the server's clock

    def names(self) -> tuple[ModelName, ...]:
        """Return what is in the repository or loaded, as far as it is named by our convention, sorted."""
        loaded = {name for name, is_ready in (self.on_triton or {}).items() if is_ready}
        found = (read_model_name(text) for text in sorted(loaded | (self.folders or frozenset())))
        return tuple(name for name in found if name is not None)

    def deployed(self) -> dict[tuple[str, int], str]:
        """Return the endpoint versions that operations of this service made models for, and those models' ClearML ids.

        Only an operation that has published goes on to write.
        """
        found: dict[tuple[str, int], str] = {}
        for record in self.operations:
            model = record.properties.get("model", "")
            for version in record.versions if record.kind in ("deploy", "tune") and model else ():
                found.setdefault((record.endpoint, version), model)
        return found

    def maker(self, endpoint: str, version: int) -> OperationRecord | None:
        """Return the deployment that a registered version came from; None if no operation is known to have made it.

        Of several that name it, such as one that was killed and the one that went on with it, the first that ended
        well. Their inputs have the same content, and may come from different trained models all the same.
        """
        entry = self.state.endpoints.get(f"{endpoint}/{version}")
        found = [
            record
            for record in self.operations
            if record.kind == "deploy" and (record.endpoint, record.version) == (endpoint, version)
            if entry is not None and entry.model_id and record.properties.get("model") == entry.model_id
        ]
        done = [record for record in found if record.is_done]
        return done[-1] if done else found[0] if found else None

    def managed(self) -> frozenset[tuple[str, int]]:
        """Return the versions that ClearML Serving's own controller brings to Triton, and nobody can unload there."""
        found: dict[tuple[str, int | None], bool] = {}
        for record in self.operations:
            if record.kind == "deploy" and record.version is not None:
                found.setdefault((record.endpoint, record.version), bool(record.properties.get(MANAGED)))
        found |= {split_url(url): entry.is_managed for url, entry in self.state.endpoints.items()}
        return frozenset((name, version) for (name, version), is_so in found.items() if is_so and version is not None)

    def busy(self) -> frozenset[tuple[str, int]]:
        """Return the versions that running operations, other than the one that asks, are about."""
        return frozenset(
            (record.endpoint, version)
            for record in self.operations
            if record.goes_on(self.now) and record.task_id != self.own_task
            for version in record.versions
        )

    def orphans(self) -> tuple[ModelName, ...]:
        """Return what this service deployed and nothing registered uses any more: left by dead runs, mostly."""
        registered, busy, managed = self.registered(), self.busy(), self.managed()
        return tuple(
            name
            for name in self.names()
            if name.version_of not in busy | managed
            and self.is_ours(name)
            and (name.is_hidden or name.version_of not in registered)
        )

    def strangers(self) -> tuple[ModelName, ...]:
        """Return what is named by our convention, and is neither used by this service nor known to be of its making."""
        registered, busy = self.registered(), self.busy()
        return tuple(
            name for name in self.names() if name.version_of not in registered | busy and not self.is_ours(name)
        )

    def registered(self) -> frozenset[tuple[str, int | None]]:
        """Return name and version of what is registered."""
        return frozenset(split_url(url) for url in self.state.endpoints)

    def is_ours(self, name: ModelName) -> bool:
        """Whether this service made it, and nobody else uses it or has put something else there."""
        if name.is_hidden:
            return bool(self.mark) and name.mark == self.mark
        is_elsewhere = triton_model_name(name.endpoint, name.version) in self.elsewhere
        return name.version_of in self.deployed() and name.version_of not in self.strange and not is_elsewhere


def read_model_name(text: str) -> ModelName | None:
    """Read `street_3`, `street_3_detector`, and such a name within a hidden folder's; None for any other."""
    core, mark = text, ""
    while hidden := HIDDEN.fullmatch(core):  # a removal of what was half-written may have been killed, too
        core, mark = hidden.group(1), mark or hidden.group(2) or ""
    match = NAME.fullmatch(core)
    if match is None:
        return None
    endpoint, version, part = match.groups()
    return ModelName(
        text=text, endpoint=endpoint, version=int(version), part=part or "", is_hidden=core != text, mark=mark
    )


def read_folders(repository: Path | None) -> frozenset[str] | None:
    """Return the names of the repository's folders, hidden ones included; None if it is not known or not there."""
    if repository is None or not repository.is_dir():
        return None
    return frozenset(path.name for path in repository.iterdir() if path.is_dir() and not path.is_symlink())


def read_elsewhere(service_id: str) -> frozenset[str]:
    """Return the Triton models that other serving services use, stopped ones included, or are about to."""
    clearml()
    with translated("ClearML", "did not list the other serving services"):
        from clearml.backend_api.session.client import APIClient

        api: Any = APIClient()
        services = api.tasks.get_all(only_fields=list(FIELDS), page=0, page_size=500, **SERVICES)
        others = [service.data for service in services if service.id != service_id]
        pairs: list[tuple[str, int | None]] = []
        for service in others:
            pairs += [split_url(url) for url in state_of(service).urls]
            running = list_operations(service.id, running=True, api=api)
            pairs += [(record.endpoint, version) for record in running for version in record.versions]
    return frozenset(triton_model_name(name, version) for name, version in pairs if version is not None)


def in_order_of_unloading(names: Iterable[str]) -> tuple[str, ...]:
    """Return Triton models so that an ensemble comes before what it passes on to."""
    return tuple(sorted(names, key=lambda name: (any(name.endswith(part) for part in PARTS), name)))
