"""`tao2serve tao`: what is refused before anything is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tao2serve.cli.main import run
from tao2serve.cli.tao_options import Common, prepare
from tao2serve.sandbox.samples import SAMPLE

SPEC = SAMPLE / "unpruned" / "experiment_spec.txt"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose PATH has docker and nothing else; none of these tests comes to run it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "model.hdf5").touch()
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("LAUNCHER_MOUNTS", "TAO2SERVE_TAO_KEY", "TAO_DOCKER_DISABLE", "CLEARML_DEFAULT_OUTPUT_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("API_HOST", "FILES_HOST", "API_ACCESS_KEY", "API_SECRET_KEY"):
        monkeypatch.setenv(f"CLEARML_{name}", f"https://{name.lower()}")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("train", SPEC, "-r", "r", "--mount", "nowhere"), 2, "--mount is 'nowhere'"),
        (("train", SPEC, "-r", "r", "--mount", "/no/such:/x"), 2, "--mount is '/no/such:/x'"),
        (("train", SPEC, "-r", "r", "--env", "NO_SUCH"), 2, "--env names 'NO_SUCH'"),
        (("train", SPEC, "-r", "r", "--via", "ssh"), 2, "one of launcher, docker, inside"),
        (("train", SPEC, "-r", "r", "--via", "launcher"), 4, "the tao launcher is not on PATH"),
        (("train", SPEC, "-r", "r", "--via", "launcher", "--image", "x"), 2, "give --via docker"),
        (("train", SPEC, "-r", "r", "--via", "inside"), 4, "needs the program python"),
        (("train", "none.txt", "-r", "r"), 3, "none.txt does not exist"),
        (("run", "none.txt", "-r", "r"), 3, "none.txt does not exist"),
        (("run", SPEC.parent, "-r", "r"), 3, "unpruned is not a file"),
        (("train", SPEC, "-r", "r", "--mount", "~no.such.user:/x"), 2, "--mount is '~no.such.user:/x'"),
        (("train", SPEC, "-r", "r", "--mount", "a:b:/x"), 2, "cannot be mounted"),
        (("train", SPEC, "-r", "r", "--name", ""), 2, "--name is ''"),
        (("retrain", SPEC, "-r", "r", "--model", "model.hdf5", "-n", "a/b"), 2, "--name is 'a/b'"),
        (("run", SPEC, "-r", "r", "-n", "-x"), 2, "--name is '-x'"),
        (("prune", "model.hdf5", "-o", "x.tlt"), 2, "must end in .hdf5"),
        (("prune", "model.hdf5", "-o", "x.hdf5", "--equalization", "sum"), 2, "one of union"),
        (("gen-trt-engine", "model.hdf5", "--spec", SPEC, "-r", "r", "--data-type", "int4"), 2, "one of fp32"),
    ],
)
def test_wrong_usage_is_said(
    words: tuple[str | Path, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code and sentence; nothing is made."""
    assert run(["tao", *map(str, words)]) == code
    assert said in capsys.readouterr().err
    assert not Path("r").exists()


def mounts_file(home: Path, **variables: str) -> None:
    entries = [{"variable": name, "value": value} for name, value in variables.items()]
    (home / ".tao_mounts.json").write_text(json.dumps({"Mounts": [], "Envs": entries}))


def test_credentials_of_the_mounts_file_stay(home: Path) -> None:
    """Only where models go is added to them: the host of one server and the key of another fit nothing."""
    mounts_file(home, CLEARML_API_ACCESS_KEY="THEIRS-KEY", CLEARML_FILES_HOST="https://theirs")
    prepared = prepare(Common(), spec_to_track=SPEC)
    assert dict(prepared.place.environment) == {"CLEARML_DEFAULT_OUTPUT_URI": "https://theirs"}
    assert "THEIRS-KEY" in prepared.secrets
    assert dict(prepare(Common(output_uri="s3://b"), spec_to_track=SPEC).place.environment) == {
        "CLEARML_DEFAULT_OUTPUT_URI": "s3://b"
    }


def test_only_a_tracked_training_gets_credentials(home: Path, tmp_path: Path) -> None:
    """A spec without clearml_config, and --no-clearml, get none; nothing of what is prepared shows a value."""
    untracked = tmp_path / "spec.txt"
    untracked.write_text("training_config { num_epochs: 3 }")
    assert prepare(Common(), spec_to_track=untracked).place.environment == ()
    assert prepare(Common(no_clearml=True), spec_to_track=SPEC).place.environment == ()
    tracked = prepare(Common(), spec_to_track=SPEC)
    assert dict(tracked.place.environment)["CLEARML_API_SECRET_KEY"] == "https://api_secret_key"
    assert "https://api_secret_key" not in repr(tracked)


def test_a_plan_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither what a variable's name calls one nor the user and password of an address, as text and as JSON."""
    monkeypatch.setenv("DB_PASS", "hidden-one")
    monkeypatch.setenv("STORE", "postgres://someone:hidden-two@store/x")
    words = ["tao", "train", str(SPEC), "-r", "r", "--dry-run", "--env", "DB_PASS", "--env", "STORE"]
    words += ["--output-uri", "s3://access:hidden-three@minio:9000/models", "--skip-preflight"]
    for more in ([], ["--json"]):
        assert run([*words, *more]) == 0
        shown = capsys.readouterr().out
        assert "hidden" not in shown
        assert "postgres://***@store/x" in shown
        assert "s3://***@minio:9000/models" in shown
        assert "https://api_secret_key" not in shown
    kept = prepare(Common(env=("STORE",), output_uri="s3://access:hidden-three@minio:9000/models"), spec_to_track=SPEC)
    assert {"hidden-one", "hidden-two", "hidden-three"} <= {*kept.secrets}  # which no log keeps either


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "model.hdf5", "--spec", SPEC, "-r", "trained"),
        ("prune", "model.hdf5", "-o", "trained/pruned.hdf5"),
        ("export", "model.hdf5", "--spec", SPEC, "-o", "trained/model.onnx"),
        ("gen-trt-engine", "model.hdf5", "--spec", SPEC, "-r", "trained"),
    ],
    ids=lambda words: str(words[0]),
)
def test_the_status_of_a_training_is_never_written_over(
    words: tuple[str | Path, ...], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No subtask goes into a folder with a training's status.json; into one of another subtask it may go again."""
    trained = home / "trained"
    trained.mkdir()
    (trained / "status.json").write_bytes((SPEC.parent / "status.json").read_bytes())
    assert run(["tao", *map(str, words), "--dry-run", "--skip-preflight"]) == 2
    assert "where a training's status.json lies" in capsys.readouterr().err
    (trained / "status.json").write_text('{"status": "SUCCESS", "message": "Export finished."}\n')
    assert run(["tao", *map(str, words), "--dry-run", "--skip-preflight"]) == 0


def test_the_spec_of_a_retraining_is_written_when_nothing_is_in_the_way(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A preflight that fails leaves the one that is there: a retraining may be at work with it."""
    (home / "r").mkdir()
    made = home / "r" / "experiment_spec_retrain.txt"
    made.write_text("as it was")
    words = ["tao", "retrain", str(SPEC), "-r", "r", "--model", "model.hdf5"]
    assert run(words) == 4
    assert "TAO cannot run here" in capsys.readouterr().err
    assert made.read_text() == "as it was"
    assert run([*words, "--skip-preflight"]) == 4  # this docker does nothing
    assert "load_graph: true" in made.read_text()


def test_of_two_mounts_to_one_place_the_last_counts(home: Path) -> None:
    """Docker refuses both; what is named on the command line comes before the mounts file."""
    for name in ("one", "two"):
        (home / name).mkdir()
    (home / ".tao_mounts.json").write_text(json.dumps({"Mounts": [{"source": str(home / "one"), "destination": "/w"}]}))
    (mount,) = prepare(Common(mounts=("two:/w",)), spec_to_track=None).place.mounts.mounts
    assert mount.source == home / "two"
