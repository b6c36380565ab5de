"""The table of what the server answers: ``python -m tao2serve.sandbox.clearml_server.coverage``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping

from .call import COMPANY, Route
from .known import KNOWN
from .routes import route_table
from .services.auth.tokens import Credentials, Gate

_HEAD = """# What the embedded ClearML server answers

Generated from the route table by `python -m tao2serve.sandbox.clearml_server.coverage`; a test keeps it current.
An endpoint that ClearML has and this table has not answers 400 in ClearML's envelope and is counted under
`/_control/unhandled`; a name ClearML does not have answers 404.
"""


def _routes() -> Mapping[str, Route]:
    keys = Credentials(access_key="", secret_key="")
    return route_table(Gate(credentials=keys, key=b"", user="", company=COMPANY))


def coverage_table() -> str:
    """Return the table as Markdown."""
    routes = _routes()
    services = sorted({name.split(".")[0] for name in KNOWN | routes.keys()})
    parts = [_HEAD, f"{len(routes)} endpoints are answered.\n"]
    for service in services:
        answered = sorted(name for name in routes if name.startswith(f"{service}."))
        missing = sorted(name for name in KNOWN - routes.keys() if name.startswith(f"{service}."))
        parts.append(f"## {service}\n")
        if answered:
            parts.append("| endpoint | does |\n|---|---|")
            parts += [f"| `{name}` | {_first_line(routes[name])} |" for name in answered]
            parts.append("")
        if missing:
            parts.append("Not answered: " + ", ".join(f"`{name}`" for name in missing) + ".\n")
    return "\n".join(parts)


def _first_line(route: Route) -> str:
    return (inspect.getdoc(route.handler) or "").split("\n")[0]


if __name__ == "__main__":
    sys.stdout.write(coverage_table())
