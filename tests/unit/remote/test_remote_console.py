"""A task's console as it is read on: every line once, whoever wrote it when."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.remote import follow
from tao2serve.remote.follow import Console
from tao2serve.remote.protocol import LINE


class _Server:
    """A log that answers as ClearML does: what is later than a time, the oldest first, a page at most."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, at: int, message: str, worker: str = "w") -> None:
        self.events.append({"timestamp": at, "worker": worker, "msg": message})

    def call(self, _service: str, _action: str, **asked: Any) -> dict[str, Any]:
        later = [event for event in self.events if event["timestamp"] > asked["from_timestamp"]]
        return {"events": sorted(later, key=lambda event: event["timestamp"])[: asked["batch_size"]]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> _Server:
    """The log of one task."""
    made = _Server()
    monkeypatch.setattr(follow, "call", made.call)
    return made


def _console() -> tuple[Console, list[str], list[str]]:
    lines: list[str] = []
    agent: list[str] = []
    return Console("task", on_line=lines.append, on_agent=agent.append), lines, agent


def test_lines_of_the_command_are_told_apart_from_those_of_its_agent(server: _Server) -> None:
    """What the agent says of its access key is not passed on at all."""
    console, lines, agent = _console()
    server.add(1_000_000, "installing\nusing CLEARML_API_ACCESS_KEY=ABC\n")
    server.add(1_000_001, f"{LINE}one\n{LINE}\n{LINE}two\n")
    console.read()
    assert (lines, agent) == (["one", "", "two"], ["installing"])


def test_what_arrives_late_is_told_once(server: _Server) -> None:
    """An event with an earlier time than the last one read is not lost, and none is told twice."""
    console, lines, _ = _console()
    server.add(1_000_100, f"{LINE}two")
    console.read()
    server.add(1_000_050, f"{LINE}one")
    server.add(1_000_100, f"{LINE}three")
    console.read()
    console.read()
    assert lines == ["two", "one", "three"]


def test_more_than_a_page_is_read_to_its_end(server: _Server) -> None:
    """A noisy command loses no line, also where many have one time."""
    console, lines, _ = _console()
    for number in range(1_700):
        server.add(1_000_000 + number // 300, f"{LINE}{number}")
    console.read()
    assert lines == [str(number) for number in range(1_700)]
