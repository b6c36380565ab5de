"""`tao2serve sandbox`: the local stack, in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tao2serve.cli.help import Command
from tao2serve.cli.options import Json
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.sandbox.paths import SandboxPaths
    from tao2serve.sandbox.state import SandboxState

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The local stack: ClearML-compatible server, Triton and ClearML Serving on loopback.\n\n"
    'Example: tao2serve sandbox up && eval "$(tao2serve sandbox env)"',
)


@app.command(short_help="Start the stack in the background.")
def up(
    managed: Annotated[
        bool | None,
        typer.Option(
            "--managed/--no-managed",
            help="Triton under ClearML Serving's own controller; default: as the last time, at first not.",
        ),
    ] = None,
    agent: Annotated[
        bool | None,
        typer.Option(
            "--agent/--no-agent",
            help="ClearML's own agent on queue default, for --queue; default: as the last time, at first not.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Start the stack in the background, with two finished TAO runs in it; does nothing if it is up.

    --agent and --no-agent start and end ClearML's agent beside a stack that is up.

    Example: tao2serve sandbox up && eval "$(tao2serve sandbox env)"

    Example with an agent: tao2serve sandbox up --agent
    """
    from tao2serve.config import home
    from tao2serve.sandbox import stack

    with (
        quiet(home() / "logs" / "sandbox-up.log") as terminal,
        shown_steps(terminal) as steps,
        steps.step("start the sandbox") as step,
    ):
        state = stack.up(home(), managed=managed, agent=agent, on_step=step.news)
        step.note(f"ClearML {state.api_url}, endpoints {state.serving_url}")
    if json_output:
        print_json(_document(state))
    else:
        print_text('point ClearML tools at it: eval "$(tao2serve sandbox env)"\nstop it: tao2serve sandbox down')


@app.command(short_help="Say what runs and where.")
def status(json_output: Json = False) -> int:
    """Say what runs and where; exits 6 if it is not all up.

    Example: tao2serve sandbox status --json
    """
    from tao2serve.config import home
    from tao2serve.errors import NotReadyError
    from tao2serve.sandbox.paths import SandboxPaths
    from tao2serve.sandbox.state import read_state

    state = read_state(SandboxPaths(home()).state)
    document: dict[str, Any] = _document(state) if state else {"running": False, "processes": []}
    if json_output:
        print_json(document)
    elif state is None:
        print_text(f"No sandbox runs in {home()}. Start it: tao2serve sandbox up")
    else:
        lines = [
            f"{entry['name']:<16} {'up' if entry['alive'] else 'DOWN':<5} pid {entry['pid']}"
            for entry in document["processes"]
        ]
        owner = "ClearML Serving's own controller" if document["managed"] else "tao2serve"
        lines.append(f"{'Triton owned by':<16} {owner}")
        if document["agent"]:
            served = document["agent"]
            lines.append(f"{'agent':<16} {served['worker']} on queue {served['queue']}")
        urls = [f"{name:<16} {url}" for name, url in document["urls"].items()]
        print_text("\n".join([*lines, *urls]))
    return 0 if document["running"] else NotReadyError.exit_code


@app.command(short_help="Print what to export to use it.")
def env(json_output: Json = False) -> None:
    """Print what to export so that any ClearML tool works against the sandbox; it holds its credentials.

    Example: eval "$(tao2serve sandbox env)"
    """
    from tao2serve.config import home
    from tao2serve.sandbox.environment import client_environment, shell_exports
    from tao2serve.sandbox.paths import SandboxPaths

    paths = SandboxPaths(home())
    variables = client_environment(paths, _running(paths))
    if json_output:
        print_json(variables)
    else:
        print_text(shell_exports(variables))


@app.command(cls=Command, short_help="Print the last lines of its logs.")
def logs(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="clearml-server, triton, triton-controller, clearml-serving, clearml-agent, seed; none: all.",
        ),
    ] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, help="How many lines of each.")] = 40,
    json_output: Json = False,
) -> None:
    """Print the last lines of the logs, also of a sandbox that is down; exits 6 if there was none.

    Example: tao2serve sandbox logs triton -n 100
    """
    from tao2serve.config import home
    from tao2serve.errors import NotReadyError, UsageError
    from tao2serve.sandbox.paths import SandboxPaths
    from tao2serve.sandbox.process import tail

    paths = SandboxPaths(home())
    found = {path.stem: path for path in sorted(paths.logs.glob("*.log"))}
    if not found:
        raise NotReadyError(f"sandbox in {paths.home}", "is not up, and has left no logs", hint="tao2serve sandbox up")
    if name and name not in found:
        known = ", ".join(found)
        raise UsageError(f"log {name!r}", "is not there", evidence=f"logs: {known}", hint="name one of these, or none")
    chosen = {name: found[name]} if name else found
    if json_output:
        print_json(
            {key: {"path": str(path), "lines": tail(path, lines=lines).splitlines()} for key, path in chosen.items()}
        )
    else:
        print_text("\n".join(f"== {path}\n{tail(path, lines=lines)}" for path in chosen.values()))


@app.command(short_help="End the stack.")
def down(
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Remove its data too: runs, models, endpoints; the cache of downloads and the logs stay."
        ),
    ] = False,
    json_output: Json = False,
) -> None:
    """End the stack; its data stays for the next `up`, unless --purge is given.

    Example: tao2serve sandbox down
    """
    from tao2serve.config import home
    from tao2serve.sandbox import stack
    from tao2serve.sandbox.paths import SandboxPaths

    pointing = stale_variables(SandboxPaths(home()))
    had_data = SandboxPaths(home()).root.is_dir()
    was_there = stack.down(home(), purge=purge)
    # Not the sandbox's alone: downloads of any ClearML server by their hash, and the logs of all commands.
    kept = [path for path in (home() / "cache", home() / "logs") if path.is_dir()] if purge else []
    if json_output:
        print_json({"outcome": "ok", "was_running": was_there, "kept": [str(path) for path in kept]})
        return
    print_text("The sandbox is down." if was_there else f"No sandbox was running in {home()}.")
    if purge and had_data:
        print_text("Its data is removed.")
    if kept:
        print_text(f"Not the sandbox's alone, and kept: {', '.join(map(str, kept))}")
    if pointing:
        print_text(f"This shell still points at it; leave it or: unset {pointing}")


def stale_variables(paths: SandboxPaths) -> str:
    """Return the variables of the caller's environment that `sandbox env` of this sandbox has added, by name."""
    import os

    from tao2serve.sandbox.environment import left_in
    from tao2serve.sandbox.state import read_state

    state = read_state(paths.state)
    return " ".join(left_in(os.environ, paths, state)) if state is not None else ""


def _running(paths: Any) -> SandboxState:
    from tao2serve.errors import NotReadyError
    from tao2serve.sandbox.stack import is_running
    from tao2serve.sandbox.state import read_state

    state = read_state(paths.state)
    if state is None or not state.ready or not is_running(state):
        raise NotReadyError(f"sandbox in {paths.home}", "is not up", hint="tao2serve sandbox up")
    return state


def _document(state: SandboxState) -> dict[str, Any]:
    from tao2serve.config import home
    from tao2serve.sandbox.agent import QUEUE, worker_name
    from tao2serve.sandbox.process import is_alive
    from tao2serve.sandbox.stack import is_running, processes

    ports = state.ports
    return {
        "running": state.ready and is_running(state),
        "managed": state.managed,
        "agent": {"worker": worker_name(), "queue": QUEUE} if state.agent else None,
        "service_id": state.service_id,
        "urls": {
            "clearml_api": state.api_url,
            "clearml_files": state.files_url,
            "serving": state.serving_url,
            "triton_grpc": state.triton_grpc,
            "triton_http": f"http://127.0.0.1:{state.ports.triton_http}",
            "triton_metrics": f"http://127.0.0.1:{ports.triton_metrics}/metrics",
            # There from an endpoint's first answer on.
            **({"endpoint_metrics": f"http://127.0.0.1:{ports.metrics}/metrics"} if ports.metrics else {}),
        },
        "processes": [
            {"name": record.name, "pid": record.pid, "alive": is_alive(record)} for record in processes(home(), state)
        ],
    }
