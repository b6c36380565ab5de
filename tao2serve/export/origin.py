"""Where an ONNX file came from, and whether its exporter padded as TAO does.

keras2onnx, the hidden default of TAO's exporter, pads like stock TensorFlow, and TAO's Keras does not
(docs/tao.md): such a file gives other numbers than the trained model. The pads in the file prove it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from onnx import AttributeProto, ModelProto, NodeProto

from tao2serve.export.graph.geometry import Pads, conv_pads, depthwise_pads, pool_pads
from tao2serve.export.shapes import tensor_shapes
from tao2serve.export.signature import load_onnx, signature_of

__all__ = ["Exporter", "NamingScheme", "OnnxOrigin", "PadFinding", "origin_of", "read_origin"]

Exporter: TypeAlias = Literal["tao2serve", "tf2onnx", "keras2onnx", "other"]
NamingScheme: TypeAlias = Literal["tf2onnx", "keras2onnx", "tensorrt", "other"]

_SCHEMES: Mapping[tuple[str, str], NamingScheme] = {
    ("output_cov/Sigmoid:0", "output_bbox/BiasAdd:0"): "tf2onnx",
    ("output_cov/Sigmoid", "output_bbox/BiasAdd"): "tensorrt",
    ("output_cov", "output_bbox"): "keras2onnx",
}
_REWRITERS = frozenset({"", "onnx.quantize"})  # they put no name there, or their own in place of the exporter's
_POOLS = ("MaxPool", "AveragePool")
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PadFinding:
    """A node whose pads are TensorFlow's and not those of TAO's Keras; pairs are (height, width)."""

    node: str
    op_type: str  # Conv | MaxPool | AveragePool
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads  # in the file; worked out where it says SAME_UPPER or SAME_LOWER
    tao_pads: Pads

    def __str__(self) -> str:
        kernel, strides = ("x".join(map(str, pair)) for pair in (self.kernel, self.strides))
        return (
            f"{self.node}: {self.op_type} {kernel}, stride {strides}, "
            f"pads {list(self.pads)} where TAO's Keras has {list(self.tao_pads)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOrigin:
    """What wrote an ONNX file; `pad_findings` prove that it gives other numbers than the trained model."""

    exporter: Exporter
    producer: str  # as in the file, with the version it gives, "" if it says nothing
    naming: NamingScheme
    opset: int
    ir_version: int
    pad_findings: tuple[PadFinding, ...] = ()

    @property
    def warning(self) -> str:
        """One paragraph for the user, "" if nothing is known to be wrong."""
        if not self.pad_findings:
            return ""
        shown = "; ".join(str(finding) for finding in self.pad_findings[:_SHOWN])
        more = len(self.pad_findings) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        return (
            "this file does not give the numbers of the trained model: keras2onnx padded like TensorFlow "
            f"(top, left, bottom, right): {shown}{rest}. "
            "Export the .hdf5 with tao2serve, or with TAO and --onnx_route tf2onnx"
        )


def read_origin(path: Path) -> OnnxOrigin:
    """Tell where an ONNX file came from; raises InputError for a file that is no DetectNet_v2 ONNX."""
    return origin_of(load_onnx(path), subject=str(path))


def origin_of(model: ModelProto, *, subject: str) -> OnnxOrigin:
    """Tell where a parsed model came from; `subject` names it in errors. Raises InputError as `signature_of`."""
    signature = signature_of(model, subject=subject)
    naming = _SCHEMES.get((signature.coverage.name, signature.bbox.name), "other")
    if signature.gives_boxes:  # the one name that is left of the exporter's
        naming = next(
            (name for (coverage, _), name in _SCHEMES.items() if coverage == signature.coverage.name), "other"
        )
    exporter = _exporter(model, naming)
    return OnnxOrigin(
        exporter=exporter,
        producer=f"{model.producer_name} {model.producer_version}".strip()[:100],
        naming=naming,
        opset=next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        pad_findings=_pad_findings(model) if exporter == "keras2onnx" else (),
    )


def _exporter(model: ModelProto, naming: NamingScheme) -> Exporter:
    """Believe the producer; a file that lost it in a rewrite (quantized, simplified) is told by its tensors' names."""
    producer = model.producer_name.lower()
    # Before our own metadata: what we only convert keeps its exporter, and its exporter's mistakes.
    if producer.startswith("tf2onnx"):
        return "tf2onnx"
    if producer.startswith("keras2onnx") or (producer in _REWRITERS and naming == "keras2onnx"):
        return "keras2onnx"
    if producer == "tao2serve" or any(item.key == "tao2serve.version" for item in model.metadata_props):
        return "tao2serve"
    return "other"


def _pad_findings(model: ModelProto) -> tuple[PadFinding, ...]:
    """Find the nodes padded as TensorFlow's `same` pads, where TAO's `same` is something else.

    Where there are depthwise convolutions the template pads by ZeroPadding2D, which keras2onnx merges into
    the convolution behind it: such pads look like TensorFlow's and are right, so they prove nothing.
    """
    shapes = tensor_shapes(model)
    pads_by_layers = any(node.op_type == "Conv" and _whole(node, "group", 1) != 1 for node in model.graph.node)
    findings: list[PadFinding] = []
    for node in model.graph.node:
        is_pool = node.op_type in _POOLS
        if is_pool or (node.op_type == "Conv" and not pads_by_layers):
            finding = _finding(node, shapes.get(node.input[0] if node.input else "", ()), is_pool=is_pool)
            findings += [finding] if finding else []
    return tuple(findings)


def _finding(node: NodeProto, shape: tuple[int, ...], *, is_pool: bool) -> PadFinding | None:
    """Return what is wrong with a node's pads; None if nothing is, or it cannot be proved."""
    kernel, strides, dilation = (_pair(node, key) for key in ("kernel_shape", "strides", "dilations"))
    if len(shape) != 4 or min(shape[2:]) < 1 or min(*kernel, *strides, *dilation) < 1:
        return None
    same = depthwise_pads("same", (shape[2], shape[3]), kernel, strides, dilation)  # that is TensorFlow's own
    mode = _text(node, "auto_pad")
    if mode == "SAME_UPPER":
        pads = same
    elif mode == "SAME_LOWER":
        pads = Pads(same.bottom, same.right, same.top, same.left)
    else:
        written = _integers(node, "pads")
        if mode == "VALID" or tuple(written) != same or not any(written):  # no pads at all may be meant
            return None
        pads = same
    wanted = pool_pads("same", kernel) if is_pool else conv_pads("same", kernel, dilation)
    if pads == wanted:
        return None
    name = node.name or (node.output[0] if node.output else "")
    return PadFinding(node=name[:100], op_type=node.op_type, kernel=kernel, strides=strides, pads=pads, tao_pads=wanted)


def _attribute(node: NodeProto, key: str) -> AttributeProto:
    return next((item for item in node.attribute if item.name == key), AttributeProto())


def _integers(node: NodeProto, key: str) -> tuple[int, ...]:
    return tuple(_attribute(node, key).ints)


def _pair(node: NodeProto, key: str) -> tuple[int, int]:
    """Return a (height, width) attribute; 1, which ONNX takes for strides and dilations, where it is absent."""
    values = _integers(node, key) or (1, 1)
    return (values[0], values[1]) if len(values) == 2 else (0, 0)


def _whole(node: NodeProto, key: str, default: int) -> int:
    found = _attribute(node, key)
    return found.i if found.HasField("i") else default


def _text(node: NodeProto, key: str) -> str:
    raw: bytes = _attribute(node, key).s
    return raw.decode("ascii", "replace")
