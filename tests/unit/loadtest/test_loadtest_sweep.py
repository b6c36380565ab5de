"""A sweep, and the one run that stands for several."""

from __future__ import annotations

import json

import pytest
from loadtest_samples import plan
from queue_model import QueueModel

from tao2serve.errors import UsageError
from tao2serve.loadtest import ClosedLoop, LoadResult, OpenLoop, parse_gate
from tao2serve.loadtest.plan import LoadPlan
from tao2serve.loadtest.report import series_document
from tao2serve.loadtest.series import LoadSeries, SeriesRun
from tao2serve.loadtest.sweep import run_name, run_sweep

RATES = tuple(OpenLoop(rate_rps=rate) for rate in (10, 40, 200))
GATES = [parse_gate("p99=50ms")]


def test_every_load_is_run_in_order() -> None:
    """Also those after one that missed its gate; each is told of as it ends."""
    told: list[SeriesRun] = []
    model = QueueModel(service_s=0.01)
    loads = (RATES[2], RATES[0])
    series = run_sweep(plan(), loads, GATES, run=model, on_run=told.append)
    assert [run.result.plan.shape for run in series.runs] == list(loads)
    assert list(series.runs) == told
    assert [run.passed for run in series.runs] == [False, True]


def test_the_runs_before_an_interruption_are_told() -> None:
    """What has ended is handed over before the next one begins."""
    told: list[SeriesRun] = []
    model = QueueModel(service_s=0.01)

    def run(asked: LoadPlan) -> LoadResult:
        if len(model.plans) == 2:
            raise KeyboardInterrupt
        return model(asked)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan(), RATES, GATES, run=run, on_run=told.append)
    assert len(told) == 2


def test_the_first_that_misses_stands_for_the_sweep() -> None:
    """So that `slo` at the top says what was missed; where all pass it is the one with the most answers."""
    missed = run_sweep(plan(), RATES, GATES, run=QueueModel(service_s=0.01))
    assert (missed.decisive, missed.passed) == (2, False)
    reached = run_sweep(plan(), RATES[:2], GATES, run=QueueModel(service_s=0.01))
    assert (reached.decisive, reached.passed) == (1, True)


def test_the_document_has_the_members_of_a_single_run() -> None:
    """Those of the decisive run, and all runs in full; it is JSON."""
    series = run_sweep(plan(), RATES, GATES, run=QueueModel(service_s=0.01))
    told = json.loads(json.dumps(series_document(series)))
    assert {"requests", "failures", "throughput_rps", "latency_ms", "client", "slo", "passed", "report"} <= set(told)
    assert told["slo"][0]["missed_by"]["absolute"] > 0
    assert told["latency_ms"] == told["runs"][told["decisive"]]["latency_ms"]
    assert [run["passed"] for run in told["runs"]] == [True, True, False]
    assert told["highest"] is None


def test_no_load_is_refused() -> None:
    """A series has a run."""
    with pytest.raises(UsageError):
        LoadSeries(runs=())


def test_folders_are_in_the_order_of_the_runs() -> None:
    """Number first, so that a listing is in their order."""
    assert str(run_name(3, OpenLoop(rate_rps=12.5))) == "runs/03-12.5rps"
    assert str(run_name(12, ClosedLoop(users=4))) == "runs/12-4users"
