"""From weights to what is served: ONNX, in a precision, as an engine, each step held against the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tao2serve.artifact_request import ArtifactRequest, EngineWish
from tao2serve.config import Settings
from tao2serve.conversion import check_ranges, convert, in_words, measure, require_parity
from tao2serve.errors import InputError, ParityError, UsageError
from tao2serve.export.convert import export_onnx
from tao2serve.export.encrypted import container_export
from tao2serve.export.engine.build import build_engine
from tao2serve.export.engine.commands import export_command
from tao2serve.export.engine.find import find_builder
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import read_machine
from tao2serve.export.engine.plan import is_plan, plan_artifact, read_plan
from tao2serve.export.engine.request import EngineRequest
from tao2serve.export.lean import lean_signature, make_lean
from tao2serve.export.parity import prove_lean, prove_parity
from tao2serve.export.precision.load import load_model
from tao2serve.export.precision.qat import qat_ranges
from tao2serve.export.precision.write import require_plain, to_precision
from tao2serve.export.signature import check_against_spec
from tao2serve.runtime import DetectorParams
from tao2serve.steps import Step, Steps
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.reading import cautions
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import ModelArtifact
from tao2serve.verify.request import decoding_with, default_decoding, pictures_of
from tao2serve.verify.verification import Verification

__all__ = ["ArtifactRequest", "Artifacts", "EngineWish", "make_artifacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """What was made: the model to serve, usually an ONNX file, the plan built from it, and what the precision cost."""

    model: ModelArtifact
    original: ModelArtifact | None = None  # of a lean model: TAO's own graph, which calibration and conversions need
    plan: ModelArtifact | None = None
    cost: Verification | None = None  # None for fp32, which parity has proved equal to its source
    warnings: tuple[str, ...] = ()  # of the source: what its user must know
    scales: Mapping[str, float] | None = None  # of a model trained for quantization: tensor of the fp32 graph → amax

    @property
    def all(self) -> tuple[ModelArtifact, ...]:
        return tuple(artifact for artifact in (self.model, self.original, self.plan) if artifact)


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
    for an engine without TensorRT, UsageError for boxes that no spec says how to decode.
    """
    if is_plan(weights):
        return _given_plan(weights, spec, request, steps)
    if request.absolute_boxes and spec is None:
        raise UsageError(
            "--absolute-boxes", "needs the experiment spec: bbox scale and offset are in it", hint="add: --spec FILE"
        )
    check_ranges(weights, request)
    folder.mkdir(parents=True)
    with steps.step("export to ONNX") as step:
        container = container_export(settings, on_news=step.news)
        exported = export_onnx(weights, output=folder / f"{weights.stem}.onnx", spec=spec, container=container)
        converts = request.precision not in (None, exported.precision)
        if converts or request.fold_batch_norm:
            require_plain(exported)
        scales, notes = _trained_scales(exported, weights)
        if request.fold_batch_norm and not converts:  # the conversions fold by themselves
            exported = to_precision(
                exported, precision="fp32", fold=True, output=folder / f"{weights.stem}_folded.onnx"
            )
            scales = None  # folding took away tensors that they name
        notes = (*exported.warnings, *notes, *(cautions(spec) if spec else ()))
        step.note("; ".join((str(exported.signature), *notes)))
        decoding = decoding_with(spec) if spec else default_decoding(exported.signature)
        # Pictures of the user's own choice say more than those the ranges come from, and these more than none.
        pictures = pictures_of(request.images or request.calibration_images, decoding, labels=request.labels)
        if request.engine:
            _find_builder(exported, request.engine, request, weights)
    with steps.step("prove parity with the weights") as step:
        step.note(prove_parity(exported, weights))
    made, cost = exported, None
    if converts:
        scales = None
        with steps.step(f"convert to {request.precision}") as step:
            made, said = convert(exported, weights, decoding.params, request, folder, step)
            notes = (*notes, *said)
        with steps.step(f"measure what {request.precision} costs") as step:
            cost = measure(exported, made, decoding, pictures, request, settings, step)
            step.note(in_words(cost))
        require_parity(cost, made, request)
    original, made, said = made, *_lean(made, decoding.params, request, folder, steps)
    plan = None
    if request.engine:
        with steps.step("build the TensorRT engine") as step:
            plan = _engine(made, request.engine, folder / f"{made.path.stem}.plan", step)
            step.note(f"{plan.path.stat().st_size:,} bytes")
    return Artifacts(
        model=made,
        original=original if made is not original else None,
        plan=plan,
        cost=cost,
        warnings=(*notes, *said),
        scales=scales,
    )


def _lean(
    made: ModelArtifact, params: DetectorParams, request: ArtifactRequest, folder: Path, steps: Steps
) -> tuple[ModelArtifact, tuple[str, ...]]:
    """Put scaling and decoding into the graph, as far as that is asked for; also return what its user must know."""
    wanted = lean_signature(made.signature, uint8_input=request.wants_pixels, absolute_boxes=request.absolute_boxes)
    if wanted == made.signature:
        return made, ()
    with steps.step("make the graph lean") as step:
        if request.uint8_input is not None:
            return _proved_lean(made, params, request, folder, step)
        # Nobody asked for pixels: they are not worth a failure, nor any difference.
        try:
            return _proved_lean(made, params, replace(request, accept_parity=False), folder, step)
        except (InputError, ParityError) as error:
            result = _proved_lean(made, params, replace(request, uint8_input=False), folder, step)
            step.note("; ".join(filter(None, (step.detail, f"it takes no pixels: {error}"))))
            return result


def _proved_lean(
    made: ModelArtifact, params: DetectorParams, request: ArtifactRequest, folder: Path, step: Step
) -> tuple[ModelArtifact, tuple[str, ...]]:
    output = folder / f"{made.path.stem}_lean.onnx"
    lean = make_lean(
        made, output=output, uint8_input=request.wants_pixels, absolute_boxes=request.absolute_boxes, params=params
    )
    if lean is made:
        return made, ()
    try:
        step.note(f"{lean.signature}: {prove_lean(lean, made, params)}")
    except ParityError as error:
        if not request.accept_parity:
            raise
        return lean, (f"{lean.path.name} {error.fact}: {error.evidence}",)
    return lean, ()


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
        signature = artifact.signature
        differs = lean_signature(
            signature, uint8_input=bool(request.uint8_input), absolute_boxes=request.absolute_boxes
        ) != signature or request.precision not in (None, artifact.precision)
        if request.engine or request.fold_batch_norm or differs:
            raise UsageError(str(plan), f"is a plan in {artifact.precision}, and stays what it is")
        step.note("; ".join(require_fit(found, read_machine())) or "it fits")
    return Artifacts(model=artifact)


def _find_builder(exported: ModelArtifact, wish: EngineWish, request: ArtifactRequest, weights: Path) -> None:
    """Raise ToolError, with commands about the user's own file, if no engine can be built here: before the work."""
    named = replace(exported, path=weights)
    options = request.lean_options
    if options:  # trtexec has no such options: it takes the lean file, which a run without --engine writes
        signature = lean_signature(
            exported.signature, uint8_input=request.wants_pixels, absolute_boxes=request.absolute_boxes
        )
        named = replace(named, path=Path(f"{weights.stem}_lean.onnx"), signature=signature)
    find_builder(
        _engine_request(named, wish),
        here=read_machine(trtexec=wish.trtexec),
        log=Path("trtexec.log"),
        command=export_command(weights, (wish.min_batch, wish.opt_batch, wish.max_batch), options),
    )


def _engine(artifact: ModelArtifact, wish: EngineWish, output: Path, step: Step) -> ModelArtifact:
    here = read_machine(trtexec=wish.trtexec)
    request = _engine_request(artifact, wish)
    builder = find_builder(request, here=here, log=output.with_suffix(".log"))
    return build_engine(request, output=output, builder=builder, here=here, on_news=step.news)


def _engine_request(artifact: ModelArtifact, wish: EngineWish) -> EngineRequest:
    return EngineRequest(
        artifact=artifact,
        min_batch=wish.min_batch,
        opt_batch=wish.opt_batch,
        max_batch=wish.max_batch,
        workspace_bytes=wish.workspace_bytes,
        timing_cache=wish.timing_cache,
    )
