"""Triton python-backend model at the start of an ensemble: the bytes of images in, the network's input out.

Each instance is a process of its own and takes one request at a time, so what one image costs, or a bad one does,
is no other request's.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from .ensemble import (
    IMAGE,
    IMAGE_SIZE,
    MAX_BYTES,
    MAX_PIXELS,
    PARAMS_FILE,
    PREPROCESS_MS,
    REFUSED,
    RESIZE,
)
from .header import ImageError
from .memory import keep_freed
from .reading import ReadInput, read_input
from .resize import ResizeMode
from .values import DetectorParams


class TritonPythonModel:
    """Loaded once for each instance."""

    def initialize(self, args: dict[str, Any]) -> None:
        import triton_python_backend_utils as backend

        keep_freed()
        self._backend = backend
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        params = Path(args["model_repository"]) / args["model_version"] / PARAMS_FILE
        self._params = DetectorParams.from_dict(json.loads(params.read_text(encoding="utf-8")))
        self._mode = cast(ResizeMode, parameters[RESIZE])
        self._max_bytes, self._max_pixels = int(parameters[MAX_BYTES]), int(parameters[MAX_PIXELS])
        (self._output,) = (item for item in config["output"] if item["name"] not in (IMAGE_SIZE, PREPROCESS_MS))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        """Answer one request; whatever is wrong with its images is its own error."""
        backend = self._backend
        images = backend.get_input_tensor_by_name(request, IMAGE).as_numpy().reshape(-1)
        arrays, sizes, spent_ms = [], [], []
        try:
            for image in images:
                start = time.perf_counter()
                read = self._read(image)
                if isinstance(read, ImageError):
                    refusal = backend.TritonError(REFUSED + str(read), backend.TritonError.INVALID_ARG)
                    return backend.InferenceResponse(error=refusal)
                arrays.append(read[0])
                sizes.append(read[1])
                spent_ms.append([(time.perf_counter() - start) * 1e3])
        except Exception as error:  # raised here, it would be every other request's error too
            fault = backend.TritonError(f"an image cannot be read: {type(error).__name__}: {error}"[:300])
            return backend.InferenceResponse(error=fault)
        stacked = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
        return backend.InferenceResponse(
            output_tensors=[
                backend.Tensor(self._output["name"], stacked),
                backend.Tensor(IMAGE_SIZE, np.array(sizes, dtype=np.int32)),
                backend.Tensor(PREPROCESS_MS, np.array(spent_ms, dtype=np.float32)),
            ]
        )

    def _read(self, image: bytes) -> ReadInput | ImageError:
        return read_input(
            image,
            self._params,
            as_pixels=self._output["data_type"] == "TYPE_UINT8",
            max_bytes=self._max_bytes,
            max_pixels=self._max_pixels,
            mode=self._mode,
        )
