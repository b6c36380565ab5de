"""Which steps of an earlier run stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tao2serve.config import Settings
from tao2serve.errors import UsageError
from tao2serve.pipeline import reuse
from tao2serve.pipeline.request import PipelineRequest
from tao2serve.pipeline.results import StepResult
from tao2serve.pipeline.reuse import Choice, key_of, standing
from tao2serve.registry.source import Source
from tao2serve.remote.request import InputOf, RemoteCommand

CHOICE = Choice(model_id="m", name="model", reason="the best", sha256="1" * 64, spec_sha256="2" * 64)
REQUEST = PipelineRequest(endpoint="street", source=Source(text="m"), until="verify")


def _key(command: RemoteCommand, choice: Choice = CHOICE, *before: str) -> str:
    return key_of("export", command, choice, {"placement": "endpoint"}, before)


def test_a_step_is_known_by_all_that_it_is_made_from(tmp_path: Path) -> None:
    """Arguments, the content of files wherever they lie, the model's content, settings and the tasks before it."""
    file, same = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("one")
    same.write_text("one")
    command = RemoteCommand(command="export", arguments=("export", "m"), inputs=(InputOf(place="in", path=file),))
    key = _key(command)
    assert key == _key(replace(command, inputs=(InputOf(place="in", path=same),)))
    same.write_text("two")
    others = {
        _key(replace(command, arguments=("export", "m", "--precision", "fp16"))),
        _key(replace(command, inputs=(InputOf(place="in", path=same),))),
        _key(replace(command, inputs=(InputOf(place="in", path=tmp_path),))),
        _key(command, replace(CHOICE, spec_sha256="3" * 64)),
        _key(command, CHOICE, "another task"),
        key_of("export", command, CHOICE, {"placement": "ensemble"}, ()),
    }
    assert len({key, *others}) == 7


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have an earlier run completed these steps: a task of each, with the key that the step has now."""

    def command(step: str, *_: object) -> RemoteCommand:
        return RemoteCommand(command=step, arguments=(step,))

    def completed(*steps: str, failed: str = "") -> None:
        ids: list[str] = []
        keys: dict[str, list[str]] = {}
        for step in steps:
            keys[key_of(step, command(step), CHOICE, {}, ids)] = [f"task-{step}"]
            ids.append(f"task-{step}")
        monkeypatch.setattr(reuse, "_completed", lambda _project: keys)
        monkeypatch.setattr(reuse, "command_of", command)
        monkeypatch.setattr(
            reuse,
            "read_result",
            lambda step, task_id: StepResult(step=step, task_id=task_id, worker="", exit_code=int(step == failed)),
        )

    return completed


def _standing(request: PipelineRequest) -> list[str]:
    return list(standing(request, CHOICE, Settings(), project="p", on_news=lambda _: None))


def test_steps_stand_up_to_the_first_that_does_not(earlier: Callable[..., None]) -> None:
    """What comes after it runs, whatever was done of it before."""
    earlier("choose", "export", "build")
    assert _standing(REQUEST) == ["choose", "export", "build"]
    earlier("choose", "export", "build", failed="export")
    assert _standing(REQUEST) == ["choose"]
    earlier()
    assert _standing(REQUEST) == []


def test_from_a_step_on_all_runs_anew(earlier: Callable[..., None]) -> None:
    """Though it stands; refused, naming the step, if one before it does not."""
    earlier("choose", "export", "build")
    assert _standing(replace(REQUEST, from_step="build")) == ["choose", "export"]
    assert _standing(replace(REQUEST, from_step="verify")) == ["choose", "export", "build"]
    earlier("choose")
    with pytest.raises(UsageError, match="step export has not been done"):
        _standing(replace(REQUEST, from_step="verify"))
