"""ENDPOINT of a command: a URL as it is, or a name in the current serving service."""

from __future__ import annotations

from tao2serve.config import load_settings
from tao2serve.serving.service import find_service

__all__ = ["endpoint_url"]


def endpoint_url(endpoint: str, *, service_id: str = "") -> str:
    """Return the URL to post to; `NAME/VERSION` names one version.

    Raises InputError naming what is registered when the name is not; ServiceError if there is no service.
    """
    if endpoint.startswith(("http://", "https://")):
        return endpoint
    settings = load_settings({"service": service_id or None})
    return find_service(settings.service).url_of(endpoint, settings)
