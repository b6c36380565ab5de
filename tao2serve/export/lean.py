"""Leaner graphs: scaling, transposing and decoding inside the graph, so that a server takes pixels and gives boxes.

The numbers are those of `runtime/preprocess.to_tensor` and `runtime/candidates.absolute_boxes` to the last bit, with
onnxruntime at each of its optimization levels (tests/unit/export/test_lean.py). What that takes is said at each node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import tao2serve
from tao2serve.errors import InputError, UsageError
from tao2serve.export.atomic import write_atomically
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.nodes import allow_stored, properties, put_properties, tensor_names
from tao2serve.export.signature import signature_of
from tao2serve.runtime.candidates import cell_centres
from tao2serve.runtime.preprocess import LUMA, LUMA_ROUND, LUMA_UNIT
from tao2serve.runtime.values import DetectorParams
from tao2serve.tao.params import to_params
from tao2serve.tao.source import sha256_of
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import BOXES_OUTPUT, PIXELS_INPUT, ModelArtifact, ModelSignature, Tensor

__all__ = ["GraphDecoding", "check_decoding", "decoding_in", "is_added", "lean_signature", "make_lean"]

logger = logging.getLogger(__name__)

_OLDEST_OPSET: Final = 7  # before, Mul and Add did not broadcast as numpy does
_ADDED: Final = (f"{PIXELS_INPUT}/", f"{BOXES_OUTPUT}/")  # how the names of nodes and tensors put in here begin
_SIGNS: Final = (-1.0, -1.0, 1.0, 1.0)  # of the four sides: left and top lie before the centre
_SCALE: Final = "tao2serve.bbox_scale"
_OFFSET: Final = "tao2serve.bbox_offset"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDecoding:
    """With which bbox scale and offset a graph decodes its boxes, as its metadata says."""

    bbox_scale: float
    bbox_offset: float


def make_lean(
    artifact: ModelArtifact,
    *,
    output: Path,
    uint8_input: bool = False,
    absolute_boxes: bool = False,
    params: DetectorParams | None = None,
) -> ModelArtifact:
    """Write the artifact's graph with more inside; the same artifact and params give the same bytes.

    With `uint8_input` it takes `pixels` (N, H, W, 3) uint8 RGB of the network's size; with `absolute_boxes` it gives
    `output_boxes` (N, 4C, h, w) float32, L, T, R, B in network pixels, for which `params` are needed. Coverage and
    everything between stay as they are, and so do the names of tensors. Weights beside the file are taken in. A graph
    that is so already comes back as it is. Raises InputError for a graph that cannot be so, UsageError without params.
    """
    subject, signature = str(artifact.path), artifact.signature
    wants_pixels = uint8_input and not signature.takes_pixels
    wants_boxes = absolute_boxes and not signature.gives_boxes
    if not wants_pixels and not wants_boxes:
        return artifact
    model = load_model(artifact)
    _check_opset(model, subject)
    described = {"tao2serve.source_sha256": artifact.source_sha256, **properties(model)}
    described |= {"tao2serve.version": tao2serve.__version__, "tao2serve.made_from_sha256": artifact.sha256}
    if wants_pixels:
        _check_free(model.graph, PIXELS_INPUT, subject)
        _put_front(model.graph, signature)
        described |= {"tao2serve.input": "uint8 RGB pixels", "tao2serve.channels": str(signature.input.shape[0])}
    if wants_boxes:
        if params is None:
            raise UsageError(subject, "cannot decode boxes inside without bbox scale and offset")
        _check_free(model.graph, BOXES_OUTPUT, subject)
        _put_end(model.graph, signature, params, subject)
        described |= {
            "tao2serve.boxes": "L, T, R, B in network pixels",
            _SCALE: repr(params.bbox_scale),
            _OFFSET: repr(params.bbox_offset),
        }
    allow_stored(model)
    put_properties(model, described)
    wanted = lean_signature(signature, uint8_input=uint8_input, absolute_boxes=absolute_boxes)
    return _write(model, artifact, output, wanted)


def lean_signature(
    signature: ModelSignature, *, uint8_input: bool = False, absolute_boxes: bool = False
) -> ModelSignature:
    """Return the signature that `make_lean` gives a graph of this one."""
    made = signature
    if uint8_input and not signature.takes_pixels:
        pixels = Tensor(name=PIXELS_INPUT, datatype="UINT8", shape=(*signature.input.shape[1:], 3))
        made = replace(made, input=pixels)
    if absolute_boxes and not signature.gives_boxes:
        made = replace(made, bbox=Tensor(name=BOXES_OUTPUT, datatype="FP32", shape=signature.bbox.shape))
    return made


def is_added(name: str) -> bool:
    """Whether a node or tensor of that name is none of TAO's, but was put in here."""
    return name.startswith(_ADDED)


def decoding_in(model: ModelProto) -> GraphDecoding | None:
    """Return what a graph decodes with; None if it does not, or does not say."""
    described = properties(model)
    try:
        found = GraphDecoding(bbox_scale=float(described[_SCALE]), bbox_offset=float(described[_OFFSET]))
    except (KeyError, ValueError):
        return None
    return found if np.isfinite([found.bbox_scale, found.bbox_offset]).all() and found.bbox_scale > 0 else None


def check_decoding(decoding: GraphDecoding | None, spec: ExperimentSpec, *, subject: str) -> None:
    """Raise InputError if a graph decodes with another bbox scale or offset than the experiment spec has."""
    if decoding is None:
        return
    document = to_params(spec)
    wanted = (document["bbox_scale"], document["bbox_offset"])
    if (decoding.bbox_scale, decoding.bbox_offset) != wanted:
        raise InputError(
            subject,
            f"decodes its boxes otherwise than the experiment spec {spec.path} says",
            evidence=f"bbox scale and offset: the graph has {decoding.bbox_scale:g} and {decoding.bbox_offset:g}, "
            f"the spec has {wanted[0]:g} and {wanted[1]:g}",
            hint="give the spec it was exported with, or export it again with this one",
        )


def _check_opset(model: ModelProto, subject: str) -> None:
    opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise InputError(
            subject,
            "is of an ONNX opset too old to put anything in",
            evidence=f"opset {opset}, and {_OLDEST_OPSET} is needed",
            hint="onnx.version_converter.convert_version, or export it again",
        )


def _check_free(graph: GraphProto, name: str, subject: str) -> None:
    """Raise InputError for a graph that uses the names which are to be put in."""
    known = tensor_names(graph) | {item.name for item in (*graph.input, *graph.output)}
    taken = sorted(item for item in known if item == name or item.startswith(f"{name}/"))
    if taken:
        raise InputError(subject, f"has a tensor {taken[0]!r:.100} already, whose name is needed")


def _put_front(graph: GraphProto, signature: ModelSignature) -> None:
    """Let the graph take pixels; what was its input becomes a tensor like any other, under its name."""
    source = next(item for item in graph.input if item.name == signature.input.name)
    nodes, constants = _front(signature)
    graph.value_info.append(source)
    pixels = _described(
        PIXELS_INPUT, TensorProto.UINT8, source, (signature.input.shape[1], signature.input.shape[2], 3)
    )
    source.CopyFrom(pixels)
    graph.initializer.extend(constants)
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])


def _front(signature: ModelSignature) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return what turns pixels into the input: as `to_tensor` computes it, one rounding a node."""
    nodes: list[NodeProto] = []
    constants = [_constant("pixels/255", np.array(255.0, np.float32))]

    def add(operator: str, *inputs: str, **attributes: int | list[int]) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [f"pixels/{len(nodes)}"], **attributes))
        nodes[-1].name = f"pixels/{operator}_{len(nodes)}"
        return str(nodes[-1].output[0])

    # Cast comes first: TensorRT has uint8 at the border of a network only, and casts it right there.
    planes = add("Transpose", add("Cast", PIXELS_INPUT, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    if signature.input.shape[0] == 1:
        planes = _luma(add, planes, constants)
    result = add("Div", planes, "pixels/255")  # not Mul by 1/255, which rounds otherwise
    if signature.input.datatype == "FP16":
        # onnxruntime runs float16 convolutions of a CPU in float32 and strikes out Cast nodes that meet, with the
        # rounding between them: a Reshape to the same shape keeps them apart.
        constants.append(_constant("pixels/shape", np.array([0, *signature.input.shape], np.int64)))
        add("Reshape", add("Cast", result, to=TensorProto.FLOAT16), "pixels/shape")
    nodes[-1].output[0] = signature.input.name
    return nodes, constants


def _luma(add: Callable[..., str], planes: str, constants: list[TensorProto]) -> str:
    """Return the luma (N, 1, H, W) of planes, a whole number as `to_tensor` has it: all on the way is below 2^24."""
    parts: list[str] = []
    for index, (colour, weight) in enumerate(zip(("red", "green", "blue"), LUMA, strict=True)):
        constants.append(_constant(f"pixels/{colour}_index", np.array([index], np.int64)))
        constants.append(_constant(f"pixels/{colour}_weight", np.array(weight, np.float32)))
        plane = add("Gather", planes, f"pixels/{colour}_index", axis=1)
        parts.append(add("Mul", plane, f"pixels/{colour}_weight"))
    constants.append(_constant("pixels/luma_round", np.array(LUMA_ROUND, np.float32)))
    constants.append(_constant("pixels/luma_unit", np.array(1 / LUMA_UNIT, np.float32)))  # a power of two: exact
    total = add("Add", add("Add", add("Add", parts[0], parts[1]), parts[2]), "pixels/luma_round")
    return add("Floor", add("Mul", total, "pixels/luma_unit"))


def _put_end(graph: GraphProto, signature: ModelSignature, params: DetectorParams, subject: str) -> None:
    """Let the graph give boxes in place of offsets, which become a tensor like any other, under their name."""
    nodes, constants = _end(signature, params, subject)
    offsets = next(item for item in graph.output if item.name == signature.bbox.name)
    graph.value_info.append(offsets)
    offsets.CopyFrom(_described(BOXES_OUTPUT, TensorProto.FLOAT, offsets, signature.bbox.shape))
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _end(signature: ModelSignature, params: DetectorParams, subject: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return what decodes: centre + offset · (± scale), which has the bits of centre ± offset · scale.

    Between the two Reshape nodes the grid is (N, C, 4, h · w). They stand there for exactness: onnxruntime folds a Mul
    right behind a convolution into its weights, which moves boxes by up to 1e-3 pixels (seen with 1.32, from its basic
    level on), and does not look through a Reshape.
    """
    classes, rows, columns = signature.coverage.shape
    if (params.width, params.height, len(params.classes)) != (signature.width, signature.height, classes):
        raise InputError(
            subject,
            "is another network than the one whose boxes are to be decoded",
            evidence=f"{signature}; {params.width}x{params.height} pixels and {len(params.classes)} classes",
        )
    x, y = cell_centres(params, rows=rows, columns=columns)
    across, down = np.tile(x, rows), np.repeat(y, columns)
    constants = [
        _constant("output_boxes/by_side", np.array([0, classes, 4, rows * columns], np.int64)),
        _constant("output_boxes/as_grid", np.array([0, 4 * classes, rows, columns], np.int64)),
        _constant("output_boxes/scale", np.array([_SIGNS], np.float32).T * np.float32(params.bbox_scale)),
        _constant("output_boxes/centre", np.stack((across, down, across, down))),
    ]
    steps = [("Reshape", "by_side"), ("Mul", "scale"), ("Add", "centre"), ("Reshape", "as_grid")]
    if signature.bbox.datatype == "FP16":  # behind a Reshape, as in front
        steps.insert(1, ("Cast", ""))
    nodes, feed = [], signature.bbox.name
    for number, (operator, constant) in enumerate(steps, start=1):
        result = BOXES_OUTPUT if number == len(steps) else f"output_boxes/{number}"
        inputs = [feed, f"output_boxes/{constant}"] if constant else [feed]
        to = {} if constant else {"to": TensorProto.FLOAT}
        nodes.append(helper.make_node(operator, inputs, [result], f"output_boxes/{operator}_{number}", **to))
        feed = result
    return nodes, constants


def _constant(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values) if values.ndim else values, name=name)


def _described(name: str, kind: int, like: ValueInfoProto, shape: tuple[int, ...]) -> ValueInfoProto:
    """Return the description of a tensor whose first dimension is that of `like`, by its name if it has one."""
    batch = like.type.tensor_type.shape.dim[:1]
    return helper.make_tensor_value_info(name, kind, [batch[0].dim_param or None if batch else None, *shape])


def _write(model: ModelProto, artifact: ModelArtifact, output: Path, wanted: ModelSignature) -> ModelArtifact:
    subject = str(artifact.path)
    try:
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
    except Exception as error:  # ValidationError, InferenceError, or RuntimeError from the C++ side
        raise InputError(subject, "gives no valid lean graph", evidence=str(error).strip()[:300]) from error
    signature = signature_of(model, subject=subject)
    if signature != wanted:
        raise InputError(subject, "changed its signature on the way", evidence=f"{wanted}: {signature}")
    target = output / f"{artifact.path.stem}_lean.onnx" if output.is_dir() else output
    write_atomically(target, content)
    logger.info("wrote %s to %s: %s", artifact.path.name, target, signature)
    return ModelArtifact(
        format="onnx",
        path=target,
        sha256=sha256_of(target),
        precision=artifact.precision,
        signature=signature,
        source_sha256=artifact.source_sha256,
        warnings=artifact.warnings,
    )
