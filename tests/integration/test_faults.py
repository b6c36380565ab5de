"""What breaks around a deployment, on real processes: what is live stays live, and the command says what to mend."""

from __future__ import annotations

import base64
import os
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from clearml_state import ClearML
from command_line import CommandLine
from faults import Breaking, Stack, broken_stack, side_by_side, small_disk
from traffic import Traffic

from tao2serve.sandbox.samples import LOCAL_PROJECT, SAMPLE, pictures

pytestmark = pytest.mark.integration
PICTURE = pictures()[0] if pictures() else Path("missing.jpg")
UNPRUNED = next((SAMPLE / "unpruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))
PRUNED = next((SAMPLE / "pruned" / "weights").glob("*.hdf5"), Path("missing.hdf5"))
PATIENCE_S = 3.0
# The patience, what is still tried after it, and a busy machine.
LIMIT_S = PATIENCE_S + 20
LIVE = "live"
WRONG_CLOCK = Path(__file__).parent.parent / "wrong_clock"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A sandbox for these tests alone."""
    root = tmp_path_factory.mktemp("faults")
    with broken_stack(root, TAO2SERVE_DEADLINE_S="4", TMPDIR=str(root)) as stack:
        yield stack


@pytest.fixture
def impatient(stack: Stack) -> CommandLine:
    """A command line with little patience with ClearML."""
    return stack.with_variables(TAO2SERVE_CLEARML_TIMEOUT_S=str(PATIENCE_S))


@pytest.fixture(scope="module")
def live(stack: Stack) -> dict[str, Any]:
    """An endpoint that serves, from weights that were uploaded with their hash: the JSON document of `deploy`."""
    done = stack.commands.tao2serve(
        "deploy", "--project", LOCAL_PROJECT, "--weights", UNPRUNED, "--spec", UNPRUNED.parent.parent /
        "experiment_spec.txt", "--endpoint", LIVE, "--image", PICTURE, "--json",
    )  # fmt: skip
    return done.assert_success().document


@pytest.fixture
def traffic(live: dict[str, Any]) -> Iterator[Traffic]:
    """Requests to what is live all through a test."""
    with Traffic((live["endpoint"]["alias_url"],), PICTURE.read_bytes(), rate=10, threads=4) as traffic:
        yield traffic


def folders(stack: Stack, endpoint: str) -> list[str]:
    """Everything in Triton's repository that belongs to an endpoint, half-written folders too."""
    return sorted(path.name for path in stack.repository.iterdir() if path.name.strip(".").startswith(f"{endpoint}_"))


def server(stack: Stack) -> str:
    return stack.commands.environment["CLEARML_API_HOST"]


def test_a_clearml_that_goes_away_during_a_deployment(stack: Stack, impatient: CommandLine, traffic: Traffic) -> None:
    """Hung, or killed, in one step after the other: exit 5 within seconds, naming the server and what mends it.

    What is live answers every request meanwhile. Then the same deployment goes through, although the server is
    restarted in the middle of it, and nothing is left of those before: no second version, folder or half upload.
    """
    deploy = ("deploy", PRUNED, "--endpoint", "rough", "--image", PICTURE, "--json")
    for step, hangs in (
        ("register the endpoint version", False),
        ("switch the alias", True),
    ):
        running = Breaking(impatient, step, *deploy)
        if hangs:
            with stack.hung("clearml-server"):
                broken = running.ended(limit_s=LIMIT_S)
        else:
            stack.kill("clearml-server")
            broken = running.ended(limit_s=LIMIT_S)
            unreachable = impatient.tao2serve("status", "--json").document["error"]
            assert (unreachable["fact"], "CLEARML_API_HOST" in unreachable["hint"]) == ("cannot be reached", True)
            stack.up()
        error = broken.outcome.document["error"]
        assert broken.outcome.code == 5, (step, broken)
        assert server(stack) in error["subject"], (step, error)
        assert "start it" in error["hint"]
        assert broken.outcome.document["step"] == step
        assert error["hint"].count(" stays") == 1  # of the version, for the next run to go on with
        assert broken.outcome.document["aftermath"] in error["hint"]
        assert "Traceback" not in broken.outcome.stderr
    running = Breaking(stack.commands, "register the endpoint version", *deploy)
    stack.kill("clearml-server")
    stack.up()
    done = running.ended(limit_s=120).outcome.assert_success().document
    version = done["endpoint"]["version"]
    assert done["alias"]["after"] == {version: 1.0}
    assert folders(stack, "rough") == [f"rough_{version}"]
    clearml = ClearML(stack.commands)
    assert clearml.configured("endpoints").count("rough/") == 1
    assert [model["uri"] for model in clearml.models() if "uploading" in model["uri"]] == []
    assert {entry["status"] for entry in clearml.operations("rough")} <= {"completed", "failed"}
    assert traffic.problems() == []
    assert len(traffic.replies) > 100


def test_other_commands_while_clearml_hangs(
    stack: Stack, impatient: CommandLine, live: dict[str, Any], traffic: Traffic
) -> None:
    """Each that needs ClearML ends with exit 5 and says so; what needs it not, works; what is live stays live."""
    lines: list[tuple[str | Path, ...]] = [
        ("status",), ("models", "--project", LOCAL_PROJECT), ("promote", LIVE), ("rollback", LIVE),
        ("undeploy", LIVE, "--old"), ("predict", LIVE, PICTURE),
    ]  # fmt: skip
    by_url = ("predict", live["endpoint"]["url"], PICTURE)
    with stack.hung("clearml-server"):
        ended = side_by_side([(impatient, (*line, "--json")) for line in (*lines, by_url)], limit_s=LIMIT_S + 20)
    assert ended.pop().code == 0
    for line, outcome in zip(lines, ended, strict=True):
        assert outcome.code == 5, (line, outcome)
        error = outcome.document["error"]
        assert server(stack) in error["subject"], (line, outcome)
        assert f"has not answered for {PATIENCE_S:g} s" in error["fact"], (line, outcome)
        assert "CLEARML_API_HOST" not in error["hint"]  # it is there
    assert traffic.problems() == []


def test_a_proxy_without_clearml_behind_it(impatient: CommandLine) -> None:
    """One that answers 503 for ever: exit 5 with its words, where the SDK would ask without end."""
    with answering(503, b"no server behind this proxy") as url:
        behind = CommandLine(environment={**impatient.environment, "CLEARML_API_HOST": url}, folder=impatient.folder)
        outcome = behind.tao2serve("models", "--json", timeout_s=LIMIT_S + 20)
    assert outcome.code == 5, outcome
    error = outcome.document["error"]
    assert url in error["subject"]
    assert "does not take requests" in error["fact"]
    assert "503: no server behind this proxy" in error["evidence"]


@contextmanager
def answering(code: int, body: bytes) -> Iterator[str]:
    """A server that gives the same answer to everything; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def test_triton_killed_under_load_comes_back(stack: Stack, live: dict[str, Any], traffic: Traffic) -> None:
    """503 while it is away, and `status` says why; `sandbox up` starts it alone, with its models, found at once."""
    others = [stack.pid(name) for name in ("clearml-server", "clearml-serving")]
    time.sleep(0.5)
    killed = time.monotonic()
    stack.kill("triton")
    status = stack.commands.tao2serve("status", "--json").assert_success().document
    assert status["triton"]["reachable"] is False
    assert ("server-away", "Triton") in {(note["kind"], note["subject"]) for note in status["notes"]}
    # gRPC's own pauses would be at 4 s by now, and 7 s next.
    time.sleep(max(6.0 - (time.monotonic() - killed), 0.0))
    model = f"{LIVE}_{live['endpoint']['version']}"
    address = f"http://127.0.0.1:{stack.port('triton_http')}/v2/models/{model}/ready"
    starting = threading.Thread(target=stack.up)
    starting.start()
    ready = when_answered(address)
    starting.join()
    time.sleep(2.5)
    assert [stack.pid(name) for name in ("clearml-server", "clearml-serving")] == others
    lost = [reply for reply in traffic.replies if reply.problem]
    assert lost
    assert {reply.problem[:3] for reply in lost} == {"503"}
    assert min(reply.sent + reply.seconds for reply in lost) >= killed
    assert max(reply.sent for reply in lost) - ready < 1.5
    assert "Triton" in lost[-1].problem


def test_an_inference_service_killed_comes_back(stack: Stack, live: dict[str, Any]) -> None:
    """`sandbox up` starts it alone; it answers by the route as before, and no dead instance is left for others."""
    others = [stack.pid(name) for name in ("clearml-server", "triton")]
    stack.kill("clearml-serving")
    stack.up()
    assert [stack.pid(name) for name in ("clearml-server", "triton")] == others
    answer = stack.commands.tao2serve("predict", live["endpoint"]["alias_url"], PICTURE, "--json")
    assert answer.assert_success().code == 0
    status = stack.commands.tao2serve("status", "--json").assert_success().document
    assert len(status["instances"]) == 1


def test_no_room_where_models_are_published(stack: Stack, traffic: Traffic) -> None:
    """Exit 5 with the storage's words; nothing half published counts; once there is room the same goes through."""
    deploy = ("deploy", PRUNED, "--endpoint", "roomy", "--precision", "fp16", "--image", PICTURE, "--json")
    before = {model["id"] for model in ClearML(stack.commands).models()}
    with stack.server_disk_full():
        refused = stack.commands.tao2serve(*deploy)
    assert refused.code == 5, refused
    error = refused.document["error"]
    # Without a disk of its own the limit is the process's, and SQLite has other words for it.
    assert ("full" if stack.mounted else "disk") in error["evidence"] + error["fact"], error
    assert folders(stack, "roomy") == []
    done = stack.commands.tao2serve(*deploy).assert_success().document
    assert done["endpoint"]["version"] == "1"
    assert done["artifact"]["reused"] is False
    kept = [model for model in ClearML(stack.commands).models() if model["id"] not in before]
    assert [model["id"] for model in kept] == [done["artifact"]["model_id"]]
    assert traffic.problems() == []


@pytest.mark.parametrize("size", ["300k", "1700k"], ids=["exporting", "packing"])
def test_no_room_for_temporary_files(stack: Stack, tmp_path: Path, size: str) -> None:
    """A full temporary folder of the client: exit 4, naming the folder, and nothing is published or served."""
    before = len(ClearML(stack.commands).models())
    with small_disk(tmp_path / "small", size) as mounted:
        if not mounted:
            pytest.skip("a small disk can be mounted by root alone, and no other means fills TMPDIR")
        cramped = stack.with_variables(TMPDIR=str(tmp_path / "small"))
        refused = cramped.tao2serve("deploy", PRUNED, "--endpoint", "cramped", "--image", PICTURE, "--json")
    assert refused.code == 4, refused
    assert "full" in refused.document["error"]["fact"]
    assert str(tmp_path / "small") in refused.document["error"]["subject"]
    assert folders(stack, "cramped") == []
    assert len(ClearML(stack.commands).models()) == before


@pytest.mark.parametrize("damage", ["flipped", "cut off"])
def test_a_corrupt_download(stack: Stack, live: dict[str, Any], damage: str) -> None:
    """Other bytes than were uploaded: exit 5, naming the model; nothing is kept in the cache, nothing deployed."""
    (model,) = [model for model in ClearML(stack.commands).models() if "registered_model" in str(model.get("metadata"))]
    stored = stack.data / "files" / model["uri"].split("/", 3)[3]
    stored = next(path for path in (stored, *stack.data.rglob(stored.name)) if path.is_file())
    whole = stored.read_bytes()
    cache = stack.home / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    try:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        stored.write_bytes(flipped if damage == "flipped" else whole[:middle])
        spec = UNPRUNED.parent.parent / "experiment_spec.txt"
        refused = stack.commands.tao2serve("deploy", model["id"], "--spec", spec, "--endpoint", "spoilt", "--json")
    finally:
        stored.write_bytes(whole)
    assert refused.code == 5, refused
    assert model["id"] in refused.document["error"]["subject"]
    assert "is not what ClearML recorded" in refused.document["error"]["fact"]
    assert [path for path in cache.rglob("*") if path.is_file() and path.parent.name == "weights"] == []
    assert folders(stack, "spoilt") == []
    assert "spoilt" not in ClearML(stack.commands).configured("endpoints")


def test_a_model_that_does_not_load(stack: Stack, traffic: Traffic) -> None:
    """Damaged between writing and loading: exit 5 with Triton's reason, taken back; others serve; then a good one."""
    deploy = ("deploy", PRUNED, "--endpoint", "brittle", "--image", PICTURE, "--json")
    ended = threading.Event()
    saboteur = threading.Thread(target=spoil_when_written, args=(stack.repository / "brittle_1", ended))
    saboteur.start()
    refused = stack.commands.tao2serve(*deploy)
    ended.set()
    saboteur.join()
    assert refused.code == 5, refused
    assert refused.document["step"] == "load on Triton"
    assert "spoilt by a test" in refused.document["error"]["evidence"]
    assert folders(stack, "brittle") == []
    assert "brittle" not in ClearML(stack.commands).configured("endpoints")
    done = stack.commands.tao2serve(*deploy).assert_success().document
    assert done["alias"]["after"] == {done["endpoint"]["version"]: 1.0}
    assert traffic.problems() == []


@pytest.fixture
def skewed(stack: Stack) -> dict[str, CommandLine]:
    """Command lines whose clock is wrong by so much, in their own processes alone."""
    seconds = {"+1d": 86_400, "-1d": -86_400, "+2m": 120, "-2m": -120}
    path = os.pathsep.join(filter(None, (str(WRONG_CLOCK), stack.commands.environment.get("PYTHONPATH"))))
    lines = {by: stack.with_variables(PYTHONPATH=path, WRONG_CLOCK_S=str(number)) for by, number in seconds.items()}
    script = stack.commands.folder / "clock.py"
    script.write_text("import datetime; print(datetime.datetime.now().timestamp())")
    for by, line in lines.items():
        assert float(line.python(script).stdout) - time.time() == pytest.approx(seconds[by], abs=30)
    return lines


def test_a_client_whose_clock_is_wrong(stack: Stack, skewed: dict[str, CommandLine], live: dict[str, Any]) -> None:
    """A day or two minutes, ahead or behind: deployed, rolled back, promoted, judged as by a clock that is right.

    Who lives is judged by the server's time: nobody is taken for dead, and an operation of such a client keeps others
    out.
    """
    old = live["endpoint"]["version"]
    deploy = ("deploy", PRUNED, "--endpoint", LIVE, "--image", PICTURE, "--json")
    running = Breaking(skewed["+1d"], "publish to ClearML", *deploy)
    with running.held():
        rival = stack.commands.tao2serve(*deploy)
    new = running.ended(limit_s=120).outcome.assert_success().document["endpoint"]["version"]
    assert rival.code == 5
    assert "is being changed by another operation" in rival.document["error"]["fact"]
    for by, command, version in (
        ("-1d", ("rollback", LIVE), old), ("+2m", ("promote", LIVE, new), new), ("-2m", ("promote", LIVE, old), old)
    ):  # fmt: skip
        done = skewed[by].tao2serve(*command, "--json").assert_success().document
        assert done["route"] == {version: 1.0}
    for outcome in side_by_side([(line, ("status", "--json")) for line in skewed.values()], limit_s=60):
        status = outcome.assert_success().document
        assert [instance["alive"] for instance in status["instances"]] == [True]
        assert status["instances"][0]["silent_s"] < 60
        assert not {note["kind"] for note in status["notes"]} & {"dead-instance", "dead-operation", "no-instance"}
        (endpoint,) = (entry for entry in status["endpoints"] if entry["name"] == LIVE)
        kinds = [operation["kind"] for operation in endpoint["operations"]]
        assert kinds[:4] == ["promote", "promote", "rollback", "deploy"]


def test_credentials_are_nowhere(stack: Stack, live: dict[str, Any], tmp_path: Path) -> None:
    """Neither key, token nor wrong key: in no output, log, report, file of ClearML's or ours, nor command line.

    `sandbox env` is there to print them; the sandbox keeps them in one file.
    """
    wrong = "a-wrong-secret-key-0123456789"
    # The SDK's and urllib3's most talkative mood.
    loud = stack.with_variables(CLEARML_LOG_LEVEL="DEBUG", CLEARML_API_VERBOSE="DEBUG", TMPDIR=str(tmp_path))
    unknown = CommandLine(environment={**loud.environment, "CLEARML_API_SECRET_KEY": wrong}, folder=loud.folder)
    report = (
        "loadtest",
        LIVE,
        "--images",
        PICTURE.parent,
        "--run-time",
        "1s",
        "--warmup",
        "0s",
        "-o",
        tmp_path / "load",
    )
    commands: list[tuple[CommandLine, tuple[str | Path, ...]]] = [
        (loud, ("deploy", PRUNED, "--endpoint", "discreet", "--image", PICTURE)),
        (loud, ("models",)), (loud, ("status", "--json")), (loud, ("doctor",)), (loud, ("doctor", "--json")),
        (loud, ("config", "show")), (loud, ("render", "compose", "-o", tmp_path / "compose")),
        (loud, ("predict", LIVE, PICTURE)), (loud, (*report, "--json")),
        (unknown, ("models", "--json")), (unknown, ("status",)), (unknown, ("doctor",)),
        (unknown, ("deploy", PRUNED, "--endpoint", "discreet", "--json")),
    ]  # fmt: skip
    with command_lines() as seen:
        ended = side_by_side(commands, limit_s=150)
    for (line, arguments), outcome in zip(commands, ended, strict=True):
        if line is unknown and arguments[0] != "doctor":
            assert outcome.code == 5, (arguments, outcome)
    said = {f"{arguments[0]} {index}": (outcome.stdout + outcome.stderr).encode()
            for index, ((_, arguments), outcome) in enumerate(zip(commands, ended, strict=True))}  # fmt: skip
    said["command lines"] = b"\n".join(seen)
    kept = stack.home / "sandbox" / "credentials.json"
    for root in (stack.home, tmp_path, stack.commands.folder):
        said |= {str(path): content for path, content in contents(root) if path != kept}
    assert sum(len(content) for content in said.values()) > 1_000_000
    secrets = secrets_of(stack.commands, wrong)
    assert any(secret in kept.read_bytes() for secret in secrets)  # the search itself works
    assert {name: found for name, content in said.items() if (found := leaks(content, secrets))} == {}


def secrets_of(commands: CommandLine, *more: str) -> tuple[bytes, ...]:
    """The secret keys as they are, and as HTTP and URLs write them."""
    access, key = (commands.environment[f"CLEARML_API_{name}_KEY"] for name in ("ACCESS", "SECRET"))
    plain = [key, *more]
    basic = [base64.b64encode(f"{access}:{secret}".encode()).decode() for secret in plain]
    return tuple(text.encode() for text in {*plain, *basic, *map(quote, plain)})


def leaks(content: bytes, secrets: tuple[bytes, ...]) -> list[str]:
    """What of it is secret: a key, or anything like a JSON web token."""
    found = [secret for secret in secrets if secret in content]
    return [one.decode() for one in (*found, *re.findall(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}", content))]


def contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, and every member of those that are archives."""
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        yield path, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield path / name, archive.read(name)


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """The command lines of all processes of the machine, looked at all the time."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(entry.read_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()


def spoil_when_written(folder: Path, ended: threading.Event) -> None:
    """Put another model.py into a model's folder as soon as it is there: Triton takes longer to start its Python."""
    while not ended.is_set():
        target = folder / "1" / "model.py"
        if target.is_file():
            spoilt = folder.parent / ".spoilt"
            spoilt.write_text("raise RuntimeError('spoilt by a test')\n")
            spoilt.replace(target)
            return
        time.sleep(0.001)


def when_answered(url: str, *, limit_s: float = 60) -> float:
    """Return when an address first answered 200 (time.monotonic)."""
    deadline = time.monotonic() + limit_s
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            try:
                if client.get(url).status_code == 200:
                    return time.monotonic()
            except httpx.HTTPError:
                pass
            time.sleep(0.01)
    raise AssertionError(f"{url} does not answer")
