"""From weights to what is served: ONNX, in a precision, as an engine, each step held against the one before."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tao2serve.config import Settings
from tao2serve.errors import InputError, ParityError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.export.encrypted import container_export
from tao2serve.export.engine.build import build_engine
from tao2serve.export.engine.find import find_builder
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import read_machine
from tao2serve.export.engine.plan import is_plan, plan_artifact, read_plan
from tao2serve.export.engine.request import EngineRequest
from tao2serve.export.parity import prove_parity
from tao2serve.export.precision.calibrate import (
    DEFAULT_METHOD,
    CalibrationMethod,
    calibrate,
    calibration_images,
)
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.overflow import overflows_on
from tao2serve.export.precision.qat import qat_ranges
from tao2serve.export.precision.ranges import Ranges, read_ranges
from tao2serve.export.precision.write import Precision, to_precision
from tao2serve.export.signature import check_against_spec
from tao2serve.images import find_images
from tao2serve.runtime import DetectorParams
from tao2serve.steps import Step, Steps
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import ModelArtifact
from tao2serve.verify.request import Decoding, VerifyRequest, decoding_with, default_decoding, limits_for, pictures_of
from tao2serve.verify.subjects import of_file
from tao2serve.verify.verification import Verification
from tao2serve.verify.verify import verify

__all__ = ["ArtifactRequest", "Artifacts", "EngineWish", "make_artifacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWish:
    """An engine besides the ONNX file, for batches from `min_batch` to `max_batch`."""

    min_batch: int = 1
    opt_batch: int = 8
    max_batch: int = 8
    workspace_bytes: int = 2 << 30
    timing_cache: Path | None = None
    trtexec: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest:
    """What to make of the weights. Without a precision they keep their own.

    int8 takes its ranges from `calibration_cache` (TensorRT's, or the scales TAO writes after quantization-aware
    training), else from `calibration_images`, else from the weights of a model trained for quantization. What a
    precision costs is measured on `images`, else on the calibration images, else on synthetic pictures.
    """

    precision: Precision | None = None
    calibration_images: Path | None = None
    calibration_cache: Path | None = None
    calibration_method: CalibrationMethod = DEFAULT_METHOD
    fold_batch_norm: bool = False
    images: Path | None = None
    labels: Path | None = None
    accept_parity: bool = False
    engine: EngineWish | None = None

    def __post_init__(self) -> None:
        if self.precision != "int8" and (self.calibration_images or self.calibration_cache):
            raise UsageError(
                "--calibration-images and --calibration-cache", "are for int8 only", hint="add: --precision int8"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """What was made: the model, usually an ONNX file, the plan built from it, and what the precision cost."""

    model: ModelArtifact
    plan: ModelArtifact | None = None
    cost: Verification | None = None  # None for fp32, which parity has proved equal to its source
    warnings: tuple[str, ...] = ()  # of the source: what its user must know
    scales: Mapping[str, float] | None = None  # of a model trained for quantization: tensor of the fp32 graph → amax

    @property
    def all(self) -> tuple[ModelArtifact, ...]:
        return (self.model, self.plan) if self.plan else (self.model,)


def make_artifacts(
    weights: Path,
    spec: ExperimentSpec | None,
    request: ArtifactRequest,
    settings: Settings,
    *,
    folder: Path,
    steps: Steps,
) -> Artifacts:
    """Make the artifacts in `folder`, a new one; `steps` tells what is being done.

    Without a spec nothing is held against it, and boxes are decoded with TAO's default settings. Raises InputError
    for weights, pictures or ranges that do not serve, ParityError for an artifact too far from its source, ToolError
    for an engine without TensorRT.
    """
    if is_plan(weights):
        return _given_plan(weights, spec, request, steps)
    folder.mkdir(parents=True)
    with steps.step("export to ONNX") as step:
        container = container_export(settings, on_news=step.news)
        exported = export_onnx(weights, output=folder / f"{weights.stem}.onnx", spec=spec, container=container)
        converts = request.precision not in (None, exported.precision)
        scales, notes = _trained_scales(exported, weights)
        if request.fold_batch_norm and not converts:  # the conversions fold by themselves
            exported = to_precision(
                exported, precision="fp32", fold=True, output=folder / f"{weights.stem}_folded.onnx"
            )
            scales = None  # folding took away tensors that they name
        step.note("; ".join((str(exported.signature), *exported.warnings, *notes)))
    with steps.step("prove parity with the weights") as step:
        step.note(prove_parity(exported, weights))
    decoding = decoding_with(spec) if spec else default_decoding(exported.signature)
    made, cost = exported, None
    if converts:
        scales = None
        with steps.step(f"convert to {request.precision}") as step:
            made = _converted(exported, weights, decoding.params, request, folder, step)
        with steps.step(f"measure what {request.precision} costs") as step:
            cost = _measured(exported, made, decoding, request, settings, step)
            step.note(in_words(cost))
        _require(cost, made, request)
    plan = None
    if request.engine:
        with steps.step("build the TensorRT engine") as step:
            plan = _engine(made, request.engine, folder / f"{made.path.stem}.plan", step)
            step.note(f"{plan.path.stat().st_size:,} bytes")
    return Artifacts(model=made, plan=plan, cost=cost, warnings=(*exported.warnings, *notes), scales=scales)


def _trained_scales(exported: ModelArtifact, weights: Path) -> tuple[Mapping[str, float] | None, tuple[str, ...]]:
    """Return what TAO's exporter writes for a model trained for quantization, under names that the graph has.

    None for other models; for one whose ranges cannot be read also why, which is no reason to export nothing.
    """
    keras = read_keras_hdf5(weights) if is_hdf5(weights) else None
    if keras is None or not keras.quantization_aware:
        return None, ()
    try:
        return qat_ranges(keras, load_model(exported)).amax, ()
    except InputError as error:
        return None, (f"the ranges it was trained with cannot be read: {error}",)


def _given_plan(plan: Path, spec: ExperimentSpec | None, request: ArtifactRequest, steps: Steps) -> Artifacts:
    """Take a plan as it is, if it fits this machine."""
    with steps.step("hold the plan against this machine") as step:
        found = read_plan(plan)
        artifact = plan_artifact(found)
        if spec is not None:
            check_against_spec(artifact.signature, spec, subject=str(plan))
        if request.engine or request.fold_batch_norm or request.precision not in (None, artifact.precision):
            raise UsageError(str(plan), f"is a plan in {artifact.precision}, and stays what it is")
        step.note("; ".join(require_fit(found, read_machine())) or "it fits")
    return Artifacts(model=artifact)


def _converted(
    exported: ModelArtifact, weights: Path, params: DetectorParams, request: ArtifactRequest, folder: Path, step: Step
) -> ModelArtifact:
    precision = request.precision
    assert precision is not None  # the caller asked for another one than the artifact has
    ranges = _ranges(exported, weights, params, request, step) if precision == "int8" else None
    notes: list[str] = []

    def news(text: str) -> None:
        notes.append(text)
        step.news(text)

    output = folder / f"{exported.path.stem}_{precision}.onnx"
    # Folding makes float16's largest errors smaller, and nothing keys on names in such a file.
    made = to_precision(exported, precision=precision, ranges=ranges, fold=True, output=output, on_news=news)
    step.note("; ".join([f"ranges: {ranges}", *notes] if ranges else notes))
    return made


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
    keras = read_keras_hdf5(weights) if is_hdf5(weights) else None
    if keras is None or not keras.quantization_aware:
        raise UsageError(
            "int8",
            "needs to know how large each tensor gets",
            evidence=f"{weights.name} was not trained for quantization",
            hint="give --calibration-images DIR (pictures like those that will be served) or --calibration-cache FILE",
        )
    return qat_ranges(keras, model)


def _measured(
    exported: ModelArtifact,
    made: ModelArtifact,
    decoding: Decoding,
    request: ArtifactRequest,
    settings: Settings,
    step: Step,
) -> Verification:
    sides = tuple(replace(of_file(path), name=path.name) for path in (exported.path, made.path))
    # Pictures of the user's own choice say more than those the ranges come from, and these more than none.
    pictures = pictures_of(request.images or request.calibration_images, decoding, labels=request.labels)
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


def _require(cost: Verification, made: ModelArtifact, request: ArtifactRequest) -> None:
    if cost.passed or request.accept_parity:
        return
    raise ParityError(
        str(made.path.name),
        f"is too far from its fp32 source in {made.precision}",
        evidence="\n".join((*cost.failures, f"first: {cost.first_divergence}", *cost.findings)),
        hint="calibrate on more pictures, like those that will be served, or take it all the same: --accept-parity",
    )


def _engine(artifact: ModelArtifact, wish: EngineWish, output: Path, step: Step) -> ModelArtifact:
    here = read_machine(trtexec=wish.trtexec)
    request = EngineRequest(
        artifact=artifact,
        min_batch=wish.min_batch,
        opt_batch=wish.opt_batch,
        max_batch=wish.max_batch,
        workspace_bytes=wish.workspace_bytes,
        timing_cache=wish.timing_cache,
    )
    builder = find_builder(request, here=here, log=output.with_suffix(".log"))
    return build_engine(request, output=output, builder=builder, here=here, on_news=step.news)
