"""What commands carry to a queue is read off their own signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tao2serve.cli import deploy, export, loadtest, verify
from tao2serve.cli.elsewhere import OWN, _carried, sent_settings, with_queue
from tao2serve.cli.main import run
from tao2serve.config import load_settings
from tao2serve.errors import ServiceError, UsageError
from tao2serve.remote.submit import Submission
from tao2serve.sandbox.samples import SAMPLE

RESULTS = SAMPLE / "pruned"
WEIGHTS = RESULTS / "weights" / "resnet10_street_pruned.hdf5"
FUNCTIONS = (export.export, verify.verify, deploy.deploy, loadtest.loadtest)
EXPECTED = {
    "export": {
        "model": {"source"},
        "input": {"spec", "clustering", "calibration_images", "calibration_cache", "images", "labels"},
        "output": {"output"},
        "kept": {"timing_cache"},
        "there": {"trtexec"},
    },
    "verify": {
        "model": {"reference", "candidate"},
        "input": {"images", "labels", "spec", "clustering"},
        "output": {"output"},
    },
    "deploy": {
        "model": {"source"},
        "input": {
            *("spec", "clustering", "tuned", "calibration_images", "calibration_cache", "weights", "image"),
            "gate_images",
        },
    },
    "loadtest": {"input": {"images", "compare"}, "output": {"output"}},
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_path_of_a_command_is_carried_as_it_is_meant(function: Callable[..., Any]) -> None:
    """Files go there, folders that are filled come back; nothing that is a path is forgotten."""
    found: dict[str, set[str]] = {}
    for name, carried in _carried(function).items():
        found.setdefault(carried.kind, set()).add(name)
    found.pop("value")
    assert found == EXPECTED[function.__name__]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_command_has_its_own_options_and_those_of_the_queue(function: Callable[..., Any]) -> None:
    """In their order, before --json; and it can still be called as without them."""
    parameters = list(inspect.signature(with_queue(function)).parameters)
    assert parameters == [*list(inspect.signature(function).parameters)[:-1], *OWN, "json_output"]


def test_options_of_a_queue_without_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """They would do nothing."""
    assert run(["export", "x.onnx", "--queue-wait", "5m"]) == 2
    assert "--queue NAME" in capsys.readouterr().err


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Submission]:
    """What commands would send to a queue; the command ends there, for nobody serves it."""
    sent: list[Submission] = []

    def run_on_queue(submission: Submission, **_: Any) -> None:
        sent.append(submission)
        raise ServiceError("queue q", "is served by no worker")

    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tao2serve.remote.run.run_on_queue", run_on_queue)
    return sent


@pytest.mark.parametrize(
    ("name", "option", "image"),
    [
        ("model.tlt", (), "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5"),
        ("MODEL.ETLT", (), "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5"),
        ("model.hdf5", (), "nvcr.io/nvidia/tritonserver:"),
        ("model.tlt", ("--queue-image", "mine:1"), "mine:1"),
    ],
)
def test_the_image_is_that_which_opens_the_model(
    submitted: list[Submission], tmp_path: Path, name: str, option: tuple[str, ...], image: str
) -> None:
    """TAO's for encrypted files, Triton's for all others, the user's own before both."""
    (tmp_path / name).write_bytes(b"weights")
    for command in ("export", "deploy"):
        end = ("--endpoint", "e", "--image", str(WEIGHTS)) if command == "deploy" else ("-o", str(tmp_path / "o"))
        assert run([command, str(tmp_path / name), *end, "--queue", "q", *option]) == 5
    assert [one.image[: len(image)] for one in submitted] == [image, image]


def _old_clustering(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "experiment_spec_clustering.txt"
    path.write_text("of another export")
    return path


def test_an_old_clustering_file_is_refused_before_anything_is_sent(
    submitted: list[Submission], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the export here refuses it, exit 2, in the same words: the exported spec would mean something else."""
    beside = _old_clustering(tmp_path / "o")
    words = ["export", str(WEIGHTS), "-o", str(tmp_path / "o")]
    assert run([*words, "--queue", "q"]) == 2
    assert not submitted
    there = capsys.readouterr().err
    assert f"{beside} is there already, and would change the clustering" in there
    assert run(words) == 2
    said = "is there already, and would change the clustering"
    assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "o").iterdir()] == [beside.name]


def test_what_the_export_here_takes_is_sent(submitted: list[Submission], tmp_path: Path) -> None:
    """--force, a clustering file of its own, or no spec at all: then the old file is no obstacle."""
    _old_clustering(tmp_path / "o")
    alone = tmp_path / "alone" / "weights" / "model.hdf5"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(b"weights")
    own = tmp_path / "own" / "experiment_spec.txt"
    own.parent.mkdir()
    own.write_text("spec")
    (own.parent / "experiment_spec_clustering.txt").write_text("clustering")
    end = ["-o", str(tmp_path / "o"), "--queue", "q"]
    for words in (
        [str(WEIGHTS), "--force"],
        [str(WEIGHTS), "--clustering", str(own.parent / "experiment_spec_clustering.txt")],
        [str(WEIGHTS), "--spec", str(own)],
        [str(alone)],
    ):
        assert run(["export", *words, *end]) == 5
    assert len(submitted) == 4
    assert run(["export", str(alone), "--spec", str(RESULTS / "experiment_spec.txt"), *end]) == 2


def test_a_setting_that_may_hold_a_key_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be read in ClearML by whoever reads the task; one without is sent."""
    monkeypatch.setenv("TAO2SERVE_SERVING_BASE_URL", "https://gpu.example/serve")
    assert sent_settings(load_settings())["serving_base_url"] == "https://gpu.example/serve"
    monkeypatch.setenv("TAO2SERVE_SERVING_BASE_URL", "https://user:hunter2@gpu.example/serve")
    with pytest.raises(UsageError, match="may hold a key") as caught:
        sent_settings(load_settings())
    assert "hunter2" not in f"{caught.value} {caught.value.evidence} {caught.value.hint}"
