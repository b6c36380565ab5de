"""Read the named input and outputs of an ONNX file, and hold them against the experiment spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from tao2serve.errors import InputError
from tao2serve.export.messages import broken_text
from tao2serve.export.shapes import tensor_shapes
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.tao.stride import fits_stride, stated_strides
from tao2serve.values import BOXES_OUTPUT, ModelSignature, Tensor

__all__ = ["check_against_spec", "read_signature", "signature_of"]

# TAO's tf2onnx route keeps TensorFlow's names with `:0`; keras2onnx and TensorRT repositories drop parts.
_COVERAGE_NAMES = frozenset({"output_cov/Sigmoid", "output_cov"})
_BBOX_NAMES = frozenset({"output_bbox/BiasAdd", "output_bbox"})
_DATATYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
}
_MAX_SIDE = 1 << 14  # pixels, or classes


def read_signature(path: Path) -> ModelSignature:
    """Read an ONNX file's signature under either of TAO's naming schemes; weights are not examined.

    Raises InputError for a file that is not ONNX, or not a DetectNet_v2 network.
    """
    return signature_of(load_onnx(path), subject=str(path))


def load_onnx(path: Path) -> ModelProto:
    """Parse an ONNX file, leaving external data where it is. Raises InputError."""
    try:
        size = path.stat().st_size
        if not 0 < size < 1 << 31:
            raise InputError(str(path), "is not an ONNX file by its size", evidence=f"{size} bytes")
        model = onnx.load(str(path), load_external_data=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except Exception as error:  # google.protobuf's DecodeError; which class depends on its implementation
        raise InputError(
            str(path),
            "is not an ONNX file, or a damaged one",
            evidence=f"{type(error).__name__}: {str(error)[:200]}",
        ) from error
    broken = broken_text(model)
    if broken:
        raise InputError(str(path), "is a damaged ONNX file: a text in it is not UTF-8", evidence=broken)
    return model


def signature_of(model: ModelProto, *, subject: str) -> ModelSignature:
    """Return the signature of a parsed model; `subject` names it in errors."""
    constants = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]  # IR 3 lists weights as inputs
    if len(inputs) != 1:
        raise InputError(
            subject,
            "does not have exactly one input",
            evidence=f"inputs: {_names(inputs)}",
            hint="only DetectNet_v2 models are supported",
        )
    coverage = _output(model, _COVERAGE_NAMES, "coverage", subject)
    bbox = next((item for item in model.graph.output if item.name == BOXES_OUTPUT), None)  # see lean.py
    bbox = bbox or _output(model, _BBOX_NAMES, "bbox", subject)
    is_open = min(_dims(coverage) + _dims(bbox)) < 1
    shapes = tensor_shapes(model) if is_open else {}
    signature = ModelSignature(
        input=_tensor(inputs[0], {}, subject),
        coverage=_tensor(coverage, shapes, subject),
        bbox=_tensor(bbox, shapes, subject),
    )
    _check_sizes(signature, subject)
    return signature


def _check_sizes(signature: ModelSignature, subject: str) -> None:
    """Raise InputError unless both grids are one, and no larger than an input of a possible size."""
    channels, height, width = signature.input.shape
    if signature.takes_pixels:
        height, width, channels = signature.input.shape
        if channels != 3:
            raise InputError(
                subject,
                "does not take pixels as (N, height, width, 3)",
                evidence=f"{signature.input.name} is (N, {', '.join(map(str, signature.input.shape))})",
            )
    if channels not in (1, 3):
        last = "; it looks like channels last" if width in (1, 3) else ""
        raise InputError(
            subject,
            "does not take images of 1 or 3 channels, channels first",
            evidence=f"{signature.input.name} is (N, {channels}, {height}, {width}){last}",
            hint="TAO's exporters and tao2serve write (N, channels, height, width)",
        )
    if signature.bbox.shape != (4 * signature.class_count, *signature.coverage.shape[1:]):
        raise InputError(
            subject,
            "has outputs that do not belong together",
            evidence=f"coverage {signature.coverage.shape}, bbox {signature.bbox.shape}",
        )
    classes, rows, columns = signature.coverage.shape
    if max(height, width, classes) > _MAX_SIDE or rows > height or columns > width:
        raise InputError(
            subject,
            "declares sizes that no detector has",
            evidence=f"input {signature.input.shape}, coverage {signature.coverage.shape}"
            + ("" if signature.takes_pixels else " (channels first)"),
        )


def check_against_spec(signature: ModelSignature, spec: ExperimentSpec, *, subject: str) -> None:
    """Raise InputError, showing both sides, if model and experiment spec are not of one training run."""
    height, width = signature.height, signature.width
    differences: list[str] = []
    if signature.class_count != len(spec.classes):
        differences.append(
            f"classes: the model has {signature.class_count}, "
            f"the spec has {len(spec.classes)} ({', '.join(spec.classes)})"
        )
    # A graph that takes pixels makes one channel of them by itself: how many its network has does not show.
    channels = spec.input.channels if signature.takes_pixels else signature.input.shape[0]
    wanted = (spec.input.channels, spec.input.height, spec.input.width)
    if (channels, height, width) != wanted:
        differences.append(f"input as (C, H, W): the model has {(channels, height, width)}, the spec has {wanted}")
    rows, columns = signature.coverage.shape[1:]
    differences += [
        f"stride: the model has {columns}x{rows} cells for {width}x{height} pixels, which does not fit {stated}"
        for stated in stated_strides(spec)
        if not any(fits_stride(width, columns, s) and fits_stride(height, rows, s) for s in stated.strides)
    ]
    if differences:
        raise InputError(
            subject,
            f"does not belong to the experiment spec {spec.path}",
            evidence="; ".join(differences),
            hint="give the spec this model was trained with (experiment_spec.txt beside its weights)",
        )


def _names(items: Iterable[ValueInfoProto]) -> str:
    return ", ".join(item.name for item in items)[:300] or "none"


def _output(model: ModelProto, wanted: frozenset[str], role: str, subject: str) -> ValueInfoProto:
    for item in model.graph.output:
        if item.name.removesuffix(":0") in wanted:
            return item
    raise InputError(
        subject,
        f"has no {role} output",
        evidence=f"outputs: {_names(model.graph.output)}; looked for {' or '.join(sorted(wanted))}",
        hint="only DetectNet_v2 models are supported",
    )


def _dims(item: ValueInfoProto) -> tuple[int, ...]:
    """Return the sizes behind N; 0 where the file leaves one open, one 0 if it says nothing."""
    return tuple(max(dim.dim_value, 0) for dim in item.type.tensor_type.shape.dim)[1:] or (0,)


def _tensor(item: ValueInfoProto, inferred: Mapping[str, tuple[int, ...]], subject: str) -> Tensor:
    shape, datatype = _dims(item), _DATATYPES.get(item.type.tensor_type.elem_type)
    if min(shape) < 1:
        shape = inferred.get(item.name, (0, *shape))[1:]
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            subject,
            f"{item.name} does not have a fixed (channels, height, width)",
            evidence=f"behind N it has {shape}, 0 where the size is open",
            hint="export the model with a fixed input size",
        )
    if datatype is None:
        raise InputError(
            subject,
            f"{item.name} is of a type no detector has",
            evidence=str(item.type.tensor_type.elem_type),
        )
    return Tensor(name=item.name, datatype=datatype, shape=shape)
