"""int8 as Q/DQ pairs, by onnxruntime's static quantization with ranges that are given.

What TensorRT's explicit quantization needs: symmetric int8 everywhere (zero point 0), a scale per tensor for
activations and per output channel for weights, biases in float32. Weights stay float32 with a Q/DQ pair of their
own: TensorRT 8 refuses int8 weights ("invalid weights type of Int8"), and later ones take both forms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from tao2serve.errors import InputError
from tao2serve.export.inference import onnxruntime
from tao2serve.export.precision.fold import fold_batch_norm
from tao2serve.export.precision.nodes import properties, put_in_order, put_properties, store_constants
from tao2serve.export.precision.placement import Placement, place, spread
from tao2serve.export.precision.ranges import Ranges, scale_of

__all__ = ["Quantized", "foldable", "quantize"]

_OPSET = 13  # the first with Q/DQ per channel
_INFERRED = {"onnx.infer": "onnxruntime.quant"}  # tells onnxruntime that shapes are known


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """An int8 model, and what of it is int8: names of tensors, and of convolutions' results that stayed float."""

    model: ModelProto
    tensors: tuple[str, ...]
    left_float: tuple[str, ...]


def foldable(model: ModelProto, *, subject: str) -> ModelProto:
    """Return the graph that int8 starts from: opset 13 or later, batch norm folded, weights stored, shapes inferred.

    Raises InputError if the model cannot be brought there.
    """
    version = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
    try:
        current = model if version >= _OPSET else onnx.version_converter.convert_version(model, _OPSET)
        return onnx.shape_inference.infer_shapes(store_constants(fold_batch_norm(current)))
    except Exception as error:  # C++ errors of no common class
        raise InputError(
            subject,
            "cannot be prepared for int8",
            evidence=f"opset {version}, {_OPSET} is needed: {str(error).strip()[:300]}",
        ) from error


def quantize(model: ModelProto, ranges: Ranges, *, subject: str) -> Quantized:
    """Return the model with Q/DQ pairs; inputs, outputs and the names of all tensors that survive are kept.

    `model` is float32 with its weights inside, batch norm not necessarily folded. The same model and ranges give
    the same bytes. Raises InputError if no convolution's input has a range.
    """
    prepared = foldable(model, subject=subject)
    put_in_order(prepared.graph, subject=subject)
    amax = spread(prepared.graph, ranges.amax)
    placement = place(prepared.graph)
    wanted = {name: amax[name] for name in placement.tensors if name in amax}
    if not any(source in wanted for source in placement.convolutions.values()):
        raise InputError(
            subject,
            "has no convolution whose input has a range",
            evidence=f"{len(placement.convolutions)} convolutions, ranges from {ranges}",
        )
    try:
        made = _with_pairs(prepared, placement, wanted)
    except Exception as error:  # onnxruntime's quantizer raises whatever it meets
        raise InputError(subject, "cannot be quantized by onnxruntime", evidence=str(error)[:300]) from error
    put_in_order(made.graph, subject=subject)
    quantized = {node.input[0] for node in made.graph.node if node.op_type == "QuantizeLinear"}
    return Quantized(
        model=made,
        tensors=tuple(name for name in wanted if name in quantized),
        left_float=tuple(result for result, source in placement.convolutions.items() if source not in quantized),
    )


def _with_pairs(model: ModelProto, placement: Placement, amax: Mapping[str, float]) -> ModelProto:
    """Let onnxruntime put the pairs in; it changes `model`."""
    onnxruntime()
    from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData

    origin = (model.producer_name, model.producer_version)
    described = properties(model)
    names = _node_names(model, {result for result, source in placement.convolutions.items() if source in amax})
    put_properties(model, _INFERRED)
    quantizer: Any = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range={
            name: TensorData(lowest=np.float32(-value), highest=np.float32(value)) for name, value in amax.items()
        },
        nodes_to_quantize=names,
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
            # The scale itself, because the way over a float32 range could cost its last bit.
            "TensorQuantOverrides": {
                name: [
                    {
                        "scale": np.array(scale_of(value)),
                        "zero_point": np.array(0, dtype=np.int8),
                        "quant_type": QuantType.QInt8,
                    }
                ]
                for name, value in amax.items()
            },
        },
    )
    for name in placement.residuals:
        if name in amax:
            quantizer.quantize_activation_tensor(name)
    made: ModelProto = quantizer.quantize_model()
    made.producer_name, made.producer_version = origin
    del made.metadata_props[:]
    put_properties(made, described)
    return made


def _node_names(model: ModelProto, results: set[str]) -> list[str]:
    """Return the names of the nodes that give `results`; a node without a name of its own gets its result's."""
    counts = Counter(node.name for node in model.graph.node)
    found: list[str] = []
    for node in model.graph.node:
        if not node.name or counts[node.name] > 1:
            node.name = f"node of {node.output[0]}"
        if node.output[0] in results:
            found.append(node.name)
    return found
