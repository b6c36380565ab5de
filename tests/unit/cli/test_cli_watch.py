"""The options of `watch`: its own, and those of `pipeline` that it hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tao2serve.cli.main import run
from tao2serve.pipeline import watch
from tao2serve.pipeline.known import KnownModel

OWN = ("watch", "--project", "street-detector", "--tag", "ready", "--tag", "night")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[watch.WatchRequest]:
    """What a watch is asked for; one of its pipelines fails at a gate."""
    requests: list[watch.WatchRequest] = []

    def run_watch(request: watch.WatchRequest, *_: Any, **__: Any) -> tuple[KnownModel, ...]:
        requests.append(request)
        return (
            KnownModel(model_id="a", name="good", state="done"),
            KnownModel(model_id="b", name="slow", state="failed", exit_code=8),
        )

    monkeypatch.setattr(watch, "run_watch", run_watch)
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    return requests


def test_options_of_the_pipeline_are_handed_on_as_typed(asked: list[watch.WatchRequest], tmp_path: Path) -> None:
    """Flags, values and repeated ones, and nothing of the watch's own; the exit code is that of what failed."""
    theirs = ["--endpoint", "street", "--gate-images", str(tmp_path), "--slo", "p99=1s", "--slo", "failure-ratio=0%",
              "--no-uint8-input", "--accept-parity", "--queue", "gpu"]  # fmt: skip
    assert run([*OWN, "--every", "2m", "--once", *theirs]) == 8
    (request,) = asked
    assert (request.tags, request.every_s, request.once, request.all) == (("ready", "night"), 120.0, True, False)
    words = list(request.words)
    assert sorted(words) == sorted(theirs)
    assert words[words.index("--gate-images") + 1] == str(tmp_path)


@pytest.mark.parametrize("wrong", [["--every", "10ms"], ["--canary", "200"], ["--until", "export", "--users", "0"]])
def test_what_no_pipeline_would_take_is_refused_before_the_watch(
    asked: list[watch.WatchRequest], tmp_path: Path, wrong: list[str]
) -> None:
    """Exit 2, and nothing is watched."""
    assert run([*OWN, "--endpoint", "street", "--gate-images", str(tmp_path), "--slo", "p99=1s", *wrong]) == 2
    assert not asked
