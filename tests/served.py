"""The code that runs on Triton, `runtime/triton_model.py`, without a Triton around it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tao2serve.runtime.triton_model import TritonPythonModel
from tao2serve.values import ModelArtifact


@dataclass
class _Tensor:
    name: str
    values: np.ndarray[Any, Any]

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self.values


_BACKEND = SimpleNamespace(
    Tensor=_Tensor,
    InferenceResponse=lambda *, output_tensors: [tensor.values for tensor in output_tensors],
    get_input_tensor_by_name=lambda request, name: _Tensor(name, request[name]),
)


class Served:
    """A model as Triton's python backend loads it; the backend's module, which only Triton has, is played here."""

    def __init__(self, artifact: ModelArtifact, folder: Path) -> None:
        signature = artifact.signature
        version = folder / f"served-{artifact.path.stem}" / "1"
        version.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.path, version / "model.onnx")
        for companion in artifact.companions:
            shutil.copyfile(companion, version / companion.relative_to(artifact.path.parent))
        config = {
            "input": [{"name": signature.input.name}],
            "output": [{"name": signature.coverage.name}, {"name": signature.bbox.name}],
        }
        self._input = signature.input.name
        self._model = TritonPythonModel()
        held = sys.modules.get("triton_python_backend_utils")
        sys.modules["triton_python_backend_utils"] = _BACKEND  # type: ignore[assignment]
        try:
            self._model.initialize(
                {"model_config": json.dumps(config), "model_repository": str(version.parent), "model_version": "1"}
            )
        finally:
            del sys.modules["triton_python_backend_utils"]
            if held is not None:
                sys.modules["triton_python_backend_utils"] = held

    def run(self, batch: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return coverage and bbox for a batch as the model takes it."""
        (answer,) = self._model.execute([{self._input: batch}])
        return answer[0], answer[1]
