"""ENDPOINT of a command: a URL as it is, or a name in the current serving service."""

from __future__ import annotations

from dataclasses import dataclass

from tao2serve.config import load_settings
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.service import find_service

__all__ = ["Resolved", "endpoint_url", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where to post to, and HOST:PORT of the Triton behind it with the model there, as far as they are known."""

    url: str
    triton: str = ""
    triton_model: str = ""  # "" of an alias that shares its requests among versions


def resolved(endpoint: str, *, service_id: str = "") -> Resolved:
    """Return what is known of an endpoint; of a URL that is the URL alone. Raises as `endpoint_url` does."""
    if endpoint.startswith(("http://", "https://")):
        return Resolved(url=endpoint)
    settings = load_settings({"service": service_id or None})
    service = find_service(settings.service)
    url = service.url_of(endpoint, settings)
    triton = settings.triton_grpc or service.setting("triton_grpc_server")
    name, _, version = endpoint.partition("/")
    versions = [int(version)] if version.isdecimal() else [] if version else sorted(service.state().weights(name))
    model = triton_model_name(name, versions[0]) if len(versions) == 1 else ""
    return Resolved(url=url, triton=triton, triton_model=model)


def endpoint_url(endpoint: str, *, service_id: str = "") -> str:
    """Return the URL to post to; `NAME/VERSION` names one version.

    Raises InputError naming what is registered when the name is not; ServiceError if there is no service.
    """
    if endpoint.startswith(("http://", "https://")):
        return endpoint
    settings = load_settings({"service": service_id or None})
    return find_service(settings.service).url_of(endpoint, settings)
