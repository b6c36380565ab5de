"""The waterfall adds up, whatever the servers say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao2serve.loadtest.breakdown import PARTS, TO_TRITON, UNEXPLAINED, waterfall
from tao2serve.loadtest.result import StageTiming
from tao2serve.loadtest.triton_counts import ModelCounts


def stages(**means: float) -> tuple[StageTiming, ...]:
    return tuple(StageTiming(stage=name, mean=mean, p50=mean, p95=mean, p99=mean) for name, mean in means.items())


def model(name: str, queue: float, taken: float, infer: float, given: float, *, requests: int = 10) -> ModelCounts:
    return ModelCounts(
        name=name, requests=requests, inferences=requests, executions=requests, queue_ms=queue, input_ms=taken,
        infer_ms=infer, output_ms=given, total_ms=queue + taken + infer + given,
    )  # fmt: skip


ANSWERED = stages(preprocess=5, infer=20, postprocess=2, total=28, outside=4)


def test_both_accounts_are_put_together() -> None:
    """Triton's split lies inside `infer`, and what is left of it is the way there and back."""
    found = waterfall(ANSWERED, [model("people_4", 3, 1, 12, 0.5)])
    assert found == (
        ("outside", 4), ("preprocess", 5), (TO_TRITON, 3.5), ("queue", 3), ("input", 1), ("compute", 12),
        ("output", 0.5), ("postprocess", 2), ("rest", 1),
    )  # fmt: skip


def test_an_ensembles_models_are_added_up() -> None:
    """Reading and clustering are in the answers' stages already; the ways of all three models are in `infer`."""
    models = (
        model("people_4", 9, 9, 9, 9),
        model("people_4_detector", 1, 2, 10, 0.5),
        model("people_4_postprocess", 0.25, 0.25, 2.1, 0.25),
        model("people_4_preprocess", 0.5, 0.25, 5.2, 0.25),
    )
    found = dict(waterfall(ANSWERED, models))
    assert (found["queue"], found["input"], found["compute"], found["output"]) == (1.75, 2.5, 10, 1)
    assert found[TO_TRITON] == pytest.approx(20 - 15.25)
    assert (found["preprocess"], found["postprocess"]) == (5, 2)


def test_several_deployments_are_weighted_by_their_requests() -> None:
    """Nine requests of one that queues and one of another that does not."""
    busy, idle = model("people_4", 10, 0, 5, 0, requests=9), model("people_5", 0, 0, 5, 0, requests=1)
    found = dict(waterfall(ANSWERED, [busy, idle]))
    assert (found["queue"], found["compute"]) == (pytest.approx(9), pytest.approx(5))


@pytest.mark.parametrize("models", [[], [model("people_4", 30, 1, 12, 1)]], ids=["none", "other"])
def test_what_is_not_of_these_requests_stays_unexplained(models: list[ModelCounts]) -> None:
    """Without counters, or with those of slower requests than ours, `infer` is not split."""
    found = dict(waterfall(ANSWERED, models))
    assert found[UNEXPLAINED] == 20
    assert "queue" not in found


def test_a_little_more_is_the_edges_of_the_span() -> None:
    """Up to a tenth more than `infer` is the same requests: its parts by their shares, and no way there."""
    found = dict(waterfall(ANSWERED, [model("people_4", 1, 0, 20, 0)]))
    assert found[TO_TRITON] == pytest.approx(0, abs=1e-9)
    assert found["compute"] == pytest.approx(20 * 20 / 21)
    assert found["queue"] + found["compute"] == pytest.approx(20)


def test_no_timings_no_waterfall() -> None:
    """Of a server that tells no stages there is nothing to draw."""
    assert waterfall((), [model("people_4", 1, 1, 1, 1)]) == ()


MS = st.floats(0, 1e4)


@given(means=st.tuples(MS, MS, MS, MS, MS), counted=st.lists(st.tuples(MS, MS, MS, MS), max_size=3))
def test_parts_add_up_and_none_is_negative(
    means: tuple[float, ...], counted: list[tuple[float, float, float, float]]
) -> None:
    """Whatever was measured: the sum is outside and total, the mean latency; the order is always the same."""
    answered = stages(**dict(zip(("preprocess", "infer", "postprocess", "total", "outside"), means, strict=True)))
    models = [model(f"people_{index}", *times) for index, times in enumerate(counted)]
    found = waterfall(answered, models)
    assert all(value >= 0 for _, value in found)
    names = [name for name, _ in found]
    assert names == [name for name in PARTS if name in names]
    assert math.fsum(value for _, value in found) == pytest.approx(means[3] + means[4], rel=1e-9, abs=1e-9)
