"""SLO gates: reading and judging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loadtest_samples import record, result

from tao2serve.errors import UsageError
from tao2serve.loadtest import Gate, document, evaluate, parse_gate, passed
from tao2serve.loadtest.gates import FAILURE_LIMIT, reasons
from tao2serve.loadtest.summary import CpuSample


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("p99=50ms", "p99", 50),
        (" P50 = 12.5 MS ", "p50", 12.5),
        ("p90=1s", "p90", 1000),
        ("p95=5ms", "p95", 5),
        ("max=0.25s", "max", 250),
        ("failure-ratio=0.01", "failure-ratio", 0.01),
        ("failure-ratio=1%", "failure-ratio", 0.01),
        ("failure-ratio=0", "failure-ratio", 0),
        ("throughput=100rps", "throughput", 100),
        ("throughput=1e3/s", "throughput", 1000),
    ],
)
def test_gates_are_read(text: str, metric: str, limit: float) -> None:
    """Every metric, in its units; what is read reads back as the same gate."""
    gate = parse_gate(text)
    assert gate == Gate(metric=metric, limit=pytest.approx(limit))
    assert parse_gate(gate.text) == gate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99",
        "p99=",
        "p99=fast",
        "p99=50",
        "p99=-5ms",
        "p99=50rps",
        "p42=50ms",
        "p99=1.2.3ms",
        "p99=nanms",
        "p99=1e999ms",
        "p99<50ms",
        "p99=0ms",
        "latency=50ms",
        "failure-ratio=50ms",
        "failure-ratio=1.5",
        "throughput=100",
    ],
)
def test_nonsense_is_a_usage_error(text: str) -> None:
    """Anything else is exit 2 with the accepted forms as hint."""
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert "p50|p90|p95|p99|max=50ms" in caught.value.hint


RECORDS = [*(record(second, 10.0 * (second + 1)) for second in range(8)), record(9, 1, error="timeout")]


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("p50=40ms", True),
        ("p50=39.9ms", False),
        ("max=80ms", True),
        ("max=79ms", False),
        ("failure-ratio=0.12", True),
        ("failure-ratio=11%", False),
        ("throughput=0.8rps", True),
        ("throughput=0.81rps", False),
    ],
)
def test_a_limit_that_is_met_exactly_is_reached(text: str, reached: bool) -> None:
    """Latency and failure ratio at most, throughput at least, the limit included."""
    found = result(RECORDS)
    verdicts = evaluate(found, [parse_gate(text)])
    assert [verdict.passed for verdict in verdicts] == [reached]
    # One of the nine requests failed, which only a gate of its own makes bearable.
    assert passed(found, verdicts) is (reached and text.startswith("failure-ratio"))


def test_many_failures_never_pass_unasked() -> None:
    """Latencies of the requests that succeeded say nothing for a server that is mostly down."""
    found = result(RECORDS)
    assert found.failure_ratio > FAILURE_LIMIT
    assert not passed(found, ())
    assert not passed(found, evaluate(found, [parse_gate("p99=10s")]))
    assert passed(found, evaluate(found, [parse_gate("p99=10s"), parse_gate("failure-ratio=50%")]))


def test_one_missed_gate_is_enough() -> None:
    """The test passes only if every gate is reached."""
    found = result(RECORDS)
    verdicts = evaluate(found, [parse_gate("p50=1s"), parse_gate("p99=1ms")])
    assert [verdict.passed for verdict in verdicts] == [True, False]
    assert not passed(found, verdicts)


@pytest.mark.parametrize("text", ["p99=50ms", "failure-ratio=100%", "throughput=0rps"])
def test_zero_requests_are_never_a_pass(text: str) -> None:
    """Where nothing was measured, no gate is reached, not even one that allows everything."""
    found = result([])
    verdicts = evaluate(found, [parse_gate(text)])
    assert not verdicts[0].passed
    assert not passed(found, verdicts)
    assert not passed(found, ())


def test_only_failures_are_never_a_pass() -> None:
    """Without one successful request a test does not pass, with or without gates."""
    found = result([record(1, 5, error="HTTP 500")])
    assert not passed(found, evaluate(found, [parse_gate("failure-ratio=100%")]))
    assert not passed(found, ())


def test_the_document_has_the_members_others_rely_on() -> None:
    """The JSON of `tao2serve loadtest`, as the contract names it, and it is JSON."""
    found = result(RECORDS)
    told = json.loads(json.dumps(document(found, evaluate(found, [parse_gate("p99=50ms")]), report=Path("r"))))
    assert {
        "requests",
        "failures",
        "throughput_rps",
        "latency_ms",
        "client",
        "slo",
        "passed",
        "report",
    } <= set(told)
    assert {"p50", "p90", "p95", "p99", "max"} <= set(told["latency_ms"])
    assert told["client"]["saturated"] is False
    assert told["slo"] == [
        {
            "gate": "p99=50ms",
            "metric": "p99",
            "limit": 50.0,
            "unit": "ms",
            "observed": 80.0,
            "passed": False,
            "missed_by": {"absolute": 30.0, "percent": 60.0, "text": "30 ms (60 %)"},
            "reason": "missed by 30 ms (60 %)",
            "beyond": 3,
            "bursts": 1,
            "confidence": 0.0003,
        }
    ]
    assert told["reasons"][0] == "p99=50ms was missed by 30 ms (60 %)"
    assert (told["requests"], told["failures"], told["passed"], told["report"]) == (9, 1, False, "r")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p50=32ms", "8 ms (25 %)"),
        ("max=20ms", "60 ms (300 %)"),
        ("p90=79ms", "1 ms (1.27 %)"),
        ("throughput=1rps", "0.2 rps (20 %)"),
        ("failure-ratio=0", "11.1 percentage points"),
        ("failure-ratio=10%", "1.11 percentage points (11.1 %)"),
    ],
)
def test_a_miss_says_by_how_much(text: str, words: str) -> None:
    """In the gate's own unit and in percent of the limit; of a limit of 0 there is no percentage."""
    verdict = evaluate(result(RECORDS), [parse_gate(text)])[0]
    assert verdict.missed_by is not None
    assert verdict.missed_by.text == words
    assert verdict.missed_by.absolute > 0


def test_what_is_reached_is_missed_by_nothing() -> None:
    """Neither a miss nor a reason."""
    verdict = evaluate(result(RECORDS), [parse_gate("p90=80ms")])[0]
    assert (verdict.passed, verdict.missed_by, verdict.reason) == (True, None, "")


def test_a_saturated_load_generator_passes_no_gate() -> None:
    """Its numbers are its own, also good ones; the reason is said at the gate and for the whole test."""
    busy = [CpuSample(at_s=100.0 + second, used_s=0.99 * second, thread_s=0.99 * second) for second in range(10)]
    found = result([record(second, 10) for second in range(9)], cpu=busy)
    assert found.client.saturated
    verdicts = evaluate(found, [parse_gate("p99=1s"), parse_gate("failure-ratio=0")])
    assert [verdict.passed for verdict in verdicts] == [False, False]
    assert all("load generator" in verdict.reason and verdict.missed_by is None for verdict in verdicts)
    assert found.client.reason in reasons(found, verdicts)
    assert not passed(found, verdicts)
    assert not passed(found, ())


def test_a_percentile_says_how_sure_it_is() -> None:
    """300 requests without one beyond the limit make 95 % of p99; of those beyond it only successful ones count."""
    many = [record(index / 40, 10) for index in range(300)]
    verdict = evaluate(result(many), [parse_gate("p99=20ms")])[0]
    assert verdict.beyond == 0
    assert verdict.confidence == pytest.approx(1 - 0.99**300)
    verdict = evaluate(result([*many, record(9, 50), record(9, 90, error="timeout")]), [parse_gate("p99=20ms")])[0]
    assert verdict.beyond == 1
    assert evaluate(result(many), [parse_gate("max=20ms")])[0].confidence is None
