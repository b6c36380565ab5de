"""The locust user that sends images, and the course of a test when the runner started the process.

Three ways in, one user class. With `TAO2SERVE_LOADTEST_RUN` set (see records.py) the run file conducts the process:
warm-up, run time, records, end, alone or as the master of workers. With `TAO2SERVE_LOADTEST_WORKER` it is such a
worker (see cluster.py). Without both, this is an ordinary locustfile with locust's own web page, and `--images`,
`--endpoint` say what to post where.

This is the only module that imports locust: gevent patches the standard library of the whole process.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import locust
from gevent.event import Event
from locust import FastHttpUser, constant, events, runners
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS
from locust.exception import StopUser

from tao2serve.errors import InputError
from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.cluster import LOST_EXIT, Gathering, Part
from tao2serve.loadtest.plan import ClosedLoop, Target, images_within
from tao2serve.loadtest.posting import EndpointSender, Image, ToldSender, headers, load_images, paths_of
from tao2serve.loadtest.records import RUN_FILE_VARIABLE, WORKER_VARIABLE, write_records
from tao2serve.loadtest.replies import AWAY
from tao2serve.loadtest.sending import Reply, Sender
from tao2serve.loadtest.tally import Tally

_PROGRESS_INTERVAL_S = 0.5
_AWAY_PAUSE_S = 0.1  # a server that is away refuses within microseconds: failures would count the client's speed
_PROBE_S, _PROBES = 0.02, 12  # how often this process looks whether it wakes in time, and how many make a sample
_WORKER_REPORT_INTERVAL_S = 1.0  # locust's own 3 s would be waited for at the end of each test
_BURST = 8  # requests that are due already and start together
_ENDED_EXIT = 4  # nobody is there who wants to know


@dataclass(slots=True, kw_only=True)
class _Load:
    """What the users of this process share."""

    tally: Tally
    assignment: Assignment | None = None
    images: tuple[Image, ...] = ()
    numbers: Iterator[int] = field(default_factory=itertools.count)
    ready: Event = field(default_factory=Event)  # assignment and images are there
    begun: Event = field(default_factory=Event)

    def take(self, assignment: Assignment, images: tuple[Image, ...]) -> None:
        """Make what takes time, while other greenlets run (locust's heartbeat is one), and let the users come."""
        self.assignment, self.images, self.numbers = assignment, images, itertools.count()
        self.tally.open_limit = _within_files(assignment.open_limit)
        for target in assignment.targets:
            if target.protocol != "endpoint":
                from tao2serve.loadtest.tritons import make_ready

                make_ready(target, paths_of(images), timeout_s=assignment.timeout_s, between=_let_others_run)
        self.ready.set()

    def begin(self) -> None:
        assert self.assignment is not None
        self.tally.begin(warmup_s=self.assignment.warmup_s, run_time_s=self.assignment.run_time_s)
        self.begun.set()


def _let_others_run() -> None:
    gevent.sleep(0.001)  # 0 would not reach the timers that are due


def _work(user: Any) -> None:
    """Send one image in a closed loop, or keep the whole schedule of an open one."""
    user.load.begun.wait()
    if user.is_open:
        _keep_schedule(user)
        raise StopUser
    if user.load.tally.is_over:
        raise StopUser
    if user.load.tally.open_requests >= user.open_limit:
        user.load.tally.capped += 1  # it is sent, and waits in this process; see Assignment.open_limit
    free_s = user.free_at_s or time.monotonic()
    reply = _send(user, next(user.images), next(user.targets), free_s)
    if reply.error in AWAY:
        gevent.sleep(_AWAY_PAUSE_S)
    user.free_at_s = time.monotonic()


def _send_as_scheduled(user: Any, image: int, target: int, intended_s: float) -> None:
    try:
        _send(user, image, target, intended_s)
    finally:
        user.open_requests -= 1


def _send(user: Any, image: int, target: int, intended_s: float) -> Reply:
    tally: Tally = user.load.tally
    number = tally.start(user.number, image, target, intended_s)
    reply: Reply = user.senders[target].send(image)
    tally.end(number, reply)
    return reply


def _keep_schedule(user: Any) -> None:
    """Send each request at its own time, whatever became of those before."""
    assignment: Assignment = user.load.assignment
    tally: Tally = user.load.tally
    limit, begun_s, end_s = user.open_limit, tally.begun_s, tally.window_end_s
    for number, after_s in enumerate(assignment.starts_s()):
        intended_s = begun_s + after_s
        if intended_s >= end_s:
            break
        ahead_s = intended_s - time.monotonic()
        # Also when late: answers are read, and requests spawned before are sent, while this greenlet sleeps.
        if ahead_s > 0 or number % _BURST == 0:
            gevent.sleep(max(ahead_s, 0))
        if user.open_requests >= limit:
            tally.capped += 1
            while user.open_requests >= limit:
                gevent.sleep(0.001)
        user.open_requests += 1
        gevent.spawn(_send_as_scheduled, user, next(user.images), next(user.targets), intended_s)
    while user.open_requests:
        gevent.sleep(0.01)


class ImageUser(FastHttpUser):  # type: ignore[misc]
    """Sends one image after another, never two at a time; in an open loop it is all senders of its process."""

    wait_time = constant(0)
    tasks = [_work]  # noqa: RUF012  locust's own way to name the tasks of a user
    max_redirects = 0  # a redirect is an answer other than 200

    def __init__(self, environment: Any) -> None:
        self.load: _Load = environment.image_load
        self.load.ready.wait()
        assignment = self.load.assignment
        assert assignment is not None
        self.network_timeout = self.connection_timeout = assignment.timeout_s
        self.is_open = not isinstance(assignment.shape, ClosedLoop)
        self.open_limit = self.load.tally.open_limit
        # locust's own 10 would hold back the 11th open request of an open loop, without a word
        self.concurrency = max(self.open_limit, 10)
        super().__init__(environment)
        self.number = assignment.user_number(next(self.load.numbers))
        self.images = assignment.images(len(self.load.images), self.number)
        self.targets = assignment.target_indices(self.number)
        self.free_at_s = 0.0
        self.open_requests = 0
        # An answer other than 2xx would make geventhttpclient format the whole image into a log text.
        self.client.client.valid_response_codes = frozenset(range(100, 600))
        self.senders = tuple(self._sender(target, assignment.timeout_s) for target in assignment.targets)

    def _sender(self, target: Target, timeout_s: float) -> Sender:
        if target.protocol == "endpoint":
            event = self.environment.events.request
            return EndpointSender(
                self.client.client, target.url, target.label, self.load.images, event, FAILURE_EXCEPTIONS
            )
        from tao2serve.loadtest.tritons import triton_sender

        sender = triton_sender(target, paths_of(self.load.images), timeout_s=timeout_s, open_limit=self.open_limit)
        method = "POST" if target.protocol == "triton-http" else "gRPC"
        return ToldSender(sender, method, target.label, target.url, self.environment.events.request)

    def on_stop(self) -> None:
        for sender in self.senders:
            sender.close()


def _within_files(wanted: int) -> int:
    """Return how many connections this process may hold, at most `wanted`; locust has raised the limit of files."""
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else min(wanted, max(files - 100, 1))


def _add_arguments(parser: Any) -> None:
    """Say on the command line, and on locust's web page, what to post where (by hand only)."""
    if RUN_FILE_VARIABLE in os.environ or WORKER_VARIABLE in os.environ:
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


class _Resolver:
    """Asks for each host once: gevent asks in a thread for each connection, which takes longer than a request."""

    def __init__(self, resolver: Any) -> None:
        self.resolver = resolver
        self.getaddrinfo = functools.cache(resolver.getaddrinfo)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.resolver, name)


def _prepare(environment: Any, **_: object) -> None:
    """Give the users what they share, as soon as locust knows its options."""
    hub = gevent.get_hub()
    hub.resolver = _Resolver(hub.resolver)
    environment.image_load = _Load(tally=Tally(keep_rows=True))
    if path := os.environ.get(RUN_FILE_VARIABLE):
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        conduct = _conduct_workers if run["workers"] else _conduct_alone
        _in_background(lambda: conduct(environment, run))
    elif parent := os.environ.get(WORKER_VARIABLE):
        _in_background(lambda: _take_part(environment, parent=int(parent)))
    else:
        images = _chosen_images(environment.parsed_options.images)
        environment.events.test_start.add_listener(lambda **_: _start_by_hand(environment, images))


def _in_background(work: Callable[[], None]) -> None:
    # a traceback is in the log by then; the runner, or the master, says so
    gevent.spawn(work).link_exception(lambda _: os._exit(LOST_EXIT))


def _chosen_images(source: str) -> tuple[Image, ...]:
    if source:
        try:
            return load_images(images_within(Path(source)))
        except InputError as error:
            raise SystemExit(f"{error}") from error
    from PIL import Image as Picture

    picture = io.BytesIO()
    Picture.linear_gradient("L").resize((960, 544)).convert("RGB").save(picture, "JPEG")
    return (Image(path=None, body=picture.getvalue(), headers=headers(".jpg")),)


def _start_by_hand(environment: Any, images: tuple[Image, ...]) -> None:
    """Start a test from locust's own page or command line; the host may differ from the test before."""
    host = (environment.host or "").rstrip("/")
    url = host if urlsplit(host).path else f"{host}/serve/{environment.parsed_options.endpoint}"
    assignment = Assignment(
        targets=(Target(url=url),),
        shape=ClosedLoop(users=max(environment.runner.target_user_count, 1)),
        order="cycle",
        seed=1,
        warmup_s=0.0,
        run_time_s=0.0,
        timeout_s=10.0,
    )
    load = environment.image_load = _Load(tally=Tally())
    load.take(assignment, images)
    load.begun.set()  # and the window has no end: locust says when


def _conduct_alone(environment: Any, run: dict[str, Any]) -> None:
    """Let the warm-up and the run time pass, wait for the requests still open, write the records, end."""
    load: _Load = environment.image_load
    spawned = Event()
    environment.events.spawning_complete.add_listener(lambda **_: spawned.set())
    load.take(Assignment.from_dict(run["assignment"]), load_images(tuple(Path(name) for name in run["images"])))
    gevent.spawn(_report_progress, load.tally, run["progress_fd"])
    spawned.wait()
    load.begin()
    started_at = time.time() + load.tally.window_start_s - time.monotonic()
    _finish(environment, load)
    environment.runner.stop()
    _write(run, load.tally, started_at)
    environment.runner.quit()


def _finish(environment: Any, load: _Load) -> None:
    """Return when the users of this process have ended after the run time, or had their time for it."""
    tally, assignment = load.tally, load.assignment
    assert assignment is not None
    gevent.spawn(_watch_itself, tally)
    gevent.sleep(tally.window_end_s - time.monotonic())
    # Users end by themselves after the request they are in. To stop them now would be work on the one core
    # that reads their answers: measured, it made the last ones 10 to 15 ms slower.
    limit_s = tally.window_end_s + assignment.timeout_s + 1
    while environment.runner.user_count and time.monotonic() < limit_s:
        gevent.sleep(0.02)
    tally.finish()


def _watch_itself(tally: Tally) -> None:
    """Note four times a second what CPU this process used, and by how much it overslept."""
    tally.sample([])
    while not tally.finished:
        late_ms = []
        for _ in range(_PROBES):
            due_s = time.monotonic() + _PROBE_S
            gevent.sleep(_PROBE_S)
            late_ms.append((time.monotonic() - due_s) * 1000)
        tally.sample(late_ms)


def _write(run: dict[str, Any], counted: Tally | Gathering, started_at: float) -> None:
    rows = counted.rows
    header = {
        "started_at": started_at,
        "window_start_s": counted.window_start_s,
        "run_time_s": run["assignment"]["run_time_s"],
        "locust": locust.__version__,
        "python": platform.python_version(),
        "requests": len(rows),
        "capped": counted.capped,
        "open_limit": counted.open_limit,
    }
    write_records(Path(run["records"]), header, rows, samples=counted.samples)


def _conduct_workers(environment: Any, run: dict[str, Any]) -> None:
    """Have workers do it, and write what they recorded."""
    assignment = Assignment.from_dict(run["assignment"])
    master = Gathering(
        runner=environment.runner,
        assignment=assignment,
        images=tuple(Path(name) for name in run["images"]),
        count=run["workers"],
    )
    master.listen(environment.events.worker_report)
    # Locust waits for so many that are ready; those of ours may be at work by the time it looks.
    environment.parsed_options.expect_workers = 0
    _tell(run["progress_fd"], {"port": environment.runner.server.port})
    gevent.spawn(_report_progress, master, run["progress_fd"])
    started_at: list[float] = []
    failure = master.run(wait_s=run["workers_wait_s"], on_window=lambda: started_at.append(time.time()))
    if failure:
        _tell(run["progress_fd"], {"failed": failure})
        environment.runner.quit()
        os._exit(LOST_EXIT)
    _write(run, master, started_at[0])
    environment.runner.quit()


def _take_part(environment: Any, *, parent: int) -> None:
    """Be a worker: get a part from the master, do it, and let the reports carry its records."""
    runners.WORKER_REPORT_INTERVAL = _WORKER_REPORT_INTERVAL_S
    load: _Load = environment.image_load
    gevent.spawn(_end_with, parent)
    part = Part(
        runner=environment.runner,
        tally=load.tally,
        folder=Path(f"images-{os.getpid()}").resolve(),
        on_ready=lambda assignment, paths: load.take(assignment, load_images(paths)),
        on_begin=load.begin,
    )
    part.join(environment.events.report_to_master)
    load.begun.wait()
    _finish(environment, load)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone and could not end it."""
    while os.getppid() == parent:
        gevent.sleep(_PROGRESS_INTERVAL_S)
    os._exit(_ENDED_EXIT)


def _report_progress(counted: Tally | Gathering, progress_fd: int) -> None:
    """Write a progress line twice a second; without a reader the runner is gone, and this process ends."""
    while True:
        line = {
            "now_s": time.monotonic(),
            "window_start_s": counted.window_start_s,
            "window_end_s": counted.window_end_s,
            "requests": counted.requests,
            "failures": counted.failures,
        }
        _tell(progress_fd, line)
        gevent.sleep(_PROGRESS_INTERVAL_S)


def _tell(progress_fd: int, line: dict[str, Any]) -> None:
    os.set_blocking(progress_fd, False)
    try:
        os.write(progress_fd, (json.dumps(line) + "\n").encode())
    except BlockingIOError:
        pass  # a runner that is suspended misses lines, no harm done
    except BrokenPipeError:
        os._exit(_ENDED_EXIT)


events.init_command_line_parser.add_listener(_add_arguments)
events.init.add_listener(_prepare)
