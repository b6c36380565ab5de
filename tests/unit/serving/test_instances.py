"""Which inference instances live, how often they look, and what they say they serve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tao2serve.config import Settings
from tao2serve.serving import instances as subject
from tao2serve.serving.instances import Instance, Instances, poll_of
from tao2serve.serving.state import ServiceState

# The SDK's reader of configuration objects uses names that pyparsing is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOME = SimpleNamespace(name="street service", project="p")
STARTS = "Starting up ModelRequestProcessor [pid=7] [service_id=abc]\nModelRequestProcessor [id=abc] loaded"
LOOKS = "Instance [1, pid=7]: Launching - configuration sync every 300.0 sec"


def instance_of(poll_s: float | None, *, silent_s: float = 0.0) -> Instance:
    return Instance(task_id="t", host="h", silent_s=silent_s, poll_s=poll_s, state=ServiceState())


@pytest.mark.parametrize(
    ("found", "setting", "expected"),
    [
        ([instance_of(1.0), instance_of(60.0)], None, 60.0),
        ([instance_of(1.0), instance_of(60.0, silent_s=121)], None, 1.0),
        ([instance_of(1.0), instance_of(None)], None, 300.0),
        ([], None, 300.0),
        ([instance_of(60.0)], 2.5, 2.5),
    ],
)
def test_the_slowest_living_instance_counts(found: list[Instance], setting: float | None, expected: float) -> None:
    """One that says nothing looks every five minutes; a setting is believed over all of them."""
    assert poll_of(found, Settings(serving_poll_s=setting)) == expected


class Api:
    """ClearML's answers about one inference task: what its console holds, from its beginning and its end."""

    def __init__(self, first: list[str], last: list[str]) -> None:
        self.asked: list[bool] = []
        self._lines = {False: first, True: last}
        self.events = self

    def get_task_log(self, *, task: str, batch_size: int, navigate_earlier: bool) -> Any:
        self.asked.append(navigate_earlier)
        events = [{"msg": line, "timestamp": index} for index, line in enumerate(self._lines[navigate_earlier])]
        return SimpleNamespace(response=SimpleNamespace(to_dict=lambda: {"events": events[::-1]}))


def task_of(name: str = "street service - serve instance", *, project: str = "p", silent_s: float = 3.0) -> Any:
    canary = 'street {\n  endpoint = "street"\n  weights = [1.0]\n  load_endpoints = ["street/1"]\n}'
    return SimpleNamespace(
        id="1", name=name, project=project, last_update=NOW - timedelta(seconds=silent_s), runtime={"hostname": "box"},
        configuration={"canary": SimpleNamespace(value=canary), "endpoints": SimpleNamespace(value="")},
    )  # fmt: skip


def read(api: Api, task: Any, service_id: str = "abc") -> Instance | None:
    return Instances(service_id, _api=api)._instance(task, HOME, NOW)


def test_the_console_says_whose_it_is_and_how_often_it_looks() -> None:
    """Whatever the task is called; it is asked once, however often the instance is looked at."""
    api = Api([STARTS, LOOKS], [])
    instances = Instances("abc", _api=api)
    found = [instances._instance(task_of("renamed"), HOME, NOW) for _ in range(3)]
    assert found[0] is not None
    assert (found[0].poll_s, found[0].host, found[0].silent_s, found[0].is_alive) == (300.0, "box", 3.0, True)
    assert found[0].state.routes["street"].urls == ("street/1",)
    assert api.asked == [False]


def test_an_instance_of_another_service_is_not_ours() -> None:
    """Even if both services have the same name, in the same project."""
    assert read(Api([STARTS, LOOKS], []), task_of(), service_id="other") is None


def test_a_continued_task_is_read_from_its_end() -> None:
    """CLEARML_INFERENCE_TASK_ID goes on with an old task, whose first lines are of another life."""
    again = LOOKS.replace("300.0", "6.0")
    found = read(Api(["long ago"], [STARTS, LOOKS, STARTS, again]), task_of("renamed"))
    assert found is not None
    assert found.poll_s == 6.0


def test_a_console_that_is_gone_leaves_the_name() -> None:
    """clearml-serving's own name for it, in the service's project; another project's is not ours."""
    assert read(Api([], []), task_of()) is not None
    assert read(Api([], []), task_of(project="q")) is None
    assert read(Api([], []), task_of("something")) is None


def test_one_that_is_silent_is_dead() -> None:
    """Four missed beats of the SDK."""
    found = read(Api([STARTS, LOOKS], []), task_of(silent_s=121))
    assert found is not None
    assert not found.is_alive
    assert subject.SILENCE_S == 4 * 30
