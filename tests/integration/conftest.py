"""One sandbox for all integration tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, make_command_line

from tao2serve.sandbox.samples import pictures


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """A command line with a home of its own and no sandbox."""
    return make_command_line(tmp_path / "home", tmp_path / "work")


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A running sandbox, with the environment of `tao2serve sandbox env`."""
    root = tmp_path_factory.mktemp("sandbox")
    plain = make_command_line(root / "home", root / "work")
    plain.tao2serve("sandbox", "up").assert_success()
    try:
        variables = plain.tao2serve("sandbox", "env", "--json").assert_success().document
        yield make_command_line(root / "home", root / "work", **variables)
    finally:
        plain.tao2serve("sandbox", "down").assert_success()


@pytest.fixture(scope="session")
def deployed(sandbox: CommandLine) -> dict[str, Any]:
    """The better sample model, deployed as endpoint `street`: the JSON document of `deploy`."""
    outcome = sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "street", "--image", pictures()[0], "--json"
    )
    return outcome.assert_success().document
