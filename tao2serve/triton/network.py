"""A detector that runs on Triton: its tensors, asked over gRPC."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.images import Pixels, network_input
from tao2serve.triton.config import OFFSET_PARAMETER, PRECISION_PARAMETER, SCALE_PARAMETER
from tao2serve.values import BOXES_OUTPUT, PIXELS_INPUT, ModelSignature, Tensor

__all__ = ["TritonNetwork", "split_address"]

ADDRESS: Final = re.compile(r"grpc://(?P<host>[^/\s]+:\d+)/(?P<model>[A-Za-z0-9_.-]+)(?:/(?P<version>\d+))?/?")
DIMENSIONS: Final = 4  # N, C, H, W, or N, H, W, 3


def split_address(address: str) -> tuple[str, str, str]:
    """Split `grpc://HOST:PORT/MODEL[/VERSION]` into (host:port, model, version or ""); raises UsageError."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(address, "is no address of a Triton model", hint="for example: grpc://127.0.0.1:8001/street_4")
    return match["host"], match["model"], match["version"] or ""


class TritonNetwork:
    """One loaded model of a running Triton; use it as a context manager."""

    def __init__(self, host: str, model: str, *, version: str = "", timeout_s: float = 60.0) -> None:
        from tritonclient.grpc import InferenceServerClient

        self.address = f"grpc://{host}/{model}" + (f"/{version}" if version else "")
        self._model, self._version, self._timeout_s = model, version, timeout_s
        self._client: Any = InferenceServerClient(host)
        try:
            config = self._call("get_model_config", as_json=True).get("config", {})
        except BaseException:
            self._client.close()
            raise
        self.signature = _signature(self.address, config)
        # Of models that tao2serve wrote; "" and None of others.
        said = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
        self.precision = said.get(PRECISION_PARAMETER, "")
        self.bbox_scale, self.bbox_offset = (_number(said.get(name)) for name in (SCALE_PARAMETER, OFFSET_PARAMETER))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def see(self, pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (coverage (1, C, h, w), bbox (1, 4C, h, w)) for one image (1, H, W, 3) uint8 RGB of its size.

        The pixels travel as they are if the model takes them, else as the tensor it takes. bbox is what the model
        gives: offsets, or boxes in network pixels (`signature.gives_boxes`). Raises ServiceError with Triton's reason.
        """
        from tritonclient.grpc import InferInput, InferRequestedOutput

        names = (self.signature.coverage.name, self.signature.bbox.name)
        image = network_input(pixels, self.signature)
        batch = InferInput(self.signature.input.name, image.shape, self.signature.input.datatype)
        batch.set_data_from_numpy(np.ascontiguousarray(image))
        result = self._call("infer", inputs=[batch], outputs=[InferRequestedOutput(name) for name in names])
        return result.as_numpy(names[0]), result.as_numpy(names[1])

    def _call(self, method: str, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return getattr(self._client, method)(
                self._model, model_version=self._version, client_timeout=self._timeout_s, **options
            )
        except InferenceServerException as error:
            raise ServiceError(
                self.address,
                "was not answered by Triton",
                evidence=" ".join(str(error.message()).split())[:400],
                hint="is it loaded, and is this Triton's gRPC address?",
            ) from error


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _signature(address: str, config: dict[str, Any]) -> ModelSignature:
    inputs, outputs = config.get("input", []), config.get("output", [])
    coverage = [item for item in outputs if "output_cov" in item.get("name", "")]
    bbox = [item for item in outputs if "output_bbox" in item.get("name", "") or item.get("name") == BOXES_OUTPUT]
    if len(inputs) != 1 or len(coverage) != 1 or len(bbox) != 1:
        names = ", ".join(str(item.get("name")) for item in (*inputs, *outputs))
        raise InputError(
            address,
            "is not a DetectNet_v2 network on its own",
            evidence=f"its tensors: {names or 'none'}",
            hint="name the model that takes the image tensor, or pixels, and gives output_cov and output_bbox",
        )
    return ModelSignature(
        input=_tensor(inputs[0], address), coverage=_tensor(coverage[0], address), bbox=_tensor(bbox[0], address)
    )


def _tensor(item: dict[str, Any], address: str) -> Tensor:
    shape = tuple(int(size) for size in item.get("dims", ()))
    datatype = str(item.get("data_type", "")).removeprefix("TYPE_")
    is_pixels = item.get("name") == PIXELS_INPUT and datatype == "UINT8" and shape[2:] == (3,)
    if len(shape) != DIMENSIONS - 1 or min(shape) < 1 or not (datatype == "FP32" or is_pixels):
        raise InputError(
            address, "has a tensor that cannot be compared", evidence=f"{item['name']}: {datatype} {list(shape)}"
        )
    return Tensor(name=str(item["name"]), datatype=datatype, shape=shape)
