"""Parity: does an artifact give the numbers of its source, and if not, which tensor and which layer first?"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tao2serve.errors import InputError, ParityError
from tao2serve.export.encrypted import ENCRYPTED_SUFFIXES
from tao2serve.export.inference import open_session
from tao2serve.export.reference import Outputs, forward, layer_outputs
from tao2serve.export.signature import load_onnx, read_signature
from tao2serve.parity.tensors import TensorDifference, compare_tensors
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.keras import Array, KerasModel
from tao2serve.values import ModelArtifact, ModelSignature

__all__ = [
    "FP32_TOLERANCE",
    "ParityReport",
    "check_parity",
    "prove_parity",
    "run_model",
    "sample_images",
]

logger = logging.getLogger(__name__)

FP32_TOLERANCE = 1e-3  # largest absolute difference; TAO's own tf2onnx route stays below 4e-4 of Keras


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The differences over some images; `first_divergence` names a layer, where one could be found."""

    reference: Path
    candidate: Path
    images: int
    tolerance: float
    tensors: tuple[TensorDifference, ...]
    first_divergence: str = ""

    @property
    def worst(self) -> TensorDifference:
        return max(self.tensors, key=lambda tensor: tensor.max_abs)

    @property
    def passed(self) -> bool:
        return self.worst.max_abs <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.worst.name} within {self.worst.max_abs:.2g} over {self.images} images, {self.tolerance:g} allowed"
        )

    def require(self) -> None:
        """Raise ParityError, naming the worst tensor, unless the numbers are the same."""
        if not self.passed:
            place = f", first seen in layer {self.first_divergence}" if self.first_divergence else ""
            raise ParityError(
                str(self.candidate),
                f"does not give the numbers of {self.reference}",
                evidence=f"{self.worst.name} is off by {self.worst.max_abs:.3g} over {self.images} images, "
                f"{self.tolerance:g} is allowed{place}",
            )


def sample_images(signature: ModelSignature, *, count: int = 2, seed: int = 0) -> Array:
    """Return `count` synthetic images (N, C, H, W) in [0, 1]: soft blobs under noise, always the same."""
    random = np.random.default_rng(seed)
    channels, height, width = signature.input.shape
    coarse = random.random((count, channels, -(-height // 16), -(-width // 16)), dtype=np.float32)
    blobs = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    noise = random.random(blobs.shape, dtype=np.float32)
    return np.clip(np.float32(0.85) * blobs + np.float32(0.15) * noise, 0, 1)


def check_parity(
    artifact: ModelArtifact, source: Path, *, images: Array, tolerance: float = FP32_TOLERANCE
) -> ParityReport:
    """Run artifact and source on the same images (N, C, H, W) in [0, 1] and compare both outputs.

    A `.hdf5` source is run by our own numpy reading of Keras, an `.onnx` source by onnxruntime. The report
    says whether it passed; `report.require()` raises. Raises InputError for files or images that do not fit.
    """
    wanted = run_model(source, images)
    found = run_model(artifact.path, images)
    tensors = (
        compare_tensors(wanted.coverage, found.coverage, name=artifact.signature.coverage.name),
        compare_tensors(wanted.bbox, found.bbox, name=artifact.signature.bbox.name),
    )
    report = ParityReport(
        reference=source, candidate=artifact.path, images=len(images), tolerance=tolerance, tensors=tensors
    )
    logger.info("parity of %s: worst %s %.3g", artifact.path.name, report.worst.name, report.worst.max_abs)
    if report.passed or not is_hdf5(source):
        return report
    return ParityReport(
        reference=source,
        candidate=artifact.path,
        images=len(images),
        tolerance=tolerance,
        tensors=tensors,
        first_divergence=_first_divergence(artifact.path, read_keras_hdf5(source), images[:1], tolerance),
    )


def prove_parity(artifact: ModelArtifact, source: Path) -> str:
    """Return in one line how the artifact compares with its source on synthetic images; raises ParityError."""
    if artifact.path == source:
        return "the file is served as it is"
    if source.suffix.lower() in ENCRYPTED_SUFFIXES:
        return "not provable: NVIDIA's own export of weights that only its container can read"
    report = check_parity(artifact, source, images=sample_images(artifact.signature))
    report.require()
    return str(report)


def run_model(path: Path, images: Array) -> Outputs:
    """Return what a `.hdf5` or `.onnx` model says about images (N, C, H, W), computed one by one."""
    if is_hdf5(path):
        model = read_keras_hdf5(path)
        source = next(layer for layer in model.layers if layer.name == model.inputs[0])
        _check_images(path, images, source.integers("batch_input_shape")[1:])
        return _joined([forward(model, images[i : i + 1]) for i in range(len(images))])
    signature = read_signature(path)
    _check_images(path, images, signature.input.shape)
    names = [signature.coverage.name, signature.bbox.name]
    session = open_session(path)
    typed = images.astype(np.float16 if signature.input.datatype == "FP16" else np.float32)
    results = [session.run(names, {signature.input.name: typed[i : i + 1]}) for i in range(len(images))]
    return _joined([Outputs(coverage=x.astype(np.float32), bbox=y.astype(np.float32)) for x, y in results])


def _check_images(path: Path, images: Array, shape: tuple[int | None, ...]) -> None:
    if images.ndim != 4 or not len(images) or images.shape[1:] != shape:
        raise InputError(
            str(path),
            "cannot take these images",
            evidence=f"images {images.shape}, the model wants (N, {', '.join(map(str, shape))})",
        )


def _joined(parts: list[Outputs]) -> Outputs:
    return Outputs(
        coverage=np.concatenate([part.coverage for part in parts]),
        bbox=np.concatenate([part.bbox for part in parts]),
    )


def _first_divergence(path: Path, model: KerasModel, images: Array, tolerance: float) -> str:
    """Return the first layer whose tensor is off, "" if none can be told (names differ, shapes differ)."""
    import onnx

    proto = load_onnx(path)
    signature = read_signature(path)
    last: dict[str, str] = {  # the last tensor below `<layer>/` is the layer's result
        output.rpartition("/")[0].removesuffix("/batchnorm"): output
        for node in proto.graph.node
        for output in node.output
    }
    known = {name: last[name] for name in (layer.name for layer in model.layers) if name in last}
    present = {item.name for item in proto.graph.output}
    proto.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in known.values() if name not in present
    )
    session = open_session(proto.SerializeToString(), optimized=False)
    values = session.run(list(known.values()), {signature.input.name: images})
    found = dict(zip(known, values, strict=True))
    for name, wanted in layer_outputs(model, images):
        if name not in found or found[name].shape != wanted.shape:
            continue
        allowed = tolerance * max(1.0, float(np.abs(wanted).max(initial=0.0)))
        if not float(np.abs(wanted - found[name]).max(initial=0.0)) <= allowed:
            return name
    return ""
