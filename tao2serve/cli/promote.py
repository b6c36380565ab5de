"""`tao2serve promote`: give a version the requests of its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tao2serve.cli.options import Json, Service, percent
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps

if TYPE_CHECKING:
    from tao2serve.serving.promotion import RouteChange


def promote(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version number; default: the canary's, or the newest.")
    ] = "",
    canary: Annotated[
        str | None,
        typer.Option("--canary", metavar="PERCENT", help="Only this share of the requests; the others keep the rest."),
    ] = None,
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Give a version all requests of its endpoint, or a share, once it has answered one; no request is lost.

    Example: tao2serve promote street
    """
    from tao2serve.config import home, load_settings
    from tao2serve.serving.names import endpoint_and_version
    from tao2serve.serving.promotion import promote as run

    share = percent(canary, option="--canary") if canary is not None else None
    settings = load_settings({"service": service})
    name, number = endpoint_and_version(f"{endpoint}/{version}" if version else endpoint)
    with quiet(home() / "logs" / "promote.log") as terminal, shown_steps(terminal) as steps:
        change = run(name, number, share, settings, steps=steps)
    show(change, as_json=json_output)


def show(change: RouteChange, *, as_json: bool) -> None:
    """Print what became of a route."""
    from tao2serve.serving.routes import described

    if as_json:
        print_json(change.to_dict())
        return
    for passed_over in change.skipped:
        print_text(f"passed over: {passed_over}")
    if not change.changed:
        print_text(f"{change.alias_url} is unchanged: {described(change.after)} ({change.reason})")
        return
    print_text(f"{change.alias_url}\n  was: {described(change.before)}\n  now: {described(change.after)}")
    if change.kind == "promote":
        print_text(f"go back:   tao2serve rollback {change.endpoint}")
    else:
        print_text(
            f"this is the route {change.reason}\n"
            f"forward:   tao2serve promote {change.endpoint} {max(change.before, default='VERSION')}"
        )
    print_text(f"see it:    tao2serve status {change.endpoint}")
