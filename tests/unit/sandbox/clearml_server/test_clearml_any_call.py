"""Calls nobody would make: whatever the parameters, the answer is an envelope and no defect."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tao2serve.sandbox.clearml_server.call import COMPANY, Identity, Route
from tao2serve.sandbox.clearml_server.dispatch import Dispatcher, Request
from tao2serve.sandbox.clearml_server.routes import route_table
from tao2serve.sandbox.clearml_server.services.auth.tokens import Credentials, Gate
from tao2serve.sandbox.clearml_server.store import Store

_BASIC = "Basic " + base64.b64encode(b"key:secret").decode()
_GATE = Gate(credentials=Credentials(access_key="key", secret_key="secret"), key=b"k" * 32, user="u", company=COMPANY)
_ROUTES = route_table(_GATE)
_ENTRY = {"section": "a", "name": "b", "value": "c", "key": "k", "type": "input"}
_VALUES: tuple[Any, ...] = (
    *(5, -1, 1.5, True, False, None, "", "x", "created", "input", "training"),
    *([], ["x"], [1], [None], [[]], [{}], {}, {"a": 1}, {"a": {"b": _ENTRY}}, [_ENTRY]),
)
_COMMON = (
    *("id", "name", "tags", "system_tags", "only_fields", "order_by", "page", "page_size", "size", "scroll_id"),
    *("status", "_any_", "filters", "metadata.a", "created", "last_update", "force", "search_text", "iters"),
)
_DELETES = ("tasks.delete", "tasks.delete_many", "models.delete", "models.delete_many", "projects.delete")
_ROUNDS = 12


def _ask(dispatcher: Dispatcher, endpoint: str, params: dict[str, Any]) -> dict[str, Any]:
    request = Request(path=f"/v2.31/{endpoint}", query="", authorization=_BASIC, body=json.dumps(params).encode())
    answer: dict[str, Any] = json.loads(dispatcher.answer(request).body)
    return answer


def _params(route: Route, known: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    params = {} if route.name in _DELETES else {k: v for k, v in known.items() if chance.random() < 0.85}
    for name in (*chance.sample(_COMMON, 4), *(field.name for field in route.fields)):
        if chance.random() < 0.5 and name not in known:
            params[name] = chance.choice(_VALUES)
    return params


@pytest.mark.parametrize("seed", range(3))
def test_no_parameters_find_a_defect(tmp_path: Path, seed: int) -> None:
    """Every endpoint, with good ids and odd values beside them, answers in the envelope without a defect."""
    store = Store(tmp_path / "db.sqlite")
    dispatcher = Dispatcher(store, _GATE, who=Identity())
    chance = random.Random(seed)
    project = _ask(dispatcher, "projects.create", {"name": "Proj/Sub"})["data"]["id"]
    task = _ask(dispatcher, "tasks.create", {"name": "task", "type": "training", "project": project})["data"]["id"]
    model = _ask(dispatcher, "models.create", {"name": "model", "uri": "u", "task": task})["data"]["id"]
    queue = _ask(dispatcher, "queues.get_default", {})["data"]["id"]
    known = {"task": task, "model": model, "project": project, "queue": queue, "uri": "u"}
    known |= {"ids": [task, model], "tasks": [task], "name": "some", "type": "training"}
    for _ in range(_ROUNDS):
        for route in _ROUTES.values():
            meta = _ask(dispatcher, route.name, _params(route, known, chance))["meta"]
            assert meta["endpoint"]["name"] == route.name
    assert dispatcher.tally.report()["defects"] == {}
    store.close()
