"""Files and values around TensorRT plans, for tests; the plans are a true header and nothing that would run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_files import tiny_resnet

from tao2serve.export.convert import export_onnx
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.record import EngineRecord
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

VERSION = "10.16.1.11"
SIGNATURE = ModelSignature(
    input=Tensor(name="input_1:0", datatype="FP32", shape=(3, 32, 48)),
    coverage=Tensor(name="output_cov/Sigmoid:0", datatype="FP32", shape=(2, 8, 12)),
    bbox=Tensor(name="output_bbox/BiasAdd:0", datatype="FP32", shape=(8, 8, 12)),
)
HERE = Machine(
    gpu_name="NVIDIA H200",
    compute_capability="9.0",
    driver_version="580.159.03",
    cuda_version="13.0",
    platform="linux-x86_64",
    tensorrt_version=VERSION,
)


def plan_bytes(version: str = VERSION, *, body: bytes = b"\0" * 100, serialization: int = 0) -> bytes:
    """A plan's header as trtexec reads it, and a body that is none."""
    numbers = [int(part) for part in version.split(".")]
    return b"ftrt" + serialization.to_bytes(4, "little") + b"\0" * 16 + bytes((*numbers, 0, 0, 0)[:4]) + body


def exported(folder: Path) -> ModelArtifact:
    """A real fp32 ONNX artifact."""
    return export_onnx(tiny_resnet(folder / "model.hdf5"), output=folder / "model.onnx")


def record(**changes: Any) -> EngineRecord:
    """A record of a plan that was built on HERE."""
    members: dict[str, Any] = {
        "tensorrt_version": VERSION, "builder": "tensorrt", "cuda_version": "13.0", "driver_version": "580.159.03",
        "gpu_name": "NVIDIA H200", "compute_capability": "9.0", "platform": "linux-x86_64", "precision": "fp16",
        "strongly_typed": True, "ampere_plus": False, "min_batch": 1, "opt_batch": 4, "max_batch": 8,
        "signature": SIGNATURE, "workspace_bytes": 2 << 30, "onnx_name": "model.onnx", "onnx_sha256": "a" * 64,
        "source_sha256": "b" * 64, "plan_sha256": "c" * 64, "created_at": "2026-11-23T11:00:00+00:00",
        "build_s": 12.5, "tao2serve_version": "0.1.0",
    }  # fmt: skip
    return EngineRecord(**{**members, **changes})
