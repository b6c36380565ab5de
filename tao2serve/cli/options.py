"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.registry.trained import Selectors

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
Spec = Annotated[
    Path | None, typer.Option("--spec", metavar="FILE", help="TAO experiment spec, if it is not with the model.")
]
Clustering = Annotated[
    Path | None,
    typer.Option("--clustering", metavar="FILE", help="Clustering file of tao-toolkit-triton-apps, over the spec's."),
]
Project = Annotated[str, typer.Option("--project", metavar="NAME", help="ClearML project, exactly.")]
Task = Annotated[
    str, typer.Option("--task", metavar="REGEX", help="Part of the ClearML task's name (a regular expression).")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="ClearML tag; may be given several times.")
]
Service = Annotated[
    str | None, typer.Option("--service", metavar="ID", help="Serving service; default: the only one that runs.")
]


def selectors(project: str, task: str, tags: list[str] | None) -> Selectors:
    """Gather the options that select trained models; raises UsageError if --task is no regular expression."""
    from tao2serve.registry.trained import Selectors

    try:
        re.compile(task)
    except re.error as error:
        raise UsageError("--task", f"is {task!r}, not a regular expression", evidence=str(error)) from error
    return Selectors(project=project, task=task, tags=tuple(tags or ()))


DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m)?")
SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


def seconds(text: str, *, option: str) -> float:
    """Read a duration such as 20s, 500ms or 2m; raises UsageError for anything else."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(option, f"is {text!r}, not a duration", hint="for example: 20s, 500ms or 2m")
    return float(match.group(1)) * SECONDS[match.group(2)]
