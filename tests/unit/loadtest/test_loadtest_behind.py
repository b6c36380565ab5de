"""Whose figures Triton's are, where a load test has several targets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from loadtest_samples import counters, plan, record, result, run

from tao2serve.loadtest import LoadPlan, LoadResult, Target
from tao2serve.loadtest.behind import models_behind, of_endpoints, prefixes, unknown_models
from tao2serve.loadtest.sampling import Sample, Sampled
from tao2serve.loadtest.servers import ServerSide, ServerWatch
from tao2serve.loadtest.triton_counts import Counters, ModelCounts, Version
from tao2serve.loadtest.waterfall import parts_of

TRITON = "127.0.0.1:8001"
STREET = Target(url="http://127.0.0.1:8080/serve/street", behind=("street_4",))
SHARED = Target(url="http://127.0.0.1:8080/serve/street", behind=("street_4", "street_5"))
PEOPLE = Target(url="http://127.0.0.1:8080/serve/people/1", behind=("people_1",), weight=3)
BY_URL = Target(url="http://127.0.0.1:8080/serve/cars")
DIRECT = Target(url="localhost:8001", protocol="triton-grpc", model="street_4")
OVER_HTTP = Target(url="127.0.0.1:8000", protocol="triton-http", model="street_4_detector")
ELSEWHERE = Target(url="127.0.0.1:9001", protocol="triton-grpc", model="people_1")
FAR = Target(url="192.0.2.7:8000", protocol="triton-http", model="people_1")
TIMING = {"preprocess": 2.0, "infer": 20.0, "postprocess": 1.0, "total": 25.0}


def asked(*targets: Target) -> LoadPlan:
    return replace(plan(), targets=targets, triton=TRITON)


def side(*targets: Target, **requests: int) -> ServerSide:
    """As if Triton had counted these requests of each model within the run time, 100 being open of each target."""
    sampled: Sampled[dict[Version, Counters]] = Sampled(dict, every_s=1)
    for at_s, share in ((101.0, 0), (109.0, 1)):
        value = {(name, "1"): counters(1 + share * count) for name, count in requests.items()}
        sampled.samples.append(Sample(at_s=at_s, value=value))
    records = [replace(record(index / 10, 30), target=target) for index in range(100) for target in range(len(targets))]
    return ServerWatch(plan=asked(*targets), triton=sampled).during(run(records))


def loaded(found: ServerSide, *targets: Target) -> LoadResult:
    answered = result([record(index / 10, 30, timing_ms=TIMING) for index in range(100)])
    return replace(answered, plan=asked(*targets), server=found)


def test_each_target_has_its_models() -> None:
    """The counters of those alone are read, of all versions that an alias shares its requests among."""
    found = asked(SHARED, PEOPLE, BY_URL, DIRECT, OVER_HTTP, ELSEWHERE, FAR)
    assert models_behind(found) == (
        ("street_4", "street_5"), ("people_1",), (), ("street_4",), ("street_4_detector",), (), (),
    )  # fmt: skip
    assert prefixes(found) == ("street_4", "street_5", "people_1", "street_4_detector")


def test_a_plan_may_name_the_model_of_its_only_target() -> None:
    """In place of what the target says of itself; nobody else's model is counted."""
    assert prefixes(replace(asked(STREET), triton_model="street_9")) == ("street_9",)
    assert prefixes(replace(asked(STREET, PEOPLE), triton_model="street_9")) == ("street_4", "people_1")


def test_what_is_not_known_is_said() -> None:
    """A target on another Triton, an endpoint of which only the URL is known, and figures of all models."""
    assert unknown_models(asked(STREET, PEOPLE, DIRECT)) == []
    assert unknown_models(asked(STREET, BY_URL, ELSEWHERE)) == [
        f"triton-grpc people_1 is at 127.0.0.1:9001, and the figures are of Triton at {TRITON}",
        "the models behind /serve/cars are not known: Triton's figures are of the other targets' models",
    ]
    assert unknown_models(asked(BY_URL)) == [
        "the models behind /serve/cars are not known: Triton's figures are of all its models"
    ]


def test_models_are_attributed_to_targets() -> None:
    """Each says which targets it answers; two endpoints' mean request is of both, weighted by their requests."""
    found = side(STREET, PEOPLE, street_4=20, people_1=60)
    assert {model.name: model.targets for model in found.models} == {"street_4": (0,), "people_1": (1,)}
    assert found.to_dict()["models"][0]["targets"] == (1,)
    assert found.notes == ()
    parts = dict(parts_of(loaded(found, STREET, PEOPLE)))
    assert parts["Triton: compute"] == pytest.approx(3)
    assert "infer, not split" not in parts


def test_a_model_asked_twice_over_is_not_split() -> None:
    """Requests past the endpoint have other times: Triton's means are of neither, which is said."""
    for direct, models in ((DIRECT, {"street_4": 150}), (OVER_HTTP, {"street_4": 80, "street_4_detector": 150})):
        found = side(STREET, direct, **models)
        assert found.models[-1].targets == (0, 1)
        (note,) = found.notes
        assert note == (
            f"the figures of {found.models[-1].name} are of requests to an endpoint and of direct ones together, "
            "so the endpoint's stage infer is not split"
        )
        parts = dict(parts_of(loaded(found, STREET, direct)))
        assert parts["infer, not split"] == 20


def test_a_direct_target_is_no_part_of_an_endpoint() -> None:
    """Another model that is asked directly leaves the endpoint's split as it is."""
    other = replace(DIRECT, model="cars_1")
    found = side(STREET, other, street_4=90, cars_1=90)
    slow = replace(found.models[0], infer_ms=1000.0)  # cars_1
    assert slow.targets == (1,)
    parts = dict(parts_of(loaded(replace(found, models=(slow, found.models[1])), STREET, other)))
    assert parts["Triton: compute"] == pytest.approx(3)


def test_of_half_of_the_endpoints_there_is_no_split() -> None:
    """The mean request is of all endpoints, so Triton's part of some of them explains it not."""
    found = side(STREET, BY_URL, street_4=90)
    assert of_endpoints(found.models, (STREET, BY_URL)) == ()
    assert dict(parts_of(loaded(found, STREET, BY_URL)))["infer, not split"] == 20


def test_only_its_own_targets_requests_excuse_a_model() -> None:
    """Requests of the other target do not hide that somebody else asks this one's model."""
    quiet = side(STREET, BY_URL, street_4=80)
    assert not any("others ask it too" in note for note in quiet.notes)
    loud = side(STREET, BY_URL, street_4=120)
    assert any(note.startswith("Triton answered 120 requests while this load test had 8") for note in loud.notes)


def test_models_of_one_target_need_no_attribution() -> None:
    """A plan with one target and a Triton of its own counts what is there."""
    counted = ModelCounts(
        name="any", requests=1, inferences=1, executions=1, queue_ms=0, input_ms=0, infer_ms=1, output_ms=0, total_ms=1
    )
    assert of_endpoints((counted,), (BY_URL,)) == (counted,)
