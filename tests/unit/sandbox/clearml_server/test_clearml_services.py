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
    refused = ask("tasks.delete", task=maker)
    assert refused == (400, 123, f"Task cannot be deleted (has output models, use force=True): task={maker}, models=1")
    answer = ask("tasks.delete", task=maker, return_file_urls=True, force=True)
    assert (answer["deleted_models"], answer["updated_models"]) == (1, 1)
    assert answer["urls"]["model_urls"] == ["http://f/draft"]
    left = {model["id"]: model.get("task") for model in ask("models.get_all")["models"]}
    assert left == {used: None, ready: f"__DELETED__{maker}"}
    assert ask("models.get_by_id", model=draft)[:2] == (400, 201)


def test_a_reset_needs_force_where_something_published_depends_on_it(ask: Ask) -> None:
    """Published output models and published children keep a task from a reset; with force they lose their maker."""
    maker = _task(ask)
    child = _task(ask, parent=maker)
    ask("tasks.started", task=child)
    ask("tasks.stopped", task=child)
    ask("tasks.publish", task=child)
    assert ask("tasks.reset", task=maker)[2].endswith(f"(has children, use force=True): task={maker}, children=1")
    ready = ask("models.create", name="ready", uri="http://f/r", task=maker)["id"]
    assert ask("tasks.reset", task=maker, force=True)["deleted_models"] == 0
    assert "task" not in ask("models.get_by_id", model=ready)["model"]
    assert ask("tasks.get_by_id", task=child)["task"]["parent"] == maker


def test_a_published_task_is_reset_with_force_only(ask: Ask) -> None:
    """Without force it is an invalid status; `clear_all` forgets execution and script, and no more."""
    task = _task(ask, script={"repository": "r"}, hyperparams={"General": {"a": {"name": "a", "value": "1"}}})
    ask("tasks.publish", task=task, force=True)
    assert ask("tasks.reset", task=task) == (400, 110, f"Invalid task status: task_id={task}, status=published")
    assert ask("tasks.reset", task=task, force=True)["updated"] == 1
    assert ask("tasks.get_by_id", task=task)["task"]["script"]["repository"] == "r"
    ask("tasks.reset", task=task, clear_all=True)
    left = ask("tasks.get_by_id", task=task)["task"]
    assert left["script"]["repository"] == ""
    assert left["hyperparams"]["General"]["a"]["value"] == "1"


def test_archived_tasks_leave_their_queue_and_may_be_deleted(ask: Ask) -> None:
    """Archiving takes a task out of its queue into the state it had; an archived task is deleted without force."""
    task = _task(ask)
    ask("tasks.started", task=task)
    ask("tasks.stopped", task=task)
    assert ask("tasks.enqueue", task=task, queue="a", queue_name="b")[:2] == (400, 12)
    ask("tasks.enqueue", task=task, queue_name="work")
    queue = ask("queues.get_all", name="work")["queues"][0]["id"]
    assert ask("tasks.delete", task=task)[:2] == (400, 123)
    ask("tasks.archive_many", ids=[task])
    assert ask("tasks.get_by_id", task=task)["task"]["status"] == "stopped"
    assert ask("queues.get_num_entries", queue=queue)["num"] == 0
    assert ask("tasks.delete", task=task)["deleted"]


def test_a_stopped_task_waits_in_no_queue(ask: Ask) -> None:
    """Stopping a queued task takes it out of the queue."""
    task = _task(ask)
    ask("tasks.enqueue", task=task)
    ask("tasks.stop", task=task)
    queue = ask("queues.get_default")["id"]
    assert ask("queues.get_num_entries", queue=queue)["num"] == 0


def test_only_a_published_maker_remembers_a_deleted_model(ask: Ask) -> None:
    """Its output is marked, with a note; another task just loses the output."""
    for publish in (False, True):
        task = _task(ask)
        model = ask("models.create", name="made", uri="http://f/m", task=task, ready=False)["id"]
        ask("tasks.add_or_update_model", task=task, name="m", model=model, type="output")
        if publish:
            ask("tasks.publish", task=task, force=True)
            assert ask("models.delete", model=model)[:2] == (400, 206)
        assert ask("models.delete", model=model, force=publish)["url"] == "http://f/m"
        left = ask("tasks.get_by_id", task=task)["task"]
        assert [entry["model"] for entry in left["models"]["output"]] == [f"__DELETED__{model}"] * publish
        assert ("error" in left["output"]) is publish


def test_a_deleted_project_names_all_files_and_leaves_no_reference(ask: Ask) -> None:
    """With its contents go their events; what refers to them elsewhere is emptied or marked."""
    project = ask("projects.create", name="Doomed")["id"]
    maker = _task(ask, project=project)
    artifact = {"key": "a", "type": "custom", "uri": "http://f/artifact"}
    ask("tasks.add_or_update_artifacts", task=maker, artifacts=[artifact, {**artifact, "key": "b", "mode": "input"}])
    picture = {"type": "training_debug_image", "task": maker, "metric": "m", "variant": "v", "url": "http://f/image"}
    ask("events.add", **picture, iter=1)
    plot = json.dumps({"layout": {"images": [{"source": "http://f/inside"}]}})
    ask("events.add", type="plot", task=maker, metric="p", variant="v", plot_str=plot, iter=1)
    model = ask("models.create", name="weights", uri="http://f/weights", task=maker, project=project)["id"]
    user = _task(ask, parent=maker)
    ask("tasks.add_or_update_model", task=user, name="in", model=model, type="input")
    other = ask("models.create", name="elsewhere", uri="http://f/other", task=maker)["id"]
    assert ask("projects.delete", project=project)[:2] == (400, 402)
    answer = ask("projects.delete", project=project, force=True, delete_contents=True)
    assert answer["urls"] == {
        "model_urls": ["http://f/weights"],
        "artifact_urls": ["http://f/artifact"],
        "event_urls": ["http://f/image", "http://f/inside"],
    }
    left = ask("tasks.get_by_id", task=user)["task"]
    assert "parent" not in left
    assert [entry["model"] for entry in left["models"]["input"]] == ["__DELETED__"]
    assert "task" not in ask("models.get_by_id", model=other)["model"]
    assert ask("events.get_task_events", task=maker)["total"] == 0


def test_models_are_found_by_their_metadata(ask: Ask) -> None:
    """`metadata.KEY.value` takes one value, several, exclusions, and keys with dots; several filters must all hold."""
    for name, digest, precision in (("one", "aa", "fp16"), ("two", "bb", "fp16"), ("three", "bb", "int8")):
        items = {"sha256": digest, "x.precision": precision}
        metadata = {key: {"key": key, "type": "str", "value": value} for key, value in items.items()}
        ask("models.create", name=name, uri=f"http://f/{name}", metadata=metadata)
    ask("models.create", name="bare", uri="http://f/bare")

    def found(**filters: Any) -> list[str]:
        return [model["name"] for model in ask("models.get_all", only_fields=["name"], **filters)["models"]]

    assert found(**{"metadata.sha256.value": "bb"}) == ["two", "three"]
    assert found(**{"metadata.sha256.value": ["aa", "bb"], "metadata.x.precision.value": "fp16"}) == ["one", "two"]
    assert found(**{"metadata.sha256.value": ["-bb"]}) == ["one", "bare"]
    assert found(**{"metadata.sha256.value": "cc"}) == []


def test_tasks_are_found_by_what_a_deployment_notes(ask: Ask) -> None:
    """User properties, status lists, system tags, parent and time select; order and fields are as asked."""
    parent = _task(ask, name="service")
    tasks = [_task(ask, name=f"deploy {number}", parent=parent, tags=["deployment"]) for number in range(3)]
    for number, task in enumerate(tasks):
        ask("tasks.started", task=task)
        value = {"section": "properties", "name": "endpoint", "value": "street" if number else "yard"}
        assert ask("tasks.edit_hyper_params", task=task, hyperparams=[value]) == {"updated": 1}
    ask("tasks.completed", task=tasks[0])
    ask("tasks.archive_many", ids=[tasks[1]])

    def found(**filters: Any) -> list[str]:
        fields = ["id", "last_update", "hyperparams.properties.endpoint.value"]
        listed = ask("tasks.get_all", only_fields=fields, order_by=["-last_update"], **filters)["tasks"]
        assert all(set(task) <= {"id", "last_update", "hyperparams"} for task in listed)
        return [task["id"] for task in listed]

    street = {"hyperparams.properties.endpoint.value": ["street"]}
    assert set(found(**street)) == {tasks[1], tasks[2]}
    assert found(**street, system_tags=["-archived"]) == [tasks[2]]
    assert found(parent=[parent], status=["completed", "failed"], tags=["deployment"]) == [tasks[0]]
    assert set(found(parent=parent, status=["in_progress"])) == {tasks[1], tasks[2]}
    latest = max(ask("tasks.get_by_id", task=task)["task"]["last_update"] for task in tasks)
    assert found(parent=parent)[0] != tasks[1]
    assert ask("tasks.ping", task=tasks[1]) == {}
    assert found(parent=parent)[0] == tasks[1]
    assert found(parent=parent, last_update=[f">{latest}"]) == [tasks[1]]


def test_a_running_task_takes_properties_and_nothing_else(ask: Ask) -> None:
    """Section `properties` is open in every state; other sections of a running task need force."""
    task = _task(ask)
    ask("tasks.started", task=task)
    section = {"section": "General", "name": "a", "value": "1"}
    assert ask("tasks.edit_hyper_params", task=task, hyperparams=[section])[:2] == (400, 110)
    assert ask("tasks.edit_hyper_params", task=task, hyperparams=[section], force=True) == {"updated": 1}
    for state in ("completed", "publish"):
        ask(f"tasks.{state}", task=task)
        owner = {"section": "properties", "name": "p", "value": state}
        assert ask("tasks.edit_hyper_params", task=task, hyperparams=[owner]) == {"updated": 1}


def test_ranges_and_runtime(ask: Ask) -> None:
    """Numbers and times have ranges, open on either side; runtime fields are compared as they are."""
    tasks = [_task(ask, name=f"task {number}") for number in range(3)]
    for number, task in enumerate(tasks[:2]):
        ask("tasks.started", task=task)
        event = {"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v"}
        ask("events.add", **event, value=float(number), iter=10 * number)
        ask("tasks.edit", task=task, runtime={"version": f"1.{number}"}, force=True)

    def found(**filters: Any) -> list[int]:
        return [tasks.index(task["id"]) for task in ask("tasks.get_all", only_fields=["id"], **filters)["tasks"]]

    metric = next(iter(ask("tasks.get_by_id", task=tasks[0])["task"]["last_metrics"]))
    variant = next(iter(ask("tasks.get_by_id", task=tasks[0])["task"]["last_metrics"][metric]))
    assert found(last_iteration=[5, None]) == [1]
    assert found(started=["2000-01-01T00:00:00", None]) == [0, 1]
    assert found(started=[None, "2000-01-01T00:00:00"]) == [2]
    assert found(**{f"last_metrics.{metric}.{variant}.value": [0.5, 2]}) == [1]
    assert found(**{"runtime.version": "1.0"}) == [0]
    assert found(last_update=["2000-01-01T00:00:00", "2001-01-01T00:00:00"]) == []
    assert ask("tasks.get_all", last_iteration=[None, None])[:2] == (400, 12)


def test_an_answer_holds_500_documents(ask: Ask) -> None:
    """Without a page size, or with a larger one, a listing ends at 500; the next page goes on there."""
    made = [ask("models.create", name=f"model {number}", uri="http://f/m")["id"] for number in range(503)]

    def page(**params: Any) -> list[str]:
        return [model["id"] for model in ask("models.get_all", only_fields=["id"], **params)["models"]]

    assert page() == page(page_size=2000) == made[:500]
    assert page(page=1, page_size=500) == made[500:]
    assert ask("models.get_all", page_size=0)[:2] == (400, 12)


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
