"""Triton python-backend model that runs the detector's ONNX file with onnxruntime.

It is copied as `model.py` beside `model.onnx`, for a Triton without an ONNX backend of its own, and must run in the
Python that this Triton has: 3.8 in the image of ClearML Serving's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class TritonPythonModel:
    """Loaded once for each instance; requests that arrive together run as one batch."""

    def initialize(self, args: dict[str, Any]) -> None:
        import json
        import os

        # onnxruntime's Linux wheels report on models to their maker unless told not to before the import.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime
        import triton_python_backend_utils as backend

        self._backend = backend
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        threads = int(config.get("parameters", {}).get("cpu_threads", {}).get("string_value", 0))
        instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", ()))
        if not threads and instances > 1:  # by itself each would take all cores, and all would wait for each other
            threads = max(1, len(os.sched_getaffinity(0)) // instances)
        options.intra_op_num_threads = threads  # 0: as many as there are cores
        # Idle spinning would take the cores that decode the next image.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = config["input"][0]["name"]
        self._outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        backend = self._backend
        arrays = [backend.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        batch = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        results = self._session.run(self._outputs, {self._input: batch})
        responses = []
        start = 0
        for array in arrays:
            stop = start + len(array)
            # Python 3.8, which ClearML Serving's stock Triton image has, knows no `strict`.
            pairs = zip(self._outputs, results)  # noqa: B905
            tensors = [backend.Tensor(name, result[start:stop]) for name, result in pairs]
            responses.append(backend.InferenceResponse(output_tensors=tensors))
            start = stop
        return responses
