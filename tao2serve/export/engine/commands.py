"""The commands that build an engine elsewhere, for the hints of errors: paste them on a machine with a GPU."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tao2serve.errors import InputError
from tao2serve.export.engine.dialect import dialect
from tao2serve.export.engine.request import EngineRequest

__all__ = ["export_command", "shown", "trtexec_command"]


def trtexec_command(program: str, request: EngineRequest, *, version: str, plan: Path) -> tuple[str, ...]:
    """Return trtexec's arguments for a TensorRT of that version, not quoted for a shell.

    A tensor name stands in single quotes, which trtexec itself takes off: TAO's names hold the colon that also
    parts a name from its shape. Raises InputError for a name that trtexec cannot be told.
    """
    name = request.artifact.signature.input.name
    if any(character in name for character in "',"):
        raise InputError(
            str(request.artifact.path),
            "has an input name that trtexec cannot take",
            evidence=repr(name)[:200],
            hint="build with the tensorrt Python package",
        )
    sizes = ["x".join(map(str, shape)) for shape in request.shapes]
    command = [
        program,
        f"--onnx={request.artifact.path}",
        f"--saveEngine={plan}",
        *(f"--{which}Shapes='{name}':{size}" for which, size in zip(("min", "opt", "max"), sizes, strict=True)),
        f"--memPoolSize=workspace:{request.workspace_bytes >> 20}",
        "--noTF32",
        "--skipInference",
        *dialect(version, request.artifact.precision).trtexec_options,
    ]
    if request.timing_cache is not None:
        command.append(f"--timingCacheFile={request.timing_cache}")
    if request.ampere_plus:
        command.append("--hardwareCompatibilityLevel=ampere+")
    return tuple(command)


def export_command(onnx: str | Path, batches: tuple[int, int, int], options: Sequence[str] = ()) -> str:
    """Return our own command that builds an engine of a model file, quoted for a shell."""
    least, usual, most = map(str, batches)
    sizes = ["--min-batch", least, "--opt-batch", usual, "--max-batch", most]
    return shown(["tao2serve", "export", str(onnx), *options, "--engine", *sizes])


def shown(command: Sequence[str]) -> str:
    """Quote a command for a shell."""
    return shlex.join(command)
