"""What workers said of their machines: kept for a while, and averaged by interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...call import Call
from ...clock import epoch_ms
from ...store import Doc
from ..reading import texts

KIND = "worker_stats"
_KEPT = 500  # reports of one worker; agents report every half minute
_POINTS = 5000
_REDUCE: Mapping[str, Callable[[list[float]], float]] = {
    "avg": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
}
# What clients ask for, by the names that reports use.
_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("cpu_usage", "cpu_temperature"),
    "memory": ("memory_free", "memory_used"),
    "gpu": ("gpu_usage", "gpu_temperature", "gpu_memory_free", "gpu_memory_used"),
    "disk": ("disk_free_home", "disk_free_temp", "disk_read", "disk_write"),
    "network": ("network_rx", "network_tx"),
}


def keep(call: Call) -> None:
    """Keep the numbers of one report, and that there was one."""
    said = call.params.get("machine_stats") or {}
    values = {str(key): value for key, value in said.items() if _is_value(value)}
    sample = {"at": epoch_ms(call.now), "busy": bool(call.text("task")), "values": values}
    doc = call.tx.get(KIND, call.text("worker")) or {"id": call.text("worker"), "samples": []}
    call.tx.put(KIND, {**doc, "samples": [*doc["samples"], sample][-_KEPT:]})


def _is_value(value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return bool(numbers) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)


def metric_keys(call: Call) -> Mapping[str, Any]:
    """Name the numbers that workers have reported."""
    names = sorted({key for doc in _asked(call) for sample in doc["samples"] for key in sample["values"]})
    categories = [
        {"name": name, "metric_keys": [key for key in names if key in keys]} for name, keys in _VARIANTS.items()
    ]
    return {"categories": [category for category in categories if category["metric_keys"]]}


def get_stats(call: Call) -> Mapping[str, Any]:
    """Return the reported numbers of workers, one value an interval."""
    answers = []
    for doc in _asked(call):
        samples = [sample for sample in doc["samples"] if _begin(call) <= sample["at"] <= _end(call)]
        metrics = [
            {
                "metric": item["key"],
                "dates": [at for at, _ in points],
                "stats": [
                    {
                        "aggregation": item.get("category") or "avg",
                        "dates": [at for at, _ in points],
                        "values": [value for _, value in points],
                    }
                ],
            }
            for item in call.params["items"]
            if (points := list(_points(call, samples, str(item["key"]), str(item.get("category") or "avg"))))
        ]
        if metrics:
            answers.append({"worker": doc["id"], "metrics": metrics})
    return {"workers": answers}


def activity(call: Call) -> Mapping[str, Any]:
    """Count the workers that reported in each interval: all, and those that ran a task."""
    width_ms = _width_ms(call)
    dates = [_begin(call) + width_ms * index for index in range(_intervals(call))]
    total: list[set[str]] = [set() for _ in dates]
    active: list[set[str]] = [set() for _ in dates]
    for doc in call.tx.scan(KIND):
        for sample in doc["samples"]:
            index = (sample["at"] - _begin(call)) // width_ms
            if 0 <= index < len(dates):
                total[index].add(doc["id"])
                if sample["busy"]:
                    active[index].add(doc["id"])
    return {
        name: {"dates": dates, "counts": [len(found) for found in sets]}
        for name, sets in (("total", total), ("active", active))
    }


def _points(call: Call, samples: list[Doc], key: str, category: str) -> Iterator[tuple[int, float]]:
    width_ms = _width_ms(call)
    by_interval: dict[int, list[float]] = {}
    for sample in samples:
        value = sample["values"].get(key)
        if value is not None:
            numbers = value if isinstance(value, list) else [value]
            by_interval.setdefault((sample["at"] - _begin(call)) // width_ms, []).extend(numbers)
    for index, values in sorted(by_interval.items()):
        yield _begin(call) + index * width_ms, _REDUCE.get(category, _REDUCE["avg"])(values)


def _asked(call: Call) -> Iterator[Doc]:
    wanted = texts(call.params.get("worker_ids"))
    for doc in call.tx.scan(KIND):
        if not wanted or doc["id"] in wanted:
            yield doc


def _begin(call: Call) -> int:
    return round(1000 * float(call.params["from_date"]))


def _end(call: Call) -> int:
    return round(1000 * float(call.params["to_date"]))


def _width_ms(call: Call) -> int:
    return max(int(call.params["interval"]), 1) * 1000


def _intervals(call: Call) -> int:
    return min(max((_end(call) - _begin(call)) // _width_ms(call), 0), _POINTS)
