"""Parity: does an artifact give the numbers of its source, and if not, which tensor and which layer first?"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from tao2serve.errors import InputError, ParityError
from tao2serve.export.computable import check_computable
from tao2serve.export.divergence import first_divergence
from tao2serve.export.encrypted import ENCRYPTED_SUFFIXES
from tao2serve.export.execution import OpenModel, open_model, sample_images, sample_pixels
from tao2serve.parity.tensors import TensorDifference, compare_tensors
from tao2serve.runtime.values import DetectorParams
from tao2serve.tao.hdf5 import is_hdf5
from tao2serve.tao.keras import Array
from tao2serve.values import ModelArtifact

__all__ = [
    "FP32_TOLERANCE",
    "ParityReport",
    "check_parity",
    "prove_lean",
    "prove_parity",
]

logger = logging.getLogger(__name__)

LARGE: Final = 500_000  # values of one input image
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
            f"{self.worst.name} within {self.worst.max_abs:.2g} over {self.counted_images}, {self.tolerance:g} allowed"
        )

    @property
    def counted_images(self) -> str:
        return f"{self.images} image{'s' * (self.images != 1)}"

    def require(self) -> None:
        """Raise ParityError, naming the worst tensor, unless the numbers are the same."""
        if not self.passed:
            place = f", first seen in layer {self.first_divergence}" if self.first_divergence else ""
            raise ParityError(
                str(self.candidate),
                f"does not give the numbers of {self.reference}",
                evidence=f"{self.worst.name} is off by {self.worst.max_abs:.3g} over {self.counted_images}, "
                f"{self.tolerance:g} is allowed{place}",
            )


def check_parity(
    artifact: ModelArtifact, source: Path, *, images: Array, tolerance: float = FP32_TOLERANCE
) -> ParityReport:
    """Run artifact and source on the same images (N, C, H, W) in [0, 1] and compare both outputs.

    Both are graphs as TAO's; for lean ones there is `prove_lean`.
    A `.hdf5` source is run by our own numpy reading of Keras, an `.onnx` source by onnxruntime. The report
    says whether it passed; `report.require()` raises. Raises InputError for files or images that do not fit, and
    where the fault is the source's: its numbers are not finite, or too large for float32.
    """
    wanted = open_model(source).run(images)
    found = open_model(artifact.path).run(images)
    tensors = (
        compare_tensors(wanted.coverage, found.coverage, name=artifact.signature.coverage.name),
        compare_tensors(wanted.bbox, found.bbox, name=artifact.signature.bbox.name),
    )
    report = ParityReport(
        reference=source, candidate=artifact.path, images=len(images), tolerance=tolerance, tensors=tensors
    )
    logger.info("parity of %s: worst %s %.3g", artifact.path.name, report.worst.name, report.worst.max_abs)
    if report.passed:
        return report
    if is_hdf5(source):
        check_computable(source, images, tolerance=tolerance)
    return replace(report, first_divergence=first_divergence(source, artifact.path, images[:1], tolerance=tolerance))


def prove_parity(artifact: ModelArtifact, source: Path) -> str:
    """Return in one line how the artifact compares with its source on synthetic images.

    A file that is served as it is has nothing to be compared with, so it is run, alone and in a batch.
    Raises ParityError, and InputError as `check_parity`.
    """
    # A large image is evidence enough: each of its thousands of cells is compared, and numpy takes seconds for it.
    images = sample_images(artifact.signature, count=1 if prod(artifact.signature.input.shape) > LARGE else 2)
    if artifact.path == source:
        _check_runs(source, images)
        return "the file is served as it is"
    if source.suffix.lower() in ENCRYPTED_SUFFIXES:
        _check_runs(artifact.path, images)
        return "not provable: NVIDIA's own export of weights that only its container can read"
    report = check_parity(artifact, source, images=images)
    report.require()
    return str(report)


def prove_lean(lean: ModelArtifact, source: ModelArtifact, params: DetectorParams) -> str:
    """Return in one line that a lean graph gives the bits of the graph it was made from, over synthetic pixels.

    Coverage must be equal, and boxes what `absolute_boxes` makes of the source's offsets. Raises ParityError, with
    the largest difference, where a bit differs.
    """
    pixels = sample_pixels(lean.signature, count=1 if prod(lean.signature.input.shape) > LARGE else 2)
    model = open_model(lean.path)
    wanted, found = open_model(source.path).see(pixels), model.see(pixels)
    _check_batch(model, np.concatenate([sample_images(lean.signature, count=1)] * 2))
    pairs = [(lean.signature.coverage.name, wanted.coverage, found.coverage)]
    if found.boxes == wanted.boxes:
        pairs.append((lean.signature.bbox.name, wanted.bbox, found.bbox))
    else:
        pairs.append((lean.signature.bbox.name, wanted.in_pixels(params), found.in_pixels(params)))
    for name, ours, theirs in pairs:
        if not np.array_equal(ours, theirs, equal_nan=True):
            raise ParityError(
                str(lean.path),
                f"does not give the bits of {source.path.name}",
                evidence=f"{name} is off by {compare_tensors(ours, theirs, name=name).max_abs:.3g}",
                hint="serve the graph as it was, without --uint8-input and --absolute-boxes; "
                "or take it all the same: --accept-parity",
            )
    return f"coverage and boxes are the same bits over {len(pixels)} image{'s' * (len(pixels) != 1)}"


def _check_batch(model: OpenModel, images: Array) -> None:
    """Raise InputError for a model that declares an open batch size and has a fixed one inside, as in a Reshape."""
    try:
        batch = model.forward(images)
        seen = f"{len(images)} images gave {len(batch.coverage)} and {len(batch.bbox)} results"
        fits = len(batch.coverage) == len(batch.bbox) == len(images)
    except InputError as error:
        seen, fits = error.evidence, False
    if fits:
        return
    raise InputError(
        str(model.path),
        "takes one image at a time, which rules out Triton's dynamic batching",
        evidence=seen,
        hint="export it again with an open batch size, which is what TAO's exporters write by themselves",
    )


def _check_runs(path: Path, images: Array) -> None:
    """Raise InputError unless a model runs here, gives the shapes it declares, finite numbers, and takes a batch."""
    model = open_model(path)
    outputs = model.run(images[:1])
    _check_batch(model, np.concatenate([images[:1]] * 2))
    found = (outputs.coverage, outputs.bbox)
    for tensor, value in zip((model.signature.coverage, model.signature.bbox), found, strict=True):
        if value.shape[1:] != tensor.shape:
            raise InputError(
                str(path),
                f"gives another {tensor.name} than it declares",
                evidence=f"declared (N, {', '.join(map(str, tensor.shape))}), given {value.shape}",
            )
        if not np.isfinite(value).all():
            raise InputError(
                str(path),
                "computes numbers that are not finite",
                evidence=f"in {tensor.name}, on a synthetic picture",
                hint="training diverged, or the file is damaged",
            )
