"""Senders in a process as locust makes it: gevent has patched it, and users are greenlets.

    triton_loop.py CONFIG

CONFIG is JSON: `target`, `images`, `users`, `run_time_s`, `timeout_s`, and a process to `kill` after half the run
time, or 0. It prints JSON: `note`, the replies that were
complete, `elapsed_s`, and `ticks`, how often another greenlet that sleeps 10 ms at a time woke up meanwhile.
"""

from gevent import monkey

monkey.patch_all()

import dataclasses  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from tao2serve.loadtest.plan import Target  # noqa: E402
from tao2serve.loadtest.tritons import triton_sender  # noqa: E402

config = json.loads(sys.argv[1])
images = tuple(Path(image) for image in config["images"])
sender = triton_sender(Target(**config["target"]), images, timeout_s=config["timeout_s"])
started_s = time.monotonic()
replies = []
ticks = 0


def user(number: int) -> None:
    while time.monotonic() - started_s < config["run_time_s"]:
        replies.append(dataclasses.asdict(sender.send(number)))
        if replies[-1]["error"]:
            gevent.sleep(0.05)


def tick() -> None:
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1


def kill() -> None:
    gevent.sleep(config["run_time_s"] / 2)
    os.kill(config["kill"], signal.SIGKILL)


clock = gevent.spawn(tick)
if config["kill"]:
    gevent.spawn(kill)
gevent.joinall([gevent.spawn(user, number) for number in range(config["users"])])
elapsed_s = time.monotonic() - started_s
clock.kill()
sender.close()
print(json.dumps({"note": sender.note, "replies": replies, "elapsed_s": elapsed_s, "ticks": ticks}), flush=True)
os._exit(0)
