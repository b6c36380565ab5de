"""The page of `status`, on terminals of several widths."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tao2serve.cli.status import status_text
from tao2serve.identity import Holder
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.instances import Instance
from tao2serve.serving.judgement import EndpointStatus, Note, VersionStatus
from tao2serve.serving.state import Registered, Route, ServiceState
from tao2serve.serving.status import ServiceStatus, Side
from tao2serve.triton.control import ModelTraffic

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL = "0123456789abcdef0123456789abcdef"


def version_of(number: int, share: float) -> VersionStatus:
    return VersionStatus(
        version=number, url=f"http://host:8080/serve/street/{number}", share=share, other_aliases=(), model_id=MODEL,
        model_is_there=number != 1, precision="int8", source_id="s", source_name="resnet18_street_pruned_retrained_qat",
        triton_model=f"street_{number}", is_ready=number != 2,
        traffic=ModelTraffic(answered=1_234_567, failed=3, last_request=NOW), known_to=("i",), instances=2,
    )  # fmt: skip


OPERATION = OperationRecord(
    task_id="t", kind="promote", endpoint="street", status="failed", created=NOW - timedelta(minutes=3),
    last_update=NOW,
    holder=Holder(user="someone", host="a-machine", place="p", pid=1, identity="i"), properties={"version": "3"},
    message="alias street: is not applied by every inference instance after 371 s",
)  # fmt: skip
STATE = ServiceState(
    endpoints={"street/3": Registered(url="street/3")},
    routes={"street": Route(name="street", urls=("street/3",), weights=(1.0,))},
)
STATUS = ServiceStatus(
    service_id=MODEL, service_name="detectors", service_status="in_progress",
    inference=Side(address="http://inference.example.com:8080/serve", is_there=True),
    triton=Side(address="triton.example.com:8001", is_there=False, problem="cannot be reached or is not ready"),
    repository="/srv/models", poll_s=300.0,
    instances=(Instance(task_id="i", host="h", silent_s=1.0, poll_s=300.0, state=STATE),
               Instance(task_id="j", host="h", silent_s=1.0, poll_s=None, state=ServiceState())),
    state=STATE,
    endpoints=(EndpointStatus(
        name="street", url="http://inference.example.com:8080/serve/street", has_alias=True, weights={3: 0.9, 2: 0.1},
        versions=(version_of(1, 0), version_of(2, 0.1), version_of(3, 0.9)), missing=(), route_applied=1, instances=2,
        operations=(OPERATION,),
    ),),
    running=(replace(OPERATION, status="in_progress", kind="deploy"),), now=NOW,
    notes=(Note(kind="orphan", subject="street_9", fact="is a folder of ours with no registered version",
                mend="tao2serve undeploy street/9"),),
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_page_fits(width: int) -> None:
    """No line is longer than the terminal; every version, its share and its readiness are there."""
    text = status_text(STATUS, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "90 %" in text
    assert "1,234,567" in text
    assert "not ready" in text
    assert "1 of 2" in text
    assert "3 min ago  promote 3, failed by someone@a-machine" in text
    assert "is away" in text
    assert "tao2serve undeploy street/9" in text


def test_a_wide_page_has_ids_that_can_be_copied() -> None:
    """A narrow one leaves them to --json."""
    assert MODEL in status_text(STATUS, width=160).split("last operations")[0].split("street  ")[1]
    assert f"{MODEL} (gone)" in status_text(STATUS, width=160)


def test_no_repository_is_shown_where_the_controller_has_its_own() -> None:
    """It says who runs Triton instead; without it, a repository that is not known says which setting tells."""
    text = status_text(replace(STATUS, repository="", managed=True), width=160)
    assert "repository" not in text.split("street  ")[0]
    assert "ClearML Serving's own controller runs it" in text
    assert "set TAO2SERVE_MODEL_REPOSITORY" in status_text(replace(STATUS, repository=""), width=160)


def test_nothing_deployed_says_what_to_do() -> None:
    """It is no error."""
    text = status_text(replace(STATUS, endpoints=(), running=(), notes=()), width=80)
    assert "tao2serve deploy" in text


def test_the_document_holds_all_of_it() -> None:
    """As JSON, with readiness by instance."""
    document = json.loads(json.dumps(STATUS.to_dict()))
    assert [instance["current"] for instance in document["instances"]] == [True, False]
    (endpoint,) = document["endpoints"]
    assert endpoint["route"] == {"3": 0.9, "2": 0.1}
    assert endpoint["versions"][2]["known_to_instances"] == ["i"]
    assert endpoint["versions"][2]["triton"]["requests_since_load"] == 1_234_567
    assert endpoint["operations"][0]["by"] == "someone@a-machine, pid 1"
    assert document["triton"]["reachable"] is False
    assert document["notes"][0]["next"] == "tao2serve undeploy street/9"
