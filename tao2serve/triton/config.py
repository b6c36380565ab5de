"""Triton's config.pbtxt, built and checked with Triton's own protobuf schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.errors import InputError
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

__all__ = ["PRECISION_PARAMETER", "ModelConfig", "parse_config", "render_config"]

CONFIG_FILE: Final = "config.pbtxt"
PRECISION_PARAMETER: Final = "precision"  # so that whoever compares a running model knows what to expect of it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """How Triton runs one detector model."""

    name: str
    signature: ModelSignature
    precision: str = "fp32"
    max_batch_size: int = 8
    instances: int = 1
    # How long a request may wait for others to share its batch; 0 batches only what is already waiting.
    max_queue_delay_us: int = 0
    intra_op_threads: int | None = None  # of one instance; None leaves it to onnxruntime

    @classmethod
    def of(cls, settings: Settings, *, name: str, artifact: ModelArtifact) -> ModelConfig:
        return cls(
            name=name,
            signature=artifact.signature,
            precision=artifact.precision,
            max_batch_size=settings.max_batch_size,
            instances=settings.instances,
        )


def render_config(config: ModelConfig) -> str:
    """Return config.pbtxt for Triton's python backend; what is returned parses back to the same message."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    message = schema.ModelConfig(
        name=config.name,
        backend="python",
        max_batch_size=config.max_batch_size,
        input=[_tensor(schema.ModelInput, config.signature.input)],
        output=[_tensor(schema.ModelOutput, tensor) for tensor in (config.signature.coverage, config.signature.bbox)],
        instance_group=[schema.ModelInstanceGroup(count=config.instances, kind=schema.ModelInstanceGroup.KIND_CPU)],
        dynamic_batching=schema.ModelDynamicBatching(max_queue_delay_microseconds=config.max_queue_delay_us),
    )
    message.parameters[PRECISION_PARAMETER].string_value = config.precision
    if config.intra_op_threads is not None:
        message.parameters["intra_op_threads"].string_value = str(config.intra_op_threads)
    text = str(text_format.MessageToString(message))
    if parse_config(text, source=Path(CONFIG_FILE)) != message:
        raise AssertionError(f"config of {config.name} does not survive its own text form")
    return text


def parse_config(text: str, *, source: Path) -> Any:
    """Return the protobuf message of a config.pbtxt; raises InputError naming `source` and the line."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as error:
        raise InputError(str(source), "is no Triton model configuration", evidence=str(error)) from error


def _tensor(kind: Any, tensor: Tensor) -> Any:
    return kind(name=tensor.name, data_type=f"TYPE_{tensor.datatype}", dims=tensor.shape)
