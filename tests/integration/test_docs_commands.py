"""Every command that the documents show, run as it stands: page by page, in order, on the sandbox."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil
import pytest
from command_line import CommandLine
from documented import README, ROOT, TABLE, Shown, commands, pages
from documented_rules import OPTIONAL, Rules, rules_of, why_not_run

from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.samples import SAMPLE, pictures

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PAGES: Final = tuple(
    page for page in (README, TABLE, *pages()[1:]) if any(not why_not_run(page, one.command) for one in commands(page))
)
HERE: Final = "examples/train_sample"
AT_MOST_S: Final = 500
# Each command in the shell that ran those before it: what they export or assign stays. $1: its number; $2: what must
# hold before a program that stays is ready, if it is one.
DRIVER: Final = """
set -m
__end() { for group in $(jobs -p); do kill -TERM -- "-$group" 2>/dev/null; done; wait; }
trap __end EXIT
__run() {
  if [ -z "$2" ]; then
    source "$__words/$1.sh" >"$__words/$1.out" 2>"$__words/$1.err" </dev/null
    echo "$1 $?" >>"$__words/ended"
  else
    ( source "$__words/$1.sh" ) >"$__words/$1.out" 2>"$__words/$1.err" </dev/null &
    for _ in $(seq 600); do eval "$2" && break; kill -0 $! || break; sleep 0.1; done
    eval "$2" && kill -0 $!; echo "$1 $?" >>"$__words/ended"
  fi
  LAST="$__words/$1.out"
}
"""
# Lets each script come to its own parser, with the words it is shown with, and no further.
READ = """
import argparse, json, pathlib, runpy, sys, unittest.mock

for name in ("torch", "torch.nn", "torch.nn.functional"):  # only the training itself needs it
    sys.modules.setdefault(name, unittest.mock.MagicMock())

class Read(BaseException):
    pass

def parse_args(self, args=None, namespace=None):
    real(self, args, namespace)
    raise Read

real, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, parse_args
for words in json.loads(sys.argv[1]):
    sys.argv = words
    sys.path[0] = str(pathlib.Path(words[0]).parent)
    try:
        runpy.run_path(words[0], run_name="__main__")
    except Read:
        print("read", " ".join(words))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one command of a page ended."""

    shown: Shown
    code: int
    output: str


def prepare(folder: Path) -> None:
    """Lay out what the documents' commands name, made from the sample; the clone's own folders are links, or copies."""
    weights = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"))
    (folder / "weights").mkdir(parents=True)
    shutil.copy(weights, folder / "weights" / "model.hdf5")
    shutil.copy(SAMPLE / "pruned" / "experiment_spec.txt", folder)
    shutil.copy(pictures()[0], folder / "street.jpg")
    (folder / "tao2serve-demo").mkdir()
    shutil.copy(pictures()[0], folder / "tao2serve-demo" / "street_01.jpg")
    shutil.copytree(SAMPLE / "images", folder / "pictures")
    shutil.copytree(SAMPLE / "labels", folder / "labels")
    write_grids(folder / "raw.npz")
    for run, name in (("unpruned", "unpruned"), ("pruned", "retrained"), ("pruned", "retrain")):
        shutil.copytree(SAMPLE / run, folder / "results" / name, ignore=shutil.ignore_patterns("scalars.json"))
    # What `tao run --name street` leaves of the second training.
    (folder / "results" / "experiment_dir_retrain" / "weights").mkdir(parents=True)
    shutil.copy(weights, folder / "results" / "experiment_dir_retrain" / "weights" / "street_pruned.hdf5")
    shutil.copy(SAMPLE / "pruned" / "experiment_spec.txt", folder / "results" / "experiment_spec_retrain.txt")
    shutil.copytree(ROOT / "model_repo", folder / "model_repo", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("benchmarks", "docs", "examples", "ops"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "user").mkdir()
    (folder / "user" / ".curlrc").write_text("fail\nsilent\nshow-error\n")  # an answer of 404 is no success


def write_grids(path: Path) -> None:
    """Grids of the sample's network with one object in them, under the names that `decode` reads."""
    import numpy as np

    cov = np.zeros((1, 3, 14, 24), dtype=np.float32)
    cov[0, 0, 5:8, 5:9] = 0.9
    bbox = np.full((1, 12, 14, 24), 0.5, dtype=np.float32)
    np.savez(path, **{"output_cov/Sigmoid:0": cov, "output_bbox/BiasAdd:0": bbox})


def environment_of(sandbox: CommandLine, folder: Path) -> dict[str, str]:
    """The sandbox's, with the variables that rules may name and the programs of this Python first."""
    home = Path(sandbox.environment["TAO2SERVE_HOME"]) / "sandbox"
    seeded = json.loads((home / "seed.json").read_text())
    listening = json.loads((home / "state.json").read_text())["ports"]
    ports = free_ports(3)
    return {
        **sandbox.environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder / "user"),
        "UNPRUNED": seeded["runs"][0]["model_id"],
        "SERVING": f"127.0.0.1:{listening['serving']}",
        "ENDPOINT_METRICS": f"127.0.0.1:{listening['metrics']}",
        "TRITON_GRPC": f"127.0.0.1:{listening['triton_grpc']}",
        "PORT": str(ports[0]), "PORT2": str(ports[1]), "PORT3": str(ports[2]),
    }  # fmt: skip


def run_page(shown: list[Shown], rules: Rules, *, environment: Mapping[str, str], folder: Path) -> list[Ended]:
    """Run commands one after the other in one shell; what stays until it is ended is ended in the end."""
    words = folder / ".words"
    words.mkdir()
    script = [f"__words={shlex.quote(str(words))}", DRIVER]
    for number, one in enumerate(shown):
        (words / f"{number}.sh").write_text(replaced(one, rules) + "\n")
        ready = next((test for start, test in rules.until.items() if one.command.startswith(start)), "")
        script.append(f"__run {number} {shlex.quote(ready)}")
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(script)], cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        process.wait(timeout=AT_MOST_S)
    finally:
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            process.wait()
    written = words / "ended"
    ended = dict(line.split() for line in written.read_text().splitlines()) if written.exists() else {}
    return [
        Ended(shown=one, code=int(ended.get(str(number), -1)), output=output_of(words, number))
        for number, one in enumerate(shown)
    ]


def replaced(one: Shown, rules: Rules) -> str:
    """A command with what its placeholders stand for, and the variables it needs in front."""
    text = one.text
    for placeholder, value in rules.stands_for.items():
        text = text.replace(placeholder, value)
    return " ".join([*(f"{name}={value}" for name, value in rules.variables.get(one.command, {}).items()), text])


def output_of(words: Path, number: int) -> str:
    texts = [words / f"{number}.{kind}" for kind in ("out", "err")]
    return "\n".join(path.read_text(errors="replace")[-2000:] for path in texts if path.exists())


@pytest.fixture(scope="module")
def passed() -> dict[tuple[str, str], str]:
    """Where, by the sandbox and the words of a command, another page has run the very same successfully."""
    return {}


def to_run(page: str, passed: Mapping[tuple[str, str], str]) -> list[Shown]:
    """The commands of a page that have no reason not to be run, in order.

    Words that have passed on another page are not run again, unless a later command needs the files they write.
    """
    kept: list[Shown] = []
    sandbox = rules_of(page).fixtures[0]
    before = [Shown(page=page, line=0, text=text) for text in rules_of(page).before]
    for one in reversed([*before, *commands(page)]):
        written = re.search(r"(?: -o| --output| >) ?(\S+)", one.command)
        needed = written is not None and any(written[1] in other.command for other in kept)
        stays = not one.command.startswith("tao2serve ") or "$" in one.command  # what it leaves may be in the shell
        if not why_not_run(page, one.command) and (needed or stays or (sandbox, one.command) not in passed):
            kept.append(one)
    return kept[::-1]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_shown_works(
    page: str, request: pytest.FixtureRequest, tmp_path: Path, passed: dict[tuple[str, str], str]
) -> None:
    """Each command of a page ends as the page says, with what it names in the folder it is run in."""
    rules = rules_of(page)
    shown = to_run(page, passed)
    missing = {
        name for name in OPTIONAL if any(one.command.startswith(name) for one in shown) and not shutil.which(name)
    }
    assert not (missing and "CI" in os.environ), f"not on PATH: {missing}"
    shown = [one for one in shown if not one.command.startswith(tuple(missing))]
    sandbox, *_ = [request.getfixturevalue(name) for name in rules.fixtures]
    prepare(tmp_path)
    environment = environment_of(sandbox, tmp_path)
    for ended in run_page(shown, rules, environment=environment, folder=tmp_path):
        allowed = rules.exits.get(ended.shown.command, (ended.shown.exit_code,))
        assert ended.code in allowed, (
            f"{page}:{ended.shown.line}: {ended.shown.text}\nexit {ended.code}\n{ended.output}"
        )
        passed[rules.fixtures[0], ended.shown.command] = page
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}; all other commands of {page} work")


@pytest.mark.parametrize(("page", "folder"), [("benchmarks/README.md", "."), ("examples/train_sample/README.md", HERE)])
def test_scripts_that_take_long_understand_what_they_are_shown_with(page: str, folder: str) -> None:
    """The parser of each script that is not run takes the words of the page, and would have begun the work."""
    shown = [
        one.command for one in commands(page) if one.command.startswith("python ") and why_not_run(page, one.command)
    ]
    words = [shlex.split(command)[1:] for command in shown]
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(words)], cwd=ROOT / folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("read ") == len(shown) > 3


def test_what_a_command_leaves_reaches_the_next_and_failures_are_seen(tmp_path: Path) -> None:
    """Variables and folders stay from command to command; exit codes are each command's own; what stays is ended."""
    texts = ("umask 077 && NAME=value", "mkdir a && cd a", "test $NAME = value", "touch here", "false", "exec sleep 60")
    shown = [Shown(page="made up", line=line, text=text) for line, text in enumerate(texts)]
    rules = Rules(until={"exec sleep": "test -e here"})
    ended = run_page(shown, rules, environment=os.environ, folder=tmp_path)
    assert [one.code for one in ended] == [0, 0, 0, 0, 1, 0]
    assert (tmp_path / "a" / "here").stat().st_mode & 0o777 == 0o600
    gone = run_page([replace(shown[0], text="exit 3"), shown[3]], rules, environment=os.environ, folder=tmp_path / "a")
    assert [one.code for one in gone] == [-1, -1]  # it ended the shell: no command of a page may
    assert Shown(page="made up", line=1, text="tao2serve x \\\n  y  # a missed gate exits 8").exit_code == 8
