"""What both sides of a remote run must agree on."""

from __future__ import annotations

from typing import Final

__all__ = ["LINE", "PARAMETERS", "RESULT", "TAG", "TASK_VARIABLE", "TELL_VARIABLE", "input_key", "output_key"]

TAG: Final = "tao2serve-remote"  # of the tasks
RESULT: Final = "result"  # the artifact that is uploaded last
LINE: Final = "tao2serve> "  # before each line of the command's own in the task's console
PARAMETERS: Final = "tao2serve"  # the section of what a task shows of its own
TASK_VARIABLE: Final = "TAO2SERVE_REMOTE_TASK"  # names the task to the command that runs for it
TELL_VARIABLE: Final = "TAO2SERVE_ERROR_FILE"  # names the file into which a failing command writes its error, too


def input_key(index: int) -> str:
    """Return the name of an input's artifact."""
    return f"input-{index:02}"


def output_key(index: int) -> str:
    """Return the name of an output's artifact."""
    return f"output-{index:02}"
