"""The database: transactions, creation order, events."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.sandbox.clearml_server.clock import Clock, parse_time
from tao2serve.sandbox.clearml_server.store import Store


def test_a_failed_call_leaves_nothing(tmp_path: Path) -> None:
    """An exception undoes every write of its transaction."""
    store = Store(tmp_path / "db.sqlite")

    def fail() -> None:
        with store.transaction() as tx:
            tx.put("task", {"id": "1"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.transaction() as tx:
        assert list(tx.scan("task")) == []
    store.close()


def test_replacing_keeps_the_place(tmp_path: Path) -> None:
    """A document that is changed keeps its place in creation order."""
    store = Store(tmp_path / "db.sqlite")
    with store.transaction() as tx:
        for identifier in ("b", "a", "c"):
            tx.put("task", {"id": identifier, "project": "p"})
        tx.put("task", {"id": "b", "project": "p", "name": "changed"})
        assert [doc["id"] for doc in tx.scan("task", projects=["p"])] == ["b", "a", "c"]
        assert [doc["id"] for doc in tx.scan("task", ids=["c", "b"])] == ["b", "c"]
        assert tx.by_name("task", "changed") == {"id": "b", "project": "p", "name": "changed"}
    store.close()


def test_a_plot_replaces_the_one_before(tmp_path: Path) -> None:
    """Plots are one per metric, variant and iteration; scalars and logs all stay."""
    store = Store(tmp_path / "db.sqlite")
    base = {"task": "t", "metric": "m", "variant": "v", "iter": 0, "timestamp": 1}
    with store.transaction() as tx:
        for kind in ("plot", "plot", "log", "log", "training_stats_scalar", "training_stats_scalar"):
            tx.add_events([{**base, "type": kind}])
        assert [len(tx.events("t", kind)) for kind in ("plot", "log", "training_stats_scalar")] == [1, 2, 2]
        assert tx.delete_events("t") == 5
    store.close()


def test_the_clock_never_repeats() -> None:
    """Times strictly increase as texts and as times, so that ordering by time has no ties."""
    clock = Clock()
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(set(times))
    moments = [parse_time(time) for time in times]
    assert all(moment is not None for moment in moments)
