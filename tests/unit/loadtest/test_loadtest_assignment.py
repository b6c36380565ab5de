"""What a generator process is told, and what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tao2serve.errors import UsageError
from tao2serve.loadtest import ClosedLoop, LoadPlan, OpenLoop, Target, Workers
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.plan import Shape
from tao2serve.loadtest.sending import Reply
from tao2serve.loadtest.tally import Tally, waited_for_core_s
from tao2serve.loadtest.worker import run_worker


def assignment(shape: Shape, *, process: int = 0, processes: int = 1, timeout_s: float = 10.0) -> Assignment:
    targets = (Target(url="http://a/serve/x", weight=3), Target(url="b:1", protocol="triton-grpc", model="m"))
    plan = LoadPlan(targets=targets, images=Path("i"), shape=shape, timeout_s=timeout_s)
    return Assignment.of(plan, process=process, processes=processes)


@pytest.mark.parametrize("shape", [ClosedLoop(users=3), OpenLoop(rate_rps=2.5, arrivals="constant")])
def test_an_assignment_travels_as_json(shape: Shape) -> None:
    """What arrives is what was sent, targets and shape included."""
    sent = assignment(shape, process=1, processes=2)
    assert Assignment.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent


def test_users_have_numbers_of_their_own() -> None:
    """No two users of two processes share a number, so neither images nor targets are drawn alike."""
    parts = [assignment(ClosedLoop(users=6), process=process, processes=3) for process in range(3)]
    assert sorted(part.user_number(local) for part in parts for local in range(2)) == list(range(6))


def test_an_open_loop_may_hold_what_a_server_that_stalls_until_the_timeout_does() -> None:
    """Twice rate times timeout, and more: it is never this limit that decides, unless files run out."""
    part = assignment(OpenLoop(rate_rps=100), processes=2, timeout_s=4)
    assert part.open_limit >= 2 * 50 * 4
    assert part.users == 2


def test_a_closed_loop_has_no_schedule() -> None:
    """Asking for one is a mistake in the program."""
    with pytest.raises(TypeError):
        assignment(ClosedLoop()).starts_s()


def test_requests_still_open_at_the_end_are_timeouts() -> None:
    """None is dropped, since they would be the slowest; what ends afterwards is not counted twice."""
    tally = Tally(keep_rows=True)
    tally.begin(warmup_s=0, run_time_s=1)
    first, second = (tally.start(user=0, image=number, target=0, intended_s=tally.begun_s) for number in range(2))
    tally.end(first, Reply(latency_ms=3, status=200))
    assert tally.open_requests == 1
    tally.finish()
    tally.end(second, Reply(latency_ms=9000, status=200))
    assert (tally.requests, tally.failures) == (2, 1)
    assert [row[6] for row in tally.rows] == ["", "timeout"]


def test_waiting_for_a_core_is_what_linux_counts(tmp_path: Path) -> None:
    """The second number of schedstat, in nanoseconds; 0 where there is no such file."""
    (tmp_path / "schedstat").write_text("58780652 113743149 463\n", encoding="ascii")
    assert waited_for_core_s(tmp_path / "schedstat") == pytest.approx(0.113743149)
    assert waited_for_core_s(tmp_path / "absent") == 0


@pytest.mark.parametrize("address", ["", "host", "host:", ":5557", "host:http", "host:70000"])
def test_a_worker_needs_an_address(address: str) -> None:
    """Anything but HOST:PORT is a usage error, before any process starts."""
    with pytest.raises(UsageError):
        run_worker(address)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1, "port": 0}, {"count": 1, "port": 70000}])
def test_workers_that_cannot_be(wrong: dict[str, int]) -> None:
    """No workers, or no port, is a usage error."""
    with pytest.raises(UsageError):
        Workers(**wrong)
