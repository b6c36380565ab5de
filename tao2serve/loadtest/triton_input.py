"""What a Triton model is sent for a picture: its bytes, its pixels or its tensor, made before the run.

Making it is no part of what is measured, as reading files is none for an endpoint. A tensor of a detector takes
megabytes, so that fewer pictures may be kept of it than there are; `Payloads.note` says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from tao2serve.errors import InputError, ServiceError
from tao2serve.images import read_image
from tao2serve.loadtest.plan import Target
from tao2serve.runtime import DetectorParams, ImageError, ensemble
from tao2serve.runtime.preprocess import RESIZE_MODES, read_pixels, to_tensor
from tao2serve.runtime.triton_client import bytes_element

__all__ = ["Payloads", "TritonInput", "input_of", "kept", "model_input", "payloads"]

Kind: TypeAlias = Literal["picture", "pixels", "tensor"]

_LIMIT_BYTES: Final = 256 * 2**20  # as plan.images_within keeps of files
_COLOURS: Final = 3
_FLOATS: Final[Mapping[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}
_TAKEN: Final = "one input: BYTES, UINT8 (height, width, 3), FP32 or FP16 (1 or 3, height, width), all sizes known"
_HINT: Final = "is it loaded, and is this the address of Triton's {}?"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonInput:
    """The input that one picture becomes; `shape` has the batch dimension, 1, if the model has one."""

    model: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    kind: Kind
    resize: str = "lanczos"  # runtime.preprocess's mode

    @property
    def size_bytes(self) -> int | None:
        """Of one picture; None for its own bytes, which have as many as they have."""
        if self.kind == "picture":
            return None
        return math.prod(self.shape) * (1 if self.kind == "pixels" else _FLOATS[self.datatype].itemsize)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """The contents of the input for each picture that is kept, in the order of the pictures."""

    contents: tuple[bytes, ...]
    note: str  # what is sent, for the report


def model_input(target: Target, *, timeout_s: float) -> TritonInput:
    """Ask Triton what its model takes.

    Raises ServiceError if it does not answer, or the model is absent or not ready, naming what the server has;
    InputError if the model takes something that no picture becomes.
    """
    ask = _ask_grpc if target.protocol == "triton-grpc" else _ask_http
    return input_of(target, ask(target, timeout_s))


def input_of(target: Target, config: Mapping[str, Any]) -> TritonInput:
    """Return the input by Triton's model configuration as JSON; raises InputError if no picture becomes it."""
    inputs = [item for item in config.get("input", ()) if not item.get("optional")]
    if len(inputs) == 1:
        item = inputs[0]
        datatype = str(item.get("data_type", "")).removeprefix("TYPE_").replace("STRING", "BYTES")
        dims = tuple(int(size) for size in item.get("dims", ()))
        kind = _kind(datatype, dims)
        if kind is not None:
            shape = (1,) * len(dims) if kind == "picture" else dims
            is_batched = int(config.get("max_batch_size", 0)) > 0
            resize = config.get("parameters", {}).get(ensemble.RESIZE, {}).get("string_value", "")
            return TritonInput(
                model=target.model,
                name=str(item["name"]),
                datatype=datatype,
                shape=(1, *shape) if is_batched else shape,
                kind=kind,
                resize=resize if resize in RESIZE_MODES else "lanczos",
            )
    said = ", ".join(f"{item.get('name')} {item.get('data_type')} {_sizes(item.get('dims', ()))}" for item in inputs)
    raise InputError(
        f"Triton model {target.model}",
        "takes something else than a picture",
        evidence=f"its inputs: {said or 'none'}",
        hint=f"name a model with {_TAKEN}",
    )


def _kind(datatype: str, dims: tuple[int, ...]) -> Kind | None:
    if datatype == "BYTES" and all(size in (1, -1) for size in dims):
        return "picture"
    if len(dims) != _COLOURS or min(dims) < 1:
        return None
    if datatype == "UINT8" and dims[2] == _COLOURS:
        return "pixels"
    return "tensor" if datatype in _FLOATS and dims[0] in (1, _COLOURS) else None


def kept(tensor: TritonInput, images: tuple[Path, ...]) -> tuple[tuple[Path, ...], str]:
    """Return the images of which payloads are kept, as many as fit in 256 MiB, at least one; and what is sent."""
    if tensor.size_bytes is None:
        return images, f"{tensor.model} takes the {len(images)} pictures as they are"
    count = max(1, min(len(images), _LIMIT_BYTES // tensor.size_bytes))
    what = "pixels" if tensor.kind == "pixels" else f"{tensor.datatype} tensors in [0, 1]"
    note = (
        f"{tensor.model} takes {what} {_sizes(tensor.shape)} of {tensor.size_bytes / 1e6:.2f} MB: the pictures were "
        f"scaled to that size ({tensor.resize}) before the run"
    )
    if count < len(images):
        note += f"; {count} of {len(images)} were kept, as many as fit in {_LIMIT_BYTES // 2**20} MiB"
    return images[:count], note


def payloads(
    tensor: TritonInput, images: tuple[Path, ...], *, between: Callable[[], object] = lambda: None
) -> Payloads:
    """Make what is sent for each image that is kept, and call `between` before each.

    Raises InputError for a picture that cannot be read.
    """
    chosen, note = kept(tensor, images)
    make = _picture if tensor.kind == "picture" else _maker(tensor)
    contents = []
    for path in chosen:
        between()
        contents.append(make(path))
    return Payloads(contents=tuple(contents), note=note)


def _picture(path: Path) -> bytes:
    return b"".join(bytes_element(read_image(path)))


def _maker(tensor: TritonInput) -> Callable[[Path], bytes]:
    """Read pictures as the endpoint does; what a detector is besides its input's size makes no difference here."""
    is_pixels = tensor.kind == "pixels"
    height, width, channels = tensor.shape[-3:] if is_pixels else (*tensor.shape[-2:], tensor.shape[-3])
    params = DetectorParams(channels=channels, height=height, width=width, bbox_scale=1.0, bbox_offset=0.0, classes=())
    mode: Any = tensor.resize

    def make(path: Path) -> bytes:
        try:
            pixels, _ = read_pixels(read_image(path), params, mode=mode)
        except ImageError as error:
            raise InputError(str(path), "cannot be sent as a tensor", evidence=str(error)) from error
        if is_pixels:
            return pixels.tobytes()
        return to_tensor(pixels, params).astype(_FLOATS[tensor.datatype], copy=False).tobytes()

    return make


def _ask_http(target: Target, timeout_s: float) -> Mapping[str, Any]:
    import httpx

    base = f"http://{target.url}/v2"
    try:
        # trust_env: the load asks no proxy either
        with httpx.Client(timeout=timeout_s, trust_env=False) as client:
            if client.get(f"{base}/models/{target.model}/ready").status_code == httpx.codes.OK:
                answer = client.get(f"{base}/models/{target.model}/config")
                answer.raise_for_status()
                config: Mapping[str, Any] = answer.json()
                return config
            index = client.post(f"{base}/repository/index")
            index.raise_for_status()
            found = [(entry["name"], entry.get("state", "")) for entry in index.json()]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise _silent(target, "HTTP", f"{type(error).__name__}: {error}") from error
    raise _not_ready(target, found)


def _ask_grpc(target: Target, timeout_s: float) -> Mapping[str, Any]:
    asked = _asked_by_grpc(target, timeout_s)
    # Raised here, without a cause: an error that keeps objects of gRPC alive to the end of a process that gevent has
    # patched hung that process in one of four runs.
    if isinstance(asked, str):
        raise _silent(target, "gRPC", asked)
    if isinstance(asked, list):
        raise _not_ready(target, asked)
    return asked


def _asked_by_grpc(target: Target, timeout_s: float) -> dict[str, Any] | list[tuple[str, str]] | str:
    """Return the model's configuration; if it is not ready the names and states of all; if nobody answers why."""
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    client: Any = InferenceServerClient(target.url)
    try:
        if client.is_model_ready(target.model, client_timeout=timeout_s):
            config: dict[str, Any] = client.get_model_config(target.model, as_json=True, client_timeout=timeout_s)
            return dict(config["config"])
        index = client.get_model_repository_index(client_timeout=timeout_s)
        return [(str(entry.name), str(entry.state)) for entry in index.models]
    except InferenceServerException as error:
        return " ".join(str(error.message()).split())[:300]
    finally:
        client.close()


def _silent(target: Target, port: str, evidence: str) -> ServiceError:
    return ServiceError(f"Triton at {target.url}", "does not answer", evidence=evidence, hint=_HINT.format(port))


def _not_ready(target: Target, found: Iterable[tuple[str, str]]) -> ServiceError:
    """Tell a model that is there and not ready from one that is not there, and name those that are."""
    states: dict[str, str] = {}
    for name, state in found:
        if name not in states or state == "READY":
            states[name] = state
    ready = sorted(name for name, state in states.items() if state == "READY")
    is_known = target.model in states
    return ServiceError(
        f"Triton model {target.model}",
        f"is not ready at {target.url}" if is_known else f"is not known at {target.url}",
        evidence=(f"its state: {states[target.model] or 'not loaded'}; " if is_known else "")
        + f"ready: {', '.join(ready) or 'no model'}",
        hint="name one that is ready, or load it",
    )


def _sizes(dims: Iterable[Any]) -> str:
    return "×".join(str(size) for size in dims)
