"""Triton's counters become figures of what was between two readings, and of nothing else."""

from __future__ import annotations

import pytest
from loadtest_samples import TRITON_STAGES as STAGES
from loadtest_samples import counters
from tritonclient.grpc import service_pb2

from tao2serve.errors import ServiceError
from tao2serve.loadtest.triton_counts import Counters, TritonCounters, counted_between, counters_of, is_part_of


def test_only_what_was_between_is_counted() -> None:
    """A slow past and a fast present give the present's means, whatever the lifetime averages are."""
    before = counters(1000, each_ms=90)
    fast = counters(10, each_ms=2)
    after = Counters(
        inferences=1010, executions=1010, failures=0,
        counts=dict.fromkeys(STAGES, 1010),
        total_ns={stage: before.total_ns[stage] + fast.total_ns[stage] for stage in STAGES},
        batches={1: 1010},
    )  # fmt: skip
    (model,), notes = counted_between({("people_4", "1"): before}, {("people_4", "1"): after})
    assert notes == ()
    assert (model.name, model.version, model.requests, model.executions) == ("people_4", "1", 10, 10)
    means = (model.queue_ms, model.input_ms, model.infer_ms, model.output_ms, model.total_ms)
    assert means == pytest.approx((2, 4, 6, 8, 10))


def test_batch_sizes_are_those_reached_in_between() -> None:
    """How many executions had which size; sizes that were only reached before are not told."""
    before = counters(20, batches={1: 4, 2: 8})
    after = counters(38, batches={1: 6, 2: 8, 4: 4})
    (model,), _ = counted_between({("m", "1"): before}, {("m", "1"): after})
    assert model.batch_sizes == ((1, 2), (4, 4))
    assert model.batch_size == 3.0
    assert sum(size * count for size, count in model.batch_sizes) == model.inferences == 18
    assert model.to_dict()["batch_sizes"] == {"1": 2, "4": 4}


@pytest.mark.parametrize(
    "after",
    [counters(3), counters(30, failures=1), counters(30, failures=2, batches={2: 15})],
    ids=["fewer requests", "fewer failures", "a batch size gone"],
)
def test_counters_that_went_backwards_are_said(after: Counters) -> None:
    """A Triton that was started again has no figures, never negative ones, and the note names the model."""
    models, notes = counted_between({("people_4", "1"): counters(20, failures=2)}, {("people_4", "1"): after})
    assert models == ()
    assert len(notes) == 1
    assert "people_4 went backwards" in notes[0]


def test_models_come_and_go() -> None:
    """One loaded in between has counted from zero; one unloaded is said; one that was not asked is left out."""
    before = {("gone", "1"): counters(5), ("idle", "1"): counters(5)}
    after = {("idle", "1"): counters(5), ("new", "1"): counters(7), ("refusing", "1"): counters(0, failures=3)}
    models, notes = counted_between(before, after)
    assert [(model.name, model.requests, model.failures) for model in models] == [("new", 7, 0), ("refusing", 0, 3)]
    assert models[1].total_ms == models[1].batch_size == 0
    assert len(notes) == 1
    assert notes[0].startswith("gone was unloaded")


def test_tritons_own_message_is_read() -> None:
    """The members of the protocol's ModelStatistics, batch by batch."""
    message = service_pb2.ModelStatistics(name="m", version="1", inference_count=6, execution_count=4)
    message.inference_stats.success.count, message.inference_stats.success.ns = 5, 500
    message.inference_stats.fail.count = 2
    message.inference_stats.compute_infer.count, message.inference_stats.compute_infer.ns = 5, 300
    for size, executions in ((1, 2), (2, 2)):
        batch = message.batch_stats.add(batch_size=size)
        batch.compute_infer.count = executions
    found = counters_of(message)
    assert (found.inferences, found.executions, found.failures) == (6, 4, 2)
    assert (found.counts["success"], found.total_ns["success"]) == (5, 500)
    assert (found.counts["compute_infer"], found.total_ns["compute_infer"]) == (5, 300)
    assert found.batches == {1: 2, 2: 2}


def test_a_deployments_models() -> None:
    """A model of the name, and those an ensemble passes to; version 40 is not version 4."""
    assert is_part_of("people_4", "people_4")
    assert is_part_of("people_4_detector", "people_4")
    assert not is_part_of("people_40", "people_4")


def test_a_triton_that_is_not_there() -> None:
    """ServiceError with what gRPC says, soon."""
    counters_there = TritonCounters("127.0.0.1:1")
    try:
        with pytest.raises(ServiceError, match="does not tell its statistics"):
            counters_there.read()
    finally:
        counters_there.close()
