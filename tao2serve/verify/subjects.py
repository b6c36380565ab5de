"""What can be verified: a model file, a model on a running Triton, an endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError
from tao2serve.export.execution import open_model
from tao2serve.export.inference import Provider
from tao2serve.export.lean import GraphDecoding
from tao2serve.export.reference import Outputs
from tao2serve.images import Pixels
from tao2serve.serving.client import Answer, ask
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.service import find_service
from tao2serve.triton.models import detector_name
from tao2serve.triton.network import TritonNetwork, split_address
from tao2serve.values import ModelSignature

__all__ = ["Subject", "SubjectKind", "network_behind", "of_file", "open_subject", "require_same_shapes"]

ENDPOINT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/\d+)?")
SubjectKind: TypeAlias = Literal["keras_hdf5", "onnx", "tensorrt_plan", "triton_model", "endpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One side of a comparison. What has tensors has a signature and `see`; an endpoint only has `answer`."""

    name: str
    kind: SubjectKind
    precision: str = ""  # fp32 | fp16 | int8, "" where nobody says
    path: Path | None = None
    signature: ModelSignature | None = None
    see: Callable[[Pixels], Outputs] | None = None  # one image (1, H, W, 3) uint8 RGB of the network's size
    decoding: GraphDecoding | None = None  # what its graph decodes boxes with, where it does and says so
    answer: Callable[[bytes], Answer] | None = None
    triton: str = ""  # of an endpoint: where the Triton behind it may be asked


def open_subject(text: str, settings: Settings, *, stack: ExitStack, provider: Provider = "cpu") -> Subject:
    """Open a file, `grpc://HOST:PORT/MODEL[/VERSION]`, an endpoint's URL, or its name in the serving service.

    `provider` is where an ONNX file runs. Raises InputError for a file or model that is no detector, ServiceError
    for a server that does not answer, ToolError for what this machine cannot run.
    """
    if text.startswith("grpc://"):
        host, model, version = split_address(text)
        network = stack.enter_context(TritonNetwork(host, model, version=version))
        return of_triton(network)
    if text.startswith(("http://", "https://")):
        return _endpoint(text, triton=settings.triton_grpc)
    if not ENDPOINT_NAME.fullmatch(text) or Path(text).is_file():
        return of_file(Path(text), provider=provider)
    service = find_service(settings.service)
    return _endpoint(
        service.url_of(text, settings), triton=settings.triton_grpc or service.setting("triton_grpc_server")
    )


def require_same_shapes(reference: Subject, candidate: Subject) -> None:
    """Raise InputError, showing both, for two networks of different sizes; an endpoint shows none."""
    known = [side.signature for side in (reference, candidate) if side.signature]
    shapes = [_shapes(signature) for signature in known]
    channels = {signature.input.shape[0] for signature in known if not signature.takes_pixels}
    if len(channels) > 1 or (len(shapes) > 1 and shapes[0] != shapes[1]):
        raise InputError(
            candidate.name,
            f"cannot be compared with {reference.name}: they are networks of different shapes",
            evidence=f"{reference.signature}; {candidate.signature}",
            hint="give two forms of the same model",
        )


def _shapes(signature: ModelSignature) -> tuple[tuple[int, ...], ...]:
    """Return what two forms of one model have in common, whether they take tensors or pixels."""
    return (signature.height, signature.width), signature.coverage.shape, signature.bbox.shape


def of_file(path: Path, *, provider: Provider = "cpu") -> Subject:
    """Return the subject that a model file is; raises InputError for a file that is none."""
    model = open_model(path, provider=provider)
    return Subject(
        name=str(path),
        kind=model.kind,
        precision=model.precision,
        path=path,
        signature=model.signature,
        see=model.see,
        decoding=model.decoding,
    )


def of_triton(network: TritonNetwork) -> Subject:
    """Return the subject that a connection to Triton stands for."""

    def see(pixels: Pixels) -> Outputs:
        coverage, bbox = network.see(pixels)
        return Outputs(coverage=coverage, bbox=bbox, boxes="absolute" if network.signature.gives_boxes else "offsets")

    decoding = None
    if network.signature.gives_boxes and network.bbox_scale is not None and network.bbox_offset is not None:
        decoding = GraphDecoding(bbox_scale=network.bbox_scale, bbox_offset=network.bbox_offset)
    return Subject(
        name=network.address,
        kind="triton_model",
        precision=network.precision,
        signature=network.signature,
        see=see,
        decoding=decoding,
    )


def _endpoint(url: str, *, triton: str) -> Subject:
    return Subject(name=url, kind="endpoint", answer=lambda image: ask(url, image), triton=triton)


def network_behind(endpoint: Subject, answer: Answer, *, stack: ExitStack) -> Subject | None:
    """Return the Triton model behind an endpoint's answer, None if its Triton is not known or not reached."""
    if not endpoint.triton or not answer.version.isdigit():
        return None
    model = triton_model_name(answer.endpoint, int(answer.version))
    for name in (model, detector_name(model)):  # an ensemble is no network, but has one
        try:
            return of_triton(stack.enter_context(TritonNetwork(endpoint.triton, name, timeout_s=10.0)))
        except InputError:
            continue
        except ServiceError:
            break
    return None
