"""How a command's help reads."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.core import TyperCommand

__all__ = ["Command"]

TYPE: Final = re.compile(r"^(  \S.*?)( <[\w\[\]]+>)(?=  |$)", re.MULTILINE)


class Command(TyperCommand):
    """A command whose arguments are shown by their names alone.

    typer 0.29 puts the Python type behind each, as `ENDPOINT <str>`, also where a metavar is given, and has no option
    for it; the types of options give way to a metavar by themselves.
    """

    def get_help(self, ctx: Any) -> str:
        before, arguments, rest = super().get_help(ctx).partition("\nArguments:\n")
        shown, options, after = rest.partition("\nOptions:\n")
        shown = TYPE.sub(lambda found: found[1] + " " * len(found[2]), shown)
        return "".join((before, arguments, "\n".join(map(str.rstrip, shown.split("\n"))), options, after))
