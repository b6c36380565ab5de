"""Asking an endpoint about many pictures: a few at a time over kept connections, answered in the order given."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, count
from pathlib import Path
from typing import Final

import httpx

from tao2serve.errors import InputError, ServiceError
from tao2serve.images import NamedImage, read_image
from tao2serve.serving.client import Answer, ask, media_type_of
from tao2serve.serving.drawing import ENDINGS, drawing_ending, save_drawing

__all__ = ["Asked", "ask_many", "drawing_places"]

# Decoded they take three bytes a pixel: one such picture is drawn at a time.
LARGE_PIXELS: Final = 8_000_000
GRACE_S: Final = 3.0
_AHEAD: Final = 2  # pictures in work for each connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of one picture: an answer, or the problem with it."""

    image: NamedImage
    answer: Answer | None = None
    drawing: Path | None = None
    problem: InputError | None = None


def ask_many(
    url: str,
    images: Sequence[NamedImage],
    *,
    concurrency: int = 4,
    min_score: float = 0.0,
    drawings: Sequence[Path] | None = None,
    timeout_s: float = 30.0,
) -> Generator[Asked, None, None]:
    """Yield what came of each picture, in the order given; no more than a few pictures are in memory at a time.

    Predictions below `min_score` are left out of the answers. With `drawings`, the places without ending where
    they go (`drawing_places`), each picture is drawn. A picture that cannot be read or is refused is a problem of
    its own. Raises ServiceError when the endpoint fails, after what was answered until then; UsageError if a
    drawing cannot be written.
    """
    stop = threading.Event()
    large = threading.Lock()

    def work(client: httpx.Client, index: int) -> Asked:
        image = images[index]
        try:
            body = read_image(image.path)
            if stop.is_set():
                raise _StoppedError
            answer = _above(_ask(url, image.path, body, timeout_s, client), min_score)
            drawing = None
            if drawings is not None:
                drawing = _draw(image.path, body, answer, drawings[index], large)
            return Asked(image=image, answer=answer, drawing=drawing)
        except InputError as problem:
            return Asked(image=image, problem=problem)

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    with httpx.Client(trust_env=False, limits=limits) as client, closing(_Workers(concurrency, stop)) as workers:
        window: deque[Future[Asked]] = deque()
        for index in range(len(images)):
            window.append(workers.submit(partial(work, client, index)))
            if len(window) >= _AHEAD * concurrency:
                yield from _first(window, stop)
        while window:
            yield from _first(window, stop)


def drawing_places(images: Sequence[NamedImage], folder: Path) -> tuple[Path, ...]:
    """Return where each picture's drawing goes, without the ending: a name of its own, and never that of a picture."""
    real = cache(os.path.realpath)
    given = {(real(image.path.parent), image.path.name) for image in images}
    taken: set[Path] = set()
    places = []
    for image in images:
        first = folder / f"{image.stem}-detections"
        bases = chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2)))
        place = next(
            base
            for base in bases
            if base not in taken and not any((real(base.parent), base.name + ending) in given for ending in ENDINGS)
        )
        taken.add(place)
        places.append(place)
    return tuple(places)


def _first(window: deque[Future[Asked]], stop: threading.Event) -> Iterator[Asked]:
    """Yield the first outcome; when it is the end, tell the others to stop, and yield what they have done."""
    try:
        outcome = window.popleft().result()
    except ServiceError:
        stop.set()
        for future in window:
            try:
                asked = future.result()
            except (ServiceError, _StoppedError):
                continue
            yield asked
        window.clear()
        raise
    yield outcome


def _above(answer: Answer, min_score: float) -> Answer:
    if min_score <= 0:
        return answer
    kept = tuple(one for one in answer.predictions if one.score >= min_score)
    entries = [entry for entry in answer.document["predictions"] if float(entry["score"]) >= min_score]
    return replace(answer, predictions=kept, document={**answer.document, "predictions": entries})


def _ask(url: str, path: Path, body: bytes, timeout_s: float, client: httpx.Client) -> Answer:
    try:
        return ask(url, body, media_type=media_type_of(path), timeout_s=timeout_s, client=client)
    except InputError as error:
        raise InputError(str(path), f"was refused by {url}", evidence=error.evidence) from error


def _draw(path: Path, body: bytes, answer: Answer, place: Path, large: threading.Lock) -> Path:
    """Draw one picture; large ones one at a time, whoever answers first."""
    drawing = place.with_name(place.name + drawing_ending(answer.width, answer.height))
    turn = large if answer.width * answer.height >= LARGE_PIXELS else nullcontext()
    try:
        with turn:
            return save_drawing(body, answer.predictions, path=drawing)
    except InputError as error:
        raise InputError(str(path), error.fact, evidence=error.evidence) from error


class _StoppedError(Exception):
    """The run was ended before this picture was asked about."""


class _Workers:
    """Threads that do not keep the program from ending, as those of concurrent.futures would for a hung request."""

    def __init__(self, count: int, stop: threading.Event) -> None:
        self._stop = stop
        self._tasks: queue.SimpleQueue[tuple[Future[Asked], Callable[[], Asked]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], Asked]) -> Future[Asked]:
        future: Future[Asked] = Future()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """End the threads; one that waits for an answer is left behind after a moment."""
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + GRACE_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        while (entry := self._tasks.get()) is not None:
            future, task = entry
            if self._stop.is_set():
                future.set_exception(_StoppedError())
                continue
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
