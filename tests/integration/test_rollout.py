"""The life of an endpoint's versions under constant traffic: deployed, on trial, promoted, rolled back, removed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from clearml_state import ClearML
from command_line import CommandLine
from PIL import Image
from traffic import Traffic

from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.samples import SAMPLE

pytestmark = pytest.mark.integration
ENDPOINT = "lively"
# The old version may leave one poll and this deadline after the route has left it; a loaded machine needs some of it.
DEADLINE_S = "4"
SECOND_POLL_MINUTES = 0.025


def picture() -> bytes:
    """A small picture, so that the client, which shares the machine, leaves the servers their time."""
    buffer = io.BytesIO()
    Image.new("RGB", (96, 56), (90, 120, 90)).save(buffer, format="JPEG")
    return buffer.getvalue()


def weights(run: str) -> Path:
    return next((SAMPLE / run / "weights").glob("*.hdf5"))


@pytest.fixture(scope="module")
def commands(sandbox: CommandLine) -> CommandLine:
    """The sandbox's command line, with a short deadline of requests."""
    return CommandLine(environment={**sandbox.environment, "TAO2SERVE_DEADLINE_S": DEADLINE_S}, folder=sandbox.folder)


@contextmanager
def second_instance(commands: CommandLine, folder: Path) -> Iterator[str]:
    """Another inference service of the same serving service, which polls more slowly; yields its base URL at once."""
    (port,) = free_ports(1)
    environment = {
        **commands.environment, "CLEARML_SERVING_POLL_FREQ": str(SECOND_POLL_MINUTES), "TMPDIR": str(folder),
        "CLEARML_BKG_THREAD_REPORT": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "clearml_serving.serving.main:app",
        "--port",
        str(port),
        "--no-access-log",
    ]
    with (folder / "second.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}/serve"
    finally:
        process.terminate()  # its task ends with it, so no later command waits for this instance
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_up(url: str, *, limit_s: float = 90) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, f"{url} does not come up"
            time.sleep(0.1)


def kill_while_switching(commands: CommandLine, *arguments: str) -> None:
    """Start a command, and kill -9 it once it has begun to switch the alias."""
    command = [sys.executable, "-m", "tao2serve", *arguments]
    process = subprocess.Popen(
        command, env=dict(commands.environment), cwd=commands.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"switch the alias" in line:
            break
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


@pytest.fixture(scope="module")
def lived(commands: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole life under traffic on two inference services: what each command said, and the traffic."""
    said: dict[str, Any] = {}

    def run(name: str, *arguments: str | Path) -> None:
        said[name] = commands.tao2serve(*arguments, "--json").assert_success().document
        said[f"after {name}"] = time.monotonic()

    with second_instance(commands, tmp_path_factory.mktemp("second")) as second:
        run("first", "deploy", weights("pruned"), "--endpoint", ENDPOINT)
        wait_until_up(second)
        urls = (said["first"]["endpoint"]["alias_url"], f"{second}/{ENDPOINT}")
        new = str(int(said["first"]["endpoint"]["version"]) + 1)
        with Traffic(urls, picture(), rate=22) as traffic:
            run("second", "deploy", weights("unpruned"), "--endpoint", ENDPOINT)
            run("rollback", "rollback", ENDPOINT)
            run("canary", "promote", ENDPOINT, new, "--canary", "30%")
            time.sleep(1.5)
            kill_while_switching(commands, "promote", ENDPOINT)
            run("promote", "promote", ENDPOINT, new)
            run("status", "status", ENDPOINT)
            run("undeploy", "undeploy", ENDPOINT, "--old")
            time.sleep(0.5)
    return {**said, "traffic": traffic, "urls": urls}


@pytest.fixture
def old(lived: dict[str, Any]) -> str:
    return str(lived["first"]["endpoint"]["version"])


@pytest.fixture
def new(lived: dict[str, Any]) -> str:
    return str(lived["second"]["endpoint"]["version"])


def test_no_request_is_lost_and_each_names_its_version(lived: dict[str, Any], old: str, new: str) -> None:
    """At least 20 requests a second through six changes and a kill -9: all answered, all by one of the versions."""
    traffic: Traffic = lived["traffic"]
    assert traffic.problems() == []
    assert set(traffic.versions()) == {old, new}
    took = max(reply.sent for reply in traffic.replies) - min(reply.sent for reply in traffic.replies)
    assert len(traffic.replies) / took > 20


def test_what_a_command_says_holds_on_every_instance_when_it_returns(lived: dict[str, Any], old: str, new: str) -> None:
    """Both services answer by the new route from then on; a canary gets a share, not all, and not nothing."""
    traffic: Traffic = lived["traffic"]

    def answered(after: str, url: str, *, seconds: float = 0.7) -> list[str]:
        """The next command takes longer than this to begin changing anything."""
        start = lived[f"after {after}"]
        return [
            reply.version for reply in traffic.replies if start <= reply.sent <= start + seconds and reply.url == url
        ]

    for url in lived["urls"]:
        assert set(answered("second", url)) == {new}
        assert set(answered("rollback", url)) == {old}
        assert set(answered("promote", url)) == {new}
    trial = [version for url in lived["urls"] for version in answered("canary", url, seconds=1.5)]
    assert 0 < trial.count(new) < len(trial)


def test_each_command_says_what_it_did(lived: dict[str, Any], old: str, new: str) -> None:
    """The documents name both routes, what was removed, and the operation in ClearML."""
    assert lived["rollback"]["route"] == {old: 1.0}
    assert lived["canary"]["route"] == pytest.approx({old: 0.7, new: 0.3})
    assert lived["promote"]["route"] == {new: 1.0}
    assert lived["canary"]["operation_task_id"]
    removed = lived["undeploy"]["removed"]
    assert removed["versions"] == [old]
    assert removed["triton_models"] == removed["folders"] == [f"{ENDPOINT}_{old}"]
    assert lived["undeploy"]["endpoint"]["versions"] == [new]


def test_status_shows_what_serves(lived: dict[str, Any], old: str, new: str) -> None:
    """Shares, readiness on Triton and both instances, traffic since the load, precision, the last operations."""
    status = lived["status"]
    (endpoint,) = status["endpoints"]
    versions = {version["version"]: version for version in endpoint["versions"]}
    assert {name: version["weight"] for name, version in versions.items()} == {old: 0.0, new: 1.0}
    assert all(version["triton"]["ready"] and version["precision"] == "fp32" for version in versions.values())
    assert all(version["triton"]["requests_since_load"] > 20 for version in versions.values())
    alive = [instance for instance in status["instances"] if instance["alive"]]
    assert len(alive) == 2
    assert all(instance["current"] for instance in alive)
    assert all(len(version["known_to_instances"]) == 2 for version in versions.values())
    assert status["inference"]["poll_s"] == pytest.approx(60 * SECOND_POLL_MINUTES, abs=0.01)
    kinds = [operation["kind"] for operation in endpoint["operations"]]
    assert kinds[-3:] == ["promote", "rollback", "deploy"]
    assert ("no-traffic", f"{ENDPOINT}/{old}") in {(note["kind"], note["subject"]) for note in status["notes"]}


def test_the_old_version_is_gone_everywhere(commands: CommandLine, lived: dict[str, Any]) -> None:
    """404 at its url, and no folder in the repository."""
    first = lived["first"]["endpoint"]
    assert httpx.post(first["url"], content=picture(), trust_env=False).status_code == 404
    assert not (Path(commands.environment["TAO2SERVE_MODEL_REPOSITORY"]) / f"{ENDPOINT}_{first['version']}").exists()


def test_what_gets_requests_is_not_removed(commands: CommandLine, lived: dict[str, Any], new: str) -> None:
    """Exit 2 and the way out; an endpoint that is not there exits 3 and lists those that are."""
    refused = commands.tao2serve("undeploy", f"{ENDPOINT}/{new}", "--json")
    assert refused.code == 2
    assert "--all" in refused.document["error"]["hint"]
    unknown = commands.tao2serve("status", "nobody", "--json")
    assert unknown.code == 3
    assert ENDPOINT in unknown.document["error"]["evidence"]


def test_what_cannot_be_asked_for_leaves_no_operation(commands: CommandLine, lived: dict[str, Any], new: str) -> None:
    """A share or version that is none, an endpoint that is not there: refused, and the last operations stay the last.

    What is refused is said in a sentence.
    """
    before = ClearML(commands).operations(ENDPOINT)
    for code, fact, *arguments in (
        (2, "is 0, not a percentage", "promote", ENDPOINT, "--canary", "0"),
        (2, "of the requests to no version", "promote", ENDPOINT, new, "--canary", "10%"),
        (3, "is not registered", "promote", ENDPOINT, "99"),
        (3, "has earlier routes, and none can be served now", "rollback", ENDPOINT),
        (3, "is not registered", "undeploy", f"{ENDPOINT}/99"),
        (3, "is not in this serving service", "rollback", "nobody"),
    ):
        refused = commands.tao2serve(*arguments, "--json")
        assert refused.code == code, (arguments, refused)
        assert fact in refused.document["error"]["fact"]
        assert refused.document["error"]["hint"]
    assert ClearML(commands).operations(ENDPOINT) == before
    assert ClearML(commands).operations("nobody") == []


def test_the_whole_endpoint_goes_and_nothing_of_it_is_left(commands: CommandLine, lived: dict[str, Any]) -> None:
    """Alias first, then the version, the model, the folder; afterwards nothing of it is found anywhere."""
    document = commands.tao2serve("undeploy", ENDPOINT, "--all", "--json").assert_success().document
    assert document["removed"]["alias"] is True
    assert len(document["removed"]["versions"]) == 1
    repository = Path(commands.environment["TAO2SERVE_MODEL_REPOSITORY"])
    assert not [path.name for path in repository.iterdir() if ENDPOINT in path.name]
    status = commands.tao2serve("status", "--json").assert_success().document
    assert ENDPOINT not in [endpoint["name"] for endpoint in status["endpoints"]]
    assert ENDPOINT not in json.dumps(status["notes"])
