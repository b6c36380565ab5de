"""What is watched, from when to when, and what is said where nothing can be known."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from loadtest_samples import counters, plan, record, run

from tao2serve.errors import ServiceError
from tao2serve.loadtest import LoadPlan, Target
from tao2serve.loadtest.records import RequestRecord
from tao2serve.loadtest.sampling import Sample, Sampled, inside
from tao2serve.loadtest.servers import ServerWatch, watched_servers
from tao2serve.loadtest.triton_counts import Counters, Version


def counted(*readings: tuple[float, int]) -> Sampled[dict[Version, Counters]]:
    """As if Triton had been read at these moments, and had counted so many requests by then."""
    sampled: Sampled[dict[Version, Counters]] = Sampled(dict, every_s=1)
    sampled.samples += [Sample(at_s=at_s, value={("people_4", "1"): counters(count)}) for at_s, count in readings]
    return sampled


def requests(count: int) -> list[RequestRecord]:
    return [record(index * 10 / count, 20) for index in range(count)]


def test_the_span_lies_inside_the_run_time() -> None:
    """From the first to the last reading inside; the warm-up before and the end after are in no figure."""
    watch = ServerWatch(plan=plan(), triton=counted((99.5, 50), (100.25, 60), (105, 80), (109.75, 100), (110.25, 900)))
    side = watch.during(run(requests(42)))
    assert (side.begin_s, side.span_s) == (0.25, 9.5)
    assert [(model.name, model.requests) for model in side.models] == [("people_4", 40)]
    assert side.notes == ()
    assert side.to_dict()["span_s"] == 9.5


def test_other_peoples_requests_are_said() -> None:
    """Triton answered more than this load test had open: its means are not ours alone."""
    watch = ServerWatch(plan=plan(), triton=counted((100.25, 60), (109.75, 100)))
    (note,) = watch.during(run(requests(20))).notes
    assert note == "Triton answered 40 requests while this load test had 19 open: others ask it too"


@pytest.mark.parametrize("readings", [(), ((105, 3),), ((99, 3), (111, 5))])
def test_too_few_readings_tell_nothing(readings: tuple[tuple[float, int], ...]) -> None:
    """No figure of a span that is not inside the run time, and a note."""
    side = ServerWatch(plan=plan(), triton=counted(*readings)).during(run(requests(5)))
    assert (side.span_s, side.models) == (0, ())
    assert side.notes == ("Triton's statistics: the run time is too short for two readings",)


def test_a_model_that_was_not_asked() -> None:
    """Said, rather than zeros shown."""
    watch = ServerWatch(plan=replace(plan(), triton_model="people_4"), triton=counted((101, 7), (109, 7)))
    side = watch.during(run(requests(5)))
    assert side.models == ()
    assert side.notes == ("Triton counted no request of people_4",)


def test_readings_go_on_where_one_fails() -> None:
    """In a thread of its own, until the block ends; a failed one is missing, and what was wrong is kept."""
    answers = iter([1, None, 3])

    def read() -> int:
        value = next(answers, 4)
        if value is None:
            raise ServiceError("page", "is away", evidence="for now")
        return value

    with Sampled(read, every_s=0.01) as sampled:
        while len(sampled.samples) < 4:
            time.sleep(0.01)
    assert [sample.value for sample in sampled.samples[:4]] == [1, 3, 4, 4]
    assert sampled.problem == "is away (for now)"
    times = [sample.at_s for sample in sampled.samples]
    assert times == sorted(times)
    assert len(inside(sampled.samples, times[1], times[2])) == 2
    assert inside(sampled.samples, times[1], times[1]) == []


def test_a_defect_in_a_reading_is_said() -> None:
    """Any error is a note, not a thread that ends in silence; the next readings are taken."""
    answers = iter([1, None])

    def read() -> int:
        value = next(answers, 4)
        if value is None:
            raise KeyError("gone")
        return value

    with Sampled(read, every_s=0.01) as sampled:
        deadline = time.monotonic() + 5
        while len(sampled.samples) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [sample.value for sample in sampled.samples[:3]] == [1, 4, 4]
    assert sampled.problem == "cannot be read (KeyError: 'gone')"


def test_of_other_machines_nothing_is_told() -> None:
    """An endpoint elsewhere and no Triton's address: no figures, and both reasons."""
    elsewhere = LoadPlan(targets=(Target(url="http://192.0.2.7:8080/serve/people"),), images=plan().images)
    with watched_servers(elsewhere) as watch:
        pass
    side = watch.during(run([]))
    assert (side.span_s, side.models, side.gpus, side.processes, side.machine) == (0, (), (), (), None)
    assert side.notes == (
        "Triton's address is not known: nothing is told of its queue and models",
        "endpoint at 192.0.2.7:8080 is not on this machine's loopback: nothing is told of it",
    )


def test_a_triton_that_does_not_answer_is_a_note() -> None:
    """The load test goes on; the reason is gRPC's own."""
    there = replace(plan(), triton="127.0.0.1:1", triton_model="people_4")
    with watched_servers(there) as watch:
        assert watch.triton is not None
        deadline = time.monotonic() + 10
        while not watch.triton.problem and time.monotonic() < deadline:
            time.sleep(0.01)
    notes = watch.during(run([])).notes
    assert any(note.startswith("Triton's statistics: does not tell its statistics (") for note in notes)
