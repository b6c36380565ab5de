"""When a load generator was the limit, and which of its troubles is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from loadtest_samples import plan, record, run

from tao2serve.loadtest import ClosedLoop
from tao2serve.loadtest.gates import passed
from tao2serve.loadtest.machine import MachineSample
from tao2serve.loadtest.plan import Target
from tao2serve.loadtest.records import CpuSample, RequestRecord
from tao2serve.loadtest.result import ClientLoad
from tao2serve.loadtest.saturation import client_load
from tao2serve.loadtest.summary import summarise


def client(
    records: Iterable[RequestRecord] = (),
    *,
    cpu: Iterable[CpuSample] = (),
    busy: float = 0.5,
    capped: int = 0,
    url: str = "http://127.0.0.1:8080/serve/a",
) -> ClientLoad:
    measured = list(records)
    machine = [MachineSample(at_s=100.0 + at, busy_s=2 * busy * at, total_s=2.0 * at) for at in range(11)]
    recorded = replace(run(measured), capped=capped, open_limit=30)
    tested = replace(plan(), targets=(Target(url=url),))
    return client_load(tested, recorded, measured, cpu=cpu, machine=machine)


def samples(
    *, used: float, elsewhere: float = 0.0, waited: float = 0.0, late_ms: tuple[float, ...] = (1.0,), process: int = 0
) -> list[CpuSample]:
    return [
        CpuSample(
            at_s=100.0 + at, used_s=(used + elsewhere) * at, thread_s=used * at, waited_s=waited * at, late_ms=late_ms,
            process=process,
        )
        for at in range(11)
    ]  # fmt: skip


def test_a_generator_that_is_well_is_not_accused() -> None:
    """A quarter of a core, requests 3 ms late: nothing to say."""
    found = client([record(at, 20, lag_s=0.003) for at in range(10)], cpu=samples(used=0.25, waited=0.05))
    assert (found.saturated, found.reason, found.warning) == (False, "", "")
    assert (found.cpu_ratio, found.start_lag_p99_ms, found.wake_lag_p99_ms) == (0.25, 3, 1)


def test_waiting_for_a_core_is_as_bad_as_using_one() -> None:
    """A starved process uses half a core and can use no more: the reason says that others had it."""
    found = client(cpu=samples(used=0.5, waited=0.45))
    assert found.saturated
    assert "wanted 90% of a core or more during 100% of the run time and got 50%" in found.reason


def test_threads_that_do_not_send_are_told_and_not_held_against_it() -> None:
    """gRPC's own used as much again: the process had more than a core, and what sends had time to spare."""
    found = client(cpu=samples(used=0.6, elsewhere=0.55))
    assert (found.saturated, found.cpu_ratio, found.thread_cpu_ratio) == (False, 1.15, 0.6)
    assert client(cpu=samples(used=0.95, elsewhere=0.1)).saturated


def test_the_busiest_process_counts() -> None:
    """One full process of two makes its part of the requests late."""
    found = client(cpu=[*samples(used=0.1), *samples(used=0.95, process=1)])
    assert found.saturated
    assert found.cpu_ratio == 0.95


@pytest.mark.parametrize(
    ("latency_ms", "lag_s", "saturated"),
    [
        (20, 0.019, False),
        (20, 0.022, True),
        (400, 0.07, False),
        (400, 0.09, True),
        (5000, 0.09, False),
        (5000, 0.128, True),
    ],
)
def test_late_starts_count_beyond_20_ms_or_a_fifth_of_the_latency_and_always_beyond_100_ms(
    latency_ms: float, lag_s: float, saturated: bool
) -> None:
    """What is bearable depends on what is measured."""
    found = client([record(at, latency_ms, lag_s=lag_s) for at in range(10)])
    assert found.saturated is saturated
    assert ("late" in found.reason) is saturated


def test_late_wake_ups_count_where_no_schedule_shows_them() -> None:
    """In a closed loop the answer itself is read late, and no request is."""
    found = client([record(1, 20)], cpu=samples(used=0.2, late_ms=(1.0, 1.0, 25.0)))
    assert found.saturated
    assert "woke 25 ms late" in found.reason


def test_requests_held_back_are_said() -> None:
    """A limit on what is open is never silent."""
    found = client([record(1, 20)], capped=7)
    assert found.saturated
    assert found.reason.startswith("7 requests were held back, since a process had 30 open")


@pytest.mark.parametrize(
    ("busy", "url", "warned"),
    [(0.99, "http://127.0.0.1:8080/a", True), (0.8, "http://127.0.0.1:8080/a", False), (0.99, "http://gpu:1/a", False)],
)
def test_a_full_machine_that_holds_both_is_worth_a_warning(busy: float, url: str, warned: bool) -> None:
    """It is not the generator's fault alone, so no saturation."""
    found = client([record(1, 20)], busy=busy, url=url)
    assert bool(found.warning) is warned
    assert not found.saturated
    assert found.machine_cpu_ratio == busy


def test_a_saturated_test_passes_no_gate() -> None:
    """Not even without gates: its numbers are the client's."""
    well = summarise(plan(), run([record(1, 20)]), cpu=(), environment={})
    ill = summarise(plan(), run([record(1, 20, lag_s=0.5)]), cpu=(), environment={})
    assert isinstance(well.plan.shape, ClosedLoop)
    assert passed(well, ())
    assert not passed(ill, ())
