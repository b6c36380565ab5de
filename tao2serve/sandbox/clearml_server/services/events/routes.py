"""The endpoints of `events`."""

from __future__ import annotations

from ...call import Route
from ...validation import listing, names, text
from . import ingest, read

_TASK = text("task", required=True)
_TASKS = names("tasks", min_items=1)

_METRICS = listing("metrics", items=(text("metric"), text("task"), names("variants")))

ROUTES = (
    Route(name="events.add", handler=ingest.add),
    Route(name="events.add_batch", handler=ingest.add_batch, batch=True),
    Route(name="events.delete_for_task", handler=ingest.delete_for_task, fields=(_TASK,)),
    Route(name="events.get_task_log", handler=read.task_log, fields=(_TASK,), version="2.9"),
    Route(
        name="events.get_task_events", handler=read.task_events, fields=(_TASK, text("event_type"), text("scroll_id"))
    ),
    Route(
        name="events.scalar_metrics_iter_histogram",
        handler=read.scalar_histogram,
        fields=(_TASK, text("key"), _METRICS),
    ),
    Route(name="events.get_scalar_metrics_and_variants", handler=read.scalar_names, fields=(_TASK,)),
    Route(name="events.get_task_single_value_metrics", handler=read.single_values, fields=(_TASKS,)),
    Route(name="events.get_task_plots", handler=read.task_plots, fields=(_TASK, _METRICS), version="1.8"),
    Route(name="events.get_multi_task_plots", handler=read.multi_task_plots, fields=(_TASKS,), version="1.8"),
    Route(name="events.debug_images", handler=read.debug_images, fields=(_METRICS,), version="2.7"),
)
