"""TAO's subtasks through NVIDIA's real launcher and the real `docker`, up to an engine that records."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Outcome, make_command_line
from docker_engine import NAMESPACE, Engine, docker_engine, require_docker, require_namespace

from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.subtask import IMAGES

pytestmark = pytest.mark.integration

ACCESS, SECRET, KEY = "ACCESS0123456789KEY", "sekret-that-nothing-may-show", "bm90LWEtcmVhbC1rZXk6eA=="


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A user's machine: data that a mounts file shows as /workspace/data, a spec that names it, and the engine."""

    root: Path
    engine: Engine
    line: CommandLine
    namespace: tuple[str, ...] = field(default=())

    @property
    def spec(self) -> Path:
        return self.root / "spec.txt"

    def command(self, *words: str | Path) -> list[str]:
        return [*self.namespace, sys.executable, "-m", "tao2serve", "tao", *map(str, words)]

    def tao(self, *words: str | Path, **variables: str) -> Outcome:
        done = subprocess.run(
            self.command(*words), env={**self.line.environment, **variables}, cwd=self.line.folder, text=True,
            capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        outcome = Outcome(code=done.returncode, stdout=done.stdout, stderr=done.stderr)
        self.assert_kept(outcome)
        return outcome

    def assert_kept(self, outcome: Outcome) -> None:
        """No secret is in what was shown, in what was kept, or left in the temporary folder; no traceback is."""
        files = [
            path for name in ("results", "home", "tmp") for path in (self.root / name).rglob("*") if path.is_file()
        ]
        kept = "".join(path.read_text(errors="replace") for path in files)
        for secret in (SECRET, ACCESS, KEY):
            assert secret not in outcome.stdout + outcome.stderr + kept
        assert not list((self.root / "tmp").iterdir())
        assert "Traceback" not in outcome.stdout

    @property
    def met(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.engine.folder / "record.jsonl").read_text().splitlines()]

    def play(self, **how: str) -> None:
        (self.engine.folder / "play").write_text(json.dumps(how))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    require_docker()
    for name in ("user/.docker", "tmp", "data/images", "data/tfrecords"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "tfrecords" / "train-fold-0").touch()
    (tmp_path / "user" / ".docker" / "config.json").write_text('{"auths": {"nvcr.io": {}}}')
    (tmp_path / "key").write_text(KEY + "\n")
    mounts = {"Mounts": [{"source": str(tmp_path / "data"), "destination": "/workspace/data"}],
              "Envs": [{"variable": "OWN", "value": "theirs"}], "DockerOptions": {"shm_size": "16G"}}  # fmt: skip
    (tmp_path / "user" / ".tao_mounts.json").write_text(json.dumps(mounts))
    text = (SAMPLE / "unpruned" / "experiment_spec.txt").read_text()
    for field_name, path in (("tfrecords_path", "tfrecords/*"), ("image_directory_path", "images")):
        start = text.index('"', text.index(f"{field_name}:"))
        text = f'{text[:start]}"/workspace/data/{path}"{text[text.index(chr(34), start + 1) + 1 :]}'
    (tmp_path / "spec.txt").write_text(text)
    with docker_engine(tmp_path / "engine", set(IMAGES.values())) as engine:
        line = make_command_line(
            tmp_path / "home", tmp_path / "work", HOME=str(tmp_path / "user"), TMPDIR=str(tmp_path / "tmp"),
            DOCKER_HOST=f"unix://{engine.socket}", CLEARML_API_HOST="http://127.0.0.1:9", CI_PROJECT_DIR="/builds",
            CLEARML_FILES_HOST="http://127.0.0.1:8081", CLEARML_API_ACCESS_KEY=ACCESS, CLEARML_API_SECRET_KEY=SECRET,
        )  # fmt: skip
        yield Place(root=tmp_path, engine=engine, line=line)


@pytest.fixture
def launched(place: Place, tao_launcher: Path) -> Place:
    """The same place, where the launcher finds the engine too."""
    require_namespace()
    environment = {**place.line.environment, "TAO2SERVE_TAO_LAUNCHER": str(tao_launcher)}
    return Place(
        root=place.root, engine=place.engine, line=CommandLine(environment=environment, folder=place.line.folder),
        namespace=(*NAMESPACE, str(place.engine.socket)),
    )  # fmt: skip


def tracked_variables(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("CLEARML_")}


def test_the_real_launcher_trains(launched: Place) -> None:
    """Image, mounts, environment and command that the engine is asked for are those TAO expects, models uploaded.

    The user's own mounts, variables and options are kept, and their file stays as it was.
    """
    own = (launched.root / "user" / ".tao_mounts.json").read_bytes()
    results = launched.root / "results"
    outcome = launched.tao("train", launched.spec, "-r", results, "-n", "street", "--skip-preflight", "--json")
    document = outcome.assert_success().document
    assert (document["outcome"], Path(document["output"])) == ("ok", results / "weights" / "street.hdf5")
    (created,) = launched.engine.created
    assert created["Image"] == "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5"
    binds = created["HostConfig"]["Binds"]
    assert f"{launched.root}/data:/workspace/data:rw" in binds
    assert f"{results}:{results}:rw" in binds
    assert f"{launched.spec}:{launched.spec}:rw" in binds
    assert created["HostConfig"]["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    assert created["HostConfig"]["ShmSize"] == 16 << 30
    assert created["HostConfig"]["NetworkMode"] == "host"  # ClearML is on this machine's loopback
    assert created["User"] == "0:0"
    given = dict(entry.partition("=")[::2] for entry in created["Env"])
    assert given["OWN"] == "theirs"
    assert given["CLEARML_DEFAULT_OUTPUT_URI"] == "http://127.0.0.1:8081"
    assert (given["CLEARML_API_ACCESS_KEY"], given["CLEARML_API_SECRET_KEY"]) == (ACCESS, SECRET)
    (run,) = launched.met
    assert run["words"] == ["train", "-e", str(launched.spec), "-r", str(results), "-n", "street"]
    assert tracked_variables(run["variables"]) == tracked_variables(given)
    assert launched.engine.asked("/stop")
    assert (launched.root / "user" / ".tao_mounts.json").read_bytes() == own
    assert "uploading with ***" in Path(document["log"]).read_text()
    assert "train begins" in outcome.stderr


def test_the_real_launcher_builds_an_engine_in_the_deploy_container(launched: Place) -> None:
    """gen_trt_engine runs in NVIDIA's other image, and is not told of ClearML; a failure inside is exit 4."""
    (launched.root / "model.onnx").write_bytes(b"onnx")
    words = ("gen-trt-engine", launched.root / "model.onnx", "--spec", launched.spec, "-r", launched.root / "results",
             "--data-type", "fp16", "--max-batch-size", "8", "--skip-preflight", "--json")  # fmt: skip
    launched.tao(*words).assert_success()
    assert launched.engine.created[0]["Image"] == "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-deploy"
    assert launched.met[0]["words"][0] == "gen_trt_engine"
    assert launched.met[0]["words"][-6:] == ["--data_type", "fp16", "--opt_batch_size", "8", "--max_batch_size", "8"]
    assert not tracked_variables(launched.met[0]["variables"])
    launched.play(gen_trt_engine="fail")
    outcome = launched.tao(*words)
    assert (outcome.code, outcome.document["error"]["fact"]) == (4, "failed with exit code 1")
    assert "tfrecords are broken" in outcome.document["error"]["evidence"]


def test_the_notebook_is_taken_up_where_it_was_killed(place: Place) -> None:
    """Killed in the pruning, run again: what is finished is skipped and said, the rest runs, in order; again: nothing.

    The retraining loads the pruned model under the container's path, with the training's spec else unchanged.
    """
    results = place.root / "results"
    words = ("run", place.spec, "-r", results, "-n", "street", "--via", "docker", "--skip-preflight")
    place.play(prune="wait")
    process = subprocess.Popen(
        place.command(*words), env=dict(place.line.environment), cwd=place.line.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    waiting = place.engine.folder / "waiting"
    deadline = time.monotonic() + 60
    while not waiting.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    place.assert_kept(Outcome(code=process.returncode, stdout=stdout, stderr=stderr))
    assert process.returncode == 130
    assert "step: prune" in stderr
    assert "goes on from there" in stderr
    place.play()
    document = place.tao(*words, "--json").assert_success().document
    assert [(step["name"], step["state"]) for step in document["steps"]] == [
        ("train", "skipped"), ("evaluate", "skipped"), ("prune", "finished"), ("retrain", "finished"),
        ("evaluate-retrained", "finished"), ("export", "finished"),
    ]  # fmt: skip
    assert document["steps"][4]["mean_average_precision"] == 0.8125
    assert Path(document["onnx"]).read_bytes() == b"model"
    assert [run["words"][0] for run in place.met] == [
        "train",
        "evaluate",
        "prune",
        *("prune", "train", "evaluate", "export"),
    ]
    again = place.tao(*words).assert_success()
    assert again.stdout.count("skipped") == 6
    made = (results / "experiment_spec_retrain.txt").read_text().splitlines()
    before = place.spec.read_text().splitlines()
    pruned = results / "experiment_dir_pruned" / "street_pruned.hdf5"
    changed = [line.strip() for line in made if line not in before]
    assert sorted(changed) == sorted([f'pretrained_model_file: "{pruned}"', "load_graph: true", 'tags: "pruned"'])
    place.spec.write_text(place.spec.read_text().replace("num_epochs: 16", "num_epochs: 17"))
    other = place.tao(*words, "--json")
    assert (other.code, other.document["error"]["subject"]) == (2, "step train")
    assert "another spec" in other.document["error"]["fact"]
    told = {run["words"][0]: bool(tracked_variables(run["variables"])) for run in place.met}
    assert told == {"train": True, "evaluate": False, "prune": False, "export": False}
    names = [container["name"] for container in place.engine.containers.values()]
    assert all(name.startswith("tao2serve-") for name in names)


def test_docker_gets_secrets_by_name_alone(place: Place) -> None:
    """`docker run` is told variables by name: no process list shows a value; a key travels in a private file."""
    place.play(train="wait")
    words = ("train", place.spec, "-r", place.root / "results", "--via", "docker", "--skip-preflight")
    process = subprocess.Popen(
        place.command(*words), env=dict(place.line.environment), cwd=place.line.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seen = set()
    deadline = time.monotonic() + 60
    while not (place.engine.folder / "waiting").exists() and time.monotonic() < deadline:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().decode(errors="replace")
            except OSError:
                continue
            assert SECRET not in command
            if "--gpus" in command:
                seen.add(command)
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert process.returncode == 130
    assert any("CLEARML_API_SECRET_KEY" in command for command in seen)
    (created,) = place.engine.created
    assert f"CLEARML_API_SECRET_KEY={SECRET}" in created["Env"]


def test_a_refused_spec_is_no_success(place: Place) -> None:
    """TAO ends with 0 when it refuses a spec; its status.json says otherwise, and so do we."""
    place.play(train="refuse")
    outcome = place.tao(
        "train", place.spec, "-r", place.root / "results", "--via", "docker", "--skip-preflight", "--json"
    )
    error = outcome.document["error"]
    assert (outcome.code, error["fact"]) == (4, "refused the experiment spec")
    assert "num_epochs should > 0" in error["evidence"]
    assert "spec check" in error["hint"]


def test_a_dry_run_shows_the_command_and_masks_secrets(place: Place) -> None:
    """Command, what runs inside, mounts and variables are shown, nothing is asked of the engine but what is here."""
    words = (
        "train",
        place.spec,
        "-r",
        place.root / "results",
        "--via",
        "docker",
        "--key-file",
        place.root / "key",
        "--dry-run",
    )
    text = place.tao(*words).assert_success().stdout
    assert "CLEARML_API_SECRET_KEY=***" in text
    assert f"detectnet_v2 train -e {place.spec}" in text
    assert "-k '***'" in text
    document = place.tao(*words, "--json").assert_success().document
    assert document["command"][1:6] == ["run", "--rm", "--init", "--gpus", "all"]
    assert document["inside"][-2:] == ["-k", "***"]
    assert document["environment"]["CLEARML_DEFAULT_OUTPUT_URI"] == "http://127.0.0.1:8081"
    assert document["environment"]["CLEARML_API_ACCESS_KEY"] == "***"
    checks = {check["name"]: check for check in document["preflight"]}
    assert checks["Docker"]["status"] == "ok"
    assert checks["image"]["status"] == "ok"
    assert checks["mounts"]["fact"] == "2 files and folders of the spec are there"
    assert checks["ClearML"]["status"] == "wrong"
    assert "127.0.0.1:9" in checks["ClearML"]["fact"]
    assert not place.engine.created
    assert not (place.root / "results").exists()


def test_the_preflight_refuses_before_anything_starts(place: Place) -> None:
    """Without a GPU the run ends with exit 4, in clear words, and lists all that was looked at."""
    if shutil.which("nvidia-smi"):
        pytest.skip("a GPU may be here")
    outcome = place.tao("train", place.spec, "-r", place.root / "results", "--via", "docker", "--no-clearml", "--json")
    assert outcome.code == 4
    assert "GPU: none is seen" in outcome.document["error"]["evidence"]
    assert {check["name"] for check in outcome.document["preflight"]} >= {
        "GPU",
        "Docker",
        "image",
        "key",
        "spec",
        "mounts",
    }
    assert not place.engine.created


@pytest.fixture
def inside(place: Place) -> Place:
    """The same place, where detectnet_v2 is on PATH, as in TAO's own container."""
    environment = {
        **place.line.environment, "PATH": f"{place.engine.folder / 'tools'}:{os.environ['PATH']}",
        "PLAYED_BINDS": '["/:/"]', "PLAYED_FOLDER": str(place.engine.folder),
    }  # fmt: skip
    line = CommandLine(environment=environment, folder=place.line.folder)
    return Place(root=place.root, engine=place.engine, line=line)


def test_inside_the_container_the_command_itself_is_run(inside: Place) -> None:
    """Where detectnet_v2 is on PATH it is run as it is, its paths as they are, ClearML's variables with it."""
    results = inside.root / "results"
    words = ("train", inside.spec, "-r", results, "--skip-preflight", "--json", "--", "--enable_determinism")
    inside.tao(*words).assert_success()
    (run,) = inside.met
    assert run["words"] == ["train", "-e", str(inside.spec), "-r", str(results), "-n", "model", "--enable_determinism"]
    assert run["variables"]["CLEARML_DEFAULT_OUTPUT_URI"] == "http://127.0.0.1:8081"
    assert not inside.engine.requests


def test_a_pruned_model_is_retrained_by_a_spec_that_is_made(inside: Place) -> None:
    """A dry run shows the spec's place and writes nothing; the run keeps the spec; without a model it must load one."""
    pruned, results = inside.root / "pruned.hdf5", inside.root / "results"
    pruned.touch()
    words = ("retrain", inside.spec, "-r", results, "--no-clearml")
    document = inside.tao(*words, "--model", pruned, "--dry-run", "--json").assert_success().document
    made = results / "experiment_spec_retrain.txt"
    assert document["inside"][:4] == ["detectnet_v2", "train", "-e", str(made)]
    assert not results.exists()
    inside.tao(*words, "--model", pruned, "--skip-preflight").assert_success()
    assert f'pretrained_model_file: "{pruned}"' in made.read_text()
    assert tracked_variables(inside.met[0]["variables"]) == {"CLEARML_CONFIG_FILE": os.devnull}  # --no-clearml
    refused = inside.tao(*words, "--skip-preflight", "--json")
    assert (refused.code, refused.document["error"]["fact"]) == (3, "does not load a pruned model")
    assert inside.tao(*words, "--model", pruned, "--", "-k", "KEY").code == 2


def test_the_container_of_a_retraining_sees_the_pruned_model(place: Place) -> None:
    """No argument names it, only the spec: it is mounted all the same."""
    pruned = place.root / "pruned.hdf5"
    pruned.touch()
    words = ("retrain", place.spec, "--model", pruned, "-r", place.root / "results", "--via", "docker")
    place.tao(*words, "--skip-preflight").assert_success()
    assert f"{pruned}:{pruned}" in place.engine.created[0]["HostConfig"]["Binds"]


def test_an_evaluation_does_not_take_a_trainings_place(inside: Place) -> None:
    """TAO would write the training's status.json anew: a folder of its own is asked for, and then mAP is told."""
    results = inside.root / "results"
    inside.tao("train", inside.spec, "-r", results, "--no-clearml", "--skip-preflight").assert_success()
    words = ("evaluate", results / "weights" / "model.hdf5", "--spec", inside.spec, "--skip-preflight", "--json", "-r")
    refused = inside.tao(*words, results)
    assert (refused.code, refused.document["error"]["subject"]) == (2, "--results")
    assert inside.tao(*words, results / "evaluate").assert_success().document["mean_average_precision"] == 0.8125
