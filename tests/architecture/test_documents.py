"""The documents' commands are known, one by one: what is not run has a reason, and the real parser takes it."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

import pytest
import typer
from documented import CODE, LANGUAGES, ROOT, TABLE, Shown, blocks, commands, inline, pages, simple_commands, text_of
from documented_rules import RULES, why_not_run

from tao2serve.cli.main import app

PARSER: Final = typer.main.get_command(app)
NOT_RUN: Final = [one for page in (*pages(), TABLE) for one in commands(page) if why_not_run(page, one.command)]
CALLS: Final = [(one, words) for one in NOT_RUN for words in simple_commands(one.text)]


def parse(words: list[str]) -> None:
    """Give words to the program's own parser, down to the last option, and run nothing; raises what it raises."""
    command: Any = PARSER
    context = command.make_context("tao2serve", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def is_name(words: list[str]) -> bool:
    """Whether words only name a command, a group of them, or one option of a command, as running text does."""
    command: Any = PARSER
    for at, word in enumerate(words):
        if word not in getattr(command, "commands", {}):
            options = [option for parameter in command.params for option in parameter.opts]
            return words[at:] == [word] and word in options
        command = command.commands[word]
    return True


@pytest.mark.parametrize("page", pages())
def test_blocks_say_what_they_are(page: str) -> None:
    """Every fenced block has a language that the tests know, so that no command hides in a block that is not run."""
    unknown = [(block.line, block.language) for block in blocks(text_of(page)) if block.language not in LANGUAGES]
    assert not unknown, f"{page}: languages are {sorted(LANGUAGES)}"
    hidden = [
        (block.line, line)
        for block in blocks(text_of(page))
        if block.language == "text"
        for line in block.text.splitlines()
        if re.match(r"(\$ )?(tao2serve|clearml-serving|python3?|pip|curl|docker|kubectl) [-\w]", line.strip())
    ]
    assert not hidden, f"{page}: commands belong into a block of sh"


def test_rules_are_about_commands_that_are_shown() -> None:
    """A rule for a command that no page shows any more is out of date."""
    for page, rules in RULES.items():
        if page != TABLE and not (ROOT / page).exists():
            continue
        shown = [one.command for one in commands(page)]
        text = "\n".join([*rules.before, *(one.text for one in commands(page))])
        for command in (*rules.not_run, *rules.exits, *rules.variables):
            assert command in shown, f"{page} does not show {command!r}"
        for start in rules.until:
            assert any(command.startswith(start) for command in shown), f"{page} does not show {start!r}"
        for placeholder in rules.stands_for:
            assert placeholder in text, f"{page} does not show {placeholder!r}"


@pytest.mark.parametrize(("shown", "words"), CALLS, ids=[f"{one.page}:{one.line}" for one, _ in CALLS])
def test_what_is_not_run_is_understood(shown: Shown, words: list[str]) -> None:
    """The program's own parser takes every option and argument of a command that cannot be run here."""
    parse(words)


@pytest.mark.parametrize("page", pages())
def test_what_running_text_shows_is_understood(page: str) -> None:
    """So it does of `tao2serve …` in sentences and tables, brackets around what is optional aside."""
    for code in inline(page):
        if code.startswith("tao2serve ") and "…" not in code:
            words = shlex.split(re.split(r"[|;&>]", re.sub(r"[][]", "", code))[0])[1:]
            if not is_name(words):
                parse(words)


def test_the_searches_find_something() -> None:
    """Neither the search for commands nor that for code in sentences has gone blind."""
    rows = text_of("README.md").partition("| command |")[2].partition("\n\n")[0].split("\n")[2:]
    assert len(commands(TABLE)) == len(rows)
    assert sum(len(commands(page)) for page in pages()) > 60
    assert {"apt-get", "pip", "docker", "kubectl"} <= {one.command.split()[0] for one in NOT_RUN}
    assert any(code.startswith("tao2serve promote ") for code in inline("docs/rollout.md"))
    assert CODE.findall("a `b` ``c`` `d e`") == ["b", "d e"]
