"""The locustfile: makes the load and says who conducts it, as soon as locust knows its options.

Three ways in, one user class. With `TAO2SERVE_LOADTEST_RUN` set (see records.py) the run file conducts the process:
warm-up, run time, records, end, alone or as the master of workers. With `TAO2SERVE_LOADTEST_WORKER` it is such a
worker (see cluster.py). Without both, this is an ordinary locustfile with locust's own web page (see by_hand.py).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import events

from tao2serve.loadtest.cluster import LOST_EXIT
from tao2serve.loadtest.generator.by_hand import add_arguments, listen
from tao2serve.loadtest.generator.conducting import conduct_alone, conduct_workers, take_part
from tao2serve.loadtest.generator.load import Load
from tao2serve.loadtest.generator.users import ImageUser
from tao2serve.loadtest.records import RUN_FILE_VARIABLE, WORKER_VARIABLE
from tao2serve.loadtest.tally import Tally

__all__ = ["ImageUser"]


class _Resolver:
    """Asks for each host once: gevent asks in a thread for each connection, which takes longer than a request."""

    def __init__(self, resolver: Any) -> None:
        self.resolver = resolver
        self.getaddrinfo = functools.cache(resolver.getaddrinfo)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.resolver, name)


def _prepare(environment: Any, **_: object) -> None:
    """Give the users what they share."""
    hub = gevent.get_hub()
    hub.resolver = _Resolver(hub.resolver)
    environment.image_load = Load(tally=Tally(keep_rows=True))
    if path := os.environ.get(RUN_FILE_VARIABLE):
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        conduct = conduct_workers if run["workers"] else conduct_alone
        _in_background(lambda: conduct(environment, run))
    elif parent := os.environ.get(WORKER_VARIABLE):
        _in_background(lambda: take_part(environment, parent=int(parent)))
    else:
        listen(environment)


def _in_background(work: Callable[[], None]) -> None:
    # a traceback is in the log by then; the runner, or the master, says so
    gevent.spawn(work).link_exception(lambda _: os._exit(LOST_EXIT))


if RUN_FILE_VARIABLE not in os.environ and WORKER_VARIABLE not in os.environ:
    events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(_prepare)
