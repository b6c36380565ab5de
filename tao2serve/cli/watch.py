"""`tao2serve watch`: a pipeline for every model that gets a tag."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import asdict
from datetime import datetime
from typing import IO, Annotated, Any, Final, get_type_hints

import typer

from tao2serve.cli.elsewhere import given
from tao2serve.cli.options import seconds
from tao2serve.cli.output import InterruptionError, plain, print_json, print_text, quiet
from tao2serve.cli.pipeline import pipeline, request_of
from tao2serve.errors import UsageError

__all__ = ["watch"]

SHORTEST_S: Final = 1.0
# Of the options of `pipeline`, those that choose a model, or are of one run.
NOT_TAKEN: Final = ("source", "project", "task", "tag", "metric", "from_step", "watched_by", "json_output")


def watch(
    ctx: typer.Context,
    project: Annotated[str, typer.Option("--project", metavar="NAME", help="ClearML project, exactly.")],
    tag: Annotated[
        list[str], typer.Option("--tag", metavar="TAG", help="Tag of the model, or its run; several must all be there.")
    ],
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="How long between two looks.")] = "30s",
    once: Annotated[bool, typer.Option("--once", help="Look once, run what is new, and end.")] = False,
    all_models: Annotated[
        bool, typer.Option("--all", help="Start the models too that have the tag when the first watch begins.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end of --once.")] = False,
    **options: Any,
) -> int:
    """Start a pipeline for every new model with this tag, one after another; its options are those of `pipeline`.

    Each model is started once, also after a restart, and what came while no watch ran is caught up.

    Example: tao2serve watch --project street-detector --tag ready --endpoint street --gate-images pictures
    --slo p99=250ms
    """
    from tao2serve.config import home
    from tao2serve.pipeline.watch import WatchRequest, run_watch

    every_s = seconds(every, option="--every")
    if every_s < SHORTEST_S:
        raise UsageError("--every", f"is {every}", hint=f"{SHORTEST_S:g}s or more")
    asked, settings = request_of({**dict.fromkeys(NOT_TAKEN, ""), "tag": None, "source": "any", **options})
    request = WatchRequest(
        project=project,
        tags=tuple(tag),
        endpoint=asked.endpoint,
        words=_words(ctx.command, ctx),
        every_s=every_s,
        once=once,
        all=all_models,
    )
    with quiet(home() / "logs" / "watch.log") as terminal:
        try:
            ended = run_watch(request, settings, on_news=lambda text: _say(text, terminal))
        except KeyboardInterrupt as interrupt:
            raise InterruptionError(interrupt) from interrupt
    failed = [model for model in ended if model.state == "failed"]
    if json_output:
        models = [asdict(one) for one in ended]
        print_json({"outcome": "failed" if failed else "ok", "started": models})
    else:
        print_text(f"{len(ended)} pipelines run, {len(failed)} failed")
    return failed[0].exit_code if failed else 0


def _with_options_of_pipeline() -> None:
    """Have `watch` take the options of `pipeline`."""
    signature, hints = inspect.signature(watch), get_type_hints(watch, include_extras=True)
    theirs = get_type_hints(pipeline, include_extras=True)
    *own, _, _ = signature.parameters.values()
    as_json = signature.parameters["json_output"]
    parameters = [
        parameter.replace(annotation=theirs[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(pipeline).parameters.items()
        if name not in NOT_TAKEN
    ]
    ours = [parameter.replace(annotation=hints[parameter.name]) for parameter in (*own, as_json)]
    *ours, as_json = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in ours]
    taken = [*ours, *parameters, as_json]
    watch.__signature__ = signature.replace(parameters=taken)  # type: ignore[attr-defined]
    del hints["options"]
    watch.__annotations__ = {**hints, **{parameter.name: theirs[parameter.name] for parameter in parameters}}


def _words(command: Any, ctx: Any) -> tuple[str, ...]:
    """Return what was given of the options of `pipeline`, as it was typed."""
    names = {
        max(param.opts, key=len) for param in command.params
        if param.name in inspect.signature(pipeline).parameters and param.name not in NOT_TAKEN
    } | {one for param in command.params for one in param.secondary_opts}  # fmt: skip
    found: list[str] = []
    for one in given(command, ctx):
        if one.option in names:
            found += [word for value in one.values for word in (one.option, value)] or [one.option]
    return tuple(found)


def _say(text: str, terminal: IO[str]) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone stops no pipeline
        terminal.write(f"{datetime.now():%H:%M:%S} {plain(text)}\n")
        terminal.flush()


_with_options_of_pipeline()
