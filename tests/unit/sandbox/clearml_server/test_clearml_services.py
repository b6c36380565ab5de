"""Rules that no recording shows: the services called as the API calls them, without a network."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tao2serve.sandbox.clearml_server.call import COMPANY, Identity
from tao2serve.sandbox.clearml_server.dispatch import Dispatcher, Request
from tao2serve.sandbox.clearml_server.services.auth.tokens import Credentials, Gate
from tao2serve.sandbox.clearml_server.store import Store

Ask = Callable[..., Any]
_BASIC = "Basic " + base64.b64encode(b"key:secret").decode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty database."""
    opened = Store(tmp_path / "db.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def dispatcher(store: Store) -> Dispatcher:
    """A server without sockets."""
    gate = Gate(
        credentials=Credentials(access_key="key", secret_key="secret"), key=b"k" * 32, user="u", company=COMPANY
    )
    return Dispatcher(store, gate, who=Identity())


@pytest.fixture
def ask(dispatcher: Dispatcher) -> Ask:
    """Make a call; return its data, or the code, subcode and message of its error."""

    def call(endpoint: str, **params: Any) -> Any:
        body = json.dumps(params).encode()
        request = Request(path=f"/v2.31/{endpoint}", query="", authorization=_BASIC, body=body)
        answer = json.loads(dispatcher.answer(request).body)
        meta = answer["meta"]
        if meta["result_code"] != 200:
            return meta["result_code"], meta["result_subcode"], meta["result_msg"]
        return answer["data"]

    return call


def _task(ask: Ask, **fields: Any) -> str:
    identifier: str = ask("tasks.create", **{"name": "task", "type": "training", **fields})["id"]
    return identifier


def test_deleting_a_task_keeps_drafts_that_others_use(ask: Ask) -> None:
    """A draft goes with its task unless another task names it as input; published models always stay."""
    maker, user = _task(ask), _task(ask)
    draft, used, ready = (
        ask("models.create", name=name, uri=f"http://f/{name}", task=maker, ready=name == "ready")["id"]
        for name in ("draft", "used", "ready")
    )
    ask("tasks.add_or_update_model", task=user, name="in", model=used, type="input")
    answer = ask("tasks.delete", task=maker, return_file_urls=True)
    assert (answer["deleted_models"], answer["updated_models"]) == (1, 2)
    assert answer["urls"]["model_urls"] == ["http://f/draft"]
    left = ask("models.get_all", only_fields=["id", "task"])["models"]
    assert {model["id"] for model in left} == {used, ready}
    assert {model["task"] for model in left} == {f"__DELETED__{maker}"}
    assert ask("models.get_by_id", model=draft)[:2] == (400, 201)


def test_renaming_a_project_renames_what_is_below(ask: Ask) -> None:
    """Children follow; a taken name and another place are refused."""
    leaf = ask("projects.create", name="Top/Middle/Leaf")["id"]
    ask("projects.create", name="Top/Other")
    middle = ask("projects.get_all", name="^Top/Middle$")["projects"][0]["id"]
    assert ask("projects.update", project=middle, name="Top/Renamed")["fields"] == {"name": "Top/Renamed"}
    assert ask("projects.get_by_id", project=leaf)["project"]["name"] == "Top/Renamed/Leaf"
    assert ask("projects.get_by_id", project=middle)["project"]["basename"] == "Renamed"
    assert ask("projects.update", project=middle, name="Top/Other")[:2] == (400, 801)
    assert ask("projects.update", project=middle, name="Elsewhere")[:2] == (400, 12)


def test_scrolling_ends_with_an_empty_page(ask: Ask) -> None:
    """Pages of a scroll partition the list, and the page after the last one is empty."""
    made = [_task(ask, name=f"task {number}") for number in range(5)]
    first = ask("tasks.get_all_ex", size=2, scroll_id=None, only_fields=["id"])
    pages = [first["tasks"]]
    for _ in range(3):
        pages.append(ask("tasks.get_all_ex", size=2, scroll_id=first["scroll_id"], only_fields=["id"])["tasks"])
    assert [task["id"] for page in pages for task in page] == made
    assert pages[-1] == []


def test_event_pages_end_with_an_empty_page(ask: Ask) -> None:
    """The same holds for a task's events."""
    task = _task(ask)
    for number in range(3):
        ask("events.add", type="log", task=task, msg=str(number), timestamp=number)
    first = ask("events.get_task_events", task=task, batch_size=2)
    second = ask("events.get_task_events", task=task, batch_size=2, scroll_id=first["scroll_id"])
    third = ask("events.get_task_events", task=task, batch_size=2, scroll_id=first["scroll_id"])
    assert [[event["msg"] for event in part["events"]] for part in (first, second, third)] == [["0", "1"], ["2"], []]


def test_logs_are_read_in_both_directions(ask: Ask) -> None:
    """Earlier gives the latest lines before a time, later the first ones after it."""
    task = _task(ask)
    for number in range(5):
        ask("events.add", type="log", task=task, msg=str(number), timestamp=number)

    def lines(**params: Any) -> str:
        return "".join(event["msg"] for event in ask("events.get_task_log", task=task, **params)["events"])

    assert lines(batch_size=2) == "43"
    assert lines(batch_size=2, order="asc") == "34"
    assert lines(batch_size=2, from_timestamp=3) == "21"
    assert lines(batch_size=2, from_timestamp=1, navigate_earlier=False) == "23"


def test_long_curves_are_thinned(ask: Ask) -> None:
    """More points than asked for are averaged with their neighbours; order and range stay."""
    task = _task(ask)
    for number in range(10):
        event = {"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v"}
        ask("events.add", **event, value=float(number), iter=number)
    curve = ask("events.scalar_metrics_iter_histogram", task=task, samples=5)["m"]["v"]
    assert curve["x"] == [0, 2, 4, 6, 8]
    assert curve["y"] == [0.5, 2.5, 4.5, 6.5, 8.5]


def test_a_queue_gives_tasks_in_order_and_an_agent_takes_them(ask: Ask) -> None:
    """First in, first out; an agent that took a task names its new state when it takes it off the queue."""
    tasks = [_task(ask), _task(ask)]
    queue = ask("queues.get_default")["id"]
    for task in tasks:
        assert ask("tasks.enqueue", task=task)["queued"] == 1
    taken = [ask("queues.get_next_task", queue=queue)["entry"]["task"] for _ in tasks]
    assert taken == tasks
    assert ask("queues.get_next_task", queue=queue) == {}
    assert ask("tasks.dequeue", task=tasks[0], new_status="in_progress")["fields"]["status"] == "in_progress"
    assert ask("tasks.get_by_id", task=tasks[0])["task"]["status"] == "in_progress"
    assert ask("tasks.dequeue", task=tasks[0])[:2] == (400, 110)


def test_hidden_documents_show_only_when_asked_for(ask: Ask) -> None:
    """Hidden projects and tasks are listed with `search_hidden` or by id."""
    project = ask("projects.create", name="Secret", system_tags=["hidden"])["id"]
    task = _task(ask, system_tags=["hidden"])
    assert ask("projects.get_all") == {"projects": []}
    assert ask("tasks.get_all") == {"tasks": []}
    assert len(ask("projects.get_all", search_hidden=True)["projects"]) == 1
    assert len(ask("tasks.get_all", search_hidden=True)["tasks"]) == 1
    assert ask("projects.get_all", id=[project], only_fields=["id"]) == {"projects": [{"id": project}]}
    assert ask("tasks.get_all", id=[task], only_fields=["id"]) == {"tasks": [{"id": task}]}


@pytest.mark.parametrize(
    "params",
    [{"only_fields": 5}, {"only_fields": [1]}, {"order_by": {}, "page": 0}, {"page_size": "x"}, {"page": [1]}],
)
def test_parameters_of_the_wrong_type_are_refused(ask: Ask, params: dict[str, Any]) -> None:
    """Listings say what is wrong instead of failing; an empty object orders by nothing."""
    answer = ask("tasks.get_all", **params)
    assert answer == {"tasks": []} or answer[:2] == (400, 12)


def test_defects_are_answers_too(dispatcher: Dispatcher, ask: Ask, store: Store) -> None:
    """A fault of the server is 500 in the envelope, and counted."""
    store.close()
    code, _, message = ask("tasks.get_all")
    assert code == 500
    assert "tasks.get_all" in message
    assert dispatcher.tally.report()["defects"] == {"tasks.get_all": 1}
