"""Encrypted models by each way to TAO: the real launcher and the real docker up to an engine that records."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import CommandLine, Outcome, make_command_line
from docker_engine import NAMESPACE, Engine, docker_engine, require_docker, require_namespace
from keras_files import tiny_resnet

from tao2serve.errors import ToolError
from tao2serve.export.convert import export_onnx
from tao2serve.tao.launcher import LAUNCHER_VERSION, find_launcher, launcher_version
from tao2serve.tao.subtask import IMAGES

pytestmark = pytest.mark.integration

KEY = "bm90LWEtcmVhbC1rZXk6dGhhdC1zaG91bGQtbmV2ZXItYmUtc2Vlbg=="
SPEC = """
augmentation_config { preprocessing { output_image_width: 48 output_image_height: 32 output_image_channel: 3 } }
cost_function_config { target_classes { name: "car" } target_classes { name: "person" } }
postprocessing_config { target_class_config { key: "car" value { clustering_config { clustering_algorithm: DBSCAN
  coverage_threshold: 0.1 dbscan_eps: 0.3 dbscan_min_samples: 1 minimum_bounding_box_height: 4 } } }
  target_class_config { key: "person" value { clustering_config { clustering_algorithm: DBSCAN
  coverage_threshold: 0.1 dbscan_eps: 0.3 dbscan_min_samples: 1 minimum_bounding_box_height: 4 } } } }
"""
SECRET = "sekret-of-the-agent"
# Plays nvidia_tao_tf1.cv.detectnet_v2.scripts.export of TAO's container. No code of NVIDIA's.
FAKE_EXPORT = """
import os, shutil, sys
arguments = dict(zip(sys.argv[1:-1:2], sys.argv[2:-1:2]))
key = sys.argv[-1].partition("=")[2]
with open("/proc/self/cmdline") as file:
    assert key not in file.read()
print("Loading with key " + key)
print(os.environ.get("CLEARML_API_SECRET_KEY"))
{ending}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How TAO is reached: what tao2serve is started by and with, and the engine that is asked for a container."""

    variables: dict[str, str]
    before: tuple[str, ...] = ()
    engine: Engine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A user's home, temporary folder and working folder, with an encrypted model and its spec."""

    root: Path
    line: CommandLine

    @property
    def model(self) -> Path:
        return self.root / "models" / "resnet18.tlt"

    def export(self, **variables: str | Path) -> Outcome:
        return self._with(variables).tao2serve("export", *self._arguments(), timeout_s=120)

    def export_by(self, way: Way) -> Outcome:
        process = self.start_export(before=way.before, **way.variables)
        stdout, stderr = process.communicate(timeout=120)
        return Outcome(code=process.returncode, stdout=stdout, stderr=stderr)

    def start_export(self, *, before: tuple[str, ...] = (), **variables: str | Path) -> subprocess.Popen[str]:
        line = self._with(variables)
        return subprocess.Popen(
            [*before, sys.executable, "-m", "tao2serve", "export", *map(str, self._arguments())],
            env=dict(line.environment), cwd=line.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def left_behind(self) -> str:
        """All that a run wrote: logs, output, and what lies in the temporary folder."""
        folders = [self.root / name for name in ("home", "tmp", "out")]
        files = [path for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()]
        return "\n".join(path.read_text(errors="replace") for path in files)

    def _arguments(self) -> tuple[str | Path, ...]:
        return (self.model, "--spec", self.root / "models" / "spec.txt", "-o", self.root / "out", "--json")

    def _with(self, variables: dict[str, str | Path]) -> CommandLine:
        added = {name: str(value) for name, value in variables.items()}
        return CommandLine(environment={**self.line.environment, **added}, folder=self.line.folder)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("user", "tmp", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "models" / "resnet18.tlt").write_bytes(b"encrypted weights")
    (tmp_path / "models" / "spec.txt").write_text(SPEC)
    (tmp_path / "key").write_text(KEY + "\n")
    line = make_command_line(
        tmp_path / "home", tmp_path / "work", HOME=str(tmp_path / "user"), TMPDIR=str(tmp_path / "tmp"),
        DOCKER_HOST=f"unix://{tmp_path}/no-docker.sock", PATH="/usr/local/bin:/usr/bin:/bin",
    )  # fmt: skip
    return Place(root=tmp_path, line=line)


@pytest.fixture
def logged_in(place: Place) -> Place:
    """A user whose Docker says it is logged in to NVIDIA's registry; there is no Docker behind it."""
    docker = place.root / "user" / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text('{"auths": {"nvcr.io": {}}}')
    return place


@pytest.fixture
def fake_launcher(tmp_path: Path) -> Path:
    """The stand-in of fake_tao.py, as a program named tao."""
    return _program(tmp_path / "bin" / "tao", Path(__file__).with_name("fake_tao.py"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file such as the container would make."""
    folder = tmp_path_factory.mktemp("exported")
    return export_onnx(tiny_resnet(folder / "model.hdf5"), output=folder / "model.onnx").path


def _program(path: Path, script: Path, *, before: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{before}exec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
    path.chmod(0o755)
    return path


def _error(outcome: Outcome) -> dict[str, str]:
    assert outcome.code == 4, f"exit {outcome.code}\n{outcome.stdout}\n{outcome.stderr}"
    assert "Traceback" not in outcome.stdout + outcome.stderr
    error: dict[str, str] = outcome.document["error"]
    return error


def test_the_real_launcher_knows_our_words(tao_launcher: Path, place: Place) -> None:
    """`model` and `detectnet_v2` are words of the real launcher; what follows them goes to the container."""
    environment = dict(place.line.environment)
    for words, expected in (((), "model"), (("model",), "detectnet_v2")):
        done = subprocess.run(
            [str(tao_launcher), *words, "--help"], env=environment, capture_output=True, text=True, check=True
        )
        lists = [choices.split(",") for choices in re.findall(r"\{([^}]*)\}", done.stdout)]
        assert any(expected in choices for choices in lists), done.stdout


def test_the_real_launcher_says_its_version(tao_launcher: Path) -> None:
    """The real launcher is found by its path and recognised, without Docker; another program is not."""
    found = find_launcher(tao_launcher)
    assert found is not None
    assert launcher_version(found) == LAUNCHER_VERSION
    with pytest.raises(ToolError, match="is not NVIDIA's TAO launcher"):
        launcher_version(Path("/bin/echo"))


@pytest.mark.parametrize("by", ["file", "variable"])
def test_without_docker_the_key_is_nowhere(tao_launcher: Path, logged_in: Place, by: str) -> None:
    """The real launcher refuses without Docker: exit 4 in clear words, the key in no process list and no file."""
    given = {"TAO2SERVE_TAO_KEY": KEY} if by == "variable" else {"TAO2SERVE_TAO_KEY_FILE": logged_in.root / "key"}
    process = logged_in.start_export(TAO2SERVE_TAO_LAUNCHER=tao_launcher, **given)
    seen_launcher = False
    try:
        while process.poll() is None:
            for pid in psutil.pids():
                command, environment = _command_and_environment(pid)
                assert KEY not in command
                if str(tao_launcher) in command and pid != process.pid:
                    seen_launcher = seen_launcher or "detectnet_v2" in command
                    assert KEY not in environment
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    outcome = Outcome(code=process.returncode, stdout=stdout, stderr=stderr)
    error = _error(outcome)
    assert seen_launcher
    assert error["fact"] == "cannot reach Docker"
    assert "DockerException" in error["evidence"]
    assert "start Docker" in error["hint"]
    assert "DockerException" in Path(error["log"]).read_text()
    assert KEY not in stdout + stderr + logged_in.left_behind()
    assert not list((logged_in.root / "tmp").iterdir())
    assert not list((logged_in.root / "out").rglob("*.onnx"))


def _command_and_environment(pid: int) -> tuple[str, str]:
    """What everyone, and what the owner may see of a process; empty once it is gone."""
    try:
        return tuple(
            Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace") for name in ("cmdline", "environ")
        )  # type: ignore[return-value]
    except OSError:
        return "", ""


def test_without_a_login_the_error_says_how(tao_launcher: Path, place: Place) -> None:
    """The real launcher ends in a traceback where Docker is not logged in; the user sees `docker login nvcr.io`."""
    error = _error(place.export(TAO2SERVE_TAO_LAUNCHER=tao_launcher, TAO2SERVE_TAO_KEY=KEY))
    assert error["fact"] == "needs a login to NVIDIA's registry"
    assert "docker login nvcr.io" in error["hint"]


def _play_export(place: Place, tools: Path, *, ending: str) -> None:
    """Install a fake TAO as its container has it: a Python that finds it, and the command that this Python runs."""
    package = place.root / "site"
    module = package / "nvidia_tao_tf1" / "cv" / "detectnet_v2" / "scripts"
    module.mkdir(parents=True)
    (module / "export.py").write_text(FAKE_EXPORT.format(ending=ending))
    tools.mkdir(exist_ok=True)
    for name in ("python", "python3.8"):
        run = f'PYTHONPATH={shlex.quote(str(package))} exec {shlex.quote(sys.executable)} "$@"'
        (tools / name).write_text(f"#!/bin/sh\n{run}\n")
    (tools / "detectnet_v2").write_text(f"#!{tools}/python3.8\n")
    for program in tools.iterdir():
        program.chmod(0o755)


def _inside(place: Place, ending: str) -> Way:
    """TAO's own container around us, as a ClearML agent's task meets it: another Python is first on PATH."""
    tools, agents = place.root / "tools", place.root / "agent"
    _play_export(place, tools, ending=ending)
    agents.mkdir()
    (agents / "python").write_text("#!/bin/sh\necho no TAO in this Python; exit 97\n")
    (agents / "python").chmod(0o755)
    return Way(variables={"PATH": f"{agents}:{tools}:/usr/bin:/bin", "CLEARML_API_SECRET_KEY": SECRET})


@contextlib.contextmanager
def _by(name: str, place: Place, ending: str, request: pytest.FixtureRequest) -> Iterator[Way]:
    if name == "inside":
        yield _inside(place, ending)
        return
    require_docker()
    with docker_engine(place.root / "engine", {IMAGES["model"]}) as engine:
        _play_export(place, engine.folder / "tools", ending=ending)
        variables = {"DOCKER_HOST": f"unix://{engine.socket}", "PATH": os.environ["PATH"]}
        if name == "docker":
            yield Way(variables=variables, engine=engine)
            return
        require_namespace()
        variables["TAO2SERVE_TAO_LAUNCHER"] = str(request.getfixturevalue("tao_launcher"))
        yield Way(variables=variables, before=(*NAMESPACE, str(engine.socket)), engine=engine)


@pytest.mark.parametrize("name", ["launcher", "docker", "inside"])
def test_each_way_exports(name: str, logged_in: Place, exported: Path, request: pytest.FixtureRequest) -> None:
    """The exporter's module is run with the key, the ONNX file arrives, and the key is nowhere.

    By the real launcher where there is one, else by the real docker; inside TAO's container by the Python of
    detectnet_v2, and without the agent's credentials.
    """
    ending = f"shutil.copyfile({str(exported)!r}, arguments['--output_file']); print(arguments)"
    with _by(name, logged_in, ending, request) as way:
        way.variables["TAO2SERVE_TAO_KEY"] = KEY
        outcome = logged_in.export_by(way)
    document = outcome.assert_success().document
    artifact = Path(document["artifacts"][0]["path"])
    assert artifact.read_bytes() == exported.read_bytes()
    log = (logged_in.root / "home" / "logs" / "tao-export.log").read_text()
    assert "Loading with key ***" in log
    assert "'--onnx_route': 'tf2onnx'" in log
    assert f"'--model': '{logged_in.model}'" in log
    assert SECRET not in log
    assert KEY not in outcome.stdout + outcome.stderr + logged_in.left_behind()
    assert not list((logged_in.root / "tmp").iterdir())
    if way.engine is not None:
        (created,) = way.engine.created
        assert created["Image"] == "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5"
        assert created["HostConfig"]["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
        assert KEY not in json.dumps(way.engine.requests)


@pytest.mark.parametrize("name", ["launcher", "docker"])
def test_what_fails_in_a_container_is_an_error(name: str, logged_in: Place, request: pytest.FixtureRequest) -> None:
    """The real launcher exits 0 whatever fails inside; we do not, and show its last words without the key."""
    with _by(name, logged_in, "raise ValueError('no layer of ' + key)", request) as way:
        way.variables["TAO2SERVE_TAO_KEY"] = KEY
        outcome = logged_in.export_by(way)
    error = _error(outcome)
    assert error["fact"] == "failed with exit code 1"
    assert "ValueError: no layer of ***" in error["evidence"]
    assert KEY not in outcome.stdout + outcome.stderr + logged_in.left_behind()


@pytest.mark.parametrize(
    ("ending", "fact", "evidence"),
    [
        ("raise OSError('Invalid decryption. The key used to load the model is incorrect.')", "decrypt", "incorrect"),
        ("sys.exit(3)", "exit code 3", "Loading with key ***"),
        ("pass", "wrote no ONNX file", ""),
        ("open(arguments['--output_file'], 'wb').close()", "wrote no ONNX file", ""),
    ],
)
def test_what_fails_inside_is_an_error(place: Place, ending: str, fact: str, evidence: str) -> None:
    """A wrong key, a bare exit code, a file that is missing or empty: each is told, and no file is left as ONNX."""
    way = _inside(place, ending)
    way.variables["TAO2SERVE_TAO_KEY"] = KEY
    outcome = place.export_by(way)
    error = _error(outcome)
    assert fact in error["fact"]
    assert evidence in error["evidence"]
    assert KEY not in outcome.stdout + outcome.stderr + place.left_behind()
    assert not list((place.root / "out").rglob("*.onnx"))


def test_without_any_way_the_error_has_the_commands(place: Place) -> None:
    """No launcher, no docker, no detectnet_v2: exit 4 with the exact command, and the key is not in it."""
    empty = place.root / "empty"
    empty.mkdir()
    outcome = place.export(PATH=empty, TAO2SERVE_TAO_KEY=KEY)
    error = _error(outcome)
    assert "is encrypted" in error["fact"]
    assert "docker run --rm --gpus all -e KEY" in error["hint"]
    assert KEY not in outcome.stdout + outcome.stderr + place.left_behind()


@pytest.mark.parametrize("covered", [True, False])
def test_the_container_finds_everything(fake_launcher: Path, logged_in: Place, exported: Path, covered: bool) -> None:
    """Model, spec, key and output lie where the mounts put them, the user's own mounts first; only we may read them."""
    root = logged_in.root
    if covered:
        mounts = {
            "Mounts": [{"source": str(root / "models"), "destination": "/workspace/models"}],
            "Envs": [{"variable": "TF_CPP_MIN_LOG_LEVEL", "value": "2"}],
            "DockerOptions": {"shm_size": "2G", "tty": False},
        }
        (root / "user" / ".tao_mounts.json").write_text(json.dumps(mounts))
    record = root / "record.json"
    outcome = logged_in.export(
        TAO2SERVE_TAO_LAUNCHER=fake_launcher, TAO2SERVE_TAO_KEY_FILE=root / "key", CI_PROJECT_DIR="/builds/x",
        PYTHONPATH=os.environ.get("PYTHONPATH", ""), FAKE_TAO_RECORD=record, FAKE_TAO_ONNX=exported,
    )  # fmt: skip
    document = outcome.assert_success().document
    assert Path(document["artifacts"][0]["path"]).read_bytes() == exported.read_bytes()
    met: dict[str, Any] = json.loads(record.read_text())
    assert met["key"] == KEY
    assert met["model"] == "encrypted weights"
    assert met["module"] == "nvidia_tao_tf1.cv.detectnet_v2.scripts.export"
    folder = "/workspace/models" if covered else str(root / "models")
    assert met["arguments"]["--model"] == f"{folder}/resnet18.tlt"
    assert met["arguments"]["--experiment_spec"] == f"{folder}/spec.txt"
    assert met["modes"] == [0o700, 0o600, 0o600]
    assert met["stdin_is_terminal"]
    assert not {"CI_PROJECT_DIR", "PYTHONPATH"} & set(met["variables"])
    assert not [name for name in met["variables"] if name.startswith("TAO2SERVE_")]
    options = met["mounts"]["DockerOptions"]
    assert options["user"] == f"{os.getuid()}:{os.getgid()}"
    assert ("shm_size" in options, "tty" in options) == (covered, False)
    assert bool(met["mounts"]["Envs"]) == covered
    sources = {mount["source"] for mount in met["mounts"]["Mounts"]}
    assert (str(root / "models") in sources) == covered
    assert (str(logged_in.model) in sources) != covered


def test_a_launcher_that_hangs_is_ended(fake_launcher: Path, logged_in: Place) -> None:
    """At the time limit the launcher gets SIGINT, upon which it stops its container, and is gone."""
    marker = logged_in.root / "marker"
    outcome = logged_in.export(
        TAO2SERVE_TAO_LAUNCHER=fake_launcher, TAO2SERVE_TAO_KEY=KEY, TAO2SERVE_TAO_TIMEOUT_S="1", FAKE_TAO_SLEEP=marker
    )
    assert "did not end within 1 s" in _error(outcome)["fact"]
    assert marker.read_text() == "interrupted"
    assert not list((logged_in.root / "tmp").iterdir())


@pytest.mark.parametrize("started", ["in front", "in the background"])
def test_an_interrupt_ends_the_launcher(fake_launcher: Path, logged_in: Place, started: str) -> None:
    """Ctrl-C or SIGTERM at tao2serve ends the launcher by SIGINT, and leaves no key behind.

    In the background of a script a process ignores SIGINT, which its children would inherit.
    """
    marker = logged_in.root / "marker"
    process = logged_in.start_export(
        TAO2SERVE_TAO_LAUNCHER=fake_launcher, TAO2SERVE_TAO_KEY=KEY, FAKE_TAO_SLEEP=marker,
        before=("sh", "-c", 'trap "" INT; exec "$@"', "sh") if started == "in the background" else (),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert marker.read_text().isdigit()
        process.send_signal(signal.SIGINT if started == "in front" else signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert marker.read_text() == "interrupted"
    assert KEY not in logged_in.left_behind()
