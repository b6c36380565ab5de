"""`tao2serve spec`: exit codes, documents, and that nothing is written unless asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tao2serve.cli.main import run
from tao2serve.sandbox.samples import SAMPLE


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.txt"
    path.write_bytes((SAMPLE / "unpruned" / "experiment_spec.txt").read_bytes())
    path.chmod(0o640)
    return path


def test_check_tells_and_exits_by_errors(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No error is exit 0, one is exit 3; text and document say the same."""
    assert run(["spec", "check", str(spec)]) == 0
    assert "0 errors" in capsys.readouterr().out
    spec.write_text(spec.read_text().replace("output_image_height: 224", "output_image_height: 230"))
    assert run(["spec", "check", str(spec)]) == 3
    text = capsys.readouterr().out
    assert f"{spec}:" in text
    assert "why:" in text
    assert "try:" in text
    assert run(["spec", "check", str(spec), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["outcome"] == "wrong"
    assert document["counts"]["error"] == len([one for one in document["findings"] if one["severity"] == "error"]) > 0
    assert set(document["findings"][0]) == {
        *("severity", "stage", "field", "line"),
        *("problem", "why", "remedy", "ends_training"),
    }


def test_patch_shows_and_writes_only_when_told(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -o and --in-place the diff is shown and the file stays; in place its mode stays too; twice is once."""
    before = spec.read_bytes()
    words = ["spec", "patch", str(spec), "--project", "other project", "--task", "unpruned", "--tag", "resnet10"]
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert '+      project: "other project"' in shown
    assert '-      tags: "unpruned"' in shown
    assert "nothing is written" in shown
    assert spec.read_bytes() == before
    assert run([*words, "-o", str(tmp_path / "new.txt"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == str(tmp_path / "new.txt")
    assert spec.read_bytes() == before
    link = tmp_path / "link.txt"
    link.symlink_to(spec)
    assert run(["spec", "patch", str(link), *words[3:], "--in-place"]) == 0
    assert link.is_symlink()
    assert spec.read_bytes() == (tmp_path / "new.txt").read_bytes()
    assert spec.stat().st_mode & 0o777 == 0o640
    capsys.readouterr()
    assert run([*words, "--in-place"]) == 0
    assert "has this tracking already" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--project", "ab", "--task", "x"), 2, "shorter than 3 characters"),
        (("--project", "good", "--task", "x", "--tag", ""), 2, "--tag is ''"),
        (("--project", "good", "--task", "x", "--in-place", "-o", "y"), 2, "both given"),
        (("--project", "good", "--task", "x", "--debug-image-every", "999"), 3, "every 999"),
    ],
)
def test_patch_refuses(
    spec: Path, words: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names ClearML does not take are wrong usage; images after the last epoch would end TAO."""
    assert run(["spec", "patch", str(spec), *words]) == code
    assert said in capsys.readouterr().err


def test_an_inference_spec_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is trained is tracked."""
    path = tmp_path / "inference.txt"
    path.write_text('inferencer_config { target_classes: "car" image_width: 96 image_height: 96 image_channels: 3 }')
    assert run(["spec", "patch", str(path), "--project", "good", "--task", "x"]) == 3
    assert "an inference spec, and no training run" in capsys.readouterr().err
