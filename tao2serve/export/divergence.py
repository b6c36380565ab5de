"""Where two model files part: the first layer, or named tensor, that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tao2serve.export.execution import input_dtype
from tao2serve.export.graph.build import build_onnx
from tao2serve.export.inference import open_session
from tao2serve.export.reference import layer_outputs
from tao2serve.export.signature import load_onnx, signature_of
from tao2serve.images import network_input
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.keras import Array

__all__ = ["first_divergence"]

AnyArray: TypeAlias = NDArray[Any]


def first_divergence(reference: Path, candidate: Path, image: AnyArray, *, tolerance: float) -> str:
    """Return the first layer, in the order they run, whose result differs by more than `tolerance` of its range.

    `image` is (1, C, H, W) in [0, 1], or pixels (1, H, W, 3) uint8, of which each file gets what it takes. Layers are
    found by TensorFlow's tensor names, `<layer>/<op>:0`, which TAO's exporter and ours keep; "" if none can be told:
    names or shapes differ, or no file is ONNX or HDF5.
    """
    if is_hdf5(candidate):
        reference, candidate = candidate, reference
    if is_hdf5(candidate):  # two files of Keras
        found = dict(_layers(candidate, image))
    else:
        found = _by_layer(_tensors(candidate, image))
    steps: Iterator[tuple[str, Array]]
    if is_hdf5(reference):
        steps = _layers(reference, image)
    else:
        steps = iter(_by_layer(_tensors(reference, image)).items())
    for name, wanted in steps:
        if name not in found or found[name].shape != wanted.shape:
            continue
        allowed = tolerance * max(1.0, float(np.abs(wanted).max(initial=0.0)))
        if not float(np.abs(wanted - found[name]).max(initial=0.0)) <= allowed:
            return name
    return ""


def _layers(path: Path, image: AnyArray) -> Iterator[tuple[str, Array]]:
    """Run a file of Keras layer by layer."""
    model = read_keras_hdf5(path)
    if image.dtype == np.uint8:
        image = network_input(image, signature_of(build_onnx(model), subject=str(path)))
    return layer_outputs(model, image)


def _by_layer(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Name each layer's result: of the tensors below `<layer>/` the last one."""
    return {name.rpartition("/")[0].removesuffix("/batchnorm") or name: value for name, value in tensors.items()}


def _tensors(path: Path, image: AnyArray) -> dict[str, Array]:
    """Return every float tensor that an ONNX file makes of one image, in the order of its nodes."""
    import onnx

    proto = load_onnx(path)
    signature = signature_of(proto, subject=str(path))
    outputs = {item.name for item in proto.graph.output}
    made = [name for node in proto.graph.node for name in node.output if name]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made if name not in outputs)
    # Weights beside the file would not be found from bytes.
    onnx.load_external_data_for_model(proto, str(path.parent))
    session = open_session(proto.SerializeToString(), optimized=False)
    if image.dtype == np.uint8:
        image = network_input(image, signature)
    values = session.run(made, {signature.input.name: image.astype(input_dtype(signature), copy=False)})
    floats = (np.float16, np.float32)
    return {name: value.astype(np.float32) for name, value in zip(made, values, strict=True) if value.dtype in floats}
