"""Which versions may be loaded anew."""

from __future__ import annotations

import pytest

from tao2serve.errors import InputError, UsageError
from tao2serve.serving.cold import require_unrouted
from tao2serve.serving.state import Registered, Route, ServiceState

STATE = ServiceState(
    endpoints={url: Registered(url=url, model_id="0") for url in ("street/1", "street/2", "road/1")},
    routes={
        "street": Route(name="street", urls=("street/2",), weights=(1.0,)),
        "all": Route(name="all", urls=("street/2", "road/1"), weights=(0.5, 0.5)),
    },
)


def test_a_version_without_traffic_may_be() -> None:
    """Registered, and no alias names it."""
    require_unrouted(STATE, "street", 1, force=False)


@pytest.mark.parametrize(("name", "version", "aliases"), [("street", 2, "street, all"), ("road", 1, "all")])
def test_a_version_with_traffic_may_not_unless_forced(name: str, version: int, aliases: str) -> None:
    """Another endpoint's alias counts as well as its own."""
    with pytest.raises(UsageError) as caught:
        require_unrouted(STATE, name, version, force=False)
    assert caught.value.evidence == f"alias {aliases} routes to it"
    assert "--force" in caught.value.hint
    require_unrouted(STATE, name, version, force=True)


def test_what_is_not_registered_is_bad_input() -> None:
    """Forced or not: there is nothing to load."""
    with pytest.raises(InputError) as caught:
        require_unrouted(STATE, "street", 7, force=True)
    assert caught.value.evidence == "registered: 1, 2"
