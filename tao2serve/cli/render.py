"""`tao2serve render`: files for running Triton, ClearML Serving and a proxy elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Json, one_of
from tao2serve.cli.output import print_json, print_text

if TYPE_CHECKING:
    from tao2serve.render.files import RenderedFile
    from tao2serve.render.images import TritonRelease
    from tao2serve.render.request import ClearMLAddresses, RenderRequest

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Write files for running Triton, ClearML Serving and a proxy elsewhere.\n\n"
    "Example: tao2serve render compose -o deploy --gpus 1 --host detect.example.org",
)

Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write into.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there with other content.")]
Triton = Annotated[str, typer.Option("--triton", metavar="TAG", help="Release of NVIDIA's Triton container, as 25.01.")]
TensorRT = Annotated[
    str, typer.Option("--tensorrt", metavar="X.Y", help="Choose the release by the TensorRT that built the plans.")
]
TritonImage = Annotated[
    str, typer.Option("--triton-image", metavar="IMAGE", help="Another Triton image instead, of your choice.")
]
Prefix = Annotated[
    str, typer.Option("--image-prefix", metavar="NAME", help="First part of the built images' names, with a registry.")
]
Gpus = Annotated[int, typer.Option("--gpus", metavar="N", min=0, max=64, help="GPUs for Triton; 0: CPU only.")]
Replicas = Annotated[int, typer.Option("--replicas", metavar="N", min=1, max=100, help="Inference services.")]
Workers = Annotated[int, typer.Option("--workers", metavar="N", min=1, max=64, help="Processes in each of them.")]
Poll = Annotated[
    float,
    typer.Option("--poll-minutes", metavar="M", min=0.05, max=60, help="How often they look for new versions."),
]
MaxBody = Annotated[
    int | None,
    typer.Option(
        "--max-body-bytes", metavar="N", min=1024, help="Largest body; default: max_image_bytes also in base64."
    ),
]
Rate = Annotated[
    int, typer.Option("--rate", metavar="R", min=1, max=100_000, help="Requests a second with one key's name.")
]
Connections = Annotated[
    int, typer.Option("--connections", metavar="N", min=1, max=10_000, help="Requests at a time with one key's name.")
]
Host = Annotated[str, typer.Option("--host", metavar="NAME", help="Host name of the proxy, as clients call it.")]
ClearMLApi = Annotated[str, typer.Option("--clearml-api", metavar="URL", help="Default: CLEARML_API_HOST.")]
ClearMLWeb = Annotated[str, typer.Option("--clearml-web", metavar="URL", help="Default: CLEARML_WEB_HOST.")]
ClearMLFiles = Annotated[str, typer.Option("--clearml-files", metavar="URL", help="Default: CLEARML_FILES_HOST.")]
ServiceId = Annotated[
    str, typer.Option("--service", metavar="ID", help="Serving service; default: CLEARML_SERVING_TASK_ID.")
]


@app.command(short_help="Write a Docker Compose project.")
def compose(
    output: Output,
    triton: Triton = "",
    tensorrt: TensorRT = "",
    triton_image: TritonImage = "",
    image_prefix: Prefix = "tao2serve",
    gpus: Gpus = 0,
    replicas: Replicas = 1,
    workers: Workers = 1,
    poll_minutes: Poll = 0.5,
    max_body_bytes: MaxBody = None,
    rate: Rate = 50,
    connections: Connections = 64,
    host: Host = "localhost",
    port: Annotated[int, typer.Option("--port", metavar="P", min=1, max=65535, help="Port of the proxy.")] = 8443,
    secrets: Annotated[
        str, typer.Option("--secrets", metavar="DIR", help="Folder of keys and certificate, as compose.yaml names it.")
    ] = "./secrets",
    tls_cert: Annotated[
        str, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain; default: tls.crt in that folder.")
    ] = "",
    tls_key: Annotated[str, typer.Option("--tls-key", metavar="FILE", help="Its key; default: tls.key there.")] = "",
    clearml_api: ClearMLApi = "",
    clearml_web: ClearMLWeb = "",
    clearml_files: ClearMLFiles = "",
    service: ServiceId = "",
    force: Force = False,
    json_output: Json = False,
) -> None:
    """Write a Docker Compose project: Triton, ClearML Serving, and nginx with TLS, API keys and limits before it.

    No secret is written; README.md in the folder says how they are made, and .gitignore names them.

    Example: tao2serve render compose -o deploy --gpus 1 --host detect.example.org
    """
    from tao2serve.render.compose import compose_files
    from tao2serve.render.request import RenderRequest

    image_bytes, deadline_s = _served()
    request = RenderRequest(
        release=_release(triton, tensorrt, triton_image),
        version=_version(),
        clearml=_clearml(clearml_api, clearml_web, clearml_files, service),
        triton_image=triton_image,
        image_prefix=image_prefix,
        gpus=gpus,
        replicas=replicas,
        workers=workers,
        poll_minutes=poll_minutes,
        max_body_bytes=max_body_bytes or image_bytes,
        deadline_s=deadline_s,
        requests_per_s=rate,
        connections=connections,
        host=host,
        port=port,
        secrets=secrets,
        tls_certificate=tls_cert,
        tls_key=tls_key,
    )
    _render(request, compose_files, output, force=force, as_json=json_output)


@app.command(short_help="Write Kubernetes manifests.")
def kubernetes(
    output: Output,
    triton: Triton = "",
    tensorrt: TensorRT = "",
    triton_image: TritonImage = "",
    image_prefix: Prefix = "tao2serve",
    gpus: Gpus = 0,
    replicas: Replicas = 2,
    workers: Workers = 1,
    poll_minutes: Poll = 0.5,
    max_body_bytes: MaxBody = None,
    rate: Rate = 50,
    connections: Connections = 64,
    host: Host = "localhost",
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAME", help="Namespace for all of it.")] = (
        "tao2serve"
    ),
    storage_gib: Annotated[
        int, typer.Option("--storage-gib", metavar="N", min=1, max=100_000, help="Size of the model repository.")
    ] = 20,
    storage_class: Annotated[
        str, typer.Option("--storage-class", metavar="NAME", help="Its storage class; must allow ReadWriteMany.")
    ] = "",
    autoscale_to: Annotated[
        int,
        typer.Option("--autoscale-to", metavar="N", min=0, max=1000, help="Add inference services up to N by load."),
    ] = 0,
    metrics_from: Annotated[
        str, typer.Option("--metrics-from", metavar="NAME", help="Namespace whose pods may read metrics.")
    ] = "",
    service_type: Annotated[
        str, typer.Option("--service-type", metavar="T", help="ClusterIP, NodePort or LoadBalancer.")
    ] = "ClusterIP",
    clearml_api: ClearMLApi = "",
    clearml_web: ClearMLWeb = "",
    clearml_files: ClearMLFiles = "",
    service: ServiceId = "",
    force: Force = False,
    json_output: Json = False,
) -> None:
    """Write Kubernetes manifests: Triton, ClearML Serving, nginx before it, and who may call whom.

    Secrets are referred to by name, not written; README.md in the folder says how they are made.

    Example: tao2serve render kubernetes -o deploy --gpus 1 --namespace detectors --storage-class nfs
    """
    from tao2serve.render.kubernetes import kubernetes_files
    from tao2serve.render.request import RenderRequest

    image_bytes, deadline_s = _served()
    request = RenderRequest(
        release=_release(triton, tensorrt, triton_image),
        version=_version(),
        clearml=_clearml(clearml_api, clearml_web, clearml_files, service),
        triton_image=triton_image,
        image_prefix=image_prefix,
        gpus=gpus,
        replicas=replicas,
        workers=workers,
        poll_minutes=poll_minutes,
        max_body_bytes=max_body_bytes or image_bytes,
        deadline_s=deadline_s,
        requests_per_s=rate,
        connections=connections,
        host=host,
        namespace=namespace,
        storage_gib=storage_gib,
        storage_class=storage_class,
        autoscale_to=autoscale_to,
        metrics_from=metrics_from,
        service_type=one_of(service_type, ("ClusterIP", "NodePort", "LoadBalancer"), option="--service-type"),
    )
    _render(request, kubernetes_files, output, force=force, as_json=json_output)


def _render(
    request: RenderRequest,
    files_of: Callable[[RenderRequest], Sequence[RenderedFile]],
    output: Path,
    *,
    force: bool,
    as_json: bool,
) -> None:
    from tao2serve.render.files import write_files

    written = write_files(files_of(request), output, force=force)
    if as_json:
        print_json(
            {
                "outcome": "ok",
                "folder": str(output),
                "triton": {
                    "image": request.base_image,
                    "tensorrt": "" if request.triton_image else request.release.tensorrt,
                },
                "max_body_bytes": request.max_body_bytes,
                "files": [{"path": str(file.path), "state": file.state} for file in written],
            }
        )
        return
    lines = [f"{file.state:<10} {file.path}" for file in written]
    if request.triton_image:
        lines.append(f"Triton: {request.triton_image}; plans must have been built with its TensorRT")
    else:
        lines.append(f"Triton: {request.base_image}, TensorRT {request.release.tensorrt}, as plans must have it")
    lines.append(f"No image was pulled. No secret was written; next: {output / 'README.md'}")
    print_text("\n".join(lines))


def _release(tag: str, tensorrt: str, image: str) -> TritonRelease:
    from tao2serve.errors import UsageError
    from tao2serve.render.images import DEFAULT_RELEASE, release_of, release_with_tensorrt

    if sum(map(bool, (tag, tensorrt, image))) > 1:
        raise UsageError("--triton, --tensorrt and --triton-image", "each choose the image", hint="give one of them")
    return release_with_tensorrt(tensorrt) if tensorrt else release_of(tag or DEFAULT_RELEASE)


def _clearml(api: str, web: str, files: str, service: str) -> ClearMLAddresses:
    from tao2serve.render.request import ClearMLAddresses

    return ClearMLAddresses(
        api=api or os.environ.get("CLEARML_API_HOST", ""),
        web=web or os.environ.get("CLEARML_WEB_HOST", ""),
        files=files or os.environ.get("CLEARML_FILES_HOST", ""),
        service=service or os.environ.get("CLEARML_SERVING_TASK_ID", ""),
    )


def _served() -> tuple[int, float]:
    """Return what the settings of deployments ask of a proxy: its largest body, and Triton's deadline."""
    from tao2serve.config import load_settings
    from tao2serve.render.request import default_body

    settings = load_settings()
    return default_body(settings.max_image_bytes), settings.deadline_s


def _version() -> str:
    from tao2serve import __version__

    return __version__
