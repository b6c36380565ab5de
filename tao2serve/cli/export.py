"""`tao2serve export`: a trained model to ONNX, with parity proved."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tao2serve.cli.options import Json, Project, Spec, Tags, Task, selectors
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError
from tao2serve.export.atomic import write_atomically


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
    from tao2serve.config import home, load_settings
    from tao2serve.export.convert import export_onnx
    from tao2serve.export.encrypted import container_export
    from tao2serve.export.parity import prove_parity
    from tao2serve.registry.source import Source, resolve
    from tao2serve.tao.params import to_params
    from tao2serve.tao.spec import read_spec

    settings = load_settings()
    wanted = Source(text=source, selectors=selectors(project, task, tag), spec=spec)
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
            container = container_export(settings, on_news=step.news)
            artifact = export_onnx(
                resolved.weights, output=Path(folder) / "export.onnx", spec=experiment, container=container
            )
            step.note(str(artifact.signature))
        with steps.step("prove parity with the weights") as step:
            step.note(prove_parity(artifact, resolved.weights))
        onnx_path, params_path = output / f"{resolved.weights.stem}.onnx", output / "params.json"
        contents = {onnx_path: artifact.path.read_bytes(), params_path: (json.dumps(params, indent=2) + "\n").encode()}
        # With its spec beside it the ONNX file can be deployed as it lies there.
        contents[output / "experiment_spec.txt"] = resolved.spec.read_bytes()
        for companion in artifact.companions:  # weights that an ONNX file keeps beside itself
            contents[output / companion.relative_to(artifact.path.parent)] = companion.read_bytes()
        _put(contents, force=force)
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


def _put(contents: Mapping[Path, bytes], *, force: bool) -> None:
    """Write all files, each in one step; raises UsageError, before any is written, rather than replace what differs."""
    for target, content in contents.items():
        if target.is_dir():
            raise UsageError(str(target), "is a folder, and a file must go there", hint="choose another -o DIR")
        if not force and target.is_file() and target.read_bytes() != content:
            raise UsageError(str(target), "is there already, with other content", hint="add --force, or another -o DIR")
    for target, content in contents.items():
        write_atomically(target, content)
