"""What clearml-serving makes of its configuration, said without asking it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao2serve.serving.state import Registered, Route, ServiceState, parse_state, same_weights, split_url

URLS = ("street/1", "street/2", "street/10", "cars/1", "plain")
WEIGHTS = st.sampled_from([0.0, 0.1, 0.25, 0.9, 1.0, 3.0])


def state_of(*urls: str, routes: tuple[Route, ...] = ()) -> ServiceState:
    endpoints = {url: Registered(url=url, model_id=f"m-{url}") for url in urls}
    return ServiceState(endpoints=endpoints, routes={route.name: route for route in routes})


def theirs(registered: set[str], route: Route) -> dict[str, float] | None:
    """What clearml-serving 1.3.5 itself makes of one route; None if it raises, which freezes all endpoints."""
    from clearml_serving.serving.endpoints import CanaryEP
    from clearml_serving.serving.model_request_processor import ModelRequestProcessor

    entry = CanaryEP(
        endpoint=route.name, weights=list(route.weights), load_endpoints=list(route.urls),
        load_endpoint_prefix=route.prefix or None,
    )  # fmt: skip
    processor: Any = SimpleNamespace(
        _canary_endpoints={route.name: entry}, _endpoints=dict.fromkeys(registered), _model_monitoring_endpoints={},
        _report_text=lambda _text: None,
    )  # fmt: skip
    try:
        ModelRequestProcessor._update_canary_lookup(processor)
    except ZeroDivisionError:
        return None
    found = processor._canary_route.get(route.name, {"endpoints": [], "weights": []})
    return {url: weight for url, weight in zip(found["endpoints"], found["weights"], strict=True) if weight > 0}


@settings(deadline=None)  # clearml-serving takes a second to import
@given(st.sets(st.sampled_from(URLS)), st.lists(st.tuples(st.sampled_from(URLS), WEIGHTS), unique_by=lambda x: x[0]))
def test_listed_routes_are_read_as_clearml_serving_reads_them(
    registered: set[str], pairs: list[tuple[str, float]]
) -> None:
    """The same shares, and a freeze foretold exactly when its own code raises."""
    route = Route(name="alias", urls=tuple(url for url, _ in pairs), weights=tuple(weight for _, weight in pairs))
    expected = theirs(registered, route)
    assert route.freezes(registered) == (expected is None)
    if expected is not None:
        assert route.shares(registered) == pytest.approx(expected)


@settings(deadline=None)  # clearml-serving takes a second to import
@given(st.sets(st.sampled_from(URLS)), st.lists(WEIGHTS, max_size=3), st.sampled_from(["street", "street/", "x"]))
def test_prefix_routes_are_read_as_clearml_serving_reads_them(
    registered: set[str], weights: list[float], prefix: str
) -> None:
    """The newest versions by number, not by letters: 10 before 2."""
    route = Route(name="alias", weights=tuple(weights), prefix=prefix)
    expected = theirs(registered, route)
    assert route.freezes(registered) == (expected is None)
    if expected is not None:
        assert route.shares(registered) == pytest.approx(expected)


def test_weights_that_do_not_match_the_list_route_nowhere() -> None:
    """clearml-serving skips such a route."""
    assert Route(name="a", urls=("street/1",), weights=(0.5, 0.5)).shares(["street/1"]) == {}


def test_a_weight_that_is_no_number_freezes() -> None:
    """`float` raises inside clearml-serving's lock."""
    state = parse_state({
        "endpoints": {"street/1": {"engine_type": "triton"}},
        "canary": {"street": {"endpoint": "street", "load_endpoints": ["street/1"], "weights": ["much"]}},
    })  # fmt: skip
    assert state.frozen_by() == ("street",)


def test_configuration_objects_become_values() -> None:
    """Versions, weights by version, names, sizes of both layouts; odd entries are left out, not raised over."""
    state = parse_state({
        "endpoints": {
            "street/2": {"model_id": "m", "input_size": [[224, 384, 3]]},
            "street/10": {"input_size": [[3, 224, 384]]},
            "odd": {"input_size": [["?"]]},
            "broken": None,
        },
        "canary": {"street": {"endpoint": "street", "load_endpoints": ["street/2", "street/10", "street/11"],
                              "weights": [0.3, 0.1, 0.6]}},
        "model_monitoring_eps": {"auto/1": {}},
    })  # fmt: skip
    assert state.versions("street") == (2, 10)
    assert state.weights("street") == pytest.approx({2: 0.75, 10: 0.25})
    assert state.names() == ("street",)
    assert state.missing() == {"street": ("street/11",)}
    assert state.urls == {"street/2", "street/10", "odd", "auto/1"}
    assert [state.endpoints[url].input_size for url in ("street/2", "street/10", "odd")] == [
        (224, 384), (224, 384), None,
    ]  # fmt: skip


def test_a_version_that_another_alias_routes_to_is_routed() -> None:
    """Whatever the alias is called, its versions get requests."""
    foreign = Route(name="cars", urls=("street/1",), weights=(1.0,))
    assert state_of("street/1", routes=(foreign,)).routed_urls() == {"street/1": ("cars",)}


@pytest.mark.parametrize(
    ("url", "parts"), [("street/3", ("street", 3)), ("street", ("street", None)), ("a/b/3", ("a/b/3", None))]
)
def test_urls_are_split(url: str, parts: tuple[str, int | None]) -> None:
    """Name and number; anything else is a name alone."""
    assert split_url(url) == parts


def test_weights_are_the_same_despite_rounding() -> None:
    """Thirds that went through text are still thirds; other versions are not."""
    assert same_weights({1: 1 / 3, 2: 2 / 3}, {1: 0.333333333, 2: 0.666666667})
    assert not same_weights({1: 1.0}, {2: 1.0})
    assert not same_weights({1: 0.9, 2: 0.1}, {1: 0.8, 2: 0.2})
