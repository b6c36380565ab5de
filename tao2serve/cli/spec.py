"""`tao2serve spec`: examine an experiment spec, and write ClearML tracking into it."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.help import Command
from tao2serve.cli.options import Json
from tao2serve.cli.output import print_json, print_text

if TYPE_CHECKING:
    from tao2serve.tao.spec_check import CheckedSpec
    from tao2serve.tao.spec_findings import Finding
    from tao2serve.tao.spec_patch import PatchedSpec

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Examine an experiment spec, and write ClearML tracking into it.\n\n"
    "Example: tao2serve spec check experiment_spec.txt",
)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="TAO experiment spec, of training or inference.")]


@app.command(cls=Command, short_help="Say what is wrong with a spec.")
def check(spec: SpecFile, json_output: Json = False) -> int:
    """Say all that is wrong with a spec for training, for serving and for being tracked, and what mends it.

    Exits 3 if there are errors; warnings alone are no failure.

    Example: tao2serve spec check experiment_spec.txt
    """
    from tao2serve.errors import InputError
    from tao2serve.tao.spec_check import check_spec

    checked = check_spec(spec)
    errors = len(checked.errors)
    if json_output:
        print_json(
            {
                "outcome": "wrong" if errors else "ok",
                "spec": str(checked.path),
                "kind": checked.kind,
                "classes": list(checked.classes),
                "stride": checked.stride,
                "counts": {"error": errors, "warning": len(checked.findings) - errors},
                "findings": [asdict(finding) for finding in checked.findings],
            }
        )
    else:
        print_text(_report(checked))
    return InputError.exit_code if errors else 0


def _report(checked: CheckedSpec) -> str:
    lines = [text for finding in checked.findings for text in _finding(checked.path, finding)]
    errors = len(checked.errors)
    warnings = len(checked.findings) - errors
    told = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}" if checked.findings else "nothing is wrong"
    facts = [f"{checked.kind} spec"] if checked.kind else []
    if checked.classes:
        facts.append(f"classes {', '.join(checked.classes)}")
    if checked.stride:
        facts.append(f"stride {checked.stride}")
    return "\n".join([*lines, f"{checked.path}: {told}" + (f"  ({'; '.join(facts)})" if facts else "")])


def _finding(path: Path, finding: Finding) -> list[str]:
    place = f"{path}:{finding.line}" if finding.line else str(path)
    return [
        f"{place}: {finding.severity} for {finding.stage}: {finding.field or 'the spec'} {finding.problem}",
        f"    why:  {finding.why}",
        f"    try:  {finding.remedy}",
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@app.command(cls=Command, short_help="Write ClearML tracking into a spec.")
def patch(
    spec: SpecFile,
    project: Annotated[
        str, typer.Option("--project", metavar="NAME", help="ClearML project; one in another is OUTER/INNER.")
    ],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="Name of the task; TAO appends the time.")],
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="ClearML tag; several times. Replaces those in the spec."),
    ] = None,
    debug_image_every: Annotated[
        int | None,
        typer.Option(
            "--debug-image-every", metavar="N", min=1, help="Also have TAO draw its predictions every N epochs."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the patched spec there.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write it over the spec.")] = False,
    json_output: Json = False,
) -> None:
    """Write ClearML tracking into a spec and show the diff; without --in-place or -o nothing is written.

    Only training_config.visualizer.clearml_config is changed: comments, order and every other line stay as they are.
    --debug-image-every sets the visualizer's enabled, infrequent_logging_frequency and, if it is 0, num_images too.

    Example: tao2serve spec patch experiment_spec.txt --project street-detector --task unpruned --in-place
    """
    from tao2serve.errors import UsageError
    from tao2serve.tao.spec_patch import TrackingPatch, patch_spec

    if output is not None and in_place:
        raise UsageError("--in-place", "and --output were both given", hint="give one of them")
    wanted = TrackingPatch(
        project=project, task=task, tags=tuple(tags) if tags else None, debug_image_every=debug_image_every
    )
    patched = patch_spec(spec, wanted)
    diff = _diff(patched, to=output or spec)
    written = _write(patched, spec=spec, output=output, in_place=in_place)
    if json_output:
        print_json(
            {
                "outcome": "ok",
                "spec": str(spec),
                "changed": patched.changed,
                "written": str(written) if written else None,
                "diff": diff,
            }
        )
        return
    print_text(diff.rstrip("\n") or f"{spec} has this tracking already")
    if written:
        print_text(f"written: {written}")
    elif patched.changed:
        print_text("nothing is written: --in-place writes it over the spec, -o FILE elsewhere")


def _diff(patched: PatchedSpec, *, to: Path) -> str:
    # Lines end at a line feed alone: of CRLF files the diff shows no carriage return.
    before, after = ([line.removesuffix("\r") for line in text.split("\n")] for text in (patched.before, patched.after))
    return "\n".join(difflib.unified_diff(before, after, fromfile=str(patched.path), tofile=str(to), lineterm=""))


def _write(patched: PatchedSpec, *, spec: Path, output: Path | None, in_place: bool) -> Path | None:
    from tao2serve.export.atomic import write_atomically

    content = patched.after.encode("utf-8")
    if output is not None:
        write_atomically(output, content)
        return output
    if in_place and patched.changed:
        target = spec.resolve()  # of a link, the file it points to
        mode = target.stat().st_mode & 0o7777
        write_atomically(target, content)
        target.chmod(mode)
        return spec
    return None
