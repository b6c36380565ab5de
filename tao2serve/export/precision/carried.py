"""Which precision an ONNX file carries, told by its operators and weights and not by what its metadata claims."""

from __future__ import annotations

from typing import Final

from onnx import ModelProto, TensorProto

from tao2serve.export.messages import all_nodes
from tao2serve.export.precision.nodes import constants

__all__ = ["precision_of"]

# Q/DQ pairs, and the operators of onnxruntime's other formats: static ("QOperator") and dynamic quantization.
_INT8: Final = frozenset(
    {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"}
)


def precision_of(model: ModelProto) -> str:
    """Return int8 if anything is quantized, fp16 if weights are of half precision, else fp32."""
    if any(node.op_type in _INT8 or node.op_type.startswith("QLinear") for node in all_nodes(model)):
        return "int8"
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in constants(model.graph).values()):
        return "fp16"
    return "fp32"
