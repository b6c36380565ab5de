"""The task that ClearML's controller and scheduler insist on: the main one of this process."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Final

from tao2serve.interrupts import SIGNALS
from tao2serve.registry.session import clearml

__all__ = ["make_main_task"]

# What the SDK would hook into, and the repository of whoever's folder this is, whose changes it would upload.
CAPTURED: Final = (
    "detect_repository", "pytorch", "tensorflow", "tensorboard", "matplotlib", "xgboost", "scikit", "fastai",
    "lightgbm", "hydra", "catboost", "megengine", "joblib", "jsonargparse", "gradio",
)  # fmt: skip


def make_main_task(project: str, name: str, *, kind: str, tags: Sequence[str] = ()) -> Any:
    """Make a task, and have the SDK take it for this process's; nothing of the process is captured.

    The handlers of signals stay ours.
    """
    sdk = clearml()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return sdk.Task.init(
            project_name=project, task_name=name, task_type=kind, tags=list(tags), reuse_last_task_id=False,
            auto_connect_arg_parser=False, auto_connect_streams=False,
            auto_connect_frameworks=dict.fromkeys(CAPTURED, False), auto_resource_monitoring=False,
        )  # fmt: skip
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
