"""Choose who builds: the tensorrt Python package if it is here, else trtexec, else say what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tao2serve.errors import ToolError
from tao2serve.export.engine.builder import BuilderName, EngineBuilder
from tao2serve.export.engine.commands import export_command, shown, trtexec_command
from tao2serve.export.engine.dialect import dialect
from tao2serve.export.engine.machine import Machine, import_tensorrt, trtexec_version
from tao2serve.export.engine.request import EngineRequest
from tao2serve.export.engine.tensorrt_builder import TensorRTBuilder
from tao2serve.export.engine.trtexec_builder import TrtexecBuilder

__all__ = ["find_builder"]

# The version whose trtexec line is shown where none is here: it has no precision options at all.
_SHOWN_VERSION: Final = "11.0"


def find_builder(
    request: EngineRequest, *, here: Machine, log: Path, wanted: BuilderName | None = None, command: str = ""
) -> EngineBuilder:
    """Return the builder to use on this machine; `wanted` allows only that one. trtexec writes to `log`.

    `command` is ours that makes the same elsewhere, where it is not plainly that of the request's ONNX file.
    Raises ToolError, naming what was looked for and the commands for a machine with a GPU, if there is none, or
    its TensorRT is not one of 8.6, 10, 11.
    """
    looked: list[str] = []
    if wanted in (None, "tensorrt"):
        module, trouble = import_tensorrt()
        if module is not None:
            return _able(TensorRTBuilder(module=module), request)
        looked.append(f"the tensorrt package: {trouble or 'not installed'}")
    if wanted in (None, "trtexec"):
        if here.trtexec is not None:
            version = trtexec_version(here.trtexec)
            if version:
                return _able(TrtexecBuilder(program=here.trtexec, version=version, log=log), request)
            looked.append(f"trtexec: {here.trtexec} does not run, or does not say its version")
        else:
            looked.append("trtexec: not on PATH")
    looked.append(f"GPU: {here.gpu_name or 'none seen by nvidia-smi'}")
    raise ToolError("TensorRT", "is not here", evidence="\n".join(looked), hint=_hint(request, command))


def _able(builder: EngineBuilder, request: EngineRequest) -> EngineBuilder:
    dialect(builder.version, request.artifact.precision)  # raises ToolError for a version we do not know
    return builder


def _hint(request: EngineRequest, command: str) -> str:
    onnx = request.artifact.path
    line = shown(trtexec_command("trtexec", request, version=_SHOWN_VERSION, plan=Path(onnx.stem + ".plan")))
    return (
        f"on a machine with the GPU that will serve it, install tao2serve[tensorrt] and run\n"
        f"  {command or export_command(onnx, request.batches)}\n"
        f"or run NVIDIA's own program there (with TensorRT 10 add --stronglyTyped{_weak(request)}):\n"
        f"  {line}"
    )


def _weak(request: EngineRequest) -> str:
    precision = request.artifact.precision
    return f", with 8.6 --{precision}" if precision in ("fp16", "int8") else ""
