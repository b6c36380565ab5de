"""The templates, and what both kinds of deployment share."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from tao2serve.render.files import RenderedFile
from tao2serve.render.images import (
    DEPLOYER_EXTRAS,
    DEPLOYER_PACKAGES,
    INFERENCE_PACKAGES,
    PROXY_IMAGE,
    PYTHON_IMAGE,
    TRITON_PACKAGES,
)
from tao2serve.render.request import METRICS_ENVIRONMENT, METRICS_PORT, ProxyPlaces, RenderRequest

__all__ = ["fill", "image_files", "proxy_conf", "triton_command"]

TRITON_DRAIN_S: Final = 30  # how long Triton lets requests in flight end


def proxy_conf(request: RenderRequest, places: ProxyPlaces) -> str:
    """Return the nginx.conf of the proxy."""
    return fill("nginx.conf.j2", request, places=places)


def triton_command() -> tuple[str, ...]:
    """Return Triton's command line in the container."""
    return (
        "tritonserver",
        "--model-repository=/models",
        "--model-control-mode=explicit",
        "--load-model=*",  # what deploy loaded is there again after a restart
        "--exit-on-error=false",  # one model that does not load must not keep the others away
        "--strict-readiness=false",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={TRITON_DRAIN_S}",
    )


def inference_command(request: RenderRequest) -> tuple[str, ...]:
    """Return the command line of the inference service in the container."""
    return (
        *("python", "-m", "uvicorn", "clearml_serving.serving.main:app"),
        *("--host", "0.0.0.0", "--port", "8080", "--no-access-log"),  # noqa: S104 - only the proxy's network is there
        *("--workers", str(request.workers)),
        *("--timeout-graceful-shutdown", str(request.answer_timeout_s)),
    )


def image_files(request: RenderRequest) -> tuple[RenderedFile, ...]:
    """Return what the images are built from; all of them are built in this one folder."""
    return tuple(
        RenderedFile(name=name, text=fill(f"images/{name}.j2", request))
        for name in (
            "triton.Dockerfile",
            "triton-requirements.txt",
            "inference.Dockerfile",
            "inference-requirements.txt",
            "deployer.Dockerfile",
            "deployer-requirements.txt",
            "clearml.conf",
            ".dockerignore",
        )
    )


def fill(template: str, request: RenderRequest, **further: Any) -> str:
    """Fill one template; a name that it asks for and nobody gives is an error, never an empty string."""
    text: str = (
        _environment()
        .get_template(template)
        .render(
            r=request,
            triton_command=triton_command(),
            inference_command=inference_command(request),
            drain_s=TRITON_DRAIN_S,
            python_image=PYTHON_IMAGE,
            proxy_image=PROXY_IMAGE,
            triton_packages=TRITON_PACKAGES,
            inference_packages=INFERENCE_PACKAGES,
            deployer_packages=DEPLOYER_PACKAGES,
            deployer_extras=DEPLOYER_EXTRAS,
            metrics_environment=dict(METRICS_ENVIRONMENT),
            metrics_port=METRICS_PORT,
            **further,
        )
    )
    return text


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tao2serve.render"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; values are checked by RenderRequest and quoted by `q`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["q"] = json.dumps  # a JSON string is a YAML string
    return environment
