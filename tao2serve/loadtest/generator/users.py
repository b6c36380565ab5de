"""The locust user that sends images: one after another in a closed loop; in an open one it keeps the schedule."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import gevent
from locust import User, constant
from locust.exception import StopUser

from tao2serve.loadtest.assignment import Assignment
from tao2serve.loadtest.generator.load import Load
from tao2serve.loadtest.generator.schedule import Schedule
from tao2serve.loadtest.plan import ClosedLoop, Target
from tao2serve.loadtest.posting import EndpointSender, ToldSender, paths_of
from tao2serve.loadtest.replies import AWAY
from tao2serve.loadtest.sending import Reply, Sender
from tao2serve.loadtest.tally import Tally

__all__ = ["ImageUser"]

_AWAY_PAUSE_S = 0.1  # a server that is away refuses within microseconds: failures would count the client's speed


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
    reply = user.send(next(user.images), next(user.targets), free_s)
    if reply.error in AWAY:
        gevent.sleep(_AWAY_PAUSE_S)
    user.free_at_s = time.monotonic()


def _keep_schedule(user: Any) -> None:
    assignment: Assignment = user.load.assignment
    tally: Tally = user.load.tally
    starts_s: Iterator[float] = (tally.begun_s + after_s for after_s in assignment.starts_s())
    Schedule(
        send=user.send,
        starts_s=itertools.takewhile(lambda start_s: start_s < tally.window_end_s, starts_s),
        images=user.images,
        targets=user.targets,
        limit=user.open_limit,
        tally=tally,
    ).keep()


class ImageUser(User):  # type: ignore[misc]
    """Sends one image after another, never two at a time; in an open loop it is all senders of its process."""

    wait_time = constant(0)
    tasks = [_work]  # noqa: RUF012  locust's own way to name the tasks of a user

    def __init__(self, environment: Any) -> None:
        self.load: Load = environment.image_load
        self.load.ready.wait()
        assignment = self.load.assignment
        assert assignment is not None
        super().__init__(environment)
        self.is_open = not isinstance(assignment.shape, ClosedLoop)
        self.open_limit = self.load.tally.open_limit
        self.number = assignment.user_number(next(self.load.numbers))
        self.images = assignment.images(len(self.load.images), self.number)
        self.targets = assignment.target_indices(self.number)
        self.free_at_s = 0.0
        self.senders = tuple(self._sender(target, assignment.timeout_s) for target in assignment.targets)

    def send(self, image: int, target: int, intended_s: float) -> Reply:
        """Send an image now, and count what came of it."""
        tally = self.load.tally
        number = tally.start(self.number, image, target, intended_s)
        reply = self.senders[target].send(image)
        tally.end(number, reply)
        return reply

    def _sender(self, target: Target, timeout_s: float) -> Sender:
        sender: Sender
        if target.protocol == "endpoint":
            sender = EndpointSender(target.url, self.load.images, timeout_s=timeout_s)
        else:
            from tao2serve.loadtest.tritons import triton_sender

            sender = triton_sender(target, paths_of(self.load.images), timeout_s=timeout_s)
        method = "gRPC" if target.protocol == "triton-grpc" else "POST"
        return ToldSender(sender, method, target.label, target.url, self.environment.events.request)

    def on_stop(self) -> None:
        for sender in self.senders:
            sender.close()
