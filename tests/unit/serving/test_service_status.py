"""What `status` says of versions: where each came from, and what mends one that is not ready."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.inventory import Inventory
from tao2serve.serving.judgement import EndpointStatus, VersionStatus, judge
from tao2serve.serving.state import Registered, ServiceState
from tao2serve.serving.status import source_of

START = datetime(2026, 1, 1, tzinfo=UTC)
PACKAGE = "published"


def deploy_of(
    number: int, trained_id: str, *, version: str = "2", status: str = "completed", kind: str = "deploy",
    endpoint: str = "street", model: str = PACKAGE,
) -> OperationRecord:  # fmt: skip
    """A deployment; a higher number is newer."""
    return OperationRecord(
        task_id=f"t{number}", kind=kind, endpoint=endpoint, status=status, created=START + timedelta(hours=number),
        last_update=START, holder=None, properties={"version": version, "model": model}, trained_id=trained_id,
    )  # fmt: skip


def source_by(*records: OperationRecord, url: str = "street/2") -> str:
    urls = ("street/1", "street/2")
    state = ServiceState(endpoints={each: Registered(url=each, model_id=PACKAGE) for each in urls})
    newest_first = sorted(records, key=lambda record: record.created, reverse=True)
    return source_of(Inventory(state=state, operations=newest_first), url, published_from="first")


def test_versions_of_one_package_each_name_their_own_trained_model() -> None:
    """Equal content is published once: the model tells only what it was published from first."""
    records = (deploy_of(1, "first", version="1"), deploy_of(2, "second"), deploy_of(3, "third", endpoint="cars"))
    assert source_by(*records, url="street/1") == "first"
    assert source_by(*records) == "second"
    assert source_by(deploy_of(1, "first", version="1"), deploy_of(2, "")) == ""  # a file


@pytest.mark.parametrize(
    "records",
    [
        (),
        (deploy_of(1, "wrong", version="1"),),
        (deploy_of(1, "wrong", kind="promote"),),
        (deploy_of(1, "wrong", endpoint="cars"),),
        (deploy_of(1, "wrong", model="another"),),  # of a run that only meant to take this number
    ],
)
def test_a_version_whose_deployment_is_not_known_falls_back_on_its_model(records: tuple[OperationRecord, ...]) -> None:
    """Its operation was deleted, or somebody else registered it."""
    assert source_by(*records) == "first"


def test_of_several_deployments_of_a_version_the_one_that_made_it_counts() -> None:
    """Not the run that was killed before; not one that found it there; a killed one if there is no other."""
    killed, made, found = deploy_of(1, "killed", status="failed"), deploy_of(2, "made"), deploy_of(3, "found")
    assert source_by(killed, made, found) == "made"
    assert source_by(killed) == "killed"


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("is_managed", [False, True])
def test_only_a_version_that_can_be_loaded_is_said_to_be(share: float, is_managed: bool) -> None:
    """What ClearML Serving's own controller brings to Triton is not loaded by `promote`."""
    version = VersionStatus(
        version=2, url="", share=share, other_aliases=(), model_id="", model_is_there=False, precision="", source_id="",
        source_name="", triton_model="street_2", is_ready=False, traffic=None, known_to=(), instances=0,
        is_managed=is_managed,
    )  # fmt: skip
    endpoint = EndpointStatus(
        name="street", url="", has_alias=True, weights={2: 1.0}, versions=(version,), missing=(), route_applied=0,
        instances=0, operations=(),
    )  # fmt: skip
    notes = judge(
        Inventory(state=ServiceState()), (endpoint,), only="", instances=(), inference_is_there=True,
        triton_is_there=True, managed=is_managed,
    )  # fmt: skip
    (note,) = (note for note in notes if note.kind == "version-not-ready")
    assert ("tao2serve promote" in note.mend) is not is_managed
    assert ("controller" in note.mend) is is_managed


@pytest.mark.parametrize(("managed", "remedy"), [(False, "start it, or"), (True, "start its controller, or")])
def test_a_triton_that_is_away_is_a_fact_whoever_runs_it(managed: bool, remedy: str) -> None:
    """With what mends it."""
    notes = judge(
        Inventory(state=ServiceState()), (), only="", instances=(), inference_is_there=True, triton_is_there=False,
        managed=managed,
    )  # fmt: skip
    (note,) = (note for note in notes if note.kind == "server-away")
    assert note.mend.startswith(remedy)
    assert "TAO2SERVE_TRITON_GRPC" in note.mend
