"""What the documents promise: commands, options, settings, exit codes and links that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest

from tao2serve import errors
from tao2serve.config import Settings
from tao2serve.runtime import Detections, DetectorParams
from tao2serve.runtime.answer import ServedModel, Timing, answer

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCUMENTS = (
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "model_repo" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
START = "pip install '.[sandbox,loadtest]' && tao2serve demo"
TEST = "pip install tox && tox"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(tao2serve [^`]+)`(?!`)")
SHELL = ("", "sh", "bash", "console")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"^  (?:(-\w), )?(--[\w-]+)", re.MULTILINE)


def fenced(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands_in(document: Path) -> Iterator[str]:
    """Every `tao2serve …` of a document's shell blocks and inline code, one command each."""
    text = document.read_text(encoding="utf-8")
    lines = [line for block in fenced(text, *SHELL) for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *INLINE.findall(FENCE.sub("", text))]:
        for part in re.split(r"&&|\|\||[|;\"]|\$\(|\)", line.removeprefix("$ ")):
            if re.match(r"\s*tao2serve(\s|$)", part):
                yield part.split(" #")[0].strip()


CASES = sorted({(path.relative_to(ROOT).as_posix(), command) for path in DOCUMENTS for command in commands_in(path)})


@cache
def help_of(*command: str) -> str:
    """The help text of a command; fails if there is no such command."""
    done = subprocess.run(
        [sys.executable, "-m", "tao2serve", *command, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"tao2serve {' '.join(command)}: {done.stderr}"
    return done.stdout


def subcommands(text: str) -> set[str]:
    return set(re.findall(r"^  ([\w-]+)  +\S", text.partition("Commands:")[2], re.MULTILINE))


@pytest.mark.parametrize(("document", "command"), CASES)
def test_every_command_that_is_shown_exists(document: str, command: str) -> None:
    """A command of the documents is in the program, with every option it is shown with."""
    words = shlex.split(command)[1:]
    path: tuple[str, ...] = ()
    while words and (known := subcommands(help_of(*path))):
        if words[0].startswith("-"):
            break
        assert words[0] in known, f"{document}: no command {' '.join((*path, words[0]))!r}"
        path = (*path, words.pop(0))
    options = {name for pair in OPTION.findall(help_of(*path)) for name in pair if name}
    shown = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert shown <= options, f"{document}: {command}"


def test_commands_were_found() -> None:
    """The search itself works: the README shows every command of the program at least once."""
    shown = {command.split()[1] for document, command in CASES if document == "README.md" and " " in command}
    assert subcommands(help_of()) <= shown


def test_the_first_command_installs_what_there_is() -> None:
    """The README's first command names extras and a script that pyproject.toml has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(START in block for block in fenced(README.read_text(encoding="utf-8"), *SHELL))
    extras = re.search(r"\[([\w,]+)\]", START)
    assert extras is not None
    assert set(extras.group(1).split(",")) <= set(project["optional-dependencies"])
    assert "tao2serve" in project["scripts"]


def test_the_second_command_runs_all_tests() -> None:
    """`tox` without arguments runs the style, the types, the bare installation and pytest; CI runs the same words."""
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    default = {name.strip() for name in tox["tox"]["env_list"].split(",")}
    assert default == {"lint", "bare", "py"}
    assert "mypy" in tox["testenv:py"]["commands"].split()
    assert "{[testenv]commands}" in tox["testenv:py"]["commands"]
    assert "pytest" in tox["testenv"]["commands"]
    assert any(TEST in block for block in fenced(README.read_text(encoding="utf-8"), *SHELL))
    assert TEST in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_settings_table_is_complete() -> None:
    """The README names each setting with its variable and its default, and no others."""
    rows = re.findall(r"^\| `(\w+)` \| `(TAO2SERVE_\w+)` \|([^|]*)\|", README.read_text(encoding="utf-8"), re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", None) else f"`{field.default}`"
        expected.append((name, f"TAO2SERVE_{name.upper()}", default))
    assert [(name, variable, default.strip()) for name, variable, default in rows] == expected


def test_exit_codes_are_those_of_the_errors() -> None:
    """The README lists the exit code of every error class, of success and of an interruption."""
    table = README.read_text(encoding="utf-8").partition("| exit code |")[2].partition("\n\n")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert listed == {0, 130, *(kind.exit_code for kind in kinds)}


def test_the_answer_that_is_shown_is_the_one_that_is_given() -> None:
    """The README's example answer has the members the runtime writes, in its order."""
    shown = next(
        document
        for document in map(json.loads, fenced(README.read_text(encoding="utf-8"), "json"))
        if "predictions" in document
    )
    written = answer(
        _one_detection(),
        _params(),
        image_size=(960, 560),
        model=ServedModel(endpoint="street", version="1", id="0"),
        timing=Timing(preprocess=1.0, infer=1.0, postprocess=1.0, total=3.0),
    )
    assert _shape(shown) == _shape(written)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link or picture of a document is a file of the repository."""
    for target in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.split("#")[0]).exists(), f"{target} in {document.name}"


def _shape(value: object) -> object:
    """The names of an object's members, all the way down; lists by their first entry."""
    if isinstance(value, dict):
        return {name: _shape(member) for name, member in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_shape(value[0])]
    return type(value).__name__


def _params() -> DetectorParams:
    return DetectorParams.from_dict(
        {
            "family": "detectnet_v2",
            "input": {"channels": 3, "height": 224, "width": 384},
            "bbox_scale": 35.0,
            "bbox_offset": 0.5,
            "classes": [{"name": "car"}],
        }
    )


def _one_detection() -> Detections:
    import numpy as np

    return Detections(
        xyxy=np.array([[1.5, 2.5, 3.5, 4.5]], dtype=np.float32),
        score=np.array([0.9], dtype=np.float32),
        raw_score=np.array([1.9], dtype=np.float32),
        class_id=np.array([0], dtype=np.int64),
    )
