"""ENDPOINT of a command: a URL as it is, or a name in the current serving service."""

from __future__ import annotations

from dataclasses import dataclass

from tao2serve.config import load_settings
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.service import find_service

__all__ = ["Resolved", "endpoint_url", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where to post to, and HOST:PORT of the Triton behind it with the models there, as far as they are known."""

    url: str
    triton: str = ""
    models: tuple[str, ...] = ()  # of each version that gets requests


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
    models = tuple(triton_model_name(name, number) for number in versions)
    return Resolved(url=url, triton=triton, models=models)


def endpoint_url(endpoint: str, *, service_id: str = "") -> str:
    """Return the URL to post to; `NAME/VERSION` names one version.

    Raises InputError naming what is registered when the name is not; ServiceError if there is no service.
    """
    if endpoint.startswith(("http://", "https://")):
        return endpoint
    settings = load_settings({"service": service_id or None})
    return find_service(settings.service).url_of(endpoint, settings)
