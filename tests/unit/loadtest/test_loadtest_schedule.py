"""Who sends what is due, and when, in an open loop."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

gevent = pytest.importorskip("gevent")

from tao2serve.loadtest.generator.schedule import Schedule  # noqa: E402
from tao2serve.loadtest.tally import Tally  # noqa: E402


@dataclass
class Server:
    """Answers as `answer` lets it, and notes what was sent, when, and how many were open."""

    answer: Callable[[int], object]
    sent: list[tuple[int, int, float]] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    def send(self, image: int, target: int, intended_s: float) -> None:
        self.started_s.append(time.monotonic())
        self.sent.append((image, target, intended_s))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            self.answer(len(self.sent))
        finally:
            self.open -= 1

    @property
    def lags_ms(self) -> list[float]:
        pairs = zip(self.started_s, self.sent, strict=True)
        return [(started_s - intended_s) * 1000 for started_s, (_, _, intended_s) in pairs]


def keep(server: Server, starts_s: Iterator[float], *, limit: int = 100) -> Tally:
    tally = Tally()
    Schedule(
        send=server.send,
        starts_s=starts_s,
        images=itertools.cycle(range(7)),
        targets=itertools.cycle(range(3)),
        limit=limit,
        tally=tally,
    ).keep()
    return tally


def every(seconds: float, count: int) -> Iterator[float]:
    begun_s = time.monotonic()
    return (begun_s + number * seconds for number in range(count))


def busy(seconds: float) -> None:
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass


def test_a_request_does_not_wait_for_the_answer_to_another() -> None:
    """Fifty in half a second to a server that takes 300 ms: all are sent when due, some thirty open at once."""
    server = Server(answer=lambda _: gevent.sleep(0.3))
    tally = keep(server, every(0.01, 50))
    assert len(server.sent) == 50
    assert 25 < server.most_open <= 50
    assert sorted(server.lags_ms)[25] < 20
    assert min(server.lags_ms) >= 0
    assert tally.capped == 0


def test_a_stall_is_met_by_all_that_are_due_in_it() -> None:
    """While nobody answers all requests are sent at their time, though every sender there was waits."""
    begun_s = time.monotonic()
    server = Server(answer=lambda number: gevent.sleep(max(begun_s + 0.6 - time.monotonic(), 0) if number > 3 else 0))
    keep(server, every(0.005, 100))
    assert server.most_open > 80
    assert sorted(server.lags_ms)[50] < 20


def test_images_and_targets_are_those_of_the_schedule() -> None:
    """They start in its order, whoever sends them: the n-th has the n-th picture and target; none is sent twice."""
    begun_s = time.monotonic()
    starts_s = [begun_s + number * 0.002 for number in range(200)]
    server = Server(answer=lambda number: gevent.sleep(0.001 * (number * 7 % 11)))
    keep(server, iter(starts_s))
    assert server.sent == [(number % 7, number % 3, starts_s[number]) for number in range(200)]


def test_a_process_without_time_makes_no_more_senders() -> None:
    """Each request takes the process 2 ms and is due each 1 ms: few senders do what they can, and the lag says it."""
    server = Server(answer=lambda _: (busy(0.002), gevent.sleep(1e-9)))
    tally = keep(server, every(0.001, 200))
    assert [intended_s for _, _, intended_s in server.sent] == sorted(intended_s for _, _, intended_s in server.sent)
    assert len(server.sent) == 200
    assert server.most_open < 20
    assert server.lags_ms[-1] > 150
    assert tally.capped == 0


def test_no_more_than_the_limit_are_open_and_the_rest_is_counted() -> None:
    """Five open at most; of twenty that are due at once fifteen were held back, and all are sent in the end."""
    server = Server(answer=lambda _: gevent.sleep(0.05))
    tally = keep(server, every(0.0, 20), limit=5)
    assert (server.most_open, tally.capped, len(server.sent)) == (5, 15, 20)


def test_nothing_is_left_behind() -> None:
    """Senders end with the schedule, also one whose request could not be sent at all."""

    def fail(number: int) -> None:
        gevent.sleep(0.01)
        if number == 2:
            raise LookupError("a defect")

    def greenlets() -> int:
        gevent.sleep(0.01)  # those that were told to end do it now
        gc.collect()
        # By type(): isinstance asks the object, and the SDK of ClearML, if it is here, has some that do much then.
        return sum(issubclass(type(found), gevent.Greenlet) and not found.dead for found in gc.get_objects())

    before = greenlets()
    server = Server(answer=fail)
    keep(server, every(0.002, 10))
    assert len(server.sent) == 10
    assert greenlets() == before
    keep(Server(answer=fail), iter(()))
