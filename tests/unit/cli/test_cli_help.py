"""What `--help` says of every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tao2serve.cli.main import app, run


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = sorted(commands(typer.main.get_command(app)))
GENERIC = re.compile(r"<(str|int|float|path|list\b|int range|float range)|\b(TEXT|INTEGER|FLOAT|RANGE)\b")


def test_commands_are_found() -> None:
    """The walk itself works, into groups too."""
    assert {(), ("deploy",), ("sandbox",), ("sandbox", "logs"), ("render", "compose")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_has_an_example_and_names_its_values(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands and groups alike show a line to type, and say what a value is, not of which Python type."""
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  Example: (tao2serve|eval)", shown, re.MULTILINE)
    assert not GENERIC.search(shown)
    assert "..." not in shown.partition("Commands:")[2]  # a summary that is cut off


def test_the_first_example_of_deploy_is_a_first_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    """With a picture and without --canary, which comes with the next version."""
    run(["deploy", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    first, _, later = words.partition("Example:")[2].partition("Arguments:")[0].partition("Example for the next")
    assert "--image" in first
    assert "--canary" not in first
    assert "--canary 10" in later
