"""onnxruntime, imported late and without its telemetry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tao2serve.errors import InputError

__all__ = ["onnxruntime", "open_session"]


def onnxruntime() -> Any:
    """Import and return onnxruntime.

    From 1.29 on its Linux wheels report model names, graph names and weight hashes to their maker unless this
    variable is set before the import; a user's models are nobody else's business. A value that is set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as module

    return module


def open_session(model: Path | bytes, *, optimized: bool = True) -> Any:
    """Open a model on the CPU; raises InputError if onnxruntime refuses it."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    subject = str(model) if isinstance(model, Path) else "the model"
    try:
        return runtime.InferenceSession(
            subject if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no base of their own
        raise InputError(subject, "is refused by onnxruntime", evidence=str(error)[:300]) from error
