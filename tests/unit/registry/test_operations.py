"""Whether an operation that ClearML holds as running goes on, and what is read of who runs it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tao2serve import identity
from tao2serve.identity import Holder, holder
from tao2serve.registry import publish
from tao2serve.registry.operations import OperationRecord, _record
from tao2serve.registry.package import Package

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GONE = Holder(user="u", host="h", place=holder().place, pid=2**22 + 1, identity="none")
ELSEWHERE = replace(GONE, place="x")


def record_of(by: Holder | None, *, status: str = "in_progress") -> OperationRecord:
    return OperationRecord(
        task_id="t", kind="deploy", endpoint="street", status=status, created=NOW, last_update=NOW, holder=by,
        properties={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("by", "silent_s", "goes_on"),
    [
        (holder(), 0, True),
        (holder(), 9999, True),  # stopped by its user, or asleep with its machine: it may go on at any moment
        (GONE, 0, False),
        (ELSEWHERE, 0, True),
        (ELSEWHERE, 61, False),
        (None, 0, True),
        (None, 61, False),
    ],
)
def test_an_operation_goes_on_while_its_process_lives(by: Holder | None, silent_s: float, goes_on: bool) -> None:
    """Here the process is looked for, and that alone counts; of another machine's only the signs of life are seen."""
    now = NOW + timedelta(seconds=silent_s)
    assert record_of(by).goes_on(now) is goes_on
    assert not record_of(by, status="failed").goes_on(now)


@pytest.mark.parametrize("other", [PermissionError, None])
def test_a_process_that_is_hidden_is_not_taken_for_gone(
    other: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc mounted with hidepid=2 shows no process of another user; whether it lives only its signs tell then."""

    def hidden(_pid: int) -> list[str]:
        raise FileNotFoundError

    def kill(_pid: int, _signal: int) -> None:
        if other is not None:
            raise other

    monkeypatch.setattr(identity, "_stat", hidden)
    monkeypatch.setattr(os, "kill", kill)
    strange = replace(GONE, pid=4711)
    assert not strange.is_gone()
    assert not strange.is_here()
    assert record_of(strange).goes_on(NOW)
    assert not record_of(strange).goes_on(NOW + timedelta(seconds=61))


def task_of(said: str, **more: Any) -> Any:
    properties = {"kind": "deploy", "endpoint": "street", "holder": said}
    document = {
        "id": "t", "status": "in_progress",
        "hyperparams": {"properties": {name: {"value": value} for name, value in properties.items()}},
        **more,
    }  # fmt: skip
    return SimpleNamespace(data=SimpleNamespace(to_dict=lambda: document, created=NOW, last_update=NOW))


@pytest.mark.parametrize(
    ("used", "trained_id"),
    [
        ([{"name": "published artifact", "model": "p"}, {"name": "trained model", "model": "m"}], "m"),
        ([{"name": "published artifact", "model": "p"}], ""),  # made from a file
        ([{"name": "trained model", "model": "__DELETED__m"}], "m"),
        (None, ""),
    ],
)
def test_a_deployment_tells_what_it_was_made_from(used: Any, trained_id: str) -> None:
    """By its input models: the trained one, not the published one that it found; also once ClearML has deleted it."""
    record = _record(task_of("", models={"input": used}))
    assert record is not None
    assert record.trained_id == trained_id


def test_what_a_later_release_says_besides_is_passed_over() -> None:
    """It is the same process all the same; one of which a part is missing is not known."""
    record = _record(task_of(json.dumps({**asdict(ELSEWHERE), "container": "c1"})))
    assert record is not None
    assert record.holder == ELSEWHERE
    for said in ("", "[]", "{}", json.dumps({"pid": 1}), "null"):
        unknown = _record(task_of(said))
        assert unknown is not None
        assert unknown.holder is None


def test_a_published_model_is_found_by_its_digest_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A server that does not know the filter gives all models: none of another content is taken for this one."""

    def model(name: str, digest: str) -> Any:
        return SimpleNamespace(
            id=name, url=f"http://files/{name}.zip", published=True, get_metadata={"package_sha256": digest}.get
        )

    models = [model("other", "b" * 64), model("same", "a" * 64)]
    sdk = SimpleNamespace(Model=SimpleNamespace(query_models=lambda **_: models))
    monkeypatch.setattr(publish, "clearml", lambda: sdk)
    monkeypatch.setattr(publish, "is_whole", lambda _uri: True)
    package = Package(path=tmp_path / "p.zip", sha256="a" * 64, bytes=1)
    found = publish.find_published(package, preferred=("other",))
    assert found is not None
    assert found.model_id == "same"
    models.pop()
    assert publish.find_published(package) is None
