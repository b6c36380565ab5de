"""Triton's config.pbtxt, built and checked with Triton's own protobuf schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tao2serve.config import VersionPolicy
from tao2serve.errors import InputError
from tao2serve.values import Tensor

__all__ = [
    "CONFIG_FILE",
    "ENSEMBLE",
    "PLAN_BACKEND",
    "PRECISION_PARAMETER",
    "PYTHON_BACKEND",
    "Batching",
    "ModelConfig",
    "Step",
    "Warmup",
    "parse_config",
    "render_config",
]

CONFIG_FILE: Final = "config.pbtxt"
PYTHON_BACKEND: Final = "python"
PLAN_BACKEND: Final = "tensorrt"
ENSEMBLE: Final = "ensemble"  # a platform, not a backend: Triton itself passes the tensors on
# What a graph that decodes its boxes does it with, for the same reason.
SCALE_PARAMETER: Final = "bbox_scale"
OFFSET_PARAMETER: Final = "bbox_offset"
PRECISION_PARAMETER: Final = "precision"  # so that whoever compares a running model knows what to expect of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Requests of several callers run as one batch.

    One may wait `queue_delay_us` for others, 0 batches only what is already waiting; a batch of a preferred size
    waits no longer.
    """

    queue_delay_us: int = 0
    preferred_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """Requests that each instance answers before the model is ready: `batch` of them at once.

    `files` name, by input, what the folder `warmup` holds; inputs without one are zeros.
    """

    batch: int = 1
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model of an ensemble; its tensors go by their own names, or by the ensemble's name for them."""

    model: str
    inputs: Mapping[str, str]  # its own name → the ensemble's
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """How Triton runs one model; the shapes of the tensors leave the batch dimension out."""

    name: str
    backend: str  # python | tensorrt | ensemble
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 8
    instances: int = 1
    on_gpu: bool = False
    batching: Batching | None = None  # None: each request runs by itself
    warmup: tuple[Warmup, ...] = ()
    version_policy: VersionPolicy = "latest"
    parameters: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()  # of an ensemble


def render_config(config: ModelConfig) -> str:
    """Return config.pbtxt; what is returned parses back to the same message."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    message = schema.ModelConfig(
        name=config.name,
        max_batch_size=config.max_batch_size,
        version_policy=_version_policy(schema, config.version_policy),
        input=[_tensor(schema.ModelInput, tensor) for tensor in config.inputs],
        output=[_tensor(schema.ModelOutput, tensor) for tensor in config.outputs],
        model_warmup=[_warmup(schema, warmup, config) for warmup in config.warmup],
    )
    if config.backend == ENSEMBLE:
        message.platform = ENSEMBLE
        message.ensemble_scheduling.step.extend(_step(schema, step) for step in config.steps)
    else:
        message.backend = config.backend
        group = schema.ModelInstanceGroup
        message.instance_group.add(count=config.instances, kind=group.KIND_GPU if config.on_gpu else group.KIND_CPU)
    if config.batching is not None:
        message.dynamic_batching.SetInParent()
        message.dynamic_batching.max_queue_delay_microseconds = config.batching.queue_delay_us
        message.dynamic_batching.preferred_batch_size.extend(config.batching.preferred_sizes)
    for name, value in config.parameters.items():
        message.parameters[name].string_value = value
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


def _version_policy(schema: Any, policy: VersionPolicy) -> Any:
    kinds = schema.ModelVersionPolicy
    if policy == "all":
        return kinds(all=kinds.All())
    if policy == "specific":
        return kinds(specific=kinds.Specific(versions=[1]))  # the only one we write
    return kinds(latest=kinds.Latest(num_versions=1))


def _warmup(schema: Any, warmup: Warmup, config: ModelConfig) -> Any:
    message = schema.ModelWarmup(name=f"batch of {warmup.batch}", batch_size=warmup.batch)
    for tensor in config.inputs:
        given = message.inputs[tensor.name]
        given.data_type = schema.DataType.Value(f"TYPE_{tensor.datatype}")
        given.dims.extend(tensor.shape)
        if tensor.name in warmup.files:
            given.input_data_file = warmup.files[tensor.name]
        else:
            given.zero_data = True
    return message


def _step(schema: Any, step: Step) -> Any:
    return schema.ModelEnsembling.Step(
        model_name=step.model, model_version=-1, input_map=step.inputs, output_map=step.outputs
    )
