"""`tao2serve rollback`: back to the route before the last change."""

from __future__ import annotations

from typing import Annotated

import typer

from tao2serve.cli.options import Json, Service
from tao2serve.cli.output import quiet
from tao2serve.cli.progress import shown_steps


def rollback(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    service: Service = None,
    json_output: Json = False,
) -> None:
    """Go back to the route before the last change; a second rollback goes one step further back.

    Example: tao2serve rollback street
    """
    from tao2serve.cli.promote import show
    from tao2serve.config import home, load_settings
    from tao2serve.serving.names import endpoint_and_version
    from tao2serve.serving.promotion import rollback as run

    settings = load_settings({"service": service})
    name, _ = endpoint_and_version(endpoint, takes_version=False)
    with quiet(home() / "logs" / "rollback.log") as terminal, shown_steps(terminal) as steps:
        change = run(name, settings, steps=steps)
    show(change, as_json=json_output)
