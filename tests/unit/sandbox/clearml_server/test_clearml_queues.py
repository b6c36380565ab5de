"""Queues, workers and pipelines: rules that no recording shows."""

from __future__ import annotations

import base64
import json
import time
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
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Make a call; return its data, or the code, subcode and message of its error."""
    store = Store(tmp_path / "db.sqlite")
    gate = Gate(credentials=Credentials(access_key="key", secret_key="secret"), key=b"k" * 32, user="u", company="c")
    dispatcher = Dispatcher(store, gate, who=Identity())

    def call(endpoint: str, **params: Any) -> Any:
        body = json.dumps(params).encode()
        request = Request(path=f"/v2.31/{endpoint}", query="", authorization=_BASIC, body=body)
        answer = json.loads(dispatcher.answer(request).body)
        meta = answer["meta"]
        if meta["result_code"] != 200:
            return meta["result_code"], meta["result_subcode"], meta["result_msg"]
        return answer["data"]

    yield call
    store.close()


def _task(ask: Ask, **fields: Any) -> str:
    return str(ask("tasks.create", **{"name": "task", "type": "training", **fields})["id"])


def _queued(ask: Ask, number: int) -> tuple[str, list[str]]:
    queue = ask("queues.create", name="gpu")["id"]
    tasks = [_task(ask) for _ in range(number)]
    for task in tasks:
        ask("tasks.enqueue", task=task, queue=queue)
    return queue, tasks


def _order(ask: Ask, queue: str) -> list[str]:
    return [entry["task"] for entry in ask("queues.get_by_id", queue=queue)["queue"]["entries"]]


def test_tasks_are_moved_within_their_queue(ask: Ask) -> None:
    """Each move says where the task stands then, never beyond an end; one that is not in the queue is refused."""
    queue, (first, second, third) = _queued(ask, 3)
    assert ask("queues.move_task_to_front", queue=queue, task=third) == {"position": 0}
    assert _order(ask, queue) == [third, first, second]
    assert ask("queues.move_task_to_back", queue=queue, task=third) == {"position": 2}
    assert ask("queues.move_task_backward", queue=queue, task=first, count=9) == {"position": 2}
    assert ask("queues.move_task_forward", queue=queue, task=first) == {"position": 1}
    assert _order(ask, queue) == [second, first, third]
    assert ask("queues.move_task_to_front", queue=queue, task=_task(ask))[:2] == (400, 703)


def test_metadata_of_a_queue_is_merged_and_removed(ask: Ask) -> None:
    """Items with other keys stay, unless all are to be replaced."""
    queue = ask("queues.get_default")["id"]
    items = [{"key": name, "type": "str", "value": name.upper()} for name in ("a", "b")]
    ask("queues.add_or_update_metadata", queue=queue, metadata=items[:1])
    ask("queues.add_or_update_metadata", queue=queue, metadata=items[1:])
    ask("queues.delete_metadata", queue=queue, keys=["a", "unknown"])
    assert ask("queues.get_by_id", queue=queue)["queue"]["metadata"] == {"b": items[1]}


def test_a_queue_names_its_workers_and_a_worker_its_queues_and_task(ask: Ask) -> None:
    """What serves a queue is read from either side, by name; a worker that unregistered is gone from both."""
    queue, (task, _) = _queued(ask, 2)
    ask("workers.register", worker="gpu-1:0", queues=[queue], timeout=60)
    assert ask("queues.get_next_task", queue=queue, get_task_info=True)["task_info"]["company"] == COMPANY
    ask("tasks.started", task=task)
    ask("workers.status_report", worker="gpu-1:0", queues=[queue], task=task, timestamp=int(time.time()))
    (worker,) = ask("workers.get_all")["workers"]
    assert worker["queues"][0] | {"next_task": None} == {"id": queue, "name": "gpu", "num_tasks": 1, "next_task": None}
    assert (worker["task"]["id"], worker["task"]["name"]) == (task, "task")
    (shown,) = [one for one in ask("queues.get_all_ex")["queues"] if one["id"] == queue]
    assert [one["name"] for one in shown["workers"]] == ["gpu-1:0"]
    ask("workers.unregister", worker="gpu-1:0")
    assert ask("workers.get_all") == {"workers": []}


def test_a_worker_that_is_silent_for_longer_than_it_registered_is_gone(ask: Ask) -> None:
    """Then it is not listed any more, and its queue counts as watched by nobody."""
    queue = ask("queues.get_default")["id"]
    ask("workers.register", worker="gpu-1:0", queues=[queue], timeout=1)
    assert ask("tasks.enqueue", task=_task(ask), queue=queue, verify_watched_queue=True)["queue_watched"] is True
    time.sleep(1.1)
    assert ask("workers.get_all") == {"workers": []}
    assert ask("tasks.enqueue", task=_task(ask), queue=queue, verify_watched_queue=True)["queue_watched"] is False


def test_stopping_what_a_worker_runs_asks_the_worker(ask: Ask) -> None:
    """The task stays in progress with the message that agents look for; one that nobody runs is stopped at once."""
    queue, (run, other) = _queued(ask, 2)
    for task in (run, other):
        ask("tasks.dequeue", task=task, new_status="in_progress")
    ask("workers.status_report", worker="gpu-1:0", queues=[queue], task=run, timestamp=1)
    assert ask("tasks.stop", task=run)["fields"]["status"] == "in_progress"
    assert ask("tasks.get_by_id", task=run)["task"]["status_message"] == "stopping"
    assert ask("tasks.stop_many", ids=[other])["succeeded"][0]["fields"]["status"] == "stopped"
    assert ask("tasks.stopped", task=run)["fields"]["status"] == "stopped"


def test_many_tasks_are_queued_and_taken_out_at_once(ask: Ask) -> None:
    """Each id has an answer of its own; one that is queued already fails alone."""
    tasks = [_task(ask), _task(ask)]
    ask("tasks.enqueue", task=tasks[0])
    answer = ask("tasks.enqueue_many", ids=tasks, verify_watched_queue=True)
    assert [one["id"] for one in answer["succeeded"]] == tasks[1:]
    assert [one["id"] for one in answer["failed"]] == tasks[:1]
    assert answer["queue_watched"] is False
    assert [one["id"] for one in ask("tasks.dequeue_many", ids=tasks)["succeeded"]] == tasks
    assert ask("queues.get_num_entries", queue=ask("queues.get_default")["id"])["num"] == 0


def test_a_pipeline_is_started_as_a_copy_with_arguments(ask: Ask) -> None:
    """The copy waits in the queue with the arguments given; the original stays what it was."""
    mine = {"Args": {"x": {"section": "Args", "name": "x", "value": "1"}}}
    source = _task(ask, type="controller", hyperparams=mine, system_tags=["pipeline"])
    queue = ask("queues.get_default")["id"]
    answer = ask("pipelines.start_pipeline", task=source, queue=queue, args=[{"name": "x", "value": 2}])
    assert answer["enqueued"] is True
    copy = ask("tasks.get_by_id", task=answer["pipeline"])["task"]
    assert copy["hyperparams"]["Args"]["x"]["value"] == "2"
    assert (copy["status"], copy["system_tags"], copy["parent"]) == ("queued", ["pipeline"], source)
    assert ask("tasks.get_by_id", task=source)["task"]["hyperparams"] == mine


def test_numbers_of_workers_are_averaged_by_interval(ask: Ask) -> None:
    """What agents report of their machines comes back by worker and metric, and counts who was busy."""
    task = _task(ask)
    for value in (10.0, 30.0):
        ask("workers.status_report", worker="gpu-1:0", task=task, machine_stats={"cpu_usage": [value]}, timestamp=1)
    begin = time.time() - 60
    asked = {"from_date": begin, "to_date": begin + 120, "interval": 120}
    (found,) = ask("workers.get_stats", **asked, items=[{"key": "cpu_usage"}, {"key": "gpu_usage"}])["workers"]
    (metric,) = found["metrics"]
    assert metric["stats"][0]["values"] == [20.0]
    assert ask("workers.get_activity_report", **asked)["active"]["counts"] == [1]
    assert ask("workers.get_metric_keys")["categories"] == [{"name": "cpu", "metric_keys": ["cpu_usage"]}]
