"""Encrypted `.tlt` and `.etlt` files: only TAO in NVIDIA's container opens them, so it is made to export them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from tao2serve.config import Settings, home
from tao2serve.errors import ToolError
from tao2serve.tao.key import KEY_VARIABLE, read_key
from tao2serve.tao.launcher import LAUNCHER_VERSION, launcher_version
from tao2serve.tao.place import Place
from tao2serve.tao.running import RunRequest, run_tao
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.tao.subtask import IMAGES, Subtask
from tao2serve.tao.way import find_place

__all__ = [
    "ENCRYPTED_SUFFIXES",
    "KEY_VARIABLE",
    "ContainerExport",
    "container_export",
    "decode_encrypted",
    "read_key",
    "refuse_encrypted",
]

ENCRYPTED_SUFFIXES: Final = (".tlt", ".etlt")


def _in_silence(_line: str) -> None:
    """Who asks for no news gets none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExport:
    """How TAO is run: a launcher for its container (None: `tao` on PATH), where the key is, for how long."""

    launcher: Path | None = None
    key_file: Path | None = None  # None: the variable TAO2SERVE_TAO_KEY
    timeout_s: float = 7200.0
    log: Path = field(default_factory=lambda: home() / "logs" / "tao-export.log")
    on_news: Callable[[str], None] = _in_silence  # told the last line of its output


def container_export(settings: Settings, *, on_news: Callable[[str], None] = _in_silence) -> ContainerExport:
    """Return what the settings say about NVIDIA's container."""
    return ContainerExport(
        launcher=settings.tao_launcher,
        key_file=settings.tao_key_file,
        timeout_s=settings.tao_timeout_s,
        on_news=on_news,
    )


def decode_encrypted(source: Path, *, spec: ExperimentSpec | None, folder: Path, container: ContainerExport) -> Path:
    """Export a `.tlt` where TAO is and return the new ONNX file in `folder`, which is empty.

    That is here, inside TAO's own container; else in the container that NVIDIA's launcher starts, or docker.

    Raises ToolError: without any of them, with the commands that help; for an `.etlt`, which is an export itself;
    with TAO's own words if it fails. Raises UsageError if there is no key. The key is on no command line, in no
    output and in no log.
    """
    place = find_place(container.launcher) if source.suffix.lower() == ".tlt" else None
    if place is None:
        refuse_encrypted(source, spec=spec)
    written = folder / "model.onnx"  # the exporter refuses a file that is there
    request = RunRequest(
        subtask=_export(source, written, spec),
        place=place,
        results=folder,
        log=container.log,
        key=read_key(container.key_file),
        tracked=False,  # an export reports nothing to ClearML, and so need not know an agent's credentials
        timeout_s=container.timeout_s,
    )
    container.on_news(_said_of(place, request.subtask))
    run_tao(request, on_news=container.on_news)
    if not written.is_file() or not written.stat().st_size:
        hint = "the log has all it printed"
        raise ToolError(request.subtask.title, "wrote no ONNX file", hint=hint, log=request.log)
    return written


def _export(source: Path, written: Path, spec: ExperimentSpec | None) -> Subtask:
    # An inference spec is none to the exporter, which needs neither to write ONNX.
    training_spec = ("--experiment_spec", spec.path) if spec is not None and spec.inference is None else ()
    return Subtask(
        name="export",
        arguments=(
            *("--model", source),
            *("--output_file", written),
            *training_spec,
            *("--onnx_route", "tf2onnx"),  # the hidden default gives wrong numbers (docs/tao.md)
            *("--results_dir", written.parent),
        ),
    )


def _said_of(place: Place, subtask: Subtask) -> str:
    if place.way == "inside":
        return f"TAO is here, and {place.program} runs its exporter"
    if place.way == "docker":
        return f"docker runs {place.image_of(subtask)}"
    return f"the tao launcher {launcher_version(place.program)} starts NVIDIA's container"


def refuse_encrypted(source: Path, *, spec: ExperimentSpec | None = None) -> NoReturn:
    """Raise ToolError with the commands that make an ONNX file of a `.tlt`; the key is only named in them."""
    is_export = source.suffix.lower() == ".etlt"
    model = source.with_suffix(".tlt") if is_export else source
    first = "an .etlt is itself an export: use the .tlt or .hdf5 it was made from. For a .tlt, " if is_export else ""
    raise ToolError(
        str(source),
        "is encrypted; only NVIDIA's TAO container can open it",
        evidence=f"{source.suffix.lower()} files are encrypted with the key of the training run",
        hint=(
            f"{first}put that key into a file and have `tao2serve export` or `deploy` run the container, which they do "
            "by NVIDIA's launcher, or by docker where that is on PATH:\n"
            f"  python3 -m venv ~/tao && ~/tao/bin/pip install nvidia-tao=={LAUNCHER_VERSION} setuptools\n"
            "  export TAO2SERVE_TAO_LAUNCHER=~/tao/bin/tao TAO2SERVE_TAO_KEY_FILE=KEY_FILE\n"
            f"or put it into the variable KEY, run\n  {_docker_command(model, spec)}\nand give the .onnx file"
        ),
    )


def _docker_command(model: Path, spec: ExperimentSpec | None) -> str:
    """Return NVIDIA's own export as one command of plain Docker."""
    spec_folder, spec_name = (spec.path.resolve().parent, spec.path.name) if spec else ("SPEC_FOLDER", "SPEC.txt")
    mounts = " ".join(
        f"-v {shlex.quote(mount)}" for mount in (f"{model.resolve().parent}:/model", f"{spec_folder}:/spec")
    )
    inside = (
        f'detectnet_v2 export -m {shlex.quote(f"/model/{model.name}")} -k "$KEY" '
        f"-o {shlex.quote(f'/model/{model.stem}.onnx')} -e {shlex.quote(f'/spec/{spec_name}')} --onnx_route tf2onnx"
    )
    return f"docker run --rm --gpus all -e KEY {mounts} {IMAGES['model']} bash -c {shlex.quote(inside)}"
