"""`tao2serve export`: a trained model to ONNX, in a precision, and to a TensorRT engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tao2serve.cli.options import (
    AbsoluteBoxes,
    AcceptParity,
    CalibrationCache,
    CalibrationImages,
    CalibrationMethod,
    Clustering,
    Json,
    Metric,
    Precision,
    Project,
    Spec,
    Tags,
    Task,
    Uint8Input,
    artifact_request,
    selectors,
)
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError
from tao2serve.export.atomic import put_files
from tao2serve.remote.carried import KEPT, MODEL, NEVER_OVER, THERE

if TYPE_CHECKING:
    from tao2serve.artifact_request import ArtifactRequest, EngineWish
    from tao2serve.artifacts import Artifacts
    from tao2serve.values import ModelArtifact, Tensor

LARGEST_WORKSPACE_GIB: Final = 1024
SPEC_NAME: Final = "experiment_spec.txt"
NO_SPEC: Final = (
    "there is no experiment spec, so no params.json was written and nothing was held against the training; "
    "to serve it, give the spec: --spec FILE"
)


def export(
    source: Annotated[
        str, MODEL, typer.Argument(metavar="SOURCE", help="A .hdf5 or .onnx file, or a ClearML model or task id.")
    ] = "",
    spec: Spec = None,
    clustering: Clustering = None,
    output: Annotated[
        Path, NEVER_OVER, typer.Option("--output", "-o", metavar="DIR", help="Folder for what is made.")
    ] = Path(),
    precision: Precision = None,
    calibration_images: CalibrationImages = None,
    calibration_cache: CalibrationCache = None,
    calibration_method: CalibrationMethod = "",
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Pictures to measure on what fp16 or int8 costs."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="DIR", help="KITTI labels of those pictures: adds mAP.")
    ] = None,
    accept_parity: AcceptParity = False,
    uint8_input: Uint8Input = False,
    absolute_boxes: AbsoluteBoxes = False,
    fold_batch_norm: Annotated[
        bool,
        typer.Option("--fold-batch-norm", help="Fold it into the convolutions; TAO's caches then miss its tensors."),
    ] = False,
    engine: Annotated[
        bool, typer.Option("--engine", help="Build a TensorRT plan too, for this machine's GPU.")
    ] = False,
    min_batch: Annotated[
        int | None, typer.Option("--min-batch", metavar="N", help="Smallest batch of the engine; default 1.")
    ] = None,
    opt_batch: Annotated[
        int | None, typer.Option("--opt-batch", metavar="N", help="The batch it is made fastest for; default 8.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", metavar="N", help="Largest batch of the engine; default 8.")
    ] = None,
    workspace: Annotated[
        float | None, typer.Option("--workspace", metavar="GIB", help="TensorRT's scratch memory; default 2.")
    ] = None,
    timing_cache: Annotated[
        Path | None,
        KEPT,
        typer.Option("--timing-cache", metavar="FILE", help="TensorRT's timings, kept for the next build."),
    ] = None,
    trtexec: Annotated[
        Path | None, THERE, typer.Option("--trtexec", metavar="FILE", help="NVIDIA's builder, if it is not on PATH.")
    ] = None,
    project: Project = "",
    task: Task = "",
    tag: Tags = None,
    metric: Metric = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there with other content.")] = False,
    json_output: Json = False,
) -> None:
    """Export a TAO DetectNet_v2 model to ONNX and params.json, and compare it with the weights it came from.

    With --precision fp16 or int8 it is converted, and what that costs is measured; with --uint8-input and
    --absolute-boxes a second graph, *_lean.onnx, does scaling and decoding itself and gives the same boxes; with
    --engine a TensorRT plan is built from the last of these.

    Example: tao2serve export results/weights/resnet18_detector.hdf5 --spec results/experiment_spec.txt -o onnx
    """
    from tao2serve.artifacts import make_artifacts
    from tao2serve.config import home, load_settings
    from tao2serve.registry.naming import named_as_known
    from tao2serve.registry.source import Source, resolve
    from tao2serve.tao.params import to_params
    from tao2serve.tao.reading import clustering_beside, read_experiment, refuse_other_clustering

    wanted = Source(text=source, selectors=selectors(project, task, tag, metric), spec=spec)
    request = artifact_request(
        precision,
        calibration_images=calibration_images,
        calibration_cache=calibration_cache,
        calibration_method=calibration_method,
        accept_parity=accept_parity,
        fold_batch_norm=fold_batch_norm,
        uint8_input=uint8_input,
        absolute_boxes=absolute_boxes,
        images=images,
        labels=labels,
        engine=_engine_wish(
            wanted=engine,
            min_batch=min_batch,
            opt_batch=opt_batch,
            max_batch=max_batch,
            workspace_gib=workspace,
            timing_cache=timing_cache,
            trtexec=trtexec,
        ),
    )
    _require_effect(request, method=calibration_method)
    settings = load_settings()
    with (
        tempfile.TemporaryDirectory(prefix="tao2serve-export-") as folder,
        quiet(home() / "logs" / "export.log") as terminal,
        shown_steps(terminal) as steps,
    ):
        with steps.step("find the model") as step:
            resolved = resolve(wanted, directory=Path(folder) / "source", on_news=step.news)
            # Without a spec there is an ONNX file all the same; a clustering file has nothing to lie over.
            with_spec = resolved.spec is not None or clustering is not None
            with named_as_known(resolved, made=Path(folder) / "made"):
                experiment = read_experiment(resolved.experiment_spec, clustering=clustering) if with_spec else None
            spec_path = output / SPEC_NAME
            if experiment is not None and experiment.clustering_file is None and not force:
                refuse_other_clustering(spec_path)
            step.note(f"{resolved.weights.name}: {resolved.reason}")
        with named_as_known(resolved, made=Path(folder) / "made"):
            made = make_artifacts(
                resolved.weights, experiment, request, settings, folder=Path(folder) / "made", steps=steps
            )
        contents = _contents(made, output)
        plain = made.original or made.model
        scales_path = output / f"{plain.path.stem}.tensor_scales.json" if made.scales else None
        if scales_path is not None:
            scales = {"tensor_scales": dict(made.scales or {})}
            contents[scales_path] = (json.dumps(scales, indent=2) + "\n").encode()
        warnings = made.warnings
        if experiment is None:
            params_path = None
            warnings = (*warnings, NO_SPEC)
        else:
            params_path = output / "params.json"
            contents[params_path] = (json.dumps(to_params(experiment), indent=2) + "\n").encode()
            # With its spec beside it the ONNX file can be deployed as it lies there.
            contents[spec_path] = resolved.experiment_spec.read_bytes()
            if experiment.clustering_file is not None:  # whoever reads that spec finds it beside it
                contents[clustering_beside(spec_path)] = experiment.clustering_file.path.read_bytes()
        put_files(
            contents, inputs=[path for path in (resolved.weights, resolved.spec, clustering) if path], force=force
        )
        if experiment is not None and experiment.clustering_file is None and force:
            clustering_beside(spec_path).unlink(missing_ok=True)
    document = {
        "outcome": "ok",
        "artifacts": [_described(artifact, output, params_path) for artifact in made.all],
        "cost": made.cost.to_dict() if made.cost else None,
        "tensor_scales": str(scales_path) if scales_path else None,
        "warnings": list(warnings),
        "steps": steps.to_list(),
    }
    if json_output:
        print_json(document)
    else:
        beside = [path for path in (params_path, scales_path) if path]
        print_text(_summary(made, output, beside, warnings))


def _engine_wish(
    *,
    wanted: bool,
    min_batch: int | None,
    opt_batch: int | None,
    max_batch: int | None,
    workspace_gib: float | None,
    timing_cache: Path | None,
    trtexec: Path | None,
) -> EngineWish | None:
    """Gather the options of the engine; raises UsageError for any of them without --engine."""
    from tao2serve.artifact_request import EngineWish

    given = {
        "--min-batch": min_batch,
        "--opt-batch": opt_batch,
        "--max-batch": max_batch,
        "--workspace": workspace_gib,
        "--timing-cache": timing_cache,
        "--trtexec": trtexec,
    }
    stray = [option for option, value in given.items() if value is not None]
    if not wanted:
        if stray:
            raise UsageError(", ".join(stray), "has no effect without an engine", hint="add: --engine")
        return None
    sizes = {"min_batch": min_batch, "opt_batch": opt_batch, "max_batch": max_batch}
    return EngineWish(
        **{name: size for name, size in sizes.items() if size is not None},
        workspace_bytes=_bytes(2.0 if workspace_gib is None else workspace_gib),
        timing_cache=timing_cache,
        trtexec=trtexec,
    )


def _require_effect(request: ArtifactRequest, *, method: str) -> None:
    """Raise UsageError for options that would be taken and do nothing."""
    if method and not request.calibration_images:
        raise UsageError(
            "--calibration-method",
            "has no effect without pictures",
            hint="add: --calibration-images DIR",
        )
    pictures = [option for option, given in (("--images", request.images), ("--labels", request.labels)) if given]
    if pictures and request.precision in (None, "fp32"):
        raise UsageError(
            ", ".join(pictures),
            "has no effect without a conversion: pictures are what its cost is measured on",
            hint="add: --precision fp16 or int8",
        )


def refuse_for_queue(params: Mapping[str, Any]) -> None:
    """Refuse, before an export is sent to a queue, the clustering file that the export here would refuse.

    Raises UsageError for it, and InputError for a model that ClearML does not have; looks nowhere if there is none.
    """
    from tao2serve.registry.source import Source, spec_of
    from tao2serve.tao.reading import clustering_beside, refuse_other_clustering

    target = Path(params["output"]) / SPEC_NAME
    if params["force"] or params["clustering"] is not None or not clustering_beside(target).is_file():
        return
    chosen = selectors(params["project"], params["task"], params["tag"], params["metric"])
    spec_given = Path(params["spec"]) if params["spec"] is not None else None
    source = Source(text=params["source"], selectors=chosen, spec=spec_given)
    with tempfile.TemporaryDirectory(prefix="tao2serve-export-") as folder:
        spec = spec_of(source, directory=Path(folder))
        if spec is not None and not clustering_beside(spec).is_file():
            refuse_other_clustering(target)


def _bytes(gibibytes: float) -> int:
    if not 0 < gibibytes <= LARGEST_WORKSPACE_GIB:  # which NaN is not either
        raise UsageError("--workspace", f"is {gibibytes:g}, not a size in GiB", hint="for example: 2")
    return round(gibibytes * (1 << 30))


def _contents(made: Artifacts, output: Path) -> dict[Path, bytes]:
    """Return what goes where: the artifacts, and the files beside them that belong to them."""
    from tao2serve.export.engine.record import record_path

    contents: dict[Path, bytes] = {}
    for artifact in made.all:
        contents[output / artifact.path.name] = artifact.path.read_bytes()
        if artifact.format == "tensorrt_plan":
            contents[record_path(output / artifact.path.name)] = record_path(artifact.path).read_bytes()
        for companion in artifact.companions:
            contents[output / companion.relative_to(artifact.path.parent)] = companion.read_bytes()
    return contents


def _described(artifact: ModelArtifact, output: Path, params: Path | None) -> dict[str, Any]:
    return {
        "format": artifact.format,
        "path": str(output / artifact.path.name),
        "sha256": artifact.sha256,
        "precision": artifact.precision,
        "input": _tensor(artifact.signature.input),
        "outputs": [_tensor(artifact.signature.coverage), _tensor(artifact.signature.bbox)],
        "params": str(params) if params else None,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _summary(made: Artifacts, output: Path, beside: Sequence[Path], warnings: Sequence[str]) -> str:
    from tao2serve.cli.verify import summary

    lines = [f"{output / artifact.path.name}  {artifact.precision}  {artifact.signature}" for artifact in made.all]
    lines += [str(path) for path in beside]
    lines += [f"warning: {warning}" for warning in warnings]
    if made.cost:
        lines += ["", f"what {made.model.precision} costs:", summary(made.cost)]
    return "\n".join(lines)
