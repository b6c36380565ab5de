"""Asking an endpoint: one image in, the documented answer out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from tao2serve.errors import InputError, NotReadyError, ServiceError
from tao2serve.registry.patience import away
from tao2serve.runtime import Detections
from tao2serve.values import IMAGE_MEDIA_TYPES, Prediction

__all__ = [
    "Answer",
    "Prediction",
    "ask",
    "media_type_of",
    "problem_of",
    "read_answer",
    "wait_for_answer",
    "wait_for_answers",
]

OK, NOT_FOUND, TOO_LARGE, UNPROCESSABLE = 200, 404, 413, 422
FAULT_LIMIT_S: Final = 60.0


class NotFoundError(ServiceError):
    """The inference service knows no endpoint of that name, or not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An endpoint's answer for one image."""

    width: int
    height: int
    endpoint: str
    version: str
    predictions: tuple[Prediction, ...]
    timing_ms: Mapping[str, float]
    document: Mapping[str, Any]  # as it came

    @property
    def detections(self) -> Detections:
        """The predictions as parallel arrays, in the answer's order."""
        found = self.predictions
        return Detections(
            xyxy=np.array([entry.bbox for entry in found], dtype=np.float32).reshape(-1, 4),
            score=np.array([entry.score for entry in found], dtype=np.float32),
            raw_score=np.array([entry.raw_score for entry in found], dtype=np.float32),
            class_id=np.array([entry.class_id for entry in found], dtype=np.int64),
        )


def ask(
    url: str,
    image: bytes,
    *,
    media_type: str = "application/octet-stream",
    timeout_s: float = 30.0,
    client: httpx.Client | None = None,
) -> Answer:
    """Post one image, over a connection of `client` if there is one.

    Raises InputError when the endpoint, or a gateway before it, refuses the image; ServiceError for everything else.
    """
    try:
        response = _post(url, image, media_type=media_type, timeout_s=timeout_s, client=client)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(
            url, "cannot be reached", evidence=str(error) or type(error).__name__, hint="is the inference service up?"
        ) from error
    if response.status_code in (UNPROCESSABLE, TOO_LARGE):
        raise InputError(url, "refused the image", evidence=_detail(response))
    if response.status_code == NOT_FOUND:
        raise NotFoundError(
            url, "is not an endpoint there", evidence=_detail(response), hint="list them: clearml-serving model list"
        )
    if response.status_code != OK:
        raise ServiceError(url, f"answered {response.status_code}", evidence=_detail(response))
    try:
        return read_answer(response.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServiceError(
            url,
            "answered something else than detections",
            evidence=response.text[:300],
            hint="is it an endpoint of tao2serve?",
        ) from error


def _post(url: str, image: bytes, *, media_type: str, timeout_s: float, client: httpx.Client | None) -> httpx.Response:
    headers = {"Content-Type": media_type}
    if client is None:
        return httpx.post(url, content=image, headers=headers, timeout=timeout_s, trust_env=False)
    try:
        return client.post(url, content=image, headers=headers, timeout=timeout_s)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        # The server may end a connection it kept just as we use it again; asking twice changes nothing.
        return client.post(url, content=image, headers=headers, timeout=timeout_s)


def problem_of(base_url: str) -> str:
    """Return why nobody answers at this URL, "" if somebody does: endpoints take POST alone, so any answer will do."""
    try:
        httpx.get(base_url, timeout=5.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    return ""


def media_type_of(path: Path) -> str:
    """Return the media type by file name; the endpoint itself looks at the bytes."""
    return IMAGE_MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def wait_for_answer(
    url: str,
    image: bytes,
    *,
    timeout_s: float,
    version: int | None = None,
    on_news: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Post the image until the endpoint answers, from `version` if one is named.

    404 or another version means that the inference service has not polled yet, which may take minutes; any
    other fault (422, 5xx, no connection) ends the wait when it lasts for FAULT_LIMIT_S. Raises NotReadyError
    with the last of these, ServiceError once ClearML is known to be away, from which the service would hear of it.
    """
    versions = None if version is None else frozenset({str(version)})
    return wait_for_answers(url, image, versions=versions, count=1, timeout_s=timeout_s, on_news=on_news)


def wait_for_answers(
    url: str,
    image: bytes,
    *,
    versions: frozenset[str] | None,
    count: int,
    timeout_s: float,
    fault_s: float | None = None,
    on_news: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Post the image until the endpoint answers `count` times in a row from one of `versions`; return the last.

    As `wait_for_answer` otherwise; `fault_s` is how long a fault may last. Several answers are asked for where several
    instances share a URL.
    """
    start = time.monotonic()
    fault_since: float | None = None
    in_a_row = 0
    while True:
        try:
            answer = ask(url, image, media_type="image/jpeg", timeout_s=min(30.0, timeout_s))
            if versions is None or answer.version in versions:
                in_a_row, fault_since = in_a_row + 1, None
                if in_a_row >= count:
                    return answer
                continue
            wanted = " or ".join(sorted(versions))
            reason, fault_since = f"version {answer.version} still answers, not {wanted}", None
        except NotFoundError as error:
            reason, fault_since = f"{error.fact}: {error.evidence}", None
        except (ServiceError, InputError) as error:
            reason, fault_since = f"{error.fact}: {error.evidence}", fault_since or time.monotonic()
        in_a_row = 0
        now = time.monotonic()
        if now - start > timeout_s or (
            fault_since is not None and now - fault_since > (FAULT_LIMIT_S if fault_s is None else fault_s)
        ):
            raise NotReadyError(
                url,
                f"does not answer as it should after {now - start:.0f} s",
                evidence=reason,
                hint="look into the inference service's log; if it polls less often than that, set "
                "TAO2SERVE_READY_TIMEOUT_S",
            )
        if (gone := away()) is not None:  # nobody hears of a new version from a ClearML that is away
            raise gone
        on_news(f"waiting {now - start:.0f} s: {reason}")
        time.sleep(0.25)


def _detail(response: httpx.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return response.text[:300]
    detail = document.get("detail") if isinstance(document, dict) else document
    return " ".join(str(detail).split())[:600]


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Return a document as an answer; raises ValueError, KeyError, TypeError or AttributeError if it is none."""
    answer = _read_answer(document)
    numbers = (number for one in answer.predictions for number in (*one.bbox, one.score, one.raw_score))
    if not all(math.isfinite(number) for number in numbers):  # Python's json takes NaN and Infinity
        raise ValueError("a box or score is not a finite number")
    return answer


def _read_answer(document: Mapping[str, Any]) -> Answer:
    return Answer(
        width=int(document["image"]["width"]),
        height=int(document["image"]["height"]),
        endpoint=str(document["model"]["endpoint"]),
        version=str(document["model"]["version"]),
        predictions=tuple(
            Prediction(
                bbox=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                score=float(entry["score"]),
                raw_score=float(entry["raw_score"]),
                class_id=int(entry["class_id"]),
                label=str(entry["label"]),
            )
            for entry in document["predictions"]
            for box in (entry["bbox"],)
        ),
        timing_ms={name: float(value) for name, value in document["timing_ms"].items()},
        document=document,
    )
