"""One sandbox for all integration tests of a run, and the command line as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tao2serve.sandbox.samples import SAMPLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    def assert_success(self) -> Outcome:
        assert self.code == 0, f"exit {self.code}\n{self.stdout}\n{self.stderr}"
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """tao2serve and its neighbours in one environment and one working folder."""

    environment: Mapping[str, str]
    folder: Path

    def tao2serve(self, *arguments: str | Path, timeout_s: float = 240) -> Outcome:
        return self._run([sys.executable, "-m", "tao2serve", *map(str, arguments)], timeout_s)

    def clearml_serving(self, *arguments: str) -> Outcome:
        """The stock command line of clearml-serving."""
        return self._run([sys.executable, "-m", "clearml_serving", *arguments], 120)

    def python(self, script: Path) -> Outcome:
        """A script of the user's, in the same environment."""
        return self._run([sys.executable, str(script)], 120)

    def _run(self, command: list[str], timeout_s: float) -> Outcome:
        done = subprocess.run(
            command, env=dict(self.environment), cwd=self.folder, capture_output=True, text=True,
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Outcome(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def make_command_line(home: Path, folder: Path, **variables: str) -> CommandLine:
    """A command line whose sandbox lives in `home`; ClearML settings of the caller do not reach it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TAO2SERVE_"))}
    folder.mkdir(parents=True, exist_ok=True)
    return CommandLine(environment={**kept, "TAO2SERVE_HOME": str(home), **variables}, folder=folder)


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
    picture = sorted((SAMPLE / "images").glob("*.jpg"))[0]
    outcome = sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "street", "--image", picture, "--json"
    )
    return outcome.assert_success().document
