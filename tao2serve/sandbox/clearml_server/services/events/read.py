"""Reading events back: logs, curves, single values, plots, debug images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...call import Call
from ...clock import event_time, new_id
from ...store import Doc
from ...validation import number_in
from ..reading import texts
from .ingest import IMAGE, LOG, PLOT
from .metrics import SCALAR, SINGLE_VALUE_ITERATION

_SCROLL = "event_scroll"
_LOG_BATCH = 100
_EVENT_BATCH = 500
_CURVE_POINTS = 2000


def task_log(call: Call) -> Mapping[str, Any]:
    """Return a batch of console lines, the latest ones unless told otherwise."""
    events = call.tx.events(call.text("task"), LOG)
    total = len(events)
    earlier = call.flag("navigate_earlier", default=True)
    limit = number_in(call.params, "from_timestamp")
    if limit is not None:
        events = [event for event in events if (event["timestamp"] < limit if earlier else event["timestamp"] > limit)]
    size = number_in(call.params, "batch_size") or _LOG_BATCH
    batch = events[-size:] if earlier else events[:size]
    if call.text("order", "desc" if earlier else "asc") == "desc":
        batch.reverse()
    return {"events": batch, "returned": len(batch), "total": total}


def task_events(call: Call) -> Mapping[str, Any]:
    """Return a page of a task's events; the page after the last one is empty."""
    events = call.tx.events(call.text("task"), call.params.get("event_type"))
    if call.text("order", "asc") == "desc":
        events.reverse()
    page, scroll = _page(call, events, number_in(call.params, "batch_size") or _EVENT_BATCH)
    return {"returned": len(page), "total": len(events), "scroll_id": scroll, "events": page}


def _page(call: Call, events: list[Doc], size: int) -> tuple[list[Doc], str]:
    state = call.tx.get(_SCROLL, call.text("scroll_id")) or {"id": new_id(), "start": 0}
    start = int(state["start"])
    page = events[start : start + size]
    call.tx.put(_SCROLL, {**state, "start": start + len(page)})
    return page, str(state["id"])


def _wanted(call: Call, name: str = "metrics") -> Callable[[Doc], bool]:
    """Return the test of a `metrics` parameter: metrics, each with its variants or all."""
    chosen = {
        str(item["metric"]): texts(item.get("variants"))
        for item in call.params.get(name) or ()
        if isinstance(item, dict) and item.get("metric") is not None
    }

    def test(event: Doc) -> bool:
        if not chosen:
            return True
        variants = chosen.get(str(event.get("metric")))
        return variants is not None and (not variants or event.get("variant") in variants)

    return test


def _curves(call: Call, task: str, test: Callable[[Doc], bool]) -> dict[str, dict[str, list[Doc]]]:
    curves: dict[str, dict[str, list[Doc]]] = {}
    for event in call.tx.events(task, SCALAR):
        if event.get("iter") != SINGLE_VALUE_ITERATION and test(event):
            variants = curves.setdefault(str(event.get("metric") or ""), {})
            variants.setdefault(str(event.get("variant") or ""), []).append(event)
    return curves


def _axis(key: str) -> Callable[[Doc], Any]:
    if key == "timestamp":
        return lambda event: event["timestamp"]
    if key == "iso_time":
        return lambda event: event_time(event["timestamp"])
    return lambda event: int(event.get("iter") or 0)


def _points(events: Sequence[Doc], key: str, samples: int) -> Mapping[str, list[Any]]:
    """Return a curve by rising x; neighbours are averaged down to `samples` points."""
    axis = _axis(key)
    by_x: dict[Any, list[float]] = {}
    for event in events:
        by_x.setdefault(axis(event), []).append(event["value"])
    rows = [(x, sum(values) / len(values)) for x, values in sorted(by_x.items())]
    width = -(-len(rows) // samples) if samples else 1
    groups = [rows[start : start + width] for start in range(0, len(rows), max(width, 1))]
    return {
        "x": [group[0][0] for group in groups],
        "y": [sum(y for _, y in group) / len(group) for group in groups],
    }


def scalar_histogram(call: Call) -> Mapping[str, Any]:
    """Return every scalar curve of a task."""
    samples, key = number_in(call.params, "samples") or _CURVE_POINTS, call.text("key", "iter")
    curves = _curves(call, call.text("task"), _wanted(call))
    return {
        metric: {variant: {"name": variant, **_points(events, key, samples)} for variant, events in variants.items()}
        for metric, variants in curves.items()
    }


def scalar_names(call: Call) -> Mapping[str, Any]:
    """Return the scalars a task reported, by metric."""
    curves = _curves(call, call.text("task"), lambda _: True)
    return {"metrics": {metric: sorted(variants) for metric, variants in curves.items()}}


def single_values(call: Call) -> Mapping[str, Any]:
    """Return the values that tasks reported once, without an iteration."""
    found = []
    for identifier in texts(call.params.get("tasks")):
        values = _single_values(call.tx.events(identifier, SCALAR))
        if values:
            kind = "model" if call.flag("model_events") else "task"
            owner = call.tx.get(kind, identifier) or {}
            found.append({"task": identifier, "task_name": owner.get("name"), "values": values})
    return {"tasks": found}


def _single_values(events: Iterable[Doc]) -> list[Mapping[str, Any]]:
    latest: dict[tuple[str, str], Doc] = {}
    for event in events:
        if event.get("iter") == SINGLE_VALUE_ITERATION:
            latest[str(event.get("metric")), str(event.get("variant"))] = event
    return [{key: event.get(key) for key in ("metric", "variant", "value", "timestamp")} for event in latest.values()]


def _latest(events: Iterable[Doc], iterations: int) -> list[Doc]:
    """Return the events of the last iterations of each metric and variant, newest iteration first."""
    by_name: dict[tuple[str, str], list[Doc]] = {}
    for event in events:
        by_name.setdefault((str(event.get("metric")), str(event.get("variant"))), []).append(event)
    kept = []
    for _, group in sorted(by_name.items()):
        group.sort(key=lambda event: int(event.get("iter") or 0), reverse=True)
        numbers = sorted({int(event.get("iter") or 0) for event in group}, reverse=True)[:iterations]
        kept += [event for event in group if int(event.get("iter") or 0) in numbers]
    return kept


def task_plots(call: Call) -> Mapping[str, Any]:
    """Return the latest plots of a task."""
    test = _wanted(call)
    events = [event for event in call.tx.events(call.text("task"), PLOT) if test(event)]
    plots = _latest(events, number_in(call.params, "iters") or 1)
    return {"plots": plots, "returned": len(plots), "total": len(plots), "scroll_id": None}


def multi_task_plots(call: Call) -> Mapping[str, Any]:
    """Return the latest plots of several tasks, by metric, variant, task and iteration."""
    tree: dict[str, Any] = {}
    total = 0
    for identifier in texts(call.params.get("tasks")):
        owner = call.tx.get("task", identifier) or {}
        plots = _latest(call.tx.events(identifier, PLOT), number_in(call.params, "iters") or 1)
        total += len(plots)
        for plot in plots:
            node = tree.setdefault(plot["metric"], {}).setdefault(plot["variant"], {})
            leaf = node.setdefault(identifier, {}).setdefault(str(plot.get("iter") or 0), {})
            leaf.setdefault("name", owner.get("name"))
            leaf.setdefault("plots", []).append(plot)
    return {"plots": tree, "returned": total, "total": total, "scroll_id": None}


def debug_images(call: Call) -> Mapping[str, Any]:
    """Return the latest debug images of tasks, by iteration; the first page holds them all."""
    found: dict[str, list[Doc]] = {}
    if call.params.get("scroll_id"):
        return {"metrics": []}
    for item in call.params.get("metrics") or ():
        variants = texts(item.get("variants"))
        events = [
            event
            for event in call.tx.events(str(item.get("task")), IMAGE)
            if item.get("metric") in (None, event.get("metric")) and (not variants or event.get("variant") in variants)
        ]
        found.setdefault(str(item.get("task")), []).extend(_latest(events, number_in(call.params, "iters") or 1))
    metrics = [{"task": task, "iterations": _by_iteration(events)} for task, events in found.items() if events]
    return {"metrics": metrics, **({"scroll_id": new_id()} if metrics else {})}


def _by_iteration(events: Iterable[Doc]) -> list[Mapping[str, Any]]:
    groups: dict[int, list[Doc]] = {}
    for event in events:
        groups.setdefault(int(event.get("iter") or 0), []).append(event)
    return [{"iter": number, "events": groups[number]} for number in sorted(groups, reverse=True)]
