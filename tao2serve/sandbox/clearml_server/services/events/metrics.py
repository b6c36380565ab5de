"""What a task remembers of its reports: last values, extremes, means, and when each metric last moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ...store import Doc

SCALAR = "training_stats_scalar"
SINGLE_VALUE_ITERATION = -(2**31)
_MEAN_DIGITS = 2
_TOTALS = "_totals"  # sums behind the means; the underscore keeps it inside the server


def key_of(name: str) -> str:
    """Return the key of a metric or variant in `last_metrics`."""
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def fold_scalar(last: Mapping[str, Any] | None, event: Doc, *, total: float) -> dict[str, Any]:
    """Return the summary of a scalar after one more report; `total` is the sum of all its values."""
    value, iteration = event["value"], int(event.get("iter") or 0)
    if not last:
        extremes = {
            f"{name}{suffix}": part
            for name in ("min_value", "max_value", "first_value")
            for suffix, part in (("", value), ("_iteration", iteration))
        }
        return {
            "metric": str(event.get("metric") or ""),
            "variant": str(event.get("variant") or ""),
            "value": value,
            **extremes,
            "count": 1,
            "mean_value": value,
        }
    entry = {**last, "value": value, "count": last["count"] + 1}
    if value < last["min_value"]:
        entry |= {"min_value": value, "min_value_iteration": iteration}
    if value > last["max_value"]:
        entry |= {"max_value": value, "max_value_iteration": iteration}
    entry["mean_value"] = round(total / entry["count"], _MEAN_DIGITS)
    return entry


def fold_events(doc: Doc, events: list[Doc]) -> Doc:
    """Return the task (or model) after these events: last metrics, last iteration, statistics.

    `metric_stats` tells of these events only, as the recorded server's does.
    """
    metrics = {metric: dict(variants) for metric, variants in doc.get("last_metrics", {}).items()}
    stats: dict[str, Any] = {}
    totals = dict(doc.get(_TOTALS) or {})
    last_iteration = int(doc.get("last_iteration") or 0)
    for event in events:
        metric, variant = str(event.get("metric") or ""), str(event.get("variant") or "")
        iteration = int(event.get("iter") or 0)
        if iteration != SINGLE_VALUE_ITERATION:
            last_iteration = max(last_iteration, iteration)
        if event["type"] == SCALAR:
            name, key = f"{key_of(metric)}.{key_of(variant)}", key_of(variant)
            totals[name] = totals.get(name, 0) + event["value"]
            variants = metrics.setdefault(key_of(metric), {})
            variants[key] = fold_scalar(variants.get(key), event, total=totals[name])
        stats[key_of(metric)] = _fold_statistics(stats.get(key_of(metric)), metric, event)
    changed = {"last_metrics": metrics, "metric_stats": stats, "last_iteration": last_iteration}
    return {**doc, **changed, _TOTALS: totals}


def _fold_statistics(last: Mapping[str, Any] | None, metric: str, event: Doc) -> dict[str, Any]:
    by_type = dict((last or {}).get("event_stats_by_type", {}))
    by_type[event["type"]] = {"last_update": event["timestamp"]}
    return {"metric": metric, "event_stats_by_type": by_type}
