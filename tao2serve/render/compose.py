"""Docker Compose: one machine, one folder."""

from __future__ import annotations

from typing import Final

from tao2serve.render.files import RenderedFile
from tao2serve.render.request import ProxyPlaces, RenderRequest
from tao2serve.render.templates import fill, image_files, proxy_conf

__all__ = ["DOCKER_DNS", "compose_files"]

DOCKER_DNS: Final = "127.0.0.11"  # in each container of a network that Compose made


def compose_files(request: RenderRequest) -> tuple[RenderedFile, ...]:
    """Return the files of a Compose project; none holds a secret, and what will hold one is ignored by git."""
    places = ProxyPlaces(resolver=DOCKER_DNS)
    if request.tls_certificate:
        places = ProxyPlaces(
            resolver=DOCKER_DNS, certificate="/etc/tao2serve/tls.crt", certificate_key="/etc/tao2serve/tls.key"
        )
    return (
        *(
            RenderedFile(name=name, text=fill(f"compose/{name}.j2", request))
            for name in ("compose.yaml", ".env.example", ".gitignore", "new-key.sh", "self-signed.sh", "README.md")
        ),
        RenderedFile(name="proxy/nginx.conf", text=proxy_conf(request, places)),
        *image_files(request),
    )
