"""One sandbox for all integration tests of a run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, make_command_line, processes_of, shared_memory
from sandboxes import sandbox_of

from tao2serve.sandbox.samples import pictures
from tao2serve.tao.launcher import LAUNCHER_VERSION
from tao2serve.tao.source import sha256_of
from tao2serve.tuned import Tuned, render_tuned

WHOLE_DELAY_US = 50


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """A command line with a home of its own, an empty user's home, and no sandbox."""
    (tmp_path / "user").mkdir()
    return make_command_line(tmp_path / "home", tmp_path / "work", HOME=str(tmp_path / "user"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test in another group would start a second sandbox that is meant to be shared: the groups know them all.

    What docs/managed.md shows is run last of what shares the managed sandbox, since it deploys there.
    """
    items.sort(key=lambda item: "[docs/managed.md]" in item.nodeid)
    for item in items:
        fixtures = getattr(item, "fixturenames", [])
        for name, group in (("sandbox", "sandbox"), ("managed_sandbox", "managed"), ("reader", "reader")):
            if name in fixtures and sandbox_of(item.nodeid) != group:
                raise pytest.UsageError(f"{item.nodeid} uses {name}: see SHARED in tests/sandboxes.py")


@contextlib.contextmanager
def running_sandbox(root: Path) -> Iterator[CommandLine]:
    """Run a sandbox below a folder, and give the environment of `tao2serve sandbox env`."""
    plain = make_command_line(root / "home", root / "work")
    plain.tao2serve("sandbox", "up").assert_success()
    try:
        variables = plain.tao2serve("sandbox", "env", "--json").assert_success().document
        yield make_command_line(root / "home", root / "work", **variables)
    finally:
        plain.tao2serve("sandbox", "down").assert_success()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A running sandbox that most tests share."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as line:
        yield line


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A sandbox for what the documents show, which removes what other tests would still ask."""
    with running_sandbox(tmp_path_factory.mktemp("reader")) as line:
        yield line


@pytest.fixture(scope="session")
def reader_endpoint(reader: CommandLine) -> None:
    """Endpoint `street`, which the documents' examples ask."""
    reader.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "street", "--image", pictures()[0]
    ).assert_success()


@pytest.fixture(scope="session")
def managed_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A running sandbox whose Triton is run by ClearML Serving's own controller; nothing of it is left behind."""
    root = tmp_path_factory.mktemp("managed")
    home = root / "home"
    plain = make_command_line(home, root / "work")
    plain.tao2serve("sandbox", "up", "--managed").assert_success()
    prefix = json.loads((home / "sandbox" / "state.json").read_text())["shared_memory"]
    try:
        variables = plain.tao2serve("sandbox", "env", "--json").assert_success().document
        yield make_command_line(home, root / "work", **variables)
    finally:
        plain.tao2serve("sandbox", "down").assert_success()
    assert not processes_of(home)
    assert not shared_memory(prefix)


@pytest.fixture(scope="session")
def managed(managed_sandbox: CommandLine) -> dict[str, Any]:
    """The better sample model, deployed as endpoint `street` there: the JSON document of `deploy`."""
    outcome = managed_sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "street", "--image", pictures()[0], "--json"
    )
    return outcome.assert_success().document


@pytest.fixture(params=["own", "managed"])
def answering(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The same endpoint on a Triton that tao2serve controls, and on one that ClearML Serving's controller does."""
    document: dict[str, Any] = request.getfixturevalue({"own": "deployed", "managed": "managed"}[request.param])
    return document


@pytest.fixture(scope="session")
def deployed(sandbox: CommandLine) -> dict[str, Any]:
    """The better sample model, deployed as endpoint `street`: the JSON document of `deploy`."""
    outcome = sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "street", "--image", pictures()[0], "--json"
    )
    return outcome.assert_success().document


@pytest.fixture(scope="session")
def whole(sandbox: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The better sample model, deployed as endpoint `whole` with all of it on Triton, by a file of tuned settings."""
    weights = pictures()[0].parents[1] / "pruned" / "weights" / "resnet10_street_pruned.hdf5"
    tuned = Tuned(
        settings={"placement": "ensemble", "queue_delay_us": WHOLE_DELAY_US}, source_sha256=sha256_of(weights),
        precision="fp32", hardware={"gpu": "Tesla T4"},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tuned") / "tuned.toml"
    path.write_text(render_tuned(tuned), encoding="utf-8")
    outcome = sandbox.tao2serve(
        "deploy", "--project", "street-detector", "--endpoint", "whole", "--tuned", path, "--image", pictures()[0],
        "--json",
    )  # fmt: skip
    return outcome.assert_success().document


@pytest.fixture(scope="session")
def tao_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA's real launcher, installed from the package index into an environment of its own: 46 MB.

    Without an index the tests that need it fail: skipped, they would say nothing of the command lines we build.
    """
    folder = tmp_path_factory.mktemp("nvidia-tao")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # setuptools: the launcher imports distutils, which Python 3.12 no longer has.
    install = [str(folder / "bin" / "pip"), "install", "--quiet", f"nvidia-tao=={LAUNCHER_VERSION}", "setuptools"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"nvidia-tao cannot be installed:\n{done.stderr}"
    return folder / "bin" / "tao"
