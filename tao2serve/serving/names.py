"""Names of endpoints and of the Triton models behind them."""

from __future__ import annotations

import re
from typing import Final

from tao2serve.errors import UsageError

__all__ = ["check_endpoint_name", "endpoint_and_version", "triton_model_name"]

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
VERSION_TAIL: Final = re.compile(r"_\d+$")


def check_endpoint_name(name: str) -> str:
    """Return the name, or raise UsageError saying what is wrong with it.

    `people_4` is refused: clearml-serving maps version 4 of `people` to the Triton model of that name.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"endpoint name {name!r}",
            "is not a letter followed by up to 63 letters, digits or underscores",
            hint="for example: street",
        )
    if VERSION_TAIL.search(name):
        raise UsageError(
            f"endpoint name {name!r}",
            "ends in an underscore and digits, which is how versions are named on Triton",
            hint=f"for example: {VERSION_TAIL.sub('', name)}",
        )
    return name


def triton_model_name(endpoint: str, version: int) -> str:
    """Return the Triton model behind an endpoint version: clearml-serving's own convention."""
    return f"{endpoint}_{version}"


def endpoint_and_version(text: str, *, takes_version: bool = True) -> tuple[str, int | None]:
    """Read `NAME` or `NAME/VERSION`; raises UsageError for anything else."""
    name, slash, version = text.partition("/")
    if slash and (not takes_version or not version.isascii() or not version.isdigit()):
        raise UsageError(
            f"endpoint {text!r}",
            "is not NAME/VERSION, VERSION being a number" if takes_version else "is not the name of an endpoint alone",
            hint=f"for example: {name}/3" if takes_version else f"for example: {name}",
        )
    return name, int(version) if slash else None
