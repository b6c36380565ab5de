"""What a watch knows, as the next one of the same name reads it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tao2serve.pipeline import known
from tao2serve.pipeline.known import KnownModel, read_known

NAME = "watch a (b) for ready: street.1"


def _task(identifier: str, name: str, *model_ids: str) -> dict[str, Any]:
    models = [{"model_id": one, "name": one, "state": "done"} for one in model_ids]
    configuration = {known.RECORD: {"value": json.dumps(models)}} if models else {}
    return {"id": identifier, "name": name, "configuration": configuration}


def test_the_newest_record_of_the_name_is_found_behind_any_number_of_other_watches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server compares the name, so others do not push it out; only the record that is read is fetched."""
    others = [_task(f"x{number}", "watch a b for ready: street 1", "wrong") for number in range(150)]
    tasks = [
        *others,
        _task("own", NAME, "own"),
        _task("empty", NAME),
        _task("last", NAME, "m"),
        _task("old", NAME, "o"),
    ]
    fetched: list[str] = []

    def get_all(_service: str, *, fields: list[str], limit: int, name: str, **_: Any) -> list[dict[str, Any]]:
        found = [task for task in tasks if re.search(name, task["name"])][:limit]
        return [{field: task[field] for field in fields} for task in found]

    def get_by_ids(_service: str, ids: list[str], *, fields: list[str], **_: Any) -> dict[str, dict[str, Any]]:
        fetched.extend(ids)
        return {task["id"]: {field: task[field] for field in fields} for task in tasks if task["id"] in ids}

    monkeypatch.setattr(known, "get_all", get_all)
    monkeypatch.setattr(known, "get_by_ids", get_by_ids)
    assert read_known(NAME, other_than="own") == {"m": KnownModel(model_id="m", name="m", state="done")}
    assert fetched == ["empty", "last"]
    assert read_known("watch of another", other_than="own") is None
