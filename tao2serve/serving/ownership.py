"""Whose a folder or model is: decided here alone, for what `deploy` and `undeploy` remove, and `status` tells.

Several serving services, even of different ClearML servers, may share one model repository. A run that was killed
before it wrote may have meant a number that a service of another ClearML server took after it, and so may the next
number after an `undeploy` here be one that was once ours: what nothing registers is proven, by its content.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tao2serve.registry.calls import get_by_ids, text
from tao2serve.registry.session import translated
from tao2serve.serving.inventory import Inventory
from tao2serve.serving.names import triton_model_name
from tao2serve.tao.source import sha256_of
from tao2serve.triton.models import MODEL_FILE, PLAN_FILE, VERSION, detector_name

__all__ = ["mark_of", "why_not_ours", "with_proof"]


def mark_of(service_id: str) -> str:
    """Return what the hidden folders of a serving service carry in their names.

    One that is half-written has no content to prove anything by, and may be another service's that runs.
    """
    return hashlib.sha256(service_id.encode()).hexdigest()[:8]


def why_not_ours(
    endpoint: str, version: int, model_id: str, *, repository: Path | None, elsewhere: frozenset[str]
) -> str:
    """Say why a version's folders are not to be touched although a run of ours had its number; "" if they are ours.

    `model_id` is the ClearML model that the run published, `elsewhere` what other services of this ClearML server use.
    """
    name = triton_model_name(endpoint, version)
    if name in elsewhere:
        return f"{name} stays: another serving service uses it"
    if not _holds_published(name, model_id, repository):
        return f"{name} stays: it is not known to hold the model that this service published"
    return ""


def with_proof(inventory: Inventory, repository: Path | None) -> Inventory:
    """Return the inventory knowing which versions of ours, of those that nothing registers, hold other models."""
    deployed, registered = inventory.deployed(), inventory.registered()
    doubtful = {name.version_of for name in inventory.names() if not name.is_hidden and inventory.is_ours(name)}
    strange = {
        (endpoint, version)
        for endpoint, version in doubtful - registered - inventory.managed()
        if why_not_ours(
            endpoint, version, deployed[endpoint, version], repository=repository, elsewhere=inventory.elsewhere
        )
    }
    return replace(inventory, strange=frozenset(strange))


def _holds_published(name: str, model_id: str, repository: Path | None) -> bool:
    """Whether the folder's network is the one that ClearML holds for it, by SHA-256."""
    if repository is None or not model_id:
        return False
    places = [repository / model / str(VERSION) for model in (name, detector_name(name))]
    files = [place / file for place in places for file in (MODEL_FILE, PLAN_FILE) if (place / file).is_file()]
    if not files:
        return True  # an ensemble whose network is not there, or a folder half removed: nobody could load it
    published = _published_sha256(model_id)
    return any(sha256_of(path) == published for path in files)


def _published_sha256(model_id: str) -> str:
    with translated(f"ClearML model {model_id}", "could not be read"):
        row = get_by_ids("models", [model_id], fields=["metadata"]).get(model_id)
    return text(row, "metadata", "sha256", "value") or "none"
