"""Which versions may be loaded anew, and what is left of one whose load fails or is interrupted."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.serving.cold import _reload, require_unrouted
from tao2serve.serving.state import Registered, Route, ServiceState
from tao2serve.triton.control import ModelState, TritonControl

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


class Triton:
    """A Triton of one model that lets it go only at the third look; loads go as told: an error each, or None."""

    address = "h:8001"

    def __init__(self, *loads: BaseException | None) -> None:
        self.loads, self.calls, self.looks, self.is_loaded = list(loads), [""], 0, True

    def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")
        self.looks = 0

    def states(self) -> dict[str, ModelState]:
        self.looks += 1
        self.is_loaded = self.looks < 3
        return {"street_4": ModelState(state="UNLOADING" if self.is_loaded else "UNAVAILABLE", reason="unloaded")}

    def load(self, name: str) -> None:
        self.calls.append(f"load {name} after {self.looks} looks")
        if self.loads and (error := self.loads.pop(0)) is not None:
            raise error
        self.is_loaded = True


def reload(triton: Any) -> float:
    return _reload(cast("TritonControl", triton), "street_4", ("street_4",))


def test_a_load_is_timed_once_the_model_is_gone() -> None:
    """Triton says done while requests still hold the model: a load then would take their time too."""
    triton = Triton()
    assert reload(triton) >= 0
    assert triton.calls == ["", "unload street_4", "load street_4 after 3 looks"]


def test_an_interrupt_leaves_the_version_loaded() -> None:
    """Ctrl-C while it loads: it is loaded again, and the note says so."""
    triton = Triton(KeyboardInterrupt(), None)
    with pytest.raises(KeyboardInterrupt) as caught:
        reload(triton)
    assert triton.is_loaded
    assert caught.value.__notes__ == ["aftermath: street_4 is loaded again on Triton at h:8001"]


def test_what_cannot_be_loaded_again_is_said() -> None:
    """The first error stays what it was; its aftermath says that the version is gone, and how it comes back."""
    triton = Triton(ServiceError("street_4", "was refused"), ServiceError("street_4", "was refused too"))
    with pytest.raises(ServiceError, match="was refused") as caught:
        reload(triton)
    assert not triton.is_loaded
    for words in ("is UNLOADED on Triton at h:8001", "was refused too", "Deploying it again", "models/street_4/load"):
        assert words in caught.value.aftermath
