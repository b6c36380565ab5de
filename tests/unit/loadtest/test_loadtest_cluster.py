"""Whom a master takes, what it believes, and when users start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tao2serve
from tao2serve.loadtest import ClosedLoop, OpenLoop, Target
from tao2serve.loadtest.assignment import GRPC_OPEN_LIMIT, Assignment
from tao2serve.loadtest.cluster import Gathering
from tao2serve.loadtest.plan import Protocol, Shape
from tao2serve.loadtest.records import Row

GOOD: Row = [0, 0, 0.0, 0.001, 20.0, 200, "", "", {"infer": 5.0}, 0]


@dataclass(slots=True)
class Client:
    state: str = "ready"
    user_count: int = 0


@dataclass
class Master:
    """What Gathering asks of locust's master; `start` gives each client that it knows a user."""

    clients: dict[str, Client] = field(default_factory=dict)
    listeners: dict[str, Callable[..., None]] = field(default_factory=dict)
    sent: list[tuple[str, Any, str]] = field(default_factory=list)

    def register_message(self, name: str, listener: Callable[..., None]) -> None:
        self.listeners[name] = listener

    def send_message(self, name: str, data: Any = None, client: str = "") -> None:
        self.sent.append((name, data, client))

    def start(self, users: int, rate: float) -> None:
        for client in self.clients.values():
            client.user_count, client.state = 1, "running"

    def say(self, name: str, client: str, **data: Any) -> None:
        self.listeners[f"tao2serve_{name}"](msg=type("Message", (), {"node_id": client, "data": data}))


@dataclass
class Event:
    listeners: list[Callable[..., None]] = field(default_factory=list)

    def add_listener(self, listener: Callable[..., None]) -> None:
        self.listeners.append(listener)


def assignment(protocol: Protocol = "endpoint", shape: Shape | None = None) -> Assignment:
    target = (
        Target(url="http://h/serve/a") if protocol == "endpoint" else Target(url="h:1", protocol=protocol, model="m")
    )
    return Assignment(
        targets=(target,), shape=shape or OpenLoop(rate_rps=20), order="cycle", seed=1, warmup_s=0, run_time_s=0.1,
        timeout_s=0.1, processes=2,
    )  # fmt: skip


@pytest.fixture
def gathering(tmp_path: Path) -> tuple[Gathering, Master, Event]:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"picture")
    master, event = Master(), Event()
    gathered = Gathering(runner=master, assignment=assignment(), images=(image,), count=2)
    gathered.listen(event)
    return gathered, master, event


def report(rows: list[Row], total: int | None = None, samples: list[list[Any]] | None = None) -> dict[str, Any]:
    part = {"requests": 1, "failures": 0, "capped": 0, "open_limit": 9, "total": total, "rows": rows}
    return {"tao2serve": {**part, "samples": samples or []}}


def join(master: Master, *names: str, version: str = tao2serve.__version__) -> None:
    for name in names:
        master.clients[name] = Client()
        master.say("join", name, version=version)


def test_surplus_workers_and_other_versions_are_turned_away(gathering: tuple[Gathering, Master, Event]) -> None:
    """The test begins with the right ones; users start in these alone, also where one connected and never joined."""
    gathered, master, event = gathering
    join(master, "old_1", version="0.0.1")
    master.start(2, 2)  # as locust does when the first one connects
    assert not any(client.user_count for client in master.clients.values())
    join(master, "a_1", "b_1", "c_1")
    master.clients["silent_1"] = Client()
    for name in ("a_1", "b_1"):
        master.say("ready", name)
        event.listeners[0](name, report([GOOD], total=1))
    assert gathered.run(wait_s=1, on_window=lambda: None) == ""
    assert {name: client.user_count for name, client in master.clients.items()} == {"a_1": 1, "b_1": 1}
    refused = {client: data["refused"] for _, data, client in master.sent if data and "refused" in data}
    assert refused == {
        "old_1": f"the master runs tao2serve {tao2serve.__version__}, this worker 0.0.1",
        "c_1": "the test has its 2 workers",
    }
    assert len(gathered.rows) == 2


def test_who_waits_in_vain_hears_of_the_refused(gathering: tuple[Gathering, Master, Event]) -> None:
    """How many were ready, and why another one is not among them; nobody is said to be lost."""
    gathered, master, _ = gathering
    join(master, "old_1", version="0.0.1")
    join(master, "a_1")
    failure = gathered.run(wait_s=0.1, on_window=lambda: None)
    assert failure.startswith("gave up waiting for workers: 0 of 2 workers were ready after 0 s; 1 refused: the master")


def test_a_lost_worker_is_named_and_nothing_else(gathering: tuple[Gathering, Master, Event]) -> None:
    """It is no matter of waiting."""
    gathered, master, _ = gathering
    join(master, "vm_1")
    master.clients["vm_1"].state = "missing"
    assert gathered.run(wait_s=5, on_window=lambda: None) == "worker 0 (vm) was lost during the test"


def changed(index: int, value: object) -> Row:
    return [*GOOD[:index], value, *GOOD[index + 1 :]]


@pytest.mark.parametrize(
    "row",
    [
        changed(3, "now"),
        changed(3, -1e9),
        changed(3, math.nan),
        changed(2, math.inf),
        changed(4, -1.0),
        changed(4, 1e308),
        changed(1, 7),
        changed(9, 1),
        changed(9, -1),
        changed(0, True),
        changed(6, None),
        changed(8, {"infer": math.inf}),
        changed(8, {f"stage{number}": 1.0 for number in range(21)}),
        changed(8, {"x" * 100: 1.0}),
        GOOD[:5],
        None,
    ],
)
def test_a_bad_record_ends_the_test(gathering: tuple[Gathering, Master, Event], row: Any) -> None:
    """Numbers that cannot be, or indexes of nothing: the failure names the worker that sent them."""
    gathered, master, event = gathering
    join(master, "vm_1")
    event.listeners[0]("vm_1", report([GOOD, row]))
    said = gathered.run(wait_s=5, on_window=lambda: None)
    assert said.startswith("worker 0 (vm) sent a record that cannot be: ")


def test_a_good_one_does_not_and_samples_are_looked_at_too(gathering: tuple[Gathering, Master, Event]) -> None:
    """A row as tallies write it passes; a sample of no time does not."""
    gathered, master, event = gathering
    join(master, "vm_1")
    event.listeners[0]("vm_1", report([GOOD], samples=[[0.5, 0.1, 0.1, 0.0, [1.0], 0]]))
    assert (len(gathered.rows), len(gathered.samples)) == (1, 1)
    assert gathered.open_limit == 9
    event.listeners[0]("vm_1", report([], samples=[["soon", 0.1, 0.1, 0.0, [1.0], 0]]))
    assert "at_s is 'soon'" in gathered.run(wait_s=5, on_window=lambda: None)


@pytest.mark.parametrize("shape", [OpenLoop(rate_rps=600), ClosedLoop(users=3000)])
def test_what_grpc_can_hold_open_is_the_limit(shape: Shape) -> None:
    """In open and closed loops; HTTP has as many as the schedule or the users need."""
    assert assignment("triton-grpc", OpenLoop(rate_rps=2)).open_limit < GRPC_OPEN_LIMIT
    shape = shape if isinstance(shape, ClosedLoop) else OpenLoop(rate_rps=6000)
    assert assignment("triton-grpc", shape).open_limit == GRPC_OPEN_LIMIT
    assert assignment("triton-http", shape).open_limit > 1024
