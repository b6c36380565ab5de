"""Where the versions of an endpoint live: their Triton, its repository, their addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tao2serve.config import Settings
from tao2serve.errors import UsageError
from tao2serve.serving.service import ServingService
from tao2serve.triton.repository import check_location

__all__ = ["Place", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The servers that answer for an endpoint's versions."""

    base_url: str
    triton: str  # host:port of its gRPC
    repository: Path | None  # None: ClearML Serving's own controller fills it


def place(service: ServingService, settings: Settings) -> Place:
    """Decide where versions live; a setting wins over what the service says.

    Raises UsageError naming the setting that nothing answers.
    """
    base_url = service.base_url(settings)
    triton = settings.triton_grpc or service.setting("triton_grpc_server")
    if not triton:
        raise UsageError(
            "Triton's address",
            "is said neither by a setting nor by the serving service",
            evidence=f"serving service {service.id}",
            hint="set TAO2SERVE_TRITON_GRPC=HOST:PORT, or: clearml-serving config --triton-grpc-server HOST:PORT",
        )
    if settings.managed:
        return Place(base_url=base_url, triton=triton, repository=None)
    if settings.model_repository is None:
        raise UsageError(
            "Triton's model repository",
            "is not known",
            hint="set TAO2SERVE_MODEL_REPOSITORY to the folder that Triton was started with, or give --managed if "
            "ClearML Serving's own controller runs it",
        )
    if not settings.model_repository.is_dir():
        raise UsageError(
            str(settings.model_repository),
            "does not exist, and Triton's model repository must",
            hint="set TAO2SERVE_MODEL_REPOSITORY to the folder that Triton was started with",
        )
    check_location(settings.model_repository, remedy="serve from another model repository")
    return Place(base_url=base_url, triton=triton, repository=settings.model_repository)
