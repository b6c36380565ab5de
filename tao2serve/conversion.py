"""An fp32 artifact in another precision, and what that costs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tao2serve.artifact_request import ArtifactRequest
from tao2serve.config import Settings
from tao2serve.errors import ParityError, UsageError
from tao2serve.export.precision.calibrate import calibrate, calibration_images
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.overflow import overflows_on
from tao2serve.export.precision.qat import qat_ranges
from tao2serve.export.precision.ranges import Ranges, read_ranges
from tao2serve.export.precision.write import to_precision
from tao2serve.images import find_images
from tao2serve.runtime import DetectorParams
from tao2serve.steps import Step
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.values import ModelArtifact
from tao2serve.verify.request import Decoding, Pictures, VerifyRequest, limits_for
from tao2serve.verify.subjects import of_file
from tao2serve.verify.verification import Verification
from tao2serve.verify.verify import verify

__all__ = ["check_ranges", "convert", "in_words", "measure", "require_parity"]


def check_ranges(weights: Path, request: ArtifactRequest) -> None:
    """Raise UsageError if int8 is wanted and nothing says how large the tensors get: before any work is done."""
    if request.precision != "int8" or request.calibration_cache or request.calibration_images:
        return
    if not is_hdf5(weights) or not read_keras_hdf5(weights).quantization_aware:
        raise UsageError(
            "int8",
            "needs to know how large each tensor gets",
            evidence=f"{weights.name} was not trained for quantization",
            hint="give --calibration-images DIR (pictures like those that will be served) or --calibration-cache FILE",
        )


def convert(
    exported: ModelArtifact, weights: Path, params: DetectorParams, request: ArtifactRequest, folder: Path, step: Step
) -> tuple[ModelArtifact, tuple[str, ...]]:
    """Write `exported` in the precision that is wanted; also return what its user must know of it.

    Raises InputError for ranges and pictures that do not serve.
    """
    precision = request.precision
    assert precision is not None  # the caller asked for another one than the artifact has
    ranges = _ranges(exported, weights, params, request, step) if precision == "int8" else None
    notes: list[str] = []
    output = folder / f"{exported.path.stem}_{precision}.onnx"
    # Folding makes float16's largest errors smaller, and nothing keys on names in such a file.
    made = to_precision(exported, precision=precision, ranges=ranges, fold=True, output=output, on_news=notes.append)
    step.note("; ".join([f"ranges: {ranges}", *notes] if ranges else notes))
    return made, tuple(notes)


def _ranges(
    exported: ModelArtifact, weights: Path, params: DetectorParams, request: ArtifactRequest, step: Step
) -> Ranges:
    model = load_model(exported)
    if request.calibration_cache:
        return read_ranges(request.calibration_cache, model)
    if request.calibration_images:
        return calibrate(
            model,
            calibration_images(request.calibration_images),
            params=params,
            subject=str(weights),
            method=request.calibration_method,
            on_news=step.news,
        )
    return qat_ranges(read_keras_hdf5(weights), model)


def measure(
    exported: ModelArtifact,
    made: ModelArtifact,
    decoding: Decoding,
    pictures: Pictures,
    request: ArtifactRequest,
    settings: Settings,
    step: Step,
) -> Verification:
    """Compare the converted artifact with its fp32 source over the pictures; that they differ is no error here."""
    sides = tuple(replace(of_file(path), name=path.name) for path in (exported.path, made.path))
    with ExitStack() as stack:
        cost = verify(
            VerifyRequest(
                reference=sides[0],
                candidate=sides[1],
                decoding=decoding,
                pictures=pictures,
                limits=limits_for(sides[0], sides[1], settings),
            ),
            stack=stack,
            on_news=step.news,
        )
    if made.precision == "fp16" and request.images:
        beyond = overflows_on(exported, decoding.params, find_images(request.images))
        cost = replace(cost, findings=(*cost.findings, *beyond))
    return cost


def in_words(cost: Verification) -> str:
    """Say in one line what a precision costs."""
    tensors = ", ".join(f"{tensor.name} within {tensor.max_abs:.2g}" for tensor in cost.tensors)
    accuracy = cost.accuracy
    judged = f"; mAP {100 * accuracy.candidate.mean:.2f} after {100 * accuracy.reference.mean:.2f}" if accuracy else ""
    return f"{cost.boxes}; {tensors}{judged}; {cost.image_source}"


def require_parity(cost: Verification, made: ModelArtifact, request: ArtifactRequest) -> None:
    """Raise ParityError, with the cost, for an artifact too far from its source, or one that nothing could judge."""
    if request.accept_parity or (cost.passed and (cost.judged or not request.must_be_judged)):
        return
    if cost.passed:
        error = ParityError(
            str(made.path.name),
            f"cannot be judged in {made.precision}: neither it nor its source found a box",
            evidence=in_words(cost),
            hint="give a picture that shows objects: --image FILE, or take it all the same: --accept-parity",
        )
    else:
        error = ParityError(
            str(made.path.name),
            f"is too far from its fp32 source in {made.precision}",
            evidence="\n".join((*cost.failures, in_words(cost), f"first: {cost.first_divergence}", *cost.findings)),
            hint="calibrate on more pictures, like those that will be served, or take it all the same: --accept-parity",
        )
    error.details["cost"] = cost.to_dict()
    raise error
