"""`tao2serve undeploy`: take versions that get no requests away, or the whole endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Json, Service
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.serving.removal import Removal
    from tao2serve.serving.undeploy import Undeployment


def undeploy(
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT[/VERSION]", help="Name of the endpoint, or one version of it.")
    ],
    old: Annotated[
        bool, typer.Option("--old", help="All versions that get no requests; this is what the bare name does.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole endpoint, with the versions that get requests.")
    ] = False,
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Remove versions that get no requests: from ClearML Serving, from Triton, from the model repository.

    Example: tao2serve undeploy street --old
    """
    from tao2serve.config import home, load_settings
    from tao2serve.errors import UsageError
    from tao2serve.serving.names import endpoint_and_version
    from tao2serve.serving.undeploy import undeploy as run

    settings = load_settings({"service": service})
    name, version = endpoint_and_version(endpoint)
    if (version is not None) + old + everything > 1:
        raise UsageError("undeploy", "takes one of VERSION, --old and --all", hint=f"tao2serve undeploy {name} --old")
    wanted: Removal = version if version is not None else "all" if everything else "old"
    with quiet(home() / "logs" / "undeploy.log") as terminal, shown_steps(terminal) as steps:
        done = run(name, wanted, settings, steps=steps)
    if json_output:
        print_json(done.to_dict())
    else:
        print_text(_text(done))


def _text(done: Undeployment) -> str:
    plan = done.plan
    lines = [f"{plan.endpoint}: nothing to remove"] if plan.is_empty else [f"{plan.endpoint}: removed"]
    gone = (
        ("alias", (plan.endpoint,) if plan.drops_route else ()),
        ("versions", tuple(map(str, plan.versions))),
        ("on Triton", plan.unload),
        ("folders", plan.folders),
    )
    lines += [f"  {name + ':':<10} {', '.join(what)}" for name, what in gone if what]
    lines += [f"left: {reason}" for reason in done.left]
    if done.remaining:
        lines.append(f"still registered: {', '.join(map(str, done.remaining))}; see tao2serve status {plan.endpoint}")
    return "\n".join(lines)
