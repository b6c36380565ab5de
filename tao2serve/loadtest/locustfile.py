"""The locust user that posts images, and the course of a test when the runner started the process.

Two ways in, one user class. With `TAO2SERVE_LOADTEST_RUN` set (see records.py) the run file conducts the
process: warm-up, run time, records, end. Without it, this is an ordinary locustfile with locust's own web
page, and `--images`, `--endpoint` say what to post where.

This is the only module that imports locust: gevent patches the standard library of the whole process.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import locust
from gevent.event import Event
from locust import FastHttpUser, constant, events
from locust.exception import StopUser

from tao2serve.errors import InputError
from tao2serve.loadtest.plan import images_within
from tao2serve.loadtest.records import RUN_FILE_VARIABLE, RequestRecord, write_records
from tao2serve.values import IMAGE_MEDIA_TYPES

_DETAIL_LIMIT = 300  # characters of a server's text that are worth a row in a report
_PROGRESS_INTERVAL_S = 0.5
# A server that is away refuses within microseconds: without a pause, failures would count the client's speed.
_AWAY = ("connection refused", "connection closed")
_AWAY_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    body: bytes
    headers: dict[str, str]


@dataclass(slots=True, kw_only=True)
class _Session:
    """What the users of this process share."""

    url: str
    images: tuple[_Image, ...]
    timeout_s: float
    users: int
    numbers: Iterator[int] = field(default_factory=itertools.count)
    keep_records: bool = False
    requests: int = 0
    failures: int = 0
    records: list[RequestRecord] = field(default_factory=list)
    window_start_s: float = 0.0
    window_end_s: float = 0.0

    def add(self, record: RequestRecord) -> None:
        self.requests += 1
        self.failures += not record.ok
        if self.keep_records:
            self.records.append(record)


def _post_image(user: Any) -> None:
    """Post the user's next image; any answer but 200 is a failure with the server's `detail`."""
    session: _Session = user.session
    start_s = time.monotonic()
    if start_s >= session.window_end_s > 0:
        raise StopUser
    index = next(user.order)
    image = session.images[index]
    with user.client.post(
        session.url, data=image.body, headers=image.headers, name=user.label, catch_response=True
    ) as response:
        latency_ms = response.request_meta["response_time"]
        error, detail = _failure(response)
        if error:
            response.failure(f"{error}: {detail}" if detail else error)
    session.add(
        RequestRecord(
            user=user.number,
            image=index,
            intended_s=user.free_at_s,
            start_s=start_s,
            latency_ms=latency_ms,
            status=response.status_code,
            error=error,
            detail=detail,
            timing_ms=None if error else _server_timing(response.content),
        )
    )
    if error in _AWAY:
        gevent.sleep(_AWAY_PAUSE_S)
    user.free_at_s = time.monotonic()


class ImageUser(FastHttpUser):  # type: ignore[misc]
    """Posts one image after another on one kept connection, never two at a time."""

    wait_time = constant(0)
    tasks = [_post_image]  # noqa: RUF012  locust's own way to name the tasks of a user
    max_redirects = 0  # a redirect is an answer other than 200

    def __init__(self, environment: Any) -> None:
        self.session: _Session = environment.image_session
        self.network_timeout = self.connection_timeout = self.session.timeout_s
        super().__init__(environment)
        self.number = next(self.session.numbers)
        self.label = urlsplit(self.session.url).path or "/"
        count = len(self.session.images)
        # Users start at different images, so that not all post the largest one at the same time.
        first = self.number * count // max(self.session.users, 1) % count
        self.order = itertools.chain(range(first, count), itertools.cycle(range(count)))
        self.free_at_s = time.monotonic()
        # An answer other than 2xx would make geventhttpclient format the whole image into a log text.
        self.client.client.valid_response_codes = frozenset(range(100, 600))


def _failure(response: Any) -> tuple[str, str]:
    """Return kind and detail of a failure, two empty strings if it is none."""
    exception = response.request_meta["exception"]
    if exception is not None:
        return _socket_failure(exception)
    if response.status_code == 200:
        return "", ""
    text = (response.text or "")[: 10 * _DETAIL_LIMIT]
    try:
        detail = json.loads(text)["detail"]
        text = detail if isinstance(detail, str) else json.dumps(detail)
    except (ValueError, KeyError, TypeError):
        pass  # not every server answers in JSON
    return f"HTTP {response.status_code}", " ".join(text.split())[:_DETAIL_LIMIT]


def _socket_failure(exception: BaseException) -> tuple[str, str]:
    """Name a failure below HTTP; geventhttpclient wraps some, a timeout for one, as `original`."""
    cause = getattr(exception, "original", None) or exception
    text = f"{cause}"[:_DETAIL_LIMIT]
    if isinstance(cause, TimeoutError | gevent.Timeout) or getattr(cause, "errno", None) == errno.ETIMEDOUT:
        return "timeout", ""
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused", ""
    if isinstance(cause, ConnectionError | BrokenPipeError) or type(cause).__name__ == "HTTPConnectionClosed":
        return "connection closed", text
    return type(cause).__name__, text


def _server_timing(content: bytes) -> dict[str, float] | None:
    """Return the server's `timing_ms`, None if the answer has none."""
    try:
        timing_ms = json.loads(content)["timing_ms"]
        return {str(stage): float(duration) for stage, duration in timing_ms.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _load_images(paths: tuple[Path, ...]) -> tuple[_Image, ...]:
    return tuple(
        _Image(body=path.read_bytes(), headers={"Content-Type": IMAGE_MEDIA_TYPES[path.suffix.lower()]})
        for path in paths
    )


def _add_arguments(parser: Any) -> None:
    """Say on the command line, and on locust's web page, what to post where (without a run file only)."""
    if RUN_FILE_VARIABLE in os.environ:
        return
    parser.add_argument(
        "--images",
        default="",
        env_var="TAO2SERVE_LOADTEST_IMAGES",
        include_in_web_ui=False,
        help="directory of images, or one image; without it, one drawn picture of 960x544",
    )
    parser.add_argument(
        "--endpoint", default="people", help="posts to HOST/serve/ENDPOINT, unless the host has a path itself"
    )


def _prepare(environment: Any, **_: object) -> None:
    """Give the users what they share, as soon as locust knows its options."""
    if path := os.environ.get(RUN_FILE_VARIABLE):
        _conduct_from(Path(path), environment)
        return
    images = _chosen_images(environment.parsed_options.images)
    environment.events.test_start.add_listener(lambda **_: _open_session(environment, images))


def _chosen_images(source: str) -> tuple[_Image, ...]:
    if source:
        try:
            return _load_images(images_within(Path(source)))
        except InputError as error:
            raise SystemExit(f"{error}") from error
    from PIL import Image

    picture = io.BytesIO()
    Image.linear_gradient("L").resize((960, 544)).convert("RGB").save(picture, "JPEG")
    return (_Image(body=picture.getvalue(), headers={"Content-Type": IMAGE_MEDIA_TYPES[".jpg"]}),)


def _open_session(environment: Any, images: tuple[_Image, ...]) -> None:
    """Start a test from locust's own page or command line; the host may differ from the test before."""
    host = (environment.host or "").rstrip("/")
    url = host if urlsplit(host).path else f"{host}/serve/{environment.parsed_options.endpoint}"
    environment.image_session = _Session(
        url=url, images=images, timeout_s=10.0, users=environment.runner.target_user_count
    )


def _conduct_from(path: Path, environment: Any) -> None:
    """Take session and course of the test from the run file."""
    run = json.loads(path.read_text(encoding="utf-8"))
    environment.image_session = session = _Session(
        url=run["url"],
        images=_load_images(tuple(Path(name) for name in run["images"])),
        timeout_s=run["timeout_s"],
        users=run["users"],
        keep_records=True,
    )
    spawned = Event()
    environment.events.spawning_complete.add_listener(lambda **_: spawned.set())
    course = gevent.spawn(_conduct, environment, session, spawned, run)
    course.link_exception(lambda _: os._exit(3))  # its traceback is in the log; the runner says so
    gevent.spawn(_report_progress, session, run["progress_fd"])


def _conduct(environment: Any, session: _Session, spawned: Event, run: dict[str, Any]) -> None:
    """Let the warm-up and the run time pass, wait for the requests still open, write the records, end."""
    spawned.wait()
    warmup_s, run_time_s = float(run["warmup_s"]), float(run["run_time_s"])
    session.window_start_s = time.monotonic() + warmup_s
    session.window_end_s = session.window_start_s + run_time_s
    gevent.sleep(warmup_s)
    started_at = time.time()
    gevent.sleep(session.window_end_s - time.monotonic())
    # Users end by themselves after the request they are in. To stop them now would be work on the one core
    # that reads their answers: measured, it made the last ones 10 to 15 ms slower.
    limit_s = session.window_end_s + session.timeout_s + 1
    while environment.runner.user_count and time.monotonic() < limit_s:
        gevent.sleep(0.02)
    environment.runner.stop()
    header = {
        "started_at": started_at,
        "window_start_s": session.window_start_s,
        "run_time_s": run_time_s,
        "locust": locust.__version__,
        "python": platform.python_version(),
    }
    write_records(Path(run["records"]), header, (_relative(row, session) for row in session.records))
    environment.runner.quit()


def _relative(record: RequestRecord, session: _Session) -> RequestRecord:
    """Count the record's times from the start of the run time."""
    zero_s = session.window_start_s
    return replace(record, intended_s=record.intended_s - zero_s, start_s=record.start_s - zero_s)


def _report_progress(session: _Session, progress_fd: int) -> None:
    """Write a progress line twice a second; without a reader the runner is gone, and this process ends."""
    os.set_blocking(progress_fd, False)
    while True:
        line = {
            "now_s": time.monotonic(),
            "window_start_s": session.window_start_s,
            "window_end_s": session.window_end_s,
            "requests": session.requests,
            "failures": session.failures,
        }
        try:
            os.write(progress_fd, (json.dumps(line) + "\n").encode())
        except BlockingIOError:
            pass  # a runner that is suspended misses lines, no harm done
        except BrokenPipeError:
            os._exit(4)
        gevent.sleep(_PROGRESS_INTERVAL_S)


events.init_command_line_parser.add_listener(_add_arguments)
events.init.add_listener(_prepare)
