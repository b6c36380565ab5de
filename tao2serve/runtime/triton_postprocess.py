"""Triton python-backend model at the end of an ensemble: the network's grids in, boxes out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from .candidates import BoxEncoding
from .ensemble import BOXES, COLUMNS, COUNT, DETECTIONS, IMAGE_SIZE, PARAMS_FILE, POSTPROCESS_MS, to_rows
from .postprocess import postprocess
from .values import DetectorParams, Float32


class TritonPythonModel:
    """Loaded once for each instance, a process of its own that takes one request at a time."""

    def initialize(self, args: dict[str, Any]) -> None:
        import triton_python_backend_utils as backend

        self._backend = backend
        config = json.loads(args["model_config"])
        params = Path(args["model_repository"]) / args["model_version"] / PARAMS_FILE
        self._params = DetectorParams.from_dict(json.loads(params.read_text(encoding="utf-8")))
        self._boxes = cast(BoxEncoding, config["parameters"][BOXES]["string_value"])
        self._coverage, self._bbox = (item["name"] for item in config["input"] if item["name"] != IMAGE_SIZE)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        backend = self._backend
        names = (self._coverage, self._bbox, IMAGE_SIZE)
        tensors = [backend.get_input_tensor_by_name(request, name).as_numpy() for name in names]
        found, spent_ms = [], []
        try:
            for cov, bbox, size in zip(*tensors, strict=True):
                start = time.perf_counter()
                image_size = (int(size[0]), int(size[1]))
                found.append(to_rows(postprocess(cov, bbox, self._params, image_size=image_size, boxes=self._boxes)))
                spent_ms.append([(time.perf_counter() - start) * 1e3])
        except Exception as error:  # raised here, it would be every other request's error too
            fault = backend.TritonError(f"the grids cannot be clustered: {type(error).__name__}: {error}"[:300])
            return backend.InferenceResponse(error=fault)
        return backend.InferenceResponse(
            output_tensors=[
                backend.Tensor(DETECTIONS, _padded(found)),
                backend.Tensor(COUNT, np.array([[len(rows)] for rows in found], dtype=np.int32)),
                backend.Tensor(POSTPROCESS_MS, np.array(spent_ms, dtype=np.float32)),
            ]
        )


def _padded(found: list[Float32]) -> Float32:
    """Return (n, rows, 7): the images of one request have one number of rows, zeros where there is no box."""
    padded = np.zeros((len(found), max(len(rows) for rows in found), COLUMNS), dtype=np.float32)
    for index, rows in enumerate(found):
        padded[index, : len(rows)] = rows
    return padded
