"""What an endpoint version counts about its requests, for Prometheus (docs/watch.md).

Nothing is counted unless the service's environment names a port or a file to expose it on. Labels are the names of
our own settings and classes, never anything a request holds, so there are as many series as the deployment makes.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

from .answer import ServedModel
from .cells import Family, Series, open_cells
from .exporter import Target, export, say_once, target

__all__ = ["FAMILIES", "Meter", "Reply", "measured_by"]

STATUSES: Final = ("200", "422", "499", "500", "503", "504")
KINDS: Final = {"422": "image", "499": "cancelled", "500": "defect", "503": "unavailable", "504": "timeout"}
STAGES: Final = ("preprocess", "infer", "postprocess", "total")
CANCELLED, DEFECT = "499", "500"
CLASS_LIMIT: Final = 64  # classes that are counted one by one
OTHER_CLASSES: Final = "(other)"

_VERSION: Final = ("endpoint", "version")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REQUESTS: Final = Family(
    name="tao2serve_requests", help="Requests answered, by HTTP status.", kind="counter", labels=(*_VERSION, "status")
)
FAILURES: Final = Family(
    name="tao2serve_failures",
    help="Requests that got no detections: image (refused), unavailable, timeout (Triton), cancelled, defect.",
    kind="counter",
    labels=(*_VERSION, "kind"),
)
IN_FLIGHT: Final = Family(
    name="tao2serve_requests_in_flight", help="Requests being answered now.", kind="gauge", labels=_VERSION
)
DURATION: Final = Family(
    name="tao2serve_request_duration_seconds",
    help="Time from a request's arrival at the endpoint to its answer, failures included.",
    kind="histogram",
    labels=_VERSION,
    bounds=_SECONDS,
)
STAGE: Final = Family(
    name="tao2serve_stage_duration_seconds",
    help="Time one image spent in a stage.",
    kind="histogram",
    labels=(*_VERSION, "stage"),
    bounds=_SECONDS,
)
IMAGES: Final = Family(
    name="tao2serve_request_images",
    help="Images of a request that was answered.",
    kind="histogram",
    labels=_VERSION,
    bounds=(1.0, 2.0, 4.0, 8.0, 16.0),
)
DETECTIONS: Final = Family(
    name="tao2serve_image_detections",
    help="Detections in one image.",
    kind="histogram",
    labels=_VERSION,
    bounds=(0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
SCORE: Final = Family(
    name="tao2serve_detection_score",
    help="Scores of the detections of a class.",
    kind="histogram",
    labels=(*_VERSION, "class"),
    bounds=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
# Copies of two releases may count side by side: a metric whose labels or bounds change gets another name.
FAMILIES: Final = (REQUESTS, FAILURES, IN_FLIGHT, DURATION, STAGE, IMAGES, DETECTIONS, SCORE)


class Reply(Protocol):
    """What the endpoint returns: a finished response that knows its document."""

    status_code: int
    document: Mapping[str, Any]


_R = TypeVar("_R", bound=Reply)


def measured_by(model: ServedModel, classes: Sequence[str]) -> Callable[[Awaitable[_R]], Awaitable[_R]]:
    """Return what a request's work is passed through: it counts, or, if metrics are off or impossible, does nothing.

    Never raises: what stands in the way of counting is logged in one sentence, once in a process.
    """
    try:
        chosen = target(os.environ)
        if chosen is None:
            return lambda work: work
        meter = Meter(model, classes, chosen)
    except Exception as error:  # whatever it is: an endpoint without metrics is better than none
        say_once(f"no metrics: {error}")
        return lambda work: work
    return meter.measured


class Meter:
    """Counts the requests of one endpoint version in this process; used from its event loop alone."""

    def __init__(self, model: ServedModel, classes: Sequence[str], chosen: Target) -> None:
        version = (model.endpoint, model.version)
        self._class_of = {name: name if at < CLASS_LIMIT else OTHER_CLASSES for at, name in enumerate(classes)}
        self._layout = (
            *(Series(family=REQUESTS, values=(*version, status)) for status in STATUSES),
            *(Series(family=FAILURES, values=(*version, kind)) for kind in KINDS.values()),
            Series(family=IN_FLIGHT, values=version),
            Series(family=DURATION, values=version),
            *(Series(family=STAGE, values=(*version, stage)) for stage in STAGES),
            Series(family=IMAGES, values=version),
            Series(family=DETECTIONS, values=version),
            *(Series(family=SCORE, values=(*version, name)) for name in dict.fromkeys(self._class_of.values())),
        )
        self._at: dict[tuple[str, str], int] = {}  # where the numbers of a series begin, by metric and last label
        start = 0
        for series in self._layout:
            self._at[series.family.name, series.values[-1]] = start
            start += series.family.cells
        self._version = model.version
        self._cells = open_cells(chosen.folder, self._layout)
        export(chosen)

    async def measured(self, work: Awaitable[_R]) -> _R:
        """Await a request's work, and count how it ended, how long it took and what was found."""
        start = perf_counter()
        _guarded(self._add, IN_FLIGHT, self._version, 1)
        status = DEFECT
        try:
            reply = await work
            status = str(reply.status_code) if str(reply.status_code) in STATUSES else DEFECT
            if status == "200":
                _guarded(self._found, reply.document)
            return reply
        except asyncio.CancelledError:
            status = CANCELLED
            raise
        finally:
            _guarded(self._ended, status, start)

    def _ended(self, status: str, start: float) -> None:
        self._add(IN_FLIGHT, self._version, -1)
        self._add(REQUESTS, status, 1)
        if status in KINDS:
            self._add(FAILURES, KINDS[status], 1)
        self._observe(DURATION, self._version, perf_counter() - start)

    def _found(self, document: Mapping[str, Any]) -> None:
        answers = document.get("results", (document,))
        self._observe(IMAGES, self._version, len(answers))
        for answer in answers:
            for stage in STAGES:
                self._observe(STAGE, stage, answer["timing_ms"][stage] / 1e3)
            predictions = answer["predictions"]
            self._observe(DETECTIONS, self._version, len(predictions))
            for one in predictions:
                self._observe(SCORE, self._class_of[one["label"]], one["score"])

    def _add(self, family: Family, last: str, amount: float) -> None:
        self._cells[self._at[family.name, last]] += amount

    def _observe(self, family: Family, last: str, value: float) -> None:
        start = self._at[family.name, last]
        self._cells[start + bisect_left(family.bounds, value)] += 1
        self._cells[start + len(family.bounds) + 1] += value


def _guarded(counting: Callable[..., None], *arguments: Any) -> None:
    """Count; what goes wrong is logged, once in a process, and never a request's concern."""
    try:
        counting(*arguments)
    except Exception as error:
        say_once(f"not all is counted: {type(error).__name__}: {error}")
