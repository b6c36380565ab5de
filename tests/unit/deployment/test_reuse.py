"""What a deployment takes over from earlier ones, decided from their records and the service's state."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tao2serve.deployment.inputs import Inputs
from tao2serve.deployment.reuse import latest, models_of, remains, use_again
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.state import Registered, Route, ServiceState

INPUTS = Inputs(made_of="a", judged_by="j")
START = datetime(2026, 1, 1, tzinfo=UTC)


def record(number: int, status: str = "completed", *, kind: str = "deploy", **properties: str) -> OperationRecord:
    """An operation on `street`; a higher number is newer."""
    given = {"inputs": "a", "judged": "j", "model": "m", **properties}
    return OperationRecord(
        task_id=f"task{number}", kind=kind, endpoint="street", status=status, created=START + timedelta(hours=number),
        last_update=START, holder=None, properties=given,
    )  # fmt: skip


def state(*versions: int, routed: tuple[int, ...] = (), model: str = "m") -> ServiceState:
    return ServiceState(
        endpoints={f"street/{number}": Registered(url=f"street/{number}", model_id=model) for number in versions},
        routes={
            "street": Route(
                name="street", urls=tuple(f"street/{number}" for number in routed), weights=(1.0,) * len(routed)
            )
        },
    )


def version(use: Any) -> int | None:
    return use.version if use else None


def test_the_newest_finished_deployment_of_the_same_is_recalled() -> None:
    """Same inputs, judged alike, finished, and registered with its own model: nothing less."""
    records = [record(3, version="3"), record(2, version="2")]
    assert latest(records, INPUTS, state(2, 3)) == records[0]
    assert latest(records, INPUTS, state(2)) == records[1]
    assert latest(records, INPUTS, state(2, 3, model="other")) is None
    assert latest([record(1, "failed", version="1")], INPUTS, state(1)) is None
    assert latest([record(1, version="1", inputs="b")], INPUTS, state(1)) is None
    assert latest([record(1, version="1", judged="other picture")], INPUTS, state(1)) is None
    assert latest([record(1, kind="promote", version="1")], INPUTS, state(1)) is None


def test_another_verdict_on_the_same_content_takes_the_same_version() -> None:
    """Another picture or limit judges anew, but what is served is the version that holds it already."""
    use = use_again([record(1, version="1", judged="other picture")], INPUTS, "m", state(1, routed=(1,)))
    assert use is not None
    assert (use.version, use.was_ready) == (1, True)


def test_the_number_of_a_killed_run_is_gone_on_with() -> None:
    """Whether or not it came to be registered; but only for the same inputs and the same published model."""
    killed = record(1, "failed", version="1", stage="numbered")
    for registered in (state(), state(1)):
        use = use_again([killed], INPUTS, "m", registered)
        assert use is not None
        assert (use.version, use.was_ready) == (1, False)
    assert use_again([killed], INPUTS, "other model", state()) is None
    assert use_again([record(1, "failed", version="1", inputs="b")], INPUTS, "m", state()) is None


def test_a_number_that_was_given_up_is_not_used_again() -> None:
    """A failed run that tidied up, one whose version another run took over, and a version that was undeployed."""
    for given_up in ("taken back", "adopted"):
        assert use_again([record(1, "failed", version="1", stage=given_up)], INPUTS, "m", state()) is None
    assert use_again([record(1, version="1")], INPUTS, "m", state()) is None
    # A dead run had begun to use the version of a finished one, which has been undeployed since.
    assert use_again([record(2, "failed", version="1"), record(1, version="1")], INPUTS, "m", state()) is None


def test_what_killed_runs_left_is_seen() -> None:
    """Only runs that failed without a word of tidying up; not the version that is being gone on with."""
    killed, early = record(3, "failed", version="3", stage="registered"), record(2, "failed")
    tidy = record(1, "failed", version="1", stage="taken back")
    assert remains([killed, early, tidy], state(3)) == (killed, early)
    assert remains([killed, early, tidy], state(3), keep=3) == (early,)


def test_what_serves_or_served_is_no_remain() -> None:
    """A killed run's version that the alias routes to, or was seen to route to, or that another run finished, stays."""
    killed = record(3, "failed", version="3", stage="registered")
    assert remains([killed], state(2, 3, routed=(3,))) == ()
    promoted = record(4, kind="promote", route=json.dumps({"3": 1.0}))
    assert remains([promoted, killed], state(2, 3, routed=(2,))) == ()
    assert remains([record(4, version="3"), killed], state(2, 3, routed=(2,))) == ()


@pytest.mark.parametrize("noted", ["route_wanted", "route_before", "route"])
def test_a_version_that_may_have_served_is_no_remain(noted: str) -> None:
    """Killed while it waited for the instances, the alias switched: undeploy alone waits for the last requests."""
    killed = record(3, "failed", version="3", stage="registered")
    later = record(4, version="4", **{noted: json.dumps({"3": 0.1, "2": 0.9})})
    itself = record(3, "failed", version="3", stage="registered", **{noted: json.dumps({"3": 1.0})})
    assert remains([later, killed], state(2, 3, 4, routed=(4,))) == ()
    assert remains([itself], state(2, 3, routed=(2,))) == ()
    assert version(use_again([itself], INPUTS, "m", state(2, 3, routed=(2,)))) == 3


def test_a_version_that_another_alias_routes_to_is_no_remain() -> None:
    """Somebody routes `cars` to it by hand: it cannot be unregistered."""
    killed = record(3, "failed", version="3", stage="registered")
    by_hand = Route(name="cars", urls=("street/3",), weights=(1.0,))
    assert remains([killed], replace(state(3), routes={"cars": by_hand})) == ()


def test_a_run_that_was_refused_left_nothing() -> None:
    """It failed before it noted what it is made from, since another operation had the endpoint."""
    refused = replace(record(3, "failed"), properties={"kind": "deploy"})
    assert remains([refused], state(2)) == ()


def test_a_number_that_a_later_run_took_back_is_not_used_again() -> None:
    """Two runs had it, and the older one was killed before it could be marked as gone on with."""
    older, newer = record(1, "failed", version="1"), record(2, "failed", version="1", stage="taken back")
    assert use_again([newer, older], INPUTS, "m", state()) is None


def test_models_of_the_same_inputs_are_preferred() -> None:
    """Newest first, each once, whatever became of the runs."""
    records = [
        record(3, "failed", model="b"),
        record(2, model="a"),
        record(1, model="b"),
        record(0, inputs="b", model="c"),
    ]
    assert models_of(records, INPUTS) == ("b", "a")
