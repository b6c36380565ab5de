"""Which requests count, where the generator sent some of them late."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from loadtest_samples import plan, record, run

from tao2serve.loadtest import LoadResult, OpenLoop, parse_gate, passed
from tao2serve.loadtest.earlier import measured_of, read_earlier
from tao2serve.loadtest.gates import document, evaluate
from tao2serve.loadtest.summary import summarise
from tao2serve.loadtest.tables import requests_csv
from tao2serve.loadtest.window import is_measured, phase_of

OPEN = replace(plan(run_time_s=20), shape=OpenLoop(rate_rps=100, arrivals="constant"))


def still_from(still_s: float, until_s: float) -> LoadResult:
    """100 requests/s, 20 ms each, by a generator that stood still meanwhile and then sent all that was due."""
    records = []
    for number in range(-100, 2000):
        due_s = number / 100
        start_s = until_s if still_s <= due_s < until_s else due_s
        records.append(record(start_s, 20, lag_s=start_s - due_s))
    return summarise(OPEN, run(records, 20), cpu=(), environment={})


def test_a_generator_that_stands_still_at_the_end_hides_nothing() -> None:
    """What was due in the last 0.38 s and was sent after the end is in the count, the percentiles and the lag."""
    found = still_from(19.62, 20.02)
    assert found.requests == 2000
    assert found.latency_ms is not None
    assert found.latency_ms.max == pytest.approx(420)
    assert found.client.saturated
    assert not passed(found, evaluate(found, [parse_gate("max=50ms")]))
    assert not passed(found, evaluate(found, [parse_gate("p99=50ms")]))


def test_lag_of_the_warm_up_stays_there() -> None:
    """What was due before the run time and was sent in it is no request of the run time."""
    found = still_from(-0.5, 0.001)
    assert (found.requests, found.warmup.requests) == (2000, 100)
    assert found.latency_ms is not None
    assert found.latency_ms.max == pytest.approx(21)
    assert not found.client.saturated


def test_every_place_counts_the_same(tmp_path: Path) -> None:
    """The certainty of a gate, the table of requests, and what a later run is compared with."""
    found = still_from(19.62, 20.02)
    gate = parse_gate("p99=50ms")
    (verdict,) = evaluate(found, [gate])
    assert verdict.late is not None
    assert sum(verdict.late) == sum(each.response_ms > 50 for each in found.records)
    rows = list(csv.DictReader(io.StringIO(requests_csv([found]))))
    assert sum(row["phase"] == "run" for row in rows) == 2000
    assert len(measured_of(found).latencies_ms or ()) == 2000
    (tmp_path / "result.json").write_text(json.dumps(document(found, [verdict])), encoding="utf-8")
    (tmp_path / "requests.csv").write_text(requests_csv([found]), encoding="utf-8")
    _, earlier = read_earlier(tmp_path / "result.json")
    assert len(earlier.latencies_ms or ()) == 2000, earlier.why_not


def test_a_closed_loop_goes_by_the_real_start() -> None:
    """Its requests have no schedule; there a user is free in one phase and sends in the next."""
    late = record(0.1, 20, lag_s=0.2)
    assert phase_of(plan(), late) == "run"
    assert phase_of(OPEN, late) == "warmup"
    assert not is_measured(OPEN, record(20.5, 20, lag_s=0.5))
