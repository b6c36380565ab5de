"""`--queue`: the same command, run by a ClearML agent; what it carries its own signature says."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, get_args, get_type_hints

import typer

from tao2serve.cli.help import Command
from tao2serve.cli.options import seconds
from tao2serve.cli.output import plain, print_json, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import UsageError
from tao2serve.remote.carried import INPUT, VALUE, Carried

if TYPE_CHECKING:
    from tao2serve.config import Settings
    from tao2serve.remote.request import Given
    from tao2serve.remote.run import RemoteResult
    from tao2serve.remote.submit import Submission

__all__ = ["QueueCommand", "given", "image_for", "sent_settings", "with_queue"]

GIVEN: Final = "COMMANDLINE"
# Paths and keys of this machine mean nothing on another, which has its own.
STAYS: Final = frozenset({"tao_launcher", "tao_key_file", "queue_wait_s", "queue_image"})
ENCRYPTED: Final = (".tlt", ".etlt")


Queue = Annotated[
    str | None,
    typer.Option(
        "--queue",
        metavar="NAME",
        help="Run it as a ClearML task on this queue, by an agent, and bring back what it makes.",
    ),
]
QueueWait = Annotated[
    str | None,
    typer.Option(
        "--queue-wait",
        metavar="TIME",
        help="With --queue: how long a worker may take to take it, and to come if there is none.",
    ),
]
QueueImage = Annotated[
    str | None,
    typer.Option("--queue-image", metavar="IMAGE", help="With --queue: the image of agents that run tasks in Docker."),
]
OWN: Final[dict[str, Any]] = {"queue": Queue, "queue_wait": QueueWait, "queue_image": QueueImage}


def with_queue(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command's function with the options of --queue, which QueueCommand takes off again."""

    @functools.wraps(function)
    def here(**parameters: Any) -> Any:
        return function(**{name: value for name, value in parameters.items() if name not in OWN})

    signature = inspect.signature(function, eval_str=True)
    *before, as_json = signature.parameters.values()
    own = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=hint)
        for name, hint in OWN.items()
    ]
    here.__signature__ = signature.replace(parameters=[*before, *own, as_json])  # type: ignore[attr-defined]
    here.__annotations__ = {**get_type_hints(function, include_extras=True), **OWN}
    return here


class QueueCommand(Command):
    """A command with `--queue`: with it the work runs elsewhere, and all else is as without it."""

    def invoke(self, ctx: Any) -> Any:
        """Run here without --queue, else there; the function itself knows nothing of it."""
        queue, wait, image = (ctx.params.pop(name, None) for name in OWN)
        if queue is not None:
            return _run(self, ctx, queue=str(queue), wait=wait, image=image)
        stray = [option for option, value in (("--queue-wait", wait), ("--queue-image", image)) if value]
        if stray:
            raise UsageError(", ".join(stray), "has no effect here", hint="add: --queue NAME")
        return super().invoke(ctx)


def _run(command: Any, ctx: Any, *, queue: str, wait: str | None, image: str | None) -> Any:
    from tao2serve.config import home, load_settings
    from tao2serve.remote.run import run_on_queue

    settings = load_settings()
    wait_s = settings.queue_wait_s if wait is None else seconds(wait, option="--queue-wait")
    submission = _submission(command, ctx, settings, image=image)
    if command.name == "export":
        from tao2serve.cli.export import refuse_for_queue

        refuse_for_queue(ctx.params)
    with quiet(home() / "logs" / f"{command.name}.log") as terminal, shown_steps(terminal, live=False) as steps:
        result = run_on_queue(
            submission, queue=queue, wait_s=wait_s, wait_for_worker=wait is not None, steps=steps,
            on_line=lambda line: _show(line, terminal),
        )  # fmt: skip
    _print(result, as_json=bool(ctx.params.get("json_output")))
    return result.exit_code


def _submission(command: Any, ctx: Any, settings: Settings, *, image: str | None) -> Submission:
    from tao2serve.remote.request import described
    from tao2serve.remote.submit import Submission

    words = list(given(command, ctx))
    return Submission(
        command=described(str(command.name), words, force=bool(ctx.params.get("force"))),
        project=settings.artifact_project,
        settings=sent_settings(settings),
        image=image or settings.queue_image or image_for(words),
        extras=("loadtest",) if command.name == "loadtest" or ctx.params.get("slo") else (),
    )


def given(command: Any, ctx: Any) -> Iterator[Given]:
    """Yield what the user gave, and where the command writes if he did not say."""
    from tao2serve.remote.request import Given

    carried = _carried(inspect.unwrap(command.callback))
    for param in command.params:
        value = ctx.params.get(param.name)
        if value is None or value == "":
            continue
        meaning = carried.get(param.name, VALUE)
        if ctx.get_parameter_source(param.name).name != GIVEN and meaning.kind != "output":
            continue
        if param.param_type_name == "argument":
            values = value if isinstance(value, list | tuple) else [value]
            yield Given(option="", values=tuple(map(str, values)), carried=meaning)
            continue
        name = max(param.opts, key=len)
        if param.is_flag:
            yield Given(option=name if value else max(param.secondary_opts, key=len), values=(), carried=meaning)
        else:
            values = value if isinstance(value, list | tuple) else [value]
            yield Given(option=name, values=tuple(map(str, values)), carried=meaning)


def _carried(function: Any) -> dict[str, Carried]:
    """Read off a command's signature what its parameters carry: a path is an input unless it is said otherwise."""
    found: dict[str, Carried] = {}
    for name, hint in get_type_hints(function, include_extras=True).items():
        said = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Carried)]
        plain_type = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        is_path = Path in (plain_type, *get_args(plain_type))
        found[name] = said[0] if said else INPUT if is_path else VALUE
    return found


def sent_settings(settings: Settings, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what this user has set that is not a path of this machine; UsageError for a URL that may hold a key."""
    from tao2serve.config import origins
    from tao2serve.remote.request import require_no_key_in

    set_here = {name for name, origin in origins(flags).items() if origin != "default"}
    values = settings.model_dump(mode="json")
    sent = {name: values[name] for name in sorted(set_here - STAYS) if values[name] is not None and values[name] != ""}
    for name, value in sent.items():
        require_no_key_in(name, value)
    return sent


def image_for(words: Sequence[Given]) -> str:
    """Return NVIDIA's container that fits: TAO's opens encrypted models, Triton's has its TensorRT, and CUDA."""
    from tao2serve.render.images import DEFAULT_RELEASE, release_of
    from tao2serve.tao.subtask import IMAGES

    encrypted = any(value.lower().endswith(ENCRYPTED) for one in words for value in one.values)
    return IMAGES["model"] if encrypted else release_of(DEFAULT_RELEASE).image


def _show(line: str, terminal: IO[str]) -> None:
    text = plain(line) + "\n"
    sys.stdout.write(text)  # which goes to the log
    terminal.write(text)
    terminal.flush()


def _print(result: RemoteResult, *, as_json: bool) -> None:
    if not as_json:
        sys.stdout.write(plain(result.stdout))
        sys.stdout.flush()
        sys.stderr.write(f"ran on {result.ran_on}\n")
        return
    print_json({**json.loads(result.stdout), "ran_on": result.ran_on.to_dict()})
