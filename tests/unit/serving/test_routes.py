"""Weights of an alias: canaries, what there is to go back to, how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao2serve.errors import InputError, UsageError
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.history import Change, canary_of, changes_of, cut_off, earlier_routes, hold_s
from tao2serve.serving.promotion import _earlier, decide_promotion
from tao2serve.serving.routes import described, route_from_json, route_to_json, with_canary
from tao2serve.serving.state import Registered, Route, ServiceState, same_weights

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROUTES = st.dictionaries(st.integers(1, 9), st.floats(0.01, 10), max_size=4)


def record_of(kind: str, index: int, **properties: str) -> OperationRecord:
    return OperationRecord(
        task_id=f"t{index}", kind=kind, endpoint="street", status="completed", created=NOW + timedelta(minutes=index),
        last_update=NOW + timedelta(minutes=index), holder=None, properties=properties,
    )  # fmt: skip


def moved(kind: str, index: int, before: dict[int, float], after: dict[int, float], **more: str) -> OperationRecord:
    return record_of(kind, index, route_before=route_to_json(before), route=route_to_json(after), **more)


def state_of(versions: list[int], weights: dict[int, float]) -> ServiceState:
    urls = [f"street/{version}" for version in versions]
    route = Route(
        name="street", urls=tuple(f"street/{version}" for version in weights), weights=tuple(weights.values())
    )
    return ServiceState(
        endpoints={url: Registered(url=url) for url in urls}, routes={"street": route} if weights else {}
    )


@given(ROUTES, st.integers(1, 9), st.floats(0.01, 100))
def test_a_canary_gets_its_share_and_the_others_keep_their_proportions(
    current: dict[int, float], version: int, percent: float
) -> None:
    """All weights are above 0 and add up to 1; no version is lost, unless the canary gets everything."""
    weights = with_canary(current, version, percent)
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weight > 0 for weight in weights.values())
    others = {other: weight for other, weight in current.items() if other != version}
    if not others or percent == 100:
        assert weights == {version: 1.0}
        return
    assert set(weights) == {*current, version}
    assert weights[version] == pytest.approx(percent / 100)
    first, *rest = others
    assert all(weights[other] / weights[first] == pytest.approx(others[other] / others[first]) for other in rest)


@pytest.mark.parametrize("percent", [0, -1, 100.1, float("nan"), float("inf")])
def test_a_share_outside_the_percents_is_refused(percent: float) -> None:
    """Exit 2."""
    with pytest.raises(UsageError):
        with_canary({1: 1.0}, 2, percent)


@given(ROUTES)
def test_routes_survive_their_text(route: dict[int, float]) -> None:
    """What an operation notes is what a rollback reads."""
    read = route_from_json(route_to_json(route))
    assert read is not None
    assert same_weights(read, route)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '{"1": "x"}', "null"])
def test_a_property_that_cannot_be_read_is_no_route(text: str) -> None:
    """Somebody may have edited it in the web page."""
    assert route_from_json(text) is None


def test_a_route_in_words() -> None:
    """By version, in percent."""
    assert described({4: 0.1, 3: 0.9}) == "version 3: 90 %, version 4: 10 %"
    assert described({}) == "none"


@given(st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=12))
def test_rollbacks_walk_back_like_an_undo(steps: list[int | None]) -> None:
    """Each rollback (None) goes one standing change further back, whatever was promoted in between."""
    records: list[OperationRecord] = []
    current: dict[int, float] = {}
    undo: list[dict[int, float]] = []
    for index, step in enumerate(steps):
        if step is not None:
            after = {step: 1.0}
            records.insert(0, moved("promote", index, current, after))
            if after != current:
                undo.append(current)
            current = after
            continue
        earlier = earlier_routes(changes_of(records, current), current)
        # Routes equal to the current one, and no route at all, are nothing to go back to.
        while undo and (not undo[-1] or undo[-1] == current):
            undo.pop()
        assert bool(earlier) == bool(undo)
        if earlier:
            expected = undo.pop()
            assert earlier[0].route == expected
            records.insert(
                0, moved("rollback", index, current, dict(earlier[0].route), undid=",".join(earlier[0].undoes))
            )
            current = dict(earlier[0].route)


def test_a_canary_that_was_promoted_goes_back_to_the_canary_and_then_to_the_old_one() -> None:
    """The route before the last change; the second rollback goes further, not forward again."""
    records = [
        moved("promote", 3, {3: 0.9, 4: 0.1}, {4: 1.0}),
        moved("deploy", 2, {3: 1.0}, {3: 0.9, 4: 0.1}, version="4"),
        moved("deploy", 1, {}, {3: 1.0}, version="3"),
    ]
    earlier = earlier_routes(changes_of(records, {4: 1.0}), {4: 1.0})
    assert [entry.route for entry in earlier] == [{3: 0.9, 4: 0.1}, {3: 1.0}]
    assert [entry.undoes for entry in earlier] == [("t3",), ("t3", "t2")]  # passing one over undoes both
    records.insert(0, moved("rollback", 4, {4: 1.0}, {3: 0.9, 4: 0.1}, undid="t3"))
    now = {3: 0.9, 4: 0.1}
    assert [entry.route for entry in earlier_routes(changes_of(records, now), now)] == [{3: 1.0}]


def test_a_route_that_somebody_else_changed_goes_back_to_the_last_known_one() -> None:
    """`clearml-serving` leaves no operation; the route before its change is the one the last operation left."""
    changes = changes_of([moved("deploy", 1, {}, {3: 1.0})], {2: 1.0})
    (earlier,) = earlier_routes(changes, {2: 1.0})
    assert earlier.route == {3: 1.0}
    assert earlier.undoes == ()


@pytest.mark.parametrize(("current", "is_known"), [({4: 1.0}, True), ({3: 1.0}, False)])
def test_a_run_that_was_killed_counts_if_its_route_was_written(current: dict[int, float], is_known: bool) -> None:
    """It noted what it wanted; whether that came to be is told by the route there is."""
    cut_off = record_of("promote", 2, route_before=route_to_json({3: 1.0}), route_wanted=route_to_json({4: 1.0}))
    changes = changes_of([cut_off, moved("deploy", 1, {}, {3: 1.0})], current)
    assert (changes[-1].task_id == "t2") == is_known
    routes = [entry.route for entry in earlier_routes(changes, current)]
    assert routes == ([{3: 1.0}] if is_known else [])


@pytest.mark.parametrize(("current", "is_half"), [({3: 1.0}, True), ({4: 1.0}, False)])
def test_a_rollback_that_was_cut_off_is_ended_and_not_doubled(current: dict[int, float], is_half: bool) -> None:
    """Its route is there, and nobody has seen it everywhere; once it was seen, or somebody moved on, it is over."""
    wanted = {"route_before": route_to_json({4: 1.0}), "route_wanted": route_to_json({3: 1.0}), "undid": "t2"}
    half = record_of("rollback", 3, **wanted)
    before = [moved("deploy", 2, {3: 1.0}, {4: 1.0}), moved("deploy", 1, {2: 1.0}, {3: 1.0})]
    assert (cut_off([half, *before], current, kind="rollback") is not None) is is_half
    assert cut_off([half, *before], current, kind="promote") is None
    assert not cut_off([moved("promote", 4, {3: 1.0}, {4: 1.0}), half, *before], {4: 1.0}, kind="rollback")
    done = record_of("rollback", 3, **wanted, route=route_to_json({3: 1.0}))
    assert not cut_off([done, *before], {3: 1.0}, kind="rollback")
    assert not cut_off([], {}, kind="rollback")
    # What was refused, or failed before it came to the route, changes nothing of that.
    refused = record_of("deploy", 5, inputs="a", version="5")
    assert (cut_off([refused, half, *before], current, kind="rollback") is half) is is_half
    # The one after it goes on from there.
    if is_half:
        assert [e.route for e in earlier_routes(changes_of([half, *before], current), current)] == [{2: 1.0}]


def test_the_canary_is_what_the_operation_brought_in() -> None:
    """An older version may be on trial, and may have the larger share by now."""
    route = {3: 0.8, 4: 0.2}
    assert canary_of(changes_of([moved("promote", 1, {4: 1.0}, route, version="3")], route), route) == 3
    assert canary_of((), route) == 4


@pytest.mark.parametrize(
    ("version", "percent", "expected"),
    [
        (None, None, (4, {4: 1.0})),
        (2, None, (2, {2: 1.0})),
        (None, 50.0, (4, {3: 0.5, 4: 0.5})),
        (2, 20.0, (2, {2: 0.2, 3: 0.72, 4: 0.08})),
    ],
)
def test_promote_takes_the_canary_or_what_is_named(
    version: int | None, percent: float | None, expected: tuple[int, dict[int, float]]
) -> None:
    """All requests, or the share that is asked for."""
    state = state_of([2, 3, 4], {3: 0.9, 4: 0.1})
    chosen, weights, _ = decide_promotion(state, "street", (), version=version, percent=percent)
    assert chosen == expected[0]
    assert weights == pytest.approx(expected[1])


def test_promote_takes_the_newest_when_nothing_is_on_trial() -> None:
    """A version that was deployed and not routed to, or all of it again."""
    assert decide_promotion(state_of([3, 4], {3: 1.0}), "street", (), version=None, percent=None)[:2] == (4, {4: 1.0})
    assert decide_promotion(state_of([3], {}), "street", (), version=None, percent=None)[:2] == (3, {3: 1.0})


def test_promote_refuses_what_cannot_be() -> None:
    """A version that is not registered exits 3; a share that leaves the rest to nobody exits 2."""
    state = state_of([3, 4], {4: 1.0})
    with pytest.raises(InputError, match="street/9") as caught:
        decide_promotion(state, "street", (), version=9, percent=None)
    assert "3, 4" in caught.value.evidence
    with pytest.raises(UsageError) as rest:
        decide_promotion(state, "street", (), version=4, percent=10)
    assert rest.value.hint == "name another version: 3"
    with pytest.raises(UsageError) as alone:
        decide_promotion(state_of([4], {4: 1.0}), "street", (), version=None, percent=10)
    assert "tao2serve deploy" in alone.value.hint


def test_what_there_is_to_go_back_to_is_known_without_asking_its_versions() -> None:
    """No earlier route, or none whose versions are registered, exits 3 in a sentence; one that is goes through."""
    first = moved("deploy", 1, {}, {3: 1.0}, version="3")
    second = moved("deploy", 2, {3: 1.0}, {4: 1.0}, version="4")
    with pytest.raises(InputError) as none:
        _earlier(state_of([3], {3: 1.0}), "street", [first])
    assert str(none.value) == "endpoint street has no earlier route to go back to"
    assert none.value.evidence == "now version 3: 100 %; registered: 3"
    with pytest.raises(InputError) as gone:
        _earlier(state_of([4], {4: 1.0}), "street", [second, first])
    assert "no longer registered: 3" in gone.value.evidence
    (earlier,) = _earlier(state_of([3, 4], {4: 1.0}), "street", [second, first])
    assert earlier.route == {3: 1.0}


def change_at(minute: float, before: dict[int, float], after: dict[int, float]) -> Change:
    return Change(task_id="t", kind="promote", before=before, after=after, at=NOW + timedelta(minutes=minute))


def test_the_wait_is_counted_from_the_route_that_named_the_version_last() -> None:
    """What is left of a poll and a deadline; nothing for versions that no route named."""
    changes = (change_at(0, {1: 1.0}, {2: 1.0}), change_at(4, {2: 1.0}, {3: 1.0}))

    def wait(*versions: int, current: dict[int, float], minute: float) -> float:
        return hold_s(changes, current, versions, now=NOW + timedelta(minutes=minute), grace_s=310)

    assert wait(2, current={3: 1.0}, minute=5) == 250
    assert wait(1, current={3: 1.0}, minute=5) == 10
    assert wait(1, 2, current={3: 1.0}, minute=60) == 0
    assert wait(7, current={3: 1.0}, minute=4) == 0
    assert wait(7, current={9: 1.0}, minute=60) == 310  # nobody knows when somebody else changed it
    assert wait(2, current={3: 1.0}, minute=-9) == 310  # a clock that is off makes no wait longer
