"""onnxruntime, imported late and without its telemetry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from tao2serve.errors import InputError, ToolError

__all__ = ["PROVIDERS", "Provider", "onnxruntime", "open_session"]

Provider: TypeAlias = Literal["cpu", "cuda"]
PROVIDERS: Final[tuple[Provider, ...]] = ("cpu", "cuda")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def onnxruntime() -> Any:
    """Import and return onnxruntime.

    From 1.29 on its Linux wheels report model names, graph names and weight hashes to their maker unless this
    variable is set before the import; a user's models are nobody else's business. A value that is set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as module

    return module


def open_session(model: Path | bytes, *, optimized: bool = True, provider: Provider = "cpu", calm: bool = False) -> Any:
    """Open a model; with `calm` its threads rest between runs, so that one model does not slow the next one's.

    Raises InputError if onnxruntime refuses it, ToolError if it cannot run on that provider.
    """
    runtime = onnxruntime()
    wanted = _wanted(runtime, provider)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if calm:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    subject = str(model) if isinstance(model, Path) else "the model"
    try:
        session = runtime.InferenceSession(subject if isinstance(model, Path) else model, options, providers=wanted)
    except Exception as error:  # its exceptions share no base of their own
        raise InputError(subject, "is refused by onnxruntime", evidence=str(error)[:300]) from error
    if provider == "cuda" and session.get_providers()[0] != CUDA:  # it falls back without an error
        raise ToolError(
            "onnxruntime's CUDA provider",
            "does not start on this machine",
            evidence=f"it took {', '.join(session.get_providers())}",
            hint="it needs an NVIDIA GPU, its driver, and the CUDA version that this onnxruntime-gpu was built for",
        )
    return session


def _wanted(runtime: Any, provider: Provider) -> list[Any]:
    if provider == "cpu":
        return [CPU]
    if CUDA not in runtime.get_available_providers():
        raise ToolError(
            "onnxruntime's CUDA provider",
            "is not here",
            evidence=f"this onnxruntime has {', '.join(runtime.get_available_providers())}",
            hint="pip uninstall onnxruntime, then pip install onnxruntime-gpu",
        )
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    return [(CUDA, {"use_tf32": "0"}), CPU]  # TensorFloat-32 would round fp32 to ten bits of mantissa
