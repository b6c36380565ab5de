"""`tao2serve export`: a trained model to ONNX, with parity proved."""

from __future__ import annotations

import filecmp
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tao2serve.cli.options import Json, Project, Spec, Tags, Task
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError


def export(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A .hdf5 or .onnx file, or a ClearML model or task id.")
    ] = "",
    spec: Spec = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the ONNX file.")] = Path(),
    project: Project = "",
    task: Task = "",
    tag: Tags = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there with other content.")] = False,
    json_output: Json = False,
) -> None:
    """Export a TAO DetectNet_v2 model to ONNX and params.json, and compare it with the weights it came from.

    Example: tao2serve export results/weights/resnet18_detector.hdf5 --spec results/experiment_spec.txt -o onnx
    """
    from tao2serve.config import home
    from tao2serve.export.convert import export_onnx
    from tao2serve.export.parity import check_parity, sample_images
    from tao2serve.registry.source import Source, resolve
    from tao2serve.registry.trained import Selectors
    from tao2serve.tao.params import to_params
    from tao2serve.tao.spec import read_spec

    wanted = Source(text=source, selectors=Selectors(project=project, task=task, tags=tuple(tag or ())), spec=spec)
    with (
        tempfile.TemporaryDirectory(prefix="tao2serve-export-") as folder,
        quiet(home() / "logs" / "export.log") as terminal,
        shown_steps(terminal) as steps,
    ):
        with steps.step("find the model") as step:
            resolved = resolve(wanted, directory=Path(folder), on_news=step.news)
            step.note(f"{resolved.weights.name}: {resolved.reason}")
        with steps.step("export to ONNX") as step:
            experiment = read_spec(resolved.spec)
            params = to_params(experiment)
            artifact = export_onnx(resolved.weights, output=Path(folder) / "export.onnx", spec=experiment)
            step.note(str(artifact.signature))
        with steps.step("prove parity with the weights") as step:
            parity = check_parity(artifact, resolved.weights, images=sample_images(artifact.signature))
            parity.require()
            step.note(str(parity))
        params_file = Path(folder) / "export.params.json"
        params_file.write_text(json.dumps(params, indent=2) + "\n", encoding="utf-8")
        onnx_path = _put(artifact.path, output / f"{resolved.weights.stem}.onnx", force=force)
        params_path = _put(params_file, output / "params.json", force=force)
    document = {
        "outcome": "ok",
        "artifacts": [
            {
                "format": artifact.format,
                "path": str(onnx_path),
                "sha256": artifact.sha256,
                "precision": artifact.precision,
                "params": str(params_path),
            }
        ],
        "steps": steps.to_list(),
    }
    if json_output:
        print_json(document)
    else:
        print_text(f"{onnx_path}  {artifact.precision}  {artifact.signature}\n{params_path}")


def _put(source: Path, target: Path, *, force: bool) -> Path:
    """Move a finished file into place in one step; raises UsageError rather than replace what differs."""
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return target
    if target.exists() and not force:
        raise UsageError(str(target), "is there already, with other content", hint="add --force, or another -o DIR")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}.new")
        staged.write_bytes(source.read_bytes())
        staged.replace(target)
    except OSError as error:
        raise UsageError(str(target), "cannot be written", evidence=str(error)) from error
    return target
