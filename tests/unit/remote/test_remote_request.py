"""A command's words for another machine, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.errors import InputError, UsageError
from tao2serve.remote.carried import INPUT, KEPT, MODEL, NEVER_OVER, THERE, VALUE
from tao2serve.remote.request import Given, as_here, described


def _results(tmp_path: Path) -> Path:
    """A results folder as TAO leaves it."""
    weights = tmp_path / "results" / "weights" / "model.hdf5"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    (tmp_path / "results" / "experiment_spec.txt").write_text("spec")
    (tmp_path / "results" / "experiment_spec_clustering.txt").write_text("clustering")
    return weights


def test_a_model_takes_along_what_belongs_to_it(tmp_path: Path) -> None:
    """The spec one folder up, and the clustering file beside it, lie there as they lie here."""
    weights = _results(tmp_path)
    command = described("export", [Given(option="", values=(str(weights),), carried=MODEL)])
    place = command.arguments[-1]
    assert command.arguments[:2] == ("export", "--")
    assert [one.place for one in command.inputs] == [
        place,
        str(Path(place).parent.parent / "experiment_spec.txt"),
        str(Path(place).parent.parent / "experiment_spec_clustering.txt"),
    ]


def test_an_id_and_a_path_of_the_other_machine_stay_as_they_are() -> None:
    """What is no file here is a name there; a tool's path is the other machine's."""
    given = [
        Given(option="", values=("0123abc",), carried=MODEL),
        Given(option="--trtexec", values=("/usr/bin/trtexec",), carried=THERE),
        Given(option="--json", values=(), carried=VALUE),
        Given(option="--tag", values=("a", "b"), carried=VALUE),
    ]
    command = described("export", given)
    expected = ("export", "--trtexec", "/usr/bin/trtexec", "--json", "--tag", "a", "--tag", "b", "--", "0123abc")
    assert command.arguments == expected
    assert not command.inputs


def test_a_file_that_is_kept_goes_there_if_it_is_here_and_comes_back(tmp_path: Path) -> None:
    """A timing cache that is not there yet is only an output."""
    cache = tmp_path / "timings"
    first = described("export", [Given(option="--timing-cache", values=(str(cache),), carried=KEPT)])
    assert (first.inputs, first.outputs[0].path, first.outputs[0].is_file) == ((), str(cache), True)
    cache.write_bytes(b"timings")
    again = described("export", [Given(option="--timing-cache", values=(str(cache),), carried=KEPT)])
    assert again.inputs[0].place == again.outputs[0].place == again.arguments[-1]


def test_what_is_not_there_or_may_hold_a_key_is_refused(tmp_path: Path) -> None:
    """A missing input is bad input; a URL with a password or a query would be shown by ClearML."""
    with pytest.raises(InputError, match="does not exist"):
        described("export", [Given(option="--spec", values=(str(tmp_path / "none"),), carried=INPUT)])
    for url in ("http://me:secret@host/x", "https://host/serve/street?token=1"):
        with pytest.raises(UsageError, match="may hold a key"):
            described("verify", [Given(option="", values=(url,), carried=MODEL)])


def test_paths_are_told_as_the_user_gave_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths stay relative, absolute ones of the worker become absolute ones of here."""
    monkeypatch.chdir(tmp_path)
    for typed, shown in (("onnx", "onnx/model.onnx"), (".", "model.onnx"), ("/data/x", "/data/x/model.onnx")):
        command = described("export", [Given(option="-o", values=(typed,), carried=NEVER_OVER)])
        place = command.outputs[0].place
        said = {"a": [f"{place}/model.onnx"], "b": 1, "c": f"at /tmp/x/tao2serve-remote-1a_b/{place}/r.html now"}
        expected = str(Path(typed).absolute() / "r.html")
        assert as_here(said, command.paths) == {"a": [shown], "b": 1, "c": f"at {expected} now"}
