"""Encrypted `.tlt` and `.etlt` files: only NVIDIA's container opens them, so it is made to export them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from tao2serve.config import Settings, home
from tao2serve.errors import ToolError, UsageError
from tao2serve.tao.launcher import LAUNCHER_VERSION, SubtaskRequest, find_launcher, launcher_version, run_subtask
from tao2serve.tao.spec import ExperimentSpec

__all__ = [
    "ENCRYPTED_SUFFIXES",
    "KEY_VARIABLE",
    "TAO_IMAGE",
    "ContainerExport",
    "container_export",
    "decode_encrypted",
    "read_key",
    "refuse_encrypted",
]

ENCRYPTED_SUFFIXES: Final = (".tlt", ".etlt")
KEY_VARIABLE: Final = "TAO2SERVE_TAO_KEY"
_LONGEST_KEY: Final = 1024  # bytes
TAO_IMAGE: Final = "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5"  # what the launcher maps detectnet_v2 to


def _in_silence(_line: str) -> None:
    """Who asks for no news gets none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExport:
    """How NVIDIA's container is run: the launcher (None: `tao` on PATH), where the key is, for how long."""

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
    """Export a `.tlt` in NVIDIA's container and return the new ONNX file in `folder`, which is empty.

    Raises ToolError: without launcher, with the commands that help; for an `.etlt`, which is an export itself;
    with the launcher's own words if it fails. Raises UsageError if there is no key. The key is on no command
    line, in no output and in no log.
    """
    launcher = find_launcher(container.launcher)
    if launcher is None or source.suffix.lower() == ".etlt":
        refuse_encrypted(source, spec=spec)
    key = read_key(container.key_file)
    version = launcher_version(launcher)
    container.on_news(f"the tao launcher {version} starts NVIDIA's container")
    written = folder / "model.onnx"  # the exporter refuses a file that is there
    # An inference spec is none to the exporter, which needs neither to write ONNX.
    training_spec = ("--experiment_spec", spec.path) if spec is not None and spec.inference is None else ()
    request = SubtaskRequest(
        launcher=launcher,
        subtask="export",
        arguments=(
            *("--model", source),
            *("--output_file", written),
            *training_spec,
            *("--onnx_route", "tf2onnx"),  # the hidden default gives wrong numbers (docs/tao.md)
            *("--results_dir", folder),
        ),
        key=key,
        log=container.log,
        timeout_s=container.timeout_s,
    )
    run_subtask(request, results=folder, on_news=container.on_news)
    if not written.is_file() or not written.stat().st_size:
        hint = "the log has all it printed"
        raise ToolError("tao detectnet_v2 export", "wrote no ONNX file", hint=hint, log=request.log)
    return written


def read_key(key_file: Path | None) -> str:
    """Return the key of the training run: of the file if one is named, else of the variable.

    Raises UsageError if there is none, or it cannot be a key; no error shows any of it.
    """
    if key_file is not None:
        subject, content = str(key_file), _content(key_file)
    elif os.environ.get(KEY_VARIABLE):
        subject, content = KEY_VARIABLE, os.environb[KEY_VARIABLE.encode()]
    else:
        raise UsageError(
            "the key of the training run",
            "is not given, and encrypted models open with nothing else",
            hint=f"put it into a file and name that by the setting tao_key_file, or into the variable {KEY_VARIABLE}",
        )
    try:
        key = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable() or len(content) > _LONGEST_KEY:
        raise UsageError(
            subject,
            "holds no key: one line of text is expected",
            evidence=f"{len(content)} bytes" if len(content) <= _LONGEST_KEY else f"more than {_LONGEST_KEY} bytes",
            hint="put the key that `detectnet_v2 train -k` was given there, and nothing else",
        )
    return key


def _content(path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            return file.read(_LONGEST_KEY + 1)
    except (OSError, ValueError, RuntimeError) as error:  # NUL in the name; ~ of nobody
        raise UsageError(str(path), "cannot be read, and is to hold the key", evidence=str(error)) from error


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
            f"{first}put that key into a file and have `tao2serve export` or `deploy` run the container:\n"
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
    return f"docker run --rm --gpus all -e KEY {mounts} {TAO_IMAGE} bash -c {shlex.quote(inside)}"
