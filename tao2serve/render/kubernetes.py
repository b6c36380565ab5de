"""Kubernetes: plain manifests in one namespace, applied with `kubectl apply -k`."""

from __future__ import annotations

from tao2serve.errors import UsageError
from tao2serve.render.files import RenderedFile
from tao2serve.render.request import ProxyPlaces, RenderRequest
from tao2serve.render.templates import fill, image_files, proxy_conf

__all__ = ["MANIFESTS", "kubernetes_files"]

MANIFESTS = ("namespace", "config", "storage", "triton", "inference", "proxy", "network", "deployer")


def kubernetes_files(request: RenderRequest) -> tuple[RenderedFile, ...]:
    """Return manifests and Dockerfiles; secrets are referred to by name and made by hand (README.md says how).

    Raises UsageError if ClearML's addresses or the serving service are not said.
    """
    if not request.clearml.complete:
        raise UsageError(
            "ClearML",
            "is not named whole, and the manifests say where it is",
            hint="give --clearml-api, --clearml-web, --clearml-files and --service, or set CLEARML_API_HOST, "
            "CLEARML_WEB_HOST, CLEARML_FILES_HOST and CLEARML_SERVING_TASK_ID",
        )
    conf = proxy_conf(request, ProxyPlaces())
    return (
        *(RenderedFile(name=f"{name}.yaml", text=fill(f"kubernetes/{name}.yaml.j2", request)) for name in MANIFESTS),
        *(
            RenderedFile(name=name, text=fill(f"kubernetes/{name}.j2", request))
            for name in ("kustomization.yaml", ".gitignore", "README.md")
        ),
        RenderedFile(name="nginx.conf", text=conf),
        *image_files(request),
    )
