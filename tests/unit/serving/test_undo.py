"""What a deployment that failed takes away again, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tao2serve.errors import ServiceError
from tao2serve.serving.service import EndpointVersion
from tao2serve.serving.undo import take_back
from tao2serve.values import TritonModel

ENDPOINT = EndpointVersion(name="street", version=4, base_url="http://x/serve")
NAMES = ("street_4_preprocess", "street_4_detector", "street_4_postprocess", "street_4")


class Servers:
    """The serving service and Triton in one: keeps what is done to it."""

    def __init__(self, *, routed: bool = False, away: bool = False, stuck: str = "") -> None:
        self.routed, self.away, self.stuck = routed, away, stuck
        self.done: list[str] = []
        self.id = "service"

    def routes_to(self, endpoint: EndpointVersion) -> bool:
        if self.away:
            raise ServiceError("serving service", "could not be read")
        return self.routed

    def unregister(self, endpoint: EndpointVersion) -> None:
        self.done.append(f"unregister {endpoint.name}/{endpoint.version}")

    def unload(self, name: str) -> None:
        if name == self.stuck:
            raise ServiceError(f"Triton model {name}", "was refused")
        self.done.append(f"unload {name}")


@pytest.fixture
def written(tmp_path: Path) -> list[TritonModel]:
    for name in NAMES:
        (tmp_path / name / "1").mkdir(parents=True)
    return [
        TritonModel(name=name, version=1, repository=tmp_path, backend="python", created=name != "street_4_detector")
        for name in NAMES
    ]


def left_in(written: list[TritonModel]) -> list[str]:
    return sorted(path.name for path in written[0].repository.iterdir())


def undo(servers: Any, written: list[TritonModel]) -> list[str]:
    """Take back, and return what is left in the repository."""
    take_back(servers, servers, ENDPOINT, written)
    return left_in(written)


def test_the_ensemble_goes_first_and_what_was_there_before_stays(written: list[TritonModel]) -> None:
    """No endpoint asks for it any more, then the ensemble, then its steps; a model of an earlier run is not ours."""
    servers = Servers()
    assert undo(servers, written) == ["street_4_detector"]
    assert servers.done == [
        "unregister street/4", "unload street_4", "unload street_4_postprocess", "unload street_4_preprocess",
    ]  # fmt: skip


def test_what_the_alias_points_at_stays(written: list[TritonModel]) -> None:
    """A route to a version that is gone would freeze every endpoint."""
    servers = Servers(routed=True)
    with pytest.raises(ServiceError, match="points at it"):
        undo(servers, written)
    assert left_in(written) == sorted(NAMES)
    assert not servers.done


def test_nothing_is_taken_from_under_a_service_that_cannot_be_asked(written: list[TritonModel]) -> None:
    """The alias may point at it."""
    servers = Servers(away=True)
    with pytest.raises(ServiceError, match="could not be read"):
        undo(servers, written)
    assert left_in(written) == sorted(NAMES)
    assert not servers.done


def test_one_model_that_does_not_go_keeps_no_other(written: list[TritonModel]) -> None:
    """The rest is unloaded and removed all the same; its own folder stays, by which the next try finds it."""
    servers = Servers(stuck="street_4")
    with pytest.raises(ServiceError, match="not taken back whole") as caught:
        undo(servers, written)
    assert "street_4 was refused" in caught.value.evidence
    assert left_in(written) == ["street_4", "street_4_detector"]
    assert servers.done[1:] == ["unload street_4_postprocess", "unload street_4_preprocess"]
    assert undo(Servers(), written) == ["street_4_detector"]


def test_a_folder_that_cannot_be_removed_is_said_to_stay(
    written: list[TritonModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the disk says to it: nobody may note that all of it is gone."""

    def refuse(folder: Path, _target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ServiceError, match="not taken back whole") as caught:
        undo(Servers(), written)
    assert "Permission denied" in caught.value.evidence
